"""Frames of one events partition → counts: watermark, order, duplicates, sessions and leads.

Events wait until the watermark has passed them, then they are processed in event-time order. So the result does not
depend on arrival order, frame borders, rebalances or the number of workers. What concerns sessions is worked off in
slices of a bucket, as the watermark moves: a bucket that was worked off as a whole would keep everything behind it
waiting for as long as that takes. What concerns leads, and what falls due, comes at the end of the bucket, which leaves
for detection then.

The watermark of a partition is the least time that any of its sources has reached, minus the lateness; idle sources do
not count. It moves only with frames, never with a clock: after a crash the same frames give the same state.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from math import ceil
from operator import attrgetter
from sys import intern
from typing import Final
from zlib import crc32

import msgspec

from detectors._stages import LEADS
from detectors._step_model import StepModel
from streams.across import Across
from streams.checkpoints import pack, unpack
from streams.combine import Combiner, Labels, Named
from streams.customers import CUSTOMER_TYPES, Customer, Customers
from streams.customers import merged as merged_customers
from streams.erasure import Erased, Letters, Remembered, Withdrawn, number_of
from streams.errors import CheckpointRefused
from streams.events import (
    CRM_TYPES,
    FORGET_TYPES,
    LINKED,
    NOTE,
    RANK,
    RENAMED,
    TOLD_TYPES,
    WEB_TYPES,
    Event,
    Former,
)
from streams.frames import NEVER, SLICES, UNREADABLE, Cell, Counts, Frame, Item, Mark, Place, Section, letter_id
from streams.identity import Identity, Links, window_of
from streams.journey import Journey
from streams.leads import LEAD_TYPES, Lead, Leads, merged
from streams.said import CONTROL, Said, id_of
from streams.sessions import Counter, Session, Sessions
from streams.settings import Settings
from streams.tracking import DEVICE, Tracker, TrackingState

STATE_VERSION: Final = 6
LATER_S: Final = 60.0
"""What is to be counted at a moment ahead waits for the full minute: fewer, larger cells to keep and to send."""
SAID_AGAIN: Final = frozenset({LINKED, RENAMED})
"""Events that ingest makes, and may make again after a crash."""
TOLD: Final = FORGET_TYPES | SAID_AGAIN
"""Events that say something of a person, and are none of what a person does."""
MOST_SAID: Final = 50
"""Control events of one bucket that are told on: people say few things, and a program that says many is at fault."""
FAR_S: Final = 1e12
"""No event time is that far from 1970; what is came from another writer, and would break the arithmetic."""
log = logging.getLogger(__name__)


class Source(msgspec.Struct, array_like=True):
    """How far one source has come in this partition.

    Attributes:
        time: event time it has reached, seconds.
        idle: it is caught up and quiet.
        place: its last item applied or counted here; older ones are re-reads of ingest after a crash.
        outcomes: `applied`, `duplicate`, `late` or `dead_letter` → items counted here.
    """

    time: float = NEVER
    idle: bool = False
    place: Place = Place(-1, -1)
    outcomes: dict[str, int] = {}

    def count(self, outcome: str, items: int = 1) -> None:
        """Count items."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + items


class Totals(msgspec.Struct, array_like=True):
    """Every consumed item ends in exactly one of these, once, whatever crashed in between.

    Attributes:
        applied: events taken up.
        duplicate: events whose id was seen within the dedupe window.
        late: web events older than the watermark allows.
        dead_letters: reason → items that are no event.
        repeats: items that ingest read again after a crash; not consumed twice, so not part of the sum.
        steps: steps begun.
        evicted: sessions, leads and customers let go early, because a limit was reached.
        forced: times the watermark was pushed, because too many events were waiting.
        forgotten: sessions, leads and customers that were erased on request.
        failed: times our own code raised on one person: a bug; their session and lead were let go.
        unremembered: applied events whose repeats will not be recognised, because a limit was reached.
        moved: sessions that went on under another id of the same person; no drop.
        withdrawn: applied events that were dropped, because their person withdrew consent, or was erased after them.
    """

    applied: int = 0
    duplicate: int = 0
    late: int = 0
    dead_letters: dict[str, int] = {}
    repeats: int = 0
    steps: int = 0
    evicted: int = 0
    forced: int = 0
    forgotten: int = 0
    failed: int = 0
    unremembered: int = 0
    moved: int = 0
    withdrawn: int = 0

    @property
    def consumed(self) -> int:
        """Items consumed: applied + duplicate + late + dead-lettered."""
        return self.applied + self.duplicate + self.late + sum(self.dead_letters.values())


class State(msgspec.Struct, array_like=True):
    """All that one partition knows; this is what a checkpoint holds.

    Attributes:
        watermark: event time reached, seconds.
        sent: watermark of the last counts that were sent.
        sources: `topic/partition` → how far it has come.
        expected: partitions of each raw topic.
        pending: bucket number → events that wait for its end: those that may concern leads.
        slices: number of a `SLICES`th of a bucket → events that wait for its end: those that may concern sessions.
        ids: bucket number → hashes of the event ids in it, for the dedupe window.
        sessions: person → open session.
        leads: person → lead.
        later: bucket number → what is to be counted in it, known already; in the order of `(stage, cohort)`.
        models: stage → state of its model.
        counting: what was counted in the bucket that is being worked off.
        labels: label → values that kept their name.
        totals: the accounting.
        links: which ids are one person's.
        remembered: what erasures need to know.
        tracking: what events are like, in windows that have not left yet.
        customers: person → what they were sent and got.
    """

    watermark: float = NEVER
    sent: float = NEVER
    sources: dict[str, Source] = {}
    expected: dict[str, int] = {}
    pending: dict[int, list[Event]] = {}
    slices: dict[int, list[Event]] = {}
    ids: dict[int, list[int]] = {}
    sessions: dict[str, Session] = {}
    leads: dict[str, Lead] = {}
    later: dict[int, list[Named]] = {}
    counting: list[Named] = []
    models: dict[str, bytes] = {}
    labels: dict[str, list[str]] = {}
    totals: Totals = msgspec.field(default_factory=Totals)
    links: Links = msgspec.field(default_factory=Links)
    remembered: Remembered = msgspec.field(default_factory=Remembered)
    tracking: TrackingState = msgspec.field(default_factory=TrackingState)
    customers: dict[str, Customer] = {}


class Sessionizer:
    """The sessionize stage of one events partition.

    Args:
        settings: all knobs.
        journey: stages.
        new_model: makes the hesitation model of a stage.
        partition: number of the events partition.

    Attributes:
        identity: which ids are one person's.
        released: ids of the dead letters that the frame applied last asks to delete.
    """

    def __init__(
        self, settings: Settings, journey: Journey, new_model: Callable[[], StepModel], partition: int
    ) -> None:
        self._settings = settings
        self._partition = partition
        self._bucket_s = settings.time.bucket_s
        self._slice_s = settings.time.bucket_s / SLICES
        self._new_model = new_model
        self._labels = Labels(settings.segments)
        self._combiner = Combiner()
        self._tracker = Tracker(settings, journey)
        self._models: dict[str, StepModel] = {}
        counter = Counter(self._combiner.add_each, self._count_later, self._combiner.add)
        self._sessions = Sessions(settings, journey, counter, self._models, new_model)
        self._across = Across(journey.stages)
        self._leads = Leads(settings.leads, self._count_lead)
        self._customers = Customers(settings.customers, self._count_customer)
        self._later: dict[int, array[int]] = {}
        self._closing = -int(FAR_S)
        self._timers: dict[int, dict[str, None]] = {}
        self._lead_timers: dict[int, dict[str, None]] = {}
        self._customer_timers: dict[int, dict[str, None]] = {}
        self._dedupe_buckets = int(settings.time.dedupe_window_s // settings.time.bucket_s)
        self._agenda: list[int] = []
        self._planned: set[int] = set()
        self._seen: dict[int, int] = {}
        self._pending_events = 0
        self._waiting: dict[int, tuple[int, list[Event]]] = {}  # slice → its bucket, and what waits in it
        self.identity = Identity(settings.limits.links)
        self._letters = Letters(settings.limits.dead_letters)
        self._withdrawn = Withdrawn(settings.limits.withdrawn)
        self._erased = Erased(settings.limits.withdrawn)
        self.released: list[str] = []
        self._said: list[str] = []
        self.state = State()

    @property
    def pending_events(self) -> int:
        """Events that wait for the watermark."""
        return self._pending_events

    @property
    def overflowed_labels(self) -> int:
        """Labellings that were folded into `other` since the state was loaded."""
        return self._labels.overflowed

    @property
    def models(self) -> Mapping[str, StepModel]:
        """Stage → its model."""
        return self._models

    @property
    def remembered_ids(self) -> int:
        """Event ids in the dedupe window."""
        return len(self._seen)

    # ── the line: take up a frame, move the watermark, close buckets ──────────────────────────────────────────────

    def apply(self, frame: Frame, offset: int) -> Counts | None:
        """Take up one frame.

        Args:
            frame: decoded frame of this partition.
            offset: its offset, ascending.

        Returns:
            The buckets that it closed, or None if it closed none and there is no new watermark worth telling.
        """
        self.released = []
        self._expect(frame.sources)
        for section in frame.sections:
            self._take(section)
        self._move_watermark()
        cells = self._close_buckets()
        return self._tell(cells, offset, frame.written)

    def _expect(self, sources: dict[str, int]) -> None:
        state = self.state
        if sources == state.expected:
            return
        state.expected = sources
        names = {f"{topic}/{partition}" for topic, count in sources.items() for partition in range(count)}
        state.sources = {name: state.sources.get(name, Source()) for name in sorted(names)}

    def _take(self, section: Section) -> None:
        source = self.state.sources.get(section.source)
        if source is None:  # a topic that is no longer read: its events still count, its clock does not
            source = Source()
        for mark in section.marks:
            self._count_mark(source, mark, section.source)
            if mark.person:
                self._note_letter(letter_id(section.source, mark.place), mark, again=mark.place <= source.place)
        self._admit(source, section)
        for echo in section.echoes:
            if echo.place > source.place and abs(echo.due) < FAR_S:
                at, event = max(int(echo.due // self._slice_s), self._first_open()), echo.event
                self._wait(event, at, visits=event.type in TOLD)  # what else is told concerns leads only
        ends = (section.marks, section.items, section.echoes)
        source.place = max([source.place, *(things[-1].place for things in ends if things)])
        if section.time < FAR_S:
            source.time = max(source.time, section.time)
        source.idle = section.idle

    def _count_mark(self, source: Source, mark: Mark, name: str) -> None:
        if mark.place <= source.place:
            self.state.totals.repeats += 1
            return
        self._account(source, mark.outcome, mark.reason)
        if abs(mark.time) < FAR_S:
            at = max(int(mark.time // self._slice_s), self._first_open())
            self._track(name, at, *(("late",) if mark.outcome == "late" else ("dead", mark.reason)))

    def _track(self, source: str, at: int, *what: str) -> None:
        """Tell tracking of an item that is no event to apply, at this slice."""
        bucket = at // SLICES
        self._tracker.note(source, bucket, *what)
        self._plan(self._tracker.last_bucket(bucket))

    def _note_letter(self, letter: str, mark: Mark, *, again: bool) -> None:
        """Remember whom a dead letter is about; one of somebody who is to be forgotten goes at once.

        Ingest writes letters again that it reads again after a crash, also one that was deleted meanwhile.
        """
        unwanted = mark.person in self._withdrawn or mark.former in self._withdrawn
        if unwanted or (again and letter not in self._letters):
            self.released.append(letter)
        elif not again:
            self._letters.remember(letter, (mark.person, mark.former) if mark.former else (mark.person,))

    def _account(self, source: Source, outcome: str, reason: str = "") -> None:
        """Every consumed item comes here once."""
        totals = self.state.totals
        source.count(outcome)
        if outcome == "dead_letter":
            totals.dead_letters[reason] = totals.dead_letters.get(reason, 0) + 1
        else:
            setattr(totals, outcome, getattr(totals, outcome) + 1)

    def _admit(self, source: Source, section: Section) -> None:
        """Take up the items of a section: each waits for the watermark, or is counted as what else it is."""
        state, seen, slice_s = self.state, self._seen, self._slice_s
        watermark, first_open, fresh = state.watermark, self._first_open(), list[tuple[int, Event]]()
        salt = crc32(section.source.rpartition("/")[0].encode())  # ids are unique within their topic only
        for item in self._not_repeated(source, section.items):
            event, due = item.event, item.due
            if not -FAR_S < due < FAR_S:
                self._account(source, "dead_letter", "bad_time")
                continue
            number = number_of(event.id) ^ salt
            at = int(due // slice_s)
            first = seen.get(number)
            if first is not None and at // SLICES - first <= self._dedupe_buckets:
                self._account(source, "duplicate")
                self._track(section.source, at if at > first_open else first_open, "dup")
            elif due < watermark and event.type in WEB_TYPES:
                self._account(source, "late")
                self._track(section.source, first_open, "late")
            else:
                bucket = self._wait(event, at if at > first_open else first_open)
                self._remember(number, bucket)
                fresh.append((bucket, event))
        if fresh:
            state.totals.applied += len(fresh)
            source.count("applied", len(fresh))
            self._tracker.take(section.source, fresh)

    def _not_repeated(self, source: Source, items: list[Item]) -> list[Item]:
        """The items that were not taken up before; ingest reads some again after a crash. Places ascend."""
        done = source.place
        if not items or items[0].place > done:
            return items
        fresh = [item for item in items if item.place > done]
        self.state.totals.repeats += len(items) - len(fresh)
        return fresh

    def _wait(self, event: Event, at: int, *, visits: bool = True) -> int:
        """Keep an event until the watermark has passed its slice; returns the bucket, one object for all in it."""
        waiting = self._waiting.get(at)
        if waiting is None:
            waiting = self._waiting[at] = (at // SLICES, self.state.slices.setdefault(at, []))
            self._plan(waiting[0])
            self._plan(self._tracker.last_bucket(waiting[0]))
        bucket, events = waiting
        if visits and event.type not in CRM_TYPES:
            events.append(event)
            self._pending_events += 1
        if event.type not in WEB_TYPES:
            self.state.pending.setdefault(bucket, []).append(event)
            self._pending_events += 1
        return bucket

    def _remember(self, number: int, bucket: int) -> None:
        """Keep the id of an event as long as repeats of it may come."""
        if len(self._seen) >= self._settings.limits.dedupe_ids:
            self.state.totals.unremembered += 1
            return
        self._seen[number] = bucket
        self.state.ids.setdefault(bucket, []).append(number)

    def _first_open(self) -> int:
        """The first slice that the watermark has not passed."""
        return int(self.state.watermark // self._slice_s) if self.state.watermark > -FAR_S else -int(FAR_S)

    def _move_watermark(self) -> None:
        state = self.state
        sources = state.sources.values()
        busy = [source.time for source in sources if not source.idle]
        reached = min(busy) if busy else max((source.time for source in sources), default=NEVER)
        state.watermark = max(state.watermark, reached - self._settings.time.allowed_lateness_s)
        if self._pending_events > self._settings.limits.pending_events:
            self._force_watermark()

    def _force_watermark(self) -> None:
        """Memory is bounded: the oldest buckets close although a source may still have something for them."""
        state, waiting = self.state, self._pending_events
        held = {bucket: len(events) for bucket, events in state.pending.items()}
        for at, events in state.slices.items():
            held[at // SLICES] = held.get(at // SLICES, 0) + len(events)
        for bucket in sorted(held):
            waiting -= held[bucket]
            state.watermark = max(state.watermark, (bucket + 1) * self._bucket_s)
            state.totals.forced += 1
            if waiting <= self._settings.limits.pending_events:
                return

    def _close_buckets(self) -> list[Cell]:
        """Work off all slices that the watermark has passed, and close the buckets that it has passed."""
        cells = list[Cell]()
        if self.state.watermark == NEVER:
            return cells
        reached = self._first_open()
        limit = reached // SLICES
        while self._agenda and self._agenda[0] < limit:
            bucket = heappop(self._agenda)
            self._planned.discard(bucket)
            self._work_off(bucket, (bucket + 1) * SLICES)
            self._close_bucket(bucket)
            closed = self._combiner.close(bucket * self._bucket_s)
            cells.extend(closed)
            cells.extend(self._across.cells(bucket * self._bucket_s, closed))
            cells.extend(self._tracker.close(bucket))
            if self._said:
                cells.append(self._tell_said(bucket))
            if self._combiner.is_crowded:
                self._recode()
        self._work_off(limit, reached)
        self._forget_ids(limit)
        return cells

    def _plan(self, bucket: int) -> None:
        """Something happens in this bucket: it will have to be closed."""
        if bucket not in self._planned:
            self._planned.add(bucket)
            heappush(self._agenda, bucket)

    def _tell(self, cells: list[Cell], offset: int, written: float) -> Counts | None:
        state = self.state
        closed = state.watermark // self._bucket_s * self._bucket_s if state.watermark != NEVER else NEVER
        if not cells and closed <= state.sent:
            return None
        state.sent = closed
        return Counts(self._partition, offset, closed, cells, written)

    # ── one bucket ────────────────────────────────────────────────────────────────────────────────────────────────

    def _work_off(self, bucket: int, until: int) -> None:
        """Process what happened to sessions in a bucket, in event-time order, before the slice `until`."""
        self._closing = bucket
        for at in range(bucket * SLICES, until):
            if self._waiting.pop(at, None) is not None:
                events = self.state.slices.pop(at)
                self._tracker.repeats(bucket, [event for event in events if event.type not in TOLD])
                self._process(events, self._session_event, bucket)

    def _close_bucket(self, bucket: int) -> None:
        """Process what happened to leads in a bucket, in event-time order, then all that fell due in it."""
        self._process(self.state.pending.pop(bucket, []), self._lead_event, bucket)
        end = (bucket + 1) * self._bucket_s
        for person in sorted(self._timers.pop(bucket, ())):
            session = self.state.sessions.get(person)
            if session is not None and session.timer == bucket:
                session.timer = None
                try:
                    self._look_at(session, end, bucket)
                except Exception as error:
                    self._let_go(person, error)
        for timers, judge in ((self._lead_timers, self._judge_lead), (self._customer_timers, self._judge_customer)):
            for person in sorted(timers.pop(bucket, ())):
                try:
                    judge(person, end, bucket)
                except Exception as error:
                    self._let_go(person, error)
        if (later := self._later.pop(bucket, None)) is not None:
            self._combiner.add_codes(later)

    def _let_go(self, person: str, error: Exception) -> None:
        """What we fail on for one person must not stop everyone's line: count it, let go of them, go on."""
        totals = self.state.totals
        totals.failed += 1
        self.state.sessions.pop(person, None)
        self.state.leads.pop(person, None)
        self.state.customers.pop(person, None)
        # The traceback once: it is the same bug every time.
        log.error(
            "sessionize[%d]: %s", self._partition, type(error).__name__, exc_info=error if totals.failed == 1 else None
        )

    def _process(self, events: list[Event], take: Callable[[Event, int], None], bucket: int) -> None:
        self._pending_events -= len(events)
        for event in _in_order(events):
            try:
                take(event, bucket)
            except Exception as error:
                self._let_go(event.person, error)

    def _session_event(self, event: Event, bucket: int) -> None:
        kind = event.type
        if self._withdrawn and kind not in TOLD and self._withdrawn.covers(event.person, bucket, event.time):
            self.state.totals.withdrawn += 1
            return
        if event.former is not None:
            event = self._as_before(event, event.former, bucket)
        if kind in WEB_TYPES:
            self._visit(event, bucket)
        elif kind in FORGET_TYPES:
            self._forget_visits(event, bucket)
        elif kind not in TOLD:
            self._attach(event, bucket)
        elif self._withdrawn:
            self._withdraw_also(event, bucket)

    def _as_before(self, event: Event, former: Former, bucket: int) -> Event:
        """The event under the previous key, if it goes on with a session that began under it."""
        session = self.state.sessions.get(former.person)
        if session is None:
            return event
        person, given, page_id = former.person, former.session, former.page_id
        before = msgspec.structs.replace(event, person=person, session=given, page_id=page_id, former=None)
        if event.type in WEB_TYPES and self._is_over(session, before, bucket):
            self._end(session)
            return event
        return before

    def _visit(self, event: Event, bucket: int) -> None:
        state, person, cut = self.state, event.person, False
        session = state.sessions.get(person)
        if session is not None and self._is_over(session, event, bucket):
            cut = event.time - session.last <= self._settings.time.session_gap_s
            self._end(session)
            session = None
        if session is None:
            self._make_room()
            self._tracker.begin(bucket, event, cut=cut)
            session = state.sessions[person] = Session(person, event.session, event.time, event.time)
        if not session.cohort or not event.segment.keys() <= session.segment.keys():
            self._label(session, event)
        steps, before = session.steps, session.reached if session.step is None else session.step.stage
        self._sessions.apply(session, event)
        if session.steps != steps:
            state.totals.steps += 1
            self._cross(session, before, bucket)
            self._set_timer(session, self._sessions.next_due(session), bucket)
        elif session.timer is None:  # nothing but a new step falls due earlier than what did
            self._set_timer(session, self._sessions.next_due(session), bucket)

    def _cross(self, session: Session, before: str | None, bucket: int) -> None:
        """Tell tracking which stages were got past, whatever was seen of them."""
        after = session.reached if session.step is None else session.step.stage
        if before is not None and after is not None:
            self._tracker.cross(bucket, before, after, session.segment.get(DEVICE, ""))

    def _is_over(self, session: Session, event: Event, bucket: int) -> bool:
        """Do what fell due before the event; whether the event belongs to another session."""
        if session.timer is None or session.timer <= bucket:
            if self._sessions.advance(session, event.time) is None:
                return True
        return not self._sessions.belongs(session, event)

    def _end(self, session: Session) -> None:
        """Close what is still open (a session that advanced to its end is closed already) and forget it."""
        self._sessions.close(session)
        del self.state.sessions[session.person]

    def _label(self, session: Session, event: Event) -> None:
        known = self._labels.know({**event.segment, **session.segment})
        session.segment, session.cohort = known.labels, known.cohort

    def _attach(self, event: Event, bucket: int) -> None:
        """An event that nobody mapped lives in an open session, but begins none."""
        session = self.state.sessions.get(event.person)
        if session is not None and event.time >= session.last and self._sessions.belongs(session, event):
            self._visit(event, bucket)

    def _look_at(self, session: Session, end: float, bucket: int) -> None:
        due = self._sessions.advance(session, end)
        if due is None:
            del self.state.sessions[session.person]
        else:
            self._set_timer(session, due, bucket + 1)  # even where rounding puts a border moment into this bucket

    def _set_timer(self, session: Session, due: float, bucket: int) -> None:
        """Make sure that the session is looked at when it is next due; an earlier look is kept, it will renew."""
        at = max(bucket, int(due // self._bucket_s))
        if session.timer is None or at < session.timer:
            session.timer = at
            timers = self._timers.get(at)
            if timers is None:
                timers = self._timers[at] = {}
                self._plan(at)
            timers[session.person] = None

    def _make_room(self) -> None:
        sessions = self.state.sessions
        while len(sessions) >= self._settings.limits.open_sessions:
            self.state.totals.evicted += 1
            self._end(next(iter(sessions.values())))

    # ── people: erasure, withdrawn consent, several ids ───────────────────────────────────────────────────────────

    def _ids(self, event: Event) -> dict[str, None]:
        """All ids of the person that an event is about, as far as links tell."""
        also = event.also_person
        named = (event.person,) if also is None else (event.person, also)
        return {person: None for one in named for person in self.identity.group(one)}

    def _forget_visits(self, event: Event, bucket: int) -> None:
        """Erase the session of a person at this moment; what they do later begins a new one."""
        if self._is_done(event):
            return
        ids = self._ids(event)
        for person in ids:
            self.state.totals.forgotten += self.state.sessions.pop(person, None) is not None
        if event.type == "consent_withdrawn":
            self._withdrawn.add(ids, (bucket, event.time))

    def _forget(self, event: Event, bucket: int) -> None:
        """Erase all else that is known of a person, at the end of the bucket, when all links in it are known."""
        state, ids = self.state, self._ids(event)
        if self._is_done(event):
            return
        for person in ids:
            state.totals.forgotten += state.leads.pop(person, None) is not None
            state.totals.forgotten += state.customers.pop(person, None) is not None
            session = state.sessions.get(person)
            if session is not None and session.start <= event.time:  # linked in this very bucket
                del state.sessions[person]
                state.totals.forgotten += 1
        self.released += self._letters.forget(ids)
        self.identity.forget(ids)
        if event.type == "consent_withdrawn":
            self._withdrawn.add(ids, (bucket, event.time))
        else:
            self._erased.add(ids, (bucket, event.time))

    def _is_done(self, event: Event) -> bool:
        """Whether an erasure was carried out already: it was sent twice, or is told by another name of the person."""
        named = {event.person, event.also_person or event.person}
        return event.type == "erasure_requested" and all(self._erased.before(one, event.time) for one in named)

    def _withdraw_also(self, event: Event, bucket: int) -> None:
        """Whoever is linked to somebody who withdrew consent is the same person, and so withdrew it, too."""
        ids = self._ids(event)
        if any(person in self._withdrawn for person in ids) and not self._is_unlinked(event, bucket):
            self._withdrawn.add(ids, (bucket, event.time))

    def _link(self, event: Event, bucket: int) -> None:
        """From now on `person` and `also_person` are one, and so are their leads.

        A visit goes on under the first id: the session of the second ends here without a drop, unless it goes on by
        itself. (A session under the previous key always does, see `_as_before`.)
        """
        one, other = event.person, event.also_person or event.person
        renamed = event.type == RENAMED
        if self._is_unlinked(event, bucket):
            return
        if one in self._withdrawn or other in self._withdrawn:
            self._forget(msgspec.structs.replace(event, type="consent_withdrawn"), bucket)
            return
        known = other in self.identity or other in self.state.leads or other in self.state.customers
        if renamed and not known:
            return  # nothing is known of them that would outlive their session
        before = (self.identity.canonical(one), self.identity.canonical(other))
        if not self.identity.join(one, other, window_of(bucket, self._bucket_s)):
            return
        session = None if renamed else self.state.sessions.get(other)
        if session is not None and session.last <= event.time:
            del self.state.sessions[other]
            self.state.totals.moved += 1
        self._unite(before, bucket)

    def _is_unlinked(self, event: Event, bucket: int) -> bool:
        """Whether ids are not to be joined: one was erased after this happened, or in this very window.

        The door may have said it before and not say it again so soon, or may have forgotten that and say it: the result
        must be the same.
        """
        if not self._erased or event.type == RENAMED:
            return False
        window = window_of(bucket, self._bucket_s)
        for person in (event.person, event.also_person or event.person):
            erased = self._erased.bucket(person)
            if erased is not None and (
                window_of(erased, self._bucket_s) == window or self._erased.before(person, event.time)
            ):
                return True
        return False

    def _unite(self, people: tuple[str, str], bucket: int) -> None:
        """The leads of two people who turned out to be one become one lead; likewise what they got."""
        leads = [lead for person in people if (lead := self.state.leads.pop(person, None)) is not None]
        if leads:
            lead = merged(leads[0], leads[-1], self.identity.canonical(people[0]))
            self.state.leads[lead.person] = lead
            self._set_lead_timers(lead, bucket)
        found = [one for person in people if (one := self.state.customers.pop(person, None)) is not None]
        if found:
            customer = merged_customers(found[0], found[-1], self.identity.canonical(people[0]))
            self.state.customers[customer.person] = customer
            self._set_customer_timer(customer, bucket)

    # ── leads ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _lead_event(self, event: Event, bucket: int) -> None:
        leads, person = self.state.leads, self.identity.canonical(event.person)
        if event.type in TOLD:
            (self._forget if event.type in FORGET_TYPES else self._link)(event, bucket)
            return
        if self._withdrawn and self._withdrawn.covers(event.person, bucket, event.time):
            self.state.totals.withdrawn += event.type in CRM_TYPES  # others were counted with the sessions
            return
        if self._erased and self._erased.before(event.person, event.time):  # late news of somebody who was erased since
            self.state.totals.withdrawn += event.type in CRM_TYPES
            return
        if event.type in CUSTOMER_TYPES:
            self._customer_event(event, person, bucket)
            return
        lead = leads.get(person)
        if event.type not in LEAD_TYPES:
            if event.type in TOLD_TYPES:
                self._hear(event)
            if lead is not None and event.type not in CRM_TYPES:  # nobody mapped it, but it may tell a label
                self._leads.apply(lead, event)
            return
        if lead is None:
            if len(leads) >= self._settings.limits.open_leads:
                del leads[next(iter(leads))]
                self.state.totals.evicted += 1
            lead = leads[person] = Lead(person, event.time)
            self._set_lead_timers(lead, bucket)
        if self._leads.apply(lead, event):
            self._set_lead_timers(lead, bucket)

    def _hear(self, event: Event) -> None:
        """Somebody said something: judges are told when the bucket closes."""
        if len(self._said) == MOST_SAID:
            log.warning("sessionize[%d]: more than %d control events at once; passed over", self._partition, MOST_SAID)
        what, note = event.properties.get("what"), event.properties.get(NOTE, "")
        if len(self._said) < MOST_SAID and isinstance(what, str):
            self._said.append(Said(event.type, event.time, id_of(what), str(note)).field)

    def _tell_said(self, bucket: int) -> Cell:
        said, self._said = self._said, []
        return Cell(bucket * self._bucket_s, CONTROL, (), dict.fromkeys(said, 1))

    def _judge_lead(self, person: str, end: float, bucket: int) -> None:
        lead = self.state.leads.get(person)
        if lead is not None and self._leads.judge(lead, end):
            del self.state.leads[person]

    def _set_lead_timers(self, lead: Lead, bucket: int) -> None:
        for due in self._leads.deadlines(lead):
            at = max(bucket, int(due // self._bucket_s))
            self._lead_timers.setdefault(at, {})[lead.person] = None
            self._plan(at)

    # ── customers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _customer_event(self, event: Event, person: str, bucket: int) -> None:
        customers = self.state.customers
        customer = customers.get(person)
        if customer is None:
            if len(customers) >= self._settings.limits.customers:
                del customers[next(iter(customers))]
                self.state.totals.evicted += 1
            customer = customers[person] = Customer(person, event.time)
        self._customers.apply(customer, event)
        self._set_customer_timer(customer, bucket)

    def _judge_customer(self, person: str, end: float, bucket: int) -> None:
        customer = self.state.customers.get(person)
        if customer is None or customer.timer != bucket:
            return
        customer.timer = None
        if self._customers.judge(customer, end):
            del self.state.customers[person]
        else:
            self._set_customer_timer(customer, bucket + 1)

    def _set_customer_timer(self, customer: Customer, bucket: int) -> None:
        """Make sure that somebody is looked at when they are next due; an earlier look is kept, it will renew."""
        at = max(bucket, int(self._customers.next_due(customer) // self._bucket_s))
        if customer.timer is None or at < customer.timer:
            customer.timer = at
            self._customer_timers.setdefault(at, {})[customer.person] = None
            self._plan(at)

    # ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _count_later(self, due: float, stage: str, cohort: str, field: str) -> None:
        """Count one at the first full minute from `due` on; now, if that has gone by."""
        bucket = max(self._closing, int(ceil(due / LATER_S) * LATER_S // self._bucket_s))
        codes = self._later.get(bucket)
        if codes is None:
            codes = self._later[bucket] = array("q")
            if bucket != self._closing:
                self._plan(bucket)
        codes.append(self._combiner.code(stage, cohort, field))

    def _recode(self) -> None:
        """Forget which (stage, cohort) were seen, but for those that something is still to be counted for."""
        later = {bucket: self._combiner.named(codes) for bucket, codes in self._later.items()}
        self._combiner.forget()
        self._later = {bucket: self._combiner.codes(named) for bucket, named in later.items()}

    def _count_lead(self, lead: Lead, field: str, count: int) -> None:
        self._combiner.add(LEADS, self._labels.know(dict(lead.segment), of=LEADS).cohort, field, count)

    def _count_customer(self, customer: Customer, stage: str, field: str, count: int) -> None:
        self._combiner.add(stage, self._labels.know(dict(customer.segment), of=stage).cohort, field, count)

    def _forget_ids(self, limit: int) -> None:
        state = self.state
        for bucket in [bucket for bucket in state.ids if bucket < limit - self._dedupe_buckets]:
            for number in state.ids.pop(bucket):
                if self._seen.get(number) == bucket:
                    del self._seen[number]

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """The state as msgpack; equal states give equal bytes only through `digest_part`."""
        self._gather()
        return pack(STATE_VERSION, self._parameters(), self.state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            CheckpointRefused: it is no such state, or one of another version or other parameters.
        """
        where = f"sessionize[{self._partition}]"
        state = unpack(blob, State, STATE_VERSION, self._parameters(), where)
        try:
            self._adopt(state)
        except UNREADABLE as error:  # the models within
            raise CheckpointRefused(f"state of {where} cannot be read: {error}") from error

    def digest_part(self) -> bytes:
        """Canonical bytes of what the results depend on: sessions, leads, models, waiting events, accounting.

        Left out is what only says how far we have read (watermark, offsets, remembered ids and letters), `repeats`, and
        links that wait: ingest may say them more often than once.
        """
        self._gather()
        state = self.state
        totals = msgspec.structs.replace(state.totals, repeats=0)
        sessions = {person: msgspec.structs.replace(session, timer=None) for person, session in state.sessions.items()}
        customers = {who: msgspec.structs.replace(one, timer=None) for who, one in state.customers.items()}
        pending = [
            {number: sorted(events, key=_order) for number, every in waiting.items()
             if (events := [one for one in every if one.type not in SAID_AGAIN])}
            for waiting in (state.pending, state.slices)
        ]  # fmt: skip
        groups = sorted(state.links.groups)
        withdrawn, erased = sorted(state.remembered.withdrawn.items()), sorted(state.remembered.erased.items())
        parts = (
            sessions, state.leads, state.later, state.models, pending, state.labels, totals, state.counting,
            groups, withdrawn, erased, customers, state.tracking,
        )  # fmt: skip
        return msgspec.json.encode([_sorted(part) for part in parts])

    def _gather(self) -> None:
        self.state.later = {bucket: self._combiner.named(codes) for bucket, codes in sorted(self._later.items())}
        self.state.counting = self._combiner.counting()
        self.state.models = {stage: self._models[stage].snapshot() for stage in sorted(self._models)}
        self.state.labels = {label: list(values) for label, values in self._labels.values.items()}
        self.state.links = self.identity.snapshot()
        self.state.tracking = self._tracker.snapshot()
        self.state.remembered = Remembered(self._letters.about, self._withdrawn.since, self._erased.at)

    def _adopt(self, state: State) -> None:
        self.state = state
        self._models.clear()
        for stage, blob in state.models.items():
            self._models[stage] = self._new_model()
            self._models[stage].restore(blob)
        self._labels.adopt(state.labels)
        self.identity.adopt(state.links)
        self._tracker.adopt(state.tracking)
        self._letters.adopt(state.remembered.letters)
        self._withdrawn.adopt(state.remembered.withdrawn)
        self._erased.adopt(state.remembered.erased)
        self._seen = {number: bucket for bucket, numbers in sorted(state.ids.items()) for number in numbers}
        self._pending_events = sum(map(len, [*state.pending.values(), *state.slices.values()]))
        self._waiting = {at: (at // SLICES, events) for at, events in state.slices.items()}
        self._combiner.count(state.counting)
        self._later = {bucket: self._combiner.codes(named) for bucket, named in state.later.items()}
        self._timers, self._lead_timers, self._customer_timers = {}, {}, {}
        state.sessions = {session.person: self._share(session) for session in state.sessions.values()}
        for person, session in state.sessions.items():
            if session.timer is not None:
                self._timers.setdefault(session.timer, {})[person] = None
        first_open = 0 if state.watermark == NEVER else self._first_open() // SLICES
        for lead in state.leads.values():
            self._set_lead_timers(lead, first_open)
        for customer in state.customers.values():
            if customer.timer is not None:
                self._customer_timers.setdefault(customer.timer, {})[customer.person] = None
        waiting = {bucket for bucket, _ in self._waiting.values()} | ({first_open} if state.counting else set())
        self._planned = {
            *waiting,
            *state.pending,
            *self._timers,
            *self._lead_timers,
            *self._customer_timers,
            *self._later,
        }
        self._planned.update(self._tracker.planned())
        self._agenda = sorted(self._planned)

    def _share(self, session: Session) -> Session:
        """One object for what many sessions have in common, as it was before the state was stored: half the memory."""
        if session.cohort:
            known = self._labels.know(session.segment, again=True)
            session.segment, session.cohort = known.labels, known.cohort
        if session.step is not None:
            session.step.stage = intern(session.step.stage)
        for view in session.traces.views:
            view.page = intern(view.page)
        return session

    def _parameters(self) -> str:
        """What a state depends on; a state of other parameters would be misread."""
        settings = self._settings
        return msgspec.json.encode([
            settings.topics.events_partitions, settings.time.bucket_s, list(settings.time.dwell_marks_s),
            settings.leads.score_min, settings.leads.score_max, settings.leads.score_bins,
            list(settings.leads.touch_marks_h),
        ]).decode()  # fmt: skip


_WHEN_AND_WHO: Final = attrgetter("time", "person")


def _order(event: Event) -> tuple[float, str, int, str]:
    """Event time; ties in an order that does not depend on arrival. What the door makes has no id, but another name."""
    return event.time, event.person, RANK.get(event.type, len(RANK)), event.id or event.also_person or ""


def _in_order(events: list[Event]) -> list[Event]:
    """Sorted by `_order`; the whole of it is looked at only where time and person tie."""
    keys = list(map(_WHEN_AND_WHO, events))
    events.sort(key=_WHEN_AND_WHO if len(set(keys)) == len(keys) else _order)
    return events


def _sorted(part: object) -> object:
    """Plain data in which every dict is sorted, so that equal states give equal bytes."""
    data = msgspec.to_builtins(part, str_keys=True)

    def order(value: object) -> object:
        if isinstance(value, dict):
            return [[key, order(value[key])] for key in sorted(value)]
        return [order(item) for item in value] if isinstance(value, list | tuple) else value

    return order(data)
