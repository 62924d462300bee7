"""What the tests of the pure stages share: events by a line each, a door, a sessionizer, and counts added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from streams.events import Event
from streams.frames import Counts, Frame, Item, Mark, Place, Section, Segment
from streams.ingest import Door, Raw
from streams.privacy import Privacy
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.units import Plan

T0 = 1_700_000_000.0
"""A full bucket border, 2023-11-14."""
NOW = T0 + 400 * 86_400.0
KEY = b"0123456789abcdef"


def event(kind: str, at: float, person: str = "anna", **fields: Any) -> Event:
    """An event `at` seconds after `T0`; its id follows from what it is, unless given."""
    fields.setdefault("id", f"{person}-{kind}-{at:g}")
    return Event(type=kind, time=T0 + at, person=person, **fields)


def native(kind: str, at: float, person: str = "anna", **fields: Any) -> bytes:
    """The same as a native wire message."""
    body = {"id": f"{person}-{kind}-{at:g}", "type": kind, "time": T0 + at, "person": person, **fields}
    return msgspec.json.encode(body)


def settings_of(**sections: dict[str, Any]) -> Settings:
    """Settings with one events and one counts partition, and what is given."""
    topics = {"events_partitions": 1, "counts_partitions": 1} | sections.pop("topics", {})
    return Settings(topics=topics, **sections)  # type: ignore[arg-type]


def sessionizer(settings: Settings | None = None) -> Sessionizer:
    return Plan(settings or settings_of()).sessionizer(0)


def section(events: Iterable[Event], reached: float, *, source: str = "web/0", first: int = 0, idle: bool = False,
            marks: Sequence[Mark] = ()) -> Section:  # fmt: skip
    """What a source says: events at consecutive offsets, and the seconds after `T0` that it has reached."""
    items = [Item(Place(first + i, 0), one.time, one) for i, one in enumerate(events)]
    return Section(source, T0 + reached, idle, items, list(marks))


def frame(*sections: Section, sources: dict[str, int] | None = None) -> Frame:
    return Frame(sources or {"web": 1}, list(sections))


def after(*events: Event, until: float = 100_000.0, settings: Settings | None = None) -> tuple[Sessionizer, Tally]:
    """A sessionizer that has seen these events, and what it counted once its watermark has passed `until`."""
    stage = sessionizer(settings)
    return stage, tally([stage.apply(frame(section(events, until)), 0)])


Tally = Counter[tuple[str, str]]


def tally(counts: Iterable[Counts | None], segment: Segment = ()) -> Tally:
    """(stage, field) → count in one segment, over all buckets."""
    total: Tally = Counter()
    for message in counts:
        for cell in message.cells if message else ():
            if cell.segment == segment:
                total.update({(cell.stage, field): count for field, count in cell.counts.items()})
    return total


def door(settings: Settings | None = None, **sources: int) -> Door:
    """A door whose sources are all open."""
    topics = sources or {"web-events": 1}
    made = Door(settings or settings_of(), Privacy(KEY, labels=("channel", "device")), topics)
    for topic, partitions in topics.items():
        for partition in range(partitions):
            made.open_source(f"{topic}/{partition}")
    return made


def raws(values: Iterable[bytes | None], topic: str = "web-events", partition: int = 0, first: int = 0) -> list[Raw]:
    return [Raw(topic, partition, first + i, value) for i, value in enumerate(values)]
