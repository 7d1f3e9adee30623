"""A data socket: pulls of many peers, served in turn by one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Final

import zmq

from raftwright.daq.store import check_range, cut_gaps
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.stream import messages, wire
from raftwright.stream.inbound import check_count, next_message, peer_of
from raftwright.stream.messages import End, encode
from raftwright.stream.peers import CutError, FullError, GoneError, Limits, NoBufferError, Peer
from raftwright.stream.pulls import Pull
from raftwright.stream.refusals import Refusals
from raftwright.stream.sending import Sender
from raftwright.stream.shelf import Shelf
from raftwright.stream.wire import Header, Type, WireError

__all__ = ["Delivery"]

_log = logging.getLogger("raftwright.stream")

_LIVE_INTERVAL: Final = 0.005
"""Seconds between two looks at sources that are being read out."""
_LOOKS: Final = 64
"""Sources in such a look; with more of them looks are rarer."""
_RETRY: Final = 0.01
"""Seconds until a peer whose queue was full is tried again."""
_BATCH: Final = 256
"""Messages read before chunks are sent again."""
_MOST_PEERS: Final = 256
"""Connections with pulls at one socket."""
_MOST_BODY: Final = 65536
"""Bytes of a frame on a data socket; orders are short."""


class Delivery:
    """Answers PULL, CREDIT and CANCEL at one endpoint, until told to stop.

    Views that a source gives are sent as they are; other sources are read into buffers, whose memory is
    bounded. A peer for which too much is under way waits, others go on.
    """

    def __init__(self, shelf: Shelf, limits: Limits, refusals: Refusals, sender: Sender, name: str) -> None:
        self._shelf = shelf
        self._limits = limits
        self._sender = sender
        self._refusals = refusals
        self._name = name
        self._stop = threading.Event()
        self._peers: dict[bytes, Peer] = {}
        self._queue: deque[Peer] = deque()
        self._dry: dict[Pull, None] = {}
        """Pulls whose source has nothing now."""
        self._outbox = sender.outbox
        self._paused: dict[Pull, None] = {}
        """Pulls that an injected fault holds up."""
        self._hungry: list[Peer] = []
        """Peers for whose next chunk no buffer was free."""
        self._next_look = 0.0
        self._next_beat = 0.0
        self.counts = sender.counts
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, socket: Any) -> None:
        """Takes over a bound socket; only this object's thread uses it from now on."""
        self._sender.socket = socket
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end."""
        self._stop.set()
        self._outbox.wake()

    def join(self, timeout: float) -> bool:
        """Waits for it; whether it ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._outbox.close()
        return True

    def status(self) -> dict[str, Any]:
        """Numbers of this moment."""
        peers = list(self._peers.values())
        return {
            "peers": len(peers),
            "pulls": sum(len(peer.pulls) for peer in peers),
            "in_flight": self._outbox.in_flight,
            "buffers": self._outbox.held,
            **self.counts,
        }

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._turn()
                except CutError:
                    continue  # with the new socket
                except zmq.ContextTerminated:
                    return
                except Exception:
                    # A mistake of ours must not end the service of all others.
                    self.counts["internal"] += 1
                    _log.exception("%s: internal error; pulls of all peers are given up", self._name)
                    self._forget_all()
                    self._stop.wait(0.1)
        finally:
            self._sender.socket.close()

    def _turn(self) -> None:
        outbox, socket = self._outbox, self._sender.socket
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(outbox.fd, zmq.POLLIN)
        while not self._stop.is_set():
            now = time.monotonic()
            events = dict(poller.poll(self._patience(now)))
            if outbox.fd in events:
                outbox.drain()
            if socket in events:
                self._receive()
            self._collect()
            now = time.monotonic()
            if now >= self._next_beat:
                self._beat(now)
            if self._dry and now >= self._next_look:
                self._look(now)
            for _ in range(8):
                if self._queue:
                    self._serve(self._queue.popleft())

    def _patience(self, now: float) -> int:
        """Milliseconds that the next poll may take."""
        self._outbox.waiting = False
        if self._queue:
            return 0
        self._outbox.waiting = True
        if self._collect():  # what came before `waiting` was set
            return 0
        wait = 1.0
        if self._peers:
            wait = min(wait, self._next_beat - now)
        if self._dry:
            wait = min(wait, self._next_look - now)
        return max(0, min(1000, int(wait * 1000) + 1))

    def _collect(self) -> bool:
        """Takes note of what was sent; whether anything was."""
        done = self._outbox.collect()
        for identity, size in done:
            peer = self._peers.get(identity)
            if peer is not None:
                peer.in_flight = max(0, peer.in_flight - size)  # some may be of a connection before
                if peer.queue and not peer.waiting and peer.in_flight < self._limits.window:
                    self._enqueue(peer)
                elif not peer.pulls and not peer.in_flight:
                    self._peers.pop(identity, None)
        if done and self._hungry:
            hungry, self._hungry = self._hungry, []
            for peer in hungry:
                self._enqueue(peer)
        return bool(done)

    # -- what comes in

    def _receive(self) -> None:
        for _ in range(_BATCH):
            message = next_message(self._sender.socket)
            if message is None:
                return
            self._handle(*message)

    def _handle(self, frames: list[Any], count: int) -> None:
        identity = frames[0].bytes
        request = 0
        try:
            check_count(count)
            header = wire.unpack(frames[1].buffer)
            request = header.request
            if header.type is Type.CREDIT:
                wire.check_body(header, frames[2].buffer)
                self._credit(identity, header)
            elif header.type is Type.PULL:
                body = frames[2].bytes
                wire.check_body(header, body)
                self._pull(identity, header, body)
            elif header.type is Type.CANCEL:
                wire.check_body(header, frames[2].buffer)
                self.counts["cancelled"] += 1
                self._close(identity, header.request)
            else:
                raise WireError("unknown-type", f"a data socket does not take {header.type.name}")
        except WireError as error:
            self._refusals.add(error.code, peer_of(frames[-1], identity), str(error))
            self._sender.error(identity, request, error.code, str(error), error.more)

    def _credit(self, identity: bytes, header: Header) -> None:
        peer = self._peers.get(identity)
        pull = None if peer is None else peer.pulls.get(header.request)
        if peer is None or pull is None:
            return  # it has ended meanwhile
        pull.credit += header.length
        if pull.credit > self._limits.credit:
            self._close(identity, header.request)
            raise WireError(
                "limit", f"more than {self._limits.credit} bytes of credit for one pull; grant less at a time"
            )
        self._make_ready(peer, pull)

    def _pull(self, identity: bytes, header: Header, body: bytes) -> None:
        self.counts["pull_requests"] += 1
        order = messages.decode(body, messages.Pull, _MOST_BODY)
        limits = self._limits
        peer = self._peers.get(identity)
        low, high = limits.chunk
        if header.request == 0 or (peer is not None and header.request in peer.pulls):
            raise WireError("malformed", f"request number {header.request} is 0 or taken; use a new one")
        if header.image_key != wire.image_key(order.image) or header.source_key != wire.source_key(
            order.location
        ):
            raise WireError("malformed", "the keys of the header are not those of the names in the body")
        if not low <= order.chunk <= high:
            raise WireError("limit", f"chunks of {order.chunk} bytes; there are those of {low} to {high}")
        if order.credit > limits.credit:
            raise WireError("limit", f"credit of {order.credit} bytes; up to {limits.credit} can be granted")
        if peer is not None and len(peer.pulls) >= limits.pulls:
            raise WireError(
                "limit", f"more than {limits.pulls} pulls of one connection; wait for some to end"
            )
        if peer is None and len(self._peers) >= _MOST_PEERS:
            raise WireError("busy", f"{_MOST_PEERS} clients are pulling here; try again later")
        try:
            shelved = self._shelf.image(order.image)
            source = shelved.image.source(order.location)
            try:
                check_range(source.info, header.offset, header.length)
            except UsageError as error:
                raise WireError("range", str(error)) from None
            pull = Pull(
                identity,
                header.request,
                order,
                (header.image_key, header.source_key),
                (header.offset, header.length),
                shelved,
                source,
                time.monotonic(),
            )
            pull.refresh(time.monotonic())
        except WireError:
            raise
        except Exception as error:
            self._failed(identity, header.request, error, "not-found")
            return
        if peer is None:
            peer = self._peers[identity] = Peer(identity)
            if len(self._peers) == 1:
                self._next_beat = min(self._next_beat, time.monotonic() + self._limits.heartbeat / 4)
        peer.pulls[header.request] = pull
        self._make_ready(peer, pull)

    # -- what goes out

    def _make_ready(self, peer: Peer, pull: Pull) -> None:
        """Puts a pull where it belongs: its peer's queue, among the dry ones, or nowhere (no credit)."""
        if pull.paused_until > 0.0:
            self._paused[pull] = None
            self._next_beat = min(self._next_beat, pull.paused_until)
            return
        if not pull.ranges and not pull.final:
            self._dry[pull] = None
            return
        self._dry.pop(pull, None)
        if not pull.ready and (pull.ended or pull.piece() is not None):
            pull.ready = True
            if pull.ended:
                peer.queue.appendleft(pull)
            else:
                peer.queue.append(pull)
            if not peer.waiting:
                self._enqueue(peer)

    def _enqueue(self, peer: Peer) -> None:
        peer.waiting = True
        self._queue.append(peer)

    def _serve(self, peer: Peer) -> None:
        """Sends one chunk of a peer's next pull."""
        peer.waiting = False
        now = time.monotonic()
        if self._peers.get(peer.identity) is not peer or not peer.queue:
            return
        if peer.in_flight >= self._limits.window or now < peer.paused_until:
            return  # `_collect` or `_beat` brings it back
        pull = peer.queue.popleft()
        pull.ready = False
        try:
            self._send_next(peer, pull, now)
        except NoBufferError:
            peer.queue.appendleft(pull)
            pull.ready = True
            peer.waiting = True
            self._hungry.append(peer)
            return
        except FullError:
            peer.queue.appendleft(pull)
            pull.ready = True
            peer.paused_until = now + _RETRY
            self._next_beat = min(self._next_beat, now + _RETRY)
            return
        except GoneError:
            self._forget(peer)
            return
        except CutError:
            self._forget_all()
            raise
        except Exception as error:
            self._close(peer.identity, pull.request)
            self._failed(peer.identity, pull.request, error, "gone")
        if peer.queue and not peer.waiting:
            self._enqueue(peer)

    def _send_next(self, peer: Peer, pull: Pull, now: float) -> None:
        piece = pull.piece()
        if piece is not None:
            self._sender.chunk(peer, pull, *piece, now)
            if not pull.ranges:
                pull.refresh(now)
        elif pull.ended:
            self._end(peer, pull)
            return
        self._make_ready(peer, pull)

    def _end(self, peer: Peer, pull: Pull) -> None:
        info = pull.source.info
        arrived = pull.source.available(0, info.bytes)
        gaps = cut_gaps(tuple(arrived), 0, info.bytes)
        body = encode(End(bytes=info.bytes, sent=pull.sent, crc32c=info.crc32c, gaps=gaps))
        if len(body) > wire.MAX_BODY_TO_CLIENT:
            raise StorageError(27, f"has too many gaps to tell ({len(gaps)})", pull.order.image)
        self._sender.say(peer, pull, Type.END, body)
        self.counts["ended"] += 1
        self._close(peer.identity, pull.request)

    def _failed(self, identity: bytes, request: int, error: Exception, missing: str) -> None:
        """Tells what the store raised. `missing` is the code where it says that there is nothing."""
        if isinstance(error, zmq.ZMQError):
            raise error
        if isinstance(error, NotFoundError):
            code = missing
        elif isinstance(error, OSError | FormatError):
            code = "storage"
        else:
            code = "internal"
            _log.error("%s: %r while serving a pull", self._name, error, exc_info=error)
        self.counts[f"error_{code}"] += 1
        text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
        self._sender.error(identity, request, code, text[:4000] or type(error).__name__)

    # -- timers

    def _look(self, now: float) -> None:
        """Asks sources that are being read out for more."""
        self._next_look = now + _LIVE_INTERVAL * (1 + len(self._dry) // _LOOKS)
        for pull in list(self._dry):
            peer = self._peers.get(pull.peer)
            if peer is None or peer.pulls.get(pull.request) is not pull:
                self._dry.pop(pull, None)
                continue
            try:
                pull.refresh(now)
            except Exception as error:
                self._close(pull.peer, pull.request)
                self._failed(pull.peer, pull.request, error, "gone")
                continue
            if pull.ranges or pull.final:
                self._make_ready(peer, pull)

    def _beat(self, now: float) -> None:
        """WAIT where nothing was said for half a heartbeat; peers whose pause is over go on."""
        quiet = self._limits.heartbeat * 0.4
        self._next_beat = now + self._limits.heartbeat / 10
        self._resume(now)
        for peer in list(self._peers.values()):
            if peer.paused_until > now:
                self._next_beat = min(self._next_beat, peer.paused_until)
                continue
            try:
                for pull in list(peer.pulls.values()):
                    if now - pull.last_message >= quiet and now >= pull.silent_until:
                        self._wait(peer, pull, now)
            except FullError:
                peer.paused_until = now + self._limits.heartbeat / 10
            except GoneError:
                self._forget(peer)
                continue
            if peer.queue and not peer.waiting and peer.in_flight < self._limits.window:
                self._enqueue(peer)

    def _resume(self, now: float) -> None:
        for pull in list(self._paused):
            if pull.paused_until > now:
                self._next_beat = min(self._next_beat, pull.paused_until)
                continue
            pull.paused_until = 0.0
            self._paused.pop(pull)
            peer = self._peers.get(pull.peer)
            if peer is not None and peer.pulls.get(pull.request) is pull:
                self._make_ready(peer, pull)

    def _wait(self, peer: Peer, pull: Pull, now: float) -> None:
        try:
            info = pull.source.info
            there = sum(end - begin for begin, end in pull.source.available(0, info.bytes))
        except Exception as error:
            self._close(peer.identity, pull.request)
            self._failed(peer.identity, pull.request, error, "gone")
            return
        self._sender.say(peer, pull, Type.WAIT, offset=there)
        pull.last_message = now

    # -- ends

    def _close(self, identity: bytes, request: int) -> None:
        peer = self._peers.get(identity)
        pull = None if peer is None else peer.pulls.pop(request, None)
        if peer is None or pull is None:
            return
        self._dry.pop(pull, None)
        if pull.ready:
            peer.queue.remove(pull)
            pull.ready = False
        if not peer.pulls and not peer.in_flight:
            self._peers.pop(identity, None)

    def _forget(self, peer: Peer) -> None:
        """The peer cannot be reached any more."""
        self._peers.pop(peer.identity, None)
        self.counts["peers_lost"] += 1
        self.counts["pulls_lost"] += len(peer.pulls)
        for pull in peer.pulls.values():
            self._dry.pop(pull, None)

    def _forget_all(self) -> None:
        for peer in list(self._peers.values()):
            self._forget(peer)
        self._queue.clear()
        self._hungry.clear()
        self._dry.clear()
        self._paused.clear()
