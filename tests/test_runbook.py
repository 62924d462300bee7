"""The runbook: every alert's link leads to a section that says all that one needs at night."""

from __future__ import annotations

import re

import pytest
import yaml

from dashboards import names
from detectors._registry import discover
from streams.cli import cli
from streams.docs import PARTS
from streams.settings import knobs
from tests.conftest import ROOT

TEXT = (ROOT / names.RUNBOOK).read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
ANCHORS = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in SECTIONS}
"""As Git hosts make them of headings."""
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
GRAFANA = yaml.safe_load((ROOT / "deploy" / "grafana" / "provisioning" / "alerting" / "rules.yaml").read_text())[
    "groups"
]
RULES = [
    (rule.get("alert") or rule["title"], rule["annotations"]["runbook_url"])
    for group in (*PROMETHEUS, *GRAFANA)
    for rule in group["rules"]
]


@pytest.mark.parametrize(("alert", "link"), RULES)
def test_every_link_leads_to_the_alerts_own_section(alert: str, link: str) -> None:
    page, _, anchor = link.partition("#")
    assert (page, anchor) == ("deploy/runbook.md", names.runbook_anchor(alert))
    assert anchor in ANCHORS and alert in SECTIONS


@pytest.mark.parametrize("alert", sorted({alert for alert, _ in RULES}))
def test_a_section_says_all_that_one_needs(alert: str) -> None:
    section = SECTIONS[alert]
    for part in ("What it means.", "How to check.", "What to do.", "How to silence.", "How to tune."):
        assert f"**{part}**" in section
    assert f"amtool silence add alertname={alert}" in section
    assert re.search(r"^Dashboard: .* \(`/d/[a-z-]+`\)", section, re.MULTILINE)
    assert f"[{alert}](#{alert.lower()})" in TEXT


def test_detectors_speak_by_their_docstrings() -> None:
    for name, cls in discover().items():
        first = (cls.__doc__ or "").partition("\n")[0]
        assert first in SECTIONS[names.alert_name(name)]


def test_the_runbook_names_only_commands_knobs_and_metrics_that_exist() -> None:
    for command in re.findall(r"`trustwatch ([a-z-]+)", TEXT):
        assert command in cli.commands, command
    known = {name for name, _ in knobs()}
    sections = {name.partition(".")[0] for name in known} - {"detectors"}
    for knob in re.findall(r"`([a-z_]+\.[a-z_]+)`", TEXT):
        if knob.partition(".")[0] in sections:
            assert knob in known, knob
    for detector, parameter in re.findall(r"`detectors\.([a-z_]+)\.([a-z_]+)`", TEXT):
        assert parameter in discover()[detector].Params.model_fields, parameter
    exported = {line.split("|")[1].strip(" `") for line in PARTS["metrics"]().splitlines()[2:]}
    assert set(re.findall(r"\btrustwatch_[a-z0-9_]+", TEXT)) <= exported


def test_recording_rules_are_told_of() -> None:
    recording = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "recording.yml").read_text())
    for rule in recording["groups"][0]["rules"]:
        assert f"| `{rule['record']}` |" in TEXT
