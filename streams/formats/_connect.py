"""Values of Kafka Connect's JSON converter, typed by the schema that may come along.

Spec: "Data type mappings" of Debezium's connectors (temporal types, decimal types), and `org.apache.kafka.connect.data`
for logical types. Without schema a number is a number, and the map says what it counts.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from streams.formats._common import Fields

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DECIMAL_BYTES: Final = 256
_MAX_SCALE: Final = 400
_ROWS: Final = frozenset({"before", "after"})


def _since_epoch(unit: str) -> Callable[[Any, Fields], Any]:
    def moment(value: Any, schema: Fields) -> Any:
        if type(value) is not int:
            return value
        try:
            # Times without zone: Debezium writes them as if they were UTC; a map's zone says what they are.
            naive = (_EPOCH + timedelta(**{unit: value})).replace(tzinfo=None)
        except OverflowError:
            return value
        return naive.date() if unit == "days" else naive

    return moment


def _nanoseconds(value: Any, schema: Fields) -> Any:
    return _since_epoch("microseconds")(value // 1000, schema) if type(value) is int else value


def _decimal(value: Any, schema: Fields) -> Any:
    parameters = schema.get("parameters")
    return _unscaled(value, parameters.get("scale") if isinstance(parameters, dict) else None)


def _variable_decimal(value: Any, schema: Fields) -> Any:
    return _unscaled(value.get("value"), value.get("scale")) if isinstance(value, dict) else value


def _unscaled(value: Any, scale: Any) -> Any:
    """A decimal: its unscaled value as big-endian bytes in base64, and where the point is."""
    try:
        digits, places = b64decode(value, validate=True), int(scale)
    except (TypeError, ValueError):
        return value
    if len(digits) > _MAX_DECIMAL_BYTES or abs(places) > _MAX_SCALE:
        return value
    return Decimal(int.from_bytes(digits, "big", signed=True)).scaleb(-places)


_READERS: Final[dict[str, Callable[[Any, Fields], Any]]] = {
    "io.debezium.time.Date": _since_epoch("days"),
    "org.apache.kafka.connect.data.Date": _since_epoch("days"),
    "io.debezium.time.Timestamp": _since_epoch("milliseconds"),
    "org.apache.kafka.connect.data.Timestamp": _since_epoch("milliseconds"),
    "io.debezium.time.MicroTimestamp": _since_epoch("microseconds"),
    "io.debezium.time.NanoTimestamp": _nanoseconds,
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
}
"""Logical type → what a value of it means; the ISO 8601 texts of zoned times need no reader."""


def typed_rows(payload: Fields, schema: Any) -> Fields:
    """The payload with `before` and `after` typed by its schema; as it is, where there is none."""
    typed = payload.copy()
    for part in _fields_of(schema):
        name = part.get("field")
        if isinstance(name, str) and name in _ROWS and isinstance(row := payload.get(name), dict):
            typed[name] = _typed_row(row, part)
    return typed


def _fields_of(schema: Any) -> list[Fields]:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return [field for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []


def _typed_row(row: Fields, schema: Fields) -> Fields:
    typed = row.copy()
    for column in _fields_of(schema):
        name, kind = column.get("field"), column.get("name")
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is not None and isinstance(name, str) and (value := row.get(name)) is not None:
            typed[name] = reader(value, column)
    return typed
