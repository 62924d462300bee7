"""The quick reader of page and track calls gives what the thorough one gives, or leaves the call to it."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from streams.events import Event
from streams.formats import decode, segment
from streams.formats._common import parse
from tests.formats.test_garbage import OPTIONS

ODD: tuple[Any, ...] = (
    None, "", "x", "é", "a" * 600, "b" * 3000, 0, 7, -1.5, True, [], {}, [1], {"path": 5}, {"a": None},
    "2026-13-01T00:00:00Z",
    "2023-05-01", "2023-05-01T10:00:00", "2023-05-01 10:00:00+02:00", "1700000000", 1_700_000_000, 1e30,
)  # fmt: skip
"""What senders put where something else was expected."""


def call(rng: random.Random) -> dict[str, Any]:
    """A well-formed call with most of what SDKs send."""
    made: dict[str, Any] = {
        "type": rng.choice(["track", "track", "page", "screen", "identify"]), "messageId": f"m{rng.random()}",
        "anonymousId": "visitor-1", "timestamp": "2023-05-01T10:00:00.123Z", "channel": "web",
        "event": rng.choice(["Product Added", "Element Clicked", "Unheard Of", "form submitted"]),
        "context": {
            "page": {"path": "/cart", "url": "https://shop.example/cart?x=1", "title": "Cart"},
            "campaign": {"medium": "paid", "name": "spring", "source": "ads"},
            "userAgent": "Mozilla/5.0 (iPhone) Mobile",
            "location": {"country": "DE"}, "device": {"type": "ios"}, "library": {"name": "a.js"}, "locale": "de-DE",
        },
        "properties": {"element": "buy", "x": "12.5", "y": 3, "value": 9.99, "quantity": 2, "channel": "mail"},
    }  # fmt: skip
    for name, value in (
        ("userId", "u1"), ("originalTimestamp", "2023-05-01T09:59:00.000Z"), ("sentAt", "2023-05-01T10:00:01Z"),
        ("receivedAt", "2023-05-01T10:00:02Z"), ("name", "Home"), ("integrations", {"All": True}),
    ):  # fmt: skip
        if rng.random() < 0.4:
            made[name] = value
    if rng.random() < 0.4:
        made["context"]["traits"] = {} if rng.random() < 0.5 else {"email": "a@example.test", "plan": "pro"}
    return made


def disturb(made: dict[str, Any], rng: random.Random) -> None:
    """Remove or replace something, anywhere, or add what is read but was not there."""
    places = [made, made, made["context"], made["context"].get("page") or made, made["context"].get("traits") or made]
    place = rng.choice([*places, made["properties"]])
    if not isinstance(place, dict):
        return
    also = ("batch", "traits", "sessionId", "session_id", "path", "url", "device", "previousId", "channel")
    name = rng.choice([*place, *also])
    if rng.random() < 0.3:
        place.pop(name, None)
    else:
        place[name] = deepcopy(rng.choice(ODD))


@pytest.mark.parametrize("disturbed", range(4))
def test_both_readers_agree(disturbed: int) -> None:
    rng, quick, usual = random.Random(disturbed), 0, 0
    for _ in range(3000):
        made = call(rng)
        usual += made["type"] in {"track", "page"}
        for _ in range(disturbed):
            if isinstance(made.get("context"), dict) and isinstance(made.get("properties"), dict):
                disturb(made, rng)
        raw = msgspec.json.encode(made)
        event = segment.read(raw, OPTIONS)
        if event is None:
            continue
        quick += 1
        assert [event] == segment.decode(parse(raw), OPTIONS), made
        assert [event] == decode(raw, None, OPTIONS) == decode(raw, "segment", OPTIONS)
    assert quick == usual if not disturbed else quick > usual / 4


def test_calls_of_the_same_labels_do_not_change_each_other() -> None:
    raw = msgspec.json.encode(call(random.Random(1)) | {"type": "page"})
    first, second = segment.read(raw, OPTIONS), segment.read(raw, OPTIONS)
    assert isinstance(first, Event) and first == second and first.segment == {
        "channel": "mail", "campaign": "spring", "device": "mobile", "country": "DE", "source": "ads",
    }  # fmt: skip


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"null", b"[]", b'"x"', b'{"type":"page"}', b'\xff{"type":"page"}', b"[" * 100_000]
)
def test_what_is_no_call_is_left_to_the_thorough_reader(raw: bytes) -> None:
    assert segment.read(raw, OPTIONS) is None
