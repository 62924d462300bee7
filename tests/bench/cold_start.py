"""How long a worker takes from the start of its process until it is ready, against the size of its state.

    python -m tests.bench.cold_start [--sessions 10000 50000 200000] [--rounds 3]

Real Kafka, 8 partitions. Sessions are put into the checkpoints as the line would have written them, several times over,
so that the compacted topic holds old chunks, too; then a worker process is started, and `/metrics` is asked until
`trustwatch_ready` is 1. After a graceful stop it is started again, and once more.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from deploy.kafka import Broker
from streams._process import free_port
from streams.checkpoints import Checkpoint, require_key
from streams.events import Event
from streams.frames import Frame, encode, partition_of
from streams.kafka import aiokafka_options
from streams.outbox import Outbox
from streams.settings import Settings
from streams.stage import Record
from streams.store import CheckpointStore
from streams.units import Plan
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine
from tests.kit import event, frame, section

PARTITIONS = 8
EVENTS_EACH = 4
GENERATIONS = 5
PAGES = tuple(f"/{area}/:id{end}" for area in "abcdefgh" for end in ("", "/reviews", "/compare"))
CHANNELS, COUNTRIES, DEVICES = (
    ("paid", "email", "organic", "social"),
    ("de", "fr", "it", "es", "us"),
    ("mobile", "desktop"),
)


def states(settings: Settings, sessions: int) -> list[bytes]:
    """The state of each partition with so many open sessions in all, each with a few events."""
    plan = Plan(settings)
    people: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for number in range(sessions):
        name = blake2b(str(number).encode(), digest_size=16).hexdigest()[:22]  # as unlike each other as pseudonyms
        people[partition_of(name, PARTITIONS)].append(name)
    return [_state(plan, partition, names) for partition, names in enumerate(people)]


def _state(plan: Plan, partition: int, names: Sequence[str]) -> bytes:
    stage, rng, first = plan.sessionizer(partition), random.Random(partition), 0
    for turn in range(EVENTS_EACH):
        for start in range(0, len(names), 200):
            at = turn * 120.0 + start / 1000
            events = [_view(name, at - rng.random() * 20, rng) for name in names[start : start + 200]]
            told = section(events, at, source="web-events/0", first=first)
            stage.apply(frame(told, sources={"web-events": 1}), first)
            first += len(events)
    return stage.snapshot()


def _view(name: str, at: float, rng: random.Random) -> Event:
    labels = {"channel": rng.choice(CHANNELS), "country": rng.choice(COUNTRIES), "device": rng.choice(DEVICES)}
    return event("page_viewed", at, name, id=f"{rng.getrandbits(128):032x}", page=rng.choice(PAGES), segment=labels)


async def put(settings: Settings, blobs: Sequence[bytes]) -> None:
    """Write one message into each events partition, and checkpoints that stand for it, several generations of them."""
    outbox = Outbox(settings)
    await outbox.start()
    topics = settings.topics
    store = CheckpointStore(
        topics.sessions_state, aiokafka_options(settings.kafka), outbox.send,
        settings.checkpoints.chunk_bytes, require_key(settings),
    )  # fmt: skip
    empty = encode(Frame({"web-events": 1}, []))
    await outbox.send([Record(topics.events, partition, b"", empty) for partition in range(PARTITIONS)])
    for _ in range(GENERATIONS):
        for partition, blob in enumerate(blobs):
            await store.save(partition, Checkpoint(0, blob))
    await outbox.stop()


def ready(line: LiveLine, port: int, timeout_s: float = 120.0) -> dict[str, float]:
    """Start a worker; gives its metrics when it is ready, with the wall seconds that took; then stops it by SIGTERM."""
    began = time.monotonic()
    process = line.start("worker", METRICS__PORT=str(port))
    found: dict[str, float] = {}
    while not found.get("trustwatch_ready"):
        assert process.poll() is None and time.monotonic() - began < timeout_s, line.logs()
        time.sleep(0.05)
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
            found = {name: float(value) for name, value in re.findall(r"^(trustwatch_\w+) (\S+)$", text, re.MULTILINE)}
            found |= {f"{name} {stage}": float(value) for name, stage, value in re.findall(
                r'^(trustwatch_state_load_seconds)\{stage="(\w+)"\} (\S+)$', text, re.MULTILINE)}  # fmt: skip
    found["wall"] = time.monotonic() - began
    stopping = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, line.logs()
    found["stop"] = time.monotonic() - stopping
    return found


def measure(kafka: KafkaUnderTest, sessions: int, rounds: int) -> list[dict[str, float]]:
    """Build one state and start on it several times."""
    with tempfile.TemporaryDirectory() as folder:
        line = LiveLine(kafka, Path(folder), TOPICS__EVENTS_PARTITIONS=str(PARTITIONS))
        blobs = states(line.settings, sessions)
        asyncio.run(put(line.settings, blobs))
        size = sum(map(len, blobs)) / 1e6
        return [ready(line, free_port()) | {"megabytes": size} for _ in range(rounds)]


def main() -> int:
    """Print a line for each start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, nargs="+", default=[0, 10_000, 50_000, 200_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'open sessions':>14} {'state MB':>9} {'ready s':>8} {'loading s':>10} {'stop s':>7}")
    worst = 0.0
    with Broker() as broker:
        for sessions in arguments.sessions:
            for found in measure(KafkaUnderTest(broker.bootstrap, True), sessions, arguments.rounds):
                assert found["trustwatch_open_sessions"] == sessions, found
                worst = max(worst, found["trustwatch_start_seconds"])
                loading = found["trustwatch_state_load_seconds sessionize"]
                print(f"{sessions:>14,} {found['megabytes']:>9.1f} {found['trustwatch_start_seconds']:>8.1f}"
                      f" {loading:>10.1f} {found['stop']:>7.1f}", flush=True)  # fmt: skip
    return int(worst > 10.0)


if __name__ == "__main__":
    sys.exit(main())
