"""What travels between our stages: frames of events, counts of buckets, dead letters.

Kafka's and Faust's cost is per message, so a message holds some hundred events. All structs are msgspec arrays: a field
may be appended (with a default), never removed or moved.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias
from zlib import crc32

import msgspec

from detectors._stages import LEADS
from streams.events import Event

Segment: TypeAlias = tuple[tuple[str, str], ...]
"""Sorted (label, value) pairs; () is everyone."""

NEVER: Final = float("-inf")
"""Event time of a source or partition that has not seen anything."""


SLICES: Final = 10
"""A bucket is worked off in so many parts, as the watermark passes them."""


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False, order=True):
    """Where an item came from within its source: offset of the raw message, index within it."""

    offset: int
    index: int


class Mark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An item that was consumed but is no event to apply: counted exactly where the state is exact.

    Attributes:
        place: where it came from.
        outcome: `late` or `dead_letter`.
        reason: why (a `streams.events.Reason`), for dead letters.
        person: whom a dead letter is about, if that could be read: an erasure has to find it again.
        former: their other pseudonym while keys are changed.
        time: event time that its source had reached by then, seconds; it has none of its own that could be believed.
    """

    place: Place
    outcome: Literal["late", "dead_letter"]
    reason: str = ""
    person: str = ""
    former: str = ""
    time: float = NEVER


class Item(msgspec.Struct, array_like=True, gc=False):
    """An event to apply.

    Attributes:
        place: where it came from.
        due: event time at which it is processed: its own, or, for CRM and control events that arrive late, the
            earliest moment that is still open.
        event: the pseudonymised event.
    """

    place: Place
    due: float
    event: Event


class Section(msgspec.Struct, array_like=True, gc=False):
    """What one source (raw topic partition) has to say to one events partition.

    Attributes:
        source: `topic/partition`.
        time: event time that the source has reached, seconds; nothing older than this minus the lateness follows.
        idle: the source is caught up and quiet: it does not hold the watermark back.
        items: its events for this partition, in its order.
        marks: its late and refused items that are counted in this partition, in its order.
        echoes: items that are counted elsewhere or not at all, and are told to every partition that they may concern:
            erasures, which ids are one person's, labels of leads.
    """

    source: str
    time: float
    idle: bool
    items: list[Item] = []
    marks: list[Mark] = []
    echoes: list[Item] = []


class Frame(msgspec.Struct, array_like=True, gc=False):
    """One message of the events topic.

    Attributes:
        sources: how many partitions each raw topic has; the watermark waits until all of them have spoken.
        sections: one for each source that has something to say.
        written: when the oldest raw message in it was written to Kafka, seconds since the epoch; 0 if it holds none.
            Only to measure how long all took: nothing that is found depends on it.
    """

    sources: dict[str, int]
    sections: list[Section]
    written: float = 0.0


class Cell(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Counts of one (stage, segment) in one bucket that starts at `ts` (event time, seconds)."""

    ts: float
    stage: str
    segment: Segment
    counts: dict[str, int]


class Counts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message of the counts topic.

    Attributes:
        partition: events partition that counted.
        offset: offset there of the frame that closed the buckets; a repeat after a crash carries the same.
        watermark: event time that the partition has reached: all buckets that end by then were sent.
        cells: the buckets of the stages that this counts partition holds.
        written: that of the frame which closed the buckets (see `Frame`).
    """

    partition: int
    offset: int
    watermark: float
    cells: list[Cell]
    written: float = 0.0


class DeadLetter(msgspec.Struct, frozen=True):
    """What could not be understood, without its payload: that stays where it was, at topic, partition and offset."""

    id: str
    reason: str
    detail: str
    format: str | None
    topic: str
    partition: int
    offset: int
    index: int
    size_bytes: int
    person: str | None


def letter_id(source: str, place: Place) -> str:
    """The id of the dead letter of an item; its key in the topic.

    >>> letter_id("web/0", Place(7, 0))
    'web/0/7/0'
    """
    return f"{source}/{place.offset}/{place.index}"


UNREADABLE: Final = (ValueError, TypeError, RecursionError)
"""What decoding foreign bytes may raise: bad UTF-8, a missing value and deep nesting are no DecodeError."""

encode = msgspec.msgpack.Encoder().encode
decode_frame = msgspec.msgpack.Decoder(Frame).decode
decode_counts = msgspec.msgpack.Decoder(Counts).decode
encode_json = msgspec.json.Encoder().encode


def company_partition(partitions: int) -> int:
    """The counts partition of all that is counted beside the stages of a journey: one place sees a whole company."""
    return partition_of(LEADS, partitions)


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key, the same in every process and in `backtest`.

    >>> partition_of("anna", 4) == partition_of("anna", 4)
    True
    """
    return crc32(key.encode("utf-8", "surrogatepass")) % partitions
