"""Refiner's webhooks: a person, and the response to a survey that triggered the call.

Spec: "Webhooks" of Refiner's documentation, which RudderStack's Refiner source takes, too. Refiner names questions as
whoever made the survey did: a question counts where its name says nps, csat or ces as a word (`nps_score`), or where
the survey's name does and it has a single score. Other answers never pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from streams.events import OTHER, Event, Outcome
from streams.formats._common import Fields, FormatOptions, required, text
from streams.formats._email import address, campaign, digest, has_any, inner, people, when_s, whom
from streams.formats._format import Format
from streams.formats._several import several
from streams.formats._survey import named_answers, score_properties

_TIMES: Final = ("completed_at", "last_data_reception_at", "received_at", "dismissed_at", "last_shown_at")


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """What one call says, or all of an array."""
    return several(value, options, _events, _person_of)


def _person_of(fields: Fields) -> str | None:
    return whom(fields, "remote_id", "email", "uuid")


def _events(fields: Fields, options: FormatOptions) -> Iterator[Outcome]:
    trigger = required(text(fields, "triggered_event"), "triggered_event")
    who = people(
        "remote_id, email or uuid", address(fields, "remote_id"), address(fields, "email"), address(fields, "uuid")
    )
    response, form = inner(fields, "response"), inner(fields, "form")
    named = next((name for name in _TIMES if response.get(name)), None)
    time_s = when_s(response, named, options) if named else when_s(fields, "last_seen_at", options)
    labels = campaign(options, form.get("name"))
    kind = options.names["refiner"].event(trigger)
    given = address(response, "uuid") or digest(trigger, *who, time_s)
    answers = list(named_answers(response.get("data"), form.get("name"))) if kind == "survey_answered" else []
    if not answers:
        kind = OTHER if kind == "survey_answered" else kind
        yield Event(f"{given}:{trigger[:64]}", kind, time_s, who[0], also_person=who[1], segment=labels)
    for name, metric, score in answers:
        yield Event(f"{given}:{name}", kind, time_s, who[0], also_person=who[1], segment=dict(labels),
                    properties=score_properties(metric, score))  # fmt: skip


def recognises(value: Any) -> bool:
    """`triggered_event` beside a response, a form or a project of Refiner's."""
    return has_any(
        value,
        lambda item: "triggered_event" in item and not item.keys().isdisjoint({"response", "form", "project_uuid"}),
    )


FORMAT: Final = Format(
    name="refiner",
    takes="Refiner's webhooks: one call, or an array of them.",
    spec='"Webhooks" of Refiner\'s documentation; "Refiner source" of RudderStack\'s',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("each score whose question is called nps, csat or ces (`nps_score`)", "survey_answered",
         "kind, score; scale_max 10, 5, 7"),
        ("the only score of a survey that is called so", "survey_answered", ""),
        ("a response without such a score, other triggers", "other", ""),
        ("`remote_id`, else `email`, else `uuid`", "person", "the next of them also_person"),
        ("all other answers, attributes, segments, account", "nothing", "free text never passes"),
    ),
)  # fmt: skip
