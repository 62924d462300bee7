"""How fast a guardrail's budget burns, in bad events against the learnt baseline; pure, in event time.

The budget of a window is a number of excess bad events: with a limit L, (L - baseline) of its events; with a budget B,
B times the bad events that the baseline expects of them. The burn rate over a shorter window is the excess in it
against that window's part of the budget, so 1 spends the budget exactly, and 14.4 over an hour spends 2 % of 30 days.
Against the baseline, because a budget of 40 % bad can never burn at 14.4 times; where even the excess could not
(everything bad is less than that), half of what it could at most is enough.

A rule needs both of its windows (Beyer et al. 2018, The Site Reliability Workbook, ch. 5), the short one so that it
ends soon. Little traffic never pages: the excess in the long window must be `LEAST_EXCESS` events, and beyond chance by
a Chernoff bound on the Poisson tail, widened by what is not known of the baseline and by how hours vary beyond chance.

The baseline (`detectors._cycle`: daily and weekly cycle) learns hours a day late, and none of a breach. It accepts no
worse level by itself before a breach of a budget is as old as its window; of a limit it never does.
"""

from __future__ import annotations

from math import inf, log
from typing import Final, Literal, NamedTuple

import msgspec

from detectors._baseline import DAY_S, HOUR_S
from detectors._cycle import Cycle, CycleState

BIN_S: Final = 300.0
FINE: Final = 72
"""Bins kept: 6 h."""
HOURS_KEPT: Final = 97
"""Three days, and one more until which hours wait to be learnt."""
LATE_H: Final = 24
"""Hours until an hour is learnt from: by then it is known whether it belongs to a breach."""
WARM_H: Final = 168
"""Hours before a budget is judged: a week, weekends included. A limit is judged at once."""
WARM_BAD: Final = 20.0
"""Bad events in them."""
MEMORY_S: Final = 56 * DAY_S
LEAST_EXCESS: Final = 10.0
"""Excess bad events in the long window before anybody is told."""
SURE_PAGE: Final = 12.0
"""Nats by which the excess of the long window must be beyond chance to wake someone …"""
SURE_TICKET: Final = 6.0
"""… and to write a ticket."""
CAREFUL: Final = 2.0
"""Standard errors by which the baseline is moved to the careful side in that test."""
NEAR: Final = 0.9
"""Share of a limit that the baseline counts for at most: who is above the limit already has a budget that is spent."""
CALM_S: Final = 3600.0
"""A breach is over when no rule has held for so long, and `CALM_WINDOWS` times its short window, or …"""
CALM_WINDOWS: Final = 4
CALM_WINDOW_S: Final = 7200.0
"""… this time if it is longer, burns at less than half of what it took."""
MOST_BREACHES: Final = 50
MOST_CARRIED: Final = 1_000_000
Level = Literal["ticket", "page"]
State = Literal["learning", "ok", "ticket", "page"]


class Rule(NamedTuple):
    """Burning so many times as fast as the window allows, in both windows (seconds), is of this urgency."""

    factor: float
    short_s: float
    long_s: float
    level: Level


RULES: Final = (
    Rule(14.4, 300.0, 3600.0, "page"),
    Rule(6.0, 1800.0, 21_600.0, "page"),
    Rule(3.0, 7200.0, 86_400.0, "ticket"),
    Rule(1.0, 21_600.0, 259_200.0, "ticket"),
)
WINDOWS: Final[dict[float, str]] = {
    300.0: "5m", 1800.0: "30m", 3600.0: "1h", 7200.0: "2h", 21_600.0: "6h", 86_400.0: "1d", 259_200.0: "3d",
}  # fmt: skip
"""Seconds → what a window is called; all that the rules look at."""

Sums = tuple[int, int, float]
"""Bad events, all events, and bad events expected of them."""


class Ring(msgspec.Struct, array_like=True):
    """Sums of the last so many slots; kept as running totals, so that any window is one subtraction.

    Attributes:
        slot: the running slot; -1 before the first.
        totals: all that came until the end of each slot, oldest first; before them what came earlier.

    >>> ring = Ring()
    >>> for slot, bad in ((10, 1), (10, 2), (13, 4)):
    ...     ring.add(slot, (bad, 10, 1.5), most=3)
    >>> ring.last(3), ring.last(1), ring.at(0), len(ring)
    ((4, 10, 1.5), (4, 10, 1.5), (0, 0, 0.0), 3)
    """

    slot: int = -1
    totals: list[Sums] = msgspec.field(default_factory=lambda: [(0, 0, 0.0)])

    def __len__(self) -> int:
        """Slots that are known."""
        return len(self.totals) - 1

    def add(self, slot: int, sums: Sums, most: int) -> None:
        """Add to a slot; it never goes back."""
        totals = self.totals
        if slot > self.slot:
            quiet = min(slot - self.slot - 1, most) if self.slot >= 0 else 0
            totals.extend([totals[-1]] * (quiet + 1))
            del totals[: -most - 1]
            self.slot = slot
        bad, total, expected = totals[-1]
        totals[-1] = (bad + sums[0], total + sums[1], expected + sums[2])

    def last(self, count: int) -> Sums:
        """The sums of the last so many slots."""
        totals = self.totals
        return _less(totals[-1], totals[max(len(totals) - 1 - count, 0)])

    def at(self, index: int) -> Sums:
        """The sums of one slot, counted from the oldest."""
        return _less(self.totals[index + 1], self.totals[index])


class Breach(msgspec.Struct, array_like=True):
    """One time that a guardrail was hit.

    Attributes:
        onset: since when the excess grew, event time, seconds.
        begun: when a rule held first, event time, seconds.
        level: most urgent so far.
        rule: the short and the long window of the rule that made it so.
        bad: bad events since the onset.
        total: all events since the onset.
        expected: bad events that the baseline expected of them.
        held_at: when a rule held last.
        worst: highest burn rate of the long window of `rule`.
        ended: when it was over; None while it goes on.
        accepted: it lasted as long as its window, and what is normal is learnt anew.
        acknowledged: when the owner said so, event time; None if not yet.
        note: what they said.
    """

    onset: float
    begun: float
    level: Level
    rule: tuple[str, str]
    bad: int
    total: int
    expected: float
    held_at: float
    worst: float
    ended: float | None = None
    accepted: bool = False
    acknowledged: float | None = None
    note: str = ""

    @property
    def excess(self) -> float:
        """Bad events more than expected since the onset."""
        return self.bad - self.expected

    @property
    def response_s(self) -> float | None:
        """Seconds from the moment it could be told until it was acknowledged."""
        return None if self.acknowledged is None else max(self.acknowledged - self.begun, 0.0)


class BurnState(msgspec.Struct, array_like=True):
    """All that one guardrail has learnt.

    Attributes:
        base: the baseline of the bad share.
        open_bin: number of the bin that is being counted; -1 before anything came.
        bad: bad events in it.
        total: all events in it.
        all_bad: bad events since the beginning.
        all_total: all events since the beginning.
        since: event time of the first bin, seconds.
        fine: bins.
        hours: hours, the running one last.
        days: days, the running one last.
        learnt: the last hour that was learnt, or passed over.
        carried: bad events that came in hours with fewer events than that; the next hours take them.
        breaches: the last ones, oldest first; only the last may go on.
    """

    base: CycleState = msgspec.field(default_factory=CycleState)
    open_bin: int = -1
    bad: int = 0
    total: int = 0
    all_bad: int = 0
    all_total: int = 0
    since: float = 0.0
    fine: Ring = msgspec.field(default_factory=Ring)
    hours: Ring = msgspec.field(default_factory=Ring)
    days: Ring = msgspec.field(default_factory=Ring)
    learnt: int = -1
    carried: int = 0
    breaches: list[Breach] = []


class Burn:
    """Judges one guardrail. The same buckets in the same order of bins give the same answers.

    Args:
        limit: share of bad events that must not be passed, or None.
        budget: by which share there may be more bad events than the baseline, or None; one of both is given.
        window_days: time over which it is spent.
        pages: whether fast burning pages.
        settle_s: bad events come so long after what they are of: rules that look less far back do not hold.

    Example:
        >>> burn = Burn(limit=None, budget=0.2, window_days=30)
        >>> for hour in range(24 * 20):
        ...     for bin in range(12):
        ...         _ = burn.add(hour * 3600.0 + bin * 300.0, 40 if hour < 24 * 19 else 80, 100)
        ...     _ = burn.move_on((hour + 1) * 3600.0)
        >>> burn.judged, [(breach.level, (breach.onset - 24 * 19 * 3600.0) / 60) for breach in burn.state.breaches]
        ('page', [('page', 0.0)])
    """

    def __init__(
        self, limit: float | None, budget: float | None, window_days: int, *, pages: bool = True, settle_s: float = 0.0
    ) -> None:
        self._limit, self._budget, self._days = limit, budget, window_days
        self._pages = pages
        self._rules = tuple(rule for rule in RULES if rule.long_s >= 2 * settle_s)
        self.take_up(BurnState())

    def take_up(self, state: BurnState) -> None:
        """Go on from a state; it is changed in place."""
        self.state = state
        self._base = Cycle(state.base, "binomial", MEMORY_S)

    # ── taking in ─────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, ts: float, bad: int, total: int) -> bool:
        """Count what happened in a bucket that began at `ts`, event time, seconds; bins before it are closed.

        Returns:
            Whether one was, so that the guardrail was judged anew.
        """
        number, judged = int(ts // BIN_S), False
        if number > self.state.open_bin:
            judged = self.move_on(ts)
            self.state.open_bin = number
        if self.state.since == 0.0:
            self.state.since = number * BIN_S
        self.state.bad += bad
        self.state.total += total
        self.state.all_bad += bad
        self.state.all_total += total
        return judged

    def move_on(self, now: float) -> bool:
        """Event time has come to `now`, seconds: close the bin if it is over.

        Returns:
            Whether it was, so that the guardrail was judged anew.
        """
        state, number = self.state, int(now // BIN_S)
        if state.open_bin < 0 or number <= state.open_bin:
            return False
        self._close(state.open_bin)
        if number - 1 > state.open_bin:  # nothing came since: the windows move on all the same
            self._file(number - 1, (0, 0, 0.0))
        state.open_bin = number
        self._judge(number * BIN_S)
        return True

    def _close(self, number: int) -> None:
        state = self.state
        sums = (state.bad, state.total, self._expected(number, state.bad, state.total))
        state.bad = state.total = 0
        self._file(number, sums)
        breach = self.breach
        if breach is not None:
            breach.bad, breach.total = breach.bad + sums[0], breach.total + sums[1]
            breach.expected += sums[2]

    def _file(self, number: int, sums: Sums) -> None:
        state = self.state
        hour = int(number * BIN_S // HOUR_S)
        if hour > state.hours.slot >= 0:
            self._learn(hour)
        state.fine.add(number, sums, FINE)
        state.hours.add(hour, sums, HOURS_KEPT)
        state.days.add(int(number * BIN_S // DAY_S), sums, self._days)

    def _expected(self, number: int, bad: int, total: int) -> float:
        """Bad events that are normal; while nothing is known, all of a budget's are, and none of a limit's."""
        if not self.is_warm:
            return float(bad) if self._limit is None else 0.0
        hour = int(number * BIN_S // HOUR_S)
        if self.state.base.slot != hour:
            self._base.expect(hour)
        rate = self.state.base.rate
        return total * (rate if self._limit is None else min(rate, NEAR * self._limit))

    @property
    def is_warm(self) -> bool:
        """Whether the baseline is known."""
        state = self.state
        known_h = state.learnt - int(state.since // HOUR_S)
        return known_h >= WARM_H - LATE_H and state.base.fit.n * state.base.rate >= WARM_BAD

    def _learn(self, hour: int) -> None:
        """Learn the hours that are a day old, but none of a breach."""
        state = self.state
        first = state.hours.slot - len(state.hours) + 1
        for at in range(max(first, state.learnt + 1), min(hour - LATE_H, state.hours.slot) + 1):
            if self.breach is not None and self._within(at):
                return
            state.learnt = at
            bad, total, _ = state.hours.at(at - first)
            if self._within(at) or total == 0:
                state.carried = min(state.carried + (0 if self._within(at) else bad), MOST_CARRIED)
                continue
            # Bad events may come after what they are of; a share above 1 can't be learnt.
            taken = min(bad + state.carried, total)
            state.carried = min(bad + state.carried - taken, MOST_CARRIED)
            self._base.learn(at, taken, total)
            self._base.measure(taken, total)

    def _within(self, hour: int) -> bool:
        """Whether an hour belongs to a breach."""
        return any(
            breach.onset < (hour + 1) * HOUR_S and (breach.ended is None or hour * HOUR_S < breach.ended)
            for breach in self.state.breaches[-5:]
        )

    # ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def breach(self) -> Breach | None:
        """The one that goes on."""
        breaches = self.state.breaches
        return breaches[-1] if breaches and breaches[-1].ended is None else None

    @property
    def judged(self) -> State:
        """What it says now."""
        breach = self.breach
        if breach is not None:
            return breach.level
        return "ok" if self.is_warm or self._limit is not None else "learning"

    def over(self, seconds: float) -> Sums:
        """The sums of one of `WINDOWS`, up to the last bin that is over."""
        if seconds <= FINE * BIN_S:
            return self.state.fine.last(round(seconds / BIN_S))
        return self.state.hours.last(round(seconds / HOUR_S))

    def budget(self) -> float:
        """Excess bad events that the whole window may have, at its traffic; 0 while that is not known."""
        _, total, expected = self.state.days.last(self._days)
        seen_s = max(self.state.open_bin * BIN_S - self.state.since, 0.0)
        if seen_s < HOUR_S or total == 0:
            return 0.0
        scale = max(self._days * DAY_S / min(seen_s, self._days * DAY_S), 1.0)
        if self._limit is None:
            return (self._budget or 0.0) * expected * scale if self.is_warm else 0.0
        return max(self._limit * total - expected, (1.0 - NEAR) * self._limit * total) * scale

    def left(self) -> float | None:
        """Share of the budget that is left, 1 at most, below 0 when it is overspent; None while it is not known."""
        allowed = self.budget()
        if allowed <= 0.0:
            return None
        bad, _, expected = self.state.days.last(self._days)
        return min(1.0, 1.0 - (bad - expected) / allowed)

    def rates(self) -> dict[float, float]:
        """Window in seconds → burn rate; empty while the budget is not known."""
        allowed = self.budget()
        if allowed <= 0.0:
            return {}
        whole = self._days * DAY_S
        found = {}
        for seconds in WINDOWS:
            bad, _, expected = self.over(seconds)
            found[seconds] = (bad - expected) / (allowed * seconds / whole)
        return found

    def reach(self) -> float:
        """Burn rate at usual traffic if everything were bad."""
        _, total, expected = self.state.days.last(self._days)
        if total == 0:
            return inf
        share = expected / total
        spare = (self._budget or 0.0) * share if self._limit is None else max(self._limit - share, 0.1 * self._limit)
        return (1.0 - share) / spare if spare > 0.0 else inf

    def _judge(self, now: float) -> None:
        part = self.budget() / (self._days * DAY_S)
        if part <= 0.0:
            return
        most = self.reach() / 2
        for rule in self._rules:
            factor = min(rule.factor, most) * part
            if (
                self._excess(rule.long_s) >= max(factor * rule.long_s, LEAST_EXCESS)
                and self._excess(rule.short_s) >= factor * rule.short_s
                and self._is_sure(rule)
            ):
                self._hold(rule, self._excess(rule.long_s) / (part * rule.long_s), now)
                return
        breach = self.breach
        if breach is not None and now - breach.held_at >= CALM_S:
            rule = next(rule for rule in RULES if (WINDOWS[rule.short_s], WINDOWS[rule.long_s]) == breach.rule)
            self._calm(breach, max(CALM_WINDOWS * rule.short_s, CALM_WINDOW_S), min(rule.factor, most), now)

    def _calm(self, breach: Breach, seconds: float, factor: float, now: float) -> None:
        """End a breach when it burns at less than half of what began it, at the traffic that there is: nights are none.

        Where nothing comes at all, nothing is known.
        """
        bad, total, expected = self.over(seconds)
        if total and bad - expected < factor * self._slack() * total:
            breach.ended = now

    def _excess(self, seconds: float) -> float:
        bad, _, expected = self.over(seconds)
        return bad - expected

    def _is_sure(self, rule: Rule) -> bool:
        """Whether the excess of the long window is more than chance, and not tiny."""
        bad, total, expected = self.over(rule.long_s)
        hours = max(1, round(rule.long_s / HOUR_S))
        error = self._base.error_over(int(self.state.open_bin * BIN_S // HOUR_S), hours) if self.is_warm else 0.0
        if self._limit is not None and not self.is_warm:
            expected = self._limit * total  # nothing is known of the baseline: it must be above the limit for certain
        if bad - expected < LEAST_EXCESS:  # of a limit: above the limit
            return False
        careful = max(expected + CAREFUL * error * total, 1.0)
        if bad <= careful:
            return False
        design = 1.0 + self.state.base.clump * max(total / hours - 1.0, 0.0)
        nats = (bad * log(bad / careful) - (bad - careful)) / design
        return nats >= (SURE_PAGE if rule.level == "page" else SURE_TICKET)

    def _hold(self, rule: Rule, worst: float, now: float) -> None:
        """A rule holds: begin a breach, or go on with it."""
        level: Level = rule.level if self._pages else "ticket"
        windows = (WINDOWS[rule.short_s], WINDOWS[rule.long_s])
        breach = self.breach
        if breach is None:
            onset, sums = self._onset(rule)
            breach = Breach(onset, now, level, windows, *sums, held_at=now, worst=worst)
            self.state.breaches = [*self.state.breaches, breach][-MOST_BREACHES:]
            return
        if level == "page" and breach.level == "ticket":
            breach.level, breach.rule, breach.worst = level, windows, worst
        breach.held_at = now
        if breach.rule == windows:
            breach.worst = max(breach.worst, worst)
        if self._limit is None and now - breach.begun >= self._days * DAY_S:
            breach.ended, breach.accepted = now, True
            self._begin_anew(now)

    def _begin_anew(self, now: float) -> None:
        """What has gone on for as long as the window is normal now: its learning begins again."""
        state = self.state
        state.base, state.since, state.carried = CycleState(), now, 0
        state.fine, state.hours, state.days = Ring(), Ring(), Ring()
        state.learnt = int(now // HOUR_S) - 1
        self._base = Cycle(state.base, "binomial", MEMORY_S)

    def _onset(self, rule: Rule) -> tuple[float, Sums]:
        """Since when the excess has grown to what it is: the beginning of the end with the largest sum of it."""
        ring, width_s = (self.state.fine, BIN_S) if rule.level == "page" else (self.state.hours, HOUR_S)
        allowed, last = self._slack(), ring.totals[-1]
        best, at = 0.0, max(len(ring) - 1, 0)
        for i in range(len(ring) - 1, -1, -1):
            bad, total, expected = _less(last, ring.totals[i])
            grown = bad - expected - allowed * total
            if grown > best:
                best, at = grown, i
        return (ring.slot - len(ring) + 1 + at) * width_s, _less(last, ring.totals[at])

    def _slack(self) -> float:
        """Half of the extra share of bad events that the budget allows."""
        _, total, expected = self.state.days.last(self._days)
        share = expected / total if total else 0.0
        return (self._budget or 0.0) * share / 2 if self._limit is None else max(self._limit - share, 0.0) / 2


def _less(until: Sums, since: Sums) -> Sums:
    return until[0] - since[0], until[1] - since[1], until[2] - since[2]


__all__ = ["RULES", "WINDOWS", "Breach", "Burn", "BurnState", "Ring", "Rule"]
