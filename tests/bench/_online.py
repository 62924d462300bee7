"""An online score of rows of a table, without looking ahead, and how well it tells.

One encoding for every table, with River's defaults, so that nothing is fitted to a file: a number goes in as itself, as
its logarithm and as its power of two; a category as one column for each value, of which "missing" is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import frexp, log1p, sqrt
from typing import Final, NamedTuple

import numpy as np
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

MISSING: Final = ""


class Table(NamedTuple):
    """Which columns a score may use.

    Attributes:
        numbers: columns of numbers, 0 or more; an empty cell is a category of its own.
        categories: all others.
        left_out: column → why it is not used.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    left_out: Mapping[str, str]


class OnlineScore:
    """`StandardScaler | LogisticRegression`, learning row by row until it is frozen.

    Args:
        table: columns.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._scaler = StandardScaler()
        self._regression = LogisticRegression()
        self.frozen = False

    def score(self, row: Mapping[str, str], outcome: bool) -> float:
        """P(outcome) of a row before learning from it; then, unless frozen, learn."""
        numbers, flags = encode(row, self._table)
        if not self.frozen:
            self._scaler.learn_one(numbers)
        features = {**flags, **self._scaler.transform_one(numbers)}
        p = float(self._regression.predict_proba_one(features)[True])
        if not self.frozen:
            self._regression.learn_one(features, outcome)
        return p


def encode(row: Mapping[str, str], table: Table) -> tuple[dict[str, float], dict[str, float]]:
    """Numbers to be scaled, and flags.

    >>> encode({"visits": "3", "source": "ads"}, Table(("visits",), ("source",), {}))
    ({'visits': 3.0, 'log visits': 1.3862943611198906}, {'visits~2': 1.0, 'source=ads': 1.0})
    """
    numbers, flags = dict[str, float](), dict[str, float]()
    for name in table.numbers:
        if row[name] == MISSING:
            flags[f"{name}~missing"] = 1.0
            continue
        value = max(0.0, float(row[name]))
        numbers[name], numbers[f"log {name}"] = value, log1p(value)
        flags[f"{name}~{frexp(value)[1] if value else 'none'}"] = 1.0
    for name in table.categories:
        flags[f"{name}={row[name]}"] = 1.0
    return numbers, flags


def prequential(rows: Iterable[Mapping[str, str]], outcomes: Sequence[bool], table: Table,
                freeze_at: int | None = None) -> list[float]:  # fmt: skip
    """Scores in order, each made before its outcome is learnt; learning ends with row `freeze_at`."""
    model, scores = OnlineScore(table), []
    for i, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        model.frozen = freeze_at is not None and i >= freeze_at
        scores.append(model.score(row, outcome))
    return scores


def auc(scores: Sequence[float], outcomes: Sequence[bool]) -> tuple[float, float]:
    """Area under the ROC curve (Mann & Whitney 1947), and its standard error (Hanley & McNeil 1982).

    >>> auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])[0]
    0.75
    """
    values, hits = np.asarray(scores), np.asarray(outcomes, dtype=bool)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive, negative = int(hits.sum()), int((~hits).sum())
    area = float((ranks[hits].sum() - positive * (positive + 1) / 2) / (positive * negative))
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    rest = (positive - 1) * (first - area**2) + (negative - 1) * (second - area**2)
    return area, sqrt((area * (1 - area) + rest) / (positive * negative))
