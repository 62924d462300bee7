"""What a wire format is: the contract that each module of this package fills in once, as `FORMAT`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from streams.events import Outcome
from streams.formats._common import FormatOptions

Covered: TypeAlias = tuple[str, str, str]
"""One row of a table of coverage: what the vendor calls it, our event type (or what it becomes), a note (may be empty).
Names of events that `names.yaml` maps are listed from there and need no row."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One wire format.

    Attributes:
        name: how settings and `--format` call it, and its section of `names.yaml`, where it has one.
        takes: what it takes, one sentence for the docs.
        spec: the public specification that it follows: titles and paths, no hosts of packages.
        decode: parsed JSON → outcomes, at least one. May raise `Refused`, nothing else, whatever the value is.
        recognises: whether parsed JSON (an object or a non-empty array) has this format's shape; None where only a
            fixed topic, headers or `read` find it. Modules are asked in the order of `streams.formats.MODULES`.
        read: quick or binary way in: bytes → outcomes, or None to leave the message to `decode`. Never raises.
        marker: bytes without which `read` need not be tried; empty: always tried.
        by_shape: `read` is also tried where no format is fixed; then it must take nothing that other formats own.
        coverage: rows for the docs, beside what `names.yaml` says.
    """

    name: str
    takes: str
    spec: str
    decode: Callable[[Any, FormatOptions], list[Outcome]]
    recognises: Callable[[Any], bool] | None = None
    read: Callable[[bytes, FormatOptions], list[Outcome] | None] | None = None
    marker: bytes = b""
    by_shape: bool = True
    coverage: tuple[Covered, ...] = ()
