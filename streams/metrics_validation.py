"""Which indicators are proven, and by what: read out of outcome validation when Prometheus scrapes.

Numbers that rest on fewer than `LEAST` people with the indicator are not shown. Everyone's come
first where there are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from detectors._validation_numbers import STATUSES, Numbers
from streams.findings import LEAST
from streams.validation import Validator
from streams.validation_states import ALL, Key

MOST_KEYS: Final = 400
"""Indicators that one worker exports at most, by outcome, stage and family; each has up to eleven series."""
GAUGES: Final[dict[str, tuple[str, Callable[[Numbers], float]]]] = {
    "trustwatch_indicator_auc": (
        "How often an indicator, as learnt before, ranks a good outcome above a bad one of the same stratum.",
        lambda numbers: numbers.auc,
    ),
    "trustwatch_indicator_auc_low": (
        "Lower end of its 95 % interval, which holds at all times at once.",
        lambda numbers: numbers.auc_low,
    ),
    "trustwatch_indicator_auc_high": ("Upper end of it.", lambda numbers: numbers.auc_high),
    "trustwatch_indicator_gain_nats": (
        "Log-loss gained over the base rate per outcome, test-then-train, nats.",
        lambda numbers: numbers.gain,
    ),
    "trustwatch_indicator_gain_low_nats": (
        "Lower end of its 95 % interval, which holds at all times at once.",
        lambda numbers: numbers.gain_low,
    ),
    "trustwatch_indicator_gain_high_nats": ("Upper end of it.", lambda numbers: numbers.gain_high),
    "trustwatch_indicator_calibration_error": (
        "Share of outcomes by which predictions for people with and without the indicator are off.",
        lambda numbers: numbers.calibration_error,
    ),
}
"""Metric → what it means, and where it is read."""
LABELS: Final = ("stage", "indicator", "outcome", "family")


def families(validators: Iterable[Validator], breathe: Callable[[Iterable[Any]], Iterator[Any]]) -> Iterator[Metric]:
    """State and numbers of all indicators.

    Args:
        validators: of the counts partitions that this worker owns.
        breathe: gives the same items, with breaths.
    """
    state = GaugeMetricFamily(
        "trustwatch_indicator_state", "1 for the state that an indicator is in, 0 for the others.",
        labels=[*LABELS, "state"],
    )  # fmt: skip
    outcomes = CounterMetricFamily(
        "trustwatch_indicator_outcomes", "Outcomes that an indicator was tested on.", labels=list(LABELS)
    )
    gauges = {name: GaugeMetricFamily(name, meaning, labels=list(LABELS)) for name, (meaning, _) in GAUGES.items()}
    found = sorted(((key, each) for each in validators for key in each.keys), key=lambda pair: _rank(pair[0]))
    for key, validator in breathe(found[:MOST_KEYS]):
        indicator, outcome, stage, family = key
        values, numbers = [stage, indicator, outcome, family], validator.numbers(key)
        for each in STATUSES:
            state.add_metric([*values, each], float(numbers.status == each))
        outcomes.add_metric(values, validator.outcomes(key))
        if numbers.indicated >= LEAST:
            for name, (_, read) in GAUGES.items():
                gauges[name].add_metric(values, read(numbers))
    left_out = GaugeMetricFamily("trustwatch_indicators_left_out", "Indicators known but not exported: too many.")
    left_out.add_metric([], max(0, len(found) - MOST_KEYS))
    yield from (state, outcomes, *gauges.values(), left_out)


def _rank(key: Key) -> tuple[bool, Key]:
    return key[3] != ALL, key
