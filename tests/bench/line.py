"""How fast the line is, beside two peers in the same run: `make bench`, or `python -m tests.bench.line [--events N]`.

All read the same Segment calls from the same topic, in turns, each in a process of its own: the real worker, from raw
messages to checkpointed sessions, and the two peers of `tests.bench.peers`, which only decode and count. Joining a
group is left out of all. Nothing is asserted: it is a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from deploy.kafka import Broker, available
from streams._process import ManagedProcess, free_port, wait_until
from streams.embedded import EmbeddedBroker
from streams.frames import encode_json, partition_of
from streams.kafka import confluent_options
from streams.settings import Settings
from streams.simulate import simulate
from streams.simulate_web import segment_call
from streams.topics import Topics
from tests.bench.peers import RAW, Run

PARTITIONS: Final = 8
RUN_S: Final = 90.0
NEW_ROUND_S: Final = 70.0
"""A round that would begin later than this is left out, so that all ends within some three minutes."""
PLAIN_EVENTS: Final = 60_000
"""Plain Faust reads no more than this: its rate does not change with the number, only the wait does."""
WAYS: Final = {"bare": "bare limit: getmany, msgspec", "plain": "plain Faust: faust.Record", "line": "trustwatch"}
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


# ── the load ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def calls(count: int) -> Iterator[tuple[int, bytes]]:
    """Partition and bytes of Segment calls of some ten thousand visitors, in event-time order."""
    for event in islice(simulate(2.0, seed=1, sessions_per_day=250_000, leads_per_day=0), count):
        yield partition_of(event.person, PARTITIONS), encode_json(segment_call(event, _iso))


def _iso(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds")


def produce(settings: Settings, count: int) -> float:
    """Fill the raw topic; mean bytes of a message."""
    producer, size = Producer({**confluent_options(settings.kafka), "linger.ms": 20}), 0
    for partition, value in calls(count):
        producer.produce(RAW, value=value, partition=partition)
        size += len(value)
        if producer.poll(0) == 0 and len(producer) > 50_000:
            producer.flush()
    if left := producer.flush(30):
        raise SystemExit(f"{left} messages were not acknowledged")
    return size / count


# ── the line ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(bootstrap: str, *, real: bool, turn: int) -> Settings:
    """A fresh installation on the same raw topic for each turn."""
    own = ("events", "counts", "findings", "dead_letters", "sessions_state", "watch_state")
    return Settings.model_validate({
        "app_id": f"bench-{turn}",
        "kafka": {"bootstrap_servers": bootstrap, "session_timeout_s": 6, "idempotent": real},
        "topics": {**{name: f"bench-{turn}.{name}" for name in own}, "raw": [{"name": RAW, "format": "segment"}],
                   "raw_partitions": PARTITIONS},
        "privacy": {"pseudonym_key": "measured, not secret"},
        "metrics": {"port": free_port()},
    })  # fmt: skip


def environment(settings: Settings) -> dict[str, str]:
    """The same settings for the worker, as its environment."""
    given = {"PRIVACY__PSEUDONYM_KEY": "measured, not secret", "APP_ID": settings.app_id}
    for section in ("kafka", "topics", "metrics"):
        for name, value in getattr(settings, section).model_dump(exclude_unset=True).items():
            given[f"{section}__{name}".upper()] = value if isinstance(value, str) else json.dumps(value)
    return os.environ | {f"TRUSTWATCH_{name}": value for name, value in given.items()}


def scrape(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Name → samples of the worker's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def run_line(settings: Settings, count: int, folder: Path) -> Run:
    """Run the real worker until all is in a durable checkpoint."""
    port = settings.metrics.port
    log = folder / f"{settings.app_id}.log"
    worker = ManagedProcess("worker", [sys.executable, "-m", "streams.cli", "worker"], log, env=environment(settings))

    def is_up() -> bool:
        with suppress(OSError):
            return bool(scrape(port))
        return False

    worker.start(is_up, 60.0)
    try:
        assert worker.pid is not None
        return _watch(worker, worker.pid, port, count)
    finally:
        worker.stop()


def _watch(worker: ManagedProcess, pid: int, port: int, count: int) -> Run:
    deadline = time.monotonic() + RUN_S
    began, cpu, incomplete = time.time(), cpu_s(pid), time.time()
    while time.monotonic() < deadline and worker.running:
        seen, now = scrape(port), time.time()
        consumed = sum(value for _, value in seen.get("trustwatch_events_total", []))
        if not sum(value for _, value in seen["trustwatch_ingest_items_total"]):
            began, cpu = now, cpu_s(pid)
        if consumed < count:
            incomplete = now
        saved = [now - age for labels, age in seen.get("trustwatch_checkpoint_age_seconds", [])
                 if labels["stage"] == "sessionize"]  # fmt: skip
        # The last batch was applied after `incomplete`, so its checkpoints are younger than that.
        if consumed >= count and min(saved) > incomplete:
            return Run(count, max(saved) - began, cpu_s(pid) - cpu, peak_mb(pid))
        time.sleep(0.2)
    raise SystemExit(f"the worker did not finish within {RUN_S:g} s; its log ends:\n{worker.log_tail()}")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mb(pid: int) -> float:
    """Peak of the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_peer(name: str, bootstrap: str, count: int, folder: Path, turn: int) -> Run:
    """Run a peer in a process of its own."""
    log = folder / f"{name}-{turn}.log"
    command = [sys.executable, "-m", "tests.bench.peers", name, bootstrap, str(count)]
    peer = ManagedProcess(name, command, log, env=os.environ | {"BENCH_DIR": str(folder)})
    peer.start(lambda: True, 10.0)
    try:
        wait_until(lambda: not peer.running, RUN_S)
    finally:
        peer.stop()
    found = [line for line in log.read_text().splitlines() if line.startswith("MEASURED ")]
    if not found:
        raise SystemExit(f"{name} did not finish within {RUN_S:g} s; its log ends:\n{peer.log_tail()}")
    return msgspec.json.decode(found[-1].removeprefix("MEASURED "), type=Run)


def measure(bootstrap: str, count: int, rounds: int, *, real: bool) -> tuple[dict[str, list[Run]], float]:
    """All ways in turns; their measurements, and the mean size of a message in bytes."""
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    began, size = time.monotonic(), 0.0
    with TemporaryDirectory(prefix="trustwatch-bench-") as name:
        for turn in range(rounds):
            if time.monotonic() - began > NEW_ROUND_S:
                break
            settings = settings_of(bootstrap, real=real, turn=turn)
            with Topics(settings) as topics:
                topics.create()
            size = size or produce(settings, count)
            runs["bare"].append(run_peer("bare", bootstrap, count, Path(name), turn))
            runs["plain"].append(run_peer("plain", bootstrap, min(count, PLAIN_EVENTS), Path(name), turn))
            runs["line"].append(run_line(settings, count, Path(name)))
    return runs, size


def show(runs: dict[str, list[Run]], title: str) -> None:
    """Print the table."""
    table = Table("way", "events/s", "of each round", "ratio", "CPU µs/event", "peak RSS MB", title=title)
    limit = statistics.median(run.events / run.seconds for run in runs["bare"])
    for way, measured in runs.items():
        rates = [run.events / run.seconds for run in measured]
        cpu = statistics.median(run.cpu_s / run.events for run in measured) * 1e6
        rate, peak = statistics.median(rates), max(run.rss_mb for run in measured)
        each = " ".join(f"{one:,.0f}" for one in rates)
        table.add_row(WAYS[way], f"{rate:,.0f}", each, f"{rate / limit:.3f}", f"{cpu:,.1f}", f"{peak:,.0f}")
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.line", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2, help="each way is measured so often, in turns")
    given = parser.parse_args(arguments)
    if not Path("/proc/self/stat").exists():
        raise SystemExit("CPU and memory of the worker are read from /proc: this bench needs Linux")
    reason = available()
    if reason:
        print(f"\n!!! NO REAL KAFKA, numbers of the embedded broker say little: {reason}\n", file=sys.stderr)
    with EmbeddedBroker() if reason else Broker() as broker:
        runs, size = measure(broker.bootstrap, given.events, given.rounds, real=reason is None)
    kind = "EMBEDDED BROKER" if reason else "Apache Kafka"
    where = f"{PARTITIONS} partitions, {kind}, {os.cpu_count()} CPUs"
    show(runs, f"{given.events:,} Segment calls of {size:.0f} bytes, {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
