"""The one producer of a worker: idempotent where the broker can, acknowledged by all in-sync replicas.

Who sends waits until all is durable, however long the broker is away: nothing is given up, nothing overtakes. Order
matters downstream (counts with a lower offset than the last are taken for repeats), so the producer never lets a
message expire by itself, and after an error that only a new producer cures, the whole list is sent again from its
beginning. Repeats are recognised downstream; what overtook would not be.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed
from mode import Service

from streams.kafka import aiokafka_options
from streams.patience import FINAL, patiently, pauses, refused
from streams.settings import Settings
from streams.stage import Record

STALL_S: Final = 3.0
"""A write that takes longer than this is told: the broker is away, or refuses writes."""
CLOSE_S: Final = 3.0
log = logging.getLogger(__name__)


class Outbox(Service):  # type: ignore[misc]
    """Owns the producer; whoever sends waits until it is connected.

    Args:
        settings: connection and sizes.

    Attributes:
        retries: times that a write had to be made again, or waited for another `STALL_S`.
    """

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._connected = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self._since: dict[int, float] = {}
        self._stalled_at: float | None = None
        self.retries = 0

    async def on_start(self) -> None:
        """Connect."""
        self._producer = await self._connect()
        self._connected.set()

    async def on_stop(self) -> None:
        """Flush and disconnect; not longer than `CLOSE_S` if the broker is away."""
        if self._producer is not None:
            await _close(self._producer)

    @property
    def waiting_s(self) -> float:
        """How long the oldest write waits by now, seconds; 0 if none does."""
        return max((time.monotonic() - since for since in list(self._since.values())), default=0.0)

    async def producer(self) -> AIOKafkaProducer:
        """The producer, once it is connected."""
        await self._connected.wait()
        assert self._producer is not None
        return self._producer

    async def send(self, records: Iterable[Record]) -> None:
        """Send messages, in order, and return when all of them are durable, however long that takes.

        Raises:
            KafkaRefused: Kafka said no for good.
        """
        wanted = list(records)
        if not wanted:
            return
        mark, pause = object(), pauses()
        self._since[id(mark)] = time.monotonic()
        try:
            while True:
                producer = await self.producer()
                try:
                    await self._deliver(producer, wanted)
                    break
                except FINAL as error:
                    raise refused(error, f"cannot write to {', '.join(sorted({r.topic for r in wanted}))}") from error
                except KafkaError as error:
                    self._tell_stall(repr(error))
                    await asyncio.sleep(pause())
                    await self._renew(producer)
            self._tell_recovery()
        finally:
            del self._since[id(mark)]

    async def _deliver(self, producer: AIOKafkaProducer, records: list[Record]) -> None:
        """Send once, in order; raises the first error when each message is either durable or given up.

        Whoever cancels is not kept waiting: what was handed over may become durable all the same.
        """
        futures: list[asyncio.Future[Any]] = []
        failed: list[BaseException] = []
        try:
            for record in records:
                futures.append(await self._put(producer, record))
        except KafkaError as error:
            failed.append(error)
        await self._settle(futures, failed, "messages")

    async def _settle(self, futures: Collection[asyncio.Future[Any]], failed: list[BaseException], what: str) -> None:
        """Wait until each is either durable or given up; raises the first error, of those before or of these."""
        left = set(futures)
        while left:
            _, left = await asyncio.wait(left, timeout=STALL_S)
            if left:
                self._tell_stall(f"{len(left)} {what} not acknowledged")
        failed += [failure for future in futures if (failure := future.exception()) is not None]
        if failed:
            raise failed[0]

    async def _put(self, producer: AIOKafkaProducer, record: Record) -> asyncio.Future[Any]:
        """Hand a message to the producer; an error here means that it did not take it, so that it is tried again."""
        pause = pauses()
        while True:
            try:
                future: asyncio.Future[Any] = await producer.send(
                    record.topic, value=record.value, key=record.key or None, partition=record.partition
                )
                return future
            except (*FINAL, ProducerClosed):
                raise
            except KafkaError as error:
                if producer._sender.sender_task.done():  # the producer is dead, see aiokafka's Sender._fail_all
                    raise
                self._tell_stall(repr(error))
                await asyncio.sleep(pause())

    async def _renew(self, old: AIOKafkaProducer) -> None:
        """Replace a producer that has failed; once, however many were waiting for it."""
        async with self._renewing:
            current: Any = self._producer
            if current is not old:
                return
            self._connected.clear()
            # Whoever waits for the old one sends again through the new one, so nothing of the old may come after that.
            old._message_accumulator.fail_all(ProducerClosed())
            await _close(old)
            self._producer = await patiently(self._connect, "kafka producer")
            self._connected.set()

    async def _connect(self) -> AIOKafkaProducer:
        kafka = self._settings.kafka
        producer = AIOKafkaProducer(
            **aiokafka_options(kafka), acks="all", enable_idempotence=kafka.idempotent,
            max_request_size=self._settings.topics.max_message_bytes, max_batch_size=1_000_000,
        )  # fmt: skip
        # A message that expired after `request_timeout_ms` could be overtaken by the next; so none ever expires.
        producer._message_accumulator._batch_ttl = math.inf
        try:
            await producer.start()
        except BaseException:
            await _close(producer)
            raise
        return producer

    def _tell_stall(self, why: str) -> None:
        self.retries += 1
        if self._stalled_at is None:
            self._stalled_at = time.monotonic()
            log.warning("kafka does not take our writes (%s); waiting, nothing is lost", why)

    def _tell_recovery(self) -> None:
        if self._stalled_at is not None:
            log.info("kafka takes our writes again, after %.0f s", time.monotonic() - self._stalled_at)
            self._stalled_at = None


async def _close(producer: AIOKafkaProducer) -> None:
    try:
        await asyncio.wait_for(producer.stop(), CLOSE_S)
    except (KafkaError, TimeoutError, OSError) as error:
        log.warning("kafka producer: not closed in order: %r", error)
        if producer._sender.sender_task is not None:
            producer._sender.sender_task.cancel()
        with suppress(KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(producer.client.close(), CLOSE_S)
