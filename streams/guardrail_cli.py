"""What the commands about guardrails share: which files, checked against which settings, and the table of `show`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from streams.errors import UsageError
from streams.guardrails import Guardrail, load_guardrails
from streams.journey import load_journey
from streams.settings import Settings


def checked(settings: Settings, files: Sequence[Path]) -> list[tuple[Path, tuple[Guardrail, ...]]]:
    """Read files, or the configured one.

    Raises:
        ConfigError: one is wrong; names file, guardrail and key.
        UsageError: none is given and none configured.
    """
    if not files:
        if settings.guardrails_file is None:
            raise UsageError("no guardrails are configured. Fix: name a file, or set guardrails_file;"
                             " deploy/guardrails.yaml is an example")  # fmt: skip
        files = (settings.guardrails_file,)
    stages = load_journey(settings.journey_file).stages
    return [(path, load_guardrails(path, stages, settings.segments)) for path in files]


def require_known(settings: Settings, name: str) -> None:
    """Refuse the name of a guardrail that there is not.

    Raises:
        UsageError: there is none of this name.
    """
    ((_, found),) = checked(settings, ())
    names = [one.name for one in found]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
        raise UsageError(f"{name}: there is no such guardrail; {hint}")


def table(guardrails: Sequence[Guardrail]) -> Table:
    """Owner, limit or budget, and action."""
    shown = Table("guardrail", "owner", "may go wrong", "tells by", "protects", "first", show_lines=True)
    for one in guardrails:
        shown.add_row(one.name, one.owner, f"{one.allowed}: {one.meaning}", one.paging, one.protects, one.action)
    return shown
