"""`raftwright control`: a command for a running service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raftwright.cli.configs import ConfigOption, read
from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.options import JsonOption, duration
from raftwright.errors import RaftwrightError, UsageError

__all__ = ["control"]


class _RefusedError(RaftwrightError):
    """The service said no."""


def control(
    service: Annotated[
        str,
        typer.Argument(metavar="NAME|ENDPOINT", help="A service of the configuration, or tcp://.., ipc://.."),
    ],
    command: Annotated[
        str,
        typer.Argument(
            help="health, status, faults, start, enable, disable, standby, resetFault, reload, or its own."
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of its own commands.")
    ] = None,
    config: ConfigOption = None,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="NAME", help="Own key pair.", show_default=False)
    ] = None,
    server_key: Annotated[
        str | None,
        typer.Option("--server-key", metavar="KEY", help="Public key of the service.", show_default=False),
    ] = None,
    key_store: Annotated[
        str | None, typer.Option("--key-store", metavar="DIR", help="[default: ~/.config/raftwright/keys]")
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="For the answer.")] = "60s",
    json: JsonOption = False,
) -> None:
    """Command a running service, and tell what came of it.

    A service that refuses, or fails, says why; the exit code is then 1.
    """
    del json
    console.command = "control"
    from raftwright.service.control import ask

    endpoint = service if "://" in service else _endpoint(service, config)
    pair = None
    if keys is not None:
        from raftwright.stream.keys import KeyStore

        if server_key is None:
            raise UsageError("--keys needs --server-key, the public key of the service")
        pair = KeyStore(key_store).secret(keys)
    answer = ask(
        endpoint,
        command,
        _arguments(arguments or []),
        timeout=duration(timeout, "--timeout"),
        keys=pair,
        server_key=server_key or "",
    )
    facts = {
        "service": answer.service,
        "state": answer.state,
        "ok": answer.ok,
        "reason": answer.reason,
        "data": answer.data,
    }
    if not answer.ok:
        error = _RefusedError(
            f"{answer.service or service} ({answer.state}) refuses {command}: {answer.reason}"
        )
        error.report = _Report(facts)  # type: ignore[attr-defined]
        raise error
    console.say(f"{answer.service}: {answer.state}")
    console.say(
        *columns([(f"  {key}", _short(value)) for key, value in answer.data.items() if key != "state"])
    )
    console.answer("ok", Exit.OK, facts)


class _Report:
    """What is told with an error in JSON mode."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def to_dict(self) -> dict[str, Any]:
        return self.content


def _endpoint(name: str, config: Any) -> str:
    from raftwright.service.table import SERVICES

    common = read(config, shared_only=True).common
    if name not in SERVICES:
        raise UsageError(f"there is no service {name[:64]!a}; there are {', '.join(SERVICES)}")
    endpoint = common.control_of(name)
    if not endpoint:
        raise UsageError(f"{name} has no control socket: the configuration says life.control: none")
    return endpoint


def _arguments(words: list[str]) -> dict[str, Any]:
    from raftwright.service.documents import parse_value

    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word[:60]!r} is no argument; write KEY=VALUE")
        found[key] = parse_value(text, key)
    return found


def _short(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)
