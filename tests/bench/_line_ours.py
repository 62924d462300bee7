"""trustwatch itself in `make bench`: its real processes, frozen while their raw topic is filled, then let go.

So what is measured begins with the first message and holds neither the start of processes nor the joining of groups.
What was done is read from outside: watermarks from the counts topic, acknowledgements from the consumer groups; the
worker's own `/metrics` are only asked at the end, for what was judged.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from streams._process import ManagedProcess, free_port, wait_until
from streams.kafka import confluent_options
from streams.metrics import OUTCOMES
from streams.settings import Settings
from streams.topics import Topics
from tests.bench._line_load import JOURNEY, KEY, RAW_PARTITIONS, Load, settings_of
from tests.bench._line_run import Run, cpu_s, peak_mb

START_S: Final = 90.0
RUN_S: Final = 900.0
DURABLE_S: Final = 90.0
SETTLE_S: Final = 2.0
POLL_S: Final = 0.05
SESSION_S: Final = 60
"""Longer than any filling of the raw topic, during which the processes are frozen."""

QUIET: Final = {"log_level": 0}
"""For clients of librdkafka, which else tell of topics that are just being made."""

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""Metric name → its samples."""


class CountsHead(msgspec.Struct, array_like=True):
    """The beginning of a message of the counts topic (see `streams.frames.Counts`); its cells are passed over."""

    partition: int
    offset: int
    watermark: float
    cells: msgspec.Raw = msgspec.Raw()
    written: float = 0.0


class Installation:
    """Topics, settings and processes of one fresh trustwatch.

    Args:
        bootstrap: address of the broker.
        name: what its topics and groups begin with.
        knobs: more settings, by section.
    """

    def __init__(self, bootstrap: str, name: str, **knobs: dict[str, Any]) -> None:
        own = ("events", "counts", "findings", "dead_letters", "sessions_state", "watch_state")
        self.raw = f"{name}.raw"
        topics: dict[str, Any] = {key: f"{name}.{key}" for key in own}
        topics |= {"raw": [{"name": self.raw, "format": "segment"}], "raw_partitions": RAW_PARTITIONS}
        given: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": bootstrap, "session_timeout_s": SESSION_S},
            "topics": topics,
            # The raw topic is empty while processes start: no partition of it may be taken for idle, or what the
            # others hold is late.
            "ingest": {"idle_timeout_s": 3600.0},
        }
        for section, values in knobs.items():
            given[section] = given.get(section, {}) | values
        self._given = given
        self.settings: Settings = settings_of(app_id=name, **given)
        self._client = confluent_options(self.settings.kafka) | QUIET
        self._admin = AdminClient(self._client)
        with Topics(self.settings) as admin:
            admin.create()

    def environment(self, port: int) -> dict[str, str]:
        """The same settings for a process, as its environment."""
        said = {"PRIVACY__PSEUDONYM_KEY": KEY, "APP_ID": self.settings.app_id, "JOURNEY_FILE": str(JOURNEY),
                "METRICS__PORT": str(port), "WEB__PORT": "0"}  # fmt: skip
        for section, values in self._given.items():
            for name, value in values.items():
                said[f"{section}__{name}".upper()] = value if isinstance(value, str) else json.dumps(value)
        return os.environ | {f"TRUSTWATCH_{name}": value for name, value in said.items()}

    def remove(self) -> None:
        """Delete its topics: a run leaves some hundred MB."""
        topics = self.settings.topics
        names = [self.raw, topics.events, topics.counts, topics.findings, topics.dead_letters, topics.sessions_state,
                 topics.watch_state]  # fmt: skip
        for future in self._admin.delete_topics(names).values():
            with suppress(Exception):  # a topic that stays costs disk, no result
                future.result(20)

    def is_joined(self, ingests: int, workers: int) -> bool:
        """Whether all processes are members of their groups, and all partitions are given out."""
        topics, app = self.settings.topics, self.settings.app_id
        wanted = {f"{app}-ingest": (ingests, RAW_PARTITIONS)}
        wanted[app] = (workers, topics.events_partitions + topics.counts_partitions)
        for group, future in self._admin.describe_consumer_groups(list(wanted)).items():
            try:
                found, (members, partitions) = future.result(20), wanted[group]
            except (KafkaException, TimeoutError):  # a coordinator that is being made answers late
                return False
            given = sum(len(member.assignment.topic_partitions) for member in found.members)
            if found.state != ConsumerGroupState.STABLE or len(found.members) != members or given != partitions:
                return False
        return True

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Partition → committed offset."""
        asked = ConsumerGroupTopicPartitions(group)
        found = self._admin.list_consumer_group_offsets([asked])[group].result(20)
        return {where.partition: where.offset for where in found.topic_partitions if where.topic == topic}

    def consumer(self, topic: str, partitions: int) -> Consumer:
        """A consumer of a whole topic, in no group that commits."""
        consumer = Consumer(
            self._client
            | {"group.id": f"{topic}-bench", "enable.auto.commit": False, "fetch.wait.max.ms": 50,
               "queued.max.messages.kbytes": 64_000, "fetch.message.max.bytes": 4_000_000}
        )  # fmt: skip
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
        return consumer

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        """Partition → offset that its next message will get."""
        with closing(Consumer(self._client | {"group.id": "bench-ends"})) as consumer:
            found = {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number)) for number in range(partitions)
            }
        return {number: high for number, (_, high) in found.items()}

    def fill(self, load: Load) -> None:
        """Produce the load to the raw topic."""
        fill(self.settings, self.raw, load)


class Processes:
    """The running processes of an installation.

    Args:
        installation: what they work for.
        commands: arguments of `trustwatch`, one process each.
        folder: takes their logs.
    """

    def __init__(self, installation: Installation, commands: Sequence[Sequence[str]], folder: Path) -> None:
        self.installation = installation
        self._commands = commands
        self._folder = folder
        self._stack = ExitStack()
        self.ports: list[int] = []
        self.processes: list[ManagedProcess] = []

    def __enter__(self) -> Processes:
        with ExitStack() as stack:
            for number, command in enumerate(self._commands):
                stack.callback(self._start(number, command).stop)
            ingests = sum(command[0] == "ingest" or "--no-ingest" not in command for command in self._commands)
            workers = sum(command[0] == "worker" for command in self._commands)
            if not wait_until(
                lambda: bool(self.pids) and self.installation.is_joined(ingests, workers), START_S, every_s=0.3
            ):
                raise SystemExit(f"the groups were not complete after {START_S:g} s\n{self.logs()}")
            self._stack = stack.pop_all()
        time.sleep(SETTLE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, number: int, command: Sequence[str]) -> ManagedProcess:
        port, name = free_port(), f"{self.installation.settings.app_id}-{command[0]}-{number}"
        process = ManagedProcess(
            name, [sys.executable, "-m", "streams.cli", *command, "--loglevel", "WARNING"],
            self._folder / f"{name}.log", env=self.installation.environment(port), stop_s=40.0,
        )  # fmt: skip
        process.start(lambda: True, 10.0)
        self.ports.append(port)
        self.processes.append(process)
        return process

    @property
    def pids(self) -> list[int]:
        """Process ids; raises SystemExit if one has ended."""
        found = [process.pid for process in self.processes]
        alive = [pid for pid in found if pid is not None]
        if len(alive) < len(found):
            raise SystemExit(f"a process of trustwatch has ended\n{self.logs()}")
        return alive

    def cpu_s(self) -> float:
        """CPU seconds of all."""
        return sum(map(cpu_s, self.pids))

    def peak_mb(self) -> float:
        """Peaks of the resident memory of all, added up, MB."""
        return sum(map(peak_mb, self.pids))

    def freeze(self) -> None:
        """Stop all where they are."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all go on."""
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """SIGTERM to all; they end by themselves."""
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)

    def scrape(self) -> Samples:
        """The metrics of all, together."""
        found: Samples = {}
        for port in self.ports:
            for name, samples in scrape(port).items():
                found.setdefault(name, []).extend(samples)
        return found

    def logs(self) -> str:
        """The last lines of all logs."""
        return "\n".join(f"--- {process.name}\n{process.log_tail()}" for process in self.processes)


def fill(settings: Settings, topic: str, load: Load) -> None:
    """Produce a load to a topic."""
    # Idempotent for the order: a batch that is sent again, to a topic just made, must not come after its successor.
    options: dict[str, Any] = {"linger.ms": 20, "queue.buffering.max.messages": 500_000, "enable.idempotence": True}
    producer = Producer(confluent_options(settings.kafka) | QUIET | options)
    for value, partition in zip(load.values, load.partitions, strict=True):
        while True:
            try:
                producer.produce(topic, value=value, partition=partition)
                break
            except BufferError:
                producer.poll(0.05)
    if left := producer.flush(120):
        raise SystemExit(f"{left} messages were not acknowledged")


def scrape(port: int) -> Samples:
    """Name → samples of one process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over the samples with these labels."""
    return sum(value for found, value in samples.get(name, []) if labels.items() <= found.items())


def run_ours(
    installation: Installation, commands: Sequence[Sequence[str]], load: Load, folder: Path, broker_pid: int | None,
    *, durable: bool = True,
) -> Run:  # fmt: skip
    """Measure trustwatch on a load.

    Args:
        installation: a fresh one.
        commands: its processes.
        load: what it reads.
        folder: takes logs.
        broker_pid: whose CPU time is told beside; None for nobody's.
        durable: also wait until all is acknowledged.
    """
    topics = installation.settings.topics
    with (
        closing(installation.consumer(topics.counts, topics.counts_partitions)) as counts,
        Processes(installation, commands, folder) as ours,
    ):
        ours.freeze()
        try:
            installation.fill(load)
            before, broker_before = ours.cpu_s(), cpu_s(broker_pid) if broker_pid else 0.0
        finally:
            ours.thaw()
        began = time.monotonic()
        _wait_counted(counts, topics.events_partitions, load.until, ours)
        samples = _wait_judged(ours, topics.counts_partitions, load.until)
        judged = time.monotonic()
        used, broker_used = ours.cpu_s() - before, cpu_s(broker_pid) - broker_before if broker_pid else 0.0
        run = Run(len(load.values), judged - began, used, ours.peak_mb(), broker_used)
        _account(run, samples)
        if durable:
            ours.ask_to_stop()
            run.durable_s = _wait_durable(installation) - began
    return run


def _account(run: Run, samples: Samples) -> None:
    run.applied = int(total(samples, "trustwatch_events_total", outcome="applied"))
    run.steps = int(total(samples, "trustwatch_steps_begun_total"))
    run.findings = int(total(samples, "trustwatch_findings_total"))
    for labels, value in samples.get("trustwatch_stage_cpu_seconds_total", []):
        stage = labels.get("stage", "")
        run.stages[stage] = run.stages.get(stage, 0.0) + value
    run.stages["checkpoints (wall)"] = total(samples, "trustwatch_checkpoint_seconds_total")
    if run.applied != run.events:
        outcomes = {outcome: int(total(samples, "trustwatch_events_total", outcome=outcome)) for outcome in OUTCOMES}
        raise SystemExit(f"trustwatch applied not all of {run.events} events, nothing is comparable: {outcomes}")


def _wait_counted(counts: Consumer, partitions: int, until: float, ours: Processes) -> None:
    """Wait until every events partition has sent the counts of all buckets."""
    reached: dict[int, float] = {}
    head = msgspec.msgpack.Decoder(CountsHead)
    deadline = time.monotonic() + RUN_S
    while len(reached) < partitions or min(reached.values()) < until:
        for message in counts.consume(500, timeout=POLL_S):
            if not message.error():
                said = head.decode(message.value())
                reached[said.partition] = max(said.watermark, reached.get(said.partition, 0.0))
        ours.pids  # noqa: B018  # raises if one has ended
        if time.monotonic() > deadline:
            raise SystemExit(f"not all was counted after {RUN_S:g} s: {reached} of {until}\n{ours.logs()}")


def _wait_judged(ours: Processes, partitions: int, until: float) -> Samples:
    """Wait until all buckets were judged; returns the metrics then."""
    found: list[Samples] = []

    def is_judged() -> bool:
        found[:] = [ours.scrape()]
        marks = [value for labels, value in found[0].get("trustwatch_watermark_timestamp_seconds", [])
                 if labels["stage"] == "watch"]  # fmt: skip
        return len(marks) >= partitions and min(marks) >= until

    _require(is_judged, RUN_S, "not all was judged", ours)
    return found[0]


def _wait_durable(installation: Installation) -> float:
    """When all was acknowledged that was sent by now: Kafka is only told what a durable checkpoint covers.

    The processes are stopping. Left alone they would come to that, too, but at their next checkpoint, which may be most
    of a minute away: that is a choice of how much to replay after a crash, not throughput.
    """
    topics, app = installation.settings.topics, installation.settings.app_id
    reads = (
        (f"{app}-ingest", installation.raw, RAW_PARTITIONS),
        (app, topics.events, topics.events_partitions),
        (app, topics.counts, topics.counts_partitions),
    )
    for group, topic, partitions in reads:
        ends = installation.ends(topic, partitions)

        def is_done(group: str = group, topic: str = topic, ends: dict[int, int] = ends) -> bool:
            have = installation.committed(group, topic)
            return all(have.get(number, -1) >= end for number, end in ends.items() if end)

        if not wait_until(is_done, DURABLE_S, every_s=0.1):
            have = installation.committed(group, topic)
            raise SystemExit(f"{topic}: not acknowledged {DURABLE_S:g} s after the stop: {have} of {ends}")
    return time.monotonic()


def _require(condition: Callable[[], bool], timeout_s: float, problem: str, ours: Processes) -> None:
    if not wait_until(condition, timeout_s, every_s=0.5):  # a scrape takes a tenth of a second of the worker
        raise SystemExit(f"{problem} after {timeout_s:g} s\n{ours.logs()}")
