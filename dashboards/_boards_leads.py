"""Leads: do scores still mean what they meant, and are leads followed up."""

from __future__ import annotations

from dashboards import names
from dashboards._panels import (
    Column,
    Json,
    bars,
    dashboard,
    eq,
    heatmap,
    link,
    or_zero,
    rate,
    rise,
    row,
    series,
    share,
    stat,
    table,
    trend,
    variable,
)

SEGMENT = 'segment=~"$segment"'
ONE = 'segment!~".*,.*"'
"""Everyone, and segments of one label."""
OUTCOMES, LEADS, SCORE = "trustwatch_lead_outcomes_total", "trustwatch_leads_total", "trustwatch_lead_score"
NONE = "no leads in this segment and time range"
WAITING = "no horizon has passed in this time range"


def leads() -> Json:
    """Build the dashboard."""
    panels = [*_stats(), row("What comes in"), *_scores(), row("What becomes of it"), *_outcomes(), row("Sources"),
              *_sources()]  # fmt: skip
    variables = [
        variable("segment", "Segment", "Which leads: all of them, or those of one source or model.",
                 f"label_values({SCORE}_count, segment)", many=False, value="all"),
    ]  # fmt: skip
    about = "Whether lead scores still mean what they meant, by source, and whether leads are followed up in time."
    return dashboard(names.LEADS, about, panels, variables)


def _reached(horizon: str, window: str, *matchers: str, by: str = "segment") -> str:
    grow = rise if window == "range" else rate
    some, all_ = (f"sum by ({by}) ({grow(OUTCOMES, eq('horizon', horizon), *more)})"
                  for more in ((eq("reached", "yes"), *matchers), matchers))  # fmt: skip
    return share(some, all_)


def _mean(window: str, segment: str) -> str:
    grow = rise if window == "range" else rate
    return share(f"sum by (segment) ({grow(f'{SCORE}_sum', segment)})",
                 f"sum by (segment) ({grow(f'{SCORE}_count', segment)})")  # fmt: skip


def _stats() -> list[Json]:
    def count(milestone: str) -> str:
        return f"sum({rise(LEADS, SEGMENT, eq('milestone', milestone))})"

    found = series("trustwatch_open_finding", eq("detector", "lead_score_drift"))
    return [
        stat("Leads created", "Leads that appeared in the time range.", count("created"), "short", empty=NONE,
             decimals=0, instant=True),
        stat("Handed over", "Leads handed over to sales in the time range.", count("handed_over"), "short", empty=NONE,
             decimals=0, instant=True),
        stat("Mean score", "Mean score of the leads scored in the time range, on the score's own scale.",
             _mean("range", SEGMENT), "none", empty=NONE, decimals=1, instant=True),
        *_reached_stats(),
        stat("Waiting for a horizon", "Leads of which is not known yet what becomes of them, all segments together.",
             f"sum({series('trustwatch_open_leads')})", "short", empty="no worker", decimals=0),
        stat("Open findings here", "Open findings of lead-score drift.", or_zero(f"count({found})"), "short",
             steps=[(1, "orange")], empty="no worker", links=[link("Trust overview", names.OVERVIEW)]),
    ]  # fmt: skip


def _reached_stats() -> list[Json]:
    reached = {
        "Touched": ("touch", "sales had touched", "leads.touch_horizon_days"),
        "Accepted": ("accept", "sales had accepted", "leads.acceptance_horizon_days"),
        "Won": ("win", "were won", "leads.conversion_horizon_days"),
    }
    return [
        stat(title, f"Share of leads that {what} by their horizon, of those whose horizon ({knob}) passed in the time"
             " range.", _reached(horizon, "range", SEGMENT), "percentunit", empty=WAITING, decimals=1, instant=True)
        for title, (horizon, what, knob) in reached.items()
    ]  # fmt: skip


def _scores() -> list[Json]:
    buckets = f"sum by (le) ({rate(f'{SCORE}_bucket', SEGMENT)})"
    names_of = {0.9: "highest tenth above", 0.5: "median", 0.1: "lowest tenth below"}
    quantiles = [(f"histogram_quantile({q}, {buckets})", name) for q, name in names_of.items()]
    milestones = f"sum by (milestone) ({rate(LEADS, SEGMENT)}) * 3600"
    return [
        heatmap("Score distribution", "Leads scored a second by score: the darker, the more; a dark band that moves is"
                " a score that no longer means what it meant.", buckets, "none", empty=NONE),
        trend("Score quantiles", "Median, lowest and highest tenth of the scores.", quantiles, "none", empty=NONE),
        trend("Milestones", "Leads an hour that reach each milestone of their journey.",
              [(milestones, "{{milestone}}")], "short", empty=NONE),
        trend("Mean score by source", "Mean score of each source and model; more for the same acceptance is inflation.",
              [(_mean("rate", ONE), "{{segment}}")], "none", empty="no leads in this time range"),
    ]  # fmt: skip


def _outcomes() -> list[Json]:
    scored = 'band!="none"'
    return [
        bars("Acceptance at a given score", "Share accepted of the leads of each band of the score scale, in the time"
             " range: it should rise with the score.",
             f"sort({_reached('accept', 'range', SEGMENT, scored, by='band')})",
             "score {{band}}", "percentunit", empty=WAITING, most=1.0),
        trend("Acceptance at a given score over time", "Share accepted by band of the score scale, of leads whose"
              " horizon has just passed: a band that falls is a score that lost its meaning.",
              [(_reached("accept", "rate", SEGMENT, scored, by="band"), "score {{band}}")], "percentunit", most=1.0,
              empty=WAITING),
        trend("Touched in time by source", "Share of leads that sales had touched within the horizon, by source: it"
              " falls where nobody follows up.", [(_reached("touch", "rate", ONE), "{{segment}}")], "percentunit",
              most=1.0, empty=WAITING),
        trend("Accepted by source", "Share of leads that sales had accepted within the horizon, by source.",
              [(_reached("accept", "rate", ONE), "{{segment}}")], "percentunit", most=1.0, empty=WAITING),
    ]  # fmt: skip


def _sources() -> list[Json]:
    def count(milestone: str) -> str:
        return f"sum by (segment) ({rise(LEADS, ONE, eq('milestone', milestone))})"

    drift = eq("detector", "lead_score_drift")
    score = f"max by (segment) ({series('trustwatch_detector_score_ratio', drift, ONE)})"
    return [
        table("Sources", "Each source and model in the time range: how many leads, how they are scored, and what"
              " becomes of them; volume stands beside the value that it should bring. Empty without leads.",
              [count("scored"), count("handed_over"), _mean("range", ONE), _reached("touch", "range", ONE),
               _reached("accept", "range", ONE), _reached("win", "range", ONE), score],
              [Column("segment", "Segment"), Column("A", "Scored", "short"),
               Column("B", "Handed over", "short"), Column("C", "Mean score", "none", decimals=1),
               Column("D", "Touched", "percentunit", decimals=1), Column("E", "Accepted", "percentunit", decimals=1),
               Column("F", "Won", "percentunit", decimals=1),
               Column("G", "Evidence of drift", "percentunit", gauge=1.0)],
              empty=NONE, sort=("Scored", True)),
    ]  # fmt: skip
