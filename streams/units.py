"""The pure stages as units of the live line: bytes in, records out.

`Plan` holds what all partitions share; `backtest` builds its stages from the same plan.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from hashlib import sha256
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import ValidationError

from detectors._baseline import DAY_S
from detectors._stages import BESIDE, JOURNEY, TRACKING
from detectors._step_model import StepModel, StepModelParams
from streams.errors import ConfigError
from streams.findings import Finding, public
from streams.frames import (
    UNREADABLE,
    Cell,
    Counts,
    Frame,
    company_partition,
    decode_counts,
    decode_frame,
    encode,
    encode_json,
    partition_of,
)
from streams.guardrails import load_guardrails
from streams.journey import Journey, load_journey
from streams.said import CONTROL
from streams.sessionize import Sessionizer
from streams.settings import Settings, TopicSettings, say_problems
from streams.signals import wildcard
from streams.stage import Record
from streams.watch import Detectors, Observer, Watcher

TO_ALL = frozenset({TRACKING, JOURNEY, CONTROL})
"""Stages whose cells every counts partition gets."""
STEP_MODEL = "step_model"
"""Name under `detectors` of the parameters of the per-step model, which scores people and is no detector itself."""
log = logging.getLogger(__name__)
MessageT = TypeVar("MessageT", Frame, Counts)
StageT = TypeVar("StageT", bound=Sessionizer | Watcher)


class Plan:
    """Everything that the stages of all partitions share, built and checked once at start.

    Args:
        settings: all knobs.
        only: detectors to use; None for all.

    Raises:
        ConfigError: the journey file, the guardrails, a rule of `signals.ignore`, a detector or one of its parameters
            is wrong.
    """

    def __init__(self, settings: Settings, only: list[str] | None = None) -> None:
        self.settings = settings
        self.journey: Journey = load_journey(settings.journey_file)
        self._check_ignored()
        self.guardrails = load_guardrails(settings.guardrails_file, self.journey.stages, settings.segments)
        self.detectors = Detectors(self._parameters(), only, self.journey.stages)
        try:
            self._model_params = StepModelParams(**settings.detectors.get(STEP_MODEL, {}))
        except ValidationError as error:
            raise ConfigError(f"detectors.{STEP_MODEL}: {say_problems(error)}") from error

    def _check_ignored(self) -> None:
        """A rule for a stage that the journey does not have would never hold."""
        for number, rule in enumerate(self.settings.signals.ignore):
            if not any(map(wildcard(rule.stage).fullmatch, self.journey.stages)):
                stages = ", ".join(self.journey.stages)
                raise ConfigError(f"signals.ignore[{number}].stage: {rule.stage!r} is no stage; known: {stages}")

    def _parameters(self) -> dict[str, dict[str, Any]]:
        """The configured parameters over those that follow from other settings, said once there."""
        stages, leads, customers = self.journey.stages, self.settings.leads, self.settings.customers
        lags = {
            "acceptance_lag_s": leads.acceptance_horizon_days * DAY_S,
            "conversion_lag_s": leads.conversion_horizon_days * DAY_S,
        }
        scores = {"bins": leads.score_bins, **lags}
        followed: dict[str, dict[str, Any]] = {
            "early_dropoff": {"stages": stages[: (len(stages) + 1) // 2]},
            "follow_up_decay": {"touch_lag_s": leads.touch_horizon_days * DAY_S},
            "funnel_divergence": {"stages": stages},
            "lead_score_drift": scores,
            "over_contact": {"mail_lag_s": customers.mail_horizon_days * DAY_S},
            "score_inflation": scores,
            "small_losses": {"stages": stages},
            "value_delivered": {"case_lag_s": customers.case_horizon_days * DAY_S},
            "vanity_gap": {"first": stages[0], "goal": self.journey.goal, **lags},
        }
        own = {name: values for name, values in self.settings.detectors.items() if name != STEP_MODEL}
        return {name: followed.get(name, {}) | own.get(name, {}) for name in {*followed, *own}}

    def sessionizer(self, partition: int) -> Sessionizer:
        """The sessionize stage of one events partition."""
        return Sessionizer(self.settings, self.journey, lambda: StepModel(self._model_params), partition)

    def watcher(self, partition: int, observer: Observer | None = None) -> Watcher:
        """The detect and judge stages of one counts partition; the observer is told of every observation."""
        return Watcher(self.settings, self.detectors, partition, observer, self.guardrails)


class _Unit(ABC, Generic[MessageT, StageT]):
    """One partition of a pure stage, as the live line runs it.

    Attributes:
        stage: the pure state machine.
        refused: messages that were none of ours.
    """

    def __init__(self, stage: StageT, topics: TopicSettings, where: str) -> None:
        self.stage = stage
        self.refused = 0
        self._written: list[float] = []
        self._topics = topics
        self._where = where

    def take(self, value: bytes, offset: int) -> list[Record]:
        """Apply one message; what is none of ours is counted and passed over, the line goes on."""
        try:
            message = self._decode(value)
        except UNREADABLE:
            self.refused += 1
            log.error("%s@%d: not a message of ours; passed over. Who else writes to this topic?", self._where, offset)
            return []
        if message.written:
            self._written.append(message.written)
        return self._apply(message, offset)

    def written(self) -> list[float]:
        """When the oldest raw message behind each message taken since the last call was written, epoch seconds."""
        written, self._written = self._written, []
        return written

    def standing(self) -> list[Record]:
        """What it gave before, as it is now, where readers go by the newest."""
        return []

    def snapshot(self) -> bytes:
        """The state as data."""
        return self.stage.snapshot()

    def restore(self, blob: bytes) -> None:
        """Take up a state; raises CheckpointRefused."""
        self.stage.restore(blob)

    @abstractmethod
    def _decode(self, value: bytes) -> MessageT: ...

    @abstractmethod
    def _apply(self, message: MessageT, offset: int) -> list[Record]: ...


class SessionizeUnit(_Unit[Frame, Sessionizer]):
    """frames → counts, one events partition."""

    def __init__(self, plan: Plan, partition: int) -> None:
        topics = plan.settings.topics
        super().__init__(plan.sessionizer(partition), topics, f"{topics.events}[{partition}]")

    def _decode(self, value: bytes) -> Frame:
        return decode_frame(value)

    def _apply(self, message: Frame, offset: int) -> list[Record]:
        counts = self.stage.apply(message, offset)
        parts = [] if counts is None else split(counts, self._topics.counts_partitions)
        records = [Record(self._topics.counts, target, b"", encode(part)) for target, part in parts]
        letters = [Record(self._topics.dead_letters, None, letter.encode(), None) for letter in self.stage.released]
        return records + letters if letters else records


class WatchUnit(_Unit[Counts, Watcher]):
    """counts → findings, one counts partition."""

    def __init__(self, plan: Plan, partition: int) -> None:
        topics = plan.settings.topics
        super().__init__(plan.watcher(partition), topics, f"{topics.counts}[{partition}]")

    def _decode(self, value: bytes) -> Counts:
        return decode_counts(value)

    def _apply(self, message: Counts, offset: int) -> list[Record]:
        return [finding_record(finding, self._topics.findings) for finding in self.stage.apply(message)]

    def standing(self) -> list[Record]:
        """The open and recent findings."""
        return [finding_record(one, self._topics.findings) for one in (*self.stage.findings, *self.stage.changes)]


def split(counts: Counts, partitions: int) -> list[tuple[int, Counts]]:
    """Counts by counts partition (hash of the stage); each gets the watermark, even without cells.

    What is counted beside the stages is in one partition, which sees all of a company (`company_partition`). Cells of
    tracking go to all of them, because they say what has to be held back, and so do those of the whole journey, because
    they say which indicators are proven, and those of what people said.
    """
    cells: list[list[Cell]] = [[] for _ in range(partitions)]
    company = company_partition(partitions)
    for cell in counts.cells:
        stage = cell.stage
        if stage in TO_ALL:
            for part in cells:
                part.append(cell)
        else:
            cells[company if stage in BESIDE else partition_of(stage, partitions)].append(cell)
    return [(target, msgspec.structs.replace(counts, cells=part)) for target, part in enumerate(cells)]


def finding_record(finding: Finding, topic: str) -> Record:
    """A finding as the message of the findings topic: JSON, keyed by its id; small cells are hidden."""
    return Record(topic, None, finding.id.encode(), encode_json(public(finding)))


def state_digest(stages: list[Sessionizer], watchers: list[Watcher]) -> str:
    """One digest of all that results depend on; equal for a live run and a backtest of the same file."""
    whole = sha256()
    for part in [*(stage.digest_part() for stage in stages), *(watcher.digest_part() for watcher in watchers)]:
        whole.update(part)
    return whole.hexdigest()
