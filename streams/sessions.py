"""Sessions and their steps: what one visitor does, as a pure state machine in event time.

A session is the events of one visitor with no gap over `time.session_gap_s`; a step is one visit to one journey stage
within it. Steps are reported while open (dwell marks, micro-signals) and when closed (`advanced | returned | dropped`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from detectors._micro_signals import SIGNALS
from detectors._step_model import FEATURES, StepModel, step_features
from streams.events import WEB_TYPES, Event
from streams.journey import Journey
from streams.leads import MOST_VALUE
from streams.settings import Settings
from streams.signals import Spotter, Traces, page_of

_ENTERED: Final = ("entered",)
_MAGNITUDES: Final = len(FEATURES) - len(SIGNALS)
_LOOK: Final = Struct(f"<{_MAGNITUDES}dB")
"""A look as it is kept while its step is open: the magnitudes, and how many micro-signals had been shown. As a list of
features it would take six times the memory."""
MAX_COUNTED_EVENTS: Final = 10_000
LANDMARK_S: Final = 60.0
"""Age of a step at which it is noted what it has shown so far (the last dwell mark up to here)."""
ACTS: Final = WEB_TYPES - {"page_viewed", "page_pinged", "page_left", "clicked", "error_shown"}
"""What a person does on a page beyond looking and clicking."""


class Counter(NamedTuple):
    """Where everything is counted.

    Attributes:
        now: counts one of each field: stage, cohort, fields.
        later: counts one when a time has come: event time, stage, cohort, field.
        add: adds to a field: stage, cohort, field, how much.
    """

    now: Callable[[str, str, Sequence[str]], None]
    later: Callable[[float, str, str, str], None]
    add: Callable[[str, str, str, int], None]


class Step(msgspec.Struct, array_like=True, gc=False):
    """An open visit to one stage.

    Attributes:
        index: position within the session; with the session's id it names the step.
        stage: journey stage.
        start: event time of its first event, seconds.
        last: event time of its last event, seconds.
        events: events in it.
        views: page views in it.
        revisits: views of a page that was seen shortly before.
        clicks: clicks in it.
        acts: what else the person did: fields, forms, searches, cart.
        marks: dwell marks (and after them the session gap) that it has outlived.
        signals: micro-signals it has shown, in order of appearance.
        judged: whether it was counted as one that showed a micro-signal or none.
        asked: whether it was counted as one that the model calls hesitant or not.
        settled: whether all that the step can be called was counted.
        looks: what the model was shown, packed; it learns from just these when the outcome is known.
        looked: events in it at the last look.
        shown: micro-signals it had shown at the landmark; None while it is not past it.
        called: whether the model had called it hesitant by then.
    """

    index: int
    stage: str
    start: float
    last: float
    events: int = 0
    views: int = 0
    revisits: int = 0
    clicks: int = 0
    acts: int = 0
    marks: int = 0
    signals: tuple[str, ...] = ()
    judged: bool = False
    asked: bool = False
    settled: bool = False
    looks: bytes = b""
    looked: int = 0
    shown: int | None = None
    called: bool = False

    def note(self, event: Event, traces: Traces) -> None:
        """Count one more event; `traces` as before it."""
        self.last = event.time
        if self.events >= MAX_COUNTED_EVENTS:
            return
        self.events += 1
        kind = event.type
        if kind == "page_viewed":
            self.views += 1
            self.revisits += traces.has_seen(page_of(event))
        elif kind == "clicked":
            self.clicks += 1
        elif kind in ACTS:
            self.acts += 1

    def features(self) -> list[float]:
        """The step as it stands, for the model.

        Up to the last sign of life: how long nothing has come since tells who left, not who hesitates.
        """
        return step_features(
            self.last - self.start, self.events, self.views, self.revisits, self.clicks, self.acts, self.signals
        )

    def looked_like(self) -> list[list[float]]:
        """The features of each look."""
        return [[*magnitudes, *_flags(self.signals[:shown])] for *magnitudes, shown in _LOOK.iter_unpack(self.looks)]


@lru_cache(maxsize=4096)
def _flags(signals: tuple[str, ...]) -> list[float]:
    return [1.0 if name in signals else 0.0 for name in SIGNALS]


class Session(msgspec.Struct, array_like=True, gc=False):
    """An open session.

    Attributes:
        person: pseudonym of the visitor.
        given: session id from the source, if it gives one.
        start: event time of the first event, seconds.
        last: event time of the last event, seconds.
        segment: labels; the first value of a label stays for the session. Shared, never changed in place.
        cohort: those who are counted in the same segments (see `streams.combine`); empty until labelled.
        steps: steps begun so far.
        step: the open one; None after a completed goal, until another stage is entered.
        reached: the stage whose goal was completed last; staying there (a receipt) is no new step.
        traces: memory for micro-signals.
        timer: number of the bucket in which it is looked at next.
    """

    person: str
    given: str | None
    start: float
    last: float
    segment: dict[str, str] = {}
    cohort: str = ""
    steps: int = 0
    step: Step | None = None
    reached: str | None = None
    traces: Traces = msgspec.field(default_factory=Traces)
    timer: int | None = None


class Sessions:
    """The rules of sessions; `Session` holds the state of one, `StepModel` what was learnt of a stage.

    Args:
        settings: gaps, marks, definitions.
        journey: stages.
        counter: told everything that is to be counted.
        models: stage → its model; created on first use by `new_model`.
    """

    def __init__(
        self, settings: Settings, journey: Journey, counter: Counter, models: dict[str, StepModel],
        new_model: Callable[[], StepModel],
    ) -> None:  # fmt: skip
        self._spot = Spotter(settings.signals).spot
        marks, gap_s = settings.time.dwell_marks_s, settings.time.session_gap_s
        self._gap_s, self._max_session_s = gap_s, settings.time.max_session_s
        self._still_open = [(f"open_{mark:g}",) for mark in marks]
        self._landmark = max((n for n, mark in enumerate(marks) if mark <= LANDMARK_S), default=-1)
        self._last_mark = len(marks) - 1
        # Whoever has not advanced within a session gap of entering is taken for lost.
        self._due_s = (*marks, gap_s) if not marks or marks[-1] < gap_s else marks
        self._cohorts = ((self._last_mark, "soon", "not_soon"), (len(self._due_s) - 1, "at_all", "not_at_all"))
        self._journey = journey
        self._rank = journey.rank
        self._count, self._count_later, self._add = counter
        self._models = models
        self._new_model = new_model

    def belongs(self, session: Session, event: Event) -> bool:
        """Whether the event continues the session."""
        time = event.time
        if time - session.last > self._gap_s or time - session.start > self._max_session_s:
            return False
        return event.session is None or session.given is None or event.session == session.given

    def apply(self, session: Session, event: Event) -> None:
        """Take up one event of the session, in event-time order."""
        session.last = event.time
        if session.given is None:
            session.given = event.session
        stage = self._journey.stage_of(event)
        if stage is None and session.steps == 0:
            stage = self._journey.entry
        step = session.step
        if stage is not None and (step is None or step.stage != stage):
            step = self._step_in(session, stage, event.time)
        if step is None:
            return
        step.note(event, session.traces)
        signal = self._spot(session.traces, event, step.stage)
        if signal is not None:
            self._signal(session, step, signal)
        if self._journey.completes(step.stage, event.type):
            session.reached = step.stage
            value = event.properties.get("value")
            if isinstance(value, int | float) and 0 < value < MOST_VALUE:
                self._add(step.stage, session.cohort, "value", round(value))
            self._close_step(session, "advanced", event.time)

    def next_due(self, session: Session) -> float:
        """Event time at which the session has to be looked at, if nothing happens: next dwell mark, or its end."""
        end, step = self._end(session), session.step
        if step is None or step.marks >= len(self._due_s):
            return end
        due = step.start + self._due_s[step.marks]
        return due if due < end else end

    def advance(self, session: Session, now: float) -> float | None:
        """Do all that is due before `now`.

        Returns:
            When the session has to be looked at next; None if it has ended.
        """
        end, step = self._end(session), session.step
        if step is not None:
            for number in range(step.marks, len(self._due_s)):
                due = step.start + self._due_s[number]
                if due >= end:
                    break
                if due >= now:
                    return due
                self._mark(session, step, number)
        if end >= now:
            return end
        self.close(session)
        return None

    def close(self, session: Session) -> None:
        """End the session: the open step was dropped."""
        self._close_step(session, "dropped", session.last)

    def _end(self, session: Session) -> float:
        silent, cut = session.last + self._gap_s, session.start + self._max_session_s
        return silent if silent < cut else cut  # min() would take three times as long

    def _step_in(self, session: Session, stage: str, now: float) -> Step | None:
        """The open step once an event of this stage, another than that of the open step, has happened."""
        step, rank = session.step, self._rank
        if step is None and stage == session.reached:
            return None
        if step is not None:
            self._close_step(session, "advanced" if rank[stage] > rank[step.stage] else "returned", now)
        step = session.step = Step(session.steps, stage, now, now)
        session.steps += 1
        session.reached = None
        session.traces.begin_step()
        self._count(stage, session.cohort, _ENTERED)
        return step

    def _mark(self, session: Session, step: Step, number: int) -> None:
        """The step has outlived the mark of this number."""
        step.marks = number + 1
        if number == self._landmark:
            step.shown, step.called = len(step.signals), step.asked
        if number < self._last_mark and step.events == step.looked:  # nothing new: it is still open, that is all
            self._count(step.stage, session.cohort, self._still_open[number])
            return
        fields: list[str] = []
        if number <= self._last_mark:
            fields += self._still_open[number]
            fields += self._look(step)
            if number == self._landmark:
                step.called = step.asked
        if number == self._last_mark:
            fields += self._settle(step)
        self._count(step.stage, session.cohort, fields)
        for at, _, name in self._cohorts:
            if number == at:
                self._count_later(step.start + self._due_s[at], step.stage, session.cohort, name)
        if number == len(self._due_s) - 1:
            self._tell_landmark(session, step, "no")

    def _tell_cohorts(self, session: Session, step: Step, *, advanced: bool) -> None:
        """Count whether the closed step advanced, for the marks that tell it and have not passed yet.

        Known now or not, all steps that began together are counted together, when the mark has passed: so it is a share
        of those who entered, whatever more or fewer enter later.
        """
        for at, yes, no in self._cohorts:
            if step.marks <= at:
                due = step.start + self._due_s[at]
                self._count_later(due, step.stage, session.cohort, yes if advanced else no)
        if step.marks < len(self._due_s):
            self._tell_landmark(session, step, "yes" if advanced else "no")

    def _tell_landmark(self, session: Session, step: Step, outcome: str) -> None:
        """Count whether a step that was still open at the landmark advanced, by what it had shown until then.

        All who stayed that long are compared with each other from there on: whoever leaves at once has no time to show
        anything, and would make every indicator look good (immortal time bias).
        """
        if step.shown is None:
            return
        due, stage, cohort = step.start + self._due_s[-1], step.stage, session.cohort
        self._count_later(due, stage, cohort, f"long_{outcome}")
        indicators = [*step.signals[: step.shown], *(("signal",) if step.shown else ())]
        for name in [*indicators, *(("hesitant",) if step.called else ())]:
            self._count_later(due, stage, cohort, f"ind_{name}_{outcome}")

    def _signal(self, session: Session, step: Step, signal: str) -> None:
        if signal in step.signals:
            return
        step.signals = (*step.signals, signal)
        fields = [f"sig_{signal}"]
        if not step.judged:
            step.judged = True
            fields += ["judged", "signalled"]
        if step.marks <= self._last_mark:
            fields += self._look(step)
        self._count(step.stage, session.cohort, fields)

    def _look(self, step: Step) -> tuple[str, ...]:
        """Show the model the step as it stands, if there is anything new in it; later it learns from the same looks.

        Returns:
            What is to be counted.
        """
        if step.events == step.looked:
            return ()
        step.looked = step.events
        features = step.features()
        step.looks += _LOOK.pack(*features[:_MAGNITUDES], len(step.signals))
        if step.asked or not self._model(step.stage).is_hesitant(features):
            return ()
        step.asked = True
        return "asked", "hesitant"

    def _settle(self, step: Step) -> list[str]:
        """Say, once, what the step has not been called by now; nothing after this changes it.

        Returns:
            What is to be counted.
        """
        fields: list[str] = []
        if step.settled:
            return fields
        model, step.settled = self._model(step.stage), True
        if not step.judged:
            fields.append("judged")
        if not step.asked and model.ready:
            fields.append("asked")
        step.judged = step.asked = True
        novel = model.weigh(step.features())
        if novel is not None:
            fields += ["weighed", "novel"] if novel else ["weighed"]
        return fields

    def _close_step(self, session: Session, outcome: str, now: float) -> None:
        step = session.step
        if step is None:
            return
        session.step = None
        advanced, stage, cohort = outcome == "advanced", step.stage, session.cohort
        self._count(stage, cohort, (outcome, *self._settle(step)) if not step.settled else (outcome,))
        self._add(stage, cohort, "dwell_ms", round((now - step.start) * 1000))
        self._model(stage).learn(step.looked_like(), advanced)
        self._tell_cohorts(session, step, advanced=advanced)

    def _model(self, stage: str) -> StepModel:
        model = self._models.get(stage)
        if model is None:
            model = self._models[stage] = self._new_model()
        return model
