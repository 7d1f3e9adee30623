"""The Observatory Operations Data Service: images of the last weeks, through the Butler, POSIX and HTTP."""

from __future__ import annotations
