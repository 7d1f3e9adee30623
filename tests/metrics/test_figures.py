"""Figures: what is counted is what the page says."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftwright.errors import UsageError
from raftwright.metrics import Metrics, Stage, render


def page(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The Prometheus page as prometheus_client's own parser reads it."""
    samples = {}
    for family in text_string_to_metric_families(render(metrics).decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def sample(samples: dict, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_page_says_what_was_counted() -> None:
    metrics = Metrics("raftwright_forwarder")
    metrics.counter("files", "Files written").add()
    metrics.counter("files", "Files written").add(2)
    metrics.counter("refused", "Requests refused", reason="no such image").add()
    metrics.gauge("credit_bytes", "Credit outstanding").set(16 << 20)
    metrics.gauge("answer", read=lambda: 42)
    metrics.drops("late", kind="pixels", bytes=1000)
    metrics.drops("late", kind="pixels", bytes=500, count=3)
    metrics.stage("write").observe(0.25, bytes=10)
    metrics.stage("write").observe(0.75, bytes=30)
    found = page(metrics)
    assert sample(found, "raftwright_forwarder_files_total") == 3
    assert sample(found, "raftwright_forwarder_refused_total", reason="no such image") == 1
    assert sample(found, "raftwright_forwarder_credit_bytes") == 16 << 20
    assert sample(found, "raftwright_forwarder_answer") == 42
    assert sample(found, "raftwright_forwarder_drops_total", kind="pixels", reason="late") == 4
    assert sample(found, "raftwright_forwarder_dropped_bytes_total", kind="pixels", reason="late") == 1500
    assert sample(found, "raftwright_forwarder_drops_total", kind="preview", reason="none") == 0
    assert sample(found, "raftwright_forwarder_stage_seconds_count", stage="write") == 2
    assert sample(found, "raftwright_forwarder_stage_seconds_sum", stage="write") == 1.0
    assert sample(found, "raftwright_forwarder_stage_seconds", stage="write", quantile="0.99") == 0.75
    assert sample(found, "raftwright_forwarder_stage_last_seconds", stage="write") == 0.75
    assert sample(found, "raftwright_forwarder_stage_bytes_total", stage="write") == 40


def test_snapshot_is_the_same_as_json() -> None:
    metrics = Metrics("raftwright_server")
    metrics.counter("refused", "", reason="late").add(2)
    metrics.gauge("broken", read=lambda: 1 / 0)
    metrics.drops("slow reader", kind="preview", bytes=7)
    with metrics.stage("read"):
        time.sleep(0.01)
    seen = metrics.snapshot()
    assert seen["counters"] == {'refused{reason="late"}': 2}
    assert seen["gauges"] == {"broken": None}
    assert seen["drops"] == {"pixels": {}, "preview": {"slow reader": {"count": 1, "bytes": 7}}}
    stage = seen["stages"]["read"]
    assert stage["count"] == 1
    assert 0.009 < stage["last_s"] == stage["mean_s"] == stage["p99_s"] < 1
    assert sample(page(metrics), "raftwright_server_broken") != 0  # NaN


def test_quantiles_are_those_of_the_last_512() -> None:
    stage = Stage()
    for value in range(5000):
        stage.observe(float(value))
    last = np.arange(5000 - 512, 5000)
    facts = stage.snapshot()
    assert facts["p99_s"] == np.quantile(last, 0.99, method="inverted_cdf")
    assert facts["p50_s"] == np.quantile(last, 0.5, method="inverted_cdf")
    assert facts["mean_s"] == np.mean(np.arange(5000))
    assert (facts["count"], facts["last_s"]) == (5000, 4999.0)


def test_names_of_images_are_no_labels() -> None:
    metrics = Metrics()
    with pytest.raises(UsageError, match="names an image"):
        metrics.counter("files", "", image="MC_O_20261122_000123")
    with pytest.raises(UsageError, match="names an image"):
        metrics.drops("lost MC_O_20261122_000123", kind="pixels")
    with pytest.raises(UsageError, match="few plain words"):
        metrics.drops("a\nb", kind="pixels")
    with pytest.raises(UsageError, match="pixels or a preview"):
        metrics.drops("late", kind="frames")  # type: ignore[arg-type]
    for number in range(256):
        metrics.counter("peers", "", peer=str(number)).add()
    with pytest.raises(UsageError, match="few words"):
        metrics.counter("peers", "", peer="256")
    page(metrics)


def test_a_name_is_one_kind_of_figure() -> None:
    metrics = Metrics()
    metrics.counter("files")
    with pytest.raises(UsageError, match="is a counter already"):
        metrics.gauge("files")
    for name in ("Files", "files_total", "stage_x", "drops", "9", "a-b", ""):
        with pytest.raises(UsageError):
            metrics.counter(name)
    with pytest.raises(UsageError, match="cannot grow"):
        metrics.counter("files").add(-1)


def test_nothing_is_lost_between_threads() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(5000):
            metrics.counter("files").add()
            with metrics.stage("write"), metrics.stage("write"):
                pass
            metrics.drops("late", kind="pixels", bytes=2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        render(metrics)
        metrics.snapshot()
    seen = metrics.snapshot()
    assert seen["counters"]["files"] == 20000
    assert seen["stages"]["write"]["count"] == 40000
    assert seen["drops"]["pixels"]["late"] == {"count": 20000, "bytes": 40000}


def test_timing_a_stage_costs_next_to_nothing() -> None:
    stage = Metrics().stage("receive")
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(1000):
            with stage:
                pass
        best = min(best, (time.perf_counter() - begun) / 1000)
    assert best < 5e-6, f"{best * 1e6:.2f} us"  # about 0.7 us; the bound allows for a slow machine


def test_counting_imports_nothing_else() -> None:
    code = (
        "import sys\nfrom raftwright.metrics import Metrics\nm = Metrics(); m.stage('write').observe(1.0)\n"
        "m.snapshot()\nheavy = {'prometheus_client', 'http.server', 'numpy', 'zmq'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
