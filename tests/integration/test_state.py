"""A checkpoint that was tampered with, and the reset: the state is rebuilt from the log, and ends the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from streams._process import free_port, wait_until
from streams.checkpoints import HEAD, Head
from streams.cli import main
from streams.errors import CheckpointRefused, UsageError
from streams.kafka import aiokafka_options
from streams.settings import Settings
from streams.simulate import simulate, write
from streams.state import reset_state
from streams.store import read_compacted
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line
from tests.integration.test_graceful import metric, wait_ready
from tests.integration.test_line import assert_same_as_backtest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    truth = write(simulate(1.0, 9, sessions_per_day=1000, leads_per_day=60), path, days=1.0, seed=9)
    return path, truth.events


@pytest.fixture
def line(kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[LiveLine]:
    with live_line(kafka, tmp_path) as made:
        yield made


def done(line: LiveLine, recorded: tuple[Path, int]) -> None:
    """A line that has seen all, and was stopped in order."""
    path, events = recorded
    worker = line.start("worker")
    line.run("replay", str(path))
    assert_same_as_backtest(line, path, events)
    assert line.stop(worker) == 0


async def forge(settings: Settings, topic: str, partition: int) -> None:
    """Move a checkpoint's offset on: who believed that would skip what came between."""
    records = (await read_compacted(topic, [partition], aiokafka_options(settings.kafka)))[partition]
    head = msgspec.msgpack.decode(records[HEAD], type=Head)
    forged = msgspec.msgpack.encode(msgspec.structs.replace(head, offset=head.offset - 2))
    producer = AIOKafkaProducer(**aiokafka_options(settings.kafka))
    await producer.start()
    try:
        await producer.send_and_wait(topic, forged, key=HEAD, partition=partition)
    finally:
        await producer.stop()


def test_a_forged_checkpoint_is_refused_counted_and_rebuilt_without_waiting_for_a_message(
    line: LiveLine, recorded: tuple[Path, int]
) -> None:
    done(line, recorded)
    topics = line.settings.topics
    asyncio.run(forge(line.settings, topics.sessions_state, 1))
    asyncio.run(forge(line.settings, topics.watch_state, 0))
    with pytest.raises(CheckpointRefused, match="digest"):
        line.state()
    port = free_port()
    worker = line.start("worker", METRICS__PORT=str(port))
    wait_ready(line, worker, port)
    for stage in ("sessionize", "watch"):
        assert metric(port, rf'trustwatch_state_resets_total\{{stage="{stage}"\}}') == 1.0
    assert wait_until(lambda: whole(line), 60.0), line.logs()
    assert_same_as_backtest(line, *recorded)
    assert "is rebuilt from the log" in line.logs()


def whole(line: LiveLine) -> bool:
    try:
        line.state()
    except CheckpointRefused:
        return False
    return True


def test_a_reset_forgets_and_the_next_start_rebuilds(
    line: LiveLine, recorded: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done(line, recorded)
    topics = line.settings.topics
    assert reset_state(line.settings, ["watch"], [1]) == [f"{topics.watch_state}[1]"]
    assert reset_state(line.settings, ["watch"], [1]) == []
    with pytest.raises(UsageError, match="no partition 9"):
        reset_state(line.settings, [], [9])
    for name, value in line._variables().items():
        monkeypatch.setenv(name, value)
    for arguments, code in ((["state", "reset"], 2), (["state", "reset", "--yes"], 0)):
        monkeypatch.setattr("sys.argv", ["trustwatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    assert f"deleted the checkpoint in {topics.sessions_state}[0]" in capsys.readouterr().out
    assert line.state().accounting["consumed"] == 0
    worker = line.start("worker")
    assert_same_as_backtest(line, *recorded)
    with pytest.raises(UsageError, match="stop them first"):
        reset_state(line.settings)
    assert line.stop(worker) == 0
