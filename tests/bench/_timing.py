"""How long an update takes and how large a state grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from detectors._step_model import StepModel, step_features
from tests.bench import _trustwatch
from tests.bench._installation import buckets
from tests.bench._river_peers import PEERS
from tests.bench._streams import Change, Kind, seeds, simulate
from tests.bench._tuning import Tuned

WARM: Final = 10_000
STATE_DAYS: Final = 28


class Timing(msgspec.Struct):
    """Time of one update, µs. The mean holds what is done now and then, such as a fit once an hour."""

    name: str
    median_us: float
    mean_us: float
    updates: int


def timed(name: str, update: Callable[[Any], object], inputs: Sequence[Any], warm: int) -> Timing:
    """Feed all inputs, and time each after the first `warm`; what the clock itself takes is subtracted."""
    for each in inputs[:warm]:
        update(each)
    clock, spent = time.perf_counter_ns, []
    for each in inputs[warm:]:
        began = clock()
        update(each)
        spent.append(clock() - began)
    idle = []
    for _ in spent:
        began = clock()
        idle.append(clock() - began)
    own_us = float(np.median(idle)) / 1e3
    return Timing(name, float(np.median(spent)) / 1e3 - own_us, float(np.mean(spent)) / 1e3 - own_us, len(spent))


def time_rates(count: int) -> list[Timing]:
    """The rate test, fed events and fed buckets of five minutes."""
    stream = simulate(Kind("timing"), "report", 0, count)
    test = _trustwatch.make()
    events = list(zip(stream.ts.tolist(), stream.xs.tolist(), strict=True))
    single = timed("rate, event by event", lambda each: test.update_binomial(each[0], each[1], 1, ()), events, WARM)
    other, counts = _trustwatch.make(), _buckets()
    warm = len(counts) // 2
    packed = timed("rate, buckets", lambda each: other.update_binomial(each[0], each[1], each[2], ()), counts, warm)
    return [single, packed]


def time_models(count: int) -> list[Timing]:
    """The models of one stage: hesitation, asked and taught, and novelty."""
    model, steps = StepModel(), _steps(count)

    def ask_and_learn(step: tuple[list[float], bool]) -> None:
        features, advanced = step
        model.probability(features)
        model.is_hesitant(features)
        model.learn([features], advanced)

    return [
        timed("step model, ask and learn", ask_and_learn, steps, count // 2),
        timed("step model, novelty", lambda step: model.weigh(step[0]), steps, count // 2),
    ]


def _steps(count: int) -> list[tuple[list[float], bool]]:
    """Steps as they stand, and whether the person advanced: the less so, the longer the dwell."""
    rng = np.random.default_rng(seeds("report", "model timing", 0))
    dwells, events = rng.exponential(30.0, count), 1 + rng.poisson(4.0, count)
    advanced = rng.random(count) < np.where(dwells > 60.0, 0.1, 0.5)
    return [(step_features(dwell, n, 1, 0, n - 1, 0), moved)
            for dwell, n, moved in zip(dwells.tolist(), events.tolist(), advanced.tolist(), strict=True)]  # fmt: skip


def time_peers(tuned: Sequence[Tuned], count: int) -> list[Timing]:
    """River's own classes in their tuned settings; KSWIN, which takes a hundred times as long, over fewer events."""
    timings = []
    for each in tuned:
        peer = PEERS[each.name]
        stream = simulate(Kind("timing"), "report", 0, count, Change(0.24))
        xs = (1 - stream.xs if peer.errors else stream.xs).tolist()
        slow = each.name == "KSWIN"
        warm = each.params["window_size"] if slow else WARM
        detector = peer.river(**each.params)
        timings.append(timed(f"River's {each.name}", detector.update, xs[: warm + 1000] if slow else xs, warm))
    return timings


def state_bytes() -> int:
    """Size of the state of a rate stream after 28 days with 5,000 events a day."""
    test = _trustwatch.make()
    for ts, k, n in _buckets():
        test.update_binomial(ts, k, n, ())
    return _trustwatch.state_bytes(test)


def _buckets() -> list[tuple[float, int, int]]:
    stream = buckets(np.random.default_rng(seeds("report", "timing", 1)), 5000.0, 0.30, STATE_DAYS)
    return list(zip(stream.ts, stream.k, stream.n, strict=True))
