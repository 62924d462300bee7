"""What the formats of e-mail services share: to whom, when, and whether a machine did it.

An address is the person (or a second id of one) and becomes a pseudonym at the door; nothing else of a message passes
but its campaign. Mail services and scanners open and click by themselves: what a service or the agent gives away as a
machine's is `other`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from streams.events import OTHER, Event
from streams.formats._common import Fields, FormatOptions, Refused, epoch_s, identity, readable_id, required, within
from streams.formats._names import VendorNames

BY_MACHINE: Final = (
    "sg_machine_open", "machine_open", "machineOpen", "isMachineOpen", "prefetched", "isBot", "bot", "machine",
)  # fmt: skip
"""Flags by which services mark opens and clicks of machines."""
_HUMAN_ACTS: Final = frozenset({"email_opened", "email_clicked"})
_PREFETCHER: Final = "Mozilla/5.0"
"""All that Apple's Mail Privacy Protection says of itself; browsers say more."""
_AGENTS: Final = ("agent", "useragent", "userAgent", "user_agent")
_NUMERIC: Final = re.compile(r"\d{9,13}(?:\.\d+)?")
_NO_ADDRESS: Final = re.compile(r"[\s/#]")
_GAP_BEFORE_ZONE: Final = re.compile(r"\s+(?=[+-]\d\d:?\d\d$|Z$)")


def address(fields: Fields, *names: str) -> str | None:
    """The first of these fields that holds an address or id; addresses without regard to case, as services differ."""
    for name in names:
        value = identity(fields, name, numbers=True)
        if value is not None and (value := value.strip()):
            return value.lower() if "@" in value else value
    return None


def mailbox(fields: Fields, *names: str) -> str | None:
    """The first of these fields that holds an e-mail address; some services put channels and URLs beside addresses."""
    for name in names:
        value = whom(fields, name)
        if value is not None and "@" in value and _NO_ADDRESS.search(value) is None:
            return value
    return None


def whom(fields: Fields, *names: str) -> str | None:
    """The same for a refused item, whom it is about if that can be read; never refuses."""
    for name in names:
        found = readable_id(fields, name)
        if found is not None and (found := found.strip()):
            return found.lower() if "@" in found else found
    return None


def people(expected: str, *candidates: str | None) -> tuple[str, str | None]:
    """Person and second id: the first two different ones.

    Raises:
        Refused: `missing_field`, there is none of what was `expected`.
    """
    found = list(dict.fromkeys(one for one in candidates if one is not None))
    return required(found[0] if found else None, expected), found[1] if len(found) > 1 else None


def event_type(name: str, names: VendorNames, places: Sequence[Fields]) -> str:
    """The type of a service's event; `other` where a machine opened or clicked."""
    kind = names.event(name)
    return OTHER if kind in _HUMAN_ACTS and is_machine(kind, places) else kind


def is_machine(kind: str, places: Sequence[Fields]) -> bool:
    """Whether any of these parts of an event says that a machine did it."""
    for place in places:
        if any(_says_yes(place.get(flag)) for flag in BY_MACHINE):
            return True
        source = place.get("proxySource")
        if isinstance(source, str) and source.casefold() == "apple":
            return True
        if kind == "email_opened" and any(place.get(name) == _PREFETCHER for name in _AGENTS):
            return True
    return False


def _says_yes(flag: object) -> bool:
    return flag is True or flag == 1 or (isinstance(flag, str) and flag.lower() in {"true", "1"})


def when_s(fields: Fields, field: str, options: FormatOptions) -> float:
    """An event's time: epoch seconds or milliseconds, also as text, or ISO 8601, also with a blank before the zone.

    Raises:
        Refused: `missing_field`, `bad_time`, `not_finite` or `time_out_of_range`.
    """
    value: Any = fields.get(field)
    if value is None or value == "":
        raise Refused("missing_field", f"{field}: missing or empty")
    if isinstance(value, str):
        value = value[:64].strip()
        value = float(value) if _NUMERIC.fullmatch(value) else _GAP_BEFORE_ZONE.sub("", value)
    return within(epoch_s(value, field), field, options)


def digest(*parts: object) -> str:
    """An id for events of services that give none: retries have the same."""
    return hashlib.blake2b(msgspec.json.encode([str(part)[:4096] for part in parts]), digest_size=16).hexdigest()


def campaign(options: FormatOptions, *candidates: object) -> dict[str, str]:
    """The campaign label, of the first candidate that is one; services give names, numbers or arrays of names."""
    if "campaign" not in options.labels:
        return {}
    for value in candidates:
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, int) and not isinstance(first, bool) and abs(first) < 10**18:
            return {"campaign": str(first)}
        if isinstance(first, str) and first:
            return {"campaign": first[:256]}
    return {}


def inner(fields: Fields, field: str) -> Fields:
    """A part that is an object; of another shape it says nothing."""
    value = fields.get(field)
    return value if isinstance(value, dict) else {}


def has_any(value: Any, test: Callable[[Fields], bool]) -> bool:
    """Whether an object, or one of an array, passes the test."""
    if isinstance(value, dict):
        return test(value)
    return isinstance(value, list) and any(isinstance(item, dict) and test(item) for item in value)


def mail_event(
    event_id: str, kind: str, time_s: float, people_: tuple[str, str | None], labels: dict[str, str]
) -> Event:
    """An event about one message to one person."""
    return Event(event_id, kind, time_s, people_[0], also_person=people_[1], segment=labels)
