"""When a finding is context and wakes nobody: its indicator is not proven, or only the mix of people has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from detectors._base import Detector, Verdict
from streams.frames import Segment
from streams.validation import Validator

PARTS: Final = 0.5
"""A change of a whole is its parts' own if within them at least this share of it is seen. Measured on simulated streams
at the moment of the alarm: 0.0 ± 0.2 where only the mix has moved, 1.0 ± 0.2 where people have."""
COVERED: Final = 0.8
"""Share of the people of the whole that the parts must hold to say anything of it."""

Instances: TypeAlias = Mapping[tuple[str, str, Segment], Detector[Any, Any]]
"""(detector, stage, segment) → who watches."""


class Context:
    """What the judge asks before a finding may wake somebody.

    Args:
        detectors: name → class.
        instances: who watches what, now.
        validator: which indicators are proven.
    """

    def __init__(
        self,
        detectors: Mapping[str, type[Detector[Any, Any]]],
        instances: Callable[[], Instances],
        validator: Validator,
    ) -> None:
        self._detectors = detectors
        self._instances = instances
        self._validator = validator

    def unproven(self, detector: str, stage: str, kind: str) -> str | None:
        """The state of the indicator that a finding rests on, unless it is proven or none is needed."""
        state = self._validator.gate(stage, self._detectors[detector], kind)
        return None if state == "proven" else state

    def mixed(self, detector: str, stage: str, segment: Segment, verdict: Verdict) -> str | None:
        """The label of which only the mix has changed, while within each of its values all is as before; None: none.

        A rate of everyone also falls when more people come of a kind that always had a lower one (Simpson's paradox).
        So what everyone lost since the onset is set against what was lost within each value of a label, by the baseline
        of that value (direct standardisation). Asked of findings about everyone only: a segment is its own mix, and
        where it moves for the same reason, everyone explains it.
        """
        if segment or verdict.onset is None:
            return None
        instances = self._instances()
        whole = instances.get((detector, stage, ()))
        lost = whole.since(verdict.onset, verdict) if whole else None
        if lost is None or not lost.n or lost.k == lost.expected:
            return None
        parts: dict[str, list[tuple[float, float]]] = {}
        for (name, where, part), instance in instances.items():
            if (name, where, len(part)) == (detector, stage, 1):
                own = instance.since(verdict.onset, verdict)
                if own is not None:
                    parts.setdefault(part[0][0], []).append((own.n, own.k - own.expected))
        mixed = [label for label, known in parts.items() if _is_mix(known, lost.n, lost.k - lost.expected)]
        return min(mixed, default=None)


def _is_mix(parts: Iterable[tuple[float, float]], n: float, change: float) -> bool:
    """Whether parts, as (people, change), that make up a whole of `n` people hardly show its change.

    >>> _is_mix([(50.0, -9.0), (50.0, -11.0)], 100.0, -20.0), _is_mix([(80.0, 1.0), (20.0, -2.0)], 100.0, -20.0)
    (False, True)
    """
    known = list(parts)
    covered = sum(people for people, _ in known)
    return covered >= COVERED * n and sum(own for _, own in known) / change < PARTS * covered / n
