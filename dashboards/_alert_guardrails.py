"""Alerts of guardrails, one each, made from `deploy/guardrails.yaml`; they are routed by owner, as all trust alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dashboards import names
from dashboards._alert_recording import FINDING, TOLD
from dashboards._alert_spec import ROOT, Alert
from dashboards._alert_trust import KEEP_S, STEADY_S
from streams.guardrail_burn import RULES, WINDOWS
from streams.guardrail_findings import DETECTOR
from streams.guardrails import Guardrail, load_guardrails

FILE: Final = ROOT / "deploy" / "guardrails.yaml"


def guardrails(path: Path = FILE) -> tuple[Guardrail, ...]:
    """Those that dashboards, alerts and runbook are made for; a worker's `guardrails_file` should be the same."""
    return load_guardrails(path if path.is_file() else None)


def alert_name(guardrail: str) -> str:
    """Name of a guardrail's alert.

    >>> alert_name("orders_late")
    'GuardrailOrdersLate'
    """
    return f"Guardrail{names.alert_name(guardrail)}"


def panel_id(guardrail: str) -> int:
    """Id of its panel: it stays when others come or go."""
    return names.panel_id(f"guardrail {guardrail}")


def guardrail_alert(one: Guardrail) -> Alert:
    """The alert of a guardrail."""
    where = ", ".join(f"{label}={value}" for label, value in one.source.segment.items())
    of = f" ({where})" if where else ""
    return Alert(
        name=alert_name(one.name),
        area="trust",
        value=f'{TOLD}{{detector="{DETECTOR}",kind="{one.name}"}}',
        by=FINDING,
        above=0.0,
        for_s=STEADY_S,
        keep_s=KEEP_S,
        severity=None,
        summary=f"Guardrail {one.name}{of} burns its budget",
        description=f"{one.meaning} <before> are normal, <after> since <onset>; allowed: {one.allowed}. It protects"
        f" {one.protects}. First: {one.action} Owner: {{{{ $labels.owner }}}}. Finding {{{{ $labels.finding }}}}.",
        dashboard=names.GUARDRAILS,
        panel=panel_id(one.name),
        unit="ratio",
        means=f"{one.meaning} It protects {one.protects}.\n\nAllowed: {one.allowed}. {_formula(one)}{of}."
        f"\n\n{_paces(one)}",
        check=_check(one),
        do=(one.action, *_DO),
        tune=f"`guardrails.yaml`, {one.name}: `{'limit' if one.limit is not None else 'budget'}`, `window_days` and"
        " `paging`. `trustwatch guardrails diff OLD NEW` says what a change means; one that loosens is for the owner"
        " to make. If the KPI itself is wrong, question it: `trustwatch dispute"
        f" {one.name} --why TEXT`; until it is resolved its pages are tickets.",
        queries=tuple(
            f'trustwatch_guardrail_{what}{{guardrail="{one.name}"}}'
            for what in ("burn_rate", "budget_left_ratio", "disputed")
        ),
    )


_DO: Final = (
    "Say that you are at it: `trustwatch ack ID --note TEXT` with the id of the finding, or the form on the status"
    " page. The time that took is measured.",
    "The alert ends by itself some hours after the budget burns no more.",
)


def _check(one: Guardrail) -> tuple[str, ...]:
    more = () if one.runbook.startswith("#") else (f"Read {one.runbook}.",)
    return (
        "Open the panel from the notification: how fast does it burn, and how much of the budget is left?",
        "What changed at the onset? Deploys and definition changes are marked in the dashboards.",
        "Is tracking whole? A broken tag counts as bad events, too; such findings are held back where it is known.",
        *more,
        f"Ask {one.owner}: {one.contact}.",
    )


def _formula(one: Guardrail) -> str:
    source = one.source
    bad = " + ".join(source.bad) or f"all but {' + '.join(source.good)}"
    return f"Bad events: {bad}; of: {' + '.join(source.total)}; counted at `{source.stage}`"


def _paces(one: Guardrail) -> str:
    shown = [
        f"{rule.factor:g} times in {WINDOWS[rule.short_s]} and {WINDOWS[rule.long_s]}"
        f" ({rule.level if one.paging == 'page' else 'ticket'})"
        for rule in RULES
        if rule.long_s >= 2 * one.source.settle_hours * 3600
    ]
    return (
        f"It tells when excess bad events burn the budget faster than the window allows: {', '.join(shown)}. They are"
        " beyond chance then, and ten at least; where everything bad could not burn so fast, half of what it could is"
        " enough."
    )
