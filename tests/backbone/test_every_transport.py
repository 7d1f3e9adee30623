"""A replica by each way there: brought, flipped by hand behind its back, lost, found by the scrub, mended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handoff_stand import Site, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "transfer"))  # for far_places
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "archiver"))  # for s3_servers

import msgspec
from far_places import KINDS, Far, far_place

from raftwright.backbone import Endpoint


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
    pytest.importorskip("lsst.resources", reason="lsst-resources is not installed")
    from s3_servers import true_server

    with true_server() as url:
        yield url


def endpoint_of(far: Far) -> Endpoint:
    values = msgspec.structs.asdict(far.place) | {
        "name": "far",
        "link": "never",
        "backoff": 0.05,
        "longest": 0.3,
    }
    return Endpoint(**values)


@pytest.mark.parametrize("kind", KINDS)
def test_brought_and_mended(site: Site, kind: str, s3_url: str) -> None:
    """D136, N34, F28."""
    behind = site.path / "behind"
    behind.mkdir()
    with far_place(kind, behind, s3_url) as far:
        endpoint = endpoint_of(far)
        for number in (1, 2):
            site.image(number, detectors=["R22_S00"])
        service = site.hand_off(endpoint)
        site.delivered("far", count=6, timeout=30)
        expected = site.expected(1, 2)
        assert {name: body for name, body in far.files().items() if not name.startswith(".")} == expected
        name = next(name for name in expected if name.endswith(".fits"))
        spoilt = bytes([expected[name][0] ^ 1]) + expected[name][1:]
        far.put(name, spoilt)
        service.command("scrub")
        wait_for(lambda: service.scrubbers["far"].status()["damaged"] == 1, 20)
        wait_for(lambda: site.states("far") == {"verified": 6}, 20, lambda: site.states("far"))
        found = far.files()
        assert {key: body for key, body in found.items() if not key.startswith(".")} == expected
        assert spoilt in [body for key, body in found.items() if key.startswith(".damaged/")]


@pytest.mark.parametrize("kind", KINDS)
def test_emptied_it_is_not_the_place_that_it_was(site: Site, kind: str, s3_url: str) -> None:
    """All that is missing at once is an outage."""
    behind = site.path / "behind"
    behind.mkdir()
    with far_place(kind, behind, s3_url) as far:
        site.image(1, detectors=["R22_S00"])
        service = site.hand_off(endpoint_of(far))
        site.delivered("far", count=3, timeout=30)
        far.clear()
        for path in sorted((behind / "far").rglob("*"), reverse=True):
            path.rmdir()
        service.command("scrub")
        wait_for(lambda: service.scrubbers["far"].trouble, 20)
        assert "raftwright handoff lost far" in service.scrubbers["far"].trouble
        assert site.states("far") == {"verified": 3}
        assert not far.files()
