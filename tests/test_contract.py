"""Every law of `detectors._base.Detector`, over every detector there is.

A detector's own test module (`tests/detectors/test_<name>.py`) gives the streams: `quiet() -> list[Bucket]` and
`firing() -> (list[Bucket], onset in seconds)`.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from detectors._base import Bucket, Detector, Verdict
from detectors._rate import RateDetector
from detectors._registry import build_params, discover
from detectors._several import SeveralRates

ROOT = Path(__file__).resolve().parents[1]
DETECTORS = discover()
FORBIDDEN = {
    "streams", "faust", "mode", "aiokafka", "kafka", "confluent_kafka", "prometheus_client", "time", "random",
    "logging", "pickle", "socket", "subprocess", "requests", "urllib", "asyncio", "threading",
}  # fmt: skip
CLOCK_CALLS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}
TRACE = {"k", "n", "recent", "expected", "low", "high", "statistic", "warn", "threshold", "back", "back_at"}
DAY_S = 86_400.0
ONSET_TOLERANCE_S = DAY_S
RATE_BYTES, OTHER_BYTES, SLACK = 4096, 16_384, 600
"""Lists of bounded length are now shorter, now longer."""

every_detector = pytest.mark.parametrize("name", DETECTORS)


@functools.cache
def cases(name: str) -> ModuleType:
    path = ROOT / "tests" / "detectors" / f"test_{name}.py"
    assert path.is_file(), f"{name} has no test. Fix: write {path} with quiet() and firing()"
    spec = importlib.util.spec_from_file_location(f"contract_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for case in ("quiet", "firing"):
        assert callable(getattr(module, case, None)), f"{path} lacks {case}()"
    return module


@functools.cache
def streams(name: str) -> dict[str, list[Bucket]]:
    return {"quiet": cases(name).quiet(), "firing": cases(name).firing()[0]}


def fresh(name: str) -> Detector[Any, Any]:
    cls = DETECTORS[name]
    return cls(build_params(cls))


def feed(detector: Detector[Any, Any], buckets: list[Bucket]) -> Iterator[tuple[Bucket, Verdict]]:
    for bucket in buckets:
        if (x := detector.look(bucket, detector.params)) is not None:
            yield bucket, detector.observe(x)


@functools.cache
def verdicts(name: str, stream: str) -> list[tuple[Bucket, Verdict]]:
    return list(feed(fresh(name), streams(name)[stream]))


@every_detector
@pytest.mark.parametrize("stream", ["quiet", "firing"])
def test_same_input_gives_same_verdicts(name: str, stream: str) -> None:
    assert list(feed(fresh(name), streams(name)[stream])) == verdicts(name, stream)


@every_detector
def test_input_is_left_alone(name: str) -> None:
    detector = fresh(name)
    for bucket in streams(name)["firing"][:2000]:
        before = msgspec.json.encode(bucket)
        x = detector.look(bucket, detector.params)
        if x is not None:
            seen = msgspec.json.encode(x)
            detector.observe(x)
            assert msgspec.json.encode(x) == seen
        assert msgspec.json.encode(bucket) == before


@every_detector
def test_snapshot_and_restore_change_no_verdict(name: str) -> None:
    expected = [verdict for _, verdict in verdicts(name, "firing")]
    first_alert = next(i for i, verdict in enumerate(expected) if verdict.level == "alert")
    stops = {0, 1, len(expected) // 7, len(expected) // 2, first_alert, first_alert + 1, len(expected) - 2}
    detector, got = fresh(name), []
    for i, bucket in enumerate(b for b, _ in verdicts(name, "firing")):
        if i in stops:
            blob = detector.snapshot()
            detector = fresh(name)
            detector.restore(blob)
            assert detector.snapshot() == blob
        got.append(detector.observe(detector.look(bucket, detector.params)))
    assert got == expected


@every_detector
@pytest.mark.parametrize("stream", ["quiet", "firing"])
def test_trace_changes_nothing_and_makes_sense(name: str, stream: str) -> None:
    detector = fresh(name)
    detector.trace()
    for i, (bucket, expected) in enumerate(verdicts(name, stream)):
        assert detector.observe(detector.look(bucket, detector.params)) == expected
        state = detector.snapshot() if i % 211 == 0 else b""
        shown = dict(detector.trace())
        assert dict(detector.trace()) == shown
        assert not state or detector.snapshot() == state
        for view in {field.rpartition(".")[0] for field in shown}:
            numbers = {
                field.rpartition(".")[2]: value for field, value in shown.items() if field.rpartition(".")[0] == view
            }
            check_trace(numbers)


def check_trace(numbers: dict[str, float]) -> None:
    assert set(numbers) <= TRACE
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in numbers.values())
    assert numbers.get("n", 0.0) >= 0.0
    if "expected" in numbers:
        assert numbers["low"] <= numbers["expected"] <= numbers["high"]
    if "statistic" in numbers:
        assert numbers["statistic"] >= 0.0
        assert 0.0 < numbers.get("warn", numbers["threshold"]) <= numbers["threshold"]
    assert numbers.get("back", 0.0) >= 0.0 and ("back" in numbers) == ("back_at" in numbers)


@every_detector
def test_garbage_is_no_state(name: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        fresh(name).restore(b"\x93\x01\x02\x03")


def allowed_bytes(detector: Detector[Any, Any]) -> int:
    """4 kB for each rate, and 1 kB for what several of them share."""
    if isinstance(detector, SeveralRates):
        return len(detector.rates) * RATE_BYTES + 1024
    return RATE_BYTES if isinstance(detector, RateDetector) else OTHER_BYTES


@every_detector
def test_state_is_bounded(name: str) -> None:
    detector = fresh(name)
    quiet = [bucket for bucket, _ in verdicts(name, "quiet")]
    span_s = quiet[-1].ts - quiet[0].ts + quiet[0].width_s
    sizes = {}
    for i in range(50_000):
        lap, at = divmod(i, len(quiet))
        bucket = msgspec.structs.replace(quiet[at], ts=quiet[at].ts + lap * math.ceil(span_s / DAY_S) * DAY_S)
        detector.observe(detector.look(bucket, detector.params))
        if i + 1 in (10_000, 50_000):
            sizes[i + 1] = len(detector.snapshot())
    assert sizes[50_000] <= sizes[10_000] + SLACK
    assert sizes[50_000] <= allowed_bytes(detector)


@every_detector
def test_stays_quiet_when_nothing_changes(name: str) -> None:
    levels = [verdict.level for _, verdict in verdicts(name, "quiet")]
    assert "alert" not in levels
    assert levels[-1] == "ok", "the quiet stream is too short: the detector never judged"


@every_detector
def test_fires_with_the_right_onset_and_direction(name: str) -> None:
    onset = cases(name).firing()[1]
    alerts = [(bucket, verdict) for bucket, verdict in verdicts(name, "firing") if verdict.level == "alert"]
    assert alerts, "never alerted"
    bucket, first = alerts[0]
    assert bucket.ts >= onset, "alerted before the change"
    assert first.onset is not None
    assert abs(first.onset - onset) <= ONSET_TOLERANCE_S
    assert first.direction == "worse"
    assert first.n_before > 0 and first.n_after > 0
    worse = getattr(DETECTORS[name], "worse", None)
    assert first.after != first.before if worse is None else (first.after > first.before) == (worse == "up")


@every_detector
@pytest.mark.parametrize("stream", ["quiet", "firing"])
def test_verdicts_are_in_range(name: str, stream: str) -> None:
    for bucket, verdict in verdicts(name, stream):
        assert verdict.level in ("warming", "ok", "warn", "alert")
        assert 0.0 <= verdict.score <= 1.0
        assert (verdict.onset is not None) == (verdict.level in ("warn", "alert"))
        assert verdict.onset is None or verdict.onset <= bucket.ts
        assert all(isinstance(v, int | float) and math.isfinite(v) for v in verdict.evidence.values())
        assert math.isfinite(verdict.before) and math.isfinite(verdict.after)


@every_detector
def test_parameters_are_frozen_described_and_safe_to_share(name: str) -> None:
    params = build_params(DETECTORS[name])
    field, info = next(iter(type(params).model_fields.items()))
    with pytest.raises(ValidationError):
        setattr(params, field, info.default)
    assert all(info.description for info in type(params).model_fields.values())


@every_detector
def test_ignores_buckets_that_are_not_its_own(name: str) -> None:
    detector = fresh(name)
    assert detector.look(Bucket(0.0, 10.0, "nowhere", {}), detector.params) is None


@pytest.mark.parametrize("path", sorted((ROOT / "detectors").glob("*.py")), ids=lambda path: path.name)
def test_detectors_know_neither_streams_nor_clocks(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        bad = {module.partition(".")[0] for module in modules} & FORBIDDEN
        assert not bad, f"{path.name}:{getattr(node, 'lineno', 0)} imports {', '.join(bad)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CLOCK_CALLS, f"{path.name}:{node.lineno} reads a clock"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "open"), f"{path.name}:{node.lineno} does I/O"
