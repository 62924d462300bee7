"""Sessions and their steps: what one visitor does, as a pure state machine in event time.

A session is the events of one visitor with no gap over `time.session_gap_s`; a step is one visit to one journey stage
within it. Steps are reported while open (dwell marks, micro-signals) and when closed (`advanced | returned | dropped`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from detectors._step_model import StepModel, step_features
from streams.events import Event
from streams.frames import Segment
from streams.journey import Journey
from streams.settings import Settings
from streams.signals import Traces, spot

MAX_COUNTED_EVENTS: Final = 10_000

Count = Callable[[str, list[Segment], str, int], None]
"""Counts (stage, segments, field, how many)."""


class Step(msgspec.Struct, array_like=True):
    """An open visit to one stage.

    Attributes:
        index: position within the session; with the session's id it names the step.
        stage: journey stage.
        start: event time of its first event, seconds.
        last: event time of its last event, seconds.
        events: events in it.
        views: page views in it.
        marks: dwell marks that it has outlived.
        signals: micro-signals it has shown, in order of appearance.
        decided: whether it has been called hesitant or not.
        looks: what the model was asked about; it learns from just these when the outcome is known.
        looked: events in it at the last look.
    """

    index: int
    stage: str
    start: float
    last: float
    events: int = 0
    views: int = 0
    marks: int = 0
    signals: list[str] = []
    decided: bool = False
    looks: list[dict[str, float]] = []
    looked: int = 0


class Session(msgspec.Struct, array_like=True):
    """An open session.

    Attributes:
        person: pseudonym of the visitor.
        given: session id from the source, if it gives one.
        start: event time of the first event, seconds.
        last: event time of the last event, seconds.
        segment: labels; the first value of a label stays for the session.
        segments: the segments that follow from them.
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
    segments: list[Segment] = []
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
        count: called for everything to be counted.
        models: stage → its model; created on first use by `new_model`.
    """

    def __init__(
        self, settings: Settings, journey: Journey, count: Count, models: dict[str, StepModel],
        new_model: Callable[[], StepModel],
    ) -> None:  # fmt: skip
        self._time = settings.time
        self._signals = settings.signals
        self._mark_names = [f"open_{mark:g}" for mark in settings.time.dwell_marks_s]
        self._journey = journey
        self._count = count
        self._models = models
        self._new_model = new_model

    def belongs(self, session: Session, event: Event) -> bool:
        """Whether the event continues the session."""
        if event.time - session.last > self._time.session_gap_s:
            return False
        if event.time - session.start > self._time.max_session_s:
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
        step = self._step_in(session, stage, event.time)
        if step is None:
            return
        step.last = event.time
        step.events = min(step.events + 1, MAX_COUNTED_EVENTS)
        step.views += event.type == "page_viewed"
        signal = spot(session.traces, event, self._signals)
        if signal is not None:
            self._signal(session, step, signal)
        if self._journey.completes(step.stage, event.type):
            session.reached = step.stage
            self._close_step(session, "advanced", event.time)

    def next_due(self, session: Session) -> float:
        """Event time at which the session has to be looked at, if nothing happens: next dwell mark, or its end."""
        end = self._end(session)
        step, marks = session.step, self._time.dwell_marks_s
        if step is None or step.marks >= len(marks):
            return end
        return min(end, step.start + marks[step.marks])

    def advance(self, session: Session, now: float) -> bool:
        """Do all that is due before `now`; True if the session has ended."""
        while (due := self.next_due(session)) < now:
            if session.step is None or due >= self._end(session):
                self.close(session)
                return True
            self._mark(session, session.step)
        return False

    def close(self, session: Session) -> None:
        """End the session: the open step was dropped."""
        self._close_step(session, "dropped", session.last)

    def _end(self, session: Session) -> float:
        return min(session.last + self._time.session_gap_s, session.start + self._time.max_session_s)

    def _step_in(self, session: Session, stage: str | None, now: float) -> Step | None:
        """The open step once an event of this stage (None: of no stage of its own) has happened."""
        step, rank = session.step, self._journey.rank
        if stage is None or (step is not None and step.stage == stage):
            return step
        if step is None and stage == session.reached:
            return None
        if step is not None:
            self._close_step(session, "advanced" if rank[stage] > rank[step.stage] else "returned", now)
        session.step = Step(session.steps, stage, now, now)
        session.steps += 1
        session.reached = None
        session.traces.begin_step()
        self._count(stage, session.segments, "entered", 1)
        return session.step

    def _mark(self, session: Session, step: Step) -> None:
        self._count(step.stage, session.segments, self._mark_names[step.marks], 1)
        step.marks += 1
        hesitant = self._look(step)
        if not step.decided and (hesitant or step.marks == len(self._mark_names)):
            self._decide(session, step, hesitant=hesitant)

    def _signal(self, session: Session, step: Step, signal: str) -> None:
        if signal not in step.signals:
            step.signals = [*step.signals, signal]
            self._count(step.stage, session.segments, f"sig_{signal}", 1)
        if not step.decided:
            self._decide(session, step, hesitant=self._look(step), signalled=True)

    def _decide(self, session: Session, step: Step, *, hesitant: bool, signalled: bool = False) -> None:
        """Count the step once: whether it showed a micro-signal, and, if the model can tell, whether that says so."""
        step.decided = True
        fields = ["judged", *(["signalled"] if signalled else ())]
        if self._model(step.stage).ready:
            fields += ["asked", *(["hesitant"] if hesitant else ())]
        for field in fields:
            self._count(step.stage, session.segments, field, 1)

    def _look(self, step: Step) -> bool:
        """Score the step as it stands, if there is anything new in it; later the model learns from the same looks."""
        if step.decided or step.events == step.looked:
            return False
        step.looked = step.events
        # Up to the last sign of life: how long nothing has come since tells who left, not who hesitates.
        active_s = step.last - step.start
        features = step_features(active_s, step.events, step.views, set(step.signals), 0.0)
        step.looks = [*step.looks, features]
        model = self._model(step.stage)
        return model.is_hesitant(model.probability(features), active_s)

    def _close_step(self, session: Session, outcome: str, now: float) -> None:
        step = session.step
        if step is None:
            return
        session.step = None
        if not step.decided:
            self._decide(session, step, hesitant=False)
        for features in step.looks:
            self._model(step.stage).learn(features, outcome == "advanced")
        self._count(step.stage, session.segments, outcome, 1)
        self._count(step.stage, session.segments, "dwell_ms", round((now - step.start) * 1000))

    def _model(self, stage: str) -> StepModel:
        model = self._models.get(stage)
        if model is None:
            model = self._models[stage] = self._new_model()
        return model
