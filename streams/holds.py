"""Which trust findings have to wait, because the tracking that they depend on is broken or may be.

A hold is what one row of `detectors.data_trust` says. It is event time and data only, and every counts partition hears
the same rows, so that all of them hold the same findings back, whichever of them owns the stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from detectors._base import Verdict
from detectors._stages import CONTACTS, CUSTOMERS, LEADS, TRACKING
from streams.customers import CUSTOMER_TYPES
from streams.events import CRM_TYPES, WEB_TYPES
from streams.findings import iso
from streams.frames import Segment
from streams.leads import LEAD_TYPES
from streams.roots import overlap
from streams.tracking import DEVICE

AFTER_S: Final = 5400.0
"""A hold goes on for so long after tracking is well again, event time: what became of steps that began while it was
broken is known half an hour later, and what was held has to show that it goes on."""
SLACK_S: Final = 3600.0
"""A finding that was noticed so long before tracking broke, event time, does not come from it."""
HARMLESS: Final = frozenset({"duplicates", "no_session"})
"""Checks that say nothing against counts: repeats are dropped, and sessions without an id are told by their gaps."""
_MAILS: Final = frozenset({"email_sent", "email_opened", "email_clicked", "unsubscribed", "complained"})
OF_CRM: Final = {LEADS: LEAD_TYPES, CONTACTS: _MAILS, CUSTOMERS: CUSTOMER_TYPES - _MAILS}
"""Stages that are counted from a CRM, and the event types that they are counted from."""


class Hold(msgspec.Struct, array_like=True):
    """One row that is broken, or may be.

    Attributes:
        kind: what broke.
        onset: since when, event time, seconds.
        broken: it alerts, not only warns.
        ended: event time at which it was well again, seconds; None while it is not.
        last: event time at which it spoke last, seconds.
    """

    kind: str
    onset: float
    broken: bool
    ended: float | None = None
    last: float = 0.0


class Holds:
    """All holds of one counts partition.

    Args:
        journey: stages, in order.
    """

    def __init__(self, journey: Sequence[str]) -> None:
        self._rank = {stage: rank for rank, stage in enumerate(journey)}
        self.rows: dict[Segment, Hold] = {}

    def hear(self, row: Segment, verdict: Verdict, now: float) -> None:
        """Take up what a row says at event time `now`, seconds."""
        known = self.rows.get(row)
        if verdict.level in ("warn", "alert"):
            broken = verdict.level == "alert"
            onset = now if verdict.onset is None else verdict.onset
            if known is None or (broken and not known.broken):
                known = self.rows[row] = Hold(verdict.kind, onset, broken)
            known.ended, known.last = None, now
        elif known is not None and known.ended is None:
            if known.broken:
                known.ended = now
            else:
                del self.rows[row]

    def move_on(self, now: float) -> None:
        """Forget what has been well for `AFTER_S`, event time."""
        for row in [row for row, hold in self.rows.items() if hold.ended is not None and now - hold.ended > AFTER_S]:
            del self.rows[row]

    def broken(self, stage: str, segment: Segment, known: Iterable[Segment]) -> tuple[Segment, Hold] | None:
        """The hold that says that the tracking behind these counts is broken; the one that has been so longest."""
        return self._first(stage, segment, known, broken=True)

    def suspected(self, stage: str, segment: Segment, known: Iterable[Segment]) -> bool:
        """Whether tracking behind these counts may be broken, and is not known to be."""
        return self._first(stage, segment, known, broken=False) is not None

    def _first(
        self, stage: str, segment: Segment, known: Iterable[Segment], *, broken: bool
    ) -> tuple[Segment, Hold] | None:
        if stage == TRACKING or not self.rows:
            return None
        found = [
            (hold.onset, row)
            for row, hold in self.rows.items()
            if hold.broken == broken and self._concerns(dict(row), stage, segment, known)
        ]
        return (min(found)[1], self.rows[min(found)[1]]) if found else None

    def _concerns(self, row: dict[str, str], stage: str, segment: Segment, known: Iterable[Segment]) -> bool:
        if row.get("check") in HARMLESS:
            return False
        if "label" in row:
            return any(label == row["label"] for label, _ in segment)
        if "size" in row:
            return stage == LEADS and row["type"] == "lead_scored"
        crm = stage in OF_CRM
        if not (row["type"] in OF_CRM[stage] if "type" in row and crm else crm == self._of_crm(row, crm, known)):
            return False
        if DEVICE in row and not overlap(((DEVICE, row[DEVICE]),), segment):
            return False
        at = row.get("at")
        return at is None or self._rank.get(stage, 0) <= self._rank.get(at, len(self._rank))

    @staticmethod
    def _of_crm(row: dict[str, str], crm_stage: bool, known: Iterable[Segment]) -> bool:
        """Whether a row is about a CRM; a source that carries both, or that is not known, is about either."""
        if "type" in row:
            return row["type"] in CRM_TYPES
        if "source" not in row:
            return False
        types = {dict(one).get("type") for one in known if ("source", row["source"]) in one}
        web, crm = not types.isdisjoint(WEB_TYPES), not types.isdisjoint(CRM_TYPES)
        return crm_stage if web == crm else crm


def say(row: Segment, hold: Hold) -> str:
    """What a finding says that is held back."""
    labels = dict(row)
    names = ("type", "page", "device", "label", "size", "check", "source")
    what = ", ".join(f"{name}={labels[name]}" for name in names if name in labels)
    return f"Held back: tracking of {what} is broken ({hold.kind}) since {iso(hold.onset)[:16].replace('T', ' ')} UTC."
