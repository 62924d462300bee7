"""Did it help: actions that work are told from those that do nothing and from a season, however often one looks."""

from __future__ import annotations

from math import cos, exp, pi

import msgspec
import numpy as np
import pytest

from detectors._registry import discover
from streams.findings import Finding
from streams.frames import Segment
from streams.recovery import Estimate, Recovery, rates_of

HOUR = 3600.0
MOBILE: Segment = (("device", "mobile"),)
NOTICED, ACTED, END = 24 * 6, 24 * 8, 24 * 13
LOST = -0.45
DETECTORS = {name: cls for name, cls in discover().items() if name in ("early_dropoff", "hesitation")}


def finding(k: int, n: int, segment: Segment = MOBILE) -> Finding:
    return Finding(
        id="f1", detector="early_dropoff", kind="early_dropoff", segment={"stage": "evaluate", **dict(segment)},
        direction="worse", level="alert", onset="", detected_at="", before=0.4, after=k / n, unit="ratio",
        n_before=20_000, n_after=n, score=1.0, owner="", summary="", evidence={"seen_at_all": 1.0},
    )  # fmt: skip


def chance(hour: int, shift: float) -> float:
    x = -0.405 + 0.3 * cos(2 * pi * hour / 24) + shift
    return 1 / (1 + exp(-x))


class Story:
    """Mobile erodes at day 5, is noticed a day later, and something is done two days after that.

    Args:
        seed: of its people.
        back: log odds that come back for mobile through the action.
        season: log odds that come for everyone at the same time.
        per_hour: steps of mobile an hour; the rest is three times as many.
    """

    def __init__(self, seed: int, back: float, season: float, per_hour: float = 60.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.back, self.season, self.per_hour = back, season, per_hour
        self.recovery = Recovery(DETECTORS)
        self.since_onset = [0, 0]

    def hour(self, hour: int) -> None:
        for_all = self.season if hour >= ACTED else 0.0
        own = for_all + (LOST if hour >= 24 * 5 else 0.0) + (self.back if hour >= ACTED else 0.0)
        n, rest_n = (int(self.rng.poisson(self.per_hour * size)) for size in (1, 3))
        k, rest_k = (
            int(self.rng.binomial(*each)) for each in ((n, chance(hour, own)), (rest_n, chance(hour, for_all)))
        )
        if 24 * 5 <= hour < NOTICED:
            self.since_onset[0] += k
            self.since_onset[1] += n
        for segment, hits, trials in (((), k + rest_k, n + rest_n), (MOBILE, k, n)):
            counts = {"at_all": hits, "not_at_all": trials - hits}
            self.recovery.observe(hour * HOUR, "evaluate", segment, counts)

    def run(self, since: int = 0, until: int = END) -> list[Estimate]:
        told = []
        for hour in range(since, until):
            self.hour(hour)
            if hour == NOTICED - 1:
                self.recovery.watch(finding(self.since_onset[0], self.since_onset[1]), 24 * 5 * HOUR, NOTICED * HOUR)
            if hour == ACTED - 1:
                self.recovery.act("f1", ACTED * HOUR)
            estimate = self.recovery.estimate("f1", (hour + 1) * HOUR)
            if estimate is not None:
                told.append(estimate)
        return told


def shares(back: float, season: float, first: int, seeds: int = 100) -> tuple[list[list[Estimate]], dict[str, int]]:
    runs = [Story(first + seed, back, season).run() for seed in range(seeds)]
    said = {
        state: sum(any(one.state == state for one in run) for run in runs) for state in ("helped", "worse", "no_effect")
    }
    return runs, said


def test_an_action_that_brings_half_back_is_found_with_its_size() -> None:
    runs, said = shares(-LOST / 2, 0.0, 1000)
    last = [run[-1] for run in runs]
    assert said["helped"] >= 75 and said["worse"] == 0
    assert np.median([one.share for one in last]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([one.low <= 0.5 <= one.high for one in last]) >= 0.95
    assert np.median([one.regained or 0.0 for one in last]) == pytest.approx(5 * 24 * 60 * 0.05, rel=0.25)


def test_an_action_that_does_nothing_is_not_called_helpful_at_any_hour() -> None:
    _, said = shares(0.0, 0.0, 2000)
    assert said["helped"] <= 5 and said["worse"] <= 5 and said["no_effect"] >= 60


def test_a_season_that_comes_at_the_same_time_is_not_called_helpful() -> None:
    runs, said = shares(0.0, 0.3, 3000)
    assert said["helped"] <= 5 and said["worse"] <= 5
    assert abs(np.median([run[-1].share for run in runs])) < 0.1


def test_an_action_that_makes_it_worse_is_told_so() -> None:
    _, said = shares(-0.35, 0.0, 4000, seeds=20)
    assert said["worse"] >= 17 and said["helped"] == 0


def test_it_says_nothing_too_early_and_nothing_without_an_action() -> None:
    story = Story(5, -LOST, 0.0)
    told = story.run(until=ACTED + 5)
    assert told and all(one.state == "too_early" and one.evidence == {} for one in told)
    idle = Story(5, 0.0, 0.0)
    for hour in range(NOTICED):
        idle.hour(hour)
    assert idle.recovery.estimate("f1", NOTICED * HOUR) is None
    idle.recovery.watch(finding(idle.since_onset[0], idle.since_onset[1]), 24 * 5 * HOUR, NOTICED * HOUR)
    assert idle.recovery.estimate("f1", NOTICED * HOUR) is None


def test_the_finding_gets_numbers_and_a_sentence() -> None:
    last = Story(6, -LOST, 0.0).run()[-1]
    assert last.state == "helped" and last.controlled
    assert set(last.evidence) == {"helped_share", "helped_low", "helped_high", "p_helped", "regained"}
    assert last.evidence["helped_low"] < last.share < last.evidence["helped_high"] and last.p_helped > 0.99
    assert last.summary.startswith("It helped: ") and "people more, against the rest of the company" in last.summary


def test_for_everyone_other_stages_stand_in_for_the_rest() -> None:
    rng, recovery = np.random.default_rng(7), Recovery(DETECTORS)
    alone = Recovery(DETECTORS)
    for hour in range(24 * 6):
        late = 0.3 if hour >= 24 * 3 else 0.0
        for stage in ("evaluate", "compare"):
            k = int(rng.binomial(300, chance(hour, late + (LOST if stage == "evaluate" else 0.0))))
            recovery.observe(hour * HOUR, stage, (), {"at_all": k, "not_at_all": 300 - k})
            if stage == "evaluate":
                alone.observe(hour * HOUR, stage, (), {"at_all": k, "not_at_all": 300 - k})
        if hour == 20:
            for one in (recovery, alone):
                one.watch(finding(300, 1000, ()), 0.0, hour * HOUR)
                one.act("f1", 24 * 3 * HOUR)
    with_rest, without = (one.estimate("f1", 24 * 6 * HOUR) for one in (recovery, alone))
    assert with_rest is not None and with_rest.controlled and abs(with_rest.share) < 0.3
    assert with_rest.state != "helped"
    assert without is not None and not without.controlled and "a season looks the same" in without.summary


def test_fewer_than_five_are_not_told() -> None:
    recovery = Recovery(DETECTORS)
    for hour in range(60):
        for segment, k, n in (((), 40, 100), (MOBILE, (hour in (30, 40)) if hour >= 24 else 5, 20)):
            recovery.observe(hour * HOUR, "evaluate", segment, {"at_all": k, "not_at_all": n - k})
        if hour == 2:
            recovery.watch(finding(100, 400), 0.0, hour * HOUR)
            recovery.act("f1", 24 * HOUR)
    told = recovery.estimate("f1", 60 * HOUR)
    assert told is not None and told.state == "worse" and told.regained is None and "regained" not in told.evidence


def test_memory_is_bounded_and_a_snapshot_changes_nothing() -> None:
    story, twin = Story(8, 0.2, 0.0), Story(8, 0.2, 0.0)
    first, again = story.run(), []
    for since in range(0, END, 48):
        again += twin.run(since, min(since + 48, END))
        restored = Recovery(DETECTORS)
        restored.restore(twin.recovery.snapshot())
        twin.recovery = restored
    assert first == again and story.recovery.snapshot() == twin.recovery.snapshot()
    story.recovery.end("f1")
    size = 0
    for hour in range(END, END + 24 * 60):
        story.hour(hour)
        if hour == END + 24 * 20:
            size = len(story.recovery.snapshot())
    assert len(story.recovery.snapshot()) <= size + 100
    assert story.recovery.estimate("f1", END * HOUR) is None
    with pytest.raises(msgspec.DecodeError):
        Recovery(DETECTORS).restore(b"\x01")


def test_rates_come_from_the_detectors() -> None:
    found = {(rate.detector, rate.kind): rate for rate in rates_of(discover())}
    dropoff = found["early_dropoff", "at_all"]
    assert (dropoff.hits, dropoff.trials, dropoff.worse) == (("at_all",), ("at_all", "not_at_all"), "down")
    assert found["hesitation", "micro_signals"].worse == "up"
