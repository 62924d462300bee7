"""Hesitation: a rise of the hesitant share, with the micro-signal that rose."""

from __future__ import annotations

import random

import pytest

from detectors._base import Bucket
from detectors._registry import build_params
from detectors.hesitation import Hesitation

START_S = 1_700_006_400.0
STEP_S = 300.0
DAY_S = 86_400.0
JUDGED = 12


def stream(days: int, change_day: float, seed: int) -> list[Bucket]:
    """3,456 judged steps a day; a signal in 0.15 of them, from the change on in 0.22; then field returns triple too."""
    rng = random.Random(seed)
    buckets = []
    for i in range(int(days * DAY_S / STEP_S)):
        ts = START_S + i * STEP_S
        worse = ts >= START_S + change_day * DAY_S
        hits = {
            field: sum(rng.random() < (after if worse else before) for _ in range(JUDGED))
            for field, before, after in (
                ("signalled", 0.15, 0.22),
                ("sig_field_return", 0.05, 0.15),
                ("sig_u_turn", 0.04, 0.04),
            )
        }
        buckets.append(Bucket(ts, 10.0, "decide", {"judged": JUDGED, **hits}))
    return buckets


def quiet() -> list[Bucket]:
    return stream(10, 10, seed=11)


def firing() -> tuple[list[Bucket], float]:
    return stream(6, 4, seed=13), START_S + 4 * DAY_S


def test_evidence_names_the_signal_that_rose() -> None:
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    seen = [detector.look(bucket, detector.params) for bucket in firing()[0]]
    evidence = [detector.observe(x) for x in seen if x is not None][-1].evidence
    assert evidence["field_return_before"] == pytest.approx(0.05, abs=0.01)
    assert evidence["field_return_after"] == pytest.approx(0.15, abs=0.02)
    assert evidence["u_turn_after"] == pytest.approx(evidence["u_turn_before"], abs=0.015)
    assert evidence["extra_hesitant"] == pytest.approx(2 * 3456 * 0.07, rel=0.3)


def test_a_bucket_with_signals_only_counts_no_trial() -> None:
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    x = detector.look(Bucket(START_S, 10.0, "buy", {"sig_u_turn": 1}), detector.params)
    assert x is not None
    assert x.micro_signals is not None and x.model is None
    assert (x.micro_signals.k, x.micro_signals.n) == (0, 0)
    assert detector.observe(x).level == "warming"


def test_fewer_hesitant_is_no_finding() -> None:
    better = [
        Bucket(b.ts, b.width_s, b.stage, {"judged": JUDGED, "signalled": 0}) if b.ts > START_S + 4 * DAY_S else b
        for b in quiet()
    ]
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    seen = [detector.look(bucket, detector.params) for bucket in better]
    assert {detector.observe(x).level for x in seen if x is not None} == {"warming", "ok"}


def test_the_model_alone_fires_too_and_the_kind_says_so() -> None:
    renamed = {"signalled": "hesitant", "judged": "asked"}
    stream = [
        Bucket(b.ts, b.width_s, b.stage, {renamed.get(field, field): n for field, n in b.counts.items()})
        for b in firing()[0]
    ]
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    seen = [detector.look(bucket, detector.params) for bucket in stream]
    verdicts = [detector.observe(x) for x in seen if x is not None]
    assert (verdicts[-1].level, verdicts[-1].kind) == ("alert", "model")


def test_a_model_that_begins_to_speak_is_no_finding() -> None:
    """Its rate starts at its own level, whatever the micro-signals' was."""
    late = [
        Bucket(b.ts, b.width_s, b.stage, {**b.counts, "asked": JUDGED, "hesitant": int(i % 2)})
        if b.ts > START_S + 4 * DAY_S
        else b
        for i, b in enumerate(quiet())
    ]
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    seen = [detector.look(bucket, detector.params) for bucket in late]
    assert {detector.observe(x).level for x in seen if x is not None} == {"warming", "ok"}
