"""The traps that formats set in the wild, one test each, named after the trap; where it matters, through the line."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FormatOptions, decode
from streams.formats.posthog import MAX_DWELL_S
from streams.frames import Counts
from streams.privacy import Privacy
from streams.sessionize import Totals
from streams.settings import Settings
from tests.formats import payloads
from tests.formats.test_email_sources import braze, customerio, iterable, mailjet
from tests.formats.test_salesforce import CONTACT, DEAL, LEAD, OTHER_LEAD, change, cometd, conversion
from tests.kit import KEY, NOW, T0, Tally, door, raws, sessionizer, settings_of, tally

OPTIONS = FormatOptions.from_settings(Settings(), NOW)
END = {"type": "clock", "time": T0 + 380 * 86_400.0}
FORM_VALUE = "anna@example.test"


def iso(at_s: float) -> str:
    """ISO 8601 of so many seconds after `T0`."""
    return datetime.fromtimestamp(T0 + at_s, UTC).isoformat()


def raw(message: Any) -> bytes:
    return message if isinstance(message, bytes) else msgspec.json.encode(message)


def outcomes(message: Any, fmt: str | None = None, **headers: bytes) -> list[Any]:
    return list(decode(raw(message), fmt, OPTIONS, headers=headers or None))


def one(message: Any, fmt: str | None = None, **headers: bytes) -> Event:
    (found,) = outcomes(message, fmt, **headers)
    assert isinstance(found, Event), found
    return found


def refused(message: Any, fmt: str | None = None) -> Rejection:
    (found,) = outcomes(message, fmt)
    assert isinstance(found, Rejection), found
    return found


def through(*messages: Any) -> tuple[Totals, Tally]:
    """What became of messages after the door and the sessions, and all that was counted."""
    gate, stage = door(settings_of()), sessionizer()
    gate.take(raws([None if message is None else raw(message) for message in (*messages, END)]), NOW)
    counts: list[Counts | None] = [stage.apply(frame, n) for n, (_, frame) in enumerate(gate.flush(NOW).frames)]
    assert stage.state.totals.consumed == sum(stage.state.totals.dead_letters.values()) + (
        stage.state.totals.applied + stage.state.totals.duplicate + stage.state.totals.late
    )
    return stage.state.totals, tally(counts)


# ── Segment and RudderStack ───────────────────────────────────────────────────────────────────────────────────────


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "page", "messageId": name, "anonymousId": "a", "timestamp": iso(0), **fields}


def test_segment_correction_reorders_events_so_gaps_come_from_device_time_and_windows_from_corrected_time() -> None:
    # Two pages ten seconds apart on a device that is an hour slow; the second was sent at once, the first much later.
    first, second = (
        one(call(name, timestamp=None, originalTimestamp=iso(device), sentAt=iso(sent), receivedAt=iso(received)))
        for name, device, sent, received in (("m1", -3600, -3500, 130), ("m2", -3590, -3590, 12))
    )
    assert (first.time, second.time) == (T0 + 30, T0 + 12)
    assert first.device_time is not None
    assert second.device_time is not None
    assert second.device_time - first.device_time == 10.0


def test_rudderstack_adds_channel_which_is_the_sdk_and_no_marketing_channel() -> None:
    assert one(call("m1", channel="mobile")).segment == {}
    assert one(call("m1", channel="mobile", context={"campaign": {"medium": "cpc"}})).segment == {"channel": "cpc"}


@pytest.mark.parametrize("field", ["timestamp", "originalTimestamp"])
def test_timestamps_like_abc_occur(field: str) -> None:
    assert refused(call("m1", **{field: "abc"})).reason == "bad_time"
    totals, _ = through(call("m1", timestamp="abc"), call("m2"))
    assert (totals.dead_letters, totals.applied) == ({"bad_time": 1}, 1)


def test_a_batch_shares_sent_at_and_context() -> None:
    items = [{"type": "page", "messageId": name, "anonymousId": "a", "originalTimestamp": iso(at)}
             for name, at in (("m1", 0), ("m2", 5))]  # fmt: skip
    shared = {"sentAt": iso(60), "receivedAt": iso(160), "context": {"campaign": {"medium": "cpc"}}}
    found = outcomes({"batch": items, **shared})
    assert [(event.time - T0, event.segment) for event in found] == [
        (100.0, {"channel": "cpc"}),
        (105.0, {"channel": "cpc"}),
    ]


# ── Snowplow ──────────────────────────────────────────────────────────────────────────────────────────────────────


def row(number: int = 7, width: int = 131, at: float = 0, **changes: str) -> bytes:
    when = datetime.fromtimestamp(T0 + at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    times = dict.fromkeys(
        ("derived_tstamp", "collector_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp", "etl_tstamp"), when
    )
    view = {"event": "page_view", "event_name": "page_view", "unstruct_event": "", "page_urlpath": "/cart"}
    return payloads.tsv(
        payloads.snowplow(random.Random(1), number, **view | times | {"true_tstamp": ""} | changes), width
    )


@pytest.mark.parametrize("width", [129, 130, 131])
def test_enriched_rows_of_131_130_and_129_columns_exist(width: int) -> None:
    assert one(row(width=width)) == one(row())


def test_a_duplicate_event_id_counts_once() -> None:
    totals, _ = through(row(1), row(1), row(2, at=1))
    assert (totals.applied, totals.duplicate) == (2, 1)


def test_pings_of_a_page_never_viewed_are_events_of_their_own() -> None:
    ping = row(event="page_ping", event_name="page_ping", pp_yoffset_max="40", doc_height="80")
    assert one(ping).type == "page_pinged"
    totals, _ = through(ping)
    assert (totals.applied, totals.dead_letters) == (1, {})


def test_a_null_session_is_left_to_the_gap() -> None:
    assert one(row(domain_sessionid="")).session is None
    totals, counted = through(row(1, domain_sessionid=""), row(2, at=10, domain_sessionid=""))
    assert (totals.applied, totals.failed) == (2, 0)
    assert counted


def test_rows_that_come_days_late_are_counted_as_late_and_reopen_nothing() -> None:
    totals, _ = through(row(1, at=3 * 86_400), row(2, at=0))
    assert (totals.applied, totals.late) == (1, 1)


def test_a_form_value_is_dropped_at_the_door() -> None:
    data = {"formId": "signup", "elementId": "email", "nodeName": "INPUT", "value": FORM_VALUE}
    changed = one(
        row(event="unstruct", event_name="change_form", unstruct_event=payloads.unstruct("change_form", data))
    )
    assert changed.type == "field_changed"
    assert FORM_VALUE not in str(Privacy(KEY, labels=OPTIONS.labels).scrub(changed))
    assert FORM_VALUE not in str(changed)


# ── PostHog ───────────────────────────────────────────────────────────────────────────────────────────────────────


def capture(name: str, **properties: Any) -> dict[str, Any]:
    return {"uuid": f"u-{name}", "event": name, "distinct_id": "d", "timestamp": iso(0), "properties": properties}


def test_durations_of_94_hours_were_reported_and_are_clipped() -> None:
    left = one(capture("$pageleave", **{"$prev_pageview_duration": 94 * 3600.0, "$pathname": "/cart"}))
    assert (left.type, left.properties["dwell_s"]) == ("page_left", MAX_DWELL_S)


def test_posthog_sends_single_events_and_batches() -> None:
    single = capture("$pageview", **{"$pathname": "/cart"})
    assert outcomes({"api_key": "k", "batch": [single]}) == outcomes(single)


# ── HubSpot ───────────────────────────────────────────────────────────────────────────────────────────────────────


def notice(**changes: Any) -> dict[str, Any]:
    return {
        "eventId": 1, "portalId": 62515, "occurredAt": int(T0 * 1000), "subscriptionType": "contact.propertyChange",
        "attemptNumber": 0, "objectId": 2**53 + 1, "changeSource": "CRM", "propertyName": "lifecyclestage",
        "propertyValue": "marketingqualifiedlead",
    } | changes  # fmt: skip


def test_event_id_is_not_unique() -> None:
    totals, _ = through([notice(), notice(objectId=5), notice(attemptNumber=1)])
    assert (totals.applied, totals.duplicate) == (2, 1)


def test_hubspot_tells_no_old_value_so_the_new_one_alone_decides() -> None:
    assert one([notice()]).type == "lead_handed_over"
    assert one([notice(propertyValue="")]).type == OTHER


def test_notifications_come_unordered_and_milestones_keep_their_earliest_time() -> None:
    day_ms = 86_400_000
    steps = [notice(occurredAt=int(T0 * 1000) + day * day_ms, propertyValue=value)
             for day, value in ((0, "marketingqualifiedlead"), (3, "salesqualifiedlead"), (9, "customer"))]  # fmt: skip
    one_way, other_way = (through(*[[step] for step in order])[1] for order in (steps, steps[::-1]))
    assert one_way == other_way
    assert one_way["leads", "accept_k"] == one_way["leads", "win_k"] == 1


def test_object_id_exceeds_int32_and_doubles() -> None:
    assert one([notice()]).person == "62515:9007199254740993"


def test_the_score_property_is_named_per_portal() -> None:
    ours = msgspec.structs.replace(OPTIONS, hubspot_score_properties=("our_score",))
    change_ = raw([notice(propertyName="our_score", propertyValue="80")])
    (scored,), (unknown,) = decode(change_, None, ours), decode(change_, None, OPTIONS)
    assert isinstance(scored, Event)
    assert isinstance(unknown, Event)
    assert (scored.type, scored.properties["score"], unknown.type) == ("lead_scored", 80.0, OTHER)


def test_contact_privacy_deletion_is_an_erasure_of_that_contact() -> None:
    forget = notice(subscriptionType="contact.privacyDeletion", propertyName=None, occurredAt=int(T0 * 1000) + 60_000)
    assert (one([forget]).type, one([forget]).person) == ("erasure_requested", one([notice()]).person)
    totals, _ = through([notice()], [forget])
    assert totals.forgotten == 1


# ── Salesforce ────────────────────────────────────────────────────────────────────────────────────────────────────


def at_t0(body: dict[str, Any], after_s: float = 0) -> dict[str, Any]:
    header = body["ChangeEventHeader"] | {"commitTimestamp": int((T0 + after_s) * 1000)}
    return cometd(body | {"ChangeEventHeader": header})


def test_many_record_ids_in_one_event_are_many_leads() -> None:
    body = change(records=[LEAD, OTHER_LEAD], fields={"Status": "MQL"})
    assert [(event.type, event.person) for event in outcomes(at_t0(body))] == [
        ("lead_handed_over", LEAD), ("lead_handed_over", OTHER_LEAD),
    ]  # fmt: skip
    _, counted = through(at_t0(body))
    assert counted["leads", "handed_over"] == 2


def test_wildcard_ids_name_no_record() -> None:
    letter = refused(at_t0(change(records=["00Q*"], fields={"Status": "MQL"})))
    assert (letter.reason, letter.person) == ("missing_field", None)


def test_gap_events_carry_no_fields_and_the_gap_shows() -> None:
    totals, counted = through(at_t0(change(kind="GAP_CREATE")), at_t0(change(kind="GAP_UPDATE")))
    assert totals.dead_letters == {"missing_field": 2}
    assert counted["leads", "created"] == 0


def test_one_conversion_is_several_changes_in_one_transaction_and_one_accepted_lead() -> None:
    changes = [message["payload"] for message in conversion()]
    for message in changes:
        message["ChangeEventHeader"] |= {"commitTimestamp": int((T0 + 86_400) * 1000)}
    handed_over = at_t0(change(fields={"Status": "MQL"}))
    totals, counted = through(handed_over, *map(cometd, changes), *map(cometd, changes))
    assert (counted["leads", "accepted"], counted["leads", "accept_n"], counted["leads", "accept_k"]) == (1, 1, 1)
    assert (counted["leads", "created"], counted["leads", "handed_over"]) == (0, 1)
    assert totals.duplicate == totals.applied - 1
    found = [event for message in changes for event in outcomes(cometd(message))]
    assert {(event.person, event.also_person) for event in found if event.also_person} == {
        (LEAD, CONTACT),
        (LEAD, DEAL),
    }


def test_a_touch_of_the_contact_and_a_won_deal_are_those_of_the_converted_lead() -> None:
    changes = [message["payload"] for message in conversion()]
    for message in changes:
        message["ChangeEventHeader"] |= {"commitTimestamp": int((T0 + 86_400) * 1000)}
    later = [
        change("Task", "CREATE", ["00T5f00000FFFFFEA1"], fields={"WhoId": CONTACT}, header={"transactionKey": "t2"}),
        change("Opportunity", records=[DEAL], fields={"StageName": "Closed Won"}, header={"transactionKey": "t3"}),
    ]
    _, counted = through(
        at_t0(change(fields={"Status": "MQL"})), *map(cometd, changes), *(at_t0(body, 1.5 * 86_400) for body in later)
    )
    assert {field: counted["leads", field] for field in ("handed_over", "touch_k", "accept_k", "won", "win_k")} == {
        "handed_over": 1, "touch_k": 1, "accept_k": 1, "won": 1, "win_k": 1,
    }  # fmt: skip


def test_enriched_fields_appear_unchanged_and_say_nothing() -> None:
    body = change(fields={"Status": "MQL", "Phone": "1"}, header={"changedFields": ["Phone", "LastModifiedDate"]})
    assert one(at_t0(body)).type == OTHER


# ── Debezium ──────────────────────────────────────────────────────────────────────────────────────────────────────


def changed(**parts: Any) -> dict[str, Any]:
    source = {"connector": "mysql", "name": "s", "db": "shop", "table": "leads", "ts_ms": int(T0 * 1000), "pos": 4}
    return {"before": None, "after": {"id": 1, "stage": "mql"}, "op": "u", "source": source, "ts_ms": 0} | parts


@pytest.fixture
def tables(tmp_path: Any) -> FormatOptions:
    path = tmp_path / "tables.yaml"
    path.write_text("tables: {leads: [{changed: stage, type: lead_handed_over, person: id}]}")
    return FormatOptions.from_settings(settings_of(ingest={"debezium_map": path}), NOW)


def meaning(message: Any, options: FormatOptions) -> str:
    (found,) = decode(raw(message), None, options)
    return found.type if isinstance(found, Event) else found.reason


@pytest.mark.parametrize("schema", [{"type": "struct", "fields": []}, None])
def test_debezium_comes_with_and_without_the_schema_wrapper(tables: FormatOptions, schema: Any) -> None:
    message = changed(before={"id": 1, "stage": "new"})
    assert meaning(message, tables) == meaning({"schema": schema, "payload": message}, tables) == "lead_handed_over"


def test_tombstones_have_a_null_value() -> None:
    totals, _ = through(None, {"schema": None, "payload": None})
    assert totals.dead_letters == {"tombstone": 2}


@pytest.mark.parametrize("before", [None, {"id": 1}])
def test_a_partial_before_does_not_tell_what_changed(tables: FormatOptions, before: Any) -> None:
    assert meaning(changed(before=before), tables) == "missing_field"
    assert meaning(changed(before={"id": 1, "stage": "mql"}), tables) == OTHER
    assert meaning(changed(before={"id": 1, "stage": "new"}), tables) == "lead_handed_over"


@pytest.mark.parametrize("parts", [{"op": "r"}, {"op": "c", "source": changed()["source"] | {"snapshot": "true"}}])
def test_r_is_a_snapshot_and_no_change(tables: FormatOptions, parts: dict[str, Any]) -> None:
    assert meaning(changed(**parts), tables) == OTHER


# ── CloudEvents ───────────────────────────────────────────────────────────────────────────────────────────────────


def cloud(event_id: str = "1", source: str = "/shop") -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": event_id, "source": source, "type": "com.example.lead_created", "subject": "c-7",
        "time": iso(0), "data": {},
    }  # fmt: skip


def test_cloudevents_are_the_same_only_if_source_and_id_are() -> None:
    totals, _ = through(cloud(), cloud(), cloud(source="/other"), cloud("2"))
    assert (totals.applied, totals.duplicate) == (3, 1)


def test_binary_mode_puts_attributes_in_headers() -> None:
    headers = {f"ce_{name}": str(value).encode() for name, value in cloud().items() if name != "data"}
    assert one({}, None, **headers) == one(cloud())


# ── E-mail ────────────────────────────────────────────────────────────────────────────────────────────────────────


def mail(event: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "email": "anna@example.test", "timestamp": int(T0), "event": event, "sg_event_id": f"e{number}",
        "sg_message_id": "m",
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "opened",
    [
        [mail("open", sg_machine_open=True)],
        mailjet("open", agent="Mozilla/5.0"),
        iterable("emailOpen", {"proxySource": "Apple"}),
        customerio("opened", data={"prefetched": True}),
        braze("users.messages.email.Open", machine_open=True),
    ],
    ids=["sendgrid", "mailjet", "iterable", "customerio", "braze"],
)
def test_machine_opens_inflate_and_are_no_opens(opened: Any) -> None:
    assert one(opened).type == OTHER
    assert one([mail("open", sg_machine_open=False)]).type == "email_opened"


def test_repeats_of_an_email_event_are_duplicates() -> None:
    totals, _ = through([mail("delivered"), mail("click", 2)], [mail("delivered")], [mail("click", 2)])
    assert (totals.applied, totals.duplicate) == (2, 2)


def test_an_email_address_is_a_pseudonym_after_the_door() -> None:
    scrubbed = Privacy(KEY, labels=OPTIONS.labels).scrub(one([mail("delivered")]))
    assert "example" not in str(scrubbed)
