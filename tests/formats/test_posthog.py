"""PostHog captures, in every wrapping that its clients have used."""

from __future__ import annotations

import gzip
import random
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import msgspec
import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats._common import NOBODY
from streams.formats.posthog import MAX_DWELL_S
from tests.formats.kit import NOW_S, OPTIONS, event, outcomes, reason
from tests.formats.payloads import CHAIN, T0_S, iso, posthog, posthog_batch

VIEW: dict[str, Any] = {
    "uuid": "018daf23-89b3-7cf8-a4f1-94064c96df90", "event": "$pageview", "timestamp": iso(T0_S),
    "properties": {
        "token": "phc_made_up", "distinct_id": "user-7", "$device_id": "device-7", "$session_id": "session-7",
        "$pathname": "/cart", "$current_url": "https://shop.example/cart?a=b", "$device_type": "Desktop",
        "utm_medium": "paid", "$geoip_country_code": "DE",
    },
}  # fmt: skip


def view(top: dict[str, Any] | None = None, /, **properties: Any) -> dict[str, Any]:
    given = {name: value for name, value in (VIEW["properties"] | properties).items() if value is not ...}
    return {name: value for name, value in (VIEW | {"properties": given} | (top or {})).items() if value is not ...}


@pytest.mark.parametrize("named", ["posthog", None])
def test_a_page_view(named: str | None) -> None:
    assert event(VIEW, named) == Event(
        id="018daf23-89b3-7cf8-a4f1-94064c96df90", type="page_viewed", time=T0_S, person="device-7", device_time=T0_S,
        also_person="user-7", session="session-7", page="/cart",
        segment={"channel": "paid", "device": "desktop", "country": "DE"},
    )  # fmt: skip


def test_the_page_may_be_only_a_url_or_a_screen() -> None:
    assert event(view(**{"$pathname": ...})).page == "/cart"
    screen = view({"event": "$screen"}, **{"$pathname": ..., "$current_url": ..., "$screen_name": "Cart"})
    assert event(screen).page == "Cart"


# ── Wrappings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

RAW = msgspec.json.encode(VIEW)
BATCH = msgspec.json.encode(posthog_batch(random.Random(1), 0, 5))
WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "json": lambda raw: raw,
    "gzip": gzip.compress,
    "base64": b64encode,
    "base64 without padding": lambda raw: b64encode(raw).rstrip(b"="),
    "url-safe base64": urlsafe_b64encode,
    "base64 of gzip": lambda raw: b64encode(gzip.compress(raw)),
    "form of base64": lambda raw: b"data=" + quote_plus(b64encode(raw)).encode() + b"&compression=base64",
    "form of unescaped base64": lambda raw: b"data=" + b64encode(raw).replace(b"=", b"%3D"),
    "form of json": lambda raw: b"data=" + quote_plus(raw).encode() + b"&ver=1.12.3",
    "form of gzip": lambda raw: b"compression=gzip-js&data=" + quote_plus(b64encode(gzip.compress(raw))).encode(),
    "gzip of a form": lambda raw: gzip.compress(b"data=" + quote_plus(b64encode(raw)).encode()),
}


@pytest.mark.parametrize("named", ["posthog", None], ids=["named", "by-shape"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_holds_the_same(wrapping: str, named: str | None) -> None:
    wrap = WRAPPINGS[wrapping]
    assert outcomes(wrap(RAW), named) == [event(VIEW)]
    assert outcomes(wrap(BATCH), named) == outcomes(BATCH)
    as_array = msgspec.json.encode([VIEW, VIEW])
    assert outcomes(wrap(as_array), named) == [event(VIEW)] * 2


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (gzip.compress(RAW)[:-10], "not_json"), (gzip.compress(RAW)[:20], "not_json"),
        (b"\x1f\x8bnot really", "not_json"), (b"eyJ!!!!", "not_json"), (b"data=%%%&compression=base64", "not_json"),
        (b"data=N4IgbiBcCMA&compression=lz64", "not_json"), (b"data=", "not_json"),
        (gzip.compress(RAW) + gzip.compress(RAW), "not_json"),
        (b64encode(b64encode(b64encode(b64encode(b64encode(RAW))))), "not_json"),
        (gzip.compress(b"[" * 100_000), "too_deep"),
        (gzip.compress(b'{"event":"x","n":' + b"1" * 2_000_000), "too_large"),
    ],
    ids=["cut", "cut early", "no gzip", "no base64", "no form", "lz64", "empty form", "two in one", "too often",
         "deep", "large"],
)  # fmt: skip
def test_bodies_that_cannot_be_unpacked_are_refused(raw: bytes, why: str) -> None:
    assert reason(raw) == why


def test_a_gzip_bomb_is_refused_before_it_is_made() -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000)
    (found,) = outcomes(bomb)
    assert isinstance(found, Rejection) and found.reason == "too_large" and "max_event_bytes" in found.detail


def test_a_batch_shares_its_key_and_time() -> None:
    sent = {"api_key": "k", "sent_at": iso(T0_S + 100), "now": iso(T0_S + 160)}
    items = [view({"timestamp": iso(T0_S)}), view({"timestamp": iso(T0_S + 10)}), "none", {"batch": []}]
    first, second, third, fourth = outcomes(sent | {"batch": items})
    assert isinstance(first, Event) and isinstance(second, Event)
    assert (first.time, second.time) == (T0_S + 60, T0_S + 70)
    assert isinstance(third, Rejection) and third.reason == "not_an_object" and third.detail.startswith("item 2: ")
    assert isinstance(fourth, Rejection) and fourth.reason == "nested_batch"


def test_the_message_that_posthog_itself_writes_to_kafka() -> None:
    data = msgspec.json.encode(view({"uuid": ...})).decode()
    message = {"uuid": "outer", "distinct_id": "user-7", "ip": "203.0.113.7", "site_url": "", "data": data,
               "now": iso(T0_S + 60), "sent_at": iso(T0_S + 2), "token": "phc"}  # fmt: skip
    found = event(message)
    assert (found.id, found.person, found.time, found.device_time) == ("outer", "device-7", T0_S + 58, T0_S)


def test_a_row_of_an_export_has_its_properties_as_text() -> None:
    exported = VIEW | {"properties": msgspec.json.encode(VIEW["properties"]).decode(), "distinct_id": "user-7",
                       "timestamp": "2023-07-22 04:26:40.000000"}  # fmt: skip
    assert event(exported) == event(VIEW)


def test_a_batch_without_events() -> None:
    assert reason({"api_key": "k", "batch": []}) == "empty_batch"
    assert reason({"api_key": "k", "batch": {}}, "posthog") == "bad_field"


# ── What happened ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "given", "kind", "properties"),
    [
        ("$pageleave", {"$prev_pageview_duration": 31.4, "$prev_pageview_max_scroll_percentage": 0.34}, "page_left",
         {"dwell_s": 31.4, "scroll_ratio": 0.34}),
        ("$pageleave", {}, "page_left", {}),
        ("$autocapture", {"$event_type": "click", "$elements_chain": CHAIN}, "clicked", {"element": "to-cart"}),
        ("$autocapture", {"$event_type": "touch", "$elements_chain": "a.link:nth-child=\"1\""}, "clicked",
         {"element": "a.link"}),
        ("$autocapture", {"$event_type": "submit", "$elements_chain": 'form:attr__name="signup"nth-child="1"'},
         "form_submitted", {"form": "signup"}),
        ("$autocapture", {"$event_type": "change", "$elements_chain":
                          'input:attr__name="mail"nth-child="1"text="x";form:attr__id="signup"nth-child="1"'},
         "field_changed", {"form": "signup", "field": "mail"}),
        ("$autocapture", {"$event_type": "click", "$elements": [{"tag_name": "a", "attr__id": "buy"}]}, "clicked",
         {"element": "buy"}),
        ("$autocapture", {"$event_type": "click", "$elements": [{"tag_name": "a", "classes": ["b", "a"], "x": 1}]},
         "clicked", {"element": "a.a.b"}),
        ("$autocapture", {"$event_type": "click", "$elements": [{"tag_name": "a", "attr__class": "b  a"}]}, "clicked",
         {"element": "a.a.b"}),
        ("$autocapture", {"$event_type": "copy"}, OTHER, {}),
        ("$rageclick", {"$elements_chain": CHAIN}, "clicked", {"element": "to-cart"}),
        ("$dead_click", {"$elements_chain": CHAIN}, "clicked", {"element": "to-cart", "dead": True}),
        ("$exception", {"$exception_message": "boom"}, "error_shown", {}),
        ("$web_vitals", {}, OTHER, {}), ("$groupidentify", {}, OTHER, {}), ("$set", {}, OTHER, {}),
        ("order completed", {"revenue": 99.5}, "purchased", {"value": 99.5}),
        ("moon landed", {}, OTHER, {}),
    ],
)  # fmt: skip
def test_what_becomes_of_events(name: str, given: dict[str, Any], kind: str, properties: dict[str, Any]) -> None:
    found = event(view({"event": name}, **given))
    assert (found.type, found.properties) == (kind, properties)


def test_trap_durations_of_94_hours_are_clipped() -> None:
    long: dict[str, Any] = {"$prev_pageview_duration": 94 * 3600.0, "$prev_pageview_max_scroll_percentage": 7}
    assert event(view({"event": "$pageleave"}, **long)).properties == {"dwell_s": MAX_DWELL_S, "scroll_ratio": 1.0}
    odd = view({"event": "$pageleave"}, **{"$prev_pageview_duration": -3, "$prev_pageview_max_scroll_percentage": "x"})
    assert event(odd).properties == {}


def test_a_view_that_tells_of_the_one_before_is_still_one_view() -> None:
    told: dict[str, Any] = {"$prev_pageview_pathname": "/a", "$prev_pageview_duration": 12.1,
                            "$prev_pageview_max_scroll_percentage": 0.5}  # fmt: skip
    assert event(view(**told)) == event(VIEW)


def test_text_and_values_of_elements_stay_out() -> None:
    chain = 'input:attr__type="text"attr__value="MARK"nth-child="1"text="MARK";form:attr__id="f"text="MARK"'
    for kind in ("click", "change", "submit"):
        given: dict[str, Any] = {"$event_type": kind, "$elements_chain": chain, "$el_text": "MARK", "$ip": "MARK"}
        assert "MARK" not in repr(event(view({"event": "$autocapture"}, **given)))


# ── Who ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("top", "given", "person", "also_person"),
    [
        ({}, {}, "device-7", "user-7"),
        ({}, {"distinct_id": "device-7"}, "device-7", None),
        ({}, {"$device_id": ...}, "user-7", None),
        ({"distinct_id": "top"}, {"$device_id": ...}, "top", None),
        ({"distinct_id": 42}, {"$device_id": ...}, "42", None),
        ({"event": "$identify"}, {"$anon_distinct_id": "anon-7", "$device_id": ...}, "anon-7", "user-7"),
        ({"event": "$identify"}, {"$anon_distinct_id": "device-7"}, "device-7", "user-7"),
        ({"event": "$create_alias"}, {"alias": "crm-7", "$device_id": ...}, "user-7", "crm-7"),
        ({}, {"distinct_id": "undefined"}, "device-7", None),
    ],
    ids=["both", "anonymous", "server", "top level", "number", "identify", "known device", "alias", "undefined"],
)  # fmt: skip
def test_who_it_was(top: dict[str, Any], given: dict[str, Any], person: str, also_person: str | None) -> None:
    found = event(view(top, **given))
    assert (found.person, found.also_person) == (person, also_person)


@pytest.mark.parametrize("nobody", sorted(NOBODY))
def test_an_id_that_everybody_has_is_nobodys(nobody: str) -> None:
    assert reason(view(**{"distinct_id": nobody, "$device_id": ...})) == "missing_field"


# ── When ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("top", "given", "time_s"),
    [
        ({}, {}, T0_S),
        ({"sent_at": iso(T0_S + 5)}, {}, T0_S),
        ({"sent_at": iso(T0_S + 5), "now": iso(T0_S + 65)}, {}, T0_S + 60),
        ({"sent_at": iso(T0_S + 5), "now": iso(T0_S + 65)}, {"$ignore_sent_at": True}, T0_S),
        ({"sent_at": "abc", "now": iso(T0_S + 65)}, {}, T0_S),
        ({"timestamp": iso(T0_S + 90_000), "now": iso(T0_S)}, {}, T0_S),
        ({"timestamp": ..., "offset": 2500, "now": iso(T0_S)}, {}, T0_S - 2.5),
        ({"timestamp": ..., "sent_at": iso(T0_S)}, {}, T0_S),
        ({"timestamp": ...}, {"$time": T0_S + 1.5}, T0_S + 1.5),
        ({"timestamp": ..., "offset": 3026, "now": iso(T0_S + 5), "sent_at": iso(T0_S + 105)},
         {"$time": T0_S + 102.5}, T0_S + 1.974),
        ({"timestamp": ..., "offset": 3026}, {"$time": T0_S + 1.5}, T0_S + 1.5),
    ],
    ids=["as it is", "sent alone", "skewed clock", "ignored", "unreadable", "future", "offset", "only sent", "$time",
         "offset and $time", "offset from nothing"],
)  # fmt: skip
def test_time_is_corrected_as_posthog_does(top: dict[str, Any], given: dict[str, Any], time_s: float) -> None:
    assert event(view(top, **given)).time == time_s


def test_without_any_time_it_is_when_it_was_written_to_kafka() -> None:
    undated = view({"timestamp": ...})
    assert reason(undated) == "missing_field"
    assert event(undated, None, OPTIONS.at(NOW_S)).time == NOW_S


@pytest.mark.parametrize("bad", ["abc", "2023-07-22", True, [], "2023-99-01T00:00:00Z"])
def test_trap_timestamps_like_abc_are_refused(bad: Any) -> None:
    assert reason(view({"timestamp": bad})) == "bad_time"


# ── Which ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_without_an_id_get_one_of_their_content() -> None:
    first, second = view({"uuid": ...}), view({"uuid": ...}, **{"$pathname": "/other"})
    assert event(view({"uuid": ...}, **{"$insert_id": "i"})).id == "i"
    assert event(first).id == event(first).id != event(second).id
    assert event(first).id != event(first | {"timestamp": iso(T0_S + 1)}).id


def test_segment_calls_are_not_mistaken_for_captures() -> None:
    call = {"type": "track", "event": "Order Completed", "messageId": "m", "anonymousId": "a", "timestamp": iso(T0_S),
            "properties": {"distinct_id": "x", "token": "t"}}  # fmt: skip
    assert event(call).person == "a"
    (found,) = outcomes({"batch": [call], "sentAt": iso(T0_S)})
    assert isinstance(found, Event) and found.person == "a"


@pytest.mark.parametrize("seed", range(20))
def test_what_posthog_js_sends_is_accepted(seed: int) -> None:
    made = posthog(random.Random(seed), seed)
    assert event(made) == event(made, "posthog")


def test_bytes_that_are_no_text_are_refused() -> None:
    assert reason(RAW.replace(b"/cart", b"/\xff")) == "not_json"
