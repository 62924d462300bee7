"""What the formats of survey tools share: the kinds of scores, and where an answer holds one. No free text passes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from streams.events import Value
from streams.formats._common import Fields

SCALE_MAX: Final[dict[str, float]] = {"nps": 10.0, "csat": 5.0, "ces": 7.0}
"""Kind → highest score of its usual scale: NPS 0 to 10, CSAT 1 to 5, CES 1 to 7."""
_KIND: Final = re.compile(r"(?<![a-z])(nps|csat|ces)(?![a-z])")
_NUMBER: Final = re.compile(r"\d{1,3}(?:\.\d{1,6})?")
_LARGEST: Final = 100.0


def kind_of(name: object) -> str | None:
    """The kind that a name says, as a word of its own.

    >>> kind_of("nps_score"), kind_of("How was it? (CSAT)"), kind_of("process")
    ('nps', 'csat', None)
    """
    found = _KIND.search(name[:256].lower()) if isinstance(name, str) else None
    return found and found[1]


def score_of(value: object) -> float | None:
    """A score, of a number or its text; None for all else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        return None
    return float(value)


def score_properties(kind: str, score: float) -> dict[str, Value]:
    """The properties of an answered survey; a score above the usual scale shows that its scale goes further."""
    usual = SCALE_MAX[kind]
    return {"kind": kind, "score": score, "scale_max": usual if score <= usual else 10.0 if score <= 10 else _LARGEST}


def metric_answers(answers: object) -> Iterator[tuple[str, str, float]]:
    """(id, kind, score) of SatisMeter's answers to questions of a metric; nothing else of them is looked at."""
    for at, answer in enumerate(answers if isinstance(answers, list) else ()):
        if not isinstance(answer, dict):
            continue
        kind, score = answer.get("metric"), score_of(answer.get("value"))
        if isinstance(kind, str) and (kind := kind.lower()) in SCALE_MAX and score is not None:
            name = answer.get("id")
            yield name[:128] if isinstance(name, str) and name else str(at), kind, score


def named_answers(data: object, form: object) -> Iterator[tuple[str, str, float]]:
    """(question, kind, score) of Refiner's answers, which are named by whoever made the survey.

    The name of the question tells the kind, or that of the survey where it has a single score.
    """
    given: Fields = data if isinstance(data, dict) else {}
    scores: dict[str, Any] = {name: score for name, value in given.items() if (score := score_of(value)) is not None}
    for name, score in scores.items():
        kind = kind_of(name) or (kind_of(form) if len(scores) == 1 else None)
        if kind is not None:
            yield name[:128], kind, score
