"""Vanity gap: a volume rises that looks like success, and the value that it should bring does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec
from pydantic import Field

from detectors._base import AlertOn, Bucket
from detectors._baseline import DAY_S
from detectors._daily import Case, DailyDetector, DailyParams, DailyState
from detectors._days import WEEK, Array, Days, flat_nats
from detectors._scores import ScoreParams
from detectors._stages import CONTACTS, JOURNEY, LEADS
from detectors._volume import Volume, VolumeState

VISITS, ACCEPTED, WON, MAILS = "visits", "leads_accepted", "leads_won", "mails"
NOTHING: Final = -1.0
NOT_YET: Final = 0.0
RECENT_DAYS: Final = 3
"""Days that show whether the volume is still up."""


class VanityGapParams(DailyParams):
    """Parameters of `VanityGap`."""

    first: str = Field("discover", description="stage of the journey whose entrants are its volume; a worker takes the"
                       " first of its journey")  # fmt: skip
    goal: str = Field("buy", description="stage of the journey that brings the value by being completed; a worker takes"
                      " the one with a purchase as its goal")  # fmt: skip
    worth: float = Field(0.5, gt=0, le=1, description="share of the volume's rise by which the value must be shown not"
                         " to have risen")  # fmt: skip
    lasts_s: float = Field(7 * DAY_S, gt=0, description="event time that the volume must have been up before it alerts,"
                           " seconds: a campaign of some days is none")  # fmt: skip
    lag_s: float = Field(2 * DAY_S, ge=0, description="event time after a rise in which its value is not asked for yet,"
                         " seconds")  # fmt: skip
    memory_s: float = Field(90 * DAY_S, gt=0, description="event time after which a day weighs 1/e in what volume is"
                            " usual, seconds")  # fmt: skip
    acceptance_lag_s: float = Field(0.0, ge=0, description="event time from hand-over until acceptance is counted,"
                                    " seconds; onsets are told in time of hand-over")  # fmt: skip
    conversion_lag_s: float = Field(0.0, ge=0, description="the same for wins, seconds")


class VanityState(DailyState):
    """What each pair has seen, and how much volume is usual."""

    volumes: dict[str, VolumeState] = msgspec.field(default_factory=dict)


class VanityGap(DailyDetector[VanityGapParams]):
    """A volume is up, the value it should bring is not, and so value per volume is down.

    Pairs, which are the kinds: `visits`, people who enter the first stage of the journey, against completions of its
    goal; `leads_accepted` and `leads_won`, leads handed over against those of them that sales accepted, or that were
    won (each when its time is up, so both sides are the same leads); `mails`, mails sent against clicks.

    Three things have to be so: value per volume has fallen against the same weekdays before (this is the test, and it
    has the budget); the volume has risen at that time (`detectors._volume`), lasts for a week and is still up; and "the
    value a day did not move" is 20 times as likely as "it rose by `worth` of what the volume did" (Wald 1945). So a
    season in which both rise is quiet, and so are a short campaign, and a fall without a rise, which others find.

    Before and after are value per volume. Evidence: `volume_per_day_before`, `_after`, `value_per_day_before`,
    `_after`, the latter with 95 % intervals; `extra_volume`, and `missing_value`, what so much volume used to bring
    more.
    """

    title = "Vanity gap"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = VanityGapParams
    State = VanityState
    worse: ClassVar = "down"
    counts = True
    several = True

    def __init__(self, params: VanityGapParams) -> None:
        """Start with nothing learnt."""
        super().__init__(params)
        self._volumes: dict[str, Volume] = {}
        self._memory = ScoreParams(memory_s=params.memory_s)

    @classmethod
    def stages(cls, params: VanityGapParams, journey: Sequence[str]) -> tuple[str, ...]:
        """What is counted beside the journey, and the journey as a whole."""
        return (JOURNEY, LEADS, CONTACTS)

    @classmethod
    def pick(cls, bucket: Bucket, params: VanityGapParams) -> dict[str, tuple[int, ...]]:
        """Volume and value of the pairs of this stage."""
        get = bucket.counts.get
        if bucket.stage == JOURNEY:
            views: dict[str, tuple[int, ...]] = {
                VISITS: (get(f"entered_{params.first}", 0), get(f"at_all_{params.goal}", 0))
            }
        elif bucket.stage == CONTACTS:
            views = {MAILS: (get("sent", 0), get("clicked", 0))}
        elif bucket.stage == LEADS:
            views = {ACCEPTED: _judged(bucket, "accept"), WON: _judged(bucket, "win")}
        else:
            return {}
        return views if any(any(counts) for counts in views.values()) else {}

    def columns(self, kind: str, rows: Array) -> tuple[Array, Array]:
        """Value out of volume."""
        return rows[:, 1:], rows[:, :1]

    def lag_s(self, kind: str) -> float:
        """Leads are counted when their time is up."""
        return {ACCEPTED: self.params.acceptance_lag_s, WON: self.params.conversion_lag_s}.get(kind, 0.0)

    def closed(self, kind: str, counts: Sequence[int], ts: float) -> None:
        """Count volume."""
        volume = self._volumes.get(kind)
        if volume is None:
            state = self.state.volumes.setdefault(kind, VolumeState.of())
            volume = self._volumes[kind] = Volume(self._memory, state)
        volume.observe(ts, counts[0])

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        super().restore(blob)
        self._volumes = {kind: Volume(self._memory, state) for kind, state in self.state.volumes.items()}

    def stands(self, case: Case) -> float:
        """That value a day did not move, over that it rose as the volume did; below 0 where the volume is not up."""
        rise = self._volumes[case.kind].rise()
        onset_s = self._onset_s(case)
        if rise is None or rise.last < onset_s - WEEK * DAY_S or rise.first > onset_s + WEEK * DAY_S:
            return NOTHING
        volume, recent = _a_day(case, 0), _a_day(case, 0, skip=max(len(case.rows) - case.onset - RECENT_DAYS, 0))
        up = _ratio(volume) - 1.0
        if up <= 0.0 or _ratio(recent) - 1.0 < up / 2.0:
            return NOTHING
        if len(case.rows) - case.onset < (self.params.lasts_s + self.params.lag_s) / DAY_S:
            return NOT_YET
        value = _a_day(case, 1, skip=round(self.params.lag_s / DAY_S))
        gap, _, variance = value.pooled
        moved = self.params.worth * up * (value.since.pooled((0,))[2])
        return flat_nats(gap, moved, variance * value.clump)

    def told(self, case: Case) -> dict[str, float]:
        """Volume and value a day, and how much of either."""
        volume, value = _a_day(case, 0), _a_day(case, 1)
        numbers = {"extra_volume": volume.pooled[0], "missing_value": -case.pooled[0]}
        for name, one in (("volume", volume), ("value", value)):
            before, after = one.since.before((0,), one.clump), one.since.after((0,), one.clump)
            for side, (mean, low, high) in (("before", before), ("after", after)):
                numbers |= {f"{name}_per_day_{side}": mean, f"{name}_per_day_{side}_low": low,
                            f"{name}_per_day_{side}_high": high}  # fmt: skip
        return numbers

    def _onset_s(self, case: Case) -> float:
        days = self.state.views[case.kind].days
        return float((days.day - len(case.rows) + case.onset) * DAY_S)


def _judged(bucket: Bucket, what: str) -> tuple[int, int]:
    """Leads whose time was up, and those of them that did it, over all scores."""
    n = k = 0
    for name, count in bucket.counts.items():
        if name.startswith(what):
            if name.startswith(f"{what}_n"):
                n += count
            elif name.startswith(f"{what}_k"):
                k += count
    return n, k


def _a_day(case: Case, column: int, skip: int = 0) -> Case:
    """A number a day since the onset (or so many days after it) against the same weekdays before the onset."""
    known = (case.rows.sum(axis=1, keepdims=True) > 0.0).astype(float)
    clump = Days(case.rows[:, column : column + 1], known, case.weekdays, counts=True).clump(case.onset)
    known[case.onset : case.onset + skip] = 0.0
    days = Days(case.rows[:, column : column + 1] * known, known, case.weekdays, counts=True)
    return msgspec.structs.replace(case, days=days, since=days.since(case.onset), columns=(0,), clump=clump)


def _ratio(case: Case) -> float:
    k, _, expected, _, _ = case.since.pooled((0,))
    return k / expected if expected > 0.0 else 1.0
