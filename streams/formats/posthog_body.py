"""Bodies as PostHog's clients have sent them over the years: gzip, base64, and forms with `data=`.

What a client sends today is JSON, often gzipped (`compression=gzip-js`, or a content encoding); `sendBeacon` and older
versions send a form with base64. lz64, which clients before 2021 offered, is not read.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import b64decode
from typing import Final
from urllib.parse import parse_qs

from streams.formats._common import Refused

GZIP: Final = b"\x1f\x8b"
_BASE64_OF_JSON: Final = (b"ey", b"ew", b"W3", b"Wy", b"Ww", b"H4sI")
"""How `{"`, `[{` and gzip begin in base64; no JSON begins so."""
_FORM: Final = (b"data=", b"compression=")
_MOST_FIELDS: Final = 20
_LAYERS: Final = 4
"""A form of base64 of gzip is three; more is nobody's."""


def is_packed(raw: bytes) -> bool:
    """Whether these bytes are a body that has to be unpacked before it is JSON."""
    return raw.startswith(GZIP) or raw.startswith(_BASE64_OF_JSON) or raw.startswith(_FORM)


def unpacked(raw: bytes, max_bytes: int) -> bytes:
    """The JSON in a body.

    Args:
        raw: the body.
        max_bytes: more than this is refused before it is made.

    Raises:
        Refused: `not_json` or `too_large`.
    """
    for _ in range(_LAYERS):
        if raw.startswith(GZIP):
            raw = _gunzipped(raw, max_bytes)
        elif raw.startswith(_FORM):
            raw = _of_form(raw)
        elif raw.startswith(_BASE64_OF_JSON):
            raw = _of_base64(raw)
        else:
            return raw
    raise Refused("not_json", "a body packed more often than any client does")


def _gunzipped(raw: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise Refused("not_json", "a gzip body that cannot be read") from error
    if len(content) > max_bytes:
        raise Refused("too_large", f"unpacked larger than ingest.max_event_bytes = {max_bytes}")
    if not stream.eof:
        raise Refused("not_json", "a gzip body that is cut off")
    if stream.unused_data.strip(b"\0"):
        raise Refused("not_json", "a gzip body with something behind its end")
    return content


def _of_form(raw: bytes) -> bytes:
    try:
        fields = parse_qs(raw.decode("ascii"), max_num_fields=_MOST_FIELDS, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise Refused("not_json", "a form that cannot be read") from error
    if fields.get("compression", [""])[-1].startswith("lz"):
        raise Refused("not_json", "compression: lz64 is not read; clients since 2021 offer gzip-js or base64")
    data = fields.get("data", [""])[-1]
    # A plus sign of base64 that was not escaped has become a space.
    return data.encode() if data.startswith(("{", "[")) else _of_base64(data.replace(" ", "+").encode())


def _of_base64(raw: bytes) -> bytes:
    # Clients leave out the padding, and use either alphabet.
    text = raw.strip().rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("not_json", "base64 that cannot be read") from error
