"""A request as the sources see it, what it holds for Kafka, and the one way to refuse it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from streams.formats._common import Refused as Unreadable
from streams.formats._common import parse

RETRY_AFTER_S: Final = 5
MAX_QUERY_FIELDS: Final = 200
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """A request that is not taken.

    Args:
        status: of HTTP.
        reason: one word, for programs and metrics.
        detail: what is wrong and how to put it right. Names fields, never values.
        headers: that go with it.
    """

    def __init__(self, status: int, reason: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def busy(reason: str, detail: str, retry_after_s: int = RETRY_AFTER_S) -> Refused:
    """Not now: whoever sends may try again."""
    return Refused(503, reason, detail, Retry_After=str(retry_after_s))


class Message(msgspec.Struct, frozen=True, gc=False):
    """One event for a raw topic: its value, and what keeps the order of its person (None: any partition will do)."""

    value: bytes
    person: str | None = None


class Asked:
    """What a source looks at of a request.

    Args:
        method: of HTTP.
        path: without the query, as it was asked for.
        query: as it was sent, still encoded.
        headers: as they were sent; names in any case.
        body: unpacked.
        received_s: our clock, epoch seconds.
        max_bytes: of whatever is unpacked from it.
        max_depth: of its JSON, levels.
        max_items: of a batch.
    """

    def __init__(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, received_s: float,
        max_bytes: int = 2_000_000, max_depth: int = 32, max_items: int = 5_000,
    ) -> None:  # fmt: skip
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.received_s = received_s
        self.max_bytes = max_bytes
        self.max_items = max_items
        self._max_depth = max_depth

    @cached_property
    def fields(self) -> dict[str, str]:
        """The query, decoded; the first of each name counts."""
        return fields_of(self.query)

    @cached_property
    def value(self) -> Any:
        """The body as JSON; how deep it is shows where messages are made of it.

        Raises:
            Refused: 400 with the reason.
        """
        return _parsed(self.body)

    def parsed(self, text: bytes) -> Any:
        """JSON within the body, not too deep.

        Raises:
            Refused: 400 with the reason.
        """
        value = _parsed(text)
        self._require_depth(value, text)
        return value

    def message(self, fields: dict[str, Any], person: str | None) -> Message:
        """The message of an event, whose JSON is not too deep.

        Raises:
            Refused: 400, it is.
        """
        try:
            value = _encode(fields)
        except RecursionError as error:  # the parser gave up a little later
            raise _too_deep(self._max_depth) from error
        self._require_depth(fields, value)
        return Message(value, person)

    def _require_depth(self, value: Any, text: bytes) -> None:
        if text.count(b"{") + text.count(b"[") > self._max_depth:  # what opens less often is not deeper
            require_depth(value, self._max_depth)

    def objects(self, items: object, where: str) -> list[dict[str, Any]]:
        """An array of objects.

        Raises:
            Refused: it is none, is empty, too long, or holds something else; tells the place.
        """
        if not isinstance(items, list):
            raise Refused(400, "not_an_array", f"{where}: an array was expected")
        if not items:
            raise Refused(400, "empty_batch", f"{where}: no events")
        self.require_items(items)
        for index, item in enumerate(items):
            if type(item) is not dict:
                raise Refused(400, "not_an_object", f"{where}[{index}]: an object was expected")
        return items

    def require_items(self, items: Sequence[object]) -> None:
        """Refuse a batch that is too long, before anything is made of its items.

        Raises:
            Refused: 413.
        """
        if len(items) > self.max_items:
            raise Refused(413, "too_many_items", "more events than collect.max_batch_items in one request")


def fields_of(text: str) -> dict[str, str]:
    """A query or form, decoded; the first of each name counts.

    Raises:
        Refused: it has too many fields.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise Refused(400, "bad_query", f"more than {MAX_QUERY_FIELDS} fields") from error
    return dict(reversed(pairs))


def _parsed(body: bytes) -> Any:
    if not body or body.isspace():
        raise Refused(400, "empty", "a body is needed")
    try:
        return parse(body)
    except Unreadable as unreadable:
        raise Refused(400, unreadable.reason, unreadable.detail) from unreadable


def require_depth(value: Any, limit: int) -> None:
    """Refuse JSON that nests deeper than `limit` levels.

    Raises:
        Refused: 400.
    """
    level, depth = [value], 0
    while level:
        if depth >= limit:
            raise _too_deep(limit)
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node if type(node) is list else ())
            if type(child) is dict or type(child) is list
        ]
        depth += 1


def _too_deep(limit: int) -> Refused:
    return Refused(400, "too_deep", f"JSON nested deeper than {limit} levels")


def a_dict(value: object) -> dict[str, Any]:
    """The object that a field holds; of anything else, an empty one."""
    return value if type(value) is dict else {}


def an_id(*candidates: object) -> str | None:
    """The first that is an id: text that is not empty, or a whole number."""
    for one in candidates:
        if type(one) is str and one:
            return one
        if type(one) is int:
            return str(one)
    return None


def made_id(fields: dict[str, Any], sent: str, timed: bool) -> str:
    """An id for an event that has none.

    One that says when it happened gets an id of its content, so that a client that tries again gives the same one. Of
    one that does not, the next of the same content may be another event: it must not be taken for a repeat.

    Args:
        fields: of the event.
        sent: field that says when it was sent, which is another time with each try.
        timed: whether it says when it happened.
    """
    if not timed:
        return f"collect-{token_hex(16)}"
    content = {name: value for name, value in fields.items() if name != sent}
    try:
        return f"collect-{blake2b(_encode(content), digest_size=16).hexdigest()}"
    except RecursionError:
        return ""  # so deep that no message is made of it
