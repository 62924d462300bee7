"""The same alerts as rules that Grafana manages, as provisioning files.

What Grafana does otherwise than Prometheus: hysteresis is the threshold's `unloadEvaluator`; a series that is gone ends
its alert after `missing_series_evals_to_resolve` evaluations, whatever `keepFiringFor` says; numbers of a finding are
queries beside the condition; `$NAME` is taken from the environment in labels and contact points, `${NAME}` in
annotations, and neither in queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import ceil
from typing import Any, Final

from dashboards import names
from dashboards._alert_pipeline import CANARY
from dashboards._alert_prometheus import GROUPS, labels, links, silenced_by
from dashboards._alert_spec import Alert, AlertSpec, duration

INTERVAL_S: Final = 20
"""A multiple of the 10 s on which Grafana insists."""
LOOK_BACK_S: Final = 600
EXPRESSION: Final = "__expr__"
NUMBERS: Final = {
    "before": ("B", "trustwatch_open_finding_before"),
    "after": ("D", "trustwatch_open_finding_after"),
    "onset": ("E", "trustwatch_open_finding_onset_timestamp_seconds"),
}
"""Number of a finding → the query beside the condition, and its metric."""


def rules_file(alerts: Iterable[Alert], spec: AlertSpec) -> dict[str, Any]:
    """The file of alert rules, a group for each area."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for alert in (*alerts, CANARY):
        groups.setdefault(GROUPS[alert.area], []).append(_rule(alert, spec))
    # A rule that is only left out of the file stays in Grafana.
    gone = [{"orgId": 1, "uid": rule_uid(name)} for name in spec.retired]
    return {
        "apiVersion": 1,
        **({"deleteRules": gone} if gone else {}),
        "groups": [
            {"orgId": 1, "name": name, "folder": names.FOLDER_TITLE, "interval": duration(INTERVAL_S), "rules": rules}
            for name, rules in groups.items()
        ],
    }


def rule_uid(alert: str) -> str:
    """Uid of an alert's rule: it stays when others come or go.

    >>> rule_uid("EarlyDropoff")
    'trustwatch-earlydropoff'
    """
    return f"trustwatch-{alert.lower()}"


def _rule(alert: Alert, spec: AlertSpec) -> dict[str, Any]:
    canary = alert.name == CANARY.name
    annotations = _annotations(alert, spec)
    rule: dict[str, Any] = {
        "uid": rule_uid(alert.name),
        "title": alert.name,
        "condition": "C",
        "data": [_query("A", alert.value), *_numbers(alert), _threshold(alert)],
        "noDataState": "Alerting" if canary else "OK",
        "execErrState": "Alerting" if canary else "KeepLast",
        "for": duration(alert.for_s),
    }
    if alert.keep_s:
        rule["keepFiringFor"] = duration(alert.keep_s)
        rule["missing_series_evals_to_resolve"] = ceil(alert.keep_s / INTERVAL_S) + 1
    if alert.panel is not None:
        rule["dashboardUid"], rule["panelId"] = alert.dashboard, alert.panel
        annotations |= {"__dashboardUid__": alert.dashboard, "__panelId__": str(alert.panel)}
    return {**rule, "annotations": annotations, "labels": labels(alert, spec), "isPaused": False}


def _query(ref: str, expr: str) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasourceUid": names.PROMETHEUS_UID,
        "relativeTimeRange": {"from": LOOK_BACK_S, "to": 0},
        "model": {"refId": ref, "expr": expr, "instant": True, "range": False, "editorMode": "code",
                  "intervalMs": 1000, "maxDataPoints": 43200},
    }  # fmt: skip


def _numbers(alert: Alert) -> list[dict[str, Any]]:
    used = {match[1] for match in re.finditer(r"<(\w+)>", alert.description)}
    return [_query(ref, f"max by (finding) ({metric})") for name, (ref, metric) in NUMBERS.items() if name in used]


def _threshold(alert: Alert) -> dict[str, Any]:
    kind, other, level = ("gt", "lt", alert.above) if alert.above is not None else ("lt", "gt", alert.below)
    compare: dict[str, Any] = {"evaluator": {"type": kind, "params": [level]}}
    if alert.clear is not None:
        compare["unloadEvaluator"] = {"type": other, "params": [alert.clear]}
    return {
        "refId": "C",
        "datasourceUid": EXPRESSION,
        "relativeTimeRange": {"from": 0, "to": 0},
        "model": {"refId": "C", "type": "threshold", "expression": "A", "conditions": [compare]},
    }


def _annotations(alert: Alert, spec: AlertSpec) -> dict[str, str]:
    owner = "{{ $labels.owner }}" if alert.area == "trust" else labels(alert, spec)["owner"]
    return {
        "summary": alert.summary,
        "description": _with_numbers(alert),
        "owner": owner,
        **links(alert, spec),
        "silence_url": _silence(alert, spec),
    }


def _with_numbers(alert: Alert) -> str:
    shown = "humanizePercentage" if alert.unit == "ratio" else "humanize"

    def number(match: re.Match[str]) -> str:
        onset = match[1] == "onset"
        unit = "" if onset or alert.unit in ("ratio", "") else f" {alert.unit}"
        ref = NUMBERS[match[1]][0]
        told = f"{{{{ .Value | {'humanizeTimestamp' if onset else shown} }}}}{unit}"
        return f"{{{{ with $values.{ref} }}}}{told}{{{{ else }}}}unknown{{{{ end }}}}"

    text = re.sub(r"<(before|after|onset)>", number, alert.description)
    return re.sub(r"\$value\b", "$values.A.Value", text)


def _silence(alert: Alert, spec: AlertSpec) -> str:
    rest = "".join(f"&matcher={label}%3D{{{{ $labels.{label} | urlquery }}}}" for label in silenced_by(alert))
    return f"{spec.links.grafana}/alerting/silence/new?alertmanager=grafana&matcher=alertname%3D{alert.name}{rest}"
