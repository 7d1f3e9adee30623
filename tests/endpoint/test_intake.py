"""Files of the buffer: which are taken, where they go, and what is never done to what is there."""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from pathlib import Path

import pytest
from endpoint_stand import Stand, fits, raws, wait_for

from raftwright import _core
from raftwright.backbone.receiving import Ingest, Settings
from raftwright.backbone.receiving.lists import read_list
from raftwright.backbone.receiving.watching import being_written
from raftwright.errors import FormatError, StorageError
from raftwright.rawfile.container import METADATA_INDEX
from raftwright.rawfile.container_writing import Source, stage_container
from raftwright.rawfile.standing import digest

NULL = Ingest(plugin="null")


def test_an_image_is_stored_and_every_step_is_remembered(stand: Stand) -> None:
    endpoint = stand.start(NULL, settle=0)
    for name, data in raws().items():
        stand.hand_over(name, data)
    wait_for(lambda: len(stand.stored()) == len(raws()) and endpoint.idle, said=endpoint.status)
    assert stand.stored() == raws()
    assert stand.in_buffer() == []
    with stand.register() as register:
        name, data = fits()
        (row,) = register.files(name)
        assert (row.bytes, row.place, row.alias_of) == (len(data), "storage", None)
        assert row.adler32 == f"{zlib.adler32(data):08x}"
        assert row.crc32c == f"{_core.crc32c(data):08x}"
        history = [(each.ingester, each.state, each.attempt) for each in register.events(row.id)]
        assert history == [
            *(("intake", "SUCCESS", 1), ("null", "UNTRIED", 0)),
            *(("null", "PENDING", 1), ("null", "SUCCESS", 1)),
        ]
    assert not os.access(stand.storage / name, os.W_OK) or os.getuid() == 0
    assert (stand.storage / name).stat().st_mode & 0o222 == 0


def test_history_cannot_be_changed(stand: Stand) -> None:
    """The register itself refuses it, whoever tries."""
    import sqlite3

    endpoint = stand.start(NULL, settle=0)
    stand.hand_over("a.txt", b"a")
    wait_for(lambda: endpoint.taken == 1 and endpoint.idle)
    with sqlite3.connect(stand.settings().register_path) as connection:
        for statement in ("DELETE FROM event", "UPDATE event SET state = 'SUCCESS'", "DELETE FROM file"):
            with pytest.raises(sqlite3.IntegrityError, match="history is kept"):
                connection.execute(statement)
    connection.close()


def test_the_same_name_with_other_content_never_replaces(stand: Stand) -> None:
    """D149: the original stays byte for byte, and the newcomer is kept aside, also its third version."""
    endpoint = stand.start(NULL, settle=0)
    for content in (b"first", b"second", b"third"):
        stand.hand_over("day/x.txt", content)
        wait_for(lambda: not stand.in_buffer())
    assert stand.stored() == {"day/x.txt": b"first"}
    wait_for(lambda: endpoint.idle)
    with stand.register() as register:
        rows = register.files("day/x.txt")
        assert [row.place for row in rows] == ["storage", "conflict", "conflict"]
        assert [Path(row.kept_as).read_bytes() for row in rows[1:]] == [b"second", b"third"]
        assert register.states(rows[1].id) == {}, "a conflict is not ingested"
        (event,) = register.events(rows[1].id)
        assert event.state == "INVALID"
        assert "another content" in event.message
        assert register.places() == {"storage": 1, "conflict": 2}


def test_the_same_content_under_another_name_is_an_alias_once(stand: Stand) -> None:
    """D150: one content, two names, no loop; equal names in different directories are different files."""
    endpoint = stand.start(NULL, settle=0)
    stand.hand_over("a/x.txt", b"content")
    wait_for(lambda: endpoint.taken == 1)
    stand.hand_over("b/x.txt", b"content")
    stand.hand_over("c/x.txt", b"other")
    wait_for(lambda: endpoint.taken == 3 and endpoint.idle)
    time.sleep(0.2)
    assert endpoint.taken == 3
    assert stand.stored() == {"a/x.txt": b"content", "b/x.txt": b"content", "c/x.txt": b"other"}
    assert (stand.storage / "a/x.txt").samefile(stand.storage / "b/x.txt")
    with stand.register() as register:
        first, alias, other = register.files("x.txt")
        assert (alias.name, alias.alias_of) == ("b/x.txt", first.id)
        assert register.states(alias.id) == {"null": "IGNORED"}
        assert register.states(other.id) == {"null": "SUCCESS"}


def test_equal_sums_are_not_equal_content(stand: Stand) -> None:
    """Before two names share a content it is compared byte for byte."""
    endpoint = stand.start(settle=0)
    stand.hand_over("a", b"content")
    wait_for(lambda: endpoint.taken == 1)
    (stand.storage / "a").chmod(0o644)
    (stand.storage / "a").write_bytes(b"CONTENT")  # damaged since
    stand.hand_over("b", b"content")
    wait_for(lambda: endpoint.taken == 2)
    assert stand.stored() == {"a": b"CONTENT", "b": b"content"}


def test_what_came_before_comes_again(stand: Stand) -> None:
    endpoint = stand.start(NULL, settle=0)
    for _ in range(2):
        stand.hand_over("x.txt", b"x")
        wait_for(lambda: not stand.in_buffer() and endpoint.idle)
    with stand.register() as register:
        (row,) = register.files("x.txt")
        said = [(each.ingester, each.state, each.attempt) for each in register.events(row.id)]
        assert said[-1] == ("intake", "SUCCESS", 2)
        assert sum(name == "null" and state == "PENDING" for name, state, _ in said) == 1


def test_a_slow_writer_is_never_taken_early(stand: Stand) -> None:
    """D129, F31: a raw file that is written in place, with pauses longer than the settling time."""
    name, data = fits()
    endpoint = stand.start(NULL, settle=0.05, patience=30.0)
    there = stand.buffer / name
    there.parent.mkdir(parents=True)
    with there.open("wb") as stream:
        for begin in range(0, len(data), len(data) // 4 + 1):
            stream.write(data[begin : begin + len(data) // 4 + 1])
            stream.flush()
            time.sleep(0.15)
            assert stand.stored() == {}
            assert endpoint.taken == 0
    wait_for(lambda: endpoint.taken == 1)
    assert stand.stored() == {name: data}


def test_a_writer_that_opens_again_for_each_piece_is_not_taken_early(stand: Stand) -> None:
    """D129: nothing tells that it is being written; a FITS file that is cut short is waited for."""
    name, data = fits()
    endpoint = stand.start(NULL, settle=0.05, patience=30.0)
    there = stand.buffer / name
    there.parent.mkdir(parents=True)
    there.write_bytes(data[:6000])
    time.sleep(0.4)
    assert endpoint.taken == 0
    assert stand.stored() == {}
    with there.open("ab") as stream:
        stream.write(data[6000:])
    wait_for(lambda: endpoint.taken == 1, said=endpoint.status)
    assert stand.stored() == {name: data}


def test_a_sidecar_that_is_half_written_is_waited_for(stand: Stand) -> None:
    """D129: nothing vouches for it, but half of an object is no JSON."""
    endpoint = stand.start(NULL, settle=0, patience=30.0)
    (stand.buffer / "x.json").write_text('{"a": 1')
    time.sleep(0.3)
    assert endpoint.taken == 0
    with (stand.buffer / "x.json").open("a") as stream:
        stream.write("}")
    wait_for(lambda: stand.stored() == {"x.json": b'{"a": 1}'})


def test_who_writes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as stream:
        stream.write(b"x")
        stream.flush()
        assert being_written(path)
    assert not being_written(path)
    assert not being_written(tmp_path / "nothing")


def test_truncated_files_and_others_are_refused_and_kept(stand: Stand) -> None:
    """F28: cut, damaged, empty, no FITS at all: refused with a reason, and the whole one may come later."""
    name, data = fits()
    damaged = bytearray(data)
    damaged[len(data) * 3 // 4] ^= 1
    bad = {
        name: data[: len(data) // 2],
        "d/" + name.rpartition("/")[2]: bytes(damaged),
        "no.fits": b"SIMPLE  =                    T" + bytes(9000),
        "empty.json": b"",
    }
    endpoint = stand.start(NULL, settle=0, patience=0.0)
    for each, content in bad.items():
        stand.hand_over(each, content)
    wait_for(lambda: endpoint.taken == len(bad), said=endpoint.status)
    assert stand.stored() == {}
    with stand.register() as register:
        rows = register.set_aside()
        assert {row.name for row, _ in rows} == set(bad)
        assert {row.place for row, _ in rows} == {"refused"}
        assert all(why for _, why in rows)
        assert all(Path(row.kept_as).read_bytes() == bad[row.name] for row, _ in rows)
    stand.hand_over(name, data)
    wait_for(lambda: endpoint.taken == len(bad) + 1)
    assert stand.stored() == {name: data}


@pytest.mark.parametrize("verify", ["sums", "pixels"])
def test_a_file_of_another_image_is_refused(stand: Stand, verify: str) -> None:
    """Its name and its header do not agree; a sum that does not hold is found as well."""
    name, data = fits()
    endpoint = stand.start(NULL, settle=0, patience=0.0, verify=verify)
    stand.hand_over(name.replace("000007", "000008"), data)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    stand.hand_over(name, bytes(damaged))
    wait_for(lambda: endpoint.taken == 2, said=endpoint.status)
    with stand.register() as register:
        said = sorted(why for _, why in register.set_aside())
        assert said[0] == "its header says that it is of MN_O_20261122_000007"
        assert said[1].endswith("do not hold")
    assert stand.stored() == {}


def test_hostile_names_stay_in_the_buffer_and_are_told(stand: Stand) -> None:
    """Links out of the tree, names that are no text: nothing is followed, nothing stops the others."""
    secret = stand.path / "secret"
    secret.write_text("secret")
    (stand.path / "outside").mkdir()
    (stand.buffer / "link").symlink_to(secret)
    (stand.buffer / "folder").symlink_to(stand.path / "outside")
    (stand.storage / "out").symlink_to(stand.path / "outside")
    Path(os.fsdecode(os.fsencode(stand.buffer) + b"/\xff\xfe.fits")).write_bytes(b"x")
    (stand.buffer / "a\nb.txt").write_text("x")
    os.mkfifo(stand.buffer / "pipe")
    stand.hand_over("out/x.txt", b"x")
    stand.hand_over("n" * 250 + ".txt", b"long")
    endpoint = stand.start(NULL, settle=0)
    wait_for(lambda: endpoint.taken == 1 and len(endpoint.problems()) > 0)
    time.sleep(0.3)
    assert stand.stored() == {"n" * 250 + ".txt": b"long"}
    assert list((stand.path / "outside").iterdir()) == []
    assert (stand.buffer / "link").is_symlink()
    assert secret.read_text() == "secret"
    said = " ".join(endpoint.problems())
    assert "5 in the buffer cannot be taken" in said, said
    (stand.buffer / "link").unlink()
    wait_for(lambda: "4 in the buffer cannot be taken" in " ".join(endpoint.problems()))
    assert "out/x.txt" in json.dumps(endpoint.report()) or not endpoint.idle


def listed(files: dict[str, bytes], **wrong: object) -> bytes:
    return json.dumps(
        {
            "format": "raftwright-handover/1",
            "files": {
                name: {"bytes": len(data), "crc32c": f"{_core.crc32c(data):08x}", **wrong}
                for name, data in files.items()
            },
        }
    ).encode()


def test_what_a_list_vouches_for_is_taken_at_once(stand: Stand) -> None:
    files = {"a.txt": b"one", "d/b.txt": b"two"}
    endpoint = stand.start(NULL, settle=300.0)
    for name, data in files.items():
        stand.hand_over(f"day/{name}", data)
    time.sleep(0.2)
    assert endpoint.taken == 0
    stand.hand_over("day/first.handover.json", listed(files))
    wait_for(lambda: endpoint.taken == 2, said=endpoint.status)
    assert stand.stored() == {f"day/{name}": data for name, data in files.items()}


def test_a_list_may_come_first(stand: Stand) -> None:
    """It waits for the files that it names, and leaves after them."""
    endpoint = stand.start(NULL, settle=0)
    files = {"a.txt": b"one", "b.txt": b"two"}
    stand.hand_over("first.handover.json", listed(files))
    stand.hand_over("a.txt", b"one")
    wait_for(lambda: endpoint.taken == 1)
    time.sleep(0.3)
    assert endpoint.taken == 1
    stand.hand_over("b.txt", b"2wo")
    wait_for(lambda: endpoint.taken == 3, said=endpoint.status)
    assert "b.txt" not in stand.stored()
    assert "first.handover.json" in stand.stored()


def test_what_is_not_as_the_list_says_is_refused(stand: Stand) -> None:
    endpoint = stand.start(NULL, settle=0)
    files = {"a.txt": b"one", "b.txt": b"two"}
    text = json.loads(listed(files))
    text["files"]["b.txt"]["adler32"] = "00000000"
    (stand.staging / "all").mkdir()
    for name, data in files.items():
        (stand.staging / "all" / name).write_bytes(data)
    (stand.staging / "all" / "x.handover.json").write_text(json.dumps(text))
    (stand.staging / "all").rename(stand.buffer / "day")
    wait_for(lambda: endpoint.taken == 3, said=endpoint.status)
    assert stand.stored()["day/a.txt"] == b"one"
    with stand.register() as register:
        ((row, why),) = register.set_aside()
        assert (row.name, row.place) == ("day/b.txt", "refused")
        assert "the hand-over list says 00000000" in why


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "raftwright-handover/1", "files": {"a": {"bytes": 1}}}', "{" * 5000]
)
def test_lists_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.handover.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"x\.handover\.json"):
        read_list(path)


def test_a_storage_that_is_not_mounted_is_not_written_to(stand: Stand) -> None:
    stand.storage.rmdir()
    with pytest.raises(StorageError, match="no such storage"):
        stand.start(NULL)
    assert not stand.storage.exists()
    assert stand.buffer.is_dir()


def test_a_storage_whose_mount_vanished_is_not_written_to(stand: Stand) -> None:
    """Its directory is there, empty: what came would be on another disk, and hidden once it is back."""
    endpoint = stand.start(settle=0.0)
    stand.hand_over("a.json", b"[1]")
    wait_for(lambda: "a.json" in stand.stored())
    away = stand.path / "away"
    stand.storage.rename(away)
    stand.storage.mkdir()
    stand.hand_over("b.json", b"[2]")
    wait_for(lambda: any("mount it" in one for one in endpoint.problems()))
    assert not list(stand.storage.iterdir())
    endpoint.stop(5.0)
    with pytest.raises(StorageError, match="not the storage that files of this buffer went to"):
        stand.start(settle=0.0)
    assert not list(stand.storage.iterdir())
    assert stand.in_buffer().count("b.json") == 1
    stand.storage.rmdir()
    away.rename(stand.storage)
    stand.start(settle=0.0)
    wait_for(lambda: "b.json" in stand.stored())
    stand.started[-1].stop(5.0)
    # Another one, and that is meant.
    stand.storage.rename(away)
    stand.storage.mkdir()
    (stand.buffer / ".raftwright-storage").unlink()
    stand.hand_over("c.json", b"[3]")
    stand.start(settle=0.0)
    wait_for(lambda: list(stand.stored()) == ["c.json"])


def test_only_one_takes_in(stand: Stand) -> None:
    first = stand.start(NULL, settle=0)
    second = stand.start(NULL, settle=0)
    for number in range(20):
        stand.hand_over(f"{number}.txt", f"{number}".encode())
    wait_for(lambda: first.taken + second.taken == 20)
    assert 0 in (first.taken, second.taken)
    one, other = (first, second) if first.taken else (second, first)
    one.stop(5.0)
    stand.hand_over("after.txt", b"after")
    wait_for(lambda: other.taken == 1)


def test_what_comes_is_taken_at_once(stand: Stand) -> None:
    """The kernel tells of it: nobody waits for the next look."""
    endpoint = stand.start(pause=30.0, settle=0.0)
    wait_for(lambda: endpoint.idle)
    name, data = fits()
    begun = time.monotonic()
    stand.hand_over(name, data)  # into directories that are new
    wait_for(lambda: name in stand.stored())
    stand.hand_over("written in place.json", b"{}")
    (stand.staging / "x").write_bytes(b"[1]")
    (stand.buffer / "linked.json").hardlink_to(stand.staging / "x")
    (stand.buffer / name).parent.mkdir(parents=True, exist_ok=True)
    (stand.buffer / name).with_name("beside.json").write_bytes(b"[2]")
    wait_for(lambda: len(stand.stored()) == 4, said=stand.stored)
    assert time.monotonic() - begun < 5.0


def test_a_file_that_has_to_settle_is_looked_at_when_it_has(stand: Stand) -> None:
    stand.start(pause=30.0, settle=0.4)
    begun = time.monotonic()
    stand.hand_over("a.json", b"{}")
    wait_for(lambda: "a.json" in stand.stored())
    assert 0.3 < time.monotonic() - begun < 5.0


def test_it_is_not_idle_before_it_has_looked(stand: Stand) -> None:
    """`once` would leave what is in the buffer."""
    for number in range(30):
        stand.hand_over(f"{number}.json", b"[%d]" % number)
    endpoint = stand.start(settle=0.0)
    until = time.monotonic() + 10.0
    while time.monotonic() < until and not endpoint.idle:
        pass
    assert len(stand.stored()) == 30


def test_directories_that_are_empty_for_long_are_removed(stand: Stand) -> None:
    """D130: the buffer does not fill with them; a fresh one is left to its writer."""
    old, fresh = stand.buffer / "a" / "old", stand.buffer / "fresh"
    for each in (old, fresh):
        each.mkdir(parents=True)
    os.utime(old, (0, 0))
    stand.start(NULL, settle=0, empty=3600.0)
    wait_for(lambda: not old.exists())
    time.sleep(0.1)
    assert fresh.is_dir()
    assert stand.buffer.is_dir()


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="lies in the buffer"):
        Settings(buffer="/data", storage="/data/raw")
    with pytest.raises(FormatError, match="no absolute path"):
        Settings(buffer="data", storage="/raw")
    with pytest.raises(FormatError, match="is there twice"):
        Settings(buffer="/in", storage="/raw", ingest=[NULL, NULL])


def test_nothing_is_lost_between_writers_and_taker(stand: Stand) -> None:
    """Many threads hand over while files are taken, under the same names too."""
    endpoint = stand.start(NULL, settle=0)

    def write(thread: int) -> None:
        for number in range(25):
            stand.hand_over(f"t{thread}/{number % 5}.txt", f"{thread} {number}".encode())
            time.sleep(0.002)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    wait_for(lambda: not stand.in_buffer() and endpoint.idle, said=endpoint.status)
    with stand.register() as register:
        places = register.places()
        contents = list(stand.stored().values())
        for row, _ in register.set_aside(1000):
            contents.append(Path(row.kept_as).read_bytes())
        assert len(contents) == len(set(contents)) == places["storage"] + places.get("conflict", 0)


def test_a_container_is_taken_whole_or_not_at_all(stand: Stand, tmp_path: Path) -> None:
    """F44, D129: one that is cut short is waited for, one that is damaged or of another image refused."""
    obsid = "MN_O_20261122_000007"
    path, body = tmp_path / "files" / f"{obsid}_R22_S11.fits", b"pixels" * 5000
    path.parent.mkdir()
    path.write_bytes(body)
    source = Source(name=path.name, path=path, bytes=len(body), crc32c=digest(path).crc32c)
    with stage_container(tmp_path, obsid, [source], {METADATA_INDEX: b"{}"}) as staged:
        data = Path(staged.readable_path).read_bytes()
    damaged = bytearray(data)
    damaged[1000] ^= 1
    endpoint = stand.start(NULL, settle=0, patience=1.0)
    there = stand.buffer / f"{obsid}.v2.zip"
    there.write_bytes(data[:20_000])
    time.sleep(0.3)
    assert endpoint.taken == 0
    with there.open("ab") as stream:
        stream.write(data[20_000:])
    wait_for(lambda: endpoint.taken == 1, said=endpoint.status)
    assert stand.stored() == {there.name: data}
    stand.hand_over(f"{obsid}.zip", bytes(damaged))
    stand.hand_over("MN_O_20261122_000008.zip", data)
    stand.hand_over("MN_O_20261122_000009.zip", data[:-1])
    stand.hand_over("other.zip", b"of somebody else")
    wait_for(lambda: endpoint.taken == 5, said=endpoint.status)
    assert set(stand.stored()) == {there.name, "other.zip"}
    with stand.register() as register:
        said = {row.name: why for row, why in register.set_aside()}
    assert said[f"{obsid}.zip"].startswith(path.name)
    assert said["MN_O_20261122_000008.zip"] == f"it is a container of {obsid}"
    assert "is no whole zip" in said["MN_O_20261122_000009.zip"]
