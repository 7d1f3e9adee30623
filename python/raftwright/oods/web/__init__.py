"""The OODS over HTTP, for reading alone: what there is, headers, files, pictures, presence.

Answers come from the ledger and from the files themselves; the Butler is not asked.
"""

from __future__ import annotations
