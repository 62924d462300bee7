"""Merged tracking cells → the rows that `detectors.data_trust` judges, one stream each.

A row holds a count and what it is compared with, so that a row says "broken" of tags and not of people:

- `own` beside `beside`, other events of the same place: when fewer people come to a page, all its events get fewer.
- `own` beside `beyond`, people who got past the stage of the page: when fewer people do what a tag tells of, fewer get
  past; when only the tag is gone, they still do.
- `strict`: it is gone only if nothing comes, as from a lost partition or a device without its snippet.
- `bad` of `all`: shares that jump: duplicates, late, dead letters by reason, unknown names, sessions without a begin.
- `v|…`: the values of a label, or the size of a number by powers of two.
- `came`: how many came, against the same hours of days before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from streams.events import CRM_TYPES, OTHER, WEB_TYPES
from streams.frames import Segment

Counts: TypeAlias = Mapping[str, int]
Rows: TypeAlias = dict[Segment, dict[str, int]]
Place: TypeAlias = tuple[str | None, str | None, str | None]
"""(type, page, device); None: all of them."""

LEAD_ORDER: Final = ("lead_created", "lead_scored", "lead_handed_over", "lead_touched", "lead_accepted", "lead_won")
"""Each of them seldom comes without those before it."""
PROGRESS: Final = frozenset({"page_viewed", "item_added", "form_submitted", "checkout_started", "purchased"})
"""Types that are looked at on each device, too: without them people seem not to advance there."""
UNEVEN: Final = frozenset({OTHER, "error_shown", "form_failed"})
"""Types that come in masses at times, and are not missed when they stay away."""
SESSIONS: Final = "sessions"
"""The `check` of rows about sessions."""


def rows_of(cells: Mapping[Segment, Counts], known: Iterable[Segment], journey: Sequence[str]) -> Rows:
    """What is to be judged of one window.

    Args:
        cells: segment of a tracking cell (a source, or everyone for sessions) → its counts.
        known: segments of the rows that were judged before: what does not come any more is a row of its own.
        journey: stages, in order.
    """
    sources = {dict(segment).get("source", ""): counts for segment, counts in cells.items()}
    sessions = sources.pop("", {})
    rows: Rows = {}
    by_source: dict[str, list[dict[str, str]]] = {}
    for segment in sorted(known):
        labels = dict(segment)
        by_source.setdefault(labels.get("source", ""), []).append(labels)
        if labels.get("check") == "arrivals" and labels.get("source", "") not in sources:
            rows[segment] = {"came": 0}
    crossed = _crossed(sessions)
    views = 0
    for source, counts in sorted(sources.items()):
        table = _table(counts)
        views += sum(
            n for (kind, page, device), n in table.sums.items() if kind in WEB_TYPES and not page and not device
        )
        rows |= _flows(source, table, by_source.get(source, []), crossed, journey)
        rows |= _shares(source, counts, table, by_source.get(source, []))
        rows |= _mixes(source, counts)
    rows |= _sessions(sessions, views, sources)
    return rows


class _Table:
    """Events of one source in one window, with all margins."""

    def __init__(self) -> None:
        self.sums: Counter[Place] = Counter()
        self.stage: dict[str, str] = {}
        self.pages: dict[str, set[str]] = {}

    def add(self, kind: str, page: str, stage: str, device: str, count: int) -> None:
        self.stage[page] = stage
        self.pages.setdefault(kind, set()).add(page)
        for a in (kind, None):
            for b in (page, None):
                self.sums[a, b, None] += count
                if device:
                    self.sums[a, b, device] += count


def _table(counts: Counts) -> _Table:
    table = _Table()
    for field, count in counts.items():
        if field.startswith("event|"):
            _, kind, page, stage, device = field.split("|", 4)
            table.add(kind, page, stage, device, count)
    return table


def _crossed(sessions: Counts) -> Counter[tuple[str, str | None]]:
    """(stage, or "" for all of them, device or None) → people who got past it."""
    found: Counter[tuple[str, str | None]] = Counter()
    for field, count in sessions.items():
        if field.startswith("past|"):
            _, stage, device = field.split("|", 2)
            for where in {device, None} if device else {None}:
                found[stage, where] += count
                found["", where] += count
    return found


def _flows(
    source: str, table: _Table, known: list[dict[str, str]], crossed: Counter[tuple[str, str | None]],
    journey: Sequence[str],
) -> Rows:  # fmt: skip
    """Rows of types, pages and devices, those known and those that came."""
    rows: Rows = {}
    places = {(one.get("type"), one.get("page"), one.get("device")): one.get("at", "") for one in known
              if "check" not in one and "label" not in one and "size" not in one}  # fmt: skip
    for kind, page, device in table.sums:
        if _is_row(kind, page, device, table):
            places.setdefault((kind, page, device), table.stage.get(page, "") if page else "")
    last, before = (journey[-1], journey[-2]) if len(journey) > 1 else ("", "")
    for (kind, page, device), stage in places.items():
        own = table.sums[kind, page, device]
        wider = table.sums[(None, page, device) if kind and page else (None, None, device) if kind or page
                           else (None, None, None)]  # fmt: skip
        row = {"own": own, "beside": max(0, wider - own)}
        if stage:  # nobody gets past the last stage: who comes to it got past the one before
            row["beyond"] = crossed[before if stage == last else stage, device]
        elif kind in LEAD_ORDER:
            row["beyond"] = sum(table.sums[later, None, device] for later in LEAD_ORDER[LEAD_ORDER.index(kind) + 1 :])
        elif kind is None or kind in WEB_TYPES:
            row["beyond"] = crossed["", device]
        if kind == "page_viewed" and page:
            row["flood"] = 1
        if kind is None and page is None:
            row["strict"] = 1
        if row.get("beyond", 0) or own or row["beside"]:
            rows[_segment(source=source, type=kind, page=page, device=device, at=stage)] = row
    return rows


def _is_row(kind: str | None, page: str | None, device: str | None, table: _Table) -> bool:
    if page == "" or kind in UNEVEN:  # no page: told by the type alone
        return False
    if device is not None:
        return (kind is None and page is None) or (kind in PROGRESS and page is not None)
    if kind is not None and page is None:
        pages = table.pages[kind]
        return len(pages) > 1 or pages == {""}
    return kind is not None or page is not None


def _shares(source: str, counts: Counts, table: _Table, known: list[dict[str, str]]) -> Rows:
    get = counts.get
    total, dup, late = table.sums[None, None, None], get("dup", 0), get("late", 0)
    dead = {field.split("|", 1)[1]: n for field, n in counts.items() if field.startswith("dead|")}
    everything = total + dup + late + sum(dead.values())
    bad = {"duplicates": (dup, everything), "late": (late, everything),
           "unknown": (table.sums[OTHER, None, None], total), "no_session": (total - get("session", 0), total),
           "dead_letters": (sum(dead.values()), everything)}  # fmt: skip
    rows = {_segment(source=source, check=name): {"bad": n, "all": of} for name, (n, of) in bad.items() if of}
    web = [kind for kind in table.pages if kind in WEB_TYPES]
    if of := sum(table.sums[kind, None, None] for kind in web):
        bad_pages = sum(table.sums[kind, "", None] for kind in web)
        rows[_segment(source=source, check="no_page")] = {"bad": bad_pages, "all": of}
    parts = {one["check"] for one in known if one.get("check", "").startswith("partition_")}
    came = {f"partition_{field[5:]}": n for field, n in counts.items() if field.startswith("part|")}
    for name in sorted(parts | set(came)):
        own = came.get(name, 0)
        rows[_segment(source=source, check=name)] = {"own": own, "beside": max(0, total - own), "strict": 1}
    rows[_segment(source=source, check="arrivals")] = {"came": everything}
    return rows


def _mixes(source: str, counts: Counts) -> Rows:
    rows: Rows = {}
    for field, n in counts.items():
        what, _, rest = field.partition("|")
        if what == "label":
            label, value = rest.split("|", 1)
            rows.setdefault(_segment(source=source, label=label), {})[f"v|{value}"] = n
        elif what == "size":
            kind, name, octave = rest.split("|", 2)
            row = rows.setdefault(_segment(source=source, type=kind, size=name), {"far": 3 if kind in CRM_TYPES else 5})
            row[f"o|{octave}"] = n
    return rows


def _sessions(sessions: Counts, events: int, sources: Mapping[str, Counts]) -> Rows:
    get, begun = sessions.get, sessions.get("begun", 0)
    rows: Rows = {}
    if begun:
        for name in ("headless", "cut"):
            rows[_segment(check=name)] = {"bad": min(begun, get(name, 0)), "all": begun}
    if events or begun:
        rows[_segment(check=SESSIONS)] = {"own": begun, "beside": events}
    rows[_segment(check="visits")] = {"came": begun, "drop": 1}
    totals, twice = Counter[Place](), Counter[Place]()
    for counts in (sessions, *sources.values()):
        for field, n in counts.items():
            what, *rest = field.split("|", 3)
            if what in ("event", "twice") and rest[0] in WEB_TYPES:
                into = totals if what == "event" else twice
                into[rest[0], None, None] += n
                if rest[0] == "page_viewed" and rest[1]:
                    into[rest[0], rest[1], None] += n
    for place, n in totals.items():
        rows[_segment(type=place[0], page=place[1], check="twice")] = {"bad": min(n, twice[place]), "all": n}
    return rows


def _segment(**labels: str | None) -> Segment:
    return tuple(sorted((label, value) for label, value in labels.items() if value))
