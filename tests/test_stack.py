"""The native stack runs what Compose runs, with other addresses in it and nothing else changed."""

from __future__ import annotations

import doctest
import gzip
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.stack import Ports, Receiver, alertmanager_config, prometheus_config, sample
from deploy.stack.configs import faster_rules
from deploy.stack.receiver import Notification, print_notification
from deploy.stack.sample import moved, shift_to, truth, write_moved
from streams.errors import BrokerUnavailable, ConfigError
from tests.conftest import ROOT

PROMETHEUS = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
ALERTMANAGER = (ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text()
TARGETS = {"trustwatch": ["127.0.0.1:1", "127.0.0.1:2"], "prometheus": ["127.0.0.1:3"], "alertmanager": ["127.0.0.1:4"]}


def native(**changes: Any) -> dict[str, Any]:
    given = {"targets": TARGETS, "alertmanager": "127.0.0.1:4", "rules": Path("/rules"), **changes}
    config: dict[str, Any] = yaml.safe_load(prometheus_config(PROMETHEUS, **given))
    return config


def without_addresses(config: dict[str, Any]) -> dict[str, Any]:
    parts = [*config["scrape_configs"], *config["alerting"]["alertmanagers"]]
    for part in parts:
        for key in [key for key in part if key.endswith("_sd_configs") or key == "static_configs"]:
            del part[key]
    del config["rule_files"]
    return config


def test_only_addresses_change_in_prometheus() -> None:
    assert without_addresses(native()) == without_addresses(yaml.safe_load(PROMETHEUS))


def test_prometheus_scrapes_and_tells_the_addresses_given() -> None:
    config = native()
    scraped = {job["job_name"]: job["static_configs"] for job in config["scrape_configs"]}
    assert scraped == {job: [{"targets": where}] for job, where in TARGETS.items()}
    assert config["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["127.0.0.1:4"]}]}]
    assert config["rule_files"] == ["/rules/*.yml"]


def test_the_interval_changes_if_asked_for() -> None:
    assert native(interval_s=0.5)["global"]["scrape_interval"] == "500ms"
    assert native()["global"] == yaml.safe_load(PROMETHEUS)["global"]


def test_without_alertmanager_nobody_is_told() -> None:
    assert "alerting" not in native(alertmanager=None)


@pytest.mark.parametrize("targets", [{**TARGETS, "kafka": ["127.0.0.1:5"]}, {"prometheus": ["127.0.0.1:3"]}])
def test_a_job_without_address_is_told(targets: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"prometheus\.yml scrapes the jobs .*deploy/stack/stack\.py"):
        native(targets=targets)


def test_faster_rules_are_the_same_rules() -> None:
    for path in (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"):
        before, after = yaml.safe_load(path.read_text()), yaml.safe_load(faster_rules(path.read_text()))
        assert [group["rules"] for group in after["groups"]] == [group["rules"] for group in before["groups"]]
        assert not any("interval" in group for group in after["groups"])


def test_routes_stay_and_every_receiver_is_told_at_its_own_path() -> None:
    before = yaml.safe_load(ALERTMANAGER)
    after = yaml.safe_load(alertmanager_config(ALERTMANAGER, webhook="http://127.0.0.1:9", templates=Path("/t")))
    kept = ("route", "inhibit_rules", "time_intervals")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert [one["name"] for one in after["receivers"]] == [one["name"] for one in before["receivers"]]
    for one in after["receivers"]:
        (webhook,) = one["webhook_configs"]
        assert webhook["url"] == f"http://127.0.0.1:9/{one['name']}"
        assert set(one) == {"name", "webhook_configs"}
    # A heartbeat's end is no message.
    assert [one["webhook_configs"][0]["send_resolved"] for one in after["receivers"]] == [
        next(value for key, value in one.items() if key.endswith("_configs"))[0]["send_resolved"]
        for one in before["receivers"]
    ]  # fmt: skip


def test_a_port_given_twice_is_told() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        Ports(kafka=20_001, prometheus=20_001)


def test_the_receiver_answers_as_slack_does() -> None:
    with Receiver() as receiver, urllib.request.urlopen(f"{receiver.url}/slack", b'{"text": "late"}', 5) as answer:
        assert (answer.status, answer.headers.get_content_type(), answer.read()) == (200, "text/plain", b"ok")


def test_the_heartbeat_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("DeadMan", "LagHigh"):
        alert = {"status": "firing", "labels": {"alertname": name}}
        print_notification(Notification(0.0, "x", "firing", {"alertname": name}, [alert]))
    assert capsys.readouterr().out == "[firing] LagHigh → x: \n"


def post(url: str, body: bytes) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_receiver_remembers_what_it_is_told() -> None:
    alert = {"status": "firing", "labels": {"alertname": "LagHigh"}, "annotations": {"summary": "sessionize is late"}}
    body = {"status": "firing", "groupLabels": {"alertname": "LagHigh"}, "alerts": [alert]}
    with Receiver() as receiver:
        assert post(f"{receiver.url}/trustwatch-webhook", json.dumps(body).encode()) == 200
        assert post(f"{receiver.url}/slack", b'{"attachments": [{"title": "LagHigh", "text": "late"}]}') == 200
        first, second = receiver.notifications
    assert first.lines() == ["[firing] LagHigh → trustwatch-webhook: sessionize is late"]
    assert (first.receiver, first.group, second.lines()) == (
        "trustwatch-webhook", {"alertname": "LagHigh"}, ["→ slack: LagHigh · late"])  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"alerts": []}'])
def test_the_receiver_refuses_what_is_no_notification(body: bytes) -> None:
    with Receiver() as receiver:
        assert post(f"{receiver.url}/x", body) == 400
        assert not receiver.notifications


def test_a_taken_port_is_told() -> None:
    with Receiver() as receiver, pytest.raises(BrokerUnavailable, match="cannot listen"):
        Receiver(port=int(receiver.url.rpartition(":")[2]))


def test_the_sample_is_moved_whole(tmp_path: Path) -> None:
    """Every time by the same, and nothing else."""
    shift_s = shift_to(1_800_000_000.0)
    assert shift_s == 1_800_000_000 - 1_758_499_200  # 2025-09-22, its end
    for path, topic in write_moved(tmp_path, shift_s):
        with gzip.open(ROOT / "streams" / "sample" / path.name) as original, gzip.open(path) as written:
            pairs = list(zip(original, written, strict=True))
        assert len(pairs) > 1000 and topic in ("web-events", "crm-events")
        for before, after in pairs[:: len(pairs) // 500]:
            one, other = json.loads(before), json.loads(after)
            assert stripped(one) == stripped(other)
            assert {round(b - a, 3) for a, b in zip(times_of(one), times_of(other), strict=True)} == {shift_s}
    assert moved(b'{"messageId":"2025-09-01"}', shift_s) == b'{"messageId":"2025-09-01"}'
    assert truth().events > 100_000


TIMES = ("timestamp", "originalTimestamp", "occurredAt")


def stripped(message: Any) -> Any:
    """A message without its times."""
    if isinstance(message, list):
        return [stripped(one) for one in message]
    if not isinstance(message, dict):
        return message
    return {key: stripped(value) for key, value in message.items() if key not in TIMES}


def times_of(message: Any) -> list[float]:
    """The times of a message, seconds."""
    if isinstance(message, list):
        return [at for one in message for at in times_of(one)]
    if not isinstance(message, dict):
        return []
    own = [message[key] for key in TIMES if key in message]
    read = [at / 1000 if isinstance(at, int) else datetime.fromisoformat(at).timestamp() for at in own]
    return read + [at for value in message.values() for at in times_of(value)]


def test_the_commands_say_what_they_do() -> None:
    for module in ("deploy.stack", "deploy.stack.sample", "deploy.stack.receiver", "deploy.k8s"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
        )
        assert re.search(rf"usage: python -m {re.escape(module)}", done.stdout)


def test_the_examples_in_the_documentation_hold() -> None:
    result = doctest.testmod(sample)
    assert result.attempted > 0 and result.failed == 0
