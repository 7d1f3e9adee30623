"""The version, as the compiled core was built with it: the one source is the project() call of CMake."""

from __future__ import annotations

from raftwright._core import build_info

__version__: str = str(build_info()["version"])
