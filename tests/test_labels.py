"""More values of a label than may keep their name: what becomes of them over several partitions."""

from __future__ import annotations

from collections import Counter

import pytest

from streams.events import Event
from streams.frames import Counts, partition_of
from streams.settings import Settings
from streams.units import Plan
from tests.kit import T0, frame, section

VALUES, EACH, MOST, PARTITIONS = 40, 30, 10, 4


def entered(counts: list[Counts], label: str) -> Counter[str]:
    """Value of a label → steps that were entered; "" is everyone."""
    total: Counter[str] = Counter()
    for message in counts:
        for cell in message.cells:
            values = dict(cell.segment)
            if not values or set(values) == {label}:
                total[values.get(label, "")] += cell.counts.get("entered", 0)
    return total


@pytest.fixture(scope="module")
def partitions() -> list[list[Counts]]:
    """What each partition counts of visitors who each come from one of many channels."""
    settings = Settings.model_validate({
        "topics": {"events_partitions": PARTITIONS},
        "segments": {"max_values": MOST, "watch": ["channel"], "pairs": []},
    })  # fmt: skip
    events: list[list[Event]] = [[] for _ in range(PARTITIONS)]
    for number in range(VALUES * EACH):
        person, channel = f"p{number}", f"c{number * 7 % VALUES:02d}"
        event = Event(f"e{number}", "page_viewed", T0 + number, person, page="/", segment={"channel": channel})
        events[partition_of(person, PARTITIONS)].append(event)
    found = []
    for number, part in enumerate(events):
        counted = Plan(settings).sessionizer(number).apply(frame(section(part, 100_000.0)), 0)
        assert counted is not None
        found.append([counted])
    return found


def test_each_partition_names_so_many_values_and_folds_the_rest(partitions: list[list[Counts]]) -> None:
    for counts in partitions:
        named = set(entered(counts, "channel")) - {""}
        assert len(named) == MOST + 1 and "other" in named


def test_nothing_is_lost_to_the_folding(partitions: list[list[Counts]]) -> None:
    total = sum((entered(counts, "channel") for counts in partitions), Counter[str]())
    everyone = total.pop("")
    assert everyone == VALUES * EACH == sum(total.values())


def test_a_value_that_only_some_partitions_name_is_counted_too_low_never_too_high(
    partitions: list[list[Counts]],
) -> None:
    """Partitions choose on their own: rates stay right, for people fall to partitions by chance; sums are too low."""
    total = sum((entered(counts, "channel") for counts in partitions), Counter[str]())
    named = {value: count for value, count in total.items() if value not in ("", "other")}
    assert all(count <= EACH for count in named.values())
    assert MOST <= len(named) <= PARTITIONS * MOST
