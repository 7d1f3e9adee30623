"""Raws that lie in a bucket are read where they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_raws import Raws

pytest.importorskip("lsst.daf.butler")
pytest.importorskip("moto")

from raftwright.butler import Incoming, Ingester, Repository

Open = Callable[..., Repository]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a real server; the Butler finds it by the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in {
        "S3_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="raws")
    yield client
    server.stop()


def put(bucket: Any, path: Path, root: Path) -> str:
    key = str(path.relative_to(root))
    bucket.put_object(Bucket="raws", Key=key, Body=path.read_bytes())
    return f"s3://raws/{key}"


def test_direct(bucket: Any, archive: Raws, opened: Open) -> None:
    """D127: what has another size than was announced is not taken."""
    paths = archive.image()
    uris = [put(bucket, path, archive.root) for path in paths]
    for path in paths:
        put(bucket, path.with_suffix(".json"), archive.root)
    repository = opened()
    ingester = Ingester(repository)
    files = [Incoming.of(uri, bytes=path.stat().st_size) for uri, path in zip(uris, paths, strict=True)]
    files[2] = Incoming.of(uris[2], bytes=paths[2].stat().st_size - 1)
    outcomes = ingester.ingest([*files, Incoming.of(uris[0].replace("_000123", "_000124"))])
    assert [outcome.state for outcome in outcomes] == ["ingested", "ingested", "failed", "failed"]
    assert [outcome.again for outcome in outcomes[2:]] == [True, True]
    assert outcomes[0].uri == uris[0]
    (record,) = repository.butler.query_dimension_records("exposure", instrument="LSSTCam")
    assert (record.physical_filter, record.obs_id) == ("r_57", "MC_O_20261122_000123")
    (ref,) = repository.datasets([outcomes[1].dataset_id])
    raw = repository.butler.get(ref)
    assert (raw.mosaic.shape, raw.header["OBSID"]) == ((32, 160), "MC_O_20261122_000123")
    assert [outcome.state for outcome in ingester.ingest(files[:2])] == ["duplicate"] * 2
    local = ingester.ingest([Incoming.of(str(path)) for path in paths[:2]])
    assert [outcome.state for outcome in local] == ["duplicate"] * 2
    (other, *_) = archive.image(seed=8, root=archive.root / "other")
    (conflict,) = ingester.ingest([Incoming.of(str(other))])
    assert conflict.state == "conflict"
    assert len(repository.remove(repository.find("LSSTCam"))) == 2
    assert bucket.head_object(Bucket="raws", Key=uris[0].removeprefix("s3://raws/"))


def test_no_other_way(bucket: Any, archive: Raws, opened: Open) -> None:
    (path, *_) = archive.image()
    uri = put(bucket, path, archive.root)
    for transfer in ("hardlink", "copy", "move"):
        (outcome,) = Ingester(opened()).ingest([Incoming.of(uri)], transfer)  # type: ignore[arg-type]
        assert outcome.state == "failed"
        assert "ingest it direct" in outcome.reason
