"""Recorded files become messages, and no line or row is lost."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from streams.errors import ConfigError, TrustwatchError, UsageError
from streams.events import Event
from streams.formats import FormatOptions, decode
from streams.mapping import Mapping, load_mapping
from streams.recorded import RecordedFile, read_messages
from streams.settings import Settings

OPTIONS = FormatOptions.from_settings(Settings(), 1_700_000_000.0)
REES46 = Path(__file__).parents[2] / "shared" / "data" / "rees46_cosmetics_2019-10_first3h.csv"
BASE: dict[str, Any] = {"time": {"column": "at"}, "person": "who", "type": "page_viewed"}
NOON = "2019-10-01T12:00:00+00:00"


def table(tmp_path: Path, text: str, **mapping: Any) -> list[dict[str, Any]]:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return [json.loads(message) for message in RecordedFile(path, mapping=Mapping.model_validate(BASE | mapping))]


def reasons(messages: list[dict[str, Any]]) -> list[str]:
    outcomes = [decode(json.dumps(message).encode(), "native", OPTIONS)[0] for message in messages]
    return ["accepted" if isinstance(outcome, Event) else outcome.reason for outcome in outcomes]


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.log"])
@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\n\n\xff\x00\n", [b"a", b"", b"\xff\x00"]),
        (b"\n", [b""]),
        (b"", []),
    ],
)
def test_a_line_is_a_message_byte_for_byte(tmp_path: Path, name: str, content: bytes, messages: list[bytes]) -> None:
    path, zipped = tmp_path / name, tmp_path / f"{name}.gz"
    path.write_bytes(content)
    zipped.write_bytes(gzip.compress(content))
    assert list(read_messages(path)) == list(read_messages(zipped)) == messages


def test_a_json_file_is_one_message_with_its_newlines(tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    path.write_bytes(b'{\n"batch": []\n}\n')
    assert list(read_messages(path)) == [b'{\n"batch": []\n}\n']


def test_a_monstrous_line_is_cut_and_the_next_one_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.recorded.MAX_MESSAGE_BYTES", 10)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"x" * 3_000_000 + b"\nnext\n")
    assert list(read_messages(path)) == [b"x" * 10, b"next"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_progress_adds_up_to_the_size_on_disk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    content = b'{"a": 1}\n' * 50_000
    path.write_bytes(gzip.compress(content) if suffix else content)
    told: list[int] = []
    file = RecordedFile(path, on_bytes=told.append)
    assert len(list(file)) == 50_000
    assert sum(told) == file.size_bytes == path.stat().st_size


def test_a_file_cut_off_while_zipped_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"a\n" * 9_999)[:-12])
    with pytest.raises(TrustwatchError, match=r"x\.jsonl\.gz: cannot be read to its end"):
        list(read_messages(path))


def test_missing_files_and_tables_without_mapping_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        RecordedFile(tmp_path / "no.jsonl")
    (tmp_path / "x.csv").write_text("a\n")
    with pytest.raises(ConfigError, match="--map"):
        RecordedFile(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("cell", "extra"),
    [("2019-10-01 12:00:00 UTC", {}), ("2019-10-01T14:00:00+02:00", {}), ("1569931200", {}), ("1569931200000", {}),
     ("2019-10-01 14:00:00", {"zone": "Europe/Berlin"}),
     ("01.10.2019 12:00", {"format": "%d.%m.%Y %H:%M", "zone": "UTC"})],
)  # fmt: skip
def test_times_in_the_forms_that_tables_use(tmp_path: Path, cell: str, extra: dict[str, str]) -> None:
    (message,) = table(tmp_path, f"at,who\n{cell},anna\n", time={"column": "at"} | extra)
    (outcome,) = decode(json.dumps(message).encode(), "native", OPTIONS)
    assert isinstance(outcome, Event)
    assert outcome.time == 1_569_931_200


def test_a_table_without_times_gets_them_in_file_order(tmp_path: Path) -> None:
    steps = {"start": "2019-10-01T12:00:00Z", "every_s": 5}
    messages = table(tmp_path, "at,who\n,a\n,b\n", time=steps)
    assert [message["time"] for message in messages] == [1_569_931_200.0, 1_569_931_205.0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{NOON},anna", "accepted"),
        (",anna", "missing_field"),
        (f"{NOON},", "missing_field"),
        ("soon,anna", "bad_time"),
        ("2019-10-01 12:00:00,anna", "bad_time"),
        (f"{NOON}", "missing_field"),
        (f"{NOON},anna,more", "missing_field"),
        ("", "missing_field"),
        (f'{NOON},"{"x" * 200_000}"', "missing_field"),
    ],
)
def test_each_row_is_one_message_and_a_bad_one_is_refused_at_the_door(tmp_path: Path, row: str, reason: str) -> None:
    assert reasons(table(tmp_path, f"at,who\n{row}\n{NOON},bert\n")) == [reason, "accepted"]


def test_cells_are_typed_translated_and_constant(tmp_path: Path) -> None:
    (message,) = table(
        tmp_path, f"at,who,kind,price,ok,mail\n{NOON},anna,1,12.5,yes,\n",
        type={"column": "kind", "values": {1: "purchased"}}, stage={"constant": "buy"},
        segment={"channel": "mail", "source": {"constant": "shop"}},
        properties={"value": "price", "correct": "ok", "form": "kind"},
    )  # fmt: skip
    assert message == {
        "id": "table.csv:1", "type": "purchased", "time": NOON, "person": "anna", "stage": "buy",
        "segment": {"source": "shop"}, "properties": {"value": 12.5, "correct": True, "form": "1"},
    }  # fmt: skip


@pytest.mark.parametrize("cell", ["much", "nan", "inf"])
def test_a_number_that_is_none_reaches_the_door_as_it_is(tmp_path: Path, cell: str) -> None:
    assert reasons(table(tmp_path, f"at,who,x\n{NOON},anna,{cell}\n", properties={"x": "x"})) == ["bad_field"]


def test_a_row_may_make_several_events_with_ids_of_their_own(tmp_path: Path) -> None:
    events = [{"type": "lead_created"}, {"type": "lead_won", "when": {"column": "won", "equals": 1}}]
    messages = table(tmp_path, f"at,who,won\n{NOON},a,1\n{NOON},b,0\n", id="{file}-{who}-{row}", events=events)
    assert [(message["id"], message["type"]) for message in messages] == [
        ("table.csv-a-1", "lead_created"), ("table.csv-a-1:1", "lead_won"), ("table.csv-b-2", "lead_created"),
    ]  # fmt: skip


def test_a_column_may_be_called_row(tmp_path: Path) -> None:
    (message,) = table(tmp_path, f"at,who,row\n{NOON},a,x7\n", id="{file}-{row}")
    assert message["id"] == "table.csv-x7"


def test_a_row_that_no_item_applies_to_is_still_a_message(tmp_path: Path) -> None:
    events = [{"type": "lead_won", "when": {"column": "who", "equals": ["bert", "carl"]}}]
    assert len(table(tmp_path, f"at,who\n{NOON},anna\n", events=events)) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("persn: who", "persn"),
        ("type: teleported", "type.*teleported"),
        ("type: {column: k, values: {a: teleported}}", "type.*teleported"),
        ("properties: {shoe_size: s}", "properties.*shoe_size"),
        ("time: {every_s: 5}", "time"),
        ("time: {column: a, zone: Atlantis/Centre}", "time.zone"),
        ("time: {start: 2024-01-01T00:00:00, every_s: 5}", "time.*zone"),
        ("stage: {column: a, constant: b}", "stage"),
        ("events: [{tpe: x}]", "events.0.tpe"),
        ("properties: {value: {column: a, unit: us}}", "properties.*promised_at"),
        ("time: {column: a, unit: weeks}", "time.unit"),
        ("delimiter: ';;'", "delimiter"),
        ("[", "YAML"),
        ("7", "mapping"),
    ],
)
def test_a_wrong_mapping_is_a_configuration_error_that_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"(?s)m\.yaml: .*{named}"):
        load_mapping(path)


@pytest.mark.parametrize(
    ("mapping", "key"),
    [({"page": "p"}, "page"), ({"id": "{p}"}, "id"), ({"segment": {"team": "p"}}, "segment.team"),
     ({"events": [{"when": {"column": "p", "equals": "x"}}]}, "events.0.when.column")],
)  # fmt: skip
def test_a_column_that_the_table_lacks_is_named_with_its_key(tmp_path: Path, mapping: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: table\.csv has no column 'p'"):
        table(tmp_path, "at,who\n", **mapping)


def test_parquet_rows_are_events_too(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from datetime import UTC, datetime  # noqa: PLC0415

    import pyarrow.parquet as pq  # noqa: PLC0415

    path = tmp_path / "t.parquet"
    noon = datetime(2019, 10, 1, 12, tzinfo=UTC)
    columns = {"at": [noon, None], "who": [7, 8], "price": [1.5, float("nan")]}
    pq.write_table(pa.table(columns), path)
    mapping = Mapping.model_validate(BASE | {"properties": {"value": "price"}})
    messages = [json.loads(message) for message in read_messages(path, None, mapping)]
    assert messages[0] == {
        "id": "t.parquet:1", "type": "page_viewed", "time": NOON, "person": "7", "properties": {"value": 1.5},
    }  # fmt: skip
    assert reasons(messages) == ["accepted", "missing_field"]


def parquet(tmp_path: Path, columns: dict[str, Any], **mapping: Any) -> list[dict[str, Any]]:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    return [json.loads(message) for message in RecordedFile(path, mapping=Mapping.model_validate(BASE | mapping))]


def test_nanoseconds_are_cut_and_a_time_that_cannot_be_is_one_refused_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    noon_ns = 1_569_931_200_123_456_789
    nested = pa.array([{"at": noon_ns}], type=pa.struct([("at", pa.timestamp("ns", "UTC"))]))
    at = pa.array([noon_ns], type=pa.timestamp("ns", "UTC"))
    listed = pa.array([[noon_ns]], type=pa.list_(pa.timestamp("ns")))
    columns = {"at": at, "who": ["a"], "in": nested, "took": pa.array([5], type=pa.duration("ns")), "seen": listed}
    (message,) = parquet(tmp_path, columns, device_time={"column": "in.at"})
    assert message["time"] == message["device_time"] == "2019-10-01T12:00:00.123456+00:00"
    far = pa.array([noon_ns // 1_000_000, 10**16], type=pa.timestamp("ms", "UTC"))
    assert reasons(parquet(tmp_path, {"at": far, "who": ["a", "b"]})) == ["accepted", "missing_field"]


def test_parts_of_nested_columns_are_columns(tmp_path: Path) -> None:
    rows = {"at": [NOON, NOON], "who": [{"id": 7, "seat": {"row": "x"}}, None], "k": [b"cart", None]}
    person, page = "who.id", {"column": "who.seat.row"}
    messages = parquet(tmp_path, rows, person=person, page=page, properties={"form": "k"}, id="{who.id}-{row}")
    assert messages[0]["person"] == "7"
    assert (messages[0]["page"], messages[0]["properties"], messages[0]["id"]) == ("x", {"form": "cart"}, "7-1")
    assert reasons(messages) == ["accepted", "missing_field"]
    with pytest.raises(ConfigError, match=r"person: t\.parquet has no column 'who\.name'; it has .*who\.seat\.row"):
        parquet(tmp_path, rows, person="who.name")


@pytest.mark.parametrize("suffix", [".csv.zst", ".csv.gz", ".csv.zstd"])
def test_packed_tables_are_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    content = f"at,who\n{NOON},anna\n".encode()
    if suffix == ".csv.gz":
        packed = gzip.compress(content)
    else:
        packed = pytest.importorskip("pyarrow").compress(content, codec="zstd", asbytes=True)
    path = tmp_path / f"table{suffix}"
    path.write_bytes(packed)
    told: list[int] = []
    file = RecordedFile(path, mapping=Mapping.model_validate(BASE), on_bytes=told.append)
    assert [json.loads(message)["person"] for message in file] == ["anna"]
    assert sum(told) == file.size_bytes
    path.write_bytes(packed[:-6])
    with pytest.raises(TrustwatchError, match="cannot be read to its end"):
        list(file)


def test_lines_packed_in_several_frames_are_all_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(pa.compress(b"a\nb\n", codec="zstd", asbytes=True) + pa.compress(b"c", codec="zstd", asbytes=True))
    assert list(read_messages(path)) == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("cell", "extra", "time_s"),
    [
        ("1569931200000000", {"unit": "us"}, 1_569_931_200.0),
        ("1569931200000000000", {"unit": "ns"}, 1_569_931_200.0),
        ("1569931200", {"unit": "s"}, 1_569_931_200.0),
        ("18170", {"unit": "d", "at": "12:00", "zone": "UTC"}, 1_569_931_200.0),
        ("2019-10-01", {"at": "14:00", "zone": "Europe/Berlin"}, 1_569_931_200.0),
        ("2019-10-01", {"zone": "Europe/Berlin"}, 1_569_880_800.0),
        ("2019-10-01", {}, 1_569_888_000.0),
        ("18170", {"unit": "d"}, 1_569_888_000.0),
        ("18170", {"unit": "d", "zone": "Europe/Berlin"}, 1_569_880_800.0),
        ("01.10.2019", {"format": "%d.%m.%Y", "zone": "Europe/Berlin"}, 1_569_880_800.0),
        ("01.10.2019", {"format": "%d.%m.%Y"}, 1_569_888_000.0),
        ("01.10.2019", {"format": "%d.%m.%Y", "zone": "Europe/Berlin", "at": "14:00"}, 1_569_931_200.0),
        ("01.10.2019 12:00", {"format": "%d.%m.%Y %H:%M", "at": "14:00"}, None),
        ("2019-10-01 12:00", {"at": "14:00"}, None),
        ("2019-10-01T12:00:00+00:00", {"zone": "Europe/Berlin", "at": "09:00"}, 1_569_931_200.0),
    ],
)
def test_units_are_said_and_a_date_is_its_midnight_unless_said_otherwise(
    tmp_path: Path, cell: str, extra: dict[str, str], time_s: float | None
) -> None:
    (message,) = table(tmp_path, f"at,who\n{cell},anna\n", time={"column": "at"} | extra)
    (outcome,) = decode(json.dumps(message).encode(), "native", OPTIONS)
    assert (outcome.time if isinstance(outcome, Event) else outcome.reason) == (time_s or "bad_time")


def test_dates_of_parquet_are_midnights_too(tmp_path: Path) -> None:
    from datetime import date  # noqa: PLC0415

    rows = {"at": [date(2019, 10, 1)], "who": ["a"]}
    assert parquet(tmp_path, rows)[0]["time"] == "2019-10-01T00:00:00+00:00"
    berlin = {"column": "at", "zone": "Europe/Berlin"}
    assert parquet(tmp_path, rows, time=berlin)[0]["time"] == "2019-10-01T00:00:00+02:00"


def test_a_promised_time_has_a_zone_of_its_own(tmp_path: Path) -> None:
    due = {"promised_at": {"column": "due", "zone": "Europe/Berlin", "at": "23:59"}}
    (message,) = table(tmp_path, f"at,who,due\n{NOON},anna,2019-10-01\n", properties=due)
    assert message["properties"] == {"promised_at": "2019-10-01T23:59:00+02:00"}


def test_two_ids_of_a_person_come_from_two_columns(tmp_path: Path) -> None:
    (message,) = table(tmp_path, f"at,who,crm\n{NOON},anna,c-1\n", also_person="crm")
    assert (message["person"], message["also_person"]) == ("anna", "c-1")


def test_a_broken_parquet_file_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(TrustwatchError, match=r"t\.parquet: no readable Parquet"):
        list(read_messages(tmp_path / "t.parquet", None, Mapping.model_validate(BASE)))


@pytest.mark.skipif(not REES46.exists(), reason="the data are not part of the project")
def test_all_rows_of_the_rees46_shop_are_accepted_with_distinct_ids() -> None:
    mapping = load_mapping(Path(__file__).parent / "data" / "rees46.map.yaml")
    outcomes = [decode(message, "native", OPTIONS)[0] for message in RecordedFile(REES46, mapping=mapping)]
    events = [outcome for outcome in outcomes if isinstance(outcome, Event)]
    assert len({event.id for event in events}) == len(events) == 17_434
    assert len(outcomes) - len(events) == 1  # the file ends within a row
    assert Counter(event.type for event in events)["purchased"] == 214


SNOWPLOW = Path(__file__).parent / "data" / "fixtures" / "snowplow"


@pytest.mark.parametrize("fmt", [None, "snowplow"], ids=["by-shape", "named"])
def test_rows_of_snowplow_are_messages_without_a_mapping(fmt: str | None, tmp_path: Path) -> None:
    plain, read = SNOWPLOW / "enriched_spec3.tsv", list[int]()
    packed = tmp_path / "rows.tsv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        file = RecordedFile(path, fmt, on_bytes=read.append)
        found = [outcome for message in file for outcome in decode(message, file.wire_format, OPTIONS)]
        assert [isinstance(outcome, Event) for outcome in found] == [False, True, False, False, True]
    assert sum(read) == plain.stat().st_size + packed.stat().st_size


@pytest.mark.parametrize("fmt", [None, "native"])
def test_any_other_tsv_needs_a_mapping(fmt: str | None, tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("at\twho\n" + "\t".join("abc") + "\n")
    with pytest.raises(ConfigError, match="--map"):
        RecordedFile(path, fmt)
