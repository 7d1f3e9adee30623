"""A PostgreSQL server of our own: in a directory of its own, on a socket of its own, gone with us."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg

_PR_SET_PDEATHSIG = 1


def programs() -> Path | None:
    """Where the server's programs are, newest first; None where there are none."""
    on_path = shutil.which("initdb")
    places = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda path: float(path.parent.name) if path.parent.name.replace(".", "").isdigit() else 0.0,
        reverse=True,
    )
    for place in [*([Path(on_path).parent] if on_path else []), *places]:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    return None


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class PostgresServer:
    """Made and started; `stop` ends it and takes its directory away. `durable`: with fsync, as in earnest."""

    def __init__(self, bin: Path, *, durable: bool = False, connections: int = 60) -> None:
        self._bin = bin
        # The server refuses to be root, and a directory of pytest's is closed to everybody else.
        self._user = "postgres" if os.getuid() == 0 else None
        self.home = Path(tempfile.mkdtemp(prefix="rw-pg-", dir="/tmp"))
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self.home, entry.pw_uid, entry.pw_gid)
        self._log = self.home / "log"
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.home),
            "shared_buffers": "64MB",
            "max_connections": str(connections),
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb",
            *("-D", str(self.home / "data"), "-U", "raftwright", "-A", "trust", "-E", "UTF8"),
            *("--locale=C", "--no-sync", "--no-instructions"),
        )
        self.start()

    def _options(self) -> dict[str, object]:
        if self._user is None:
            return {"cwd": self.home}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": self.home}

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            **self._options(),  # type: ignore[call-overload]
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def url(self, database: str = "postgres") -> str:
        """Of one of its databases."""
        return f"postgresql://raftwright@/{database}?host={self.home}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        arguments = [f"--{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.home / "data"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_us,
                **self._options(),  # type: ignore[call-overload]
            )
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < until, self._log.read_text()
                time.sleep(0.05)

    def shut(self, how: signal.Signals = signal.SIGINT) -> None:
        """Shuts it down: SIGINT ends all connections, SIGQUIT leaves everything as it is."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(60)
            self._process = None

    def new_database(self) -> str:
        """URL of an empty one."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def stop(self) -> None:
        """Ends it for good, without writing what is thrown away."""
        self.shut(signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)


def start(missing: Callable[[str], None], *, durable: bool = False, connections: int = 60) -> PostgresServer:
    """A server; `missing` is called with the reason where there can be none."""
    bin = programs()
    if bin is None:
        missing("PostgreSQL's programs are not installed (Debian: postgresql)")
        raise AssertionError("unreachable")
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            missing("PostgreSQL does not run as root, and there is no user postgres")
    return PostgresServer(bin, durable=durable, connections=connections)
