"""Tracking that breaks while people stay as they are, and days on which people change and tracking does not.

Both take the events of `simulate` and give what would arrive: (time of arrival, topic kind, outcome) in the order of
arrival. `BREAKAGES` change what is sent of an event, never what people do; `CHANGES` leave out or add people.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Final, Literal, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from streams.events import CRM_TYPES, OTHER, Event, Outcome, Rejection
from streams.simulate_kinds import DAY_S

PARTITIONS: Final = 4
"""Raw partitions over which people are spread; `partition_lost` loses one."""
LATE_S: Final = 3 * 3600.0
SHIFT_S: Final = 2 * 3600.0

Topic: TypeAlias = Literal["web", "crm"]


class Arrival(NamedTuple):
    """One item as it arrives: when, in which topic, and what it is."""

    at: float
    topic: Topic
    outcome: Outcome


Break: TypeAlias = Callable[[Event, random.Random], tuple[tuple[float, Outcome], ...]]
LOST: Final[tuple[tuple[float, Outcome], ...]] = ()


def partition(person: str) -> int:
    """Raw partition of a person, as producers choose it."""
    return crc32(person.encode()) % PARTITIONS


def broken(
    events: Iterable[Event], kind: str, onset: float, end: float = float("inf"), seed: int = 0
) -> Iterator[Arrival]:
    """The events as they arrive when tracking breaks.

    Args:
        events: in time order; they are not changed.
        kind: one of `BREAKAGES`.
        onset: event time from which on it is broken, seconds.
        end: event time at which it is mended.
        seed: of what is left to chance.
    """
    rng = random.Random(f"{seed}-{kind}")
    change = BREAKAGES[kind]
    waiting: list[tuple[float, int, Arrival]] = []
    for number, event in enumerate(events):
        while waiting and waiting[0][0] <= event.time:
            yield heappop(waiting)[2]
        topic: Topic = "crm" if event.type in CRM_TYPES else "web"
        told = change(event, rng) if onset <= event.time < end else ((0.0, event),)
        for part, (delay_s, outcome) in enumerate(told):
            at = event.time + delay_s
            heappush(waiting, (at, number * 16 + part, Arrival(at, topic, outcome)))
    while waiting:
        yield heappop(waiting)[2]


def arriving(events: Iterable[Event]) -> Iterator[Arrival]:
    """Whole events as they arrive."""
    for event in events:
        yield Arrival(event.time, "crm" if event.type in CRM_TYPES else "web", event)


def _with(event: Event, **fields: object) -> tuple[tuple[float, Outcome], ...]:
    return ((0.0, msgspec.structs.replace(event, **fields)),)


def _as_is(event: Event) -> tuple[tuple[float, Outcome], ...]:
    return ((0.0, event),)


def _lose(when: Callable[[Event, random.Random], bool]) -> Break:
    return lambda event, rng: LOST if when(event, rng) else _as_is(event)


def _double(when: Callable[[Event, random.Random], bool]) -> Break:
    def change(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
        again = msgspec.structs.replace(event, id=f"{event.id}-2", time=event.time + 0.03)
        return ((0.0, event), (0.03, again)) if when(event, rng) else _as_is(event)

    return change


def _label(label: str, value: Callable[[str], str | None]) -> Break:
    def change(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
        if label not in event.segment:
            return _as_is(event)
        new = value(event.segment[label])
        rest = {name: known for name, known in event.segment.items() if name != label}
        return _with(event, segment=rest if new is None else {**rest, label: new})

    return change


def _number(kind: str, name: str, factor: float) -> Break:
    def change(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
        if event.type != kind:
            return _as_is(event)
        return _with(event, properties={**event.properties, name: float(event.properties[name]) * factor})

    return change


def _no_number(kind: str, name: str) -> Break:
    def change(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
        if event.type != kind:
            return _as_is(event)
        return _with(event, properties={known: value for known, value in event.properties.items() if known != name})

    return change


def _resend(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    return ((0.0, event), (5.0, msgspec.structs.replace(event))) if rng.random() < 0.3 else _as_is(event)


def _web(event: Event) -> bool:
    return event.type not in CRM_TYPES


def _new_person(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    return _with(event, person=f"lost-{event.id}") if _web(event) else _as_is(event)


def _one_person(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    return _with(event, person="undefined") if _web(event) else _as_is(event)


def _flood(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    if event.type != "page_viewed" or event.page != "/compare":
        return _as_is(event)
    bots = (
        (float(i), msgspec.structs.replace(event, id=f"{event.id}-b{i}", person=f"bot-{event.id}-{i}",
                                           time=event.time + i))
        for i in range(1, 7)
    )  # fmt: skip
    return ((0.0, event), *bots)


def _shift(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    return _with(event, time=event.time - SHIFT_S) if _web(event) else _as_is(event)


def _ahead(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    if _web(event) and event.segment.get("device") == "mobile":
        return ((0.0, Rejection("time_out_of_range", "time is ahead of now", event.person)),)
    return _as_is(event)


def _deliver_late(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    late = _web(event) and event.segment.get("device") == "desktop"
    return ((LATE_S if late else 0.0, event),)


def _schema(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    if event.type in ("checkout_started", "item_added", "compared"):
        return ((0.0, Rejection("missing_field", "type: missing", event.person)),)
    return _as_is(event)


def _rename(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    named = event.type in ("page_viewed", "item_added") and event.segment.get("device") == "mobile"
    return _with(event, type=OTHER) if named else _as_is(event)


def _move_page(event: Event, rng: random.Random) -> tuple[tuple[float, Outcome], ...]:
    return _with(event, page="/vergleich") if event.page == "/compare" else _as_is(event)


def _is(kind: str, page: str | None = None, device: str | None = None) -> Callable[[Event, random.Random], bool]:
    def holds(event: Event, rng: random.Random) -> bool:
        at = page is None or event.page == page
        return event.type == kind and at and (device is None or event.segment.get("device") == device)

    return holds


BREAKAGES: Final[dict[str, Break]] = {
    "tag_stops": _lose(_is("page_viewed", "/compare")),
    "page_dark": _lose(lambda event, rng: event.page == "/cart"),
    "tag_doubles": _double(_is("page_viewed", "/compare")),
    "page_null": lambda event, rng: _with(event, page=None),
    "label_redefined": _label("device", str.upper),
    "score_scale": _number("lead_scored", "score", 0.01),
    "sessions_lost": _new_person,
    "partition_lost": _lose(lambda event, rng: _web(event) and partition(event.person) == 1),
    "deliver_late": _deliver_late,
    "crm_stops": _lose(lambda event, rng: not _web(event)),
    "type_stops": _lose(_is("page_left")),
    "goal_stops": _lose(_is("purchased")),
    "all_double": _double(lambda event, rng: _web(event)),
    "ids_repeat": _resend,
    "label_null": _label("channel", lambda _: None),
    "label_merged": _label("channel", lambda _: "direct"),
    "unit_changed": _number("purchased", "value", 100.0),
    "dwell_in_ms": _number("page_left", "dwell_s", 1000.0),
    "persons_merged": _one_person,
    "bot_flood": _flood,
    "consent_banner": _lose(lambda event, rng: _web(event) and crc32(f"c{event.person}".encode()) % 100 < 55),
    "zone_shift": _shift,
    "clock_ahead": _ahead,
    "device_tag": _lose(_is("page_viewed", "/cart", "mobile")),
    "device_lost": _lose(lambda event, rng: event.segment.get("device") == "desktop"),
    "renamed_in_app": _rename,
    "sampled": _lose(lambda event, rng: _web(event) and rng.random() < 0.9),
    "schema_change": _schema,
    "lead_type_stops": _lose(_is("lead_accepted")),
    "page_moved": _move_page,
    "form_tag_stops": _lose(_is("form_submitted", "/cart")),
    "handover_stops": _lose(_is("lead_handed_over")),
    "score_null": _no_number("lead_scored", "score"),
    "clicks_stop": _lose(_is("clicked")),
    "device_null": _label("device", lambda _: None),
}
"""Kind → what is sent instead of an event."""
TUNED: Final = ("tag_stops", "page_dark", "tag_doubles", "page_null", "label_redefined", "score_scale",
                "sessions_lost", "partition_lost", "deliver_late", "crm_stops", "goal_stops", "unit_changed",
                "lead_type_stops")  # fmt: skip
"""Kinds that thresholds were chosen on; the bench shows them and does not judge them."""


Change: TypeAlias = Callable[[Event, float, dict[str, float]], tuple[tuple[float, Outcome], ...]]


def _share_of(person: str) -> float:
    return crc32(f"s{person}".encode()) % 10_000 / 10_000.0


def changed(events: Iterable[Event], kind: str, onset: float) -> Iterator[Arrival]:
    """The events as they arrive when people change: who comes, not what tracking makes of it.

    Args:
        events: in time order.
        kind: one of `CHANGES`.
        onset: event time from which on they do, seconds.
    """
    change, seen = CHANGES[kind], dict[str, float]()
    waiting: list[tuple[float, int, Arrival]] = []
    for number, event in enumerate(events):
        while waiting and waiting[0][0] <= event.time:
            yield heappop(waiting)[2]
        topic: Topic = "crm" if event.type in CRM_TYPES else "web"
        since = event.time - onset
        told = _as_is(event) if since < 0.0 else change(event, since, seen)
        for part, (delay_s, outcome) in enumerate(told):
            at = event.time + delay_s
            heappush(waiting, (at, number * 16 + part, Arrival(at, topic, outcome)))
    while waiting:
        yield heappop(waiting)[2]


def _campaign_ends(event: Event, since: float, seen: dict[str, float]) -> tuple[tuple[float, Outcome], ...]:
    return LOST if event.segment.get("channel") == "paid" else _as_is(event)


def _new_campaign(event: Event, since: float, seen: dict[str, float]) -> tuple[tuple[float, Outcome], ...]:
    if _web(event) and event.segment.get("channel") == "organic" and _share_of(event.person) < 0.5:
        return _with(event, segment={**event.segment, "channel": "video"})
    return _as_is(event)


def _season(event: Event, since: float, seen: dict[str, float]) -> tuple[tuple[float, Outcome], ...]:
    return LOST if _web(event) and _share_of(event.person) < min(0.45, 0.15 * since / DAY_S) else _as_is(event)


def _bursts(event: Event, since: float, seen: dict[str, float]) -> tuple[tuple[float, Outcome], ...]:
    """Three times as many for four hours, every second day: others who do what these do."""
    if not _web(event) or since % (2 * DAY_S) > 4 * 3600.0:
        return _as_is(event)
    more = tuple((7.0 * i, msgspec.structs.replace(event, id=f"{event.id}-m{i}", person=f"{event.person}-m{i}",
                                                   time=event.time + 7.0 * i)) for i in (1, 2))  # fmt: skip
    return ((0.0, event), *more)


def _outage(event: Event, since: float, seen: dict[str, float]) -> tuple[tuple[float, Outcome], ...]:
    """Every page shows an error for eight hours: people see one, and go."""
    if not _web(event) or since > 8 * 3600.0:
        return _as_is(event)
    before = seen.get(event.person, 0.0)
    seen[event.person] = event.time
    if event.time - before < 1800.0 or event.type != "page_viewed":
        return LOST
    left = msgspec.structs.replace(event, id=f"{event.id}-l", type="page_left", time=event.time + 6.0,
                                   properties={"dwell_s": 6.0, "scroll_ratio": 0.1})  # fmt: skip
    error = msgspec.structs.replace(event, id=f"{event.id}-e", type="error_shown", properties={}, time=event.time + 0.2)
    return ((0.0, event), (0.2, error), (6.0, left))


def _sales_stop(event: Event, since: float, seen: dict[str, float]) -> tuple[tuple[float, Outcome], ...]:
    """Sales calls one lead in four."""
    calls = event.type in ("lead_touched", "lead_accepted", "lead_rejected", "lead_won", "lead_lost")
    return LOST if calls and _share_of(event.person) > 0.25 else _as_is(event)


CHANGES: Final[dict[str, Change]] = {
    "campaign_ends": _campaign_ends, "new_campaign": _new_campaign, "season": _season, "bursts": _bursts,
    "outage": _outage, "sales_stop": _sales_stop,
}  # fmt: skip
"""Kind → what arrives instead of an event, which happened so many seconds after the onset."""
