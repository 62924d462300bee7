"""A small part of `tests.bench.breakage`: broken tracking is broken data, and people who change are not."""

from __future__ import annotations

import pytest

from streams.simulate import START, simulate
from streams.simulate_breakage import BREAKAGES, CHANGES, TUNED, broken, changed
from tests.bench.breakage import EROSIONS, Job, report, run

ONSET = 1_756_684_800.0 + 43_200.0
"""Noon of the first day."""


def test_sessions_that_are_lost_are_broken_data_and_people_who_leave_are_not() -> None:
    lost, left = (run(Job(kind, 3, 2.4, 1.6, 260.0)) for kind in ("sessions_lost", "drop, hard"))
    assert "data_trust/bad_share stage=tracking,check=headless" in lost.data
    assert lost.trust == () and lost.delay_h is not None and 0.0 < lost.delay_h < 8.0
    assert left.data == () and left.held == ()
    said = report([lost, left])
    assert "| sessions_lost (tuned) | 1 | 1 | 0 |" in said
    assert "people changed: nothing called broken data: 1 of 1 (100.0 %)" in said


def test_there_are_enough_kinds() -> None:
    assert len(BREAKAGES) >= 30 and len(BREAKAGES) - len(TUNED) >= 18 and set(TUNED) < set(BREAKAGES)
    assert len({*EROSIONS, *CHANGES}) >= 12


@pytest.mark.parametrize("kind", BREAKAGES)
def test_a_breakage_changes_what_arrives_from_its_onset_on_and_not_the_events(kind: str) -> None:
    events = list(simulate(1.0, 4, sessions_per_day=120.0, leads_per_day=60.0, start=START))
    before = [repr(event) for event in events]
    arrived = list(broken(events, kind, ONSET, seed=1))
    assert [repr(event) for event in events] == before
    assert [one.at for one in arrived] == sorted(one.at for one in arrived)
    early = [event for event in events if event.time < ONSET]
    assert [one.outcome for one in arrived if one.at < ONSET] == early
    assert [one.outcome for one in arrived] != events or kind in ("deliver_late",)
    assert [one.at for one in arrived] != [event.time for event in events] or len(arrived) == len(events)
    assert arrived == list(broken(events, kind, ONSET, seed=1)), "the same each time"


@pytest.mark.parametrize("kind", CHANGES)
def test_people_who_change_send_whole_events(kind: str) -> None:
    events = list(simulate(1.5, 4, sessions_per_day=120.0, leads_per_day=60.0, start=START))
    arrived = list(changed(events, kind, ONSET))
    assert [one.outcome for one in arrived if one.at < ONSET] == [event for event in events if event.time < ONSET]
    assert [one.outcome for one in arrived] != events
