"""A real worker beside a Grafana that hangs, then beside one that answers: nothing is late, lost or told twice."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from streams.simulate import parse_erosion, simulate, write
from tests.conftest import KafkaUnderTest
from tests.grafana_stub import TOKEN, GrafanaStub, grafana_stub, until
from tests.integration.live import LiveLine, live_line

pytestmark = pytest.mark.integration
STOP_S = 20.0
"""Twice what a worker has for its end (`streams.app.END_S`): the machine is shared."""
DAYS = 7.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    erosions = [parse_erosion("early_dropoff:channel=paid@4x0.4")]
    events = simulate(DAYS, 3, erosions, sessions_per_day=400, leads_per_day=0)
    return path, write(events, path, days=DAYS, seed=3, erosions=erosions).events


def worker_beside(line: LiveLine, stub: GrafanaStub) -> subprocess.Popen[bytes]:
    knobs = {"URL": stub.url, "TOKEN": TOKEN, "ANNOTATIONS": "true"}
    return line.start("worker", **{f"MONITORING__GRAFANA_{name}": value for name, value in knobs.items()})


def stop(line: LiveLine, worker: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    assert line.stop(worker) == 0, line.logs()
    assert time.monotonic() - began < STOP_S
    assert TOKEN not in line.logs()


def test_a_grafana_that_hangs_and_restarts(kafka: KafkaUnderTest, recorded: tuple[Path, int], tmp_path: Path) -> None:
    path, events = recorded
    with grafana_stub() as ill, grafana_stub() as well, live_line(kafka, tmp_path) as line:
        summary, expected = line.backtest(path)
        ill.fail("hang")
        worker = worker_beside(line, ill)
        line.run("replay", str(path))
        state = line.wait(events, float(str(summary["until"])))
        assert {finding.id for finding in state.findings} == {finding["id"] for finding in expected} != set()
        assert state.state_digest == summary["state_digest"]
        assert ill.writes == [] and any(request.startswith("GET /api/annotations") for request in ill.requests)
        stop(line, worker)  # while a request is in hand

        keys = {f"finding:{finding.id}" for finding in (*state.findings, *state.changes)}
        worker = worker_beside(line, well)  # tells again what stands
        until(lambda: len(well.notes) == len(keys), 90.0)
        stop(line, worker)
        asked, posted = len(well.calls("GET")), list(well.writes)
        worker = worker_beside(line, well)
        until(lambda: len(well.calls("GET")) >= asked + len(keys), 90.0)
        stop(line, worker)
    assert well.writes == posted  # and the third one finds it there
    assert {tag for note in well.notes.values() for tag in note["tags"] if ":" in tag} == keys
