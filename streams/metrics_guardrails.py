"""Guardrails as metrics: how much of each budget is left, how fast it burns, who questions it, how soon owners act."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from streams.guardrail_findings import View

STATES: Final = ("learning", "ok", "ticket", "page")
RESPONSE_BUCKETS_S: Final = (300.0, 900.0, 1800.0, 3600.0, 14_400.0, 28_800.0, 86_400.0, 259_200.0)


def families(views: Iterable[View]) -> Iterator[Metric]:
    """Every guardrail of the partition that counts them, if this worker owns it.

    Args:
        views: of `Guardrails.view()`.
    """
    shown = list(views)
    labels = ["guardrail", "owner"]
    left = GaugeMetricFamily(
        "trustwatch_guardrail_budget_left_ratio",
        "Share of a guardrail's budget of bad events that is left; below 0 when it is overspent, absent until known.",
        labels=labels,
    )
    burn = GaugeMetricFamily(
        "trustwatch_guardrail_burn_rate",
        "Excess bad events in a window against its part of the budget: 1 spends the budget exactly.",
        labels=[*labels, "window"],
    )
    state = GaugeMetricFamily(
        "trustwatch_guardrail_state", "What a guardrail says: 0 learning, 1 ok, 2 ticket, 3 page.", labels=labels
    )
    disputed = GaugeMetricFamily(
        "trustwatch_guardrail_disputed", "1 while a guardrail is questioned: it does not page.", labels=labels
    )
    bad = CounterMetricFamily("trustwatch_guardrail_bad_events", "Bad events of a guardrail.", labels=labels)
    total = CounterMetricFamily("trustwatch_guardrail_events", "All events of a guardrail.", labels=labels)
    for one in shown:
        values = [one.name, one.owner]
        state.add_metric(values, STATES.index(one.state))
        disputed.add_metric(values, float(one.disputed is not None))
        bad.add_metric(values, one.bad)
        total.add_metric(values, one.total)
        if one.left is not None:
            left.add_metric(values, one.left)
        for window, rate in one.burn.items():
            burn.add_metric([*values, window], rate)
    yield from (left, burn, state, disputed, bad, total, _response(shown))


def _response(shown: Iterable[View]) -> Metric:
    family = HistogramMetricFamily(
        "trustwatch_guardrail_response_seconds",
        "From the moment a breach could be told until its owner acknowledged it, of the breaches that are remembered.",
        labels=["guardrail", "owner"],
    )
    for one in shown:
        taken = one.response_s
        buckets = [(f"{limit:g}", float(sum(s <= limit for s in taken))) for limit in RESPONSE_BUCKETS_S]
        family.add_metric([one.name, one.owner], [*buckets, ("+Inf", float(len(taken)))], sum(taken))
    return family
