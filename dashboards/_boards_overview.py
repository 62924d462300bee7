"""Trust overview: is anything wrong, what got worse, where, and can the alarms be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards import names
from dashboards._alert_recording import HELD_COUNT
from dashboards._panels import (
    Column,
    Json,
    bars,
    cell,
    dashboard,
    eq,
    link,
    or_zero,
    rate,
    row,
    series,
    share,
    stat,
    styled,
    table,
    trend,
    url,
    variable,
)
from detectors._base import Detector

DETECTOR = 'detector=~"$detector"'
STAGE = 'stage=~"$stage"'
NOW = f"scalar(max({series('trustwatch_watermark_timestamp_seconds', eq('stage', 'watch'))}))"
"""Event time that was judged last: the right now for onsets, also while old events are replayed."""
FINDING = "detector, kind, stage, segment, direction, finding"
QUIET = "nothing is open: good"
OPEN_FINDING = url(names.FINDING, f"var-finding={cell('Finding')}")


def overview(detectors: Mapping[str, type[Detector[Any, Any]]]) -> Json:
    """Build the dashboard; each detector has a panel of its own."""
    own = [_detector(name, cls) for name, cls in detectors.items()]
    panels = [*_stats(), row("Trends"), *_trends(), row("Confidence and its price"), *_confidence(), row("Detectors"),
              *_widths(own), row("Details"), *_details()]  # fmt: skip
    variables = [
        variable("detector", "Detector", "What looks for erosion.",
                 "label_values(trustwatch_detector_observations_total, detector)"),
        variable("stage", "Stage", "Stages of the journey, and leads.",
                 'label_values(trustwatch_detector_score_ratio{detector=~"$detector"}, stage)'),
    ]  # fmt: skip
    about = "Where customers lose trust: open findings, what got worse, and whether the alarms keep their promise."
    return dashboard(names.OVERVIEW, about, panels, variables)


def _open(*matchers: str) -> str:
    return series("trustwatch_open_finding", DETECTOR, STAGE, *matchers)


def _against(detector: str, view: str, pick: str) -> str:
    matchers = (f'detector="{detector}"', f'view="{view}"', 'segment="all"', STAGE)
    observed, expected = (series(f"trustwatch_detector_{what}", *matchers) for what in ("observed", "expected"))
    return f"{pick}(max by (stage) ({observed}) / max by (stage) ({expected}))"


def _stats() -> list[Json]:
    worse = f"count({_recent()})"
    applied = 'outcome!="duplicate"'
    accepted = share(f"sum({rate('trustwatch_events_total', eq('outcome', 'applied'))})",
                     f"sum({rate('trustwatch_events_total', applied)})")  # fmt: skip
    false = f"sum({series('trustwatch_false_pages_observed_per_week', eq('severity', 'page'))})"
    return [
        stat("Open findings", "Changes that detectors claim right now, better ones included.",
             or_zero(f"count({_open()})"), "short", steps=[(1, "yellow")], empty="no worker"),
        stat("Open pages", "Open findings for the worse that are urgent enough to wake someone.",
             or_zero(f"count({_open(eq('severity', 'page'), eq('direction', 'worse'))})"), "short", steps=[(1, "red")],
             empty="no worker"),
        stat("Open tickets", "Open findings for the worse that can wait for working hours.",
             or_zero(f"count({_open(eq('severity', 'ticket'), eq('direction', 'worse'))})"), "short",
             steps=[(1, "orange")], empty="no worker"),
        stat("Got worse this week", "Open findings for the worse that began within the last 7 days of event time.",
             or_zero(worse), "short", steps=[(1, "orange")], empty="no worker"),
        stat("Advance, weakest stage", "Advance rate of the early stage that lost most, against its baseline; 100 % is"
             " normal.", _against("early_dropoff", "at_all", "min"), "percentunit",
             steps=[(float("-inf"), "red"), (0.8, "orange"), (0.95, "green")], empty="learning", decimals=1),
        stat("Hesitation, worst stage", "Share of steps with a micro-signal in the stage that gained most, against its"
             " baseline; 100 % is normal.", _against("hesitation", "micro_signals", "max"), "percentunit",
             steps=[(1.1, "orange"), (1.3, "red")], empty="learning", decimals=1),
        stat("False pages a week", "Pages of the last 28 days that were over by themselves soon after, a week; the"
             " budget is false_pages_per_week.", false, "short", steps=[(1, "orange"), (2, "red")], empty="no worker",
             decimals=2),
        stat("Events understood", "Share of consumed events, without duplicates, that were taken up: less means that"
             " the data, not the customers, changed.", accepted, "percentunit",
             steps=[(float("-inf"), "red"), (0.95, "orange"), (0.99, "green")], empty="no events", decimals=2,
             links=[link("Data trust", names.DATA)]),
    ]  # fmt: skip


def _recent() -> str:
    onset = series("trustwatch_open_finding_onset_timestamp_seconds", DETECTOR, STAGE, 'direction="worse"')
    return f"{onset} > {NOW} - 7 * 86400"


def _trends() -> list[Json]:
    pages = {what: f"sum by (severity) ({series(f'trustwatch_{what}_per_week')})"
             for what in ("false_pages_expected", "false_pages_observed", "pages_observed")}  # fmt: skip
    budget = f"max({series('trustwatch_false_pages_budget_per_week')})"
    return [
        trend("Open findings by severity", "How many findings were open; page and ticket are for the worse, none is too"
              " small to tell anyone or for the better. Empty while nothing is open.",
              [(f"sum by (severity) ({_open()})", "{{severity}}")], "short", stack=True, empty=QUIET, width=8,
              overrides=[styled("page", color="red"), styled("ticket", color="orange"), styled("none", color="blue")]),
        trend("False pages: budget and observed", "False pages a week that the watched streams may give, those of the"
              " last 28 days, and all pages; observed should stay below the budget.",
              [(budget, "budget of each severity"), (pages["false_pages_expected"], "allowed, {{severity}}"),
               (pages["false_pages_observed"], "observed false, {{severity}}"),
               (pages["pages_observed"], "all, {{severity}}")], "short", width=8,
              overrides=[styled("budget.*", color="red", dash=True)]),
        trend("Findings held back", "Open findings for the worse that nobody is told of, because tracking is broken or"
              " a deploy was just made; all at 0 is normal.",
              [(f'max by (reason) ({HELD_COUNT}{{reason!=""}})', "{{reason}}")], "short", width=8,
              empty="the recording rules are not loaded"),
    ]  # fmt: skip


def _confidence() -> list[Json]:
    index, low, high, usual, change = (
        f"max by (segment) ({series(f'trustwatch_confidence_{what}')})"
        for what in ("index", "low", "high", "baseline", "change")
    )
    whole = [
        f"max({series(f'trustwatch_confidence_{what}', eq('segment', 'all'))})" for what in ("index", "low", "high")
    ]
    parts = f"max by (stage, indicator) ({series('trustwatch_confidence_part', eq('segment', 'all'))})"
    price = {when: f"max by (segment, what, of) ({series('trustwatch_ledger_price', eq('when', when))})"
             for when in ("now", "before")}  # fmt: skip
    traded = f"max by (segment, what, of) ({series('trustwatch_ledger_traded')})"
    learning = "learning: it takes a week"
    return [
        trend("Confidence index", "How far people move forward with clarity in the whole company, with its interval;"
              " 50 is usual.",
              [(whole[0], "index"), (whole[1], "low"), (whole[2], "high")], "none", width=8,
              most=100.0, empty=learning, overrides=[styled("high", band="low", color="blue", width=0),
                                                     styled("low", color="blue", width=0)]),
        trend("What moved the confidence index", "Points by which each stage and indicator moved it in the"
              " whole company; they sum to it, and below 0 confidence is lost.",
              [(f"{parts} != 0", "{{stage}}: {{indicator}}")], "none", width=8, least=None, empty=learning),
        trend("Gained and its cost", "What the whole company gained by volume in the time range, and what it cost in"
              " people, a second.",
              [(f"sum by (what) ({rate('trustwatch_ledger_gained_total', eq('segment', 'all'))})", "gained: {{what}}"),
               (f"sum by (what) ({rate('trustwatch_ledger_cost_total', eq('segment', 'all'))})", "cost: {{what}}")],
              "cps", width=8, empty="nothing counted yet"),
        table("Confidence by segment", "The index of each segment with its interval, what is usual for it, and the"
              " change; the lowest first.", [index, low, high, usual, change],
              [Column("segment", "Segment"),
               Column("A", "Index", "none", steps=[(float("-inf"), "red"), (40, "orange"), (47, "green")], decimals=1),
               Column("B", "From", "none", decimals=1), Column("C", "To", "none", decimals=1),
               Column("D", "Usual", "none", decimals=1), Column("E", "Change", "none", decimals=1)],
              empty=learning, width=12, sort=("Index", False)),
        table("Price of what was gained", "Cost by 1,000 gained over the last week and over the four weeks before;"
              " traded is 1 where volume and its price rose beyond chance.", [price["now"], price["before"], traded],
              [Column("segment", "Segment"), Column("what", "Cost"), Column("of", "Of"),
               Column("A", "Now", "short", decimals=1), Column("B", "Before", "short", decimals=1),
               Column("C", "Traded", "none", steps=[(1, "red")], decimals=0)],
              empty="nothing gained yet", width=12, sort=("Traded", True)),
    ]  # fmt: skip


def _detector(name: str, cls: type[Detector[Any, Any]]) -> Json:
    score = series("trustwatch_detector_score_ratio", eq("detector", name), STAGE)
    worst = f"topk(5, max by (stage, segment) (max_over_time({score}[$__range] @ end())))"  # the same five all along
    about = (cls.__doc__ or "").strip().partition("\n")[0]
    panel = trend(
        f"{cls.title}: most suspicious segments",
        f"{about} The five segments with the most evidence for it in the time range: 0 is fine, 50 % is where it"
        " alerts. Near 0 while all is as usual.",
        [(f"max by (stage, segment) ({score}) and on (stage, segment) {worst}", "{{stage}}, {{segment}}")],
        "percentunit", steps=[(0.5, "red")], most=1.0, empty="nothing watched yet",
    )  # fmt: skip
    return panel | {"id": names.panel_id(name), "links": [link("Hesitation and drop-off", names.HESITATION)]}


def _widths(panels: list[Json]) -> list[Json]:
    """Three in a line; the last line is filled."""
    for i, panel in enumerate(panels):
        left = len(panels) - i // 3 * 3
        panel["gridPos"]["w"] = 24 // min(left, 3)
    return panels


def _details() -> list[Json]:
    score = series("trustwatch_detector_score_ratio", DETECTOR, STAGE)
    values = [f"max by ({FINDING}) ({series(f'trustwatch_open_finding_{what}', DETECTOR, STAGE)})"
              for what in ("before", "after", "observations", "score_ratio")]  # fmt: skip
    onset = f"max by ({FINDING}) ({series('trustwatch_open_finding_onset_timestamp_seconds', DETECTOR, STAGE)}) * 1000"
    columns = [
        Column("finding", "Finding", url=OPEN_FINDING), Column("detector", "Detector"), Column("kind", "Kind"),
        Column("stage", "Stage"), Column("segment", "Segment"), Column("direction", "Direction"),
        Column("severity", "Severity"), Column("owner", "Owner"), Column("B", "Since", "dateTimeAsIso"),
        Column("C", "Before", "percentunit", decimals=1), Column("D", "After", "percentunit", decimals=1),
        Column("E", "Observations", "short", decimals=0), Column("F", "Score", "percentunit", gauge=1.0),
    ]  # fmt: skip
    level = f"max by ({FINDING}, severity, owner) ({_open()})"
    worse = series("trustwatch_open_finding_after", DETECTOR, STAGE, eq("direction", "worse"))
    before = series("trustwatch_open_finding_before", DETECTOR, STAGE)
    loss = f"max by ({FINDING}) ({worse}) / (max by ({FINDING}) ({before}) > 0) - 1"
    return [
        table("Open findings, one by one", "Every open finding with its owner; a row leads to all about it. Empty while"
              " nothing is open.", [level, onset, *values], columns, empty=QUIET, sort=("Score", True)),
        table("What got worse this week", "Open findings for the worse that began within the last 7 days of event time,"
              " and by how much; empty when nothing did.",
              [f"max by ({FINDING}) ({_recent()}) * 1000", f"{loss} and on (finding) {_recent()}"],
              [Column("finding", "Finding", url=OPEN_FINDING), Column("detector", "Detector"),
               Column("stage", "Stage"), Column("segment", "Segment"), Column("A", "Since", "dateTimeAsIso"),
               Column("B", "Change", "percentunit", decimals=1)], empty="nothing got worse: good", width=12,
              sort=("Since", True)),
        bars("Worst segments", "The ten stages and segments with the most evidence of erosion: 50 % is where a detector"
             " alerts. At 0 while all is as usual.",
             f"sort_desc(topk(10, max by (detector, stage, segment) ({score})))",
             "{{detector}}: {{stage}}, {{segment}}", "percentunit", steps=[(0.3, "orange"), (0.5, "red")],
             empty="nothing watched yet", most=1.0),
    ]  # fmt: skip
