"""Replay of recorded files: several go side by side as their events happened, whatever is in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streams.mapping import Mapping
from streams.recorded import RecordedFile
from streams.replay import Replay
from tests.kit import T0, native, settings_of


class Sent(Replay):
    """Notes what it would send, and how far it waited before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(settings_of(), **options)
        self.sent: list[tuple[str, bytes]] = []
        self.paced: list[float] = []

    def _send(self, topic: str, partition: int, value: bytes) -> None:
        self.sent.append((topic, value))

    def _pace(self, event_time: float, *args: Any) -> None:
        self.paced.append(event_time - T0)

    def _partitions(self, topic: str) -> int:
        return 2

    def _flush(self) -> None:
        """Nothing left anywhere."""


@pytest.mark.parametrize("speed", [None, 60.0])
def test_a_message_far_ahead_in_one_file_holds_up_no_other(tmp_path: Path, speed: float | None) -> None:
    times = {"web": [float(at) for at in range(0, 3000, 10)], "crm": [5.0, 6.0, 2000.0]}
    files = []
    for topic, ats in times.items():
        path = tmp_path / f"{topic}.jsonl"
        path.write_bytes(b"\n".join(native("page_viewed", at, f"{topic}{at:g}") for at in ats))
        files.append((RecordedFile(path), topic))
    replay, told = Sent(speed=speed, close=False), list[int]()
    done = replay.run(files, told.append)
    assert replay.paced == sorted([*times["web"], *times["crm"]])
    assert [topic for topic, _ in replay.sent[:5]] == ["web", "crm", "crm", "web", "web"]
    assert done.messages == sum(told) == 303


def test_rows_of_a_packed_table_go_out_as_native_events_between_those_of_other_files(tmp_path: Path) -> None:
    path, web = tmp_path / "orders.csv.gz", tmp_path / "web.jsonl"
    path.write_bytes(gzip.compress(f"at,who\n{T0:.0f},anna\n{T0 + 60:.0f},bert\nsoon,carl\n".encode()))
    web.write_bytes(native("page_viewed", 30.0, "dora"))
    mapping = Mapping.model_validate({"time": {"column": "at", "unit": "s"}, "person": "who", "type": "order_placed"})
    replay = Sent(close=False)
    done = replay.run([(RecordedFile(path, mapping=mapping), "crm"), (RecordedFile(web), "web")])
    sent = [json.loads(value) for _, value in replay.sent]
    assert [event["person"] for event in sent if event["person"] != "carl"] == ["anna", "dora", "bert"]
    assert {event["type"] for event in sent} == {"order_placed", "page_viewed"}
    assert done.messages == len(sent) == 4
