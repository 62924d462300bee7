"""The recorded file of the fault suite, and what faulty sources make of it, each with its truth.

200,000 simulated events, web and CRM, with three erosions in them. A source is one raw topic partition; its messages
are in the order in which they are produced. What becomes of every message is known here, without asking the line.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from streams import simulate as simulation
from streams import simulate_kinds, simulate_leads, simulate_spec, simulate_web
from streams.events import CRM_TYPES, REASONS
from streams.frames import NEVER, encode_json, partition_of
from streams.simulate import parse_erosion, simulate, write

EVENTS: Final = 200_000
DAYS: Final = 9.0
SEED: Final = 7
SESSIONS_PER_DAY: Final = 1450.0
LEADS_PER_DAY: Final = 500.0
EROSIONS: Final = (
    "early_dropoff:stage=evaluate,channel=paid@4x0.4",
    "hesitation:stage=decide,device=mobile@5.6x5",
    "lead_score_drift:source=webinar@4.6x30",
)
PARTITIONS: Final = 4
TOPICS: Final = ("web", "crm")
LATENESS_S: Final = 300.0
"""Allowed disorder of the suite: at 0.1 events a second and source, 30 s would leave nothing to put out of order."""
DEDUPE_S: Final = 1800.0
GROUP_S: Final = 240.0
BLOCK_S: Final = 60.0
"""Blocks of this length arrive in any order within their group, whose length is below the lateness."""
MARGIN_S: Final = 60.0
CRM_REPEAT_S: Final = 1200.0

Topic = Literal["web", "crm"]
Source = tuple[Topic, int]
Fate = str
"""`applied`, `duplicate`, `late`, a reason of a dead letter, or `clock` for punctuation, which is no item."""


class Message(NamedTuple):
    """One message of a source."""

    time: float
    id: str
    value: bytes | None
    fates: tuple[Fate, ...] = ("applied",)


class Letter(NamedTuple):
    """Where a dead letter comes from."""

    source: Source
    offset: int
    item: int
    reason: str


class Recording(NamedTuple):
    """Messages by source, in the order of production."""

    sources: dict[Source, list[Message]]

    @property
    def fates(self) -> dict[Source, Counter[Fate]]:
        """How often what becomes of an item, by source."""
        return {
            source: Counter(fate for message in messages for fate in message.fates if fate != "clock")
            for source, messages in self.sources.items()
        }

    @property
    def totals(self) -> Counter[Fate]:
        """How often what becomes of an item."""
        return sum(self.fates.values(), Counter())

    @property
    def letters(self) -> set[Letter]:
        """All dead letters."""
        return {
            Letter(source, offset, index, fate)
            for source, messages in self.sources.items()
            for offset, message in enumerate(messages)
            for index, fate in enumerate(message.fates)
            if fate in REASONS
        }

    def shares(self, steps: int) -> Iterator[list[tuple[Source, Message]]]:
        """The messages in so many steps, each with its share of every source."""
        for step in range(steps):
            yield [
                (source, message)
                for source, messages in self.sources.items()
                for message in messages[len(messages) * step // steps : len(messages) * (step + 1) // steps]
            ]


def recorded(cache: Path) -> Path:
    """The recorded file with its truth beside, made if it is not there; its name changes with what makes it."""
    modules = (simulation, simulate_kinds, simulate_leads, simulate_spec, simulate_web)
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    given = repr((EVENTS, DAYS, SEED, SESSIONS_PER_DAY, LEADS_PER_DAY, EROSIONS)).encode()
    path = cache / f"events-{hashlib.sha256(code + given).hexdigest()[:12]}.jsonl"
    truth = path.with_name(path.name + ".truth.json")
    if path.is_file() and truth.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    erosions = [parse_erosion(spec) for spec in EROSIONS]
    events = islice(simulate(DAYS, SEED, erosions, SESSIONS_PER_DAY, LEADS_PER_DAY), EVENTS)
    partial = path.with_name(path.name.replace(".jsonl", ".partial"))
    made = write(events, partial, days=DAYS, seed=SEED, erosions=erosions)
    assert made.events == EVENTS, f"only {made.events} events: raise DAYS"
    partial.with_name(partial.name + ".truth.json").rename(truth)
    partial.rename(path)  # last: a file that is there is whole
    return path


def undisturbed(path: Path) -> Recording:
    """The file as its sources sent it: web and CRM apart, by person, in event-time order."""
    decode = msgspec.json.Decoder(_Line).decode
    sources: dict[Source, list[Message]] = {(topic, n): [] for topic in ("web", "crm") for n in range(PARTITIONS)}
    for line in path.read_bytes().splitlines():
        event = decode(line)
        topic: Topic = "crm" if event.type in CRM_TYPES else "web"
        time = datetime.fromisoformat(event.time).timestamp()
        sources[topic, partition_of(event.person, PARTITIONS)].append(Message(time, event.id, line))
    return Recording(sources)


def closed(recording: Recording, closing: bytes) -> Recording:
    """With the punctuation at the end of every source that closes all sessions."""
    end = Message(0.0, "", closing, ("clock",))
    return Recording({source: [*messages, end] for source, messages in recording.sources.items()})


def last_time(recording: Recording) -> float:
    """The latest event time, seconds."""
    return max(message.time for messages in recording.sources.values() for message in messages)


# ── sources that repeat, mix up and delay ─────────────────────────────────────────────────────────────────────────────


def disturbed(recording: Recording, rng: random.Random) -> Recording:
    """Every tenth event twice, blocks out of order within the lateness, and 1 % more that come beyond it."""
    number = itertools.count()
    found = Recording(
        {source: _disturb(messages, source, rng, number) for source, messages in recording.sources.items()}
    )
    for source, messages in found.sources.items():
        _check(source, messages)
    return found


def _disturb(messages: list[Message], source: Source, rng: random.Random, number: Iterator[int]) -> list[Message]:
    times = [message.time for message in messages]
    late_share = 0.01 * EVENTS / PARTITIONS / len(messages) if source[0] == "web" else 0.0
    groups: dict[int, dict[int, list[Message]]] = {}
    repeats: dict[int, list[Message]] = {}
    for message in messages:
        group = int(message.time // GROUP_S)
        groups.setdefault(group, {}).setdefault(int(message.time // BLOCK_S), []).append(message)
        if next(number) % 10 == 0:
            # CRM systems send again much later; a web event that does would be late.
            delay = int(rng.uniform(0, CRM_REPEAT_S) // GROUP_S) if source[0] == "crm" else 0
            repeats.setdefault(group + delay, []).append(message._replace(fates=("duplicate",)))
    out: list[Message] = []
    wanted = 0.5
    for group in sorted({*groups, *repeats}):
        blocks = list(groups.get(group, {}).values())
        rng.shuffle(blocks)
        mixed = [message for block in blocks for message in block]
        wanted += late_share * len(mixed)
        for repeat in repeats.get(group, []):
            earliest = next((i + 1 for i, one in enumerate(mixed) if one.id == repeat.id), 0)
            mixed.insert(rng.randint(earliest, len(mixed)), repeat)
        reached = messages[bisect_left(times, group * GROUP_S) - 1].time if out else NEVER
        old = messages[max(0, (end := bisect_left(times, reached - LATENESS_S)) - 200) : end]
        while wanted >= 1 and old:
            mixed.insert(0, _again(rng.choice(old), f"late-{source[1]}-{len(out)}-{wanted}"))
            wanted -= 1
        out += mixed
    return out


def _again(message: Message, name: str) -> Message:
    """The same by an id of its own, which comes too late to count."""
    assert message.value is not None
    return Message(message.time, name, encode_json({**json.loads(message.value), "id": name}), ("late",))


def _check(source: Source, messages: Iterable[Message]) -> None:
    """What is meant to happen is what the rules say: latest time read, minus lateness; ids seen before."""
    clock, seen = NEVER, set[str]()
    for message in messages:
        late = message.time < clock - LATENESS_S and source[0] == "web"
        fate = "late" if late else "duplicate" if message.id in seen else "applied"
        assert message.fates == (fate,), f"{source}: {message.id} is meant to be {message.fates}, would be {fate}"
        clock = max(clock, message.time)
        if not late:
            seen.add(message.id)


# ── sources that send poison ──────────────────────────────────────────────────────────────────────────────────────────

_NATIVE: Final = '"id": "x{n}", "type": "page_viewed", "time": 1756700000, "person": "p{n}"'
_CALL: Final = '"type": "track", "event": "Clicked", "messageId": "m{n}", "anonymousId": "p{n}"'
_HUGE: Final = 1_100_000
POISON: Final[tuple[tuple[str, str | bytes | None, tuple[str, ...]], ...]] = (
    ("truncated JSON", '{"id": "x{n}", "type": "page_vie', ("not_json",)),
    ("random bytes", b"\x00\xff\xfe\x93 no text at all \xc3", ("not_json",)),
    ("not UTF-8", b'{"id": "\xff\xfe", "type": "page_viewed", "time": 1756700000, "person": "p"}', ("not_json",)),
    ("lone surrogate", '{"id": "\\ud800", "type": "page_viewed", "time": NaN, "person": "p"}', ("not_json",)),
    ("empty", b"", ("empty",)),
    ("white space", b" \r\n\t ", ("empty",)),
    ("tombstone", None, ("tombstone",)),
    ("JSON null", "null", ("not_an_object",)),
    ("a number", "42", ("not_an_object",)),
    ("a string", '"page_viewed"', ("not_an_object",)),
    ("array of numbers", "[1, 2, 3]", ("unknown_format",)),
    ("object of no format", '{"hello": "{n}", "world": {}}', ("unknown_format",)),
    ("array without items", "[]", ("empty_batch",)),
    ("batch without items", '{"batch": [], "sentAt": "2025-09-01T10:00:00Z"}', ("empty_batch",)),
    ("batch in a batch", '{"batch": [{"batch": [{' + _CALL + '}]}, {"batch": []}]}', ("nested_batch", "nested_batch")),
    ("batch of three wrong items", '{"batch": [{' + _CALL + ', "timestamp": "abc"}, 7, {"type": "track"}]}',
     ("bad_time", "not_an_object", "missing_field")),
    ("HubSpot without person", '[{"subscriptionType": "contact.creation", "eventId": 16}]', ("missing_field",)),
    ("unknown type", '{"id": "x{n}", "type": "teleported", "time": 1756700000, "person": "p{n}"}', ("unknown_type",)),
    ("no id", '{"type": "page_viewed", "time": 1756700000, "person": "p{n}"}', ("missing_field",)),
    ("no person", '{"id": "x{n}", "type": "page_viewed", "time": 1756700000}', ("missing_field",)),
    ("no time", '{"id": "x{n}", "type": "page_viewed", "person": "p{n}"}', ("missing_field",)),
    ("person of a wrong type", '{"id": "x{n}", "type": "clicked", "time": 1756700000, "person": 7}', ("bad_field",)),
    ("properties of a wrong type", "{" + _NATIVE + ', "properties": [1, 2]}', ("bad_field",)),
    ("segment of a wrong type", "{" + _NATIVE + ', "segment": "paid"}', ("bad_field",)),
    ("time of a wrong type", '{"id": "x{n}", "type": "clicked", "time": [1], "person": "p{n}"}', ("bad_time",)),
    ("time in words", '{"id": "x{n}", "type": "clicked", "time": "yesterday", "person": "p{n}"}', ("bad_time",)),
    ("date without zone", '{"id": "x{n}", "type": "clicked", "time": "2025-09-01T10:00:00", "person": "p{n}"}',
     ("bad_time",)),
    ("future", '{"id": "x{n}", "type": "clicked", "time": "2100-01-01T00:00:00Z", "person": "p{n}"}',
     ("time_out_of_range",)),
    ("1970", '{"id": "x{n}", "type": "clicked", "time": 0, "person": "p{n}"}', ("time_out_of_range",)),
    ("NaN", '{"id": "x{n}", "type": "clicked", "time": NaN, "person": "p{n}"}', ("not_finite",)),
    ("infinity", "{" + _NATIVE + ', "properties": {"dwell_s": 1e999}}', ("not_finite",)),
    ("absurd number", "{" + _NATIVE + ', "properties": {"value": 1' + "0" * 5000 + "}}", ("not_finite",)),
    ("deep nesting", "[" * 100_000 + "]" * 100_000, ("too_deep",)),
    ("huge", "{" + _NATIVE + ', "page": "/' + "x" * _HUGE + '"}', ("too_large",)),
)  # fmt: skip
"""What it is, its bytes (`{n}` is a number of its own) and what becomes of its items; every reason is in it."""


def poisoned(recording: Recording, rng: random.Random, share: float = 0.01) -> Recording:
    """With so many messages more, of every kind alike, in every source at any place."""
    # No poison makes a reader fail: what did would be mended.
    assert {fate for _, _, fates in POISON for fate in fates} == {*REASONS} - {"reader_failed"}, (
        "a reason without poison"
    )
    sources = {source: list(messages) for source, messages in recording.sources.items()}
    names, extra = sorted(sources), dict[Source, list[Message]]()
    for n in range(int(EVENTS * share)):
        _, value, fates = POISON[n % len(POISON)]
        raw = value.replace("{n}", str(n)).encode() if isinstance(value, str) else value
        extra.setdefault(rng.choice(names), []).append(Message(0.0, "", raw, fates))
    for source, bad in extra.items():
        good = sources[source]
        places = sorted(rng.randint(0, len(good)) for _ in bad)
        for place, message in zip(reversed(places), bad, strict=True):
            good.insert(place, message)
    return Recording(sources)


class _Line(msgspec.Struct):
    id: str
    type: str
    time: str
    person: str
