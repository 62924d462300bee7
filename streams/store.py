"""Checkpoints in Kafka. Acknowledged means: on all in-sync replicas."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.checkpoints import Checkpoint, chunks_in_use, from_records, to_records

STRAYS_AFTER_S: Final = 600.0
"""Chunks without a head may belong to a former owner that is just about to write it: they go only so long after."""


class CheckpointStore:
    """Reads and writes the checkpoints of one stage.

    Args:
        topic: compacted topic with as many partitions as the stage's source.
        options: connection settings of aiokafka.
        producer: gives the producer, with acks=all, once it is connected.
        chunk_bytes: largest record.
    """

    def __init__(
        self, topic: str, options: dict[str, Any], producer: Callable[[], Awaitable[AIOKafkaProducer]], chunk_bytes: int
    ) -> None:
        self._topic = topic
        self._options = options
        self._producer = producer
        self._chunk_bytes = chunk_bytes
        self._chunks: dict[int, list[bytes]] = {}
        self._strays: dict[int, tuple[float, list[bytes]]] = {}

    async def load(self, partition: int) -> Checkpoint | None:
        """The last durable checkpoint of a partition; None if there is none.

        Raises:
            CheckpointRefused: it is damaged.
        """
        records = await read_compacted(self._topic, partition, self._options)
        self._chunks[partition], strays = chunks_in_use(records)
        self._strays[partition] = (time.monotonic(), strays)
        return from_records(records, f"{self._topic}[{partition}]")

    async def save(self, partition: int, checkpoint: Checkpoint) -> int:
        """Write a checkpoint; returns its size in bytes once it is durable."""
        *chunks, head = to_records(checkpoint, secrets.token_hex(6), self._chunk_bytes)
        for future in [await self._send(partition, *record) for record in chunks]:
            await future
        await (await self._send(partition, *head))
        # The new head is durable: nothing refers to the old chunks any more.
        old = self._chunks.get(partition, []) + self._old_strays(partition)
        for future in [await self._send(partition, key, None) for key in old]:
            await future
        self._chunks[partition] = [key for key, _ in chunks]
        return len(checkpoint.state)

    def _old_strays(self, partition: int) -> list[bytes]:
        """Chunks that crashes left, once nobody can still be about to name them in a head."""
        since, strays = self._strays.get(partition, (0.0, []))
        if not strays or time.monotonic() - since < STRAYS_AFTER_S:
            return []
        del self._strays[partition]
        return strays

    async def _send(self, partition: int, key: bytes, value: bytes | None) -> Any:
        producer = await self._producer()
        return await producer.send(self._topic, value=value, key=key, partition=partition)


async def read_compacted(topic: str, partition: int, options: dict[str, Any]) -> dict[bytes, bytes]:
    """The newest value of each key of one partition.

    Reads until the end offset and then until a fetch comes back empty, because the embedded broker understates the end.
    """
    consumer = AIOKafkaConsumer(
        **options, enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=16_000_000
    )
    await consumer.start()
    try:
        where = TopicPartition(topic, partition)
        consumer.assign([where])
        await consumer.seek_to_beginning(where)
        end = (await consumer.end_offsets([where]))[where]
        records: dict[bytes, bytes] = {}
        while True:
            fetched = (await consumer.getmany(where, timeout_ms=300)).get(where, [])
            for record in fetched:
                if record.value is None:
                    records.pop(record.key, None)
                else:
                    records[record.key] = record.value
            if not fetched and await consumer.position(where) >= end:
                return records
    finally:
        await consumer.stop()
