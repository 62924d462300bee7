"""`make test-faults`, or `python -m tests.faults [--only a,g] [--seed N] [--repeat N]`: the line under nine faults.

On a real Kafka. After each fault the findings, the counts per stage and segment, and the digest of the whole state must
be those of the undisturbed run, which must be those of a backtest; and what was consumed must be applied, duplicate,
late or dead-lettered, to the event. Two scenarios run at a time. Exit code 0 only if all is equal.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from deploy.kafka import Broker, available, fetch
from streams.backtest import closing_message
from streams.errors import TrustwatchError
from tests.faults.installation import KNOBS, ROOT, Deadline, settings_of
from tests.faults.recording import EVENTS, Recording, closed, last_time, recorded, undisturbed
from tests.faults.results import OF_TRACKING, Results, differences, of_backtest
from tests.faults.scenarios import SCENARIOS, Scenario, Shown, Stand, nothing

TOTAL_S: Final = 590.0
EACH_S: Final = 280.0
LANES: Final = 2
ORDER: Final = "hagbdcefi"
"""The long ones first, so that both lanes end together."""
KEPT_RUNS: Final = 3
CACHE: Final = ROOT / ".cache" / "faults"
console = Console(width=150, soft_wrap=True)


class Outcome(msgspec.Struct):
    """How a scenario ended."""

    letter: str
    title: str
    seconds: float
    shown: Shown | None
    wrong: list[str]


class Suite:
    """One run of all.

    Args:
        seed: of all that is random.
        letters: the scenarios to run.
        lanes: how many run at a time.
    """

    def __init__(self, seed: int, letters: str, lanes: int) -> None:
        self._seed = seed
        self._letters = [letter for letter in ORDER if letter in letters]
        self._lanes = lanes
        self._folder = Path(mkdtemp(prefix="run-", dir=CACHE))
        self._deadline = Deadline(TOTAL_S)
        self._began = time.monotonic()
        self._say = threading.Lock()

    def run(self) -> bool:
        """Whether all is as it should be."""
        console.print(f"FAULT_SEED={self._seed} repeats this run; logs in {self._folder}", highlight=False)
        path = recorded(CACHE)
        recording = undisturbed(path)
        closing = closing_message(last_time(recording), settings_of(KNOBS).time, time.time())
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool, Broker() as broker:
            backtest = pool.submit(backtested, path)
            stand = Stand(broker.bootstrap, recording, closing, None, random.Random(), self._folder, self._deadline, "")
            first = self._one("-", "nothing", nothing, stand)
            self._against_backtest(first, backtest.result(), closed(recording, closing))
            outcomes = [first]
            if not first.wrong and first.shown is not None:
                outcomes += self._faults(broker.bootstrap, recording, closing, first.shown.results)
        self._table(outcomes)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        console.print(f"{used.ru_utime + used.ru_stime + time.process_time():.0f} s of CPU in all", highlight=False)
        return all(not outcome.wrong for outcome in outcomes)

    def _faults(self, bootstrap: str, recording: Recording, closing: bytes, reference: Results) -> list[Outcome]:
        def one(letter: str) -> Outcome:
            title, scenario = SCENARIOS[letter]
            rng = random.Random(f"{self._seed}-{letter}")
            stand = Stand(bootstrap, recording, closing, reference, rng, self._folder, self._deadline, "")
            return self._one(letter, title, scenario, stand)

        with ThreadPoolExecutor(self._lanes, thread_name_prefix="lane") as lanes:
            return sorted(lanes.map(one, self._letters), key=lambda outcome: outcome.letter)

    def _one(self, letter: str, title: str, scenario: Scenario, stand: Stand) -> Outcome:
        began = time.monotonic()
        name = f"fault-{letter.replace('-', 'none')}"
        stand.folder, stand.name = self._folder / name, name
        stand.deadline = Deadline(EACH_S, self._deadline)
        shown, wrong = None, list[str]()
        try:
            shown = scenario(stand)
            wrong = list(shown.differences)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__, limit=-4)).splitlines()
            wrong = [f"{type(error).__name__}: {error}", *where]
        outcome = Outcome(letter, title, time.monotonic() - began, shown, wrong)
        self._tell(outcome)
        return outcome

    def _against_backtest(self, first: Outcome, backtest: Results, truth: Recording) -> None:
        if first.shown is None:
            return
        found = first.shown.results
        # A backtest reads one file as one source: what tracking counts by source is another.
        wrong = differences(found, backtest, truth, without=OF_TRACKING)
        detectors = {finding.detector for finding in found.findings.values()}
        if len(detectors) < 3 or not any(finding.resolved_at for finding in found.findings.values()):
            wrong.append(f"the recording proves too little: findings of {detectors} only, or none that ended")
        first.wrong += [f"against the backtest: {line}" for line in wrong]
        self._print(f"    equal to the backtest: {'NO' if wrong else 'yes'}; {len(found.findings)} findings,"
                    f" {len(found.counts)} stages and segments", first.wrong)  # fmt: skip

    def _tell(self, outcome: Outcome) -> None:
        said = f"{outcome.letter} {outcome.title}: {'FAILED' if outcome.wrong else 'equal'} in {outcome.seconds:.0f} s"
        if outcome.shown is not None:
            shown, results = outcome.shown, outcome.shown.results
            sums = results.sums
            said += (
                f"; consumed {results.consumed:,} = applied {sums['applied']:,} + duplicate {sums['duplicate']:,}"
                f" + late {sums['late']:,} + dead-lettered {sums['dead_letter']:,}; repeats {results.repeats:,}"
                f" ({results.resent} counts, {results.outdated} outdated checkpoints),"
                f" {len(results.findings)} findings, digest {results.digest[:12]}, left in {shown.leave_s:.1f} s"
            )
            said += "".join(f"\n    {line}" for line in shown.said)
        self._print(said, outcome.wrong)

    def _print(self, text: str, wrong: Sequence[str]) -> None:
        with self._say:
            console.print(f"[{time.monotonic() - self._began:5.0f} s] {text}", highlight=False, markup=False)
            for line in wrong:
                console.print(f"    ! {line}", style="red", highlight=False, markup=False)

    def _table(self, outcomes: list[Outcome]) -> None:
        table = Table(title=f"{EVENTS:,} events under faults, Apache Kafka, {os.cpu_count()} CPUs, seed {self._seed},"
                      f" {time.monotonic() - self._began:.0f} s in all", title_justify="left")  # fmt: skip
        columns = ("s", "consumed", "applied", "duplicate", "late", "dead-lettered", "repeats", "findings")
        for name in ("fault", *columns, "digest", "equal"):
            table.add_column(name, justify="right" if name in columns else "left")
        for outcome in outcomes:
            equal = "[red]NO[/]" if outcome.wrong else "[green]yes[/]"
            row = [f"{outcome.letter} {outcome.title}", f"{outcome.seconds:.0f}"]
            if outcome.shown is None:
                row += [""] * 8
            else:
                results = outcome.shown.results
                numbers = [results.consumed, *(results.sums[name] for name in ("applied", "duplicate", "late",
                           "dead_letter")), results.repeats]  # fmt: skip
                row += [*(f"{number:,}" for number in numbers), str(len(results.findings)), results.digest[:12]]
            table.add_row(*row, equal)
        console.print(table)
        console.print("In e and f the digest holds another accounting, in i another state of the detector that raises:"
                      " there all else was compared part by part.", highlight=False)  # fmt: skip


def backtested(path: Path) -> Results:
    """The pure reference, in a process of its own."""
    return of_backtest(settings_of(KNOBS), path)


def _end_at(seconds: float) -> None:
    """The bound that holds whatever hangs: children of ours end with us."""

    def end() -> None:
        console.print(f"not done after {seconds:g} s: ended", style="red")
        sys.stdout.flush()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=ORDER, help="letters of the faults to run")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**6)))
    parser.add_argument("--repeat", type=int, default=1, help="so often, each with the next seed; ends at a failure")
    parser.add_argument("--lanes", type=int, default=LANES, help="scenarios at a time")
    given = parser.parse_args(arguments)
    try:
        reason = available()
        if not reason:
            fetch()
    except TrustwatchError as error:
        reason = str(error)
    if reason:
        console.print(f"!!! NO REAL KAFKA, and this suite needs one: {reason}", style="bold red")
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in sorted(CACHE.glob("run-*"), key=lambda folder: folder.stat().st_mtime)[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
    _end_at((TOTAL_S + 8) * given.repeat)
    return 0 if all(Suite(given.seed + n, given.only, given.lanes).run() for n in range(given.repeat)) else 1
