"""The plug-in `butler`, with a true repository."""

from __future__ import annotations

import pytest
from endpoint_stand import IMAGE, Stand, raws, wait_for

pytest.importorskip(
    "lsst.daf.butler", reason="lsst-daf-butler is not installed: pip install 'raftwright[butler]'"
)

from raftwright.backbone.receiving import Ingest
from raftwright.butler import make_repository
from raftwright.rawfile import open_raw


def test_what_is_handed_over_can_be_read_through_the_butler(stand: Stand) -> None:
    """F28, D155: every raw of the image, and the one that is no raw of it fails alone."""
    make_repository(stand.path / "repo", cameras=["MiniCam"]).close()
    endpoint = stand.start(
        Ingest(plugin="butler", options={"repository": str(stand.path / "repo")}, backoff=0.05, retries=1),
        settle=0,
    )
    for name, data in raws().items():
        stand.hand_over(name, data)
    stand.hand_over("strange.fits", raws()[next(name for name in raws() if name.endswith(".fits"))])
    wait_for(lambda: endpoint.taken == len(raws()) + 1 and endpoint.idle, 40.0, endpoint.status)
    with stand.register() as register:
        counts = register.counts()["butler"]
        raw = [name for name in raws() if name.endswith(".fits")]
        for name in raw:
            (row,) = register.files(name)
            if row.alias_of is None:
                assert register.states(row.id) == {"butler": "SUCCESS"}, register.events(row.id)
        assert counts["IGNORED"] >= len(raws()) - len(raw)
        assert set(counts) == {"SUCCESS", "IGNORED"}, register.dead_letters()

    from raftwright.butler import open_repository

    repository = open_repository(stand.path / "repo")
    refs = list(repository.butler.query_datasets("raw", collections="*", find_first=False))
    assert len(refs) == len(raw)
    for ref in refs:
        uri = repository.butler.getURI(ref)
        assert uri.ospath.startswith(str(stand.storage)), "it stays where it stands"
        assert open_raw(uri.ospath).header.string("OBSID") == IMAGE
    repository.close()


def test_a_repository_that_is_not_there(stand: Stand) -> None:
    from raftwright.errors import NotFoundError

    with pytest.raises(NotFoundError):
        stand.start(Ingest(plugin="butler", options={"repository": str(stand.path / "nothing")}))
