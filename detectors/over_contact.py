"""Over-contact: people are mailed more than they stand, and leave, complain, or stop answering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec
from pydantic import Field

from detectors._base import OK, WARMING, AlertOn, Bucket, Detector, Verdict
from detectors._baseline import DAY_S
from detectors._mailbox import Mailbox, MailboxState
from detectors._onsets import Cohort
from detectors._slow import SILENT_S, trace_of, verdict_of
from detectors._stages import CONTACTS
from detectors._strata import SlowParams, StrataTable, StratifiedRate

DOSES: Final = (0.0, 1.0, 2.5, 5.5, 10.0)
"""Mails that a person of each dose got in the 7 days before, about."""
WARMTHS: Final = 2
STRATA: Final = len(DOSES) * WARMTHS
AT_STRATUM: Final = tuple(range(STRATA))
AT_WARMTH: Final = tuple([b % WARMTHS for b in range(STRATA)])
FIELDS: Final = tuple(
    [(f"mail_n_d{d}w{w}", f"mail_left_d{d}w{w}", f"mail_reply_d{d}w{w}") for d in range(len(DOSES))
     for w in range(WARMTHS)]
)  # fmt: skip
READ: Final = frozenset([field for fields in FIELDS for field in fields] + ["sent", "complained"])
LEFT, REPLY, MAILBOX = "left", "reply", "mailbox_limit"


class Mails(msgspec.Struct, frozen=True, gc=False):
    """What one bucket says of mails.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        left: (stratum, mails, unsubscribed or complained) of cohorts whose horizon has passed.
        reply: (stratum, mails, opened or clicked) of the same.
        sent: mails sent.
        complained: complaints.
    """

    ts: float
    left: tuple[Cohort, ...]
    reply: tuple[Cohort, ...]
    sent: int
    complained: int


class OverContactParams(SlowParams):
    """Parameters of `OverContact`."""

    mail_lag_s: float = Field(3 * DAY_S, ge=0, description="event time from a mail until it is counted what became of"
                              " it, seconds; onsets are told in time of sending")  # fmt: skip
    dose_rise: float = Field(0.1, ge=0, description="share by which the mails that people of equal warmth got in the"
                             " week before must have risen for a fall of replies to be over-contact")  # fmt: skip
    warn_limit: float = Field(0.001, gt=0, lt=1, description="complaints per mail in a day from which on it warns")
    alert_limit: float = Field(0.003, gt=0, lt=1, description="the same, from which on it alerts")
    limit_confidence: float = Field(0.999, ge=0.5, lt=1, description="confidence of the lower bound that is held"
                                    " against these limits, one-sided")  # fmt: skip
    limit_cases: int = Field(3, ge=1, description="complaints in a day below which nothing is said of the limits")


class OverContactState(msgspec.Struct):
    """What `OverContact` has learnt.

    Attributes:
        left: of the test of leaving.
        reply: of the test of replies.
        mailbox: complaints a day.
        at: when cohorts were last counted, event time, seconds.
        spoken: the kind that is told, while it alerts.
    """

    left: StrataTable
    reply: StrataTable
    mailbox: MailboxState
    at: float = 0.0
    spoken: str = ""


class OverContact(Detector[Mails, OverContactParams]):
    """People are mailed more than they stand.

    What becomes of a mail depends on whom it is sent to. So mails fall into strata: how many the person got in the 7
    days before (dose: 0, 1, 2-3, 4-7, 8 and more) and whether they opened or clicked in the 30 days before (warmth);
    rates are compared at equal mix, see `detectors._strata`.

    Kinds, the gravest first:

    - `mailbox_limit`: complaints in a day exceed 0.1 % (warning) or 0.3 % (alert) of mails by their lower confidence
      bound. These are the limits of Gmail and Yahoo, absolute; it lasts until a day was under the limit again.
    - `left`: more people unsubscribe or complain, at equal dose and warmth, or at equal warmth because the dose has
      grown. A campaign to cold people, more of whom always leave, is neither. The evidence splits the change of the
      whole rate exactly (Kitagawa 1955): `due_to_audience` (others are mailed), `due_to_dose` (they are mailed more
      often) and `due_to_content` (all the rest: they leave more at equal dose). Where hardly anybody ever got so many
      mails, the baseline cannot know what they do, and some of what the dose did is told as content.
    - `reply`: fewer mails are opened or clicked, while people of equal warmth get more mails than they used to.

    Evidence: `extra_left` (`replies_lost`) people (mails) since the onset; `mails_a_week_before` and `_after`, what the
    people who are mailed had got in the week before, the first at the warmth of the second. Before and after are
    shares of mails; of `left` and `reply`, before is what was promised of mails like those since the onset.
    """

    title = "Over-contact"
    unit = "ratio"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = OverContactParams
    State = OverContactState
    stage: ClassVar[str] = CONTACTS

    def __init__(self, params: OverContactParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._last: Mails | None = None
        left, reply = StrataTable.of(STRATA, hits=True), StrataTable.of(STRATA, hits=True)
        assert isinstance(left, StrataTable) and isinstance(reply, StrataTable)
        self._take(OverContactState(left, reply, MailboxState()))

    @classmethod
    def look(cls, bucket: Bucket, params: OverContactParams) -> Mails | None:
        """Mails, complaints and cohorts of the bucket; None for other stages and where there are none."""
        if bucket.stage != cls.stage or READ.isdisjoint(bucket.counts):
            return None
        get = bucket.counts.get
        seen = [(b, n, fields) for b, fields in enumerate(FIELDS) if (n := get(fields[0], 0))]
        left = tuple([(b, n, min(get(fields[1], 0), n)) for b, n, fields in seen])
        reply = tuple([(b, n, min(get(fields[2], 0), n)) for b, n, fields in seen])
        return Mails(bucket.ts, left, reply, get("sent", 0), get("complained", 0))

    def observe(self, x: Mails) -> Verdict:
        """Learn from what became of mails and judge it."""
        self._last = x
        if x.sent or x.complained:
            self._mailbox.observe(x.ts, x.sent, x.complained)
        if x.left:
            ts = x.ts - self.params.mail_lag_s
            self._left.observe(ts, x.left)
            self._reply.observe(ts, x.reply)
            self.state.at = x.ts
        return self._tell(x.ts)

    def allow(self, false_pages_per_week: float) -> None:
        """Share the budget among leaving and replies; the limits are absolute."""
        super().allow(false_pages_per_week)
        for test in (self._left, self._reply):
            test.allowance = false_pages_per_week / 2.0

    def trace(self) -> Mapping[str, float]:
        """Of leaving, replies and complaints, by kind; see `Detector.trace`."""
        x, views = self._last, dict[str, Mapping[str, float]]()
        for kind, test, cohorts in (
            (LEFT, self._left, x.left if x else ()), (REPLY, self._reply, x.reply if x else ()),
        ):  # fmt: skip
            views[kind] = trace_of(test, sum([k for _, _, k in cohorts]), sum([n for _, n, _ in cohorts]))
        views[MAILBOX] = {"k": float(x.complained if x else 0), "n": float(x.sent if x else 0)}
        numbers = {f"{view}.{name}": value for view, own in views.items() for name, value in own.items()}
        return {**numbers, **views[self.state.spoken or LEFT]}

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        state = msgspec.msgpack.decode(blob, type=OverContactState)
        if {len(state.left.base.n), len(state.reply.base.n)} != {STRATA}:
            raise msgspec.ValidationError("a state of another number of strata")
        self._take(state)
        if self.allowance is not None:
            self.allow(self.allowance)

    def _take(self, state: OverContactState) -> None:
        params = self.params
        self.state = state
        self._last = None
        groups = (AT_STRATUM, AT_WARMTH)
        self._left = StratifiedRate(params, state.left, "up", groups)
        self._reply = StratifiedRate(params, state.reply, "down", groups)
        limits = (params.warn_limit, params.alert_limit)
        self._mailbox = Mailbox(limits, params.limit_confidence, params.limit_cases, state.mailbox)

    # ── what is said ──────────────────────────────────────────────────────────────────────────────────────────────

    def _levels(self, now: float) -> dict[str, str]:
        """Level of each kind, the gravest first."""
        silent = now - self.state.at > SILENT_S
        left, reply = ("ok" if silent else test.level for test in (self._left, self._reply))
        if reply in ("warn", "alert") and not self._more_mails():
            reply = "ok"
        return {MAILBOX: self.state.mailbox.standing, LEFT: left, REPLY: reply}

    def _tell(self, now: float) -> Verdict:
        levels, state = self._levels(now), self.state
        alerting = [kind for kind, level in levels.items() if level == "alert"]
        warning = [kind for kind, level in levels.items() if level == "warn"]
        if state.spoken and levels[state.spoken] in ("warn", "alert") and alerting[:1] != [MAILBOX]:
            kind = state.spoken
        else:
            kind = next(iter([*alerting, *warning]), "")
            state.spoken = kind if alerting else ""
        if not kind:
            return WARMING if levels[LEFT] == "warming" else OK
        if kind == MAILBOX:
            return self._of_mailbox(now)
        test, cases = (self._left, "extra_left") if kind == LEFT else (self._reply, "replies_lost")
        verdict = verdict_of(test, cases, self.params.mail_lag_s)
        more = self._doses(test) | (self._split() if kind == LEFT else {})
        return msgspec.structs.replace(verdict, kind=kind, evidence={**verdict.evidence, **more})

    def _of_mailbox(self, now: float) -> Verdict:
        mailbox, state = self._mailbox, self.state.mailbox
        before, n_before, after, n_after = mailbox.rates()
        return Verdict(
            level=state.standing, score=1.0 if state.standing == "alert" else 0.5, onset=min(state.since, now),
            before=before, after=after, n_before=round(n_before), n_after=round(n_after), kind=MAILBOX,
            evidence=mailbox.evidence(),
        )  # fmt: skip

    def _more_mails(self) -> bool:
        """Whether people of equal warmth get more mails since replies began to fall."""
        doses = self._doses(self._reply)
        return doses["mails_a_week_after"] > (1.0 + self.params.dose_rise) * doses["mails_a_week_before"]

    def _doses(self, test: StratifiedRate) -> dict[str, float]:
        """Mails that people had got in the week before: as they used to, at the warmth of now, and since the onset."""
        n, base = test.since_onset()[1], test.state.base.n
        before = after = 0.0
        for w in range(WARMTHS):
            old, new = base[w::WARMTHS], n[w::WARMTHS]
            after += sum([dose * mails for dose, mails in zip(DOSES, new, strict=True)])
            if sum(old):
                before += sum(new) * sum([dose * mails for dose, mails in zip(DOSES, old, strict=True)]) / sum(old)
        mails = max(sum(n), 1.0)
        return {"mails_a_week_before": before / mails, "mails_a_week_after": after / mails}

    def _split(self) -> dict[str, float]:
        """The change of the whole rate in its parts, which sum up to it."""
        test = self._left
        k, n = test.since_onset()
        return split(test.state.base.n, test.state.figures[0], k, n)


def split(base: list[float], rates: list[float], k: list[float], n: list[float]) -> dict[str, float]:
    """Split a change of a rate into what is due to warmth, to dose at equal warmth, and to all else (Kitagawa 1955).

    Args:
        base: mails of the baseline, per stratum.
        rates: promised rate, per stratum.
        k: hits since the onset, per stratum.
        n: mails since the onset, per stratum.

    Example:
        Twice as many mails of dose 1 than before, nothing else:

        >>> flat, rates = [1.0] * 10, [0.01] * 2 + [0.02] * 2 + [0.03] * 6
        >>> mails = [100.0] * 2 + [200.0] * 2 + [100.0] * 6
        >>> parts = split(flat, rates, [a * b for a, b in zip(mails, rates)], mails)
        >>> {name: round(value, 5) + 0.0 for name, value in parts.items()}
        {'overall_before': 0.024, 'overall_after': 0.02333, 'due_to_audience': 0.0, 'due_to_dose': -0.00067, 'due_to_content': 0.0}
    """  # noqa: E501
    total, mails = sum(base) or 1.0, sum(n) or 1.0
    overall = sum([m * rate for m, rate in zip(base, rates, strict=True)]) / total
    at_warmth = at_dose = 0.0
    for w in range(WARMTHS):
        old, new, own = base[w::WARMTHS], n[w::WARMTHS], rates[w::WARMTHS]
        usual = sum([m * rate for m, rate in zip(old, own, strict=True)]) / sum(old) if sum(old) else overall
        at_warmth += usual * sum(new) / mails
        at_dose += sum([m * rate for m, rate in zip(new, own, strict=True)]) / mails
    after = sum(k) / mails
    return {
        "overall_before": overall, "overall_after": after, "due_to_audience": at_warmth - overall,
        "due_to_dose": at_dose - at_warmth, "due_to_content": after - at_dose,
    }  # fmt: skip
