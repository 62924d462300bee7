"""The typed event, and what becomes of input that is none.

Every wire format becomes `Event` (see `streams.formats`); bytes that cannot become one become `Rejection`.
The structs are msgspec arrays, so a frame of some hundred events encodes in tens of microseconds.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Value: TypeAlias = str | bool | int | float

WEB_TYPES: Final = frozenset({
    "page_viewed", "page_pinged", "page_left", "clicked", "field_focused", "field_changed", "form_submitted",
    "form_failed", "searched", "compared", "item_added", "item_removed", "checkout_started", "purchased",
    "error_shown",
})  # fmt: skip
CRM_TYPES: Final = frozenset({
    "lead_created", "lead_scored", "lead_handed_over", "lead_accepted", "lead_rejected", "lead_touched", "lead_won",
    "lead_lost", "email_sent", "email_opened", "email_clicked", "unsubscribed", "complained", "order_placed",
    "order_delivered", "case_opened", "case_solved", "survey_answered", "renewed", "churned",
})  # fmt: skip
FORGET_TYPES: Final = frozenset({"erasure_requested", "consent_withdrawn"})
SAID_TYPES: Final = frozenset({"acknowledged", "disputed", "dispute_resolved"})
"""What people say of findings and guardrails (`streams.said`): on the line, so that it is exact and can be replayed."""
TOLD_TYPES: Final = SAID_TYPES | {"deployed", "definition_changed"}
"""Control events that judges are told of, in cells of the stage `control`."""
CONTROL_TYPES: Final = TOLD_TYPES | FORGET_TYPES
CLOCK: Final = "clock"
"""Punctuation: its source promises that nothing older than `time` follows. Sent by `replay` at the end of a file and
by sources that are often quiet; it moves the watermark, belongs to no person and is not counted as an event."""
LINKED: Final = "linked"
"""Made by the door: `person` and `also_person` are one. Told to all partitions (see `streams.identity`)."""
RENAMED: Final = "renamed"
"""Made by the door while keys are changed: `person` was `also_person` under the previous key."""
OTHER: Final = "other"
"""A well-formed event whose vendor name nobody mapped: counted and kept in the session, never an error."""

EVENT_TYPES: Final = WEB_TYPES | CRM_TYPES | CONTROL_TYPES | {OTHER}

_FIRST: Final = (RENAMED, "erasure_requested", "consent_withdrawn", LINKED, "lead_created", OTHER, "lead_scored",
                 "lead_handed_over", "lead_touched", "lead_accepted", "lead_rejected", "lead_won", "lead_lost",
                 "page_viewed")  # fmt: skip
RANK: Final = {kind: rank for rank, kind in enumerate([*_FIRST, *sorted(EVENT_TYPES - {*_FIRST})])}
"""The order of events of one person that carry the same time (CRM webhooks often do): created, labelled, scored, …"""

NOTE: Final = "note"
"""Property of `SAID_TYPES` alone: words of our own people, scrubbed word by word; of other events it is dropped."""
PROPERTY_TYPES: Final[dict[str, type[float] | type[bool] | type[str]]] = {
    "dwell_s": float, "scroll_ratio": float, "element": str, "x": float, "y": float, "dead": bool, "form": str,
    "field": str, "value": float, "score": float, "model": str, "reason": str, "promised_at": float, "correct": bool,
    "kind": str, "scale_max": float, "what": str, NOTE: str,
}  # fmt: skip
"""The only properties that pass the door, with their type; times are epoch seconds. All others are dropped."""

Reason = Literal[
    "empty", "too_large", "not_json", "not_an_object", "unknown_format", "unknown_type", "missing_field", "bad_field",
    "bad_time", "time_out_of_range", "not_finite", "empty_batch", "nested_batch", "too_deep", "tombstone",
    "reader_failed",
]  # fmt: skip
REASONS: Final[tuple[str, ...]] = Reason.__args__  # type: ignore[attr-defined]


class Former(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an event is called under the previous key, so that a session in which keys change goes on to its end.

    Attributes:
        person: pseudonym.
        session: digest of the given session id.
        page_id: digest of the path.
    """

    person: str
    session: str | None = None
    page_id: str | None = None


class Event(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One thing that one person did or that happened to one lead.

    Attributes:
        id: unique within its source; repeats within the dedupe window are dropped.
        type: one of `EVENT_TYPES` (or `CLOCK`, inside ingest only).
        time: corrected event time, seconds since the epoch, UTC. Windows use it.
        person: visitor, contact or lead; raw out of a format, a pseudonym after `streams.privacy`.
        device_time: the device's own clock in seconds, for gaps within a session; None if unknown.
        also_person: a second id of the same person (identify, alias). `person` is the one that goes on: an open session
            under the other ends without a drop.
        session: a session id given by the source; None lets the gap decide.
        page: path only, templated (`/orders/:id`) after `streams.privacy`.
        stage: journey stage given by the source; overrides the journey's own mapping.
        segment: bounded labels (`settings.segments.labels`), never a person.
        properties: only those of `PROPERTY_TYPES`.
        page_id: short keyed digest of the full path, set by `streams.privacy`: `/products/1` and `/products/2` are one
            template but two pages to go back and forth between.
        former: the same under the previous key, shortly after keys have changed; set by `streams.privacy`.
    """

    id: str
    type: str
    time: float
    person: str
    device_time: float | None = None
    also_person: str | None = None
    session: str | None = None
    page: str | None = None
    stage: str | None = None
    segment: dict[str, str] = {}
    properties: dict[str, Value] = {}
    page_id: str | None = None
    former: Former | None = None


class Rejection(msgspec.Struct, frozen=True):
    """Input that is no event: it ends as one dead letter.

    Attributes:
        reason: one word of `REASONS`; a metric label.
        detail: what exactly, for a human. Names fields and positions, never values.
        person: who it was about, if that could be read (needed for erasure); pseudonym after `streams.privacy`.
    """

    reason: Reason
    detail: str
    person: str | None = None


Outcome: TypeAlias = Event | Rejection
"""What one consumed item became. A wire message holds one item, or several (a batch)."""
