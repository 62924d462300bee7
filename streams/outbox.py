"""The one producer of a worker: idempotent where the broker can, acknowledged by all in-sync replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from mode import Service

from streams.kafka import aiokafka_options
from streams.settings import Settings
from streams.stage import Record


class Outbox(Service):  # type: ignore[misc]
    """Owns the producer; whoever sends waits until it is connected.

    Args:
        settings: connection and sizes.
    """

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._connected = asyncio.Event()
        self._producer: AIOKafkaProducer | None = None

    async def on_start(self) -> None:
        """Connect."""
        kafka = self._settings.kafka
        self._producer = AIOKafkaProducer(
            **aiokafka_options(kafka), acks="all", enable_idempotence=kafka.idempotent,
            max_request_size=self._settings.topics.max_message_bytes, max_batch_size=1_000_000,
        )  # fmt: skip
        await self._producer.start()
        self._connected.set()

    async def on_stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def producer(self) -> AIOKafkaProducer:
        """The producer, once it is connected."""
        await self._connected.wait()
        assert self._producer is not None
        return self._producer

    async def send(self, records: Iterable[Record]) -> None:
        """Send messages and wait until all of them are durable; raises the first KafkaError."""
        producer = await self.producer()
        futures = [
            await producer.send(record.topic, value=record.value, key=record.key or None, partition=record.partition)
            for record in records
        ]
        if futures:
            await asyncio.gather(*futures)
