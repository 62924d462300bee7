"""What the documents say about knobs, commands and metrics, written from the code: `python -m streams.docs [--check]`.

A generated part stands between `<!-- generated: NAME -->` and `<!-- /generated -->`; the rest of a document stays.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import yaml
from prometheus_client.core import Metric
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import PydanticBaseSettingsSource

from detectors._step_model import StepModel, StepModelParams
from streams.app import Line
from streams.cli import cli
from streams.collect.metrics import Tally
from streams.errors import TrustwatchError, UsageError
from streams.events import EVENT_TYPES, REASONS
from streams.formats import FORMATS
from streams.formats._format import Covered
from streams.formats._names import BUILT_IN
from streams.metrics import LineCollector
from streams.settings import ENV_PREFIX, Settings, TopicSettings, knobs
from streams.topics import HOUR_MS, specs
from streams.units import STEP_MODEL, Plan

ROOT: Final = Path(__file__).resolve().parents[1]
MAIN: Final = "README.md"
_BEGIN: Final = "<!-- generated: {} -->"
# At the beginning of a line: a document may well mention a marker in its text.
_PART: Final = re.compile(r"^<!-- generated: (?P<name>[^>]*?) -->\n.*?^<!-- /generated -->", re.DOTALL | re.MULTILINE)
_OPENING: Final = re.compile(r"^<!-- generated: ", re.MULTILINE)

REASON_MEANINGS: Final[dict[str, str]] = {
    "empty": "no bytes, or only white space",
    "too_large": "larger than `ingest.max_event_bytes`, or more items than `ingest.max_batch_items`",
    "not_json": "not JSON, or not UTF-8",
    "not_an_object": "JSON, but no object where one was expected",
    "unknown_format": "an object or array of none of the formats",
    "unknown_type": "an event, call or subscription of a type that the format does not have",
    "missing_field": "a required field is absent or empty",
    "bad_field": "a field has a value or type that it must not have",
    "bad_time": "the time cannot be read, or lacks its zone",
    "time_out_of_range": "older than `ingest.earliest_time`, or further ahead than `ingest.max_future_s`",
    "not_finite": "a number that is infinite or none",
    "empty_batch": "a batch without items",
    "nested_batch": "a batch within a batch",
    "too_deep": "nested too deeply to be parsed",
    "tombstone": "a message without a value",
    "reader_failed": "our reader of that format is at fault; the message waits at its place, please report it",
}
"""What a reader of the dead letters is told; `tests/test_docs.py` holds it against `Reason`."""


class _Defaults(Settings):
    """Settings as the code has them: neither environment nor file may show in a document."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[Any],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Rewrite the generated parts, or (`--check`) only say which documents are stale; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m streams.docs", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a document is stale")
    check = parser.parse_args(arguments).check
    try:
        stale, missing = refresh(root, write=not check)
    except TrustwatchError as error:
        print(f"FAIL {error}", file=sys.stderr)
        return 1
    for name in missing:
        fix = "Fix: add it, and <!-- /generated --> below, then make gen"
        print(f"FAIL {MAIN} has no part {_BEGIN.format(name)}. {fix}", file=sys.stderr)
    for path in stale:
        print(f"FAIL {path} stale. Fix: make gen" if check else f"wrote {path}", file=sys.stderr)
    return 1 if missing or (check and stale) else 0


def refresh(root: Path = ROOT, *, write: bool = True) -> tuple[list[str], list[str]]:
    """Bring the generated parts of all documents up to date.

    Args:
        root: of the repository.
        write: store them; otherwise only compare.

    Returns:
        Documents that were stale, and parts that no document has.

    Raises:
        UsageError: a marker names no part, or is not closed.
    """
    made = parts()
    stale, seen = [], set[str]()
    for path in documents(root):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(root))
        fresh, found = _fill(text, made, name)
        seen |= found
        if fresh != text:
            stale.append(name)
            if write:
                path.write_text(fresh, encoding="utf-8")
    return stale, [name for name in made if name not in seen]


def documents(root: Path) -> list[Path]:
    """The documents that may have generated parts: those at the root, and those of deploy and docs."""
    return [path for folder in (".", "deploy", "docs") for path in sorted((root / folder).glob("*.md"))]


def parts() -> dict[str, str]:
    """Every generated part, by the name in its marker."""
    return {name: make() for name, make in PARTS.items()}


def _fill(text: str, made: dict[str, str], where: str) -> tuple[str, set[str]]:
    found = set[str]()

    def fresh(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in made:
            raise UsageError(f"{where}: {_BEGIN.format(name)} is no generated part; known: {', '.join(made)}")
        found.add(name)
        if len(_OPENING.findall(match[0])) > 1:
            raise UsageError(f"{where}: {_BEGIN.format(name)} is not closed. Fix: add <!-- /generated -->")
        return f"{_BEGIN.format(name)}\n\n{made[name].strip()}\n\n<!-- /generated -->"

    filled, count = _PART.subn(fresh, text)
    if count != len(_OPENING.findall(text)):
        raise UsageError(f"{where}: a generated part is not closed. Fix: add <!-- /generated -->")
    return filled, found


# ── the parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def commands() -> str:
    """Every command with its options, as click knows them."""
    rows = []
    for context in _leaves(click.Context(cli, info_name="trustwatch")):
        unsaid = {"[OPTIONS]", "COMMAND [ARGS]..."}
        pieces = [piece for piece in context.command.collect_usage_pieces(context) if piece not in unsaid]
        records = [parameter.get_help_record(context) for parameter in context.command.get_params(context)]
        options = [f"`{record[0]}` {record[1]}" for record in records if record and "--help" not in record[0]]
        usage = " ".join([context.command_path, *pieces])
        rows.append([f"`{usage}`", context.command.help or "", "<br>".join(options)])
    return _table(("command", "does", "options"), rows)


def _leaves(context: click.Context) -> Iterator[click.Context]:
    if not isinstance(context.command, click.Group):
        yield context
        return
    if context.command.invoke_without_command and context.parent is not None:
        yield context
    for name, command in context.command.commands.items():
        yield from _leaves(click.Context(command, info_name=name, parent=context))


def settings() -> str:
    """Every knob."""
    rows = [
        [f"`{name}`", f"`{ENV_PREFIX}{name.upper().replace('.', '__')}`", _default(field), field.description or ""]
        for name, field in knobs()
    ]
    return _table(("knob", "environment variable", "default", "meaning"), rows)


def metrics() -> str:
    """Every metric of a worker, from its collector on a line that has not seen anything."""
    line = Line(_Defaults(privacy={"pseudonym_key": "only for documents"}))
    rows = {
        _exposed(family): [f"`{_exposed(family)}`", family.type, _labels(family), family.documentation]
        for family in (*LineCollector(line).collect(), *Tally().collect())
    }
    return _table(("metric", "type", "labels", "meaning"), [rows[name] for name in sorted(rows)])


def _exposed(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    # A family without samples keeps its labels in a private field only.
    declared = list(getattr(family, "_labelnames", ()))
    sampled = [label for sample in family.samples for label in sample.labels if label != "le"]
    return ", ".join(f"`{label}`" for label in dict.fromkeys(declared + sampled))


def detectors() -> str:
    """Every detector with its effective parameters under the built-in journey, and the per-step model."""
    plan = Plan(_Defaults()).detectors
    texts = []
    for name, cls in plan.classes.items():
        alert = f"alerts from level `{cls.alert.level}` as a {cls.alert.severity}"
        if cls.alert.for_s:
            alert += f" after {cls.alert.for_s:g} s"
        texts.append(f"**`{name}`** ({cls.title}): {_first_line(cls)} Unit: {cls.unit}; {alert}.")
        texts.append(_parameters(plan.params[name]))
    texts += [f"**`{STEP_MODEL}`**, no detector: {_first_line(StepModel)}", _parameters(StepModelParams())]
    return "\n\n".join(texts)


def _parameters(params: BaseModel) -> str:
    fields = type(params).model_fields.items()
    rows = [[f"`{name}`", _value(getattr(params, name)), field.description or ""] for name, field in fields]
    return _table(("parameter", "default", "meaning"), rows)


def formats() -> str:
    """Every wire format with its specification, what it covers, and which vendor names mean what."""
    mapped: dict[str, dict[str, Any]] = yaml.safe_load(BUILT_IN.read_bytes())
    rows = [[f"`{form.name}`", form.takes, form.spec + "."] for form in FORMATS.values()]
    texts = [_table(("format", "takes", "specification"), rows)]
    for form in FORMATS.values():
        if form.coverage:
            covered = _table(("it says", "becomes", "note"), map(_covered, form.coverage))
            texts += [f"What becomes of `{form.name}`:", covered]
    for name, names in mapped.items():
        also = f", beside those of `{names['extends']}`" if "extends" in names else ""
        texts += [f"Names of `{name}`{also}, by what they become:", _mapping(names)]
    return "\n\n".join(texts)


def _covered(row: Covered) -> list[str]:
    vendor, kind, note = row
    return [vendor, f"`{kind}`" if kind in EVENT_TYPES else kind, note]


def _mapping(names: dict[str, Any]) -> str:
    by_type: dict[str, list[str]] = {}
    for vendor, kind in _vendor_names(names):
        by_type.setdefault(kind, []).append(vendor)
    keys = names.get("properties", {})
    rows = []
    for kind in sorted(by_type.keys() | keys.keys()):
        read = [f"`{name}` from {', '.join(sources)}" for name, sources in keys.get(kind, {}).items()]
        rows.append([f"`{kind}`", ", ".join(by_type.get(kind, ())), "; ".join(read)])
    head = ("becomes", "vendor name", "properties read") if keys else ("becomes", "vendor name")
    return _table(head, [row[: len(head)] for row in rows])


def _vendor_names(names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(vendor name, event type or label) of one section of names.yaml."""
    yield from names.get("events", {}).items()
    for name, values in names.get("changes", {}).items():
        yield from ((f"{name} = {value}", kind) for value, kind in values.items())
    yield from ((name, f"label {label}") for name, label in names.get("labels", {}).items())


def topics() -> str:
    """Every topic that is read or written."""
    defaults = _Defaults()
    wanted = {spec.name: spec for spec in specs(defaults)}
    rows = []
    for knob, field in TopicSettings.model_fields.items():
        value = getattr(defaults.topics, knob)
        names = [topic.name for topic in value] if knob == "raw" else [value]
        for spec in (wanted[name] for name in names if name in wanted):
            cells = [f"`{spec.name}`", f"`topics.{knob}`", str(spec.partitions), _kept(spec.config)]
            rows.append([*cells, field.description or ""])
    return _table(("topic", "knob", "partitions", "kept", "holds"), rows)


def _kept(config: dict[str, str]) -> str:
    if config.get("cleanup.policy") == "compact":
        return "newest of each key"
    return f"{int(config['retention.ms']) // HOUR_MS} h" if "retention.ms" in config else "yours to say"


def reasons() -> str:
    """Every reason of a dead letter."""
    return _table(("reason", "meaning"), [[f"`{reason}`", REASON_MEANINGS[reason]] for reason in REASONS])


PARTS: Final[dict[str, Callable[[], str]]] = {
    made.__name__: made for made in (commands, settings, metrics, detectors, formats, topics, reasons)
}
"""Name in the marker → what writes the part."""


# ── Markdown ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    whole = [head, ["---"] * len(head), *rows]
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in whole]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _default(field: FieldInfo) -> str:
    return "required" if field.default is PydanticUndefined else _value(field.default)


def _value(value: object) -> str:
    """A value as it is written in the environment: text plain, all else as JSON."""
    if value is None or value == "" or isinstance(value, SecretStr):
        return "none"
    if isinstance(value, str | Path | Enum):
        return f"`{value}`"
    return f"`{msgspec.json.encode(value, enc_hook=_plain).decode()}`"


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return {name: field for name, field in value if field is not None}
    raise NotImplementedError(f"a knob with a default of type {type(value).__name__}")


if __name__ == "__main__":
    sys.exit(main())
