"""One finding for the root segment: who is named, who is explained, when the name moves, and what is left after."""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import log

import msgspec
import numpy as np
import pytest

from detectors._base import Direction, Level, Verdict
from detectors._registry import discover
from streams.findings import Finding
from streams.frames import Segment
from streams.judge import Judge, JudgeState
from streams.roots import ECHO_S, GRACE_S, MAX_ROOTS, MOVE_REST_S, RISE_NATS, SILENT_S
from tests.kit import T0, settings_of

STREAMS = 40
HOUR_S = 3600.0
ALL: Segment = ()


def of(**labels: str) -> Segment:
    return tuple(sorted(labels.items()))


MOBILE, TABLET, TV = (of(device=name) for name in ("mobile", "tablet", "tv"))
ADS, SEO, GERMANY = of(channel="ads"), of(channel="seo"), of(country="DE")


class Said(msgspec.Struct, frozen=True):
    """What a stream says: level and gain; onset in hours after T0."""

    level: Level
    gain: float = 0.0
    onset: float = 0.0
    kind: str = ""
    direction: Direction = "worse"
    onset_from: float | None = None
    evidence: dict[str, float] = {}

    def verdict(self) -> Verdict:
        told = self.level in ("warn", "alert")
        return Verdict(
            self.level, score=1.0 if told else 0.0, onset=T0 + self.onset * HOUR_S if told else None,
            direction=self.direction, before=0.4, after=0.3, n_before=100, n_after=50, evidence=self.evidence,
            kind=self.kind, gain=self.gain,
            onset_from=None if self.onset_from is None else T0 + self.onset_from * HOUR_S,
        )  # fmt: skip


OK = Said("ok")
Bucket = Mapping[Segment, Said | float]
"""Segment → what its stream says; a number is an alert with that gain."""


def judge() -> Judge:
    return Judge(settings_of(), discover(), lambda _detector, _stage: STREAMS)


def tell(made: Judge, hours: float, bucket: Bucket, rng: random.Random | None = None) -> list[Finding]:
    """A bucket that ends so many hours after T0, its streams in any order."""
    spoken = list(bucket.items())
    if rng is not None:
        rng.shuffle(spoken)
    for segment, said in spoken:
        verdict = (Said("alert", said) if isinstance(said, int | float) else said).verdict()
        made.hear("early_dropoff", ("evaluate", segment), verdict, T0 + hours * HOUR_S)
    return made.settle(T0 + hours * HOUR_S)


def labels(finding: Finding) -> Segment:
    return tuple(sorted((label, value) for label, value in finding.segment.items() if label != "stage"))


def named(made: Judge) -> set[Segment]:
    """Segments with an open finding."""
    return {labels(finding) for finding in made.findings.values() if finding.resolved_at is None}


# ── the choice ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_when_mobile_breaks_mobile_is_named_and_everyone_channels_and_pairs_keep_quiet() -> None:
    made = judge()
    bucket = {MOBILE: 60.0, ALL: 33.0, ADS: 13.0, SEO: 10.0, of(channel="ads", device="mobile"): 24.0,
              of(channel="seo", device="mobile"): 18.0}  # fmt: skip
    (finding,) = tell(made, 1, bucket)
    assert labels(finding) == MOBILE
    assert finding.evidence == {"explained_segments": 5.0}
    assert tell(made, 2, {segment: gain * 1.5 for segment, gain in bucket.items()}) == []
    assert made.begun == {"early_dropoff": 1}


def test_when_everything_changed_everyone_is_named() -> None:
    made = judge()
    tell(made, 1, {ALL: 60.0, MOBILE: 34.0, TABLET: 14.0, TV: 13.5, ADS: 30.0, SEO: 31.0})
    assert named(made) == {ALL}


@pytest.mark.parametrize(("everyone", "expected"), [(36.0, {ALL}), (19.0, {MOBILE, TABLET})])
def test_two_values_of_a_label_are_two_roots_unless_everyone_explains_them_together(
    everyone: float, expected: set[Segment]
) -> None:
    made = judge()
    tell(made, 1, {ALL: everyone, MOBILE: 22.0, TABLET: 18.0})
    assert named(made) == expected


def test_of_segments_with_the_same_people_the_broadest_is_named() -> None:
    made = judge()
    tell(made, 1, {MOBILE: 30.0, of(channel="ads", device="mobile"): 30.0, ADS: 12.0})
    assert named(made) == {MOBILE}
    other = judge()
    tell(other, 1, {GERMANY: 30.0, ALL: 30.0})
    assert named(other) == {ALL}


@pytest.mark.parametrize(("gain", "expected"), [(20.0 + log(STREAMS) - 0.1, ALL), (20.0 + log(STREAMS) + 0.1, MOBILE)])
def test_naming_a_label_costs_the_logarithm_of_the_number_of_streams(gain: float, expected: Segment) -> None:
    made = judge()
    tell(made, 1, {ALL: 20.0, MOBILE: gain})
    assert named(made) == {expected}


def test_a_stream_that_only_warns_is_named_where_it_explains_clearly_more() -> None:
    pair = of(country="DE", device="mobile")
    made, other = judge(), judge()
    (finding,) = tell(made, 1, {MOBILE: Said("warn", 40.0), pair: 12.0})
    assert (labels(finding), finding.level) == (MOBILE, "alert")  # what it explains alerts
    tell(other, 1, {MOBILE: Said("warn", 11.0), pair: 14.0, TV: Said("warn", 50.0)})
    assert named(other) == {pair}


def test_warnings_alone_name_nobody() -> None:
    assert tell(judge(), 1, {ALL: Said("warn", 50.0), MOBILE: Said("warn", 90.0)}) == []


def test_more_than_a_few_values_at_once_are_everyone() -> None:
    values = [of(country=f"c{i}") for i in range(MAX_ROOTS + 1)]
    made, fewer = judge(), judge()
    tell(made, 1, {ALL: 15.0} | dict.fromkeys(values, 40.0))
    assert named(made) == {ALL}
    tell(fewer, 1, {ALL: 15.0} | dict.fromkeys(values[1:], 40.0))
    assert named(fewer) == set(values[1:])
    tell(fewer, 2, {values[0]: 40.0, ALL: 15.0})
    assert named(fewer) == {ALL}


@pytest.mark.parametrize("evidence", [{}, {"statistic": 9.0}])
def test_without_a_gain_the_broadest_is_named(evidence: dict[str, float]) -> None:
    made = judge()
    tell(made, 1, {segment: Said("alert", evidence=evidence) for segment in (MOBILE, ALL, TABLET, ADS)})
    assert named(made) == {ALL}


def test_without_a_gain_the_statistic_decides() -> None:
    made = judge()
    strong, weak = Said("alert", evidence={"statistic": 30.0}), Said("alert", evidence={"statistic": 9.0})
    tell(made, 1, {MOBILE: strong, ALL: weak, ADS: weak})
    assert named(made) == {MOBILE}


def test_another_kind_or_direction_is_another_family() -> None:
    made = judge()
    better, kind = Said("alert", 9.0, direction="better"), Said("alert", 9.0, kind="model")
    tell(made, 1, {ALL: 60.0, MOBILE: better, ADS: kind, SEO: 9.0})
    assert named(made) == {ALL, MOBILE, ADS}


# ── the name moves ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_name_moves_to_a_segment_that_does_clearly_better_and_then_rests() -> None:
    made, pair = judge(), of(country="DE", device="mobile")
    tell(made, 1, {pair: 13.0})
    assert tell(made, 2, {MOBILE: 16.0, pair: 14.0}) == []  # better, but not clearly
    ended, begun = tell(made, 3, {MOBILE: 40.0, pair: 16.0})
    assert (labels(ended), ended.kind, labels(begun)) == (pair, begun.kind, MOBILE)
    assert ended.resolved_at is not None and ended.resolved_at == begun.detected_at
    assert tell(made, 4, {MOBILE: 40.0, ALL: 80.0}) == []
    tell(made, 3 + MOVE_REST_S / HOUR_S, {MOBILE: 40.0, ALL: 80.0})
    assert named(made) == {ALL}


def test_a_page_that_moves_counts_once() -> None:
    made, pair = judge(), of(country="DE", device="mobile")
    tell(made, 1, {pair: 13.0})
    tell(made, 2, {MOBILE: 40.0})
    tell(made, 3, {MOBILE: OK, pair: OK})
    assert made.begun == {"early_dropoff": 2}
    assert made.pages.per_week("early_dropoff") == (1.0, 1.0)


def test_disjoint_roots_become_one_when_everyone_explains_them() -> None:
    made = judge()
    tell(made, 1, {MOBILE: 20.0, ALL: 14.0})
    tell(made, 2, {MOBILE: 21.0, TABLET: 15.0, ALL: 18.0})
    assert named(made) == {MOBILE, TABLET}
    tell(made, 3, {MOBILE: 22.0, TABLET: 16.0, ALL: 60.0})
    assert named(made) == {ALL}


# ── what is explained, and until when ─────────────────────────────────────────────────────────────────────────────


def test_what_a_root_explained_becomes_a_finding_when_it_goes_on_without_it() -> None:
    made = judge()
    tell(made, 1, {MOBILE: 60.0, ADS: 20.0})
    tell(made, 2, {MOBILE: OK, ADS: 20.0})
    assert named(made) == set()
    grown = 20.0 + RISE_NATS
    tell(made, 2 + GRACE_S / HOUR_S - 0.1, {ADS: grown})
    assert named(made) == set()
    (finding,) = tell(made, 2 + GRACE_S / HOUR_S, {ADS: grown})
    assert labels(finding) == ADS


def test_what_gains_nothing_after_its_root_has_ended_stays_quiet() -> None:
    made = judge()
    tell(made, 1, {MOBILE: 60.0, ADS: 20.0, of(country="DE", device="mobile"): 20.0})
    tell(made, 2, {MOBILE: OK})
    for hours in range(3, 100):
        assert tell(made, hours, {ADS: 20.0 - hours / 10, of(country="DE", device="mobile"): 20.0}) == []
    assert tell(made, 100, {ADS: OK}) == []


def test_an_echo_that_alerts_only_after_the_end_of_its_root_stays_quiet_and_a_new_change_does_not() -> None:
    made = judge()
    tell(made, 10, {MOBILE: 60.0})
    tell(made, 12, {MOBILE: OK})
    assert tell(made, 14, {ADS: Said("alert", 12.0, onset=9)}) == []
    (finding,) = tell(made, 14, {GERMANY: Said("alert", 12.0, onset=13)})
    assert labels(finding) == GERMANY
    disjoint = judge()
    tell(disjoint, 10, {MOBILE: 60.0})
    tell(disjoint, 12, {MOBILE: OK})
    assert tell(disjoint, 14, {TV: Said("alert", 12.0, onset=9)})
    late = judge()
    tell(late, 10, {MOBILE: 60.0})
    tell(late, 12, {MOBILE: OK})
    assert tell(late, 12 + ECHO_S / HOUR_S, {ADS: Said("alert", 12.0, onset=9)})


def test_values_of_the_same_label_do_not_explain_each_other() -> None:
    made = judge()
    tell(made, 1, {MOBILE: 60.0})
    (finding,) = tell(made, 2, {TABLET: 12.0})
    assert labels(finding) == TABLET


# Mobile gained 16 in the eight hours that Germany is said to have changed for.
@pytest.mark.parametrize(("gain", "expected"), [(16.1 + RISE_NATS, {MOBILE, GERMANY}), (15.9 + RISE_NATS, {MOBILE})])
def test_a_change_that_began_after_the_root_was_noticed_has_a_finding_of_its_own_unless_it_is_an_echo(
    gain: float, expected: set[Segment]
) -> None:
    made = judge()
    tell(made, 10, {MOBILE: Said("alert", 20.0, onset=4)})
    tell(made, 104, {MOBILE: Said("alert", 200.0, onset=4), GERMANY: Said("alert", gain, onset=96, onset_from=90)})
    assert named(made) == expected


def test_a_change_that_may_have_begun_before_the_root_was_noticed_is_explained() -> None:
    made = judge()
    tell(made, 10, {MOBILE: Said("alert", 20.0, onset=4)})
    tell(made, 104, {MOBILE: Said("alert", 200.0, onset=4), GERMANY: Said("alert", 90.0, onset=96, onset_from=9)})
    assert named(made) == {MOBILE}


def test_a_root_that_has_fallen_silent_explains_nothing() -> None:
    made, quiet_h = judge(), SILENT_S / HOUR_S
    tell(made, 1, {MOBILE: 60.0})
    tell(made, 1 + quiet_h, {ADS: 12.0})
    assert named(made) == {MOBILE}
    (finding,) = tell(made, 1.1 + quiet_h, {ADS: 12.0})
    assert labels(finding) == ADS


def test_a_finding_alerts_while_it_or_what_it_explains_does() -> None:
    made = judge()
    tell(made, 1, {MOBILE: 60.0, ALL: 20.0})
    assert tell(made, 2, {MOBILE: Said("warn", 60.0), ALL: 20.0}) == []
    (finding,) = tell(made, 3, {MOBILE: Said("warn", 60.0), ALL: OK})
    assert finding.level == "warn"
    (finding,) = tell(made, 4, {MOBILE: OK})
    assert finding.resolved_at is not None


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────


SEGMENTS = (
    ALL, MOBILE, TABLET, TV, ADS, SEO, GERMANY,
    *(of(channel=channel, device=device) for channel in ("ads", "seo") for device in ("mobile", "tablet", "tv")),
)  # fmt: skip


def history(seed: int) -> list[Bucket]:
    """Buckets in which streams alert, warn, change their minds and say nothing, at random."""
    rng = random.Random(seed)
    buckets: list[Bucket] = []
    for hour in range(60):
        bucket: dict[Segment, Said | float] = {}
        for segment in rng.sample(SEGMENTS, rng.randrange(len(SEGMENTS))):
            level: Level = rng.choices(("ok", "warming", "warn", "alert"), (4, 1, 3, 8))[0]
            gain = rng.choice((0.0, 12.0, rng.uniform(5, 90)))
            onset = rng.uniform(0, hour)
            bucket[segment] = Said(level, gain, onset, rng.choice(("", "", "model")), rng.choice(("worse", "worse",
                                   "better")), onset - 5, {"statistic": rng.uniform(5, 20)})  # fmt: skip
        buckets.append(bucket)
    return buckets


@pytest.mark.parametrize("seed", range(8))
def test_the_order_in_which_streams_speak_changes_nothing(seed: int) -> None:
    straight, shuffled, rng = judge(), judge(), random.Random(seed)
    for hour, bucket in enumerate(history(seed)):
        assert tell(shuffled, hour, bucket, rng) == tell(straight, hour, bucket)
    assert msgspec.msgpack.encode(shuffled.state) == msgspec.msgpack.encode(straight.state)
    assert sum(straight.begun.values()) > 10


@pytest.mark.parametrize("seed", range(4))
def test_a_judge_goes_on_from_its_state_at_any_moment(seed: int) -> None:
    straight = judge()
    resumed = judge()
    for hour, bucket in enumerate(history(seed)):
        blob = msgspec.msgpack.encode(resumed.state)
        resumed = judge()
        resumed.state = msgspec.msgpack.decode(blob, type=JudgeState)
        assert tell(resumed, hour, bucket) == tell(straight, hour, bucket)
    assert msgspec.msgpack.encode(resumed.state) == msgspec.msgpack.encode(straight.state)


@pytest.mark.parametrize("seed", range(4))
def test_each_stream_has_one_open_finding_at_most_and_all_end(seed: int) -> None:
    made = judge()
    for hour, bucket in enumerate(history(seed)):
        tell(made, hour, bucket)
        places = [labels(finding) for finding in made.findings.values() if finding.resolved_at is None]
        assert len(places) == len(set(places)) == len(made.state.open)
    tell(made, 100, dict.fromkeys(SEGMENTS, OK))
    assert (named(made), made.state.open, made.state.heard) == (set(), [], [])


# ── simulated people ──────────────────────────────────────────────────────────────────────────────────────────────

DEVICES, CHANNELS = {"mobile": 0.55, "tablet": 0.1, "tv": 0.35}, {"ads": 0.6, "seo": 0.4}
COUNTRIES = {"DE": 0.5, "FR": 0.3, "IT": 0.2}
PEOPLE = [({"device": d, "channel": c, "country": k}, DEVICES[d] * CHANNELS[c] * COUNTRIES[k])
          for d in DEVICES for c in CHANNELS for k in COUNTRIES]  # fmt: skip
WATCHED: tuple[Segment, ...] = (
    *SEGMENTS, *(of(country=country) for country in ("FR", "IT")),
    *(of(country=country, device=device) for country in COUNTRIES for device in DEVICES),
)  # fmt: skip
RATE, ODDS, ALERT_AT, BACK_AT = 0.3, 0.74, 10.0, 8.0


class Known:
    """A CUSUM on a known rate, with the profile gain since its onset, which sees when the old level is back."""

    def __init__(self) -> None:
        self.height = self.back = self.onset = self.k = self.n = 0.0
        self.alarm = False

    def observe(self, hours: float, k: float, n: float) -> Said:
        if not self.alarm:
            grown = max(0.0, self.height + k * log(ODDS) - n * log(1 - RATE + ODDS * RATE))
            self.onset, self.height = (hours, grown) if not self.height else (self.onset, grown)
        if not self.height:
            self.k = self.n = 0.0
            return OK
        self.k, self.n = self.k + k, self.n + n
        rate = min(max(self.k / self.n, 1e-3), 0.95 * RATE)
        gain = self.k * log(rate / RATE) + (self.n - self.k) * log((1 - rate) / (1 - RATE))
        if self.alarm and self._is_back(k, n, 0.25 * RATE + 0.75 * rate):
            self.__init__()  # type: ignore[misc]
            return OK
        self.alarm = self.alarm or self.height > ALERT_AT
        level: Level = "alert" if self.alarm else "warn" if self.height > ALERT_AT - 1.5 else "ok"
        return Said(level, max(0.0, gain), self.onset)

    def _is_back(self, k: float, n: float, rate: float) -> bool:
        self.back = max(0.0, self.back + k * log(RATE / rate) + (n - k) * log((1 - RATE) / (1 - rate)))
        return self.back > BACK_AT


def simulate(broken: Mapping[str, str], rate: float, seed: int, days: int = 6, until: float = 99.0) -> Judge:
    """400 people an hour; from day 1 on (and until day `until`) those with these labels advance at `rate`."""
    rng, made = np.random.default_rng(seed), judge()
    inside = np.array([[all(who[label] == value for label, value in segment) for who, _ in PEOPLE]
                       for segment in WATCHED], dtype=float)  # fmt: skip
    hit = np.array([broken.items() <= who.items() for who, _ in PEOPLE])
    share = np.array([share for _, share in PEOPLE])
    streams = {segment: Known() for segment in WATCHED}
    for hour in range(days * 24):
        n = rng.poisson(400 * share)
        k = rng.binomial(n, np.where(hit & (24 <= hour < until * 24), rate, RATE))
        heard = zip(WATCHED, inside @ k, inside @ n, strict=True)
        tell(made, hour + 1, {segment: streams[segment].observe(hour, *seen) for segment, *seen in heard if seen[1]})
    return made


@pytest.mark.parametrize(
    ("broken", "rate"),
    [({}, 0.24), ({"device": "mobile"}, 0.24), ({"device": "tablet"}, 0.18), ({"country": "FR"}, 0.22),
     ({"channel": "ads", "device": "mobile"}, 0.22)],
    ids=str,
)  # fmt: skip
def test_what_breaks_is_named_and_most_often_nothing_else_ever_is(broken: dict[str, str], rate: float) -> None:
    runs = [simulate(broken, rate, seed) for seed in range(8)]
    assert sum(named(made) == {of(**broken)} for made in runs) >= 7
    assert sum(len(made.findings) for made in runs) <= 1.6 * len(runs)


def test_when_the_old_level_is_back_the_finding_ends_and_no_echo_follows() -> None:
    runs = [simulate({"device": "mobile"}, 0.22, seed, until=3.0) for seed in range(8)]
    assert sum(named(made) == set() for made in runs) >= 7
    assert sum(len(made.findings) for made in runs) <= 1.6 * len(runs)
