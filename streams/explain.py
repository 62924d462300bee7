"""Why there is a finding: what its stream saw, what it expected, and the evidence, as a series over time.

`backtest --explain` runs the files a second time with a `Recorder` looking on (a backtest is deterministic, so the
findings are the same). Baseline and evidence are therefore those of the time, without hindsight. What is kept is
bounded: some hundred narrow steps a finding. `streams.explain_plot` draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from detectors._base import Detector, Verdict
from detectors._intervals import wilson
from streams.errors import DetectorFailed, UsageError
from streams.findings import Finding
from streams.judge import Where
from streams.roots import overlap

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
ALL, FIRST = "all", "first"
BEFORE: Final = 3.0
"""So many times its own length is shown before the onset of a finding …"""
LEAST_BEFORE_S: Final = 7 * DAY_S
"""… but at least a week, so that the cycle of the week is seen."""
AFTERWARDS: Final = 0.25
"""Share of its length that is shown after a finding has ended."""
STEPS_S: Final = tuple(hours * HOUR_S for hours in (0.5, 1, 2, 3, 4, 6, 8, 12, 24, 48, 168, 672))
"""Widths that a reader can take in."""
MOST_NARROW: Final = 600
"""Narrow steps that are kept of a finding, before the width to be shown is chosen."""
MOST_POINTS: Final = 300
FEWEST_POINTS: Final = 60
ENOUGH_N: Final = 25.0
"""Trials in a step from which on its rate can be read."""
TOLD: Final = "(told)"
"""View of a detector that gives no trace: what its verdicts said."""


class Cell(msgspec.Struct):
    """What one view saw and made of it in a narrow step, added up.

    Attributes:
        k: hits.
        n: trials.
        expected: baseline, its ends and their weights; sums over observations, by trials.
        low: lower end of it.
        high: upper end.
        weight: weight behind these three.
        peak: the highest statistic, nats; None while there is none.
        back: the most evidence that the old level has returned, nats; None while there is no alert.
        limits: the last `warn`, `threshold` and `back_at`, nats.
    """

    k: float = 0.0
    n: float = 0.0
    expected: float = 0.0
    low: float = 0.0
    high: float = 0.0
    weight: float = 0.0
    peak: float | None = None
    back: float | None = None
    limits: dict[str, float] = {}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Take one observation; names as in `Detector.trace`."""
        n = numbers.get("n", 0.0)
        self.k += numbers.get("k", 0.0)
        self.n += n
        if "expected" in numbers:
            weight = max(n, 1e-9)  # without trials the baseline counts only where there are none at all
            expected = numbers["expected"]
            self.weight += weight
            self.expected += weight * expected
            self.low += weight * numbers.get("low", expected)
            self.high += weight * numbers.get("high", expected)
        self.peak = _highest(self.peak, numbers.get("statistic"))
        self.back = _highest(self.back, numbers.get("back"))
        self.limits |= {name: numbers[name] for name in ("warn", "threshold", "back_at") if name in numbers}


class Point(msgspec.Struct, frozen=True):
    """The rate in one step that is shown.

    Attributes:
        ts: start of it, event time, seconds.
        n: trials; without trace: observations since the onset, as told.
        rate: observed, in the unit of the detector; None without trials.
        rate_low: lower end of its 95 % interval (Wilson); None where it has none.
        rate_high: upper end.
        expected: what the baseline expected of these trials, at that time; None while it is learnt.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    ts: float
    n: float
    rate: float | None = None
    rate_low: float | None = None
    rate_high: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None


class Evidence(msgspec.Struct, frozen=True):
    """The test in one narrow step; all in nats, None where there is none.

    Attributes:
        ts: start of the step, event time, seconds.
        statistic: highest in it; without trace the score, 0 to 1.
        threshold: where it alerts.
        warn: where it warns.
        back: most evidence that the old level has returned, while it alerts.
        back_at: where that ends the alert.
    """

    ts: float
    statistic: float | None = None
    threshold: float | None = None
    warn: float | None = None
    back: float | None = None
    back_at: float | None = None


class Series(msgspec.Struct, frozen=True):
    """What is shown of a finding.

    Attributes:
        since: left end, event time, seconds.
        until: right end.
        step_s: width of the steps of `points`, seconds.
        points: rate, baseline and volume, ascending; steps without observations are left out.
        narrow_s: width of the steps of `evidence`, seconds.
        evidence: of the test, ascending.
        view: which view of the detector this is; "" if it has but one, `TOLD` where verdicts are all there is.
    """

    since: float
    until: float
    step_s: float
    points: list[Point]
    narrow_s: float
    evidence: list[Evidence]
    view: str = ""

    @property
    def told(self) -> bool:
        """Whether it is made of verdicts, because the detector gives no trace."""
        return self.view == TOLD


class Track:
    """Records one finding while its stream is run once more.

    Args:
        finding: what to explain.
        until: event time of the end of the data, seconds.
    """

    def __init__(self, finding: Finding, until: float) -> None:
        self.finding = finding
        self.since, self.until = window(finding, until)
        self.narrow_s = next((w for w in STEPS_S if (self.until - self.since) / w <= MOST_NARROW), STEPS_S[-1])
        self._detected = epoch(finding.detected_at)
        self._cells: dict[str, dict[int, Cell]] = {}
        self._points: dict[int, Point] = {}
        self._scores: dict[int, float] = {}
        self._spoke = ""

    def add(self, ts: float, trace: Mapping[str, float], verdict: Verdict) -> None:
        """Take one observation of the stream.

        Args:
            ts: start of the bucket, event time, seconds.
            trace: of the detector after it.
            verdict: what it said.
        """
        if not self.since <= ts <= self.until:
            return
        step = int(ts // self.narrow_s)
        views = _views(trace)
        for view, numbers in views.items():
            self._cells.setdefault(view, {}).setdefault(step, Cell()).add(numbers)
        if ts < self._detected and verdict.level in ("warn", "alert"):
            self._spoke = next((view for view, numbers in views.items() if view and numbers == views.get("")), "")
        self._points[step] = _told(step * self.narrow_s, verdict, self.finding.kind)
        self._scores[step] = max(verdict.score, self._scores.get(step, 0.0))

    def series(self) -> Series:
        """What was recorded, in steps that can be read."""
        view = next((view for view in (self.finding.kind, self._spoke, "") if view in self._cells), TOLD)
        if view == TOLD:
            scores = [Evidence(step * self.narrow_s, score) for step, score in sorted(self._scores.items())]
            points = [self._points[step] for step in sorted(self._points)]
            return Series(self.since, self.until, self.narrow_s, points, self.narrow_s, scores, TOLD)
        cells = self._cells[view]
        step_s = choose_step(cells, self.narrow_s)
        evidence = [_evidence(step * self.narrow_s, cells[step]) for step in sorted(cells)]
        points = aggregate(cells, self.narrow_s, step_s)
        return Series(self.since, self.until, step_s, points, self.narrow_s, evidence, view)


class Recorder:
    """Observer of a backtest that records the streams of some findings, and no others.

    Args:
        findings: what to explain.
        until: event time of the end of the data, seconds.
    """

    def __init__(self, findings: Sequence[Finding], until: float) -> None:
        self.tracks = {finding.id: Track(finding, until) for finding in findings}
        self._streams: dict[Where, list[Track]] = {}
        for track in self.tracks.values():
            self._streams.setdefault(where(track.finding), []).append(track)

    def __call__(self, stream: Where, ts: float, detector: Detector[Any, Any], verdict: Verdict) -> None:
        """Take one observation; see `streams.watch.Observer`.

        Raises:
            DetectorFailed: the detector's `trace` did.
        """
        tracks = self._streams.get(stream)
        if tracks is None:
            return
        try:
            trace = detector.trace()
        except Exception as error:
            raise DetectorFailed(f"{stream[0]}: trace() failed at {ts:.0f}: {type(error).__name__}: {error}") from error
        for track in tracks:
            track.add(ts, trace, verdict)


# ── which findings, and which time ────────────────────────────────────────────────────────────────────────────────────


def pick(findings: Sequence[Finding], wanted: str) -> list[Finding]:
    """The findings that are asked for.

    Args:
        findings: in the order of detection.
        wanted: `all`, `first`, or an id or its beginning.

    Raises:
        UsageError: there is no such finding, or more than one; the message names them.
    """
    if wanted in (ALL, FIRST):
        return list(findings[: None if wanted == ALL else 1])
    found = [finding for finding in findings if wanted and finding.id.startswith(wanted)]
    if len(found) == 1:
        return found
    several = f"{len(found)} findings begin so" if found else "no finding begins so"
    raise UsageError(f"--explain {wanted}: {several}; known: {ALL}, {FIRST}, {_named(found or findings)}")


def _named(findings: Iterable[Finding]) -> str:
    return ", ".join(f"{one.id} ({one.detector} {' '.join(one.segment.values())})" for one in findings)


def where(finding: Finding) -> Where:
    """The stream that a finding is about."""
    labels = {label: value for label, value in finding.segment.items() if label != "stage"}
    return finding.detector, finding.segment["stage"], tuple(sorted(labels.items()))


def window(finding: Finding, until: float) -> tuple[float, float]:
    """Event times to show a finding from and to, seconds; `until`: the end of the data."""
    onset, detected = epoch(finding.onset), epoch(finding.detected_at)
    end = max(detected, until if finding.resolved_at is None else epoch(finding.resolved_at))
    length = end - onset
    first = min(onset, epoch(finding.onset_from or finding.onset))
    since = min(onset - max(BEFORE * length, LEAST_BEFORE_S), first)
    return since, max(end, min(until, end + AFTERWARDS * length))


def epoch(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time of a finding.

    >>> epoch("1970-01-02T00:00:00Z")
    86400.0
    """
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


# ── narrow steps → steps that can be read ─────────────────────────────────────────────────────────────────────────────


def choose_step(cells: Mapping[int, Cell], narrow_s: float) -> float:
    """Width of the steps to show, seconds: few enough, and with enough trials in each unless that leaves too few.

    Args:
        cells: by the number of their narrow step.
        narrow_s: width of that, seconds.
    """
    span_s = (max(cells) - min(cells) + 1) * narrow_s
    trials = sum(cell.n for cell in cells.values())
    chosen = narrow_s
    for step_s in STEPS_S:
        if step_s < narrow_s or step_s % narrow_s:
            continue
        if span_s / chosen <= MOST_POINTS and (trials * chosen / span_s >= ENOUGH_N or span_s / step_s < FEWEST_POINTS):
            break
        chosen = step_s
    return chosen


def aggregate(cells: Mapping[int, Cell], narrow_s: float, step_s: float) -> list[Point]:
    """Add narrow steps up.

    Args:
        cells: by the number of their narrow step.
        narrow_s: width of that, seconds.
        step_s: width to add them up to, a multiple of it.
    """
    wide: dict[int, Cell] = {}
    for number, cell in cells.items():
        sums = wide.setdefault(int(number * narrow_s // step_s), Cell())
        for name in ("k", "n", "expected", "low", "high", "weight"):
            setattr(sums, name, getattr(sums, name) + getattr(cell, name))
    return [_point(number * step_s, wide[number]) for number in sorted(wide)]


def _point(ts: float, cell: Cell) -> Point:
    weight = cell.weight
    baseline = (cell.expected / weight, cell.low / weight, cell.high / weight) if weight else (None, None, None)
    if not cell.n:
        return Point(ts, 0.0, None, None, None, *baseline)
    # Only hits out of trials have this interval; a mean of values has none here.
    interval = wilson(cell.k, cell.n) if 0.0 <= cell.k <= cell.n else (None, None)
    return Point(ts, cell.n, cell.k / cell.n, *interval, *baseline)


def _evidence(ts: float, cell: Cell) -> Evidence:
    limits = cell.limits
    back_at = limits.get("back_at") if cell.back is not None else None
    return Evidence(ts, cell.peak, limits.get("threshold"), limits.get("warn"), cell.back, back_at)


def _told(ts: float, verdict: Verdict, kind: str) -> Point:
    if verdict.level not in ("warn", "alert") or verdict.kind not in ("", kind):
        return Point(ts, 0.0)
    get = verdict.evidence.get
    return Point(ts, verdict.n_after, verdict.after, get("effect_low"), get("effect_high"), verdict.before,
                 get("before_low"), get("before_high"))  # fmt: skip


def _views(trace: Mapping[str, float]) -> dict[str, dict[str, float]]:
    views: dict[str, dict[str, float]] = {}
    for name, value in trace.items():
        view, _, field = name.rpartition(".")
        views.setdefault(view, {})[field] = value
    return views


def _highest(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)


# ── what is said beside the picture ───────────────────────────────────────────────────────────────────────────────────

SHOWN: Final = frozenset({
    "expected_rate", "before_low", "before_high", "effect_low", "effect_high", "rate_now", "statistic", "threshold",
    "explained_segments",
})  # fmt: skip
"""Evidence that the picture or another line shows."""


def facts(finding: Finding, others: Sequence[Finding] = ()) -> list[tuple[str, str]]:
    """What a reader wants to know of a finding besides the curves: (name, value); an empty name sets groups apart.

    Args:
        finding: what was found.
        others: findings of the same run: one may have taken its place, or it that of another.
    """
    get = finding.evidence.get
    told = [*_size(finding), ("", ""), *_moments(finding, others), ("", ""), *_numbers(finding.evidence), ("", "")]
    told.append(("segment", _place(finding)))
    if explained := get("explained_segments"):
        told.append(("explains", f"{explained:.0f} more segment{'' if explained == 1 else 's'} that alert"))
    return [*told, ("owner", finding.owner), ("finding", finding.id)]


def _size(finding: Finding) -> list[tuple[str, str]]:
    get, unit = finding.evidence.get, finding.unit
    around = get("before_low"), get("before_high")
    now = get("expected_rate")  # of the last hour, and so is the interval; `before` is over all hours since the onset
    before = [("before", _range(finding.before, *(around if now is None else (None, None)), unit))]
    baseline = [] if now is None else [("baseline now", _range(now, *around, unit))]
    after = [("after", _range(finding.after, get("effect_low"), get("effect_high"), unit))]
    return [*before, *after, *baseline, ("observations", f"{finding.n_before:,} before, {finding.n_after:,} after")]


def _moments(finding: Finding, others: Sequence[Finding]) -> list[tuple[str, str]]:
    told = [("onset", moment(finding.onset))]
    if finding.onset_from and finding.onset_to:
        told.append(("onset, 95 %", f"{moment(finding.onset_from)} to {moment(finding.onset_to)}"))
    delay = lasting(epoch(finding.detected_at) - epoch(finding.onset))
    told += [("detected", moment(finding.detected_at)), ("", f"{delay} after the onset")]
    if (forerunner := next((one for one in others if successor(one, [finding])), None)) is not None:
        told += [("", f"as a better explanation than {_place(forerunner)} ({forerunner.id[:8]})")]
    told.append(("resolved", moment(finding.resolved_at) if finding.resolved_at else "not by the end of the data"))
    if (heir := successor(finding, others)) is not None:
        told += [("", f"by a better explanation: {_place(heir)} ({heir.id[:8]})")]
    return told


def successor(finding: Finding, others: Iterable[Finding]) -> Finding | None:
    """The finding of an overlapping segment that took the place of this one, because it explains more."""

    def family(one: Finding) -> tuple[str, ...]:
        return one.detector, one.kind, one.direction, one.segment["stage"]

    begun = (one for one in others if one.detected_at == finding.resolved_at and family(one) == family(finding))
    return next((one for one in begun if one.id != finding.id and overlap(where(one)[2], where(finding)[2])), None)


def _place(finding: Finding) -> str:
    _, stage, labels = where(finding)
    return ", ".join([stage, *(f"{label}={value}" for label, value in labels)])


def _numbers(evidence: Mapping[str, float]) -> list[tuple[str, str]]:
    """Evidence by name; what is known before and after becomes one line, the biggest changes first."""
    plain, pairs = list[tuple[str, str]](), dict[str, tuple[float, float]]()
    for name, value in evidence.items():
        stem, _, end = name.rpartition("_")
        if name in SHOWN or name.startswith("seen_") or (end == "s" and not value):
            continue
        if end in ("before", "after") and {f"{stem}_before", f"{stem}_after"} <= evidence.keys():
            pairs[stem] = evidence[f"{stem}_before"], evidence[f"{stem}_after"]
        else:
            plain.append((stem, lasting(value)) if end == "s" else (name, number(value)))
    pairs = {stem: pair for stem, pair in pairs.items() if any(pair)}
    changed = sorted(pairs.items(), key=lambda pair: -abs(pair[1][1] - pair[1][0]))
    plain += [(stem, f"{number(a)} → {number(b)}") for stem, (a, b) in changed]
    return [(name.replace("_", " "), value) for name, value in plain]


def number(value: float) -> str:
    """A number as short as it can be read.

    >>> number(1234.5), number(17.26), number(0.01234), number(0.0)
    ('1,234', '17.3', '0.0123', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def amount(value: float, unit: str) -> str:
    """A quantity with its unit.

    >>> amount(0.4305, "ratio"), amount(3.2, "seconds")
    ('43.0 %', '3.2 seconds')
    """
    return f"{value * 100:.1f} %" if unit == "ratio" else f"{number(value)} {unit}"


def _range(value: float, low: float | None, high: float | None, unit: str) -> str:
    if low is None or high is None:
        return amount(value, unit)
    ends = (f"{low * 100:.1f}", f"{high * 100:.1f} %") if unit == "ratio" else (number(low), amount(high, unit))
    return f"{amount(value, unit)} ({ends[0]} to {ends[1]})"


def moment(text: str) -> str:
    """An ISO 8601 time without its seconds and zone.

    >>> moment("2026-03-01T10:00:59Z")
    '2026-03-01 10:00'
    """
    return text[:16].replace("T", " ")


def lasting(seconds: float) -> str:
    """A duration in two units at most.

    >>> lasting(90 * 60), lasting(30 * 3600), lasting(40), lasting(7 * 86_400)
    ('1 h 30 min', '1 d 6 h', '1 min', '7 d')
    """
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, rest = divmod(round(minutes / 60), 24)
    return f"{days} d {rest} h" if rest else f"{days} d"
