"""Checkpoints as data: (offset of the last applied message, state) of one partition, as records of a compacted topic.

A checkpoint is one head record that names its chunks. Chunks have names that no other checkpoint has, the head is
written after them, and the old chunks go only then: a crash at any moment leaves a whole checkpoint, and so does a
worker that was frozen, lost its partition and still writes. `streams.store` keeps them in Kafka.
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
        name: what the keys of its chunks begin with; used once.
        chunks: number of chunks; 0 if the state is in `inline`.
        digest: BLAKE2b of the state.
        inline: the state itself, if it fits into one record.
    """

    offset: int
    name: str
    chunks: int
    digest: bytes
    inline: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    """A state and the offset that it stands for."""

    offset: int
    state: bytes


_HEADS: Final = msgspec.msgpack.Decoder(Head)


def to_records(checkpoint: Checkpoint, name: str, chunk_bytes: int) -> list[tuple[bytes, bytes]]:
    """The (key, value) records of a checkpoint, in the order in which they must become durable; the head is last."""
    state = checkpoint.state
    digest = blake2b(state, digest_size=16).digest()
    if len(state) <= chunk_bytes:
        return [(HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, name, 0, digest, state)))]
    chunks = [state[start : start + chunk_bytes] for start in range(0, len(state), chunk_bytes)]
    records = [(chunk_key(name, index), chunk) for index, chunk in enumerate(chunks)]
    return [*records, (HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, name, len(chunks), digest, b"")))]


def from_records(records: dict[bytes, bytes], where: str) -> Checkpoint | None:
    """The checkpoint that the newest records hold; None if there is none.

    Raises:
        CheckpointRefused: the records are truncated or were tampered with.
    """
    if HEAD not in records:
        return None
    try:
        head = _HEADS.decode(records[HEAD])
        chunks = [records[chunk_key(head.name, index)] for index in range(head.chunks)]
    except (*UNREADABLE, KeyError) as error:
        raise CheckpointRefused(f"{where}: checkpoint is truncated or no checkpoint: {error!r}") from error
    state = b"".join(chunks) if head.chunks else head.inline
    if blake2b(state, digest_size=16).digest() != head.digest:
        raise CheckpointRefused(f"{where}: checkpoint does not match its digest")
    return Checkpoint(head.offset, state)


def chunks_in_use(records: dict[bytes, bytes]) -> tuple[list[bytes], list[bytes]]:
    """Keys of the chunks that the head names, and of all others."""
    try:
        name = f"{_HEADS.decode(records[HEAD]).name}/".encode()
    except (*UNREADABLE, KeyError):
        return [], [key for key in records if key != HEAD]
    chunks = [key for key in records if key != HEAD]
    return [key for key in chunks if key.startswith(name)], [key for key in chunks if not key.startswith(name)]


def chunk_key(name: str, index: int) -> bytes:
    """Key of one chunk."""
    return f"{name}/{index}".encode()


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
