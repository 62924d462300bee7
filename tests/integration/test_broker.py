"""The brokers that tests and the demo stand on: they answer, keep what they should, and leave nothing behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from deploy.kafka import Broker
from streams._process import LocalBroker, ManagedProcess, free_port, wait_until
from streams.embedded import EmbeddedBroker
from streams.errors import BrokerUnavailable
from tests.conftest import KafkaUnderTest

pytestmark = pytest.mark.integration
MESSAGES = [str(number).encode() for number in range(50)]


def produce(bootstrap: str) -> str:
    """Put the messages into a new topic; its name."""
    topic = f"test-{uuid.uuid4().hex[:8]}"
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        admin.create_topics([NewTopic(topic, 1, 1)])
    with contextlib.closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        for message in MESSAGES:
            producer.send(topic, message)
        producer.flush(10)
    return topic


def consume(bootstrap: str, topic: str) -> list[bytes]:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    with contextlib.closing(consumer):
        # In this order, or zip waits for one message more than there is.
        return [message.value for _, message in zip(MESSAGES, consumer, strict=False)]


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(params=["embedded", "real"])
def own_broker(request: pytest.FixtureRequest) -> LocalBroker:
    if request.param == "embedded":
        return EmbeddedBroker()
    request.getfixturevalue("real_kafka_or_skip")
    return Broker()


def test_what_was_produced_is_consumed(kafka: KafkaUnderTest) -> None:
    assert consume(kafka.bootstrap, produce(kafka.bootstrap)) == MESSAGES


def test_a_stopped_broker_leaves_no_process(own_broker: LocalBroker) -> None:
    with own_broker:
        pid = own_broker.pid
        assert pid is not None and alive(pid)
    assert not alive(pid)
    assert own_broker.pid is None


@pytest.mark.usefixtures("real_kafka_or_skip")
def test_data_outlive_a_restart_and_a_crash(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        address = broker.bootstrap
        topic = produce(address)
        broker.restart()
        assert (broker.bootstrap, consume(address, topic)) == (address, MESSAGES)
        broker.kill()
        assert broker.pid is None
        broker.start()
        assert consume(address, topic) == MESSAGES


@pytest.mark.usefixtures("real_kafka_or_skip")
def test_a_broker_that_cannot_start_says_why() -> None:
    with pytest.raises(BrokerUnavailable, match=r"process\.roles"), Broker(extra={"process.roles": "nonsense"}):
        pass


def test_a_taken_port_is_refused(kafka: KafkaUnderTest) -> None:
    port = int(kafka.bootstrap.rpartition(":")[2])
    with pytest.raises(BrokerUnavailable, match="is taken"):
        EmbeddedBroker(port).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with a killed parent")
def test_the_broker_dies_with_a_killed_parent() -> None:
    program = (
        "import threading, time; from streams.embedded import EmbeddedBroker; broker = EmbeddedBroker()\n"
        "starter = threading.Thread(target=broker.start); starter.start(); starter.join()\n"
        "time.sleep(1); print(broker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid), "it must outlive the thread that started it"
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not alive(pid), 5)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    process = ManagedProcess("deaf", [sys.executable, "-c", program], log, stop_s=0.2)
    process.start(lambda: "up" in process.log_tail(), 10)
    pid = process.pid
    process.stop()
    assert pid is not None and not alive(pid)


def test_a_process_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    process = ManagedProcess("short", [sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path / "log")
    with pytest.raises(BrokerUnavailable, match=r"short ended with code 1(?s:.*)no luck"):
        process.start(lambda: False, 10)


def test_free_ports_are_not_ephemeral() -> None:
    assert {free_port() < 32_768 for _ in range(20)} == {True}
