"""Early drop-off: quiet on a daily cycle and when fewer come, fires on 0.30 → 0.24, recovers, accepts what stays."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import groupby

import pytest

from detectors._arrivals import KEPT_H, Arrivals
from detectors._base import Bucket, Verdict
from detectors._registry import build_params
from detectors.early_dropoff import EarlyDropoff

START_S = 1_700_006_400.0
DAY_S = 86_400.0
STEP_S = 300.0
STEPS_A_BUCKET = 10
LATE = 0.1
"""Of those who advance, the share that takes longer than the last dwell mark."""


def stream(
    days: float, drops: dict[float, float], seed: int, cycle: float = 0.03,
    late: Callable[[float], float] | None = None, enter: Callable[[float], int] | None = None,
) -> list[Bucket]:  # fmt: skip
    """2,880 steps a day, counted as sessionize does: entries at once, who advanced soon after 5 min, at all after 30.

    Args:
        days: length.
        drops: day → how far the advance rate lies below 0.30 from then on.
        seed: of chance.
        cycle: amplitude of the daily cycle.
        late: day → share of the advances that come late.
        enter: day → how many enter in 5 minutes.
    """
    rng = random.Random(seed)
    count = int(days * DAY_S / STEP_S)
    counts: list[dict[str, int]] = [{} for _ in range(count + 6)]
    for i in range(count):
        ts = START_S + i * STEP_S
        day = i * STEP_S / DAY_S
        p = 0.30 + cycle * math.sin(2 * math.pi * ts / DAY_S)
        p -= next((drop for since, drop in reversed(drops.items()) if day >= since), 0.0)
        n = enter(day) if enter else STEPS_A_BUCKET
        advanced = sum(rng.random() < p for _ in range(n))
        soon = sum(rng.random() >= (late(day) if late else LATE) for _ in range(advanced))
        counts[i] |= {"entered": n, "advanced": advanced}
        counts[i + 1] |= {"soon": soon, "not_soon": n - soon}
        counts[i + 6] |= {"at_all": advanced, "not_at_all": n - advanced, "dropped": n - advanced}
    return [Bucket(START_S + i * STEP_S, 10.0, "evaluate", fields) for i, fields in enumerate(counts[:count])]


def quiet() -> list[Bucket]:
    return stream(12, {}, seed=101)


def firing() -> tuple[list[Bucket], float]:
    return stream(7, {5: 0.06}, seed=202), START_S + 5 * DAY_S


def judge(buckets: list[Bucket], **params: float) -> list[tuple[float, Verdict]]:
    detector = EarlyDropoff(build_params(EarlyDropoff, params))  # type: ignore[arg-type]
    seen = [(b.ts, detector.look(b, detector.params)) for b in buckets]
    return [(ts, detector.observe(x)) for ts, x in seen if x is not None]


def day_of(ts: float) -> float:
    return (ts - START_S) / DAY_S


def alerts(verdicts: list[tuple[float, Verdict]]) -> list[tuple[float, Verdict]]:
    return [(day_of(ts), verdict) for ts, verdict in verdicts if verdict.level == "alert"]


def begun(verdicts: list[tuple[float, Verdict]], since: float) -> list[float]:
    """Days on which an alert began, from `since` on."""
    runs = [(level, next(group)) for level, group in groupby(verdicts, lambda told: told[1].level)]
    return [day_of(ts) for level, (ts, _) in runs if level == "alert" and day_of(ts) >= since]


def only(buckets: list[Bucket], *fields: str) -> list[Bucket]:
    """The same stream with some of its counts."""
    return [Bucket(b.ts, b.width_s, b.stage, {f: n for f, n in b.counts.items() if f in fields}) for b in buckets]


def test_evidence_says_how_many_progressions_are_lost() -> None:
    last = judge(firing()[0])[-1][1]
    assert last.level == "alert"
    assert last.evidence["lost_progressions"] == pytest.approx(2 * 2880 * 0.06, rel=0.35)
    assert last.evidence["statistic"] > last.evidence["threshold"]
    assert last.before - last.after == pytest.approx(0.06, abs=0.02)


# ── how early ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fall_is_found_before_any_of_those_sessions_has_closed() -> None:
    """At 4,000 entries an hour; whoever came since the fall has been there for less than half an hour."""
    at = 3.0
    buckets = stream(3.1, {at: 0.15}, seed=3, enter=lambda _: 330)
    by = {name: alerts(judge(only(buckets, name, f"not_{name}", "entered")))[0][0] for name in ("soon", "at_all")}
    whole = alerts(judge(buckets))
    minutes = (whole[0][0] - at) * 24 * 60
    assert 5 <= minutes < 30
    assert whole[0][1].evidence["seen_soon"] == 1.0
    assert by["at_all"] - by["soon"] > 20 / (24 * 60)


def test_people_who_only_stop_advancing_late_are_found_too() -> None:
    """All who advance do so within five minutes from day 5 on; those who used to take longer stay away."""
    buckets = stream(9, {5: 0.09}, seed=4, late=lambda day: 0.3 if day < 5 else 0.0)
    found = alerts(judge(buckets))
    assert found and found[0][1].evidence.get("seen_at_all") == 1.0
    assert not alerts(judge(only(buckets, "soon", "not_soon", "entered")))


def test_one_finding_however_many_views_alert() -> None:
    verdicts = [verdict for _, verdict in judge(firing()[0])]
    told = [verdict for verdict in verdicts if verdict.level == "alert"]
    assert {verdict.kind for verdict in told} == {""}
    ends = [v.level for v in verdicts[verdicts.index(told[0]) :]]
    assert set(ends) == {"alert"}, "it flaps"
    speakers = [tuple(sorted(key for key in verdict.evidence if key.startswith("seen_"))) for verdict in told]
    assert len(list(groupby(speakers))) == 1, "the view changes although the first still alerts"


# ── fewer came, or fewer advanced ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_fewer_who_come_are_no_early_dropoff(seed: int) -> None:
    """A campaign ends: a tenth of the people from one moment to the next, and they advance as before."""
    buckets = stream(7, {}, seed=seed, enter=lambda day: 200 if day < 5.37 else 20)
    assert not begun(judge(buckets), since=5.37)


@pytest.mark.parametrize("seed", range(3))
def test_a_rush_of_people_is_none_either(seed: int) -> None:
    buckets = stream(7, {}, seed=seed, enter=lambda day: 200 if 5.37 <= day < 5.45 else 20)
    assert not begun(judge(buckets), since=5.37)


def test_a_rate_of_what_ends_now_would_have_been_fooled() -> None:
    """Why the rates are those of cohorts: the drops of half an hour ago come in beside the advances of now."""
    buckets = stream(7, {}, seed=0, enter=lambda day: 200 if day < 5.37 else 20)
    renamed = {"advanced": "soon", "dropped": "not_soon"}
    ends = [
        Bucket(b.ts, b.width_s, b.stage, {renamed[field]: n for field, n in b.counts.items() if field in renamed})
        for b in buckets
    ]
    assert begun(judge(ends), since=5.37)


def test_the_evidence_tells_fewer_came_from_fewer_advanced() -> None:
    """From day 8 on both: 60 % of the people, and of these fewer advance."""
    steady, both = (
        judge(stream(11, {8: 0.1}, seed=6, enter=enter))[-1][1] for enter in (None, lambda day: 10 if day < 8 else 6)
    )
    assert steady.level == both.level == "alert"
    assert steady.evidence["entered_per_hour_before"] == pytest.approx(120, rel=0.02)
    assert steady.evidence["entered_per_hour_after"] == pytest.approx(120, rel=0.02)
    assert steady.evidence["lost_by_fewer_entering"] == pytest.approx(0.0, abs=5)
    assert both.evidence["entered_per_hour_before"] == pytest.approx(120, rel=0.02)
    assert both.evidence["entered_per_hour_after"] == pytest.approx(72, rel=0.05)
    assert both.evidence["lost_by_fewer_entering"] == pytest.approx(3 * 24 * 48 * 0.3, rel=0.15)
    assert both.evidence["lost_progressions"] == pytest.approx(3 * 24 * 72 * 0.1, rel=0.35)


def test_arrivals_are_compared_with_the_same_hours_of_the_week() -> None:
    arrivals = Arrivals()
    for hour in range(14 * 24 + 6):
        weekend, night = hour // 24 % 7 >= 5, hour % 24 < 8
        arrivals.add(hour * 3600.0, (5 if weekend else 20) + (0 if night else 10))
    for day in (11, 12):
        before, after = arrivals.around(day * DAY_S) or (0.0, 0.0)
        assert before == pytest.approx(after), "the weekend is no fall"
    fewer = Arrivals()
    for hour in range(10 * 24):
        fewer.add(hour * 3600.0, (30 if hour % 24 >= 12 else 10) // (1 if hour < 9 * 24 else 2))
    assert fewer.around(9 * DAY_S) == pytest.approx((20.0, 10.0), rel=0.05)


def test_arrivals_are_bounded_and_survive_silence() -> None:
    arrivals = Arrivals()
    for day in range(100):
        arrivals.add(day * DAY_S, 7)
    assert len(arrivals.hours) == KEPT_H
    arrivals.add(1000 * DAY_S, 3)
    assert sum(arrivals.hours) == 3 and len(arrivals.hours) == KEPT_H
    assert arrivals.around(2000 * DAY_S) is None


# ── the end of a finding ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_rate_that_returns_resolves_and_a_second_break_is_found_again() -> None:
    levels = judge(stream(16, {5: 0.08, 8: 0.0, 13: 0.08}, seed=7))
    phases = [(level, [day_of(ts) for ts, _ in group]) for level, group in groupby(levels, lambda x: x[1].level)]
    found = [days for level, days in phases if level == "alert"]
    assert len(found) == 2
    assert 5 < found[0][0] < 6 and 8 < found[0][-1] < 10
    assert 13 < found[1][0] < 14


def test_a_level_that_stays_becomes_normal_and_is_watched_in_turn() -> None:
    levels = judge(stream(20, {4: 0.12, 15: 0.18}, seed=8), accept_after_s=5 * DAY_S)
    days = [day for day, _ in alerts(levels)]
    assert not [day for day in days if 9.6 < day < 15]
    second = next(verdict for day, verdict in alerts(levels) if day > 15)
    assert second.before == pytest.approx(0.18, abs=0.03)


def test_warms_up_over_event_time_and_counts() -> None:
    flood = [Bucket(START_S + i, 10.0, "compare", {"soon": 30, "not_soon": 70}) for i in range(1000)]
    assert {verdict.level for _, verdict in judge(flood)} == {"warming"}


def test_late_stages_are_not_its_business() -> None:
    detector = EarlyDropoff(build_params(EarlyDropoff))  # type: ignore[arg-type]
    assert detector.look(Bucket(0.0, 10.0, "buy", {"soon": 1, "entered": 2}), detector.params) is None
    assert detector.look(Bucket(0.0, 10.0, "compare", {"open_15": 4}), detector.params) is None
    assert detector.look(Bucket(0.0, 10.0, "compare", {"entered": 4}), detector.params) is not None
