"""Draws a dashboard from a real Prometheus as a PNG, laid out as Grafana would: for the README, and to look at.

It is no Grafana: it reads the committed dashboards, asks Prometheus what Grafana would ask, and draws the answers with
matplotlib (extra `explain`). `python -m dashboards.draw --prometheus URL --board trust-overview --out FILE`.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from dashboards import names
from dashboards._panels import Json, filled
from dashboards.build import boards

TIMEOUT_S: Final = 30.0
POINTS: Final = 160
"""Points of a line, as many as a panel has room for."""
_SPAN: Final = re.compile(r"^(?:now-)?(\d+(?:\.\d+)?)([smhdw])$")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_LABEL_VALUES: Final = re.compile(r"^label_values\((?P<selector>.+),\s*(?P<label>\w+)\)$", re.DOTALL)
_LEGEND: Final = re.compile(r"{{\s*(\w+)\s*}}")


class PrometheusRefused(RuntimeError):
    """Prometheus is away, or does not understand a query; the message names both."""


class Series(NamedTuple):
    """One series of an answer: labels, and (time in seconds, value) in order."""

    labels: Mapping[str, str]
    points: list[tuple[float, float]]

    def named(self, legend: str) -> str:
        """Its legend, as Grafana makes it."""
        if legend == "__auto":
            inner = ", ".join(f'{label}="{value}"' for label, value in self.labels.items() if label != "__name__")
            return f"{{{inner}}}" if inner else "value"
        return _LEGEND.sub(lambda found: self.labels.get(found[1], ""), legend)


class Span(NamedTuple):
    """A time range: start and end, seconds since the epoch, and the interval of the scrapes, seconds."""

    start: float
    end: float
    scrape_s: float

    @property
    def step_s(self) -> float:
        """Distance of the points of a line."""
        return max(self.scrape_s, float(round((self.end - self.start) / POINTS)))

    def variables(self) -> dict[str, str]:
        """Grafana's own variables."""
        rate_s = max(self.step_s + self.scrape_s, 4 * self.scrape_s)
        seconds = {"__rate_interval": rate_s, "__interval": self.step_s, "__range": self.end - self.start}
        return {name: f"{value:.0f}s" for name, value in seconds.items()}


class Prometheus:
    """Asks a Prometheus.

    Args:
        url: its base URL.

    Raises:
        ValueError: the URL is none of http or https.
    """

    def __init__(self, url: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"--prometheus: {url!r} is no http(s) URL")
        self._url = url.rstrip("/")

    def now(self, expr: str, at: float) -> list[Series]:
        """Values at one moment."""
        answer = self._ask("query", {"query": expr, "time": f"{at:.3f}"})
        return [Series(each["metric"], [_point(each["value"])]) for each in _vectors(answer)]

    def over(self, expr: str, span: Span) -> list[Series]:
        """Values over a time range."""
        asked = {"query": expr, "start": f"{span.start:.3f}", "end": f"{span.end:.3f}", "step": f"{span.step_s:.0f}"}
        answer = self._ask("query_range", asked)
        return [Series(each["metric"], [_point(value) for value in each["values"]]) for each in answer["result"]]

    def values(self, selector: str, label: str, span: Span) -> list[str]:
        """Values of a label, sorted."""
        asked = {"match[]": selector, "start": f"{span.start:.3f}", "end": f"{span.end:.3f}"}
        return sorted(self._ask(f"label/{label}/values", asked))

    def _ask(self, what: str, asked: Mapping[str, str]) -> Any:
        address = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # the scheme was looked at
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:300]
            raise PrometheusRefused(f"{self._url} refuses {asked}: {told}") from error
        except (OSError, ValueError, KeyError) as error:
            raise PrometheusRefused(f"{self._url} does not answer as Prometheus: {error}. Fix: --prometheus") from error


def _vectors(answer: Json) -> list[Json]:
    if answer["resultType"] == "scalar":
        return [{"metric": {}, "value": answer["result"]}]
    result: list[Json] = answer["result"]
    return result


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def seconds_of(span: str) -> float:
    """Length of a time range.

    >>> seconds_of("now-6h"), seconds_of("90m")
    (21600.0, 5400.0)
    """
    found = _SPAN.match(span)
    if found is None:
        raise ValueError(f"--span: {span!r} is none such as 20m, 6h or 7d")
    return float(found[1]) * _SECONDS[found[2]]


def resolve(board: Json, prometheus: Prometheus, span: Span, given: Mapping[str, str]) -> dict[str, str]:
    """Variable → value, as Grafana would fill them when the dashboard is opened.

    Args:
        board: the dashboard.
        prometheus: gives the values of query variables.
        span: the time range.
        given: values chosen by the user.
    """
    values = span.variables()
    for variable in board["templating"]["list"]:
        name = variable["name"]
        if name in given or variable["type"] != "query":
            values[name] = given.get(name, "")
        elif variable["includeAll"]:
            values[name] = variable["allValue"]
        else:
            values[name] = variable["current"].get("value") or _first(variable["definition"], prometheus, span, values)
    return values


def _first(definition: str, prometheus: Prometheus, span: Span, values: Mapping[str, str]) -> str:
    found = _LABEL_VALUES.match(filled(definition, values))
    if found is None:
        raise ValueError(f"{definition!r} is no label_values(…) query")
    near = span._replace(start=span.end - 5 * 60)  # what is gone is not chosen
    return next(iter(prometheus.values(found["selector"], found["label"], near)), "")


@click.command()
@click.option("--prometheus", "url", required=True, help="base URL, such as http://127.0.0.1:9090")
@click.option("--board", type=click.Choice(sorted(names.DASHBOARDS)), required=True, help="uid of the dashboard")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="PNG to write")
@click.option("--span", default=None, help="how far back, such as 20m or 7d; default: the dashboard's own")
@click.option("--end", type=float, default=None, help="end of the time range, epoch seconds; default: now")
@click.option("--scrape-s", type=float, default=15.0, show_default=True, help="scrape interval, seconds")
@click.option("--var", "chosen", multiple=True, help="NAME=VALUE of a variable; repeatable")
@click.option("--lines", type=int, default=None, help="grid rows to draw, from the top; default: all")
def main(
    url: str, board: str, out: Path, span: str | None, end: float | None, scrape_s: float, chosen: tuple[str, ...],
    lines: int | None,
) -> None:  # fmt: skip
    """Draw a dashboard from a real Prometheus."""
    draw = import_module("dashboards._draw_panels").draw  # here, because matplotlib takes a second and is an extra
    model = boards()[board]
    try:
        until = time.time() if end is None else end
        period = Span(until - seconds_of(span or model["time"]["from"]), until, scrape_s)
        given = dict(each.split("=", 1) for each in chosen)
        prometheus = Prometheus(url)
        draw(model, prometheus, period, resolve(model, prometheus, period, given), out, lines)
    except (ValueError, PrometheusRefused) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
