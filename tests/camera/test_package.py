"""`raftwright.camera` is a package and a function at once."""

from __future__ import annotations

import raftwright.camera
import raftwright.camera.placement as by_path
from raftwright.camera import Camera, camera, placement


def test_the_package_is_a_function_too() -> None:
    assert raftwright.camera("MiniCam") is camera("MiniCam")  # type: ignore[operator,unused-ignore]
    assert isinstance(camera("MiniCam"), Camera)
    assert raftwright.camera.placement is placement is by_path


def test_public_names_are_there() -> None:
    for name in raftwright.camera.__all__:
        assert getattr(raftwright.camera, name) is not None
