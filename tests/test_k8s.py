"""The Kubernetes manifests, offline: Kubernetes' own schemas, those of the custom resources, and what we promise."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.k8s.__main__ import prometheus_rule
from streams.errors import ConfigError
from streams.settings import ENV_PREFIX, Settings, load_settings
from tests.conftest import ROOT
from tests.test_compose import most_memory_bytes

FOLDER = ROOT / "deploy" / "k8s"
CRDS = ROOT / "tests" / "data" / "crds"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
KAFKA_SCALER = {"bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "sasl", "tls",
                "offsetResetPolicy", "allowIdleConsumers", "excludePersistentLag", "limitToPartitionsWithLag",
                "scaleToZeroOnInvalidOffset", "partitionLimitation", "version", "unsafeSsl"}  # fmt: skip
"""What KEDA's Kafka scaler reads of a trigger (pkg/scalers/kafka_scaler.go, v2.21.0); it ignores the rest."""
SECRET_VALUES = {
    "TRUSTWATCH_PRIVACY__PSEUDONYM_KEY": "a key for tests only", "TRUSTWATCH_WEB__TOKEN": "a token for tests",
    "TRUSTWATCH_KAFKA__SASL_USERNAME": "trustwatch", "TRUSTWATCH_KAFKA__SASL_PASSWORD": "a password for tests",
}  # fmt: skip


def documents(*files: str) -> list[dict[str, Any]]:
    return [one for name in files for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


RESOURCES = documents(*KUSTOMIZATION["resources"])
SECRET = documents("secret.example.yaml")[0]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in RESOURCES if one["kind"] == kind}


def crds() -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for path in CRDS.glob("*.json"):
        crd = json.loads(path.read_text())
        for version, schema in crd["versions"].items():
            found[f"{crd['group']}/{version}", crd["kind"]] = strict(schema)
    return found


def strict(schema: Any) -> Any:
    """The schema of a custom resource as JSON Schema in which unknown fields fail."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if key not in ("properties", "format", "default")}
    if "properties" in schema:
        made["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    return made


def complaints(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest by the schema of its kind; an unknown kind is wrong, too."""
    known = crds()
    key = manifest["apiVersion"], manifest["kind"]
    if key in known:
        schema = copy.deepcopy(known[key])
        schema["properties"]["metadata"] = {"type": "object"}
        found = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
    try:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


@pytest.mark.parametrize("manifest", [*RESOURCES, SECRET], ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_a_manifest_is_as_its_schema_has_it(manifest: dict[str, Any]) -> None:
    assert complaints(manifest) == []


def first(kind: str) -> dict[str, Any]:
    return copy.deepcopy(next(iter(of_kind(kind).values())))


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "PrometheusRule", "ScaledObject", "NetworkPolicy"])
def test_an_unknown_field_would_be_told(kind: str) -> None:
    manifest = first(kind)
    manifest["spec"]["replica"] = 3
    assert any("replica" in complaint for complaint in complaints(manifest))


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [("Deployment", "minReadySeconds", "ten"), ("ScaledObject", "maxReplicaCount", "four"),
     ("ServiceMonitor", "endpoints", {"port": "metrics"}), ("PrometheusRule", "groups", [{"rules": []}])],
)  # fmt: skip
def test_a_wrong_value_would_be_told(kind: str, field: str, wrong: object) -> None:
    manifest = first(kind)
    manifest["spec"][field] = wrong
    assert complaints(manifest)


def test_every_manifest_is_listed_and_none_twice() -> None:
    own = {"kustomization.yaml", "trustwatch.yaml", "secret.example.yaml"}
    assert {path.name for path in FOLDER.glob("*.yaml")} - own == set(KUSTOMIZATION["resources"])
    names = [(one["kind"], one["metadata"]["name"]) for one in RESOURCES]
    assert len(names) == len(set(names))
    assert KUSTOMIZATION["kind"] == "Kustomization"
    assert set(KUSTOMIZATION) <= {
        "apiVersion",
        "kind",
        "namespace",
        "labels",
        "images",
        "configMapGenerator",
        "patches",
        "resources",
    }


def settings_of_pods(**more: str) -> Settings:
    """What a pod runs with: the ConfigMap and the secret."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
    ours = SECRET_VALUES | more | {"TRUSTWATCH_CONFIG": str(FOLDER / "trustwatch.yaml")}
    with mock.patch.dict(os.environ, kept | ours, clear=True):
        return load_settings()


def test_the_config_map_is_taken_by_our_settings() -> None:
    settings = settings_of_pods()
    assert settings.kafka.security_protocol == "SASL_SSL"
    assert settings.metrics.host == settings.web.host == "0.0.0.0"


def test_the_config_map_holds_no_secret_and_the_example_no_value() -> None:
    text = (FOLDER / "trustwatch.yaml").read_text()
    given = yaml.safe_load(text)
    assert not {"sasl_password", "ssl_key_password"} & set(given["kafka"])
    assert "privacy" not in given and "token" not in given["web"]
    assert set(SECRET["stringData"].values()) == {""}
    assert set(SECRET_VALUES) < set(SECRET["stringData"])


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in RESOURCES:
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_are_restricted(name: str, pod: dict[str, Any]) -> None:
    """The rules of the Pod Security Standard `restricted`, and those of the house."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all({"configMap", "secret", "emptyDir"} & volume.keys() for volume in pod["volumes"])
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        for variable in container["env"]:
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            assert secret is None or secret["key"] in SECRET["stringData"] or secret.get("optional") is True
            assert secret is not None or not re.search("KEY|PASSWORD|TOKEN", variable["name"])


def test_kubernetes_sees_the_user_of_the_image() -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)[-1]
    for _, pod in pods():
        assert (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"])) == user


@pytest.mark.parametrize("name", ["trustwatch-ingest", "trustwatch-worker"])
def test_a_deployment_is_looked_at_kept_and_scaled(name: str) -> None:
    spec = of_kind("Deployment")[name]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = settings_of_pods()
    assert ports == {"metrics": settings.metrics.port, "status": settings.web.port}
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert of_kind("PodDisruptionBudget")[name]["spec"]["selector"] == spec["selector"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert "replicas" not in spec  # or each apply would undo what KEDA said
    assert of_kind("ScaledObject")[name]["spec"]["scaleTargetRef"] == {"name": name}


def test_the_commands_are_there() -> None:
    for _, pod in pods():
        arguments = pod["containers"][0]["args"]
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", *arguments, "--help"], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, arguments


def test_scaling_ends_where_the_partitions_do() -> None:
    settings = settings_of_pods()
    topics = settings.topics
    most = {name: one["spec"]["maxReplicaCount"] for name, one in of_kind("ScaledObject").items()}
    assert most == {"trustwatch-worker": topics.events_partitions, "trustwatch-ingest": topics.raw_partitions}
    assert all(one["spec"]["minReplicaCount"] >= 1 for one in of_kind("ScaledObject").values())


def test_keda_watches_our_groups_and_topics() -> None:
    settings = settings_of_pods()
    watched: dict[str, list[tuple[str, str]]] = {}
    for name, one in of_kind("ScaledObject").items():
        for trigger in one["spec"]["triggers"]:
            metadata = trigger["metadata"]
            assert trigger["type"] == "kafka" and set(metadata) <= KAFKA_SCALER
            assert metadata["bootstrapServers"] == settings.kafka.bootstrap_servers
            assert all(isinstance(value, str) for value in metadata.values())
            assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication")
            watched.setdefault(name, []).append((metadata["consumerGroup"], metadata["topic"]))
    assert watched == {
        "trustwatch-worker": [(settings.app_id, settings.topics.events)],
        "trustwatch-ingest": [(f"{settings.app_id}-ingest", raw.name) for raw in settings.topics.raw],
    }
    for one in of_kind("TriggerAuthentication").values():
        assert all(ref["key"] in SECRET["stringData"] for ref in one["spec"]["secretTargetRef"])


def test_prometheus_finds_the_pods_under_the_name_that_alerts_use() -> None:
    (monitor,) = of_kind("ServiceMonitor").values()
    service = of_kind("Service")["trustwatch-metrics"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "trustwatch"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    for deployment in of_kind("Deployment").values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()


def test_the_patch_gives_what_the_operator_reads_a_release_and_nothing_else() -> None:
    (patch,) = KUSTOMIZATION["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("add", "/metadata/labels/release") and operation["value"]
    wanted = f"{patch['target']['group']}/{patch['target']['version']}"
    patched = [one for one in RESOURCES if one["apiVersion"] == wanted]
    assert {one["kind"] for one in patched} == {"ServiceMonitor", "PrometheusRule"}
    # RFC 6902: `add` fails where the parent is not there.
    assert all(one["metadata"]["labels"] for one in patched)


def test_a_worker_shows_annotations_once_it_has_a_token() -> None:
    variables = {one["name"]: one for one in dict(pods())["trustwatch-worker"]["containers"][0]["env"]}
    name = "TRUSTWATCH_MONITORING__GRAFANA_TOKEN"
    secret = variables[name]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "trustwatch", "key": name, "optional": True}
    assert f"--from-literal={name}=" in (FOLDER / "secret.example.yaml").read_text()
    switch = {"TRUSTWATCH_MONITORING__GRAFANA_ANNOTATIONS": "true"}
    with pytest.raises(ConfigError, match="grafana_token"):
        settings_of_pods(**switch)
    monitoring = settings_of_pods(**switch, **{name: "a token for tests"}).monitoring
    assert monitoring.grafana_annotations and monitoring.grafana_api and monitoring.status_url


def test_a_worker_has_the_memory_that_its_limits_may_take() -> None:
    (container,) = dict(pods())["trustwatch-worker"]["containers"]
    limit = re.fullmatch(r"(\d+)Gi", container["resources"]["limits"]["memory"])
    assert limit and int(limit[1]) * 2**30 > most_memory_bytes(settings_of_pods())


def test_the_rules_are_those_of_prometheus() -> None:
    assert (FOLDER / "prometheusrule.yaml").read_text() == prometheus_rule(), "stale. Fix: make gen"


def test_the_policy_lets_in_by_port_only_and_out_to_kafka() -> None:
    (policy,) = of_kind("NetworkPolicy").values()
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"} and policy["spec"]["podSelector"] == {}
    rules = [*policy["spec"]["ingress"], *policy["spec"]["egress"]]
    assert all(rule.get("ports") and (rule.get("from") or rule.get("to")) for rule in rules)
    port = int(settings_of_pods().kafka.bootstrap_servers.rpartition(":")[2])
    assert port in {one["port"] for rule in policy["spec"]["egress"] for one in rule["ports"]}


def test_no_manifest_names_a_machine() -> None:
    for path in Path(FOLDER).glob("*.yaml"):
        assert not re.search(r"/(home|root|Users)/", path.read_text()), path
