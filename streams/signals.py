"""Micro-signals: small, sudden signs that a person is stuck, found the moment they happen.

| signal | definition (defaults; all configurable under `signals.`) |
|---|---|
| rage_click | 3 clicks within 1 s of each other and 30 px (Sentry, FullStory; others use 4, or 100 px) |
| dead_click | a click that its source reports as having changed nothing within 2.5 s (PostHog) |
| error_click | an error shown within 1 s after a click (Microsoft Clarity) |
| u_turn | back on the previous page within 7 s, without interaction (Contentsquare "quick back") |
| page_loop | the same page viewed 3 times in 15 s |
| field_return | focus returns to a field that was filled before, after another field |
| repeated_search | 3 searches in one step |
| compare_loop | 3 comparisons in one step |

Times are gaps, so they come from the device's own clock where both events carry it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Final

import msgspec

from detectors._hesitation_rates import SIGNALS
from streams.events import WEB_TYPES, Event
from streams.settings import SignalSettings

__all__ = ["SIGNALS", "Traces", "gap_s", "spot"]

_KEPT_PAGES: Final = 16
"""A loop of so many views is still seen; a person who sees more pages within the window of a loop is a machine."""
_KEPT_FIELDS: Final = 20
_INTERACTIONS: Final = WEB_TYPES - {"page_viewed", "page_pinged", "page_left", "error_shown"}
"""What a person does on a page; after it, going back is no u-turn."""


class View(msgspec.Struct, array_like=True):
    """One page view: when (corrected, by device), which page, and whether the person did anything there."""

    time: float
    device_time: float | None
    page: str
    touched: bool = False


class Click(msgspec.Struct, array_like=True):
    """One click: when (corrected, by device), and where on the page in pixels (None if unknown)."""

    time: float
    device_time: float | None
    element: str | None
    x: float | None
    y: float | None


class Traces(msgspec.Struct, array_like=True):
    """What must be remembered of a session to see micro-signals; bounded.

    `views` spans steps (a u-turn crosses them); the rest is forgotten when a step begins.
    """

    views: list[View] = []
    clicks: list[Click] = []
    field: str | None = None
    filled: list[str] = []
    searches: int = 0
    comparisons: int = 0

    def begin_step(self) -> None:
        """Forget what belongs to the step that ended."""
        self.clicks, self.field, self.filled, self.searches, self.comparisons = [], None, [], 0, 0


def spot(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    """Remember the event and name the micro-signal that it completes, if any."""
    if event.type in _INTERACTIONS and traces.views:
        traces.views[-1].touched = True
    handler = _HANDLERS.get(event.type)
    return None if handler is None else handler(traces, event, settings)


def gap_s(earlier: Event | View | Click, later: Event | View | Click) -> float:
    """Seconds between two moments, by the device's own clock where both have one."""
    if earlier.device_time is not None and later.device_time is not None:
        return later.device_time - earlier.device_time
    return later.time - earlier.time


def _viewed(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    page, views = event.page_id or event.page or "", traces.views
    back = len(views) >= 2 and views[-2].page == page and views[-1].page != page and not views[-1].touched
    u_turn = back and 0 <= gap_s(views[-1], event) <= settings.u_turn_s
    views.append(View(event.time, event.device_time, page))
    del views[: -max(_KEPT_PAGES, settings.loop_views)]
    same = [view for view in views if view.page == page][-settings.loop_views :]
    if len(same) == settings.loop_views and 0 <= gap_s(same[0], event) <= settings.loop_window_s:
        return "page_loop"
    return "u_turn" if u_turn else None


def _clicked(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    properties = event.properties
    element = properties.get("element")
    name = element if isinstance(element, str) else None
    if name is not None and any(fnmatchcase(name, pattern) for pattern in settings.ignore_elements):
        return None
    clicks = traces.clicks
    x, y = _number(properties.get("x")), _number(properties.get("y"))
    clicks.append(Click(event.time, event.device_time, name, x, y))
    del clicks[: -settings.rage_clicks]
    if len(clicks) == settings.rage_clicks and _is_rage(clicks, settings):
        return "rage_click"
    return "dead_click" if properties.get("dead") is True else None


def _is_rage(clicks: list[Click], settings: SignalSettings) -> bool:
    pairs = pairwise(clicks)
    if any(not 0 <= gap_s(earlier, later) <= settings.rage_window_s for earlier, later in pairs):
        return False
    first = clicks[0]
    return all(_near(first, click, settings.rage_radius_px) for click in clicks[1:])


def _near(a: Click, b: Click, radius_px: float) -> bool:
    if a.x is None or a.y is None or b.x is None or b.y is None:
        # Without coordinates only clicks on one named element can be told to be in one place.
        return a.element is not None and a.element == b.element
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2 <= radius_px**2


def _failed(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    caused = traces.clicks and 0 <= gap_s(traces.clicks[-1], event) <= settings.error_click_s
    return "error_click" if caused else None


def _field(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    field = f"{event.properties.get('form', '')}.{event.properties.get('field', '')}"
    returned = field in traces.filled and traces.field != field
    if event.type == "field_changed" and field not in traces.filled:
        traces.filled = [*traces.filled, field][-_KEPT_FIELDS:]
    traces.field = field
    return "field_return" if returned else None


def _searched(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    traces.searches += 1
    return "repeated_search" if traces.searches == settings.repeated_searches else None


def _compared(traces: Traces, event: Event, settings: SignalSettings) -> str | None:
    traces.comparisons += 1
    return "compare_loop" if traces.comparisons == settings.compare_loops else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


_HANDLERS: Final = {
    "page_viewed": _viewed, "clicked": _clicked, "error_shown": _failed, "field_focused": _field,
    "field_changed": _field, "searched": _searched, "compared": _compared,
}  # fmt: skip
