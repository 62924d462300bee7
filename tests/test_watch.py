"""Buckets of all partitions, merged and judged in event-time order; a failing detector harms nobody else."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import msgspec
import pytest

from detectors._base import AlertOn, Bucket, Detector, Params, Verdict
from streams.errors import CheckpointRefused, ConfigError
from streams.findings import Finding
from streams.frames import NEVER, Cell, Counts, Segment
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


class Untellable(Fake):
    """Says what cannot be told."""

    def observe(self, x: Bucket) -> Verdict:
        return Verdict("alert", onset=float("nan"))


def watched(*classes: type[Fake], partitions: int = 2, limits: dict[str, Any] | None = None, **params: int) -> Watcher:
    made = Detectors({}, only=[])
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
    whole = msgspec.msgpack.decode(watcher.snapshot())
    for stream in whole[2][3]:
        if stream[2]:
            stream[3] = b"\xa1\xff"
    other = watched(partitions=1)
    other.restore(msgspec.msgpack.encode(whole))
    assert (seen(other), seen(other, segment=TV), other.state.resets) == ([(0, 1)], [], {"fake": 1})


@pytest.mark.parametrize("blob", [b"", b"garbage", b"\x93\x01\xa1\xff\x90", b"\x93\x01\xa0" + b"\x91" * 100_000])
def test_garbage_is_no_state(blob: bytes) -> None:
    with pytest.raises(CheckpointRefused, match=r"watch\[0\]"):
        watched().restore(blob)


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
        ({"early_dropof": {}}, None, "detectors: unknown 'early_dropof'; known: early_dropoff, "),
        ({}, ["nobody"], "detectors: unknown 'nobody'"),
        ({"early_dropoff": {"alert_ad": 1}}, None,
         "detectors.early_dropoff.alert_ad: unknown parameter; did you mean alert_at?"),
        ({"early_dropoff": {"alert_at": "high"}}, None, "detectors.early_dropoff.alert_at"),
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
