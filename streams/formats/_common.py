"""What every wire format needs: bounded JSON, typed fields, times, and one way to refuse.

Inside this package a reader refuses input by raising `Refused`; `attempt` and `streams.formats.decode` turn that into
a `Rejection`, so that nothing escapes the package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from streams.errors import ConfigError
from streams.events import PROPERTY_TYPES, Event, Outcome, Reason, Rejection, Value
from streams.formats._names import Names, load_names
from streams.formats._tables import NO_TABLES, TableMap, load_tables
from streams.settings import Settings

MAX_ID_CHARS: Final = 512
"""Longer ids are refused: cutting one could merge two people."""
MAX_TEXT_CHARS: Final = 2048
"""Other strings are cut to this; `streams.privacy` cuts labels far shorter."""
MILLISECONDS_FROM: Final = 1e11
"""Numbers above are epoch milliseconds: as seconds this is the year 5138, as milliseconds 1973."""
MAX_INT_DIGITS: Final = 400
"""Integers with more digits exceed any float, and Python refuses to print them above 4,300."""

NOBODY: Final = frozenset({
    "", "0", "anonymous", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email", "undefined", "true",
    "false", "null", "none", "nan", "nil", "[object object]", "$posthog_cookieless",
    "00000000-0000-0000-0000-000000000000",
})  # fmt: skip
"""Ids that broken or cookieless installations give to everybody (lower case): taken for an id, they join strangers."""
_LONGEST_NOBODY: Final = max(map(len, NOBODY))

_MAX_INT: Final = 10**MAX_INT_DIGITS
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # what times without zone are counted from, where they are UTC

Fields: TypeAlias = dict[str, Any]


class Refused(Exception):
    """This input is no event. Never leaves `streams.formats`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class FormatOptions(msgspec.Struct, frozen=True):
    """What a format may know about the installation.

    Attributes:
        now_s: the caller's clock, epoch seconds; formats read none themselves.
        earliest_s: older event times are refused, epoch seconds.
        max_future_s: event times further ahead of `now_s` are refused, seconds.
        max_event_bytes: a larger message is refused before it is parsed.
        max_batch_items: items of one batch beyond this are refused one by one.
        labels: segment labels that may pass.
        hubspot_score_properties: HubSpot properties that hold a lead score.
        names: vendor names and what they mean here.
        arrived_s: when the message was written to Kafka, epoch seconds; None where it lies in a recorded file. The time
            of events that say nothing of theirs.
        tables: the user's map of tables that Debezium watches.
    """

    now_s: float
    earliest_s: float
    max_future_s: float
    max_event_bytes: int
    max_batch_items: int
    labels: tuple[str, ...]
    hubspot_score_properties: tuple[str, ...]
    names: Names
    arrived_s: float | None = None
    tables: TableMap = NO_TABLES

    @classmethod
    def from_settings(cls, settings: Settings, now_s: float) -> FormatOptions:
        """Take what formats need out of the settings.

        Raises:
            ConfigError: `ingest.earliest_time` is no time, or `names_file` or `ingest.debezium_map` no valid file.
        """
        ingest = settings.ingest
        try:
            earliest_s = epoch_s(ingest.earliest_time, "ingest.earliest_time")
        except Refused as refused:
            raise ConfigError(f"{refused.detail}, for example 2000-01-01T00:00:00Z") from refused
        return cls(
            now_s=now_s,
            earliest_s=earliest_s,
            max_future_s=ingest.max_future_s,
            max_event_bytes=ingest.max_event_bytes,
            max_batch_items=ingest.max_batch_items,
            labels=settings.segments.labels,
            hubspot_score_properties=ingest.hubspot_score_properties,
            names=load_names(settings.names_file),
            tables=load_tables(ingest.debezium_map),
        )

    def at(self, now_s: float) -> FormatOptions:
        """The same options for messages that were written at this time: cheap, for every fetched batch."""
        return msgspec.structs.replace(self, now_s=now_s, arrived_s=now_s)


_decode_json = msgspec.json.Decoder().decode


def parse(raw: bytes) -> Any:
    """JSON to Python values.

    Raises:
        Refused: `not_json`, or `too_deep` (nesting that exhausts the parser).
    """
    try:
        return _decode_json(raw)
    except RecursionError as error:
        raise Refused("too_deep", "JSON nested too deeply") from error
    except msgspec.ValidationError:
        return _parse_leniently(raw)  # a number no machine type holds; it may sit in a field nobody reads
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if b"NaN" in raw or b"Infinity" in raw or raw.startswith(b"\xef\xbb\xbf"):
            return _parse_leniently(raw)
        raise Refused("not_json", "not JSON in UTF-8") from error


def _parse_leniently(raw: bytes) -> Any:
    """The slow parser, for numbers that JSON or machines do not know and for a byte order mark.

    They become infinities, which are refused as `not_finite` only where a field is used.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_int=_bounded_int)
        msgspec.json.encode(value)  # this parser lets lone surrogates through, which no output could carry
    except RecursionError as error:
        raise Refused("too_deep", "JSON nested too deeply") from error
    except ValueError as error:
        raise Refused("not_json", "not JSON in UTF-8") from error
    return value


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else math.inf


def attempt(
    build: Callable[[Fields, FormatOptions], Event],
    person_of: Callable[[Fields], str | None],
    item: object,
    options: FormatOptions,
    position: int | None = None,
) -> Outcome:
    """Build one event, or say why not, about whom, and at which position of a batch."""
    where = "" if position is None else f"item {position}: "
    if not isinstance(item, dict):
        return Rejection("not_an_object", f"{where}a JSON object was expected")
    try:
        return build(item, options)
    except Refused as refused:
        return Rejection(refused.reason, where + refused.detail, person_of(item))


def each(
    items: list[object],
    options: FormatOptions,
    one: Callable[[int, object], Outcome],
    person_of: Callable[[Fields], str | None],
) -> list[Outcome]:
    """Outcomes of a batch, one per item, also of those beyond the limit."""
    if not items:
        return [Rejection("empty_batch", "a batch without items")]
    limit = options.max_batch_items
    outcomes = [one(position, item) for position, item in enumerate(items[:limit])]
    outcomes += [
        Rejection("too_large", f"item {position}: beyond ingest.max_batch_items = {limit}", readable(item, person_of))
        for position, item in enumerate(items[limit:], limit)
    ]
    return outcomes


def readable(item: object, person_of: Callable[[Fields], str | None]) -> str | None:
    """Whom a refused item is about, if it says so."""
    return person_of(item) if isinstance(item, dict) else None


def wrong(value: object, field: str, expected: str) -> Refused:
    """The refusal of a value of the wrong type."""
    if isinstance(value, float) and not math.isfinite(value):
        return Refused("not_finite", f"{field}: not a finite number")
    return Refused("bad_field", f"{field}: {expected} was expected")


def text(fields: Fields, field: str) -> str | None:
    """An optional string, cut to `MAX_TEXT_CHARS`; empty is None.

    Raises:
        Refused: `bad_field`, it is no string.
    """
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong(value, field, "a string")
    return value[:MAX_TEXT_CHARS] or None


def identity(fields: Fields, field: str, *, numbers: bool = False) -> str | None:
    """An optional id; empty is None, numbers become their decimal digits if allowed.

    Raises:
        Refused: `bad_field`, it is no id or longer than `MAX_ID_CHARS`.
    """
    value = fields.get(field)
    if value is None:
        return None
    if type(value) is not str:
        if not numbers or type(value) is not int or abs(value) >= _MAX_INT:
            raise wrong(value, field, "a string or whole number" if numbers else "a string")
        value = str(value)
    if len(value) > MAX_ID_CHARS:
        raise Refused("bad_field", f"{field}: longer than {MAX_ID_CHARS} characters")
    return value or None


def readable_id(fields: Fields, *names: str) -> str | None:
    """The first of these fields that is a usable id, for a rejection; never refuses."""
    for name in names:
        try:
            value = identity(fields, name, numbers=True)
        except Refused:
            continue  # the item is being refused already; this is only the search for whom it concerns
        if value is not None:
            return value
    return None


def is_nobody(value: str | None) -> bool:
    """Whether an id is one that everybody may have.

    >>> is_nobody("undefined"), is_nobody("NULL"), is_nobody("anna")
    (True, True, False)
    """
    return value is not None and len(value) <= _LONGEST_NOBODY and value.lower() in NOBODY


def required(value: str | None, field: str) -> str:
    """The value, which must be there.

    Raises:
        Refused: `missing_field`.
    """
    if value is None:
        raise Refused("missing_field", f"{field}: missing or empty")
    return value


def number(value: object, field: str) -> float:
    """A finite number.

    Raises:
        Refused: `bad_field` or `not_finite`.
    """
    if type(value) is not float and type(value) is not int:
        raise wrong(value, field, "a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise Refused("not_finite", f"{field}: not a finite number")
    return result


def epoch_s(value: object, field: str, *, naive_is_utc: bool = False) -> float:
    """A time as epoch seconds: ISO 8601 with date, time and zone, or epoch seconds or milliseconds.

    Args:
        value: what the source sent.
        field: its name, for the refusal.
        naive_is_utc: take a time without zone for UTC instead of refusing it.

    Raises:
        Refused: `bad_time` or `not_finite`.
    """
    if isinstance(value, str):
        return iso_s(value, field, naive_is_utc=naive_is_utc)
    if type(value) is not float and type(value) is not int:
        raise Refused("bad_time", f"{field}: neither ISO 8601 nor a number")
    seconds = number(value, field)
    return seconds / 1000 if abs(seconds) > MILLISECONDS_FROM else seconds


def iso_s(value: str, field: str, *, naive_is_utc: bool = False) -> float:
    """An ISO 8601 time as epoch seconds; see `epoch_s`.

    Raises:
        Refused: `bad_time`.
    """
    try:
        # A date alone parses too, but an event has a time of day: midnight would be an invention.
        moment = datetime.fromisoformat(value) if "T" in value or " " in value else None
    except ValueError:
        moment = None
    if moment is None:
        raise Refused("bad_time", f"{field}: not an ISO 8601 date and time")
    if moment.tzinfo is None:
        if not naive_is_utc:
            raise Refused("bad_time", f"{field}: a time without zone")
        return (moment - _NAIVE_EPOCH).total_seconds()
    return moment.timestamp()


def within(time_s: float, field: str, options: FormatOptions) -> float:
    """The time, if events may have it.

    Raises:
        Refused: `time_out_of_range`.
    """
    if options.earliest_s <= time_s <= options.now_s + options.max_future_s:
        return time_s
    raise Refused("time_out_of_range", f"{field}: before ingest.earliest_time or beyond ingest.max_future_s")


def typed_property(name: str, value: object) -> Value:
    """A value of `PROPERTY_TYPES[name]`; `promised_at` is a time and may be written as one.

    Raises:
        Refused: `bad_field`, `bad_time` or `not_finite`.
    """
    field = f"properties.{name}"
    if name == "promised_at":
        return epoch_s(value, field)
    expected = PROPERTY_TYPES[name]
    if expected is float:
        return number(value, field)
    if expected is bool:
        if isinstance(value, bool):
            return value
        raise wrong(value, field, "true or false")
    if isinstance(value, str):
        return value[:MAX_TEXT_CHARS]
    raise wrong(value, field, "a string")
