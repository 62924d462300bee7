"""Grafana's provisioning files: held against the keys that Grafana reads; typos that it would pass over fail."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import names
from dashboards.provisioning import FOLDER, check, main
from tests.conftest import ROOT

ALERTING = FOLDER / "alerting"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


GROUPS = read(ALERTING / "rules.yaml")["groups"]
RULES = {rule["title"]: rule for group in GROUPS for rule in group["rules"]}
PROMETHEUS = {
    rule["alert"]: rule
    for group in read(ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml")["groups"]
    for rule in group["rules"]
}
CANARY = "RulesNotEvaluated"


def test_our_files_are_what_grafana_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main([]), capsys.readouterr().err) == (0, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "provisioning"))


def first_rule(file: Any) -> Any:
    return file["groups"][0]["rules"][0]


Change = Callable[[Any], object]
MISTAKES: list[tuple[str, Change, str]] = [
    ("rules", lambda f: f.update(apiversion=1), "apiversion: Extra inputs"),
    ("rules", lambda f: first_rule(f).update(keep_firing_for="5m"), "keep_firing_for: Extra inputs"),
    ("rules", lambda f: first_rule(f).update(missingSeriesEvalsToResolve=3), "missingSeriesEvalsToResolve: Extra"),
    ("rules", lambda f: first_rule(f).update(no_data_state="OK"), "no_data_state: Extra inputs"),
    ("rules", lambda f: first_rule(f).pop("execErrState"), "execErrState: Field required"),
    ("rules", lambda f: first_rule(f).update(execErrState="Keeplast"), "execErrState: Input should be"),
    ("rules", lambda f: first_rule(f).update(noDataState="Ok"), "noDataState: Input should be"),
    ("rules", lambda f: first_rule(f).update(condition="Z"), "Z is none of the refIds"),
    ("rules", lambda f: first_rule(f).update(uid="x" * 41), "uid: String should match"),
    ("rules", lambda f: first_rule(f).update({"for": "30"}), "'30' is no duration"),
    ("rules", lambda f: first_rule(f)["labels"].update(team="$TEAM"), "labels.team: $ is expanded"),
    ("rules", lambda f: first_rule(f)["annotations"].update(summary="${X}"), "annotations.summary: ${"),
    ("rules", lambda f: first_rule(f)["annotations"].pop("__panelId__"), "go together"),
    ("rules", lambda f: first_rule(f).pop("panelId"), "go together"),
    ("rules", lambda f: first_rule(f)["annotations"].update(__panelId__=7), "__panelId__: Input should be a valid str"),
    ("rules", lambda f: first_rule(f)["data"][0].update(datasourceUID="x"), "datasourceUID: Extra inputs"),
    ("rules", lambda f: first_rule(f)["data"][0]["model"].update(instant=False), "instant: Input should be True"),
    ("rules", lambda f: first_rule(f)["data"][0]["model"].update(exp="up"), "exp: Extra inputs"),
    ("rules", lambda f: first_rule(f)["data"][-1]["model"]["conditions"][0].update(unload_evaluator={}),
     "unload_evaluator: Extra inputs"),
    ("rules", lambda f: first_rule(f)["data"][-1]["model"]["conditions"][0].update(
        unloadEvaluator={"type": "lt", "params": [99.0]}), "unloadEvaluator must end on the other side"),
    ("rules", lambda f: f["groups"][0].update(interval="15s"), "15s is no multiple of 10s"),
    ("rules", lambda f: f["groups"][0].update(folderUid="x"), "folderUid: Extra inputs"),
    ("rules", lambda f: f["groups"][0]["rules"].append(copy.deepcopy(first_rule(f))), "is there 2 times"),
    ("contact-points", lambda f: f["contactPoints"][0]["receivers"][0]["settings"].update(http_method="POST"),
     "http_method: Extra inputs"),
    ("contact-points", lambda f: f["contactPoints"][0]["receivers"][0]["settings"].pop("url"), "url: Field required"),
    ("contact-points", lambda f: f["contactPoints"][0]["receivers"][0].update(type="Webhook"), "type: Input should be"),
    ("contact-points", lambda f: f["contactPoints"][0]["receivers"][0].update(disable_resolve_message=True), "Extra"),
    ("contact-points", lambda f: f.update(contactpoints=[]), "contactpoints: Extra inputs"),
    ("contact-points", lambda f: f["contactPoints"].pop(), "trustwatch-heartbeat is no contact point"),
    ("policies", lambda f: f["policies"][0].update(mute_time_intervals=["nights"]), "mute_time_intervals: Extra in"),
    ("policies", lambda f: f["policies"][0].update(groupBy=["x"]), "groupBy: Extra inputs"),
    ("policies", lambda f: f["policies"][0]["routes"][0].pop("object_matchers"), "a route without matchers"),
    ("policies", lambda f: f["policies"][0]["routes"][0].update(object_matchers=[["owner", "==", "x"]]), "Input sh"),
    ("policies", lambda f: f["policies"][0]["routes"][0].update(mute_time_intervals=["x"]), "x is no mute timing"),
    ("policies", lambda f: f["policies"].append(f["policies"][0]), "policy tree of organisation 1 is there 2 times"),
    ("mute-times", lambda f: f["muteTimes"][0]["time_intervals"][0].update(weekdays=["mon"]), "'mon' is no day"),
    ("mute-times", lambda f: f["muteTimes"][0]["time_intervals"][0]["times"][0].update(end="x"), "end: Extra inputs"),
    ("mute-times", lambda f: f["muteTimes"][0].update(timeIntervals=[]), "timeIntervals: Extra inputs"),
    ("templates", lambda f: f["templates"][0].update(content="x"), "content: Extra inputs"),
    ("templates", lambda f: f["templates"][0].update(template="no definition"), "template: String should match"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
def test_a_mistake_is_found(name: str, change: Change, said: str, folder: Path) -> None:
    path = folder / "alerting" / f"{name}.yaml"
    file = read(path)
    change(file)
    path.write_text(yaml.safe_dump(file))
    problems = check(folder)
    assert problems and said in "\n".join(problems), problems


SOURCE: dict[str, Any] = {
    "apiVersion": 1,
    "datasources": [{"name": "Prometheus", "type": "prometheus", "uid": names.PROMETHEUS_UID, "access": "proxy",
                     "url": "http://prometheus:9090", "isDefault": True, "editable": False,
                     "jsonData": {"httpMethod": "POST", "timeInterval": "15s"}}],
}  # fmt: skip
PROVIDER: dict[str, Any] = {
    "apiVersion": 1,
    "providers": [{"name": "trustwatch", "type": "file", "folder": "trustwatch", "folderUid": names.FOLDER_UID,
                   "options": {"path": "/var/lib/grafana/dashboards"}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "file", "change", "said"),
    [
        ("datasources", SOURCE, lambda f: None, None),
        ("datasources", SOURCE, lambda f: f["datasources"][0].update(org_id=1), "org_id: Extra inputs"),
        ("datasources", SOURCE, lambda f: f["datasources"][0]["jsonData"].update(timeinterval="15s"), "timeinterval"),
        ("datasources", SOURCE, lambda f: f["datasources"][0].update(secureJsonData={"p": "s3cret"}), "from the envir"),
        ("datasources", SOURCE, lambda f: f["datasources"][0].update(secureJsonData={"p": "$P"}), None),
        ("datasources", SOURCE, lambda f: f["datasources"][0].update(uid="other"), "trustwatch-prometheus is not prov"),
        ("dashboards", PROVIDER, lambda f: None, None),
        ("dashboards", PROVIDER, lambda f: f["providers"][0].update(folderUID="x"), "folderUID: Extra inputs"),
        ("dashboards", PROVIDER, lambda f: f["providers"][0]["options"].update(Path="x"), "Path: Extra inputs"),
    ],
)  # fmt: skip
def test_data_sources_and_dashboards(part: str, file: Any, change: Change, said: str | None, folder: Path) -> None:
    shutil.rmtree(folder / part, ignore_errors=True)
    (folder / part).mkdir()
    changed = copy.deepcopy(file)
    change(changed)
    (folder / part / "x.yaml").write_text(yaml.safe_dump(changed))
    problems = "\n".join(check(folder))
    assert said in problems if said else not problems


def test_what_is_no_yaml_or_lies_elsewhere_is_found(folder: Path) -> None:
    (folder / "alerting" / "readme.md").write_text("Grafana would stop its start here.")
    (folder / "plugins").mkdir()
    (folder / "plugins" / "x.yaml").write_text("apiVersion: 1")
    problems = check(folder)
    assert [problem.partition(":")[0] for problem in problems] == ["alerting/readme.md", "plugins/x.yaml"]
    assert check(folder / "nowhere")


@pytest.mark.parametrize("name", sorted(RULES))
def test_grafana_watches_the_same_with_the_same_patience(name: str) -> None:
    rule = RULES[name]
    query, threshold = rule["data"][0], rule["data"][-1]
    compare = threshold["model"]["conditions"][0]
    assert query["datasourceUid"] == names.PROMETHEUS_UID
    if name == CANARY:
        assert (rule["noDataState"], rule["execErrState"]) == ("Alerting", "Alerting")
        return
    assert (rule["noDataState"], rule["execErrState"]) == ("OK", "KeepLast")
    other = PROMETHEUS[name]
    assert rule["labels"] == other["labels"]
    assert (rule["for"], rule.get("keepFiringFor", "0s")) == (
        other.get("for", "0s"),
        other.get("keep_firing_for", "0s"),
    )
    sign = {"gt": ">", "lt": "<"}[compare["evaluator"]["type"]]
    fires = f"({query['model']['expr']}) {sign} {compare['evaluator']['params'][0]:g}"
    assert other["expr"].startswith(fires) or (name, other["expr"]) == ("DeadMan", "vector(1)")
    clear = re.search(rf" or \(\({re.escape(query['model']['expr'])}\) [<>] ([\d.]+) and on", other["expr"])
    assert compare.get("unloadEvaluator", {}).get("params") == ([float(clear[1])] if clear else None)


def test_every_alert_of_prometheus_is_one_of_grafana() -> None:
    assert set(RULES) == {*PROMETHEUS, CANARY}


@pytest.mark.parametrize("name", sorted(RULES))
def test_an_alert_whose_series_is_gone_stays_as_long_as_in_prometheus(name: str) -> None:
    rule = RULES[name]
    keep = rule.get("keepFiringFor")
    if keep is None:
        assert "missing_series_evals_to_resolve" not in rule
        return
    keep_s = int(keep[:-1]) * {"s": 1, "m": 60, "h": 3600}[keep[-1]]
    assert (rule["missing_series_evals_to_resolve"] - 1) * 20 >= keep_s > 0
    assert rule["missing_series_evals_to_resolve"] == ceil(keep_s / 20) + 1


def test_numbers_of_a_finding_come_from_queries_that_fit_its_labels() -> None:
    rule = RULES["EarlyDropoff"]
    told = rule["annotations"]["description"]
    # A number of few people is not there; asked for all the same, it would make a failure of the whole text.
    number = r"\{\{ with \$values\.(\w) \}\}\{\{ \.Value \| (\w+) \}\}\{\{ else \}\}unknown\{\{ end \}\}"
    assert re.findall(number, told) == [
        ("B", "humanizePercentage"), ("D", "humanizePercentage"), ("E", "humanizeTimestamp"),
    ]  # fmt: skip
    assert told.count("$values.") == 3
    queries = {query["refId"]: query["model"]["expr"] for query in rule["data"][:-1]}
    # Grafana joins them to the alert by labels: theirs must be among the alert's.
    assert queries == {
        "A": 'trustwatch:open_finding:told{detector="early_dropoff"}',
        "B": "max by (finding) (trustwatch_open_finding_before)",
        "D": "max by (finding) (trustwatch_open_finding_after)",
        "E": "max by (finding) (trustwatch_open_finding_onset_timestamp_seconds)",
    }


def test_no_text_of_grafana_asks_prometheus_or_names_a_value_that_is_not_there() -> None:
    for name, rule in RULES.items():
        refs = {query["refId"] for query in rule["data"]}
        for text in rule["annotations"].values():
            assert not re.search(r"\bquery\b", text) and not re.search(r"\$value\b", text), name
            assert set(re.findall(r"\$values\.(\w)", text)) <= refs, name


def test_secrets_come_from_the_environment() -> None:
    text = (ALERTING / "contact-points.yaml").read_text()
    addresses = re.findall(r"^\s+(?:url|addresses): (.*)$", text, re.MULTILINE)
    assert len(addresses) == 4 and all(re.fullmatch(r"\$TRUSTWATCH_[A-Z_]+", address) for address in addresses)
    head = re.findall(r"^#   (\w+):", text, re.MULTILINE)
    assert [f"${name}" for name in head] == addresses
