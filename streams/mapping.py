"""A mapping file: which columns of a table make which native events.

```yaml
time: {column: event_time}              # or {start: 2024-01-01T00:00:00Z, every_s: 5} for rows without times
person: user_id                         # a string names a column
type: {column: kind, values: {view: page_viewed, buy: purchased}}   # or a constant: `type: page_viewed`
segment: {channel: {constant: email}}
properties: {value: price}
```

A field is a column, `{column, values}` (values not listed pass as they are), `{constant}`, or for `id` also a template
such as `"{order}-{row}"`. `type` is the exception: a string is the type itself. Under `events`, each item makes one
event of the row and overrides what it names; `when` restricts it. A row always makes one event at least (if no item
applies: the mapping's own fields); where a cell is empty the event lacks that field, and the door refuses it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from streams.errors import ConfigError
from streams.events import EVENT_TYPES, PROPERTY_TYPES
from streams.settings import Section

Row: TypeAlias = dict[str, Any]
_Native: TypeAlias = dict[str, Any]
_Read: TypeAlias = Callable[[Row, int], Any]

_PLACE: Final = re.compile(r"\{([^{}]+)\}")
_TRUE: Final = frozenset({"true", "1", "yes", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "n"})
_TEXT_FIELDS: Final = ("person", "session", "page", "stage")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"no time zone is called {name!r}") from error
    return name


class Cell(Section):
    """Where a value comes from: a column, perhaps translated, or a constant."""

    column: str | None = None
    values: dict[str, str] = Field({})
    constant: str | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, values: object) -> object:
        # YAML reads 0, 1 and no as numbers and truths, while cells of a table are text.
        return {_text(key): _text(value) for key, value in values.items()} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _one(self) -> Cell:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either column or constant")
        return self


class TimeCell(Section):
    """When a row happened: a column, or steps in file order for a table without times."""

    column: str | None = None
    format: str | None = Field(None, description="strptime format; none: ISO 8601, 'date time UTC' or epoch")
    zone: Annotated[str, AfterValidator(_zone)] | None = Field(None, description="zone of times that name none")
    start: datetime | None = None
    every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one(self) -> TimeCell:
        steps = self.start is not None and self.every_s is not None
        if steps == (self.column is not None) or (not steps and (self.start or self.every_s)):
            raise ValueError("give either column, or start and every_s")
        if self.start is not None and self.start.tzinfo is None:
            raise ValueError("start needs a zone, for example 2024-01-01T00:00:00Z")
        return self


class When(Section):
    """A condition: the column equals this value, or one of these."""

    column: str
    equals: str | tuple[str, ...]

    @field_validator("equals", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return tuple(_text(item) for item in value) if isinstance(value, list) else _text(value)


class Fields(Section):
    """The fields of a native event, and where each comes from."""

    id: str | Cell | None = None
    time: TimeCell | None = None
    person: str | Cell | None = None
    session: str | Cell | None = None
    page: str | Cell | None = None
    stage: str | Cell | None = None
    type: str | Cell | None = None
    segment: dict[str, str | Cell] = Field({})
    properties: dict[str, str | Cell] = Field({})

    @field_validator("type")
    @classmethod
    def _known_types(cls, value: str | Cell | None) -> str | Cell | None:
        # Only what a cell is translated to can be checked here; other cells are judged by the door.
        named = [value] if isinstance(value, str) else [*value.values.values(), value.constant] if value else []
        if unknown := sorted(name for name in named if name is not None and name not in EVENT_TYPES):
            raise ValueError(f"unknown event type {unknown[0]!r}")
        return value

    @field_validator("properties")
    @classmethod
    def _known_properties(cls, value: dict[str, str | Cell]) -> dict[str, str | Cell]:
        if unknown := sorted(value.keys() - PROPERTY_TYPES.keys()):
            raise ValueError(f"unknown property {unknown[0]!r}")
        return value


class Item(Fields):
    """One event of several that a row makes; what it names overrides the mapping's own fields."""

    when: When | None = None


class Mapping(Fields):
    """A mapping file."""

    delimiter: str | None = Field(None, min_length=1, max_length=1, description="none: comma, or tab for .tsv")
    events: tuple[Item, ...] = ()

    def compiled(self, columns: list[str], file: str) -> Callable[[Row | None, int], Iterator[_Native]]:
        """Make it a function of (row, row number from 1) to native events; a row of None could not be read.

        Args:
            columns: what the table has.
            file: its name, for generated ids.

        Raises:
            ConfigError: it names a column that the table lacks.
        """
        table = _Table(frozenset(columns), file)
        base = self.model_dump(exclude={"delimiter", "events"}, exclude_unset=True)
        makers: list[tuple[Callable[[Row], bool], _Maker]] = []
        for index, item in enumerate(self.events):
            where = f"events.{index}"
            fields = Fields.model_validate(base | item.model_dump(exclude={"when"}, exclude_unset=True))
            suffix = f":{index}" if index and item.id is None else ""
            makers.append((_condition(item.when, table, where), _Maker(fields, table, where, suffix)))
        plain = _Maker(Fields.model_validate(base), table, "mapping")

        def events(row: Row | None, number: int) -> Iterator[_Native]:
            if row is None:
                yield {"id": f"{file}:{number}"}
                return
            made = [maker(row, number) for applies, maker in makers if applies(row)]
            yield from made or [plain(row, number)]

        return events


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: it is no YAML mapping, or a key is unknown or wrong; the message names it.
    """
    try:
        return Mapping.model_validate(yaml.safe_load(path.read_bytes()))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'mapping'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable YAML mapping: {error}") from error


class _Table:
    """Readers of cells, made once per file."""

    def __init__(self, columns: frozenset[str], file: str) -> None:
        self.columns = columns
        self.file = file

    def column(self, name: str, key: str) -> str:
        if name not in self.columns:
            raise ConfigError(f"{key}: {self.file} has no column {name!r}; it has {', '.join(sorted(self.columns))}")
        return name

    def cell(self, source: str | Cell, key: str) -> _Read:
        if isinstance(source, Cell) and source.constant is not None:
            constant = source.constant
            return lambda row, number: constant
        name = self.column(source if isinstance(source, str) else source.column or "", key)
        values = source.values if isinstance(source, Cell) else {}
        if not values:
            return lambda row, number: _present(row.get(name))
        return lambda row, number: values.get(_text(row.get(name)), _present(row.get(name)))

    def text(self, source: str | Cell, key: str) -> _Read:
        read = self.cell(source, key)

        def as_text(row: Row, number: int) -> str | None:
            value = read(row, number)
            return None if value is None else _text(value)

        return as_text

    def id(self, source: str | Cell | None, suffix: str, key: str) -> _Read:
        if source is None:
            return lambda row, number: f"{self.file}:{number}{suffix}"
        if not isinstance(source, str) or "{" not in source:
            read = self.text(source, key)
            return lambda row, number: None if (value := read(row, number)) is None else value + suffix
        for name in set(_PLACE.findall(source)) - {"row", "file"}:
            self.column(name, key)
        fixed = {"file": self.file}

        def filled(row: Row, number: int) -> str:
            cells = fixed | {"row": number} | row
            return _PLACE.sub(lambda place: _text(cells.get(place[1])), source) + suffix

        return filled

    def time(self, source: TimeCell, key: str) -> _Read:
        if source.column is None:
            start_s, every_s = (source.start or datetime.now(UTC)).timestamp(), source.every_s or 0.0
            return lambda row, number: start_s + (number - 1) * every_s
        name = self.column(source.column, key)
        zone = ZoneInfo(source.zone) if source.zone else None
        return lambda row, number: _time(_present(row.get(name)), source.format, zone)


class _Maker:
    """Makes one native event of a row; a field without value is left out, for the door to judge."""

    def __init__(self, fields: Fields, table: _Table, where: str, suffix: str = "") -> None:
        self._top: list[tuple[str, _Read]] = [("id", table.id(fields.id, suffix, f"{where}.id"))]
        if isinstance(fields.type, str):
            kind = Cell(constant=fields.type)
            self._top.append(("type", table.text(kind, f"{where}.type")))
        elif fields.type is not None:
            self._top.append(("type", table.text(fields.type, f"{where}.type")))
        if fields.time is not None:
            self._top.append(("time", table.time(fields.time, f"{where}.time")))
        for name in _TEXT_FIELDS:
            if (source := getattr(fields, name)) is not None:
                self._top.append((name, table.text(source, f"{where}.{name}")))
        self._segment = [
            (label, table.text(source, f"{where}.segment.{label}")) for label, source in fields.segment.items()
        ]
        self._properties = [
            (name, _typed(name, table.cell(source, f"{where}.properties.{name}")))
            for name, source in fields.properties.items()
        ]

    def __call__(self, row: Row, number: int) -> _Native:
        event = _filled(self._top, row, number)
        for name, readers in (("segment", self._segment), ("properties", self._properties)):
            if readers:
                event[name] = _filled(readers, row, number)
        return event


def _filled(readers: list[tuple[str, _Read]], row: Row, number: int) -> _Native:
    return {name: value for name, read in readers if (value := read(row, number)) is not None}


def _condition(when: When | None, table: _Table, where: str) -> Callable[[Row], bool]:
    if when is None:
        return lambda row: True
    name = table.column(when.column, f"{where}.when.column")
    wanted = {when.equals} if isinstance(when.equals, str) else set(when.equals)
    return lambda row: _text(row.get(name)) in wanted


def _present(value: Any) -> Any:
    """The value, or None for an empty cell; Parquet writes those as NaN, too."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # integer columns with gaps come out of Parquet as floats
    return str(value)


def _typed(name: str, read: _Read) -> _Read:
    """Cells of a CSV are text; what does not look like the property's type stays text, and the door refuses it."""
    expected = PROPERTY_TYPES[name]
    if name == "promised_at":
        return lambda row, number: _time(read(row, number), None, None)
    return lambda row, number: _as(expected, read(row, number))


def _as(expected: type, value: Any) -> Any:
    if value is None or (expected is str and isinstance(value, str)):
        return value
    if expected is str:
        return _text(value)
    word = _text(value).strip().lower()
    if expected is bool:
        return word in _TRUE if word in _TRUE | _FALSE else word
    number = _float(value) if isinstance(value, str | int | float | Decimal) else None
    return word if number is None or not math.isfinite(number) else number


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _time(value: Any, form: str | None, zone: ZoneInfo | None) -> Any:
    """A time as ISO 8601 or epoch number; what is neither passes as it is and the door refuses it."""
    if isinstance(value, str):
        if form is None and (number := _float(value)) is not None:
            return number if math.isfinite(number) else value
        moment = _moment(value.strip(), form)
        if moment is None:
            return value
    elif isinstance(value, datetime):
        moment = value
    else:
        return value.isoformat() if isinstance(value, date) else value
    return (moment.replace(tzinfo=zone) if moment.tzinfo is None and zone else moment).isoformat()


def _moment(value: str, form: str | None) -> datetime | None:
    try:
        if form is not None:
            return datetime.strptime(value, form)  # noqa: DTZ007  (the mapping's zone is applied by the caller)
        return datetime.fromisoformat(value.removesuffix(" UTC") + "+00:00" if value.endswith(" UTC") else value)
    except ValueError:
        return None
