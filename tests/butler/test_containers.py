"""Raws that a Butler reads out of a container, as the observatory's own programs ingest and read them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from small_raws import Raws

pytest.importorskip("lsst.daf.butler")

from astro_metadata_translator import indexing
from lsst import resources
from lsst.daf import butler

from raftwright.backbone.packing import Packer
from raftwright.backbone.settings import ButlerIndex, Containers
from raftwright.butler import Incoming, Ingester, Repository
from raftwright.ledger import open_ledger
from raftwright.ledger.rebuilding import rebuild
from raftwright.rawfile import open_raw

Open = Callable[..., Repository]
WHERE: dict[str, Any] = {
    "instrument": "LSSTCam",
    "exposure": 2026112200123,
    "detector": "R22_S11",
    "collections": "LSSTCam/raw/all",
}
OURS = ButlerIndex(formatter="raftwright.butler.formatter.RawFormatter", storage_class="RaftwrightRaw")


def packed(archive: Raws, tmp_path: Path, index: ButlerIndex | None = None) -> Path:
    """The container of an image of the archive, made from its ledger."""
    chosen = Containers(settle=0.0, patience=0.0, reserve=0.0, always=True, butler=index)
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        rebuild(ledger, archive.root)
        (unit,) = ledger.containers.units(ledger.containers.ids())
        return Path(Packer(ledger, lambda: chosen, ()).pack(unit).path)


def same(raw: Any, path: Path) -> None:
    wanted = open_raw(path)
    assert raw.header == wanted.header
    for name in wanted.names:
        assert np.array_equal(raw.segments[name], wanted.segments[name])


@pytest.fixture
def far(archive: Raws, opened: Open) -> Any:
    """A Butler at the far side: it knows the exposure, as its dimension records go there, and no raw."""
    repository = opened()
    outcomes = Ingester(repository).ingest([Incoming.of(str(path)) for path in archive.image()])
    assert {outcome.state for outcome in outcomes} == {"ingested"}
    found = repository.butler
    found.pruneDatasets(refs_in(found), disassociate=True, unstore=True, purge=True)
    assert refs_in(found) == []
    return found


def refs_in(repository: Any) -> list[Any]:
    return list(repository.registry.queryDatasets("raw", collections="LSSTCam/raw/all"))


def test_a_member_is_a_raw(archive: Raws, far: Any, tmp_path: Path) -> None:
    """D172: directly by `….zip#zip-path=MEMBER`, named by the index that is in the container."""
    path = packed(archive, tmp_path)
    uri = resources.ResourcePath(path.as_uri())
    with uri.open("rb") as stream, zipfile.ZipFile(stream) as opened:
        index = indexing.process_index_data(json.loads(opened.read("_metadata_index.json")), force_dict=True)
    raws = sorted(archive.root.rglob("*.fits"))
    assert sorted(index) == [raw.name for raw in raws]
    datasets = []
    for raw in raws:
        header = index[raw.name]
        detector = f"{header['RAFTBAY']}_{header['CCDSLOT']}"
        exposure = int(f"{header['DAYOBS']}{int(header['SEQNUM']):05d}")
        data_id = far.registry.expandDataId(
            instrument="LSSTCam", exposure=exposure, detector=_number(far, detector)
        )
        ref = butler.DatasetRef(far.get_dataset_type("raw"), data_id, run="LSSTCam/raw/all")
        member = resources.ResourcePath(f"{path.as_uri()}#zip-path={raw.name}")
        assert member.unquoted_fragment == f"zip-path={raw.name}"
        datasets.append(butler.FileDataset(path=member, refs=[ref], formatter=OURS.formatter))
    far.ingest(*datasets, transfer="direct")
    kept = {raw.name: raw.rename(raw.with_suffix(".away")) for raw in raws}
    same(far.get("raw", **WHERE), kept["MC_O_20261122_000123_R22_S11.fits"])
    assert far.get("raw.header", **WHERE)["OBJECT"] == "ECDFS"
    assert far.getURI("raw", **WHERE).unquoted_fragment.startswith("zip-path=")


def _number(repository: Any, full_name: str) -> int:
    (record,) = repository.query_dimension_records(
        "detector", instrument="LSSTCam", where=f"detector.full_name = '{full_name}'"
    )
    return int(record.id)


def test_a_butler_takes_a_container_as_it_is(archive: Raws, far: Any, tmp_path: Path) -> None:
    """`Butler.ingest_zip`, which `ctrl_ingestd` calls for a `zip_file`: by an index that no Butler wrote."""
    path = packed(archive, tmp_path, OURS)
    far.ingest_zip(path.as_uri(), transfer="direct")
    raws = sorted(archive.root.rglob("*.fits"))
    assert len(refs_in(far)) == len(raws)
    kept = {raw.name: raw.rename(raw.with_suffix(".away")) for raw in raws}
    same(far.get("raw", **WHERE), kept["MC_O_20261122_000123_R22_S11.fits"])
    (found,) = far.query_datasets("raw", **{**WHERE, "detector": 94})
    far.pruneDatasets(refs_in(far), disassociate=True, unstore=True, purge=True)
    assert path.is_file()
    expected = butler.DatasetRef(
        far.get_dataset_type("raw"),
        found.dataId,
        run="LSSTCam/raw/all",
        id_generation_mode=butler.DatasetIdGenEnum.DATAID_TYPE_RUN,
    )
    assert found.id == expected.id


def test_the_index_names_the_newest_raws_alone(archive: Raws, tmp_path: Path) -> None:
    from raftwright.backbone.butler_index import BUTLER_INDEX

    path = packed(archive, tmp_path) if archive.image() else Path()
    with zipfile.ZipFile(path) as opened:
        assert BUTLER_INDEX not in opened.namelist()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"formatter": "no dots; here"}, ButlerIndex)
