"""What the tests of identity, erasure and key rotation share: a whole line without Kafka, of several partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from streams.checkpoints import plain
from streams.frames import NEVER, DeadLetter, Frame, decode_frame, encode
from streams.ingest import Door, Raw
from streams.privacy import Privacy
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.units import Plan
from tests.kit import NOW, T0, Tally, native, tally

KEY, OLD_KEY = "a key for tests only", "the key before that one"
PARTITIONS = 4


def settings_with(**sections: Any) -> Settings:
    """Four partitions, one key, and what is given."""
    sections["privacy"] = {"pseudonym_key": KEY} | sections.get("privacy", {})
    sections["topics"] = {"events_partitions": PARTITIONS, "raw": [{"name": "web"}]} | sections.get("topics", {})
    return Settings(**sections)


class Pipe:
    """Raw messages → counts through a door and the sessionizers of all partitions; frames pass as bytes.

    Attributes:
        letters: dead letters that are in their topic, by key.
        frames: all frames, in order, with their partition.
        asked: ids of dead letters whose deletion was asked for, in order.
    """

    def __init__(self, settings: Settings | None = None, sources: Sequence[str] = ("web/0",)) -> None:
        self.settings = settings or settings_with()
        self.sources = sources
        self.stages: list[Sessionizer] = [Plan(self.settings).sessionizer(n) for n in range(PARTITIONS)]
        self.letters: dict[str, DeadLetter] = {}
        self.frames: list[tuple[int, bytes]] = []
        self.asked: list[str] = []
        self._offsets = dict.fromkeys(sources, 0)
        self._counts: list[Any] = []
        self.door = self._open_door({})

    def restart_ingest(self, settings: Settings | None = None) -> None:
        """Another process reads on: what the door remembered is gone, the clocks of the sources are not."""
        self.settings = settings or self.settings
        self.door = self._open_door({source: self.door.clock_of(source).time for source in self.sources})

    def _open_door(self, clocks: dict[str, float]) -> Door:
        topics = Counter(source.partition("/")[0] for source in self.sources)
        door = Door(self.settings, Privacy.from_settings(self.settings), topics)
        for source in self.sources:
            door.open_source(source, clocks.get(source, NEVER))
        return door

    def restart_stages(self, settings: Settings | None = None) -> None:
        """Other processes take up the states."""
        plan = Plan(settings or self.settings)
        blobs = [stage.snapshot() for stage in self.stages]
        self.stages = [plan.sessionizer(n) for n in range(PARTITIONS)]
        for stage, blob in zip(self.stages, blobs, strict=True):
            stage.restore(blob)

    def feed(self, *messages: bytes | None, source: str = "web/0", again: int = 0) -> Pipe:
        """Take up messages; `again` of them were read before."""
        topic, _, partition = source.partition("/")
        first = self._offsets[source] - again
        self.door.take([Raw(topic, int(partition), first + i, value) for i, value in enumerate(messages)], NOW)
        self._offsets[source] = first + len(messages)
        self.drain()
        return self

    def drain(self) -> None:
        """Apply what the door has gathered."""
        flush = self.door.flush(NOW, everything=True)
        self.letters |= {letter.id: letter for letter in flush.dead_letters}
        for target, frame in flush.frames:
            self._apply(target, encode(frame))

    def until(self, at: float) -> Pipe:
        """All sources promise that nothing before `T0 + at` follows."""
        for source in self.sources:
            self.feed(msgspec.json.encode({"type": "clock", "time": T0 + at}), source=source)
        return self

    def counted(self) -> Tally:
        """(stage, field) → count of everyone."""
        return tally(self._counts)

    def counts(self) -> list[Any]:
        """What was sent to the counts topic."""
        return [counts for counts in self._counts if counts is not None]

    def people(self) -> set[str]:
        """Who has a session or a lead."""
        return {person for stage in self.stages for person in (*stage.state.sessions, *stage.state.leads)}

    def leads(self) -> list[Any]:
        return [lead for stage in self.stages for lead in stage.state.leads.values()]

    def total(self, name: str) -> int:
        return sum(getattr(stage.state.totals, name) for stage in self.stages)

    def kept(self) -> bytes:
        """All that checkpoints and dead letters hold."""
        return b"\n".join([*(plain(stage.snapshot()) for stage in self.stages),
                           *map(msgspec.json.encode, self.letters.values())])  # fmt: skip

    def digests(self) -> list[bytes]:
        return [stage.digest_part() for stage in self.stages]

    def _apply(self, target: int, data: bytes) -> None:
        frame: Frame = decode_frame(data)
        stage, offset = self.stages[target], len(self.frames)
        self.frames.append((target, data))
        self._counts.append(stage.apply(frame, offset))
        self.asked += stage.released
        for letter in stage.released:
            self.letters.pop(letter, None)


def pseudonym(raw: str, key: str = KEY) -> str:
    return Privacy(key.encode()).pseudonym(raw)


def visit(person: str, at: float, pages: Iterable[str] = ("/", "/product/a"), **fields: Any) -> list[bytes]:
    """A page every ten seconds."""
    return [native("page_viewed", at + 10 * i, person, page=page, **fields) for i, page in enumerate(pages)]
