"""SatisMeter's webhooks: a person's response to a survey.

Spec: "Webhooks" of SatisMeter's help centre, which RudderStack's SatisMeter source takes, too. A response with several
questions of a metric gives an event for each. Comments and choices never pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from streams.events import OTHER, Event, Outcome
from streams.formats._common import Fields, FormatOptions, required, text
from streams.formats._email import address, campaign, digest, has_any, inner, people, when_s, whom
from streams.formats._format import Format
from streams.formats._several import several
from streams.formats._survey import metric_answers, score_of, score_properties

_NO_ID: Final = "No response"
"""What SatisMeter writes where it knows no user id."""


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """What one response says, or all of an array."""
    return several(value, options, _events, _person_of)


def _person_of(fields: Fields) -> str | None:
    user = inner(inner(fields, "response"), "user")
    return whom(user, *(name for name in ("userId", "email", "id") if user.get(name) != _NO_ID))


def _events(fields: Fields, options: FormatOptions) -> Iterator[Outcome]:
    response = inner(fields, "response")
    user = {name: value for name, value in inner(response, "user").items() if value != _NO_ID}
    own = address(response, "id")
    who = people(
        "response.user.userId, email or id",
        address(user, "userId"), address(user, "email"), address(user, "id"), own,
    )  # fmt: skip
    time_s = when_s(response, "created", options)
    labels = campaign(options, inner(fields, "campaign").get("name")) | _country(response, options)
    name = required(text(fields, "event"), "event")
    kind = options.names["satismeter"].event(name)
    answers = _answers(response) if kind == "survey_answered" else []
    given = own or digest(*who, time_s)
    if not answers:
        kind = OTHER if kind == "survey_answered" else kind
        yield Event(f"{given}:{name[:64]}", kind, time_s, who[0], also_person=who[1], segment=labels)
    for question, metric, score in answers:
        yield Event(f"{given}:{question}", kind, time_s, who[0], also_person=who[1], segment=dict(labels),
                    properties=score_properties(metric, score))  # fmt: skip


def _answers(response: Fields) -> list[tuple[str, str, float]]:
    found = list(metric_answers(response.get("answers")))
    if not found and response.get("dismissed") is not True and (score := score_of(response.get("rating"))) is not None:
        return [("rating", "nps", score)]  # responses older than surveys of several questions: NPS was all there was
    return found


def _country(response: Fields, options: FormatOptions) -> dict[str, str]:
    country = inner(response, "location").get("country")
    if isinstance(country, str) and country and "country" in options.labels:
        return {"country": country[:64]}
    return {}


def recognises(value: Any) -> bool:
    """A `response` with answers or a rating, beside the name of an event."""
    return has_any(value, lambda item: "event" in item and not inner(item, "response").keys().isdisjoint(_OWN_FIELDS))


_OWN_FIELDS: Final = {"answers", "rating"}

FORMAT: Final = Format(
    name="satismeter",
    takes="SatisMeter's webhooks: one response to a survey, or an array of them.",
    spec='"Webhooks" of SatisMeter\'s help centre; "SatisMeter source" of RudderStack\'s documentation',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("each answer with `metric` nps, csat or ces", "survey_answered", "kind, score; scale_max 10, 5, 7"),
        ("`rating`, where no answer has a metric", "survey_answered", "kind nps"),
        ("a response without score, other events", "other", ""),
        ("`user.userId`, else `email`, else `user.id`", "person", "the next of them also_person"),
        ("labels and values of all other answers, `feedback`, traits", "nothing", "free text never passes"),
    ),
)
