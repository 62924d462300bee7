"""`trustwatch doctor`: what is wrong with an installation, and the fix.

Each check stands alone, ends in time, and becomes a sentence whatever happens. Nothing is written or joined: committed
offsets are read by the admin client, so a running worker never notices.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from urllib.request import HTTPDefaultErrorHandler, HTTPErrorProcessor, HTTPHandler, HTTPSHandler, OpenerDirector

import msgspec
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import CoordinatorNotAvailableError, KafkaError, UnsupportedVersionError

from dashboards.grafana import Grafana
from dashboards.names import PROMETHEUS_UID
from streams.connection import explain
from streams.errors import ConfigError, GrafanaRefused, TrustwatchError
from streams.formats._tables import KNOB, unmapped
from streams.ingest import Door
from streams.kafka import kafka_python_options
from streams.privacy import Privacy
from streams.settings import Settings
from streams.topics import Topics
from streams.units import Plan

Result = Literal["ok", "warn", "fail", "skip"]
CHECK_S: Final = 20.0
"""No check takes longer than this."""
KAFKA_S: Final = 10.0
HTTP_S: Final = 3.0
COORDINATOR_S: Final = 3.0
AHEAD_S: Final = 5.0
FRESH_S: Final = 60.0
EMBEDDED_CLUSTER: Final = "tansu_cluster"
FIX_SEPARATOR: Final = " Fix: "


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: what.
        result: `fail` is broken, `warn` may be meant so, `skip` could not be looked at.
        message: what was found.
        fix: what to do; None if there is nothing to do.
    """

    name: str
    result: Result
    message: str
    fix: str | None = None


Said = tuple[Result, str, str | None]
Probe = Callable[[Settings], Said]


def examine(settings: Settings) -> list[Check]:
    """Look at everything; never raises, and takes about `CHECK_S` seconds at most."""
    hasty = settings.model_copy(update={"kafka": settings.kafka.model_copy(
        update={"request_timeout_s": min(KAFKA_S, settings.kafka.request_timeout_s)})})  # fmt: skip
    first = _all_at_once({"settings": _look_at_settings, "broker": _look_at_broker}, hasty)
    on_broker: dict[str, Probe] = {
        "topics": _look_at_topics, "ingest lag": _look_at_ingest, "worker lag": _look_at_worker,
        "clock": _look_at_clock,
    }  # fmt: skip
    if first[-1].result == "fail":
        on_broker = dict.fromkeys(on_broker, lambda _settings: ("skip", "no broker to ask", None))
    nearby = {"prometheus": _look_at_prometheus, "grafana": _look_at_grafana, "worker metrics": _look_at_metrics}
    return first + _all_at_once({**on_broker, **nearby}, hasty)


# ── how a check runs ──────────────────────────────────────────────────────────────────────────────────────────────────


def _all_at_once(probes: dict[str, Probe], settings: Settings) -> list[Check]:
    deadline = time.monotonic() + CHECK_S
    answers: dict[str, queue.SimpleQueue[Check]] = {name: queue.SimpleQueue() for name in probes}
    for name, probe in probes.items():
        # A daemon: one that hangs in a socket must not keep the program from ending.
        threading.Thread(target=_run, args=(name, probe, settings, answers[name].put), daemon=True).start()
    return [_answer(name, answers[name], deadline) for name in probes]


def _answer(name: str, answers: queue.SimpleQueue[Check], deadline: float) -> Check:
    try:
        return answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        return Check(name, "fail", f"no answer within {CHECK_S:g} s", "look at the network between here and there")


def _run(name: str, probe: Probe, settings: Settings, put: Callable[[Check], None]) -> None:
    try:
        said = probe(settings)
    except TrustwatchError as error:
        message, _, fix = str(error).partition(FIX_SEPARATOR)
        said = ("fail", message.rstrip("."), fix or None)
    except KafkaError as error:
        said = ("fail", f"Kafka refused: {error}", "check the broker's log and the rights of this user")
    except Exception as error:  # a check that breaks is a finding too, and must not hide the others
        said = ("fail", f"the check itself failed: {type(error).__name__}: {error}", None)
    put(Check(name, *said))


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look_at_settings(settings: Settings) -> Said:
    """Build what a worker builds at start, short of connecting."""
    try:
        privacy = Privacy.from_settings(settings)
        Plan(settings)
        Door(settings, privacy, {})
    except ConfigError as error:
        return "fail", str(error), "correct the knob that is named, in the environment or in trustwatch.yaml"
    if advice := unmapped(settings):
        return "warn", advice, f"write a map of your tables (README: Debezium) and point {KNOB} to it"
    return "ok", "a worker could start with them; the pseudonym key is set", None


# ── Kafka ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _admin(settings: Settings) -> Iterator[Any]:
    timeout_ms = int(settings.kafka.request_timeout_s * 1000)
    admin = KafkaAdminClient(**kafka_python_options(settings.kafka) | {"bootstrap_timeout_ms": timeout_ms})
    try:
        yield admin
    finally:
        admin.close()


def _is_embedded(admin: Any) -> bool:
    """Whether it is the broker of the demo, which answers some questions wrong (see `streams.embedded`)."""
    return bool(admin.describe_cluster()["cluster_id"] == EMBEDDED_CLUSTER)


def _look_at_broker(settings: Settings) -> Said:
    where = settings.kafka.bootstrap_servers
    try:
        with _admin(settings) as admin:
            brokers, embedded = len(admin.describe_cluster()["brokers"]), _is_embedded(admin)
    except KafkaError as error:
        problem, _, fix = explain(settings.kafka, error).partition(FIX_SEPARATOR)
        fix = fix or "start Kafka, or set kafka.bootstrap_servers and security_protocol to yours"
        return "fail", problem.rstrip("."), fix
    if embedded:
        return "warn", f"{where}: the embedded broker; nothing survives its end", "use Apache Kafka beyond a demo"
    if brokers < settings.kafka.replication_factor:
        return ("warn", f"{where}: {brokers} brokers, kafka.replication_factor is {settings.kafka.replication_factor}",
                "lower kafka.replication_factor, or start more brokers")  # fmt: skip
    return "ok", f"{where}: {brokers} broker{'s' if brokers != 1 else ''}", None


def _look_at_topics(settings: Settings) -> Said:
    with Topics(settings) as topics:
        wrong = [sentence.partition(FIX_SEPARATOR) for sentence in topics.check()]
    if not wrong:
        return "ok", "all there, with the configured partitions, retention and compaction", None
    problems = "; ".join(problem.rstrip(".") for problem, _, _ in wrong)
    return "fail", problems, "; ".join(dict.fromkeys(fix for _, _, fix in wrong if fix))


class _Progress(msgspec.Struct):
    """Where a group is in one topic: partition → offset."""

    committed: dict[int, int]
    begins: dict[int, int]
    ends: dict[int, int]

    @property
    def behind(self) -> int:
        """Messages not acknowledged; a partition without a committed offset counts from its beginning."""
        return sum(max(0, end - self.committed.get(p, self.begins[p])) for p, end in self.ends.items())

    @property
    def overrun(self) -> list[int]:
        """Partitions that end before the offset that the group committed."""
        return [p for p, offset in self.committed.items() if offset > self.ends.get(p, offset)]


def _look_at_ingest(settings: Settings) -> Said:
    topics = [topic.name for topic in settings.topics.raw]
    return _lag(settings, f"{settings.app_id}-ingest", topics, "trustwatch ingest (or worker)")


def _look_at_worker(settings: Settings) -> Said:
    return _lag(settings, settings.app_id, [settings.topics.events, settings.topics.counts], "trustwatch worker")


def _lag(settings: Settings, group: str, topics: list[str], command: str) -> Said:
    with _admin(settings) as admin:
        embedded, before = _is_embedded(admin), _progress(admin, group, topics)
        if not any(progress.committed for progress in before.values()):
            return "warn", f"group {group} has never run: it has no committed offsets", f"start {command}"
        after = before
        if any(progress.behind for progress in before.values()):
            # Lag alone is no fault, standing still is: a live worker commits once a checkpoint is durable.
            time.sleep(min(settings.checkpoints.interval_s + 2.0, CHECK_S / 2))
            after = _progress(admin, group, topics)
    return _judge_lag(group, before, after, command, embedded=embedded)


def _judge_lag(
    group: str, before: dict[str, _Progress], after: dict[str, _Progress], command: str, *, embedded: bool
) -> Said:
    behind = ", ".join(f"{topic} {progress.behind:,}" for topic, progress in after.items())
    message = f"group {group} is behind by, messages: {behind}"
    if embedded:
        message += " (the embedded broker understates the end of a topic, so it may be more)"
    overrun = [topic for topic, progress in after.items() if progress.overrun]
    if overrun and not embedded:
        return ("fail", f"{message}; it has committed past the end of {', '.join(overrun)}: those topics lost records",
                "find out who deleted records; the line reads on from the topic's beginning")  # fmt: skip
    stuck = [topic for topic, now in after.items() if now.behind and now.committed == before[topic].committed]
    if stuck:
        return ("warn", f"{message}; committed nothing while we looked: {', '.join(stuck)} (a worker with a large state"
                " commits only every checkpoints.max_interval_s)",
                f"look again in a minute; if it stays so, start {command}, or read its log if it runs")  # fmt: skip
    return "ok", message, None


def _progress(admin: Any, group: str, topics: list[str]) -> dict[str, _Progress]:
    places = _partitions(admin, topics)
    committed = _committed(admin, group)
    begins = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST)) if places else {}
    ends = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)) if places else {}

    def of(topic: str, offsets: dict[Any, Any]) -> dict[int, int]:
        return {where.partition: found.offset for where, found in offsets.items() if where.topic == topic}

    return {topic: _Progress(of(topic, committed), of(topic, begins), of(topic, ends)) for topic in topics}


def _partitions(admin: Any, topics: Sequence[str]) -> list[TopicPartition]:
    """Partitions of those of the topics that exist."""
    found = [topic for topic in admin.describe_topics() if topic["name"] in topics]
    return [TopicPartition(topic["name"], part["partition_index"]) for topic in found for part in topic["partitions"]]


def _committed(admin: Any, group: str) -> dict[Any, Any]:
    """What the group committed; nothing on a cluster where no group ever did."""
    deadline = time.monotonic() + COORDINATOR_S
    while True:
        try:
            found = admin.list_group_offsets(group)[group]
            return {where: offset for where, offset in found.items() if offset.offset >= 0}
        except CoordinatorNotAvailableError:
            # The first question ever makes the broker create its offsets topic, which takes a moment.
            if time.monotonic() >= deadline:
                return {}
            time.sleep(0.3)


# ── clock ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look_at_clock(settings: Settings) -> Said:
    raw = [topic.name for topic in settings.topics.raw]
    ours = [settings.topics.events, settings.topics.counts, settings.topics.findings, settings.topics.dead_letters]
    with _admin(settings) as admin:
        if _is_embedded(admin):
            return "skip", "the embedded broker does not tell the newest timestamp of a topic", None
        try:
            ahead = [_newest_s(admin, topics) - time.time() for topics in (raw, ours)]
        except UnsupportedVersionError:
            return "skip", "this broker is too old to tell the newest timestamp of a topic (Kafka 3.0 can)", None
    return _judge_clock(*ahead)


def _newest_s(admin: Any, topics: list[str]) -> float:
    """Newest timestamp of any record in these topics, seconds since the epoch; -inf if there is none."""
    places = _partitions(admin, topics)
    found = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.MAX_TIMESTAMP)) if places else {}
    return max((offset.timestamp / 1000 for offset in found.values() if offset.timestamp >= 0), default=float("-inf"))


def _judge_clock(raw_s: float, ours_s: float) -> Said:
    """Whose clock is off.

    Args:
        raw_s: how far the newest record of your senders is ahead of our clock, seconds.
        ours_s: the same of the newest record that a worker wrote.

    >>> _judge_clock(60.0, 60.0)[1]
    "this machine's clock is behind: records of senders and workers are 60 s ahead of it"
    >>> _judge_clock(60.0, -1.0)[1]
    "the senders' clocks are ahead: their newest record is from 60 s in the future"
    >>> _judge_clock(float("-inf"), 60.0)[1]
    "the workers' clocks are ahead, or this machine's is behind: their newest record is from 60 s in the future"
    """
    worst = max(raw_s, ours_s)
    if worst == float("-inf"):
        return "skip", "no record yet to compare our clock with", None
    if worst <= AHEAD_S:
        return "ok", f"no record is more than {AHEAD_S:g} s ahead of this machine's clock", None
    if min(raw_s, ours_s) > AHEAD_S:
        return ("fail", f"this machine's clock is behind: records of senders and workers are {worst:.0f} s ahead of it",
                "synchronise this machine by NTP")  # fmt: skip
    who = "senders" if raw_s > ours_s else "workers"
    # Only a fresh record of the other side vouches for our own clock.
    doubt = "" if min(raw_s, ours_s) >= -FRESH_S else ", or this machine's is behind"
    message = f"the {who}' clocks are ahead{doubt}: their newest record is from {worst:.0f} s in the future"
    return "fail", message, f"synchronise the {who}' machines{' and this one' if doubt else ''} by NTP"


# ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Unreachable(TrustwatchError):
    """A URL did not answer as it should."""


def _get(knob: str, base: str, path: str) -> bytes:
    """The first megabyte of what a URL answers.

    Raises:
        _Unreachable: it does not answer, not with 200, or it is no http(s) URL; the message names the knob.
    """
    if not _is_plain_url(base):
        # The URL stays out of the message: it may hold a password.
        raise _Unreachable(f"{knob} is no http(s)://host[:port]. Fix: set {knob} to a URL without user and password")
    opener = OpenerDirector()  # neither proxies nor redirects: what is configured is what is asked
    for handler in (HTTPHandler, HTTPSHandler, HTTPErrorProcessor, HTTPDefaultErrorHandler):
        opener.add_handler(handler())
    try:
        with opener.open(base.rstrip("/") + path, timeout=HTTP_S) as answer:
            return bytes(answer.read(1_000_000))
    except (OSError, HTTPException, ValueError) as error:
        raise _Unreachable(f"{base}: {error}. Fix: start it, or correct {knob}") from error


def _is_plain_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _look_at_prometheus(settings: Settings) -> Said:
    knob, url = "monitoring.prometheus_url", settings.monitoring.prometheus_url
    if url is None:
        return _not_configured(knob)
    _get(knob, url, "/-/healthy")
    answer = _get(knob, url, "/api/v1/query?query=count(trustwatch_events_total)")
    try:
        found = msgspec.json.decode(answer, type=_Query).data.result
    except msgspec.DecodeError:
        return "fail", f"{url} answers, but not as Prometheus", f"correct {knob}"
    if not found:
        return ("warn", f"{url} is healthy, but has no trustwatch_events_total",
                "add the worker to its scrape_configs (see deploy/prometheus/prometheus.yml)")  # fmt: skip
    return "ok", f"{url} is healthy and scrapes trustwatch", None


def _look_at_grafana(settings: Settings) -> Said:
    knob, url = "monitoring.grafana_url", settings.monitoring.grafana_api
    if url is None:
        return _not_configured(knob)
    health = Grafana(url, timeout_s=HTTP_S).health()
    if health["database"] != "ok":
        return "fail", f"{url}: Grafana's database is {health['database']}", "read Grafana's log"
    message = f"{url} is healthy, version {health.get('version', 'unknown')}"
    token = settings.monitoring.grafana_token
    if token is None:
        return "ok", f"{message}; monitoring.grafana_token is not set, so no more was looked at", None
    return _look_at_source(Grafana(url, token.get_secret_value(), timeout_s=HTTP_S), message)


def _look_at_source(grafana: Grafana, message: str) -> Said:
    """Whether the token is good, and our data source gives Grafana what it asks for."""
    try:
        wrong = grafana.source_health(PROMETHEUS_UID)
    except GrafanaRefused as refused:
        if refused.status == 404:
            return ("warn", f"{message}; it takes the token, and has no data source {PROMETHEUS_UID}",
                    "trustwatch grafana sync")  # fmt: skip
        said, _, fix = str(refused).partition(FIX_SEPARATOR)
        return "warn" if refused.status == 403 else "fail", said.rstrip("."), fix or None
    if wrong:
        return ("fail", f"{message}; its data source {PROMETHEUS_UID} does not answer: {wrong}",
                "correct the URL of that data source, as Grafana reaches Prometheus, or start Prometheus")  # fmt: skip
    return "ok", f"{message}; it takes the token, and its data source {PROMETHEUS_UID} answers", None


def _look_at_metrics(settings: Settings) -> Said:
    where = settings.metrics
    if not where.port:
        return "skip", "metrics.port is 0: the worker picks a free one", None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{where.port}"
    try:
        ours = b"trustwatch_" in _get("metrics.host/metrics.port", url, "/metrics")
    except _Unreachable:
        return "warn", f"{url}/metrics does not answer: no worker runs on this machine", "start trustwatch worker"
    if not ours:
        return "warn", f"{url}/metrics is somebody else's", "set metrics.port to a free port"
    return "ok", f"{url}/metrics answers", None


def _not_configured(knob: str) -> Said:
    return "skip", f"{knob} is not set", None


class _Vector(msgspec.Struct):
    result: list[Any]


class _Query(msgspec.Struct):
    data: _Vector
