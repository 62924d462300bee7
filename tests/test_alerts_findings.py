"""Open findings as metrics: one series each, urgent by confidence and effect, without people, gone when they end."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from detectors._base import AlertOn
from streams.app import Line
from streams.findings import LEAST, Finding, is_small
from streams.metrics import LineCollector
from streams.metrics_findings import NUMBERS, severity_of
from streams.settings import Settings
from streams.stage import Slot
from streams.units import WatchUnit

SETTINGS = Settings(privacy={"pseudonym_key": "0123456789abcdef"})
FINDING = Finding(
    id="f1", detector="early_dropoff", kind="early_dropoff", segment={"stage": "evaluate", "channel": "paid"},
    direction="worse", level="alert", onset="2025-09-13T23:39:00Z", detected_at="2025-09-14T05:00:00Z", before=0.431,
    after=0.259, unit="ratio", n_before=3000, n_after=557, score=0.9, owner="growth-team", summary="…", evidence={},
)  # fmt: skip
PAGES, TICKETS = AlertOn(), AlertOn(severity="ticket")


def changed(**fields: object) -> Finding:
    return msgspec.structs.replace(FINDING, **fields)


def exported(*findings: Finding) -> dict[str, dict[str, tuple[dict[str, str], float]]]:
    """Metric → finding → labels and value, as Prometheus reads them."""
    line = Line(SETTINGS)
    for partition in (0, 1):
        line.watch.slots[partition] = Slot(WatchUnit(line.plan, partition))
    for number, finding in enumerate(findings):
        line.watch.slots[number % 2].unit.stage._judge.findings[finding.id] = finding
    registry = CollectorRegistry()
    registry.register(LineCollector(line))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        family.name: {sample.labels["finding"]: (sample.labels, sample.value) for sample in family.samples}
        for family in families
        if family.name == "trustwatch_open_finding" or family.name in NUMBERS
    }


def test_all_that_is_known_of_an_open_finding() -> None:
    found = exported(FINDING, changed(id="f2", detector="hesitation", kind="model", segment={"stage": "decide"}))
    where = {"detector": "early_dropoff", "kind": "early_dropoff", "stage": "evaluate", "segment": "channel=paid",
             "direction": "worse", "finding": "f1"}  # fmt: skip
    told = {**where, "level": "alert", "severity": "page", "owner": "growth-team"}
    assert found["trustwatch_open_finding"]["f1"] == (told, 1.0)
    assert found["trustwatch_open_finding"]["f2"][0]["segment"] == "all"
    numbers = {name: values["f1"] for name, values in found.items() if name in NUMBERS}
    assert all(labels == where for labels, _ in numbers.values())
    assert {name.removeprefix("trustwatch_open_finding_"): value for name, (_, value) in numbers.items()} == {
        "onset_timestamp_seconds": 1757806740.0,
        "detected_timestamp_seconds": 1757826000.0,
        "before": 0.431,
        "after": 0.259,
        "observations": 557.0,
        "score_ratio": 0.9,
    }


@pytest.mark.parametrize(("few", "enough"), [("n_before", "n_after"), ("n_after", "n_before")])
def test_one_of_few_people_is_told_and_alerts_without_their_numbers(few: str, enough: str) -> None:
    numbers = {"before", "after", "observations"}
    for n, hidden in ((LEAST - 1, True), (LEAST, False)):
        finding = changed(**{few: n, enough: 3000})
        assert is_small(finding) is hidden
        found = exported(finding)
        labels, value = found["trustwatch_open_finding"]["f1"]
        assert (labels["severity"], value) == ("page", 1.0)
        there = {name.removeprefix("trustwatch_open_finding_") for name, values in found.items() if "f1" in values}
        assert there >= {"onset_timestamp_seconds", "detected_timestamp_seconds", "score_ratio"}
        assert there & numbers == (set() if hidden else numbers)


def test_one_that_has_ended_is_gone_and_each_family_is_there_without_any() -> None:
    found = exported(changed(resolved_at="2025-09-15T00:00:00Z"))
    assert found == {name: {} for name in ("trustwatch_open_finding", *NUMBERS)}


def test_a_finding_of_a_detector_that_is_gone_is_a_ticket() -> None:
    assert exported(changed(detector="removed"))["trustwatch_open_finding"]["f1"][0]["severity"] == "ticket"


@pytest.mark.parametrize(
    ("finding", "alert", "severity"),
    [
        (FINDING, PAGES, "page"),
        (FINDING, TICKETS, "ticket"),
        (changed(level="warn"), PAGES, "ticket"),
        (changed(level="warn"), AlertOn(level="warn"), "page"),
        (changed(direction="better", before=0.259, after=0.431), PAGES, "none"),
        (changed(direction="better"), TICKETS, "none"),
        (changed(before=0.30, after=0.257), PAGES, "ticket"),
        (changed(before=0.30, after=0.253), PAGES, "page"),
        (changed(before=0.01, after=0.018), PAGES, "ticket"),
        (changed(before=0.01, after=0.025), PAGES, "page"),
        (changed(unit="seconds", before=100.0, after=109.0), PAGES, "ticket"),
        (changed(unit="seconds", before=100.0, after=89.0), PAGES, "page"),
        (changed(unit="seconds", before=0.0, after=1.0), PAGES, "page"),
    ],
)
def test_severity_is_by_confidence_and_effect(finding: Finding, alert: AlertOn, severity: str) -> None:
    assert severity_of(finding, alert) == severity
