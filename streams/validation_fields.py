"""Which counted fields are outcomes, and which indicators; see `streams.validation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from detectors._micro_signals import SIGNALS
from detectors._stages import CUSTOMERS, JOURNEY, LEADS

ADVANCE, ACCEPT, WIN, RENEW = "advance", "accept", "win", "renew"
SCORE, TOUCHED = "score", "touched"
JOURNEY_INDICATORS: Final = (*SIGNALS, "signal", "hesitant")
CUSTOMER_INDICATORS: Final = ("late", "unsolved", "badscore")

Theme: TypeAlias = tuple[str, str]
"""(stage, outcome): indicators of a theme share their outcomes."""


def fields_of(stages: Sequence[str], bins: int) -> dict[str, dict[str, tuple[Theme, str, bool]]]:
    """Stage of the cell → field → whom it belongs to, its name there, and whether it adds to the outcomes."""
    fields: dict[str, dict[str, tuple[Theme, str, bool]]] = {JOURNEY: {}, LEADS: {}, CUSTOMERS: {}}
    for stage in stages:
        slots = ["long_yes", "long_no", *(f"ind_{name}_{end}" for name in JOURNEY_INDICATORS for end in ("yes", "no"))]
        for slot in slots:
            fields[JOURNEY][f"{slot}_{stage}"] = (stage, ADVANCE), slot, slot.startswith("long_")
    for outcome in (ACCEPT, WIN):
        theme = LEADS, outcome
        for end in ("", *(f"_{b}" for b in range(bins))):
            fields[LEADS][f"{outcome}_n{end}"] = theme, f"n{end}", True
            fields[LEADS][f"{outcome}_k{end}"] = theme, f"k{end}", False
        for end in ("yes", "no"):
            fields[LEADS][f"ind_{TOUCHED}_{outcome}_{end}"] = theme, f"ind_{TOUCHED}_{end}", False
    theme = CUSTOMERS, RENEW
    fields[CUSTOMERS] |= {name: (theme, name, True) for name in ("renewed", "churned")}
    for name in CUSTOMER_INDICATORS:
        for end in ("yes", "no"):
            fields[CUSTOMERS][f"ind_{name}_{RENEW}_{end}"] = theme, f"ind_{name}_{end}", False
    return fields


def totals(outcome: str, counts: Mapping[str, int]) -> tuple[int, int]:
    """Good and bad outcomes of a block, whatever indicator.

    >>> totals("accept", {"n": 2, "k": 1, "n_3": 4, "k_3": 1})
    (2, 4)
    """
    if outcome in (ACCEPT, WIN):
        n, k = (sum(count for slot, count in counts.items() if slot == of or slot.startswith(f"{of}_")) for of in "nk")
        return k, n - k
    good, bad = ("renewed", "churned") if outcome == RENEW else ("long_yes", "long_no")
    return counts.get(good, 0), counts.get(bad, 0)


def bins_of(counts: Mapping[str, int], bins: int) -> list[tuple[int, int]]:
    """Score bins of a block: leads, and those of them with a good outcome."""
    return [(counts.get(f"n_{b}", 0), counts.get(f"k_{b}", 0)) for b in range(bins)]


def scored_of(counts: Mapping[str, int], bins: int) -> tuple[int, int]:
    """Good and bad outcomes of leads with a score."""
    scored = bins_of(counts, bins)
    good = sum(k for _, k in scored)
    return good, sum(n for n, _ in scored) - good


def outcomes_of(stage: str) -> tuple[str, ...]:
    """What can come of people at a stage."""
    return {LEADS: (ACCEPT, WIN), CUSTOMERS: (RENEW,)}.get(stage, (ADVANCE,))


def reach_of(indicator: str) -> float:
    """Whether more of it is meant to bring good outcomes; for scores each table says so itself."""
    return 1.0 if indicator == TOUCHED else -1.0


def indicator_of(slot: str) -> str:
    """The indicator that a field is about; empty if none.

    >>> indicator_of("ind_rage_click_yes"), indicator_of("n_7"), indicator_of("long_yes")
    ('rage_click', 'score', '')
    """
    if slot.startswith("ind_"):
        return slot[4:].rpartition("_")[0]
    return SCORE if slot.startswith("n_") else ""
