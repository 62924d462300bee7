"""Base of detectors that see the whole journey, stage by stage; and what they tell of it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeVar

from pydantic import Field

from detectors._base import Bucket
from detectors._daily import Case, DailyDetector, DailyParams
from detectors._days import Array
from detectors._stages import JOURNEY

STAGES: Final = ("discover", "evaluate", "compare", "decide", "buy", "keep")
"""Of the built-in journey, in their order."""


class JourneyParams(DailyParams):
    """Parameters of every detector that sees the whole journey."""

    stages: tuple[str, ...] = Field(STAGES, min_length=2, description="stages of the journey in their order; a worker"
                                    " takes them from its journey")  # fmt: skip


@lru_cache(maxsize=8)
def _fields(stages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"at_all_{stage}", f"not_at_all_{stage}") for stage in stages)


JourneyT = TypeVar("JourneyT", bound=JourneyParams)


class JourneyDetector(DailyDetector[JourneyT]):
    """People who advanced of all who entered together, in every stage; one column a stage."""

    stage = JOURNEY

    @classmethod
    def pick(cls, bucket: Bucket, params: JourneyT) -> dict[str, tuple[int, ...]]:
        """For each stage: people who advanced, and all who entered with them."""
        if bucket.stage != JOURNEY:
            return {}
        get = bucket.counts.get
        counts: list[int] = []
        for yes, no in _fields(params.stages):
            advanced = get(yes, 0)
            counts += advanced, advanced + get(no, 0)
        return {"": tuple(counts)} if any(counts) else {}

    def columns(self, kind: str, rows: Array) -> tuple[Array, Array]:
        """All stages."""
        return rows[:, ::2], rows[:, 1::2]

    @property
    def early(self) -> range:
        """Columns of the early stages: the first half of the journey, as for `early_dropoff`."""
        return range((len(self.params.stages) + 1) // 2)

    @property
    def late(self) -> range:
        """Those of the late ones."""
        return range(len(self.early), len(self.params.stages))

    def by_stage(self, case: Case) -> dict[str, float]:
        """Of each stage that was entered since the onset: share before and after, people lost, people entered."""
        numbers: dict[str, float] = {}
        for i, stage in enumerate(self.params.stages):
            k, n, expected = (float(part[i]) for part in (case.since.k, case.since.n, case.since.expected))
            if n > 0.0:
                numbers |= {f"before_{stage}": expected / n, f"after_{stage}": k / n, f"lost_{stage}": expected - k,
                            f"entered_{stage}": n}  # fmt: skip
        return numbers
