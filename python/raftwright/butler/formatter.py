"""How a Butler reads our files. Named in the repository's configuration, so that any process that has
raftwright with the extra `butler` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from raftwright.butler.reading import Raw, read_guider, read_raw
from raftwright.butler.software import FormatterV2
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from raftwright.camera import Camera

__all__ = ["GuiderFormatter", "RawFormatter", "remember_cameras"]

_known: dict[str, Camera] = {}
"""Cameras of the repositories that this process has open, which are not built in, by INSTRUME."""


def remember_cameras(cameras: list[Camera]) -> None:
    """From now on raws of these are put together without the reader's naming the camera."""
    for camera in cameras:
        for name in (camera.instrume, camera.name, *camera.aliases):
            _known[name.lower()] = camera


class RawFormatter(FormatterV2):
    """Raw files, compressed or not. Components `header`, `segments`, `segment`, `mosaic`; parameters as in
    `reading.Raw`, and `camera` (name or file) for cameras that are neither built in nor the repository's."""

    default_extension: ClassVar[str] = ".fits"
    supported_extensions: ClassVar[frozenset[str]] = frozenset({".fits", ".fits.fz", ".fits.gz", ".fz"})
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Raises FormatError, NotFoundError, StorageError, UsageError."""
        del expected_size
        raw = read_raw(path, self.file_descriptor.parameters or {}, _known)
        if component is None:
            return raw
        if component not in ("header", "segments", "segment", "mosaic"):
            raise UsageError(f"a raw has no component {component[:40]!r}")
        found = getattr(raw, component)
        return dict(found) if component == "segments" else found

    def write_local_file(self, in_memory_dataset: Any, uri: Any) -> None:
        """Raws come from a camera: they are ingested, never put. Raises `UsageError`."""
        what = in_memory_dataset if isinstance(in_memory_dataset, Raw) else "this"
        raise UsageError(f"{uri}: {what} cannot be put; raws are ingested as the files that they are")


class GuiderFormatter(FormatterV2):
    """Files of guider stamps. Components `header` and `stamps`."""

    default_extension: ClassVar[str] = ".fits"
    supported_extensions: ClassVar[frozenset[str]] = RawFormatter.supported_extensions
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Raises `FormatError`."""
        del expected_size
        return read_guider(path, component)
