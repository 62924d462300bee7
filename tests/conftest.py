"""What tests share: a broker, real where it can be, and promtool.

`REQUIRE_KAFKA=1` (CI) turns every "cannot here" into a failure, so that nothing is left out unseen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.kafka import Broker, available, fetch
from streams.embedded import EmbeddedBroker
from streams.errors import TrustwatchError

ROOT = Path(__file__).resolve().parents[1]
PROMTOOL = ROOT / ".cache" / "prometheus" / "usr" / "bin" / "promtool"
BROKER_USED = pytest.StashKey[str]()
REAL = "Apache Kafka"


@dataclass(frozen=True)
class KafkaUnderTest:
    """The broker of the session: where it is, and whether it is Apache Kafka."""

    bootstrap: str
    real: bool


def kafka_required() -> bool:
    return os.environ.get("REQUIRE_KAFKA", "") not in ("", "0")


def no_real_kafka() -> str | None:
    """Why Apache Kafka cannot run here; None if it can, and then its jars are there."""
    if reason := available():
        return reason
    try:
        fetch()
    except TrustwatchError as error:
        return str(error)
    return None


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaUnderTest]:
    """A running broker: Apache Kafka, or the embedded one where that cannot run. Use topics and groups of your own."""
    reason = no_real_kafka()
    if reason and kafka_required():
        pytest.fail(f"REQUIRE_KAFKA is set, but Apache Kafka cannot run here: {reason}", pytrace=False)
    broker = EmbeddedBroker() if reason else Broker()
    request.config.stash[BROKER_USED] = f"EMBEDDED BROKER, NOT APACHE KAFKA: {reason}" if reason else REAL
    with broker:
        yield KafkaUnderTest(broker.bootstrap, real=reason is None)


@pytest.fixture(scope="session")
def real_kafka_or_skip() -> None:
    """For tests of what only Apache Kafka does, or that start one of their own (`deploy.kafka.Broker`), to stop it."""
    reason = no_real_kafka()
    if reason and kafka_required():
        pytest.fail(f"REQUIRE_KAFKA is set, but Apache Kafka cannot run here: {reason}", pytrace=False)
    if reason:
        pytest.skip(f"needs Apache Kafka: {reason}")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of promtool."""
    found = str(PROMTOOL) if PROMTOOL.is_file() else shutil.which("promtool")
    if found:
        return found
    if kafka_required():
        pytest.fail("REQUIRE_KAFKA is set, but promtool is missing. Fix: make promtool", pytrace=False)
    pytest.skip("promtool is missing. Fix: make promtool")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands on which broker it had."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["broker"] = session.config.stash.get(BROKER_USED, "")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take that up; the worst of them is told."""
    used = getattr(node, "workeroutput", {}).get("broker")
    before = node.config.stash.get(BROKER_USED, REAL)
    if used and before == REAL:
        node.config.stash[BROKER_USED] = used


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which broker ran: results on the embedded one prove less."""
    used = config.stash.get(BROKER_USED, None)
    if used is None:
        return
    real = used == REAL
    terminalreporter.section("broker", sep="=", bold=True, yellow=not real, green=real)
    terminalreporter.line(f"Integration tests ran on: {used}", bold=True, yellow=not real, green=real)
