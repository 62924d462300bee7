"""Who is told: Alertmanager's routes by amtool, Grafana's tree beside it, and the words that are sent."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards._alert_routes import alertmanager
from dashboards._alert_spec import SPEC_FILE, AlertSpec, load_spec
from tests.conftest import ROOT, kafka_required

CONFIG = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
AMTOOL = ROOT / ".cache" / "alertmanager" / "usr" / "bin" / "amtool"
GRAFANA = ROOT / "deploy" / "grafana" / "provisioning" / "alerting"

ROUTES = [
    ("owner=growth-team severity=page alertname=EarlyDropoff stage=evaluate", "trustwatch-webhook"),
    ("owner=growth-team severity=ticket alertname=EarlyDropoff stage=evaluate", "trustwatch-webhook"),
    ("owner=checkout-team severity=page alertname=Hesitation stage=decide", "trustwatch-slack"),
    ("owner=checkout-team severity=ticket alertname=Hesitation stage=decide", "trustwatch-slack"),
    ("owner=sales-ops severity=ticket alertname=LeadScoreDrift stage=leads", "trustwatch-email"),
    ("owner=sales-ops severity=page alertname=LeadScoreDrift stage=leads", "trustwatch-email"),
    ("owner=platform severity=page alertname=WorkerAbsent area=pipeline", "trustwatch-webhook"),
    ("owner=platform severity=ticket alertname=Evictions area=pipeline", "trustwatch-webhook"),
    ("owner=platform severity=heartbeat alertname=DeadMan area=heartbeat", "trustwatch-heartbeat"),
    ("owner=unowned severity=page alertname=EarlyDropoff", "trustwatch-webhook"),
    ("owner=somebody-new severity=ticket alertname=EarlyDropoff", "trustwatch-webhook"),
    ("alertname=SomebodyElses", "trustwatch-webhook"),
]
"""Labels → receiver."""


@pytest.fixture(scope="module")
def amtool() -> str:
    found = str(AMTOOL) if AMTOOL.is_file() else shutil.which("amtool")
    if found:
        return found
    if kafka_required():
        pytest.fail("REQUIRE_KAFKA is set, but amtool is missing. Fix: make amtool", pytrace=False)
    pytest.skip("amtool is missing. Fix: make amtool")


def run(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def test_amtool_takes_the_configuration_and_its_templates(amtool: str) -> None:
    code, said = run(amtool, "check-config", CONFIG)
    assert code == 0, said
    assert "1 templates" in said


@pytest.mark.parametrize(("labels", "receiver"), ROUTES)
def test_an_alert_goes_to_its_owner(labels: str, receiver: str, amtool: str) -> None:
    test = (amtool, "config", "routes", "test", f"--config.file={CONFIG}")
    code, said = run(*test, f"--verify.receivers={receiver}", *labels.split())
    assert (code, said.splitlines()[0]) == (0, receiver)


def test_a_wrong_receiver_would_be_found(amtool: str) -> None:
    test = (amtool, "config", "routes", "test", f"--config.file={CONFIG}", "--verify.receivers=trustwatch-email")
    assert run(*test, "owner=growth-team", "severity=page")[0] != 0


def routes(tree: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every branch with the matchers on the way to it, from the outside in."""
    own = [f'{label}{sign}"{value}"' for label, sign, value in tree.get("object_matchers", ())]
    way = (*above, *own, *tree.get("matchers", ()))
    timing = {
        key: value for key, value in tree.items() if key not in ("routes", "object_matchers", "matchers", "orgId")
    }
    return [(way, timing), *(found for route in tree.get("routes", ()) for found in routes(route, way))]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_grafana_has_the_same_tree_and_the_same_quiet_hours() -> None:
    config, policies = read(CONFIG), read(GRAFANA / "policies.yaml")["policies"]
    assert len(policies) == 1
    assert routes(policies[0]) == routes(config["route"])
    assert len(routes(config["route"])) == 1 + 1 + 2 * 4 + 1
    mute = read(GRAFANA / "mute-times.yaml")["muteTimes"][0]
    assert {key: value for key, value in mute.items() if key != "orgId"} == config["time_intervals"][0]


def test_every_branch_is_walked_by_a_case() -> None:
    cases = [dict(pair.split("=", 1) for pair in labels.split()) for labels, _ in ROUTES]
    for way, _ in routes(read(CONFIG)["route"]):
        wanted = dict(matcher.replace('"', "").split("=", 1) for matcher in way)
        assert any(wanted.items() <= case.items() for case in cases), way


def test_tickets_are_mute_outside_working_hours_and_pages_never() -> None:
    quiet = {way: timing.get("mute_time_intervals") for way, timing in routes(read(CONFIG)["route"])}
    for way, mute in quiet.items():
        assert mute == (["trustwatch-outside-working-hours"] if 'severity="ticket"' in way else None), way
    hours = read(CONFIG)["time_intervals"][0]["time_intervals"]
    assert hours == [
        {"weekdays": ["monday", "tuesday", "wednesday", "thursday", "friday"], "location": "Etc/UTC",
         "times": [{"start_time": "00:00", "end_time": "08:00"}, {"start_time": "18:00", "end_time": "24:00"}]},
        {"weekdays": ["sunday", "saturday"], "location": "Etc/UTC"},
    ]  # fmt: skip


def addresses(tree: Any) -> list[str]:
    """Every address in a configuration."""
    if isinstance(tree, dict):
        own = [value for key, value in tree.items() if key.endswith(("url", "smarthost")) and isinstance(value, str)]
        return [*own, *(found for value in tree.values() for found in addresses(value))]
    return [found for value in tree for found in addresses(value)] if isinstance(tree, list) else []


def test_no_receiver_is_the_container_of_alertmanager_itself() -> None:
    found = addresses(read(CONFIG))
    assert set(found) == {f"http://receiver:9095/{path}" for path in ("webhook", "heartbeat", "slack")}
    compose = read(ROOT / "docker-compose.yml")["services"]["receiver"]
    alone = read(ROOT / "deploy" / "compose.alertmanager.yml")["services"]["alertmanager"]
    assert set(compose["networks"]) & set(alone["networks"]) and "9095" in compose["command"]


def test_without_a_mail_server_what_is_for_email_goes_to_the_webhook() -> None:
    receivers = {one.pop("name"): one for one in read(CONFIG)["receivers"]}
    assert receivers["trustwatch-email"] == receivers["trustwatch-webhook"]
    assert receivers["trustwatch-webhook"]["webhook_configs"]


def test_a_mail_server_asks_for_tls_and_reads_the_password_from_a_file(amtool: str, tmp_path: Path) -> None:
    given = yaml.safe_load(SPEC_FILE.read_text())
    del given["alertmanager"]["slack_url"]
    given["alertmanager"] |= {
        "slack_url_file": "/etc/alertmanager/secrets/slack_url", "smtp_smarthost": "mail.example.com:587",
        "smtp_username": "trustwatch", "smtp_password_file": "/etc/alertmanager/secrets/smtp_password",
        "email_from": "trustwatch@example.com", "email_to": "alerts@example.com",
    }  # fmt: skip
    made = alertmanager(AlertSpec.model_validate(given))
    assert made["global"] == {
        "slack_api_url_file": "/etc/alertmanager/secrets/slack_url", "smtp_smarthost": "mail.example.com:587",
        "smtp_from": "trustwatch@example.com", "smtp_require_tls": True, "smtp_auth_username": "trustwatch",
        "smtp_auth_password_file": "/etc/alertmanager/secrets/smtp_password",
    }  # fmt: skip
    (mail,) = next(one for one in made["receivers"] if one["name"] == "trustwatch-email")["email_configs"]
    assert mail["to"] == "alerts@example.com"
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(made))
    shutil.copy(CONFIG.parent / "trustwatch.tmpl", tmp_path)
    code, said = run(amtool, "check-config", tmp_path / "alertmanager.yml")
    assert code == 0, said


def test_every_owner_has_a_route() -> None:
    ways = [way for way, _ in routes(read(CONFIG)["route"])]
    for owner in load_spec().owners:
        assert owner == "default" or (f'owner="{owner}"',) in ways


def test_the_words_of_a_notification(amtool: str, tmp_path: Path) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "EarlyDropoff"},
        "startsAt": "2026-09-14T02:30:00+02:00",
        "annotations": {
            "summary": "Early drop-off at evaluate got worse", "description": "43.1% before, 25.9% since Saturday.",
            "owner": "growth-team", "status_url": "http://status/#finding=f1", "dashboard_url": "http://grafana/d/x",
            "runbook_url": "runbook.md#earlydropoff", "silence_url": "http://silence",
        },
    }  # fmt: skip
    over = {"status": "resolved", "labels": {}, "annotations": {"summary": "Hesitation at decide got worse"}}
    data = {"status": "firing", "alerts": [alert, over],
            "commonLabels": {"alertname": "EarlyDropoff", "stage": "evaluate", "segment": "device=mobile",
                             "severity": "page"}}  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(data))

    def rendered(name: str) -> str:
        code, said = run(
            amtool, "template", "render", f"--template.glob={CONFIG.parent}/*.tmpl",
            f"--template.data={tmp_path / 'data.json'}", f'--template.text={{{{ template "{name}" . }}}}',
        )  # fmt: skip
        assert code == 0, said
        return said

    assert rendered("trustwatch.title").strip() == "[FIRING: 1] EarlyDropoff at evaluate (device=mobile), page"
    assert rendered("trustwatch.text").rstrip().split("\n") == [
        "Early drop-off at evaluate got worse",
        "43.1% before, 25.9% since Saturday.",
        "Since: 2026-09-14 00:30 UTC",
        "Owner: growth-team",
        "Finding: http://status/#finding=f1",
        "Dashboard: http://grafana/d/x",
        "Runbook: runbook.md#earlydropoff",
        "Silence: http://silence",
        "",
        "Over: Hesitation at decide got worse",
    ]


def test_grafana_says_it_in_the_same_words() -> None:
    template = read(GRAFANA / "templates.yaml")["templates"][0]["template"]
    assert template == (CONFIG.parent / "trustwatch.tmpl").read_text()
    assert "$" not in template
