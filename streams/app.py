"""The live line, wired; read it from top to bottom.

    raw web + CRM topics ─ingest→ events ─sessionize, combine→ counts ─detect, judge→ findings ─export→ /metrics

Each arrow is a pure function with one file; here they are put on Kafka. `ExactStage` makes them exact.
"""

from __future__ import annotations

import tempfile
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted
from mode import CrashingSupervisor

from streams.ingest_service import Ingest
from streams.kafka import aiokafka_options, faust_brokers, faust_credentials
from streams.metrics import MetricsServer, require_free_port, stage_latency
from streams.outbox import Outbox
from streams.settings import Settings
from streams.stage import ExactStage, Unit
from streams.store import CheckpointStore
from streams.topics import Topics
from streams.units import Plan, SessionizeUnit, WatchUnit


class Line:
    """The wired line of one worker process.

    Args:
        settings: all knobs.
        ingest: run the ingest stage.
        stages: run the other stages.

    Attributes:
        app: the Faust app; `run` starts it.
        ingest: the ingest service, if it runs here.
        sessionize: the sessionize stage.
        watch: the detect and judge stages.
        latency: seconds from a message to its durable effects, by stage.
    """

    def __init__(self, settings: Settings, *, ingest: bool = True, stages: bool = True) -> None:
        self.settings = settings
        self.plan = Plan(settings)
        self._folder = tempfile.TemporaryDirectory(prefix="trustwatch-")  # Faust wants one; gone with the process
        self.app = _faust_app(settings, self._folder.name)
        self.outbox = Outbox(settings)
        self.latency = stage_latency()
        self.sessionize = self._stage(
            "sessionize", settings.topics.events, settings.topics.sessions_state, SessionizeUnit
        )
        self.watch = self._stage("watch", settings.topics.counts, settings.topics.watch_state, WatchUnit)
        self.ingest = Ingest(settings, self.outbox) if ingest else None
        # Started in this order before Faust's own services, stopped in reverse: the producer outlives the agents.
        self.app.add_dependency(self.outbox)
        self.app.add_dependency(MetricsServer(self))
        if self.ingest is not None:
            self.app.add_dependency(self.ingest)
        if stages:
            self._agent(settings.topics.events, self.sessionize)
            self._agent(settings.topics.counts, self.watch)
            self.app.on_partitions_revoked.connect(self._release, weak=False)
        else:
            self.app.producer_only = True  # no agent, so Faust has nothing to subscribe to

    def _stage(self, name: str, topic: str, state_topic: str, unit: Any) -> ExactStage:
        def make(partition: int) -> Unit:
            made: Unit = unit(self.plan, partition)
            return made

        options = aiokafka_options(self.settings.kafka)
        store = CheckpointStore(state_topic, options, self.outbox.producer, self.settings.checkpoints.chunk_bytes)
        latency = self.latency.labels(name).observe
        return ExactStage(name, make, store, self.outbox.send, _FaustSource(self.app, topic), latency)

    def _agent(self, topic: str, stage: ExactStage) -> None:
        checkpoints = self.settings.checkpoints

        async def handle(stream: faust.Stream[bytes]) -> None:
            async for batch in stream.noack_take(checkpoints.max_frames, within=checkpoints.interval_s):
                await stage.run(batch)

        # An error of our own must stop the worker: a restarted agent would acknowledge what it never applied.
        channel = self.app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes)
        self.app.agent(channel, name=stage.name, supervisor_strategy=CrashingSupervisor)(handle)

    async def _release(self, _app: faust.App, revoked: set[Any], **_: Any) -> None:
        for topic, stage in ((self.settings.topics.events, self.sessionize), (self.settings.topics.counts, self.watch)):
            stage.release([where.partition for where in revoked if where.topic == topic])


class _FaustSource:
    """The topic of a stage, through the consumer that Faust owns."""

    def __init__(self, app: faust.App, topic: str) -> None:
        self._app = app
        self._topic = topic

    async def beginning(self, partition: int) -> int:
        where = faust.types.TP(self._topic, partition)
        found = await self._app.consumer.earliest_offsets(where)
        return int(found[where])

    async def seek(self, partition: int, offset: int) -> None:
        await self._app.consumer.seek(faust.types.TP(self._topic, partition), offset)

    def end(self, partition: int) -> int | None:
        try:
            end: int | None = self._app.consumer.highwater(faust.types.TP(self._topic, partition))
        except (ConsumerNotStarted, AssertionError):  # starting, or just revoked: a scrape must not fail then
            return None
        return end


def run(settings: Settings, *, ingest: bool = True, stages: bool = True, loglevel: str = "INFO") -> int:
    """Run a worker until it is told to stop; returns the exit code of the process.

    Raises:
        ConfigError: a knob is wrong, or the topics are not as configured.
        BrokerUnavailable: no broker answers.
    """
    line = Line(settings, ingest=ingest, stages=stages)
    with Topics(settings) as topics:
        topics.require()
    require_free_port(settings.metrics)
    worker = faust.Worker(line.app, loglevel=loglevel, quiet=True, redirect_stdouts=False)
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _faust_app(settings: Settings, datadir: str) -> faust.App:
    kafka = settings.kafka
    return faust.App(
        settings.app_id,
        broker=faust_brokers(kafka),
        broker_credentials=faust_credentials(kafka),
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 6,
        broker_request_timeout=max(kafka.request_timeout_s, kafka.session_timeout_s + 5),
        broker_commit_interval=1.0,
        broker_client_id="trustwatch",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=settings.topics.max_message_bytes,
        producer_max_request_size=settings.topics.max_message_bytes,
        # Topics are made by `trustwatch topics create`; a worker that made them would guess their partitions.
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=datadir,
        web_enabled=False,
        value_serializer="raw",
        key_serializer="raw",
        autodiscover=False,
    )
