"""Text that is no camera file, files that are no files, names that are none: one clear error each."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import raftwright.camera
from raftwright.camera import Camera, CameraFileError, Problem, camera, camera_names, check_file
from raftwright.camera.document import MAX_BYTES, MAX_DEPTH, Document, read_document
from raftwright.errors import CameraError, NotFoundError, StorageError

DATA = Path(raftwright.camera.__file__).with_name("data")
MINI = (DATA / "MiniCam.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "stands where keys belong"),
        ("just text", "stands where keys belong"),
        ("[1, 2]", "stands where keys belong"),
        ("a: [1", "not valid YAML"),
        ("a: &x 1\nb: *x", "anchors and tags are not allowed"),
        ("a: *x", "aliases are not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "anchors and tags are not allowed"),
        ("? {a: b}\n: c", "a key must be plain text"),
        ("a: 1\n---\nb: 2", "a second document begins here"),
        ("<<: {a: 1}", "unknown key"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_strict_yaml(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "strict.yaml"
    path.write_text(text)
    problems = check_file(path)
    assert message in str(problems[0])
    with pytest.raises(CameraError):
        camera(path)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_without_recursion(opening: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(opening * (MAX_BYTES // len(opening)))
    (problem,) = check_file(path)
    reasons = (f"nested deeper than {MAX_DEPTH} levels", "not valid YAML", "a key must be plain text")
    assert any(reason in problem.message for reason in reasons)


def test_values_stay_text() -> None:
    text = "a: no\nb: 01\nc: 12:30\nd: 2026-01-01\ne: ~\nf: '1'\ng: 0x1F\nh: {i: [1e3, .inf]}"
    document = Document("x.yaml", text)
    assert document.value == {
        "a": "no",
        "b": "01",
        "c": "12:30",
        "d": "2026-01-01",
        "e": "~",
        "f": "1",
        "g": "0x1F",
        "h": {"i": ["1e3", ".inf"]},
    }
    assert [document.line(place) for place in (("a",), ("h", "i", 1), ("h", "z"), ("zz",))] == [1, 8, 8, None]


def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(MINI.encode() + b"#" * MAX_BYTES)
    (problem,) = check_file(path)
    assert "larger than 1048576 bytes" in problem.message
    path.write_bytes(MINI.encode() + b"\n#".ljust(MAX_BYTES - len(MINI), b"#"))
    assert check_file(path) == []


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: x\ntitle: caf\xe9\n")
    (problem,) = check_file(path)
    assert (problem.line, "byte 18 is not UTF-8" in problem.message) == (2, True)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no such camera file"):
        check_file(tmp_path / "none.yaml")
    with pytest.raises(NotFoundError, match="there is no such camera file"):
        camera(tmp_path / "none.yaml")
    (problem,) = check_file(tmp_path)
    assert "not a regular file" in problem.message
    os.mkfifo(tmp_path / "pipe.yaml")
    (problem,) = check_file(tmp_path / "pipe.yaml")  # without waiting for a writer
    assert "not a regular file" in problem.message
    (problem,) = check_file("/dev/zero")
    assert "not a regular file" in problem.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(MINI)
    path.chmod(0)
    with pytest.raises(StorageError) as caught:
        check_file(path)
    assert caught.value.filename == str(path)


def test_os_errors_keep_their_number_and_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        read_document(tmp_path / ("x" * 300))
    assert caught.value.errno
    assert caught.value.filename == str(tmp_path / ("x" * 300))


def test_unknown_names() -> None:
    with pytest.raises(NotFoundError, match="did you mean LSSTCam"):
        camera("lsstcan")
    with pytest.raises(NotFoundError, match="LATISS, LSSTCam, LSSTComCam, MiniCam"):
        camera("x" * 10_000_000)
    with pytest.raises(NotFoundError):
        camera("../data/LSSTCam")
    with pytest.raises(NotFoundError):
        camera("a\0/b")
    with pytest.raises(NotFoundError):
        camera("")


def test_near_matches(lsstcam: Camera) -> None:
    with pytest.raises(NotFoundError, match=r"did you mean .*R22_S11"):
        lsstcam.detector("R22_S1l")
    with pytest.raises(NotFoundError, match="ids run from 0 to 204"):
        lsstcam.detector(205)
    with pytest.raises(NotFoundError, match="22/0"):
        lsstcam.board("22/3")
    with pytest.raises(NotFoundError, match="did you mean R42 or R32 or R24"):
        lsstcam.raft("R2")
    with pytest.raises(NotFoundError, match="did you mean Segment1"):
        lsstcam.detector(0).segment("Segment1O")
    with pytest.raises(NotFoundError) as caught:
        lsstcam.board("\x1b[2J" * 1_000_000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    shutil.copy(DATA / "MiniCam.yaml", path)
    first = camera(path)
    assert camera(path) is camera(str(path)) is first
    path.write_text(MINI.replace("title: A made-up", "title: My own made-up"))
    assert camera(path).title == "My own made-up camera of two small CCDs"
    assert camera("MiniCam") is camera("MiniCam")
    assert camera(first) is first


def test_cameras_can_be_sent_to_another_process(minicam: Camera) -> None:
    copy = pickle.loads(pickle.dumps(minicam))
    assert copy.board("01/0").plane_of == minicam.board("01/0").plane_of
    assert copy.detector(1).segments == minicam.detector(1).segments


@pytest.mark.parametrize("name", camera_names())
def test_loading_is_quick(name: str) -> None:
    from raftwright.camera import registry

    best = 1.0
    for _ in range(5):
        registry._read.cache_clear()
        started = time.process_time()  # not the time that the machine spends on other things
        camera(name)
        best = min(best, time.process_time() - started)
    assert best < 0.1  # a fourth of it on an idle machine


@given(st.data())
def test_no_edit_breaks_the_reader(data: st.DataObject) -> None:
    """Whatever a file says, there are problems or a camera: no other error."""
    text = list(MINI)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(
            st.one_of(st.sampled_from("[]{}:,-#&*!'\"\n 0189.eEx~/"), st.characters(codec="utf-8"))
        )
    _survives("".join(text))


@given(st.one_of(st.text(), st.binary().map(lambda b: b.decode("latin-1"))))
def test_no_text_breaks_the_reader(text: str) -> None:
    _survives(text)


def _survives(text: str) -> None:
    from raftwright.camera.build import build_camera
    from raftwright.camera.document import Findings
    from raftwright.camera.schema import read_entries

    try:
        findings = Findings(Document("edited.yaml", text))
    except CameraFileError as error:
        _check_words(error.problems)
        return
    entry = read_entries(findings)
    assert entry is not None or findings.problems
    if entry is not None:
        build_camera(entry, findings)
    _check_words(findings.problems)


def _check_words(problems: list[Problem]) -> None:
    for problem in problems:
        assert str(problem).isprintable()
        assert str(problem).isascii()
