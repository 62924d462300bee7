"""Checkpoints in Kafka. Acknowledged means: on all in-sync replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.checkpoints import Checkpoint, from_records, to_records


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
        self._slots: dict[int, int] = {}

    async def load(self, partition: int) -> Checkpoint | None:
        """The last durable checkpoint of a partition; None if there is none.

        Raises:
            CheckpointRefused: it is damaged.
        """
        records = await read_compacted(self._topic, partition, self._options)
        found = from_records(records, f"{self._topic}[{partition}]")
        if found is None:
            return None
        checkpoint, self._slots[partition] = found
        return checkpoint

    async def save(self, partition: int, checkpoint: Checkpoint) -> int:
        """Write a checkpoint; returns its size in bytes once it is durable."""
        slot = 1 - self._slots.get(partition, 1)
        *chunks, head = to_records(checkpoint, slot, self._chunk_bytes)
        for future in [await self._send(partition, *record) for record in chunks]:
            await future
        await (await self._send(partition, *head))
        if chunks:
            self._slots[partition] = slot
        return len(checkpoint.state)

    async def _send(self, partition: int, key: bytes, value: bytes) -> Any:
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
