"""D128: every YAML of the manual is what it says it is, and every variable that it names is read."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import raftwright.camera
from raftwright.backbone.receiving import into_butler
from raftwright.backbone.receiving.plugins import options_of
from raftwright.backbone.rucio import RucioSettings
from raftwright.camera import camera
from raftwright.forwarder import read_settings
from raftwright.header.spec_file import check_spec_file
from raftwright.rawfile.document import read_header_document
from raftwright.service.config import load
from raftwright.service.documents import parse
from raftwright.service.table import SERVICES

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
PLUGINS: dict[str, Any] = {"butler": into_butler.Options, "rucio": RucioSettings}
ARCHIVE = "archive: {root: /data/raw}\n"
SOURCES = (".py", ".cpp", ".hpp", ".pyx", ".txt", ".cmake", ".sh", ".yaml")
DATA = Path(raftwright.camera.__file__).with_name("data")
DAQ = "daq: {endpoint: tcp://daq:5570}\n"


def blocks() -> list[Any]:
    """Every block of YAML, named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```ya?ml\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 2
            found.append(pytest.param(textwrap.dedent(match[2]), id=f"{page.name}:{line}"))
    return found


def as_part(text: str) -> str:
    """A list of endpoints, or some keys of a tree, in the section that they are a part of."""
    if text.startswith("- name:"):
        return f"{ARCHIVE}handoff:\n  endpoints:\n{textwrap.indent(text, '  ')}"
    if text.startswith("logs:"):
        tree = "- name: bts\n  source: /data/bts\n  to: {name: far, kind: directory, root: /far}\n"
        return f"{ARCHIVE}mirror:\n  trees:\n{textwrap.indent(tree + textwrap.indent(text, '  '), '  ')}"
    return text


@pytest.mark.parametrize("text", blocks())
def test_d128_every_sample_of_the_manual_is_right(text: str, tmp_path: Path) -> None:
    """D128: with unknown keys forbidden, as everywhere."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    text = re.sub(r"\{file: [^}]*\}", f"{{file: {secret}}}", text)
    path = tmp_path / "sample.yaml"
    path.write_text(text)
    if text.startswith("format: raftwright-camera/"):
        camera(path)
    elif text.startswith("format: raftwright-header-spec/"):
        for name in re.findall(r"^camera: (\S+\.yaml)", text, re.MULTILINE):
            path.with_name(name).write_text((DATA / "LATISS.yaml").read_text())
        assert [str(problem) for problem in check_spec_file(path)] == []
    elif text.startswith("PRIMARY:"):
        assert read_header_document(path).notes == ()
    elif re.match(r"(#.*\n)?rse:", text):
        options_of(RucioSettings, parse(text, "sample")[0], "rucio")
    elif text.startswith("endpoint: tcp:"):
        read_settings(path, {})
    else:
        text = as_part(text)
        for section in (ARCHIVE, DAQ):
            if not re.search(rf"^{section.partition(':')[0]}:", text, re.MULTILINE):
                text = section + text
        config = load(environment={}, text=text)
        for name in config.services:
            for plugin in getattr(config.settings(name), "ingest", ()):
                options_of(PLUGINS[plugin.plugin], plugin.options, plugin.label)


def test_d128_there_are_samples() -> None:
    """Each service has one."""
    text = "\n".join(block.values[0] for block in blocks())
    assert len(blocks()) >= 20
    shown = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert {name for name in SERVICES if name not in ("simulator", "telemetry")} <= shown


def test_d128_the_site_of_the_demo_is_one() -> None:
    """D128."""
    text = (PROJECT / "tools" / "demo" / "night.yaml").read_text(encoding="utf-8")
    config = load(environment={}, text=text.replace("HERE", "/here"))
    for name in config.services:
        config.settings(name)
    assert {"forwarder", "archiver", "oods", "handoff"} <= set(config.services)


def test_d128_every_variable_that_is_told_of_is_read() -> None:
    """D128: those with `__` set a key of the configuration, which test_config.py tries one by one."""
    told = set()
    for page in [*PAGES, PROJECT / "Makefile", PROJECT / "CHANGELOG.md"]:
        told |= set(re.findall(r"\bRAFTWRIGHT_[A-Z0-9_]+\b", page.read_text(encoding="utf-8")))
    assert len(told) > 5
    sources = [
        path
        for top in ("python", "cpp", "src", "cmake", "tools", "tests", "bench")
        for path in (PROJECT / top).rglob("*")
        if path.suffix in SOURCES and path != Path(__file__)
    ]
    read = set()
    for path in [*sources, PROJECT / "CMakeLists.txt"]:
        read |= set(re.findall(r"\bRAFTWRIGHT_[A-Z0-9_]+", path.read_text(encoding="utf-8")))
    assert sorted(name for name in told - read if "__" not in name) == []
