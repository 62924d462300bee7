"""Did it help: how much of a lost level came back after an action, beyond what the rest of the company did meanwhile.

A finding says that a rate of a segment fell from a level before to one after. At `at` somebody acts: acknowledges it,
deploys a fix. What would have become of the segment without the action nobody knows; the best guess is that it stays
eroded and moves as the rest of the company does (difference in differences, on log odds: Card & Krueger 1994; Puhani
2012 for why on that scale). With y the log odds in the segment and c those of the rest, before the onset, while it was
eroded, and after the action:

    helped by   e = (y_after - y_eroded) - (c_after - c_eroded)
    lost        l = y_eroded - y_before
    regained    -e / l

The rest is everyone but the segment, at the same stage. A finding about everyone has no rest: the other stages stand in
for it, and where there are none, the answer says that a season would look the same.

One may look at it every hour, so the interval holds at any time: it is a confidence sequence, the normal mixture of
Robbins (1970), not 1.96 standard errors. `DRIFT` is added to these: segments differ by more than chance.

Memory is bounded: hourly hits and trials of everyone for two weeks, and of the segments of open findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import erf, log, sqrt
from typing import Any, Final, Literal, NamedTuple

import msgspec

from detectors._base import Detector
from detectors._baseline import HOUR_S, Side
from detectors._rate import RateDetector
from detectors._several import SeveralRates
from streams.confidence_index import logit
from streams.findings import LEAST, Finding
from streams.frames import Segment

MEMORY_H: Final = 14 * 24
"""Hours that are remembered of everyone."""
SETTLE_H: Final = 1
"""Hours after an action that say nothing yet: steps that began before it end in them."""
SOON_H: Final = 6
"""Hours after an action before which nothing is said."""
MOST_FINDINGS: Final = 300
MIN_N: Final = 50
ENOUGH_N: Final = 200
"""Trials between notice and action from which on those before notice are not used: what is noticed is chosen for having
looked bad, and would seem to get better by itself."""
DRIFT: Final = 0.04
"""Standard deviation, log odds, by which a segment and the rest drift apart from one time to another without cause."""
ALPHA: Final = 0.05
MIXTURE: Final = 12.0
"""Where the confidence sequence is narrowest, in 1 / variance; around it a half regained of a usual fall is told."""
NO_EFFECT: Final = 0.5
"""A share of the lost level; what is surely below it, and not surely above 0, is no effect."""
State = Literal["too_early", "helped", "no_effect", "worse"]


class Rate(NamedTuple):
    """Which counts make a rate."""

    detector: str
    kind: str
    hits: tuple[str, ...]
    trials: tuple[str, ...]
    worse: Side


class Estimate(msgspec.Struct, frozen=True):
    """What became of a finding after an action.

    Attributes:
        state: `too_early` to say, `helped`, `no_effect` or `worse`.
        share: share of the lost level that came back; 1 is all.
        low: lower end of its interval, which holds at any time with 95 %.
        high: upper end.
        p_helped: how likely it is that it helped at all.
        regained: people who went on and would not have, or fewer than zero; None for fewer than five people.
        n: trials since the action.
        controlled: the rest of the company was there to compare with.
        summary: one sentence.
    """

    state: State
    share: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p_helped: float = 0.5
    regained: float | None = None
    n: int = 0
    controlled: bool = True
    summary: str = "Too early to say whether it helped."

    @property
    def evidence(self) -> dict[str, float]:
        """Numbers for the finding; none while it is too early."""
        if self.state == "too_early":
            return {}
        told = {"helped_share": self.share, "helped_low": self.low, "helped_high": self.high, "p_helped": self.p_helped}
        return told | ({} if self.regained is None else {"regained": self.regained})


class Hours(msgspec.Struct, array_like=True):
    """Hits and trials by hour of event time."""

    rows: dict[int, list[int]] = {}

    def add(self, hour: int, k: int, n: int) -> None:
        """Add to an hour."""
        row = self.rows.get(hour)
        if row is None:
            self.rows[hour] = [k, n]
        else:
            row[0] += k
            row[1] += n

    def over(self, since: int, until: int) -> tuple[int, int]:
        """Hits and trials of the hours from `since` up to, but not including, `until`."""
        found = [row for hour, row in self.rows.items() if since <= hour < until]
        return sum(row[0] for row in found), sum(row[1] for row in found)

    def forget(self, before: int) -> None:
        """Drop what is older."""
        for hour in [hour for hour in self.rows if hour < before]:
            del self.rows[hour]


class Case(msgspec.Struct, array_like=True):
    """An open finding, and what was done about it.

    Attributes:
        rate: detector and kind.
        stage: of the finding.
        segment: of the finding.
        begun: hour in which it came to be watched.
        onset: hour of the onset.
        before: level before the onset.
        n_before: trials behind it.
        k: hits from the onset until it was watched.
        n: trials likewise.
        acted: hour of the last action; -1 while there was none.
        hours: its own counts.
    """

    rate: tuple[str, str]
    stage: str
    segment: Segment
    begun: int
    onset: int
    before: float
    n_before: int
    k: int
    n: int
    acted: int = -1
    hours: Hours = msgspec.field(default_factory=Hours)


class RecoveryState(msgspec.Struct):
    """All that is remembered.

    Attributes:
        hour: hour of event time that was seen last.
        everyone: (detector, kind, stage), and the counts of everyone.
        cases: id of a finding → case.
    """

    hour: int = -1
    everyone: list[tuple[tuple[str, str, str], Hours]] = []
    cases: dict[str, Case] = {}


class _Part(NamedTuple):
    """Log odds of one group at one time, and their variance."""

    y: float
    variance: float


_Times = tuple[tuple[int, int], tuple[int, int]]
"""While it was eroded, and after the action: from and to, hours; or hits and trials."""


class Recovery:
    """Watches what becomes of open findings.

    Args:
        classes: detector name → class; rates are taken from those that watch one or several.
        params: detector name → parameters, for the stages that it watches.
    """

    def __init__(
        self, classes: Mapping[str, type[Detector[Any, Any]]], params: Mapping[str, Any] | None = None
    ) -> None:
        self._rates = {(rate.detector, rate.kind): rate for rate in rates_of(classes)}
        self._stages = {name: tuple(getattr(one, "stages", ())) for name, one in (params or {}).items()}
        self._start(RecoveryState())

    def _start(self, state: RecoveryState) -> None:
        self._hour = state.hour
        self._everyone: dict[tuple[str, str, str], Hours] = dict(state.everyone)
        self._cases = dict(state.cases)
        self._watched: dict[tuple[str, Segment], list[Case]] = {}
        for case in self._cases.values():
            self._watched.setdefault((case.stage, case.segment), []).append(case)

    # ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, ts: float, stage: str, segment: Segment, counts: Mapping[str, int]) -> None:
        """Add the counts of one cell; of a segment that no finding is open for, nothing is kept.

        Args:
            ts: start of its bucket, event time, seconds.
            stage: of the cell.
            segment: of the cell.
            counts: field → count.
        """
        cases = self._watched.get((stage, segment))
        if cases is None and segment:
            return
        hour = int(ts // HOUR_S)
        if hour > self._hour:
            self._move_on(hour)
        for case in cases or ():
            k, n = _count(self._rates[case.rate], counts)
            if n:
                case.hours.add(hour, k, n)
        if not segment:
            self._observe_everyone(hour, stage, counts)

    def _observe_everyone(self, hour: int, stage: str, counts: Mapping[str, int]) -> None:
        for (detector, kind), rate in self._rates.items():
            watched = self._stages.get(detector, ())
            if watched and stage not in watched:
                continue
            k, n = _count(rate, counts)
            if n:
                self._everyone.setdefault((detector, kind, stage), Hours()).add(hour, k, n)

    def _move_on(self, hour: int) -> None:
        """Once an hour: what is too old is forgotten. While a case is open, its time is kept of everyone, too."""
        self._hour = hour
        kept: dict[tuple[str, str, str], int] = {}
        for case in self._cases.values():
            oldest = max(case.onset, case.begun - MEMORY_H, hour - 4 * MEMORY_H)
            for key in self._everyone:
                if key[:2] == case.rate:
                    kept[key] = min(kept.get(key, hour), oldest)
            case.hours.forget(hour - 4 * MEMORY_H)
        for key, hours in self._everyone.items():
            hours.forget(min(kept.get(key, hour), hour - MEMORY_H))

    # ── findings ──────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, finding: Finding, onset: float, now: float) -> None:
        """Take up an open finding for the worse; one that is watched already, or makes no rate, is passed over.

        Args:
            finding: it.
            onset: its onset, event time, seconds.
            now: event time, seconds; what it counted until then is in it.
        """
        rate = (finding.detector, rate_kind(finding))
        if finding.id in self._cases or finding.direction != "worse" or rate not in self._rates:
            return
        if len(self._cases) >= MOST_FINDINGS or not 0.0 < finding.before < 1.0:
            return
        segment = tuple(sorted((label, value) for label, value in finding.segment.items() if label != "stage"))
        case = Case(
            rate, finding.segment["stage"], segment, int(now // HOUR_S), int(onset // HOUR_S), finding.before,
            finding.n_before, round(finding.after * finding.n_after), finding.n_after,
        )  # fmt: skip
        self._cases[finding.id] = case
        self._watched.setdefault((case.stage, segment), []).append(case)

    def act(self, finding_id: str, at: float) -> None:
        """Something was done about a finding at event time `at`, seconds; of several actions the last one counts."""
        case = self._cases.get(finding_id)
        if case is not None:
            case.acted = max(case.acted, int(at // HOUR_S))

    def end(self, finding_id: str) -> None:
        """Forget a finding that is over and was told of for the last time."""
        case = self._cases.pop(finding_id, None)
        if case is not None:
            key = (case.stage, case.segment)
            self._watched[key].remove(case)
            if not self._watched[key]:
                del self._watched[key]

    def estimate(self, finding_id: str, now: float) -> Estimate | None:
        """What became of a finding; None if nothing was done about it.

        Args:
            finding_id: of a finding that is watched.
            now: event time, seconds; the hour that is being counted is left out.
        """
        case = self._cases.get(finding_id)
        if case is None or case.acted < 0:
            return None
        until = int(now // HOUR_S)
        k, n = case.hours.over(case.acted + SETTLE_H, until)
        k_eroded, n_eroded = case.hours.over(case.begun, case.acted)
        since = case.begun
        if n_eroded < ENOUGH_N:
            since, k_eroded, n_eroded = max(case.onset, case.begun - MEMORY_H), k_eroded + case.k, n_eroded + case.n
        if until < case.acted + SOON_H or n < MIN_N or n_eroded < MIN_N:
            return Estimate("too_early", n=n)
        times = (since, case.acted), (case.acted + SETTLE_H, until)
        rest = self._rest(case, times, ((k_eroded, n_eroded), (k, n)))
        before = _Part(logit(case.before), 1.0 / max(case.n_before * case.before * (1 - case.before), 1.0))
        return _judge(self._rates[case.rate].worse, before, _part(k_eroded, n_eroded), _part(k, n), rest, (k, n))

    def _rest(self, case: Case, times: _Times, own: _Times) -> tuple[_Part, _Part] | None:
        """The rest of the company while the segment was eroded, and after the action."""
        if case.segment:
            hours = self._everyone.get((*case.rate, case.stage))
            found = [] if hours is None else [hours.over(*time) for time in times]
            rest = [(k - own_k, n - own_n) for (k, n), (own_k, own_n) in zip(found, own, strict=False)]
            parts = [_part(k, n) for k, n in rest if n >= MIN_N and 0 <= k <= n]
            return (parts[0], parts[1]) if len(parts) == 2 else None
        others = [
            hours for key, hours in sorted(self._everyone.items()) if key[:2] == case.rate and key[2] != case.stage
        ]
        pairs = [[hours.over(*time) for time in times] for hours in others]
        pairs = [pair for pair in pairs if min(pair[0][1], pair[1][1]) >= MIN_N]
        return _together([(_part(*one), _part(*other)) for one, other in pairs])

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """The state as msgpack."""
        for hours in (*self._everyone.values(), *(case.hours for case in self._cases.values())):
            hours.rows = dict(sorted(hours.rows.items()))
        return msgspec.msgpack.encode(
            RecoveryState(self._hour, sorted(self._everyone.items(), key=lambda one: one[0]),
                          dict(sorted(self._cases.items())))
        )  # fmt: skip

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`; rates that are no longer watched are left out.

        Raises:
            msgspec.DecodeError: the bytes are no such state.
        """
        state = msgspec.msgpack.decode(blob, type=RecoveryState)
        state.everyone = [(key, hours) for key, hours in state.everyone if key[:2] in self._rates]
        state.cases = {name: case for name, case in state.cases.items() if case.rate in self._rates}
        self._start(state)


def rates_of(classes: Mapping[str, type[Detector[Any, Any]]]) -> Iterable[Rate]:
    """The rates that detectors watch, with the counts that make them."""
    for name, cls in classes.items():
        if issubclass(cls, RateDetector):
            yield Rate(name, name, cls.hits, cls.trials, cls.worse)
        elif issubclass(cls, SeveralRates):
            for kind, rate in cls.rates.items():
                yield Rate(name, kind, rate.hits, rate.trials, rate.worse)


def rate_kind(finding: Finding) -> str:
    """Which of a detector's rates a finding is about: the one that saw it."""
    seen = (name.removeprefix("seen_") for name in finding.evidence if name.startswith("seen_"))
    return next(seen, finding.kind or finding.detector)


def _count(rate: Rate, counts: Mapping[str, int]) -> tuple[int, int]:
    n = sum([counts.get(name, 0) for name in rate.trials])
    return (sum([counts.get(name, 0) for name in rate.hits]), n) if n else (0, 0)


def _part(k: float, n: float) -> _Part:
    """Log odds with half a count added to each side, which takes most of their bias (Haldane 1956, Anscombe 1956)."""
    return _Part(log((k + 0.5) / (n - k + 0.5)), 1.0 / (k + 0.5) + 1.0 / (n - k + 0.5))


def _together(pairs: list[tuple[_Part, _Part]]) -> tuple[_Part, _Part] | None:
    """Several stages as one: their changes, weighed by how well each is known."""
    if not pairs:
        return None
    weights = [1.0 / (one.variance + other.variance + DRIFT * DRIFT) for one, other in pairs]
    change = sum(w * (b.y - a.y) for w, (a, b) in zip(weights, pairs, strict=True)) / sum(weights)
    return _Part(0.0, 0.0), _Part(change, 1.0 / sum(weights))


def _judge(worse: Side, before: _Part, eroded: _Part, after: _Part, rest: tuple[_Part, _Part] | None,
           counts: tuple[int, int]) -> Estimate:  # fmt: skip
    """The estimate; log odds are turned so that up is good."""
    sign = 1.0 if worse == "down" else -1.0
    c_eroded, c_after = rest or (_Part(0.0, 0.0), _Part(0.0, 0.0))
    moved = c_after.y - c_eroded.y
    effect = sign * (after.y - eroded.y - moved)
    lost = sign * (before.y - eroded.y)
    if lost <= 0.0:
        return Estimate("too_early", n=counts[1], controlled=rest is not None)
    variance = after.variance + eroded.variance + c_after.variance + c_eroded.variance + DRIFT * DRIFT
    share, se = effect / lost, sqrt(variance)
    # d share: after and the rest by 1 / lost; eroded is in both, and before in the loss only
    spread = sqrt(
        after.variance + c_after.variance + c_eroded.variance + DRIFT * DRIFT
        + (1.0 - share) ** 2 * eroded.variance + share * share * before.variance
    ) / lost  # fmt: skip
    wide = width(variance)
    low, high = share - wide * spread, share + wide * spread
    k, n = counts
    without = 1.0 / (1.0 + 2.718281828459045 ** -(eroded.y + moved))
    regained = sign * (k - n * without)
    state: State = "too_early"
    if effect - wide * se > 0.0:
        state = "helped"
    elif effect + wide * se < 0.0:
        state = "worse"
    elif high < NO_EFFECT:
        state = "no_effect"
    p = 0.5 * (1.0 + erf(effect / se / sqrt(2.0)))
    shown = None if min(k, n - k) < LEAST else regained
    return Estimate(state, share, low, high, p, shown, n, rest is not None,
                    _say(state, share, (low, high), shown, rest is not None))  # fmt: skip


def width(variance: float) -> float:
    """Half width in standard errors of an interval that holds at any time (Robbins 1970, normal mixture).

    >>> round(width(1 / 12), 2), round(width(1 / 100), 2), round(width(1 / 1000), 2)
    (3.66, 3.04, 3.25)
    """
    v = 1.0 / variance
    return sqrt((1.0 + MIXTURE / v) * log((v + MIXTURE) / (MIXTURE * ALPHA * ALPHA)))


def _say(state: State, share: float, interval: tuple[float, float], regained: float | None, controlled: bool) -> str:
    if state == "too_early":
        return "Too early to say whether it helped."
    parts = {
        "helped": f"It helped: {share:.0%} of what was lost is back",
        "worse": "It got worse since",
        "no_effect": "No effect: what was lost is not back",
    }
    people = "" if regained is None or state == "no_effect" else f", {abs(regained):.0f} people {_more(regained)}"
    limits = f" ({interval[0]:.0%} to {interval[1]:.0%})"
    against = (
        "against the rest of the company" if controlled else "with nothing to compare with: a season looks the same"
    )
    return f"{parts[state]}{limits}{people}, {against}."


def _more(regained: float) -> str:
    return "more" if regained > 0 else "fewer"
