"""Every metric name, and the `/metrics` endpoint.

Counts that must be exact come out of the checkpointed state of the partitions that this worker owns, read when
Prometheus scrapes: nothing is updated per event, nothing goes stale after a rebalance. The server runs in a thread, so
rendering never stalls the line: it reads the line's dicts through `list(...)`, which copies them in one step under the
GIL, and lets go of the GIL every millisecond (`_Breath`), however many series there are.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mode import Service
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from detectors._base import Level
from detectors._stages import BESIDE, LEADS
from detectors._step_model import StepModel
from streams.errors import ConfigError
from streams.events import REASONS
from streams.frames import NEVER, Segment
from streams.metrics_baseline import families as baselines
from streams.metrics_caught_up import CaughtUp
from streams.metrics_confidence import families as confidence_and_ledger
from streams.metrics_counts import families as scores_and_survival
from streams.metrics_findings import families as open_findings
from streams.metrics_guardrails import families as guardrails
from streams.metrics_validation import families as indicators
from streams.sessionize import Sessionizer
from streams.settings import MetricSettings
from streams.signals import SIGNALS
from streams.stage import ExactStage, Slot
from streams.watch import Watcher

if TYPE_CHECKING:
    from streams.app import Line

LEVELS: Final[tuple[Level, ...]] = ("warming", "ok", "warn", "alert")
OUTCOMES: Final = ("applied", "duplicate", "late", "dead_letter")
STEP_OUTCOMES: Final = ("advanced", "returned", "dropped")
LEAD_COUNTS: Final = ("created", "scored", "handed_over", "touched", "accepted", "rejected", "won", "lost")
BREATH_S: Final = 0.001
ItemT = TypeVar("ItemT")
log = logging.getLogger(__name__)


class MetricsServer(Service):  # type: ignore[misc]
    """Serves `/metrics` from a thread while the worker runs."""

    def __init__(self, line: Line, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._line = line
        self._server: Any = None

    async def on_start(self) -> None:
        """Listen."""
        registry = CollectorRegistry()
        registry.register(LineCollector(self._line))
        ProcessCollector(namespace="trustwatch", registry=registry)
        where = self._line.settings.metrics
        self._server, _thread = start_http_server(where.port, where.host, registry)
        log.info("metrics: http://%s:%d/metrics", where.host, self._server.server_port)

    async def on_stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def require_free_port(where: MetricSettings) -> None:
    """Refuse to start where `/metrics` cannot be served.

    Raises:
        ConfigError: the port is taken, or the address is not ours; names the knobs.
    """
    try:
        with socket.create_server((where.host, where.port)):
            return
    except OSError as error:
        raise ConfigError(f"metrics.host/metrics.port: cannot listen on {where.host}:{where.port}: {error}") from error


def stage_latency() -> Histogram:
    """The histogram of a worker; observed once a batch, exported with the rest."""
    return Histogram(
        "trustwatch_stage_latency_seconds",
        "Seconds from a message of a stage's topic to its durable effects.",
        ["stage"],
        registry=None,
        buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
    )


def event_delay() -> Histogram:
    """The histogram of a worker; observed once a message that holds or follows from raw messages."""
    return Histogram(
        "trustwatch_event_delay_seconds",
        "Seconds from the moment the oldest raw message behind a message was written to Kafka until the stage's results"
        " were durable: sessionize gives counts, watch gives findings.",
        ["stage"],
        registry=None,
        buckets=(0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
    )


class _Breath:
    """Lets the other threads go on: a scrape is in no hurry, the line is."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def take(self) -> None:
        """Sleep for a moment if it is `BREATH_S` since the last one; otherwise nothing."""
        if time.perf_counter() - self._since > BREATH_S:
            time.sleep(BREATH_S)
            self._since = time.perf_counter()

    def over(self, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """The same items, with breaths."""
        for item in items:
            self.take()
            yield item


class _Samples(list[Sample]):
    """The samples of a family, read with breaths."""

    def __iter__(self) -> Iterator[Sample]:
        return _Breath().over(super().__iter__())


class LineCollector(Collector):
    """Reads the line when Prometheus asks."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._caught_up = CaughtUp()

    def collect(self) -> Iterator[Metric]:
        """All metrics of this worker."""
        for family in self._families():
            family.samples = _Samples(family.samples)
            yield family

    def _families(self) -> Iterator[Metric]:
        line = self._line
        sessionizers = {partition: slot.unit.stage for partition, slot in list(line.sessionize.slots.items())}
        owned = {partition: slot.unit.stage for partition, slot in list(line.watch.slots.items())}
        counted = self._caught_up.units(line.watch)
        watchers, classes = list(owned.values()), line.plan.detectors.classes
        names = list(classes)
        if line.ingest is not None:
            yield from _ingest(line.ingest)
        yield from _accounting(self._caught_up.units(line.sessionize))
        yield from _held(sessionizers)
        yield from _stages((line.sessionize, line.watch))
        yield from line.latency.collect()
        yield from line.delay.collect()
        yield from _worker(line)
        yield from _watermarks(line)
        yield from _trust(list(counted.values()))
        yield from _observed(counted, names)
        yield from _detectors(watchers)
        yield from _findings(watchers, counted, names)
        yield from open_findings(watchers, classes, segment_label)
        yield from guardrails(view for watcher in watchers for view in watcher.guardrails.view())
        yield _annotations(line.annotator.outcomes)
        yield from _pages(watchers, {name: cls.alert.severity for name, cls in classes.items()})
        yield GaugeMetricFamily(
            "trustwatch_false_pages_budget_per_week",
            "The setting false_pages_per_week; each severity has as much.",
            value=line.settings.false_pages_per_week,
        )
        yield from _models(sessionizers)
        yield from _behaviour(list(counted.values()))
        yield from baselines(watchers, line.ingest, _Breath().over, segment_label)
        yield from scores_and_survival(counted.values(), line.settings, _Breath().over, segment_label)
        books = [watcher.books for watcher in counted.values() if watcher.books is not None]
        yield from confidence_and_ledger(books, _Breath().over, segment_label)
        yield from indicators([watcher.validator for watcher in watchers if watcher.books is not None], _Breath().over)


def _ingest(ingest: Any) -> Iterator[Metric]:
    items = CounterMetricFamily(
        "trustwatch_ingest_items", "Items read from raw topics, by what became of them.", labels=["topic", "outcome"]
    )
    letters = CounterMetricFamily(
        "trustwatch_dead_letters", "Items that could not be understood.", labels=["topic", "reason"]
    )
    sums: dict[tuple[str, str], int] = {}
    topics = [topic.name for topic in ingest._settings.topics.raw]
    refused = {(topic, reason): 0 for topic in topics for reason in REASONS}
    for (topic, outcome, detail), count in list(ingest.door.outcomes.items() if ingest.door else ()):
        sums[topic, outcome] = sums.get((topic, outcome), 0) + count
        if outcome == "dead_letter":
            refused[topic, detail] = count
    for topic in topics:
        for outcome in ("accepted", "late", "dead_letter"):
            items.add_metric([topic, outcome], sums.get((topic, outcome), 0))
    for key, count in refused.items():
        letters.add_metric(list(key), count)
    behind = GaugeMetricFamily(
        "trustwatch_ingest_lag_messages", "Raw messages not yet read.", labels=["topic", "partition"]
    )
    lag = GaugeMetricFamily(
        "trustwatch_ingest_lag_seconds",
        "Age of the newest event read of a raw partition that is behind; 0 when all is read.",
        labels=["topic", "partition"],
    )
    for where, count in list(ingest.behind.items()):
        labels = [where.topic, str(where.partition)]
        behind.add_metric(labels, count)
        try:
            reached = ingest.door.clock_of(f"{where.topic}/{where.partition}").time
        except KeyError:  # revoked since `behind` was copied
            continue
        if reached != NEVER:
            lag.add_metric(labels, max(0.0, time.time() - reached) if count else 0)
    yield from (items, letters, behind, lag)
    yield CounterMetricFamily("trustwatch_ingest_frames", "Frames sent.", value=ingest.frames)


def _accounting(owned: dict[int, Sessionizer]) -> Iterator[Metric]:
    # By partition, because these counts move with it: a sum over what is owned would fall and jump at a rebalance.
    events = CounterMetricFamily(
        "trustwatch_events",
        "Consumed items by source and outcome, exact across crashes; their sum is all.",
        labels=["partition", "topic", "outcome"],
    )
    for partition, stage in owned.items():
        sums: dict[tuple[str, str], int] = {}
        for name, source in list(stage.state.sources.items()):
            for outcome in OUTCOMES:
                key = (name.rpartition("/")[0], outcome)
                sums[key] = sums.get(key, 0) + source.outcomes.get(outcome, 0)
        for key, count in sums.items():
            events.add_metric([str(partition), *key], count)
    yield events
    counters = {
        "trustwatch_reread_items": ("Items read again after a crash of ingest, recognised and not counted.", "repeats"),
        "trustwatch_steps_begun": ("Journey steps begun.", "steps"),
        "trustwatch_evictions": ("Sessions and leads closed early because a limit was reached.", "evicted"),
        "trustwatch_forced_watermarks": ("Buckets closed early because too many events were waiting.", "forced"),
        "trustwatch_unremembered_events": (
            "Events whose repeats will not be recognised: limits.dedupe_ids was reached.",
            "unremembered",
        ),
        "trustwatch_failures": ("Times our own code raised on one person: a bug; see the log.", "failed"),
        "trustwatch_erasures": ("Sessions and leads that were erased on request.", "forgotten"),
        "trustwatch_moved_sessions": ("Sessions that went on under another id of the same person.", "moved"),
        "trustwatch_unwanted_events": (
            "Events dropped, because their person withdrew consent, or was erased since they happened.",
            "withdrawn",
        ),
    }
    for name, (meaning, field) in counters.items():
        family = CounterMetricFamily(name, meaning, labels=["partition"])
        for partition, stage in owned.items():
            family.add_metric([str(partition)], getattr(stage.state.totals, field))
        yield family
    overflowed = CounterMetricFamily(
        "trustwatch_overflowed_labels",
        "Labellings folded into `other`: segments.max_values was reached.",
        labels=["partition"],
    )
    for partition, stage in owned.items():
        overflowed.add_metric([str(partition)], stage.overflowed_labels)
    yield overflowed
    lost = CounterMetricFamily(
        "trustwatch_lost_links",
        "Links between ids of one person that were given up (limits.links), or refused: too many ids for one person.",
        labels=["partition"],
    )
    for partition, stage in owned.items():
        lost.add_metric([str(partition)], stage.identity.evicted + stage.identity.refused)
    yield lost


def _held(owned: dict[int, Sessionizer]) -> Iterator[Metric]:
    """What the state holds now."""
    sessionizers = list(owned.values())
    gauges = {
        "trustwatch_open_sessions": ("Open sessions.", sum(len(stage.state.sessions) for stage in sessionizers)),
        "trustwatch_open_leads": (
            "Leads that wait for a horizon.",
            sum(len(stage.state.leads) for stage in sessionizers),
        ),
        "trustwatch_open_customers": (
            "People who were sent something or ordered lately.",
            sum(len(stage.state.customers) for stage in sessionizers),
        ),
        "trustwatch_pending_events": (
            "Events that wait for the watermark.",
            sum(s.pending_events for s in sessionizers),
        ),
        "trustwatch_remembered_ids": ("Event ids in the dedupe window.", sum(s.remembered_ids for s in sessionizers)),
        "trustwatch_links": (
            "Links between ids of one person; every partition knows all.",
            max((stage.identity.links for stage in sessionizers), default=0),
        ),
    }
    for name, (meaning, value) in gauges.items():
        yield GaugeMetricFamily(name, meaning, value=value)


def _stages(stages: tuple[ExactStage, ...]) -> Iterator[Metric]:
    counters = {
        "trustwatch_stage_messages": ("Messages applied.", "messages"),
        "trustwatch_stage_skipped_messages": ("Messages skipped: applied before, or fetched before a seek.", "skipped"),
        "trustwatch_stage_busy_seconds": ("Seconds spent on batches, with sending.", "busy_s"),
        "trustwatch_stage_batches": ("Batches handled.", "batches"),
        "trustwatch_checkpoints": ("Checkpoints written.", "checkpoints"),
        "trustwatch_checkpoint_seconds": ("Seconds spent on checkpoints.", "checkpoint_s"),
        "trustwatch_state_resets": ("Checkpoints refused: the state was rebuilt from the log.", "resets"),
        "trustwatch_state_seeks": ("Times a gap was closed by seeking back.", "seeks"),
        "trustwatch_state_gaps": ("Gaps that could not be closed: events lost to the state.", "gaps"),
    }
    # One family for both stages: a name that is described twice is no valid exposition.
    for name, (meaning, field) in counters.items():
        family = CounterMetricFamily(name, meaning, labels=["stage"])
        for stage in stages:
            family.add_metric([stage.name], getattr(stage.stats, field))
        yield family
    refused = CounterMetricFamily(
        "trustwatch_stage_refused_messages", "Messages that were none of ours.", labels=["stage", "partition"]
    )
    for stage in stages:
        for partition, slot in list(stage.slots.items()):
            refused.add_metric([stage.name, str(partition)], slot.unit.refused)
    yield refused
    yield from _partitions(stages)


def _lag(line: Line) -> GaugeMetricFamily:
    lag = GaugeMetricFamily(
        "trustwatch_lag_seconds",
        "Age of the oldest message that waits to be read or applied, at most; 0 when none waits. The worst partition of"
        " this worker.",
        labels=["stage"],
    )
    seconds = {stage.name: [stage.lag_s(p) for p in list(stage.slots)] for stage in (line.sessionize, line.watch)}
    if line.ingest is not None:
        seconds["ingest"] = [line.ingest.lag_s(where) for where in list(line.ingest.behind)]
    for stage, found in seconds.items():
        known = [lag_s for lag_s in found if lag_s is not None]
        if known:
            lag.add_metric([stage], max(known))
    return lag


def _worker(line: Line) -> Iterator[Metric]:
    """Is it ready, what does it wait for, where does its time go."""
    stages = (line.sessionize, line.watch)
    yield _lag(line)
    cpu = CounterMetricFamily(
        "trustwatch_stage_cpu_seconds",
        "CPU seconds of our own code: ingest and the stages with decoding, checkpoint is encoding states. The rest of"
        " trustwatch_process_cpu_seconds_total is Kafka's clients, Faust and the metrics.",
        labels=["stage"],
    )
    if line.ingest is not None:
        cpu.add_metric(["ingest"], line.ingest.cpu_s)
    for stage in stages:
        cpu.add_metric([stage.name], stage.stats.cpu_s)
    cpu.add_metric(["checkpoint"], sum(stage.stats.checkpoint_cpu_s for stage in stages))
    yield cpu
    meaning = "1 if this worker has its partitions, with their state, and reads."
    yield GaugeMetricFamily("trustwatch_ready", meaning, value=int(line.note_ready()))
    start = GaugeMetricFamily("trustwatch_start_seconds", "From the start of the process until it was first ready.")
    if line.start_s is not None:
        start.add_metric([], line.start_s)
    yield start
    load = GaugeMetricFamily(
        "trustwatch_state_load_seconds", "How long the last loading of checkpoints took.", labels=["stage"]
    )
    for stage in stages:
        load.add_metric([stage.name], stage.stats.load_s)
    yield load
    yield CounterMetricFamily(
        "trustwatch_send_retries",
        "Times that a write to Kafka was made again or waited three more seconds: the broker is away or refuses it.",
        value=line.outbox.retries,
    )
    yield GaugeMetricFamily(
        "trustwatch_send_waiting_seconds", "How long the oldest write to Kafka waits.", value=line.outbox.waiting_s
    )


def _partitions(stages: tuple[ExactStage, ...]) -> Iterator[Metric]:
    where = ["stage", "partition"]
    age = GaugeMetricFamily(
        "trustwatch_checkpoint_age_seconds",
        "Seconds since the last checkpoint, or since loading, of a partition of which more was applied since; 0 if"
        " the checkpoint covers all.",
        labels=where,
    )
    size = GaugeMetricFamily("trustwatch_state_bytes", "Size of the last checkpoint.", labels=where)
    behind = GaugeMetricFamily("trustwatch_stage_lag_messages", "Messages of the stage's topic not yet applied.",
                               labels=where)  # fmt: skip
    for stage in stages:
        for partition, slot in list(stage.slots.items()):
            labels = [stage.name, str(partition)]
            age.add_metric(labels, _unsaved_s(slot))
            size.add_metric(labels, slot.size_bytes)
            behind.add_metric(labels, stage.behind(partition))
    yield from (age, size, behind)


def _unsaved_s(slot: Slot) -> float:
    """For how long something that was applied may be waiting for a checkpoint."""
    if slot.offset < 0 or (slot.offset == slot.durable and not slot.again):
        return 0.0
    # Loading seeks, so until its first checkpoint the seek says when that was.
    since = time.time() - slot.saved_at if slot.saved_at else time.monotonic() - slot.sought_at
    return max(0.0, since)


def _watermarks(line: Line) -> Iterator[Metric]:
    reached = GaugeMetricFamily(
        "trustwatch_watermark_timestamp_seconds",
        "Event time up to which all is processed.",
        labels=["stage", "partition"],
    )
    lag = GaugeMetricFamily(
        "trustwatch_watermark_lag_seconds",
        "How far event time is behind the clock; the least of the partitions of this worker.",
        labels=["stage"],
    )
    for stage in (line.sessionize, line.watch):
        marks = {partition: _reached(slot.unit.stage) for partition, slot in list(stage.slots.items())}
        known = {partition: mark for partition, mark in marks.items() if mark != NEVER}
        for partition, mark in known.items():
            reached.add_metric([stage.name, str(partition)], mark)
        if known:
            lag.add_metric([stage.name], max(0.0, time.time() - min(known.values())))
    yield from (reached, lag)


def _reached(stage: Sessionizer | Watcher) -> float:
    return stage.state.watermark if isinstance(stage, Sessionizer) else stage.state.judged_until


def _trust(watchers: list[Watcher]) -> Iterator[Metric]:
    where = ["stage", "segment"]
    steps = CounterMetricFamily("trustwatch_steps", "Closed journey steps.", labels=[*where, "outcome"])
    judged = CounterMetricFamily("trustwatch_judged_steps", "Steps of which hesitation was decided.", labels=where)
    signalled = CounterMetricFamily("trustwatch_signalled_steps", "Steps that showed a micro-signal.", labels=where)
    asked = CounterMetricFamily("trustwatch_asked_steps", "Steps that the model was asked about.", labels=where)
    hesitant = CounterMetricFamily("trustwatch_hesitant_steps", "Steps that the model calls hesitant.", labels=where)
    signals = CounterMetricFamily(
        "trustwatch_micro_signals", "Steps that showed a micro-signal.", labels=[*where, "signal"]
    )
    dwell = CounterMetricFamily("trustwatch_step_dwell_seconds", "Time spent in closed steps.", labels=where)
    leads = CounterMetricFamily("trustwatch_leads", "Lead milestones.", labels=["segment", "milestone"])
    for watcher in watchers:
        for (stage, segment), counts in _Breath().over(list(watcher.rates.items())):
            name = segment_label(segment)
            if stage == LEADS:
                for milestone in LEAD_COUNTS:
                    leads.add_metric([name, milestone], counts.get(milestone, 0))
            if stage in BESIDE:
                continue
            for outcome in STEP_OUTCOMES:
                steps.add_metric([stage, name, outcome], counts.get(outcome, 0))
            for signal in SIGNALS:
                signals.add_metric([stage, name, signal], counts.get(f"sig_{signal}", 0))
            for family, field in (
                (judged, "judged"),
                (signalled, "signalled"),
                (asked, "asked"),
                (hesitant, "hesitant"),
            ):
                family.add_metric([stage, name], counts.get(field, 0))
            dwell.add_metric([stage, name], counts.get("dwell_ms", 0) / 1000)
    yield from (steps, judged, signalled, asked, hesitant, signals, dwell, leads)


def _observed(owned: dict[int, Watcher], names: list[str]) -> Iterator[Metric]:
    counters = {
        "trustwatch_detector_observations": ("Observations made.", "observations"),
        "trustwatch_detector_errors": ("Observations on which a detector raised.", "errors"),
        "trustwatch_detector_resets": ("Detector states started afresh: parameters or version changed.", "resets"),
    }
    for name, (meaning, field) in counters.items():
        family = CounterMetricFamily(name, meaning, labels=["partition", "detector"])
        for partition, watcher in owned.items():
            for detector in names:
                family.add_metric([str(partition), detector], getattr(watcher.state, field).get(detector, 0))
        yield family
    unwatched = CounterMetricFamily(
        "trustwatch_unwatched_observations",
        "Observations not watched: limits.streams was reached.",
        labels=["partition"],
    )
    for partition, watcher in owned.items():
        unwatched.add_metric([str(partition)], watcher.state.unwatched)
    yield unwatched


def _detectors(watchers: list[Watcher]) -> Iterator[Metric]:
    labels = ["detector", "stage", "segment"]
    score = GaugeMetricFamily(
        "trustwatch_detector_score_ratio", "Last score of a watched stream: 0 fine, 1 worst.", labels=labels
    )
    level = GaugeMetricFamily(
        "trustwatch_detector_level", "Last level: 0 warming, 1 ok, 2 warn, 3 alert.", labels=labels
    )
    for watcher in watchers:
        for (detector, stage, segment), verdict in _Breath().over(list(watcher.verdicts.items())):
            values = [detector, stage, segment_label(segment)]
            score.add_metric(values, verdict.score)
            level.add_metric(values, LEVELS.index(verdict.level))
    yield from (score, level)
    yield GaugeMetricFamily("trustwatch_watched_streams", "Watched streams.", value=sum(w.streams for w in watchers))


def _findings(watchers: list[Watcher], counted: dict[int, Watcher], names: list[str]) -> Iterator[Metric]:
    # Every child exists at zero before the first finding, or `increase()` would miss it.
    open_now: dict[tuple[str, str], int] = {(name, level): 0 for name in names for level in ("warn", "alert")}
    for finding in (finding for watcher in watchers for finding in watcher.findings):
        if finding.resolved_at is None:
            open_now[finding.detector, finding.level] = open_now.get((finding.detector, finding.level), 0) + 1
    gauge = GaugeMetricFamily("trustwatch_open_findings", "Findings that are open.", labels=["detector", "level"])
    for (name, level), count in open_now.items():
        gauge.add_metric([name, level], count)
    total = CounterMetricFamily("trustwatch_findings", "Findings begun.", labels=["partition", "detector"])
    for partition, watcher in counted.items():
        for name in names:
            total.add_metric([str(partition), name], watcher.begun.get(name, 0))
    yield from (gauge, total)


def _annotations(outcomes: dict[str, int]) -> Metric:
    family = CounterMetricFamily(
        "trustwatch_annotations",
        "Findings for Grafana's dashboards: posted, updated, known before, refused for good, retried while Grafana was"
        " away, dropped for want of room.",
        labels=["outcome"],
    )
    for outcome, count in outcomes.items():
        family.add_metric([outcome], count)
    return family


def _pages(watchers: list[Watcher], severities: dict[str, str]) -> Iterator[Metric]:
    """What the false-page budget gives out, and what became of it; sums over workers hold, each owns whole streams."""
    labels = ["detector", "severity"]
    given = [watcher.allowances for watcher in watchers]
    expected = GaugeMetricFamily(
        "trustwatch_false_pages_expected_per_week",
        "False pages a week that the watched streams may give: their shares of the budget, added up. At most the budget"
        " for each severity.",
        labels=labels,
    )
    begun = GaugeMetricFamily(
        "trustwatch_pages_observed_per_week",
        "Findings begun a week of event time, over 28 days; one that moves to another segment counts once.",
        labels=labels,
    )
    false = GaugeMetricFamily(
        "trustwatch_false_pages_observed_per_week",
        "Those whose old level came back by itself within false_page_within_s. An upper estimate: true incidents that"
        " were over so soon are in it.",
        labels=labels,
    )
    for name, severity in severities.items():
        expected.add_metric([name, severity], sum(one.get(name, 0.0) for one in given))
        seen = [watcher.pages.per_week(name) for watcher in watchers]
        begun.add_metric([name, severity], sum(one[0] for one in seen))
        false.add_metric([name, severity], sum(one[1] for one in seen))
    yield from (expected, begun, false)


def _models(owned: dict[int, Sessionizer]) -> Iterator[Metric]:
    """How well the model of each stage tells who will not advance; each partition has one of its own."""
    gauges: dict[str, tuple[str, Callable[[StepModel], float]]] = {
        "trustwatch_step_model_auc": (
            "Recent AUC of what was said of open steps before their end was known; 0.5 tells nothing.",
            lambda model: model.auc,
        ),
        "trustwatch_step_model_gain_nats": (
            "Recent log-loss gain over the running base rate, nats a look; below 0 the model does harm.",
            lambda model: model.gain,
        ),
        "trustwatch_step_model_calibration_error": (
            "Recent expected calibration error, ten bins: distance between what was said and what came true.",
            lambda model: model.calibration_error,
        ),
        "trustwatch_step_model_lift": (
            "By how much more of the steps called hesitant did not advance, recently, than of the others.",
            lambda model: model.lift,
        ),
        "trustwatch_step_model_speaking": (
            "1 while the model calls people hesitant, 0 while it cannot tell.",
            lambda model: float(model.ready),
        ),
    }
    for name, (meaning, read) in gauges.items():
        family = GaugeMetricFamily(name, meaning, labels=["partition", "stage"])
        for partition, sessionizer in owned.items():
            for stage, model in list(sessionizer.models.items()):
                family.add_metric([str(partition), stage], read(model))
        yield family


def _behaviour(watchers: list[Watcher]) -> Iterator[Metric]:
    where = ["stage", "segment"]
    weighed = CounterMetricFamily("trustwatch_weighed_steps", "Steps compared with all before.", labels=where)
    novel = CounterMetricFamily("trustwatch_novel_steps", "Steps unlike nearly all before.", labels=where)
    cohort = CounterMetricFamily(
        "trustwatch_cohort_steps",
        "Steps of which is known whether they had advanced when the last dwell mark (soon) or a session gap (at_all)"
        " had passed since they began.",
        labels=[*where, "by", "advanced"],
    )
    for watcher in watchers:
        for (stage, segment), counts in _Breath().over(list(watcher.rates.items())):
            if stage in BESIDE:
                continue
            name = segment_label(segment)
            weighed.add_metric([stage, name], counts.get("weighed", 0))
            novel.add_metric([stage, name], counts.get("novel", 0))
            for by in ("soon", "at_all"):
                cohort.add_metric([stage, name, by, "yes"], counts.get(by, 0))
                cohort.add_metric([stage, name, by, "no"], counts.get(f"not_{by}", 0))
    yield from (weighed, novel, cohort)


def segment_label(segment: Segment) -> str:
    """A segment as one label value.

    >>> segment_label(()), segment_label((("device", "mobile"), ("source", "ads")))
    ('all', 'device=mobile,source=ads')
    """
    return ",".join(f"{label}={value}" for label, value in segment) or "all"
