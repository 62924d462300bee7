"""Baselines, control events, lead scores and survival in `/metrics`: right, bounded, cheap, and safe while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
from prometheus_client.core import Metric

from detectors._base import Bucket, Verdict
from detectors.early_dropoff import EarlyDropoff, EarlyDropoffParams
from detectors.lead_score_drift import LeadScoreDrift, LeadScoreDriftParams
from streams.events import Event, Rejection
from streams.findings import Finding
from streams.frames import Cell, Counts, Segment
from streams.ingest import MOST_CONTROL, Door, Raw, tidy
from streams.journey import load_journey
from streams.metrics import LineCollector, segment_label
from streams.metrics_baseline import by_view, families, view_of
from streams.metrics_counts import families as scores_and_survival
from streams.metrics_counts import histogram, outcomes_of
from streams.privacy import Privacy
from streams.settings import LeadSettings, Settings
from streams.watch import Detectors, Watcher

SETTINGS = Settings(
    privacy={"pseudonym_key": "0123456789abcdef"},
    metrics={"port": 0},
    topics={"raw": [{"name": "web"}], "raw_partitions": 1, "events_partitions": 1},
)
START, WIDTH_S = 1_790_000_000 // 3600 * 3600.0, 3600.0
DAYS = 3


def watcher(segments: list[Segment], hours: int = DAYS * 24, k: int = 40, n: int = 100) -> Watcher:
    """A watcher that has seen `k` of `n` advance in every hour, at one stage of these segments."""
    settings = SETTINGS.model_copy(update={"time": SETTINGS.time.model_copy(update={"bucket_s": WIDTH_S})})
    made = Watcher(settings, Detectors({}, ["early_dropoff"], load_journey(None).stages), 0)
    for hour in range(hours):
        made.apply(counts_of(hour, segments, k, n))
    return made


def counts_of(hour: int, segments: list[Segment], k: int = 40, n: int = 100) -> Counts:
    ts = START + hour * WIDTH_S
    told = {"soon": k, "not_soon": n - k, "at_all": k, "not_at_all": n - k, "entered": n}
    return Counts(0, hour, ts + WIDTH_S, [Cell(ts, "evaluate", segment, told) for segment in segments])


def exported(watchers: list[Watcher], ingest: Any = None) -> dict[str, Metric]:
    return {family.name: family for family in families(watchers, ingest, iter, segment_label)}


def values(family: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def test_a_learnt_rate_is_exported_with_its_baseline_by_view() -> None:
    found = exported([watcher([()])])
    where = ("early_dropoff", "at_all", "evaluate", "all")
    expected = values(found["trustwatch_detector_expected"])
    assert set(expected) == {where, ("early_dropoff", "soon", "evaluate", "all")}
    low, high = (values(found[f"trustwatch_detector_expected_{end}"])[where] for end in ("low", "high"))
    assert low < expected[where] < high
    assert expected[where] == pytest.approx(0.4, abs=0.01)
    assert values(found["trustwatch_detector_observed"])[where] == pytest.approx(0.4, abs=0.01)


def test_what_is_observed_follows_a_fall_that_the_baseline_does_not() -> None:
    made = watcher([()])
    for hour in range(DAYS * 24, DAYS * 24 + 24):
        made.apply(counts_of(hour, [()], k=20))
    found, where = exported([made]), ("early_dropoff", "at_all", "evaluate", "all")
    assert values(found["trustwatch_detector_observed"])[where] == pytest.approx(0.2, abs=0.02)
    assert values(found["trustwatch_detector_expected"])[where] == pytest.approx(0.4, abs=0.03)


def test_nothing_is_expected_while_it_learns() -> None:
    found = exported([watcher([()], hours=3)])
    assert all(not found[name].samples for name in found if name.startswith("trustwatch_detector_"))
    assert values(found["trustwatch_baselines_left_out"]) == {("limit",): 0, ("torn",): 0}


def test_too_many_series_leave_out_pairs_first_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pair: Segment = (("channel", "paid"), ("device", "mobile"))
    made = watcher([pair, (("device", "mobile"),), ()])
    monkeypatch.setattr("streams.metrics_baseline.MOST_SERIES", 16)  # two streams of two views and four numbers
    found = exported([made])
    assert {labels[-1] for labels in values(found["trustwatch_detector_expected"])} == {"all", "device=mobile"}
    assert values(found["trustwatch_baselines_left_out"])["limit",] == 1


def test_what_is_suspicious_comes_before_other_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    pair: Segment = (("channel", "paid"), ("device", "mobile"))
    made = watcher([pair, (("device", "mobile"),), ()])
    made.verdicts["early_dropoff", "evaluate", pair] = Verdict("alert", onset=START)
    monkeypatch.setattr("streams.metrics_baseline.MOST_SERIES", 16)
    labels = values(exported([made])["trustwatch_detector_expected"])
    assert {each[-1] for each in labels} == {"all", segment_label(pair)}


def test_a_stream_that_is_being_changed_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = watcher([(), (("device", "mobile"),)])
    torn = made.detectors()[0][1]

    def trace() -> Mapping[str, float]:
        raise ZeroDivisionError

    monkeypatch.setattr(torn, "trace", trace)
    found = exported([made])
    assert values(found["trustwatch_baselines_left_out"])["torn",] == 1
    assert len(values(found["trustwatch_detector_expected"])) == 2


def test_scrapes_from_another_thread_never_fail_while_the_line_learns() -> None:
    segments: list[Segment] = [(), *((("device", f"d{i}"),) for i in range(20))]
    made, errors, done = watcher(segments), list[BaseException](), threading.Event()

    def scrape() -> None:
        try:
            while not done.is_set():
                assert values(exported([made])["trustwatch_baselines_left_out"])["torn",] == 0
        except BaseException as error:  # told below: a thread's own error fails no test
            errors.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for hour in range(DAYS * 24, DAYS * 24 + 15):
        made.apply(counts_of(hour, [*segments, (("country", f"c{hour}"),)]))
    done.set()
    thread.join()
    assert not errors


def test_views_come_without_a_copy_of_the_one_that_speaks() -> None:
    detector = EarlyDropoff(EarlyDropoffParams(warmup_s=0, warmup_n=1, settle_s=0))
    for hour in range(3):
        bucket = Bucket(START + hour * WIDTH_S, WIDTH_S, "evaluate", counts_of(hour, [()]).cells[0].counts)
        seen = detector.look(bucket, detector.params)
        assert seen is not None
        detector.observe(seen)
    assert set(by_view(detector)) == {"soon", "at_all"}
    assert set(by_view(detector)["soon"]) == {"recent", "expected", "low", "high"}


@pytest.mark.parametrize(("kind", "evidence", "view"), [
    ("novelty", {"rate": 1.0}, "novelty"), ("early_dropoff", {"lost": 3.0, "seen_at_all": 1.0}, "at_all"),
    ("inflation", {}, "inflation"),
])  # fmt: skip
def test_a_finding_leads_to_the_series_that_it_is_about(kind: str, evidence: dict[str, float], view: str) -> None:
    claim = found_with(kind, evidence)
    assert view_of(claim) == view
    made = watcher([()], hours=1)
    over = msgspec.structs.replace(claim, id="over", resolved_at=claim.onset)
    made._judge.findings.update({"open": claim, "over": over})
    assert values(exported([made])["trustwatch_open_finding_view"]) == {("open", view): 1}


def found_with(kind: str, evidence: dict[str, float]) -> Finding:
    return Finding(
        id="open", detector="d", kind=kind, segment={"stage": "evaluate"}, direction="worse", level="alert",
        onset="2026-03-01T00:00:00Z", detected_at="2026-03-01T00:00:00Z", before=0.4, after=0.2, unit="ratio",
        n_before=900, n_after=500, score=0.6, owner="growth", summary="", evidence=evidence,
    )  # fmt: skip


def test_a_lead_finding_has_a_series_that_shows_what_it_says() -> None:
    detector = LeadScoreDrift(LeadScoreDriftParams(bins=4, warmup_s=0))
    for day in range(60):
        accepted = 10 if day < 40 else 3
        counts = {"score_2": 40, "accept_n_2": 20, "accept_k_2": accepted, "handed_over": 20}
        bucket = Bucket(START + day * 86_400, 86_400, "leads", counts)
        seen = detector.look(bucket, detector.params)
        assert seen is not None
        verdict = detector.observe(seen)
    assert (verdict.level, verdict.kind) == ("alert", "calibration_acceptance")
    shown = by_view(detector)
    assert set(shown) == {"distribution", "calibration_acceptance"}  # no win has been told of
    fell = shown["calibration_acceptance"]
    assert (fell["expected"], fell["recent"]) == pytest.approx((verdict.before, verdict.after))
    assert (fell["expected"], fell["recent"]) == pytest.approx((0.5, 0.15), abs=0.03)
    assert fell["low"] < fell["expected"] < fell["high"]
    assert shown["distribution"]["recent"] == pytest.approx(2.5 / 4)
    assert shown["distribution"]["expected"] == pytest.approx(2.5 / 4, abs=0.01)


def test_every_walk_over_all_streams_takes_breaths() -> None:
    """The walks that only sort and choose, too: before the first series is made."""
    segments: list[Segment] = [(), *((("device", f"d{i}"),) for i in range(20))]
    made, walked = watcher(segments, hours=1), list[int]()

    def breathe(items: Iterable[Any]) -> Iterator[Any]:
        found = list(items)
        walked.append(len(found))
        return iter(found)

    list(families([made], None, breathe, segment_label))
    assert walked == [len(segments), len(segments)]  # put in order, then read
    walked.clear()
    made.rates = {("leads", segment): {"score_0": 1} for segment in segments}
    list(scores_and_survival([made], SETTINGS, breathe, segment_label))
    # Chosen, read, and looked through for survival and for what is counted beside.
    assert walked == [len(segments)] * 4


# ── control events ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Ingest:
    def __init__(self, door: Door | None) -> None:
        self.door = door


def door_with(*events: tuple[str, dict[str, Any]]) -> Door:
    door = Door(SETTINGS, Privacy.from_settings(SETTINGS), {"web": 1})
    door.open_source("web/0")
    for offset, (kind, properties) in enumerate(events):
        event = Event(id=str(offset), type=kind, time=START, person="ci", properties=properties)
        door.take([Raw("web", 0, offset, b"", outcomes=[event])], START)
    return door


def control(door: Door | None) -> dict[tuple[str, ...], float]:
    return values(exported([], _Ingest(door))["trustwatch_control_events"])


def test_deploys_and_definition_changes_are_counted_by_what_they_were() -> None:
    door = door_with(("deployed", {"what": "checkout 2.4"}), ("deployed", {"what": "checkout 2.5"}),
                     ("definition_changed", {"what": "lead score"}), ("erasure_requested", {}), ("deployed", {}),
                     ("page_viewed", {"what": "no control event"}))  # fmt: skip
    assert control(door) == {
        ("deployed", "checkout"): 2, ("definition_changed", "lead"): 1, ("deployed", "unnamed"): 1,
        ("definition_changed", "unnamed"): 0,
    }  # fmt: skip


def test_the_names_of_deploys_are_bounded() -> None:
    seen = control(door_with(*(("deployed", {"what": f"build-{i}"}) for i in range(MOST_CONTROL + 30))))
    assert len(seen) <= MOST_CONTROL + 3
    assert seen["deployed", "other"] == 30  # the first of them, and all that came after
    assert sum(seen.values()) == MOST_CONTROL + 30


@pytest.mark.parametrize(("told", "label"), [
    ("shop\n2", "shop"), ('<script>"x"', "scriptx"), ("x" * 100, "x" * 40), ("  ", "unnamed"), (7, "unnamed"),
    ("deploy by anna.mueller", "deploy"), ("anna@example.com", "unnamed"), ("\u00fc", "unnamed"),
    ("checkout-2.4 (Anna)", "checkout-2.4"),
])  # fmt: skip
def test_what_was_deployed_is_fit_to_be_a_label(told: Any, label: str) -> None:
    assert tidy(told) == label


def test_control_series_exist_before_the_first_event() -> None:
    assert control(None) == {("deployed", "unnamed"): 0, ("definition_changed", "unnamed"): 0}


def test_the_last_deploy_of_a_name_is_told_by_its_event_time() -> None:
    door = door_with(("deployed", {"what": "shop"}))
    later = Event(id="later", type="deployed", time=START + 60, person="ci", properties={"what": "shop"})
    earlier = Event(id="earlier", type="deployed", time=START - 60, person="ci", properties={"what": "shop"})
    door.take([Raw("web", 0, 1, b"", outcomes=[later, earlier])], START + 60)
    found = values(exported([], _Ingest(door))["trustwatch_control_event_timestamp_seconds"])
    assert found == {("deployed", "shop"): START + 60}


def test_what_is_no_event_is_no_control_event() -> None:
    door = door_with()
    door.take([Raw("web", 0, 0, b"", outcomes=[Rejection("not_json", "no JSON")])], START)
    assert not door.control


# ── leads and survival ────────────────────────────────────────────────────────────────────────────────────────────────


def test_scores_are_a_histogram_that_adds_up() -> None:
    counts = {"score_0": 3, "score_1": 1, "score_10": 5, "score_19": 2}
    buckets, total = histogram(counts, LeadSettings())
    assert dict(buckets) == {
        "10": 4, "20": 4, "30": 4, "40": 4, "50": 4, "60": 9, "70": 9, "80": 9, "90": 9, "100": 11, "+Inf": 11,
    }  # fmt: skip
    assert total == 3 * 2.5 + 7.5 + 5 * 52.5 + 2 * 97.5


@pytest.mark.parametrize("bins", [4, 5, 7, 20, 50])
def test_every_bin_of_the_score_is_in_one_band_and_one_bucket(bins: int) -> None:
    settings = LeadSettings(score_bins=bins)
    counts = {f"{field}_{b}": 1 for b in range(bins) for field in ("score", "accept_n", "accept_k")}
    assert histogram(counts, settings)[0][-1] == ("+Inf", bins)
    found = outcomes_of(counts, settings)
    assert sum(n for (horizon, _), (n, _) in found.items() if horizon == "accept") == bins


def test_leads_and_survival_are_exported_from_the_sums_of_the_watcher() -> None:
    made = Watcher(SETTINGS, Detectors({}, [], load_journey(None).stages), 0)
    source: Segment = (("source", "ads"),)
    made.rates = {
        ("leads", ()): {"score_19": 2, "touch_n": 4, "touch_k": 3, "accept_n_19": 2, "accept_k_19": 1},
        ("leads", source): {"score_0": 1},
        ("leads", (("model", "m"), ("source", "ads"))): {"score_0": 1},
        ("evaluate", ()): {"entered": 10, "open_15": 8, "open_300": 1},
        ("evaluate", (("device", "mobile"),)): {"entered": 5},
    }
    found = {each.name: each for each in scores_and_survival([made], SETTINGS, iter, segment_label)}
    outcomes = values(found["trustwatch_lead_outcomes"])
    assert (outcomes["all", "touch", "all", "yes"], outcomes["all", "touch", "all", "no"]) == (3, 1)
    assert (outcomes["all", "accept", "80-100", "yes"], outcomes["all", "accept", "80-100", "no"]) == (1, 1)
    assert {each.labels["segment"] for each in found["trustwatch_lead_score"].samples} == {"all", "source=ads"}
    assert values(found["trustwatch_entered_steps"]) == {("evaluate",): 10}
    assert values(found["trustwatch_surviving_steps"])["evaluate", "15"] == 8


def test_they_are_part_of_the_metrics_of_a_line() -> None:
    from streams.app import Line  # noqa: PLC0415  # Faust takes a second

    names = {family.name for family in LineCollector(Line(SETTINGS)).collect()}
    assert {
        "trustwatch_detector_expected", "trustwatch_control_events", "trustwatch_lead_score",
        "trustwatch_lead_outcomes", "trustwatch_surviving_steps",
    } <= names  # fmt: skip
