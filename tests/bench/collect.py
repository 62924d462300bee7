"""How fast the collector is: `python -m tests.bench.collect`, on a real Kafka, the collector on one core.

A generator of its own, on the other cores, sends Segment calls at a steady rate, whether or not answers come: so a
request that had to wait its turn is counted from when it was due. First single calls, then batches. At the end the
topic must hold as many events as were acknowledged. Exit code 1 if a limit is missed. What else runs on the machine
shows: the CPU time of an event does not depend on it much, the delays do.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from deploy.kafka import Broker, available
from tests.bench._line_run import cpu_s, peak_mb
from tests.conftest import KafkaUnderTest
from tests.integration.collecting import PARTITIONS, WRITE_KEY, Collecting, basic, collecting

ROOT: Final = Path(__file__).resolve().parents[2]
P99_S: Final = 0.050
BODIES: Final = 500
CONNECTIONS: Final = 200
PAUSE_S: Final = 0.001
ANSWERS_S: Final = 10.0


class Plan(msgspec.Struct, frozen=True):
    """One load: requests a second, events in each, seconds, and the least share of the rate that must be reached."""

    name: str
    path: str
    requests_per_s: float
    batch: int
    seconds: float


class Found(msgspec.Struct):
    """What the generator saw: answers by status, delays in seconds (sorted), and how long it sent."""

    statuses: dict[str, int]
    delays_s: list[float]
    seconds: float

    def quantile(self, share: float) -> float:
        """A delay that so large a share stays below, seconds."""
        return self.delays_s[min(len(self.delays_s) - 1, int(share * len(self.delays_s)))] if self.delays_s else 0.0


class Result(msgspec.Struct):
    """One load and what became of it."""

    plan: Plan
    found: Found
    cpu_s: float
    stored: int
    rss_mb: float
    load_before: float

    @property
    def acknowledged(self) -> int:
        """Events in requests that were answered 200."""
        return self.found.statuses.get("200", 0) * self.plan.batch

    @property
    def requests_per_s(self) -> float:
        """That were acknowledged."""
        return self.found.statuses.get("200", 0) / self.found.seconds

    def missed(self) -> list[str]:
        """The limits that it missed, a sentence each."""
        wanted, p99_s = self.plan.requests_per_s, self.found.quantile(0.99)
        said = []
        if self.requests_per_s < 0.98 * wanted:
            said.append(f"{self.plan.name}: {self.requests_per_s:,.0f} of {wanted:,.0f} requests/s")
        if p99_s > P99_S:
            said.append(f"{self.plan.name}: p99 {p99_s * 1000:.0f} ms, limit {P99_S * 1000:.0f} ms")
        answered = sum(self.found.statuses.values()) == round(wanted * self.plan.seconds)
        if self.stored < self.acknowledged or (answered and self.stored != self.acknowledged):
            said.append(f"{self.plan.name}: {self.acknowledged} events acknowledged, {self.stored} in the topic")
        return said


# ── the generator ─────────────────────────────────────────────────────────────────────────────────────────────────────


def call(number: int) -> dict[str, object]:
    """A track call as analytics.js sends it, 750 bytes."""
    return {
        "type": "track", "event": "Product Viewed", "messageId": f"ajs-next-1700000000000-{number:08}",
        "anonymousId": f"7f1c7c4e-4c2d-4b0e-9a51-{number % 5000:012}", "timestamp": "2026-01-01T12:00:00.000Z",
        "properties": {"product_id": f"sku-{number % 977}", "price": 12.5, "category": "shoes"}, "integrations": {},
        "context": {
            "page": {"path": f"/products/{number % 977}", "url": f"https://shop.example/products/{number % 977}",
                     "referrer": "https://search.example/", "search": "?utm_medium=email", "title": "A product"},
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0",
            "campaign": {"medium": "email", "name": "june"}, "locale": "en-US", "timezone": "Europe/Berlin",
            "library": {"name": "analytics.js", "version": "npm:next-1.84.3"},
        },
    }  # fmt: skip


def requests(plan: Plan) -> list[bytes]:
    """Requests to send in turns."""
    made, sent = [], "2026-01-01T12:00:01.000Z"
    for number in range(BODIES if plan.batch == 1 else BODIES // 5):
        calls = [call(number * plan.batch + index) for index in range(plan.batch)]
        body = {**calls[0], "sentAt": sent} if plan.batch == 1 else {"batch": calls, "sentAt": sent}
        raw = json.dumps(body, separators=(",", ":")).encode()
        head = (f"POST {plan.path} HTTP/1.1\r\nHost: collect\r\nAuthorization: {basic(WRITE_KEY)}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n")  # fmt: skip
        made.append(head.encode() + raw)
    return made


class Line(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self, free: deque[Line], note: Callable[[str, float], None]) -> None:
        self._free, self._note = free, note
        self._transport: Any = None  # of uvloop, which has its own
        self._due_s, self._got = 0.0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._free.append(self)

    def send(self, request: bytes, due_s: float) -> None:
        self._due_s, self._got = due_s, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._note(head[9:12].decode(), time.perf_counter() - self._due_s)
            self._free.append(self)


async def generate(plan: Plan, port: int) -> Found:
    """Send at the plan's rate and see what comes."""
    loop, free, waiting = asyncio.get_running_loop(), deque[Line](), deque[float]()
    statuses, delays = dict[str, int](), list[float]()

    def note(status: str, delay_s: float) -> None:
        statuses[status] = statuses.get(status, 0) + 1
        delays.append(delay_s)

    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Line(free, note), "127.0.0.1", port)
    bodies, began, sent, due = requests(plan), time.perf_counter(), 0, 0
    total = round(plan.requests_per_s * plan.seconds)
    while len(delays) < total and time.perf_counter() - began < plan.seconds + ANSWERS_S:
        now = time.perf_counter()
        while due < total and began + due / plan.requests_per_s <= now:
            waiting.append(began + due / plan.requests_per_s)
            due += 1
        while waiting and free:
            free.popleft().send(bodies[sent % len(bodies)], waiting.popleft())
            sent += 1
        await asyncio.sleep(PAUSE_S)
    return Found(statuses, sorted(delays), max(plan.seconds, time.perf_counter() - began))


# ── the measurement ───────────────────────────────────────────────────────────────────────────────────────────────────


def measure(collector: Collecting, plan: Plan, others: set[int]) -> Result:
    """One load."""
    pid, load = collector.line.processes[0].pid, os.getloadavg()[0]
    stored, cpu = _stored(collector), cpu_s(pid)
    wanted = base64.b64encode(msgspec.json.encode(plan)).decode()
    command = [sys.executable, "-m", "tests.bench.collect", "--generate", wanted, "--port", str(collector.port)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, check=True, timeout=plan.seconds * 3 + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, others),
    )  # fmt: skip
    found = msgspec.json.decode(done.stdout, type=Found)
    return Result(plan, found, cpu_s(pid) - cpu, _stored(collector) - stored, peak_mb(pid), load)


def _stored(collector: Collecting) -> int:
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415  (the generator needs none of it)

    consumer = KafkaConsumer(bootstrap_servers=collector.line.settings.kafka.bootstrap_servers)
    where = [TopicPartition(collector.line.raw, partition) for partition in range(PARTITIONS)]
    try:
        return sum(consumer.end_offsets(where).values())
    finally:
        consumer.close()


def pin(pid: int, cores: set[int]) -> None:
    """Bind a process, with all its threads, to these cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def show(results: Sequence[Result]) -> None:
    """A table, and what it says of the limits."""
    table = Table("load", "requests/s", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "µs CPU/event", "events/s a core",
                  "core busy", "RSS MB", "load before")  # fmt: skip
    for one in results:
        each_s = one.cpu_s / max(1, one.acknowledged)
        delays = [f"{one.found.quantile(share) * 1000:.1f}" for share in (0.5, 0.99, 0.999)]
        rates = f"{one.requests_per_s:,.0f}", f"{one.requests_per_s * one.plan.batch:,.0f}"
        cost = f"{each_s * 1e6:.1f}", f"{1 / each_s if each_s else 0:,.0f}", f"{one.cpu_s / one.found.seconds:.0%}"
        table.add_row(one.plan.name, *rates, *delays, *cost, f"{one.rss_mb:.0f}", f"{one.load_before:.1f}")
    Console(width=150).print(table)
    for one in results:
        refused = {status: count for status, count in one.found.statuses.items() if status != "200"}
        print(f"{one.plan.name}: {one.acknowledged:,} acknowledged, {one.stored:,} in the topic, refused: {refused}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.collect", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--requests", type=float, default=5000, help="single calls a second")
    parser.add_argument("--events", type=float, default=50_000, help="events a second, in batches")
    parser.add_argument("--batch", type=int, default=100, help="events in a batch")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.generate:
        plan = msgspec.json.decode(base64.b64decode(given.generate), type=Plan)
        found = uvloop.run(generate(plan, given.port))
        os.set_blocking(sys.stdout.fileno(), True)  # uvloop leaves the pipe as it likes it: a long answer was cut off
        sys.stdout.buffer.write(msgspec.json.encode(found))
        return 0
    if reason := available():
        raise SystemExit(f"no real Kafka here, and others say little: {reason}")
    plans = [Plan("warm-up", "/v1/track", given.requests / 5, 1, 3.0),
             Plan("single", "/v1/track", given.requests, 1, given.seconds),
             Plan("batches", "/v1/batch", given.events / given.batch, given.batch, given.seconds)]  # fmt: skip
    cores = sorted(os.sched_getaffinity(0))
    others = set(cores[1:]) or set(cores)
    with TemporaryDirectory(prefix="trustwatch-bench-") as folder, Broker() as broker:
        assert broker.pid is not None
        pin(broker.pid, others)
        kafka = KafkaUnderTest(broker.bootstrap, real=True)
        with collecting(kafka, Path(folder), COLLECT__MAX_EVENTS_PER_S="1e9") as collector:
            pin(collector.line.processes[0].pid, {cores[0]})
            results = [measure(collector, plan, others) for plan in plans][1:]
    show(results)
    missed = [sentence for one in results for sentence in one.missed()]
    for sentence in missed:
        print(f"MISSED {sentence}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
