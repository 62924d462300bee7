"""The runbook, from the docstrings of detectors and the alerts' own words, for somebody who has just been woken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dashboards import names
from dashboards._alert_prometheus import condition
from dashboards._alert_spec import Alert, AlertSpec, Recording, duration

AREAS: Final = {
    "trust": (
        "Trust",
        "Customers behave as if they trusted less. Held back while tracking is broken and after deploys.",
    ),
    "data": ("Tracking", "What comes in is broken. Trust alerts wait until it is whole again."),
    "pipeline": ("The line", "trustwatch itself is not well."),
    "heartbeat": ("Heartbeat", "The alert that must always fire."),
}
_SILENCE: Final = (
    "The notification's silence link fills in the rest: choose an end, say why, confirm. By hand: `amtool silence add"
    " alertname={name}{labels} --duration=2h --comment='why'`, or in Grafana Alerting → Silences. Choose the shortest"
    " time that helps: a silence hides the next incident, too."
)


def runbook(alerts: Sequence[Alert], recordings: Iterable[Recording], spec: AlertSpec) -> str:
    """The whole document.

    Args:
        alerts: in the order of their sections.
        recordings: recording rules, for those who read the queries.
        spec: who owns what, and for how long trust alerts are held back.
    """
    parts = [_opening(alerts, spec)]
    for area, (title, meaning) in AREAS.items():
        parts.append(f"# {title}\n\n{meaning}")
        parts += [_section(alert) for alert in alerts if alert.area == area]
    parts.append(_appendix(recordings))
    return (
        "<!-- Written by `make gen` from dashboards/ and detectors/: do not edit. -->\n\n" + "\n\n".join(parts) + "\n"
    )


def _opening(alerts: Sequence[Alert], spec: AlertSpec) -> str:
    rows = [
        f"| [{alert.name}](#{names.runbook_anchor(alert.name)}) | {alert.severity or 'page or ticket'} |"
        f" {_first_sentence(alert)} |"
        for alert in alerts
    ]
    silence, after = duration(spec.deploy_silence_s), duration(spec.after_broken_tracking_s)
    return "\n".join([
        "# Runbook",
        "",
        "You were paged or have a ticket. Find the alert's name in the table; its section says what it means, what to"
        " look at, what to do, how to silence and how to tune it.",
        "",
        "First aid: `trustwatch doctor` says what is wrong with the line. The status page"
        f" ({spec.links.status}) shows all open findings.",
        "",
        "**Page** wakes someone: sure, and not tiny. **Ticket** waits for working hours: less sure, tiny, or not"
        " urgent. A finding is sure when its level is `alert` (thresholds follow from `false_pages_per_week`), and tiny"
        " when shares before and after differ by less than 0.1 in Cohen's h (30 % and 25.6 %). A ticket that grows"
        " becomes a page, and a page stays one while its finding is open.",
        "",
        f"New trust alerts are held back while tracking is broken and {after} longer, and for {silence} after a deploy"
        " (each for as long at most); alerts that were told before stay. `trustwatch:findings_held_back:count` says how"
        " many wait, and why; [TrustAlertsHeldBack](#trustalertsheldback) pages when they wait for long. Alerts of"
        " tracking and of the line are never held back.",
        "",
        "| alert | severity | what |",
        "| --- | --- | --- |",
        *rows,
    ])  # fmt: skip


def _first_sentence(alert: Alert) -> str:
    return " ".join(alert.means.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".:") + "."


def _section(alert: Alert) -> str:
    labels = "".join(f" {label}=…" for label in (("finding",) if alert.area == "trust" else alert.by))
    queries = "\n".join(alert.queries)
    return "\n\n".join([
        f"## {alert.name}",
        f"{_facts(alert)}",
        f"**What it means.** {_paragraphs(alert.means)}",
        "**How to check.**",
        _numbered(alert.check),
        f"Dashboard: {names.DASHBOARDS[alert.dashboard]} (`/d/{alert.dashboard}`). Queries:",
        f"```\n{queries}\n```",
        "**What to do.**",
        _numbered(alert.do),
        f"**How to silence.** {_SILENCE.format(name=alert.name, labels=labels)}",
        f"**How to tune.** {alert.tune}",
    ])  # fmt: skip


def _facts(alert: Alert) -> str:
    severity = f"Severity: {alert.severity}" if alert.severity else "Severity: page or ticket, by the finding"
    held = f", for {duration(alert.for_s)}" if alert.for_s else ""
    kept = f" Stays for {duration(alert.keep_s)} after it was last true." if alert.keep_s else ""
    return f"{severity}. Fires when{held}: `{condition(alert)}`.{kept}"


def _paragraphs(text: str) -> str:
    return "\n\n".join(part if part.startswith("- ") else " ".join(part.split()) for part in text.split("\n\n"))


def _numbered(steps: Iterable[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def _appendix(recordings: Iterable[Recording]) -> str:
    rows = [f"| `{one.name}` | {one.why} |" for one in recordings]
    return "\n".join(["# Recording rules", "", "| series | what |", "| --- | --- |", *rows])
