"""The real worker on a real broker: exact accounting, restart, malformed input, and the same results as a backtest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from streams.findings import VALIDATION
from streams.simulate import Erosion, simulate, write
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line

pytestmark = pytest.mark.integration

EROSIONS = (Erosion("early_dropoff", "evaluate", {"channel": "paid"}, 8.0, 0.5),)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """More than 100,000 events with a known erosion."""
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    events = simulate(12.0, 5, EROSIONS, sessions_per_day=1000, leads_per_day=150)
    truth = write(events, path, days=12.0, seed=5, erosions=EROSIONS)
    assert truth.events >= 100_000
    return path, truth.events


@pytest.fixture
def line(kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[LiveLine]:
    with live_line(kafka, tmp_path) as made:
        yield made


def records(line: LiveLine, topic: str) -> list[tuple[bytes, dict[str, object]]]:
    """All records of a topic with one partition."""
    consumer = KafkaConsumer(bootstrap_servers=line.settings.kafka.bootstrap_servers, auto_offset_reset="earliest")
    try:
        where = TopicPartition(topic, 0)
        consumer.assign([where])
        consumer.seek_to_beginning(where)
        found: list[tuple[bytes, dict[str, object]]] = []
        while fetched := consumer.poll(timeout_ms=2000).get(where):
            found += [(record.key, json.loads(record.value)) for record in fetched]
        return found
    finally:
        consumer.close()


def assert_same_as_backtest(line: LiveLine, path: Path, events: int) -> None:
    summary, findings = line.backtest(path)
    state = line.wait(events, float(str(summary["until"])))
    assert state.accounting["consumed"] == summary["events"] == events
    assert state.accounting["applied"] == summary["accepted"]
    assert state.accounting["duplicate"] == summary["duplicates"]
    assert state.accounting["late"] == summary["late"]
    assert state.dead_letters == summary["dead_letters"]
    assert state.accounting["steps"] == summary["steps"]
    assert msgspec.to_builtins(state.findings) == findings
    assert state.state_digest == summary["state_digest"]
    published = {str(finding["id"]): finding for _, finding in records(line, line.settings.topics.findings)}
    proven = {key for key, finding in published.items() if finding["detector"] == VALIDATION}
    assert proven == {change.id for change in state.changes}
    assert {key: published[key] for key in published.keys() - proven} == {
        finding["id"]: finding for finding in findings
    }


def test_100_000_events_are_all_accounted_for_and_give_what_a_backtest_gives(
    line: LiveLine, recorded: tuple[Path, int]
) -> None:
    path, events = recorded
    worker = line.start("worker")
    line.run("replay", str(path))
    assert_same_as_backtest(line, path, events)
    state = line.state()
    assert state.accounting["applied"] == events
    assert any(
        finding.detector == "early_dropoff" and finding.segment == {"stage": "evaluate", "channel": "paid"}
        for finding in state.findings
    )
    began = time.monotonic()
    assert line.stop(worker) == 0
    assert time.monotonic() - began < 10


def test_a_worker_killed_again_and_again_ends_in_the_state_of_an_undisturbed_one(
    line: LiveLine, recorded: tuple[Path, int]
) -> None:
    path, events = recorded
    line.run("replay", str(path))
    done = 0
    for _ in range(3):
        worker = line.start("worker", INGEST__BATCH_EVENTS="5")  # small batches: the kill falls between two
        line.wait_for_the_middle(done, events)
        line.kill(worker)
        left = line.state().accounting["consumed"]
        assert done < left < events, "the kill must fall into the middle, after this worker did something"
        done = left
    line.start("worker")
    assert_same_as_backtest(line, path, events)


def test_ingest_apart_and_killed_reads_again_and_counts_nothing_twice(
    line: LiveLine, recorded: tuple[Path, int]
) -> None:
    path, events = recorded
    line.start("worker", "--no-ingest")
    line.run("replay", str(path))
    done = 0
    for _ in range(2):
        ingest = line.start("ingest", INGEST__BATCH_EVENTS="20")  # small batches: the kill falls between two
        line.wait_for_frames(2000)
        line.kill(ingest)
        left = line.wait_for_rest()
        assert done < left < events, "some frames must be written, but not all"
        done = left
    line.start("ingest")
    assert_same_as_backtest(line, path, events)


def test_a_second_worker_that_joins_and_leaves_changes_nothing(line: LiveLine, recorded: tuple[Path, int]) -> None:
    path, events = recorded
    line.start("worker")
    time.sleep(6.0)
    line.run("replay", str(path))
    second = line.start("worker")
    time.sleep(12.0)
    assert line.stop(second) == 0
    assert_same_as_backtest(line, path, events)


GARBAGE = (
    b"\x00\xff\xfe random \x93 bytes",
    b'{"type": "page_viewed", "id": "trunc',
    b"",
    b"null",
    b"[]",
    b"[1, 2, 3]",
    b'{"batch": [], "sentAt": "2026-01-05T10:00:00Z"}',
    b'{"batch": [{"batch": [{"type": "track"}]}]}',
    b'{"type": "teleported", "id": "a", "time": 1767600000, "person": "p"}',
    b'{"type": "page_viewed", "id": "b", "time": "abc", "person": "p"}',
    b'{"type": "page_viewed", "id": "c", "time": 0, "person": "p"}',
    b'{"type": "page_viewed", "id": "d", "time": "2100-01-01T00:00:00Z", "person": "p"}',
    b'{"type": "page_viewed", "id": "e", "time": NaN, "person": "p"}',
    b'{"type": "page_left", "id": "f", "time": 1767600000, "person": "p", "properties": {"dwell_s": 1e999}}',
    b'{"type": "page_viewed", "time": 1767600000, "person": "p"}',
    b'{"type": "track", "event": "x", "messageId": "g", "anonymousId": "p", "timestamp": "abc"}',
    b'[{"subscriptionType":"company.change","eventId":16}]',
    b"[" * 100_000 + b"]" * 100_000,
    b'{"id": "' + b"x" * 10_000_000 + b'"}',
)


def test_garbage_never_stops_the_line_and_each_piece_is_a_dead_letter_with_its_reason(
    line: LiveLine, tmp_path: Path
) -> None:
    path = tmp_path / "garbage.jsonl"
    good = [
        json.dumps(
            {"id": f"v{n}", "type": "page_viewed", "time": 1767600000 + n, "person": f"p{n % 9}", "page": "/"}
        ).encode()
        for n in range(200)
    ]
    lines = [message for pair in zip(good, GARBAGE * 11, strict=False) for message in pair]
    path.write_bytes(b"\n".join(lines) + b"\n")
    line.start("worker")
    line.run("replay", str(path))
    assert_same_as_backtest(line, path, len(lines))
    state = line.state()
    assert state.accounting["applied"] == len(good)
    letters = records(line, line.settings.topics.dead_letters)
    assert len({key for key, _ in letters}) == len(letters) == state.accounting["dead_letter"] == len(lines) - len(good)
    reasons: dict[str, int] = {}
    for key, letter in letters:
        assert key.decode() == f"{letter['topic']}/{letter['partition']}/{letter['offset']}/{letter['index']}"
        assert letter["topic"] == line.raw
        reasons[str(letter["reason"])] = reasons.get(str(letter["reason"]), 0) + 1
    assert dict(sorted(reasons.items())) == state.dead_letters
