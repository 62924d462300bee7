"""Which path leads to which source, what it takes and where that goes; only what is configured is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from streams.collect import auth, posthog, segment, snowplow, webhooks
from streams.collect.asked import Asked, Message, Refused
from streams.collect.buffer import format_headers
from streams.collect.limits import Bucket
from streams.errors import ConfigError
from streams.formats import FORMATS
from streams.settings import CollectSettings, RawTopic, Settings

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain"
SUCCESS: Final = b'{"success":true}'
_ORIGIN: Final = re.compile(r"\*|https?://[^/\s?#@]+")
WIRE_FORMATS: Final = {"segment": "segment", "posthog": "posthog", "snowplow": "snowplow", "hubspot": "hubspot",
                       "sendgrid": "sendgrid"}  # fmt: skip
"""Source → name of the format that ingest reads its messages with, once there is one of that name."""
_CRM: Final = frozenset({"hubspot", "sendgrid"})


class Taken(msgspec.Struct, frozen=True):
    """What a request gave.

    Attributes:
        key: number of the key that sent it.
        messages: to be written.
        answer: where it is not the route's own.
        signed: fingerprint of what was signed; None if nothing was.
    """

    key: int
    messages: list[Message]
    answer: bytes | None = None
    signed: bytes | None = None


class Route(msgspec.Struct, frozen=True):
    """One path.

    Attributes:
        path: as a template; it is the label of metrics.
        source: name of the settings below `collect`.
        methods: that it takes.
        take: authenticates, and gives what is to be written.
        answer: body of the answer if all went well.
        type: of the answer.
        media: types of bodies that are taken; a body without a type is taken as the first.
        browser: browsers call it from pages of others.
        topic: raw topic of its events.
        headers: of its messages.
        summary: for the OpenAPI document.
    """

    path: str
    source: str
    methods: tuple[str, ...]
    take: Callable[[Asked], Taken]
    answer: bytes
    summary: str
    type: str = JSON
    media: tuple[str, ...] = (JSON,)
    browser: bool = False
    topic: str = ""
    headers: list[tuple[str, bytes]] = []


class Routes:
    """All routes of the sources that are on.

    Args:
        settings: `collect`, and the raw topics.

    Raises:
        ConfigError: no source is on, or one of them cannot work; names the knob.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._collect = settings.collect
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        self._buckets: dict[tuple[str, int], Bucket] = {}
        auth.require_url(self._collect.public_url, "collect.public_url")
        for origin in self._collect.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError("collect.cors_origins: an origin such as https://www.example.com was expected, or *")
        for route in self._configured():
            self._add(route)
        if not self._exact:
            raise ConfigError("collect: no source is on. Fix: set the secret of one, such as collect.segment.write_keys"
                              " (TRUSTWATCH_COLLECT__SEGMENT__WRITE_KEYS)")  # fmt: skip

    @property
    def all(self) -> list[Route]:
        """Every route, a path each."""
        return [*self._exact.values(), *(route for _, route in self._patterns)]

    @property
    def topics(self) -> set[str]:
        """Topics that are written to."""
        return {route.topic for route in self.all}

    def find(self, path: str) -> Route | None:
        """The route of a path as it was asked for; a slash at its end makes no difference."""
        route = self._exact.get(path) or self._exact.get(path.rstrip("/"))
        if route is None:
            for pattern, candidate in self._patterns:
                if pattern.fullmatch(path):
                    return candidate
        return route

    def charge(self, route: Route, taken: Taken, now_s: float) -> None:
        """Take the events off the rate of their key.

        Raises:
            Refused: 429.
        """
        key = (route.source, taken.key)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._collect.max_events_per_s, self._collect.burst_s)
        bucket.take(len(taken.messages), now_s)

    def _add(self, route: Route) -> None:
        if "{" in route.path:
            self._patterns.append((re.compile(re.sub(r"\{\w+\}", r"[^/]{1,200}", route.path)), route))
        else:
            self._exact[route.path] = route

    def _configured(self) -> Iterator[Route]:
        secrets = self._collect.secrets()
        for source, make in SOURCES.items():
            if any(given for name, given in secrets.items() if name.startswith(f"{source}.")):
                topic, headers = self._target(source)
                for route in make(self._collect, secrets):
                    yield msgspec.structs.replace(route, topic=topic, headers=headers)

    def _target(self, source: str) -> tuple[str, list[tuple[str, bytes]]]:
        """Topic and headers of a source."""
        wanted = getattr(self._collect, source)
        fmt: str | None = wanted.format if source == "events" else WIRE_FORMATS[source]
        if source == "events" and fmt is not None and fmt not in FORMATS:
            raise ConfigError(f"collect.events.format: unknown format {fmt!r}; known: {', '.join(sorted(FORMATS))}")
        topic = self._topic(source, wanted.topic, fmt)
        if topic.format is not None and topic.format != fmt:
            raise ConfigError(f"collect.{source}.topic: {topic.name} is read as {topic.format} (topics.raw), which"
                              f" {source} does not send. Fix: give it a topic of its own, or the topic no format"
                              )  # fmt: skip
        return topic.name, format_headers(fmt if fmt in FORMATS else None)

    def _topic(self, source: str, name: str | None, fmt: str | None) -> RawTopic:
        raw = self._settings.topics.raw
        if name is None:
            own = [topic for topic in raw if fmt is not None and topic.format == fmt]
            free = [topic for topic in raw if topic.format is None] or list(raw)
            return own[0] if own else free[-1 if source in _CRM else 0]
        for topic in raw:
            if topic.name == name:
                return topic
        raise ConfigError(f"collect.{source}.topic: {name} is none of topics.raw, so nothing would read it."
                          " Fix: add it there")  # fmt: skip


Secrets = dict[str, tuple[str, ...]]


def _segment(collect: CollectSettings, secrets: Secrets) -> Iterator[Route]:
    keys = auth.Keys(secrets["segment.write_keys"])
    common: dict[str, Any] = {"media": (JSON, TEXT), "browser": True}

    def calls(call: str) -> Callable[[Asked], Taken]:
        return lambda asked: Taken(segment.key_of(asked, keys), segment.single(asked, call))

    for path, call in segment.PATHS.items():
        yield Route(path, "segment", ("POST",), calls(call), SUCCESS, f"Segment: one `{call}` call", **common)
    for path in segment.BATCHES:
        yield Route(path, "segment", ("POST",), lambda asked: Taken(segment.key_of(asked, keys), segment.batch(asked)),
                    SUCCESS, "Segment: a batch of calls", **common)  # fmt: skip
    yield Route(segment.METRICS, "segment", ("POST",), lambda _: Taken(0, []), SUCCESS,
                "Segment: how analytics.js fares; not kept", **common)  # fmt: skip

    def settings(asked: Asked) -> Taken:
        key = asked.path.split("/")[3]
        if (number := keys.find(key)) is None:
            raise auth.missing("no write key that we know")
        return Taken(number, [], segment.settings_of(asked, key, collect.public_url))

    yield Route(segment.SETTINGS, "segment", ("GET",), settings, b"", "Segment: what analytics.js asks a CDN for",
                browser=True)  # fmt: skip


def _posthog(_: CollectSettings, secrets: Secrets) -> Iterator[Route]:
    keys = auth.Keys(secrets["posthog.api_keys"])
    common: dict[str, Any] = {"media": (JSON, TEXT, FORM, BINARY), "browser": True}

    def flags(asked: Asked) -> Taken:
        return Taken(posthog.key_of(asked, posthog.content(asked), keys), [], posthog.NO_FLAGS)

    def config(asked: Asked) -> Taken:
        if (number := keys.find(asked.path.split("/")[2])) is None:
            raise auth.missing("no project API key that we know")
        return Taken(number, [], posthog.NO_CONFIG)

    for path in posthog.CAPTURES:
        yield Route(path, "posthog", ("POST",), lambda asked: Taken(*posthog.captured(asked, keys)),
                    b'{"status":1}', "PostHog: one event, an array or a batch of them", **common)  # fmt: skip
    for path in posthog.FLAGS:
        yield Route(path, "posthog", ("POST",), flags, b"", "PostHog: feature flags; there are none", **common)
    yield Route(posthog.CAPTURE_V1, "posthog", ("POST",), lambda asked: Taken(*posthog.captured_v1(asked, keys)), b"",
                "PostHog: a batch, version 1 of the protocol", **common)  # fmt: skip
    yield Route(posthog.RECORDINGS, "posthog", ("POST",), lambda _: Taken(0, []), b'{"status":1}',
                "PostHog: session recordings; not kept", **common)  # fmt: skip
    yield Route(posthog.CONFIG, "posthog", ("GET",), config, b"", "PostHog: remote configuration", browser=True)


def _snowplow(_: CollectSettings, secrets: Secrets) -> Iterator[Route]:
    keys = auth.Keys(secrets["snowplow.app_ids"])
    yield Route(snowplow.POST, "snowplow", ("POST",), lambda asked: Taken(*snowplow.posted(asked, keys)), b"ok",
                "Snowplow: events of the tracker protocol", type=TEXT, browser=True)  # fmt: skip
    yield Route(snowplow.PIXEL, "snowplow", ("GET",), lambda asked: Taken(*snowplow.pixel(asked, keys)), snowplow.GIF,
                "Snowplow: one event in the query, answered by a pixel", type="image/gif", browser=True)  # fmt: skip


def _hubspot(collect: CollectSettings, secrets: Secrets) -> Iterator[Route]:
    if collect.public_url is None:
        raise ConfigError("collect.hubspot.client_secrets: HubSpot signs the address that it calls. Fix: set"
                          " collect.public_url to its base, such as https://collect.example.com")  # fmt: skip
    signed = auth.Hubspot(secrets["hubspot.client_secrets"], collect.max_skew_s, collect.public_url)
    yield Route(webhooks.HUBSPOT, "hubspot", ("POST",),
                lambda asked: Taken(signed.check(asked), webhooks.hubspot(asked), None, signed.fingerprint(asked)),
                SUCCESS, "HubSpot: change notifications, signature v3")  # fmt: skip


def _sendgrid(collect: CollectSettings, secrets: Secrets) -> Iterator[Route]:
    signed = auth.Sendgrid(secrets["sendgrid.public_keys"], collect.max_skew_s)
    yield Route(webhooks.SENDGRID, "sendgrid", ("POST",),
                lambda asked: Taken(signed.check(asked), webhooks.sendgrid(asked), None, signed.fingerprint(asked)),
                SUCCESS, "SendGrid: e-mail events, signed")  # fmt: skip


def _events(collect: CollectSettings, secrets: Secrets) -> Iterator[Route]:
    tokens = auth.Keys(secrets["events.tokens"])
    signed = auth.Hmac(secrets["events.hmac_secrets"], collect.max_skew_s)

    def take(asked: Asked) -> Taken:
        fingerprint = None
        if (shown := auth.bearer(asked.headers.get("Authorization", ""))) is not None:
            if (number := tokens.find(shown)) is None:
                raise auth.missing("not a token that we know", "Bearer")
        elif auth.SIGNATURE in asked.headers:
            number = len(secrets["events.tokens"]) + signed.check(asked)
            fingerprint = signed.fingerprint(asked)
        else:
            raise auth.missing("a bearer token or a signature is needed", "Bearer")
        return Taken(number, webhooks.events(asked), None, fingerprint)

    yield Route(webhooks.EVENTS, "events", ("POST",), take, SUCCESS, "Events of your own programs, in any wire format",
                media=(JSON, webhooks.LINES, "application/cloudevents+json", "application/cloudevents-batch+json"),
                )  # fmt: skip


SOURCES: Final[dict[str, Callable[[CollectSettings, Secrets], Iterator[Route]]]] = {
    "segment": _segment, "posthog": _posthog, "snowplow": _snowplow, "hubspot": _hubspot, "sendgrid": _sendgrid,
    "events": _events,
}  # fmt: skip
"""Name of the settings below `collect` → what makes its routes."""


def require_media(route: Route, content_type: str) -> None:
    """Refuse a body of a type that the route does not read.

    Raises:
        Refused: 415.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media and media not in route.media:
        raise Refused(415, "unsupported_type", f"Content-Type: {', '.join(route.media)} are taken")
