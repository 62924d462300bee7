"""The Compose files keep their promises: nobody is root, nothing listens beyond this machine, images are pinned."""

from __future__ import annotations

import configparser
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from dashboards import names
from streams.settings import Settings, load_settings
from tests.conftest import ROOT

COMPOSE = Path(sys.executable).with_name("docker-compose")
FILES = ("docker-compose.yml", "deploy/compose.alertmanager.yml")
SECRETS = {"TRUSTWATCH_PRIVACY__PSEUDONYM_KEY": "a key for tests only", "TRUSTWATCH_WEB__TOKEN": "a token for tests"}


def compose(
    *arguments: str, files: tuple[str, ...] = FILES, variables: Mapping[str, str] = SECRETS
) -> subprocess.CompletedProcess[str]:
    """Run Compose itself, without a daemon, in an environment of its own."""
    chosen = [part for name in files for part in ("-f", name)]
    return subprocess.run(
        [str(COMPOSE), "--env-file", os.devnull, "--project-directory", ".", *chosen, *arguments],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": str(ROOT), **variables},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def resolved(files: tuple[str, ...] = FILES) -> dict[str, Any]:
    """What Compose would run, all profiles."""
    done = compose("--profile", "*", "config", "--format", "json", files=files)
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


CONFIG = resolved()
SERVICES: dict[str, dict[str, Any]] = CONFIG["services"]
TOKEN = "TRUSTWATCH_MONITORING__GRAFANA_TOKEN"
OURS = ("topics", "ingest", "worker", "sample")
OWN_KAFKA = {
    "TRUSTWATCH_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "TRUSTWATCH_KAFKA__SASL_MECHANISM": "SCRAM-SHA-256",
    "TRUSTWATCH_KAFKA__SASL_USERNAME": "watcher", "TRUSTWATCH_KAFKA__SASL_PASSWORD": "a password for tests",
    "TRUSTWATCH_KAFKA__SSL_CAFILE": "/etc/trustwatch/kafka/ca.pem",
    "TRUSTWATCH_KAFKA__SSL_CERTFILE": "/etc/trustwatch/kafka/client.pem",
    "TRUSTWATCH_KAFKA__SSL_KEYFILE": "/etc/trustwatch/kafka/client-key.pem",
    "TRUSTWATCH_KAFKA__SSL_KEY_PASSWORD": "another", "TRUSTWATCH_KAFKA__REPLICATION_FACTOR": "3",
}  # fmt: skip
ROTATION = {"TRUSTWATCH_PRIVACY__PREVIOUS_KEY", "TRUSTWATCH_PRIVACY__ROTATE_AT"}
PASSED = {TOKEN, *OWN_KAFKA, *ROTATION}
"""Handed on if `.env` has them, and else not set."""


@pytest.mark.parametrize("files", [FILES[:1], FILES])
def test_compose_takes_the_files(files: tuple[str, ...]) -> None:
    done = compose("--profile", "*", "config", "-q", files=files)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_its_secret(missing: str) -> None:
    done = compose("config", "-q", variables={name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr and ".env.example" in done.stderr


def test_the_parts_are_there() -> None:
    first = resolved(FILES[:1])["services"]
    assert set(first) == {"kafka", "topics", "ingest", "worker", "sample", "receiver", "prometheus", "grafana"}
    assert set(SERVICES) - set(first) == {"alertmanager"}
    assert [name for name, service in SERVICES.items() if service.get("profiles")] == ["receiver", "sample"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert str(service["user"]).partition(":")[0] not in ("", "0", "root")
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    assert int(service["mem_limit"]) > 0 and service["pids_limit"] > 0
    assert service["init"] is True
    # Kafka's start script writes its configuration beside its programs.
    assert service.get("read_only", False) or name == "kafka"
    for mounted in service.get("volumes", []):
        assert mounted["type"] == "volume" or mounted["read_only"], mounted
        assert "docker.sock" not in mounted["source"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback(name: str) -> None:
    assert {port["host_ip"] for port in SERVICES[name].get("ports", [])} <= {"127.0.0.1"}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("topics", "sample")])
def test_what_stays_up_is_looked_at_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check["retries"] >= 3 and check["start_period"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs_to_be_healthy(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        finite = needed == "topics"
        assert how["condition"] == ("service_completed_successfully" if finite else "service_healthy"), needed
        assert finite or "healthcheck" in SERVICES[needed]


def test_the_line_waits_for_its_topics_and_the_sample_for_the_line() -> None:
    assert set(SERVICES["topics"]["depends_on"]) == {"kafka"}
    assert set(SERVICES["ingest"]["depends_on"]) == set(SERVICES["worker"]["depends_on"]) == {"topics"}
    assert {"ingest", "worker"} <= set(SERVICES["sample"]["depends_on"])
    assert all("/readyz" in SERVICES[name]["healthcheck"]["test"][-1] for name in ("ingest", "worker"))


def test_only_who_has_to_reaches_kafka() -> None:
    reach = {name for name, service in SERVICES.items() if "kafka" in service["networks"]}
    assert reach == {"kafka", *OURS}


def test_secrets_are_asked_for_and_never_given() -> None:
    for name in FILES:
        for service in yaml.safe_load((ROOT / name).read_text())["services"].values():
            for variable, value in service.get("environment", {}).items():
                if re.search("KEY|PASSWORD|SECRET|TOKEN", variable):
                    assert value is None or value.startswith((f"${{{variable}:?", "/run/secrets/")), variable
    example = (ROOT / ".env.example").read_text()
    for variable in SECRETS:
        assert re.search(rf"^{variable}=$", example, re.MULTILINE)


def test_the_example_names_every_variable_that_the_files_take() -> None:
    taken = {
        variable for name in FILES for variable in re.findall(r"\$\{([A-Z_]+)[:}]", (ROOT / name).read_text())
    }  # fmt: skip
    told = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert taken - told == set()
    assert told - taken == {"COMPOSE_FILE", *PASSED}


def test_grafanas_token_is_passed_on_if_there_is_one() -> None:
    assert TOKEN not in SERVICES["worker"]["environment"] or SERVICES["worker"]["environment"][TOKEN] is None
    done = compose("config", "--format", "json", variables=SECRETS | {TOKEN: "a token of Grafana"})
    assert json.loads(done.stdout)["services"]["worker"]["environment"][TOKEN] == "a token of Grafana"


def test_the_example_says_the_defaults() -> None:
    told = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name in FILES:
        for variable, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", (ROOT / name).read_text()):
            assert told[variable] == default, variable


@pytest.mark.parametrize("name", OURS)
def test_our_processes_take_their_environment(name: str) -> None:
    service = SERVICES[name]
    given = service["environment"].items()
    ours = {variable: value for variable, value in given if variable.startswith("TRUSTWATCH_") and value is not None}
    mounted = {volume["target"]: volume["source"] for volume in service["volumes"]}
    ours["TRUSTWATCH_CONFIG"] = mounted[ours["TRUSTWATCH_CONFIG"]]
    kept = {variable: value for variable, value in os.environ.items() if not variable.startswith("TRUSTWATCH_")}
    with mock.patch.dict(os.environ, kept | ours, clear=True):
        settings = load_settings()
    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert settings.kafka.security_protocol == "PLAINTEXT"
    assert settings.owners.stages["leads"] == "sales-ops"


@pytest.mark.parametrize("name", OURS)
def test_our_processes_take_a_kafka_of_your_own(name: str, tmp_path: Path) -> None:
    """As `.env.example` says it, with its lines no comments any more."""
    text = (ROOT / ".env.example").read_text().replace("KAFKA_BOOTSTRAP=kafka:19092", "KAFKA_BOOTSTRAP=a:9093,b:9093")
    for variable, value in OWN_KAFKA.items():
        text, found = re.subn(rf"^#{variable}=.*$", f"{variable}={value}", text, flags=re.MULTILINE)
        assert found == 1, variable
    (tmp_path / ".env").write_text(text)
    variables = {**SECRETS, "KAFKA_CERTIFICATES": str(tmp_path)}
    done = compose("--env-file", str(tmp_path / ".env"), "--profile", "*", "config", "--format", "json",
                   files=FILES[:1], variables=variables)  # fmt: skip
    assert done.returncode == 0, done.stderr
    service = json.loads(done.stdout)["services"][name]
    assert {"/etc/trustwatch/kafka": str(tmp_path)}.items() <= {
        volume["target"]: volume["source"] for volume in service["volumes"]}.items()  # fmt: skip
    given = {variable: value for variable, value in service["environment"].items() if value is not None}
    kept = {variable: value for variable, value in os.environ.items() if not variable.startswith("TRUSTWATCH_")}
    with mock.patch.dict(os.environ, kept | given | {"TRUSTWATCH_CONFIG": str(ROOT / "deploy/trustwatch.yaml")}):
        kafka = load_settings().kafka
    assert (kafka.bootstrap_servers, kafka.security_protocol, kafka.sasl_username, kafka.replication_factor) == (
        "a:9093,b:9093", "SASL_SSL", "watcher", 3)  # fmt: skip
    assert kafka.sasl_password and kafka.sasl_password.get_secret_value() == "a password for tests"
    assert str(kafka.ssl_cafile) == "/etc/trustwatch/kafka/ca.pem" and kafka.ssl_certfile and kafka.ssl_key_password


def most_memory_bytes(settings: Settings) -> float:
    """What one worker with all partitions may take, as README, Memory, says it."""
    limits = settings.limits
    each = 2_000 * limits.open_sessions + 140 * limits.dedupe_ids + 1_300 * limits.pending_events
    return 100e6 + settings.topics.events_partitions * each


def test_a_worker_has_the_memory_that_its_limits_may_take() -> None:
    with mock.patch.dict(os.environ, {"TRUSTWATCH_CONFIG": str(ROOT / "deploy" / "trustwatch.yaml")}):
        assert int(SERVICES["worker"]["mem_limit"]) > most_memory_bytes(load_settings())


def test_grafana_may_have_to_log_in_at_the_mail_server() -> None:
    variables = SECRETS | {"SMTP_USER": "watcher", "SMTP_PASSWORD_FILE": "/elsewhere/password"}
    done = compose("config", "--format", "json", variables=variables)
    config = json.loads(done.stdout)
    environment = config["services"]["grafana"]["environment"]
    assert (environment["GF_SMTP_USER"], environment["GF_SMTP_PASSWORD__FILE"]) == (
        "watcher", "/run/secrets/smtp-password")  # fmt: skip
    assert "smtp-password" in {secret["source"] for secret in config["services"]["grafana"]["secrets"]}
    assert config["secrets"]["smtp-password"]["file"] == "/elsewhere/password"


def test_what_is_mounted_is_there() -> None:
    made = {str(ROOT / ".secrets" / name) for name in ("alertmanager", "kafka")}  # by deploy/secrets.sh
    for service in SERVICES.values():
        for mounted in service.get("volumes", []):
            assert mounted["type"] == "volume" or mounted["source"] in made or Path(mounted["source"]).exists(), mounted


def test_grafana_finds_what_is_provisioned_and_keeps_to_itself() -> None:
    mounted = {volume["target"]: volume["source"] for volume in SERVICES["grafana"]["volumes"]}
    ini = configparser.ConfigParser()
    ini.read(mounted["/etc/grafana/grafana.ini"])
    assert not ini.getboolean("auth.anonymous", "enabled") and not ini.getboolean("users", "allow_sign_up")
    for knob in ("reporting_enabled", "check_for_updates", "check_for_plugin_updates"):
        assert not ini.getboolean("analytics", knob)
    home = Path(ini["dashboards"]["default_home_dashboard_path"])
    assert Path(mounted[str(home.parent)], home.name).is_file() and home.stem == names.OVERVIEW
    providers = ROOT / "deploy" / "grafana" / "provisioning" / "dashboards" / "trustwatch.yaml"
    paths = {provider["options"]["path"] for provider in yaml.safe_load(providers.read_text())["providers"]}
    assert paths == {str(home.parent)}


def test_the_data_source_is_the_prometheus_of_the_network() -> None:
    provisioned = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    assert source["uid"] == names.PROMETHEUS_UID
    assert source["url"] in ("http://prometheus:9090", "${PROMETHEUS_URL}")


def test_grafana_gets_what_its_contact_points_take_from_the_environment() -> None:
    alerting = ROOT / "deploy" / "grafana" / "provisioning" / "alerting"
    text = "".join(path.read_text() for path in alerting.glob("*.yaml"))
    taken = {found for found in re.findall(r"(?<!\$)\$\{?([A-Z][A-Z0-9_]+)\b", text)}
    assert taken - set(SERVICES["grafana"]["environment"]) == set()


def test_nobody_is_told_twice() -> None:
    executes = "GF_UNIFIED_ALERTING_EXECUTE_ALERTS"
    alone = resolved(FILES[:1])["services"]
    assert "alertmanager" not in alone and executes not in alone["grafana"]["environment"]
    assert SERVICES["grafana"]["environment"][executes] == "false"


def test_no_notifier_tells_its_own_container() -> None:
    """Loopback is the container itself, where nobody listens."""
    config = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())
    kept = yaml.safe_dump({"global": config.get("global", {}), "receivers": config["receivers"]})
    addresses = re.findall(r"^[- ]*(?:\w*url|smtp_smarthost|smarthost): *(\S+)", kept, re.MULTILINE)
    addresses += [value for name, value in SERVICES["grafana"]["environment"].items() if name.endswith("_URL")]
    reached = [address for address in addresses if address != SERVICES["grafana"]["environment"]["GF_SERVER_ROOT_URL"]]
    assert len(reached) >= 4
    assert not [address for address in reached if re.search(r"//localhost|//127\.|//\[::1|^localhost|^127\.", address)]


def test_secrets_are_made_once_and_are_fit(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("deploy/secrets.sh", ".env.example"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    command = ["sh", str(tmp_path / "deploy" / "secrets.sh")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    made = {path: path.read_text() for path in (tmp_path / ".env", tmp_path / ".secrets" / "grafana-admin-password")}
    assert not any(secret in said for secret in re.findall(r"[0-9a-f]{64}", "".join(made.values())))
    written = dict(re.findall(r"^([A-Z_]+)=(.*)$", made[tmp_path / ".env"], re.MULTILINE))
    secrets = {*(written[name] for name in SECRETS), made[tmp_path / ".secrets" / "grafana-admin-password"]}
    assert len(secrets) == 3 and all(re.fullmatch(r"[0-9a-f]{64}", secret) for secret in secrets)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / ".secrets").stat().st_mode) == 0o700
    # All that Compose asks for is there.
    for wanted in ("alertmanager", "kafka", "smtp-password"):
        assert (tmp_path / ".secrets" / wanted).exists(), wanted
    assert (tmp_path / ".secrets" / "smtp-password").read_text() == ""
    subprocess.run(command, capture_output=True, timeout=20, check=True)
    assert made == {path: path.read_text() for path in made}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {".env", ".secrets/"} <= set(ignored)


def test_the_image_is_not_root_and_pinned() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] == "10001:10001"
    versions = re.findall(r"^FROM [^:\s]+(?::(\S+))?", dockerfile, re.MULTILINE)
    assert len(set(versions)) == 1 and re.match(r"\d+\.\d+\.\d+-", versions[0])


def test_what_is_built_before_our_code_is_there_is_not_kept() -> None:
    """Setuptools passes over a file in build/ that is younger: the image would hold an empty streams/__init__.py."""
    steps = (ROOT / "deploy" / "Dockerfile").read_text().split("\n")
    emptied = next(at for at, line in enumerate(steps) if re.search(r"&& rm -rf build ", line))
    assert emptied < steps.index("COPY streams streams")


def test_compose_and_the_test_broker_run_the_same_kafka() -> None:
    pom = (ROOT / "deploy" / "kafka" / "pom.xml").read_text()
    version = re.search(r"<kafka.version>(.*)</kafka.version>", pom)
    assert version and SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"
