"""Apache Kafka on the loopback interface: one node, broker and controller (KRaft) in one Java process.

The jars come from the Maven artifacts that `pom.xml` beside this file names, once, into `.cache/kafka` at the root of
the repository. Settings follow what a single node needs: no replica to wait for, and no topic that nobody declared.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from streams._process import HOST, LocalBroker, ManagedProcess, free_port
from streams.errors import BrokerUnavailable

JAVA_MIN: Final = 17
MAX_MESSAGE_BYTES: Final = 12 * 1024 * 1024
SECURED: Final = {"SASL_SSL": "SASL_SSL", "SSL": "SSL", "MUTUAL": "SSL"}
"""Listener → protocol."""
FETCH_TIMEOUT_S: Final = 600.0
FORMAT_TIMEOUT_S: Final = 60.0

_POM: Final = Path(__file__).with_name("pom.xml")
_CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "kafka"
_MARKER: Final = ".complete"
_SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
# The JVM starts faster and smaller with the serial collector; 512 MB is plenty for a test's volume.
_JVM: Final = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true")
_LOG4J: Final = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
"""


@dataclass(frozen=True)
class Security:
    """What a broker needs for listeners that are not open to everyone.

    Attributes:
        keystore: PEM file with the broker's key (PKCS 8) and its certificates.
        truststore: PEM file with the CA that signs clients' certificates.
        users: name → password, for SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN.
    """

    keystore: Path
    truststore: Path
    users: Mapping[str, str] = field(repr=False)


class Broker(LocalBroker):
    """A real Kafka broker for the length of a `with` block.

    Example:
        `with Broker() as kafka: connect(kafka.bootstrap)`

    Args:
        data_dir: directory of log, settings and data, kept; none: a temporary one, removed by `stop()`.
        port: port to listen on; none: a free one, kept over restarts.
        extra: more lines of server.properties, or other values; `{port}` and `{controller_port}` are filled in.
        security: adds a listener for each of `SECURED`, see `secured`; `port` stays open.

    Attributes:
        secured: `SASL_SSL`, `SSL` and `MUTUAL` (TLS with clients' certificates) → address for `bootstrap_servers`.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        extra: Mapping[str, str] = {},
        security: Security | None = None,
    ) -> None:
        super().__init__(port)
        self._given = data_dir.resolve() if data_dir else None
        self._extra = extra
        self._security = security
        self.secured = {name: f"{HOST}:{free_port()}" for name in SECURED} if security else {}
        self._directory: Path | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def log_path(self) -> Path:
        """File that takes the broker's log.

        Raises:
            BrokerUnavailable: the broker was never started, or was stopped.
        """
        if self._directory is None:
            raise BrokerUnavailable("no log: the broker was not started")
        return self._directory / "broker.log"

    def restart(self) -> None:
        """Stop in order and start again: same port, same data."""
        if self._process:
            self._process.stop()
        self.start()

    def _prepare(self) -> ManagedProcess:
        libs = fetch()
        self._directory = self._given or self._make_temporary()
        self._directory.mkdir(parents=True, exist_ok=True)
        properties = self._write_settings(self._directory)
        log4j = self._directory / "log4j2.properties"
        java = [_java(), *_JVM, f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{libs}/*"]
        try:
            _format(java, properties, self._directory / "data", self._security)
        except BrokerUnavailable:
            self._clean()
            raise
        return ManagedProcess(f"Kafka {self.bootstrap}", [*java, "kafka.Kafka", str(properties)], self.log_path)

    def _make_temporary(self) -> Path:
        self._temporary = tempfile.TemporaryDirectory(prefix="trustwatch-kafka-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    def _write_settings(self, directory: Path) -> Path:
        controller_port = free_port()
        lines = _settings(self.port, controller_port, directory / "data")
        if self._security:
            lines |= _secured(self._security, self.secured, lines["listeners"])
        for name, value in self._extra.items():
            lines[name] = value.replace("{port}", str(self.port)).replace("{controller_port}", str(controller_port))
        (directory / "log4j2.properties").write_text(_LOG4J)
        properties = directory / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return properties

    def _clean(self) -> None:
        if self._temporary:
            self._temporary.cleanup()
        self._temporary = self._directory = self._process = None


def available() -> str | None:
    """None if Kafka can run here (its jars may still have to be fetched), else what is missing."""
    try:
        version = _java_version()
    except BrokerUnavailable as error:
        return str(error)
    if version < JAVA_MIN:
        return f"Java {version} is too old, Kafka needs {JAVA_MIN}"
    if not _fetched(_libs()) and shutil.which("mvn") is None:
        return "no mvn on the PATH to fetch Kafka's jars with (Debian: apt-get install maven)"
    return None


def fetch() -> Path:
    """Directory of Kafka's jars, fetched with Maven if they are not there yet.

    Raises:
        BrokerUnavailable: Maven is missing or failed, with the last lines that it printed.
    """
    libs = _libs()
    if _fetched(libs):
        return libs
    if shutil.which("mvn") is None:
        raise BrokerUnavailable("no mvn on the PATH to fetch Kafka's jars with (Debian: apt-get install maven)")
    libs.parent.mkdir(parents=True, exist_ok=True)
    # Into a directory of our own, moved when complete: nobody ever starts a broker from half a set of jars.
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=libs.parent))
    try:
        _copy_dependencies(partial)
        (partial / _MARKER).write_bytes(_POM.read_bytes())
        if not _fetched(libs):
            shutil.rmtree(libs, ignore_errors=True)
            partial.rename(libs)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return libs


def _settings(port: int, controller_port: int, data: Path) -> dict[str, str]:
    single = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        # After a SIGKILL the broker may register again only when its former session ran out: 9 s by default.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        "offsets.topic.num.partitions": "4",  # 50 by default: each is a directory to make and to recover after a kill
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        **{f"{topic}.replication.factor": "1" for topic in single},
        **{f"{topic}.min.isr": "1" for topic in single},
    }


def _secured(security: Security, addresses: Mapping[str, str], listeners: str) -> dict[str, str]:
    logins = dict.fromkeys(_SCRAM, "org.apache.kafka.common.security.scram.ScramLoginModule required;")
    plain = " ".join(f'user_{name}="{password}"' for name, password in security.users.items())
    logins["PLAIN"] = f"org.apache.kafka.common.security.plain.PlainLoginModule required {plain};"
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **SECURED}
    return {
        "listeners": ",".join([listeners, *(f"{name}://{address}" for name, address in addresses.items())]),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(security.keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(security.truststore),
        "listener.name.mutual.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": ",".join(logins),
        **{f"listener.name.sasl_ssl.{name.lower()}.sasl.jaas.config": login for name, login in logins.items()},
    }


def _format(java: list[str], properties: Path, data: Path, security: Security | None = None) -> None:
    """Give the data directory its cluster id, once; a formatted one keeps its own."""
    if (data / "meta.properties").exists():
        return
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # The equals sign: a random id may begin with a hyphen, which would be taken for an option.
    command = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(properties)]
    for name, password in (security.users if security else {}).items():
        for mechanism in _SCRAM:
            command += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
    _run(command, "Kafka's storage could not be formatted", FORMAT_TIMEOUT_S)


def _copy_dependencies(target: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    _run([*command, f"-DoutputDirectory={target}"], "Maven could not fetch Kafka's jars", FETCH_TIMEOUT_S)


def _run(command: list[str], failure: str, timeout_s: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerUnavailable(f"{failure}: {error}") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BrokerUnavailable(f"{failure} (exit code {done.returncode}):\n{tail}")
    return done.stdout + done.stderr


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else "java"


@functools.cache
def _java_version() -> int:
    said = _run([_java(), "-version"], "no java that runs (Debian: apt-get install openjdk-17-jre-headless)", 30.0)
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def _libs() -> Path:
    version = ElementTree.parse(_POM).findtext(".//{*}kafka.version")
    return _CACHE / f"libs-{version}"


def _fetched(libs: Path) -> bool:
    """Whether the jars are there and complete, by the very pom that is here now."""
    marker = libs / _MARKER
    return marker.is_file() and marker.read_bytes() == _POM.read_bytes()
