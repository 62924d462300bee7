"""Salesforce Change Data Capture: what changed in records, as CometD or the Pub/Sub API (decoded to JSON) delivers it.

Spec: "Change Data Capture Developer Guide" (ChangeEventHeader Fields, Change Event Body Fields, Merged Change Events,
Gap Events, Overflow Events, Change Events for Lead Conversion). One message may name several records, which gives an
outcome for each; and what changed in a record may mean several things at once (a new owner and a new status), which
gives an event for each, of different ids.

- `changedFields` decides what an update changed: enriched fields come along unchanged and say nothing. Where it is
  absent (API before 47.0) or a bitmap (Pub/Sub API, unreadable without the schema), each field that is there counts.
- `GAP_*` says that something changed, not what: nothing can be made of it, so it is refused, record by record, and the
  gap shows among the dead letters. So do `GAP_OVERFLOW` and wildcards (`001*`), which name no record at all.
- A deletion is no erasure: Salesforce keeps deleted records in its bin, and people delete duplicates. It is `other`;
  map `Lead.DELETE` to `erasure_requested` if it means that to you. `Individual.ShouldForget` is an erasure.
- A conversion comes as several changes of one transaction. Account, contact and opportunity that it creates are
  `other` under their own ids; the lead's own update accepts it, once, and ties the other ids to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from streams.events import OTHER, Event, Outcome, Rejection, Value
from streams.formats._common import (
    MAX_ID_CHARS,
    MAX_TEXT_CHARS,
    Fields,
    FormatOptions,
    Refused,
    required,
    text,
    wrong,
)
from streams.formats._email import when_s
from streams.formats._fields import properties_of
from streams.formats._format import Format
from streams.formats._names import VendorNames
from streams.formats._several import several

HEADER: Final = "ChangeEventHeader"
_BITMAP: Final = re.compile(r"(?:\d+-)?0x[0-9A-Fa-f]+")
_CHANGES: Final = frozenset({"CREATE", "UPDATE", "DELETE", "UNDELETE", "SNAPSHOT"})
_GAPS: Final = frozenset({"GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE"})
_NO_RECORD: Final = "000000000000000"
"""Id of no record, which overflow events carry."""
_ENVELOPES: Final = ("payload", "data", "event")
"""Where an envelope holds what it brings; CometD's `event` beside `payload` only counts, the Pub/Sub API's has it."""
_ACTIVITIES: Final = frozenset({"Task", "Event"})
"""Records that are about a person rather than one: `WhoId` names the lead or contact."""
_LINKS: Final[dict[str, tuple[str, ...]]] = {
    "Lead": ("ConvertedContactId", "ConvertedOpportunityId", "IndividualId"),
    "Contact": ("IndividualId",),
    "Opportunity": ("ContactId",),
    "Case": ("ContactId",),
    "OpportunityContactRole": ("ContactId", "OpportunityId"),
}
"""Fields that name other records of the same person."""
_AVRO: Final = frozenset({"string", "long", "int", "double", "float", "boolean"})
_REASONED: Final = frozenset({"lead_rejected", "lead_lost"})


class _Fact(msgspec.Struct, gc=False):
    """One thing that a change means."""

    kind: str
    properties: dict[str, Value] = {}
    also: str | None = None


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """All that one message says, or each message of an array, in order."""
    return several(value, options, _message, _person_of)


def _body_of(value: Any) -> Fields | None:
    """The record's fields with their header, from whichever envelope: CometD's, the Pub/Sub API's, or none."""
    for _ in range(3):
        if not isinstance(value, dict):
            return None
        if HEADER in value:
            return value
        value = next((value[name] for name in _ENVELOPES if name in value), None)
    return None


def _message(value: Fields, options: FormatOptions) -> Iterator[Outcome]:
    body = _body_of(value)
    if body is None:
        raise Refused("missing_field", f"payload.{HEADER}: missing, so this is no change event")
    header = body[HEADER]
    if not isinstance(header, dict):
        raise wrong(header, HEADER, "an object")
    entity = required(text(header, "entityName"), f"{HEADER}.entityName")
    change = required(text(header, "changeType"), f"{HEADER}.changeType")
    records = header.get("recordIds")
    if not isinstance(records, list) or not records:
        raise Refused("missing_field", f"{HEADER}.recordIds: missing or empty")
    limit = options.max_batch_items
    told = None
    for record in records[:limit]:
        why = _unfit(record, change)
        if why is None:
            told = told or _told(entity, change, header, body, options)
            yield from told(record)
        else:
            yield Rejection(why.reason, why.detail, _readable(record))
    for record in records[limit:]:
        yield Rejection("too_large", f"recordIds: more than ingest.max_batch_items = {limit}", _readable(record))


def _person_of(fields: Fields) -> str | None:
    """Whom a refused message is about: its record, where it names just one."""
    header = (_body_of(fields) or {}).get(HEADER)
    records = header.get("recordIds") if isinstance(header, dict) else None
    return _readable(records[0]) if isinstance(records, list) and len(records) == 1 else None


def _readable(record: object) -> str | None:
    if not isinstance(record, str) or not 0 < len(record) <= MAX_ID_CHARS or _names_none(record):
        return None
    return record


def _told(
    entity: str, change: str, header: Fields, body: Fields, options: FormatOptions
) -> Callable[[str], Iterable[Outcome]]:
    """What the change says of each of its records."""
    try:
        time_s = when_s(header, "commitTimestamp", options)
        fields = {name: _plain(value) for name, value in body.items() if name != HEADER}
        facts = _facts(entity, change, fields, _changed(header, change, fields), options.names["salesforce"])
        labels, key = _labels(fields, options), _key(header, body)
    except Refused as refused:
        why = refused
        return lambda record: [Rejection(why.reason, why.detail, record)]
    whose = _linked(fields, "WhoId") if entity in _ACTIVITIES else None
    return lambda record: _events(record, whose or record, time_s, key, facts, labels)


def _names_none(record: str) -> bool:
    return "*" in record or record.startswith(_NO_RECORD)


def _unfit(record: object, change: str) -> Refused | None:
    """Why nothing can be made of a change of this record."""
    if not isinstance(record, str) or not 0 < len(record) <= MAX_ID_CHARS:
        return Refused("bad_field", f"{HEADER}.recordIds: a string of at most {MAX_ID_CHARS} characters was expected")
    if change == "GAP_OVERFLOW":
        return Refused("missing_field", "GAP_OVERFLOW: too many changes in one transaction, Salesforce sent neither"
                       " their records nor their fields; read them again from Salesforce")  # fmt: skip
    if _names_none(record):
        return Refused("missing_field", f"{HEADER}.recordIds: a wildcard or empty id names no record")
    if change in _GAPS:
        return Refused("missing_field", f"{change}: a gap event carries no fields, so what changed in the record is"
                       " unknown; read it again from Salesforce")  # fmt: skip
    if change not in _CHANGES:
        return Refused("unknown_type", f"{HEADER}.changeType: none of the change types")
    return None


def _plain(value: Any) -> Any:
    """The value out of Avro's JSON encoding of unions, such as {"string": "Open"}."""
    if isinstance(value, dict) and len(value) == 1:
        name, inner = next(iter(value.items()))
        return inner if name in _AVRO else value
    return value


def _changed(header: Fields, change: str, fields: Fields) -> list[str]:
    """Names of the fields that this change set."""
    present = [name for name, value in fields.items() if value is not None]
    named = header.get("changedFields")
    if change == "CREATE":
        return present
    if change != "UPDATE":
        return []
    if not isinstance(named, list) or not named:
        return present
    names = [name for name in named if isinstance(name, str)]
    if any(_BITMAP.fullmatch(name) for name in names):
        return present
    wanted = {name.partition(".")[0] for name in names}
    return [name for name in present if name in wanted]


def _facts(entity: str, change: str, fields: Fields, changed: list[str], names: VendorNames) -> list[_Fact]:
    """What the change means; each type once, since a conversion is told by two fields, and `other` if nothing."""
    told: dict[str, _Fact] = {}
    if entity not in _ACTIVITIES or _linked(fields, "WhoId") is not None:
        if (kind := names.event(f"{entity}.{change}")) != OTHER:
            told[kind] = _Fact(kind, _properties(kind, "", fields, names))
        for field in changed:
            word = _word(fields[field])
            if (kind := _meaning(names.changes.get(f"{entity}.{field}"), word, change)) != OTHER:
                told.setdefault(kind, _Fact(kind, _properties(kind, word, fields, names)))
        if (scored := _score(changed, fields, names)) is not None:
            told["lead_scored"] = scored
    facts = list(told.values()) or [_Fact(OTHER)]
    links = [record for name in _LINKS.get(entity, ()) if (record := _linked(fields, name)) is not None]
    facts += [_Fact(OTHER) for _ in links[len(facts) :]]  # an event ties two ids, so a third takes another event
    for at, fact in enumerate(facts):
        fact.also = links[min(at, len(links) - 1)] if links else None
    return facts


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value[:MAX_TEXT_CHARS].lower() if isinstance(value, str) else ""


def _meaning(values: Mapping[str, str] | None, word: str, change: str) -> str:
    """The type of a field's new value. A beginning (`005*`) means a change of hands, so not what a new record has."""
    if not values or not word:
        return OTHER
    kind = values.get(word)
    if kind is None and change == "UPDATE":
        kind = next((kind for begin, kind in values.items() if begin[-1:] == "*" and word.startswith(begin[:-1])), None)
    return kind or OTHER


def _properties(kind: str, word: str, fields: Fields, names: VendorNames) -> dict[str, Value]:
    found = properties_of(names.properties.get(kind), fields)
    if kind in _REASONED and word and "reason" not in found:
        found["reason"] = word
    return found


def _score(changed: list[str], fields: Fields, names: VendorNames) -> _Fact | None:
    """The score of a lead, if one of the fields that hold scores was set; the field is the model's name."""
    scores = names.properties.get("lead_scored", {}).get("score", ())
    field = next((name for name in scores if name in changed), None)
    if field is None:
        return None
    return _Fact("lead_scored", properties_of({"score": (field,)}, fields) | {"model": field})


def _linked(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS else None


def _labels(fields: Fields, options: FormatOptions) -> dict[str, str]:
    found = {}
    for name, label in options.names["salesforce"].labels.items():
        if label in options.labels and (word := _word(fields.get(name))):
            found[label] = word
    return found


def _key(header: Fields, body: Fields) -> str:
    """What tells this change from all others, also when it is delivered again."""
    transaction, number = header.get("transactionKey"), header.get("sequenceNumber")
    if isinstance(transaction, str) and 0 < len(transaction) <= MAX_ID_CHARS and type(number) is int:
        return f"{transaction}:{number}"
    return hashlib.blake2b(msgspec.json.encode(body), digest_size=16).hexdigest()


def _events(
    record: str, person: str, time_s: float, key: str, facts: list[_Fact], labels: dict[str, str]
) -> Iterator[Event]:
    for at, fact in enumerate(facts):
        yield Event(
            id=f"{key}:{record}:{fact.kind if fact.kind != OTHER else at}",
            type=fact.kind,
            time=time_s,
            person=person,
            also_person=fact.also if fact.also != person else None,
            segment=labels.copy(),
            properties=fact.properties.copy(),
        )


def recognises(value: Any) -> bool:
    """A change event has its header, in whichever envelope; one of an array is enough."""
    if isinstance(value, list):
        return any(_body_of(item) is not None for item in value)
    return _body_of(value) is not None


FORMAT: Final = Format(
    name="salesforce",
    takes="Salesforce Change Data Capture: CometD messages, or events of the Pub/Sub API decoded to JSON; single or in"
    " an array.",
    spec='"Change Data Capture Developer Guide": ChangeEventHeader Fields, Change Event Body Fields, Merged Change'
    ' Events, Gap Events, Overflow Events, Change Events for Lead Conversion',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("an event with several `recordIds`", "one or more events for each", ""),
        ("a change that means several things", "an event for each", "each type once a change"),
        ("fields that are not in `changedFields`", "nothing, but may fill labels and properties",
         "as a bitmap or absent: each field that is there counts"),
        ("a first value of a field with a pattern (`005*`)", "nothing", "patterns are changes of hands"),
        ("a field that `lead_scored` is read from", "lead_scored", "model = the field"),
        ("Task or Event without `WhoId`", "other", "nobody is known to have been touched"),
        ("`ConvertedContactId`, `ConvertedOpportunityId`, `ContactId`, `IndividualId`", "also_person", ""),
        ("DELETE, UNDELETE", "other", "a deletion is no erasure; map `Lead.DELETE` if it is one to you"),
        ("GAP_CREATE, GAP_UPDATE, GAP_DELETE, GAP_UNDELETE", "dead letter `missing_field`", "no fields: unknown what"),
        ("GAP_OVERFLOW, wildcard ids (`001*`)", "dead letter `missing_field`", "no record is named"),
        ("other objects, fields and values", "other", "person = record id"),
    ),
)  # fmt: skip
