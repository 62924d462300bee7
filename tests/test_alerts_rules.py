"""Rule files of Prometheus: promtool finds nothing wrong, and every alert fires, stays quiet, and bears missing data.

The cases are in `tests/rules`, written by hand: promtool compares labels and texts exactly.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.docs import PARTS
from tests.conftest import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules"
CASES = sorted((ROOT / "tests" / "rules").glob("*.yml"))
NEVER_QUIET = {"DeadMan"}
ABOUT_ABSENCE = {"WorkerAbsent", "IngestAbsent", "DeadMan"}


def rules_of(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules_of("alerts.yml")}
RECORDED = {rule["record"]: rule for rule in rules_of("recording.yml")}
EXPRESSIONS = [rule["expr"] for rule in (*rules_of("alerts.yml"), *rules_of("recording.yml"))]
EXPORTED = {
    cells[1].strip(" `"): set(re.findall(r"`(\w+)`", cells[3]))
    for cells in (line.split("|") for line in PARTS["metrics"]().splitlines()[2:])
}
"""Metric → its labels, as the code exports them."""


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_rules_without_a_warning(promtool: str) -> None:
    said = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yml")))
    assert said.count("SUCCESS") == 2
    assert f"{len(ALERTS)} rules found" in said


def test_promtool_takes_the_configuration_that_loads_them(promtool: str) -> None:
    said = run(promtool, "check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml")
    assert f"SUCCESS: {len(ALERTS)} rules found" in said, said


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_alert_does_what_is_written(path: Path, promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("got worse", "got better"), ("severity: page, owner", "severity: ticket, owner"), ("43.1%", "43.2%")],
)
def test_a_case_that_expects_something_else_fails(right: str, wrong: str, promtool: str, tmp_path: Path) -> None:
    text = (ROOT / "tests" / "rules" / "trust.yml").read_text().replace("../../deploy", str(ROOT / "deploy"))
    first = text.partition("\n\n  - name: ")[0]
    assert right in first
    (tmp_path / "right.yml").write_text(first)
    run(promtool, "test", "rules", tmp_path / "right.yml")
    (tmp_path / "wrong.yml").write_text(first.replace(right, wrong))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "wrong.yml")], capture_output=True, check=False)
    assert done.returncode != 0


def cases() -> list[tuple[str, bool, bool]]:
    """(alert, whether it is expected to fire, whether there are any data) of every expectation."""
    found = []
    for path in CASES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                found.append((case["alertname"], bool(case["exp_alerts"]), bool(test["input_series"])))
    return found


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_that_fires_one_that_is_quiet_and_one_without_data(alert: str) -> None:
    own = {(fires, data) for name, fires, data in cases() if name == alert}
    if alert not in NEVER_QUIET:
        assert (False, True) in own
    assert (True, False) in own if alert in ABOUT_ABSENCE else {(True, True), (False, False)} <= own


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_tells_what_its_reader_needs(alert: str) -> None:
    rule = ALERTS[alert]
    wanted = {"summary", "description", "owner", "runbook_url", "dashboard_url", "silence_url"}
    assert wanted <= rule["annotations"].keys()
    # A value in a label would make a new alert with each change.
    assert not [value for value in rule["labels"].values() if "{{" in value]
    assert rule["labels"].get("severity", "of the series") in ("page", "ticket", "heartbeat", "of the series")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_rules_ask_for_what_is_exported_or_recorded(expression: str) -> None:
    metrics = set(re.findall(r"\btrustwatch_[a-z0-9_]+", expression))
    assert metrics <= EXPORTED.keys()
    assert set(re.findall(r"\btrustwatch:[a-z0-9_:]+", expression)) <= RECORDED.keys()
    for metric, selector in re.findall(r"\b(trustwatch_[a-z0-9_]+)\{(.*?)\}", expression):
        labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector))
        assert labels <= EXPORTED[metric], f"{metric} has no such labels: {labels - EXPORTED[metric]}"


def test_the_texts_ask_for_what_is_exported() -> None:
    asked = {name for rule in ALERTS.values() for text in rule["annotations"].values()
             for name in re.findall(r"\btrustwatch_[a-z0-9_]+", text)}  # fmt: skip
    assert asked and asked <= EXPORTED.keys()


def test_only_trust_alerts_are_held_back() -> None:
    held = "trustwatch:open_finding:told"
    for name, rule in ALERTS.items():
        assert (held in rule["expr"]) == (rule["labels"]["area"] == "trust"), name
    assert "trustwatch:hold_back:bool" in RECORDED[held]["expr"]


def test_recording_rules_build_on_those_before_them_only() -> None:
    seen: set[str] = set()
    for rule in rules_of("recording.yml"):
        used = set(re.findall(r"\btrustwatch:[a-z0-9_:]+", rule["expr"])) - {rule["record"]}  # what it said before
        assert used <= seen, rule["record"]
        seen.add(rule["record"])
