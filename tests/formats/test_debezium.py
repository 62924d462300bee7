"""Debezium's change events, and the map that makes events of them."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from streams.errors import ConfigError
from streams.events import OTHER, Event, Outcome, Rejection
from streams.formats import FormatOptions, decode
from streams.formats._tables import unmapped
from streams.settings import Settings
from tests.fuzz.__main__ import PROGRAMS
from tests.fuzz.law import check
from tests.fuzz.mutate import Step, mutated
from tests.fuzz.seeds import Seed
from tests.kit import settings_of

NOW_S = 1_800_000_000.0
AT_MS = 1_690_000_000_123
FIXTURES = Path(__file__).parents[1] / "data" / "fixtures" / "debezium"
NO_MAP = FormatOptions.from_settings(Settings(), NOW_S)
ROW: dict[str, Any] = {"id": 7, "customer_id": 42, "status": "paid", "total": 12.5}
PLACED = {"on": ["c"], "type": "order_placed", "person": "customer_id", "properties": {"promised_at": "due"}}
DELIVERED = {
    "on": ["u"], "changed": "status", "when": {"column": "status", "equals": "delivered"},
    "type": "order_delivered", "person": "customer_id",
}  # fmt: skip


def change(op: str = "c", after: Any = ROW, before: Any = None, source: dict[str, Any] | None = None,
           **rest: Any) -> dict[str, Any]:  # fmt: skip
    where = {
        "version": "2.7.0.Final", "connector": "postgresql", "name": "crm", "ts_ms": AT_MS, "snapshot": "false",
        "db": "shop", "sequence": '["24023119","24023128"]', "schema": "inventory", "table": "orders", "txId": 555,
        "lsn": 24023128, "xmin": None,
    } | (source or {})  # fmt: skip
    return {"before": before, "after": after, "source": where, "op": op, "ts_ms": AT_MS + 400, "transaction": 0} | rest


def mapped(tmp_path: Path, *rules: dict[str, Any], table: str = "inventory.orders") -> FormatOptions:
    path = tmp_path / "tables.yaml"
    path.write_text(yaml.safe_dump({"tables": {table: list(rules)}}))
    return FormatOptions.from_settings(settings_of(ingest={"debezium_map": path}), NOW_S)


def outcomes(message: Any, options: FormatOptions = NO_MAP) -> list[Outcome]:
    return decode(json.dumps(message).encode(), None, options)


def told(message: Any, options: FormatOptions = NO_MAP) -> list[tuple[str, str]]:
    """(type, person) of each event, (reason, person) of each rejection."""
    return [(getattr(one, "type", None) or one.reason, str(one.person)) for one in outcomes(message, options)]  # type: ignore[union-attr]


def event(message: Any, options: FormatOptions = NO_MAP) -> Event:
    (outcome,) = outcomes(message, options)
    assert isinstance(outcome, Event), outcome
    return outcome


def with_schema(message: dict[str, Any], **types: str | tuple[str, dict[str, str]]) -> dict[str, Any]:
    fields = []
    for name, kind in types.items():
        logical, parameters = kind if isinstance(kind, tuple) else (kind, {})
        fields.append({"type": "int64", "optional": True, "name": logical, "parameters": parameters, "field": name})
    rows = [{"type": "struct", "fields": fields, "optional": True, "field": part} for part in ("before", "after")]
    return {"schema": {"type": "struct", "fields": [*rows, {"type": "string", "field": "op"}]}, "payload": message}


def test_published_payloads_tell_of_their_rows() -> None:
    snapshot = event(json.loads((FIXTURES / "snapshot_with_schema.json").read_bytes()))
    deletion = event(json.loads((FIXTURES / "deletion_with_null_schema.json").read_bytes()))
    assert (snapshot.type, snapshot.person, snapshot.time) == (OTHER, "inventory.products:101", 1_589_355_606.1)
    assert (deletion.type, deletion.person, deletion.time) == (OTHER, "test.product:101", 1_596_684_883.0)


@pytest.mark.parametrize("envelope", ["bare", "schema", "null schema"])
def test_with_and_without_schema_a_change_is_the_same(tmp_path: Path, envelope: str) -> None:
    options = mapped(tmp_path, PLACED)
    bare = change()
    message = {"bare": bare, "schema": with_schema(bare), "null schema": {"schema": None, "payload": bare}}[envelope]
    found = event(message, options)
    assert (found.type, found.person, found.time) == ("order_placed", "42", AT_MS / 1000)
    assert found == event(bare, options)


@pytest.mark.parametrize("table", ["shop.inventory.orders", "inventory.orders", "shop.orders", "orders"])
def test_a_map_may_call_a_table_as_it_likes(tmp_path: Path, table: str) -> None:
    assert told(change(), mapped(tmp_path, PLACED, table=table)) == [("order_placed", "42")]


def test_a_table_without_rules_is_counted_as_other_about_its_row(tmp_path: Path) -> None:
    assert told(change()) == [(OTHER, "shop.inventory.orders:7")]
    assert told(change(after={"a": 1})) == [(OTHER, "shop.inventory.orders")]
    assert told(change(), mapped(tmp_path, PLACED, table="other")) == [(OTHER, "shop.inventory.orders:7")]
    assert told(change(), mapped(tmp_path)) == [(OTHER, "shop.inventory.orders:7")]


def test_a_change_that_no_rule_takes_up_is_other_about_its_person(tmp_path: Path) -> None:
    assert told(change("u", before=ROW), mapped(tmp_path, PLACED)) == [(OTHER, "42")]


@pytest.mark.parametrize(
    ("op", "before", "after", "kind"),
    [
        ("c", None, {"status": "delivered"}, OTHER),
        ("u", {"status": "paid"}, {"status": "delivered"}, "order_delivered"),
        ("u", {"status": "delivered"}, {"status": "delivered"}, OTHER),
        ("u", {"status": "paid"}, {"status": "lost"}, OTHER),
        ("u", {"status": "paid"}, {}, OTHER),
        ("u", None, {"status": "delivered"}, "missing_field"),
        ("u", {"id": 7}, {"status": "delivered"}, "missing_field"),
        ("u", None, {"status": "lost"}, OTHER),
        ("u", {"status": "paid"}, {"status": "__debezium_unavailable_value"}, OTHER),
        ("d", {"status": "delivered"}, None, OTHER),
        ("r", None, {"status": "delivered"}, OTHER),
    ],
)
def test_a_rule_fires_only_where_its_column_changed(
    tmp_path: Path, op: str, before: Any, after: Any, kind: str
) -> None:
    whole = {"id": 7, "customer_id": 42}
    rows = [row if row is None else whole | row for row in (before, after)]
    if before == {"id": 7}:
        rows[0] = before
    assert told(change(op, rows[1], rows[0]), mapped(tmp_path, DELIVERED)) == [(kind, "42")]


@pytest.mark.parametrize(("choice", "kind"), [("fire", "order_delivered"), ("skip", OTHER)])
def test_a_rule_may_say_what_holds_where_the_row_before_is_unknown(tmp_path: Path, choice: str, kind: str) -> None:
    options = mapped(tmp_path, DELIVERED | {"if_unknown": choice})
    assert told(change("u", ROW | {"status": "delivered"}), options) == [(kind, "42")]


def test_the_dead_letter_of_an_unknown_change_names_rule_and_fix(tmp_path: Path) -> None:
    (refused,) = outcomes(change("u", ROW | {"status": "delivered"}), mapped(tmp_path, PLACED, DELIVERED))
    assert isinstance(refused, Rejection)
    assert refused.detail.startswith("ingest.debezium_map: tables.inventory.orders.1: before has no status")
    assert "if_unknown" in refused.detail


def test_several_rules_make_several_events_of_one_change(tmp_path: Path) -> None:
    paid = {"on": ["c"], "type": "purchased", "person": "customer_id", "properties": {"value": "total"}}
    found = outcomes(change(), mapped(tmp_path, PLACED, paid))
    assert [one.type for one in found if isinstance(one, Event)] == ["order_placed", "purchased"]
    assert len({one.id for one in found if isinstance(one, Event)}) == 2
    assert isinstance(found[1], Event)
    assert found[1].properties == {"value": 12.5}


@pytest.mark.parametrize("snapshot", ["true", True, "last", "first", "first_in_data_collection", "incremental"])
@pytest.mark.parametrize("op", ["r", "c"])
def test_a_snapshot_is_no_change(tmp_path: Path, snapshot: Any, op: str) -> None:
    message = change(op, source={"snapshot": snapshot})
    assert told(message, mapped(tmp_path, PLACED)) == [(OTHER, "42")]
    assert told(message, mapped(tmp_path, PLACED | {"on": ["r"]})) == [("order_placed", "42")]


def test_a_deletion_is_about_the_row_before_it(tmp_path: Path) -> None:
    options = mapped(tmp_path, {"on": "d", "type": "churned", "person": "customer_id"})
    assert told(change("d", None, ROW), options) == [("churned", "42")]
    assert told(change("d", None, {"id": 7}), options) == [("missing_field", "None")]
    assert told(change("d", None, None), options) == [("missing_field", "None")]


@pytest.mark.parametrize(("op", "asked"), [("d", "d"), ("u", "c"), ("u", "u")])
def test_of_a_row_that_was_not_logged_only_a_rule_wants_to_know_more(tmp_path: Path, op: str, asked: str) -> None:
    message = change(op, None, None)
    table = "shop.inventory.orders"
    assert told(message) == told(message, mapped(tmp_path, PLACED | {"on": ["r"]})) == [(OTHER, table)]
    expected = ("missing_field", "None") if op == asked else (OTHER, table)
    assert told(message, mapped(tmp_path, PLACED | {"on": asked})) == [expected]


def test_the_worker_says_so_where_a_debezium_topic_has_no_map(tmp_path: Path) -> None:
    topics = {"raw": [{"name": "shop", "format": "debezium"}, {"name": "web"}]}
    assert unmapped(settings_of(topics=topics)) == (
        "topics.raw: shop: debezium, but ingest.debezium_map is not set: all changes are counted as `other`"
    )
    assert unmapped(settings_of(topics=topics, ingest={"debezium_map": tmp_path / "map.yaml"})) is None
    assert unmapped(settings_of()) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"schema": None, "payload": None}, [("tombstone", "None")]),
        (change("t", None), [(OTHER, "shop.inventory.orders")]),
        (change("m", None, source={"table": None, "schema": None}, message={"prefix": "p", "content": "Zm9v"}),
         [(OTHER, "crm")]),
        (change("x"), [("unknown_type", "None")]),
        (change("c", None), [("missing_field", "None")]),
        (change("c", 7), [("bad_field", "None")]),
        (change(source={"ts_ms": None}, ts_ms=None), [("missing_field", "None")]),
        (change(source={"ts_ms": "soon"}), [("bad_time", "None")]),
        (change(source={"table": None, "name": None, "connector": None}), [("missing_field", "None")]),
        ([change(), 7], [(OTHER, "shop.inventory.orders:7"), ("not_an_object", "None")]),
    ],
)  # fmt: skip
def test_what_is_no_change_of_a_row(message: Any, expected: list[tuple[str, str]]) -> None:
    assert told(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        {"ts_ms": AT_MS}, {"status": "BEGIN", "id": "571:53195829", "event_count": None, "ts_ms": AT_MS},
        {"source": {"table": "orders"}, "databaseName": "shop", "ddl": "ALTER TABLE orders", "tableChanges": []},
    ],
)  # fmt: skip
def test_heartbeats_transactions_and_schema_changes_are_told_apart(message: dict[str, Any]) -> None:
    (refused,) = decode(json.dumps(message).encode(), "debezium", NO_MAP)
    assert isinstance(refused, Rejection)
    assert refused.reason == "unknown_type"
    assert "need not be read" in refused.detail


def test_a_redelivered_change_has_the_id_that_it_had_and_others_have_not(tmp_path: Path) -> None:
    options = mapped(tmp_path, PLACED)
    first = event(change(), options).id
    again = change(source={"version": "3.0.0.Final", "sequence": None}, ts_ms=AT_MS + 90_000)
    assert event(again, options).id == first
    others = [change(source={"lsn": 1}), change(source={"txId": 1}), change(after=ROW | {"id": 8})]
    assert len({first, *(event(other, options).id for other in others)}) == 4


@pytest.mark.parametrize(
    ("value", "kind", "cell"),
    [
        (19_829, "io.debezium.time.Date", {"at": "23:59"}),
        (19_829, None, {"unit": "d", "at": "23:59"}),
        ("2024-04-16", None, {"at": "23:59"}),
        (19_829, "org.apache.kafka.connect.data.Date", {"at": "23:59"}),
        (1_713_311_940_000, "io.debezium.time.Timestamp", {}),
        (1_713_311_940_000_000, "io.debezium.time.MicroTimestamp", {}),
        (1_713_311_940_000_000_000, "io.debezium.time.NanoTimestamp", {}),
        (1_713_311_940_000, "org.apache.kafka.connect.data.Timestamp", {}),
        (1_713_319_140_000, "io.debezium.time.Timestamp", {"zone": "Europe/Berlin"}),
        ("2024-04-16T23:59:00Z", "io.debezium.time.ZonedTimestamp", {}),
        (1_713_311_940, None, {}),
        (1_713_311_940_000, None, {}),
        (1_713_311_940_000_000, None, {"unit": "us"}),
        (1_713_311_940_000_000_000, None, {"unit": "ns"}),
        ("2024-04-16 23:59:00", None, {"zone": "UTC"}),
    ],
)
def test_times_in_every_encoding(tmp_path: Path, value: Any, kind: str | None, cell: dict[str, str]) -> None:
    options = mapped(tmp_path, PLACED | {"properties": {"promised_at": {"column": "due"} | cell}})
    message = change(after=ROW | {"due": value})
    found = event(with_schema(message, due=kind) if kind else message, options)
    assert found.properties == {"promised_at": 1_713_311_940.0}


@pytest.mark.parametrize(
    ("kind", "cell", "time_s"),
    [
        ("io.debezium.time.Date", {}, 1_713_225_600.0),
        ("io.debezium.time.Date", {"zone": "Europe/Berlin"}, 1_713_218_400.0),
        (None, {"unit": "d"}, 1_713_225_600.0),
    ],
)
def test_a_date_is_its_midnight(tmp_path: Path, kind: str | None, cell: dict[str, str], time_s: float) -> None:
    options = mapped(tmp_path, PLACED | {"time": {"column": "made"} | cell, "properties": {}})
    message = change(after=ROW | {"made": 19_829})
    assert event(with_schema(message, made=kind) if kind else message, options).time == time_s


def test_a_time_of_its_own_wins_over_that_of_the_commit(tmp_path: Path) -> None:
    options = mapped(tmp_path, PLACED | {"time": {"column": "made", "unit": "us"}})
    assert event(change(after=ROW | {"made": 1_713_000_000_000_000}), options).time == 1_713_000_000.0


def _precise(unscaled: int) -> str:
    return b64encode(unscaled.to_bytes(4, "big", signed=True)).decode()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (_precise(1250), ("org.apache.kafka.connect.data.Decimal", {"scale": "2"})),
        (_precise(1250), ("org.apache.kafka.connect.data.Decimal", {"scale": "2", "connect.decimal.precision": "10"})),
        ({"scale": 2, "value": _precise(1250)}, "io.debezium.data.VariableScaleDecimal"),
        ("12.50", "string"),
        (12.5, "double"),
    ],
)
def test_decimals_in_every_encoding(tmp_path: Path, value: Any, kind: Any) -> None:
    options = mapped(tmp_path, {"type": "purchased", "person": "customer_id", "properties": {"value": "total"}})
    found = event(with_schema(change(after=ROW | {"total": value}), total=kind), options)
    assert found.properties == {"value": 12.5}


def test_a_negative_decimal_keeps_its_sign(tmp_path: Path) -> None:
    options = mapped(tmp_path, {"type": "purchased", "person": "customer_id", "properties": {"value": "total"}})
    kind = ("org.apache.kafka.connect.data.Decimal", {"scale": "2"})
    assert event(with_schema(change(after=ROW | {"total": _precise(-5)}), total=kind), options).properties == {
        "value": -0.05
    }


def test_a_precise_decimal_without_schema_is_refused_with_its_rule(tmp_path: Path) -> None:
    options = mapped(tmp_path, {"type": "purchased", "person": "customer_id", "properties": {"value": "total"}})
    (refused,) = outcomes(change(after=ROW | {"total": "BOI="}), options)
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.person) == ("bad_field", "42")
    assert refused.detail.startswith("ingest.debezium_map: tables.inventory.orders.0: properties.value")
    assert "BOI" not in refused.detail


def test_a_flattened_row_is_a_change_too(tmp_path: Path) -> None:
    options = mapped(tmp_path, PLACED, DELIVERED | {"if_unknown": "fire"}, table="orders")
    flat = ROW | {"__op": "c", "__table": "orders", "__source_ts_ms": AT_MS, "__lsn": 1, "__deleted": "false"}
    assert told(flat, options) == [("order_placed", "42")]
    assert event(flat, options).time == AT_MS / 1000
    assert told(flat | {"__op": "u", "status": "delivered"}, options) == [("order_delivered", "42")]
    assert told(flat | {"__deleted": "true"}, options) == [(OTHER, "42")]
    assert told({"schema": {}, "payload": flat}, options) == [("order_placed", "42")]


def test_documents_of_mongodb_are_json_within_json(tmp_path: Path) -> None:
    options = mapped(tmp_path, {"type": "order_placed", "person": "buyer.id"}, table="shop.orders")
    source = {"table": None, "schema": None, "collection": "orders", "connector": "mongodb"}
    assert told(change(after=json.dumps({"_id": 7, "buyer": {"id": "b-1"}}), source=source), options) == [
        ("order_placed", "b-1")
    ]
    assert told(change(after="{", source=source), options) == [("not_json", "None")]


def test_no_column_may_speak_for_the_whole_source(tmp_path: Path) -> None:
    options = mapped(tmp_path, {"type": {"column": "status"}, "person": "customer_id"})
    assert told(change(after=ROW | {"status": "clock"}), options) == [("unknown_type", "None")]
    assert told(change(after=ROW | {"status": "churned"}), options) == [("churned", "42")]


def test_two_ids_and_a_session_may_come_from_columns(tmp_path: Path) -> None:
    rule = {"type": "lead_created", "person": "lead", "also_person": "visitor", "id": "{id}-{lead}"}
    found = event(change(after={"id": 7, "lead": "l-1", "visitor": "v-1"}), mapped(tmp_path, rule))
    assert (found.id, found.person, found.also_person) == ("7-l-1", "l-1", "v-1")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("tables: {orders: [{type: purchased}]}", "tables.orders.0.*person: missing"),
        ("tables: {orders: [{person: a}]}", "tables.orders.0.*type: missing"),
        ("tables: {orders: [{type: teleported, person: a}]}", "tables.orders.0.type.*teleported"),
        ("tables: {orders: [{type: purchased, person: a, on: [z]}]}", "tables.orders.0.on.0"),
        ("tables: {orders: [{type: purchased, person: a, on: []}]}", "tables.orders.0.on"),
        ("tables: {orders: [{type: purchased, person: a, if_unknown: maybe}]}", "tables.orders.0.if_unknown"),
        ("tables: {orders: [{type: purchased, person: a, chnged: b}]}", "tables.orders.0.chnged"),
        ("tables: {orders: [{type: purchased, person: a, id: '{row}'}]}", "tables.orders.0.*for files"),
        ("tables: {orders: [{type: purchased, person: a, properties: {x: {column: b, unit: us}}}]}", "0.properties"),
        ("tabels: {}", "tabels"),
        ("[", "YAML"),
        ("7", "mapping"),
    ],
)
def test_a_wrong_map_stops_the_start_and_names_knob_and_key(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"(?s)ingest\.debezium_map .*tables\.yaml: .*{named}"):
        FormatOptions.from_settings(settings_of(ingest={"debezium_map": path}), NOW_S)


def test_a_missing_map_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest\.debezium_map .*none\.yaml"):
        FormatOptions.from_settings(settings_of(ingest={"debezium_map": tmp_path / "none.yaml"}), NOW_S)


def test_whatever_a_mapped_table_sends_the_law_of_the_door_holds(tmp_path: Path) -> None:
    everything = {"type": {"column": "status", "values": {"paid": "order_placed"}}, "person": "customer_id",
                  "also_person": "id", "page": "note", "time": {"column": "made", "unit": "us"},
                  "properties": {"promised_at": {"column": "due", "at": "23:59"}, "value": "total", "correct": "ok"},
                  "segment": {"channel": "via"}, "id": "{id}-{total}", "on": ["c", "u", "d", "r"]}  # fmt: skip
    options = mapped(tmp_path, PLACED, DELIVERED | {"if_unknown": "fire"}, everything)
    row = ROW | {"made": 1_690_000_000_000_000, "due": 19_500, "via": "web", "note": "/a", "ok": "yes"}
    plain = change("u", row, row | {"status": "new"})
    types: dict[str, Any] = {"due": "io.debezium.time.Date", "made": "io.debezium.time.MicroTimestamp",
             "total": ("org.apache.kafka.connect.data.Decimal", {"scale": "2"})}  # fmt: skip
    messages = [plain, with_schema(plain, **types), row | {"__op": "u", "__table": "orders", "__ts_ms": AT_MS}]
    kept = [Seed(message, json.dumps(message).encode()) for message in messages]
    assert [one for one, _ in told(plain, options)] == ["order_placed"]

    @hypothesis.settings(max_examples=200, deadline=None)
    @hypothesis.given(st.sampled_from(kept), PROGRAMS)
    def law(seed: Seed, steps: list[Step]) -> None:
        check(mutated(seed, steps), "debezium", None, options)

    law()
