"""The simulator says the truth: what it claims to have eroded is eroded, and nothing else is."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import pytest

from streams import simulate as simulator
from streams.errors import UsageError
from streams.events import CRM_TYPES, PROPERTY_TYPES, WEB_TYPES, Event
from streams.formats import FormatOptions, decode
from streams.settings import Settings
from streams.simulate import Erosion, Truth, make_sample, parse_erosion, simulate, write, write_vendor
from streams.simulate_web import STAGES

DAY = 86_400.0
BEGIN = 1_756_684_800.0  # 2025-09-01T00:00:00Z
SAMPLE = Path(simulator.__file__).parent / "sample"
STAGE_OF = {
    "": "discover", "blog": "discover", "about": "discover", "products": "evaluate", "compare": "compare",
    "pricing": "compare", "cart": "decide", "contact": "decide", "checkout": "buy", "account": "keep", "help": "keep",
}  # fmt: skip


class Step(msgspec.Struct):
    """One visit of one person to one stage, as the test sees it."""

    stage: str
    segment: dict[str, str]
    events: list[Event]
    outcome: str = "dropped"

    @property
    def day(self) -> float:
        return (self.events[0].time - BEGIN) / DAY

    @property
    def dwell_s(self) -> float:
        return self.events[-1].time - self.events[0].time

    @property
    def stuck(self) -> bool:
        count = Counter(event.type for event in self.events)
        fields = {event.properties["field"] for event in self.events if event.type == "field_focused"}
        returned = count["field_focused"] > len(fields)
        return returned or count["error_shown"] > 0 or count["clicked"] > 4 or count["searched"] > 2


def walk(events: Iterable[Event]) -> list[Step]:
    """A second, simpler reading of journeys than the one under `streams`: thirty minutes of silence end a session."""
    steps: list[Step] = []
    last: dict[str, Step] = {}
    for event in events:
        if event.type not in WEB_TYPES:
            continue
        assert event.page is not None
        stage, step = STAGE_OF[event.page.split("/")[1]], last.get(event.person)
        fresh = step is None or event.time - step.events[-1].time > 1800
        if step is not None and not fresh and step.stage == stage:
            step.events.append(event)
            continue
        if step is not None and not fresh:
            step.outcome = "advanced" if STAGES.index(stage) > STAGES.index(step.stage) else "returned"
        last[event.person] = Step(stage, event.segment, [event])
        steps.append(last[event.person])
    return steps


def share(steps: Iterable[Step], what: Callable[[Step], bool]) -> float:
    return mean(what(step) for step in steps)


def advanced(step: Step) -> bool:
    return step.outcome == "advanced"


def bytes_of(events: Iterable[Event]) -> bytes:
    return msgspec.json.encode(list(events))


def lines(path: Path) -> list[Any]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def calm() -> list[Event]:
    return list(simulate(10, 7))


def test_same_seed_same_events_in_another_process_too() -> None:
    code = (
        "import hashlib, msgspec; from streams.simulate import simulate; "
        "print(hashlib.sha256(msgspec.json.encode(list(simulate(1, 3)))).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    root = Path(simulator.__file__).parent.parent
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == hashlib.sha256(bytes_of(simulate(1, 3))).hexdigest()
    assert bytes_of(simulate(1, 3)) != bytes_of(simulate(1, 4))


def test_events_are_ordered_unique_and_well_typed(calm: list[Event]) -> None:
    assert all(earlier.time <= later.time for earlier, later in pairwise(calm))
    assert len({event.id for event in calm}) == len(calm)
    assert BEGIN <= calm[0].time and calm[-1].time < BEGIN + 10 * DAY
    assert {event.type for event in calm} <= WEB_TYPES | CRM_TYPES
    for event in calm:
        labels = {"channel", "device", "country"} if event.type in WEB_TYPES else {"source", "model"}
        assert set(event.segment) == labels
        assert all(isinstance(value, PROPERTY_TYPES[name]) for name, value in event.properties.items())
    assert 0.1 < mean(event.device_time is not None for event in calm if event.type in WEB_TYPES) < 0.4


def test_nights_and_weekends_are_quiet(calm: list[Event]) -> None:
    web = [event.time for event in calm if event.type in WEB_TYPES and event.time < BEGIN + 7 * DAY]
    hours = Counter(int(moment // 3600) % 24 for moment in web)
    days = Counter(int((moment - BEGIN) // DAY) for moment in web)
    assert hours[3] * 3 < hours[15]
    assert (days[5] + days[6]) / 2 < 0.9 * mean(days[day] for day in range(5))


def test_some_visitors_return(calm: list[Event]) -> None:
    moments: dict[str, list[float]] = {}
    for event in calm:
        if event.type in WEB_TYPES:
            moments.setdefault(event.person, []).append(event.time)
    returned = mean(any(b - a > 3600 for a, b in pairwise(times)) for times in moments.values())
    assert 0.1 < returned < 0.5


def test_stuck_steps_advance_less_and_long_reading_advances_more(calm: list[Event]) -> None:
    steps = [step for step in walk(calm) if step.stage in STAGES[:4]]
    reading = [
        step for step in steps
        if not step.stuck and step.dwell_s > 60 and min(
            (float(event.properties["scroll_ratio"]) for event in step.events if event.type == "page_left"), default=0
        ) >= 0.8
    ]  # fmt: skip
    stuck = [step for step in steps if step.stuck]
    assert len(reading) > 200 and len(stuck) > 200
    assert share(stuck, advanced) + 0.1 < share(steps, advanced) < share(reading, advanced) - 0.05


def test_early_dropoff_lowers_the_advance_rate_of_its_segment_only() -> None:
    events = simulate(16, 5, [parse_erosion("early_dropoff:channel=paid@8x0.67")], 800, 0)
    steps = [step for step in walk(events) if step.stage == "evaluate"]

    def rate(paid: bool, after: bool) -> float:
        return share([s for s in steps if (s.segment["channel"] == "paid", s.day >= 8) == (paid, after)], advanced)

    print(f"paid {rate(True, False):.3f} -> {rate(True, True):.3f}, "
          f"others {rate(False, False):.3f} -> {rate(False, True):.3f}")  # fmt: skip
    assert 0.42 < rate(True, False) < 0.52
    assert rate(True, True) / rate(True, False) == pytest.approx(0.67, abs=0.07)
    assert rate(False, True) == pytest.approx(rate(False, False), abs=0.03)


def test_hesitation_makes_its_segment_stuck_and_leaves_the_others_as_they_were() -> None:
    erosion = parse_erosion("hesitation:device=mobile@8")
    assert (erosion.stage, erosion.size) == ("decide", 3.0)
    plain, eroded = list(simulate(16, 5, (), 800, 0)), list(simulate(16, 5, [erosion], 800, 0))
    steps = [step for step in walk(eroded) if step.stage == "decide" and step.segment["device"] == "mobile"]
    before, after = [s for s in steps if s.day < 8], [s for s in steps if s.day >= 8]
    assert share(after, lambda step: step.stuck) > 1.8 * share(before, lambda step: step.stuck)
    assert share(before, advanced) - 0.15 < share(after, advanced) < share(before, advanced)
    lost = [[step.dwell_s for step in part if not advanced(step)] for part in (before, after)]
    assert mean(lost[1]) > 1.2 * mean(lost[0])

    def others(events: list[Event]) -> bytes:
        return bytes_of(event for event in events if event.segment["device"] != "mobile")

    assert others(plain) == others(eroded)


def leads_of(events: Iterable[Event]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        lead = found.setdefault(event.person, {**event.segment})
        lead[event.type] = event.properties.get("score", event.time)
    return list(found.values())


def test_lead_score_drift_raises_scores_and_lowers_acceptance_at_a_given_score() -> None:
    erosion = parse_erosion("lead_score_drift:source=webinar@20")
    plain, eroded = list(simulate(50, 5, (), 0, 400)), list(simulate(50, 5, [erosion], 0, 400))
    leads = [lead for lead in leads_of(eroded) if lead["source"] == "webinar" and "lead_scored" in lead]
    before = [lead for lead in leads if lead["lead_created"] < BEGIN + 20 * DAY]
    after = [lead for lead in leads if BEGIN + 20 * DAY <= lead["lead_created"] < BEGIN + 40 * DAY]
    scores = [mean(lead["lead_scored"] for lead in part) for part in (before, after)]
    assert scores[1] - scores[0] == pytest.approx(15, abs=1)
    for low in (50, 60, 70):
        rates = [
            mean("lead_accepted" in lead for lead in part if low <= lead["lead_scored"] < low + 10)
            for part in (before, after)
        ]
        assert rates[1] < rates[0] - 0.08

    def others(events: list[Event]) -> bytes:
        return bytes_of(event for event in events if event.segment["source"] != "webinar")

    assert others(plain) == others(eroded)


def test_score_inflation_scales_scores_and_fills_the_pipeline() -> None:
    leads = [lead for lead in leads_of(simulate(20, 5, [parse_erosion("score_inflation@10x1.3")], 0, 300))
             if "lead_scored" in lead]  # fmt: skip
    parts = [[lead for lead in leads if (lead["lead_created"] >= BEGIN + 10 * DAY) == late] for late in (False, True)]
    scores = [mean(lead["lead_scored"] for lead in part) for part in parts]
    qualified = [mean("lead_handed_over" in lead for lead in part) for part in parts]
    assert scores[1] / scores[0] == pytest.approx(1.3, abs=0.04)
    assert qualified[1] > qualified[0] + 0.2


def test_spec_is_read_whole() -> None:
    erosion = parse_erosion("early_dropoff:stage=compare,channel=paid,device=mobile@14.5x0.7")
    assert erosion == Erosion("early_dropoff", "compare", {"channel": "paid", "device": "mobile"}, 14.5, 0.7)
    assert parse_erosion("score_inflation@3") == Erosion("score_inflation", "leads", {}, 3.0, 1.3)


@pytest.mark.parametrize(("spec", "says"), [
    ("", "not of the form"),
    ("early_dropoff", "not of the form"),
    ("early_dropoff@", "not of the form"),
    ("early_dropoff@-3", "not of the form"),
    ("early_dropoff@1.2.3", "not of the form"),
    ("apathy@3", "unknown kind"),
    ("early_dropoff:paid@3", "no label=value"),
    ("early_dropoff:channel=paid,channel=email@3", "given twice"),
    ("early_dropoff:channel=radio@3", "channel is never 'radio'"),
    ("early_dropoff:source=webinar@3", "no label 'source'"),
    ("early_dropoff:stage=keep@3", "no stage 'keep'"),
    ("lead_score_drift:stage=evaluate@3", "no stage 'evaluate'"),
    ("early_dropoff@3x1.5", "size of early_dropoff must be 0.05 to 0.95"),
])  # fmt: skip
def test_bad_spec_says_what_is_wrong_and_shows_the_syntax(spec: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_erosion(spec)
    assert says in str(caught.value)
    assert simulator.SYNTAX in str(caught.value)


@pytest.mark.parametrize("arguments", [
    {"days": 0}, {"days": float("nan")}, {"days": 1, "seed": -1}, {"days": 1, "start": "yesterday"},
    {"days": 1, "start": "2025-09-01T00:00:00"}, {"days": 1, "erosions": [parse_erosion("early_dropoff@1")]},
])  # fmt: skip
def test_bad_arguments_raise_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        simulate(**{"seed": 1, **arguments})


@pytest.mark.parametrize(("name", "epoch_times"), [("a.jsonl", False), ("a.jsonl.gz", True)])
def test_write_stores_every_event_and_the_truth(tmp_path: Path, name: str, epoch_times: bool) -> None:
    events, out = list(simulate(2, 9)), tmp_path / name
    erosion = parse_erosion("score_inflation:model=v1@1.5")
    truth = write(events, out, days=2, seed=9, erosions=[erosion], epoch_times=epoch_times)
    stored = lines(out)
    assert [row["id"] for row in stored] == [event.id for event in events]
    expected = [event.time if epoch_times else simulator._iso(event.time) for event in events]
    assert [row["time"] for row in stored] == expected
    assert all("session" not in row and row["segment"] for row in stored)
    assert msgspec.json.decode((tmp_path / f"{name}.truth.json").read_bytes(), type=Truth) == truth
    assert (truth.events, truth.persons) == (len(events), len({event.person for event in events}))
    assert (truth.start, truth.end) == ("2025-09-01T00:00:00.000Z", "2025-09-03T00:00:00.000Z")
    only = truth.erosions[0]
    assert (only.detector, only.kind, only.stage) == ("score_inflation", "score_inflation", "leads")
    assert (only.onset, only.segment) == ("2025-09-02T12:00:00.000Z", {"model": "v1"})


def test_unwritable_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write([], tmp_path / "missing" / "a.jsonl", days=1, seed=1)


def unpacked(messages: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for message in messages:
        yield from message["batch"] if "batch" in message else [message]


def test_vendor_files_hold_every_event(tmp_path: Path, calm: list[Event]) -> None:
    tally = write_vendor(calm, tmp_path / "web.jsonl", tmp_path / "crm.jsonl.gz")
    web, crm = lines(tmp_path / "web.jsonl"), lines(tmp_path / "crm.jsonl.gz")
    count = Counter(event.type for event in calm)
    calls, items = list(unpacked(web)), [item for message in crm for item in message]
    assert (tally.web_events, tally.crm_events) == (len(calls), len(items))
    assert [call["messageId"] for call in calls] == [event.id for event in calm if event.type in WEB_TYPES]
    assert sum(call["type"] == "page" for call in calls) == count["page_viewed"]
    names = Counter(call.get("event") for call in calls)
    assert names["Order Completed"] == count["purchased"] and names["Field Focused"] == count["field_focused"]
    assert all({"country", "device", "channel"} <= set(call["properties"]) for call in calls)
    assert all("revenue" in call["properties"] for call in calls if call.get("event") == "Order Completed")
    leads = sum(number for kind, number in count.items() if kind in CRM_TYPES)
    assert len(items) == leads - count["lead_lost"] + count["lead_scored"]
    assert [item["occurredAt"] for item in items] == sorted(item["occurredAt"] for item in items)
    assert {len(message) for message in crm} <= {1, 2, 3, 4, 5} and any(len(message) > 2 for message in crm)
    assert all(2 <= len(message["batch"]) <= 5 for message in web if "batch" in message)
    names = Counter(item.get("propertyName") for item in items)
    assert names["hubspotscore"] == names["hs_analytics_source"] == count["lead_scored"]
    sourced = [item["objectId"] for item in items if item.get("propertyName") == "hs_analytics_source"]
    scored = [item["objectId"] for item in items if item.get("propertyName") == "hubspotscore"]
    assert sourced == scored and min(scored) > 2**32


def test_our_own_door_reads_the_vendor_files_back(tmp_path: Path, calm: list[Event]) -> None:
    write_vendor(calm, tmp_path / "web.jsonl", tmp_path / "crm.jsonl")
    options = FormatOptions.from_settings(Settings(), now_s=BEGIN + 30 * DAY)
    web, crm = (
        [outcome for line in (tmp_path / name).read_bytes().splitlines() for outcome in decode(line, None, options)]
        for name in ("web.jsonl", "crm.jsonl")
    )
    read = [outcome for outcome in (*web, *crm) if isinstance(outcome, Event)]
    assert len(read) == len(web) + len(crm), "nothing is refused"
    assert read[: len(web)] == [event for event in calm if event.type in WEB_TYPES]
    count = Counter(event.type for event in calm if event.type in CRM_TYPES - {"lead_lost"})
    assert Counter(event.type for event in read[len(web) :]) == count + Counter(other=count["lead_scored"])
    sources = Counter(event.segment.get("source") for event in read if event.type == "other")
    assert sources == Counter(event.segment["source"] for event in calm if event.type == "lead_scored")


def test_shipped_sample_is_what_the_simulator_makes(tmp_path: Path) -> None:
    truth = make_sample(tmp_path)
    for name in ("web.jsonl.gz", "crm.jsonl.gz"):
        made, shipped = (tmp_path / name).read_bytes(), (SAMPLE / name).read_bytes()
        assert made[3:8] == bytes(5), "gzip header must hold neither name nor time"
        # Not the packed bytes: another zlib packs otherwise.
        same = gzip.decompress(made) == gzip.decompress(shipped)
        assert same, "sample is stale. Fix: python -m streams.simulate sample"
    assert (tmp_path / "truth.json").read_bytes() == (SAMPLE / "truth.json").read_bytes()
    assert {erosion.detector for erosion in truth.erosions} == {"hesitation", "early_dropoff", "lead_score_drift"}
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 3_500_000


def test_speed_is_printed() -> None:
    begin = time.perf_counter()
    count = sum(1 for _ in simulate(10, 1))
    print(f"simulate: {count / (time.perf_counter() - begin):,.0f} events/s")
    assert count > 10_000
