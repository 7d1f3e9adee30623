"""Repositories made by one command, again, by several at once, and where they cannot be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_raws import ended, forked

pytest.importorskip("lsst.daf.butler")

from raftwright.butler import Repository, make_repository, open_repository
from raftwright.camera import camera
from raftwright.cli import main
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError

Open = Callable[..., Repository]


def test_everything_is_in_it(opened: Open) -> None:
    repository = opened()
    butler = repository.butler
    for name, count in (("LATISS", 1), ("LSSTComCam", 9), ("LSSTCam", 205)):
        records = butler.query_dimension_records("detector", instrument=name, limit=None)
        wanted = {(each.id, each.file_stem) for each in camera(name).detectors}
        assert {(record.id, record.full_name) for record in records} == wanted
        assert len(wanted) == count
    purposes = [
        record.purpose
        for record in butler.query_dimension_records("detector", instrument="LSSTCam", limit=None)
    ]
    assert {each: purposes.count(each) for each in set(purposes)} == {
        "SCIENCE": 189,
        "GUIDE": 8,
        "WAVEFRONT": 8,
    }
    (instrument,) = butler.query_dimension_records("instrument", instrument="LSSTCam")
    assert (instrument.class_name, instrument.visit_system) == ("lsst.obs.lsst.LsstCam", 2)
    assert {
        (record.id, record.name)
        for record in butler.query_dimension_records("visit_system", instrument="LSSTCam")
    } == {(0, "one-to-one"), (1, "by-group-metadata"), (2, "by-seq-start-end")}
    for kind in ("raw", "guider"):
        assert set(butler.get_dataset_type(kind).dimensions.required) == {
            "instrument",
            "exposure",
            "detector",
        }
    chain = butler.collections.get_info("LSSTCam/defaults")
    assert tuple(chain.children) == ("LSSTCam/raw/all", "LSSTCam/raw/guider")


def test_again_changes_nothing_and_adds_cameras(repo: Path) -> None:
    before = (repo / "butler.yaml").read_bytes()
    with make_repository(repo) as repository:
        assert [each.name for each in repository.cameras] == ["LATISS", "LSSTComCam", "LSSTCam"]
        repository.butler.collections.redefine_chain("LSSTCam/defaults", ["LSSTCam/raw/all"])
    with make_repository(repo, cameras=["MiniCam"]) as repository:
        names = [each.name for each in repository.cameras]
        chain = repository.butler.collections.get_info("LSSTCam/defaults")
        assert tuple(chain.children) == ("LSSTCam/raw/all",)  # somebody's own choice
    assert names == ["LATISS", "LSSTComCam", "LSSTCam", "MiniCam"]
    assert (repo / "butler.yaml").read_bytes() == before
    with open_repository(repo) as repository:
        assert [each.name for each in repository.cameras] == names


def test_several_at_once(tmp_path: Path) -> None:
    root = tmp_path / "repo.v1"  # a dot in it is no ending

    def work() -> None:
        make_repository(root, cameras=["LATISS"]).close()

    pids = [forked(work) for _ in range(3)]
    assert [ended(pid) for pid in pids] == [0, 0, 0]
    with open_repository(root) as repository:
        assert len(repository.butler.query_dimension_records("detector", instrument="LATISS")) == 1
    assert sorted(os.listdir(root)) == ["butler.yaml", "gen3.sqlite3", "raftwright.json"]


@pytest.mark.parametrize("gone", [["butler.yaml", "raftwright.json"], ["raftwright.json"]])
def test_what_was_begun_is_ended(gone: list[str], repo: Path) -> None:
    """As it is after a kill between two steps."""
    for name in gone:
        (repo / name).unlink()
    with pytest.raises(NotFoundError, match="raftwright oods init"):
        open_repository(repo)
    with make_repository(repo) as repository:
        assert len(repository.butler.query_dimension_records("detector", instrument="LSSTCam")) == 205


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"cameras": ["NoCam"]}, NotFoundError, "no camera 'NoCam'"),
        ({"db_url": "postgresql://u:secret@h/d"}, UsageError, "readable for everybody"),
        ({"db_url": "mysql://u@h/d"}, UsageError, "not in mysql"),
        ({"db_url": "sqlite:///x.db"}, UsageError, "leave the URL out"),
        ({"db_url": "nothing"}, UsageError, "is no URL"),
        ({"db_url": "postgresql://nobody@127.0.0.1:1/none"}, StorageError, "cannot be reached"),
        ({"raw": "raws"}, UsageError, "no name of collections"),
        ({"raw": "{run}/raw"}, UsageError, "no name of collections"),
        ({"chain": "{instrument}/a b"}, UsageError, "no name of collections"),
    ],
)
def test_what_cannot_be_meant(
    settings: dict[str, object], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said) as caught:
        make_repository(tmp_path / "repo", **settings)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "repo" / "butler.yaml").exists()


def test_a_camera_with_the_code_of_another(tmp_path: Path, project_root: Path) -> None:
    text = (project_root / "python/raftwright/camera/data/LATISS.yaml").read_text()
    file = tmp_path / "twin.yaml"
    file.write_text(text.replace("LATISS", "TwinCam"))
    with pytest.raises(UsageError, match="name their images AT_"):
        make_repository(tmp_path / "repo", cameras=["LATISS", file])


def test_no_repository(tmp_path: Path, repo: Path) -> None:
    with pytest.raises(NotFoundError, match="is no repository"):
        open_repository(tmp_path)
    sheet = repo / "raftwright.json"
    for text in ("{", "[]", '{"format": 1}'):
        sheet.write_text(text)
        with pytest.raises(FormatError, match="is no description"):
            open_repository(repo)
    sheet.write_text(json.dumps({"format": "raftwright-repository/2", "cameras": []}))
    with pytest.raises(FormatError, match="this release reads"):
        open_repository(repo)


def test_a_registry_that_is_none(repo: Path) -> None:
    (repo / "gen3.sqlite3").write_bytes(b"no database at all" * 400)
    with pytest.raises(StorageError, match="cannot be opened"):
        open_repository(repo)


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        make_repository(tmp_path / "file" / "repo")


# -- the command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo = str(tmp_path / "repo")
    assert main(["oods", "init", "--repo", repo, "--camera", "LATISS"]) == 0
    assert "LATISS: 1 detector, read from LATISS/defaults" in capsys.readouterr().out
    assert main(["oods", "init", "--repo", repo, "--camera", "MiniCam", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["instruments"] == {"LATISS": 1, "MiniCam": 2}
    assert told["collections"]["LATISS"]["guider"] == "LATISS/raw/guider"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--registry", "postgresql://nobody@127.0.0.1:1/none"], 1),
        (["--registry", "postgresql://u:secret@127.0.0.1:1/none"], 2),
        (["--camera", "NoCam"], 1),
    ],
)
def test_one_line_when_it_fails(
    words: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["oods", "init", "--repo", str(tmp_path / "repo"), *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("raftwright: error: ")
    assert said.err.count("\n") == 1
    assert "secret" not in said.err
    shutil.rmtree(tmp_path / "repo", ignore_errors=True)


@pytest.mark.parametrize("name", ["o?x", "o%41"])
def test_a_name_that_a_butler_misreads(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="misreads"):
        make_repository(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_one_has_left_goes(tmp_path: Path) -> None:
    (tmp_path / "repo" / "making-x" / "sub").mkdir(parents=True)
    make_repository(tmp_path / "repo", cameras=["LATISS"]).close()
    assert not list((tmp_path / "repo").glob("making-*"))
