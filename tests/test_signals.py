"""Each micro-signal fires at its published threshold, and not just below it."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.hesitation import SIGNALS
from streams.events import WEB_TYPES, Event
from streams.settings import SignalSettings
from streams.signals import Traces, spot
from tests.kit import event

Told = list[str | None]


def told(*events: Event, **knobs: Any) -> Told:
    traces, settings = Traces(), SignalSettings(**knobs)
    return [spot(traces, one, settings) for one in events]


def click(at: float, x: float | None = 0.0, y: float | None = 0.0, element: str | None = None, **more: Any) -> Event:
    properties = {"x": x, "y": y, "element": element, "dead": more.pop("dead", None)}
    return event("clicked", at, properties={k: v for k, v in properties.items() if v is not None}, **more)


def view(at: float, page: str, **more: Any) -> Event:
    return event("page_viewed", at, page=page, **more)


def field(kind: str, at: float, name: str, form: str = "f") -> Event:
    return event(f"field_{kind}", at, properties={"form": form, "field": name})


# ── rage click: 3 clicks within 1 s of each other and 30 px ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("clicks", "rage"),
    [
        pytest.param([click(0), click(1), click(2)], True, id="exactly-1-s-apart"),
        pytest.param([click(0), click(1), click(2.001)], False, id="the-last-too-late"),
        pytest.param([click(0), click(1.001), click(2)], False, id="the-second-too-late"),
        pytest.param([click(0), click(0.5)], False, id="only-two"),
        pytest.param([click(0), click(0.5, 30), click(1, 0, 30)], True, id="exactly-30-px"),
        pytest.param([click(0), click(0.5, 30.01), click(1)], False, id="just-over-30-px"),
        pytest.param([click(0), click(0.5), click(1, 22, 22)], False, id="just-over-30-px-diagonally"),
        pytest.param([click(0, 0), click(0.5, 25), click(1, 50)], False, id="radius-is-around-the-first"),
        pytest.param([click(t, None, None, "buy") for t in (0, 0.5, 1)], True, id="one-element-without-place"),
        pytest.param([click(0, None, None, "a"), click(0.5, None, None, "b"), click(1, None, None, "a")], False,
                     id="several-elements-without-place"),
        pytest.param([click(t, None, None) for t in (0, 0.5, 1)], False, id="neither-element-nor-place"),
        pytest.param([click(0), click(0.5, None), click(1)], False, id="one-without-place"),
    ],
)  # fmt: skip
def test_rage_click(clicks: list[Event], rage: bool) -> None:
    assert told(*clicks) == [None] * (len(clicks) - 1) + ["rage_click" if rage else None]


def test_every_further_click_in_anger_is_anger() -> None:
    assert told(*(click(t / 2) for t in range(5)))[2:] == ["rage_click"] * 3


def test_how_many_clicks_are_rage_is_a_knob() -> None:
    clicks = [click(t / 2) for t in range(4)]
    assert told(*clicks, rage_clicks=4) == [None, None, None, "rage_click"]
    assert told(click(0), click(1.5), click(3), rage_window_s=1.5)[-1] == "rage_click"
    assert told(click(0), click(0.1, 100), click(0.2), rage_radius_px=100)[-1] == "rage_click"


@pytest.mark.parametrize("pattern", ["qty-plus", "qty-*", "*"])
def test_clicks_on_ignored_elements_are_no_signals(pattern: str) -> None:
    clicks = [click(t / 4, element="qty-plus", dead=True) for t in range(6)]
    assert told(*clicks, ignore_elements=(pattern,)) == [None] * 6
    assert "rage_click" in told(*clicks, ignore_elements=("qty-minus", "QTY-*"))


def test_an_ignored_click_neither_causes_an_error_nor_counts_between_others() -> None:
    stepper = click(0.5, element="qty")
    assert told(click(0), stepper, click(0.9), ignore_elements=("qty",)) == [None] * 3
    assert told(stepper, event("error_shown", 0.6), ignore_elements=("qty",)) == [None, None]


@pytest.mark.parametrize(
    ("device_times", "rage"),
    [
        pytest.param((100, 100.5, 101), True, id="quick-on-the-device"),
        pytest.param((100, 102, 104), False, id="slow-on-the-device"),
        pytest.param((100, 99.5, 99), False, id="a-clock-set-back"),
    ],
)
@pytest.mark.parametrize("corrected", [(0, 0.5, 1), (0, 10, 20)])
def test_gaps_come_from_the_clock_of_the_device(
    corrected: tuple[float, ...], device_times: tuple[float, ...], rage: bool
) -> None:
    clicks = [click(at, device_time=device) for at, device in zip(corrected, device_times, strict=True)]
    assert told(*clicks)[-1] == ("rage_click" if rage else None)


def test_where_one_event_lacks_the_clock_of_the_device_corrected_times_serve() -> None:
    assert told(click(0, device_time=5.0), click(1), click(2, device_time=900.0))[-1] == "rage_click"


# ── dead and error clicks ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("dead", "signal"), [(True, "dead_click"), (False, None), (None, None), ("true", None)])
def test_dead_click(dead: Any, signal: str | None) -> None:
    assert told(click(0, dead=dead)) == [signal]


@pytest.mark.parametrize(("gap", "signal"), [(0, "error_click"), (1, "error_click"), (1.001, None)])
def test_error_click(gap: float, signal: str | None) -> None:
    assert told(click(0), event("error_shown", gap)) == [None, signal]


def test_an_error_without_a_click_before_is_no_error_click() -> None:
    assert told(event("error_shown", 0)) == [None]
    assert told(click(0, device_time=50.0), event("error_shown", 0.5, device_time=49.0)) == [None, None]


# ── u-turn: back within 7 s without interaction ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("seconds", "signal"), [(0, "u_turn"), (7, "u_turn"), (7.001, None)])
def test_u_turn(seconds: float, signal: str | None) -> None:
    assert told(view(0, "/a"), view(100, "/b"), view(100 + seconds, "/a")) == [None, None, signal]


@pytest.mark.parametrize("pages", ["aba", "abca", "aa", "aab", "abb"])
def test_only_going_back_to_the_page_before_is_a_u_turn(pages: str) -> None:
    views = [view(i * 6.0, page) for i, page in enumerate(pages)]
    assert ("u_turn" in told(*views, loop_views=9)) == (pages == "aba")


INTERACTIONS = sorted(WEB_TYPES - {"page_viewed", "page_pinged", "page_left", "error_shown"})


@pytest.mark.parametrize("kind", INTERACTIONS)
def test_whoever_did_something_on_the_page_makes_no_u_turn(kind: str) -> None:
    assert told(view(0, "/a"), view(1, "/b"), event(kind, 2), view(3, "/a"))[-1] is None


@pytest.mark.parametrize("kind", ["page_pinged", "page_left", "error_shown", "email_opened"])
def test_what_the_page_does_by_itself_is_no_interaction(kind: str) -> None:
    assert told(view(0, "/a"), view(1, "/b"), event(kind, 2), view(3, "/a"))[-1] == "u_turn"


def test_pages_of_one_template_are_told_apart_by_their_digest() -> None:
    first, other = {"page": "/products/:id", "page_id": "one"}, {"page": "/products/:id", "page_id": "two"}
    views = [event("page_viewed", at, **fields) for at, fields in ((0, first), (1, other), (2, first))]
    assert told(*views) == [None, None, "u_turn"]


# ── page loop: the same page 3 times in 15 s ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("last", "signal"), [(15, "page_loop"), (15.001, None)])
def test_page_loop(last: float, signal: str | None) -> None:
    assert told(view(0, "/a"), view(7.5, "/a"), view(last, "/a")) == [None, None, signal]


@pytest.mark.parametrize("pages", ["ababa", "abcabca", "abbba", "abcdefaghijka"])
def test_a_loop_may_lead_over_other_pages(pages: str) -> None:
    signals = told(*(view(float(i), page) for i, page in enumerate(pages)))
    assert "page_loop" in signals


def test_a_clock_set_back_makes_no_loop() -> None:
    assert told(*(view(i * 60.0, "/a", device_time=1000.0 - i * 60) for i in range(3))) == [None] * 3


# ── fields, searches, comparisons ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("visits", "signal"),
    [
        pytest.param([("changed", "a"), ("focused", "b"), ("focused", "a")], "field_return", id="back-to-a-filled-one"),
        pytest.param([("changed", "a"), ("focused", "b"), ("changed", "a")], "field_return", id="changed-once-more"),
        pytest.param([("focused", "a"), ("focused", "b"), ("focused", "a")], None, id="it-was-empty"),
        pytest.param([("changed", "a"), ("focused", "a")], None, id="never-left"),
        pytest.param([("changed", "a"), ("changed", "b")], None, id="onwards"),
    ],
)
def test_field_return(visits: list[tuple[str, str]], signal: str | None) -> None:
    assert told(*(field(kind, float(i), name) for i, (kind, name) in enumerate(visits)))[-1] == signal


def test_fields_of_the_same_name_in_two_forms_are_two() -> None:
    assert (
        told(field("changed", 0, "mail", "one"), field("focused", 1, "b"), field("focused", 2, "mail", "two"))[-1]
        is None
    )


@pytest.mark.parametrize(("kind", "signal"), [("searched", "repeated_search"), ("compared", "compare_loop")])
def test_the_third_time_in_one_step_is_the_signal(kind: str, signal: str) -> None:
    assert told(*(event(kind, float(i)) for i in range(5))) == [None, None, signal, None, None]


def test_a_new_step_forgets_all_but_the_pages() -> None:
    traces, settings = Traces(), SignalSettings()
    before = [view(0, "/a"), view(1, "/b"), click(1, device_time=1.0), event("searched", 1), event("searched", 1),
              event("compared", 1), field("changed", 1, "a"), field("focused", 1, "b")]  # fmt: skip
    for one in before:
        spot(traces, one, settings)
    traces.begin_step()
    later = [event("error_shown", 1.1), event("searched", 2), event("compared", 2), field("focused", 2, "a")]
    assert [spot(traces, one, settings) for one in later] == [None] * 4
    assert [kept.page for kept in traces.views] == ["/a", "/b"]


def test_every_published_signal_has_a_test_here() -> None:
    assert set(SIGNALS) == {
        "rage_click", "dead_click", "error_click", "u_turn", "page_loop", "field_return", "repeated_search",
        "compare_loop",
    }  # fmt: skip


def test_what_is_remembered_is_bounded() -> None:
    traces, settings = Traces(), SignalSettings()
    for i in range(500):
        for one in (view(i, f"/{i}"), click(i), field("changed", i, str(i)), event("searched", i)):
            spot(traces, one, settings)
    assert (len(traces.views), len(traces.clicks), len(traces.filled)) == (16, 3, 20)
