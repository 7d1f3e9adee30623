"""`raftwright mirror`: trees that somebody else writes, mirrored all the time or once."""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, size
from raftwright.cli.options import ControlOption, DryRunOption, JsonOption, MetricsOption, duration
from raftwright.cli.running import run_service
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError

if TYPE_CHECKING:
    from raftwright.mirror import Mirror, TreeSettings
    from raftwright.mirror.mirroring import TreeMirror
    from raftwright.mirror.tables import Entry

__all__ = ["app"]

app = typer.Typer(
    help="Mirror trees that somebody else writes: found, settled, brought, verified, versions kept.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

_LINES = 100

SourceArgument = Annotated[
    str | None, typer.Argument(metavar="SOURCE", help="Directory that somebody writes.", show_default=False)
]
DestArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DEST",
        help="Directory, which has to be there; s3://BUCKET/PREFIX; https://HOST/PATH of a WebDAV server.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "--config", metavar="FILE", help="Site with a section `mirror`, instead of SOURCE and DEST."
    ),
]
TreeOption = Annotated[
    str | None, typer.Option("--tree", metavar="NAME", help="Only this one of the configuration.")
]
ManifestOption = Annotated[
    str | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="What the mirror remembers.  [default: of its own in ~/.local/state/raftwright/mirror]",
        show_default=False,
    ),
]
SettleOption = Annotated[
    str | None,
    typer.Option(
        "--settle", metavar="TIME", help="A file that stays the same so long is whole.  [default: 5s]"
    ),
]
DeletedOption = Annotated[
    str | None,
    typer.Option(
        "--deleted",
        metavar="keep|mark|remove-after",
        help="There, of what is no more here.  [default: keep]",
    ),
]
LinksOption = Annotated[
    str | None,
    typer.Option(
        "--links", metavar="inside|copy|skip", help="Symbolic links; none is followed.  [default: inside]"
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Names to leave out; may be repeated."),
]
ButlerOption = Annotated[
    str | None, typer.Option("--butler", metavar="REPO", help="Ingest what is there into this repository.")
]


@app.command("run")
def run(
    source: SourceArgument = None,
    dest: DestArgument = None,
    config: ConfigOption = None,
    tree: TreeOption = None,
    manifest: ManifestOption = None,
    settle: SettleOption = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Between two quick passes.  [default: 10s]")
    ] = None,
    full: Annotated[
        str | None, typer.Option("--full", metavar="TIME", help="Between two full passes.  [default: 15min]")
    ] = None,
    watch: Annotated[
        str | None, typer.Option("--watch", metavar="auto|always|never", help="inotify.  [default: auto]")
    ] = None,
    deleted: DeletedOption = None,
    links: LinksOption = None,
    exclude: ExcludeOption = None,
    butler: ButlerOption = None,
    metrics: MetricsOption = None,
    control: ControlOption = None,
    json: JsonOption = False,
) -> None:
    """Mirror, until it is stopped. One line a file; with --json these are objects, one a line."""
    del json
    console.command = "mirror run"
    given = {
        "settle": duration(settle, "--settle"),
        "every": duration(every, "--every"),
        "full": duration(full, "--full"),
        "watch": watch,
        "deleted": deleted,
        "links": links,
        "exclude": exclude,
        "ingest": {"repository": os.path.abspath(butler)} if butler else None,
    }
    service = _service(source, dest, config, tree, manifest, given, page=metrics or "", control=control or "")
    _work(service, None)


@app.command("once")
def once(
    source: SourceArgument = None,
    dest: DestArgument = None,
    config: ConfigOption = None,
    tree: TreeOption = None,
    manifest: ManifestOption = None,
    settle: SettleOption = None,
    deleted: DeletedOption = None,
    links: LinksOption = None,
    exclude: ExcludeOption = None,
    butler: ButlerOption = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every file anew: size and times may be the same.")
    ] = False,
    patience: Annotated[
        str, typer.Option("--patience", metavar="TIME", help="Give up where nothing moves for so long.")
    ] = "60s",
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Mirror once: look at every file, bring what is new or changed, and end.

    What an interrupted run has brought is not brought again. The exit code is 5 where something could not be
    mirrored, or ingested.
    """
    del json
    console.command = "mirror once"
    given = {
        "settle": duration(settle, "--settle"),
        "deleted": deleted,
        "links": links,
        "exclude": exclude,
        "ingest": {"repository": os.path.abspath(butler)} if butler else None,
    }
    how: dict[str, Any] = {
        "once": True,
        "trial": dry_run,
        "checksum": checksum,
        "patience": duration(patience, "--patience"),
    }
    service = _service(source, dest, config, tree, manifest, given, **how)
    for one in () if config else service.settings.trees:
        places = [one.source, *([one.to.root] if one.to.kind == "directory" else [])]
        for place in places:
            if not os.path.isdir(place):
                raise NotFoundError(
                    f"{place}: there is no such directory; make it, or mount what belongs there"
                )
    _work(service, 0.0)


@app.command("status")
def status(
    source: SourceArgument = None,
    dest: DestArgument = None,
    config: ConfigOption = None,
    tree: TreeOption = None,
    manifest: ManifestOption = None,
    json: JsonOption = False,
) -> None:
    """Tell how the mirrors stand, from their manifests: whether they run or not."""
    del json
    console.command = "mirror status"
    from raftwright.mirror.tables import read_status

    found: dict[str, Any] = {}
    for one, path in _trees(source, dest, config, tree, manifest, {}):
        if not path.exists():
            raise NotFoundError(f"{path}: there is no such manifest; {one.name} has never been mirrored so")
        try:
            facts = read_status(path, _LINES)
        except sqlite3.Error as error:
            raise StorageError(5, f"cannot be read ({error})", str(path)) from None
        found[one.name] = {"source": one.source, "to": one.to.root, "manifest": str(path), **facts}
        files = ", ".join(f"{number:,} {state}" for state, number in sorted(facts["files"].items()))
        console.say(f"{one.name}: {one.source} -> {one.to.root}", f"  files: {files or 'none'}")
        console.say(f"  versions: {facts['versions']}")
        if facts["ingest"]:
            console.say(f"  ingest: {', '.join(f'{n:,} {s}' for s, n in sorted(facts['ingest'].items()))}")
        for item in facts["listed"]:
            console.say(f"  {item['path']}: {item['state']}: {_without(item['path'], item['reason'])}")
    console.answer("ok", Exit.OK, {"trees": found})


@app.command("retry")
def retry(
    source: SourceArgument = None,
    dest: DestArgument = None,
    config: ConfigOption = None,
    tree: TreeOption = None,
    manifest: ManifestOption = None,
    json: JsonOption = False,
) -> None:
    """Try again what was given up on, conflicts, and what could not be ingested, at the next run."""
    del json
    _command("retry", source, dest, config, tree, manifest)


@app.command("accept")
def accept(
    source: SourceArgument = None,
    dest: DestArgument = None,
    config: ConfigOption = None,
    tree: TreeOption = None,
    manifest: ManifestOption = None,
    json: JsonOption = False,
) -> None:
    """Say that what has vanished until now was meant to: the policy for deleted files goes on."""
    del json
    _command("accept", source, dest, config, tree, manifest)


@app.command("check")
def check(
    source: SourceArgument = None,
    dest: DestArgument = None,
    config: ConfigOption = None,
    tree: TreeOption = None,
    manifest: ManifestOption = None,
    checksum: Annotated[bool, typer.Option("--checksum", help="Read every file there.")] = False,
    json: JsonOption = False,
) -> None:
    """Look whether the far side still has what was verified there.

    What is lost is brought again at the next run, what is damaged is set aside first. The exit code is 5
    where something was found.
    """
    del json
    if _command("check", source, dest, config, tree, manifest, read=checksum):
        raise typer.Exit(Exit.FAULTS)


# -- trees


def _trees(
    source: str | None,
    dest: str | None,
    config: list[str] | None,
    tree: str | None,
    manifest: str | None,
    given: Mapping[str, Any],
) -> list[tuple[TreeSettings, Path]]:
    """What is mirrored, and the manifests. Raises UsageError, FormatError and what a configuration raises."""
    from raftwright.mirror.service import manifest_of

    more = {key: value for key, value in given.items() if value is not None}
    if config:
        if source or dest or more:
            raise UsageError("with --config trees and their settings stand in the file; leave the others out")
        from raftwright.service import config as configuration

        found = configuration.load(config)
        trees = [one for one in found.settings("mirror").trees if tree in (None, one.name)]
        if not trees:
            raise NotFoundError(f"the configuration has no tree {tree[:40]!a}" if tree else "it has no trees")
        return [(one, manifest_of(one, found.common.root / ".mirror")) for one in trees]
    if not source or not dest:
        raise UsageError("name SOURCE and DEST, or a configuration with --config")
    one = _tree(source, dest, manifest, more)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return [(one, manifest_of(one, Path(state) / "raftwright" / "mirror"))]


def _tree(source: str, dest: str, manifest: str | None, more: Mapping[str, Any]) -> TreeSettings:
    import msgspec

    from raftwright.mirror import TreeSettings

    kind = "s3" if dest.startswith("s3://") else "webdav" if "://" in dest else "directory"
    root = os.path.abspath(dest) if kind == "directory" else dest
    base = os.path.basename(os.path.abspath(source))
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in base).strip("-")[:40] or "tree"
    try:
        return msgspec.convert(
            {
                "name": name,
                "source": os.path.abspath(source),
                "to": {"name": name, "kind": kind, "root": root},
                **({"manifest": os.path.abspath(manifest)} if manifest else {}),
                **more,
            },
            TreeSettings,
        )
    except msgspec.ValidationError as error:
        raise FormatError(f"the options: {error}; see `raftwright mirror run --help`") from None


def _service(
    source: str | None,
    dest: str | None,
    config: list[str] | None,
    tree: str | None,
    manifest: str | None,
    given: Mapping[str, Any],
    *,
    page: str = "",
    control: str = "",
    **how: Any,
) -> Mirror:
    import msgspec

    from raftwright.mirror import Mirror, Settings
    from raftwright.service import Life

    trees = [
        msgspec.structs.replace(one, manifest=str(path))
        for one, path in _trees(source, dest, config, tree, manifest, given)
    ]
    return Mirror(Settings(trees=trees), Path(), Life(page=page, control=control, drain=5.0), **how)


def _command(
    name: str,
    source: str | None,
    dest: str | None,
    config: list[str] | None,
    tree: str | None,
    manifest: str | None,
    *,
    read: bool = False,
) -> int:
    """To mirrors that do not run; those that do are told with `raftwright control mirror`."""
    console.command = f"mirror {name}"
    from raftwright.metrics import Metrics
    from raftwright.mirror.mirroring import TreeMirror
    from raftwright.mirror.service import obey

    found: dict[str, Any] = {}
    faults = 0
    for one, path in _trees(source, dest, config, tree, manifest, {}):
        if not path.exists():
            raise NotFoundError(f"{path}: there is no such manifest; {one.name} has never been mirrored so")
        mirror = TreeMirror(one, path, Metrics("raftwright_mirror"), lambda _: None)
        try:
            facts = found[one.name] = obey(mirror, name, read=read)
        finally:
            mirror.close()
        for item in facts.get("listed", ()):
            console.say(f"{item['path']}: {item['what']}, {item['then']}")
        console.say(
            f"{one.name}: " + ", ".join(_number(key, n) for key, n in facts.items() if key != "listed")
        )
        faults += facts.get("lost", 0) + facts.get("damaged", 0)
    console.answer("faults" if faults else "ok", Exit.FAULTS if faults else Exit.OK, {"trees": found})
    return faults


# -- running


def _work(service: Mirror, patience: float | None) -> None:
    from raftwright.service.common import Log
    from raftwright.service.context import bound

    told: dict[str, int] = {}
    last: dict[str, Any] = {}
    plans: dict[str, list[dict[str, Any]]] = {}

    def ending(service: Mirror) -> None:
        if service.phase == "running":
            for name, tree in service.trees.items():
                last[name] = {**tree.status(), **({} if tree.ingesting is not None else {"ingest": {}})}
        if patience is not None:
            plans.update(_plans(service))

    tells: dict[str, Any] = {"pass": _pass, "file": functools.partial(_file, told)}
    with bound(service="mirror"):
        run_service(
            lambda: service, tells, _ready, patience=patience, log=Log(level="warning"), ending=ending
        )
    _end(last, plans, told, single=patience is not None)


def _ready(service: Mirror) -> None:
    for tree in service.settings.trees:
        console.say(f"{tree.source} -> {tree.to.root}")
    console.flush()
    page = None if service.page is None else service.page.url
    console.event("ready", {"trees": [tree.name for tree in service.settings.trees], "metrics": page})


def _pass(facts: Mapping[str, Any]) -> None:
    console.event("pass", {"tree": facts["tree"], **facts["pass"]})


def _file(told: dict[str, int], news: Mapping[str, Any]) -> None:
    facts = {key: value for key, value in news.items() if key != "service"}
    if "ingest" in facts:
        why = f": {facts['reason']}" if facts["reason"] else ""
        console.say(f"{facts['path']}: {facts['ingest']}{why}")
        console.event("ingest", facts)
        return
    key = facts["how"] or facts["state"]
    told[key] = told.get(key, 0) + 1
    if facts["state"] == "mirrored" and facts["how"] == "same":
        return
    word = facts["how"] if facts["state"] == "mirrored" else facts["state"]
    line = f"{facts['path']}: {word}"
    if facts["bytes"]:
        line += f", {size(facts['bytes'])}"
    console.say(line + (f": {_without(facts['path'], facts['reason'])}" if facts["reason"] else ""))
    console.flush()
    console.event("file", facts)


def _without(path: str, reason: str) -> str:
    """The reason, where the line has the path already."""
    return reason.removeprefix(f"{path}: ")


def _number(what: str, number: int) -> str:
    """`1 file`, `3 files`, `0 lost`."""
    return count(number, what.removesuffix("s")) if what.endswith("s") else f"{number:,} {what}"


def _plans(service: Mirror) -> dict[str, list[dict[str, Any]]]:
    """What a trial found: what would be brought, what not and why, and what is gone where that matters."""
    from raftwright.mirror.tree import shown

    found: dict[str, list[dict[str, Any]]] = {}
    for name, tree in service.trees.items():
        if tree.trial:
            found[name] = [
                {"path": shown(entry.path), "bytes": entry.facts.bytes, **_plan(tree, entry)}
                for entry in tree.manifest.listed(("waiting", "gone"), 1_000_000)
                if entry.state != "gone" or (entry.far == "there" and tree.settings.deleted != "keep")
            ]
    return found


def _plan(tree: TreeMirror, entry: Entry) -> dict[str, str]:
    if entry.state == "gone":
        return {"what": "gone", "reason": "would go to .versions there"}
    if why := tree.bringer.left_out(entry):
        return {"what": "skipped", "reason": why}
    return {"what": "changed" if entry.crc32c else "new", "reason": ""}


def _end(
    last: Mapping[str, Any],
    plans: Mapping[str, list[dict[str, Any]]],
    told: Mapping[str, int],
    *,
    single: bool,
) -> None:
    unwell = 0
    for name, facts in last.items():
        files = facts["files"]
        if name in plans:
            for item in plans[name][:_LINES]:
                console.say(f"{item['path']}: {item['what']}, {item['reason'] or size(item['bytes'])}")
            if len(plans[name]) > _LINES:
                console.say(f"and {len(plans[name]) - _LINES} more")
            brought = [item["bytes"] for item in plans[name] if item["what"] in ("new", "changed")]
            number = count(len(brought), "file")
            console.say(f"{name}: {number}, {size(sum(brought))}, to be brought; nothing was done")
            continue
        lacking = sum(files.get(state, 0) for state in ("waiting", "sending", "failed", "conflict"))
        outside = sum(facts["ingest"].get(state, 0) for state in ("queued", "waiting", "failed", "conflict"))
        unwell += lacking + outside + len(facts["problems"])
        done = sum(number for how, number in told.items() if how in ("new", "version", "renamed", "link"))
        console.say(
            f"{name}: {files.get('mirrored', 0):,} mirrored, {done:,} of them now"
            + (f"; {count(lacking, 'file')} not" if lacking else "")
            + (f"; {count(outside, 'file')} not ingested" if outside else "")
            + (": see `raftwright mirror status`" if lacking or outside else "")
        )
        for problem in facts["problems"]:
            console.say(problem)
    code = Exit.FAULTS if single and unwell else Exit.OK
    console.event("stopped", {"trees": last, "plans": plans, "done": told, "exit_code": int(code)})
    if code:
        raise typer.Exit(code)
