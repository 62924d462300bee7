"""What tests of the live line write to raw topics, and all bytes that they read back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streams.checkpoints import Head, plain
from streams.formats import FORMAT_HEADER
from streams.frames import UNREADABLE
from tests.integration.live import LiveLine

Headers = Mapping[str, bytes]
RAW_PARTITIONS = 4


def ours(line: LiveLine) -> tuple[str, ...]:
    """Every topic of ours: all but the raw ones."""
    topics = line.settings.topics
    return (
        topics.events, topics.counts, topics.findings, topics.dead_letters, topics.sessions_state, topics.watch_state
    )  # fmt: skip


def send(line: LiveLine, messages: Iterable[bytes | None], *, key: bytes | None = None, headers: Headers | None = None,
         until: float | None = None) -> int:  # fmt: skip
    """Write messages to the first partition of the raw topic, and the time (epoch s) that all partitions reached."""
    given = list((headers or {}).items())
    clock = [] if until is None else [msgspec.json.encode({"type": "clock", "time": until})]
    count = 0
    with contextlib.closing(KafkaProducer(bootstrap_servers=line.settings.kafka.bootstrap_servers,
                                          max_request_size=4_000_000)) as producer:  # fmt: skip
        for message in messages:
            producer.send(line.raw, message, key=key, headers=given, partition=0)
            count += 1
        for message in clock:
            for partition in range(RAW_PARTITIONS):
                native = [(FORMAT_HEADER, b"native")]
                producer.send(line.raw, message, headers=native, partition=partition)
        producer.flush(timeout=30)
    return count


def wait_until_consumed(line: LiveLine, items: int, until: float, timeout_s: float = 120.0) -> None:
    """Return once so many items are accounted for and all that happened before a time (epoch s) is judged, durably."""
    line.wait(items, until, timeout_s)


def everything(line: LiveLine, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
    """All records of a topic, as (partition, key, value)."""
    consumer = KafkaConsumer(bootstrap_servers=line.settings.kafka.bootstrap_servers, fetch_max_bytes=50_000_000)
    with contextlib.closing(consumer):
        where = [TopicPartition(topic, partition) for partition in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(where)
        consumer.seek_to_beginning(*where)
        ends, found = consumer.end_offsets(where), []
        deadline = time.monotonic() + 60
        while any(consumer.position(one) < ends[one] for one in where):
            assert time.monotonic() < deadline, topic
            for at, records in consumer.poll(timeout_ms=500).items():
                found += [(at.partition, record.key, record.value) for record in records]
        return found


def newest(line: LiveLine, topic: str) -> bytes:
    """What a compacted topic holds once it is compacted: the last value of each key."""
    last: dict[tuple[int, bytes | None], bytes | None] = {}
    for partition, key, value in everything(line, topic):
        last[partition, key] = value
    return b"\n".join((key or b"") + b" " + opened(value) for (_, key), value in last.items() if value is not None)


def all_bytes(line: LiveLine, topic: str) -> bytes:
    """Keys and values of all records, also of those that compaction will take."""
    return b"\n".join((key or b"") + b" " + opened(value or b"") for _, key, value in everything(line, topic))


def opened(value: bytes) -> bytes:
    """A record, with the state in plain if it is a checkpoint that holds one."""
    try:
        return value + b" " + plain(msgspec.msgpack.decode(value, type=Head).inline)
    except UNREADABLE:
        return value
