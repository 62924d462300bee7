"""Ids of one person are joined from then on: the same groups in whatever order, and what follows from them."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.frames import partition_of
from streams.identity import MOST_IDS, Identity
from tests.kit import native
from tests.privacy_kit import PARTITIONS, Pipe, pseudonym, settings_with, visit

DAY = 86_400.0
PAIRS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order_of_links(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    one, other = Identity(100), Identity(100)
    for pair in pairs:
        one.join(*pair, 0)
    for a, b in rng.sample(pairs, len(pairs)):
        other.join(*((a, b) if rng.random() < 0.5 else (b, a)), 0)
    assert {name: one.group(name) for name in "abcdefgh"} == {name: other.group(name) for name in "abcdefgh"}
    assert one.links == other.links == sum(len(group) - 1 for group in one.snapshot().groups)


@given(PAIRS, st.randoms(use_true_random=False))
def test_a_stored_identity_goes_on_as_it_was(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    whole, stored, window = Identity(3), Identity(3), 0
    for pair in pairs:
        window += rng.random() < 0.4
        whole.join(*pair, window)
        stored.join(*pair, window)
        fresh = Identity(3)
        fresh.adopt(stored.snapshot())
        stored = fresh
    assert stored.snapshot() == whole.snapshot() and stored.links == whole.links <= 3


def test_beyond_the_limit_those_not_named_for_the_longest_time_are_several_again() -> None:
    identity = Identity(limit=3)
    for number in range(5):
        identity.join(f"web-{number}", f"crm-{number}", number)
        identity.join("web-0", "crm-0", number)
    assert [f"web-{number}" in identity for number in range(5)] == [True, False, False, True, True]
    assert (identity.links, identity.evicted) == (3, 2)


def test_who_was_named_in_a_window_stays_in_it_and_nobody_new_is_taken_up_where_there_is_no_room() -> None:
    identity = Identity(limit=2)
    joined = [identity.join(f"web-{number}", f"crm-{number}", 7) for number in range(4)]
    identity.forget(["web-0"])
    assert [*joined, identity.join("web-2", "crm-2", 7)] == [True, True, False, False, False]
    assert [identity.join(f"web-{number}", f"crm-{number}", 8) for number in (2, 3)] == [True, True]
    assert (identity.evicted, identity.refused) == (1, 3)


@given(PAIRS, st.randoms(use_true_random=False))
def test_it_makes_no_difference_how_often_a_pair_is_named_within_a_window(
    pairs: list[tuple[str, str]], rng: random.Random
) -> None:
    """Also where there is too little room, people are erased, and repeats come in any order after the first."""
    once, often = Identity(3), Identity(3)
    for window in range(3):
        said: list[tuple[str, str]] = []
        erased = set[str]()
        for pair in rng.sample(pairs, len(pairs)):
            for identity, names in ((once, [pair]), (often, [pair, *rng.choices([*said, pair], k=rng.randint(0, 3))])):
                for one, other in names:
                    if not {one, other} & erased:
                        identity.join(one, other, window)
            said.append(pair)
            if rng.random() < 0.2:
                gone = once.group(rng.choice(pair))
                assert gone == often.group(gone[0])
                erased |= {*gone}
                once.forget(gone)
                often.forget(gone)
        assert once.snapshot().groups == often.snapshot().groups


def test_a_shared_device_makes_no_person_of_all_who_used_it() -> None:
    identity = Identity(limit=1000)
    for number in range(2 * MOST_IDS):
        identity.join("kiosk", f"user-{number}", 0)
    assert len(identity.group("kiosk")) == MOST_IDS
    assert identity.refused == MOST_IDS + 1


# ── in the line ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_partition_learns_which_ids_are_one() -> None:
    pipe = Pipe().feed(native("page_viewed", 0, "web-1", also_person="crm-1")).until(100)
    expected = tuple(sorted(map(pseudonym, ("web-1", "crm-1"))))
    assert [stage.identity.group(pseudonym("crm-1")) for stage in pipe.stages] == [expected] * PARTITIONS
    assert {stage.identity.canonical(pseudonym("web-1")) for stage in pipe.stages} == {expected[0]}


def test_a_pair_that_every_event_names_is_told_once() -> None:
    pipe = Pipe().feed(*[native("page_viewed", i, "web-1", also_person="crm-1") for i in range(50)]).until(100)
    told = sum(data.count(b"linked") for _, data in pipe.frames)
    assert told == PARTITIONS
    assert pipe.total("applied") == 50


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda order: "".join(map(str, order)))
def test_links_read_in_any_order_and_again_after_a_crash_give_the_same_state(order: tuple[int, ...]) -> None:
    sources = ("web/0", "crm/0", "app/0")
    stories = [
        [native("page_viewed", 0, "w", also_person="c"), native("page_viewed", 40, "w", also_person="c")],
        [native("lead_created", 5, "c", also_person="e"), native("lead_handed_over", 30, "e")],
        [native("page_viewed", 20, "e"), native("page_viewed", 25, "e", also_person="w", page="/cart")],
    ]

    def run(order: tuple[int, ...], crash: bool) -> Pipe:
        pipe = Pipe(settings_with(topics={"raw": [{"name": s[:-2]} for s in sources]}), sources)
        for number in order:
            pipe.feed(*stories[number], source=sources[number])
            if crash:
                pipe.restart_ingest()
                pipe.restart_stages()
                pipe.feed(*stories[number], source=sources[number], again=len(stories[number]))
        return pipe.until(100)

    expected = run((0, 1, 2), crash=False)
    assert run(order, crash=False).digests() == run(order, crash=True).digests() == expected.digests()
    assert len(expected.stages[0].identity.group(pseudonym("w"))) == 3


def test_a_visit_that_goes_on_under_the_account_is_no_drop() -> None:
    pipe = Pipe().feed(
        *visit("anonymous-1", 0), native("other", 15, "user-1", also_person="anonymous-1"),
        *visit("user-1", 20, ("/product/a", "/cart")),
    ).until(40_000)  # fmt: skip
    alone = Pipe().feed(*visit("anonymous-1", 0), *visit("user-1", 20, ("/product/a", "/cart"))).until(40_000)
    assert alone.counted()["evaluate", "dropped"] == 1 and alone.total("moved") == 0
    assert pipe.counted()["evaluate", "dropped"] == 0 and pipe.total("moved") == 1
    assert pipe.counted()["evaluate", "advanced"] == 1
    assert pipe.counted()["evaluate", "not_at_all"] == 0


def test_a_login_does_not_end_the_visit_of_the_device() -> None:
    pages = ("/", "/product/a", "/cart")
    logged_in = visit("device-1", 0, pages[:1]) + [
        native("page_viewed", 10 * i, "device-1", page=page, also_person="user-1") for i, page in enumerate(pages) if i
    ]
    plainly = Pipe().feed(*visit("device-1", 0, pages)).until(40_000)
    assert Pipe().feed(*logged_in).until(40_000).counted() == plainly.counted()


def apart() -> tuple[str, str]:
    """Two ids whose own partitions differ."""
    return next(
        (f"crm-{n}", "anna@example.org")
        for n in itertools.count()
        if partition_of(f"crm-{n}", PARTITIONS) != partition_of("anna@example.org", PARTITIONS)
    )


@pytest.mark.parametrize("linked_at", [0.0, 3 * DAY, 9 * DAY], ids=["from-the-start", "before-the-win", "after-it"])
def test_a_lead_under_two_ids_is_one_lead(linked_at: float) -> None:
    crm, mail = apart()
    story = [
        (0.0, native("lead_created", 0, crm)), (10.0, native("lead_handed_over", 10, crm)),
        (2 * DAY, native("lead_accepted", 2 * DAY, mail)), (8 * DAY, native("lead_won", 8 * DAY, mail)),
        (linked_at, native("email_sent", linked_at, mail, also_person=crm)),
    ]  # fmt: skip
    pipe = Pipe()
    for _, message in sorted(story, key=lambda one: one[0]):
        pipe.feed(message)
    pipe.until(20 * DAY)
    (lead,) = pipe.leads()
    assert set(lead.milestones) == {"lead_created", "lead_handed_over", "lead_accepted", "lead_won"}
    pipe.until(70 * DAY)
    counted = pipe.counted()
    won = sum(count for (stage, field), count in counted.items() if stage == "leads" and field.startswith("win_k"))
    assert (won, pipe.leads()) == (1, [])


def test_two_leads_that_turn_out_to_be_one_are_one_whichever_is_named_first() -> None:
    def story(one: str, other: str) -> Pipe:
        return Pipe().feed(
            native("lead_created", 0, "crm-1", segment={"source": "ads"}), native("lead_handed_over", 50, "crm-1"),
            native("lead_created", 20, "mail-1", segment={"source": "fair", "model": "m"}),
            native("lead_scored", 30, "mail-1", properties={"score": 70}), native("lead_touched", 60, "mail-1"),
            native("lead_touched", 90, "crm-1"), native("other", 100, one, also_person=other),
        ).until(200)  # fmt: skip

    (lead,) = story("crm-1", "mail-1").leads()
    assert (lead,) == tuple(story("mail-1", "crm-1").leads())
    assert lead.segment == {"source": "ads", "model": "m"}
    assert lead.score == 70 and lead.person == min(pseudonym("crm-1"), pseudonym("mail-1"))
    assert {kind: time % 1000 for kind, time in lead.milestones.items()} == {
        "lead_created": 0, "lead_handed_over": 50, "lead_touched": 60}  # fmt: skip


def test_labels_of_a_lead_reach_it_although_nobody_mapped_the_event() -> None:
    people = [f"crm-{n}" for n in range(8)]
    pipe = Pipe().feed(
        *[native("lead_created", n, person) for n, person in enumerate(people)],
        *[native("other", 10 + n, person, segment={"source": "ads"}) for n, person in enumerate(people)],
    ).until(100)  # fmt: skip
    assert len({partition_of(person, PARTITIONS) for person in people}) > 2
    assert [lead.segment for lead in pipe.leads()] == [{"source": "ads"}] * 8
    assert pipe.total("applied") == pipe.total("consumed") == 16
