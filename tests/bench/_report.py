"""What the detection bench writes: limits, tables, plot, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import river

from tests.bench._installation import BUDGET, DAYS, DropResult
from tests.bench._plot import draw
from tests.bench._rows import Row
from tests.bench._timing import STATE_DAYS, Timing
from tests.bench._trustwatch import NAME
from tests.bench._tuning import ALLOWED, Tuned

HEADLINES: Final = {"flat": (470.0, 1000.0), "daily": (500.0, 1200.0)}
"""Kind → largest median and 90th percentile of the delay to be found at 0.30 → 0.24, learnt from 10,000 events."""
ONSET_SHARE: Final = 0.15
AS_FLAT: Final = ("weekly, 3 weeks", "trend, 3 weeks", "bursts")
"""Kinds with at most twice the false alarms of flat ones."""
FOUND_SHARE: Final = 0.95
RATE_US: Final = 3.0
MODEL_US: Final = 30.0
STATE_BYTES: Final = 4000.0
NONE: Final = "-"


class Limit(NamedTuple):
    """A limit of the issue, and what was measured.

    Attributes:
        what: in words.
        value: measured; infinite if there is none.
        limit: largest value that holds, or smallest one if `at_least`.
        error: standard error of `value`; None: not known.
        at_least: see `limit`.
    """

    what: str
    value: float
    limit: float
    error: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the limit holds."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign, digits = ">=" if self.at_least else "<=", 3 if self.limit <= 1 else 2 if self.limit < 40 else 0
        value = number(self.value, self.error, digits)
        return f"{'PASS' if self.holds else 'FAIL'} {self.what}: {value} ({sign} {self.limit:,g})"


class Report(NamedTuple):
    """All results of a run."""

    rows: Sequence[Row]
    tuned: Sequence[Tuned]
    timings: Sequence[Timing]
    state_bytes: int
    pages: Sequence[int]
    drops: Sequence[DropResult]
    quick: bool
    seconds: float


def write(report: Report, folder: Path) -> list[Limit]:
    """Write detection.md, detection.png and detection.json; the limits."""
    limits = limits_of(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "detection.md").write_text("\n".join(page(report, limits)) + "\n")
    (folder / "detection.json").write_bytes(msgspec.json.format(msgspec.json.encode(as_data(report, limits)), indent=1))
    draw(report.rows, HEADLINES, folder / "detection.png")
    return limits


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def limits_of(report: Report) -> list[Limit]:
    """Every limit that the run measured."""
    found: list[Limit] = []
    mains = {row.kind.name: row for row in reversed(report.rows) if row.is_main}
    for name, (median, p90) in HEADLINES.items():
        found += headline_limits(mains[name], median, p90)
    flat = mains["flat"].quiet[NAME]
    for name in AS_FLAT:
        if name in mains:
            quiet = mains[name].quiet[NAME]
            what = (f"{name}, learnt from {mains[name].kind.learn_n:,} events: false alarms per 100,000 events,"
                    " twice those of flat")  # fmt: skip
            found.append(Limit(what, quiet.rate, round(2 * flat.rate, 2), quiet.error))
    weeks = DAYS / 7
    spread = float(np.std(report.pages) * np.sqrt(len(report.pages)))
    found.append(Limit(f"installation: false pages in {DAYS} days", sum(report.pages), BUDGET * weeks, spread))
    for drop in (each for each in report.drops if each.per_day):
        what = (f"installation, streams of {drop.per_day:,.0f} trials a day: drops 0.30 → {drop.to} found before"
                f" {drop.limit:g} progressions were lost, share")  # fmt: skip
        found.append(Limit(what, drop.share, FOUND_SHARE, drop.error, at_least=True))
    for timing in report.timings:
        if not timing.name.startswith("River"):
            most = RATE_US if timing.name.startswith("rate") else MODEL_US
            found.append(Limit(f"update of the {timing.name}: median µs", timing.median_us, most))
    found.append(Limit("state of a rate stream, bytes", report.state_bytes, STATE_BYTES))
    return found


def headline_limits(row: Row, median: float, p90: float) -> list[Limit]:
    """Limits of one of the two main rows."""
    quiet, found, name = row.quiet[NAME], row.found[NAME], row.kind.name
    return [
        Limit(f"{name}: false alarms per 100,000 events", quiet.rate, ALLOWED, quiet.error),
        Limit(f"{name} 0.30 → 0.24: median delay, events", _or_inf(found.median), median, found.median_error),
        Limit(f"{name} 0.30 → 0.24: p90 delay, events", _or_inf(found.p90), p90, found.p90_error),
        Limit(f"{name} 0.30 → 0.24: share missed", found.missed, 0.0),
        Limit(f"{name} 0.30 → 0.24: median |onset error| / median delay", _or_inf(found.onset_share), ONSET_SHARE,
              found.onset_share_error),
    ]  # fmt: skip


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(report: Report, limits: Sequence[Limit]) -> Iterable[str]:
    """Lines of detection.md."""
    ahead = sum(row.is_ahead for row in report.rows)
    yield "# How well changes are found\n"
    if report.quick:
        yield "**A smoke test (`--quick`): far too few streams to say anything.**\n"
    yield (f"Simulated 0/1 streams, `make bench-detection`, {report.seconds:.0f} s. River {river.__version__}: each"
           f" detector tuned on streams of its own (other seeds) to at most {ALLOWED:g} false alarms per 100,000 events"
           " on flat streams, and of those settings the one that finds 0.30 → 0.24 soonest. trustwatch: one setting for"
           " all rows. All see the same streams. ± is one standard error, streams as clusters. Delays in events,"
           " missed changes counted as longer than any.")  # fmt: skip
    yield "\n![delay and false alarms](detection.png)\n\n## Limits\n"
    yield from (f"- {limit}" for limit in limits)
    yield f"- ahead of every River detector on {ahead} of {len(report.rows)} rows; the others say why not"
    yield "\n## Rows\n"
    yield from summary(report.rows)
    for row in report.rows:
        yield from details(row)
    yield "\n## Installation\n"
    yield from installation(report)
    yield "\n## Time of an update\n"
    times = ((each.name, *(number(us, None, 2) for us in (each.median_us, each.mean_us)), f"{each.updates:,}")
             for each in report.timings)  # fmt: skip
    yield from table(("what", "median µs", "mean µs", "updates"), times)
    yield f"\nState of a rate stream after {STATE_DAYS} days with 5,000 events a day: {report.state_bytes:,} bytes."
    yield "\n## Settings of River's detectors\n"
    settings = ((each.name, ", ".join(_setting(*pair) for pair in each.params.items()), f"{each.rate:.2f}",
                 number(each.median), percent(each.missed)) for each in report.tuned)  # fmt: skip
    yield from table(("detector", "parameters", "false alarms per 100,000", "median delay", "missed"), settings)
    yield "\nFalse alarms and delays here are those on the tuning streams."


def _setting(name: str, value: object) -> str:
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def summary(rows: Sequence[Row]) -> Iterable[str]:
    """One line a row: trustwatch, the best of River's, and who is ahead."""
    yield from table(
        ("stream", "change", "learnt from", "trustwatch: false alarms", "median", "p90", "missed",
         "best of River's", "its false alarms", "median", "p90", "missed", "ahead?"),
        (_summary(row) for row in rows),
    )  # fmt: skip


def _summary(row: Row) -> Iterable[str]:
    yield from (row.kind.name, row.what, learnt(row))
    best = row.best_peer
    for name in (NAME, best):
        if name != NAME:
            yield name or "none"
        if name is None:
            yield from (NONE,) * 4
            continue
        quiet, found = row.quiet[name], row.found[name]
        yield from (number(quiet.rate, quiet.error, 2), number(found.median, found.median_error),
                    number(found.p90, found.p90_error), percent(found.missed))  # fmt: skip
    yield row.verdict


def details(row: Row) -> Iterable[str]:
    """All detectors on one row."""
    quiet, found = row.quiet[NAME], row.found[NAME]
    yield f"\n### {row.kind.name}: {row.what}\n"
    yield (f"Learnt from {learnt(row)}. False alarms: {quiet.streams} streams, {quiet.events:,} events after it."
           f" Delays: {found.streams + found.before} streams, missed after {row.change.within_n:,} events."
           f" Verdict: {row.verdict}.\n")  # fmt: skip
    yield from table(
        ("detector", "false alarms per 100,000", "in alarm", "median delay", "p90", "missed", "alarm before the change",
         "median onset error, absolute", "signed", "share of the delay"),
        (_detail(row, name) for name in row.found),
    )  # fmt: skip


def _detail(row: Row, name: str) -> Iterable[str]:
    quiet, found = row.quiet[name], row.found[name]
    yield from (name, number(quiet.rate, quiet.error, 2), percent(quiet.alarmed))
    yield from (number(found.median, found.median_error), number(found.p90, found.p90_error), percent(found.missed))
    yield from (str(found.before), number(found.onset_error), number(found.onset_bias))
    yield NONE if found.onset_share is None else f"{found.onset_share:.0%} ± {found.onset_share_error or 0.0:.0%}"


def installation(report: Report) -> Iterable[str]:
    """What became of the pages and the drops."""
    yield (f"{len(report.pages):,} segments, 3 rate tests each (no partitions, no root segments), 200 to 5,000 trials a"
           " day, buckets of five minutes, less volume at weekends but the same rates,"
           f" thresholds from a budget of {BUDGET:g} false page a week: {sum(report.pages)} in"
           f" {DAYS} days.\n")  # fmt: skip
    yield from table(("drop", "streams", "found in time", "lost before it was found: median", "p90"), (
        (f"0.30 → {drop.to}, at most {drop.limit:g} lost, "
         + (f"{drop.per_day:,.0f} trials a day" if drop.per_day else "200 to 5,000 trials a day"), str(len(drop.lost)),
         f"{drop.share:.1%} ± {drop.error:.1%}", *_lost(drop)) for drop in report.drops))  # fmt: skip


def _lost(drop: DropResult) -> Iterable[str]:
    lost = np.sort([inf if each is None else each for each in drop.lost])
    return (number(lost[int(share * (len(lost) - 1))]) for share in (0.5, 0.9))


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def learnt(row: Row) -> str:
    """How much a row's detectors saw before."""
    return f"{row.kind.learn_n:,} events, {row.kind.learn_n / row.kind.per_day:.0f} days"


def number(value: float | None, error: float | None = None, digits: int = 0) -> str:
    """A number with its standard error."""
    if value is None or not np.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}" + ("" if error is None else f" ± {error:,.{digits}f}")


def percent(share: float) -> str:
    """A share in percent."""
    return f"{share:.1%}"


def as_data(report: Report, limits: Sequence[Limit]) -> dict[str, object]:
    """All numbers, for detection.json."""
    return {
        "quick": report.quick, "river": river.__version__, "seconds": report.seconds,
        "limits": [{**limit._asdict(), "value": None if limit.value == inf else limit.value, "holds": limit.holds}
                   for limit in limits],
        "rows": [{"kind": row.kind.name, "change": row.change._asdict(), "learn_n": row.kind.learn_n,
                  "learn_days": row.kind.learn_n / row.kind.per_day, "verdict": row.verdict, "ahead": row.is_ahead,
                  "false_alarms": row.quiet, "delays": row.found} for row in report.rows],
        "tuned": report.tuned, "timings": report.timings, "state_bytes": report.state_bytes,
        "false_pages": sum(report.pages), "drops": report.drops,
    }  # fmt: skip


def _or_inf(value: float | None) -> float:
    return inf if value is None else value
