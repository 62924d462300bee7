"""`trustwatch topics create|check|fix`: our topics with the right partitions, retention and compaction (kafka-python).

A topic that is not as configured would lose events quietly: a log that is compacted or kept too short, a state topic
that forgets, a message that no longer fits. So a worker starts only if all are right, and each error says its fix.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from streams._process import wait_until
from streams.connection import explain
from streams.errors import BrokerUnavailable, TopicMismatch
from streams.kafka import kafka_python_options
from streams.settings import Settings

HOUR_MS: Final = 3_600_000
TUNING: Final = frozenset({
    "segment.bytes", "segment.ms", "min.cleanable.dirty.ratio", "delete.retention.ms", "max.compaction.lag.ms",
})  # fmt: skip
"""How fast compaction keeps up: larger values cost disk and start-up time, and what was erased stays on disk longer."""
SETTLE_S: Final = 5.0
"""What the controller has done is seen by the brokers within milliseconds; we wait at most this long."""
DENIED: Final = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
log = logging.getLogger(__name__)


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as it should be.

    Attributes:
        name: topic.
        partitions: how many.
        config: the broker's name of a setting → value.
        knob: our setting that says how many partitions; None where it is always one, or the topic is yours.
        raw: it is yours: made if it is missing, left alone otherwise.
    """

    name: str
    partitions: int
    config: dict[str, str]
    knob: str | None = None
    raw: bool = False


class Found(msgspec.Struct, frozen=True):
    """A topic as it is: replicas of each partition (broker ids), and its settings."""

    replicas: list[list[int]]
    config: dict[str, str] = {}

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.replicas)

    @property
    def fewest_replicas(self) -> int:
        """Replicas of the partition that has the fewest."""
        return min(map(len, self.replicas), default=0)


class Difference(msgspec.Struct, frozen=True):
    """What is wrong with one topic.

    Attributes:
        topic: its name.
        problem: what is, and what should be.
        fix: what to do: a command, where one does it.
        setting: the topic's setting that differs, if it is one.
        harmless: it costs disk or start-up time only.
    """

    topic: str
    problem: str
    fix: str
    setting: str | None = None
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.topic}: {self.problem}. Fix: {self.fix}"


def specs(settings: Settings, *, raw: bool = True) -> list[TopicSpec]:
    """All topics of an installation; the raw ones are yours, they are only made if they are missing."""
    topics, factor = settings.topics, settings.kafka.replication_factor
    # With three replicas a write that two have taken survives the loss of a broker, and one may be down for repair.
    size = {"max.message.bytes": str(topics.max_message_bytes), "min.insync.replicas": "2" if factor >= 3 else "1"}
    kept = size | {"cleanup.policy": "delete", "retention.ms": str(topics.retention_hours * HOUR_MS)}
    compacted = size | {"cleanup.policy": "compact"}
    # Checkpoints are rewritten all the time: small segments let compaction keep topic and cold start short. Within the
    # lag what somebody had erased is gone from disk, too.
    state = compacted | {
        "segment.bytes": str(64 * 1024 * 1024),
        "segment.ms": "600000",
        "max.compaction.lag.ms": str(HOUR_MS),
        "min.cleanable.dirty.ratio": "0.1",
        "delete.retention.ms": str(HOUR_MS),
    }
    # Letters end by retention, and before it by an erasure: then compaction must not let it wait.
    letters = kept | {
        "cleanup.policy": "compact,delete",
        "segment.bytes": str(16 * 1024 * 1024),
        "segment.ms": "600000",
        "max.compaction.lag.ms": str(HOUR_MS),
        "min.cleanable.dirty.ratio": "0.01",
        "delete.retention.ms": str(HOUR_MS),
    }
    events, counts = "topics.events_partitions", "topics.counts_partitions"
    ours = [
        TopicSpec(topics.events, topics.events_partitions, kept, events),
        TopicSpec(topics.counts, topics.counts_partitions, kept, counts),
        TopicSpec(topics.findings, 1, compacted),
        TopicSpec(topics.dead_letters, 1, letters),
        TopicSpec(topics.sessions_state, topics.events_partitions, state, events),
        TopicSpec(topics.watch_state, topics.counts_partitions, state, counts),
    ]
    return ours + [TopicSpec(topic.name, topics.raw_partitions, size, raw=True) for topic in topics.raw if raw]


class Topics:
    """Creates and checks topics.

    Args:
        settings: connection and topics.

    Raises:
        BrokerUnavailable: no broker answers, or it does not let us in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._where = settings.kafka.bootstrap_servers
        try:
            self._admin = KafkaAdminClient(**kafka_python_options(settings.kafka))
        except (KafkaError, ValueError, OSError) as error:
            raise BrokerUnavailable(explain(settings.kafka, error)) from error

    def __enter__(self) -> Topics:
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.close()

    def create(self) -> list[str]:
        """Make the topics that are missing; returns their names. Existing ones are left as they are.

        Raises:
            TopicMismatch: the broker refuses; the message says why.
        """
        existing = self.found()
        missing = [spec for spec in specs(self._settings) if spec.name not in existing]
        factor = self._settings.kafka.replication_factor
        new = [NewTopic(spec.name, spec.partitions, factor, topic_configs=spec.config) for spec in missing]
        if new:
            try:
                self._admin.create_topics(new)
            except TopicAlreadyExistsError:
                return self.create()  # another process made one meanwhile
            except InvalidReplicationFactorError as error:
                raise TopicMismatch(
                    f"kafka.replication_factor is {factor}, the cluster has {len(self._brokers())} brokers."
                    f" Fix: set kafka.replication_factor to at most that, or start more brokers"
                ) from error
            except KafkaError as error:
                names = ", ".join(spec.name for spec in missing)
                fix = "grant this user CREATE, or have the topics made for it"
                raise TopicMismatch(f"{names}: cannot be created: {error}. Fix: {fix}") from error
            # The controller has made them; the brokers hear of it a moment later.
            wait_until(lambda: {spec.name for spec in missing} <= self.found().keys(), SETTLE_S)
        return [spec.name for spec in missing]

    def check(self) -> list[str]:
        """What is wrong, a sentence each with its fix; empty if all is right."""
        return [str(difference) for difference in self.differences()]

    def require(self) -> None:
        """Refuse to start on topics that are missing or would lose something.

        Raises:
            TopicMismatch: names each topic, what is, what should be, and the fix.
        """
        wrong = []
        for difference in self.differences():
            if difference.harmless:
                log.warning("%s", difference)
            else:
                wrong.append(str(difference))
        if wrong:
            raise TopicMismatch("; ".join(wrong))

    def fix(self) -> list[str]:
        """Set what differs in the settings of our topics; returns `topic: setting=value` of what was changed.

        Nothing is deleted, partitions and replicas stay, and so do your raw topics.

        Raises:
            TopicMismatch: the broker refuses.
        """
        wanted = {spec.name: spec.config for spec in specs(self._settings, raw=False)}
        changes: dict[str, dict[str, str]] = {}
        for difference in self.differences():
            if difference.setting is not None and difference.topic in wanted:
                value = wanted[difference.topic][difference.setting]
                changes.setdefault(difference.topic, {})[difference.setting] = value
        if changes:
            self._change(changes)
        return [f"{name}: {key}={value}" for name, configs in changes.items() for key, value in configs.items()]

    def _change(self, changes: dict[str, dict[str, str]]) -> None:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs) for name, configs in changes.items()]
        try:
            self._admin.alter_configs(resources)
        except KafkaError as error:
            fix = "grant this user ALTER_CONFIGS, or have it done"
            raise TopicMismatch(f"{', '.join(changes)}: cannot be changed: {error}. Fix: {fix}") from error

        def is_seen() -> bool:
            now = self._configs(list(changes))
            return all(now[name].items() >= configs.items() for name, configs in changes.items())

        wait_until(is_seen, SETTLE_S)

    def differences(self) -> list[Difference]:
        """All that is not as configured, in the order of the line."""
        wanted, existing, brokers = specs(self._settings), self.found(), self._brokers()
        configs = self._configs([spec.name for spec in wanted if spec.name in existing])
        wrong: list[Difference] = []
        for spec in wanted:
            found = existing.get(spec.name)
            if found is None:
                wrong.append(Difference(spec.name, "missing", "trustwatch topics create"))
                continue
            found = msgspec.structs.replace(found, config=configs.get(spec.name, {}))
            factor = self._settings.kafka.replication_factor
            wrong += _differences(spec, found, Cluster(self._where, brokers, factor))
        return wrong

    def found(self) -> dict[str, Found]:
        """Every topic that exists, without its settings."""
        described = self._admin.describe_topics()
        return {topic["name"]: Found(_replicas(topic["partitions"])) for topic in described}

    def _brokers(self) -> list[int]:
        return sorted(int(broker["broker_id"]) for broker in self._admin.describe_cluster()["brokers"])

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Settings by topic; nothing where we may not read them, so that a worker needs no more rights than to work."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        try:
            found = self._admin.describe_configs(resources, config_filter="all")
        except DENIED as error:
            log.warning("topics: only their partitions were checked, not their settings: %s."
                        " Fix: grant this user DESCRIBE_CONFIGS", error)  # fmt: skip
            return {}
        by_name: dict[str, dict[str, dict[str, object]]] = next(iter(found.values()), {})
        return {name: {key: str(entry["value"]) for key, entry in config.items()} for name, config in by_name.items()}


def _replicas(partitions: Iterable[dict[str, Any]]) -> list[list[int]]:
    """Broker ids by partition, in the order of their numbers: brokers answer in any order."""
    return [list(one["replica_nodes"]) for one in sorted(partitions, key=lambda one: int(one["partition_index"]))]


# ── what differs, and its fix ─────────────────────────────────────────────────────────────────────────────────────────


class Cluster(msgspec.Struct, frozen=True):
    """Where the topics are: bootstrap servers, broker ids, and the replicas that are asked for."""

    where: str
    brokers: list[int]
    factor: int


def _differences(spec: TopicSpec, found: Found, cluster: Cluster) -> list[Difference]:
    if spec.raw:
        if "compact" not in found.config.get("cleanup.policy", ""):
            return []
        return [_wrong_setting(spec, "cleanup.policy", found.config["cleanup.policy"], "delete", cluster.where)]
    wrong = []
    if found.partitions != spec.partitions:
        wrong.append(_wrong_partitions(spec, found.partitions, cluster.where))
    if found.fewest_replicas < cluster.factor:
        wrong.append(_too_few_replicas(spec, found, cluster))
    for key, want in spec.config.items():
        have = found.config.get(key)
        if have is not None and not _suits(key, have, want, found):
            wrong.append(_wrong_setting(spec, key, have, want, cluster.where))
    return wrong


def _suits(key: str, have: str, want: str, found: Found) -> bool:
    """Whether a setting is as it should be, or errs on the safe side."""
    rules: dict[str, Callable[[float, float], bool]] = {
        "retention.ms": lambda is_, least: is_ == -1 or is_ >= least,
        "max.message.bytes": lambda is_, least: is_ >= least,
        # A topic that needs more in sync than it has could never be written to.
        "min.insync.replicas": lambda is_, least: min(least, found.fewest_replicas) <= is_ <= found.fewest_replicas,
        **{name: lambda is_, most: is_ <= most for name in TUNING},
    }
    if key not in rules:
        return set(have.split(",")) == set(want.split(","))
    return rules[key](float(have), float(want))


def _wrong_setting(spec: TopicSpec, key: str, have: str, want: str, where: str) -> Difference:
    value = f"[{want}]" if "," in want else want  # as the tool wants lists
    command = f"kafka-configs.sh --bootstrap-server {where} --alter --topic {spec.name} --add-config {key}={value}"
    fix = command if spec.raw else f"trustwatch topics fix, or {command}"
    return Difference(spec.name, f"{key} is {have}, should be {want}", fix, key, harmless=key in TUNING)


def _wrong_partitions(spec: TopicSpec, found: int, where: str) -> Difference:
    problem = f"has {found} partitions, should have {spec.partitions}"
    again = f"kafka-topics.sh --bootstrap-server {where} --delete --topic {spec.name} && trustwatch topics create"
    if spec.knob is None:
        return Difference(spec.name, problem, again)
    return Difference(spec.name, f"{problem} ({spec.knob})", f"set {spec.knob} to {found} (if all topics with this knob"
                      f" have as many; the state starts afresh from the log), or {again}")  # fmt: skip


def _too_few_replicas(spec: TopicSpec, found: Found, cluster: Cluster) -> Difference:
    have = found.fewest_replicas
    problem = f"has {have} replicas, should have {cluster.factor} (kafka.replication_factor)"
    if len(cluster.brokers) < cluster.factor:
        return Difference(spec.name, problem, f"start {cluster.factor - len(cluster.brokers)} more brokers,"
                          f" or set kafka.replication_factor to {have}")  # fmt: skip
    plan = msgspec.json.encode({"version": 1, "partitions": [
        {"topic": spec.name, "partition": number, "replicas": _spread(number, replicas, cluster)}
        for number, replicas in enumerate(found.replicas)]}).decode()  # fmt: skip
    return Difference(spec.name, problem, f"kafka-reassign-partitions.sh --bootstrap-server {cluster.where} --execute"
                      f" --reassignment-json-file <(echo '{plan}')")  # fmt: skip


def _spread(partition: int, replicas: Sequence[int], cluster: Cluster) -> list[int]:
    """The replicas that a partition has, and others in turn, so that no broker takes them all."""
    turned: Iterable[Any] = [*cluster.brokers[partition % len(cluster.brokers) :], *cluster.brokers]
    return list(dict.fromkeys([*replicas, *turned]))[: max(cluster.factor, len(replicas))]
