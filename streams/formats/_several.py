"""Messages of which one item may say several things: its outcomes, in order, and never an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from streams.events import Outcome, Rejection
from streams.formats._common import Fields, FormatOptions, Refused, readable


def several(
    value: Any,
    options: FormatOptions,
    told_by: Callable[[Fields, FormatOptions], Iterator[Outcome]],
    person_of: Callable[[Fields], str | None],
) -> list[Outcome]:
    """All outcomes of one item, or of each of an array.

    Args:
        value: parsed JSON.
        options: `max_batch_items` bounds an array.
        told_by: outcomes of one item, at least one; may raise `Refused` before it gives the first.
        person_of: whom a refused item is about.
    """
    if not isinstance(value, list):
        return _told(value, options, told_by, person_of, "")
    if not value:
        return [Rejection("empty_batch", "a batch without items")]
    limit = options.max_batch_items
    outcomes: list[Outcome] = []
    for at, item in enumerate(value[:limit]):
        outcomes += _told(item, options, told_by, person_of, f"item {at}: ")
    outcomes += [
        Rejection("too_large", f"item {at}: beyond ingest.max_batch_items = {limit}", readable(item, person_of))
        for at, item in enumerate(value[limit:], limit)
    ]
    return outcomes


def _told(
    item: Any,
    options: FormatOptions,
    told_by: Callable[[Fields, FormatOptions], Iterator[Outcome]],
    person_of: Callable[[Fields], str | None],
    where: str,
) -> list[Outcome]:
    if not isinstance(item, dict):
        return [Rejection("not_an_object", f"{where}a JSON object was expected")]
    try:
        told = list(told_by(item, options))
    except Refused as refused:
        return [Rejection(refused.reason, where + refused.detail, person_of(item))]
    if not where:
        return told
    return [
        Rejection(one.reason, where + one.detail, one.person) if isinstance(one, Rejection) else one for one in told
    ]
