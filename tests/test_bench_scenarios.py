"""How the scenario suite judges: by detector, place and onset, and what it counts as a page without a reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.findings import Finding, iso
from streams.scenarios import SCENARIOS, Scenario, Volumes
from streams.simulate_kinds import DAY_S
from tests.bench import scenarios as suite
from tests.bench.scenarios import BEGIN, Told, judge, limits, most_urgent, report, wilson

PAID = Scenario("a test", 12, Volumes(1), ("early_dropoff:stage=evaluate,channel=paid@8x0.6",), ("early_dropoff",),
                ("hesitation",))  # fmt: skip
QUIET = Scenario("a test", 12, Volumes(1), ("season@6x1.5",), allowed=("data_trust",))


def told(detector: str = "early_dropoff", since: float = 8.1, at: float = 9.0, severity: str = "page",
         **segment: str) -> Told:  # fmt: skip
    labels = {"stage": "evaluate", **segment}
    return Told(
        Finding(id=f"{detector}{since}{at}{sorted(labels.items())}", detector=detector, kind=detector, segment=labels,
                direction="worse", level="alert", onset=iso(BEGIN + since * DAY_S),
                detected_at=iso(BEGIN + at * DAY_S), before=0.4, after=0.3, unit="ratio", n_before=900, n_after=200,
                score=0.8, owner="x", summary="", evidence={}),
        severity,
    )  # fmt: skip


@pytest.mark.parametrize(("what", "named", "false", "early"), [
    (told(channel="paid"), True, 0, 0),
    (told(), True, 0, 0),  # all people: holds those who were hit
    (told(channel="paid", severity="ticket"), True, 0, 0),
    (told(stage="journey", channel="paid"), True, 0, 0),
    (told(device="mobile", channel="paid"), False, 0, 0),  # a part of them: not the right place, but not without reason
    (told(channel="organic"), False, 1, 0),
    (told(stage="leads"), False, 1, 0),
    (told(stage="compare"), False, 0, 0),
    (told(since=4.0), False, 0, 0),  # wrong about since when
    (told("hesitation", channel="paid"), False, 0, 0),
    (told("data_trust", stage="tracking"), False, 1, 0),
    (told("data_trust", stage="tracking", severity="ticket"), False, 0, 0),
    (told(since=5.0, at=6.0, channel="paid"), False, 0, 1),  # before anything had happened
])  # fmt: skip
def test_a_loss_is_named_by_detector_place_and_onset(what: Told, named: bool, false: int, early: int) -> None:
    judged = judge("x", PAID, 1, [what])
    assert (judged.named, len(judged.false_pages), len(judged.early_pages)) == (named, false, early)
    if named:
        assert (judged.by_right_name, judged.onset_error_days, judged.delay_days) == (True, 0.1, 1.0)


def test_an_onset_whose_interval_holds_the_truth_is_right() -> None:
    far = told(since=5.0, channel="paid")
    finding = msgspec.structs.replace(far.finding, onset_from=iso(BEGIN + 4 * DAY_S), onset_to=iso(BEGIN + 9 * DAY_S))
    assert judge("x", PAID, 1, [msgspec.structs.replace(far, finding=finding)]).named
    assert not judge("x", PAID, 1, [far]).named


def test_a_second_name_is_right_but_not_the_first() -> None:
    scenario = msgspec.structs.replace(PAID, expected=("small_losses", "early_dropoff"))
    judged = judge("x", scenario, 1, [told(channel="paid")])
    assert judged.named and not judged.by_right_name


@pytest.mark.parametrize(("what", "false", "early"), [
    (told(), 1, 0), (told(severity="ticket"), 0, 0), (told("data_trust", stage="tracking"), 0, 0),
    (told(since=3.0, at=4.0), 0, 1),
])  # fmt: skip
def test_a_confounder_pages_if_anything_but_the_allowed_does(what: Told, false: int, early: int) -> None:
    judged = judge("x", QUIET, 1, [what])
    assert (len(judged.false_pages), len(judged.early_pages), judged.named) == (false, early, False)


def test_all_mails_have_the_channel_email() -> None:
    scenario = Scenario("a test", 12, Volumes(1), ("over_contact:country=AT@8x3",), ("over_contact",))
    mails: dict[str, Any] = {"stage": "contacts", "channel": "email"}
    assert judge("x", scenario, 1, [told("over_contact", **mails, country="AT")]).named
    assert judge("x", scenario, 1, [told("over_contact", **mails)]).named
    assert not judge("x", scenario, 1, [told("over_contact", **mails, campaign="promo")]).named


def test_of_each_finding_counts_what_was_most_urgent() -> None:
    page, ticket, none = (told(severity=severity) for severity in ("page", "ticket", "none"))
    other = told(channel="paid", severity="none")
    ended = msgspec.structs.replace(other, severity="page", finding=msgspec.structs.replace(
        other.finding, resolved_at=iso(BEGIN + 9 * DAY_S)))  # fmt: skip
    assert most_urgent([none, ticket, page, ticket, other, ended]) == [page]


def result(name: str, **fields: Any) -> suite.Judged:
    blank = suite.Judged(name, 1, False, False, None, None, (), (), (), ())
    return msgspec.structs.replace(blank, **fields)


def test_limits_are_those_of_the_issue() -> None:
    good = [result("hesitation", named=True)] * 19 + [result("hesitation")]
    quiet = [result("season")] * 49 + [result("season", false_pages=("x",))]
    assert all(limit.holds for limit in limits([*good, *quiet, result("mix_channels")]))
    named, budget, paged, mix = limits([*good[1:], *quiet[1:], result("mix_channels", false_pages=("x",))])
    assert not named.holds and budget.holds and not paged.holds and not mix.holds
    many = [result("hesitation", named=True, false_pages=("x",) * 3)]
    assert [limit.holds for limit in limits(many)] == [True, False]


def test_the_report_says_which_detector_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "discover", lambda: {"hesitation": object})
    table = report([result("hesitation", named=True), result("small_losses"), result("quiet")])
    assert "| small_losses | small_losses (no such detector) |" in table and "hesitation (no" not in table
    assert "FAILS: a loss is named in 95% of runs or more: 1 of 2, 50.0%" in table


def test_wilson_is_as_published() -> None:
    assert wilson(0, 20)[0] == 0.0 and wilson(0, 20)[1] == pytest.approx(0.161, abs=0.001)
    assert list(wilson(81, 263)) == pytest.approx([0.2553, 0.3662], abs=1e-4)  # Newcombe 1998


def test_a_loss_is_named_and_a_season_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {
        "early_dropoff": msgspec.structs.replace(
            SCENARIOS["early_dropoff"], days=6.0, put_in=("early_dropoff:stage=evaluate@4x0.5",)),
        "season": msgspec.structs.replace(SCENARIOS["season"], days=4.0, put_in=("season@2x1.5",)),
    }  # fmt: skip
    monkeypatch.setattr(suite, "SCENARIOS", short)
    found, quiet = suite.run(("early_dropoff", 5)), suite.run(("season", 5))
    assert found.named and found.by_right_name and not found.early_pages
    assert found.onset_error_days is not None and abs(found.onset_error_days) < 1
    assert not quiet.false_pages and not quiet.early_pages and quiet.events > 10_000
