"""The trust ledger: what volume cost, exact and bounded, without telling of a few."""

from __future__ import annotations

import random

import msgspec
import pytest

from streams.frames import Segment
from streams.ledger import DAYS, MEMORY_DAYS, MOST_SEGMENTS, Account, Ledger, Price, entries, price

DAY = 86_400.0
ADS: Segment = (("channel", "ads"),)
LEADS_DAY = {"created": 60, "handed_over": 50, "rejected": 10, "touch_48h_n": 50, "touch_48h_k": 38, "won": 6,
             "value_won": 900}  # fmt: skip


def fill(ledger: Ledger, days: range, stage: str, counts: dict[str, int], segment: Segment = ()) -> None:
    for day in days:
        ledger.observe(day * DAY, stage, segment, counts)
        ledger.settle((day + 1) * DAY)


def account(ledger: Ledger, segment: Segment = ()) -> Account:
    return next(one for one in ledger.view() if one.segment == segment)


def paid(ledger: Ledger, cost: str) -> Price:
    return next(one for one in account(ledger).prices if one.cost == cost)


def test_every_line_is_added_up_from_its_own_stage() -> None:
    ledger = Ledger()
    fill(ledger, range(3), "leads", LEADS_DAY)
    journey = {"entered_discover": 100, "entered_evaluate": 40, "dropped_evaluate": 25, "entered_buy": 9,
               "dropped_buy": 7, "advanced_buy": 8, "value_buy": 500}  # fmt: skip
    fill(ledger, range(3), "journey", journey)
    fill(ledger, range(3), "contacts", {"sent": 1000, "unsubscribed": 5, "complained": 2, "created": 77})
    fill(ledger, range(3), "customers", {"ordered": 20, "value_ordered": 400, "due_n": 18, "due_late": 3,
                                         "delivered_wrong": 2, "case_unsolved": 4, "churned": 0})  # fmt: skip
    fill(ledger, range(3), "evaluate", {"sent": 1000, "created": 9})
    found = account(ledger)
    assert found.gained == {"mails": 3000, "leads": 180, "handovers": 150, "early_visits": 420, "purchases": 24,
                            "wins": 18, "orders": 60}  # fmt: skip
    assert found.cost == {"unsubscribed": 15, "complained": 6, "rejected": 30, "ignored": 36, "dropped_early": 75,
                          "late": 9, "wrong": 6, "unsolved": 12, "churned": 0}  # fmt: skip
    assert found.value == {"bought": 1500, "won": 2700, "ordered": 1200}


def test_trust_is_traded_where_volume_and_its_price_rise_beyond_chance() -> None:
    ledger = Ledger()
    fill(ledger, range(28), "contacts", {"sent": 1000, "unsubscribed": 2, "complained": 1})
    fill(ledger, range(28, 35), "contacts", {"sent": 2500, "unsubscribed": 15, "complained": 3})
    left, complained = paid(ledger, "unsubscribed"), paid(ledger, "complained")
    assert (left.before, left.now, left.volume_ratio, left.traded) == (2.0, 6.0, 2.5, True)
    assert 1.0 < (left.ratio_low or 0.0) < 3.0 < (left.ratio_high or 0.0)
    assert (complained.now, complained.traded) == (1.2, False)  # a fifth more of so few is chance


def test_more_volume_at_the_old_price_and_a_higher_price_at_the_old_volume_are_no_trade() -> None:
    ledger = Ledger()
    fill(ledger, range(28), "leads", LEADS_DAY)
    fill(ledger, range(28, 35), "leads", {field: 3 * count for field, count in LEADS_DAY.items()})
    assert not any(one.traded for one in account(ledger).prices) and paid(ledger, "ignored").volume_ratio == 3.0
    worse = Ledger()
    fill(worse, range(28), "leads", LEADS_DAY)
    fill(worse, range(28, 35), "leads", LEADS_DAY | {"touch_48h_k": 5})
    assert paid(worse, "ignored").now == 900.0 and not paid(worse, "ignored").traded


@pytest.mark.parametrize("seed", range(3))
def test_a_steady_price_is_called_traded_no_more_often_than_chance(seed: int) -> None:
    entry, rng = entries()[7], random.Random(seed)
    called = 0
    for _ in range(1000):
        now, before = (sum(rng.random() < 0.01 for _ in range(n)) for n in (900, 2400))
        called += price(entry, (now, 900), (before, 2400), 7.0).traded
    assert called <= 40  # 2.5 % on this side


def test_days_become_weeks_and_are_forgotten_but_totals_stay() -> None:
    ledger = Ledger()
    fill(ledger, range(500), "leads", LEADS_DAY)
    days = ledger.days(())
    lengths = [one.days for one in days]  # today is one of the days, and has nothing yet
    assert lengths[1 - DAYS :] == [1] * (DAYS - 1) and set(lengths[: 1 - DAYS]) == {7}
    assert MEMORY_DAYS <= (days[-1].from_s - days[0].from_s) / DAY + 1 < MEMORY_DAYS + 7
    assert days[3].counts["leads"] == 7 * 60 and account(ledger).gained["leads"] == 500 * 60
    assert len(ledger.snapshot()) < 5000
    ledger.settle(1000 * DAY)
    assert ledger.view() == ()


def test_fewer_than_five_people_are_not_told_anywhere() -> None:
    ledger = Ledger()
    fill(ledger, range(10), "leads", {"created": 40, "won": 0})
    fill(ledger, range(3, 4), "leads", {"rejected": 4, "won": 3, "value_won": 999})
    found = account(ledger)
    assert found.cost["rejected"] is None and found.gained["wins"] is None and found.value["won"] is None
    assert paid(ledger, "rejected").now is None
    fill(ledger, range(5, 8), "leads", {"rejected": 10, "won": 2, "value_won": 10})
    told = [one.counts["rejected"] for one in ledger.days(())]
    assert account(ledger).cost["rejected"] == 34
    assert told == [0, 0, 0, None, 0, None, 10, 10, 0, 0]  # the 4 would follow from the total
    assert [one.counts["won"] for one in ledger.days(())][3] is None


def test_order_and_snapshots_change_nothing() -> None:
    cells = [(day * DAY + 10.0 * i, stage, segment, {**LEADS_DAY, "sent": 7 * i, "unsubscribed": day % 5})
             for day in range(80) for i, (stage, segment) in enumerate(
                 (stage, segment) for stage in ("leads", "contacts") for segment in ((), ADS))]  # fmt: skip
    one, other = Ledger(), Ledger()
    for day in range(80):
        todays = [cell for cell in cells if cell[0] // DAY == day]
        for cell in todays:
            one.observe(*cell)
        one.settle((day + 1) * DAY)
        for cell in reversed(todays):
            other.observe(*cell)
            again = Ledger()
            again.restore(other.snapshot())
            other = again
        other.settle((day + 1) * DAY)
    assert one.snapshot() == other.snapshot() and one.view() == other.view() and one.days(ADS) == other.days(ADS)


def test_segments_are_bounded_and_a_foreign_state_is_refused() -> None:
    ledger = Ledger()
    for i in range(MOST_SEGMENTS + 7):
        ledger.observe(0.0, "leads", (("source", f"{i:04d}"),), {"created": 9})
    ledger.observe(0.0, "leads", (), {"created": 9})
    ledger.observe(0.0, "leads", (("source", "other"),), {"touched": 9})
    assert len(ledger.view()) == MOST_SEGMENTS + 1 and ledger.left_out == 7
    with pytest.raises(msgspec.DecodeError):
        Ledger().restore(ledger.snapshot()[:-1])
    state = msgspec.msgpack.decode(ledger.snapshot())
    state["layout"][0] = "letters"
    with pytest.raises(msgspec.DecodeError):
        Ledger().restore(msgspec.msgpack.encode(state))
