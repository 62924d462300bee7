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
from typing import Any, Final
from zlib import crc32

import msgspec

from detectors._step_model import StepModel
from streams.checkpoints import pack, unpack
from streams.combine import LEADS, Combiner, Labels, Named
from streams.errors import CheckpointRefused
from streams.events import CRM_TYPES, FORGET_TYPES, RANK, WEB_TYPES, Event
from streams.frames import NEVER, UNREADABLE, Cell, Counts, Frame, Item, Mark, Place, Section
from streams.journey import Journey
from streams.leads import LEAD_TYPES, Lead, Leads
from streams.sessions import Counter, Session, Sessions
from streams.settings import Settings

STATE_VERSION: Final = 4
SLICES: Final = 10
"""A bucket is worked off in so many parts, as the watermark passes them."""
LATER_S: Final = 60.0
"""What is to be counted at a moment ahead waits for the full minute: fewer, larger cells to keep and to send."""
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
        evicted: sessions and leads closed early, because a limit was reached.
        forced: times the watermark was pushed, because too many events were waiting.
        forgotten: sessions and leads that were erased on request.
        failed: times our own code raised on one person: a bug; their session and lead were let go.
        unremembered: applied events whose repeats will not be recognised, because a limit was reached.
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


class Sessionizer:
    """The sessionize stage of one events partition.

    Args:
        settings: all knobs.
        journey: stages.
        new_model: makes the hesitation model of a stage.
        partition: number of the events partition.
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
        self._models: dict[str, StepModel] = {}
        counter = Counter(self._combiner.add_each, self._count_later, self._combiner.add)
        self._sessions = Sessions(settings, journey, counter, self._models, new_model)
        self._leads = Leads(settings.leads, self._count_lead)
        self._later: dict[int, array[int]] = {}
        self._closing = -int(FAR_S)
        self._timers: dict[int, dict[str, None]] = {}
        self._lead_timers: dict[int, dict[str, None]] = {}
        self._dedupe_buckets = int(settings.time.dedupe_window_s // settings.time.bucket_s)
        self._agenda: list[int] = []
        self._planned: set[int] = set()
        self._seen: dict[int, int] = {}
        self._pending_events = 0
        self._waiting: dict[int, tuple[int, list[Event]]] = {}  # slice → its bucket, and what waits in it
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
            self._count_mark(source, mark)
        self._admit(source, section)
        for echo in section.echoes:
            if echo.place > source.place and abs(echo.due) < FAR_S:
                self._wait(echo.event, max(int(echo.due // self._slice_s), self._first_open()))
        ends = (section.marks, section.items, section.echoes)
        source.place = max([source.place, *(things[-1].place for things in ends if things)])
        if section.time < FAR_S:
            source.time = max(source.time, section.time)
        source.idle = section.idle

    def _count_mark(self, source: Source, mark: Mark) -> None:
        if mark.place <= source.place:
            self.state.totals.repeats += 1
        else:
            self._account(source, mark.outcome, mark.reason)

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
        watermark, first_open, applied = state.watermark, self._first_open(), 0
        salt = crc32(section.source.rpartition("/")[0].encode())  # ids are unique within their topic only
        for item in self._not_repeated(source, section.items):
            event, due = item.event, item.due
            if not -FAR_S < due < FAR_S:
                self._account(source, "dead_letter", "bad_time")
                continue
            number = hash_id(event.id) ^ salt
            at = int(due // slice_s)
            first = seen.get(number)
            if first is not None and at // SLICES - first <= self._dedupe_buckets:
                self._account(source, "duplicate")
            elif due < watermark and event.type in WEB_TYPES:
                self._account(source, "late")
            else:
                applied += 1
                self._remember(number, self._wait(event, at if at > first_open else first_open))
        if applied:
            state.totals.applied += applied
            source.count("applied", applied)

    def _not_repeated(self, source: Source, items: list[Item]) -> list[Item]:
        """The items that were not taken up before; ingest reads some again after a crash. Places ascend."""
        done = source.place
        if not items or items[0].place > done:
            return items
        fresh = [item for item in items if item.place > done]
        self.state.totals.repeats += len(items) - len(fresh)
        return fresh

    def _wait(self, event: Event, at: int) -> int:
        """Keep an event until the watermark has passed its slice; returns the bucket, one object for all in it."""
        waiting = self._waiting.get(at)
        if waiting is None:
            waiting = self._waiting[at] = (at // SLICES, self.state.slices.setdefault(at, []))
            self._plan(waiting[0])
        bucket, visits = waiting
        if event.type not in CRM_TYPES:
            visits.append(event)
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
            cells.extend(self._combiner.close(bucket * self._bucket_s))
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
                self._process(self.state.slices.pop(at), self._session_event, bucket)

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
        for person in sorted(self._lead_timers.pop(bucket, ())):
            try:
                self._judge_lead(person, end, bucket)
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
        if event.type in WEB_TYPES:
            self._visit(event, bucket)
        elif event.type in FORGET_TYPES:
            self._forget(event, self.state.sessions)
        else:
            self._attach(event, bucket)

    def _visit(self, event: Event, bucket: int) -> None:
        state, person = self.state, event.person
        session = state.sessions.get(person)
        if session is not None and self._is_over(session, event, bucket):
            self._end(session)
            session = None
        if session is None:
            self._make_room()
            session = state.sessions[person] = Session(person, event.session, event.time, event.time)
        if not session.cohort or not event.segment.keys() <= session.segment.keys():
            self._label(session, event)
        steps = session.steps
        self._sessions.apply(session, event)
        if session.steps != steps:
            state.totals.steps += 1
            self._set_timer(session, self._sessions.next_due(session), bucket)
        elif session.timer is None:  # nothing but a new step falls due earlier than what did
            self._set_timer(session, self._sessions.next_due(session), bucket)

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

    def _forget(self, event: Event, known: dict[str, Any]) -> None:
        """Erase all that is known of a person up to this moment, by both names; what they do later is new."""
        for person in (event.person, event.also_person):
            if person is not None and known.pop(person, None) is not None:
                self.state.totals.forgotten += 1

    # ── leads ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _lead_event(self, event: Event, bucket: int) -> None:
        leads = self.state.leads
        if event.type in FORGET_TYPES:
            self._forget(event, leads)
            return
        lead = leads.get(event.person)
        if event.type not in LEAD_TYPES:
            if lead is not None and event.type not in CRM_TYPES:  # nobody mapped it, but it may tell a label
                self._leads.apply(lead, event)
            return
        if lead is None:
            if len(leads) >= self._settings.limits.open_leads:
                del leads[next(iter(leads))]
                self.state.totals.evicted += 1
            lead = leads[event.person] = Lead(event.person, event.time)
            self._set_lead_timers(lead, bucket)
        if self._leads.apply(lead, event):
            self._set_lead_timers(lead, bucket)

    def _judge_lead(self, person: str, end: float, bucket: int) -> None:
        lead = self.state.leads.get(person)
        if lead is not None and self._leads.judge(lead, end):
            del self.state.leads[person]

    def _set_lead_timers(self, lead: Lead, bucket: int) -> None:
        for due in self._leads.deadlines(lead):
            at = max(bucket, int(due // self._bucket_s))
            self._lead_timers.setdefault(at, {})[lead.person] = None
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

    def _count_lead(self, lead: Lead, field: str) -> None:
        self._combiner.add(LEADS, self._labels.know(dict(lead.segment), leads=True).cohort, field)

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

        Left out is what only says how far we have read (watermark, offsets, remembered ids) and `repeats`.
        """
        self._gather()
        state = self.state
        totals = msgspec.structs.replace(state.totals, repeats=0)
        sessions = {person: msgspec.structs.replace(session, timer=None) for person, session in state.sessions.items()}
        pending = [
            {number: sorted(events, key=_order) for number, events in waiting.items()}
            for waiting in (state.pending, state.slices)
        ]
        parts = (
            sessions, state.leads, state.later, state.models, pending, state.labels, totals, state.counting
        )  # fmt: skip
        return msgspec.json.encode([_sorted(part) for part in parts])

    def _gather(self) -> None:
        self.state.later = {bucket: self._combiner.named(codes) for bucket, codes in sorted(self._later.items())}
        self.state.counting = self._combiner.counting()
        self.state.models = {stage: self._models[stage].snapshot() for stage in sorted(self._models)}
        self.state.labels = {label: list(values) for label, values in self._labels.values.items()}

    def _adopt(self, state: State) -> None:
        self.state = state
        self._models.clear()
        for stage, blob in state.models.items():
            self._models[stage] = self._new_model()
            self._models[stage].restore(blob)
        self._labels.adopt(state.labels)
        self._seen = {number: bucket for bucket, numbers in sorted(state.ids.items()) for number in numbers}
        self._pending_events = sum(map(len, [*state.pending.values(), *state.slices.values()]))
        self._waiting = {at: (at // SLICES, events) for at, events in state.slices.items()}
        self._combiner.count(state.counting)
        self._later = {bucket: self._combiner.codes(named) for bucket, named in state.later.items()}
        self._timers, self._lead_timers = {}, {}
        state.sessions = {session.person: self._share(session) for session in state.sessions.values()}
        for person, session in state.sessions.items():
            if session.timer is not None:
                self._timers.setdefault(session.timer, {})[person] = None
        first_open = 0 if state.watermark == NEVER else self._first_open() // SLICES
        for lead in state.leads.values():
            self._set_lead_timers(lead, first_open)
        waiting = {bucket for bucket, _ in self._waiting.values()} | ({first_open} if state.counting else set())
        self._planned = {*waiting, *state.pending, *self._timers, *self._lead_timers, *self._later}
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
        ]).decode()  # fmt: skip


_MERSENNE_61: Final = 2**61 - 1
_WHEN_AND_WHO: Final = attrgetter("time", "person")


def _order(event: Event) -> tuple[float, str, int, str]:
    """Event time; ties in an order that does not depend on arrival."""
    return event.time, event.person, RANK.get(event.type, len(RANK)), event.id


def _in_order(events: list[Event]) -> list[Event]:
    """Sorted by `_order`; the whole of it is looked at only where time and person tie."""
    keys = list(map(_WHEN_AND_WHO, events))
    events.sort(key=_WHEN_AND_WHO if len(set(keys)) == len(keys) else _order)
    return events


def hash_id(event_id: str) -> int:
    """61 bits of an event id: enough to tell a million ids apart, a quarter of the memory.

    Ids are keyed digests already (see `streams.privacy`), so a remainder of the whole text is as good as a hash.
    """
    return int.from_bytes(event_id.encode(), "big") % _MERSENNE_61


def _sorted(part: object) -> object:
    """Plain data in which every dict is sorted, so that equal states give equal bytes."""
    data = msgspec.to_builtins(part, str_keys=True)

    def order(value: object) -> object:
        if isinstance(value, dict):
            return [[key, order(value[key])] for key in sorted(value)]
        return [order(item) for item in value] if isinstance(value, list | tuple) else value

    return order(data)
