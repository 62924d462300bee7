"""Takes the notifications of Alertmanager or Grafana, remembers the last and tells whoever wants to know.

`python -m deploy.stack.receiver` prints them: the receiver of Compose's profile `demo`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import unquote

import msgspec

from streams._process import HOST
from streams.errors import BrokerUnavailable

MAX_BYTES: Final = 1_000_000
KEPT: Final = 10_000


class Notification(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        at: clock when it came, seconds.
        receiver: whom it is for.
        status: `firing` or `resolved`.
        group: labels that it is grouped by.
        alerts: each with status, labels and annotations.
        text: what a message of another shape says (Slack's); empty otherwise.
    """

    at: float
    receiver: str
    status: str
    group: dict[str, str]
    alerts: list[dict[str, Any]]
    text: str = ""

    def lines(self) -> list[str]:
        """What it says, a line each."""
        if self.text:
            return [f"→ {self.receiver}: {self.text}"]
        return [
            f"[{alert['status']}] {alert['labels'].get('alertname', '')} → {self.receiver}:"
            f" {alert.get('annotations', {}).get('summary', '')}"
            for alert in self.alerts
        ]


class Receiver:
    """A webhook of our own for the length of a `with` block: `url`/<receiver's name>.

    Args:
        on_notification: called with each, from the server's thread.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.

    Attributes:
        notifications: the last of them.
        url: where to.
    """

    def __init__(
        self, on_notification: Callable[[Notification], object] = lambda _: None, host: str = HOST, port: int = 0
    ) -> None:
        self.notifications: deque[Notification] = deque(maxlen=KEPT)
        self._tell = on_notification
        try:
            self._server = ThreadingHTTPServer((host, port), self._handler())
        except OSError as error:
            raise BrokerUnavailable(f"the webhook cannot listen on {host}:{port}: {error}") from error
        self.url = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, path: str, body: bytes) -> None:
        taken = _read(unquote(path.strip("/")), msgspec.json.decode(body, type=dict[str, Any]))
        self.notifications.append(taken)
        self._tell(taken)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                code = 413
                if length <= MAX_BYTES:
                    try:
                        outer._take(self.path, self.rfile.read(length))
                        code = 200
                    except (msgspec.DecodeError, KeyError, TypeError):
                        code = 400  # Alertmanager logs it and does not try again
                self._answer(code, b"ok" if code == 200 else b"no notification")

            def do_GET(self) -> None:
                self._answer(200, b"ok")  # for a health check

            def _answer(self, code: int, body: bytes) -> None:
                # As Slack does: Grafana takes any other text for a failure, and sends again.
                self.send_response(code)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: requests are told by `on_notification`."""

        return Handler


def _read(receiver: str, said: dict[str, Any]) -> Notification:
    if "alerts" in said:
        return Notification(time.time(), receiver, said["status"], said["groupLabels"], said["alerts"])
    parts = [said, *said.get("attachments", [])]
    text = " · ".join(str(part[key]) for part in parts for key in ("title", "text") if part.get(key))
    return Notification(time.time(), receiver, "", {}, [], text or "a message without text")


def print_notification(notification: Notification) -> None:
    """Print it, but for the dead man's heartbeat: it comes every minute by design and would drown the rest."""
    if notification.group.get("alertname") != "DeadMan":
        print(*notification.lines(), sep="\n", flush=True)


def main() -> int:
    """Print what comes until Ctrl-C or SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.stack.receiver", description=__doc__)
    parser.add_argument("--host", default=HOST, help="address to listen on")
    parser.add_argument("--port", type=int, default=9095, help="port to listen on; 0 picks a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Receiver(print_notification, arguments.host, arguments.port) as receiver:
            print(f"listening on {receiver.url}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except BrokerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
