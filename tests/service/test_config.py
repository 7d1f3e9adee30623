"""The configuration of a site: layers, lines, units, secrets, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.service import Bytes, Period, Seconds, Secret, State
from raftwright.service.checking import convert
from raftwright.service.common import SHARED_SECTIONS
from raftwright.service.config import Config, ConfigError, load, sample_names, sample_text
from raftwright.service.documents import dotted, parse, parse_value
from raftwright.service.table import SERVICES, settings_of
from raftwright.service.units import TIME, read_bytes, read_seconds

Write = Callable[..., Path]

BASE = "archive: {root: /data/raw}\ndaq: {endpoint: tcp://daq:5570}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str, name: str = "site.yaml", mode: int = 0o644) -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    return make


def faults(
    *files: Path, environment: dict[str, str] | None = None, options: tuple[str, ...] = ()
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(files, environment=environment or {}, options=options)
    return caught.value.faults


def source(config: Config, key: str) -> str:
    return next(str(where) for path, _, where in config.values() if dotted(path) == key)


def value(config: Config, key: str) -> Any:
    return next(found for path, found, _ in config.values() if dotted(path) == key)


# -- what is refused


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("forwarder:\n  memroy: 1", 2, "forwarder.memroy: there is no such key; is memory meant?"),
        ("forwader:\n  memory: 1", 1, "forwader: there is no such section; there are site, archive"),
        ("forwarder:\n  memory: lots", 2, "forwarder.memory: 'lots' is no size; write 500MB, 2GB"),
        ("forwarder:\n  memory: 3", 2, "forwarder.memory: expected a whole number >= 1048576"),
        ("forwarder:\n  receivers: two", 2, "forwarder.receivers: expected a whole number, got text"),
        ("forwarder:\n  deadline: 10 lightyears", 2, "forwarder.deadline: '10 lightyears' is no time"),
        ("forwarder:\n  durable: no", 2, "forwarder.durable: expected true or false, got text"),
        ("forwarder:\n  rafts: R22", 2, "forwarder.rafts: expected a list"),
        ("life:\n  initial: RUNNING", 2, "life.initial: 'RUNNING' is none of STANDBY, DISABLED, ENABLED"),
        ("log:\n\n  level: loud", 3, "log.level: 'loud' is none of critical, debug, error, info, warning"),
        ("forwarder: 5", 1, "forwarder: has to be `key: value` lines"),
        ("forwarder:\n  drain: {file: 5}", 2, "forwarder.drain: expected a number"),
    ],
)
def test_d094_d128_what_is_wrong_is_said_with_its_line(write: Write, text: str, line: int, said: str) -> None:
    path = write(text)
    other = write(BASE, "base.yaml")
    [fault] = faults(other, path)
    assert fault.startswith(f"{path}, line {line}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: a stands twice"),
        ("site:\n  name: a\n  name: b", "line 3: site.name stands twice"),
        ("site: [", "line 1: cannot be read as YAML"),
        ("- site", "line 1: has to be `section:`"),
        ("\tsite: 1", "spaces instead of tabs"),
        ("? [1]\n: 2", "a key has to be a word"),
        ("site: !!python/object:os.system x", "line 1: site: could not determine"),
        ("x: " + "[" * 30 + "]" * 30, "too deep"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_what_is_no_configuration(write: Write, text: str, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        load([write(text)], environment={})
    assert said in str(caught.value)


def test_a_bomb_of_aliases_is_refused(write: Write) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]"
        for a, b in zip("abcdef", "bcdefg", strict=True)
    ]
    with pytest.raises(FormatError, match="too deep or too much"):
        load([write("\n".join(lines))], environment={})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such configuration"):
        load([tmp_path / "none.yaml"])
    with pytest.raises(StorageError):
        load([tmp_path])
    (tmp_path / "big.yaml").write_text("#" * (1 << 21))
    with pytest.raises(FormatError, match="more than"):
        load([tmp_path / "big.yaml"])


def test_all_that_is_wrong_is_told_at_once(write: Write) -> None:
    found = faults(write("archiv: {}\nlog: {level: loud}\nlife:\n  drain: x\n  foo: 1\n"))
    assert [fault.split(": ")[1] for fault in found] == [
        "archiv",
        "archive.root",
        "life.foo",
        "life.drain",
        "log.level",
    ]


def test_d061_d084_no_destination_has_a_default(write: Write) -> None:
    assert "archive.root: is missing, and there is no default" in faults(write("forwarder: {}"))[0]
    assert "forwarder.endpoint: is missing" in faults(write("archive: {root: /a}\nforwarder: {}"))[0]
    text = "archive: {root: /a}\narchiver:\n  destinations:\n  - {name: oods, kind: directory}\n"
    path = write(text)
    assert faults(path) == [
        f"{path}, line 4: archiver.destinations[0].root: is missing, and there is no default for it; give it"
    ]


def test_a_service_that_is_not_there(write: Write) -> None:
    config = load([write(BASE)], environment={})
    assert config.services == ()
    with pytest.raises(NotFoundError, match="add `forwarder: "):
        config.settings("forwarder")


# -- layers


def test_layers_go_before_one_another(write: Write) -> None:
    common = write(BASE + "forwarder:\n  memory: 1 GB\n  sweep: 7 s\n  rafts: [R01, R02]\n", "common.yaml")
    host = write("# host\nforwarder:\n  memory: 2 GB\n  rafts: [R22]\n", "host.yaml")
    variables = {"RAFTWRIGHT_FORWARDER__RECEIVERS": "3", "RAFTWRIGHT_FORWARDER__WRITERS": "5"}
    config = load([common, host], environment=variables, options=["forwarder.writers=4"])
    settings = config.settings("forwarder")
    assert (settings.memory, settings.sweep, settings.rafts) == (2_000_000_000, 7.0, ["R22"])
    assert (settings.receivers, settings.writers) == (3, 4)
    assert {
        key: source(config, f"forwarder.{key}") for key in ("memory", "sweep", "receivers", "writers")
    } == {
        "memory": f"{host}, line 3",
        "sweep": f"{common}, line 5",
        "receivers": "environment RAFTWRIGHT_FORWARDER__RECEIVERS",
        "writers": "option forwarder.writers",
    }
    assert source(config, "forwarder.retry") == "default"
    assert source(config, "forwarder.out") == "shared archive.root"
    assert source(config, "forwarder.rafts[0]") == f"{host}, line 4"
    assert value(config, "ledger.url") == "sqlite:////data/raw/ledger.db"


def documented() -> list[tuple[str, str, str]]:
    """Variables of the manual."""
    page = Path(__file__).resolve().parents[2] / "docs" / "howto" / "run-the-archive.md"
    return re.findall(r"^\| `(RAFTWRIGHT_[A-Z0-9_]+)=([^`]+)` \| (.*) \|$", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("variable", "text", "sets"), documented())
def test_d128_every_documented_variable_works(write: Write, variable: str, text: str, sets: str) -> None:
    path = write(BASE + "forwarder: {}\narchiver:\n  destinations: [{name: o, kind: directory, root: /o}]\n")
    config = load([path], environment={variable: text, "RAFTWRIGHT_DEBUG": "1", "OTHER__X": "1"})
    changed = [(dotted(p), v) for p, v, where in config.values() if str(where) == f"environment {variable}"]
    assert changed
    key = sets.strip("`") if sets.startswith("`") else "archiver.destinations[0].root"
    assert changed[0][0].startswith(key)


def test_there_are_documented_variables() -> None:
    assert len(documented()) >= 9


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("RAFTWRIGHT_FORWARDER__MEMROY", "is memory meant?"),
        ("RAFTWRIGHT_FORWADER__MEMORY", "there is no such section"),
        ("RAFTWRIGHT_FORWARDER__MEMORY__MORE", "forwarder.memory"),
        ("RAFTWRIGHT___X", "write RAFTWRIGHT_SECTION__KEY"),
        ("RAFTWRIGHT_ARCHIVER__DESTINATIONS__7__ROOT", "archiver.destinations"),
    ],
)
def test_d128_a_variable_that_sets_nothing_is_refused(write: Write, variable: str, said: str) -> None:
    path = write(BASE + "forwarder: {}\narchiver: {destinations: []}\n")
    found = faults(path, environment={variable: "1"})
    assert said in found[0]
    assert variable in found[0]


@pytest.mark.parametrize("option", ["forwarder.memory", "memory=1", "forwarder.memroy=4GB"])
def test_options_that_cannot_be(write: Write, option: str) -> None:
    assert option.partition("=")[0] in faults(write(BASE + "forwarder: {}"), options=(option,))[0]


def test_values_of_variables() -> None:
    assert [
        parse_value(text, "x") for text in ("4GB", "[a, 2]", "true", "no", "", "a: b", "1e3", "22/0")
    ] == [
        "4GB",
        ["a", 2],
        True,
        "no",
        None,
        "a: b",
        1000.0,
        "22/0",
    ]


def test_yaml_means_what_it_says() -> None:
    text = "a: no\nb: 12:30\nc: 010\nd: 1_000\ne: 0x10\nf: 2026-11-22\ng: .inf\nh: 1e3\ni: ~\nj: 'true'\n"
    values, lines = parse(text, "x")
    assert values == {
        "a": "no",
        "b": "12:30",
        "c": "010",
        "d": "1_000",
        "e": "0x10",
        "f": "2026-11-22",
        "g": ".inf",
        "h": 1000.0,
        "i": None,
        "j": "true",
    }
    assert lines["h",] == 8


# -- units and types


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="part"):
    wait: Seconds = 1.0


class Other(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="other"):
    size: Bytes = 1


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    wait: Period | None = None
    memory: Bytes = 0
    short: Annotated[float, Meta(gt=0, le=60, extra=TIME)] = 1.0
    parts: list[Part | Other] = []
    named: dict[str, Part] = {}
    key: Secret = ""
    url: str = ""


def read(raw: dict[str, Any], *, open_file: bool = False) -> Any:
    return convert(raw, Section, "section", lambda path: open_file)


def test_d033_units_are_read_wherever_they_stand() -> None:
    found = read(
        {
            "wait": "200 ms",
            "memory": "64 MiB",
            "short": "0.5min",
            "parts": [{"type": "part", "wait": "1 h"}, {"type": "other", "size": "1.5 kB"}],
            "named": {"x": {"type": "part", "wait": "1d"}},
        }
    )
    assert (found.wait, found.memory, found.short) == (0.2, 64 << 20, 30.0)
    assert found.parts == [Part(wait=3600.0), Other(size=1500)]
    assert found.named == {"x": Part(wait=86400.0)}


@pytest.mark.parametrize(
    ("raw", "path", "said"),
    [
        ({"wait": "0 s"}, "section.wait", "> 0"),
        ({"short": "2 min"}, "section.short", "<= 60"),
        ({"memory": -1}, "section.memory", ">= 0"),
        ({"memory": "1e9999 GB"}, "section.memory", "no size"),
        ({"memory": "9" * 400}, "section.memory", "no size"),
        ({"parts": [{"type": "part"}, {"type": "neither"}]}, "section.parts[1].type", "neither"),
        ({"parts": [{"type": "part", "wat": 1}]}, "section.parts[0].wat", "is wait meant"),
        ({"named": {"x": {"type": "part", "wait": "x"}}}, "section.named.x.wait", "no time"),
        ({"key": {"path": "x"}}, "section.key", "{file: PATH}"),
        ({"key": {"file": "/nonexistent"}}, "section.key", "No such file"),
    ],
)
def test_what_does_not_fit_is_placed(raw: dict[str, Any], path: str, said: str) -> None:
    [wrong] = read(raw)
    assert dotted(wrong.path) == path
    assert said in wrong.said


@given(st.text(max_size=30))
def test_units_take_any_text_in_good_part(text: str) -> None:
    for function in (read_seconds, read_bytes):
        try:
            assert function(text) >= 0
        except UsageError as error:
            assert "write" in str(error)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused_in_good_part(data: bytes) -> None:
    try:
        parse(data, "x")
    except RaftwrightError as error:
        assert str(error).startswith("x")


@given(st.text(max_size=60))
def test_any_value_is_read_or_refused_in_good_part(text: str) -> None:
    try:
        parse_value(text, "x")
    except RaftwrightError as error:
        assert "x" in str(error)


# -- secrets


def test_d018_secrets_come_from_closed_files(write: Write, tmp_path: Path) -> None:
    secret = write("sesame\n", "key", 0o600)
    assert read({"key": {"file": str(secret)}}).key == "sesame"
    secret.chmod(0o640)
    [wrong] = read({"key": {"file": str(secret)}})
    assert "can be read by others" in wrong.said
    assert "sesame" not in wrong.said
    secret.chmod(0o600)
    secret.write_text("")
    assert "holds no secret" in read({"key": {"file": str(secret)}})[0].said


def test_d018_no_secret_stands_in_a_file_that_others_read(write: Write) -> None:
    text = BASE + "ledger: {url: postgresql://me:sesame@db/x}\n"
    [fault] = faults(write(text))
    assert "line 3: ledger.url: a password in a file that others can read; chmod 600" in fault
    assert "sesame" not in fault
    config = load([write(text, mode=0o600)], environment={})
    assert config.common.ledger == "postgresql://me:sesame@db/x"
    assert value(config, "ledger.url") == "postgresql://me:****@db/x"
    config = load([write(BASE)], environment={"RAFTWRIGHT_LEDGER__URL": "postgresql://me:sesame@db/x"})
    assert config.common.ledger == "postgresql://me:sesame@db/x"


def test_d018_a_secret_is_never_shown(write: Write) -> None:
    text = (
        BASE + "archiver:\n  destinations:\n"
        "  - {name: u, kind: s3, root: s3://bucket/x, access_key: me, secret_key: sesame}\n"
    )
    assert "a secret in a file that others can read" in faults(write(text))[0]
    config = load([write(text, mode=0o600)], environment={})
    assert config.settings("archiver").destinations[0].secret_key == "sesame"
    assert value(config, "archiver.destinations[0].secret_key") == "****"
    assert "sesame" not in str(config.values())


def test_d018_no_literal_of_a_secret_in_the_sources(project_root: Path) -> None:
    literal = re.compile(
        r"""(?:password|passwd|secret_key|access_key|secret)["']?\s*[:=]\s*["'][A-Za-z0-9+/=_-]{6,}["']""",
        re.IGNORECASE,
    )
    url = re.compile(r"[a-z]+://[^\s/:@{}\"']+:[^\s/@{}\"'*]+@[A-Za-z]")
    for path in (project_root / "python").rglob("*"):
        if path.suffix in (".py", ".yaml"):
            text = path.read_text(encoding="utf-8")
            assert not literal.findall(text), path
            assert not url.findall(text), path


# -- what the services take from it


def test_every_key_is_used(project_root: Path) -> None:
    """D094: a configured expiry that is never used. Each field is read somewhere besides its definition."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in (project_root / "python" / "raftwright").rglob("*.py")
    )
    used = set(re.findall(r"\.([a-z_0-9]+)\b", text))
    unused = [
        f"{name}.{field}"
        for name, kind in {**SHARED_SECTIONS, **{name: settings_of(name) for name in present()}}.items()
        for field in kind.__struct_fields__
        if field not in used
    ]
    assert unused == []


def present() -> list[str]:
    found = []
    for name in SERVICES:
        try:
            settings_of(name)
        except ImportError:
            continue
        found.append(name)
    return found


@pytest.mark.parametrize("name", present())
def test_every_section_forbids_what_it_does_not_know(name: str) -> None:
    assert settings_of(name).__struct_config__.forbid_unknown_fields
    assert name in (service.lower() for service in SERVICES)


@pytest.mark.parametrize("name", sample_names())
def test_d128_every_sample_is_one(write: Write, name: str) -> None:
    config = load([write(sample_text(name))], environment={})
    assert "forwarder" in config.services
    assert load(environment={}, text=sample_text(name)).services == config.services


def test_the_samples_of_the_manual_load(project_root: Path, write: Write) -> None:
    page = (project_root / "docs" / "howto" / "run-the-archive.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    load([write(blocks[0])], environment={})
    secret = write("x", "s3.key", 0o600)
    load([write(BASE + blocks[1].replace("/etc/raftwright/s3.key", str(secret)))], environment={})
    load([write(BASE + blocks[2])], environment={})


def test_without_a_file_there_is_a_simulated_camera() -> None:
    config = load(environment={})
    assert config.services[:3] == ("simulator", "telemetry", "forwarder")
    assert config.common.archive.root == "./raftwright-archive"
    assert config.settings("forwarder").endpoint == config.settings("simulator").bind
    assert config.common.life("forwarder").initial is State.ENABLED


def test_what_is_shown_can_be_loaded_again(write: Write, run_cli: Callable[..., Any]) -> None:
    path = write(sample_text("one-machine"))
    first = run_cli("config", "show", str(path))
    again = write(first, "again.yaml")
    one, other = load([path], environment={}), load([again], environment={})
    assert [(p, v) for p, v, _ in one.values()] == [(p, v) for p, v, _ in other.values()]


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*words: str) -> str:
        from raftwright.cli import main

        assert main(words) == 0
        return capsys.readouterr().out

    return call


# -- endpoints of a site


def common(text: str) -> Any:
    return load(environment={}, text=BASE + text).common


def test_ports_are_counted_from_the_first() -> None:
    found = common(
        "life: {pages: 127.0.0.1:9557, control: tcp://127.0.0.1:5600}\nevents: {url: tcp://127.0.0.1:5580}\n"
        "forwarder: {}\narchiver: {}\n"
    )
    assert found.life("forwarder").page == "127.0.0.1:9557"
    assert found.life("header").page == "127.0.0.1:9558"
    assert found.control_of("archiver") == "tcp://127.0.0.1:5602"
    assert found.events_from() == ["tcp://127.0.0.1:5580", "tcp://127.0.0.1:5582"]
    with pytest.raises(UsageError, match="begin lower"):
        common("life: {pages: 127.0.0.1:65535}").life("telemetry")
    with pytest.raises(UsageError, match="no port"):
        common("life: {pages: localhost}").life("telemetry")


def test_sockets_have_short_paths() -> None:
    deep = load(environment={}, text=f"archive: {{root: /{'x' * 200}}}").common
    assert len(str(deep.run)) < 80
    assert deep.run == load(environment={}, text=f"archive: {{root: /{'x' * 200}}}").common.run
    assert str(common("").run) == "/data/raw/.run"
    assert common("events: {url: 'kafka://a:1,b:2/p', listen: [tcp://x:1]}").events_from(
        ["forwarder", "header"]
    ) == [
        "kafka://a:1,b:2/p",
        "tcp://x:1",
    ]
    assert common("life: {control: none, pages: none}").life("forwarder").control == ""


def test_a_directory_of_sockets_that_is_not_ours(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match=r"set site\.run"):
        common(f"site: {{run: {file}/run}}").make_run()
