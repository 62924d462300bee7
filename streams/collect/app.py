"""The collector: an HTTP server in front of the raw topics, in a process of its own.

aiohttp's server is used without its application layer: routes are one look into a dict, and there is no middleware, so
that a request costs as little as it can. Neither addresses nor bodies are logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from streams.collect import openapi
from streams.collect.asked import Asked, Refused, busy
from streams.collect.auth import Replays
from streams.collect.body import read, too_large, unpack
from streams.collect.buffer import Buffer, Outgoing
from streams.collect.cors import Cors, not_allowed
from streams.collect.limits import Room
from streams.collect.metrics import Tally
from streams.collect.routes import JSON, Route, Routes, Taken, require_media
from streams.errors import ConfigError, TopicMismatch
from streams.metrics import require_free_port
from streams.patience import Sparingly, calm
from streams.runtime import settle
from streams.settings import CollectSettings, Settings
from streams.topics import Topics

KEEP_ALIVE_S: Final = 75.0
FIRST_REQUEST_S: Final = 10.0
"""A connection that has not sent the head of a request by then is closed."""
DRAIN_S: Final = 4.0
"""After SIGTERM, what was taken has so long to become durable."""
CLOSE_S: Final = 1.0
OUTBOX_S: Final = 2.0
END_S: Final = 9.0
"""Longest from SIGTERM to the end of the process: without a broker Kafka's clients can take for ever to stop."""
MESSAGE_BYTES: Final = 300
"""What we hold around the bytes of a message."""
OTHER: Final = "other"
HEADERS: Final = {"Server": "trustwatch", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PROBES: Final = ("/healthz", "/readyz", "/openapi.json")
log = logging.getLogger(__name__)


class Collector:
    """The server and what it holds.

    Args:
        settings: all knobs.

    Attributes:
        tally: what it did.
        port: where it listens; 0 until it does.

    Raises:
        ConfigError: no source is on, or one of them cannot work.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._knobs: CollectSettings = settings.collect
        self.routes = Routes(settings)
        self.tally = Tally()
        self.port = 0
        self._cors = Cors(self._knobs.cors_origins)
        self._room = Room(self._knobs.buffer_bytes, self._knobs.buffer_requests)
        self._replays = Replays(self._knobs.max_skew_s)
        self._outbox = Outgoing(settings)
        self._buffer = Buffer(self._outbox, self._knobs.ack_timeout_s, self.tally.ack_s.observe)
        self._document = openapi.encoded(self.routes.all, settings.collect)
        self._ending = False
        self._server: web.Server | None = None
        self.tally.watch(
            buffer_bytes=lambda: self._buffer.bytes, open_requests=lambda: self._room.requests,
            open_connections=lambda: self.connections, kafka_stalled=lambda: self._waits_for != [],
        )  # fmt: skip

    async def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until `SIGTERM` or `SIGINT`; then end within 10 seconds.

        Args:
            ready: called once it listens.
        """
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end.set)
        self._server = web.Server(
            self._answer, access_log=None, auto_decompress=False, keepalive_timeout=KEEP_ALIVE_S, lingering_time=2.0,
            logger=_nameless_logger(),
        )  # fmt: skip
        await self._outbox.start()
        sending = asyncio.create_task(self._buffer.run())
        sending.add_done_callback(lambda _: end.set())
        listener = await loop.create_server(self._connected, self._knobs.host, self._knobs.port, backlog=1024)
        self.port = listener.sockets[0].getsockname()[1]
        log.info("collect: http://%s:%d", self._knobs.host, self.port)
        ready()
        await end.wait()
        if sending.done():
            sending.result()  # an error of our own: it must show, and nothing more can be taken
        await self._end(listener)
        sending.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._outbox.stop(), OUTBOX_S)

    async def _end(self, listener: asyncio.Server) -> None:
        self._ending = True
        threading.Thread(target=_end_at_last, name="end-at-last", daemon=True).start()
        listener.close()
        if not await self._buffer.drain(DRAIN_S):
            self._buffer.abandon()
            log.warning("collect: ends although Kafka has not taken everything; those who sent it were not told that it"
                        " had, and send it again")  # fmt: skip
        await asyncio.sleep(0.05)  # for answers that have become possible
        if self._server is not None:
            await self._server.shutdown(CLOSE_S)

    @property
    def connections(self) -> int:
        """Open connections."""
        return 0 if self._server is None else len(self._server.connections)

    @property
    def _waits_for(self) -> list[str]:
        """What keeps it from being ready."""
        reasons = {"kafka": self._buffer.stalled, "kafka refuses": self._buffer.refuses, "end": self._ending}
        return [reason for reason, so in reasons.items() if so]

    # ── connections ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connected(self) -> asyncio.Protocol:
        if self._server is None or self.connections >= self._knobs.connections:
            return _Full()
        protocol: Any = self._server()

        def give_up() -> None:
            # aiohttp bounds idle connections only after their first request.
            if not protocol._request_count:
                protocol.force_close()

        asyncio.get_running_loop().call_later(FIRST_REQUEST_S, give_up)
        return protocol  # type: ignore[no-any-return]

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.perf_counter()
        path, _, query = request.raw_path.partition("?")
        route, size = self.routes.find(path), 0
        extra: dict[str, str] = {}
        try:
            if route is None:
                return self._beside(request.method, path)
            if request.method == "OPTIONS":
                wanted = request.headers.get("Access-Control-Request-Headers", "")
                told = self._cors.preflight(route, request.headers.get("Origin"), wanted)
                return self._said(route.path, 204, b"", told)
            extra = self._cors.headers(route, request.headers.get("Origin"))
            if request.method not in route.methods:
                raise not_allowed(route)
            size, body = await self._take(request, route, path, query)
            self.tally.seconds.observe(time.perf_counter() - began)
            return self._said(route.path, 200, body, extra, route.type, size)
        except Refused as refused:
            return self._refused(OTHER if route is None else route.path, refused, extra)
        except ConnectionError:
            raise
        except Exception as error:
            # Without its text and a traceback, which quote what was sent.
            log.error("collect: %s: a bug: %s in %s", route and route.path, type(error).__name__, _place(error))
            bug = Refused(500, "bug", "a bug; the collector's log says more")
            return self._refused(OTHER if route is None else route.path, bug, extra)

    async def _take(self, request: web.BaseRequest, route: Route, path: str, query: str) -> tuple[int, bytes]:
        """Bytes received, and the body of the answer; returns once Kafka has the events."""
        if self._ending:
            raise busy("ending", "this collector ends; another takes its place")
        limit = self._knobs.max_body_bytes
        announced = request.content_length
        if announced is not None and announced > limit:
            raise too_large(limit)
        place = self._room.enter()
        try:
            if "Expect" in request.headers and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            raw = await read(request.content, limit, place.hold)
            size = len(raw)
            taken = self._understood(route, request, path, query, raw)
            del raw  # nor does anything else of the body outlive this line: waiting for Kafka may take long
            if taken.messages and not self._replays.knows(taken.signed):
                place.hold(sum([len(one.value) + MESSAGE_BYTES for one in taken.messages]))
                await self._buffer.put(taken.messages, route.topic, route.headers)
                self._replays.note(taken.signed, time.monotonic())
                self.tally.note_events(route.source, len(taken.messages))
        finally:
            place.leave()
        return size, taken.answer or route.answer

    def _understood(self, route: Route, request: web.BaseRequest, path: str, query: str, raw: bytes) -> Taken:
        """What a request holds, within the limits.

        Raises:
            Refused: with the status to answer with.
        """
        knobs, headers = self._knobs, request.headers
        if raw:
            require_media(route, headers.get("Content-Type", ""))
        body = unpack(raw, headers.get("Content-Encoding", ""), knobs.max_body_bytes)
        taken = route.take(Asked(request.method, path, query, headers, body, time.time(), knobs.max_body_bytes,
                                 knobs.max_depth, knobs.max_batch_items))  # fmt: skip
        limit = self._settings.ingest.max_event_bytes
        if taken.messages and max([len(one.value) for one in taken.messages]) > limit:
            raise Refused(413, "too_large", f"an event of more than {limit} bytes (ingest.max_event_bytes)")
        self.routes.charge(route, taken, time.monotonic())
        return taken

    def _beside(self, method: str, path: str) -> web.Response:
        """Probes and the document."""
        if path not in PROBES:
            raise Refused(404, "not_found", "no such path, or its source is not configured")
        if method not in ("GET", "HEAD"):
            raise Refused(405, "method", "only GET and HEAD are answered here", Allow="GET, HEAD")
        if path == "/openapi.json":
            return self._said(path, 200, self._document)
        waits_for = self._waits_for if path == "/readyz" else []
        return self._said(path, 503 if waits_for else 200, msgspec.json.encode({"waits_for": waits_for}))

    def _refused(self, name: str, refused: Refused, extra: dict[str, str]) -> web.Response:
        self.tally.note_refused(name, refused.reason)
        body = msgspec.json.encode({"error": refused.reason, "detail": refused.detail})
        return self._said(name, refused.status, body, extra | refused.headers)

    def _said(self, name: str, status: int, body: bytes, extra: dict[str, str] | None = None, kind: str = JSON,
              size: int = 0) -> web.Response:  # fmt: skip
        self.tally.note(name, status, size)
        headers = HEADERS | {"Content-Type": kind} | (extra or {})
        response = web.Response(status=status, body=body, headers=headers)
        if self._ending:
            response.force_close()
        return response


class _Full(asyncio.Protocol):
    """Hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Nameless(Sparingly):
    """Takes address and content out of what aiohttp says of a request that it could not read, and says it rarely."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, with nothing but the kind of error."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "no error"
        record.msg, record.args = f"collect: a request could not be read: {kind}", ()
        record.exc_info = record.exc_text = None
        return record.levelno >= logging.ERROR and super().filter(record)


def _nameless_logger() -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.http")
    if not logger.filters:
        logger.addFilter(_Nameless())
    return logger


def _place(error: BaseException) -> str:
    """The innermost lines of code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


def _end_at_last() -> None:
    time.sleep(END_S)
    log.error("collect: not stopped within %g s, ending all the same: is the broker away?", END_S)
    logging.shutdown()
    os._exit(0)


def run(settings: Settings, loglevel: str = "INFO") -> int:
    """Run a collector until it is told to stop; returns the exit code of the process.

    Raises:
        ConfigError: a knob is wrong, or a topic is missing.
        BrokerUnavailable: no broker answers.
    """
    logging.basicConfig(level=loglevel, format="[%(asctime)s] [%(levelname)s] %(message)s", stream=sys.stderr)
    for client in ("kafka", "mode"):
        logging.getLogger(client).setLevel(logging.WARNING)
    collector = Collector(settings)
    _require_topics(settings, collector.routes.topics)
    _require_free(settings.collect)
    require_free_port(settings.metrics)
    calm("aiokafka")
    registry = CollectorRegistry()
    registry.register(collector.tally)
    ProcessCollector(namespace="trustwatch", registry=registry)
    server, _thread = start_http_server(settings.metrics.port, settings.metrics.host, registry)
    log.info("metrics: http://%s:%d/metrics", settings.metrics.host, server.server_port)
    settle()
    try:
        uvloop.run(collector.run())
    finally:
        server.shutdown()
        server.server_close()
    return 0


def _require_topics(settings: Settings, wanted: set[str]) -> None:
    with Topics(settings) as admin:
        missing = sorted(wanted - admin.found().keys())
    if missing:
        raise TopicMismatch(f"topics {', '.join(missing)}: missing. Fix: trustwatch topics create")


def _require_free(where: CollectSettings) -> None:
    try:
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        with socket.create_server((where.host, where.port), family=family):
            return
    except OSError as error:
        raise ConfigError(f"collect.host/collect.port: cannot listen on {where.host}:{where.port}: {error}. Fix: set"
                          " collect.port (0 picks a free one)") from error  # fmt: skip
