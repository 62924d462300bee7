"""A finding begins once, keeps its id, changes, is sent again, and ends."""

from __future__ import annotations

import msgspec
import pytest

from detectors._base import Verdict
from detectors._registry import discover
from streams.findings import Finding, iso, summarise
from streams.frames import Segment
from streams.judge import REFRESH_S, Judge
from tests.kit import T0, settings_of

KEY: tuple[str, Segment] = ("evaluate", (("device", "tv"),))
ALERT = Verdict("alert", score=0.91234567, onset=T0 - 3600, before=0.4, after=0.3000001234, n_before=900, n_after=80,
                evidence={"cases": 1.23456789})  # fmt: skip
WARN, OK, WARMING = msgspec.structs.replace(ALERT, level="warn"), Verdict("ok"), Verdict("warming")


def judge(**sections: dict[str, object]) -> Judge:
    return Judge(settings_of(**sections), discover(), lambda _detector, _stage: 40)


def update(made: Judge, name: str, key: tuple[str, Segment], verdict: Verdict, now: float) -> list[Finding]:
    """A bucket in which one stream speaks."""
    made.hear(name, key, verdict, now)
    return made.settle(now)


def said(
    made: Judge, *verdicts: Verdict, key: tuple[str, Segment] = KEY, name: str = "early_dropoff"
) -> list[Finding | None]:
    told = [update(made, name, key, verdict, T0 + 60.0 * i) for i, verdict in enumerate(verdicts)]
    assert all(len(findings) < 2 for findings in told)
    return [findings[0] if findings else None for findings in told]


def test_only_an_alert_begins_a_finding() -> None:
    assert said(judge(), WARMING, OK, WARN) == [None, None, None]
    (finding,) = said(judge(), ALERT)
    assert finding is not None
    assert (finding.level, finding.resolved_at, finding.detector, finding.kind) == (
        "alert",
        None,
        *["early_dropoff"] * 2,
    )
    assert (finding.onset, finding.detected_at) == (iso(T0 - 3600), iso(T0))
    assert finding.segment == {"stage": "evaluate", "device": "tv"}
    assert (finding.score, finding.after, finding.evidence) == (0.9123, 0.3, {"cases": 1.234568})
    assert (finding.onset_from, finding.onset_to) == (None, None)


def test_an_open_finding_is_not_told_again_while_nothing_changes() -> None:
    made = judge()
    assert said(made, ALERT, ALERT, ALERT)[1:] == [None, None]
    assert len(made.state.findings) == len(made.state.open) == 1
    assert made.state.begun == {"early_dropoff": 1}


def test_a_change_of_level_keeps_id_onset_and_time_of_detection() -> None:
    moved = msgspec.structs.replace(WARN, onset=T0, after=0.1)
    first, second, third = said(judge(), ALERT, moved, ALERT)
    assert first and second and third
    assert (second.level, second.after, third.level) == ("warn", 0.1, "alert")
    assert {(f.id, f.onset, f.detected_at) for f in (first, second, third)} == {
        (first.id, first.onset, first.detected_at)
    }


@pytest.mark.parametrize("end", [OK, WARMING])
def test_a_finding_ends_when_its_detector_is_quiet_and_keeps_its_size(end: Verdict) -> None:
    made = judge()
    first, last = said(made, ALERT, end)
    assert first
    assert last == msgspec.structs.replace(first, resolved_at=iso(T0 + 60))
    assert made.state.open == []
    assert said(made, OK) == [None]


def test_a_new_onset_after_the_end_is_a_new_finding() -> None:
    first, _, other = said(judge(), ALERT, OK, msgspec.structs.replace(ALERT, onset=T0))
    assert first and other
    assert first.id != other.id


def test_an_open_finding_is_refreshed_now_and_then() -> None:
    made = judge()
    later = msgspec.structs.replace(ALERT, n_after=500)
    assert update(made, "early_dropoff", KEY, ALERT, T0)
    assert update(made, "early_dropoff", KEY, later, T0 + REFRESH_S - 1) == []
    (refreshed,) = update(made, "early_dropoff", KEY, later, T0 + REFRESH_S)
    assert refreshed
    assert refreshed.n_after == 500
    assert update(made, "early_dropoff", KEY, later, T0 + REFRESH_S + 1) == []


def test_the_id_follows_from_detector_segment_kind_and_onset_only() -> None:
    (first,), (again,) = said(judge(), ALERT), said(judge(), msgspec.structs.replace(ALERT, score=0.5, after=0.1))
    others = [
        said(judge(), ALERT, name="hesitation"), said(judge(), ALERT, key=("compare", KEY[1])),
        said(judge(), ALERT, key=("evaluate", ())), said(judge(), msgspec.structs.replace(ALERT, kind="shift")),
        said(judge(), msgspec.structs.replace(ALERT, onset=T0 - 7200)),
    ]  # fmt: skip
    assert first and again
    assert first.id == again.id
    ids = {found.id for (found,) in others if found}
    assert len(ids | {first.id}) == 6


def test_a_claim_that_is_made_again_keeps_its_id_and_when_it_was_noticed() -> None:
    first, ended, again = said(judge(), ALERT, OK, ALERT)
    assert first and ended and again
    assert (again.id, again.detected_at, again.resolved_at) == (first.id, first.detected_at, None)


def test_the_interval_of_the_onset_is_told_and_stays_with_it() -> None:
    made = judge()
    dated = msgspec.structs.replace(ALERT, onset_from=T0 - 7200, onset_to=T0 - 60)
    moved = msgspec.structs.replace(dated, level="warn", onset=T0, onset_from=T0 - 5, onset_to=T0 + 5)
    first, second = said(made, dated, moved)
    assert first and second
    for finding in (first, second):
        assert (finding.onset_from, finding.onset, finding.onset_to) == (iso(T0 - 7200), iso(T0 - 3600), iso(T0 - 60))


@pytest.mark.parametrize(
    "broken",
    [{"onset": float("nan")}, {"onset_to": 1e30}, {"gain": float("inf")}, {"evidence": {"cases": "many"}},
     {"before": None}],
)  # fmt: skip
def test_a_verdict_that_cannot_be_told_is_refused_and_changes_nothing(broken: dict[str, object]) -> None:
    made = judge()
    said(made, ALERT)
    before = msgspec.json.encode(made.state)
    with pytest.raises((ValueError, TypeError, OverflowError)):
        made.hear("early_dropoff", KEY, msgspec.structs.replace(ALERT, **broken), T0 + 60)
    assert msgspec.json.encode(made.state) == before


def test_streams_have_findings_of_their_own() -> None:
    made = judge()
    said(made, ALERT)
    said(made, ALERT, key=("evaluate", (("device", "mobile"),)))
    said(made, ALERT, key=("compare", KEY[1]))
    said(made, ALERT, name="hesitation")
    assert len(made.state.open) == 4


def test_without_an_onset_it_began_when_it_was_noticed() -> None:
    (finding,) = said(judge(), msgspec.structs.replace(ALERT, onset=None))
    assert finding
    assert finding.onset == finding.detected_at == iso(T0)


@pytest.mark.parametrize(
    ("owners", "owner"),
    [
        ({}, "unowned"),
        ({"default": "anna"}, "anna"),
        ({"default": "anna", "detectors": {"early_dropoff": "bert"}}, "bert"),
        ({"detectors": {"early_dropoff": "bert"}, "stages": {"evaluate": "carl"}}, "carl"),
        ({"detectors": {"hesitation": "bert"}, "stages": {"compare": "carl"}}, "unowned"),
    ],
)
def test_a_stage_owns_before_a_detector_before_the_default(owners: dict[str, object], owner: str) -> None:
    (finding,) = said(judge(owners=owners), ALERT)
    assert finding
    assert finding.owner == owner


def test_the_oldest_resolved_findings_go_first_and_open_ones_stay() -> None:
    made = judge(limits={"findings": 3})
    said(made, ALERT, key=("buy", ()))
    for i in range(6):
        said(made, msgspec.structs.replace(ALERT, onset=T0 + i), OK)
    stages = [finding.segment["stage"] for finding in made.state.findings.values()]
    assert stages == ["buy", "evaluate", "evaluate"]
    assert made.state.begun == {"early_dropoff": 7}
    for stage in ("discover", "compare", "decide", "keep"):
        said(made, ALERT, key=(stage, ()))
    assert len([f for f in made.state.findings.values() if f.resolved_at is None]) == 5


def test_a_judge_goes_on_from_its_state() -> None:
    first, second = judge(), judge()
    said(first, ALERT)
    second.state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=type(first.state))
    assert update(second, "early_dropoff", KEY, ALERT, T0 + 1) == []
    (ended,) = update(second, "early_dropoff", KEY, OK, T0 + 2)
    assert ended
    assert ended.resolved_at == iso(T0 + 2)


@pytest.mark.parametrize(
    ("verdict", "segment", "unit", "expected"),
    [
        (Verdict("alert", before=0.5, after=0.25, n_after=8), {"stage": "buy"}, "ratio",
         "T at buy: 50.0 % before, 25.0 % since 2026-03-01 10:00 UTC, worse, on 8 observations."),
        (Verdict("alert", before=12.345, after=20, n_after=8, direction="better", kind="shift"),
         {"stage": "leads", "source": "ads"}, "seconds",
         "T [shift] for (source=ads): 12.3 seconds before, 20 seconds since 2026-03-01 10:00 UTC, better,"
         " on 8 observations."),
        (Verdict("alert"), {"stage": "leads"}, "ratio",
         "T at leads: 0.0 % before, 0.0 % since 2026-03-01 10:00 UTC, worse, on 0 observations."),
    ],
)  # fmt: skip
def test_the_summary_says_what_where_since_when_and_how_much(
    verdict: Verdict, segment: dict[str, str], unit: str, expected: str
) -> None:
    assert summarise("T", verdict, segment, unit, "2026-03-01T10:00:00Z") == expected


def test_an_alert_of_another_kind_ends_the_finding_and_begins_its_own() -> None:
    made = judge()
    first = msgspec.structs.replace(ALERT, kind="distribution")
    second = msgspec.structs.replace(ALERT, kind="calibration", onset=T0)
    (begun,) = update(made, "lead_score_drift", KEY, first, T0)
    assert update(made, "lead_score_drift", KEY, msgspec.structs.replace(second, level="warn"), T0 + 1) == []
    ended, other = update(made, "lead_score_drift", KEY, second, T0 + 2)
    assert (ended.id, ended.kind, ended.resolved_at) == (begun.id, "distribution", iso(T0 + 2))
    assert (other.kind, other.onset, other.resolved_at) == ("calibration", iso(T0), None)
    assert other.id != begun.id and len(made.state.open) == 1
