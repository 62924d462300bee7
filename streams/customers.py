"""What is sent to people and what they get: mails, orders, cases, surveys, renewals; judged once, at fixed horizons.

Like leads (`streams.leads`), CRM events come late and in any order, so a cohort counts only once its horizon has
passed, and what happened to it counts by the time that it happened, not by when it was told.

What is counted, and under which stage, is said in `CONTACT_FIELDS` and `CUSTOMER_FIELDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import msgspec

from detectors._stages import CONTACTS, CUSTOMERS
from streams.events import Event
from streams.leads import DAY_S, MOST_VALUE
from streams.settings import CustomerSettings

DOSE_S: Final = 7 * DAY_S
"""Mails that a person got within this time before a mail are its dose."""
WARM_S: Final = 30 * DAY_S
"""Whoever opened or clicked within this time is warm."""
BAD_S: Final = 180 * DAY_S
"""A bad experience is held against a renewal for so long."""
DOSES: Final = (1, 2, 4, 8)
"""Lower ends of the dose bands 1 to 4; band 0 is a first mail."""
MOST_KEPT: Final = 64
"""Mails, orders or cases of one person that are followed at once; the oldest are let go, uncounted."""
LATE, UNSOLVED, BAD_SCORE = range(3)
EXPERIENCES: Final = ("late", "unsolved", "badscore")
"""Bad experiences as they are named in counts: `ind_<experience>_renew_yes`."""
CUSTOMER_TYPES: Final = frozenset({
    "email_sent", "email_opened", "email_clicked", "unsubscribed", "complained", "order_placed", "order_delivered",
    "case_opened", "case_solved", "survey_answered", "renewed", "churned",
})  # fmt: skip
CONTACT_FIELDS: Final = {
    "sent": "mails sent", "opened": "mails opened", "clicked": "mails clicked", "unsubscribed": "people who left",
    "complained": "complaints", "dose_sum": "mails got in the 7 days before, summed over mails sent",
}  # fmt: skip
"""Field → what it counts, when it happens; beside them the cohorts `mail_n_…`, `mail_left_…`, `mail_reply_…`."""
CUSTOMER_FIELDS: Final = {
    "ordered": "orders", "value_ordered": "money of orders, whole units", "due_n": "orders whose promise has passed",
    "due_late": "of these, not delivered by then", "delivered_n": "deliveries", "delivered_wrong": "wrong ones",
    "case_n": "cases judged", "case_unsolved": "of these, not solved in time", "renewed": "renewals",
    "churned": "customers lost", "nps_n": "NPS answers", "nps_bad": "detractors", "nps_good": "promoters",
    "csat_n": "CSAT answers", "csat_bad": "below 4 of 5", "ces_n": "CES answers", "ces_bad": "below 5 of 7",
}  # fmt: skip
"""Field → what it counts."""
SCALES: Final = {"nps": 10.0, "csat": 5.0, "ces": 7.0}
"""Survey → the scale on which its borders are defined; answers on another scale are converted."""

Count = Callable[["Customer", str, str, int], None]
"""Adds to a field of a stage for the segments of a person: customer, stage, field, how much."""


class Mail(msgspec.Struct, array_like=True, gc=False):
    """A mail that was sent: when (event time, seconds), to which stratum it belongs, and what came of it."""

    sent: float
    stratum: str
    left: bool = False
    replied: bool = False
    judged: bool = False


class Order(msgspec.Struct, array_like=True, gc=False):
    """An order: when it was promised and delivered (event time, seconds; None: not yet)."""

    placed: float
    promised: float
    delivered: float | None = None
    judged: bool = False


class Case(msgspec.Struct, array_like=True, gc=False):
    """A case: when it was opened and solved (event time, seconds; None: not yet)."""

    opened: float
    solved: float | None = None


class Customer(msgspec.Struct, array_like=True, gc=False):
    """What is known of one person beside their lead.

    Attributes:
        person: pseudonym.
        seen: event time of the latest event, seconds.
        segment: labels of all their events; the first value of a label stays.
        mails: those of the last days, oldest first.
        replied: when they last opened or clicked, event time, seconds; None: never.
        orders: those promised lately.
        cases: those that wait for their horizon.
        bad: event time of the last bad experience of each kind (`EXPERIENCES`); None: none.
        timer: number of the bucket in which they are looked at next.
    """

    person: str
    seen: float
    segment: dict[str, str] = {}
    mails: list[Mail] = []
    replied: float | None = None
    orders: list[Order] = []
    cases: list[Case] = []
    bad: list[float | None] = msgspec.field(default_factory=lambda: [None, None, None])
    timer: int | None = None


ThingT = TypeVar("ThingT", Mail, Order, Case)


def merged(one: Customer, other: Customer, person: str) -> Customer:
    """Two that turn out to be one person, as one; the same whichever is named first."""
    first, second = sorted((one, other), key=lambda each: (each.seen, each.person))
    return Customer(
        person, max(one.seen, other.seen), {**second.segment, **first.segment},
        _newest([*one.mails, *other.mails], lambda mail: mail.sent),
        _latest(one.replied, other.replied),
        _newest([*one.orders, *other.orders], lambda order: order.promised),
        _newest([*one.cases, *other.cases], lambda case: case.opened),
        [_latest(a, b) for a, b in zip(one.bad, other.bad, strict=True)],
    )  # fmt: skip


class Customers:
    """The rules; `Customer` holds the state.

    Args:
        settings: horizons.
        count: called for everything that is to be counted.
    """

    def __init__(self, settings: CustomerSettings, count: Count) -> None:
        self._count = count
        self._mail_s = settings.mail_horizon_days * DAY_S
        self._case_s = settings.case_horizon_days * DAY_S
        self._wait_s = settings.delivery_wait_days * DAY_S
        self._take = {
            "email_sent": self._sent, "email_opened": self._replied, "email_clicked": self._replied,
            "unsubscribed": self._left, "complained": self._left, "order_placed": self._placed,
            "order_delivered": self._delivered, "case_opened": self._opened, "case_solved": self._solved,
            "survey_answered": self._answered, "renewed": self._decided, "churned": self._decided,
        }  # fmt: skip

    def apply(self, customer: Customer, event: Event) -> None:
        """Take up one event of `CUSTOMER_TYPES`."""
        for label, value in event.segment.items():
            customer.segment.setdefault(label, value)
        customer.seen = max(customer.seen, event.time)
        self._take[event.type](customer, event)

    def next_due(self, customer: Customer) -> float:
        """Event time at which something of this person is to be judged or forgotten, seconds."""
        return min(self._deadlines(customer))

    def judge(self, customer: Customer, now: float) -> bool:
        """Count every horizon that has passed before `now`; True if nothing is left to know of this person."""
        for mail in customer.mails:
            if not mail.judged and mail.sent + self._mail_s < now:
                self._judge_mail(customer, mail)
        for order in customer.orders:
            if not order.judged and order.promised + self._wait_s < now:
                self._judge_order(customer, order)
        for case in customer.cases:
            if case.opened + self._case_s < now:
                self._judge_case(customer, case)
        customer.mails = [mail for mail in customer.mails if not mail.judged or mail.sent + DOSE_S >= now]
        customer.orders = [order for order in customer.orders if not self._is_past(order, now)]
        customer.cases = [case for case in customer.cases if case.opened + self._case_s >= now]
        customer.bad = [at if at is not None and at + BAD_S >= now else None for at in customer.bad]
        return self._forget_at(customer) < now

    # ── horizons ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _deadlines(self, customer: Customer) -> Iterator[float]:
        yield from (mail.sent + self._mail_s for mail in customer.mails if not mail.judged)
        yield from (order.promised + self._wait_s for order in customer.orders if not order.judged)
        yield from (case.opened + self._case_s for case in customer.cases)
        yield self._forget_at(customer)

    def _forget_at(self, customer: Customer) -> float:
        waits = [customer.seen + WARM_S]
        waits += [at + BAD_S for at in customer.bad if at is not None]
        waits += [order.promised + self._wait_s + WARM_S for order in customer.orders]
        return max(waits)

    def _is_past(self, order: Order, now: float) -> bool:
        """An order is kept for some time after it was judged, so that its delivery is not taken for another's."""
        return order.judged and (order.delivered is not None or order.promised + self._wait_s + WARM_S < now)

    def _judge_mail(self, customer: Customer, mail: Mail) -> None:
        mail.judged = True
        self._count(customer, CONTACTS, f"mail_n_{mail.stratum}", 1)
        if mail.left:
            self._count(customer, CONTACTS, f"mail_left_{mail.stratum}", 1)
        if mail.replied:
            self._count(customer, CONTACTS, f"mail_reply_{mail.stratum}", 1)

    def _judge_order(self, customer: Customer, order: Order) -> None:
        order.judged = True
        late = order.delivered is None or order.delivered > order.promised
        self._judge_promise(customer, order.promised, late=late)

    def _judge_promise(self, customer: Customer, promised: float, *, late: bool) -> None:
        self._count(customer, CUSTOMERS, "due_n", 1)
        if late:
            self._count(customer, CUSTOMERS, "due_late", 1)
            self._note_bad(customer, LATE, promised)

    def _judge_case(self, customer: Customer, case: Case) -> None:
        self._count(customer, CUSTOMERS, "case_n", 1)
        if case.solved is None or case.solved > case.opened + self._case_s:
            self._count(customer, CUSTOMERS, "case_unsolved", 1)
            self._note_bad(customer, UNSOLVED, case.opened + self._case_s)

    @staticmethod
    def _note_bad(customer: Customer, what: int, at: float) -> None:
        customer.bad[what] = _latest(customer.bad[what], at)

    # ── mails ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _sent(self, customer: Customer, event: Event) -> None:
        dose = sum(event.time - DOSE_S <= mail.sent < event.time for mail in customer.mails)
        warm = customer.replied is not None and 0.0 <= event.time - customer.replied <= WARM_S
        stratum = f"d{sum(dose >= least for least in DOSES)}w{int(warm)}"
        customer.mails = _newest([*customer.mails, Mail(event.time, stratum)], lambda mail: mail.sent)
        self._count(customer, CONTACTS, "sent", 1)
        self._count(customer, CONTACTS, "dose_sum", dose)

    def _replied(self, customer: Customer, event: Event) -> None:
        self._count(customer, CONTACTS, event.type.removeprefix("email_"), 1)
        customer.replied = _latest(customer.replied, event.time)
        mail = self._last_mail(customer, event.time)
        if mail is not None:
            mail.replied = True

    def _left(self, customer: Customer, event: Event) -> None:
        self._count(customer, CONTACTS, event.type, 1)
        mail = self._last_mail(customer, event.time)
        if mail is not None:
            mail.left = True

    def _last_mail(self, customer: Customer, time: float) -> Mail | None:
        """The mail that somebody answers to: the last before, within its horizon."""
        before = [mail for mail in customer.mails if mail.sent <= time]
        last = before[-1] if before else None
        return last if last is not None and not last.judged and time <= last.sent + self._mail_s else None

    # ── orders, cases, surveys, renewals ──────────────────────────────────────────────────────────────────────────

    def _placed(self, customer: Customer, event: Event) -> None:
        self._count(customer, CUSTOMERS, "ordered", 1)
        value, promised = event.properties.get("value"), event.properties.get("promised_at")
        if isinstance(value, int | float) and 0 < value < MOST_VALUE:
            self._count(customer, CUSTOMERS, "value_ordered", round(value))
        if isinstance(promised, int | float):
            orders = [*customer.orders, Order(event.time, float(promised))]
            customer.orders = _newest(orders, lambda order: order.promised)

    def _delivered(self, customer: Customer, event: Event) -> None:
        self._count(customer, CUSTOMERS, "delivered_n", 1)
        if event.properties.get("correct") is False:
            self._count(customer, CUSTOMERS, "delivered_wrong", 1)
        promised = event.properties.get("promised_at")
        order = self._order_of(customer, event.time, promised)
        if order is not None:
            order.delivered = event.time
        elif isinstance(promised, int | float):  # an order that was placed before we looked
            self._judge_promise(customer, float(promised), late=event.time > promised)

    @staticmethod
    def _order_of(customer: Customer, time: float, promised: object) -> Order | None:
        """The order that a delivery belongs to: the one of this promise, or the oldest that is open."""
        waiting = [order for order in customer.orders if order.delivered is None and order.placed <= time]
        if isinstance(promised, int | float):
            waiting = [order for order in waiting if order.promised == promised]
        return min(waiting, key=lambda order: (order.placed, order.promised), default=None)

    def _opened(self, customer: Customer, event: Event) -> None:
        customer.cases = _newest([*customer.cases, Case(event.time)], lambda case: case.opened)

    def _solved(self, customer: Customer, event: Event) -> None:
        waiting = [case for case in customer.cases if case.solved is None and case.opened <= event.time]
        if waiting:
            waiting[0].solved = event.time

    def _answered(self, customer: Customer, event: Event) -> None:
        kind, score = event.properties.get("kind"), event.properties.get("score")
        scale = SCALES.get(kind) if isinstance(kind, str) else None
        if scale is None or not isinstance(score, int | float):
            return
        most = event.properties.get("scale_max")
        if isinstance(most, int | float) and most > 0:
            score = score * scale / most
        self._count(customer, CUSTOMERS, f"{kind}_n", 1)
        if score < {"nps": 7.0, "csat": 4.0, "ces": 5.0}[str(kind)]:
            self._count(customer, CUSTOMERS, f"{kind}_bad", 1)
            self._note_bad(customer, BAD_SCORE, event.time)
        elif kind == "nps" and score >= 9.0:
            self._count(customer, CUSTOMERS, "nps_good", 1)

    def _decided(self, customer: Customer, event: Event) -> None:
        self._count(customer, CUSTOMERS, event.type, 1)
        suffix = "yes" if event.type == "renewed" else "no"
        for name, at in zip(EXPERIENCES, customer.bad, strict=True):
            if at is not None and 0.0 <= event.time - at <= BAD_S:
                self._count(customer, CUSTOMERS, f"ind_{name}_renew_{suffix}", 1)


def _latest(one: float | None, other: float | None) -> float | None:
    return max((time for time in (one, other) if time is not None), default=None)


def _newest(things: list[ThingT], when: Callable[[ThingT], float]) -> list[ThingT]:
    """In the order of their times, as many of the newest as are followed."""
    return sorted(things, key=when)[-MOST_KEPT:]
