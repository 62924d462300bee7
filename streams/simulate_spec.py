"""What can be put into a simulated stream, and how it is written on a command line: `--erosion SPEC`."""

from __future__ import annotations

import re
from typing import Final, cast

import msgspec

from detectors._stages import CONTACTS, CUSTOMERS, JOURNEY, LEADS
from streams import simulate_contacts, simulate_customers, simulate_leads, simulate_web
from streams.errors import UsageError
from streams.simulate_kinds import EVERYWHERE, Erosion, Kind

SYNTAX: Final = "KIND[:label=value,...]@DAY[xSIZE], e.g. early_dropoff:stage=evaluate,channel=paid@14x0.7"

_SPEC: Final = re.compile(r"(?P<kind>\w+)(?::(?P<labels>[^@]+))?@(?P<day>\d+(?:\.\d+)?)(?:x(?P<size>\d+(?:\.\d+)?))?")


class KindModel(msgspec.Struct, frozen=True):
    """What a kind means when its specification says no more, and which sizes make sense.

    Attributes:
        detector: name of the detector that is expected to find it; empty for what is no loss of trust and only looks
            like one (a confounder).
        stages: where it may be; the first is meant where none is said, or `default_stage`.
        meaning: of its size.
        size: default, least and most.
        default_stage: see `stages`.
        labels: labels that it can be limited to; None: those of its stage.
    """

    detector: str
    stages: tuple[str, ...]
    meaning: str
    size: tuple[float, float, float]
    default_stage: str = ""
    labels: tuple[str, ...] | None = None


_STEPS: Final = simulate_web.STAGES[:-1]  # nobody advances from the last one
_ALL: Final = (EVERYWHERE,)
KINDS: Final[dict[Kind, KindModel]] = {
    "hesitation": KindModel("hesitation", _STEPS, "factor on the share of stuck steps", (3.0, 1.05, 6.0), "decide"),
    "early_dropoff": KindModel(
        "early_dropoff", _STEPS, "factor on the advance probability", (0.67, 0.05, 0.95), "evaluate"),
    "price_change": KindModel(
        "early_dropoff", _STEPS, "factor on the advance probability, announced as deployed", (0.7, 0.05, 0.95),
        "compare"),
    "false_engagement": KindModel(
        "false_engagement", _STEPS, "factor on dwell, while people advance as before", (1.8, 1.05, 5.0), "evaluate"),
    "funnel_divergence": KindModel(
        "funnel_divergence", (JOURNEY,), "factor on the advance probability of early stages; some come straight to"
        " decide instead", (0.75, 0.1, 0.98)),
    "small_losses": KindModel(
        "small_losses", (JOURNEY,), "factor on the advance probability of every stage", (0.97, 0.8, 0.995)),
    "lead_score_drift": KindModel("lead_score_drift", (LEADS,), "points added to scores", (15.0, 1.0, 60.0)),
    "score_inflation": KindModel("score_inflation", (LEADS,), "factor on scores", (1.3, 1.02, 3.0)),
    "follow_up_decay": KindModel(
        "follow_up_decay", (LEADS,), "factor on the time to first touch, and on the share never called",
        (3.0, 1.1, 8.0)),
    "over_contact": KindModel(
        "over_contact", (CONTACTS,), "factor on mails a person", (3.0, 1.1, 8.0), labels=("country",)),
    "value_late": KindModel("value_delivered", (CUSTOMERS,), "factor on the share of late orders", (3.0, 1.1, 12.0)),
    "value_wrong": KindModel("value_delivered", (CUSTOMERS,), "factor on the share of wrong orders", (4.0, 1.1, 20.0)),
    "value_unsolved": KindModel(
        "value_delivered", (CUSTOMERS,), "factor on the share of unsolved cases", (3.0, 1.1, 8.0)),
    "value_nps": KindModel("value_delivered", (CUSTOMERS,), "points of NPS score lost", (2.0, 0.2, 8.0)),
    "vanity": KindModel(
        "vanity_gap", (JOURNEY, LEADS, CONTACTS), "factor on volume: those who come more never want anything",
        (2.0, 1.1, 5.0)),
    "season": KindModel("", _ALL, "factor on all volumes, reached over ten days", (1.5, 0.2, 4.0), labels=()),
    "rhythm": KindModel("", _ALL, "1: the day moves by five hours, weekends are like other days", (1.0, 1.0, 1.0),
                        labels=()),
    "holiday": KindModel("", _ALL, "factor on all volumes for three days", (0.4, 0.05, 1.0), labels=()),
    "campaign_burst": KindModel(
        "", (JOURNEY,), "visits of a new channel, social, for two days, of people who want little, as a part of all",
        (1.0, 0.1, 5.0), labels=()),
    "mix_shift": KindModel(
        "", (JOURNEY, LEADS, CONTACTS), "factor on the weight of one value, whose people are worse from the first day"
        " on and do not change", (3.0, 1.1, 10.0), labels=("channel", "source", "campaign")),
    "bots": KindModel(
        "", (JOURNEY,), "machines, as a part of all visits: fast, and none advances", (0.5, 0.05, 5.0)),
    "relaunch": KindModel(
        "", (LEADS,), "points that a new version of a score model adds, announced", (10.0, 1.0, 60.0)),
}  # fmt: skip
"""Kind → what it is."""
WEIGHTS: Final = {
    LEADS: simulate_leads.WEIGHTS, CONTACTS: simulate_contacts.WEIGHTS, CUSTOMERS: simulate_customers.WEIGHTS,
}  # fmt: skip
"""Stage → labels of its events, their values and shares; those of web events elsewhere."""
MAIL: Final = {"channel": {"email": 1.0}}


def parse_erosion(spec: str) -> Erosion:
    """Read one `--erosion`.

    >>> parse_erosion("early_dropoff:channel=paid@14x0.7")
    Erosion(kind='early_dropoff', stage='evaluate', segment={'channel': 'paid'}, onset_day=14.0, size=0.7)

    Raises:
        UsageError: what is wrong with it, and the syntax.
    """
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise _bad(spec, "not of the form")
    if match["kind"] not in KINDS:
        raise _bad(spec, f"unknown kind {match['kind']!r}, not one of {', '.join(KINDS)}")
    kind = cast("Kind", match["kind"])
    model = KINDS[kind]
    segment = _parse_labels(spec, match["labels"])
    stage = segment.pop("stage", model.default_stage or model.stages[0])
    if stage not in model.stages:
        raise _bad(spec, f"{kind} has no stage {stage!r}, only {', '.join(model.stages)}")
    _check_segment(spec, segment, _labels_of(model, stage))
    if kind == "mix_shift" and len(segment) != 1:
        raise _bad(spec, "mix_shift needs the one value whose share grows, such as channel=paid")
    least, most = model.size[1:]
    size = float(match["size"] or model.size[0])
    if not least <= size <= most:
        raise _bad(spec, f"size of {kind} must be {least:g} to {most:g}")
    return Erosion(kind, stage, segment, float(match["day"]), size)


def _labels_of(model: KindModel, stage: str) -> dict[str, dict[str, float]]:
    known = {**WEIGHTS.get(stage, simulate_web.WEIGHTS), **(MAIL if stage == CONTACTS else {})}
    return {label: values for label, values in known.items() if model.labels is None or label in model.labels}


def _parse_labels(spec: str, text: str | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in text.split(",") if text else []:
        label, equals, value = pair.partition("=")
        if not (label and equals and value) or label in labels:
            raise _bad(spec, f"{pair!r} is no label=value, or given twice")
        labels[label] = value
    return labels


def _check_segment(spec: str, segment: dict[str, str], known: dict[str, dict[str, float]]) -> None:
    for label, value in segment.items():
        if label not in known:
            raise _bad(spec, f"no label {label!r} here, only {', '.join(known)}")
        if value not in known[label]:
            raise _bad(spec, f"{label} is never {value!r}, only {', '.join(known[label])}")


def _bad(spec: str, problem: str) -> UsageError:
    return UsageError(f"--erosion {spec!r}: {problem}; the syntax is {SYNTAX}")
