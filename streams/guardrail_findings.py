"""All guardrails of one counts partition: counts in, findings out; with acknowledgements and disputes.

A breach is told as a finding of the detector `guardrails`, of the kind that its guardrail is called. Pure, in event
time: what people say (`trustwatch ack`, `trustwatch dispute`) comes as events on the line, as all else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from streams.findings import HELD, LEAST, Finding, iso
from streams.frames import Segment
from streams.guardrail_burn import WINDOWS, Breach, Burn, BurnState
from streams.guardrails import Guardrail
from streams.said import Said

DETECTOR: Final = "guardrails"
REFRESH_S: Final = 3600.0
"""An open finding is told anew this often while its numbers change."""
MOST_ACKS: Final = 1000
Held = Callable[[str, Segment], "float | None"]
"""Since when tracking that a (stage, segment) depends on has been broken; None while it is whole."""


class Watched(msgspec.Struct, array_like=True):
    """State of one guardrail.

    Attributes:
        digest: what its numbers mean; with another one they start afresh.
        burn: what it has learnt.
        told: level in which its finding was told last; empty while none is open.
        told_at: when, event time, seconds.
        disputed: since when it is questioned, event time; None while it is not.
        why: why it is.
    """

    digest: str
    burn: BurnState
    told: str = ""
    told_at: float = 0.0
    disputed: float | None = None
    why: str = ""


class GuardrailsState(msgspec.Struct, array_like=True):
    """State of `Guardrails`, as data.

    Attributes:
        watched: name → state.
        acks: id of a finding of any detector → when and with what note it was acknowledged first, oldest first.
        begun: breaches begun.
        resets: guardrails started afresh, because what they count was changed.
    """

    watched: dict[str, Watched] = {}
    acks: dict[str, tuple[float, str]] = {}
    begun: int = 0
    resets: int = 0


class View(msgspec.Struct, frozen=True):
    """What the status page and the metrics show of a guardrail; numbers of few people are left out.

    Attributes:
        name: of it.
        owner: team.
        meaning: in plain words.
        allowed: limit or budget in words.
        protects: outcome.
        action: what the owner does first.
        runbook: where more is written.
        paging: `page` or `ticket`, as it is now: a disputed one never pages.
        state: `learning`, `ok`, `ticket` or `page`.
        left: share of the budget that is left; None while not known.
        burn: window → burn rate.
        bad: bad events since the beginning.
        total: all events since the beginning.
        disputed: since when it is questioned, ISO 8601; None while it is not.
        why: why.
        finding: id of the open finding.
        response_s: how long the owner took to acknowledge, breach by breach, seconds.
        breaches: the last ones, oldest first.
    """

    name: str
    owner: str
    meaning: str
    allowed: str
    protects: str
    action: str
    runbook: str
    paging: str
    state: str
    left: float | None
    burn: dict[str, float]
    bad: int
    total: int
    disputed: str | None
    why: str
    finding: str | None
    response_s: list[float]
    breaches: list[BreachView]


class BreachView(msgspec.Struct, frozen=True):
    """A breach of the history; times are ISO 8601."""

    id: str
    level: str
    onset: str
    begun: str
    ended: str | None
    excess: float
    accepted: bool
    acknowledged: str | None
    note: str
    response_s: float | None


class Guardrails:
    """Watches them.

    Args:
        guardrails: as configured.

    Example:
        >>> from pathlib import Path
        >>> from streams.guardrails import load_guardrails
        >>> rails = Guardrails(load_guardrails(Path("deploy/guardrails.yaml")))
        >>> found = []
        >>> for hour in range(72):
        ...     bad = 30 if hour < 40 else 90
        ...     counts = {"touch_24h_n": 100, "touch_24h_k": 100 - bad}
        ...     rails.observe(hour * 3600.0, 10.0, "leads", (), counts)
        ...     found += rails.settle(hour * 3600.0 + 10.0)
        >>> [(finding.kind, finding.level, finding.owner) for finding in found][:1]
        [('leads_untouched', 'warn', 'sales-ops')]
    """

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._rails = {one.name: one for one in guardrails}
        self._of_cell: dict[tuple[str, Segment], list[str]] = {}
        for one in guardrails:
            self._of_cell.setdefault(one.source.cell, []).append(one.name)
        self._burns = {name: _burn(one) for name, one in self._rails.items()}
        self._digests = {name: _digest(one) for name, one in self._rails.items()}
        self._changed: set[str] = set()
        self._judged: set[str] = set()
        self.state = GuardrailsState()
        self._adopt(self.state)

    def __len__(self) -> int:
        """Guardrails."""
        return len(self._rails)

    # ── taking in ─────────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, ts: float, width_s: float, stage: str, segment: Segment, counts: Mapping[str, int]) -> None:
        """Take up one cell of a bucket; `settle` acts on it.

        Args:
            ts: start of the bucket, event time, seconds.
            width_s: its width.
            stage: where it was counted.
            segment: of whom.
            counts: field → count.
        """
        for name in self._of_cell.get((stage, segment), ()):
            bad, total = self._rails[name].source.count(counts)
            if (bad or total) and self._burns[name].add(ts, bad, total):
                self._judged.add(name)

    def hear(self, said: Said) -> None:
        """Take up what somebody said."""
        if said.kind == "acknowledged":
            self.acknowledge(said.what, said.note, said.at)
        elif said.kind == "disputed":
            self.dispute(said.what, said.note, said.at)
        elif said.kind == "dispute_resolved":
            self.resolve(said.what)

    def acknowledge(self, what: str, note: str, at: float) -> bool:
        """Somebody acts on a finding; only the first time counts.

        Args:
            what: id of the finding (of any detector), or name of the guardrail that is hit.
            note: what they said.
            at: event time, seconds.

        Returns:
            Whether it was news.
        """
        for name, burn in self._burns.items():
            for breach in reversed(burn.state.breaches):
                if breach_id(self._rails[name], breach) == what or (what == name and breach.ended is None):
                    if breach.acknowledged is not None:
                        return False
                    breach.acknowledged, breach.note = at, note
                    self._changed.add(name)
                    return self._note(breach_id(self._rails[name], breach), at, note)
        return what not in self._rails and self._note(what, at, note)

    def _note(self, what: str, at: float, note: str) -> bool:
        acks = self.state.acks
        if what in acks:
            return False
        acks[what] = (at, note)
        while len(acks) > MOST_ACKS:
            del acks[next(iter(acks))]
        return True

    def dispute(self, name: str, why: str, at: float) -> bool:
        """A guardrail is questioned: it is shown as such, and does not page, until `resolve`."""
        watched = self.state.watched.get(name)
        if watched is None or watched.disputed is not None:
            return False
        watched.disputed, watched.why = at, why
        self._changed.add(name)
        return True

    def resolve(self, name: str) -> bool:
        """It is questioned no more."""
        watched = self.state.watched.get(name)
        if watched is None or watched.disputed is None:
            return False
        watched.disputed, watched.why = None, ""
        self._changed.add(name)
        return True

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, now: float, held: Held | None = None) -> list[Finding]:
        """Act on what was observed, when all cells of a bucket were.

        Args:
            now: event time at which the bucket ends, seconds.
            held: tells what may come from broken tracking.

        Returns:
            Findings that began, changed their level, were acknowledged or questioned, grew older than `REFRESH_S`, or
            ended; in the order of the file.
        """
        found: list[Finding] = []
        for name, burn in self._burns.items():
            watched = self.state.watched[name]
            if burn.move_on(now) or name in self._judged or name in self._changed:
                found += self._tell(name, watched, burn, now, held)
        self._changed.clear()
        self._judged.clear()
        return found

    def _tell(self, name: str, watched: Watched, burn: Burn, now: float, held: Held | None) -> list[Finding]:
        breaches = burn.state.breaches
        if not breaches:
            return []
        breach = breaches[-1]
        if breach.ended is not None:
            if not watched.told and name not in self._changed:
                return []
            was_open, watched.told = bool(watched.told), ""
            resolved = breach.ended if was_open or breach.acknowledged is not None else None
            return [] if resolved is None else [self._finding(name, breach, resolved, held)]
        finding = self._finding(name, breach, None, held)
        level = f"{finding.level}{HELD in finding.evidence}"
        if level == watched.told and name not in self._changed and now - watched.told_at < REFRESH_S:
            return []
        self.state.begun += not watched.told
        watched.told, watched.told_at = level, now
        return [finding]

    def _finding(self, name: str, breach: Breach, ended: float | None, held: Held | None) -> Finding:
        rail, watched, burn = self._rails[name], self.state.watched[name], self._burns[name]
        stage, segment = rail.source.cell
        evidence = self._evidence(breach, burn, watched)
        broken = held(stage, segment) if held is not None and ended is None else None
        if broken is not None and breach.onset >= broken:
            evidence |= {HELD: 1.0, "tracking_broken_since": broken}
        pages = breach.level == "page" and watched.disputed is None
        before, after = (count / max(breach.total, 1) for count in (breach.expected, breach.bad))
        return Finding(
            id=breach_id(rail, breach), detector=DETECTOR, kind=name, segment={"stage": stage, **dict(segment)},
            direction="worse", level="alert" if pages else "warn", onset=iso(breach.onset),
            detected_at=iso(breach.begun), before=round(min(before, 1.0), 6), after=round(min(after, 1.0), 6),
            unit="ratio", n_before=round(burn.state.base.fit.n) or breach.total, n_after=breach.total,
            score=round(min(1.0, 0.5 + breach.worst / 30.0), 4), owner=rail.owner,
            summary=summary(rail, breach, watched.why if watched.disputed is not None else None),
            evidence={key: round(value, 6) for key, value in evidence.items()},
            resolved_at=None if ended is None else iso(ended),
        )  # fmt: skip

    @staticmethod
    def _evidence(breach: Breach, burn: Burn, watched: Watched) -> dict[str, float]:
        left = burn.left()
        numbers = {
            "bad_events": float(breach.bad), "expected_bad_events": breach.expected, "excess_bad_events": breach.excess,
            "burn_rate": breach.worst, "budget_left": left, "acknowledged_at": breach.acknowledged,
            "response_s": breach.response_s, "disputed_since": watched.disputed,
        }  # fmt: skip
        return {name: value for name, value in numbers.items() if value is not None}

    # ── showing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def view(self) -> list[View]:
        """All guardrails, in the order of the file; for metrics and page, from another thread, too."""
        return [self._view(name, rail) for name, rail in self._rails.items()]

    def acknowledged(self, finding: str) -> tuple[float, str] | None:
        """When a finding of any detector was acknowledged, and with what note."""
        return self.state.acks.get(finding)

    def _view(self, name: str, rail: Guardrail) -> View:
        burn, watched = self._burns[name], self.state.watched[name]
        breaches = list(burn.state.breaches)
        few = burn.state.days.last(rail.window_days)[1] < LEAST
        last = breaches[-1] if breaches else None
        return View(
            name=name, owner=rail.owner, meaning=rail.meaning, allowed=rail.allowed, protects=rail.protects,
            action=rail.action, runbook=rail.runbook, paging="ticket" if watched.disputed is not None else rail.paging,
            state=burn.judged, left=None if few else burn.left(),
            burn={} if few else {WINDOWS[seconds]: rate for seconds, rate in burn.rates().items()},
            bad=burn.state.all_bad, total=burn.state.all_total, why=watched.why,
            disputed=None if watched.disputed is None else iso(watched.disputed),
            finding=breach_id(rail, last) if last is not None and last.ended is None else None,
            response_s=[taken for breach in breaches if (taken := breach.response_s) is not None],
            breaches=[_shown(rail, breach) for breach in breaches],
        )  # fmt: skip

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> GuardrailsState:
        """The state as data; it shares nothing with what goes on here once it is encoded."""
        return self.state

    def restore(self, state: GuardrailsState) -> None:
        """Take up a state; a guardrail whose source or window was changed starts afresh, one that is gone is forgotten.

        It stays disputed, and its acknowledgements stay.
        """
        self._changed.clear()
        self._judged.clear()
        self._adopt(state)

    def _adopt(self, state: GuardrailsState) -> None:
        kept = {}
        for name, digest in self._digests.items():
            watched = state.watched.get(name)
            if watched is None:
                watched = Watched(digest, BurnState())
            elif watched.digest != digest:
                state.resets += 1
                watched = Watched(digest, BurnState(), disputed=watched.disputed, why=watched.why)
            kept[name] = watched
            self._burns[name].take_up(watched.burn)
        state.watched = kept
        self.state = state


def breach_id(rail: Guardrail, breach: Breach) -> str:
    """Id of the finding of a breach: the same on every run."""
    name = msgspec.json.encode((DETECTOR, rail.name, rail.source.cell, iso(breach.onset), iso(breach.begun)))
    return blake2b(name, digest_size=10).hexdigest()


def summary(rail: Guardrail, breach: Breach, why: str | None = None) -> str:
    """What, where, since when, how much, how sure, whose, and what to do first; one sentence and the action."""
    where = ", ".join(f"{label}={value}" for label, value in rail.source.segment.items())
    share, normal = (min(count / max(breach.total, 1), 1.0) for count in (breach.bad, breach.expected))
    pace = f"burns its budget at {breach.worst:.3g} times the pace it allows over {breach.rule[1]}"
    parts = [
        f"Guardrail {rail.name}{f' ({where})' if where else ''} {pace}: {share * 100:.3g} % bad since"
        f" {iso(breach.onset)[:16].replace('T', ' ')} UTC where {normal * 100:.3g} % is counted as normal,"
        f" {breach.excess:.0f} bad events too many of {breach.total}; it protects {rail.protects}"
        f" ({rail.allowed}). First: {rail.action}",
    ]  # fmt: skip
    if why is not None:
        parts.append(f"The KPI is questioned, so this is a ticket: {why}")
    if breach.response_s is not None:
        parts.append(f"Acknowledged after {breach.response_s / 60:.0f} min: {breach.note}".rstrip(": "))
    if breach.accepted:
        parts.append("It has lasted as long as its window: what is normal is learnt anew.")
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)


def _shown(rail: Guardrail, breach: Breach) -> BreachView:
    return BreachView(
        id=breach_id(rail, breach), level=breach.level, onset=iso(breach.onset), begun=iso(breach.begun),
        ended=None if breach.ended is None else iso(breach.ended), excess=round(breach.excess, 1),
        accepted=breach.accepted, acknowledged=None if breach.acknowledged is None else iso(breach.acknowledged),
        note=breach.note, response_s=breach.response_s,
    )  # fmt: skip


def _burn(rail: Guardrail) -> Burn:
    return Burn(rail.limit, rail.budget, rail.window_days, pages=rail.paging == "page",
                settle_s=rail.source.settle_hours * 3600.0)  # fmt: skip


def _digest(rail: Guardrail) -> str:
    """What its numbers mean: what is counted, over what. Owner, action and how much is allowed may change."""
    source = rail.source
    parts = (source.stage, sorted(source.segment.items()), source.bad, source.good, source.total, rail.window_days,
             rail.limit is None)  # fmt: skip
    return blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


__all__ = ["DETECTOR", "Guardrails", "GuardrailsState", "View", "breach_id", "summary"]
