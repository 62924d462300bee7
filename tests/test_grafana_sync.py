"""`trustwatch grafana`: our files into a Grafana over real HTTP, and what of it is shown, done and left alone."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import dashboards._provisioned as provisioned
from dashboards import names
from dashboards._provisioned import DASHBOARDS, PROVISIONING, Files
from streams.cli import cli
from streams.errors import ConfigError, GrafanaRefused, GrafanaUnavailable, UsageError
from streams.settings import ENV_PREFIX, load_settings
from tests.grafana_stub import TOKEN, GrafanaStub, grafana_stub

ROOT = Path(__file__).resolve().parents[1]
HOOK = "https://hook.example/secret-path"
SLACK = "https://slack.example/T0/B0/secret"
VARIABLES = {
    "MONITORING__PROMETHEUS_URL": "http://prometheus.example:9090",
    "ALERT_WEBHOOK_URL": HOOK,
    "ALERT_SLACK_URL": SLACK,
    "ALERT_EMAIL": "on-call@example.org",
    "HEARTBEAT_URL": "https://beat.example/abc",
}
RULES = """
apiVersion: 1
groups:
- orgId: 1
  name: trust
  folder: trustwatch
  interval: 20s
  rules:
  - uid: trustwatch-a
    title: A costs $$5
    condition: C
    for: 90s
    keepFiringFor: 5m
    missing_series_evals_to_resolve: 3
    noDataState: OK
    execErrState: KeepLast
    dashboardUid: trust-overview
    panelId: 7
    labels: {severity: page, env: $TRUSTWATCH_ALERT_EMAIL}
    annotations: {summary: "{{ $labels.stage }} fell by $5, see ${TRUSTWATCH_HEARTBEAT_URL}"}
    data:
    - refId: A
      datasourceUid: trustwatch-prometheus
      relativeTimeRange: {from: 600, to: 0}
      model: {refId: A, expr: 'rate(x[$__rate_interval])', instant: true}
    - refId: C
      datasourceUid: __expr__
      model: {refId: C, type: threshold, expression: A}
"""
CONTACTS = """
contactPoints:
- orgId: 1
  name: trustwatch-hook
  receivers:
  - uid: trustwatch-hook
    type: webhook
    settings: {url: $TRUSTWATCH_ALERT_WEBHOOK_URL, httpMethod: POST}
  - uid: trustwatch-slack
    type: slack
    settings: {url: '${TRUSTWATCH_ALERT_SLACK_URL}', text: '{{ template "trustwatch.text" . }}'}
    disableResolveMessage: true
muteTimes:
- {orgId: 1, name: nights, time_intervals: [{times: [{start_time: '00:00', end_time: '08:00'}]}]}
templates:
- {orgId: 1, name: trustwatch, template: '{{ define "trustwatch.text" }}{{ $x := 1 }}text{{ end }}'}
policies:
- orgId: 1
  receiver: trustwatch-hook
  group_by: [alertname]
  routes:
  - {receiver: trustwatch-hook, matchers: ['severity = ticket', 'owner=~"a|b"'], mute_time_intervals: [nights]}
"""
SOURCES = """
apiVersion: 1
datasources:
- {name: Prometheus, uid: trustwatch-prometheus, orgId: 1, type: prometheus, access: proxy, url: 'http://prometheus:9090',
   isDefault: true, editable: false, jsonData: {timeInterval: 15s}}
"""
BOARD = {"uid": "trust-overview", "title": "Overview", "schemaVersion": 39, "tags": ["trustwatch"], "panels": []}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GrafanaStub]:
    """A running Grafana, configured."""
    monkeypatch.chdir(tmp_path)
    with grafana_stub() as running:
        monkeypatch.setenv(f"{ENV_PREFIX}MONITORING__GRAFANA_URL", running.url)
        monkeypatch.setenv(f"{ENV_PREFIX}MONITORING__GRAFANA_TOKEN", TOKEN)
        for name, value in VARIABLES.items():
            monkeypatch.setenv(f"{ENV_PREFIX}{name}", value)
        yield running


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Files of our own, small ones, in place of the committed ones."""
    write(tmp_path / "alerting" / "rules.yaml", RULES)
    write(tmp_path / "alerting" / "contacts.yml", CONTACTS)
    write(tmp_path / "datasources" / "prometheus.yaml", SOURCES)
    write(tmp_path / "json" / "trust-overview.json", json.dumps(BOARD))
    monkeypatch.setattr(provisioned.Files.__init__, "__defaults__", (tmp_path / "json", tmp_path, *defaults()[2:]))
    return tmp_path


def defaults() -> tuple[Any, ...]:
    return provisioned.Files.__init__.__defaults__ or ()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def run(*arguments: str) -> Result:
    """`trustwatch grafana …`, which must end without an error."""
    done = CliRunner().invoke(cli, ["grafana", *arguments], standalone_mode=False, catch_exceptions=False)
    assert TOKEN not in done.output and "secret" not in done.output
    return done


def told(*arguments: str) -> dict[str, list[str]]:
    """Action → objects, of `trustwatch grafana sync … --json`."""
    said = json.loads(run("sync", *arguments, "--json").stdout)
    found: dict[str, list[str]] = {}
    for one in said["objects"]:
        found.setdefault(one["action"], []).append(f"{one['kind']} {one['name']}")
    changed = sum(len(found.get(action, ())) for action in ("created", "changed", "removed"))
    assert said["changes"] == changed and said["applied"] is not bool({"--dry-run", "--check"} & set(arguments))
    return found


ALL = ["folder trustwatch", "data source trustwatch-prometheus", "notification template trustwatch",
       "mute timing nights", "contact point trustwatch-hook", "contact point trustwatch-slack", "rule group trust",
       "dashboard trust-overview"]  # fmt: skip


# ── once, and again ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("files")
def test_all_of_it_is_made_and_a_second_sync_changes_nothing(stub: GrafanaStub) -> None:
    assert told() == {"created": ALL, "changed": ["notification policy tree"]}
    written = len(stub.writes)
    assert written == len(ALL) + 1
    assert told().keys() == {"unchanged"}
    assert len(stub.writes) == written


@pytest.mark.usefixtures("files")
def test_what_grafana_got_is_what_the_files_mean(stub: GrafanaStub) -> None:
    told()
    group = stub.groups["trustwatch", "trust"]
    rule = group["rules"][0]
    assert (group["interval"], rule["title"]) == (20, "A costs $5")
    assert (rule["for"], rule["keep_firing_for"], rule["missingSeriesEvalsToResolve"]) == ("1m30s", "5m", 3)
    assert rule["labels"] == {"severity": "page", "env": "on-call@example.org"}
    assert rule["annotations"] == {
        "summary": "{{ $labels.stage }} fell by $5, see https://beat.example/abc",
        "__dashboardUid__": "trust-overview", "__panelId__": "7",
    }  # fmt: skip
    assert rule["data"][0]["model"]["expr"] == "rate(x[$__rate_interval])"
    assert stub.points["trustwatch-hook"]["settings"]["url"] == HOOK
    assert stub.points["trustwatch-slack"]["disableResolveMessage"] is True
    assert stub.policy["routes"][0]["object_matchers"] == [["severity", "=", "ticket"], ["owner", "=~", "a|b"]]
    assert "$x := 1" in stub.templates["trustwatch"]["template"]
    source = stub.sources["trustwatch-prometheus"]
    assert (source["url"], source["isDefault"]) == (VARIABLES["MONITORING__PROMETHEUS_URL"], False)
    assert source["name"] == "Prometheus (trustwatch)"
    assert stub.dashboards["trust-overview"]["meta"]["folderUid"] == "trustwatch"


@pytest.mark.usefixtures("files")
def test_grafana_may_reach_prometheus_elsewhere(stub: GrafanaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    told("--prometheus-url", "http://inside:9090")
    assert stub.sources["trustwatch-prometheus"]["url"] == "http://inside:9090"
    monkeypatch.delenv(f"{ENV_PREFIX}MONITORING__PROMETHEUS_URL")
    told()
    assert stub.sources["trustwatch-prometheus"]["url"] == "http://prometheus:9090"


def test_a_change_is_shown_as_a_diff_before_it_is_made(stub: GrafanaStub, files: Path) -> None:
    told()
    write(files / "alerting" / "rules.yaml", RULES.replace("for: 90s", "for: 2m").replace("A costs", "B costs"))
    dry = run("sync", "--dry-run")
    made = run("sync")
    for done in (dry, made):
        assert "changed  rule group trust" in done.stdout
        assert re.search(r'^- +"for": 90.0,\n\+ +"for": 120.0,$', done.stdout, re.MULTILINE)
        assert "unchanged  folder trustwatch" in done.stdout
    assert "1 would change, 9 looked at" in dry.stderr and "1 changed, 9 looked at" in made.stderr
    assert stub.groups["trustwatch", "trust"]["rules"][0]["for"] == "2m"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("option", "code"), [("--dry-run", 0), ("--check", 1)])
def test_only_looking_writes_nothing(stub: GrafanaStub, option: str, code: int) -> None:
    assert run("sync", option).return_value == code
    assert stub.writes == []
    run("sync")
    assert run("sync", option).return_value == 0


def test_secrets_are_shown_by_the_name_of_their_variable(
    stub: GrafanaStub, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told()
    monkeypatch.setenv(f"{ENV_PREFIX}ALERT_WEBHOOK_URL", "https://new.example/secret-path?a=1")
    done = run("sync", "--dry-run")  # fails if it holds the word secret
    assert re.search(
        r'^- +"url": "another value"\n\+ +"url": "\$TRUSTWATCH_ALERT_WEBHOOK_URL"$', done.stdout, re.MULTILINE
    )
    monkeypatch.setenv(f"{ENV_PREFIX}ALERT_SLACK_URL", "https://slack.example/other-secret")
    assert "contact point trustwatch-slack" in told("--dry-run")["unchanged"]
    assert "contact point trustwatch-slack" in told("--secrets")["changed"]
    assert stub.points["trustwatch-slack"]["settings"]["url"] == "https://slack.example/other-secret"


@pytest.mark.usefixtures("files")
def test_a_data_source_of_theirs_keeps_its_name_and_ours_the_one_it_was_given(stub: GrafanaStub) -> None:
    stub.sources["theirs"] = {"name": "Prometheus", "uid": "theirs"}
    told()
    stub.sources["trustwatch-prometheus"]["name"] = "renamed"
    told("--prometheus-url", "http://inside:9090")
    assert stub.sources["trustwatch-prometheus"]["name"] == "renamed"
    assert stub.sources["theirs"] == {"name": "Prometheus", "uid": "theirs"}


# ── left over ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shrunk(stub: GrafanaStub, files: Path) -> GrafanaStub:
    """A Grafana that has more of ours than the files, and something of others'."""
    told()
    extra = yaml.safe_load(RULES)["groups"][0]
    extra |= {"name": "old", "rules": [extra["rules"][0] | {"uid": "trustwatch-old", "title": "Old"}]}
    receiver = {"uid": "trustwatch-old", "type": "email", "settings": {"addresses": "a@b"}}
    old = {"groups": [extra], "contactPoints": [{"name": "x", "receivers": [receiver]}]}
    write(files / "alerting" / "old.yaml", yaml.safe_dump(old))
    write(files / "json" / "old.json", json.dumps(BOARD | {"uid": "trust-old", "title": "Old"}))
    told()
    (files / "alerting" / "old.yaml").unlink()
    (files / "json" / "old.json").unlink()
    stub.points["theirs"] = {"uid": "theirs", "name": "theirs", "type": "email", "settings": {"addresses": "c@d"}}
    stub.folders["theirs"] = {"uid": "theirs", "title": "theirs"}
    stub.dashboards["theirs"] = {"dashboard": {"title": "T", "uid": "theirs"}, "meta": {"folderUid": "theirs"}}
    stub.requests.clear()
    return stub


LEFT = ["rule group old", "contact point trustwatch-old", "dashboard trust-old"]


def test_what_is_in_no_file_any_more_is_told_and_kept(shrunk: GrafanaStub) -> None:
    found = told()
    assert found["left over"] == LEFT and found.keys() == {"unchanged", "left over"} and shrunk.writes == []


def test_and_removed_if_asked(shrunk: GrafanaStub) -> None:
    assert told("--prune", "--dry-run")["removed"] == LEFT and shrunk.writes == []
    assert told("--prune")["removed"] == LEFT
    assert set(shrunk.dashboards) == {"trust-overview", "theirs"}
    assert set(shrunk.points) == {"trustwatch-hook", "trustwatch-slack", "theirs"}
    assert set(shrunk.groups) == {("trustwatch", "trust")}
    assert told("--prune").keys() == {"unchanged"}


NIGHT = [{"times": [{"start_time": "00:00", "end_time": "08:00"}]}]
FOREIGN = ("trust-safety-pager", "Trust and Safety nights", "trust_and_safety", "Trustwatch-fans", "trustwatchers")
KEPT = ("trustwatch-of-a-file", "trustwatch")
"""Names of others, and names of ours under which a file on that Grafana keeps something."""


def theirs(stub: GrafanaStub, provenance: str, *names_: str) -> None:
    """Give it a contact point, a mute timing and a template of each name."""
    for name in names_:
        uid = name.replace(" ", "-")
        stub.points[uid] = {"uid": uid, "name": name, "type": "email", "settings": {"addresses": "c@d"},
                            "provenance": provenance}  # fmt: skip
        stub.timings[name] = {"name": name, "time_intervals": NIGHT, "provenance": provenance}
        if name not in stub.templates:
            stub.templates[name] = {"name": name, "template": "x", "version": "v0", "provenance": provenance}


def test_a_rule_that_the_files_retire_is_left_over_like_others(shrunk: GrafanaStub, files: Path) -> None:
    retired = {"apiVersion": 1, "deleteRules": [{"orgId": 1, "uid": "trustwatch-old"}]}
    write(files / "alerting" / "retired.yaml", yaml.safe_dump(retired))
    assert told()["left over"] == LEFT and told("--prune")["removed"] == LEFT
    assert set(shrunk.groups) == {("trustwatch", "trust")}


@pytest.mark.parametrize("provenance", ["", "api", "file", "converted_prometheus"])
def test_prune_touches_nothing_whose_name_is_not_ours(shrunk: GrafanaStub, provenance: str) -> None:
    theirs(shrunk, provenance, *FOREIGN)
    before = {name: dict(getattr(shrunk, name)) for name in ("points", "timings", "templates")}
    assert told("--prune", "--dry-run")["removed"] == told("--prune")["removed"] == LEFT
    del before["points"]["trustwatch-old"]
    assert before == {name: getattr(shrunk, name) for name in before}


def test_prune_touches_nothing_that_others_keep_under_a_name_of_ours(shrunk: GrafanaStub) -> None:
    theirs(shrunk, "file", *KEPT)
    shrunk.points["trustwatch-old"]["provenance"] = "file"
    shrunk.groups["trustwatch", "old"]["rules"][0]["provenance"] = "converted_prometheus"
    shrunk.dashboards["trust-old"]["meta"]["provisioned"] = True
    assert told().keys() == told("--prune", "--dry-run").keys() == told("--prune").keys() == {"unchanged"}
    assert shrunk.writes == []


def test_prune_removes_what_is_ours_by_name(shrunk: GrafanaStub) -> None:
    theirs(shrunk, "api", "trustwatch-gone")
    assert set(told("--prune")["removed"]) - set(LEFT) == {
        "contact point trustwatch-gone", "notification template trustwatch-gone", "mute timing trustwatch-gone",
    }  # fmt: skip
    assert set(shrunk.timings) == {"nights"} and set(shrunk.templates) == {"trustwatch"}


@pytest.mark.usefixtures("files")
def test_a_rule_that_others_keep_in_our_group_stays(stub: GrafanaStub) -> None:
    told()
    rules = stub.groups["trustwatch", "trust"]["rules"]
    rules += [rules[0] | {"uid": "of-a-file", "title": "F", "provenance": "file"},
              rules[0] | {"uid": "by-hand", "title": "H"}]  # fmt: skip
    assert told()["left over"] == ["alert rule by-hand"]
    rules.pop()
    assert told("--prune").keys() == {"unchanged"}
    assert [rule["uid"] for rule in stub.groups["trustwatch", "trust"]["rules"]] == ["trustwatch-a", "of-a-file"]


@pytest.mark.usefixtures("files")
def test_a_rule_in_our_group_that_no_file_has(stub: GrafanaStub) -> None:
    told()
    rules = stub.groups["trustwatch", "trust"]["rules"]
    rules.append(rules[0] | {"uid": "by-hand", "title": "By hand", "provenance": ""})
    assert told("--editable")["left over"] == ["alert rule by-hand"]
    assert [rule["uid"] for rule in stub.groups["trustwatch", "trust"]["rules"]] == ["trustwatch-a", "by-hand"]
    assert told("--prune")["removed"] == ["alert rule by-hand"]
    assert [rule["uid"] for rule in stub.groups["trustwatch", "trust"]["rules"]] == ["trustwatch-a"]


# ── left alone ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("files")
def test_somebody_elses_policy_stays_all_else_is_done_and_it_ends_with_an_error(stub: GrafanaStub) -> None:
    stub.policy = theirs = {"receiver": "grafana-default-email", "routes": [{"receiver": "grafana-default-email"}]}
    with pytest.raises(GrafanaUnavailable, match=r"others keep notification policy tree.*--take-policy"):
        run("sync")
    assert stub.policy is theirs and "trust-overview" in stub.dashboards
    told("--take-policy")
    assert stub.policy["receiver"] == "trustwatch-hook"


@pytest.mark.usefixtures("files")
def test_editable_leaves_alerting_open(stub: GrafanaStub) -> None:
    told("--editable")
    assert "provenance" not in stub.policy and "provenance" not in stub.groups["trustwatch", "trust"]["rules"][0]
    assert told("--editable").keys() == {"unchanged"}


@pytest.mark.usefixtures("files")
def test_a_failure_in_the_middle_is_told_and_the_next_sync_goes_on(stub: GrafanaStub) -> None:
    stub.fail(403, "PUT .*policies", times=1)
    with pytest.raises(GrafanaUnavailable, match="PUT /v1/provisioning/policies is answered with 403"):
        run("sync")
    found = told()
    assert found["changed"] == ["notification policy tree"]
    assert found["created"] == ["rule group trust", "dashboard trust-overview"]


@pytest.mark.parametrize("variable", ["ALERT_WEBHOOK_URL", "ALERT_SLACK_URL"])
@pytest.mark.usefixtures("files")
def test_a_secret_that_grafana_repeats_is_told_by_its_variable(
    stub: GrafanaStub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Somebody left out https://, and Grafana says what it was sent."""
    monkeypatch.setenv(f"{ENV_PREFIX}{variable}", "hook.example/" + "long/" * 60 + "secret?a=1&b=secret")
    with pytest.raises(GrafanaRefused) as caught:
        run("sync")
    message = str(caught.value)
    assert f'unsupported protocol scheme in "$TRUSTWATCH_{variable}"' in message and "is answered with 400" in message
    assert message.count(f"$TRUSTWATCH_{variable}") == 2 and "secret" not in message and "long" not in message


# ── configuration ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", [("sync",), ("annotate", "--what", "x")])
def test_what_is_not_configured_is_named_by_knob(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"monitoring\.grafana_url and monitoring\.grafana_token. Fix"):
        run(*command)
    monkeypatch.setenv(f"{ENV_PREFIX}MONITORING__GRAFANA_URL", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"needs monitoring\.grafana_token. Fix"):
        run(*command)


def test_variables_that_are_missing_are_named_and_nothing_is_asked(
    stub: GrafanaStub, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{ENV_PREFIX}ALERT_WEBHOOK_URL")
    monkeypatch.setenv(f"{ENV_PREFIX}ALERT_SLACK_URL", "")
    with pytest.raises(ConfigError, match=r"needs \$TRUSTWATCH_ALERT_SLACK_URL, \$TRUSTWATCH_ALERT_WEBHOOK_URL, not"):
        run("sync")
    assert stub.requests == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("alerting/x.yaml", "groups: [", "no YAML"),
        ("alerting/x.yaml", "[]", "no YAML mapping"),
        ("alerting/x.yaml", "rules: []", "rules is none of groups"),
        ("alerting/x.yaml", "groups: {}", "groups is none of"),
        ("alerting/x.yaml", "groups: [{name: a, folder: trustwatch}]", "KeyError"),
        (
            "alerting/x.yaml",
            RULES.replace("keepFiringFor", "keep_firing_for"),
            "has keep_firing_for, which Grafana does",
        ),
        ("alerting/x.yaml", RULES.replace("folder: trustwatch", "folder: other"), "is in folder other"),
        ("alerting/x.yaml", RULES.replace("90s", "soon"), "'soon' is no duration"),
        ("alerting/x.yaml", CONTACTS.replace("'severity = ticket'", "severity"), "matcher 'severity' is none"),
        ("datasources/x.yaml", "datasources: [{name: a}]", "a data source without uid"),
        ("json/x.json", "{", "no dashboard"),
        ("json/x.json", "{}", "no dashboard"),
        ("json/x.json", "[]", "no dashboard"),
    ],
)
def test_a_file_that_is_wrong_is_named_and_nothing_is_asked(
    stub: GrafanaStub, files: Path, name: str, text: str, says: str
) -> None:
    write(files / name, text)
    with pytest.raises(ConfigError) as caught:
        run("sync")
    assert str(caught.value).startswith(str(files / name)) and says in str(caught.value)
    assert stub.requests == []


def test_the_knobs_of_grafana(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"needs monitoring.grafana_url and monitoring.grafana_token"):
        load_settings(monitoring={"grafana_annotations": True})
    given = {"grafana_api_url": "http://in:1", "grafana_token": "s3cret-t", "grafana_annotations": True}
    found = load_settings(monitoring=given)
    assert found.monitoring.grafana_api == "http://in:1" and "s3cret-t" not in repr(found)
    assert load_settings(monitoring={"grafana_url": "http://out:1"}).monitoring.grafana_api == "http://out:1"
    monkeypatch.setenv(f"{ENV_PREFIX}MONITORING__GRAFANA_TOKEN", "")  # as Compose hands on what is not set
    assert load_settings().monitoring.grafana_token is None


def test_variables_of_compose_and_of_the_files_are_no_typos_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [(ROOT / ".env.example").read_text(), *(file.read_text() for file in PROVISIONING.rglob("*.y*ml"))]
    named = {name for text in texts for name in re.findall(rf"\b{ENV_PREFIX}[A-Z_]+\b", text)}
    assert {"TRUSTWATCH_ALERT_WEBHOOK_URL", "TRUSTWATCH_HEARTBEAT_URL"} <= named
    for name in named:
        if "__" not in name:
            monkeypatch.setenv(name, "1")
    load_settings()


# ── what is committed ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_committed_files_go_into_a_grafana_and_a_second_sync_changes_nothing(stub: GrafanaStub) -> None:
    assert "changed" in told()
    assert told().keys() == {"unchanged"}
    assert set(stub.dashboards) == set(names.DASHBOARDS)
    assert names.PROMETHEUS_UID in stub.sources
    assert len(stub.groups) >= 3 and len(stub.points) >= 2 and stub.templates and stub.policy["routes"]
    rules = [rule for group in stub.groups.values() for rule in group["rules"]]
    panels = {(uid, str(panel["id"])) for uid, one in stub.dashboards.items() for panel in all_panels(one["dashboard"])}
    linked = {(rule["annotations"]["__dashboardUid__"], rule["annotations"]["__panelId__"])
              for rule in rules if "__panelId__" in rule["annotations"]}  # fmt: skip
    assert linked and linked <= panels


def test_somebody_elses_timing_of_a_plain_name_stays_as_it_is(stub: GrafanaStub) -> None:
    stub.timings["outside-working-hours"] = made = {"name": "outside-working-hours", "time_intervals": NIGHT}
    told("--prune")
    assert stub.timings["outside-working-hours"] is made
    assert set(stub.timings) == {"outside-working-hours", "trustwatch-outside-working-hours"}


def test_all_of_ours_that_lives_in_no_folder_has_a_name_that_says_so(stub: GrafanaStub) -> None:
    told()
    assert all(re.match("trustwatch(-|$)", name) for name in (*stub.points, *stub.timings, *stub.templates))
    for found in (stub.points, stub.timings, stub.templates):  # and prune knows them by it
        name, one = next(iter(found.items()))
        found[f"{name}-old"] = one | {"uid": f"{name}-old", "name": f"{name}-old"}
    assert len(told()["left over"]) == 3


def all_panels(model: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for row in model["panels"] for panel in (row, *row.get("panels", ()))]


def test_an_installed_package_has_the_files() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {path for package in ("dashboards", "deploy") for pattern in data[package]
               for path in (ROOT / package).glob(pattern)}  # fmt: skip
    assert DASHBOARDS.is_relative_to(ROOT) and PROVISIONING.is_relative_to(ROOT)
    needed = {*DASHBOARDS.glob("*.json"), *(path for path in PROVISIONING.rglob("*") if path.is_file())}
    assert len(needed) > 8 and needed <= shipped
    assert isinstance(Files(), Files)


# ── annotate ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deploy_is_shown_once(stub: GrafanaStub) -> None:
    command = ("annotate", "--what", "shop 4.2 is live", "--tag", "shop", "--time", "2026-03-01T12:00:00Z")
    assert "posted" in run(*command).stderr and "Grafana knew it" in run(*command).stderr
    (note,) = stub.notes.values()
    assert (note["time"], note["timeEnd"]) == (1_772_366_400_000, 1_772_366_400_000)
    assert (note["text"], note["tags"]) == ("shop 4.2 is live", ["trustwatch", "deploy", "shop"])
    assert note["dashboardUID"] is None


def test_an_event_that_is_no_deploy_on_one_dashboard(stub: GrafanaStub) -> None:
    stub.dashboards["board"] = {}
    run("annotate", "--what", "sale begins", "--event", "--tag", "sale", "--dashboard", "board")
    (note,) = stub.notes.values()
    assert (note["tags"], note["dashboardUID"]) == (["trustwatch", "sale"], "board")


def test_a_time_without_a_zone_is_utc_and_one_that_is_none_is_refused(stub: GrafanaStub) -> None:
    run("annotate", "--what", "x", "--time", "2026-03-01T12:00:00")
    assert [note["time"] for note in stub.notes.values()] == [1_772_366_400_000]
    with pytest.raises(UsageError, match="--time 'soon': write ISO 8601"):
        run("annotate", "--what", "x", "--time", "soon")
