"""Reads the line for the status page: seldom, with breaths, and in one thread, so that nothing here needs a lock.

Each document is kept for a while that grows with what it cost, so that all viewers together take at most two percent
of a core. One that is a little old is given at once, and made anew for the next who asks.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from streams.web.documents import Documents
from streams.web.history import History

if TYPE_CHECKING:
    from streams.app import Line

TICK_S: Final = 0.25
FRESH_S: Final = 2.0
"""A document of this age is given as it is …"""
STALE_S: Final = 6.0
"""… one of this age, too, but is made anew meanwhile; an older one is waited for."""
REST: Final = 50
"""A document, or a look at all streams, is made again not before so many times the CPU time that it took."""
MOST_KEPT: Final = 64
PACK_FROM_BYTES: Final = 1000
log = logging.getLogger(__name__)


class Document(msgspec.Struct, frozen=True):
    """One answer.

    Attributes:
        body: as it is.
        packed: the same, gzip; empty where that is not worth it.
        etag: the same for the same content.
    """

    body: bytes
    packed: bytes
    etag: str


class _Kept(msgspec.Struct):
    document: Document
    at: float
    fresh_until: float


def document(body: bytes) -> Document:
    """A document of these bytes."""
    packed = gzip.compress(body, compresslevel=5, mtime=0) if len(body) >= PACK_FROM_BYTES else b""
    return Document(body, packed, blake2b(body, digest_size=12).hexdigest())


class Reader:
    """Keeps documents and history.

    Args:
        line: what is read.
    """

    def __init__(self, line: Line) -> None:
        self._history = History(line)
        self._documents = Documents(line, self._history)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="status-reader")
        self._kept: dict[tuple[str, ...], _Kept] = {}
        self._making: dict[tuple[str, ...], asyncio.Future[Document]] = {}

    async def get(self, name: str, what: str = "", **arguments: str) -> Document:
        """A document; `what` names one finding.

        Raises:
            LookupError: there is none of this name.
        """
        key = (name, what, *(f"{key}={value}" for key, value in sorted(arguments.items())))
        kept, now = self._kept.get(key), time.monotonic()
        if kept is not None and now < kept.fresh_until:
            return kept.document
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.ensure_future(self._make(key, name, what, arguments))
        if kept is not None and now < max(kept.at + STALE_S, kept.fresh_until + STALE_S - FRESH_S):
            making.add_done_callback(_noted)
            return kept.document
        return await asyncio.shield(making)

    async def _make(self, key: tuple[str, ...], name: str, what: str, arguments: dict[str, str]) -> Document:
        def make() -> tuple[Document, float]:
            began = time.thread_time()
            body = self._documents.make(name, what, **arguments)
            return document(msgspec.json.encode(body)), time.thread_time() - began

        try:
            made, took_s = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        finally:
            del self._making[key]
        now = time.monotonic()
        self._kept[key] = _Kept(made, now, now + max(FRESH_S, REST * took_s))
        while len(self._kept) > MOST_KEPT:
            del self._kept[min(self._kept, key=lambda one: self._kept[one].at)]
        return made

    async def watch(self) -> None:
        """Let the history look at the line now and then, for ever."""
        loop = asyncio.get_running_loop()

        def look() -> float:
            began = time.thread_time()
            self._history.look()
            return time.thread_time() - began

        while True:
            took_s = 0.0
            try:
                took_s = await loop.run_in_executor(self._thread, look)
            except Exception:
                log.exception("status page: the history has a gap")
            await asyncio.sleep(max(TICK_S, REST * took_s))

    def close(self) -> None:
        """Wait for nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _noted(made: asyncio.Future[Document]) -> None:
    """Nobody waits for it: what went wrong is said here."""
    if not made.cancelled() and (error := made.exception()) is not None:
        log.warning("status page: not made anew: %s", error)
