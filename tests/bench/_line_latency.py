"""From produce to finding at half load: asked of `/metrics`, and measured from outside beside it.

Calls are produced at a steady rate with the time of their sending. A bucket closes when its time and the lateness that
is allowed have passed: that wait is the configuration, not delay. What is measured is from the moment at which the
oldest message of the frame that closed a bucket was written to Kafka, until (a) a consumer of the counts topic holds
the bucket, (b) a checkpoint that has judged it is on the state topic, both by the bench's own clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, Producer

from streams.checkpoints import HEAD, Head
from streams.frames import UNREADABLE
from streams.kafka import confluent_options
from tests.bench._line_load import RAW_PARTITIONS, STAMP, Load, load, stamp
from tests.bench._line_ours import QUIET, CountsHead, Installation, Processes, Samples

RAMP_S: Final = 12.0
"""First so long, to fill caches and connections, while event time runs from `BEFORE_S` ago up to the clock."""
BEFORE_S: Final = 70.0
MEASURED_S: Final = 40.0
TICK_S: Final = 0.005
DRAIN_S: Final = 6.0
METRIC: Final = "trustwatch_event_delay_seconds"


class Delays(msgspec.Struct):
    """Delays of one kind, seconds; how many were seen."""

    p50_s: float
    p99_s: float
    count: int


class Latency(msgspec.Struct):
    """What the latency run found.

    Attributes:
        rate: events produced per second.
        counted: until the counts were in the hands of a consumer.
        durable: until a checkpoint on the state topic had judged them; None if none was recognised.
        metrics: stage → what `/metrics` says; empty if it does not tell delays.
        findings: findings seen.
    """

    rate: float
    counted: Delays | None
    durable: Delays | None
    metrics: dict[str, Delays]
    findings: int


class Witness(threading.Thread):
    """Reads counts, checkpoints of the watch stage and findings as they come, and notes when."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(daemon=True)
        topics = installation.settings.topics
        self._topics = topics
        self._consumers = [
            installation.consumer(topics.counts, topics.counts_partitions),
            installation.consumer(topics.watch_state, topics.counts_partitions),
            installation.consumer(topics.findings, 1),
        ]
        self._waiting: dict[int, list[tuple[int, float]]] = {}
        self._stop_now = threading.Event()
        self.since = float("inf")
        self.counted: list[float] = []
        self.durable: list[float] = []
        self.findings = 0

    def run(self) -> None:
        """Read until `finish`."""
        counts_of, head_of = msgspec.msgpack.Decoder(CountsHead).decode, msgspec.msgpack.Decoder(Head).decode
        while not self._stop_now.is_set():
            for consumer in self._consumers:
                for message in _read(consumer):
                    if message.topic() == self._topics.counts:
                        self._note_counts(message, counts_of(message.value()))
                    elif message.topic() == self._topics.findings:
                        self.findings += 1
                    elif message.key() == HEAD and message.value():
                        self._note_checkpoint(message, head_of)

    def finish(self) -> None:
        """Stop reading."""
        self._stop_now.set()
        self.join()
        for consumer in self._consumers:
            consumer.close()

    def _note_counts(self, message: Any, counts: CountsHead) -> None:
        if counts.written >= self.since:
            self.counted.append(time.time() - counts.written)
            self._waiting.setdefault(message.partition(), []).append((message.offset(), counts.written))

    def _note_checkpoint(self, message: Any, head_of: Any) -> None:
        try:
            offset = head_of(message.value()).offset
        except UNREADABLE:
            return  # of another form than we know: the report then says that none was recognised
        waiting, now = self._waiting.get(message.partition(), []), time.time()
        self.durable += [now - written for at, written in waiting if at <= offset]
        self._waiting[message.partition()] = [pair for pair in waiting if pair[0] > offset]


def _read(consumer: Consumer) -> list[Any]:
    return [message for message in consumer.consume(1000, timeout=0.005) if not message.error()]


def measure_latency(
    installation: Installation, commands: Sequence[Sequence[str]], work: Load, rate: float, folder: Path
) -> Latency:
    """Produce at a steady rate, and watch.

    Args:
        installation: a fresh one.
        commands: its processes.
        work: calls to send, with other timestamps; if they are too few, a larger load is made.
        rate: events per second.
        folder: takes logs.
    """
    needed = int(rate * (RAMP_S + MEASURED_S + 1))
    values = (work if len(work.values) > needed + RAW_PARTITIONS else load(needed)).values
    partitions = (work if len(work.values) > needed + RAW_PARTITIONS else load(needed)).partitions
    with Processes(installation, commands, folder) as ours:
        witness = Witness(installation)
        witness.start()
        try:
            sender = _Sender(installation, values, partitions, rate)
            sender.send(RAMP_S)
            witness.since = time.time()
            before = ours.scrape()
            sent = sender.send(MEASURED_S)
            time.sleep(DRAIN_S)
            after = ours.scrape()
        finally:
            witness.finish()
    return Latency(
        sent / MEASURED_S, _delays(witness.counted), _delays(witness.durable), told(before, after), witness.findings
    )


class _Sender:
    """Sends calls at a steady rate, each with the time of its sending; at first with times of before."""

    def __init__(self, installation: Installation, values: list[bytes], partitions: bytes, rate: float) -> None:
        settings = installation.settings
        self._producer = Producer(
            confluent_options(settings.kafka)
            | QUIET
            | {"linger.ms": 5, "queue.buffering.max.messages": 500_000, "enable.idempotence": True}  # for the order
        )
        self._topic, self._values, self._partitions, self._rate = installation.raw, values, partitions, rate
        self._began = time.time()
        self._sent = 0

    def send(self, seconds: float) -> int:
        """Go on for so long; returns how many were sent."""
        first, begin = self._sent, time.time()
        while (now := time.time()) < begin + seconds:
            self._tick(now, first + int((now - begin) * self._rate))
            time.sleep(TICK_S)
        self._producer.flush(10)
        return self._sent - first

    def _tick(self, now: float, until: int) -> None:
        behind = BEFORE_S * max(0.0, 1 - (now - self._began) / RAMP_S)
        said = stamp(now - behind)
        for number in range(self._sent, until):
            value = self._values[number]
            self._producer.produce(
                self._topic, value[: STAMP.start] + said + value[STAMP.stop :], partition=self._partitions[number]
            )
        self._sent = max(self._sent, until)
        self._producer.poll(0)


def told(before: Samples, after: Samples) -> dict[str, Delays]:
    """What the histogram of the metrics says of the time between two scrapes, by stage."""
    found: dict[str, Delays] = {}
    for stage in sorted({labels["stage"] for labels, _ in after.get(f"{METRIC}_bucket", [])}):
        grown = _buckets(after, stage)
        for edge, count in _buckets(before, stage).items():
            grown[edge] = grown.get(edge, 0.0) - count
        total = max(grown.values(), default=0.0)
        if total:
            found[stage] = Delays(quantile(grown, 0.5), quantile(grown, 0.99), int(total))
    return found


def _buckets(samples: Samples, stage: str) -> dict[float, float]:
    """Upper edge → observations up to it, over all processes."""
    found: dict[float, float] = {}
    for labels, value in samples.get(f"{METRIC}_bucket", []):
        if labels["stage"] == stage:
            found[float(labels["le"])] = found.get(float(labels["le"]), 0.0) + value
    return found


def quantile(buckets: dict[float, float], share: float) -> float:
    """A quantile of a cumulative histogram, as Prometheus estimates it: straight lines between the edges.

    >>> quantile({1.0: 50.0, 2.0: 100.0, float("inf"): 100.0}, 0.75)
    1.5
    """
    edges = [(0.0, 0.0), *sorted(buckets.items())]
    wanted = share * edges[-1][1]
    for (low, below), (high, upto) in pairwise(edges):
        if upto >= wanted and upto > below:
            return low if high == float("inf") else low + (high - low) * (wanted - below) / (upto - below)
    return edges[-1][0]


def _delays(each: list[float]) -> Delays | None:
    if not each:
        return None
    ordered = sorted(each)
    return Delays(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], len(ordered))
