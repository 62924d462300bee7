"""Whether Grafana has what we want: it adds ids, versions, times and defaults, and writes durations in its own way."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[REDACTED]"
"""What Grafana shows of a secret."""
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}
_DURATION: Final = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")


def duration_s(text: str) -> float:
    """A duration as Prometheus and Grafana write it, in seconds.

    >>> duration_s("1m30s"), duration_s("90s"), duration_s("0")
    (90.0, 90.0, 0.0)

    Raises:
        ValueError: it is none.
    """
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration such as 30s or 1h30m")
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def duration(seconds: float) -> str:
    """The same the other way round, in whole seconds, as Grafana writes it.

    >>> duration(90), duration(0), duration(7200)
    ('1m30s', '0s', '2h')
    """
    left, text = round(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS_S[unit]))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def without(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A body without what Grafana keeps for itself."""
    return {name: value for name, value in body.items() if name not in names}


def align(wanted: Any, found: Any) -> tuple[Any, Any]:
    """Both without what makes no difference: empty values that only one side spells out, and secrets not shown.

    >>> align({"a": 1, "b": []}, {"a": 1, "c": None, "d": False})
    ({'a': 1}, {'a': 1})
    >>> align({"a": False}, {"a": True})
    ({'a': False}, {'a': True})
    """
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return _align_mappings(wanted, found)
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = [align(*pair) for pair in zip(wanted, found, strict=True)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if found == REDACTED and isinstance(wanted, str) and wanted:
        return wanted, wanted
    return wanted, found


def _align_mappings(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    ours, theirs = {}, {}
    for name in {**wanted, **found}:
        if name not in found:
            if wanted[name] not in (None, "", [], {}):
                ours[name] = wanted[name]
        elif name not in wanted:
            if found[name] not in (None, "", [], {}) and found[name] is not False:
                theirs[name] = found[name]
        else:
            ours[name], theirs[name] = align(wanted[name], found[name])
    return ours, theirs


def unified(name: str, found: Any, wanted: Any) -> str:
    """What would change, as a unified diff; empty if nothing would."""
    before, after = (json.dumps(side, indent=1, sort_keys=True, ensure_ascii=False) for side in (found, wanted))
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"Grafana: {name}", f"trustwatch: {name}", n=2, lineterm=""
    )
    return "\n".join(lines)
