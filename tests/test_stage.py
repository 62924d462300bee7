"""Exactness of one stage: nothing lost, nothing twice, nothing acknowledged before it is durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from streams import stage as stage_module
from streams.checkpoints import Checkpoint
from streams.errors import CheckpointRefused
from streams.stage import SEEK_TRIES, ExactStage, Record


class Adder:
    """A unit whose state is every message that it took."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def take(self, value: bytes, offset: int) -> list[Record]:
        if value == b"poison":
            raise ValueError("a bug of ours")
        self.taken.append(f"{offset}={value.decode()}")
        return [Record("out", None, b"", value)]

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
        self._world.did.append(f"ack {self.message.partition}@{self.message.offset}")
        self._world.acked.add((self.message.partition, self.message.offset))


class World:
    """The edges of Kafka in memory: a log, checkpoints, and the order in which things became durable."""

    def __init__(self, length: int = 50, beginning: int = 0) -> None:
        self.length = length
        self.first = beginning
        self.saved: dict[int, Checkpoint] = {}
        self.sent: list[bytes] = []
        self.did: list[str] = []
        self.acked: set[tuple[int, int]] = set()
        self.position = {0: beginning, 1: beginning}
        self.seeks: list[tuple[int, int]] = []
        self.on_save: Callable[[], None] = lambda: None
        self.fail_send = self.fail_save = False
        self.stage = self.start()

    def start(self) -> ExactStage:
        """A new process."""
        store: Any = self
        return ExactStage("test", lambda _p: Adder(), store, self.send, self, lambda _s: None)

    async def load(self, partition: int) -> Checkpoint | None:
        return self.saved.get(partition)

    async def save(self, partition: int, checkpoint: Checkpoint) -> int:
        self.on_save()
        if self.fail_save:
            raise ConnectionError("no broker")
        self.saved[partition] = checkpoint
        self.did.append(f"save {partition}@{checkpoint.offset}")
        return len(checkpoint.state)

    async def send(self, records: Iterable[Record]) -> None:
        if self.fail_send:
            raise ConnectionError("no broker")
        values = [record.value for record in records]
        self.sent += values
        self.did += [f"send {value.decode()}" for value in values]

    async def beginning(self, partition: int) -> int:
        return self.first

    async def seek(self, partition: int, offset: int) -> None:
        self.seeks.append((partition, offset))
        self.position[partition] = max(offset, self.first)

    def end(self, partition: int) -> int | None:
        return self.length

    def events(self, offsets: Sequence[int], partition: int = 0) -> list[Event]:
        return [Event(self, partition, offset, f"m{offset}".encode()) for offset in offsets]

    def run(self, offsets: Sequence[int], partition: int = 0) -> None:
        asyncio.run(self.stage.run(self.events(offsets, partition)))

    def taken(self, partition: int = 0) -> list[int]:
        unit = self.stage.slots[partition].unit
        return [int(text.partition("=")[0]) for text in unit.taken]


@pytest.fixture
def world() -> World:
    return World()


def test_effects_then_checkpoint_then_acknowledgement(world: World) -> None:
    world.run([0, 1])
    assert world.did == ["send m0", "send m1", "save 0@1", "ack 0@0", "ack 0@1"]
    assert world.saved[0] == Checkpoint(1, b"0=m0,1=m1")


def test_repeats_are_skipped_and_acknowledged(world: World) -> None:
    world.run([0, 1, 2])
    world.run([1, 2, 3])
    assert world.taken() == [0, 1, 2, 3]
    assert world.stage.stats.skipped == 2
    assert {(0, offset) for offset in range(4)} == world.acked
    assert world.sent == [b"m0", b"m1", b"m2", b"m3"]


def test_a_batch_of_nothing_new_writes_no_checkpoint(world: World) -> None:
    world.run([0])
    world.did.clear()
    world.run([0])
    assert world.did == ["ack 0@0"]


def test_after_a_restart_the_checkpoint_decides_what_is_new(world: World) -> None:
    world.run([0, 1, 2])
    world.stage = world.start()
    world.run([1, 2, 3, 4])
    assert world.taken() == [0, 1, 2, 3, 4]


def test_partitions_are_apart(world: World) -> None:
    both = [event for offset in range(3) for event in (*world.events([offset], 0), *world.events([offset], 1))]
    asyncio.run(world.stage.run(both))
    assert world.taken(0) == world.taken(1) == [0, 1, 2]
    assert set(world.saved) == {0, 1}


@pytest.mark.parametrize("fails", ["fail_send", "fail_save"])
def test_what_is_not_durable_is_not_acknowledged_and_comes_again_after_a_restart(world: World, fails: str) -> None:
    world.run([0, 1])
    setattr(world, fails, True)
    with pytest.raises(ConnectionError):
        world.run([2, 3])
    assert world.acked == {(0, 0), (0, 1)}
    assert world.saved[0].offset == 1
    setattr(world, fails, False)
    world.stage = world.start()
    world.run([2, 3])
    assert world.taken() == [0, 1, 2, 3]


def test_an_error_of_ours_leaves_the_whole_batch_unacknowledged(world: World) -> None:
    events = [*world.events([0, 1]), Event(world, 0, 2, b"poison"), *world.events([0], 1)]
    with pytest.raises(ValueError, match="a bug of ours"):
        asyncio.run(world.stage.run(events))
    assert (world.acked, world.saved, world.sent) == (set(), {}, [])


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
    world.position[0] = committed
    follow(world)
    assert world.taken() == list(range(50))
    assert (world.stage.stats.gaps, world.stage.stats.seeks) == (0, 1)


def test_without_any_state_the_log_is_read_from_its_beginning(world: World) -> None:
    world.position[0] = 20
    follow(world)
    assert world.taken() == list(range(50))


def test_a_damaged_checkpoint_starts_afresh_from_the_log(world: World) -> None:
    world.saved[0] = Checkpoint(30, b"damaged")
    world.position[0] = 31
    follow(world)
    assert world.taken() == list(range(50))
    assert world.stage.stats.resets == 1


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


def test_a_gap_that_no_seek_closes_is_given_up_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "SEEK_EVERY_S", 0.0)
    world.run([0])
    for offset in range(10, 10 + SEEK_TRIES):  # the broker hands out 10 … whatever we ask for
        world.run([offset])
        assert world.taken() == [0]
    world.run([20])
    world.run([21])
    assert world.taken() == [0, 20, 21]
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
    world.stage.release([0])
    assert world.stage.slots == {}
    world.saved[0] = Checkpoint(5, b"0=m0,1=m1,2=x,3=x,4=x,5=x")  # its other owner went on
    world.run([4, 5, 6])
    assert world.taken() == [0, 1, 2, 3, 4, 5, 6]


def test_a_partition_released_while_a_batch_is_under_way_is_not_checkpointed_by_us(world: World) -> None:
    world.run([0])
    both = [*world.events([0, 1], 1), *world.events([1, 2], 0)]
    world.on_save = lambda: world.stage.release([1])  # while the checkpoint of partition 0 is written
    asyncio.run(world.stage.run(both))
    assert world.saved[0].offset == 2
    assert 1 not in world.saved
    world.on_save = lambda: None
    world.position[1] = 2
    world.run([2, 3], 1)  # even though Kafka was told up to 1: the state says 0 is next
    assert world.seeks == [(1, 0)]
    world.run([0, 1, 2, 3], 1)
    assert world.taken(1) == [0, 1, 2, 3]


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


def test_an_empty_batch_is_harmless(world: World) -> None:
    world.run([])
    assert (world.did, world.stage.stats.batches) == ([], 1)
