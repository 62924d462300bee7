"""The model of hesitation: exact over restarts, useful, and no enemy of long reading."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from detectors._step_model import FEATURES, StepModel, StepModelParams, step_features
from detectors.hesitation import SIGNALS

Step = tuple[dict[str, float], bool, float]


def steps(n: int, seed: int, signal_effect: float = 1.5) -> list[Step]:
    """Steps whose micro-signals keep people from advancing, and whose dwell does not matter."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        dwell_s = rng.lognormvariate(3.5, 1.0)
        shown = {name for name in SIGNALS if rng.random() < 0.08}
        features = step_features(dwell_s, rng.randint(1, 12), rng.randint(1, 4), shown, rng.uniform(0, 20))
        p = 1 / (1 + math.exp(0.8 - signal_effect * len(shown)))
        out.append((features, rng.random() >= p, dwell_s))
    return out


def play(model: StepModel, stream: list[Step]) -> list[tuple[float, bool, float, float]]:
    out = []
    for features, advanced, dwell_s in stream:
        p = model.probability(features)
        out.append((p, model.is_hesitant(p, dwell_s), model.gain, model.auc))
        model.learn(features, advanced)
    return out


@pytest.mark.parametrize("stop", [0, 1, 999, 1000])
def test_restored_in_the_middle_it_is_the_same_to_the_last_bit(stop: int) -> None:
    stream = steps(2000, seed=1)
    whole, first, second = StepModel(), StepModel(), StepModel()
    expected = play(whole, stream)
    got = play(first, stream[:stop])
    second.restore(first.snapshot())
    assert got + play(second, stream[stop:]) == expected
    assert second.snapshot() == whole.snapshot()


def test_learns_what_keeps_people_from_advancing() -> None:
    model = StepModel()
    play(model, steps(4000, seed=2))
    assert model.auc > 0.65
    assert model.gain > 0.03


def test_calls_stuck_people_hesitant_and_long_readers_not() -> None:
    model = StepModel()
    play(model, steps(4000, seed=3))
    stuck = step_features(60.0, 6, 2, {"rage_click", "field_return"}, 5.0)
    reader = step_features(600.0, 6, 2, set(), 5.0)
    assert model.is_hesitant(model.probability(stuck), 60.0)
    assert not model.is_hesitant(model.probability(reader), 600.0)
    assert not model.is_hesitant(model.probability(stuck), 1.0), "nobody is hesitant in the first second"


def test_spares_most_who_advance() -> None:
    model = StepModel()
    stream = steps(6000, seed=4)
    calls = [call for _, call, _, _ in play(model, stream)]
    late = [(call, advanced) for call, (_, advanced, _) in zip(calls, stream, strict=True)][2000:]
    wrong = sum(call for call, advanced in late if advanced) / sum(advanced for _, advanced in late)
    assert 0.03 < wrong < 0.15


@pytest.mark.parametrize("effect", [1.5, 0.0])
def test_says_nothing_before_it_knows_anything(effect: float) -> None:
    stream = steps(3000, seed=5, signal_effect=effect)
    calls = [call for _, call, _, _ in play(StepModel(StepModelParams(min_looks=700)), stream)]
    assert not any(calls[:700])
    assert any(calls) == (effect > 0)


def test_state_stays_small() -> None:
    model = StepModel()
    play(model, steps(500, seed=6))
    small = len(model.snapshot())
    play(model, steps(3000, seed=7))
    assert len(model.snapshot()) <= small + 64 <= 4096
    with pytest.raises(msgspec.DecodeError):
        model.restore(b"\x81\xa5looks\xa1x")


def test_features_keep_their_order() -> None:
    assert tuple(step_features(1.0, 1, 1, {"u_turn"}, 0.0)) == FEATURES
