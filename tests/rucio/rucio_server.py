"""A true Rucio server on SQLite, in the environment that `tools/rucio.sh` makes, and its administrator."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hand_daq import free_port

__all__ = ["Server", "environment_of_server", "server"]

PROJECT = Path(__file__).resolve().parents[2]
PASSWORD = "not-a-secret"
SCOPE = "raw"

_CONFIG = """\
[common]
logdir = {home}/log
loglevel = WARNING
mailtemplatedir = {venv}/rucio/etc/mail_templates
[database]
default = sqlite:///{home}/rucio.db
[bootstrap]
userpass_identity = root
userpass_pwd = {password}
userpass_email = root@localhost
[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = root
password = {password}
account = root
request_retries = 1
auth_token_file_path = {home}/token
[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash
[conveyor]
transfertool = mock
"""

# The documented `build_database` also stamps a version with Alembic, which fails on SQLite.
_MAKE = """
from rucio.db.sqla import models, session, util
models.register_models(session.get_engine())
util.create_base_vo()
util.create_root_account()
"""

# Metadata of one's own: the plug-in has code for SQLite, the question whether the database can do it says no.
_APPLICATION = """
from rucio.core.did_meta_plugins import json_meta
json_meta.json_implemented = lambda **_: True
from rucio.web.rest.flaskapi.v1.main import application
"""


def environment_of_server() -> Path | str:
    """Directory of the environment, or why there is none."""
    given = os.environ.get("RAFTWRIGHT_RUCIO_VENV")
    if given:
        found = Path(given)
        return found if (found / "bin" / "gunicorn").exists() else f"no Rucio server in {given}"
    if not (PROJECT / ".venv" / "bin" / "uv").exists():
        return "no Rucio server: tools/setup.sh test installs one"
    made = subprocess.run([PROJECT / "tools" / "rucio.sh"], capture_output=True, text=True, timeout=280)
    if made.returncode:
        return f"no Rucio server: tools/rucio.sh says {made.stderr[-500:]}"
    return Path(made.stdout.strip())


class Server:
    """It runs from `start` to `stop`, and comes back with all that it knew."""

    def __init__(self, venv: Path, home: Path) -> None:
        self.venv = venv
        self.home = home
        self.port = free_port(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = home / "etc" / "rucio.cfg"
        self._process: subprocess.Popen[bytes] | None = None
        for each in (home / "etc", home / "log"):
            each.mkdir(parents=True)
        self.config.write_text(
            _CONFIG.format(home=home, venv=venv, url=self.url, password=PASSWORD), encoding="utf-8"
        )
        (home / "served.py").write_text(_APPLICATION)
        self._environment = {
            "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
            "RUCIO_HOME": str(home),
            "PYTHONPATH": str(home),
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONWARNINGS": "ignore",
        }
        self.run("-c", _MAKE)

    def run(self, *arguments: str) -> str:
        """The interpreter of the environment."""
        done = subprocess.run(
            [self.venv / "bin" / "python", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        with (self.home / "log" / "gunicorn.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.venv / "bin" / "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--threads", "4"),
                    *("--workers", "1", "--graceful-timeout", "1", "served:application"),
                ],
                cwd=self.home,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, (self.home / "log" / "gunicorn.log").read_text()[-3000:]
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/ping", timeout=2) as answer,
            ):
                if answer.status == 200:
                    return
            assert time.monotonic() < until, (self.home / "log" / "gunicorn.log").read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It answers no more, and does not end either."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [self._process.pid, *map(int, children)]

    def client(self) -> Any:
        """Of the administrator."""
        os.environ["RUCIO_CONFIG"] = str(self.config)
        from rucio.common.config import clean_cached_config

        clean_cached_config()
        first = sys.argv[0]
        from rucio.client import Client

        try:
            return Client()
        finally:
            sys.argv[0] = first

    def prepare(self, *rses: str) -> None:
        """RSEs for files, without rules how their paths are, and the scope."""
        client = self.client()
        client.add_scope("root", SCOPE)
        for rse in rses:
            client.add_rse(rse, deterministic=False)
            client.add_protocol(
                rse,
                {
                    "scheme": "file",
                    "hostname": "localhost",
                    "port": 0,
                    "prefix": f"{self.home}/{rse}",
                    "impl": "rucio.rse.protocols.posix.Default",
                    "domains": {
                        "lan": {"read": 1, "write": 1, "delete": 1},
                        "wan": {
                            "read": 1,
                            "write": 1,
                            "delete": 1,
                            "third_party_copy_read": 1,
                            "third_party_copy_write": 1,
                        },
                    },
                },
            )
            client.set_local_account_limit("root", rse, -1)
        for one in rses:
            for other in rses:
                if one != other:
                    client.add_distance(one, other, {"distance": 1})

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)


@contextlib.contextmanager
def server(venv: Path, home: Path) -> Iterator[Server]:
    """Started, with two RSEs."""
    made = Server(venv, home)
    try:
        made.start()
        made.prepare("SUMMIT", "USDF")
        yield made
    finally:
        made.close()
