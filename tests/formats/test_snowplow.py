"""Snowplow enriched events: rows and the SDKs' JSON."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FormatOptions, load_names
from streams.formats.snowplow import NO_ID
from streams.formats.snowplow_columns import COLUMNS
from streams.privacy import Privacy
from streams.settings import Settings
from tests.formats.kit import NOW_S, OPTIONS, event, outcomes, reason
from tests.formats.payloads import T0_S, snowplow, snowplow_json, tsv, unstruct

RNG = random.Random(1)
VIEW = snowplow(RNG, 7, event="page_view", event_name="page_view", unstruct_event="", page_urlpath="/cart")


FIXTURES = Path(__file__).parents[1] / "data" / "fixtures" / "snowplow"


def row(**changes: str) -> bytes:
    return tsv(VIEW | changes)


def test_the_columns_are_those_of_the_canonical_event_model() -> None:
    assert len(COLUMNS) == len(set(COLUMNS)) == 131
    places = {"event": 5, "event_id": 6, "user_id": 12, "domain_userid": 15, "page_urlpath": 35, "contexts": 52,
              "se_action": 54, "unstruct_event": 58, "pp_yoffset_max": 76, "useragent": 77, "doc_height": 107,
              "domain_sessionid": 123, "derived_tstamp": 124, "event_name": 126, "true_tstamp": 130}  # fmt: skip
    assert {name: COLUMNS.index(name) for name in places} == places


@pytest.mark.parametrize("named", ["snowplow", None])
def test_a_page_view(named: str | None) -> None:
    assert event(row(user_id="user-7"), named) == Event(
        id="00000007-cafe-4000-8000-000000000007", type="page_viewed", time=T0_S + 7,
        person="00000007-beef-4000-8000-000000000000", device_time=T0_S + 7, also_person="user-7",
        session="00000007-5e55-4000-8000-000000000000", page="/cart",
        segment={"channel": VIEW["mkt_medium"], "campaign": "spring", "device": "desktop",
                 "country": VIEW["geo_country"], "source": "ads"},
    )  # fmt: skip


@pytest.mark.parametrize("width", [129, 130, 131])
def test_rows_of_older_versions_lack_the_last_columns(width: int) -> None:
    assert event(tsv(VIEW, width)) == event(row())


@pytest.mark.parametrize("width", [70, 128])
def test_a_row_of_another_width_is_refused_as_such(width: int) -> None:
    (found,) = outcomes(tsv(VIEW, width))
    assert isinstance(found, Rejection) and found.reason == "bad_field" and f"columns: {width} " in found.detail


def test_a_row_may_end_with_its_line() -> None:
    assert event(row() + b"\n") == event(row() + b"\r\n") == event(row())


def test_pretty_json_full_of_tabs_is_no_row() -> None:
    raw = b'{"id":"e","type":"clicked","time":1690000000,"person":"p"' + b"\t" * 130 + b"}"
    assert event(raw).id == "e"


@pytest.mark.parametrize("seed", range(30))
def test_the_sdks_json_says_the_same_as_the_row(seed: int) -> None:
    made = snowplow(random.Random(seed), seed)
    assert event(snowplow_json(made)) == event(tsv(made))


@pytest.mark.parametrize(
    ("changes", "kind", "properties"),
    [
        ({"event": "page_ping", "pp_yoffset_max": "1031"}, "page_pinged", {"scroll_ratio": 0.5}),
        ({"event": "struct", "event_name": "event", "se_action": "Add to Cart"}, "item_added", {}),
        ({"event": "struct", "event_name": "event", "se_action": "Moon Landed"}, OTHER, {}),
        ({"event": "struct", "event_name": "event", "se_action": ""}, OTHER, {}),
        ({"event": "struct", "event_name": "event", "se_action": "purchase", "se_value": "9.5"}, "purchased",
         {"value": 9.5}),
        ({"event": "transaction", "event_name": "transaction", "tr_total": "12.50"}, "purchased", {"value": 12.5}),
        ({"event": "transaction_item", "event_name": "transaction_item"}, OTHER, {}),
    ],
    ids=["ping", "struct", "unknown struct", "unnamed struct", "struct purchase", "transaction", "item"],
)  # fmt: skip
def test_built_in_events(changes: dict[str, str], kind: str, properties: dict[str, float]) -> None:
    found = event(row(**changes))
    assert (found.type, found.properties) == (kind, properties)


@pytest.mark.parametrize(
    ("name", "data", "kind", "properties"),
    [
        ("link_click", {"targetUrl": "https://a.example", "elementId": "buy"}, "clicked", {"element": "buy"}),
        ("focus_form", {"formId": "f", "elementId": "mail", "nodeName": "INPUT", "value": "x@y.example"},
         "field_focused", {"form": "f", "field": "mail"}),
        ("change_form", {"formId": "f", "elementId": "mail", "nodeName": "INPUT", "value": "x@y.example"},
         "field_changed", {"form": "f", "field": "mail"}),
        ("submit_form", {"formId": "f", "elements": [{"name": "mail", "value": "x@y.example"}]}, "form_submitted",
         {"form": "f"}),
        ("site_search", {"terms": ["red", "shoes"]}, "searched", {}),
        ("add_to_cart", {"sku": "1", "quantity": 1}, "item_added", {}),
        ("remove_from_cart", {"sku": "1"}, "item_removed", {}),
        ("application_error", {"message": "boom"}, "error_shown", {}),
        ("snowplow_ecommerce_action", {"type": "checkout_step"}, "checkout_started", {}),
        ("snowplow_ecommerce_action", {"type": "moon_landing"}, OTHER, {}),
        ("some_unknown_name", {"a": 1}, OTHER, {}),
    ],
)  # fmt: skip
def test_self_describing_events(name: str, data: dict[str, Any], kind: str, properties: dict[str, str]) -> None:
    made = VIEW | {"event": "unstruct", "event_name": name, "unstruct_event": unstruct(name, data)}
    for found in (event(tsv(made)), event(snowplow_json(made)), event(tsv(made | {"event_name": ""}))):
        assert (found.type, found.properties) == (kind, properties)


def test_the_name_of_a_self_describing_event_is_found_in_the_sdks_key() -> None:
    made = snowplow_json(VIEW | {"event": "unstruct", "event_name": "link_click", "unstruct_event": unstruct(
        "link_click", {"elementId": "buy"})})  # fmt: skip
    del made["event_name"]
    assert event(made).type == "clicked"


def test_a_purchase_has_the_revenue_of_its_entity() -> None:
    schema = "iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-0-0"
    contexts = {"schema": "", "data": [{"schema": schema, "data": {"revenue": 42.5}}]}
    made = VIEW | {
        "event": "unstruct", "event_name": "snowplow_ecommerce_action",
        "unstruct_event": unstruct("snowplow_ecommerce_action", {"type": "transaction"}),
        "contexts": msgspec.json.encode(contexts).decode(),
    }  # fmt: skip
    key = "contexts_com_snowplowanalytics_snowplow_ecommerce_transaction_1"
    as_json = snowplow_json(made) | {key: [{"revenue": 42.5}]}
    for found in (event(tsv(made)), event(as_json)):
        assert (found.type, found.properties) == ("purchased", {"value": 42.5})


@pytest.mark.parametrize("broken", ["{", "[]", "7", '{"data":7}', '{"schema":"x"}'])
def test_a_self_describing_event_that_describes_nothing_is_refused(broken: str) -> None:
    assert reason(row(event="unstruct", event_name="link_click", unstruct_event=broken)) == "bad_field"


@pytest.mark.parametrize(
    ("changes", "time_s"),
    [
        ({}, T0_S + 7),
        ({"derived_tstamp": "", "true_tstamp": "2023-07-22 04:26:40.500"}, T0_S + 0.5),
        ({"derived_tstamp": "", "dvce_created_tstamp": "2023-07-22 04:00:00", "dvce_sent_tstamp": "2023-07-22 04:00:05",
          "collector_tstamp": "2023-07-22 04:26:50"}, T0_S + 5),
        ({"derived_tstamp": "", "dvce_sent_tstamp": "", "collector_tstamp": "2023-07-22 04:26:50"}, T0_S + 10),
        ({"derived_tstamp": "2023-07-22 04:26:40.123456789"}, T0_S + 0.123456),
        ({"derived_tstamp": "2023-07-22 04:26:41.000 UTC"}, T0_S + 1),
    ],
    ids=["derived", "true", "computed", "collected", "nanoseconds", "as exported"],
)  # fmt: skip
def test_time_is_the_derived_one_or_computed_as_snowplow_does(changes: dict[str, str], time_s: float) -> None:
    assert event(row(**changes)).time == pytest.approx(time_s, abs=1e-5)


def test_device_time_is_the_devices() -> None:
    assert event(row(dvce_created_tstamp="2023-07-22 04:00:00.000")).device_time == T0_S - 1600


@pytest.mark.parametrize("column", ["domain_userid", "event_id", "derived_tstamp"])
def test_what_is_required(column: str) -> None:
    also = {
        "domain_userid": ("network_userid", "user_id", "domain_sessionid"), "derived_tstamp": ("collector_tstamp",),
    }  # fmt: skip
    assert reason(row(**dict.fromkeys((column, *also.get(column, ())), ""))) == "missing_field"


@pytest.mark.parametrize(
    ("changes", "person", "also_person"),
    [
        ({"domain_userid": "d", "network_userid": "n", "user_id": "u"}, "d", "u"),
        ({"domain_userid": "", "network_userid": "n", "user_id": "u"}, "n", "u"),
        ({"domain_userid": "", "network_userid": "", "user_id": "u"}, "u", None),
        ({"domain_userid": "", "network_userid": "n", "user_id": "u", "platform": "srv"}, "u", None),
        ({"domain_userid": "", "network_userid": NO_ID, "domain_sessionid": "s"}, "s", None),
        ({"domain_userid": "d", "user_id": "undefined"}, "d", None),
    ],
    ids=["domain", "network", "user", "server", "anonymous", "undefined"],
)  # fmt: skip
def test_who_it_was(changes: dict[str, str], person: str, also_person: str | None) -> None:
    found = event(row(**changes))
    assert (found.person, found.also_person) == (person, also_person)


def test_mobile_trackers_keep_person_and_session_in_an_entity() -> None:
    own = {"userId": "phone-1", "sessionId": "mobile-session"}
    bare = {"domain_userid": "", "domain_sessionid": "", "platform": "mob"}
    entity = '{"schema":"iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2","data":%s}'
    contexts = '{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0","data":[%s]}'
    found = event(row(**bare, contexts=contexts % (entity % '{"userId":"phone-1","sessionId":"mobile-session"}')))
    as_json = snowplow_json(VIEW | bare) | {"contexts_com_snowplowanalytics_snowplow_client_session_1": [own]}
    for one in (found, event(as_json)):
        assert (one.person, one.session) == ("phone-1", "mobile-session")


@pytest.mark.parametrize("bad", ["abc", "2023-07-22", "2023-13-01 00:00:00"])
def test_a_time_that_is_none_is_refused(bad: str) -> None:
    assert reason(row(derived_tstamp=bad)) == "bad_time"


# ── Real rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def real(name: str) -> list[bytes]:
    return (FIXTURES / name).read_bytes().splitlines()


def test_real_rows_of_130_and_131_columns() -> None:
    found = [event(raw) for raw in real("enriched_spec1.tsv")]
    assert [(one.type, one.time, one.person, one.session, one.page) for one in found] == [
        ("clicked", 1631869529.076124, "fc8ae423-d817-4d2e-9fb2-7f39c54a22d1", "1d44eb69-97cb-4369-8543-fec0788a8839",
         "szfpYyynilxjt"),
        ("page_viewed", 1634288729.417068, "bf4fa46f-f839-4eff-893c-6da1d14b5f85",
         "513772b5-b305-4fa2-a75b-484278d39e6c", "8vzZcqkm90qgmb8"),
        ("clicked", 1634288729.076222, "654e125b-2500-4045-a3bd-d812f3bbc2dd", "a9324a82-0ac6-4b5a-9b20-1b247061621e",
         "kagQi4"),
    ]  # fmt: skip
    assert {one.also_person for one in found} == {"ada.blackjack@iglu.com"}
    assert all("@" not in repr(Privacy(b"0123456789abcdef", labels=OPTIONS.labels).scrub(one)) for one in found)


def test_what_is_no_row_is_refused_and_an_entity_that_no_registry_knows_changes_no_view() -> None:
    remark, valid, empty, other_remark, unknown = real("enriched_spec3.tsv")
    assert (reason(remark), reason(empty), reason(other_remark)) == ("not_json", "empty", "not_json")
    found = event(valid)
    assert (found.type, found.time, found.device_time, found.person, found.session, found.page) == (
        "page_viewed", 1401387395.0, 1401386651.639, "3b1d1a375044eede", None,
        "/blog/2013/02/08/writing-hive-udfs-and-serdes/",
    )  # fmt: skip
    assert b"some_unknown_name" in unknown and event(unknown) == found  # the same id: the line counts it once


# ── Traps of the list of formats ──────────────────────────────────────────────────────────────────────────────────────


def test_trap_duplicate_event_id_keeps_its_id_and_is_the_dedupe_windows_business() -> None:
    first, again = event(row()), event(row(etl_tstamp="2023-07-23 00:00:00.000"))
    assert first.id == again.id == VIEW["event_id"]


def test_trap_pings_of_a_page_never_viewed_are_events_of_their_own() -> None:
    found = event(row(event="page_ping", event_name="page_ping", page_urlpath="/never-viewed"))
    assert (found.type, found.page) == ("page_pinged", "/never-viewed")


def test_trap_null_session_is_left_to_the_gap() -> None:
    assert event(row(domain_sessionid="")).session is None


def test_trap_days_late_rows_carry_the_time_when_it_happened() -> None:
    found = event(row(collector_tstamp="2023-07-29 04:26:47.000", etl_tstamp="2023-07-29 04:26:49.000"))
    assert found.time == T0_S + 7


@pytest.mark.parametrize("name", ["change_form", "focus_form", "submit_form"])
def test_trap_form_values_are_dropped_at_the_door(name: str) -> None:
    data = {"formId": "signup", "elementId": "mail", "nodeName": "INPUT", "type": "email", "value": "MARK@x.example",
            "elements": [{"name": "mail", "value": "MARK@x.example", "nodeName": "INPUT"}]}  # fmt: skip
    made = VIEW | {"event": "unstruct", "event_name": name, "unstruct_event": unstruct(name, data)}
    privacy = Privacy(b"0123456789abcdef", labels=OPTIONS.labels)
    for found in (event(tsv(made)), event(snowplow_json(made))):
        assert "MARK" not in repr(found) and "MARK" not in repr(privacy.scrub(found))


def test_scroll_is_never_beyond_the_page_and_nonsense_says_nothing() -> None:
    ping = {"event": "page_ping", "event_name": "page_ping"}
    assert event(row(**ping, pp_yoffset_max="99999")).properties == {"scroll_ratio": 1.0}
    for nonsense in ({"pp_yoffset_max": "x"}, {"doc_height": "0"}, {"doc_height": ""}, {"pp_yoffset_max": "9" * 400}):
        assert event(row(**ping | {"pp_yoffset_max": "10"} | nonsense)).properties == {}


def test_the_users_names_are_merged(tmp_path: Any) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("snowplow: {events: {Moon Landed: purchased, page_ping: other}, labels: {app_id: team}}")
    mine = FormatOptions.from_settings(Settings(names_file=names), NOW_S)
    assert event(row(event="struct", se_action="moon landed"), None, mine).type == "purchased"
    assert event(row(event="page_ping"), None, mine).type == OTHER
    assert event(row(app_id="shop"), None, mine).segment["team"] == "shop"
    assert load_names(names)["segment"].events == load_names()["segment"].events


def test_bytes_that_are_no_text_are_refused() -> None:
    assert reason(row().replace(b"/cart", b"/\xff\xfe")) == "bad_field"
