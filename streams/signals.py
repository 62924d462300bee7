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

Rage clicks are the noisy ones. They must meet in one place: within the radius where clicks carry coordinates, on one
named element where they do not. Clicks each of which was answered before the next (a page, a field, a list or the cart
changed) are use, not rage; `dead: false` is no such answer, for it is often sent before anyone can know. Where quick
clicking is normal (`is_pacey`: steppers, carousels, date pickers, players, text that is being selected) they do not
count. And `signals.ignore` takes any signal out of any place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from sys import intern
from typing import Final

import msgspec

from detectors._micro_signals import SIGNALS
from streams.events import WEB_TYPES, Event
from streams.settings import IgnoreRule, SignalSettings

__all__ = ["SIGNALS", "Spotter", "Traces", "gap_s", "is_pacey"]

_KEPT_PAGES: Final = 16
"""A loop of so many views is still seen; a person who sees more pages within the window of a loop is a machine."""
_KEPT_FIELDS: Final = 20
_KEPT_PLACES: Final = 10_000
_INTERACTIONS: Final = WEB_TYPES - {"page_viewed", "page_pinged", "page_left", "error_shown"}
"""What a person does on a page; after it, going back is no u-turn."""
_ANSWERS: Final = _INTERACTIONS - {"clicked", "field_focused", "form_failed"} | {"page_viewed"}
"""What shows that the click before it did something."""

_PACEY_WORDS: Final = frozenset({
    "stepper", "spinbutton", "quantity", "qty", "increment", "decrement", "increase", "decrease",
    "slider", "carousel", "swiper", "slick", "slideshow", "splide", "glide", "pagination", "paginator",
    "picker", "datepicker", "timepicker", "calendar", "flatpickr",
    "video", "audio", "player", "vjs", "plyr", "volume", "playback", "seek", "seekbar", "rewind",
    "zoom", "leaflet", "mapbox",
})  # fmt: skip
"""Words in the names of things that are clicked quickly by intent."""
_PACEY_ALONE: Final = frozenset({"plus", "minus", "up", "down"})
"""Such words if nothing but fillers stands beside: `btn-plus` is a stepper, `choose-plus` may be a price plan."""
_FILLERS: Final = frozenset({"btn", "button", "icon", "icons", "i", "fa", "fas", "svg", "a", "span", "div", "control"})
_PACEY_SIGNS: Final = frozenset("+-−±‹›«»<>▲▼◀▶←→↑↓")  # noqa: RUF001  # what buttons really show
_TEXT_TAGS: Final = frozenset({"p", "pre", "blockquote", "textarea", "#text"})
"""Two clicks mark a word of a text and three a paragraph."""
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LAST_TAG: Final = re.compile(r"(?:^|[\s>+~])(#?[a-z]+)[^\s>+~]*$")


class View(msgspec.Struct, array_like=True, gc=False):
    """One page view: when (corrected, by device), which page, and whether the person did anything there."""

    time: float
    device_time: float | None
    page: str
    touched: bool = False


class Click(msgspec.Struct, array_like=True, gc=False):
    """One click: when (corrected, by device), where on the page in pixels (None if unknown).

    `answered` says that it did something, `error` that an error after it counts as caused by it.
    """

    time: float
    device_time: float | None
    element: str | None
    x: float | None
    y: float | None
    answered: bool = False
    error: bool = True


class Traces(msgspec.Struct, array_like=True, gc=False):
    """What must be remembered of a session to see micro-signals; bounded.

    `views` spans steps (a u-turn crosses them); the rest is forgotten when a step begins. Tuples, because most of them
    stay empty, and the empty tuple takes no memory.
    """

    views: tuple[View, ...] = ()
    clicks: tuple[Click, ...] = ()
    last_click: Click | None = None
    field: str | None = None
    filled: tuple[str, ...] = ()
    searches: int = 0
    comparisons: int = 0

    def begin_step(self) -> None:
        """Forget what belongs to the step that ended."""
        self.clicks, self.last_click, self.field, self.filled = (), None, None, ()
        self.searches = self.comparisons = 0

    def has_seen(self, page: str) -> bool:
        """Whether the page is among the last that were viewed."""
        return any([view.page == page for view in self.views])


class Spotter:
    """Finds micro-signals in the events of a step.

    Args:
        settings: definitions, and where they do not hold.

    Example:
        >>> spotter = Spotter(SignalSettings(ignore=({"page": "/help*", "signals": ("dead_click",)},)))
        >>> click = Event("1", "clicked", 0.0, "anna", page="/cart", properties={"dead": True})
        >>> spotter.spot(Traces(), click, "decide")
        'dead_click'
        >>> click.page = "/help/returns"
        >>> spotter.spot(Traces(), click, "keep") is None
        True
    """

    def __init__(self, settings: SignalSettings) -> None:
        self._settings = settings
        self._kept_pages = max(_KEPT_PAGES, settings.loop_views)
        self._rules = [_matcher(rule) for rule in settings.ignore]
        self._ignored = lru_cache(maxsize=_KEPT_PLACES)(self._look_up)
        self._handlers: dict[str, Callable[[Traces, Event], str | None]] = {
            "page_viewed": self._viewed, "error_shown": self._failed, "field_focused": self._field,
            "field_changed": self._field, "searched": self._searched, "compared": self._compared,
        }  # fmt: skip

    def spot(self, traces: Traces, event: Event, stage: str) -> str | None:
        """Remember the event and name the micro-signal that it completes, if any.

        Args:
            traces: of the session; changed.
            event: the next one of the session.
            stage: journey stage it happened in.
        """
        kind = event.type
        if kind in _INTERACTIONS and traces.views:
            traces.views[-1].touched = True
        if kind == "clicked":
            return self._clicked(traces, event, stage)
        if traces.last_click is not None and kind in _ANSWERS:
            traces.last_click.answered = True
            if traces.clicks:
                traces.clicks[-1].answered = True
        handler = self._handlers.get(kind)
        signal = None if handler is None else handler(traces, event)
        if signal is None or (self._rules and signal in self._ignored(_target(event), event.page or "", stage)):
            return None
        return signal

    def _look_up(self, element: str, page: str, stage: str) -> frozenset[str]:
        """The micro-signals that are none here."""
        found: set[str] = {"rage_click"} if self._settings.ignore_known and is_pacey(element) else set()
        for matches, signals in self._rules:
            if matches(element, page, stage):
                found.update(signals)
        return frozenset(found)

    def _clicked(self, traces: Traces, event: Event, stage: str) -> str | None:
        settings, properties = self._settings, event.properties
        ignored = self._ignored(_target(event), event.page or "", stage)
        element = properties.get("element")
        click = Click(
            event.time, event.device_time, element if isinstance(element, str) else None,
            _number(properties.get("x")), _number(properties.get("y")), error="error_click" not in ignored,
        )  # fmt: skip
        traces.last_click = click
        if "rage_click" not in ignored:
            clicks = traces.clicks = (*traces.clicks, click)[-settings.rage_clicks :]
            if len(clicks) == settings.rage_clicks and _is_rage(clicks, settings):
                return "rage_click"
        return "dead_click" if properties.get("dead") is True and "dead_click" not in ignored else None

    def _viewed(self, traces: Traces, event: Event) -> str | None:
        settings, page, views = self._settings, intern(page_of(event)), traces.views
        back = len(views) >= 2 and views[-2].page == page and views[-1].page != page and not views[-1].touched
        u_turn = back and 0 <= gap_s(views[-1], event) <= settings.u_turn_s
        views = traces.views = (*views, View(event.time, event.device_time, page))[-self._kept_pages :]
        same = [view for view in views if view.page == page][-settings.loop_views :]
        if len(same) == settings.loop_views and 0 <= gap_s(same[0], event) <= settings.loop_window_s:
            return "page_loop"
        return "u_turn" if u_turn else None

    def _failed(self, traces: Traces, event: Event) -> str | None:
        click = traces.last_click
        caused = click is not None and click.error and 0 <= gap_s(click, event) <= self._settings.error_click_s
        return "error_click" if caused else None

    def _field(self, traces: Traces, event: Event) -> str | None:
        field = _target(event)
        returned = field in traces.filled and traces.field != field
        if event.type == "field_changed" and field not in traces.filled:
            traces.filled = (*traces.filled, field)[-_KEPT_FIELDS:]
        traces.field = field
        return "field_return" if returned else None

    def _searched(self, traces: Traces, event: Event) -> str | None:
        traces.searches += 1
        return "repeated_search" if traces.searches == self._settings.repeated_searches else None

    def _compared(self, traces: Traces, event: Event) -> str | None:
        traces.comparisons += 1
        return "compare_loop" if traces.comparisons == self._settings.compare_loops else None


def page_of(event: Event) -> str:
    """What tells pages apart: the digest of the full path where there is one, else the templated path."""
    return event.page_id or event.page or ""


def gap_s(earlier: Event | View | Click, later: Event | View | Click) -> float:
    """Seconds between two moments, by the device's own clock where both have one."""
    if earlier.device_time is not None and later.device_time is not None:
        return later.device_time - earlier.device_time
    return later.time - earlier.time


def is_pacey(element: str) -> bool:
    """Whether quick clicks on this element are normal, by what its source calls it (id, class, selector, text).

    >>> [name for name in ("qty-plus", "+", "btn-minus", "heroCarouselNext", "article > p.lead") if not is_pacey(name)]
    []
    >>> [name for name in ("buy", "choose-plus", "form-next", "p-12345", "surplus") if is_pacey(name)]
    []
    """
    words = {word.lower() for word in _WORD.findall(element)}
    if words & _PACEY_WORDS or element.strip() in _PACEY_SIGNS:
        return True
    tag = _LAST_TAG.search(element)
    if tag is not None and tag[1] in _TEXT_TAGS and not element[tag.end(1) :].startswith(("-", "_")):
        return True
    return bool(words) and words <= _PACEY_ALONE | _FILLERS and not words <= _FILLERS


def _is_rage(clicks: tuple[Click, ...], settings: SignalSettings) -> bool:
    if any(not 0 <= gap_s(earlier, later) <= settings.rage_window_s for earlier, later in pairwise(clicks)):
        return False
    first = clicks[0]
    if not all(_near(first, click, settings.rage_radius_px) for click in clicks[1:]):
        return False
    return not all(click.answered for click in clicks[:-1])  # of the last nobody knows yet


def _near(a: Click, b: Click, radius_px: float) -> bool:
    if a.x is None or a.y is None or b.x is None or b.y is None:
        # Without coordinates only clicks on one named element can be told to be in one place.
        return a.element is not None and a.element == b.element
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2 <= radius_px**2


def _matcher(rule: IgnoreRule) -> tuple[Callable[[str, str, str], bool], tuple[str, ...]]:
    element, page, stage = (wildcard(pattern) for pattern in (rule.element, rule.page, rule.stage))

    def matches(*place: str) -> bool:
        return all(pattern.fullmatch(part) for pattern, part in zip((element, page, stage), place, strict=True))

    return matches, rule.signals or SIGNALS


def wildcard(pattern: str) -> re.Pattern[str]:
    """A pattern of an ignore rule: `*` is any text, `?` any character, upper and lower case are the same."""
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def _target(event: Event) -> str:
    """What an ignore rule calls the element of an event: that of a click, or form and field."""
    properties = event.properties
    if event.type.startswith("field_"):
        return f"{properties.get('form', '')}.{properties.get('field', '')}"
    return str(properties.get("element", ""))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
