"""Confidence sequences: intervals of a mean that hold at all times at once, however often one looks.

Empirical-Bernstein (Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", theorem 4, by the inequality of Fan, Grama & Liu 2015): for increments within ±range and any rate below
1/range, exp(rate · (sum - sum of means) - psi(rate) · sum of squares) is a supermartingale. Several rates share the
error.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors._validation_tables import Floats

ERROR: Final = 0.05
RATES: Final[Floats] = 0.85 * 2.0 ** -np.arange(9.0)
"""As parts of the largest rate possible: from some hundred increments to a million."""


def mean_interval(total: float, squares: float, n: float, reach: float) -> tuple[float, float]:
    """95 % confidence sequence of the mean of increments, at the time when there are so many.

    Args:
        total: their sum.
        squares: sum of their squares.
        n: what the sum is divided by.
        reach: no increment is larger than this, up or down.

    Example:
        >>> low, high = mean_interval(total=57.0, squares=100.0, n=10_000, reach=3.0)
        >>> round(low, 4), round(high, 4)
        (0.0005, 0.0109)
    """
    if n <= 0.0:
        return -reach, reach
    rates = RATES / reach
    psi = (-np.log1p(-reach * rates) - reach * rates) / reach**2
    slack = float(((np.log(2.0 * len(rates) / ERROR) + psi * squares) / rates).min())
    return max((total - slack) / n, -reach), min((total + slack) / n, reach)
