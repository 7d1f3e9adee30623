"""`POST /notifications`, before the application that only reads: a store tells of its objects.

Who posts shows a secret in each record; tokens are for readers, and a store has none. The answer comes after
the ledger has what was told: a store that gets another one tells it again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from raftwright.errors import FormatError, RaftwrightError
from raftwright.events.notifications import MAX_BYTES, parse

__all__ = ["Application", "with_webhook"]

_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]

PATH: Final = "/notifications"
_WAIT: Final = 30.0
"""Seconds that a body may take."""
_AT_A_TIME: Final = 4


def with_webhook(take: Callable[[bytes, str], int], secret: str) -> Callable[[Any], Application]:
    """What puts it before an application. `take` gets bodies and where they came from; StorageError of it is
    answered with 503."""

    def before(application: Any) -> Application:
        free = asyncio.Semaphore(_AT_A_TIME)

        async def answer(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
            if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
                await application(scope, receive, send)
                return
            async with free:
                code, message = await _answer(scope, receive, take, secret)
            body = json.dumps({"error": code >= 400, "message": message}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            if code == 503:
                headers.append((b"retry-after", b"2"))
            await send({"type": "http.response.start", "status": code, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return answer

    return before


async def _answer(
    scope: MutableMapping[str, Any], receive: _Receive, take: Callable[[bytes, str], int], secret: str
) -> tuple[int, str]:
    try:
        body = await asyncio.wait_for(_body(receive), _WAIT)
        said = parse(body, secret=secret)
    except TimeoutError:
        return 408, "the body did not come"
    except FormatError as error:
        return 400, str(error)[:300]
    if any("secret" in refused.reason for refused in said.refused):
        return 403, "a record does not have the secret; see that the store sends it"
    client = scope.get("client") or ("?", 0)
    try:
        new = await asyncio.to_thread(take, body, f"webhook, from {client[0]}")
    except RaftwrightError as error:
        return 503, str(error)[:300]
    return 200, f"{new} new"


async def _body(receive: _Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise FormatError("the body ends before its end")
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            raise FormatError(f"a notification is no longer than {MAX_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)
