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
TRACKING: Final = "tracking"
"""The stage of findings about the events themselves."""
BROKEN_SHARE: Final = 0.05
"""Share of items that are dead letters or late, from which tracking is broken; below half of it, it is whole again."""
MANY_CASES: Final = 20
"""Of fewer dead letters, or late items, in ten minutes it is not."""
JUMP: Final = 5
"""Times the share of the best day of the week before, from which a share is a jump."""
TOLD_MEMORY_S: Final = 3600
"""A finding that was told stays told through a gap of this length: a restart of a worker, broken tracking."""
FINDING: Final = ("detector", "kind", "stage", "segment", "severity", "owner", "finding")
"""Labels of a trust alert."""

WORSE: Final = "trustwatch:open_finding:worse"
TOLD: Final = "trustwatch:open_finding:told"
SILENT: Final = "trustwatch:source_silent:usual_items"
JUMPED: Final = "trustwatch:ingest_outcome:jump10m"
BROKEN: Final = "trustwatch:ingest_outcome:broken10m"
HELD: Final = "trustwatch:hold_back:bool"
HELD_COUNT: Final = "trustwatch:findings_held_back:count"
ABSENT: Final = "trustwatch:line:absent"
"""There while a stage has no worker or nobody reads: alerts that only follow from that ask for it (`alone`)."""
PARTITIONS: Final = "trustwatch:stage_partitions:count"
LOADED: Final = "trustwatch:rules:loaded"
_ITEMS: Final = "trustwatch_ingest_items_total"
_LATCH: Final = "[5m]"
"""What a recording rule said a moment ago, for those that stay true until something ends them."""
_LAG: Final = "trustwatch_stage_lag_messages"
_DEPLOYED: Final = 'trustwatch_control_events_total{type="deployed"}'


def recordings(spec: AlertSpec) -> tuple[Recording, ...]:
    """All recording rules, in their order."""
    return (*_tracking(), *_hold(spec), *_findings(spec), *_pipeline())


def alone(expr: str) -> str:
    """This, but not while a stage is absent: then WorkerAbsent or IngestAbsent tells it, and this follows from it."""
    return f"({expr}) unless on () {ABSENT}"


def _tracking() -> tuple[Recording, ...]:
    return (*_silence(), *_shares(), Recording(
        "trustwatch:tracking_broken:count", f"(count({SILENT}) or vector(0)) + (count({BROKEN}) or vector(0))",
        "In how many ways tracking is broken now.",
    ))  # fmt: skip


def _silence() -> tuple[Recording, ...]:
    ten, usual = "trustwatch:ingest_items:increase10m", "trustwatch:ingest_items:usual10m"
    days = " or ".join(
        f'label_replace(min_over_time({ten}[1h] offset {offset}), "by", "{by}", "", "")'
        for by, offset in (("day", "23h30m"), ("week", "167h30m"))
    )
    lag = 'max(trustwatch_lag_seconds{stage="ingest"}'
    reads = f"and on () ({lag}) <= 60) and on () ({lag} offset 10m) <= 60)"
    return (
        Recording(ten, f"sum by (topic) (increase({_ITEMS}[10m]))",
                  "Items of a source topic in ten minutes."),
        Recording(usual, f"min by (topic) ({days}) or sum by (topic) (increase({_ITEMS}[1h] offset 10m)) / 6",
                  "What is usual in ten minutes: the least of the hour around this time yesterday or a week ago,"
                  " whichever is less, so that a night or a Sunday is no silence; on the first day the hour before."),
        # Once silent, it is until something comes: what is usual is forgotten while nothing does.
        Recording(SILENT, f"(({usual} > {SILENT_ITEMS}) and on (topic) ({ten} == 0) {reads}"
                  " unless on () (max(trustwatch_send_waiting_seconds) > 30))"
                  f" or (last_over_time({SILENT}{_LATCH}) and on (topic) ({ten} == 0))",
                  "Source topics that usually send and now do not, with how much is usual, until something comes. It"
                  " begins only while ingest reads without delay, and has for ten minutes, and Kafka takes our writes:"
                  " otherwise it is us, not them."),
    )  # fmt: skip


def _shares() -> tuple[Recording, ...]:
    bad, ten = (
        f'sum by (topic, outcome) (increase({_ITEMS}{{outcome!="accepted"}}',
        "trustwatch:ingest_items:increase10m",
    )
    share, day = "trustwatch:ingest_outcome:share10m", "trustwatch:ingest_outcome:share_day_before"
    return (
        Recording(share, f"{bad}[10m])) / on (topic) group_left () ({ten} > {FEW_ITEMS})",
                  "Share of the items of a source topic that are dead letters, or late."),
        Recording(day, f"{bad}[1d] offset 1d))"
                  f" / on (topic) group_left () (sum by (topic) (increase({_ITEMS}[1d] offset 1d)) > {FEW_ITEMS})",
                  "The same on the day before the last 24 hours: what is broken for some hours is not usual yet."),
        Recording(JUMPED, f"{share} unless on (topic, outcome) ({share} <= {JUMP} * min_over_time({day}[7d:1h]))",
                  f"Such shares where they are more than {JUMP} times what they were on the best day of the week"
                  " before: what is broken for a week is usual."),
        Recording(BROKEN, f"(({JUMPED} > {BROKEN_SHARE}) and on (topic, outcome) ({JUMPED} offset 1m > {BROKEN_SHARE})"
                  f" and on (topic, outcome) ({bad}[10m])) >= {MANY_CASES}))"
                  f" or (({JUMPED} > {BROKEN_SHARE / 2}) and on (topic, outcome) last_over_time({BROKEN}{_LATCH}))",
                  f"Such jumps that are above {BROKEN_SHARE:.0%}, of {MANY_CASES} cases at least, for a minute already;"
                  " until they are below half of that."),
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


def _findings(spec: AlertSpec) -> tuple[Recording, ...]:
    memory = f"[{duration(TOLD_MEMORY_S)}]"
    told = f"last_over_time({TOLD}{memory})"
    fresh = f"({WORSE} unless on () (sum({HELD}) > 0))"
    data = f'{WORSE}{{stage="{TRACKING}"}}'  # broken data is why others wait; it never waits itself
    # Deploy after deploy holds nothing back for ever.
    waited = f"({WORSE} and on (finding) last_over_time({WORSE}{_LATCH} offset {duration(spec.deploy_silence_s)}))"
    waited = f'({waited} unless on () ({HELD}{{reason="tracking"}} > 0))'
    # One that moves to another segment ends, and begins there under another id.
    moved = f"({WORSE} and on (detector, kind, stage) ({told} unless on (finding) {WORSE}))"
    parts = [fresh, data, f"({WORSE} and on (finding) {told})", moved, *([waited] if spec.deploy_silence_s else [])]
    untold = f"count({WORSE} unless on (finding) {told})"
    return (
        Recording(WORSE, _worse(memory), "Open findings for the worse, once each, whichever worker owns them. What was"
                  " a page stays one while it is open."),
        Recording(TOLD, " or ".join(parts),
                  "Those that alerts tell: broken data, and of trust none that came while alerts are held back"
                  " (after deploys, each for as long at most). What was told before stays, also in another segment, so"
                  " that tracking that breaks later takes no alert back."),
        Recording(HELD_COUNT, f"{HELD} * on () group_left () ({untold} or vector(0))",
                  "Open findings that nobody is told of, by the reason why."),
        Recording(LOADED, "vector(1)", "1 while these rules are evaluated; Grafana asks for it before it trusts them."),
    )  # fmt: skip


def _worse(memory: str) -> str:
    # Where an indicator will have to be proven before it may alert (issue 7), that becomes a condition here.
    by = ", ".join(FINDING)
    page, ticket = (
        f'max by ({by}) (trustwatch_open_finding{{direction="worse",severity="{severity}"}})'
        for severity in ("page", "ticket")
    )
    paged = f'last_over_time({WORSE}{{severity="page"}}{memory})'
    kept = f'label_replace({ticket} and on (finding) {paged}, "severity", "page", "", "")'
    return f"{page} or {kept} or ({ticket} unless on (finding) {paged})"


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
                  "max by (instance, stage) (trustwatch_checkpoint_age_seconds)",
                  "Age of the oldest checkpoint of a worker's partitions that does not cover all that was applied."),
        Recording(PARTITIONS, "count by (stage) (count by (stage, partition) (trustwatch_stage_lag_messages))",
                  "Partitions of a stage that a worker owns."),
        Recording("trustwatch:stage_partitions:missing",
                  f"max_over_time({PARTITIONS}[1d]) - {PARTITIONS}",
                  "Partitions of a stage that a worker owned within the last day, and none does now."),
        Recording(ABSENT, f"absent({_LAG}{{stage=\"sessionize\"}}) or absent({_LAG}{{stage=\"watch\"}})"
                  " or absent(trustwatch_ingest_frames_total)",
                  "There while a stage has no worker, or nobody reads."),
        Recording("trustwatch:watermark:changes10m",
                  'sum by (partition) (changes(trustwatch_watermark_timestamp_seconds{stage="watch"}[10m]))'
                  ' and on () (sum(rate(trustwatch_stage_messages_total{stage="sessionize"}[10m])) > 0)',
                  "How often the time up to which all is judged moved, while events come in."),
        Recording("trustwatch:false_pages:budget_ratio",
                  f'sum by (budget) (label_replace({false}, "budget", "$1", "severity", "(.*)"))'
                  f" / on () group_left () max({budget})",
                  "False pages (tickets) observed, as a multiple of what they may be."),
    )  # fmt: skip
