"""Each micro-signal fires at its published threshold, and not just below it."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.hesitation import SIGNALS
from streams.errors import ConfigError
from streams.events import WEB_TYPES, Event
from streams.settings import IgnoreRule, SignalSettings, load_settings
from streams.signals import Spotter, Traces, is_pacey
from streams.units import Plan
from tests.kit import event, settings_of

Told = list[str | None]


def told(*events: Event, stage: str = "decide", **knobs: Any) -> Told:
    traces, spotter = Traces(), Spotter(SignalSettings(**knobs))
    return [spotter.spot(traces, one, stage) for one in events]


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


# ── where signals are none ────────────────────────────────────────────────────────────────────────────────────────


def furious(element: str | None, clicks: int = 6, **more: Any) -> list[Event]:
    return [click(t / 4, element=element, **more) for t in range(clicks)]


@pytest.mark.parametrize(
    "element",
    [
        "qty-plus", "qty_minus", "QuantityStepper", "div.qty > button", "+", "\N{MINUS SIGN}", "btn-plus", "iconMinus",
        "input[type=number].quantity", "hero-carousel-next", "swiper-button-prev", "slick-arrow", "priceSlider",
        "ul.pagination > li", "datepicker__day", "date-picker-next-month", "calendar-grid", "video-controls",
        "vjs-volume-bar", "audioPlayer", "seek-bar", "map-zoom-in", "p", "article > p.lead", "div p", "#text",
        "textarea#comment", "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
    ],
)  # fmt: skip
def test_quick_clicks_where_they_are_normal_are_no_rage(element: str) -> None:
    assert told(*furious(element)) == [None] * 6
    assert "rage_click" in told(*furious(element), ignore_known=False)


@pytest.mark.parametrize(
    "element",
    [
        "buy", "pay", "submit-order", "choose-plus", "plan-plus-monthly", "next", "checkout-next", "product-123",
        "step-2", "surplus", "code", "spec-row", "p-4711", "prelaunch", "gallery", "size", "spinner", "div", "a", "",
        None,
    ],
)  # fmt: skip
def test_quick_clicks_elsewhere_are(element: str | None) -> None:
    assert told(*furious(element))[2:] == ["rage_click"] * 4


def test_dead_and_error_clicks_count_on_a_stepper_too() -> None:
    assert told(*furious("qty-plus", dead=True)) == ["dead_click"] * 6
    assert told(click(0, element="qty-plus"), event("error_shown", 0.5)) == [None, "error_click"]


@pytest.mark.parametrize("pattern", ["star-rating", "star*", "STAR?RATING", "*"])
def test_a_rule_ignores_elements_by_pattern(pattern: str) -> None:
    rule = {"element": pattern, "signals": ["rage_click"]}
    assert told(*furious("star-rating"), ignore=[rule]) == [None] * 6
    assert "rage_click" in told(*furious("star-rating"), ignore=[{"element": "star", "signals": ["rage_click"]}])


def test_a_pasted_selector_is_meant_literally() -> None:
    selector = "div[data-x='a*b'] > li:nth-child(2)"
    rule = {"element": "div[data-x='a*b'] > li:nth-child(?)"}
    assert told(*furious(selector), ignore=[rule]) == [None] * 6
    assert "rage_click" in told(*furious("d"), ignore=[rule])


def test_a_rule_without_signals_ignores_all_of_them() -> None:
    rule = {"element": "game*"}
    assert told(*furious("game-board", dead=True), event("error_shown", 1.3), ignore=[rule]) == [None] * 7


@pytest.mark.parametrize(("signal", "left"), [("rage_click", "dead_click"), ("dead_click", "rage_click")])
def test_a_rule_with_signals_leaves_the_others(signal: str, left: str) -> None:
    told_now = told(*furious("x", dead=True), ignore=[{"element": "x", "signals": [signal]}])
    assert set(told_now[2:]) == {left}


def test_an_error_after_a_click_on_an_ignored_element_is_not_its_fault() -> None:
    rule = {"element": "chat", "signals": ["error_click"]}
    assert told(click(0, element="chat"), event("error_shown", 0.5), ignore=[rule]) == [None, None]
    assert told(click(0, element="x"), event("error_shown", 0.5), ignore=[rule]) == [None, "error_click"]


def test_a_rule_may_be_about_a_page_or_a_stage() -> None:
    calls = [event("searched", float(i), page="/help/faq") for i in range(3)]
    rule = {"page": "/help*", "signals": ["repeated_search"]}
    assert told(*calls, ignore=[rule]) == [None] * 3
    assert told(*calls, ignore=[{**rule, "page": "/help"}])[-1] == "repeated_search"
    assert told(*calls, stage="keep", ignore=[{"stage": "keep"}]) == [None] * 3
    assert told(*calls, stage="decide", ignore=[{"stage": "keep"}])[-1] == "repeated_search"


def test_a_rule_may_be_about_a_field() -> None:
    visits = [
        field("changed", 0, "amount", "loan"),
        field("focused", 1, "term", "loan"),
        field("focused", 2, "amount", "loan"),
    ]
    assert told(*visits, ignore=[{"element": "loan.*"}])[-1] is None
    assert told(*visits, ignore=[{"element": "order.*"}])[-1] == "field_return"


def test_clicks_on_a_stepper_between_others_count_not_among_them() -> None:
    assert told(click(0), click(0.5, element="qty"), click(0.9)) == [None] * 3


@pytest.mark.parametrize("answer", ["field_changed", "page_viewed", "item_added", "searched", "compared"])
def test_clicks_that_are_each_answered_are_use(answer: str) -> None:
    """Fast use of something that works: paging, filters, adding one more to the cart."""
    events = [one for t in range(4) for one in (click(t / 2), event(answer, t / 2 + 0.1, page=f"/p/{t}"))]
    assert "rage_click" not in told(*events, repeated_searches=9, compare_loops=9)
    assert "rage_click" in told(*events[:1], *events[2:], repeated_searches=9, compare_loops=9), "one was not answered"


@pytest.mark.parametrize("silence", ["page_pinged", "field_focused", "form_failed", "error_shown"])
def test_what_is_no_answer_leaves_it_rage(silence: str) -> None:
    events = [one for t in range(3) for one in (click(t / 2), event(silence, t / 2 + 0.1))]
    assert "rage_click" in told(*events)


def test_not_dead_is_no_answer() -> None:
    """Sources send the click before they can know whether it changed anything."""
    assert told(*(click(t / 4, dead=False) for t in range(3)))[-1] == "rage_click"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"element": ""}, "signals.ignore.0.element"),
        ({"page": " /help"}, "signals.ignore.0.page"),
        ({"stage": "x" * 300}, "signals.ignore.0.stage"),
        (
            {"element": "a", "signals": ["rage"]},
            "signals.ignore.0.signals: .*unknown micro-signal 'rage'; known: rage_",
        ),
        ({"elemnt": "a"}, "signals.ignore.0.elemnt: unknown setting"),
        ({}, "signals.ignore.0: .*would ignore everything"),
        ({"element": "**", "page": "*"}, "signals.ignore.0: .*would ignore everything"),
        ({"element": 7}, "signals.ignore.0.element"),
    ],
)
def test_a_bad_rule_is_refused_and_named(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(signals={"ignore": [rule]})


def test_rules_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTWATCH_SIGNALS__IGNORE", '[{"element": "star*", "signals": ["rage_click"]}]')
    assert load_settings().signals.ignore == (IgnoreRule(element="star*", signals=("rage_click",)),)


def test_what_is_known_of_elements_is_told_by_whole_words() -> None:
    assert is_pacey("VideoPlayer") and is_pacey("btn_plus") and not is_pacey("videographer")


# ── clocks ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    traces, spotter = Traces(), Spotter(SignalSettings())
    before = [view(0, "/a"), view(1, "/b"), click(1, device_time=1.0), event("searched", 1), event("searched", 1),
              event("compared", 1), field("changed", 1, "a"), field("focused", 1, "b")]  # fmt: skip
    for one in before:
        spotter.spot(traces, one, "decide")
    traces.begin_step()
    later = [event("error_shown", 1.1), event("searched", 2), event("compared", 2), field("focused", 2, "a")]
    assert [spotter.spot(traces, one, "decide") for one in later] == [None] * 4
    assert [kept.page for kept in traces.views] == ["/a", "/b"]


def test_every_published_signal_has_a_test_here() -> None:
    assert set(SIGNALS) == {
        "rage_click", "dead_click", "error_click", "u_turn", "page_loop", "field_return", "repeated_search",
        "compare_loop",
    }  # fmt: skip


def test_what_is_remembered_is_bounded() -> None:
    traces, spotter = Traces(), Spotter(SignalSettings())
    for i in range(500):
        for one in (view(i, f"/{i}"), click(i), field("changed", i, str(i)), event("searched", i)):
            spotter.spot(traces, one, "decide")
    assert (len(traces.views), len(traces.clicks), len(traces.filled)) == (16, 3, 20)


def test_a_rule_for_a_stage_that_the_journey_lacks_is_refused() -> None:
    settings = settings_of(signals={"ignore": [{"stage": "dec*"}, {"stage": "decid"}]})
    with pytest.raises(ConfigError, match=r"signals\.ignore\[1\]\.stage: 'decid' is no stage; known: discover"):
        Plan(settings)
