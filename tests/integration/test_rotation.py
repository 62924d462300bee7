"""Keys are changed on a real Kafka, by workers restarted one after the other, amid sessions and leads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streams.frames import decode_counts
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line
from tests.integration.raw import everything, newest, send
from tests.kit import T0, Tally, native
from tests.privacy_kit import KEY, OLD_KEY, pseudonym

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("real_kafka_or_skip")]
DAY = 86_400.0
SWITCH = 600.0
OLD = {"PRIVACY__PSEUDONYM_KEY": OLD_KEY}
BOTH = {"PRIVACY__PSEUDONYM_KEY": KEY, "PRIVACY__PREVIOUS_KEY": OLD_KEY,
        "PRIVACY__ROTATE_AT": datetime.fromtimestamp(T0 + SWITCH, UTC).isoformat()}  # fmt: skip
PAGES = ("/", "/product/a", "/pricing", "/cart")


@pytest.fixture
def line(kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[LiveLine]:
    with live_line(kafka, tmp_path, **OLD) as made:
        yield made


def story(first: float, last: float) -> list[bytes]:
    """What happens between two moments: visits across the switch, and leads that are won after it by another id."""
    told: list[tuple[float, bytes]] = []
    for n in range(30):
        told += [(at, native("page_viewed", at, f"v{n}", page=PAGES[step], session=f"s{n}"))
                 for step in range(4) if (at := 460.0 + 5 * n + 60 * step)]  # fmt: skip
        told += [
            (100.0 + n, native("lead_created", 100.0 + n, f"crm-{n}", also_person=f"mail-{n}")),
            (200.0 + n, native("lead_handed_over", 200.0 + n, f"crm-{n}")),
            (9 * DAY + n, native("lead_won", 9 * DAY + n, f"mail-{n}")),
        ]  # fmt: skip
    return [message for at, message in sorted(told, key=lambda one: one[0]) if first <= at < last]


def counted(line: LiveLine) -> Tally:
    """(stage, field) → count of everyone, from the counts topic; what was sent again after a kill counts once."""
    total: Tally = Counter()
    seen: set[tuple[int, int, int]] = set()
    for target, _, value in everything(line, line.settings.topics.counts):
        counts = decode_counts(value or b"")
        if (target, counts.partition, counts.offset) in seen:
            continue
        seen.add((target, counts.partition, counts.offset))
        for cell in counts.cells:
            if not cell.segment:
                total.update({(cell.stage, field): count for field, count in cell.counts.items()})
    return total


def test_workers_restarted_one_after_the_other_count_as_if_no_key_had_changed(line: LiveLine) -> None:
    one, other = line.start("worker"), line.start("worker")
    sent = send(line, story(0.0, 550.0), until=T0 + 550)
    line.wait(sent, T0 + 500)
    assert line.stop(one) == 0
    line.start("worker", **BOTH)  # while the other knows the old key only
    sent += send(line, story(550.0, 580.0), until=T0 + 580)
    line.wait(sent, T0 + 530)
    line.kill(other)
    line.start("worker", **BOTH)
    sent += send(line, story(580.0, DAY), until=T0 + DAY)
    line.wait(sent, T0 + DAY - 100)
    sent += send(line, story(DAY, 10 * DAY), until=T0 + 70 * DAY)
    state = line.wait(sent, T0 + 70 * DAY - 100)
    assert state.accounting["applied"] == sent == len(story(0.0, 10 * DAY)), json.dumps(state.accounting)
    found = counted(line)
    assert {stage: found[stage, "entered"] for stage in ("discover", "evaluate", "compare", "decide")} == dict.fromkeys(
        ("discover", "evaluate", "compare", "decide"), 30
    )
    assert found["discover", "advanced"] == 30 and found["discover", "dropped"] == 0, "no visit was torn"
    won = sum(count for (stage, field), count in found.items() if stage == "leads" and field.startswith("win_k"))
    assert (won, found["leads", "created"]) == (30, 30), "leads of before the change were won after it"
    kept = newest(line, line.settings.topics.sessions_state)
    assert pseudonym("crm-1", OLD_KEY).encode() in kept, "until the links of it are given up"
