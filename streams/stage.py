"""One stage of the live line, exact: apply, send, checkpoint, then acknowledge.

`ExactStage` is the only place that knows how a pure state machine (a `Unit`, one per partition) becomes exact on Kafka:

1. a batch of messages is applied to the units of its partitions;
2. what they gave is sent, and awaited;
3. the units' states are checkpointed with the offset they stand for, and awaited;
4. only then are the messages acknowledged.

On start and after a rebalance the checkpoint is loaded, messages at or below its offset are skipped, and a gap (offsets
committed past our state) is closed by seeking back. So after SIGKILL the state is that of an uninterrupted run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from streams.checkpoints import Checkpoint
from streams.errors import CheckpointRefused
from streams.store import CheckpointStore

SEEK_EVERY_S: Final = 5.0
SEEK_TRIES: Final = 3
log = logging.getLogger(__name__)


class Record(msgspec.Struct, frozen=True):
    """One message to send."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes


class Unit(Protocol):
    """The state machine of one partition."""

    def take(self, value: bytes, offset: int) -> list[Record]:
        """Apply one message; returns what is to be sent. Never raises for bad input."""

    def snapshot(self) -> bytes:
        """The state as data."""

    def restore(self, blob: bytes) -> None:
        """Take up a state; raises CheckpointRefused."""


class Source(Protocol):
    """The topic that a stage reads."""

    async def beginning(self, partition: int) -> int:
        """The first offset that the log still holds."""

    async def seek(self, partition: int, offset: int) -> None:
        """Read again from an offset."""

    def end(self, partition: int) -> int | None:
        """The offset that the next message will get; None if not known."""


class Slot(msgspec.Struct):
    """A unit and how far it is.

    Attributes:
        unit: the state machine.
        offset: last offset applied; -1 before the first.
        seeks: seeks made to close the gap that is open.
        sought: where the last one went.
        sought_at: when it was made, monotonic seconds.
        saved_at: when the last checkpoint became durable, seconds since the epoch; 0 before the first.
        size_bytes: size of that checkpoint.
    """

    unit: Any
    offset: int = -1
    seeks: int = 0
    sought: int = 0
    sought_at: float = 0.0
    saved_at: float = 0.0
    size_bytes: int = 0


class StageStats(msgspec.Struct):
    """Counters of one stage since the process started, for metrics."""

    batches: int = 0
    messages: int = 0
    skipped: int = 0
    gaps: int = 0
    seeks: int = 0
    resets: int = 0
    checkpoints: int = 0
    busy_s: float = 0.0
    checkpoint_s: float = 0.0


class ExactStage:
    """Runs the units of the partitions that this worker owns.

    Args:
        name: for logs and metrics.
        make: makes the unit of a partition.
        store: its checkpoints.
        send: sends records and returns when they are durable.
        source: the source topic: where its log begins and ends, and how to read it again.
        latency: told, for each batch, the seconds from its oldest message to its durable effects.

    Attributes:
        slots: partition → unit and progress; what this worker owns and has touched.
        stats: counters for metrics.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Unit],
        store: CheckpointStore,
        send: Callable[[Iterable[Record]], Awaitable[None]],
        source: Source,
        latency: Callable[[float], None],
    ) -> None:
        self.name = name
        self.slots: dict[int, Slot] = {}
        self.stats = StageStats()
        self._make = make
        self._store = store
        self._send = send
        self._source = source
        self._latency = latency

    async def run(self, batch: Sequence[Any]) -> None:
        """Handle one batch of Faust events, and acknowledge them when their effects are durable."""
        began = time.monotonic()
        touched: set[int] = set()
        work: list[tuple[Unit, bytes, int]] = []
        for event in batch:
            message = event.message
            slot = await self._slot(message.partition)
            if await self._is_next(slot, message.partition, message.offset):
                work.append((slot.unit, event.value, message.offset))
                slot.offset = message.offset
                touched.add(message.partition)
        # In a thread: heartbeats, ingest and metrics go on while a long batch is applied.
        await self._send(await asyncio.to_thread(_apply, work))
        self.stats.messages += len(work)
        await self._checkpoint(touched)
        for event in batch:
            event.ack()
        self.stats.batches += 1
        self.stats.busy_s += time.monotonic() - began
        if batch:
            self._latency(max(0.0, time.time() - min(event.message.timestamp for event in batch)))

    def behind(self, partition: int) -> int:
        """Messages of a partition that are not applied yet, as far as the consumer knows."""
        end, slot = self._source.end(partition), self.slots.get(partition)
        return 0 if end is None or slot is None else max(0, end - slot.offset - 1)

    def release(self, partitions: Iterable[int]) -> None:
        """Forget partitions that another worker owns now; their state is in their checkpoints."""
        for partition in partitions:
            self.slots.pop(partition, None)

    async def _slot(self, partition: int) -> Slot:
        slot = self.slots.get(partition)
        if slot is None:
            slot = self.slots[partition] = await self._load(partition)
        return slot

    async def _load(self, partition: int) -> Slot:
        slot = Slot(self._make(partition))
        try:
            checkpoint = await self._store.load(partition)
            if checkpoint is not None:
                await asyncio.to_thread(slot.unit.restore, checkpoint.state)
                slot.offset = checkpoint.offset
                slot.size_bytes = len(checkpoint.state)
                log.info("%s[%d]: resumed at offset %d", self.name, partition, checkpoint.offset)
        except CheckpointRefused as refused:
            # A fresh unit replays the log from its beginning, as far as retention reaches.
            self.stats.resets += 1
            slot = Slot(self._make(partition))
            log.error("%s; %s[%d] starts afresh from the log", refused, self.name, partition)
        return slot

    async def _is_next(self, slot: Slot, partition: int, offset: int) -> bool:
        if offset <= slot.offset:
            self.stats.skipped += 1
            return False
        if offset == slot.offset + 1:
            slot.seeks = 0
            return True
        return await self._close_gap(slot, partition, offset)

    async def _close_gap(self, slot: Slot, partition: int, offset: int) -> bool:
        """Whether to go on at an offset that does not follow; if not, seek back to what is missing."""
        now = time.monotonic()
        if slot.seeks and now - slot.sought_at < SEEK_EVERY_S and offset != slot.sought:
            self.stats.skipped += 1  # fetched before the seek
            return False
        slot.sought = max(slot.offset + 1, await self._source.beginning(partition))
        if offset == slot.sought or slot.seeks >= SEEK_TRIES:
            self._accept_gap(slot, partition, offset)
            return True
        slot.seeks += 1
        slot.sought_at = now
        self.stats.seeks += 1
        self.stats.skipped += 1
        log.warning(
            "%s[%d]: offset %d follows %d, seeking to %d", self.name, partition, offset, slot.offset, slot.sought
        )
        await self._source.seek(partition, slot.sought)
        return False

    def _accept_gap(self, slot: Slot, partition: int, offset: int) -> None:
        slot.seeks = 0
        if slot.offset >= 0 or offset > slot.sought:
            self.stats.gaps += 1
            log.error("%s[%d]: offsets %d to %d are gone from the log; their events are lost to this state",
                      self.name, partition, slot.offset + 1, offset - 1)  # fmt: skip

    async def _checkpoint(self, partitions: Iterable[int]) -> None:
        began = time.monotonic()
        for partition in sorted(partitions):
            slot = self.slots.get(partition)
            if slot is not None:  # released while we waited for the broker: its next owner replays
                state = await asyncio.to_thread(slot.unit.snapshot)
                slot.size_bytes = await self._store.save(partition, Checkpoint(slot.offset, state))
                slot.saved_at = time.time()
                self.stats.checkpoints += 1
        self.stats.checkpoint_s += time.monotonic() - began


def _apply(work: list[tuple[Unit, bytes, int]]) -> list[Record]:
    return [record for unit, value, offset in work for record in unit.take(value, offset)]
