"""Marked personal data: payloads of every format with a mark in every field, and the search for marks in whatever form.

A mark is made up and unique: as an e-mail address, a phone number, an IP address, or a word in a place where words are
nobody's business (traits, form values, free text, headers, keys). `find` looks for all of them in bytes, also where
they are base64, hex, percent-encoded or compressed.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import json
import random
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from cramjam import DecompressionError, zstd

from tests.formats import payloads

_TOKEN: Final = re.compile(rb"mk[0-9a-f]{8}q", re.IGNORECASE)
_PHONE: Final = re.compile(rb"49\W{0,2}170\W{0,2}99\d{6}")
_IP: Final = re.compile(rb"10\.99\.\d{1,3}\.\d{1,3}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PACKED: Final = (b"\x1f\x8b", b"\x78\x9c", b"\x78\x01", b"\x78\xda", b"BZh", _ZSTD)
_DEPTH: Final = 2


def find(data: bytes, depth: int = _DEPTH) -> set[bytes]:
    """All marks in some bytes, in whatever form."""
    found = {match.group() for pattern in (_TOKEN, _PHONE, _IP) for match in pattern.finditer(data)}
    if depth:
        for other in _forms(data):
            found |= find(other, depth - 1)
    return found


def _forms(data: bytes) -> Iterator[bytes]:
    if b"%" in data and (plain := unquote_to_bytes(data)) != data:
        yield plain
    for match in _HEX.finditer(data):
        yield binascii.unhexlify(match.group())
    # All runs at once, each at its four beginnings: most are no base64 of anything, and marks span no two runs.
    runs = [match.group().rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/")) for match in _BASE64.finditer(data)]
    for shift in range(4) if runs else ():
        whole = [run[shift : shift + (len(run) - shift) // 4 * 4] for run in runs]
        yield b" ".join(base64.b64decode(run) for run in whole)
    for magic in _PACKED:
        for match in re.finditer(re.escape(magic), data):
            if (unpacked := _unpacked(magic, data[match.start() :])) is not None:
                yield unpacked


def _unpacked(magic: bytes, data: bytes) -> bytes | None:
    try:
        if magic == _ZSTD:
            return bytes(zstd.decompress(data))
        if magic == b"BZh":
            return bz2.BZ2Decompressor().decompress(data)
        return zlib.decompressobj(47).decompress(data)
    except (DecompressionError, OSError, zlib.error, EOFError):
        return None


class Marker:
    """Makes marks, no two the same."""

    def __init__(self) -> None:
        self._number = 0

    def word(self) -> str:
        self._number += 1
        return f"mk{self._number:08x}q"

    def phone(self) -> str:
        self._number += 1
        return f"+49 170 99{self._number:06d}"

    def ip(self) -> str:
        self._number += 1
        return f"10.99.{self._number // 250 % 250}.{self._number % 250}"

    def email(self) -> str:
        return f"{self.word()}@example.org"

    def shaped(self) -> Iterator[str]:
        """What may stand in any field, whatever it is for: it can be told from a harmless word."""
        yield self.email()
        yield self.phone()
        yield self.ip()
        yield f"Anna Example <{self.email()}>, tel {self.phone()}"
        yield f"https://{self.word()}.example/u/{quote(self.email())}/x?email={self.email()}&q={self.word()}#{self.word()}"
        yield f"/welcome/{quote(quote(self.email()))};jsessionid={self.word()}?token={self.word()}"

    def stray(self) -> dict[str, Any]:
        """Fields that nobody needs."""
        return {
            "firstName": self.word(), "address": {"street": self.word(), "lines": [self.word()]}, "ip": self.ip(),
            "value_of_field": self.word(), "comment": f"{self.word()} called, {self.phone()}", "password": self.word(),
            "traits": {"name": self.word(), "email": self.email()}, self.word(): self.word(),
            "birthday": f"1990-01-01 {self.word()}", "userAgent": f"Mozilla {self.word()}", "cookie": self.word(),
        }  # fmt: skip


def templates(time_s: float) -> dict[str, list[Any]]:
    """Format → payloads as their senders write them, all at about one time (epoch seconds)."""
    rng, shift = random.Random(5), int(time_s - payloads.T0_S)
    at, at_ms, when = int(time_s), int(time_s * 1000), payloads.iso(time_s)
    rows = [payloads.snowplow(rng, shift + n) for n in range(4)]
    header = {
        "entityName": "Lead", "changeType": "UPDATE", "recordIds": ["00Q5f00000AAAAAEA1"], "changeOrigin": "x",
        "transactionKey": "000071a4-2f8e-4b7d-9c55-0f1f6a30c6b1", "sequenceNumber": 1, "commitTimestamp": at_ms,
        "commitUser": "0055f000001abcdEAA", "nulledFields": [], "changedFields": ["Status", "Email"],
    }  # fmt: skip
    change = {"ChangeEventHeader": header, "Status": "Working", "Email": "a@b.example", "LeadSource": "Web"}
    table = {"version": "2.7.0", "connector": "postgresql", "name": "crm", "ts_ms": at_ms, "snapshot": "false",
             "db": "shop", "schema": "inventory", "table": "orders", "lsn": 1}  # fmt: skip
    row = {"id": 7, "customer": "c-1", "status": "paid", "note": "words"}
    hubspot = {"eventId": 1, "subscriptionId": 2, "portalId": 3, "appId": 4, "occurredAt": at_ms, "attemptNumber": 0,
               "subscriptionType": "contact.propertyChange", "objectId": 5, "propertyName": "lastname",
               "propertyValue": "Example", "changeSource": "CRM_UI"}  # fmt: skip
    return {
        "native": [payloads.native(rng, shift + n) for n in range(6)] + [
            {"id": "d1", "type": kind, "time": time_s, "person": "anna", "also_person": "anna2", "session": "s",
             "properties": {"what": "checkout 2", "element": "buy", "form": "f", "field": "g", "reason": "r"}}
            for kind in ("deployed", "definition_changed", "lead_rejected", "field_changed", "other", "clicked")],
        "segment": [payloads.segment(rng, shift + n) for n in range(4)] + [
            {"type": "identify", "userId": "u1", "anonymousId": "a1", "messageId": "i1", "timestamp": when,
             "traits": {"name": "Anna", "email": "a@b.example", "phone": "1"}},
            {"batch": [payloads.segment(rng, shift + 9), {"type": "alias", "userId": "u", "previousId": "p",
                                                          "messageId": "i2", "timestamp": when}]}],
        "rudderstack": [payloads.rudderstack(rng, shift + n) for n in range(2)],
        "snowplow": [payloads.snowplow_json(row) for row in rows],
        "posthog": [payloads.posthog(rng, shift + n) for n in range(3)] + [payloads.posthog_batch(rng, shift, 2)],
        "cloudevents": [payloads.cloudevent(rng, shift)],
        "hubspot": [[hubspot], hubspot | {"subscriptionType": "contact.creation"}, [hubspot, hubspot | {
            "propertyName": "hs_analytics_source", "propertyValue": "ORGANIC"}]],
        "salesforce": [{"schema": "x", "payload": change, "event": {"replayId": 7}}, change],
        "debezium": [{"before": None, "after": row, "source": table, "op": "c", "ts_ms": at_ms},
                     {"before": row, "after": row | {"status": "sent"}, "source": table, "op": "u", "ts_ms": at_ms}],
        "sendgrid": [[{"email": "a@b.example", "timestamp": at, "smtp-id": "<a@b>", "event": "bounce",
                       "sg_event_id": "e", "category": ["spring"], "sg_message_id": "m",
                       "reason": "550 no such user", "ip": "1.2.3.4",
                       "url": "https://shop.example/?a=b", "useragent": "x"}]],
        "mailjet": [{"event": "click", "time": at, "MessageID": 19421777835146490, "email": "a@b.example", "ip": "1",
                     "customcampaign": "spring", "CustomID": "order", "url": "https://x.example/u"}],
        "iterable": [{"email": "a@b.example", "eventName": "emailSend", "dataFields": {
            "campaignName": "spring", "messageId": "0f", "createdAt": when, "email": "a@b.example",
            "emailSubject": "Hello"}}],
        "customerio": [{"event_id": "01E2", "object_type": "email", "metric": "sent", "timestamp": at, "data": {
            "customer_id": "c-7", "identifiers": {"id": "c-7"}, "delivery_id": "R", "recipient": "a@b.example",
            "subject": "Hello"}}],
        "braze": [{"events": [{"id": "b1", "event_type": "users.messages.email.Send", "time": at,
                               "user": {"user_id": "5", "external_user_id": "c-7", "timezone": "x"},
                               "properties": {"campaign_name": "spring", "email_address": "a@b.example"}}]}],
        "satismeter": [{"event": "completed", "campaign": {"id": "c1", "name": "after"}, "traits": {"email": "a@b.c"},
                        "response": {"id": "r1", "created": when, "rating": 9, "feedback": "words", "answers": [
                            {"label": "q", "id": "q1", "value": 9, "name": "x", "type": "scale", "metric": "nps"}],
                            "user": {"id": "s-1", "name": "Anna", "email": "a@b.example", "userId": "u"}}}],
        "refiner": [{"uuid": "p-1", "remote_id": "u-7", "email": "a@b.example", "display_name": "Anna",
                     "attributes": {"phone": "0"}, "triggered_event": "Completed Survey",
                     "form": {"uuid": "f", "name": "nps"}, "response": {
                         "uuid": "r1", "completed_at": when, "data": {"nps": 9, "why": "words"}, "tags": ["words"]}}],
    }  # fmt: skip


def marked(template: Any, marker: Marker) -> Iterator[Any]:
    """The payload with each kind of mark in each field in turn, in all of them, and with stray fields everywhere."""
    leaves = list(_leaves(template))
    for path in leaves:
        for mark in marker.shaped():
            yield _with(template, path, mark)
    everywhere = template
    for path in leaves:
        everywhere = _with(everywhere, path, marker.email())
    yield everywhere
    yield _strewn(template, marker)


def wire(format_name: str, template: Any, marker: Marker) -> Iterator[bytes]:
    """The same as bytes: JSON, and in the other ways in which a format is sent."""
    for payload in marked(template, marker):
        raw = json.dumps(payload).encode()
        yield raw
        if format_name == "posthog":
            yield gzip.compress(raw)
            yield b"data=" + quote(base64.b64encode(raw)).encode()


def rows(time_s: float, marker: Marker) -> Iterator[bytes]:
    """Snowplow's enriched rows with a mark in every column."""
    rng, shift = random.Random(6), int(time_s - payloads.T0_S)
    for n in range(3):
        row = payloads.snowplow(rng, shift + n)
        for name in row:
            for mark in marker.shaped():
                yield payloads.tsv(row | {name: mark})


def garbage(marker: Marker) -> Iterator[bytes | None]:
    """What ends as a dead letter, for each reason that bytes alone can have, with marks in it."""
    email = marker.email
    yield None
    yield b""
    yield b" \n"
    yield email().encode()
    yield f'"{email()}"'.encode()
    yield f'{{"email": "{email()}"'.encode()
    yield f'{{"email": "{email()}", "person": {{"name": "{marker.word()}"}}}}'.encode()
    yield json.dumps([email(), marker.word(), {"a": marker.word()}]).encode()
    yield b"[]"
    yield json.dumps({"batch": []} | marker.stray()).encode()
    yield json.dumps({"batch": [{"batch": [marker.stray()]}, marker.word()], "userId": email()}).encode()
    yield b"[" * 5_000 + email().encode()
    yield email().encode("utf-16")
    yield b"\xff\xfe" + email().encode()
    native = {"id": email(), "type": "clicked", "person": email()}
    for time in (
        email(),
        None,
        "NaN",
        1e300,
        -5,
        "1999-01-01T00:00:00Z",
        "9999-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
    ):
        yield json.dumps(native | {"time": time}).encode()
    good = native | {"time": 1_700_000_000.0}
    for wrong in (
        {"type": marker.word()}, {"person": None}, {"person": {"email": email()}}, {"properties": marker.word()},
        {"properties": {"value": marker.word(), "score": email()}}, {"segment": [email()]}, {"page": {"u": email()}},
        {"id": ""}, {"session": [email()]}, {"device_time": email()}, {"properties": {"value": "endless"}},
    ):  # fmt: skip
        yield json.dumps(good | wrong).encode().replace(b'"endless"', b"1e999")
    yield json.dumps(good | {"comment": email() + "x" * 1_100_000}).encode()


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


def _strewn(value: Any, marker: Marker) -> Any:
    """With stray fields in every object."""
    if isinstance(value, dict):
        return {**marker.stray(), **{key: _strewn(item, marker) for key, item in value.items()}}
    return [_strewn(item, marker) for item in value] if isinstance(value, list) else value
