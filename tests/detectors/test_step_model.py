"""The model of hesitation: exact over restarts, useful, calibrated, no enemy of long reading, steady in its calls."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import chain

import msgspec
import pytest

from detectors._base import Bucket
from detectors._frozen import NOTHING, Rule, Tally, Trial, sigmoid
from detectors._registry import build_params
from detectors._step_model import FEATURES, StepModel, StepModelParams, step_features
from detectors.hesitation import SIGNALS, Hesitation

Look = list[float]
Step = tuple[list[Look], bool]
QUICK = StepModelParams(min_looks=200, trial_steps=300, novel_steps=200)


def steps(n: int, seed: int, signal_effect: float = 1.5) -> list[Step]:
    """Steps whose micro-signals keep people from advancing, and whose dwell does not matter."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        shown = {name for name in SIGNALS if rng.random() < 0.08}
        features = step_features(rng.lognormvariate(3.5, 1.0), rng.randint(1, 12), rng.randint(1, 4), 0, 0, 0, shown)
        p = sigmoid(-0.8 + signal_effect * len(shown))
        out.append(([features], rng.random() >= p))
    return out


def moods(n: int, seed: int, stuck: float = 0.12) -> Iterator[Step]:
    """Three moods: smooth and short; reading, long, which leads on; stuck, long too but in circles, which does not.

    A step is looked at when 15, 30, 60, 120 and 300 s have passed, as sessionize does.
    """
    rng = random.Random(seed)
    for _ in range(n):
        chance = rng.random()
        mood = "stuck" if chance < stuck else "reading" if chance > 0.8 else "smooth"
        dwell_s = rng.lognormvariate(math.log({"smooth": 25.0, "reading": 120.0, "stuck": 90.0}[mood]), 0.6)
        looks = []
        for mark in (15, 30, 60, 120, 300):
            if mark > dwell_s:
                break
            circles = round(mark / 20) if mood == "stuck" else 0
            shown = {"page_loop"} if circles > 2 else set()
            looks.append(step_features(mark - 1.0, 2 + mark // 10 + circles, 1 + circles, circles, circles, 0, shown))
        p_advance = {"smooth": 0.5, "reading": 0.75, "stuck": 0.2}[mood]
        yield looks, rng.random() < p_advance


def play(model: StepModel, stream: list[Step]) -> list[tuple[float, bool, bool | None, float, float, float]]:
    out = []
    for looks, advanced in stream:
        for features in looks:
            said = model.probability(features), model.is_hesitant(features)
            out.append((*said, model.weigh(features), model.gain, model.auc, model.calibration_error))
        model.learn(looks, advanced)
    return out


def called(model: StepModel, looks: list[Look]) -> bool:
    return any(model.is_hesitant(features) for features in looks)


# ── exactness ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stop", [0, 1, 150, 250, 399, 400, 700, 1200])
def test_restored_in_the_middle_it_is_the_same_to_the_last_bit(stop: int) -> None:
    """While it learns, is tried, is in force, is tried again."""
    stream = [*steps(900, seed=1), *moods(900, seed=1)]
    whole, first, second = StepModel(QUICK), StepModel(QUICK), StepModel(QUICK)
    expected = play(whole, stream)
    got = play(first, stream[:stop])
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    assert got + play(second, stream[stop:]) == expected
    assert second.snapshot() == whole.snapshot()
    assert whole.ready and any(novel for _, _, novel, *_ in expected)


def test_state_stays_small() -> None:
    model = StepModel(QUICK)
    play(model, steps(2000, seed=6))
    small = len(model.snapshot())
    play(model, list(moods(6000, seed=7)))
    assert small <= 16_384 and len(model.snapshot()) <= 16_384
    with pytest.raises(msgspec.DecodeError):
        model.restore(b"\x81\xa5looks\xa1x")


def test_features_keep_their_order() -> None:
    features = dict(zip(FEATURES, step_features(math.e - 1, 1, 2, 3, 4, 5, {"u_turn"}), strict=True))
    assert list(features) == list(FEATURES)
    assert features["log_dwell"] == pytest.approx(1.0) and features["log_acts"] == pytest.approx(math.log(6))
    assert [name for name in SIGNALS if features[name]] == ["u_turn"]


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_learns_what_keeps_people_from_advancing() -> None:
    model = StepModel()
    play(model, steps(5000, seed=2))
    assert model.ready
    assert model.auc > 0.65
    assert model.gain > 0.03
    assert model.lift > 0.2


def test_what_it_says_comes_true() -> None:
    """Said before it was known: of those given 60 %, some 60 % stayed, also after the world has changed."""
    model = StepModel()
    said: list[tuple[float, bool]] = []
    for looks, advanced in [*steps(8000, seed=12), *steps(8000, seed=13, signal_effect=0.7)]:
        said += [(model.probability(features), not advanced) for features in looks]
        model.learn(looks, advanced)
    for settled in (said[4000:8000], said[11_000:]):
        for low, high in ((0.0, 0.4), (0.4, 0.6), (0.6, 1.0)):
            here = [(p, stayed) for p, stayed in settled if low <= p < high]
            promised, came_true = (sum(each) / len(here) for each in zip(*here, strict=True))
            assert came_true == pytest.approx(promised, abs=0.04), (low, high)
    assert model.calibration_error < 0.05


def test_a_score_that_is_too_sure_is_recalibrated() -> None:
    rng, rule = random.Random(3), Rule([3.0], 1.0)
    for _ in range(5000):
        x = rng.gauss(0.0, 1.0)
        rule.calibrate(rule.score([x]), rng.random() < sigmoid(0.5 * x - 0.4), 1 - 1 / 2000)
    assert rule.slope == pytest.approx(0.5 / 3.0, abs=0.04)
    assert rule.calibrated(rule.score([0.0])) == pytest.approx(sigmoid(-0.4), abs=0.04)


@pytest.mark.parametrize("effect", [1.5, 0.0])
def test_says_nothing_before_it_was_tried_nor_where_there_is_nothing_to_tell(effect: float) -> None:
    model, calls = StepModel(), []
    for looks, advanced in steps(6000, seed=5, signal_effect=effect):
        calls.append(called(model, looks))
        model.learn(looks, advanced)
    tried = model.params.min_looks + model.params.trial_steps
    assert not any(calls[:tried])
    assert any(calls) == model.ready == (effect > 0)


def test_says_no_more_when_it_does_not_tell_any_longer_and_comes_back_when_it_does() -> None:
    model, ready = StepModel(QUICK), []
    for effect in (1.5, 0.0, 1.5):
        for looks, advanced in steps(6000, seed=21, signal_effect=effect):
            model.learn(looks, advanced)
        ready.append(model.ready)
    assert ready == [True, False, True]


# ── long reading, and confused loops ──────────────────────────────────────────────────────────────────────────────


def test_long_reading_that_leads_on_is_no_hesitation_and_going_in_circles_is() -> None:
    model = StepModel()
    for looks, advanced in moods(8000, seed=3):
        model.learn(looks, advanced)
    reader, lost = (step_features(119.0, 14 + c, 1 + c, c, c, 0, shown) for c, shown in ((0, ()), (6, {"page_loop"})))
    assert not model.is_hesitant(reader) and model.is_hesitant(lost)
    assert model.probability(lost) > 0.7
    assert model.probability(reader) < 0.4
    assert not model.is_hesitant(step_features(1.0, 8, 7, 6, 6, 0, {"page_loop"})), "nobody is in the first second"


def test_where_those_who_stay_long_leave_staying_long_is_hesitation() -> None:
    model, rng = StepModel(), random.Random(4)
    for _ in range(6000):
        dwell_s = rng.lognormvariate(3.5, 1.0)
        looks = [step_features(mark - 1.0, 2, 1, 0, 0, 0) for mark in (15, 30, 60, 120, 300) if mark < dwell_s]
        model.learn(looks, advanced=rng.random() < (0.6 if dwell_s < 60 else 0.15))
    assert model.is_hesitant(step_features(119.0, 2, 1, 0, 0, 0))
    assert not model.is_hesitant(step_features(14.0, 2, 1, 0, 0, 0))


def test_most_of_those_called_do_not_advance() -> None:
    model, calls = StepModel(), list[tuple[bool, bool]]()
    for looks, advanced in moods(9000, seed=8):
        calls.append((called(model, looks), advanced))
        model.learn(looks, advanced)
    late = calls[4000:]
    shares = {kind: [advanced for call, advanced in late if call is kind] for kind in (True, False)}
    rates = {kind: sum(ends) / len(ends) for kind, ends in shares.items()}
    assert rates[True] < 0.35 and rates[False] > 0.5
    assert model.lift == pytest.approx(rates[False] - rates[True], abs=0.06)


# ── steadiness: a model that learns is no change of people ────────────────────────────────────────────────────────


def clumped(n: int, seed: int) -> Iterator[Step]:
    """Few distinct steps, so predictions come in clumps: a cut that follows them would jump from clump to clump."""
    rng = random.Random(seed)
    kinds = [(5.0, 0.5, 40), (20.0, 0.45, 25), (40.0, 0.6, 12), (60.0, 0.35, 12), (90.0, 0.3, 6), (120.0, 0.2, 5)]
    for dwell_s, advance, _ in rng.choices(kinds, [weight for *_, weight in kinds], k=n):
        yield [step_features(dwell_s, 3, 1, 0, 0, 0)], rng.random() < advance


def shares(stream: Callable[[int, int], Iterator[Step]], seed: int, block: int = 1000) -> list[float]:
    """Share called hesitant in each block of steps that the model was asked about."""
    model, calls = StepModel(), list[bool]()
    for looks, advanced in stream(24_000, seed):
        if model.ready:
            calls.append(called(model, looks))
        model.learn(looks, advanced)
    return [sum(calls[i : i + block]) / block for i in range(0, len(calls) - block + 1, block)]


@pytest.mark.parametrize("stream", [moods, clumped])
@pytest.mark.parametrize("seed", range(4))
def test_the_share_that_is_called_stays_while_the_model_learns(
    stream: Callable[[int, int], Iterator[Step]], seed: int
) -> None:
    found = shares(stream, seed)
    assert len(found) > 15
    mean = sum(found) / len(found)
    assert 0.05 < mean < 0.3
    chance = mean * (1 - mean) / 1000
    spread = sum((share - mean) ** 2 for share in found) / (len(found) - 1)
    assert spread < 2.5 * chance, "more than chance moves it"
    assert max(abs(share - mean) for share in found) < 4.5 * math.sqrt(chance)


def test_the_share_rises_when_more_people_are_stuck() -> None:
    model, calls = StepModel(), list[bool]()
    for looks, advanced in [*moods(8000, seed=31), *moods(2000, seed=32, stuck=0.3)]:
        calls.append(called(model, looks))
        model.learn(looks, advanced)
    before, after = sum(calls[3000:8000]) / 5000, sum(calls[8000:]) / 2000
    assert after > 1.5 * before


def alarms(stream: Iterator[Step]) -> list[int]:
    """Numbers of the steps at which the detector begins to alert, with next to no false alarms allowed."""
    model, found, alerting = StepModel(), list[int](), False
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    detector.allow(0.003)
    for i, (looks, advanced) in enumerate(stream):
        counts = {"asked": 1, "hesitant": int(called(model, looks))} if model.ready else {}
        model.learn(looks, advanced)
        x = detector.look(Bucket(1.7e9 + i * 86.4, 10.0, "decide", counts), detector.params)
        before, alerting = alerting, x is not None and detector.observe(x).level == "alert"
        if alerting and not before:
            found.append(i)
    return found


@pytest.mark.parametrize("stream", [moods, clumped])
def test_a_model_that_learns_is_never_reported(stream: Callable[[int, int], Iterator[Step]]) -> None:
    """24 days, from a model that knows nothing on."""
    assert not [seed for seed in range(40, 43) if alarms(stream(24_000, seed))]


def test_more_stuck_people_are_reported_by_the_model_alone() -> None:
    found = alarms(chain(moods(12_000, seed=50), moods(6000, seed=51, stuck=0.24)))
    assert len(found) == 1 and 12_000 <= found[0] < 14_500


# ── the parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def trial_of(scores: list[int], stayed: list[bool] | None = None) -> Trial:
    trial = Trial(Rule([1.0], 0.0))
    for i, score in enumerate(scores):
        trial.note(score, stayed[i] if stayed else False, called=False)
    return trial


@pytest.mark.parametrize(
    ("scores", "share", "called_now"),
    [
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.3, 3, id="distinct"),
        pytest.param([1] * 8 + [5] * 2, 0.15, 2, id="a-clump-is-taken-whole"),
        pytest.param([1] * 6 + [5] * 4, 0.15, 0, id="or-left-whole"),
        pytest.param([NOTHING] * 8 + [-900, 900], 0.5, 2, id="never-those-not-looked-at"),
        pytest.param([NOTHING] * 10, 0.15, 0, id="nobody-was-looked-at"),
    ],
)
def test_the_cut_takes_the_wanted_share_and_splits_no_equals(scores: list[int], share: float, called_now: int) -> None:
    trial = trial_of(scores)
    tally = trial.settle(share)
    assert tally.called == called_now == sum(score > trial.rule.cut for score in scores)
    assert tally.called + tally.others == len(scores)


def test_a_copy_that_would_call_another_share_does_not_take_over() -> None:
    trial = trial_of([1] * 80 + [5] * 20)
    for _ in range(100):
        trial.compare(0.1)
    assert trial.replaces(0.2, trial.settle(0.2))
    assert not trial.replaces(0.1, trial.settle(0.1)), "all twenty or none"


def test_a_copy_that_tells_no_better_does_not_take_over() -> None:
    trial = trial_of(list(range(100)))
    for i in range(400):
        trial.compare(0.1 if i % 2 else -0.099)
    assert not trial.replaces(0.2, trial.settle(0.2))


def test_lift_is_told_in_standard_errors() -> None:
    tally = Tally(100.0, 70.0, 400.0, 200.0)
    assert tally.lift == pytest.approx(0.2)
    assert tally.z == pytest.approx(0.2 / math.sqrt(0.54 * 0.46 * (1 / 100 + 1 / 400)), rel=0.01)
    assert Tally().z == Tally(5.0, 5.0).z == 0.0
