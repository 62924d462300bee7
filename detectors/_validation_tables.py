"""Fourfold tables of an indicator against an outcome, and what they say whatever the base rate is.

A table holds the outcomes of one stratum-block: people of one segment within one hour or less, with the indicator and
without. Given how many there were of each, and how many outcomes were good in all, an indicator that says nothing
leaves the good ones to chance: those with the indicator are hypergeometric. Under an odds ratio they follow Fisher's
noncentral hypergeometric distribution (Fisher 1935; McCullagh & Nelder 1989, 7.3.2). The base rate cancels out of both,
so neither season nor price changes nor a mix shift between segments can make an indicator look useful.

Ordered bins (lead scores) are told as a chain of tables, the lowest band against all above it, then the next: under
"the score says nothing" their joint distribution is exactly the multivariate hypergeometric one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

LIMIT: Final = log(20.0)
"""No odds ratio beyond 20, or below 1/20, is believed."""
SIZES: Final = (0.15, 0.3, 0.5, 0.75, 1.0, 1.35, 1.9, LIMIT)
"""Log odds ratios that evidence is mixed over."""
TILTS: Final[Floats] = np.array([0.0, *SIZES, *(-size for size in SIZES)])
"""None, then the way an indicator is meant to predict, then the other way."""
EXPECTED: Final = slice(1, 1 + len(SIZES))
OTHER: Final = slice(1 + len(SIZES), 1 + 2 * len(SIZES))
BANDS: Final = 5
"""Bands that ordered bins are pooled to, of about the same number of outcomes each."""
MOST_AT_ONCE: Final = 50_000
"""Numbers that one pass of `likelihoods` holds at most."""


class Table(NamedTuple):
    """One fourfold table.

    Attributes:
        row: what it is evidence for.
        n_with: outcomes with the indicator (in the lower band).
        k_with: good ones among them.
        n_without: outcomes without it (in the bands above).
        k_without: good ones among them.
        reach: log odds ratio of good outcomes, with against without, of a tilt of 1: -1 where the indicator is meant to
            make them rarer, 1 where it is meant to make them more frequent; between -1 and 0 for a split of bands.
        part: which split of a chain; 0 for a table alone.
        block_n: outcomes of the whole block.
        block_k: good ones.
    """

    row: int
    n_with: int
    k_with: int
    n_without: int
    k_without: int
    reach: float
    part: int
    block_n: int
    block_k: int


class Tables(NamedTuple):
    """The same, as columns."""

    row: Integers
    n_with: Integers
    k_with: Integers
    n_without: Integers
    k_without: Integers
    reach: Floats
    part: Integers
    block_n: Integers
    block_k: Integers

    @classmethod
    def of(cls, tables: Sequence[Table]) -> Tables:
        """Columns of these tables."""
        whole = np.array([(*table[:5], *table[6:]) for table in tables], dtype=np.int64).reshape(len(tables), 8).T
        reach = np.array([table.reach for table in tables], dtype=np.float64)
        row, n_with, k_with, n_without, k_without, part, block_n, block_k = whole
        return cls(row, n_with, k_with, n_without, k_without, reach, part, block_n, block_k)

    def take(self, which: Integers) -> Tables:
        """Some of them."""
        row, n_with, k_with, n_without, k_without, reach, part, block_n, block_k = self
        return Tables(row[which], n_with[which], k_with[which], n_without[which], k_without[which], reach[which],
                      part[which], block_n[which], block_k[which])  # fmt: skip


def two_by_two(row: int, yes: int, no: int, all_yes: int, all_no: int, reach: float) -> list[Table]:
    """The table of a binary indicator; none where nothing could be learnt from it.

    >>> two_by_two(0, 2, 8, 40, 60, -1.0)[0][1:6]
    (10, 2, 90, 38, -1.0)
    >>> two_by_two(0, 2, 8, 2, 8, -1.0)
    []
    """
    n, k = all_yes + all_no, all_yes
    split = Table(row, yes + no, yes, n - yes - no, k - yes, reach, 0, n, k)
    return [split] if _tells(split) else []


def chain(row: int, bins: Sequence[tuple[int, int]]) -> list[Table]:
    """The tables of ordered bins (outcomes, good ones), of which the higher are meant to do better.

    Bands have about the same number of outcomes: where they are cut depends on that number alone, not on what came
    of them. A split reaches as far as the mean ranks of its sides are apart, in halves of all ranks.

    >>> [(t.n_with, t.k_with, t.n_without, t.k_without, t.reach) for t in chain(0, [(5, 1), (0, 0), (5, 4)])]
    [(5, 1, 5, 4, -1.0)]
    """
    bands = _bands(bins)
    n = rest_n = sum(each for each, _ in bands)
    k = rest_k = sum(each for _, each in bands)
    tables = []
    for part, (band_n, band_k) in enumerate(bands[:-1]):
        reach, rest_n, rest_k = -rest_n / n, rest_n - band_n, rest_k - band_k
        tables.append(Table(row, band_n, band_k, rest_n, rest_k, reach, part, n, k))
    return [table for table in tables if _tells(table)]


def _bands(bins: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    least = sum(n for n, _ in bins) / BANDS
    bands, band_n, band_k = list[tuple[int, int]](), 0, 0
    for n, k in bins:
        band_n, band_k = band_n + n, band_k + k
        if band_n >= least and band_n:
            bands.append((band_n, band_k))
            band_n = band_k = 0
    if band_n:
        bands.append((band_n, band_k))
    return bands


def _tells(table: Table) -> bool:
    """Whether chance could have had it otherwise."""
    good = table.k_with + table.k_without
    sound = 0 <= table.k_with <= table.n_with and 0 <= table.k_without <= table.n_without
    return sound and min(table.n_with, table.n_without) > 0 and 0 < good < table.n_with + table.n_without


def likelihoods(tables: Tables) -> tuple[Floats, Floats]:
    """What each tilt makes of each table, given its margins.

    Returns:
        Log-likelihood of each of `TILTS` over no tilt, nats, and the good outcomes with the indicator that it expects;
        a line for each table.
    """
    shape = (len(tables.row), len(TILTS))
    gained, expected = np.zeros(shape), np.zeros(shape)
    for part in _passes(np.minimum(np.minimum(tables.n_with, tables.n_without), _rarer(tables))):
        gained[part], expected[part] = _likelihoods(tables.take(part))
    return gained, expected


def _rarer(tables: Tables) -> Integers:
    good = tables.k_with + tables.k_without
    rarer: Integers = np.minimum(good, tables.n_with + tables.n_without - good)
    return rarer


def _passes(spans: Integers) -> Iterator[Integers]:
    """Tables of similar spans together, so that little is padded and memory is bounded."""
    order = np.argsort(spans, kind="stable")
    start = 0
    while start < len(order):
        stop, shortest = start + 1, int(spans[order[start]])
        while stop < len(order):
            longest = int(spans[order[stop]])
            if longest > 2 * shortest + 8 or (stop - start + 1) * (longest + 1) * len(TILTS) > MOST_AT_ONCE:
                break
            stop += 1
        yield order[start:stop]
        start = stop


def _likelihoods(tables: Tables) -> tuple[Floats, Floats]:
    n, m = tables.n_with[:, None], tables.n_without[:, None]
    good = (tables.k_with + tables.k_without)[:, None]
    low, high = np.maximum(0, good - m), np.minimum(n, good)
    steps = np.arange(int((high - low).max()) + 1)
    possible = low + steps <= high
    k = np.minimum(low + steps, high)
    lf = _log_factorials(int((n + m).max()))
    chance = np.where(possible, -(lf[k] + lf[n - k] + lf[good - k] + lf[m - good + k]), -np.inf)
    chance -= _log_sum(chance)[:, None]
    away = k - tables.k_with[:, None]
    terms = chance[:, None, :] + (tables.reach[:, None] * TILTS)[:, :, None] * away[:, None, :]
    top = terms.max(axis=2, keepdims=True)
    weights = np.exp(terms - top)
    total = weights.sum(axis=2)
    return -(top[:, :, 0] + np.log(total)), (weights * k[:, None, :]).sum(axis=2) / total


def _log_sum(terms: Floats) -> Floats:
    """Logarithm of the sum of exponentials over the last axis."""
    top = terms.max(axis=-1)
    sums: Floats = top + np.log(np.exp(terms - top[..., None]).sum(axis=-1))
    return sums


_known: Floats = np.zeros(1)


def _log_factorials(most: int) -> Floats:
    """Logarithms of 0!, 1!, …: a table that grows, the same numbers however it grew."""
    global _known  # noqa: PLW0603 - remembered only to save time
    if len(_known) <= most:
        _known = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, 2.0 * most + 1.0)))])
    return _known
