"""The spec of alerts: what an installation may say, that committed files follow from it, where links lead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import names
from dashboards._alert_guardrails import alert_name, guardrails
from dashboards._alert_pipeline import CANARY
from dashboards._alert_recording import recordings
from dashboards._alert_spec import SPEC_FILE, AlertSpec, load_spec
from dashboards._alert_trust import detector_alert
from dashboards.alerts import all_alerts, files, main
from detectors._base import AlertOn
from detectors._registry import discover
from detectors.early_dropoff import EarlyDropoff
from streams.errors import ConfigError
from tests.conftest import ROOT

GIVEN: dict[str, Any] = yaml.safe_load(SPEC_FILE.read_text())
TO: dict[str, Any] = GIVEN["alertmanager"]


def spec_with(**changes: Any) -> AlertSpec:
    return AlertSpec.model_validate({**GIVEN, **changes})


def test_committed_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_file_is_named_with_the_fix_and_then_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], root=tmp_path) == 0
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert made == sorted(files(load_spec()))
    stale = tmp_path / "deploy" / "prometheus" / "rules" / "alerts.yml"
    stale.write_text("groups: []\n")
    capsys.readouterr()
    assert main(["--check"], root=tmp_path) == 1
    assert capsys.readouterr().err == "FAIL deploy/prometheus/rules/alerts.yml stale. Fix: make gen\n"
    assert stale.read_text() == "groups: []\n"
    assert (main([], root=tmp_path), main(["--check"], root=tmp_path)) == (0, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"owner": {}}, "owner"),
        ({"owners": {"default": "webhook"}}, "data_owner platform is not in owners"),
        ({"owners": {"platform": "webhook"}}, "owners.default is missing"),
        ({"owners": {"default": "pigeon", "platform": "webhook"}}, "owners.default"),
        ({"owners": {"default": "webhook", "platform": "webhook", "$HOME": "slack"}}, "owners"),
        ({"deploy_silence_s": -1}, "deploy_silence_s"),
        ({"working_hours": {**GIVEN["working_hours"], "weekdays": "mon:fri"}}, "working_hours.weekdays"),
        ({"working_hours": {**GIVEN["working_hours"], "from": "19:00"}}, "working_hours.from must be before"),
        ({"links": {"grafana": "http://g"}}, "links.status"),
        ({"links": {**GIVEN["links"], "runbook": "docs/runbook.md"}}, "links.runbook"),
        ({"links": {**GIVEN["links"], "grafana": "grafana:3000"}}, "links.grafana"),
        ({"retired": ["Early dropoff"]}, "retired"),
        ({"alertmanager": {**TO, "slack_url_file": "/f"}}, "give either slack_url or slack_url_file"),
        ({"alertmanager": {**TO, "webhook_url": None}}, "give either webhook_url or webhook_url_file"),
        ({"alertmanager": {**TO, "smtp_smarthost": "mail:25"}}, "email_from and email_to are missing"),
        ({"alertmanager": {**TO, "smtp_smarthost": "mail"}}, "alertmanager.smtp_smarthost"),
        ({"alertmanager": {**TO, "smtp_username": "me"}}, "give both smtp_username and smtp_password_file"),
    ],
)
def test_a_mistake_in_the_spec_names_file_and_key(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**GIVEN, **change}))
    with pytest.raises(ConfigError, match=r"^mine\.yaml: ") as raised:
        load_spec(path)
    assert said in str(raised.value)
    assert main(["--check", "--spec", str(path)]) == 1
    assert "FAIL mine.yaml" in capsys.readouterr().err


def test_what_an_installation_says_is_in_its_files() -> None:
    made = files(spec_with(
        owners={"default": "email", "platform": "slack"},
        links={"grafana": "https://g.example", "status": "https://s.example", "alertmanager": "https://a.example",
               "runbook": "https://r.example/runbook"},
        deploy_silence_s=600,
    ))  # fmt: skip
    alerts, recording = made["deploy/prometheus/rules/alerts.yml"], made["deploy/prometheus/rules/recording.yml"]
    assert "https://r.example/runbook#earlydropoff" in alerts and "https://a.example/#/silences/new" in alerts
    assert "127.0.0.1" not in alerts and "127.0.0.1" not in made["deploy/grafana/provisioning/alerting/rules.yaml"]
    assert 'type="deployed"}[10m]' in recording and "[30m]" not in recording
    root = yaml.safe_load(made["deploy/alertmanager/alertmanager.yml"])["route"]
    assert root["receiver"] == "trustwatch-email"
    assert [route["receiver"] for route in root["routes"]] == [
        "trustwatch-heartbeat", "trustwatch-slack", "trustwatch-email",
    ]  # fmt: skip


def test_without_deploy_silence_deploys_hold_nothing_back() -> None:
    held = {rule.labels: rule.expr for rule in recordings(spec_with(deploy_silence_s=0)) if "hold_back" in rule.name}
    assert held[("reason", "deploy"),] == "vector(0)"


def test_a_retired_alert_is_deleted_from_grafana_and_one_that_is_alive_cannot_be() -> None:
    name = "deploy/grafana/provisioning/alerting/rules.yaml"
    assert "deleteRules" not in yaml.safe_load(files(spec_with())[name])
    made = yaml.safe_load(files(spec_with(retired=["OldDetector", "Older"]))[name])
    assert made["deleteRules"] == [
        {"orgId": 1, "uid": "trustwatch-olddetector"},
        {"orgId": 1, "uid": "trustwatch-older"},
    ]
    with pytest.raises(ConfigError, match="retired: EarlyDropoff is an alert still"):
        files(spec_with(retired=["EarlyDropoff", "Older"]))


def test_every_detector_has_one_alert_that_follows_from_its_class() -> None:
    trust = {alert.name: alert for alert in all_alerts() if alert.area == "trust"}
    rails = {alert_name(one.name) for one in guardrails()}
    assert rails and set(trust) == {names.alert_name(name) for name in discover()} | rails

    class Patient(EarlyDropoff):
        """Waits."""

        title = "Patience"
        unit = "seconds"
        alert = AlertOn(for_s=600.0)

    patient = detector_alert("patient", Patient)
    assert (patient.name, patient.for_s, patient.unit) == ("Patient", 600.0, "seconds")
    assert patient.summary.startswith("Patience") and 'detector="patient"' in patient.value


def test_alerts_have_names_of_their_own_and_thresholds_that_can_be_left() -> None:
    alerts = (*all_alerts(), CANARY)
    assert len({alert.name for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert (alert.above is None) != (alert.below is None), alert.name
        assert alert.clear is None or (alert.above is not None and alert.clear < alert.above), alert.name


@pytest.mark.parametrize("alert", [*all_alerts(), CANARY], ids=lambda alert: alert.name)
def test_links_lead_to_dashboards_that_exist(alert: Any) -> None:
    path = ROOT / "dashboards" / "json" / f"{alert.dashboard}.json"
    board = json.loads(path.read_text())
    assert board["uid"] == alert.dashboard and alert.dashboard in names.DASHBOARDS
    if alert.area == "trust":
        finding = json.loads((ROOT / "dashboards" / "json" / f"{names.FINDING}.json").read_text())
        assert "finding" in {variable["name"] for variable in finding["templating"]["list"]}
        assert alert.panel in {panel["id"] for panel in board["panels"]}
