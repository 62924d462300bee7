"""A mapping file: which columns of a table make which native events.

```yaml
time: {column: event_time}              # or {start: 2024-01-01T00:00:00Z, every_s: 5} for rows without times
person: user_id                         # a string names a column; user.id is a part of a nested one
type: {column: kind, values: {view: page_viewed, buy: purchased}}   # or a constant: `type: page_viewed`
segment: {channel: {constant: email}}
properties: {value: price, promised_at: {column: due, zone: Europe/Berlin, at: "23:59"}}
```

A field is a column, `{column, values}` (values not listed pass as they are), `{constant}`, or for `id` also a template
such as `"{order}-{row}"`. `type` is the exception: a string is the type itself. Times (`time`, `device_time`,
`promised_at`) take `format`, `zone` (of times that name none), `unit` (d, s, ms, us or ns, what a number counts) and
`at` (time of day of dates). A date without `at` is its midnight, without `zone` in UTC; a time of day without zone is
refused. Under `events`, each item makes one event of the row and overrides what it names; `when` restricts it. A row
always makes one event at least (if no item applies: the mapping's own fields); where a cell is empty the event lacks
that field, and the door refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from streams.errors import ConfigError
from streams.mapping_cells import Maker, Native, Row, Table
from streams.mapping_fields import Fields, Item

__all__ = ["Mapping", "Row", "load_mapping", "read_model"]

_Model = TypeVar("_Model", bound=BaseModel)


class Mapping(Fields):
    """A mapping file."""

    delimiter: str | None = Field(None, min_length=1, max_length=1, description="none: comma, or tab for .tsv")
    events: tuple[Item, ...] = ()

    def compiled(self, columns: list[str], file: str) -> Callable[[Row | None, int], Iterator[Native]]:
        """Make it a function of (row, row number from 1) to native events; a row of None could not be read.

        Args:
            columns: what the table has.
            file: its name, for generated ids.

        Raises:
            ConfigError: it names a column that the table lacks.
        """
        table = Table(frozenset(columns), file)
        base = self.model_dump(exclude={"delimiter", "events"}, exclude_unset=True)
        makers: list[tuple[Callable[[Row], bool], Maker]] = []
        for index, item in enumerate(self.events):
            where = f"events.{index}"
            fields = Fields.model_validate(base | item.model_dump(exclude={"when"}, exclude_unset=True))
            suffix = f":{index}" if index and item.id is None else ""
            makers.append((table.condition(item.when, where), Maker(fields, table, where, suffix)))
        plain = Maker(Fields.model_validate(base), table, "mapping")

        def events(row: Row | None, number: int) -> Iterator[Native]:
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
    return read_model(path, Mapping, str(path))


def read_model(path: Path, model: type[_Model], who: str) -> _Model:
    """Read a YAML file that a model describes.

    Args:
        path: the file.
        model: what it must be.
        who: what the message begins with: the file, or the knob that names it and the file.

    Raises:
        ConfigError: it is no YAML mapping, or a key is unknown or wrong; the message names it.
    """
    try:
        content: Any = yaml.safe_load(path.read_bytes())
        return model.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'mapping'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{who}: {problems}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{who}: not a readable YAML mapping: {error}") from error
