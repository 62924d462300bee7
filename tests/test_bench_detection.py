"""The detection bench itself: its streams have the rates they should, and it counts right."""

from __future__ import annotations

from itertools import chain
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river.drift import KSWIN

from tests.bench import _installation, _timing, _trustwatch, detection
from tests.bench._installation import Drop
from tests.bench._report import Limit, Report, limits_of, write
from tests.bench._river_peers import PEERS, alarms_of, disagreement
from tests.bench._rows import Row
from tests.bench._scores import Alarm, Outcome, Quiet, delays, false_alarms, judge_change, judge_quiet
from tests.bench._streams import Change, Kind, Stream, is_weekend, seeds, simulate
from tests.bench._tuning import ALLOWED, Effort, Tuned, tune_shape

FLAT = Kind("flat")


class Scripted:
    """A test that alarms over given ranges of updates, and names an onset 20 updates before each."""

    def __init__(self, *ranges: range) -> None:
        self.alarmed = set(chain(*ranges))
        self.updates = -1
        self.ts: list[float] = []

    def update_binomial(self, ts: float, k: int, n: int, extras: tuple[int, ...]) -> str:
        self.updates += 1
        self.ts.append(ts)
        return "alarmed" if self.updates in self.alarmed else "quiet"


@pytest.fixture
def scripted_onset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trustwatch, "onset_of", lambda test: test.ts[test.updates - 20])


def stream_of(count: int, learn_n: int) -> Stream:
    return Stream(np.arange(count) * 60.0, np.zeros(count, dtype=np.int8), learn_n, 0)


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", list(dict(detection.ROWS)), ids=lambda kind: kind.name)
def test_streams_have_their_rate_and_volume(kind: Kind) -> None:
    streams = [simulate(kind, "report", number, 5000) for number in range(4)]
    rate = np.mean([stream.xs.mean() for stream in streams])
    days = np.mean([(stream.ts[-1] - stream.ts[0]) / 86_400.0 for stream in streams])
    assert isclose(rate, kind.base, rel_tol=0.12)
    assert isclose((kind.learn_n + 5000) / days, kind.per_day, rel_tol=0.3)
    assert all((np.diff(stream.ts) >= 0).all() for stream in streams)


def test_a_change_begins_right_after_the_learning() -> None:
    before, after, ramp = [], [], []
    for number in range(20):
        xs = simulate(FLAT, "report", number, 5000, Change(0.24)).xs
        before.append(xs[:10_000].mean())
        after.append(xs[10_000:].mean())
        ramp.append(simulate(FLAT, "report", number, 2000, Change(0.24, ramp_n=2000)).xs[10_000:].mean())
    assert isclose(np.mean(before), 0.30, abs_tol=0.004)
    assert isclose(np.mean(after), 0.24, abs_tol=0.006)
    assert isclose(np.mean(ramp), 0.27, abs_tol=0.01)


def test_the_daily_cycle_is_as_said() -> None:
    xs, hours = [], []
    for number in range(8):
        stream = simulate(detection.DAILY, "report", number, 40_000)
        phase = (stream.ts % 86_400.0) // 7200.0
        rates = np.array([stream.xs[phase == hour].mean() for hour in range(12)])
        xs.append(rates.max())
        hours.append(rates.min())
    assert isclose(np.mean(xs), 0.335, abs_tol=0.01)
    assert isclose(np.mean(hours), 0.265, abs_tol=0.01)


def test_weekends_differ_either_way_and_have_less_volume() -> None:
    shifts = []
    for number in range(12):
        stream = simulate(detection.WEEKLY_3W, "report", number, 0)
        weekend = is_weekend(stream.ts)
        shifts.append(stream.xs[weekend].mean() / stream.xs[~weekend].mean() - 1.0)
        assert 0.12 < weekend.mean() < 0.27
    assert min(shifts) < -0.05 < 0.05 < max(shifts)


def test_bursts_vary_more_than_chance_has_it() -> None:
    counts: dict[str, list[float]] = {"bursts": [], "flat": []}
    for name, kind in (("bursts", detection.BURSTS), ("flat", FLAT)):
        for number in range(6):
            sums = simulate(kind, "report", number, 10_000).xs[:20_000].reshape(-1, 50).sum(axis=1)
            counts[name].append(sums.var() / (50 * 0.3 * 0.7))
    assert isclose(np.mean(counts["flat"]), 1.0, abs_tol=0.1)
    assert np.mean(counts["bursts"]) > 1.1


def test_tuning_and_reporting_share_no_seed() -> None:
    def words(purpose: Any) -> set[bytes]:
        return {seeds(purpose, "flat", number).generate_state(4).tobytes() for number in range(500)}

    assert not words("tune") & words("report")
    assert (simulate(FLAT, "tune", 0, 100).xs != simulate(FLAT, "report", 0, 100).xs).any()
    assert (simulate(FLAT, "report", 1, 100).xs == simulate(FLAT, "report", 1, 100).xs).all()


# ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("scripted_onset")
def test_an_episode_is_counted_once_and_only_after_the_learning() -> None:
    test: Any = Scripted(range(30, 40), range(90, 120), range(150, 200), range(290, 300))
    alarms = _trustwatch.alarms_of(stream_of(300, 100), None, test)
    assert alarms == [Alarm(30, 40, 10.0), Alarm(90, 120, 70.0), Alarm(150, 200, 130.0), Alarm(290, 300, 270.0)]
    assert judge_quiet(alarms, 100, 300) == Quiet(alarms=2, at_risk_n=200 - 20 - 50 - 10 + 2, events=200)


@pytest.mark.usefixtures("scripted_onset")
@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([range(150, 160)], Outcome(False, 51, 30.0)),
        ([range(100, 160)], Outcome(False, 1, -20.0)),
        ([range(90, 100), range(130, 140)], Outcome(False, 31, 10.0)),
        ([range(95, 130), range(140, 150)], Outcome(True)),
        ([range(190, 200)], Outcome(False)),
        ([], Outcome(False)),
    ],
    ids=["found", "at once", "false alarm over", "false alarm on", "too late", "never"],
)
def test_a_change_is_found_missed_or_hidden_by_a_false_alarm(ranges: list[range], expected: Outcome) -> None:
    test: Any = Scripted(*ranges)
    alarms = _trustwatch.alarms_of(stream_of(200, 100), 100, test)
    assert judge_change(alarms, at=100, within_n=80) == expected


def test_false_alarms_are_a_rate_with_an_error_by_stream() -> None:
    even = false_alarms([Quiet(1, 50_000, 50_000)] * 10)
    clustered = false_alarms([Quiet(10, 50_000, 50_000)] + [Quiet(0, 50_000, 50_000)] * 9)
    assert even.rate == clustered.rate == 2.0
    assert even.error == 0.0
    assert isclose(clustered.error, 2.0)
    assert false_alarms([Quiet(0, 50_000, 50_000)] * 2).error == 1.0


def test_missed_changes_count_as_longer_than_any() -> None:
    each = [Outcome(False, delay, delay / 10) for delay in range(1, 92)] + [Outcome(False)] * 9
    found = delays([*each, Outcome(True)])
    assert (found.median, found.p90, found.missed, found.before, found.streams) == (50.0, 90.0, 0.09, 1, 100)
    assert found.onset_error == 4.6
    missing = delays([Outcome(False, 10), Outcome(False), Outcome(False)])
    assert missing.median is None and missing.onset_error is None and isclose(missing.missed, 2 / 3)


# ── River's detectors ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.first is not None])
def test_formulas_alarm_where_rivers_own_classes_do(name: str) -> None:
    stream, peer, alarms = simulate(FLAT, "tune", 1, 3000, Change(0.15)), PEERS[name], 0
    for shape in list(peer.combinations())[:2]:
        for share in (0.1, 0.3):
            params = {**shape, peer.knob: peer.between(share)}
            assert disagreement(name, params, stream) is None
            alarms += len(alarms_of(name, params, stream))
    assert alarms > 0


def test_kswin_alarms_as_often_as_rivers_own_class() -> None:
    params = {"window_size": 100, "stat_size": 30, "alpha": 0.05}
    stream = simulate(FLAT, "tune", 2, 0)
    own, detector = 0, KSWIN(seed=1, **params)
    for x in stream.xs[:4000].tolist():
        detector.update(x)
        own += detector.drift_detected
    both_ways = [len(alarms_of("KSWIN", params, Stream(stream.ts, xs, 0, seed)))
                 for seed in range(10) for xs in (stream.xs, 1 - stream.xs)]  # fmt: skip
    mean = sum(both_ways) / 10 * 4000 / len(stream.xs)
    assert abs(own - mean) < 4 * np.sqrt(mean)


@pytest.mark.parametrize("name", ["ADWIN", "KSWIN"])
def test_only_falls_count(name: str) -> None:
    peer = PEERS[name]
    params = {**next(iter(peer.combinations())), peer.knob: peer.between(0.2)}
    fall = simulate(FLAT, "tune", 3, 4000, Change(0.12))
    rise = fall._replace(xs=1 - fall.xs)
    assert judge_change(alarms_of(name, params, fall), 10_000, 4000).delay is not None
    assert alarms_of(name, params, rise) == []


def test_tuning_stays_within_the_allowance() -> None:
    effort = Effort(quiet=4, quiet_n=10_000, changed=4, halvings=5)
    tuned = tune_shape("PageHinkley", {"delta": 0.02, "alpha": 1.0, "mode": "down", "min_instances": 30}, FLAT,
                       Change(0.20), effort)  # fmt: skip
    peer = PEERS["PageHinkley"]
    assert tuned.rate <= ALLOWED
    assert peer.loose < tuned.params["threshold"] < peer.strict
    assert tuned.median is not None and tuned.median < 2000


def test_of_settings_within_the_allowance_the_fastest_is_best() -> None:
    loose, fast, slow = (
        Tuned("x", {}, rate, median, 0.0) for rate, median in ((9.0, 10.0), (1.0, 300.0), (0.5, 400.0))
    )
    assert min([loose, slow, fast], key=lambda tuned: tuned.order) is fast


# ── installation, report ──────────────────────────────────────────────────────────────────────────────────────────────


def test_injected_drops_lose_what_they_say() -> None:
    drop = Drop(0.24, 200.0)
    stream = _installation.buckets(np.random.default_rng(1), 2000.0, 0.30, 28, drop)
    first = stream.changed.index(True)
    assert isclose((stream.ts[first] - stream.ts[0]) / 86_400.0, 21.0, abs_tol=0.1)
    assert abs(stream.lost[first - 1]) < 1e-6
    assert isclose(stream.lost[-1], 0.06 * sum(stream.n[first:]), rel_tol=0.05)
    assert isclose(sum(stream.k[:first]) / sum(stream.n[:first]), 0.30, abs_tol=0.02)


def test_a_drop_is_lost_to_an_alarm_that_was_on_before() -> None:
    stream = _installation.Buckets([0.0, 1.0, 2.0, 3.0], [0] * 4, [9] * 4, [0.0, 0.0, 1.0, 2.0],
                                   [False, False, True, True])  # fmt: skip
    on: Any = Scripted(range(1, 4))
    off: Any = Scripted(range(3, 4))
    assert _installation._lost(on, stream, 10.0) is None
    assert _installation._lost(off, stream, 10.0) == 2.0
    assert _installation._lost(off, stream, 0.5) is None


def test_a_limit_says_pass_or_fail() -> None:
    assert str(Limit("delay", 460.0, 470.0, 9.0)) == "PASS delay: 460 ± 9 (<= 470)"
    assert str(Limit("share", 0.9, 0.95, at_least=True)).startswith("FAIL share: 0.900")


def row_of(trustwatch: tuple[float, int], **peers: tuple[float, int]) -> Row:
    every = {"trustwatch": trustwatch, **peers}
    quiet = {name: false_alarms([Quiet(round(rate * 10), 1_000_000, 1_000_000)]) for name, (rate, _) in every.items()}
    found = {name: delays([Outcome(False, delay)] * 10) for name, (_, delay) in every.items()}
    return Row(FLAT, Change(0.24), quiet, found)


def test_a_row_names_who_is_ahead() -> None:
    assert row_of((1.0, 400), ADWIN=(2.0, 500), DDM=(9.0, 100)).verdict == "ahead"
    assert "ADWIN is faster by 100 ± 0 events" in row_of((1.0, 400), ADWIN=(2.0, 300)).verdict
    assert "at 2.0 false alarms against 1.0" in row_of((1.0, 400), ADWIN=(2.0, 300)).verdict
    assert "more than 4" in row_of((5.0, 400), ADWIN=(2.0, 500)).verdict
    assert row_of((5.0, 400), ADWIN=(6.0, 300)).is_ahead, "nobody keeps to 4, and it has the fewest"
    assert not row_of((5.0, 400), ADWIN=(4.5, 500)).is_ahead


def test_a_small_run_is_written_and_judged(tmp_path: Path) -> None:
    tuned = [
        Tuned(
            "PageHinkley",
            {"delta": 0.03, "alpha": 1.0, "threshold": 20.0, "mode": "down", "min_instances": 30},
            1.0,
            500.0,
            0.0,
        )
    ]
    rows = []
    for kind in (FLAT, detection.DAILY):
        change = Change(0.24)
        quiet = detection.quiet_chunk(tuned, kind, 500, range(1))
        found = detection.change_chunk(tuned, kind, change, range(1))
        rows.append(Row(kind, change, {name: false_alarms([one]) for name, one in quiet},
                        {name: delays([one]) for name, one in found}))  # fmt: skip
    timings = [_timing.timed("rate", lambda _: None, range(200), 100)]
    report = Report(rows, tuned, timings, 100, [0, 1], [], quick=True, seconds=1.0)
    limits = write(report, tmp_path)
    assert limits == limits_of(report)
    page = (tmp_path / "detection.md").read_text()
    assert all(str(limit) in page for limit in limits)
    assert "PageHinkley" in page
    assert (tmp_path / "detection.png").read_bytes().startswith(b"\x89PNG")
    assert b'"false_pages": 1' in (tmp_path / "detection.json").read_bytes()
