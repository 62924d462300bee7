"""Checkpoints in Kafka. Acknowledged means: on all in-sync replicas."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.checkpoints import Checkpoint, chunks_in_use, from_records, to_records
from streams.errors import CheckpointRefused
from streams.patience import patiently
from streams.stage import Record

STRAYS_AFTER_S: Final = 600.0
"""Chunks without a head may belong to a former owner that is just about to write it: they go only so long after."""
QUIET_MS: Final = 300
"""A partition is read to its end when nothing more came for so long: the embedded broker understates the end."""


Send = Callable[[Iterable[Record]], Awaitable[None]]
"""Sends records in order and returns when all are durable."""


Found = Checkpoint | CheckpointRefused | None


class CheckpointStore:
    """Reads and writes the checkpoints of one stage.

    Args:
        topic: compacted topic with as many partitions as the stage's source.
        options: connection settings of aiokafka.
        send: sends records and returns when they are durable.
        chunk_bytes: largest record.
        key: of the digests, see `streams.checkpoints`.
        former: the key before, while it is still valid.
    """

    def __init__(
        self, topic: str, options: dict[str, Any], send: Send, chunk_bytes: int, key: bytes, former: bytes | None = None
    ) -> None:
        self._topic = topic
        self._options = options
        self._send = send
        self._chunk_bytes = chunk_bytes
        self._key = key
        self._former = former
        self._chunks: dict[int, list[bytes]] = {}
        self._strays: dict[int, tuple[float, list[bytes]]] = {}

    async def load(self, partitions: Collection[int]) -> AsyncIterator[tuple[int, Found]]:
        """The last durable checkpoint of each partition: None if there is none, the reason if it is damaged.

        All partitions are read at once. However long the broker is away, they are read in the end.
        """
        found = await patiently(
            lambda: read_compacted(self._topic, partitions, self._options), f"reading the checkpoints in {self._topic}"
        )
        for partition in partitions:
            records = found.pop(partition)
            self._chunks[partition], strays = chunks_in_use(records)
            self._strays[partition] = (time.monotonic(), strays)
            try:
                yield partition, from_records(records, self._where(partition), self._key, self._former)
            except CheckpointRefused as refused:
                yield partition, refused

    async def save(self, partition: int, checkpoint: Checkpoint) -> int:
        """Write a checkpoint; returns its size in bytes once it is durable."""
        name = secrets.token_hex(6)
        where = self._where(partition)
        *chunks, head = to_records(checkpoint, name, self._chunk_bytes, where, self._key, self._former)
        began = time.time()
        await self._write(partition, chunks)
        if time.time() - began > STRAYS_AFTER_S / 2:  # frozen meanwhile: another owner may have taken them for strays
            await self._write(partition, chunks)
        await self._write(partition, [head])
        # The new head is durable: nothing refers to the old chunks any more.
        old = self._chunks.get(partition, []) + self._old_strays(partition)
        await self._write(partition, [(key, None) for key in old])
        self._chunks[partition] = [key for key, _ in chunks]
        return len(checkpoint.state)

    def _old_strays(self, partition: int) -> list[bytes]:
        """Chunks that crashes left, once nobody can still be about to name them in a head."""
        since, strays = self._strays.get(partition, (0.0, []))
        if not strays or time.monotonic() - since < STRAYS_AFTER_S:
            return []
        del self._strays[partition]
        return strays

    async def _write(self, partition: int, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        await self._send([Record(self._topic, partition, key, value) for key, value in pairs])

    def _where(self, partition: int) -> str:
        return place(self._topic, partition)


def place(topic: str, partition: int) -> str:
    """How messages and digests name a partition."""
    return f"{topic}[{partition}]"


async def read_compacted(
    topic: str, partitions: Collection[int], options: dict[str, Any]
) -> dict[int, dict[bytes, bytes]]:
    """The newest value of each key of these partitions, read by one consumer.

    Reads until the end offset and then until a fetch comes back empty, because the embedded broker understates the end.
    """
    consumer = AIOKafkaConsumer(
        **options, enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=16_000_000
    )
    try:
        await consumer.start()
        where = [TopicPartition(topic, partition) for partition in partitions]
        consumer.assign(where)
        await consumer.seek_to_beginning(*where)
        ends = await consumer.end_offsets(where)
        newest: dict[int, dict[bytes, bytes]] = {partition: {} for partition in partitions}
        while True:
            fetched = await consumer.getmany(timeout_ms=QUIET_MS)
            for at, records in fetched.items():
                _replay(records, newest[at.partition])
            if not fetched and all([await consumer.position(one) >= ends[one] for one in where]):
                return newest
    finally:
        await consumer.stop()


def _replay(records: Iterable[Any], newest: dict[bytes, bytes]) -> None:
    for record in records:
        if record.value is None:
            newest.pop(record.key, None)
        else:
            newest[record.key] = record.value
