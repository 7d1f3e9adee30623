"""Registration, against a true Rucio server."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from endpoint_stand import Stand, raws, wait_for
from rucio_server import SCOPE, Server

from raftwright import _core
from raftwright.backbone.receiving import Ingest
from raftwright.backbone.rucio import Entry, Registrar, RucioSettings
from raftwright.rawfile.container import METADATA_INDEX
from raftwright.rawfile.container_writing import Source, metadata_index, stage_container
from raftwright.rawfile.standing import digest
from raftwright.transfer.outcome import OutageError

numbers = itertools.count(1)


def options(server: Server, **more: Any) -> dict[str, Any]:
    return {
        "rse": "SUMMIT",
        "scope": SCOPE,
        "pfn": f"file://localhost:0{server.home}/SUMMIT",
        "config": str(server.config),
        "timeout": 20.0,
        **more,
    }


def settings(server: Server, **more: Any) -> RucioSettings:
    return RucioSettings(**options(server, **more))


def entries(count: int, prefix: str, dataset: str = "", **more: Any) -> list[Entry]:
    return [
        Entry(
            id=number,
            scope=SCOPE,
            name=f"{prefix}/f{number:04}.fits",
            bytes=10 + number,
            adler32="00000001",
            dataset=dataset,
            **more,
        )
        for number in range(count)
    ]


def image() -> str:
    return f"MN_O_20261122_{next(numbers):06}"


def files_of(client: Any, dataset: str) -> set[str]:
    return {each["name"] for each in client.list_content(SCOPE, dataset)}


def test_an_exposure_is_registered_by_the_endpoint(server: Server, stand: Stand) -> None:
    """Each file is a replica with its sums and what `ctrl_ingestd` reads; the dataset has a rule, and is
    closed once all are there, not before."""
    obsid = image()
    content = raws(obsid)
    rule = {"rses": "USDF", "lifetime": 3600}
    endpoint = stand.start(Ingest(plugin="rucio", options=options(server, md5=True, rules=[rule])), settle=0)
    last = sorted(name for name in content if name.endswith(".fits"))[-1]
    for name, data in content.items():
        if name != last:
            stand.hand_over(name, data)
    client = server.client()
    dataset = f"Dataset/MiniCam/raw/Obs/20261122/{obsid}"
    wait_for(lambda: len(stand.stored()) == len(content) - 1 and endpoint.idle, 60.0, endpoint.status)
    assert client.get_did(SCOPE, dataset)["open"] is True
    stand.hand_over(last, content[last])
    wait_for(lambda: endpoint.taken == len(content) and endpoint.idle, 60.0, endpoint.status)

    assert files_of(client, dataset) == set(content)
    assert client.get_did(SCOPE, dataset)["open"] is False
    (found,) = client.list_replicas([{"scope": SCOPE, "name": last}])
    data = content[last]
    assert found["bytes"] == len(data)
    assert found["adler32"] == f"{_core.adler32(data):08x}"
    assert found["md5"] == hashlib.md5(data).hexdigest()
    assert found["rses"] == {"SUMMIT": [f"file://localhost{server.home}/SUMMIT/{last}"]}
    meta = client.get_metadata(SCOPE, last, plugin="JSON")
    assert meta["rubin_butler"] == "raw_file"
    (made,) = client.list_did_rules(SCOPE, dataset)
    assert (made["rse_expression"], made["copies"]) == ("USDF", 1)
    with stand.register() as register:
        assert register.counts() == {"rucio": {"SUCCESS": len(content)}}


def test_doing_it_twice_changes_nothing(server: Server) -> None:
    name = f"twice-{next(numbers)}"
    dataset = f"Dataset/X/raw/Obs/20261122/{name}"
    some = entries(3, name, dataset)
    expected = frozenset(each.did for each in some)
    some = entries(3, name, dataset, expected=expected)
    for _ in range(2):
        registrar = Registrar(settings(server, rules=[]))
        assert [each.verdict for each in registrar.register(some)] == ["success"] * 3
        registrar.close()
    client = server.client()
    assert files_of(client, dataset) == {each.name for each in some}
    assert client.get_did(SCOPE, dataset)["open"] is False


def test_another_content_under_a_known_name_is_refused(server: Server) -> None:
    """The server itself takes it without a word; here it is found out, and the others go on."""
    name = f"conflict-{next(numbers)}"
    registrar = Registrar(settings(server))
    first = entries(2, name)
    assert {each.verdict for each in registrar.register(first)} == {"success"}
    other = [
        Entry(id=0, scope=SCOPE, name=first[0].name, bytes=99, adler32="00000009"),
        *entries(3, name)[1:],
    ]
    results = registrar.register(other)
    assert [each.verdict for each in results] == ["invalid", "success", "success"]
    assert "another content" in results[0].message
    (found,) = server.client().list_replicas([{"scope": SCOPE, "name": first[0].name}])
    assert found["bytes"] == first[0].bytes


def test_names_that_rucio_cannot_have_are_said(server: Server) -> None:
    registrar = Registrar(settings(server))
    names = ["a b", "x" * 251, "ä", "../x", "a\nb", "good-name"]
    prefix = f"n{next(numbers)}"
    some = [
        Entry(
            id=number,
            scope=SCOPE,
            name=name if number == 1 else f"{prefix}/{name}",
            bytes=1,
            adler32="00000001",
        )
        for number, name in enumerate(names)
    ]
    assert [each.verdict for each in registrar.register(some)] == ["invalid"] * 5 + ["success"]


def test_no_dataset_has_more_than_it_may(server: Server) -> None:
    """D159: 500 files at most; what is more goes into the next part, and all parts are closed."""
    name = f"many-{next(numbers)}"
    dataset = f"Dataset/X/raw/Obs/20261122/{name}"
    expected = frozenset(each.did for each in entries(23, name))
    registrar = Registrar(settings(server, most=10, chunk=4))
    for begin in (0, 12):
        some = entries(23, name, dataset, expected=expected)[begin : begin + 12]
        assert {each.verdict for each in registrar.register(some)} == {"success"}
    client = server.client()
    parts = [dataset, f"{dataset}.2", f"{dataset}.3"]
    assert [len(files_of(client, each)) for each in parts] == [10, 10, 3]
    assert set().union(*(files_of(client, each) for each in parts)) == {each for _, each in expected}
    assert not any(client.get_did(SCOPE, each)["open"] for each in parts)
    assert RucioSettings(rse="X", scope="y", pfn="davs://host/").most == 500


def test_what_comes_after_the_end_goes_into_the_next_part(server: Server) -> None:
    name = f"late-{next(numbers)}"
    dataset = f"Dataset/X/raw/Obs/20261122/{name}"
    some = entries(3, name, dataset, expected=frozenset(each.did for each in entries(2, name)))
    registrar = Registrar(settings(server))
    registrar.register(some[:2])
    assert registrar.register(some[2:])[0].verdict == "success"
    client = server.client()
    assert files_of(client, dataset) == {each.name for each in some[:2]}
    assert files_of(client, f"{dataset}.2") == {some[2].name}
    assert client.get_did(SCOPE, f"{dataset}.2")["open"] is False


def test_requests_are_chunked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """D170: no request grows with what there is to do."""
    registrar = Registrar(settings(server, chunk=20))
    asked: list[int] = []
    call = registrar._call

    def counted(method: str, *arguments: Any, **more: Any) -> Any:
        lists = [each for each in arguments if isinstance(each, list)]
        asked.extend(len(each[0]["dids"]) if "dids" in each[0] else len(each) for each in lists)
        return call(method, *arguments, **more)

    monkeypatch.setattr(registrar, "_call", counted)
    name = f"chunk-{next(numbers)}"
    results = registrar.register(entries(90, name, f"Dataset/X/raw/Obs/20261122/{name}"))
    assert {each.verdict for each in results} == {"success"}
    assert max(asked) == 20
    assert len(asked) >= 15


def test_one_bad_file_fails_alone(server: Server) -> None:
    """D155: the others of its batch are registered."""
    name = f"alone-{next(numbers)}"
    registrar = Registrar(settings(server))
    some = entries(5, name)
    bad = Entry(id=2, scope=SCOPE, name=f"{name}/bad", bytes=1, adler32="not-a-sum")
    results = registrar.register([*some[:2], bad, *some[3:]])
    assert [each.verdict for each in results] == ["success", "success", "invalid", "success", "success"]
    assert "adler32" in results[2].message or "not-a-sum" in results[2].message


@pytest.mark.parametrize("wrong", [{"rse": "NOWHERE"}, {"scope": "unknown"}])
def test_what_concerns_all_files_counts_against_none(server: Server, wrong: dict[str, str]) -> None:
    registrar = Registrar(settings(server, **wrong))
    name = f"none-{next(numbers)}"
    some = [Entry(id=0, scope=wrong.get("scope", SCOPE), name=name, bytes=1, adler32="00000001")]
    with pytest.raises(OutageError, match="NotFound"):
        registrar.register(some)


def test_an_audit_finds_what_rucio_lost(
    server: Server, stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    """D158: what was registered is compared with what is there, and queued once more."""
    from raftwright.cli import main

    obsid = image()
    content = raws(obsid)
    for name, data in content.items():
        (stand.storage / name).parent.mkdir(parents=True, exist_ok=True)
        (stand.storage / name).write_bytes(data)
    path = stand.path / "rucio.yaml"
    path.write_text(json.dumps(options(server)))
    common = ["--options", str(path), "--root", str(stand.storage)]
    assert main(["rucio", "register", *common, "20261122"]) == 0
    assert main(["rucio", "audit", *common]) == 0
    lost, other = sorted(content)[:2]
    client = server.client()
    client.detach_dids(
        SCOPE, dataset := f"Dataset/MiniCam/raw/Obs/20261122/{obsid}", [{"scope": SCOPE, "name": other}]
    )
    with contextlib.closing(sqlite3.connect(server.home / "rucio.db", timeout=20)) as database, database:
        database.execute("DELETE FROM replicas WHERE name = ?", (lost,))  # as an operator's hand does
    capsys.readouterr()
    assert main(["rucio", "audit", *common, "--again", "--json"]) == 5
    told = dict(json.loads(capsys.readouterr().out)["differ"])
    assert told == {lost: "Rucio knows no replica at SUMMIT", other: f"is not in {dataset}"}
    assert main(["rucio", "register", *common]) == 0
    assert main(["rucio", "audit", *common]) == 0


def test_sidecar_field_is_what_the_observatory_has(tmp_path: Path) -> None:
    """The id is the one in a message of the observatory for this raw; a Butler makes the same."""
    from raftwright.backbone.rucio_naming import rubin_fields

    path = tmp_path / "AT_O_20250113_000004_R00_S00.fits"
    found = rubin_fields(path, "LATISS", "{instrument}/raw/all", "raw", "Exposure")
    sidecar = json.loads(found["rubin_sidecar"])
    assert found["rubin_butler"] == "raw_file"
    assert sidecar["id"] == "bad79e54-31ae-5403-984b-22c992ff6eec"
    assert sidecar["run"] == "LATISS/raw/all"
    assert sidecar["dataId"]["dataId"] == {"instrument": "LATISS", "detector": 0, "exposure": 2025011300004}


def test_a_raw_that_no_butler_can_take_is_registered_all_the_same(server: Server, stand: Stand) -> None:
    """Numbers above 99999 have no exposure: no fields of the Butler then, and the other scope."""
    obsid = "MN_O_20261122_123456"
    content = raws(obsid)
    client = server.client()
    client.add_scope("root", "aside")
    endpoint = stand.start(Ingest(plugin="rucio", options=options(server, other_scope="aside")), settle=0)
    for name, data in content.items():
        stand.hand_over(name, data)
    wait_for(lambda: endpoint.taken == len(content) and endpoint.idle, 60.0, endpoint.status)
    dataset = f"Dataset/MiniCam/raw/Obs/20261122/{obsid}"
    assert {(each["scope"], each["name"]) for each in client.list_content(SCOPE, dataset)} == {
        ("aside", name) for name in content
    }
    assert client.get_did(SCOPE, dataset)["open"] is False
    assert client.get_metadata("aside", next(iter(content)), plugin="JSON") == {}


def test_a_butler_reads_the_sidecar_field(tmp_path: Path) -> None:
    butler = pytest.importorskip("lsst.daf.butler", reason="lsst-daf-butler is not installed")
    from raftwright.backbone.rucio_naming import rubin_fields

    path = tmp_path / "MC_O_20261122_000123_R22_S11.fits"
    found = rubin_fields(path, "LSSTCam", "{instrument}/raw/all", "raw", "StructuredDataDict")
    universe = butler.DimensionUniverse()
    ref = butler.DatasetRef.from_json(found["rubin_sidecar"], universe=universe)
    assert ref.run == "LSSTCam/raw/all"
    assert dict(ref.dataId.required) == {"instrument": "LSSTCam", "detector": 94, "exposure": 2026112200123}
    made = butler.DatasetRef(
        ref.datasetType, ref.dataId, ref.run, id_generation_mode=butler.DatasetIdGenEnum.DATAID_TYPE_RUN
    )
    assert made.id == ref.id


def test_a_container_is_the_whole_exposure(server: Server, stand: Stand, tmp_path: Path) -> None:
    """D172: `zip_file` for `ctrl_ingestd`, in the dataset of the exposure, which is closed with it. One that
    lacks a file that its manifest wants leaves it open; the next version completes it."""
    obsid = image()
    files = tmp_path / "files"
    files.mkdir()
    for name, data in raws(obsid).items():
        (files / Path(name).name).write_bytes(data)
    every = sorted(files.iterdir())
    some = [path for path in every if path != next(one for one in every if one.suffix == ".fits")]

    def container(paths: list[Path]) -> bytes:
        headers = metadata_index({p.name: p.with_suffix(".json") for p in paths if p.suffix == ".fits"})
        sources = [
            Source(name=path.name, path=path, bytes=(found := digest(path)).bytes, crc32c=found.crc32c)
            for path in paths
        ]
        with stage_container(tmp_path, obsid, sources, {METADATA_INDEX: headers}) as staged:
            return Path(staged.readable_path).read_bytes()

    endpoint = stand.start(Ingest(plugin="rucio", options=options(server, md5=True)), settle=0)
    client = server.client()
    dataset = f"Dataset/MiniCam/raw/Obs/20261122/{obsid}"
    names = [f"MiniCam/20261122/{obsid}.zip", f"MiniCam/20261122/{obsid}.v2.zip"]
    first, second = container(some), container(every)
    stand.hand_over(names[0], first)
    wait_for(lambda: endpoint.taken == 1 and endpoint.idle, 60.0, endpoint.status)
    assert client.get_did(SCOPE, dataset)["open"] is True
    stand.hand_over(names[1], second)
    wait_for(lambda: endpoint.taken == 2 and endpoint.idle, 60.0, endpoint.status)
    assert client.get_did(SCOPE, dataset)["open"] is False
    assert files_of(client, dataset) == set(names)
    (found,) = client.list_replicas([{"scope": SCOPE, "name": names[1]}])
    assert (found["bytes"], found["adler32"]) == (len(second), f"{_core.adler32(second):08x}")
    assert found["md5"] == hashlib.md5(second).hexdigest()
    meta = client.get_metadata(SCOPE, names[1], plugin="JSON")
    assert {key: meta[key] for key in meta if key.startswith("rubin")} == {"rubin_butler": "zip_file"}
