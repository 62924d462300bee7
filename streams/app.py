"""The live line, wired; read it from top to bottom.

    raw web + CRM topics ─ingest→ events ─sessionize, combine→ counts ─detect, judge→ findings ─export→ /metrics

Each arrow is a pure function with one file; here they are put on Kafka. `ExactStage` makes them exact.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
import time
from typing import Any, Final

import faust
from mode import CrashingSupervisor, Service

from streams.annotate import Annotator
from streams.checkpoints import former_key, require_key
from streams.consumer import ExactApp, FaustSource
from streams.errors import TrustwatchError
from streams.ingest_service import Ingest
from streams.kafka import aiokafka_options, faust_brokers, faust_credentials
from streams.metrics import MetricsServer, event_delay, require_free_port, stage_latency
from streams.outbox import Outbox
from streams.patience import calm
from streams.runtime import Housekeeping, process_age_s, settle
from streams.settings import Settings
from streams.stage import ExactStage, Pace, Told, Unit
from streams.store import CheckpointStore
from streams.topics import Topics
from streams.units import Plan, SessionizeUnit, WatchUnit
from streams.web import WebServer, require_free_web_port

TICK_S: Final = 0.1
LEAVE_S: Final = 5.0
"""Longest that partitions which go, or the whole worker, wait for their last checkpoint."""
END_S: Final = 9.0
"""Longest from SIGTERM to the end of the process."""
QUEUED_FRAMES: Final = 256
"""Frames fetched ahead for a stage: bounds the memory of a backlog. Faust's default is 4,096."""
log = logging.getLogger(__name__)


class Line:
    """The wired line of one worker process.

    Args:
        settings: all knobs.
        ingest: run the ingest stage.
        stages: run the other stages.

    Attributes:
        app: the Faust app; `run` starts it.
        ingest: the ingest service, if it runs here.
        annotator: shows findings in Grafana.
        sessionize: the sessionize stage.
        watch: the detect and judge stages.
        latency: seconds from a message to its durable effects, by stage.
        delay: seconds from the oldest raw message in a message to its durable effects, by stage.
        start_s: seconds from the start of the process until its partitions were first ready; None until then.
        turn: held by whoever computes for long. There is one interpreter lock anyhow, and threads that wrestle for it
            cost a tenth of the CPU time; so they take turns, and the event loop stays free for Kafka.
    """

    def __init__(self, settings: Settings, *, ingest: bool = True, stages: bool = True) -> None:
        self.settings = settings
        self.plan = Plan(settings)
        self._folder = tempfile.TemporaryDirectory(prefix="trustwatch-")  # Faust wants one; gone with the process
        self.app = _faust_app(settings, self._folder.name)
        self.outbox = Outbox(settings)
        self.annotator = Annotator(settings)
        self.latency, self.delay = stage_latency(), event_delay()
        self.start_s: float | None = None
        self.turn = asyncio.Lock()
        self._assigned = self._left = False
        self._key = require_key(settings)
        self.sessionize = self._stage(
            "sessionize", settings.topics.events, settings.topics.sessions_state, SessionizeUnit
        )
        self.watch = self._stage("watch", settings.topics.counts, settings.topics.watch_state, WatchUnit)
        self.ingest = Ingest(settings, self.outbox, self.turn) if ingest else None
        # Started in this order before Faust's own services, stopped in reverse: the producer outlives the agents.
        self.app.add_dependency(self.outbox)
        self.app.add_dependency(self.annotator)
        self.app.add_dependency(MetricsServer(self))
        self.app.add_dependency(WebServer(self))
        self.app.add_dependency(Housekeeping())
        if self.ingest is not None:
            self.app.add_dependency(self.ingest)
        both = (settings.topics.events, self.sessionize), (settings.topics.counts, self.watch)
        self.stages = both if stages else ()
        for topic, stage in self.stages:
            self._agent(topic, stage)
        self.app.durable = lambda: self._offsets(lambda stage: stage.durable)
        self.app.next = lambda: self._offsets(lambda stage: stage.next)
        if stages:
            self.app.on_partitions_assigned.connect(self._assign, weak=False)
            self.app.on_partitions_revoked.connect(self._revoke, weak=False)
            self.app.on_before_shutdown.connect(self._leave, weak=False)
        else:
            self.app.producer_only = True  # no agent, so Faust has nothing to subscribe to

    @property
    def ready(self) -> bool:
        """Whether this worker has its partitions, with their state, and reads."""
        stages = not self.stages or (self._assigned and all(stage.ready for _, stage in self.stages))
        return stages and (self.ingest is None or self.ingest.door is not None)

    def note_ready(self) -> bool:
        """Whether it is ready; remembers when it first was."""
        if self.ready and self.start_s is None:
            self.start_s = process_age_s()
        return self.ready

    def _stage(self, name: str, topic: str, state_topic: str, unit: Any) -> ExactStage:
        def make(partition: int) -> Unit:
            made: Unit = unit(self.plan, partition)
            return made

        options = aiokafka_options(self.settings.kafka)
        checkpoints = self.settings.checkpoints
        former = former_key(self.settings)
        store = CheckpointStore(state_topic, options, self.outbox.send, checkpoints.chunk_bytes, self._key, former)
        pace = Pace(checkpoints.interval_s, checkpoints.max_interval_s)
        told = Told(self.latency.labels(name).observe, self.delay.labels(name).observe)
        send = self.annotator.after(self.outbox.send) if unit is WatchUnit else self.outbox.send
        return ExactStage(name, make, store, send, FaustSource(self.app, topic, options), pace, told, self.turn)

    def _agent(self, topic: str, stage: ExactStage) -> None:
        checkpoints = self.settings.checkpoints

        async def handle(stream: faust.Stream[bytes]) -> None:
            async for batch in stream.noack_take(checkpoints.max_frames, within=checkpoints.apply_within_s):
                await stage.run(batch)

        # An error of our own must stop the worker: a restarted agent would acknowledge what it never applied.
        channel = self.app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes)
        self.app.agent(channel, name=stage.name, supervisor_strategy=CrashingSupervisor)(handle)

        self.app.add_dependency(_Keeper(self, stage))

    async def _assign(self, _app: faust.App, assigned: set[Any], **_: Any) -> None:
        for topic, stage in self.stages:
            stage.assign([where.partition for where in assigned if where.topic == topic])
        self._assigned = True

    async def _revoke(self, _app: faust.App, revoked: set[Any], **_: Any) -> None:
        """Others own these partitions next: a last checkpoint, so that they need not replay, then forget them."""
        await self._save(LEAVE_S)
        for topic, stage in self.stages:
            stage.set_aside([where.partition for where in revoked if where.topic == topic])

    async def _leave(self, _app: faust.App, **_: Any) -> None:
        """The same before the end: what is in hand is applied and stored, what is not comes again at the next start."""
        self._left = await self._save(LEAVE_S)

    async def _save(self, within_s: float) -> bool:
        saves = (stage.save(list(stage.slots), within_s) for _, stage in self.stages)
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                log.error("no last checkpoint: %s", outcome)
        await self.app.consumer.commit()
        return all(outcome is True for outcome in outcomes)

    def end_soon(self) -> None:
        """End the process within `END_S`: without a broker Kafka's clients can take for ever to stop."""
        threading.Thread(target=self._end_at_last, name="end-at-last", daemon=True).start()

    def _end_at_last(self) -> None:
        time.sleep(END_S)
        log.error("not stopped within %g s, ending all the same: is the broker away? What was not stored is read again"
                  " at the next start", END_S)  # fmt: skip
        logging.shutdown()
        os._exit(0 if self._left and self.app.crash_reason is None else 1)

    def _offsets(self, which: Any) -> dict[Any, int]:
        return {
            faust.types.TP(topic, partition): offset
            for topic, stage in self.stages
            for partition, offset in which(stage).items()
        }


class _Keeper(Service):  # type: ignore[misc]
    """Writes checkpoints when they are due, whether messages come or not; one for each stage, so that none waits."""

    def __init__(self, line: Line, stage: ExactStage, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._line = line
        self._stage = stage

    @Service.task  # type: ignore[untyped-decorator]
    async def _tick(self) -> None:
        while not self.should_stop:
            await self.sleep(TICK_S)
            await self._stage.tick()
            self._line.note_ready()


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
    require_free_web_port(settings.web)
    calm("aiokafka")
    settle()
    line.app.stopping = line.end_soon
    worker = faust.Worker(line.app, loglevel=loglevel, quiet=True, redirect_stdouts=False)
    code: Any = 0
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        code = stop.code
    reason = worker.crash_reason or line.app.crash_reason
    if isinstance(reason, TrustwatchError):
        raise reason
    return int(code or 0)


def _faust_app(settings: Settings, datadir: str) -> ExactApp:
    kafka = settings.kafka
    return ExactApp(
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
        stream_buffer_maxsize=QUEUED_FRAMES,
        stream_wait_empty=False,  # `_revoke` and `_leave` wait for what is in hand, and not longer than they may
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
