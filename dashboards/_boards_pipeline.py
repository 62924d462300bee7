"""Pipeline: does the line itself run, keep up, and keep its state safe."""

from __future__ import annotations

from dashboards import names
from dashboards._panels import Column, Json, dashboard, eq, link, or_zero, rate, rise, row, series, stat, table, trend

NO_WORKER = "no worker"
STORED = "no checkpoint yet"


def pipeline() -> Json:
    """Build the dashboard."""
    panels = [*_stats(), row("Keeping up"), *_flow(), row("State"), *_state(), row("Cost and trouble"), *_cost()]
    about = "Whether the workers run and keep up: lag, throughput, delay, checkpoints, errors and what they cost."
    return dashboard(names.PIPELINE, about, panels, span="now-6h", refresh="30s")


def _stats() -> list[Json]:
    cpu = f"sum({rate('trustwatch_process_cpu_seconds_total')})"
    trouble = " + ".join(f"sum({rise(f'trustwatch_{what}_total')})"
                         for what in ("failures", "detector_errors", "state_gaps", "state_resets"))  # fmt: skip
    return [
        stat("Not ready", "Processes, workers and ingest alike, that wait for their partitions or their state.",
             or_zero(f"count({series('trustwatch_ready')} == 0)"), "short", steps=[(1, "red")], empty=NO_WORKER),
        stat("Lag", "Age of the oldest message that waits, at the worst stage and partition.",
             f"max({series('trustwatch_lag_seconds')})", "s", steps=[(30, "orange"), (120, "red")], empty=NO_WORKER,
             decimals=1),
        stat("Throughput", "Events a second that became part of a session, a lead or a mark.",
             f"sum({rate('trustwatch_events_total', eq('outcome', 'applied'))})", "cps", empty="no events",
             decimals=1),
        stat("Delay, 99th percentile", "Seconds from the raw message in Kafka to the durable results that follow,"
             " for 99 of 100.", _quantile("trustwatch_event_delay_seconds", 0.99, eq("stage", "watch"), by="le"), "s",
             steps=[(5, "orange"), (30, "red")], empty="no events", decimals=2),
        stat("Oldest checkpoint", "Age of the oldest checkpoint of any partition that has applied more since: so much"
             " is read again after a crash. 0 while nothing comes in.",
             f"max({series('trustwatch_checkpoint_age_seconds')})", "s", steps=[(120, "orange"), (600, "red")],
             empty=NO_WORKER, decimals=0),
        stat("Trouble", "Failures, detector errors, gaps and refused checkpoints in the time range, all together.",
             trouble, "short", steps=[(1, "red")], empty=NO_WORKER, decimals=0, instant=True),
        stat("Memory", "Resident memory of all workers.",
             f"sum({series('trustwatch_process_resident_memory_bytes')})", "bytes", empty=NO_WORKER, decimals=0),
        stat("CPU", "Cores that all workers use, together.", cpu, "none", empty=NO_WORKER, decimals=2,
             links=[link("Data trust", names.DATA)]),
    ]  # fmt: skip


def _quantile(metric: str, q: float, *matchers: str, by: str = "le, stage") -> str:
    return f"histogram_quantile({q}, sum by ({by}) ({rate(f'{metric}_bucket', *matchers)}))"


def _flow() -> list[Json]:
    return [
        trend("Lag by stage", "Age of the oldest message that waits at each stage; 0 when none does.",
              [(f"max by (stage) ({series('trustwatch_lag_seconds')})", "{{stage}}")], "s", empty=NO_WORKER,
              steps=[(30, "orange"), (120, "red")]),
        trend("Messages not yet applied", "Messages of each stage's topic that wait, all partitions together.",
              [(f"sum by (stage) ({series('trustwatch_stage_lag_messages')})", "{{stage}}"),
               (f"sum({series('trustwatch_ingest_lag_messages')})", "ingest (raw)")], "short", empty=NO_WORKER),
        trend("Throughput by stage", "Messages a second that each stage applies; one holds some hundred events, so raw"
              " items stand beside.",
              [(f"sum by (stage) ({rate('trustwatch_stage_messages_total')})", "{{stage}}, messages"),
               (f"sum({rate('trustwatch_ingest_items_total')})", "ingest, items")], "cps", empty=NO_WORKER),
        trend("Latency by stage", "Seconds from a message of a stage's topic to its durable effects, median and 99th"
              " percentile.",
              [(_quantile("trustwatch_stage_latency_seconds", 0.99), "{{stage}}, 99th"),
               (_quantile("trustwatch_stage_latency_seconds", 0.5), "{{stage}}, median")], "s", empty="no messages"),
        trend("Delay since the raw message", "Seconds from the oldest raw message in Kafka to the durable results of"
              " each stage: counts after sessionize, findings after watch.",
              [(_quantile("trustwatch_event_delay_seconds", 0.99), "{{stage}}, 99th"),
               (_quantile("trustwatch_event_delay_seconds", 0.5), "{{stage}}, median")], "s", empty="no events"),
        trend("Busy share by stage", "Share of the time that each stage spends on its batches; a stage near 100 % is"
              " the bottleneck.", [(f"max by (stage) ({rate('trustwatch_stage_busy_seconds_total')})", "{{stage}}")],
              "percentunit", empty=NO_WORKER, steps=[(0.8, "orange")]),
    ]  # fmt: skip


def _state() -> list[Json]:
    where = "stage, partition"
    held = {"open_sessions": "open sessions", "open_leads": "open leads", "pending_events": "events waiting",
            "remembered_ids": "remembered ids"}  # fmt: skip
    return [
        trend("Checkpoint age", "Seconds since the last checkpoint of each partition; up to a minute is normal, 0"
              " when it covers all.",
              [(f"max by ({where}) ({series('trustwatch_checkpoint_age_seconds')})", "{{stage}} {{partition}}")], "s",
              empty=STORED, width=8),
        trend("Cost of checkpoints", "Share of the time that each stage spends on checkpoints; 5 % at most is the aim.",
              [(f"max by (stage) ({rate('trustwatch_checkpoint_seconds_total')})", "{{stage}}")], "percentunit",
              empty=NO_WORKER, steps=[(0.05, "orange")], width=8),
        trend("Size of state", "Bytes of the last checkpoint, all partitions together.",
              [(f"sum by (stage) ({series('trustwatch_state_bytes')})", "{{stage}}")], "bytes", empty=STORED, width=8),
        trend("What state holds", "Sessions and leads that are open, events that wait for the watermark, and ids"
              " remembered against duplicates.",
              [(f"sum({series(f'trustwatch_{metric}')})", legend) for metric, legend in held.items()], "short",
              empty=NO_WORKER),
        table("Stages and partitions", "State, lag and checkpoint of every partition; one that is missing is owned by"
              " nobody. Empty without a worker.",
              [f"max by ({where}) ({series(f'trustwatch_{metric}')})"
               for metric in ("stage_lag_messages", "checkpoint_age_seconds", "state_bytes")]
              + [f"max by ({where}) ({series('trustwatch_watermark_timestamp_seconds')}) * 1000"],
              [Column("stage", "Stage"), Column("partition", "Partition"), Column("A", "Waiting", "short", decimals=0),
               Column("B", "Checkpoint age", "s", decimals=1), Column("C", "State", "bytes", decimals=1),
               Column("D", "Event time", "dateTimeAsIso")], empty=NO_WORKER, width=12, sort=("Stage", False)),
    ]  # fmt: skip


def _cost() -> list[Json]:
    def each(*metrics: tuple[str, str]) -> list[tuple[str, str]]:
        return [(f"sum({rate(f'trustwatch_{metric}_total')})", legend) for metric, legend in metrics]

    rest = f"sum({rate('trustwatch_process_cpu_seconds_total')}) - sum({rate('trustwatch_stage_cpu_seconds_total')})"
    return [
        trend("CPU by stage", "Cores used by each stage of our own code, and by all the rest: Kafka's clients, Faust"
              " and the metrics.", [(f"sum by (stage) ({rate('trustwatch_stage_cpu_seconds_total')})", "{{stage}}"),
                                (rest, "rest")], "none", stack=True, empty=NO_WORKER),
        trend("Memory by worker", "Resident memory of each worker process.",
              [(series("trustwatch_process_resident_memory_bytes"), "{{instance}}")], "bytes", empty=NO_WORKER),
        trend("Errors", "How often a second something of our own went wrong; all at 0 is normal.",
              [*each(("failures", "failures on one person"), ("state_gaps", "events lost to the state"),
                     ("state_resets", "checkpoints refused"), ("send_retries", "writes made again"),
                     ("stage_refused_messages", "foreign messages")),
               (f"sum by (detector) ({rate('trustwatch_detector_errors_total')}) > 0", "detector {{detector}}")],
              "cps", empty=NO_WORKER, width=8),
        trend("Readiness", "Is 1 while a worker has its partitions, with their state, and reads.",
              [(series("trustwatch_ready"), "{{instance}}")], "none", most=1.0, empty=NO_WORKER, width=8),
        trend("Scrapes", "Seconds that Prometheus needs to read a worker's metrics, and how many samples it gets, in"
              " thousands.", [(series("scrape_duration_seconds"), "{{instance}}, seconds"),
                               (f"{series('scrape_samples_scraped')} / 1000", "{{instance}}, thousand samples")],
              "none", empty=NO_WORKER, width=8),
    ]  # fmt: skip
