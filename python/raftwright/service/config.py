"""The configuration of all services: one file, or several over one another, the environment, options.

    config = load(["/etc/raftwright/site.yaml"])
    service = config.build("forwarder")

Layers, later ones go before earlier ones: the defaults of each Struct; the files in their order; variables of
the environment, `RAFTWRIGHT_FORWARDER__MEMORY=4GB`; options, `forwarder.memory=4GB`. Mappings are merged, all
else is replaced. A service takes from the shared sections what its own does not say (SHARED of its module).
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.service.checking import Wrong, convert, is_secret, leaves, masked, only_ours
from raftwright.service.common import SHARED_SECTIONS, Common
from raftwright.service.documents import Path, dotted, parse, parse_value, read_document
from raftwright.service.table import SERVICES, module_of, settings_of

if TYPE_CHECKING:
    from raftwright.service.base import Service

__all__ = ["DEMO", "Config", "ConfigError", "Source", "load", "read_section", "sample_names", "sample_text"]

PREFIX: Final = "RAFTWRIGHT_"
_SAMPLES: Final = pathlib.Path(__file__).parent / "samples"

DEMO: Final = """\
# In force where no file is given.
site: {camera: LSSTComCam}
archive: {root: ./raftwright-archive}
log: {level: warning}
simulator: {}
telemetry: {}
forwarder: {}
header: {}
archiver: {}
catchup: {}
"""


class ConfigError(FormatError):
    """A configuration that cannot be; `faults` has a sentence for each thing that is wrong with it."""

    def __init__(self, faults: Sequence[str]) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(faults[0] + more)
        self.faults = list(faults)


class Source(msgspec.Struct, frozen=True):
    """Where a value comes from."""

    kind: str
    """`default`, `derived` (from others), `file`, `environment`, `option`, `shared` (of another section)."""
    where: str = ""
    """The file, the variable, the shared key."""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.where}, line {self.line}"
        return f"{self.kind} {self.where}".rstrip()


class _Layers:
    """Values put over one another, each with its source."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[Path, Source] = {}
        self.open_files: set[str] = set()
        self.last = "the embedded defaults"
        """The file that was read last: what is missing belongs into it."""

    def add_file(self, where: str) -> None:
        values, lines = read_document(where)
        try:
            if not only_ours(where):
                self.open_files.add(where)
        except OSError:
            self.open_files.add(where)
        self.add_text(values, lines, where)

    def add_text(self, values: dict[str, Any], lines: Mapping[Path, int], where: str) -> None:
        self.last = where
        for name, value in values.items():
            if value is None and (name,) in lines:
                values[name] = {}  # `header:` alone is a section without a word
        self._merge(self.values, values, (), {path: Source("file", where, n) for path, n in lines.items()})

    def put(self, path: Path, value: Any, source: Source) -> None:
        """One value. Raises UsageError where its place cannot be."""
        at: Any = self.values
        for depth, part in enumerate(path[:-1]):
            if isinstance(at, dict):
                if at.get(str(part)) is None:
                    at[str(part)] = {}
                    self.sources.setdefault(path[: depth + 1], source)
                at = at[str(part)]
            elif isinstance(at, list) and isinstance(part, int) and part < len(at):
                at = at[part]
            else:
                raise UsageError(f"{source}: there is no {dotted(path[: depth + 1])}")
        last = path[-1]
        if isinstance(at, dict):
            at[str(last)] = value
        elif isinstance(at, list) and isinstance(last, int) and last < len(at):
            at[last] = value
        else:
            raise UsageError(f"{source}: there is no {dotted(path)}")
        self._forget(path)
        self.sources[path] = source

    def path_of(self, words: Sequence[str]) -> Path:
        """Words as they are meant: numbers in lists, and keys whatever their case."""
        at: Any = self.values
        path: list[str | int] = []
        for word in words:
            part: str | int = word
            if isinstance(at, list) and word.isascii() and word.isdigit():
                part = int(word)
                at = at[part] if part < len(at) else None
            elif isinstance(at, dict):
                near = [key for key in at if key.lower() == word.lower()]
                part = near[0] if len(near) == 1 else word.lower()
                at = at.get(part)
            else:
                part, at = word.lower(), None
            path.append(part)
        return tuple(path)

    def source(self, path: Path) -> Source | None:
        """Of a value, or of what it stands in."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.sources:
                return self.sources[path[:end]]
        return None

    def _merge(
        self, into: dict[str, Any], values: Mapping[str, Any], path: Path, sources: Mapping[Path, Source]
    ) -> None:
        for key, value in values.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                self._merge(into[key], value, here, sources)
                continue
            self._forget(here)
            into[key] = value
            self.sources.update({p: s for p, s in sources.items() if p[: len(here)] == here})

    def _forget(self, path: Path) -> None:
        for known in [known for known in self.sources if known[: len(path)] == path]:
            del self.sources[known]


class Config:
    """A configuration that was read and checked. Nothing of it changes; `load` it again for another."""

    def __init__(self, layers: _Layers, sections: Mapping[str, Any], common: Common) -> None:
        self._layers = layers
        self.sections: Mapping[str, Any] = MappingProxyType(dict(sections))
        """Structs by name of the section: the shared ones, and those of the services that it has."""
        self.common = common

    @property
    def services(self) -> tuple[str, ...]:
        """Those that it has a section of, in the order of their start."""
        return self.common.services

    def settings(self, service: str) -> Any:
        """Of a service. Raises NotFoundError where there is no such section."""
        if service not in self.sections or service not in SERVICES:
            raise NotFoundError(
                f"the configuration has no section {service[:64]}; add `{service[:64]}: {{}}` to it"
            )
        return self.sections[service]

    def build(self, service: str) -> Service:
        """A service, not started yet. Raises NotFoundError and what its `build` raises."""
        settings = self.settings(service)
        built: Service = module_of(service).build(settings, self.common)
        built.given = settings
        return built

    def values(self) -> list[tuple[Path, Any, Source]]:
        """All that is in force, each with where it comes from. Secrets are `****`."""
        common = self.common
        derived: dict[Path, str] = {
            ("site", "run"): str(common.run),
            ("ledger", "url"): common.ledger,
            ("events", "url"): common.events.url or f"ipc://{common.run}/events",
            ("daq", "endpoint"): common.daq.endpoint,
        }
        found = []
        for name, section in self.sections.items():
            for path, value in leaves(section, (name,)):
                source = self._layers.source(path)
                if source is None or not self._given(path):
                    source = Source("default")
                if value == "" and path in derived:
                    value, source = derived[path], Source("derived")
                if isinstance(value, str):
                    value = "****" if value and is_secret(type(section), path[1:]) else masked(value)
                found.append((path, value, source))
        return found

    def _given(self, path: Path) -> bool:
        at: Any = self._layers.values
        for part in path:
            here = range(len(at)) if isinstance(at, list) else at if isinstance(at, dict) else ()
            if part not in here:
                return False
            at = at[part]
        return True


def load(
    files: Iterable[str | os.PathLike[str]] = (),
    *,
    environment: Mapping[str, str] | None = None,
    options: Iterable[str] = (),
    text: str | None = None,
    shared_only: bool = False,
) -> Config:
    """Reads all layers and checks them; without a file, `text` or `DEMO`. With `shared_only` the sections of
    services are not looked at.

    Raises NotFoundError, StorageError, and ConfigError with file, line and key.
    """
    layers = _Layers()
    names = [os.fspath(file) for file in files]
    if names:
        for name in names:
            layers.add_file(name)
    else:
        layers.add_text(*parse(DEMO if text is None else text, "the embedded defaults"), "embedded defaults")
    faults: list[str] = []
    _add_environment(layers, os.environ if environment is None else environment, faults)
    for option in options:
        _add_option(layers, option, faults)
    sections = _shared(layers, faults)
    if not faults:
        common = _common(sections, layers)
        for name in () if shared_only else common.services:
            _section(layers, name, common, sections, faults)
        if not faults:
            return Config(layers, sections, common)
    raise ConfigError(faults)


def sample_names() -> list[str]:
    """Configurations to begin with."""
    return sorted(path.stem for path in _SAMPLES.glob("*.yaml"))


def sample_text(name: str) -> str:
    """One of them. Raises NotFoundError."""
    if name not in sample_names():
        raise NotFoundError(f"there is no sample {name[:64]!a}; there are {', '.join(sample_names())}")
    return (_SAMPLES / f"{name}.yaml").read_text(encoding="utf-8")


def read_section(path: str | os.PathLike[str], kind: Any, options: Mapping[str, object]) -> Any:
    """Settings of one service alone, from a file with its keys at the top; options go before it.

    Raises NotFoundError, StorageError, ConfigError.
    """
    name = "settings"
    layers = _Layers()
    where = os.fspath(path)
    values, lines = read_document(where)
    layers.add_text({name: values}, {(name, *at): line for at, line in lines.items()}, where)
    if not only_ours(where):
        layers.open_files.add(where)
    for key, value in options.items():
        layers.put((name, key), value, Source("option", key))
    sections: dict[str, Any] = {}
    faults: list[str] = []
    _convert(layers, name, kind, sections, faults)
    if faults:
        raise ConfigError([fault.replace(f"{name}.", "", 1) for fault in faults])
    return sections[name]


def _add_environment(layers: _Layers, environment: Mapping[str, str], faults: list[str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        words = variable[len(PREFIX) :].split("__")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]+", word) for word in words):
            faults.append(f"environment {variable}: write {PREFIX}SECTION__KEY")
            continue
        _put(layers, words, environment[variable], Source("environment", variable), faults)


def _add_option(layers: _Layers, option: str, faults: list[str]) -> None:
    key, equals, text = option.partition("=")
    words = [word for word in re.split(r"[.\[\]]", key.strip()) if word]
    if not equals or len(words) < 2:
        faults.append(f"option {option[:100]!r}: write SECTION.KEY=VALUE")
        return
    _put(layers, words, text, Source("option", key.strip()), faults)


def _put(layers: _Layers, words: Sequence[str], text: str, source: Source, faults: list[str]) -> None:
    try:
        layers.put(layers.path_of(words), parse_value(text, str(source)), source)
    except (FormatError, UsageError) as error:
        faults.append(str(error))


def _shared(layers: _Layers, faults: list[str]) -> dict[str, Any]:
    """The shared sections; anything that is no section is a fault."""
    known = [*SHARED_SECTIONS, *SERVICES]
    said = f"there is no such section; there are {', '.join(known)}"
    faults += [_at(layers, Wrong((name,), said)) for name in layers.values if name not in known]
    sections: dict[str, Any] = {}
    for name, kind in SHARED_SECTIONS.items():
        _convert(layers, name, kind, sections, faults)
    return sections


def _common(sections: Mapping[str, Any], layers: _Layers) -> Common:
    services = tuple(name for name in SERVICES if name in layers.values)
    daq = sections["daq"]
    common = Common(
        site=sections["site"],
        archive=sections["archive"],
        ledger_section=sections["ledger"],
        events=sections["events"],
        daq=daq,
        life_section=sections["life"],
        log=sections["log"],
        services=services,
    )
    if not daq.endpoint and "simulator" in services:
        given = (layers.values.get("simulator") or {}).get("bind") or f"ipc://{common.run}/daq"
        common = msgspec.structs.replace(common, daq=msgspec.structs.replace(daq, endpoint=given))
    return common


def _section(layers: _Layers, name: str, common: Common, sections: dict[str, Any], faults: list[str]) -> None:
    try:
        module = module_of(name)
    except ImportError as error:
        faults.append(_at(layers, Wrong((name,), f"the service cannot be had ({error})")))
        return
    raw = layers.values.get(name)
    if isinstance(raw, dict):
        for key, shared in getattr(module, "SHARED", {}).items():
            value = shared_value(common, name, shared)
            if key not in raw and value not in (None, ""):
                layers.put((name, key), value, Source("shared", shared))
    _convert(layers, name, settings_of(name), sections, faults)


def shared_value(common: Common, service: str, key: str) -> Any:
    """What a service takes from the shared sections: `archive.root`, `daq.endpoint`, or its own `life.page`,
    `events.url`, ..."""
    life = common.life(service)
    known: dict[str, Any] = {
        "archive.root": common.archive.root,
        "ledger.url": common.ledger,
        "events.url": common.events_of(service),
        "life.page": life.page,
        "life.control": life.control,
        "life.drain": life.drain,
        "site.camera": common.site.camera,
        **{f"daq.{field}": getattr(common.daq, field) for field in common.daq.__struct_fields__},
    }
    return known[key]


def _convert(layers: _Layers, name: str, kind: Any, sections: dict[str, Any], faults: list[str]) -> None:
    raw = layers.values.get(name, {})
    if not isinstance(raw, dict):
        faults.append(_at(layers, Wrong((name,), "has to be `key: value` lines")))
        return

    def open_file(path: Path) -> bool:
        source = layers.source(path)
        return source is not None and source.kind == "file" and source.where in layers.open_files

    found = convert(raw, kind, name, open_file)
    if isinstance(found, list):
        faults.extend(_at(layers, wrong) for wrong in found)
    else:
        sections[name] = found


def _at(layers: _Layers, wrong: Wrong) -> str:
    source = layers.source(wrong.path)
    where = str(source) if source is not None else layers.last
    return f"{where}: {dotted(wrong.path)}: {masked(wrong.said)}"
