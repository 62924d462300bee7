"""River's drift detectors as peers of the detection bench, and how they are tuned.

Tuning tries millions of events for each of many settings, so all but ADWIN (which is native) are run by formulas over
whole arrays that raise the same alarms as River's own classes; `disagreement` checks that in every run of the bench.
KSWIN draws its reference at random, so it agrees in distribution only: on 0/1 data the number of hits in that sample is
hypergeometric. As in River, a detector begins anew with the event after its alarm. Only falls count.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from math import inf, log
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN, KSWIN, PageHinkley
from river.drift.binary import DDM, FHDDM, HDDMA, HDDMW
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from tests.bench._scores import Alarm
from tests.bench._streams import Bits, Floats, Stream

Params: TypeAlias = Mapping[str, Any]
WINDOW_N: Final = 8192
"""Events looked at first for the next alarm; four times as many each time there was none."""


@dataclass(frozen=True)
class Peer:
    """One detector of River.

    Attributes:
        river: its class.
        errors: it wants 1 for a failure.
        shapes: values of the parameters that are tried in all combinations.
        knob: the parameter that is set by the rate of false alarms.
        loose: its value with the most alarms.
        strict: its value with the fewest.
        fixed: further parameters.
        first: (outcomes, parameters) → number of the first alarm or -1; None: it has a way of its own.
    """

    river: Callable[..., Any]
    errors: bool
    shapes: Mapping[str, Sequence[Any]]
    knob: str
    loose: float
    strict: float
    fixed: Params = field(default_factory=dict)
    first: Callable[[Floats, Params], int] | None = None

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All shapes to try."""
        for values in product(*self.shapes.values()):
            yield {**self.fixed, **dict(zip(self.shapes, values, strict=True))}

    def between(self, share: float) -> float:
        """Value of the knob at a share of the way from loose to strict, on a logarithmic scale."""
        return float(self.loose * (self.strict / self.loose) ** share)


def alarms_of(name: str, params: Params, stream: Stream, stop_after: int | None = None) -> list[Alarm]:
    """Run a peer over a stream.

    Args:
        name: key of `PEERS`.
        params: of River's class.
        stream: what it sees.
        stop_after: end with the first alarm at this event or later; None: see all.
    """
    peer = PEERS[name]
    if name == "ADWIN":
        return _adwin(params, stream.xs, stop_after)
    if name == "KSWIN":
        return _kswin(params, stream.xs, stop_after, stream.seed)
    assert peer.first is not None
    xs = (1.0 - stream.xs) if peer.errors else stream.xs.astype(float)
    found: list[Alarm] = []
    start = 0
    while (at := _next_alarm(peer.first, params, xs, start)) >= 0:
        found.append(Alarm(at, at + 1))
        start = at + 1
        if stop_after is not None and at >= stop_after:
            break
    return found


def disagreement(name: str, params: Params, stream: Stream) -> str | None:
    """Run River's own class over a stream; what it says otherwise than `alarms_of`, None if nothing."""
    detector = PEERS[name].river(**params)
    own = []
    for at, x in enumerate((1 - stream.xs if PEERS[name].errors else stream.xs).tolist()):
        detector.update(x)
        if detector.drift_detected:
            own.append(at)
    ours = [alarm.start for alarm in alarms_of(name, params, stream)]
    return (
        None if own == ours else f"{name} {dict(params)}: River's class alarms at {own[:5]}, the formula at {ours[:5]}"
    )


def _next_alarm(first: Callable[[Floats, Params], int], params: Params, xs: Floats, start: int) -> int:
    size = WINDOW_N
    while start < len(xs):
        at = first(xs[start : start + size], params)
        if at >= 0:
            return start + at
        if start + size >= len(xs):
            break
        size *= 4
    return -1


# ── one by one ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _adwin(params: Params, xs: Bits, stop_after: int | None) -> list[Alarm]:
    detector = ADWIN(**params)
    hits = np.concatenate(([0], np.cumsum(xs, dtype=int)))
    found: list[Alarm] = []
    start = 0
    for at, x in enumerate(xs.tolist()):
        detector.update(x)
        if not detector.drift_detected:
            continue
        # The window before was all since River's last reset; what is left of it is the new level.
        before = (hits[at + 1] - hits[start]) / (at + 1 - start)
        if detector.estimation < before:
            found.append(Alarm(at, at + 1))
            if stop_after is not None and at >= stop_after:
                break
        start = at + 1
    return found


def _page_hinkley(xs: Floats, params: Params) -> int:
    count = np.arange(1, len(xs) + 1)
    deviation = xs - np.cumsum(xs) / count + params["delta"]
    total = lfilter([1.0], [1.0, -params["alpha"]], deviation)
    fall = np.maximum(np.maximum.accumulate(total), -1.0) - total
    return _first_true((fall > params["threshold"]) & (count >= params["min_instances"]))


def _ddm(xs: Floats, params: Params) -> int:
    warm = params["warm_start"]
    count = np.arange(1, len(xs) + 1)
    p = np.cumsum(xs) / count
    spread = np.sqrt(p * (1.0 - p) / count)
    p, spread = p[warm:], spread[warm:]
    at = _last_minimum(p + spread)
    over = p + spread > p[at] + params["drift_threshold"] * spread[at]
    found = _first_true(over)
    return found if found < 0 else found + warm


def _fhddm(xs: Floats, params: Params) -> int:
    size = params["sliding_window_size"]
    if len(xs) < size:
        return -1
    total = np.concatenate(([0.0], np.cumsum(xs)))
    mean = (total[size:] - total[:-size]) / size
    epsilon = np.sqrt(log(1.0 / params["confidence_level"]) / (2 * size))
    found = _first_true(np.maximum.accumulate(mean) - mean > epsilon)
    return found if found < 0 else found + size - 1


def _hddm_a(xs: Floats, params: Params) -> int:
    confidence = params["drift_confidence"]
    count = np.arange(1, len(xs) + 1)
    mean = np.cumsum(xs) / count
    cut = _last_minimum(mean + np.sqrt(log(1.0 / confidence) / (2 * count)))
    epsilon = np.sqrt((count - count[cut]) / count[cut] / count / 2 * log(2.0 / confidence))
    return _first_true((mean - mean[cut] >= epsilon) & (count > count[cut]))


def _hddm_w(xs: Floats, params: Params) -> int:
    weight, confidence = params["lambda_val"], params["drift_confidence"]
    bound = log(1.0 / confidence) / 2
    shares = _independence(weight, len(xs))
    total = _ewma(xs, weight)
    upper = total + np.sqrt(shares * bound)
    before = np.concatenate(([inf], np.minimum.accumulate(upper)[:-1]))
    cuts = np.append(np.flatnonzero(upper < before), len(xs))
    for cut, until in pairwise(cuts):
        recent = _ewma(xs[cut + 1 : until], weight)
        found = _first_true(recent - total[cut] > np.sqrt((shares[cut] + shares[: len(recent)]) * bound))
        if found >= 0:
            return int(cut + 1 + found)
    return -1


def _kswin(params: Params, xs: Bits, stop_after: int | None, seed: int) -> list[Alarm]:
    window, size = params["window_size"], params["stat_size"]
    total = np.concatenate(([0], np.cumsum(xs, dtype=int)))
    ends = np.arange(window, len(xs) + 1)
    old = total[ends - size] - total[ends - window]
    recent = total[ends] - total[ends - size]
    drawn = np.random.default_rng(seed).hypergeometric(old, window - size - old, size)
    differing = np.abs(drawn - recent)
    over = (_ks_p_values(size)[differing] <= params["alpha"]) & (differing / size > 0.1)  # 0.1 is in River's code
    found: list[Alarm] = []
    start = 0
    for at in (ends[over] - 1).tolist():
        if at < start + window - 1:
            continue
        start = at + 1
        if recent[at + 1 - window] < drawn[at + 1 - window]:
            found.append(Alarm(at, at + 1))
            if stop_after is not None and at >= stop_after:
                break
    return found


@cache
def _ks_p_values(size: int) -> Floats:
    """P-value of the KS test on two samples of 0/1 data whose hits differ by 0, 1, …, `size`."""
    base = np.zeros(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # as River does: for large samples SciPy falls back
        return np.array([ks_2samp(base, np.arange(size) < hits).pvalue for hits in range(size + 1)])


def _ewma(xs: Floats, weight: float) -> Floats:
    if not len(xs):
        return xs
    return np.asarray(lfilter([weight], [1.0, weight - 1.0], xs, zi=[(1.0 - weight) * xs[0]])[0])


@cache
def _independence(weight: float, count: int) -> Floats:
    """Sum of the squared weights of an EWMA of 1, 2, … values, as HDDM_W counts it."""
    decay = (1.0 - weight) ** 2
    limit = weight**2 / (1.0 - decay)
    return np.asarray(limit + (1.0 - limit) * decay ** np.arange(1.0, count + 1.0))


def _last_minimum(values: Floats) -> NDArray[np.int64]:
    """For each value where the least so far was, the latest of equals."""
    least = values <= np.minimum.accumulate(values)
    return np.asarray(np.maximum.accumulate(np.where(least, np.arange(len(values)), 0)))


def _first_true(flags: NDArray[np.bool_]) -> int:
    at = int(np.argmax(flags)) if len(flags) else 0
    return at if len(flags) and flags[at] else -1


PEERS: Final[Mapping[str, Peer]] = {
    "ADWIN": Peer(ADWIN, False, {"clock": (8, 32)}, "delta", 0.5, 1e-9),
    "PageHinkley": Peer(PageHinkley, False, {"delta": (0.005, 0.01, 0.02, 0.03, 0.04), "alpha": (0.9999, 1.0)},
                        "threshold", 2.0, 300.0, {"mode": "down", "min_instances": 30}, _page_hinkley),
    "DDM": Peer(DDM, True, {"warm_start": (30, 300, 1000, 3000)}, "drift_threshold", 1.0, 20.0, {}, _ddm),
    "HDDMA": Peer(HDDMA, True, {}, "drift_confidence", 0.3, 1e-12, {}, _hddm_a),
    "HDDMW": Peer(HDDMW, True, {"lambda_val": (0.05, 0.01, 0.005, 0.003, 0.002)}, "drift_confidence", 0.3, 1e-12,
                  {}, _hddm_w),
    "FHDDM": Peer(FHDDM, False, {"sliding_window_size": (100, 250, 500, 1000, 2000)}, "confidence_level", 0.5, 1e-9,
                  {}, _fhddm),
    "KSWIN": Peer(KSWIN, False, {"window_size": (2500, 5000), "stat_size": (250, 450, 1000)}, "alpha", 0.01, 1e-12,
                  {}),
}  # fmt: skip
"""Every detector of the issue, with the parameters that are tried."""
