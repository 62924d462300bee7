"""The processes of the installation, started and ended in order, each by its own id."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Self
from unittest import mock

from deploy.kafka import Broker
from deploy.stack.configs import alertmanager_config, faster_rules, prometheus_config
from deploy.stack.programs import ROOT, find_program, runnable_alertmanager
from streams._process import HOST, ManagedProcess, free_port
from streams.demo import DEMO_KEY
from streams.errors import BrokerUnavailable, ConfigError
from streams.settings import ENV_PREFIX, Settings, load_settings

READY_S: Final = 90.0
TOPICS_S: Final = 60.0
DEPLOY: Final = ROOT / "deploy"


@dataclass(frozen=True)
class Ports:
    """Where everything listens, on loopback; each is free-picked unless given."""

    kafka: int = field(default_factory=free_port)
    ingest_metrics: int = field(default_factory=free_port)
    worker_metrics: int = field(default_factory=free_port)
    ingest_status: int = field(default_factory=free_port)
    status: int = field(default_factory=free_port)
    prometheus: int = field(default_factory=free_port)
    alertmanager: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        taken = [getattr(self, one.name) for one in fields(self)]
        if len(set(taken)) < len(taken):
            raise ConfigError(f"stack: a port is given twice: {taken}")


class Stack:
    """Kafka, topics, ingest, worker, Prometheus and Alertmanager for the length of a `with` block.

    Args:
        folder: takes configurations, data and logs.
        webhook: base URL that takes the notifications.
        ports: where they listen.
        interval_s: seconds between scrapes and evaluations; none: as Compose has it.
        knobs: more environment of trustwatch's own processes, `TRUSTWATCH_…`.

    Attributes:
        settings: what ingest, worker and replay run with.
    """

    def __init__(
        self,
        folder: Path,
        webhook: str,
        *,
        ports: Ports | None = None,
        interval_s: float | None = None,
        knobs: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.ports = ports or Ports()
        self._webhook = webhook
        self._interval_s = interval_s
        self._running = ExitStack()
        self._processes: list[ManagedProcess] = []
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
        self._environment = kept | self._line_environment() | dict(knobs or {})
        self.settings = self._settings()

    @property
    def addresses(self) -> dict[str, str]:
        """What → where, for people and tests."""
        at = self.ports
        return {
            "Kafka": f"{HOST}:{at.kafka}",
            "Status page": f"http://{HOST}:{at.status}",
            "Prometheus": f"http://{HOST}:{at.prometheus}",
            "Alertmanager": f"http://{HOST}:{at.alertmanager}",
            "Metrics of the worker": f"http://{HOST}:{at.worker_metrics}/metrics",
            "Metrics of ingest": f"http://{HOST}:{at.ingest_metrics}/metrics",
        }

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.__exit__)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def check(self) -> None:
        """Fail if one of the processes has ended.

        Raises:
            BrokerUnavailable: which one, with the end of its log.
        """
        for process in self._processes:
            if not process.running:
                raise BrokerUnavailable(f"{process.name} has ended; its log ends:\n{process.log_tail()}")

    def stop_worker(self) -> None:
        """End the worker as an orchestrator would."""
        next(process for process in self._processes if process.name == "worker").stop()

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {process.name}\n{process.log_tail()}" for process in self._processes)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._running.enter_context(Broker(self.folder / "kafka", self.ports.kafka))
        self._make_topics()
        # Alertmanager first: whatever fires from now on finds somebody to tell.
        self._run("alertmanager", self._alertmanager(), self.addresses["Alertmanager"] + "/-/ready")
        self._run("prometheus", self._prometheus(), self.addresses["Prometheus"] + "/-/ready")
        # The sources are what ingest tells of: it comes first, as `depends_on` has it.
        self._run_line("ingest", ["ingest"], self.ports.ingest_metrics, self.ports.ingest_status)
        self._run_line("worker", ["worker", "--no-ingest"], self.ports.worker_metrics, self.ports.status)

    def _make_topics(self) -> None:
        command = self._trustwatch("topics", "create")
        done = subprocess.run(
            command, env=self._environment, cwd=self.folder, capture_output=True, text=True, timeout=TOPICS_S,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise BrokerUnavailable(f"topics create failed with code {done.returncode}:\n{done.stderr[-2000:]}")

    def _run_line(self, name: str, arguments: list[str], metrics_port: int, status_port: int) -> None:
        ports = {"TRUSTWATCH_METRICS__PORT": str(metrics_port), "TRUSTWATCH_WEB__PORT": str(status_port)}
        self._run(name, self._trustwatch(*arguments), f"http://{HOST}:{status_port}/readyz", ports)

    def _run(self, name: str, command: list[str], ready_url: str, more: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-c", _IN_FOLDER, str(self.folder), *command]
        environment = self._environment | dict(more or {})
        process = ManagedProcess(name, command, self.folder / f"{name}.log", env=environment)
        self._processes.append(process)
        self._running.callback(process.stop)
        process.start(lambda: answers(ready_url), READY_S)

    def _trustwatch(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "streams.cli", *arguments]

    def _prometheus(self) -> list[str]:
        at = self.ports
        rules = DEPLOY / "prometheus" / "rules"
        if self._interval_s is not None:
            rules = self._faster(rules)
        config = prometheus_config(
            (DEPLOY / "prometheus" / "prometheus.yml").read_text(),
            targets={
                "trustwatch": [f"{HOST}:{at.ingest_metrics}", f"{HOST}:{at.worker_metrics}"],
                "prometheus": [f"{HOST}:{at.prometheus}"],
                "alertmanager": [f"{HOST}:{at.alertmanager}"],
            },
            alertmanager=f"{HOST}:{at.alertmanager}",
            rules=rules,
            interval_s=self._interval_s,
        )
        written = self._write("prometheus.yml", config)
        return [
            str(find_program("prometheus")), f"--config.file={written}", f"--web.listen-address={HOST}:{at.prometheus}",
            f"--storage.tsdb.path={self.folder / 'prometheus-data'}",
        ]  # fmt: skip

    def _faster(self, rules: Path) -> Path:
        folder = self.folder / "rules"
        folder.mkdir(exist_ok=True)
        for path in rules.glob("*.yml"):
            (folder / path.name).write_text(faster_rules(path.read_text()))
        return folder

    def _alertmanager(self) -> list[str]:
        source = DEPLOY / "alertmanager"
        config = alertmanager_config((source / "alertmanager.yml").read_text(), webhook=self._webhook, templates=source)
        written = self._write("alertmanager.yml", config)
        return [
            str(runnable_alertmanager(self.folder)), f"--config.file={written}",
            f"--web.listen-address={HOST}:{self.ports.alertmanager}", "--cluster.listen-address=",
            f"--storage.path={self.folder / 'alertmanager-data'}",
        ]  # fmt: skip

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def _line_environment(self) -> dict[str, str]:
        return {
            "TRUSTWATCH_CONFIG": str(DEPLOY / "trustwatch.yaml"),
            "TRUSTWATCH_KAFKA__BOOTSTRAP_SERVERS": f"{HOST}:{self.ports.kafka}",
            "TRUSTWATCH_PRIVACY__PSEUDONYM_KEY": DEMO_KEY,
            "TRUSTWATCH_MONITORING__PROMETHEUS_URL": self.addresses["Prometheus"],
            "TRUSTWATCH_MONITORING__STATUS_URL": self.addresses["Status page"],
            "TRUSTWATCH_MONITORING__RUNBOOK_URL": (DEPLOY / "runbook.md").as_uri(),
        }

    def _settings(self) -> Settings:
        """The settings of the processes; nothing of the user's own gets in."""
        ours = {name: value for name, value in self._environment.items() if name.upper().startswith(ENV_PREFIX)}
        with mock.patch.dict(os.environ, ours):
            for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name not in ours]:
                del os.environ[name]
            return load_settings()


def answers(url: str) -> bool:
    """Whether this URL answers with a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(200 <= answer.status < 300)
    except (urllib.error.URLError, OSError):
        return False  # not up yet: whoever waits asks again


_IN_FOLDER: Final = "import os, sys; os.chdir(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"
"""In a folder of its own no `trustwatch.yaml` of the user's is read."""
