"""The confidence index: it ranks segments rightly, its parts sum to its change, nothing jumps, its state is exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import exp, fsum

import msgspec
import numpy as np
import pytest

from detectors._frozen import sigmoid
from streams.confidence import EVERYONE, Confidence, ConfidenceParams, ConfidenceState, Gain, Kept, Standing
from streams.confidence_index import index_of, logit, parts_of, rounded, slope
from streams.frames import Segment

STAGES = ("discover", "evaluate", "buy")
PASS_ON = (0.5, 0.4, 0.3)
LONG, BETA = 0.3, -0.9
U_TURN = [Gain("evaluate", "u_turn", 0.02, BETA, "proven")]
BOTH = [*U_TURN, Gain("evaluate", "rage_click", 0.01, -1.2, "proven"), Gain("buy", "hesitant", 0.03, -0.7, "proven")]
HOUR, DAY = 3600.0, 86_400.0
Cell = tuple[float, Segment, dict[str, int]]


class Company:
    """Segments that move forward each in its own way; the whole company is their sum.

    Args:
        rng: of its people.
        shifts: segment → log odds added to each stage's chance to advance.
        per_hour: steps of a segment that enter each stage in an hour.
    """

    def __init__(
        self, rng: np.random.Generator, shifts: Sequence[float] | np.ndarray, per_hour: float | np.ndarray = 40.0
    ) -> None:
        self.rng, self.per_hour = rng, per_hour
        self.names: list[Segment] = [(("channel", f"c{i:02d}"),) for i in range(len(shifts))]
        self.shifts = np.array(shifts)[:, None] + np.zeros(len(STAGES))
        self.shown = np.full((len(shifts), len(STAGES)), 0.1)

    @property
    def chances(self) -> np.ndarray:
        return 1 / (1 + np.exp(-(np.array([logit(p) for p in PASS_ON]) + self.shifts)))

    def hour(self, ts: float) -> Iterator[Cell]:
        total: dict[str, int] = {}
        n = self.rng.poisson(self.per_hour, self.shifts.shape)
        k = self.rng.binomial(n, self.chances)
        shown = self.rng.binomial(n, self.shown)
        for i, name in enumerate(self.names):
            counts = {}
            for j, stage in enumerate(STAGES):
                counts[f"at_all_{stage}"] = int(k[i, j])
                counts[f"not_at_all_{stage}"] = int(n[i, j] - k[i, j])
                counts[f"ind_u_turn_yes_{stage}"] = int(shown[i, j]) // 3
                counts[f"ind_u_turn_no_{stage}"] = int(shown[i, j]) - int(shown[i, j]) // 3
                counts[f"ind_hesitant_no_{stage}"] = int(shown[i, j])
                counts[f"entered_{stage}"] = int(n[i, j])
            for field, count in counts.items():
                total[field] = total.get(field, 0) + count
            yield ts, name, counts
        yield ts, EVERYONE, total


def run(company: Company, confidence: Confidence, since: int, until: int, gains: Sequence[Gain] = ()) -> None:
    for hour in range(since, until):
        for cell in company.hour(hour * HOUR):
            confidence.observe(*cell)
        confidence.settle((hour + 1) * HOUR, gains)


def rows(confidence: Confidence) -> dict[Segment, Standing]:
    return {row.segment: row for row in confidence.view()}


def kept(confidence: Confidence, segment: Segment) -> Kept:
    return dict(msgspec.msgpack.decode(confidence.snapshot(), type=ConfidenceState).segments)[segment]


def offsets(confidence: Confidence, segment: Segment) -> dict[tuple[str, str], float]:
    return {confidence._names[part]: now for part, now, _ in kept(confidence, segment).shift}


def number(value: float | None) -> float:
    assert value is not None
    return value


def ranks(values: Sequence[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


# ── the formula ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-6, 1e-3, 0.1, 1.0, 8.0])
def test_parts_sum_to_the_change_at_any_size(scale: float) -> None:
    rng = np.random.default_rng(11)
    for _ in range(200):
        before = {i: float(x) for i, x in enumerate(rng.normal(0, 0.5, 12))}
        now = {i: x + scale * float(rng.normal()) for i, x in before.items()}
        change = index_of(fsum(now.values())) - index_of(fsum(before.values()))
        assert fsum(parts_of(now, before).values()) == pytest.approx(change, abs=1e-10)


def test_a_part_points_where_its_log_odds_point_and_nothing_makes_nothing() -> None:
    told = parts_of({"a": -0.3, "b": 0.1, "c": 0.2}, {"a": 0.0, "b": 0.0, "c": 0.2})
    assert told["a"] < 0 < told["b"] and told["c"] == 0.0
    assert slope(0.2, 0.2) == pytest.approx(100 * sigmoid(0.2) * (1 - sigmoid(0.2)))


def test_the_index_is_an_odds_ratio() -> None:
    index = index_of(logit(0.45) - logit(0.30))
    assert index / (100 - index) == pytest.approx((0.45 / 0.55) / (0.30 / 0.70))


def test_what_is_rounded_sums_to_what_is_shown() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        values = [float(x) for x in rng.normal(0, 40, int(rng.integers(1, 9)))]
        total = round(fsum(values)) + int(rng.integers(-1, 2))
        found = rounded(values, total)
        assert sum(found) == total
        assert all(abs(a - b) < 2 for a, b in zip(found, values, strict=True))
    assert rounded([], 0) == []


# ── what it says of people ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_it_ranks_segments_by_how_likely_people_advance(seed: int) -> None:
    rng = np.random.default_rng(9000 + seed)
    company = Company(rng, rng.normal(0, 0.25, 20))
    company.shifts = company.shifts + rng.normal(0, 0.15, company.shifts.shape)  # each stage differs, too
    company.shown = rng.uniform(0.05, 0.15, company.shown.shape)
    confidence = Confidence(STAGES)
    run(company, confidence, 0, 24 * 8, BOTH)
    found = rows(confidence)
    truth = company.chances.mean(axis=1)
    assert spearman([number(found[name].index) for name in company.names], list(truth)) >= 0.9


def test_the_whole_company_is_50_as_long_as_all_is_as_usual() -> None:
    company, confidence = Company(np.random.default_rng(5), [0.3, 0.0, -0.3]), Confidence(STAGES)
    run(company, confidence, 0, 24 * 9, BOTH)
    whole = rows(confidence)[EVERYONE]
    assert whole.baseline == 50.0 and number(whole.low) < 50.0 < number(whole.high)
    assert abs(number(whole.change)) < 1.0


def test_a_fall_shows_in_its_segment_stage_and_part() -> None:
    company, confidence = Company(np.random.default_rng(6), [0.0] * 5), Confidence(STAGES)
    run(company, confidence, 0, 24 * 9, BOTH)
    company.shifts[2, 1] = -0.6
    company.shown[3, 1] = 0.3
    run(company, confidence, 24 * 9, 24 * 12, BOTH)
    found = rows(confidence)
    fallen, doubting, quiet = (found[company.names[i]] for i in (2, 3, 0))
    assert (fallen.parts[0].stage, fallen.parts[0].indicator) == ("evaluate", "forward")
    assert number(fallen.change) == pytest.approx(100 * (sigmoid(-0.6 / 3) - 0.5), abs=1.5)
    assert number(fallen.high) < number(fallen.baseline) and fallen.falling_since is not None
    assert DAY * 9 <= fallen.falling_since < DAY * 10
    u_turn = next(p.points for p in doubting.parts if (p.stage, p.indicator) == ("evaluate", "u_turn"))
    assert u_turn == pytest.approx(100 * (sigmoid(BETA * 2 / 3 * 0.2 / 3) - 0.5), abs=0.4)
    assert abs(number(quiet.change)) < 2.0 and quiet.falling_since is None
    for row in found.values():
        assert round(sum(part.points for part in row.parts), 2) == row.change
        assert row.index == round(number(row.baseline) + number(row.change), 2)


def test_a_shift_between_segments_moves_none_of_them() -> None:
    company, confidence = Company(np.random.default_rng(8), [0.5, -0.5]), Confidence(STAGES)
    company.per_hour = np.array([[120.0], [120.0]])
    run(company, confidence, 0, 24 * 14)
    before = rows(confidence)
    company.per_hour = np.array([[30.0], [210.0]])
    run(company, confidence, 24 * 14, 24 * 17)
    after = rows(confidence)
    assert number(after[EVERYONE].change) < -4  # most people are of the worse segment now,
    for name in company.names:  # but neither segment has changed
        assert abs(number(after[name].change)) < 1.5
        assert number(after[name].index) == pytest.approx(number(before[name].index), abs=2.0)


@pytest.mark.parametrize("seed", range(2))
def test_its_interval_holds_the_truth_as_often_as_it_says(seed: int) -> None:
    rng = np.random.default_rng(700 + seed)
    company, confidence = Company(rng, [0.0] * 60), Confidence(STAGES)
    run(company, confidence, 0, 24 * 8)
    company.shifts += np.resize([-0.4, 0.0, 0.4], 60)[:, None]
    run(company, confidence, 24 * 8, 24 * 14)  # six days: little of what was before is left in now
    found = rows(confidence)
    inside = [
        number(found[name].low) <= index_of(float(company.shifts[i, 0])) <= number(found[name].high)
        for i, name in enumerate(company.names)
    ]
    assert 0.88 <= np.mean(inside) <= 1.0


# ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_baseline_does_not_learn_a_fall_until_it_is_accepted() -> None:
    params = ConfidenceParams(accept_s=10 * DAY, memory_s=10 * DAY)
    company, confidence = Company(np.random.default_rng(12), [0.0] * 4), Confidence(STAGES, params)
    run(company, confidence, 0, 24 * 10)
    usual = number(rows(confidence)[company.names[1]].baseline)
    company.shifts[1] = -0.5
    run(company, confidence, 24 * 10, 24 * 19)
    frozen = rows(confidence)[company.names[1]]
    assert abs(number(frozen.baseline) - usual) < 1.5 and number(frozen.change) < -8
    steps = []
    for day in range(19, 40):
        run(company, confidence, 24 * day, 24 * day + 24)
        steps.append(number(rows(confidence)[company.names[1]].baseline))
    assert steps[-1] < usual - 6  # learnt in the end,
    assert max(abs(a - b) for a, b in pairwise(steps)) < 2.5  # but nothing jumped


def test_a_dip_that_is_over_soon_is_learnt_after_all() -> None:
    company, confidence = Company(np.random.default_rng(13), [0.0, 0.0]), Confidence(STAGES)
    run(company, confidence, 0, 24 * 10)
    company.shifts[0] = -0.8
    run(company, confidence, 24 * 10, 24 * 11)
    assert rows(confidence)[company.names[0]].falling_since is not None
    assert sum(kept(confidence, company.names[0]).held) > 500
    company.shifts[0] = 0.0
    run(company, confidence, 24 * 11, 24 * 15)
    after = kept(confidence, company.names[0])
    assert after.held == [] and after.falling < 0


# ── rebasing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_jumps_when_an_indicator_enters_or_leaves() -> None:
    company, confidence = Company(np.random.default_rng(14), [0.2, -0.2]), Confidence(STAGES)
    company.shown[1] = 0.4
    run(company, confidence, 0, 24 * 9)
    blob = confidence.snapshot()
    for before, after in (((), BOTH), (BOTH, U_TURN), (U_TURN, ())):
        twin = Confidence(STAGES)
        twin.restore(blob)
        hour = 24 * 9 if before == () else 24 * 9 + (24 if before == BOTH else 48)
        cells = list(company.hour(hour * HOUR))
        for one in (confidence, twin):
            for cell in cells:
                one.observe(*cell)
        confidence.settle((hour + 1) * HOUR, after)
        twin.settle((hour + 1) * HOUR, before)
        for row, other in zip(confidence.view(), twin.view(), strict=True):
            assert (row.index, row.baseline, row.change) == (other.index, other.baseline, other.change)
        run(company, confidence, hour + 1, hour + 24, after)
        blob = confidence.snapshot()


def test_after_a_rebase_only_what_comes_later_is_weighed_and_offsets_fade() -> None:
    company, confidence = Company(np.random.default_rng(15), [0.0, 0.0]), Confidence(STAGES)
    company.shown[1] = 0.3
    run(company, confidence, 0, 24 * 9)
    run(company, confidence, 24 * 9, 24 * 10, U_TURN)
    start = number(rows(confidence)[company.names[1]].index)
    offset = offsets(confidence, company.names[1])
    weight = BETA / 3
    assert offset["evaluate", "u_turn"] == pytest.approx(-weight * 0.1 * exp(-23 / 672), abs=0.005)
    company.shown[1, 1] = 0.6
    run(company, confidence, 24 * 10, 24 * 14, U_TURN)
    part = next(p for p in rows(confidence)[company.names[1]].parts if p.indicator == "u_turn")
    assert part.points == pytest.approx(25 * weight * 0.3, abs=0.7)
    assert number(rows(confidence)[company.names[1]].index) < start
    run(company, confidence, 24 * 14, 24 * 70, U_TURN)
    faded = offsets(confidence, company.names[1])
    assert abs(faded["evaluate", "u_turn"]) < 0.2 * abs(offset["evaluate", "u_turn"])


def test_only_proven_indicators_have_a_part_and_share_a_voice_by_their_gain() -> None:
    company, confidence = Company(np.random.default_rng(16), [0.0]), Confidence(STAGES)
    gains = [*BOTH, Gain("buy", "u_turn", 0.5, -2.0, "unproven"), Gain("discover", "u_turn", 0.5, -2.0, "lost"),
             Gain("keep", "u_turn", 0.5, -2.0, "proven")]  # fmt: skip
    run(company, confidence, 0, 24 * 8, gains)
    told = {(part.stage, part.indicator) for part in rows(confidence)[EVERYONE].parts}
    assert told == {*((stage, "forward") for stage in STAGES), ("evaluate", "u_turn"), ("evaluate", "rage_click"),
                    ("buy", "hesitant")}  # fmt: skip
    assert confidence._voices["evaluate", "u_turn"] == pytest.approx(2 / 3 * BETA)


# ── state ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_order_within_an_hour_does_not_matter() -> None:
    company = Company(np.random.default_rng(17), [0.1, -0.1, 0.4])
    one, other = Confidence(STAGES), Confidence(STAGES)
    rng = np.random.default_rng(18)
    for hour in range(24 * 8):
        cells = list(company.hour(hour * HOUR))
        for cell in cells:
            one.observe(*cell)
        for i in rng.permutation(len(cells)):
            ts, segment, counts = cells[i]
            fields = list(counts.items())
            for j in rng.permutation(len(fields)):
                other.observe(ts, segment, dict([fields[j]]))
        one.settle((hour + 1) * HOUR, BOTH)
        other.settle((hour + 1) * HOUR, BOTH)
    assert one.snapshot() == other.snapshot() and one.view() == other.view()


def test_a_snapshot_at_any_moment_changes_nothing() -> None:
    company, one = Company(np.random.default_rng(19), [0.1, -0.1]), Confidence(STAGES)
    other = Confidence(STAGES)
    for hour in range(24 * 16):
        for i, cell in enumerate(company.hour(hour * HOUR)):
            one.observe(*cell)
            other.observe(*cell)
            if hour % 17 == 0 and i == 1:
                again = Confidence(STAGES)
                again.restore(other.snapshot())
                assert again.view() == other.view()
                other = again
        gains = BOTH if hour % 100 > 50 else U_TURN
        one.settle((hour + 1) * HOUR, gains)
        other.settle((hour + 1) * HOUR, gains)
    assert one.snapshot() == other.snapshot() and one.view() == other.view()
    assert all(row.change_7d is not None and abs(row.change_7d) < 5 for row in one.view())


def test_a_state_of_another_journey_is_refused() -> None:
    blob = Confidence(STAGES).snapshot()
    with pytest.raises(msgspec.DecodeError):
        Confidence(STAGES[:2]).restore(blob)
    with pytest.raises(msgspec.DecodeError):
        Confidence(STAGES).restore(blob[:-3])


def test_hours_without_events_fade_like_hours_with_some() -> None:
    company, confidence = Company(np.random.default_rng(20), [0.0, 0.0]), Confidence(STAGES)
    run(company, confidence, 0, 24 * 8)
    for ts, segment, counts in company.hour(24 * 8 * HOUR):
        confidence.observe(ts, segment, counts)
    twin = Confidence(STAGES)
    twin.restore(confidence.snapshot())
    for hour in range(24 * 8, 24 * 8 + 30):
        twin.settle((hour + 1) * HOUR)
    confidence.settle((24 * 8 + 30) * HOUR)
    for row, other in zip(confidence.view(), twin.view(), strict=True):
        assert number(row.index) == pytest.approx(number(other.index), abs=0.011)
        assert row.steps == other.steps


def test_few_people_and_a_young_company_have_no_index() -> None:
    company, confidence = Company(np.random.default_rng(21), [0.0, 0.0]), Confidence(STAGES)
    run(company, confidence, 0, 24 * 7 - 1)
    assert {row.state for row in confidence.view()} == {"learning"}
    assert all(row.index is None for row in confidence.view())
    run(company, confidence, 24 * 7 - 1, 24 * 8)
    tiny: Segment = (("channel", "tiny"),)
    for enough in (4, 5):
        confidence.observe(24 * 8 * HOUR, tiny, {"at_all_buy": 1, "not_at_all_buy": enough - 1})
        twin = Confidence(STAGES)
        twin.restore(confidence.snapshot())
        twin.settle((24 * 8 + 1) * HOUR)
        row = rows(twin)[tiny]
        assert (row.state, row.steps) == (("few", None) if enough == 4 else ("known", 9))
        assert (row.index is None) == (enough == 4) and row.change is None and row.parts == ()


def test_segments_are_bounded_and_silent_ones_forgotten() -> None:
    confidence = Confidence(STAGES, ConfidenceParams(most_segments=5, memory_s=7 * DAY))
    for hour in range(24 * 20):
        confidence.observe(hour * HOUR, EVERYONE, {"at_all_buy": 20, "not_at_all_buy": 20})
        for i in range(20 if hour < 24 else 0):
            confidence.observe(hour * HOUR, (("channel", f"c{i:02d}"),), {"at_all_buy": 1, "not_at_all_buy": 1})
        confidence.settle((hour + 1) * HOUR)
        assert len(confidence.view()) <= 6
    assert [row.segment for row in confidence.view()] == [EVERYONE] and confidence.left_out == 24 * 15
    assert len(confidence.snapshot()) < 4000
