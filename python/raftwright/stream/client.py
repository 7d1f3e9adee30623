"""A store over a network: the client of the stream protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args
from urllib.parse import parse_qsl

import zmq

from raftwright.daq.info import ImageInfo, SourceInfo, decode_description
from raftwright.daq.names import is_plain_name
from raftwright.daq.store import Notice, check_range, writable_view
from raftwright.errors import NotFoundError, StorageError, UsageError
from raftwright.stream import wire
from raftwright.stream.connection import Connection
from raftwright.stream.endpoints import reachable
from raftwright.stream.keys import KeyPair, KeyStore
from raftwright.stream.messages import (
    Available,
    Folders,
    ImageReply,
    Images,
    NoticeBody,
    Query,
    Welcome,
    decode,
)
from raftwright.stream.reading import ByteReader
from raftwright.stream.wire import Type, WireError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NetworkImage", "NetworkSource", "NetworkStore", "open_endpoint"]

_KINDS = get_args(Notice.__annotations__["kind"]) or ("begun", "progress", "complete", "removed", "missed")
_PAGE = 10_000
_MOST_NAMES = 5_000_000
"""Names in a catalogue: a server that goes on for ever would fill the memory."""


class NetworkSource:
    """A source that a server publishes. Thread-safe."""

    def __init__(self, store: NetworkStore, image: str, info: SourceInfo, final: bool) -> None:
        self._store = store
        self._image = image
        self._info = info
        self._final = final
        self._ranges: list[tuple[int, int]] | None = None  # of the whole stream, once it is final

    @property
    def info(self) -> SourceInfo:
        """As the server described it when the image was asked for."""
        return self._info

    @property
    def final(self) -> bool:
        """Whether nothing will be added. Asks the server until it is so."""
        if not self._final:
            self._final = self._ask(0, 0).final
        return self._final

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Ranges [begin, end) that arrived at the server. Raises UsageError, and what the server says."""
        check_range(self._info, offset, length)
        if self._ranges is None and self._final:
            self._ranges = self._all(0, self._info.bytes)
        if self._ranges is None:
            return self._all(offset, length)
        end = offset + length
        cut = ((max(first, offset), min(last, end)) for first, last in self._ranges)
        return [(first, last) for first, last in cut if first < last]

    def _all(self, offset: int, length: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        end = offset + length
        while offset < end:
            reply = self._ask(offset, end - offset)
            for first, last in reply.ranges:
                if not offset <= first < last <= end:
                    raise WireError(
                        "malformed", f"{self._store.endpoint}: the ranges of {self._image} are not in order"
                    )
                offset = last
                found.append((first, last))
            if not reply.more or not reply.ranges:
                break
        return found

    def _ask(self, offset: int, length: int) -> Available:
        query = Query(
            "available", image=self._image, location=self._info.location, offset=offset, length=length
        )
        return self._store.connection.query(query, Available)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises UsageError, NotFoundError (the image is gone), StorageError."""
        check_range(self._info, offset, length)
        data = bytearray(length)
        self._fill(offset, memoryview(data))
        return bytes(data)

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills a buffer up to the stream's end; returns how many bytes. Raises as `read`."""
        check_range(self._info, offset, 0)
        view = writable_view(buffer)[: self._info.bytes - offset]
        self._fill(offset, view)
        return len(view)

    def _fill(self, offset: int, view: memoryview) -> None:
        ranges = self.available(offset, len(view))
        for first, last in ranges:
            part = view[first - offset : last - offset]
            self._store.reader.read(self._image, self._info.location, first, part)


class NetworkImage:
    """An image that a server publishes, as it was when it was asked for."""

    def __init__(self, store: NetworkStore, info: ImageInfo, final: dict[str, bool]) -> None:
        self._info = info
        self._sources = {
            source.location: NetworkSource(store, info.name, source, final.get(source.location, False))
            for source in info.sources
        }

    @property
    def info(self) -> ImageInfo:
        """What the server says about it. CRCs are None for what is being read out."""
        return self._info

    @property
    def final(self) -> bool:
        """Whether all its sources are. Asks the server until it is so."""
        return all(source.final for source in self._sources.values())

    def source(self, location: str) -> NetworkSource:
        """The source at a location. Raises NotFoundError."""
        if location not in self._sources:
            known = ", ".join(self._info.locations[:8]) or "none"
            raise NotFoundError(
                f"image {self._info.name} has no source {ascii(location)[:40]}; there are {known}"
            )
        return self._sources[location]


class NetworkStore:
    """What a server publishes. Thread-safe. Nothing is connected before the first question.

    Parameters
    ----------
    endpoint
        Of the server's control socket, `tcp://HOST:PORT` or `ipc://PATH`.
    keys, server_key
        For CURVE: the client's pair, and the public key of the server. With the server's alone the client
        makes itself a pair, which a server with a list of clients refuses.
    timeout
        Seconds after which a question without an answer is given up.
    name
        What the server is told, for its log.

    Raises
    ------
    UsageError
        An endpoint or keys that cannot be.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        keys: KeyPair | None = None,
        server_key: str | None = None,
        timeout: float = 10.0,
        name: str = "",
        io_threads: int = 2,
    ) -> None:
        self.connection = Connection(
            endpoint, keys=keys, server_key=server_key, timeout=timeout, name=name, io_threads=io_threads
        )
        self.reader = ByteReader(self.connection)
        self._closing = threading.Event()

    @property
    def endpoint(self) -> str:
        """Of the server's control socket."""
        return self.connection.endpoint

    @property
    def welcome(self) -> Welcome:
        """What the server said of itself. Raises StorageError (no answer), FormatError (another protocol)."""
        return self.connection.welcome or self.connection.greet()

    @property
    def session(self) -> int:
        """The server's session, a number that changes when it is started anew. Raises as `welcome`."""
        return self.welcome.session

    @property
    def stats(self) -> dict[str, int]:
        """queries, reconnects, refused (messages not of the protocol), sessions (changes of the server)."""
        return dict(self.connection.counts)

    def refresh(self, timeout: float | None = None) -> Welcome:
        """Greets the server again: it may have been started anew, elsewhere. Raises as `welcome`."""
        return self.connection.greet(timeout, anew=True)

    def data_endpoint(self, index: int) -> str:
        """Where the data connection of a number goes. Raises as `welcome`."""
        data = self.welcome.data
        return reachable(data[index % len(data)], self.endpoint)

    def folders(self) -> list[str]:
        """Names of the folders, sorted. Raises StorageError, FormatError."""
        return sorted(self.connection.query(Query("folders"), Folders).folders)

    def images(self, folder: str | None = None, after: str | None = None) -> list[str]:
        """Names of the complete images, of one folder or of all, sorted; those after a name alone."""
        if folder is not None and not is_plain_name(folder):
            return []
        names: list[str] = []
        while True:
            reply = self.connection.query(
                Query("images", folder=folder, after=names[-1] if names else after, limit=_PAGE), Images
            )
            page = [name for name in reply.images if not names or name > names[-1]]
            names.extend(sorted(set(page)))
            if len(names) > _MOST_NAMES:
                raise WireError("malformed", f"{self.endpoint}: more than {_MOST_NAMES} images")
            if not reply.more or not page:
                return names

    def underway(self) -> list[str]:
        """Names of the images that are being read out, sorted."""
        return sorted(set(self.connection.query(Query("underway"), Images).images))

    def image(self, name: str) -> NetworkImage:
        """An image by its name. Raises NotFoundError, FormatError, StorageError."""
        if not is_plain_name(name):
            raise NotFoundError(f"{self.endpoint} has no image {ascii(name)[:80]}; that is no name of one")
        reply = self.connection.query(Query("image", image=name), ImageReply)
        info = decode_description(reply.image, f"image {name} of {self.endpoint}")
        if info.name != name:
            raise WireError("malformed", f"{self.endpoint}: asked for {name}, it described {info.name}")
        return NetworkImage(self, info, {where: state.final for where, state in reply.sources.items()})

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        """What happens at the server, as it does; ends after `timeout` seconds without a notice.

        A notice `missed` comes when the subscription begins to work, when a number was left out, when the
        server was started anew, and when it is silent for three heartbeats: ask the catalogue then.
        """
        begun = time.monotonic()
        if timeout is not None and timeout <= 0:
            return
        welcome = self.connection.greet(timeout)
        quiet = begun
        while True:
            endpoint = reachable(welcome.notices, self.endpoint)
            socket = self.connection.socket(zmq.SUB, endpoint, {zmq.RCVHWM: 100_000})
            try:
                socket.setsockopt(zmq.SUBSCRIBE, wire.MAGIC)
                socket.connect(endpoint)
                for notice in _heard(socket, welcome, self._closing, quiet, timeout):
                    if notice is None:
                        return
                    yield notice
                    quiet = time.monotonic()
            finally:
                socket.close(linger=0)
            if self._closing.is_set():
                return
            yield Notice("missed", "")
            left = None if timeout is None else quiet + timeout - time.monotonic()
            if left is not None and left <= 0:
                return
            greeted = self._greeted(left)
            if greeted is None:
                return
            welcome = greeted

    def _greeted(self, left: float | None) -> Welcome | None:
        """A new greeting, waited for as long as notices are: the server may be away. None: closed."""
        until = None if left is None else time.monotonic() + left
        while True:
            some = self.connection.timeout
            if until is not None:
                some = min(some, max(0.05, until - time.monotonic()))
            try:
                return self.connection.greet(some, anew=True)
            except (StorageError, UsageError):
                if self._closing.is_set():
                    return None
                if until is not None and time.monotonic() >= until:
                    raise

    def close(self) -> None:
        """Closes all connections; doing it again changes nothing."""
        self._closing.set()
        self.reader.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _heard(
    socket: Any, welcome: Welcome, closing: threading.Event, quiet: float, timeout: float | None
) -> Iterator[Notice | None]:
    """Notices of one subscription, until it is no good. None: it was quiet for `timeout`."""
    silence = max(3 * welcome.heartbeat, 1.0)
    heard = time.monotonic()
    sequence: int | None = None
    while not closing.is_set():
        now = time.monotonic()
        if timeout is not None and now - quiet >= timeout:
            yield None
            return
        if now - heard >= silence:
            return
        wait = min(0.25, heard + silence - now)
        if timeout is not None:
            wait = min(wait, quiet + timeout - now)
        try:
            if not socket.poll(max(1, round(1e3 * wait))):
                continue
            frames = socket.recv_multipart(flags=zmq.DONTWAIT)
            if len(frames) != 2:
                raise WireError("malformed", "a notice has two frames")
            header = wire.unpack(frames[0])
            if header.type is not Type.NOTICE:
                raise WireError("unknown-type", "no notice")
            wire.check_body(header, frames[1])
            body = decode(frames[1], NoticeBody)
        except zmq.ZMQError:
            return
        except WireError:
            continue  # a number is left out then, which is noticed with the next
        heard = time.monotonic()
        if header.session != welcome.session:
            return
        if sequence is None or header.sequence != sequence + 1:
            if sequence is not None and header.sequence <= sequence:
                continue  # came twice
            yield Notice("missed", "")
        sequence = header.sequence
        if body.kind == "alive" or body.kind not in _KINDS or not is_plain_name(body.image):
            continue
        yield Notice(body.kind, body.image, body.location, body.bytes)  # type: ignore[arg-type]
        quiet = time.monotonic()


def open_endpoint(spec: str) -> NetworkStore:
    """A store by the text of its endpoint; `?keys=NAME&server=NAME` takes keys out of the key store.

    Raises UsageError, NotFoundError (keys), StorageError (no answer) and FormatError (another protocol).
    """
    endpoint, _, options = spec.partition("?")
    given = dict(parse_qsl(options, keep_blank_values=True))
    unknown = sorted(given.keys() - {"keys", "server", "timeout"})
    if unknown:
        raise UsageError(
            f"{endpoint}: {ascii(unknown[0])[:40]} is no option; there are keys, server and timeout"
        )
    store = KeyStore()
    try:
        timeout = float(given.get("timeout", "10"))
    except ValueError:
        raise UsageError(f"{endpoint}: timeout is {ascii(given['timeout'])[:40]}; give seconds") from None
    opened = NetworkStore(
        endpoint,
        keys=store.secret(given["keys"]) if "keys" in given else None,
        server_key=store.public(given["server"]) if "server" in given else None,
        timeout=timeout,
    )
    try:
        opened.connection.greet()
    except BaseException:
        opened.close()
        raise
    return opened
