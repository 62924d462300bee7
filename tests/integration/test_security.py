"""A Kafka that is not open to everyone: SCRAM and PLAIN over TLS, TLS alone, mutual TLS, and ways to get it wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer
from kafka.admin import KafkaAdminClient
from pydantic import ValidationError

from deploy.kafka import Broker, Security
from streams.connection import explain
from streams.errors import BrokerUnavailable, ConfigError
from streams.kafka import aiokafka_options, confluent_options, faust_credentials, kafka_python_options, ssl_context
from streams.settings import ENV_PREFIX, KafkaSettings, load_settings
from streams.simulate import simulate, write
from streams.topics import Topics
from tests.conftest import KafkaUnderTest
from tests.integration.certificates import Authority
from tests.integration.live import LiveLine, live_line

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("real_kafka_or_skip")]
USER, PASSWORD, KEY_PASSWORD = "line", "tr0ub4dor-and-three", "horse-staple-battery"
WRONG_PASSWORD = "wr0ng-and-still-secret"


@dataclass(frozen=True)
class Secured:
    """The broker, and the files of those who may come to it."""

    addresses: dict[str, str]
    open: str
    ca: Path
    other_ca: Path
    client: Path
    encrypted_client: Path
    other_client: Path

    def knobs(self, listener: str = "SASL_SSL", **changed: object) -> dict[str, object]:
        """Right settings of `kafka` for a listener, and what is changed of them; None leaves a knob out."""
        given: dict[str, object] = {
            "bootstrap_servers": self.addresses[listener], "security_protocol": "SSL", "ssl_cafile": self.ca,
            "request_timeout_s": 2.0, "session_timeout_s": 6.0,
        }  # fmt: skip
        if listener == "SASL_SSL":
            given |= {"security_protocol": "SASL_SSL", "sasl_username": USER, "sasl_password": PASSWORD}
        if listener == "MUTUAL":
            given |= {"ssl_certfile": self.client}
        return {name: value for name, value in (given | changed).items() if value is not None}

    def settings(self, listener: str = "SASL_SSL", **changed: object) -> KafkaSettings:
        return KafkaSettings.model_validate(self.knobs(listener, **changed))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other = Authority(folder), Authority(folder, "other")
    with Broker(security=Security(ca.keystore("127.0.0.1"), ca.file, {USER: PASSWORD})) as broker:
        yield Secured(
            broker.secured, broker.bootstrap, ca.file, other.file, ca.client("line"),
            ca.client("locked", KEY_PASSWORD), other.client("stranger"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    truth = write(simulate(1.0, 5, (), sessions_per_day=150, leads_per_day=20), path, days=1.0, seed=5, erosions=())
    return path, truth.events


def environment(knobs: dict[str, object]) -> dict[str, str]:
    return {f"KAFKA__{name.upper()}": str(value) for name, value in knobs.items()}


def assert_no_secret(folder: Path, *said: str) -> None:
    """Neither in a log nor in anything that was said; not in the form in which SASL sends it, either."""
    texts = [*said, *(log.read_text(errors="replace") for log in folder.glob("*.log"))]
    assert sum(map(len, texts)) > 0
    for secret in (PASSWORD, WRONG_PASSWORD, KEY_PASSWORD, "a key for tests only"):
        wire = base64.b64encode(f"\0{USER}\0{secret}".encode()).decode()
        assert not any(secret in text or wire in text for text in texts)


# ── the whole line ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_line_runs_over_scram_and_keeps_its_secrets(
    secured: Secured, recorded: tuple[Path, int], tmp_path: Path
) -> None:
    path, events = recorded
    kafka = KafkaUnderTest(secured.addresses["SASL_SSL"], real=True)
    with live_line(kafka, tmp_path, **environment(secured.knobs(sasl_mechanism="SCRAM-SHA-512"))) as line:
        # The loudest level, because that is what somebody sets who looks for a fault in just these settings.
        line.start("ingest", "--loglevel", "DEBUG")
        line.start("worker", "--no-ingest", "--loglevel", "DEBUG")
        said = line.run("replay", str(path)) + line.run("topics", "check")
        summary, _ = line.backtest(path)
        state = line.wait(events, float(str(summary["until"])), 60.0)
        assert state.state_digest == summary["state_digest"]
        assert state.accounting["consumed"] == events
        said += line.run("state")
        doctor = json.loads(run(line, "doctor", "--json").stdout)
        checks = {check["name"]: (check["result"], check["message"]) for check in doctor["checks"]}
        assert all(checks[name][0] == "ok" for name in ("broker", "topics", "ingest lag", "clock")), checks
        assert checks["worker lag"][0] in ("ok", "warn"), checks  # it may be between two commits
        for process in line.processes:
            assert line.stop(process) == 0
        assert_no_secret(tmp_path, said, json.dumps(doctor))


@pytest.mark.parametrize("listener", ["PLAIN", "MUTUAL"])
def test_a_worker_runs_over(secured: Secured, recorded: tuple[Path, int], tmp_path: Path, listener: str) -> None:
    path, events = recorded
    knobs = secured.knobs(listener) if listener != "PLAIN" else secured.knobs(sasl_mechanism="PLAIN")
    with live_line(KafkaUnderTest(str(knobs["bootstrap_servers"]), real=True), tmp_path, **environment(knobs)) as line:
        worker = line.start("worker", "--loglevel", "DEBUG")
        said = line.run("replay", str(path))
        assert line.wait(events, 0.0, 60.0).accounting["consumed"] == events
        assert line.stop(worker) == 0
        assert_no_secret(tmp_path, said)


# ── every client library ──────────────────────────────────────────────────────────────────────────────────────────────

WAYS: list[tuple[str, dict[str, object]]] = [
    ("SASL_SSL", {"sasl_mechanism": "SCRAM-SHA-512"}),
    ("SASL_SSL", {"sasl_mechanism": "SCRAM-SHA-256"}),
    ("SASL_SSL", {"sasl_mechanism": "PLAIN"}),
    ("SSL", {}),
    ("MUTUAL", {}),
    ("MUTUAL", {"ssl_certfile": "encrypted_client", "ssl_key_password": KEY_PASSWORD}),
    ("MUTUAL", {"ssl_keyfile": "client"}),
]


def resolved(secured: Secured, changed: dict[str, object]) -> dict[str, object]:
    """Names of files as the files that they stand for."""
    return {
        name: getattr(secured, str(value)) if name.startswith("ssl_") and hasattr(secured, str(value)) else value
        for name, value in changed.items()
    }


@pytest.mark.parametrize(("listener", "changed"), WAYS)
def test_each_client_library_gets_in(
    secured: Secured, listener: str, changed: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    kafka = secured.settings(listener, **resolved(secured, changed))

    async def start() -> None:
        producer = AIOKafkaProducer(**aiokafka_options(kafka))
        await producer.start()
        await producer.stop()

    asyncio.run(start())
    KafkaAdminClient(**kafka_python_options(kafka)).close()
    assert Producer(confluent_options(kafka)).list_topics(timeout=5).brokers
    credentials = faust_credentials(kafka)
    assert credentials.protocol.value == kafka.security_protocol
    context = credentials.ssl_context if listener == "SASL_SSL" else credentials.context
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert "nothing" in explain(kafka, "nothing"), "our own way in finds no fault"
    for secret in (PASSWORD, KEY_PASSWORD):
        assert secret not in caplog.text + repr(kafka) + repr(credentials)


# ── every way to get it wrong ─────────────────────────────────────────────────────────────────────────────────────────

WRONG: dict[str, tuple[str, dict[str, object], str]] = {
    "wrong password": (
        "SASL_SSL", {"sasl_password": WRONG_PASSWORD}, "kafka.sasl_username/sasl_password: {} refuses them: Auth"),
    "wrong password, PLAIN": (
        "SASL_SSL", {"sasl_password": WRONG_PASSWORD, "sasl_mechanism": "PLAIN"}, "kafka.sasl_username/sasl_password"),
    "unknown user": ("SASL_SSL", {"sasl_username": "nobody"}, "kafka.sasl_username/sasl_password: {} refuses them"),
    "mechanism that is not offered": (
        "SASL_SSL", {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "ca"},
        "kafka.sasl_mechanism is OAUTHBEARER, {} offers "),
    "unknown CA": ("SASL_SSL", {"ssl_cafile": "other_ca"}, "kafka.ssl_cafile "),
    "no CA": ("SASL_SSL", {"ssl_cafile": None}, "kafka.ssl_cafile (not set: the CAs of this system)"),
    "hostname": ("SASL_SSL", {"bootstrap_servers": "localhost"}, "kafka.bootstrap_servers localhost"),
    "no TLS": (
        "SASL_SSL", {"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": None},
        "kafka.security_protocol is SASL_PLAINTEXT, but {} does not speak plain Kafka"),
    "no SASL": (
        "SASL_SSL", {"security_protocol": "SSL", "sasl_username": None, "sasl_password": None},
        "kafka.security_protocol is SSL, but {} wants authentication (SCRAM-SHA-512, "),
    "SASL where there is none": (
        "SSL", {"security_protocol": "SASL_SSL", "sasl_username": USER, "sasl_password": PASSWORD},
        "kafka.security_protocol is SASL_SSL, but {} asks for no authentication. Fix: set it to SSL"),
    "TLS where there is none": (
        "SSL", {"bootstrap_servers": "open"}, "kafka.security_protocol is SSL, but {} speaks no TLS that we know"),
    "no certificate of ours": (
        "MUTUAL", {"ssl_certfile": None}, "kafka.ssl_certfile/ssl_keyfile (not set): {} does not accept"),
    "certificate of a stranger": (
        "MUTUAL", {"ssl_certfile": "other_client"}, "kafka.ssl_certfile/ssl_keyfile (set): {} does not accept"),
    "nobody there": ("SSL", {"bootstrap_servers": "127.0.0.1:1"}, "kafka.bootstrap_servers {}: nothing answers there"),
    "no address": ("SSL", {"bootstrap_servers": "kafka"}, "kafka.bootstrap_servers: 'kafka' is no host:port"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_by_the_name_of_its_knob(secured: Secured, case: str) -> None:
    listener, changed, said = WRONG[case]
    changed = resolved(secured, changed)
    if changed.get("bootstrap_servers") == "localhost":
        changed["bootstrap_servers"] = secured.addresses[listener].replace("127.0.0.1", "localhost")
    if changed.get("bootstrap_servers") == "open":
        changed["bootstrap_servers"] = secured.open
    kafka = secured.settings(listener, **changed)
    message = explain(kafka, "unable to bootstrap")
    assert message.startswith(said.format(kafka.bootstrap_servers)), message
    assert PASSWORD not in message and WRONG_PASSWORD not in message
    assert "Fix: " in message or case == "no address"


def test_one_good_address_of_several_is_no_fault_of_the_address(secured: Secured) -> None:
    kafka = secured.settings(bootstrap_servers=f"127.0.0.1:1, {secured.addresses['SASL_SSL']}")
    assert explain(kafka, "what the client said").endswith(": what the client said")
    KafkaAdminClient(**kafka_python_options(kafka)).close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sasl_password": None}, "needs kafka.sasl_password"),
        ({"sasl_username": None, "sasl_password": None}, "needs kafka.sasl_username, kafka.sasl_password"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "needs kafka.sasl_oauth_token_file"),
        ({"security_protocol": "SSL"}, "kafka.sasl_username, kafka.sasl_password would not be used"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "kafka.ssl_cafile would not be used"),
        ({"ssl_keyfile": "key.pem"}, "kafka.ssl_keyfile and kafka.ssl_key_password need kafka.ssl_certfile"),
    ],
)
def test_a_missing_or_useless_knob_is_named_and_no_secret_is(
    secured: Secured, changed: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="kafka"):
        secured.settings(**changed)
    for name, value in environment(secured.knobs(**changed)).items():
        monkeypatch.setenv(ENV_PREFIX + name, value)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert said in str(error.value)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ssl_cafile": "nowhere.pem"}, r"kafka\.ssl_cafile nowhere\.pem: cannot be read: No such file"),
        ({"ssl_cafile": __file__}, r"kafka\.ssl_cafile .*: no PEM file of certificates"),
        ({"ssl_certfile": "ca"}, r"kafka\.ssl_certfile/ssl_keyfile: not a PEM certificate with its key"),
        ({"ssl_keyfile": "other_client"}, r"kafka\.ssl_certfile/ssl_keyfile: .*KEY_VALUES_MISMATCH"),
        ({"ssl_certfile": "encrypted_client"}, r"or kafka\.ssl_key_password is not that of the key"),
        ({"ssl_certfile": "encrypted_client", "ssl_key_password": WRONG_PASSWORD}, r"kafka\.ssl_key_password is not"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(secured: Secured, changed: dict[str, object], said: str) -> None:
    kafka = secured.settings("MUTUAL", **resolved(secured, changed))
    for options in (ssl_context, aiokafka_options, kafka_python_options, confluent_options, faust_credentials):
        with pytest.raises(ConfigError, match=said):
            options(kafka)


# ── what a user sees ──────────────────────────────────────────────────────────────────────────────────────────────────


def run(line: LiveLine, *command: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    given = line.environment | knobs
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *command], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {ENV_PREFIX + name: value for name, value in given.items()}, cwd=line.folder,
    )  # fmt: skip


def test_commands_end_with_the_knob_that_is_wrong_and_in_time(
    secured: Secured, recorded: tuple[Path, int], tmp_path: Path
) -> None:
    kafka = KafkaUnderTest(secured.addresses["SASL_SSL"], real=True)
    path = str(recorded[0])
    commands = ("worker", "--loglevel=DEBUG"), ("ingest",), ("topics", "check"), ("state",), ("replay", path)
    with live_line(kafka, tmp_path, **environment(secured.knobs())) as line:
        for command in commands:
            began = time.monotonic()
            done = run(line, *command, KAFKA__SASL_PASSWORD=WRONG_PASSWORD)
            assert time.monotonic() - began < 20, command
            assert done.returncode == 1, done.stderr
            last = done.stderr.strip().splitlines()[-1]
            assert last.startswith("trustwatch: kafka.sasl_username/sasl_password: ") and "Fix: " in last, command
            assert "Traceback" not in done.stderr
            assert_no_secret(tmp_path, done.stdout, done.stderr)
        doctor = run(line, "doctor", "--json", KAFKA__SASL_PASSWORD=WRONG_PASSWORD)
        checks: dict[str, Any] = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
        assert doctor.returncode == 1
        assert checks["broker"]["message"].startswith("kafka.sasl_username/sasl_password: ")
        assert checks["broker"]["fix"] == "correct user and password, or have the user made"
        assert_no_secret(tmp_path, doctor.stdout, doctor.stderr)


def test_topics_says_why_it_cannot_connect(secured: Secured) -> None:
    settings = load_settings(kafka=secured.knobs(sasl_password=WRONG_PASSWORD))
    with pytest.raises(BrokerUnavailable, match=r"kafka\.sasl_username/sasl_password"):
        Topics(settings)
