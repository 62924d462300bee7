"""A checkpoint is whole or refused, and a crash while one is written leaves the one before it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.checkpoints import (
    HEAD,
    Checkpoint,
    Head,
    checkpoint_key,
    chunk_key,
    from_records,
    require_key,
    to_records,
)
from streams.errors import CheckpointRefused, ConfigError
from streams.settings import Settings
from streams.stage import Record
from streams.store import CheckpointStore

Records = dict[bytes, bytes]
KEY = b"k" * 32


def records_of(checkpoint: Checkpoint, name: str, chunk_bytes: int, where: str = "t[0]") -> list[tuple[bytes, bytes]]:
    return to_records(checkpoint, name, chunk_bytes, where, KEY)


@given(st.binary(max_size=200), st.integers(-1, 2**60), st.text("0123456789abcdef", min_size=1), st.integers(1, 64))
def test_what_was_written_is_read(state: bytes, offset: int, name: str, chunk_bytes: int) -> None:
    records = records_of(Checkpoint(offset, state), name, chunk_bytes)
    assert from_records(dict(records), "t[0]", KEY) == Checkpoint(offset, state)
    assert records[-1][0] == HEAD
    assert all(len(value) <= chunk_bytes for key, value in records if key != HEAD)


@pytest.mark.parametrize(("size", "chunks"), [(0, 0), (10, 0), (11, 2), (20, 2), (21, 3)])
def test_only_a_state_that_does_not_fit_into_one_record_is_cut(size: int, chunks: int) -> None:
    records = records_of(Checkpoint(1, b"x" * size), "n", 10)
    assert [key for key, _ in records] == [chunk_key("n", i) for i in range(chunks)] + [HEAD]


def test_where_nothing_was_written_there_is_none() -> None:
    assert from_records({}, "t[0]", KEY) is None
    assert from_records({chunk_key("n", 0): b"half"}, "t[0]", KEY) is None


class Log:
    """A compacted partition in memory that a crash can stop before any record."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.records: Records = {}
        self.left = dies_after

    async def __call__(self, records: Iterable[Record]) -> None:
        """What the outbox does: all in order, durable when it returns."""
        for record in records:
            await self.write(record)

    async def write(self, record: Record) -> None:
        if self.left == 0:
            raise ConnectionError("killed")
        self.left -= 1
        if record.value is None:
            self.records.pop(record.key, None)
        else:
            self.records[record.key] = record.value


class Frozen(Log):
    """The connection of a worker to a log; it freezes before a record until it is thawed."""

    def __init__(self, log: Log, freezes_after: int) -> None:
        super().__init__(freezes_after)
        self.log = log
        self.frozen = asyncio.Event()
        self.thawed = asyncio.Event()

    async def write(self, record: Record) -> None:
        if self.left == 0:
            self.frozen.set()
            await self.thawed.wait()
        self.left -= 1
        await self.log.write(record)


def store_on(log: Log) -> CheckpointStore:
    return CheckpointStore("state", {}, log, 4, KEY)


def whole(log: Log) -> Checkpoint | None:
    """What the log holds; fails if it is damaged."""
    return from_records(log.records, "state[0]", KEY)


async def load(store: CheckpointStore) -> Any:
    [(partition, found)] = [one async for one in store.load([0])]
    assert partition == 0
    return found


async def resume(log: Log, monkeypatch: pytest.MonkeyPatch) -> tuple[CheckpointStore, Checkpoint | None]:
    async def read(*_: Any) -> dict[int, Records]:
        return {0: dict(log.records)}

    monkeypatch.setattr("streams.store.read_compacted", read)
    store = store_on(log)
    return store, await load(store)


SIZES = [[9, 17, 5], [17, 9, 30, 2, 11], [2, 17, 2, 17], [30, 3, 30, 30], [1, 1, 1]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_crash_between_any_two_records_leaves_a_whole_checkpoint(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = [Checkpoint(offset, bytes([65 + offset]) * size) for offset, size in enumerate(sizes)]

    async def crash_at(point: int) -> bool:
        """Whether there was anything left to crash."""
        log = Log()
        store, before, crashed = store_on(log), None, False
        log.left = point
        for checkpoint in checkpoints:
            try:
                assert await store.save(0, checkpoint) == len(checkpoint.state)
            except ConnectionError:
                crashed, log.left = True, 10**9
                new = HEAD in log.records and whole(log) == checkpoint
                store, found = await resume(log, monkeypatch)
                assert found == (checkpoint if new else before)
                await store.save(0, checkpoint)
            before = checkpoint
        _, found = await resume(log, monkeypatch)
        assert found == before
        return crashed

    point = 0
    while asyncio.run(crash_at(point)):
        point += 1
    assert point >= len(sizes)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_old_chunks_are_gone_after_each_checkpoint(sizes: list[int]) -> None:
    async def run() -> None:
        log = Log()
        store = store_on(log)
        for offset, size in enumerate(sizes):
            await store.save(0, Checkpoint(offset, b"x" * size))
            assert len(log.records) == len(records_of(Checkpoint(0, b"x" * size), "n", 4))

    asyncio.run(run())


def test_chunks_that_a_crash_left_go_but_not_while_someone_may_still_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        log = Log()
        store = store_on(log)
        await store.save(0, Checkpoint(1, b"a" * 18))
        log.left = 3
        with pytest.raises(ConnectionError):
            await store.save(0, Checkpoint(2, b"b" * 30))
        log.left = 10**9
        store, _ = await resume(log, monkeypatch)
        await store.save(0, Checkpoint(3, b"c" * 18))
        assert len(log.records) == 6 + 3
        monkeypatch.setattr("streams.store.STRAYS_AFTER_S", 0.0)
        await store.save(0, Checkpoint(4, b"d" * 18))
        assert len(log.records) == 6
        assert whole(log) == Checkpoint(4, b"d" * 18)

    asyncio.run(run())


def test_no_two_checkpoints_share_a_chunk() -> None:
    async def run() -> None:
        log, seen = Log(), set[bytes]()
        store = store_on(log)
        for offset in range(20):
            await store.save(0, Checkpoint(offset, b"x" * 20))
            chunks = set(log.records) - {HEAD}
            assert len(chunks) == 5 and not chunks & seen
            seen |= chunks

    asyncio.run(run())


@pytest.mark.parametrize("later", [0, 1, 2], ids=lambda saves: f"{saves}-saves-of-the-new-owner")
@pytest.mark.parametrize("freezes_after", range(12))
def test_a_frozen_former_owner_that_goes_on_never_leaves_a_damaged_checkpoint(
    freezes_after: int, later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It froze before any record of its save (chunks, head, tombstones); the new owner loads and saves meanwhile."""
    first, old = Checkpoint(1, b"a" * 18), Checkpoint(2, b"b" * 22)

    async def run() -> None:
        log = Log()
        link = Frozen(log, 10**9)
        former = store_on(link)
        await former.save(0, first)
        link.left = freezes_after
        saving = asyncio.create_task(former.save(0, old))
        waiting = asyncio.create_task(link.frozen.wait())
        await asyncio.wait([saving, waiting], return_when=asyncio.FIRST_COMPLETED)
        owner, _ = await resume(log, monkeypatch)
        new = [Checkpoint(3 + i, bytes([99 + i]) * 27) for i in range(later)]
        for checkpoint in new:
            await owner.save(0, checkpoint)
        link.thawed.set()
        await saving
        waiting.cancel()
        assert whole(log) in (old, *new)
        assert await former.save(0, Checkpoint(50, b"f" * 25)) == 25  # it still does not know
        assert whole(log) == Checkpoint(50, b"f" * 25)
        await owner.save(0, Checkpoint(60, b"n" * 21))
        assert whole(log) == Checkpoint(60, b"n" * 21)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(30))
def test_two_owners_that_write_at_once_never_leave_a_damaged_checkpoint(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)

    class Interleaved(Log):
        async def write(self, record: Record) -> None:
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            await super().write(record)
            if HEAD in self.records:
                whole(self)

    async def run() -> None:
        log = Interleaved()

        async def own(first: int) -> None:
            store = store_on(log)
            for offset in range(first, first + 10):
                if rng.random() < 0.2:
                    store, _ = await resume(log, monkeypatch)
                await store.save(0, Checkpoint(offset, bytes([offset]) * rng.randrange(1, 40)))

        await asyncio.gather(own(0), own(100))

    asyncio.run(run())


def test_a_crash_right_after_a_restart_still_leaves_the_checkpoint_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        log = Log()
        await store_on(log).save(0, Checkpoint(1, b"a" * 20))
        for crash in (1, 2, 3):
            store, found = await resume(log, monkeypatch)
            assert found == Checkpoint(1, b"a" * 20)
            log.left = crash
            with pytest.raises(ConnectionError):
                await store.save(0, Checkpoint(2, b"b" * 30))
            log.left = 10**9

    asyncio.run(run())


def test_the_head_is_sent_only_after_all_chunks_are_durable() -> None:
    class Slow(Log):
        durable = 0

        async def __call__(self, records: Iterable[Record]) -> None:
            keys = [record.key for record in records]
            assert HEAD not in keys or (keys == [HEAD] and self.durable == 8)
            await asyncio.sleep(0.005)
            self.durable += len(keys)

    asyncio.run(store_on(Slow()).save(0, Checkpoint(1, b"x" * 30)))


def test_a_chunk_that_is_not_acknowledged_leaves_no_head() -> None:
    class Failing(Log):
        async def write(self, record: Record) -> None:
            await super().write(record)
            if record.key.endswith(b"/2"):
                raise ConnectionError("not enough replicas")

    log = Failing()
    with pytest.raises(ConnectionError):
        asyncio.run(store_on(log).save(0, Checkpoint(1, b"x" * 30)))
    assert HEAD not in log.records


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────

WHOLE = dict(records_of(Checkpoint(7, bytes(range(40))), "n", 10))


@pytest.mark.parametrize("key", sorted(WHOLE))
def test_a_truncated_record_is_refused(key: bytes) -> None:
    with pytest.raises(CheckpointRefused, match=r"t\[0\]"):
        from_records(WHOLE | {key: WHOLE[key][:-1]}, "t[0]", KEY)


@pytest.mark.parametrize("key", sorted(set(WHOLE) - {HEAD}))
def test_a_missing_or_altered_chunk_is_refused(key: bytes) -> None:
    with pytest.raises(CheckpointRefused, match="truncated"):
        from_records({k: v for k, v in WHOLE.items() if k != key}, "t[0]", KEY)
    with pytest.raises(CheckpointRefused, match="digest"):
        from_records(WHOLE | {key: b"0123456789"}, "t[0]", KEY)


@pytest.mark.parametrize(
    "head",
    [b"", b"garbage", b"\xff", b"\xa1\xff", b"\x95\x01\x00\x00\xa1\xff\xc4\x00",
     b"\x96" + b"\x00" * 5 + b"\x91" * 100_000,
     msgspec.msgpack.encode(Head(1, "n", 2**31, b"", b"")), msgspec.msgpack.encode(Head(1, "n", -5, b"", b"")),
     msgspec.msgpack.encode([1, 0, 0]), msgspec.msgpack.encode({"offset": 1})],
)  # fmt: skip
def test_a_head_that_is_none_is_refused(head: bytes) -> None:
    with pytest.raises(CheckpointRefused):
        from_records(WHOLE | {HEAD: head}, "t[0]", KEY)


def test_no_flipped_bit_goes_unnoticed_in_a_state() -> None:
    rng = random.Random(2)
    for _ in range(500):
        key = rng.choice(sorted(WHOLE))
        value = bytearray(WHOLE[key])
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        with pytest.raises(CheckpointRefused):
            from_records(WHOLE | {key: bytes(value)}, "t[0]", KEY)


@pytest.mark.parametrize(
    ("where", "key", "offset"),
    [("t[1]", KEY, 7), ("u[0]", KEY, 7), ("t[0]", b"K" * 32, 7), ("t[0]", KEY, 8)],
    ids=["other-partition", "other-topic", "other-key", "other-offset"],
)
def test_a_whole_checkpoint_that_is_not_of_this_place_key_and_offset_is_refused(
    where: str, key: bytes, offset: int
) -> None:
    """Whoever can write to the topic but lacks the key can neither make a checkpoint up nor move one."""
    state = bytes(range(40))
    if offset == 7:
        forged = dict(to_records(Checkpoint(7, state), "n", 10, where, key))
    else:
        head = msgspec.msgpack.decode(WHOLE[HEAD], type=Head)
        forged = WHOLE | {HEAD: msgspec.msgpack.encode(msgspec.structs.replace(head, offset=offset))}
    with pytest.raises(CheckpointRefused, match="digest"):
        from_records(forged, "t[0]", KEY)
    unverified = from_records(forged, "t[0]", None)
    assert unverified is not None and unverified.state == state  # `trustwatch state` without the key


def test_the_key_follows_from_the_pseudonym_key_and_is_not_it() -> None:
    one, other = (Settings(privacy={"pseudonym_key": secret}) for secret in ("0123456789abcdef", "0123456789abcdeF"))
    key = checkpoint_key(one)
    assert key is not None and len(key) == 32 and key == require_key(one)
    assert key != checkpoint_key(other) and b"0123456789abcdef" not in key
    assert checkpoint_key(Settings()) is None
    with pytest.raises(ConfigError, match=r"privacy\.pseudonym_key"):
        require_key(Settings())


def test_a_damaged_checkpoint_is_told_apart_from_none_and_the_next_one_replaces_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        log = Log()
        await store_on(log).save(0, Checkpoint(1, b"a" * 18))
        victim = next(key for key in log.records if key != HEAD)
        log.records[victim] = b"evil"
        store, found = await resume(log, monkeypatch)
        assert isinstance(found, CheckpointRefused)
        await store.save(0, Checkpoint(9, b"b" * 18))
        _, found = await resume(log, monkeypatch)
        assert found == Checkpoint(9, b"b" * 18)
        assert len(log.records) == 6

    asyncio.run(run())
