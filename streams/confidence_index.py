"""The formula of the confidence index: log odds of moving forward with clarity, and what made them change.

For a stage s of the journey and a segment g, against what is usual in the whole company (the reference, r):

    forward      x = w_s · (logit p(g,s) - logit p(r,s))           p: share of steps that advance
    indicator i  x = w_s · v_i · β_i · (q_i(g,s) - q_i(r,s))       q: share of steps that are still open after a minute
                                                                      and have shown the indicator by then

    index = 100 · sigmoid(Σ x), where sigmoid(x) = 1 / (1 + e^-x)

`w_s` is the stage's share of all who enter (of the reference, so that a shift between segments moves nothing), β_i the
log odds ratio of advancing with and without the indicator, and `v_i` its part of the gain that all proven indicators of
the stage have. Those that are not proven have no part. 50 is as in the whole company; index / (100 - index) is by what
factor the odds of moving forward are better: 60 is 1.5 times.

A change of the index is told in parts that sum to it. All x are added before the sigmoid is taken, so one slope, change
of the index over change of the sum, turns each part's log odds into points: part = (x_now - x_before) · slope. That is
the Aumann-Shapley value of the sum on the straight way from before to now (Billera & Heath 1982), and it is exact.

A worked example. Two stages, of which 60 % and 40 % enter. At `evaluate` 36 % advance, 40 % are usual; steps with a
u-turn rise from 7 % to 12 %, and β of a u-turn is -0.9; it is the stage's only proven indicator. `buy` is as usual:

>>> usual = {("evaluate", "forward"): 0.0, ("evaluate", "u_turn"): 0.0, ("buy", "forward"): 0.0}
>>> now = {
...     ("evaluate", "forward"): 0.6 * (logit(0.36) - logit(0.40)),
...     ("evaluate", "u_turn"): 0.6 * 1.0 * -0.9 * (0.12 - 0.07),
...     ("buy", "forward"): 0.4 * (logit(0.50) - logit(0.50)),
... }
>>> {part: round(x, 3) for part, x in now.items()}
{('evaluate', 'forward'): -0.102, ('evaluate', 'u_turn'): -0.027, ('buy', 'forward'): 0.0}
>>> round(index_of(sum(usual.values())), 2), round(index_of(sum(now.values())), 2)
(50.0, 46.78)
>>> told = parts_of(now, usual)
>>> {part: round(points, 2) for part, points in told.items()}
{('evaluate', 'forward'): -2.54, ('evaluate', 'u_turn'): -0.67, ('buy', 'forward'): 0.0}
>>> round(sum(told.values()), 2), rounded([100 * points for points in told.values()], -322)
(-3.22, [-255, -67, 0])
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import cosh, floor, fsum, log, sinh
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from detectors._frozen import sigmoid

Numbers: TypeAlias = npt.NDArray[np.float64]
FORWARD: Final = "forward"
"""The part of a stage that is no indicator: whether people advance."""
MOST_LOGIT: Final = 15.0
"""Log odds beyond which nothing changes any more (an index of 99.99997)."""
FAR: Final = 0.1
"""Log odds from which on two indexes can be subtracted without loss."""
PartT = TypeVar("PartT", bound=Hashable)


def logit(p: float) -> float:
    """Log odds of a probability in (0, 1)."""
    return log(p / (1.0 - p))


def index_of(log_odds: float) -> float:
    """The index, 0 to 100.

    >>> index_of(0.0), round(index_of(log(1.5)), 9)
    (50.0, 60.0)
    """
    return 100.0 * sigmoid(min(max(log_odds, -MOST_LOGIT), MOST_LOGIT))


def slope(before: float, now: float) -> float:
    """Points of the index for each unit of log odds, on the way from one sum to another; also where they are the same.

    sigmoid(a) - sigmoid(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)), so nothing cancels where a is near b.

    >>> slope(0.0, 0.0), round(slope(0.0, 1.0), 6) == round(index_of(1.0) - 50.0, 6)
    (25.0, True)
    """
    change = now - before
    if abs(change) > FAR or max(abs(now), abs(before)) > MOST_LOGIT:
        return (index_of(now) - index_of(before)) / change if change else 0.0
    half = change / 2.0
    growth = sinh(half) / half if abs(half) > 1e-6 else 1.0
    return 25.0 * growth / (cosh(now / 2.0) * cosh(before / 2.0))


def parts_of(now: Mapping[PartT, float], before: Mapping[PartT, float]) -> dict[PartT, float]:
    """What each part made of a change of the index, in points; they sum to it.

    Args:
        now: part → log odds.
        before: the same; a part that is in one of them only counts as 0 in the other.
    """
    steep = slope(fsum(before.values()), fsum(now.values()))
    names = dict.fromkeys((*now, *before))
    return {name: steep * (now.get(name, 0.0) - before.get(name, 0.0)) for name in names}


def rounded(values: Sequence[float], total: int) -> list[int]:
    """Integers near `values` that sum to `total`: the largest remainders are rounded up.

    So what is shown sums to what is shown, to the last digit.

    >>> rounded([1.4, 1.4, 0.2], 3), rounded([-1.5, -0.6], -2)
    ([2, 1, 0], [-1, -1])
    """
    whole = [floor(value) for value in values]
    if not values:
        return whole
    by_remainder = sorted(range(len(values)), key=lambda i: (whole[i] - values[i], i))
    for i in range(abs(missing := total - sum(whole))):
        whole[by_remainder[i % len(values)] if missing > 0 else by_remainder[-1 - i % len(values)]] += (
            1 if missing > 0 else -1
        )
    return whole


def shrunk(hits: Numbers, n: Numbers, prior: Numbers, worth: float) -> tuple[Numbers, Numbers]:
    """Shares, and the variances of their log odds, where `worth` trials' worth was known before.

    The log odds of a Beta(a, b) have the variance psi'(a) + psi'(b).

    Args:
        hits: of the trials.
        n: trials.
        prior: the shares as they were known.
        worth: trials that this knowledge counts for; > 0.

    Returns:
        The shares (posterior means), and the variances.

    >>> share, variance = shrunk(np.array([30.0]), np.array([75.0]), np.array([0.4]), 25.0)
    >>> share.round(3).tolist(), variance.round(3).tolist()
    ([0.4], [0.042])
    """
    a, b = hits + worth * prior, np.maximum(n - hits, 0.0) + worth * (1.0 - prior)
    return a / (a + b), trigamma(a) + trigamma(b)


def trigamma(x: Numbers) -> Numbers:
    """psi', the second derivative of log gamma, for x > 0 (Abramowitz & Stegun 6.4.6 and 6.4.12).

    >>> bool(np.allclose(trigamma(np.array([1.0, 0.5])), [np.pi ** 2 / 6, np.pi ** 2 / 2], rtol=0.0, atol=1e-8))
    True
    """
    total = np.zeros_like(x)
    for _ in range(6):
        total += 1.0 / (x * x)
        x = x + 1.0
    f = 1.0 / (x * x)
    return total + 1.0 / x + f / 2.0 + f / x * (1 / 6 - f * (1 / 30 - f * (1 / 42 - f / 30)))
