"""Data trust: is what comes in complete, fresh and understood, so that a broken tag is not read as broken trust."""

from __future__ import annotations

from dashboards import names
from dashboards._panels import (
    Column,
    Json,
    bars,
    dashboard,
    eq,
    rate,
    rise,
    row,
    series,
    share,
    stat,
    styled,
    table,
    trend,
    variable,
)

TOPIC = 'topic=~"$topic"'
EVENTS, LETTERS = "trustwatch_events_total", "trustwatch_dead_letters_total"
AGAIN, REFUSED = 'outcome=~"duplicate|late"', 'outcome=~"dead_letter|late"'
QUIET = "no events"
NO_INGEST = "no ingest among the chosen workers"


def data() -> Json:
    """Build the dashboard."""
    panels = [*_stats(), row("Volume and freshness"), *_volume(), row("What was refused"), *_refused(),
              row("What was cut or changed"), *_cut()]  # fmt: skip
    variables = [
        variable("topic", "Raw topic", "Where events come from.", f"label_values({EVENTS}, topic)"),
    ]
    about = "Whether the data can be believed: fresh, complete, understood, and by the same definitions as before."
    return dashboard(names.DATA, about, panels, variables, span="now-24h", refresh="30s")


def _part(outcome: str) -> str:
    some = f"sum({rate(EVENTS, TOPIC, eq('outcome', outcome))})"
    return share(some, f"sum({rate(EVENTS, TOPIC)})")


def _stats() -> list[Json]:
    return [
        stat("Events", "Consumed items a second, whatever became of them.", f"sum({rate(EVENTS, TOPIC)})", "cps",
             empty=QUIET, decimals=1),
        stat("Event time behind", "How far the event time that was judged is behind the clock; minutes are normal, and"
             " years while old events are replayed.",
             f"max({series('trustwatch_watermark_lag_seconds', eq('stage', 'watch'))})", "s",
             steps=[(900, "orange"), (3600, "red")], empty="nothing judged yet", decimals=1),
        stat("Dead letters", "Share of consumed items that could not be understood.", _part("dead_letter"),
             "percentunit", steps=[(0.01, "orange"), (0.05, "red")], empty=QUIET, decimals=2),
        stat("Duplicates", "Share of consumed items that had come before; they are not counted twice.",
             _part("duplicate"), "percentunit", steps=[(0.05, "orange")], empty=QUIET, decimals=2),
        stat("Late", "Share of consumed items that came after their time had been judged.", _part("late"),
             "percentunit", steps=[(0.01, "orange"), (0.05, "red")], empty=QUIET, decimals=2),
        stat("Raw messages waiting", "Messages of the raw topics that ingest has not read yet.",
             f"sum({series('trustwatch_ingest_lag_messages', TOPIC)})", "short", steps=[(10_000, "orange")],
             empty=NO_INGEST, decimals=0),
        stat("Overflowed labels", "Labels folded into `other` in the time range, because segments.max_values was"
             " reached.", f"sum({rise('trustwatch_overflowed_labels_total')})", "short", steps=[(1, "orange")],
             empty="no worker", decimals=0, instant=True),
        stat("Watched streams", "Watched stages and segments, over all detectors: what is sliced too thin is seen"
             " too late.", f"sum({series('trustwatch_watched_streams')})", "short", empty="no worker", decimals=0),
    ]  # fmt: skip


def _volume() -> list[Json]:
    reached = f"max by (stage) ({series('trustwatch_watermark_lag_seconds')})"
    return [
        trend("Events by outcome", "Consumed items a second by what became of them: their sum is all.",
              [(f"sum by (outcome) ({rate(EVENTS, TOPIC)})", "{{outcome}}")], "cps", stack=True, empty=QUIET,
              overrides=[styled("applied", color="green"), styled("dead_letter", color="red"),
                         styled("late", color="orange"), styled("duplicate", color="yellow")]),
        trend("Events by source", "Consumed items a second by raw topic: one that falls silent is a broken source, no"
              " lost trust.", [(f"sum by (topic) ({rate(EVENTS, TOPIC)})", "{{topic}}")], "cps", empty=QUIET),
        trend("Freshness", "How far event time is behind the clock at each stage; it grows evenly when a source stops.",
              [(reached, "{{stage}}")], "s", empty="nothing judged yet"),
        trend("Raw messages waiting, by partition", "Messages that ingest has not read yet; near 0 when it keeps up.",
              [(f"max by (topic, partition) ({series('trustwatch_ingest_lag_messages', TOPIC)})",
                "{{topic}}/{{partition}}")], "short", empty=NO_INGEST),
    ]  # fmt: skip


def _refused() -> list[Json]:
    reasons = f"sum by (topic, reason) ({rate(LETTERS, TOPIC)})"
    total = f"sum by (topic, reason) ({rise(LETTERS, TOPIC)})"
    return [
        trend("Dead letters by reason", "Items a second that could not be understood, by topic and reason; reasons that"
              " never came are left out, so empty is good.", [(f"{reasons} > 0", "{{topic}}: {{reason}}")], "cps",
              stack=True, empty="none: good"),
        trend("Duplicates and late events", "Items a second that had come before, and those that came too late, by raw"
              " topic.", [(f"sum by (topic, outcome) ({rate(EVENTS, TOPIC, AGAIN)})",
                            "{{topic}}: {{outcome}}")], "cps", empty=QUIET),
        table("Dead letters in the time range", "Items that could not be understood, by topic and reason, over the time"
              " range; the messages stay where they were. Empty is good.", [f"{total} > 0"],
              [Column("topic", "Topic"), Column("reason", "Reason"), Column("A", "Items", "short", decimals=0)],
              empty="none: good", width=12, sort=("Items", True)),
        bars("Share refused by source", "Share of the items of each raw topic, in the time range, that were dead"
             " letters or late.", "sort_desc(" + share(
                 f"sum by (topic) ({rise(EVENTS, TOPIC, REFUSED)})",
                 f"sum by (topic) ({rise(EVENTS, TOPIC)})") + ")",
             "{{topic}}", "percentunit", steps=[(0.01, "orange"), (0.05, "red")], empty=QUIET),
    ]  # fmt: skip


def _cut() -> list[Json]:
    def each(*metrics: tuple[str, str]) -> list[tuple[str, str]]:
        return [(f"sum({rate(f'trustwatch_{metric}_total')})", legend) for metric, legend in metrics]

    control = f"max by (type, what) ({series('trustwatch_control_event_timestamp_seconds')}) * 1000"
    return [
        trend("Limits reached", "How often a second a limit cut something: sessions closed early, buckets closed early,"
              " ids not remembered, streams not watched. All at 0 is normal.",
              each(("evictions", "sessions and leads closed early"), ("forced_watermarks", "buckets closed early"),
                   ("unremembered_events", "ids not remembered"), ("unwatched_observations", "streams not watched"),
                   ("overflowed_labels", "labels folded")), "cps", empty="no worker", width=8),
        trend("Own failures and erasures", "How often a second our own code failed on one person, and people were"
              " erased on request. Failures above 0 are a bug: see the log.",
              each(("failures", "failures"), ("erasures", "erasures"), ("reread_items", "read again after a crash")),
              "cps", empty="no worker", width=8),
        table("Deploys and definition changes", "What was deployed or redefined last, and when, as the sources told:"
              " look here before you blame customers. Empty when none was sent.", [control],
              [Column("type", "Type"), Column("what", "What"), Column("A", "Last at", "dateTimeAsIso")],
              empty="none was sent", width=8, sort=("Last at", True)),
    ]  # fmt: skip
