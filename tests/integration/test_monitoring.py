"""What on-call sees, on the real thing: Kafka, ingest, worker, Prometheus and Alertmanager, and the sample's erosions.

One replay serves all tests: three erosions are found; then every expression of every panel and rule is asked, the
alerts that fire are those of the three, soon enough, and each is told to its owner.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import yaml

from dashboards import names
from dashboards._alert_guardrails import alert_name, guardrails
from dashboards._alert_spec import load_spec
from dashboards.alerts import all_alerts
from dashboards.build import expressions, why_empty
from deploy.stack import Receiver, Stack, missing_programs
from deploy.stack.receiver import Notification
from deploy.stack.sample import anything_in, replay_sample, shift_to, truth
from streams.metrics import segment_label
from streams.replay import Replayed
from tests.conftest import ROOT, kafka_required

pytestmark = pytest.mark.integration

REPLAY_S: Final = 25.0
FOUND_S: Final = 240.0
TOLD_S: Final = 120.0
"""So long after a finding somebody has to know."""
INTERVAL_S: Final = 2.0
HEARTBEAT: Final = "DeadMan"
_OLDER: Final = "compares with an hour or a day before, and this installation is some minutes old"
EMPTY_RECORDINGS: Final = {
    "trustwatch:ingest_items:usual10m": _OLDER,
    "trustwatch:source_silent:usual_items": _OLDER,
    "trustwatch:ingest_outcome:share_day_before": _OLDER,
    "trustwatch:ingest_outcome:broken10m": "no source sends so many dead letters or late events",
    "trustwatch:line:absent": "every stage has a worker, and ingest reads",
}
"""Recording rules that give nothing in this run, and why."""
_UNGUARDED: Final = "guardrails are optional, and this installation has no guardrails_file"
EMPTY_ALERTS: Final = {
    "DataTrust": "the tracking of the sample is whole",
    **dict.fromkeys(
        ("FalseEngagement", "FunnelDivergence", "SmallLosses", "VanityGap", "ScoreInflation", "FollowUpDecay"),
        "the sample has three erosions, and none of these",
    ),
    **dict.fromkeys(("OverContact", "ValueDelivered"), "the sample has no mails and no orders"),
    **{alert_name(one.name): _UNGUARDED for one in guardrails()},
    "TrackingSilent": _OLDER,
    "TrackingDeadLetters": "no source sends more dead letters than it did",
    "TrackingLate": "no source sends more late events than it did",
    "EventsLost": "no event was lost to the state",
    "WorkerAbsent": "asks for what is absent, and all workers are there",
    "IngestAbsent": "asks for what is absent, and ingest is there",
}
"""Alerts whose value, without its threshold, gives nothing in this run, and why."""
_FEW: Final = "each partition learns what is usual by itself, and three weeks of the sample are too few steps for that"
EMPTY_PANELS: Final[dict[tuple[str, str, str], str]] = {
    (names.HESITATION, "Unlike any before", "A"): _FEW,
    (names.HESITATION, "Hesitation against baseline", "B"): _FEW,
    (names.HESITATION, "Hesitation against baseline", "C"): _FEW,
    (names.LEADS, "Won", "A"): "the horizon of a win, 60 days, is longer than the sample",
    (names.LEADS, "Sources", "F"): "the horizon of a win, 60 days, is longer than the sample",
    (names.DATA, "Dead letters by reason", "A"): "the sample has no dead letter",
    (names.DATA, "Dead letters in the time range", "A"): "the sample has no dead letter",
    (names.DATA, "Deploys and definition changes", "A"): "the sample has no deploy",
    (names.PIPELINE, "Errors", "F"): "no detector raised",
    (names.OVERVIEW, "Over-contact: most suspicious segments", "A"): "the sample has no mails",
    (names.OVERVIEW, "Value not delivered: most suspicious segments", "A"): "the sample has no orders",
    **{(names.GUARDRAILS, f"Burn rate of {one.name}", "A"): _UNGUARDED for one in guardrails()},
    **{
        (names.GUARDRAILS, title, ref): _UNGUARDED
        for title, refs in {
            "Response": "A",
            "Least budget left": "A",
            "Watched": "A",
            "Bad events": "A",
            "All guardrails": "ABCD",
            "Guardrails that are hit": "AB",
        }.items()
        for ref in refs
    },
}
"""Queries of panels that give nothing in this run, and why; all others must, also those that are empty at first."""
EVIDENCE: Final = {"Observed and expected", "Evidence", "Before", "After"}


@dataclass
class Seen:
    """What was seen of one run.

    Attributes:
        stack: still running.
        findings: labels of the open findings for the worse, when all three had been found.
        first: (detector, stage, segment) → clock when it was first seen as an alert.
        busy_at: clock when the last event had just been judged: rates over the last minute are those of the replay.
        notifications: what the webhook was told.
    """

    stack: Stack
    notifications: list[Notification] = field(default_factory=list)
    findings: list[dict[str, str]] = field(default_factory=list)
    first: dict[tuple[str, str, str], float] = field(default_factory=dict)
    busy_at: float = 0.0

    def get(self, service: str, path: str, **parameters: str) -> Any:
        url = f"{self.stack.addresses[service]}{path}"
        if parameters:
            url += "?" + urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)

    def ask(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The instant vector of an expression, now or at a clock; a scalar counts as one sample."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        data = self.get("Prometheus", "/api/v1/query", query=expression, **when)["data"]
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]

    def firing(self) -> list[dict[str, Any]]:
        """Alerts that fire in Prometheus, without the heartbeat."""
        alerts = self.get("Prometheus", "/api/v1/alerts")["data"]["alerts"]
        return [one for one in alerts if one["state"] == "firing" and one["labels"]["alertname"] != HEARTBEAT]


INJECTED: Final = {
    (erosion.detector, erosion.stage, segment_label(tuple(erosion.segment.items()))) for erosion in truth().erosions
}


def place(labels: dict[str, str]) -> tuple[str, str, str]:
    return labels["detector"], labels["stage"], labels["segment"]


def until(done: Callable[[], bool], seconds: float, seen: Seen, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        seen.stack.check()
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}\n{seen.stack.logs()}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def seen(real_kafka_or_skip: None, promtool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    if reason := missing_programs():
        if kafka_required():
            pytest.fail(f"REQUIRE_KAFKA is set, but: {reason}", pytrace=False)
        pytest.skip(reason)
    told: list[Notification] = []
    with (
        Receiver(told.append) as receiver,
        Stack(tmp_path_factory.mktemp("stack"), receiver.url, interval_s=INTERVAL_S) as stack,
    ):
        seen = Seen(stack, told)
        assert anything_in(stack.settings) is None
        with ThreadPoolExecutor(1) as pool:
            replay = pool.submit(replay_sample, stack.settings, REPLAY_S, shift_to(time.time()))
            until(lambda: arrived(replay, seen), FOUND_S, seen, f"the findings {sorted(INJECTED)}")
        seen.busy_at = time.time()
        until(lambda: {place(one["labels"]) for one in trust(seen.firing())} >= INJECTED, TOLD_S, seen, "the alerts")
        until(lambda: pages(seen) <= told_pages(seen), TOLD_S, seen, "the notifications")
        yield seen


def arrived(replay: Future[Replayed], seen: Seen) -> bool:
    """Whether all was sent, applied and found; fails with the replay's own error if it had one."""
    found = note_findings(seen)
    return replay.done() and replay.result().messages > 0 and found and caught_up(seen)


def note_findings(seen: Seen) -> bool:
    """Whether all that was injected is an open finding for the worse; notes when each was first seen."""
    found = seen.ask('trustwatch_open_finding{direction="worse",severity=~"page|ticket"}')
    seen.findings = [one["metric"] for one in found]
    for labels in seen.findings:
        seen.first.setdefault(place(labels), time.time())
    return {place(labels) for labels in seen.findings} >= INJECTED


def caught_up(seen: Seen) -> bool:
    """Whether nothing waits any more: what is found now, stays."""
    waiting = seen.ask("sum(trustwatch_stage_lag_messages) + sum(trustwatch_ingest_lag_messages)")
    items = seen.ask("sum(trustwatch_ingest_items_total)")
    return bool(waiting) and float(waiting[0]["value"][1]) == 0 and float(items[0]["value"][1]) >= truth().events


def trust(alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in alerts if one["labels"]["area"] == "trust"]


def pages(seen: Seen) -> set[tuple[str, str, str]]:
    return {place(one["labels"]) for one in trust(seen.firing()) if one["labels"]["severity"] == "page"}


def told_pages(seen: Seen) -> set[tuple[str, str, str]]:
    return {
        place(alert["labels"]) for one in seen.notifications for alert in one.alerts
        if alert["labels"]["area"] == "trust" and alert["status"] == "firing"
    }  # fmt: skip


def test_everything_is_scraped(seen: Seen) -> None:
    targets = seen.get("Prometheus", "/api/v1/targets")["data"]["activeTargets"]
    assert sorted(one["labels"]["job"] for one in targets) == ["alertmanager", "prometheus", "trustwatch", "trustwatch"]
    assert {one["health"] for one in targets} == {"up"}, targets


def test_every_rule_is_evaluated_without_error(seen: Seen) -> None:
    groups = seen.get("Prometheus", "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} >= {one.name for one in all_alerts()}
    wrong = {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"}
    assert wrong == {}


def test_every_recording_rule_gives_data_or_is_listed(seen: Seen) -> None:
    text = (ROOT / "deploy" / "prometheus" / "rules" / "recording.yml").read_text()
    recorded = {rule["record"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    empty = {name for name in recorded if not seen.ask(name)}
    assert empty == set(EMPTY_RECORDINGS)
    assert set(EMPTY_RECORDINGS) <= recorded, "the list names rules that are gone"


def test_what_every_alert_looks_at_is_there_or_is_listed(seen: Seen) -> None:
    alerts = {alert.name: alert.value for alert in all_alerts()}
    empty = {name for name, value in alerts.items() if not seen.ask(value)}
    assert empty == set(EMPTY_ALERTS)
    assert set(EMPTY_ALERTS) <= set(alerts), "the list names alerts that are gone"


def of_findings(seen: Seen) -> list[dict[str, str]]:
    """Variables of the dashboard Finding for each that was injected, as Grafana would fill them."""
    chosen = ("finding", "detector", "kind", "stage", "segment")
    found = [{name: labels[name] for name in chosen} for labels in seen.findings if place(labels) in INJECTED]
    for labels in found:
        (view,) = seen.ask(f'trustwatch_open_finding_view{{finding="{labels["finding"]}"}}', seen.busy_at)
        labels["view"] = view["metric"]["view"]
    return found


def test_every_panel_gives_data_but_those_that_are_listed(seen: Seen) -> None:
    asked = [one for one in expressions() if one.uid != names.FINDING]
    assert len(asked) > 50
    empty = {one[:3]: one for one in asked if not seen.ask(one.text, seen.busy_at)}
    assert {where: empty[where].text for where in empty.keys() - EMPTY_PANELS} == {}
    assert EMPTY_PANELS.keys() - empty.keys() == set(), "listed as empty, but there are data"
    assert [where for where, one in empty.items() if why_empty(one) is None] == []


def test_a_finding_is_shown_with_what_was_observed_and_expected_of_it(seen: Seen) -> None:
    found = of_findings(seen)
    assert {(each["detector"], each["view"]) for each in found} == {
        ("early_dropoff", "at_all"), ("hesitation", "micro_signals"), ("lead_score_drift", "inflation"),
    }  # fmt: skip
    for chosen in found:
        evidence = [one for one in expressions(chosen) if one.uid == names.FINDING and one.title in EVIDENCE]
        assert {one.title for one in evidence} == EVIDENCE
        assert [(chosen, one.text) for one in evidence if not seen.ask(one.text, seen.busy_at)] == []


def test_with_findings_open_their_panels_are_not_empty(seen: Seen) -> None:
    """What may be empty in good times must not be so now; some panels are of leads, others of journeys."""
    full: dict[tuple[str, str], bool] = {}
    for chosen in of_findings(seen):
        for one in expressions(chosen):
            if one.uid == names.FINDING:
                data = bool(seen.ask(one.text, seen.busy_at))
                full[one.title, one.letter] = full.get((one.title, one.letter), False) or data
    assert len(full) > 5 and [where for where, data in full.items() if not data] == []


def test_the_right_alerts_fire_and_only_those(seen: Seen) -> None:
    firing = seen.firing()
    assert {one["labels"]["area"] for one in firing} == {"trust"}, [one["labels"] for one in firing]
    assert {place(one["labels"]) for one in firing} == INJECTED
    for one in firing:
        assert one["labels"]["alertname"] == names.alert_name(one["labels"]["detector"])


def test_somebody_knows_within_two_minutes_of_the_finding(seen: Seen) -> None:
    told: dict[tuple[str, str, str], float] = {}
    for one in seen.notifications:
        for alert in one.alerts:
            if alert["labels"]["area"] == "trust":
                told.setdefault(place(alert["labels"]), one.at)
    paged = INJECTED & pages(seen)
    assert len(paged) == 2
    delays = {where: told[where] - seen.first[where] for where in paged}
    assert all(0 < delay_s < TOLD_S for delay_s in delays.values()), delays


def test_each_alert_is_routed_to_its_owner(seen: Seen) -> None:
    spec = load_spec()
    owned = yaml.safe_load((ROOT / "deploy" / "trustwatch.yaml").read_text())["owners"]
    routed = [one for one in seen.get("Alertmanager", "/api/v2/alerts") if one["labels"]["area"] == "trust"]
    assert {place(one["labels"]) for one in routed} >= INJECTED
    for one in routed:
        labels = one["labels"]
        assert labels["owner"] == owned["stages"].get(labels["stage"], owned["default"])
        assert [to["name"] for to in one["receivers"]] == [f"trustwatch-{spec.owners[labels['owner']]}"]
    for one in seen.notifications:
        for alert in one.alerts:
            if alert["labels"]["area"] == "trust":
                assert one.receiver == f"trustwatch-{spec.owners[alert['labels']['owner']]}"


def test_a_notification_is_grouped_and_says_what_is_needed(seen: Seen) -> None:
    trusted = [one for one in seen.notifications if one.group.get("alertname") != HEARTBEAT]
    assert trusted
    for one in trusted:
        assert set(one.group) == {"alertname", "stage", "segment"}
        for alert in one.alerts:
            notes, labels = alert["annotations"], alert["labels"]
            assert {"summary", "description", "owner", "runbook_url", "dashboard_url", "silence_url"} <= set(notes)
            assert labels["finding"] in notes["dashboard_url"] and labels["finding"] in notes["status_url"]
            assert "%" in notes["description"] and "unknown" not in notes["description"], notes["description"]
            assert notes["runbook_url"].endswith("#" + names.runbook_anchor(labels["alertname"]))
            # No person and no value may be a label: each change would be another alert.
            assert set(labels) <= {"alertname", "area", "detector", "kind", "stage", "segment", "severity", "owner",
                                   "finding"}  # fmt: skip


def test_the_heartbeat_goes_its_own_way(seen: Seen) -> None:
    beats = [one for one in seen.notifications if one.group.get("alertname") == HEARTBEAT]
    assert beats and {one.receiver for one in beats} == {"trustwatch-heartbeat"}


def test_the_status_page_and_the_metrics_say_the_same(seen: Seen) -> None:
    told = seen.get("Status page", "/api/findings")
    text = json.dumps(told)
    assert all(one["finding"] in text for one in seen.findings)


def test_the_sample_is_not_replayed_twice(seen: Seen) -> None:
    assert anything_in(seen.stack.settings) == "web-events"
