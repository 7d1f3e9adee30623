"""`raftwright keys`: key pairs of this machine, and which clients its servers let in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.options import JsonOption

if TYPE_CHECKING:
    from raftwright.stream.keys import KeyStore

__all__ = ["app"]

app = typer.Typer(
    help="Keys: pairs for encrypted connections, and the clients that a server lets in.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, _ . and -.")]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--key-store", metavar="DIR", help="[default: ~/.config/raftwright/keys]", show_default=False
    ),
]


class _TakesKey(TyperCommand):
    """A command whose last argument is a key. One key in 85 begins with `-`: it is no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts what has the form of a key behind everything else, where options have ended."""
        from raftwright.stream.keys import is_key

        options = {name for parameter in self.params for name in parameter.opts}
        keys = [
            word
            for word in args
            if word.startswith("-") and word.partition("=")[0] not in options and is_key(word)
        ]
        if keys and "--" not in args:
            args = [*(word for word in args if word not in keys), "--", *keys]
        return super().parse_args(ctx, args)


def _store(directory: Path | None, command: str) -> KeyStore:
    from raftwright.stream.keys import KeyStore

    console.command = f"keys {command}"
    return KeyStore(directory)


@app.command("new")
def new_keys(name: NameArgument, key_store: StoreOption = None, json: JsonOption = False) -> None:
    """Make a key pair. The secret stays in its file, which only you can read."""
    del json
    store = _store(key_store, "new")
    pair = store.new(name)
    console.say(f"{name}: {pair.public}", f"  in {store.directory}; the secret is in {name}.secret")
    console.answer("ok", Exit.OK, {"name": name, "public": pair.public, "directory": store.directory})


@app.command("list")
def list_keys(key_store: StoreOption = None, json: JsonOption = False) -> None:
    """List the keys, and the clients that are let in."""
    del json
    store = _store(key_store, "list")
    pairs = [(name, store.has_secret(name), store.public(name)) for name in store.names()]
    allowed = store.allowed()
    rows: list[tuple[object, ...]] = [
        (name, "pair" if secret else "public", public) for name, secret, public in pairs
    ]
    rows += [(name, "client", public) for name, public in sorted(allowed.items())]
    console.say(*columns([("name", "what", "public key"), *rows]) if rows else ["no keys"])
    console.answer(
        "ok",
        Exit.OK,
        {
            "directory": store.directory,
            "keys": [{"name": name, "secret": secret, "public": public} for name, secret, public in pairs],
            "allowed": allowed,
        },
    )


@app.command("show")
def show_key(name: NameArgument, key_store: StoreOption = None, json: JsonOption = False) -> None:
    """Print a public key, for those who connect."""
    del json
    public = _store(key_store, "show").public(name)
    console.say(public)
    console.answer("ok", Exit.OK, {"name": name, "public": public})


@app.command("add", cls=_TakesKey)
def add_key(
    name: NameArgument,
    public: Annotated[str, typer.Argument(metavar="KEY", help="Somebody's public key.")],
    key_store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Keep the public key of a server, to connect to it by name."""
    del json
    _store(key_store, "add").add(name, public)
    console.say(f"{name}: {public}")
    console.answer("ok", Exit.OK, {"name": name, "public": public})


@app.command("allow", cls=_TakesKey)
def allow_client(
    name: NameArgument,
    public: Annotated[str, typer.Argument(metavar="KEY", help="The client's public key.")],
    key_store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Let a client in. Servers that run with --allowed see it at once."""
    del json
    _store(key_store, "allow").allow(name, public)
    console.say(f"{name} is let in")
    console.answer("ok", Exit.OK, {"name": name, "public": public})


@app.command("revoke")
def revoke_client(name: NameArgument, key_store: StoreOption = None, json: JsonOption = False) -> None:
    """Let a client in no longer. A connection that it has stays until it ends."""
    del json
    _store(key_store, "revoke").revoke(name)
    console.say(f"{name} is let in no longer")
    console.answer("ok", Exit.OK, {"name": name})
