"""Places of every kind with the real thing behind them, seen from behind: what lies there on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from s3_servers import Bucket

from raftwright.rawfile.standing import digest
from raftwright.transfer.outcome import Job
from raftwright.transfer.place import Place, Templates
from raftwright.transfer.sender import Sender, sender_of

__all__ = ["KINDS", "Far", "Twist", "far_place", "job", "made", "webdav_server"]

KINDS = ("directory", "s3", "webdav", "command")

REMOTE = ["/bin/sh", "-c", "{command}"]
"""What sshd does with the command that ssh hands it."""


class Behind(Protocol):
    """What lies at a place, seen from behind."""

    def files(self) -> dict[str, bytes]:
        """All that is there, by its name below the root; hidden names too."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Writes what somebody else would have there."""
        ...

    def clear(self) -> None:
        """Removes all that is there."""
        ...


class OnDisk:
    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> dict[str, bytes]:
        return {
            os.path.relpath(path, self._root): path.read_bytes()
            for path in self._root.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def put(self, name: str, content: bytes) -> None:
        made(self._root / name, content)

    def clear(self) -> None:
        for name in self.files():
            (self._root / name).unlink()


class InBucket:
    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    def files(self) -> dict[str, bytes]:
        keys = self._bucket.keys()
        return {key.removeprefix(self._prefix): self._bucket.get(key) for key in keys}

    def put(self, name: str, content: bytes) -> None:
        self._bucket.put(f"{self._prefix}{name}", content)

    def clear(self) -> None:
        for key in self._bucket.keys():  # noqa: SIM118
            self._bucket.client.delete_object(Bucket=self._bucket.name, Key=key)


class Far:
    """A place, its sender, and a look from behind."""

    def __init__(self, place: Place, behind: Behind) -> None:
        self.place = place
        self.sender: Sender = sender_of(place)
        self.files = behind.files
        self.put = behind.put
        self.clear = behind.clear


def job(path: Path, target: str = "") -> Job:
    found = digest(path)
    return Job(path=str(path), target=target or path.name, bytes=found.bytes, crc32c=found.crc32c)


def made(path: Path, content: bytes = b"\r\n\x1a content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


Twist = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes] | None]
"""Is given each request to a WebDAV server; None lets the server answer."""


@contextlib.contextmanager
def webdav_server(root: Path, twist: Twist | None = None, **ssl: str) -> Iterator[str]:
    """wsgidav behind cheroot; its URL."""
    pytest.importorskip("wsgidav", reason="wsgidav is not installed: pip install 'raftwright[test]'")
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(root)},
            "simple_dc": {"user_mapping": {"*": True}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "verbose": 0,
            "logging": {"enable": False},
            "lock_storage": True,
            "property_manager": None,
        }
    )

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = twist(environ, start_response) if twist is not None else None
        return app(environ, start_response) if answer is None else answer  # type: ignore[no-any-return]

    server = wsgi.Server(("127.0.0.1", 0), application, numthreads=8, timeout=10, shutdown_timeout=1)
    server.error_log = lambda *_, **__: None
    if ssl:
        from cheroot.ssl.builtin import BuiltinSSLAdapter

        server.ssl_adapter = BuiltinSSLAdapter(ssl["certificate"], ssl["key"])
    server.expiration_interval = 0.02  # so soon it sees that it is to end
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if ssl else ''}://127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join(5)


def rsync_templates(*more: str) -> Templates:
    """Files by rsync, on this host."""
    return Templates(
        transfer=["rsync", "--times", "--partial", "--append-verify", *more, "{file}", "{dest}"],
        remote=REMOTE,
    )


@contextlib.contextmanager
def far_place(
    kind: str, folder: Path, s3_url: str = "", twist: Twist | None = None, **more: Any
) -> Iterator[Far]:
    """One of them below a folder, closed at the end."""
    values: dict[str, Any] = {"name": "far", "timeout": 20.0, "backoff": 0.05, "longest": 0.3, **more}
    root = folder / "far"
    with contextlib.ExitStack() as stack:
        if kind == "s3":
            bucket = Bucket(s3_url, f"b{abs(hash(str(folder))) % 10**9}")
            values |= {"root": f"s3://{bucket.name}/pre fix", "endpoint": s3_url}
            values |= {"access_key": "x", "secret_key": "y"}
            far = Far(Place(kind="s3", **values), InBucket(bucket, "pre fix/"))
        else:
            root.mkdir()
            if kind == "webdav":
                values["root"] = f"{stack.enter_context(webdav_server(folder, twist))}/far"
            else:
                values["root"] = str(root)
            if kind == "command":
                if not shutil.which("rsync"):
                    pytest.skip("rsync is not installed")
                values.setdefault("commands", rsync_templates())
            far = Far(Place(kind=kind, **values), OnDisk(root))  # type: ignore[arg-type]
        stack.callback(far.sender.close)
        yield far
