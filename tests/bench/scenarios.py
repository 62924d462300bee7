"""Is each loss of trust called by its name, and what only looks like one left alone? `python -m tests.bench.scenarios`.

Runs every scenario of `streams.scenarios` with some seeds through the real pure line (Door, Sessionizer, Watcher) with
default settings, and judges what was told: whether a loss was named (detector, place, onset), what paged without a
reason, and whether season, mix, machines or broken tags woke anyone. Shares have Wilson intervals; the exit code is 0
if every limit holds. Seeds below `--first` are for tuning. What holds for a detector holds for these streams: they are
simulated.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec

from detectors._registry import discover
from detectors._stages import CONTACTS, JOURNEY
from streams.findings import Finding
from streams.metrics_findings import severity_of
from streams.scenarios import SCENARIOS, Scenario
from streams.settings import Settings
from streams.simulate import START
from streams.simulate_kinds import DAY_S, Erosion
from streams.simulate_web import STAGES
from tests.bench.breakage import Line

BEGIN: Final = datetime.fromisoformat(START).timestamp()
CHUNK_S: Final = 600.0
NAMED_LEAST: Final = 0.95
CONFOUNDED_MOST: Final = 0.02
MEMORY_BYTES: Final = 3 * 1024**3
"""Address space of a process; a run needs a tenth of it."""
RUNS_A_PROCESS: Final = 8
"""After so many a process is replaced, so that nothing piles up."""
WEEK_DAYS: Final = 7.0
SLACK_S: Final = 60.0
"""The clock of findings has whole seconds and buckets."""


class Told(msgspec.Struct, frozen=True):
    """A finding as it was when it was most urgent."""

    finding: Finding
    severity: str

    @property
    def detected(self) -> float:
        """Event time, seconds."""
        return datetime.fromisoformat(self.finding.detected_at).timestamp()

    @property
    def onset(self) -> float:
        """Event time, seconds."""
        return datetime.fromisoformat(self.finding.onset).timestamp()

    def say(self) -> str:
        """Detector, kind and place."""
        labels = ",".join(f"{label}={value}" for label, value in self.finding.segment.items())
        return f"{self.finding.detector}/{self.finding.kind} {labels}"


class Judged(msgspec.Struct, frozen=True):
    """What came of one run.

    Attributes:
        scenario: name.
        seed: of the run.
        named: whether the loss was told by a detector that is expected to, at the right place and onset.
        by_right_name: whether the first of them told it.
        onset_error_days: of the first that named it, told minus true.
        delay_days: from the onset until it was named.
        false_pages: pages from the onset on that nothing explains; for a confounder all but those allowed.
        early_pages: pages before the onset: nothing had happened.
        explained: what else was told because of it.
        tickets: tickets that nothing explains.
        events: that arrived.
        seconds: of wall clock.
    """

    scenario: str
    seed: int
    named: bool
    by_right_name: bool
    onset_error_days: float | None
    delay_days: float | None
    false_pages: tuple[str, ...]
    early_pages: tuple[str, ...]
    explained: tuple[str, ...]
    tickets: tuple[str, ...]
    events: int = 0
    seconds: float = 0.0


def run(job: tuple[str, int]) -> Judged:
    """One scenario with one seed."""
    name, seed = job
    scenario, began, line = SCENARIOS[name], time.perf_counter(), Line(CHUNK_S)
    events = line.run(scenario.arrivals(seed))
    classes = line.plan.detectors.classes
    claims = (finding for _, finding in line.told if finding.detector in classes)  # not what became proven
    told = most_urgent(Told(finding, severity_of(finding, classes[finding.detector].alert)) for finding in claims)
    seconds = round(time.perf_counter() - began, 1)
    return msgspec.structs.replace(judge(name, scenario, seed, told), events=events, seconds=seconds)


def most_urgent(told: Iterable[Told]) -> list[Told]:
    """Of each finding what was most urgent, in the order in which they began; what nobody is told of is left out."""
    rank = {"none": 0, "ticket": 1, "page": 2}
    known: dict[str, Told] = {}
    for one in told:
        before = known.get(one.finding.id)
        if one.finding.resolved_at is None and (before is None or rank[one.severity] > rank[before.severity]):
            known[one.finding.id] = one
    return [one for one in known.values() if one.severity != "none"]


def judge(name: str, scenario: Scenario, seed: int, told: Sequence[Told]) -> Judged:
    """What findings say of a scenario, against what is true of it.

    Args:
        name: of the scenario.
        scenario: it.
        seed: of the run.
        told: findings that someone was told of, each once.
    """
    onset = BEGIN + scenario.onset_day * DAY_S
    early = [one for one in told if one.detected < onset - SLACK_S]
    later = [one for one in told if one.detected >= onset - SLACK_S]
    right = [one for one in later if any(names(one, scenario, erosion) for erosion in scenario.erosions)]
    right.sort(key=lambda one: one.detected)
    unexplained = [one for one in later if one not in right and not is_explained(one, scenario)]
    first = right[0] if right else None
    return Judged(
        name, seed, bool(right), any(one.finding.detector == scenario.expected[0] for one in right),
        None if first is None else round((first.onset - onset) / DAY_S, 2),
        None if first is None else round((first.detected - onset) / DAY_S, 2),
        tuple(one.say() for one in unexplained if one.severity == "page"),
        tuple(one.say() for one in early if one.severity == "page"),
        tuple(one.say() for one in later if one not in unexplained),
        tuple(one.say() for one in unexplained if one.severity == "ticket"),
    )  # fmt: skip


def names(told: Told, scenario: Scenario, erosion: Erosion) -> bool:
    """Whether a finding is this erosion's: by detector, place (or one that holds it) and onset."""
    onset = BEGIN + erosion.onset_day * DAY_S
    finding = told.finding
    since = [datetime.fromisoformat(at).timestamp() for at in (finding.onset_from, finding.onset_to) if at is not None]
    near = abs(told.onset - onset) <= scenario.tolerance_days * DAY_S
    inside = len(since) == 2 and since[0] <= onset <= since[1]
    labels = _labels(finding)
    holds = all(erosion.segment.get(label) == value for label, value in labels.items())
    return finding.detector in scenario.expected and _same_stage(finding, erosion) and holds and (near or inside)


def is_explained(told: Told, scenario: Scenario) -> bool:
    """Whether a finding may come from what was put in: its detector is expected or allowed, its place overlaps."""
    finding = told.finding
    if finding.detector not in (*scenario.expected, *scenario.allowed):
        return False
    if scenario.is_confounder:
        return True
    labels = _labels(finding)
    return any(
        _same_stage(finding, erosion, anywhere=True)
        and all(erosion.segment.get(label, value) == value for label, value in labels.items())
        for erosion in scenario.erosions
    )


def _labels(finding: Finding) -> dict[str, str]:
    """Labels that tell people apart: all mails have the channel email."""
    common = {"stage"} | ({"channel"} if finding.segment["stage"] == CONTACTS else set())
    return {label: value for label, value in finding.segment.items() if label not in common}


def _same_stage(finding: Finding, erosion: Erosion, *, anywhere: bool = False) -> bool:
    """Whether a finding is at the erosion's stage or at the journey as a whole; `anywhere`: at any of the journey."""
    stage, journey = finding.segment["stage"], (JOURNEY, *STAGES)
    if stage == erosion.stage:
        return True
    both = stage in journey and erosion.stage in journey
    return both and (anywhere or JOURNEY in (stage, erosion.stage))


# ── the report ────────────────────────────────────────────────────────────────────────────────────────────────────────


def wilson(good: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson 1927).

    >>> [round(end, 3) for end in wilson(95, 100)]
    [0.888, 0.978]
    """
    if not of:
        return 0.0, 1.0
    share, z2 = good / of, z * z
    middle, wide = share + z2 / (2 * of), z * sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, (middle - wide) / (1 + z2 / of)), min(1.0, (middle + wide) / (1 + z2 / of))


class Limit(msgspec.Struct, frozen=True):
    """One of the issue's limits: what it says, what was measured, and whether it holds."""

    says: str
    measured: str
    holds: bool


def limits(results: Sequence[Judged]) -> list[Limit]:
    """What was measured, against the issue."""
    losses = [one for one in results if not SCENARIOS[one.scenario].is_confounder]
    others = [one for one in results if SCENARIOS[one.scenario].is_confounder]
    mixed = [one for one in others if SCENARIOS[one.scenario].mix]
    budget = Settings().false_pages_per_week
    weeks = sum(SCENARIOS[one.scenario].days for one in losses) / WEEK_DAYS
    false = sum(len(one.false_pages) + len(one.early_pages) for one in losses)
    named, paged = sum(one.named for one in losses), sum(bool(one.false_pages) for one in others)
    found = []
    if losses:
        found.append(Limit(f"a loss is named in {NAMED_LEAST:.0%} of runs or more", _share(named, len(losses)),
                           named >= NAMED_LEAST * len(losses)))  # fmt: skip
        found.append(Limit(f"with {budget:g} false pages a week at most", f"{false / weeks:.2f} ({false} in"
                           f" {weeks:.0f} weeks)", false <= budget * weeks))  # fmt: skip
    if others:
        found.append(Limit(f"a confounder pages in {CONFOUNDED_MOST:.0%} of runs at most", _share(paged, len(others)),
                           paged <= CONFOUNDED_MOST * len(others)))  # fmt: skip
    if mixed:
        paging = sum(bool(one.false_pages) for one in mixed)
        found.append(Limit("a shift of the mix alone never pages", _share(paging, len(mixed)), paging == 0))
    return found


def _share(good: int, of: int) -> str:
    low, high = wilson(good, of)
    return f"{good} of {of}, {good / of:.1%} ({low:.1%} to {high:.1%})"


def report(results: Sequence[Judged]) -> str:
    """The table, and the limits."""
    lines = ["| scenario | expected | runs | named | by its right name | days to it | onset off, days | runs with false"
             " pages | pages before | what paged |", "|" + "---|" * 10]  # fmt: skip
    detectors = discover()
    for name in dict.fromkeys(one.scenario for one in results):
        runs, scenario = [one for one in results if one.scenario == name], SCENARIOS[name]
        missing = "" if not scenario.expected or scenario.expected[0] in detectors else " (no such detector)"
        cells = ["", ""] if scenario.is_confounder else [
            _share(sum(one.named for one in runs), len(runs)), str(sum(one.by_right_name for one in runs))]  # fmt: skip
        times = [_median(one.delay_days for one in runs), _median(one.onset_error_days for one in runs)]
        pages = sorted({page for one in runs for page in (*one.false_pages, *one.early_pages)})
        lines.append("| " + " | ".join([
            name, (scenario.expected[0] if scenario.expected else "nothing") + missing, str(len(runs)), *cells, *times,
            str(sum(bool(one.false_pages) for one in runs)), str(sum(len(one.early_pages) for one in runs)),
            "; ".join(pages[:3]) + (" …" if len(pages) > 3 else ""),
        ]) + " |")  # fmt: skip
    lines += [f"{'holds' if one.holds else 'FAILS'}: {one.says}: {one.measured}" for one in limits(results)]
    return "\n".join(lines)


def _median(values: Iterable[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return f"{known[len(known) // 2]:.2f}" if known else ""


# ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def run_all(jobs: Sequence[tuple[str, int]], processes: int) -> list[Judged]:
    """All runs in some processes, in the order of the jobs; each says on standard error what it found."""
    results = []
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_bound_memory, max_tasks_per_child=RUNS_A_PROCESS
    ) as pool:
        for done, result in enumerate(pool.map(run, jobs), start=1):
            results.append(result)
            print(f"# {done}/{len(jobs)} {_line(result)}", file=sys.stderr, flush=True)
    return results


def _line(result: Judged) -> str:
    """One run in a line: how long it took, and all that it told."""
    parts = [f"{result.scenario} {result.seed}: {result.seconds:.0f} s, {result.events} events"]
    if not SCENARIOS[result.scenario].is_confounder:
        parts.append("named" if result.named else "NOT named")
    for title in ("explained", "false_pages", "early_pages", "tickets"):
        told = Counter(getattr(result, title))
        if told:
            parts.append(f"{title}: " + "; ".join(f"{number} x {what}" for what, number in told.items()))
    return ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, print the table and the limits; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scenarios", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="runs of each scenario")
    parser.add_argument("--first", type=int, default=1000, help="first seed; those below 1000 are for tuning")
    parser.add_argument("--only", default="", help="comma-separated names; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="write every run, JSON")
    options = parser.parse_args(arguments)
    chosen = [name.strip() for name in options.only.split(",") if name.strip()] or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"--only {unknown[0]}: unknown; known: {', '.join(SCENARIOS)}")
    results = run_all([(name, options.first + i) for i in range(options.seeds) for name in chosen], options.jobs)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"runs": results, "limits": limits(results)}
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
    print(report(results))
    return 0 if all(one.holds for one in limits(results)) else 1


if __name__ == "__main__":
    sys.exit(main())
