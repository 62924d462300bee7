"""The status page's JSON: what it says, who may ask, and what it never says."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from streams.app import END_S, LEAVE_S, Line
from streams.errors import ConfigError
from streams.findings import LEAST, Finding
from streams.settings import WebSettings, load_settings
from streams.stage import Slot
from streams.units import WatchUnit
from streams.web import WebServer, reader, require_free_web_port, server
from streams.web.documents import Documents, NotFound, _drawn, _pointed, _quantile
from streams.web.guard import Asked, Guard, Refused
from streams.web.history import POINTS, STEP_S, UNKNOWN, History, Point, Series, views_of
from tests.test_metrics import SETTINGS, Fed, feed_while

TOKEN = "a token for tests only"
WEB = SETTINGS.model_copy(update={"web": WebSettings(port=0)})
LOCKED = SETTINGS.model_copy(update={"web": WebSettings(port=0, token=TOKEN)})
FINDING = Finding(
    id="f1", detector="early_dropoff", kind="early_dropoff", segment={"stage": "evaluate", "device": "mobile"},
    direction="worse", level="alert", onset="2026-09-01T10:00:00Z", detected_at="2026-09-01T14:00:00Z", before=0.45,
    after=0.3, unit="ratio", n_before=4000, n_after=410, score=0.9, owner="growth", summary="Early drop-off.",
    evidence={"seen_at_all": 1.0, "lost_progressions": 60.0},
)  # fmt: skip


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a server that runs in this process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@contextmanager
def serving(line: Line) -> Iterator[tuple[Client, WebServer]]:
    web = line.settings.web.model_copy(update={"port": 0})
    line.settings = line.settings.model_copy(update={"web": web})
    made = WebServer(line)
    asyncio.run(made.on_start())
    try:
        yield Client(made.port), made
    finally:
        asyncio.run(made.on_stop())


@pytest.fixture(scope="module")
def fed() -> Fed:
    """A line that has seen events, with an open finding, an ended one and one of too few people."""
    made = Fed()
    for _ in made.feed():
        pass
    watcher = next(iter(made.line.watch.slots.values())).unit.stage
    ended = msgspec.structs.replace(FINDING, id="f0", resolved_at="2026-09-01T09:00:00Z")
    few = msgspec.structs.replace(FINDING, id="f2", n_after=LEAST - 1, score=0.1)
    better = msgspec.structs.replace(FINDING, id="f3", direction="better")
    watcher._judge.findings.update({one.id: one for one in (ended, better, few, FINDING)})
    return made


@pytest.fixture(scope="module")
def client(fed: Fed) -> Iterator[Client]:
    with serving(fed.line) as (asking, _):
        yield asking


@pytest.fixture(scope="module")
def locked() -> Iterator[Client]:
    with serving(Line(LOCKED)) as (asking, _):
        yield asking


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_open_findings_come_with_the_gravest_first_and_ended_ones_apart(client: Client) -> None:
    body = client.get("/api/findings").json
    assert [one["id"] for one in body["open"]] == ["f1", "f2", "f3"]
    assert [one["id"] for one in body["recent"]] == ["f0"]
    told = body["open"][0]
    assert msgspec.to_builtins(FINDING).items() <= told.items()  # the contract of events.md, and more
    assert (told["title"], told["segment_label"], told["severity"]) == ("Early drop-off", "device=mobile", "page")
    assert {one["detector"] for one in body["learning"]} >= {"early_dropoff", "hesitation", "lead_score_drift"}
    assert body["quiet_since"] is None and body["judged_until"] is not None


def test_a_finding_has_its_series_against_the_baseline_and_an_unknown_one_is_not_found(client: Client) -> None:
    body = client.get("/api/findings/f1").json
    assert (body["finding"]["id"], body["view"], body["worse"]) == ("f1", "early_dropoff.at_all", "down")
    missing = client.get("/api/findings/nobody")
    assert missing.status == 404 and "another worker" in missing.json["error"]


def test_segments_have_counts_rates_and_levels_by_stage(client: Client, fed: Fed) -> None:
    body = client.get("/api/segments").json
    stages = fed.line.plan.journey.stages
    everyone = [row for row in body["segments"] if row["segment_label"] == "all"]
    assert [row["stage"] for row in everyone] == [stage for stage in stages if stage in {r["stage"] for r in everyone}]
    rates = {rows[(row["stage"], ())]["entered"]: row for row in everyone for rows in [_rates(fed)]}
    assert all(row["counts"]["entered"] == entered >= LEAST for entered, row in rates.items())
    first = everyone[0]["rates"]["early_dropoff.at_all"]
    assert set(first) == {"n", "rate", "expected", "low", "high", "worse"} and 0 < first["rate"] < 1
    assert all(set(row["levels"].values()) <= {"warming", "ok", "warn", "alert"} for row in everyone)
    only = client.get("/api/segments?stage=evaluate").json["segments"]
    assert {row["stage"] for row in only} == {"evaluate"} and len(only) > 1
    assert client.get("/api/segments?stage=nowhere").status == 404


def _rates(fed: Fed) -> dict[Any, dict[str, int]]:
    watchers = [slot.unit.stage for slot in fed.line.watch.slots.values()]
    return {key: counts for watcher in watchers for key, counts in watcher.rates.items()}


def test_leads_have_calibration_and_acceptance_by_source(client: Client, fed: Fed) -> None:
    body = client.get("/api/leads").json
    everyone = body["segments"][0]
    assert everyone["segment_label"] == "all"
    assert everyone["counts"]["scored"] == _rates(fed)["leads", ()]["scored"] > 20
    assert [(band["from"], band["to"]) for band in everyone["calibration"]] == [
        (0, 20), (20, 40), (40, 60), (60, 80), (80, 100)]  # fmt: skip
    assert {"lead_score_drift.acceptance", "lead_score_drift.conversion"} == set(everyone["rates"])
    assert any(row["segment"].get("source") for row in body["segments"])


def test_data_adds_up_to_what_came_in(client: Client, fed: Fed) -> None:
    (topic,) = client.get("/api/data").json["topics"]
    consumed = sum(topic[name] for name in ("applied", "duplicate", "late", "dead_letter"))
    assert (topic["topic"], consumed) == ("web", len(fed.messages) - 1)  # the punctuation is no event
    assert sum(topic["reasons"].values()) == topic["dead_letter"] == 4
    assert topic["reached"] > 0 and topic["sources"] >= 1


def test_the_pipeline_is_measured(client: Client, fed: Fed) -> None:
    body = client.get("/api/pipeline").json
    assert body["events"] == len(fed.messages) - 1
    assert [one["stage"] for one in body["checkpoints"]] == ["sessionize", "watch"]
    assert body["watched_streams"] > 10 and body["detector_errors"] == {} and body["torn_baselines"] == 0
    assert body["peak_memory_bytes"] > 10_000_000


def test_every_answer_says_whose_view_it_is(client: Client, fed: Fed) -> None:
    for name in ("findings", "segments", "leads", "data", "pipeline"):
        partitions = client.get(f"/api/{name}").json["partitions"]
        assert partitions == {"events": [0, 1, 2, 3], "events_of": 4, "counts": [0, 1], "counts_of": 2,
                              "complete": True, "note": None}  # fmt: skip
    half = Line(WEB)
    half.watch.slots[1] = Slot(WatchUnit(half.plan, 1))
    partitions = Documents(half, History(half)).make("findings")["partitions"]
    assert (partitions["counts"], partitions["complete"]) == ([1], False)
    assert "1 of 2 counts partitions" in partitions["note"]
    ingest = Line(WEB, stages=False)
    assert "only ingests" in Documents(ingest, History(ingest)).make("data")["partitions"]["note"]


def test_before_any_event_every_answer_is_there_and_honest() -> None:
    with serving(Line(WEB)) as (asking, _):
        for name in ("findings", "segments", "leads", "data", "pipeline"):
            assert asking.get(f"/api/{name}").status == 200
        body = asking.get("/api/findings").json
        assert (body["open"], body["judged_until"]) == ([], None)
        assert all(one["ok"] == one["warming"] == 0 for one in body["learning"])
        assert {one["warmup_s"] for one in body["learning"]} >= {86_400.0}


# ── what it never says ────────────────────────────────────────────────────────────────────────────────────────────────


def test_groups_of_fewer_than_five_are_hidden_wherever_they_show() -> None:
    fresh = Fed()
    watcher = next(iter(fresh.line.watch.slots.values())).unit.stage
    watcher.rates["evaluate", ()] = {"entered": 9, "advanced": 4, "dropped": 5, "at_all": 2, "not_at_all": 2}
    watcher.rates["evaluate", (("device", "tv"),)] = {"entered": 4}
    watcher.rates["leads", ()] = {"scored": 6, "score_3": 6, "rejected": 3, "accept_n_3": 4, "accept_k_3": 1}
    documents = Documents(fresh.line, History(fresh.line))
    body = documents.make("segments")
    (row,) = body["segments"]
    assert row["counts"] == {"entered": 9, "advanced": None, "returned": 0, "dropped": None}  # 9 - 5 is 4
    assert row["rates"]["early_dropoff.at_all"]["rate"] is None and row["rates"]["early_dropoff.at_all"]["n"] is None
    assert body["hidden"] == 1
    lead = documents.make("leads")["segments"][0]
    assert lead["counts"]["rejected"] is None
    assert all(band["rate"] is None for band in lead["calibration"])


@pytest.mark.parametrize(("hits", "trials"), [(3, 20), (17, 20), (1, 5000), (4999, 5000)])
def test_a_rate_does_not_give_away_how_few_hit_or_missed(hits: int, trials: int) -> None:
    told = _pointed(Point(0, 0, hits, trials, 0.2, 0.1, 0.3))
    assert told == {"n": trials, "rate": None, "expected": 0.2, "low": None, "high": None}
    assert _pointed(Point(0, 0, 0, 20))["rate"] == 0 and _pointed(Point(0, 0, 20, 20))["rate"] == 1
    assert _pointed(Point(0, 0, 5, 10))["rate"] == 0.5
    fresh = Fed()
    watcher = next(iter(fresh.line.watch.slots.values())).unit.stage
    watcher.rates["evaluate", ()] = {"entered": trials, "advanced": hits, "dropped": trials - hits, "at_all": hits,
                                     "not_at_all": trials - hits}  # fmt: skip
    (row,) = Documents(fresh.line, History(fresh.line)).make("segments")["segments"]
    assert (row["counts"]["advanced"], row["counts"]["dropped"]) == (None, None)
    assert row["rates"]["early_dropoff.at_all"]["rate"] is None


def test_a_hidden_part_does_not_follow_from_the_whole_and_the_other_parts() -> None:
    fresh = Fed()
    watcher = next(iter(fresh.line.watch.slots.values())).unit.stage
    watcher.rates["evaluate", ()] = {"entered": 99, "advanced": 50, "returned": 3, "dropped": 46}
    watcher.rates["leads", ()] = {"scored": 90, "handed_over": 80, "accepted": 77, "rejected": 3,
                                  "accept_n_0": 3, "accept_k_0": 1, "accept_n_5": 40, "accept_k_5": 20,
                                  "accept_n_9": 37, "accept_k_9": 30}  # fmt: skip
    documents = Documents(fresh.line, History(fresh.line))
    (row,) = documents.make("segments")["segments"]
    assert row["counts"] == {"entered": 99, "advanced": 50, "returned": None, "dropped": None}
    (lead,) = documents.make("leads")["segments"]
    assert (lead["counts"]["handed_over"], lead["counts"]["accepted"], lead["counts"]["rejected"]) == (80, None, None)
    assert [band["n"] for band in lead["calibration"]].count(None) == 2
    assert [band["rate"] for band in lead["calibration"] if band["n"]] == [0.5]


def test_a_finding_of_fewer_than_five_is_told_without_its_numbers(client: Client) -> None:
    for told in (client.get("/api/findings/f2").json["finding"], client.get("/api/findings").json["open"][1]):
        assert told["id"] == "f2"
        assert (told["before"], told["after"], told["n_after"], told["evidence"]) == (None, None, None, {})
        assert told["summary"] == "Fewer than 5 people: not shown."


def test_a_finding_with_fewer_than_five_before_is_told_without_its_numbers_too() -> None:
    fresh = Fed()
    watcher = next(iter(fresh.line.watch.slots.values())).unit.stage
    watcher._judge.findings["f9"] = msgspec.structs.replace(FINDING, id="f9", n_before=LEAST - 1)
    told = Documents(fresh.line, History(fresh.line)).make("findings", "f9")["finding"]
    assert (told["before"], told["after"], told["n_before"], told["evidence"]) == (None, None, None, {})


def test_no_person_is_in_any_answer(client: Client, fed: Fed) -> None:
    for path in ("findings", "findings/f1", "segments", "segments?stage=evaluate", "leads", "data", "pipeline"):
        text = client.get(f"/api/{path}").body.decode()
        assert len(fed.people) > 100 and not [person for person in fed.people if person in text]


# ── who may ask ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(client: Client, method: str) -> None:
    for path in ("/", "/api/findings", "/healthz", "/nowhere"):
        answer = client.get(path, method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head_answers_without_a_body(client: Client) -> None:
    answer = client.get("/api/findings", "HEAD")
    assert (answer.status, answer.body) == (200, b"") and int(answer.headers["Content-Length"]) > 100


def test_every_answer_carries_the_security_headers(client: Client, locked: Client) -> None:
    answers = [client.get(path) for path in ("/", "/static/app.js", "/api/findings", "/healthz", "/nowhere")]
    answers += [client.get("/", "POST"), client.get("/", Host="evil.example"), locked.get("/api/findings")]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 405, 403, 401]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';") and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "no-" in answer.headers["Cache-Control"]


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host(client: Client) -> None:
    page = client.get("/").body.decode()
    assert "<script>" not in page and "<style" not in page and not re.search(r"\son\w+=|\sstyle=", page)
    names = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(names) >= 4 and all(client.get(name).status == 200 for name in names)
    for name in ("index.html", "app.js", "charts.js", "dom.js", "findings.js", "sections.js", "style.css"):
        text = client.get(f"/static/{name}").body.decode()
        assert not re.search(r"https?://|(?<!:)//[a-z]+\.", text), name


@pytest.mark.parametrize("host", ["evil.example", "evil.example:6066", "127.0.0.1.evil.example", "", "[::1", "a b"])
def test_a_strangers_name_is_refused(client: Client, host: str) -> None:
    answer = client.get("/api/findings", Host=host)
    assert answer.status in (400, 403)
    assert b"f1" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:6066", "[::1]:6066", "10.1.2.3"])
def test_our_own_names_and_addresses_pass(client: Client, host: str) -> None:
    assert client.get("/api/findings", Host=host).status == 200


def test_names_of_a_proxy_pass_once_they_are_allowed() -> None:
    settings = SETTINGS.model_copy(update={"web": WebSettings(allowed_hosts=("Trust.Example.com",))})
    Guard(settings).check(Asked("GET", "/api/findings", "trust.example.com:443"))
    with pytest.raises(Refused, match=r"web\.allowed_hosts"):
        Guard(settings).check(Asked("GET", "/api/findings", "example.com"))


def test_without_the_token_there_is_the_shell_of_the_page_but_no_data(locked: Client) -> None:
    for path in ("/", "/static/app.js", "/healthz", "/readyz"):
        assert locked.get(path).status in (200, 503), path
    for path in (
        "/api/findings",
        "/api/findings/f1",
        "/api/nothing",
        "/api/session",
        f"/api/findings?token={quote(TOKEN)}",
    ):
        answer = locked.get(path)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer"), path


def test_the_token_opens(locked: Client) -> None:
    assert locked.get("/api/findings", Authorization=f"Bearer {TOKEN}").status == 200
    for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer ", "bearer é"):
        assert locked.get("/api/findings", Authorization=wrong.encode().decode("latin-1")).status == 401, wrong


def test_bytes_that_are_no_text_are_no_token_either_and_no_failure(locked: Client) -> None:
    assert locked.get("/api/findings", Authorization="Bearer \xe9").status == 401
    assert locked.get("/api/findings", Cookie="trustwatch_session=\xe9").status == 401


def test_other_cookies_of_the_host_are_none_of_our_business(locked: Client) -> None:
    given = locked.get("/api/session", Authorization=f"Bearer {TOKEN}")
    pair = given.headers["Set-Cookie"].partition(";")[0]
    for others in ('a[b]={"odd": 1}; {}', "x; =y; café=1; {}", "trustwatch_session=old; {}", "{}; @@"):
        cookie = others.replace("{}", pair)
        assert locked.get("/api/findings", Cookie=cookie).status == 200, cookie
    assert locked.get("/api/findings", Cookie=f"x{pair}").status == 401


def test_a_browser_swaps_the_token_for_a_cookie_that_no_script_can_read(locked: Client) -> None:
    given = locked.get("/api/session", Authorization=f"Bearer {TOKEN}")
    cookie = given.headers["Set-Cookie"]
    assert given.status == 204 and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    pair = cookie.partition(";")[0]
    assert locked.get("/api/findings", Cookie=pair).status == 200
    assert locked.get("/api/findings", Cookie=pair[:-1]).status == 401
    assert locked.get("/api/findings", Cookie="trustwatch_session=").status == 401
    assert locked.get("/api/session", Cookie=pair).status == 401  # a cookie makes no new one
    secure = locked.get("/api/session", Authorization=f"Bearer {TOKEN}", X_Forwarded_Proto="https")
    assert "Secure" in secure.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "path",
    ["/../settings.py", "/static/../server.py", "/static/..%2f..%2fsettings.py", "/%2e%2e/%2e%2e/etc/passwd",
     "/static//etc/passwd", "/static/", "/api/", "/api/../healthz/x", "/guard.py", "/etc/passwd", "/%00"],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body and b"import" not in answer.body


def test_more_connections_than_allowed_take_the_place_of_those_that_ask_for_nothing(client: Client) -> None:
    held = [socket.create_connection(("127.0.0.1", client.port), timeout=5) for _ in range(server.CONNECTIONS)]
    time.sleep(2 * server.BORN_S)  # each has its protocol by then
    try:
        assert client.get("/healthz").status == 200
        closed, _, _ = select.select(held, [], [], 5.0)
        assert closed and closed[0].recv(1) == b""  # one of them: which is the oldest depends on who was served first
    finally:
        for one in held:
            one.close()


def test_however_many_pages_are_open_a_probe_is_answered(client: Client) -> None:
    viewers = [http.client.HTTPConnection("127.0.0.1", client.port, timeout=10) for _ in range(server.CONNECTIONS)]
    try:
        for viewer in viewers:
            viewer.request("GET", "/api/findings")
            answer = viewer.getresponse()
            assert answer.status == 200 and answer.read() and not answer.will_close
        for _ in range(10):
            assert client.get("/healthz").status == 200
        viewers[-1].request("GET", "/api/findings")  # the newest are still connected
        assert viewers[-1].getresponse().status == 200
    finally:
        for viewer in viewers:
            viewer.close()


def test_answers_that_take_long_leave_room_for_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Documents, "_leads", lambda _: (go_on.wait(30), {})[1])
    with serving(Line(WEB)) as (asking, _):
        held = [socket.create_connection(("127.0.0.1", asking.port), timeout=10) for _ in range(server.CONNECTIONS)]
        try:
            for one in held:
                one.send(b"GET /api/leads HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while not said.endswith(b"}"):
                said += held[-1].recv(4096)
            assert b" 503 " in said and b"too many ask at once" in said
            assert asking.get("/healthz").status == 200
        finally:
            go_on.set()
            for one in held:
                one.close()


def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.05)
    with (
        serving(Line(WEB)) as (asking, _),
        socket.create_connection(("127.0.0.1", asking.port), timeout=10) as silent,
    ):
        silent.send(b"GET / HTTP/1.1\r\nHost: local")
        assert silent.recv(1) == b""


# ── settings and start ────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_listens_on_loopback_and_beyond_only_with_a_token() -> None:
    assert (WebSettings().host, WebSettings().port, WebSettings().enabled) == ("127.0.0.1", 6066, True)
    for host in ("0.0.0.0", "::", "10.0.0.1", "worker", ""):
        with pytest.raises(ConfigError, match=r"web.*web\.token is not set. Fix: "):
            load_settings(web={"host": host})
        load_settings(web={"host": host, "token": TOKEN})
        load_settings(web={"host": host, "enabled": False})
    for host in ("127.0.0.2", "::1", "localhost"):
        load_settings(web={"host": host})


def test_a_short_token_is_refused_and_never_repeated() -> None:
    with pytest.raises(ConfigError, match=r"web\.token must have 16") as refused:
        load_settings(web={"token": "short-secret"})
    assert "short-secret" not in str(refused.value)
    assert TOKEN not in repr(LOCKED.web)


def test_a_token_that_nobody_could_send_is_refused_and_an_empty_one_is_none() -> None:
    for odd in (f"{TOKEN}\n", f" {TOKEN}", f"{TOKEN}é", f"{TOKEN}\tx"):
        with pytest.raises(ConfigError, match=r"web\.token must be printable ASCII .* Fix: ") as refused:
            load_settings(web={"token": odd})
        assert TOKEN not in str(refused.value)
    assert load_settings(web={"token": ""}).web.token is None
    with pytest.raises(ConfigError, match=r"web\.token is not set"):
        load_settings(web={"token": "", "host": "0.0.0.0"})


def test_a_taken_port_is_said_before_the_worker_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"web\.host/web\.port: cannot listen on 127.0.0.1:{port}.*Fix: set web"):
            require_free_web_port(WebSettings(port=port))
        require_free_web_port(WebSettings(port=port, enabled=False))


def test_it_can_be_switched_off() -> None:
    before = set(threading.enumerate())
    made = WebServer(Line(SETTINGS.model_copy(update={"web": WebSettings(enabled=False)})))
    asyncio.run(made.on_start())
    assert made.port == 0
    assert not [one for one in set(threading.enumerate()) - before if one.name == "status-page"]
    asyncio.run(made.on_stop())


def test_the_port_is_freed() -> None:
    with serving(Line(WEB)) as (asking, _):
        assert asking.get("/healthz").status == 200
    with pytest.raises(ConnectionRefusedError):
        asking.get("/healthz")


def test_stopping_is_quiet_when_the_thread_has_ended_before() -> None:
    made = WebServer(Line(WEB))
    asyncio.run(made.on_start())
    assert made._loop is not None and made._end is not None and made._thread is not None
    made._loop.call_soon_threadsafe(made._end.set)
    made._thread.join(10)
    assert not made._thread.is_alive()
    asyncio.run(made.on_stop())


def test_stopping_leaves_the_kafka_clients_time_to_stop() -> None:
    assert LEAVE_S + 2 * server.STOP_S <= END_S - 2.5


def test_the_server_has_a_thread_of_its_own_and_loads_no_more_than_it_needs() -> None:
    code = "import sys, streams.web.documents, streams.web.guard; sys.exit('faust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
    with serving(Line(WEB)) as (asking, _):
        asking.get("/api/findings")
        assert {"status-page"} <= {one.name for one in threading.enumerate()}


# ── ready and alive ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_ready_only_with_its_partitions_and_else_it_says_what_it_waits_for() -> None:
    fresh = Fed()
    assert fresh.line.ingest is not None
    fresh.line.ingest.door, door = None, fresh.line.ingest.door
    with serving(fresh.line) as (asking, _):
        answer = asking.get("/readyz")
        assert answer.status == 503
        assert answer.json == {"ready": False, "waits_for": ["ingest: Kafka, and the raw topics",
                                                             "partitions: to be assigned by Kafka"]}  # fmt: skip
        fresh.line.ingest.door, fresh.line._assigned = door, True
        loading = asyncio.new_event_loop()
        fresh.line.watch._loading[1] = loading.create_future()  # type: ignore[assignment]  # looked at only
        assert asking.get("/readyz").json["waits_for"] == ["watch: checkpoints of partitions 1"]
        fresh.line.watch._loading.clear()
        loading.close()
        answer = asking.get("/readyz")
        assert (answer.status, answer.json) == (200, {"ready": True, "waits_for": []})


def test_alive_while_the_lines_event_loop_turns() -> None:
    with serving(Line(WEB)) as (asking, made):
        assert asking.get("/healthz").status == 200
        made._beat_at = time.monotonic() - server.STUCK_S - 1
        answer = asking.get("/healthz")
        assert answer.status == 503 and answer.json["silent_s"] > server.STUCK_S


# ── cheap answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_has_not_changed_is_not_sent_again_and_text_is_packed(client: Client) -> None:
    first = client.get("/api/segments")
    assert client.get("/api/segments", If_None_Match=first.headers["ETag"]).status == 304
    assert client.get("/api/segments", If_None_Match='"other"').status == 200
    packed = client.get("/api/segments", Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == first.body and len(packed.body) < len(first.body) / 3
    assert client.get("/static/app.js", If_None_Match=client.get("/static/app.js").headers["ETag"]).status == 304


def test_a_bug_is_no_missing_page(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def buggy(_: Documents) -> None:
        raise KeyError("secret of a bug")

    monkeypatch.setattr(Documents, "_leads", buggy)
    with serving(Line(WEB)) as (asking, _):
        answer = asking.get("/api/leads")
    assert answer.status == 500 and b"secret" not in answer.body
    assert "KeyError" in caplog.text


def test_answers_say_which_worker_they_are_of(client: Client) -> None:
    workers = {client.get(f"/api/{name}").json["worker"] for name in ("findings", "segments", "leads", "findings/f1")}
    workers.add(client.get("/api/findings/nobody").json["worker"])
    assert len(workers) == 1 and re.fullmatch("[0-9a-f]{8}", workers.pop())
    with serving(Line(WEB)) as (other, _):
        assert other.get("/api/findings").json["worker"] != client.get("/api/findings").json["worker"]


class Costly:
    """Documents that cost a lot, and a clock that stands still while nobody moves it."""

    worker = "w"

    def __init__(self, cost_s: float) -> None:
        self.cost_s, self.now, self.cpu_s = cost_s, 1000.0, 0.0
        self.made: list[tuple[str, ...]] = []

    def require(self, *_: str) -> None:
        pass

    def make(self, *key: str) -> dict[str, str]:
        self.cpu_s += self.cost_s
        self.made.append(key)
        if key[1] == "nobody":
            raise NotFound("nobody")
        return {}

    def asked(self, monkeypatch: pytest.MonkeyPatch) -> reader.Reader:
        clock = SimpleNamespace(monotonic=lambda: self.now, thread_time=lambda: self.cpu_s)
        monkeypatch.setattr(reader, "time", clock)
        made = reader.Reader(Line(WEB))
        made._documents = self  # type: ignore[assignment]  # what it asks of them
        return made


def test_all_documents_together_take_one_percent_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(cost_s=0.2)
    reading = costly.asked(monkeypatch)

    async def view(hours: float) -> None:
        until = costly.now + hours * 3600
        while costly.now < until:
            for name in ("findings", "segments", "leads", "data", "pipeline"):
                await reading.get(name)
            await reading.get("segments", "", "evaluate")
            costly.now += 3

    asyncio.run(view(hours=2))
    reading.close()
    assert 0.0075 * 7200 < costly.cpu_s <= 0.01 * 7200 + 6 * costly.cost_s  # and once each, at first
    times = [costly.made.count(key) for key in set(costly.made)]
    assert len(times) == 6 and max(times) - min(times) <= 1  # each in its turn


def test_what_is_not_there_is_remembered_and_guessing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    costly = Costly(cost_s=0.2)
    reading = costly.asked(monkeypatch)

    async def guess() -> None:
        await reading.get("findings")
        for _ in range(50):
            with pytest.raises(NotFound, match="nobody"):
                await reading.get("findings", "nobody")
        assert len(costly.made) == 2
        with pytest.raises(reader.Busy, match="Fix: ask again"):
            for number in range(1000):
                await reading.get("findings", str(number))
        assert costly.cpu_s * reader.REST <= reader.MOST_REST_S + 2 * 0.2 * reader.REST
        await reading.get("findings")  # what is known is given all the same

    asyncio.run(guess())
    reading.close()


def test_only_segments_have_a_stage(client: Client) -> None:
    assert client.get("/api/leads?stage=nowhere").headers["ETag"] == client.get("/api/leads").headers["ETag"]
    reading = reader.Reader(Line(WEB))

    async def ask() -> None:
        for stage in ("", "evaluate", "nowhere"):
            await reading.get("leads", "", stage)
        with pytest.raises(NotFound):
            await reading.get("segments", "", "nowhere")

    asyncio.run(ask())
    reading.close()
    assert list(reading._kept) == [("leads", "", "")]


def test_reading_while_frames_are_applied_never_fails() -> None:
    fresh = Fed()
    history = History(fresh.line)
    documents = Documents(fresh.line, history)

    def read() -> None:
        history.look()
        for name in ("findings", "segments", "leads", "data", "pipeline"):
            msgspec.json.encode(documents.make(name))

    feed_while(fresh, read)


# ── history ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_history_adds_up_to_what_was_counted() -> None:
    fresh = Fed()
    history = History(fresh.line)
    seen = 0
    for _ in fresh.feed():
        history.look()
        seen += 1
    view = next(view for view in history.views if view.key == "early_dropoff.at_all")
    points = list(history.series("evaluate", (), view))
    counts = _rates(fresh)["evaluate", ()]
    assert seen > 3 and len(points) >= 2
    assert 0.5 * (counts["at_all"] + counts["not_at_all"]) < sum(point.n for point in points)
    assert sum(point.n for point in points) <= counts["at_all"] + counts["not_at_all"]
    assert sum(point.k for point in points) <= counts["at_all"]
    assert [point.ts for point in points] == sorted(point.ts for point in points)


class Broken:
    """State of a detector with a bug."""

    @property
    def first_ts(self) -> float:
        raise AttributeError("first_ts of nothing")

    @property
    def rates(self) -> None:
        raise ValueError("no such rate")

    acceptance = conversion = rates


def test_a_detector_that_cannot_be_read_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    fresh = Fed()
    history = History(fresh.line)
    documents = Documents(fresh.line, history)
    for count, _ in enumerate(fresh.feed()):
        history.look()
        if count == 1:
            for slot in fresh.line.watch.slots.values():
                for (name, *_key), instance in slot.unit.stage.detectors():
                    if name in ("hesitation", "lead_score_drift"):
                        instance.trace = Broken.first_ts.fget  # type: ignore[attr-defined]
                        instance.observe = lambda _: None
                        instance.state = Broken()
    history.look()
    seen_s = {row["detector"]: row["seen_s"] for row in documents.make("findings")["learning"]}
    assert seen_s.keys() == fresh.line.plan.detectors.classes.keys()
    assert seen_s["early_dropoff"] > 0 and seen_s["data_trust"] > 0
    assert seen_s["hesitation"] == seen_s["lead_score_drift"] == 0
    assert documents.make("leads")["segments"]
    view = next(view for view in history.views if view.key == "early_dropoff.at_all")
    assert len(list(history.series("evaluate", (), view))) >= 2
    assert history.torn > 10
    said = [record.getMessage() for record in caplog.records if "was not read" in record.getMessage()]
    assert len(said) == 2 and "hesitation" in "".join(said)


def test_looks_that_fail_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    looks = 12

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == looks:
            raise asyncio.CancelledError

    reading = reader.Reader(Line(WEB))
    monkeypatch.setattr(reading._history, "look", lambda: 1 / 0)
    monkeypatch.setattr(reader, "asyncio", SimpleNamespace(sleep=rest, get_running_loop=asyncio.get_running_loop))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(reading.watch())
    reading.close()
    assert rests == sorted(rests) and rests[0] < 1 and rests[-1] == reader.LONGEST_REST_S


def test_a_partition_that_goes_is_forgotten_and_one_that_comes_again_starts_afresh() -> None:
    fresh = Fed()
    for _ in fresh.feed():
        pass
    history = History(fresh.line)
    history.look()
    assert history.tracks[0] and history.tracks[1]
    fresh.line.watch.slots[1] = Slot(WatchUnit(fresh.line.plan, 1))
    history.look()
    assert history.tracks[0] and not history.tracks[1]
    del fresh.line.watch.slots[1]
    history.look()
    assert set(history.tracks) == {0}


def test_views_follow_from_the_detectors() -> None:
    keys = [view.key for view in views_of(Line(WEB).plan.detectors.classes)]
    assert {"early_dropoff.soon", "early_dropoff.at_all", "hesitation.micro_signals"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_a_series_is_bounded_and_loses_nothing_but_detail() -> None:
    series = Series()
    for i in range(10_000):
        series.add(Point(i * STEP_S, STEP_S, 1, 2, 0.5, 0.4, 0.6))
    points = list(series)
    assert len(points) <= POINTS
    assert (sum(point.k for point in points), sum(point.n for point in points)) == (10_000, 20_000)
    assert sum(point.span_s for point in points) == 10_000 * STEP_S
    assert all(abs(point.expected - 0.5) < 1e-9 for point in points)
    whole = series.total(1e12, 10_000 * STEP_S)
    assert whole is not None and (whole.k, whole.n) == (10_000, 20_000) and abs(whole.low - 0.4) < 1e-9
    assert {type(value) for value in whole} == {float}  # JSON takes no numpy
    assert Series().total(1.0, 1e12) is None


def test_the_last_day_ends_now_and_not_when_a_stream_was_last_seen() -> None:
    series = Series()
    for at in range(1, 11):
        series.add(Point(at * 3600.0, 3600.0, 5, 10, 0.5, 0.4, 0.6))
    quiet = series.total(86_400.0, 1e9)
    assert quiet is not None and (quiet.n, _pointed(quiet)["n"], _pointed(quiet)["rate"]) == (0, 0, None)
    half = series.total(5 * 3600.0, 10 * 3600.0)
    assert half is not None and (half.k, half.n) == (25, 50)
    later = series.total(5 * 3600.0, 12 * 3600.0)
    assert later is not None and later.n == 30


def test_points_join_by_their_trials() -> None:
    early, late = Point(60, 60, 3, 30, 0.1, 0.05, 0.15), Point(120, 60, 5, 10, 0.5, 0.4, 0.6)
    both = early.join(late)
    assert both[:4] == (120, 120, 8, 40)
    assert both[4:] == pytest.approx((0.2, 0.1375, 0.2625))
    learning = Point(60, 60, 3, 30)
    assert learning.join(late).expected == 0.5 and learning.join(learning).expected != UNKNOWN


def test_a_drawn_series_has_few_points_and_none_of_fewer_than_five() -> None:
    points = [Point(i * 60.0, 60.0, 1, 3, 0.3, 0.2, 0.4) for i in range(1, 1000)]
    drawn = _drawn(points)
    assert 10 < len(drawn) <= 91 and all(one["n"] >= LEAST for one in drawn)
    assert drawn[0]["rate"] == pytest.approx(1 / 3, abs=1e-4)
    assert _drawn(points[:1]) == [
        {"from": 0, "to": 60, "n": None, "rate": None, "expected": 0.3, "low": None, "high": None}
    ]
    assert _pointed(Point(0, 0, 0, 0))["n"] == 0


def test_quantiles_are_read_between_borders() -> None:
    buckets = [(1.0, 10.0), (2.0, 20.0), (float("inf"), 20.0)]
    assert _quantile(buckets, 10.0) == 1.0 and _quantile(buckets, 15.0) == 1.5
    assert _quantile([(1.0, 0.0), (float("inf"), 5.0)], 4.0) == 1.0
