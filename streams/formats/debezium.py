"""Debezium: changes of rows of your own databases; a map of `ingest.debezium_map` says which are which events.

Spec: "Data change events" of Debezium's connectors (MySQL, PostgreSQL, SQL Server, Oracle, MongoDB), with and without
the `schema` of Kafka Connect's JSON converter, and "New Record State Extraction" for rows without envelope.

- A change that no rule of the map takes up, and any change of a table that is not in it, is `other`: about the person
  of the table's first rule, else about the row itself (table and `id`). Nobody is made up of it.
- Snapshots (`r`, or a source that says so, as older versions write `c`) tell a state and no change: `other`, unless a
  rule names `r`.
- Where the database logs nothing of a deleted or updated row (MongoDB without pre- and post-images), the change is
  `other`, about the table; where a rule asks for such changes, it is a dead letter.
- Truncations and logical decoding messages are about no row: `other`, about the table or the connector. Heartbeats,
  transaction and schema-change messages are of topics of their own, which need not be read: dead letters.
- A redelivered change has the id that it had, since the id follows from its place in the database's log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from streams.events import CLOCK, OTHER, Event, Outcome, Rejection
from streams.formats import native
from streams.formats._common import Fields, FormatOptions, Refused, epoch_s, identity, parse, required, text, within
from streams.formats._connect import typed_rows
from streams.formats._email import has_any
from streams.formats._format import Format
from streams.formats._several import several
from streams.formats._tables import Change, Compiled, native_of

_OPS: Final = frozenset({"c", "u", "d", "r", "t", "m"})
_UNAVAILABLE: Final = "__debezium_unavailable_value"
"""What stands for large values that an update left alone."""
_PLACE: Final = (
    "name", "db", "schema", "table", "collection", "gtid", "file", "pos", "row", "lsn", "txId", "xmin", "scn",
    "commit_scn", "change_lsn", "commit_lsn", "event_serial_no", "ord", "h", "tord", "resume_token", "ssn",
)  # fmt: skip
"""What tells a change's place in the database's log; times and versions may differ when it is read again."""
_SNAPSHOTS: Final = frozenset({
    "true", "last", "first", "first_in_data_collection", "last_in_data_collection", "incremental", "initial",
})  # fmt: skip
_FLAT: Final = ("__op", "__deleted")


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """What one change means, or each of an array."""
    return several(value, options, _message, _nobody)


def _nobody(fields: Fields) -> None:
    """Only the rules know whom a row is about; `_events` says it where one of them does."""


def _message(message: Fields, options: FormatOptions) -> Iterator[Outcome]:
    payload = _payload_of(message)
    if payload is None:
        raise Refused("tombstone", "payload: null, which only says that the row is gone from the topic")
    source, change = _change_of(payload)
    names = _names_of(source, payload)
    time_s = _time_s(source, payload, options)
    event_id = _id(source, change, payload)
    rules = [] if change.op in {"t", "m"} else options.tables.rules(names)
    if not change.known:
        if any(change.op in rule.rule.on for rule in rules):
            raise Refused("missing_field", f"{'before' if change.op == 'd' else 'after'}: missing, so nothing is known"
                          " of the row; let the database log whole rows")  # fmt: skip
        rules = []
    made = list(_events(rules, change, names[0], event_id, time_s, options))
    if made:
        yield from made
        return
    person = options.tables.person(names, change.row) or _row_name(names, change.row)
    yield Event(event_id, OTHER, time_s, required(identity({"person": person}, "person"), "person"))


def _payload_of(message: Fields) -> Fields | None:
    """The change itself: in or without its envelope of schema and payload, rows typed where there is a schema."""
    if "payload" not in message or "op" in message:
        return message
    payload = message["payload"]
    if payload is None:
        return None
    if not isinstance(payload, dict):
        raise Refused("not_an_object", "payload: an object was expected")
    schema = message.get("schema")
    return payload if schema is None else typed_rows(payload, schema)


def _change_of(payload: Fields) -> tuple[Fields, Change]:
    """Source and change; of a row without envelope (new record state extraction) all that is left of them."""
    if any(name in payload for name in _FLAT):
        return _flat(payload)
    source = payload.get("source")
    op = payload.get("op")
    if op is None or not isinstance(source, dict):
        raise Refused("unknown_type", "no change of a row: op and source are missing. Heartbeats, transactions and"
                      " schema changes come in topics of their own, which need not be read")  # fmt: skip
    if not isinstance(op, str) or op not in _OPS:
        raise Refused("unknown_type", "op: none of c, u, d, r, t and m")
    if source.get("snapshot") is True or str(source.get("snapshot")).lower() in _SNAPSHOTS:
        op = "r"
    before, after = _row(payload, "before"), _row(payload, "after")
    if op in {"t", "m"}:
        return source, Change(op, {})
    row = before if op == "d" else after
    if row is None:
        if op in {"c", "r"}:
            raise Refused("missing_field", "after: missing, so nothing is known of the row")
        return source, Change(op, {}, known=False)
    if op == "d":
        return source, Change(op, row)
    return source, Change(op, {name: value for name, value in row.items() if value != _UNAVAILABLE}, before)


def _flat(payload: Fields) -> tuple[Fields, Change]:
    source = {name[2:].removeprefix("source_"): value for name, value in payload.items() if name[:2] == "__"}
    deleted = source.get("deleted")
    op = "d" if deleted is True or deleted == "true" else source.get("op", "u")
    if not isinstance(op, str) or op not in _OPS:
        raise Refused("unknown_type", "__op: none of c, u, d, r, t and m")
    row = {name: value for name, value in payload.items() if name[:2] != "__" and value != _UNAVAILABLE}
    return source, Change(op, row)


def _row(payload: Fields, name: str) -> Fields | None:
    row = payload.get(name)
    if isinstance(row, str):  # MongoDB's documents are JSON within JSON
        row = parse(row.encode("utf-8", "replace"))
    if row is None or isinstance(row, dict):
        return row
    raise Refused("bad_field", f"{name}: an object was expected")


def _names_of(source: Fields, payload: Fields) -> tuple[str, ...]:
    """What a map may call the table, the most particular first."""
    table = text(source, "table") or text(source, "collection")
    if table is None:
        return (required(text(source, "name") or text(source, "connector"), "source.table"),)
    return _ways(text(source, "db"), text(source, "schema"), table)


@lru_cache(maxsize=1024)
def _ways(db: str | None, schema: str | None, table: str) -> tuple[str, ...]:
    ways = ((db, schema, table), (schema, table), (db, table), (table,))
    return tuple(dict.fromkeys(".".join(way) for way in ways if None not in way))  # type: ignore[arg-type]


def _time_s(source: Fields, payload: Fields, options: FormatOptions) -> float:
    """When the database committed the change; snapshots of old versions write 0, then it is when it was read."""
    for place, name in ((source, "ts_ms"), (payload, "ts_ms")):
        value = place.get(name)
        if value is not None and value != 0:
            return within(epoch_s(value, name), name, options)
    raise Refused("missing_field", "ts_ms: missing in source, and beside it")


def _id(source: Fields, change: Change, payload: Fields) -> str:
    told = [source.get(name) for name in _PLACE]
    if change.op != "r":
        told.append(source.get("ts_ms"))
    body = f"{told}{change.op}{change.row or payload.get('message')}"
    return hashlib.blake2b(body.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _row_name(names: tuple[str, ...], row: Fields) -> str:
    for name in ("id", "_id"):
        value = row.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return f"{names[0]}:{str(value)[:256]}"
    return names[0]


def _events(
    rules: list[Compiled], change: Change, table: str, event_id: str, time_s: float, options: FormatOptions
) -> Iterator[Outcome]:
    """An event for each rule that fires; a rule that cannot tell gives a dead letter in its place."""
    for at, rule in enumerate(rules):
        fires = rule.fires(change)
        if fires is None:
            changed = ", ".join(rule.rule.changed)
            yield Rejection("missing_field", f"{rule.where}: before has no {changed}, so whether it changed is unknown;"
                            " let the database log whole rows, or set if_unknown",
                            rule.make(change.row, 0).get("person"))  # fmt: skip
        if not fires:
            continue
        for outcome in native.decode(native_of(rule, change, f"{event_id}:{at}", time_s), options):
            if isinstance(outcome, Rejection):
                yield Rejection(outcome.reason, f"{rule.where}: {outcome.detail}", outcome.person)
            elif outcome.type == CLOCK:  # no column may speak for the whole source
                yield Rejection("unknown_type", f"{rule.where}: type: none of the event types")
            else:
                yield outcome


def recognises(value: Any) -> bool:
    """`op` with its source, in or without an envelope of schema and payload; or what is left of them in a flat row."""
    return has_any(value, _is_change)


def _is_change(item: Fields) -> bool:
    if "schema" in item and "payload" in item:
        inner = item["payload"]
        return inner is None or (isinstance(inner, dict) and _is_change(inner))
    if "op" in item:
        return isinstance(item.get("source"), dict)
    return "__op" in item or ("__deleted" in item and "__table" in item)


FORMAT: Final = Format(
    name="debezium",
    takes="Debezium's change events, with or without `schema`, or flattened; a map says which are which of our events.",
    spec='"Data change events" and "Data type mappings" of Debezium\'s connectors; "New Record State Extraction"',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("a change for which rules of `ingest.debezium_map` fire", "an event of each rule", ""),
        ("any other change; `r` and snapshots, unless a rule has `on: [r]`", "other",
         "person by the table's first rule, else table and `id` of the row"),
        ("`changed`, where the row before an update is not known", "dead letter `missing_field`",
         "or as the rule's `if_unknown` says"),
        ("`d` without before, `u` without after", "other", "about the table; dead letter `missing_field` where a rule"
         " has that `on`"),
        ("`t` (truncated), `m` (logical decoding message)", "other", "about the table or connector"),
        ("a null message or payload", "dead letter `tombstone`", ""),
        ("heartbeats, transactions, schema changes", "dead letter `unknown_type`", "need not be read"),
        ("io.debezium.time.*, Connect's dates, times and decimals", "times and numbers",
         "by the schema; without one, `unit` of the map says it"),
    ),
)  # fmt: skip
