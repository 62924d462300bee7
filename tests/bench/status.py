"""What people who look at the status page cost the line, and how soon they are answered while it runs at full rate.

    python -m tests.bench.status [--events 200000] [--rounds 4] [--viewers 3]

Real processes on a real Kafka, as `make bench`: the raw topic is filled while the worker is frozen, then it is let go
until all is judged, by turns with nobody looking and with viewers who ask for everything that the page asks for, as
often as it does, and for the page of a finding that does not exist. The worker and its ingest are one process, so the
page shares its interpreter with the whole line. The last lines are compared with the limits.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from deploy.kafka import Broker
from streams._process import free_port
from streams.frames import encode_json
from tests.bench._line_load import Load, load
from tests.bench._line_ours import Installation, Processes, _wait_counted, _wait_judged

PATHS: Final = ("/api/findings", "/api/segments", "/api/leads", "/api/data", "/api/pipeline",
                "/api/segments?stage=evaluate", "/api/findings/nobody", "/")  # fmt: skip
EVERY_S: Final = 3.0
"""As the page asks."""
LIMIT_MS: Final = 50.0
LIMIT_SLOWER: Final = 0.02
REPORT: Final = Path(__file__).resolve().parents[2] / "report"


class Turn(msgspec.Struct):
    """One run.

    Attributes:
        watched: whether somebody looked.
        seconds: until all was judged.
        cpu_s: of the worker.
        answers_ms: how long each answer took.
    """

    watched: bool
    seconds: float
    cpu_s: float
    answers_ms: list[float] = []


def viewer(port: int, number: int, viewers: int, stop: Any, took: Any) -> None:
    """Look at the page, in a process of its own; viewers are spread over the time between two looks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    etags: dict[str, str] = {}
    stop.wait(EVERY_S * number / viewers)
    while not stop.is_set():
        for path in PATHS:
            headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": etags[path]} if path in etags else {})
            began = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            took.put((time.perf_counter() - began) * 1000)
            if answer.status not in (200, 304, 404):
                raise SystemExit(f"{path}: {answer.status}")
            etags[path] = answer.getheader("ETag") or ""
        stop.wait(EVERY_S)
    connection.close()


def run(bootstrap: str, name: str, work: Load, folder: Path, viewers: int) -> Turn:
    """Measure one run, with so many viewers."""
    port = free_port()
    installation = Installation(bootstrap, name, web={"port": port})
    topics = installation.settings.topics
    spawn = multiprocessing.get_context("spawn")
    stop, took = spawn.Event(), spawn.Queue()
    looking = [spawn.Process(target=viewer, args=(port, i, viewers, stop, took)) for i in range(viewers)]
    with (
        closing(installation.consumer(topics.counts, topics.counts_partitions)) as counts,
        Processes(installation, [("worker",)], folder) as ours,
    ):
        ours.freeze()
        try:
            installation.fill(work)
            before = ours.cpu_s()
        finally:
            ours.thaw()
        began = time.monotonic()
        for one in looking:
            one.start()
        _wait_counted(counts, topics.events_partitions, work.until, ours)
        _wait_judged(ours, topics.counts_partitions, work.until)
        turn = Turn(viewers > 0, time.monotonic() - began, ours.cpu_s() - before)
        stop.set()
        while any(one.is_alive() for one in looking) or not took.empty():
            time.sleep(0.01)
            while not took.empty():
                turn.answers_ms.append(took.get())
    if failed := [one.exitcode for one in looking if one.exitcode]:
        raise SystemExit(f"a viewer failed: exit codes {failed}")
    installation.remove()
    return turn


def told(turns: list[Turn], events: int) -> tuple[list[str], bool]:
    """The report, and whether the limits hold."""
    lines = []
    for watched in (False, True):
        rates = [events / turn.seconds for turn in turns if turn.watched is watched]
        cpu = [1e6 * turn.cpu_s / events for turn in turns if turn.watched is watched]
        who = "with viewers" if watched else "nobody looks"
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        lines.append(
            f"{who}: {statistics.median(rates):,.0f} events/s ({spread}), {statistics.median(cpu):.1f} µs CPU an event"
        )
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    by = {}
    for what in ("seconds", "cpu_s"):
        ratios = []
        for pair in pairs:
            quiet, watched_turn = sorted(pair, key=lambda turn: turn.watched)
            ratios.append(getattr(watched_turn, what) / getattr(quiet, what) - 1)
        by[what] = statistics.median(ratios)
        each = ", ".join(f"{100 * one:+.1f}" for one in ratios)
        lines.append(f"{what}: {100 * by[what]:+.1f} % with viewers (median of pairs: {each})")
    answers = sorted(ms for turn in turns for ms in turn.answers_ms)
    at = {share: answers[min(len(answers) - 1, int(share * len(answers)))] for share in (0.5, 0.95, 0.99)}
    lines.append(f"{len(answers)} answers: median {at[0.5]:.1f} ms, 95 % {at[0.95]:.1f}, 99 % {at[0.99]:.1f},"
                 f" worst {answers[-1]:.1f}")  # fmt: skip
    fine = at[0.95] < LIMIT_MS and by["cpu_s"] <= LIMIT_SLOWER and by["seconds"] <= LIMIT_SLOWER
    lines.append(f"limits: 95 % of answers within {LIMIT_MS:.0f} ms, {100 * LIMIT_SLOWER:.0f} % slower at most:"
                 f" {'kept' if fine else 'NOT KEPT'}")  # fmt: skip
    return lines, fine


def main() -> int:
    """Print the report and write it to `report/status.json`; 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=4, help="pairs of runs")
    parser.add_argument("--viewers", type=int, default=3)
    given = parser.parse_args()
    work, turns = load(given.events), list[Turn]()
    with tempfile.TemporaryDirectory(prefix="trustwatch-bench-") as folder, Broker() as broker:
        run(broker.bootstrap, f"warm{os.getpid()}", work.first(20_000), Path(folder), 0)
        for number in range(given.rounds):
            order = (0, given.viewers) if number % 2 == 0 else (given.viewers, 0)  # neither always goes first
            for viewers in order:
                turns.append(run(broker.bootstrap, f"s{os.getpid()}n{len(turns)}", work, Path(folder), viewers))
                print(f"{viewers} viewers: {turns[-1].seconds:.1f} s, {turns[-1].cpu_s:.1f} s of CPU", file=sys.stderr)
    lines, fine = told(turns, given.events)
    print("\n".join(lines))
    REPORT.mkdir(exist_ok=True)
    (REPORT / "status.json").write_bytes(encode_json({"events": given.events, "turns": turns, "report": lines}))
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
