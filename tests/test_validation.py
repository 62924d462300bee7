"""Outcome validation: what is proven, what is lost, and that nothing but the counts decides it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from detectors._validation_tables import TILTS, Tables, chain, likelihoods, two_by_two
from detectors.early_dropoff import EarlyDropoff
from detectors.hesitation import Hesitation
from streams.frames import Segment
from streams.metrics_validation import families
from streams.validation import Validator
from streams.validation_states import StateChange, ValidationParams
from tests.bench.validation import Case, simulate, simulate_scores

HOUR_S = 3600.0
KEY = ("signal", "advance", "evaluate", "all")
RUNS, SEED = 60, 41


def counts(yes: int, no: int, all_yes: int = 40, all_no: int = 60, stage: str = "evaluate") -> dict[str, int]:
    return {f"ind_signal_yes_{stage}": yes, f"ind_signal_no_{stage}": no, f"long_yes_{stage}": all_yes,
            f"long_no_{stage}": all_no}  # fmt: skip


def fed(validator: Validator, hours: range, told: dict[str, int], segment: Segment = ()) -> list[StateChange]:
    found = []
    for hour in hours:
        validator.observe(hour * HOUR_S, "journey", segment, told)
        validator.settle(hour * HOUR_S + 10.0)
        found += validator.changes
    return found


def test_the_likelihood_is_that_of_fisher() -> None:
    fisher = pytest.importorskip("scipy.stats")
    (table,) = two_by_two(0, 3, 9, 30, 50, -1.0)
    gained, expected = likelihoods(Tables.of([table]))
    for i, tilt in enumerate(TILTS):
        law = fisher.nchypergeom_fisher(80, 12, 30, np.exp(-tilt))
        chance = fisher.hypergeom(80, 12, 30)
        assert gained[0, i] == pytest.approx(law.logpmf(3) - chance.logpmf(3), abs=1e-9)
        assert expected[0, i] == pytest.approx(law.mean(), abs=1e-9)


def test_under_chance_the_likelihood_ratio_is_one_on_average() -> None:
    n_with, good, n = 7, 9, 30
    ratios = [
        np.exp(likelihoods(Tables.of(two_by_two(0, k, n_with - k, good, n - good, -1.0)))[0][0]) for k in range(8)
    ]
    chances = [np.prod([1.0]) * _choose(n_with, k) * _choose(n - n_with, good - k) / _choose(n, good) for k in range(8)]
    assert sum(c * r for c, r in zip(chances, ratios, strict=True)) == pytest.approx(np.ones(len(TILTS)))


def _choose(n: int, k: int) -> float:
    from math import comb  # noqa: PLC0415

    return float(comb(n, k))


def test_bins_become_a_chain_that_holds_all_of_them_once() -> None:
    tables = chain(0, [(4, 1), (0, 0), (6, 2), (10, 5), (10, 7)])
    assert [table.n_with for table in tables] == [10, 10]
    assert tables[0].n_with + tables[0].n_without == 30
    assert all(-1.0 <= table.reach < 0.0 for table in tables)
    assert not chain(0, [(5, 0), (5, 0)])


def test_noise_is_hardly_ever_proven() -> None:
    assert np.isfinite(simulate(Case("noise", outcomes=15_000), RUNS, SEED).proven).mean() <= 0.05


def test_base_rate_and_prevalence_that_move_together_prove_nothing() -> None:
    assert np.isfinite(simulate(Case("daily", daily=-0.5, outcomes=15_000), RUNS, SEED).proven).mean() <= 0.05


def test_a_mix_shift_between_segments_proves_nothing() -> None:
    case = Case("mix", mix=True, prevalence=0.1, outcomes=8_000)
    assert np.isfinite(simulate(case, RUNS, SEED).proven).mean() <= 0.1


def test_what_holds_in_each_of_two_mixed_segments_is_proven_for_all() -> None:
    assert np.isfinite(simulate(Case("mix", 0.3, 0.1, mix=True, outcomes=6_000), 20, SEED).proven).all()


def test_a_useful_indicator_is_proven_and_lost_when_it_becomes_useless() -> None:
    found = simulate(Case("useful", 0.4, 0.08, outcomes=12_000, gap=3_000.0), RUNS, SEED)
    assert np.isfinite(found.proven).all()
    assert np.median(found.proven) < 3_000
    later = found.lost >= found.useless
    assert (found.lost[later] - found.useless[later] <= 2_000).mean() >= 0.9
    assert later.mean() >= 0.9


def test_a_score_is_proven_and_a_random_one_is_not() -> None:
    assert np.isfinite(simulate_scores(3.0, 10, SEED, 2_000).proven).all()
    assert np.isfinite(simulate_scores(0.0, 10, SEED, 2_000).proven).mean() <= 0.1


def test_one_that_predicts_the_other_way_is_unproven_with_a_note() -> None:
    validator = Validator(["evaluate"], 20)
    assert fed(validator, range(80), counts(9, 1)) == []
    numbers = validator.numbers(KEY)
    assert (numbers.status, numbers.note) == ("unproven", "predicts the other way")
    assert numbers.log_odds > 1.0
    assert numbers.gain > 0.0


def test_numbers_of_a_proven_one_are_told() -> None:
    validator = Validator(["evaluate"], 20)
    (change,) = fed(validator, range(200), counts(1, 9))
    numbers = validator.numbers(KEY)
    assert (change.before, change.after) == ("unproven", "proven")
    assert "signal at evaluate now provably predicts advance" in change.summary
    assert numbers.outcomes == 20_000 and numbers.indicated == 2_000
    assert numbers.gain_low < numbers.gain < numbers.gain_high
    assert 0.5 < numbers.auc_low < numbers.auc < numbers.auc_high
    assert numbers.foretold == pytest.approx(numbers.observed, rel=0.2)
    assert numbers.calibration_error < 0.01
    assert validator.gains()[0][:3] == ("evaluate", "signal", "advance")


def test_after_a_loss_counting_starts_anew_and_it_can_be_proven_again() -> None:
    validator = Validator(["evaluate"], 20)
    changes = fed(validator, range(60), counts(1, 9))
    changes += fed(validator, range(60, 100), counts(4, 6))
    assert [change.after for change in changes] == ["proven", "lost"]
    assert validator.numbers(KEY).outcomes < 4_000
    assert [change.after for change in fed(validator, range(100, 160), counts(1, 9))] == ["proven"]
    assert validator.outcomes(KEY) == 16_000


def test_a_snapshot_in_between_and_the_order_of_cells_change_nothing() -> None:
    rng, segments = np.random.default_rng(5), [(), (("channel", "paid"),), (("channel", "seo"),)]
    plain, restored = (Validator(["evaluate", "buy"], 20) for _ in range(2))
    told = [list[StateChange](), list[StateChange]()]
    for bucket in range(600):
        ts = bucket * 600.0
        cells = []
        for segment in segments:
            for stage in ("evaluate", "buy"):
                with_it = int(rng.poisson(3))
                yes = int(rng.binomial(with_it, 0.15))
                cells.append(
                    (segment, counts(yes, with_it - yes, yes + int(rng.poisson(12)), with_it - yes + 18, stage))
                )
        for segment, cell in cells:
            plain.observe(ts, "journey", segment, cell)
        for segment, cell in reversed(cells):
            restored.observe(ts, "journey", segment, dict(reversed(cell.items())))
        for i, each in enumerate((plain, restored)):
            each.settle(ts + 10.0)
            told[i] += each.changes
        if bucket % 37 == 0:
            blob = msgspec.msgpack.encode(restored.snapshot())
            restored = Validator(["evaluate", "buy"], 20)
            restored.restore(msgspec.msgpack.decode(blob, type=type(plain.snapshot())))
    assert told[0] == told[1] and told[0]
    assert msgspec.msgpack.encode(plain.snapshot()) == msgspec.msgpack.encode(restored.snapshot())


def test_keys_and_strata_are_bounded() -> None:
    validator = Validator(["evaluate", "buy"], 20, ValidationParams(most_keys=1, most_strata=2))
    for hour in range(3):
        for stage in ("evaluate", "buy"):
            for value in ("a", "b"):
                validator.observe(hour * HOUR_S, "journey", (("channel", value),), counts(1, 9, stage=stage))
        validator.settle(hour * HOUR_S + 10.0)
    assert len(validator.keys) == 1
    assert validator.refused > 0


def test_gates_follow_the_indicator_of_a_kind() -> None:
    validator = Validator(["evaluate"], 20)
    fed(validator, range(60), counts(1, 9))
    assert validator.gate("evaluate", Hesitation, "micro_signals") == "proven"
    assert validator.gate("evaluate", Hesitation, "model") == "unproven"
    assert validator.gate("buy", Hesitation, "micro_signals") == "unproven"
    assert validator.gate("evaluate", EarlyDropoff) is None


def test_customers_and_touched_leads_are_told_by_their_direction() -> None:
    validator = Validator([], 20)
    customers = {"renewed": 70, "churned": 30, "ind_late_renew_yes": 3, "ind_late_renew_no": 7}
    leads = {"accept_n": 50, "accept_k": 20, "accept_n_3": 50, "accept_k_3": 20, "ind_touched_accept_yes": 18,
             "ind_touched_accept_no": 12}  # fmt: skip
    for hour in range(120):
        validator.observe(hour * HOUR_S, "customers", (), customers)
        validator.observe(hour * HOUR_S, "leads", (), leads)
        validator.settle(hour * HOUR_S + 10.0)
    assert validator.proven("late", "customers")
    assert validator.proven("touched", "leads")
    assert not validator.proven("score", "leads")


def test_metrics_show_states_and_hide_few_people() -> None:
    validator = Validator(["evaluate"], 20)
    fed(validator, range(60), counts(1, 9))
    found = {family.name: family for family in families([validator], iter)}
    states = {sample.labels["state"]: sample.value for sample in found["trustwatch_indicator_state"].samples}
    assert states == {"unproven": 0.0, "proven": 1.0, "lost": 0.0}
    assert found["trustwatch_indicator_outcomes"].samples[0].value == 6_000
    assert found["trustwatch_indicator_auc"].samples[0].value > 0.5
    few = Validator(["evaluate"], 20)
    fed(few, range(3), counts(0, 1))
    found = {family.name: family for family in families([few], iter)}
    assert found["trustwatch_indicator_state"].samples and not found["trustwatch_indicator_auc"].samples
