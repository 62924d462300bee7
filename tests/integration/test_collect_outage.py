"""Kafka goes away while the collector takes events: whoever was told 200 finds every event in the topic."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.kafka import Broker
from streams._process import wait_until
from streams.collect.webhooks import EVENTS
from tests.conftest import KafkaUnderTest
from tests.integration.collecting import TOKEN, Answer, Collecting, collecting

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("real_kafka_or_skip")]
SENDERS = 8
BATCH = 5
SOON_S = 60.0


class Senders:
    """Threads that send batches and remember which of their ids were acknowledged."""

    def __init__(self, collector: Collecting) -> None:
        self._collector = collector
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]
        self.acknowledged: list[str] = []
        self.refused: list[Answer] = []
        self.errors: list[BaseException] = []

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Return when so many more events were acknowledged."""
        goal = len(self.acknowledged) + more
        assert wait_until(lambda: len(self.acknowledged) >= goal or bool(self.errors), SOON_S), (
            self._collector.line.logs()
        )
        assert not self.errors, self.errors

    def _send(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            ids = [f"s{number}-{count + index}" for index in range(BATCH)]
            count += BATCH
            body = [{"id": one, "type": "page_viewed", "time": time.time() - 1, "person": f"p{number}"} for one in ids]
            try:
                answer = self._collector.send(EVENTS, body, Authorization=f"Bearer {TOKEN}")
            except BaseException as error:
                self.errors.append(error)
                return
            if answer.status == 200:
                self.acknowledged += ids
            else:
                self.refused.append(answer)
                time.sleep(0.05)


@contextmanager
def on_a_broker_of_its_own(folder: Path, **knobs: str) -> Iterator[tuple[Broker, Collecting]]:
    with Broker() as broker, collecting(KafkaUnderTest(broker.bootstrap, real=True), folder, **knobs) as collector:
        yield broker, collector


def test_what_was_acknowledged_survives_a_killed_broker(tmp_path: Path) -> None:
    with on_a_broker_of_its_own(tmp_path, COLLECT__ACK_TIMEOUT_S="2") as (broker, collector):
        with Senders(collector) as senders:
            senders.wait_for(100)
            broker.kill()
            assert wait_until(lambda: bool(senders.refused), SOON_S), "nobody was told that Kafka is away"
            assert wait_until(lambda: collector.send("/readyz", method="GET").status == 503, SOON_S)
            assert collector.send("/healthz", method="GET").status == 200
            broker.start()
            senders.wait_for(100)
        assert wait_until(lambda: collector.send("/readyz", method="GET").status == 200, SOON_S)
        told = set(senders.acknowledged)
        assert len(told) == len(senders.acknowledged) >= 200
        stored = {one.json["id"] for one in collector.stored()}
        assert told <= stored, f"{len(told - stored)} of {len(told)} acknowledged events are lost"
        assert not senders.errors
        for answer in senders.refused:
            assert (answer.status, answer.json["error"]) == (503, "kafka_away")
            assert int(answer.headers["Retry-After"]) > 0


def test_what_waits_for_a_kafka_that_hangs_is_bounded(tmp_path: Path) -> None:
    knobs = {"COLLECT__ACK_TIMEOUT_S": "3", "COLLECT__BUFFER_REQUESTS": "4"}
    with on_a_broker_of_its_own(tmp_path, **knobs) as (broker, collector):
        assert broker.pid is not None

        def send(number: int) -> Answer:
            event = {"id": f"e{number}", "type": "page_viewed", "time": time.time() - 1, "person": "anna"}
            return collector.send(EVENTS, event, Authorization=f"Bearer {TOKEN}")

        assert send(0).status == 200
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(10) as pool:
                answers = list(pool.map(send, range(1, 11)))
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert {answer.status for answer in answers} == {503}
        reasons = [answer.json["error"] for answer in answers]
        assert reasons.count("kafka_away") >= 4 and reasons.count("full") >= 1, reasons
        assert wait_until(lambda: send(99).status == 200, SOON_S)
        assert "e99" in {one.json["id"] for one in collector.stored()}


def test_it_ends_in_time_without_kafka_and_tells_nobody_that_all_is_well(tmp_path: Path) -> None:
    with on_a_broker_of_its_own(tmp_path) as (broker, collector):
        process = collector.line.processes[0]
        with Senders(collector) as senders:
            senders.wait_for(50)
            broker.kill()
            time.sleep(0.5)  # some requests wait by now
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0, collector.line.logs()
            assert time.monotonic() - began < 10
        assert {answer.json["error"] for answer in senders.refused} <= {"ending", "kafka_away"}
        broker.start()
        stored = {one.json["id"] for one in collector.stored()}
        assert set(senders.acknowledged) <= stored
        assert "Traceback" not in (tmp_path / "collect-0.log").read_text()
