"""Guardrails: how much may still go wrong, how fast it does, who acts, and how soon."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards import names
from dashboards._alert_guardrails import panel_id
from dashboards._panels import (
    Column,
    Json,
    cell,
    dashboard,
    eq,
    or_zero,
    rise,
    row,
    series,
    share,
    stat,
    table,
    trend,
    url,
)
from streams.guardrail_findings import DETECTOR
from streams.guardrails import Guardrail

BY = "guardrail, owner"
NONE = "no guardrails, or still learning"
FINDING = "kind, owner, severity, finding"
OPEN_FINDING = url(names.FINDING, f"var-finding={cell('Finding')}")


def guardrails(rails: Sequence[Guardrail]) -> Json:
    """Build the dashboard; each guardrail has a panel of its own."""
    own = [_panel(one) for one in rails]
    for i, panel in enumerate(own):
        panel["gridPos"]["w"] = 24 // min(len(own) - i // 3 * 3, 3)
    panels = [*_stats(), row("Guardrails"), *own, row("Details"), *_details()]
    about = "Where not to go: how much of each budget of bad events is left, how fast it burns, and who acts on it."
    return dashboard(names.GUARDRAILS, about, panels, [])


def _stats() -> list[Json]:
    open_now = series("trustwatch_open_finding", eq("detector", DETECTOR))
    least = f"min({series('trustwatch_guardrail_budget_left_ratio')})"
    response = share(f"sum({series('trustwatch_guardrail_response_seconds_sum')})",
                     f"sum({series('trustwatch_guardrail_response_seconds_count')})")  # fmt: skip
    watched = f"count(count by (guardrail) ({series('trustwatch_guardrail_budget_left_ratio')}))"
    bad = f"sum({rise('trustwatch_guardrail_bad_events_total')})"
    return [
        stat("Guardrails hit", "Guardrails whose budget burns too fast right now.", or_zero(f"count({open_now})"),
             "short", steps=[(1, "red")], empty="no worker", width=4),
        stat("Least budget left", "Budget of bad events that the guardrail has left that has spent most of it.", least,
             "percentunit", steps=[(float("-inf"), "red"), (0.0, "orange"), (0.5, "green")], empty=NONE, width=4,
             decimals=0),
        stat("Questioned", "Guardrails that somebody disputes: they are shown, and do not page.",
             or_zero(f"sum({series('trustwatch_guardrail_disputed')})"), "short", steps=[(1, "orange")],
             empty="no worker", width=4),
        stat("Response", "Mean time from a breach until its owner acknowledged it.", response, "s",
             steps=[(3600, "orange"), (86_400, "red")], empty="nothing acknowledged yet", width=4),
        stat("Watched", "Guardrails of guardrails_file whose budget is known.", watched, "short",
             empty=NONE, width=4),
        stat("Bad events", "Bad events of all guardrails in the time range, those allowed, too.", bad, "short",
             empty=NONE, width=4),
    ]  # fmt: skip


def _panel(one: Guardrail) -> Json:
    matchers = (eq("guardrail", one.name),)
    burn = f"max by (window) ({series('trustwatch_guardrail_burn_rate', *matchers)})"
    panel = trend(
        f"Burn rate of {one.name}",
        f"{one.meaning} Allowed: {one.allowed}; at 1 the budget is spent just when the window ends, below 0 it grows.",
        [(burn, "{{window}}")], "short", steps=[(1.0, "orange"), (14.4, "red")], empty=NONE, least=None,
    )  # fmt: skip
    return panel | {"id": panel_id(one.name)}


def _details() -> list[Json]:
    values = {what: f"max by ({BY}) ({series(f'trustwatch_guardrail_{what}')})"
              for what in ("state", "budget_left_ratio", "disputed")}  # fmt: skip
    bad = share(f"sum by ({BY}) (increase({series('trustwatch_guardrail_bad_events_total')}[$__range]))",
                f"sum by ({BY}) (increase({series('trustwatch_guardrail_events_total')}[$__range]))")  # fmt: skip
    open_now = series("trustwatch_open_finding", eq("detector", DETECTOR))
    onset = series("trustwatch_open_finding_onset_timestamp_seconds", eq("detector", DETECTOR))
    return [
        table("All guardrails", "Each guardrail with its owner; state 0 is learning, 1 fine, 2 a ticket, 3 a page.",
              [values["state"], values["budget_left_ratio"], bad, values["disputed"]],
              [Column("guardrail", "Guardrail"), Column("owner", "Owner"), Column("A", "State", "short"),
               Column("B", "Budget left", "percentunit", decimals=0), Column("C", "Bad", "percentunit", decimals=2),
               Column("D", "Questioned", "short")], empty=NONE, sort=("State", True)),
        table("Guardrails that are hit", "Open findings of guardrails; a row leads to all about it.",
              [f"max by ({FINDING}) ({open_now})", f"max by (finding) ({onset}) * 1000"],
              [Column("finding", "Finding", url=OPEN_FINDING), Column("kind", "Guardrail"), Column("owner", "Owner"),
               Column("severity", "Severity"), Column("B", "Since", "dateTimeAsIso")], empty="none is hit: good",
              sort=("Since", True)),
    ]  # fmt: skip
