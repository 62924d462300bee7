"""What RudderStack's cloud sources make of e-mail and survey webhooks: track calls that name the service they are of.

Spec: "Event Stream Cloud Sources" of RudderStack's documentation, a page each for Mailjet, Iterable, Customer.io,
Braze, SatisMeter and Refiner. They keep the names that the service uses (`open`, `click`, `emailSend`), which mean
something else in a Segment call, so the service's own section of `names.yaml` decides; and its machine opens stay such.
What RudderStack's servers add on the way, an id and times, may be missing where a call comes from its transformation.
"""

from __future__ import annotations

from typing import Final

from streams.events import OTHER, Event
from streams.formats._common import MAX_TEXT_CHARS, Fields, FormatOptions, readable_id
from streams.formats._email import digest, event_type, inner, mailbox
from streams.formats._names import normalise
from streams.formats._survey import metric_answers, named_answers, score_of, score_properties

_SECTIONS: Final = {name: name for name in ("mailjet", "iterable", "customerio", "braze", "satismeter", "refiner")}
"""Name of the integration, normalised → section of names."""


_TIMES: Final = ("timestamp", "originalTimestamp", "receivedAt", "sentAt")
_NOBODY: Final = "No response"
"""The user id that SatisMeter gives to all whom it does not know: taken for an id, it would make them one person."""


def service_of(context: Fields) -> str | None:
    """The section of names of the service that a track call came from; None for calls of a tracker."""
    integration = context.get("integration")
    name = integration.get("name") if isinstance(integration, dict) else None
    return _SECTIONS.get(normalise(name[:64])) if isinstance(name, str) else None


def completed(fields: Fields, service: str) -> Fields:
    """The call with an id, a time and a person, as far as the service told them elsewhere."""
    call, given = fields.copy(), inner(fields, "properties")
    if call.get("userId") == _NOBODY:
        del call["userId"]
    if not call.get("messageId"):
        call["messageId"] = digest(service, call.get("type"), *map(call.get, ("event", "userId", "anonymousId")),
                                   *map(call.get, _TIMES), given)  # fmt: skip
    if all(call.get(name) is None for name in _TIMES) and given.get("receivedAt") is not None:
        call["timestamp"] = given["receivedAt"]
    if not call.get("userId") and not call.get("anonymousId") and (contact := _contact(inner(fields, "context"))):
        call["userId"] = contact
    return call


def _contact(context: Fields) -> str | None:
    """Mailjet's contact, whom it names where there is no address."""
    ids = context.get("externalId")
    for given in ids if isinstance(ids, list) else ():
        if isinstance(given, dict) and given.get("type") == "mailjetContactId" and (known := readable_id(given, "id")):
            return f"mailjet:{known}"
    return None


def retell(event: Event, service: str, fields: Fields, options: FormatOptions) -> None:
    """Give an event of a track call the meaning that its name has with the service."""
    given, context = inner(fields, "properties"), inner(fields, "context")
    name = fields.get("event")
    known = options.names[service]
    event.type = event_type(name[:MAX_TEXT_CHARS] if isinstance(name, str) else "", known, (given, context))
    event.page = event.session = None  # a page that was linked to is none that was seen
    if event.also_person is None and (mail := mailbox(inner(context, "traits"), "email")) != event.person:
        event.also_person = mail
    event.properties = {}
    if event.type == "unsubscribed" and service == "customerio":
        event.id = digest(event.type, event.person, int(event.time))  # told twice, see `customerio`
    if event.type == "survey_answered":
        _score(event, given)


def _score(event: Event, given: Fields) -> None:
    """A call holds one event, so of several scores the most telling counts."""
    response = inner(given, "response")
    answers = {kind: score for _, kind, score in metric_answers(given.get("answers"))}
    answers |= {kind: score for _, kind, score in named_answers(response.get("data"), given.get("refiner_form_name"))}
    if not answers and (score := score_of(given.get("rating"))) is not None:
        answers = {"nps": score}
    kind = next((kind for kind in ("nps", "csat", "ces") if kind in answers), None)
    if kind is None:
        event.type = OTHER
    else:
        event.properties = score_properties(kind, answers[kind])
