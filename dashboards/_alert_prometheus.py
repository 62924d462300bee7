"""Rule files of Prometheus, for those who alert without Grafana; and the recording rules, which everybody needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from dashboards import names
from dashboards._alert_spec import Alert, AlertSpec, Recording, duration

GROUPS: Final = {"trust": "trustwatch-trust", "data": "trustwatch-data", "pipeline": "trustwatch-pipeline",
                 "heartbeat": "trustwatch-heartbeat"}  # fmt: skip
"""Area of an alert → group of its rule."""
INTERVAL_S: Final = 15


def recording_file(recordings: Iterable[Recording]) -> dict[str, Any]:
    """The file of recording rules: one group, for they build on another."""
    rules = [
        {"record": one.name, "expr": one.expr} | ({"labels": dict(one.labels)} if one.labels else {})
        for one in recordings
    ]
    return {"groups": [{"name": "trustwatch-recording", "interval": duration(INTERVAL_S), "rules": rules}]}


def alert_file(alerts: Iterable[Alert], spec: AlertSpec) -> dict[str, Any]:
    """The file of alert rules, a group for each area."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        groups.setdefault(GROUPS[alert.area], []).append(_rule(alert, spec))
    interval = duration(INTERVAL_S)
    return {"groups": [{"name": name, "interval": interval, "rules": rules} for name, rules in groups.items()]}


def condition(alert: Alert) -> str:
    """When it fires, in PromQL; what is firing already goes on until its value is clear."""
    sign, level = (">", alert.above) if alert.above is not None else ("<", alert.below)
    now = f"({alert.value}) {sign} {level:g}"
    if alert.clear is None:
        return "vector(1)" if alert.area == "heartbeat" else now
    firing = f'ALERTS{{alertname="{alert.name}",alertstate="firing"}}'
    return f"{now} or (({alert.value}) {sign} {alert.clear:g} and on ({', '.join(alert.by)}) {firing})"


def labels(alert: Alert, spec: AlertSpec) -> dict[str, str]:
    """Labels of an alert beside those of its series; never a value."""
    found: dict[str, str] = {"area": alert.area}
    if alert.severity is not None:
        found["severity"] = alert.severity
    if alert.area != "trust":
        found["owner"] = spec.data_owner if alert.area == "data" else spec.pipeline_owner
    return found


def links(alert: Alert, spec: AlertSpec) -> dict[str, str]:
    """Annotations that are links, whoever alerts; without the one for silence."""
    found = {"runbook_url": f"{spec.links.runbook}#{names.runbook_anchor(alert.name)}"}
    if alert.area == "trust":
        finding = "{{ $labels.finding }}"
        found["dashboard_url"] = f"{spec.links.grafana}/d/{names.FINDING}?var-finding={finding}"
        found["status_url"] = f"{spec.links.status}/#finding={finding}"
    else:
        found["dashboard_url"] = f"{spec.links.grafana}/d/{alert.dashboard}"
    return found


def silenced_by(alert: Alert) -> tuple[str, ...]:
    """Labels that a silence of this alert names: a finding has an id, others all that tells them apart."""
    return ("finding",) if alert.area == "trust" else alert.by


def _rule(alert: Alert, spec: AlertSpec) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": condition(alert)}
    if alert.for_s:
        rule["for"] = duration(alert.for_s)
    if alert.keep_s:
        rule["keep_firing_for"] = duration(alert.keep_s)
    owner = "{{ $labels.owner }}" if alert.area == "trust" else labels(alert, spec)["owner"]
    rule["labels"] = labels(alert, spec)
    rule["annotations"] = {
        "summary": alert.summary,
        "description": _with_numbers(alert),
        "owner": owner,
        **links(alert, spec),
        "silence_url": _silence(alert, spec),
    }
    return rule


def _with_numbers(alert: Alert) -> str:
    """The description, with queries for the numbers of the finding: a label must not hold them."""
    shown = "humanizePercentage" if alert.unit == "ratio" else "humanize"

    def number(match: re.Match[str]) -> str:
        onset = match[1] == "onset"
        metric = "onset_timestamp_seconds" if onset else match[1]
        query = f"printf `max(trustwatch_open_finding_{metric}{{finding=%q}})` $labels.finding | query"
        told = f"{{{{ . | first | value | {'humanizeTimestamp' if onset else shown} }}}}"
        unit = "" if onset or alert.unit in ("ratio", "") else f" {alert.unit}"
        return f"{{{{ with {query} }}}}{told}{unit}{{{{ else }}}}unknown{{{{ end }}}}"

    return re.sub(r"<(before|after|onset)>", number, alert.description)


def _silence(alert: Alert, spec: AlertSpec) -> str:
    # %7B {, %3D =, %22 ", %2C comma, %7D }
    rest = "".join(f"%2C{label}%3D%22{{{{ $labels.{label} | urlquery }}}}%22" for label in silenced_by(alert))
    return f"{spec.links.alertmanager}/#/silences/new?filter=%7Balertname%3D%22{alert.name}%22{rest}%7D"
