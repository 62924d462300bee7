"""Guardrails as code: what `guardrails.yaml` may say, checked strictly, and what has changed between two of them.

A guardrail says where not to go: bad events of all events, a limit or a budget against the learnt baseline, an owner,
and what the owner does first. `streams.guardrail_burn` judges it, `streams.guardrail_findings` tells of it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from detectors._micro_signals import SIGNALS
from detectors._stages import CONTACTS, CUSTOMERS, JOURNEY, LEADS
from streams.errors import ConfigError
from streams.events import EVENT_TYPES
from streams.frames import Segment
from streams.settings import SegmentSettings

STAGES: Final = (JOURNEY, LEADS, CONTACTS, CUSTOMERS)
"""What guardrails may be about: all of these are counted in one place."""
MOST: Final = 100
"""Guardrails of one file."""
WILD: Final = "*"
_NAME: Final = r"^[a-z][a-z0-9_]*$"
_INDICATORS: Final = (*SIGNALS, "signal", "hesitant")
_PER_STAGE: Final = (
    "entered", "advanced", "dropped", "at_all", "not_at_all", "long_yes", "long_no",
    *(f"ind_{name}_{end}" for name in _INDICATORS for end in ("yes", "no")),
)  # fmt: skip
_OF_LEADS: Final = (
    "created", "scored", "handed_over", "touched", "accepted", "rejected", "won", "lost", "value_won",
    *(f"touch{mark}_{end}" for mark in ("", "_1h", "_4h", "_24h", "_48h") for end in ("n", "k")),
    *(f"{what}_{end}" for what in ("accept", "win") for end in ("n", "k")),
    *(f"ind_touched_{what}_{end}" for what in ("accept", "win") for end in ("yes", "no")),
)  # fmt: skip
_STRATA: Final = tuple(f"d{dose}w{warm}" for dose in range(5) for warm in range(2))
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    LEADS: _OF_LEADS,
    CONTACTS: (
        "sent", "opened", "clicked", "unsubscribed", "complained", "dose_sum",
        *(f"mail_{what}_{stratum}" for what in ("n", "left", "reply") for stratum in _STRATA),
    ),
    CUSTOMERS: (
        "ordered", "value_ordered", "due_n", "due_late", "delivered_n", "delivered_wrong", "case_n", "case_unsolved",
        "nps_n", "nps_bad", "nps_good", "csat_n", "csat_bad", "ces_n", "ces_bad", "renewed", "churned",
        *(f"ind_{what}_renew_{end}" for what in ("late", "unsolved", "badscore") for end in ("yes", "no")),
    ),
}  # fmt: skip
_BINNED: Final = re.compile(r"(?:score|(?:accept|win)_[nk])_\d{1,2}")
_URL: Final = re.compile(r"^https?://[^\s/]+\S*$")
Text = Annotated[str, Field(min_length=3, max_length=300)]
Fields = Annotated[tuple[str, ...], Field(max_length=50)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)


class Source(_Part):
    """Where the numbers come from: a stage, and which of its counted fields are the bad events and all events."""

    stage: Literal["journey", "leads", "contacts", "customers"]
    total: Fields = Field(min_length=1)
    bad: Fields = ()
    good: Fields = ()
    segment: dict[str, str] = {}
    settle_hours: Annotated[float, Field(ge=0, le=72)] = 0.0
    events: tuple[str, ...] = ()

    @field_validator("events")
    @classmethod
    def _of_ours(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(events) - EVENT_TYPES):
            raise ValueError(f"unknown event type {unknown[0]!r}{_meant(unknown[0], EVENT_TYPES)}")
        return events

    @model_validator(mode="after")
    def _either(self) -> Source:
        if bool(self.bad) == bool(self.good):
            raise ValueError("give either bad or good fields")
        for knob in ("bad", "good", "total"):
            for field in getattr(self, knob):
                _check_field(knob, field, self.stage)
        if set(self.bad) == set(self.total) or set(self.good) == set(self.total):
            raise ValueError("bad (or good) and total are the same fields: nothing could ever change")
        return self

    @property
    def cell(self) -> tuple[str, Segment]:
        """The (stage, segment) that it is counted in."""
        return self.stage, tuple(sorted(self.segment.items()))

    def count(self, counts: Mapping[str, int]) -> tuple[int, int]:
        """Bad events and all events of one cell.

        >>> source = Source(stage="leads", good=["accept_k*"], total=["accept_n*"])
        >>> source.count({"accept_n": 2, "accept_n_7": 5, "accept_k_7": 3, "handed_over": 9})
        (4, 7)
        """
        total = _sum(counts, self.total)
        return (_sum(counts, self.bad) if self.bad else max(total - _sum(counts, self.good), 0)), total


class Guardrail(_Part):
    """One KPI that says where not to go.

    Attributes:
        name: as findings, metrics and alerts call it.
        owner: team that acts; a label of its alerts and the route that they take.
        meaning: in plain words, what goes wrong when it is hit.
        source: where its numbers come from.
        protects: the outcome that it guards.
        limit: share of bad events that must not be passed; None: `budget` says how far it may go.
        budget: by which share there may be more bad events than the learnt baseline over the window.
        window_days: time over which the budget is spent.
        action: what the owner does first.
        runbook: where more is written; an anchor of the generated runbook, or a URL.
        contact: how the owner is reached; a channel or a team's address, no person.
        paging: whether fast burning wakes someone, or is a ticket as slow burning is.
    """

    name: Annotated[str, Field(pattern=_NAME, max_length=40)]
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=40)]
    meaning: Text
    source: Source
    protects: Text
    limit: Annotated[float, Field(gt=0, lt=1)] | None = None
    budget: Annotated[float, Field(gt=0, le=10)] | None = None
    window_days: Annotated[int, Field(ge=7, le=90)] = 30
    action: Text
    runbook: Annotated[str, Field(max_length=300)]
    contact: Annotated[str, Field(min_length=2, max_length=100)]
    paging: Literal["page", "ticket"] = "page"

    @field_validator("runbook")
    @classmethod
    def _leads_somewhere(cls, runbook: str) -> str:
        if not _URL.match(runbook) and not re.fullmatch(r"#[a-z0-9-]+", runbook):
            raise ValueError("write a URL, or the anchor of a section of deploy/runbook.md, such as #guardrailname")
        return runbook

    @model_validator(mode="after")
    def _either(self) -> Guardrail:
        if (self.limit is None) == (self.budget is None):
            raise ValueError("give either limit or budget")
        if self.paging == "page" and self.source.settle_hours * 2 > 6:
            raise ValueError("paging: what pages is judged within 6 h, and source.settle_hours says that bad events"
                             " come later than that allows. Fix: paging: ticket")  # fmt: skip
        return self

    @property
    def allowed(self) -> str:
        """Limit or budget, in words.

        >>> [rail.allowed for rail in load_guardrails(Path("deploy/guardrails.yaml"))][3:6]
        ['at most 30 % over 30 days', '20 % more than the baseline over 60 days', 'at most 0.1 % over 30 days']
        """
        kept = f"over {self.window_days} days"
        if self.limit is not None:
            return f"at most {self.limit:.4%}".rstrip("%").rstrip("0").rstrip(".") + f" % {kept}"
        return f"{self.budget or 0.0:.1%}".replace(".0%", "%").replace("%", " %") + f" more than the baseline {kept}"


def load_guardrails(
    path: Path | None, journey: Collection[str] | None = None, segments: SegmentSettings | None = None
) -> tuple[Guardrail, ...]:
    """Read and check a file; without one there are none.

    Args:
        path: of the file.
        journey: stages of the journey that fields may end in; None: not checked.
        segments: which segments are counted; None: not checked.

    Raises:
        ConfigError: it cannot be read, or says what it must not; names file, guardrail and key.
    """
    if path is None:
        return ()
    where = path.name
    entries = _entries(path)
    found = tuple(_one(entry, where, number) for number, entry in enumerate(entries))
    twice = [name for name, times in Counter(one.name for one in found).items() if times > 1]
    if twice:
        raise ConfigError(f"{where}: {twice[0]}: name: there are several of this name")
    for one in found:
        if journey is not None:
            _check_stages(one, where, journey)
        if segments is not None:
            _check_segment(one, where, segments)
    return found


def _entries(path: Path) -> list[Any]:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: not a readable YAML mapping: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("guardrails"), list):
        raise ConfigError(f"{path.name}: guardrails: a list of guardrails is missing at the top")
    if unknown := sorted(map(str, set(given) - {"guardrails"})):
        raise ConfigError(f"{path.name}: {unknown[0]}: unknown key; the only one at the top is guardrails")
    if len(given["guardrails"]) > MOST:
        raise ConfigError(f"{path.name}: guardrails: {len(given['guardrails'])} are too many to act on; at most {MOST}")
    return list(given["guardrails"])


def _one(entry: Any, where: str, number: int) -> Guardrail:
    name = entry.get("name") if isinstance(entry, dict) else None
    who = name if isinstance(name, str) and re.match(_NAME, name) else f"guardrails[{number}]"
    try:
        return Guardrail.model_validate(entry)
    except ValidationError as error:
        said = "; ".join(_say(problem) for problem in error.errors())
        raise ConfigError(f"{where}: {who}: {said}") from error


def _say(problem: Any) -> str:
    at = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = (Source if at[:1] == ["source"] else Guardrail).model_fields
        return f"{'.'.join(at)}: unknown key{_meant(at[-1], known)}"
    said = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join(at)}: {said}" if at else said


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_field(knob: str, field: str, stage: str) -> None:
    """Refuse a field that nobody counts; stages of the journey are checked apart, for files may name their own."""
    stem = field.removesuffix(WILD)
    if WILD in stem or not stem:
        raise ValueError(f"{knob}: {field!r}: a * may only stand at the end of a name")
    if stage == JOURNEY:
        if stem != field:
            raise ValueError(f"{knob}: {field!r}: of a journey, fields are named with their stage, such as entered_buy")
        if field != "value_buy" and not any(field.startswith(f"{base}_") for base in _PER_STAGE):
            raise ValueError(f"{knob}: {field!r} is not counted; fields of a journey are {', '.join(_PER_STAGE[:7])},"
                             " ind_SIGNAL_yes and ind_SIGNAL_no, each followed by _STAGE")  # fmt: skip
        return
    known = _FIELDS[stage]
    if stem != field:
        if not any(name.startswith(stem) for name in known):
            raise ValueError(f"{knob}: no counted field of {stage} begins with {stem!r}{_meant(stem, known)}")
    elif field not in known and not (stage == LEADS and _BINNED.fullmatch(field)):
        raise ValueError(f"{knob}: {field!r} is not counted at {stage}{_meant(field, known)}")


def _check_stages(rail: Guardrail, where: str, journey: Collection[str]) -> None:
    source = rail.source
    if source.stage != JOURNEY:
        return
    for knob in ("bad", "good", "total"):
        for field in getattr(source, knob):
            named = [f"{base}_{stage}" for base in _PER_STAGE for stage in journey]
            if field != "value_buy" and field not in named:
                raise ConfigError(f"{where}: {rail.name}: source.{knob}: {field!r} names no stage of the journey"
                                  f"{_meant(field, named)}")  # fmt: skip


def _check_segment(rail: Guardrail, where: str, settings: SegmentSettings) -> None:
    labels = tuple(sorted(rail.source.segment))
    if not labels:
        return
    single = settings.watch_leads if rail.source.stage == LEADS else settings.watch
    if rail.source.stage == CONTACTS:
        single = tuple(settings.labels)
    pairs = {tuple(sorted(pair)) for pair in settings.pairs}
    if not (len(labels) == 1 and labels[0] in single) and labels not in pairs:
        raise ConfigError(f"{where}: {rail.name}: source.segment: {', '.join(labels)} is not counted. Fix: name it in"
                          " segments.watch, segments.watch_leads or segments.pairs")  # fmt: skip


def _sum(counts: Mapping[str, int], fields: Sequence[str]) -> int:
    total = 0
    for field in fields:
        if field[-1] == WILD:
            stem = field[:-1]
            total += sum(count for name, count in counts.items() if name.startswith(stem))
        else:
            total += counts.get(field, 0)
    return total


# ── what has changed ──────────────────────────────────────────────────────────────────────────────────────────────────


class Change(msgspec.Struct, frozen=True):
    """One difference between two files.

    Attributes:
        name: of the guardrail.
        what: in words.
        loosened: whether more may go wrong than before without anybody being told, or as soon.
    """

    name: str
    what: str
    loosened: bool = False


def compare(old: Sequence[Guardrail], new: Sequence[Guardrail]) -> list[Change]:
    """What has changed in meaning, in the order of the new file, removed ones last.

    >>> rails = load_guardrails(Path("deploy/guardrails.yaml"))
    >>> wider = rails[3].model_copy(update={"limit": 0.4})
    >>> [(change.what, change.loosened) for change in compare(rails[3:4], [wider])]
    [('limit loosened from 30 % to 40 %', True)]
    """
    before = {one.name: one for one in old}
    changes: list[Change] = []
    for one in new:
        if one.name in before:
            changes += _differences(before[one.name], one)
        else:
            changes.append(Change(one.name, f"added: {one.allowed}, owner {one.owner}"))
    kept = {one.name for one in new}
    return changes + [Change(name, "removed", loosened=True) for name in before if name not in kept]


def _differences(old: Guardrail, new: Guardrail) -> list[Change]:
    found: list[Change] = []
    for knob in ("limit", "budget"):
        a, b = getattr(old, knob), getattr(new, knob)
        if a is not None and b is not None and a != b:
            how = "loosened" if b > a else "tightened"
            found.append(Change(new.name, f"{knob} {how} from {_percent(a)} to {_percent(b)}", b > a))
    if (old.limit is None) != (new.limit is None):
        found.append(Change(new.name, f"from {old.allowed} to {new.allowed}: nobody can say which is more", True))
    if old.window_days != new.window_days:
        # The pace of burning stays the same, but a longer bad spell fits into a longer window.
        loose = new.window_days > old.window_days
        found.append(Change(new.name, f"window {'lengthened' if loose else 'shortened'} from {old.window_days} to"
                                      f" {new.window_days} days", loose))  # fmt: skip
    if old.paging != new.paging:
        found.append(Change(new.name, f"paging from {old.paging} to {new.paging}", new.paging == "ticket"))
    if old.source != new.source:
        found.append(_of_source(old, new))
    for knob in ("owner", "meaning", "protects", "action", "runbook", "contact"):
        a, b = getattr(old, knob), getattr(new, knob)
        if a != b:
            found.append(Change(new.name, f"{knob} from {a!r} to {b!r}"))
    return found


def _of_source(old: Guardrail, new: Guardrail) -> Change:
    parts = [knob for knob in Source.model_fields if getattr(old.source, knob) != getattr(new.source, knob)]
    if parts == ["events"]:
        return Change(new.name, "source.events changed: a note, no number follows from it")
    told = ", ".join(f"source.{knob} from {_short(getattr(old.source, knob))} to {_short(getattr(new.source, knob))}"
                     for knob in parts)  # fmt: skip
    return Change(new.name, f"{told}: it means something else now, and its baseline is learnt anew", loosened=True)


def _short(value: object) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value)


def _percent(share: float) -> str:
    return f"{share * 100:.4g} %"
