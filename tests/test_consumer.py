"""What Faust's consumer is told: commit what checkpoints cover, read where the units are, drop nothing."""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.consumer import Consumer as FaustConsumer
from faust.types import TP

from streams import consumer as consumer_module
from streams import runtime
from streams.app import Line
from streams.consumer import _Consumer, _NothingRead, _Thread, _Transport
from streams.runtime import Housekeeping
from streams.settings import Settings

ONE, TWO = TP("events", 0), TP("events", 1)
SETTINGS = Settings(privacy={"pseudonym_key": "0123456789abcdef"}, metrics={"port": 0})


def consumer(**parts: Any) -> Any:
    """A consumer of which only some parts exist."""
    made = _Consumer.__new__(_Consumer)
    made._committed_offset = defaultdict(lambda: None)
    made._acked, made._acked_index, made._gap = defaultdict(list), defaultdict(set), defaultdict(dict)
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def test_only_what_a_checkpoint_covers_is_committed_and_only_once() -> None:
    durable = {ONE: 5}
    made = consumer(app=SimpleNamespace(durable=lambda: durable))
    made._acked[ONE] = list(range(100))  # Faust would commit 100
    assert made._filter_committable_offsets([ONE, TWO]) == {ONE: 5}
    assert not made._acked
    made._committed_offset[ONE] = 5
    assert made._filter_committable_offsets([]) == {}
    durable |= {ONE: 7, TWO: 1}
    assert made._filter_committable_offsets([]) == {ONE: 7, TWO: 1}


@pytest.mark.parametrize(("did", "again"), [(True, {}), (False, {ONE: 5})])
def test_a_commit_that_failed_is_made_again(did: bool, again: dict[TP, int], monkeypatch: pytest.MonkeyPatch) -> None:
    made = consumer(app=SimpleNamespace(durable=lambda: {ONE: 5}))

    async def commit(self: Any, offsets: dict[TP, int], _new: bool = True) -> bool:
        self._committed_offset.update(offsets)  # as Faust does, whatever became of it
        return did

    monkeypatch.setattr(FaustConsumer, "_commit_offsets", commit)
    assert asyncio.run(made._commit_offsets({ONE: 5})) is did
    assert made._filter_committable_offsets([]) == again


@pytest.mark.parametrize("error", [CommitFailedError(), IllegalStateError(), KafkaError("coordinator"), None], ids=repr)
def test_a_failed_commit_never_stops_the_worker(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "COMMIT_S", 0.05)
    asked: list[Any] = []

    class Kafka:
        async def commit(self, offsets: Any) -> None:
            asked.append(dict(offsets))
            if error is not None:
                raise error
            await asyncio.sleep(10)  # the broker is away

    thread = _Thread.__new__(_Thread)
    thread.tp_last_committed_at = {}
    monkeypatch.setattr(_Thread, "_ensure_consumer", lambda _self: Kafka())
    monkeypatch.setattr(_Thread, "assignment", lambda _self: {ONE})
    assert asyncio.run(thread._commit({ONE: 5, TWO: 9})) is False
    assert [{where: found.offset for where, found in one.items()} for one in asked] == [
        {TopicPartition("events", 0): 5}
    ]


def test_it_reads_on_behind_the_units_and_a_partition_that_is_gone_does_no_harm() -> None:
    sought: dict[Any, int] = {}

    def seek(where: TopicPartition, offset: int) -> None:
        if where.partition == 1:
            raise IllegalStateError("not assigned")
        sought[where] = offset

    async def call_thread(call: Any, *arguments: Any) -> None:
        call(*arguments)

    thread = SimpleNamespace(call_thread=call_thread, _ensure_consumer=lambda: SimpleNamespace(seek=seek))
    made = consumer(app=SimpleNamespace(next=lambda: {ONE: 8, TWO: 3}), _thread=thread)
    asyncio.run(made.perform_seek())
    assert sought == {TopicPartition("events", 0): 8}


def test_faust_never_thinks_that_it_has_read_something() -> None:
    read = _NothingRead()
    read[ONE] = 7
    read.update({TWO: 9})
    assert read[ONE] is None and read[TWO] is None
    assert read.pop(ONE, None) is None and len(read) == 0 and list(read) == []


def test_the_line_uses_this_consumer_and_tells_it_where_its_stages_are() -> None:
    line = Line(SETTINGS)
    line.app.finalize()
    assert isinstance(line.app.transport, _Transport)
    assert line.app.transport.Consumer is _Consumer
    assert (line.app.durable(), line.app.next()) == ({}, {})
    slot = SimpleNamespace(offset=9, durable=4)
    line.sessionize.slots[1] = slot  # type: ignore[assignment]
    where = TP(SETTINGS.topics.events, 1)
    assert (line.app.durable(), line.app.next()) == ({where: 5}, {where: 10})


def test_what_is_alive_is_frozen_and_garbage_goes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, before = Housekeeping(), gc.get_freeze_count()
    try:
        keeper.tidy()
        assert gc.get_freeze_count() > before
        monkeypatch.setattr(runtime, "COLLECT_EVERY_S", 0.0)
        ring: list[Any] = []
        ring.append(ring)
        gc.freeze()
        del ring
        keeper.tidy()
        assert gc.collect() == 0
    finally:
        gc.unfreeze()


def test_the_age_of_a_process_is_told() -> None:
    assert 0 < runtime.process_age_s() < 86_400
