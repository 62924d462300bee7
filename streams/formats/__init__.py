"""Wire formats in, typed outcomes out: one module a format, each a pure function of value and options.

Add a format: write a module that exposes `FORMAT` (see `_format.Format`), name the module in `MODULES`, and give it a
section in `names.yaml` if its vendor names events.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from streams.events import CLOCK, Outcome, Rejection
from streams.formats import (
    braze,
    cloudevents,
    customerio,
    debezium,
    hubspot,
    iterable,
    mailjet,
    native,
    posthog,
    refiner,
    salesforce,
    satismeter,
    segment,
    sendgrid,
    snowplow,
)
from streams.formats._common import FormatOptions, Refused, parse
from streams.formats._format import Format
from streams.formats._names import Names, load_names

__all__ = ["FORMATS", "FORMAT_HEADER", "Format", "FormatOptions", "Names", "decode", "load_names"]

MODULES: Final[tuple[ModuleType, ...]] = (
    cloudevents,
    native,
    posthog,
    segment,
    hubspot,
    snowplow,
    salesforce,
    debezium,
    sendgrid,
    mailjet,
    iterable,
    customerio,
    braze,
    satismeter,
    refiner,
)
"""In the order in which shapes are tried: the more particular shape first."""

FORMATS: Final[dict[str, Format]] = {module.FORMAT.name: module.FORMAT for module in MODULES}
"""Format name → format."""

FORMAT_HEADER: Final = "trustwatch-format"
"""Kafka header that names the format of its message, where the topic's own is not fixed."""

log = logging.getLogger(__name__)
_MOST_BUGS: Final = 100
"""Places where readers failed that are told of; so many different ones would be a flood of their own."""
_told_bugs: Final[set[tuple[str, str]]] = set()

_PUNCTUATION: Final = b'{"type":"%s"' % CLOCK.encode()
"""How `replay` and quiet sources begin the message that only moves the watermark."""
_QUICK: Final[dict[str | None, tuple[Format, ...]]] = {
    None: tuple(form for form in FORMATS.values() if form.read is not None and form.by_shape),
    **{name: (form,) for name, form in FORMATS.items() if form.read is not None},
}


def decode(
    raw: bytes, fmt: str | None, options: FormatOptions, *, headers: Mapping[str, bytes] | None = None
) -> list[Outcome]:
    """Turn one wire message into its outcomes, in order.

    Args:
        raw: the message; a tombstone (None) is the caller's business.
        fmt: a key of `FORMATS`, or None to tell the format apart by header or shape.
        options: clock and limits.
        headers: headers of the message, names in lower case; `FORMAT_HEADER` may name the format.

    Returns:
        One outcome per item that the message holds, at least one. Never raises, whatever the bytes are.
    """
    if len(raw) > options.max_event_bytes:
        return [Rejection("too_large", f"larger than ingest.max_event_bytes = {options.max_event_bytes}")]
    try:
        return _decode(raw, fmt, options, headers)
    except Exception as error:
        # A message that a reader of ours stumbles over must not stop the line: it would be read again and again.
        return [Rejection("reader_failed", _told(error, fmt))]


def _told(error: Exception, fmt: str | None) -> str:
    """What failed and where; logged with its traceback once for each place.

    Never the error's own message, which may quote what was sent.
    """
    frames = traceback.extract_tb(error.__traceback__, limit=-20)
    place = f"{frames[-1].name}, line {frames[-1].lineno}"
    what = f"{type(error).__name__} in the reader of {fmt or 'its shape'} ({place}): report it"
    if (what, frames[-1].filename) not in _told_bugs and len(_told_bugs) < _MOST_BUGS:
        _told_bugs.add((what, frames[-1].filename))
        trace = "".join(traceback.format_list(frames)).rstrip()
        log.error("%s. Such messages become dead letters (reader_failed); said once for this place\n%s", what, trace)
    return what


def _decode(raw: bytes, fmt: str | None, options: FormatOptions, headers: Mapping[str, bytes] | None) -> list[Outcome]:
    if headers:
        if fmt is None and (named := headers.get(FORMAT_HEADER)):
            fmt = named.decode("latin-1")
        if fmt in (None, "cloudevents") and cloudevents.is_binary(headers):
            return cloudevents.read_binary(raw, headers, options)
    for form in _QUICK.get(fmt, ()):
        if form.marker in raw and (outcomes := form.read(raw, options)) is not None:  # type: ignore[misc]
            return outcomes
    return _decode_parsed(raw, fmt, options)


def _decode_parsed(raw: bytes, fmt: str | None, options: FormatOptions) -> list[Outcome]:
    if not raw or raw.isspace():
        return [Rejection("empty", "a message without content")]
    if fmt is not None and fmt not in FORMATS:
        return [Rejection("unknown_format", f"no format has this name; known: {', '.join(FORMATS)}")]
    if raw.startswith(_PUNCTUATION):
        fmt = native.FORMAT.name  # of any source, whatever its topic holds otherwise
    try:
        return decode_value(parse(raw), fmt, options)
    except Refused as refused:
        return [Rejection(refused.reason, refused.detail)]
    except RecursionError:
        return [Rejection("too_deep", "nested too deeply")]


def decode_value(value: object, fmt: str | None, options: FormatOptions) -> list[Outcome]:
    """The outcomes of parsed JSON.

    Raises:
        Refused: it is of no known format, or not of this one.
    """
    return FORMATS[fmt or shape_of(value)].decode(value, options)


def shape_of(value: object) -> str:
    """The format that this value looks like.

    Raises:
        Refused: `unknown_format`, `not_an_object` or `empty_batch`.
    """
    if isinstance(value, list):
        if not value:
            raise Refused("empty_batch", "an array without items")
    elif not isinstance(value, dict):
        raise Refused("not_an_object", "a JSON object or array was expected")
    for name, form in FORMATS.items():
        if form.recognises is not None and form.recognises(value):
            return name
    raise Refused("unknown_format", f"an {'array' if isinstance(value, list) else 'object'} of none of the formats")
