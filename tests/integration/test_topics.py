"""Topics on Apache Kafka: made as configured, and each way in which they may differ is told with its fix."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAuthorizationFailedError

from streams._process import wait_until
from streams.errors import TopicMismatch
from streams.settings import ENV_PREFIX, Settings
from streams.topics import HOUR_MS, TUNING, Cluster, Found, Topics, TopicSpec, _differences, specs
from tests.conftest import KafkaUnderTest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("real_kafka_or_skip")]
OURS = ("events", "counts", "findings", "dead_letters", "sessions_state", "watch_state")
WRONG_SETTINGS = [
    ("events", "cleanup.policy", "compact", "delete"),
    ("events", "cleanup.policy", "compact,delete", "delete"),
    ("counts", "cleanup.policy", "compact", "delete"),
    ("dead_letters", "cleanup.policy", "compact", "compact,delete"),
    ("dead_letters", "cleanup.policy", "delete", "compact,delete"),
    ("sessions_state", "cleanup.policy", "delete", "compact"),
    ("watch_state", "cleanup.policy", "compact,delete", "compact"),
    ("findings", "cleanup.policy", "delete", "compact"),
    ("events", "retention.ms", str(HOUR_MS), str(72 * HOUR_MS)),
    ("counts", "retention.ms", str(72 * HOUR_MS - 1), str(72 * HOUR_MS)),
    ("events", "max.message.bytes", "1000000", "12000000"),
    ("sessions_state", "max.message.bytes", "500000", "12000000"),
    ("events", "min.insync.replicas", "2", "1"),
]
GENEROUS = [
    ("events", "retention.ms", "-1"),
    ("events", "retention.ms", str(1000 * HOUR_MS)),
    ("counts", "max.message.bytes", "13000000"),
    ("sessions_state", "segment.ms", "60000"),
]


def made(bootstrap: str, **topics: Any) -> Settings:
    own = f"t{uuid.uuid4().hex[:8]}"
    names = {name: f"{own}.{name}" for name in OURS} | {"raw": [{"name": f"{own}.raw"}]}
    return Settings.model_validate({"app_id": own, "kafka": {"bootstrap_servers": bootstrap}, "topics": names | topics})


def changed(settings: Settings, **topics: Any) -> Settings:
    return settings.model_copy(update={"topics": settings.topics.model_copy(update=topics)})


@pytest.fixture(scope="module")
def admin(kafka: KafkaUnderTest) -> Iterator[KafkaAdminClient]:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as client:
        yield client


@pytest.fixture
def settings(kafka: KafkaUnderTest) -> Settings:
    new = made(kafka.bootstrap)
    with Topics(new) as topics:
        assert set(topics.create()) == {spec.name for spec in specs(new)}
        assert topics.create() == []
    return new


def set_config(admin: KafkaAdminClient, topic: str, key: str, value: str) -> None:
    """As an operator would; returns when the broker has heard of it."""
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])

    def is_seen() -> bool:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        return bool(next(iter(found.values()))[topic][key]["value"] == value)

    assert wait_until(is_seen, 5.0)


def set_partitions(admin: KafkaAdminClient, topic: str, count: int) -> None:
    admin.create_partitions({topic: NewPartitions(count)})
    assert wait_until(lambda: len(admin.describe_topics([topic])[0]["partitions"]) == count, 5.0)


def wrong(settings: Settings) -> list[str]:
    with Topics(settings) as topics:
        return topics.check()


def refused(settings: Settings) -> str:
    """What a worker would say at start."""
    with Topics(settings) as topics, pytest.raises(TopicMismatch) as error:
        topics.require()
    return str(error.value)


def fixed(settings: Settings) -> list[str]:
    with Topics(settings) as topics:
        done = topics.fix()
        assert topics.check() == []
        topics.require()
    return done


def test_what_create_makes_is_what_is_configured(settings: Settings, admin: KafkaAdminClient) -> None:
    assert wrong(settings) == []
    found = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, spec.name) for spec in specs(settings)], config_filter="all"
    )
    by_name = next(iter(found.values()))
    for spec in specs(settings):
        assert {key: by_name[spec.name][key]["value"] for key in spec.config} == spec.config
    topics = settings.topics
    described = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
    assert {name: described[name] for name in (topics.events, topics.counts, topics.findings, topics.raw[0].name)} == {
        topics.events: 4, topics.counts: 2, topics.findings: 1, topics.raw[0].name: 4,
    }  # fmt: skip
    assert by_name[topics.sessions_state]["cleanup.policy"]["value"] == "compact"
    assert by_name[topics.events]["retention.ms"]["value"] == str(72 * HOUR_MS)


@pytest.mark.parametrize(("knob", "key", "have", "want"), WRONG_SETTINGS)
def test_a_wrong_setting_stops_the_start_and_says_its_fix_which_works(
    settings: Settings, admin: KafkaAdminClient, knob: str, key: str, have: str, want: str
) -> None:
    topic = getattr(settings.topics, knob)
    set_config(admin, topic, key, have)
    command = (
        f"kafka-configs.sh --bootstrap-server {settings.kafka.bootstrap_servers} --alter --topic {topic}"
        f" --add-config {key}={f'[{want}]' if ',' in want else want}"
    )
    said = f"{topic}: {key} is {have}, should be {want}. Fix: trustwatch topics fix, or {command}"
    assert wrong(settings) == [said]
    assert refused(settings) == said
    assert fixed(settings) == [f"{topic}: {key}={want}"]


@pytest.mark.parametrize(("knob", "key", "have"), GENEROUS)
def test_what_errs_on_the_safe_side_is_no_mismatch(
    settings: Settings, admin: KafkaAdminClient, knob: str, key: str, have: str
) -> None:
    set_config(admin, getattr(settings.topics, knob), key, have)
    assert wrong(settings) == []


@pytest.mark.parametrize("key", sorted(TUNING))
def test_slow_compaction_is_told_but_does_not_stop_the_start(
    settings: Settings, admin: KafkaAdminClient, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = settings.topics.sessions_state
    set_config(admin, topic, key, "0.9" if "ratio" in key else "1000000000")
    (sentence,) = wrong(settings)
    assert sentence.startswith(f"{topic}: {key} is ") and "Fix: trustwatch topics fix" in sentence
    with Topics(settings) as topics:
        topics.require()
    assert sentence in caplog.text
    assert len(fixed(settings)) == 1


@pytest.mark.parametrize("configured", [3, 5])
def test_too_many_and_too_few_partitions(settings: Settings, configured: int) -> None:
    said = refused(changed(settings, events_partitions=configured))
    topics = settings.topics
    for topic in (topics.events, topics.sessions_state):
        assert f"{topic}: has 4 partitions, should have {configured} (topics.events_partitions)" in said
        assert f"--delete --topic {topic} && trustwatch topics create" in said
    assert "set topics.events_partitions to 4" in said
    assert topics.counts not in said


def test_a_state_topic_with_more_partitions_than_its_log(settings: Settings, admin: KafkaAdminClient) -> None:
    topic = settings.topics.watch_state
    set_partitions(admin, topic, 3)
    said = refused(settings)
    assert said.startswith(f"{topic}: has 3 partitions, should have 2 (topics.counts_partitions). Fix: ")
    with Topics(settings) as topics:
        assert topics.fix() == [], "partitions are never changed for you"


def test_a_second_partition_of_a_topic_that_needs_one(settings: Settings, admin: KafkaAdminClient) -> None:
    topic = settings.topics.findings
    set_partitions(admin, topic, 2)
    assert refused(settings) == (
        f"{topic}: has 2 partitions, should have 1. Fix: kafka-topics.sh --bootstrap-server"
        f" {settings.kafka.bootstrap_servers} --delete --topic {topic} && trustwatch topics create"
    )


def test_a_missing_topic(settings: Settings) -> None:
    absent = changed(settings, counts=f"{settings.app_id}.nowhere")
    assert refused(absent) == f"{settings.app_id}.nowhere: missing. Fix: trustwatch topics create"
    with Topics(absent) as topics:
        assert topics.create() == [f"{settings.app_id}.nowhere"]
    assert wrong(absent) == []


def test_too_few_replicas(settings: Settings) -> None:
    wants_three = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"replication_factor": 3})})
    said = refused(wants_three)
    assert said.count("has 1 replicas, should have 3 (kafka.replication_factor)") == len(OURS)
    assert "Fix: start 2 more brokers, or set kafka.replication_factor to 1" in said
    with Topics(wants_three) as topics:
        assert topics.fix() == [], "two in sync of one replica could never be written to"
    with Topics(changed(wants_three, events=f"{settings.app_id}.new")) as topics:
        with pytest.raises(TopicMismatch, match=r"replication_factor is 3, the cluster has 1 brokers\. Fix: "):
            topics.create()


def test_where_brokers_are_enough_the_fix_is_a_plan_for_each_partition() -> None:
    spec = TopicSpec("t", 3, {"min.insync.replicas": "2"})
    found = Found([[2], [3, 1], [1]], {"min.insync.replicas": "1"})
    (difference,) = _differences(spec, found, Cluster("b:9092", [1, 2, 3, 4], 3))
    assert difference.problem == "has 1 replicas, should have 3 (kafka.replication_factor)"
    command, _, plan = difference.fix.partition("<(echo '")
    assert command == "kafka-reassign-partitions.sh --bootstrap-server b:9092 --execute --reassignment-json-file "
    assert json.loads(plan.removesuffix("')")) == {"version": 1, "partitions": [
        {"topic": "t", "partition": 0, "replicas": [2, 1, 3]},
        {"topic": "t", "partition": 1, "replicas": [3, 1, 2]},
        {"topic": "t", "partition": 2, "replicas": [1, 3, 4]},
    ]}  # fmt: skip


def test_with_three_replicas_two_must_have_a_write() -> None:
    settings = Settings.model_validate({"kafka": {"replication_factor": 3}})
    assert {spec.config["min.insync.replicas"] for spec in specs(settings)} == {"2"}


def test_a_raw_topic_is_yours_but_one_that_compacts_loses_events(settings: Settings, admin: KafkaAdminClient) -> None:
    raw = settings.topics.raw[0].name
    set_config(admin, raw, "retention.ms", "60000")
    set_partitions(admin, raw, 6)
    assert wrong(settings) == []
    set_config(admin, raw, "cleanup.policy", "compact")
    said = refused(settings)
    assert said.startswith(f"{raw}: cleanup.policy is compact, should be delete. Fix: kafka-configs.sh ")
    with Topics(settings) as topics:
        assert topics.fix() == [], "yours is left to you"


def test_a_topic_that_somebody_else_makes_at_the_same_moment(
    kafka: KafkaUnderTest, admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = made(kafka.bootstrap)
    with Topics(new) as topics:
        looked = topics.found

        def look_then_lose_the_race() -> dict[str, Found]:
            before = looked()
            if new.topics.counts not in before:
                admin.create_topics([NewTopic(new.topics.counts, 2, 1)])
            return before

        monkeypatch.setattr(topics, "found", look_then_lose_the_race)
        topics.create()
        assert set(looked()) >= {spec.name for spec in specs(new)}


def test_without_the_right_to_read_settings_partitions_are_still_checked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise TopicAuthorizationFailedError()

    with Topics(settings) as topics:
        monkeypatch.setattr(topics._admin, "describe_configs", denied)
        topics.require()
    assert "Fix: grant this user DESCRIBE_CONFIGS" in caplog.text


def test_a_worker_refuses_and_the_command_line_fixes(settings: Settings, admin: KafkaAdminClient) -> None:
    topics = settings.topics
    set_config(admin, topics.sessions_state, "cleanup.policy", "delete")
    given = {f"TOPICS__{name.upper()}": getattr(topics, name) for name in OURS}
    given |= {"TOPICS__RAW": json.dumps([{"name": topics.raw[0].name}]), "METRICS__PORT": "0", "WEB__PORT": "0",
              "KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
              "PRIVACY__PSEUDONYM_KEY": "a key for tests only"}  # fmt: skip

    def trustwatch(*command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {ENV_PREFIX + name: value for name, value in given.items()}
        return subprocess.run(
            [sys.executable, "-m", "streams.cli", *command], env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    worker = trustwatch("worker")
    assert worker.returncode == 2
    assert f"{topics.sessions_state}: cleanup.policy is delete, should be compact. Fix: " in worker.stderr
    assert "Traceback" not in worker.stderr
    assert trustwatch("topics", "check").returncode == 1
    done = trustwatch("topics", "fix")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"set {topics.sessions_state}: cleanup.policy=compact\ntopics are as configured\n"
