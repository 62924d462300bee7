"""Reads the line for the status page: seldom, with breaths, and in one thread, so that nothing here needs a lock.

A document is kept for a while that grows with what it cost, and with what was made before it: all of them, whoever asks
for whichever, take one percent of a core at most in the long run; the looks of the history take half as much. One that
is a little old is given at once, and made anew for the next who asks. That there is none of a name is kept likewise.
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

from streams.web.documents import Documents, NotFound
from streams.web.history import History

if TYPE_CHECKING:
    from streams.app import Line

TICK_S: Final = 0.25
FRESH_S: Final = 2.0
"""A document of this age is given as it is …"""
STALE_S: Final = 6.0
"""… one of this age, too, but is made anew meanwhile; an older one is waited for."""
REST: Final = 100
"""Seconds of rest for each second of CPU time that a document took."""
LOOK_REST: Final = 200
"""The same for a look at all streams."""
LONGEST_REST_S: Final = 60.0
"""Until the next look after many that failed."""
MOST_REST_S: Final = 240.0
"""Rest that may be owed when a document is asked for that there is not yet."""
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


class Busy(Exception):
    """So much was asked for that something new would cost the line too much now."""


class _Kept(msgspec.Struct):
    found: Document | NotFound
    at: float
    fresh_until: float

    def give(self) -> Document:
        if isinstance(self.found, NotFound):
            raise NotFound(*self.found.args)  # a new one: tracebacks grow on those that are raised again
        return self.found


_Key = tuple[str, str, str]
"""Name, id of a finding, stage."""


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
        self._kept: dict[_Key, _Kept] = {}
        self._making: dict[_Key, asyncio.Future[_Kept]] = {}
        self._rests_until = 0.0
        self.worker = self._documents.worker

    async def get(self, name: str, what: str = "", stage: str = "") -> Document:
        """A document; `what` names one finding, `stage` is for segments.

        Raises:
            NotFound: there is none of this name.
            Busy: it would cost too much now.
        """
        stage = stage if name == "segments" else ""
        self._documents.require(name, what, stage)
        key = (name, what, stage)
        kept, now = self._kept.get(key), time.monotonic()
        if kept is not None and now < kept.fresh_until:
            return kept.give()
        making = self._making.get(key)
        if making is None:
            if kept is None and self._rests_until - now > MOST_REST_S:
                raise Busy(f"too much was asked for. Fix: ask again in {self._rests_until - now - MOST_REST_S:.0f} s")
            making = self._making[key] = asyncio.ensure_future(self._make(key))
        if kept is not None and now < max(kept.at + STALE_S, kept.fresh_until + STALE_S - FRESH_S):
            making.add_done_callback(_noted)
            return kept.give()
        return (await asyncio.shield(making)).give()

    async def _make(self, key: _Key) -> _Kept:
        def make() -> tuple[Document | NotFound, float]:
            began = time.thread_time()
            try:
                found: Document | NotFound = document(msgspec.json.encode(self._documents.make(*key)))
            except NotFound as error:
                found = error
            return found, time.thread_time() - began

        try:
            found, took_s = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        finally:
            del self._making[key]
        now = time.monotonic()
        # One after the other, as in a queue: each waits until what was made before it is paid for, too.
        self._rests_until = max(self._rests_until, now) + REST * took_s
        made = self._kept[key] = _Kept(found, now, max(now + FRESH_S, self._rests_until))
        while len(self._kept) > MOST_KEPT:
            del self._kept[min(self._kept, key=lambda one: (self._is_there(one), self._kept[one].at))]
        return made

    def _is_there(self, key: _Key) -> bool:
        return isinstance(self._kept[key].found, Document)

    async def watch(self) -> None:
        """Let the history look at the line now and then, for ever."""
        loop = asyncio.get_running_loop()

        def look() -> float:
            began = time.thread_time()
            self._history.look()
            return time.thread_time() - began

        failed = 0
        while True:
            try:
                rest_s = LOOK_REST * await loop.run_in_executor(self._thread, look)
                failed = 0
            except Exception:
                failed += 1
                rest_s = min(TICK_S * 2 ** min(failed, 10), LONGEST_REST_S)
                log.exception("status page: the history has a gap; the next look is in %.3g s", rest_s)
            await asyncio.sleep(max(TICK_S, rest_s))

    def close(self) -> None:
        """Wait for nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _noted(made: asyncio.Future[_Kept]) -> None:
    """Nobody waits for it: what went wrong is said here."""
    if not made.cancelled() and (error := made.exception()) is not None:
        log.warning("status page: not made anew: %s", error)
