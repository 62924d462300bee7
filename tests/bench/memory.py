"""How much memory a day takes: `python -m tests.bench.memory [--visitors 5000000]`.

Five million distinct visitors in one simulated day, with the rush of an evening, go through the pure stages in one
process: door, sessionize of all partitions, detect and judge, with what travels between them encoded and decoded, and
states encoded as for checkpoints, as in a live worker. Printed and plotted: resident memory over the day, what is held,
and what was cut. The exit code is 1 if the peak is above the target.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from streams.events import Event
from streams.frames import decode_counts, decode_frame, encode, partition_of
from streams.ingest import Door, Raw
from streams.privacy import Privacy
from streams.runtime import Housekeeping, settle
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.units import Plan, split
from streams.watch import Watcher

DAY_S: Final = 86_400
T0: Final = 1_767_571_200.0
"""2026-01-05, midnight."""
TARGET_MB: Final = 600.0
CHECKPOINT_S: Final = 60
SAMPLE_S: Final = 900
STEP_S: Final = 5
"""Event time that is taken at once, seconds."""
TOPIC: Final = "web-events"
PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 1e6
CHANNELS: Final = ("paid", "organic", "email", "social", "direct", "referral")
DEVICES: Final = ("mobile", "desktop", "tablet")
COUNTRIES: Final = ("de", "us", "fr", "gb", "it", "es", "nl", "at", "ch", "pl", "se", "dk")
CAMPAIGNS: Final = tuple(f"campaign-{number}" for number in range(40))


class Sample(msgspec.Struct, frozen=True):
    """What is held at a moment of the day."""

    hour: float
    visitors: int
    events: int
    rss_mb: float
    open_sessions: int
    remembered_ids: int
    pending_events: int
    evicted: int
    unremembered: int
    forced: int
    cpu_us_per_event: float


# ── the day ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Day(msgspec.Struct, frozen=True):
    """What is simulated.

    Attributes:
        visitors: in a whole day.
        begin: hour at which to begin.
        end: hour at which to end; after the whole day until the last of its sessions has ended.
        seed: same seed, same events.
    """

    visitors: int
    begin: float
    end: float
    seed: int

    def arrived(self, second: int) -> int:
        """Visitors that came before this second of the day: few at night, at eight in the evening twice the mean."""
        angle = [(hour - 20) / 12 * math.pi for hour in (0.0, second / 3600)]
        done = second / DAY_S + 0.95 * (math.sin(angle[1]) - math.sin(angle[0])) / (2 * math.pi)
        return round(self.visitors * done)

    def steps(self) -> Iterator[tuple[int, list[Event]]]:
        """Second of the day until which, and the events of, each `STEP_S` seconds; about 2.5 of each visitor."""
        rng = random.Random(self.seed)
        ahead: dict[int, list[Event]] = {}
        for start in range(int(self.begin * 3600), int(self.end * 3600), STEP_S):
            for second in range(start, min(start + STEP_S, DAY_S)):
                for number in range(self.arrived(second), self.arrived(second + 1)):
                    for event in visit(number, T0 + second + rng.random(), rng):
                        ahead.setdefault(int(event.time - T0) // STEP_S, []).append(event)
            yield start + STEP_S, sorted(ahead.pop(start // STEP_S, ()), key=lambda event: event.time)


def visit(number: int, at: float, rng: random.Random) -> Iterator[Event]:
    """Two or three events of one visitor, with everything that a web tracker sends along."""
    person, session = f"visitor-{number}", f"session-{number}"
    skew_s = rng.random() * 4
    labels = {"channel": rng.choice(CHANNELS), "device": rng.choice(DEVICES), "country": rng.choice(COUNTRIES),
              "campaign": rng.choice(CAMPAIGNS)}  # fmt: skip
    for index in range(rng.choice((2, 3))):
        viewed = index < 2
        page = f"/products/{rng.randrange(2000)}" if rng.random() < 0.7 else "/pricing"
        yield Event(
            f"{number}-{index}", "page_viewed" if viewed else "clicked", at, person, device_time=at - skew_s,
            session=session, page=page, segment=dict(labels),
            properties={} if viewed else {"element": "button.buy", "x": 100.0, "y": 420.0},
        )  # fmt: skip
        at += rng.expovariate(1 / 40)


# ── the stages ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Worker:
    """All stages of one worker, as `streams.app` wires them, without Kafka."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        plan = Plan(settings)
        self.events = 0
        self.stages: list[Sessionizer] = [plan.sessionizer(number) for number in range(topics.events_partitions)]
        self.watchers: list[Watcher] = [plan.watcher(number) for number in range(topics.counts_partitions)]
        self._partitions = topics.raw_partitions
        self._counts_partitions = topics.counts_partitions
        self._door = Door(settings, Privacy.from_settings(settings, offline=True), {TOPIC: self._partitions})
        for number in range(self._partitions):
            self._door.open_source(f"{TOPIC}/{number}")
        self._offsets = [0] * self._partitions
        self._applied = [0] * topics.events_partitions

    def take(self, events: list[Event], until: float) -> None:
        """Take events up to a moment of event time, which is also that of the clock."""
        raws: list[list[Raw]] = [[] for _ in range(self._partitions)]
        for event in events:
            number = partition_of(event.person, self._partitions)
            raws[number].append(Raw(TOPIC, number, self._offsets[number], b"", [event], until))
            self._offsets[number] += 1
        for batch in raws:
            self._door.take(batch, until)
        for target, frame in self._door.flush(until, everything=True).frames:
            counts = self.stages[target].apply(decode_frame(encode(frame)), self._applied[target])
            self._applied[target] += 1
            for part, portion in split(counts, self._counts_partitions) if counts else ():
                self.watchers[part].apply(decode_counts(encode(portion)))
        self.events += len(events)

    def checkpoint(self) -> int:
        """Encode every state, one by one, as checkpoints do; returns the bytes of all."""
        return sum(len(stage.snapshot()) for stage in self.stages) + sum(len(w.snapshot()) for w in self.watchers)

    def sample(self, hour: float, visitors: int, cpu_s: float) -> Sample:
        """What is held now."""
        totals = [stage.state.totals for stage in self.stages]
        return Sample(
            hour, visitors, self.events, rss_mb(), sum(len(stage.state.sessions) for stage in self.stages),
            sum(stage.remembered_ids for stage in self.stages), sum(stage.pending_events for stage in self.stages),
            sum(total.evicted for total in totals), sum(total.unremembered for total in totals),
            sum(total.forced for total in totals), 1e6 * cpu_s / max(1, self.events),
        )  # fmt: skip


def rss_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB


def peak_mb() -> float:
    """Peak of the resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


# ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def run(settings: Settings, day: Day, say: Console) -> list[Sample]:
    """Live through the day; a sample each quarter of an hour, a checkpoint each minute of it."""
    worker, samples, keeper, began = Worker(settings), list[Sample](), Housekeeping(), time.process_time()
    settle()
    say.print("  hour   visitors      events  RSS MB  open sessions  ids      pending  checkpoint MB  µs/event")
    for second, events in day.steps():
        worker.take(events, T0 + second)
        if second % CHECKPOINT_S == 0:
            size = worker.checkpoint() / 1e6
            keeper.tidy()
        if second % SAMPLE_S == 0:
            arrived = day.arrived(min(second, DAY_S)) - day.arrived(int(day.begin * 3600))
            now = worker.sample(second / 3600, arrived, time.process_time() - began)
            samples.append(now)
            say.print(f"{now.hour:6.2f} {now.visitors:10,} {now.events:11,} {now.rss_mb:7.0f} {now.open_sessions:14,}"
                      f"  {now.remembered_ids:<8,} {now.pending_events:<8,} {size:13.1f} {now.cpu_us_per_event:9.1f}"
                      )  # fmt: skip
    return samples


def show(samples: Sequence[Sample], base_mb: float, say: Console) -> bool:
    """Print the verdict; whether the target is held."""
    most = max(samples, key=lambda sample: sample.rss_mb)
    last, peak = samples[-1], peak_mb()
    table = Table("what", "value", title="memory of a day", title_justify="left")
    rows = {
        "visitors": f"{last.visitors:,}", "events": f"{last.events:,}",
        "resident at the start, MB": f"{base_mb:,.0f}",
        "peak resident, MB": f"{peak:,.0f} (target {TARGET_MB:,.0f})",
        "most open sessions": f"{max(sample.open_sessions for sample in samples):,}",
        "most remembered ids": f"{max(sample.remembered_ids for sample in samples):,}",
        "bytes per open session, all in": f"{(most.rss_mb - base_mb) * 1e6 / max(1, most.open_sessions):,.0f}",
        "evicted, unremembered, forced": f"{last.evicted:,}, {last.unremembered:,}, {last.forced:,}",
        "CPU µs per event": f"{last.cpu_us_per_event:,.1f} (with making the events and a checkpoint a minute)",
    }  # fmt: skip
    for row in rows.items():
        table.add_row(*row)
    say.print(table)
    say.print(f"{'PASS' if peak <= TARGET_MB else 'FAIL'}: peak {peak:,.0f} MB, target {TARGET_MB:,.0f} MB")
    return peak <= TARGET_MB


def write(samples: Sequence[Sample], path: Path) -> None:
    """Samples as CSV, and a plot beside it where matplotlib is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Sample.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(sample) for sample in samples)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an optional dependency)
    except ImportError:
        return
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    hours = [sample.hour for sample in samples]
    axes.plot(hours, [sample.rss_mb for sample in samples], color="C0", label="resident memory, MB")
    axes.axhline(TARGET_MB, color="C3", linestyle="--", label=f"target, {TARGET_MB:.0f} MB")
    axes.set(xlabel="hour of the simulated day", ylabel="MB", ylim=(0, None),
             title=f"{samples[-1].visitors:,} visitors in a day, one process")  # fmt: skip
    other = axes.twinx()
    other.plot(hours, [sample.open_sessions / 1000 for sample in samples], color="C1", label="open sessions, thousands")
    other.set(ylabel="thousands", ylim=(0, None))
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper left")
    figure.savefig(path.with_suffix(".png"), dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.memory", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--visitors", type=int, default=5_000_000)
    parser.add_argument("--begin", type=float, default=0.0, help="hour of the day; with --end: a part of the day")
    parser.add_argument("--end", type=float, default=25.0, help="hour; 25 lets the last sessions end")
    parser.add_argument("--partitions", type=int, default=4, help="events partitions, all in this one process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("report/memory.csv"))
    given = parser.parse_args(arguments)
    topics = {"raw": [{"name": TOPIC}], "events_partitions": given.partitions, "raw_partitions": given.partitions}
    settings = Settings.model_validate({"topics": topics})
    say, base_mb = Console(width=120), rss_mb()
    samples = run(settings, Day(given.visitors, given.begin, given.end, given.seed), say)
    write(samples, given.out)
    say.print(f"wrote {given.out}")
    return 0 if show(samples, base_mb, say) else 1


if __name__ == "__main__":
    sys.exit(main())
