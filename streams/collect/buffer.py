"""What waits for Kafka: one group commit after the other, so that whoever was answered is durable.

While one list is on its way, what comes meanwhile gathers to the next; so the lists grow with the load, each person's
events stay in order, and a request waits for two round trips at most. `streams.outbox` sends: patiently, however long
the broker is away, and again from the beginning where a new producer is needed. A request does not wait that long: it
is answered 503 after `ack_timeout_s`, and what was not yet handed to Kafka is forgotten; what was may still become
durable, and its repeat is recognised downstream by its id.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from random import randrange
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.collect.asked import Message, Refused, busy
from streams.errors import KafkaRefused
from streams.formats import FORMAT_HEADER
from streams.outbox import STALL_S, Outbox
from streams.stage import Record

COMMIT_BYTES: Final = 8_000_000
"""Most bytes in one list: about what a broker takes in a tenth of a second."""
SOON_S: Final = 0.005
"""A list waits so long for others: what Kafka's client does for one costs as much as 50 messages."""
REFUSED_S: Final = 30.0
log = logging.getLogger(__name__)


class Envelope(Record, frozen=True):
    """A record with headers."""

    headers: list[tuple[str, bytes]] = msgspec.field(default_factory=list)


class Outgoing(Outbox):
    """An outbox that packs its records into batches itself: a tenth of what sending them one by one costs."""

    async def _deliver(self, producer: AIOKafkaProducer, records: list[Record]) -> None:
        """Send once, in order; raises the first error when each batch is either durable or given up."""
        futures: list[asyncio.Future[Any]] = []
        failed: list[BaseException] = []
        try:
            counts = {topic: len(await producer.partitions_for(topic)) for topic in {one.topic for one in records}}
            for topic, partition, batch in _packed(producer, records, counts):
                futures.append(await producer.send_batch(batch, topic, partition=partition))
        except KafkaError as error:
            failed.append(error)
        await self._settle(futures, failed, "batches")


def _packed(
    producer: AIOKafkaProducer, records: Iterable[Record], counts: Mapping[str, int]
) -> list[tuple[str, int, Any]]:
    """Topic, partition and batch, in the order in which they are to be sent; `counts` are partitions by topic."""
    full: list[tuple[str, int, Any]] = []
    filling: dict[tuple[str, int], Any] = {}
    for record in records:
        count = counts[record.topic]
        where = record.topic, (int(record.key, 16) if record.key else randrange(count)) % count
        headers = record.headers if isinstance(record, Envelope) else []
        while True:
            batch = filling.get(where)
            if batch is None:
                batch = filling[where] = producer.create_batch()
            if batch.append(timestamp=None, key=record.key or None, value=record.value, headers=headers) is not None:
                break
            full.append((*where, filling.pop(where)))
    return full + [(*where, batch) for where, batch in filling.items()]


class Held:
    """The events of one request, and who waits for them."""

    __slots__ = ("done", "handed_over", "records", "size")

    def __init__(self, records: list[Envelope], size: int, done: asyncio.Future[None]) -> None:
        self.records = records
        self.size = size
        self.done = done
        self.handed_over = False


class Buffer:
    """Takes the events of requests and says when they are durable.

    Args:
        outbox: sends.
        ack_timeout_s: longest wait of a request, seconds.
        on_ack: told the seconds that each list took.

    Attributes:
        bytes: of events that wait or are on their way.
    """

    def __init__(self, outbox: Outbox, ack_timeout_s: float, on_ack: Callable[[float], object]) -> None:
        self._outbox = outbox
        self._ack_timeout_s = ack_timeout_s
        self._on_ack = on_ack
        self._waiting: list[Held] = []
        self._sending: list[Held] = []
        self._wake = asyncio.Event()
        self.bytes = 0
        self._refused: str | None = None
        self._refused_at = -math.inf

    @property
    def refuses(self) -> bool:
        """Whether Kafka said no for good just now; not for longer, or a probe would keep away what could show else."""
        return time.monotonic() - self._refused_at < REFUSED_S

    @property
    def stalled(self) -> bool:
        """Whether Kafka has not taken anything for some seconds."""
        return self._outbox.waiting_s > STALL_S

    async def put(self, messages: Sequence[Message], topic: str, headers: list[tuple[str, bytes]]) -> None:
        """Return when all of it is on all in-sync replicas.

        Raises:
            Refused: 503, Kafka does not take it now; 413, it takes none so large.
        """
        if self._outbox.waiting_s > self._ack_timeout_s:
            raise busy("kafka_away", "Kafka does not answer")
        records = [Envelope(topic, None, order_key(one.person), one.value, headers) for one in messages]
        size = sum([len(one.value) for one in messages])
        loop = asyncio.get_running_loop()
        held = Held(records, size, loop.create_future())
        self._waiting.append(held)
        self.bytes += size
        self._wake.set()
        timer = loop.call_later(self._ack_timeout_s, self._give_up, held)
        try:
            await held.done
        finally:
            timer.cancel()

    async def run(self) -> None:
        """Send list after list, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(SOON_S)
            batch = self._next()
            if not batch:
                continue
            began = time.perf_counter()
            self._sending = batch
            await self._commit(batch)
            self._on_ack(time.perf_counter() - began)

    async def drain(self, within_s: float) -> bool:
        """Wait until nothing waits any more; whether that came in time."""
        deadline = time.monotonic() + within_s
        while self.bytes and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return not self.bytes

    def abandon(self) -> None:
        """Tell all who still wait that nothing was acknowledged."""
        for held in (*self._waiting, *self._sending):
            if not held.done.done():
                held.done.set_exception(busy("ending", "this collector ends; another takes its place"))

    def _next(self) -> list[Held]:
        batch: list[Held] = []
        size = 0
        for held in self._waiting:
            if batch and size + held.size > COMMIT_BYTES:
                break
            held.handed_over = True
            batch.append(held)
            size += held.size
        del self._waiting[: len(batch)]
        if not self._waiting:
            self._wake.clear()
        return batch

    async def _commit(self, batch: list[Held]) -> None:
        try:
            await self._outbox.send([record for held in batch for record in held.records])
        except KafkaRefused as refused:
            if len(batch) > 1:  # one of them may be to blame: the others must not suffer for it
                for held in batch:
                    await self._commit([held])
                return
            self._settle(batch[0], self._say_no(refused))
            return
        self._refused, self._refused_at = None, -math.inf
        for held in batch:
            self._settle(held)

    def _say_no(self, refused: KafkaRefused) -> Refused:
        if "TooLarge" in str(refused):
            return Refused(413, "too_large", "larger than the topic's max.message.bytes")
        if self._refused != str(refused):
            log.error("kafka refuses what was sent: %s", refused)
        self._refused, self._refused_at = str(refused), time.monotonic()
        return busy("kafka_refuses", "Kafka refuses the events; the log of the collector says why", 60)

    def _settle(self, held: Held, refused: Refused | None = None) -> None:
        self.bytes -= held.size
        if not held.done.done():
            if refused is None:
                held.done.set_result(None)
            else:
                held.done.set_exception(refused)

    def _give_up(self, held: Held) -> None:
        if held.done.done():
            return
        held.done.set_exception(busy("kafka_away", "Kafka did not acknowledge the events in time"))
        if not held.handed_over:
            self._waiting.remove(held)
            self.bytes -= held.size


def order_key(person: str | None) -> bytes:
    """What puts all events of a person into one partition: two bytes of a hash, which 65,536 others share, too."""
    return blake2b(person.encode("utf-8", "surrogatepass"), digest_size=2).hexdigest().encode() if person else b""


def format_headers(name: str | None) -> list[tuple[str, bytes]]:
    """Headers that name the wire format to ingest."""
    return [(FORMAT_HEADER, name.encode())] if name else []
