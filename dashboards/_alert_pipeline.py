"""Alerts of the line itself: is it there, does it keep up, does it lose anything."""

from __future__ import annotations

from typing import Final

from dashboards import names
from dashboards._alert_recording import LOADED, alone
from dashboards._alert_spec import Alert

_DOCTOR: Final = "`trustwatch doctor` says what is wrong and the fix."
_LOGS: Final = "The log of the process: errors say what, where and the fix."


def pipeline_alerts() -> tuple[Alert, ...]:
    """All of them; the runbook has them in this order."""
    return (*_absent(), *_slow(), *_losing(), *_noisy())


def _absent() -> tuple[Alert, ...]:
    return (
        Alert(
            name="WorkerAbsent", area="pipeline", by=("stage",), above=0.0, for_s=60, keep_s=60,
            value='absent(trustwatch_stage_lag_messages{stage="sessionize"})'
            ' or absent(trustwatch_stage_lag_messages{stage="watch"})',
            summary="No worker runs the stage {{ $labels.stage }}",
            description="Prometheus sees no worker that owns a partition of the stage {{ $labels.stage }}. Nothing is"
            " watched; findings come late, none is lost: the line goes on where it stopped.",
            dashboard=names.PIPELINE,
            means="No process that Prometheus scrapes has a partition of this stage: workers are down, cannot join"
            " their group, or are not scraped. Trust alerts cannot fire meanwhile. Events wait in Kafka.",
            check=("Does a worker run? `docker compose ps`, `kubectl get pods`, `systemctl status`.", _LOGS, _DOCTOR,
                   "Prometheus, Status → Targets: is it scraped?"),
            do=("Start it. A worker that ends at once says why in its last line; exit code 2 names the knob.",
                "It may be down for as long as Kafka keeps events (`topics.retention_hours`), not longer."),
            tune="`for` is one minute, so that a deploy does not page. Slower starts: raise it.",
            queries=('up{job="trustwatch"}', "trustwatch_ready", "trustwatch_start_seconds"),
        ),
        Alert(
            name="IngestAbsent", area="pipeline", value="absent(trustwatch_ingest_frames_total)", above=0.0, for_s=60,
            keep_s=60,
            summary="No ingest runs",
            description="Prometheus sees no process with the ingest stage. Nothing is read from your topics; it is read"
            " later, if it comes back before your topics forget.",
            dashboard=names.PIPELINE,
            means="Nobody reads your topics. What is in them waits there, for as long as your retention lasts.",
            check=("Does `trustwatch ingest`, or `trustwatch worker` without `--no-ingest`, run?", _LOGS, _DOCTOR),
            do=("Start it.", "Look at the retention of your topics before you go back to bed."),
            tune="As WorkerAbsent.",
            queries=('up{job="trustwatch"}', "trustwatch_ingest_frames_total"),
        ),
        Alert(
            name="InstanceDown", area="pipeline", value=alone('up{job="trustwatch"}'), by=("instance", "job"),
            below=1.0, for_s=120, keep_s=60, severity="ticket",
            summary="{{ $labels.instance }} cannot be scraped",
            description="Prometheus has not reached {{ $labels.instance }} for two minutes. Others take over its"
            " partitions, if there are any.",
            dashboard=names.PIPELINE,
            means="One process is down or hangs. If others run, they own its partitions by now; if not,"
            " PartitionsUnowned, WorkerAbsent or IngestAbsent pages. A container that Compose stopped is no target any"
            " more, so this does not tell of it; those do.",
            check=("Does the process run, and does it answer? `curl http://INSTANCE/metrics`.", _LOGS,
                   "Was it killed for memory? `dmesg`, `docker inspect`, `kubectl describe pod`."),
            do=("Restart it.",),
            tune="Instances that come and go by an autoscaler: raise `for`.",
            queries=('up{job="trustwatch"}',),
        ),
        Alert(
            name="PartitionsUnowned", area="pipeline", value=alone("trustwatch:stage_partitions:missing"),
            by=("stage",), above=0.0, for_s=300, keep_s=60,
            summary="Nobody works on some partitions of {{ $labels.stage }}",
            description="{{ $value | humanize }} partitions of {{ $labels.stage }} that were worked on within the last"
            " day have had no worker for five minutes.",
            dashboard=names.PIPELINE,
            means="A worker is gone, and the others have not taken over its partitions: the group does not rebalance,"
            " or a worker that owns them is not scraped. What is in them waits in Kafka and is not watched.",
            check=("Which partitions have a worker? See the query.",
                   "Who has them for Kafka? `kafka-consumer-groups.sh --describe --all-groups`.", _LOGS,
                   "Prometheus, Status → Targets: is every worker scraped?"),
            do=("Start the worker that is missing, or restart the one that holds partitions and does nothing.",),
            tune="`for` is five minutes, more than a rebalance takes.",
            queries=("trustwatch_stage_lag_messages", "trustwatch:stage_partitions:count", "trustwatch_ready"),
        ),
        Alert(
            name="NotReady", area="pipeline", value=alone("max by (instance) (trustwatch_ready)"), by=("instance",),
            below=1.0, for_s=300, keep_s=60,
            summary="{{ $labels.instance }} runs but is not ready",
            description="{{ $labels.instance }} has not got its partitions with their state for five minutes.",
            dashboard=names.PIPELINE,
            means="The process answers, but does not work: Kafka is away, it cannot join its consumer group, or its"
            " checkpoints cannot be loaded.",
            check=(_DOCTOR, _LOGS, "Does the consumer group rebalance without end? More workers than partitions are no"
                   " reason: the surplus gets none, and is ready."),
            do=("Bring Kafka back, or correct access to the topics.",),
            tune="Big states load for longer: raise `for` above `trustwatch_state_load_seconds`.",
            queries=("trustwatch_ready", "trustwatch_state_load_seconds"),
        ),
        Alert(
            name="DeadMan", area="heartbeat", value="vector(1)", above=0.0, severity="heartbeat",
            summary="Alerting works",
            description="This alert always fires. It goes to an external heartbeat, which calls you when it stops.",
            dashboard=names.PIPELINE,
            means="It is meant to fire, always. If your heartbeat service called because it stopped: Prometheus,"
            " Alertmanager (Grafana), or the way out of your network is down, and no other alert reaches you.",
            check=("Does Prometheus run, and does it load its rules? Status → Rules.",
                   "Does Alertmanager (Grafana) run, and does it reach the heartbeat's URL?",
                   "Prometheus' own disk: full?"),
            do=("Bring back what is down. Then look at the dashboards: what alerted meanwhile was not sent.",),
            tune="Let the heartbeat service wait for 10 minutes before it calls; the alert is sent each minute.",
            queries=("ALERTS{alertname=\"DeadMan\"}",),
        ),
    )  # fmt: skip


def _slow() -> tuple[Alert, ...]:
    return (
        Alert(
            name="LagHigh", area="pipeline", value=alone("trustwatch:lag_seconds:max"), by=("stage",), above=60.0,
            clear=30.0, for_s=120, keep_s=60,
            summary="{{ $labels.stage }} is behind",
            description="The oldest message that waits for {{ $labels.stage }} is {{ $value | humanizeDuration }} old.",
            dashboard=names.PIPELINE,
            means="This stage does not keep up, or hangs. Findings come later by as much. Nothing is lost while Kafka"
            " keeps the messages.",
            check=("Is it all partitions or one? See the query.", "Is the CPU of the worker full?", _LOGS,
                   "Was there a backlog, after an outage or by a replay? Then the lag falls by itself."),
            do=("More workers, up to `topics.events_partitions`.", "One partition alone that hangs: restart its"
                " worker; its state is taken up from the last checkpoint."),
            tune="Fires above 60 s for two minutes, and ends below 30 s.",
            queries=("trustwatch_stage_lag_messages", "trustwatch_ingest_lag_messages",
                     "rate(trustwatch_stage_cpu_seconds_total[5m])"),
        ),
        Alert(
            name="WatchStalled", area="pipeline", value=alone("trustwatch:watermark:changes10m"), by=("partition",),
            below=1.0, for_s=300, keep_s=60,
            summary="Nothing is judged in partition {{ $labels.partition }}",
            description="Events come in, but the time up to which partition {{ $labels.partition }} of the counts is"
            " judged has not moved for ten minutes.",
            dashboard=names.PIPELINE,
            means="Event time stands still: one source holds it back, or a partition of the events has no worker."
            " No finding can come.",
            check=("Which stage's watermark stands still? See the query.",
                   "Does a source send old times only? It holds all others back until it is idle or catches up.",
                   "Are all partitions of `trust.events` owned? PartitionsUnowned and WorkerAbsent say so.", _LOGS),
            do=("A source that is far behind: let it catch up, or take it out of `topics.raw` until it has.",
                "Otherwise restart the worker that owns the partition."),
            tune="`ingest.idle_timeout_s` says when a quiet source stops holding event time back.",
            queries=("trustwatch_watermark_lag_seconds", "trustwatch_watermark_timestamp_seconds"),
        ),
        Alert(
            name="CheckpointsStopped", area="pipeline", value=alone("trustwatch:checkpoint_age_seconds:working"),
            by=("instance", "stage"), above=300.0, clear=120.0, for_s=120, keep_s=60,
            summary="{{ $labels.stage }} on {{ $labels.instance }} writes no checkpoints",
            description="The checkpoint of a partition of {{ $labels.stage }} on {{ $labels.instance }} is"
            " {{ $value | humanizeDuration }} old, though more was applied since. Offsets are committed after"
            " checkpoints: a crash would replay all that.",
            dashboard=names.PIPELINE,
            means="State is not saved. Nothing is lost yet, but a restart takes longer with each minute, and loses"
            " events when Kafka has deleted what would have to be replayed.",
            check=("Can it write to `trust.state-sessions` and `trust.state-watch`? " + _DOCTOR,
                   "SendWaiting: does Kafka refuse writes?", "Is the state larger than `topics.max_message_bytes`"
                   " allows? See the query."),
            do=("Correct what the log says of the state topics (rights, size, replicas); do not restart before.",),
            tune="`checkpoints.max_interval_s` (60 s) is the longest that is normal; the alert waits for five times as"
            " long, and two minutes more, in which one that was idle writes its own.",
            queries=("trustwatch_checkpoint_age_seconds", "trustwatch_state_bytes",
                     "rate(trustwatch_checkpoints_total[5m])"),
        ),
        Alert(
            name="SendWaiting", area="pipeline", value="max by (instance) (trustwatch_send_waiting_seconds)",
            by=("instance",), above=30.0, clear=5.0, for_s=60, keep_s=60,
            summary="{{ $labels.instance }} cannot write to Kafka",
            description="A write of {{ $labels.instance }} to Kafka waits for {{ $value | humanizeDuration }}.",
            dashboard=names.PIPELINE,
            means="The broker is away, or refuses: too few replicas, no rights, a full disk. The line waits and goes on"
            " by itself when it can write.",
            check=("Is Kafka up, and are its partitions in sync? `kafka-topics.sh --describe"
                   " --under-min-isr-partitions`.", _DOCTOR, _LOGS),
            do=("Bring Kafka back. Do not restart workers: it does not help.",),
            tune="Fires above 30 s, ends below 5 s.",
            queries=("trustwatch_send_waiting_seconds", "rate(trustwatch_send_retries_total[5m])"),
        ),
    )  # fmt: skip


def _losing() -> tuple[Alert, ...]:
    return (
        Alert(
            name="EventsLost", area="pipeline", by=("stage",), above=0.0, keep_s=3600,
            # A gap that is found at start is there from the first sample on: `increase` does not see it.
            value="sum by (stage) ((increase(trustwatch_state_gaps_total[1h]) > 0)"
            " or (trustwatch_state_gaps_total > 0 unless trustwatch_state_gaps_total offset 1h))",
            summary="{{ $labels.stage }} lost messages",
            description="{{ $value | humanize }} gaps in the log of {{ $labels.stage }} could not be closed in the last"
            " hour: Kafka had deleted messages that its state had not seen.",
            dashboard=names.PIPELINE,
            means="Counts of the time of the gap are too low, once. It is the one case in which the line is not exact:"
            " workers were down for longer than Kafka keeps their topics.",
            check=("For how long were workers down? See `up` and the lag.",
                   "Retention of `trust.events` and `trust.counts`: `trustwatch topics check`."),
            do=("Raise `topics.retention_hours` above the longest outage you must survive.",
                "Replay the lost time from your own topics, if findings of that time matter."),
            tune="None: it fires on the first gap.",
            queries=("increase(trustwatch_state_gaps_total[1d])", "increase(trustwatch_state_seeks_total[1d])"),
        ),
        Alert(
            name="DetectorErrors", area="pipeline",
            value="sum by (detector) (increase(trustwatch_detector_errors_total[15m]))", by=("detector",), above=0.0,
            keep_s=900, severity="ticket",
            summary="{{ $labels.detector }} raises",
            description="{{ $labels.detector }} raised on {{ $value | humanize }} observations in the last 15 minutes."
            " They were passed over; the line goes on.",
            dashboard=names.PIPELINE,
            means="A bug in this detector. It is blind where it raises; all others go on.",
            check=("The log has the traceback of the first one, with stage, segment and time.",
                   "Since which version? See the deploys on the dashboard."),
            do=("Report it with the traceback, which holds no personal data.", "Roll back if it is new."),
            tune="None: a detector must not raise.",
            queries=("increase(trustwatch_detector_errors_total[1h]) > 0",),
        ),
        Alert(
            name="Failures", area="pipeline", value="sum(increase(trustwatch_failures_total[1h]))", above=0.0,
            keep_s=900, severity="ticket",
            summary="Our own code failed on a person's events",
            description="Sessionize raised {{ $value | humanize }} times in the last hour. What was open of that person"
            " was closed; the line goes on.",
            dashboard=names.PIPELINE,
            means="A bug in sessions, signals or leads. One person's open session is given up each time.",
            check=("The log has the traceback.", "Since which version?"),
            do=("Report it with the traceback, which holds no personal data.",),
            tune="None: it must not happen.",
            queries=("increase(trustwatch_failures_total[1d])",),
        ),
        Alert(
            name="Evictions", area="pipeline", value="sum(increase(trustwatch_evictions_total[1h]))", above=0.0,
            keep_s=3600, severity="ticket",
            summary="Sessions or leads are closed early",
            description="{{ $value | humanize }} sessions or leads were closed in the last hour because a limit was"
            " reached. Drop-off looks higher than it is.",
            dashboard=names.PIPELINE,
            means="More is open at once than `limits.open_sessions` or `limits.open_leads` allow, so the oldest are"
            " closed as if they had ended: rates are wrong in one direction. Bots are a usual cause.",
            check=("How many are open? See the queries.", "Did traffic jump? Look at the data dashboard: bots?"),
            do=("Keep bots out at the source.", "Raise the limit: 2 kB of memory for a session, less for a lead."),
            tune="`limits.open_sessions`, `limits.open_leads`.",
            queries=("trustwatch_open_sessions", "trustwatch_open_leads"),
        ),
        Alert(
            name="ForcedWatermarks", area="pipeline", value="sum(increase(trustwatch_forced_watermarks_total[1h]))",
            above=0.0, keep_s=3600, severity="ticket",
            summary="Event time is pushed on by force",
            description="{{ $value | humanize }} buckets were closed in the last hour before all sources had reached"
            " them, because too many events were waiting. What comes for them later is late, and not counted.",
            dashboard=names.PIPELINE,
            means="One source is far behind the others, so events of the others pile up until `limits.pending_events`.",
            check=("Which source is behind? See the query.", "Was a backlog replayed beside live events?"),
            do=("Let the source catch up; replay history apart from live events.",
                "Raise `limits.pending_events`: 1.3 kB of memory for an event."),
            tune="`limits.pending_events`, `ingest.idle_timeout_s`.",
            queries=("trustwatch_pending_events", "trustwatch_ingest_lag_seconds"),
        ),
    )  # fmt: skip


def _noisy() -> tuple[Alert, ...]:
    share = "{{ $value | humanizePercentage }} of the items of {{ $labels.topic }} in the last hour"
    return (
        Alert(
            name="DeadLetters", area="pipeline", value="trustwatch:dead_letters:share1h", by=("topic",), above=0.01,
            clear=0.005, for_s=900, keep_s=300, severity="ticket",
            summary="{{ $labels.topic }}: some items cannot be understood",
            description=f"{share} are dead letters.",
            dashboard=names.DATA,
            means="A steady share of what this source sends is no event that we know. It is kept apart, counted, and"
            " missing from all rates.",
            check=("The reasons, by the query.",
                   "Some of them: `kafka-console-consumer.sh --topic trust.dead-letters`."),
            do=("Map unknown names in `names_file`, or have the source corrected.",),
            tune="Fires above 1 % for 15 minutes, ends below 0.5 %.",
            queries=("sum by (topic, reason) (increase(trustwatch_dead_letters_total[1h])) > 0",),
        ),
        Alert(
            name="LateEvents", area="pipeline", value="trustwatch:late_items:share1h", by=("topic",), above=0.01,
            clear=0.005, for_s=900, keep_s=300, severity="ticket",
            summary="{{ $labels.topic }}: some events come too late",
            description=f"{share} came too late to be counted.",
            dashboard=names.DATA,
            means="A steady share of events comes after their time has been judged, and is missing from all rates.",
            check=("How late are they? Compare event times with the times of the messages in your topic.",),
            do=("Raise `time.allowed_lateness_s`; findings come later by as much.",),
            tune="Fires above 1 % for 15 minutes, ends below 0.5 %.",
            queries=("increase(trustwatch_ingest_items_total{outcome=\"late\"}[1h])",),
        ),
        Alert(
            name="FalsePages", area="pipeline", value="trustwatch:false_pages:budget_ratio", by=("budget",), above=2.0,
            clear=1.5, for_s=3600, keep_s=300, severity="ticket",
            summary="More false alarms ({{ $labels.budget }}) than allowed",
            description="Findings of severity {{ $labels.budget }} that were over by themselves within a day are"
            " {{ $value | humanize }} times what `false_pages_per_week` allows, over four weeks.",
            dashboard=names.PIPELINE,
            means="Detectors call out more often than they may. It is an upper estimate: true incidents that were over"
            " soon are counted, too.",
            check=("Which detector? See the query.", "Were the findings false? Ask those who were paged.",
                   "Is it young? It learns a week's cycle in two weeks."),
            do=("Parameters of that detector: see its own section here.",
                "Incidents that were real and short: lower `false_page_within_s`."),
            tune="Twice the budget, because twice as many happen by chance in four weeks of twenty only.",
            queries=("trustwatch_false_pages_observed_per_week", "trustwatch_false_pages_expected_per_week"),
        ),
    )  # fmt: skip


CANARY: Final = Alert(
    name="RulesNotEvaluated", area="pipeline", value=LOADED, below=1.0, for_s=120, keep_s=60,
    summary="Grafana cannot see what Prometheus evaluates",
    description="Grafana gets no answer from Prometheus, or Prometheus does not evaluate the recording rules. All other"
    " rules of Grafana keep the state that they had.",
    dashboard=names.PIPELINE,
    means="All other rules keep their last state when Prometheus cannot be asked (so that one hiccup does not page"
    " everyone), and are calm when their series are missing. So this one rule pages instead. It is a rule of Grafana"
    " only; without Grafana, DeadMan does the same.",
    check=("Does Prometheus run? The data source's page in Grafana has a test.",
           "Prometheus, Status → Rules: are `recording.yml` and `alerts.yml` loaded, without errors?"),
    do=("Start Prometheus; correct `rule_files` in its configuration.",),
    tune="Fires after two minutes.",
    queries=(LOADED,),
)  # fmt: skip
"""A rule of Grafana alone."""
