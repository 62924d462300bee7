"""False engagement: fires when longer stays bring nothing, not when they bring advances, nor on cycles and seasons."""

from __future__ import annotations

import pytest

from detectors._base import Bucket
from detectors.false_engagement import FalseEngagement, FalseEngagementParams
from streams.findings import summarise
from tests.journey_kit import DAY_S, START_S, World, alerts, begun, judge, moved, one, since

STAGE = "evaluate"
AT = 21
HELD_UP = World(stay=since(AT, 1.6))
"""Of those who advance and of those who do not, more stay long; as many advance as before."""


def quiet() -> list[Bucket]:
    return one(World(wobble=0.03), 42, 101, STAGE)


def firing() -> tuple[list[Bucket], float]:
    return one(HELD_UP, 32, 202, STAGE), START_S + AT * DAY_S


@pytest.mark.parametrize("seed", range(3))
def test_longer_stays_that_bring_nothing_are_found_within_days(seed: int) -> None:
    found = begun(judge(FalseEngagement, one(HELD_UP, 32, seed, STAGE)))
    assert len(found) == 1
    assert AT < found[0][0] <= AT + 6
    assert {verdict.direction for _, verdict in found} == {"worse"}


def test_evidence_tells_the_advance_rate_and_people() -> None:
    buckets = firing()[0]
    last = judge(FalseEngagement, buckets)[-1][1]
    assert last.level == "alert" and last.after > last.before
    numbers = last.evidence
    assert numbers["advance_before_low"] < numbers["advance_before"] < numbers["advance_before_high"]
    assert numbers["advance_after"] == pytest.approx(numbers["advance_before"], abs=0.02)
    days = [b for b in buckets if b.ts >= START_S + AT * DAY_S][: int(numbers["days"]) * 24]
    stuck = sum(b.counts["long_no"] for b in days)
    usual = sum(b.counts["not_at_all"] for b in days) * 0.20
    assert numbers["stayed_without_advancing"] == pytest.approx(stuck - usual, rel=0.2)
    assert numbers["extra_long"] > numbers["stayed_without_advancing"]
    told = summarise("False engagement", last, {"stage": STAGE}, "ratio", "2023-12-04T00:00:00Z")
    assert told.startswith("False engagement at evaluate: 2") and ", worse, on " in told


@pytest.mark.parametrize("seed", range(3))
def test_interest_is_no_finding(seed: int) -> None:
    """The same longer stays, and those who stay longer get on: the advance rate rises with the long share."""
    rise = World(stay=since(AT, 1.6), advance=since(AT, 1.45))
    told = judge(FalseEngagement, one(rise, 45, seed, STAGE))
    assert not alerts(told)


def test_longer_stays_while_fewer_advance_are_one_too() -> None:
    both = World(stay=since(AT, 1.6), advance=since(AT, 0.85))
    found = begun(judge(FalseEngagement, one(both, 32, 3, STAGE)))
    assert found and found[0][1].evidence["advance_after"] < found[0][1].evidence["advance_before"]


def test_shorter_stays_and_a_fall_alone_are_none() -> None:
    for world in (World(stay=since(AT, 0.6)), World(advance=since(AT, 0.7))):
        assert not alerts(judge(FalseEngagement, one(world, 35, 4, STAGE)))


def test_a_season_is_none() -> None:
    """Over ten weeks a fifth more stay long, and more advance."""
    season = World(
        stay=lambda day, _: 1.0 + 0.3 * day / 70, advance=lambda day, _: 1.0 + 0.25 * day / 70,
        come=lambda day, _: 1.0 + 0.5 * day / 70,
    )  # fmt: skip
    assert not alerts(judge(FalseEngagement, one(season, 70, 5, STAGE)))


def test_it_ends_when_stays_are_as_before_and_what_lasts_becomes_normal() -> None:
    over = World(stay=lambda day, _: 1.6 if AT <= day < AT + 8 else 1.0)
    found = alerts(judge(FalseEngagement, one(over, 45, 6, STAGE)))
    assert found[0][0] < AT + 8 <= found[-1][0] < AT + 14
    lasting = alerts(judge(FalseEngagement, one(HELD_UP, 70, 7, STAGE)))
    assert AT + 28 < lasting[-1][0] < AT + 38


def test_other_stages_and_empty_buckets_are_not_its_business() -> None:
    detector = FalseEngagement(FalseEngagementParams(stages=("buy",)))
    counts = {"at_all": 3, "not_at_all": 4, "long_yes": 1, "long_no": 2}
    assert detector.look(Bucket(0.0, 10.0, "evaluate", counts), detector.params) is None
    assert detector.look(Bucket(0.0, 10.0, "buy", {"entered": 3}), detector.params) is None
    x = detector.look(Bucket(0.0, 10.0, "buy", counts), detector.params)
    assert x is not None and x.views == {"": (3, 7, 3, 2)}
    assert detector.look(Bucket(0.0, 10.0, "journey", counts), FalseEngagementParams()) is None
    assert moved(0.5, 1.0) == 0.5
