"""The bench of real data itself; and on the data, where they are there, the limits that take no more than seconds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from detectors.lead_score_drift import LeadScores
from tests.bench import _leads, real
from tests.bench._online import OnlineScore, Table, auc, encode, prequential

TABLE = Table(("visits",), ("source",), {})


def rows(count: int, seed: int) -> tuple[list[dict[str, str]], list[bool]]:
    """More visits and one of the sources mean more conversions."""
    rng, made, outcomes = random.Random(seed), [], []
    for _ in range(count):
        visits, source = rng.randrange(20), rng.choice(["ads", "partner"])
        made.append({"visits": str(visits), "source": source})
        outcomes.append(rng.random() < 0.04 * visits + (0.2 if source == "partner" else 0.0))
    return made, outcomes


def test_an_empty_cell_is_a_category_and_no_number() -> None:
    assert encode({"visits": "", "source": ""}, TABLE) == ({}, {"visits~missing": 1.0, "source=": 1.0})


def test_a_score_is_given_before_its_outcome_is_learnt() -> None:
    made, outcomes = rows(400, seed=1)
    scores = prequential(made, outcomes, TABLE)
    flipped = [*outcomes[:-1], not outcomes[-1]]
    assert prequential(made, flipped, TABLE) == scores
    assert auc(scores[200:], outcomes[200:])[0] > 0.65


def test_a_frozen_score_learns_no_more() -> None:
    made, outcomes = rows(400, seed=2)
    frozen = prequential(made, outcomes, TABLE, freeze_at=200)
    other = prequential(made, [*outcomes[:200], *(not hit for hit in outcomes[200:])], TABLE, freeze_at=200)
    assert frozen == other
    model = OnlineScore(TABLE)
    model.frozen = True
    assert model.score(made[0], True) == model.score(made[0], False) == 0.5


@pytest.mark.parametrize(
    ("scores", "area"), [([0.1, 0.2, 0.8, 0.9], 1.0), ([0.5] * 4, 0.5), ([0.9, 0.8, 0.2, 0.1], 0.0)]
)
def test_area_under_the_curve(scores: list[float], area: float) -> None:
    assert auc(scores, [False, False, True, True])[0] == pytest.approx(area)


def test_the_monitor_tells_where_a_frozen_score_begins_to_promise_too_much() -> None:
    rng = random.Random(3)
    scores = [rng.random() for _ in range(5000)]
    outcomes = [rng.random() < score * (0.6 if i >= 4000 else 1.0) for i, score in enumerate(scores)]
    alarms = real.monitor(scores, outcomes, start=1000)
    last = alarms[-1]
    assert 4000 <= last.start < 4400 and last.end is None
    assert abs(last.onset - 4000) < 100
    assert last.after < 0.7 * last.before


@pytest.mark.parametrize(
    ("alarm", "found"),
    [
        (real.Alarm(8600, None, 8400, "calibration_conversion", 0.4, 0.3), True),
        (real.Alarm(8600, 8640, 8400, "calibration_conversion", 0.4, 0.3), False),
        (real.Alarm(8700, None, 8400, "calibration_conversion", 0.4, 0.3), False),
        (real.Alarm(5000, None, 4800, "calibration_conversion", 0.4, 0.3), False),
    ],
)
def test_what_counts_as_found(alarm: real.Alarm, found: bool) -> None:
    assert real.found_inflation(alarm) is found


def test_tenths_of_dwell() -> None:
    dwells = [(float(i), i >= 50) for i in range(100)] + [(None, True)]
    assert real.exact_tenths(dwells) == [0.0] * 5 + [1.0] * 5


def test_simulated_leads_are_the_same_for_a_seed_and_change_when_they_should() -> None:
    change = _leads.Change("", "calibration_acceptance", accept=-0.48)
    made = list(_leads.leads(1, change))
    assert made == list(_leads.leads(1, change))
    assert [on for on, _ in made].index(True) == _leads.CHANGE_AT

    def accepted(part: list[tuple[bool, LeadScores]]) -> float:
        return float(
            sum(k for _, x in part for _, _, k in x.accepted) / sum(n for _, x in part for _, n, _ in x.accepted)
        )

    assert accepted(made[: _leads.CHANGE_AT]) == pytest.approx(0.35, abs=0.02)
    assert accepted(made[_leads.CHANGE_AT :]) == pytest.approx(0.25, abs=0.02)


def test_missing_data_are_named_with_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        real.main(["--data", str(tmp_path), "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "--data" in capsys.readouterr().err


needs_data = pytest.mark.skipif(
    not (real.DATA / real.SHOP_FILE).exists(),
    reason="../shared/data is not there: these data are not part of the project",
)


@needs_data
def test_the_shoppers_hold_their_limits_and_the_report_is_written(tmp_path: Path) -> None:
    section = real.shoppers(real.DATA)
    assert [limit for limit in section.limits if not limit.holds] == []
    real.write({"Online Shoppers": section}, tmp_path)
    assert "PASS Online Shoppers" in (tmp_path / "real.md").read_text()
    assert (tmp_path / "real.json").exists()


@needs_data
def test_the_leads_hold_their_limits() -> None:
    assert [limit for limit in real.xeducation(real.DATA).limits if not limit.holds] == []


@needs_data
def test_nothing_is_found_in_the_first_hours_of_a_shop() -> None:
    assert [limit for limit in real.rees46(real.DATA).limits if not limit.holds] == []
