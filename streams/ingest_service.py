"""Ingest on Kafka: batches of raw messages in, acknowledged frames out, then the offsets.

A raw offset is committed only after the frames that hold its events are on all in-sync replicas. What is read again
after a crash is recognised downstream by its place, so it is neither lost nor counted twice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from mode import Service

from streams.errors import TopicMismatch
from streams.formats._tables import unmapped
from streams.frames import NEVER, encode, encode_json
from streams.ingest import Door, Flush, Raw
from streams.kafka import aiokafka_options
from streams.outbox import Outbox
from streams.patience import patiently
from streams.privacy import Privacy
from streams.settings import Settings
from streams.stage import Record

GATHER_S: Final = 0.1
"""Without a backlog, rounds begin at least so far apart: the longest that an event waits for others, seconds."""
COMMIT_EVERY_S: Final = 1.0
log = logging.getLogger(__name__)


class Ingest(Service):  # type: ignore[misc]
    """The ingest stage, supervised by the Faust app.

    Args:
        settings: all knobs.
        outbox: sends what it is given, durably.
        turn: held while it computes; see `streams.app.Line`. None where nothing else does.

    Attributes:
        door: the pure part; None until the raw topics are known.
        behind: raw partition → messages not yet read.
        frames: frames sent.
        cpu_s: CPU seconds of the door: decoding, cleaning, packing, encoding.
    """

    def __init__(self, settings: Settings, outbox: Outbox, turn: asyncio.Lock | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._turn = turn or asyncio.Lock()
        self._settings = settings
        self._outbox = outbox
        self._group = f"{settings.app_id}-ingest"
        self._privacy = Privacy.from_settings(settings)
        self._done: dict[TopicPartition, tuple[int, str]] = {}
        self._quiet_since: dict[TopicPartition, float] = {}
        self._reached: dict[TopicPartition, float] = {}
        self._looked_at = 0.0
        self._committed_at = 0.0
        self._epoch = 0
        self._consumer: AIOKafkaConsumer | None = None
        self.door: Door | None = None
        self.behind: dict[TopicPartition, int] = {}
        self.frames = 0
        self.cpu_s = 0.0

    async def on_start(self) -> None:
        """Connect and join the group; raises TopicMismatch if a raw topic is missing."""
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            **aiokafka_options(settings.kafka), group_id=self._group, enable_auto_commit=False,
            auto_offset_reset="earliest", session_timeout_ms=int(settings.kafka.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.kafka.session_timeout_s * 1000 / 6),
            max_poll_interval_ms=300_000, max_partition_fetch_bytes=4_000_000,
        )  # fmt: skip
        await self._consumer.start()
        names = [topic.name for topic in settings.topics.raw]
        self.door = Door(settings, self._privacy, await self._partitions(names))
        if advice := unmapped(settings):
            log.warning("ingest: %s", advice)
        self._consumer.subscribe(names, listener=_Listener(self))

    async def on_stop(self) -> None:
        """Commit what is durable and leave the group, so that others take over at once."""
        if self._consumer is not None:
            await self._commit()
            await self._consumer.stop()

    @Service.task  # type: ignore[untyped-decorator]
    async def _read(self) -> None:
        consumer, door = self._consumer, self.door
        assert consumer is not None and door is not None  # made in on_start
        while not self.should_stop:
            began_at = time.monotonic()
            fetched = await self._fetch(consumer, door)
            epoch, now = self._epoch, time.time()
            await self._open_new(door, fetched)
            await self._wake(consumer, door, set(fetched))
            async with self._turn:
                if epoch != self._epoch:
                    continue  # rebalanced since: positions went back to what is committed, it all comes again
                began = time.thread_time()
                done = {where: self._take(door, where, messages, now) for where, messages in fetched.items()}
                self.cpu_s += time.thread_time() - began
            await self._note_idle(consumer, door, now)
            began = time.thread_time()
            flush = door.flush(now)
            letters, frames = self._records(flush)
            self.cpu_s += time.thread_time() - began
            # Letters first: once a frame tells of one, an erasure may delete it, and it must not be written after that.
            await self._outbox.send(letters)
            await self._outbox.send(frames)
            self.frames += len(flush.frames)
            if epoch == self._epoch:
                self._done |= done  # only now: what is committed must be durable
            if now - self._committed_at >= COMMIT_EVERY_S:
                await self._commit()
            await self._gather(sum(map(len, fetched.values())), began_at)

    async def _fetch(self, consumer: AIOKafkaConsumer, door: Door) -> dict[TopicPartition, list[Any]]:
        """A batch; of a backlog, from those partitions first that are furthest behind in event time.

        The client would hand out all it has of one partition before it turns to the next. But buckets close only when
        all sources have passed them: what is read of one source ahead of the others waits in memory, and the stages
        behind it stand still and then have everything at once. Flink calls this watermark alignment; here nobody waits
        for a source that has nothing at hand, and none takes more than half of a batch: one whose messages never move
        its clock, such as poison, must not starve the others.
        """
        room, epoch = self._settings.ingest.batch_events, self._epoch
        share = (room + 1) // 2
        fetched: dict[TopicPartition, list[Any]] = {}
        for where in sorted(self._quiet_since, key=lambda where: door.clock_of(_source(where)).time):
            most = min(room, share)
            found: dict[TopicPartition, list[Any]] = await consumer.getmany(where, timeout_ms=0, max_records=most)
            if epoch != self._epoch:
                return found  # rebalanced meanwhile: what was fetched before comes again, this does not
            fetched |= found
            room -= sum(map(len, found.values()))
            if not room:
                return fetched
        if fetched:
            return fetched
        poll_ms = int(self._settings.ingest.poll_s * 1000)
        return cast(dict[TopicPartition, list[Any]], await consumer.getmany(timeout_ms=poll_ms, max_records=room))

    async def _gather(self, events: int, began_at: float) -> None:
        """While there is no backlog, let events gather: every frame costs the stages behind, however few it holds."""
        backlog = events >= self._settings.ingest.batch_events // 2
        rest_s = 0.0 if backlog else began_at + GATHER_S - time.monotonic()
        if rest_s > 0.0:
            await self.sleep(rest_s)
        else:
            await asyncio.sleep(0)  # other tasks run even when there is always more to read

    def _take(self, door: Door, where: TopicPartition, messages: list[Any], now: float) -> tuple[int, str]:
        """Hand messages to the door; returns the offset to commit, with the clock that the source has there."""
        raws = [
            Raw(
                where.topic,
                where.partition,
                message.offset,
                message.value,
                time=_written(message.timestamp),
                headers=_headers(message.headers) if message.headers else None,
            )
            for message in messages
        ]
        door.take(raws, now)
        self._quiet_since[where] = time.monotonic()
        self._reached[where] = raws[-1].time or now
        return messages[-1].offset + 1, repr(door.clock_of(_source(where)).time)

    async def _wake(self, consumer: AIOKafkaConsumer, door: Door, fetched: set[TopicPartition]) -> None:
        """When a source that was idle speaks again, ask whether others have something, too, before it is heard.

        After an outage of the senders a backlog comes on all partitions at once. The first that is read would move the
        watermark to its end, if the others still counted as idle, and what they hold would be late.
        """
        idle = {where for where in self._quiet_since if door.clock_of(_source(where)).idle_s is not None}
        if not idle & fetched or not (silent := sorted(idle - fetched)):
            return
        try:
            ends = await asyncio.wait_for(consumer.end_offsets(silent), timeout=self._settings.kafka.request_timeout_s)
        except (TimeoutError, KafkaError) as error:
            log.warning("ingest: cannot tell which sources have something to read (%s); none counts as idle", error)
            ends = {}
        for where in silent:
            known = where in self._quiet_since and where in ends  # else revoked while we waited, or not told
            if known and ends[where] <= await self._position(consumer, where):
                continue
            if where in self._quiet_since:
                door.idle(_source(where), None)
                self._quiet_since[where] = time.monotonic()

    async def _note_idle(self, consumer: AIOKafkaConsumer, door: Door, now: float) -> None:
        """A source that is known to be read to its end, and stays quiet, stops holding the watermark back."""
        at, patience_s = time.monotonic(), self._settings.ingest.idle_timeout_s
        if at - self._looked_at > patience_s / 2:
            # We stood still (frozen, or waiting for Kafka): nobody is known to have been quiet meanwhile.
            self._quiet_since = dict.fromkeys(self._quiet_since, at)
        self._looked_at = at
        for where, since in list(self._quiet_since.items()):
            if where not in consumer.assignment():
                continue  # revoked while we waited below
            end = consumer.highwater(where)
            if where in self._done and end is not None:
                self.behind[where] = max(0, end - self._done[where][0])
                if not self.behind[where]:
                    self._reached[where] = now
            age_s = _age_s(consumer.last_poll_timestamp(where))
            quiet = at - since - age_s  # up to when the broker last said where the partition ends
            if (
                quiet >= patience_s
                and age_s <= patience_s
                and end is not None
                and await self._position(consumer, where) >= end
            ):
                self.behind[where] = 0
                # Whole seconds, so that idle sources are told once a second and not with every poll.
                door.idle(_source(where), float(int(quiet)))
            elif where in self._quiet_since:  # else revoked while we asked
                door.idle(_source(where), None)

    def lag_s(self, where: TopicPartition) -> float | None:
        """Seconds that a raw partition is behind: the age of the oldest message not read, at most; None: not known."""
        reached = self._reached.get(where)
        if reached is None:
            return None
        return max(0.0, time.time() - reached) if self.behind.get(where) else 0.0

    async def _position(self, consumer: AIOKafkaConsumer, where: TopicPartition) -> int:
        """Next offset to be read; -1 while that is not known, or the partition has just been taken away."""
        try:
            position: int = await asyncio.wait_for(consumer.position(where), timeout=1.0)
        except (TimeoutError, IllegalStateError):
            return -1
        return position if where in self._quiet_since else -1

    def _records(self, flush: Flush) -> tuple[list[Record], list[Record]]:
        topics = self._settings.topics
        letters = [
            Record(topics.dead_letters, None, letter.id.encode(), encode_json(letter)) for letter in flush.dead_letters
        ]
        frames = [Record(topics.events, target, b"", encode(frame)) for target, frame in flush.frames]
        return letters, frames

    async def _commit(self) -> None:
        """Commit what is durable, with the clock of each source beside the offset."""
        self._committed_at = time.time()
        if self._consumer is None:
            return
        done = {where: mark for where, mark in self._done.items() if where in self._consumer.assignment()}
        if not done:
            return
        try:
            await self._consumer.commit(done)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("ingest: offsets not committed (%s); they are read again and recognised as repeats", error)

    async def _open_new(self, door: Door, fetched: dict[TopicPartition, list[Any]]) -> None:
        """Resume each newly assigned partition with the clock that its committed offset carries.

        A worker that was frozen may have committed an older offset over a newer one, after the client asked where to
        read on: then it is read from there once more, since clock and offset belong together. What is repeated is
        recognised by its place.

        Done here, not in the rebalance listener: aiokafka hands out messages before a listener has finished, and
        swallows what it raises.
        """
        assert self._consumer is not None  # made in on_start
        new = [where for where in self._consumer.assignment() if where not in self._quiet_since]
        if not new:
            return
        epoch = self._epoch
        clocks = await patiently(lambda: self._clocks(new), "asking what ingest has committed")
        ahead = dict(zip(clocks, await asyncio.gather(*(self._next(where, fetched) for where in clocks)), strict=True))
        if epoch != self._epoch:
            return
        for where in new:
            known = self._consumer.partitions_for_topic(where.topic) or ()
            door.know({where.topic: max(len(known), where.partition + 1)})
        for where, (offset, clock) in clocks.items():
            door.open_source(_source(where), clock)
            self._quiet_since[where] = time.monotonic()
            if offset >= 0:
                self._done[where] = (offset, repr(clock))
                if ahead[where] > offset:
                    self._consumer.seek(where, offset)
                    fetched.pop(where, None)

    async def _next(self, where: TopicPartition, fetched: dict[TopicPartition, list[Any]]) -> int:
        """The offset at which a partition is read on; -1 while the client does not know."""
        assert self._consumer is not None  # made in on_start
        if where in fetched:
            return int(fetched[where][0].offset)
        try:
            return int(await asyncio.wait_for(self._consumer.position(where), timeout=1.0))
        except (TimeoutError, IllegalStateError):
            return -1

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Commit what is durable and forget partitions that others may read now."""
        await self._commit()
        self._epoch += 1
        for where in partitions:
            self._done.pop(where, None)
            self._quiet_since.pop(where, None)
            self.behind.pop(where, None)
            self._reached.pop(where, None)
            if self.door is not None:
                self.door.close_source(_source(where))

    async def _clocks(self, partitions: list[TopicPartition]) -> dict[TopicPartition, tuple[int, float]]:
        if not partitions:
            return {}
        admin = AIOKafkaAdminClient(**aiokafka_options(self._settings.kafka))
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(self._group, partitions=partitions)
        finally:
            await admin.close()
        return {where: _parse_clock(found.get(where)) for where in partitions}

    async def _partitions(self, names: list[str]) -> dict[str, int]:
        admin = AIOKafkaAdminClient(**aiokafka_options(self._settings.kafka))
        try:
            await admin.start()
            described = await admin.describe_topics(names)
        finally:
            await admin.close()
        counts = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
        if missing := [name for name in names if not counts.get(name)]:
            raise TopicMismatch(
                f"raw topic {missing[0]!r} does not exist; create it, or run `trustwatch topics create`"
            )
        return counts


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the service which raw partitions it has."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._ingest.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing: `_open_new` looks for itself."""


def _source(where: TopicPartition) -> str:
    return f"{where.topic}/{where.partition}"


def _age_s(polled_ms: int | None) -> float:
    """Seconds since the broker last answered for a partition; clocks may have been set back."""
    return math.inf if polled_ms is None else max(0.0, time.time() - polled_ms / 1000)


def _headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, bytes]:
    """Kafka headers by their names in lower case; of several with one name the last counts, one without value none."""
    return {name.lower(): value for name, value in headers if value is not None}


def _written(timestamp_ms: int) -> float | None:
    """When a message was written, seconds; brokers say -1 where they do not know."""
    return timestamp_ms / 1000 if timestamp_ms > 0 else None


def _parse_clock(committed: Any) -> tuple[int, float]:
    """Offset and clock of a committed offset; one that others wrote has no clock, and the source starts anew."""
    if committed is None or committed.offset < 0:
        return -1, NEVER
    try:
        return committed.offset, float(committed.metadata)
    except (TypeError, ValueError):
        log.warning(
            "ingest: committed offset %d carries no clock; the source's watermark starts anew", committed.offset
        )
        return committed.offset, NEVER
