"""What a mapping may say: where each field of a native event comes from. One language for files and for tables."""

from __future__ import annotations

from datetime import datetime, time
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from streams.events import EVENT_TYPES, PROPERTY_TYPES
from streams.settings import Section


def as_text(value: object) -> str:
    """What a cell says, however the table types it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # integer columns with gaps come out of Parquet as floats
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"no time zone is called {name!r}") from error
    return name


class Unit(StrEnum):
    """What a number in a column of times counts, from 1970 on."""

    D = "d"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


class Cell(Section):
    """Where a value comes from: a column, perhaps translated, or a constant."""

    column: str | None = None
    values: dict[str, str] = Field({})
    constant: str | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, values: object) -> object:
        # YAML reads 0, 1 and no as numbers and truths, while cells of a table are text.
        return {as_text(key): as_text(value) for key, value in values.items()} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _one(self) -> Cell:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either column or constant")
        return self


class Moment(Section):
    """A column of times."""

    column: str
    format: str | None = Field(None, description="strptime format; none: ISO 8601, 'date time UTC' or epoch")
    zone: Annotated[str, AfterValidator(_zone)] | None = Field(None, description="zone of times that name none")
    unit: Unit | None = Field(None, description="what numbers count from 1970 on; none: seconds or milliseconds")
    at: time | None = Field(None, description="time of day of dates, such as 23:59; none: midnight")


class TimeCell(Section):
    """When a row happened: a column, or steps in file order for a table without times."""

    column: str | None = None
    format: str | None = Field(None, description="as in Moment")
    zone: Annotated[str, AfterValidator(_zone)] | None = Field(None, description="as in Moment")
    unit: Unit | None = Field(None, description="as in Moment")
    at: time | None = Field(None, description="as in Moment")
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

    @property
    def moment(self) -> Moment | None:
        """The column, if that is where times come from."""
        if self.column is None:
            return None
        return Moment(column=self.column, format=self.format, zone=self.zone, unit=self.unit, at=self.at)


class When(Section):
    """A condition: the column equals this value, or one of these."""

    column: str
    equals: str | tuple[str, ...]

    @field_validator("equals", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return tuple(as_text(item) for item in value) if isinstance(value, list) else as_text(value)


class Fields(Section):
    """The fields of a native event, and where each comes from."""

    id: str | Cell | None = None
    time: TimeCell | None = None
    device_time: Moment | None = None
    person: str | Cell | None = None
    also_person: str | Cell | None = None
    session: str | Cell | None = None
    page: str | Cell | None = None
    stage: str | Cell | None = None
    type: str | Cell | None = None
    segment: dict[str, str | Cell] = Field({})
    properties: dict[str, str | Cell | Moment] = Field({})

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
    def _known_properties(cls, value: dict[str, str | Cell | Moment]) -> dict[str, str | Cell | Moment]:
        if unknown := sorted(value.keys() - PROPERTY_TYPES.keys()):
            raise ValueError(f"unknown property {unknown[0]!r}")
        if timed := sorted(name for name, cell in value.items() if isinstance(cell, Moment) and name != "promised_at"):
            raise ValueError(f"{timed[0]}: format, zone, unit and at are for times, which only promised_at is")
        return value


class Item(Fields):
    """One event of several that a row makes; what it names overrides the mapping's own fields."""

    when: When | None = None
