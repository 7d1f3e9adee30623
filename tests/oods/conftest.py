"""A site with an archive and an OODS."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for oods_stand

from oods_stand import Site
from store_stand import Store


@pytest.fixture(scope="session")
def empty_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that is copied, since making one takes a second."""
    from raftwright.butler import make_repository

    root = tmp_path_factory.mktemp("empty") / "repo"
    make_repository(root, cameras=["LSSTCam"]).close()
    return root


@pytest.fixture
def site(tmp_path: Path, empty_repo: Path) -> Iterator[Site]:
    """Closed at the end, with every service of it."""
    made = Site(tmp_path, empty_repo)
    yield made
    made.close()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Callable[[], tuple[str, list[dict[str, Any]]]]]:
    """Gives a URL to publish to, and a list that the fields of each `imageInOODS` come into."""
    from raftwright.events import open_subscriber

    ends: list[tuple[threading.Event, threading.Thread]] = []

    def listen() -> tuple[str, list[dict[str, Any]]]:
        url = f"ipc://{tmp_path}/told{len(ends)}"
        events: list[dict[str, Any]] = []
        end = threading.Event()

        def work() -> None:
            with open_subscriber(url, kinds=["imageInOODS"]) as subscriber:
                while not end.is_set():
                    for event in subscriber.events(timeout=0.1):
                        events.append(dict(event.fields))
                        subscriber.done(event)

        thread = threading.Thread(target=work)
        thread.start()
        ends.append((end, thread))
        return url, events

    yield listen
    for end, thread in ends:
        end.set()
        thread.join(10)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Its URL; moto, in threads of its own."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'raftwright[s3]'")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def store(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The bucket `raws`, empty, which the Butler finds by the environment."""
    import boto3

    known = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {"S3_ENDPOINT_URL": s3_server, **known}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="raws")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="raws"):  # of other tests
        for one in page.get("Contents", ()):
            client.delete_object(Bucket="raws", Key=one["Key"])
    return Store(client, s3_server)
