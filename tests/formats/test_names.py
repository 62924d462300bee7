"""The names file: a section a vendor, all of one shape, and the user's own merged over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import ConfigError
from streams.events import OTHER
from streams.formats import FORMATS, load_names


@pytest.fixture
def names_file(tmp_path: Path) -> Path:
    return tmp_path / "names.yaml"


def test_every_section_is_that_of_a_format() -> None:
    assert load_names().keys() <= FORMATS.keys()


@pytest.mark.parametrize("section", sorted(load_names()))
def test_every_section_can_be_extended(section: str, names_file: Path) -> None:
    said = "{events: {Moon Landed: purchased}, changes: {Status: {Landed: lead_won}}, labels: {moon: team}}"
    names_file.write_text(f"{section}: {said}")
    mine, before = load_names(names_file)[section], load_names()[section]
    assert (mine.event("moon_landed"), before.event("moon_landed")) == ("purchased", OTHER)
    assert mine.changes["Status"]["landed"] == "lead_won"
    assert mine.labels == {**before.labels, "moon": "team"}
    assert mine.events.items() >= before.events.items()


def test_what_extends_a_section_follows_it_and_its_own_names_win(names_file: Path) -> None:
    base = "segment: {events: {Moon Landed: purchased, Mars Landed: purchased}}"
    names_file.write_text(f"{base}\nposthog: {{events: {{Mars Landed: searched}}}}")
    mine = load_names(names_file)
    assert [mine[name].event("moon landed") for name in ("segment", "posthog", "snowplow", "cloudevents")] == [
        "purchased"
    ] * 4
    assert (mine["posthog"].event("mars landed"), mine["snowplow"].event("mars landed")) == ("searched", "purchased")


def test_files_of_before_all_sections_had_one_shape_are_still_read(names_file: Path) -> None:
    said = "{subscriptions: {deal.creation: order_placed}, properties: {stage: {Won: lead_won}}, labels: {a: team}}"
    names_file.write_text(f"hubspot: {said}")
    mine = load_names(names_file)["hubspot"]
    assert (mine.event("deal.creation"), mine.changes["stage"]["won"], mine.labels["a"]) == (
        "order_placed",
        "lead_won",
        "team",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sgment: {}", "sgment: no such section; there are .*segment"), ("segment: {event: {}}", "segment.event"),
        ("posthog: {extends: hubspot}", "extends: only the built-in file"),
        ("posthog: {events: {a: b}}", "unknown event type"), ("- a", "names.yaml"), ("{", "not a readable YAML"),
        ("posthog: {properties: {clicked: {mail: [m]}}}", "unknown property"),
    ],
    ids=["section", "key", "extends", "type", "list", "yaml", "property"],
)  # fmt: skip
def test_a_mistake_is_named_with_its_file(text: str, said: str, names_file: Path) -> None:
    names_file.write_text(text)
    with pytest.raises(ConfigError, match=rf"names_file .*names\.yaml.*{said}|names_file .*{said}"):
        load_names(names_file)
