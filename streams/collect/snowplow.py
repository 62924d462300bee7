"""Snowplow's tracker protocol, turned into the enriched event (as JSON) that the Snowplow reader takes.

Spec: "Snowplow Tracker Protocol" (parameters of GET and of the `payload_data` schema) and "Canonical event model"
(columns of the enriched event). Times follow Snowplow's
enrichment: derived = collector - (sent - created), or the true time where a tracker states one. What a form field held
and from which address somebody came are left out here already.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from streams.collect.asked import Asked, Message, Refused, a_dict, an_id, made_id
from streams.collect.auth import Keys, missing
from streams.collect.times import corrected, iso, milliseconds

POST: Final = "/com.snowplowanalytics.snowplow/tp2"
PIXEL: Final = "/i"
GIF: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
EVENTS: Final = {"pv": "page_view", "pp": "page_ping", "se": "struct", "ue": "unstruct", "tr": "transaction",
                 "ti": "transaction_item"}  # fmt: skip
_COLUMNS: Final = {
    "aid": "app_id", "p": "platform", "tna": "name_tracker", "tv": "v_tracker", "eid": "event_id", "uid": "user_id",
    "duid": "domain_userid", "sid": "domain_sessionid", "nuid": "network_userid", "tnuid": "network_userid",
    "ua": "useragent", "lang": "br_lang", "tz": "os_timezone", "url": "page_url", "page": "page_title",
    "refr": "page_referrer", "se_ca": "se_category", "se_ac": "se_action", "se_la": "se_label", "se_pr": "se_property",
    "tr_id": "tr_orderid", "ti_id": "ti_orderid", "ti_sk": "ti_sku", "ti_nm": "ti_name", "ti_ca": "ti_category",
    "tr_cu": "tr_currency", "ti_cu": "ti_currency",
}  # fmt: skip
_NUMBERS: Final = {
    "vid": "domain_sessionidx", "pp_mix": "pp_xoffset_min", "pp_max": "pp_xoffset_max", "pp_miy": "pp_yoffset_min",
    "pp_may": "pp_yoffset_max", "se_va": "se_value", "tr_tt": "tr_total", "ti_pr": "ti_price", "ti_qu": "ti_quantity",
}  # fmt: skip
_SIZES: Final = {"vp": ("br_viewwidth", "br_viewheight"), "ds": ("doc_width", "doc_height"),
                 "res": ("dvce_screenwidth", "dvce_screenheight")}  # fmt: skip
_MARKETING: Final = {"utm_medium": "mkt_medium", "utm_source": "mkt_source", "utm_term": "mkt_term",
                     "utm_content": "mkt_content", "utm_campaign": "mkt_campaign"}  # fmt: skip
_SCHEMA: Final = re.compile(r"iglu:([\w.-]{1,100})/([\w.-]{1,100})/jsonschema/\d{1,4}-\d{1,4}-\d{1,4}")
_FORMS: Final = ("change_form", "focus_form", "submit_form")
_encode = msgspec.json.Encoder().encode


def posted(asked: Asked, keys: Keys) -> tuple[int, list[Message]]:
    """Number of the application id, and the messages of a POST.

    Raises:
        Refused: 400 or 401.
    """
    body = asked.value
    if type(body) is not dict:
        raise Refused(400, "not_an_object", "the body: an object was expected")
    items = asked.objects(body.get("data"), "data")
    number = _key(items, keys)
    return number, [_message(asked, item, f"data[{index}]") for index, item in enumerate(items)]


def pixel(asked: Asked, keys: Keys) -> tuple[int, list[Message]]:
    """The same of a GET, whose query is the event.

    Raises:
        Refused: 400 or 401.
    """
    return _key([asked.fields], keys), [_message(asked, asked.fields, "the query")]


def _key(items: list[dict[str, Any]], keys: Keys) -> int:
    number = None
    for item in items:
        shown = item.get("aid")
        number = keys.find(shown) if type(shown) is str else None
        if number is None:
            raise missing("an application id is needed in each event: aid")
    assert number is not None  # `objects` lets no empty batch pass
    return number


def _message(asked: Asked, item: dict[str, Any], where: str) -> Message:
    kind = EVENTS.get(str(item.get("e")))
    if kind is None:
        raise Refused(400, "unknown_type", f"{where}.e: none of {', '.join(EVENTS)}")
    event: dict[str, Any] = {"event": kind, "event_name": kind, "event_vendor": "com.snowplowanalytics.snowplow"}
    if type(item.get("eid")) is not str:
        event["event_id"] = made_id(item, "stm", bool(item.get("dtm") or item.get("ttm")))
    for short, column in _COLUMNS.items():
        if type(value := item.get(short)) is str and value:
            event[column] = value
    for short, column in _NUMBERS.items():
        if (number := _number(item.get(short))) is not None:
            event[column] = number
    for short, columns in _SIZES.items():
        if type(value := item.get(short)) is str and len(sizes := value.split("x")) == 2:
            numbers = zip(columns, map(_number, sizes), strict=True)
            event |= {column: number for column, number in numbers if number is not None}
    event |= _times(item, asked.received_s) | _addresses(event)
    _attach(asked, event, item, where)
    person = an_id(event.get("domain_userid"), event.get("user_id"), event.get("network_userid"))
    return asked.message(event, person)


def _number(value: object) -> int | float | None:
    if type(value) in (int, float):
        return value  # type: ignore[return-value]
    if type(value) is not str or len(value) > 32:
        return None
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None


def _times(item: dict[str, Any], received_s: float) -> dict[str, str]:
    created_s, sent_s, true_s = (milliseconds(item.get(name)) for name in ("dtm", "stm", "ttm"))
    derived_s = received_s
    if true_s is not None:
        derived_s = true_s
    elif created_s is not None:
        derived_s = created_s if sent_s is None else corrected(created_s, sent_s, received_s)
    stamps = {"collector_tstamp": received_s, "derived_tstamp": derived_s, "dvce_created_tstamp": created_s,
              "dvce_sent_tstamp": sent_s, "true_tstamp": true_s}  # fmt: skip
    return {name: iso(time_s).replace("+00:00", "Z") for name, time_s in stamps.items() if time_s is not None}


def _addresses(event: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for column, prefix in (("page_url", "page_url"), ("page_referrer", "refr_url")):
        if url := event.get(column):
            found |= _parts(url, prefix)
    return found


@lru_cache(maxsize=4096)
def _parts(url: str, prefix: str) -> dict[str, str]:
    """Columns that follow from an address; shared, never changed."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, max_num_fields=100)) if prefix == "page_url" else {}
    except ValueError:
        return {}  # no address: the event says so by having no path
    host = parts.netloc.rpartition("@")[2]
    found = {f"{prefix}scheme": parts.scheme, f"{prefix}host": host, f"{prefix}path": parts.path}
    found |= {column: query[name] for name, column in _MARKETING.items() if name in query}
    return {name: value for name, value in found.items() if value}


def _attach(asked: Asked, event: dict[str, Any], item: dict[str, Any], where: str) -> None:
    """The self-describing part and the contexts, plain or in base64."""
    if (described := _json(asked, item, "ue_pr", "ue_px", where)) is not None:
        inner = a_dict(a_dict(described).get("data"))
        schema = inner.get("schema")
        if (found := _SCHEMA.fullmatch(schema if type(schema) is str else "")) is None:
            raise Refused(400, "bad_field", f"{where}.ue_pr or ue_px: no self-describing JSON")
        event["event_vendor"], event["event_name"] = found[1], found[2]
        inner["data"] = _without_values(found[2], inner.get("data"))
        event["unstruct_event"] = described
    if (contexts := _json(asked, item, "co", "cx", where)) is not None:
        if type(a_dict(contexts).get("data")) is not list:
            raise Refused(400, "bad_field", f"{where}.co or cx: no self-describing JSON")
        event["contexts"] = contexts


def _without_values(name: str, data: object) -> object:
    if name not in _FORMS or type(data) is not dict:
        return data
    kept = {key: value for key, value in data.items() if key != "value"}
    if type(elements := kept.get("elements")) is list:
        kept["elements"] = [{k: v for k, v in a_dict(one).items() if k != "value"} for one in elements]
    return kept


def _json(asked: Asked, item: dict[str, Any], plain: str, packed: str, where: str) -> Any:
    text, field = item.get(plain), plain
    if text is None and (text := item.get(packed)) is not None:
        field = packed
    if text is None:
        return None
    try:
        raw = str(text).encode()
        if field == packed:
            raw = base64.b64decode(raw.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(raw) % 4), validate=True)
        return asked.parsed(raw)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "not_json", f"{where}.{field}: not base64") from error
    except Refused as refused:
        raise Refused(400, refused.reason, f"{where}.{field}: {refused.detail}") from refused
