"""The picture of a finding, drawn with matplotlib (extra `explain`) from what `streams.explain` recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from itertools import pairwise
from math import inf, isnan, nan
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import Any, Final

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from streams.explain import DAY_S, ENOUGH_N, Point, Series, amount, epoch, facts, lasting
from streams.findings import Finding

SIZE_IN: Final = (14.0, 9.0)
DPI: Final = 110
BLUE, GREY, ORANGE, RED, GREEN, AMBER = "#0072b2", "#6b6b6b", "#d55e00", "#c1121f", "#00815f", "#b8860b"
DASHED, DOTTED = (0, (6, 2)), (0, (1, 1.2))
GAP_STEPS: Final = 3.0
"""A line is not drawn over a gap of more steps than this."""
FEW_N: Final = 20.0
"""A step of fewer trials (where most have more) does not stretch the axis; a triangle at the edge stands for it."""
CUT_AT: Final = 4.0
"""The axis of the evidence ends at this multiple of the threshold."""
FROM_ZERO: Final = 0.4
"""The axis of a rate begins at zero if its lowest value is below this share of the highest."""
TITLE_CHARS: Final = 124
NAME_CHARS, VALUE_CHARS, FACT_LINES = 13, 29, 44
PLAIN: Final[dict[str, Any]] = {"parse_math": False}
"""For text that comes from data, such as labels: a `$` in it begins no formula."""


def save(finding: Finding, series: Series, folder: Path, others: Sequence[Finding] = ()) -> Path:
    """Write the picture of a finding as a PNG, and the folder if it is not there; returns its path.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.detector}-{finding.id}.png"
    with style.context("default"):  # a matplotlibrc of the user's own may leave no room, or ask for LaTeX
        figure = draw(finding, series, others)
        figure.savefig(path, metadata={"Title": finding.id, "Description": finding.summary})
    return path


def draw(finding: Finding, series: Series, others: Sequence[Finding] = ()) -> Figure:
    """Draw a finding: rate and baseline, evidence, volume, and beside them what else is known.

    What is drawn has a `gid`: `observed`, `expected`, `after`; `statistic`, `threshold`, `warn`, `back`, `back_at`;
    `volume`; and in every panel `onset`, `onset-interval`, `detected`, `resolved`.

    Args:
        finding: what was found.
        series: what its stream saw and made of it.
        others: findings of the same run: one may have taken its place, or it that of another.
    """
    figure = Figure(figsize=SIZE_IN, dpi=DPI, facecolor="white")
    grid = figure.add_gridspec(3, 1, height_ratios=(3.0, 1.7, 0.9), left=0.06, right=0.755, top=0.875, bottom=0.06,
                               hspace=0.26)  # fmt: skip
    volume = figure.add_subplot(grid[2])
    rate, evidence = (figure.add_subplot(grid[i], sharex=volume) for i in range(2))
    panels = (rate, evidence, volume)
    for axes in panels:
        _mark(axes, finding, named=axes is rate)
    _rate(rate, finding, series)
    _evidence(evidence, series)
    _volume(volume, series)
    for axes in panels:
        _style(axes)
        axes.tick_params(labelbottom=axes is volume)
    _time_axis(volume, series)
    figure.suptitle(_title(finding.summary), x=0.06, y=0.945, ha="left", va="center",
                    fontsize=12, fontweight="bold", **PLAIN)  # fmt: skip
    _tell(figure, facts(finding, others))
    return figure


# ── the three panels ──────────────────────────────────────────────────────────────────────────────────────────────────


def _rate(axes: Axes, finding: Finding, series: Series) -> None:
    points = _with_gaps(series.points, series.step_s)
    x = [_at(point.ts + series.step_s / 2) for point in points]
    low, high = _limits(points, finding)
    axes.fill_between(x, _column(points, "low"), _column(points, "high"), color=GREY, alpha=0.28, linewidth=0)
    axes.plot(x, _column(points, "expected"), color=GREY, linewidth=1.6, linestyle=(0, (4, 2)), gid="expected",
              label="baseline at that time")  # fmt: skip
    axes.fill_between(x, _column(points, "rate_low"), _column(points, "rate_high"), color=BLUE, alpha=0.13, linewidth=0)
    rate = _column(points, "rate")
    axes.plot(x, rate, color=BLUE, linewidth=0.9, alpha=0.45, gid="observed")
    sizes = [3.0 + 19.0 * min(point.n / ENOUGH_N, 1.0) for point in points]
    observed = "since the onset, as told then" if series.told else f"observed, per {lasting(series.step_s)}"
    axes.scatter(x, rate, s=sizes, color=BLUE, linewidth=0, label=observed)
    for edge, marker, sign in ((high, "^", 1.0), (low, "v", -1.0)):
        out = [at for at, y in zip(x, rate, strict=True) if sign * (y - edge) > 0.0]
        axes.plot(out, [edge] * len(out), marker, color=BLUE, markersize=4, fillstyle="none", clip_on=False)
    _after(axes, finding, series)
    axes.set_ylim(low, high)
    axes.set_ylabel(finding.unit)
    if finding.unit == "ratio":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        axes.set_ylabel("level" if series.told else "rate")
    _learning(axes, series)


def _after(axes: Axes, finding: Finding, series: Series) -> None:
    """The mean since the onset, as the finding tells it, with its interval."""
    span = [_at(epoch(finding.onset)), _at(epoch(finding.resolved_at) if finding.resolved_at else series.until)]
    low, high = finding.evidence.get("effect_low"), finding.evidence.get("effect_high")
    if low is not None and high is not None:
        axes.fill_between(span, low, high, color=ORANGE, alpha=0.2, linewidth=0)
    axes.plot(span, [finding.after] * 2, color=ORANGE, linewidth=2.2, solid_capstyle="butt", gid="after",
              label=f"mean since the onset: {amount(finding.after, finding.unit)}")  # fmt: skip


def _evidence(axes: Axes, series: Series) -> None:
    told = series.evidence
    x = [_at(each.ts + series.narrow_s) for each in told]
    statistic, top = _statistic(series)
    for name, colour, line, label in (
        ("statistic", BLUE, "-", statistic),
        ("threshold", RED, "-", "alerts at {:.1f}"),
        ("warn", AMBER, DOTTED, "warns at {:.1f}"),
        ("back", GREEN, "-", "evidence that the old level is back"),
        ("back_at", GREEN, DOTTED, "ends the alert at {:.1f}"),
    ):
        values = _column(told, name)
        known = [value for value in values if not isnan(value)]
        if known:
            axes.plot(x, values, color=colour, linestyle=line, linewidth=1.3, gid=name, label=label.format(known[-1]))
    axes.set_ylabel("score, 0 to 1" if series.told else "evidence, nats")
    axes.set_ylim(0.0, top)


def _statistic(series: Series) -> tuple[str, float]:
    """How the statistic is called in the legend, and how far the axis goes up."""
    peak = max((each.statistic or 0.0 for each in series.evidence), default=0.0)
    limit = max((each.threshold or each.statistic or 0.0 for each in series.evidence), default=0.0)
    if series.told:
        return "score of the detector (of any kind)", 1.1 * max(peak, 0.1)
    name = "evidence for a change"
    if len({each.statistic for each in series.evidence if each.back is not None}) == 1:
        name += " (kept while it alerts)"
    most = CUT_AT * limit  # far above its threshold it would press all else to the ground
    if peak > most:
        return f"{name} (up to {peak:.0f})", most
    backs = (value or 0.0 for each in series.evidence for value in (each.back, each.back_at))
    return name, 1.12 * max(peak, limit, *backs, 1.0)


def _volume(axes: Axes, series: Series) -> None:
    width = series.step_s / DAY_S
    x = [_at(point.ts + series.step_s / 2) for point in series.points]
    label = "observations since the onset" if series.told else f"observations per {lasting(series.step_s)}"
    axes.bar(x, [point.n for point in series.points], width=0.92 * width, color=GREY, alpha=0.55, linewidth=0,
             label=label, gid="volume")  # fmt: skip
    axes.set_ylabel("observations")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _mark(axes: Axes, finding: Finding, *, named: bool) -> None:
    """The moments of a finding, at the same place in every panel; the legend of one names them."""
    if finding.onset_from and finding.onset_to:
        axes.axvspan(_at(epoch(finding.onset_from)), _at(epoch(finding.onset_to)), color=ORANGE, alpha=0.13,
                     linewidth=0, gid="onset-interval")  # fmt: skip
    for name, time, colour, line in (
        ("onset", finding.onset, ORANGE, "-"),
        ("detected", finding.detected_at, RED, DASHED),
        ("resolved", finding.resolved_at, GREEN, DASHED),
    ):
        if time is not None:
            axes.axvline(_at(epoch(time)), color=colour, linewidth=1.4, linestyle=line, gid=name,
                         label=name if named else None)  # fmt: skip


def _learning(axes: Axes, series: Series) -> None:
    """Say where there is no baseline yet."""
    begin = next((point.ts for point in series.points), None)
    first = next((point.ts for point in series.points if point.expected is not None), None)
    if series.told or begin is None or first is None or first == begin:
        return
    axes.axvspan(_at(begin), _at(first), color=GREY, alpha=0.08, linewidth=0, gid="learning")
    axes.text(_at(begin), 0.98, " learning", transform=axes.get_xaxis_transform(), ha="left", va="top", fontsize=8.5,
              color=GREY)  # fmt: skip


# ── frame, time, words ────────────────────────────────────────────────────────────────────────────────────────────────


def _title(sentence: str) -> str:
    """The sentence in lines of about the same length."""
    lines = len(wrap(sentence, TITLE_CHARS))
    return "\n".join(wrap(sentence, min(TITLE_CHARS, len(sentence) // max(lines, 1) + 15)))


def _style(axes: Axes) -> None:
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")
    axes.tick_params(colors="#444444", labelsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=7, frameon=False, fontsize=8.5,
                    borderaxespad=0.2, handlelength=1.8, columnspacing=1.4)  # fmt: skip


def _time_axis(axes: Axes, series: Series) -> None:
    left = max(series.since, min((point.ts for point in series.points), default=series.since))
    room = 0.01 * (series.until - left)
    axes.set_xlim(_at(left - room), _at(series.until + room))
    locator = AutoDateLocator(minticks=5, maxticks=12, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes.set_xlabel("event time, UTC; shaded: 95 % intervals", fontsize=9)


def _tell(figure: Figure, told: Sequence[tuple[str, str]]) -> None:
    """The facts, in two columns on the right."""
    lines: list[tuple[str, str]] = []
    for name, value in told:
        names, values = wrap(name, NAME_CHARS) or [""], wrap(value, VALUE_CHARS) or [""]
        rows = max(len(names), len(values))
        lines += zip(names + [""] * (rows - len(names)), values + [""] * (rows - len(values)), strict=True)
    lines = [line for line, after in pairwise([*lines, ("", "")]) if any(line) or line != after]
    if len(lines) > FACT_LINES:
        lines = [*lines[: FACT_LINES - 1], ("", "…")]
    y = 0.875
    for name, value in lines:
        figure.text(0.771, y, name, fontsize=9, color=GREY, va="top", **PLAIN)
        figure.text(0.842, y, value, fontsize=9, color="#1a1a1a", va="top", **PLAIN)
        y -= 0.019 if name or value else 0.009


def _limits(points: Sequence[Point], finding: Finding) -> tuple[float, float]:
    """Ends of the axis of rates; intervals of few data may reach beyond."""
    few = min(FEW_N, median([point.n for point in points if point.n] or [0.0]))
    many = [point.rate for point in points if point.rate is not None and point.n >= few]
    expected = [value for point in points for value in (point.low, point.high) if value is not None]
    get = finding.evidence.get
    shown = [*many, *expected, finding.before, finding.after]
    shown += [value for name in ("effect_low", "effect_high") if (value := get(name)) is not None]
    low, high = min(shown), max(shown)
    if finding.unit == "ratio" and low < FROM_ZERO * high:
        low = 0.0
    room = 0.08 * (high - low or abs(high) or 1.0)
    least, most = (-0.02 * high, 1.02) if finding.unit == "ratio" else (-inf, inf)
    return max(low - room, least), min(high + room, most)


def _with_gaps(points: Sequence[Point], step_s: float) -> list[Point]:
    """The points, with an empty one in every long gap."""
    whole = list(points[:1])
    for before, point in pairwise(points):
        if point.ts - before.ts > GAP_STEPS * step_s:
            whole.append(Point(before.ts + step_s, 0.0))
        whole.append(point)
    return whole


def _column(steps: Sequence[Any], name: str) -> list[float]:
    return [nan if (value := getattr(each, name)) is None else value for each in steps]


def _at(seconds: float) -> float:
    """Place on the axis: matplotlib counts days since 1970."""
    return seconds / DAY_S
