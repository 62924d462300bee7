"""How fast the line is, beside its peers in the same run: `make bench`, or `python -m tests.bench.line [--events N]`.

All read the same Segment calls on a real Kafka, in turns, each in processes of its own. Ours are the real worker and
ingest, from raw messages to judged and acknowledged; the peers of `tests.bench.peers` run the same pure stages per
event (but the bare limit, which only decodes). The joining of groups is left out of all.

Exit code 1 if a limit is missed. Writes `report/bench.json` and `report/bench.png`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from deploy.kafka import Broker, available
from streams._process import ManagedProcess, wait_until
from streams.topics import Topics
from tests.bench._line_latency import Latency, measure_latency
from tests.bench._line_load import RAW_PARTITIONS, Load, load, settings_of
from tests.bench._line_ours import Installation, fill, run_ours
from tests.bench._line_report import PEERS, Bench, limits, write
from tests.bench._line_run import BROKER_PID, Run, said

ROOT: Final = Path(__file__).resolve().parents[2]
PEERS_PYTHON: Final = ROOT / ".cache" / "bench" / "peers" / "bin" / "python"
"""Quixstreams needs older versions of what we use, too: it has an environment of its own (`make bench` makes it)."""
PEER_S: Final = 900.0
TWO: Final = (("ingest",), ("worker", "--no-ingest"))
ONE: Final = (("worker",),)
NEVER_S: Final = 1e6


class Contest:
    """All ways on one broker.

    Args:
        broker: a real Kafka that runs.
        work: what all read.
        prefix: what those read who are slow.
        folder: takes logs.
    """

    def __init__(self, broker: Broker, work: Load, prefix: Load, folder: Path) -> None:
        self._broker, self._work, self._prefix, self._folder = broker, work, prefix, folder
        self._turns = 0
        self._topics = {"all": ("bench-raw", work), "prefix": ("bench-raw-prefix", prefix)}
        for topic, content in self._topics.values():
            self._fill(topic, content)

    def _fill(self, topic: str, content: Load) -> None:
        settings = settings_of(
            kafka={"bootstrap_servers": self._broker.bootstrap},
            topics={"raw": [{"name": topic, "format": "segment"}], "raw_partitions": RAW_PARTITIONS},
        )
        with Topics(settings) as topics:
            topics.create()
        fill(settings, topic, content)

    def measure(self, way: str) -> Run | None:
        """One run of one way; None, with a line that says why, if a peer cannot be measured."""
        if way in PEERS:
            return self._peer(way)
        self._turns += 1
        never = {"interval_s": NEVER_S, "max_interval_s": NEVER_S}
        knobs = {"checkpoints": never} if way == "unsaved" else {}
        installation = Installation(self._broker.bootstrap, f"bench-{way}-{self._turns}", **knobs)
        commands = ONE if way == "one" else TWO
        try:
            return run_ours(
                installation, commands, self._work, self._folder, self._broker.pid, durable=way != "unsaved"
            )
        finally:
            installation.remove()

    def latency(self, rate: float) -> Latency:
        """Delays at so many events a second."""
        installation = Installation(self._broker.bootstrap, "bench-latency")
        try:
            return measure_latency(installation, TWO, self._work, rate, self._folder)
        finally:
            installation.remove()

    def _peer(self, name: str) -> Run | None:
        self._turns += 1
        topic, content = self._topics["prefix" if PEERS[name].slow else "all"]
        log = self._folder / f"{name}-{self._turns}.log"
        command = [_python(name), "-m", "tests.bench.peers", name, self._broker.bootstrap, topic,
                   str(len(content.values))]  # fmt: skip
        own = {"BENCH_DIR": str(self._folder), BROKER_PID: str(self._broker.pid or 0), "PYTHONPATH": str(ROOT)}
        peer = ManagedProcess(name, command, log, env=os.environ | own)
        peer.start(lambda: True, 10.0)
        try:
            wait_until(lambda: not peer.running, PEER_S)
        finally:
            peer.stop()
        run = said(log.read_text(errors="replace"))
        if run is None:
            print(f"{name}: no measurement. Its log ends:\n{peer.log_tail()}", file=sys.stderr)
        elif run.applied not in (0, run.events):
            print(f"{name}: applied {run.applied} of {run.events} events:\n{peer.log_tail()}", file=sys.stderr)
        return run


def _python(peer: str) -> str:
    return str(PEERS_PYTHON) if PEERS[peer].apart else sys.executable


def measure(contest: Contest, ways: Sequence[str], rounds: int) -> dict[str, list[Run]]:
    """All ways in turns; each second round in the other order, so that none always follows the same."""
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    failed: set[str] = set()
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            if way in failed:
                continue
            began = time.monotonic()
            run = contest.measure(way)
            if run is None:
                failed.add(way)
                continue
            runs[way].append(run)
            print(f"round {turn + 1}: {way:8} {run.rate:10,.0f} events/s {run.cpu_us:7.1f} µs CPU"
                  f" ({time.monotonic() - began:.0f} s in all)", file=sys.stderr, flush=True)  # fmt: skip
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.line", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="each way is measured so often, in turns")
    parser.add_argument("--prefix", type=int, default=100_000, help="events that slow peers read")
    parser.add_argument("--ways", default="two,one,unsaved,plain,quix,bytewax,bare", help="which, with commas")
    parser.add_argument(
        "--latency-rate", type=float, help="events/s of the latency run; default: half of two processes'"
    )
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "report")
    given = parser.parse_args(arguments)
    if not Path("/proc/self/stat").exists():
        raise SystemExit("CPU and memory of the processes are read from /proc: this bench needs Linux")
    if reason := available():
        raise SystemExit(f"no real Kafka here, and others say little: {reason}")
    bench = run(given)
    write(bench, given.out)
    missed = limits(bench)
    for line in missed:
        print(line)
    return int(any(not line.startswith("ok") for line in missed))


def run(given: argparse.Namespace) -> Bench:
    """Measure all that the command line asks for."""
    work = load(given.events)
    latency = None
    with TemporaryDirectory(prefix="trustwatch-bench-") as name, Broker() as broker:
        contest = Contest(broker, work, work.first(given.prefix), Path(name))
        runs = measure(contest, given.ways.split(","), given.rounds)
        bench = Bench(len(work.values), sum(map(len, work.values)) / len(work.values), runs)
        rate = given.latency_rate or bench.rate("two") / 2
        if rate and not given.no_latency:
            latency = contest.latency(rate)
    bench.latency = latency
    return bench


if __name__ == "__main__":
    sys.exit(main())
