"""`python -m deploy.kafka`: a real Kafka broker in the foreground; `python -m deploy.kafka fetch`: its jars only."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from deploy.kafka.broker import Broker, available, fetch
from streams.errors import TrustwatchError


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "fetch"), default="run")
    parser.add_argument("--port", type=int, help="port to listen on; none: a free one")
    parser.add_argument("--dir", type=Path, help="directory for data and log, kept; none: a temporary one")
    arguments = parser.parse_args()
    try:
        if reason := available():
            print(f"Kafka cannot run here: {reason}", file=sys.stderr)
            return 1
        if arguments.action == "fetch":
            print(fetch())
            return 0
        return _serve(Broker(arguments.dir, arguments.port))
    except TrustwatchError as error:
        print(error, file=sys.stderr)
        return 1


def _serve(broker: Broker) -> int:
    # SIGTERM ends us as Ctrl-C does: the broker is stopped in order and its temporary directory removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with broker:
            print(f"Kafka listens on {broker.bootstrap}, log {broker.log_path}; Ctrl-C ends it", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
