"""Recorded files to findings, in process and on the command line."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams import backtest as backtest_module
from streams import cli
from streams.backtest import Backtest, Report, side_by_side, topic_names
from streams.mapping import load_mapping
from streams.recorded import RecordedFile
from streams.settings import Settings
from streams.simulate import Erosion, simulate, write
from tests.kit import T0, native, settings_of

HERE = Path(__file__).parent
REES46 = HERE.parents[1] / "shared" / "data" / "rees46_cosmetics_2019-10_first3h.csv"
SUMMARY = ["events", "accepted", "dead_letters", "duplicates", "late", "steps", "findings", "events_per_s"]
FINDING = ["id", "detector", "kind", "segment", "direction", "level", "onset", "detected_at", "before", "after", "unit",
           "n_before", "n_after", "score", "owner", "summary", "evidence", "resolved_at", "onset_from",
           "onset_to"]  # fmt: skip
EROSIONS = (Erosion("early_dropoff", "evaluate", {}, 4.0, 0.1),)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 25,000 events with a known erosion."""
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    write(simulate(7.0, 3, EROSIONS, sessions_per_day=260, leads_per_day=10), path, days=7.0, seed=3, erosions=EROSIONS)
    return path


def lines(tmp_path: Path, *messages: bytes, name: str = "events.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(b"".join(message + b"\n" for message in messages))
    return path


def run(*paths: Path, settings: Settings | None = None, fmt: str | None = None) -> Report:
    return Backtest(settings or Settings(), fmt=fmt).run([RecordedFile(path, fmt) for path in paths])


# ── in process ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def expected(recorded: Path) -> Report:
    return run(recorded)


@pytest.mark.parametrize("chunk", [37, 100_000])
def test_how_a_file_is_cut_into_chunks_changes_nothing(
    recorded: Path, expected: Report, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtest_module, "side_by_side", partial(side_by_side, chunk=chunk))
    found = run(recorded)
    assert found.findings == expected.findings
    assert found.summary.state_digest == expected.summary.state_digest
    assert found.summary.accepted == expected.summary.accepted > 5_000


def test_a_packed_file_gives_the_same(recorded: Path, expected: Report, tmp_path: Path) -> None:
    packed = tmp_path / "events.jsonl.gz"
    packed.write_bytes(gzip.compress(recorded.read_bytes(), 1))
    assert run(packed).summary.state_digest == expected.summary.state_digest


def test_the_known_erosion_is_found_where_it_is_and_not_before_it_began(expected: Report) -> None:
    found = [f for f in expected.findings if f.detector == "early_dropoff"]
    assert {"stage": "evaluate"} in [finding.segment for finding in found]
    for finding in found:
        assert (finding.segment["stage"], finding.direction) == ("evaluate", "worse")
        assert finding.detected_at > "2025-09-05T00:00:00Z"
        assert finding.onset > "2025-09-04T12:00:00Z"


def test_files_are_read_side_by_side_in_event_time_whatever_their_order(tmp_path: Path) -> None:
    # Were one read after the other, everything of the second would be late, or the sessions in pieces.
    web = lines(
        tmp_path, *(native("page_viewed", i * 60.0, f"p{i % 7}", page="/cart") for i in range(3000)), name="w.jsonl"
    )
    crm = lines(tmp_path, *(native("lead_created", i * 90.0, f"l{i}") for i in range(2000)), name="c.jsonl")
    parts: list[list[list[Any]]] = []
    for paths in ((web, crm), (crm, web)):
        backtest = Backtest(Settings())
        summary = backtest.run([RecordedFile(path) for path in paths]).summary
        assert (summary.late, summary.duplicates, summary.accepted) == (0, 0, 5000)
        # All but tracking, which comes last: it names the source, and the first file stands for the first topic.
        parts.append([msgspec.json.decode(stage.digest_part())[:-1] for stage in backtest.sessionizers])
    assert parts[0] == parts[1]


def test_the_same_ids_in_two_files_are_two_events_and_in_one_file_a_duplicate(tmp_path: Path) -> None:
    message = native("lead_created", 0, "x", id="same")
    one, other = lines(tmp_path, message, name="a.jsonl"), lines(tmp_path, message, message, name="b.jsonl")
    found = run(one, other).summary
    assert (found.accepted, found.duplicates) == (2, 1)


@pytest.mark.parametrize(("behind", "late"), [(30, 0), (31, 1)])
def test_what_is_older_than_the_lateness_is_late(tmp_path: Path, behind: float, late: int) -> None:
    path = lines(tmp_path, native("clicked", 1000), native("clicked", 1000 - behind, id="second"))
    summary = run(path).summary
    assert (summary.late, summary.accepted) == (late, 2 - late)


def test_at_the_end_all_sessions_are_closed_and_all_buckets_judged(tmp_path: Path) -> None:
    summary = run(lines(tmp_path, native("page_viewed", 5, page="/cart"))).summary
    assert (summary.steps, summary.persons_open) == (1, 0)
    assert summary.until >= T0 + 1800


def test_an_empty_file_is_an_empty_report(tmp_path: Path) -> None:
    report = run(lines(tmp_path))
    assert (report.summary.events, report.summary.steps, report.findings) == (0, 0, [])


def test_every_file_is_a_topic_of_its_own() -> None:
    assert topic_names(settings_of(), 4) == ["web-events", "crm-events", "file-2", "file-3"]
    assert topic_names(settings_of(), 1) == ["web-events"]


def of_time(value: Any) -> bytes:
    body = {"id": "x", "type": "clicked", "person": "p", "time": value}
    return json.dumps(body).encode()


GARBAGE = [
    (b"\x00\xff\xfe", "not_json"), (b'{"id": "e", "type": "cli', "not_json"), (b"", "empty"), (b"   ", "empty"),
    (b"7", "not_an_object"), (b"null", "not_an_object"), (b"[]", "empty_batch"), (b'{"a": 1}', "unknown_format"),
    (of_time(0), "time_out_of_range"), (of_time("1970-01-01T00:00:00Z"), "time_out_of_range"),
    (of_time("2100-01-01T00:00:00Z"), "time_out_of_range"), (of_time("soon"), "bad_time"),
    (of_time(None), "missing_field"),
    (of_time(float("nan")), "not_finite"), (of_time(float("inf")), "not_finite"), (of_time([1]), "bad_time"),
    (of_time("2023-11-14T22:13:20"), "bad_time"), (b"[" * 5000, "too_deep"),
    (native("clicked", 0, person=""), "missing_field"), (native("clicked", 0, segment=7), "bad_field"),
    (native("clicked", 0, properties={"x": "much"}), "bad_field"), (native("teleported", 0), "unknown_type"),
    (b'{"type":"clicked","id":"e"}', "missing_field"), (b"x" * 1_100_000, "too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason"), GARBAGE, ids=lambda value: value if isinstance(value, str) else "")
def test_garbage_is_counted_with_its_reason_and_harms_nobody(tmp_path: Path, message: bytes, reason: str) -> None:
    fmt = "native" if b"teleported" in message else None
    path = lines(tmp_path, native("clicked", 0), message, native("clicked", 1))
    summary = run(path, fmt=fmt).summary
    assert (summary.events, summary.accepted, summary.dead_letters) == (3, 2, {reason: 1})


def test_all_garbage_at_once_adds_up(tmp_path: Path) -> None:
    rng = random.Random(4)
    noise = [bytes(b for b in rng.randbytes(rng.randrange(1, 80)) if b != 10) for _ in range(300)]
    messages = [message for message, _ in GARBAGE] + noise
    rng.shuffle(messages)
    summary = run(lines(tmp_path, *messages)).summary
    assert summary.events == len(messages)
    assert summary.accepted + sum(summary.dead_letters.values()) + summary.duplicates + summary.late == summary.events
    assert summary.accepted == 0


def test_no_score_stops_the_line(tmp_path: Path) -> None:
    settings = settings_of(leads={"score_max": 1.0})
    scores = [1e308, -1e308, 0, 1, 0.5]
    messages = (native("lead_scored", i, "l", properties={"score": score}) for i, score in enumerate(scores))
    assert run(lines(tmp_path, *messages), settings=settings).summary.accepted == 5


@pytest.mark.skipif(not REES46.exists(), reason="../shared/data is not there: these data are not part of the project")
def test_the_rees46_shop_is_accepted_but_for_its_cut_off_row() -> None:
    mapping = load_mapping(HERE / "data" / "rees46.map.yaml")
    summary = Backtest(Settings()).run([RecordedFile(REES46, mapping=mapping)]).summary
    assert (summary.events, summary.accepted, summary.duplicates, summary.late) == (17_435, 17_434, 0, 0)
    assert sum(summary.dead_letters.values()) == 1
    assert summary.detector_errors == {}


# ── on the command line ───────────────────────────────────────────────────────────────────────────────────────────

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """`trustwatch …` in an empty directory; anything but a clean exit escapes and fails the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["trustwatch", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capfd.readouterr()
        assert "Traceback" not in told.out + told.err
        return int(stop.value.code or 0), told.out, told.err

    return call  # type: ignore[return-value]


def test_json_ends_with_one_summary_object(command: Command, tmp_path: Path) -> None:
    path = lines(tmp_path, *(native("page_viewed", i, page="/cart") for i in range(10)), b"{", native("page_viewed", 0))
    code, told, _ = command("backtest", path, "--json")
    summary = json.loads(told)
    assert code == 0
    assert list(summary)[:8] == SUMMARY
    assert [summary[name] for name in SUMMARY[:7]] == [12, 10, {"not_json": 1}, 1, 0, 1, 0]
    assert summary["events_per_s"] > 0


def test_findings_are_written_one_a_line_with_the_fields_of_the_contract(
    command: Command, recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "findings.jsonl"
    code, told, _ = command("backtest", recorded, "--detectors", "early_dropoff", "--out", out, "--json",
                            "--set", "early_dropoff.recover_at=6")  # fmt: skip
    findings = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert (code, len(findings)) == (0, json.loads(told)["findings"])
    assert findings
    for finding in findings:
        assert list(finding) == FINDING
        assert finding["detector"] == "early_dropoff"
        assert finding["direction"] in ("worse", "better")
        assert finding["level"] in ("warn", "alert")
        assert all(isinstance(value, int | float) for value in finding["evidence"].values())
        assert finding["onset"] <= finding["detected_at"] <= (finding["resolved_at"] or "9")
        assert finding["onset"].endswith("Z")
    assert [f["detected_at"] for f in findings] == sorted(f["detected_at"] for f in findings)


def test_parameters_can_be_set_and_detectors_chosen(command: Command, recorded: Path) -> None:
    _, told, _ = command("backtest", recorded, "--detectors", "early_dropoff", "--json",
                         "--set", "early_dropoff.stages=[keep]", "--set", "early_dropoff.run_length=1e6")  # fmt: skip
    assert json.loads(told)["findings"] == 0


def test_without_json_a_person_can_read_it(command: Command, tmp_path: Path) -> None:
    code, told, _ = command("backtest", lines(tmp_path, native("clicked", 0)))
    assert code == 0
    assert "accepted" in told


def test_garbage_is_no_failure(command: Command, tmp_path: Path) -> None:
    path = lines(tmp_path, *(message for message, _ in GARBAGE))
    code, told, _ = command("backtest", path, "--json")
    assert (code, json.loads(told)["events"]) == (0, len(GARBAGE))


@pytest.mark.parametrize("value", ["", "=", "early_dropoff", "early_dropoff=1", ".run_length=1", "early_dropoff.=1",
                                   "early_dropoff.run_length=[", "early_dropoff.run_length=2020-13-45"])  # fmt: skip
def test_a_set_of_another_form_is_bad_usage(command: Command, tmp_path: Path, value: str) -> None:
    code, _, told = command("backtest", lines(tmp_path), "--set", value)
    assert code == 2
    assert "--set" in told


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "early_dropof.run_length=1"], "early_dropof"),
        (["--set", "early_dropoff.alert_ad=1"], "early_dropoff.alert_ad"),
        (["--set", "early_dropoff.run_length=high"], "early_dropoff.run_length"),
        (["--set", "step_model.min_looks=-1"], "step_model"),
        (["--detectors", "nobody"], "nobody"),
        (["--format", "avro"], "--format avro"),
        (["--map", "none.yaml"], "none.yaml"),
        (["--out", "/no/such/place/f.jsonl"], "--out /no/such/place/f.jsonl"),
        (["--unheard-of"], "--unheard-of"),
    ],
)
def test_bad_usage_is_named_and_exits_2(command: Command, tmp_path: Path, arguments: list[str], named: str) -> None:
    code, out, told = command("backtest", lines(tmp_path, native("clicked", 0)), *arguments)
    assert (code, out) == (2, "")
    assert named in told


@pytest.mark.parametrize("arguments", [[], ["none.jsonl"], ["."], ["table.csv"]])
def test_a_file_that_cannot_be_taken_is_bad_usage(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    code, _, told = command("backtest", *arguments)
    assert code == 2
    assert told


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.jsonl.gz", b"no gzip"), ("y.jsonl.gz", gzip.compress(b"{}\n" * 999, mtime=0)[:-9])],
    ids=["no gzip", "cut off"],
)
def test_a_file_that_cannot_be_read_to_its_end_fails_with_1(
    command: Command, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    code, _, told = command("backtest", name)
    assert code == 1
    assert name in told


@pytest.mark.parametrize("text", ["time: {buket_s: 1}", "journey_file: none.yaml", "[", "names_file: none.yaml",
                                  "ingest: {earliest_time: soon}", "1: 2"])  # fmt: skip
def test_a_wrong_configuration_exits_2(command: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "trustwatch.yaml").write_text(text)
    code, _, told = command("backtest", lines(tmp_path, native("clicked", 0)))
    assert code == 2
    assert told.lstrip().startswith("trustwatch: ")


def test_a_mapping_that_names_a_missing_column_exits_2(command: Command, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "m.yaml").write_text("{person: nobody, type: clicked, time: {column: a}}")
    code, _, told = command("backtest", "t.csv", "--map", "m.yaml")
    assert code == 2
    assert "nobody" in told


def test_the_end_of_a_file_of_a_fixed_format_is_no_dead_letter(tmp_path: Path) -> None:
    call = {"type": "page", "messageId": "m", "anonymousId": "a", "timestamp": "2025-09-01T10:00:00Z"}
    path = lines(tmp_path, json.dumps(call).encode())
    found = Backtest(settings_of(), fmt="segment").run([RecordedFile(path, "segment")]).summary
    assert (found.events, found.accepted, found.dead_letters, found.persons_open) == (1, 1, {}, 0)
