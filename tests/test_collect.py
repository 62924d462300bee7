"""The collector's pure parts: what is refused, who may send, and that what is written is what ingest reads."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hmac
import json
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from multidict import CIMultiDict
from pydantic import ValidationError

from streams.collect import auth, posthog, segment, snowplow, webhooks
from streams.collect.__main__ import every_source, main
from streams.collect.asked import Asked, Message, Refused, require_depth
from streams.collect.auth import (
    HUBSPOT_SIGNATURE,
    HUBSPOT_TIMESTAMP,
    SENDGRID_SIGNATURE,
    SENDGRID_TIMESTAMP,
    SIGNATURE,
    TIMESTAMP,
    Hmac,
    Hubspot,
    Keys,
    Replays,
    Sendgrid,
    basic_user,
)
from streams.collect.body import read, unpack
from streams.collect.buffer import order_key
from streams.collect.cors import Cors
from streams.collect.limits import Bucket, Room
from streams.collect.openapi import document
from streams.collect.routes import Route, Routes, require_media
from streams.errors import ConfigError
from streams.events import Event
from streams.formats import FormatOptions, decode
from streams.settings import CollectSettings, Settings

NOW = 1_750_000_000.0
KEY = "a-write-key-for-tests"
OTHER_KEY = "another-key-for-tests"
SENT = "2025-06-15T15:06:30.000Z"
BEGAN = "2025-06-15T15:06:20.000Z"
"""Ten seconds before `SENT`, on a clock that is ten seconds slow against `NOW`."""
URL = "https://collect.example.com"


def asked(body: object = b"", *, path: str = "/", query: str = "", method: str = "POST", **headers: str) -> Asked:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Asked(method, path, query, named, raw, NOW)


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()


def events(messages: list[Message], fmt: str | None = None) -> list[Event]:
    """What ingest makes of them; fails if it refuses one."""
    options = FormatOptions.from_settings(Settings(), NOW)
    found = [outcome for one in messages for outcome in decode(one.value, fmt, options)]
    assert all(isinstance(one, Event) for one in found), found
    return [one for one in found if isinstance(one, Event)]


def refused(call: Any, *arguments: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value


def settings(**collect: Any) -> Settings:
    return Settings(collect=CollectSettings.model_validate(collect))


# ── bodies and limits ─────────────────────────────────────────────────────────────────────────────────────────────────


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate),
     (" GZIP ", gzip.compress), ("identity", bytes), ("", bytes)],
    ids=["gzip", "x-gzip", "deflate", "deflate-without-header", "odd-case", "identity", "none"],
)  # fmt: skip
def test_a_packed_body_is_unpacked(encoding: str, pack: Any) -> None:
    assert unpack(pack(b"[1, 2]"), encoding, 100) == b"[1, 2]"


def test_a_gzip_bomb_is_refused_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    error = refused(unpack, bomb, "gzip", 1_000_000)
    assert (error.status, error.reason) == (413, "too_large")
    assert len(unpack(gzip.compress(bytes(1_000_000)), "gzip", 1_000_000)) == 1_000_000


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"cut off in the middle")[:-12], gzip.compress(b"a") + b"more"],
    ids=["none", "cut", "trailing"],
)
def test_a_damaged_packing_is_refused(body: bytes) -> None:
    assert (refused(unpack, body, "gzip", 100).status, refused(unpack, body, "gzip", 100).reason) == (400, "damaged")


def test_an_unknown_encoding_is_told_what_is_taken() -> None:
    error = refused(unpack, b"", "br", 100)
    assert (error.status, error.headers) == (415, {"Accept-Encoding": "gzip, deflate"})


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_depth_is_bounded() -> None:
    require_depth(nested(32), 32)
    assert refused(require_depth, nested(33), 32).reason == "too_deep"


@pytest.mark.parametrize("depth", [33, 300, 5000, 500_000])
def test_deep_json_is_refused_whether_or_not_the_parser_would_take_it(depth: int) -> None:
    text = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    error = refused(webhooks.events, asked(text))
    assert (error.status, error.reason) == (400, "too_deep")


def test_depth_at_which_parser_and_encoder_give_up_one_after_the_other_is_no_bug() -> None:
    for depth in range(880, 1020):
        text = b'{"event":"x","a":' + b"[" * depth + b"]" * depth + b"}"
        for one in (asked(text), asked(b'{"batch":[' + text + b"]}")):
            take = segment.batch if one.body.startswith(b'{"batch') else webhooks.events
            assert refused(take, one).reason == "too_deep"


def test_every_source_bounds_the_depth_of_its_events() -> None:
    deep: dict[str, Any] = {"type": "track", "event": "x", "deep": nested(32), "api_key": KEY, "email": "a"}
    plain = {**deep, "deep": nested(31)}
    for take, wrap in (
        (lambda one: segment.single(one, "track"), lambda item: item),
        (segment.batch, lambda item: {"batch": [plain, item]}),
        (lambda one: posthog.captured(one, Keys([KEY])), lambda item: item),
        (lambda one: posthog.captured(one, Keys([KEY])), lambda item: {"api_key": KEY, "batch": [plain, item]}),
        (webhooks.hubspot, lambda item: [plain, item]), (webhooks.sendgrid, lambda item: [plain, item]),
        (webhooks.events, lambda item: [plain, item]),
    ):  # fmt: skip
        assert take(asked(wrap(plain)))
        assert refused(take, asked(wrap(deep))).reason == "too_deep"


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "empty"), (b"  ", "empty"), (b"{", "not_json"), (b"\xff\xfe", "not_json"), (b'{"a": "\xff"}', "not_json")],
    ids=["empty", "blank", "cut", "no-utf-8", "no-utf-8-inside"],
)
def test_what_is_no_json_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    one = asked(body)
    assert (refused(lambda: one.value).status, refused(lambda: one.value).reason) == (400, reason)


def test_the_rate_of_a_key_holds_over_time_and_lets_bursts_pass() -> None:
    bucket = Bucket(rate_per_s=10.0, burst_s=2.0)
    bucket.take(19, 0.0)
    bucket.take(11, 0.0)  # one was left: a batch passes whole, and leaves a debt of ten
    error = refused(bucket.take, 1, 0.0)
    assert (error.status, error.headers) == (429, {"Retry-After": "2"})
    assert refused(bucket.take, 1, 0.9).status == 429
    bucket.take(1, 1.2)
    taken = 0
    for tenth in range(13, 1013):
        try:
            bucket.take(1, tenth / 10)
            taken += 1
        except Refused:
            continue
    assert taken == pytest.approx(1000, abs=25)


def test_room_is_bounded_in_bytes_and_requests() -> None:
    room = Room(most_bytes=100, most_requests=2)
    first, second = room.enter(), room.enter()
    first.hold(60)
    assert refused(second.hold, 41).status == 503
    second.hold(40)
    error = refused(room.enter)
    assert (error.reason, error.headers["Retry-After"]) == ("full", "5")
    first.hold(10)
    second.hold(90)
    assert (room.held_bytes, room.requests) == (100, 2)
    first.leave()
    second.leave()
    assert (room.held_bytes, room.requests) == (0, 0)


def test_what_is_only_promised_takes_no_room() -> None:
    class Slow:
        def is_eof(self) -> bool:
            return False

        async def readany(self) -> bytes:
            return pieces.pop(0)

    room, pieces = Room(most_bytes=100, most_requests=9), [b"x" * 30, b"x" * 30, b""]
    place = room.enter()
    assert room.held_bytes == 0
    assert asyncio.run(read(Slow(), 1000, place.hold)) == b"x" * 60
    assert room.held_bytes == 60
    pieces += [b"x" * 50, b""]
    other = room.enter()
    assert refused(lambda: asyncio.run(read(Slow(), 1000, other.hold))).reason == "full"


def test_the_key_of_a_message_gives_away_nobody() -> None:
    keys = {order_key(f"person-{number}@example.com") for number in range(3000)}
    assert {len(key) for key in keys} == {4}
    assert len(keys) < 3000  # several people share one
    assert order_key("anna") == order_key("anna") != order_key("berta")
    assert order_key(None) == b""


# ── who may send ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_any_of_several_keys_will_do_and_nothing_else() -> None:
    keys = Keys([KEY, OTHER_KEY])
    assert [keys.find(shown) for shown in (KEY, OTHER_KEY, KEY + "x", KEY[:-1], "", "\udcff")] == [
        0, 1, None, None, None, None]  # fmt: skip


@pytest.mark.parametrize("shown", ["Basic", "Basic !", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "basic ===="])
def test_basic_authentication_that_cannot_be_read_is_no_key(shown: str) -> None:
    assert basic_user(shown) == ""
    assert refused(segment.key_of, asked({"batch": []}, Authorization=shown), Keys([KEY])).status == 401


def test_a_write_key_is_taken_from_the_header_or_from_the_body() -> None:
    keys = Keys([OTHER_KEY, KEY])
    assert segment.key_of(asked(b"not even JSON", Authorization=basic(KEY)), keys) == 1
    assert segment.key_of(asked({"writeKey": KEY}), keys) == 1
    wrong = asked({"writeKey": KEY}, Authorization=basic("a-stranger-s-key"))
    assert refused(segment.key_of, wrong, keys).status == 401, "the header counts where there is one"
    assert refused(segment.key_of, asked({"writeKey": 5}), keys).headers == {
        "WWW-Authenticate": 'Basic realm="trustwatch"'
    }


def signed(body: bytes, at: float, secret: str = KEY) -> Asked:
    timestamp = str(int(at))
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, sha256).hexdigest()
    return asked(body, **{SIGNATURE: mac, TIMESTAMP: timestamp})


def test_an_hmac_signature_is_checked_with_its_time() -> None:
    check = Hmac([OTHER_KEY, KEY], 300.0).check
    assert check(signed(b"{}", NOW)) == 1
    assert check(signed(b"{}", NOW - 299)) == check(signed(b"{}", NOW + 299)) == 1
    assert refused(check, signed(b"{}", NOW, "somebody else's secret")).reason == "unauthorized"
    altered = signed(b"{}", NOW)
    altered.body = b"[]"
    assert refused(check, altered).status == 401


@pytest.mark.parametrize("shift_s", [-301, 301, -10_000_000])
def test_a_replayed_request_is_stale(shift_s: int) -> None:
    error = refused(Hmac([KEY], 300.0).check, signed(b"{}", NOW + shift_s))
    assert (error.status, error.reason) == (401, "stale")


@pytest.mark.parametrize("timestamp", ["", "soon", "1e9", "nan", "inf", "9" * 400])
def test_a_timestamp_that_cannot_be_read_is_stale_although_it_is_signed(timestamp: str) -> None:
    mac = hmac.new(KEY.encode(), f"{timestamp}.".encode(), sha256).hexdigest()
    one = asked(b"", **{SIGNATURE: mac, TIMESTAMP: timestamp})
    assert refused(Hmac([KEY], 300.0).check, one).reason == "stale"


def hubspot_signed(body: bytes, path: str, query: str, uri: str, at: float = NOW) -> Asked:
    timestamp = str(int(at * 1000))
    mac = hmac.new(KEY.encode(), b"POST" + uri.encode() + body + timestamp.encode(), sha256)
    headers = {HUBSPOT_SIGNATURE: base64.b64encode(mac.digest()).decode(), HUBSPOT_TIMESTAMP: timestamp}
    return asked(body, path=path, query=query, **headers)


def test_hubspots_signature_covers_method_address_body_and_time() -> None:
    check = Hubspot([KEY], 300.0, URL + "/").check
    good = hubspot_signed(b"[]", "/webhooks/hubspot", "", f"{URL}/webhooks/hubspot")
    assert check(good) == 0
    encoded = hubspot_signed(b"[]", "/webhooks/hubspot", "a=%3A%2f%40b%20c", f"{URL}/webhooks/hubspot?a=:/@b%20c")
    assert check(encoded) == 0
    for change in ({"body": b"[1]"}, {"path": "/webhooks/other"}, {"query": "x=1"}, {"method": "PUT"}):
        one = hubspot_signed(b"[]", "/webhooks/hubspot", "", f"{URL}/webhooks/hubspot")
        vars(one).update(change)
        assert refused(check, one).status == 401, change
    old = hubspot_signed(b"[]", "/webhooks/hubspot", "", f"{URL}/webhooks/hubspot", NOW - 301)
    assert refused(check, old).reason == "stale"
    assert refused(check, asked(b"[]")).reason == "unauthorized"


def test_a_signed_request_counts_once_until_it_is_stale_anyway() -> None:
    replays, scheme = Replays(300.0), Hmac([KEY], 300.0)
    first, other = (scheme.fingerprint(signed(body, NOW)) for body in (b"{}", b"[]"))
    assert not replays.knows(None) and not replays.knows(first)
    replays.note(None, 0.0)
    replays.note(first, 0.0)
    replays.note(other, 599.0)
    assert replays.knows(first) and not replays.knows(None)
    replays.note(other, 601.0)
    assert not replays.knows(first) and replays.knows(other)


def test_no_more_signed_requests_are_remembered_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MOST_REPLAYS", 3)
    replays = Replays(300.0)
    for number in range(5):
        replays.note(bytes([number]), 0.0)
    assert [replays.knows(bytes([number])) for number in range(5)] == [False, False, True, True, True]


def test_another_signature_of_the_same_bytes_is_a_replay_too() -> None:
    (key, public), body = sendgrid_key(), b"[]"
    scheme = Sendgrid([public], 300.0)
    first, again = sendgrid_signed(key, body), sendgrid_signed(key, body)
    assert first.headers[SENDGRID_SIGNATURE] != again.headers[SENDGRID_SIGNATURE]
    assert scheme.check(first) == scheme.check(again) == 0
    assert scheme.fingerprint(first) == scheme.fingerprint(again)


def test_hubspots_signature_is_that_of_its_documentation_s_recipe() -> None:
    """The steps of "Validate the v3 request signature", by hand: a change of ours to them would show."""
    secret, body, timestamp = KEY, b'[{"eventId":1}]', str(int(NOW * 1000))
    source = f"POST{URL}/webhooks/hubspot{body.decode()}{timestamp}"
    expected = base64.b64encode(hmac.digest(secret.encode(), source.encode("utf-8"), "sha256")).decode()
    one = asked(body, path="/webhooks/hubspot", **{HUBSPOT_SIGNATURE: expected, HUBSPOT_TIMESTAMP: timestamp})
    assert Hubspot([secret], 300.0, URL).check(one) == 0


def sendgrid_key() -> tuple[Any, str]:
    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key, base64.b64encode(public).decode()


def sendgrid_signed(key: Any, body: bytes, at: float = NOW) -> Asked:
    timestamp = str(int(at))
    signature = base64.b64encode(key.sign(timestamp.encode() + body, ECDSA(SHA256()))).decode()
    return asked(body, **{SENDGRID_SIGNATURE: signature, SENDGRID_TIMESTAMP: timestamp})


def test_sendgrids_signature_is_checked_with_its_time() -> None:
    (key, public), (_, other) = sendgrid_key(), sendgrid_key()
    check = Sendgrid([other, public], 300.0).check
    assert check(sendgrid_signed(key, b"[]\r\n")) == 1
    assert refused(check, sendgrid_signed(generate_private_key(SECP256R1()), b"[]")).reason == "unauthorized"
    assert refused(check, sendgrid_signed(key, b"[]", NOW - 400)).reason == "stale"
    altered = sendgrid_signed(key, b"[]")
    altered.body = b"[1]"
    assert refused(check, altered).status == 401
    for signature in ("", "no base64!", base64.b64encode(b"no DER").decode()):
        bad = asked(b"[]", **{SENDGRID_SIGNATURE: signature, SENDGRID_TIMESTAMP: str(int(NOW))})
        assert refused(check, bad).status == 401


@pytest.mark.parametrize(
    "key",
    ["no base64, although it is long", base64.b64encode(b"no key, although it is long").decode()],
    ids=["no-base64", "no-key"],
)
def test_a_verification_key_that_is_none_stops_the_start(key: str) -> None:
    with pytest.raises(ConfigError, match=r"sendgrid\.public_keys"):
        Routes(settings(sendgrid={"public_keys": [key]}))


# ── Segment ───────────────────────────────────────────────────────────────────────────────────────────────────────────

CALL = {
    "type": "track", "event": "Product Added", "anonymousId": "a1", "userId": "u1", "messageId": "m1",
    "timestamp": BEGAN, "sentAt": SENT, "writeKey": KEY,
    "context": {"ip": "203.0.113.7", "page": {"path": "/p/1"}, "campaign": {"medium": "email"}},
}  # fmt: skip


def test_a_segment_call_becomes_what_segment_would_hand_on() -> None:
    (message,) = segment.single(asked(CALL), "track")
    written = json.loads(message.value)
    assert written["originalTimestamp"] == BEGAN
    assert written["receivedAt"] == "2025-06-15T15:06:40.000+00:00"
    assert "writeKey" not in written and "ip" not in written["context"]
    (event,) = events([message], "segment")
    assert (event.id, event.type, event.person, event.also_person, event.page) == (
        "m1",
        "item_added",
        "a1",
        "u1",
        "/p/1",
    )
    assert event.time == NOW - 10.0, "ten seconds before it was sent, by our clock"
    assert event.device_time == NOW - 20.0
    assert message.person == "a1"


@pytest.mark.parametrize("call", list(segment.CALLS))
def test_the_type_of_a_single_call_follows_from_its_path(call: str) -> None:
    body = {"userId": "u1", "previousId": "a1", "timestamp": BEGAN, "event": "Product Viewed", "name": "Home"}
    (message,) = segment.single(asked(body), call)
    assert json.loads(message.value)["type"] == call
    assert len(events([message], "segment")) == 1


def test_calls_of_a_batch_take_what_it_shares_and_stay_in_order() -> None:
    calls = [{"type": "page", "anonymousId": "a1", "timestamp": BEGAN, "context": {"page": {"path": f"/{n}"}}}
             for n in range(3)]  # fmt: skip
    body = {"batch": calls, "sentAt": SENT, "context": {"campaign": {"medium": "paid"}, "ip": "203.0.113.7"}}
    messages = segment.batch(asked(body))
    found = events(messages, "segment")
    assert [one.page for one in found] == ["/0", "/1", "/2"]
    assert {one.segment["channel"] for one in found} == {"paid"}
    assert {one.time for one in found} == {NOW - 10.0}
    assert b"203.0.113.7" not in b"".join(one.value for one in messages)


def test_a_call_without_id_gets_one_that_a_repeat_gets_too() -> None:
    call = {name: value for name, value in CALL.items() if name != "messageId"}
    takes: list[Callable[[Any], list[Message]]] = [
        lambda one: segment.batch(asked({"batch": [one]})),
        lambda one: segment.single(asked(one), "track"),
    ]
    for take in takes:
        first, again, other = (take({**call, **change})[0] for change in (
            {"sentAt": SENT}, {"sentAt": BEGAN}, {"event": "Product Removed"}))  # fmt: skip
        ids = [json.loads(one.value)["messageId"] for one in (first, again, other)]
        assert ids[0] == ids[1] != ids[2]


def test_the_same_content_without_id_and_time_is_another_event_not_a_repeat() -> None:
    """As the vendors' documentation has it for curl: none of them takes the second for a repeat of the first."""
    call = {"userId": "u1", "event": "Clicked", "properties": {"n": 1}}
    capture = {"api_key": KEY, "event": "clicked", "distinct_id": "u1"}
    view = {"e": "pv", "aid": "shop", "duid": "u1", "url": "https://shop.example/"}
    for messages in (
        [segment.single(asked(call), "track")[0] for _ in range(2)],
        [posthog.captured(asked(capture), Keys([KEY]))[1][0] for _ in range(2)],
        [posted(view)[0] for _ in range(2)],
    ):
        first, second = events(messages)
        assert first.id != second.id


@pytest.mark.parametrize(
    ("device", "sent"),
    [("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"), ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
     ("0001-01-01T00:00:00+14:00", SENT), ("9999-12-31T23:59:59-14:00", BEGAN)],
)  # fmt: skip
def test_times_further_apart_than_the_calendar_is_long_are_left_to_ingest(device: str, sent: str) -> None:
    (message,) = segment.batch(asked({"batch": [{**CALL, "timestamp": device, "sentAt": sent}]}))
    written = json.loads(message.value)
    assert written["originalTimestamp"] == device
    (found,) = decode(message.value, "segment", FormatOptions.from_settings(Settings(), NOW))
    assert not isinstance(found, Event) and found.reason == "time_out_of_range"


def test_rudderstacks_beacon_has_its_key_in_the_query() -> None:
    one = asked({"batch": [CALL | {"writeKey": None}], "sentAt": SENT}, query=f"writeKey={KEY}")
    assert segment.key_of(one, Keys([KEY])) == 0
    assert route(segment.BEACON).browser and refused(segment.key_of, asked({"batch": []}), Keys([KEY])).status == 401


@pytest.mark.parametrize("device", ["abc", 12, "2025-13-45", "9" * 5000, None])
def test_a_device_time_that_cannot_be_read_is_left_to_ingest(device: object) -> None:
    (message,) = segment.single(asked({**CALL, "timestamp": device}), "track")
    written = json.loads(message.value)
    assert written["timestamp"] == ("2025-06-15T15:06:40.000+00:00" if device is None else device)


@pytest.mark.parametrize(
    ("body", "reason"),
    [([], "not_an_object"), ({"batch": 1}, "not_an_array"), ({"batch": []}, "empty_batch"), ({}, "not_an_array"),
     ({"batch": [1]}, "not_an_object"), ({"batch": [{"batch": []}]}, "nested_batch")],
    ids=["array", "number", "empty", "none", "item", "nested"],
)  # fmt: skip
def test_a_batch_of_another_shape_is_refused_whole(body: object, reason: str) -> None:
    error = refused(segment.batch, asked(body))
    assert (error.status, error.reason) == (400, reason)


def test_analytics_js_is_told_to_send_here() -> None:
    told = json.loads(segment.settings_of(asked(b"", Host="127.0.0.1:6067"), KEY, None))
    assert told["integrations"]["Segment.io"]["apiHost"] == "127.0.0.1:6067/v1"
    told = json.loads(segment.settings_of(asked(b""), KEY, URL))
    assert told["integrations"]["Segment.io"]["apiHost"] == "collect.example.com/v1"


# ── PostHog ───────────────────────────────────────────────────────────────────────────────────────────────────────────

PAGEVIEW: dict[str, Any] = {
    "event": "$pageview", "distinct_id": "d1", "timestamp": BEGAN, "uuid": "0190-1",
    "properties": {"$device_id": "dev1", "$pathname": "/pricing", "$session_id": "s1", "token": KEY,
                   "$ip": "203.0.113.7"},
}  # fmt: skip


def posthog_bodies() -> dict[str, tuple[bytes, str]]:
    """The same event in every wrapping: body and query."""
    plain = json.dumps({**PAGEVIEW, "api_key": KEY, "sent_at": SENT}).encode()
    packed = base64.b64encode(plain)
    form = b"data=" + packed.replace(b"+", b"%2B").replace(b"=", b"%3D")
    array = json.dumps([{**PAGEVIEW, "sent_at": SENT}]).encode()
    batch = json.dumps({"api_key": KEY, "sent_at": SENT, "batch": [PAGEVIEW]}).encode()
    return {
        "plain": (plain, ""), "gzip": (gzip.compress(plain), "compression=gzip-js"),
        "base64": (packed, "compression=base64"), "form": (form, "compression=base64"),
        "beacon": (form + b"&compression=base64", "beacon=1"),
        "gzip-in-base64": (base64.b64encode(gzip.compress(plain)), ""),
        "array": (array, ""), "batch": (batch, ""),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(posthog_bodies()))
def test_posthog_is_read_in_every_wrapping(name: str) -> None:
    body, query = posthog_bodies()[name]
    number, messages = posthog.captured(asked(body, query=query), Keys([OTHER_KEY, KEY]))
    (event,) = events(messages, "posthog")
    assert number == 1
    assert (event.id, event.type, event.person, event.also_person) == ("0190-1", "page_viewed", "dev1", "d1")
    assert (event.page, event.session, event.time) == ("/pricing", "s1", NOW - 10.0)
    assert KEY.encode() not in messages[0].value and b"203.0.113.7" not in messages[0].value
    assert messages[0].person == "dev1"


def test_version_1_of_posthog_s_protocol_is_the_same_events() -> None:
    item = {
        "event": "$pageview", "uuid": "0190-1", "distinct_id": "d1", "timestamp": BEGAN, "session_id": "s1",
        "window_id": "w1", "options": {"process_person_profile": False},
        "properties": {"$device_id": "dev1", "$pathname": "/pricing"},
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {KEY}", "PostHog-Request-Timestamp": SENT}
    number, messages, answer = posthog.captured_v1(asked({"created_at": SENT, "batch": [item]}, **headers), Keys([KEY]))
    (event,) = events(messages, "posthog")
    assert (number, json.loads(answer)) == (0, {"results": {"0190-1": {"result": "ok"}}})
    assert (event.id, event.type, event.person, event.also_person) == ("0190-1", "page_viewed", "dev1", "d1")
    assert (event.page, event.session, event.time) == ("/pricing", "s1", NOW - 10.0)
    uncorrected = {**item, "options": {"disable_skew_correction": True}, "properties": None}
    _, messages, _ = posthog.captured_v1(asked({"batch": [uncorrected]}, **headers), Keys([KEY]))
    assert events(messages, "posthog")[0].time == NOW - 20.0
    assert refused(posthog.captured_v1, asked({"batch": [item]}), Keys([KEY])).status == 401


def test_posthog_s_sending_time_may_stand_in_the_query() -> None:
    body = json.dumps({**PAGEVIEW, "api_key": KEY}).encode()
    _, messages = posthog.captured(asked(body, query="ip=1&_=1749999990000&ver=1.2"), Keys([KEY]))
    assert events(messages, "posthog")[0].time == NOW - 10.0


def test_posthog_without_a_key_that_we_know_is_refused() -> None:
    stranger: dict[str, Any] = {**PAGEVIEW, "api_key": OTHER_KEY}
    bodies: list[object] = [{**PAGEVIEW, "properties": {}}, stranger, {"batch": [], "api_key": 1}, [], 1]
    for body in bodies:
        assert refused(posthog.captured, asked(body), Keys([KEY])).status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [({"api_key": KEY}, 400), ({"api_key": KEY, "batch": {}}, 400), ({"api_key": KEY, "batch": [3]}, 400)],
    ids=["no-event", "no-array", "no-object"],
)
def test_posthog_of_another_shape_is_refused(body: object, status: int) -> None:
    assert refused(posthog.captured, asked(body), Keys([KEY])).status == status


def test_a_posthog_bomb_is_refused_at_the_limit() -> None:
    bomb = base64.b64encode(gzip.compress(bytes(20_000_000)))
    assert refused(posthog.captured, asked(bomb), Keys([KEY])).status == 413


# ── Snowplow ──────────────────────────────────────────────────────────────────────────────────────────────────────────

VIEW = {
    "e": "pv", "aid": "shop", "p": "web", "tv": "js-3.24.0", "eid": "5c1f2f4e-0000-4000-8000-000000000001",
    "dtm": "1749999980000", "stm": "1749999990000", "duid": "du1", "uid": "u1", "sid": "s1", "vid": "3",
    "url": "https://shop.example/p/1?utm_medium=email&utm_campaign=june", "refr": "https://search.example/",
    "vp": "800x600", "ds": "800x3000", "ip": "203.0.113.7", "ua": "Mozilla/5.0 (X11; Linux x86_64)",
}  # fmt: skip


def described(name: str, data: object) -> dict[str, object]:
    outer = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
    return {
        "schema": outer,
        "data": {"schema": f"iglu:com.snowplowanalytics.snowplow/{name}/jsonschema/1-0-1", "data": data},
    }


def posted(*items: dict[str, Any]) -> list[Message]:
    body = {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": list(items)}
    return snowplow.posted(asked(body), Keys(["shop"]))[1]


def test_a_snowplow_view_becomes_the_enriched_event_that_ingest_reads() -> None:
    messages = posted(VIEW)
    (event,) = events(messages, "snowplow")
    assert (event.type, event.person, event.also_person, event.session) == ("page_viewed", "du1", "u1", "s1")
    assert (event.page, event.time, event.device_time) == ("/p/1", NOW - 10.0, NOW - 20.0)
    assert event.segment["channel"] == "email" and event.segment["campaign"] == "june"
    assert b"203.0.113.7" not in messages[0].value
    assert messages[0].person == "du1"


def test_a_snowplow_pixel_is_the_same_event() -> None:
    query = "&".join(f"{name}={value.replace('&', '%26')}" for name, value in VIEW.items())
    _, messages = snowplow.pixel(asked(b"", query=query, method="GET"), Keys(["shop"]))
    assert messages == posted(VIEW)


def test_a_snowplow_ping_tells_how_far_was_scrolled() -> None:
    (event,) = events(posted({**VIEW, "e": "pp", "pp_miy": "0", "pp_may": "1500"}), "snowplow")
    assert event.type == "page_pinged" and 0.0 < float(event.properties["scroll_ratio"]) <= 1.0


@pytest.mark.parametrize("field", ["ue_pr", "ue_px"])
def test_a_self_describing_event_is_read_plain_and_in_base64(field: str) -> None:
    text = json.dumps(described("link_click", {"targetUrl": "https://shop.example/", "elementId": "buy"}))
    value = text if field == "ue_pr" else base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    (event,) = events(posted({**VIEW, "e": "ue", field: value}), "snowplow")
    assert event.type == "clicked"


def test_what_a_form_field_held_is_left_out() -> None:
    change = described("change_form", {"formId": "f", "elementId": "mail", "value": "anna@example.com"})
    elements = [{"name": "mail", "value": "anna@example.com"}]
    submit = described("submit_form", {"formId": "f", "elements": elements})
    messages = posted(*({**VIEW, "e": "ue", "ue_pr": json.dumps(one)} for one in (change, submit)))
    assert [event.type for event in events(messages, "snowplow")] == ["field_changed", "form_submitted"]
    assert not any(b"anna" in one.value for one in messages)


@pytest.mark.parametrize(
    ("item", "status", "reason"),
    [({"aid": "other"}, 401, "unauthorized"), ({"aid": None}, 401, "unauthorized"), ({"e": "xx"}, 400, "unknown_type"),
     ({"e": "ue", "ue_pr": "{"}, 400, "not_json"), ({"e": "ue", "ue_px": "%%"}, 400, "not_json"),
     ({"e": "ue", "ue_pr": "{}"}, 400, "bad_field"), ({"co": "[]"}, 400, "bad_field"),
     ({"e": "ue", "ue_pr": "[" * 100 + "]" * 100}, 400, "too_deep")],
    ids=["stranger", "nobody", "type", "json", "base64", "schema", "contexts", "deep"],
)  # fmt: skip
def test_snowplow_that_is_wrong_is_refused(item: dict[str, Any], status: int, reason: str) -> None:
    error = refused(lambda: posted(VIEW, {**VIEW, **item}))
    assert (error.status, error.reason) == (status, reason)


# ── webhooks and own events ───────────────────────────────────────────────────────────────────────────────────────────


def test_hubspot_notifications_go_one_by_one_and_stay_as_they_are() -> None:
    items = [{"eventId": n, "subscriptionType": "contact.creation", "portalId": 1,
              "objectId": 9_007_199_254_740_993 + n, "occurredAt": int(NOW * 1000) - n} for n in range(3)]  # fmt: skip
    messages = webhooks.hubspot(asked(items))
    assert [json.loads(one.value) for one in messages] == items
    assert [one.type for one in events(messages, "hubspot")] == ["lead_created"] * 3
    assert messages[1].person == "9007199254740994"


def test_sendgrid_events_go_one_by_one_without_their_addresses() -> None:
    items = [{"email": "anna@example.com", "event": "open", "sg_event_id": f"e{n}", "sg_message_id": "m",
              "timestamp": int(NOW) - n, "ip": "203.0.113.7"} for n in range(2)]  # fmt: skip
    messages = webhooks.sendgrid(asked(items))
    assert [one.type for one in events(messages, "sendgrid")] == ["email_opened"] * 2
    assert not any(b"203.0.113.7" in one.value for one in messages)


NATIVE = {"id": "1", "type": "page_viewed", "time": NOW - 5, "person": "anna"}


@pytest.mark.parametrize(
    ("body", "kind", "count"),
    [(json.dumps(NATIVE), "application/json", 1), (json.dumps([NATIVE, NATIVE]), "application/json", 2),
     (f"{json.dumps(NATIVE)}\n\n{json.dumps(NATIVE)}\r\n", "application/x-ndjson; charset=utf-8", 2)],
    ids=["object", "array", "lines"],
)  # fmt: skip
def test_own_events_come_as_object_array_or_lines(body: str, kind: str, count: int) -> None:
    messages = webhooks.events(asked(body.encode(), Content_Type=kind))
    assert [one.type for one in events(messages)] == ["page_viewed"] * count
    assert {one.person for one in messages} == {"anna"}


def test_a_number_that_no_machine_type_holds_survives() -> None:
    (message,) = webhooks.events(asked(b'{"id": "1", "big": 1' + b"0" * 30 + b"}"))
    assert json.loads(message.value)["big"] == 10**30


def many(kind: str) -> Asked:
    item = b'{"e":"pv","aid":"shop"}'
    if kind == "lines":
        return asked((item + b"\n") * 6_000, Content_Type="application/x-ndjson")
    items = b"[" + b",".join([item] * 6_000) + b"]"
    return asked({"events": items, "batch": b'{"batch":' + items + b"}", "data": b'{"data":' + items + b"}"}[kind])


@pytest.mark.parametrize(
    ("kind", "take"),
    [("lines", webhooks.events), ("events", webhooks.events), ("events", webhooks.sendgrid),
     ("events", webhooks.hubspot), ("batch", segment.batch), ("data", lambda one: snowplow.posted(one, Keys(["shop"]))),
     ("batch", lambda one: posthog._items(one, one.value))],
    ids=["lines", "events", "sendgrid", "hubspot", "segment", "snowplow", "posthog"],
)  # fmt: skip
def test_a_batch_that_is_too_long_is_refused_before_anything_is_made_of_it(kind: str, take: Any) -> None:
    error = refused(take, many(kind))
    assert (error.status, error.reason) == (413, "too_many_items")


def test_just_as_many_lines_as_allowed_are_taken() -> None:
    for body in (b'{"a": 1}\n' * 5_000, b"\n".join([b'{"a": 1}'] * 5_000)):
        assert len(webhooks.events(asked(body, Content_Type="application/x-ndjson"))) == 5_000


# ── routes and settings ───────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_is_configured_is_there() -> None:
    routes = Routes(settings(segment={"write_keys": [KEY]}))
    assert routes.find("/v1/track") is not None and routes.find("/v1/batch/") is not None
    for path in (
        "/batch",
        "/e/",
        snowplow.POST,
        "/i",
        webhooks.HUBSPOT,
        webhooks.SENDGRID,
        webhooks.EVENTS,
        "/",
        "/v1",
    ):
        assert routes.find(path) is None, path
    assert {route.source for route in Routes(every_source()).all} == {
        "segment", "posthog", "snowplow", "hubspot", "sendgrid", "events"}  # fmt: skip


def test_without_any_source_it_does_not_start() -> None:
    with pytest.raises(ConfigError, match=r"no source is on.*collect\.segment\.write_keys"):
        Routes(Settings())


@pytest.mark.parametrize(
    ("collect", "said"),
    [({"segment": {"write_keys": ["short"]}}, "segment.write_keys: each must have 16"),
     ({"events": {"tokens": ["a token with a line break\n"]}}, "events.tokens.*line break"),
     ({"host": "0.0.0.0"}, "no source has a secret"),
     ({"host": "collect.internal", "snowplow": {"app_ids": ["shop"]}}, "snowplow.public"),
     ({"max_body_bytes": 0}, "max_body_bytes"), ({"segmnt": {}}, "segmnt")],
    ids=["short", "blank", "open", "snowplow", "range", "typo"],
)  # fmt: skip
def test_settings_that_would_be_unsafe_or_wrong_name_the_knob(collect: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        settings(**collect)
    assert "a token with" not in str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    ("collect", "said"),
    [({"hubspot": {"client_secrets": [KEY]}}, "collect.public_url"),
     ({"public_url": "collect.example.com"}, "collect.public_url"),
     ({"cors_origins": ["www.example.com"]}, "collect.cors_origins"),
     ({"segment": {"write_keys": [KEY], "topic": "nobody-reads-it"}}, "collect.segment.topic: nobody-reads-it is none"),
     ({"events": {"tokens": [KEY], "format": "smoke-signals"}}, "collect.events.format")],
    ids=["hubspot", "url", "origin", "topic", "format"],
)  # fmt: skip
def test_a_source_that_could_not_work_stops_the_start(collect: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Routes(settings(**collect))


def test_events_go_to_the_topic_that_reads_them() -> None:
    raw = [{"name": "web"}, {"name": "hs", "format": "hubspot"}, {"name": "crm"}]
    given = every_source().collect.model_dump() | {"events": {"tokens": [KEY], "topic": "web", "format": "native"}}
    made = Settings(topics={"raw": raw}, collect=CollectSettings.model_validate(given))
    topics = {route.source: (route.topic, route.headers) for route in Routes(made).all}
    assert topics["segment"] == ("web", [("trustwatch-format", b"segment")])
    assert topics["hubspot"] == ("hs", [("trustwatch-format", b"hubspot")])
    assert topics["sendgrid"] == ("crm", [("trustwatch-format", b"sendgrid")])
    assert topics["events"] == ("web", [("trustwatch-format", b"native")])


def test_a_topic_that_is_read_as_something_else_is_refused() -> None:
    given = CollectSettings.model_validate({"segment": {"write_keys": [KEY], "topic": "hs"}})
    with pytest.raises(ConfigError, match=r"collect\.segment\.topic: hs is read as hubspot"):
        Routes(Settings(topics={"raw": [{"name": "hs", "format": "hubspot"}]}, collect=given))


def route(path: str) -> Route:
    found = Routes(every_source()).find(path)
    assert found is not None
    return found


def test_pages_of_configured_origins_may_send_and_no_others() -> None:
    cors, track = Cors(["https://www.example.com"]), route("/v1/t")
    assert cors.headers(track, "https://www.example.com")["Access-Control-Allow-Origin"] == "https://www.example.com"
    assert cors.headers(track, None) == {}
    for origin in ("https://evil.example", "null", "http://www.example.com", "https://www.example.com.evil.example"):
        assert refused(cors.headers, track, origin).status == 403
    assert cors.headers(route(webhooks.EVENTS), "https://evil.example") == {}, "no browser sends there: nothing is said"


def test_credentials_are_only_for_named_origins_and_for_snowplow() -> None:
    everyone, named = Cors(["*"]), Cors(["https://a.example"])
    assert everyone.headers(route(snowplow.POST), "https://a.example") == {
        "Access-Control-Allow-Origin": "*", "Vary": "Origin"}  # fmt: skip
    assert named.headers(route(snowplow.POST), "https://a.example")["Access-Control-Allow-Credentials"] == "true"
    assert "Access-Control-Allow-Credentials" not in named.headers(route("/v1/t"), "https://a.example")


def test_a_preflight_tells_methods_and_headers() -> None:
    told = Cors(["https://a.example"]).preflight(route("/v1/t"), "https://a.example")
    assert told["Access-Control-Allow-Methods"] == "POST" and "content-type" in told["Access-Control-Allow-Headers"]
    wanted = "AnonymousId, content-type, x-retry-count, bad name, x\r\ny: 1" + ", a" * 10_000
    told = Cors(["https://a.example"]).preflight(route("/v1/t"), "https://a.example", wanted)
    names = told["Access-Control-Allow-Headers"].split(", ")
    assert {"anonymousid", "x-retry-count", "authorization"} <= set(names), "RudderStack's and Segment's ask for them"
    assert len(names) == len(set(names)) < 40 and all(name.replace("-", "").isalnum() for name in names)
    assert refused(Cors(["*"]).preflight, route(webhooks.HUBSPOT), "https://a.example").status == 405


def test_a_body_of_another_type_is_refused() -> None:
    require_media(route("/v1/t"), "text/plain;charset=UTF-8")
    require_media(route("/v1/t"), "")
    assert refused(require_media, route("/v1/t"), "application/xml").status == 415


# ── the document ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_committed_document_is_up_to_date(tmp_path: Path) -> None:
    assert main(["--check"]) == 0
    stale = tmp_path / "collect.openapi.json"
    stale.write_text("{}")
    assert main(["--check"], stale) == 1
    assert main([], stale) == 0 == main(["--check"], stale)


def test_the_document_names_every_route_and_no_secret() -> None:
    made = every_source()
    routes = Routes(made).all
    text = msgspec.json.encode(document(routes, made.collect)).decode()
    assert all(f'"{one.path}"' in text for one in routes)
    assert not any(secret in text for secrets in made.collect.secrets().values() for secret in secrets)
