"""All alerts, from one place: `python -m dashboards.alerts [--check]` writes (compares) what follows from them.

Detectors give an alert each by their class (`dashboards._alert_trust`), guardrails by `deploy/guardrails.yaml`; broken
tracking and the line itself have theirs beside it; an installation says in `deploy/alerts.yaml` who is told. From that
follow rule files of Prometheus, rules and routing of Grafana, a configuration of Alertmanager with the same routing,
and the runbook.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from dashboards import _alert_grafana, _alert_prometheus, _alert_routes, names
from dashboards._alert_guardrails import guardrail_alert, guardrails
from dashboards._alert_pipeline import CANARY, pipeline_alerts
from dashboards._alert_recording import recordings
from dashboards._alert_spec import ROOT, SPEC_FILE, Alert, AlertSpec, load_spec
from dashboards._alert_trust import detector_alert, tracking_alerts
from dashboards.runbook import runbook
from detectors._registry import discover
from streams.errors import ConfigError, TrustwatchError

PROMETHEUS: Final = "deploy/prometheus/rules"
GRAFANA: Final = "deploy/grafana/provisioning/alerting"
ALERTMANAGER: Final = "deploy/alertmanager"
_HEAD: Final = "# Written by `make gen` from dashboards/alerts.py and deploy/alerts.yaml: do not edit.\n"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the generated files, or (`--check`) only say which are stale; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.alerts", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is stale")
    parser.add_argument("--spec", type=Path, default=SPEC_FILE, help="who is told of what; default: deploy/alerts.yaml")
    parsed = parser.parse_args(arguments)
    try:
        made = files(load_spec(parsed.spec))
    except TrustwatchError as error:
        print(f"FAIL {error}", file=sys.stderr)
        return 1
    stale = [name for name, text in made.items() if _read(root / name) != text]
    for name in stale:
        print(f"FAIL {name} stale. Fix: make gen" if parsed.check else f"wrote {name}", file=sys.stderr)
        if not parsed.check:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(made[name], encoding="utf-8")
    return 1 if parsed.check and stale else 0


def all_alerts() -> tuple[Alert, ...]:
    """Every alert that both Prometheus and Grafana have: of detectors, guardrails, tracking, and of the line."""
    trust = tuple(detector_alert(name, cls) for name, cls in discover().items())
    rails = tuple(guardrail_alert(one) for one in guardrails())
    return (*trust, *rails, *tracking_alerts(), *pipeline_alerts())


def files(spec: AlertSpec) -> dict[str, str]:
    """Everything that is generated: path below the root → text.

    Raises:
        ConfigError: an alert that there is was said to be retired.
    """
    alerts = all_alerts()
    if alive := {alert.name for alert in (*alerts, CANARY)} & set(spec.retired):
        raise ConfigError(f"alerts.yaml: retired: {', '.join(sorted(alive))} is an alert still")
    built = recordings(spec)
    return {
        f"{PROMETHEUS}/recording.yml": _HEAD + _yaml(_alert_prometheus.recording_file(built)),
        f"{PROMETHEUS}/alerts.yml": _HEAD + _yaml(_alert_prometheus.alert_file(alerts, spec)),
        f"{GRAFANA}/rules.yaml": _HEAD + _yaml(_alert_grafana.rules_file(alerts, spec)),
        f"{GRAFANA}/contact-points.yaml": _HEAD + _environment() + _yaml(_alert_routes.contact_points()),
        f"{GRAFANA}/policies.yaml": _HEAD + _yaml(_alert_routes.policies(spec)),
        f"{GRAFANA}/mute-times.yaml": _HEAD + _yaml(_alert_routes.mute_times(spec)),
        f"{GRAFANA}/templates.yaml": _HEAD + _yaml(_alert_routes.templates()),
        f"{ALERTMANAGER}/alertmanager.yml": _HEAD + _yaml(_alert_routes.alertmanager(spec)),
        f"{ALERTMANAGER}/trustwatch.tmpl": _alert_routes.TEMPLATES,
        names.RUNBOOK: runbook((*alerts, CANARY), built, spec),
    }


def _environment() -> str:
    lines = [f"#   {name}: {meaning}" for name, meaning in _alert_routes.ENVIRONMENT.items()]
    head = (
        "# Grafana's environment must hold all of these, also where nobody uses the contact point: it does not start\n"
    )
    return head + "\n".join(["# with an empty one.", *lines]) + "\n"


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
