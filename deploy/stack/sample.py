"""`python -m deploy.stack.sample`: replays the shipped sample as if it had just happened.

The sample is from 2025. Replayed as it is, every panel and alert about freshness would rightly say that the data are
old, so all its times are moved by the same whole number of seconds, to end now. Otherwise the messages stay the same.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streams.connection import explain
from streams.demo import SAMPLE
from streams.errors import BrokerUnavailable, TrustwatchError
from streams.kafka import kafka_python_options
from streams.recorded import RecordedFile
from streams.replay import Replay, Replayed
from streams.settings import Settings, load_settings
from streams.simulate import Truth

_TIMES: Final = re.compile(
    rb'"(?P<name>timestamp|originalTimestamp)":"(?P<iso>[^"]+)"|"(?P<field>occurredAt)":(?P<ms>\d+)'
)
"""The fields of the sample that hold a time: Segment's, and HubSpot's in milliseconds."""


def truth() -> Truth:
    """What was eroded in the sample, where, and since when, in its own time."""
    return msgspec.json.decode(files("streams").joinpath("sample", "truth.json").read_bytes(), type=Truth)


def shift_to(end: float) -> int:
    """Seconds by which the times of the sample have to be moved for it to end at `end`, a clock in seconds."""
    return int(end - datetime.fromisoformat(truth().end).timestamp())


def moved(line: bytes, shift_s: int) -> bytes:
    """One message with all its times moved.

    >>> moved(b'{"timestamp":"2025-09-01T00:03:34.962Z","messageId":"a"}', 86_400)
    b'{"timestamp":"2025-09-02T00:03:34.962Z","messageId":"a"}'
    >>> moved(b'[{"occurredAt":1756685274415}]', 60)
    b'[{"occurredAt":1756685334415}]'
    """
    return _TIMES.sub(lambda found: _moved_field(found, shift_s), line)


def write_moved(folder: Path, shift_s: int) -> list[tuple[Path, str]]:
    """Write the moved sample into `folder`; its files, each with its raw topic."""
    written = []
    with as_file(files("streams").joinpath("sample")) as sample:
        for name, topic in SAMPLE:
            path = folder / name
            with gzip.open(sample / name, "rb") as source, gzip.open(path, "wb", compresslevel=1) as target:
                target.writelines(moved(line, shift_s) for line in source)
            written.append((path, topic))
    return written


def replay_sample(
    settings: Settings, seconds: float, shift_s: int, on_messages: Callable[[int], object] = lambda _count: None
) -> Replayed:
    """Replay the moved sample into the raw topics, in about so many seconds.

    Raises:
        TrustwatchError: Kafka does not answer, lacks a topic or refused a message.
    """
    told = truth()
    span_s = datetime.fromisoformat(told.end).timestamp() - datetime.fromisoformat(told.start).timestamp()
    with tempfile.TemporaryDirectory(prefix="trustwatch-sample-") as folder:
        recorded = [(RecordedFile(path), topic) for path, topic in write_moved(Path(folder), shift_s)]
        return Replay(settings, span_s / seconds).run(recorded, on_messages)


def anything_in(settings: Settings) -> str | None:
    """The first raw topic of the sample that holds messages already; None if all are empty."""
    try:
        with closing(KafkaConsumer(**kafka_python_options(settings.kafka))) as consumer:
            for _, topic in SAMPLE:
                where = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic) or ()]
                if where and any(consumer.end_offsets(where).values()):
                    return topic
    except KafkaError as error:
        raise BrokerUnavailable(explain(settings.kafka, error)) from error
    return None


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.stack.sample", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds that the three weeks should take")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        if topic := anything_in(settings):
            # A second replay would lie before what was judged: late, and counted twice where lateness does not matter.
            print(f"{topic} holds messages already, so the sample is not replayed. Fix: start with empty topics")
            return 0
        shift_s = shift_to(time.time())
        print("replaying three weeks of made-up journeys and leads, which end now", flush=True)
        done = replay_sample(settings, arguments.seconds, shift_s)
    except TrustwatchError as error:
        print(f"sample: {error}", file=sys.stderr)
        return 1
    print(f"{done.messages:,} messages in {done.seconds:.0f} s", flush=True)
    for erosion in truth().erosions:
        onset = datetime.fromtimestamp(datetime.fromisoformat(erosion.onset).timestamp() + shift_s, UTC)
        where = ", ".join([erosion.stage, *(f"{label}={value}" for label, value in erosion.segment.items())])
        print(f"to be found: {erosion.detector} at {where} since {onset:%Y-%m-%d %H:%M} UTC", flush=True)
    return 0


def _moved_field(found: re.Match[bytes], shift_s: int) -> bytes:
    if found["field"]:
        return b'"%s":%d' % (found["field"], int(found["ms"]) + shift_s * 1000)
    seconds, dot, rest = found["iso"].partition(b".")
    at = datetime.fromisoformat(seconds.decode().removesuffix("Z")).replace(tzinfo=UTC).timestamp() + shift_s
    text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
    return b'"%s":"%s%s"' % (found["name"], text, dot + rest if dot else b"Z")


if __name__ == "__main__":
    sys.exit(main())
