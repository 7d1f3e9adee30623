"""Mirrors of trees that somebody else writes."""

from __future__ import annotations
