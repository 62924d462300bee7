"""Survey tools' webhooks: SatisMeter and Refiner. Scores pass, words never."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings

OPTIONS = FormatOptions.from_settings(Settings(), 1_800_000_000.0)
WORDS = "Anna was rude to me"


def answer(value: Any, metric: str | None = None, name: str = "q1") -> dict[str, Any]:
    return {"label": WORDS, "id": name, "value": value, "name": "x", "type": "scale"} | (
        {"metric": metric} if metric else {}
    )


def satismeter(*answers: dict[str, Any], event: str = "completed", **response: Any) -> dict[str, Any]:
    return {
        "event": event,
        "campaign": {"id": "c1", "name": "after purchase"},
        "traits": {"email": "anna@example.test"},
        "response": {
            "id": "r1", "created": "2023-07-22T04:26:40.000Z", "rating": 9, "feedback": WORDS, "dismissed": False,
            "answers": list(answers), "score": 100, "category": "promoter", "location": {"country": "DE", "city": "x"},
            "user": {"id": "s-1", "name": "Anna", "email": "Anna@example.test", "userId": "No response"},
            "device": {"os": "macOS", "type": "desktop"}, "referrer": "https://example.test/?email=anna",
        } | response,
    }  # fmt: skip


def refiner(data: dict[str, Any], form: str = "Checkout survey", **changes: Any) -> dict[str, Any]:
    return {
        "uuid": "p-1", "project_uuid": "x", "remote_id": "u-7", "email": "Anna@example.test", "display_name": "Anna",
        "attributes": {"phone": "0"}, "segments": [], "account": {"remote_id": "a"},
        "last_seen_at": "2023-07-22T04:00:00Z",
        "triggered_event": "Completed Survey", "form": {"uuid": "f", "name": form},
        "response": {"uuid": "r1", "completed_at": "2023-07-22T04:26:40.000000Z", "data": data, "tags": [WORDS]},
    } | changes  # fmt: skip


def events(message: Any) -> list[Event]:
    found = decode(json.dumps(message).encode(), None, OPTIONS)
    assert all(isinstance(one, Event) for one in found), found
    return found  # type: ignore[return-value]


def test_each_metric_of_a_satismeter_response_is_an_answer() -> None:
    found = events(satismeter(answer(5, "nps", "a"), answer(WORDS, None, "b"), answer(4, "ces", "c"),
                              answer(3, "csat", "d"), answer(2, None, "e"), answer(["x"], None, "f")))  # fmt: skip
    assert [(one.type, one.properties) for one in found] == [
        ("survey_answered", {"kind": "nps", "score": 5.0, "scale_max": 10.0}),
        ("survey_answered", {"kind": "ces", "score": 4.0, "scale_max": 7.0}),
        ("survey_answered", {"kind": "csat", "score": 3.0, "scale_max": 5.0}),
    ]
    assert len({one.id for one in found}) == 3
    assert {(one.person, one.also_person, one.time) for one in found} == {("anna@example.test", "s-1", 1_690_000_000.0)}
    assert found[0].segment == {"campaign": "after purchase", "country": "DE"}


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (satismeter(), ["survey_answered"]),
        (satismeter(rating=None), [OTHER]),
        (satismeter(dismissed=True), [OTHER]),
        (satismeter(answer(WORDS, "nps"), rating=None), [OTHER]),
        (satismeter(answer(5, "nps"), event="dismissed"), [OTHER]),
        (refiner({"nps": 9}), ["survey_answered"]),
        (refiner({"nps_score": "9", "why": WORDS}), ["survey_answered"]),
        (refiner({"how_csat": 4, "ces": 6}), ["survey_answered", "survey_answered"]),
        (refiner({"rating": 4}, form="CSAT after checkout"), ["survey_answered"]),
        (refiner({"rating": 4, "age": 44}, form="CSAT after checkout"), [OTHER]),
        (refiner({"process": 4}), [OTHER]),
        (refiner({"why": WORDS}), [OTHER]),
        (refiner({"nps": 9}, triggered_event="Viewed Survey"), [OTHER]),
    ],
)
def test_only_scores_are_answers(message: Any, kinds: list[str]) -> None:
    assert [one.type for one in events(message)] == kinds


def test_a_refiner_answer_has_its_kind_score_and_person() -> None:
    (found,) = events(refiner({"nps_score": "9", "why": WORDS}))
    assert (found.person, found.also_person, found.time) == ("u-7", "anna@example.test", 1_690_000_000.0)
    assert found.properties == {"kind": "nps", "score": 9.0, "scale_max": 10.0}
    assert found.segment == {"campaign": "Checkout survey"}


def test_a_score_beyond_the_usual_scale_shows_a_longer_scale() -> None:
    (found,) = events(refiner({"csat": 8}))
    assert found.properties["scale_max"] == 10.0


@pytest.mark.parametrize(
    "message", [satismeter(answer(5, "nps"), answer(WORDS)), satismeter(), refiner({"nps": 3, "why": WORDS})]
)
def test_no_free_text_passes(message: Any) -> None:
    told = msgspec.json.encode(events(message)).decode()
    assert WORDS not in told
    assert "promoter" not in told


@pytest.mark.parametrize(
    ("message", "reason", "person"),
    [
        (satismeter(created=None), "missing_field", "anna@example.test"),
        (satismeter(created="abc"), "bad_time", "anna@example.test"),
        (satismeter(event=""), "missing_field", "anna@example.test"),
        (refiner({}, response={"completed_at": "abc"}), "bad_time", "u-7"),
        (refiner({}, triggered_event=7), "bad_field", "u-7"),
        (refiner({}, remote_id=None, email=None, uuid=None), "missing_field", None),
    ],
)
def test_a_wrong_response_is_refused_with_its_reason(message: Any, reason: str, person: str | None) -> None:
    (refused,) = decode(json.dumps(message).encode(), None, OPTIONS)
    assert isinstance(refused, Rejection), refused
    assert refused.reason == reason
    assert "anna" not in refused.detail


@pytest.mark.parametrize("message", [satismeter(answer(5, "nps")), refiner({"nps": 9})])
def test_a_retry_has_the_same_ids(message: Any) -> None:
    assert [one.id for one in events(message)] == [one.id for one in events([message])]
