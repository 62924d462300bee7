"""The Compose file keeps its promises: nothing is root, nothing listens beyond this machine, every image is pinned."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert str(service["user"]).partition(":")[0] not in ("", "0", "root")
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    assert "mem_limit" in service and "pids_limit" in service


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port) for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_secrets_are_asked_for_and_never_given() -> None:
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD|SECRET|TOKEN", variable):
                assert value.startswith(f"${{{variable}:?"), variable
    example = (ROOT / ".env.example").read_text()
    assert re.search(r"^TRUSTWATCH_PRIVACY__PSEUDONYM_KEY=$", example, re.MULTILINE)


def test_the_image_is_not_root_and_pinned() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] == "10001:10001"
    assert {"latest", None}.isdisjoint(re.findall(r"^FROM [^:\s]+(?::(\S+))?", dockerfile, re.MULTILINE))


def test_compose_and_the_test_broker_run_the_same_kafka() -> None:
    pom = (ROOT / "deploy" / "kafka" / "pom.xml").read_text()
    version = re.search(r"<kafka.version>(.*)</kafka.version>", pom)
    assert version and SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"
