"""What `make bench` found: table, limits, JSON and plot."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.bench._line_latency import Delays, Latency
from tests.bench._line_run import Run


class Peer(msgspec.Struct, frozen=True):
    """One peer: what it is called, whether it reads only the first events, and whether it has its own environment."""

    title: str
    slow: bool = False
    apart: bool = False


PEERS: Final = {
    "plain": Peer("(a) plain Faust agent, faust.Record", slow=True),
    "quix": Peer("(b) quixstreams", apart=True),
    "bytewax": Peer("(c) bytewax", apart=True),
    "bare": Peer("(d) bare limit: getmany + msgspec"),
}
OURS: Final = {
    "two": "trustwatch, ingest and worker",
    "one": "trustwatch, one process",
    "unsaved": "the first without checkpoints",
}
TITLES: Final = OURS | {name: peer.title for name, peer in PEERS.items()}
RATIOS: Final = (("two", "plain", 8.0), ("two", "quix", 1.5), ("two", "bare", 0.25), ("one", "quix", 1.0))
"""Way, peer, and how many times as fast the way has to be at least."""
CHECKPOINT_COST: Final = 0.05
P99_S: Final = 2.0


class Bench(msgspec.Struct):
    """All that was measured.

    Attributes:
        events: events of the workload.
        bytes_each: mean size of one.
        runs: way → its runs, in the order of the rounds.
        latency: delays at half load.
        cpus: processors of the machine.
    """

    events: int
    bytes_each: float
    runs: dict[str, list[Run]]
    latency: Latency | None = None
    cpus: int = msgspec.field(default_factory=lambda: os.cpu_count() or 0)

    def rate(self, way: str) -> float:
        """Median events per second; 0 if it was not measured."""
        return self.median(way, lambda run: run.rate)

    def median(self, way: str, of: Callable[[Run], float]) -> float:
        """Median of something over the runs of a way; 0 if there are none."""
        runs = self.runs.get(way, [])
        return statistics.median(map(of, runs)) if runs else 0.0

    def ratio(self, way: str, peer: str) -> float:
        """How many times as fast as a peer; 0 if either was not measured."""
        return self.rate(way) / self.rate(peer) if self.rate(peer) else 0.0

    def checkpoint_cost(self) -> float | None:
        """Share of the throughput that checkpoints take, up to all being judged; None if not measured."""
        if not self.runs.get("two") or not self.runs.get("unsaved"):
            return None

        def judged(run: Run) -> float:
            return run.events / run.seconds

        return 1 - self.median("two", judged) / self.median("unsaved", judged)


def limits(bench: Bench) -> list[str]:
    """A line for each limit: what it is, what was measured; `ok` first, or `MISSED`."""
    lines = []
    for way, peer, least in RATIOS:
        if bench.runs.get(way) and bench.runs.get(peer):
            ratio = bench.ratio(way, peer)
            lines.append(f"{_verdict(ratio >= least)} {OURS[way]}: {ratio:.2f} x {TITLES[peer]}, at least {least:g}")
    if (cost := bench.checkpoint_cost()) is not None:
        lines.append(f"{_verdict(cost <= CHECKPOINT_COST)} checkpoints take {cost:.1%} of the throughput,"
                     f" at most {CHECKPOINT_COST:.0%}")  # fmt: skip
    if bench.latency is not None:
        lines += _latency_limits(bench.latency)
    return lines


def _latency_limits(latency: Latency) -> list[str]:
    lines = []
    told = latency.metrics.get("watch")
    for name, delays in (("judged, by /metrics", told), ("counted, from outside", latency.counted)):
        if delays is None:
            lines.append(f"MISSED delay from produced to {name}: not measured")
        else:
            lines.append(f"{_verdict(delays.p99_s <= P99_S)} delay from produced to {name}:"
                         f" p99 {delays.p99_s:.2f} s, at most {P99_S:g}")  # fmt: skip
    return lines


def _verdict(holds: bool) -> str:
    return "ok    " if holds else "MISSED"


def write(bench: Bench, folder: Path) -> None:
    """Print the tables; write `bench.json` and `bench.png`."""
    console = Console(width=150)
    console.print(_table(bench))
    console.print(_stages(bench))
    if bench.latency is not None:
        console.print(_latency(bench.latency))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(bench), indent=1))
    draw(bench, folder / "bench.png")
    console.print(f"written: {folder / 'bench.json'}, {folder / 'bench.png'}")


def _table(bench: Bench) -> Table:
    title = f"{bench.events:,} Segment calls of {bench.bytes_each:.0f} bytes, {bench.cpus} CPUs"
    table = Table("way", "events/s", "of each round", "judged/s", "x (a)", "x (b)", "x (d)", "CPU µs/event",
                  "broker µs", "peak RSS MB", "steps", title=title)  # fmt: skip
    for way, runs in bench.runs.items():
        if not runs:
            table.add_row(TITLES[way], "not measured")
            continue
        ratios = [f"{bench.ratio(way, peer):.2f}" if bench.rate(peer) else "" for peer in ("plain", "quix", "bare")]
        judged = bench.median(way, lambda run: run.events / run.seconds)
        broker = bench.median(way, lambda run: run.broker_cpu_s / run.events * 1e6)
        title = TITLES[way] + (f" ({runs[0].events:,} events)" if runs[0].events != bench.events else "")
        table.add_row(
            title, f"{bench.rate(way):,.0f}", " ".join(f"{run.rate:,.0f}" for run in runs), f"{judged:,.0f}", *ratios,
            f"{bench.median(way, lambda run: run.cpu_us):.1f}", f"{broker:.1f}", f"{max(r.rss_mb for r in runs):,.0f}",
            f"{runs[-1].steps:,}" if runs[-1].steps else "",
        )  # fmt: skip
    return table


def _stages(bench: Bench) -> Table:
    names = sorted({stage for way in OURS for run in bench.runs.get(way, []) for stage in run.stages})
    table = Table("CPU µs/event by stage", *names, title="the metrics' own account")
    for way in OURS:
        if bench.runs.get(way):
            each = [bench.median(way, lambda run, s=name: run.stages.get(s, 0.0) / run.events) for name in names]  # type: ignore[misc]
            table.add_row(OURS[way], *(f"{seconds * 1e6:.2f}" for seconds in each))
    return table


def _latency(latency: Latency) -> Table:
    table = Table("from written to Kafka until …", "p50 s", "p99 s", "seen",
                  title=f"delay at {latency.rate:,.0f} events/s, half load; {latency.findings} findings")  # fmt: skip
    rows: list[tuple[str, Delays | None]] = [
        ("counts in the hands of a consumer, from outside", latency.counted),
        ("covered by a checkpoint of watch, from outside (no limit)", latency.durable),
        *((f"/metrics, stage {stage}", delays) for stage, delays in latency.metrics.items()),
    ]
    for name, delays in rows:
        if delays is None:
            table.add_row(name, "not measured", "", "0")
        else:
            table.add_row(name, f"{delays.p50_s:.3f}", f"{delays.p99_s:.3f}", f"{delays.count:,}")
    return table


def draw(bench: Bench, path: Path) -> None:
    """Draw throughput and CPU time of all ways; a dot is a round."""
    ways = [way for way, runs in bench.runs.items() if runs]
    figure = Figure(figsize=(12.0, 5.0), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    _bars(left, "events per second, end to end", {way: [run.rate for run in bench.runs[way]] for way in ways})
    _bars(right, "CPU µs per event, without the broker", {way: [run.cpu_us for run in bench.runs[way]] for way in ways})
    left.set_yticklabels([TITLES[way] for way in ways])
    right.set_yticklabels([])
    figure.suptitle(f"{bench.events:,} Segment calls, raw topic to findings: median, and each round")
    figure.savefig(path)


def _bars(axes: Axes, title: str, each: dict[str, list[float]]) -> None:
    for row, (way, values) in enumerate(each.items()):
        middle = statistics.median(values)
        axes.barh(row, middle, color="#d62728" if way in OURS else "#0072b2", alpha=0.6)
        axes.plot(values, [row] * len(values), "k.", markersize=4)
        text = f" {middle:,.0f}" if middle >= 100 else f" {middle:.1f}"
        axes.text(middle, row - 0.3, text, va="center", fontsize=8)
    axes.set(xscale="log", title=title, yticks=range(len(each)))
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x", which="both", alpha=0.2)
