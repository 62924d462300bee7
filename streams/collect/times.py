"""Times of devices, corrected by how long after our clock theirs were read: the rule that Segment and PostHog share."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

MAX_TEXT_CHARS = 64
_FIRST_S = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_LAST_S = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


def iso(time_s: float) -> str:
    """Epoch seconds as ISO 8601 in UTC, milliseconds.

    >>> iso(1_700_000_000.25)
    '2023-11-14T22:13:20.250+00:00'
    """
    second, microsecond = divmod(round(time_s * 1e6), 1_000_000)
    return f"{_second(second)}.{microsecond // 1000:03}+00:00"


@lru_cache(maxsize=4096)
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat()[:19]


def epoch_s(value: object) -> float | None:
    """Epoch seconds of ISO 8601, without a zone as UTC; None if it is none: ingest says what is wrong with it.

    >>> epoch_s("2023-11-14T22:13:20Z"), epoch_s("abc"), epoch_s(None)
    (1700000000.0, None, None)
    """
    if type(value) is not str or len(value) > MAX_TEXT_CHARS:
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def milliseconds(value: object) -> float | None:
    """Epoch seconds of epoch milliseconds, as text or number; None if it is none.

    >>> milliseconds("1700000000250"), milliseconds("soon")
    (1700000000.25, None)
    """
    if type(value) not in (str, int, float) or len(str(value)) > 20:
        return None
    try:
        time_s = float(value) / 1000.0  # type: ignore[arg-type]
    except ValueError:
        return None
    return time_s if 0.0 < time_s < 4e9 else None


def corrected(device_s: float, sent_s: float, received_s: float) -> float:
    """When it happened by our clock: how long before sending, before receiving."""
    return received_s - (sent_s - device_s)


def in_calendar(time_s: float) -> bool:
    """Whether `iso` can say it; two far-off times of a device can be further apart than the calendar is long.

    >>> in_calendar(1_700_000_000.0), in_calendar(5e11)
    (True, False)
    """
    return _FIRST_S <= time_s <= _LAST_S
