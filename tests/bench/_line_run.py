"""One measurement of `make bench`, and what is read of a process: light, since the peers import it, too."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
BROKER_PID: Final = "BENCH_BROKER_PID"
"""Variable that tells a peer whose CPU time to read as that of the broker."""
SAID: Final = "MEASURED "


class Run(msgspec.Struct):
    """One measurement.

    Attributes:
        events: messages read.
        seconds: from the first message until all were judged.
        cpu_s: CPU seconds of the processes of this way.
        rss_mb: peak of their resident memory, MB.
        broker_cpu_s: CPU seconds of the broker meanwhile; 0 if not known.
        durable_s: from the first message until all was in durable checkpoints and acknowledged, if asked to stop as
            soon as all was judged; 0 for those who promise nothing.
        stages: stage → CPU seconds, where the way says it.
        applied: events taken up, where the way counts them.
        steps: journey steps begun: equal for all who did the same work.
        findings: findings begun.
    """

    events: int
    seconds: float
    cpu_s: float
    rss_mb: float
    broker_cpu_s: float = 0.0
    durable_s: float = 0.0
    stages: dict[str, float] = {}
    applied: int = 0
    steps: int = 0
    findings: int = 0

    @property
    def rate(self) -> float:
        """Events per second, to durable effects where there are any."""
        return self.events / (self.durable_s or self.seconds)

    @property
    def cpu_us(self) -> float:
        """CPU µs per event."""
        return self.cpu_s / self.events * 1e6


class Meter:
    """Measures a peer from within, from its first message to the last of so many."""

    def __init__(self, events: int) -> None:
        self._events, self._seen = events, 0
        self._broker = int(os.environ.get(BROKER_PID, "0"))
        self._began = self._cpu = self._broker_cpu = 0.0

    def begin(self) -> None:
        """The first message is here; harmless later."""
        if not self._began:
            self._began, self._cpu = time.monotonic(), time.process_time()
            self._broker_cpu = cpu_s(self._broker) if self._broker else 0.0

    def add(self, events: int = 1) -> bool:
        """Count messages that were handled; whether all were."""
        self._seen += events
        return self._seen >= self._events

    def say(self, **found: int) -> None:
        """Write the measurement to standard error."""
        seconds, cpu = time.monotonic() - self._began, time.process_time() - self._cpu
        broker_cpu = cpu_s(self._broker) - self._broker_cpu if self._broker else 0.0
        run = Run(self._seen, seconds, cpu, peak_mb(os.getpid()), broker_cpu, **found)  # type: ignore[arg-type]
        print(f"\n{SAID}{msgspec.json.encode(run).decode()}", file=sys.stderr, flush=True)


def said(log: str) -> Run | None:
    """The measurement that a peer wrote to its log, if it did."""
    lines = [line for line in log.splitlines() if line.startswith(SAID)]
    return msgspec.json.decode(lines[-1].removeprefix(SAID), type=Run) if lines else None


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mb(pid: int) -> float:
    """Peak of the resident memory of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
