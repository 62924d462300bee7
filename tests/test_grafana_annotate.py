"""Findings on Grafana's dashboards: once each, in their own time, and never at the cost of the line."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from detectors._base import Detector
from streams import annotate
from streams.annotate import BELIEVE_S, OUTCOMES, Annotator, annotation
from streams.app import Line
from streams.findings import LEAST, Finding
from streams.frames import encode_json
from streams.stage import ExactStage, Pace, Record, Told
from streams.units import finding_record
from tests.grafana_stub import TOKEN, GrafanaStub, grafana_stub, until
from tests.test_metrics import SETTINGS, samples, text_of

TOPIC = SETTINGS.topics.findings
FINDING = Finding(
    id="ab12", detector="early_dropoff", kind="early_dropoff", segment={"stage": "evaluate", "campaign": "<b>&1"},
    direction="worse", level="alert", onset="2026-03-01T10:00:00Z", detected_at="2026-03-01T12:00:00Z", before=0.4,
    after=0.3, unit="ratio", n_before=1000, n_after=500, score=0.9, owner="growth-team",
    summary="Early drop-off at evaluate (campaign=<b>&1): 40.0 % before, 30.0 % since 2026-03-01 10:00 UTC, worse.",
    evidence={},
)  # fmt: skip
ONSET_MS = 1_772_359_200_000
RESOLVED = msgspec.structs.replace(FINDING, resolved_at="2026-03-02T09:00:00Z")


@pytest.fixture
def stub() -> Iterator[GrafanaStub]:
    with grafana_stub() as running:
        yield running


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotate, "PAUSE_S", 0.01)
    monkeypatch.setattr(annotate, "LONGEST_PAUSE_S", 0.02)


def settings(stub: GrafanaStub, **more: Any) -> Any:
    given = {"grafana_url": stub.url, "grafana_token": TOKEN, "grafana_annotations": True, **more}
    return SETTINGS.model_validate({**SETTINGS.model_dump(), "monitoring": given})


@asynccontextmanager
async def running(
    stub: GrafanaStub, room: int | None = None, clock: Callable[[], float] = time.monotonic, **more: Any
) -> AsyncIterator[Annotator]:
    annotator = Annotator(settings(stub, **more), room=room, clock=clock)
    async with annotator:
        yield annotator


def numbered(number: int) -> Finding:
    return msgspec.structs.replace(FINDING, id=f"n{number}")


def give(annotator: Annotator, *findings: Finding) -> None:
    for finding in findings:
        record = finding_record(finding, TOPIC)
        assert record.value is not None
        annotator.offer(record.key, record.value)


async def settled(annotator: Annotator, **outcomes: int) -> None:
    """Wait until these are the outcomes, and nothing waits."""
    await asyncio.to_thread(
        until, lambda: all(annotator.outcomes[name] >= n for name, n in outcomes.items()) and not annotator.waiting
    )
    expected = {**dict.fromkeys(OUTCOMES, 0), **outcomes}
    assert {name: annotator.outcomes[name] for name in expected if name != "retried"} == {
        name: count for name, count in expected.items() if name != "retried"
    }


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


# ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finding_is_shown_from_its_onset_with_owner_and_segment_and_no_markup() -> None:
    shown = annotation(FINDING, "https://status.example/")
    assert (shown.key, shown.time_ms, shown.end_ms) == ("finding:ab12", ONSET_MS, ONSET_MS + 7_200_000)
    assert shown.body["tags"] == ["trustwatch", "finding", "early_dropoff", "worse", "finding:ab12"]
    assert shown.text == (
        "Early drop-off at evaluate (campaign=&lt;b&gt;&amp;1): 40.0 % before, 30.0 % since 2026-03-01 10:00 UTC,"
        " worse.\nOwner: growth-team. Segment: evaluate (campaign=&lt;b&gt;&amp;1).\nhttps://status.example/#finding=ab12"
    )


def test_a_resolved_one_until_its_end() -> None:
    shown = annotation(RESOLVED)
    assert shown.end_ms == ONSET_MS + 23 * 3_600_000
    assert "Ended 2026-03-02 09:00 UTC." in shown.text and "#finding" not in shown.text


def test_one_that_was_over_before_it_began_ends_when_it_began() -> None:
    assert annotation(msgspec.structs.replace(FINDING, detected_at="2026-02-01T00:00:00Z")).end_ms == ONSET_MS


@pytest.mark.parametrize("few", ["n_before", "n_after"])
def test_one_of_few_people_is_shown_without_its_numbers(few: str) -> None:
    finding = msgspec.structs.replace(RESOLVED, **{few: LEAST - 1})
    assert annotation(finding, "https://status.example/").text == (
        "early_dropoff: fewer than 5 people, not shown. Ended 2026-03-02 09:00 UTC.\nOwner: growth-team."
        " Segment: evaluate (campaign=&lt;b&gt;&amp;1).\nhttps://status.example/#finding=ab12"
    )
    assert "40.0 %" in annotation(msgspec.structs.replace(RESOLVED, **{few: LEAST})).text


# ── once ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finding_is_posted_when_it_begins_and_updated_when_it_ends(stub: GrafanaStub) -> None:
    async def test() -> None:
        async with running(stub) as annotator:
            give(annotator, FINDING)
            await settled(annotator, posted=1)
            give(annotator, msgspec.structs.replace(FINDING, after=0.29, summary="again, some hours later"))
            await settled(annotator, posted=1, known=1)
            give(annotator, RESOLVED)
            await settled(annotator, posted=1, known=1, updated=1)

    run(test)
    (note,) = stub.notes.values()
    assert (note["time"], note["timeEnd"]) == (ONSET_MS, ONSET_MS + 23 * 3_600_000)
    assert len(stub.writes) == 2


def test_after_a_restart_what_is_told_again_is_known(stub: GrafanaStub) -> None:
    async def test() -> None:
        for outcome in ("posted", "known"):
            async with running(stub) as annotator:
                give(annotator, FINDING, numbered(1), numbered(2))
                await settled(annotator, **{outcome: 3})

    run(test)
    assert len(stub.notes) == 3 and len(stub.writes) == 3


def test_a_grafana_that_lost_all_it_had_is_shown_it_again_within_the_hour(stub: GrafanaStub) -> None:
    now_s = 0.0

    async def test() -> None:
        nonlocal now_s
        async with running(stub, clock=lambda: now_s) as annotator:
            give(annotator, FINDING)
            await settled(annotator, posted=1)
            stub.notes.clear()
            now_s = BELIEVE_S - 1
            asked = len(stub.requests)
            give(annotator, FINDING)
            await settled(annotator, posted=1, known=1)
            assert (len(stub.requests), stub.notes) == (asked, {})
            now_s = BELIEVE_S
            give(annotator, FINDING)
            await settled(annotator, posted=2, known=1)

    run(test)
    assert [note["tags"][-1] for note in stub.notes.values()] == ["finding:ab12"]


@pytest.mark.parametrize(("status", "outcome"), [(503, {"posted": 3}), (401, {"posted": 2, "refused": 1})], ids=str)
def test_and_at_once_where_it_was_away_or_had_forgotten_our_token(
    stub: GrafanaStub, status: int, outcome: dict[str, int]
) -> None:
    async def test() -> None:
        async with running(stub, clock=lambda: 0.0) as annotator:
            give(annotator, FINDING)
            await settled(annotator, posted=1)
            stub.notes.clear()
            stub.fail(status, times=1)
            give(annotator, numbered(1))
            await settled(annotator, **{name: n - (name == "posted") for name, n in outcome.items()})
            give(annotator, FINDING)
            await settled(annotator, **outcome)

    run(test)
    assert "finding:ab12" in [note["tags"][-1] for note in stub.notes.values()]


def test_two_workers_that_tell_of_the_same_leave_one(stub: GrafanaStub) -> None:
    async def test() -> None:
        async with running(stub) as one, running(stub) as two:
            for number in range(20):
                give(one, numbered(number))
                give(two, numbered(number))
            await asyncio.to_thread(until, lambda: sum(one.outcomes.values()) + sum(two.outcomes.values()) == 40)

    run(test)
    assert sorted(tag for note in stub.notes.values() for tag in note["tags"] if ":" in tag) == sorted(
        f"finding:n{number}" for number in range(20)
    )


def test_nothing_is_asked_of_grafana_unless_it_is_configured(stub: GrafanaStub) -> None:
    async def send(_: Iterable[Record]) -> None: ...

    async def test() -> None:
        async with running(stub, grafana_annotations=False) as annotator:
            assert annotator.after(send) is send

    run(test)
    assert stub.requests == []


# ── the line never waits ──────────────────────────────────────────────────────────────────────────────────────────────


class Unit:
    """One that gives a finding with each message."""

    def take(self, value: bytes, offset: int) -> list[Record]:
        return [finding_record(numbered(offset), TOPIC), Record("counts", 0, b"", value)]

    def written(self) -> list[float]:
        return []

    def standing(self) -> list[Record]:
        return []

    def snapshot(self) -> bytes:
        return b""

    def restore(self, blob: bytes) -> None: ...


class Log:
    """A source without end, and a store that keeps nothing."""

    async def beginnings(self, partitions: Iterable[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    async def seek(self, partition: int, offset: int) -> None: ...

    def end(self, partition: int) -> int | None:
        return None

    async def load(self, partitions: Iterable[int]) -> AsyncIterator[tuple[int, None]]:
        for partition in partitions:
            yield partition, None


class Message:
    """A Faust event, as far as a stage knows it."""

    def __init__(self, offset: int) -> None:
        self.message, self.value = self, b"x"
        self.partition, self.offset, self.timestamp = 0, offset, 1.0

    def ack(self) -> None: ...


@pytest.mark.parametrize("action", ["hang", "drop", 500, 401])
def test_a_stage_goes_on_whatever_grafana_does(stub: GrafanaStub, action: int | str) -> None:
    """Every batch is through while Grafana has not answered a single request, and what has no room is counted."""
    stub.fail(action)
    sent: list[Record] = []
    latencies: list[float] = []

    async def send(records: Iterable[Record]) -> None:
        sent.extend(records)

    async def test() -> None:
        async with running(stub, room=10) as annotator:
            log: Any = Log()
            told = Told(latencies.append, lambda _: None)
            to, pace = annotator.after(send), Pace(2.0, 60.0)
            stage = ExactStage("watch", lambda _: Unit(), log, to, log, pace, told, asyncio.Lock())
            stage.assign([0])
            for offset in range(50):
                await stage.run([Message(offset)])
            assert (len(latencies), len(sent), stage.failed) == (50, 100, False)
            assert annotator.waiting <= 10
            if action == "hang":
                await asyncio.to_thread(until, lambda: bool(stub.requests))
                assert len(stub.requests) == 1
                assert annotator.outcomes == {**dict.fromkeys(OUTCOMES, 0), "dropped": 40}

    run(test)
    assert not stub.notes


def test_the_end_does_not_wait_for_a_grafana_that_hangs(stub: GrafanaStub) -> None:
    stub.fail("hang")

    async def test() -> None:
        async with running(stub) as annotator:
            give(annotator, FINDING)
            await asyncio.to_thread(until, lambda: bool(stub.requests))
        assert not stub.released.is_set()  # the request is still in hand, and we are through
        assert annotator.outcomes["posted"] == 0

    run(test)


def test_what_could_not_be_sent_is_not_annotated(stub: GrafanaStub) -> None:
    async def send(_: Iterable[Record]) -> None:
        raise RuntimeError("the broker is away")

    async def test() -> None:
        async with running(stub) as annotator:
            with pytest.raises(RuntimeError):
                await annotator.after(send)([finding_record(FINDING, TOPIC)])
            assert annotator.waiting == 0

    run(test)
    assert stub.requests == []


def test_only_findings_are_taken(stub: GrafanaStub) -> None:
    async def send(_: Iterable[Record]) -> None: ...

    async def test() -> None:
        annotator = Annotator(settings(stub))
        records = [
            Record(TOPIC, None, b"deleted", None),
            Record("counts", 0, b"", b"x"),
            finding_record(FINDING, TOPIC),
        ]
        await annotator.after(send)(iter(records))
        assert annotator.waiting == 1

    run(test)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grafana_that_comes_back_gets_what_waited(stub: GrafanaStub, caplog: pytest.LogCaptureFixture) -> None:
    stub.fail(503, times=5)

    async def test() -> None:
        async with running(stub) as annotator:
            give(annotator, FINDING, numbered(1))
            await settled(annotator, posted=2)
            assert annotator.outcomes["retried"] == 5

    with caplog.at_level(logging.WARNING):
        run(test)
    assert len(stub.notes) == 2
    warnings = [record.message for record in caplog.records if "not annotated for now" in record.message]
    assert len(warnings) == 1 and TOKEN not in caplog.text


def test_what_is_refused_is_counted_and_told_and_the_next_one_goes_on(
    stub: GrafanaStub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.fail(403, times=1)

    async def test() -> None:
        async with running(stub) as annotator:
            give(annotator, FINDING, numbered(1))
            await settled(annotator, refused=1, posted=1)

    run(test)
    assert "finding ab12 is not annotated" in caplog.text and "Fix: give the service account" in caplog.text
    assert TOKEN not in caplog.text


def test_bytes_that_are_no_finding_do_not_end_it(stub: GrafanaStub) -> None:
    async def test() -> None:
        async with running(stub) as annotator:
            annotator.offer(b"\xff", b"no finding")
            annotator.offer(b"x", encode_json({**msgspec.structs.asdict(FINDING), "onset": "soon"}))
            give(annotator, FINDING)
            await settled(annotator, refused=2, posted=1)

    run(test)


def test_newer_word_of_a_finding_takes_the_place_of_the_older(stub: GrafanaStub) -> None:
    async def test() -> None:
        annotator = Annotator(settings(stub), room=2)
        give(annotator, FINDING, numbered(1), RESOLVED, numbered(2))
        assert (annotator.waiting, annotator.outcomes["dropped"]) == (2, 1)
        async with annotator:
            await settled(annotator, posted=2, dropped=1)

    run(test)
    assert {note["timeEnd"] for note in stub.notes.values()} == {ONSET_MS + 23 * 3_600_000, ONSET_MS + 7_200_000}


def test_there_is_room_for_all_that_is_told_again(stub: GrafanaStub) -> None:
    kept = SETTINGS.limits.findings * SETTINGS.topics.counts_partitions
    annotator = Annotator(settings(stub))
    give(annotator, *(numbered(number) for number in range(kept)))
    assert annotator.outcomes["dropped"] == 0
    give(annotator, numbered(kept))
    assert annotator.outcomes["dropped"] == 1


# ── the line ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_outcome_is_counted_from_the_beginning(stub: GrafanaStub) -> None:
    line = Line(settings(stub))
    name = "trustwatch_annotations_total"
    assert samples(text_of(line), name) == {(outcome,): 0.0 for outcome in OUTCOMES}
    line.annotator.outcomes["dropped"] = 3
    assert samples(text_of(line), name)["dropped",] == 3.0
    assert issubclass(next(iter(line.plan.detectors.classes.values())), Detector)


def test_the_watch_stage_of_a_line_annotates_and_the_other_does_not(stub: GrafanaStub) -> None:
    line = Line(settings(stub))
    assert line.watch._send != line.outbox.send
    assert line.sessionize._send == line.outbox.send
    plain = Line(SETTINGS)
    assert plain.watch._send == plain.outbox.send
