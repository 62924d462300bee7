"""Panels of a dashboard as matplotlib draws them: what `dashboards.draw` puts on the page."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dashboards._panels import COLUMNS, Json, filled
from dashboards.draw import Prometheus, Series, Span

COLUMN_IN: Final = 0.72
ROW_IN: Final = 0.36
HEAD_IN: Final = 0.55
GAP_IN: Final = 0.05
INK, FAINT, PAPER, CARD = "#24292e", "#8a919c", "#eef0f3", "#ffffff"
PALETTE: Final = (
    "#3274d9", "#56a64b", "#f2a900", "#e02f44", "#8f3bb8", "#ff780a", "#1f9bcf", "#7a7f87", "#37872d", "#c4162a",
    "#a352cc", "#b88a00",
)  # fmt: skip
COLORS: Final = {
    "green": "#37872d", "red": "#c4162a", "orange": "#e5740a", "yellow": "#b88a00", "blue": "#1f60c4",
    "light-blue": "#8ab8ff", "dark-red": "#ad0317", "purple": "#8f3bb8", "text": INK, "transparent": "#ffffff00",
}  # fmt: skip
SIZES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
BYTES: Final = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
TIMES: Final = ((31_557_600.0, "years"), (86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


class Page:
    """What all panels of a picture share: who is asked, for which time range, with which variables."""

    def __init__(self, board: Json, prometheus: Prometheus, span: Span, values: Mapping[str, str]) -> None:
        self.board, self.prometheus, self.span, self.values = board, prometheus, span, values
        self.marks = [mark for each in board["annotations"]["list"] for mark in self._marks(each)]

    def ask(self, target: Json, *, instant: bool | None = None) -> list[tuple[str, Series]]:
        """Answers to a query, with their legends."""
        expr = filled(target["expr"], self.values)
        now = target["instant"] if instant is None else instant
        found = self.prometheus.now(expr, self.span.end) if now else self.prometheus.over(expr, self.span)
        return [(series.named(filled(target["legendFormat"], self.values)), series) for series in found]

    def _marks(self, annotation: Json) -> list[tuple[float, str]]:
        """Moments at which an annotation begins, and its colour."""
        if "expr" not in annotation or annotation["useValueForTime"]:
            return []
        found = self.prometheus.over(filled(annotation["expr"], self.values), self.span)
        first = self.span.start + 2 * self.span.step_s  # what was there when the range began is no news
        return [(each.points[0][0], COLORS[annotation["iconColor"]]) for each in found if each.points[0][0] > first]


def draw(
    board: Json, prometheus: Prometheus, span: Span, values: Mapping[str, str], out: Path, lines: int | None = None
) -> None:
    """Draw a dashboard.

    Args:
        board: its JSON model.
        prometheus: where the data come from.
        span: the time range.
        values: variable → value.
        out: PNG to write.
        lines: grid rows to draw, from the top; none: all.
    """
    page = Page(board, prometheus, span, values)
    panels = [panel for panel in board["panels"] if lines is None or _bottom(panel) <= lines]
    height_in = HEAD_IN + ROW_IN * max(map(_bottom, panels))
    figure = plt.figure(figsize=(COLUMN_IN * COLUMNS, height_in), facecolor=PAPER)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": INK, "text.parse_math": False}):
        _head(figure, page, height_in)
        for panel in panels:
            _place(figure, page, panel, height_in)
        figure.savefig(out, dpi=100, facecolor=PAPER)
    plt.close(figure)


def _bottom(panel: Json) -> int:
    place = panel["gridPos"]
    return int(place["y"] + place["h"])


def _head(figure: Figure, page: Page, height_in: float) -> None:
    title, about = page.board["title"], page.board["description"]
    shown = [f"{name}: {value}" for name, value in page.values.items() if not name.startswith("__") and value
             and value not in (".+", ".*")]  # fmt: skip
    start, end = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (page.span.start, page.span.end))
    y = 1 - 0.2 / height_in
    figure.text(0.006, y, title, size=14, weight="bold", va="center")
    figure.text(0.006, y - 0.2 / height_in, about, size=8, color=FAINT, va="center")
    where = "   ".join([*shown, f"{start} to {end} UTC"])
    figure.text(0.994, y, where, size=8, color=FAINT, ha="right", va="center")


def _place(figure: Figure, page: Page, panel: Json, height_in: float) -> None:
    """Put a panel where the grid says, with its title, and have it drawn."""
    grid, width_in = panel["gridPos"], COLUMN_IN * COLUMNS
    left, top = grid["x"] * COLUMN_IN + GAP_IN, HEAD_IN + grid["y"] * ROW_IN + GAP_IN
    wide, high = grid["w"] * COLUMN_IN - 2 * GAP_IN, grid["h"] * ROW_IN - 2 * GAP_IN
    box = (left / width_in, 1 - (top + high) / height_in, wide / width_in, high / height_in)
    if panel["type"] == "row":
        figure.text(box[0], box[1] + box[3] / 2, f"▾  {panel['title']}", size=9.5, weight="bold", va="center")
        return
    figure.patches.append(
        Rectangle(box[:2], *box[2:], transform=figure.transFigure, facecolor=CARD, edgecolor="#d5d9df", zorder=-1)
    )
    figure.text(box[0] + 0.08 / width_in, box[1] + box[3] - 0.15 / height_in,
                textwrap.shorten(panel["title"], int(wide * 14), placeholder="…"), size=8.5, weight="bold",
                va="center")  # fmt: skip
    inside = (box[0] + 0.08 / width_in, box[1] + 0.07 / height_in, box[2] - 0.16 / width_in, box[3] - 0.36 / height_in)
    axes = figure.add_axes(inside)
    axes.set_facecolor("none")
    for side in axes.spines.values():
        side.set_visible(False)
    _KINDS[panel["type"]](axes, page, panel)


def _nothing(axes: Axes, panel: Json) -> None:
    axes.set_axis_off()
    text = textwrap.fill(panel["fieldConfig"]["defaults"]["noValue"], min(34, 6 * panel["gridPos"]["w"]))
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT, size=9)


# ── kinds of panels ───────────────────────────────────────────────────────────────────────────────────────────────────


def _stat(axes: Axes, page: Page, panel: Json) -> None:
    found = [(name, each) for target in panel["targets"] for name, each in page.ask(target)]
    lively = [(name, each) for name, each in found if any(map(math.isfinite, _values(each)))]
    if panel["options"]["textMode"] == "name":  # as of now: what is over by now is not told
        lively = [(name, each) for target in panel["targets"] for name, each in page.ask(target, instant=True)]
    if not lively:
        _nothing(axes, panel)
        return
    name, series = lively[0]
    defaults = panel["fieldConfig"]["defaults"]
    value = next(each for each in reversed(_values(series)) if math.isfinite(each))
    color = color_of(value, defaults["thresholds"])
    if panel["options"]["graphMode"] == "area" and len(series.points) > 1:
        shaded = axes.inset_axes((0.0, 0.0, 1.0, 0.42))
        shaded.set_axis_off()
        shaded.fill_between([at for at, _ in series.points], _values(series), color=color, alpha=0.13, linewidth=0)
        shaded.plot([at for at, _ in series.points], _values(series), color=color, linewidth=0.8)
        shaded.set_ylim(bottom=min(0.0, *_values(series)), top=max(*_values(series), 1e-9) * 1.1)
        shaded.set_xlim(page.span.start, page.span.end)
    axes.set_axis_off()
    text = name if panel["options"]["textMode"] == "name" else shown(value, defaults["unit"], defaults.get("decimals"))
    wide_in = panel["gridPos"]["w"] * COLUMN_IN
    size = min(22.0, wide_in * 105 / max(len(text), 1))
    axes.text(0.5, 0.62, text, transform=axes.transAxes, ha="center", va="center", size=size, color=color,
              weight="bold")  # fmt: skip


def _trend(axes: Axes, page: Page, panel: Json) -> None:
    found = [(name, each) for target in panel["targets"] for name, each in page.ask(target)]
    if not found:
        _nothing(axes, panel)
        return
    custom, defaults = panel["fieldConfig"]["defaults"]["custom"], panel["fieldConfig"]["defaults"]
    _frame(axes, page, defaults)
    if custom["stacking"]["mode"] == "normal":
        _stacked(axes, page, panel, found)
    else:
        for i, (name, series) in enumerate(found):
            _line(axes, panel, name, series, PALETTE[i % len(PALETTE)], found)
    _limits(axes, panel, [value for _, each in found for value in _values(each) if math.isfinite(value)])
    for at, color in page.marks:
        axes.axvline(_day(at), color=color, linewidth=0.8, linestyle=(0, (3, 3)))
    _legend(axes, panel, defaults)


def _frame(axes: Axes, page: Page, defaults: Json) -> None:
    axes.set_position(_shrunk(axes))
    axes.grid(visible=True, color="#e3e6ea", linewidth=0.6)
    axes.tick_params(length=0, labelsize=7, labelcolor=FAINT, pad=2)
    axes.set_xlim(*(_day(at) for at in (page.span.start, page.span.end)))
    locator = AutoDateLocator(maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults["unit"], None)))


def _shrunk(axes: Axes) -> tuple[float, float, float, float]:
    """Room for the numbers at the axes and for the legend."""
    box = axes.get_position()
    figure = axes.figure
    assert isinstance(figure, Figure)
    width_in, height_in = figure.get_size_inches()
    left, below = 0.5 / width_in, 0.66 / height_in
    return (box.x0 + left, box.y0 + below, box.width - left - 0.05 / width_in, box.height - below)


def _line(axes: Axes, panel: Json, name: str, series: Series, color: str, found: Sequence[tuple[str, Series]]) -> None:
    style = style_of(panel, name)
    color = COLORS.get(style.get("color", {}).get("fixedColor", ""), color)
    times, values = _drawn(series)
    width = style.get("custom.lineWidth", 1.2)
    dash = (0, (4, 3)) if "custom.lineStyle" in style else "-"
    axes.plot(times, values, color=color, linewidth=width, linestyle=dash, label=name if width else "_")
    if lower := style.get("custom.fillBelowTo"):
        bottom = next((dict(each.points) for other, each in found if other == lower), {})
        pairs = [(at, value, bottom[at]) for at, value in series.points if at in bottom]
        if pairs:
            moments = [_day(at) for at, *_ in pairs]
            axes.fill_between(moments, [low for *_, low in pairs], [high for _, high, _ in pairs], color=color,
                              alpha=0.3, linewidth=0, label="expected, 95 %")  # fmt: skip


def _stacked(axes: Axes, page: Page, panel: Json, found: Sequence[tuple[str, Series]]) -> None:
    moments = sorted({at for _, each in found for at, _ in each.points})
    stacks = [[max(0.0, _finite(dict(each.points).get(at, 0.0))) for at in moments] for _, each in found]
    plain = [PALETTE[i % len(PALETTE)] for i in range(len(found))]
    colors = [COLORS.get(style_of(panel, name).get("color", {}).get("fixedColor", ""), color)
              for (name, _), color in zip(found, plain, strict=True)]  # fmt: skip
    times = [_day(at) for at in moments]
    axes.stackplot(times, stacks, labels=[name for name, _ in found], colors=colors, alpha=0.55, linewidth=0)
    axes.set_ylim(0, 1.08 * max((sum(column) for column in zip(*stacks, strict=True)), default=1.0) or 1.0)


def _limits(axes: Axes, panel: Json, values: Sequence[float]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    high = max(values, default=1.0)
    if "min" in defaults:
        stacked = defaults["custom"]["stacking"]["mode"] == "normal"
        axes.set_ylim(bottom=defaults["min"], top=None if stacked else max(high * 1.1, defaults["min"] + 1e-9) or 1.0)
        if high <= 0:
            axes.set_ylim(defaults["min"], 1.0)
    if defaults["custom"]["thresholdsStyle"]["mode"] == "off":
        return
    low, top = axes.get_ylim()
    steps = defaults["thresholds"]["steps"]
    for before, step in pairwise(steps):
        color = before["color"] if step["color"] == "transparent" else step["color"]
        if low < step["value"] < max(top, high * 2, defaults.get("max", 0.0)):
            axes.axhline(step["value"], color=COLORS[color], linewidth=0.9, linestyle=(0, (5, 4)))
            axes.set_ylim(low, max(top, step["value"] * 1.1))


def _legend(axes: Axes, panel: Json, defaults: Json) -> None:
    handles, labels = axes.get_legend_handles_labels()
    cut = [_cut(label, 30) for label in labels]
    columns = max(1, min(6, int(panel["gridPos"]["w"] * COLUMN_IN * 14 / (max(map(len, cut), default=1) + 6))))
    room = 3 * columns  # three lines
    if len(cut) > room:
        cut[room - 1] += f" (and {len(cut) - room} more)"
    axes.legend(handles[:room], cut[:room], loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=columns,
                frameon=False, fontsize=7, handlelength=1.4, columnspacing=1.2, labelspacing=0.25)  # fmt: skip


def _bars(axes: Axes, page: Page, panel: Json) -> None:
    found = [(name, each) for target in panel["targets"] for name, each in page.ask(target)]
    if not found:
        _nothing(axes, panel)
        return
    defaults = panel["fieldConfig"]["defaults"]
    values = [_finite(each.points[-1][1]) for _, each in found]
    most = defaults.get("max") or max([*values, 1e-9])
    names_share = min(0.75, 0.06 + max(len(name) for name, _ in found) * 0.2 / panel["gridPos"]["w"])
    axes.set_xlim(-names_share * most, 1.14 * most)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_axis_off()
    for i, ((name, _), value) in enumerate(zip(found, values, strict=True)):
        color = color_of(value, defaults["thresholds"])
        axes.barh(i, most, color="#eef0f3", height=0.62)
        axes.barh(i, min(value, most), color=color, height=0.62, alpha=0.85)
        axes.text(-0.02 * most, i, _cut(name, 44), ha="right", va="center", size=7.5)
        axes.text(1.02 * most, i, shown(value, defaults["unit"], defaults.get("decimals")), va="center", size=7.5)


def _table(axes: Axes, page: Page, panel: Json) -> None:
    columns, rows = merged(page, panel)
    if not rows:
        _nothing(axes, panel)
        return
    axes.set_axis_off()
    room = max(1, int((panel["gridPos"]["h"] * ROW_IN - 0.75) / 0.2))
    styles = {title: style_of(panel, title) for title in columns}
    cells = [[_cell(row.get(title), styles[title]) for title in columns] for row in rows[:room]]
    widths = [max(len(title) + 1, *(len(line[i]) for line in cells)) + 2 for i, title in enumerate(columns)]
    lefts = [sum(widths[:i]) / sum(widths) for i in range(len(columns))]
    high = 1.0 / (room + 1.2)
    for title, left in zip(columns, lefts, strict=True):
        axes.text(left, 1.0 - high / 2, title, transform=axes.transAxes, va="center", weight="bold", size=7.5)
    for i, (row, line) in enumerate(zip(rows, cells, strict=False)):
        y = 1.0 - high * (i + 1.5)
        axes.axhline(y + high / 2, color="#e3e6ea", linewidth=0.6)
        for title, left, text in zip(columns, lefts, line, strict=True):
            axes.text(left, y, text, transform=axes.transAxes, va="center", size=7.5,
                      color=_ink(row.get(title), styles[title]))  # fmt: skip
    axes.set_ylim(0, 1)
    if len(rows) > room:
        axes.text(1.0, 0.0, f"and {len(rows) - room} more", transform=axes.transAxes, ha="right", size=7, color=FAINT)


def _heatmap(axes: Axes, page: Page, panel: Json) -> None:
    found = {each.labels["le"]: dict(each.points) for target in panel["targets"] for _, each in page.ask(target)}
    bounds = sorted((bound for bound in found if bound != "+Inf"), key=float)
    moments = sorted({at for each in found.values() for at in each})
    cumulative = [[_finite(found[bound].get(at, 0.0)) for at in moments] for bound in bounds]
    counts = [[max(0.0, high - low) for low, high in zip(below, above, strict=True)]
              for below, above in zip([[0.0] * len(moments), *cumulative], cumulative, strict=False)]  # fmt: skip
    if len(moments) < 2 or not any(map(any, counts)):
        _nothing(axes, panel)
        return
    _frame(axes, page, panel["fieldConfig"]["defaults"])
    times = [_day(at) for at in moments]
    edges = [0.0, *map(float, bounds)]
    times.append(2 * times[-1] - times[-2])
    axes.pcolormesh(times, edges, counts, cmap="Blues", norm=mpl.colors.PowerNorm(0.5))
    axes.grid(visible=False)


_KINDS: Final[Mapping[str, Callable[[Axes, Page, Json], None]]] = {
    "stat": _stat, "timeseries": _trend, "bargauge": _bars, "table": _table, "heatmap": _heatmap,
}  # fmt: skip


# ── values, colours, rows ─────────────────────────────────────────────────────────────────────────────────────────────


def merged(page: Page, panel: Json) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table: answers put together where their shared labels agree, then renamed and sorted."""
    answers = [page.ask(target) for target in panel["targets"]]
    shared = set.intersection(*({label for _, each in answer for label in each.labels} for answer in answers if answer)
                              ) if any(answers) else set()  # fmt: skip
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    keys = sorted(shared - {"__name__"})
    for target, answer in zip(panel["targets"], answers, strict=True):
        value = "Value" if len(answers) == 1 else f"Value #{target['refId']}"
        for _, each in answer:
            row = rows.setdefault(tuple(each.labels.get(key, "") for key in keys), {})
            row |= {**each.labels, value: each.points[-1][1]}
    titles: dict[str, str] = panel["transformations"][-1]["options"]["renameByName"]
    table = [{title: row.get(field) for field, title in titles.items()} for row in rows.values()]
    for by in panel["options"]["sortBy"]:
        title = by["displayName"]
        known = sorted((row for row in table if row[title] is not None), key=itemgetter(title), reverse=by["desc"])
        table = [*known, *(row for row in table if row[title] is None)]
    return list(titles.values()), table


def style_of(panel: Json, name: str) -> dict[str, Any]:
    """Properties that overrides give to a series or column."""
    found: dict[str, Any] = {}
    for override in panel["fieldConfig"]["overrides"]:
        matcher, wanted = override["matcher"]["id"], override["matcher"]["options"]
        if wanted == name if matcher == "byName" else re.search(wanted.strip("/"), name):
            found |= {each["id"]: each["value"] for each in override["properties"]}
    return found


def color_of(value: float, thresholds: Json) -> str:
    """Colour of the highest threshold that the value has reached."""
    color = thresholds["steps"][0]["color"]
    for step in thresholds["steps"][1:]:
        if value >= step["value"]:
            color = step["color"]
    return COLORS[color]


def shown(value: float, unit: str, decimals: int | None) -> str:
    """A value with its unit, as Grafana shows it.

    >>> shown(0.4312, "percentunit", 1), shown(1_234_567, "short", None), shown(90.0, "s", None)
    ('43.1 %', '1.23 M', '1.5 min')
    """
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f} %" if decimals else f"{value * 100:.3g} %"
    if unit == "dateTimeAsIso":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    scale = {"s": TIMES, "bytes": BYTES}.get(unit, SIZES)
    factor, name = next(((size, name) for size, name in scale if abs(value) >= size), (1.0, ""))
    number = f"{value / factor:.{decimals}f}" if decimals is not None and not (name and unit == "short") \
        else f"{value / factor:.3g}"  # fmt: skip
    name = name or {"s": "s", "bytes": "B"}.get(unit, "")
    return f"{number} {name}".strip() + ("/s" if unit == "cps" else "")


def _cell(value: Any, style: Mapping[str, Any]) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return _cut(value, 34)
    return shown(value, style.get("unit", "short"), style.get("decimals"))


def _ink(value: Any, style: Mapping[str, Any]) -> str:
    if isinstance(value, float) and "thresholds" in style:
        return color_of(value, style["thresholds"])
    return COLORS["blue"] if "links" in style else INK


def _day(at: float) -> float:
    """Time as matplotlib counts it."""
    return float(date2num(datetime.fromtimestamp(at, UTC)))  # type: ignore[no-untyped-call]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _values(series: Series) -> list[float]:
    return [value for _, value in series.points]


def _drawn(series: Series) -> tuple[list[float], list[float]]:
    return [_day(at) for at, _ in series.points], _values(series)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
