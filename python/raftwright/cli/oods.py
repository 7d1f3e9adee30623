"""`raftwright oods`: the Observatory Operations Data Service and its repository."""

from __future__ import annotations

from typing import Annotated

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.oods_keeping import pin, retention, tag, unpin, untag
from raftwright.cli.oods_service import again, run, status
from raftwright.cli.options import JsonOption, names

__all__ = ["app"]

app = typer.Typer(
    help="Images of the last weeks through the Butler: the repository, and the service that fills it.",
    rich_markup_mode=None,
    no_args_is_help=False,
)


@app.command("init")
def init(
    repo: Annotated[
        str, typer.Option("--repo", metavar="DIR", help="Directory of the repository.", show_default=False)
    ],
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            metavar="URL",
            help="postgresql://user@host/database.  [default: SQLite in the repository]",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", metavar="NAME", help="Schema of the registry in PostgreSQL.", show_default=False
        ),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            "--camera",
            metavar="NAME|FILE",
            help="Camera or camera file; may be repeated.  [default: LATISS, LSSTComCam, LSSTCam]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a Butler repository, or complete one: instruments, detectors, dataset types, collections.

    May be run again, also to add a camera; nothing that is there is changed.
    """
    del json
    console.command = "oods init"
    from raftwright.butler import make_repository

    with make_repository(repo, db_url=registry, namespace=namespace, cameras=names(camera) or ()) as made:
        instruments = {each.name: len(each.detectors) for each in made.cameras}
        collections = {
            each.name: {
                "raw": made.run_of("raw", each.name),
                "guider": made.run_of("guider", each.name),
                "all": made.chain_of(each.name),
            }
            for each in made.cameras
        }
        where = made.root
    console.say(f"repository {where}")
    for name, number in instruments.items():
        console.say(f"  {name}: {count(number, 'detector')}, read from {collections[name]['all']}")
    console.answer(
        "ok", Exit.OK, {"repository": where, "instruments": instruments, "collections": collections}
    )


for command in (run, status, again, retention, pin, unpin, tag, untag):
    app.command(command.__name__)(command)
