"""`make stack`: the installation of docker-compose.yml on loopback without Docker, all of it but Grafana.

Kafka, topics, ingest, worker, Prometheus and Alertmanager with the very rules and routes that Compose uses, and a
replay of the sample that ends now. Notifications are printed. Ctrl-C ends all of it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from dataclasses import fields
from pathlib import Path

from deploy.kafka import available
from deploy.stack.programs import missing_programs
from deploy.stack.receiver import Receiver, print_notification
from deploy.stack.sample import replay_sample, shift_to
from deploy.stack.stack import Ports, Stack
from streams.errors import TrustwatchError

CHECK_S = 1.0


def main() -> int:
    """Run the command; the exit code."""
    arguments = _arguments()
    if reason := available() or missing_programs():
        print(f"stack: cannot run here: {reason}", file=sys.stderr)
        return 1
    # SIGTERM ends us as Ctrl-C does, so that every process is stopped in order, the line before its broker. SIGINT is
    # set, too: what a script starts in the background has it ignored.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, signal.default_int_handler)
    try:
        ports = Ports(**{one.name: port for one in fields(Ports) if (port := getattr(arguments, one.name))})
        with tempfile.TemporaryDirectory(prefix="trustwatch-stack-", ignore_cleanup_errors=True) as folder:
            _run(Path(folder), ports, arguments)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
    except TrustwatchError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    return 0


def _run(folder: Path, ports: Ports, arguments: argparse.Namespace) -> None:
    with Receiver(print_notification) as receiver, Stack(folder, receiver.url, ports=ports) as stack:
        for what, where in stack.addresses.items():
            print(f"{what + ':':<24}{where}", flush=True)
        print(f"{'Logs:':<24}{folder}", flush=True)
        replaying = _Replaying(stack, arguments.replay_seconds)
        if not arguments.no_replay:
            replaying.start()
        until = None if arguments.seconds is None else time.monotonic() + arguments.seconds
        while until is None or time.monotonic() < until:
            time.sleep(CHECK_S)
            stack.check()
            if replaying.error:
                raise replaying.error


class _Replaying(threading.Thread):
    """Replays the sample while the main thread waits for the end."""

    def __init__(self, stack: Stack, seconds: float) -> None:
        super().__init__(name="replay", daemon=True)
        self._stack = stack
        self._seconds = seconds
        self.error: TrustwatchError | None = None

    def run(self) -> None:
        print(f"Replaying three weeks of made-up journeys and leads in {self._seconds:.0f} s", flush=True)
        try:
            done = replay_sample(self._stack.settings, self._seconds, shift_to(time.time()))
        except TrustwatchError as error:
            self.error = error
            return
        print(
            f"Replayed {done.messages:,} messages in {done.seconds:.0f} s; alerts follow within two minutes", flush=True
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.stack", description=__doc__)
    parser.add_argument("--for", dest="seconds", type=float, metavar="S", help="end after so many seconds")
    parser.add_argument("--no-replay", action="store_true", help="start with empty topics")
    parser.add_argument("--replay-seconds", type=float, default=60.0, metavar="S", help="seconds that the replay takes")
    for one in fields(Ports):
        option = f"--{one.name.replace('_', '-')}-port"
        parser.add_argument(option, dest=one.name, type=int, help="none: a free one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
