"""Files that somebody else writes into a directory: taken when they are whole, and each once."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oods_stand import Site, wait_for
from small_raws import BIAS, ended, forked

from raftwright.butler import Ingester, open_repository
from raftwright.errors import FormatError
from raftwright.ledger import open_ledger
from raftwright.oods.inputs import Directory
from raftwright.oods.settings import Settings

NAME = "MC_O_20261122_000123"


def drop_of(site: Site) -> Path:
    path = site.path / "drop"
    path.mkdir(exist_ok=True)
    return path


def look(site: Site, **more: Any) -> Directory:
    known: dict[str, Any] = {"path": str(drop_of(site)), "settle": 0.4, "patience": 1.0, "every": 0.1}
    return Directory(**{**known, **more})


def image(site: Site, number: int = 123, **more: Any) -> list[Path]:
    """Raws in a tree beside, of which the ledger knows nothing."""
    return site.raws.image(f"MC_O_20261122_{number:06d}", root=site.path / "made", **more)


def put(site: Site, path: Path, name: str = "", *, sidecar: bool = True) -> Path:
    """As somebody does who knows: sidecar first, and each appears whole."""
    target = drop_of(site) / (name or path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    for source, to in (
        (path.with_suffix(".json"), target.with_suffix(".json")),
        (path, target),
    ):
        if source.suffix == ".fits" or sidecar:
            shutil.copyfile(source, to.with_name(f".{to.name}.tmp"))
            to.with_name(f".{to.name}.tmp").rename(to)
    return target


def aside(site: Site) -> dict[str, str]:
    return {row.shown: row.reason for row in site.ledger.quarantine.all()}


def test_an_image_that_nobody_announced(site: Site) -> None:
    """It is ingested, listed, and found by its group, as the sidecar says."""
    for path in image(site):
        put(site, path, f"20261122/{NAME}/{path.name}")
    rows = site.ingested(3, directories=[look(site)])
    assert {row.detector for row in rows} == {"R22_S10", "R22_S11", "R22_S12"}
    assert {row.instrument for row in rows} == {"LSSTCam"}
    found = site.ledger.ingests.find("LSSTCam", "2026-11-23T01:01:55.123", 0, "R22_S11", "oods")
    assert [row.path for row in found] == [str(drop_of(site) / "20261122" / NAME / f"{NAME}_R22_S11.fits")]
    (known,) = site.ledger.images.get(NAME)
    assert (known.physical_filter, known.cur_index) == ("r_57", 1)
    with open_repository(site.repo) as repository:
        where = {"instrument": "LSSTCam", "exposure": 2026112200123, "detector": 94}
        raw = repository.butler.get("raw", where, collections=repository.chain_of("LSSTCam"))
        assert raw.header["OBSID"] == NAME


def test_a_slow_writer_is_never_ingested_early(site: Site) -> None:
    """D129: in place, no sidecar, pauses longer than it takes to settle, also where an HDU ends."""
    (path, *_) = image(site)
    content = path.read_bytes()
    target = drop_of(site) / path.name
    service = site.oods(directories=[look(site, settle=0.2, patience=30.0)])
    edges = (0, 100, 2880, 3 * 2880, len(content) // 2, len(content) - 2881, len(content) - 1)
    with target.open("wb") as stream:
        written = 0
        for edge in edges:
            stream.write(content[written:edge])
            stream.flush()
            written = edge
            looks = service.inputs.scans[0].looks
            wait_for(lambda looks=looks: service.inputs.scans[0].looks >= looks + 5)
            assert site.rows() == [], edge
        stream.write(content[written:])
    (row,) = site.ingested(1, service)
    assert row.bytes == len(content)
    assert aside(site) == {}


def test_no_wait_where_the_sidecar_came_first(site: Site) -> None:
    """D129: who renames need not wait until sizes settle."""
    site.oods(directories=[look(site, settle=3600.0)])
    put(site, image(site)[0])
    wait_for(lambda: site.rows("ingested"))


def test_without_a_sidecar_it_settles_first(site: Site) -> None:
    begun = time.monotonic()
    site.oods(directories=[look(site, settle=1.0)])
    put(site, image(site)[0], sidecar=False)
    wait_for(lambda: site.rows("ingested"))
    assert time.monotonic() - begun > 1.0


def test_one_bad_file_among_many(site: Site) -> None:
    """D119, F44: cut short, no FITS, flipped bits; each is set aside once, the others go in."""
    paths = image(site, locations=("22/0", "22/1", "22/2"))
    cut, other, flipped, *good = paths
    put(site, cut)
    os.truncate(drop_of(site) / cut.name, 3 * 2880)
    put(site, other)
    (drop_of(site) / other.name).write_bytes(b"\x00not FITS\xff" * 4000)
    put(site, flipped)
    content = bytearray(flipped.read_bytes())
    content[-3000] ^= 0x40
    (drop_of(site) / flipped.name).write_bytes(content)
    for path in good:
        put(site, path)
    service = site.oods(directories=[look(site)])
    site.ingested(len(good), service)
    wait_for(lambda: len(aside(site)) == 3)
    assert {Path(name).name for name in aside(site)} == {cut.name, other.name, flipped.name}
    looks = service.inputs.scans[0].looks
    wait_for(lambda: service.inputs.scans[0].looks > looks + 5)
    assert {row.count for row in site.ledger.quarantine.all()} == {1}, "never a loop"
    put(site, cut)  # mended
    site.ingested(len(good) + 1, service)


def test_hostile_names(site: Site) -> None:
    """They are set aside, or of no interest; links lead nowhere."""
    paths = image(site)
    drop = drop_of(site)
    put(site, paths[0])
    outside = site.path / "outside.fits"
    shutil.copyfile(paths[1], outside)
    (drop / paths[1].name).symlink_to(outside)
    (drop / "up").symlink_to(site.path)
    names: list[bytes] = [
        b"evil\nname.fits",
        b"\xff\xfe.fits",
        b"a" * 250 + b".fits",
        b"..fits",
        f"{NAME}_R99_S99.fits".encode(),
        f"{NAME}_R22_S11.fits\n.fits".encode(),
        b"XX_O_20261122_000123_R22_S11.fits",
        b"MC_O_20261399_000123_R22_S11.fits",
    ]
    for name in names:
        with open(os.path.join(os.fsencode(drop), name), "wb") as stream:
            stream.write(paths[2].read_bytes())
    os.mkfifo(drop / f"{NAME}_R22_S12.fits")
    (drop / ("d" * 200) / ("e" * 200)).mkdir(parents=True)
    service = site.oods(directories=[look(site)])
    wait_for(lambda: service.inputs.scans[0].looks > 15)
    site.ingested(1, service)
    assert [Path(row.path).name for row in site.rows("ingested")] == [paths[0].name]
    said = aside(site)
    for part in (r"evil\n", "xff", "aaaa", "S12.fits", "20261399", "S11.fits"):
        assert any(part in name or part in name.encode().decode("unicode_escape") for name in said), (
            part,
            said,
        )
    assert not [row for row in site.rows() if "outside" in row.path]
    assert {row.state for row in site.rows()} <= {"ingested", "failed", "unsupported"}
    assert service.inputs.scans[0].trouble == ""


def test_the_same_name_with_other_content(site: Site) -> None:
    """The first one stays, under whichever name the other comes; nothing is overwritten."""
    (first, *_) = image(site)
    other = site.raws.image(NAME, root=site.path / "again", seed=8)[0]
    put(site, first, f"a/{first.name}")
    service = site.oods(directories=[look(site)])
    site.ingested(1, service)
    put(site, other, f"b/{other.name}")
    (row,) = wait_for(lambda: site.rows("conflict"))
    assert "another content" in row.reason
    put(site, other, f"a/{other.name}")
    wait_for(lambda: aside(site))
    assert "another content" in next(iter(aside(site).values()))
    assert len(site.rows("ingested")) == 1


def test_a_file_is_moved_into_the_repository(site: Site) -> None:
    """D122: also from another file system, where a rename cannot do it."""
    elsewhere = Path("/dev/shm") / f"raftwright-drop-{os.getpid()}"
    elsewhere.mkdir()
    try:
        for path in image(site):
            shutil.copyfile(path, elsewhere / path.name)
        rows = site.ingested(3, directories=[look(site, path=str(elsewhere), transfer="move")])
        assert all(row.uri.startswith(site.repo.as_uri()) for row in rows)
        wait_for(lambda: not list(elsewhere.iterdir()))
    finally:
        shutil.rmtree(elsewhere)


def test_killed_after_a_move_that_nobody_wrote_down(site: Site) -> None:
    """The file is in the repository, and no more where it was: it is ingested, and not lost."""
    paths = [put(site, path) for path in image(site)]
    wanted = site.settings(directories=[look(site, transfer="move")])
    site.ledger.close()

    def work() -> None:
        from raftwright.ledger.ingests import Ingests
        from raftwright.oods import Oods, Places

        real = Ingests.turn

        def turn(self: Any, name: str, ends: Any, *more: Any) -> Any:
            if ends:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, name, ends, *more)

        Ingests.turn = turn  # type: ignore[method-assign]
        Oods(wanted, Places(ledger=site.url, camera="LSSTCam")).start()
        time.sleep(60)

    assert ended(forked(work)) == -signal.SIGKILL
    assert not any(path.exists() for path in paths)
    site.ledger = open_ledger(site.url)
    rows = site.ingested(3, directories=[look(site, transfer="move")])
    assert all(Path(row.uri.removeprefix("file://")).is_file() for row in rows)


def test_guiders_wait_for_their_exposure(site: Site) -> None:
    """D118, F38: in the ledger, so that nothing is lost by a restart; the exposure comes, and they go in."""
    guider = site.raws.guider()
    shutil.copyfile(guider, drop_of(site) / guider.name)
    wanted = {"directories": [look(site, settle=0.1)], "guider_wait": 60.0}
    service = site.oods(**wanted)
    (row,) = wait_for(lambda: site.rows("waiting"))
    assert (row.kind, row.detector, row.obsid) == ("guider", "R00_SG0", NAME)
    service.stop()
    site.oods(**wanted)
    for path in image(site):
        put(site, path)
    wait_for(lambda: len(site.rows("ingested")) == 4)
    (found,) = [row for row in site.rows() if row.kind == "guider"]
    assert found.dataset_type == "guider"


def test_a_guider_whose_exposure_never_comes_is_told(site: Site, heard: Callable[..., Any]) -> None:
    """D118, D120, F38: its end is an event with its own name."""
    guider = site.raws.guider()
    shutil.copyfile(guider, drop_of(site) / guider.name)
    url, events = heard()
    site.oods(publish=url, directories=[look(site, settle=0.1)], guider_wait=0.5)
    wait_for(lambda: site.rows("failed"))
    told = wait_for(lambda: [one for one in events if one["sensor"] == "SG0"])[0]
    assert (told["obsid"], told["raft"], told["camera"]) == (NAME, "R00", "LSSTCam")
    assert told["statusCode"] != 0
    assert "exposure did not come" in told["description"]


def test_what_became_of_a_file_is_told_by_its_name(site: Site, heard: Callable[..., Any]) -> None:
    """D120: image, raft, sensor; good, bad and set aside."""
    good, bad, broken = image(site, header=BIAS)
    url, events = heard()
    service = site.oods(publish=url, directories=[look(site)])
    put(site, good)
    put(site, broken)
    os.truncate(drop_of(site) / broken.name, 3 * 2880)
    shutil.copyfile(bad, drop_of(site) / f"{NAME}_R22_S02.fits")  # another detector's
    wait_for(lambda: len(events) >= 3)
    by_sensor = {one["sensor"]: one for one in events}
    assert {one["obsid"] for one in events} == {NAME}
    assert {one["raft"] for one in events} == {"R22"}
    assert {one["camera"] for one in events} == {"LSSTCam"}
    assert by_sensor["S10"]["statusCode"] == 0
    assert by_sensor["S12"]["statusCode"] != 0
    assert by_sensor["S02"]["statusCode"] != 0
    assert service.problems() == []


def test_a_directory_that_is_not_there(site: Site) -> None:
    """It is told, and taken up when it comes."""
    wanted = look(site, path=str(site.path / "mount" / "drop"))
    service = site.oods(directories=[wanted])
    (told,) = wait_for(service.problems)
    assert "mount/drop" in told
    Path(wanted.path).mkdir(parents=True)
    path = image(site)[0]
    shutil.copyfile(path, Path(wanted.path) / path.name)
    site.ingested(1, service)
    assert service.problems() == []


def test_what_is_known_is_not_read_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in image(site):
        put(site, path)
    site.ingested(3, directories=[look(site)])
    site.started[0].stop()
    from raftwright.oods import scanning

    monkeypatch.setattr(scanning, "digest", None)  # whoever calls it fails
    service = site.oods(directories=[look(site)])
    wait_for(lambda: service.inputs.scans[0].looks > 3)
    assert (service.problems(), service.inputs.scans[0].waiting, aside(site)) == ([], 0, {})


def test_two_directories_and_many_threads_that_write(site: Site) -> None:
    """Files appear while others are looked at."""
    paths = [path for number in range(1, 5) for path in image(site, number)]
    other = site.path / "other"
    other.mkdir()
    service = site.oods(directories=[look(site), look(site, path=str(other))])

    def write(mine: list[Path]) -> None:
        for path in mine:
            put(site, path)
            shutil.copyfile(path, other / f".{path.name}")
            (other / f".{path.name}").rename(other / path.name)

    threads = [threading.Thread(target=write, args=(paths[begin::3],)) for begin in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    site.ingested(2 * len(paths), service)
    with open_repository(site.repo) as repository:
        assert len(repository.find("LSSTCam")) == len(paths), "the same content twice is one dataset"


def test_settings_that_make_no_sense(site: Site) -> None:
    with pytest.raises(FormatError, match="absolute"):
        Directory(path="drop")
    with pytest.raises(FormatError, match=r"\.\."):
        Directory(path="/a/../b")
    with pytest.raises(FormatError, match="in the repository"):
        Settings(repository="/r", directories=[Directory(path="/r/drop")])


def test_moved_finds_only_what_is_its_own(site: Site) -> None:
    """Another content under the name is no end of that move."""
    from raftwright.butler import Incoming

    path = image(site)[0]
    with open_repository(site.repo, writeable=True) as repository:
        ingester = Ingester(repository)
        assert ingester.moved(Incoming.of(str(path))) is None
        (done,) = ingester.ingest([Incoming.of(str(path))], "move")
        assert done.good
        found = ingester.moved(Incoming.of(str(path)))
        assert found is not None
        assert found.uri == done.uri
        assert ingester.moved(Incoming.of(str(path), crc32c="00000000")) is None
