"""Complaints a day against the limits of mailbox providers: absolute, no baseline.

Gmail's and Yahoo's guidelines for bulk senders (since February 2024; support.google.com/a/answer/81126,
senders.yahooinc.com/best-practices) ask to keep the rate of mails reported as spam below 0.1 % and never to
reach 0.3 %; both reckon by day.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p, sqrt
from typing import Final, Literal

import msgspec

from detectors._baseline import DAY_S
from detectors._intervals import wilson

MEMORY_DAYS: Final = 28.0
DENOMINATOR_DAYS: Final = 4
"""Days, with the running one, whose largest number of mails complaints are measured by: they come on the days after."""
MANY: Final = 100
"""Complaints from which on the normal law is good enough."""
Standing = Literal["ok", "warn", "alert"]


class Day(msgspec.Struct, array_like=True):
    """Mails sent on a day, and complaints that came on it."""

    sent: int = 0
    complained: int = 0


class MailboxState(msgspec.Struct, array_like=True):
    """State of `Mailbox`.

    Attributes:
        day: the running day, days since the epoch; -1 before the first.
        days: the last days, oldest first; the last is the running one.
        standing: which limit is exceeded.
        since: first day on which it was, event time, seconds.
        usual: mails and complaints of days within all limits; fade.
        over: the same since the limit is exceeded.
    """

    day: int = -1
    days: list[Day] = []
    standing: Standing = "ok"
    since: float = 0.0
    usual: tuple[float, float] = (0.0, 0.0)
    over: tuple[float, float] = (0.0, 0.0)


class Mailbox:
    """Whether more mails are complained of in a day than mailbox providers stand.

    A limit is exceeded once the lower confidence bound of the day's rate is above it, and until a whole day's rate was
    at or under it. Complaints come hours or days after the mail, so on a day with few mails they are measured by the
    largest of the last days: a Monday's newsletter is no scandal on Tuesday.

    Args:
        limits: that warn, and that alert; shares.
        confidence: of the lower bound, one-sided.
        least: complaints in a day below which nothing is said.
        state: taken up and changed in place.
    """

    def __init__(self, limits: tuple[float, float], confidence: float, least: int, state: MailboxState) -> None:
        self.limits = limits
        self.state = state
        self._chance = 1.0 - confidence
        self._least = least

    @property
    def mails(self) -> int:
        """Mails that complaints of the running day are measured by."""
        return max([day.sent for day in self.state.days], default=0)

    def observe(self, ts: float, sent: int, complained: int) -> Standing:
        """Count mails and complaints of event time `ts`, seconds."""
        state, today = self.state, int(ts // DAY_S)
        if today > state.day:
            self._turn(today)
        last = state.days[-1]
        last.sent, last.complained = last.sent + sent, last.complained + complained
        if complained:
            self._judge()
        return state.standing

    def _judge(self) -> None:
        state = self.state
        found = self._exceeded(state.days[-1].complained, self.mails)
        if found == "ok" or state.standing in ("alert", found):
            return
        if state.standing == "ok":
            state.since, state.over = state.day * DAY_S, (0.0, 0.0)
        state.standing = found

    def _exceeded(self, k: int, n: int) -> Standing:
        for limit, standing in ((self.limits[1], "alert"), (self.limits[0], "warn")):
            if k >= self._least and n and k > limit * n and surely_above(limit, k, n, self._chance):
                return "alert" if standing == "alert" else "warn"
        return "ok"

    def _turn(self, today: int) -> None:
        """Close the running day."""
        state = self.state
        if state.days:
            k, n = state.days[-1].complained, state.days[-1].sent
            if state.standing == "ok":
                keep = exp(-1.0 / MEMORY_DAYS)
                state.usual = (state.usual[0] * keep + n, state.usual[1] * keep + k)
            else:
                state.over = (state.over[0] + n, state.over[1] + k)
                rate, passed = k / max(self.mails, 1), today - state.day > 1
                if passed or rate <= self.limits[0]:
                    state.standing = "ok"
                elif rate <= self.limits[1]:
                    state.standing = "warn"
        gone = min(today - state.day, DENOMINATOR_DAYS)
        state.days = [*state.days, *[Day() for _ in range(gone)]][-DENOMINATOR_DAYS:]
        state.day = today

    def rates(self) -> tuple[float, float, float, float]:
        """(rate before, mails behind it, rate since the limit is exceeded, mails behind that).

        Without a day within the limits before it, the limit stands for the rate before, and these mails behind it.
        """
        state, last = self.state, self.state.days[-1]
        n, k = state.over[0] + last.sent, state.over[1] + last.complained
        n = max(n, float(self.mails), 1.0)
        if state.usual[0] < 1.0:
            return self.limits[0], n, k / n, n
        return state.usual[1] / state.usual[0], state.usual[0], k / n, n

    def evidence(self) -> dict[str, float]:
        """The running day against the limits; the interval is of the whole time since a limit is exceeded, 95 %."""
        last, mails = self.state.days[-1], max(self.mails, 1)
        _, _, rate, n = self.rates()
        low, high = wilson(rate * n, n)
        return {
            "limit_warn": self.limits[0], "limit_alert": self.limits[1], "complaints_today": float(last.complained),
            "mails_today": float(last.sent), "measured_by_mails": float(mails), "rate_today": last.complained / mails,
            "effect_low": low, "effect_high": high, "mails_too_many_complaints": max(0.0, (rate - self.limits[0]) * n),
        }  # fmt: skip


def surely_above(limit: float, k: int, n: int, chance: float) -> bool:
    """Whether `k` complaints of `n` mails would come by a rate of `limit` with less than this chance (Clopper & Pearson 1934).

    >>> surely_above(0.003, 1, 50, 0.001), surely_above(0.003, 9, 500, 0.001)
    (False, True)
    """  # noqa: E501
    if k >= n:
        return k * log(limit) < log(chance)
    if k > MANY:
        return (k - n * limit) / sqrt(n * limit * (1.0 - limit)) > sqrt(-2.0 * log(chance))
    below = sum(
        [exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(limit) + (n - i) * log1p(-limit))
         for i in range(k)]
    )  # fmt: skip
    return 1.0 - below < chance
