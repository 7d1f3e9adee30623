"""What the tests of mirrors share: a tree that they write, a far side that they look at."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from raftwright.mirror import Mirror, Settings, TreeSettings
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.tables import Entry
from raftwright.service import Life

__all__ = ["Stand", "wait_for"]


def wait_for(check: Callable[[], object], seconds: float = 10.0, why: object = "") -> None:
    """Until something is so."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, why() if callable(why) else why or "it did not come to that"
        time.sleep(0.01)


class Stand:
    """Source and far side in a directory of the test's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path / "source"
        self.far = path / "far"
        self.manifest = path / "manifest.db"
        self.news: list[dict[str, Any]] = []
        self._running: list[Mirror] = []
        self.source.mkdir()
        self.far.mkdir()

    def settings(self, place: Mapping[str, Any] | None = None, **more: Any) -> TreeSettings:
        """Quick ones."""
        to = {"name": "far", "kind": "directory", "root": str(self.far), "backoff": 0.05, "longest": 0.5}
        given = {
            "name": "tree",
            "source": str(self.source),
            "to": {**to, **(place or {})},
            "manifest": str(self.manifest),
            "every": 0.2,
            "settle": 0.2,
            "calm": 0.05,
            "gone_after": 0.2,
            **more,
        }
        return msgspec.convert(given, TreeSettings)

    @contextmanager
    def mirror(self, place: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Mirror]:
        """One that runs."""
        how = {key: more.pop(key) for key in ("once", "trial", "checksum", "patience") if key in more}
        made = Mirror(Settings(trees=[self.settings(place, **more)]), self.path, Life(drain=2.0), **how)
        made.observer = lambda what, facts: self.news.append({"what": what, **facts})
        self._running.append(made)
        try:
            made.start()
            yield made
        finally:
            made.stop()
            self._running.remove(made)

    def once(self, place: Mapping[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
        """A run that ends by itself; what it did with files."""
        before = len(self.news)
        with self.mirror(place, **{"once": True, "patience": 5.0, **more}) as mirror:
            wait_for(lambda: mirror.idle, 60, mirror.status)
        return [item for item in self.news[before:] if item["what"] == "file"]

    def close(self) -> None:
        """Ends what runs."""
        for mirror in list(self._running):
            mirror.stop(0.0)

    # -- the tree

    def write(self, name: str, content: bytes | str = b"content") -> Path:
        """A file of the tree."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def files(self, root: Path | None = None) -> dict[str, bytes]:
        """Names and contents; of links where they point."""
        root = root or self.source
        found = {}
        for directory, names, files in os.walk(root):
            if Path(directory) == root and ".versions" in names:
                names.remove(".versions")
            for name in [*files, *(n for n in names if os.path.islink(os.path.join(directory, n)))]:
                path = Path(directory) / name
                text = os.path.relpath(path, root)
                found[text] = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        return found

    def there(self) -> dict[str, bytes]:
        """What the far side has."""
        return self.files(self.far)

    def versions(self) -> dict[str, list[bytes]]:
        """Contents that are kept, by the name they had, in order."""
        root = self.far / ".versions"
        found: dict[str, list[tuple[int, bytes]]] = {}
        for directory, _, files in os.walk(root):
            for name in files:
                at = os.path.relpath(directory, root)
                if at != ".new":
                    number = int(name.split("-")[0].removeprefix("v"))
                    found.setdefault(at, []).append((number, (Path(directory) / name).read_bytes()))
        return {at: [content for _, content in sorted(several)] for at, several in found.items()}

    def same(self) -> bool:
        """Whether both sides have the same files now."""
        try:
            return self.files() == self.there()
        except FileNotFoundError:
            return False

    def entry(self, name: str) -> Entry:
        """Of the manifest, which no mirror may have open."""
        manifest = Manifest(self.manifest, trial=True)
        try:
            found = manifest.at(name)
        finally:
            manifest.close()
        assert found is not None, name
        return found
