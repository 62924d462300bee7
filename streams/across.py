"""All stages of the journey side by side: one cell for each segment, from the cells of its stages.

What concerns several stages at once (a funnel that diverges, small losses at every step, the confidence index) is seen
in one place so: the cells of one stage are all in the same counts partition, those of different stages need not be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from detectors._stages import JOURNEY
from streams.frames import Cell, Segment

SIDE_BY_SIDE: Final = ("entered", "advanced", "dropped", "at_all", "not_at_all", "long_yes", "long_no", "value")
"""Fields that are told side by side, beside those of the indicators (`ind_…`)."""


class Across:
    """Makes the cells of `JOURNEY`.

    Args:
        stages: of the journey.

    >>> cells = [Cell(0.0, "evaluate", (), {"entered": 3, "judged": 2}), Cell(0.0, "decide", (), {"entered": 1})]
    >>> Across(["evaluate", "decide"]).cells(0.0, cells)[0].counts
    {'entered_evaluate': 3, 'entered_decide': 1}
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self._names: dict[str, dict[str, str | None]] = {stage: {} for stage in stages}

    def cells(self, ts: float, cells: Iterable[Cell]) -> list[Cell]:
        """The cells of all stages together; `cells` are those of one bucket, which starts at `ts`."""
        found: dict[Segment, dict[str, int]] = {}
        for cell in cells:
            names = self._names.get(cell.stage)
            if names is None:
                continue
            for field, count in cell.counts.items():
                name = names[field] if field in names else self._name(cell.stage, field)
                if name is not None:
                    found.setdefault(cell.segment, {})[name] = count
        return [Cell(ts, JOURNEY, segment, found[segment]) for segment in sorted(found)]

    def _name(self, stage: str, field: str) -> str | None:
        told = field in SIDE_BY_SIDE or field.startswith("ind_")
        name = self._names[stage][field] = f"{field}_{stage}" if told else None
        return name
