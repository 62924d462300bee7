"""The ingest service on a broker: nothing is lost at the start, nothing is committed before it is durable."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from confluent_kafka import KafkaException
from confluent_kafka import Producer as FastProducer
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

from streams import ingest_service
from streams.frames import NEVER, Item, Mark, decode_frame
from streams.ingest import Door
from streams.ingest_service import Ingest
from streams.kafka import aiokafka_options, confluent_options
from streams.outbox import Outbox
from streams.privacy import Privacy
from streams.sessionize import Totals
from streams.settings import Settings
from streams.stage import Record
from streams.units import Plan
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine
from tests.kit import T0, native

pytestmark = pytest.mark.integration
CODECS = ("gzip", "snappy", "lz4", "zstd")


@pytest.fixture
def line(kafka: KafkaUnderTest, tmp_path: Path) -> LiveLine:
    return LiveLine(kafka, tmp_path)


def put(
    settings: Settings, topic: str, values: Iterable[bytes], partition: int | None = None, codec: str = "none"
) -> None:
    options = {"compression.type": codec, "linger.ms": 50}  # or each message would be a batch of its own
    producer = FastProducer(confluent_options(settings.kafka) | options)
    where = {} if partition is None else {"partition": partition}
    errors: list[Any] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error) if error else None, **where)
    assert producer.flush(20) == 0
    if errors:
        raise KafkaException(errors[0])


def good(count: int, name: str = "e") -> list[bytes]:
    return [native("page_viewed", i / 100, f"p{i % 50}", id=f"{name}{i}", page="/") for i in range(count)]


@asynccontextmanager
async def running(settings: Settings, outbox: Outbox | None = None) -> AsyncIterator[Ingest]:
    box = outbox or Outbox(settings)
    ingest = Ingest(settings, box)
    await box.start()
    await ingest.start()
    try:
        yield ingest
    finally:
        await ingest.stop()
        await box.stop()


async def until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "not within the time"
        await asyncio.sleep(0.05)


async def written(settings: Settings, topic: str) -> tuple[list[tuple[str, Item]], list[tuple[str, Mark]]]:
    """All (source, item) and (source, mark) that frames in the events topic hold."""
    consumer = AIOKafkaConsumer(**aiokafka_options(settings.kafka), auto_offset_reset="earliest")
    await consumer.start()
    try:
        where = [TopicPartition(topic, partition) for partition in range(settings.topics.events_partitions)]
        consumer.assign(where)
        items: list[tuple[str, Item]] = []
        marks: list[tuple[str, Mark]] = []
        ends = await consumer.end_offsets(where)
        while True:
            fetched = await consumer.getmany(timeout_ms=300)
            for messages in fetched.values():
                for message in messages:
                    for section in decode_frame(message.value).sections:
                        items += [(section.source, item) for item in section.items]
                        marks += [(section.source, mark) for mark in section.marks]
            if not fetched and all([await consumer.position(one) >= ends[one] for one in where]):
                return items, marks
    finally:
        await consumer.stop()


def committed(settings: Settings, topic: str) -> dict[int, int]:
    """Offsets that the group of ingest has committed."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    try:
        found = admin.list_group_offsets(f"{settings.app_id}-ingest")
    finally:
        admin.close()
    offsets = found.get(f"{settings.app_id}-ingest", found)
    return {tp.partition: at.offset for tp, at in offsets.items() if tp.topic == topic and at.offset >= 0}


def accepted(ingest: Ingest) -> int:
    assert ingest.door is not None
    return sum(count for (_, outcome, _), count in ingest.door.outcomes.items() if outcome == "accepted")


def places(items: list[tuple[str, Item]]) -> list[tuple[str, int, int]]:
    return sorted((source, item.place.offset, item.place.index) for source, item in items)


def with_group(settings: Settings, **topics: str) -> Settings:
    """The same line for another group, so that everything is read from the beginning."""
    changed = settings.model_copy(update={"app_id": f"g{uuid.uuid4().hex[:8]}"})
    return changed.model_copy(update={"topics": settings.topics.model_copy(update=topics)})


def test_what_waits_before_the_start_arrives_even_if_the_clocks_are_slow_to_come(
    line: LiveLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Ingest._clocks

    async def slow(self: Ingest, partitions: list[TopicPartition]) -> Any:
        await asyncio.sleep(0.5)
        return await original(self, partitions)

    monkeypatch.setattr(Ingest, "_clocks", slow)
    put(line.settings, line.raw, good(500))

    async def run(settings: Settings) -> None:
        async with running(settings) as ingest:
            await until(lambda: accepted(ingest) >= 500)
            await asyncio.sleep(0.5)
        items, marks = await written(settings, settings.topics.events)
        assert len(items) == len(set(places(items))) == 500
        assert marks == []
        assert sum(committed(settings, line.raw).values()) == 500

    for turn in range(3):
        settings = with_group(line.settings, events=f"{line.settings.topics.events}.{turn}")
        admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        admin.create_topics([NewTopic(settings.topics.events, settings.topics.events_partitions, 1)])
        admin.close()
        asyncio.run(run(settings))


def test_a_backlog_on_all_partitions_after_idleness_is_not_late(line: LiveLine) -> None:
    """The senders were away for a while, and all that they held comes at once."""
    settings = line.settings
    settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"idle_timeout_s": 0.5})})
    partitions, each = settings.topics.raw_partitions, 3000

    async def run() -> None:
        async with running(settings) as ingest:
            for partition in range(partitions):
                put(
                    settings, line.raw, [native("page_viewed", 0.0, f"p{partition}", id=f"first{partition}")], partition
                )
            assert ingest.door is not None
            sources = [f"{line.raw}/{partition}" for partition in range(partitions)]
            clocks = ingest.door.clock_of
            await until(lambda: accepted(ingest) == partitions)
            await until(lambda: all(clocks(source).idle_s is not None for source in sources))
            for partition in range(partitions):
                backlog = [
                    native("page_viewed", float(i), f"p{i % 50}", id=f"{partition}.{i}", page="/") for i in range(each)
                ]
                put(settings, line.raw, backlog, partition)
            await until(lambda: accepted(ingest) == partitions * (each + 1))
            await asyncio.sleep(0.5)

    asyncio.run(run())
    totals = asyncio.run(sessionized(settings))
    assert (totals.applied, totals.late) == (partitions * (each + 1), 0)


def test_a_backlog_is_read_evenly_in_event_time(line: LiveLine) -> None:
    """A client left alone hands out one partition after the other: all that it reads ahead waits in memory."""
    each, batch = 5000, 500
    partitions = line.settings.topics.raw_partitions
    knobs = line.settings.ingest.model_copy(update={"batch_events": batch})
    settings = line.settings.model_copy(update={"ingest": knobs})
    for partition in range(partitions):
        put(settings, line.raw, good(each, f"{partition}."), partition)

    async def run() -> list[dict[str, float]]:
        clocks: list[dict[str, float]] = []
        async with running(settings) as ingest:
            while accepted(ingest) < partitions * each:
                assert ingest.door is not None
                names = [f"{line.raw}/{partition}" for partition in range(partitions)]
                with suppress(KeyError):  # not assigned yet
                    clocks.append({name: ingest.door.clock_of(name).time for name in names})
                await asyncio.sleep(0)
        return clocks

    read = [list(clocks.values()) for clocks in asyncio.run(run())]
    spread_s = [max(times) - min(times) for times in read if NEVER not in times]
    assert len(spread_s) > 10
    # A batch holds 5 s of one partition; the other way it would be nearly all of its 50 s.
    assert max(spread_s) <= 2 * batch / 100 + 0.01


def test_without_a_backlog_events_gather_in_few_frames(line: LiveLine) -> None:
    """Every frame costs the stages behind: a steady trickle must not make one of every message."""

    async def run() -> tuple[int, float]:
        began = time.monotonic()
        async with running(line.settings) as ingest:
            for value in good(200):
                await asyncio.to_thread(put, line.settings, line.raw, [value])
            await until(lambda: accepted(ingest) == 200)
            return ingest.frames, (time.monotonic() - began) / ingest_service.GATHER_S

    frames, rounds = asyncio.run(run())
    assert 0 < frames <= (rounds + 1) * line.settings.topics.events_partitions


def test_a_source_whose_clock_stands_still_does_not_starve_the_others(line: LiveLine) -> None:
    knobs = line.settings.ingest.model_copy(update={"batch_events": 100})
    settings = line.settings.model_copy(update={"ingest": knobs})
    put(settings, line.raw, [b"no event"] * 3000, 0)
    put(settings, line.raw, good(500), 1)

    async def run() -> int:
        async with running(settings) as ingest:
            await until(lambda: accepted(ingest) == 500)
            assert ingest.door is not None
            return sum(count for (_, outcome, _), count in ingest.door.outcomes.items() if outcome == "dead_letter")

    assert asyncio.run(run()) < 2000


def test_what_was_fetched_before_a_rebalance_is_left_to_come_again(line: LiveLine) -> None:
    """Its partition may be somebody else's now; what is fetched after it must not be dropped with it."""
    before, after = TopicPartition(line.raw, 0), TopicPartition(line.raw, 1)

    class Rebalancing:
        """A client in which the partitions are dealt out anew between two fetches."""

        async def getmany(self, where: TopicPartition, **_: int) -> dict[TopicPartition, list[str]]:
            if where == after:
                await ingest.revoked([before, after])
            return {where: [f"of {where.partition}"]}

    ingest = Ingest(line.settings, Outbox(line.settings))
    door = Door(line.settings, Privacy.from_settings(line.settings), {line.raw: 2})
    for where in (before, after):
        door.open_source(f"{where.topic}/{where.partition}")
        ingest._quiet_since[where] = 0.0
    assert asyncio.run(ingest._fetch(Rebalancing(), door)) == {after: ["of 1"]}


def test_a_commit_of_the_past_that_comes_in_between_is_read_from_once_more(
    line: LiveLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a worker that was frozen: its client commits once more what it had begun to, under the new generation."""
    settings = line.settings
    put(settings, line.raw, good(400))

    async def first() -> None:
        async with running(settings) as ingest:
            await until(lambda: accepted(ingest) >= 400)
            await asyncio.sleep(ingest_service.COMMIT_EVERY_S * 1.5)

    asyncio.run(first())
    whole = committed(settings, line.raw)
    assert sum(whole.values()) == 400
    original = Ingest._clocks
    stale = {partition: offset // 3 for partition, offset in whole.items() if offset >= 3}

    async def late(self: Ingest, partitions: list[TopicPartition]) -> Any:
        assert self._consumer is not None
        for where in partitions:
            if where.partition in stale:
                await self._consumer.position(where)  # it has asked where to read on before the commit comes
        behind = {where: OffsetAndMetadata(stale[where.partition], repr(T0)) for where in partitions
                  if where.topic == line.raw and where.partition in stale}  # fmt: skip
        await self._consumer.commit(behind)
        return await original(self, partitions)

    monkeypatch.setattr(Ingest, "_clocks", late)

    async def second() -> None:
        async with running(settings) as ingest:
            await until(lambda: accepted(ingest) >= 400 - sum(stale.values()))
            await asyncio.sleep(ingest_service.COMMIT_EVERY_S * 1.5)
        assert committed(settings, line.raw) == whole
        totals = await sessionized(settings)
        assert (totals.applied, totals.late) == (400, 0)

    asyncio.run(second())


async def sessionized(settings: Settings) -> Totals:
    """What becomes of all frames in the events topic."""
    consumer, plan, totals = AIOKafkaConsumer(**aiokafka_options(settings.kafka)), Plan(settings), Totals()
    await consumer.start()
    try:
        for partition in range(settings.topics.events_partitions):
            where, stage = TopicPartition(settings.topics.events, partition), plan.sessionizer(partition)
            consumer.assign([where])
            await consumer.seek_to_beginning(where)
            end = (await consumer.end_offsets([where]))[where]
            while await consumer.position(where) < end:
                for message in (await consumer.getmany(where, timeout_ms=300)).get(where, []):
                    stage.apply(decode_frame(message.value), message.offset)
            totals.applied += stage.state.totals.applied
            totals.late += stage.state.totals.late
    finally:
        await consumer.stop()
    return totals


def test_nothing_is_committed_that_could_not_be_sent(line: LiveLine) -> None:
    settings = line.settings
    put(settings, line.raw, good(300))

    class Broken(Outbox):
        tries = 0

        async def send(self, records: Iterable[Record]) -> None:
            if any(record.topic == settings.topics.events for record in records):
                self.tries += 1
                raise KafkaError("not enough replicas")

    async def fail() -> None:
        box = Broken(settings)
        async with running(settings, box) as ingest:
            await until(lambda: box.tries > 0)
            await asyncio.sleep(ingest_service.COMMIT_EVERY_S * 1.5)
            assert ingest.frames == 0

    async def succeed() -> None:
        async with running(settings) as ingest:
            await until(lambda: accepted(ingest) >= 300)
            await asyncio.sleep(0.5)
        items, _ = await written(settings, settings.topics.events)
        assert len(items) == len(set(places(items))) == 300

    asyncio.run(fail())
    assert not any(committed(settings, line.raw).values())
    asyncio.run(succeed())
    assert sum(committed(settings, line.raw).values()) == 300


def test_compressed_messages_are_read(line: LiveLine, kafka: KafkaUnderTest) -> None:
    read = []
    for codec in CODECS:
        try:
            put(line.settings, line.raw, good(50, codec), codec=codec)
        except (KafkaException, AssertionError):
            if kafka.real:
                raise
            continue  # the embedded broker refuses some
        read.append(codec)
    assert read

    async def run() -> None:
        async with running(line.settings) as ingest:
            await until(lambda: accepted(ingest) >= 50 * len(read))
            await asyncio.sleep(0.5)
        items, marks = await written(line.settings, line.settings.topics.events)
        assert len(items) == len(set(places(items))) == 50 * len(read)
        assert marks == []

    asyncio.run(run())


def test_partitions_added_while_ingest_runs_are_read_and_their_garbage_is_counted(
    real_kafka_or_skip: None, line: LiveLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions are added through the admin API, which the embedded broker does not have."""
    settings = line.settings
    monkeypatch.setattr(
        ingest_service, "aiokafka_options", lambda kafka: aiokafka_options(kafka) | {"metadata_max_age_ms": 500}
    )
    put(settings, line.raw, good(20))
    before = settings.topics.raw_partitions

    async def run() -> None:
        async with running(settings) as ingest:
            await until(lambda: accepted(ingest) >= 20)
            admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
            await asyncio.to_thread(admin.create_partitions, {line.raw: NewPartitions(before + 2)})
            await asyncio.to_thread(admin.close)
            await asyncio.to_thread(put, settings, line.raw, [*good(10, "new"), b"{"], before + 1)
            assert ingest.door is not None
            door = ingest.door
            bad = (line.raw, "dead_letter", "not_json")
            await until(lambda: door.outcomes.get(bad) == 1 and accepted(ingest) == 30)
            await asyncio.sleep(0.5)
            assert not ingest.crashed
        items, marks = await written(settings, settings.topics.events)
        assert len(set(places(items))) == 30
        added = f"{line.raw}/{before + 1}"
        assert [item.event.id for source, item in items if source == added]
        assert {(source, mark.outcome, mark.reason) for source, mark in marks} == {(added, "dead_letter", "not_json")}

    asyncio.run(run())
    assert committed(settings, line.raw)[before + 1] == 11
