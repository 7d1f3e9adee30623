"""Lines of the log."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading

import pytest

from raftwright.errors import UsageError
from raftwright.service import bound
from raftwright.service.logs import LEVELS, logging_to, set_level

log = logging.getLogger("raftwright.test")


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_lines_say_what_they_are_about() -> None:
    text, data = io.StringIO(), io.StringIO()
    for stream, form in ((text, "text"), (data, "json")):
        with (
            logging_to(stream, format=form),
            bound(service="forwarder", obsid="CC_O_20261122_000123"),
            bound(detector="R22_S11", attempt=2),
        ):
            log.warning("no header %s", "yet")
    [line] = lines(text)
    assert line[23:] == "Z warning forwarder CC_O_20261122_000123 R22_S11 attempt=2: no header yet"
    found = json.loads(lines(data)[0])
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "service": "forwarder",
        "obsid": "CC_O_20261122_000123",
        "detector": "R22_S11",
        "attempt": 2,
        "message": "no header yet",
        "logger": "raftwright.test",
    }


def test_what_is_bound_ends_with_its_block_and_belongs_to_its_thread() -> None:
    stream = io.StringIO()

    def other(obsid: str) -> None:
        with bound(obsid=obsid):
            log.info("in the thread")

    with logging_to(stream, format="json"):
        with bound(obsid="one"):
            thread = threading.Thread(target=other, args=("two",))
            thread.start()
            thread.join()
            with bound(obsid=None):
                log.info("none")
            log.info("mine")
        log.info("after", extra={"obsid": "given"})
    assert [json.loads(line).get("obsid") for line in lines(stream)] == ["two", None, "one", "given"]


@pytest.mark.parametrize("level", list(LEVELS))
def test_d020_levels_are_one_to_one(level: str) -> None:
    """Each name filters as documented, and stands in the line under its own name."""
    stream = io.StringIO()
    with logging_to(stream, format="json", level=level):
        for name in LEVELS:
            getattr(log, name)("a line")
    names = list(LEVELS)
    assert [json.loads(line)["level"] for line in lines(stream)] == names[names.index(level) :]
    assert names == ["debug", "info", "warning", "error", "critical"]


def test_the_level_can_change() -> None:
    stream = io.StringIO()
    with logging_to(stream):
        log.debug("no")
        set_level("debug")
        log.debug("yes")
    assert [line.split(": ")[1] for line in lines(stream)] == ["yes"]
    for wrong in ({"format": "xml"}, {"level": "loud"}):
        with pytest.raises(UsageError), logging_to(stream, **wrong):
            pass


def test_no_message_forges_a_line() -> None:
    text, data = io.StringIO(), io.StringIO()
    nasty = "a\n2026-11-22T00:00:00.000Z info: forged \x1b[31m"
    for stream, form in ((text, "text"), (data, "json")):
        with logging_to(stream, format=form):
            log.error("%s", nasty)
    assert len(lines(text)) == len(lines(data)) == 1
    assert "\x1b" not in text.getvalue() + data.getvalue()
    assert json.loads(data.getvalue())["message"] == nasty


def test_errors_bring_their_traceback() -> None:
    data = io.StringIO()
    with logging_to(data, format="json"):
        try:
            raise ValueError("deep down")
        except ValueError:
            log.exception("it failed")
    [line] = lines(data)
    assert "ValueError: deep down" in json.loads(line)["traceback"]


def test_a_service_is_cheap_to_import() -> None:
    """The forwarder reaches its first claim within a second of its start."""
    code = (
        "import sys; import raftwright.service, raftwright.service.base, raftwright.service.logs, "
        "raftwright.service.control; "
        "bad = {'structlog', 'asyncio', 'typer', 'rich', 'sqlalchemy', 'astropy', 'numpy', 'yaml'}; "
        "print(*sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
