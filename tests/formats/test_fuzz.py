"""A little of `python -m tests.fuzz`, and all that it ever found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from streams.events import Event
from streams.formats import FORMATS
from tests.fuzz.__main__ import CASES, PROGRAMS
from tests.fuzz.law import check
from tests.fuzz.mutate import STEPS, Step, mutated
from tests.fuzz.seeds import seeds


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_messages_that_are_mutated_hold_events(fmt: str) -> None:
    found = [outcome for seed in seeds(fmt) for outcome in check(seed.raw, fmt, seed.headers or None)]
    assert sum(isinstance(outcome, Event) for outcome in found) >= min(len(found), 1)


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), steps=PROGRAMS, named=st.booleans())
def test_mutated_messages_keep_the_law(fmt: str, data: st.DataObject, steps: list[Step], named: bool) -> None:
    seed = data.draw(st.sampled_from(seeds(fmt)))
    try:
        raw = mutated(seed, steps)
    except RecursionError:
        reject()
    check(raw, fmt if named else None, seed.headers or None)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.bin")), ids=lambda path: path.stem)
def test_what_was_found_stays_mended(path: Path) -> None:
    for fmt in (None, *FORMATS):
        check(path.read_bytes(), fmt)


@pytest.mark.parametrize("name", STEPS)
def test_every_mutation_changes_something(name: str) -> None:
    seed = seeds("segment")[0]
    assert any(mutated(seed, [(name, where, what)]) != seed.raw for where in range(7) for what in range(1, 9))
