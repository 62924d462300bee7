"""Novelty: strange behaviour is seen at once, ordinary people are left alone, and the state is exact and bounded."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from detectors._base import Bucket
from detectors._novelty import BINS, MAGNITUDES, MOST_STEPS, PAIRS, Novelty, NoveltyState
from detectors._registry import build_params
from detectors._step_model import step_features
from detectors.hesitation import SIGNALS, Hesitation

FLAGS = len(SIGNALS)


def ordinary(rng: random.Random) -> list[float]:
    """A step of a shop: dwell, pages and clicks go together; now and then a signal."""
    dwell_s = rng.lognormvariate(3.5, 0.9)
    views = 1 + min(int(dwell_s / 40 * rng.random()), 5)
    clicks = min(int(dwell_s / 15 * rng.random()), 8)
    acts = rng.choice((0, 0, 0, 1, 2))
    shown = {name for name in SIGNALS[:5] if rng.random() < 0.02}
    revisits = 2 if "page_loop" in shown else int(rng.random() < 0.1)
    return step_features(dwell_s, views + clicks + acts + int(dwell_s / 30), views, revisits, clicks, acts, shown)


STRANGE = {
    "a machine": step_features(2.0, 60, 1, 0, 55, 0),
    "a form that fights back": step_features(90.0, 40, 1, 0, 3, 30, {"field_return"}),
    "round and round": step_features(80.0, 14, 10, 8, 2, 0),
    "staring": step_features(900.0, 3, 1, 0, 0, 0),
    "everything at once": step_features(60.0, 20, 2, 0, 12, 1, {"rage_click", "dead_click", "error_click"}),
    "a signal never seen here": step_features(40.0, 6, 2, 0, 2, 1, {"compare_loop"}),
    "clicks without time": step_features(6.0, 12, 1, 0, 10, 1),
}


def taught(steps: int, seed: int, first: int = 500) -> Novelty:
    novelty, rng = Novelty(0.01, first, FLAGS), random.Random(seed)
    for _ in range(steps):
        novelty.weigh(ordinary(rng))
    return novelty


@pytest.mark.parametrize("name", STRANGE)
def test_what_nobody_did_before_is_novel(name: str) -> None:
    found = [taught(2000, seed).weigh(STRANGE[name]) for seed in range(8)]
    assert sum(map(bool, found)) >= 6


def test_ordinary_people_are_rarely_called_novel() -> None:
    shares = []
    for seed in range(8):
        novelty, rng = taught(2000, seed), random.Random(seed + 100)
        shares.append(sum(novelty.weigh(ordinary(rng)) is True for _ in range(3000)) / 3000)
    assert sum(shares) / len(shares) < 0.015
    assert max(shares) < 0.03


def test_says_nothing_until_a_limit_has_been_set_on_other_steps_than_it_learnt_from() -> None:
    novelty, rng = Novelty(0.01, 300, FLAGS), random.Random(1)
    said = [novelty.weigh(ordinary(rng)) for _ in range(700)]
    assert said[:600] == [None] * 600
    assert None not in said[600:]


def test_what_is_new_stays_new_for_as_long_as_the_past_was_and_then_is_known() -> None:
    """A tenth of the people take a new path from step 8,000 on."""
    novelty, rng = taught(8000, 3), random.Random(4)
    new = STRANGE["round and round"]
    flagged = [novelty.weigh(new) for i in range(60_000) if not i % 10 or novelty.weigh(ordinary(rng)) is None]
    half = len(flagged) // 15
    assert sum(map(bool, flagged[:half])) / half > 0.95
    assert not any(flagged[-half:])


def test_a_density_that_replaces_another_calls_no_more_people_novel() -> None:
    """Else a renewal would look like a change of people."""
    for seed in range(5):
        novelty, rng, said = Novelty(0.01, 400, FLAGS), random.Random(seed), list[bool]()
        for _ in range(40_000):
            novel = novelty.weigh(ordinary(rng))
            if novel is not None:
                said.append(novel)
        early, late = sum(said[:4000]) / 4000, sum(said[-20_000:]) / 20_000
        assert late <= early + 3 * math.sqrt(0.01 / 4000)
        assert novelty.state.size == MOST_STEPS


@pytest.mark.parametrize("stop", [0, 1, 299, 300, 450, 599, 600, 1300, 2100])
def test_restored_in_the_middle_it_is_the_same_to_the_last_bit(stop: int) -> None:
    rng = random.Random(5)
    stream = [ordinary(rng) if rng.random() < 0.95 else rng.choice(list(STRANGE.values())) for _ in range(3000)]
    whole, first = (Novelty(0.02, 300, FLAGS) for _ in range(2))
    expected = [whole.weigh(step) for step in stream]
    got = [first.weigh(step) for step in stream[:stop]]
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=NoveltyState)
    second = Novelty(0.02, 300, FLAGS, state)
    assert got + [second.weigh(step) for step in stream[stop:]] == expected
    assert msgspec.msgpack.encode(second.state) == msgspec.msgpack.encode(whole.state)
    assert any(expected)


def test_state_is_bounded_whatever_comes() -> None:
    novelty, rng = Novelty(0.01, 1000, FLAGS), random.Random(6)
    for _ in range(20_000):
        wild = [rng.uniform(0.0, 1e3 if rng.random() < 0.1 else 12.0) for _ in range(MAGNITUDES)]
        novelty.weigh([*wild, *(float(rng.random() < 0.5) for _ in range(FLAGS))])
    most = len(PAIRS) * BINS * BINS + FLAGS * BINS + 2**FLAGS
    assert novelty.state.known is not None
    assert len(novelty.state.known.cells) <= most
    ordinary_size = len(msgspec.msgpack.encode(taught(20_000, 7).state))
    assert ordinary_size < 8192


def test_a_new_path_is_found_by_the_detector_and_named() -> None:
    """4 % of the people begin to go round and round on day 8; no signal, no outcome says so."""
    novelty, rng = Novelty(0.01, 500, FLAGS), random.Random(8)
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    told = []
    for i in range(12 * 1440):
        ts, lost = 1.7e9 + i * 60.0, i >= 8 * 1440 and rng.random() < 0.04
        novel = novelty.weigh(STRANGE["round and round"] if lost else ordinary(rng))
        x = detector.look(
            Bucket(ts, 10.0, "decide", {} if novel is None else {"weighed": 1, "novel": int(novel)}), detector.params
        )
        if x is not None and (verdict := detector.observe(x)).level == "alert":
            told.append((i / 1440, verdict))
    assert told and 8 < told[0][0] < 9.5
    verdict = told[-1][1]
    assert verdict.kind == "novelty"
    assert verdict.after > 2.5 * verdict.before
    assert verdict.evidence["extra_novel"] > 50
