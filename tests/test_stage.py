"""Exactness of one stage: nothing lost, nothing twice, nothing told to Kafka before it is durable."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from streams import stage as stage_module
from streams.checkpoints import Checkpoint
from streams.errors import CheckpointRefused
from streams.stage import REST, SEEK_TRIES, ExactStage, Pace, Record, Told

ResultT = TypeVar("ResultT")
RAW_WRITTEN = 1_000_000_000.0


class Adder:
    """A unit whose state is every message that it took."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.since: list[float] = []
        self.tells = False

    def take(self, value: bytes, offset: int) -> list[Record]:
        if value == b"poison":
            raise ValueError("a bug of ours")
        self.taken.append(f"{offset}={value.decode()}")
        self.since.append(RAW_WRITTEN)
        return [Record("out", None, b"", value)]

    def written(self) -> list[float]:
        written, self.since = self.since, []
        return written

    def standing(self) -> list[Record]:
        return [Record("out", None, b"", f"{len(self.taken)} in all".encode())] if self.tells else []

    def snapshot(self) -> bytes:
        return ",".join(self.taken).encode()

    def restore(self, blob: bytes) -> None:
        if blob == b"damaged":
            raise CheckpointRefused("state cannot be read")
        self.taken = blob.decode().split(",") if blob else []


@dataclass
class Message:
    partition: int
    offset: int
    timestamp: float = field(default_factory=time.time)


class Event:
    """What Faust hands to an agent."""

    def __init__(self, world: World, partition: int, offset: int, value: bytes) -> None:
        self.message = Message(partition, offset)
        self.value = value
        self._world = world

    def ack(self) -> None:
        self._world.forgotten.add((self.message.partition, self.message.offset))


async def nothing() -> None:
    pass


class World:
    """The edges of Kafka in memory: a log, checkpoints, and the order in which things became durable."""

    def __init__(self, length: int = 50, beginning: int = 0) -> None:
        self.length = length
        self.first = beginning
        self.saved: dict[int, Checkpoint] = {}
        self.damaged: dict[int, CheckpointRefused] = {}
        self.sent: list[bytes] = []
        self.did: list[str] = []
        self.forgotten: set[tuple[int, int]] = set()
        self.position = {0: beginning, 1: beginning}
        self.seeks: list[tuple[int, int]] = []
        self.latency: list[float] = []
        self.delay: list[float] = []
        self.before_send: Callable[[], Awaitable[None]] = nothing
        self.before_save: Callable[[], Awaitable[None]] = nothing
        self.before_load: Callable[[], Awaitable[None]] = nothing
        self.fail_send = self.fail_save = self.fail_load = False
        self.pace = Pace(0.0, 0.0)
        self.stage = self.start()

    def start(self) -> ExactStage:
        """A new process."""
        store: Any = self
        told = Told(self.latency.append, self.delay.append)
        return ExactStage("test", lambda _p: Adder(), store, self.send, self, self.pace, told, asyncio.Lock())

    # ── what the stage sees ──

    async def load(self, partitions: Collection[int]) -> AsyncIterator[tuple[int, Any]]:
        await self.before_load()
        if self.fail_load:
            raise ConnectionError("no broker")
        for partition in partitions:
            yield partition, self.damaged.get(partition, self.saved.get(partition))

    async def save(self, partition: int, checkpoint: Checkpoint) -> int:
        await self.before_save()
        if self.fail_save:
            raise ConnectionError("no broker")
        self.saved[partition] = checkpoint
        self.damaged.pop(partition, None)
        self.did.append(f"save {partition}@{checkpoint.offset}")
        return len(checkpoint.state)

    async def send(self, records: Iterable[Record]) -> None:
        await self.before_send()
        if self.fail_send:
            raise ConnectionError("no broker")
        values = [record.value or b"" for record in records]
        self.sent += values
        self.did += [f"send {value.decode()}" for value in values]

    async def beginnings(self, partitions: Collection[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, self.first)

    async def seek(self, partition: int, offset: int) -> None:
        self.seeks.append((partition, offset))
        self.position[partition] = max(offset, self.first)

    def end(self, partition: int) -> int | None:
        return self.length

    # ── what the tests do ──

    def events(self, offsets: Sequence[int], partition: int = 0) -> list[Event]:
        return [Event(self, partition, offset, f"m{offset}".encode()) for offset in offsets]

    async def owning(self, *partitions: int) -> None:
        """Be assigned partitions and load them, some time ago; the seeks of that are not noted."""
        self.stage.assign(partitions)
        await self.stage.loaded()
        for slot in self.stage.slots.values():
            slot.sought_at -= stage_module.SEEK_EVERY_S
        self.seeks.clear()

    async def apply(self, offsets: Sequence[int], partition: int = 0) -> None:
        if not self.stage.slots:
            await self.owning(0, 1)
        await self.stage.run(self.events(offsets, partition))

    def run(self, offsets: Sequence[int], partition: int = 0) -> None:
        """Apply, and store as soon as that is due."""

        async def both() -> None:
            await self.apply(offsets, partition)
            await self.stage.tick()

        asyncio.run(both())

    def taken(self, partition: int = 0) -> list[int]:
        unit = self.stage.slots[partition].unit
        return [int(text.partition("=")[0]) for text in unit.taken]


@pytest.fixture
def world() -> World:
    return World()


def go(steps: Coroutine[Any, Any, ResultT]) -> ResultT:
    return asyncio.run(asyncio.wait_for(steps, 10.0))


def test_effects_are_out_at_once_and_kafka_is_told_only_what_a_checkpoint_covers(world: World) -> None:
    async def steps() -> None:
        await world.apply([0, 1])
        await world.apply([2])
        assert world.did == ["send m0", "send m1", "send m2"]
        assert world.forgotten == {(0, 0), (0, 1), (0, 2)}  # Faust may forget them, Kafka is told nothing yet
        assert world.stage.durable == {}
        await world.stage.tick()
        assert world.did[3:] == ["save 0@2"]
        assert world.saved[0] == Checkpoint(2, b"0=m0,1=m1,2=m2")
        assert world.stage.durable == {0: 3}

    go(steps())


def test_a_checkpoint_that_is_being_stored_covers_only_what_was_applied_before_it_was_taken(world: World) -> None:
    async def steps() -> None:
        arrived, leave = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            arrived.set()
            await leave.wait()

        await world.apply([0, 1])
        world.before_save = slow
        saving = asyncio.create_task(world.stage.tick())
        await arrived.wait()
        await world.apply([2, 3])  # the line goes on meanwhile
        assert world.sent == [b"m0", b"m1", b"m2", b"m3"]
        assert world.stage.durable == {}
        leave.set()
        await saving
        assert world.saved[0] == Checkpoint(1, b"0=m0,1=m1")
        assert world.stage.durable == {0: 2}

    go(steps())


def test_a_stream_that_falls_quiet_gets_its_checkpoint(world: World) -> None:
    world.pace = Pace(0.2, 60.0)
    world.stage = world.start()

    async def steps() -> None:
        await world.apply([0])
        await world.stage.tick()
        await world.apply([1])
        await world.stage.tick()
        assert world.stage.durable == {0: 1}, "the interval has not passed"
        deadline = time.monotonic() + 5
        while world.stage.durable != {0: 2} and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            await world.stage.tick()
        assert world.stage.durable == {0: 2}

    go(steps())


def test_a_checkpoint_that_took_long_is_followed_by_a_long_rest() -> None:
    assert Pace(2.0, 60.0).rest_s(0.05) == 2.0
    assert Pace(2.0, 60.0).rest_s(1.0) == REST
    assert Pace(2.0, 60.0).rest_s(30.0) == 60.0


def test_a_slow_store_takes_a_small_part_of_the_time(world: World) -> None:
    world.pace = Pace(0.01, 60.0)
    world.stage = world.start()

    async def slow() -> None:
        await asyncio.sleep(0.02)

    async def steps() -> float:
        world.before_save = slow
        began, offset = time.monotonic(), 0
        while time.monotonic() - began < 2.5:
            await world.apply([offset])
            await world.stage.tick()
            offset += 1
        return time.monotonic() - began

    took = go(steps())
    assert world.stage.stats.checkpoints >= 3
    assert world.stage.stats.checkpoint_s < 0.08 * took


def test_repeats_are_skipped(world: World) -> None:
    world.run([0, 1, 2])
    world.run([1, 2, 3])
    assert world.taken() == [0, 1, 2, 3]
    assert world.stage.stats.skipped == 2
    assert {(0, offset) for offset in range(4)} == world.forgotten
    assert world.sent == [b"m0", b"m1", b"m2", b"m3"]


def test_a_batch_of_nothing_new_writes_no_checkpoint(world: World) -> None:
    world.run([0])
    world.did.clear()
    world.run([0])
    assert world.did == []


def test_after_a_restart_the_checkpoint_decides_what_is_new(world: World) -> None:
    world.run([0, 1, 2])
    world.stage = world.start()
    world.run([1, 2, 3, 4])
    assert world.taken() == [0, 1, 2, 3, 4]


def test_partitions_are_apart(world: World) -> None:
    async def steps() -> None:
        await world.owning(0, 1)
        await world.stage.run([e for o in range(3) for e in (*world.events([o], 0), *world.events([o], 1))])
        await world.stage.tick()

    go(steps())
    assert world.taken(0) == world.taken(1) == [0, 1, 2]
    assert set(world.saved) == {0, 1}
    assert world.stage.durable == {0: 3, 1: 3}


# ── crashes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crash_between_sending_and_storing_sends_the_same_again_and_counts_nothing_twice(world: World) -> None:
    world.run([0, 1])
    go(world.apply([2, 3]))  # sent, not stored: here it is killed
    world.stage = world.start()
    go(world.owning(0, 1))
    assert world.stage.next == {0: 2, 1: 0}
    world.run([2, 3, 4])
    assert world.sent == [b"m0", b"m1", b"m2", b"m3", b"m2", b"m3", b"m4"]
    assert world.taken() == [0, 1, 2, 3, 4]
    assert world.saved[0].state == b"0=m0,1=m1,2=m2,3=m3,4=m4"


@pytest.mark.parametrize("fails", ["fail_send", "fail_save"])
def test_what_is_not_durable_is_never_told_to_kafka_and_comes_again_after_a_restart(world: World, fails: str) -> None:
    world.run([0, 1])
    setattr(world, fails, True)
    with pytest.raises(ConnectionError):
        world.run([2, 3])
    assert world.stage.durable == {0: 2}
    assert world.saved[0].offset == 1
    setattr(world, fails, False)
    world.stage = world.start()
    world.run([2, 3])
    assert world.taken() == [0, 1, 2, 3]


@pytest.mark.parametrize("poison", [True, False], ids=["applying", "sending"])
def test_after_an_error_of_ours_nothing_is_stored_any_more(world: World, poison: bool) -> None:
    async def steps() -> None:
        await world.apply([0])
        world.fail_send = not poison
        bad = [Event(world, 0, 2, b"poison")] if poison else []
        with pytest.raises((ValueError, ConnectionError)):
            await world.stage.run([*world.events([1]), *bad, *world.events([0], 1)])
        world.fail_send = False
        await world.stage.tick()
        assert await world.stage.save([0, 1], 5.0)

    go(steps())
    assert (world.saved, world.stage.durable, world.sent) == ({}, {}, [b"m0"])
    assert world.forgotten == {(0, 0)}


def test_a_cancelled_agent_leaves_no_batch_half_done(world: World) -> None:
    """Faust cancels agents at the end; the last checkpoint waits for the batch in hand."""

    async def steps() -> None:
        arrived, leave = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            arrived.set()
            await leave.wait()

        await world.owning(0)
        world.before_send = slow
        agent = asyncio.create_task(world.stage.run(world.events([0, 1, 2])))
        await arrived.wait()
        agent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await agent
        last = asyncio.create_task(world.stage.save([0], 5.0))
        await asyncio.sleep(0.05)
        assert world.did == []
        leave.set()
        assert await last

    go(steps())
    assert world.did == ["send m0", "send m1", "send m2", "save 0@2"]


def test_the_last_checkpoint_is_given_up_when_the_broker_is_away(world: World) -> None:
    async def away() -> None:
        await asyncio.sleep(60)

    async def steps() -> None:
        await world.apply([0])
        world.before_save = away
        began = time.monotonic()
        assert not await world.stage.save([0], 0.2)
        assert time.monotonic() - began < 2

    go(steps())
    assert world.stage.durable == {}


@pytest.mark.parametrize("seed", range(40))
def test_killed_anywhere_the_state_is_that_of_an_undisturbed_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, checkpoints, kills, rebalances and a consumer that is put elsewhere, in random order."""
    monkeypatch.setattr(stage_module, "SEEK_EVERY_S", 0.0)
    rng, world = random.Random(seed), World(length=120)

    async def live() -> None:
        while world.saved.get(0, Checkpoint(-1, b"")).offset < world.length - 1:
            dice = rng.random()
            if dice < 0.10:
                world.stage = world.start()  # killed
            elif dice < 0.18:
                world.stage.forget([0, 1])
            if not world.stage.slots:
                world.stage.assign([0, 1])
                await world.stage.loaded()
                if rng.random() < 0.3:
                    world.position[0] = rng.randrange(world.length)
            start = world.position[0]
            offsets = range(start, min(start + rng.randrange(1, 9), world.length))
            world.position[0] += len(offsets)
            await world.stage.run(world.events(offsets))
            if rng.random() < 0.3:
                await world.stage.tick()

    go(live())
    assert world.taken() == list(range(120))
    assert world.stage.stats.gaps == 0


# ── gaps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def follow(world: World, batch: int = 5, rounds: int = 40) -> None:
    """Fetch as a consumer does: from its position, in batches, with one batch already fetched before any seek."""
    fetched = list(range(world.position[0], min(world.position[0] + batch, world.length)))
    for _ in range(rounds):
        start = (fetched[-1] + 1) if fetched else world.position[0]
        ahead = list(range(max(start, world.first), min(start + batch, world.length)))
        before = len(world.seeks)
        world.run(fetched)
        if len(world.seeks) > before:
            world.run(ahead)  # what was fetched before the seek arrives all the same
            start = world.position[0]
            ahead = list(range(start, min(start + batch, world.length)))
        fetched = ahead
        if not fetched:
            return


@pytest.mark.parametrize("committed", [4, 7, 12, 49])
def test_offsets_committed_past_the_state_are_read_again_exactly(world: World, committed: int) -> None:
    world.run([0, 1, 2])
    world.stage = world.start()
    go(world.owning(0, 1))
    world.position[0] = committed
    follow(world)
    assert world.taken() == list(range(50))
    assert (world.stage.stats.gaps, world.stage.stats.seeks) == (0, 1)


def test_a_new_owner_reads_on_behind_its_state_wherever_kafka_is(world: World) -> None:
    world.run([0, 1, 2])
    world.stage = world.start()
    world.position = {0: 40, 1: 40}

    async def steps() -> None:
        world.stage.assign([0, 1])
        await world.stage.loaded()
        assert world.position == {0: 3, 1: 0}
        await world.apply([40, 41])  # fetched before
        await world.apply([3, 4])

    go(steps())
    assert sorted(world.seeks) == [(0, 3), (1, 0)]
    assert world.taken() == [0, 1, 2, 3, 4]
    assert world.stage.stats.seeks == 0


def test_without_any_state_the_log_is_read_from_its_beginning(world: World) -> None:
    go(world.owning(0))
    world.position[0] = 20
    follow(world)
    assert world.taken() == list(range(50))


@pytest.mark.parametrize("where", ["store", "state"])
def test_a_damaged_checkpoint_is_rebuilt_from_the_log_and_counted(
    world: World, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    if where == "store":
        world.damaged[0] = CheckpointRefused("test[0]: checkpoint does not match its digest")
    world.saved[0] = Checkpoint(30, b"damaged")
    world.position[0] = 31

    async def steps() -> None:
        world.stage.assign([0])
        await world.stage.loaded()
        assert world.position[0] == 0, "without waiting for a message"

    go(steps())
    follow(world)
    assert world.taken() == list(range(50))
    assert world.stage.stats.resets == 1
    assert world.saved[0].offset == 49
    assert "rebuilt from the log" in caplog.text


def test_what_the_log_no_longer_holds_is_a_gap_that_is_counted() -> None:
    world = World(beginning=10)
    world.saved[0] = Checkpoint(3, b"0=m0,1=m1,2=m2,3=m3")
    follow(world)
    assert world.taken() == [0, 1, 2, 3, *range(10, 50)]
    assert (world.stage.stats.gaps, world.stage.stats.seeks) == (1, 0)


def test_a_log_that_lost_its_beginning_before_we_were_there_is_no_gap() -> None:
    world = World(beginning=10)
    follow(world)
    assert world.taken() == list(range(10, 50))
    assert (world.stage.stats.gaps, world.stage.stats.seeks) == (0, 0)


def test_a_log_that_was_made_anew_is_read_anew(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.saved[0] = Checkpoint(500, b"0=old")
    go(world.owning(0))
    assert world.taken() == [0]
    world.position[0] = 0  # 501 does not exist: the broker puts us to the beginning
    follow(world)
    assert world.taken() == list(range(50))
    assert world.stage.stats.resets == 1
    assert "made anew" in caplog.text


def test_repeats_of_a_log_that_is_whole_never_start_the_state_afresh(world: World) -> None:
    world.run(range(50))
    world.stage = world.start()
    world.run(range(50))
    assert (world.stage.stats.resets, world.stage.stats.skipped) == (0, 50)
    assert world.taken() == list(range(50))


def test_a_gap_that_no_seek_closes_is_given_up_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "SEEK_EVERY_S", 0.0)
    world.run([0])
    for offset in range(10, 10 + SEEK_TRIES):  # the broker hands out 10 … whatever we ask for
        world.run([offset])
        assert world.taken() == [0]
    world.run([30])
    world.run([31])
    assert world.taken() == [0, 30, 31]
    assert (world.stage.stats.seeks, world.stage.stats.gaps) == (SEEK_TRIES, 1)


def test_while_a_seek_is_under_way_no_other_is_made(world: World) -> None:
    world.run([0])
    world.run([10, 11, 12])
    world.run([13])
    assert world.seeks == [(0, 1)]
    world.run([1, 2])
    assert world.taken() == [0, 1, 2]
    world.run([9])
    assert world.seeks == [(0, 1), (0, 3)]


# ── rebalances ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_partition_that_went_and_came_back_is_loaded_anew(world: World) -> None:
    world.run([0, 1])
    go(world.owning(1))
    assert set(world.stage.slots) == {1}
    world.saved[0] = Checkpoint(5, b"0=m0,1=m1,2=x,3=x,4=x,5=x")  # its other owner went on
    go(world.owning(0, 1))
    world.run([4, 5, 6])
    assert world.taken() == [0, 1, 2, 3, 4, 5, 6]


def test_messages_of_a_partition_that_is_not_ours_are_left_alone(world: World) -> None:
    async def steps() -> None:
        await world.owning(0)
        await world.stage.run([*world.events([0], 1), *world.events([0], 0)])
        await world.stage.tick()

    go(steps())
    assert set(world.stage.slots) == {0}
    assert (world.did, world.stage.stats.skipped) == (["send m0", "save 0@0"], 1)


def test_a_partition_released_while_checkpoints_are_written_is_not_checkpointed_by_us(world: World) -> None:
    async def steps() -> None:
        await world.owning(0, 1)

        async def revoke() -> None:
            world.stage.forget([1])  # while the checkpoint of partition 0 is written

        world.before_save = revoke
        await world.stage.run([*world.events([0, 1], 1), *world.events([0, 1, 2], 0)])
        await world.stage.tick()
        assert world.saved[0].offset == 2
        assert 1 not in world.saved
        world.before_save = nothing
        await world.owning(0, 1)
        await world.stage.run(world.events([2, 3], 1))  # the state says 0 is next
        assert world.seeks == [(1, 0)]
        await world.stage.run(world.events([0, 1, 2, 3], 1))
        assert world.taken(1) == [0, 1, 2, 3]

    go(steps())


def test_a_released_partition_gets_a_last_checkpoint(world: World) -> None:
    async def steps() -> None:
        await world.apply([0, 1])
        await world.apply([0], 1)
        assert await world.stage.save([0], 5.0)
        assert world.stage.durable == {0: 2}
        world.stage.forget([0])

    go(steps())
    assert set(world.saved) == {0}
    assert set(world.stage.slots) == {1}


def test_what_a_frozen_worker_stored_over_our_state_does_not_stay(world: World) -> None:
    async def steps() -> None:
        await world.apply([0, 1, 2])
        await world.stage.tick()
        ours = world.saved[0]
        world.saved[0] = Checkpoint(0, b"0=m0")  # it wakes, stores what it had, and joins again: a rebalance
        world.stage.assign([0, 1])
        await world.stage.tick()
        assert world.saved[0] == ours
        assert world.stage.durable == {0: 3}, "and 1, of which nothing was read, has no state to store"
        world.did.clear()
        await world.stage.tick()
        assert world.did == [], "once is enough"

    go(steps())


@pytest.mark.parametrize("stored", [Checkpoint(0, b"0=m0"), CheckpointRefused("cannot be read")])
def test_what_we_have_in_memory_wins_over_an_older_state_in_the_store(world: World, stored: Any) -> None:
    async def steps() -> None:
        await world.apply([0, 1, 2])
        await world.stage.tick()
        ours = world.saved[0]
        world.stage.set_aside([0, 1])  # a rebalance: all are given up, and most come back
        world.damaged.update({0: stored} if isinstance(stored, CheckpointRefused) else {})
        world.saved[0] = ours if isinstance(stored, CheckpointRefused) else stored
        world.stage.assign([0])
        await world.stage.loaded()
        assert world.taken() == [0, 1, 2]
        assert world.seeks[-1] == (0, 3)
        await world.stage.tick()
        assert world.saved[0] == ours and not world.damaged

    go(steps())


def test_a_newer_state_in_the_store_wins_over_what_we_have_in_memory(world: World) -> None:
    async def steps() -> None:
        await world.apply([0])
        world.stage.set_aside([0, 1])
        world.saved[0] = Checkpoint(2, b"0=m0,1=m1,2=m2")
        world.stage.assign([0, 1])
        await world.stage.loaded()
        assert world.taken() == [0, 1, 2]

    go(steps())


def test_what_went_to_others_is_not_kept(world: World) -> None:
    async def steps() -> None:
        await world.apply([0, 1, 2])
        world.stage.set_aside([0, 1])
        world.stage.assign([1])
        world.stage.assign([0, 1])
        await world.stage.loaded()
        assert world.taken() == [], "nothing was stored, and others may have read on meanwhile"

    go(steps())


def test_what_a_frozen_worker_sent_over_ours_does_not_stay(world: World) -> None:
    async def steps() -> None:
        await world.apply([0, 1, 2])
        world.stage.slots[0].unit.tells = True
        await world.stage.tick()
        await world.stage.tick()
        assert world.sent[3:] == [b"3 in all"], "when it is loaded, and once"
        world.stage.assign([0, 1])
        await world.stage.tick()
        await world.apply([3])
        assert world.sent[4:] == [b"3 in all", b"m3"], "and whenever partitions are dealt out"

    go(steps())


def test_messages_wait_for_their_partition_to_be_loaded(world: World) -> None:
    world.saved[0] = Checkpoint(1, b"0=m0,1=m1")

    async def steps() -> None:
        loading = asyncio.Event()

        async def wait() -> None:
            await loading.wait()

        world.before_load = wait
        world.stage.assign([0])
        assert not world.stage.ready
        running = asyncio.create_task(world.stage.run(world.events([0, 1, 2])))
        await asyncio.sleep(0.05)
        assert world.sent == []
        loading.set()
        await running
        assert world.stage.ready
        assert world.sent == [b"m2"]

    go(steps())


def test_partitions_revoked_while_they_load_are_not_taken_up(world: World) -> None:
    async def steps() -> None:
        loading = asyncio.Event()

        async def wait() -> None:
            await loading.wait()

        world.before_load = wait
        world.stage.assign([0, 1])
        await asyncio.sleep(0.01)
        world.stage.assign([1])
        loading.set()
        await world.stage.loaded()
        assert set(world.stage.slots) == {1}
        world.stage.assign([])
        loading.clear()
        world.stage.assign([0])
        await asyncio.sleep(0.01)
        world.stage.assign([])  # the whole load is cancelled
        world.stage.assign([0])
        loading.set()
        await world.stage.loaded()
        assert set(world.stage.slots) == {0}
        assert not world.stage.failed
        await world.apply([0])

    go(steps())
    assert world.taken() == [0]


def test_loading_that_fails_stops_the_worker_even_if_no_message_comes(world: World) -> None:
    async def steps() -> None:
        world.fail_load = True
        world.stage.assign([0])
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError):
            await world.stage.tick()

    go(steps())


# ── what is told ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_how_far_behind_a_partition_is(world: World) -> None:
    assert world.stage.behind(0) == 0
    world.run([0, 1])
    assert world.stage.behind(0) == 48


def test_counters_add_up(world: World) -> None:
    world.run([0, 1, 2])
    world.run([2, 3])
    stats = world.stage.stats
    assert (stats.batches, stats.messages, stats.skipped, stats.checkpoints) == (2, 4, 1, 2)
    assert world.stage.slots[0].size_bytes == len(world.saved[0].state)


def test_delays_are_told_for_each_message_that_was_applied(world: World) -> None:
    world.run([0, 1, 2])
    world.run([2, 3])
    assert len(world.latency) == 2 and all(0 <= told < 5 for told in world.latency)
    assert len(world.delay) == 4
    assert all(abs(time.time() - RAW_WRITTEN - told) < 60 for told in world.delay)


def test_an_empty_batch_is_harmless(world: World) -> None:
    world.run([])
    assert (world.did, world.stage.stats.batches) == ([], 1)
