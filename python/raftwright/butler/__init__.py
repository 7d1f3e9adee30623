"""A Butler repository of raws: made, filled, read and cleaned."""

from __future__ import annotations
