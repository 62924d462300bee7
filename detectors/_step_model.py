"""The online model of one journey stage that tells a hesitant step from a long, useful one.

It learns from every closed step whether the person advanced, and is asked about open steps on the spot. River's
`StandardScaler | LogisticRegression`, tested before it is trained (prequential, Dawid 1984; Gama et al. 2013).
"""

from __future__ import annotations

from math import log, log1p
from typing import Annotated, Final, TypeAlias

import msgspec
from pydantic import Field
from river.compose import Pipeline
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import StandardScaler

from detectors._base import Params
from detectors._hesitation_rates import SIGNALS

FEATURES: Final[tuple[str, ...]] = ("log_dwell", "log_events", "log_pages", *SIGNALS, "log_idle")
"""What a step is judged by; `step_features` makes it."""
BINS: Final = 20
CUT_EVERY: Final = 32
"""Looks between two updates of the cut."""
TINY: Final = 1e-6
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class StepModelParams(Params):
    """Parameters of `StepModel`."""

    learning_rate: Share = Field(0.02, description="step size of stochastic gradient descent")
    memory_looks: Annotated[int, Field(ge=200)] = Field(2000, description="looks that 'recent' reaches back over")
    min_looks: Annotated[int, Field(ge=1)] = Field(300, description="looks to learn before it calls any step hesitant")
    model_share: Share = Field(0.15, description="share of recent looks, the least likely to advance, that is hesitant")
    useful_auc: Share = Field(0.62, description="recent prequential AUC from which on its word counts")
    useless_auc: Share = Field(0.56, description="recent prequential AUC below which it counts no more")
    min_dwell_s: Annotated[float, Field(ge=0)] = Field(3.0, description="dwell below which none is hesitant, seconds")


class StepModelState(msgspec.Struct):
    """All a `StepModel` has learnt, as data.

    Attributes:
        counts: scaler: feature → observations.
        means: scaler: feature → mean.
        variances: scaler: feature → population variance.
        weights: regression: feature → weight, in order of insertion (sums of floats depend on it).
        intercept: regression: intercept.
        iterations: steps that the optimizer made.
        looks: looks learnt from.
        base_rate: recent share of looks at steps that did not advance.
        gain: recent mean log-loss of the base rate minus that of the model, nats a look.
        stayed: recent predictions for steps that did not advance, per bin of [0, 1].
        advanced: the same for those that did.
        useful: whether its word counts; changes only when the AUC passes one limit or the other.
        cut: probability from which on a step is hesitant.
    """

    counts: dict[str, int] = {}
    means: dict[str, float] = {}
    variances: dict[str, float] = {}
    weights: dict[str, float] = {}
    intercept: float = 0.0
    iterations: int = 0
    looks: int = 0
    base_rate: float = 0.5
    gain: float = 0.0
    stayed: list[float] = msgspec.field(default_factory=lambda: [0.0] * BINS)
    advanced: list[float] = msgspec.field(default_factory=lambda: [0.0] * BINS)
    useful: bool = False
    cut: float = 1.0


def step_features(
    dwell_s: float, events: int, page_views: int, signals: frozenset[str] | set[str], idle_s: float
) -> dict[str, float]:
    """Describe one step as it stands.

    Args:
        dwell_s: seconds since the step began.
        events: events in the step.
        page_views: page views in the step.
        signals: micro-signals shown so far, names of `SIGNALS`.
        idle_s: seconds since the last event.

    Returns:
        A value for each of `FEATURES`, in that order.
    """
    flags = {name: float(name in signals) for name in SIGNALS}
    return {
        "log_dwell": log1p(max(dwell_s, 0.0)),
        "log_events": log1p(events),
        "log_pages": log1p(page_views),
        **flags,
        "log_idle": log1p(max(idle_s, 0.0)),
    }


class StepModel:
    """P(a step will not advance), and whether that makes it hesitant; one instance a stage.

    It learns from looks: a step as it stood when the model was asked about it, and how the step ended. A step is
    hesitant when its probability is among the `model_share` highest of recent looks; so where people read long and then
    move on, reading long is no hesitation, and the share that is called hesitant stays the same while the model itself
    improves. As long as it cannot tell who advances (AUC), it calls nobody hesitant. Memory: two histograms of 20 bins
    that forget over `memory_looks`.

    Args:
        params: learning rate, memory and limits.

    Example:
        >>> model = StepModel(StepModelParams(min_looks=200))
        >>> for i in range(2000):
        ...     features = step_features(300.0 if i % 4 == 0 else 20.0 + i % 7, 3, 1, set(), 1.0)
        ...     model.learn(features, advanced=i % 4 != 0)
        >>> slow, quick = step_features(300.0, 3, 1, set(), 1.0), step_features(22.0, 3, 1, set(), 1.0)
        >>> model.is_hesitant(model.probability(slow), 300.0), model.is_hesitant(model.probability(quick), 22.0)
        (True, False)
        >>> model.auc > 0.95 and model.gain > 0.1
        True
    """

    def __init__(self, params: StepModelParams | None = None) -> None:
        self.params = params or StepModelParams()
        self.state = StepModelState()
        self._assemble()

    def probability(self, features: dict[str, float]) -> float:
        """P(the step will not advance), before learning from it.

        Args:
            features: see `step_features`.
        """
        return float(self._pipeline.predict_proba_one(features)[True])

    def learn(self, features: dict[str, float], advanced: bool) -> None:
        """Learn from a look at a step that has closed. It is tested on it first; ask `probability` before, not after.

        Args:
            features: as at the last look before the end of the step.
            advanced: whether the person moved on.
        """
        stayed = not advanced
        dwelt = features["log_dwell"] >= log1p(self.params.min_dwell_s)
        self._test(self.probability(features), stayed, dwelt)
        self._pipeline.learn_one(features, stayed)

    def is_hesitant(self, p: float, dwell_s: float) -> bool:
        """Whether a step with probability `p` after `dwell_s` seconds is hesitant; never while not `ready`."""
        return p > self.state.cut and dwell_s >= self.params.min_dwell_s and self.ready

    @property
    def ready(self) -> bool:
        """Whether it has learnt enough and can tell who advances; only then a step counts as asked about."""
        return self.state.useful and self.state.looks >= self.params.min_looks

    @property
    def gain(self) -> float:
        """Recent prequential log-loss gain over the running base rate, nats a step; above 0 the model is of use."""
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

    def snapshot(self) -> bytes:
        """The state as data (msgpack)."""
        scaler, regression, state = self._scaler, self._regression, self.state
        state.counts, state.means, state.variances = dict(scaler.counts), dict(scaler.means), dict(scaler.vars)
        state.weights, state.intercept = regression.weights, regression.intercept
        state.iterations = regression.optimizer.n_iterations
        return msgspec.msgpack.encode(state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`; all later outputs are the same to the last bit.

        Raises:
            msgspec.DecodeError: the bytes are no state of this model.
        """
        self.state = msgspec.msgpack.decode(blob, type=StepModelState)
        self._assemble()

    def _assemble(self) -> None:
        """Build the River pipeline out of the state."""
        state = self.state
        self._scaler = StandardScaler()
        self._scaler.counts.update(state.counts)
        self._scaler.means.update(state.means)
        self._scaler.vars.update(state.variances)
        self._regression = LogisticRegression(optimizer=SGD(self.params.learning_rate))
        self._regression._weights.update(state.weights)
        self._regression.intercept = state.intercept
        self._regression.optimizer.n_iterations = state.iterations
        self._pipeline = Pipeline(self._scaler, self._regression)

    def _test(self, p: float, stayed: bool, dwelt: bool) -> None:
        state = self.state
        state.looks += 1
        weight = 1.0 / min(state.looks + 1, self.params.memory_looks)
        state.gain += (_log_loss(state.base_rate, stayed) - _log_loss(p, stayed) - state.gain) * weight
        state.base_rate += (stayed - state.base_rate) * weight
        if dwelt:  # others are never called hesitant, so they must not set the cut
            (state.stayed if stayed else state.advanced)[min(int(p * BINS), BINS - 1)] += 1.0
        if state.looks % CUT_EVERY == 0:
            self._find_cut()

    def _find_cut(self) -> None:
        state, params = self.state, self.params
        keep = 1.0 - CUT_EVERY / params.memory_looks
        auc = self.auc
        state.useful = auc >= (params.useless_auc if state.useful else params.useful_auc)
        both = [stayed + advanced for stayed, advanced in zip(state.stayed, state.advanced, strict=True)]
        state.cut = _quantile(both, 1.0 - params.model_share) if state.useful else 1.0
        state.stayed = [value * keep for value in state.stayed]
        state.advanced = [value * keep for value in state.advanced]


def _log_loss(p: float, happened: bool) -> float:
    return -log(max(p if happened else 1.0 - p, TINY))


def _quantile(histogram: list[float], share: float) -> float:
    """Quantile of values in [0, 1] by their histogram, linear within a bin; 1 if it is empty."""
    wanted = share * sum(histogram)
    below = 0.0
    for i, value in enumerate(histogram):
        if value and below + value >= wanted:
            return (i + (wanted - below) / value) / len(histogram)
        below += value
    return 1.0
