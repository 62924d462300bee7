"""One installation of trustwatch under test: topics and groups of its own on a real Kafka, and real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest import mock

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from deploy.kafka import Broker
from streams._process import HOST, ManagedProcess, free_port
from streams.checkpoints import HEAD
from streams.settings import ENV_PREFIX, Settings, load_settings
from streams.topics import Topics
from tests.faults.recording import DEDUPE_S, LATENESS_S, PARTITIONS, TOPICS, Message, Recording, Source

ROOT: Final = Path(__file__).resolve().parents[2]
OUR_TOPICS: Final = ("events", "counts", "findings", "dead_letters", "sessions_state", "watch_state")
SESSION_TIMEOUT_S: Final = 6.0
LEAVE_S: Final = 10.0
"""A worker that is told to stop has left by then."""
POLL_S: Final = 0.05
STEPS: Final = 500
AHEAD: Final = 20_000
"""Messages that a feed may be ahead of ingest."""
RPC_S: Final = 10.0
KNOBS: Final = {
    "PRIVACY__PSEUDONYM_KEY": "a key for tests only",
    "TIME__ALLOWED_LATENESS_S": f"{LATENESS_S:g}",
    "TIME__DEDUPE_WINDOW_S": f"{DEDUPE_S:g}",
    # Wider buckets and fewer segments than by default: 200,000 events are to be judged a dozen times in ten minutes.
    "TIME__BUCKET_S": "60",
    "SEGMENTS__WATCH": '["channel", "device"]',
    # A source is never taken for quiet here: what a fault delays must not look as if it had ended.
    "INGEST__IDLE_TIMEOUT_S": "3600",
    "KAFKA__SESSION_TIMEOUT_S": f"{SESSION_TIMEOUT_S:g}",
    "CHECKPOINTS__INTERVAL_S": "1",
    "CHECKPOINTS__MAX_INTERVAL_S": "2",
    # A checkpoint of many records, so that it can be hit half-way.
    "CHECKPOINTS__CHUNK_BYTES": "4096",
    "TOPICS__RAW_PARTITIONS": str(PARTITIONS),
}
"""Settings of the whole suite, live and backtest."""


class TooLate(AssertionError):
    """Something did not come about within its time."""


class Deadline:
    """A moment by which all must be done.

    Args:
        seconds: from now.
        outer: another that must hold, too.
    """

    def __init__(self, seconds: float, outer: Deadline | None = None) -> None:
        self.at: float = min(time.monotonic() + seconds, outer.at if outer else float("inf"))

    @property
    def left_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())


class Process(ManagedProcess):
    """One process of trustwatch, with its `/metrics`."""

    def __init__(self, name: str, command: list[str], log_path: Path, env: dict[str, str], port: int) -> None:
        super().__init__(name, command, log_path, env=env)
        self.port = port
        self.frozen = False
        self.expected = True
        """Whether it should be running."""

    @property
    def exit_code(self) -> int | None:
        """Exit code of a process that ended by itself; None while it runs."""
        return self._child.poll() if self._child else None

    def begin(self) -> Process:
        """Start it and wait for nothing."""
        self.start(lambda: True, 10.0)
        return self

    def crash(self) -> None:
        """SIGKILL."""
        assert self.running, f"{self.name} ended before it could be killed:\n{self.log_tail(40)}"
        self.expected = False
        self.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    def leave(self) -> float:
        """SIGTERM; the seconds that it took to leave. Must be in order and in time."""
        self.expected = False
        began = time.monotonic()
        self._signal(signal.SIGTERM)
        child = self._child
        assert child is not None
        while child.poll() is None and time.monotonic() - began < LEAVE_S + 5:
            time.sleep(0.02)
        took = time.monotonic() - began
        assert child.poll() == 0, f"{self.name}: exit code {child.poll()} after SIGTERM\n{self.log_tail(40)}"
        assert took <= LEAVE_S, f"{self.name}: took {took:.1f} s to leave after SIGTERM\n{self.log_tail(40)}"
        self.kill()
        return took

    def metrics(self, *names: str) -> list[tuple[str, dict[str, str], float]]:
        """Samples of these metrics; empty while it does not answer."""
        if not self.running or self.frozen:
            return []
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=3) as answer:
                text: str = answer.read().decode()
        except OSError:
            return []
        return [_sample(line) for line in text.splitlines() if line.startswith(names)]

    def _signal(self, number: signal.Signals) -> None:
        assert self.pid is not None, f"{self.name} ended before its time:\n{self.log_tail(40)}"
        os.kill(self.pid, number)


class Installation:
    """Settings, topics, processes and positions of one line.

    Args:
        bootstrap: broker.
        name: prefix of its topics and groups.
        raw: prefix of its raw topics; several installations may read the same.
        folder: takes the logs.
        deadline: by which all must be done.
        module: what is run instead of `streams.cli`.
        replicas: of its topics.
    """

    def __init__(
        self, bootstrap: str, name: str, raw: str, folder: Path, deadline: Deadline, *,
        module: str = "streams.cli", replicas: int = 1,
    ) -> None:  # fmt: skip
        self.name = name
        self.raw = raw
        self.folder = folder
        self.deadline = deadline
        self.processes: list[Process] = []
        self._consumed: dict[str, float] = {}
        self._module = module
        self._environment = KNOBS | {
            "APP_ID": name,
            "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "KAFKA__REPLICATION_FACTOR": str(replicas),
            "TOPICS__RAW": json.dumps([{"name": f"{raw}.{topic}", "source": topic} for topic in TOPICS]),
            **{f"TOPICS__{topic.upper()}": f"{name}.{topic}" for topic in OUR_TOPICS},
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings_of(self._environment)
        with Topics(self.settings) as topics:
            topics.create()
        self.offsets = Offsets(self.settings)

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, *command: str, **knobs: str) -> Process:
        """Start `trustwatch COMMAND`."""
        port = free_port()
        name = f"{'-'.join(command).replace('---', '-')}-{len(self.processes)}"
        given = self._environment | knobs | {"METRICS__PORT": str(port), "WEB__PORT": "0"}
        env = os.environ | {"PYTHONPATH": str(ROOT)} | {ENV_PREFIX + key: value for key, value in given.items()}
        command_line = [sys.executable, "-m", self._module, *command]
        process = Process(name, command_line, self.folder / f"{name}.log", dict(env), port)
        self.processes.append(process)
        return process.begin()

    def ingest(self, **knobs: str) -> Process:
        """Start the ingest stage alone."""
        return self.start("ingest", **knobs)

    def stages(self, **knobs: str) -> Process:
        """Start a worker of the other stages."""
        return self.start("worker", "--no-ingest", **knobs)

    def worker(self, **knobs: str) -> Process:
        """Start a worker of all stages."""
        return self.start("worker", **knobs)

    def look_after(self) -> None:
        """See that all run that should."""
        for process in self.processes:
            code = process.exit_code
            assert process.running or not process.expected, f"{process.name} ended with {code}:\n{process.log_tail(60)}"

    def leave(self) -> float:
        """SIGTERM to all at once, in order; the longest seconds."""
        took: list[float] = []
        failed: list[BaseException] = []

        def leave(process: Process) -> None:
            try:
                took.append(process.leave())
            except AssertionError as error:
                failed.append(error)

        threads = [threading.Thread(target=leave, args=[one]) for one in self.processes if one.running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        return max(took, default=0.0)

    def end(self) -> None:
        """End whatever runs still."""
        for process in self.processes:
            process.expected = False
            process.kill()
        self.offsets.close()

    # ── progress ──────────────────────────────────────────────────────────────────────────────────────────────────

    def until(self, holds: Callable[[], bool], what: str, every_s: float = POLL_S, within_s: float = 1e9) -> None:
        """Wait until something holds, and look after the processes meanwhile."""
        deadline = Deadline(within_s, self.deadline)
        while not holds():
            self.look_after()
            if not deadline.left_s:
                raise TooLate(f"{what}: not within the time\n{self.tails()}")
            time.sleep(every_s)

    def consumed(self) -> int:
        """Items accounted for, as the workers have said up to now: a partition between two owners keeps its number."""
        best = self._consumed
        for process in self.processes:
            sums: dict[str, float] = {}
            for _, labels, value in process.metrics("trustwatch_events_total"):
                sums[labels["partition"]] = sums.get(labels["partition"], 0.0) + value
            best.update({name: max(value, best.get(name, 0.0)) for name, value in sums.items()})
        return int(sum(best.values()))

    def waiting(self) -> dict[str, str]:
        """What is not read, or handed on and not acknowledged, by what Kafka knows; empty if all is done."""
        topics, ingest = self.settings.topics, f"{self.name}-ingest"
        asked = [(ingest, topic.name) for topic in topics.raw] + [
            (self.name, topics.events),
            (self.name, topics.counts),
        ]
        try:
            # From the beginning of the line to its end: what is done is not undone by what comes before it.
            behind = {topic: self.offsets.behind(group, [topic]) for group, topic in asked}
        except KafkaException as error:
            self.offsets.renew()
            return {"broker": str(error)}
        return {topic: f"{count} messages" for topic, count in behind.items() if count}

    def short_of(self, until: float) -> dict[str, str]:
        """Partitions of which no worker says that it has reached this event time; empty if there is none.

        What is acknowledged need not be applied: where a worker that came back from the dead has stored an outdated
        state, its next owner reads again from there, and nothing is acknowledged twice.
        """
        topics = self.settings.topics
        counts = {"sessionize": topics.events_partitions, "watch": topics.counts_partitions}
        left = {f"{stage}[{n}]": "nobody's" for stage, count in counts.items() for n in range(count)}
        for process in self.processes:
            for _, labels, reached in process.metrics("trustwatch_watermark_timestamp_seconds{"):
                where = f"{labels['stage']}[{labels['partition']}]"
                if reached >= until:
                    left.pop(where, None)
                elif where in left:
                    left[where] = f"{until - reached:.0f} s short"
        return left

    def settle(self, until: float) -> None:
        """Wait until all is handled, and still is when asked again.

        Args:
            until: event time that the whole line reaches at its end, seconds.
        """
        left: dict[str, str] = {}

        def settled() -> bool:
            left.clear()
            for _ in range(2):
                left.update(self.waiting() or self.short_of(until))
                if left:
                    return False
                time.sleep(0.3)
            return True

        try:
            self.until(settled, "all handled", every_s=0.2)
        except TooLate as error:
            raise TooLate(f"{left} still to be handled; {error}") from error

    def tails(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {process.name}:\n{process.log_tail(12)}" for process in self.processes)


@contextmanager
def installation(*args: Any, **kwargs: Any) -> Iterator[Installation]:
    """An installation whose processes are ended, by their ids, whatever happens."""
    made = Installation(*args, **kwargs)
    try:
        yield made
    finally:
        made.end()


def settings_of(environment: dict[str, str]) -> Settings:
    """The settings that a process with this environment has."""
    with _SETTINGS, mock.patch.dict(os.environ, {ENV_PREFIX + name: value for name, value in environment.items()}):
        return load_settings()


_SETTINGS: Final = threading.Lock()


# ── a broker that can refuse writes ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def pair_of_brokers() -> Iterator[tuple[Broker, Broker]]:
    """A cluster of two real brokers, of which the first is the controller.

    With the second one stopped, topics of two replicas take writes while `min.insync.replicas` is 1, and refuse those
    with acks=all while it is 2. With one replica they never would: a broker asks for no more replicas than there are.
    """
    both = {"offsets.topic.replication.factor": "2", "default.replication.factor": "2"}
    with Broker(extra=both) as first, TemporaryDirectory(prefix="trustwatch-second-") as name:
        made = dict(_properties(first.log_path.with_name("server.properties")))
        meta = dict(_properties(Path(made["log.dirs"], "meta.properties")))
        folder = Path(name, "data")
        folder.mkdir()
        (folder / "meta.properties").write_text(f"version=1\ncluster.id={meta['cluster.id']}\nnode.id=2\n")
        own = {"process.roles": "broker", "node.id": "2", "listeners": f"PLAINTEXT://{HOST}:{{port}}",
               "controller.quorum.voters": made["controller.quorum.voters"]}  # fmt: skip
        with Broker(Path(name), extra=both | own) as second:
            yield first, second


def _properties(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield name.strip(), value.strip()


# ── what Kafka knows ──────────────────────────────────────────────────────────────────────────────────────────────────


class Offsets:
    """Ends of topics, what groups have committed and who owns what, asked of the broker."""

    def __init__(self, settings: Settings) -> None:
        self._app_id = settings.app_id
        self._servers = {"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0}
        self._admin = AdminClient(self._servers)
        self._groups: dict[str, Consumer] = {}
        self.renew()
        topics = settings.topics
        self._partitions = {topic.name: topics.raw_partitions for topic in topics.raw} | {
            topics.events: topics.events_partitions, topics.sessions_state: topics.events_partitions,
            topics.counts: topics.counts_partitions, topics.watch_state: topics.counts_partitions,
        }  # fmt: skip

    def renew(self) -> None:
        """Connect anew: these clients can hold on to what they knew of a broker that is away."""
        self.close()
        # Consumers rather than the admin client's list_offsets: that ended Python with a segmentation fault at times.
        self._groups = {
            group: Consumer(self._servers | {"group.id": group, "enable.auto.commit": False})
            for group in (self._app_id, f"{self._app_id}-ingest")
        }

    def close(self) -> None:
        """Disconnect."""
        for consumer in self._groups.values():
            consumer.close()

    def where(self, topics: Iterable[str]) -> list[TopicPartition]:
        """All partitions of these topics."""
        return [TopicPartition(topic, n) for topic in topics for n in range(self._partitions[topic])]

    def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The offsets that the next messages get."""
        consumer = next(iter(self._groups.values()))
        return {
            (where.topic, where.partition): consumer.get_watermark_offsets(where, RPC_S)[1]
            for where in self.where(topics)
        }

    def committed(self, group: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """What a group has committed; 0 where it has nothing."""
        found = self._groups[group].committed(self.where(topics), RPC_S)
        return {(one.topic, one.partition): max(0, one.offset) for one in found}

    def behind(self, group: str, topics: list[str]) -> int:
        """Messages that a group has not acknowledged."""
        done = self.committed(group, topics)
        ends = self.ends(topics)
        return sum(end - done[where] for where, end in ends.items())

    def owners(self, group: str) -> dict[str, set[tuple[str, int]]]:
        """Member id → partitions, once the group is stable; empty while it is not."""
        try:
            found = self._admin.describe_consumer_groups([group], request_timeout=RPC_S)[group].result()
        except KafkaException:
            return {}
        if found.state.name != "STABLE":
            return {}
        return {member.member_id: {(one.topic, one.partition) for one in member.assignment.topic_partitions}
                for member in found.members}  # fmt: skip

    def refuse_writes(self, topics: Iterable[str], refuse: bool) -> None:
        """Let a pair of brokers, one of which is away, refuse writes with acks=all; reading goes on."""
        resources = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
                ConfigEntry("min.insync.replicas", f"{1 + refuse}", incremental_operation=AlterConfigOpType.SET)])
            for topic in topics
        ]  # fmt: skip
        # A client of its own: one that asked before may take the broker that is away now for the controller.
        admin = AdminClient(self._servers)
        for future in admin.incremental_alter_configs(resources, request_timeout=RPC_S).values():
            future.result()


class CheckpointWatch:
    """Sees checkpoints of the sessionize stage being written, record by record."""

    def __init__(self, line: Installation) -> None:
        settings = line.settings
        self._consumer = Consumer({
            "bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": f"{line.name}-watch",
            "fetch.wait.max.ms": 100, "enable.auto.commit": False, "log_level": 0,
        })  # fmt: skip
        topic = settings.topics.sessions_state
        ends = line.offsets.ends([topic])
        self._consumer.assign([TopicPartition(where, n, end) for (where, n), end in ends.items()])
        self._open: set[int] = set()

    def begun(self, wait_s: float = 0.05) -> bool:
        """Whether the newest record seen of some partition is none that completes a checkpoint."""
        first = self._consumer.poll(wait_s)
        for message in [first, *self._consumer.consume(1000, 0.0)]:
            if message is None or message.error() or message.value() is None:
                continue
            (self._open.discard if message.key() == HEAD else self._open.add)(message.partition())
        return bool(self._open)

    def freeze(self, process: Process, within_s: float = 10.0) -> bool:
        """Freeze a process between the first and the last record of a checkpoint; whether that was hit."""
        deadline = Deadline(within_s)
        try:
            while deadline.left_s:
                if not self.begun():
                    continue
                process.freeze()
                if self._stays_open():
                    return True
                process.thaw()
        finally:
            self._consumer.close()
        process.freeze()
        return False

    def _stays_open(self) -> bool:
        """Whether a checkpoint is still incomplete when all that was sent has come."""
        deadline = Deadline(0.4)
        while deadline.left_s:
            self.begun()
        return bool(self._open)


# ── producing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Feed:
    """Produces the messages of a recording from a thread, each into its partition, in order, acknowledged.

    All sources go side by side in event time, never far ahead of what ingest has read: the watermark moves steadily,
    and sessions open and close all the time, as they do live.

    Args:
        line: where to.
        recording: what to produce.
    """

    def __init__(self, line: Installation, recording: Recording) -> None:
        settings = line.settings
        self._raw = line.raw
        self._group = f"{line.name}-ingest"
        self._recording = recording
        self._where = line.offsets.where(topic.name for topic in settings.topics.raw)
        self._sent = 0
        self._failed: list[Any] = []
        servers = {"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0}
        self._offsets = Consumer(servers | {"group.id": self._group, "enable.auto.commit": False})
        self._producer = Producer(servers | {
            "enable.idempotence": True, "linger.ms": 20, "message.max.bytes": settings.topics.max_message_bytes,
            "compression.type": "lz4", "delivery.timeout.ms": 120_000,
        })  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.hold = 1.0
        """Go no further than this share, for now."""
        self.share = 0.0
        """What was produced."""

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._offsets.close()

    @property
    def done(self) -> bool:
        """Whether all is produced and durable.

        Raises:
            AssertionError: Kafka refused something.
        """
        assert not self._failed, f"not produced: {self._failed[0]}"
        return self.share >= 1.0

    def _run(self) -> None:
        try:
            for step, messages in enumerate(self._recording.shares(STEPS)):
                while step / STEPS >= self.hold or self._ahead() > AHEAD:
                    self._producer.poll(0)
                    if self._stop.wait(0.02):
                        return
                for source, message in messages:
                    self._put(source, message)
                self.share = step / STEPS
            left = self._producer.flush(120)
            assert not left, f"{left} messages were not acknowledged"
            self.share = 1.0
        except (AssertionError, KafkaException, BufferError) as error:
            self._failed.append(error)

    def _ahead(self) -> int:
        """Messages that were sent and not yet read for good; many, while the broker does not say."""
        if self._sent <= AHEAD:
            return 0
        try:
            found = self._offsets.committed(self._where, RPC_S)
        except KafkaException:
            return AHEAD + 1
        return self._sent - int(sum(max(0, one.offset) for one in found))

    def _put(self, source: Source, message: Message) -> None:
        topic, partition = source
        self._producer.produce(f"{self._raw}.{topic}", message.value, partition=partition, on_delivery=self._told)
        self._producer.poll(0)
        self._sent += 1

    def _told(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed.append(error)


def _sample(line: str) -> tuple[str, dict[str, str], float]:
    name, _, value = line.rpartition(" ")
    name, _, labels = name.rstrip("}").partition("{")
    pairs = (pair.split('="') for pair in labels.removesuffix('"').split('",') if pair)
    return name, {key: value for key, value in pairs}, float(value)
