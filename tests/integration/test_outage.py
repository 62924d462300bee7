"""A broker that goes away, or does not answer: the worker waits, nothing is lost, nothing counts twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.kafka import Broker
from streams.simulate import simulate, write
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line
from tests.integration.test_line import assert_same_as_backtest

pytestmark = pytest.mark.integration
AWAY_S = 25.0
"""Longer than the time after which requests and sessions are given up here."""
KNOBS = {"KAFKA__REQUEST_TIMEOUT_S": "8", "KAFKA__SESSION_TIMEOUT_S": "6", "INGEST__BATCH_EVENTS": "20"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    truth = write(simulate(3.0, 7, sessions_per_day=1500, leads_per_day=50), path, days=3.0, seed=7)
    return path, truth.events


@pytest.fixture
def broker(real_kafka_or_skip: None) -> Iterator[Broker]:
    with Broker() as made:
        yield made


def crash(broker: Broker, _line: LiveLine) -> None:
    broker.kill()
    time.sleep(AWAY_S)
    broker.start()


def freeze(broker: Broker, _line: LiveLine) -> None:
    """Connections stay, nothing is answered: requests run into their time-outs."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        time.sleep(AWAY_S)
    finally:
        os.kill(broker.pid, signal.SIGCONT)


@pytest.mark.parametrize("fault", [crash, freeze])
def test_the_line_waits_for_the_broker_and_loses_nothing(
    broker: Broker, recorded: tuple[Path, int], tmp_path: Path, fault: Callable[[Broker, LiveLine], None]
) -> None:
    path, events = recorded
    with live_line(KafkaUnderTest(broker.bootstrap, True), tmp_path, **KNOBS) as line:
        worker = line.start("worker")
        line.run("replay", str(path))
        line.wait_for_the_middle(0, events)
        fault(broker, line)
        assert worker.poll() is None, line.logs()
        assert_same_as_backtest(line, path, events)
        assert line.stop(worker) == 0
        log = "".join(file.read_text(errors="replace") for file in tmp_path.glob("worker*.log"))
        assert log.count("kafka does not take our writes") == log.count("kafka takes our writes again") >= 1
        assert "rashed" not in log
        assert len(log.splitlines()) < 1000, "Kafka's client says the same ten times a second"
