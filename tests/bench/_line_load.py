"""The workload of `make bench`: Segment calls of visitors who walk twelve stages, in 40 watched segments.

Made for speed: a million calls of some 250 bytes in less than half a minute, and read back from `.cache/bench` in a
second. The same arguments give the same bytes. All calls are in event-time order, and each begins with its timestamp,
so that the latency run can send the very same calls with another.
"""

from __future__ import annotations

import math
import random
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.frames import encode_json, partition_of
from streams.settings import Settings

VERSION: Final = 2
"""Part of the cache's name: raise it with any change that makes other bytes."""
RAW_PARTITIONS: Final = 8
BASE: Final = 1_760_000_000.0
"""Event time of the first call; in the past, so that nothing is ever out of range."""
SPAN_S: Final = 3600.0
EVENTS_EACH: Final = 5
"""Events of a visitor, on average."""
JOURNEY: Final = Path(__file__).with_name("_line_journey.yaml")
CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "bench"
KEY: Final = "measured, not secret"
"""The pseudonym key of the bench."""

STAMP: Final = slice(14, 38)
"""Where the timestamp of every call is: `{"timestamp":"2025-10-09T08:53:20.123Z",…`."""
CHANNELS: Final = (
    "organic", "paid", "email", "referral", "social", "affiliate", "display", "video", "direct", "sms", "push",
    "partner",
)  # fmt: skip
DEVICES: Final = ("mobile", "desktop", "tablet", "tv", "console", "watch", "kiosk")
COUNTRIES: Final = (
    "DE", "AT", "CH", "NL", "FR", "IT", "ES", "PT", "BE", "LU", "DK", "SE", "NO", "FI", "PL", "CZ", "HU", "GB", "IE",
    "US",
)  # fmt: skip
"""12 + 7 + 20 values and everyone: 40 segments."""
PAGES: Final = (
    "/", "/category/%d", "/search", "/products/%d", "/reviews/%d", "/compare", "/configure/%d", "/quote", "/cart",
    "/address", "/payment", "/account",
)  # fmt: skip
_ENTRY_WEIGHTS: Final = (30, 14, 10, 16, 6, 6, 5, 4, 4, 2, 1, 2)
_CART, _PAYMENT = PAGES.index("/cart"), PAGES.index("/payment")
_LEAD_SHARE: Final = 0.01
_GAP_S: Final = 14.0
_ALL_ENDED_S: Final = 1900.0
"""So long after the last call all sessions have ended (a gap of 30 minutes); the closing calls come a little later."""
_CLOSING_S: Final = 2000.0


class Load(msgspec.Struct, array_like=True):
    """Calls in event-time order.

    Attributes:
        values: the calls.
        partitions: raw partition of each.
        until: event time that everyone has judged who has judged everything, seconds.
    """

    values: list[bytes]
    partitions: bytes
    until: float

    def first(self, count: int) -> Load:
        """A load of the first calls only, and of those that close all sessions."""
        if count >= len(self.values) - RAW_PARTITIONS:
            return self
        values = [*self.values[:count], *self.values[-RAW_PARTITIONS:]]
        return Load(values, self.partitions[:count] + self.partitions[-RAW_PARTITIONS:], self.until)

    def chunks(self, size: int) -> Iterator[list[tuple[int, list[bytes]]]]:
        """What polls of so many messages give: calls by partition, each in order."""
        for begin in range(0, len(self.values), size):
            polled: list[list[bytes]] = [[] for _ in range(RAW_PARTITIONS)]
            for value, partition in zip(
                self.values[begin : begin + size], self.partitions[begin : begin + size], strict=True
            ):
                polled[partition].append(value)
            yield [(partition, values) for partition, values in enumerate(polled) if values]


def load(events: int, *, seed: int = 1, span_s: float | None = None) -> Load:
    """The workload, from the cache if it was made before.

    Args:
        events: calls, beside the last one of each partition.
        seed: other calls for another.
        span_s: seconds of event time that they take; none: a million an hour, however many they are.
    """
    span_s = span_s or SPAN_S * events / 1e6
    path = CACHE / f"load-{VERSION}-{events}-{seed}-{span_s:g}.msgpack"
    if path.is_file():
        return msgspec.msgpack.decode(path.read_bytes(), type=Load)
    made = make(events, seed, span_s)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as partial:
        partial.write(msgspec.msgpack.encode(made))
    Path(partial.name).rename(path)
    return made


Call = tuple[float, int, bytes]
"""Event time, raw partition, bytes."""


def make(events: int, seed: int, span_s: float) -> Load:
    """Make the workload."""
    rng = random.Random(seed)
    calls = list[Call]()
    for number, length in enumerate(_lengths(events, rng)):
        _Visitor(number, rng, span_s, span_s).walk(length, calls)
    return closed(calls)


def visits(rng: random.Random, visitors: int, span_s: float) -> list[Call]:
    """Calls of few visitors who all come at the beginning and are busy until the end of the span."""
    calls = list[Call]()
    for number in range(visitors):
        _Visitor(number, rng, 60.0, span_s).walk(int(span_s / _GAP_S), calls)
    return calls


def closed(calls: list[Call]) -> Load:
    """A load of these calls, with the last of each partition."""
    calls.sort()
    last = calls[-1][0]
    closing = [_closing(partition, last + _CLOSING_S) for partition in range(RAW_PARTITIONS)]
    return Load(
        [value for _, _, value in calls] + closing,
        bytes([partition for _, partition, _ in calls] + list(range(RAW_PARTITIONS))),
        last + _ALL_ENDED_S,
    )


def settings_of(**sections: Any) -> Settings:
    """The settings of the bench: its journey, its labels, its key; `sections` over them."""
    given = {
        "journey_file": JOURNEY,
        "segments": {"watch": ("channel", "device", "country")},
        "privacy": {"pseudonym_key": KEY},
    }
    return Settings.model_validate(given | sections)


def stamp(second: float) -> bytes:
    """A timestamp as the calls carry it."""
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds")[:23].encode() + b"Z"


def _lengths(events: int, rng: random.Random) -> Sequence[int]:
    """Events of each visitor: two at least, most few, some many; together exactly `events`."""
    visitors = max(1, events // EVENTS_EACH)
    lengths = array("l", [2]) * visitors
    keen = [rng.expovariate(1.0) for _ in range(visitors)]
    for visitor in rng.choices(range(visitors), keen, k=max(0, events - 2 * visitors)):
        lengths[visitor] += 1
    return lengths


class _Visitor:
    """One visitor, with one session."""

    def __init__(self, number: int, rng: random.Random, arrive_s: float, span_s: float) -> None:
        self.id = f"visitor-{number:06x}"
        self.rng = rng
        self.now = BASE + arrive_s * rng.random()
        self.latest = BASE + span_s
        device, channel, country = (_pick(values, rng) for values in (DEVICES, CHANNELS, COUNTRIES))
        self.partition = partition_of(self.id, RAW_PARTITIONS)
        self.stage = rng.choices(range(len(PAGES)), _ENTRY_WEIGHTS)[0]
        self.place = (
            f'"campaign":{{"medium":"{channel}"}},"device":{{"type":"{device}"}},"location":{{"country":"{country}"}}'
        )
        self.page = ""
        self.form = 0
        self.sent = 0

    def walk(self, length: int, calls: list[Call]) -> None:
        """Add so many calls of this visitor."""
        rng = self.rng
        last = length - 1
        is_lead = rng.random() < _LEAD_SHARE
        for index in range(length):
            call = self._view() if index == 0 else self._next(index == last)
            if is_lead and index >= length - 3:
                call = self._lead(length - index)
            calls.append((self.now, self.partition, self._encode(call)))
            self.now = min(self.now - _GAP_S * math.log(1.0 - rng.random()) + 0.1, self.latest + index)

    def _next(self, is_last: bool) -> str:
        """What happens next: `"type":…,"event":…` with the properties."""
        rng = self.rng
        chance = rng.random()
        if is_last and chance < 0.3:
            return _track("Page Left", f'"dwell_s":{20 * rng.random():.1f},"scroll_ratio":{rng.random():.2f}')
        if chance < 0.45:
            return self._move()
        if chance < 0.72:
            x, y = int(1200 * rng.random()), int(800 * rng.random())
            dead = ',"dead":true' if chance < 0.46 else ""
            return _track("Element Clicked", f'"element":"{rng.choice(_ELEMENTS)}","x":{x},"y":{y}{dead}')
        if chance < 0.97:
            return self._act()
        return _track("Error Shown", "")

    def _move(self) -> str:
        chance = self.rng.random()
        if chance < 0.66:
            self.stage = min(self.stage + (1 if chance < 0.5 else 2), len(PAGES) - 1)
        elif chance < 0.78:
            self.stage = max(self.stage - 1, 0)
        return self._view()

    def _view(self) -> str:
        page = PAGES[self.stage]
        self.page = page % int(1 + 400 * self.rng.random()) if "%" in page else page
        return '"type":"page","properties":{}'

    def _act(self) -> str:
        """What people do in this stage beside looking and clicking."""
        page = PAGES[self.stage]
        if page == "/search":
            return _track("Products Searched", '"query":"running shoes"')
        if page == "/compare":
            return _track("Products Compared", "")
        if self.stage == _CART:
            return _track("Product Added", '"product_id":"p-4711","quantity":1')
        if self.stage == _PAYMENT and self.rng.random() < 0.5:
            return _track("Order Completed", f'"revenue":{20 + 200 * self.rng.random():.2f}')
        if self.stage > _CART:
            self.form += 1
            name = "Field Changed" if self.form % 2 else "Field Focused"
            return _track(name, f'"form":"order","field":"{_FIELDS[self.form // 2 % 3]}"')
        return _track("Page Pinged", "")

    def _lead(self, left: int) -> str:
        """A sign-up, its score, and its hand-over to sales."""
        name = ("Lead Handed Over", "Lead Scored", "Lead Created")[left - 1]
        score = f'"score":{100 * self.rng.random():.1f},' if left == 2 else ""
        return _track(name, f'{score}"source":"web","model":"m1"')

    def _encode(self, call: str) -> bytes:
        self.sent += 1
        page = f'"page":{{"path":"{self.page}"}},'
        return (
            f'{{"timestamp":"{_iso(self.now)}","messageId":"{self.id[8:]}-{self.sent:x}-7d1f4c",'
            f'"anonymousId":"{self.id}",{call},"context":{{{page}{self.place}}}}}'
        ).encode()


_ELEMENTS: Final = ("menu", "teaser", "gallery", "size", "buy", "details")
_FIELDS: Final = ("email", "street", "phone")
_SKEW: Final = {length: [1 / (place + 2) for place in range(length)] for length in (7, 12, 20)}


def _pick(values: Sequence[str], rng: random.Random) -> str:
    """A value; the first are the most frequent."""
    return rng.choices(values, _SKEW[len(values)])[0]


def _track(name: str, properties: str) -> str:
    return f'"type":"track","event":"{name}","properties":{{{properties}}}'


_seconds: dict[int, str] = {}


def _iso(second: float) -> str:
    whole = int(second)
    text = _seconds.get(whole)
    if text is None:
        text = _seconds[whole] = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{int((second - whole) * 1000):03d}Z"


def _closing(partition: int, second: float) -> bytes:
    """A call in the future of all others: what was open has ended."""
    call = {
        "timestamp": _iso(second), "type": "page", "messageId": f"closing-{partition}",
        "anonymousId": f"closing-{partition}", "context": {"page": {"path": "/"}}, "properties": {},
    }  # fmt: skip
    return encode_json(call)
