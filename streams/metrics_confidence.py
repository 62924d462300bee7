"""The confidence index and the trust ledger as metrics, by segment.

Both hide what is said of fewer than five people; there is no series then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from streams.books import Books
from streams.confidence import Standing
from streams.frames import Segment
from streams.ledger import Account

GAUGES: Final[dict[str, tuple[str, Callable[[Standing], float | None]]]] = {
    "trustwatch_confidence_index": (
        "How much people of a segment move forward with clarity, 0 to 100; 50 is what is usual in the whole company.",
        lambda row: row.index,
    ),
    "trustwatch_confidence_low": ("Lower end of the 95 % interval of the confidence index.", lambda row: row.low),
    "trustwatch_confidence_high": ("Upper end of the 95 % interval of the confidence index.", lambda row: row.high),
    "trustwatch_confidence_baseline": (
        "The confidence index that is usual for the segment itself.",
        lambda row: row.baseline,
    ),
    "trustwatch_confidence_change": (
        "The confidence index less what is usual for the segment; its parts sum to it.",
        lambda row: row.change,
    ),
}
"""Metric → what it means, and where it is read."""

Breathe = Callable[[Iterable[Any]], Iterator[Any]]
LabelOf = Callable[[Segment], str]


def families(books: Iterable[Books], breathe: Breathe, label_of: LabelOf) -> Iterator[Metric]:
    """Index and ledger of every segment.

    Args:
        books: of the partition that keeps them, if this worker owns it.
        breathe: gives the same items, with breaths.
        label_of: segment → label value.
    """
    books = list(books)
    yield from _confidence([row for one in books for row in one.confidence.view()], breathe, label_of)
    yield from _ledger([account for one in books for account in one.ledger.view()], breathe, label_of)


def _confidence(rows: list[Standing], breathe: Breathe, label_of: LabelOf) -> Iterator[Metric]:
    gauges = {name: GaugeMetricFamily(name, meaning, labels=["segment"]) for name, (meaning, _) in GAUGES.items()}
    parts = GaugeMetricFamily(
        "trustwatch_confidence_part",
        "What each stage and indicator made of the change of the confidence index, points; forward is advancing.",
        labels=["segment", "stage", "indicator"],
    )
    for row in breathe(rows):
        segment = label_of(row.segment)
        for name, (_, read) in GAUGES.items():
            value = read(row)
            if value is not None:
                gauges[name].add_metric([segment], value)
        for part in row.parts:
            parts.add_metric([segment, part.stage, part.indicator], part.points)
    yield from gauges.values()
    yield parts


def _ledger(accounts: list[Account], breathe: Breathe, label_of: LabelOf) -> Iterator[Metric]:
    where = ["segment", "what"]
    gained = CounterMetricFamily(
        "trustwatch_ledger_gained", "What was gained by volume: mails, leads, visits, orders.", labels=where
    )
    cost = CounterMetricFamily(
        "trustwatch_ledger_cost",
        "What that cost: people who left, were ignored or got less than promised.",
        labels=where,
    )
    value = CounterMetricFamily("trustwatch_ledger_value", "Money, whole units, where events carry it.", labels=where)
    prices = GaugeMetricFamily(
        "trustwatch_ledger_price",
        "Cost by 1,000 gained: now over the last 7 days of event time, before over the 28 days before these.",
        labels=["segment", "what", "of", "when"],
    )
    traded = GaugeMetricFamily(
        "trustwatch_ledger_traded",
        "1 where volume rose over the last 7 days and its price rose beyond chance: trust was traded for it.",
        labels=["segment", "what", "of"],
    )
    for account in breathe(accounts):
        segment = label_of(account.segment)
        for family, counts in ((gained, account.gained), (cost, account.cost), (value, account.value)):
            for what, count in counts.items():
                if count is not None:
                    family.add_metric([segment, what], count)
        for price in account.prices:
            traded.add_metric([segment, price.cost, price.of], float(price.traded))
            for when, amount in (("now", price.now), ("before", price.before)):
                if amount is not None:
                    prices.add_metric([segment, price.cost, price.of, when], amount)
    yield from (gained, cost, value, prices, traded)
