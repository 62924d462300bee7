"""`trustwatch topics create|check`: our topics with the right partitions, retention and compaction (kafka-python)."""

from __future__ import annotations

from typing import Final

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from streams.errors import BrokerUnavailable, TopicMismatch
from streams.kafka import kafka_python_options
from streams.settings import Settings

HOUR_MS: Final = 3_600_000


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as it should be."""

    name: str
    partitions: int
    config: dict[str, str]


def specs(settings: Settings, *, raw: bool = True) -> list[TopicSpec]:
    """All topics of an installation; the raw ones are yours, they are only made if they are missing."""
    topics = settings.topics
    size = {"max.message.bytes": str(topics.max_message_bytes)}
    log = size | {"cleanup.policy": "delete", "retention.ms": str(topics.retention_hours * HOUR_MS)}
    # Checkpoints are rewritten every few seconds: small segments let compaction keep topic and cold start short.
    compacted = size | {"cleanup.policy": "compact"}
    state = compacted | {
        "segment.bytes": str(64 * 1024 * 1024),
        "segment.ms": "600000",
        "min.cleanable.dirty.ratio": "0.1",
    }
    ours = [
        TopicSpec(topics.events, topics.events_partitions, log),
        TopicSpec(topics.counts, topics.counts_partitions, log),
        TopicSpec(topics.findings, 1, compacted),
        TopicSpec(topics.dead_letters, 1, log),
        TopicSpec(topics.sessions_state, topics.events_partitions, state),
        TopicSpec(topics.watch_state, topics.counts_partitions, state),
    ]
    return ours + [TopicSpec(topic.name, topics.raw_partitions, size) for topic in topics.raw if raw]


class Topics:
    """Creates and checks topics.

    Args:
        settings: connection and topics.

    Raises:
        BrokerUnavailable: no broker answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        try:
            self._admin = KafkaAdminClient(**kafka_python_options(settings.kafka))
        except (KafkaError, ValueError, OSError) as error:
            raise BrokerUnavailable(f"kafka.bootstrap_servers {settings.kafka.bootstrap_servers}: {error}") from error

    def __enter__(self) -> Topics:
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.close()

    def create(self) -> list[str]:
        """Make the topics that are missing; returns their names. Existing ones are left as they are."""
        existing = self.partitions()
        missing = [spec for spec in specs(self._settings) if spec.name not in existing]
        factor = self._settings.kafka.replication_factor
        new = [NewTopic(spec.name, spec.partitions, factor, topic_configs=spec.config) for spec in missing]
        if new:
            try:
                self._admin.create_topics(new)
            except TopicAlreadyExistsError:
                return self.create()  # another process made one meanwhile
        return [spec.name for spec in missing]

    def check(self) -> list[str]:
        """What is wrong, a sentence each with its fix; empty if all is right."""
        existing, wrong = self.partitions(), list[str]()
        raw = {topic.name for topic in self._settings.topics.raw}
        configs = self._configs([spec.name for spec in specs(self._settings) if spec.name in existing])
        for spec in specs(self._settings):
            found = existing.get(spec.name)
            if found is None:
                wrong.append(_missing(spec.name))
            elif spec.name not in raw:
                wrong += _differences(spec, found, configs.get(spec.name, {}))
        return wrong

    def require(self) -> None:
        """Refuse to start on topics that are missing or have other partitions than the state is made for.

        Raises:
            TopicMismatch: names each topic and the fix.
        """
        existing = self.partitions()
        raw = {topic.name for topic in self._settings.topics.raw}
        wrong = []
        for spec in specs(self._settings):
            found = existing.get(spec.name)
            if found is None:
                wrong.append(_missing(spec.name))
            elif spec.name not in raw and found != spec.partitions:
                wrong.append(_wrong_partitions(spec, found))
        if wrong:
            raise TopicMismatch("; ".join(wrong))

    def partitions(self) -> dict[str, int]:
        """Partitions of every topic that exists."""
        described = self._admin.describe_topics()
        return {topic["name"]: len(topic["partitions"]) for topic in described}

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found = self._admin.describe_configs(resources, config_filter="all")
        by_name: dict[str, dict[str, dict[str, object]]] = next(iter(found.values()), {})
        return {name: {key: str(entry["value"]) for key, entry in config.items()} for name, config in by_name.items()}


def _missing(name: str) -> str:
    return f"{name}: missing. Fix: trustwatch topics create"


def _wrong_partitions(spec: TopicSpec, found: int) -> str:
    return (
        f"{spec.name}: has {found} partitions, configured are {spec.partitions}."
        f" Fix: set topics.*_partitions to {found}, or delete the topic and its state and create it anew"
    )


def _differences(spec: TopicSpec, partitions: int, config: dict[str, str]) -> list[str]:
    wrong = []
    if partitions != spec.partitions:
        wrong.append(_wrong_partitions(spec, partitions))
    for key, want in spec.config.items():
        have = config.get(key)
        if have is not None and have != want:
            wrong.append(f"{spec.name}: {key} is {have}, should be {want}."
                         f" Fix: kafka-configs.sh --alter --topic {spec.name}"
                         f" --add-config {key}={want}")  # fmt: skip
    return wrong
