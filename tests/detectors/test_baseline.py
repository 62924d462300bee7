"""Rates per stratum: what is held back flows over, and what is long past fades."""

from __future__ import annotations

import math

import pytest

from detectors._baseline import RateTable, fade_over


def test_held_back_counts_flow_over_and_leave_nothing() -> None:
    base, held = RateTable.sized(4, 1), RateTable.sized(4, 1)
    for stratum in (1, 1, 3):
        held.learn(stratum, 1, 2, (5,))
    base.absorb(held)
    assert (base.n, base.sum_k, base.extras) == ([0.0, 4.0, 0.0, 2.0], 3.0, [15.0])
    assert held == RateTable.sized(4, 1)


def test_what_is_long_past_fades() -> None:
    base = RateTable.sized(2)
    base.learn(0, 100, 1000)
    fade_over(base, 10, 10.0)
    assert base.sum_n == pytest.approx(1000 / math.e)
    assert base.n[0] == pytest.approx(1000 / math.e)


def test_no_rate_is_ever_quite_none_or_all() -> None:
    base = RateTable.sized(1)
    base.learn(0, 0, 50)
    assert 0.0 < base.level < 0.02
    assert base.error > 0.0
