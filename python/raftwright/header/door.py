"""Header documents over HTTP, for readers that do not see the archive.

    GET /<obsid>.yaml         the newest version
    GET /<obsid>.v1.yaml      that version; announcements name one, because their digest is of one

Nothing can be changed through it. It also has the pages of a status server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from raftwright.errors import FormatError, RaftwrightError
from raftwright.metrics import StatusServer
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.header.store import HeaderStore
    from raftwright.metrics import Metrics

__all__ = ["HeaderDoor"]

_PATH = re.compile(
    r"/(?P<obsid>[A-Z]{2}_[A-Z]_[0-9]{8}_[0-9]{6})(?:\.v(?P<version>[1-9][0-9]{0,3}))?\.yaml\Z"
)


class HeaderDoor(StatusServer):
    """Serves the headers of a store at `HOST:PORT`. Raises as `StatusServer`."""

    def __init__(self, store: HeaderStore, address: str, metrics: Metrics) -> None:
        self._store = store
        self._served = metrics.counter("headers_served", "Header documents that were fetched")
        super().__init__(metrics, address)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Code, content type and body of a GET."""
        match = _PATH.match(path.partition("?")[0])
        if match is None:
            return super().answer(path)
        try:
            image = ImageName.parse(match["obsid"])
            data = self._store.read(image, int(match["version"]) if match["version"] else None)
        except FormatError as error:
            return 404, "text/plain", f"{error}\n".encode("ascii", "replace")
        except RaftwrightError as error:
            return 503, "text/plain", f"{error}\n".encode("ascii", "replace")
        if data is None:
            return 404, "text/plain", b"there is no such header yet\n"
        self._served.add(1)
        return 200, "application/yaml", data
