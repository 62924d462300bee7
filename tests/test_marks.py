"""No marked personal data passes the door, in any field of any format, nor by any way in which input may be wrong."""

from __future__ import annotations

import base64
import gzip
from binascii import hexlify

import msgspec
import pytest
from cramjam import zstd

from streams.events import REASONS, Rejection
from streams.formats import FORMATS, decode
from streams.formats._common import FormatOptions
from streams.ingest import Raw
from tests.kit import NOW, T0
from tests.marks import Marker, find, garbage, rows, templates, wire
from tests.privacy_kit import Pipe, settings_with

TEMPLATES = templates(T0)
OF_BUGS = {"reader_failed"}
"""Reasons that no input is known to have."""
FORGETFUL = settings_with(limits={"dedupe_ids": 1})
"""The same payload with one mark or another has the same id, and is to be taken up all the same."""


def left_in(pipe: Pipe) -> set[bytes]:
    """Marks in all that a line keeps, sends or shows."""
    names = msgspec.json.encode([list(pipe.door.outcomes), list(pipe.door.control)])
    cells = msgspec.json.encode([counts for counts in pipe.counts() if counts])
    return find(b"\n".join([*(data for _, data in pipe.frames), pipe.kept(), names, cells]))


@pytest.mark.parametrize(
    "encoded",
    [
        bytes, hexlify, gzip.compress, lambda data: bytes(zstd.compress(data)), base64.b64encode,
        base64.urlsafe_b64encode, lambda data: b"x" + base64.b64encode(b"??" + data),
        lambda data: base64.b64encode(gzip.compress(data)), lambda data: data.replace(b"@", b"%40"),
        lambda data: b"{" + gzip.compress(hexlify(data)) + b"}",
    ],
    ids=["plain", "hex", "gzip", "zstd", "base64", "base64url", "base64-within", "base64-of-gzip", "url",
         "gzip-of-hex"],
)  # fmt: skip
def test_the_search_finds_marks_in_every_form(encoded: object) -> None:
    for mark in (Marker().email(), Marker().phone(), Marker().ip()):
        assert len(find(encoded(f"some text, {mark}, more".encode()))) == 1, mark  # type: ignore[operator]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_no_mark_in_any_field_of_a_payload_passes_the_door(name: str) -> None:
    marker, pipe = Marker(), Pipe(FORGETFUL)
    sent = accepted = 0
    for template in TEMPLATES[name]:
        messages = list(wire(name, template, marker))
        sent += len(messages)
        assert find(messages[0]) and find(messages[-1])
        pipe.feed(*messages)
    accepted = pipe.total("applied")
    pipe.until(40_000)
    assert left_in(pipe) == set()
    assert sent > 20 and accepted > sent // 10, "nearly all refused would prove little"
    assert pipe.total("failed") == 0


def test_no_mark_in_any_column_of_a_row_passes_the_door() -> None:
    pipe = Pipe(FORGETFUL).feed(*rows(T0, Marker())).until(40_000)
    assert left_in(pipe) == set() and pipe.total("applied") > 500


def test_every_format_is_among_them() -> None:
    assert set(FORMATS) <= set(TEMPLATES), "give the new format a payload in tests/marks.py"
    options = FormatOptions.from_settings(Pipe().settings, NOW)
    for name, payloads in TEMPLATES.items():
        for payload in payloads:
            outcomes = decode(msgspec.json.encode(payload), None, options)
            assert not any(isinstance(outcome, Rejection) for outcome in outcomes), (name, outcomes)


def test_no_dead_letter_of_any_reason_holds_a_mark() -> None:
    pipe = Pipe().feed(*garbage(Marker()), *rows(T0, Marker()))
    for template in (one for payloads in TEMPLATES.values() for one in payloads):
        pipe.feed(*wire("", template, Marker()))
    reasons = {letter.reason for letter in pipe.letters.values()}
    assert reasons >= set(REASONS) - OF_BUGS, sorted(set(REASONS) - reasons)
    assert len(pipe.letters) > 50 and left_in(pipe) == set()


def test_no_key_and_no_header_of_a_message_passes_the_door() -> None:
    pipe, marker = Pipe(), Marker()
    body = b'{"id": "1", "type": "clicked", "time": %d, "person": "anna"}' % int(T0)
    headers = [
        {marker.word(): marker.email().encode()}, {"trustwatch-format": marker.word().encode()},
        {"content-type": marker.email().encode()},
        {f"ce_{name}": marker.email().encode() for name in ("id", "source", "type", "specversion", "subject", "time")},
        {"ce_specversion": b"1.0", "ce_id": marker.email().encode(), "ce_source": marker.word().encode(),
         "ce_type": marker.email().encode(), "ce_subject": marker.email().encode()},
    ]  # fmt: skip
    for number, one in enumerate(headers):
        pipe.door.take([Raw("web", 0, number, body, headers=one)], NOW)
    pipe.feed(body)
    assert sum(pipe.door.outcomes.values()) > len(headers) and left_in(pipe) == set()
