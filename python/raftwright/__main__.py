"""`python -m raftwright` is the command `raftwright`."""

from __future__ import annotations

import sys

from raftwright.cli import main

if __name__ == "__main__":
    sys.exit(main())
