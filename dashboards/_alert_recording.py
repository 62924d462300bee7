"""Recording rules: what alerts compare, and why trust alerts are held back; each builds on those before it.

They live in Prometheus, also where Grafana alerts: it runs the rules of one group at the same time, so that one could
not build on another there.
"""

from __future__ import annotations

from typing import Final

from dashboards._alert_spec import AlertSpec, Recording, duration

SILENT_ITEMS: Final = 30
"""A source is called silent where so many items are usual in ten minutes and none came: by chance once in 10¹³."""
FEW_ITEMS: Final = 50
"""Of fewer items in ten minutes no share is judged."""
BROKEN_SHARE: Final = 0.05
"""Share of items that are dead letters or late, from which tracking is taken for broken."""
JUMP: Final = 5
"""Times the share of the day before, from which a share is a jump."""
TOLD_MEMORY_S: Final = 3600
"""A finding that was told stays told through a gap of this length: a restart of a worker, broken tracking."""
FINDING: Final = ("detector", "kind", "stage", "segment", "severity", "owner", "finding")
"""Labels of a trust alert."""

WORSE: Final = "trustwatch:open_finding:worse"
TOLD: Final = "trustwatch:open_finding:told"
SILENT: Final = "trustwatch:source_silent:usual_items"
JUMPED: Final = "trustwatch:ingest_outcome:jump10m"
HELD: Final = "trustwatch:hold_back:bool"
LOADED: Final = "trustwatch:rules:loaded"
_ITEMS: Final = "trustwatch_ingest_items_total"
_DEPLOYED: Final = 'trustwatch_control_events_total{type="deployed"}'


def recordings(spec: AlertSpec) -> tuple[Recording, ...]:
    """All recording rules, in their order."""
    return (*_tracking(), *_hold(spec), *_findings(), *_pipeline())


def _tracking() -> tuple[Recording, ...]:
    ten, usual = "trustwatch:ingest_items:increase10m", "trustwatch:ingest_items:usual10m"
    share, day = "trustwatch:ingest_outcome:share10m", "trustwatch:ingest_outcome:share_day_before"
    usual_by = {
        "hour": f"sum by (topic) (increase({_ITEMS}[1h] offset 10m)) / 6",
        "day": f"min_over_time({ten}[1h] offset 23h30m)",
        "week": f"min_over_time({ten}[1h] offset 167h30m)",
    }
    least = " or ".join(f'label_replace({expr}, "by", "{by}", "", "")' for by, expr in usual_by.items())
    return (
        Recording(ten, f"sum by (topic) (increase({_ITEMS}[10m]))", "Items of a source topic in ten minutes."),
        Recording(usual, f"min by (topic) ({least})",
                  "What is usual in ten minutes: as in the hour before, or the least of the hour around this time"
                  " yesterday or a week ago, whichever is less: a night or a Sunday is no silence."),
        Recording(SILENT, f"({usual} > {SILENT_ITEMS}) and on (topic) ({ten} == 0)"
                  ' unless on () (max(trustwatch_lag_seconds{stage="ingest"}) > 60)',
                  "Source topics that usually send and now do not, with how much is usual. Not while ingest itself is"
                  " behind: then it is us, not them."),
        Recording(share, f'sum by (topic, outcome) (increase({_ITEMS}{{outcome!="accepted"}}[10m]))'
                  f" / on (topic) group_left () ({ten} > {FEW_ITEMS})",
                  "Share of the items of a source topic that are dead letters, or late."),
        Recording(day, f'sum by (topic, outcome) (increase({_ITEMS}{{outcome!="accepted"}}[1d] offset 1d))'
                  f" / on (topic) group_left () (sum by (topic) (increase({_ITEMS}[1d] offset 1d)) > {FEW_ITEMS})",
                  "The same on the day before the last 24 hours: what is broken for some hours is not usual yet."),
        Recording(JUMPED, f"{share} unless on (topic, outcome) ({share} <= {JUMP} * {day})",
                  f"Such shares where they are more than {JUMP} times what they were the day before."),
        Recording("trustwatch:tracking_broken:count",
                  f"(count({SILENT}) or vector(0)) + (count({JUMPED} > {BROKEN_SHARE}) or vector(0))",
                  "In how many ways tracking is broken now."),
    )  # fmt: skip


def _hold(spec: AlertSpec) -> tuple[Recording, ...]:
    after = duration(spec.after_broken_tracking_s)
    tracking = f"max_over_time(trustwatch:tracking_broken:count[{after}]) > bool 0"
    silence = duration(spec.deploy_silence_s)
    # The first deploy of a name makes its series: `increase` does not see it, so "was not there before" is asked, too.
    rises = f"sum by (what) (increase({_DEPLOYED}[{silence}])) > 0"
    is_new = f"(sum by (what) ({_DEPLOYED}) > 0 unless sum by (what) ({_DEPLOYED} offset {silence}))"
    deploys = f"count({rises} or {is_new}) > bool 0 or vector(0)" if spec.deploy_silence_s else "vector(0)"
    return tuple(
        Recording(HELD, expr, why, (("reason", reason),))
        for expr, reason, why in (
            (tracking, "tracking", f"1 while tracking is broken, and {after} longer."),
            (deploys, "deploy", f"1 for {silence} after a deploy."),
        )
    )


def _findings() -> tuple[Recording, ...]:
    # Where an indicator will have to be proven before it may alert (issue 7), that becomes a condition of WORSE.
    worse = f'max by ({", ".join(FINDING)}) (trustwatch_open_finding{{direction="worse",severity=~"page|ticket"}})'
    untold = f"count({WORSE} unless on (finding) last_over_time({TOLD}[{duration(TOLD_MEMORY_S)}]))"
    return (
        Recording(WORSE, worse, "Open findings for the worse, once each, whichever worker owns them."),
        Recording(TOLD, f"({WORSE} unless on () (sum({HELD}) > 0))"
                  f" or ({WORSE} and on (finding) last_over_time({TOLD}[{duration(TOLD_MEMORY_S)}]))",
                  "Those that alerts tell: none that came while alerts are held back; what was told before stays, so"
                  " that tracking that breaks later takes no alert back."),
        Recording("trustwatch:findings_held_back:count", f"{HELD} * on () group_left () ({untold} or vector(0))",
                  "Open findings that nobody is told of, by the reason why."),
        Recording(LOADED, "vector(1)", "1 while these rules are evaluated; Grafana asks for it before it trusts them."),
    )  # fmt: skip


def _pipeline() -> tuple[Recording, ...]:
    false, budget = "trustwatch_false_pages_observed_per_week", "trustwatch_false_pages_budget_per_week"
    shares = (
        Recording(f"trustwatch:{name}:share1h",
                  f'sum by (topic) (increase({_ITEMS}{{outcome="{outcome}"}}[1h]))'
                  f" / (sum by (topic) (increase({_ITEMS}[1h])) > 100)",
                  f"Share of a source topic's items of the last hour that are {what}.")
        for name, outcome, what in (("dead_letters", "dead_letter", "dead letters"), ("late_items", "late", "late"))
    )  # fmt: skip
    return (
        Recording("trustwatch:lag_seconds:max", "max by (stage) (trustwatch_lag_seconds)", "The worst worker's lag."),
        *shares,
        Recording("trustwatch:checkpoint_age_seconds:working",
                  "min by (instance, stage) (trustwatch_checkpoint_age_seconds)"
                  " and on (instance, stage) (rate(trustwatch_stage_messages_total[5m]) > 0)",
                  "Age of a worker's newest checkpoint, while it works; an idle one writes none."),
        Recording("trustwatch:watermark:changes10m",
                  'sum by (partition) (changes(trustwatch_watermark_timestamp_seconds{stage="watch"}[10m]))'
                  ' and on () (sum(rate(trustwatch_stage_messages_total{stage="sessionize"}[10m])) > 0)',
                  "How often the time up to which all is judged moved, while events come in."),
        Recording("trustwatch:false_pages:budget_ratio",
                  f'sum by (budget) (label_replace({false}, "budget", "$1", "severity", "(.*)"))'
                  f" / on () group_left () max({budget})",
                  "False pages (tickets) observed, as a multiple of what they may be."),
    )  # fmt: skip
