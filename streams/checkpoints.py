"""Checkpoints as data: (offset of the last applied message, state) of one partition, as records of a compacted topic.

A checkpoint is one head record that names its chunks. Chunks go alternately to two slots and the head is written after
them, so a crash at any moment leaves the previous checkpoint whole. `streams.store` keeps them in Kafka.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeVar

import msgspec

from streams.errors import CheckpointRefused
from streams.frames import UNREADABLE

HEAD: Final = b"head"
StateT = TypeVar("StateT", bound=msgspec.Struct)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """The record that makes a checkpoint valid.

    Attributes:
        offset: offset of the last message whose effects the state holds.
        slot: which of the two sets of chunks.
        chunks: number of chunks; 0 if the state is in `inline`.
        digest: BLAKE2b of the state.
        inline: the state itself, if it fits into one record.
    """

    offset: int
    slot: int
    chunks: int
    digest: bytes
    inline: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    """A state and the offset that it stands for."""

    offset: int
    state: bytes


_HEADS: Final = msgspec.msgpack.Decoder(Head)


def to_records(checkpoint: Checkpoint, slot: int, chunk_bytes: int) -> list[tuple[bytes, bytes]]:
    """The (key, value) records of a checkpoint, in the order in which they must become durable; the head is last."""
    state = checkpoint.state
    digest = blake2b(state, digest_size=16).digest()
    if len(state) <= chunk_bytes:
        return [(HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, slot, 0, digest, state)))]
    chunks = [state[start : start + chunk_bytes] for start in range(0, len(state), chunk_bytes)]
    records = [(chunk_key(slot, index), chunk) for index, chunk in enumerate(chunks)]
    return [*records, (HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, slot, len(chunks), digest, b"")))]


def from_records(records: dict[bytes, bytes], where: str) -> tuple[Checkpoint, int] | None:
    """The checkpoint that the newest records hold, and its slot; None if there is none.

    Raises:
        CheckpointRefused: the records are truncated or were tampered with.
    """
    if HEAD not in records:
        return None
    try:
        head = _HEADS.decode(records[HEAD])
        chunks = [records[chunk_key(head.slot, index)] for index in range(head.chunks)]
    except (*UNREADABLE, KeyError) as error:
        raise CheckpointRefused(f"{where}: checkpoint is truncated or no checkpoint: {error!r}") from error
    state = b"".join(chunks) if head.chunks else head.inline
    if blake2b(state, digest_size=16).digest() != head.digest:
        raise CheckpointRefused(f"{where}: checkpoint does not match its digest")
    return Checkpoint(head.offset, state), head.slot


def chunk_key(slot: int, index: int) -> bytes:
    """Key of one chunk."""
    return f"{slot}/{index}".encode()


def pack(version: int, parameters: str, state: msgspec.Struct) -> bytes:
    """A state as data, with what it depends on."""
    return msgspec.msgpack.encode((version, parameters, state))


def unpack(blob: bytes, state: type[StateT], version: int, parameters: str, where: str) -> StateT:
    """The state that `pack` wrote.

    Raises:
        CheckpointRefused: it is no such state, or one of another version or made with other parameters.
    """
    try:
        found_version, found_parameters, found = msgspec.msgpack.decode(blob, type=tuple[int, str, state])  # type: ignore[valid-type]
    except UNREADABLE as error:
        raise CheckpointRefused(f"state of {where} cannot be read: {error}") from error
    if (found_version, found_parameters) != (version, parameters):
        raise CheckpointRefused(f"state of {where} has version {found_version}, or was made with other parameters")
    return found
