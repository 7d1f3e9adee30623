"""Who may connect: answers libzmq's question about each client's key (ZAP, RFC 27)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import zmq
from zmq.utils import z85

from raftwright.stream.refusals import Refusals

__all__ = ["Doorman"]

_ENDPOINT = "inproc://zeromq.zap.01"


class Doorman:
    """Lets in clients whose public key is on a list, which may change while it runs."""

    def __init__(
        self, context: zmq.Context[Any], allowed: Callable[[], Collection[str]], refusals: Refusals
    ) -> None:
        self._allowed = allowed
        self._refusals = refusals
        self._stop = threading.Event()
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ENDPOINT)
        self.counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="stream doorman", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Ends it; whether it ended in time."""
        self._stop.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._socket.poll(100):
                    self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        except zmq.ContextTerminated:
            return
        finally:
            self._socket.close()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        version, number, _domain, address, _identity, mechanism, *credentials = [*request, *[b""] * 7][
            : max(len(request), 7)
        ]
        status, text = b"400", b"not allowed"
        if version == b"1.0" and mechanism == b"CURVE" and len(credentials[0]) == 32:
            key = z85.encode(credentials[0]).decode("ascii")
            try:
                welcome = key in self._allowed()
            except Exception as error:  # the list cannot be read: nobody new comes in
                welcome = False
                self._refusals.add("keys", "the key store", str(error))
            if welcome:
                status, text = b"200", b"OK"
                self.counts["admitted"] += 1
            else:
                self._refusals.add(
                    "key", address.decode("ascii", "replace"), f"public key {key} is not on the list"
                )
        return [b"1.0", number, status, text, b"", b""]
