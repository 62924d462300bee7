"""One row of the report: all detectors on one kind of stream and one change, and who is ahead."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot, inf
from typing import Final, NamedTuple

from tests.bench._scores import Delays, FalseAlarms
from tests.bench._streams import Change, Kind
from tests.bench._trustwatch import NAME
from tests.bench._tuning import ALLOWED

COMPARABLE: Final = 2 * ALLOWED
"""More false alarms per 100,000 events than this, and a detector's delays are no argument."""
FINDS: Final = 0.05
"""Share missed from which on the share missed is compared before the delay."""


class Row(NamedTuple):
    """Results by detector, trustwatch first.

    Attributes:
        kind: the stream.
        change: what happens to it.
        quiet: false alarms on such streams without change.
        found: delays.
    """

    kind: Kind
    change: Change
    quiet: Mapping[str, FalseAlarms]
    found: Mapping[str, Delays]

    @property
    def is_main(self) -> bool:
        """Whether the change is the one that the limits are about."""
        return self.change == Change(0.24)

    @property
    def what(self) -> str:
        """The change in words."""
        gradual = f" over {self.change.ramp_n:,} events" if self.change.ramp_n else ""
        return f"{self.kind.base:g} → {self.change.to:g}{gradual}"

    def standing(self, name: str) -> tuple[bool, float, float]:
        """For comparing detectors, less is better: too many false alarms, share missed if it matters, median delay."""
        found = self.found[name]
        missed = found.missed if found.missed > FINDS else 0.0
        return self.quiet[name].rate > COMPARABLE, missed, inf if found.median is None else found.median

    @property
    def best_peer(self) -> str | None:
        """River's best detector with a comparable rate of false alarms."""
        peers = [name for name in self.found if name != NAME and not self.standing(name)[0]]
        return min(peers, key=self.standing) if peers else None

    @property
    def has_fewest_false_alarms(self) -> bool:
        """Whether no detector keeps to a comparable rate of false alarms, and trustwatch has the lowest."""
        rates = {name: quiet.rate for name, quiet in self.quiet.items()}
        return min(rates.values()) > COMPARABLE and min(rates, key=rates.__getitem__) == NAME

    @property
    def is_ahead(self) -> bool:
        """Whether trustwatch is ahead of all of River's detectors."""
        if self.has_fewest_false_alarms:
            return True
        best = self.best_peer
        return not self.standing(NAME)[0] and (best is None or self.standing(NAME) < self.standing(best))

    @property
    def verdict(self) -> str:
        """Who is ahead, and why."""
        rate = self.quiet[NAME].rate
        if self.has_fewest_false_alarms:
            return f"ahead: nobody keeps to {COMPARABLE:g} false alarms per 100,000 events here, the others have more"
        if rate > COMPARABLE:
            return f"not ahead: {rate:.1f} false alarms per 100,000 events are more than {COMPARABLE:g}"
        if self.is_ahead:
            return "ahead"
        best = self.best_peer
        assert best is not None
        mine, other = self.found[NAME], self.found[best]
        if max(mine.missed, other.missed) > FINDS:
            return f"not ahead: {best} missed {other.missed:.1%}, trustwatch {mine.missed:.1%}"
        faster = (mine.median or inf) - (other.median or inf)
        p90 = "too" if (other.p90 or inf) < (mine.p90 or inf) else "not"
        return (f"not ahead: {best} is faster by {faster:,.0f} ± {self._error_of_difference(best):,.0f} events at the"
                f" median, at the 90th percentile {p90}; at {self.quiet[best].rate:.1f} false alarms against"
                f" {rate:.1f}, and {other.missed:.1%} missed against {mine.missed:.1%}")  # fmt: skip

    def _error_of_difference(self, name: str) -> float:
        """Standard error of a difference of medians; streams are the same, so it is rather less."""
        errors = [self.found[each].median_error or 0.0 for each in (NAME, name)]
        return hypot(*errors)
