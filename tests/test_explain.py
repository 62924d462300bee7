"""Why there is a finding: what is recorded of its stream, with exact numbers, and the picture of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from detectors._base import AlertOn, Bucket, Detector, Verdict
from detectors._intervals import wilson
from detectors._rate import RateDetector, RateParams
from detectors._several import SeveralRates
from streams import backtest as backtest_module
from streams import cli, explain, explain_plot
from streams.backtest import Report
from streams.errors import DetectorFailed, UsageError
from streams.explain import DAY_S, HOUR_S, TOLD, Cell, Recorder, Series, Track, choose_step, facts, pick, window
from streams.explain_plot import draw
from streams.findings import Finding, iso
from streams.simulate import Erosion, simulate, write
from tests.kit import native

ONSET = 1_700_000_000.0 - 1_700_000_000.0 % DAY_S + 30 * DAY_S
MOBILE = {"stage": "evaluate", "device": "mobile"}


def finding(**given: Any) -> Finding:
    """An early drop-off, found half a day after it began, and over half a day later."""
    fields: dict[str, Any] = {
        "id": "abcdef0123", "detector": "early_dropoff", "kind": "early_dropoff", "segment": MOBILE,
        "direction": "worse", "level": "alert", "onset": iso(ONSET), "detected_at": iso(ONSET + 12 * HOUR_S),
        "before": 0.3, "after": 0.2, "unit": "ratio", "n_before": 5000, "n_after": 240, "score": 0.6,
        "owner": "growth", "summary": "Early drop-off at evaluate.", "resolved_at": iso(ONSET + DAY_S),
        "onset_from": iso(ONSET - HOUR_S), "onset_to": iso(ONSET + 2 * HOUR_S),
        "evidence": {"effect_low": 0.15, "effect_high": 0.25, "before_low": 0.28, "before_high": 0.33},
    }  # fmt: skip
    return Finding(**fields | given)


def trace(k: float, n: float, statistic: float = 1.0, **more: float) -> dict[str, float]:
    numbers = {"k": k, "n": n, "expected": 0.3, "low": 0.25, "high": 0.35, "statistic": statistic, "threshold": 9.0}
    return numbers | {"warn": 7.4} | more


OK = Verdict("ok")
ALERT = Verdict("alert", score=0.6, onset=ONSET, before=0.3, after=0.2, n_before=5000, n_after=240)


def recorded(*, steps: float = 10 * 24, n: float = 10.0) -> tuple[Finding, Series]:
    """One observation an hour, from nine days before the onset; 30 % and from then on 20 %."""
    track = Track(finding(), ONSET + 5 * DAY_S)
    for hour in range(-9 * 24, round(steps) - 9 * 24):
        after = hour >= 0
        more = {"back": 0.5, "back_at": 11.0} if hour > 12 else {}
        track.add(ONSET + hour * HOUR_S, trace((0.2 if after else 0.3) * n, n, 0.8 * hour * after, **more), OK)
    return track.finding, track.series()


# ── what is recorded ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_observations_of_a_step_are_added_up_and_the_baseline_is_that_of_its_trials() -> None:
    track = Track(finding(), ONSET + 5 * DAY_S)
    track.add(ONSET + 10.0, trace(1.0, 10.0, 2.0, expected=0.30, low=0.20, high=0.40), OK)
    track.add(ONSET + 20.0, trace(6.0, 30.0, 5.0, expected=0.34, low=0.30, high=0.38), OK)
    track.add(ONSET + 30.0, trace(0.0, 0.0, 4.0, expected=0.90, low=0.80, high=1.00, threshold=9.5), OK)
    series = track.series()
    (point,), (evidence,) = series.points, series.evidence
    assert (series.view, series.step_s, series.narrow_s) == ("", 1800.0, 1800.0)
    assert (point.ts, point.n, point.rate) == (ONSET, 40.0, 7.0 / 40.0)
    assert (point.rate_low, point.rate_high) == wilson(7, 40)
    assert [point.expected, point.low, point.high] == pytest.approx([0.33, 0.275, 0.385])
    assert (evidence.ts, evidence.statistic, evidence.threshold, evidence.warn) == (ONSET, 5.0, 9.5, 7.4)
    assert (evidence.back, evidence.back_at) == (None, None)


def test_a_step_without_trials_has_a_baseline_and_no_rate() -> None:
    track = Track(finding(), ONSET + DAY_S)
    track.add(ONSET, trace(0.0, 0.0), OK)
    (point,) = track.series().points
    assert (point.n, point.rate, point.rate_low) == (0.0, None, None)
    assert point.expected == pytest.approx(0.3)


def test_while_it_learns_there_is_a_rate_and_no_baseline() -> None:
    track = Track(finding(), ONSET + DAY_S)
    track.add(ONSET, {"k": 2.0, "n": 4.0}, OK)
    series = track.series()
    assert (series.points[0].rate, series.points[0].expected) == (0.5, None)
    assert (series.evidence[0].statistic, series.evidence[0].threshold) == (None, None)


def test_a_mean_of_values_has_no_interval_of_a_share() -> None:
    track = Track(finding(unit="seconds"), ONSET + DAY_S)
    track.add(ONSET, trace(120.0, 4.0, expected=25.0), OK)
    (point,) = track.series().points
    assert (point.rate, point.rate_low, point.rate_high) == (30.0, None, None)


def test_hours_become_steps_in_which_a_rate_can_be_read() -> None:
    _, series = recorded()
    # 205 hours of 10 trials are shown: 2 h would have 20 trials, 3 h have 30.
    assert series.step_s == 3 * HOUR_S
    assert {point.n for point in series.points[1:-1]} == {30.0}
    assert {round(point.rate or 0.0, 9) for point in series.points if point.ts >= ONSET} == {0.2}
    assert {round(point.rate or 0.0, 9) for point in series.points if point.ts < ONSET} == {0.3}
    assert all(point.ts % series.step_s == 0.0 for point in series.points)
    assert [each.statistic for each in series.evidence if each.ts == ONSET + 10 * HOUR_S] == [8.0]
    assert [each.back for each in series.evidence if each.ts == ONSET + 13 * HOUR_S] == [0.5]


@pytest.mark.parametrize(
    ("cells", "n", "hours"),
    [(600, 1000.0, 2), (300, 1000.0, 1), (301, 1000.0, 2), (240, 12.0, 3), (240, 0.1, 4), (50, 1.0, 1), (1, 1.0, 1)],
)
def test_steps_are_few_enough_and_as_full_as_that_leaves_them(cells: int, n: float, hours: int) -> None:
    assert choose_step({number: Cell(n=n) for number in range(cells)}, HOUR_S) == hours * HOUR_S


def test_memory_is_bounded_whatever_the_length() -> None:
    track = Track(finding(resolved_at=None), ONSET + 3000 * DAY_S)
    for i in range(20_000):
        track.add(ONSET + i * 0.15 * DAY_S, trace(1.0, 3.0), OK)
    series = track.series()
    assert len(series.evidence) <= explain.MOST_NARROW
    assert len(series.points) <= explain.MOST_POINTS
    assert sum(point.n for point in series.points) == 60_000.0


@pytest.mark.parametrize(
    ("given", "since", "until"),
    [
        ({}, -7.0, 1.25),
        ({"resolved_at": iso(ONSET + 4 * DAY_S)}, -12.0, 5.0),
        ({"resolved_at": None}, -15.0, 5.0),
        ({"resolved_at": iso(ONSET + 5 * DAY_S)}, -15.0, 5.0),
        ({"onset_from": iso(ONSET - 20 * DAY_S)}, -20.0, 1.25),
        ({"onset_from": None}, -7.0, 1.25),
    ],
)
def test_it_shows_three_times_its_length_before_the_onset_and_a_week_at_least(
    given: dict[str, Any], since: float, until: float
) -> None:
    shown = window(finding(**given), ONSET + 5 * DAY_S)
    assert shown == (ONSET + since * DAY_S, ONSET + until * DAY_S)


def test_what_lies_outside_of_the_window_is_not_recorded() -> None:
    track = Track(finding(), ONSET + 5 * DAY_S)
    for day in (-7.01, -7.0, 1.25, 1.26):
        track.add(ONSET + day * DAY_S, trace(3.0, 10.0), OK)
    assert sum(point.n for point in track.series().points) == 20.0


# ── which view of a detector ──────────────────────────────────────────────────────────────────────────────────────────


def views(spoken: str, **n: float) -> dict[str, float]:
    """A trace of several views, one of which the verdict is about."""
    numbers = {view: trace(1.0, trials) for view, trials in n.items()}
    flat = {f"{view}.{name}": value for view, own in numbers.items() for name, value in own.items()}
    return flat | numbers.get(spoken, {})


def shown_view(claim: Finding, *observations: tuple[float, str, Verdict]) -> tuple[str, float]:
    track = Track(claim, ONSET + 5 * DAY_S)
    for hours, spoken, verdict in observations:
        track.add(ONSET + hours * HOUR_S, views(spoken, at_mark=10.0, at_close=20.0), verdict)
    series = track.series()
    return series.view, series.points[0].n


def test_a_finding_that_names_its_view_is_explained_by_it() -> None:
    claim = finding(kind="at_close")
    assert shown_view(claim, (1.0, "at_mark", ALERT)) == ("at_close", 20.0)


def test_one_claim_of_several_views_is_explained_by_the_one_that_spoke_when_it_was_found() -> None:
    said = ((1.0, "at_close", OK), (2.0, "at_mark", ALERT), (12.0, "at_close", ALERT))
    assert shown_view(finding(), *said) == ("at_mark", 10.0)


def test_a_detector_without_trace_is_explained_by_its_verdicts() -> None:
    track = Track(finding(kind="inflation", detector="lead_score_drift"), ONSET + 5 * DAY_S)
    around = {"effect_low": 0.1, "effect_high": 0.3, "before_low": 0.25, "before_high": 0.35}
    track.add(ONSET - HOUR_S, {}, msgspec.structs.replace(OK, score=0.2))
    track.add(ONSET, {}, msgspec.structs.replace(ALERT, kind="distribution", score=0.7))
    track.add(ONSET + HOUR_S, {}, msgspec.structs.replace(ALERT, kind="inflation", evidence=around))
    series = track.series()
    assert series.view == TOLD and series.told
    assert [point.n for point in series.points] == [0.0, 0.0, 240.0]
    last = series.points[-1]
    assert (last.rate, last.rate_low, last.rate_high) == (0.2, 0.1, 0.3)
    assert (last.expected, last.low, last.high) == (0.3, 0.25, 0.35)
    assert [each.statistic for each in series.evidence] == [0.2, 0.7, 0.6]


# ── what detectors show ───────────────────────────────────────────────────────────────────────────────────────────────


class Advance(RateDetector):
    """Falls."""

    title = "Advance"
    state_version = 1
    alert: ClassVar[AlertOn] = AlertOn()
    hits = ("k",)
    trials = ("n",)
    worse = "down"


class Rarely(Advance):
    """Has something to count once an hour."""

    hits = ("rare_k",)
    trials = ("rare_n",)


class Both(SeveralRates):
    """Two views."""

    title = "Both"
    state_version = 1
    alert: ClassVar[AlertOn] = AlertOn()
    Params = RateParams
    rates: ClassVar[dict[str, type[RateDetector]]] = {"often": Advance, "rarely": Rarely}


def buckets(days: float, drop_at: float) -> Iterator[Bucket]:
    """10 trials each 10 minutes, of which 3 are hits and later 1; each hour as many again that stay at 3."""
    for i in range(round(days * 144)):
        counts = {"k": 1 if i >= drop_at * 144 else 3, "n": 10}
        yield Bucket(ONSET + i * 600.0, 10.0, "evaluate", counts | ({} if i % 6 else {"rare_k": 3, "rare_n": 10}))


def test_a_rate_shows_its_last_observation_the_baseline_and_the_evidence() -> None:
    detector = Advance(RateParams(warmup_n=200))
    assert detector.trace() == {}
    traces, verdicts = [], []
    for bucket in buckets(4.0, 3.0):
        x = detector.look(bucket, detector.params)
        assert x is not None
        verdicts.append(detector.observe(x))
        traces.append(dict(detector.trace()))
    assert traces[0] == {"k": 3.0, "n": 10.0}, "nothing is expected while it learns"
    before = traces[3 * 144 - 1]
    assert (before["k"], before["n"]) == (3.0, 10.0)
    assert before["expected"] == pytest.approx(0.3, abs=0.01)
    assert before["low"] < before["expected"] < before["high"]
    assert before["warn"] == pytest.approx(before["threshold"] + math.log(0.2))
    alarm = next(i for i, verdict in enumerate(verdicts) if verdict.level == "alert")
    assert traces[alarm - 1]["statistic"] < traces[alarm - 1]["threshold"]
    for shown, verdict in zip(traces[alarm:], verdicts[alarm:], strict=True):
        assert shown["statistic"] == pytest.approx(verdict.evidence["statistic"])
        assert shown["threshold"] == verdict.evidence["threshold"] <= shown["statistic"]
        assert shown["back_at"] == 11.0
        assert shown["back"] >= 0.0


def test_of_several_rates_each_is_shown_and_the_one_that_is_told_by_its_plain_names() -> None:
    detector = Both(RateParams(warmup_n=200))
    for bucket in buckets(4.0, 3.0):
        x = detector.look(bucket, detector.params)
        assert x is not None
        verdict = detector.observe(x)
        shown = detector.trace()
        rare = bool(bucket.counts.get("rare_n"))
        assert (shown["often.n"], shown["rarely.n"]) == (10.0, 10.0 if rare else 0.0)
        assert shown["rarely.k"] == (3.0 if rare else 0.0)
        if verdict.level == "alert":
            plain = {name: value for name, value in shown.items() if "." not in name}
            assert plain == {name: shown[f"often.{name}"] for name in plain}
            assert plain["statistic"] >= plain["threshold"]
    assert verdict.level == "alert"


def test_a_recorder_keeps_the_streams_that_were_asked_for() -> None:
    recorder = Recorder([finding()], ONSET + 5 * DAY_S)

    class Traced(Advance):
        def trace(self) -> dict[str, float]:
            return trace(2.0, 10.0)

    for segment in ((("device", "mobile"),), (("device", "tv"),), ()):
        for name in ("early_dropoff", "hesitation"):
            recorder((name, "evaluate", segment), ONSET, Traced(RateParams()), OK)
    (track,) = recorder.tracks.values()
    assert sum(point.n for point in track.series().points) == 10.0


def test_a_trace_that_fails_names_its_detector() -> None:
    class Broken(Advance):
        def trace(self) -> dict[str, float]:
            raise ZeroDivisionError

    recorder = Recorder([finding()], ONSET + 5 * DAY_S)
    with pytest.raises(DetectorFailed, match="early_dropoff: trace"):
        recorder(("early_dropoff", "evaluate", (("device", "mobile"),)), ONSET, Broken(RateParams()), OK)


# ── what is asked for, and what is told ───────────────────────────────────────────────────────────────────────────────

THREE = [finding(), finding(id="abc999", segment={"stage": "leads", "source": "ads"}), finding(id="ffff")]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [("all", ["abcdef0123", "abc999", "ffff"]), ("first", ["abcdef0123"]), ("abcd", ["abcdef0123"]),
     ("abc999", ["abc999"]), ("f", ["ffff"])],
)  # fmt: skip
def test_findings_are_chosen_by_the_beginning_of_their_id(wanted: str, ids: list[str]) -> None:
    assert [one.id for one in pick(THREE, wanted)] == ids


@pytest.mark.parametrize(
    ("wanted", "said", "unsaid"),
    [("zzz", ["--explain zzz", "no finding", "abcdef0123", "abc999 (early_dropoff leads ads)", "ffff", "all"], "2 "),
     ("", ["no finding", "ffff"], "2 "), ("abc", ["2 findings", "abcdef0123", "abc999"], "ffff")],
)  # fmt: skip
def test_an_id_that_is_unknown_or_not_unique_is_answered_with_those_known(
    wanted: str, said: list[str], unsaid: str
) -> None:
    with pytest.raises(UsageError) as error:
        pick(THREE, wanted)
    assert all(part in str(error.value) for part in said)
    assert unsaid not in str(error.value)


def test_the_facts_are_all_there() -> None:
    evidence = {
        "expected_rate": 0.31, "before_low": 0.28, "before_high": 0.33, "effect_low": 0.15, "effect_high": 0.25,
        "rate_now": 0.2, "lost_progressions": 24.04, "statistic": 9.5, "threshold": 9.0, "idle_before": 0.1,
        "idle_after": 0.11, "rage_before": 0.05, "rage_after": 0.2, "unseen_before": 0.0, "unseen_after": 0.0,
        "lag_s": 7 * DAY_S, "seen_at_mark": 1.0, "explained_segments": 3.0,
    }  # fmt: skip
    assert [fact for fact in facts(finding(evidence=evidence)) if any(fact)] == [
        ("before", "30.0 %"), ("after", "20.0 % (15.0 to 25.0 %)"), ("baseline now", "31.0 % (28.0 to 33.0 %)"),
        ("observations", "5,000 before, 240 after"),
        ("onset", "2023-12-14 00:00"), ("onset, 95 %", "2023-12-13 23:00 to 2023-12-14 02:00"),
        ("detected", "2023-12-14 12:00"), ("", "12 h after the onset"), ("resolved", "2023-12-15 00:00"),
        ("lost progressions", "24"), ("lag", "7 d"), ("rage", "0.05 → 0.2"), ("idle", "0.1 → 0.11"),
        ("segment", "evaluate, device=mobile"), ("explains", "3 more segments that alert"), ("owner", "growth"),
        ("finding", "abcdef0123"),
    ]  # fmt: skip


def test_a_finding_that_gave_way_names_the_one_that_took_its_place_and_the_other_way_round() -> None:
    everyone = finding(id="0eee", segment={"stage": "evaluate"})
    heir = finding(id="1eee", detected_at=everyone.resolved_at)
    other = finding(id="2eee", detected_at=everyone.resolved_at, segment={"stage": "compare"})
    found = [everyone, other, heir]
    assert ("", "by a better explanation: evaluate, device=mobile (1eee)") in facts(everyone, found)
    assert ("", "as a better explanation than evaluate (0eee)") in facts(heir, found)
    assert not any("better" in value for _, value in facts(other, found))


# ── the picture ───────────────────────────────────────────────────────────────────────────────────────────────────────


def lines_of(axes: Axes) -> dict[str, Any]:
    return {gid: line for line in axes.get_lines() if (gid := line.get_gid())}


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def test_the_picture_shows_the_moments_in_every_panel_and_the_curves_in_theirs() -> None:
    claim, series = recorded()
    figure = draw(claim, series)
    volume, rate, evidence = figure.axes
    for axes in figure.axes:
        lines = lines_of(axes)
        assert list(lines["onset"].get_xdata()) == [ONSET / DAY_S] * 2
        assert list(lines["detected"].get_xdata()) == [ONSET / DAY_S + 0.5] * 2
        assert list(lines["resolved"].get_xdata()) == [ONSET / DAY_S + 1.0] * 2
        (interval,) = [patch for patch in axes.patches if patch.get_gid() == "onset-interval"]
        assert interval.get_extents().width > 0
        left, right = axes.get_xlim()
        assert left < ONSET / DAY_S - 6.9 and right > ONSET / DAY_S + 1.0
    curves = lines_of(rate)
    assert list(curves["observed"].get_ydata()) == [point.rate for point in series.points]
    assert list(curves["expected"].get_ydata()) == [point.expected for point in series.points]
    assert list(curves["after"].get_ydata()) == [0.2, 0.2]
    tests = lines_of(evidence)
    assert set(tests["threshold"].get_ydata()) == {9.0} and set(tests["warn"].get_ydata()) == {7.4}
    assert max(tests["statistic"].get_ydata()) == max(each.statistic or 0.0 for each in series.evidence)
    assert evidence.get_ylim()[1] > max(tests["statistic"].get_ydata())
    assert evidence.get_ylabel() == "evidence, nats"
    bars = [patch for patch in volume.patches if patch.get_gid() == "volume"]
    assert len(bars) == len(series.points)
    assert "UTC" in volume.get_xlabel()


def test_the_picture_says_what_it_is() -> None:
    claim, series = recorded()
    figure = draw(claim, series)
    told = texts(figure)
    assert claim.summary in told
    assert all(value in told for value in ("growth", "abcdef0123", "20.0 % (15.0 to 25.0 %)", "evaluate,"))
    legend = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
    for label in ("onset", "detected", "resolved", "baseline at that time", "observed, per 3 h", "alerts at 9.0",
                  "mean since the onset: 20.0 %", "observations per 3 h"):  # fmt: skip
        assert legend.count(label) == 1


def test_no_text_lies_on_another_or_outside_of_the_picture() -> None:
    evidence = {f"a_rather_long_name_{i}": 12345.678 + i for i in range(40)}
    claim, series = recorded()
    long = "Early drop-off at evaluate (campaign=" + "words and words " * 9 + ")."
    figure = draw(msgspec.structs.replace(claim, evidence=evidence, summary=long, owner="o " * 40), series)
    figure.canvas.draw()
    width, height = figure.bbox.width, figure.bbox.height
    assert any(text.get_text().startswith("Early drop-off at evaluate") for text in figure.texts)
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    boxes += [axes.get_legend().get_window_extent() for axes in figure.axes]  # type: ignore[union-attr]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_labels_are_no_formulas() -> None:
    claim, series = recorded()
    odd = {"stage": "evaluate", "campaign": r"$\frac{5$ off$_{"}
    figure = draw(msgspec.structs.replace(claim, segment=odd, owner="$^$", summary=r"At $\x$ {_^}."), series)
    figure.canvas.draw()
    assert r"At $\x$ {_^}." in texts(figure)


@pytest.mark.parametrize(
    "given",
    [
        {"resolved_at": None},
        {"onset_from": None, "onset_to": None},
        {"evidence": {}},
        {"unit": "seconds", "after": 31.0},
        {"before": 0.0, "after": 0.0},
    ],
)
def test_whatever_is_not_known_is_left_out(given: dict[str, Any]) -> None:
    claim, series = recorded()
    figure = draw(msgspec.structs.replace(claim, **given), series)
    figure.canvas.draw()
    marks = lines_of(figure.axes[0])
    assert ("resolved" in marks) == ("resolved_at" not in given)


@pytest.mark.parametrize("told", [True, False])
def test_a_series_of_nothing_or_of_verdicts_can_be_drawn(told: bool) -> None:
    track = Track(finding(), ONSET + 5 * DAY_S)
    if told:
        track.add(ONSET + HOUR_S, {}, ALERT)
    series = track.series()
    figure = draw(track.finding, series)
    figure.canvas.draw()
    assert figure.axes[2].get_ylabel() == "score, 0 to 1"
    assert "onset" in lines_of(figure.axes[1])


def test_a_few_trials_do_not_stretch_the_axis_but_are_marked_at_its_edge() -> None:
    claim, series = recorded()
    odd = msgspec.structs.replace(series.points[10], n=1.0, rate=1.0)
    points = [*series.points[:10], odd, *series.points[11:]]
    rate = draw(claim, msgspec.structs.replace(series, points=points)).axes[1]
    top = rate.get_ylim()[1]
    assert top < 0.5
    marked = [line for line in rate.get_lines() if line.get_marker() == "^"]
    assert [list(line.get_ydata()) for line in marked] == [[top]]  # type: ignore[arg-type]


def test_a_line_is_not_drawn_over_days_without_data() -> None:
    claim, series = recorded()
    points = [point for point in series.points if not 2 * DAY_S < ONSET - point.ts < 4 * DAY_S]
    observed = lines_of(draw(claim, msgspec.structs.replace(series, points=points)).axes[1])["observed"]
    assert sum(math.isnan(y) for y in observed.get_ydata()) == 1


# ── on the command line ───────────────────────────────────────────────────────────────────────────────────────────────

Command = Callable[..., tuple[int, str, str]]
Drawn = list[tuple[Finding, Series]]
EROSIONS = (Erosion("early_dropoff", "evaluate", {}, 2.5, 0.1),)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`trustwatch backtest …` in an empty directory; anything but a clean exit escapes and fails the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["trustwatch", "backtest", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capfd.readouterr()
        assert "Traceback" not in told.out + told.err
        return int(stop.value.code or 0), told.out, told.err

    return call


def test_a_backtest_draws_its_findings(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = simulate(3.5, 3, EROSIONS, sessions_per_day=260, leads_per_day=0)
    write(events, Path("events.jsonl"), days=3.5, seed=3, erosions=EROSIONS)
    drawn: Drawn = []
    save = explain_plot.save

    def spy(claim: Finding, series: Series, *rest: Any) -> Path:
        drawn.append((claim, series))
        return save(claim, series, *rest)

    monkeypatch.setattr(explain_plot, "save", spy)
    code, told, said = command("events.jsonl", "--detectors", "early_dropoff", "--json", "--out", "f.jsonl",
                               "--explain", "all", "--explain-out", "deep/pictures")  # fmt: skip
    found = [msgspec.json.decode(line, type=Finding) for line in Path("f.jsonl").read_bytes().splitlines()]
    assert code == 0
    assert json.loads(told)["findings"] == len(found) == len(drawn) > 0
    assert [claim for claim, _ in drawn] == found
    for claim, series in drawn:
        path = tmp_path / "deep" / "pictures" / f"early_dropoff-{claim.id}.png"
        assert f"deep/pictures/{path.name}" in said.replace("\n", "")
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = imread(path)
        assert pixels.shape[:2] == (990, 1540)
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 200
        crossed = next(each.ts for each in series.evidence if (each.statistic or 0.0) >= (each.threshold or math.inf))
        assert crossed <= explain.epoch(claim.detected_at) <= crossed + series.narrow_s
        after = [point for point in series.points if point.ts >= explain.epoch(claim.onset) and point.rate is not None]
        trials = sum(point.n for point in after)
        assert trials == pytest.approx(claim.n_after, rel=0.2)
        assert sum((point.rate or 0.0) * point.n for point in after) / trials == pytest.approx(claim.after, abs=0.03)
        expected = sum((point.expected or 0.0) * point.n for point in after) / trials
        assert expected == pytest.approx(claim.before, abs=0.02)


class Canned:
    """A backtest that has found something, whatever the file."""

    report = Report(
        summary=backtest_module.Summary(1, 1, {}, 0, 0, 1, 3, 1.0, 1.0, 0, 1, {}, ONSET + 5 * DAY_S, "x"),
        findings=list(THREE),
    )
    runs: ClassVar[list[Any]] = []

    def __init__(self, *arguments: Any) -> None:
        self.runs.append(arguments)

    def run(self, _files: Any) -> Report:
        return self.report


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(backtest_module, "Backtest", Canned)
    monkeypatch.setattr(Canned, "runs", [])
    path = tmp_path / "events.jsonl"
    path.write_bytes(native("clicked", 0))
    return path


def test_pictures_go_into_the_folder_report_and_only_those_asked_for(command: Command, canned: Path) -> None:
    code, told, _ = command(canned, "--explain", "first")
    assert code == 0
    assert [path.name for path in Path("report").iterdir()] == ["early_dropoff-abcdef0123.png"]
    assert "Early drop-off at evaluate." in told
    assert len(Canned.runs) == 2


def test_an_unknown_id_is_bad_usage_but_the_findings_are_not_lost(command: Command, canned: Path) -> None:
    code, told, said = command(canned, "--explain", "zzz", "--json", "--out", "f.jsonl")
    assert code == 2
    assert all(one.id in said for one in THREE)
    assert json.loads(told)["findings"] == 3
    assert len(Path("f.jsonl").read_bytes().splitlines()) == 3
    assert len(Canned.runs) == 1
    assert not Path("report").exists()


def test_without_findings_there_is_nothing_to_explain(
    command: Command, canned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canned, "report", msgspec.structs.replace(Canned.report, findings=[]))
    for wanted in ("all", "first", "zzz"):
        code, told, said = command(canned, "--explain", wanted, "--json")
        assert (code, json.loads(told)["steps"]) == (0, 1)
        assert "no findings" in said
    assert not Path("report").exists()


def test_matplotlib_is_asked_for_before_anything_is_run(
    command: Command, canned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, told, said = command(canned, "--explain", "all")
    assert (code, told, Canned.runs) == (2, "", [])
    assert "trustwatch[explain]" in said
    code, _, _ = command(canned)
    assert code == 0, "without --explain it is not needed"


def test_files_that_change_between_the_two_runs_are_no_explanation(
    command: Command, canned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Canned, _files: Any) -> Report:
        return self.report if len(self.runs) == 1 else msgspec.structs.replace(self.report, findings=THREE[:1])

    monkeypatch.setattr(Canned, "run", run)
    code, _, said = command(canned, "--explain", "all")
    assert code == 1
    assert "changed" in said


def test_a_folder_that_cannot_be_written_is_bad_usage(command: Command, canned: Path) -> None:
    Path("taken").write_text("a file")
    for folder in ("taken", "taken/deeper"):
        code, _, said = command(canned, "--explain", "first", "--explain-out", folder)
        assert code == 2
        assert "--explain-out" in said


def test_a_detector_shows_nothing_unless_it_says_so() -> None:
    class Silent(Detector[Bucket, RateParams]):
        title = "Silent"
        unit = "ratio"
        state_version = 1
        alert: ClassVar[AlertOn] = AlertOn()
        Params = RateParams
        State = msgspec.Struct

        @classmethod
        def look(cls, bucket: Bucket, params: RateParams) -> Bucket | None:
            return bucket

        def observe(self, x: Bucket) -> Verdict:
            return OK

    assert Silent(RateParams()).trace() == {}
