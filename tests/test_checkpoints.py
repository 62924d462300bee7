"""A checkpoint is whole or refused, and a crash while one is written leaves the one before it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.checkpoints import HEAD, Checkpoint, Head, chunk_key, from_records, to_records
from streams.errors import CheckpointRefused
from streams.store import CheckpointStore

Records = dict[bytes, bytes]


@given(st.binary(max_size=200), st.integers(-1, 2**60), st.integers(0, 1), st.integers(1, 64))
def test_what_was_written_is_read(state: bytes, offset: int, slot: int, chunk_bytes: int) -> None:
    records = to_records(Checkpoint(offset, state), slot, chunk_bytes)
    assert from_records(dict(records), "t[0]") == (Checkpoint(offset, state), slot)
    assert records[-1][0] == HEAD
    assert all(len(value) <= chunk_bytes for key, value in records if key != HEAD)


@pytest.mark.parametrize(("size", "chunks"), [(0, 0), (10, 0), (11, 2), (20, 2), (21, 3)])
def test_only_a_state_that_does_not_fit_into_one_record_is_cut(size: int, chunks: int) -> None:
    records = to_records(Checkpoint(1, b"x" * size), 1, 10)
    assert [key for key, _ in records] == [chunk_key(1, i) for i in range(chunks)] + [HEAD]


def test_where_nothing_was_written_there_is_none() -> None:
    assert from_records({}, "t[0]") is None
    assert from_records({chunk_key(0, 0): b"half"}, "t[0]") is None


class Log:
    """A compacted partition in memory that a crash can stop before any record."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.records: Records = {}
        self.left = dies_after
        self.waited = 0

    async def __call__(self) -> Log:
        return self

    async def send(self, topic: str, *, value: bytes, key: bytes, partition: int) -> asyncio.Future[None]:
        if self.left == 0:
            raise ConnectionError("killed")
        self.left -= 1
        self.records[key] = value
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def store_on(log: Log) -> CheckpointStore:
    return CheckpointStore("state", {}, log, chunk_bytes=4)


async def resume(log: Log, monkeypatch: pytest.MonkeyPatch) -> tuple[CheckpointStore, Checkpoint | None]:
    async def read(*_: Any) -> Records:
        return dict(log.records)

    monkeypatch.setattr("streams.store.read_compacted", read)
    store = store_on(log)
    return store, await store.load(0)


SIZES = [[9, 17, 5], [17, 9, 30, 2, 11], [2, 17, 2, 17], [30, 3, 30, 30], [1, 1, 1]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_crash_between_any_two_records_leaves_the_checkpoint_before(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
    total = sum(len(to_records(Checkpoint(0, state), 0, 4)) for state in states)

    async def crash_at(point: int) -> None:
        log = Log()
        store, durable = store_on(log), None
        log.left = point
        for offset, state in enumerate(states):
            try:
                assert await store.save(0, Checkpoint(offset, state)) == len(state)
            except ConnectionError:
                log.left = 10**9
                store, found = await resume(log, monkeypatch)
                assert found == durable
                await store.save(0, Checkpoint(offset, state))
            durable = Checkpoint(offset, state)
        _, found = await resume(log, monkeypatch)
        assert found == durable

    for point in range(total + 1):
        asyncio.run(crash_at(point))


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
        def __init__(self) -> None:
            super().__init__()
            self.pending = 0

        async def send(self, topic: str, *, value: bytes, key: bytes, partition: int) -> asyncio.Future[None]:
            assert key != HEAD or self.pending == 0
            self.pending += 1
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def acknowledge() -> None:
                self.pending -= 1
                future.set_result(None)

            asyncio.get_running_loop().call_later(0.005, acknowledge)
            return future

    asyncio.run(store_on(Slow()).save(0, Checkpoint(1, b"x" * 30)))


def test_a_chunk_that_is_not_acknowledged_leaves_no_head() -> None:
    class Failing(Log):
        async def send(self, topic: str, *, value: bytes, key: bytes, partition: int) -> asyncio.Future[None]:
            future = await super().send(topic, value=value, key=key, partition=partition)
            if key == chunk_key(0, 2):
                failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                failed.set_exception(ConnectionError("not enough replicas"))
                return failed
            return future

    log = Failing()
    with pytest.raises(ConnectionError):
        asyncio.run(store_on(log).save(0, Checkpoint(1, b"x" * 30)))
    assert HEAD not in log.records


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────

WHOLE = dict(to_records(Checkpoint(7, bytes(range(40))), 1, 10))


@pytest.mark.parametrize("key", sorted(WHOLE))
def test_a_truncated_record_is_refused(key: bytes) -> None:
    with pytest.raises(CheckpointRefused, match=r"t\[0\]"):
        from_records(WHOLE | {key: WHOLE[key][:-1]}, "t[0]")


@pytest.mark.parametrize("key", sorted(set(WHOLE) - {HEAD}))
def test_a_missing_or_altered_chunk_is_refused(key: bytes) -> None:
    with pytest.raises(CheckpointRefused, match="truncated"):
        from_records({k: v for k, v in WHOLE.items() if k != key}, "t[0]")
    with pytest.raises(CheckpointRefused, match="digest"):
        from_records(WHOLE | {key: b"0123456789"}, "t[0]")


@pytest.mark.parametrize(
    "head",
    [b"", b"garbage", b"\xff", b"\xa1\xff", b"\x95\x01\x00\x00\xa1\xff\xc4\x00",
     b"\x96" + b"\x00" * 5 + b"\x91" * 100_000,
     msgspec.msgpack.encode(Head(1, 0, 2**31, b"", b"")), msgspec.msgpack.encode(Head(1, 0, -5, b"", b"")),
     msgspec.msgpack.encode([1, 0, 0]), msgspec.msgpack.encode({"offset": 1})],
)  # fmt: skip
def test_a_head_that_is_none_is_refused(head: bytes) -> None:
    with pytest.raises(CheckpointRefused):
        from_records(WHOLE | {HEAD: head}, "t[0]")


def test_no_flipped_bit_goes_unnoticed_in_a_state() -> None:
    rng = random.Random(2)
    for _ in range(500):
        key = rng.choice(sorted(WHOLE))
        value = bytearray(WHOLE[key])
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        try:
            found = from_records(WHOLE | {key: bytes(value)}, "t[0]")
        except CheckpointRefused:
            continue
        assert found is not None
        assert found[0].state == bytes(range(40))  # only the offset or the slot of a head can be altered unseen
