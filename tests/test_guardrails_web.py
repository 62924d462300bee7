"""`POST /api/ack`: who may, and that it writes the same event as `trustwatch ack`, to a broker that is real."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator

import msgspec
import pytest
from confluent_kafka import Consumer

from streams.app import Line
from streams.errors import TopicMismatch
from streams.formats import FormatOptions, decode
from streams.kafka import confluent_options
from streams.said import id_of, say
from streams.settings import Settings
from streams.topics import Topics
from streams.web.guard import ACK, Asked, Guard, Refused
from tests.conftest import KafkaUnderTest
from tests.test_web import LOCKED, TOKEN, WEB, Answer, Client, serving

ID = "12345678901234567890"
HOST = "127.0.0.1:6066"
GOOD = {"host": HOST, "authorization": f"Bearer {TOKEN}", "content_type": "application/json"}


def asked(**changed: str) -> Asked:
    return Asked("POST", ACK, **(GOOD | changed))


def test_the_guard_lets_those_with_the_token_write_and_nobody_else() -> None:
    guard = Guard(LOCKED)
    cookie = f"trustwatch_session={guard.session}"
    guard.check(asked())
    guard.check(asked(origin=f"http://{HOST}"))
    guard.check(asked(authorization="", cookie=cookie, origin=f"http://{HOST}"))
    for changed, status in (
        ({"authorization": ""}, 401), ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "", "cookie": cookie}, 403), ({"origin": "https://evil.example"}, 403),
        ({"authorization": "", "cookie": cookie, "origin": "null"}, 403), ({"host": "evil.example"}, 403),
        ({"content_type": "text/plain"}, 415), ({"content_type": ""}, 415),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            guard.check(asked(**changed))
        assert refused.value.status == status, changed
    with pytest.raises(Refused) as refused:
        Guard(WEB).check(asked())
    assert refused.value.status == 403 and "web.token" in str(refused.value)
    for path in ("/api/findings", "/", "/healthz"):
        with pytest.raises(Refused) as refused:
            guard.check(msgspec.structs.replace(asked(), path=path))
        assert refused.value.status == 405


def post(client: Client, body: object, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    try:
        sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
        connection.request("POST", ACK, body=body if isinstance(body, bytes) else json.dumps(body), headers=sent)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@pytest.fixture
def settings(kafka: KafkaUnderTest) -> Iterator[Settings]:
    topics = {"raw": [{"name": f"said-{uuid.uuid4().hex[:8]}"}], "raw_partitions": 1}
    mine = LOCKED.model_copy(update={
        "kafka": LOCKED.kafka.model_copy(update={"bootstrap_servers": kafka.bootstrap, "idempotent": kafka.real}),
        "topics": type(LOCKED.topics).model_validate(topics),
    })  # fmt: skip
    yield mine


def read(settings: Settings, count: int) -> list[bytes]:
    consumer = Consumer({**confluent_options(settings.kafka), "group.id": uuid.uuid4().hex,
                         "auto.offset.reset": "earliest"})  # fmt: skip
    consumer.subscribe([settings.topics.raw[0].name])
    found = []
    try:
        for _ in range(100):
            message = consumer.poll(0.3)
            if message is not None and message.error() is None:
                found.append(message.value())
            if len(found) == count:
                return found
    finally:
        consumer.close()
    return found


@pytest.mark.integration
def test_the_page_and_the_command_write_the_same_event(settings: Settings) -> None:
    with pytest.raises(TopicMismatch):
        say(settings, "disputed", "orders_late", "why", 1_700_000_000.0)
    with Topics(settings) as admin:
        admin.create()
    with serving(Line(settings)) as (client, _):
        assert post(client, {"id": ID, "note": "rolled back by anna@example.org"}).status == 202
        for wrong, status in (({"id": "Anna"}, 400), ({"note": "x"}, 400), (b"{", 400), ({"id": ID, "more": 1}, 400),
                              ({"id": ID, "note": "x" * 5000}, 400)):  # fmt: skip
            assert post(client, wrong).status == status, wrong
        assert post(client, {"id": ID}, Origin="https://evil.example").status == 403
    assert say(settings, "acknowledged", ID, "again", 1_700_000_000.0) == f"acknowledged {ID}: again"
    messages = read(settings, 2)
    events = [decode(message, None, FormatOptions.from_settings(settings, now_s=4e9))[0] for message in messages]
    assert [(event.type, id_of(event.properties["what"]), event.properties["note"]) for event in events] == [  # type: ignore[union-attr, arg-type]
        ("acknowledged", ID, "rolled back by redacted"), ("acknowledged", ID, "again"),
    ]  # fmt: skip
