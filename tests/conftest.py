"""What every test may ask for: programs, the shared data, hypothesis profiles.

`require_tool` and `require_shared` are fixtures that give a function: call it where the tool or the data is
needed, and the test is skipped with a reason when it is not there. Under RAFTWRIGHT_REQUIRE_TOOLS=1 (set by
.ci/run) a missing tool fails the test instead. The shared data lies outside the project: it only ever skips.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared"

sys.path.append(str(PROJECT / "tests"))  # for hand_daq and others

# Deadlines measure the machine's other load. In CI the examples are the same in every run.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile("long", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

# Whoever is started in the background by a shell is deaf to Ctrl-C, and so are the programs that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(
            f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without", pytrace=False
        )
    pytest.skip(reason)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Top of the source tree."""
    return PROJECT


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """Function from a program's name to its path."""

    def require(program: str) -> str:
        beside = Path(sys.executable).parent  # the environment's own programs, activated or not
        path = shutil.which(program, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
        if path is None:
            _missing(f"{program} is not installed")
            raise AssertionError("unreachable")
        return path

    return require


@pytest.fixture(scope="session")
def require_module() -> Callable[[str], None]:
    """Function that makes sure of an importable module (a judge such as fitsio)."""

    def require(module: str) -> None:
        if importlib.util.find_spec(module) is None:
            _missing(f"the Python module {module} is not installed")

    return require


@pytest.fixture(scope="session")
def require_shared() -> Callable[..., Path]:
    """Function from a path below the shared data (none: its top) to that path; skips where it is absent."""

    def require(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"no shared data: {'/'.join(('../shared', *parts))} is not here")
        return path

    return require


@pytest.fixture
def long_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Function from a stream server in this process to a `LongLine` to it, closed at the end."""
    from long_line import LongLine, everywhere, ports_of

    monkeypatch.setattr("raftwright.stream.server.announced", everywhere)
    made: list[LongLine] = []

    def make(server: Any, **options: Any) -> LongLine:
        made.append(LongLine(ports_of(server), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
