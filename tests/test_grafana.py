"""The connection to Grafana, over real HTTP: what is asked, what is asked again, and what its failures are told as."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards import _http
from dashboards._compare import align, duration, duration_s
from dashboards._http import Api, path
from dashboards._managed import (
    ContactPoint,
    Dashboard,
    DataSource,
    Folder,
    Managed,
    MuteTiming,
    Policy,
    RuleGroup,
    Template,
)
from dashboards.grafana import Annotation, Grafana
from streams.errors import GrafanaRefused, GrafanaUnavailable
from tests.grafana_stub import TOKEN, GrafanaStub, grafana_stub

AT_MS = 1_790_000_000_000


@pytest.fixture
def stub() -> Iterator[GrafanaStub]:
    with grafana_stub() as running:
        yield running


def grafana(stub: GrafanaStub, **options: Any) -> Grafana:
    return Grafana(stub.url, TOKEN, 5.0, **options)


def said(call: Any) -> str:
    """The message of the error that a call ends with."""
    with pytest.raises(GrafanaUnavailable) as caught:
        call()
    return str(caught.value)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (400, "take the newest trustwatch"),
        (401, "set monitoring.grafana_token"),
        (403, "the service account of monitoring.grafana_token"),
        (404, "correct monitoring.grafana_url"),
        (409, "rename or delete, in Grafana"),
        (412, "somebody changed it in Grafana meanwhile"),
    ],
)
def test_a_no_is_told_with_its_status_its_reason_and_the_fix_and_not_asked_again(
    stub: GrafanaStub, status: int, fix: str
) -> None:
    stub.fail(status)
    with pytest.raises(GrafanaRefused) as caught:
        grafana(stub, tries=5).dashboards_in("x")
    assert caught.value.status == status
    message = str(caught.value)
    assert message.startswith(f"{stub.url}: GET /search?") and f"told to say {status}" in message
    assert f". Fix: {fix}" in message or fix in message.partition(". Fix: ")[2]
    assert len(stub.requests) == 1


def test_a_wrong_token_is_refused_by_its_knob_and_never_said(stub: GrafanaStub) -> None:
    wrong = "glsa_wrong-secret"
    message = said(lambda: Grafana(stub.url, wrong).dashboards_in("x"))
    assert "401: Invalid API key. Fix: set monitoring.grafana_token" in message and wrong not in message


def test_health_needs_no_token(stub: GrafanaStub) -> None:
    assert Grafana(stub.url).health() == {"database": "ok", "version": "12.1.0", "commit": "0"}


def test_a_message_that_holds_the_token_is_told_without_it(stub: GrafanaStub) -> None:
    api = Api(stub.url, TOKEN, 5.0, 1)
    with pytest.raises(GrafanaRefused) as caught:
        api.get(path("folders", TOKEN))
    assert TOKEN not in str(caught.value) and "/folders/…" in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ключ"])
def test_a_token_that_is_none_is_refused_by_knob_and_not_said(token: str) -> None:
    message = said(lambda: Grafana("http://127.0.0.1:1", token))
    assert "monitoring.grafana_token" in message and (not token or token not in message)


@pytest.mark.parametrize(
    "content", [b"", b"7", b'"a message"', b"[]", b'{"message": 7}', b"<html>", b"\xff", b"[" * 9999]
)
def test_a_failure_that_is_no_json_object_is_a_failure_all_the_same(content: bytes) -> None:
    assert _http._message(content) == ("", "")


@pytest.mark.parametrize(("action", "says"), [("html", "not as Grafana"), ("redirect", "elsewhere")])
def test_what_is_no_grafana_is_named_by_knob(stub: GrafanaStub, action: str, says: str) -> None:
    stub.fail(action)
    message = said(lambda: grafana(stub, tries=3).health())
    assert says in message and "monitoring.grafana_url" in message
    assert len(stub.requests) == 1


def test_a_proxy_of_the_environment_is_not_used(stub: GrafanaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert grafana(stub).health()["database"] == "ok"


def test_names_are_quoted(stub: GrafanaStub) -> None:
    name = "a b/c?d#e%f.ü"
    template = Template(name, {"template": "x"})
    assert [grafana(stub).ensure(template).action for _ in range(2)] == ["created", "unchanged"]
    assert list(stub.templates) == [name]


def test_an_answer_without_content_is_none(stub: GrafanaStub) -> None:
    api = Api(stub.url, TOKEN, 5.0, 1)
    assert api.call("DELETE", path("v1", "provisioning", "templates", "x")) is None


# ── again ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("action", [429, 500, 502, 503, 504, "drop"])
def test_what_passes_is_asked_again_with_growing_pauses(stub: GrafanaStub, action: int | str) -> None:
    stub.fail(action, times=3)
    pauses: list[float] = []
    assert grafana(stub, tries=4, sleep=pauses.append).health()["database"] == "ok"
    assert (len(stub.requests), pauses) == (4, [0.5, 1.0, 2.0])


def test_not_for_ever(stub: GrafanaStub) -> None:
    stub.fail(503)
    message = said(lambda: grafana(stub, tries=3, sleep=lambda _: None).health())
    assert "answered with 503 (3 tries): told to say 503. Fix: try it later" in message and len(stub.requests) == 3


@pytest.mark.parametrize(("after", "pause_s"), [("3", 3.0), ("3600", _http.LONGEST_PAUSE_S), ("soon", 0.5)])
def test_it_waits_as_long_as_it_is_told_within_bounds(stub: GrafanaStub, after: str, pause_s: float) -> None:
    stub.fail(429, times=1, Retry_After=after)
    pauses: list[float] = []
    grafana(stub, tries=2, sleep=pauses.append).health()
    assert pauses == [pause_s]


def test_a_hanging_one_is_given_up(stub: GrafanaStub) -> None:
    stub.fail("hang")
    message = said(lambda: Grafana(stub.url, TOKEN, 0.2, tries=2, sleep=lambda _: None).health())
    assert "no answer within 0.2 s (2 tries)" in message and "monitoring.grafana_url" in message
    assert len(stub.requests) == 2


def test_nobody_there_is_told_by_knob() -> None:
    pauses: list[float] = []
    message = said(lambda: Grafana("http://127.0.0.1:1", TOKEN, tries=2, sleep=pauses.append).annotate(note()))
    assert "(2 tries)" in message and "monitoring.grafana_url" in message and len(pauses) == 1


@pytest.mark.parametrize(("action", "asked"), [(503, 3), (429, 3), (500, 1), (504, 1), ("drop", 1)], ids=str)
def test_what_could_be_done_twice_is_asked_again_only_if_it_was_not_done(
    stub: GrafanaStub, action: int | str, asked: int
) -> None:
    stub.fail(action, "POST")
    api = Api(stub.url, TOKEN, 5.0, 3, lambda _: None)
    with pytest.raises(GrafanaUnavailable):
        api.call("POST", path("folders"), {"uid": "x", "title": "X"})
    assert len(stub.requests) == asked


def test_a_post_is_made_again_where_there_was_no_connection() -> None:
    pauses: list[float] = []
    api = Api("http://127.0.0.1:1", TOKEN, 5.0, 3, pauses.append)
    with pytest.raises(GrafanaUnavailable):
        api.call("POST", path("folders"), {})
    assert len(pauses) == 2


def test_an_endless_answer_is_given_up(stub: GrafanaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "LONGEST_ANSWER_BYTES", 10)
    assert "does not end" in said(grafana(stub).health)


# ── objects ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SOURCE = {"name": "Prometheus (trustwatch)", "type": "prometheus", "access": "proxy", "url": "http://prometheus:9090",
          "jsonData": {"timeInterval": "15s"}}  # fmt: skip
RULE = {
    "uid": "trustwatch-a", "title": "A", "orgID": 1, "folderUID": "trustwatch", "ruleGroup": "trust", "condition": "C",
    "data": [
        {"refId": "A", "queryType": "", "relativeTimeRange": {"from": 600, "to": 0}, "datasourceUid": "prom",
         "model": {"refId": "A", "expr": "up", "instant": True}},
        {"refId": "C", "queryType": "", "relativeTimeRange": {"from": 0, "to": 0}, "datasourceUid": "__expr__",
         "model": {"refId": "C", "type": "threshold", "expression": "A"}},
    ],
    "for": "90s", "keep_firing_for": "300s", "noDataState": "OK", "execErrState": "KeepLast", "isPaused": False,
    "annotations": {"summary": "{{ $labels.x }}", "__dashboardUid__": "d", "__panelId__": "7"},
    "labels": {"severity": "page"}, "missingSeriesEvalsToResolve": 3,
}  # fmt: skip
GROUP = {"title": "trust", "folderUid": "trustwatch", "interval": 20, "rules": [RULE]}
HOOK = {"name": "trustwatch-hook", "type": "webhook", "disableResolveMessage": False,
        "settings": {"url": "http://a.example/", "password": "hunter22"}}  # fmt: skip
ROUTE = {"object_matchers": [["severity", "=", "ticket"]], "mute_time_intervals": ["nights"], "repeat_interval": "24h"}
TREE = {"receiver": "trustwatch-hook", "group_by": ["alertname"], "group_wait": "90s", "routes": [ROUTE]}
NIGHTS = {"time_intervals": [{"times": [{"start_time": "00:00", "end_time": "08:00"}], "location": "Etc/UTC"}]}
PANEL = {"id": 1, "type": "stat", "title": "S", "gridPos": {"h": 4, "w": 6, "x": 0, "y": 0}, "targets": [{"expr": "1"}]}
MODEL = {"uid": "board", "title": "Board", "schemaVersion": 39, "editable": False, "tags": ["x"], "panels": [PANEL]}


def objects() -> dict[str, Managed]:
    return {
        "folder": Folder("trustwatch", {"title": "trustwatch"}),
        "source": DataSource("prom", SOURCE),
        "template": Template("trustwatch", {"template": '{{ define "x" }}y{{ end }}\n'}),
        "timing": MuteTiming("nights", NIGHTS),
        "point": ContactPoint("trustwatch-hook", HOOK),
        "policy": Policy("tree", TREE),
        "group": RuleGroup("trust", copy.deepcopy(GROUP)),
        "board": Dashboard("board", copy.deepcopy(MODEL), "trustwatch"),
    }


@pytest.fixture
def filled(stub: GrafanaStub) -> GrafanaStub:
    """A Grafana that has them all."""
    for one in objects().values():
        grafana(stub).ensure(one)
    stub.requests.clear()
    return stub


def test_all_are_made_and_a_second_time_nothing_is_written(stub: GrafanaStub) -> None:
    for one in objects().values():
        first = grafana(stub).ensure(one).action
        assert first == ("changed" if one.kind == "notification policy" else "created"), one.title
    written = len(stub.writes)
    for one in objects().values():
        change = grafana(stub).ensure(one)
        assert (change.action, change.diff) == ("unchanged", ""), one.title
    assert written == len(objects()) == len(stub.writes)


def test_looking_changes_nothing(stub: GrafanaStub) -> None:
    stub.folders["trustwatch"] = {"uid": "trustwatch", "title": "other", "version": 3}
    actions = [grafana(stub).look(one).action for one in objects().values()]
    assert set(actions) == {"created", "changed"} and stub.writes == []


CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("folder", "title", {"title": "new"}),
    ("source", "http://new:9090", {**SOURCE, "url": "http://new:9090"}),
    ("template", "changed text", {"template": "changed text"}),
    ("timing", "Europe/Berlin", {"time_intervals": [{"location": "Europe/Berlin"}]}),
    ("point", "http://b.example/", {**HOOK, "settings": {"url": "http://b.example/", "password": "hunter22"}}),
    ("policy", "stage", {**TREE, "group_by": ["stage"]}),
    ("group", '"interval": 60', {**GROUP, "interval": 60}),
    ("group", '"for": 60.0', {**GROUP, "rules": [{**RULE, "for": "1m"}]}),
    ("board", "New title", {**MODEL, "title": "New title"}),
]


@pytest.mark.parametrize(("key", "shows", "body"), CHANGES, ids=[f"{key}-{shows}" for key, shows, _ in CHANGES])
def test_what_differs_is_shown_and_written_once(
    filled: GrafanaStub, key: str, shows: str, body: dict[str, Any]
) -> None:
    wanted = objects()[key]
    wanted.body = body
    change = grafana(filled).ensure(wanted)
    assert change.action == "changed" and shows in change.diff
    assert change.diff.startswith(f"--- Grafana: {wanted.title}\n+++ trustwatch: {wanted.title}\n@@")
    assert len(filled.writes) == 1
    assert grafana(filled).ensure(wanted).action == "unchanged"
    assert len(filled.writes) == 1


def test_what_grafana_adds_is_kept_apart_from_what_it_was_given(filled: GrafanaStub) -> None:
    rule = filled.groups["trustwatch", "trust"]["rules"][0]
    assert (rule["for"], rule["keep_firing_for"], rule["provenance"]) == ("1m30s", "5m", "api")
    assert rule["data"][0]["model"]["intervalMs"] == 1000 and rule["updated"]
    assert filled.dashboards["board"]["dashboard"]["version"] == 1
    assert filled.sources["prom"]["version"] == 1


def test_our_data_source_leaves_it_open_which_one_is_the_default(filled: GrafanaStub) -> None:
    filled.sources["prom"]["isDefault"] = True
    grafana(filled).ensure(DataSource("prom", {**SOURCE, "url": "http://new:9090"}))
    assert filled.sources["prom"]["isDefault"] is True and filled.sources["prom"]["url"] == "http://new:9090"


def test_a_secret_is_neither_compared_nor_shown_and_written_again_on_request(filled: GrafanaStub) -> None:
    def point(password: str) -> ContactPoint:
        body = {**HOOK, "settings": {"url": "http://a.example/", "password": password}}
        return ContactPoint("trustwatch-hook", body, {"password": "$PASSWORD"})

    assert grafana(filled).ensure(point("correct horse")).action == "unchanged"
    again = point("correct horse")
    again.again = True
    change = grafana(filled).ensure(again)
    assert change.action == "changed" and "$PASSWORD" in change.diff and "correct horse" not in change.diff
    assert filled.points["trustwatch-hook"]["settings"]["password"] == "correct horse"


def test_rules_of_others_in_our_group_stay_unless_they_are_to_go(filled: GrafanaStub) -> None:
    rules = filled.groups["trustwatch", "trust"]["rules"]
    rules.append({**copy.deepcopy(rules[0]), "uid": "theirs", "title": "Theirs", "provenance": ""})
    ours = RuleGroup("trust", {**GROUP, "interval": 60})
    assert grafana(filled).ensure(ours).action == "changed"
    assert [rule["uid"] for rule in filled.groups["trustwatch", "trust"]["rules"]] == ["trustwatch-a", "theirs"]
    assert grafana(filled).ensure(ours).action == "unchanged"
    ours.prune = True
    assert grafana(filled).ensure(ours).action == "changed"
    assert [rule["uid"] for rule in filled.groups["trustwatch", "trust"]["rules"]] == ["trustwatch-a"]


def test_locked_or_editable_as_asked(filled: GrafanaStub) -> None:
    for key in ("template", "timing", "point", "policy", "group"):
        wanted = objects()[key]
        wanted.locked = False
        change = grafana(filled).ensure(wanted)
        assert change.action == "changed" and '"provenance": "api"' in change.diff, key
        assert grafana(filled).ensure(wanted).action == "unchanged", key
    found = (filled.templates["trustwatch"], filled.timings["nights"], filled.points["trustwatch-hook"], filled.policy,
             filled.groups["trustwatch", "trust"]["rules"][0])  # fmt: skip
    assert all("provenance" not in one for one in found)


def test_what_a_file_provisioned_there_is_left_alone(filled: GrafanaStub) -> None:
    filled.templates["trustwatch"]["provenance"] = filled.timings["nights"]["provenance"] = "file"
    filled.points["trustwatch-hook"]["provenance"] = filled.policy["provenance"] = "file"
    filled.groups["trustwatch", "trust"]["rules"][0]["provenance"] = "file"
    filled.dashboards["board"]["meta"]["provisioned"] = filled.sources["prom"]["readOnly"] = True
    assert {grafana(filled).ensure(one).action for one in objects().values()} == {"unchanged"}
    for key, _, body in CHANGES:
        if key != "folder":
            wanted = objects()[key]
            wanted.body = body
            change = grafana(filled).ensure(wanted)
            assert (change.action, bool(change.diff)) == ("kept by others", True), key
    assert filled.writes == []


def test_somebody_elses_policy_is_replaced_on_request_only(stub: GrafanaStub) -> None:
    for key in ("point", "timing"):
        grafana(stub).ensure(objects()[key])
    stub.policy = theirs = {"receiver": "grafana-default-email", "routes": [{"receiver": "grafana-default-email"}]}
    wanted = Policy("tree", TREE)
    assert grafana(stub).ensure(wanted).action == "kept by others" and stub.policy is theirs
    wanted.take = True
    assert grafana(stub).ensure(wanted).action == "changed"
    assert stub.policy["receiver"] == "trustwatch-hook"


def test_a_dashboard_that_somebody_saved_meanwhile_is_not_overwritten(filled: GrafanaStub) -> None:
    wanted = Dashboard("board", {**MODEL, "title": "Mine"}, "trustwatch")
    api = grafana(filled).api
    found = copy.deepcopy(wanted.read(api))
    filled.dashboards["board"]["dashboard"] |= {"title": "Theirs", "version": 2}
    with pytest.raises(GrafanaRefused) as caught:
        wanted.write(api, found)
    assert caught.value.status == 412 and "somebody changed it in Grafana meanwhile" in str(caught.value)
    assert filled.dashboards["board"]["dashboard"]["title"] == "Theirs"


def test_a_folder_that_somebody_renamed_meanwhile_is_not_overwritten(filled: GrafanaStub) -> None:
    wanted = Folder("trustwatch", {"title": "mine"})
    found = dict(wanted.read(grafana(filled).api))
    filled.folders["trustwatch"] |= {"title": "theirs", "version": 2}
    with pytest.raises(GrafanaRefused, match="412"):
        wanted.write(grafana(filled).api, found)
    assert filled.folders["trustwatch"]["title"] == "theirs"


def test_a_name_that_is_taken_is_told(filled: GrafanaStub) -> None:
    fix = "Fix: rename or delete, in Grafana"
    taken: list[Managed] = [
        Folder("other", {"title": "trustwatch"}),
        DataSource("other", SOURCE),
        Dashboard("other", {**MODEL, "uid": "other"}, "trustwatch"),
    ]
    for one in taken:
        assert fix in said(lambda one=one: grafana(filled).ensure(one)), one.title


def test_what_is_no_more_wanted_is_removed(filled: GrafanaStub) -> None:
    filled.policy = {"receiver": "grafana-default-email"}
    found = objects()
    for key in ("board", "group", "point", "template", "timing"):
        assert grafana(filled).remove(found[key]).action == "removed"
    assert not any((filled.dashboards, filled.groups, filled.points, filled.templates, filled.timings))
    for key in ("folder", "source", "policy"):
        assert "Fix: remove it in Grafana" in said(lambda key=key: grafana(filled).remove(found[key]))


def test_what_others_keep_is_not_removed_and_what_is_gone_is_no_failure(filled: GrafanaStub) -> None:
    filled.policy = {"receiver": "grafana-default-email"}
    filled.points["trustwatch-hook"]["provenance"] = filled.templates["trustwatch"]["provenance"] = "file"
    filled.timings["nights"]["provenance"] = "converted_prometheus"
    filled.groups["trustwatch", "trust"]["rules"][0]["provenance"] = "file"
    filled.dashboards["board"]["meta"]["provisioned"] = True
    found = objects()
    for key in ("board", "group", "point", "template", "timing"):
        assert grafana(filled).remove(found[key]).action == "kept by others", key
        with pytest.raises(GrafanaRefused, match=r"409|400"):  # Grafana, too, would say no
            found[key].delete(grafana(filled).api)
    filled.points.clear()
    assert grafana(filled).remove(found["point"]).action == "unchanged"


def test_a_contact_point_in_use_is_not_removed(filled: GrafanaStub) -> None:
    assert "409" in said(lambda: grafana(filled).remove(objects()["point"]))


@pytest.mark.parametrize(
    "change",
    [
        {"folderID": 1}, {"keepFiringFor": "1m"}, {"for": 90}, {"noDataState": "ok"}, {"condition": "Z"}, {"uid": "ä"},
        {"annotations": {"__panelId__": "7"}}, {"annotations": {"n": 7}}, {"data": []}, {"execErrState": "Nothing"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_the_stand_in_refuses_what_grafana_would_or_drops(filled: GrafanaStub, change: dict[str, Any]) -> None:
    body = {**GROUP, "rules": [{**RULE, **change}]}
    where = path("v1", "provisioning", "folder", "trustwatch", "rule-groups", "trust")
    with pytest.raises(GrafanaRefused, match="400"):
        grafana(filled).api.call("PUT", where, body)


def test_the_stand_in_refuses_a_data_source_that_is_not_there(filled: GrafanaStub) -> None:
    filled.sources.clear()
    wanted = RuleGroup("trust", {**GROUP, "interval": 60})
    assert "data source prom not found" in said(lambda: grafana(filled).ensure(wanted))


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": {}}, {}, True),
        ({}, {"a": 0}, False),
        ({"a": None}, {"a": ""}, False),
        ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 1, "d": None}], "e": []}}, True),
        ({"a": ""}, {"a": "[REDACTED]"}, False),
        ({"a": True}, {}, False),
    ],
)
def test_only_what_makes_a_difference_is_one(wanted: Any, found: Any, same: bool) -> None:
    ours, theirs = align(wanted, found)
    assert (ours == theirs) is same


@pytest.mark.parametrize("text", ["", "5", "m", "1.5h", "-1m", "1m ", "1 m", "soon"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        duration_s(text)


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 3599, 3600, 90_000, 604_800])
def test_durations_there_and_back(seconds: int) -> None:
    assert duration_s(duration(seconds)) == seconds


# ── the data source's health ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_data_source_is_asked_for_its_health(filled: GrafanaStub) -> None:
    assert grafana(filled).source_health("prom") is None
    filled.source_health = (200, {"status": "ERROR", "message": "connection refused"})
    assert grafana(filled).source_health("prom") == "connection refused"
    filled.source_health = (400, {"status": "ERROR", "message": "no such host"})
    assert "no such host" in str(grafana(filled).source_health("prom"))
    with pytest.raises(GrafanaRefused, match="404"):
        grafana(filled).source_health("other")


# ── annotations ───────────────────────────────────────────────────────────────────────────────────────────────────────


def note(key: str | None = "finding:1", end_ms: int | None = AT_MS + 1000, **more: Any) -> Annotation:
    return Annotation(key, AT_MS, end_ms, more.pop("text", "text"), more.pop("tags", ("finding", "worse")), **more)


def test_an_annotation_is_posted_once_and_its_end_moves_on(stub: GrafanaStub) -> None:
    there = grafana(stub)
    assert there.annotate(note()) == "posted"
    assert there.annotate(note()) == "known"
    assert there.annotate(note(end_ms=AT_MS + 5000, text="ended")) == "updated"
    assert [(n["time"], n["timeEnd"], n["text"], n["tags"]) for n in stub.notes.values()] == [
        (AT_MS, AT_MS + 5000, "ended", ["trustwatch", "finding", "worse", "finding:1"])
    ]
    assert [call.partition("?")[0] for call in stub.writes] == ["POST /api/annotations", "PATCH /api/annotations/1"]


def test_an_end_does_not_move_back(stub: GrafanaStub) -> None:
    grafana(stub).annotate(note(end_ms=AT_MS + 5000, text="ended"))
    assert grafana(stub).annotate(note(text="from a worker that was frozen")) == "known"
    assert [(n["timeEnd"], n["text"]) for n in stub.notes.values()] == [(AT_MS + 5000, "ended")]


def test_of_two_that_are_posted_at_once_the_first_stays(stub: GrafanaStub) -> None:
    grafana(stub).annotate(note())
    stub.fail("empty", "GET /api/annotations", times=1)  # the other one is posted after we have looked
    assert grafana(stub).annotate(note()) == "posted"
    assert list(stub.notes) == [1]


def test_a_twin_that_the_other_worker_removed_is_no_failure(stub: GrafanaStub) -> None:
    grafana(stub).annotate(note())
    stub.fail("empty", "GET /api/annotations", times=1)
    stub.fail(404, "DELETE", times=1, after=True)
    assert grafana(stub).annotate(note()) == "posted"
    assert list(stub.notes) == [1]


def test_a_post_whose_answer_is_lost_is_not_made_twice(stub: GrafanaStub) -> None:
    stub.fail("drop", "POST", times=1, after=True)
    with pytest.raises(GrafanaUnavailable):
        grafana(stub, tries=3, sleep=lambda _: None).annotate(note())
    assert grafana(stub).annotate(note()) == "known" and len(stub.notes) == 1


def test_findings_are_told_apart_by_their_key(stub: GrafanaStub) -> None:
    assert [grafana(stub).annotate(note(f"finding:{n}")) for n in (1, 2, 11)] == ["posted"] * 3


def test_a_deploy_is_told_apart_by_time_and_text(stub: GrafanaStub) -> None:
    there = grafana(stub)
    deploy = note(None, None, text="shop 4.2", tags=("deploy",))
    assert [there.annotate(deploy), there.annotate(deploy)] == ["posted", "known"]
    assert there.annotate(note(None, None, text="shop 4.3", tags=("deploy",))) == "posted"
    assert [(n["text"], n["tags"]) for n in stub.notes.values()] == [
        ("shop 4.2", ["trustwatch", "deploy"]), ("shop 4.3", ["trustwatch", "deploy"])]  # fmt: skip


def test_an_annotation_of_one_dashboard(filled: GrafanaStub) -> None:
    there = grafana(filled)
    assert there.annotate(note(dashboard_uid="board")) == "posted"
    assert there.annotate(note(dashboard_uid="board")) == "known"
    assert there.annotate(note()) == "posted"  # on all dashboards: another one
    assert [n["dashboardUID"] for n in filled.notes.values()] == ["board", None]
    assert "Dashboard not found" in said(lambda: there.annotate(note(dashboard_uid="nowhere")))


def test_the_times_of_an_annotation_are_milliseconds(stub: GrafanaStub) -> None:
    with pytest.raises(GrafanaRefused, match="400"):
        grafana(stub).annotate(Annotation(None, round(time.time()), None, "seconds", ()))
