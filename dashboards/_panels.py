"""What dashboards are made of: queries, panels, variables and annotations as plain dicts in Grafana's JSON model.

Grafana 11 to 13 read it (schema version 41). Every panel has a title, one sentence that says what it shows, a unit and
the data source variable; what it means when it is empty is said, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dashboards import names

Json = dict[str, Any]
Steps = Sequence[tuple[float, str]]
"""Thresholds: from this value on, this colour."""

DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
GRAFANA: Final[Json] = {"type": "grafana", "uid": "-- Grafana --"}
_WORKERS: Final = ('job=~"$job"', 'instance=~"$instance"')
SCHEMA_VERSION: Final = 41
COLUMNS: Final = 24
BLUE: Final = "blue"
KEEP: Final = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
"""What every link to another dashboard carries along."""


# ── queries ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def series(metric: str, *matchers: str) -> str:
    """A selector that keeps to the chosen workers.

    >>> series("trustwatch_ready")
    'trustwatch_ready{job=~"$job",instance=~"$instance"}'
    """
    return f"{metric}{{{','.join((*_WORKERS, *matchers))}}}"


def eq(label: str, value: str) -> str:
    """A matcher.

    >>> eq("stage", "leads")
    'stage="leads"'
    """
    return f'{label}="{value}"'


def rate(metric: str, *matchers: str) -> str:
    """Growth of a counter a second."""
    return f"rate({series(metric, *matchers)}[$__rate_interval])"


def rise(metric: str, *matchers: str) -> str:
    """Growth of a counter over the time range of the dashboard."""
    return f"increase({series(metric, *matchers)}[$__range])"


def share(part: str, whole: str) -> str:
    """A ratio that is absent, not NaN, where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def or_zero(expr: str) -> str:
    """The value, or 0 while workers are there and nothing matches; nothing while no worker is."""
    return f"{expr} or 0 * count({series('trustwatch_ready')})"


def query(expr: str, legend: str = "", *, instant: bool = False, form: str = "time_series") -> Json:
    """One query of a panel."""
    return {
        "datasource": DATASOURCE, "editorMode": "code", "expr": expr, "format": form, "instant": instant,
        "legendFormat": legend or "__auto", "range": not instant,
    }  # fmt: skip


# ── panels ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def stat(title: str, about: str, expr: str, unit: str, *, steps: Steps = (), empty: str = "no data", width: int = 3,
         decimals: int | None = None, legend: str = "", name_only: bool = False, trace: bool = True,
         instant: bool = False, links: Sequence[Json] = ()) -> Json:  # fmt: skip
    """One number, coloured by its thresholds, with its course behind it."""
    options = {
        "colorMode": "value", "graphMode": "area" if trace and not instant else "none", "justifyMode": "auto",
        "orientation": "auto", "textMode": "name" if name_only else "value", "wideLayout": True,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }  # fmt: skip
    panel = _panel("stat", title, about, [query(expr, legend, instant=instant)], unit, steps, empty, (width, 4))
    panel["options"] = options
    panel["links"] = list(links)
    if decimals is not None:
        panel["fieldConfig"]["defaults"]["decimals"] = decimals
    return panel


def trend(title: str, about: str, queries: Sequence[tuple[str, str]], unit: str, *, steps: Steps = (),
          empty: str = "no data", width: int = 12, height: int = 8, stack: bool = False, bars: bool = False,
          overrides: Sequence[Json] = (), least: float | None = 0.0, most: float | None = None) -> Json:  # fmt: skip
    """Lines over time; thresholds are drawn as dashed lines."""
    panel = _panel("timeseries", title, about, [query(*each) for each in queries], unit, steps, empty, (width, height))
    defaults = panel["fieldConfig"]["defaults"]
    defaults["custom"] = {
        "drawStyle": "bars" if bars else "line", "fillOpacity": 60 if bars else 25 if stack else 0, "lineWidth": 1,
        "showPoints": "never", "spanNulls": 120_000, "lineInterpolation": "linear", "axisSoftMin": 0,
        "stacking": {"group": "A", "mode": "normal" if stack else "none"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }  # fmt: skip
    defaults["color"] = {"mode": "palette-classic"}
    defaults |= {key: value for key, value in (("min", least), ("max", most)) if value is not None}
    panel["fieldConfig"]["overrides"] = list(overrides)
    panel["options"] = {
        "legend": {"calcs": ["lastNotNull"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def bars(title: str, about: str, expr: str, legend: str, unit: str, *, steps: Steps = (), empty: str = "no data",
         width: int = 12, height: int = 8, most: float | None = None) -> Json:  # fmt: skip
    """Horizontal bars, one a series, as of now."""
    panel = _panel("bargauge", title, about, [query(expr, legend, instant=True)], unit, steps, empty, (width, height))
    panel["fieldConfig"]["defaults"] |= {"min": 0} | ({} if most is None else {"max": most})
    panel["options"] = {
        "displayMode": "basic", "minVizHeight": 12, "namePlacement": "left", "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "showUnfilled": True,
        "sizing": "auto", "valueMode": "color",
    }  # fmt: skip
    return panel


def heatmap(title: str, about: str, expr: str, unit: str, *, empty: str, width: int = 12, height: int = 8) -> Json:
    """Buckets of a histogram over time."""
    panel = _panel(
        "heatmap", title, about, [query(expr, "{{le}}", form="heatmap")], unit, (), empty, (width, height)
    )  # fmt: skip
    panel["options"] = {
        "calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5},
        "legend": {"show": True}, "rowsFrame": {"layout": "auto"}, "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }  # fmt: skip
    return panel


class Column:
    """A column of a table.

    Args:
        field: label, or letter of the query whose value it shows.
        title: its heading.
        unit: unit of its values; none for a label.
        steps: thresholds that colour its cells.
        url: what its cells link to.
        gauge: draw a bar in the cell; the value at its right end.
    """

    def __init__(self, field: str, title: str, unit: str = "string", *, steps: Steps = (), url: str = "",
                 gauge: float | None = None, decimals: int | None = None) -> None:  # fmt: skip
        self.field = field if len(field) > 1 else f"Value #{field}"
        self.title = title
        properties: list[Json] = [{"id": "unit", "value": unit}]
        if steps:
            properties.append({"id": "thresholds", "value": _thresholds(steps)})
            properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
        if gauge is not None:
            properties += [{"id": "min", "value": 0}, {"id": "max", "value": gauge}]
            cell = {"type": "gauge", "mode": "basic", "valueDisplayMode": "color"}
            properties.append({"id": "custom.cellOptions", "value": cell})
        if url:
            properties.append({"id": "links", "value": [{"title": "Show details", "url": url}]})
        if decimals is not None:
            properties.append({"id": "decimals", "value": decimals})
        self.override = {"matcher": {"id": "byName", "options": title}, "properties": properties}


def table(title: str, about: str, queries: Sequence[str], columns: Sequence[Column], *, empty: str, unit: str = "short",
          width: int = 24, height: int = 8, sort: tuple[str, bool] | None = None) -> Json:  # fmt: skip
    """Rows of several instant queries, put together where their labels agree.

    Args:
        title: what it shows.
        about: the same in a sentence, and what it means when it is empty.
        queries: expressions; the values of the first are in column A, and so on.
        columns: those shown, in order.
        empty: what it means when there are no rows.
        unit: of values that no column says otherwise for.
        width: in grid columns.
        height: in grid rows.
        sort: title of the column to sort by, and whether the highest comes first.
    """
    asked = [query(expr, instant=True, form="table") for expr in queries]
    panel = _panel("table", title, about, asked, unit, (), empty, (width, height))
    panel["fieldConfig"]["overrides"] = [column.override for column in columns]
    panel["options"] = {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True}
    panel["options"]["sortBy"] = [{"displayName": sort[0], "desc": sort[1]}] if sort else []
    shown = [column.field for column in columns]
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": shown}}},
        {"id": "organize", "options": {
            "excludeByName": {}, "includeByName": {}, "indexByName": {field: i for i, field in enumerate(shown)},
            "renameByName": {column.field: column.title for column in columns}}},
    ]  # fmt: skip
    if len(queries) == 1:  # Grafana names the value of a lone query without its letter
        panel["transformations"] = _lone(panel["transformations"])
    return panel


def styled(legend: str, **custom: Any) -> Json:
    """Draw the series of a legend, a regular expression, in another way (`dash`, `band`, `color`, `hide`)."""
    properties: list[Json] = []
    if "color" in custom:
        properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": custom["color"]}})
    if custom.get("dash"):
        properties.append({"id": "custom.lineStyle", "value": {"dash": [6, 4], "fill": "dash"}})
    if "band" in custom:  # the area down to the series of that legend
        properties += [{"id": "custom.fillBelowTo", "value": custom["band"]}, {"id": "custom.fillOpacity", "value": 18}]
    if "width" in custom:
        properties.append({"id": "custom.lineWidth", "value": custom["width"]})
    return {"matcher": {"id": "byRegexp", "options": f"/^{legend}$/"}, "properties": properties}


def link(title: str, uid: str, more: str = "") -> Json:
    """A link to another dashboard, with time range and variables kept."""
    return {"title": title, "url": url(uid, more), "targetBlank": False}


def url(uid: str, more: str = "") -> str:
    """Address of another dashboard, with time range and variables kept."""
    return f"/d/{uid}?{KEEP}{'&' + more if more else ''}"


def cell(title: str) -> str:
    """The value of another column in the same row, fit for an address: segments hold `=` and `,`, and may hold `&`.

    >>> cell("Segment")
    '${__data.fields.Segment:percentencode}'
    """
    return f"${{__data.fields.{title}:percentencode}}"


def _panel(kind: str, title: str, about: str, targets: Sequence[Json], unit: str, steps: Steps, empty: str,
           size: tuple[int, int]) -> Json:  # fmt: skip
    defaults = {"unit": unit, "noValue": empty, "thresholds": _thresholds(steps), "color": {"mode": "thresholds"},
                "mappings": []}  # fmt: skip
    return {
        "id": 200_000 + zlib.crc32(title.encode()) % 100_000,
        "type": kind, "title": title, "description": about, "datasource": DATASOURCE,
        "targets": [{"refId": chr(ord("A") + i), **target} for i, target in enumerate(targets)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": {"x": 0, "y": 0, "w": size[0], "h": size[1]},
    }  # fmt: skip


def _thresholds(steps: Steps) -> Json:
    base = [{"color": "green" if steps else BLUE, "value": None}]
    if steps and steps[0][0] == float("-inf"):
        base, steps = [{"color": steps[0][1], "value": None}], steps[1:]
    return {"mode": "absolute", "steps": [*base, *({"color": color, "value": value} for value, color in steps)]}


def _lone(transformations: list[Json]) -> list[Json]:
    text = {"Value #A": "Value"}
    for each in transformations:
        options = each["options"]
        if "include" in options:
            options["include"]["names"] = [text.get(name, name) for name in options["include"]["names"]]
        for key in ("indexByName", "renameByName"):
            if key in options:
                options[key] = {text.get(name, name): value for name, value in options[key].items()}
    return transformations


# ── dashboards ────────────────────────────────────────────────────────────────────────────────────────────────────────


def row(title: str) -> Json:
    """A heading over panels."""
    return {
        "id": 100_000 + zlib.crc32(title.encode()) % 100_000, "type": "row", "title": title, "collapsed": False,
        "panels": [], "gridPos": {"x": 0, "y": 0, "w": COLUMNS, "h": 1},
    }  # fmt: skip


def arrange(panels: Sequence[Json]) -> list[Json]:
    """Place panels from left to right and top to bottom.

    Raises:
        ValueError: panels beside each other differ in height, or a line is not filled.
    """
    x = y = height = 0
    for panel in panels:
        place = panel["gridPos"]
        if x and place["h"] != height:
            raise ValueError(f"{panel['title']}: {place['h']} high, beside panels of {height}")
        height = place["h"]
        panel["gridPos"] = {**place, "x": x, "y": y}
        x += place["w"]
        if x > COLUMNS:
            raise ValueError(f"{panel['title']}: {x - COLUMNS} columns too wide")
        if x == COLUMNS:
            x, y = 0, y + height
    if x:
        raise ValueError(f"the last line ends after {x} of {COLUMNS} columns")
    return list(panels)


def variable(name: str, label: str, about: str, source: str, *, many: bool = True, value: str = "") -> Json:
    """A variable whose values come from Prometheus.

    Args:
        name: its name in expressions.
        label: its name for the reader.
        about: what it chooses.
        source: a `label_values(…)` query.
        many: whether several values, or all of them, can be chosen; then expressions compare with `=~`.
        value: what is chosen at first; all, where many can be, and the first one otherwise.
    """
    chosen = {"text": ["All"], "value": ["$__all"]} if many else {"text": value, "value": value} if value else {}
    return {
        "name": name, "label": label, "description": about, "type": "query", "datasource": DATASOURCE,
        "definition": source, "query": {"qryType": 1, "query": source, "refId": f"variable-{name}"}, "refresh": 2,
        "sort": 1, "multi": many, "includeAll": many, "allValue": ".+" if many else None, "current": chosen,
        "hide": 0, "regex": "", "options": [], "skipUrlSync": False,
    }  # fmt: skip


def dashboard(uid: str, about: str, panels: Sequence[Json], variables: Sequence[Json] = (), *, span: str = "now-7d",
              refresh: str = "1m") -> Json:  # fmt: skip
    """A whole dashboard."""
    return {
        "uid": uid, "title": names.DASHBOARDS[uid], "description": about, "tags": ["trustwatch"], "editable": False,
        "schemaVersion": SCHEMA_VERSION, "version": 1, "graphTooltip": 1, "liveNow": False, "weekStart": "",
        "fiscalYearStartMonth": 0, "timezone": "browser", "time": {"from": span, "to": "now"}, "refresh": refresh,
        "timepicker": {"refresh_intervals": ["15s", "30s", "1m", "5m", "15m", "1h"]},
        "links": [{
            "type": "dashboards", "title": "trustwatch", "tags": ["trustwatch"], "asDropdown": False,
            "icon": "external",
            "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": "",
        }],
        "templating": {"list": [*_common(), *variables]}, "annotations": {"list": _annotations()},
        "panels": arrange(panels),
    }  # fmt: skip


def _common() -> list[Json]:
    source: Json = {
        "name": "datasource", "label": "Data source", "description": "The Prometheus that scrapes the workers.",
        "type": "datasource", "query": "prometheus", "refresh": 1, "regex": "", "multi": False, "includeAll": False,
        "current": {"text": "Prometheus", "value": names.PROMETHEUS_UID}, "hide": 0, "options": [],
        "skipUrlSync": False,
    }  # fmt: skip
    return [
        source,
        variable("job", "Job", "Scrape job of the workers.", "label_values(trustwatch_ready, job)"),
        variable("instance", "Worker", "One worker process, or all.",
                 'label_values(trustwatch_ready{job=~"$job"}, instance)'),
    ]  # fmt: skip


def _annotations() -> list[Json]:
    onset = series("trustwatch_open_finding_onset_timestamp_seconds")
    return [
        {"name": "Annotations & Alerts", "datasource": GRAFANA, "enable": True, "hide": True, "builtIn": 1,
         "iconColor": "rgba(0, 211, 255, 1)", "type": "dashboard"},
        _marks("Findings noticed", "red", _new(), "{{detector}}: {{direction}}",
               "{{stage}}, {{segment}}: {{kind}}, owner {{owner}}"),
        _marks("Onsets of open findings", "orange",
               f"max by (detector, stage, segment, direction) ({onset}) * 1000", "{{detector}}: since here",
               "{{stage}}, {{segment}}, {{direction}}", at_value=True),
        _marks("Deploys", "blue", _counted("deployed"), "deployed", "{{what}}"),
        _marks("Definition changes", "purple", _counted("definition_changed"), "definition changed", "{{what}}"),
        {"name": "Posted by trustwatch", "datasource": GRAFANA, "enable": True, "hide": False, "iconColor": "yellow",
         "target": {"type": "tags", "tags": ["trustwatch"], "limit": 100, "matchAny": False}},
    ]  # fmt: skip


def _new() -> str:
    """True at the first step of each finding, whatever becomes of its level and severity later."""
    found = series("trustwatch_open_finding")
    told = f"max by (finding, detector, kind, stage, segment, direction, owner) ({found})"
    return f"{told} unless on (finding) {found} offset $__interval"


def _counted(kind: str) -> str:
    """True where a control event came; its series begins with the first one of its name."""
    counter = series("trustwatch_control_events_total", f'type="{kind}"')
    came = f"increase({counter}[$__rate_interval]) > 0"
    return f"max by (what) (({counter} > 0 unless {counter} offset $__interval) or {came})"


def _marks(name: str, color: str, expr: str, title: str, text: str, *, at_value: bool = False) -> Json:
    return {
        "name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": color, "expr": expr,
        "step": "", "titleFormat": title, "textFormat": text, "tagKeys": "", "useValueForTime": at_value,
    }  # fmt: skip


def filled(text: str, values: Mapping[str, str]) -> str:
    """An expression or legend with its variables put in.

    >>> filled('x{job=~"$job"}[$__range]', {"job": ".+", "__range": "1h"})
    'x{job=~".+"}[1h]'
    """
    for name in sorted(values, key=len, reverse=True):
        text = text.replace("${" + name + "}", values[name]).replace("$" + name, values[name])
    return text
