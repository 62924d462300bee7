"""Doctor: on a broker, on nothing at all, and beside Prometheus and Grafana that are well, ill or somebody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from streams import doctor
from streams._process import free_port
from streams.cli import cli
from streams.doctor import Check, examine
from streams.settings import ENV_PREFIX, Settings
from streams.topics import Topics
from tests.conftest import KafkaUnderTest

NOBODY = "127.0.0.1:1"
ON_BROKER = ("topics", "ingest lag", "worker lag", "clock")
NO_VECTOR = {"status": "success", "data": {"resultType": "vector", "result": []}}
VECTOR = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "4"]}]}}


def made(bootstrap: str = NOBODY, **more: Any) -> Settings:
    """Settings of an installation that shares nothing with others on the broker."""
    own = uuid.uuid4().hex[:8]
    names = ("events", "counts", "findings", "dead_letters", "sessions_state", "watch_state")
    topics = {name: f"{own}.{name}" for name in names} | {"raw": [{"name": f"{own}.raw"}], "raw_partitions": 1}
    given: dict[str, Any] = {
        "app_id": own,
        "kafka": {"bootstrap_servers": bootstrap, "request_timeout_s": 0.3 if bootstrap == NOBODY else 3.0},
        "topics": topics,
        "checkpoints": {"interval_s": 0.1},
        "privacy": {"pseudonym_key": "0123456789abcdef"},
        "metrics": {"port": free_port()},
    }
    return Settings(**given | more)


def looked(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in examine(settings)}


@pytest.fixture
def installed(kafka: KafkaUnderTest) -> Settings:
    settings = made(kafka.bootstrap)
    with Topics(settings) as topics:
        topics.create()
    return settings


def produce(settings: Settings, topic: str, count: int, ahead_s: float = 0.0) -> None:
    servers = settings.kafka.bootstrap_servers
    with contextlib.closing(KafkaProducer(bootstrap_servers=servers, enable_idempotence=False)) as producer:
        for _ in range(count):
            producer.send(topic, b"{}", partition=0, timestamp_ms=int((time.time() + ahead_s) * 1000))
        producer.flush(10)


def commit(settings: Settings, group: str, topic: str, offset: int) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
    )
    with contextlib.closing(consumer):
        where = TopicPartition(topic, 0)
        consumer.assign([where])
        consumer.commit({where: OffsetAndMetadata(offset, "", -1)})


@contextlib.contextmanager
def moving(settings: Settings, group: str, topic: str) -> Iterator[None]:
    """A group that commits one offset after the other, as a live one would."""
    done = threading.Event()

    def move() -> None:
        for offset in range(1, 20):
            commit(settings, group, topic, offset)
            if done.wait(0.3):
                return

    mover = threading.Thread(target=move)
    mover.start()
    time.sleep(0.5)
    yield
    done.set()
    mover.join()


# ── Kafka ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_broker_the_rest_is_skipped_and_it_ends_soon() -> None:
    began = time.monotonic()
    found = looked(made())
    assert time.monotonic() - began < 15
    assert found["broker"].result == "fail" and "kafka.bootstrap_servers" in str(found["broker"].fix)
    assert {found[name].result for name in ON_BROKER} == {"skip"}
    assert found["settings"].result == "ok"


def test_a_broker_that_accepts_but_never_answers_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECK_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        found = looked(made(f"127.0.0.1:{deaf.getsockname()[1]}"))
    assert time.monotonic() - began < 5
    assert found["broker"].result == "fail" and "no answer within 1 s" in found["broker"].message


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"privacy": {}}, "privacy.pseudonym_key"),
        ({"detectors": {"early_dropof": {}}}, "early_dropof"),
        ({"journey_file": "/no/such.yaml"}, "/no/such.yaml"),
        ({"topics": {"raw": [{"name": "a", "format": "xml"}]}}, "xml"),
    ],
)
def test_settings_that_no_worker_could_start_with_are_named(more: dict[str, Any], named: str) -> None:
    check = looked(made(**more))["settings"]
    assert check.result == "fail" and named in check.message and check.fix


def test_a_debezium_topic_without_a_map_of_its_tables_is_pointed_out(tmp_path: Path) -> None:
    topics = {"raw": [{"name": "shop", "format": "debezium"}, {"name": "web"}]}
    check = looked(made(topics=topics))["settings"]
    assert check.result == "warn"
    assert "topics.raw: shop: debezium, but ingest.debezium_map is not set" in check.message
    assert check.fix and "ingest.debezium_map" in check.fix
    (tmp_path / "map.yaml").write_text("tables: {orders: []}")
    mapped = made(topics=topics, ingest={"debezium_map": tmp_path / "map.yaml"})
    assert looked(mapped)["settings"].result == "ok"


def test_a_check_that_breaks_is_a_finding_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "Plan", lambda _settings: 1 / 0)
    check = looked(made())["settings"]
    assert check.result == "fail" and "ZeroDivisionError" in check.message


@pytest.mark.integration
def test_a_fresh_broker_lacks_topics_and_groups(kafka: KafkaUnderTest) -> None:
    settings = made(kafka.bootstrap)
    found = looked(settings)
    assert found["broker"].result == ("ok" if kafka.real else "warn")
    assert found["topics"].result == "fail" and found["topics"].fix == "trustwatch topics create"
    for name in ("ingest lag", "worker lag"):
        assert found[name].result == "warn" and "has never run" in found[name].message
    assert found["clock"].result == "skip"


@pytest.mark.integration
def test_a_fresh_installation_has_its_topics(installed: Settings) -> None:
    assert looked(installed)["topics"].result == "ok"


@pytest.mark.integration
def test_a_group_that_stands_still_is_told_from_one_that_moves(installed: Settings, kafka: KafkaUnderTest) -> None:
    raw, events = installed.topics.raw[0].name, installed.topics.events
    for topic in (raw, events):
        produce(installed, topic, 20)
    commit(installed, f"{installed.app_id}-ingest", raw, 4)
    with moving(installed, installed.app_id, events):
        found = looked(installed)
    if not kafka.real:
        assert "understates" in found["ingest lag"].message
        return
    assert (
        found["ingest lag"].result == "warn"
        and f"committed nothing while we looked: {raw}" in found["ingest lag"].message
    )
    assert f"{raw} 16," in found["ingest lag"].message.replace(";", ",")
    assert found["worker lag"].result == "ok", found["worker lag"]


@pytest.mark.integration
def test_a_group_that_read_everything_is_ok(installed: Settings) -> None:
    raw = installed.topics.raw[0].name
    produce(installed, raw, 3)
    commit(installed, f"{installed.app_id}-ingest", raw, 3)
    assert looked(installed)["ingest lag"].result == "ok"


@pytest.mark.integration
@pytest.mark.parametrize("ahead_s", [0.0, 120.0])
def test_a_record_from_the_future_tells_on_its_sender(
    installed: Settings, kafka: KafkaUnderTest, ahead_s: float
) -> None:
    produce(installed, installed.topics.events, 1)  # fresh and in time: vouches for our clock
    produce(installed, installed.topics.raw[0].name, 1, ahead_s)
    check = looked(installed)["clock"]
    if not kafka.real:
        assert check.result == "skip"
    elif ahead_s:
        assert check.result == "fail" and "the senders' clocks are ahead:" in check.message
    else:
        assert check.result == "ok"


# ── Prometheus, Grafana, the worker: fakes at the edge ────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def answering(pages: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """A web server on loopback that knows these paths; its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages.get(self.path.partition("?")[0], (404, b"not found"))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def page(value: object) -> tuple[int, bytes]:
    return 200, json.dumps(value).encode()


QUERY = "/api/v1/query"
HEALTHY = {"/-/healthy": (200, b"Prometheus is Healthy.")}


@pytest.mark.parametrize(
    ("pages", "result", "message"),
    [
        (HEALTHY | {QUERY: page(VECTOR)}, "ok", "scrapes trustwatch"),
        (HEALTHY | {QUERY: page(NO_VECTOR)}, "warn", "has no trustwatch_events_total"),
        (HEALTHY | {QUERY: (200, b"<html>")}, "fail", "not as Prometheus"),
        (HEALTHY | {QUERY: page({"data": 7})}, "fail", "not as Prometheus"),
        ({"/-/healthy": (503, b"")}, "fail", "503"),
        ({"/-/healthy": (302, b"")}, "fail", "302"),
    ],
)
def test_prometheus(pages: dict[str, tuple[int, bytes]], result: str, message: str) -> None:
    with answering(pages) as url:
        check = looked(made(monitoring={"prometheus_url": url + "/"}))["prometheus"]
    assert check.result == result and message in check.message
    assert (check.fix is None) == (result == "ok")


@pytest.mark.parametrize(
    ("answer", "result", "message"),
    [
        (page({"database": "ok", "version": "12.1.0"}), "ok", "12.1.0"),
        (page({"database": "failing"}), "fail", "failing"),
        (page([]), "fail", "not as Grafana"),
        ((503, b""), "fail", "503"),
    ],
)
def test_grafana(answer: tuple[int, bytes], result: str, message: str) -> None:
    with answering({"/api/health": answer}) as url:
        check = looked(made(monitoring={"grafana_url": url}))["grafana"]
    assert check.result == result and message in check.message


@pytest.mark.parametrize(
    "url",
    ["http://admin:hunter2@127.0.0.1:1", "file:///etc/passwd", "ftp://127.0.0.1", "127.0.0.1:9090", "http://[", ""],
)
def test_a_url_that_is_none_is_refused_by_knob_and_its_password_not_shown(url: str) -> None:
    found = examine(made(monitoring={"prometheus_url": url, "grafana_url": url}))
    for check in found:
        if check.name in ("prometheus", "grafana"):
            assert check.result == "fail" and f"monitoring.{check.name}_url" in check.message
    assert b"hunter2" not in msgspec.json.encode(found)


def test_what_is_not_configured_is_skipped_by_knob() -> None:
    found = looked(made(metrics={"port": 0}))
    knobs = ("monitoring.prometheus_url", "monitoring.grafana_url", "metrics.port")
    for name, knob in zip(("prometheus", "grafana", "worker metrics"), knobs, strict=True):
        assert found[name].result == "skip" and knob in found[name].message


@pytest.mark.parametrize("speaks_http", [True, False])
def test_what_does_not_answer_fails_with_its_knob(speaks_http: bool) -> None:
    def shout(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            server.accept()[0].sendall(b"SSH-2.0-not-http\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        if not speaks_http:
            threading.Thread(target=shout, args=(server,), daemon=True).start()
        check = looked(made(monitoring={"grafana_url": url}))["grafana"]
    assert check.result == "fail" and "monitoring.grafana_url" in str(check.fix)


@pytest.mark.parametrize(
    ("body", "result"), [(b"trustwatch_events_total 0\n", "ok"), (b"node_load1 0.5\n", "warn"), (None, "warn")]
)
def test_the_metrics_of_a_worker(body: bytes | None, result: str) -> None:
    with answering({"/metrics": (200, body)} if body else {}) as url:
        check = looked(made(metrics={"host": "0.0.0.0", "port": int(url.rpartition(":")[2])}))["worker metrics"]
    assert check.result == result


def test_the_command_ends_with_1_when_something_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTWATCH_KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    monkeypatch.setenv("TRUSTWATCH_KAFKA__REQUEST_TIMEOUT_S", "0.3")
    done = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
    assert done.return_value == 1
    said = json.loads(done.stdout)
    assert said.keys() == {"ok", "checks"} and said["ok"] is False
    checks = msgspec.convert(said["checks"], list[Check])
    assert [check.name for check in checks[:2]] == ["settings", "broker"]
    assert all(check.fix for check in checks if check.result in ("warn", "fail"))


@pytest.mark.parametrize(
    ("command", "variables", "code", "says"),
    [
        (["state"], {"KAFKA__BOOTSTRAP_SERVERS": NOBODY}, 1, "kafka.bootstrap_servers"),
        (["topics", "check"], {"KAFKA__BOOTSTRAP_SERVERS": NOBODY}, 1, "kafka.bootstrap_servers"),
        (["topics", "check"], {"KAFKA__BOOTSTRAP_SERVERS": "a:b:c"}, 1, "kafka.bootstrap_servers"),
        (["state"], {"KAFKA__BOOTSTRAP_SERVERS": "a:b:c"}, 1, "kafka.bootstrap_servers"),
        (["replay", "{file}"], {"TOPICS__RAW": "[]"}, 2, "topics.raw"),
        (["backtest", "{file}"], {"TOPICS__RAW": "[]"}, 2, "topics.raw"),
        (["worker", "--loglevel", "FOO"], {}, 2, "--loglevel"),
        (["ingest", "--loglevel", "FOO"], {}, 2, "--loglevel"),
    ],
    ids=str,
)
def test_what_cannot_work_ends_in_a_sentence_and_a_code(
    command: list[str], variables: dict[str, str], code: int, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("{}\n")
    environment = {"KAFKA__REQUEST_TIMEOUT_S": "0.3", "PRIVACY__PSEUDONYM_KEY": "0123456789abcdef", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *(part.format(file=file) for part in command)], cwd=tmp_path,
        env={**os.environ, **{ENV_PREFIX + name: value for name, value in environment.items()}},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
