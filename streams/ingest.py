"""Raw messages → frames, marks and dead letters: the pure part of ingest.

`Door` takes raw messages in the order of their partitions and hands out one frame per events partition at each flush.
What is late is decided here, by the source's own order, so the decision does not depend on how sources interleave; a
source's clock survives a restart in the metadata of the committed offset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec

from detectors._stages import LEADS
from streams.errors import ConfigError
from streams.events import (
    CLOCK,
    CONTROL_TYPES,
    CRM_TYPES,
    FORGET_TYPES,
    LINKED,
    OTHER,
    RENAMED,
    SAID_TYPES,
    WEB_TYPES,
    Event,
    Outcome,
    Rejection,
    Value,
)
from streams.formats import FORMATS, FormatOptions, cloudevents, decode
from streams.frames import NEVER, SLICES, DeadLetter, Frame, Item, Mark, Place, Section, letter_id, partition_of
from streams.identity import window_of
from streams.privacy import Privacy
from streams.settings import Settings

HEADER_EVERY_S: Final = 0.25
"""A partition that gets no events is told the sources' clocks this often."""
MOST_CONTROL: Final = 50
"""So many different deploys and definition changes keep their name in metrics."""
MOST_SAID: Final = 100_000
"""So many pairs of ids are remembered as told, 0.15 kB each; beyond it they are told again, which changes nothing."""
UNNAMED: Final = "unnamed"
_UNTIDY: Final = re.compile(r"[^\w .:/+-]+", re.ASCII)


class Raw(msgspec.Struct, gc=False):
    """One consumed message of a raw topic.

    Attributes:
        topic: raw topic.
        partition: its partition.
        offset: offset there.
        value: the message; None is a tombstone.
        outcomes: what it decodes to, where the caller (backtest) had to know that already.
        time: its own timestamp in Kafka, seconds. What counts as the future is judged by it: read again after a crash,
            the message must be judged as it was the first time.
        headers: its Kafka headers, where it has any: they may name the format, and CloudEvents keep attributes there.
    """

    topic: str
    partition: int
    offset: int
    value: bytes | None
    outcomes: list[Outcome] | None = None
    time: float | None = None
    headers: Mapping[str, bytes] | None = None


class Clock(msgspec.Struct):
    """What a source has reached.

    Attributes:
        time: latest event time read, seconds; never ahead of the clock of the worker.
        idle_s: seconds for which it has been caught up and quiet; None while it is not.
    """

    time: float = NEVER
    idle_s: float | None = None

    @property
    def told(self) -> tuple[float, bool]:
        """Event time to tell downstream, and whether the source is idle: then time moves on with the clock."""
        return self.time + (self.idle_s or 0.0), self.idle_s is not None


class Said:
    """What was told to all partitions, in which window (`streams.identity`) and for which event time at the earliest.

    Args:
        bucket_s: width of a bucket.

    >>> said = Said(bucket_s=10.0)
    >>> [said.is_new(("web-7", "crm-1"), time, time) for time in (60.0, 70.0, 50.0, 3599.0, 3600.0)]
    [True, False, True, False, True]
    """

    def __init__(self, bucket_s: float) -> None:
        self._bucket_s = bucket_s
        self._slice_s = bucket_s / SLICES
        self._said: dict[int, tuple[int, float]] = {}

    def is_new(self, what: tuple[str, str], due: float, time: float) -> bool:
        """Whether it has to be told: it was not in this window, for this event time or an earlier one.

        What comes late is always told: who was erased meanwhile decides whether it still counts, and that is not known
        here.

        Args:
            what: what is told.
            due: event time at which it will be taken up.
            time: its event time.
        """
        if due > time:
            return True
        window = window_of(int(due // self._slice_s) // SLICES, self._bucket_s)
        key = hash(what)
        known = self._said.get(key)
        if known is not None and known[0] == window and known[1] <= time:
            return False
        if known is not None:
            del self._said[key]
        elif len(self._said) >= MOST_SAID:
            del self._said[next(iter(self._said))]
        self._said[key] = (window, time)
        return True


class Flush(msgspec.Struct):
    """What one flush hands out: frames by events partition, and dead letters."""

    frames: list[tuple[int, Frame]]
    dead_letters: list[DeadLetter]


class Door:
    """Turns raw messages into frames.

    Args:
        settings: all knobs.
        privacy: pseudonymises and scrubs.
        sources: partitions of each raw topic that is read.

    Attributes:
        outcomes: (topic, outcome, reason or event type class) → items; for metrics.
        control: (`deployed` or `definition_changed`, what) → how often, and the latest event time; for metrics, `other`
            from `MOST_CONTROL` on.
    """

    def __init__(self, settings: Settings, privacy: Privacy, sources: Mapping[str, int]) -> None:
        self._settings = settings
        self._privacy = privacy
        self._sources = dict(sorted(sources.items()))
        self._formats = {topic.name: _known_format(topic.format, topic.name) for topic in settings.topics.raw}
        self._options = FormatOptions.from_settings(settings, now_s=0.0)
        self._lateness_s = settings.time.allowed_lateness_s
        self._targets = settings.topics.events_partitions
        self._leads = partition_of(LEADS, self._targets)
        self._linked, self._renamed = Said(settings.time.bucket_s), Said(settings.time.bucket_s)
        self._clocks: dict[str, Clock] = {}
        self._open: list[dict[str, Section]] = [{} for _ in range(self._targets)]
        self._sizes = [0] * self._targets
        self._oldest = [0.0] * self._targets
        self._written_s = 0.0
        self._told: list[dict[str, tuple[float, bool]]] = [{} for _ in range(self._targets)]
        self._sent_at = [NEVER] * self._targets
        self._flush = Flush([], [])
        self.outcomes: dict[tuple[str, str, str], int] = {}
        self.control: dict[tuple[str, str], tuple[int, float]] = {}

    def open_source(self, source: str, time: float = NEVER) -> None:
        """Begin or resume a source at what its committed offset says it had reached."""
        self._clocks[source] = Clock(time)

    def close_source(self, source: str) -> None:
        """Another worker reads it now."""
        self._clocks.pop(source, None)

    def clock_of(self, source: str) -> Clock:
        """What the source has reached."""
        return self._clocks[source]

    def idle(self, source: str, idle_s: float | None) -> None:
        """Say that a source has been caught up and quiet for so many seconds, or (None) that it is not."""
        self._clocks[source].idle_s = idle_s

    def take(self, messages: Sequence[Raw], now_s: float) -> None:
        """Decode messages of one raw partition, in order.

        Args:
            messages: consecutive messages of one partition.
            now_s: clock of the worker, seconds since the epoch; stands in for messages without a timestamp.
        """
        for raw in messages:
            self._written_s = written_s = self._written(raw.time, now_s)
            if not 0.0 <= written_s - self._options.now_s < 1.0:
                self._options = self._options.at(written_s // 1.0)
            source = f"{raw.topic}/{raw.partition}"
            clock = self._clocks[source]
            clock.idle_s = None
            for index, outcome in enumerate(self._decode(raw)):
                self._sort(raw, source, clock, Place(raw.offset, index), outcome)

    def _written(self, time_s: float | None, now_s: float) -> float:
        """When a message was written, as far as that is believable: not after now, not before events began."""
        if time_s is None or time_s < self._options.earliest_s or time_s > now_s:
            return now_s
        return time_s

    def know(self, sources: Mapping[str, int]) -> None:
        """Learn how many partitions raw topics have by now; metadata may be stale, so the number never falls."""
        for topic, count in sources.items():
            self._sources[topic] = max(count, self._sources.get(topic, 0))

    def flush(self, now_s: float, *, everything: bool = False) -> Flush:
        """Hand out what was gathered, and tell every events partition how far the sources are.

        Args:
            now_s: clock of the worker, seconds.
            everything: also tell partitions that were told just now.
        """
        for target in range(self._targets):
            quiet = not self._open[target]
            if everything or not quiet or now_s - self._sent_at[target] >= HEADER_EVERY_S:
                self._close_frame(target, now_s)
        out, self._flush = self._flush, Flush([], [])
        return out

    def _decode(self, raw: Raw) -> list[Outcome]:
        if raw.outcomes is not None:
            return raw.outcomes
        if raw.value is None and not (raw.headers and cloudevents.is_binary(raw.headers)):  # those may be without data
            return [Rejection("tombstone", "message without a value")]
        return decode(raw.value or b"", self._formats.get(raw.topic), self._options, headers=raw.headers)

    def _sort(self, raw: Raw, source: str, clock: Clock, place: Place, outcome: Outcome) -> None:
        if isinstance(outcome, Rejection):
            self._refuse(raw, source, place, outcome)
            return
        kind, time, reached = outcome.type, outcome.time, clock.time
        if kind == CLOCK:
            clock.time = max(reached, time + self._lateness_s)
            return
        if time > reached:
            clock.time = max(reached, min(time, self._options.now_s))
        floor = reached - self._lateness_s
        if time < floor and kind in WEB_TYPES:
            self._mark(source, Mark(place, "late", time=clock.time), raw.topic)
            return
        self._count(raw.topic, "accepted", kind)
        self._admit(source, place, outcome, time if time > floor else floor)

    def _admit(self, source: str, place: Place, event: Event, due: float) -> None:
        """Clean an event, and put it into the frame of its partition, with what other partitions must know of it."""
        kind, home = event.type, self._home(event)
        echoes = (
            [] if event.also_person is None and self._privacy.rotation is None else self._announce(event, place, due)
        )
        self._privacy.scrub(event, due)
        item = Item(place, due, event)
        self._section(home, source).items.append(item)
        if kind not in CONTROL_TYPES:
            event.also_person = None  # an echo tells it
        elif kind not in FORGET_TYPES and kind not in SAID_TYPES:
            self._note_control(event)
        if kind in FORGET_TYPES or echoes:
            self._broadcast(source, echoes, item, home)
        elif kind == OTHER and home != self._leads and _is_of_a_record(event):
            self._section(self._leads, source).echoes.append(item)
            self._grow(self._leads)
        self._grow(home)

    def _home(self, event: Event) -> int:
        """The partition of an event, by the raw id, so that it stays the same when keys are changed.

        What comes of a CRM has one partition, where all ids of a person meet: it calls one by several, and which ids
        are one person's may turn out when their lead has long begun.
        """
        return self._leads if event.type in CRM_TYPES else partition_of(event.person, self._targets)

    def _announce(self, event: Event, place: Place, due: float) -> list[Item]:
        """What every partition must know: which ids are one person's, and their names while keys are changed.

        Said once in a window as far as we remember. What is not said again was said in an earlier frame, for this
        moment or an earlier one; so it is known in time in whatever order sources are read, and after a crash.
        """
        person, also, time = event.person, event.also_person, event.time
        ids = [person] if also is None or also == person else [person, also]
        made: list[Event] = []
        for raw in ids:
            former = self._privacy.former(raw, due)
            if former is not None and self._renamed.is_new((raw, ""), due, time):
                made.append(Event("", RENAMED, event.time, self._privacy.pseudonym(raw), also_person=former))
        if event.type in FORGET_TYPES:
            if self._privacy.rotation is not None:
                # By each name: what is kept under the other one must go, too, and so must dead letters.
                names = [name for raw in ids for name in self._privacy.names_of(raw)]
                made += [Event("", event.type, event.time, name) for name in names]
        elif len(ids) > 1 and self._linked.is_new((ids[0], ids[1]), due, time):
            link = Event("", LINKED, event.time, person, also_person=also)
            made.append(cast(Event, self._privacy.scrub(link, due)))
        return [Item(place, due, one) for one in made]

    def _broadcast(self, source: str, echoes: list[Item], item: Item, home: int) -> None:
        """Echoes for every partition; the item itself goes to others where it is to be forgotten, or is of a lead.

        Its own partition has it already, and its frame must not close in between: places ascend from frame to frame.
        """
        everywhere = item.event.type in FORGET_TYPES
        of_a_lead = item.event.type == OTHER and _is_of_a_record(item.event)
        for target in range(self._targets):
            section = self._section(target, source)
            section.echoes += echoes
            if target != home:
                if everywhere or (of_a_lead and target == self._leads):
                    section.echoes.append(item)
                self._grow(target)

    def _note_control(self, event: Event) -> None:
        what = tidy(event.properties.get("what"))
        if (event.type, what) not in self.control and len(self.control) >= MOST_CONTROL:
            what = OTHER
        count, latest = self.control.get((event.type, what), (0, NEVER))
        self.control[event.type, what] = count + 1, max(latest, event.time)

    def _refuse(self, raw: Raw, source: str, place: Place, why: Rejection) -> None:
        names = self._privacy.names_of(why.person) if why.person else ("",)
        letter = DeadLetter(
            id=letter_id(source, place), reason=why.reason, detail=why.detail,
            format=self._formats.get(raw.topic), topic=raw.topic, partition=raw.partition, offset=raw.offset,
            index=place.index, size_bytes=len(raw.value or b""), person=names[0] or None,
        )  # fmt: skip
        self._flush.dead_letters.append(letter)
        person, former = (*names, "")[:2]
        time = self._clocks[source].time
        self._mark(source, Mark(place, "dead_letter", why.reason, person, former, time), raw.topic)

    def _mark(self, source: str, mark: Mark, topic: str) -> None:
        self._count(topic, mark.outcome, mark.reason)
        target = partition_of(source, self._targets)
        self._section(target, source).marks.append(mark)
        self._grow(target)

    def _section(self, target: int, source: str) -> Section:
        section = self._open[target].get(source)
        if section is None:
            section = self._open[target][source] = Section(source, NEVER, False)
        return section

    def _grow(self, target: int) -> None:
        """A full frame leaves with all that its sources had for it so far, so that places only ever ascend."""
        self._sizes[target] += 1
        self._oldest[target] = self._oldest[target] or self._written_s
        if self._sizes[target] >= self._settings.ingest.frame_events:
            self._close_frame(target, self._options.now_s)

    def _close_frame(self, target: int, now_s: float) -> None:
        sections, told = self._open[target], self._told[target]
        for source, clock in self._clocks.items():
            if source in sections or told.get(source) != clock.told:
                section = self._section(target, source)
                section.time, section.idle = told[source] = clock.told
        if sections:
            self._flush.frames.append((target, Frame(self._sources, list(sections.values()), self._oldest[target])))
            self._open[target], self._sizes[target], self._sent_at[target] = {}, 0, now_s
            self._oldest[target] = 0.0

    def _count(self, topic: str, outcome: str, detail: str) -> None:
        key = (topic, outcome, detail)
        self.outcomes[key] = self.outcomes.get(key, 0) + 1


def _is_of_a_record(event: Event) -> bool:
    """Whether an unmapped event may say something of a lead: it has labels, and none of what a visit has."""
    return bool(event.segment) and event.page is None and event.session is None and event.device_time is None


def tidy(what: Value | None) -> str:
    """What was deployed or redefined, fit to be a label: short, of harmless characters, and without people.

    Only the first word, which names the thing: who did it may follow. An e-mail address is no name.

    >>> tidy("<b>checkout 2.4 by anna.mueller"), tidy("anna@example.com"), tidy(None)
    ('bcheckout', 'unnamed', 'unnamed')
    """
    word = next(iter(what.split()), "") if isinstance(what, str) else ""
    return UNNAMED if "@" in word else _UNTIDY.sub("", word)[:40] or UNNAMED


def _known_format(name: str | None, topic: str) -> str | None:
    if name is not None and name not in FORMATS:
        raise ConfigError(f"topics.raw: {topic}: unknown format {name!r}; known: {', '.join(sorted(FORMATS))}")
    return name
