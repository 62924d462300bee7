"""The pure stages as units of the live line: bytes in, records out.

`Plan` holds what all partitions share; `backtest` builds its stages from the same plan.
"""

from __future__ import annotations

import logging
from hashlib import sha256
import msgspec

from detectors._step_model import StepModel, StepModelParams
from streams.errors import ConfigError
from streams.findings import Finding
from streams.frames import UNREADABLE, Cell, Counts, decode_counts, decode_frame, encode, encode_json, partition_of
from streams.journey import Journey, load_journey
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.stage import Record
from streams.watch import Detectors, Watcher

STEP_MODEL = "step_model"
"""Name under `detectors` of the parameters of the per-step model, which scores people and is no detector itself."""
log = logging.getLogger(__name__)


class Plan:
    """Everything that the stages of all partitions share, built and checked once at start.

    Args:
        settings: all knobs.
        only: detectors to use; None for all.

    Raises:
        ConfigError: the journey file, a detector or one of its parameters is wrong.
    """

    def __init__(self, settings: Settings, only: list[str] | None = None) -> None:
        self.settings = settings
        self.journey: Journey = load_journey(settings.journey_file)
        overrides = {name: values for name, values in settings.detectors.items() if name != STEP_MODEL}
        # Which stages are early is the journey's to say, unless the configuration does.
        early = self.journey.stages[: (len(self.journey.stages) + 1) // 2]
        overrides["early_dropoff"] = {"stages": early} | overrides.get("early_dropoff", {})
        self.detectors = Detectors(overrides, only)
        try:
            self._model_params = StepModelParams(**settings.detectors.get(STEP_MODEL, {}))
        except ValueError as error:
            raise ConfigError(f"detectors.{STEP_MODEL}: {error}") from error

    def sessionizer(self, partition: int) -> Sessionizer:
        """The sessionize stage of one events partition."""
        return Sessionizer(self.settings, self.journey, lambda: StepModel(self._model_params), partition)

    def watcher(self, partition: int) -> Watcher:
        """The detect and judge stages of one counts partition."""
        return Watcher(self.settings, self.detectors, partition)


class SessionizeUnit:
    """frames → counts, one events partition.

    Attributes:
        stage: the pure state machine.
        refused: messages that were no frame.
    """

    def __init__(self, plan: Plan, partition: int) -> None:
        self.stage = plan.sessionizer(partition)
        self.refused = 0
        self._topics = plan.settings.topics
        self._where = f"{plan.settings.topics.events}[{partition}]"

    def take(self, value: bytes, offset: int) -> list[Record]:
        """Apply one frame; what is none is counted and passed over, the line goes on."""
        try:
            frame = decode_frame(value)
        except UNREADABLE:
            self.refused += 1
            log.error("%s@%d: not a frame of ours; passed over. Who else writes to this topic?", self._where, offset)
            return []
        counts = self.stage.apply(frame, offset)
        if counts is None:
            return []
        return [
            Record(self._topics.counts, target, b"", encode(part))
            for target, part in split(counts, self._topics.counts_partitions)
        ]

    def snapshot(self) -> bytes:
        """See `Unit`."""
        return self.stage.snapshot()

    def restore(self, blob: bytes) -> None:
        """See `Unit`."""
        self.stage.restore(blob)


class WatchUnit:
    """counts → findings, one counts partition.

    Attributes:
        stage: the pure state machine.
        refused: messages that were no counts.
    """

    def __init__(self, plan: Plan, partition: int) -> None:
        self.stage = plan.watcher(partition)
        self.refused = 0
        self._topics = plan.settings.topics
        self._where = f"{plan.settings.topics.counts}[{partition}]"

    def take(self, value: bytes, offset: int) -> list[Record]:
        """Apply one message of counts; what is none is counted and passed over, the line goes on."""
        try:
            counts = decode_counts(value)
        except UNREADABLE:
            self.refused += 1
            log.error("%s@%d: not counts of ours; passed over. Who else writes to this topic?", self._where, offset)
            return []
        return [finding_record(finding, self._topics.findings) for finding in self.stage.apply(counts)]

    def snapshot(self) -> bytes:
        """See `Unit`."""
        return self.stage.snapshot()

    def restore(self, blob: bytes) -> None:
        """See `Unit`."""
        self.stage.restore(blob)


def split(counts: Counts, partitions: int) -> list[tuple[int, Counts]]:
    """Counts by counts partition (hash of the stage); each gets the watermark, even without cells."""
    cells: list[list[Cell]] = [[] for _ in range(partitions)]
    for cell in counts.cells:
        cells[partition_of(cell.stage, partitions)].append(cell)
    return [(target, msgspec.structs.replace(counts, cells=part)) for target, part in enumerate(cells)]


def finding_record(finding: Finding, topic: str) -> Record:
    """A finding as the message of the findings topic: JSON, keyed by its id."""
    return Record(topic, None, finding.id.encode(), encode_json(finding))


def state_digest(stages: list[Sessionizer], watchers: list[Watcher]) -> str:
    """One digest of all that results depend on; equal for a live run and a backtest of the same file."""
    whole = sha256()
    for part in [*(stage.digest_part() for stage in stages), *(watcher.digest_part() for watcher in watchers)]:
        whole.update(part)
    return whole.hexdigest()
