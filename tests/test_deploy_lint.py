"""The linters of what is deployed, each in its own words: hadolint, yamllint, promtool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
GENERATED = ("deploy/prometheus/rules", "deploy/grafana/provisioning/alerting", "deploy/k8s/prometheusrule.yaml",
             "deploy/alertmanager")  # fmt: skip
"""Lines as long as their expressions."""


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def yaml_files() -> list[str]:
    found = [ROOT / "docker-compose.yml", ROOT / ".yamllint"]
    found += [path for pattern in ("*.yml", "*.yaml") for path in (ROOT / "deploy").rglob(pattern)]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def test_hadolint_has_nothing_to_say() -> None:
    assert run(str(BIN / "hadolint"), "deploy/Dockerfile") == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && sudo pip install x\n")
    code, said = run(str(BIN / "hadolint"), str(tmp_path / "Dockerfile"))
    assert code != 0 and "DL3007" in said


def test_yamllint_has_nothing_to_say() -> None:
    written = [name for name in yaml_files() if not name.startswith(GENERATED)]
    assert len(written) > 10
    assert run(str(BIN / "yamllint"), "--strict", "-c", ".yamllint", *written) == (0, "")


def test_yamllint_has_nothing_to_say_of_what_is_generated() -> None:
    generated = [name for name in yaml_files() if name.startswith(GENERATED)]
    assert generated, "nothing is generated. Fix: make gen"
    relaxed = "{extends: .yamllint, rules: {line-length: disable}}"
    assert run(str(BIN / "yamllint"), "--strict", "-d", relaxed, *generated) == (0, "")


def test_yamllint_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n")
    code, said = run(str(BIN / "yamllint"), "-c", ".yamllint", str(tmp_path / "twice.yaml"))
    assert code != 0 and "duplication of key" in said


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    code, said = run(promtool, "check", "config", "deploy/prometheus/prometheus.yml")
    assert code == 0, said
    assert "SUCCESS" in said and "rule files found" in said


def test_prometheus_would_not_take_another(promtool: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("scrape_configs:", "scrape_config:"))
    assert run(promtool, "check", "config", str(tmp_path / "prometheus.yml"))[0] != 0


@pytest.mark.parametrize("script", ["deploy/secrets.sh"])
def test_shell_scripts_are_well_formed(script: str) -> None:
    assert run("sh", "-n", script) == (0, "")
