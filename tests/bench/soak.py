"""Does it grow: `python -m tests.bench.soak [--minutes 30]`: the real line on a real Kafka, at full rate.

Ingest and worker are kept busy without end: a sender tops up the raw topic to a bounded backlog, with visitors that are
ever new and event time that goes on. Sampled each second: resident memory, lag, throughput, what is held, disk; written
as CSV and PNG. The verdict is the slope of resident memory after the warm-up, with its interval. The exit code is 1 if
memory grows.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import Producer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from matplotlib.figure import Figure
from rich.console import Console

from deploy.kafka import Broker, available
from streams.kafka import confluent_options
from streams.topics import specs
from tests.bench._line_load import BASE, STAMP, Load, load
from tests.bench._line_ours import Installation, Processes, Samples, scrape, total

CALLS: Final = 300_000
"""Calls of one round; 60,000 visitors, so that two hex digits of their ids are left to number the rounds."""
ROUNDS: Final = 256
BACKLOG: Final = 100_000
"""Messages that may wait in all: enough that no stage waits, few enough for the disk."""
SAMPLE_S: Final = 1.0
PARTITION_BYTES: Final = 64 * 1024 * 1024
SEGMENT_BYTES: Final = 16 * 1024 * 1024
DISK_MB: Final = 8_000.0
"""More than this is a fault of the soak: it ends."""
GROWTH_PER_HOUR: Final = 0.05
"""Memory grows if the lower end of the slope's interval is above 0 and the slope above this share of memory an hour."""
LEAST_MIN: Final = 10.0
"""In a shorter run sessions, ids and baselines are still filling up."""
NAMES: Final = ("ingest", "worker")
MESSAGE_ID: Final = 53
"""Where the id of a call begins: `{"timestamp":"…","messageId":"00…`."""


class Sample(msgspec.Struct, frozen=True):
    """One moment; rates are those since the sample before, memory in MB."""

    minute: float
    events: int
    events_per_s: float
    ingest_rss_mb: float
    worker_rss_mb: float
    broker_rss_mb: float
    backlog: int
    lag_ingest_s: float
    lag_sessionize_s: float
    lag_watch_s: float
    open_sessions: int
    remembered_ids: int
    pending_events: int
    state_mb: float
    streams: int
    evicted: int
    disk_mb: float


class Growth(msgspec.Struct, frozen=True):
    """A slope, MB an hour, its 95 % interval, and the mean, MB."""

    slope: float
    low: float
    high: float
    mean: float

    @property
    def grows(self) -> bool:
        """Whether it grows, beyond chance and beyond what matters."""
        return self.low > 0 and self.slope > GROWTH_PER_HOUR * self.mean

    def __str__(self) -> str:
        return f"{self.slope:+.1f} MB/h (95 %: {self.low:+.1f} to {self.high:+.1f}) at {self.mean:.0f} MB"


# ── the load ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def endless(once: Load) -> Iterator[tuple[int, bytes]]:
    """Partition and bytes of calls without end: each round has new visitors and begins when the last has ended."""
    calls = list(zip(once.values[:CALLS], once.partitions[:CALLS], strict=True))
    times = [_time_of(value) for value, _ in calls]
    span_s = times[-1] - BASE
    number = 0
    while True:
        mark, shift = b"%02x" % (number % ROUNDS), number * span_s
        for (value, partition), at in zip(calls, times, strict=True):
            moved = value[: STAMP.start] + _stamp(at + shift) + value[STAMP.stop : MESSAGE_ID] + mark
            yield partition, moved + value[MESSAGE_ID + 2 :].replace(b"visitor-00", b"visitor-" + mark, 1)
        number += 1


def _time_of(value: bytes) -> float:
    return datetime.fromisoformat(value[STAMP].decode()).timestamp()


def _stamp(second: float) -> bytes:
    whole = int(second)
    return b"%s.%03dZ" % (_whole_second(whole), int((second - whole) * 1000))


@functools.lru_cache(maxsize=8)
def _whole_second(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19].encode()


class Sender(threading.Thread):
    """Tops up the raw topic, so that a bounded backlog always waits.

    Attributes:
        sent: calls handed to Kafka's client.
        done: calls that the worker has taken up, as last scraped.
    """

    def __init__(self, installation: Installation, once: Load) -> None:
        super().__init__(daemon=True)
        options: dict[str, Any] = {"linger.ms": 20, "queue.buffering.max.messages": 200_000, "log_level": 0}
        self._producer = Producer(confluent_options(installation.settings.kafka) | options)
        self._topic, self._calls = installation.raw, endless(once)
        self._over = threading.Event()
        self.sent = self.done = 0

    def run(self) -> None:
        """Until told to stop."""
        while not self._over.is_set():
            if self.sent - self.done >= BACKLOG:
                self._producer.poll(0.05)
                continue
            for partition, value in (next(self._calls) for _ in range(2_000)):
                self._producer.produce(self._topic, value=value, partition=partition)
            self.sent += 2_000
            self._producer.poll(0)
        self._producer.flush(20)

    def stop(self) -> None:
        """End; what Kafka has not taken by then is dropped, or its client would wait for it without end."""
        self._over.set()
        self.join(30)
        self._producer.purge()
        self._producer.flush(5)


def bound_disk(installation: Installation) -> None:
    """Keep little of each topic: a soak writes many GB."""
    settings = installation.settings
    keep = {"retention.bytes": str(PARTITION_BYTES), "segment.bytes": str(SEGMENT_BYTES)}
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    try:
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, spec.name, keep if "compact" not in spec.config.get(
                "cleanup.policy", "") else {"segment.bytes": str(SEGMENT_BYTES)})
            for spec in specs(settings)
        ]  # fmt: skip
        admin.alter_configs(resources)
    finally:
        admin.close()


# ── sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rss_mb(pid: int | None) -> float:
    """Resident memory of a process, MB."""
    if pid is None:
        return 0.0
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def disk_mb(folder: Path) -> float:
    """Size of all files; those that vanish meanwhile are not counted."""
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_blocks * 512
        except OSError:
            continue
    return size / 1e6


class Sampler:
    """Looks at everything once a second, and tells the sender how far the worker is."""

    def __init__(self, ours: Processes, sender: Sender, broker: Broker, data: Path) -> None:
        self._ours, self._sender, self._broker, self._data = ours, sender, broker, data
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self.samples: list[Sample] = []

    def look(self) -> Sample:
        """Take a sample."""
        ours, now = self._ours, time.monotonic()
        ingest, worker = (scrape(port) for port in ours.ports)
        self._sender.done = events = int(total(worker, "trustwatch_events_total"))
        rate = (events - self._last[1]) / max(1e-9, now - self._last[0])
        self._last = (now, events)
        ingest_pid, worker_pid = ours.pids
        found = Sample(
            round((now - self._began) / 60, 4), events, round(rate, 1), rss_mb(ingest_pid), rss_mb(worker_pid),
            rss_mb(self._broker.pid), self._sender.sent - events, _lag(ingest, "ingest"),
            _lag(worker, "sessionize"), _lag(worker, "watch"), int(total(worker, "trustwatch_open_sessions")),
            int(total(worker, "trustwatch_remembered_ids")), int(total(worker, "trustwatch_pending_events")),
            total(worker, "trustwatch_state_bytes") / 1e6, int(total(worker, "trustwatch_watched_streams")),
            int(total(worker, "trustwatch_evictions_total")), disk_mb(self._data),
        )  # fmt: skip
        self.samples.append(found)
        return found


def _lag(samples: Samples, stage: str) -> float:
    return max((value for labels, value in samples.get("trustwatch_lag_seconds", []) if labels["stage"] == stage),
               default=0.0)  # fmt: skip


# ── the verdict ───────────────────────────────────────────────────────────────────────────────────────────────────────


def growth(minutes: Sequence[float], mb: Sequence[float]) -> Growth:
    """The line through memory over time, by least squares.

    Neighbouring samples are alike, so the interval is widened as if there were fewer of them (first autocorrelation).

    >>> found = growth([n / 60 for n in range(600)], [200 + n / 60 * 0.5 + n % 7 for n in range(600)])
    >>> round(found.slope), found.low < 30 < found.high
    (30, True)
    """
    x, y = np.asarray(minutes) / 60, np.asarray(mb)
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    spread = float(rest @ rest)
    alike = float(rest[1:] @ rest[:-1]) / spread if spread else 0.0
    alike = min(0.99, max(0.0, alike))
    error = (spread / max(1, len(y) - 2) / float(x @ x) * (1 + alike) / (1 - alike)) ** 0.5
    return Growth(slope, slope - 1.96 * error, slope + 1.96 * error, float(y.mean()))


def judge(samples: Sequence[Sample], warm_up_min: float) -> dict[str, Growth]:
    """Process → growth after the warm-up."""
    after = [sample for sample in samples if sample.minute >= warm_up_min]
    minutes = [sample.minute for sample in after]
    return {name: growth(minutes, [getattr(sample, f"{name}_rss_mb") for sample in after]) for name in NAMES}


def write(samples: Sequence[Sample], path: Path) -> None:
    """Samples as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Sample.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(sample) for sample in samples)


def draw(samples: Sequence[Sample], found: dict[str, Growth], warm_up_min: float, path: Path) -> None:
    """Memory with its slopes, throughput, and lag, one below the other."""
    figure = Figure(figsize=(10, 9), layout="constrained")
    memory, speed, lag = figure.subplots(3, 1, sharex=True)
    minutes = [sample.minute for sample in samples]
    for index, (name, slope) in enumerate(found.items()):
        memory.plot(minutes, [getattr(sample, f"{name}_rss_mb") for sample in samples], color=f"C{index}", linewidth=1,
                    label=f"{name}: {slope}")  # fmt: skip
        ends = np.array([warm_up_min, minutes[-1]])
        middle = (ends[0] + ends[1]) / 2
        memory.plot(ends, slope.mean + slope.slope * (ends - middle) / 60, color=f"C{index}", linestyle="--")
    memory.axvline(warm_up_min, color="grey", linewidth=0.8, linestyle=":")
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    memory.legend(loc="lower right")
    speed.plot(minutes, [sample.events_per_s for sample in samples], linewidth=1)
    speed.set(ylabel="events/s", ylim=(0, None))
    for stage in ("ingest", "sessionize", "watch"):
        lag.plot(minutes, [getattr(sample, f"lag_{stage}_s") for sample in samples], linewidth=1, label=stage)
    lag.set(xlabel="minutes", ylabel="lag, seconds", ylim=(0, None))
    lag.legend(loc="upper right")
    figure.suptitle(f"{samples[-1].events:,} events in {minutes[-1]:.0f} minutes, ingest and worker, Apache Kafka")
    figure.savefig(path, dpi=110)


# ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def soak(minutes: float, folder: Path, say: Console) -> list[Sample]:
    """Run it; returns the samples."""
    # Retention is looked after every 5 minutes by default, by when the disk would be full.
    extra = {"log.retention.check.interval.ms": "5000", "log.segment.delete.delay.ms": "1000",
             "log.cleaner.backoff.ms": "5000"}  # fmt: skip
    with Broker(folder / "kafka", extra=extra) as broker:
        # A function of its own: Kafka's clients are gone before the broker is, or librdkafka waits for it for ever.
        return _soak(broker, minutes, folder, say)


def _soak(broker: Broker, minutes: float, folder: Path, say: Console) -> list[Sample]:
    installation = Installation(broker.bootstrap, "soak")
    bound_disk(installation)
    sender = Sender(installation, load(CALLS))
    with Processes(installation, [["ingest"], ["worker", "--no-ingest"]], folder) as ours:
        sampler = Sampler(ours, sender, broker, folder / "kafka")
        sender.start()
        try:
            _watch(sampler, minutes, say)
        finally:
            sender.stop()
    return sampler.samples


def _watch(sampler: Sampler, minutes: float, say: Console) -> None:
    say.print("minute     events  events/s  ingest MB  worker MB  backlog  lag s  sessions  state MB  disk MB")
    told = -1
    began = time.monotonic()
    while (done_min := (time.monotonic() - began) / 60) < minutes:
        now = sampler.look()
        if int(done_min * 2) > told:
            told = int(done_min * 2)
            lag = max(now.lag_ingest_s, now.lag_sessionize_s, now.lag_watch_s)
            say.print(f"{now.minute:6.1f} {now.events:10,} {now.events_per_s:9,.0f} {now.ingest_rss_mb:10.0f}"
                      f" {now.worker_rss_mb:10.0f} {now.backlog:8,} {lag:6.1f} {now.open_sessions:9,}"
                      f" {now.state_mb:9.1f} {now.disk_mb:8,.0f}")  # fmt: skip
        if now.disk_mb > DISK_MB:
            raise SystemExit(f"the topics take {now.disk_mb:,.0f} MB of disk: retention does not hold")
        time.sleep(SAMPLE_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, help="minutes left out of the slope; default: a third")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of soak.csv and soak.png")
    given = parser.parse_args(arguments)
    if reason := available():
        raise SystemExit(f"needs Apache Kafka: {reason}")
    warm_up_min, say = given.minutes / 3 if given.warm_up is None else given.warm_up, Console(width=120)
    with TemporaryDirectory(prefix="trustwatch-soak-", ignore_cleanup_errors=True) as name:
        samples = soak(given.minutes, Path(name), say)
    write(samples, given.out / "soak.csv")
    found = judge(samples, warm_up_min)
    draw(samples, found, warm_up_min, given.out / "soak.png")
    long_enough = given.minutes >= LEAST_MIN
    for process, slope in found.items():
        verdict = "FAIL grows" if slope.grows else "PASS"
        say.print(f"{verdict if long_enough else f'no verdict under {LEAST_MIN:g} minutes'}: {process} {slope}")
    say.print(
        f"mean {samples[-1].events / samples[-1].minute / 60:,.0f} events/s; wrote {given.out}/soak.csv, soak.png"
    )
    return int(long_enough and any(slope.grows for slope in found.values()))


if __name__ == "__main__":
    sys.exit(main())
