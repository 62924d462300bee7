"""`make stack` as a command: it says where everything is, and its end leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.stack import missing_programs
from deploy.stack.stack import answers
from tests.conftest import ROOT, kafka_required

pytestmark = pytest.mark.integration
START_S = 180.0


def children(pid: int) -> list[int]:
    """Ids of the processes that this one started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # gone meanwhile
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_and_ends_all_of_it(real_kafka_or_skip: None, promtool: str, tmp_path: Path,
                                          ending: signal.Signals) -> None:  # fmt: skip
    if reason := missing_programs():
        if kafka_required():
            pytest.fail(f"REQUIRE_KAFKA is set, but: {reason}", pytrace=False)
        pytest.skip(reason)
    log = tmp_path / "stack.log"
    with log.open("wb") as stream:
        stack = subprocess.Popen(
            [sys.executable, "-m", "deploy.stack", "--no-replay"], cwd=ROOT, stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + START_S
        while "Logs:" not in log.read_text():
            assert stack.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        said = dict(re.findall(r"^([A-Z][A-Za-z ]+): +(\S+)$", log.read_text(), re.MULTILINE))
        assert answers(said["Prometheus"] + "/-/ready") and answers(said["Alertmanager"] + "/-/ready")
        assert answers(said["Status page"] + "/") and answers(said["Metrics of ingest"])
        started = children(stack.pid)
        assert len(started) >= 5
        stack.send_signal(ending)
        assert stack.wait(60) == 0, log.read_text()
        assert not [pid for pid in started if alive(pid)]
        assert not Path(said["Logs"]).exists()
        assert not answers(said["Prometheus"] + "/-/ready")
    finally:
        if stack.poll() is None:
            stack.kill()
            stack.wait()
