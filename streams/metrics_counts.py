"""How lead scores are distributed and what became of leads at a given score, by source; how long steps stay open.

Sums of the counts that detectors see, as `streams.metrics` has for steps. Leads only for everyone and for segments of
one label (`MOST_SEGMENTS` of them), steps only for whole stages: the rest is in the findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from detectors._stages import BESIDE, CONTACTS, CUSTOMERS, LEADS
from streams.customers import CONTACT_FIELDS, CUSTOMER_FIELDS
from streams.frames import Segment
from streams.settings import LeadSettings, Settings
from streams.watch import Watcher

MOST_SEGMENTS: Final = 50
BANDS: Final = 5
"""Parts of the score scale that outcomes are told for."""
HORIZONS: Final = ("touch", "accept", "win")
UNSCORED: Final = "none"

Breathe = Callable[[Iterable[Any]], Iterator[Any]]


def families(
    watchers: Iterable[Watcher], settings: Settings, breathe: Breathe, label_of: Callable[[Segment], str]
) -> Iterator[Metric]:
    """Score histogram, outcomes by band of the score scale, and steps that outlived each dwell mark.

    Args:
        watchers: of the partitions that this worker owns.
        settings: the score scale and the dwell marks.
        breathe: gives the same items, with breaths.
        label_of: segment → label value.
    """
    scores = HistogramMetricFamily(
        "trustwatch_lead_score", "Scores of leads; the sum takes each at the middle of its bin.", labels=["segment"]
    )
    outcomes = CounterMetricFamily(
        "trustwatch_lead_outcomes",
        "Leads whose horizon has passed, by the band of the score scale they were in when handed over (none: without a"
        " score; touch is not told by score) and by whether they had been touched, accepted or won by then.",
        labels=["segment", "horizon", "band", "reached"],
    )
    watchers = list(watchers)
    for segment, counts in breathe(_segments(watchers, breathe)):
        name = label_of(segment)
        scores.add_metric([name], *histogram(counts, settings.leads))
        for (horizon, band), (n, k) in outcomes_of(counts, settings.leads).items():
            outcomes.add_metric([name, horizon, band, "yes"], k)
            outcomes.add_metric([name, horizon, band, "no"], n - k)
    yield from (scores, outcomes)
    yield from _survival(watchers, settings.time.dwell_marks_s, breathe)
    yield from _beside(watchers, breathe, label_of)


def _survival(watchers: list[Watcher], marks_s: Iterable[float], breathe: Breathe) -> Iterator[Metric]:
    entered = CounterMetricFamily("trustwatch_entered_steps", "Steps begun, of whole stages.", labels=["stage"])
    survived = CounterMetricFamily(
        "trustwatch_surviving_steps",
        "Steps still open after so many seconds, of whole stages.",
        labels=["stage", "mark"],
    )
    for watcher in watchers:
        for (stage, segment), counts in breathe(list(watcher.rates.items())):
            if segment or stage in BESIDE:
                continue
            entered.add_metric([stage], counts.get("entered", 0))
            for mark in marks_s:
                survived.add_metric([stage, f"{mark:g}"], counts.get(f"open_{mark:g}", 0))
    yield from (entered, survived)


def _beside(watchers: list[Watcher], breathe: Breathe, label_of: Callable[[Segment], str]) -> Iterator[Metric]:
    """What was sent to people and what they got; counts, or sums where the name says so (`dose_sum`, `value_…`)."""
    contacts = CounterMetricFamily(
        "trustwatch_contacts", "Mails sent and what people made of them.", labels=["segment", "what"]
    )
    customers = CounterMetricFamily(
        "trustwatch_customers", "Orders, cases, surveys, renewals: what customers got.", labels=["segment", "what"]
    )
    told = {CONTACTS: (contacts, CONTACT_FIELDS), CUSTOMERS: (customers, CUSTOMER_FIELDS)}
    for watcher in watchers:
        for (stage, segment), counts in breathe(list(watcher.rates.items())):
            if stage in told:
                family, fields = told[stage]
                for field in fields:
                    family.add_metric([label_of(segment), field], counts.get(field, 0))
    yield from (contacts, customers)


def _segments(watchers: Iterable[Watcher], breathe: Breathe) -> list[tuple[Segment, dict[str, int]]]:
    found = [
        (segment, dict(counts))
        for watcher in watchers
        for (stage, segment), counts in breathe(list(watcher.rates.items()))
        if stage == LEADS and len(segment) <= 1
    ]
    return sorted(found, key=lambda each: (len(each[0]), -each[1].get("created", 0), each[0]))[:MOST_SEGMENTS]


def histogram(counts: Mapping[str, int], settings: LeadSettings) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets (upper bound of the score → leads), of two bins each, and the sum of the scores.

    >>> settings = LeadSettings(score_bins=4)
    >>> histogram({"score_0": 2, "score_3": 1}, settings)
    ([('50', 2.0), ('100', 3.0), ('+Inf', 3.0)], 112.5)
    """
    width = (settings.score_max - settings.score_min) / settings.score_bins
    buckets, seen, total = list[tuple[str, float]](), 0.0, 0.0
    for b in range(settings.score_bins):
        leads = counts.get(f"score_{b}", 0)
        seen += leads
        total += leads * (settings.score_min + (b + 0.5) * width)
        if b % 2 or b == settings.score_bins - 1:
            buckets.append((f"{settings.score_min + (b + 1) * width:g}", seen))
    return [*buckets, ("+Inf", seen)], total


def outcomes_of(counts: Mapping[str, int], settings: LeadSettings) -> dict[tuple[str, str], tuple[int, int]]:
    """(horizon, band) → leads whose horizon passed, and those that had reached it.

    >>> outcomes_of({"accept_n_19": 2, "accept_k_19": 1}, LeadSettings())["accept", "80-100"]
    (2, 1)
    """
    found = {}
    for horizon in HORIZONS:
        plain = "all" if horizon == "touch" else UNSCORED
        found[horizon, plain] = (counts.get(f"{horizon}_n", 0), counts.get(f"{horizon}_k", 0))
        if horizon == "touch":
            continue
        for band in range(BANDS):
            bins = [b for b in range(settings.score_bins) if b * BANDS // settings.score_bins == band]
            n, k = (sum(counts.get(f"{horizon}_{what}_{b}", 0) for b in bins) for what in "nk")
            found[horizon, band_name(band, settings)] = (n, k)
    return found


def band_name(band: int, settings: LeadSettings) -> str:
    """Name of one of the `BANDS` parts of the score scale.

    >>> band_name(0, LeadSettings()), band_name(4, LeadSettings())
    ('0-20', '80-100')
    """
    width = (settings.score_max - settings.score_min) / BANDS
    low = settings.score_min + band * width
    return f"{low:g}-{low + width:g}"
