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
