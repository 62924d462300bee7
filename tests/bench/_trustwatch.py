"""The one place where the detection bench knows trustwatch's own test."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
import numpy as np

from detectors._baseline import Side
from detectors._ratetest import ChangeParams, RateTest
from tests.bench._scores import Alarm
from tests.bench._streams import Stream

NAME: Final = "trustwatch"
SHIPPED: Final = ChangeParams(settle_s=0.0)
"""As shipped, but for the start of a stream: here no outcome becomes known later than another."""
PLAIN: Final = ChangeParams(settle_s=0.0, prior_alarms=1e9)
"""Without the rule that a stream with too many false alarms must show more: over long quiet streams it would show fewer
false alarms than there are at the age at which delays are measured, and River's detectors have no such rule."""
Test: TypeAlias = RateTest


def make(side: Side = "down", false_alarms_per_week: float | None = None) -> Test:
    """Return a fresh rate test.

    Args:
        side: the change to find.
        false_alarms_per_week: its share of an installation's budget; None: as it is where nobody gave one.
    """
    test = RateTest(PLAIN if false_alarms_per_week is None else SHIPPED, (side,))
    if false_alarms_per_week is not None:
        test.allow(false_alarms_per_week)
    return test


def onset_of(test: Test) -> float:
    """Event time at which the change began, as the test sees it, seconds."""
    return test.change().onset


def state_bytes(test: Test) -> int:
    """Size of all it has learnt, as it is stored."""
    return len(msgspec.msgpack.encode(test.state))


def alarms_of(stream: Stream, stop_after: int | None = None, test: Test | None = None) -> list[Alarm]:
    """Run it over a stream, event by event.

    Args:
        stream: what it sees.
        stop_after: end with the first alarm raised at this event or later; None: see all.
        test: what to run; None: a fresh one, in the one setting that all streams of the report have.
    """
    test = test or make()
    update = test.update_binomial
    found: list[Alarm] = []
    since, onset = -1, 0.0
    for at, (ts, x) in enumerate(zip(stream.ts.tolist(), stream.xs.tolist(), strict=True)):
        alarmed = update(ts, x, 1, ()) == "alarmed"
        if alarmed and since < 0:
            since, onset = at, float(np.searchsorted(stream.ts, onset_of(test)))
            if stop_after is not None and at >= stop_after:
                break
        elif since >= 0 and not alarmed:
            found.append(Alarm(since, at, onset))
            since = -1
    if since >= 0:
        found.append(Alarm(since, len(stream.xs), onset))
    return found
