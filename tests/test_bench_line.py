"""The workload and the arithmetic of `make bench`: what it measures with must be right itself."""

from __future__ import annotations

import math

import pytest

from streams.events import Event
from streams.formats import FormatOptions, decode
from streams.journey import load_journey
from tests.bench._line_latency import Delays, Latency, quantile, told
from tests.bench._line_load import JOURNEY, RAW_PARTITIONS, STAMP, Load, make, settings_of, stamp
from tests.bench._line_report import Bench, limits
from tests.bench._line_run import Run
from tests.bench._profile import CpuClock, bench_settings, run


@pytest.fixture(scope="module")
def work() -> Load:
    return make(10_000, seed=1, span_s=36.0)


def events_of(work: Load) -> list[Event]:
    options = FormatOptions.from_settings(settings_of(), now_s=2e9)
    outcomes = [outcome for value in work.values for outcome in decode(value, "segment", options)]
    return [outcome for outcome in outcomes if isinstance(outcome, Event)]


def test_every_call_is_an_event_and_partitions_are_in_event_time_order(work: Load) -> None:
    events = events_of(work)
    assert len(events) == len(work.values) == 10_000 + RAW_PARTITIONS
    assert len({event.id for event in events}) == len(events)
    times = [event.time for event in events]
    assert times == sorted(times)
    assert set(work.partitions) == set(range(RAW_PARTITIONS))


def test_the_workload_is_the_one_of_the_issue(work: Load) -> None:
    events = events_of(work)[:-RAW_PARTITIONS]
    visitors = {event.person for event in events}
    segments = {
        pair for event in events for pair in event.segment.items() if pair[0] in {"channel", "device", "country"}
    }
    stage_of = load_journey(JOURNEY).stage_of
    stages = {stage_of(event) for event in events} - {None}
    assert len(visitors) == 2_000
    assert len(segments) + 1 == 40
    assert len(stages) == 12
    assert 230 < sum(map(len, work.values)) / len(work.values) < 300


def test_the_same_arguments_give_the_same_bytes(work: Load) -> None:
    assert make(10_000, seed=1, span_s=36.0) == work


def test_the_pure_line_takes_up_all_of_it_and_judges_all(work: Load) -> None:
    line = run(work, bench_settings(), CpuClock())  # it checks that all are applied
    assert min(watcher.state.judged_until for watcher in line.watchers) >= work.until
    assert sum(watcher.streams for watcher in line.watchers) > 500


def test_a_prefix_closes_its_sessions_too(work: Load) -> None:
    line = run(work.first(1000), bench_settings(), CpuClock())
    assert sum(len(stage.state.sessions) for stage in line.sessionizers) <= RAW_PARTITIONS


def test_calls_can_be_sent_with_another_time(work: Load) -> None:
    value = work.values[0]
    moved = value[: STAMP.start] + stamp(1_800_000_000.25) + value[STAMP.stop :]
    event = decode(moved, "segment", FormatOptions.from_settings(settings_of(), now_s=2e9))[0]
    assert isinstance(event, Event)
    assert event.time == 1_800_000_000.25


def test_quantiles_of_a_histogram_lie_on_straight_lines_between_its_edges() -> None:
    assert quantile({0.1: 0.0, 0.2: 100.0, math.inf: 100.0}, 0.5) == pytest.approx(0.15)
    assert quantile({0.1: 90.0, 0.2: 99.0, math.inf: 100.0}, 0.999) == 0.2


def test_only_what_came_between_two_scrapes_counts() -> None:
    def scraped(fast: float, slow: float) -> dict[str, list[tuple[dict[str, str], float]]]:
        edges = (("0.1", fast), ("5.0", fast + slow), ("+Inf", fast + slow))
        return {"trustwatch_event_delay_seconds_bucket": [({"stage": "watch", "le": le}, n) for le, n in edges]}

    found = told(scraped(0, 50), scraped(100, 50))["watch"]
    assert (found.count, found.p99_s < 0.1) == (100, True)


def runs(rate: float, events: int = 1000) -> list[Run]:
    return [Run(events, events / rate, cpu_s=1.0, rss_mb=1.0)]


def test_each_limit_is_said_and_a_missed_one_is_named() -> None:
    bench = Bench(1000, 250.0, {"two": runs(800), "unsaved": runs(900), "one": runs(500), "plain": runs(90),
                                "quix": runs(500), "bare": runs(4000)})  # fmt: skip
    bench.latency = Latency(400.0, Delays(0.1, 0.4, 9), None, {"watch": Delays(0.3, 2.5, 9)}, 0)
    lines = limits(bench)
    assert [line[:6].strip() for line in lines] == ["ok", "ok", "MISSED", "ok", "MISSED", "MISSED", "ok"]
    assert "0.20 x (d)" in lines[2]
    assert "11.1%" in lines[4]


def test_a_delay_that_was_not_measured_is_a_missed_limit() -> None:
    bench = Bench(1000, 250.0, {}, Latency(400.0, None, None, {}, 0))
    assert [line[:6] for line in limits(bench)] == ["MISSED", "MISSED"]
