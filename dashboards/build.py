"""Dashboards as code: Python → the JSON files that Grafana is provisioned with.

`python -m dashboards.build` writes `dashboards/json/<uid>.json`; `--check` only compares, and fails where a file is
stale. The files are committed, so that a change of a dashboard is seen in review.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from dashboards import names
from dashboards._alert_guardrails import guardrails as configured
from dashboards._boards_data import data
from dashboards._boards_finding import finding
from dashboards._boards_guardrails import guardrails
from dashboards._boards_hesitation import hesitation
from dashboards._boards_leads import leads
from dashboards._boards_overview import overview
from dashboards._boards_pipeline import pipeline
from dashboards._panels import Json, filled
from detectors._base import Detector
from detectors._registry import discover

FOLDER: Final = Path(__file__).parent / "json"
FIX: Final = "FAIL dashboards stale: {}. Fix: make gen"
DEFAULTS: Final[Mapping[str, str]] = {
    "job": ".+", "instance": ".+", "detector": ".+", "stage": ".+", "segment": "all", "topic": ".+", "finding": ".+",
    "view": "soon", "__rate_interval": "1m", "__interval": "15s", "__range": "1h",
}  # fmt: skip
"""What `expressions` puts in for variables; those of Finding, which are one value each, are better given."""
_OPEN: Final = "rows are open findings: empty while customers are as they were"
_LEARNT: Final = "baselines are learnt first: a day of events, and 500 trials"
_LATER: Final = "no horizon of a lead has passed in the time range"
_GUARDED: Final = "guardrails are optional (guardrails_file), and a budget is known after a week"
_WEEK: Final = "the confidence index takes a week of event time to learn"
_PRICED: Final = "nothing was gained yet, or by fewer than five people"
_NONE: Final = "reasons that did not come are left out"
_CUSTOMERS: Final = "mails and orders are not sent by everybody"
EMPTY_IN_GOOD_TIMES: Final[Mapping[tuple[str, str, str], str]] = {
    (names.OVERVIEW, "Over-contact: most suspicious segments", "A"): _CUSTOMERS,
    (names.OVERVIEW, "Value not delivered: most suspicious segments", "A"): _CUSTOMERS,
    (names.GUARDRAILS, "Watched", "A"): _GUARDED,
    (names.GUARDRAILS, "Bad events", "A"): _GUARDED,
    (names.OVERVIEW, "Open findings by severity", "A"): _OPEN,
    **{(names.OVERVIEW, "Open findings, one by one", letter): _OPEN for letter in "ABCDEF"},
    **{(names.OVERVIEW, "What got worse this week", letter): _OPEN for letter in "AB"},
    **{(names.OVERVIEW, "Confidence index", letter): _WEEK for letter in "ABC"},
    (names.OVERVIEW, "What moved the confidence index", "A"): _WEEK,
    **{(names.OVERVIEW, "Confidence by segment", letter): _WEEK for letter in "ABCDE"},
    **{(names.OVERVIEW, "Price of what was gained", letter): _PRICED for letter in "ABC"},
    **{(names.OVERVIEW, "Gained and its cost", letter): _PRICED for letter in "AB"},
    (names.OVERVIEW, "Advance, weakest stage", "A"): _LEARNT,
    (names.OVERVIEW, "Hesitation, worst stage", "A"): _LEARNT,
    (names.HESITATION, "Called hesitant", "A"): "the models say nothing before they can tell",
    (names.HESITATION, "Unlike any before", "A"): "novelty is weighed after 2,000 steps (novel_steps, twice)",
    **{(names.HESITATION, "Journey funnel", letter): _LEARNT for letter in "CD"},
    (names.HESITATION, "Advance rate against baseline", "A"): _LEARNT,
    **{(names.HESITATION, "Hesitation against baseline", letter): _LEARNT for letter in "ABC"},
    **{(names.HESITATION, "Segments against their baselines", letter): _LEARNT for letter in "ABCD"},
    **{(names.LEADS, title, "A"): _LATER for title in (
        "Touched", "Accepted", "Won", "Acceptance at a given score", "Acceptance at a given score over time",
        "Touched in time by source", "Accepted by source")},
    **{(names.LEADS, "Sources", letter): _LATER for letter in "DEF"},
    (names.DATA, "Dead letters by reason", "A"): _NONE,
    (names.DATA, "Dead letters in the time range", "A"): _NONE,
    (names.DATA, "Deploys and definition changes", "A"): "sources that tell of deploys are optional",
    (names.GUARDRAILS, "Least budget left", "A"): _GUARDED,
    (names.GUARDRAILS, "Response", "A"): "nothing was acknowledged",
    **{(names.GUARDRAILS, f"Burn rate of {one.name}", "A"): _GUARDED for one in configured()},
    **{(names.GUARDRAILS, "All guardrails", letter): _GUARDED for letter in "ABCD"},
    **{(names.GUARDRAILS, "Guardrails that are hit", letter): _OPEN for letter in "AB"},
    (names.PIPELINE, "Errors", "F"): "detectors without errors are left out",
}  # fmt: skip
"""(dashboard uid, panel title, letter of the query) → why it may be empty though all is well; all of Finding besides.
"""
EMPTY_WITHOUT_FINDING: Final = "one finding is chosen by variables: nothing is shown while none is open"


def boards(detectors: Mapping[str, type[Detector[Any, Any]]] | None = None) -> dict[str, Json]:
    """All dashboards: uid → JSON model.

    Args:
        detectors: those that have a panel; none: all there are.
    """
    made = (overview(discover() if detectors is None else detectors), hesitation(), leads(), finding(),
            guardrails(configured()), data(), pipeline())  # fmt: skip
    return {board["uid"]: board for board in made}


def written(board: Json) -> str:
    """The text of a dashboard's file: sorted, so that equal dashboards give equal files."""
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of the files that differ from what is built, miss, or belong to no dashboard."""
    wanted = {f"{uid}.json": written(board) for uid, board in boards().items()}
    there = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


class Expression(NamedTuple):
    """One query of a panel.

    Attributes:
        uid: of the dashboard.
        title: of the panel.
        letter: of the query in the panel.
        text: its expression with variables put in.
    """

    uid: str
    title: str
    letter: str
    text: str


def expressions(values: Mapping[str, str] | None = None) -> Iterator[Expression]:
    """Every query of every panel.

    Args:
        values: variable → value, over `DEFAULTS`.
    """
    chosen = {**DEFAULTS, **(values or {})}
    for uid, board in boards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Expression(uid, panel["title"], target["refId"], filled(target["expr"], chosen))


def why_empty(asked: Expression) -> str | None:
    """Why an expression may give nothing though all is well; None if it must give something."""
    if asked.uid == names.FINDING:
        return EMPTY_WITHOUT_FINDING
    return EMPTY_IN_GOOD_TIMES.get(asked[:3])


@click.command()
@click.option("--check", is_flag=True, help="only compare; exit 1 if a file is stale")
def main(check: bool) -> None:
    """Write the dashboards that Grafana is provisioned with."""
    if check:
        if differing := stale():
            raise click.ClickException(FIX.format(", ".join(differing)))
        return
    FOLDER.mkdir(exist_ok=True)
    wanted = {FOLDER / f"{uid}.json": written(board) for uid, board in boards().items()}
    for path in FOLDER.glob("*.json"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
