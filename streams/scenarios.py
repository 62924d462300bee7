"""Named scenarios: what is put into a simulated stream, and what a good monitor says of it.

Half of them are losses of trust; the others only look like one (season, mix, machines, broken tags …) and must wake
nobody. `trustwatch simulate --scenario NAME` writes one with its truth; `python -m tests.bench.scenarios` judges the
line on all of them.

A change of prices is on both sides: people who like a price less do advance less, which is a loss to be told, but as
drop-off, neither as hesitation nor as broken tracking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heappop, heappush
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import UsageError
from streams.events import Event
from streams.simulate import START, Truth, parse_erosion, simulate, write
from streams.simulate_breakage import Arrival, arriving, broken
from streams.simulate_kinds import DAY_S, Erosion

LATE_CRM: Final = "late_crm"
"""From the onset on, what the CRM knows of a day arrives in one go on the next morning."""
SYNC_H: Final = 6.0
"""Hour of that morning, UTC."""


class Volumes(msgspec.Struct, frozen=True):
    """What happens on an average day: sessions, leads, mails and orders begun."""

    sessions: float = 0.0
    leads: float = 0.0
    mails: float = 0.0
    orders: float = 0.0


class Scenario(msgspec.Struct, frozen=True):
    """One scenario.

    Attributes:
        about: one sentence.
        days: length.
        volumes: how much happens.
        put_in: erosions and confounders, in the syntax of `--erosion`.
        expected: detectors that find it, the right name first; empty for a confounder.
        allowed: others that may speak up because of it, from its onset on.
        tolerance_days: how far from the truth an onset may be told.
        breakage: what happens to events on their way: a kind of `streams.simulate_breakage`, or `late_crm`.
        breakage_day: since when.
        mix: whether nothing changes but who comes: then nothing may ever page.
    """

    about: str
    days: float
    volumes: Volumes
    put_in: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    tolerance_days: float = 1.5
    breakage: str = ""
    breakage_day: float = 0.0
    mix: bool = False

    @property
    def is_confounder(self) -> bool:
        """Whether nobody should be woken."""
        return not self.expected

    @property
    def erosions(self) -> tuple[Erosion, ...]:
        """What is put in, parsed."""
        return tuple(parse_erosion(spec) for spec in self.put_in)

    @property
    def onset_day(self) -> float:
        """When the first of it begins; 0 where nothing does."""
        days = [erosion.onset_day for erosion in self.erosions]
        return min([*days, self.breakage_day] if self.breakage else days, default=0.0)

    def events(self, seed: int) -> Iterator[Event]:
        """The events in time order, before anything happens to them on their way."""
        volumes = self.volumes
        return simulate(self.days, seed, self.erosions, volumes.sessions, volumes.leads,
                        mails_per_day=volumes.mails, orders_per_day=volumes.orders)  # fmt: skip

    def arrivals(self, seed: int) -> Iterator[Arrival]:
        """The events as they arrive."""
        events, onset = self.events(seed), _begin() + self.breakage_day * DAY_S
        if not self.breakage:
            return arriving(events)
        return in_bulk(events, onset) if self.breakage == LATE_CRM else broken(events, self.breakage, onset, seed=seed)


def in_bulk(events: Iterable[Event], onset: float) -> Iterator[Arrival]:
    """The events as they arrive when those of the CRM come once a day, on the morning after.

    Args:
        events: in time order.
        onset: event time since when, seconds.
    """
    waiting: list[tuple[float, int, Arrival]] = []
    for number, arrival in enumerate(arriving(events)):
        while waiting and waiting[0][0] <= arrival.at:
            yield heappop(waiting)[2]
        if arrival.topic == "crm" and arrival.at >= onset:
            at = (arrival.at // DAY_S + 1) * DAY_S + SYNC_H * 3600
            heappush(waiting, (at, number, Arrival(at, "crm", arrival.outcome)))
        else:
            yield arrival
    while waiting:
        yield heappop(waiting)[2]


def _begin() -> float:
    return datetime.fromisoformat(START).timestamp()


def named(name: str) -> Scenario:
    """The scenario of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in SCENARIOS:
        raise UsageError(f"--scenario {name}: unknown; known: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def write_scenario(name: str, out: Path, seed: int) -> Truth:
    """Store a scenario's events in the order in which they arrive, and the truth beside.

    Args:
        name: of the scenario.
        out: file to write; gzip if it ends in `.gz`.
        seed: of all randomness.

    Raises:
        UsageError: there is no such scenario, or the file cannot be written.
    """
    scenario = named(name)
    events = (arrival.outcome for arrival in scenario.arrivals(seed) if isinstance(arrival.outcome, Event))
    breakage = f"{scenario.breakage}@{scenario.breakage_day:g}" if scenario.breakage else ""
    return write(events, out, days=scenario.days, seed=seed, erosions=scenario.erosions, scenario=name,
                 breakage=breakage)  # fmt: skip


_WEB: Final = Volumes(sessions=320, leads=15)
_SALES: Final = Volumes(sessions=15, leads=140)
_MAIL: Final = Volumes(sessions=15, leads=10, mails=900)
_SHOP: Final = Volumes(sessions=15, leads=10, orders=160)
_ALL: Final = Volumes(sessions=160, leads=50, mails=250, orders=50)
_SALES_DAYS: Final = 42.0
_DATA: Final = ("data_trust",)
_DROP: Final = ("early_dropoff", "small_losses", "funnel_divergence")

SCENARIOS: Final[dict[str, Scenario]] = {
    # ── losses of trust ───────────────────────────────────────────────────────────────────────────────────────────
    "hesitation": Scenario(
        "People get stuck at the decision.", 12, _WEB, ("hesitation:stage=decide@8x3.5",), ("hesitation",)),
    "hesitation_mobile": Scenario(
        "People on phones get stuck at the comparison.", 12, _WEB, ("hesitation:stage=compare,device=mobile@8x4",),
        ("hesitation",), ("early_dropoff",)),
    "early_dropoff": Scenario(
        "Fewer people go on from a product.", 12, _WEB, ("early_dropoff:stage=evaluate@8x0.7",),
        ("early_dropoff",), _DROP),
    "early_dropoff_paid": Scenario(
        "Fewer people whom ads brought go on from a product.", 12, _WEB,
        ("early_dropoff:stage=evaluate,channel=paid@8x0.55",), ("early_dropoff",), _DROP),
    "price_change": Scenario(
        "A price rises, as announced; fewer go on from the comparison: a loss, but neither doubt nor broken tracking.",
        12, _WEB, ("price_change:stage=compare@8x0.6",), ("early_dropoff",), _DROP),
    "false_engagement": Scenario(
        "People stay twice as long with a product and advance no more.", 14, _WEB,
        ("false_engagement:stage=evaluate@9x2.2",), ("false_engagement",), ("hesitation",)),
    "funnel_divergence": Scenario(
        "Early stages evaporate; who knows what he wants comes straight to the decision, so sales hold.", 14, _WEB,
        ("funnel_divergence@9x0.65",), ("funnel_divergence",), ("early_dropoff", "small_losses")),
    "small_losses": Scenario(
        "Every stage loses four in a hundred who advanced; none loses enough to be noticed.", 24,
        Volumes(sessions=320), ("small_losses@12x0.96",), ("small_losses",), ("early_dropoff", "funnel_divergence"),
        tolerance_days=6.0),
    "lead_score_drift": Scenario(
        "Scores of webinar leads rise by 18 points, the leads are as before.", _SALES_DAYS, _SALES,
        ("lead_score_drift:source=webinar@18x18",), ("lead_score_drift",), ("score_inflation", "vanity_gap"),
        tolerance_days=4.0),
    "score_inflation": Scenario(
        "A score model is tuned until volume looks right: scores rise by a third, what sales accepts does not.",
        _SALES_DAYS, _SALES, ("score_inflation@18x1.35",), ("score_inflation", "lead_score_drift"), ("vanity_gap",),
        tolerance_days=4.0),
    "follow_up_decay": Scenario(
        "Sales calls later, and some leads never.", _SALES_DAYS, _SALES, ("follow_up_decay@18x4",),
        ("follow_up_decay",), ("lead_score_drift", "score_inflation"), tolerance_days=3.0),
    "over_contact": Scenario(
        "Everybody gets three times as many mails, and more people leave.", 28, _MAIL, ("over_contact@16x3",),
        ("over_contact",), ("vanity_gap",), tolerance_days=4.0),
    "value_late": Scenario(
        "Three times as many orders come late.", 32, _SHOP, ("value_late@16x3",), ("value_delivered",),
        tolerance_days=4.0),
    "value_wrong": Scenario(
        "Four times as many orders are wrong.", 32, _SHOP, ("value_wrong@16x4",), ("value_delivered",),
        tolerance_days=4.0),
    "value_unsolved": Scenario(
        "Four times as many cases are not solved in time.", 32, _SHOP, ("value_unsolved@16x4",),
        ("value_delivered",), tolerance_days=5.0),
    "value_nps": Scenario(
        "Customers like what they get less, and say so when asked.", 32, _SHOP, ("value_nps@16x2",),
        ("value_delivered",), tolerance_days=4.0),
    "vanity_visits": Scenario(
        "Twice as many visits, by people who never go on.", 14, _WEB, ("vanity:stage=journey@9x2",),
        ("vanity_gap",), (*_DROP, "false_engagement")),
    "vanity_leads": Scenario(
        "Twice as many leads, none of the new ones is ever accepted.", _SALES_DAYS, _SALES,
        ("vanity:stage=leads@18x2",), ("vanity_gap",), ("lead_score_drift", "score_inflation"), tolerance_days=4.0),
    "vanity_mails": Scenario(
        "Twice as many mails, to a bought list that never answers.", 28, _MAIL, ("vanity:stage=contacts@16x2",),
        ("vanity_gap",), ("over_contact",), tolerance_days=4.0),
    # ── what only looks like one ──────────────────────────────────────────────────────────────────────────────────
    "quiet": Scenario("Nothing changes.", 16, _ALL),
    "season": Scenario("Everything becomes half as much again, slowly.", 20, _ALL, ("season@9x1.5",)),
    "holiday": Scenario("For three days hardly anything happens.", 16, _ALL, ("holiday@10x0.4",), allowed=_DATA),
    "rhythm": Scenario(
        "The day moves by five hours and weekends are like other days.", 18, _ALL, ("rhythm@9",), allowed=_DATA),
    "campaign_burst": Scenario(
        "For two days a campaign doubles visits, by people who want little, from a channel that is new.", 14, _WEB,
        ("campaign_burst@9x1",), mix=True),
    "mix_channels": Scenario(
        "Each channel is as ever, but ever more people come from the worst.", 14, _WEB,
        ("mix_shift:stage=journey,channel=paid@9x4",), mix=True),
    "mix_referral": Scenario(
        "Each channel is as ever, but a small one, the worst, grows for everyone's eyes.", 14, _WEB,
        ("mix_shift:stage=journey,channel=referral@9x6",), mix=True),
    "mix_sources": Scenario(
        "Each source of leads is as ever, but ever more come from the worst.", _SALES_DAYS, _SALES,
        ("mix_shift:stage=leads,source=ads@18x4",), mix=True),
    "mix_mails": Scenario(
        "Each campaign makes as many leave as ever, but the worst is sent more often.", 28, _MAIL,
        ("mix_shift:stage=contacts,campaign=promo@16x4",), mix=True),
    "bots": Scenario(
        "Machines look at pages and are gone: half as many again as people.", 12, _WEB,
        ("bots:channel=referral,device=desktop@8x0.5",), allowed=_DATA),
    "tag_stops": Scenario(
        "The tag of the comparison is gone.", 12, _WEB, breakage="tag_stops", breakage_day=8, allowed=_DATA),
    "tag_doubles": Scenario(
        "A tag fires twice.", 12, _WEB, breakage="tag_doubles", breakage_day=8, allowed=_DATA),
    "sampled": Scenario(
        "Nine in ten events are lost.", 12, _WEB, breakage="sampled", breakage_day=8, allowed=_DATA),
    "label_merged": Scenario(
        "All visits are called direct.", 12, _WEB, breakage="label_merged", breakage_day=8, allowed=_DATA),
    "consent_banner": Scenario(
        "A banner asks for consent, and half the people refuse.", 12, _WEB, breakage="consent_banner",
        breakage_day=8, allowed=_DATA),
    LATE_CRM: Scenario(
        "What the CRM knows arrives a day late, all at once.", 28, Volumes(15, 80, 200, 60), breakage=LATE_CRM,
        breakage_day=16, allowed=_DATA),
    "relaunch": Scenario(
        "A new version of a score model, announced: its scores are ten points higher.", _SALES_DAYS, _SALES,
        ("relaunch:model=v2@18x10",), allowed=("lead_score_drift", "data_trust")),
    "seasonal_mail": Scenario("More people subscribe and order before a feast.", 28,
                              Volumes(15, 10, 400, 80), ("season@14x1.5",)),
}  # fmt: skip
"""Name → scenario."""
