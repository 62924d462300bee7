"""The plot of the detection bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench._rows import Row
from tests.bench._trustwatch import NAME
from tests.bench._tuning import ALLOWED

FLOOR: Final = 0.2
"""Fewer false alarms than this are drawn as so many: the axis is logarithmic."""
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b", "#777777")
MARKERS: Final = "svD^PXv"
OURS: Final = "#d62728"


def draw(rows: Sequence[Row], headlines: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Draw delay against false alarms, and below the delays themselves, for each of the main rows.

    Args:
        rows: all rows.
        headlines: kinds to show, with the limits of median and 90th percentile.
        path: of the PNG.
    """
    figure = Figure(figsize=(13.0, 10.0), layout="constrained", dpi=120)
    axes = figure.subplots(2, len(headlines), squeeze=False, sharey="row")
    for column, (name, limits) in enumerate(headlines.items()):
        row = next(each for each in rows if each.kind.name == name and each.is_main)
        _trade_off(axes[0, column], row, limits)
        _distribution(axes[1, column], row)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    figure.suptitle("Rate 0.30 → 0.24 after 10,000 events: how soon it is found, and how often there is a false alarm")
    figure.savefig(path)


def _trade_off(axes: Axes, row: Row, limits: tuple[float, float]) -> None:
    longest = float(row.change.within_n)
    for name, colour, marker in _styles(row):
        quiet, found = row.quiet[name], row.found[name]
        x = max(quiet.rate, FLOOR)
        median, p90 = found.median or longest, found.p90 or longest
        axes.errorbar(x, median, xerr=[[min(quiet.error, x - FLOOR / 2)], [quiet.error]],
                      yerr=[[0.0], [max(p90 - median, 0.0)]], fmt=marker, color=colour, capsize=3,
                      markersize=14 if name == NAME else 8, zorder=3 if name == NAME else 2, label=name)  # fmt: skip
    axes.axvline(ALLOWED, color="black", linewidth=0.8, linestyle=":")
    axes.axhline(limits[0], color=OURS, linewidth=0.8, linestyle=":")
    axes.axhline(limits[1], color=OURS, linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="false alarms per 100,000 events (± standard error)",
             ylabel="delay, events: median, bar up to the 90th percentile",
             xlim=(FLOOR / 1.3, 50.0), ylim=(200.0, 1.15 * longest),
             title=f"{row.kind.name} stream (limits: dotted of false alarms and median, dashed of p90)")  # fmt: skip
    axes.grid(visible=True, which="both", alpha=0.2)


def _distribution(axes: Axes, row: Row) -> None:
    for name, colour, _ in _styles(row):
        each = row.found[name].each
        delays = np.sort([delay for delay in each if delay is not None])
        share = np.arange(1, len(delays) + 1) / max(len(each), 1)
        axes.step(delays, share, where="post", color=colour, linewidth=2.6 if name == NAME else 1.3, label=name)
    axes.axhline(0.9, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlim=(50.0, float(row.change.within_n)), ylim=(0.0, 1.02), xlabel="events since the change",
             ylabel="share of the changes found", title=f"{row.kind.name} stream: delays")  # fmt: skip
    axes.grid(visible=True, which="both", alpha=0.2)


def _styles(row: Row) -> list[tuple[str, str, str]]:
    peers = [name for name in row.found if name != NAME]
    return [*zip(peers, COLOURS, MARKERS, strict=False), (NAME, OURS, "*")]
