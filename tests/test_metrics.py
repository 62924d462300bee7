"""The `/metrics` of a worker: by the rules of Prometheus, exact, without people, and safe to read at any moment."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from detectors._registry import discover
from streams.app import Line
from streams.backtest import closing_message
from streams.events import REASONS, Event
from streams.frames import encode, encode_json
from streams.ingest import Door, Raw
from streams.metrics import LineCollector, MetricsServer
from streams.privacy import Privacy
from streams.settings import Settings
from streams.simulate import simulate
from streams.stage import Record, Slot
from streams.units import SessionizeUnit, WatchUnit

SETTINGS = Settings(
    privacy={"pseudonym_key": "0123456789abcdef"},
    metrics={"port": 0},
    topics={"raw": [{"name": "web"}], "raw_partitions": 1},
)
PRIVACY = Privacy.from_settings(SETTINGS)
SOURCE = "web/0"
GARBAGE = (b"", b"no json", b"[]", b"7")
BATCH = 500
REPEATS = 5
NOW = 1_790_000_000.0


def raw_messages() -> tuple[list[bytes], set[str]]:
    """Messages with duplicates, garbage and a late one, and every pseudonym in them."""
    events: list[Event] = list(simulate(1.5, seed=4, sessions_per_day=150, leads_per_day=40))
    people = {PRIVACY.pseudonym(raw) for event in events for raw in (event.person, event.also_person) if raw}
    messages = [native(event) for event in events]
    messages[200:200] = [messages[199]] * REPEATS
    messages[300:300] = GARBAGE
    messages.append(messages[0].replace(b'"id":"', b'"id":"late-'))
    messages.append(closing_message(events[-1].time, SETTINGS.time, events[-1].time + 86_400))
    return messages, people


def native(event: Event) -> bytes:
    given = msgspec.structs.asdict(event).items()
    return encode_json({name: value for name, value in given if value is not None})


class Fed:
    """A line without a broker whose units are fed by hand, as its stages would."""

    def __init__(self) -> None:
        self.line = Line(SETTINGS)
        self.messages, self.people = raw_messages()
        self.door = Door(SETTINGS, PRIVACY, {"web": 1})
        self.door.open_source(SOURCE)
        assert self.line.ingest is not None
        self.line.ingest.door = self.door
        topics, plan = SETTINGS.topics, self.line.plan
        self._sessionize = {p: SessionizeUnit(plan, p) for p in range(topics.events_partitions)}
        self._watch = {p: WatchUnit(plan, p) for p in range(topics.counts_partitions)}
        self._offsets = itertools.count()
        self.line.sessionize.slots.update({p: Slot(unit) for p, unit in self._sessionize.items()})
        self.line.watch.slots.update({p: Slot(unit) for p, unit in self._watch.items()})

    def feed(self) -> Iterator[int]:
        """Feed all, batch by batch; gives how many messages were fed."""
        for start in range(0, len(self.messages), BATCH):
            part = self.messages[start : start + BATCH]
            self.door.take([Raw("web", 0, start + index, value) for index, value in enumerate(part)], NOW)
            for target, frame in self.door.flush(NOW, everything=True).frames:
                for record in self._sessionize[target].take(encode(frame), next(self._offsets)):
                    self._watched(record)
            yield start + len(part)

    def _watched(self, record: Record) -> None:
        assert record.partition is not None and record.value is not None
        self._watch[record.partition].take(record.value, next(self._offsets))


@pytest.fixture(scope="module")
def fed() -> Fed:
    made = Fed()
    for _ in made.feed():
        pass
    return made


def text_of(line: Line) -> str:
    registry = CollectorRegistry()
    registry.register(LineCollector(line))
    return generate_latest(registry).decode()


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Label values → value of the samples of this name."""
    found = (sample for family in families(text).values() for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in found if sample.name == name}


@pytest.mark.parametrize("when", ["idle", "fed"])
def test_promtool_finds_nothing_wrong(fed: Fed, promtool: str, when: str) -> None:
    text = text_of(fed.line if when == "fed" else Line(SETTINGS))
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("when", ["idle", "fed"])
def test_each_metric_is_described_once_and_each_sample_is_there_once(fed: Fed, when: str) -> None:
    text = text_of(fed.line if when == "fed" else Line(SETTINGS))
    described = re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
    assert sorted(described) == sorted(set(described))
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert sorted(series) == sorted(set(series))
    assert all(re.fullmatch(r"trustwatch_[a-z0-9_]+", name) for name in described)


def test_accounting_adds_up_to_what_came_in(fed: Fed) -> None:
    text = text_of(fed.line)
    family = families(text)["trustwatch_events"].samples
    assert {sample.labels["topic"] for sample in family} == {"web"}
    outcomes: Counter[str] = Counter()
    for sample in family:
        outcomes[sample.labels["outcome"]] += int(sample.value)
    assert set(outcomes) == {"applied", "duplicate", "late", "dead_letter"}
    assert sum(outcomes.values()) == len(fed.messages) - 1  # the punctuation is no event
    assert (outcomes["duplicate"], outcomes["late"], outcomes["dead_letter"]) == (REPEATS, 1, len(GARBAGE))
    letters = samples(text, "trustwatch_dead_letters_total")
    assert sum(letters.values()) == len(GARBAGE)
    assert {key[-1] for key in letters} | {key[0] for key in letters} == {"web", *REASONS}
    assert sum(samples(text, "trustwatch_ingest_items_total").values()) == sum(outcomes.values())
    assert samples(text, "trustwatch_open_sessions") == {(): 0.0}
    begun = sum(samples(text, "trustwatch_steps_begun_total").values())
    everyone = [value for labels, value in samples(text, "trustwatch_steps_total").items() if "all" in labels]
    assert sum(everyone) == begun > 100


def test_every_child_of_a_detector_is_there_from_the_start() -> None:
    text = text_of(Line(SETTINGS))
    names = set(discover())
    findings = [family for family in families(text).values() if family.name == "trustwatch_open_findings"]
    children = {(s.labels["detector"], s.labels["level"]): s.value for s in findings[0].samples}
    assert children == {(name, level): 0.0 for name in names for level in ("warn", "alert")}


def test_every_counter_of_a_detector_is_there_as_soon_as_its_partition_is_owned() -> None:
    line = Line(SETTINGS)
    line.watch.slots[1] = Slot(WatchUnit(line.plan, 1))
    text = text_of(line)
    for metric in ("findings", "detector_observations", "detector_errors", "detector_resets"):
        assert samples(text, f"trustwatch_{metric}_total") == {(name, "1"): 0.0 for name in discover()}, metric


def test_counts_that_move_with_a_partition_name_it(fed: Fed) -> None:
    """A sum over what a worker owns would fall when a partition goes, and Prometheus would take that for a restart."""
    text = text_of(fed.line)
    for name, slots in (("overflowed_labels", fed.line.sessionize.slots), ("unwatched_observations",
                        fed.line.watch.slots)):  # fmt: skip
        assert samples(text, f"trustwatch_{name}_total") == {(str(partition),): 0.0 for partition in slots}
    refused = families(text)["trustwatch_stage_refused_messages"].samples
    assert {(s.labels["stage"], s.labels["partition"]) for s in refused} == {
        (stage.name, str(partition)) for stage in (fed.line.sessionize, fed.line.watch) for partition in stage.slots
    }


def restored(fresh: Fed, monkeypatch: pytest.MonkeyPatch, end: int | None) -> list[Slot]:
    """Slots of a line after a kill: their states are of offset 9, their logs end at `end`."""
    found = list[Slot]()
    for stage in (fresh.line.sessionize, fresh.line.watch):
        slots = {p: Slot(slot.unit, offset=9, durable=9) for p, slot in stage.slots.items()}
        monkeypatch.setattr(stage, "slots", slots)
        monkeypatch.setattr(stage._source, "end", lambda partition: end)
        found += stage.slots.values()
    return found


def counters(line: Line) -> set[str]:
    """Counters of the partitions, not of the process, that have samples."""
    states = {f"trustwatch_{name}" for name in (
        "events", "steps", "leads", "evictions", "findings", "cohort_steps", "lead_score", "unwatched_observations")
    }  # fmt: skip
    return {family.name for family in LineCollector(line)._families() if family.name in states and family.samples}


def test_after_a_kill_counters_wait_until_they_are_where_they_were(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = counters(fed.line)
    assert len(everything) == 8
    collector, slots = LineCollector(fed.line), restored(fed, monkeypatch, end=20)

    def told() -> dict[str, int]:
        return {family.name: len(family.samples) for family in collector._families()}

    held = told()
    assert not [name for name in everything if held[name]]
    assert held["trustwatch_detector_level"] and held["trustwatch_open_sessions"] and held["trustwatch_ready"]
    for slot in slots:
        slot.offset, slot.untouched = 19, False
    assert not told()["trustwatch_events"], "the offset is noted before the batch is applied"
    assert all(told()[name] for name in everything)
    monkeypatch.setattr(fed.line.sessionize._source, "end", lambda partition: 500)
    assert all(told()[name] for name in everything), "new messages are no reason to leave them out again"


def test_counters_are_told_at_once_where_nothing_is_to_be_read_again(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    restored(fed, monkeypatch, end=10)
    assert len(counters(fed.line)) == 8
    restored(fed, monkeypatch, end=None)
    assert not counters(fed.line), "while the end of the log is not known, nobody can say"


def test_the_false_page_budget_what_is_given_of_it_and_what_became_of_it(fed: Fed) -> None:
    names = {("detector", name, "severity", cls.alert.severity) for name, cls in discover().items()}
    for line in (fed.line, Line(SETTINGS)):
        text = text_of(line)
        assert samples(text, "trustwatch_false_pages_budget_per_week") == {(): SETTINGS.false_pages_per_week}
        for metric in ("false_pages_expected", "pages_observed", "false_pages_observed"):
            found = families(text)[f"trustwatch_{metric}_per_week"].samples
            assert {tuple(itertools.chain(*sorted(sample.labels.items()))) for sample in found} == names
    given = families(text_of(fed.line))["trustwatch_false_pages_expected_per_week"].samples
    for severity in ("page", "ticket"):
        shares = [sample.value for sample in given if sample.labels["severity"] == severity]
        assert 0 < sum(shares) <= SETTINGS.false_pages_per_week + 1e-9


def test_observed_pages_are_a_week_of_event_time_and_old_ones_leave() -> None:
    fresh, day_s = Fed(), 86_400.0
    pages = next(iter(fresh.line.watch.slots.values())).unit.stage.pages
    for day, false in ((0, 1), (1, 0), (2, 0), (14, 1)):
        pages.move_on(NOW + day * day_s)
        pages.note("hesitation", NOW + day * day_s, begun=1, false=false)
    name = "trustwatch_{}pages_observed_per_week"

    def observed(metric: str) -> float:
        return samples(text_of(fresh.line), name.format(metric))["hesitation", "page"]

    assert (observed(""), observed("false_")) == (2.0, 1.0)  # four and two in two weeks
    pages.move_on(NOW + 40 * day_s)
    assert (observed(""), observed("false_")) == (0.25, 0.25)  # the last one in four weeks
    pages.note("hesitation", NOW + 40 * day_s)
    assert len(pages.days["hesitation"]) == 2


def test_every_reason_and_outcome_is_there_from_the_start() -> None:
    text = text_of(Line(SETTINGS))
    letters = families(text)["trustwatch_dead_letters"].samples
    assert {sample.labels["reason"] for sample in letters} == set(REASONS)
    assert set(samples(text, "trustwatch_ingest_items_total").values()) == {0.0}


def test_no_person_is_in_a_label(fed: Fed) -> None:
    text = text_of(fed.line)
    values = {value for family in families(text).values() for s in family.samples for value in s.labels.values()}
    assert len(fed.people) > 100 and "device=mobile" in values
    assert not fed.people & values
    assert not [person for person in fed.people if person in text]


def test_watched_streams_have_a_verdict_and_bounded_values(fed: Fed) -> None:
    text = text_of(fed.line)
    scores, levels = (samples(text, f"trustwatch_detector_{name}") for name in ("score_ratio", "level"))
    assert set(scores) == set(levels) and len(levels) > 10
    assert all(0 <= score <= 1 for score in scores.values())
    assert set(levels.values()) <= {0.0, 1.0, 2.0, 3.0}


def feed_while(fresh: Fed, read: Callable[[], object]) -> None:
    """Let a line be fed, and read of it in another thread all the while; raises what reading raised."""
    done, failed = threading.Event(), list[BaseException]()

    def again_and_again() -> None:
        try:
            while not done.is_set():
                read()
        except BaseException as error:
            failed.append(error)

    reader = threading.Thread(target=again_and_again)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads meet in the middle of everything
    try:
        reader.start()
        for _ in fresh.feed():
            pass
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert not failed, failed


def test_reading_while_frames_are_applied_never_raises_and_counters_never_fall() -> None:
    fresh, consumed = Fed(), list[float]()
    feed_while(fresh, lambda: consumed.append(sum(samples(text_of(fresh.line), "trustwatch_events_total").values())))
    assert consumed == sorted(consumed) and len(consumed) > 5


def test_a_scrape_in_the_middle_of_a_rebalance_or_before_any_event_does_not_fail() -> None:
    fresh = Fed()
    assert fresh.line.ingest is not None
    fresh.line.ingest.behind[TopicPartition("web", 0)] = 3
    assert all(value < float("inf") for value in samples(text_of(fresh.line), "trustwatch_ingest_lag_seconds").values())
    fresh.door.close_source(SOURCE)  # revoked, while the scrape still holds the old list
    assert "trustwatch_events_total" in text_of(fresh.line)


def test_metrics_are_served_on_loopback_and_the_port_is_freed() -> None:
    assert Settings.model_fields["metrics"].default.host == "127.0.0.1"
    server = MetricsServer(Line(SETTINGS))

    async def serve() -> tuple[tuple[str, int], str]:
        await server.on_start()
        try:
            address = server._server.server_address
            url = f"http://127.0.0.1:{address[1]}/metrics"
            with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as answer:
                return address, answer.read().decode()
        finally:
            await server.on_stop()

    address, text = asyncio.run(serve())
    assert address[0] == "127.0.0.1" and address[1] > 0
    assert "trustwatch_events_total" in text
    if sys.platform == "linux":
        assert "trustwatch_process_cpu_seconds_total" in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=5)


def test_the_model_of_every_stage_is_measured(fed: Fed) -> None:
    text = text_of(fed.line)
    partitions = {str(partition) for partition in fed.line.sessionize.slots}
    for name, least, most in (("auc", 0.0, 1.0), ("gain_nats", -1.0, 1.0), ("calibration_error", 0.0, 1.0),
                              ("lift", -1.0, 1.0), ("speaking", 0.0, 1.0)):  # fmt: skip
        family = families(text)[f"trustwatch_step_model_{name}"].samples
        assert {sample.labels["partition"] for sample in family} == partitions
        assert {"discover", "evaluate"} <= {sample.labels["stage"] for sample in family}
        assert all(least <= sample.value <= most for sample in family), name
    cohorts = families(text)["trustwatch_cohort_steps"].samples
    begun = sum(samples(text, "trustwatch_steps_begun_total").values())
    for by in ("soon", "at_all"):
        told = sum(s.value for s in cohorts if s.labels["by"] == by and s.labels["segment"] == "all")
        assert 0.9 * begun < told <= begun
