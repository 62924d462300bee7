"""Alerts of detectors, made from their classes, and of broken tracking."""

from __future__ import annotations

import inspect
from typing import Any, Final

from dashboards import names
from dashboards._alert_recording import (
    BROKEN,
    BROKEN_SHARE,
    FINDING,
    HELD_COUNT,
    MANY_CASES,
    SILENT,
    TOLD,
    TRACKING,
    WORSE,
)
from dashboards._alert_spec import Alert
from detectors._base import Detector

STEADY_S: Final = 30.0
"""A finding stands for two evaluations before anyone is told: a worker that replays may open and close one at once."""
KEEP_S: Final = 900.0
"""A trust alert outlives a restart of its worker."""
_WHERE: Final = "{{ $labels.stage }}{{ if ne $labels.segment `all` }} ({{ $labels.segment }}){{ end }}"


def detector_alert(name: str, cls: type[Detector[Any, Any]]) -> Alert:
    """The alert of a detector."""
    what = "{{ if ne $labels.kind $labels.detector }} [{{ $labels.kind }}]{{ end }}"
    documentation = inspect.getdoc(cls) or ""
    data = cls.stage == TRACKING
    return Alert(
        name=names.alert_name(name),
        area="trust",  # as all that is told of a finding; broken data waits for nothing (see `_alert_recording`)
        value=f'{TOLD}{{detector="{name}"}}',
        by=FINDING,
        above=0.0,
        for_s=max(STEADY_S, cls.alert.for_s),
        keep_s=KEEP_S,
        severity=None,
        summary=f"{cls.title}{what} at {_WHERE} got worse",
        description=f"{cls.title}{what} at {_WHERE}: <before> before, <after> since <onset>."
        " Owner: {{ $labels.owner }}. Finding {{ $labels.finding }}.",
        dashboard=names.OVERVIEW,
        panel=names.panel_id(name),
        unit=cls.unit,
        means=documentation,
        check=_CHECK_DATA if data else _CHECK,
        do=_DO_DATA if data else _DO,
        tune=_tune(name, cls),
        queries=_queries(name),
    )


_CHECK: Final = (
    "Open the dashboard and the finding from the notification: does the curve leave its baseline at the onset, or is it"
    " a gap or a spike?",
    "What changed at the onset? Deploys and definition changes are marked in the dashboards; ask who changed pages,"
    " forms, campaigns or scoring that day.",
    "Is it this segment alone? The finding is told of the segment that explains the others; `explained_segments` in its"
    " evidence says how many overlap with it.",
    "Is tracking whole? `trustwatch:tracking_broken:count` should be 0, and the data dashboard calm since before the"
    " onset.",
    "`trustwatch doctor` says whether the line itself is well.",
)
_DO: Final = (
    "Severity `page`: tell the owner now, with the link to the finding. What was deployed at the onset is rolled back"
    " or fixed first; the loss grows with each hour.",
    "Severity `ticket`: it is less sure, or small. The owner looks at it within a working day.",
    "The alert ends by itself when the old level is back; a change that was meant becomes the new normal after"
    " `accept_after_s`. Until then silence it.",
)


_CHECK_DATA: Final = (
    "The labels say which source, event type, page, device or check: did the site, the tag manager, an app, a consent"
    " banner or a connector change at that time? Deploys are marked in the dashboards.",
    "Open the page on such a device and look at what it sends; compare with what arrives in the topic.",
    "`stopped` and `fewer`: is it the tag, or is the page itself gone? Look at the web server's log.",
    "`bad_share`: `trustwatch_dead_letters_total` by reason, and the source's own log of retries and delays.",
    "`redefined`: who changed the names of values, the unit or the scale? Say so with a `definition_changed` event.",
)
_DO_DATA: Final = (
    "Tell the owner of tracking (`owners.stages.tracking`); roll back what changed.",
    "Findings about trust that depend on it are held back meanwhile, and say so; they are told an hour and a half after"
    " it is whole, if they still hold. Nothing else has to be silenced.",
    "A change that was meant becomes the new normal after `accept_after_s`. Until then silence it.",
)


def _queries(name: str) -> tuple[str, ...]:
    return (
        f'trustwatch_open_finding{{detector="{name}"}}',
        f'trustwatch_open_finding_after{{detector="{name}"}} - trustwatch_open_finding_before{{detector="{name}"}}',
        f'topk(10, trustwatch_detector_score_ratio{{detector="{name}"}})',
    )


def _tune(name: str, cls: type[Detector[Any, Any]]) -> str:
    known = cls.Params.model_fields
    wanted = [knob for knob in ("min_n", "min_cases", "odds_ratio", "accept_after_s", "stages") if knob in known]
    each = "; ".join(f"`detectors.{name}.{knob}`: {known[knob].description}" for knob in wanted)
    return (
        "Too many false ones: lower `false_pages_per_week`; thresholds follow from it. What is too small to matter:"
        f" raise the first of these. {each}. Try a change on recorded events first: `trustwatch backtest FILE --set"
        f" {name}.PARAMETER=VALUE`."
    )


def tracking_alerts() -> tuple[Alert, ...]:
    """Alerts of broken tracking; while they hold, trust alerts are held back."""
    dead, late = (f'{BROKEN}{{outcome="{outcome}"}}' for outcome in ("dead_letter", "late"))
    held = "No new trust alert is told until it is whole again."
    return (
        _held_back(),
        Alert(
            name="TrackingSilent", area="data", value=SILENT, by=("topic",), above=0.0, for_s=120, keep_s=300,
            summary="Nothing arrives from {{ $labels.topic }}",
            description="No item came from {{ $labels.topic }} in the last 10 minutes; {{ $value | humanize }} are"
            f" usual. {held}",
            dashboard=names.DATA,
            means="A source topic that usually sends at this hour has sent nothing for ten minutes. A tag was removed,"
            " a consent banner blocks it, a connector stopped, or the site is down. Nothing is known of customers"
            f" meanwhile: this is broken data, not broken trust. {held}",
            check=("Is the site up, and are there visitors? Look at another tool, or at the web server's log.",
                   "Do messages arrive in the topic? `kafka-console-consumer.sh --topic TOPIC` on your Kafka.",
                   "`trustwatch doctor`: can ingest reach the topic, and is it behind?",
                   "Was a tag manager, a consent banner or a connector changed? See the deploys on the dashboard."),
            do=("Tell the owner of the source; roll back what was deployed.",
                "A source that was switched off for good is taken out of `topics.raw`."),
            tune="It looks at ten minutes in which 30 items are usual, by the same hour yesterday and a week ago (the"
            " lesser). Sources with less than that are never called silent. The first quiet night, and the first quiet"
            " Sunday, of a source are told, as nothing is known of them. It ends with the first item. The constants are"
            " in `dashboards/_alert_recording.py`.",
            queries=("trustwatch:ingest_items:increase10m", "trustwatch:ingest_items:usual10m"),
        ),
        Alert(
            name="TrackingDeadLetters", area="data", value=dead, by=("topic",), above=0.0, keep_s=300,
            summary="{{ $labels.topic }} sends what cannot be understood",
            description="{{ $value | humanizePercentage }} of the items of {{ $labels.topic }} in the last 10 minutes"
            f" are dead letters, far more than the day before. {held}",
            dashboard=names.DATA,
            means="Far more items than the day before cannot be read as events. A format, a field or an event name was"
            f" changed at the source. {held}",
            check=("The reasons, by the query below: `unknown_type` is a new name, `missing_field` and `bad_field` a"
                   " changed schema, `bad_time` a changed clock or zone.",
                   "A few of them: `kafka-console-consumer.sh --topic trust.dead-letters`. They hold no personal data.",
                   "Was the source released at that time? See the deploys on the dashboard."),
            do=("Have the source send what it sent before.",
                "New names of events are mapped in `names_file`; replay what was lost with `trustwatch replay`."),
            tune=f"It fires from {BROKEN_SHARE:.0%} of ten minutes' items if that is five times the share of the best"
            f" day of the week before, of 50 items and {MANY_CASES} bad ones at least, and ends below half of that. The"
            " constants are in `dashboards/_alert_recording.py`.",
            queries=("sum by (topic, reason) (increase(trustwatch_dead_letters_total[10m])) > 0",
                     "trustwatch:ingest_outcome:share10m", "trustwatch:ingest_outcome:share_day_before"),
        ),
        Alert(
            name="TrackingLate", area="data", value=late, by=("topic",), above=0.0, keep_s=300,
            severity="ticket",
            summary="{{ $labels.topic }} sends events too late",
            description="{{ $value | humanizePercentage }} of the items of {{ $labels.topic }} in the last 10 minutes"
            f" came too late to be counted, far more than the day before. {held}",
            dashboard=names.DATA,
            means="Far more events than the day before come after their time has been judged, so they are not counted:"
            f" a source delivers in batches, a queue before us is behind, or clocks are wrong. {held}",
            check=("Is a queue or connector before the topic behind?",
                   "Are the events' times right? Compare some with the clock.",
                   "Do other topics run ahead? All sources share one event time."),
            do=("Have the source deliver in time.",
                "If it can not, raise `time.allowed_lateness_s`; findings come later by as much."),
            tune="As TrackingDeadLetters; `time.allowed_lateness_s` says what is late.",
            queries=("trustwatch:ingest_outcome:share10m", "max by (stage) (trustwatch_watermark_lag_seconds)"),
        ),
    )  # fmt: skip


def _held_back() -> Alert:
    return Alert(
        name="TrustAlertsHeldBack", area="data", value=f'{HELD_COUNT}{{reason="tracking"}}', by=("reason",), above=0.0,
        for_s=7200, keep_s=300,
        summary="Findings have been held back for two hours, because tracking is broken",
        description="{{ $value | humanize }} open findings have been told to nobody for two hours, because tracking is"
        " broken. They may be its doing, or real.",
        dashboard=names.DATA,
        means="While tracking is broken, and an hour longer, no new trust alert is told. That is meant for an hour or"
        " two. It may be a ticket only that breaks it (TrackingLate), and one source of several: the findings of all"
        " wait for it.",
        check=("Which source is it? The first query; see the alert of it: TrackingSilent, TrackingDeadLetters or"
               " TrackingLate.",
               "Which findings wait? The second query, or the status page.",
               "Do they have to do with that source? If not, they are real: tell their owners."),
        do=("Have the source mended. A source that will stay broken is taken out of `topics.raw`.",),
        tune="`after_broken_tracking_s` in `deploy/alerts.yaml` is how long they wait after it is whole again.",
        queries=(f"{SILENT} or {BROKEN}", f"{WORSE} unless {TOLD}", HELD_COUNT),
    )  # fmt: skip
