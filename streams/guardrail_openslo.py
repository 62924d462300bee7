"""Guardrails and OpenSLO v1 documents, where the concepts meet; what does not meet is said, never dropped in silence.

An SLO of OpenSLO (https://github.com/OpenSLO/OpenSLO, `openslo/v1`) with a `ratioMetric` of bad and total events, one
objective and a rolling time window is a guardrail with a limit: the target is 1 - limit. A budget against a learnt
baseline has no target that could be written down. Owner, action and the rest travel as annotations `trustwatch/…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from streams.errors import ConfigError
from streams.guardrails import Guardrail
from streams.settings import say_problems

VERSION: Final = "openslo/v1"
PREFIX: Final = "trustwatch/"
SERVICE: Final = "trustwatch"
BAD: Final = "trustwatch_guardrail_bad_events_total"
TOTAL: Final = "trustwatch_guardrail_events_total"
_KEPT: Final = ("meaning", "protects", "action", "runbook", "contact", "paging", "owner")
_NO_SOURCE: Final = (
    "not imported: its queries say nothing of which events are counted here. Fix: add the annotation"
    f" {PREFIX}source, such as '{{stage: leads, bad: [rejected], total: [created]}}'"
)
_DAYS: Final = re.compile(r"(\d+)([dw])")
Json = dict[str, Any]


def export(guardrails: Sequence[Guardrail]) -> tuple[list[Json], list[str]]:
    """SLOs, one a guardrail that has a limit, and sentences about what does not meet."""
    documents, unmet = [], []
    for one in guardrails:
        if one.limit is None:
            unmet.append(
                f"{one.name}: not exported: its budget is against a learnt baseline, and an OpenSLO objective is fixed"
            )
            continue
        documents.append(_slo(one, one.limit))
        unmet.append(f"{one.name}: burn alerts are ours, against the baseline, and are not exported as AlertPolicy")
    return documents, unmet


def _slo(one: Guardrail, limit: float) -> Json:
    source = {knob: list(value) if isinstance(value, tuple) else value
              for knob, value in one.source.model_dump(exclude_defaults=True).items()}  # fmt: skip
    notes = {f"{PREFIX}{knob}": getattr(one, knob) for knob in _KEPT}
    notes[f"{PREFIX}source"] = yaml.safe_dump(source, default_flow_style=True, width=10_000).strip()
    return {
        "apiVersion": VERSION,
        "kind": "SLO",
        "metadata": {"name": one.name.replace("_", "-"), "displayName": one.name, "annotations": notes},
        "spec": {
            "description": one.meaning,
            "service": SERVICE,
            "indicator": {
                "metadata": {"name": f"{one.name.replace('_', '-')}-bad-share"},
                "spec": {"ratioMetric": {"counter": True, "bad": _query(BAD, one), "total": _query(TOTAL, one)}},
            },
            "timeWindow": [{"duration": f"{one.window_days}d", "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": one.allowed, "target": round(1.0 - limit, 9)}],
        },
    }


def _query(metric: str, one: Guardrail) -> Json:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": f'sum({metric}{{guardrail="{one.name}"}})'}}}


def take_in(path: Path) -> tuple[list[Json], list[str]]:
    """The guardrails of a file of OpenSLO documents, as `guardrails.yaml` has them, and what does not meet.

    Raises:
        ConfigError: the file is no YAML of objects.
    """
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: not readable YAML documents: {error}") from error
    found: list[Json] = []
    unmet: list[str] = []
    for number, document in enumerate(documents):
        if not isinstance(document, dict):
            raise ConfigError(f"{path.name}: document {number}: no object")
        name, rail, why = _taken(document, number)
        if rail is not None:
            found.append(rail)
        unmet += [f"{name}: {sentence}" for sentence in why]
    return found, unmet


def _taken(document: Mapping[str, Any], number: int) -> tuple[str, Json | None, list[str]]:
    meta = _part(document, "metadata")
    name = re.sub(r"[^a-z0-9_]", "_", str(meta.get("displayName") or meta.get("name") or f"document_{number}").lower())
    version, kind = document.get("apiVersion"), document.get("kind")
    if version != VERSION or kind != "SLO":
        return name, None, [f"not imported: {kind} of {version} is no SLO of {VERSION}"]
    spec, notes = _part(document, "spec"), _part(meta, "annotations")
    source = notes.get(f"{PREFIX}source")
    if not isinstance(source, str):
        return name, None, [_NO_SOURCE]
    unmet = [f"left out: {key} has no place in a guardrail" for key in ("alertPolicies", "service")
             if spec.get(key) not in (None, [], SERVICE)]  # fmt: skip
    objectives = spec.get("objectives")
    target = objectives[0].get("target") if isinstance(objectives, list) and objectives else None
    if isinstance(objectives, list) and len(objectives) > 1:
        unmet.append("left out: all objectives but the first")
    rail = {knob: notes[f"{PREFIX}{knob}"] for knob in _KEPT if f"{PREFIX}{knob}" in notes}
    rail = {"name": name, "meaning": spec.get("description"), **rail, "source": yaml.safe_load(source)}
    rail["limit"] = round(1.0 - target, 9) if isinstance(target, int | float) else None
    rail["window_days"] = _window_days(spec, unmet)
    try:
        Guardrail.model_validate(rail)
    except ValidationError as error:
        return name, None, [*unmet, f"not imported: {say_problems(error)}"]
    return name, rail, unmet


def _window_days(spec: Mapping[str, Any], unmet: list[str]) -> int:
    windows = spec.get("timeWindow")
    window = windows[0] if isinstance(windows, list) and windows and isinstance(windows[0], dict) else {}
    match = _DAYS.fullmatch(str(window.get("duration", "")))
    if match is None or not window.get("isRolling"):
        unmet.append("timeWindow is no rolling one of days or weeks: 30 days are taken")
        return 30
    return int(match[1]) * (7 if match[2] == "w" else 1)


def _part(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    part = document.get(key)
    return part if isinstance(part, dict) else {}
