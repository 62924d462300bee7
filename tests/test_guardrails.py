"""Guardrails: what a file may say, what burns, who is told, and what people say of it; exact after a restart."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from streams.cli import cli
from streams.errors import ConfigError, UsageError
from streams.findings import HELD, LEAST, Finding, is_small
from streams.frames import Cell, Counts
from streams.guardrail_burn import BIN_S, LEAST_EXCESS, MOST_BREACHES, Breach, Burn, BurnState
from streams.guardrail_findings import Guardrails, GuardrailsState, breach_id
from streams.guardrail_openslo import export, take_in
from streams.guardrails import Guardrail, compare, load_guardrails
from streams.journey import load_journey
from streams.metrics_findings import GUARDRAIL, severity_of
from streams.metrics_guardrails import families
from streams.said import CONTROL, Said, event_of, id_of, topic_of, written
from streams.settings import Settings
from streams.units import Plan, split
from streams.watch import Watcher
from tests.conftest import ROOT
from tests.kit import NOW, T0, door, native, raws, sessionizer, settings_of

SHIPPED = ROOT / "deploy" / "guardrails.yaml"
DAY = 86_400.0
START = 20_000 * DAY  # midnight
RAIL: dict[str, Any] = {
    "name": "left", "owner": "growth-team", "meaning": "People who leave.", "protects": "purchases", "budget": 0.2,
    "source": {"stage": "journey", "bad": ["not_at_all_buy"], "total": ["at_all_buy", "not_at_all_buy"]},
    "action": "Roll back.", "runbook": "https://wiki.example/left", "contact": "#growth",
}  # fmt: skip


def rail(**changes: Any) -> Guardrail:
    return Guardrail.model_validate(RAIL | changes)


def file_of(tmp_path: Path, *rails: dict[str, Any], name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(yaml.safe_dump({"guardrails": list(rails)}))
    return path


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_shipped_file_fits_the_built_in_journey_and_settings_and_the_owners_of_alerts() -> None:
    rails = load_guardrails(SHIPPED, load_journey(None).stages, Settings().segments)
    assert 6 <= len(rails) <= 8 and len({one.source.stage for one in rails}) == 4
    owners = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["owners"]
    assert {one.owner for one in rails} <= set(owners)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ownr": "x"}, "left: ownr: unknown key; did you mean owner?"),
        ({"source": {**RAIL["source"], "badd": []}}, "left: source.badd: unknown key; did you mean bad?"),
        ({"limit": 0.2}, "left: give either limit or budget"),
        ({"budget": None}, "left: give either limit or budget"),
        ({"budget": 0}, "left: budget: "),
        ({"window_days": 3}, "left: window_days: "),
        ({"paging": "sms"}, "left: paging: "),
        ({"owner": "Anna Müller"}, "left: owner: "),
        ({"name": "Left!"}, "guardrails[0]: name: "),
        ({"runbook": "see wiki"}, "left: runbook: write a URL"),
        ({"source": {**RAIL["source"], "stage": "buy"}}, "left: source.stage: "),
        ({"source": {**RAIL["source"], "bad": ["not_at_al_buy"]}}, "left: source: bad: 'not_at_al_buy' is not counted"),
        ({"source": {**RAIL["source"], "bad": ["not_at_all_pay"]}}, "left: source.bad: 'not_at_all_pay' names no stage"
         " of the journey; did you mean not_at_all_buy?"),
        ({"source": {**RAIL["source"], "good": ["at_all_buy"]}}, "left: source: give either bad or good fields"),
        ({"source": {"stage": "leads", "bad": ["losst"], "total": ["won"]}}, "at leads; did you mean lost?"),
        ({"source": {"stage": "leads", "bad": ["*"], "total": ["won"]}}, "a * may only stand at the end"),
        ({"source": {**RAIL["source"], "events": ["page_vewed"]}}, "did you mean page_viewed?"),
        ({"source": {**RAIL["source"], "segment": {"team": "b2b"}}}, "left: source.segment: team is not counted"),
        ({"source": {**RAIL["source"], "settle_hours": 12}}, "Fix: paging: ticket"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_guardrail_and_key_and_ends_with_2(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, RAIL | change)
    with pytest.raises(ConfigError, match=r"^mine\.yaml: ") as raised:
        load_guardrails(path, load_journey(None).stages, Settings().segments)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["- a", "guardrails: {}", "guardrails: []\nmore: 1", "{", "guardrails: [3]"])
def test_what_is_no_list_of_guardrails_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^mine\.yaml: "):
        load_guardrails(path)


def test_two_of_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"left: name: there are several"):
        load_guardrails(file_of(tmp_path, RAIL, RAIL))


def test_what_was_loosened_is_told_apart_from_what_was_tightened(tmp_path: Path) -> None:
    old = [rail(), rail(name="gone"), rail(name="limited", budget=None, limit=0.1)]
    new = [
        rail(budget=0.1, paging="ticket", action="Call."),
        rail(name="limited", budget=None, limit=0.05),
        rail(name="x"),
    ]
    told = {(change.name, change.what): change.loosened for change in compare(old, new)}
    assert told == {
        ("left", "budget tightened from 20 % to 10 %"): False,
        ("left", "paging from page to ticket"): True,
        ("left", "action from 'Roll back.' to 'Call.'"): False,
        ("limited", "limit tightened from 10 % to 5 %"): False,
        ("x", "added: 20 % more than the baseline over 30 days, owner growth-team"): False,
        ("gone", "removed"): True,
    }
    assert compare(old, old) == []


def test_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    a, b = file_of(tmp_path, RAIL), file_of(tmp_path, RAIL | {"budget": 0.3}, name="b.yaml")
    assert run(cli, ["guardrails", "check", str(SHIPPED)]).output.endswith("8 guardrails are fine\n")
    shown = run(cli, ["guardrails", "show", str(SHIPPED), "--json"])
    assert msgspec.json.decode(shown.stdout)["mail_complaints"]["limit"] == 0.001
    diff = run(cli, ["guardrails", "diff", str(a), str(b)])
    assert diff.output == "LOOSER left: budget loosened from 20 % to 30 %\n"
    codes = [run(cli, ["guardrails", "diff", *order, "--strict"], standalone_mode=False).return_value
             for order in ((str(a), str(b)), (str(b), str(a)))]  # fmt: skip
    assert codes == [1, 0]
    assert isinstance(run(cli, ["guardrails", "check"]).exception, UsageError)


# ── what burns ────────────────────────────────────────────────────────────────────────────────────────────────────────


def drive(burn: Burn, days: float, bad_share: float, per_bin: int, start: float = START, seed: int = 1) -> float:
    """Feed it so many days by bins; returns where they end."""
    rng, bins = random.Random(seed), round(days * DAY / BIN_S)
    for i in range(bins):
        bad = sum(rng.random() < bad_share for _ in range(per_bin))
        burn.add(start + i * BIN_S, bad, per_bin)
    burn.move_on(start + bins * BIN_S)
    return start + bins * BIN_S


def ready(days: float = 12.0, share: float = 0.2, per_bin: int = 20, **given: Any) -> tuple[Burn, float]:
    burn = Burn(**({"limit": None, "budget": 0.25, "window_days": 30} | given))
    return burn, drive(burn, days, share, per_bin)


def test_a_quiet_stream_keeps_its_budget_and_tells_nobody() -> None:
    burn, _ = ready(days=20.0)
    assert (burn.judged, burn.state.breaches) == ("ok", [])
    left = burn.left()
    assert left is not None and left > 0.7
    assert all(abs(rate) < 14.4 for rate in burn.rates().values())


def test_an_outage_pages_within_the_hour_and_ends_after_it() -> None:
    burn, at = ready()
    before = burn.left()
    end = drive(burn, 2 / 24, 0.9, 20, at)
    (breach,) = burn.state.breaches
    left = burn.left()
    assert before is not None and left is not None and left < before
    rates = burn.rates()
    assert rates[3600.0] == pytest.approx(0.7 / (0.2 * 0.25), rel=0.1)  # 0.7 too many of each, 0.05 are allowed
    assert rates[86_400.0] == pytest.approx(rates[7200.0] / 12, rel=0.2)
    assert breach.level == "page" and breach.rule == ("5m", "1h")
    assert breach.begun - at <= 3600.0 and abs(breach.onset - at) <= 2 * BIN_S
    assert breach.excess == pytest.approx(24 * 20 * 0.7, rel=0.15)
    drive(burn, 1.0, 0.2, 20, end)
    assert burn.judged == "ok" and breach.ended is not None and breach.ended - end < 4 * 3600.0


def test_a_slow_burn_is_a_ticket() -> None:
    burn, at = ready()
    drive(burn, 4.0, 0.2 * 1.4, 20, at)
    assert [breach.level for breach in burn.state.breaches] == ["ticket"]
    assert abs(burn.state.breaches[0].onset - at) < DAY


def test_who_wants_tickets_is_never_paged() -> None:
    burn, at = ready(pages=False)
    drive(burn, 2 / 24, 0.9, 20, at)
    assert [breach.level for breach in burn.state.breaches] == ["ticket"]


def test_a_bad_event_on_little_traffic_never_tells() -> None:
    burn = Burn(limit=0.001, budget=None, window_days=30)
    for hour in range(24 * 20):
        burn.add(START + hour * 3600.0, int(hour % 200 == 150), 2)
    burn.move_on(START + 20 * DAY)
    assert burn.state.breaches == [] and burn.state.all_bad < LEAST_EXCESS


def test_a_limit_is_judged_before_the_baseline_is_known_and_a_budget_is_not() -> None:
    for given, judged in (({"limit": 0.1, "budget": None}, "page"), ({"budget": 0.1}, "learning")):
        burn, _ = ready(days=1.0, share=0.9, **given)
        assert burn.judged == judged


def test_a_high_baseline_can_still_page() -> None:
    """40 % bad is normal: a budget of all bad events could burn at 2.5 times at most."""
    burn, at = ready(share=0.4, budget=0.2)
    assert burn.reach() < 14.4
    drive(burn, 3 / 24, 0.85, 20, at)
    assert burn.judged == "page"


def test_a_breach_is_not_learnt_and_is_accepted_only_when_as_old_as_the_window() -> None:
    burn, at = ready(window_days=7)
    before = burn.state.base.rate
    at = drive(burn, 5.0, 0.4, 20, at)
    assert burn.breach is not None and abs(burn.state.base.rate - before) < 0.02
    at = drive(burn, 3.0, 0.4, 20, at)
    assert burn.breach is None and burn.state.breaches[-1].accepted
    drive(burn, 9.0, 0.4, 20, at)
    assert burn.judged == "ok" and abs(burn.state.base.rate - 0.4) < 0.05


def test_bad_events_that_come_later_than_what_they_are_of_do_not_break_the_baseline() -> None:
    burn = Burn(limit=None, budget=0.5, window_days=30, pages=False, settle_s=12 * 3600.0)
    for hour in range(24 * 20):
        burn.add(START + hour * 3600.0, 0 if hour % 24 == 9 else 1, 1000 if hour % 24 == 9 else 0)
    burn.move_on(START + 20 * DAY)
    assert burn.is_warm and burn.state.base.rate == pytest.approx(0.023, rel=0.2) and burn.state.breaches == []


def test_the_order_within_a_bin_is_all_the_same_and_state_survives_a_snapshot() -> None:
    cells = [(START + i * 10.0, i % 4, 4) for i in range(30 * 24 * 30)]
    shuffled = [one for b in range(0, len(cells), 30) for one in random.Random(b).sample(cells[b : b + 30], 30)]
    whole, other = (Burn(limit=0.3, budget=None, window_days=30) for _ in range(2))
    for i, (one, two) in enumerate(zip(cells, shuffled, strict=True)):
        whole.add(*one)
        other.add(*two)
        if i % 5000 == 4999:
            restored = Burn(limit=0.3, budget=None, window_days=30)
            restored.take_up(msgspec.msgpack.decode(msgspec.msgpack.encode(other.state), type=BurnState))
            other = restored
    assert msgspec.msgpack.encode(whole.state) == msgspec.msgpack.encode(other.state)
    assert whole.state.breaches


def test_state_is_bounded() -> None:
    burn, sizes = Burn(limit=None, budget=0.25, window_days=90), []
    for hour in range(24 * 130):
        burn.add(START + hour * 3600.0, 50 + hour % 7, 250)
        if hour % (24 * 10) == 0:
            sizes.append(len(msgspec.msgpack.encode(burn.state)))
    assert sizes[-1] == pytest.approx(sizes[10], rel=0.02) and sizes[-1] < 20_000
    burn.state.breaches = [Breach(0.0, 0.0, "page", ("5m", "1h"), 1, 1, 0.0, 0.0, 1.0, ended=1.0)] * MOST_BREACHES
    drive(burn, 0.2, 0.95, 20, START + 130 * DAY)
    assert len(burn.state.breaches) == MOST_BREACHES and burn.breach is not None


# ── who is told ───────────────────────────────────────────────────────────────────────────────────────────────────────


def buckets(days: float, share: float, start: float = START) -> Iterator[tuple[float, dict[str, int]]]:
    rng = random.Random(7)
    for i in range(round(days * DAY / 60)):
        bad = sum(rng.random() < share for _ in range(5))
        yield start + i * 60.0, {"not_at_all_buy": bad, "at_all_buy": 5 - bad, "entered_buy": 9}


def feed(
    rails: Guardrails, days: float, share: float, start: float = START, **given: Any
) -> tuple[list[Finding], float]:
    found: list[Finding] = []
    for ts, counts in buckets(days, share, start):
        rails.observe(ts, 10.0, "journey", (), counts)
        rails.observe(ts, 10.0, "leads", (), {"won": 3})
        found += rails.settle(ts + 10.0, **given)
    return found, start + days * DAY


@pytest.fixture(scope="module")
def learnt() -> tuple[bytes, float]:
    rails = Guardrails([rail()])
    found, at = feed(rails, 9.0, 0.3)
    assert found == []
    return msgspec.msgpack.encode(rails.snapshot()), at


def resumed(learnt: tuple[bytes, float], *rails: Guardrail) -> Guardrails:
    made = Guardrails(rails or [rail()])
    made.restore(msgspec.msgpack.decode(learnt[0], type=GuardrailsState))
    return made


def test_a_breach_is_a_finding_that_says_what_where_since_when_how_much_whose_and_what_to_do(
    learnt: tuple[bytes, float],
) -> None:
    rails, at = resumed(learnt), learnt[1]
    found, end = feed(rails, 0.2, 0.9, at)
    first = found[0]
    assert (first.detector, first.kind, first.level, first.owner) == ("guardrails", "left", "alert", "growth-team")
    assert first.segment == {"stage": "journey"} and first.resolved_at is None and not is_small(first)
    assert first.before == pytest.approx(0.3, abs=0.05) and first.after > 0.7
    for part in (
        "Guardrail left burns its budget",
        "bad since",
        "bad events too many",
        "purchases",
        "First: Roll back.",
    ):
        assert part in first.summary
    assert {one.id for one in found} == {first.id}
    later, _ = feed(rails, 1.0, 0.3, end)
    assert later[-1].id == first.id and later[-1].resolved_at is not None
    assert rails.view()[0].finding is None and len(rails.view()[0].breaches) == 1
    assert rails.state.begun == 1


def test_the_same_counts_give_the_same_findings_after_a_restart(learnt: tuple[bytes, float]) -> None:
    told = []
    for every in (10**9, 37):
        rails, found = resumed(learnt), list[Finding]()
        for i, (ts, counts) in enumerate(buckets(0.3, 0.8, learnt[1])):
            rails.observe(ts, 10.0, "journey", (), counts)
            found += rails.settle(ts + 10.0)
            if i % every == every - 1:
                rails = resumed((msgspec.msgpack.encode(rails.snapshot()), 0.0))
        told.append((found, msgspec.msgpack.encode(rails.snapshot())))
    assert told[0] == told[1] and told[0][0]


def test_an_acknowledgement_is_kept_with_the_response_time_and_only_the_first_counts(
    learnt: tuple[bytes, float],
) -> None:
    rails, at = resumed(learnt), learnt[1]
    found, end = feed(rails, 0.2, 0.9, at)
    began = rails._burns["left"].state.breaches[0].begun
    rails.hear(Said("acknowledged", began + 600.0, found[0].id, "rolled back"))
    (told,) = rails.settle(end)
    assert told.evidence["response_s"] == 600.0 and "Acknowledged after 10 min: rolled back." in told.summary
    rails.hear(Said("acknowledged", began + 900.0, "left", "again"))
    assert rails.settle(end) == []
    view = rails.view()[0]
    assert (view.response_s, view.breaches[0].note) == ([600.0], "rolled back")
    assert rails.acknowledged(found[0].id) == (began + 600.0, "rolled back")
    rails.hear(Said("acknowledged", end, "ab" * 10, "of a detector"))
    assert rails.acknowledged("ab" * 10) == (end, "of a detector")


def test_a_questioned_guardrail_is_shown_and_does_not_page_until_it_is_resolved(learnt: tuple[bytes, float]) -> None:
    rails, at = resumed(learnt), learnt[1]
    rails.hear(Said("disputed", at, "left", "bots"))
    rails.hear(Said("disputed", at, "unknown", "no such guardrail"))
    found, end = feed(rails, 0.2, 0.9, at)
    assert {one.level for one in found} == {"warn"} and "questioned, so this is a ticket: bots." in found[0].summary
    view = rails.view()[0]
    assert (view.paging, view.state, view.why) == ("ticket", "page", "bots")
    rails = resumed((msgspec.msgpack.encode(rails.snapshot()), 0.0))
    rails.hear(Said("dispute_resolved", end, "left"))
    (told,) = rails.settle(end)
    assert told.level == "alert" and told.id == found[0].id and rails.view()[0].disputed is None


def test_what_may_come_from_broken_tracking_is_held_back(learnt: tuple[bytes, float]) -> None:
    rails, at = resumed(learnt), learnt[1]
    found, _ = feed(rails, 0.2, 0.9, at, held=lambda stage, segment: at - 60.0)
    assert found and all(HELD in one.evidence for one in found)
    older, _ = feed(resumed(learnt), 0.2, 0.9, at, held=lambda stage, segment: at + 7200.0)
    assert older and not any(HELD in one.evidence for one in older)


def test_another_source_starts_afresh_and_stays_questioned_another_owner_does_not(learnt: tuple[bytes, float]) -> None:
    rails = resumed(learnt, rail(owner="sales-ops", budget=0.5))
    assert rails.view()[0].state == "ok" and rails.state.resets == 0
    rails.dispute("left", "why", START)
    blob = msgspec.msgpack.encode(rails.snapshot()), 0.0
    other = resumed(blob, rail(source={**RAIL["source"], "segment": {"device": "mobile"}}))
    assert (other.view()[0].state, other.state.resets, other.view()[0].why) == ("learning", 1, "why")
    assert resumed(blob, rail(name="new")).view()[0].name == "new"


def test_numbers_of_few_people_are_not_shown() -> None:
    rails = Guardrails([rail(budget=None, limit=0.1)])
    for count in range(LEAST):
        rails.observe(START + count * 7200.0, 10.0, "journey", (), {"not_at_all_buy": 1})
        rails.settle(START + count * 7200.0 + 3600.0)
        view = rails.view()[0]
        assert (view.left is None and view.burn == {}) == (count < LEAST - 1)


# ── what people say, on the line ──────────────────────────────────────────────────────────────────────────────────────


def said_cells(messages: list[Counts | None]) -> dict[float, dict[str, int]]:
    return {cell.ts: cell.counts for counts in messages if counts for cell in counts.cells if cell.stage == CONTROL}


def test_what_is_said_reaches_every_counts_partition_exactly_whatever_is_read_again() -> None:
    settings = settings_of()
    finding = "1234567890abcdef1234"
    told = [msgspec.json.encode(event_of(settings, kind, what, note, T0 + at)) for kind, what, note, at in (
        ("acknowledged", finding, "rolled back, ask anna@example.org | +49 170 1234567", 20.0),
        ("disputed", "orders_late", "the depot's clock", 40.0),
        ("dispute_resolved", "orders_late", "", 50.0),
    )]  # fmt: skip
    deployed = native("deployed", 30.0, "ci", properties={"what": "shop-4.2", "note": "a note of others"})
    raw = [
        *told[:1],
        told[0],
        deployed,
        *told[1:],
        native("page_viewed", 500.0, page="/", properties={"note": "hello"}),
    ]
    results = []
    for crash in (False, True):
        gate, stage = door(settings), sessionizer(settings)
        messages: list[Counts | None] = []
        for turn in range(1 + crash):  # the second time ingest reads all again
            gate = door(settings)
            gate.take(raws(raw), NOW)
            for _, frame in gate.flush(NOW + turn, everything=True).frames:
                messages.append(stage.apply(frame, len(messages)))
            if crash:
                stage_after = sessionizer(settings)
                stage_after.restore(stage.snapshot())
                stage = stage_after
        results.append(said_cells(messages))
    assert results[0] == results[1]
    said = [Said.read(field) for _, counts in sorted(results[0].items()) for field in counts]
    assert [(one.kind, one.at - T0, one.what) for one in said] == [
        ("acknowledged", 20.0, finding), ("deployed", 30.0, "shop-4.2"), ("disputed", 40.0, "orders_late"),
        ("dispute_resolved", 50.0, "orders_late"),
    ]  # fmt: skip
    assert said[2].note == "the depot's clock" and said[1].note == ""
    assert "anna" not in said[0].note and "1234567" not in said[0].note
    assert set(count for counts in results[0].values() for count in counts.values()) == {1}
    counts = Counts(0, 0, T0, [*(cell for message in messages if message for cell in message.cells)])
    parts = split(counts, 3)
    assert [sum(cell.stage == CONTROL for cell in part.cells) for _, part in parts] == [len(results[0])] * 3


def test_ids_survive_the_scrubbing_of_what_looks_personal() -> None:
    for what in ("12345678901234567890", "a" * 20, "orders_late"):
        assert id_of(written(what)) == what
        gate = door()
        gate.take(raws([msgspec.json.encode(event_of(Settings(), "acknowledged", what, "", T0))]), NOW)
        (event,) = [item.event for _, frame in gate.flush(NOW).frames for one in frame.sections for item in one.items]
        assert id_of(str(event.properties["what"])) == what
        assert not gate.control  # ids are no labels
    with pytest.raises(UsageError, match="neither the id of a finding"):
        event_of(Settings(), "acknowledged", "Nobody's", "", T0)


def test_it_goes_to_the_first_topic_that_takes_native_events() -> None:
    topics = [{"name": "a", "format": "segment"}, {"name": "b"}, {"name": "c", "format": "native"}]
    assert topic_of(Settings(topics={"raw": topics})) == "b"
    with pytest.raises(ConfigError, match=r"topics\.raw: none takes native events"):
        topic_of(Settings(topics={"raw": topics[:1]}))


def test_a_watcher_tells_of_guardrails_takes_what_was_said_and_goes_on_after_a_restart() -> None:
    settings = settings_of().model_copy(update={"guardrails_file": SHIPPED})
    plan = Plan(settings)

    def drive(watcher: Watcher, hours: range) -> list[Finding]:
        found = []
        for hour in hours:
            bad = 20 if hour < 40 else 90
            cells = [Cell(T0 + hour * 3600.0, "leads", (), {"touch_24h_n": 100, "touch_24h_k": 100 - bad})]
            if hour == 70:
                said = Said("acknowledged", T0 + hour * 3600.0, "leads_untouched", "called | in")
                cells.append(Cell(T0 + hour * 3600.0, CONTROL, (), {said.field: 1}))
            found += watcher.apply(Counts(0, hour, T0 + hour * 3600.0 + 10.0, cells))
        return found

    whole, first = plan.watcher(0), plan.watcher(0)
    told = drive(whole, range(80))
    assert {(one.detector, one.kind, one.owner) for one in told} == {("guardrails", "leads_untouched", "sales-ops")}
    assert told[-1].evidence["response_s"] > 0 and whole.begun["guardrails"] == 1
    assert [one.id for one in whole.findings] == [told[0].id]
    again = drive(first, range(65))
    second = plan.watcher(0)
    second.restore(first.snapshot())
    assert again + drive(second, range(60, 80)) == told  # 60 to 64 are repeats
    assert second.digest_part() == whole.digest_part()
    assert second.guardrails.view() == whole.guardrails.view()
    assert (CONTROL, ()) not in whole.rates


def test_metrics_of_guardrails() -> None:
    rails = Guardrails([rail(budget=None, limit=0.3), rail(name="other")])
    at = feed(rails, 2.0, 0.8)[1]
    rails.hear(Said("disputed", at, "other", "why"))
    rails.hear(Said("acknowledged", at, "left", "on it"))
    rails.settle(at)
    samples = {(sample.name, *sample.labels.values()): sample.value
               for family in families(rails.view()) for sample in family.samples}  # fmt: skip
    left = ("left", "growth-team")
    assert samples["trustwatch_guardrail_state", *left] == 3.0
    assert samples["trustwatch_guardrail_disputed", "other", "growth-team"] == 1.0
    assert samples["trustwatch_guardrail_budget_left_ratio", *left] < 1.0
    assert samples["trustwatch_guardrail_burn_rate", *left, "6h"] == pytest.approx(0.8 / 0.3, rel=0.1)
    total = samples["trustwatch_guardrail_events_total", *left]
    assert total == 2 * 1440 * 5 and samples["trustwatch_guardrail_bad_events_total", *left] / total > 0.75
    assert samples["trustwatch_guardrail_response_seconds_count", *left] == 1.0
    assert ("trustwatch_guardrail_budget_left_ratio", "other", "growth-team") not in samples


def test_a_guardrail_pages_by_its_level_however_small_the_change(learnt: tuple[bytes, float]) -> None:
    (finding, *_), _ = feed(resumed(learnt), 0.2, 0.9, learnt[1])
    small = msgspec.structs.replace(finding, after=finding.before + 0.001)
    assert severity_of(small, GUARDRAIL) == "page"
    assert severity_of(msgspec.structs.replace(small, level="warn"), GUARDRAIL) == "ticket"


def test_guardrails_and_openslo_meet_in_limits_and_what_does_not_meet_is_said(tmp_path: Path) -> None:
    rails = load_guardrails(SHIPPED)
    documents, unmet = export(rails)
    limits = [one for one in rails if one.limit is not None]
    assert [one["spec"]["objectives"][0]["target"] for one in documents] == [0.7, 0.999]
    assert {sentence.partition(":")[0] for sentence in unmet} == {one.name for one in rails}
    path = tmp_path / "slo.yaml"
    other = {"apiVersion": "openslo/v1", "kind": "Service", "metadata": {"name": "shop"}}
    foreign = {"apiVersion": "openslo/v1", "kind": "SLO", "metadata": {"name": "theirs"}, "spec": {}}
    path.write_text(yaml.safe_dump_all([*documents, other, foreign]))
    found, said = take_in(path)
    assert [Guardrail.model_validate(one) for one in found] == limits
    assert len(said) == 2 and "Service" in said[0] and "trustwatch/source" in said[1]


def test_ids_of_findings_are_the_same_on_every_run() -> None:
    breach = Breach(START, START + 300.0, "page", ("5m", "1h"), 5, 9, 1.0, START, 20.0)
    assert breach_id(rail(), breach) == breach_id(rail(owner="other"), breach) != breach_id(rail(name="b"), breach)
    assert len(breach_id(rail(), breach)) == 20
