"""What a finding is, and how a verdict is told: with onset, size and owner, and in one sentence.

`streams.judge` decides which findings begin, change and end.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from math import isfinite
from typing import Final, Literal

import msgspec

from detectors._base import Verdict
from detectors._stages import LEADS
from streams.validation_states import StateChange

LEAST: Final = 5
"""People of whom numbers are shown at least; what is said of fewer could be said of one."""


class Finding(msgspec.Struct, frozen=True):
    """One detector's claim; the fields are a contract, see `events.md`.

    Attributes:
        id: the same for the same claim, on every run.
        detector: name of the detector.
        kind: what kind of change, where the detector tells several apart; else its name.
        segment: stage and labels.
        direction: `worse` or `better`.
        level: `warn` or `alert`.
        onset: since when, ISO 8601 UTC, event time.
        detected_at: when it was noticed, ISO 8601 UTC, event time.
        before: quantity in `unit` before the onset.
        after: the same since the onset.
        unit: Prometheus base unit.
        n_before: observations behind `before`.
        n_after: observations behind `after`.
        score: 0 (fine) to 1 (worst).
        owner: who acts on it.
        summary: one sentence.
        evidence: name → number; `explained_segments`: overlapping segments that alert and have no finding of their own.
        resolved_at: when it ended, ISO 8601 UTC, event time; None while open.
        onset_from: earliest onset that fits, ISO 8601 UTC (95 % interval); None if not known.
        onset_to: latest one.
    """

    id: str
    detector: str
    kind: str
    segment: dict[str, str]
    direction: str
    level: Literal["warn", "alert"]
    onset: str
    detected_at: str
    before: float
    after: float
    unit: str
    n_before: int
    n_after: int
    score: float
    owner: str
    summary: str
    evidence: dict[str, float]
    resolved_at: str | None = None
    onset_from: str | None = None
    onset_to: str | None = None


def is_small(finding: Finding) -> bool:
    """Whether one of its sides rests on fewer than `LEAST`: then no page, dashboard or annotation shows its numbers.

    It is told all the same: that it is open, since when, where, how urgent and whose. Both sides count, because each
    number of a side is one of its people.
    """
    return min(finding.n_before, finding.n_after) < LEAST


def public(finding: Finding) -> Finding:
    """A finding as others may see it: without numbers where it rests on so few people; its counts are 0 then."""
    if not is_small(finding):
        return finding
    kept = {name: value for name, value in finding.evidence.items() if name in CONTEXT}
    said = f"{finding.detector}: fewer than {LEAST} people, not shown."
    return msgspec.structs.replace(
        finding, before=0.0, after=0.0, n_before=0, n_after=0, evidence=kept, summary=said
    )  # fmt: skip


HELD: Final = "held_back"
"""In the evidence of a finding that may come from broken tracking: nobody is told of it while that lasts."""


UNPROVEN: Final = "unproven"
"""In the evidence of a finding whose indicator is not proven to predict an outcome: it is shown, and wakes nobody."""
MIXED: Final = "mix_shift"
"""In the evidence of a finding about everyone while within each value of a label all is as before."""
CONTEXT: Final = (HELD, UNPROVEN, MIXED)


def is_context(finding: Finding) -> bool:
    """Whether nobody is to be woken by it, however large it is."""
    return any(name in finding.evidence for name in CONTEXT)


def is_held(finding: Finding) -> bool:
    """Whether it is held back, because tracking that it depends on is broken."""
    return HELD in finding.evidence


def plain(verdict: Verdict) -> Verdict:
    """The same in plain, finite numbers, as a checkpoint gives them back.

    Raises:
        ValueError, TypeError, OverflowError: the verdict cannot be told: a number is none.
    """
    numbers = {name: float(getattr(verdict, name)) for name in ("score", "before", "after", "gain")}
    times = {name: getattr(verdict, name) for name in ("onset", "onset_from", "onset_to")}
    times = {name: float(value) for name, value in times.items() if value is not None}
    evidence = {name: float(value) for name, value in verdict.evidence.items()}
    if not all(map(isfinite, (*numbers.values(), *evidence.values()))):
        raise ValueError("a verdict must have finite numbers")
    for value in times.values():
        iso(value)
    counts = {"n_before": int(verdict.n_before), "n_after": int(verdict.n_after)}
    return msgspec.structs.replace(verdict, evidence=evidence, **numbers, **times, **counts)


def summarise(title: str, verdict: Verdict, segment: Mapping[str, str], unit: str, onset: str) -> str:
    """What, where, since when, how much; one sentence.

    >>> verdict = Verdict("alert", before=0.45, after=0.3, n_after=410)
    >>> summarise("Early drop-off", verdict, {"stage": "evaluate", "device": "mobile"}, "ratio", "2026-03-01T10:00:00Z")
    'Early drop-off at evaluate (device=mobile): 45.0 % before, 30.0 % since 2026-03-01 10:00 UTC, worse, on 410
    observations.'
    """
    labels = ", ".join(f"{label}={value}" for label, value in segment.items() if label != "stage")
    place = segment["stage"] if segment["stage"] != LEADS or not labels else ""
    where = " ".join(part for part in (f"at {place}" if place else "for", f"({labels})" if labels else "") if part)
    since = onset[:16].replace("T", " ")
    kind = f" [{verdict.kind}]" if verdict.kind else ""
    return (
        f"{title}{kind} {where}: {_amount(verdict.before, unit)} before, {_amount(verdict.after, unit)}"
        f" since {since} UTC, {verdict.direction}, on {verdict.n_after} observations."
    )


VALIDATION: Final = "outcome_validation"
"""The name under which it is told that an indicator became proven, or lost that; no detector is called so."""


def of_change(change: StateChange, owner: str) -> Finding:
    """A change of what is proven, as a finding: it is over as soon as it is told, and wakes nobody."""
    at, numbers = iso(change.ts), change.numbers
    name = blake2b(msgspec.json.encode((VALIDATION, change.indicator, change.outcome, change.stage, change.family, at,
                                        change.after)), digest_size=10).hexdigest()  # fmt: skip
    evidence = {
        "gain_nats": numbers.gain, "log_odds": numbers.log_odds, "auc": numbers.auc,
        "outcomes": float(numbers.outcomes), "indicated": float(numbers.indicated),
        "calibration_error": numbers.calibration_error,
    }  # fmt: skip
    return Finding(
        id=name, detector=VALIDATION, kind=f"{change.indicator}_{change.outcome}_{change.after}",
        segment={"stage": change.stage, "family": change.family},
        direction="better" if change.after == "proven" else "worse", level="warn", onset=at, detected_at=at,
        before=round(numbers.foretold / max(numbers.indicated, 1), 6),
        after=round(numbers.observed / max(numbers.indicated, 1), 6), unit="ratio", n_before=numbers.outcomes,
        n_after=numbers.indicated, score=0.0, owner=owner, summary=change.summary,
        evidence={key: round(value, 6) for key, value in evidence.items()}, resolved_at=at,
    )  # fmt: skip


def iso(seconds: float) -> str:
    """Event time in ISO 8601, UTC, whole seconds.

    >>> iso(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(round(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _amount(value: float, unit: str) -> str:
    return f"{value * 100:.1f} %" if unit == "ratio" else f"{value:.3g} {unit}"
