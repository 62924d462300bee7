"""Erasure on a real Kafka: proof by search that nothing is left under any id, also through a SIGKILL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.events import FORGET_TYPES
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line
from tests.integration.raw import all_bytes, newest, ours, send, wait_until_consumed
from tests.kit import native
from tests.privacy_kit import pseudonym, visit

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("real_kafka_or_skip")]
KEY = "a key for tests only"
IDS = ("web-1", "crm-1", "anna@example.org")
T0 = 1_700_000_000.0


@pytest.fixture
def line(kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[LiveLine]:
    with live_line(kafka, tmp_path) as made:
        yield made


def refused(person: str, number: int) -> bytes:
    return json.dumps({"id": f"r{number}", "type": "no such type", "time": T0, "person": person}).encode()


def story() -> list[bytes]:
    """Anna under three ids, and others, with sessions, leads and dead letters."""
    links = [native("other", 0, IDS[0], also_person=IDS[1]), native("other", 1, IDS[1], also_person=IDS[2])]
    for n, person in enumerate((*IDS, "bert", "carla", *(f"p{n}" for n in range(40)))):
        links += [*visit(person, 10), native("lead_created", 12, person), refused(person, n)]
    return links


def kept(line: LiveLine) -> dict[str, bytes]:
    """What stays in each topic of ours, but for the log of events: that one goes by its retention."""
    topics = line.settings.topics
    compacted = {topics.dead_letters, topics.sessions_state, topics.watch_state}
    read = {topic: newest if topic in compacted else all_bytes for topic in ours(line) if topic != topics.events}
    return {topic: one(line, topic) for topic, one in read.items()}


@pytest.mark.parametrize("kind", sorted(FORGET_TYPES))
@pytest.mark.parametrize("killed", [False, True], ids=["calm", "killed"])
def test_nothing_is_left_under_any_id_after_an_erasure(line: LiveLine, kind: str, killed: bool) -> None:
    topics, names = line.settings.topics, [pseudonym(person, KEY).encode() for person in IDS]
    worker = line.start("worker")
    sent = send(line, story(), until=T0 + 60)
    wait_until_consumed(line, sent, T0 + 60 - 40)
    before = kept(line)
    assert all(name in before[topics.sessions_state] for name in names), "else it proves nothing"
    assert all(name in before[topics.dead_letters] for name in names)
    sent += send(line, [native(kind, 70, IDS[2])], until=T0 + 120)
    if killed:
        line.wait_for_frames(0)
        time.sleep(0.2)
        line.kill(worker)
        line.start("worker")
    wait_until_consumed(line, sent, T0 + 120 - 40)
    after = kept(line)
    assert [(topic, name) for topic, data in after.items() for name in names if name in data] == []
    others = [pseudonym(person, KEY).encode() for person in ("bert", "carla", "p7")]
    assert all(name in after[topics.sessions_state] and name in after[topics.dead_letters] for name in others)
    state = line.state()
    assert state.accounting["consumed"] == sent and state.accounting["dead_letter"] == 45
    assert all(name in all_bytes(line, topics.events) for name in names), "the log goes by its retention, as documented"


def test_a_live_line_with_several_ids_and_erasures_ends_in_the_state_of_a_backtest(
    line: LiveLine, tmp_path: Path
) -> None:
    messages = story()
    messages += [native("erasure_requested", 30, IDS[1]), native("consent_withdrawn", 31, "bert")]
    for n in range(40):
        messages += [
            native("page_viewed", 40 + n, f"p{n}", page="/cart", also_person=f"user-{n % 13}"),
            native("lead_handed_over", 60 + n, f"user-{n % 13}"), *visit(f"user-{n}", 70 + n),
        ]  # fmt: skip
    messages += visit(IDS[0], 200) + visit("bert", 200)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(messages) + b"\n")
    line.start("worker")
    line.run("replay", str(path))
    summary, _ = line.backtest(path)
    state = line.wait(len(messages), float(str(summary["until"])))
    assert state.accounting["consumed"] == summary["events"] == len(messages)
    assert state.accounting["applied"] == summary["accepted"] and state.accounting["steps"] == summary["steps"]
    # A backtest of the same file has the settings, and so the key, of the worker.
    assert state.state_digest == summary["state_digest"]
