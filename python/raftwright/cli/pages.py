"""Pages of running services (their --metrics): asked, and drawn as tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from raftwright.cli.console import clean
from raftwright.cli.figures import count, percent, seconds, size
from raftwright.errors import FormatError, UsageError

__all__ = ["DEFAULT_PAGE", "Page", "ask", "drawn", "page_of", "span"]

DEFAULT_PAGE: Final = "http://127.0.0.1:9557"
_TIMEOUT: Final = 3.0
_MOST_BYTES: Final = 8 << 20
_MOST_LISTED: Final = 20

_SHOWN = {
    *("service", "name", "state", "version", "process", "metrics", "problems", "images", "incomplete"),
    *("buffers", "credit", "prompt", "uptime_s", "seconds"),
}


# --- asking
# --------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """Where a service tells of itself."""

    url: str
    host: str
    port: int
    path: str


def page_of(text: str) -> Page:
    """Of HOST:PORT, :PORT or http://HOST:PORT. Raises UsageError."""
    from urllib.parse import urlsplit

    whole = text if "://" in text else f"http://127.0.0.1{text}" if text.startswith(":") else f"http://{text}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme != "http" or not host or port == 0:
        raise UsageError(f"{text[:100]!r} is no page of a service; give HOST:PORT or http://HOST:PORT")
    port = port or 9557
    shown = f"[{host}]" if ":" in host else host
    return Page(f"http://{shown}:{port}", host, port, parts.path.rstrip("/"))


def ask(pages: Sequence[Page]) -> list[dict[str, Any]]:
    """What each says: `url`, and `status` or `error`."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(16, len(pages))) as pool:
        return list(pool.map(_ask_one, pages))


def _ask_one(page: Page) -> dict[str, Any]:
    import http.client
    import json

    url, host, port, path = page
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    begun = time.monotonic()
    try:
        connection.request("GET", f"{path if path not in ('', '/status') else ''}/status")
        answer = connection.getresponse()
        body = b""
        while part := answer.read1(1 << 16):
            body += part
            if len(body) > _MOST_BYTES or time.monotonic() - begun > 2 * _TIMEOUT:
                raise FormatError("the answer does not end")
        if answer.status != 200:
            raise FormatError(f"it says {answer.status} {answer.reason}")
        content = json.loads(body)
        if not isinstance(content, dict):
            raise FormatError("its answer is no status")
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        return {"url": url, "error": clean(_said(error), 200)}
    finally:
        connection.close()
    return {"url": url, "status": content}


def _said(error: Exception) -> str:
    if isinstance(error, FormatError):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "its answer is no status"


# --- showing
# -------------------------------------------------------------------------------------------------


def drawn(answers: Sequence[dict[str, Any]]) -> str:
    """The answers as text."""
    from raftwright.cli.tables import cell, draw

    parts: list[Any] = []
    for answer in answers:
        if parts:
            parts.append("")
        if "error" in answer:
            parts.append(cell(f"{answer['url']}: {answer['error']}", "red"))
            continue
        parts += _service(answer["url"], answer["status"])
    return draw(*parts) if parts else ""


def _service(url: str, status: Mapping[str, Any]) -> Iterator[Any]:
    from raftwright.cli.tables import cell, indented

    metrics = _mapping(status.get("metrics"))
    process = _mapping(status.get("process"))
    facts = [
        f"process {process['pid']} on {process.get('host', '?')}" if "pid" in process else "",
        f"up {span(_real(metrics['uptime_s']))}" if "uptime_s" in metrics else "",
        f"{size(_real(process['resident_bytes']))} resident" if "resident_bytes" in process else "",
        f"raftwright {status['version']}" if "version" in status else "",
    ]
    head = " ".join(str(status[key]) for key in ("service", "name") if status.get(key))
    state = f", {status['state']}" if status.get("state") else ""
    yield cell(f"{head or 'a service'} at {url}{state}", "bold")
    yield cell("  " + ", ".join(fact for fact in facts if fact))
    for problem in _list(status.get("problems")):
        yield indented(cell(f"problem: {problem}", "bold red", most=1000))
    prompt = _mapping(status.get("prompt"))
    if prompt.get("problem"):
        yield indented(cell(f"preview: {prompt['problem']}", "yellow"))
    for key, value in status.items():
        if isinstance(value, Mapping) and value and all(isinstance(one, Mapping) for one in value.values()):
            yield indented(cell(f"{key}:"))
            for name, facts in value.items():
                yield indented(indented(cell(f"{name}: {_flat(facts) or 'nothing'}", most=2000)))
        elif key not in _SHOWN and value not in (None, "", {}, []):
            text = _flat(value) if isinstance(value, Mapping | list) else str(value)
            if text:
                yield indented(cell(f"{key}: {text}", most=4000))
    yield from _images(status)
    yield from _stages(_mapping(metrics.get("stages")))
    yield from _levels(status)
    drops = _mapping(metrics.get("drops"))
    if any(drops.values()) or {"buffers", "images", "incomplete"} & status.keys():
        yield from _losses(drops)
    yield from _figures(metrics)


def _images(status: Mapping[str, Any]) -> Iterator[Any]:
    from raftwright.cli.tables import cell, table

    images = _mapping(status.get("images"))
    if images:
        yield cell("  images: " + ", ".join(f"{_number(n)} {word}" for word, n in images.items()))
    waiting = [entry for entry in _list(status.get("incomplete")) if isinstance(entry, Mapping)]
    if waiting:
        rows = [
            (
                entry.get("image", "?"),
                entry.get("location", ""),
                size(_real(entry.get("missing_bytes"))),
                "-"
                if entry.get("next_try_s") is None
                else f"in {seconds(max(0.0, _real(entry['next_try_s'])))}",
            )
            for entry in waiting[:_MOST_LISTED]
        ]
        if len(waiting) > _MOST_LISTED:
            rows.append((f"and {len(waiting) - _MOST_LISTED:,} more", "", "", ""))
        yield table(("incomplete image", "location", "missing", "next try"), rows, right=(2,))


def _stages(stages: Mapping[str, Any]) -> Iterator[Any]:
    from raftwright.cli.tables import table

    rows = []
    for name, facts in stages.items():
        if not isinstance(facts, Mapping) or not facts.get("count"):
            continue
        octets, total = _real(facts.get("bytes")), _real(facts.get("total_s"))
        rows.append(
            (
                name,
                _number(facts["count"]),
                *(_time(_real(facts.get(key))) for key in ("last_s", "mean_s", "p50_s", "p99_s")),
                size(octets) if octets else "",
                f"{size(octets / total)}/s" if octets and total else "",
            )
        )
    if rows:
        heads = ("stage", "times", "last", "mean", "median", "99 %", "bytes", "while busy")
        yield table(heads, rows, right=range(1, 8))


def _levels(status: Mapping[str, Any]) -> Iterator[Any]:
    from raftwright.cli.tables import cell, table

    rows: list[tuple[object, ...]] = []
    words = {"buffers": "buffers", "credit": "credit granted", "prompt": "shared memory for watch"}
    for key, word in words.items():
        level = _mapping(status.get(key))
        used = level.get("used", level.get("outstanding"))
        if used is None:
            continue
        limit = _real(level.get("limit"))
        share = _real(used) / limit if limit else 0.0
        style = "red" if share > 0.95 and key == "buffers" else ""
        rows.append(
            (word, size(_real(used)), size(limit) if limit else "-", cell(percent(_real(used), limit), style))
        )
    if rows:
        yield table(("memory", "in use", "of", ""), rows, right=(1, 2, 3))


def _losses(drops: Mapping[str, Any]) -> Iterator[Any]:
    from raftwright.cli.tables import cell, table

    rows: list[tuple[object, ...]] = []
    for kind, style in (("pixels", "bold red"), ("preview", "yellow")):
        reasons = _mapping(drops.get(kind))
        if not reasons:
            rows.append((kind, "none lost", cell("0", "green"), ""))
        for reason, facts in reasons.items():
            facts = _mapping(facts)
            octets = _real(facts.get("bytes"))
            rows.append(
                (
                    cell(kind, style),
                    reason,
                    cell(_number(facts.get("count")), style),
                    size(octets) if octets else "",
                )
            )
    if drops:
        yield table(("losses of", "reason", "times", "bytes"), rows, right=(2, 3))


def _figures(metrics: Mapping[str, Any]) -> Iterator[Any]:
    from raftwright.cli.tables import table

    both = {**_mapping(metrics.get("counters")), **_mapping(metrics.get("gauges"))}
    rows = [(name, _amount(name, value)) for name, value in both.items() if value]
    if not rows:
        return
    half = -(-len(rows) // 2) if len(rows) > 6 else len(rows)
    pairs = [
        (*row, *(rows[n + half] if n + half < len(rows) else ("", ""))) for n, row in enumerate(rows[:half])
    ]
    if half == len(rows):
        yield table(("figures", ""), rows, right=(1,))
    else:
        yield table(("figures", "", "", ""), pairs, right=(1, 3))


def _amount(name: str, value: object) -> str:
    base = name.partition("{")[0]
    if base.endswith("bytes"):
        return size(_real(value))
    if base.endswith("seconds"):
        return _time(_real(value))
    return _number(value)


def _time(duration: float) -> str:
    if duration < 0.00995:
        return f"{duration * 1e3:.2f} ms"
    if duration < 0.995:
        return f"{duration * 1e3:.0f} ms"
    return seconds(duration)


def span(duration: float) -> str:
    """`42 s`, `17 min`, `5 h 12 min`, `3 d 4 h`."""
    whole = int(duration)
    for unit, part, name, small in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _number(value: object) -> str:
    number = _real(value)
    return f"{int(number):,}" if number == int(number) else f"{number:,.3g}"


def _real(value: object) -> float:
    """A number that a service said, or 0: nothing that it says may break the page."""
    if isinstance(value, int | float) and -1e18 < value < 1e18:
        return float(value)
    return 0.0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _flat(value: object) -> str:
    if isinstance(value, Mapping):  # what is nothing, or 0, is not worth a word
        return ", ".join(
            _fact(str(key), item) for key, item in value.items() if item not in (None, "", {}, [], 0)
        )
    if isinstance(value, list):
        shown = ", ".join(_flat(item) for item in value[:_MOST_LISTED])
        return (
            f"{shown} and {count(len(value) - _MOST_LISTED, 'more', 'more')}"
            if len(value) > _MOST_LISTED
            else shown
        )
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _fact(key: str, value: object) -> str:
    """`oldest_check_s`: `oldest check 5 min 3 s`."""
    words = key.replace("_", " ")
    if value is True:
        return words
    if key.endswith("_s") and isinstance(value, int | float):
        return f"{words[:-2]} {span(value) if value >= 60 else _time(value)}"
    return f"{words} {_flat(value)}"
