"""The commands of the header service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from observatory import Observatory, Process, values_of

from raftwright.cli import main
from raftwright.header import build_header, check_spec_file
from raftwright.header.inspection import inspect_document
from raftwright.rawfile import times

COMCAM = Observatory()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """One without a fault."""
    exposure = COMCAM.exposure(1)
    header = build_header(COMCAM.spec, COMCAM.collected(exposure), created=round((exposure.end + 60) * 1e9))
    path = tmp_path / f"{exposure.name}_header.yaml"
    path.write_bytes(header.data)
    return path


def test_spec_shows_every_card(run: Run) -> None:
    code, out, _ = run("header", "spec", "LATISS")
    assert code == 0
    assert "GRATING" in out
    assert "telemetry ATSpectrograph.reportedDisperserPosition.name at start" in out
    code, out, _ = run("header", "spec", "LSSTCam", "--json")
    spec = json.loads(out)["spec"]
    assert spec["camera"] == "LSSTCam"
    assert {card["keyword"] for card in spec["sections"][0]["cards"]} >= {"OBSID", "DATE-BEG", "FILTER"}


def test_check_spec_tells_lines(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("format: raftwright-header-spec/1\nname: mine\nbase: common\ncamera: MiniCam\n")
    code, out, _ = run("header", "check-spec", path)
    assert (code, "no problem" in out) == (0, True)
    path.write_text(path.read_text() + "colour: red\n")
    code, out, err = run("header", "check-spec", path)
    assert code == 5
    assert f"{path}:5: colour: unknown key" in out
    assert err.startswith("raftwright: error: ")
    code, out, _ = run("header", "check-spec", path, "--json")
    assert json.loads(out)["problems"][0]["line"] == 5


def test_check_finds_no_fault_in_a_good_one(run: Run, document: Path) -> None:
    code, out, _ = run("header", "check", document, document)
    assert (code, out.count(", no fault\n")) == (0, 2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "'2026-11-23T01:03:18.456', comment: 'End",
            "'2026-11-23T01:02:41.456', comment: 'End",
            "TAI and UTC",
        ),
        ("keyword: 'SEQNUM', value: 1", "keyword: 'SEQNUM', value: 2", "SEQNUM: is 2; OBSID says 1"),
        ("keyword: 'GROUPID', value: '", "keyword: 'GROUP', value: '", "GROUPID"),
        ("keyword: 'HUMIDITY', value: 31.0", "keyword: 'HUMIDITY', value: 131.0", "is not in 0..100"),
        ("keyword: 'HUMIDITY', value: 31.0", "keyword: 'HUMIDITY', value: moist", "is no float"),
        ("keyword: 'TIMESYS', value: 'TAI'", "keyword: 'TIMESYS', value: 'UTC'", "all times are TAI here"),
        ("CC_O_20261122_000001', comment", "CC_O_20261122_000009', comment", "and the file is"),
    ],
)
def test_check_tells_what_is_wrong(run: Run, document: Path, old: str, new: str, said: str) -> None:
    text = document.read_text()
    assert old in text
    document.write_text(text.replace(old, new, 1))
    code, out, _ = run("header", "check", document)
    assert code == 5
    assert said in out
    code, out, _ = run("header", "check", document, "--json")
    assert json.loads(out)["status"] == "faults"


def test_check_of_what_is_no_document(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert run("header", "check", path)[0] == 1
    path.write_text("- [")
    assert run("header", "check", path)[0] == 1
    path.write_text("PRIMARY: []\n")
    code, _, err = run("header", "check", path)
    assert (code, "name its specification" in err) == (1, True)
    assert run("header", "check", path, "--spec", "LATISS")[0] == 5


def test_the_documents_of_other_services_can_be_looked_at(tmp_path: Path) -> None:
    """As the observatory's service writes them: block style, nulls, keywords of its own."""
    path = tmp_path / "CC_O_20200521_000008.yaml"
    path.write_text(
        "PRIMARY:\n- keyword: null\n  value: null\n  comment: '---- times ----'\n"
        "- keyword: TIMESYS\n  value: TAI\n  comment: time scale\n"
        "- keyword: INSTRUME\n  value: ComCam\n  comment: ''\n"
        "- keyword: OBSID\n  value: CC_O_20200521_000008\n  comment: ''\n"
        "- keyword: RATEL\n  value: 1.0\n  comment: ''\n"
    )
    found = inspect_document(path)
    assert found.obsid == "CC_O_20200521_000008"
    assert [problem.code for problem in found.problems] == ["unknown_keyword"]
    assert "DATE-BEG" in found.lacking


def test_service_and_telemetry_as_programs(program: Callable[..., Process], tmp_path: Path) -> None:
    """Two programs, linked by events: a header for each image, whatever the time zone."""
    telemetry = program(
        *("telemetry", "--spec", "LSSTComCam", "--events", "tcp://127.0.0.1:*", "--every", "500ms"),
        *("--readout", "200ms", "--faults", "doubled=0.5,shuffled=0.5"),
    )
    events = telemetry.until("ready")["events"]
    service = program("header", "run", "--archive", "arc", "--spec", "LSSTComCam", "--listen", events)
    service.until("ready")
    told: list[Any] = [service.until("header") for _ in range(3)]
    assert telemetry.end() == 0
    assert service.end() == 0
    for facts in told[1:]:
        assert facts["state"] == "complete"
        path = tmp_path / facts["path"]
        assert path.parent.parent.name == "20261122"
        values = values_of(path)
        assert values["OBSID"] == facts["obsid"]
        assert times.parse_iso(values["DATE-BEG"]) < times.parse_iso(values["DATE-END"])


def test_wrong_command_lines(run: Run, tmp_path: Path) -> None:
    code, _, err = run("header", "run", "--spec", "LATISS")
    assert (code, "--archive or a configuration is needed" in err) == (2, True)
    assert run("header", "run", "--archive", tmp_path, "--spec", "LATISS", "--deadline", "0s")[0] == 2
    assert run("telemetry", "--faults", "often=1", "--spec", "LATISS")[0] == 2
    assert run("telemetry", "--faults", "late=2", "--spec", "LATISS")[0] == 2
    assert run("telemetry", "--faults", "late=much", "--spec", "LATISS")[0] == 2
    assert run("header", "run", "--archive", tmp_path, "--spec", "Nobody")[0] == 1
    assert run("header", "spec", "Nobody")[0] == 1


def test_the_service_of_a_site(program: Callable[..., Process], tmp_path: Path) -> None:
    """Settings from the configuration of a site; options go before it."""
    site = tmp_path / "site.yaml"
    site.write_text(
        f"site: {{camera: LATISS}}\narchive: {{root: {tmp_path / 'raw'}}}\nheader: {{deadline: 5 s}}\n"
    )
    service = program("header", "run", "--config", site, "--directory", tmp_path / "in")
    ready = service.until("ready")
    assert ready["spec"] == "LATISS"
    assert ready["archive"] == str(tmp_path / "raw")
    assert ready["events"].startswith("ipc://")
    assert service.end() == 0
    assert (tmp_path / "raw" / "ledger.db").exists()


def test_the_specifications_of_the_documentation_are_right(project_root: Path, tmp_path: Path) -> None:
    for name in ("howto/header-service.md", "formats.md"):
        text = (project_root / "docs" / name).read_text(encoding="utf-8")
        blocks = re.findall(r"```yaml\n(format: raftwright-header-spec/1\n.*?)```", text, re.DOTALL)
        assert len(blocks) == 1
        path = tmp_path / "mine.yaml"
        path.write_text(blocks[0].replace("hill-camera.yaml", "LATISS"))
        assert check_spec_file(path) == []
