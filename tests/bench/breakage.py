"""Is broken tracking called broken data, and an erosion of trust never? `python -m tests.bench.breakage`.

Journeys and leads (`streams.simulate`) go through the real pure line: Door, Sessionizer, Watcher. After some days of
learning tracking breaks (`streams.simulate_breakage`, one kind a run), or people change. Counted is what was told: a
finding about trust that is not held back while tracking is broken is one "broken trust" too many, and one of
`data_trust` while only people changed is one "broken data" too many. Kinds that thresholds were tuned on are marked and
not judged; the seeds below `--first` are for tuning.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from typing import Final

import msgspec

from streams.findings import Finding, is_held, iso
from streams.ingest import Door, Raw
from streams.metrics_findings import severity_of
from streams.privacy import Privacy
from streams.settings import Settings
from streams.simulate import START, parse_erosion, simulate
from streams.simulate_breakage import (
    BREAKAGES,
    CHANGES,
    PARTITIONS,
    TUNED,
    Arrival,
    arriving,
    broken,
    changed,
    partition,
)
from streams.units import Plan, split

DAY_S: Final = 86_400.0
LEADS: Final = 120.0
TOPICS: Final = {"web": "web-events", "crm": "crm-events"}
CHUNK_S: Final = 60.0
QUIET: Final = "quiet"
EROSIONS: Final[dict[str, tuple[str, ...]]] = {
    "drop, one channel": ("early_dropoff:stage=evaluate,channel=paid@{0}x0.6",),
    "drop, everywhere": ("early_dropoff:stage=discover@{0}x0.5",),
    "drop, hard": ("early_dropoff:stage=compare@{0}x0.2",),
    "drop, slow": tuple(f"early_dropoff:stage=evaluate@{{{i}}}x0.88" for i in range(5)),
    "nobody buys": ("early_dropoff:stage=buy@{0}x0.05",),
    "cart scares": ("early_dropoff:stage=decide,device=mobile@{0}x0.15",),
    "hesitation": ("hesitation:stage=decide@{0}x3.5",),
    "hesitation, all stages": tuple(
        f"hesitation:stage={stage}@{{0}}x3" for stage in ("discover", "evaluate", "compare", "buy")),
    "price change": ("early_dropoff:stage=compare@{0}x0.55", "early_dropoff:stage=decide@{0}x0.6",
                     "hesitation:stage=compare@{0}x2"),
    "score drift": ("lead_score_drift:source=webinar@{0}x20",),
    "score inflation": ("score_inflation@{0}x1.35",),
}  # fmt: skip
"""Kind → erosions; `{i}` is the day of the onset and `i` quarters of a day more."""


class Job(msgspec.Struct, frozen=True):
    """One run: kind, seed, days in all, day of the onset, and sessions a day."""

    kind: str
    seed: int
    days: float = 4.6
    onset_day: float = 3.35
    sessions: float = 420.0

    @property
    def onset(self) -> float:
        """Event time of the onset, seconds."""
        return datetime.fromisoformat(START).timestamp() + self.onset_day * DAY_S


class Result(msgspec.Struct, frozen=True):
    """What one run told: findings of broken data, of broken trust, and held ones; from the onset on."""

    job: Job
    data: tuple[str, ...]
    trust: tuple[str, ...]
    held: tuple[str, ...]
    delay_h: float | None
    events: int
    seconds: float


class Line:
    """The pure line, fed in the order of arrival.

    Args:
        chunk_s: seconds that what has arrived waits at most before it is fed.

    Attributes:
        told: (clock, finding) in the order in which they were told.
    """

    def __init__(self, chunk_s: float = CHUNK_S) -> None:
        self._chunk_s = chunk_s
        self.settings = Settings(topics={"events_partitions": 1, "counts_partitions": 1})
        self.plan = Plan(self.settings)
        self.told: list[tuple[float, Finding]] = []
        self._sessionizer, self._watcher = self.plan.sessionizer(0), self.plan.watcher(0)
        privacy = Privacy.from_settings(self.settings, offline=True)
        self._door = Door(self.settings, privacy, dict.fromkeys(TOPICS.values(), PARTITIONS))
        self._heard = {f"{topic}/{part}": 0.0 for topic in TOPICS.values() for part in range(PARTITIONS)}
        for source in self._heard:
            self._door.open_source(source)
        self._offsets: dict[tuple[str, int], int] = {}
        self._frames = 0

    def run(self, arrivals: Iterable[Arrival]) -> int:
        """Take all arrivals; how many they were."""
        count, batch, end = 0, list[Arrival](), 0.0
        for arrival in arrivals:
            if arrival.at >= end:
                self._feed(batch, end)
                batch, end = [], arrival.at // self._chunk_s * self._chunk_s + self._chunk_s
            batch.append(arrival)
            count += 1
        self._feed(batch, end)
        return count

    def _feed(self, batch: list[Arrival], now: float) -> None:
        by: dict[tuple[str, int], list[Raw]] = {}
        for arrival in batch:
            place = TOPICS[arrival.topic], partition(arrival.outcome.person or "")
            offset = self._offsets[place] = self._offsets.get(place, -1) + 1
            outcome = msgspec.structs.replace(arrival.outcome)  # the door scrubs in place
            by.setdefault(place, []).append(Raw(*place, offset, b"{}", [outcome], arrival.at))
        for (topic, part), raws in sorted(by.items()):
            self._door.take(raws, now)
            self._heard[f"{topic}/{part}"] = now
        for source, since in self._heard.items():  # as ingest does: caught up and quiet for some seconds
            self._door.idle(source, now - since if now - since > self.settings.ingest.idle_timeout_s else None)
        for _, frame in self._door.flush(now, everything=True).frames:
            counts = self._sessionizer.apply(frame, self._frames)
            self._frames += 1
            if counts is not None:
                ((_, portion),) = split(counts, 1)
                self.told += [(now, finding) for finding in self._watcher.apply(portion)]


def arrivals_of(job: Job) -> Iterator[Arrival]:
    """The arrivals of one run."""
    days = [f"{job.onset_day + i / 4:g}" for i in range(5)]
    specs = [parse_erosion(spec.format(*days)) for spec in EROSIONS.get(job.kind, ())]
    events = simulate(job.days, job.seed, specs, job.sessions, LEADS)
    if job.kind in BREAKAGES:
        return broken(events, job.kind, job.onset, seed=job.seed)
    return changed(events, job.kind, job.onset) if job.kind in CHANGES else arriving(events)


def run(job: Job) -> Result:
    """One run."""
    began, line = time.perf_counter(), Line()
    events = line.run(arrivals_of(job))
    since = iso(0.0 if job.kind == QUIET else job.onset)
    classes = line.plan.detectors.classes
    told: dict[str, dict[str, float]] = {"data": {}, "trust": {}, "held": {}}
    for told_at, finding in line.told:
        if finding.detected_at < since or finding.resolved_at is not None:
            continue
        urgent = severity_of(finding, classes[finding.detector].alert) != "none"
        sort = "data" if finding.detector == "data_trust" else "held" if is_held(finding) else "trust" if urgent else ""
        if sort:
            told[sort].setdefault(_name(finding), told_at)
    first = min(told["data"].values(), default=None)
    delay_h = None if first is None or job.kind == QUIET else (first - job.onset) / 3600.0
    data, trust, held = (tuple(told[sort]) for sort in ("data", "trust", "held"))
    return Result(job, data, trust, held, delay_h, events, time.perf_counter() - began)


def _name(finding: Finding) -> str:
    labels = ",".join(f"{label}={value}" for label, value in finding.segment.items())
    return f"{finding.detector}/{finding.kind} {labels}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table."""
    kinds = [*BREAKAGES, *EROSIONS, *CHANGES, QUIET]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.breakage", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--first", type=int, default=200, help="first seed; those below 200 were tuned on")
    parser.add_argument("--kind", action="append", choices=kinds, help="one kind, or several; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--verbose", action="store_true", help="say what was found in each run")
    options = parser.parse_args(arguments)
    jobs = [Job(kind, options.first + i) for i in range(options.seeds) for kind in options.kind or kinds]
    results = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for result in pool.map(run, jobs):
            results.append(result)
            print(f"# {result.job.kind} {result.job.seed}: {result.seconds:.0f} s, {result.events} events",
                  *([f"data {result.data} TRUST {result.trust} held {result.held}"] if options.verbose else []),
                  file=sys.stderr, flush=True)  # fmt: skip
    print(report(results))
    return 0


def report(results: Sequence[Result]) -> str:
    """The table, and what it comes to."""
    lines = ["| kind | runs | told broken data | told broken trust | held back | hours to the first |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for kind in dict.fromkeys(result.job.kind for result in results):
        runs = [result for result in results if result.job.kind == kind]
        delays = sorted(result.delay_h for result in runs if result.delay_h is not None)
        numbers = (len(runs), sum(bool(one.data) for one in runs), sum(bool(one.trust) for one in runs),
                   sum(bool(one.held) for one in runs))  # fmt: skip
        name = f"{kind} (tuned)" if kind in TUNED else kind
        delay = f"{delays[len(delays) // 2]:.1f}" if delays else ""
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} | {delay} |")
    broke = [one for one in results if one.job.kind in BREAKAGES and one.job.kind not in TUNED]
    people = [one for one in results if one.job.kind in (*EROSIONS, *CHANGES)]
    lines += _share("broken tracking: called broken data, and nothing called broken trust",
                    [bool(one.data) and not one.trust for one in broke])  # fmt: skip
    lines += _share("broken tracking: nothing called broken trust", [not one.trust for one in broke])
    lines += _share("people changed: nothing called broken data", [not one.data for one in people])
    if quiet := [one for one in results if one.job.kind == QUIET]:
        weeks = sum(one.job.days for one in quiet) / 7
        lines.append(f"nothing changed: {sum(len(one.data) for one in quiet)} findings of data in {weeks:.1f} weeks")
    return "\n".join(lines)


def _share(what: str, cases: Sequence[bool]) -> list[str]:
    return [f"{what}: {sum(cases)} of {len(cases)} ({100 * sum(cases) / len(cases):.1f} %)"] if cases else []


if __name__ == "__main__":
    sys.exit(main())
