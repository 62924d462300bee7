"""Mutations of a message, told by numbers, so that what broke can be shrunk, repeated and kept."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final, TypeAlias
from urllib.parse import quote_plus

import msgspec

from tests.fuzz.seeds import Seed

Step: TypeAlias = tuple[str, int, int]
"""(name of a mutation, where, what): both numbers count modulo what there is."""

ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**308, 1e308, -1e308, 5e-324, 0.5, 1e30,
    1_690_000_000, 1_690_000_000_000, "", " ", "x", "abc", "null", "undefined", "0", "-1", "1e999", "NaN", "9" *
    500, "\x00", "\u202e", "ü" * 600, "\U0001f600", "a" * 5000, "2023-07-22T04:26:40Z", "2023-07-22T04:26:40",
    "2023-07-22", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2023-07-22T04:26:40.123456789012Z",
    "+275760-09-13T00:00:00Z", "T", "%", "%ff%fe", "{", "[", "{}", "[]", '{"data":{}}',
    '{"data":{"schema":"iglu:a/b/c/1","data":7}}', "iglu:a", "eyJ", "H4sI", "anna@example.test",
    "https://shop.example/a?b=c#d", "//", "a/b/../../c", "001*", [], {}, [None], [[]], [{}], {"": ""}, {"a": {"b":
    {"c": []}}}, [0] * 50, {"data": None}, {"type": "batch"}, {"batch": []}, [{"batch": [{}]}],
)  # fmt: skip
"""What senders put where something else was expected."""
NAMES: Final = (
    "id", "type", "time", "timestamp", "person", "event", "name", "data", "batch", "properties", "context",
    "traits", "userId", "anonymousId", "messageId", "session", "page", "segment", "source", "specversion", "op",
    "payload", "schema", "now", "sent_at", "offset", "distinct_id", "uuid", "$device_id", "$elements",
    "$elements_chain", "event_id", "event_name", "unstruct_event", "contexts", "collector_tstamp",
    "subscriptionType", "ChangeEventHeader", "recordIds", "after", "before", "email", "response", "events", "",
    "__proto__",
)  # fmt: skip
_MAX_NODES: Final = 400
_MAX_CHARS: Final = 50_000


def mutated(seed: Seed, steps: list[Step]) -> bytes:
    """The message after all steps: those that change fields first, then those that change bytes."""
    raw = seed.raw
    fields = [step for step in steps if step[0] in OF_FIELDS]
    if fields and seed.value is not None:
        root = [deepcopy(seed.value)]
        for name, where, what in fields:
            OF_FIELDS[name](root, where, what)
        raw = _encoded(root[0], seed.is_row)
    for name, where, what in steps:
        if name in OF_BYTES:
            raw = OF_BYTES[name](raw, where, what)
    return raw


def _encoded(value: Any, is_row: bool) -> bytes:
    if is_row and isinstance(value, list):
        words = [one if isinstance(one, str) else "" if one is None else repr(one) for one in value]
        return "\t".join(words).encode("utf-8", "replace")
    return msgspec.json.encode(value)


# ── Fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _nodes(root: list[Any]) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a message, the message itself in its list first."""
    found: list[tuple[Any, Any]] = [(root, 0)]
    for container, key in found:
        value = container[key]
        if len(found) < _MAX_NODES and isinstance(value, dict | list):
            keys = list(value) if isinstance(value, dict) else range(len(value))
            found.extend((value, one) for one in keys)
    return found


def _pick(root: list[Any], where: int) -> tuple[Any, Any]:
    nodes = _nodes(root)
    return nodes[where % len(nodes)]


def _replace(root: list[Any], where: int, what: int) -> None:
    container, key = _pick(root, where)
    container[key] = deepcopy(ODD[what % len(ODD)])


def _delete(root: list[Any], where: int, what: int) -> None:
    container, key = _pick(root, where)
    if container is not root:
        del container[key]


def _add(root: list[Any], where: int, what: int) -> None:
    container, key = _pick(root, where)
    target = container[key]
    if isinstance(target, dict):
        target[NAMES[what % len(NAMES)]] = deepcopy(ODD[where % len(ODD)])
    elif isinstance(target, list):
        target.insert(what % (len(target) + 1), deepcopy(ODD[where % len(ODD)]))


def _rename(root: list[Any], where: int, what: int) -> None:
    container, key = _pick(root, where)
    if isinstance(container, dict):
        container[NAMES[what % len(NAMES)]] = container.pop(key)


def _swap(root: list[Any], where: int, what: int) -> None:
    (one, first), (other, second) = _pick(root, where), _pick(root, what)
    one[first], other[second] = deepcopy(other[second]), deepcopy(one[first])


def _wrap(root: list[Any], where: int, what: int) -> None:
    container, key = _pick(root, where)
    inner = container[key]
    text = msgspec.json.encode(inner).decode()
    wrapped: tuple[Any, ...] = (
        [inner],
        {"data": inner},
        text,
        {NAMES[what % len(NAMES)]: inner},
        [inner, inner],
        str(inner),
    )
    container[key] = wrapped[what % len(wrapped)]


def _deepen(root: list[Any], where: int, what: int) -> None:
    container, key = _pick(root, where)
    for _ in range(what % 250):
        container[key] = [container[key]] if what % 2 else {"a": container[key]}


def _repeat(root: list[Any], where: int, what: int) -> None:
    """Make a list or text longer, within bounds: repeats of repeats would fill the memory."""
    container, key = _pick(root, where)
    value = container[key]
    if isinstance(value, str) and value:
        container[key] = (value * (1 + what % 200))[:_MAX_CHARS]
    elif isinstance(value, list) and len(_nodes(root)) < _MAX_NODES:
        container[key] = value * (1 + what % 60)


OF_FIELDS: Final[dict[str, Callable[[list[Any], int, int], None]]] = {
    "replace": _replace, "delete": _delete, "add": _add, "rename": _rename, "swap": _swap, "wrap": _wrap,
    "deepen": _deepen, "repeat": _repeat,
}  # fmt: skip


# ── Bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_TOKENS: Final = (
    b"\x00", b"\xff", b"\xed\xa0\x80", b'"', b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"\t", b"\n",
    b"NaN", b"Infinity", b"-", b"1e999", b"9" * 400, b"9" * 5000, b"null", b"\xef\xbb\xbf", b"\x1f\x8b", b"data=",
    b"=", b"&", b"%", b'";', b'attr__id="', b" ", b"\\u0000", b"[" * 2000, b'{"a":' * 2000,
)  # fmt: skip


def _flip(raw: bytes, where: int, what: int) -> bytes:
    at = where % max(1, len(raw))
    return raw[:at] + bytes([what % 256]) + raw[at + 1 :]


def _insert(raw: bytes, where: int, what: int) -> bytes:
    at = where % (len(raw) + 1)
    return raw[:at] + _TOKENS[what % len(_TOKENS)] + raw[at:]


def _cut(raw: bytes, where: int, what: int) -> bytes:
    at = where % (len(raw) + 1)
    return raw[:at] + raw[at + what % 64 :]


def _truncate(raw: bytes, where: int, what: int) -> bytes:
    at = where % (len(raw) + 1)
    return raw[at:] if what % 4 == 0 else raw[:at]


def _double(raw: bytes, where: int, what: int) -> bytes:
    at, length = where % (len(raw) + 1), what % 200
    return raw[: at + length] + raw[at:]


def _pack(raw: bytes, where: int, what: int) -> bytes:
    ways: tuple[Callable[[bytes], bytes], ...] = (
        lambda body: gzip.compress(body, mtime=0), b64encode,
        lambda body: b"data=" + quote_plus(b64encode(body)).encode(),
        lambda body: b"compression=base64&data=" + b64encode(body), lambda body: b"\xef\xbb\xbf" + body,
    )  # fmt: skip
    return ways[what % len(ways)](raw)


OF_BYTES: Final[dict[str, Callable[[bytes, int, int], bytes]]] = {
    "flip": _flip, "insert": _insert, "cut": _cut, "truncate": _truncate, "double": _double, "pack": _pack,
}  # fmt: skip
STEPS: Final = (*OF_FIELDS, *OF_BYTES)
