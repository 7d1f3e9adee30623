"""TAI, which all times of raftwright are in, and UTC. Imports nothing, and any room may import it."""

from __future__ import annotations

from typing import Final

__all__ = ["TAI_MINUS_UTC"]

TAI_MINUS_UTC: Final = 37
"""Seconds by which TAI has been ahead of UTC since 2017-01-01 (IERS Bulletin C 52; none announced since)."""
