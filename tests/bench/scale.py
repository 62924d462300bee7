"""Whether an event costs the same when there is more of everything: `python -m tests.bench.scale`.

- segments: 10, 1,000 and 20,000 of them; the same events of the same visitors, labelled with fewer or more values.
- sessions: 1,000 to a million open ones; the same events of the same few visitors, the rest has fallen silent.
- workers: 1, 2, 4 and 8 processes on a real Kafka; the same events, all in a backlog.

What is compared is CPU time per event, which holds where there are fewer cores than workers. Segments and sessions are
measured on the pure stages. The sizes wait side by side, each in a process of its own, and are measured in turns,
slice by slice. Exit code 1 if the largest costs more than 1.3 times what the smallest does.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import multiprocessing
import os
import pstats
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from deploy.kafka import Broker, available
from streams.events import Event
from streams.frames import Cell, Counts, Frame, Item, Place, Section, Segment, decode_counts, decode_frame, encode
from streams.ingest import Door, Raw
from streams.privacy import Privacy
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.units import Plan, split
from tests.bench._line_load import BASE, RAW_PARTITIONS, Load, closed, load, visits
from tests.bench._line_ours import Installation, run_ours
from tests.bench._line_run import peak_mb
from tests.bench._profile import TOPIC, bench_settings

FLAT: Final = 1.3
SEGMENTS: Final = (10, 1_000, 20_000)
SESSIONS: Final = (1_000, 10_000, 100_000, 1_000_000)
WORKERS: Final = (1, 2, 4, 8)
BUSY: Final = 800
"""Visitors who do anything while open sessions are counted; the others are silent."""
BUSY_S: Final = 1080.0
IDLE_BEFORE_S: Final = 600.0
"""The silent came so long before: all looks at their steps are over, and their sessions do not end yet."""


BEFORE_S: Final = 100.0
_FIELDS: Final = (
    "entered", "advanced", "dropped", "soon", "not_soon", "at_all", "not_at_all", "judged", "signalled", "asked",
    "hesitant", "weighed", "novel",
)  # fmt: skip
"""Counts that give every detector of steps something to look at."""


class Cost(msgspec.Struct):
    """One measurement: CPU µs per event, by stage, and what else is worth telling."""

    us: dict[str, float]
    notes: str = ""

    @property
    def total(self) -> float:
        """CPU µs per event, all stages."""
        return sum(self.us.values())


Measure = Callable[[], Cost]
Slices = Callable[[int], Iterator[Measure]]
"""Of a size: first made ready, then each step measures one more slice."""


# ── segments ──────────────────────────────────────────────────────────────────────────────────────────────────────


def segment_slices(rate: float, events: int, repeats: int) -> Slices:
    """Slices of a workload whose visitors carry one label of so many values.

    Args:
        rate: events per second of event time.
        events: in all slices together; a third of them comes before, unmeasured.
        repeats: slices.
    """
    work = load(events * 4 // 3, span_s=events * 4 / 3 / rate)
    # Without the last calls, which close all sessions at once: a line that goes on never sees that.
    frames = _frames(Load(work.values[:-RAW_PARTITIONS], work.partitions[:-RAW_PARTITIONS], 0.0), bench_settings())

    def slices(segments: int) -> Iterator[Measure]:
        values = segments - 1  # beside everyone
        settings = bench_settings(segments={"watch": ("channel",), "max_values": values})
        for _, frame in frames:  # a child's own copy
            _label(frame, values)
        stages = _Stages(settings)
        stages.know(values)
        warm = len(frames) // 4
        stages.apply(frames[:warm])
        size = (len(frames) - warm) // repeats
        for number in range(repeats):
            begin = warm + number * size
            yield partial(stages.measure, frames[begin : begin + size])

    return slices


def _label(frame: Frame, values: int) -> None:
    for section in frame.sections:
        for item in section.items:
            item.event.segment = {"channel": f"c{hash_of(item.event.person) % values}"}


def hash_of(text: str) -> int:
    """The same number in every process."""
    return int.from_bytes(text.encode()[-6:], "big")


class _Stages:
    """Sessionize and watch, all partitions, with the counts encoded between them."""

    def __init__(self, settings: Settings) -> None:
        plan, topics = Plan(settings), settings.topics
        self._parts = topics.counts_partitions
        self._journey = plan.journey.stages
        self.sessionizers = [plan.sessionizer(partition) for partition in range(topics.events_partitions)]
        self.watchers = [plan.watcher(partition) for partition in range(topics.counts_partitions)]
        self._offset = 0
        self.cpu_s = {"sessionize": 0.0, "counts": 0.0, "watch": 0.0}
        self.events = self.cells = 0

    def know(self, values: int) -> None:
        """Let all segments have been seen before: in a line that runs for long, streams are rarely new."""
        segments: list[Segment] = [(), *((("channel", f"c{number}"),) for number in range(values))]
        begin = BASE - 10 * BEFORE_S
        cells = [
            Cell(begin, stage, segment, dict.fromkeys(_FIELDS, 3)) for stage in self._journey for segment in segments
        ]
        sent = len(self.sessionizers)
        for partition in range(sent):
            counts = Counts(partition, -1 - partition, begin + BEFORE_S, cells if partition == 0 else [])
            for part, portion in split(counts, self._parts):
                self.watchers[part].state.applied[partition] = -sent - 1
                self.watchers[part].apply(portion)

    def measure(self, frames: list[tuple[int, Frame]]) -> Cost:
        """Apply frames; what they cost per event."""
        before, events, cells = dict(self.cpu_s), self.events, self.cells
        self.apply(frames)
        done = max(1, self.events - events)
        streams, refused = sum(w.streams for w in self.watchers), sum(w.state.unwatched for w in self.watchers)
        return Cost(
            {stage: (self.cpu_s[stage] - before[stage]) / done * 1e6 for stage in self.cpu_s},
            f"{(self.cells - cells) / done:.2f} cells/event, {streams:,} streams"
            + (", the rest is not watched (limits.streams)" if refused else ""),
        )

    def apply(self, frames: list[tuple[int, Frame]]) -> None:
        """Apply frames."""
        clock = time.process_time
        for target, frame in frames:
            began = clock()
            counts = self.sessionizers[target].apply(frame, self._offset)
            self._offset += 1
            self.events += sum(len(section.items) for section in frame.sections)
            counted = clock()
            self.cpu_s["sessionize"] += counted - began
            if counts is None:
                continue
            self.cells += len(counts.cells)
            parts = [(part, decode_counts(encode(portion))) for part, portion in split(counts, self._parts)]
            sent = clock()
            for part, portion in parts:
                self.watchers[part].apply(portion)
            self.cpu_s["counts"] += sent - counted
            self.cpu_s["watch"] += clock() - sent


def _frames(work: Load, settings: Settings) -> list[tuple[int, Frame]]:
    """The load as frames, as they come out of Kafka."""
    door = Door(settings, Privacy.from_settings(settings), {TOPIC: RAW_PARTITIONS})
    for partition in range(RAW_PARTITIONS):
        door.open_source(f"{TOPIC}/{partition}")
    read, frames, now = [0] * RAW_PARTITIONS, list[tuple[int, Frame]](), time.time()
    for polled in work.chunks(settings.ingest.batch_events):
        for partition, values in polled:
            first = read[partition]
            read[partition] += len(values)
            door.take([Raw(TOPIC, partition, first + i, value, time=now) for i, value in enumerate(values)], now)
        frames += [(target, decode_frame(encode(frame))) for target, frame in door.flush(now).frames]
    return frames


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def session_slices(repeats: int) -> Slices:
    """Slices of what a few busy visitors do while so many sessions are open."""

    def slices(sessions: int) -> Iterator[Measure]:
        settings = bench_settings(
            topics={"events_partitions": 1, "counts_partitions": 1},
            limits={"open_sessions": 4_000_000, "dedupe_ids": 4_000_000, "pending_events": 4_000_000},
        )
        sessionizer = Plan(settings).sessionizer(0)
        for number, frame in enumerate(_silent(sessions - BUSY)):
            sessionizer.apply(frame, number)
        rng = random.Random(1)
        frames = [frame for _, frame in _frames(closed(visits(rng, BUSY, BUSY_S)), settings)]
        warm, size = len(frames) // 4, len(frames) * 3 // 4 // repeats
        offset = sessions + 1

        def measure(some: list[Frame]) -> Cost:
            nonlocal offset
            events, began = sum(len(s.items) for frame in some for s in frame.sections), time.process_time()
            for frame in some:
                counts = sessionizer.apply(frame, offset)
                offset += 1
                if counts is not None:
                    encode(counts)
            used = time.process_time() - began
            return Cost({"sessionize": used / events * 1e6}, f"{len(sessionizer.state.sessions):,} open")

        measure(frames[:warm])
        for number in range(repeats):
            begin = warm + number * size
            yield partial(measure, frames[begin : begin + size])
        yield partial(_checkpoint, sessionizer)

    return slices


def _silent(count: int) -> Iterator[Frame]:
    """Frames of visitors who look at one page, and then of the time that passes until nothing more is due."""
    sources, begin = {TOPIC: 1 + RAW_PARTITIONS}, BASE - IDLE_BEFORE_S
    for first in range(0, count, 200):
        items = [
            Item(
                Place(number, 0), begin + 100.0 * number / count, _silent_visit(number, begin + 100.0 * number / count)
            )
            for number in range(first, min(count, first + 200))
        ]
        yield Frame(sources, [Section(f"{TOPIC}/0", items[-1].due, False, items)])
    others = [Section(f"{TOPIC}/{number}", BASE - 1, False) for number in range(RAW_PARTITIONS)]
    yield Frame({TOPIC: RAW_PARTITIONS}, others)


def _silent_visit(number: int, at: float) -> Event:
    labels = {"channel": f"c{number % 12}", "device": f"d{number % 7}", "country": f"l{number % 20}"}
    return Event(f"silent-{number}", "page_viewed", at, f"silent-{number}", page="/", segment=labels)


def _checkpoint(sessionizer: Sessionizer) -> Cost:
    """The cost of a checkpoint, and of a start from it: they grow with the state, not with the events."""
    began = time.process_time()
    blob = sessionizer.snapshot()
    written = time.process_time()
    sessionizer.restore(blob)
    took = written - began, time.process_time() - written
    return Cost({}, f"{len(blob) / 1e6:,.1f} MB, written in {took[0]:.2f} s, taken up in {took[1]:.2f} s;"
                    f" {peak_mb(os.getpid()):,.0f} MB resident")  # fmt: skip


# ── sizes in turns ────────────────────────────────────────────────────────────────────────────────────────────────


def in_turns(slices: Slices, sizes: Sequence[int], profiled: int | None = None) -> dict[int, list[Cost]]:
    """Make all sizes ready side by side, then measure their slices in turns.

    Args:
        slices: what is measured.
        sizes: each gets a process of its own.
        profiled: this size is run under cProfile; its numbers are worthless.
    """
    fork = multiprocessing.get_context("fork")
    pipes: dict[int, Connection] = {}
    children = []
    for size in sizes:
        pipes[size], theirs = fork.Pipe()
        child = fork.Process(target=_child, args=(slices, size, theirs, size == profiled), daemon=True)
        child.start()
        children.append(child)
        theirs.close()
    for size in sizes:
        pipes[size].recv()  # ready
    costs: dict[int, list[Cost]] = {size: [] for size in sizes}
    left = set(sizes)
    while left:
        for size in sorted(left):
            pipes[size].send(True)
            found = pipes[size].recv()
            if found is None:
                left.discard(size)
            else:
                costs[size].append(found)
    for child in children:
        child.join()
    return costs


def _child(slices: Slices, size: int, pipe: Connection, profiled: bool) -> None:
    steps = slices(size)
    step = next(steps, None)
    pipe.send(True)
    profile = cProfile.Profile() if profiled else None
    while step is not None:
        pipe.recv()
        if profile:
            profile.enable()
        cost = step()
        if profile:
            profile.disable()
        step = next(steps, None)
        pipe.send(cost)
    pipe.recv()
    if profile:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(15)
        print(f"── cProfile at {size:,}\n{text.getvalue()}", flush=True)
    pipe.send(None)


def show(title: str, what: str, costs: dict[int, list[Cost]]) -> float:
    """Print a table; returns how many times as much the largest costs as the smallest."""
    stages = list(next(iter(costs.values()))[0].us)
    table = Table(what, "CPU µs/event", *(stages if len(stages) > 1 else ()), "each", "x smallest", "", title=title)
    means = {size: _means([cost for cost in each if cost.us]) for size, each in costs.items()}
    least = sum(means[min(costs)].values())
    ratio = 1.0
    for size, each in costs.items():
        measured, whole = [cost for cost in each if cost.us], sum(means[size].values())
        ratio = max(ratio, whole / least)
        by_stage = [f"{means[size][stage]:.1f}" for stage in stages] if len(stages) > 1 else []
        table.add_row(f"{size:,}", f"{whole:.1f}", *by_stage, " ".join(f"{cost.total:.1f}" for cost in measured),
                      f"{whole / least:.2f}", each[-1].notes)  # fmt: skip
    Console(width=150).print(table)
    return ratio


def _means(each: list[Cost]) -> dict[str, float]:
    """Means, not medians: slices of the same events hold more or fewer closings of buckets."""
    return {stage: statistics.fmean(cost.us[stage] for cost in each) for stage in each[0].us}


# ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def worker_costs(events: int, sizes: Sequence[int], repeats: int) -> dict[int, list[Cost]]:
    """CPU per event of ingest and so many workers, on a real Kafka."""
    costs: dict[int, list[Cost]] = {size: [] for size in sizes}
    work = load(events)
    with TemporaryDirectory(prefix="trustwatch-scale-") as name, Broker() as broker:
        for turn in range(repeats):
            for size in sizes:
                knobs = {"topics": {"events_partitions": 8, "counts_partitions": 8}}
                installation = Installation(broker.bootstrap, f"scale-{size}-{turn}", **knobs)
                commands = [("ingest",), *[("worker", "--no-ingest")] * size]
                run = run_ours(installation, commands, work, Path(name), broker.pid, durable=False)
                installation.remove()
                notes = f"{run.rate:,.0f} events/s; peaks of memory together {run.rss_mb:,.0f} MB"
                costs[size].append(Cost({"all": run.cpu_us}, notes))
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="segments,sessions,workers", help="which, with commas")
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates", default="278,10000", help="events per second of event time, for the segments")
    parser.add_argument("--cprofile", action="store_true", help="also profile the largest size of segments, sessions")
    given = parser.parse_args(arguments)
    ratios: dict[str, float] = {}
    only = given.only.split(",")
    if "segments" in only:
        for rate in map(float, given.rates.split(",")):
            slices = segment_slices(rate, given.events, given.repeats)
            costs = in_turns(slices, SEGMENTS, SEGMENTS[-1] if given.cprofile else None)
            name = f"segments, {rate:,.0f} events a second of event time"
            ratios[name] = show(name, "segments", costs)
    if "sessions" in only:
        costs = in_turns(session_slices(given.repeats), SESSIONS, SESSIONS[-1] if given.cprofile else None)
        ratios["open sessions"] = show("open sessions", "open sessions", costs)
    if "workers" in only:
        if reason := available():
            print(f"workers: not measured, no real Kafka: {reason}", file=sys.stderr)
        else:
            costs = worker_costs(given.events, WORKERS, 1)
            ratios["workers"] = show(f"workers, {given.events:,} events", "workers", costs)
    for name, ratio in ratios.items():
        print(f"{'ok    ' if ratio <= FLAT else 'MISSED'} {name}: {ratio:.2f} x from smallest to largest,"
              f" at most {FLAT:g}")  # fmt: skip
    return int(any(ratio > FLAT for ratio in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
