"""SIGTERM: what is in hand is finished and stored, the groups are left at once, the next start goes on from there."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from deploy.kafka import Broker
from streams._process import free_port
from streams.simulate import simulate, write
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line
from tests.integration.test_line import assert_same_as_backtest

pytestmark = pytest.mark.integration
STOP_S = 10.0
START_S = 5.0
SLACK = 2.0
"""The limits hold on a machine of its own (`python -m tests.bench.cold_start` measures them); tests share theirs."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    truth = write(simulate(5.0, 8, sessions_per_day=1500, leads_per_day=100), path, days=5.0, seed=8)
    return path, truth.events


@pytest.fixture
def broker(real_kafka_or_skip: None) -> Iterator[Broker]:
    with Broker() as made:
        yield made


def metric(port: int, name: str) -> float | None:
    """A metric without labels; None while nobody answers."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else None
    return None


def wait_ready(line: LiveLine, worker: subprocess.Popen[bytes], port: int) -> float:
    """Seconds from the start of the process until it was ready."""
    deadline = time.monotonic() + 60
    while not metric(port, "trustwatch_ready"):
        assert worker.poll() is None and time.monotonic() < deadline, line.logs()
        time.sleep(0.1)
    started = metric(port, "trustwatch_start_seconds")
    assert started is not None
    return started


def stop(line: LiveLine, worker: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to the end, which is in order."""
    began = time.monotonic()
    assert line.stop(worker) == 0, line.logs()
    return time.monotonic() - began


def members(line: LiveLine) -> dict[str, int]:
    """Members of the two groups by now."""
    admin = KafkaAdminClient(bootstrap_servers=line.settings.kafka.bootstrap_servers)
    try:
        app_id = line.settings.app_id
        found = admin.describe_groups([app_id, f"{app_id}-ingest"])
        return {name: len(group["members"]) for name, group in found.items()}
    finally:
        admin.close()


def test_stopped_and_started_under_full_load(broker: Broker, recorded: tuple[Path, int], tmp_path: Path) -> None:
    path, events = recorded
    with live_line(KafkaUnderTest(broker.bootstrap, True), tmp_path, CHECKPOINTS__INTERVAL_S="30") as line:
        line.run("replay", str(path))
        done = 0
        for _ in range(3):
            port = free_port()
            worker = line.start("worker", METRICS__PORT=str(port), INGEST__BATCH_EVENTS="100")
            started = wait_ready(line, worker, port)
            time.sleep(2.0)
            took = stop(line, worker)
            assert set(members(line).values()) == {0}, "others would wait for the session to run out"
            left = line.state().accounting["consumed"]
            assert done < left < events, "all that was in hand is stored, though no checkpoint was due"
            done = left
            assert took < STOP_S * SLACK and started < START_S * SLACK, (took, started)
        line.start("worker")
        assert_same_as_backtest(line, path, events)


def test_stopped_while_the_broker_is_away(broker: Broker, recorded: tuple[Path, int], tmp_path: Path) -> None:
    path, events = recorded
    with live_line(KafkaUnderTest(broker.bootstrap, True), tmp_path) as line:
        line.run("replay", str(path))
        worker = line.start("worker", INGEST__BATCH_EVENTS="20")
        line.wait_for_the_middle(0, events)
        broker.kill()
        time.sleep(1.0)
        began = time.monotonic()
        assert line.stop(worker) in (0, 1)  # 1 if there was something in hand that could not be stored
        assert time.monotonic() - began < STOP_S * SLACK
        broker.start()
        line.processes.clear()
        line.start("worker")
        assert_same_as_backtest(line, path, events)
