"""Verdicts → findings: at most one open finding per detector and segment, with onset, size and owner.

Ids follow from detector, segment and onset, so that a finding sent again after a crash is recognised as the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from detectors._base import Detector, Verdict
from streams.combine import LEADS
from streams.frames import Segment
from streams.settings import Settings

REFRESH_S: Final = 6 * 3600.0
"""An open finding is sent again this often (event time), with what is known of its size by then."""


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
        evidence: name → number.
        resolved_at: when it ended, ISO 8601 UTC, event time; None while open.
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


class Open(msgspec.Struct, array_like=True):
    """Book-keeping of an open finding: its id, and when it was sent last (event time, seconds)."""

    id: str
    sent: float


class JudgeState(msgspec.Struct, array_like=True):
    """Findings by id, oldest first; which one is open for a (detector, stage, segment); how many began, by detector."""

    findings: dict[str, Finding] = {}
    open: list[tuple[tuple[str, str, Segment], Open]] = []
    begun: dict[str, int] = {}


class Judge:
    """Decides when a finding begins, changes and ends.

    Args:
        settings: owners and limits.
        detectors: name → class, for units and titles.
    """

    def __init__(self, settings: Settings, detectors: Mapping[str, type[Detector[Any, Any]]]) -> None:
        self._settings = settings
        self._detectors = detectors
        self._open: dict[tuple[str, str, Segment], Open] = {}
        self._state = JudgeState()

    @property
    def state(self) -> JudgeState:
        """The state as data."""
        self._state.open = sorted(self._open.items(), key=lambda entry: entry[0])
        return self._state

    @state.setter
    def state(self, state: JudgeState) -> None:
        self._state = state
        self._open = dict(state.open)

    def update(self, detector: str, key: tuple[str, Segment], verdict: Verdict, now: float) -> list[Finding]:
        """Judge one verdict.

        Args:
            detector: name.
            key: stage and segment.
            verdict: what the detector said.
            now: event time, seconds.

        Returns:
            The finding, if it began, changed its level, grew older than `REFRESH_S`, or ended; both, if one of another
            kind took its place.
        """
        where = (detector, *key)
        known = self._open.get(where)
        if known is None:
            return [self._begin(where, verdict, now)] if verdict.level == "alert" else []
        before = self._state.findings[known.id]
        if verdict.level in ("ok", "warming"):
            return [self._end(where, before, now)]
        if before.kind != (verdict.kind or detector):
            # A lesser change of another kind says nothing of this one; an alert takes its place.
            return [self._end(where, before, now), self._begin(where, verdict, now)] if verdict.level == "alert" else []
        if verdict.level != before.level or now - known.sent >= REFRESH_S:
            known.sent = now
            return [self._keep(self._describe(where, verdict, before.id, before.onset, before.detected_at))]
        return []

    def _end(self, where: tuple[str, str, Segment], finding: Finding, now: float) -> Finding:
        del self._open[where]
        return self._keep(msgspec.structs.replace(finding, resolved_at=iso(now)))

    def _begin(self, where: tuple[str, str, Segment], verdict: Verdict, now: float) -> Finding:
        onset = iso(now if verdict.onset is None else verdict.onset)
        name = msgspec.json.encode((where, verdict.kind, onset))
        finding = self._describe(where, verdict, blake2b(name, digest_size=10).hexdigest(), onset, iso(now))
        self._open[where] = Open(finding.id, now)
        self._state.begun[where[0]] = self._state.begun.get(where[0], 0) + 1
        return self._keep(finding)

    def _keep(self, finding: Finding) -> Finding:
        findings = self._state.findings
        findings[finding.id] = finding
        while len(findings) > self._settings.limits.findings:
            resolved = (name for name, old in findings.items() if old.resolved_at is not None)
            gone = next(resolved, None)
            if gone is None:
                break  # open ones are bounded by the number of streams
            del findings[gone]
        return finding

    def _describe(
        self, where: tuple[str, str, Segment], verdict: Verdict, name: str, onset: str, detected_at: str
    ) -> Finding:
        detector, stage, labels = where
        cls = self._detectors[detector]
        segment = {"stage": stage, **dict(labels)}
        return Finding(
            id=name, detector=detector, kind=verdict.kind or detector, segment=segment, direction=verdict.direction,
            level="alert" if verdict.level == "alert" else "warn", onset=onset, detected_at=detected_at,
            before=round(verdict.before, 6), after=round(verdict.after, 6), unit=cls.unit, n_before=verdict.n_before,
            n_after=verdict.n_after, score=round(verdict.score, 4), owner=self._owner(detector, stage),
            summary=summarise(cls.title, verdict, segment, cls.unit, onset),
            evidence={key: round(value, 6) for key, value in verdict.evidence.items()},
        )  # fmt: skip

    def _owner(self, detector: str, stage: str) -> str:
        owners = self._settings.owners
        return owners.stages.get(stage) or owners.detectors.get(detector) or owners.default


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


def iso(seconds: float) -> str:
    """Event time in ISO 8601, UTC, whole seconds.

    >>> iso(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(round(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _amount(value: float, unit: str) -> str:
    return f"{value * 100:.1f} %" if unit == "ratio" else f"{value:.3g} {unit}"
