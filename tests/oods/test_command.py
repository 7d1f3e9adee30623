"""`raftwright oods run`, `status` and `again`, as they are typed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from oods_stand import Site

from raftwright.cli import main


def test_what_is_there_is_ingested_and_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    paths = site.image()
    place = ["--out", str(site.raws.root), "--ledger", site.url, "--repo", str(site.repo)]

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["oods", *arguments, *place, "--json"])
        return code, capsys.readouterr().out

    code, out = run("run", "--until-idle", "1s")
    told: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert told[0]["event"] == "ready"
    assert told[-1]["event"] == "stopped"
    assert {one["path"]: one["state"] for one in told if one["event"] == "file"} == {
        str(path): "ingested" for path in paths
    }
    status = json.loads(run("status")[1])
    assert (status["files"], status["dead_letters"]) == ({"ingested": 3}, [])
    image = json.loads(run("status", "MC_O_20261122_000123")[1])
    assert [one["state"] for one in image["files"]] == ["ingested"] * 3
    assert json.loads(run("again")[1])["queued"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--config FILE, or give --out DIR and --repo DIR"),
        (["--out", "archive"], "or give --repo DIR"),
        (["--out", "archive", "--repo", "repo", "--night", "20261340"], "20261340 is no day"),
    ],
)
def test_what_is_missing_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["oods", "status", *words]) != 0
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_it_says_where_it_answers(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The port is any that is free."""
    config = site.path / "site.yaml"
    config.write_text(
        json.dumps(
            {
                "archive": {"root": str(site.raws.root)},
                "ledger": {"url": site.url},
                "site": {"camera": "LSSTCam"},
                "oods": {"repository": str(site.repo), "web": {}},
            }
        )
    )
    assert main(["oods", "run", "--config", str(config), "--until-idle", "100ms"]) == 0
    assert "; answers at http://127.0.0.1:" in capsys.readouterr().out
    assert main(["up", str(config), "--until-idle", "100ms", "--json"]) == 0
    (ready, *_) = map(json.loads, capsys.readouterr().out.splitlines())
    assert ready["services"]["oods"]["web"].startswith("http://127.0.0.1:")
