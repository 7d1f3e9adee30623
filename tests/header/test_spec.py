"""Specification files: the built-in ones, others over them, and everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftwright.camera import camera_names
from raftwright.errors import NotFoundError, StorageError
from raftwright.header import check_spec_file, header_spec, spec_names
from raftwright.header.spec_file import SpecError

HEAD = "format: raftwright-header-spec/1\nname: mine\n"
OVER = "base: common\ncamera: MiniCam\n"

FROM = "MOON: {type: float, from: %s}"


def write(path: Path, text: str, head: str = HEAD) -> Path:
    path.write_text(head + text)
    return path


def card(line: str) -> str:
    """A file with one card, in line 10."""
    head = f"{OVER}sections:\n  PRIMARY:\n    groups:\n      mine:\n        cards:\n"
    return f"{head}          {line}\n"


@pytest.mark.parametrize("name", spec_names())
def test_each_built_in_specification_is_right(name: str) -> None:
    assert check_spec_file(name) == []
    spec = header_spec(name)
    assert spec.camera.name == name
    primary = {c.keyword: c for c in spec.primary().cards()}
    for keyword in ("OBSID", "DATE-BEG", "DATE-END", "TIMESYS", "EXPTIME", "IMGTYPE", "GROUPID"):
        assert primary[keyword].mandatory == "always", keyword
    assert set(spec.minimum) >= {"exposure", "camera", "program", "scheduler"}


def test_every_built_in_camera_has_one() -> None:
    assert set(spec_names()) == set(camera_names())


def test_a_camera_goes_over_its_base_attribute_by_attribute() -> None:
    comcam, lsstcam = header_spec("LSSTComCam"), header_spec("lsstcam")
    mine = {c.keyword: c for c in comcam.primary().cards()}
    base = {c.keyword: c for c in lsstcam.primary().cards()}
    assert list(mine) == list(base)
    assert str(mine["FILTER"].sources[0]) == "telemetry CCCamera.endSetFilter.filterName at start"
    assert mine["FILTER"].mandatory == base["FILTER"].mandatory == "sky"
    assert mine["RASTART"] == base["RASTART"]
    assert comcam.minimum == lsstcam.minimum


def test_groups_stand_in_the_order_of_the_observatory() -> None:
    titles = [group.title.split()[0] for group in header_spec("LATISS").primary().groups]
    order = ["Date,", "Image-identifying", "Additional", "Telescope", "Pointing", "Filter/grating", "Test"]
    assert titles == [*order, "Exposure-related", "Weather", "Stuttered", "Hierarch", "Header"]


def test_another_site_is_a_data_file(tmp_path: Path) -> None:
    """Another camera, other constants, cards dropped and added, another least metadata."""
    path = write(
        tmp_path / "hill.yaml",
        """base: LATISS
camera: MiniCam
drop: [GRATING, GRATBAND, GRATSLOT, LINSPOS]
sections:
  PRIMARY:
    groups:
      site:
        cards:
          OBS-ELEV: {default: 2207.5}
          OBS-LONG: {default: -17.8801}
      hill:
        title: The hill
        cards:
          MOON: {type: float, from: {telemetry: Hill.moon, value: phase}, range: 0..1, comment: 'Phase: 1'}
  "{raft}{slot}_{segment}":
    each: segment
    groups:
      gain: {cards: {GAIN: {type: float, from: {segment: gain}}}}
minimum: {camera: [IMGTYPE], hill: [MOON]}
""",
    )
    spec = header_spec(path)
    cards = {c.keyword: c for c in spec.primary().cards()}
    assert cards["OBS-ELEV"].default == 2207.5
    assert "GRATING" not in cards
    assert (cards["MOON"].low, cards["MOON"].high) == (0.0, 1.0)
    assert spec.fields["Hill.moon"] == {"phase"}
    assert spec.minimum["hill"] == ("MOON",)
    beside = header_spec(write(tmp_path / "other.yaml", "base: hill.yaml\ndrop: [MOON]\n"))
    assert "MOON" not in {c.keyword for c in beside.primary().cards()}
    assert beside.minimum["hill"] == ()


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        ("MOON: {type: float, form: {constant: 1}}", "MOON.form", "unknown key; did you mean 'from'?"),
        (
            "MOON: {type: real, default: 1}",
            "MOON.type",
            "string or integer or float or boolean or date or mjd",
        ),
        ("MOON: {default: 1}", "MOON", "key 'type' is missing here"),
        ("MOON: {type: float}", "MOON", "it could never have a value"),
        ("MOON: {type: float, default: full}", "MOON.default", "'full' is no float"),
        ("MOON: {type: float, default: 1, range: low..high}", "MOON.range", "a range such as 0..90"),
        ("MOON: {type: float, default: 1, range: 9..1}", "MOON.range", "is empty"),
        ("MOON: {type: float, default: 1, mandatory: maybe}", "MOON.mandatory", "no or always or sky"),
        (FROM % "{}", "MOON.from", "a source is one of"),
        (FROM % "{constant: 1, name: obsid}", "MOON.from", "name and constant is given"),
        (
            FROM % "{event: endIntegration, field: x}",
            "MOON.from",
            "is no event of an image",
        ),
        (FROM % "{event: endReadout}", "MOON.from", "needs `field`, or `key`"),
        (FROM % "{telemetry: Hill.moon}", "MOON.from", "needs `value`"),
        (FROM % "{telemetry: moon, value: x}", "MOON.from", "is no topic"),
        (
            FROM % "{telemetry: A.b, value: x, max_age: long}",
            "MOON.from",
            "give seconds, or none",
        ),
        (
            FROM % "{telemetry: A.b, value: x, rule: median}",
            "MOON.from.rule",
            "first or last or min",
        ),
        (FROM % "{camera: colour}", "MOON.from", "'colour' is not known of camera"),
        (FROM % "{ccd: serial}", "MOON.from", "known of one ccd only"),
        (FROM % "{daq: firmware}", "MOON.from", "known of one board only"),
        (FROM % "{event: any, field: x, by: ccd, names: [y]}", "MOON.from", "each: ccd"),
        (
            FROM % "{environment: 'a b'}",
            "MOON.from.environment",
            "the name of a variable",
        ),
        (FROM % "{mjd: 'ünter'}", "MOON.from", "cannot be a keyword"),
        ("MØØN: {type: float, default: 1}", "", "cannot be a keyword"),
        ("NAXIS1: {type: integer, default: 1}", "NAXIS1", "describes the file itself"),
        ("EXPTIME: {type: float, default: 1}", "EXPTIME", "stands in two groups"),
        ("MOON: {type: mjd, from: {mjd: DATE-MON}}", "MOON", "DATE-MON is no card before it"),
        ("MOON: {type: float, default: 1, comment: 'a\\tb µ'}", "MOON.comment", "printable ASCII"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, line: str, place: str, said: str) -> None:
    """F60; D024: what describes the file is no card of a header. D101: a file is data alone."""
    path = write(tmp_path / "wrong.yaml", card(line))
    problems = check_spec_file(path)
    assert len(problems) == 1, problems
    assert problems[0].line == 10, problems
    assert place in problems[0].place
    assert said in problems[0].message
    with pytest.raises(SpecError, match=r"wrong\.yaml:10: "):
        header_spec(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera: MiniCam\n", "there is no section PRIMARY"),
        ("base: common\n", "no camera is named"),
        ("base: common\ncamera: Mini\n", "no camera 'Mini' is built in"),
        ("base: comon\ncamera: MiniCam\n", "neither built in nor a file beside"),
        (OVER + "minimum: {mine: [NOTHERE]}\n", "is no card of PRIMARY"),
        (OVER + "sections: {'{raft}_X': {each: ccd}}\n", "needs {slot} in its name"),
        (OVER + "sections: {'{raft}_X': {}}\n", "only nothing may stand in braces"),
        (OVER + "colour: red\n", "unknown key"),
        ("base: common\nbase: common\ncamera: MiniCam\n", "stands here twice"),
        ("base: [\n", "not valid YAML"),
        ("base: &a common\n", "anchors and tags are not allowed"),
        (OVER + "drop: ['µ']\n", "cannot be a keyword"),
    ],
)
def test_whole_files_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    problems = check_spec_file(write(tmp_path / "wrong.yaml", text))
    assert any(said in problem.message for problem in problems), problems


def test_a_file_that_stands_on_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "loop.yaml", "base: loop.yaml\ncamera: MiniCam\n")
    assert "stand on one another" in check_spec_file(path)[0].message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there are LATISS, LSSTCam"):
        header_spec("HyperSuprime")
    with pytest.raises(NotFoundError, match="no such header specification"):
        header_spec(tmp_path / "none.yaml")
    with pytest.raises((StorageError, SpecError)):
        header_spec(tmp_path)
    (tmp_path / "big.yaml").write_bytes(b"#" * (2 << 20))
    assert "larger than" in check_spec_file(tmp_path / "big.yaml")[0].message
    (tmp_path / "latin.yaml").write_bytes(HEAD.encode() + b"title: \\xe9\\xff\n".replace(b"\\xe9", b"\xe9"))
    assert check_spec_file(tmp_path / "latin.yaml")
