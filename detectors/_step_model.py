"""The online model of one journey stage that tells a hesitant step from a long, useful one.

It learns from every closed step whether the person advanced, and is asked about open steps on the spot. Tested before
it is trained (prequential, Dawid 1984; Gama et al. 2013).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import log1p
from typing import Annotated, Final, TypeAlias

import msgspec
from pydantic import Field

from detectors._base import Params
from detectors._frozen import NOTHING, Rule, Tally, Trial, log_loss
from detectors._micro_signals import SIGNALS
from detectors._novelty import Novelty, NoveltyState
from detectors._regression import Regression, RegressionState

FEATURES: Final[tuple[str, ...]] = (
    "log_dwell", "log_events", "log_views", "log_revisits", "log_clicks", "log_acts", *SIGNALS,
)  # fmt: skip
"""What a step is judged by; `step_features` makes it. Magnitudes first, then flags, as `detectors._novelty` wants."""
BINS: Final = 50
FADE_EVERY: Final = 32
"""Looks or steps between two acts of forgetting."""
AGAIN: Final = 1.25
"""While no rule is in force, the next one is tried when so much more has been learnt."""
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Count: TypeAlias = Annotated[int, Field(ge=1)]


class StepModelParams(Params):
    """Parameters of `StepModel`."""

    learning_rate: Share = Field(0.02, description="step size of stochastic gradient descent")
    memory_looks: Annotated[int, Field(ge=200)] = Field(
        2000, description="looks (for the lift: steps) that 'recent' reaches back over"
    )
    min_looks: Count = Field(500, description="looks to learn before it is tried for the first time")
    trial_steps: Annotated[int, Field(ge=10, le=2000)] = Field(
        1000, description="steps on which a frozen copy is tried before it may call anyone hesitant; they fix the share"
        " that it calls",
    )  # fmt: skip
    model_share: Share = Field(
        0.15, description="share of steps, the least likely to advance, that the first copy calls hesitant"
    )
    useful_z: float = Field(
        3.0, description="standard errors by which more of those it calls must stay than of the others, before"
        " its word counts",
    )  # fmt: skip
    useless_z: float = Field(1.0, description="standard errors below which its word counts no more")
    min_dwell_s: Annotated[float, Field(ge=0)] = Field(3.0, description="dwell below which none is hesitant, seconds")
    novel_share: Share = Field(0.01, description="share of normal steps that is called novel")
    novel_steps: Annotated[int, Field(ge=10, le=100_000)] = Field(
        1000,
        description="steps that the first picture of normal behaviour is learnt from, and as many to set its limit",
    )


class StepModelState(msgspec.Struct):
    """All a `StepModel` has learnt, as data.

    Attributes:
        regression: the learning model.
        looks: looks learnt from.
        steps: steps learnt from.
        base_rate: recent share of looks at steps that did not advance.
        gain: recent mean log-loss of the base rate minus that of what was said, nats a look.
        stayed: recent probabilities given to steps that did not advance, per bin of [0, 1].
        advanced: the same for those that did.
        rule: what calls people hesitant; None while nothing tells well enough.
        tally: how those it called, and the others, ended recently.
        share: share of steps that the last rule called; the next one is to call as many.
        trial: the copy that is being tried, or None.
        next_trial: steps at which the next one begins.
        novelty: see `detectors._novelty`.
    """

    regression: RegressionState = msgspec.field(default_factory=lambda: RegressionState.sized(len(FEATURES)))
    looks: int = 0
    steps: int = 0
    base_rate: float = 0.5
    gain: float = 0.0
    stayed: list[float] = msgspec.field(default_factory=lambda: [0.0] * BINS)
    advanced: list[float] = msgspec.field(default_factory=lambda: [0.0] * BINS)
    rule: Rule | None = None
    tally: Tally = msgspec.field(default_factory=Tally)
    share: float | None = None
    trial: Trial | None = None
    next_trial: int = 0
    novelty: NoveltyState | None = None


def step_features(
    dwell_s: float, events: int, views: int, revisits: int, clicks: int, acts: int, signals: Collection[str] = ()
) -> list[float]:
    """Describe one step as it stands.

    Args:
        dwell_s: seconds from its first event to its last.
        events: events in the step.
        views: page views in the step.
        revisits: views of a page that was seen shortly before.
        clicks: clicks in the step.
        acts: what else the person did: fields, forms, searches, cart.
        signals: micro-signals shown so far, names of `SIGNALS`.

    Returns:
        A value for each of `FEATURES`, in that order.
    """
    return [
        log1p(max(dwell_s, 0.0)), log1p(events), log1p(views), log1p(revisits), log1p(clicks), log1p(acts),
        *[1.0 if name in signals else 0.0 for name in SIGNALS],
    ]  # fmt: skip


class StepModel:
    """P(a step will not advance), whether that makes it hesitant, and whether it is unlike all before; one a stage.

    It learns from looks: a step as it stood when the model was shown it, and how the step ended. The learning model
    calls nobody. A frozen copy does (`detectors._frozen`), once those it calls were seen to stay more often than the
    others, and for as long as they do; it calls the `model_share` of steps that are least likely to advance. So where
    people read long and then move on, reading long is no hesitation; and while the model learns, the share that is
    called hesitant stays. A copy that tells better takes over when the past has doubled, calling as many as the one
    before it on the same steps.

    Args:
        params: learning rate, memory and limits.

    Example:
        >>> model = StepModel(StepModelParams(min_looks=100, trial_steps=100, model_share=0.25))
        >>> for i in range(2000):
        ...     stays = i % 4 == 0
        ...     model.learn([step_features(300.0 if stays else 20.0 + i % 7, 3, 1, 0, 0, 0)], advanced=not stays)
        >>> [model.is_hesitant(step_features(dwell_s, 3, 1, 0, 0, 0)) for dwell_s in (300.0, 22.0)]
        [True, False]
        >>> model.auc > 0.95 and model.gain > 0.1 and model.calibration_error < 0.1
        True
    """

    def __init__(self, params: StepModelParams | None = None) -> None:
        self.params = params or StepModelParams()
        self._least_dwell = log1p(self.params.min_dwell_s)
        self.state = StepModelState()
        self._assemble()

    def probability(self, features: Sequence[float]) -> float:
        """P(the step will not advance), calibrated; before learning from it.

        Args:
            features: see `step_features`.
        """
        rule = self.state.rule
        if rule is not None:
            return rule.calibrated(rule.score(features))
        return self._regression.probability(features)

    def is_hesitant(self, features: Sequence[float]) -> bool:
        """Whether the step is hesitant as it stands; never while not `ready`."""
        rule = self.state.rule
        return rule is not None and features[0] >= self._least_dwell and rule.calls(features)

    def weigh(self, features: Sequence[float]) -> bool | None:
        """Whether the step is unlike all before, None while too few were seen; to be asked once a step. It learns."""
        return self._novelty.weigh(features)

    def learn(self, looks: Sequence[Sequence[float]], advanced: bool) -> None:
        """Learn from a step that has closed. What was said is tested on it first.

        Args:
            looks: the step as it stood when the model was shown it, in order; may be empty.
            advanced: whether the person moved on.
        """
        state, stayed = self.state, not advanced
        state.steps += 1
        rule, trial = state.rule, state.trial
        said = [0.0 if rule is None else rule.score(features) for features in looks]
        tried = [0.0 if trial is None else trial.rule.score(features) for features in looks]
        called = self._judge(looks, said, stayed)
        for features, own, new in zip(looks, said, tried, strict=True):
            self._test(features, own, new, stayed)
            self._regression.learn(features, stayed)
        if trial is not None:
            self._try(trial, looks, tried, stayed, called)
        elif state.looks >= self.params.min_looks and state.steps >= state.next_trial:
            state.trial = Trial(self._regression.frozen())

    @property
    def ready(self) -> bool:
        """Whether a rule is in force; only then a step counts as asked about."""
        return self.state.rule is not None

    @property
    def gain(self) -> float:
        """Recent prequential log-loss gain over the running base rate, nats a look; above 0 the model is of use."""
        return self.state.gain

    @property
    def auc(self) -> float:
        """Recent prequential AUC from the two histograms, ties within a bin counted half; 0.5 while unknown."""
        below = wins = 0.0
        for stayed, advanced in zip(self.state.stayed, self.state.advanced, strict=True):
            wins += stayed * (below + advanced / 2)
            below += advanced
        pairs = sum(self.state.stayed) * below
        return wins / pairs if pairs else 0.5

    @property
    def calibration_error(self) -> float:
        """Recent prequential expected calibration error, ten bins of equal width (Naeini et al. 2015).

        The mean distance between a probability that was said and the share that came true. Some of it is chance: with
        2,000 looks about 0.02.
        """
        stayed, advanced, wide = self.state.stayed, self.state.advanced, BINS // 10
        total, error = sum(stayed) + sum(advanced), 0.0
        for start in range(0, BINS, wide):
            here = range(start, start + wide)
            said = sum((stayed[i] + advanced[i]) * (i + 0.5) / BINS for i in here)
            error += abs(said - sum(stayed[i] for i in here))
        return error / total if total else 0.0

    @property
    def lift(self) -> float:
        """By how much more of those called hesitant did not advance, recently, than of the others."""
        return self.state.tally.lift

    def snapshot(self) -> bytes:
        """The state as data (msgpack)."""
        return msgspec.msgpack.encode(self.state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`; all later outputs are the same to the last bit.

        Raises:
            msgspec.DecodeError: the bytes are no state of this model.
        """
        self.state = msgspec.msgpack.decode(blob, type=StepModelState)
        self._assemble()

    def _assemble(self) -> None:
        state, params = self.state, self.params
        self._regression = Regression(params.learning_rate, state.regression)
        self._novelty = Novelty(params.novel_share, params.novel_steps, len(SIGNALS), state.novelty)
        state.novelty = self._novelty.state

    def _test(self, features: Sequence[float], own: float, new: float, stayed: bool) -> None:
        """Test what is said of one look against the outcome; the calibration learns from it.

        Args:
            features: the look.
            own: its score by the rule in force, if there is one.
            new: its score by the candidate, if there is one.
            stayed: the outcome.
        """
        state = self.state
        state.looks += 1
        weight = 1.0 / min(state.looks + 1, self.params.memory_looks)
        base_rate = state.base_rate
        state.base_rate += (stayed - base_rate) * weight
        if features[0] < self._least_dwell:  # those are never called, so they say nothing of how well it tells
            return
        rule, trial = state.rule, state.trial
        p = self._regression.probability(features) if rule is None else rule.calibrated(own)
        state.gain += (log_loss(base_rate, stayed) - log_loss(p, stayed) - state.gain) * weight
        (state.stayed if stayed else state.advanced)[min(int(p * BINS), BINS - 1)] += 1.0
        keep = 1.0 - 1.0 / self.params.memory_looks
        if trial is not None:
            trial.compare(log_loss(p, stayed) - log_loss(trial.rule.calibrated(new), stayed))
            trial.rule.calibrate(new, stayed, keep)
        if rule is not None:
            rule.calibrate(own, stayed, keep)
        if state.looks % FADE_EVERY == 0:
            factor = 1.0 - FADE_EVERY / self.params.memory_looks
            state.stayed = [value * factor for value in state.stayed]
            state.advanced = [value * factor for value in state.advanced]

    def _judge(self, looks: Sequence[Sequence[float]], said: Sequence[float], stayed: bool) -> bool:
        """Whether the rule in force called the step; dismiss a rule that no longer tells who stays."""
        state, params = self.state, self.params
        rule = state.rule
        if rule is None:
            return False
        called = False
        for features, score in zip(looks, said, strict=True):
            if features[0] >= self._least_dwell and rule.place(score) > rule.cut:
                called = True
        state.tally.add(called, stayed)
        if state.steps % FADE_EVERY == 0:
            state.tally.fade(1.0 - FADE_EVERY / params.memory_looks)
            if state.tally.z < params.useless_z:
                state.rule, state.next_trial = None, state.steps
        return called

    def _try(
        self, trial: Trial, looks: Sequence[Sequence[float]], tried: Sequence[float], stayed: bool, called: bool
    ) -> None:
        scores = [
            trial.rule.place(score)
            for features, score in zip(looks, tried, strict=True)
            if features[0] >= self._least_dwell
        ]
        trial.note(max(scores, default=NOTHING), stayed, called)
        if len(trial.results) >= self.params.trial_steps:
            self._end_trial(trial)

    def _end_trial(self, trial: Trial) -> None:
        """Put the copy in force if it tells who stays, and better than the one before it."""
        state, params = self.state, self.params
        state.trial = None
        wanted = params.model_share if state.share is None else state.share
        if state.rule is not None:
            wanted = trial.called / len(trial.results)
        tally = trial.settle(wanted)
        if tally.z >= params.useful_z and (state.rule is None or trial.replaces(wanted, tally)):
            state.rule, state.tally, state.share = trial.rule, tally, tally.share
        state.next_trial = 2 * state.steps if state.rule is not None else int(AGAIN * state.steps)
