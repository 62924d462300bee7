"""Recorded files → findings, in one process and without Kafka, through the same pure stages as the live line.

It emulates the configured numbers of partitions, so state and findings equal those of a live worker for the same file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from streams.errors import TrustwatchError
from streams.events import CLOCK, Event, Outcome
from streams.findings import Finding
from streams.formats import FormatOptions, decode
from streams.frames import NEVER, Frame, encode_json, partition_of
from streams.ingest import Door, Raw
from streams.privacy import Privacy
from streams.recorded import RecordedFile
from streams.sessionize import Sessionizer
from streams.settings import Settings, TimeSettings
from streams.units import Plan, split, state_digest
from streams.watch import Observer, Watcher

CHUNK: Final = 1000
"""Messages taken from a file at once."""


class Summary(msgspec.Struct, frozen=True):
    """The end of a backtest; the first eight fields are a contract, see `events.md`."""

    events: int
    accepted: int
    dead_letters: dict[str, int]
    duplicates: int
    late: int
    steps: int
    findings: int
    events_per_s: float
    seconds: float
    persons_open: int
    streams: int
    detector_errors: dict[str, int]
    until: float
    state_digest: str


class Report(msgspec.Struct, frozen=True):
    """Summary, and every finding in the order of detection."""

    summary: Summary
    findings: list[Finding]


class Backtest:
    """One run over recorded files.

    Args:
        settings: all knobs.
        only: detectors to use; None for all.
        fmt: wire format of all messages; None: told apart by shape.
        observer: told of every observation of a detector.
    """

    def __init__(
        self,
        settings: Settings,
        only: list[str] | None = None,
        fmt: str | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._settings = settings
        self._plan = Plan(settings, only)
        self._fmt = fmt
        topics = settings.topics
        self.sessionizers: list[Sessionizer] = [self._plan.sessionizer(p) for p in range(topics.events_partitions)]
        self.watchers: list[Watcher] = [self._plan.watcher(p, observer) for p in range(topics.counts_partitions)]
        self._offsets = [0] * topics.events_partitions
        self._now = time.time()
        self._router = Router(settings, self._now)

    def run(self, files: Sequence[RecordedFile], on_events: Callable[[int], object] = lambda _count: None) -> Report:
        """Read the files side by side in event-time order; returns what was found.

        Args:
            files: each is a source of its own, like a raw topic.
            on_events: told after each chunk how many messages were read.

        Raises:
            TrustwatchError: a file cannot be read, or the accounting does not add up.
        """
        began = time.monotonic()
        topics = topic_names(self._settings, len(files))
        door = self._door(topics, [file.wire_format or self._fmt for file in files])
        feeds = [
            Feed(topic, iter(file), file.wire_format or self._fmt) for topic, file in zip(topics, files, strict=True)
        ]
        for feed, messages in side_by_side(feeds):
            self._take(door, feed, messages)
            if feed.ended:
                self._rest(door, feed)
            self._drain(door)
            on_events(len(messages))
        self._finish(door, feeds)
        return self._report(door, time.monotonic() - began)

    def _door(self, topics: list[str], formats: list[str | None]) -> Door:
        raw = [{"name": topic, "format": fmt} for topic, fmt in zip(topics, formats, strict=True)]
        named = self._settings.model_copy(
            update={"topics": self._settings.topics.model_validate({**self._settings.topics.model_dump(), "raw": raw})}
        )
        partitions = self._settings.topics.raw_partitions
        door = Door(named, Privacy.from_settings(self._settings, offline=True), dict.fromkeys(topics, partitions))
        for topic in topics:
            for partition in range(partitions):
                door.open_source(f"{topic}/{partition}")
        return door

    def _take(self, door: Door, feed: Feed, messages: list[bytes]) -> None:
        by_partition: dict[int, list[Raw]] = {}
        for value in messages:
            outcomes = self._router.decode(feed, value)
            partition = self._router.partition(feed, value, outcomes)
            offset = feed.offsets.get(partition, 0)
            feed.offsets[partition] = offset + 1
            by_partition.setdefault(partition, []).append(Raw(feed.topic, partition, offset, value, outcomes))
        for raws in by_partition.values():
            door.take(raws, self._now)

    def _rest(self, door: Door, feed: Feed) -> None:
        """A file that has ended holds the others back no longer."""
        for partition in range(self._settings.topics.raw_partitions):
            door.idle(f"{feed.topic}/{partition}", 0.0)

    def _drain(self, door: Door) -> None:
        for target, frame in door.flush(self._now, everything=True).frames:
            self._apply(target, frame)

    def _apply(self, target: int, frame: Frame) -> None:
        counts = self.sessionizers[target].apply(frame, self._offsets[target])
        self._offsets[target] += 1
        if counts is not None:
            for part, portion in split(counts, self._settings.topics.counts_partitions):
                self.watchers[part].apply(portion)

    def _finish(self, door: Door, feeds: list[Feed]) -> None:
        last = max((feed.time for feed in feeds), default=NEVER)
        if last == NEVER:
            return
        message = closing_message(last, self._settings.time, self._now)
        for feed in feeds:
            for partition in range(self._settings.topics.raw_partitions):
                door.take([Raw(feed.topic, partition, feed.offsets.get(partition, 0), message)], self._now)
        self._drain(door)

    def _report(self, door: Door, seconds: float) -> Report:
        totals = [stage.state.totals for stage in self.sessionizers]
        consumed = sum(total.consumed for total in totals)
        entered = sum(door.outcomes.values())
        if consumed != entered:
            raise TrustwatchError(f"accounting does not add up: {entered} items came in, {consumed} are accounted for")
        dead: dict[str, int] = {}
        errors: dict[str, int] = {}
        for counter, parts in (
            (dead, [t.dead_letters for t in totals]),
            (errors, [w.state.errors for w in self.watchers]),
        ):
            for part in parts:
                for name, count in part.items():
                    counter[name] = counter.get(name, 0) + count
        findings = sorted(
            (finding for watcher in self.watchers for finding in watcher.findings), key=lambda f: (f.detected_at, f.id)
        )
        summary = Summary(
            events=consumed, accepted=sum(t.applied for t in totals), dead_letters=dict(sorted(dead.items())),
            duplicates=sum(t.duplicate for t in totals), late=sum(t.late for t in totals),
            steps=sum(t.steps for t in totals), findings=len(findings),
            events_per_s=round(consumed / seconds, 1) if seconds else 0.0, seconds=round(seconds, 3),
            persons_open=sum(len(stage.state.sessions) + len(stage.state.leads) for stage in self.sessionizers),
            streams=sum(watcher.streams for watcher in self.watchers), detector_errors=dict(sorted(errors.items())),
            until=min((watcher.state.judged_until for watcher in self.watchers), default=NEVER),
            state_digest=state_digest(self.sessionizers, self.watchers),
        )  # fmt: skip
        return Report(summary, findings)


class Feed(msgspec.Struct):
    """One file as a source.

    Attributes:
        topic: raw topic that it stands for.
        messages: what is left of it.
        format: wire format, if known.
        time: latest event time read from it, seconds.
        offsets: raw partition → messages put there.
        ended: all of it was read.
    """

    topic: str
    messages: Iterator[bytes]
    format: str | None
    time: float = NEVER
    offsets: dict[int, int] = {}
    ended: bool = False


class Router:
    """Chooses the raw partition of a recorded message, by its (first) person, and follows the file's event time.

    Args:
        settings: formats and partitions.
        now_s: clock of the run, seconds.
    """

    def __init__(self, settings: Settings, now_s: float) -> None:
        self._options = FormatOptions.from_settings(settings, now_s)
        self._partitions = settings.topics.raw_partitions
        self._now = now_s

    def decode(self, feed: Feed, value: bytes) -> list[Outcome]:
        """What the message holds."""
        return decode(value, feed.format, self._options)

    def partition(self, feed: Feed, value: bytes, outcomes: list[Outcome], partitions: int | None = None) -> int:
        """Partition of a message; what cannot be read goes by its bytes. Moves the feed's time on."""
        key = None
        for outcome in outcomes:
            if isinstance(outcome, Event) and outcome.type != CLOCK:
                key = key or outcome.person
                feed.time = max(feed.time, min(self._now, outcome.time))
        return partition_of(key or value[:64].decode("latin-1"), partitions or self._partitions)


def side_by_side(feeds: list[Feed], chunk: int = CHUNK) -> Iterator[tuple[Feed, list[bytes]]]:
    """Chunks of the feeds, always of the one that is furthest behind in event time, until all are read.

    The caller moves `feed.time` on as it reads.
    """
    left = list(feeds)
    while left:
        feed = min(left, key=lambda candidate: candidate.time)
        messages = list(islice(feed.messages, chunk))
        feed.ended = len(messages) < chunk
        if feed.ended:
            left.remove(feed)
        yield feed, messages


def topic_names(settings: Settings, count: int) -> list[str]:
    """Raw topics that `count` files stand for: the configured ones, then numbered ones."""
    names = [topic.name for topic in settings.topics.raw][:count]
    return names + [f"file-{number}" for number in range(len(names), count)]


def closing_message(last: float, settings: TimeSettings, now_s: float) -> bytes:
    """The punctuation after a recorded file: all its sessions have ended.

    Args:
        last: latest event time in it, seconds.
        settings: gap and bucket.
        now_s: clock, seconds; the promise never reaches into the future.
    """
    end = min(now_s, last + settings.session_gap_s + 2 * settings.bucket_s)
    return encode_json({"type": CLOCK, "time": end})
