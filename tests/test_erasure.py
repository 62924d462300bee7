"""Erasure and withdrawn consent, by any id, reach every partition, every state and every dead letter."""

from __future__ import annotations

import random

import msgspec
import pytest

from streams.erasure import Erased, Letters, Withdrawn
from streams.events import FORGET_TYPES
from streams.frames import Frame
from tests.kit import T0, door, event, frame, native, raws, section, sessionizer, settings_of
from tests.privacy_kit import PARTITIONS, Pipe, pseudonym, settings_with, visit

KINDS = pytest.mark.parametrize("kind", sorted(FORGET_TYPES))
IDS = ("web-1", "crm-1", "anna@example.org")


def refused(person: str, number: int) -> bytes:
    """An event of a person that ends as a dead letter."""
    return msgspec.json.encode({"id": f"r{number}", "type": "no such type", "time": T0, "person": person})


def known_by_three_ids(*, others: bool = True) -> Pipe:
    """Anna has sessions, a lead and dead letters under three ids; others have them, too."""
    pipe = Pipe()
    pipe.feed(native("other", 0, IDS[0], also_person=IDS[1]), native("other", 1, IDS[1], also_person=IDS[2]))
    for person in IDS + (("bert", "carla") if others else ()):
        pipe.feed(*visit(person, 10), native("lead_created", 12, person), refused(person, 1))
        pipe.feed(native("lead_handed_over", 14, person), refused(person, 2))
    return pipe.until(60)


@KINDS
@pytest.mark.parametrize("by", IDS)
def test_an_erasure_by_any_id_reaches_all_that_is_known_under_all_of_them(kind: str, by: str) -> None:
    pipe = known_by_three_ids()
    names = [pseudonym(person).encode() for person in IDS]
    assert all(name in pipe.kept() for name in names) and len(pipe.letters) == 10
    pipe.feed(native(kind, 70, by)).until(120)
    assert not [name for name in names if name in pipe.kept()]
    assert pipe.people() == {pseudonym("bert"), pseudonym("carla")}
    assert {letter.person for letter in pipe.letters.values()} == pipe.people() and len(pipe.letters) == 4
    assert all(stage.identity.links == 0 for stage in pipe.stages)
    assert pipe.total("forgotten") == 4  # three sessions and one lead
    assert pipe.total("failed") == 0


@KINDS
def test_an_erasure_that_names_two_unlinked_ids_reaches_both(kind: str) -> None:
    pipe = Pipe()
    for person in ("web-1", "crm-7", "bert"):
        pipe.feed(*visit(person, 0), refused(person, 1))
    pipe.until(60).feed(native(kind, 70, "web-1", also_person="crm-7")).until(120)
    assert pipe.people() == {pseudonym("bert")}
    assert [letter.person for letter in pipe.letters.values()] == [pseudonym("bert")]
    assert all("crm-7" not in stage.identity for stage in pipe.stages), "an erasure is no link"


def test_ids_that_are_linked_in_the_same_seconds_are_erased_too() -> None:
    pipe = Pipe().feed(*visit("web-1", 0), native("lead_created", 3, "crm-1"))
    pipe.feed(native("other", 14, "web-1", also_person="crm-1"), native("erasure_requested", 15, "crm-1"))
    assert pipe.until(60).people() == set()


def test_what_comes_after_an_erasure_is_new() -> None:
    pipe = known_by_three_ids().feed(native("erasure_requested", 70, IDS[0])).until(120)
    pipe.feed(*visit(IDS[0], 130), native("lead_created", 131, IDS[1]), refused(IDS[2], 3)).until(170)
    assert pipe.people() - {pseudonym("bert"), pseudonym("carla")} == {pseudonym(IDS[0]), pseudonym(IDS[1])}
    assert len(pipe.letters) == 5


def test_what_comes_after_consent_was_withdrawn_is_dropped_and_counted() -> None:
    pipe = known_by_three_ids(others=False).feed(native("consent_withdrawn", 70, IDS[0])).until(120)
    before = pipe.counted()
    later = [*visit(IDS[0], 130), native("lead_created", 131, IDS[1]), native("other", 140, IDS[1])]
    pipe.feed(*later, refused(IDS[2], 3), native("page_viewed", 141, "tablet", also_person=IDS[1])).until(180)
    assert pipe.people() == set() and pipe.letters == {}
    assert pipe.counted() == before
    assert pipe.total("withdrawn") == len(later) + 1  # the tablet, too: it is the same person's
    assert pipe.total("consumed") == pipe.total("applied") + 7
    assert pseudonym("tablet").encode() not in pipe.kept()


def test_late_news_of_somebody_who_withdrew_consent_begins_nothing() -> None:
    pipe = Pipe().feed(native("lead_created", 0, "crm-1"), native("consent_withdrawn", 50, "crm-1")).until(400)
    pipe.feed(native("lead_handed_over", 20, "crm-1")).until(500)
    assert pipe.leads() == [] and pipe.total("withdrawn") == 1


def test_late_news_from_before_an_erasure_begins_nothing_and_is_counted() -> None:
    pipe = Pipe().feed(native("lead_created", 0, "crm-1"), native("erasure_requested", 50, "crm-1")).until(400)
    pipe.feed(native("lead_handed_over", 20, "crm-1")).until(500)
    assert pipe.leads() == [] and pipe.total("withdrawn") == 1
    pipe.feed(native("lead_created", 510, "crm-1")).until(600)
    assert pipe.people() == {pseudonym("crm-1")}, "what they do later is new"


def test_a_link_is_known_again_after_an_erasure_whether_or_not_the_door_was_restarted() -> None:
    def run(*, restart: bool) -> Pipe:
        pipe = Pipe().feed(native("page_viewed", 0, "web-1", also_person="crm-1"))
        pipe.feed(native("erasure_requested", 40, "crm-1")).until(100)
        if restart:
            pipe.restart_ingest()
        pipe.feed(native("page_viewed", 110, "web-1", also_person="crm-1")).until(200)
        assert all("crm-1" not in stage.identity for stage in pipe.stages), "not in the same hour"
        return pipe.feed(native("page_viewed", 4000, "web-1", also_person="crm-1")).until(4100)

    plain, restarted = run(restart=False), run(restart=True)
    assert plain.digests() == restarted.digests()
    assert all(len(stage.identity.group(pseudonym("web-1"))) == 2 for stage in restarted.stages)


def test_an_erasure_that_is_sent_twice_takes_nothing_that_came_in_between() -> None:
    people = [f"p{n}" for n in range(8)]
    pipe = Pipe().feed(*[one for person in people for one in visit(person, 0)])
    pipe.feed(*[native("erasure_requested", 40, person, also_person="x") for person in people]).until(100)
    pipe.feed(*[one for person in people for one in visit(person, 110)])
    pipe.feed(*[native("erasure_requested", 40, person, also_person="x") for person in people]).until(200)
    assert pipe.people() == {pseudonym(person) for person in people}
    assert pipe.total("forgotten") == 8 and pipe.total("duplicate") == 8


@KINDS
def test_restarts_and_re_reads_in_between_change_nothing(kind: str) -> None:
    def run(*, restart: bool) -> Pipe:
        pipe = known_by_three_ids()
        if restart:
            pipe.restart_stages()
            pipe.restart_ingest()
        request = native(kind, 70, IDS[2])
        pipe.feed(request)
        if restart:
            pipe.restart_ingest()
            pipe.feed(request, again=1)
            pipe.restart_stages()
        pipe.until(120)
        if restart:
            pipe.restart_stages()
        return pipe.feed(*visit(IDS[0], 130), refused(IDS[1], 9)).until(170)

    plain, restarted = run(restart=False), run(restart=True)
    assert plain.digests() == restarted.digests()
    assert plain.letters == restarted.letters


def test_a_letter_that_is_written_again_after_its_erasure_is_deleted_again() -> None:
    pipe = Pipe().feed(refused("anna", 1), refused("bert", 2))
    pipe.feed(native("erasure_requested", 10, "anna")).until(60)
    assert [letter.person for letter in pipe.letters.values()] == [pseudonym("bert")]
    pipe.restart_ingest()
    pipe.feed(refused("anna", 1), refused("bert", 2), again=4)
    assert [letter.person for letter in pipe.letters.values()] == [pseudonym("bert")]
    assert pipe.total("repeats") == 2


def test_a_deletion_is_asked_for_once_and_only_of_what_is_known() -> None:
    pipe = Pipe().feed(refused("anna", 1), native("erasure_requested", 10, "anna")).until(60)
    pipe.feed(native("erasure_requested", 70, "anna")).until(120).until(200)
    assert pipe.asked == ["web/0/0/0"] and pipe.letters == {}


def test_letters_are_remembered_up_to_a_limit_and_the_oldest_go() -> None:
    letters = Letters(limit=3)
    for number in range(5):
        letters.remember(f"l{number}", ("anna" if number % 2 else "bert",))
    assert list(letters.about) == ["l2", "l3", "l4"]
    assert letters.forget(["anna"]) == ["l3"] and letters.forget(["bert"]) == ["l2", "l4"]
    assert letters.about == {}


def test_withdrawals_are_remembered_up_to_a_limit_without_a_pseudonym() -> None:
    withdrawn = Withdrawn(limit=2)
    for number in range(4):
        withdrawn.add([pseudonym(f"p{number}")], (number, 0.0))
    assert [pseudonym(f"p{number}") in withdrawn for number in range(4)] == [False, False, True, True]
    kept = msgspec.msgpack.encode(withdrawn.since)
    assert not any(pseudonym(f"p{number}").encode() in kept for number in range(4))


def test_each_request_is_counted_once_whatever_the_number_of_partitions() -> None:
    pipe = known_by_three_ids()
    before = pipe.total("applied")
    pipe.feed(native("erasure_requested", 70, IDS[0])).until(120)
    assert pipe.total("applied") == before + 1
    assert pipe.total("consumed") == sum(pipe.door.outcomes.values())


def test_many_requests_and_much_else_add_up() -> None:
    rng = random.Random(6)
    pipe = Pipe(settings_with(ingest={"frame_events": 5}))
    people = [f"p{n}" for n in range(12)]
    kinds = ("page_viewed", "lead_created", "lead_touched", "other", *sorted(FORGET_TYPES), "email_sent")
    for at in range(0, 600, 3):
        also = {"also_person": rng.choice(people)} if rng.random() < 0.3 else {}
        pipe.feed(native(rng.choice(kinds), at, rng.choice(people), **also) if rng.random() < 0.9 else
                  refused(rng.choice(people), at))  # fmt: skip
    pipe.until(700)
    assert pipe.total("consumed") == sum(pipe.door.outcomes.values()) == 200
    assert pipe.total("failed") == 0 and sum(stage.pending_events for stage in pipe.stages) == 0


def test_an_echo_and_its_item_share_a_frame_so_that_neither_is_taken_for_a_repeat() -> None:
    settings = settings_of(topics={"events_partitions": PARTITIONS}, ingest={"frame_events": 1})
    gate = door(settings)
    gate.take(raws([native("page_viewed", 0, "web-1", also_person="crm-1")]), T0 + 1000)
    frames = [(target, one) for target, one in gate.flush(T0 + 1000, everything=True).frames]
    full: list[Frame] = [one for _, one in frames if any(s.items for s in one.sections)]
    assert [len(s.echoes) for s in full[0].sections] == [1]
    assert sum(len(s.echoes) for _, one in frames for s in one.sections) == PARTITIONS


def test_the_digest_does_not_depend_on_how_often_a_link_was_said() -> None:
    stages = [sessionizer(), sessionizer()]
    link = event("linked", 20, "a", also_person="b", id="")
    for stage, times in zip(stages, (1, 3), strict=True):
        one = section([event("page_viewed", 10, "a")], 25)
        one.echoes.extend([msgspec.structs.replace(one.items[0], event=link)] * times)
        stage.apply(frame(one), 0)
    assert stages[0].pending_events < stages[1].pending_events
    assert stages[0].digest_part() == stages[1].digest_part()


def test_erasures_are_remembered_up_to_a_limit_without_a_pseudonym() -> None:
    erased = Erased(limit=2)
    for number in (0, 1, 0, 2):
        erased.add([pseudonym(f"p{number}")], (number, 10.0 - number))
    assert [erased.bucket(pseudonym(f"p{number}")) for number in range(3)] == [0, None, 2]
    assert erased.before(pseudonym("p0"), 10.0) and not erased.before(pseudonym("p2"), 8.5)
    assert all(isinstance(number, int) for number in erased.at)
