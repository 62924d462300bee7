"""Hesitation: a rise of one of its three rates, with the micro-signal that rose, and no flapping between them."""

from __future__ import annotations

import random
from itertools import groupby

import msgspec
import pytest

from detectors._base import Bucket, Verdict
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
    signals, model, novelty = x.seen
    assert signals is not None and model is None and novelty is None
    assert (signals.k, signals.n) == (0, 0)
    assert detector.observe(x).level == "warming"


def test_fewer_hesitant_is_no_finding() -> None:
    better = [
        Bucket(b.ts, b.width_s, b.stage, {"judged": JUDGED, "signalled": 0}) if b.ts > START_S + 4 * DAY_S else b
        for b in quiet()
    ]
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    seen = [detector.look(bucket, detector.params) for bucket in better]
    assert {detector.observe(x).level for x in seen if x is not None} == {"warming", "ok"}


def judge(buckets: list[Bucket], **params: float) -> list[tuple[float, Verdict]]:
    detector = Hesitation(build_params(Hesitation, params))  # type: ignore[arg-type]
    seen = [(bucket.ts, detector.look(bucket, detector.params)) for bucket in buckets]
    return [(ts, detector.observe(x)) for ts, x in seen if x is not None]


def renamed(buckets: list[Bucket], hits: str, trials: str) -> list[Bucket]:
    """The stream of micro-signals as that of another rate."""
    return [
        Bucket(b.ts, b.width_s, b.stage, {trials: b.counts["judged"], hits: b.counts.get("signalled", 0)})
        for b in buckets
    ]


def merged(*streams: list[Bucket]) -> list[Bucket]:
    return [
        Bucket(parts[0].ts, parts[0].width_s, parts[0].stage, {k: v for part in parts for k, v in part.counts.items()})
        for parts in zip(*streams, strict=True)
    ]


@pytest.mark.parametrize(
    ("hits", "trials", "kind"),
    [("signalled", "judged", "micro_signals"), ("hesitant", "asked", "model"), ("novel", "weighed", "novelty")],
)
def test_each_rate_fires_alone_and_the_kind_says_which(hits: str, trials: str, kind: str) -> None:
    last = judge(renamed(firing()[0], hits, trials))[-1][1]
    assert (last.level, last.kind) == ("alert", kind)
    assert last.after > last.before


def test_the_first_to_alert_is_told_until_it_ends_though_another_looks_worse() -> None:
    """The model's rate rises on day 4, that of the signals on day 5 and further; both fall back on day 9."""
    signals = [
        b if b.ts < START_S + 9 * DAY_S else c for b, c in zip(stream(13, 5, 13), stream(13, 13, 14), strict=True)
    ]
    worse = [Bucket(b.ts, b.width_s, b.stage, {**b.counts, "signalled": min(JUDGED, b.counts["signalled"] * 2)})
             if START_S + 5 * DAY_S < b.ts < START_S + 9 * DAY_S else b for b in signals]  # fmt: skip
    model = [b if b.ts < START_S + 9 * DAY_S else c for b, c in zip(stream(13, 4, 15), stream(13, 13, 16), strict=True)]
    verdicts = [v for _, v in judge(merged(renamed(worse, "signalled", "judged"), renamed(model, "hesitant", "asked")))]
    kinds = [kind for kind, _ in groupby(v.kind for v in verdicts if v.level == "alert")]
    assert kinds in (["model"], ["model", "micro_signals"]), "it changes back and forth"
    assert verdicts[-1].level == "ok"


def test_a_rate_that_falls_silent_ends_its_alert() -> None:
    """The model no longer tells who stays, so nobody is asked; the signals go on."""
    asked = renamed(firing()[0], "hesitant", "asked")
    calm = stream(6 + 5, 20, seed=19)
    alone = [Bucket(b.ts, b.width_s, b.stage, {"judged": JUDGED, "signalled": b.counts["signalled"]}) for b in calm]
    both = [*merged(asked, alone[: len(asked)]), *alone[len(asked) :]]
    verdicts = judge(both)
    at_end = next(verdict for ts, verdict in verdicts if ts >= asked[-1].ts)
    assert (at_end.level, at_end.kind) == ("alert", "model")
    assert verdicts[-1][1].level == "ok"


def test_the_allowance_is_shared_by_the_rates() -> None:
    """A stream that may give next to no false pages needs more evidence, in each of its rates."""
    by_allowance = {}
    for allowance in (0.5, 0.0001):
        detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
        detector.allow(allowance)
        assert detector.allowance == allowance
        seen = [detector.look(bucket, detector.params) for bucket in firing()[0]]
        verdicts = [detector.observe(x) for x in seen if x is not None]
        by_allowance[allowance] = next(i for i, verdict in enumerate(verdicts) if verdict.level == "alert")
        assert [rate.allowance for rate in detector._rates] == [allowance / 3] * 3
    assert by_allowance[0.0001] > by_allowance[0.5]


def test_a_state_of_another_number_of_rates_is_refused() -> None:
    detector = Hesitation(build_params(Hesitation))  # type: ignore[arg-type]
    detector.state.rates.pop()
    with pytest.raises(msgspec.ValidationError, match="not of 3 rates"):
        Hesitation(build_params(Hesitation)).restore(detector.snapshot())  # type: ignore[arg-type]


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
