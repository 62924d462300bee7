"""The door lets no personal data pass."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import ConfigError
from streams.events import CLOCK, Event, Rejection
from streams.privacy import REDACTED, Privacy
from streams.settings import Settings

KEY = b"0123456789abcdef"


def door(**changes: Any) -> Privacy:
    return Privacy(KEY, labels=("channel", "source"), **changes)


def scrubbed(**fields: Any) -> Event:
    event = Event("m1", "clicked", 5.0, "anna")
    for name, value in fields.items():
        setattr(event, name, value)
    outcome = door().scrub(event)
    assert isinstance(outcome, Event)
    return outcome


def test_a_pseudonym_is_the_first_128_bits_of_hmac_sha256() -> None:
    expected = base64.urlsafe_b64encode(hmac.digest(KEY, b"anna", "sha256")[:16]).decode().rstrip("=")
    assert door().pseudonym("anna") == expected
    assert len(expected) == 22


def test_pseudonyms_depend_on_the_key_and_on_the_purpose() -> None:
    event = scrubbed(id="anna", session="anna", also_person="anna")
    assert event.also_person == event.person != Privacy(b"another key").pseudonym("anna")
    assert len({event.id, event.session, event.person}) == 3


def test_any_text_has_a_pseudonym() -> None:
    assert len(door().pseudonym("\ud800\x00é")) == 22


@pytest.mark.parametrize(
    ("raw", "template"),
    [
        ("/orders/123", "/orders/:id"),
        ("/Orders/123/", "/orders/:id"),
        ("", "/"),
        ("/", "/"),
        ("/cart?email=a@b.example", "/cart"),
        ("/cart#anna", "/cart"),
        ("/cart;jsessionid=77", "/cart"),
        ("https://shop.example:8080/Cart", "/cart"),
        ("//shop.example/cart", "/cart"),
        ("/u/anna@example.org", "/u/:id"),
        ("/u/anna%40example.org", "/u/:id"),
        ("/u/anna%2540example.org", "/u/:id"),
        ("/u/+49-170-1234567", "/u/:id"),
        ("/ip/192.168.0.1", "/ip/:id"),
        ("/o/3F2504E0-4F89-11D3-9A0C-0305E82C3301", "/o/:id"),
        ("/c/deadbeef", "/c/:id"),
        ("/t/eyJhbGciOiJIUzI1NiJ9", "/t/:id"),
        ("/t/QWxhZGRpbjpvcGVuIHNlc2FtZQ", "/t/:id"),
        ("/t/c2VjcmV0==", "/t/:id"),
        ("/go/https%3A%2F%2Fx.example%2Fanna", "/go/:id"),
        ("/terms-and-conditions", "/terms-and-conditions"),
        ("/TermsAndConditionsOfUse", "/termsandconditionsofuse"),
        ("/phones/iphone-15", "/phones/iphone-15"),
        ("/caf%C3%A9", "/café"),
        ("/a//b/./../c", "/a/b/c"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h"),
        ("Order Confirmation", "/order confirmation"),
        ("/a\u0000b", "/ab"),
    ],
)
def test_pages_become_templates(raw: str, template: str) -> None:
    assert door().page(raw) == template


def test_pages_are_bounded() -> None:
    assert door(max_chars=10).page("/" + "long-word-" * 50) == "/long-word"


def test_own_templates_come_first_and_are_final() -> None:
    privacy = door(path_templates=[(r"^sku-\w+$", ":sku"), (r"^123$", "one-two-three")])
    assert privacy.page("/p/SKU-a1b2/123/456") == "/p/:sku/one-two-three/:id"


@pytest.mark.parametrize("pair", [("(", "x"), ("a", r"\9")])
def test_a_wrong_template_is_a_configuration_error_that_names_it(pair: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.path_templates\[0\]"):
        door(path_templates=[pair])


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("email", "email"),
        ("spring sale 24", "spring sale 24"),
        ("anna@example.org", REDACTED),
        ("anna%40example.org", REDACTED),
        ("+49 170 1234567", REDACTED),
        ("0170/123-45-67", REDACTED),
        ("10.0.0.1", REDACTED),
        ("2001:db8:0:0:1::1", REDACTED),
        ("visitor 123456", REDACTED),
        ("x" * 99, "x" * 64),
        ("new\nline", "newline"),
    ],
)
def test_labels_stage_and_texts_follow_one_rule(raw: str, kept: str) -> None:
    event = scrubbed(segment={"channel": raw}, stage=raw, properties={"element": raw, "reason": raw})
    assert (event.segment, event.stage) == ({"channel": kept}, kept)
    assert event.properties == {"element": kept, "reason": kept}


def test_only_allowed_labels_and_properties_of_their_type_pass() -> None:
    properties = {"x": 3, "dead": True, "y": "3", "score": True, "form": 7, "value": float("nan"), "card": "4111"}
    event = scrubbed(segment={"mood": "good", "source": " "}, properties=properties)
    assert (event.segment, event.properties) == ({}, {"x": 3.0, "dead": True})


def test_no_trace_of_an_id_is_left() -> None:
    secret = "anna@example.org"
    event = scrubbed(
        id=secret, person=secret, also_person=secret, session=secret, page=f"/u/{secret}", stage=secret,
        segment={"channel": secret}, properties={"what": secret},
    )  # fmt: skip
    assert b"anna" not in msgspec.json.encode(event)


def test_a_rejection_keeps_its_reason_and_gets_a_pseudonym() -> None:
    privacy = door()
    assert privacy.scrub(Rejection("bad_time", "time: no", "anna")) == Rejection(
        "bad_time", "time: no", privacy.pseudonym("anna")
    )
    nobody = Rejection("empty", "nothing")
    assert privacy.scrub(nobody) is nobody


def test_a_clock_belongs_to_nobody() -> None:
    assert door().scrub(Event("", CLOCK, 5.0, "")) == Event("", CLOCK, 5.0, "")


def test_without_a_key_only_offline_work_is_possible() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.pseudonym_key.*TRUSTWATCH_PRIVACY__PSEUDONYM_KEY"):
        Privacy.from_settings(Settings())
    first, second = (Privacy.from_settings(Settings(), offline=True).pseudonym("anna") for _ in range(2))
    assert first == second


def test_offline_work_uses_the_key_that_is_set_so_that_it_equals_the_live_line() -> None:
    keyed = Settings(privacy={"pseudonym_key": "0123456789abcdef"})
    assert Privacy.from_settings(keyed, offline=True).pseudonym("anna") == Privacy.from_settings(keyed).pseudonym(
        "anna"
    )


@given(st.text(max_size=200))
def test_templates_of_any_text_are_bounded_paths_without_addresses(raw: str) -> None:
    page = door().page(raw)
    assert page.startswith("/")
    assert len(page) <= 64
    assert "@" not in page and "?" not in page
