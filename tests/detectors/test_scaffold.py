"""What `new-detector` writes passes the tests that every alert must pass, as it is."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards._alert_prometheus import alert_file, recording_file
from dashboards._alert_recording import recordings
from dashboards._alert_spec import load_spec
from dashboards._alert_trust import detector_alert
from detectors import _scaffold
from detectors._registry import detector_of


def scaffolded(root: Path) -> tuple[Path, Path]:
    """A scaffolded detector and the cases of its alert, with the rules that `make gen` would make for it in place."""
    module, _, rules = _scaffold.write("checkout_stall", root)
    spec = importlib.util.spec_from_file_location("checkout_stall", module)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    folder = root / "deploy" / "prometheus" / "rules"
    folder.mkdir(parents=True)
    (folder / "recording.yml").write_text(yaml.safe_dump(recording_file(recordings(load_spec()))))
    alert = detector_alert("checkout_stall", detector_of(loaded))
    (folder / "alerts.yml").write_text(yaml.safe_dump(alert_file((alert,), load_spec())))
    return module, rules


def outcome(promtool: str, rules: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, "test", "rules", str(rules)], capture_output=True, text=True, check=False)


def test_the_alert_of_a_scaffolded_detector_does_what_its_cases_say(promtool: str, tmp_path: Path) -> None:
    _, rules = scaffolded(tmp_path)
    done = outcome(promtool, rules)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("at decide got worse", "at decide got better"),
        ("32m", "21m"),
        ("severity: ticket, owner", "severity: page, owner"),
    ],
)
def test_its_cases_would_notice_a_change(right: str, wrong: str, promtool: str, tmp_path: Path) -> None:
    _, rules = scaffolded(tmp_path)
    text = rules.read_text()
    assert right in text
    rules.write_text(text.replace(right, wrong))
    assert outcome(promtool, rules).returncode != 0


def test_there_is_a_case_that_fires_one_that_is_quiet_and_one_without_data(tmp_path: Path) -> None:
    rules = _scaffold.write("checkout_stall", tmp_path)[2]
    assert rules == tmp_path / "tests" / "rules" / "checkout_stall.yml"
    seen = {
        (bool(case["exp_alerts"]), bool(test["input_series"]))
        for test in yaml.safe_load(rules.read_text())["tests"] for case in test["alert_rule_test"]
    }  # fmt: skip
    assert seen == {(True, True), (False, True), (False, False)}
