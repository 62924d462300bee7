"""Variable parts of paths: learnt from recordings, configured, and templated at the door."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from streams.cli import cli
from streams.errors import ConfigError
from streams.events import Event
from streams.paths import MOST_VALUES, PathLearner
from streams.privacy import REDACTED, Privacy
from streams.settings import load_settings

NAMES = [f"{first}-{last}" for first in ("anna", "bert", "carla", "dora", "emil") for last in "abcdefghijklmnopqrst"]
SECTIONS = ("about", "jobs", "press", "blog", "help", "cart")


def door(**changes: Any) -> Privacy:
    return Privacy(b"0123456789abcdef", labels=("channel",), **changes)


@pytest.mark.parametrize(
    ("raw", "template"),
    [
        ("/u/anna", "/u/:name"),
        ("/U/Anna-Example/", "/u/:name"),
        ("/u/anna/orders/123", "/u/:name/orders/:id"),
        ("/u/anna/friends/bert", "/u/:name/friends/:friend"),
        ("/u/anna/friends", "/u/:name/friends"),
        ("/u/me", "/u/:name"),
        ("/u", "/u"),
        ("/shop/u/anna", "/shop/u/anna"),
        ("https://shop.example/u/anna?x=1", "/u/:name"),
    ],
)
def test_a_configured_path_stands_for_any_value_of_its_variable_segments(raw: str, template: str) -> None:
    assert door(paths=("/u/:name", "/u/:name/friends/:friend")).page(raw) == template


def test_the_more_particular_path_wins() -> None:
    assert door(paths=("/:lang/:page", "/:lang/help")).page("/en/help") == "/:lang/help"


@pytest.mark.parametrize("wrong", ["u/:name", "/u/:name/", "/", "", "/u//:name"])
def test_what_is_no_path_stops_the_start_with_its_knob(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.paths"):
        load_settings(privacy={"paths": [wrong]})


def test_what_you_call_personal_is_redacted_wherever_text_passes() -> None:
    privacy = door(scrub=(r"\bKD-\d{3}", "geheim"))
    assert privacy.page("/kunde/kd-123/x") == "/kunde/:id/x"
    assert privacy.page("/a/%2547eheim") == "/a/:id"
    event = Event("1", "clicked", 0.0, "p", segment={"channel": "mail GEHEIM"}, properties={"element": "#KD-1234"})
    scrubbed = privacy.scrub(event)
    assert isinstance(scrubbed, Event)
    assert (scrubbed.segment, scrubbed.properties) == ({"channel": REDACTED}, {"element": REDACTED})


# ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────────


def pages(rng: random.Random) -> list[str]:
    made = [f"/u/{name}{rest}" for name in NAMES for rest in ("", "/orders/77", "/reviews")]
    made += [f"/{section}" for section in SECTIONS] * 40
    made += [f"/blog/{name}-on-trust" for name in NAMES] + ["/u/me"] * 100
    rng.shuffle(made)
    return made


def learned(pages: list[str], least: int = 50) -> list[str]:
    learner = PathLearner(least)
    for page in pages:
        learner.add(door().page(page))
    return [found.pattern for found in learner.learned()]


@pytest.mark.parametrize("seed", range(3))
def test_segments_that_take_very_many_values_are_learnt_in_whatever_order(seed: int) -> None:
    assert learned(pages(random.Random(seed))) == ["/u/:name", "/blog/:name"]


def test_what_is_behind_a_variable_segment_is_looked_at_as_one() -> None:
    deep = [f"/u/{name}/friends/{other}" for name in NAMES[:60] for other in random.Random(name).sample(NAMES, 3)]
    assert learned(deep) == ["/u/:name", "/u/:name/friends/:name"]


def test_pages_of_their_own_are_no_variable() -> None:
    own = [f"/help/topic-{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(40)] * 30
    assert learned(own) == []
    assert learned([f"/page-{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(80)]) == [], "a site has many pages"


def test_memory_is_bounded() -> None:
    learner = PathLearner(50)
    for number in range(3 * MOST_VALUES):
        learner.add(f"/u/x{number}")
    (found,) = learner.learned()
    assert found.values == MOST_VALUES


def test_the_command_prints_what_can_be_configured_and_no_name(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    events = [{"id": f"{n}", "type": "page_viewed", "time": 1_700_000_000 + n, "person": "p", "page": page}
              for n, page in enumerate(pages(random.Random(4)))]  # fmt: skip
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    done = CliRunner().invoke(cli, ["paths", str(file)], standalone_mode=False)
    assert done.exit_code == 0, done.output
    configured = yaml.safe_load(done.stdout)
    assert configured == {"privacy": {"paths": ["/u/:name", "/blog/:name"]}}
    assert not [name for name in NAMES if name in done.output]
    privacy = Privacy.from_settings(load_settings(**configured), offline=True)
    assert {privacy.page(page) for page in pages(random.Random(4))} == {
        "/u/:name", "/u/:name/orders/:id", "/u/:name/reviews", "/blog/:name", *(f"/{name}" for name in SECTIONS)
    }  # fmt: skip
