"""A store that tells nothing of its objects, or not of all: they are found all the same, and that is told."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from oods_stand import Site, wait_for
from store_stand import Store, free_port, image, post

pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'raftwright[s3]'")

from raftwright.butler import open_repository
from raftwright.cli import main
from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.events.notifications import build
from raftwright.metrics import render
from raftwright.oods import Oods, listing, stored
from raftwright.oods.inputs import Notifications
from raftwright.oods.listing import prefixes_of
from raftwright.oods.web.settings import Web
from raftwright.report.book import open_book
from raftwright.report.tonight import tonight

SECRET = "what the store and we know"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is waited for what may still be told, and between two looks."""
    monkeypatch.setattr(listing, "_GRACE", 0.2)
    monkeypatch.setattr(listing, "_TICK", 0.1)


def told(**more: Any) -> Notifications:
    """By a webhook, with a bucket that is listed often."""
    known: dict[str, Any] = {"reconcile": 0.3, "silence": 1.0, "buckets": ["raws"]}
    return Notifications(webhook=True, secret=SECRET, **{**known, **more})


def begin(site: Site, **more: Any) -> tuple[Oods, str]:
    """A service, and where it is told of objects."""
    port = free_port()
    web = Web(listen=f"127.0.0.1:{port}")
    return site.oods(archive=False, web=web, notifications=told(**more)), f"http://127.0.0.1:{port}"


def figure(service: Oods, name: str) -> float:
    """A figure of the service's page, of all that have the name."""
    lines = render(service.metrics).decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"raftwright_oods_{name}"))


def caught_up(service: Oods) -> None:
    """What is put from now on came after the service began."""
    wait_for(lambda: service.inputs is not None and service.inputs.listings[0].looks > 0)


def states(site: Site) -> list[str]:
    return [row.new for row in site.ledger.events.newest("input")]


def test_notifications_stop(site: Site, store: Store, tmp_path: Path) -> None:
    """D160, F06: whoever says nothing is listed: the image is in the Butler within 60 s, once; the silence is
    an alarm in health, status, figures and ledger, and ends by itself when something is heard again."""
    service, url = begin(site)
    heard = [store.put(path) for path in image(site, 1)]
    assert post(url, build(*heard, secret=SECRET))[0] == 200
    site.ingested(3, service)
    assert (service.illness(), figure(service, "found_by_listing")) == ([], 0)

    begun = time.monotonic()
    silent = [store.put(path) for path in image(site, 2)]
    wait_for(lambda: len(site.rows("ingested")) == 6)
    assert time.monotonic() - begun < 30
    with open_repository(site.repo) as repository:
        data = {"instrument": "LSSTCam", "exposure": 2026112200002, "detector": 94}
        raw = repository.butler.get("raw", data, collections=repository.chain_of("LSSTCam"))
        assert raw.header["OBSID"] == "MC_O_20261122_000002"

    (alarm,) = wait_for(service.illness)
    assert "no notification of s3://raws for" in alarm
    assert "while the listing found 3 files" in alarm
    assert alarm in service.status()["problems"]
    assert not service.health()["healthy"]
    assert figure(service, "found_by_listing") == 3
    assert figure(service, "notifications_silent") == 1
    assert states(site) == ["silent"]
    with open_book(site.url) as book:
        assert any("oods s3://raws: no notification" in one for one in tonight(book).problems)
    assert "alarm: no notification of s3://raws" in status(site, tmp_path, told())[0]

    assert post(url, build(*silent, secret=SECRET)) == (200, "0 new")  # late, and nothing twice
    wait_for(lambda: not service.illness())
    assert states(site) == ["heard"]
    assert figure(service, "notifications_silent") == 0
    with open_book(site.url) as book:
        assert not any("no notification" in one for one in tonight(book).problems)
    rows = site.rows()
    assert len(rows) == len({row.path for row in rows}) == 6
    with open_repository(site.repo) as repository:
        assert len(repository.find("LSSTCam")) == 6


def status(site: Site, path: Path, wanted: Notifications | None, **more: Any) -> tuple[str, Any]:
    """What `raftwright oods status` says, as text and as JSON."""
    import io
    from contextlib import redirect_stdout

    said = []
    for form in ([], ["--json"]):
        with redirect_stdout(io.StringIO()) as out:
            assert main(["oods", "status", *arguments(site, path, wanted, **more), *form]) == 0
        said.append(out.getvalue())
    return said[0], json.loads(said[1])


def arguments(site: Site, path: Path, wanted: Notifications | None, **more: Any) -> list[str]:
    """A configuration as the one that runs."""
    content: dict[str, Any] = {"repository": str(site.repo), **more}
    if wanted is not None:
        content["notifications"] = {"webhook": True, "secret": SECRET, "buckets": wanted.buckets}
        content["web"] = {"listen": "127.0.0.1:1"}
    file = path / "site.yaml"
    file.write_text(
        json.dumps({"archive": {"root": str(path)}, "ledger": {"url": site.url}, "oods": content})
    )
    file.chmod(0o600)
    return ["--config", str(file)]


def test_what_was_there_before_is_no_silence(site: Site, store: Store) -> None:
    """A bucket that is old, and a repository that is new: all is ingested and counted, nobody is blamed."""
    for number in (1, 2):
        for path in image(site, number):
            store.put(path)
    service, _ = begin(site, silence=0.5)
    site.ingested(6, service)
    assert figure(service, "found_by_listing") == 6
    caught_up(service)
    time.sleep(1.0)
    assert (service.illness(), states(site)) == ([], [])
    store.put(image(site, 3)[0])
    (alarm,) = wait_for(service.illness)
    assert "found 1 file" in alarm


def test_a_single_notification_is_lost(site: Site, store: Store) -> None:
    """F06: the file is found, and counted; that is no silence."""
    service, url = begin(site, silence=600.0)
    things = [store.put(path) for path in image(site)]
    assert post(url, build(*things[:2], secret=SECRET))[0] == 200
    site.ingested(3, service)
    assert figure(service, "found_by_listing") >= 1
    assert (service.illness(), service.problems(), states(site)) == ([], [], [])


def test_an_alarm_outlives_the_service(site: Site, store: Store) -> None:
    """D160: who begins anew knows of it, until something is heard; what is no input any more is silent no
    more."""
    service, _ = begin(site)
    paths = image(site)
    caught_up(service)
    for path in paths[:2]:
        store.put(path)
    wait_for(service.illness)
    service.stop(0.0)
    service, url = begin(site)
    (alarm,) = wait_for(service.illness)
    assert "found 2 files" in alarm
    assert post(url, build(store.put(paths[2]), secret=SECRET))[0] == 200
    wait_for(lambda: not service.illness())
    caught_up(service)
    store.put(image(site, 124)[0])
    wait_for(service.illness)
    service.stop(0.0)
    begin(site, reconcile=0.0)
    assert states(site) == ["ended"]


def test_only_the_newest_nights_are_listed(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket of years costs as many requests as there is new in it."""
    for night in (20261101, 20261119, 20261121, 20261122):
        store.put(image(site, 7, night)[0])
    store.client.put_object(Bucket="raws", Key="LSSTCam/calibration/20271122/x.fits", Body=b"x")
    service, _ = begin(site, nights=2)
    rows = site.ingested(2, service)
    one = service.inputs.listings[0]  # type: ignore[union-attr]
    wait_for(lambda: one.looks > 4)
    assert {row.obsid.split("_")[2] for row in rows} == {"20261121", "20261122"}
    assert len(site.rows()) == 2
    assert set(one._folders) == {f"LSSTCam/2026112{n}/MC_O_2026112{n}_000007/" for n in (1, 2)}

    monkeypatch.setattr(listing, "_QUIET", 0.0)
    monkeypatch.setattr(listing, "_AGAIN", 0)
    asked: list[str] = []
    real = stored.Stores.pages

    def pages(self: stored.Stores, name: str, prefix: str, **more: Any) -> Any:
        asked.append(prefix)
        return real(self, name, prefix, **more)

    monkeypatch.setattr(stored.Stores, "pages", pages)
    one.look()
    cameras = {prefix.split("/")[0] for prefix in asked}
    assert "LSSTCam" in cameras
    assert sum(prefix.startswith("LSSTCam") for prefix in asked) == 1 + 2, "the nights, and their images"


def test_a_look_that_is_cut_goes_on(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much there is: a look ends in time, and the next one finds the rest."""
    monkeypatch.setattr(stored, "PAGE", 2)
    monkeypatch.setattr(listing, "_LONGEST", 0.0)
    monkeypatch.setattr(listing, "_TICK", 0.02)
    for number in range(1, 5):
        for path in image(site, number):
            store.put(path)
    service, _ = begin(site, reconcile=0.02)
    rows = site.ingested(12, service)
    assert service.inputs.listings[0].looks > 2  # type: ignore[union-attr]
    assert len({row.path for row in rows}) == 12


def test_other_layouts(site: Site, store: Store) -> None:
    """Keys below a prefix, and without nights."""
    assert prefixes_of("{instrument}/{dayobs}/{obsid}/{file}", ["A", "B"]) == [("A/", True), ("B/", True)]
    assert prefixes_of("raw/{instrument}/{obsid}/{file}", ["A"]) == [("raw/A/", False)]
    assert prefixes_of("raw/{obsid}_{file}", ["A", "B"]) == [("raw/", False)]
    assert prefixes_of("{obsid}/{file}", ["A", "B"]) == [("", False)]
    paths = image(site)
    store.put(paths[0], f"raw/x/{paths[0].parent.name}/{paths[0].name}")
    store.put(paths[1], f"raw/x/{paths[1].name}")  # in no folder
    store.put(paths[2], f"elsewhere/{paths[2].name}")
    service, _ = begin(site, layout="raw/x/{obsid}/{file}")
    site.ingested(2, service)
    wait_for(lambda: service.inputs.listings[0].looks > 3)  # type: ignore[union-attr]
    assert len(site.rows()) == 2
    with pytest.raises(FormatError, match="layout"):
        told(layout="{file}")


def test_files_of_no_interest_and_bad_names(site: Site, store: Store) -> None:
    """They are set aside once, other instruments are left to others, and nothing is a loop."""
    path = image(site)[0]
    store.put(path)
    where = "LSSTCam/20261122/MC_O_20261122_000123/"
    for name in (
        "evil.fits",
        "MC_O_20261399_000123_R22_S11.fits",
        "a b%.fits",
        "MC_O_20261122_000123_x.fits.tmp",
    ):
        store.client.put_object(Bucket="raws", Key=where + name, Body=b"x")
    service, _ = begin(site, reconcile=0.1)
    site.ingested(1, service)
    looks = service.inputs.listings[0].looks  # type: ignore[union-attr]
    wait_for(lambda: service.inputs.listings[0].looks > looks + 5)  # type: ignore[union-attr]
    assert len(site.rows()) == 1
    aside = site.ledger.quarantine.all()
    assert sorted(row.name.rpartition("/")[2] for row in aside) == [
        "MC_O_20261399_000123_R22_S11.fits",
        "a%20b%25.fits",
        "evil.fits",
    ]
    assert {row.count for row in aside} == {1}
    assert service.problems() == []


def test_an_object_that_is_written_again(site: Site, store: Store) -> None:
    """D171: another tag is another object, also of the same size and though nobody tells of it; what is in
    the repository stays, and it is a conflict that is told once."""
    path = image(site)[0]
    thing = store.put(path)
    service, _ = begin(site)
    (row,) = site.ingested(1, service)
    assert json.loads(row.stored)["etag"] == thing.etag
    content = bytearray(path.read_bytes())
    content[-3000] ^= 1
    store.client.put_object(Bucket="raws", Key=thing.key, Body=bytes(content))
    (aside,) = wait_for(site.ledger.quarantine.all)
    assert (aside.what, aside.name) == ("object", row.path)
    assert "another content of that name was ingested before" in aside.reason
    looks = service.inputs.listings[0].looks  # type: ignore[union-attr]
    wait_for(lambda: service.inputs.listings[0].looks > looks + 3)  # type: ignore[union-attr]
    assert [one.count for one in site.ledger.quarantine.all()] == [1]
    assert [one.id for one in site.rows()] == [row.id]
    assert figure(service, "objects_changed") == 1


def test_the_same_content_with_another_tag(site: Site, store: Store) -> None:
    """D171: nothing is guessed from the tag of an object that was made of parts; a sum of the whole object
    says that it is the same, and without one nobody says so."""
    one, other = image(site)[:2]
    things = [store.put(path, ChecksumAlgorithm="SHA256") for path in (one, other)]
    service, _ = begin(site)
    rows = {row.path.rpartition("/")[2]: row for row in site.ingested(2, service)}
    assert "SHA256" in json.loads(rows[one.name].stored)
    tag = store.put_in_parts(other.read_bytes(), things[1].key)
    assert tag.endswith("-1")
    (aside,) = wait_for(site.ledger.quarantine.all)
    assert aside.name == rows[other.name].path
    assert "perhaps another content" in aside.reason
    assert tag in aside.reason
    assert len(site.rows()) == 2
    whole = stored.Stored(size=1, etag="a-1", sums={"SHA256": "x", "CRC32": "y"})
    assert stored.same(whole, stored.Stored(size=1, etag="b", sums={"SHA256": "x"})) is True
    assert stored.same(whole, stored.Stored(size=1, etag="a-1", sums={"SHA256": "z"})) is False
    assert stored.same(whole, stored.Stored(size=1, etag="b", sums={"CRC32C": "y"})) is None
    assert stored.same(whole, stored.Stored(size=2, etag="a-1")) is False
    assert stored.same(stored.Stored(size=1), stored.Stored(size=1)) is None
    head = {"ContentLength": 3, "ETag": '"t"', "ChecksumCRC32C": "AA==", "ChecksumSHA256": "BB==-2"}
    assert stored.Stored.of(head).sums == {"CRC32C": "AA=="}
    assert stored.Stored.of({**head, "ChecksumType": "COMPOSITE"}).sums == {}


def test_what_is_not_ingested_yet_is_taken_as_it_is_now(site: Site, store: Store) -> None:
    """An object that was cut, and is written again whole, is no conflict with what never was ingested."""
    path = image(site)[0]
    key = f"LSSTCam/20261122/{path.parent.name}/{path.name}"
    store.put(path, key)
    cut = store.put(path, key)
    service, url = begin(site, reconcile=0.0)
    wrong = type(cut)(bucket="raws", key=key, size=2880, etag=cut.etag)
    assert post(url, build(wrong, secret=SECRET)) == (200, "1 new")
    wait_for(lambda: [row for row in site.rows("queued") if "instead of 2880" in row.reason])
    service.stop(0.0)
    service, _ = begin(site)
    (row,) = site.ingested(1, service)
    assert row.bytes == path.stat().st_size
    assert site.ledger.quarantine.all() == []


def test_a_store_that_is_away(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """D169: the service starts without it and says so; and all is well when it comes."""
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    service, url = begin(site)
    (said, *_) = wait_for(service.problems)
    assert "raws" in said
    assert post(url, build(store.put(image(site)[0]), secret=SECRET)) == (200, "1 new"), "nothing is held up"


def test_a_mistyped_bucket_stops_the_start(site: Site, store: Store) -> None:
    """D169: in one line, with the key, what was asked for, where, and what may be meant."""
    with pytest.raises(NotFoundError) as said:
        begin(site, buckets=["raws", "rawz"])
    for part in ("oods.notifications.buckets: ", "'rawz'", store.url, "is 'raws' meant"):
        assert part in str(said.value)
    assert "\n" not in str(said.value)
    with pytest.raises(msgspec.ValidationError, match="buckets"):
        msgspec.convert({"webhook": True, "secret": SECRET, "buckets": ["s3://raws"]}, Notifications)


def test_plain_http_beyond_this_host(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """D169: keys and pixels go over no network unencrypted, unless that is wanted."""
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://198.51.100.7:1")
    with pytest.raises(UsageError, match=r"oods\.notifications: .*198\.51\.100\.7.*insecure: true"):
        begin(site)
    from raftwright.oods.topics import Topic

    far = Notifications(brokers="198.51.100.7:9092", topic="a")
    with caplog.at_level(logging.WARNING):
        Topic(far, None, "oods")  # type: ignore[arg-type]
    assert "198.51.100.7:9092 unencrypted" in caplog.text
    caplog.clear()
    Topic(Notifications(brokers="127.0.0.1:9092", topic="a"), None, "oods")  # type: ignore[arg-type]
    assert caplog.text == ""


def test_objects_that_were_set_aside_are_tried_again(site: Site, store: Store, tmp_path: Path) -> None:
    """`oods status` lists them, `oods again` reaches them: what is mended is settled, what is not stays."""
    paths = image(site)
    first, second = (store.put(path) for path in paths[:2])
    bad = "LSSTCam/20261122/MC_O_20261122_000123/evil.fits"
    store.client.put_object(Bucket="raws", Key=bad, Body=b"x")
    service, _ = begin(site)
    site.ingested(2, service)
    for thing in (first, second):
        store.client.put_object(Bucket="raws", Key=thing.key, Body=b"something else")
    wait_for(lambda: len(site.ledger.quarantine.all()) == 3)
    text, told_of = status(site, tmp_path, told())
    assert "3 files set aside" in text
    assert {one["what"] for one in told_of["set_aside"]} == {"object"}
    assert sum("another content" in one["reason"] for one in told_of["set_aside"]) == 2
    store.put(paths[0])  # as it was
    store.client.delete_object(Bucket="raws", Key=second.key)
    assert main(["oods", "again", *arguments(site, tmp_path, told())]) == 0
    wait_for(lambda: not site.ledger.quarantine.standing("object", again=True))
    (left,) = status(site, tmp_path, told())[1]["set_aside"]
    assert left["name"] == f"s3://raws/{bad}"
    assert service.command("again") == {"queued": 0, "set_aside": 1}
    wait_for(lambda: not site.ledger.quarantine.standing("object", again=True))
    assert len(site.ledger.quarantine.standing("object")) == 1
    assert service.problems() == []


def test_files_that_were_set_aside_are_tried_again(site: Site, tmp_path: Path) -> None:
    """The same of a directory: what was mended without a trace is taken, what is gone is settled, what is bad
    stays and is counted once more."""
    drop = site.path / "drop"
    drop.mkdir()
    mended, gone, bad = (drop / path.name for path in image(site))
    whole = next((site.path / "made").rglob(mended.name))
    for path in (mended, gone, bad):
        path.write_bytes(b"not FITS" * 1000)
    (drop / "evil.fits").write_bytes(b"x")
    where = {"path": str(drop), "settle": 0.1, "patience": 0.2, "every": 0.1}
    from raftwright.oods.inputs import Directory

    service = site.oods(archive=False, directories=[Directory(**where)])
    wait_for(lambda: len(site.ledger.quarantine.all()) == 4)
    text, told_of = status(site, tmp_path, None, directories=[where])
    assert "4 files set aside" in text
    assert mended.name in text
    assert {one["what"] for one in told_of["set_aside"]} == {"file"}
    gone.unlink()
    wait_for(lambda: len(site.ledger.quarantine.standing("file")) == 3)
    service.stop(0.0)
    mended.write_bytes(whole.read_bytes())
    os.utime(mended, (time.time() - 3600, time.time() - 3600))
    service = site.oods(archive=False, directories=[Directory(**where)])
    site.ingested(1, service)
    assert len(site.ledger.quarantine.standing("file")) == 2
    counts = {row.shown: row.count for row in site.ledger.quarantine.standing("file")}
    assert main(["oods", "again", *arguments(site, tmp_path, None, directories=[where])]) == 0
    wait_for(lambda: not site.ledger.quarantine.standing("file", again=True))
    left = site.ledger.quarantine.standing("file")
    assert {row.shown: row.count for row in left} == {name: count + 1 for name, count in counts.items()}
    assert "evil.fits" in status(site, tmp_path, None, directories=[where])[0]
