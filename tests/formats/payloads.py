"""Payloads as clients send them, made up after the public specifications: for benches, fuzzing and tests.

All are about made-up people; sizes and number of fields are those of real clients' messages.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from streams.formats.snowplow_columns import COLUMNS

T0_S: Final = 1_690_000_000.0
AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
PAGES: Final = ("/", "/category/shoes", "/products/4711", "/compare", "/cart", "/checkout/address", "/account")
CHANNELS: Final = ("paid", "organic", "email", "referral")
COUNTRIES: Final = ("DE", "AT", "CH", "US")


def iso(time_s: float) -> str:
    """ISO 8601 in UTC with milliseconds, as browsers write it."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def native(rng: random.Random, n: int) -> dict[str, Any]:
    """A native event."""
    made: dict[str, Any] = {
        "id": f"n-{n}", "type": rng.choice(["page_viewed", "clicked", "item_added", "purchased"]),
        "time": iso(T0_S + n), "device_time": iso(T0_S + n - 2), "person": f"visitor-{n % 5000}",
        "session": f"s-{n % 5000}", "page": rng.choice(PAGES),
        "segment": {"channel": rng.choice(CHANNELS), "device": "desktop", "country": rng.choice(COUNTRIES)},
        "properties": {},
    }  # fmt: skip
    if made["type"] == "clicked":
        made["properties"] = {"element": "buy-now", "x": 511.0, "y": 77.5}
    if made["type"] == "purchased":
        made["properties"] = {"value": 99.5}
    return made


def segment(rng: random.Random, n: int) -> dict[str, Any]:
    """A call of Segment's analytics.js."""
    path, when = rng.choice(PAGES), iso(T0_S + n)
    made: dict[str, Any] = {
        "timestamp": when, "integrations": {"Segment.io": {"unbundled": [], "bundledIds": []}}, "type": "page",
        "anonymousId": f"a-{n % 5000:024x}", "userId": f"user-{n % 5000}" if n % 3 else None, "channel": "client",
        "context": {
            "page": {"path": path, "referrer": "", "search": "?utm_source=ads", "title": "A shop",
                     "url": f"https://shop.example{path}?utm_source=ads"},
            "userAgent": AGENT, "locale": "de-DE", "library": {"name": "analytics.js", "version": "next-1.70.0"},
            "campaign": {"medium": rng.choice(CHANNELS), "name": "spring", "source": "ads"}, "timezone": "CET",
        },
        "properties": {"path": path, "title": "A shop", "url": f"https://shop.example{path}"},
        "messageId": f"ajs-next-{n:032x}", "originalTimestamp": when, "sentAt": iso(T0_S + n + 1),
        "receivedAt": iso(T0_S + n + 1.2), "writeKey": "made-up", "version": 2,
    }  # fmt: skip
    if n % 2:
        made |= {"type": "track", "event": rng.choice(["Product Added", "Order Completed", "Button Clicked"])}
        made["properties"] = {"product_id": "4711", "name": "A shoe", "price": 99.5, "quantity": 1, "currency": "EUR"}
    return made


def rudderstack(rng: random.Random, n: int) -> dict[str, Any]:
    """An event as RudderStack's server sends it on."""
    path = rng.choice(PAGES)
    page = {"path": path, "referrer": "$direct", "title": "A shop", "url": f"https://shop.example{path}",
            "initial_referrer": "$direct", "tab_url": f"https://shop.example{path}"}  # fmt: skip
    return {
        "channel": "web", "type": "track" if n % 2 else "page", "event": "Product Added" if n % 2 else None,
        "name": None if n % 2 else "Home", "messageId": f"{n:08x}-cafe-4000-8000-{n:012x}", "rudderId": f"r-{n:032x}",
        "anonymousId": f"{n % 5000:08x}-beef-4000-8000-000000000000", "userId": "",
        "originalTimestamp": iso(T0_S + n), "sentAt": iso(T0_S + n + 1), "receivedAt": iso(T0_S + n + 2),
        "timestamp": iso(T0_S + n + 1), "request_ip": "203.0.113.7",
        "context": {
            "app": {"name": "RudderLabs JavaScript SDK", "namespace": "com.rudderlabs.javascript", "version": "3.7.2"},
            "traits": {"email": "made-up@example.test"}, "library": {"name": "js", "version": "3.7.2"},
            "campaign": {"medium": rng.choice(CHANNELS)},
            "locale": "de-DE", "os": {"name": "", "version": ""}, "page": page, "sessionId": 1_690_000_000 + n % 5000,
            "sessionStart": n % 7 == 0, "timezone": "GMT+0200", "userAgent": AGENT, "ip": "203.0.113.7",
            "screen": {"density": 1, "width": 1920, "height": 1080, "innerWidth": 1903, "innerHeight": 969},
        },
        "integrations": {"All": True}, "properties": page | {"value": 9.5},
    }  # fmt: skip


def snowplow(rng: random.Random, n: int, **changes: str) -> dict[str, str]:
    """A row of the atomic table, column by column."""
    path = rng.choice(PAGES)
    kind = rng.choice(["page_view", "page_ping", "struct", "unstruct"])
    when = datetime.fromtimestamp(T0_S + n, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
    row = dict.fromkeys(COLUMNS, "") | {
        "app_id": "shop", "platform": "web", "etl_tstamp": when, "collector_tstamp": when, "dvce_created_tstamp": when,
        "event": kind, "event_id": f"{n:08x}-cafe-4000-8000-{n:012x}", "name_tracker": "sp", "v_tracker": "js-3.24.0",
        "v_collector": "ssc-3.2.0-kafka", "v_etl": "snowplow-enrich-kafka-4.2.0", "user_ipaddress": "203.0.113.7",
        "domain_userid": f"{n % 5000:08x}-beef-4000-8000-000000000000", "domain_sessionidx": "3",
        "network_userid": f"{n % 5000:08x}-feed-4000-8000-000000000000", "geo_country": rng.choice(COUNTRIES),
        "page_url": f"https://shop.example{path}?a=1", "page_title": "A shop", "page_urlscheme": "https",
        "page_urlhost": "shop.example", "page_urlport": "443", "page_urlpath": path, "page_urlquery": "a=1",
        "mkt_medium": rng.choice(CHANNELS), "mkt_source": "ads", "mkt_campaign": "spring", "useragent": AGENT,
        "contexts": '{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0","data":[{"schema":'
        '"iglu:com.snowplowanalytics.snowplow/web_page/jsonschema/1-0-0","data":{"id":"bcb0aceb-d739-4af3-878c"}}]}',
        "br_lang": "de-DE", "br_cookies": "1", "br_viewwidth": "1903", "br_viewheight": "969", "dvce_type": "Computer",
        "dvce_ismobile": "0", "doc_charset": "UTF-8", "doc_width": "1903", "doc_height": "4000",
        "dvce_sent_tstamp": when, "domain_sessionid": f"{n % 5000:08x}-5e55-4000-8000-000000000000",
        "derived_tstamp": when, "event_vendor": "com.snowplowanalytics.snowplow", "event_name": kind,
        "event_format": "jsonschema", "event_version": "1-0-0", "event_fingerprint": f"{n:032x}",
    }  # fmt: skip
    if kind == "page_ping":
        row |= {"pp_xoffset_min": "0", "pp_xoffset_max": "0", "pp_yoffset_min": "0", "pp_yoffset_max": "1031"}
    if kind == "struct":
        row |= {"event_name": "event", "se_category": "cart", "se_action": "add_to_cart", "se_value": "9.5"}
    if kind == "unstruct":
        row |= {"event_name": "link_click", "unstruct_event": unstruct("link_click", {
            "targetUrl": "https://shop.example/cart", "elementId": "to-cart", "elementClasses": ["btn"]})}  # fmt: skip
    return row | changes


def unstruct(name: str, data: dict[str, Any]) -> str:
    """The column of a self-describing event."""
    vendor = "iglu:com.snowplowanalytics.snowplow"
    inner = {"schema": f"{vendor}/{name}/jsonschema/1-0-1", "data": data}
    return msgspec.json.encode({"schema": f"{vendor}/unstruct_event/jsonschema/1-0-0", "data": inner}).decode()


def tsv(row: dict[str, str], width: int = len(COLUMNS)) -> bytes:
    """The row as enrich writes it."""
    return "\t".join(list(row.values())[:width]).encode()


def snowplow_json(row: dict[str, str]) -> dict[str, Any]:
    """The row as the analytics SDKs turn it into JSON."""
    made: dict[str, Any] = {name: value for name, value in row.items() if value}
    for name in ("etl", "collector", "dvce_created", "dvce_sent", "derived"):
        made[f"{name}_tstamp"] = made[f"{name}_tstamp"].replace(" ", "T") + "Z"
    made.pop("contexts", None)
    made["contexts_com_snowplowanalytics_snowplow_web_page_1"] = [{"id": "bcb0aceb-d739-4af3-878c-cf6ce300d69c"}]
    if told := made.pop("unstruct_event", None):
        inner = msgspec.json.decode(told)["data"]
        made[f"unstruct_event_com_snowplowanalytics_snowplow_{row['event_name']}_1"] = inner["data"]
    for name in ("br_viewwidth", "br_viewheight", "doc_width", "doc_height", "pp_yoffset_max"):
        if name in made:
            made[name] = int(made[name])
    return made


CHAIN: Final = (
    'button.btn.btn-primary:attr__class="btn btn-primary"attr__id="to-cart"attr__type="submit"nth-child="2"'
    'nth-of-type="1"text="To the cart";div.product:attr__class="product"nth-child="4"nth-of-type="4";'
    'form:attr__id="order"nth-child="1"'
    'nth-of-type="1";body:nth-child="2"nth-of-type="1"'
)


def posthog(rng: random.Random, n: int) -> dict[str, Any]:
    """An event of posthog-js."""
    path = rng.choice(PAGES)
    event = rng.choice(["$pageview", "$pageleave", "$autocapture", "order completed"])
    device = f"{n % 5000:08x}-8cab-75ba-a2bb-000000000000"
    properties: dict[str, Any] = {
        "token": "phc_made_up", "distinct_id": device if n % 3 else f"user-{n % 5000}", "$device_id": device,
        "$os": "Windows", "$os_version": "10", "$browser": "Chrome", "$device_type": "Desktop", "$browser_version": 126,
        "$lib": "web",
        "$current_url": f"https://shop.example{path}?utm_source=ads", "$host": "shop.example", "$pathname": path,
        "$raw_user_agent": AGENT, "$browser_language": "de-DE", "$screen_height": 1080, "$screen_width": 1920,
        "$viewport_height": 969, "$viewport_width": 1903, "$lib_version": "1.140.1", "$timezone": "Europe/Berlin",
        "$insert_id": f"i{n:015x}", "$time": T0_S + n, "$referrer": "$direct", "$referring_domain": "$direct",
        "$active_feature_flags": [], "$session_id": f"{n % 5000:08x}-8cab-7000-a2bb-111111111111",
        "$window_id": f"{n % 5000:08x}-8cab-7000-a2bb-222222222222", "$is_identified": False, "title": "A shop",
        "$process_person_profile": True, "$recording_status": "active", "$geoip_country_code": rng.choice(COUNTRIES),
        "utm_medium": rng.choice(CHANNELS), "utm_source": "ads", "utm_campaign": "spring", "$browser_type": "browser",
        "$session_entry_url": "https://shop.example/", "$session_entry_pathname": "/", "$is_first": True,
    }  # fmt: skip
    if event == "$autocapture":
        properties |= {"$event_type": "click", "$ce_version": 1, "$elements_chain": CHAIN, "$el_text": "To the cart"}
    if event == "$pageleave":
        properties |= {
            "$prev_pageview_pathname": path, "$prev_pageview_duration": 31.4, "$prev_pageview_last_scroll": 400,
            "$prev_pageview_max_scroll": 1031, "$prev_pageview_max_scroll_percentage": 0.34,
            "$prev_pageview_last_scroll_percentage": 0.13, "$prev_pageview_max_content_percentage": 0.5,
        }  # fmt: skip
    if event == "order completed":
        properties |= {"total": 99.5, "currency": "EUR"}
    return {
        "uuid": f"{n:08x}-cafe-7000-8000-{n:012x}",
        "event": event,
        "properties": properties,
        "timestamp": iso(T0_S + n),
    }


def posthog_batch(rng: random.Random, n: int, size: int = 20) -> dict[str, Any]:
    """A batch as posthog-python and its kin send it."""
    items = [posthog(rng, n * size + i) for i in range(size)]
    for item in items:
        item["distinct_id"] = item["properties"].pop("distinct_id")
    return {
        "api_key": "phc_made_up",
        "batch": items,
        "sent_at": iso(T0_S + n * size + size),
        "historical_migration": False,
    }


def cloudevent(rng: random.Random, n: int) -> dict[str, Any]:
    """A structured CloudEvent of a backend."""
    return {
        "specversion": "1.0", "id": f"{n}", "source": "/shop/orders", "type": "com.example.order_completed.v1",
        "subject": f"customer-{n % 5000}", "time": iso(T0_S + n), "datacontenttype": "application/json",
        "data": {"total": 99.5, "channel": rng.choice(CHANNELS), "path": rng.choice(PAGES)},
    }  # fmt: skip
