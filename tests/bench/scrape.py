"""How long a scrape of `/metrics` with 10,000 series holds up the line.

    python -m tests.bench.scrape [--series 10000] [--seconds 10] [--first]

A ticking event loop stands for Kafka's heartbeats and the agents, a thread that computes for the stages: with the GIL
shared by all, what the scrape takes from them shows as late ticks. Measured with nobody scraping and with a scrape
every half second, by turns, with and without the computing thread; told is the worst that scraping adds. The last line
is the CPU that one whole scrape takes, baselines included: at a scrape every 15 s it shall be 1 % of a core at most.
Fails if one of the two limits is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import multiprocessing
import os
import re
import sys
import threading
import time
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from detectors._base import Bucket, Verdict
from detectors.early_dropoff import EarlyDropoff, EarlyDropoffParams
from streams.app import Line
from streams.metrics import LineCollector, MetricsServer
from streams.runtime import settle
from streams.settings import Settings
from streams.stage import Slot
from streams.units import SessionizeUnit, WatchUnit

TICK_S = 0.001
EVERY_S = 0.5
LIMIT_MS = 20.0
SCRAPES = 9
SCRAPE_EVERY_S = 15.0
CPU_LIMIT_MS = 0.01 * SCRAPE_EVERY_S * 1000
START = 1_790_000_000 // 3600 * 3600.0
SERIES_EACH = 30
"""About so many series has a watched segment more: counts, a verdict, and two baselines of four numbers."""
SETTINGS = Settings(privacy={"pseudonym_key": "0123456789abcdef"}, metrics={"port": 0})


def line_with(series: int) -> Line:
    """A worker that watches so many segments that its metrics have this many series at least."""
    line = Line(SETTINGS)
    for partition in range(SETTINGS.topics.events_partitions):
        line.sessionize.slots[partition] = Slot(SessionizeUnit(line.plan, partition))
    for partition in range(SETTINGS.topics.counts_partitions):
        line.watch.slots[partition] = Slot(WatchUnit(line.plan, partition))
    watcher = line.watch.slots[0].unit.stage
    verdict, learnt = Verdict("ok", 0.1), learnt_state(line)
    missing = series - series_of(line)[0]
    for number in range(-(-missing // SERIES_EACH)):
        key = ("evaluate", (("campaign", f"c{number}"),))
        watcher.rates[key] = {"entered": 5, "advanced": 3}
        watcher.verdicts["early_dropoff", *key] = verdict
        detector = EarlyDropoff(EarlyDropoffParams())
        detector.restore(learnt)
        watcher._instances["early_dropoff", *key] = detector
    return line


def learnt_state(line: Line) -> bytes:
    """State of a detector that has learnt both its baselines: to learn them so often would take minutes."""
    detector = EarlyDropoff(EarlyDropoffParams())
    for hour in range(72):
        counts = {"soon": 40, "not_soon": 60, "at_all": 40, "not_at_all": 60, "entered": 100}
        if seen := detector.look(Bucket(START + hour * 3600.0, 3600.0, "evaluate", counts), detector.params):
            detector.observe(seen)
    return detector.snapshot()


def series_of(line: Line) -> tuple[int, int]:
    """Series of a whole scrape, and how many of them are baselines."""
    text = scrape(line)[1]
    baselines = len(re.findall(rb"^trustwatch_detector_(?:observed|expected)", text, re.MULTILINE))
    return sum(not row.startswith(b"#") for row in text.splitlines()), baselines


def scrape(line: Line) -> tuple[float, bytes]:
    """CPU seconds of one whole scrape, without its breaths, and its text."""
    registry = CollectorRegistry()
    registry.register(LineCollector(line))
    began = time.thread_time()
    text = generate_latest(registry)
    return time.thread_time() - began, text


def cpu_ms(line: Line) -> float:
    """CPU of a scrape: median of some; prints it against its limit."""
    taken = sorted(scrape(line)[0] * 1000 for _ in range(SCRAPES))
    series, baselines = series_of(line)
    median = taken[SCRAPES // 2]
    print(
        f"CPU of a whole scrape of {series:,} series, {baselines:,} of baselines: median {median:.0f} ms, least"
        f" {taken[0]:.0f} ms, limit {CPU_LIMIT_MS:.0f} ms = 1 % of a core at a scrape every {SCRAPE_EVERY_S:.0f} s"
    )
    return median


def scraper(port: int, stop: Any, took: Any) -> None:
    """Scrape now and then, in a process of its own, as Prometheus would."""
    while not stop.is_set():
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read()
        took.put((time.monotonic() - began, sum(not row.startswith(b"#") for row in text.splitlines())))
        stop.wait(EVERY_S)


async def ticks(seconds: float) -> list[float]:
    """How late each tick of the event loop is, seconds."""
    late, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        await asyncio.sleep(TICK_S)
        late.append(time.perf_counter() - began - TICK_S)
    return late


def compute(stop: threading.Event, laps: list[float]) -> None:
    """What a stage does: some milliseconds of Python and msgspec at a time; notes the longest laps."""
    data = [{"id": str(i), "time": float(i)} for i in range(200)]
    while not stop.is_set():
        began = time.perf_counter()
        for _ in range(5):
            sorted(msgspec.json.decode(msgspec.json.encode(data)), key=lambda one: one["id"])
        laps.append(time.perf_counter() - began)


async def run(line: Line, seconds: float, busy: bool) -> dict[str, list[float]]:
    """Late ticks without and with scrapes, by turns."""
    server = MetricsServer(line)
    await server.on_start()
    port = server._server.server_address[1]
    stop_computing, laps = threading.Event(), list[float]()
    thread = threading.Thread(target=compute, args=(stop_computing, laps), daemon=True)
    if busy:
        thread.start()
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, list[float]] = {"without": [], "with": [], "took": [], "series": []}
    for _ in range(2):
        found["without"] += await ticks(seconds / 4)
        stop, took = spawn.Event(), spawn.Queue()
        process = spawn.Process(target=scraper, args=(port, stop, took))
        process.start()
        await asyncio.to_thread(took.get)  # the first one, when it has started
        found["with"] += await ticks(seconds / 4)
        stop.set()
        while process.is_alive() or not took.empty():
            await asyncio.sleep(0.01)
            while not took.empty():
                one = took.get()
                found["took"].append(one[0])
                found["series"].append(one[1])
    stop_computing.set()
    if busy:
        thread.join()
    await server.on_stop()
    return found


def told(late: list[float]) -> str:
    """Median, 99.9 % and worst, ms."""
    ordered = [one * 1000 for one in sorted(late)]
    most = ordered[int(0.999 * len(ordered))]
    return f"median {ordered[len(ordered) // 2]:5.1f}  99.9 % {most:5.1f}  worst {ordered[-1]:5.1f} ms"


def main() -> int:
    """Print the table; fails if scraping adds more than the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--first", action="store_true", help="before all other work of the machine (needs root)")
    arguments = parser.parse_args()
    if arguments.first:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    line, worst = line_with(arguments.series), 0.0
    settle()
    for busy in (False, True):
        found = asyncio.run(run(line, arguments.seconds, busy))
        print(f"{'a stage computing' if busy else 'idle'}: {int(found['series'][0]):,} series, a scrape takes"
              f" {sorted(found['took'])[len(found['took']) // 2] * 1000:.0f} ms")  # fmt: skip
        for name in ("without", "with"):
            print(f"  late ticks {name:>7} scrapes: {told(found[name])}")
        worst = max(worst, (max(found["with"]) - max(found["without"])) * 1000)
    print(f"worst added: {worst:.1f} ms, limit {LIMIT_MS:.0f} ms")
    return int(cpu_ms(line) > CPU_LIMIT_MS or worst > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
