"""Local brokers as child processes: a port, a wait for the first answer, and an end that leaves nothing behind.

Both brokers that we start ourselves share this file: the embedded one of the demo (`streams.embedded`) and Apache Kafka
for tests and CI (`deploy.kafka`). A child is only ever ended by its own process id, never by name.

How a child ends with its parent:

1. `stop()`, from `with` or `finally`: SIGTERM, a wait, SIGKILL.
2. `atexit`: the same, when an exception or `sys.exit` skipped 1.
3. On Linux the kernel kills the child when the parent dies in any other way (SIGKILL, closed terminal). The request
   (`PR_SET_PDEATHSIG`) is made by a small launcher that then becomes the broker, not by `preexec_fn`, which can
   deadlock in a process with threads.

A child gets a process group of its own, so that Ctrl-C reaches only us, and the worker can still commit to the broker
while it shuts down.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import socket
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

from streams.errors import BrokerUnavailable

HOST: Final = "127.0.0.1"
# Below the ephemeral ports: while a broker is down, a client that retries could otherwise be given the broker's port
# as its own and connect to itself.
PORTS: Final = range(15_000, 32_000)
LOG_TAIL_LINES: Final = 15
_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # length, request, version, correlation, no client id
_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def free_port() -> int:
    """A loopback port that nobody listens on now, outside the range of ephemeral ports.

    Raises:
        BrokerUnavailable: no port was found in 200 attempts.
    """
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise BrokerUnavailable(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


def wait_until(condition: Callable[[], bool], timeout_s: float, *, every_s: float = 0.05) -> bool:
    """Wait until `condition` holds; whether it did within `timeout_s` seconds, asked every `every_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True


def answers_kafka(port: int, *, timeout_s: float = 1.0) -> bool:
    """Whether something on this loopback port answers Kafka's ApiVersions request without an error."""
    try:
        with socket.create_connection((HOST, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(_API_VERSIONS)
            head = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(head) == 10 and struct.unpack(">iih", head)[1:] == (1, 0)


class ManagedProcess:
    """One child process with a log file, started and ended by us alone.

    Args:
        name: what messages call it.
        command: program and arguments.
        log_path: file that takes its output, appended to.
        env: environment; none: ours.
        stop_s: seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        stop_s: float = 20.0,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [*command]
        self._env = env
        self._stop_s = stop_s
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._child is not None and self._child.poll() is None

    def start(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Start it and wait until `ready`.

        Raises:
            BrokerUnavailable: it ended, or was not ready after `timeout_s` seconds; with the last lines of its log.
        """
        if self.running:
            raise BrokerUnavailable(f"{self.name} runs already (process {self.pid})")
        try:
            # The kernel ends a child when the *thread* that started it ends, so one lasting thread starts them all.
            self._child = _spawner().submit(self._spawn).result()
        except OSError as error:
            raise BrokerUnavailable(f"{self.name} could not be started: {error}") from error
        atexit.register(self.stop)
        try:
            self._wait_ready(ready, timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it: SIGTERM, a wait, SIGKILL. Harmless when it does not run."""
        self._end(lambda child: child.terminate())

    def kill(self) -> None:
        """End it at once by SIGKILL, as a crash would. Harmless when it does not run."""
        self._end(lambda child: child.kill())

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [*_launcher(), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self._env is None else {**self._env},
                process_group=0 if os.name == "posix" else None,
            )

    def _wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        came = wait_until(lambda: not self.running or ready(), timeout_s)
        if came and self.running:
            return
        code = self._child.poll() if self._child else None
        what = f"was not ready after {timeout_s:g} s" if code is None else f"ended with code {code}"
        raise BrokerUnavailable(f"{self.name} {what}; its log {self.log_path} ends:\n{self.log_tail()}")

    def _end(self, signal_it: Callable[[subprocess.Popen[bytes]], None]) -> None:
        child, self._child = self._child, None
        atexit.unregister(self.stop)
        if child is None:
            return
        # Popen knows whether the child was reaped already, so a process id used again by others is never hit.
        signal_it(child)
        try:
            child.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class LocalBroker(ABC):
    """A Kafka-speaking broker on the loopback interface, for the length of a `with` block.

    Args:
        port: port to listen on; none: a free one, kept over restarts.
    """

    ready_timeout_s: float = 40.0

    def __init__(self, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._process: ManagedProcess | None = None

    @property
    def bootstrap(self) -> str:
        """Address for `bootstrap_servers`."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the broker while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the broker and wait until it answers.

        Raises:
            BrokerUnavailable: it does not run, with the last lines of its log.
        """
        if answers_kafka(self.port):
            raise BrokerUnavailable(f"{self.bootstrap} is taken: a broker answers there already")
        self._process = self._process or self._prepare()
        self._process.start(lambda: answers_kafka(self.port), self.ready_timeout_s)
        return self

    def stop(self) -> None:
        """End the broker in order and remove what was temporary."""
        if self._process:
            self._process.stop()
        self._clean()

    def kill(self) -> None:
        """End the broker by SIGKILL, as a crash would; its data stay for `start()`."""
        if self._process:
            self._process.kill()

    @abstractmethod
    def _prepare(self) -> ManagedProcess:
        """Make files and the process, not started yet."""

    @abstractmethod
    def _clean(self) -> None:
        """Remove temporary files and forget the process."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _launcher() -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]


@functools.cache
def _spawner() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")
