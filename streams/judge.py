"""Verdicts → findings: at most one open finding per detector and root segment; when it begins, changes and ends.

The judge hears what every stream says of a bucket, and settles when all have spoken, so that the order of streams
changes nothing; `streams.roots` chooses the segments that become findings. Ids follow from detector, segment and onset,
so that a finding sent again after a crash is recognised as the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from detectors._base import Detector, Verdict
from streams.budget import PageLog
from streams.context import Context
from streams.findings import HELD, MIXED, UNPROVEN, Finding, is_context, is_held, iso, plain, summarise
from streams.frames import Segment
from streams.holds import SLACK_S, Hold, Holds, say
from streams.roots import ECHO_S, Heard, Open, decide, is_echo, overlap
from streams.settings import Settings

REFRESH_S: Final = 6 * 3600.0
"""An open finding is sent again this often (event time), with what is known of its size by then."""

GONE_S: Final = 7 * 86_400.0
"""A finding ends when nothing was heard of its stream for so long (event time)."""

Where = tuple[str, str, Segment]
"""(detector, stage, segment): one watched stream."""
Family = tuple[str, str, str, str]
"""(detector, stage, kind, direction): streams of which one may explain the others."""


class JudgeState(msgspec.Struct, array_like=True):
    """What the judge knows.

    Attributes:
        findings: by id, oldest first.
        open: stream → its open finding.
        begun: findings begun, by detector.
        heard: stream → what it said last, while it warns or alerts.
        pages: findings begun and proved false lately.
        ended: streams that were roots lately, with their kind and direction, and when they ended by themselves.
    """

    findings: dict[str, Finding] = {}
    open: list[tuple[Where, Open]] = []
    begun: dict[str, int] = {}
    heard: list[tuple[Where, Heard]] = []
    pages: PageLog = msgspec.field(default_factory=PageLog)
    ended: list[tuple[Family, Segment, float]] = []


class Judge:
    """Decides which findings begin, change and end.

    Args:
        settings: owners, limits, and when a page proves false.
        detectors: name → class, for units and titles.
        streams: gives the number of watched streams of a detector at a stage.
        holds: what findings wait for while tracking is broken, and all rows of tracking; None for nothing.
        context: says which findings are context only; None: none is.
    """

    def __init__(
        self,
        settings: Settings,
        detectors: Mapping[str, type[Detector[Any, Any]]],
        streams: Callable[[str, str], int],
        holds: tuple[Holds, Collection[Segment]] | None = None,
        context: Context | None = None,
    ) -> None:
        self._settings = settings
        self._detectors = detectors
        self._streams = streams
        self._holds, self._rows = holds or (Holds(()), ())
        self._context = context
        self._touched: set[Family] = set()
        self._calmed: dict[Where, tuple[Family, bool]] = {}
        self.state = JudgeState()

    @property
    def state(self) -> JudgeState:
        """The state as data."""
        state = self._state
        state.open = sorted(_flat(self._roots), key=lambda entry: entry[0])
        state.heard = sorted(_flat(self._heard), key=lambda entry: entry[0])
        state.ended = sorted((family, root, at) for family, ends in self._ended.items() for root, at in ends.items())
        return state

    @state.setter
    def state(self, state: JudgeState) -> None:
        self._state = state
        self._roots: dict[Family, dict[Segment, Open]] = {}
        self._heard: dict[Family, dict[Segment, Heard]] = {}
        self._family: dict[Where, Family] = {}
        self._ended: dict[Family, dict[Segment, float]] = {}
        for family, root, at in state.ended:
            self._ended.setdefault(family, {})[root] = at
        for where, known in state.open:
            finding = state.findings[known.id]
            self._join(where, (*where[:2], finding.kind, finding.direction))[0][where[2]] = known
        for where, one in state.heard:
            self._join(where, _family(where, one.verdict))[1][where[2]] = one

    @property
    def findings(self) -> dict[str, Finding]:
        """Open and recent findings by id, oldest first."""
        return self._state.findings

    @property
    def begun(self) -> dict[str, int]:
        """Findings begun, by detector."""
        return self._state.begun

    @property
    def pages(self) -> PageLog:
        """Findings begun and proved false lately."""
        return self._state.pages

    def _join(self, where: Where, family: Family) -> tuple[dict[Segment, Open], dict[Segment, Heard]]:
        self._family[where] = family
        return self._roots.setdefault(family, {}), self._heard.setdefault(family, {})

    # ── hearing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, detector: str, key: tuple[str, Segment], verdict: Verdict, now: float) -> None:
        """Take up one verdict; `settle` acts on it.

        Args:
            detector: name.
            key: stage and segment.
            verdict: what the detector said.
            now: event time, seconds.

        Raises:
            ValueError, TypeError, OverflowError: the verdict cannot be told: a number is none.
        """
        where = (detector, *key)
        if verdict.level in ("ok", "warming"):
            if where in self._family:
                self._forget(where, recovered=verdict.level == "ok")
            return
        verdict = plain(verdict)
        family = _family(where, verdict)
        before = self._family.get(where, family)
        if before != family:
            if verdict.level == "warn" and where[2] in self._roots[before]:
                return  # a lesser change of another kind says nothing of the one that is open
            self._forget(where, recovered=False)
        self._note(where, family, verdict, now)

    def _note(self, where: Where, family: Family, verdict: Verdict, now: float) -> None:
        heard = self._join(where, family)[1]
        one = heard.get(where[2])
        if one is None:
            one = heard[where[2]] = Heard(verdict, now)
            if is_echo(where[2], verdict, self._ended.get(family, {}), now):
                one.wait(now)
        one.verdict, one.at = verdict, now
        self._touched.add(family)

    def _forget(self, where: Where, *, recovered: bool) -> None:
        """The stream says nothing of this family any more."""
        family = self._family.pop(where)
        self._heard[family].pop(where[2], None)
        self._calmed[where] = family, recovered
        self._touched.add(family)

    # ── settling ──────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, now: float) -> list[Finding]:
        """Act on what was heard of one bucket, when all its streams have spoken.

        Args:
            now: event time at which the bucket ends, seconds.

        Returns:
            Findings that began, changed their level, moved to another segment, grew older than `REFRESH_S`, or ended.
        """
        self._state.pages.move_on(now)
        for where in self._gone(now):
            self._forget(where, recovered=False)
        changed: list[Finding] = []
        for where, (family, recovered) in sorted(self._calmed.items()):
            if where[2] in self._roots[family]:
                changed.append(self._end(family, where[2], now, recovered=recovered))
                self._free(family, where[2], now)
        for family in sorted(self._touched):
            changed += self._settle(family, now)
        self._touched.clear()
        self._calmed.clear()
        return changed

    def _gone(self, now: float) -> list[Where]:
        """Streams that a finding is open for and that have not spoken for long: a closed campaign, a removed page."""
        open_roots = [(family, segment) for family, roots in self._roots.items() for segment in roots]
        return [
            (*family[:2], segment)
            for family, segment in open_roots
            if (one := self._heard[family].get(segment)) is not None and now - one.at > GONE_S
        ]

    def _settle(self, family: Family, now: float) -> list[Finding]:
        roots, heard = self._roots[family], self._heard[family]
        decision = decide(heard, roots, self._streams(*family[:2]), now)
        since = min([roots[segment].since for segment in decision.end], default=now)
        changed = [self._end(family, segment, now) for segment in decision.end]
        for segment in decision.begin:
            moved = bool(decision.end) and segment == decision.begin[0]
            if not moved and self._waits(family, segment):
                continue  # until it is known whether people or tags have changed
            changed.append(self._begin(family, segment, now, since if moved else None))
        for segment in sorted(roots):
            if self._is_free(family, segment):
                changed.append(self._end(family, segment, now))
                heard[segment].wait(now)  # it may have been tracking alone; what goes on shows so
            else:
                changed += self._refresh(family, segment, now)
        if not roots and not heard:
            del self._roots[family], self._heard[family]
        return changed

    def _begin(self, family: Family, segment: Segment, now: float, since: float | None) -> Finding:
        """A segment becomes a root; `since`: when that was noticed which moved here from other segments."""
        where, one = (*family[:2], segment), self._heard[family][segment]
        one.waits_from = None
        onset = iso(now if one.verdict.onset is None else one.verdict.onset)
        name = blake2b(msgspec.json.encode((where, one.verdict.kind, onset)), digest_size=10).hexdigest()
        moved = since is not None
        self._roots[family][segment] = Open(name, now, now if since is None else since, now if moved else 0.0)
        self._state.begun[family[0]] = self._state.begun.get(family[0], 0) + 1
        told = self._state.findings.get(name)  # the same claim as before, once more
        finding = self._describe(family, segment, name, onset, told.detected_at if told else iso(now))
        if not moved and not is_context(finding):
            self._state.pages.note(family[0], now, begun=1)
        return self._keep(finding)

    def _refresh(self, family: Family, segment: Segment, now: float) -> list[Finding]:
        known = self._roots[family][segment]
        before = self._state.findings[known.id]
        if segment not in self._heard[family]:
            return []
        held = self._held(family, segment) is not None
        same = self._level(family, segment) == before.level and held == is_held(before)
        same = same and (self._unproven(family) is not None) == (UNPROVEN in before.evidence)
        if same and now - known.sent < REFRESH_S:
            return []
        known.sent = now
        fresh = self._describe(family, segment, before.id, before.onset, before.detected_at)
        # The onset stays what it was when the finding began, and its interval with it.
        return [self._keep(msgspec.structs.replace(fresh, onset_from=before.onset_from, onset_to=before.onset_to))]

    # ── holding back ──────────────────────────────────────────────────────────────────────────────────────────────

    def _held(self, family: Family, segment: Segment) -> tuple[Segment, Hold] | None:
        """The broken tracking that an open finding, or one that begins, may come from."""
        found = self._holds.broken(family[1], segment, self._rows)
        known = self._roots[family].get(segment)
        return None if found and known and known.since < found[1].onset - SLACK_S else found

    def _waits(self, family: Family, segment: Segment) -> bool:
        """Whether tracking behind it may be broken, which is not sure yet."""
        stage = family[1]
        known = self._holds.broken(stage, segment, self._rows) is not None
        return not known and self._holds.suspected(stage, segment, self._rows)

    def _is_free(self, family: Family, segment: Segment) -> bool:
        """Whether it was held back, and tracking has been well again for some time."""
        known = self._roots[family][segment]
        was = is_held(self._state.findings[known.id])
        return was and segment in self._heard[family] and self._held(family, segment) is None

    def _end(self, family: Family, segment: Segment, now: float, *, recovered: bool = False) -> Finding:
        """A segment is no root any more."""
        known = self._roots[family].pop(segment)
        where = (*family[:2], segment)
        if segment not in self._heard[family] and self._family.get(where) == family:
            del self._family[where]
        if recovered and now - known.since <= self._settings.false_page_within_s:
            self._state.pages.note(family[0], now, false=1)
        return self._keep(msgspec.structs.replace(self._state.findings[known.id], resolved_at=iso(now)))

    def _free(self, family: Family, segment: Segment, now: float) -> None:
        """A root has ended by itself; what it explained has to show strength of its own."""
        for other, one in self._heard[family].items():
            if overlap(segment, other) and other not in self._roots[family]:
                one.wait(now)
        before = self._ended.get(family, {})
        self._ended[family] = {root: at for root, at in before.items() if now - at < ECHO_S} | {segment: now}

    def take(self, finding: Finding) -> None:
        """Keep a finding that somebody else decided on: a guardrail's."""
        if finding.id not in self.findings and finding.resolved_at is None:
            self._state.begun[finding.detector] = self._state.begun.get(finding.detector, 0) + 1
        self._keep(finding)

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

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _explained(self, family: Family, segment: Segment) -> int:
        """Streams that alert and have no finding because this root explains them."""
        roots = self._roots[family]
        others = ((other, one) for other, one in self._heard[family].items() if other not in roots)
        return sum(one.alerting and overlap(segment, other) for other, one in others)

    def _level(self, family: Family, segment: Segment) -> Literal["warn", "alert"]:
        """Of the root, or of what it explains."""
        return "alert" if self._heard[family][segment].alerting or self._explained(family, segment) else "warn"

    def _describe(self, family: Family, segment: Segment, name: str, onset: str, detected_at: str) -> Finding:
        detector, stage, kind, _ = family
        cls, verdict = self._detectors[detector], self._heard[family][segment].verdict
        labels = {"stage": stage, **dict(segment)}
        explained = self._explained(family, segment)
        evidence = {**verdict.evidence, **({"explained_segments": float(explained)} if explained else {})}
        held = self._held(family, segment)
        said = [summarise(cls.title, verdict, labels, cls.unit, onset)]
        if held is not None:
            evidence |= {HELD: 1.0, "tracking_broken_since": held[1].onset}
            said.append(say(*held))
        for name_, why in self._only_context(family, segment, verdict):
            evidence[name_] = 1.0
            said.append(why)
        return Finding(
            id=name, detector=detector, kind=kind, segment=labels, direction=verdict.direction,
            level=self._level(family, segment), onset=onset, detected_at=detected_at,
            before=round(verdict.before, 6), after=round(verdict.after, 6), unit=cls.unit, n_before=verdict.n_before,
            n_after=verdict.n_after, score=round(verdict.score, 4), owner=self._owner(detector, stage),
            summary=" ".join(said),
            evidence={key: round(value, 6) for key, value in evidence.items()},
            onset_from=None if verdict.onset_from is None else iso(verdict.onset_from),
            onset_to=None if verdict.onset_to is None else iso(verdict.onset_to),
        )  # fmt: skip

    def _unproven(self, family: Family) -> str | None:
        detector, stage, kind, _ = family
        return self._context.unproven(detector, stage, kind) if self._context else None

    def _only_context(self, family: Family, segment: Segment, verdict: Verdict) -> list[tuple[str, str]]:
        """Why a finding wakes nobody: name in the evidence, and a sentence."""
        found, state = [], self._unproven(family)
        if state is not None:
            lost = "no longer" if state == "lost" else "not yet"
            found.append((UNPROVEN, f"Context only: it is {lost} proven to predict what people do next here."))
        label = self._context.mixed(*family[:2], segment, verdict) if self._context else None
        if label is not None:
            why = f"who comes has changed, by {label}, not what they do: within each {label} all is as before"
            found.append((MIXED, f"Context only: {why}."))
        return found

    def _owner(self, detector: str, stage: str) -> str:
        owners = self._settings.owners
        return owners.stages.get(stage) or owners.detectors.get(detector) or owners.default


def _family(where: Where, verdict: Verdict) -> Family:
    return (*where[:2], verdict.kind or where[0], verdict.direction)


def _flat(nested: Mapping[Family, Mapping[Segment, Any]]) -> list[tuple[Where, Any]]:
    return [((*family[:2], segment), value) for family, inner in nested.items() for segment, value in inner.items()]
