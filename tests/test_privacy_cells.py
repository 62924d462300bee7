"""What rests on fewer than five people is told without its numbers, wherever a finding is told."""

from __future__ import annotations

import json

import msgspec
import pytest
from click.testing import CliRunner

from streams import cli
from streams.findings import HELD, LEAST, Finding, is_held, is_small, public
from streams.units import finding_record

FINDING = Finding(
    "f1", "early_dropoff", "early_dropoff", {"stage": "evaluate", "channel": "paid"}, "worse", "alert",
    "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", 0.4321, 0.2143, "ratio", 700, 300, 0.9, "growth",
    "Early drop-off at evaluate: 43.2 % before, 21.4 % since, on 300 observations.", {"gain": 17.5, HELD: 1.0},
)  # fmt: skip
NUMBERS = ("0.4321", "0.2143", "43.2", "21.4", "17.5", "300")


@pytest.mark.parametrize("few", ["n_before", "n_after"])
def test_a_small_cell_has_no_numbers_for_others(few: str) -> None:
    small = msgspec.structs.replace(FINDING, **{few: LEAST - 1})
    told = json.dumps(msgspec.to_builtins(public(small)))
    assert not [number for number in NUMBERS if number in told] and f"fewer than {LEAST} people" in told
    assert is_small(public(small)) and is_held(public(small))
    assert (public(small).id, public(small).onset, public(small).owner) == (small.id, small.onset, small.owner)


def test_a_cell_of_enough_people_is_told_as_it_is() -> None:
    enough = msgspec.structs.replace(FINDING, n_before=LEAST, n_after=LEAST)
    assert public(enough) is enough


def test_neither_the_topic_nor_the_command_line_shows_a_small_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    small = msgspec.structs.replace(FINDING, n_after=LEAST - 1)
    value = finding_record(small, "findings").value
    assert value is not None and not [number for number in NUMBERS if number.encode() in value]
    with CliRunner().isolation() as (out, *_):
        cli._show_findings([small, FINDING])
        shown = out.getvalue().decode()
    assert "fewer than 5 people, not shown. Owner: growth." in shown and shown.count("43.2") <= 1
