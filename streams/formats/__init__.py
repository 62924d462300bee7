"""Wire formats in, typed outcomes out: one module a format, each a pure function of value and options.

Add a format: write a module with `decode(value, options)`, name it in `FORMATS`, and let `_shape` recognise it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streams.events import Outcome, Rejection
from streams.formats import hubspot, native, segment
from streams.formats._common import FormatOptions, Refused, parse
from streams.formats._names import Names, load_names

__all__ = ["FORMATS", "FormatOptions", "Names", "decode", "load_names"]

FORMATS: Final[dict[str, Callable[[Any, FormatOptions], list[Outcome]]]] = {
    "native": native.decode,
    "segment": segment.decode,
    "hubspot": hubspot.decode,
}
"""Format name → what turns a parsed message into outcomes."""

_MAYBE_SEGMENT: Final = (None, "segment")


def decode(raw: bytes, fmt: str | None, options: FormatOptions) -> list[Outcome]:
    """Turn one wire message into its outcomes, in order.

    Args:
        raw: the message; a tombstone (None) is the caller's business.
        fmt: a key of `FORMATS`, or None to tell the format apart by shape.
        options: clock and limits.

    Returns:
        One outcome per item that the message holds, at least one. Never raises, whatever the bytes are.
    """
    if len(raw) > options.max_event_bytes:
        return [Rejection("too_large", f"larger than ingest.max_event_bytes = {options.max_event_bytes}")]
    if fmt in _MAYBE_SEGMENT and (event := segment.read(raw, options)) is not None:
        return [event]
    return _decode_parsed(raw, fmt, options)


def _decode_parsed(raw: bytes, fmt: str | None, options: FormatOptions) -> list[Outcome]:
    if not raw or raw.isspace():
        return [Rejection("empty", "a message without content")]
    if fmt is not None and fmt not in FORMATS:
        return [Rejection("unknown_format", f"no format has this name; known: {', '.join(FORMATS)}")]
    try:
        value = parse(raw)
        return FORMATS[fmt or _shape(value)](value, options)
    except Refused as refused:
        return [Rejection(refused.reason, refused.detail)]
    except RecursionError:
        return [Rejection("too_deep", "nested too deeply")]


def _shape(value: object) -> str:
    """The format that this value looks like.

    Raises:
        Refused: `unknown_format`, `not_an_object` or `empty_batch`.
    """
    if isinstance(value, list):
        if not value:
            raise Refused("empty_batch", "an array without items")
        if any(isinstance(item, dict) and "subscriptionType" in item for item in value):
            return "hubspot"
        raise Refused("unknown_format", "an array, but none of HubSpot notifications")
    if not isinstance(value, dict):
        raise Refused("not_an_object", "a JSON object or array was expected")
    kind = value.get("type")
    if isinstance(kind, str) and kind in native.TYPES:
        return "native"
    is_call = isinstance(kind, str) and kind in segment.CALLS
    if is_call or "messageId" in value or isinstance(value.get("batch"), list):
        return "segment"
    if "subscriptionType" in value:
        return "hubspot"
    if "id" in value and "time" in value and "person" in value:
        return "native"
    raise Refused("unknown_format", "an object, but of none of the known formats")
