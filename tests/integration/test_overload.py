"""More than can be handled: lag is told in seconds, memory stays, nothing is lost, no live session is closed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from streams._process import free_port, wait_until
from streams.frames import partition_of
from streams.kafka import confluent_options
from streams.simulate import simulate, write
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("real_kafka_or_skip"),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc"),
]
PADDING = "x" * 2_000
"""Of a property that the door drops: the backlog is large, what is kept of it is not."""
EVENTS, FIRST = 80_000, 10_000
"""All, and those of the first, small burst."""


def scrape(port: int) -> dict[str, float]:
    """Metric or `metric{stage}` → its largest sample; empty while nobody answers."""
    found: dict[str, float] = {}
    with suppress(OSError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                stage = sample.labels.get("stage")
                name = f"{sample.name}{{{stage}}}" if stage else sample.name
                found[name] = max(sample.value, found.get(name, sample.value))
    return found


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


# ── a burst ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[int]]:
    """Events as one file, and the same in two parts, a small and a large one, with the number of events in each."""
    folder = tmp_path_factory.mktemp("bursts")
    whole, parts = folder / "whole.jsonl", [folder / "small.jsonl", folder / "large.jsonl"]
    write(simulate(5.0, 7, (), sessions_per_day=2000, leads_per_day=50), whole, days=5.0, seed=7, erosions=())
    lines = [_padded(line) for line in whole.read_bytes().splitlines()][:EVENTS]
    assert len(lines) == EVENTS
    counts = [FIRST, EVENTS - FIRST]
    for path, chunk in zip([whole, *parts], [lines, lines[:FIRST], lines[FIRST:]], strict=True):
        path.write_bytes(b"\n".join(chunk) + b"\n")
    return whole, parts, counts


def _padded(line: bytes) -> bytes:
    event = msgspec.json.decode(line)
    event["properties"] = {**event.get("properties", {}), "padding": PADDING}
    return msgspec.json.encode(event)


def test_a_burst_is_told_as_lag_in_seconds_fills_no_memory_and_loses_nothing(
    kafka: KafkaUnderTest, tmp_path: Path, bursts: tuple[Path, list[Path], list[int]]
) -> None:
    whole, (small, large), counts = bursts
    ports = {"ingest": free_port(), "worker": free_port()}
    # Recorded events: between the bursts their sources must not fall idle, or time would go on by the clock.
    with live_line(kafka, tmp_path, INGEST__IDLE_TIMEOUT_S="600") as line:
        pids = {name: line.start(*command, METRICS__PORT=str(ports[name])).pid
                for name, command in {"ingest": ["ingest"], "worker": ["worker", "--no-ingest"]}.items()}  # fmt: skip
        line.run("replay", "--no-close", str(small))
        wait_for_consumed(line, counts[0])
        before = {name: memory_mb(pid, "VmHWM") for name, pid in pids.items()}
        told = overload(line, large, pids, ports)
        assert told["trustwatch_lag_seconds{ingest}"] > 4, told
        assert told["trustwatch_ingest_lag_messages"] > 10_000, told
        assert told["trustwatch_lag_seconds{sessionize}"] > 1, told
        summary, findings = line.backtest(whole)
        state = line.wait(sum(counts), float(str(summary["until"])), 120.0)
        grown = {name: memory_mb(pid, "VmHWM") - before[name] for name, pid in pids.items()}
        print(f"\ngrown by {grown} MB; worst lag {[item for item in told.items() if 'lag' in item[0]]}")
        assert state.accounting["consumed"] == summary["events"] == sum(counts)
        assert state.state_digest == summary["state_digest"]
        assert msgspec.to_builtins(state.findings) == findings
        # The backlog was 150 MB of raw messages.
        assert all(mb < 100 for mb in grown.values()), grown
        assert wait_until(lambda: scrape(ports["ingest"]).get("trustwatch_lag_seconds{ingest}") == 0, 10)
        assert wait_until(lambda: scrape(ports["worker"]).get("trustwatch_lag_seconds{sessionize}") == 0, 10)


def wait_for_consumed(line: LiveLine, count: int) -> None:
    assert wait_until(lambda: line.state().accounting["consumed"] >= count, 90, every_s=1.0), line.logs()


def overload(line: LiveLine, file: Path, pids: dict[str, int], ports: dict[str, int]) -> dict[str, float]:
    """Send at full speed while both processes run for a fifth of the time; the worst that they told meanwhile."""
    replay = line.start("replay", str(file))
    worst: dict[str, float] = {}
    began = time.monotonic()
    while replay.poll() is None or time.monotonic() < began + 12:
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.2)
        for name, pid in pids.items():
            os.kill(pid, signal.SIGCONT)
            for metric, value in scrape(ports[name]).items():
                worst[metric] = max(value, worst.get(metric, value))
        time.sleep(0.3)
        assert time.monotonic() < began + 60, "replay takes too long"
    assert replay.returncode == 0, line.logs()
    return worst


# ── waiting closes no session ─────────────────────────────────────────────────────────────────────────────────────────


class Visitor:
    """Somebody who does something again and again, for the length of a `with` block; event time is the clock's."""

    def __init__(self, line: LiveLine, person: str, every_s: float = 0.5) -> None:
        self._line = line
        self._person = person
        self._producer = Producer(confluent_options(line.settings.kafka) | {"linger.ms": 5})
        self._partition = partition_of(person, line.settings.topics.raw_partitions)
        self._every_s = every_s
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._stay)
        self.events = 0

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        self._thread.join()

    def send(self, event_time: float) -> None:
        event = {"id": f"{self._person}-{self.events}", "type": "page_pinged", "time": event_time,
                 "person": self._person, "page": "/pricing"}  # fmt: skip
        self._producer.produce(self._line.raw, json.dumps(event).encode(), partition=self._partition)
        self._producer.poll(0)
        self.events += 1

    def _stay(self) -> None:
        while not self._gone.wait(self._every_s):
            self.send(time.time())
            assert self._producer.flush(10) == 0


def close(line: LiveLine, at: float) -> None:
    """The sources promise that nothing older follows."""
    producer = Producer(confluent_options(line.settings.kafka))
    for partition in range(line.settings.topics.raw_partitions):
        producer.produce(line.raw, json.dumps({"type": "clock", "time": at}).encode(), partition=partition)
    assert producer.flush(10) == 0


@pytest.fixture
def hasty(kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[LiveLine]:
    """A line with little patience: sources are idle after 2 s, sessions end after 5 s."""
    knobs = {
        "INGEST__IDLE_TIMEOUT_S": "2", "TIME__ALLOWED_LATENESS_S": "2", "TIME__BUCKET_S": "1",
        "TIME__SESSION_GAP_S": "5", "TIME__MAX_SESSION_S": "10000", "TIME__DWELL_MARKS_S": "[2, 4]",
        "KAFKA__SESSION_TIMEOUT_S": "20",
    }  # fmt: skip
    with live_line(kafka, tmp_path, **knobs) as line:
        yield line


@pytest.mark.parametrize("who", ["ingest", "worker"])
def test_what_was_sent_while_a_process_was_frozen_is_neither_late_nor_a_new_session(hasty: LiveLine, who: str) -> None:
    processes = {"ingest": hasty.start("ingest"), "worker": hasty.start("worker", "--no-ingest")}
    with Visitor(hasty, "anna", every_s=2.4) as visitor:
        wait_for_consumed(hasty, 2)
        seen = visitor.events
        assert wait_until(lambda: visitor.events > seen, 5)
        time.sleep(1.2)  # the broker has answered that there is nothing new: that is what the process knows
        os.kill(processes[who].pid, signal.SIGSTOP)
        time.sleep(9.0)  # longer than idle timeout, lateness and gap
        os.kill(processes[who].pid, signal.SIGCONT)
        time.sleep(4.0)
    assert_one_visit(hasty, visitor)


def test_a_backlog_of_forty_minutes_beside_idle_sources_closes_nothing_by_the_clock(hasty: LiveLine) -> None:
    """Everything lies in Kafka when ingest starts, and is read slowly; three of four sources have nothing to say."""
    visitor, now = Visitor(hasty, "anna"), time.time()
    for second in range(0, 2400, 4):  # never as quiet as the gap is long
        visitor.send(now - 2400 + second)
    with visitor:
        hasty.start("worker", "--no-ingest")
        ingest = hasty.start("ingest", INGEST__BATCH_EVENTS="10", INGEST__POLL_S="0.05")
        for _ in range(3):  # in bites, with pauses in which the clock goes on and the others fall idle
            time.sleep(2.5)
            os.kill(ingest.pid, signal.SIGSTOP)
            time.sleep(2.5)
            os.kill(ingest.pid, signal.SIGCONT)
        wait_for_consumed(hasty, 600)
    assert_one_visit(hasty, visitor)


def assert_one_visit(line: LiveLine, visitor: Visitor) -> None:
    """However long we looked away, or were behind, the visitor never left."""
    close(line, time.time())
    wait_for_consumed(line, visitor.events)
    accounting = line.state().accounting
    assert (accounting["late"], accounting["applied"], accounting["steps"]) == (0, visitor.events, 1)
