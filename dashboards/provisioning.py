"""Are these files what Grafana can be provisioned with? `python -m dashboards.provisioning [FOLDER]` says it.

Grafana drops keys that it does not know, in silence, and its keys are of mixed casing (`keepFiringFor`, but
`missing_series_evals_to_resolve`): a typo would go unseen until the night in which the alert is missed. So every key is
held against the ones that Grafana reads (pkg/services/provisioning), and what belongs together is held together.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from dashboards._alert_spec import ROOT
from dashboards._provisioning_schema import (
    EXPRESSION,
    AlertingFile,
    DashboardFile,
    DataSourceFile,
    Part,
    Policy,
    Route,
    Timing,
)

FOLDER: Final = ROOT / "deploy" / "grafana" / "provisioning"
FILES: Final[dict[str, type[Part]]] = {
    "alerting": AlertingFile, "datasources": DataSourceFile, "dashboards": DashboardFile,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    folder = Path(given[0]) if given else FOLDER
    problems = check(folder)
    for problem in problems:
        print(f"FAIL {problem}", file=sys.stderr)
    return 1 if problems else 0


def check(folder: Path) -> list[str]:
    """What is wrong with the provisioning files below a folder, one line each: file, place, what."""
    if not folder.is_dir():
        return [f"{folder}: no such folder"]
    problems: list[str] = []
    read: list[Part] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        kind = FILES.get(name.parts[0]) if len(name.parts) == 2 else None
        if kind is None or path.suffix not in (".yaml", ".yml"):
            problems.append(f"{name}: Grafana expects YAML files in {', '.join(FILES)}, and nothing else")
            continue
        try:
            read.append(kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except ValidationError as error:
            problems += [f"{name}: {_say(problem)}" for problem in error.errors()]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            problems.append(f"{name}: no YAML: {error}")
    return problems + ([] if problems else list(_across(read)))


def _say(problem: Any) -> str:
    return f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"


def _across(read: Sequence[Part]) -> Iterator[str]:
    """What must fit between files."""
    alerting = [one for one in read if isinstance(one, AlertingFile)]
    points = [point.name for one in alerting for point in one.contactPoints]
    mutes = {mute.name for one in alerting for mute in one.muteTimes}
    policies = [policy for one in alerting for policy in one.policies]
    yield from _twice("policy tree of organisation", [policy.orgId for policy in policies])
    yield from _twice("contact point", points)
    for route in _routes(policies):
        if route.receiver not in points:
            yield f"policies: receiver {route.receiver} is no contact point; known: {', '.join(points)}"
        for name in (*getattr(route, "mute_time_intervals", ()), *getattr(route, "active_time_intervals", ())):
            if name not in mutes:
                yield f"policies: {name} is no mute timing"
    groups = [group for one in alerting for group in one.groups]
    yield from _twice("rule uid", [rule.uid for group in groups for rule in group.rules])
    yield from _twice("rule title in folder", [(group.folder, rule.title) for group in groups for rule in group.rules])
    sources = [one for file in read if isinstance(file, DataSourceFile) for one in file.datasources]
    yield from _twice("data source uid", [one.uid for one in sources])
    if sources:
        known = {EXPRESSION, *(one.uid for one in sources)}
        asked = {query.datasourceUid for group in groups for rule in group.rules for query in rule.data}
        yield from (f"rules: data source {uid} is not provisioned" for uid in sorted(asked - known))


def _routes(policies: Iterable[Policy]) -> Iterator[Timing]:
    waiting: list[Policy | Route] = list(policies)
    while waiting:
        one = waiting.pop()
        yield one
        waiting += one.routes


def _twice(what: str, names: Sequence[Any]) -> Iterator[str]:
    yield from (f"{what} {name} is there {count} times" for name, count in Counter(names).items() if count > 1)


if __name__ == "__main__":
    sys.exit(main())
