"""The hand-off to the data backbone: verified replicas, and the side that receives them."""

from __future__ import annotations
