"""The age of checkpoints in `/metrics`: of what is not stored, from loading on, and of nothing else."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streams.app import Line
from streams.metrics import LineCollector
from streams.settings import Settings
from streams.stage import Slot
from streams.units import WatchUnit

SETTINGS = Settings(privacy={"pseudonym_key": "0123456789abcdef"})
LONG_S = 3600.0


def age_s(**fields: object) -> float:
    """As Prometheus reads it, of a partition with such a slot."""
    line = Line(SETTINGS)
    slot = Slot(WatchUnit(line.plan, 0))
    for name, value in fields.items():
        setattr(slot, name, value)
    line.watch.slots[0] = slot
    registry = CollectorRegistry()
    registry.register(LineCollector(line))
    (sample,) = (
        sample
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "trustwatch_checkpoint_age_seconds"
    )
    assert sample.labels == {"stage": "watch", "partition": "0"}
    return float(sample.value)


def test_it_does_not_grow_while_the_checkpoint_covers_all() -> None:
    long_ago = time.time() - LONG_S
    assert age_s(offset=7, durable=7, saved_at=long_ago, sought_at=time.monotonic() - LONG_S) == 0
    assert age_s(offset=7, durable=7) == 0  # as it was loaded
    assert age_s() == 0  # nothing was ever applied


@pytest.mark.parametrize("unsaved", [{"offset": 8, "durable": 7}, {"offset": 7, "durable": 7, "again": True}])
def test_what_is_not_stored_counts_from_the_last_checkpoint(unsaved: dict[str, object]) -> None:
    found = age_s(**unsaved, saved_at=time.time() - LONG_S, sought_at=time.monotonic() - 2 * LONG_S)
    assert LONG_S <= found < 1.5 * LONG_S


def test_a_partition_that_was_never_stored_counts_from_its_loading() -> None:
    found = age_s(offset=3, durable=-1, sought_at=time.monotonic() - LONG_S)
    assert LONG_S <= found < 1.5 * LONG_S
