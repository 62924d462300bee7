"""A live line for tests: real processes of `trustwatch` on a broker, with topics and a group of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from kafka import KafkaConsumer, TopicPartition

from streams.errors import CheckpointRefused
from streams.settings import ENV_PREFIX, Settings, load_settings
from streams.state import LineState, read_state
from streams.topics import Topics
from tests.conftest import KafkaUnderTest

STATE_EVERY_S = 1.0


class LiveLine:
    """Settings, processes and state of one line under test."""

    def __init__(self, kafka: KafkaUnderTest, folder: Path, **knobs: str) -> None:
        name = f"t{uuid.uuid4().hex[:8]}"
        topics = {key: f"{name}.{key}" for key in ("events", "counts", "findings", "dead_letters")}
        state = {f"{key}_state": f"{name}.{key}-state" for key in ("sessions", "watch")}
        self.raw = f"{name}.raw"
        self.environment = {
            "APP_ID": name,
            "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "KAFKA__IDEMPOTENT": str(kafka.real).lower(),
            "KAFKA__SESSION_TIMEOUT_S": "6",
            "PRIVACY__PSEUDONYM_KEY": "a key for tests only",
            "TOPICS__RAW": json.dumps([{"name": self.raw}]),
            "CHECKPOINTS__INTERVAL_S": "0.3",
            "METRICS__PORT": "0",
            "WEB__PORT": "0",
            **{f"TOPICS__{key.upper()}": value for key, value in (topics | state).items()},
            **knobs,
        }
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        with mock.patch.dict(os.environ, self._variables()):
            self.settings: Settings = load_settings()
        with Topics(self.settings) as admin:
            admin.create()

    def start(self, *command: str, **knobs: str) -> subprocess.Popen[bytes]:
        """Start `trustwatch COMMAND`; its log goes to the test's folder."""
        log = (self.folder / f"{command[0]}-{len(self.processes)}.log").open("wb")
        environment = {**os.environ, **self._variables(), **{ENV_PREFIX + name: value for name, value in knobs.items()}}
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", *command],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def run(self, *command: str) -> str:
        """Run a command to its end; returns standard output; fails on another exit code than 0."""
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", *command], env={**os.environ, **self._variables()}, cwd=self.folder,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def wait(self, consumed: int, until: float, timeout_s: float = 240.0) -> LineState:
        """The durable state once so many items are accounted for and all is judged up to `until`."""
        deadline = time.monotonic() + timeout_s
        state = None
        while time.monotonic() < deadline:
            state = self.state()
            if state.accounting["consumed"] >= consumed and state.until >= until and not state.pending_events:
                return state
            for process in self.processes:
                assert process.poll() in (None, 0, -signal.SIGKILL), self.logs()
            time.sleep(STATE_EVERY_S)
        raise AssertionError(
            f"not done after {timeout_s} s: {state and state.accounting} {state and state.until}\n{self.logs()}"
        )

    def wait_for_the_middle(self, after: int, events: int, timeout_s: float = 90.0) -> int:
        """Items accounted for durably, as soon as they are more than `after`; fails if it is all over by then."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            consumed = self.state().accounting["consumed"]
            if consumed > after:
                assert consumed < events, f"too late to kill in the middle: {consumed} of {events}"
                return consumed
            for process in self.processes:
                assert process.poll() in (None, -signal.SIGKILL), self.logs()
        raise AssertionError(f"nothing beyond {after} of {events} after {timeout_s} s\n{self.logs()}")

    def wait_for_frames(self, more: int, timeout_s: float = 90.0) -> None:
        """Return as soon as ingest has written so many more frames; quick, unlike reading the state."""
        topics = self.settings.topics
        where = [TopicPartition(topics.events, partition) for partition in range(topics.events_partitions)]
        deadline = time.monotonic() + timeout_s
        consumer = KafkaConsumer(bootstrap_servers=self.settings.kafka.bootstrap_servers)
        with contextlib.closing(consumer):
            before = sum(consumer.end_offsets(where).values())
            while sum(consumer.end_offsets(where).values()) < before + more:
                assert time.monotonic() < deadline, f"no {more} more frames after {timeout_s} s\n{self.logs()}"
                time.sleep(0.02)

    def wait_for_rest(self, timeout_s: float = 120.0) -> int:
        """Items accounted for durably, once they have stopped growing."""
        deadline = time.monotonic() + timeout_s
        last = -1
        while (consumed := self.state().accounting["consumed"]) != last:
            assert time.monotonic() < deadline, f"still growing: {consumed}"
            last = consumed
            time.sleep(STATE_EVERY_S)
        return last

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a process that runs."""
        assert process.poll() is None, self.logs()
        process.kill()
        assert process.wait() == -signal.SIGKILL

    def state(self) -> LineState:
        """What the checkpoints say now."""
        return read_state(self.settings)

    def backtest(self, *files: Path) -> tuple[dict[str, object], list[dict[str, object]]]:
        """Summary and findings of a backtest of the same files with the same settings."""
        out = self.folder / "findings.jsonl"
        summary = self.run("backtest", *map(str, files), "--json", "--out", str(out))
        return json.loads(summary), [json.loads(line) for line in out.read_text().splitlines()]

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """SIGTERM; returns the exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def logs(self) -> str:
        """The ends of all logs."""
        ends = (
            f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(self.folder.glob("*.log"))
        )
        return "\n".join(ends)

    def _variables(self) -> dict[str, str]:
        return {ENV_PREFIX + name: value for name, value in self.environment.items()}


@contextmanager
def live_line(kafka: KafkaUnderTest, folder: Path, **knobs: str) -> Iterator[LiveLine]:
    """A line whose processes are ended, by their ids, whatever the test did."""
    line = LiveLine(kafka, folder, **knobs)
    try:
        yield line
    finally:
        for process in line.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


__all__ = ["CheckpointRefused", "LiveLine", "live_line"]
