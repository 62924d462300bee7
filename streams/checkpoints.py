"""Checkpoints as data: (offset of the last applied message, state) of one partition, as records of a compacted topic.

A checkpoint is one head record that names its chunks. Chunks have names that no other checkpoint has, the head is
written after them, and the old chunks go only then: a crash at any moment leaves a whole checkpoint, and so does a
worker that was frozen, lost its partition and still writes. `streams.store` keeps them in Kafka.

A checkpoint carries a keyed digest over place, offset and state: who can write to the topic but lacks the key (which
follows from `privacy.pseudonym_key`) can destroy a checkpoint, which is noticed, but not make one up. While keys are
changed it carries one under each, so that workers that know only one of them take it up, too.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b
from typing import Final, TypeVar

import msgspec
from cramjam import DecompressionError, zstd
from pydantic import SecretStr

from streams.errors import CheckpointRefused, ConfigError
from streams.frames import UNREADABLE
from streams.settings import Settings

HEAD: Final = b"head"
StateT = TypeVar("StateT", bound=msgspec.Struct)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """The record that makes a checkpoint valid.

    Attributes:
        offset: offset of the last message whose effects the state holds.
        name: what the keys of its chunks begin with; used once.
        chunks: number of chunks; 0 if the state is in `inline`.
        digest: keyed BLAKE2b of place, offset and state.
        inline: the state itself, if it fits into one record.
        former: the digest under the previous key, while there is one.
    """

    offset: int
    name: str
    chunks: int
    digest: bytes
    inline: bytes
    former: bytes = b""


class Checkpoint(msgspec.Struct, frozen=True):
    """A state and the offset that it stands for."""

    offset: int
    state: bytes


_HEADS: Final = msgspec.msgpack.Decoder(Head)


def checkpoint_key(settings: Settings) -> bytes | None:
    """The key of our digests; None without `privacy.pseudonym_key`: then checkpoints can only be read, unverified."""
    return _derived(settings.privacy.pseudonym_key)


def former_key(settings: Settings) -> bytes | None:
    """The same under `privacy.previous_key`."""
    return _derived(settings.privacy.previous_key)


def _derived(secret: SecretStr | None) -> bytes | None:
    if secret is None:
        return None
    return hmac.digest(secret.get_secret_value().encode(), b"trustwatch checkpoint", "sha256")


def require_key(settings: Settings) -> bytes:
    """The same, where checkpoints are written.

    Raises:
        ConfigError: there is none.
    """
    key = checkpoint_key(settings)
    if key is None:
        raise ConfigError("privacy.pseudonym_key is required: pseudonyms and the digests of checkpoints follow from it")
    return key


def to_records(
    checkpoint: Checkpoint, name: str, chunk_bytes: int, where: str, key: bytes, former: bytes | None = None
) -> list[tuple[bytes, bytes]]:
    """The (key, value) records of a checkpoint, in the order in which they must become durable; the head is last.

    Args:
        checkpoint: what to store.
        name: what the keys of its chunks begin with; used once.
        chunk_bytes: largest record.
        where: `topic[partition]` it is stored in.
        key: of the digest.
        former: the key before, while it is still valid.
    """
    state = checkpoint.state
    digest = _digest(checkpoint, where, key)
    also = b"" if former is None else _digest(checkpoint, where, former)
    if len(state) <= chunk_bytes:
        return [(HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, name, 0, digest, state, also)))]
    chunks = [state[start : start + chunk_bytes] for start in range(0, len(state), chunk_bytes)]
    records = [(chunk_key(name, index), chunk) for index, chunk in enumerate(chunks)]
    return [*records, (HEAD, msgspec.msgpack.encode(Head(checkpoint.offset, name, len(chunks), digest, b"", also)))]


def from_records(
    records: dict[bytes, bytes], where: str, key: bytes | None = None, former: bytes | None = None
) -> Checkpoint | None:
    """The checkpoint that the newest records hold; None if there is none. Without a key the digest is not looked at.

    Args:
        records: newest value of each key.
        where: `topic[partition]` they are stored in.
        key: of the digest.
        former: the key before, while it is still valid.

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
    found = Checkpoint(head.offset, b"".join(chunks) if head.chunks else head.inline)
    expected = [_digest(found, where, known) for known in (key, former) if known is not None]
    given = (head.digest, head.former)
    if key is not None and not any([hmac.compare_digest(one, other) for one in expected for other in given]):
        raise CheckpointRefused(f"{where}: checkpoint does not match its digest: somebody else wrote it, it is damaged,"
                                " or privacy.pseudonym_key was changed without privacy.previous_key")  # fmt: skip
    return found


def _digest(checkpoint: Checkpoint, where: str, key: bytes) -> bytes:
    whole = blake2b(f"{where}@{checkpoint.offset} ".encode(), digest_size=16, key=key)
    whole.update(checkpoint.state)
    return whole.digest()


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
    """A state as data, with what it depends on, compressed: that takes a tenth of the time that Kafka saves by it."""
    return compressed(msgspec.msgpack.encode((version, parameters, state)))


def compressed(data: bytes) -> bytes:
    """A state as it is stored."""
    return bytes(zstd.compress(data, level=1))


def plain(blob: bytes) -> bytes:
    """The data that `compressed` was given.

    Raises:
        ValueError: it did not.
    """
    try:
        return bytes(zstd.decompress(blob))
    except DecompressionError as error:
        raise ValueError(str(error)) from error


def unpack(blob: bytes, state: type[StateT], version: int, parameters: str, where: str) -> StateT:
    """The state that `pack` wrote.

    Raises:
        CheckpointRefused: it is no such state, or one of another version or made with other parameters.
    """
    try:
        found = msgspec.msgpack.decode(plain(blob), type=tuple[int, str, msgspec.Raw])
    except UNREADABLE as error:
        raise CheckpointRefused(f"state of {where} cannot be read: {error}") from error
    # Before the rest is decoded: a state of another version need not look like one of ours.
    if found[0] != version:
        raise CheckpointRefused(f"state of {where} has version {found[0]}, this is version {version}")
    if found[1] != parameters:
        raise CheckpointRefused(f"state of {where} was made with other parameters: {found[1]}, now {parameters}")
    try:
        return msgspec.msgpack.decode(found[2], type=state)
    except UNREADABLE as error:
        raise CheckpointRefused(f"state of {where} cannot be read: {error}") from error
