"""Faust's consumer, guided by our state: it reads on where the units are, and commits what their checkpoints cover.

Faust counts acknowledged messages to know what to commit, drops messages that it thinks it has read, and after a
rebalance goes back to what was committed. All of that is right for agents without state of their own; here the state
knows better, so that a commit is only a hint for those who look at lag, and a failed one no reason to stop:

- what is committed: the offset behind the last durable checkpoint, never more;
- where it reads: behind the offset of each unit, whatever was committed;
- nothing is dropped for having been read: `ExactStage` skips what it has by its offset.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from time import monotonic
from typing import Any, Final

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalOperation, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP
from faust.types import TP

from streams.patience import patiently

COMMIT_S: Final = 2.0
"""A commit that takes longer is given up: the next one says more."""
log = logging.getLogger(__name__)
Offsets = Callable[[], Mapping[TP, int]]


class ExactApp(faust.App):  # type: ignore[misc]
    """A Faust app with our consumer.

    Attributes:
        durable: tells which offsets may be committed.
        next: tells at which offsets to read on.
        stopping: called when it begins to stop.
    """

    durable: Offsets
    next: Offsets
    stopping: Callable[[], None] | None = None

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    async def on_stop(self) -> None:
        """Stop."""
        if self.stopping is not None:
            self.stopping()
        await super().on_stop()


class _Thread(AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that owns the connection."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit what is still ours; Faust would stop the worker if that failed."""
        consumer, ours = self._ensure_consumer(), self.assignment()
        mine = {ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in ours}
        if not mine:
            return False
        try:
            await asyncio.wait_for(consumer.commit(mine), COMMIT_S)
        except (KafkaError, IllegalOperation, ConsumerStoppedError, TimeoutError) as error:
            log.info("offsets not committed (%r); the next checkpoint's will be", error)
            return False
        self.tp_last_committed_at.update(dict.fromkeys(mine, monotonic()))
        return True


class _Consumer(Consumer):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NothingRead()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def _filter_committable_offsets(self, _tps: Iterable[TP]) -> dict[TP, int]:
        """What checkpoints cover and was not committed yet; Faust's own lists of what was acknowledged are dropped."""
        for kept in (self._acked, self._acked_index, self._gap):
            kept.clear()
        return {tp: offset for tp, offset in self.app.durable().items() if self._should_commit(tp, offset)}

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        did: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if not did:  # Faust notes them as committed all the same; so they are tried again
            for tp in offsets:
                self._committed_offset.pop(tp, None)
        return did

    async def perform_seek(self) -> None:
        """Read on behind the units; the partitions that are still being loaded are put right when they are."""
        for tp, offset in self.app.next().items():
            await self.seek(tp, offset)

    async def seek(self, partition: TP, offset: int) -> None:
        """Read on at an offset; nothing happens if the partition is not ours any more."""
        try:
            # In the thread that owns the connection; Faust calls it from outside.
            await self._thread.call_thread(self._thread._ensure_consumer().seek, ensure_aiokafka_TP(partition), offset)
        except (IllegalStateError, ConsumerNotStarted) as error:
            log.info("%s[%d]: not put to %d: %r", partition.topic, partition.partition, offset, error)


class _Transport(Transport):  # type: ignore[misc]
    Consumer = _Consumer


class _NothingRead(MutableMapping[Any, None]):
    """For Faust's note of how far it has read each partition: it would drop messages that come again after a seek."""

    def __getitem__(self, _tp: Any) -> None:
        return None

    def __setitem__(self, _tp: Any, _offset: Any) -> None:
        pass

    def __delitem__(self, _tp: Any) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


class FaustSource:
    """The topic of a stage, through the consumer that Faust owns.

    Args:
        app: its app.
        topic: the topic.
        options: connection settings of aiokafka.
    """

    def __init__(self, app: faust.App, topic: str, options: dict[str, Any]) -> None:
        self._app = app
        self._topic = topic
        self._options = options

    async def beginnings(self, partitions: Collection[int]) -> dict[int, int]:
        """Partition → the first offset that the log still holds."""
        return await patiently(lambda: self._beginnings(partitions), f"asking where {self._topic} begins")

    async def seek(self, partition: int, offset: int) -> None:
        """Read again from an offset."""
        await self._app.consumer.seek(TP(self._topic, partition), offset)

    def end(self, partition: int) -> int | None:
        """The offset that the next message will get; None if not known."""
        try:
            end: int | None = self._app.consumer.highwater(TP(self._topic, partition))
        except (ConsumerNotStarted, AssertionError):  # starting, or just revoked: a scrape must not fail then
            return None
        return end

    async def _beginnings(self, partitions: Collection[int]) -> dict[int, int]:
        # On a connection of its own: on Faust's the question would wait behind a fetch that waits for messages.
        consumer = AIOKafkaConsumer(**self._options, enable_auto_commit=False)
        try:
            await consumer.start()
            found = await consumer.beginning_offsets([TopicPartition(self._topic, number) for number in partitions])
        finally:
            await consumer.stop()
        return {where.partition: int(offset) for where, offset in found.items()}
