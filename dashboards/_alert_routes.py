"""Who is told: contact points, routing by owner, quiet hours of tickets and the words; for Grafana and Alertmanager."""

from __future__ import annotations

from typing import Any, Final

from dashboards._alert_spec import AlertSpec, Receivers

GROUP_BY: Final = ("alertname", "stage", "segment")
QUIET: Final = "trustwatch-outside-working-hours"
"""Of all organisation, so named as ours: who has another one of a plain name keeps it."""
HEARTBEAT: Final = "trustwatch-heartbeat"
TITLE: Final = '{{ template "trustwatch.title" . }}'
TEXT: Final = '{{ template "trustwatch.text" . }}'
ENVIRONMENT: Final = {
    "TRUSTWATCH_ALERT_WEBHOOK_URL": "where messages are posted to as JSON",
    "TRUSTWATCH_ALERT_SLACK_URL": "Slack's incoming webhook, https://hooks.slack.com/…",
    "TRUSTWATCH_ALERT_EMAIL": "e-mail addresses, separated by semicolons; Grafana's [smtp] must be configured",
    "TRUSTWATCH_HEARTBEAT_URL": "the external service that calls when the dead man falls silent",
}
"""What Grafana's environment must hold: an empty variable stops its start, also where nobody uses the contact point."""
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")

TEMPLATES: Final = """\
{{ define "trustwatch.title" -}}
[{{ .Status | toUpper }}{{ if eq .Status "firing" }}: {{ len .Alerts.Firing }}{{ end }}] {{ .CommonLabels.alertname -}}
{{ if .CommonLabels.stage }} at {{ .CommonLabels.stage }}{{ end -}}
{{ if .CommonLabels.segment }} ({{ .CommonLabels.segment }}){{ end -}}
{{ if .CommonLabels.severity }}, {{ .CommonLabels.severity }}{{ end }}
{{- end }}

{{ define "trustwatch.alert" -}}
{{ .Annotations.summary }}
{{ .Annotations.description }}
Since: {{ .StartsAt.UTC.Format "2006-01-02 15:04" }} UTC
Owner: {{ .Annotations.owner }}
{{ if .Annotations.status_url }}Finding: {{ .Annotations.status_url }}
{{ end -}}
Dashboard: {{ .Annotations.dashboard_url }}
Runbook: {{ .Annotations.runbook_url }}
Silence: {{ .Annotations.silence_url }}
{{ end }}

{{ define "trustwatch.text" -}}
{{ range .Alerts.Firing }}{{ template "trustwatch.alert" . }}
{{ end -}}
{{ range .Alerts.Resolved }}Over: {{ .Annotations.summary }}
{{ end -}}
{{ end }}
"""
"""The words of a notification. Both know this language and these fields; without `$`, which Grafana may expand."""


def contact_points() -> dict[str, Any]:
    """Grafana's contact points; where to is in its environment."""
    webhook = {"httpMethod": "POST", "title": TITLE, "message": TEXT}
    points = {
        _point("webhook"): ("webhook", {"url": "$TRUSTWATCH_ALERT_WEBHOOK_URL", **webhook}),
        _point("slack"): ("slack", {"url": "$TRUSTWATCH_ALERT_SLACK_URL", "title": TITLE, "text": TEXT}),
        _point("email"): ("email", {"addresses": "$TRUSTWATCH_ALERT_EMAIL", "singleEmail": True, "subject": TITLE,
                                    "message": TEXT}),
        HEARTBEAT: ("webhook", {"url": "$TRUSTWATCH_HEARTBEAT_URL", "httpMethod": "POST"}),
    }  # fmt: skip
    return {
        "apiVersion": 1,
        "contactPoints": [
            {"orgId": 1, "name": name, "receivers": [
                {"uid": name, "type": kind, "settings": settings, "disableResolveMessage": name == HEARTBEAT}]}
            for name, (kind, settings) in points.items()
        ],
    }  # fmt: skip


def policies(spec: AlertSpec) -> dict[str, Any]:
    """Grafana's notification policies: one tree, whose root takes what nobody else does."""
    return {"apiVersion": 1, "policies": [{"orgId": 1, **_tree(spec, _object_matchers)}]}


def mute_times(spec: AlertSpec) -> dict[str, Any]:
    """Grafana's mute timings."""
    return {"apiVersion": 1, "muteTimes": [{"orgId": 1, **_quiet_hours(spec)}]}


def templates() -> dict[str, Any]:
    """Grafana's notification templates."""
    return {"apiVersion": 1, "templates": [{"orgId": 1, "name": "trustwatch", "template": TEMPLATES}]}


def alertmanager(spec: AlertSpec) -> dict[str, Any]:
    """Alertmanager's configuration, with the same routes."""
    to = spec.alertmanager
    hook = {"webhook_configs": [{"send_resolved": True, **to.url("webhook")}]}
    slack = {"send_resolved": True, "title": TITLE, "text": TEXT}
    return {
        "global": {**to.url("slack", "slack_api_url"), **_mail_server(to)},
        "templates": ["trustwatch.tmpl"],
        "route": _tree(spec, _matchers),
        "inhibit_rules": _inhibitions(),
        "time_intervals": [_quiet_hours(spec)],
        "receivers": [
            {"name": _point("webhook"), **hook},
            {"name": _point("slack"), "slack_configs": [slack]},
            # Without a mail server nobody may go untold.
            {"name": _point("email"), **(hook if to.smtp_smarthost is None else {"email_configs": [_email(to)]})},
            {"name": HEARTBEAT, "webhook_configs": [{"send_resolved": False, **to.url("heartbeat")}]},
        ],
    }  # fmt: skip


def _mail_server(to: Receivers) -> dict[str, Any]:
    if to.smtp_smarthost is None:
        return {}
    user = {"smtp_auth_username": to.smtp_username, "smtp_auth_password_file": to.smtp_password_file}
    return {"smtp_smarthost": to.smtp_smarthost, "smtp_from": to.email_from, "smtp_require_tls": to.smtp_require_tls,
            **(user if to.smtp_username is not None else {})}  # fmt: skip


def _email(to: Receivers) -> dict[str, Any]:
    return {"send_resolved": True, "to": to.email_to, "headers": {"Subject": TITLE}, "text": TEXT, "html": ""}


def _point(channel: str) -> str:
    return f"trustwatch-{channel}"


def _matchers(label: str, value: str) -> dict[str, Any]:
    return {"matchers": [f'{label}="{value}"']}


def _object_matchers(label: str, value: str) -> dict[str, Any]:
    return {"object_matchers": [[label, "=", value]]}


def _tree(spec: AlertSpec, match: Any) -> dict[str, Any]:
    default = _point(spec.owners["default"])
    heartbeat = {"receiver": HEARTBEAT, **match("severity", "heartbeat"), "group_by": ["alertname"],
                 "group_wait": "0s", "group_interval": "1m", "repeat_interval": "1m"}  # fmt: skip
    owners = [
        {"receiver": _point(channel), **match("owner", owner), "routes": [_tickets(_point(channel), match)]}
        for owner, channel in spec.owners.items()
        if owner != "default"
    ]
    return {
        "receiver": default,
        "group_by": list(GROUP_BY),
        "group_wait": "10s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        "routes": [heartbeat, *owners, _tickets(default, match)],
    }


def _tickets(receiver: str, match: Any) -> dict[str, Any]:
    return {"receiver": receiver, **match("severity", "ticket"), "mute_time_intervals": [QUIET],
            "group_wait": "5m", "group_interval": "30m", "repeat_interval": "3d"}  # fmt: skip


def _inhibitions() -> list[dict[str, Any]]:
    """A finding that has become a page is no ticket any more. That who is absent is not slow, too, the rules say."""
    return [
        {"source_matchers": ['severity="page"', 'finding!=""'], "target_matchers": ['severity="ticket"'],
         "equal": ["alertname", "finding"]},
    ]  # fmt: skip


def _quiet_hours(spec: AlertSpec) -> dict[str, Any]:
    hours = spec.working_hours
    first, _, last = hours.weekdays.partition(":")
    start, end = _DAYS.index(first), _DAYS.index(last or first)
    working = [_DAYS[(start + step) % 7] for step in range((end - start) % 7 + 1)]
    free = [day for day in _DAYS if day not in working]
    times = [(begin, until) for begin, until in (("00:00", hours.start), (hours.end, "24:00")) if begin != until]
    nights = {"weekdays": working, "times": [{"start_time": begin, "end_time": until} for begin, until in times]}
    intervals: list[dict[str, Any]] = [nights, *([{"weekdays": free}] if free else [])]
    return {"name": QUIET, "time_intervals": [{**one, "location": hours.location} for one in intervals]}
