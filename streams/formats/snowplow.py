"""Snowplow enriched events: a TSV row of 131 columns (129 and 130 exist), or the JSON that the analytics SDKs make.

Spec: "Canonical event model" of Snowplow's documentation for columns; its page on the enriched TSV format; "Analytics
SDKs" for the JSON (`contexts_…`, `unstruct_event_…`); Iglu Central's `com.snowplowanalytics.snowplow` for the events.

Time is `derived_tstamp`. Rows without it get it as Snowplow computes it: `true_tstamp`; else
`collector_tstamp - (dvce_sent_tstamp - dvce_created_tstamp)`; else `collector_tstamp`.
Person is `domain_userid`, which a login does not change; then the mobile session's `userId`, `network_userid`, and
`user_id` (that one first on servers, whose network ids are made up per request), and where tracking is anonymous, the
session. `user_id` is the second id. A null session stays null: then the gap decides.
Nothing is read of forms but their names: values are dropped here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from streams.events import OTHER, Event, Outcome, Rejection, Value
from streams.formats._common import (
    MAX_TEXT_CHARS,
    Fields,
    FormatOptions,
    Refused,
    attempt,
    epoch_s,
    identity,
    is_nobody,
    iso_s,
    readable_id,
    required,
    text,
    within,
)
from streams.formats._fields import labels_of, properties_of
from streams.formats._format import Format
from streams.formats._names import VendorNames, normalise
from streams.formats.snowplow_columns import COLUMNS, PINGED, WIDTHS, table_of
from streams.privacy import path_of

NO_ID: Final = "00000000-0000-0000-0000-000000000000"
"""`network_userid` of those who asked the collector not to be tracked: of everybody, so of nobody."""
_A_ROW: Final = 60
"""Text of so many tabs is a row of a table, though perhaps of a wrong one."""
_SELF_DESCRIBING: Final = "unstruct"
_ACTION: Final = "snowplow_ecommerce_action"
_PEOPLE: Final = ("domain_userid", "network_userid", "user_id")
_PREFIX: Final = "unstruct_event_"


class _Schema(msgspec.Struct, frozen=True):
    """Self-describing JSON: what follows which schema."""

    data: Any
    schema: str = ""


class _Unstruct(msgspec.Struct, frozen=True):
    data: _Schema


class _Contexts(msgspec.Struct, frozen=True):
    data: list[_Schema]


_decode_unstruct: Final = msgspec.json.Decoder(_Unstruct).decode
_decode_contexts: Final = msgspec.json.Decoder(_Contexts).decode


def read(raw: bytes, options: FormatOptions) -> list[Outcome] | None:
    """The event of a TSV row; None for what is none, by its number of tabs."""
    if raw.lstrip()[:1] in (b"{", b"["):
        return None
    try:
        columns = raw.rstrip(b"\r\n").decode().split("\t")
    except UnicodeDecodeError:
        is_row = raw.count(b"\t") >= _A_ROW
        return [Rejection("bad_field", "an enriched event that is not UTF-8")] if is_row else None
    if (width := len(columns)) not in WIDTHS:
        problem = f"columns: {width} separated by tabs; 131, 130 or 129 were expected"
        return [Rejection("bad_field", problem)] if width > _A_ROW else None
    columns += [""] * (len(COLUMNS) - len(columns))
    return [attempt(_event, _person_of, table_of(options.names["snowplow"]).fields(columns), options)]


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One event of the analytics SDKs' JSON."""
    return [attempt(_event, _person_of, value, options)]


def recognises(value: Any) -> bool:
    """Every enriched event says when the collector had it."""
    if not isinstance(value, dict) or "event_id" not in value:
        return False
    return "collector_tstamp" in value or "derived_tstamp" in value


def _person_of(fields: Fields) -> str | None:
    return readable_id(fields, *_PEOPLE, "domain_sessionid")


def _event(fields: Fields, options: FormatOptions) -> Event:
    names = options.names["snowplow"]
    name, given = _said(fields, names)
    kind = names.events.get(normalise(name), OTHER)
    session = identity(fields, "domain_sessionid") or _mobile(fields, "sessionId")
    person, user = _person(fields, session), identity(fields, "user_id")
    device_s = _time_s(fields, "dvce_created_tstamp")
    properties = properties_of(names.properties.get(kind), given)
    if kind == "page_pinged":
        properties |= _scrolled(fields)
    return Event(
        id=required(identity(fields, "event_id"), "event_id"),
        type=kind,
        time=_corrected_s(fields, device_s, options),
        person=person,
        device_time=device_s,
        also_person=user if user != person and not is_nobody(user) else None,
        session=session,
        page=_page(fields, name, given),
        segment=labels_of(fields, names, options.labels),
        properties=properties,
    )


# ── What happened ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _said(fields: Fields, names: VendorNames) -> tuple[str, Fields]:
    """Name of what happened, to be looked up, and the fields that may say more."""
    event, name = text(fields, "event"), text(fields, "event_name")
    if event == "struct":
        return text(fields, "se_action") or "", _saying(fields, names)  # some trackers leave it out: then it is `other`
    if event == _SELF_DESCRIBING or (event is None and name is None):
        found, given = _self_described(fields)
        name = required(name or found, "event_name")
        if name == _ACTION:
            name = f"{_ACTION} {_string(given, 'type')}"
            given = _entity(fields, "transaction") if name.endswith("transaction") else given
        return name, given
    return required(event or name, "event"), _saying(fields, names) if event == "transaction" else {}


def _saying(fields: Fields, names: VendorNames) -> Fields:
    """Columns that say more of a structured event or a transaction."""
    return {name: value for name in table_of(names).saying if (value := fields.get(name)) not in (None, "")}


def _self_described(fields: Fields) -> tuple[str | None, Fields]:
    """Name and data of a self-describing event, in whichever form they came."""
    value = fields.get("unstruct_event")
    if value is None or value == "":
        return _from_key(fields)
    try:
        found = _decode_unstruct(value) if isinstance(value, str) else msgspec.convert(value, _Unstruct)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("bad_field", "unstruct_event: no self-describing JSON") from error
    return _schema_name(found.data.schema), found.data.data if isinstance(found.data.data, dict) else {}


def _from_key(fields: Fields) -> tuple[str | None, Fields]:
    """The SDKs write `unstruct_event_<vendor>_<name>_<model>`: where the vendor ends, only a known name can say."""
    for key, value in fields.items():
        if key.startswith(_PREFIX):
            name = key.removeprefix(_PREFIX).rstrip("0123456789_")
            own = name.partition("snowplow_snowplow_")[2] or name.partition("_snowplow_")[2]
            return own or name, value if isinstance(value, dict) else {}
    return None, {}


def _schema_name(schema: str) -> str | None:
    """The name in an Iglu URI.

    >>> _schema_name("iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1")
    'link_click'
    """
    parts = schema.split("/", 2)
    return parts[1][:MAX_TEXT_CHARS] if len(parts) == 3 else None


def _entity(fields: Fields, name: str) -> Fields:
    """The first attached entity (context) of this name, in whichever form; the rest of it only enriches."""
    value = fields.get("contexts")
    if value is None:
        for key, entities in fields.items():
            if key.startswith("contexts_") and key.rstrip("0123456789_").endswith(f"_{name}"):
                first = entities[0] if isinstance(entities, list) and entities else entities
                return first if isinstance(first, dict) else {}
        return {}
    try:
        found = _decode_contexts(value) if isinstance(value, str) else msgspec.convert(value, _Contexts)
    except (msgspec.DecodeError, RecursionError):
        return {}
    of_name = (entity.data for entity in found.data if _schema_name(entity.schema) == name)
    return next((data for data in of_name if isinstance(data, dict)), {})


def _string(fields: Fields, name: str) -> str:
    value = fields.get(name)
    return value[:MAX_TEXT_CHARS] if isinstance(value, str) else ""


# ── Who, where, when ──────────────────────────────────────────────────────────────────────────────────────────────────


def _person(fields: Fields, session: str | None) -> str:
    if domain := identity(fields, "domain_userid"):
        return domain
    network, user = identity(fields, "network_userid"), identity(fields, "user_id")
    if network == NO_ID:
        network = None
    on_server = fields.get("platform") == "srv"
    known = (_mobile(fields, "userId"), *((user, network) if on_server else (network, user)), session)
    return required(next(filter(None, known), None), "domain_userid, network_userid and user_id")


def _mobile(fields: Fields, name: str) -> str | None:
    """Mobile trackers keep ids in the entity `client_session`."""
    contexts = fields.get("contexts")
    if isinstance(contexts, str) and "client_session" not in contexts:
        return None
    return readable_id(_entity(fields, "client_session"), name)


def _page(fields: Fields, name: str, given: Fields) -> str | None:
    if path := text(fields, "page_urlpath"):
        return path
    if url := text(fields, "page_url"):
        return path_of(url)
    return _string(given, "name") or None if name == "screen_view" else None


def _time_s(fields: Fields, field: str) -> float | None:
    value = fields.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        # " UTC" is how warehouses export times.
        return iso_s(value[:-4] if value.endswith(" UTC") else value, field, naive_is_utc=True)
    return epoch_s(value, field, naive_is_utc=True)


def _corrected_s(fields: Fields, created_s: float | None, options: FormatOptions) -> float:
    for field in ("derived_tstamp", "true_tstamp"):
        if (time_s := _time_s(fields, field)) is not None:
            return within(time_s, field, options)
    collected_s = _time_s(fields, "collector_tstamp")
    if collected_s is None:
        raise Refused("missing_field", "derived_tstamp: missing or empty, and so are true_tstamp and collector_tstamp")
    sent_s = _time_s(fields, "dvce_sent_tstamp")
    if sent_s is not None and created_s is not None:
        collected_s -= sent_s - created_s
    return within(collected_s, "collector_tstamp", options)


def _scrolled(fields: Fields) -> dict[str, Value]:
    """How much of the page has been on screen, as Snowplow's web model has it: (offset + view) / document."""
    offset, view, height = (_pixels(fields.get(name)) for name in PINGED)
    if offset is None or not height:
        return {}
    return {"scroll_ratio": min(1.0, max(0.0, (offset + (view or 0.0)) / height))}


def _pixels(value: object) -> float | None:
    """Pixels of a page ping; browsers report nonsense at times, which says nothing."""
    if isinstance(value, str) and len(value) <= 12 and value.lstrip("-").isdecimal():
        return float(value)
    return float(value) if type(value) is int and abs(value) < 10**9 else None


FORMAT: Final = Format(
    name="snowplow",
    takes="Snowplow enriched events: rows of 131 tab-separated columns (129 and 130, too), or the JSON of its SDKs.",
    spec='"Canonical event model" and "Enriched TSV format" of Snowplow\'s documentation; "Analytics SDKs" for JSON;'
    " Iglu Central, `com.snowplowanalytics.snowplow`, for self-describing events",
    decode=decode,
    recognises=recognises,
    read=read,
    marker=b"\t",
    coverage=(
        ("page_ping", "page_pinged", "scroll_ratio = (pp_yoffset_max + br_viewheight) / doc_height"),
        ("struct", "by `se_action`", "names below; unknown names and none are `other`"),
        ("unstruct", "by the name of its schema", "names below; unknown schemas are `other`; form values are dropped"),
        ("snowplow_ecommerce_action", "by its `type`", "value = revenue of the entity `transaction`"),
    ),
)
