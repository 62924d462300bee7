"""Keys are changed in the middle of sessions and leads, and nothing that is counted notices."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from streams.checkpoints import Checkpoint, former_key, from_records, require_key, to_records
from streams.errors import CheckpointRefused, ConfigError
from streams.events import FORGET_TYPES, Event
from streams.privacy import Privacy
from streams.settings import Settings, load_settings
from tests.kit import T0, Tally, native
from tests.privacy_kit import KEY, OLD_KEY, Pipe, pseudonym, settings_with, visit

DAY = 86_400.0
SWITCH = 600.0
"""Seconds after T0 at which the new key holds."""
AT = datetime.fromtimestamp(T0 + SWITCH, UTC).isoformat()
OLD = settings_with(privacy={"pseudonym_key": OLD_KEY})
BOTH = settings_with(privacy={"previous_key": OLD_KEY, "rotate_at": AT})
NEW = settings_with()
MODELLED = ("asked", "hesitant", "weighed", "novel")
"""What the model of a stage says depends on the order in which it learnt, and that on pseudonyms."""
WEB, CRM = "web/0", "crm/0"
PAGES = ("/", "/product/a", "/product/b", "/pricing", "/cart", "/checkout")


def pipe_of(settings: Settings) -> Pipe:
    return Pipe(settings, (WEB, CRM))


def web_story() -> Iterator[tuple[float, bytes]]:
    """Visits that begin before, at and after the switch, with given sessions, pages seen again, and repeats."""
    rng = random.Random(1)
    for number in range(60):
        at, person = 20.0 * number, f"visitor-{number}"
        given = {"session": f"given-{number}"} if number % 3 == 0 else {}
        for step in range(rng.randint(3, 9)):
            at += rng.choice((1.0, 5.0, 30.0, 200.0))
            page = rng.choice(PAGES)
            message = native("page_viewed", at, person, page=page, id=f"{number}-{step}", **given)
            yield at, message
            if rng.random() < 0.3:
                yield at + rng.choice((0.5, 9.0, 25.0)), message  # sent again, perhaps after the switch
            if rng.random() < 0.2:
                yield at, native("other", at, person, id=f"{number}-{step}-o", segment={"device": "tv"}, **given)


def crm_story() -> Iterator[tuple[float, bytes]]:
    """Leads that are handed over before or after the switch, and decided weeks later, some by another id."""
    rng = random.Random(2)
    for number in range(40):
        at, lead = 25.0 * number, f"crm-{number}"
        also = {"also_person": f"mail-{number}"} if number % 2 else {}
        yield at, native("lead_created", at, lead, **also)
        yield at + 1, native("lead_scored", at + 1, lead, properties={"score": rng.randrange(100)})
        yield at + 2, native("lead_handed_over", at + 2, lead, segment={"source": "ads"})
        name = f"mail-{number}" if also else lead
        for kind, days in (("lead_touched", 1.0), ("lead_accepted", 3.0), ("lead_won", rng.choice((20.0, 50.0)))):
            if rng.random() < 0.7:
                yield at + days * DAY, native(kind, at + days * DAY, name)


def story() -> list[tuple[float, str, bytes]]:
    told = [(at, WEB, message) for at, message in web_story()] + [(at, CRM, message) for at, message in crm_story()]
    return sorted(told, key=lambda one: one[0])


def run(pipe: Pipe, *changes: tuple[float, Settings], crash: bool = False, until: float = 130 * DAY) -> Pipe:
    """The story, with workers that are restarted with other settings at given times."""
    left, last = list(changes), dict.fromkeys((WEB, CRM), b"")
    for number, (at, source, message) in enumerate(story()):
        while left and left[0][0] <= at:
            _, settings = left.pop(0)
            pipe.restart_ingest(settings)
            pipe.restart_stages(settings)
        if crash and number % 17 == 0 and last[source]:
            pipe.restart_ingest()
            pipe.feed(last[source], source=source, again=1)
            pipe.restart_stages()
        pipe.feed(message, source=source)
        last[source] = message
    return pipe.until(until)


def plain_counts(pipe: Pipe) -> Tally:
    return Tally({key: count for key, count in pipe.counted().items() if key[1] not in MODELLED})


@pytest.fixture(scope="module")
def unchanged() -> Pipe:
    return run(pipe_of(OLD))


@pytest.mark.parametrize("crash", [False, True], ids=["calm", "with-crashes"])
@pytest.mark.parametrize("given_up", [None, 90 * DAY], ids=["both-keys", "then-one-key"])
def test_a_change_of_keys_amid_sessions_and_leads_changes_no_count(
    unchanged: Pipe, crash: bool, given_up: float | None
) -> None:
    changes = [(300.0, BOTH)] + ([(given_up, NEW)] if given_up else [])
    pipe = run(pipe_of(OLD), *changes, crash=crash)
    assert plain_counts(pipe) == plain_counts(unchanged)
    for name in ("applied", "duplicate", "late", "steps", "consumed", "moved"):
        assert pipe.total(name) == unchanged.total(name), name
    assert unchanged.total("duplicate") > 20 and unchanged.counted()["leads", "won"] > 10
    assert pipe.total("failed") == 0


def test_without_the_previous_key_it_would_have(unchanged: Pipe) -> None:
    assert plain_counts(run(pipe_of(OLD), (SWITCH, NEW))) != plain_counts(unchanged)


def test_workers_may_be_restarted_one_after_the_other_before_the_switch(unchanged: Pipe) -> None:
    """One reads the web with both keys, the other still reads the CRM with the old one, and the other way round."""
    for early, late in ((WEB, CRM), (CRM, WEB)):
        pipe = pipe_of(OLD)
        doors = {early: pipe_of(BOTH).door, late: pipe_of(OLD).door}
        restarted = False
        for at, source, message in story():
            if at >= SWITCH - 50 and not restarted:
                restarted = True
                clock = doors[late].clock_of(late).time
                doors[late] = pipe_of(BOTH).door
                doors[late].open_source(late, clock)
            pipe.door = doors[source]
            for other in (WEB, CRM):
                if other != source:
                    pipe.door.close_source(other)
            pipe.feed(message, source=source)
        for source in (WEB, CRM):
            pipe.door = doors[source]
            pipe.sources = (source,)
            pipe.until(130 * DAY)
        assert plain_counts(pipe) == plain_counts(unchanged)


def test_before_the_switch_nothing_differs_and_after_it_no_old_name_is_made() -> None:
    old, both = run(pipe_of(OLD), until=0), run(pipe_of(BOTH), until=0)
    same = [a == b for a, b in zip(old.frames, both.frames, strict=False)]
    assert same.index(False) > 50, "frames are the same until the switch"
    pipe = Pipe(settings_with(privacy={"previous_key": OLD_KEY, "rotate_at": AT}))
    pipe.feed(*visit("anna", SWITCH + 10)).until(SWITCH + 100)
    assert pipe.people() == {pseudonym("anna")}


@pytest.mark.parametrize("kind", sorted(FORGET_TYPES))
@pytest.mark.parametrize("by", ["crm-1", "mail-1"])
@pytest.mark.parametrize("at", [SWITCH - 100, SWITCH + 400, 95 * DAY], ids=["before", "while-both-hold", "afterwards"])
def test_an_erasure_finds_what_is_kept_under_either_name(kind: str, by: str, at: float) -> None:
    pipe = Pipe(BOTH)
    pipe.feed(native("lead_created", 10, "crm-1", also_person="mail-1"), native("lead_handed_over", 20, "mail-1"))
    pipe.feed(b'{"id": "x", "type": "nonsense", "time": 1, "person": "mail-1"}', *visit("mail-1", 30))
    pipe.feed(*visit("bert", 40))
    if at > SWITCH:
        pipe.feed(native("lead_touched", SWITCH + 100, "crm-1"), *visit("mail-1", SWITCH + 300))
    if at > SWITCH + 400:
        pipe.feed(native("lead_created", 93 * DAY, "crm-1"), *visit("mail-1", 94 * DAY + 85_000, session="s"))
        pipe.restart_ingest(NEW)
    names = [pseudonym(raw, key).encode() for raw in ("crm-1", "mail-1") for key in (KEY, OLD_KEY)]
    assert any(name in pipe.kept() for name in names)
    pipe.feed(native(kind, at, by)).until(at + 100)
    assert not [name for name in names if name in pipe.kept()]
    assert pipe.letters == {} and pipe.people() <= {pseudonym("bert", key) for key in (KEY, OLD_KEY)}


def test_who_withdrew_consent_under_the_old_key_stays_so_under_the_new_one() -> None:
    pipe = Pipe(BOTH).feed(*visit("anna", 0), native("consent_withdrawn", 60, "anna")).until(200)
    pipe.feed(*visit("anna", SWITCH + 10), native("lead_created", SWITCH + 20, "anna")).until(SWITCH + 200)
    assert pipe.people() == set() and pipe.total("withdrawn") == 3
    pipe.restart_ingest(NEW)
    pipe.feed(*visit("anna", SWITCH + 300)).until(SWITCH + 500)
    assert pipe.people() == set() and pipe.total("withdrawn") == 5


# ── at the door ───────────────────────────────────────────────────────────────────────────────────────────────────


def scrubbed(at: float, due: float | None = None, settings: Settings = BOTH) -> Event:
    event = Event("m1", "page_viewed", T0 + at, "anna", session="s", page="/a")
    outcome = Privacy.from_settings(settings).scrub(event, None if due is None else T0 + due)
    assert isinstance(outcome, Event)
    return outcome


def test_event_time_decides_which_key_holds() -> None:
    old, new = scrubbed(SWITCH - 1, settings=OLD), scrubbed(SWITCH, settings=NEW)
    assert scrubbed(SWITCH - 1) == old
    changed = scrubbed(SWITCH)
    assert (changed.person, changed.session, changed.page_id) == (new.person, new.session, new.page_id)
    assert changed.former is not None
    assert (changed.former.person, changed.former.session, changed.former.page_id) == (
        old.person, old.session, old.page_id)  # fmt: skip


def test_a_late_event_has_the_new_name_and_the_id_that_its_first_copy_had() -> None:
    late, first = scrubbed(SWITCH - 5, due=SWITCH + 40), scrubbed(SWITCH - 5, due=SWITCH - 5)
    assert late.id == first.id and late.person == pseudonym("anna") != first.person


def test_the_old_name_is_carried_no_longer_than_a_session_lasts() -> None:
    longest = BOTH.time.max_session_s + BOTH.time.session_gap_s
    assert scrubbed(SWITCH + longest - 1).former is not None
    assert scrubbed(SWITCH + longest).former is None


def test_a_dead_letter_is_found_by_either_name_of_whom_it_is_about() -> None:
    for by in (OLD, BOTH, NEW):
        pipe = Pipe(BOTH).feed(b'{"id": "x", "type": "nonsense", "time": 1, "person": "anna"}')
        pipe.restart_ingest(by)
        assert len(pipe.letters) == 1
        assert pipe.feed(native("erasure_requested", 10, "anna")).until(60).letters == {}


def test_without_a_moment_the_new_key_holds_at_once() -> None:
    at_once = settings_with(privacy={"previous_key": OLD_KEY})
    assert scrubbed(-1e6, settings=at_once).person == pseudonym("anna")


# ── settings and checkpoints ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ({"previous_key": "short"}, "privacy.previous_key must have 16 characters"),
        ({"previous_key": KEY}, "privacy.previous_key needs a privacy.pseudonym_key that is another one"),
        ({"rotate_at": AT}, "privacy.rotate_at needs privacy.previous_key"),
        ({"previous_key": OLD_KEY, "rotate_at": "2026-01-01T00:00:00"}, "privacy.rotate_at"),
        ({"scrub": ["a("]}, r"privacy.scrub\[0\]"),
    ],
    ids=["short", "the-same", "moment-without-key", "moment-without-zone", "no-regular-expression"],
)
def test_a_wrong_rotation_names_its_knob(privacy: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Privacy.from_settings(load_settings(privacy={"pseudonym_key": KEY} | privacy))


def test_checkpoints_are_taken_up_by_workers_that_know_either_key_or_both() -> None:
    state = Checkpoint(7, b"state")
    keys = {name: (require_key(s), former_key(s)) for name, s in (("old", OLD), ("both", BOTH), ("new", NEW))}
    written = {name: dict(to_records(state, "n", 3, "t[0]", *known)) for name, known in keys.items()}
    for reader, writer in (("old", "both"), ("both", "old"), ("both", "both"), ("new", "both"), ("both", "new")):
        assert from_records(written[writer], "t[0]", *keys[reader]) == state, (reader, writer)
    for reader, writer in (("new", "old"), ("old", "new")):
        with pytest.raises(CheckpointRefused, match=r"privacy\.previous_key"):
            from_records(written[writer], "t[0]", *keys[reader])
