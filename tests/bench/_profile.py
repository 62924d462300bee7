"""Where the CPU time of an event goes: the pure stages of the line, on the workload of `make bench`, without Kafka.

`python -m tests.bench._profile [--events N] [--cprofile STAGE]`. What is measured is CPU time of this process, so it
holds on a busy machine, too. The stages take turns, poll by poll, as in one worker: memory and garbage collection are
as they are there.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.table import Table

from streams.events import Outcome
from streams.formats import FormatOptions, decode
from streams.frames import Counts, Frame, decode_counts, decode_frame, encode
from streams.ingest import Door, Raw
from streams.privacy import Privacy
from streams.settings import Settings
from streams.units import Plan, split
from tests.bench._line_load import RAW_PARTITIONS, Load, load, settings_of

TOPIC: Final = "bench-raw"
STAGES: Final = (
    "ingest", "frame encode", "frame decode", "sessionize", "counts encode", "counts decode", "watch",
)  # fmt: skip


class CpuClock:
    """CPU seconds by stage; with cProfile on those that are named."""

    def __init__(self, profiled: Sequence[str] = ()) -> None:
        self.cpu_s = dict.fromkeys(STAGES, 0.0)
        self.profiles = {stage: cProfile.Profile() for stage in profiled}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Measure what is done within."""
        profile = self.profiles.get(stage)
        began = time.process_time()
        if profile is not None:
            profile.enable()
        try:
            yield
        finally:
            if profile is not None:
                profile.disable()
            self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + time.process_time() - began


class PureLine:
    """The pure stages of all partitions, one after the other.

    Args:
        settings: all knobs; `topics.raw` is the one topic of the bench.
        clock: measures the stages.

    Attributes:
        frames: frames made.
        cells: cells of the counts made.
        sizes: stage → bytes encoded.
    """

    def __init__(self, settings: Settings, clock: CpuClock) -> None:
        topics = settings.topics
        plan = Plan(settings)
        self._topics, self._clock = topics, clock
        self._door = Door(settings, Privacy.from_settings(settings), {TOPIC: RAW_PARTITIONS})
        for partition in range(RAW_PARTITIONS):
            self._door.open_source(f"{TOPIC}/{partition}")
        self.sessionizers = [plan.sessionizer(partition) for partition in range(topics.events_partitions)]
        self.watchers = [plan.watcher(partition) for partition in range(topics.counts_partitions)]
        self._read = [0] * RAW_PARTITIONS
        self._offsets = [0] * topics.events_partitions
        self.frames = self.cells = 0
        self.sizes = {"frame encode": 0, "counts encode": 0}

    def poll(self, polled: list[tuple[int, list[bytes]]]) -> None:
        """All stages for the messages of one poll."""
        raws = [self._raws(partition, values) for partition, values in polled]
        now = time.time()
        with self._clock.of("ingest"):
            for messages in raws:
                self._door.take(messages, now)
            flush = self._door.flush(now)
        self._apply(flush.frames)

    def finish(self) -> None:
        """Tell all partitions what the sources have reached: the last buckets close."""
        with self._clock.of("ingest"):
            flush = self._door.flush(time.time(), everything=True)
        self._apply(flush.frames)

    def _apply(self, frames: list[tuple[int, Frame]]) -> None:
        of = self._clock.of
        with of("frame encode"):
            encoded = [(target, encode(frame)) for target, frame in frames]
        self.frames += len(frames)
        self.sizes["frame encode"] += sum(len(value) for _, value in encoded)
        with of("frame decode"):
            decoded = [(target, decode_frame(value)) for target, value in encoded]
        with of("sessionize"):
            counts = [self.sessionizers[target].apply(frame, self._next(target)) for target, frame in decoded]
        self._watch([message for message in counts if message is not None])

    def _watch(self, counts: list[Counts]) -> None:
        of = self._clock.of
        with of("counts encode"):
            parts = [part for message in counts for part in split(message, self._topics.counts_partitions)]
            encoded = [(target, encode(part)) for target, part in parts]
        self.cells += sum(len(message.cells) for message in counts)
        self.sizes["counts encode"] += sum(len(value) for _, value in encoded)
        with of("counts decode"):
            decoded = [(target, decode_counts(value)) for target, value in encoded]
        with of("watch"):
            for target, part in decoded:
                self.watchers[target].apply(part)

    def _raws(self, partition: int, values: list[bytes]) -> list[Raw]:
        first = self._read[partition]
        self._read[partition] += len(values)
        now = time.time()
        return [Raw(TOPIC, partition, first + i, value, time=now) for i, value in enumerate(values)]

    def _next(self, target: int) -> int:
        self._offsets[target] += 1
        return self._offsets[target] - 1


def run(work: Load, settings: Settings, clock: CpuClock) -> PureLine:
    """Send the whole load through the pure stages."""
    line = PureLine(settings, clock)
    for polled in work.chunks(settings.ingest.batch_events):
        line.poll(polled)
    line.finish()
    applied = sum(stage.state.totals.applied for stage in line.sessionizers)
    if applied != len(work.values):
        totals = [stage.state.totals for stage in line.sessionizers]
        raise SystemExit(f"{applied} of {len(work.values)} events were applied: {totals}")
    return line


def bench_settings(**sections: object) -> Settings:
    """The settings of the bench with its one raw topic."""
    topics: dict[str, object] = {"raw": [{"name": TOPIC, "format": "segment"}], "raw_partitions": RAW_PARTITIONS}
    given = sections.pop("topics", {})
    assert isinstance(given, dict)
    return settings_of(topics=topics | given, **sections)


def parts_of_ingest(work: Load, settings: Settings) -> dict[str, float]:
    """CPU µs per event of what ingest is made of, each alone: reading the format, and the privacy door."""
    options = FormatOptions.from_settings(settings, now_s=time.time())
    privacy = Privacy.from_settings(settings)
    values = work.values[:100_000]
    outcomes, read_us = _timed(lambda: [decode(value, "segment", options)[0] for value in values], len(values))
    _, scrub_us = _timed(lambda: [privacy.scrub(outcome) for outcome in outcomes], len(values))
    return {"of it: decode the format": read_us, "of it: scrub": scrub_us}


def _timed(do: Callable[[], list[Outcome]], count: int) -> tuple[list[Outcome], float]:
    began = time.process_time()
    done = do()
    return done, (time.process_time() - began) / count * 1e6


def snapshots(line: PureLine) -> dict[str, tuple[float, int]]:
    """CPU seconds and bytes of a checkpoint of all partitions, by stage."""
    found: dict[str, tuple[float, int]] = {}
    for name, stages in (("sessionize", line.sessionizers), ("watch", line.watchers)):
        began = time.process_time()
        size = sum(len(stage.snapshot()) for stage in stages)
        found[name] = (time.process_time() - began, size)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench._profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--span", type=float, default=None, help="seconds of event time; default: 3600 for a million")
    parser.add_argument("--cprofile", action="append", default=[], choices=STAGES, help="also profile this stage")
    parser.add_argument("--top", type=int, default=25, help="lines of each profile")
    given = parser.parse_args(arguments)
    settings = bench_settings()
    work = load(given.events, span_s=given.span)
    clock = CpuClock(given.cprofile)
    parts = parts_of_ingest(work, settings)
    line = run(work, settings, clock)
    _show(clock, line, parts, len(work.values))
    for stage, profile in clock.profiles.items():
        print(f"\n── {stage}: cProfile (it slows small functions more than large ones)")
        pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(given.top)
    return 0


def _show(clock: CpuClock, line: PureLine, parts: dict[str, float], events: int) -> None:
    total = sum(clock.cpu_s.values())
    table = Table("stage", "CPU µs/event", "share", title=f"pure stages, {events:,} events")
    for stage, seconds in clock.cpu_s.items():
        table.add_row(stage, f"{seconds / events * 1e6:.2f}", f"{seconds / total:.0%}")
        if stage == "ingest":
            for part, us in parts.items():
                table.add_row(f"  {part}", f"{us:.2f}", "")
    table.add_row("all", f"{total / events * 1e6:.2f}", "")
    Console(width=100).print(table)
    observations = sum(sum(watcher.state.observations.values()) for watcher in line.watchers)
    streams = sum(watcher.streams for watcher in line.watchers)
    print(
        f"{line.frames:,} frames of {line.sizes['frame encode'] / line.frames:,.0f} bytes; {line.cells:,} cells"
        f" ({line.cells / events:.2f} per event, {line.sizes['counts encode']:,} bytes); {streams:,} streams,"
        f" {observations:,} observations ({clock.cpu_s['watch'] / max(observations, 1) * 1e6:.1f} µs each)"
    )
    for stage, (seconds, size) in snapshots(line).items():
        print(f"checkpoint of {stage}, all partitions: {seconds * 1000:,.0f} ms CPU, {size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
