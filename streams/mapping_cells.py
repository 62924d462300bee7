"""Readers of cells: what a mapping says, made into functions of a row. They refuse nothing, the door judges."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from streams.errors import ConfigError
from streams.events import PROPERTY_TYPES
from streams.mapping_fields import Cell, Fields, Moment, TimeCell, Unit, When, as_text

Row: TypeAlias = dict[str, Any]
Native: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[Row, int], Any]

_PLACE: Final = re.compile(r"\{([^{}]+)\}")
_TRUE: Final = frozenset({"true", "1", "yes", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "n"})
_TEXT_FIELDS: Final = ("person", "also_person", "session", "page", "stage")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND: Final = {Unit.S: 1, Unit.MS: 10**3, Unit.US: 10**6, Unit.NS: 10**9}
_DAY_S: Final = 86_400.0
_ISO_DATE_CHARS: Final = 10
_TIME_OF_DAY: Final = re.compile(r"%[HIMSTXRcfps]")
"""Parts of a `strptime` format that tell more than a date."""


class Table:
    """Readers of the cells of one table, made once.

    Args:
        columns: what it has, parts of nested columns as `user.id`; None where that shows only row by row.
        name: what the table is called, in errors and generated ids.
        zone: zone of times that name none, where the mapping says nothing.
    """

    def __init__(self, columns: frozenset[str] | None, name: str, zone: tzinfo | None = None) -> None:
        self.columns = columns
        self.name = name
        self._zone = zone

    def get(self, name: str, key: str) -> Callable[[Row], Any]:
        """A reader of a column, or of a part of a nested one (`user.id`).

        Raises:
            ConfigError: the table has no such column.
        """
        if self.columns is not None and name not in self.columns:
            known = ", ".join(sorted(self.columns))
            raise ConfigError(f"{key}: {self.name} has no column {name!r}; it has {known}")
        if "." not in name:
            return lambda row: row.get(name)
        parts = name.split(".")

        def part(row: Row) -> Any:
            if name in row:
                return row[name]
            value: Any = row
            for step in parts:
                value = value.get(step) if isinstance(value, dict) else None
            return value

        return part

    def cell(self, source: str | Cell, key: str) -> Read:
        """A reader of a value."""
        if isinstance(source, Cell) and source.constant is not None:
            constant = source.constant
            return lambda row, number: constant
        get = self.get(source if isinstance(source, str) else source.column or "", key)
        values = source.values if isinstance(source, Cell) else {}
        if not values:
            return lambda row, number: _present(get(row))
        return lambda row, number: values.get(as_text(get(row)), _present(get(row)))

    def text(self, source: str | Cell, key: str) -> Read:
        """The same, as text."""
        read = self.cell(source, key)

        def text(row: Row, number: int) -> str | None:
            value = read(row, number)
            return None if value is None else as_text(value)

        return text

    def id(self, source: str | Cell | None, suffix: str, key: str) -> Read:
        """A reader of the id: a cell, a template, or (None) made of the table's name and the row's number."""
        if source is None:
            return lambda row, number: f"{self.name}:{number}{suffix}"
        if not isinstance(source, str) or "{" not in source:
            read = self.text(source, key)
            return lambda row, number: None if (value := read(row, number)) is None else value + suffix
        fixed: dict[str, Callable[[Row, int], object]] = {
            "file": lambda row, number: self.name, "row": lambda row, number: number,
        }  # fmt: skip
        own = self.columns or frozenset()
        cells = {
            name: fixed[name] if name in fixed and name not in own else self.cell(name, key)
            for name in _PLACE.findall(source)
        }

        def filled(row: Row, number: int) -> str:
            return _PLACE.sub(lambda place: as_text(cells[place[1]](row, number)), source) + suffix

        return filled

    def time(self, source: TimeCell, key: str) -> Read:
        """A reader of when a row happened."""
        moment = source.moment
        if moment is not None:
            return self.moment(moment, key)
        start_s, every_s = (source.start or _EPOCH).timestamp(), source.every_s or 0.0
        return lambda row, number: start_s + (number - 1) * every_s

    def moment(self, source: Moment, key: str) -> Read:
        """A reader of a column of times."""
        get = self.get(source.column, key)
        to_time = time_reader(source, ZoneInfo(source.zone) if source.zone else self._zone)
        return lambda row, number: to_time(_present(get(row)))

    def property(self, name: str, source: str | Cell | Moment, key: str) -> Read:
        """A reader of a property, as its type; what does not look like it stays text, which the door refuses."""
        if name == "promised_at" and not isinstance(source, Cell):
            return self.moment(source if isinstance(source, Moment) else Moment(column=source), key)
        assert not isinstance(source, Moment)  # the model sees to it
        read, expected = self.cell(source, key), PROPERTY_TYPES[name]
        if name == "promised_at":
            to_time = time_reader(None, self._zone)
            return lambda row, number: to_time(read(row, number))
        return lambda row, number: _as(expected, read(row, number))

    def condition(self, when: When | None, where: str) -> Callable[[Row], bool]:
        """Whether a row is meant."""
        if when is None:
            return lambda row: True
        get = self.get(when.column, f"{where}.when.column")
        wanted = {when.equals} if isinstance(when.equals, str) else set(when.equals)
        return lambda row: as_text(get(row)) in wanted


class Maker:
    """Makes one native event of a row; a field without value is left out, for the door to judge."""

    def __init__(self, fields: Fields, table: Table, where: str, suffix: str = "") -> None:
        self._top: list[tuple[str, Read]] = [("id", table.id(fields.id, suffix, f"{where}.id"))]
        if fields.type is not None:
            kind = Cell(constant=fields.type) if isinstance(fields.type, str) else fields.type
            self._top.append(("type", table.text(kind, f"{where}.type")))
        if fields.time is not None:
            self._top.append(("time", table.time(fields.time, f"{where}.time")))
        if fields.device_time is not None:
            self._top.append(("device_time", table.moment(fields.device_time, f"{where}.device_time")))
        for name in _TEXT_FIELDS:
            if (source := getattr(fields, name)) is not None:
                self._top.append((name, table.text(source, f"{where}.{name}")))
        self._segment = [
            (label, table.text(source, f"{where}.segment.{label}")) for label, source in fields.segment.items()
        ]
        self._properties = [
            (name, table.property(name, source, f"{where}.properties.{name}"))
            for name, source in fields.properties.items()
        ]

    def __call__(self, row: Row, number: int) -> Native:
        """The event of this row."""
        event = _filled(self._top, row, number)
        for name, readers in (("segment", self._segment), ("properties", self._properties)):
            if readers:
                event[name] = _filled(readers, row, number)
        return event


def _filled(readers: list[tuple[str, Read]], row: Row, number: int) -> Native:
    return {name: value for name, read in readers if (value := read(row, number)) is not None}


def _present(value: Any) -> Any:
    """The value, or None for an empty cell; Parquet writes those as NaN, too."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def _as(expected: type, value: Any) -> Any:
    if value is None or (expected is str and isinstance(value, str)):
        return value
    if expected is str:
        return as_text(value)
    word = as_text(value).strip().lower()
    if expected is bool:
        return word in _TRUE if word in _TRUE | _FALSE else word
    number = _float(value) if isinstance(value, str | int | float | Decimal) else None
    return word if number is None or not math.isfinite(number) else number


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def time_reader(source: Moment | None, zone: tzinfo | None) -> Callable[[Any], Any]:
    """A function of a cell to a time as ISO 8601 or epoch seconds; what is neither passes, and the door refuses it.

    A date is its midnight, or its `at`, in the zone; without one in UTC. A time of day without zone is refused.
    """
    form, unit, at = (source.format, source.unit, source.at) if source else (None, None, None)
    at = at or time.min
    dates_only = form is not None and _TIME_OF_DAY.search(form) is None

    def to_time(value: Any) -> Any:
        if isinstance(value, bytes):
            value = as_text(value)
        if isinstance(value, str):
            if form is None and (number := _float(value)) is not None:
                value = number
            else:
                moment = _moment(value.strip(), form)
                if moment is None:
                    return value
                is_date = dates_only if form is not None else len(value.strip()) == _ISO_DATE_CHARS
                value = moment.date() if is_date and moment.tzinfo is None else moment
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            value = _since_epoch(value, unit)
        if isinstance(value, datetime):
            return (value.replace(tzinfo=zone) if value.tzinfo is None and zone else value).isoformat()
        if not isinstance(value, date):
            return value
        return datetime.combine(value, at, at.tzinfo or zone or UTC).isoformat()

    return to_time


def _since_epoch(value: int | float | Decimal, unit: Unit | None) -> Any:
    """Epoch seconds, or a date; without unit, the door tells seconds from milliseconds."""
    number = _float(value)
    if number is None or not math.isfinite(number):
        return str(value)
    if unit is None:
        return number if isinstance(value, Decimal) else value
    if unit is not Unit.D:
        return number / _PER_SECOND[unit]
    try:
        return (_EPOCH + timedelta(days=number)).date()
    except OverflowError:
        return number * _DAY_S  # far out of range, which the door says


def _moment(value: str, form: str | None) -> datetime | None:
    try:
        if form is not None:
            return datetime.strptime(value, form)  # noqa: DTZ007  (the mapping's zone is applied by the caller)
        return datetime.fromisoformat(value.removesuffix(" UTC") + "+00:00" if value.endswith(" UTC") else value)
    except ValueError:
        return None
