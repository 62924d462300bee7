"""Mails, orders, cases, surveys and renewals: what is counted of them, when, and that nothing counts twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from detectors._stages import CONTACTS, CUSTOMERS
from streams.customers import MOST_KEPT, Customer, Customers, merged
from streams.events import Event
from streams.leads import DAY_S
from streams.settings import CustomerSettings
from tests.kit import T0, event, frame, section, sessionizer, settings_of, tally


def told(type_: str, day: float, **properties: Any) -> Event:
    return event(type_, day * DAY_S, "carla", properties=properties, id=f"{type_}{day}{properties}")


def counted(events: Sequence[Event], judged_day: float = 40.0) -> tuple[Counter[str], Customer, bool]:
    """What the events of one person count, in the order given, and whether they are forgotten by then."""
    counts: Counter[str] = Counter()
    rules = Customers(CustomerSettings(), lambda _who, _stage, field, many: counts.update({field: many}))
    customer = Customer("carla", T0)
    for one in events:
        rules.apply(customer, one)
    gone = rules.judge(customer, T0 + judged_day * DAY_S)
    return +counts, customer, gone


def test_the_dose_of_a_mail_is_what_came_in_the_seven_days_before() -> None:
    counts, _, _ = counted([told("email_sent", day) for day in (0, 1, 2, 3, 4, 5, 6, 6.5, 7, 20)])
    assert counts["sent"] == 10
    assert counts["dose_sum"] == 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 0
    assert {field: count for field, count in counts.items() if field.startswith("mail_n")} == {
        "mail_n_d0w0": 2, "mail_n_d1w0": 1, "mail_n_d2w0": 2, "mail_n_d3w0": 4, "mail_n_d4w0": 1,
    }  # fmt: skip


def test_who_opened_in_the_last_thirty_days_is_warm() -> None:
    counts, _, _ = counted([told("email_sent", 0), told("email_opened", 0.5), told("email_sent", 10),
                            told("email_sent", 31)], judged_day=60)  # fmt: skip
    assert (counts["mail_n_d0w0"], counts["mail_n_d0w1"]) == (2, 1)
    assert (counts["mail_reply_d0w0"], counts["opened"]) == (1, 1)


@pytest.mark.parametrize("kind", ["unsubscribed", "complained"])
@pytest.mark.parametrize(("after_days", "left"), [(0.1, 1), (2.9, 1), (3.1, 0)])
def test_who_leaves_is_told_of_the_last_mail_within_its_horizon(kind: str, after_days: float, left: int) -> None:
    counts, _, _ = counted([told("email_sent", 0), told("email_sent", 1), told(kind, 1 + after_days)])
    assert (counts[kind], counts["mail_left_d0w0"], counts["mail_left_d1w0"]) == (1, 0, left)


def test_a_mail_counts_only_once_its_horizon_has_passed() -> None:
    assert "mail_n_d0w0" not in counted([told("email_sent", 0)], judged_day=2.9)[0]
    assert counted([told("email_sent", 0)], judged_day=3.1)[0]["mail_n_d0w0"] == 1


@pytest.mark.parametrize(("delivered", "late"), [(4.9, 0), (5.1, 1), (None, 1)])
def test_an_order_is_late_that_was_not_delivered_as_promised(delivered: float | None, late: int) -> None:
    promised = T0 + 5 * DAY_S
    events = [told("order_placed", 0, promised_at=promised, value=49.6)]
    events += [] if delivered is None else [told("order_delivered", delivered, promised_at=promised, correct=True)]
    counts, _, _ = counted(events)
    assert (counts["ordered"], counts["value_ordered"], counts["due_n"], counts["due_late"]) == (1, 50, 1, late)


def test_news_of_a_delivery_may_come_a_day_late() -> None:
    promised = T0 + 5 * DAY_S
    counts: Counter[str] = Counter()
    rules = Customers(CustomerSettings(), lambda _who, _stage, field, many: counts.update({field: many}))
    customer = Customer("carla", T0)
    rules.apply(customer, told("order_placed", 0, promised_at=promised))
    rules.judge(customer, promised + 0.9 * DAY_S)
    rules.apply(customer, told("order_delivered", 4, promised_at=promised))
    rules.judge(customer, promised + 1.1 * DAY_S)
    assert (counts["due_n"], counts["due_late"]) == (1, 0)


def test_an_order_that_came_late_is_judged_once() -> None:
    promised = T0 + 5 * DAY_S
    counts: Counter[str] = Counter()
    rules = Customers(CustomerSettings(), lambda _who, _stage, field, many: counts.update({field: many}))
    customer = Customer("carla", T0)
    rules.apply(customer, told("order_placed", 0, promised_at=promised))
    rules.judge(customer, promised + 2 * DAY_S)
    rules.apply(customer, told("order_delivered", 9, promised_at=promised, correct=False))
    rules.judge(customer, promised + 20 * DAY_S)
    assert (counts["due_n"], counts["due_late"], counts["delivered_n"], counts["delivered_wrong"]) == (1, 1, 1, 1)


def test_a_delivery_of_an_order_that_we_never_saw_is_judged_by_its_own_promise() -> None:
    counts, _, _ = counted([told("order_delivered", 6, promised_at=T0 + 5 * DAY_S)])
    assert (counts["due_n"], counts["due_late"]) == (1, 1)


@pytest.mark.parametrize(("solved", "unsolved"), [(2.9, 0), (3.1, 1), (None, 1)])
def test_a_case_is_unsolved_after_its_horizon(solved: float | None, unsolved: int) -> None:
    events = [told("case_opened", 0), *([] if solved is None else [told("case_solved", solved)])]
    counts, _, _ = counted(events)
    assert (counts["case_n"], counts["case_unsolved"]) == (1, unsolved)


@pytest.mark.parametrize(
    ("kind", "score", "scale", "fields"),
    [("nps", 6, 10, {"nps_n", "nps_bad"}), ("nps", 7, 10, {"nps_n"}), ("nps", 9, 10, {"nps_n", "nps_good"}),
     ("csat", 3, 5, {"csat_n", "csat_bad"}), ("csat", 4, 5, {"csat_n"}), ("csat", 79, 100, {"csat_n", "csat_bad"}),
     ("ces", 4, 7, {"ces_n", "ces_bad"}), ("ces", 5, 7, {"ces_n"}), ("ces", 5, None, {"ces_n"}),
     ("mood", 1, 5, set())],
)  # fmt: skip
def test_answers_are_judged_on_the_scale_of_their_survey(
    kind: str, score: float, scale: float | None, fields: set[str]
) -> None:
    properties = {"kind": kind, "score": score, **({} if scale is None else {"scale_max": scale})}
    assert set(counted([told("survey_answered", 0, **properties)])[0]) == fields


def test_a_renewal_counts_by_what_the_customer_had_gone_through() -> None:
    bad = [told("order_placed", 0, promised_at=T0 + DAY_S), told("survey_answered", 1, kind="nps", score=2)]
    counts: Counter[str] = Counter()
    rules = Customers(CustomerSettings(), lambda _who, _stage, field, many: counts.update({field: many}))
    customer = Customer("carla", T0)
    for one in bad:
        rules.apply(customer, one)
    rules.judge(customer, T0 + 10 * DAY_S)
    rules.apply(customer, told("churned", 30))
    assert {field for field in counts if field.startswith("ind_")} == {"ind_late_renew_no", "ind_badscore_renew_no"}
    rules.apply(customer, told("renewed", 400))  # what was bad is long ago
    assert {field for field in counts if field.startswith("ind_")} == {"ind_late_renew_no", "ind_badscore_renew_no"}


def test_whoever_was_not_heard_of_for_long_is_forgotten() -> None:
    assert not counted([told("email_sent", 0)], judged_day=29)[2]
    assert counted([told("email_sent", 0)], judged_day=31)[2]
    assert not counted([told("survey_answered", 0, kind="nps", score=1)], judged_day=179)[2]


def test_what_is_kept_of_a_person_is_bounded() -> None:
    _, customer, _ = counted([told("email_sent", n / 1000) for n in range(500)], judged_day=0.6)
    assert len(customer.mails) == MOST_KEPT


def test_two_that_turn_out_to_be_one_are_joined_whichever_is_named_first() -> None:
    _, one, _ = counted([told("email_sent", 0), told("case_opened", 1)], judged_day=1.5)
    _, other, _ = counted([told("email_sent", 0.5), told("survey_answered", 1, kind="nps", score=1)], judged_day=1.5)
    other.person = "anna"
    assert merged(one, other, "anna") == merged(other, one, "anna")
    assert len(merged(one, other, "anna").mails) == 2


def line(events: Sequence[Event], until: float, cut: int | None = None) -> Any:
    """Through the stage; `cut`: restored from a snapshot after so many events."""
    stage, counts = sessionizer(settings_of()), []
    for n, one in enumerate(events):
        if n == cut:
            blob = stage.snapshot()
            stage = sessionizer(settings_of())
            stage.restore(blob)
        counts.append(stage.apply(frame(section([one], one.time - T0, first=n)), n))
    counts.append(stage.apply(frame(section([], until, first=len(events))), len(events)))
    return tally(counts), stage


def story(seed: int) -> list[Event]:
    rng = random.Random(seed)
    kinds = [("email_sent", {}), ("email_opened", {}), ("unsubscribed", {}), ("case_opened", {}), ("case_solved", {}),
             ("order_placed", {"promised_at": T0 + 4 * DAY_S}), ("order_delivered", {"promised_at": T0 + 4 * DAY_S}),
             ("survey_answered", {"kind": "nps", "score": 3.0}), ("churned", {})]  # fmt: skip
    days = sorted(rng.uniform(0, 12) for _ in range(60))
    chosen = [(day, *rng.choice(kinds)) for day in days]
    return [event(kind, day * DAY_S, rng.choice("abc"), properties=given, id=f"{n}")
            for n, (day, kind, given) in enumerate(chosen)]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_the_stage_counts_the_same_after_a_snapshot_and_restore(seed: int) -> None:
    events = story(seed)
    whole, one = line(events, 60 * DAY_S)
    cut, other = line(events, 60 * DAY_S, cut=30)
    assert whole == cut
    assert one.digest_part() == other.digest_part()
    assert whole[CONTACTS, "sent"] == sum(each.type == "email_sent" for each in events)
    assert whole[CUSTOMERS, "case_n"] == sum(each.type == "case_opened" for each in events)
    assert sum(whole[key] for key in whole if key[1].startswith("mail_n_")) == whole[CONTACTS, "sent"]


def test_an_erased_customer_is_gone() -> None:
    events = [told("email_sent", 0), told("order_placed", 0, promised_at=T0 + 9 * DAY_S), told("erasure_requested", 1)]
    counts, stage = line(events, 50 * DAY_S)
    assert not stage.state.customers
    assert counts[CUSTOMERS, "due_n"] == 0
    assert stage.state.totals.forgotten == 1


def test_customers_are_bounded_and_what_is_let_go_is_counted() -> None:
    stage = sessionizer(settings_of(limits={"customers": 2}))
    events = [event("email_sent", n, f"p{n}") for n in range(4)]
    stage.apply(frame(section(events, 100.0)), 0)
    assert len(stage.state.customers) == 2
    assert stage.state.totals.evicted == 2
