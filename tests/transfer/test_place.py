"""What is said of a place in a configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from raftwright.errors import FormatError
from raftwright.service.units import read_bytes
from raftwright.transfer.place import Place, Templates

SSH = ["ssh", "{user}@{host}", "{command}"]
SCP = ["scp", "-Bq", "{file}", "{user}@{host}:{dest}"]


def command(transfer: list[str] = SCP, remote: list[str] = SSH, **more: Any) -> Place:
    values = {"root": "/data", "user": "mover", "host": "far.example.org", **more}
    return Place(name="far", kind="command", commands=Templates(transfer=transfer, remote=remote), **values)


def test_the_templates_of_the_handoff_that_was() -> None:
    """The words of the old configuration are those of ours; parameters of the section are words too."""
    command()
    command(["scp", "-Bq", "{batch}", "{user}@{host}:{dest}"])
    command(
        ["rsync", "-e", "ssh -i {key}", "{file}", "{host}:{dest}"], parameters={"key": "/keys/profile/file"}
    )


@pytest.mark.parametrize(
    ("transfer", "remote", "more", "said"),
    [
        (["scp", "{file}", "{nothing}:{dest}"], SSH, {}, "{nothing} is unknown"),
        (SCP, ["ssh", "{file}", "{command}"], {}, "{file} is unknown"),
        (["scp", "{file}"], SSH, {}, "has to have {dest}"),
        (["scp", "{dest}"], SSH, {}, "{file} or an argument {batch}"),
        (["scp", "{file}", "{batch}", "{dest}"], SSH, {}, "{file} or an argument {batch}"),
        (["scp", "x{batch}", "{dest}"], SSH, {}, "an argument of its own"),
        (SCP, ["ssh", "{host}"], {}, "has to have {command}"),
        (["{file}", "{dest}"], SSH, {}, "program itself"),
        (SCP, SSH, {"host": ""}, "host"),
        (SCP, SSH, {"host": "-oProxyCommand=touch x"}, "host"),
        (SCP, SSH, {"user": "-oProxyCommand=touch x"}, "user"),
        (SCP, SSH, {"parameters": {"file": "x"}}, "cannot be a word"),
        (SCP, SSH, {"parameters": {"No": "x"}}, "cannot be a word"),
        (SCP, SSH, {"root": "data"}, "absolute"),
        (SCP, SSH, {"bandwidth": 1_000_000}, "{bandwidth}"),
        (SCP, SSH, {"staged": True}, "staged"),
        (SCP, SSH, {"token": "x"}, "token"),
    ],
)
def test_templates_that_cannot_be_meant(
    transfer: list[str], remote: list[str], more: dict[str, Any], said: str
) -> None:
    """D144: found at the start, and not with the first file."""
    with pytest.raises(FormatError, match=said.replace("{", r"\{")):
        command(transfer, remote, **more)


@pytest.mark.parametrize(
    "transfer",
    [
        ["bbcp", "{file}", "{host}:{dest}"],
        ["/usr/local/bin/bbcp", "{file}", "{host}:{dest}"],
        ["rsync", "{file}", "rsync://{host}/{dest}"],
        ["rsync", "{file}", "{host}::module{dest}"],
        ["rsync", "--rsh=rsh", "{file}", "{host}:{dest}"],
        ["rcp", "{file}", "{host}:{dest}"],
        ["curl", "-T", "{file}", "http://{host}{dest}"],
        ["nice", "bbcp", "{file}", "{host}:{dest}"],
    ],
)
def test_plain_programs_are_refused(transfer: list[str]) -> None:
    """D147: what does not encrypt is refused, unless it is said to be meant."""
    with pytest.raises(FormatError, match="insecure: true"):
        command(transfer)
    command(transfer, insecure=True)


def test_plain_servers_are_refused() -> None:
    """D147, D169: only this host is spoken to without encryption."""
    for host in ("far.example.org", "10.0.0.1", "127.0.0.1.example.org"):
        with pytest.raises(FormatError, match="insecure: true"):
            Place(name="far", kind="webdav", root=f"http://{host}/x")
        Place(name="far", kind="webdav", root=f"https://{host}/x")
        Place(name="far", kind="webdav", root=f"http://{host}/x", insecure=True)
        with pytest.raises(FormatError, match="insecure: true"):
            Place(name="far", kind="s3", root="s3://raws/x", endpoint=f"http://{host}")
        Place(name="far", kind="s3", root="s3://raws/x", endpoint=f"http://{host}", insecure=True)
    for host in ("127.0.0.1:80", "localhost", "[::1]:8080"):
        Place(name="far", kind="webdav", root=f"http://{host}/x")


@pytest.mark.parametrize(
    "root",
    [
        "https://",
        "ftp://x/y",
        "https://u:p@x/y",
        "https://x/y?a=b",
        "https://x/y#z",
        "https://x:99999/",
        "x",
        "/x",
    ],
)
def test_urls_that_are_none(root: str) -> None:
    with pytest.raises(FormatError, match="root"):
        Place(name="far", kind="webdav", root=root)


def test_keys_of_other_kinds() -> None:
    with pytest.raises(FormatError, match="go together"):
        Place(name="far", kind="webdav", root="https://x/y", user="u")
    with pytest.raises(FormatError, match="give one"):
        Place(name="far", kind="webdav", root="https://x/y", user="u", password="p", token="t")
    for more in (
        {"commands": Templates(transfer=SCP, remote=SSH)},
        {"host": "x"},
        {"token": "x"},
        {"staged": True},
    ):
        with pytest.raises(FormatError, match="has none"):
            Place(name="far", kind="directory", root="/x", **more)  # type: ignore[arg-type]


def test_what_the_documents_show(project_root: Path) -> None:
    """The templates of docs/howto/hand-over.md can be meant."""
    text = (project_root / "docs" / "howto" / "hand-over.md").read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: command" in one]
    (shown,) = yaml.safe_load(block)
    shown["bandwidth"] = read_bytes(shown["bandwidth"])
    place = msgspec.convert(shown, Place)
    assert place.commands is not None
    assert "{bandwidth}" in " ".join(place.commands.transfer)
