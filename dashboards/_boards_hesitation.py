"""Hesitation and drop-off: how people move through the journey, and where they get stuck."""

from __future__ import annotations

from dashboards import names
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
    rise,
    row,
    series,
    share,
    stat,
    table,
    trend,
    url,
    variable,
)

STAGE, SEGMENT = 'stage=~"$stage"', 'segment="$segment"'
HERE = (STAGE, SEGMENT)
ADVANCED = ('by="at_all"', 'advanced="yes"')
LEARNING = "learning: nothing is expected yet"
FEW = "no steps in this segment and time range"
COHORT = "trustwatch_cohort_steps_total"
ANY = 'segment!=""'


def hesitation() -> Json:
    """Build the dashboard."""
    panels = [
        *_stats(), row("Journey"), *_journey(), row("Hesitation"), *_hesitation(),
        row("Model of hesitation"), *_model(), row("Segments"), *_segments(),
    ]  # fmt: skip
    variables = [
        variable("stage", "Stage", "Stages of the journey.", "label_values(trustwatch_steps_total, stage)"),
        variable("segment", "Segment", "Who: everyone, or those with one label.",
                 'label_values(trustwatch_steps_total{stage=~"$stage"}, segment)', many=False, value="all"),
    ]  # fmt: skip
    about = "How many get past each stage of the journey and how many hesitate, against what is normal at this hour."
    return dashboard(names.HESITATION, about, panels, variables)


def _rates(part: str, whole: str, by: str = "stage") -> str:
    return share(f"sum by ({by}) ({rate(part, *HERE)})", f"sum by ({by}) ({rate(whole, *HERE)})")


def _total(part: str, whole: str) -> str:
    return share(f"sum({rate(part, *HERE)})", f"sum({rate(whole, *HERE)})")


def _baseline(what: str, detector: str, view: str, segment: str = SEGMENT) -> str:
    return series(f"trustwatch_detector_{what}", f'detector="{detector}"', f'view="{view}"', STAGE, segment)


def _against(detector: str, view: str) -> str:
    observed, expected = (f"max by (stage) ({_baseline(what, detector, view)})" for what in ("observed", "expected"))
    return f"{observed} / ({expected} > 0)"


def _stats() -> list[Json]:
    reached = share(f"sum({rate(COHORT, *HERE, *ADVANCED)})", f"sum({rate(COHORT, *HERE, eq('by', 'at_all'))})")
    soon = share(f"sum({rate(COHORT, *HERE, eq('by', 'soon'), eq('advanced', 'yes'))})",
                 f"sum({rate(COHORT, *HERE, eq('by', 'soon'))})")  # fmt: skip
    found = series("trustwatch_open_finding", 'detector=~"early_dropoff|hesitation"', STAGE)
    return [
        stat("Steps closed", "Journey steps closed a second in the chosen stages and segment.",
             f"sum({rate('trustwatch_steps_total', *HERE)})", "cps", empty=FEW, decimals=2),
        stat("Advanced at all", "Share of steps that had advanced a session gap after they began.", reached,
             "percentunit", empty=FEW, decimals=1),
        stat("Advanced soon", "Share of steps that had advanced when the last dwell mark had passed.", soon,
             "percentunit", empty=FEW, decimals=1),
        stat("With micro-signals", "Share of judged steps that showed a micro-signal, such as a rage click.",
             _total("trustwatch_signalled_steps_total", "trustwatch_judged_steps_total"), "percentunit", empty=FEW,
             decimals=1),
        stat("Called hesitant", "Share of steps that the stages' models call hesitant, of those they were asked about.",
             _total("trustwatch_hesitant_steps_total", "trustwatch_asked_steps_total"), "percentunit",
             empty="no model speaks yet", decimals=1),
        stat("Unlike any before", "Share of steps whose behaviour is unlike nearly all before; 1 % is normal.",
             _total("trustwatch_novel_steps_total", "trustwatch_weighed_steps_total"), "percentunit",
             steps=[(0.02, "orange"), (0.04, "red")], empty="learning", decimals=2),
        stat("Time in a step", "Mean time spent in a closed step.",
             _total("trustwatch_step_dwell_seconds_total", "trustwatch_steps_total"), "s", empty=FEW, decimals=0),
        stat("Open findings here", "Open findings of drop-off and hesitation in the chosen stages.",
             or_zero(f"count({found})"), "short", steps=[(1, "orange")], empty="no worker",
             links=[link("Trust overview", names.OVERVIEW)]),
    ]  # fmt: skip


def _journey() -> list[Json]:
    began = f"sum by (stage) ({rise(COHORT, *HERE, eq('by', 'at_all'))})"
    advanced = f"sum by (stage) ({rise(COHORT, *HERE, *ADVANCED)})"
    expected = f"max by (stage) ({_baseline('expected', 'early_dropoff', 'at_all')})"
    outlived = f"sum by (mark) ({rise('trustwatch_surviving_steps_total', STAGE)})"
    entered = f"sum({rise('trustwatch_entered_steps_total', STAGE)})"
    return [
        table("Journey funnel", "Steps begun by stage in the time range, the share that advanced, and what the baseline"
              " expects now; only early stages have a baseline of it. Empty before the first step has ended.",
              [began, share(advanced, began), expected, _against("early_dropoff", "at_all")],
              [Column("stage", "Stage"), Column("A", "Steps begun", "short"),
               Column("B", "Advanced", "percentunit", gauge=1.0, decimals=1),
               Column("C", "Expected now", "percentunit", decimals=1),
               Column("D", "Now against baseline", "percentunit", decimals=1,
                      steps=[(float("-inf"), "red"), (0.8, "orange"), (0.95, "green")])],
              empty=FEW, width=12, sort=("Steps begun", True)),
        trend("Advance rate against baseline", "Advance rate of late of each early stage, divided by what the baseline"
              " expects at this hour: 100 % is normal, below 80 % something broke.",
              [(_against("early_dropoff", "at_all"), "{{stage}}")], "percentunit", empty=LEARNING,
              steps=[(float("-inf"), "red"), (0.8, "transparent")], least=None),
        trend("Advance rate by stage", "Share of the steps of each stage that had advanced a session gap after they"
              " began.", [(share(f"sum by (stage) ({rate(COHORT, *HERE, *ADVANCED)})",
                                 f"sum by (stage) ({rate(COHORT, *HERE, eq('by', 'at_all'))})"), "{{stage}}")],
              "percentunit", empty=FEW, most=1.0),
        bars("Survival to the dwell marks", "Share of all steps begun, in whole stages and the time range, that were"
             " still open after so many seconds: it falls slowly where people are stuck.",
             f"sort_desc({outlived} / on () group_left () ({entered} > 0))", "after {{mark}} s", "percentunit",
             empty="no steps in this time range", most=1.0),
    ]  # fmt: skip


def _hesitation() -> list[Json]:
    views = {"micro_signals": "with a micro-signal", "model": "called so by the model", "novelty": "unlike any before"}
    against = [(_against("hesitation", view), f"{{{{stage}}}}, {name}") for view, name in views.items()]
    judged = f"sum({rate('trustwatch_judged_steps_total', *HERE)})"
    signals = f"sum by (signal) ({rate('trustwatch_micro_signals_total', *HERE)}) / on () group_left () ({judged} > 0)"
    return [
        trend("Hesitation by stage", "Share of the judged steps of each stage that showed a micro-signal.",
              [(_rates("trustwatch_signalled_steps_total", "trustwatch_judged_steps_total"), "{{stage}}")],
              "percentunit", empty=FEW),
        trend("Hesitation against baseline", "Each of the three rates of late, divided by what its baseline expects at"
              " this hour: 100 % is normal.", against, "percentunit", steps=[(1.5, "red")], empty=LEARNING, least=None),
        trend("Micro-signals", "Share of the judged steps that showed each micro-signal; a step can show several.",
              [(signals, "{{signal}}")], "percentunit", empty=FEW),
        trend("Time in a step by stage", "Mean time spent in closed steps, by stage.",
              [(_rates("trustwatch_step_dwell_seconds_total", "trustwatch_steps_total"), "{{stage}}")], "s", empty=FEW),
    ]  # fmt: skip


def _model() -> list[Json]:
    def by_stage(metric: str) -> list[tuple[str, str]]:
        return [(f"avg by (stage) ({series(metric, STAGE)})", "{{stage}}")]

    return [
        trend("Who will not advance: AUC", "How well each stage's model tells who will not advance, before it is known;"
              " 0.5 tells nothing.", by_stage("trustwatch_step_model_auc"), "none", most=1.0, least=0.4,
              steps=[(float("-inf"), "red"), (0.55, "transparent")], width=8, empty=LEARNING),
        trend("Lift of the called", "By how much more of the steps called hesitant did not advance than of the others.",
              by_stage("trustwatch_step_model_lift"), "percentunit", width=8, least=None, empty=LEARNING),
        trend("Calibration error", "Distance between what the models said and what came true; a model of 0.05 or less"
              " can be read as a probability.", by_stage("trustwatch_step_model_calibration_error"), "percentunit",
              steps=[(0.1, "orange")], width=8, empty=LEARNING),
    ]  # fmt: skip


def _segments() -> list[Json]:
    by = "stage, segment"

    def value(what: str, detector: str, view: str) -> str:
        return f"max by ({by}) ({_baseline(what, detector, view, ANY)})"

    def ratio(detector: str, view: str) -> str:
        return f"{value('observed', detector, view)} / ({value('expected', detector, view)} > 0)"

    here = url(names.HESITATION, f"var-stage={cell('Stage')}&var-segment={cell('Segment')}")
    return [
        table("Segments against their baselines", "Every stage and segment, its advance rate and hesitation of late,"
              " and both divided by what is expected; a row narrows this dashboard to it. Empty while learning.",
              [value("observed", "early_dropoff", "at_all"), ratio("early_dropoff", "at_all"),
               value("observed", "hesitation", "micro_signals"), ratio("hesitation", "micro_signals")],
              [Column("stage", "Stage"), Column("segment", "Segment", url=here),
               Column("A", "Advanced", "percentunit", decimals=1),
               Column("B", "Advanced, against baseline", "percentunit", decimals=1,
                      steps=[(float("-inf"), "red"), (0.8, "orange"), (0.95, "green")]),
               Column("C", "Hesitant", "percentunit", decimals=1),
               Column("D", "Hesitant, against baseline", "percentunit", decimals=1,
                      steps=[(1.2, "orange"), (1.5, "red")])],
              empty=LEARNING, height=10, sort=("Advanced, against baseline", False)),
    ]  # fmt: skip
