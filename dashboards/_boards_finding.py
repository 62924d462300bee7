"""Finding: one claim with its evidence, and the segments around it."""

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

CHOSEN = 'finding=~"$finding"'
PLACE = ('detector="$detector"', 'stage="$stage"')
STREAM = (*PLACE, 'segment="$segment"')
VIEW = 'view="$view"'
STEPS = ('stage="$stage"', 'segment="$segment"')
NONE = "no finding is open: good"
NO_STEPS = "no steps: a finding about leads, or nobody came"
NO_LEADS = "no leads: a finding about the journey"


def finding() -> Json:
    """Build the dashboard."""
    panels = [*_stats(), row("Evidence"), *_evidence(), row("Segments"), *_segments(), row("What else moved"), *_else()]
    about = "One finding: how much changed, since when, against what was expected, and which segments are part of it."
    return dashboard(names.FINDING, about, panels, _variables())


def _variables() -> list[Json]:
    def of(label: str) -> str:
        return f'label_values(trustwatch_open_finding{{finding="$finding"}}, {label})'

    view = 'label_values(trustwatch_open_finding_view{finding="$finding"}, view)'
    return [
        variable("finding", "Finding", "Id of an open finding.", "label_values(trustwatch_open_finding, finding)",
                 many=False),
        variable("detector", "Detector", "What found it; follows from the finding.", of("detector"), many=False),
        variable("stage", "Stage", "Where; follows from the finding.", of("stage"), many=False),
        variable("segment", "Segment", "Who; follows from the finding.", of("segment"), many=False),
        variable("view", "View", "Which of the detector's rates; follows from the finding.", view, many=False),
    ]  # fmt: skip


def _of(what: str) -> str:
    return f"max({series(f'trustwatch_open_finding_{what}', CHOSEN)})"


def _stats() -> list[Json]:
    who = f"max by (stage, segment, direction, owner) ({series('trustwatch_open_finding', CHOSEN)})"
    change = f"{_of('after')} / ({_of('before')} > 0) - 1"
    return [
        stat("Where, and which way", "Stage, segment, direction and owner of the finding.", who, "none", empty=NONE,
             width=6, legend="{{stage}}, {{segment}}: {{direction}} ({{owner}})", name_only=True, trace=False),
        stat("Before", "What was observed before the onset; for shares, of all who could have.", _of("before"),
             "percentunit", empty=NONE, decimals=1, trace=False),
        stat("After", "The same as before, but since the onset.", _of("after"), "percentunit", empty=NONE, decimals=1),
        stat("Change", "By how much it changed, of what was before.", change, "percentunit", empty=NONE, decimals=1,
             trace=False),
        stat("Since", "Onset of the change in event time, when it really began.",
             f"{_of('onset_timestamp_seconds')} * 1000", "dateTimeAsIso", empty=NONE, trace=False),
        stat("Found after", "Event time between the onset and the moment it was noticed.",
             f"{_of('detected_timestamp_seconds')} - {_of('onset_timestamp_seconds')}", "s", empty=NONE, decimals=1,
             trace=False),
        stat("Observations", "Observations since the onset; the more, the surer.", _of("observations"), "short",
             empty=NONE, decimals=0, links=[link("Trust overview", names.OVERVIEW)]),
    ]  # fmt: skip


def _evidence() -> list[Json]:
    def now(what: str) -> str:
        return f"max({series(f'trustwatch_detector_{what}', *STREAM, VIEW)})"

    created = eq("milestone", "created")
    return [
        trend("Observed and expected", "The watched rate of late, what the baseline expects at this hour with its 95 %"
              " interval, and before and after as the finding tells them.",
              [(now("expected_high"), "expected, high"), (now("expected_low"), "expected, low"),
               (now("expected"), "expected"), (now("observed"), "observed"), (_of("before"), "before"),
               (_of("after"), "after")], "percentunit", width=24, height=10, empty=NONE, least=None,
              overrides=[styled("expected, high", color="light-blue", band="expected, low", width=0),
                         styled("expected, low", color="light-blue", width=0),
                         styled("expected", color="blue", dash=True), styled("observed", color="dark-red", width=2),
                         styled("before", color="green", dash=True), styled("after", color="orange", dash=True)]),
        trend("Evidence", "Score of this stage and segment: 0 is fine, 50 % is where it alerts.",
              [(f"max({series('trustwatch_detector_score_ratio', *STREAM)})", "score")], "percentunit",
              steps=[(0.5, "red")], most=1.0, empty=NONE),
        trend("Volume", "Closed steps a second here, or leads an hour: a change of volume explains no change of a rate,"
              " but it makes it more or less sure.",
              [(f"sum({rate('trustwatch_steps_total', *STEPS)})", "steps a second"),
               (f"sum({rate('trustwatch_leads_total', STEPS[1], created)}) * 3600", "leads an hour")],
              "short", empty="nobody came"),
    ]  # fmt: skip


def _segments() -> list[Json]:
    by = "stage, segment"

    def value(what: str, *matchers: str) -> str:
        return f"max by ({by}) ({series(f'trustwatch_detector_{what}', *PLACE, *matchers)})"

    siblings = url(names.HESITATION, f"var-stage={cell('Stage')}&var-segment={cell('Segment')}")
    return [
        table("Segments of this stage", "All segments that the detector watches at this stage: which of them share the"
              " change, and which do not. Empty while no finding is chosen.",
              [value("score_ratio"), value("observed", VIEW), value("expected", VIEW),
               f"{value('observed', VIEW)} / ({value('expected', VIEW)} > 0)", value("level")],
              [Column("stage", "Stage"), Column("segment", "Segment", url=siblings),
               Column("B", "Observed", "percentunit", decimals=1), Column("C", "Expected", "percentunit", decimals=1),
               Column("D", "Against baseline", "percentunit", decimals=1),
               Column("A", "Score", "percentunit", gauge=1.0),
               Column("E", "Level (3 alerts)", "short", steps=[(2, "orange"), (3, "red")])],
              empty=NONE, width=14, height=10, sort=("Score", True)),
        bars("Evidence by segment", "Score of the segments of this stage: 50 % is where the detector alerts.",
             f"sort_desc(topk(12, {value('score_ratio')}))", "{{segment}}", "percentunit",
             steps=[(0.3, "orange"), (0.5, "red")], most=1.0, empty=NONE, width=10, height=10),
    ]  # fmt: skip


def _else() -> list[Json]:
    steps = f"on () group_left () (sum({rate('trustwatch_steps_total', *STEPS)}) > 0)"
    judged = f"on () group_left () (sum({rate('trustwatch_judged_steps_total', *STEPS)}) > 0)"
    lead = (STEPS[1], eq("horizon", "accept"))
    return [
        trend("How steps end", "Share of the closed steps here that advanced, returned or were dropped.",
              [(f"sum by (outcome) ({rate('trustwatch_steps_total', *STEPS)}) / {steps}", "{{outcome}}")],
              "percentunit", most=1.0, empty=NO_STEPS, width=8),
        trend("Micro-signals here", "Share of the judged steps here that showed each micro-signal.",
              [(f"sum by (signal) ({rate('trustwatch_micro_signals_total', *STEPS)}) / {judged}", "{{signal}}")],
              "percentunit", empty=NO_STEPS, width=8),
        trend("Leads here: accepted by score", "Share accepted of leads whose horizon has just passed, by band of the"
              " score; empty for a finding about the journey.",
              [(share(f"sum by (band) ({rate('trustwatch_lead_outcomes_total', *lead, eq('reached', 'yes'))})",
                      f"sum by (band) ({rate('trustwatch_lead_outcomes_total', *lead)})"), "score {{band}}")],
              "percentunit", most=1.0, empty=NO_LEADS, width=8),
    ]  # fmt: skip
