"""One stage of the live line, exact: apply, send, checkpoint, and only then tell Kafka.

`ExactStage` is the only place that knows how a pure state machine (a `Unit`, one per partition) becomes exact on Kafka:

1. a batch of messages is applied to the units of its partitions, in a thread;
2. what they gave is sent, and awaited: findings are out within a fraction of a second;
3. now and then (`Pace`) the units' states are checkpointed with the offset they stand for, and awaited;
4. only offsets that a durable checkpoint covers are told to Kafka (`durable`, see `streams.consumer`).

When partitions are assigned, all their checkpoints are loaded at once and the consumer is put behind the offset of
each. Messages at or below a unit's offset are skipped, and a gap is closed by seeking back. So after SIGKILL, a freeze
or a rebalance the state is that of an uninterrupted run; what was sent since the last checkpoint is sent again, with
the same ids, and recognised as repeats downstream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from streams.checkpoints import Checkpoint
from streams.errors import CheckpointRefused

if TYPE_CHECKING:
    from streams.store import CheckpointStore

SEEK_EVERY_S: Final = 5.0
SEEK_TRIES: Final = 10
REST: Final = 20
"""The next checkpoint comes not before so many times the time that the last one took: at most 5 % goes into them."""
log = logging.getLogger(__name__)


class Record(msgspec.Struct, frozen=True):
    """One message to send; without a value it deletes its key from a compacted topic."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes | None


class Unit(Protocol):
    """The state machine of one partition."""

    def take(self, value: bytes, offset: int) -> list[Record]:
        """Apply one message; returns what is to be sent. Never raises for bad input."""

    def written(self) -> list[float]:
        """When the oldest raw message behind each message taken since the last call was written, epoch seconds."""

    def standing(self) -> list[Record]:
        """What it gave before, as it is now, where readers go by the newest (findings)."""

    def snapshot(self) -> bytes:
        """The state as data."""

    def restore(self, blob: bytes) -> None:
        """Take up a state; raises CheckpointRefused."""


class Source(Protocol):
    """The topic that a stage reads."""

    async def beginnings(self, partitions: Collection[int]) -> dict[int, int]:
        """Partition → the first offset that the log still holds."""

    async def seek(self, partition: int, offset: int) -> None:
        """Read again from an offset; harmless for a partition that is no longer ours."""

    def end(self, partition: int) -> int | None:
        """The offset that the next message will get; None if not known."""


class Pace(msgspec.Struct, frozen=True):
    """When checkpoints are written.

    Attributes:
        interval_s: not more often than this.
        max_interval_s: not less often than this, however long they take: it bounds what is replayed after a crash.
    """

    interval_s: float
    max_interval_s: float

    def rest_s(self, took_s: float) -> float:
        """Seconds from the end of a checkpoint that took so long to the beginning of the next.

        >>> [Pace(2.0, 60.0).rest_s(took_s) for took_s in (0.01, 0.5, 10.0)]
        [2.0, 10.0, 60.0]
        """
        return max(self.interval_s, min(REST * took_s, self.max_interval_s))


class Told(msgspec.Struct, frozen=True):
    """Who is told how long things took, seconds.

    Attributes:
        latency: for each batch, from its oldest message in the stage's topic to its durable effects.
        delay: for each message, from its oldest raw message to its durable effects.
    """

    latency: Callable[[float], None]
    delay: Callable[[float], None]


class Slot(msgspec.Struct):
    """A unit and how far it is.

    Attributes:
        unit: the state machine.
        offset: last offset applied, its effects sent; -1 before the first.
        durable: last offset that a stored checkpoint covers; -1 if none does.
        untouched: nothing was applied since it was loaded.
        again: its state is to be stored once more although nothing was applied since.
        retold: what it gave before was sent once more since partitions were last dealt out.
        seeks: seeks made to close the gap that is open.
        sought: where the last one went.
        sought_at: when it was made, monotonic seconds.
        saved_at: when the last checkpoint became durable, seconds since the epoch; 0 before the first.
        size_bytes: size of that checkpoint.
        reached: when the last message applied was written to Kafka, or when nothing was left to apply, if that was
            later; seconds since the epoch, 0 before the first.
    """

    unit: Any
    offset: int = -1
    durable: int = -1
    untouched: bool = True
    again: bool = False
    retold: bool = False
    seeks: int = 0
    sought: int = 0
    sought_at: float = 0.0
    saved_at: float = 0.0
    size_bytes: int = 0
    reached: float = 0.0


class StageStats(msgspec.Struct):
    """Counters of one stage since the process started, for metrics."""

    batches: int = 0
    messages: int = 0
    skipped: int = 0
    gaps: int = 0
    seeks: int = 0
    resets: int = 0
    checkpoints: int = 0
    busy_s: float = 0.0
    checkpoint_s: float = 0.0
    cpu_s: float = 0.0
    checkpoint_cpu_s: float = 0.0
    load_s: float = 0.0


class ExactStage:
    """Runs the units of the partitions that this worker owns.

    Args:
        name: for logs and metrics.
        make: makes the unit of a partition.
        store: its checkpoints.
        send: sends records and returns when they are durable.
        source: the source topic: where its log begins and ends, and how to read it again.
        pace: when checkpoints are written.
        told: who is told how long things took.
        turn: held while it computes; see `streams.app.Line`.

    Attributes:
        slots: partition → unit and progress; what this worker owns and has loaded.
        stats: counters for metrics.
        failed: an error of ours left units between two messages: nothing of them is stored any more.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Unit],
        store: CheckpointStore,
        send: Callable[[Iterable[Record]], Awaitable[None]],
        source: Source,
        pace: Pace,
        told: Told,
        turn: asyncio.Lock,
    ) -> None:
        self.name = name
        self.slots: dict[int, Slot] = {}
        self.stats = StageStats()
        self.failed = False
        self._make = make
        self._store = store
        self._send = send
        self._source = source
        self._pace = pace
        self._told = told
        self._turn = turn
        self._applying = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._rested_at = 0.0
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._aside: dict[int, Slot] = {}

    # ── partitions come and go ────────────────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> bool:
        """Whether all partitions that were assigned are loaded."""
        return not self._loading

    @property
    def durable(self) -> dict[int, int]:
        """Partition → offset that Kafka may be told: the next one that no stored checkpoint covers."""
        return {partition: slot.durable + 1 for partition, slot in self.slots.items() if slot.durable >= 0}

    @property
    def next(self) -> dict[int, int]:
        """Partition → offset that its unit takes next."""
        return {partition: slot.offset + 1 for partition, slot in self.slots.items()}

    def assign(self, partitions: Collection[int]) -> None:
        """Own exactly these partitions from now on, and load those that are new, all at once, in the background.

        Those that stay are stored once more, and what stands is sent once more: a worker that was frozen and comes back
        may have written outdated states and findings over ours, and has done so by the time that it joins again, which
        is what brings us here.
        """
        for slot in self.slots.values():
            slot.again, slot.retold = True, False
        self._aside = {partition: slot for partition, slot in self._aside.items() if partition in partitions}
        self.forget([partition for partition in (*self.slots, *self._loading) if partition not in partitions])
        new = [partition for partition in partitions if partition not in self.slots and partition not in self._loading]
        if new:
            task = asyncio.ensure_future(self._load(new))
            self._loading.update(dict.fromkeys(new, task))

    async def loaded(self, partitions: Iterable[int] | None = None) -> None:
        """Wait until these partitions (None: all) are loaded, or gone again; raises what loading raised."""
        tasks = [self._loading.get(partition) for partition in (self._loading if partitions is None else partitions)]
        for task in {task for task in tasks if task is not None}:
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def save(self, partitions: Collection[int], within_s: float) -> bool:
        """The last checkpoint of partitions before they go; whether time was enough. If not, the next owner replays."""
        try:
            async with asyncio.timeout(within_s):
                await self.checkpoint(partitions)
        except TimeoutError:
            log.warning("%s: no checkpoint of %s within %g s; what came since the last one is read again",
                        self.name, sorted(partitions), within_s)  # fmt: skip
            return False
        return True

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that another worker may own now."""
        for partition in list(partitions):
            self.slots.pop(partition, None)
            task = self._loading.pop(partition, None)
            if task is not None and task not in self._loading.values():
                task.cancel()

    def set_aside(self, partitions: Collection[int]) -> None:
        """Give partitions up while it is decided anew who owns them; nearly always some come back to us at once."""
        if not self.failed:
            self._aside |= {partition: self.slots[partition] for partition in partitions if partition in self.slots}
        self.forget(partitions)

    async def _load(self, partitions: list[int]) -> None:
        began = time.monotonic()
        try:
            begins = await self._source.beginnings(partitions)
            async for partition, found in self._store.load(partitions):
                slot = await self._restored(partition, found)
                ours = self._aside.pop(partition, None)
                if ours is not None and ours.offset >= slot.offset:
                    # Both are of the same log: a worker that was frozen may have stored an outdated state over ours.
                    slot = ours
                    slot.again, slot.retold = True, False
                if self._loading.get(partition) is not asyncio.current_task():
                    continue  # revoked meanwhile
                self.slots[partition] = slot
                # What was fetched from where Kafka thought we are may arrive all the same, and is passed over.
                slot.seeks, slot.sought, slot.sought_at = 1, max(slot.offset + 1, begins[partition]), time.monotonic()
                await self._source.seek(partition, slot.sought)
                if self._loading.get(partition) is asyncio.current_task():
                    del self._loading[partition]
            self.stats.load_s = time.monotonic() - began
            log.info("%s: %d partitions loaded in %.1f s", self.name, len(partitions), self.stats.load_s)
        except Exception:
            self.failed = True
            raise

    async def _restored(self, partition: int, found: Checkpoint | CheckpointRefused | None) -> Slot:
        slot = Slot(self._make(partition))
        try:
            if isinstance(found, CheckpointRefused):
                raise found
            if found is not None:
                await asyncio.to_thread(slot.unit.restore, found.state)
                slot.offset = slot.durable = found.offset
                slot.size_bytes = len(found.state)
                log.info("%s[%d]: resumes at offset %d", self.name, partition, found.offset)
        except CheckpointRefused as refused:
            self.stats.resets += 1
            slot = Slot(self._make(partition))
            log.error("%s; %s[%d] is rebuilt from the log, as far as retention reaches", refused, self.name, partition)
        return slot

    # ── applying ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, batch: Sequence[Any]) -> None:
        """Apply one batch of Faust events and send what it gave; a later checkpoint makes it durable.

        Goes on to its end even if the caller is cancelled: units are never left between two messages.
        """
        await asyncio.shield(asyncio.ensure_future(self._run(batch)))

    async def _run(self, batch: Sequence[Any]) -> None:
        began = time.monotonic()
        await self.loaded({event.message.partition for event in batch})
        try:
            async with self._applying:
                await self._apply(batch)
        except BaseException:
            self.failed = True
            raise
        # To Faust only: it may forget them. What Kafka is told follows from `durable`.
        for event in batch:
            event.ack()
        self.stats.batches += 1
        self.stats.busy_s += time.monotonic() - began

    async def _apply(self, batch: Sequence[Any]) -> None:
        units: dict[int, Unit] = {}
        work: list[tuple[Unit, bytes, int]] = []
        for event in batch:
            message = event.message
            slot = self.slots.get(message.partition)
            if slot is None:
                self.stats.skipped += 1  # no longer ours
            elif await self._is_next(slot, message.partition, message.offset):
                work.append((slot.unit, event.value, message.offset))
                slot.offset = message.offset
                slot.untouched = False
                units[message.partition] = slot.unit
        if not work:
            return
        # In a thread: heartbeats, ingest and metrics go on while a long batch is applied.
        async with self._turn:
            records, cpu_s = await asyncio.to_thread(_apply, work)
        await self._send(records)
        self.stats.messages += len(work)
        self.stats.cpu_s += cpu_s
        self._note_reached({event.message.partition: event.message.timestamp for event in batch})
        now = time.time()
        self._told.latency(max(0.0, now - min(event.message.timestamp for event in batch)))
        for unit in units.values():
            for written in unit.written():
                self._told.delay(max(0.0, now - written))

    def behind(self, partition: int) -> int:
        """Messages of a partition that are not applied yet, as far as the consumer knows."""
        end, slot = self._source.end(partition), self.slots.get(partition)
        return 0 if end is None or slot is None else max(0, end - slot.offset - 1)

    def lag_s(self, partition: int) -> float | None:
        """Seconds that a partition is behind: the age of the oldest message not applied, at most; None: not known."""
        slot = self.slots.get(partition)
        if slot is None or not slot.reached:
            return None
        return time.time() - slot.reached if self.behind(partition) else 0.0

    def _note_reached(self, written: Mapping[int, float]) -> None:
        """Note how far each partition has come: to this message, or to the end."""
        now = time.time()
        for partition, slot in self.slots.items():
            if partition in written:
                slot.reached = min(now, written[partition])
            if self._source.end(partition) is not None and not self.behind(partition):
                slot.reached = now

    async def _is_next(self, slot: Slot, partition: int, offset: int) -> bool:
        if offset <= slot.offset:
            self.stats.skipped += 1
            end = self._source.end(partition)
            if not slot.untouched or end is None or end > slot.offset:
                return False
            self._start_afresh(slot, partition, end)
        if offset == slot.offset + 1:
            slot.seeks = 0
            return True
        return await self._close_gap(slot, partition, offset)

    def _start_afresh(self, slot: Slot, partition: int, end: int) -> None:
        """The log ends before the offset of the state: it is another log, and all of it is new to us."""
        log.error("%s[%d]: the log ends at offset %d, our state is at %d: the topic was made anew, or lost records; the"
                  " state is rebuilt from the log", self.name, partition, end, slot.offset)  # fmt: skip
        self.stats.resets += 1
        slot.unit = self._make(partition)
        slot.offset = slot.durable = -1
        slot.seeks = 0

    async def _close_gap(self, slot: Slot, partition: int, offset: int) -> bool:
        """Whether to go on at an offset that does not follow; if not, seek back to what is missing."""
        now = time.monotonic()
        if slot.seeks and now - slot.sought_at < SEEK_EVERY_S and offset != slot.sought:
            self.stats.skipped += 1  # fetched before the seek
            return False
        slot.sought = max(slot.offset + 1, (await self._source.beginnings([partition]))[partition])
        if offset == slot.sought or slot.seeks >= SEEK_TRIES:
            self._accept_gap(slot, partition, offset)
            return True
        slot.seeks += 1
        slot.sought_at = now
        self.stats.seeks += 1
        self.stats.skipped += 1
        log.warning(
            "%s[%d]: offset %d follows %d, seeking to %d", self.name, partition, offset, slot.offset, slot.sought
        )
        await self._source.seek(partition, slot.sought)
        return False

    def _accept_gap(self, slot: Slot, partition: int, offset: int) -> None:
        slot.seeks = 0
        if slot.offset >= 0 or offset > slot.sought:
            self.stats.gaps += 1
            log.error("%s[%d]: offsets %d to %d are gone from the log; their events are lost to this state",
                      self.name, partition, slot.offset + 1, offset - 1)  # fmt: skip

    # ── checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────

    async def tick(self) -> None:
        """Write the checkpoints that are due. Called often, so that a stream that falls quiet gets its own, too."""
        for task in set(self._loading.values()):
            if task.done():
                task.result()  # loading failed, and no message has come that would wait for it
        self._note_reached({})
        await self._retell()
        if time.monotonic() >= self._rested_at:
            await self.checkpoint(list(self.slots))

    async def _retell(self) -> None:
        for slot in list(self.slots.values()):
            if not slot.retold and not self.failed:
                async with self._applying:  # or what is newer by then would be followed by this
                    slot.retold = True
                    await self._send(slot.unit.standing())

    async def checkpoint(self, partitions: Iterable[int]) -> None:
        """Store the states of those of these partitions that went on since their last checkpoint.

        A state is encoded while nothing is applied, with the offset it stands for, and stored while the line goes on.
        """
        async with self._saving:
            took_s = sum([await self._save(partition) for partition in sorted(partitions) if self._went_on(partition)])
            if took_s:
                self.stats.checkpoint_s += took_s
                self._rested_at = time.monotonic() + self._pace.rest_s(took_s)

    def _went_on(self, partition: int) -> bool:
        slot = self.slots.get(partition)
        return slot is not None and (slot.offset != slot.durable or slot.again) and slot.offset >= 0 and not self.failed

    async def _save(self, partition: int) -> float:
        """Store one partition; returns the seconds that took, without the wait for a batch in hand."""
        async with self._applying:
            slot = self.slots.get(partition)
            if slot is None or self.failed:  # released while we waited for the broker: its next owner replays
                return 0.0
            offset, slot.again = slot.offset, False
            async with self._turn:
                began = time.monotonic()  # waiting for others is no cost of checkpoints
                state, cpu_s = await asyncio.to_thread(_snapshot, slot.unit)
        self.stats.checkpoint_cpu_s += cpu_s
        try:
            slot.size_bytes = await self._store.save(partition, Checkpoint(offset, state))
        except BaseException:
            slot.again = True
            raise
        slot.durable = offset
        slot.saved_at = time.time()
        self.stats.checkpoints += 1
        return time.monotonic() - began


def _apply(work: list[tuple[Unit, bytes, int]]) -> tuple[list[Record], float]:
    """What the units give, and the CPU seconds it took."""
    began = time.thread_time()
    records = [record for unit, value, offset in work for record in unit.take(value, offset)]
    return records, time.thread_time() - began


def _snapshot(unit: Unit) -> tuple[bytes, float]:
    began = time.thread_time()
    state = unit.snapshot()
    return state, time.thread_time() - began
