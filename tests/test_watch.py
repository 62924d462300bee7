"""Buckets of all partitions, merged and judged in event-time order; a failing detector harms nobody else."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import msgspec
import pytest

from detectors._base import AlertOn, Bucket, Detector, Level, Params, Verdict
from streams.checkpoints import compressed, plain
from streams.errors import CheckpointRefused, ConfigError
from streams.findings import Finding
from streams.frames import NEVER, Cell, Counts, Segment
from streams.judge import Where
from streams.settings import Settings
from streams.units import Plan, WatchUnit
from streams.watch import Detectors, Watcher
from tests.kit import T0, settings_of

WIDTH = 10.0
TV: Segment = (("device", "tv"),)


class Seen(msgspec.Struct):
    """Every bucket that a detector saw: (seconds after T0, entered)."""

    buckets: list[tuple[float, int]] = []


class FakeParams(Params):
    """One knob."""

    alert_at: int = 100


class Fake(Detector[Bucket, FakeParams]):
    """Remembers what it saw, and alerts on a count as told."""

    title = "Fake"
    unit = "ratio"
    state_version = 1
    alert: ClassVar[AlertOn] = AlertOn()
    Params = FakeParams
    State = Seen

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()

    @classmethod
    def look(cls, bucket: Bucket, params: FakeParams) -> Bucket | None:
        return bucket if bucket.counts.get("entered") else None

    def observe(self, x: Bucket) -> Verdict:
        self.state.buckets.append((x.ts - T0, x.counts["entered"]))
        if x.counts["entered"] < self.params.alert_at:
            return Verdict("ok")
        return Verdict("alert", score=1.0, onset=x.ts, before=0.5, after=0.4, n_before=10, n_after=5)


class Broken(Fake):
    """Raises on one bucket in two."""

    def observe(self, x: Bucket) -> Verdict:
        if int(x.ts / WIDTH) % 2:
            raise ZeroDivisionError("a secret of a person")
        return super().observe(x)


class Blind(Fake):
    """Cannot even look."""

    @classmethod
    def look(cls, bucket: Bucket, params: FakeParams) -> Bucket | None:
        raise KeyError("x")


class Scripted(Fake):
    """Says what the bucket holds: `entered` 2 is a warning, 3 an alert; the gain is in the counts, too."""

    def observe(self, x: Bucket) -> Verdict:
        super().observe(x)
        level: Level = "alert" if x.counts["entered"] == 3 else "warn" if x.counts["entered"] == 2 else "ok"
        onset = None if level == "ok" else x.ts
        return Verdict(level, onset=onset, gain=float(x.counts.get("gain", 0)), before=0.5, after=0.4)


class Ticket(Fake):
    """Pages nobody."""

    alert: ClassVar[AlertOn] = AlertOn(severity="ticket")
    stage: ClassVar[str | None] = "leads"


class Untellable(Fake):
    """Says what cannot be told."""

    def observe(self, x: Bucket) -> Verdict:
        return Verdict("alert", onset=float("nan"))


def watched(*classes: type[Fake], partitions: int = 2, limits: dict[str, Any] | None = None,
            journey: tuple[str, ...] = ("evaluate",), **params: int) -> Watcher:  # fmt: skip
    made = Detectors({}, only=[], journey=journey)
    made.classes = {cls.name(): cls for cls in classes or (Fake,)}
    made.params = {name: FakeParams(**params) for name in made.classes}
    made.digests = {name: f"{name}{params}" for name in made.classes}
    return Watcher(settings_of(topics={"events_partitions": partitions}, limits=limits or {}), made, 0)


def told(partition: int, offset: int, until: float, *cells: tuple[float, int], segment: Segment = (),
         stage: str = "evaluate") -> Counts:  # fmt: skip
    """Counts of one events partition: (seconds after T0, entered) of some buckets."""
    return Counts(partition, offset, T0 + until, [Cell(T0 + ts, stage, segment, {"entered": n}) for ts, n in cells])


def seen(
    watcher: Watcher, name: str = "fake", stage: str = "evaluate", segment: Segment = ()
) -> list[tuple[float, int]]:
    instance = watcher._instances.get((name, stage, segment))
    return instance.state.buckets if instance else []


# ── merging ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_is_judged_once_every_partition_has_passed_it() -> None:
    watcher = watched()
    watcher.apply(told(0, 0, 500, (0, 1), (10, 2)))
    assert seen(watcher) == []
    watcher.apply(told(1, 0, 10, (0, 5)))
    assert seen(watcher) == [(0, 6)]
    watcher.apply(told(1, 1, 19))
    assert seen(watcher) == [(0, 6)]
    watcher.apply(told(1, 2, 20))
    assert seen(watcher) == [(0, 6), (10, 2)]
    assert watcher.state.judged_until == T0 + 20


def test_a_partition_without_watermark_still_holds_everything() -> None:
    watcher = watched()
    watcher.apply(told(0, 0, 500, (0, 1)))
    watcher.apply(Counts(1, 0, NEVER, []))
    assert seen(watcher) == []


@pytest.mark.parametrize("seed", range(10))
def test_the_order_in_which_partitions_arrive_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    messages = {p: [told(p, i, 30 * (i + 1), *((30 * i + 10 * k, 1 + (p * 7 + i * k) % 5) for k in range(3)),
                         segment=TV if i % 2 else ()) for i in range(6)] for p in range(3)}  # fmt: skip
    straight, shuffled = watched(partitions=3, alert_at=5), watched(partitions=3, alert_at=5)
    expected = [finding for i in range(6) for p in range(3) for finding in straight.apply(messages[p][i])]
    found: list[Finding] = []
    left = [p for p in range(3) for _ in range(6)]
    rng.shuffle(left)
    at = {p: 0 for p in range(3)}
    for partition in left:
        found += shuffled.apply(messages[partition][at[partition]])
        at[partition] += 1
    assert found == expected
    assert shuffled.digest_part() == straight.digest_part()
    assert seen(straight)


def test_the_digest_is_the_same_while_buckets_wait_whatever_came_first() -> None:
    cells = [Cell(T0, "evaluate", (), {"entered": 1}), Cell(T0, "evaluate", (), {"dropped": 2})]
    digests = set()
    for first, second in (cells, cells[::-1]):
        watcher = watched()
        watcher.apply(Counts(0, 0, T0 + 50, [first]))
        watcher.apply(Counts(1, 0, T0 + 5, [second]))
        watcher.state.watermarks, watcher.state.applied = {}, {}
        digests.add(watcher.digest_part())
    assert len(digests) == 1


def test_counts_that_come_again_are_ignored() -> None:
    watcher = watched(partitions=1)
    for _ in range(2):
        watcher.apply(told(0, 0, 5, (0, 3)))
        watcher.apply(told(0, 1, 50, (10, 4)))
    assert seen(watcher) == [(0, 3), (10, 4)]


def test_judged_buckets_leave_memory() -> None:
    watcher = watched(partitions=1)
    for i in range(50):
        watcher.apply(told(0, i, 10 * i, (10 * i, 1)))
    assert len(watcher._pending) == 1


# ── failures and limits ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("other", [Broken, Blind, Untellable])
def test_a_failing_detector_is_counted_and_the_others_go_on(
    other: type[Fake], caplog: pytest.LogCaptureFixture
) -> None:
    alone, beside = watched(partitions=1, alert_at=3), watched(Fake, other, partitions=1, alert_at=3)
    messages = [told(0, i, 10 * i, (10 * i, i)) for i in range(6)]
    expected = [finding for message in messages for finding in alone.apply(message)]
    found = [finding for message in messages for finding in beside.apply(message)]
    assert [one for one in found if one.detector == "fake"] == expected
    assert seen(beside) == seen(alone)
    assert beside.state.errors[other.name()] >= 2
    assert "fake" not in beside.state.errors
    assert other.name() in caplog.text


def test_a_failure_does_not_stop_its_own_detector() -> None:
    watcher = watched(Broken, partitions=1)
    watcher.apply(told(0, 0, 60, *((10.0 * i, 1) for i in range(6))))
    assert len(seen(watcher, "broken")) == 3
    assert watcher.state.errors == {"broken": 3}
    assert watcher.state.observations == {"broken": 6}


def test_beyond_the_limit_of_streams_nothing_more_is_watched_and_that_is_counted() -> None:
    watcher = watched(partitions=1, limits={"streams": 3})
    for i in range(5):
        watcher.apply(told(0, i, 100, (0, 1), segment=(("device", f"d{i}"),)))
    assert watcher.streams == 3
    assert watcher.state.unwatched == 2
    assert seen(watcher, segment=(("device", "d2"),)) == [(0, 1)]


# ── the false-page budget ─────────────────────────────────────────────────────────────────────────────────────────

BUDGET = settings_of().false_pages_per_week


def stream(number: int) -> Segment:
    return (("device", f"d{number:04}"),)


def grow(watcher: Watcher, first: int, last: int, stage: str = "evaluate") -> None:
    """New streams, one bucket each."""
    for i in range(first, last):
        watcher.apply(told(0, i, 10 * i + 10, (10 * i, 1), segment=stream(i), stage=stage))


def allowances(watcher: Watcher) -> dict[Any, float]:
    return {key: instance.allowance or 0.0 for key, instance in watcher._instances.items()}


def test_the_only_stream_has_its_pairs_part_and_parts_add_up_to_the_budget() -> None:
    watcher = watched(Fake, Scripted, partitions=1, journey=("discover", "evaluate", "buy"))
    grow(watcher, 0, 1)
    assert set(allowances(watcher).values()) == {BUDGET / 6}
    for offset, stage in enumerate(("discover", "buy"), 1):
        watcher.apply(told(0, offset, 100, (10 * offset, 1), stage=stage))
    assert sum(allowances(watcher).values()) == pytest.approx(BUDGET)
    assert watcher.allowances == pytest.approx({"fake": BUDGET / 2, "scripted": BUDGET / 2})


def test_new_streams_share_at_once_and_the_sum_never_exceeds_the_budget() -> None:
    watcher = watched(partitions=1)
    for number in range(150):
        grow(watcher, number, number + 1)
        given = allowances(watcher)
        assert len(given) == number + 1
        assert len(set(given.values())) == 1  # equal parts
        assert 0.85 * BUDGET < sum(given.values()) <= BUDGET * (1 + 1e-9)
        assert watcher.allowances["fake"] == pytest.approx(sum(given.values()))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str | float]:
    """The shares that detectors are told, and "observe" where they see a bucket."""
    made: list[str | float] = []
    allow, observe = Fake.allow, Fake.observe

    def noted_allow(self: Fake, share: float) -> None:
        made.append(share)
        allow(self, share)

    def noted_observe(self: Fake, x: Bucket) -> Verdict:
        made.append("observe")
        return observe(self, x)

    monkeypatch.setattr(Fake, "allow", noted_allow)
    monkeypatch.setattr(Fake, "observe", noted_observe)
    return made


def test_a_stream_is_told_its_share_before_it_sees_anything(calls: list[str | float]) -> None:
    watcher = watched(partitions=1)
    grow(watcher, 0, 1)
    assert calls == [BUDGET, "observe"]
    grow(watcher, 1, 400)
    assert len(calls) - calls.count("observe") < 400 * 12  # amortised: not every stream at each new one


@pytest.mark.parametrize("streams", [1, 11, 12, 40])
def test_after_a_restore_every_stream_has_the_same_share(streams: int, calls: list[str | float]) -> None:
    before, after = watched(partitions=1), watched(partitions=1)
    grow(before, 0, streams)
    calls.clear()
    after.restore(before.snapshot())
    assert calls == list(allowances(before).values())  # each is told once
    assert allowances(after) == allowances(before)
    for watcher in (before, after):
        grow(watcher, streams, streams + 8)
    assert allowances(after) == allowances(before)


def test_tickets_have_a_budget_of_their_own() -> None:
    watcher = watched(Fake, Ticket, partitions=1, journey=("discover", "evaluate"))
    grow(watcher, 0, 1)
    watcher.apply(told(0, 1, 100, (10, 1), stage="leads"))
    given = allowances(watcher)
    assert given["fake", "evaluate", stream(0)] == BUDGET / 2
    assert given["ticket", "leads", ()] == BUDGET


def test_the_budget_is_split_over_the_stages_that_a_detector_may_watch() -> None:
    settings = settings_of(detectors={"early_dropoff": {"stages": ["evaluate"]}})
    plan = Plan(settings.model_copy(update={"false_pages_per_week": 6.0}))
    watcher, stages = plan.watcher(0), plan.journey.stages
    shares = watcher._pair_shares
    pages = {"early_dropoff": 1, "hesitation": len(stages), "data_trust": 1}
    assert sum(shares[name] * count for name, count in pages.items()) == pytest.approx(6.0)
    assert shares["early_dropoff"] == shares["hesitation"] == 6.0 / (2 + len(stages))
    tickets = {"false_engagement": len(stages), "vanity_gap": 3, "lead_score_drift": 1, "score_inflation": 1,
               "follow_up_decay": 1, "funnel_divergence": 1, "small_losses": 1, "over_contact": 1,
               "value_delivered": 1}  # fmt: skip
    assert sum(shares[name] * count for name, count in tickets.items()) == pytest.approx(6.0)


# ── one finding for many segments ─────────────────────────────────────────────────────────────────────────────────

GAINS: dict[Segment, int] = {(): 25, TV: 60, (("channel", "ads"),): 12, (("channel", "ads"), ("device", "tv")): 30}


def family(rng: random.Random | None = None, buckets: int = 12) -> list[Counts]:
    """From the third bucket on TV is broken, and all segments alert; the order of cells is as it happens."""
    messages = []
    for i in range(buckets):
        cells = [Cell(T0 + 10 * i, "evaluate", segment, {"entered": 3 if 2 <= i < 8 else 1, "gain": gain + i})
                 for segment, gain in GAINS.items()]  # fmt: skip
        if rng is not None:
            rng.shuffle(cells)
        messages.append(Counts(0, i, T0 + 10 * i + 10, cells))
    return messages


@pytest.mark.parametrize("seed", range(5))
def test_the_finding_is_of_the_root_segment_whatever_came_first(seed: int) -> None:
    straight, shuffled = watched(Scripted, partitions=1), watched(Scripted, partitions=1)
    expected = [straight.apply(message) for message in family()]
    assert [shuffled.apply(message) for message in family(random.Random(seed))] == expected
    begun, ended = (finding for findings in expected for finding in findings)
    assert begun.segment == ended.segment == {"stage": "evaluate", "device": "tv"}
    assert begun.evidence == {"explained_segments": 3.0}
    assert (begun.resolved_at, straight.begun) == (None, {"scripted": 1})
    assert shuffled.digest_part() == straight.digest_part()


def test_a_snapshot_in_the_middle_of_a_family_changes_no_finding() -> None:
    straight = watched(Scripted, partitions=1)
    expected = [straight.apply(message) for message in family()]
    for cut in range(len(expected)):
        first, second = watched(Scripted, partitions=1), watched(Scripted, partitions=1)
        found = [first.apply(message) for message in family()[:cut]]
        second.restore(first.snapshot())
        assert found + [second.apply(message) for message in family()[cut:]] == expected
        assert second.digest_part() == straight.digest_part()
        assert second.pages == straight.pages


def test_a_page_whose_old_level_comes_back_soon_is_counted_as_false() -> None:
    watcher = watched(Scripted, partitions=1)
    for message in family():
        watcher.apply(message)
    assert watcher.pages.per_week("scripted") == (1.0, 1.0)


# ── checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_at_any_point_changes_nothing() -> None:
    messages = [told(p, i, 10 * i + p, (10 * i, i % 4 + 1)) for i in range(12) for p in range(2)]
    straight = watched(alert_at=7)
    expected = [straight.apply(message) for message in messages]
    assert any(expected)
    for cut in range(len(messages)):
        first, second = watched(alert_at=7), watched(alert_at=7)
        found = [first.apply(message) for message in messages[:cut]]
        second.restore(first.snapshot())
        assert found + [second.apply(message) for message in messages[cut:]] == expected
        assert second.digest_part() == straight.digest_part()


def test_detectors_of_other_parameters_start_afresh_and_that_is_counted() -> None:
    before = watched(partitions=1)
    before.apply(told(0, 0, 50, (0, 1), (10, 1)))
    after = watched(partitions=1, alert_at=7)
    after.restore(before.snapshot())
    assert (seen(after), after.state.resets) == ([], {"fake": 1})
    again = watched(partitions=1, alert_at=7)
    again.restore(after.snapshot())
    assert again.state.resets == {"fake": 1}


def test_detectors_that_are_gone_are_dropped_and_new_ones_begin() -> None:
    before = watched(Fake, Broken, partitions=1)
    before.apply(told(0, 0, 10, (0, 1)))
    after = watched(Fake, Blind, partitions=1)
    after.restore(before.snapshot())
    assert set(after._instances) == {("fake", "evaluate", ())}
    assert seen(after) == [(0, 1)]


def test_a_damaged_detector_state_starts_afresh_alone() -> None:
    watcher = watched(partitions=1)
    watcher.apply(told(0, 0, 10, (0, 1)))
    watcher.apply(told(0, 1, 10, (0, 1), segment=TV))
    whole = msgspec.msgpack.decode(plain(watcher.snapshot()))
    for stream in whole[2][3]:
        if stream[2]:
            stream[3] = b"\xa1\xff"
    other = watched(partitions=1)
    other.restore(compressed(msgspec.msgpack.encode(whole)))
    assert (seen(other), seen(other, segment=TV), other.state.resets) == ([(0, 1)], [], {"fake": 1})


@pytest.mark.parametrize("blob", [b"", b"garbage", b"\x93\x01\xa1\xff\x90", b"\x93\x01\xa0" + b"\x91" * 100_000])
def test_garbage_is_no_state(blob: bytes) -> None:
    for stored in (blob, compressed(blob)):
        with pytest.raises(CheckpointRefused, match=r"watch\[0\]"):
            watched().restore(stored)


@pytest.mark.parametrize(
    "other",
    [settings_of(time={"bucket_s": 20.0}), settings_of(topics={"events_partitions": 3}),
     settings_of(topics={"counts_partitions": 3})],
)  # fmt: skip
def test_a_state_of_other_partitions_or_buckets_is_refused(other: Settings) -> None:
    blob = Plan(settings_of()).watcher(0).snapshot()
    with pytest.raises(CheckpointRefused, match="other parameters"):
        Plan(other).watcher(0).restore(blob)


# ── configuration and unit ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("overrides", "only", "named"),
    [
        ({"early_dropof": {}}, None, "detectors: unknown 'early_dropof'; known: data_trust, early_dropoff, "),
        ({}, ["nobody"], "detectors: unknown 'nobody'"),
        ({"early_dropoff": {"odds_ratoi": 1}}, None,
         "detectors.early_dropoff.odds_ratoi: unknown parameter; did you mean odds_ratio?"),
        ({"early_dropoff": {"odds_ratio": "high"}}, None, "detectors.early_dropoff.odds_ratio"),
    ],
)  # fmt: skip
def test_a_wrong_detector_or_parameter_is_named(overrides: dict[str, Any], only: list[str] | None, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Detectors(overrides, only)
    assert named in str(caught.value)


def test_only_the_chosen_detectors_watch() -> None:
    assert list(Detectors({}, ["early_dropoff"]).classes) == ["early_dropoff"]


@pytest.mark.parametrize("value", [b"", b"{}", b"\x94\x00\x00\x00\x91\x94\x00\xa1\xff\x90\x80", None])
def test_what_are_no_counts_is_counted_and_passed_over(value: Any) -> None:
    unit = WatchUnit(Plan(settings_of()), 0)
    assert unit.take(value, 0) == []
    assert unit.refused == 1
    unit.take(msgspec.msgpack.encode(told(0, 0, 50, (0, 1))), 1)
    assert unit.stage.state.judged_until == T0 + 50


# ── looking on ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_observer_is_told_of_every_verdict_with_the_detector_as_it_then_is() -> None:
    heard: list[tuple[Any, ...]] = []

    def observer(stream: Where, ts: float, detector: Detector[Any, Any], verdict: Verdict) -> None:
        heard.append((stream, ts - T0, len(detector.state.buckets), verdict.level))

    plain = watched(Fake, Untellable, partitions=1)
    watcher = Watcher(plain._settings, plain._detectors, 0, observer)
    for each in (plain, watcher):
        each.apply(told(0, 0, 500, (0, 1), (10, 100), segment=TV))
        each.apply(told(0, 1, 500, (0, 5)))
    fake = ("fake", "evaluate")
    assert heard == [((*fake, TV), 0.0, 1, "ok"), ((*fake, TV), 10.0, 2, "alert"), ((*fake, ()), 0.0, 1, "ok")]
    assert watcher.digest_part() == plain.digest_part()
