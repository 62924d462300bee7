"""Marked personal data through every format and failure of the real line: no topic, log, metric or page has a mark."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from streams._process import free_port
from streams.checkpoints import HEAD
from streams.errors import CheckpointRefused
from tests.conftest import KafkaUnderTest
from tests.integration.collecting import TOKEN, WRITE_KEY, Collecting, basic, collecting
from tests.integration.live import LiveLine, live_line
from tests.integration.raw import all_bytes, everything, ours, send
from tests.integration.test_graceful import wait_ready
from tests.marks import Marker, find, garbage, rows, templates, wire

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("real_kafka_or_skip")]
T0 = 1_700_000_000.0
PAGES = ("", "api/findings", "api/segments", "api/leads", "api/data", "api/pipeline", "healthz", "readyz")
BROKEN = """
import os, sys
if os.environ.get("BROKEN_DETECTOR"):
    from detectors.early_dropoff import EarlyDropoff
    def look(self, bucket):
        raise ValueError(f"a detector of somebody else's prints what it saw: {bucket}")
    EarlyDropoff.look = look
"""


def get(url: str) -> bytes:
    """What a page says, whether it is well or not."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


def wait_settled(line: LiveLine, timeout_s: float = 180.0) -> int:
    """Items accounted for, once ingest has read all and nothing waits for the watermark."""
    deadline = time.monotonic() + timeout_s
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 4.0 or last <= 0:
        assert time.monotonic() < deadline, f"{last} items after {timeout_s} s\n{line.logs()}"
        try:
            consumed = line.state().accounting["consumed"]
        except CheckpointRefused:  # damaged, and not written anew yet
            consumed = 0
        if consumed != last:
            last, since = consumed, time.monotonic()
        time.sleep(0.5)
    return last


def assert_no_mark(line: LiveLine, **beside: bytes) -> None:
    found = {topic: find(all_bytes(line, topic)) for topic in ours(line)}
    found |= {log.name: find(log.read_bytes()) for log in line.folder.glob("*.log")}
    found |= {name: find(data) for name, data in beside.items()}
    assert {name: marks for name, marks in found.items() if marks} == {}


@pytest.fixture
def line(kafka: KafkaUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveLine]:
    plugged = tmp_path / "plugged"
    plugged.mkdir()
    (plugged / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(plugged))
    monkeypatch.setenv("BROKEN_DETECTOR", "1")
    with live_line(kafka, tmp_path, LIMITS__DEDUPE_IDS="1") as made:
        yield made


def marked_messages() -> list[bytes | None]:
    marker = Marker()
    messages: list[bytes | None] = list(garbage(marker))
    for name, payloads in templates(T0).items():
        for payload in payloads:
            messages += list(wire(name, payload, marker))[::7]
    messages += list(rows(T0, marker))[::11]
    return messages


def test_no_mark_is_left_anywhere_whatever_goes_wrong(line: LiveLine, tmp_path: Path) -> None:
    metrics, web = free_port(), free_port()
    ports = {"METRICS__PORT": str(metrics), "WEB__PORT": str(web)}
    marker, messages = Marker(), marked_messages()
    assert len(messages) > 1000 and all(find(message) for message in messages[3:8] if message)
    worker = line.start("worker", **ports)
    send(line, messages, key=marker.email().encode(), headers={marker.word(): marker.email().encode()}, until=T0 + 3000)
    wait_ready(line, worker, metrics)
    line.kill(worker)
    worker = line.start("worker", **ports)
    assert wait_settled(line) > len(messages)
    wait_ready(line, worker, metrics)
    shown = b"\n".join(
        [get(f"http://127.0.0.1:{metrics}/metrics"), *(get(f"http://127.0.0.1:{web}/{p}") for p in PAGES)]
    )
    assert b"trustwatch_events_total" in shown and b"dead_letter" in shown
    assert b"early_dropoff: failed on" in b"".join(log.read_bytes() for log in tmp_path.glob("*.log")), (
        "the detector failed"
    )
    assert line.stop(worker) == 0
    tampered = spoil_checkpoints(line)
    worker = line.start("worker", **ports)
    wait_ready(line, worker, metrics)
    assert wait_settled(line) > len(messages)
    assert tampered and b"does not match its digest" in b"".join(log.read_bytes() for log in tmp_path.glob("*.log"))
    recorded, out = tmp_path / "marked.jsonl", tmp_path / "findings.jsonl"
    recorded.write_bytes(b"\n".join(one for one in messages if one and b"\n" not in one and b"\0" not in one) + b"\n")
    said = line.run("backtest", str(recorded), "--json", "--out", str(out))
    assert json.loads(said)["events"] > 1000
    assert_no_mark(line, shown=shown, said=said.encode(), findings=out.read_bytes())
    assert all(everything(line, topic) for topic in ours(line)[:2]), "else nothing was searched"


def spoil_checkpoints(line: LiveLine) -> int:
    """Somebody damages every checkpoint; returns how many there were."""
    topic, spoiled = line.settings.topics.sessions_state, 0
    producer = KafkaProducer(bootstrap_servers=line.settings.kafka.bootstrap_servers)
    heads = {partition: value for partition, key, value in everything(line, topic) if key == HEAD and value}
    for partition, value in heads.items():
        middle = len(value) // 2
        changed = value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
        producer.send(topic, changed, key=HEAD, partition=partition)
        spoiled += 1
    producer.flush(timeout=30)
    producer.close()
    return spoiled


def test_the_collector_says_no_mark_of_what_it_takes_and_refuses(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    marker, answers = Marker(), b""
    with collecting(kafka, tmp_path) as collector:
        answers = b"\n".join(post_marked(collector, marker))
        metrics = collector.metrics().encode()
        logs = b"".join(log.read_bytes() for log in tmp_path.glob("*.log"))
        assert any(find(one.value) for one in collector.stored()), "the raw topic is the user's, and has them all"
        # A name that a client made up may come back to that client in the reason; nothing else does.
        assert find(metrics) == find(logs) == find(answers) == set()


def post_marked(collector: Collecting, marker: Marker) -> Iterator[bytes]:
    token = {"Authorization": f"Bearer {TOKEN}"}
    for name, payloads in templates(time.time() - 60).items():
        for message in [one for payload in payloads[:2] for one in list(wire(name, payload, marker))[::29]]:
            yield collector.send("/v1/events", message, **token).body
            yield collector.send("/v1/batch", message, Authorization=basic(WRITE_KEY)).body
    for path in ("/v1/events", "/v1/track", f"/v1/{marker.word()}", f"/batch?email={marker.email()}", "/e/",
                 "/com.snowplowanalytics.snowplow/tp2", "/webhooks/hubspot", "/webhooks/sendgrid"):  # fmt: skip
        for body in [one for one in garbage(marker) if one is not None]:
            yield collector.send(path, body, Authorization=f"Bearer {marker.word()}").body
            yield collector.send(path, body, Origin=f"https://{marker.word()}.example", Cookie=marker.word()).body
