"""Pages and event types become stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import ConfigError
from streams.events import Event
from streams.journey import Journey, load_journey

BUILT_IN = load_journey(None)
TWO = "entry: a\nstages: [{name: a, pages: ['/a*']}, {name: b, pages: ['/*'], events: [searched], goal: [purchased]}]\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "journey.yaml"
    path.write_text(text)
    return path


def stage(journey: Journey, kind: str = "page_viewed", page: str | None = None, named: str | None = None) -> str | None:
    return journey.stage_of(Event("1", kind, 0.0, "p", page=page, stage=named))


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("/", "discover"), ("/blog/:id", "discover"), ("/product/red-shoe", "evaluate"), ("/pricing", "compare"),
        ("/cart", "decide"), ("/checkout/payment", "buy"), ("/account", "keep"), ("/nothing-known", None), (None, None),
    ],
)  # fmt: skip
def test_pages_of_the_built_in_journey(page: str | None, expected: str | None) -> None:
    assert stage(BUILT_IN, page=page) == expected


@pytest.mark.parametrize(
    ("kind", "page", "named", "expected"),
    [
        ("searched", "/cart", None, "evaluate"),
        ("searched", "/cart", "keep", "keep"),
        ("page_viewed", "/cart", "unheard-of", "decide"),
        ("clicked", "/cart", None, None),
        ("page_pinged", "/cart", None, None),
        ("purchased", None, None, "buy"),
    ],
)
def test_the_named_stage_wins_over_the_type_over_the_page_and_only_views_have_pages(
    kind: str, page: str | None, named: str | None, expected: str | None
) -> None:
    assert stage(BUILT_IN, kind, page, named) == expected


def test_the_goal_is_what_a_purchase_completes_else_the_last_with_a_goal(tmp_path: Path) -> None:
    assert (BUILT_IN.goal, load_journey(written(tmp_path, TWO)).goal) == ("buy", "b")
    kept = TWO.replace("pages: ['/a*']", "pages: ['/a*'], goal: [renewed]").replace(", goal: [purchased]", "")
    assert load_journey(written(tmp_path, kept)).goal == "a"
    assert load_journey(written(tmp_path, TWO.replace(", goal: [purchased]", ""))).goal == "b"


def test_stages_are_ranked_in_the_order_of_the_file() -> None:
    assert BUILT_IN.stages == ("discover", "evaluate", "compare", "decide", "buy", "keep")
    assert [BUILT_IN.rank[name] for name in BUILT_IN.stages] == [0, 1, 2, 3, 4, 5]
    assert BUILT_IN.completes("buy", "purchased")
    assert not BUILT_IN.completes("keep", "purchased")


def test_the_first_stage_that_matches_wins(tmp_path: Path) -> None:
    journey = load_journey(written(tmp_path, TWO))
    assert (stage(journey, page="/ab"), stage(journey, page="/b")) == ("a", "b")
    twice = TWO.replace("pages: ['/a*']", "pages: ['/a*'], events: [searched]")
    assert stage(load_journey(written(tmp_path, twice)), "searched") == "a"


def test_a_glob_matches_the_whole_path(tmp_path: Path) -> None:
    journey = load_journey(written(tmp_path, TWO.replace("'/*'", "'/exact', '/x?'")))
    assert [stage(journey, page=page) for page in ("/exact", "/exact/more", "/x1", "/x", "/X1")] == [
        "b", None, "b", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TWO.replace("entry: a", "entry: z"), "entry: 'z' is no stage"),
        (TWO.replace("name: b", "name: a"), "names must differ"),
        (TWO.replace("name: b", "name: leads"), "these are taken: leads"),
        (TWO.replace("name: b", "name: B b"), "stages.1.name"),
        (TWO.replace("searched", "teleported"), "unknown event types ['teleported']"),
        (TWO.replace("purchased", "teleported"), "unknown event types ['teleported']"),
        (TWO.replace("pages:", "page:"), "stages.0.page"),
        ("entry: a\nstages: [{name: a}]\n", "stages"),
        ("stages: []", "entry"),
        ("", "journey"),
        ("7", "journey"),
        ("entry: [", "cannot be read"),
        ("entry: 2020-13-45", "cannot be read"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_a_wrong_file_is_a_configuration_error_that_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_journey(written(tmp_path, text))
    assert "journey.yaml: " in str(caught.value)
    assert named in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_journey(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_journey(tmp_path / "bytes.yaml")
