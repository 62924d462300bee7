"""Follow-up decay: fewer touched, or later, and no weekend is one."""

from __future__ import annotations

import random
from statistics import median
from typing import NamedTuple

import pytest

from detectors._base import Bucket
from detectors.follow_up_decay import FollowUpDecay
from tests.detectors.slow_kit import DAY_S, HOUR_S, START_S, alerts, in_buckets, times, weekday_of

CHANGE_DAY = 42
ONSET_S = START_S + CHANGE_DAY * DAY_S
SEEDS = range(300, 320)


class World(NamedTuple):
    """How sales is from `CHANGE_DAY` on: hours of work until a lead is called, on average; share that is called."""

    wait_h: float = 2.0
    called: float = 0.9
    volume: float = 1.0


NORMAL = World()


def worked(ts: float, work_h: float) -> float:
    """The time when so many hours of work have passed, from Monday to Friday, 8 to 17 UTC."""
    while True:
        opens, closes = ts // DAY_S * DAY_S + 8 * HOUR_S, ts // DAY_S * DAY_S + 17 * HOUR_S
        if weekday_of(ts) < 5 and ts < closes:
            ts = max(ts, opens)
            if ts + work_h * HOUR_S <= closes:
                return ts + work_h * HOUR_S
            work_h -= (closes - ts) / HOUR_S
        ts = closes + 7 * HOUR_S


def stream(
    days: int, per_day: float, world: World, seed: int, marks: tuple[str, ...] = ("1h", "4h", "24h", "48h")
) -> list[Bucket]:
    """Leads handed over through the week; one of 20 is rejected without a call, after a day."""
    rng = random.Random(seed)
    found: list[tuple[float, dict[str, int]]] = []
    for ts in times(days, per_day, rng, lambda ts: world.volume if ts >= ONSET_S else 1.0):
        now = world if ts >= ONSET_S else NORMAL
        called = worked(ts, rng.expovariate(1.0 / now.wait_h)) if rng.random() < now.called else float("inf")
        closed = ts + DAY_S if rng.random() < 0.05 else float("inf")
        for mark in marks:
            at = ts + (float(mark[:-1]) if mark else 48.0) * HOUR_S
            if min(called, at) <= closed:
                field = f"touch_{mark}_" if mark else "touch_"
                found.append((at, {f"{field}n": 1, f"{field}k": int(called <= at)}))
    return in_buckets("leads", found)


def quiet() -> list[Bucket]:
    return stream(30, 40, NORMAL, seed=51)


def firing() -> tuple[list[Bucket], float]:
    return stream(49, 100, World(wait_h=9.0, called=0.5), seed=53), ONSET_S


@pytest.mark.parametrize(("per_day", "volume"), [(40, 1.0), (40, 2.5)])
def test_weekends_and_seasons_are_quiet_over_sixty_days(per_day: float, volume: float) -> None:
    found = {seed: alerts(FollowUpDecay, stream(60, per_day, World(volume=volume), seed))[:1] for seed in SEEDS}
    # One false alarm in 10,000 looks, three a day, at each of four marks: 1.1 expected of 20 runs. Measured: 1, and 5
    # where 100 leads a day are judged by what was learnt of 40 a day: there the baseline knows less than it believes.
    assert sum(map(bool, found.values())) <= (5 if volume > 1.0 else 2), found


def test_later_calls_are_found_with_their_median() -> None:
    delays = []
    for seed in SEEDS:
        found = [each for each in alerts(FollowUpDecay, stream(60, 60, World(wait_h=5.0), seed)) if each[0] > ONSET_S]
        assert found, seed
        delays.append((found[0][0] - ONSET_S) / DAY_S)
        evidence = found[-1][1].evidence
        assert evidence["touched_4h_after"] < evidence["touched_4h_before"]
        assert evidence["median_touch_h_after"] > evidence["median_touch_h_before"]
        assert sum(name.startswith("seen_") for name in evidence) == 1
    print(f"follow_up_decay 2 h to 5 h of work, 60 leads a day: median {median(delays):.1f} days")
    assert median(delays) <= 10.0


def test_leads_that_nobody_calls_are_beyond_the_last_mark() -> None:
    last = alerts(FollowUpDecay, stream(56, 80, World(called=0.35), seed=321))[-1][1]
    assert last.evidence["median_beyond_48h_after"] == 1.0
    assert "median_touch_h_after" not in last.evidence and last.evidence["median_touch_h_before"] < 48.0
    assert (last.kind, last.after < last.before) == ("", True)


def test_without_marks_the_one_horizon_is_asked() -> None:
    first = alerts(FollowUpDecay, stream(60, 80, World(called=0.5), seed=322, marks=("",)))[0][1]
    assert first.evidence["seen_touch"] == 1.0 and first.evidence["lag_s"] == 2 * DAY_S
    assert first.onset == pytest.approx(ONSET_S, abs=2 * DAY_S), "in time of hand-over"


def test_with_marks_the_one_horizon_is_left_alone() -> None:
    both = stream(20, 40, NORMAL, 323, marks=("1h", "4h", "24h", "48h", ""))
    made = FollowUpDecay(FollowUpDecay.Params())
    for bucket in both:
        if (x := made.look(bucket, made.params)) is not None:
            made.observe(x)
    assert made.state.at[-1] == 0.0 < made.state.at[0]
