"""A WebDAV server as a place, by the client of lsst.resources, which knows dCache and XRootD from the others.

A file is put under a hidden name, read back whole, and moved to its own where nothing has it (`Overwrite:
F`). What the server says of sums is not asked for. WebDAV knows no files that are held, and no part of a
file."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from raftwright import _core
from raftwright.errors import ConflictError, NotFoundError, RaftwrightError
from raftwright.transfer.bodies import Body
from raftwright.transfer.claims import Claims
from raftwright.transfer.extras import need
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent
from raftwright.transfer.pouring import NewFile
from raftwright.transfer.sources import checked_source
from raftwright.transfer.targets import HIDDEN, aside, check_text, checked, is_ours
from raftwright.transfer.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from raftwright.transfer.place import Place
    from raftwright.transfer.sender import Why

__all__ = ["WebdavSender"]

_STEP: Final = 1 << 20
_DEEPEST: Final = 64
_REMEMBERED: Final = 10_000
_ODD: Final = ";?#%"
"""In a name, where servers are known to take a `Destination` for another one."""
_ONLY_LOOK: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_TAKEN: Final = 412
_FILE_ALONE: Final = frozenset({400, 404, 405, 409, 411, 412, 413, 414, 415, 423})
"""Answers that concern one file and not the place."""


class _Last(threading.local):
    """What the server said last, to this thread."""

    status = 0
    answer: Any = None


class WebdavSender:
    """See `Sender`. Raises MissingExtraError without the extra `webdav`."""

    def __init__(self, destination: Place) -> None:
        need(f"destination {destination.name}", "webdav", "lsst.resources", "urllib3")
        self._place = destination
        self._root = destination.root.rstrip("/")
        self._throttle = Throttle(destination.bandwidth)
        self._claims = Claims()
        self._lock = threading.Lock()
        self._made: dict[tuple[str, ...], None] = {}
        """Directories that are there."""
        self._client_made: Any = None
        self._last = _Last()

    # -- the connection

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._client_made is None:
                self._client_made = self._make()
            return self._client_made

    def _make(self) -> Any:
        """A client of lsst.resources that fits the server. Raises OutageError."""
        from lsst.resources import davutils

        parts = urlsplit(self._root)
        base = f"{parts.scheme}://{parts.netloc}/"
        config = davutils.DavConfigPool("LSST_RESOURCES_WEBDAV_CONFIG").get_config_for_url(base)
        place = self._place
        if place.token or place.user or place.authority:
            config = davutils.DavConfig({"trusted_authorities": place.authority or None})

        def client(kind: Any) -> Any:
            made = kind(base, config)
            if place.token:
                made._authorizer = davutils.TokenAuthorizer(place.token)
            elif place.user:
                made._authorizer = davutils.BasicAuthorizer(place.user, place.password)
            made._request = functools.partial(self._request, made._request)
            return made

        with self._said(base):
            plain = client(davutils.DavClient)
            server = plain.get_server_details(self._root + "/").get("Server", "").lower()
            for name, kind in (("dcache", davutils.DavClientDCache), ("xrootd", davutils.DavClientXrootD)):
                if server.startswith(name):
                    return client(kind)
        return plain

    def _request(self, request: Callable[..., Any], method: str, url: str, **more: Any) -> Any:
        """As the client's own: but the lane tries again, not the client, no wait is longer than ours, and
        what the server said last is known."""
        import urllib3

        patience = max(1.0, min(self._place.timeout, 60.0))
        more["timeout"] = urllib3.Timeout(connect=min(10.0, patience), read=patience)
        if "retries" not in more:
            more["retries"] = urllib3.Retry(
                total=None,
                connect=0,
                read=1,  # a connection that was idle may have ended meanwhile
                status=0,
                other=0,
                redirect=3,
                allowed_methods=_ONLY_LOOK,
                respect_retry_after_header=False,
            )
        self._last.status = 0
        answer = request(method, url, **more)
        self._last.status, self._last.answer = answer.status, answer
        return answer

    @contextlib.contextmanager
    def _said(self, shown: str) -> Iterator[None]:
        """What the client raises, in our words."""
        import urllib3.exceptions

        try:
            yield
        except RaftwrightError:
            raise
        except FileNotFoundError:
            raise NotFoundError(f"{shown}: is not there") from None
        except Exception as error:  # it reads what a server says, and raises whatever comes of that
            said = f"{shown}: {' '.join(str(error).split())[:500] or type(error).__name__}"
            status = 0 if isinstance(error, urllib3.exceptions.HTTPError) else self._last.status
            if status in _FILE_ALONE:
                with self._lock:
                    self._made.clear()  # somebody may have removed them
                raise RefusedError(said) from None
            raise OutageError(said) from None

    def warm(self) -> str:
        """Raises OutageError."""
        self.probe()
        return f"WebDAV {self._root}"

    def probe(self) -> None:
        """Raises OutageError."""
        try:
            with self._said(self._root):
                there = self._client.stat(self._root + "/").is_dir
        except RefusedError as error:
            raise OutageError(str(error)) from None
        if not there:
            raise OutageError(f"{self._root}: there is no such directory; make it")
        if self._place.immutable == "required":
            raise OutageError(f"{self._root}: WebDAV knows no files that are held; ask for less")

    def close(self) -> None:
        """Closes connections, and ends what waits for its turn."""
        self._throttle.close()
        with self._lock:
            if self._client_made is not None:
                self._client_made._pool_manager.clear()

    # -- bringing

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        parts = checked(job.target)
        url, shown = self._url(parts), self._shown(parts)
        checked_source(job)
        with self._said(shown):
            there = self._client.stat(url)
            if not there.exists:
                with self._claims.of(job) as name:
                    moved = self._bring(job, parts, name, shown)
                if moved is not None:
                    return moved
                there = self._client.stat(url)
            if there.is_file and there.size == job.bytes and self._read(url) == job.crc32c:
                return Sent(how="there already", place=shown)
        raise ConflictError(f"{shown}: another content has this name; it is left as it is, look at both")

    def _bring(self, job: Job, parts: tuple[str, ...], name: str, shown: str) -> Sent | None:
        """By way of a hidden name. None where its own was taken meanwhile."""
        self._folder(parts[:-1])
        url, hidden = self._url(parts), self._url((*parts[:-1], name))
        try:
            with open(job.path, "rb") as stream:
                body = Body(stream, 0, job.bytes, self._throttle)
                body.sending = True
                self._client.put(hidden, headers={"Content-Length": str(job.bytes)}, data=body)
            found = self._read(hidden)
        except FileNotFoundError:
            raise RefusedError(f"{shown}: the server said that it has it, and it is not there") from None
        if found != job.crc32c:
            self._client.delete(hidden)
            checked_source(job)
            raise RefusedError(
                f"{shown}: what came back has the CRC-32C {found}, the file {job.crc32c}; it is not kept"
            )
        try:
            moved = self._move(hidden, url, shown)
        except ValueError:
            status = self._last.status  # what is told is why the move was refused
            with contextlib.suppress(Exception):
                self._client.delete(hidden)
            self._last.status = status
            raise
        if not moved:
            self._client.delete(hidden)
            return None
        now = self._client.stat(url)
        if not now.is_file or now.size != job.bytes:
            raise RefusedError(f"{shown}: is not what was moved there a moment ago")
        return Sent(how="put", bytes=job.bytes, place=shown)

    def _move(self, url: str, new: str, shown: str) -> bool:
        """False where the name is taken. Raises OutageError, RefusedError."""
        answer = self._client.move(url, new, overwrite=False)
        if answer.status == _TAKEN:
            return False
        if answer.status not in (201, 204):
            raise ValueError(f"MOVE {shown}: the server answers {answer.status} {answer.reason}")
        return True

    def _folder(self, parts: tuple[str, ...]) -> None:
        with self._lock:
            if parts in self._made:
                return
        self.probe()
        for number in range(len(parts)):
            self._client.mkcol(self._url(parts[: number + 1]))
        with self._lock:
            self._made[parts] = None
            while len(self._made) > _REMEMBERED:
                del self._made[next(iter(self._made))]

    def _read(self, url: str, to: Callable[[bytes], object] | None = None) -> str:
        """CRC-32C of what is there. Raises FileNotFoundError and what urllib3 raises."""
        crc = 0
        self._last.answer = None
        try:
            _, answer = self._client.get(url, headers={"Cache-Control": "no-cache"}, preload_content=False)
            for piece in answer.stream(_STEP, decode_content=False):
                crc = _core.crc32c(piece, crc)
                if to is not None:
                    to(piece)
        except BaseException:
            if self._last.answer is not None:
                self._last.answer.close()  # its connection is of no more use
            raise
        answer.release_conn()
        return f"{crc:08x}"

    def protect(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        self._known(target)
        if self._place.immutable == "required":
            raise RefusedError(f"{self._shown(checked(target))}: cannot be held, WebDAV knows no such thing")
        return ""

    def unprotect(self, target: str) -> None:
        """Raises NotFoundError, OutageError, RefusedError."""
        self._known(target)

    # -- looking

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Raises OutageError, RefusedError."""
        waiting = [checked(folder.rstrip("/")) if folder.rstrip("/") else ()]
        while waiting:
            parts = waiting.pop()
            if len(parts) > _DEEPEST:
                raise RefusedError(f"{self._root}: has directories more than {_DEEPEST} deep; look at it")
            for name, size in self._list(parts):
                found = (*parts, name)
                if is_ours(found):
                    continue
                if size is None:
                    waiting.append(found)
                else:
                    yield "/".join(found), size

    def sizes(self, folder: str) -> dict[str, int]:
        """Raises OutageError, RefusedError."""
        parts = checked(folder.rstrip("/")) if folder.rstrip("/") else ()
        return {
            name: size for name, size in self._list(parts) if size is not None and not name.startswith(HIDDEN)
        }

    def _list(self, parts: tuple[str, ...]) -> list[tuple[str, int | None]]:
        """Names in a directory, and their bytes: None for directories."""
        url = self._url(parts)
        above = unquote(urlsplit(url).path, errors="surrogateescape").rstrip("/") + "/"
        found: list[tuple[str, int | None]] = []
        try:
            with self._said(self._shown(parts)):
                entries = self._client.read_dir(url + "/")
        except NotFoundError:
            if not parts:
                raise OutageError(f"{self._root}: there is no such directory; make it") from None
            return []
        for entry in entries:
            path = unquote(urlsplit(entry.href).path, errors="surrogateescape").rstrip("/")
            if path + "/" == above:
                continue
            name = path.removeprefix(above)
            if not path.startswith(above) or "/" in name or name in ("", ".", ".."):
                raise RefusedError(
                    f"{self._shown(parts)}: the server lists {ascii(entry.href)[:200]}, which is not in it"
                )
            found.append((name, None if entry.is_dir else int(entry.size)))
        return found

    def has(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        parts = checked(target)
        with self._said(self._shown(parts)):
            return bool(self._client.stat(self._url(parts)).exists)

    def crc32c(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        parts = checked(target)
        with self._said(self._shown(parts)):
            return self._read(self._url(parts))

    def fetch(self, target: str, path: Path) -> str:
        """Raises NotFoundError, OutageError, RefusedError, StorageError."""
        parts = checked(target)
        with NewFile(path) as copy, self._said(self._shown(parts)):
            return self._read(self._url(parts), copy.write)

    # -- changing

    def set_aside(self, target: str, why: Why) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        url = self._known(target)
        for number in itertools.count(1):
            new = aside(checked(target), why, number)
            shown = self._shown(new)
            with self._said(shown):
                self._folder(new[:-1])
                if self._move(url, self._url(new), shown):
                    return "/".join(new)
        raise AssertionError

    def remove(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        parts = checked(target)
        with self._said(self._shown(parts)):
            there = self._client.stat(self._url(parts))
            if not there.exists:
                return False
            if there.is_dir:
                raise RefusedError(f"{self._shown(parts)}: is a directory and no file; it stays")
            self._client.delete(self._url(parts))
        return True

    def _known(self, target: str) -> str:
        """URL of what is there. Raises NotFoundError, OutageError, RefusedError."""
        parts = checked(target)
        with self._said(self._shown(parts)):
            if not self._client.stat(self._url(parts)).exists:
                raise NotFoundError(f"{self._shown(parts)}: is not there")
        return self._url(parts)

    def _url(self, parts: tuple[str, ...]) -> str:
        check_text("/".join(parts), _ODD)
        return "/".join([self._root, *(quote(part.encode(), safe="") for part in parts)])

    def _shown(self, parts: tuple[str, ...]) -> str:
        return ascii("/".join([self._root, *parts]))[1:-1]
