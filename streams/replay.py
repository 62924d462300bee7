"""Recorded events → Kafka, in event-time order and at a chosen speed.

Messages go out byte for byte as recorded, keyed by person. confluent-kafka produces, because kafka-python's 19,000
messages a second would be the bottleneck of every test and demo.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException, Producer

from streams.backtest import Feed, Router, closing_message
from streams.connection import explain
from streams.errors import BrokerUnavailable, TopicMismatch, TrustwatchError
from streams.frames import NEVER
from streams.kafka import confluent_options
from streams.recorded import RecordedFile
from streams.settings import Settings

log = logging.getLogger(__name__)
PACE_STEP_S: Final = 0.02
"""Sleeps shorter than this are not made: they cost more than they pace."""
CHUNK: Final = 200
"""Progress is told once in so many messages."""

Due = tuple[float, int, Feed, int, bytes]
"""Event time, number of the file, its feed, partition and message."""


class Replayed(msgspec.Struct):
    """What was sent: messages, their seconds on the clock, and the event time they span."""

    messages: int = 0
    seconds: float = 0.0
    first_time: float | None = None
    last_time: float | None = None


class Replay:
    """Sends recorded files to raw topics.

    Args:
        settings: connection, formats, gaps.
        speed: event seconds per clock second; None is as fast as Kafka takes it.
        close: end with a punctuation, so that all sessions of the file close.

    Raises:
        BrokerUnavailable: no broker answers.
    """

    def __init__(self, settings: Settings, speed: float | None = None, *, close: bool = True) -> None:
        self._settings = settings
        self._speed = speed
        self._close = close
        self._failed: str | None = None
        options = {
            **confluent_options(settings.kafka), "enable.idempotence": settings.kafka.idempotent,
            "message.max.bytes": settings.topics.max_message_bytes, "linger.ms": 20, "acks": "all",
            "queue.buffering.max.messages": 200_000,
        }  # fmt: skip
        self._producer = Producer(options, logger=log)  # not to standard error, where progress is shown

    def run(
        self, files: Sequence[tuple[RecordedFile, str]], on_messages: Callable[[int], object] = lambda _count: None
    ) -> Replayed:
        """Send files, each with its topic, side by side in event-time order; returns when all is acknowledged.

        Raises:
            TopicMismatch: a topic does not exist.
            TrustwatchError: Kafka refused a message.
        """
        began, done = time.monotonic(), Replayed()
        now = time.time()
        router = Router(self._settings, now)
        partitions = {topic: self._partitions(topic) for _, topic in files}
        feeds = [Feed(topic, iter(file), file.wire_format) for file, topic in files]
        for number, (time_s, _, feed, partition, value) in enumerate(_in_time_order(feeds, router, partitions), 1):
            self._pace(time_s, began, done)
            self._send(feed.topic, partition, value)
            done.messages = number
            if number % CHUNK == 0:
                on_messages(CHUNK)
        on_messages(done.messages % CHUNK)
        self._end(partitions, max((feed.time for feed in feeds), default=NEVER), now)
        self._flush()
        done.seconds = time.monotonic() - began
        return done

    def _send(self, topic: str, partition: int, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value=value, partition=partition, on_delivery=self._delivered)
                self._producer.poll(0)
                break
            except BufferError:
                self._producer.poll(0.1)
        if self._failed:
            raise TrustwatchError(f"replay: {topic}[{partition}]: {self._failed}")

    def _pace(self, event_time: float, began: float, done: Replayed) -> None:
        if event_time == NEVER:
            return
        if done.first_time is None:
            done.first_time = event_time
        done.last_time = event_time
        if self._speed:
            wait = (event_time - done.first_time) / self._speed - (time.monotonic() - began)
            if wait > PACE_STEP_S:
                self._producer.poll(0)
                time.sleep(wait)

    def _end(self, partitions: dict[str, int], last: float, now: float) -> None:
        if not self._close or last == NEVER:
            return
        message = closing_message(last, self._settings.time, now)
        for topic, count in partitions.items():
            for partition in range(count):
                self._send(topic, partition, message)

    def _flush(self) -> None:
        left = self._producer.flush(self._settings.kafka.request_timeout_s * 3)
        if self._failed or left:
            raise TrustwatchError(f"replay: {left} messages were not acknowledged: {self._failed or 'time-out'}")

    def _partitions(self, topic: str) -> int:
        try:
            found = self._producer.list_topics(topic, timeout=self._settings.kafka.request_timeout_s).topics[topic]
        except KafkaException as error:
            raise BrokerUnavailable(explain(self._settings.kafka, error)) from error
        if found.error or not found.partitions:
            raise TopicMismatch(f"topic {topic!r} does not exist; create it, or run `trustwatch topics create`")
        return len(found.partitions)

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed = str(error)


def _in_time_order(feeds: Sequence[Feed], router: Router, partitions: Mapping[str, int]) -> Iterator[Due]:
    """All messages, in the order of event time that their files have reached: what waits in one holds no other up."""

    def messages(number: int, feed: Feed) -> Iterator[Due]:
        for value in feed.messages:
            partition = router.partition(feed, value, router.decode(feed, value), partitions[feed.topic])
            yield feed.time, number, feed, partition, value

    return heapq.merge(*(messages(number, feed) for number, feed in enumerate(feeds)), key=lambda due: due[:2])
