"""Checkpoints: (offset of the last applied message, state) of each partition, in a compacted topic.

A checkpoint is one head record that names its chunks. Chunks go alternately to two slots and the head is written after
them, so a crash at any moment leaves the previous checkpoint whole. Acknowledged means: on all in-sync replicas.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.errors import CheckpointRefused
from streams.frames import UNREADABLE

HEAD: Final = b"head"
log = logging.getLogger(__name__)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """The record that makes a checkpoint valid.

    Attributes:
        offset: offset of the last message whose effects the state holds.
        slot: which of the two sets of chunks.
        chunks: number of chunks; 0 if the state is in `inline`.
        digest: BLAKE2b of the state.
        inline: the state itself, if it fits into one record.
    """

    offset: int
    slot: int
    chunks: int
    digest: bytes
    inline: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    """A state and the offset that it stands for."""

    offset: int
    state: bytes


_HEADS: Final = msgspec.msgpack.Decoder(Head)


def to_records(checkpoint: Checkpoint, slot: int, chunk_bytes: int) -> list[tuple[bytes, bytes]]:
    """The (key, value) records of a checkpoint, in the order in which they must become durable; the head is last."""
    state = checkpoint.state
    digest = blake2b(state, digest_size=16).digest()
    if len(state) <= chunk_bytes:
        return [(HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, slot, 0, digest, state)))]
    chunks = [state[start : start + chunk_bytes] for start in range(0, len(state), chunk_bytes)]
    records = [(chunk_key(slot, index), chunk) for index, chunk in enumerate(chunks)]
    return [*records, (HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, slot, len(chunks), digest, b"")))]


def from_records(records: dict[bytes, bytes], where: str) -> tuple[Checkpoint, int] | None:
    """The checkpoint that the newest records hold, and its slot; None if there is none.

    Raises:
        CheckpointRefused: the records are truncated or were tampered with.
    """
    if HEAD not in records:
        return None
    try:
        head = _HEADS.decode(records[HEAD])
        chunks = [records[chunk_key(head.slot, index)] for index in range(head.chunks)]
    except (*UNREADABLE, KeyError) as error:
        raise CheckpointRefused(f"{where}: checkpoint is truncated or no checkpoint: {error!r}") from error
    state = b"".join(chunks) if head.chunks else head.inline
    if blake2b(state, digest_size=16).digest() != head.digest:
        raise CheckpointRefused(f"{where}: checkpoint does not match its digest")
    return Checkpoint(head.offset, state), head.slot


def chunk_key(slot: int, index: int) -> bytes:
    """Key of one chunk."""
    return f"{slot}/{index}".encode()


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
