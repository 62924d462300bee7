"""A collector under test: a real process with every source on, what it is sent, and what stands in its topic."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kafka import KafkaConsumer, TopicPartition
from requests import PreparedRequest
from requests.auth import AuthBase

from streams._process import free_port, wait_until
from streams.collect.auth import (
    HUBSPOT_SIGNATURE,
    HUBSPOT_TIMESTAMP,
    SENDGRID_SIGNATURE,
    SENDGRID_TIMESTAMP,
)
from streams.collect.segment import BEACON
from streams.collect.webhooks import HUBSPOT, SENDGRID
from streams.events import Event
from streams.formats import FormatOptions, decode
from tests.conftest import KafkaUnderTest
from tests.integration.live import LiveLine, live_line

WRITE_KEY = "segment-write-key-of-tests"
API_KEY = "phc_project-key-of-tests"
APP_ID = "shop-of-tests"
CLIENT_SECRET = "hubspot-client-secret-of-tests"
TOKEN = "bearer-token-of-tests"
HMAC_SECRET = "hmac-secret-of-tests"
PUBLIC_URL = "https://collect.example.com"
ORIGIN = "https://www.example.com"
PARTITIONS = 4
ANSWER_S = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Stored:
    """A message of the raw topic."""

    partition: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    @property
    def json(self) -> Any:
        return json.loads(self.value)


class Collecting:
    """The process, its address, and its topic."""

    def __init__(self, line: LiveLine, port: int, sendgrid: EllipticCurvePrivateKey) -> None:
        self.line = line
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.sendgrid = sendgrid

    def send(self, path: str, body: object = b"", method: str = "POST", **headers: str) -> Answer:
        """One request on a connection of its own; underscores in names of headers are hyphens."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": "application/json"} | {n.replace("_", "-"): value for n, value in headers.items()}
        request = urllib.request.Request(
            self.url + path, data=raw if method == "POST" else None, headers=named, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def stored(self) -> list[Stored]:
        """Everything in the raw topic, by partition."""
        where = [TopicPartition(self.line.raw, partition) for partition in range(PARTITIONS)]
        consumer = KafkaConsumer(bootstrap_servers=self.line.settings.kafka.bootstrap_servers, enable_auto_commit=False)
        with contextlib.closing(consumer):
            consumer.assign(where)
            consumer.seek_to_beginning(*where)
            ends = consumer.end_offsets(where)
            found: list[Stored] = []
            deadline = time.monotonic() + 60
            while any(consumer.position(one) < ends[one] for one in where):
                assert time.monotonic() < deadline, "the topic could not be read to its end"
                for one, records in consumer.poll(500).items():
                    found += [Stored(one.partition, r.key, r.value, dict(r.headers)) for r in records]
        return found

    def events(self, mark: str) -> list[Event]:
        """What ingest makes of the messages that hold this text; fails if it refuses one."""
        options = FormatOptions.from_settings(self.line.settings, time.time())
        outcomes = [
            outcome for one in self.stored() if mark.encode() in one.value
            for outcome in decode(one.value, None, options, headers=one.headers)
        ]  # fmt: skip
        assert all(isinstance(one, Event) for one in outcomes), outcomes
        return [one for one in outcomes if isinstance(one, Event)]

    def metrics(self) -> str:
        """What Prometheus would read."""
        log = (self.line.folder / "collect-0.log").read_text()
        url = next(line.partition("metrics: ")[2] for line in log.splitlines() if "metrics: " in line)
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def signing(self) -> Signing:
        return Signing(self.sendgrid)


class Signing(AuthBase):
    """Signs what goes to HubSpot's and SendGrid's paths in place of a made-up signature, and shows keys elsewhere."""

    def __init__(self, sendgrid: EllipticCurvePrivateKey) -> None:
        self._sendgrid = sendgrid

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        body = request.body or b""
        if not isinstance(body, str | bytes):
            raise TypeError(f"a {type(body).__name__} cannot be signed before it is sent")
        raw = body.encode() if isinstance(body, str) else body
        path = request.path_url
        if path == HUBSPOT and HUBSPOT_SIGNATURE in request.headers:
            request.headers.update(hubspot_headers(raw))
        elif path == SENDGRID and SENDGRID_SIGNATURE in request.headers:
            request.headers.update(sendgrid_headers(self._sendgrid, raw))
        elif path == "/v1/events":
            request.headers["Authorization"] = f"Bearer {TOKEN}"
        elif path.startswith(("/v1/", BEACON)):
            request.headers["Authorization"] = basic(WRITE_KEY)
        return request


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()


def hubspot_headers(body: bytes) -> dict[str, str]:
    timestamp = str(int(time.time() * 1000))
    source = f"POST{PUBLIC_URL}{HUBSPOT}".encode() + body + timestamp.encode()
    mac = hmac.digest(CLIENT_SECRET.encode(), source, sha256)
    return {HUBSPOT_SIGNATURE: base64.b64encode(mac).decode(), HUBSPOT_TIMESTAMP: timestamp}


def sendgrid_headers(key: EllipticCurvePrivateKey, body: bytes) -> dict[str, str]:
    timestamp = str(int(time.time()))
    signature = key.sign(timestamp.encode() + body, ECDSA(SHA256()))
    return {SENDGRID_SIGNATURE: base64.b64encode(signature).decode(), SENDGRID_TIMESTAMP: timestamp}


@contextmanager
def collecting(kafka: KafkaUnderTest, folder: Path, **knobs: str) -> Iterator[Collecting]:
    """A collector with all sources on, until the block ends."""
    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    port = int(knobs["COLLECT__PORT"]) if "COLLECT__PORT" in knobs else free_port()
    given = {
        "TOPICS__RAW_PARTITIONS": str(PARTITIONS),
        "COLLECT__PORT": str(port),
        "COLLECT__PUBLIC_URL": PUBLIC_URL,
        "COLLECT__CORS_ORIGINS": json.dumps([ORIGIN]),
        "COLLECT__SEGMENT__WRITE_KEYS": json.dumps([WRITE_KEY]),
        "COLLECT__POSTHOG__API_KEYS": json.dumps([API_KEY]),
        "COLLECT__SNOWPLOW__APP_IDS": json.dumps([APP_ID]),
        "COLLECT__HUBSPOT__CLIENT_SECRETS": json.dumps([CLIENT_SECRET]),
        "COLLECT__SENDGRID__PUBLIC_KEYS": json.dumps([base64.b64encode(public).decode()]),
        "COLLECT__EVENTS__TOKENS": json.dumps([TOKEN]),
        "COLLECT__EVENTS__HMAC_SECRETS": json.dumps([HMAC_SECRET]),
    }
    with live_line(kafka, folder, **(given | knobs)) as line:
        process = line.start("collect")
        made = Collecting(line, port, key)

        def answers() -> bool:
            assert process.poll() is None, line.logs()
            with contextlib.suppress(OSError):
                return made.send("/readyz", method="GET").status == 200
            return False

        assert wait_until(answers, 60.0), line.logs()
        yield made
