"""The dashboards: committed as built, by the rules of grafana/dashboard-linter without exception, and no dead ends."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client.core import CounterMetricFamily

from dashboards import build, names
from dashboards._alert_recording import recordings
from dashboards._alert_spec import load_spec
from dashboards._panels import COLUMNS, arrange, filled, row, stat
from detectors._registry import discover
from streams.app import Line
from streams.metrics import LineCollector
from tests.test_metrics import SETTINGS, Fed

ROOT = Path(__file__).resolve().parents[1]
BOARDS = build.boards()
UNITS: Final = {"none", "string", "short", "percent", "percentunit", "s", "bytes", "cps", "dateTimeAsIso"}
"""Of Grafana's units those in use; a new one is looked up in Grafana's list of value formats before it comes here."""
OF_PROMETHEUS: Final = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
TARGET_LABELS: Final = {"job", "instance"}
BUILT_IN: Final = {"__rate_interval", "__range", "__interval", "__url_time_range", "__data", "__all"}
RECORDINGS: Final = recordings(load_spec())
RECORDED: Final = {one.name: {label for each in RECORDINGS for label, _ in each.labels} for one in RECORDINGS}
"""Recording rules that panels ask for: they are sums over all workers already."""
SELECTOR: Final = re.compile(r"\b([a-z_:]+)\{([^}]*)\}")
EVERY_BOARD = pytest.mark.parametrize("uid", BOARDS)


def panels(uid: str) -> list[dict[str, Any]]:
    return [panel for panel in BOARDS[uid]["panels"] if panel["type"] != "row"]


def targets(uid: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels(uid):
        for target in panel["targets"]:
            yield panel["title"], target


def annotation_queries(uid: str) -> Iterator[tuple[str, str]]:
    for annotation in BOARDS[uid]["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def variables(uid: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in BOARDS[uid]["templating"]["list"]}


# ── committed as built ────────────────────────────────────────────────────────────────────────────────────────────────


def test_committed_files_are_as_built() -> None:
    assert build.stale() == [], build.FIX.format("")


def test_check_names_what_is_stale_and_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build.stale, "__defaults__", (tmp_path,))
    (tmp_path / "old.json").write_text("{}")
    told = CliRunner().invoke(build.main, ["--check"])
    assert told.exit_code == 1 and "old.json" in told.output and "Fix: make gen" in told.output
    assert CliRunner().invoke(build.main, []).exit_code == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == set(names.DASHBOARDS)
    assert CliRunner().invoke(build.main, ["--check"]).exit_code == 0


def test_built_twice_is_the_same() -> None:
    assert [build.written(board) for board in build.boards().values()] == [*map(build.written, BOARDS.values())]


def test_every_dashboard_that_has_a_name_is_built() -> None:
    assert {uid: board["title"] for uid, board in BOARDS.items()} == names.DASHBOARDS


def test_each_detector_has_a_panel_that_alerts_can_link_to() -> None:
    made = {panel["id"]: panel for panel in panels(names.OVERVIEW)}
    for name, cls in discover().items():
        assert made[names.panel_id(name)]["title"].startswith(cls.title)


def test_panels_of_other_detectors_move_none_of_the_ids() -> None:
    name, cls = next(iter(discover().items()))
    fewer = {panel["title"]: panel["id"] for panel in build.boards({name: cls})[names.OVERVIEW]["panels"]}
    all_ = {panel["title"]: panel["id"] for panel in BOARDS[names.OVERVIEW]["panels"]}
    assert fewer.items() <= all_.items() and len(fewer) < len(all_)


@pytest.mark.parametrize("count", range(1, 8))
def test_any_number_of_detectors_fits_the_grid(count: int) -> None:
    cls = next(iter(discover().values()))
    board = build.boards({f"detector_{i}": cls for i in range(count)})[names.OVERVIEW]
    no_overlap(board["panels"])


# ── the rules of grafana/dashboard-linter ─────────────────────────────────────────────────────────────────────────────


@EVERY_BOARD
def test_cannot_be_edited_in_place(uid: str) -> None:  # uneditable-dashboard
    board = BOARDS[uid]
    assert board["editable"] is False and board["schemaVersion"] >= 39 and "trustwatch" in board["tags"]
    assert board["graphTooltip"] == 1 and board["refresh"] and board["time"]["to"] == "now"


@EVERY_BOARD
def test_data_source_job_and_instance_are_variables(uid: str) -> None:  # template-datasource, -job, -instance
    found = variables(uid)
    source = found["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")
    assert source["current"]["value"] == names.PROMETHEUS_UID
    for name in ("job", "instance"):
        assert found[name]["multi"] and found[name]["allValue"] == ".+" and found[name]["label"]


@EVERY_BOARD
def test_variables_ask_the_data_source_whenever_the_time_changes(uid: str) -> None:  # template-on-time-change-reload
    for variable in variables(uid).values():
        assert variable["description"] and variable["label"]
        if variable["type"] == "query":
            assert variable["refresh"] == 2 and variable["datasource"]["uid"] == "${datasource}"
            assert variable["query"]["query"] == variable["definition"]


@EVERY_BOARD
def test_every_panel_says_what_it_shows(uid: str) -> None:  # panel-title-description
    for panel in panels(uid):
        about = panel["description"]
        assert panel["title"] and about.endswith(".") and about[0].isupper() and len(about) > 30, panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"]


@EVERY_BOARD
def test_every_panel_has_a_unit(uid: str) -> None:  # panel-units
    for panel in panels(uid):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        properties = [each for override in panel["fieldConfig"]["overrides"] for each in override["properties"]]
        assert {each["value"] for each in properties if each["id"] == "unit"} <= UNITS, panel["title"]


@EVERY_BOARD
def test_every_panel_and_query_uses_the_data_source_variable(uid: str) -> None:  # panel-datasource, panel-no-targets
    for panel in panels(uid):
        assert panel["targets"], panel["title"]
        for place in (panel, *panel["targets"]):
            assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


@EVERY_BOARD
def test_every_rate_is_over_the_rate_interval(uid: str) -> None:  # target-rate-interval
    for title, target in targets(uid):
        for function, inside in re.findall(r"\b(i?rate)\([^\[]*\[([^\]]*)\]", target["expr"]):
            assert inside == "$__rate_interval", f"{title}: {function} over {inside}"
        assert set(re.findall(r"\[([^\]]*)\]", target["expr"])) <= {"$__rate_interval", "$__range"}, title


@EVERY_BOARD
def test_every_counter_is_read_as_growth(uid: str) -> None:  # target-counter-agg
    for title, target in targets(uid):
        for found in re.finditer(r"(\w*)\(?\b(trustwatch_\w+_total)\{", target["expr"]):
            assert found[1] in ("rate", "increase"), f"{title}: {found[2]}"


@EVERY_BOARD
def test_every_selector_keeps_to_the_chosen_workers(uid: str) -> None:  # target-job, target-instance
    asked = [*((title, target["expr"]) for title, target in targets(uid)), *annotation_queries(uid)]
    for title, expr in asked:
        for metric, matchers in SELECTOR.findall(expr):
            if metric not in RECORDED:
                assert 'job=~"$job",instance=~"$instance"' in matchers, f"{title}: {metric}"
        assert not re.search(r"\b(trustwatch|scrape)[_:][\w:]+(?![\w:{(])", expr), (
            f"{title}: a metric without a selector"
        )


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, str]]:
    """Every expression there is, with a name."""
    found = [(f"{one.uid}: {one.title}", one.text) for one in build.expressions()]
    annotations = ((uid, name, expr) for uid in BOARDS for name, expr in annotation_queries(uid))
    return found + [(f"{uid}: {name}", filled(expr, build.DEFAULTS)) for uid, name, expr in annotations]


def test_prometheus_understands_every_expression(  # target-promql
    asked: list[tuple[str, str]], promtool: str, tmp_path: Path
) -> None:
    rules = [{"record": f"x{i}", "expr": expr, "labels": {"at": title}} for i, (title, expr) in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{len(asked)} rules found" in done.stdout
    rules.append({"record": "broken", "expr": "sum(rate(x[5m])", "labels": {}})
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    assert subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, check=False).returncode != 0


# ── what they ask for exists ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Name of a series → its labels, of all that a worker exports."""
    fed = Fed()
    for _ in fed.feed():
        pass
    found = dict.fromkeys(OF_PROMETHEUS, TARGET_LABELS) | RECORDED
    for line in (Line(SETTINGS), fed.line):
        for family in LineCollector(line)._families():
            declared = set(getattr(family, "_labelnames", ()))
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            for end in ends:
                labels = {label for sample in family.samples for label in sample.labels if sample.name.endswith(end)}
                labels |= declared | ({"le"} if end == "_bucket" else set()) | TARGET_LABELS
                found[family.name + end] = found.get(family.name + end, set()) | labels
    for name in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds"):
        found[f"trustwatch_process_{name}"] = TARGET_LABELS  # of prometheus_client's ProcessCollector
    return found


def test_every_metric_and_label_asked_for_is_exported(
    asked: list[tuple[str, str]], exported: dict[str, set[str]]
) -> None:
    for title, expr in asked:
        selectors = SELECTOR.findall(expr)
        assert selectors, f"{title}: asks for nothing"
        labels = set[str]()
        for metric, matchers in selectors:
            assert metric in exported, f"{title}: {metric} is not exported"
            wanted = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
            assert wanted <= exported[metric], f"{title}: {metric} has no label {wanted - exported[metric]}"
            labels |= exported[metric]
        for inside in re.findall(r"\b(?:by|on|without|group_left)\s*\(([^)]*)\)", expr):
            grouped = {label.strip() for label in inside.split(",") if label.strip()}
            assert grouped <= labels, f"{title}: nothing has {grouped - labels}"


@EVERY_BOARD
def test_legends_and_columns_show_labels_that_are_there(uid: str, exported: dict[str, set[str]]) -> None:
    for panel in panels(uid):
        letters = {target["refId"] for target in panel["targets"]}
        labels = set[str]()
        for target in panel["targets"]:
            own = {label for metric, _ in SELECTOR.findall(target["expr"]) for label in exported[metric]}
            shown = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
            assert shown <= own, f"{panel['title']}: no label {shown - own}"
            labels |= own
        for fields in (each["options"]["renameByName"] for each in panel.get("transformations", [])[-1:]):
            values = {"Value"} if len(letters) == 1 else {f"Value #{letter}" for letter in letters}
            assert set(fields) <= labels | values, f"{panel['title']}: no field {set(fields) - labels - values}"


def test_label_values_of_variables_are_exported(exported: dict[str, set[str]]) -> None:
    for uid in BOARDS:
        for variable in variables(uid).values():
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((\w+)(?:\{(.*)\})?, (\w+)\)", variable["definition"])
                assert found is not None, variable["definition"]
                assert {found[3], *re.findall(r"(\w+)=~?\"", found[2] or "")} <= exported[found[1]]


@EVERY_BOARD
def test_variables_are_defined_and_used(uid: str) -> None:
    known = variables(uid)
    text = json.dumps([BOARDS[uid]["panels"], BOARDS[uid]["annotations"]])
    chained = json.dumps([each.get("definition", "") for each in known.values()])
    used = set(re.findall(r"\$\{?(\w+)", text + chained))
    assert used - BUILT_IN <= set(known), f"not defined: {used - BUILT_IN - set(known)}"
    assert set(known) <= used, f"never used: {set(known) - used}"


@EVERY_BOARD
def test_variables_of_several_values_are_compared_by_expression(uid: str) -> None:
    several = {name for name, variable in variables(uid).items() if variable.get("multi")}
    for title, target in targets(uid):
        for operator, name in re.findall(r'(=~|!~|!=|=)"\$(\w+)"', target["expr"]):
            assert name not in several or operator in ("=~", "!~"), f"{title}: ${name}"


# ── where things are, and where they lead ─────────────────────────────────────────────────────────────────────────────


def no_overlap(placed: list[dict[str, Any]]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in placed:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= COLUMNS, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@EVERY_BOARD
def test_panels_do_not_overlap_and_ids_are_unique(uid: str) -> None:
    no_overlap(BOARDS[uid]["panels"])
    ids = [panel["id"] for panel in BOARDS[uid]["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(uid):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))


@EVERY_BOARD
def test_what_matters_first_comes_first(uid: str) -> None:
    kinds = [panel["type"] for panel in BOARDS[uid]["panels"]]
    assert 6 <= kinds.index("row") <= 8 and set(kinds[: kinds.index("row")]) == {"stat"}


def links(uid: str) -> Iterator[str]:
    for panel in panels(uid):
        yield from (link["url"] for link in panel.get("links", []))
        for override in panel["fieldConfig"]["overrides"]:
            for each in override["properties"]:
                if each["id"] == "links":
                    yield from (link["url"] for link in each["value"])


@EVERY_BOARD
def test_links_lead_to_dashboards_with_time_and_variables_kept(uid: str) -> None:
    (between,) = BOARDS[uid]["links"]
    assert between["keepTime"] and between["includeVars"] and between["tags"] == ["trustwatch"]
    for url in links(uid):
        target = urlsplit(url)
        there = target.path.removeprefix("/d/")
        assert there in BOARDS, url
        assert {"${__url_time_range}", "${datasource:queryparam}", "${job:queryparam}"} <= set(target.query.split("&"))
        given = {name.removeprefix("var-") for name in parse_qs(target.query) if name.startswith("var-")}
        assert given <= set(variables(there)), url


def test_cells_link_with_columns_that_are_shown() -> None:
    for uid in BOARDS:
        for panel in panels(uid):
            taken = set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))
            if taken:
                shown = panel["transformations"][-1]["options"]["renameByName"].values()
                assert taken <= set(shown), panel["title"]


def test_rows_of_open_findings_lead_to_the_finding() -> None:
    found = [url for url in links(names.OVERVIEW) if url.startswith(f"/d/{names.FINDING}?")]
    assert len(found) == 2 and all("var-finding=${__data.fields.Finding:percentencode}" in url for url in found)


def test_what_cells_put_into_an_address_is_encoded() -> None:
    taken = [put for uid in BOARDS for url in links(uid) for put in re.findall(r"\$\{__data[^}]*\}", url)]
    assert len(taken) > 5 and all(put.endswith(":percentencode}") for put in taken)


@EVERY_BOARD
def test_findings_deploys_and_definition_changes_are_marked(uid: str) -> None:
    marks = {each["name"]: each for each in BOARDS[uid]["annotations"]["list"]}
    assert "trustwatch_open_finding" in marks["Findings noticed"]["expr"]
    assert 'type="deployed"' in marks["Deploys"]["expr"]
    assert 'type="definition_changed"' in marks["Definition changes"]["expr"]
    assert marks["Posted by trustwatch"]["target"]["tags"] == ["trustwatch"]


# ── for the end-to-end test ───────────────────────────────────────────────────────────────────────────────────────────


def test_expressions_hold_no_variable() -> None:
    found = list(build.expressions({"stage": "leads"}))
    assert len(found) > 150 and not [one for one in found if "$" in one.text]
    assert any('stage=~"leads"' in one.text for one in found)
    assert len({one[:3] for one in found}) == len(found)


def test_what_may_be_empty_exists_and_has_its_reason() -> None:
    asked = {one[:3]: one for one in build.expressions()}
    assert set(build.EMPTY_IN_GOOD_TIMES) <= set(asked)
    assert all(len(reason) > 20 for reason in build.EMPTY_IN_GOOD_TIMES.values())
    assert build.why_empty(asked[names.FINDING, "Before", "A"])
    assert not build.why_empty(asked[names.PIPELINE, "Lag", "A"])
    funnel = [one for where, one in asked.items() if where[1] == "Journey funnel"]
    assert [bool(build.why_empty(one)) for one in funnel] == [False, False, True, True]


# ── the grid itself ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("widths", "heights", "why"), [
    ((12, 13), (4, 4), "too wide"), ((12,), (4,), "ends after"), ((12, 12), (4, 8), "high"),
])  # fmt: skip
def test_a_line_that_does_not_fit_is_refused(widths: tuple[int, ...], heights: tuple[int, ...], why: str) -> None:
    made = [stat(f"{i}", "", "x", "short", width=width) for i, width in enumerate(widths)]
    for panel, height in zip(made, heights, strict=True):
        panel["gridPos"]["h"] = height
    with pytest.raises(ValueError, match=why):
        arrange(made)


def test_rows_and_panels_follow_each_other() -> None:
    placed = arrange([row("first"), *(stat(f"{i}", "", "x", "short") for i in range(8)), row("second")])
    assert [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in placed] == [
        (0, 0), *((3 * i, 1) for i in range(8)), (0, 5)
    ]  # fmt: skip


# ── what Grafana is provisioned with ──────────────────────────────────────────────────────────────────────────────────


def provisioned(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / "grafana" / "provisioning" / name).read_text())


def test_the_provider_is_of_our_folder_and_lets_nobody_edit() -> None:
    (provider,) = provisioned("dashboards/trustwatch.yaml")["providers"]
    assert provider["folder"] == names.FOLDER_TITLE and provider["folderUid"] == names.FOLDER_UID
    assert provider["type"] == "file" and provider["allowUiUpdates"] is False
    known = {"name", "orgId", "type", "folder", "folderUid", "disableDeletion", "allowUiUpdates",
             "updateIntervalSeconds", "options"}  # fmt: skip
    assert set(provider) <= known and set(provider["options"]) <= {"path", "foldersFromFilesStructure"}


def test_the_data_source_is_the_one_that_dashboards_take_and_knows_the_scrape_interval() -> None:
    (source,) = provisioned("datasources/prometheus.yaml")["datasources"]
    assert (source["uid"], source["type"], source["editable"]) == (names.PROMETHEUS_UID, "prometheus", False)
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]


def test_counters_have_one_ending() -> None:
    """`exported` above appends it; prometheus_client takes it off a name that already has it."""
    assert CounterMetricFamily("x_total", "").name == "x"
