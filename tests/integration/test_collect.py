"""The collector as a process, on a real Kafka: answers, limits, and what stands in the topic."""

from __future__ import annotations

import contextlib
import gzip
import hmac
import json
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from streams._process import wait_until
from streams.collect.auth import SIGNATURE, TIMESTAMP
from streams.collect.snowplow import GIF, POST
from streams.collect.webhooks import EVENTS, HUBSPOT, SENDGRID
from tests.conftest import KafkaUnderTest
from tests.integration.collecting import (
    API_KEY,
    APP_ID,
    HMAC_SECRET,
    ORIGIN,
    TOKEN,
    WRITE_KEY,
    Collecting,
    basic,
    collecting,
    hubspot_headers,
    sendgrid_headers,
)

pytestmark = pytest.mark.integration
MAIL = "anna.mueller@example.com"
LIMIT = 400_000
EVENT_LIMIT = 300_000


@pytest.fixture(scope="module")
def collector(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    knobs = {"COLLECT__MAX_BODY_BYTES": str(LIMIT), "INGEST__MAX_EVENT_BYTES": str(EVENT_LIMIT),
             "COLLECT__MAX_BATCH_ITEMS": "500"}  # fmt: skip
    with collecting(kafka, tmp_path_factory.mktemp("collect"), **knobs) as made:
        yield made


def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


def native(**fields: Any) -> dict[str, Any]:
    return {"id": mark(), "type": "page_viewed", "time": time.time() - 1, "person": "anna", **fields}


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


# ── every source ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_segment_call_is_in_kafka_when_it_is_answered(collector: Collecting) -> None:
    one = mark()
    call = {"event": "Product Added", "anonymousId": one, "userId": MAIL, "messageId": one}
    answer = collector.send("/v1/track", call, Authorization=basic(WRITE_KEY))
    assert (answer.status, answer.json) == (200, {"success": True})
    (stored,) = [found for found in collector.stored() if one.encode() in found.value]
    assert stored.headers == {"trustwatch-format": b"segment"}
    assert stored.key is not None and len(stored.key) == 4
    (event,) = collector.events(one)
    assert (event.id, event.type, event.person, event.also_person) == (one, "item_added", one, MAIL)


def test_a_segment_batch_keeps_the_order_of_a_person(collector: Collecting) -> None:
    one = mark()
    calls = [{"type": "page", "anonymousId": f"{one}-{n % 7}", "messageId": f"{n:03}", "name": "x"} for n in range(300)]
    body = gzip.compress(json.dumps({"batch": calls, "writeKey": WRITE_KEY}).encode())
    answer = collector.send("/v1/batch", body, Content_Encoding="gzip")
    assert answer.status == 200
    people: dict[str, list[tuple[int, str]]] = {}
    for found in collector.stored():
        if one.encode() in found.value:
            people.setdefault(found.json["anonymousId"], []).append((found.partition, found.json["messageId"]))
    assert sum(map(len, people.values())) == 300
    for places in people.values():
        assert len({partition for partition, _ in places}) == 1
        assert [number for _, number in places] == sorted(number for _, number in places)


def test_posthog_is_taken_as_its_clients_send_it(collector: Collecting) -> None:
    one = mark()
    event = {"event": "$pageview", "distinct_id": one, "uuid": one, "properties": {"token": API_KEY, "$pathname": "/a"}}
    assert collector.send("/e/?compression=gzip-js&_=1", gzip.compress(json.dumps([event]).encode()),
                          Content_Type="text/plain").json == {"status": 1}  # fmt: skip
    assert collector.send("/batch/", {"api_key": API_KEY, "batch": [{**event, "uuid": f"{one}-b"}]}).status == 200
    assert {found.id for found in collector.events(one)} == {one, f"{one}-b"}
    flags = collector.send("/flags/?v=2", {"api_key": API_KEY, "distinct_id": one}).json
    assert flags["featureFlags"] == {} and flags["errorsWhileComputingFlags"] is False
    assert collector.send("/flags/?v=2", {"api_key": "phc_somebody-else-s", "distinct_id": one}).status == 401
    assert collector.send(f"/array/{API_KEY}/config", method="GET").json["sessionRecording"] is False
    assert collector.send("/array/phc_somebody-else-s/config", method="GET").status == 401


def test_snowplow_is_taken_by_post_and_by_pixel(collector: Collecting) -> None:
    one = mark()
    item = {"e": "pv", "aid": APP_ID, "p": "web", "eid": one, "duid": one, "url": "https://shop.example/a"}
    answer = collector.send(POST, {"schema": "iglu:…", "data": [item]}, Content_Type="application/json; charset=utf-8")
    assert (answer.status, answer.body) == (200, b"ok")
    pixel = collector.send(f"/i?e=pv&aid={APP_ID}&p=web&eid={one}-i&duid={one}", method="GET")
    assert (pixel.status, pixel.headers["Content-Type"], pixel.body) == (200, "image/gif", GIF)
    assert "Set-Cookie" not in pixel.headers
    assert {found.id for found in collector.events(one)} == {one, f"{one}-i"}


def test_hubspot_is_taken_only_with_its_signature(collector: Collecting) -> None:
    number = int(uuid.uuid4().int % 10**15)
    body = json.dumps([{"eventId": 1, "subscriptionType": "contact.creation", "portalId": 7, "objectId": number,
                        "occurredAt": int(time.time() * 1000)}]).encode()  # fmt: skip
    assert collector.send(HUBSPOT, body).status == 401
    assert collector.send(HUBSPOT, body, **hubspot_headers(body + b" ")).status == 401
    assert not collector.events(str(number))
    assert collector.send(HUBSPOT, body, **hubspot_headers(body)).status == 200
    assert [found.type for found in collector.events(str(number))] == ["lead_created"]


def test_sendgrid_is_taken_only_with_its_signature(collector: Collecting) -> None:
    one = mark()
    body = json.dumps([{"email": f"{one}@example.com", "event": "click", "sg_event_id": one, "sg_message_id": "m",
                        "timestamp": int(time.time()), "ip": "203.0.113.7"}]).encode()  # fmt: skip
    assert collector.send(SENDGRID, body).status == 401
    assert not collector.events(one)
    assert collector.send(SENDGRID, body, **sendgrid_headers(collector.sendgrid, body)).status == 200
    assert [found.type for found in collector.events(one)] == ["email_clicked"]


def test_own_events_are_taken_with_a_token_or_a_signature(collector: Collecting) -> None:
    event = native()
    assert collector.send(EVENTS, event).status == 401
    assert collector.send(EVENTS, event, Authorization="Bearer somebody-else-s-token").status == 401
    assert collector.send(EVENTS, event, **bearer()).status == 200
    raw, timestamp = json.dumps([native(person=event["id"])]).encode(), str(int(time.time()))
    mac = hmac.new(HMAC_SECRET.encode(), f"{timestamp}.".encode() + raw, sha256).hexdigest()
    assert collector.send(EVENTS, raw, **{SIGNATURE: mac, TIMESTAMP: str(int(timestamp) - 1)}).status == 401
    for _ in range(2):  # the second is a replay: answered as the first, not written
        assert collector.send(EVENTS, raw, **{SIGNATURE: mac, TIMESTAMP: timestamp}).status == 200
    assert len(collector.events(event["id"])) == 2


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "method", "status", "reason"),
    [("/", "GET", 404, "not_found"), ("/v1/nothing", "POST", 404, "not_found"),
     ("/%2e%2e/etc", "GET", 404, "not_found"), ("/v1/track", "GET", 405, "method"),
     ("/v1/track", "POST", 401, "unauthorized"), ("/healthz", "POST", 405, "method"),
     ("/v1/projects/somebody-else-s-key/settings", "GET", 401, "unauthorized")],
    ids=["root", "path", "escape", "method", "key", "probe", "settings"],
)  # fmt: skip
def test_a_refusal_says_why_to_programs_and_people(
    collector: Collecting, path: str, method: str, status: int, reason: str
) -> None:
    answer = collector.send(path, {"event": "x", "anonymousId": "a"}, method)
    assert (answer.status, answer.json["error"]) == (status, reason)
    assert len(answer.json["detail"]) > 8
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [(b"{", {}, 400, "not_json"), (b"", {}, 400, "empty"), (b"[]", {}, 400, "empty_batch"),
     (b"[1]", {}, 400, "not_an_object"), (b'{"a":' * 40 + b"1" + b"}" * 40, {}, 400, "too_deep"),
     (b"x" * (LIMIT + 1), {}, 413, "too_large"),
     (gzip.compress(bytes(10_000_000)), {"Content_Encoding": "gzip"}, 413, "too_large"),
     (b"{}", {"Content_Encoding": "br"}, 415, "unsupported_encoding"),
     (b"{}", {"Content_Type": "text/xml"}, 415, "unsupported_type"),
     (b"no gzip", {"Content_Encoding": "gzip"}, 400, "damaged"),
     (b"[" + b"{}," * 500 + b"{}]", {}, 413, "too_many_items"),
     (b'{"a":"' + b"x" * EVENT_LIMIT + b'"}', {}, 413, "too_large")],
    ids=["cut", "empty", "no-items", "item", "deep", "large", "bomb", "encoding", "type", "damaged", "items", "event"],
)  # fmt: skip
def test_a_body_that_is_not_taken(
    collector: Collecting, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    before = len(collector.stored())
    answer = collector.send(EVENTS, body, **bearer(), **headers)
    assert (answer.status, answer.json["error"]) == (status, reason)
    assert len(collector.stored()) == before


def test_an_event_of_just_the_limit_is_taken_and_read(collector: Collecting) -> None:
    event = native()
    filled = {**event, "filler": "x" * (EVENT_LIMIT - len(json.dumps({**event, "filler": ""}, separators=(",", ":"))))}
    assert collector.send(EVENTS, filled, **bearer()).status == 200
    assert len(collector.events(event["id"])) == 1


def test_who_promises_much_and_sends_little_takes_no_room_from_others(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    knobs = {"COLLECT__MAX_BODY_BYTES": "100000", "COLLECT__BUFFER_BYTES": "200000"}
    with collecting(kafka, tmp_path, **knobs) as collector, contextlib.ExitStack() as lines:
        for _ in range(20):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", collector.port), 10))
            line.sendall(f"POST {EVENTS} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n[".encode())
        assert wait_until(lambda: "trustwatch_collect_open_requests 20.0" in collector.metrics(), 10.0)
        assert collector.send(EVENTS, native(), **bearer()).status == 200


def test_a_body_in_chunks_is_bounded_too(collector: Collecting) -> None:
    with socket.create_connection(("127.0.0.1", collector.port), 10) as line:
        line.sendall(f"POST {EVENTS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n".encode())  # fmt: skip
        sent = 0
        try:
            while sent < 20 * LIMIT:
                line.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:
            assert sent >= LIMIT
        assert line.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_who_asks_whether_to_continue_is_told_so(collector: Collecting) -> None:
    body = json.dumps(native()).encode()
    with socket.create_connection(("127.0.0.1", collector.port), 10) as line:
        line.sendall(f"POST {EVENTS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nExpect: 100-continue\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n".encode())  # fmt: skip
        assert line.recv(100).startswith(b"HTTP/1.1 100 ")
        line.sendall(body)
        assert line.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_browsers_of_configured_origins_may_send(collector: Collecting) -> None:
    ask = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    told = collector.send("/v1/t", method="OPTIONS", Origin=ORIGIN, **ask)
    assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert "content-type" in told.headers["Access-Control-Allow-Headers"]
    one = mark()
    call = {"event": "x", "anonymousId": one, "writeKey": WRITE_KEY, "type": "track"}
    taken = collector.send("/v1/t", call, Origin=ORIGIN, Content_Type="text/plain")
    assert (taken.status, taken.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    refused = collector.send("/v1/t", call, Origin="https://evil.example")
    assert (refused.status, refused.json["error"]) == (403, "origin")
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert collector.send("/v1/t", method="OPTIONS", Origin="https://evil.example", **ask).status == 403
    assert len(collector.events(one)) == 1


# ── probes, metrics, logs, end ────────────────────────────────────────────────────────────────────────────────────────


def test_probes_and_document_are_open(collector: Collecting) -> None:
    for path in ("/healthz", "/readyz"):
        assert collector.send(path, method="GET").json == {"waits_for": []}
    document = collector.send("/openapi.json", method="GET").json
    assert document["openapi"] == "3.1.0" and "/v1/batch" in document["paths"]
    assert WRITE_KEY not in json.dumps(document)


def test_metrics_count_requests_events_bytes_and_time(collector: Collecting) -> None:
    def value(line: str) -> float:
        return next(
            (float(one.rpartition(" ")[2]) for one in collector.metrics().splitlines() if one.startswith(line)), 0.0
        )

    names = ('trustwatch_collect_requests_total{route="/v1/events",status="200"}',
             'trustwatch_collect_events_total{source="events"}',
             'trustwatch_collect_received_bytes_total{route="/v1/events"}',
             "trustwatch_collect_request_seconds_count", "trustwatch_collect_ack_seconds_count",
             'trustwatch_collect_refused_requests_total{reason="unauthorized",route="/v1/events"}')  # fmt: skip
    before = [value(name) for name in names]
    body = json.dumps([native(), native()]).encode()
    assert collector.send(EVENTS, body, **bearer()).status == 200
    assert collector.send(EVENTS, body).status == 401
    grown = [value(name) - was for name, was in zip(names, before, strict=True)]
    assert grown == [1, 2, len(body), 1, 1, 1]
    assert value("trustwatch_collect_buffer_bytes") == value("trustwatch_collect_kafka_stalled") == 0


def test_the_rate_of_a_key_is_bounded(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    knobs = {"COLLECT__MAX_EVENTS_PER_S": "0.01", "COLLECT__BURST_S": "200"}
    with collecting(kafka, tmp_path, **knobs) as collector:
        answers = [collector.send(EVENTS, native(), **bearer()) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429], "the third on credit"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 100
        call = {"event": "x", "anonymousId": "a"}
        assert collector.send("/v1/track", call, Authorization=basic(WRITE_KEY)).status == 200, (
            "another key has its own"
        )


def test_the_line_counts_what_was_collected_and_knows_what_was_sent_again(
    kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    with collecting(kafka, tmp_path) as collector:
        now_s = time.time()
        now = datetime.fromtimestamp(now_s, UTC).isoformat()
        calls = [{"type": "page", "anonymousId": f"p{n % 5}", "timestamp": now, "properties": {"n": n}}
                 for n in range(30)]  # fmt: skip
        item = {"e": "pv", "aid": APP_ID, "p": "web", "duid": "d", "url": "https://shop.example/a",
                "dtm": str(int(now_s * 1000))}  # fmt: skip
        event = {"event": "$pageview", "distinct_id": "p", "timestamp": now, "properties": {"$pathname": "/a"}}
        for _ in range(2):  # none of them has an id: it follows from the content
            assert collector.send("/v1/batch", {"batch": calls, "writeKey": WRITE_KEY}).status == 200
            assert collector.send(POST, {"data": [item]}).status == 200
            assert collector.send("/batch/", {"api_key": API_KEY, "batch": [event]}).status == 200
        assert collector.send(EVENTS, {"no": "event"}, **bearer()).status == 200
        collector.line.start("worker")
        found = collector.line.wait(65, 0.0, 120.0).accounting
        wanted = {"consumed": 65, "applied": 32, "duplicate": 32, "late": 0, "dead_letter": 1}
        assert {name: found.get(name, 0) for name in wanted} == wanted


def test_the_very_first_events_are_spread_by_person_as_all_others(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    with collecting(kafka, tmp_path) as collector:
        for _ in range(2):
            assert collector.send(EVENTS, [native(person=f"p{n}") for n in range(40)], **bearer()).status == 200
        places: dict[str, set[int]] = {}
        for one in collector.stored():
            places.setdefault(one.json["person"], set()).add(one.partition)
        assert len(places) == 40 and all(len(partitions) == 1 for partitions in places.values())
        assert len(set.union(*places.values())) > 1


def test_a_topic_that_takes_less_is_told_apart_from_a_kafka_that_is_away(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    with collecting(kafka, tmp_path) as collector:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        with contextlib.closing(admin):
            limit = ConfigResource(ConfigResourceType.TOPIC, collector.line.raw, {"max.message.bytes": "20000"})
            admin.alter_configs([limit])
        with ThreadPoolExecutor(6) as pool:  # they come at once, so that large and small ones are sent together
            sizes = [30_000, 10, 10, 30_000, 10, 10]
            sent = pool.map(lambda size: collector.send(EVENTS, native(filler="x" * size), **bearer()).status, sizes)
            assert list(sent) == [413, 200, 200, 413, 200, 200]
        assert collector.send("/readyz", method="GET").status == 200
        assert len(collector.stored()) == 4


def test_it_ends_in_order_and_its_log_names_nobody(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    with collecting(kafka, tmp_path) as collector:
        process = collector.line.processes[0]
        for headers in (bearer(), {}, {"Authorization": f"Bearer {MAIL}"}):
            collector.send(EVENTS, native(person=MAIL), **headers)
            collector.send(f"/v1/track?email={MAIL}", b'{"email": "' + MAIL.encode(), **headers)
        with socket.create_connection(("127.0.0.1", collector.port), 10) as line:
            line.sendall(f"GET / {MAIL}\r\nx\x00y: 1\r\n\r\n".encode())
            line.recv(4096)
        with socket.create_connection(("127.0.0.1", collector.port), 10) as idle:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0, collector.line.logs()
            assert time.monotonic() - began < 10
            assert idle.recv(10) == b""
        log = (tmp_path / "collect-0.log").read_text()
        assert MAIL not in log and "a bug" not in log and "Traceback" not in log, log
        assert not any(secret in log for secret in (TOKEN, WRITE_KEY, HMAC_SECRET))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [({"COLLECT__SEGMENT__WRITE_KEYS": '["short"]'}, "collect.segment.write_keys"),
     ({"COLLECT__HOST": "0.0.0.0", "COLLECT__SNOWPLOW__PUBLIC": "false"}, "collect.snowplow.public"),
     ({"COLLECT__SEGMENT__TOPIC": "elsewhere"}, "collect.segment.topic")],
    ids=["short", "open", "topic"],
)  # fmt: skip
def test_a_wrong_setting_ends_it_at_start(
    kafka: KafkaUnderTest, tmp_path: Path, knobs: dict[str, str], said: str
) -> None:
    with collecting(kafka, tmp_path) as collector:
        process = collector.line.start("collect", **knobs)
        assert process.wait(30) == 2
        log = (tmp_path / "collect-1.log").read_text()
        assert said in log and "Traceback" not in log
