"""Index and ledger together: what each is told, one state, and their metrics."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from streams.books import Books
from streams.confidence import Gain
from streams.metrics import segment_label
from streams.metrics_confidence import families

STAGES = ("discover", "evaluate", "compare", "decide", "buy", "keep")
GAINS = [Gain("evaluate", "u_turn", 0.02, -0.9, "proven")]
MOBILE = (("device", "mobile"),)


def kept(days: int = 9) -> Books:
    books = Books(STAGES)
    for hour in range(24 * days):
        fell = hour >= 24 * 8
        for segment in ((), MOBILE):
            advanced = 2 if fell and segment else 6
            books.observe(hour * 3600.0, "journey", segment, {
                "at_all_evaluate": advanced, "not_at_all_evaluate": 12 - advanced, "entered_evaluate": 12,
                "dropped_evaluate": 12 - advanced, "ind_u_turn_no_evaluate": 1, "advanced_buy": 1, "value_buy": 30,
            })  # fmt: skip
            books.observe(hour * 3600.0, "contacts", segment, {"sent": 100, "unsubscribed": 1})
            books.observe(hour * 3600.0, "evaluate", segment, {"at_all": 999, "sent": 999})
        books.settle((hour + 1) * 3600.0, GAINS)
    return books


class Metrics(Collector):
    def __init__(self, books: list[Books]) -> None:
        self.books = books

    def collect(self):  # type: ignore[no-untyped-def]
        return families(self.books, iter, segment_label)


def exposed(*books: Books) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Metrics(list(books)))
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_metrics_tell_what_the_books_say() -> None:
    books = kept()
    told = exposed(books)
    row = next(row for row in books.confidence.view() if row.segment == MOBILE)
    assert row.index is not None and row.index < 45 and row.change is not None
    mobile = '{segment="device=mobile"}'
    assert told[f"trustwatch_confidence_index{mobile}"] == row.index
    low, high = told[f"trustwatch_confidence_low{mobile}"], told[f"trustwatch_confidence_high{mobile}"]
    assert low < row.index < high < told[f"trustwatch_confidence_baseline{mobile}"]
    parts = [
        value for name, value in told.items() if name.startswith("trustwatch_confidence_part") and "mobile" in name
    ]
    assert len(parts) == len(STAGES) + 1
    assert sum(parts) == pytest.approx(told[f"trustwatch_confidence_change{mobile}"]) == pytest.approx(row.change)
    assert told['trustwatch_confidence_part{indicator="u_turn",segment="device=mobile",stage="evaluate"}'] == 0.0
    assert told['trustwatch_ledger_gained_total{segment="all",what="mails"}'] == 24 * 9 * 100
    assert told['trustwatch_ledger_cost_total{segment="all",what="dropped_early"}'] == 24 * 9 * 6
    assert told['trustwatch_ledger_value_total{segment="device=mobile",what="bought"}'] == 24 * 9 * 30
    assert told['trustwatch_ledger_price{of="mails",segment="all",what="unsubscribed",when="now"}'] == 10.0
    assert told['trustwatch_ledger_traded{of="mails",segment="all",what="unsubscribed"}'] == 0.0


def test_nothing_is_exposed_of_fewer_than_five_and_all_families_are_there_without_books() -> None:
    books = Books(STAGES)
    books.observe(0.0, "contacts", (), {"sent": 4})
    books.observe(0.0, "journey", (), {"at_all_buy": 2, "not_at_all_buy": 2})
    books.settle(8 * 86_400.0)
    told = exposed(books)
    assert 'trustwatch_ledger_gained_total{segment="all",what="mails"}' not in told
    assert not [name for name in told if name.startswith(("trustwatch_confidence", "trustwatch_ledger_price"))]
    assert len(list(families([], iter, segment_label))) == 11


def test_one_state_for_both() -> None:
    books, again = kept(8), Books(STAGES)
    again.restore(books.snapshot())
    assert again.snapshot() == books.snapshot() and again.confidence.view() == books.confidence.view()
    assert again.ledger.view() == books.ledger.view()
    for blob in (b"", books.snapshot()[:-1], Books(STAGES).confidence.snapshot()):
        with pytest.raises(msgspec.DecodeError):
            Books(STAGES).restore(blob)
    with pytest.raises(msgspec.DecodeError):
        Books(STAGES[1:]).restore(books.snapshot())
