"""False engagement: found where long dwell hurts, not where it does not."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from detectors._engagement import BINS, GROUPS, Engagement, EngagementParams, EngagementState

Rate = Callable[[float, int], float]


def fed(rate: Rate, seed: int, count: int = 12_000) -> tuple[Engagement, int | None]:
    """The measure after so many cases a minute apart, dwell around 27 s, and the case at which it found something."""
    rng, measure, found = random.Random(seed), Engagement(EngagementParams()), None
    for i in range(count):
        dwell_s = rng.lognormvariate(3.3, 0.9)
        measure.learn(i * 60.0, dwell_s, rng.random() < rate(dwell_s, i))
        if found is None and measure.found:
            found = i
    return measure, found


def stuck(dwell_s: float, _: int) -> float:
    """Progress rises with dwell up to a point and falls after it."""
    return 0.13 if dwell_s > 86 else 0.25 if dwell_s > 35 else 0.12


def test_progress_that_falls_where_dwell_is_longest_is_found() -> None:
    found = [fed(stuck, seed)[1] for seed in range(5)]
    assert all(at is not None and at > 1000 for at in found)


@pytest.mark.parametrize(
    "rate",
    [
        pytest.param(lambda dwell_s, _: 0.15, id="dwell says nothing"),
        pytest.param(lambda dwell_s, _: min(0.3, 0.03 * dwell_s**0.5), id="longer is better"),
        pytest.param(lambda dwell_s, _: min(0.2, 0.01 * dwell_s), id="longer is better up to a point, then the same"),
        pytest.param(lambda dwell_s, i: 0.1 + 0.2 * (i > 6000), id="everything gets better one day"),
    ],
)
def test_nothing_is_found_where_dwell_does_not_hurt(rate: Rate) -> None:
    assert sum(fed(rate, seed, 8000)[1] is not None for seed in range(6)) <= 1


def test_it_ends_when_long_dwell_hurts_no_more() -> None:
    measure, found = fed(lambda dwell_s, i: stuck(dwell_s, i) if i < 10_000 else 0.25, seed=2, count=30_000)
    assert found is not None and found < 10_000
    assert not measure.found


def test_groups_are_tenths_with_honest_intervals() -> None:
    measure, _ = fed(stuck, seed=1)
    groups = measure.groups()
    total = sum(group.n for group in groups)
    assert len(groups) == GROUPS
    assert all(0.05 < group.n / total < 0.15 for group in groups)
    assert [group.longest_s for group in groups] == sorted(group.longest_s for group in groups)
    assert all(group.low < group.rate < group.high for group in groups)
    assert groups[-1].high < groups[measure.peak].low
    assert measure.peak in range(5, 9)


def test_counts_of_a_bucket_say_what_single_cases_say() -> None:
    rng, one, other = random.Random(5), Engagement(EngagementParams()), Engagement(EngagementParams())
    for i in range(3000):
        dwell_s, progressed = rng.lognormvariate(3.3, 0.9), rng.random() < 0.2
        one.learn(i * 60.0, dwell_s, progressed)
        other.observe(i * 60.0, ((Engagement.bin_of(dwell_s), 1, int(progressed)),))
    assert one.state == other.state


@pytest.mark.parametrize(("dwell_s", "b"), [(-1.0, 0), (0.0, 0), (0.25, 0), (0.5, 8), (1.0, 16), (1e9, BINS - 1)])
def test_every_dwell_has_a_bin(dwell_s: float, b: int) -> None:
    assert Engagement.bin_of(dwell_s) == b


def test_a_restored_state_goes_on_alike() -> None:
    measure, _ = fed(stuck, seed=3, count=4000)
    blob = msgspec.msgpack.encode(measure.state)
    again = Engagement(EngagementParams(), msgspec.msgpack.decode(blob, type=EngagementState))
    for made in (measure, again):
        for i in range(2000):
            made.learn((4000 + i) * 60.0, 1.0 + i % 200, i % 7 == 0)
    assert msgspec.msgpack.encode(measure.state) == msgspec.msgpack.encode(again.state)


def test_state_is_bounded_and_of_one_shape() -> None:
    few, many = fed(stuck, seed=4, count=1500)[0], fed(stuck, seed=4, count=15_000)[0]
    sizes = [len(msgspec.msgpack.encode(made.state)) for made in (few, many)]
    assert max(sizes) < 4096 and abs(sizes[0] - sizes[1]) < 64


def test_the_state_of_something_else_is_refused() -> None:
    state = EngagementState.of()
    state.group = [0] * 3
    with pytest.raises(msgspec.ValidationError):
        Engagement(EngagementParams(), state)
