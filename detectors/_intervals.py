"""Confidence intervals of shares."""

from __future__ import annotations

from math import sqrt
from typing import Final

Z95: Final = 1.959964
"""Standard errors either side of a 95 % interval."""


def wilson(k: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Interval of a share by `k` hits out of `n` trials (Wilson 1927); (0, 1) without trials.

    Args:
        k: hits.
        n: trials.
        z: standard errors either side.

    Example:
        >>> tuple(round(limit, 3) for limit in wilson(15, 100))
        (0.093, 0.233)
    """
    if n <= 0.0:
        return 0.0, 1.0
    share, room = k / n, z * z / n
    middle = (share + room / 2.0) / (1.0 + room)
    half = z / (1.0 + room) * sqrt(max(share * (1.0 - share), 0.0) / n + room / (4.0 * n))
    return max(0.0, middle - half), min(1.0, middle + half)
