"""Serves the status page from a thread with an event loop of its own: the line's is never in it.

An answer is made of a document that `reader` keeps, so most requests cost the line nothing, and many viewers cost no
more than one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web
from mode import Service

from streams.errors import ConfigError, TrustwatchError, UsageError
from streams.said import say
from streams.settings import WebSettings
from streams.web.documents import NotFound, waits_for
from streams.web.guard import ACK, COOKIE, COOKIE_S, HEADERS, PROBES, SESSION, Asked, Guard, Refused
from streams.web.reader import Busy, Document, Reader, document

if TYPE_CHECKING:
    from streams.app import Line

CONNECTIONS: Final = 64
"""One more takes the place of one that waits: probes get through, however many pages are open."""
ANSWERS: Final = 48
"""Answers with data that may be under way at once; the other connections are for what needs no reading."""
ACK_BYTES: Final = 4_000
"""No more of an acknowledgement is read: a longer one is no JSON then."""
BORN_S: Final = 0.05
FIRST_REQUEST_S: Final = 10.0
"""A connection that has not asked for anything by then is closed."""
KEEP_ALIVE_S: Final = 30.0
ANSWER_S: Final = 5.0
STOP_S: Final = 0.5
"""For answers under way when the worker stops: its last checkpoint is worth more, and comes after."""
BEAT_S: Final = 1.0
STUCK_S: Final = 60.0
"""Silence of the line's event loop after which the process counts as dead; Kafka has given it up by then."""
TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
log = logging.getLogger(__name__)


class WebServer(Service):  # type: ignore[misc]
    """Serves the status page while the worker runs.

    Attributes:
        port: where; 0 until it listens.
    """

    def __init__(self, line: Line, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._line = line
        self._settings = line.settings.web
        self._reader = Reader(line)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._beat_at = time.monotonic()
        self.port = 0

    async def on_start(self) -> None:
        """Listen."""
        if not self._settings.enabled:
            return
        listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="status-page", daemon=True)
        self._thread.start()
        self.port = await asyncio.wrap_future(listening)
        log.info("status page: http://%s:%d/", self._settings.host, self.port)

    async def on_stop(self) -> None:
        """Close the port; what is under way may end, but not for long."""
        if self._thread is not None and self._loop is not None and self._end is not None:
            with suppress(RuntimeError):  # its loop is closed: it ended before, and has said why
                self._loop.call_soon_threadsafe(self._end.set)
            await asyncio.to_thread(self._thread.join, 2 * STOP_S)

    @Service.task  # type: ignore[untyped-decorator]
    async def _beat(self) -> None:
        while not self.should_stop:
            self._beat_at = time.monotonic()
            await self.sleep(BEAT_S)

    # ── in the thread ─────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, listening: Future[int]) -> None:
        try:
            asyncio.run(self._serve(listening))
        except Exception as error:
            if not listening.done():
                listening.set_exception(error)
            else:
                log.exception("status page: ended; the line goes on without it")

    async def _serve(self, listening: Future[int]) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(
            application(self._line, self._reader, self._silent_s), access_log=None, handle_signals=False,
            keepalive_timeout=KEEP_ALIVE_S, lingering_time=1.0, shutdown_timeout=STOP_S,
        )  # fmt: skip
        await runner.setup()
        assert runner.server is not None  # made by setup
        watching = asyncio.create_task(self._reader.watch())
        try:
            listener = await self._loop.create_server(_Doorman(runner.server), self._settings.host, self._settings.port)
            listening.set_result(listener.sockets[0].getsockname()[1])
            await self._end.wait()
            listener.close()
        finally:
            watching.cancel()
            await runner.server.shutdown(STOP_S)
            await runner.cleanup()
            self._reader.close()

    def _silent_s(self) -> float:
        """Seconds for which the line's event loop has said nothing."""
        return time.monotonic() - self._beat_at


class _Doorman:
    """Makes the protocol of each connection; bounds their number, and how long they may take to ask."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._protocols: dict[Any, None] = {}  # in the order in which they came
        self._unborn: set[Any] = set()

    def __call__(self) -> asyncio.Protocol:
        # A protocol has its transport a turn of the loop after it was made: many may be accepted at once until then.
        self._protocols = {one: None for one in self._protocols if one.transport is not None or one in self._unborn}
        if len(self._protocols) >= CONNECTIONS and not self._make_room():
            return _Full()
        protocol, loop = self._server(), asyncio.get_running_loop()
        self._protocols[protocol] = None
        self._unborn.add(protocol)
        loop.call_later(BORN_S, self._unborn.discard, protocol)

        def give_up() -> None:
            # aiohttp bounds idle connections only after their first request.
            if not protocol._request_count:
                protocol.force_close()

        loop.call_later(FIRST_REQUEST_S, give_up)
        return protocol

    def _make_room(self) -> bool:
        """Close the oldest connection that waits for a request; a browser just makes another when it has one."""
        for one in self._protocols:
            if one.transport is not None and one._waiter is not None and not one._messages:
                one.force_close()
                del self._protocols[one]
                return True
        return False


class _Full(asyncio.Protocol):
    """Hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Ack(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /api/ack` takes: the id of a finding, and what is done about it."""

    id: str
    note: str = ""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(line: Line, reader: Reader, silent_s: Callable[[], float]) -> web.Application:
    """The routes, behind the guard."""
    guard, pages = Guard(line.settings), _static()
    app = web.Application(middlewares=[_guarded(guard, reader.worker)])
    places, writing = asyncio.Semaphore(ANSWERS), asyncio.Lock()

    async def answer(request: web.Request) -> web.StreamResponse:
        name, what = request.match_info["name"], request.match_info.get("what", "")
        if places.locked():
            raise Busy("too many ask at once. Fix: ask again")
        async with places, asyncio.timeout(ANSWER_S):
            found = await reader.get(name, what, request.query.get("stage", ""))
        return _send(request, found, "application/json")

    async def page(request: web.Request) -> web.StreamResponse:
        path = request.path
        name = "index.html" if path == "/" else path.removeprefix("/static/") if path.startswith("/static/") else ""
        if name not in pages:
            raise Refused(404, "no such page; there are /, /api/…, /healthz and /readyz")
        return _send(request, *pages[name])

    async def session(request: web.Request) -> web.StreamResponse:
        response = web.Response(status=204)
        if guard.session:
            secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
            response.set_cookie(
                COOKIE, guard.session, max_age=COOKIE_S, httponly=True, samesite="Strict", secure=secure
            )
        return response

    async def acknowledge(request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(ANSWER_S):
            body = await request.read()
        try:
            asked = msgspec.json.decode(body[:ACK_BYTES], type=Ack)
        except msgspec.MsgspecError as error:
            raise Refused(400, 'send {"id": …, "note": …}') from error
        if writing.locked():
            raise Busy("somebody else is writing. Fix: ask again")
        async with writing:
            try:
                said = await asyncio.to_thread(say, line.settings, "acknowledged", asked.id, asked.note, time.time())
            except UsageError as error:
                raise Refused(400, str(error)) from error
            except TrustwatchError as error:
                raise Refused(503, str(error)) from error
        return _say(202, {"said": said})

    async def healthz(_: web.Request) -> web.StreamResponse:
        silent = silent_s()
        return _say(200 if silent < STUCK_S else 503, {"alive": silent < STUCK_S, "silent_s": round(silent, 1)})

    async def readyz(_: web.Request) -> web.StreamResponse:
        waiting = waits_for(line)
        return _say(503 if waiting else 200, {"ready": not waiting, "waits_for": waiting})

    for path, handler in (
        (SESSION, session), ("/healthz", healthz), ("/readyz", readyz), ("/api/{name}", answer),
        ("/api/{name}/{what}", answer), ("/{path:.*}", page),
    ):  # fmt: skip
        app.router.add_get(path, handler)
    app.router.add_post(ACK, acknowledge)
    return app


def _guarded(guard: Guard, worker: str) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        told = ("Host", "Authorization", "Cookie", "Origin", "Content-Type")
        asked = Asked(request.method, request.path, *(headers.get(name, "") for name in told))
        try:
            guard.check(asked)
            response = await handler(request)
        except Refused as refused:
            response = _say(refused.status, {"error": str(refused)}, refused.headers)
        except NotFound as error:
            response = _say(404, {"error": str(error), "worker": worker})
        except Busy as error:
            response = _say(503, {"error": str(error)})
        except web.HTTPException as error:
            response = _say(error.status, {"error": error.reason})
        except TimeoutError:
            response = _say(503, {"error": f"not read within {ANSWER_S:g} s: the worker is busy. Fix: ask again"})
        except Exception:
            log.exception("status page: %s", request.path if request.path in PROBES else "a request failed")
            response = _say(500, {"error": "a bug; the worker's log says more"})
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware


def _say(status: int, body: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers or {}
    )


def _send(request: web.Request, found: Document, content_type: str) -> web.Response:
    headers = {"ETag": f'"{found.etag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding, Authorization, Cookie"}
    if found.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    packed = bool(found.packed) and "gzip" in request.headers.get("Accept-Encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = found.packed if packed else found.body
    charset = "utf-8" if content_type.startswith("text/") else None
    return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)


def _static() -> dict[str, tuple[Document, str]]:
    """Name → content and type. What is not in it does not exist: no path of a request ever reaches the disk."""
    found: dict[str, tuple[Document, str]] = {}
    root = files("streams.web").joinpath("static")
    for prefix, folder in (("", root), ("uplot/", root.joinpath("uplot"))):
        for item in folder.iterdir():
            kind = TYPES.get(item.name[item.name.rfind(".") :])
            if kind:
                found[prefix + item.name] = document(item.read_bytes()), kind
    return found


def require_free_web_port(where: WebSettings) -> None:
    """Refuse to start where the status page cannot be served.

    Raises:
        ConfigError: the port is taken, or the address is not ours; names the knobs.
    """
    if not where.enabled:
        return
    try:
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        with socket.create_server((where.host, where.port), family=family):
            return
    except OSError as error:
        raise ConfigError(f"web.host/web.port: cannot listen on {where.host}:{where.port}: {error}. Fix: set web.port"
                          " (0 picks a free one), or web.enabled to false") from error  # fmt: skip
