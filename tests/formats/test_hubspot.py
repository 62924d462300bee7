"""HubSpot notifications."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings

NOW_S = 1_700_000_000.0
FIXTURES = Path(__file__).parents[1] / "data" / "fixtures" / "hubspot"
CHANGE: dict[str, Any] = {
    "eventId": 1, "portalId": 62515, "occurredAt": 1_690_000_000_500, "subscriptionType": "contact.propertyChange",
    "attemptNumber": 0, "objectId": 9_007_199_254_740_993, "changeSource": "CRM",
    "propertyName": "lifecyclestage", "propertyValue": "customer",
}  # fmt: skip


@pytest.fixture(scope="module")
def options() -> FormatOptions:
    return FormatOptions.from_settings(Settings(), NOW_S)


def event(options: FormatOptions, **changes: Any) -> Event:
    (outcome,) = decode(json.dumps([CHANGE | changes]).encode(), None, options)
    assert isinstance(outcome, Event), outcome
    return outcome


@pytest.mark.parametrize(
    ("file", "result"),
    [("contact_creation_0", "missing_field"), ("contact_creation_1", "lead_created"),
     ("contact_creation_2", "unknown_type")],
)  # fmt: skip
def test_published_payloads(options: FormatOptions, file: str, result: str) -> None:
    (outcome,) = decode((FIXTURES / f"{file}.json").read_bytes(), None, options)
    assert (outcome.type if isinstance(outcome, Event) else outcome.reason) == result
    if isinstance(outcome, Event):
        assert (outcome.person, outcome.time) == ("4737818:123", 1_539_145_399.845)


def test_large_object_ids_stay_exact_and_times_are_milliseconds(options: FormatOptions) -> None:
    outcome = event(options)
    assert (outcome.person, outcome.time) == ("62515:9007199254740993", 1_690_000_000.5)
    assert event(options, objectId="9007199254740993").person == outcome.person


@pytest.mark.parametrize(
    ("name", "value", "kind", "properties"),
    [
        ("hubspotscore", "87.5", "lead_scored", {"score": 87.5, "model": "hubspotscore"}),
        ("hs_lead_score", 12, "lead_scored", {"score": 12.0, "model": "hs_lead_score"}),
        ("hubspotscore", "", OTHER, {}),
        ("hubspotscore", None, OTHER, {}),
        ("lifecyclestage", "marketingqualifiedlead", "lead_handed_over", {}),
        ("lifecyclestage", "salesqualifiedlead", "lead_accepted", {}),
        ("lifecyclestage", "customer", "lead_won", {}),
        ("lifecyclestage", "evangelist", OTHER, {}),
        ("hs_lead_status", "CONNECTED", "lead_touched", {}),
        ("hs_lead_status", "BAD_TIMING", "lead_rejected", {"reason": "bad_timing"}),
        ("hs_lead_status", "OPEN_DEAL", OTHER, {}),
        ("hs_email_optout", "true", "unsubscribed", {}),
        ("hs_email_optout", True, "unsubscribed", {}),
        ("hs_email_optout", "false", OTHER, {}),
        ("favourite_colour", "red", OTHER, {}),
    ],
)
def test_property_changes(
    options: FormatOptions, name: str, value: object, kind: str, properties: dict[str, Any]
) -> None:
    outcome = event(options, propertyName=name, propertyValue=value)
    assert (outcome.type, outcome.properties) == (kind, properties)


@pytest.mark.parametrize(
    ("subscription", "kind"),
    [("contact.creation", "lead_created"), ("contact.privacyDeletion", "erasure_requested"),
     ("contact.merge", OTHER), ("company.creation", OTHER), ("deal.propertyChange", OTHER)],
)  # fmt: skip
def test_subscriptions(options: FormatOptions, subscription: str, kind: str) -> None:
    assert event(options, subscriptionType=subscription).type == kind


def test_generic_subscriptions_of_contacts_are_those_of_contacts(options: FormatOptions) -> None:
    outcome = event(options, subscriptionType="object.propertyChange", objectTypeId="0-1")
    assert (outcome.type, outcome.person) == ("lead_won", event(options).person)


def test_a_deal_is_not_the_contact_of_the_same_number(options: FormatOptions) -> None:
    assert event(options, subscriptionType="deal.creation").person == "62515:deal:9007199254740993"


def test_an_original_source_becomes_a_label(options: FormatOptions) -> None:
    outcome = event(options, propertyName="hs_analytics_source", propertyValue="PAID_SEARCH")
    assert (outcome.type, outcome.segment) == (OTHER, {"source": "paid_search"})


def test_an_association_names_two_objects_and_is_about_the_first(options: FormatOptions) -> None:
    told = {
        "subscriptionType": "contact.associationChange", "objectId": None, "fromObjectId": 5, "toObjectId": 7,
        "associationType": "CONTACT_TO_DEAL", "associationRemoved": False, "propertyName": None,
    }  # fmt: skip
    found = event(options, **told)
    assert (found.type, found.person, found.also_person) == (OTHER, "62515:5", None)
    assert event(options, **told | {"toObjectId": 8}).id != found.id == event(options, **told | {"attemptNumber": 2}).id


@pytest.mark.parametrize(
    ("names", "person", "others"),
    [
        ({"objectId": 9, "primaryObjectId": 1, "mergedObjectIds": [2], "newObjectId": 9}, "62515:9", {"1", "2"}),
        ({"objectId": None, "primaryObjectId": 1, "mergedObjectIds": [2, 3]}, "62515:1", {"2", "3"}),
        ({"objectId": 1, "primaryObjectId": 1, "mergedObjectIds": [1, None, {}, "", 10**500]}, "62515:1", set()),
        ({"objectId": 1, "mergedObjectIds": 7}, "62515:1", set()),
    ],
)
def test_merged_contacts_are_one_person(
    options: FormatOptions, names: dict[str, Any], person: str, others: set[str]
) -> None:
    told = json.dumps([CHANGE | {"subscriptionType": "contact.merge"} | names]).encode()
    found = [one for one in decode(told, None, options) if isinstance(one, Event)]
    assert {(one.type, one.person) for one in found} == {(OTHER, person)}
    assert {one.also_person for one in found if one.also_person} == {f"62515:{other}" for other in others}
    assert len(found) == len({one.id for one in found}) == max(1, len(others))


def test_a_retry_has_the_same_id_and_any_other_change_has_not(options: FormatOptions) -> None:
    first = event(options).id
    assert event(options, attemptNumber=3).id == first
    others = [event(options, **change).id for change in (
        {"propertyValue": "lead"}, {"occurredAt": 1_690_000_000_501}, {"objectId": 5}, {"eventId": 2},
    )]  # fmt: skip
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    ("changes", "reason", "person"),
    [
        ({"occurredAt": None}, "missing_field", "62515:5"),
        ({"occurredAt": "abc"}, "bad_time", "62515:5"),
        ({"occurredAt": 4_102_444_800_000}, "time_out_of_range", "62515:5"),
        ({"portalId": None}, "missing_field", None),
        ({"objectId": None}, "missing_field", None),
        ({"objectId": 1.5}, "bad_field", None),
        ({"propertyName": None}, "missing_field", "62515:5"),
        ({"propertyName": "hubspotscore", "propertyValue": "high"}, "bad_field", "62515:5"),
        ({"propertyName": "hubspotscore", "propertyValue": "inf"}, "not_finite", "62515:5"),
        ({"subscriptionType": "contact"}, "unknown_type", "62515:5"),
        ({"subscriptionType": 5}, "bad_field", "62515:5"),
    ],
)
def test_a_wrong_notification_is_refused_with_its_reason_and_the_person(
    options: FormatOptions, changes: dict[str, Any], reason: str, person: str | None
) -> None:
    (outcome,) = decode(json.dumps([CHANGE | {"objectId": 5} | changes]).encode(), None, options)
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.person) == (reason, person)


def test_items_keep_their_order_and_garbage_between_them_is_refused(options: FormatOptions) -> None:
    outcomes = decode(json.dumps([CHANGE, 7, None, CHANGE]).encode(), None, options)
    assert [type(outcome) for outcome in outcomes] == [Event, Rejection, Rejection, Event]


def test_a_single_notification_is_taken_too(options: FormatOptions) -> None:
    (outcome,) = decode(json.dumps(CHANGE).encode(), None, options)
    assert isinstance(outcome, Event)
