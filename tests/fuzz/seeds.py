"""What is mutated: for each format messages of the kinds that it takes, made up after the public specifications."""

from __future__ import annotations

import gzip
import random
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from tests.formats import payloads
from tests.formats import test_email_sources as email
from tests.formats import test_salesforce as salesforce
from tests.formats import test_surveys as surveys
from tests.formats.test_hubspot import CHANGE
from tests.formats.test_posthog import VIEW as CAPTURE
from tests.formats.test_sendgrid import DELIVERED
from tests.formats.test_snowplow import VIEW


class Seed(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        value: what it says, as JSON values; a list of columns for a row; None where only the bytes are known.
        raw: the message itself.
        is_row: `value` is joined by tabs instead of being encoded as JSON.
        headers: its Kafka headers.
    """

    value: Any
    raw: bytes
    is_row: bool = False
    headers: dict[str, bytes] = {}


def seeds(fmt: str) -> tuple[Seed, ...]:
    """The messages of a format.

    Raises:
        KeyError: nobody wrote any: do so.
    """
    return _all()[fmt]


@cache
def _all() -> dict[str, tuple[Seed, ...]]:
    made = {
        "native": _several(payloads.native), "segment": _segment(), "snowplow": _snowplow(), "posthog": _posthog(),
        "cloudevents": _cloudevents(), "hubspot": _json([CHANGE], CHANGE, [CHANGE | {"propertyName": "hubspotscore"}]),
        "salesforce": _salesforce(), "debezium": _debezium(), "sendgrid": _json([DELIVERED] * 3, DELIVERED),
        "mailjet": _json(email.mailjet(), [email.mailjet("open"), email.mailjet("click")]),
        "iterable": _json(email.iterable(), email.iterable("emailOpen")),
        "customerio": _json(email.customerio(), email.customerio("opened")),
        "braze": _json(email.braze(), email.braze("users.messages.email.Open")),
        "satismeter": _json(surveys.satismeter(surveys.answer(9, "nps"), surveys.answer(4, "csat"))),
        "refiner": _json(surveys.refiner({"nps": 9, "why": "so"}), surveys.refiner({})),
    }  # fmt: skip
    return {name: tuple(found) for name, found in made.items()}


def _json(*values: Any) -> list[Seed]:
    return [Seed(value, msgspec.json.encode(value)) for value in values]


def _several(make: Callable[[random.Random, int], Any], count: int = 6) -> list[Seed]:
    rng = random.Random(3)
    return _json(*[make(rng, n) for n in range(count)])


def _segment() -> list[Seed]:
    calls = [*_several(payloads.segment), *_several(payloads.rudderstack)]
    alias = {"type": "alias", "messageId": "m", "userId": "u", "previousId": "a", "timestamp": "2023-07-22T04:26:40Z"}
    batch = {"batch": [one.value for one in calls[:4]], "sentAt": "2023-07-22T04:26:40Z", "context": {"ip": "x"}}
    return [*calls, *_json(alias, batch)]


def _snowplow() -> list[Seed]:
    rng = random.Random(3)
    rows = [payloads.snowplow(rng, n) for n in range(8)]
    described = VIEW | {"event": "unstruct", "event_name": "change_form", "unstruct_event": payloads.unstruct(
        "change_form", {"formId": "f", "elementId": "e", "value": "v"})}  # fmt: skip
    rows.append(described)
    as_json = _json(*map(payloads.snowplow_json, rows))
    return [*(Seed(list(row.values()), payloads.tsv(row), is_row=True) for row in rows), *as_json]


def _posthog() -> list[Seed]:
    plain = _several(payloads.posthog)
    batch = payloads.posthog_batch(random.Random(3), 0, 3)
    inner = msgspec.json.encode(CAPTURE).decode()
    wrapped = {"uuid": "u", "distinct_id": "d", "data": inner, "now": "2023-07-22T04:26:40Z", "token": "t"}
    packed = [gzip.compress(plain[0].raw, mtime=0), b64encode(plain[1].raw), b"data=" + b64encode(plain[2].raw)]
    return [*plain, *_json(batch, wrapped, [CAPTURE, CAPTURE]), *(Seed(None, raw) for raw in packed)]


def _cloudevents() -> list[Seed]:
    plain = _several(payloads.cloudevent, 2)
    whole = {"id": "i", "type": "clicked", "time": 1_690_000_000, "person": "p"}
    nested = plain[0].value | {"data": whole}
    headers = {f"ce_{name}": str(value).encode() for name, value in plain[0].value.items() if name != "data"}
    binary = Seed({"total": 5}, b'{"total":5}', headers=headers)
    return [*plain, *_json(nested, [plain[0].value, nested]), binary]


def _salesforce() -> list[Seed]:
    body = salesforce.change(fields={"Status": "Working - Contacted", "LeadSource": "Web"})
    gap = salesforce.change(kind="GAP_UPDATE")
    return _json(salesforce.cometd(body), {"replayId": "AAA=", "payload": body}, [body, gap], *salesforce.conversion())


def _debezium() -> list[Seed]:
    source = {"version": "2.7", "connector": "mysql", "name": "shop", "db": "shop", "table": "orders",
              "snapshot": "false", "ts_ms": 1_690_000_000_000, "pos": 154, "file": "bin.1", "row": 0}  # fmt: skip
    after = {"id": 1, "status": "paid", "customer_id": 7, "price": "AZA="}
    change = {"before": {"id": 1, "status": "new"}, "after": after,
              "source": source, "op": "u", "ts_ms": 1_690_000_000_100, "transaction": None}  # fmt: skip
    fields = [{"type": "int32", "field": "id"}, {"type": "bytes", "field": "price", "parameters": {"scale": "2"},
               "name": "org.apache.kafka.connect.data.Decimal"}]  # fmt: skip
    schema = {
        "type": "struct",
        "name": "shop.orders.Envelope",
        "fields": [{"type": "struct", "fields": fields, "field": "after"}],
    }
    return _json(
        change, {"schema": schema, "payload": change}, change | {"op": "d", "after": None}, change | {"op": "r"}
    )
