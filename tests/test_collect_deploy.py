"""The collector's Compose file and Kubernetes manifests: valid, restricted, and of the same names as its settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import kubernetes_validate
import pytest
import yaml

from streams.settings import ENV_PREFIX, Settings, knobs
from tests.conftest import ROOT
from tests.test_compose import compose, resolved

FILES = ("docker-compose.yml", "deploy/compose.collect.yml")
FOLDER = ROOT / "deploy" / "k8s" / "collect"
KNOWN = {ENV_PREFIX + name.upper().replace(".", "__") for name, _ in knobs()}
ENDINGS = ("WRITE_KEYS", "API_KEYS", "APP_IDS", "SECRETS", "PUBLIC_KEYS", "TOKENS")
SOURCE_SECRETS = {name for name in KNOWN if name.startswith(f"{ENV_PREFIX}COLLECT__") and name.endswith(ENDINGS)}
MANIFESTS: list[dict[str, Any]] = [*yaml.safe_load_all((FOLDER / "collect.yaml").read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [one for one in MANIFESTS if one["kind"] == kind]
    return found


def test_compose_takes_the_file() -> None:
    done = compose("config", "-q", files=FILES)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_collector_of_compose_is_restricted_and_on_loopback() -> None:
    service, worker = resolved(FILES)["services"]["collect"], resolved(FILES)["services"]["worker"]
    for rule in ("cap_drop", "security_opt", "user", "read_only", "init", "restart", "image", "tmpfs"):
        assert service[rule] == worker[rule], rule
    assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
    assert int(service["mem_limit"]) >= 4 * Settings().collect.buffer_bytes
    assert service["healthcheck"]["test"][-1].count("/readyz") == 1
    assert {name for name in service["environment"] if name.startswith(ENV_PREFIX)} - {"TRUSTWATCH_CONFIG"} <= KNOWN


def test_compose_hands_on_every_secret_and_gives_none() -> None:
    given = yaml.safe_load((ROOT / FILES[1]).read_text())["services"]["collect"]["environment"]
    assert set(given) >= SOURCE_SECRETS and len(SOURCE_SECRETS) == 7
    assert all(given[name] is None for name in SOURCE_SECRETS)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
def test_a_manifest_is_as_its_schema_has_it(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_pod_is_restricted_and_gets_every_secret() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    variables = {one["name"]: one for one in container["env"]}
    assert {name: variables[name]["valueFrom"]["secretKeyRef"] for name in SOURCE_SECRETS} == {
        name: {"name": "trustwatch", "key": name, "optional": True} for name in SOURCE_SECRETS
    }
    assert set(variables) - {"TRUSTWATCH_CONFIG"} <= KNOWN
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": Settings().metrics.port, "collect": Settings().collect.port}


def test_service_policy_and_budget_are_about_the_pod() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"].items() <= labels.items()
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    policy = of_kind("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [Settings().collect.port]
    assert all(rule["from"] for rule in policy["ingress"])


def test_the_component_lists_it_and_the_command_is_there() -> None:
    component = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert component["kind"] == "Component" and component["resources"] == ["collect.yaml"]
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    command = [sys.executable, "-m", "streams.cli", *container["args"], "--help"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
