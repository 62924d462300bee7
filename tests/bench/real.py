"""What the detectors make of real data: `python -m tests.bench.real [--data FOLDER] [--out FOLDER] [--simulated]`.

The data are no part of the project (licences); by default they are expected in `../shared/data` beside the repository.
Everything is test-then-train, in order, without columns that know the outcome, with the parameters that are shipped:
nothing is fitted to a file. `--simulated` adds false alarms and delays of lead-score drift on simulated leads. Writes
real.md and real.json; the exit code is 0 if every limit holds.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from detectors._base import Verdict
from detectors._engagement import Engagement, EngagementParams
from detectors._registry import build_params
from detectors._step_model import StepModel
from detectors.lead_score_drift import LeadScoreDrift, LeadScoreDriftParams, LeadScores
from streams.backtest import Backtest
from streams.mapping import load_mapping
from streams.recorded import RecordedFile
from streams.settings import Settings, TopicSettings
from tests.bench import _leads
from tests.bench._online import Table, auc, prequential
from tests.bench._report import Limit

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT.parent / "shared" / "data"
LEADS_FILE: Final = "xeducation_leads.csv"
SHOPPERS_FILE: Final = "online_shoppers_intention.csv"
SHOP_FILE: Final = "rees46_cosmetics_2019-10_first3h.csv"
START_S: Final = 1_700_006_400.0
DAY_S: Final = 86_400.0
STEP: Final = 500
BINS: Final = 20


class Section(NamedTuple):
    """A part of the report: its lines (Markdown), the limits it measured, and its numbers."""

    lines: list[str]
    limits: list[Limit]
    numbers: dict[str, object]


# ── X Education: a lead score ─────────────────────────────────────────────────────────────────────────────────────────

LEADS_PER_DAY: Final = 100
WATCHED_FROM, FOUND_BY, EARLIER = 3000, 8650, 1
"""The issue's limits, numbers of leads: alarms count from the first; the inflation has to be known by the second."""
LAST_FIFTH: Final = 7392
LEADS: Final = Table(
    numbers=("TotalVisits", "Total Time Spent on Website", "Page Views Per Visit"),
    categories=(
        "Lead Origin", "Lead Source", "Do Not Email", "Do Not Call", "Country", "Specialization", "City", "Search",
        "How did you hear about X Education", "What is your current occupation", "Newspaper Article", "Newspaper",
        "What matters most to you in choosing a course", "Magazine", "X Education Forums", "Digital Advertisement",
        "Through Recommendations", "A free copy of Mastering The Interview",
    ),
    left_out={
        "Tags, Lead Quality, Lead Profile, Asymmetrique …": "given by sales staff after they spoke with the lead",
        "Last Activity, Last Notable Activity": "the last thing that ever happened with the lead, after the sale, too",
        "Prospect ID, Lead Number": "identify the lead; the number gives the order",
        "five columns with one value": "say nothing",
    },
)  # fmt: skip
DOUBTFUL: Final = ("What is your current occupation", "What matters most to you in choosing a course")
"""Form answers of the lead, but missing just where sales gave no Lead Profile: without them, too."""


class Alarm(NamedTuple):
    """An alarm of the monitor, in numbers of leads; `end` is None while it lasts."""

    start: int
    end: int | None
    onset: int
    kind: str
    before: float
    after: float


def read(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def xeducation(data: Path) -> Section:
    """The score's AUC, and the inflation of the score that was frozen half-way."""
    rows = sorted(read(data / LEADS_FILE), key=lambda row: int(row["Lead Number"]))
    outcomes = [row["Converted"] == "1" for row in rows]
    half = len(rows) // 2
    moving = prequential(rows, outcomes, LEADS)
    strict = LEADS._replace(categories=tuple(name for name in LEADS.categories if name not in DOUBTFUL))
    areas = {
        "all": auc(moving, outcomes),
        "second half": auc(moving[half:], outcomes[half:]),
        "without the two doubtful fields": auc(prequential(rows, outcomes, strict), outcomes),
    }
    frozen = prequential(rows, outcomes, LEADS, freeze_at=half)
    alarms = monitor(frozen, outcomes, half)
    found = [alarm for alarm in alarms if found_inflation(alarm)]
    earlier = [alarm for alarm in alarms if WATCHED_FROM < alarm.start < (found[0].start if found else FOUND_BY)]
    limits = [
        Limit(
            "X Education, prequential AUC of a pre-sales score", areas["all"][0], 0.855, areas["all"][1], at_least=True
        ),
        Limit("X Education, lead at which the inflation is found", found[0].start if found else float("inf"), FOUND_BY),
        Limit("X Education, earlier alarms after lead 3,000", len(earlier), EARLIER),
    ]
    lines = [
        *_about_leads(areas), *_by_steps(frozen, outcomes), "", *map(_told, alarms), "",
        *sensitivity(rows, outcomes), "", *whole_detector(frozen, outcomes, half),
    ]  # fmt: skip
    return Section(lines, limits, {"auc": areas, "alarms": [alarm._asdict() for alarm in alarms]})


def monitor(scores: Sequence[float], outcomes: Sequence[bool], start: int, per_day: int = LEADS_PER_DAY,
            *, scored: bool = False) -> list[Alarm]:  # fmt: skip
    """Alarms of lead-score drift, with the parameters that are shipped, over leads from `start` on.

    Args:
        scores: P(conversion) of each lead.
        outcomes: whether it converted; known at once, for the file has no times.
        start: first lead that is seen.
        per_day: leads to a day of event time.
        scored: whether the scores' distribution is watched, too.
    """
    params = build_params(LeadScoreDrift)
    assert isinstance(params, LeadScoreDriftParams)
    detector, alarms = LeadScoreDrift(params), list[Alarm]()
    for i in range(start, len(scores)):
        b = min(BINS - 1, int(scores[i] * BINS))
        x = LeadScores(START_S + i / per_day * DAY_S, ((b, 1, 0),) if scored else (), (), ((b, 1, int(outcomes[i])),))
        _note(alarms, i, detector.observe(x), per_day)
    return alarms


def _note(alarms: list[Alarm], i: int, verdict: Verdict, per_day: int) -> None:
    """Begin, carry on or end an alarm."""
    last = alarms[-1] if alarms and alarms[-1].end is None else None
    kind = verdict.kind if verdict.level == "alert" else ""
    if last and kind == last.kind:
        alarms[-1] = last._replace(before=verdict.before, after=verdict.after)
        return
    if last:
        alarms[-1] = last._replace(end=i)
    if kind:
        onset = round(((verdict.onset or 0.0) - START_S) / DAY_S * per_day)
        alarms.append(Alarm(i, None, onset, kind, verdict.before, verdict.after))


def found_inflation(alarm: Alarm) -> bool:
    """Whether an alarm tells of the fall in the last decile: on at lead 8,650, and dated into the last fifth."""
    return alarm.start <= FOUND_BY and (alarm.end or FOUND_BY + 1) > FOUND_BY and alarm.onset >= LAST_FIFTH


def sensitivity(rows: Sequence[dict[str, str]], outcomes: Sequence[bool]) -> Iterator[str]:
    """What if the score had been frozen elsewhere, or leads came faster or slower."""
    yield "Had the score been frozen at another lead, and were there other numbers of leads a day:"
    yield ""
    yield "| frozen at | leads a day | alarms (lead, onset) |"
    yield "|---:|---:|---|"
    for freeze_at in (1000, 2000, 3000, 4000, len(rows) // 2, 6000):
        scores = prequential(rows, outcomes, LEADS, freeze_at=freeze_at)
        for per_day in (50, 100, 200):
            alarms = monitor(scores, outcomes, freeze_at, per_day)
            yield f"| {freeze_at:,} | {per_day} | {', '.join(f'{a.start:,} ({a.onset:,})' for a in alarms) or 'none'} |"


def whole_detector(scores: Sequence[float], outcomes: Sequence[bool], start: int) -> Iterator[str]:
    """All kinds at once: the distribution of scores is watched beside."""
    yield "The same with the distribution of scores watched, too (who comes did change; no limit on this):"
    yield ""
    yield from map(_told, monitor(scores, outcomes, start, scored=True))


def _about_leads(areas: dict[str, tuple[float, float]]) -> Iterator[str]:
    yield "Leads in the order of their numbers (in the file the newest come first; known figures are in this order)."
    yield f"The file has no times: {LEADS_PER_DAY} leads are taken for a day. Not used:"
    yield ""
    yield from (f"- {columns}: {why}" for columns, why in LEADS.left_out.items())
    yield ""
    yield from (f"AUC, test-then-train, {which}: {area:.3f} ± {error:.3f}  " for which, (area, error) in areas.items())
    yield ""
    yield ("Score learnt from the first half, then frozen, and watched from there on as conversion given score."
           f" By {STEP} leads:")  # fmt: skip
    yield ""


def _by_steps(scores: Sequence[float], outcomes: Sequence[bool]) -> Iterator[str]:
    yield "| leads | mean score | converted |"
    yield "|---|---:|---:|"
    for at in range(0, len(scores), STEP):
        part, hits = scores[at : at + STEP], outcomes[at : at + STEP]
        yield f"| {at:,}-{at + len(part):,} | {sum(part) / len(part):.3f} | {sum(hits) / len(hits):.3f} |"


def _told(alarm: Alarm) -> str:
    until = f", until {alarm.end:,}" if alarm.end else ""
    return (f"- lead {alarm.start:,}: {alarm.kind}, since lead {alarm.onset:,}{until}:"
            f" {alarm.before:.3f} promised, {alarm.after:.3f} came")  # fmt: skip


# ── Online Shoppers: purchase, and false engagement ───────────────────────────────────────────────────────────────────

SESSIONS_PER_DAY: Final = 1000
SHOPPERS: Final = Table(
    numbers=(
        "Administrative", "Administrative_Duration", "Informational", "Informational_Duration", "ProductRelated",
        "ProductRelated_Duration", "BounceRates", "ExitRates", "SpecialDay",
    ),
    categories=("OperatingSystems", "Browser", "Region", "TrafficType", "VisitorType", "Weekend"),
    left_out={
        "PageValues": "the value of the transaction, spread over its pages: it knows the outcome",
        "Month": "rows are in order of months, and months differ in purchases",
    },
)  # fmt: skip
PAGE_RATES: Final = ("BounceRates", "ExitRates")
"""Averages over all sessions of the visited pages, perhaps later ones among them: without them, too."""


def shoppers(data: Path) -> Section:
    """The purchase model's AUC, and conversion by dwell per page."""
    rows = read(data / SHOPPERS_FILE, ";")
    outcomes = [row["Revenue"] == "TRUE" for row in rows]
    without = SHOPPERS._replace(numbers=tuple(name for name in SHOPPERS.numbers if name not in PAGE_RATES))
    areas = {
        "all": auc(prequential(rows, outcomes, SHOPPERS), outcomes),
        "without bounce and exit rates": auc(prequential(rows, outcomes, without), outcomes),
    }
    dwells = [(seconds_per_page(row), hit) for row, hit in zip(rows, outcomes, strict=True)]
    measure, found = engagement(dwells)
    tenths = exact_tenths(dwells)
    peak = max(tenths)
    limits = [
        Limit("Online Shoppers, prequential AUC", areas["all"][0], 0.72, areas["all"][1], at_least=True),
        Limit("Online Shoppers, session at which false engagement is found", found or float("inf"), len(rows)),
    ]
    groups = measure.groups()
    lines = [
        *(f"- not used: {columns}: {why}" for columns, why in SHOPPERS.left_out.items()), "",
        *(f"AUC, test-then-train, {which}: {area:.3f} ± {error:.3f}  " for which, (area, error) in areas.items()), "",
        f"Purchases by seconds on a product page, in tenths learnt on the way ({SESSIONS_PER_DAY} sessions taken for a"
        f" day). False engagement found at session {found:,}; evidence at the end {measure.evidence:.1f} nats,"
        f" needed {measure.threshold:.1f}." if found else "No false engagement found.", "",
        "| up to, seconds | sessions | purchased | 95 % |", "|---:|---:|---:|---|",
        *(f"| {g.longest_s:,.0f} | {g.n:,.0f} | {g.rate:.3f} | {g.low:.3f}-{g.high:.3f} |" for g in groups), "",
        f"For comparison, looking at the whole file at once: peak {peak:.3f}, last tenth {tenths[-1]:.3f}.",
    ]  # fmt: skip
    return Section(lines, limits, {"auc": areas, "found_at": found, "evidence": measure.evidence, "tenths": tenths})


def seconds_per_page(row: dict[str, str]) -> float | None:
    """Dwell on a product page on average; None without such a page."""
    pages = float(row["ProductRelated"])
    return float(row["ProductRelated_Duration"]) / pages if pages else None


def engagement(dwells: Sequence[tuple[float | None, bool]]) -> tuple[Engagement, int | None]:
    """The measure after all sessions, and the session at which it first found false engagement."""
    measure, found = Engagement(EngagementParams()), None
    for i, (dwell_s, hit) in enumerate(dwells):
        if dwell_s is not None:
            measure.learn(START_S + i / SESSIONS_PER_DAY * DAY_S, dwell_s, hit)
        if found is None and measure.found:
            found = i
    return measure, found


def exact_tenths(dwells: Sequence[tuple[float | None, bool]]) -> list[float]:
    """Conversion by tenths of dwell, with the whole file known."""
    known = sorted((dwell_s, hit) for dwell_s, hit in dwells if dwell_s is not None)
    borders = [len(known) * tenth // 10 for tenth in range(11)]
    parts = [known[a:b] for a, b in pairwise(borders)]
    return [sum(hit for _, hit in part) / len(part) for part in parts]


# ── REES46: the first hours of a shop ─────────────────────────────────────────────────────────────────────────────────


def rees46(data: Path) -> Section:
    """The whole line over less than three hours: no detector may judge so early; how well the step models tell."""
    mapping = load_mapping(ROOT / "tests" / "data" / "rees46.map.yaml")
    settings = Settings(topics=TopicSettings(events_partitions=1, counts_partitions=1))
    backtest = Backtest(settings)
    report = backtest.run([RecordedFile(data / SHOP_FILE, mapping=mapping)])
    stage = backtest.sessionizers[0]
    stage.snapshot()
    lines = [
        f"{report.summary.accepted:,} events, {report.summary.steps:,} steps, {report.summary.streams} watched streams,"
        f" {len(report.findings)} findings (all detectors still warm up).", "",
        "| stage | looks | AUC, recent, test-then-train | log-loss gain, nats a look | calls people hesitant |",
        "|---|---:|---:|---:|---|",
    ]  # fmt: skip
    numbers: dict[str, object] = {"findings": len(report.findings)}
    for name, blob in stage.state.models.items():
        model = StepModel()
        model.restore(blob)
        told = f"{model.state.looks:,} | {model.auc:.3f} | {model.gain:.4f} | {'yes' if model.ready else 'no'}"
        lines.append(f"| {name} | {told} |")
        numbers[name] = {"looks": model.state.looks, "auc": model.auc, "gain": model.gain}
    return Section(lines, [Limit("REES46, findings in 2 h 50 min", len(report.findings), 0)], numbers)


# ── simulated leads ───────────────────────────────────────────────────────────────────────────────────────────────────


def simulated(streams: int) -> Section:
    """False alarms and delays of lead-score drift."""
    rates, error, judged = _leads.false_alarms(streams)
    total = sum(rates.values())
    rows = _leads.delays(streams)
    lines = [
        f"{streams} streams of {_leads.LEADS:,} leads each, {_leads.PER_DAY:.0f} a day; parameters as shipped, seeds"
        " that nothing was tuned on.",
        f"Without change, {judged:,} leads judged: {total:.3f} ± {error:.3f} false alarms per 1,000 leads"
        f" ({', '.join(f'{kind} {rate:.3f}' for kind, rate in rates.items()) or 'none'}).",
        f"Change at lead {_leads.CHANGE_AT:,}, delays in leads:", "",
        "| change | told | median | p90 | onset off by (median) | another kind first |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {row.change} | {row.found:.0%} | {row.median:,.0f} | {row.p90:,.0f} | {row.onset_error:,.0f}"
          f" | {row.other_first:.0%} |" for row in rows),
    ]  # fmt: skip
    bound = 1.5 * 1000.0 / LeadScoreDriftParams().run_length  # acceptance, and the rarer kinds
    limits = [Limit("Simulated leads, false alarms per 1,000 leads", total, bound, error)]
    return Section(lines, limits, {"false_alarms": rates, "delays": [row._asdict() for row in rows]})


# ── the report ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(sections: dict[str, Section], folder: Path) -> list[Limit]:
    """Write real.md and real.json; all limits."""
    limits = [limit for section in sections.values() for limit in section.limits]
    lines = ["# Real data", "", *(f"- {limit}" for limit in limits)]
    for title, section in sections.items():
        lines += ["", f"## {title}", "", *section.lines]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "real.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = [{**limit._asdict(), "holds": limit.holds} for limit in limits]
    data = {"limits": told, **{title: section.numbers for title, section in sections.items()}}
    (folder / "real.json").write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=1))
    return limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, write the report, print the limits; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.real", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    parser.add_argument("--simulated", type=int, metavar="STREAMS", nargs="?", const=60, default=0,
                        help="simulated leads, too: 60 streams or so many (minutes)")  # fmt: skip
    given = parser.parse_args(arguments)
    missing = [name for name in (LEADS_FILE, SHOPPERS_FILE, SHOP_FILE) if not (given.data / name).exists()]
    if missing:
        parser.error(f"{given.data} lacks {', '.join(missing)}. Fix: name the folder with --data")
    sections = {
        "X Education: a lead score": xeducation(given.data),
        "Online Shoppers: purchase and false engagement": shoppers(given.data),
        "REES46: the first hours of a shop": rees46(given.data),
    }
    if given.simulated:
        sections["Simulated leads: lead-score drift"] = simulated(given.simulated)
    limits = write(sections, given.out)
    for limit in limits:
        print(limit)
    print(f"{given.out}/real.md, .json")
    return 0 if all(limit.holds for limit in limits) else 1


if __name__ == "__main__":
    sys.exit(main())
