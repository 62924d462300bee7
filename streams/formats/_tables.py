"""The map of `ingest.debezium_map`: which changes of which tables make which events.

```yaml
tables:
  shop.orders:                         # database.table, schema.table, database.schema.table, or the table alone
    - {on: [c], type: order_placed, person: customer_id, properties: {promised_at: {column: due, unit: us}}}
    - on: [u]                          # c created, u updated, d deleted, r read in a snapshot; none: c and u
      changed: status                  # only where this column (or one of these) got another value
      when: {column: status, equals: delivered}
      type: order_delivered
      person: customer_id
```

The fields are those of a mapping file (see `streams.mapping`); columns are those of the row after the change, of a
deletion those before. `time` is when the database committed, `id` follows from the change's place in its log.

Where a database does not log a row as it was before (PostgreSQL without `REPLICA IDENTITY FULL`), nobody knows whether
`changed` holds. Such a change is a dead letter, unless `if_unknown` says `fire` or `skip`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from pydantic import Field, field_validator, model_validator

from streams.mapping import Row, read_model
from streams.mapping_cells import Maker, Native, Table
from streams.mapping_fields import Cell, Item, as_text
from streams.settings import Section, Settings

KNOB: Final = "ingest.debezium_map"
Op = Literal["c", "u", "d", "r"]
Unknown = Literal["refuse", "fire", "skip"]


class Rule(Item):
    """One event that changes of a table may make."""

    on: tuple[Op, ...] = Field(("c", "u"), min_length=1)
    changed: tuple[str, ...] = ()
    if_unknown: Unknown = "refuse"

    @model_validator(mode="before")
    @classmethod
    def _on(cls, rule: Any) -> Any:
        # YAML 1.1 reads the key `on` as true.
        return {"on" if key is True else key: value for key, value in rule.items()} if isinstance(rule, dict) else rule

    @field_validator("on", "changed", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Rule:
        if self.type is None:
            raise ValueError("type: missing: say what event this is")
        if self.person is None:
            raise ValueError("person: missing: say which column holds whom it is about")
        if self.time is not None and self.time.column is None:
            raise ValueError("time: changes have a time of their own; give a column, or leave it out")
        if isinstance(self.id, str) and ("{row}" in self.id or "{file}" in self.id):
            raise ValueError("id: {row} and {file} are for files")
        return self


class _File(Section):
    tables: dict[str, tuple[Rule, ...]]


class Change(msgspec.Struct):
    """One change of one row, out of whichever envelope.

    Attributes:
        op: created, updated, deleted, or read in a snapshot.
        row: the row after the change, of a deletion before it.
        before: the row before an update, as far as it is known; None if it is not.
        known: whether anything of the row is; `row` is empty if not.
    """

    op: str
    row: Row
    before: Row | None = None
    known: bool = True


class Compiled(msgspec.Struct):
    """One rule, ready to use.

    Attributes:
        rule: what the file says.
        applies: whether a row is meant.
        make: its native event, without the fields that only the change knows.
        where: its place in the file.
    """

    rule: Rule
    applies: Callable[[Row], bool]
    make: Maker
    where: str

    def fires(self, change: Change) -> bool | None:
        """Whether this change makes this event; None where only the row before it, which is not known, could tell."""
        if change.op not in self.rule.on or not self.applies(change.row):
            return False
        if change.op != "u" or not self.rule.changed:
            return True
        told = [_differs(change, column) for column in self.rule.changed]
        if True in told or None not in told:
            return True in told
        return None if self.rule.if_unknown == "refuse" else self.rule.if_unknown == "fire"


def _differs(change: Change, column: str) -> bool | None:
    """Whether an update changed a column; None where that is unknown. A column that is not logged did not change."""
    if column not in change.row:
        return False
    if change.before is None or column not in change.before:
        return None
    return bool(change.row[column] != change.before[column])


class TableMap:
    """All tables of a map."""

    def __init__(self, tables: Mapping[str, tuple[Rule, ...]]) -> None:
        """Prepare the rules.

        Args:
            tables: name → rules, in order.
        """
        self._tables = {name: [*_compiled(name, rules)] for name, rules in tables.items()}
        self._person = {
            name: Table(None, name, UTC).text(rules[0].person, name)
            for name, rules in tables.items()
            if rules and rules[0].person is not None
        }

    def rules(self, names: tuple[str, ...]) -> list[Compiled]:
        """The rules of a table, by the first of its names that the map has; none if it has none."""
        return next((self._tables[name] for name in names if name in self._tables), [])

    def person(self, names: tuple[str, ...], row: Row) -> str | None:
        """Whom a row is about, by the first rule of its table."""
        read = next((self._person[name] for name in names if name in self._person), None)
        found = read(row, 0) if read else None
        return None if found is None else as_text(found)


NO_TABLES: Final = TableMap({})
"""What holds without a map."""


def _compiled(name: str, rules: tuple[Rule, ...]) -> Iterator[Compiled]:
    # Columns show only in the changes themselves. Times without zone are UTC, as Debezium writes them.
    table = Table(None, name, UTC)
    for at, rule in enumerate(rules):
        fields = rule if rule.id is not None else rule.model_copy(update={"id": Cell(constant="")})
        where = f"{KNOB}: tables.{name}.{at}"
        yield Compiled(rule, table.condition(rule.when, where), Maker(fields, table, where), where)


def unmapped(settings: Settings) -> str | None:
    """What to tell who fixed a topic to Debezium and said nothing of its tables; None where all is well."""
    topics = [topic.name for topic in settings.topics.raw if topic.format == "debezium"]
    if not topics or settings.ingest.debezium_map is not None:
        return None
    return f"topics.raw: {', '.join(topics)}: debezium, but {KNOB} is not set: all changes are counted as `other`"


def load_tables(path: Path | None) -> TableMap:
    """Read a map; none is a map without tables.

    Raises:
        ConfigError: the file is unreadable, or a key is unknown or wrong; the message names the knob and the key.
    """
    if path is None:
        return NO_TABLES
    return TableMap(read_model(path, _File, f"{KNOB} {path}").tables)


def native_of(compiled: Compiled, change: Change, event_id: str, time_s: float) -> Native:
    """The native event of a rule that fires: what the rule leaves open comes from the change."""
    made: dict[str, Any] = compiled.make(change.row, 0)
    if compiled.rule.id is None:
        made["id"] = event_id
    if compiled.rule.time is None:
        made["time"] = time_s
    return made
