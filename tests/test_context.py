"""What is context only: unproven indicators, and changes of who comes instead of what they do."""

from __future__ import annotations

import numpy as np
import pytest

from detectors._stages import JOURNEY
from streams.findings import MIXED, UNPROVEN, VALIDATION, Finding
from streams.frames import Cell, Counts, Segment
from streams.metrics_findings import severity_of
from streams.settings import Settings
from streams.units import Plan
from streams.watch import Watcher
from tests.kit import settings_of

DAY_S = 86_400.0
START_S = 1_700_006_400.0
STEP_S = 300.0
CHANNELS = {"search": 0.6, "mail": 0.45, "social": 0.3, "ads": 0.15}
EVEN = (0.25, 0.25, 0.25, 0.25)
MORE_ADS = (0.1, 0.2, 0.3, 0.4)


def shop() -> tuple[Watcher, Settings]:
    settings = settings_of(topics={"events_partitions": 1, "counts_partitions": 1})
    return Plan(settings, ["early_dropoff", "hesitation"]).watcher(0), settings


def told(mix: tuple[float, ...], drop: float, seed: int, days: float = 12.0, at: float = 10.0) -> list[Finding]:
    """Early drop-off where, from day `at` on, channels have another mix, and each loses a share of its advances."""
    watcher, _ = shop()
    rng = np.random.default_rng(seed)
    found: list[Finding] = []
    for i in range(int(days * DAY_S / STEP_S)):
        changed = i * STEP_S / DAY_S >= at
        n = rng.multinomial(rng.poisson(40), mix if changed else EVEN)
        k = rng.binomial(n, np.array(list(CHANNELS.values())) * (1.0 - drop if changed else 1.0))
        cells: dict[Segment, tuple[int, int]] = {(): (int(k.sum()), int(n.sum()))}
        cells |= {(("channel", name),): (int(k[j]), int(n[j])) for j, name in enumerate(CHANNELS)}
        found += watcher.apply(_counts(i, cells))
    return [finding for finding in found if finding.level == "alert"]


def _counts(i: int, cells: dict[Segment, tuple[int, int]]) -> Counts:
    ts = START_S + i * STEP_S
    made = [
        Cell(ts, "evaluate", segment, {"entered": n, "soon": k, "not_soon": n - k, "at_all": k, "not_at_all": n - k})
        for segment, (k, n) in cells.items()
    ]
    return Counts(0, i, ts + STEP_S, made)


@pytest.mark.parametrize("seed", range(6))
def test_a_mix_shift_alone_pages_nobody(seed: int) -> None:
    findings = told(MORE_ADS, 0.0, seed)
    assert findings and all(MIXED in finding.evidence for finding in findings if not _labelled(finding))
    assert {_severity(finding) for finding in findings} == {"none"}
    assert "by channel, not what they do" in findings[0].summary


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mix", [EVEN, MORE_ADS], ids=["same-mix", "other-mix"])
def test_what_people_do_less_pages_whoever_comes(mix: tuple[float, ...], seed: int) -> None:
    # With another mix most of what everyone loses may be the mix; then the channels speak for themselves.
    findings = told(mix, 0.25, seed, days=14.0)
    assert "page" in {_severity(finding) for finding in findings}


def _labelled(finding: Finding) -> bool:
    return len(finding.segment) > 1


def _severity(finding: Finding) -> str:
    settings = shop()[1]
    return severity_of(finding, Plan(settings).detectors.classes[finding.detector].alert)


def hesitating(proven: bool, seed: int = 1) -> tuple[Watcher, list[Finding]]:
    """Hesitation that rises on day 10; it tells who advances, or nothing."""
    watcher, _ = shop()
    rng = np.random.default_rng(seed)
    found: list[Finding] = []
    for i in range(int(12 * DAY_S / STEP_S)):
        n = int(rng.poisson(20))
        shown = int(rng.binomial(n, 0.12 if i * STEP_S / DAY_S < 10 else 0.22))
        yes = int(rng.binomial(shown, 0.2 if proven else 0.4))
        rest = int(rng.binomial(n - shown, 0.4))
        ts = START_S + i * STEP_S
        long = {"long_yes": yes + rest, "long_no": n - yes - rest, "ind_signal_yes": yes, "ind_signal_no": shown - yes}
        cells = [
            Cell(ts, "evaluate", (), {"judged": n, "signalled": shown, **long}),
            Cell(ts, JOURNEY, (), {f"{name}_evaluate": count for name, count in long.items()}),
        ]
        found += watcher.apply(Counts(0, i, ts + STEP_S, cells))
    return watcher, found


def test_an_indicator_pages_while_it_is_proven() -> None:
    watcher, found = hesitating(proven=True)
    changes = [one for one in found if one.detector == VALIDATION]
    assert changes and changes[0].kind == "signal_advance_proven" and changes[0].resolved_at == changes[0].detected_at
    assert watcher.changes == changes
    alerts = [one for one in found if one.detector == "hesitation"]
    assert alerts and all(UNPROVEN not in one.evidence for one in alerts)
    assert {_severity(one) for one in alerts} == {"page"}


def test_an_indicator_that_says_nothing_is_context() -> None:
    watcher, found = hesitating(proven=False)
    assert not watcher.changes
    alerts = [one for one in found if one.detector == "hesitation"]
    assert alerts and all(UNPROVEN in one.evidence for one in alerts)
    assert {_severity(one) for one in alerts} == {"none"}
    assert "not yet proven to predict what people do next" in alerts[0].summary


def test_what_is_proven_outlives_a_restart() -> None:
    watcher, _ = hesitating(proven=True)
    again, _ = shop()
    again.restore(watcher.snapshot())
    assert again.validator.proven("signal", "evaluate")
    assert again.changes == watcher.changes
    assert again.digest_part() == watcher.digest_part()
