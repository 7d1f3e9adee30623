"""What a service counts and times: counters, gauges, stages, losses; and the page where they can be seen.

Counting costs about a microsecond and needs no other package; prometheus-client is imported when the first
page is asked for. Labels are for a few words (`reason`, `kind`), never for names of images or files: every
set of labels is a time series for ever. Losses of pixels and losses in a preview are never added up.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from raftwright.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from prometheus_client.metrics_core import Metric

__all__ = ["Counter", "Gauge", "Loss", "Metrics", "Stage", "render"]

Loss: TypeAlias = Literal["pixels", "preview"]
"""What a drop lost: pixels of the data themselves, or only what somebody would have looked at."""

WINDOW: Final = 512
"""The quantiles of a stage are those of its last values."""

_MOST_SERIES: Final = 256
_NAME = re.compile(r"\A[a-z][a-z0-9_]{0,63}\Z")
_LABEL = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9 _.:/+-]{0,63}\Z")
_IMAGE = re.compile(r"[0-9]{8}_[0-9]{5,6}")

_Labels: TypeAlias = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows. Thread-safe."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: float = 0

    def add(self, n: float = 1) -> None:
        """Raises UsageError for less than nothing."""
        if n < 0:
            raise UsageError(f"a counter cannot grow by {n}; use a gauge")
        with self._lock:
            self._value += n

    @property
    def value(self) -> float:
        """What was added up so far."""
        return self._value


class Gauge:
    """A number that is what it was set to last, or what `read` gives when it is asked for. Thread-safe."""

    __slots__ = ("_lock", "_read", "_value")

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self._lock = threading.Lock()
        self._value: float = 0
        self._read = read

    def set(self, value: float) -> None:
        """From now on it is this."""
        self._value = value

    def add(self, n: float = 1) -> None:
        """More, or less."""
        with self._lock:
            self._value += n

    @property
    def value(self) -> float:
        """As it is now; not a number where its source failed."""
        if self._read is None:
            return self._value
        try:
            return float(self._read())
        except Exception:  # a page of figures must come, whatever one of them is about
            return float("nan")


class Stage:
    """A step of the work: how often, how long, how many bytes. A context manager, in any thread, also nested.

    with metrics.stage("write"):
        ...
    metrics.stage("receive").observe(0.012, bytes=4 << 20)
    """

    __slots__ = ("_lock", "_running", "_values", "bytes", "count", "last", "total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = threading.local()
        self._values = [0.0] * WINDOW
        self.count = 0
        self.total = 0.0
        """Seconds in all."""
        self.last = 0.0
        """Seconds."""
        self.bytes = 0

    def observe(self, seconds: float, *, bytes: int = 0) -> None:
        """One more of them took so long."""
        with self._lock:
            self._values[self.count % WINDOW] = seconds
            self.count += 1
            self.total += seconds
            self.last = seconds
            self.bytes += bytes

    def __enter__(self) -> Self:
        try:
            self._running.begun.append(time.perf_counter())
        except AttributeError:
            self._running.begun = [time.perf_counter()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.observe(time.perf_counter() - self._running.begun.pop())

    def snapshot(self) -> dict[str, float]:
        """`count`, `bytes`; in seconds `total_s`, `last_s`, `mean_s`; of the last 512 `p50_s`, `p99_s`."""
        with self._lock:
            values = self._values[: min(self.count, WINDOW)]
            facts = {
                "count": self.count,
                "bytes": self.bytes,
                "total_s": self.total,
                "last_s": self.last,
                "mean_s": self.total / self.count if self.count else 0.0,
            }
        values.sort()
        return {**facts, "p50_s": _quantile(values, 0.5), "p99_s": _quantile(values, 0.99)}


def _quantile(ordered: list[float], q: float) -> float:
    """The smallest value that at least the part `q` of them does not exceed."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


class _Family:
    """Counters or gauges of one name, by their labels."""

    def __init__(self, kind: type[Counter | Gauge], help: str) -> None:
        self.kind = kind
        self.help = help
        self.series: dict[_Labels, Counter | Gauge] = {}


class Metrics:
    """All figures of a service. Thread-safe; asking for the same name and labels again gives the same figure.

    Parameters
    ----------
    prefix
        Before each name on the Prometheus page.
    """

    def __init__(self, prefix: str = "raftwright_forwarder") -> None:
        self.prefix = _checked(prefix.rstrip("_"))
        self.started = time.time()
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._families: dict[str, _Family] = {}
        self._stages: dict[str, Stage] = {}
        self._drops: dict[tuple[Loss, str], tuple[Counter, Counter]] = {}

    def counter(self, name: str, help: str = "", **labels: str) -> Counter:
        """A counter, without `_total`. Raises UsageError for names and labels that are none."""
        found = self._series(Counter, name, help, labels, Counter)
        assert isinstance(found, Counter)
        return found

    def gauge(
        self, name: str, help: str = "", *, read: Callable[[], float] | None = None, **labels: str
    ) -> Gauge:
        """A gauge; with `read`, one that is asked for when somebody looks. Raises as `counter`."""
        found = self._series(Gauge, name, help, labels, lambda: Gauge(read))
        assert isinstance(found, Gauge)
        return found

    def stage(self, name: str) -> Stage:
        """A stage by its name: `receive`, `descramble`, `write` ..."""
        stage = self._stages.get(name)
        if stage is None:
            _checked(name)
            with self._lock:
                stage = self._stages.setdefault(name, Stage())
        return stage

    def drops(self, reason: str, *, kind: Loss, bytes: int = 0, count: int = 1) -> None:
        """Something was lost. `kind` says what: pixels of the data, or only a preview."""
        pair = self._drops.get((kind, reason))
        if pair is None:
            if kind not in ("pixels", "preview"):
                raise UsageError(f"a drop loses pixels or a preview, not {kind!r}")
            _check_labels({"reason": reason})
            with self._lock:
                pair = self._drops.setdefault((kind, reason), (Counter(), Counter()))
        pair[0].add(count)
        pair[1].add(bytes)

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON: `uptime_s`, `stages`, `drops` by kind and reason, `counters`, `gauges`.

        Names are without prefix; labels follow as `name{reason="late"}`.
        """
        stages, families, drops = self._all()
        lost: dict[str, dict[str, dict[str, int]]] = {"pixels": {}, "preview": {}}
        for (kind, reason), (times, size) in sorted(drops.items()):
            lost[kind][reason] = {"count": int(times.value), "bytes": int(size.value)}
        figures: dict[str, dict[str, float | None]] = {"counters": {}, "gauges": {}}
        for name, family in sorted(families.items()):
            group = figures["counters" if family.kind is Counter else "gauges"]
            for labels, series in sorted(family.series.items()):
                group[name + _label_text(labels)] = _number(series.value)
        return {
            "uptime_s": round(time.monotonic() - self._begun, 3),
            "stages": {name: stage.snapshot() for name, stage in sorted(stages.items())},
            "drops": lost,
            **figures,
        }

    def collect(self) -> Iterator[Metric]:
        """The families of the Prometheus page: this object is a collector of prometheus-client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        stages, families, drops = self._all()
        seconds = SummaryMetricFamily(
            f"{self.prefix}_stage_seconds",
            f"Time of a stage; quantiles over the last {WINDOW} values",
            labels=["stage"],
        )
        last = GaugeMetricFamily(
            f"{self.prefix}_stage_last_seconds", "Latest time of a stage", labels=["stage"]
        )
        size = CounterMetricFamily(f"{self.prefix}_stage_bytes", "Bytes through a stage", labels=["stage"])
        for name, stage in sorted(stages.items()):
            facts = stage.snapshot()
            for text, key in (("0.5", "p50_s"), ("0.99", "p99_s")):
                seconds.add_sample(seconds.name, {"stage": name, "quantile": text}, facts[key])
            seconds.add_metric([name], int(facts["count"]), facts["total_s"])
            last.add_metric([name], facts["last_s"])
            size.add_metric([name], facts["bytes"])
        yield from (seconds, last, size)
        dropped = CounterMetricFamily(
            f"{self.prefix}_drops",
            "What was lost: pixels of the data, or a preview",
            labels=["kind", "reason"],
        )
        dropped_bytes = CounterMetricFamily(
            f"{self.prefix}_dropped_bytes", "Bytes that were lost", labels=["kind", "reason"]
        )
        # Both kinds are always there: no loss of pixels is a figure, not a gap.
        for kind in ("pixels", "preview"):
            if not any(key[0] == kind for key in drops):
                dropped.add_metric([kind, "none"], 0)
                dropped_bytes.add_metric([kind, "none"], 0)
        for (kind, reason), (times, lost) in sorted(drops.items()):
            dropped.add_metric([kind, reason], times.value)
            dropped_bytes.add_metric([kind, reason], lost.value)
        yield from (dropped, dropped_bytes)
        for name, family in sorted(families.items()):
            kind_of = CounterMetricFamily if family.kind is Counter else GaugeMetricFamily
            metric = kind_of(f"{self.prefix}_{name}", family.help or name.replace("_", " "))
            for labels, series in sorted(family.series.items()):
                suffix = "_total" if family.kind is Counter else ""
                metric.add_sample(metric.name + suffix, dict(labels), series.value)
            yield metric

    def _all(
        self,
    ) -> tuple[dict[str, Stage], dict[str, _Family], dict[tuple[Loss, str], tuple[Counter, Counter]]]:
        with self._lock:
            families = {}
            for name, family in self._families.items():
                copy = families[name] = _Family(family.kind, family.help)
                copy.series = dict(family.series)
            return dict(self._stages), families, dict(self._drops)

    def _series(
        self,
        kind: type[Counter | Gauge],
        name: str,
        help: str,
        labels: dict[str, str],
        make: Callable[[], Counter | Gauge],
    ) -> Counter | Gauge:
        key = tuple(sorted(labels.items()))
        with self._lock:
            family = self._families.get(name)
            if family is None:
                _checked(name)
                if name.endswith("_total") or name.startswith(("stage_", "drop")):
                    raise UsageError(
                        f"{name!r} is no name for a figure: leave _total out, stage_ and drop alone"
                    )
                family = self._families[name] = _Family(kind, help)
            if family.kind is not kind:
                raise UsageError(f"{name} is a {family.kind.__name__.lower()} already; choose another name")
            series = family.series.get(key)
            if series is None:
                _check_labels(labels)
                if len(family.series) >= _MOST_SERIES:
                    raise UsageError(f"{name} has {_MOST_SERIES} sets of labels; labels are for a few words")
                series = family.series[key] = make()
            return series


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise UsageError(f"{name[:80]!a} is no name for a figure; use small letters, digits and _")
    return name


def _check_labels(labels: dict[str, str]) -> None:
    for label, value in labels.items():
        _checked(label)
        if not _LABEL.match(value):
            raise UsageError(f"{value[:80]!a} is no value for the label {label}; a few plain words are")
        if _IMAGE.search(value):
            raise UsageError(f"label {label}: {value!r} names an image; labels never do, events and logs can")


def _label_text(labels: _Labels) -> str:
    return "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}" if labels else ""


def _number(value: float) -> float | None:
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) else value


def render(metrics: Metrics) -> bytes:
    """The Prometheus page of some figures, text format 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return generate_latest(registry)
