"""How well changes are found, beside River's detectors in the same run: `make bench-detection`.

Or `python -m tests.bench.detection [--quick] [--out FOLDER]`. River's detectors are tuned on streams of their own to
the allowed rate of false alarms; trustwatch's test has one setting for everything. Then all see the same streams,
without and with a change. Writes detection.md, detection.png and detection.json; the exit code is 0 if every limit
holds. What holds for a detector holds for these streams: they are simulated.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from tests.bench import _installation, _timing, _trustwatch
from tests.bench._installation import Drop, DropResult
from tests.bench._report import Report, write
from tests.bench._river_peers import PEERS, alarms_of, disagreement
from tests.bench._rows import Row
from tests.bench._scores import Outcome, Quiet, delays, false_alarms, judge_change, judge_quiet
from tests.bench._streams import Change, Kind, Stream, simulate
from tests.bench._tuning import Effort, Tuned, tune_shape

FLAT: Final = Kind("flat")
DAILY: Final = Kind("daily", daily=0.1)
WEEKLY: Final = Kind("weekly", daily=0.1, weekly=0.03, weekend=0.1, volume=0.5)
TREND: Final = Kind("trend", trend=0.005)
BURSTS: Final = Kind("bursts", volume=0.5, bursts=1.0)
SPARSE: Final = Kind("sparse", daily=0.1, per_day=120.0, learn_n=2520, quiet_n=20_000)
THREE_WEEKS: Final = 105_000
WEEKLY_3W: Final = replace(WEEKLY, name="weekly, 3 weeks", learn_n=THREE_WEEKS)
TREND_3W: Final = replace(TREND, name="trend, 3 weeks", learn_n=THREE_WEEKS)
RARE: Final = Kind("rate 0.5 %", base=0.005, learn_n=50_000)
FEW: Final = Kind("rate 5 %", base=0.05)
MOST: Final = Kind("rate 90 %", base=0.90)

MAIN: Final = Change(0.24)
SMALL: Final = Change(0.27, within_n=20_000)
LARGE: Final = Change(0.20)
GRADUAL: Final = Change(0.24, ramp_n=1000)
HEADLINES: Final = ((FLAT, MAIN), (DAILY, MAIN))
ROWS: Final = (
    *HEADLINES,
    *((kind, change) for kind in (FLAT, DAILY) for change in (SMALL, LARGE, GRADUAL)),
    *((kind, MAIN) for kind in (WEEKLY, WEEKLY_3W, TREND, TREND_3W, BURSTS, SPARSE)),
    (WEEKLY_3W, SMALL),
    (RARE, Change(0.0025, within_n=40_000)),
    (FEW, Change(0.0375, within_n=20_000)), (FEW, Change(0.0257)),
    (MOST, Change(0.8695)), (MOST, Change(0.8182)),
)  # fmt: skip
"""Streams and changes; other base rates have odds ratios of 0.74 (as 0.30 to 0.24) and 0.5."""
DROPS: Final = (Drop(0.24, 200.0, 5000.0), Drop(0.27, 500.0, 5000.0), Drop(0.24, 200.0), Drop(0.27, 500.0))
CHUNK: Final = 10
Key: TypeAlias = tuple[Any, ...]


FULL_EFFORT: Final = Effort(quiet=60, quiet_n=50_000, changed=200, halvings=8)


@dataclass(frozen=True)
class Sizes:
    """How much is run: streams of a row and of a headline, events without change, tuning, installation, timing."""

    streams: int = 100
    headline: int = 600
    quiet_headline: int = 200
    quiet_n: int = 50_000
    quiet_headline_n: int = 100_000
    tuning: Effort = FULL_EFFORT
    segments: int = 1000
    drops: int = 300
    updates: int = 40_000


QUICK: Final = Sizes(10, 20, 10, 10_000, 10_000, Effort(quiet=10, quiet_n=10_000, changed=10, halvings=4), 20, 10, 4000)


class Task(NamedTuple):
    """A piece of work for a process: results of tasks with the same key are put together."""

    key: Key
    run: Any
    arguments: tuple[Any, ...]


# ── pieces of work ────────────────────────────────────────────────────────────────────────────────────────────────────


def quiet_chunk(tuned: Sequence[Tuned], kind: Kind, after_n: int, numbers: range) -> list[tuple[str, Quiet]]:
    """All detectors on some streams without change."""
    results = []
    for number in numbers:
        stream = simulate(kind, "report", number, after_n)
        for name, alarms in _all_alarms(tuned, stream, None):
            results.append((name, judge_quiet(alarms, kind.learn_n, len(stream.xs))))
    return results


def change_chunk(tuned: Sequence[Tuned], kind: Kind, change: Change, numbers: range) -> list[tuple[str, Outcome]]:
    """All detectors on some streams with a change."""
    results = []
    for number in numbers:
        stream = simulate(kind, "report", number, change.within_n, change)
        for name, alarms in _all_alarms(tuned, stream, kind.learn_n):
            results.append((name, judge_change(alarms, kind.learn_n, change.within_n)))
    return results


def _all_alarms(tuned: Sequence[Tuned], stream: Stream, stop_after: int | None) -> Iterable[tuple[str, Any]]:
    yield _trustwatch.NAME, _trustwatch.alarms_of(stream, stop_after)
    for each in tuned:
        yield each.name, alarms_of(each.name, each.params, stream, stop_after)


def _tune(name: str, shape: dict[str, Any], effort: Effort) -> list[Tuned]:
    return [tune_shape(name, shape, FLAT, MAIN, effort)]


def _run(task: Task) -> tuple[Key, list[Any]]:
    return task.key, task.run(*task.arguments)


def run_all(tasks: Sequence[Task], workers: int, what: str) -> dict[Key, list[Any]]:
    """Run tasks in some processes; key → all their results, in the order of the tasks."""
    began, results = time.monotonic(), []
    with get_context("spawn").Pool(workers) as pool:
        for done, result in enumerate(pool.imap(_run, tasks), start=1):
            results.append(result)
            if sys.stderr.isatty():
                print(f"\r{what}: {done}/{len(tasks)}", end="", file=sys.stderr, flush=True)
    print(f"\r{what}: {time.monotonic() - began:.0f} s      ", file=sys.stderr)
    merged: dict[Key, list[Any]] = {}
    for key, found in results:
        merged.setdefault(key, []).extend(found)
    return merged


# ── parts of the run ──────────────────────────────────────────────────────────────────────────────────────────────────


def tune(sizes: Sizes, workers: int) -> list[Tuned]:
    """The best setting of each of River's detectors."""
    tasks = [Task((name,), _tune, (name, shape, sizes.tuning))
             for name, peer in PEERS.items() for shape in peer.combinations()]  # fmt: skip
    tried = run_all(tasks, workers, "tuning River's detectors")
    best = [min(tried[name,], key=lambda each: each.order) for name in PEERS]
    check_formulas(best)
    return best


def check_formulas(tuned: Sequence[Tuned]) -> None:
    """Compare the formulas with River's classes: as tuned, and looser, so that there are alarms to compare.

    Raises:
        RuntimeError: one differs.
    """
    stream = simulate(FLAT, "tune", 0, 4000, Change(0.20))
    for each in tuned:
        peer = PEERS[each.name]
        if peer.first is not None:
            for params in (each.params, {**each.params, peer.knob: peer.between(0.2)}):
                if found := disagreement(each.name, params, stream):
                    raise RuntimeError(found)


def run_rows(tuned: Sequence[Tuned], sizes: Sizes, workers: int, rows: Sequence[tuple[Kind, Change]]) -> list[Row]:
    """All rows of the report."""
    kinds = list(dict.fromkeys(kind for kind, _ in rows))
    tasks = []
    for kind in kinds:
        streams = sizes.quiet_headline if kind in (FLAT, DAILY) else sizes.streams
        most = sizes.quiet_headline_n if kind in (FLAT, DAILY) else sizes.quiet_n
        after_n = min(kind.quiet_n or most, most)
        tasks += [Task((kind,), quiet_chunk, (tuned, kind, after_n, numbers)) for numbers in _chunks(streams)]
    for kind, change in rows:
        streams = sizes.headline if (kind, change) in HEADLINES else sizes.streams
        tasks += [Task((kind, change), change_chunk, (tuned, kind, change, each)) for each in _chunks(streams)]
    results = run_all(tasks, workers, "streams")
    names = [_trustwatch.NAME, *(each.name for each in tuned)]
    return [Row(kind, change, {name: false_alarms(_of(results[kind,], name)) for name in names},
                {name: delays(_of(results[kind, change], name)) for name in names})
            for kind, change in rows]  # fmt: skip


def run_installation(sizes: Sizes, workers: int) -> tuple[list[int], list[DropResult]]:
    """False pages of each segment in 28 days, and what happened to the injected drops."""
    streams = sizes.segments * len(_installation.WATCHES)
    tasks = [Task(("quiet",), _installation.false_pages, (numbers, streams))
             for numbers in _chunks(sizes.segments)]  # fmt: skip
    for drop in DROPS:
        tasks += [Task((drop,), _installation.lost_before_found, (drop, numbers, streams))
                  for numbers in _chunks(sizes.drops)]  # fmt: skip
    results = run_all(tasks, workers, "installation")
    return results["quiet",], [DropResult(drop.to, drop.lost, results[drop,], drop.per_day) for drop in DROPS]


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _of(results: Sequence[tuple[str, Any]], name: str) -> list[Any]:
    return [result for of, result in results if of == name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, write the report, print the limits; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.detection", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: far too few streams to say anything")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    given = parser.parse_args(arguments)
    began, sizes = time.monotonic(), QUICK if given.quick else Sizes()
    # First, while nothing else runs: times are of one process on an idle machine.
    timings = [*_timing.time_rates(sizes.updates), *_timing.time_models(sizes.updates // 4)]
    tuned = tune(sizes, given.workers)
    timings += _timing.time_peers(tuned, sizes.updates // 4)
    rows = run_rows(tuned, sizes, given.workers, HEADLINES if given.quick else ROWS)
    pages, drops = run_installation(sizes, given.workers)
    report = Report(rows, tuned, timings, _timing.state_bytes(), pages, drops, quick=given.quick,
                    seconds=time.monotonic() - began)  # fmt: skip
    limits = write(report, given.out)
    for limit in limits:
        print(limit)
    print(f"{given.out}/detection.md, .png, .json; {time.monotonic() - began:.0f} s")
    return 0 if all(limit.holds for limit in limits) else 1


if __name__ == "__main__":
    sys.exit(main())
