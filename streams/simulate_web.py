"""Simulated web journeys: visitors walk the default stages, read, hesitate, go back, leave or buy.

Every visit of a stage (a step) has a mood. *Smooth* steps are short. *Reading* is long, scrolls deep, shows no signal
and advances more often; *stuck* is long too, shows micro-signals and advances less. A monitor that only looks at dwell
cannot tell the last two apart. Each session draws from its own seed, so an erosion leaves all other sessions as they
are, to the byte.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from detectors._stages import JOURNEY
from streams.events import Event, Value
from streams.simulate_kinds import DAY_S, LOW, Burst, Erosion, Mix, weighted


class StageModel(msgspec.Struct, frozen=True):
    """How people behave in one stage.

    Attributes:
        advance: probability that an average step advances.
        back: share of the other steps that go back a stage; the rest ends the session.
        dwell_s: median seconds on a page.
        more: probability of one more page, again and again up to four.
        pages: path patterns; `%d` takes a number of the catalogue.
        aside: page of the same stage that a u-turn looks at for a moment. Not of the catalogue: `/products/1` and
            `/products/2` are one page once their numbers are templated away at the door.
        elements: what can be clicked.
        signals: micro-signals that stuck people show here; keys of `SIGNALS`.
    """

    advance: float
    back: float
    dwell_s: float
    more: float
    pages: tuple[str, ...]
    aside: str
    elements: tuple[str, ...]
    signals: tuple[str, ...]


MODELS: Final = {
    "discover": StageModel(0.54, 0.0, 16, 0.30, ("/", "/blog/%d"), "/about", ("menu", "teaser"),
                           ("rage", "u_turn", "loop", "error")),
    "evaluate": StageModel(0.47, 0.25, 28, 0.35, ("/products/%d",), "/products", ("gallery", "size", "reviews"),
                           ("rage", "u_turn", "loop", "searches", "dead")),
    "compare": StageModel(0.52, 0.50, 35, 0.10, ("/compare",), "/pricing", ("sort", "spec-row"),
                          ("compares", "compares", "rage", "u_turn", "loop")),
    "decide": StageModel(0.50, 0.40, 30, 0.0, ("/cart",), "/contact", ("coupon", "delivery"),
                         ("field_return", "field_return", "error", "rage", "loop")),
    "buy": StageModel(0.72, 0.35, 40, 0.0, ("/checkout",), "/checkout/terms", ("pay", "terms"),
                      ("error", "rage", "loop", "dead")),
    "keep": StageModel(0.0, 0.0, 20, 0.30, ("/account", "/account/orders"), "/help", ("invoice", "track"),
                       ("rage", "loop", "u_turn")),
}  # fmt: skip
STAGES: Final = tuple(MODELS)
_DECIDE: Final = STAGES.index("decide")
_KEEP: Final = STAGES.index("keep")

WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "channel": {"organic": 0.38, "paid": 0.32, "email": 0.18, "referral": 0.12},
    "device": {"mobile": 0.52, "desktop": 0.40, "tablet": 0.08},
    "country": {"DE": 0.55, "AT": 0.17, "CH": 0.15, "NL": 0.13},
}
"""Web labels, their values and the share of each value."""
ADVANCE_FACTORS: Final = {
    "paid": 0.95, "email": 1.08, "referral": 1.03, "mobile": 0.96, "desktop": 1.04, "AT": 1.02, "CH": 0.98, "NL": 0.96,
}  # fmt: skip
"""What a label value does to the advance probability; 1 where not named."""

Mood: TypeAlias = Literal["smooth", "reading", "stuck"]
MOOD_ADVANCE: Final[dict[Mood, float]] = {"smooth": 1.03, "reading": 1.3, "stuck": 0.5}
MOOD_DWELL: Final[dict[Mood, float]] = {"smooth": 1.0, "reading": 3.0, "stuck": 2.5}
MOOD_SCROLL: Final[dict[Mood, tuple[float, float]]] = {
    "smooth": (0.2, 0.8), "reading": (0.8, 1.0), "stuck": (0.1, 0.9),
}  # fmt: skip
STUCK_SHARE: Final = 0.12
READING_SHARE: Final = 0.15
STRAY_SIGNAL: Final = 0.04
"""Probability that a smooth step shows one micro-signal all the same: the noise a detector has to live with."""

RETURNING_SHARE: Final = 0.3
AWAY_S: Final = 6 * 3600.0
"""A visitor comes back after this at the earliest: longer than any session, so that sessions never touch."""
SKIP_COMPARE: Final = 0.35
PING_S: Final = 30.0
MAX_DWELL_S: Final = 420.0
MAX_STEPS: Final = 10
WHOLE: Final = ("small_losses", "funnel_divergence")
"""Kinds that concern all stages at once."""
LOWERS: Final = ("early_dropoff", "price_change", "small_losses")
"""Kinds whose size is a factor on the advance probability."""
EARLY: Final = STAGES[:3]
STRAIGHT_SHARE: Final = 0.32
"""Share of new visits that come straight to `decide` when early stages have lost nearly everybody."""
FIELDS: Final = ("email", "street", "phone")


class _Visitor:
    """What is remembered of a person between sessions."""

    __slots__ = ("customer", "id", "reached", "seen", "skew_s", "traits")

    def __init__(self, id_: str, rng: random.Random) -> None:
        self.id = id_
        self.traits = {label: weighted(rng, WEIGHTS[label]) for label in ("device", "country")}
        self.skew_s = rng.gauss(0.0, 90.0) if rng.random() < 0.25 else None
        self.reached = 0
        self.customer = False
        self.seen = 0.0


class Crowd(msgspec.Struct, frozen=True):
    """People who come beside all others, and are otherwise.

    Attributes:
        name: tells their ids from those of others.
        labels: labels that all of them carry.
        factor: on their advance probability.
        bots: whether they are machines: some pages a second apart, and gone.
    """

    name: str
    labels: dict[str, str]
    factor: float
    bots: bool = False


def sessions(
    arrivals: Iterator[float], seed: int, erosions: Sequence[Erosion], start: float, pool: int,
    crowd: Crowd | None = None,
) -> Iterator[Burst]:  # fmt: skip
    """Turn arrival times into sessions.

    Args:
        arrivals: begin of each session, epoch seconds, ascending.
        seed: same seed, same sessions.
        erosions: those of lead kinds are ignored here.
        start: epoch seconds from which `onset_day` counts.
        pool: visitors remembered, who may come back.
        crowd: who they are, if they come beside all others.
    """
    name = crowd.name if crowd else ""
    who, rng = random.Random(f"{seed}-visitors{name}"), random.Random()
    web = [erosion for erosion in erosions if erosion.stage in MODELS or erosion.kind in WHOLE]
    mix = Mix(erosions, JOURNEY, start)
    known: list[_Visitor] = []
    for number, begin in enumerate(arrivals):
        rng.seed(f"{seed}-{name}-{number}" if crowd else ((seed * 2) << 32) + number)
        back, place = who.random() < RETURNING_SHARE, int(who.random() * pool)
        visitor = known[place] if back and place < len(known) else None
        if visitor is None or begin - visitor.seen < AWAY_S:
            visitor = _Visitor(f"v{name}{number:x}", rng)
            known[place : place + 1] = [visitor]
        visitor.seen = begin
        yield begin, _Session(f"{seed:x}-{name}{number:x}-", visitor, rng, begin, (web, start), mix, crowd).run()


class _Session:
    """One session while it is made; `now` is its clock."""

    def __init__(self, prefix: str, visitor: _Visitor, rng: random.Random, begin: float,
                 eroded: tuple[list[Erosion], float], mix: Mix, crowd: Crowd | None) -> None:  # fmt: skip
        self.prefix, self.visitor, self.rng, self.now = prefix, visitor, rng, begin
        # All events of the session share this dict: copying it would cost a third of the run time.
        self.segment = {"channel": weighted(rng, mix.of("channel", WEIGHTS["channel"], begin)), **visitor.traits}
        self.crowd = crowd
        if crowd:
            self.segment |= crowd.labels
        self.erosions = [
            (erosion, eroded[1] + erosion.onset_day * DAY_S) for erosion in eroded[0] if erosion.concerns(self.segment)
        ]
        self.factor = math.prod(ADVANCE_FACTORS.get(value, 1.0) for value in self.segment.values())
        self.factor *= (LOW if mix.low(self.segment) else 1.0) * (crowd.factor if crowd else 1.0)
        self.page = "/"
        self.events: list[Event] = []

    def run(self) -> list[Event]:
        """Walk from stage to stage until the visitor leaves."""
        if self.crowd and self.crowd.bots:
            return self._crawl()
        place = self._entry()
        for _ in range(MAX_STEPS):
            advanced = self._step(STAGES[place])
            self.visitor.reached = max(self.visitor.reached, min(place, _DECIDE))
            if advanced:
                place += 2 if STAGES[place] == "evaluate" and self.rng.random() < SKIP_COMPARE else 1
                self.visitor.customer |= place == _KEEP
            elif self.rng.random() < MODELS[STAGES[place]].back:
                place -= 1
            else:
                break
            self.wait(0.3, 2.0)
        return self.events

    def _crawl(self) -> list[Event]:
        """A machine: some pages of one stage in no time."""
        self.model = MODELS[STAGES[int(self.rng.random() > 0.72)]]
        for _ in range(self.rng.randrange(1, 4)):
            self.view(self.somewhere())
            self.wait(0.2, 0.9)
            self.emit("page_left", dwell_s=round(self.rng.uniform(0.2, 0.9), 1), scroll_ratio=0.0)
        return self.events

    def emit(self, type_: str, **properties: Value) -> None:
        """Add one event at `now`."""
        time, skew_s = round(self.now, 3), self.visitor.skew_s
        device_time = None if skew_s is None else round(time + skew_s, 3)
        id_ = f"{self.prefix}{len(self.events):x}"
        self.events.append(
            Event(id_, type_, time, self.visitor.id, device_time, None, None, self.page, None, self.segment, properties)
        )

    def wait(self, least_s: float, most_s: float) -> None:
        """Let some seconds pass."""
        self.now += least_s + (most_s - least_s) * self.rng.random()

    def click(self, element: str, x: float, y: float) -> None:
        """Click at whole pixels."""
        self.emit("clicked", element=element, x=float(int(x)), y=float(int(y)))

    def click_somewhere(self) -> None:
        """Click one of the elements of the stage."""
        self.click(self.rng.choice(self.model.elements), 1200 * self.rng.random(), 800 * self.rng.random())

    def view(self, page: str) -> None:
        """Open a page."""
        self.page = page
        self.emit("page_viewed")

    def _entry(self) -> int:
        chance, visitor = self.rng.random(), self.visitor
        if self.crowd:
            return int(chance > 0.72)
        if visitor.customer and chance < 0.5:
            return _KEEP
        if chance < 0.4 and visitor.reached:
            return visitor.reached
        for erosion, onset in self.erosions:
            # Those who know what they want come all the same: late stages look as ever.
            if erosion.kind == "funnel_divergence" and self.now >= onset:
                if self.rng.random() < STRAIGHT_SHARE * (1 - erosion.size**2):
                    return _DECIDE
        return int(chance > 0.72)

    def _step(self, stage: str) -> bool:
        """Visit one stage; True if the visitor advances from it."""
        self.model, rng = MODELS[stage], self.rng
        active = [
            erosion for erosion, onset in self.erosions
            if erosion.stage in (stage, JOURNEY) and self.now >= onset
        ]  # fmt: skip
        mood = self._mood(active)
        # People decide a little more easily in the evening: a rate has a daily cycle of its own.
        evening = 1 + 0.04 * math.cos((self.now / 3600 % 24 - 20) * math.pi / 12)
        chance = self.model.advance * self.factor * MOOD_ADVANCE[mood] * evening
        longer = 1.0
        for erosion in active:
            if erosion.kind in LOWERS or (erosion.kind == "funnel_divergence" and stage in EARLY):
                chance *= erosion.size
            elif erosion.kind == "false_engagement":
                longer *= erosion.size
        advanced = rng.random() < min(chance, 0.95)
        pages = 1
        while pages < 4 and rng.random() < self.model.more:
            pages += 1
        for number in range(pages):
            self._page(stage, mood, longer, first=number == 0, closing=advanced and number == pages - 1)
            self.wait(0.2, 1.0)
        return advanced

    def _mood(self, active: list[Erosion]) -> Mood:
        stuck = STUCK_SHARE * (1.15 if self.segment["device"] == "mobile" else 1.0)
        for erosion in active:
            stuck *= erosion.size if erosion.kind == "hesitation" else 1.0
        chance = self.rng.random()
        # Stuck is cut from the low end and reading from the high end, so more of one is not less of the other.
        return "stuck" if chance < min(stuck, 0.8) else "reading" if chance > 1 - READING_SHARE else "smooth"

    def _page(self, stage: str, mood: Mood, longer: float, *, first: bool, closing: bool) -> None:
        rng, opened = self.rng, self.now
        self.view(self.somewhere())
        self.wait(0.8, 3.0)
        if first:
            if stage in ACTS:
                ACTS[stage](self)
            self._hesitate(mood)
        spent = self.now - opened
        wanted = self.model.dwell_s * MOOD_DWELL[mood] * math.exp(rng.gauss(0.0, 0.7)) * longer
        left_s = min(wanted, MAX_DWELL_S) - spent
        while left_s > PING_S:
            self.now += PING_S
            left_s -= PING_S
            self.emit("page_pinged")
        self.now += max(left_s, 0.5)
        if rng.random() < 0.45:
            self.click_somewhere()
        if closing and stage in CLOSINGS:
            CLOSINGS[stage](self)
        low, high = MOOD_SCROLL[mood]
        self.emit("page_left", dwell_s=round(self.now - opened, 1), scroll_ratio=round(rng.uniform(low, high), 2))

    def _hesitate(self, mood: Mood) -> None:
        chance, count = self.rng.random(), 0
        if mood == "stuck":
            # One in ten stuck people only stares: no signal but the long dwell.
            count = 0 if chance < 0.1 else 1 if chance < 0.5 else 2 if chance < 0.8 else 3
        elif mood == "smooth":
            count = int(chance < STRAY_SIGNAL)
        for _ in range(count):
            SIGNALS[self.rng.choice(self.model.signals)](self)
            self.wait(2.0, 8.0)

    def somewhere(self) -> str:
        """A page of the stage."""
        pattern = self.rng.choice(self.model.pages)
        return pattern % (1 + int(120 * self.rng.random())) if "%" in pattern else pattern


def _browse(session: _Session) -> None:
    if session.rng.random() < 0.12:
        session.emit("searched")


def _compare(session: _Session) -> None:
    session.emit("compared")


def _fill_cart(session: _Session) -> None:
    if session.rng.random() < 0.6:
        session.emit("item_added")
    for field in FIELDS[: session.rng.randrange(1, 4)]:
        _fill(session, field)


def _fill(session: _Session, field: str) -> None:
    session.emit("field_focused", form="order", field=field)
    session.wait(2.0, 8.0)
    session.emit("field_changed", form="order", field=field)


def _start_checkout(session: _Session) -> None:
    session.emit("checkout_started")


def _submit(session: _Session) -> None:
    session.emit("form_submitted", form="order")


def _purchase(session: _Session) -> None:
    session.emit("purchased", value=round(60 * math.exp(session.rng.gauss(0.0, 0.6)), 2))


def _rage(session: _Session) -> None:
    element, x, y = session.rng.choice(session.model.elements), 1200 * session.rng.random(), 800 * session.rng.random()
    for _ in range(session.rng.randrange(3, 6)):
        session.click(element, x + 6 * session.rng.random(), y + 6 * session.rng.random())
        session.wait(0.08, 0.22)


def _u_turn(session: _Session) -> None:
    origin = session.page
    session.view(session.model.aside)
    session.wait(1.5, 6.0)
    session.view(origin)


def _loop(session: _Session) -> None:
    for _ in range(3):
        session.wait(1.0, 4.0)
        session.view(session.page)


def _searches(session: _Session) -> None:
    for _ in range(session.rng.randrange(3, 5)):
        session.emit("searched")
        session.wait(3.0, 9.0)


def _dead(session: _Session) -> None:
    session.emit("clicked", element=session.rng.choice(session.model.elements), x=300.0, y=410.0, dead=True)


def _compares(session: _Session) -> None:
    for _ in range(session.rng.randrange(2, 5)):
        session.wait(3.0, 9.0)
        session.emit("compared")


def _field_return(session: _Session) -> None:
    first, second = session.rng.sample(FIELDS, 2)
    for field in (first, second, first):
        _fill(session, field)
        session.wait(0.5, 2.0)


def _error(session: _Session) -> None:
    session.click_somewhere()
    session.wait(0.1, 0.6)
    session.emit("error_shown")
    if session.page == "/cart":
        session.emit("form_failed", form="order")


_Act: TypeAlias = Callable[[_Session], None]
ACTS: Final[dict[str, _Act]] = {
    "evaluate": _browse, "compare": _compare, "decide": _fill_cart, "buy": _start_checkout,
}  # fmt: skip
"""What nearly everyone does on entering a stage."""
CLOSINGS: Final[dict[str, _Act]] = {"decide": _submit, "buy": _purchase}
"""What only those do who advance, before they leave the page."""
SIGNALS: Final[dict[str, _Act]] = {
    "rage": _rage, "u_turn": _u_turn, "loop": _loop, "searches": _searches, "dead": _dead, "compares": _compares,
    "field_return": _field_return, "error": _error,
}  # fmt: skip
"""Micro-signals of hesitation, by name."""

_SEGMENT_NAMES: Final = {
    "searched": "Products Searched", "compared": "Products Compared", "item_added": "Product Added",
    "item_removed": "Product Removed", "purchased": "Order Completed", "clicked": "Element Clicked",
}  # fmt: skip
"""Names of Segment's e-commerce specification where they differ from our types in title case."""


def segment_call(event: Event, iso: Callable[[float], str]) -> dict[str, Any]:
    """One web event as a Segment `page` or `track` call; labels become plain properties.

    Args:
        event: a web event.
        iso: epoch seconds → ISO 8601.
    """
    call: dict[str, Any] = {"type": "page"}
    properties = dict(event.properties)
    if event.type != "page_viewed":
        title = event.type.replace("_", " ").title()
        call = {"type": "track", "event": _SEGMENT_NAMES.get(event.type, title)}
    if event.type == "purchased":
        properties = {"revenue": properties["value"]}
    call |= {"messageId": event.id, "anonymousId": event.person, "timestamp": iso(event.time)}
    if event.device_time is not None:
        call["originalTimestamp"] = iso(event.device_time)
    return call | {"context": {"page": {"path": event.page}}, "properties": {**properties, **event.segment}}
