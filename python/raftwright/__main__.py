"""`python -m raftwright` is the command `raftwright`."""

from __future__ import annotations

from raftwright.cli import main

if __name__ == "__main__":
    main()
