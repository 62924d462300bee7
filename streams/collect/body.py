"""The body of a request, read and unpacked: a small one may unpack to gigabytes, so unpacking stops at the limit."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final, Protocol

from streams.collect.asked import Refused

READ_S: Final = 20.0
"""Longest that a body may take to arrive."""
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE: Final = -15


class Source(Protocol):
    """What a body is read from; aiohttp's StreamReader is one."""

    def is_eof(self) -> bool:
        """Whether all of it was received."""

    async def readany(self) -> bytes:
        """What has come, waiting for something; nothing at the end."""


async def read(source: Source, limit: int, on_size: Callable[[int], object]) -> bytes:
    """The body as it was sent.

    Args:
        source: of the bytes.
        limit: largest body, bytes.
        on_size: told how many bytes have come by now; what it raises ends it.

    Raises:
        Refused: 413 if it is larger, 408 if it takes longer than `READ_S`.
    """
    if source.is_eof():  # nearly all of them come at once
        whole = await source.readany()
        if len(whole) > limit:
            raise too_large(limit)
        on_size(len(whole))
        return whole
    pieces, size = list[bytes](), 0
    try:
        async with asyncio.timeout(READ_S):
            while size <= limit and (piece := await source.readany()):
                pieces.append(piece)
                size += len(piece)
                on_size(size)
    except TimeoutError as error:
        raise Refused(408, "too_slow", f"the body took longer than {READ_S:g} s") from error
    if size > limit:
        raise too_large(limit)
    return b"".join(pieces)


def too_large(limit: int) -> Refused:
    """The body is larger than it may be."""
    return Refused(413, "too_large", f"the body exceeds {limit} bytes, packed or unpacked. Fix: send smaller batches")


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its `Content-Encoding`.

    Raises:
        Refused: 413 if it unpacks to more than `limit` bytes, 415 for another encoding, 400 if it is damaged.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    window = _WINDOWS.get(coding)
    if window is None:
        raise Refused(415, "unsupported_encoding", "Content-Encoding: gzip and deflate are taken",
                      Accept_Encoding="gzip, deflate")  # fmt: skip
    if window == _WINDOWS["deflate"] and body[:1] and (body[0] & 0x0F) != 8:
        window = _RAW_DEFLATE  # many call "deflate" what has no zlib header
    return gunzip(body, limit, window)


def gunzip(body: bytes, limit: int, window: int = 31) -> bytes:
    """Unpack one gzip member (or what `window` says), to `limit` bytes at most.

    Raises:
        Refused: 413 or 400, see `unpack`.
    """
    unpacker = zlib.decompressobj(window)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, "damaged", "the body is not packed as Content-Encoding or compression says") from error
    if len(unpacked) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise Refused(400, "damaged", "the packed body ends too early")
    if unpacker.unused_data:
        raise Refused(400, "damaged", "something follows the packed body")
    return unpacked
