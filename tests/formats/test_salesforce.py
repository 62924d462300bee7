"""Salesforce change events, in the shapes of CometD and of the Pub/Sub API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.events import OTHER, Event, Outcome, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings
from tests.kit import settings_of

NOW_S = 1_800_000_000.0
COMMIT_MS = 1_690_000_000_250
LEAD, OTHER_LEAD, CONTACT, DEAL = "00Q5f00000AAAAAEA1", "00Q5f00000BBBBBEA1", "0035f00000CCCCCEA1", "0065f00000DDDDDEA1"
OPTIONS = FormatOptions.from_settings(Settings(), NOW_S)


def change(
    entity: str = "Lead", kind: str = "UPDATE", records: list[str] | None = None, **parts: Any
) -> dict[str, Any]:
    """A change event; fields that it changed are named, as the API does since 47.0, unless `changedFields` is given."""
    header = {
        "entityName": entity, "changeType": kind, "recordIds": records or [LEAD], "changeOrigin": "",
        "transactionKey": "000071a4-2f8e-4b7d-9c55-0f1f6a30c6b1", "sequenceNumber": 1, "commitTimestamp": COMMIT_MS,
        "commitNumber": 10_971_093_911_213, "commitUser": "0055f000001abcdEAA", "nulledFields": [], "diffFields": [],
        "changedFields": [*parts.get("fields", {}), "LastModifiedDate"] if kind == "UPDATE" else [],
    } | parts.get("header", {})  # fmt: skip
    return {"ChangeEventHeader": header, "LastModifiedDate": "2023-07-22T04:26:40.000Z", **parts.get("fields", {})}


def cometd(body: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "t9m-QIHrQ-DjEtyYLAowhA", "payload": body, "event": {"replayId": 7}}


def outcomes(value: Any, options: FormatOptions = OPTIONS) -> list[Outcome]:
    return decode(json.dumps(value).encode(), None, options)


def events(value: Any, options: FormatOptions = OPTIONS) -> list[Event]:
    found = outcomes(value, options)
    assert all(isinstance(one, Event) for one in found), found
    return found  # type: ignore[return-value]


def kinds(value: Any, options: FormatOptions = OPTIONS) -> list[str]:
    return [one.type for one in events(value, options)]


@pytest.mark.parametrize("envelope", ["cometd", "channel", "pubsub", "pubsub event", "bare", "array"])
def test_every_envelope_gives_the_same_event(envelope: str) -> None:
    body = change(fields={"Status": "Working - Contacted"})
    shapes = {
        "cometd": cometd(body), "channel": {"channel": "/data/LeadChangeEvent", "data": cometd(body)},
        "pubsub": {"replayId": "AAAAAAAAB4Y=", "payload": body}, "bare": body, "array": [cometd(body)],
        "pubsub event": {"event": {"id": "5a1e", "schemaId": "x", "payload": body}, "replayId": "AAAAAAAAB4Y="},
    }  # fmt: skip
    (event,) = events(shapes[envelope])
    assert (event.type, event.person, event.time) == ("lead_touched", LEAD, COMMIT_MS / 1000)
    assert event == events(body)[0]


@pytest.mark.parametrize(
    ("entity", "kind", "fields", "expected"),
    [
        ("Lead", "CREATE", {"Status": "Open - Not Contacted", "OwnerId": "0055f000001abcdEAA"}, ["lead_created"]),
        ("Lead", "CREATE", {"Lead_Score__c": 71.0}, ["lead_created", "lead_scored"]),
        ("Lead", "UPDATE", {"Status": "Qualified"}, ["lead_accepted"]),
        ("Lead", "UPDATE", {"Status": "MQL"}, ["lead_handed_over"]),
        ("Lead", "UPDATE", {"Status": "Unqualified"}, ["lead_rejected"]),
        ("Lead", "UPDATE", {"Status": "Simmering"}, [OTHER]),
        ("Lead", "UPDATE", {"Status": None}, [OTHER]),
        ("Lead", "UPDATE", {"OwnerId": "0055f000001zzzzEAA"}, ["lead_handed_over"]),
        ("Lead", "UPDATE", {"OwnerId": "00G5f000001zzzzEAA"}, [OTHER]),
        ("Lead", "UPDATE", {"OwnerId": "0055f000001zzzzEAA", "Status": "Rejected"},
         ["lead_handed_over", "lead_rejected"]),
        ("Lead", "UPDATE", {"HasOptedOutOfEmail": True}, ["unsubscribed"]),
        ("Lead", "UPDATE", {"HasOptedOutOfEmail": False}, [OTHER]),
        ("Lead", "DELETE", {}, [OTHER]),
        ("Lead", "UNDELETE", {"Status": "Qualified", "OwnerId": "0055f000001zzzzEAA"}, [OTHER]),
        ("Contact", "CREATE", {"LeadSource": "Web"}, [OTHER]),
        ("Opportunity", "UPDATE", {"StageName": "Closed Won", "Amount": 1200.5}, ["lead_won"]),
        ("Opportunity", "UPDATE", {"StageName": "Closed Lost"}, ["lead_lost"]),
        ("Opportunity", "UPDATE", {"StageName": "Negotiation/Review"}, [OTHER]),
        ("Opportunity", "CREATE", {"StageName": "Closed Won"}, ["lead_won"]),
        ("Task", "CREATE", {"WhoId": LEAD, "Status": "Not Started"}, ["lead_touched"]),
        ("Task", "CREATE", {"WhoId": LEAD, "Status": "Completed"}, ["lead_touched"]),
        ("Task", "UPDATE", {"Status": "Completed"}, [OTHER]),
        ("Event", "CREATE", {"WhoId": CONTACT}, ["lead_touched"]),
        ("Case", "CREATE", {"Status": "New"}, ["case_opened"]),
        ("Case", "UPDATE", {"Status": "Closed", "IsClosed": True}, ["case_solved"]),
        ("Individual", "UPDATE", {"ShouldForget": True}, ["erasure_requested"]),
        ("Individual", "UPDATE", {"HasOptedOutTracking": True}, ["consent_withdrawn"]),
        ("Employee__c", "CREATE", {"Status": "Qualified"}, [OTHER]),
    ],
)  # fmt: skip
def test_changes_become_what_they_mean(entity: str, kind: str, fields: dict[str, Any], expected: list[str]) -> None:
    assert sorted(kinds(change(entity, kind, fields=fields))) == sorted(expected)


def test_a_won_deal_carries_its_amount_and_a_rejected_lead_its_status() -> None:
    (won,) = events(change("Opportunity", records=[DEAL], fields={"StageName": "Closed Won", "Amount": "1200.50"}))
    (rejected,) = events(change(fields={"Status": "Disqualified"}))
    assert (won.properties, rejected.properties) == ({"value": 1200.5}, {"reason": "disqualified"})


def test_a_score_names_the_field_as_its_model() -> None:
    (scored,) = events(change(fields={"pi__score__c": "63"}))
    assert (scored.type, scored.properties) == ("lead_scored", {"score": 63.0, "model": "pi__score__c"})


def test_a_lead_source_becomes_a_label_also_where_it_did_not_change() -> None:
    body = change(fields={"Status": "Contacted", "LeadSource": "Trade Show"}, header={"changedFields": ["Status"]})
    (event,) = events(body)
    assert (event.type, event.segment) == ("lead_touched", {"source": "trade show"})


def test_each_of_several_records_has_its_own_event() -> None:
    found = events(change(records=[LEAD, OTHER_LEAD], fields={"Status": "Contacted"}))
    assert [(one.type, one.person) for one in found] == [("lead_touched", LEAD), ("lead_touched", OTHER_LEAD)]
    assert found[0].id != found[1].id
    found[0].segment["channel"] = "x"
    assert found[1].segment == {}


def test_enriched_fields_that_did_not_change_say_nothing() -> None:
    body = change(fields={"Status": "Qualified", "Title": "Dr."}, header={"changedFields": ["Title"]})
    assert kinds(body) == [OTHER]


@pytest.mark.parametrize("named", [["0x6505000100"], ["0x400000", "4-0x18"], [], None])
def test_where_changed_fields_cannot_be_read_each_field_counts(named: list[str] | None) -> None:
    assert kinds(change(fields={"Status": "Qualified"}, header={"changedFields": named})) == ["lead_accepted"]


def test_a_changed_part_of_a_compound_field_is_that_field() -> None:
    body = change(fields={"Name": {"LastName": "x"}}, header={"changedFields": ["Name.LastName"]})
    assert kinds(body) == [OTHER]


def test_a_commit_time_may_be_text_as_64_bit_numbers_in_json_are() -> None:
    assert events(change(header={"commitTimestamp": str(COMMIT_MS)}))[0].time == COMMIT_MS / 1000


def test_values_in_avros_json_encoding_are_read() -> None:
    body = change(fields={"Status": {"string": "Qualified"}, "IsConverted": {"boolean": False}})
    assert kinds(body) == ["lead_accepted"]


@pytest.mark.parametrize("kind", ["GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE"])
def test_a_gap_is_refused_record_by_record_with_what_to_do(kind: str) -> None:
    found = outcomes(change(kind=kind, records=[LEAD, OTHER_LEAD]))
    assert [(one.reason, one.person) for one in found if isinstance(one, Rejection)] == [
        ("missing_field", LEAD), ("missing_field", OTHER_LEAD),
    ]  # fmt: skip
    assert all(kind in one.detail and "read it again" in one.detail for one in found if isinstance(one, Rejection))


@pytest.mark.parametrize(
    ("kind", "record"), [("GAP_OVERFLOW", "000000000000000AAA"), ("GAP_OVERFLOW", LEAD), ("UPDATE", "00Q*")]
)
def test_an_overflow_or_wildcard_names_no_record(kind: str, record: str) -> None:
    (refused,) = outcomes(change(kind=kind, records=[record]))
    assert isinstance(refused, Rejection)
    assert refused.reason == "missing_field"
    assert refused.person == (LEAD if record == LEAD else None)


def test_a_wildcard_beside_a_record_leaves_the_record_alone() -> None:
    found = outcomes(change(records=["00Q*", LEAD], fields={"Status": "Contacted"}))
    assert [type(one) for one in found] == [Rejection, Event]


def conversion() -> list[dict[str, Any]]:
    """All that a conversion of a lead sends: one transaction, in sequence."""
    parts = [
        ("Account", "CREATE", "0015f00002JUX1JAAX", {"Name": "Some Inc."}),
        ("Contact", "CREATE", CONTACT, {"LeadSource": "Web", "OwnerId": "0055f000001abcdEAA"}),
        ("Opportunity", "CREATE", DEAL, {"StageName": "Prospecting", "Amount": None}),
        ("Lead", "UPDATE", LEAD, {"Status": "Closed - Converted", "IsConverted": True, "ConvertedContactId": CONTACT,
                                  "ConvertedOpportunityId": DEAL, "ConvertedDate": "2023-07-22"}),
    ]  # fmt: skip
    return [
        cometd(change(entity, kind, [record], fields=fields, header={"sequenceNumber": number}))
        for number, (entity, kind, record, fields) in enumerate(parts, 1)
    ]


def test_a_conversion_accepts_the_lead_once_and_ties_its_ids() -> None:
    found = [event for message in conversion() for event in events(message)]
    assert [one.type for one in found if one.type != OTHER] == ["lead_accepted"]
    assert {(one.person, one.also_person) for one in found if one.also_person} == {(LEAD, CONTACT), (LEAD, DEAL)}
    assert len({one.id for one in found}) == len(found)


def test_one_event_is_delivered_twice_with_the_same_ids_and_others_differ() -> None:
    body = change(fields={"OwnerId": "0055f000001zzzzEAA", "Status": "Contacted"})
    again = cometd(body) | {"event": {"replayId": 99}}
    assert [one.id for one in events(cometd(body))] == [one.id for one in events(again)]
    later = change(fields={"OwnerId": "0055f000001zzzzEAA", "Status": "Contacted"}, header={"sequenceNumber": 2})
    assert {one.id for one in events(body)}.isdisjoint(one.id for one in events(later))


def test_without_a_transaction_the_content_is_the_id() -> None:
    first, second = (
        change(fields={"Status": status}, header={"transactionKey": None}) for status in ("Contacted", "Working")
    )
    assert events(first)[0].id == events(first)[0].id != events(second)[0].id


def test_a_case_and_a_deal_name_their_contact() -> None:
    (case,) = events(change("Case", "CREATE", ["5005f00000EEEEEEA1"], fields={"ContactId": CONTACT, "Origin": "Web"}))
    assert (case.type, case.person, case.also_person) == ("case_opened", "5005f00000EEEEEEA1", CONTACT)


def test_a_touch_is_about_whom_it_touched() -> None:
    (touch,) = events(change("Task", "CREATE", ["00T5f00000FFFFFEA1"], fields={"WhoId": LEAD, "Subject": "Call"}))
    assert (touch.person, touch.also_person, touch.properties) == (LEAD, None, {})


@pytest.mark.parametrize(
    ("body", "reason", "person"),
    [
        (change(header={"commitTimestamp": None}), "missing_field", LEAD),
        (change(header={"commitTimestamp": "soon"}), "bad_time", LEAD),
        (change(header={"commitTimestamp": 4_102_444_800_000}), "time_out_of_range", LEAD),
        (change(header={"entityName": None}), "missing_field", LEAD),
        (change(header={"changeType": None}), "missing_field", LEAD),
        (change(kind="RENAME"), "unknown_type", LEAD),
        (change(kind="GAP_OF_ANNA"), "unknown_type", LEAD),
        (change(header={"recordIds": []}), "missing_field", None),
        (change(header={"recordIds": "00Q"}), "missing_field", None),
        (change(header={"recordIds": [7]}), "bad_field", None),
        (change(fields={"Lead_Score__c": "hot"}), "bad_field", LEAD),
        (change(fields={"Lead_Score__c": {"a": 1, "b": 2}}), "bad_field", LEAD),
        ({"ChangeEventHeader": 7}, "bad_field", None),
    ],
)
def test_a_wrong_event_is_refused_with_its_reason(body: dict[str, Any], reason: str, person: str | None) -> None:
    (refused,) = outcomes(cometd(body))
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.person) == (reason, person)


def test_a_wrong_field_refuses_each_of_the_records() -> None:
    found = outcomes(change(records=[LEAD, OTHER_LEAD], fields={"Score__c": "hot"}))
    assert [one.person for one in found if isinstance(one, Rejection)] == [LEAD, OTHER_LEAD]


def test_items_of_an_array_keep_their_order_and_say_where_they_were_refused() -> None:
    found = outcomes([cometd(change(fields={"Status": "Contacted"})), 7, cometd(change(kind="GAP_UPDATE"))])
    assert [type(one) for one in found] == [Event, Rejection, Rejection]
    assert [one.detail.partition(":")[0] for one in found if isinstance(one, Rejection)] == ["item 1", "item 2"]


def test_more_records_than_a_batch_may_have_are_refused_one_by_one() -> None:
    options = FormatOptions.from_settings(settings_of(ingest={"max_batch_items": 2}), NOW_S)
    found = outcomes(change(records=[f"00Q{n}" for n in range(5)], fields={"Status": "Contacted"}), options)
    assert [getattr(one, "reason", "event") for one in found] == ["event", "event"] + ["too_large"] * 3


def test_users_extend_what_changes_mean(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(
        "salesforce:\n  events: {Lead.DELETE: erasure_requested, Task.CREATE: other}\n"
        "  changes: {Lead.Status: {Simmering: lead_handed_over}, Lead.OwnerId: {005*: other}}\n"
    )
    options = FormatOptions.from_settings(Settings(names_file=path), NOW_S)
    assert kinds(change(kind="DELETE"), options) == ["erasure_requested"]
    assert kinds(change("Task", "CREATE", fields={"WhoId": LEAD, "Status": "Not Started"}), options) == [OTHER]
    assert kinds(change("Task", "CREATE", fields={"WhoId": LEAD, "Status": "Completed"}), options) == ["lead_touched"]
    both = change(fields={"Status": "Simmering", "OwnerId": "0055f000001zzzzEAA"})
    assert kinds(both, options) == ["lead_handed_over"]
