"""What scenarios claim is so, by counting events directly: rates, doses, promises, mixes; and nothing else changes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median

import msgspec
import pytest
from click.testing import CliRunner

from detectors._registry import discover
from streams.cli import cli
from streams.errors import UsageError
from streams.events import CRM_TYPES, PROPERTY_TYPES, Event
from streams.formats import FormatOptions, decode
from streams.scenarios import SCENARIOS, in_bulk, write_scenario
from streams.settings import Settings
from streams.simulate import Truth, parse_erosion, simulate
from streams.simulate_contacts import MAILS_PER_WEEK, WARM_MAILS, WARM_SHARE
from streams.simulate_spec import KINDS
from streams.simulate_web import STAGES
from tests.test_simulate import BEGIN, DAY, Step, advanced, bytes_of, leads_of, share, walk

SEED = 11


def day(event: Event) -> float:
    return (event.time - BEGIN) / DAY


def events_of(days: float, *specs: str, sessions: float = 0, leads: float = 0, mails: float = 0,
              orders: float = 0) -> list[Event]:  # fmt: skip
    erosions = [parse_erosion(spec) for spec in specs]
    return list(simulate(days, SEED, erosions, sessions, leads, mails_per_day=mails, orders_per_day=orders))


def split(things: Iterable[Step], onset: float) -> tuple[list[Step], list[Step]]:
    known = list(things)
    return [one for one in known if one.day < onset], [one for one in known if one.day >= onset]


def count(events: Iterable[Event], kind: str, since: float, until: float) -> int:
    return sum(event.type == kind and since <= day(event) < until for event in events)


# ── web ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def plain() -> list[Event]:
    return events_of(10, sessions=500)


def test_new_streams_are_off_by_default(plain: list[Event]) -> None:
    assert bytes_of(simulate(10, SEED, (), 500, 0)) == bytes_of(plain)
    both = events_of(10, sessions=500, mails=50, orders=20)
    assert bytes_of(event for event in both if event.type not in CRM_TYPES) == bytes_of(plain)


def test_false_engagement_is_longer_and_advances_as_before(plain: list[Event]) -> None:
    eroded = events_of(10, "false_engagement:stage=evaluate@0x2.2", sessions=500)
    steps = [[step for step in walk(events) if step.stage == "evaluate"] for events in (plain, eroded)]
    long = [share(part, lambda step: step.dwell_s > 60) for part in steps]
    assert long[1] > 1.35 * long[0]
    assert share(steps[1], advanced) == pytest.approx(share(steps[0], advanced), abs=0.02)
    others = [[step for step in walk(events) if step.stage == "compare"] for events in (plain, eroded)]
    assert mean(step.dwell_s for step in others[1]) == pytest.approx(mean(step.dwell_s for step in others[0]), rel=0.06)


def test_small_losses_are_small_in_every_stage(plain: list[Event]) -> None:
    eroded = events_of(10, "small_losses@0x0.9", sessions=500)
    for stage in STAGES[:4]:
        rates = [share((step for step in walk(events) if step.stage == stage), advanced) for events in (plain, eroded)]
        assert rates[1] / rates[0] == pytest.approx(0.9, abs=0.06), stage


def test_funnel_divergence_empties_early_stages_and_late_ones_hold(plain: list[Event]) -> None:
    eroded = events_of(10, "funnel_divergence@0x0.65", sessions=500)
    steps = [walk(events) for events in (plain, eroded)]
    for stage in ("discover", "evaluate", "compare"):
        rates = [share((step for step in part if step.stage == stage), advanced) for part in steps]
        assert rates[1] < 0.75 * rates[0], stage
    visits = [Counter(step.stage for step in part) for part in steps]
    assert visits[1]["compare"] < 0.7 * visits[0]["compare"]
    for stage in ("decide", "buy"):
        assert visits[1][stage] == pytest.approx(visits[0][stage], rel=0.12), stage
        rates = [share((step for step in part if step.stage == stage), advanced) for part in steps]
        assert rates[1] == pytest.approx(rates[0], abs=0.05), stage


def test_vain_visits_double_volume_and_never_advance(plain: list[Event]) -> None:
    eroded = events_of(10, "vanity:stage=journey,channel=paid@5x2", sessions=500)
    known = {event.id for event in plain}
    more = [event for event in eroded if event.id not in known]
    assert [event for event in eroded if event.id in known] == plain, "those who came before still do"
    steps = walk(more)
    assert min(step.day for step in steps) >= 5
    assert {step.segment["channel"] for step in steps} == {"paid"}
    assert not any(map(advanced, steps))
    before = [step for step in walk(plain) if step.day >= 5]
    visits = [len({step.events[0].person for step in part}) for part in (before, steps)]
    assert visits[1] == pytest.approx(visits[0], rel=0.25)


def test_bots_are_fast_of_one_kind_and_never_advance(plain: list[Event]) -> None:
    eroded = events_of(10, "bots:channel=referral,device=desktop@5x0.5", sessions=500)
    known = {event.id for event in plain}
    steps = walk(event for event in eroded if event.id not in known)
    assert len(steps) > 1000 and not any(map(advanced, steps))
    assert max(step.dwell_s for step in steps) < 6
    assert {(step.segment["channel"], step.segment["device"]) for step in steps} == {("referral", "desktop")}


def test_a_campaign_bursts_from_a_channel_of_its_own_for_two_days(plain: list[Event]) -> None:
    eroded = events_of(10, "campaign_burst@5x1", sessions=500)
    social = [step for step in walk(eroded) if step.segment["channel"] == "social"]
    assert 5 <= min(step.day for step in social) and max(step.day for step in social) < 7.1
    assert [event for event in eroded if event.segment["channel"] != "social"] == plain
    early = [step for step in social if step.stage in STAGES[:2]]
    assert share(early, advanced) < 0.5 * share((s for s in walk(plain) if s.stage in STAGES[:2]), advanced)


@pytest.mark.parametrize("value", ["paid", "referral"])
def test_a_shift_of_channels_is_simpsons_each_rate_holds_and_the_total_falls(value: str) -> None:
    eroded = events_of(12, f"mix_shift:stage=journey,channel={value}@6x6", sessions=700)
    parts = split((step for step in walk(eroded) if step.stage == "evaluate"), 6)
    rates = [share(part, advanced) for part in parts]
    assert rates[1] < rates[0] - 0.03
    for channel in ("organic", "paid", "email", "referral"):
        inside = [[step for step in part if step.segment["channel"] == channel] for part in parts]
        wide = 3.5 * math.sqrt(0.25 / min(map(len, inside)) * 2)
        assert share(inside[1], advanced) == pytest.approx(share(inside[0], advanced), abs=wide), channel


def test_a_price_change_is_announced_and_loses_people() -> None:
    eroded = events_of(10, "price_change:stage=compare@5x0.6", sessions=500)
    (news,) = [event for event in eroded if event.type == "deployed"]
    assert (day(news), news.properties) == (5.0, {"what": "prices"})
    parts = split((step for step in walk(eroded) if step.stage == "compare"), 5)
    assert share(parts[1], advanced) / share(parts[0], advanced) == pytest.approx(0.6, abs=0.1)
    assert share(parts[1], lambda step: step.stuck) == pytest.approx(share(parts[0], lambda step: step.stuck), abs=0.06)


def test_seasons_holidays_and_rhythms_move_volume_only() -> None:
    def volume(events: Sequence[Event], since: float, until: float) -> int:
        return len({event.person for event in events if since <= day(event) < until})

    quiet = events_of(28, leads=200)
    season = events_of(28, "season@2x1.5", leads=200)
    assert volume(season, 14, 28) / volume(quiet, 14, 28) == pytest.approx(1.5, abs=0.12)
    holiday = events_of(28, "holiday@14x0.4", leads=200)
    assert count(holiday, "lead_created", 14, 17) / count(quiet, "lead_created", 14, 17) == pytest.approx(0.4, abs=0.08)
    assert count(holiday, "lead_created", 17, 28) == pytest.approx(count(quiet, "lead_created", 17, 28), rel=0.08)
    rhythm = events_of(28, "rhythm@14", leads=200)

    def noon(events: Sequence[Event]) -> float:
        hours = [event.time % DAY / 3600 for event in events if event.type == "lead_created" and day(event) >= 14]
        return mean(9 < hour < 15 for hour in hours)

    assert noon(rhythm) < noon(quiet) - 0.1
    for events in (season, holiday, rhythm):
        assert _accepted(events, 0, 20) == pytest.approx(_accepted(quiet, 0, 20), abs=0.03)


# ── leads ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _accepted(events: Iterable[Event], since: float, until: float, **labels: str) -> float:
    """Of the leads handed over in these days, those that sales accepted at all."""
    leads = [lead for lead in leads_of(events) if "lead_handed_over" in lead]
    return mean(
        "lead_accepted" in lead for lead in leads
        if since <= (lead["lead_created"] - BEGIN) / DAY < until
        and all(lead[label] == value for label, value in labels.items())
    )  # fmt: skip


def test_follow_up_decay_is_later_and_rarer() -> None:
    leads = [lead for lead in leads_of(events_of(40, "follow_up_decay:source=ads@20x4", leads=300))
             if "lead_handed_over" in lead]  # fmt: skip

    def touches(source: str, since: float, until: float) -> tuple[float, float]:
        cohort = [lead for lead in leads
                  if lead["source"] == source and since <= (lead["lead_created"] - BEGIN) / DAY < until]  # fmt: skip
        delays = [lead["lead_touched"] - lead["lead_handed_over"] for lead in cohort if "lead_touched" in lead]
        return median(delays) / DAY, len(delays) / len(cohort)

    before, after = touches("ads", 0, 20), touches("ads", 20, 30)
    untouched = touches("webinar", 20, 30)
    for median_days, wanted, within in ((before, 0.35, 0.05), (after, 1.4, 0.2), (untouched, 0.35, 0.06)):
        assert median_days[0] == pytest.approx(wanted, abs=within)
    for touched, wanted, within in ((before, 0.94, 0.03), (after, 0.76, 0.06), (untouched, 0.94, 0.04)):
        assert touched[1] == pytest.approx(wanted, abs=within)


def test_a_shift_of_sources_is_simpsons() -> None:
    events = events_of(50, "mix_shift:stage=leads,source=ads@25x4", leads=400)
    assert _accepted(events, 25, 45) < _accepted(events, 0, 25) - 0.04
    for source in ("webinar", "ads", "partner", "organic"):
        rates = [_accepted(events, since, until, source=source) for since, until in ((0, 25), (25, 45))]
        assert rates[1] == pytest.approx(rates[0], abs=0.09), source


def test_vain_leads_double_volume_and_are_never_accepted() -> None:
    plain, eroded = events_of(20, leads=200), events_of(20, "vanity:stage=leads@10x2", leads=200)
    known = {event.person for event in plain}
    more = [event for event in eroded if event.person not in known]
    assert [event for event in eroded if event.person in known] == plain
    kinds = Counter(event.type for event in more)
    assert kinds["lead_created"] == pytest.approx(count(plain, "lead_created", 10, 20), rel=0.1)
    assert kinds["lead_handed_over"] > 300 and kinds["lead_rejected"] > 100
    assert not {"lead_accepted", "lead_won"} & set(kinds)


def test_a_relaunch_is_announced_and_moves_the_scores_of_its_model_only() -> None:
    eroded = events_of(20, "relaunch:model=v2@10x10", leads=200)
    (news,) = [event for event in eroded if event.type == "definition_changed"]
    assert (day(news), news.properties["what"]) == (10.0, "score-model")

    def score(model: str, since: float, until: float) -> float:
        return mean(float(event.properties["score"]) for event in eroded if event.type == "lead_scored"
                    and event.segment["model"] == model and since <= day(event) < until)  # fmt: skip

    assert score("v2", 10, 20) - score("v2", 0, 10) == pytest.approx(10, abs=1.5)
    assert score("v1", 10, 20) - score("v1", 0, 10) == pytest.approx(0, abs=2)


# ── mails ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sent(msgspec.Struct):
    """One mail, as the test sees it: dose and warmth by what happened before, and whether the person left of it."""

    event: Event
    dose: int
    warm: bool
    left: bool = False


def sends_of(events: Iterable[Event]) -> list[Sent]:
    sends: list[Sent] = []
    mine: dict[str, list[Sent]] = {}
    answered: dict[str, float] = {}
    for event in events:
        if event.type == "email_sent":
            past = mine.setdefault(event.person, [])
            dose = sum(event.time - one.event.time < 7 * DAY for one in past)
            warm = event.time - answered.get(event.person, -math.inf) < 30 * DAY
            past.append(Sent(event, dose, warm))
            sends.append(past[-1])
        elif event.type in ("email_opened", "email_clicked"):
            answered[event.person] = event.time
        elif event.type in ("unsubscribed", "complained"):
            mine[event.person][-1].left = True
    return sends


@pytest.fixture(scope="module")
def contacted() -> list[Event]:
    return events_of(40, "over_contact@20x3", mails=1200)


def test_mails_have_their_volume_and_ids_that_stay(contacted: list[Event]) -> None:
    assert count(contacted, "email_sent", 7, 20) / 13 == pytest.approx(1200, rel=0.06)
    assert len({event.id for event in contacted}) == len(contacted)
    gone = {event.person: event.time for event in contacted if event.type in ("unsubscribed", "complained")}
    sent = [event for event in contacted if event.type == "email_sent"]
    assert not [event for event in sent if event.time > gone.get(event.person, math.inf)], "mailed after leaving"
    per_person = Counter(event.person for event in contacted if event.type == "email_sent" and 7 <= day(event) < 20)
    weekly = mean(per_person.values()) / 13 * 7
    assert MAILS_PER_WEEK < weekly < MAILS_PER_WEEK * 1.5, "of those who got any"
    assert WARM_SHARE * WARM_MAILS < 1
    assert {frozenset(event.segment) for event in contacted} == {frozenset({"channel", "campaign", "country"})}


def test_over_contact_triples_the_dose_and_more_leave_because_of_it(contacted: list[Event]) -> None:
    sends = sends_of(contacted)
    before = [one for one in sends if 8 <= day(one.event) < 20]
    after = [one for one in sends if 27 <= day(one.event) < 38]
    doses = [mean(one.dose for one in part) for part in (before, after)]
    assert doses[1] / doses[0] == pytest.approx(3.0, abs=0.3)
    left = [mean(one.left for one in part) for part in (before, after)]
    assert left[1] > 1.5 * left[0]
    # At the same dose people are as before: it is the dose that makes them leave.
    for low, high in ((1, 3), (3, 6)):
        same = [[one.left for one in part if low <= one.dose < high] for part in (before, after)]
        wide = 4 * math.sqrt(0.006 / min(map(len, same)) * 2)
        assert mean(same[1]) == pytest.approx(mean(same[0]), abs=wide)


def test_warm_people_answer_more_leave_less_and_get_more(contacted: list[Event]) -> None:
    sends = [one for one in sends_of(contacted) if 15 <= day(one.event) < 38]
    warm, cold = [one for one in sends if one.warm], [one for one in sends if not one.warm]
    assert mean(one.left for one in warm) < mean(one.left for one in cold)
    assert mean(one.dose for one in warm) > mean(one.dose for one in cold)


def test_over_contact_of_a_country_leaves_the_others_as_they_are() -> None:
    plain, eroded = events_of(20, mails=300), events_of(20, "over_contact:country=AT@10x3", mails=300)

    def others(events: list[Event]) -> list[Event]:
        return [event for event in events if event.segment["country"] != "AT"]

    assert others(plain) == others(eroded) and plain != eroded
    assert [event for event in plain if day(event) < 9.9] != []


def test_a_shift_of_campaigns_is_simpsons() -> None:
    sends = sends_of(events_of(36, "mix_shift:stage=contacts,campaign=promo@18x4", mails=1500))
    parts = [[one for one in sends if 4 <= day(one.event) < 18], [one for one in sends if 18 <= day(one.event) < 34]]
    left = [mean(one.left for one in part) for part in parts]
    assert left[1] > 1.2 * left[0]
    for campaign in ("newsletter", "promo", "service"):
        inside = [[one.left for one in part if one.event.segment["campaign"] == campaign] for part in parts]
        rate = max(mean(one) for one in inside)
        wide = 3.5 * math.sqrt(rate / min(map(len, inside)) * 2)
        assert mean(inside[1]) == pytest.approx(mean(inside[0]), abs=wide), campaign


def test_vain_mails_are_never_answered() -> None:
    plain, eroded = events_of(20, mails=300), events_of(20, "vanity:stage=contacts@10x2", mails=300)
    known = {event.person for event in plain}
    more = [event for event in eroded if event.person not in known]
    assert {event.type for event in more} == {"email_sent"} and min(map(day, more)) >= 10
    assert len(more) == pytest.approx(count(plain, "email_sent", 10, 20), rel=0.1)


# ── customers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def value_of(events: Sequence[Event], since: float, until: float) -> dict[str, float]:
    """Late and wrong orders, unsolved cases, mean NPS, churn; of what fell due in these days."""
    delivered = {(event.person, event.properties["promised_at"]): event for event in events
                 if event.type == "order_delivered"}  # fmt: skip
    due = [(event.person, event.properties["promised_at"]) for event in events if event.type == "order_placed"
           and since <= (float(event.properties["promised_at"]) - BEGIN) / DAY < until]  # fmt: skip
    times: dict[str, list[float]] = {}
    for event in events:
        if event.type in ("case_opened", "case_solved"):
            times.setdefault(event.person, []).extend([event.time] if event.type == "case_solved" else [])
    cases = [event for event in events if event.type == "case_opened" and since <= day(event) < until]
    surveys = [event for event in events if event.type == "survey_answered" and event.properties["kind"] == "nps"
               and since <= day(event) < until]  # fmt: skip
    ends = [event.type for event in events if event.type in ("renewed", "churned") and since <= day(event) < until]
    late = [order not in delivered or delivered[order].time > float(order[1]) for order in due]
    wrong = [not event.properties["correct"] for event in delivered.values() if since <= day(event) < until]
    unsolved = [not any(0 <= time - case.time <= 3 * DAY for time in times[case.person]) for case in cases]
    nps = mean(float(event.properties["score"]) for event in surveys)
    return {"late": mean(late), "wrong": mean(wrong), "unsolved": mean(unsolved), "nps": nps,
            "churn": ends.count("churned") / len(ends), "orders": len(due)}  # fmt: skip


@pytest.mark.parametrize(("spec", "moved", "by"), [
    ("value_late@20x3", "late", (0.06, 0.18)), ("value_wrong@20x4", "wrong", (0.03, 0.12)),
    ("value_unsolved@20x4", "unsolved", None), ("value_nps@20x2", "nps", None),
])  # fmt: skip
def test_value_erodes_where_it_should(spec: str, moved: str, by: tuple[float, float] | None) -> None:
    events = events_of(48, spec, orders=200)
    before, after = value_of(events, 6, 20), value_of(events, 22, 42)
    assert before["orders"] / 14 == pytest.approx(200, rel=0.12)
    if by is not None:
        assert before[moved] == pytest.approx(by[0], abs=0.012)
        assert after[moved] == pytest.approx(by[1], abs=0.02)
    elif moved == "nps":
        assert after["nps"] - before["nps"] == pytest.approx(-2, abs=0.4)
    else:
        assert after[moved] > 2 * before[moved]
    for other in ("late", "wrong"):
        if other != moved:
            assert after[other] == pytest.approx(before[other], abs=0.015), other


def test_every_delivery_has_the_promise_of_its_order_and_follows_it() -> None:
    events = events_of(30, orders=100)
    placed = {(event.person, event.properties["promised_at"]): event.time for event in events
              if event.type == "order_placed"}  # fmt: skip
    for event in events:
        assert all(isinstance(value, PROPERTY_TYPES[name]) for name, value in event.properties.items())
        if event.type == "order_delivered":
            assert placed[event.person, event.properties["promised_at"]] < event.time
    assert len(placed) > 2500
    assert len({event.id for event in events}) == len(events)
    gone = {event.person: event.time for event in events if event.type == "churned"}
    late = [one for one in events if one.type == "order_placed" and one.time > gone.get(one.person, math.inf)]
    assert gone and not late, "who has left orders nothing more"


def test_bad_experience_makes_customers_leave() -> None:
    plain, eroded = events_of(60, orders=150), events_of(60, "value_late@5x8", orders=150)
    assert value_of(eroded, 30, 60)["churn"] > value_of(plain, 30, 60)["churn"] + 0.05


def test_value_of_a_channel_leaves_the_others_as_they_are() -> None:
    plain, eroded = events_of(30, orders=100), events_of(30, "value_late:channel=partner@15x5", orders=100)

    def others(events: list[Event]) -> list[Event]:
        return [event for event in events if event.segment["channel"] != "partner"]

    assert others(plain) == others(eroded) and plain != eroded


# ── scenarios ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_enough_scenarios_and_half_of_them_are_confounders() -> None:
    confounders = [name for name, scenario in SCENARIOS.items() if scenario.is_confounder]
    assert len(SCENARIOS) >= 25 and 0.45 <= len(confounders) / len(SCENARIOS) <= 0.55
    mixed = [scenario for scenario in SCENARIOS.values() if scenario.mix]
    assert len(mixed) >= 3 and all(scenario.is_confounder and not scenario.allowed for scenario in mixed)
    put_in = {erosion.kind for scenario in SCENARIOS.values() for erosion in scenario.erosions}
    assert put_in == set(KINDS), "each kind is in one"
    for name, scenario in SCENARIOS.items():
        losses = [erosion for erosion in scenario.erosions if KINDS[erosion.kind].detector]
        assert bool(losses) != scenario.is_confounder, name
        assert {KINDS[erosion.kind].detector for erosion in losses} <= set(scenario.expected), name
        assert scenario.onset_day < scenario.days


def test_detectors_of_today_are_called_as_scenarios_call_them() -> None:
    expected = {name for scenario in SCENARIOS.values() for name in (*scenario.expected, *scenario.allowed)}
    assert {"hesitation", "early_dropoff", "lead_score_drift", "data_trust"} <= expected & set(discover())


def test_late_crm_loses_nothing_and_comes_in_the_morning() -> None:
    events = events_of(6, leads=60, sessions=20)
    arrivals = list(in_bulk(events, BEGIN + 3 * DAY))
    assert sorted(one.outcome.id for one in arrivals if isinstance(one.outcome, Event)) == sorted(
        event.id for event in events)  # fmt: skip
    assert [one.at for one in arrivals] == sorted(one.at for one in arrivals)
    times = [(one.at, one.outcome.time, one.topic) for one in arrivals if isinstance(one.outcome, Event)]
    late = [(at, time) for at, time, _ in times if at != time]
    assert {topic for at, time, topic in times if at != time} == {"crm"}
    assert all(at % DAY == 6 * 3600 and 6 * 3600 <= at - time <= 30 * 3600 for at, time in late)
    assert all(time >= BEGIN + 3 * DAY for _, time in late)
    assert len(late) == sum(event.type in CRM_TYPES and day(event) >= 3 for event in events)


def test_a_scenario_is_written_with_its_truth_and_our_door_reads_it(tmp_path: Path) -> None:
    truth = write_scenario("value_late", tmp_path / "a.jsonl", SEED)
    assert truth == msgspec.json.decode((tmp_path / "a.jsonl.truth.json").read_bytes(), type=Truth)
    assert (truth.scenario, truth.erosions[0].detector, truth.erosions[0].stage) == (
        "value_late", "value_delivered", "customers")  # fmt: skip
    options = FormatOptions.from_settings(Settings(), now_s=BEGIN + 90 * DAY)
    read = [each for line in (tmp_path / "a.jsonl").read_bytes().splitlines() for each in decode(line, None, options)]
    made = list(SCENARIOS["value_late"].events(SEED))
    assert read == [msgspec.structs.replace(event, time=each.time) for event, each in zip(made, read, strict=True)
                    if isinstance(each, Event)]  # fmt: skip


def test_a_confounder_has_no_detector_in_its_truth(tmp_path: Path) -> None:
    truth = write_scenario("relaunch", tmp_path / "a.jsonl.gz", SEED)
    assert truth.erosions == () and [one.kind for one in truth.confounders] == ["relaunch"]
    assert truth.confounders[0].detector == ""


def test_the_command_lists_scenarios_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(cli, ["simulate", "--list-scenarios"])
    assert listed.exit_code == 0 and [line.split()[0] for line in listed.output.splitlines()] == list(SCENARIOS)
    out = str(tmp_path / "a.jsonl")
    done = runner.invoke(cli, ["simulate", "--out", out, "--scenario", "mix_sources", "--seed", "3"],
                         standalone_mode=False)  # fmt: skip
    assert done.exit_code == 0 and (tmp_path / "a.jsonl.truth.json").is_file()
    for arguments, says in ((["--scenario", "apathy"], "unknown"), (["--scenario", "quiet", "--days", "3"], "--days")):
        refused = runner.invoke(cli, ["simulate", "--out", out, *arguments], standalone_mode=False)
        assert isinstance(refused.exception, UsageError) and says in str(refused.exception)


@pytest.mark.parametrize(("spec", "says"), [
    ("mix_shift@3", "needs the one value"),
    ("mix_shift:device=mobile@3", "no label 'device'"),
    ("over_contact:campaign=promo@3", "no label 'campaign'"),
    ("season:channel=paid@3", "no label 'channel'"),
    ("value_late:channel=paid@3", "channel is never 'paid'"),
    ("small_losses:stage=buy@3", "no stage 'buy'"),
])  # fmt: skip
def test_a_bad_specification_is_refused(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_erosion(spec)
