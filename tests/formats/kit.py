"""What tests of formats share."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from streams.events import Event, Outcome, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings
from tests.formats.payloads import T0_S

NOW_S: Final = T0_S + 30 * 86400.0
OPTIONS: Final = FormatOptions.from_settings(Settings(), NOW_S)


def outcomes(message: Any, fmt: str | None = None, options: FormatOptions = OPTIONS, **headers: bytes) -> list[Outcome]:
    """What a message becomes; anything but bytes goes out as JSON."""
    raw = message if isinstance(message, bytes) else msgspec.json.encode(message)
    return decode(raw, fmt, options, headers=headers or None)


def event(message: Any, fmt: str | None = None, options: FormatOptions = OPTIONS) -> Event:
    """The one event that a message holds."""
    (found,) = outcomes(message, fmt, options)
    assert isinstance(found, Event), found
    return found


def reason(message: Any, fmt: str | None = None, options: FormatOptions = OPTIONS) -> str:
    """Why a message of one item is refused."""
    (found,) = outcomes(message, fmt, options)
    assert isinstance(found, Rejection), found
    return found.reason
