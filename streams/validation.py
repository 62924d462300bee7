"""Outcome validation: which indicators provably predict an outcome on this stream, and which no longer do.

Counts of one partition → blocks (a stratum: the people of one segment, an hour or less) → evidence
(`detectors._validation`). A key is (indicator, outcome, stage, family). Family `all` has one stratum, everyone; the family
of a label has a stratum for each of its values, so that a mix shift between them cannot be taken for an effect. All
labels come late by nature: cohorts are counted when their horizon has passed, so outcomes are tested then, once.

A block closes when everyone's has `block_n` outcomes, or at the end of the hour; a stratum of fewer than `least_n` waits
for more, up to `longest_s`. When it closes depends on how many outcomes there were, never on what they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from pydantic import Field

from detectors._base import Detector
from detectors._micro_signals import SIGNALS
from detectors._stages import CUSTOMERS, JOURNEY, LEADS
from detectors._validation import Book, BookState, Change, Numbers, ProofParams, Status
from detectors._validation_tables import Table, chain, two_by_two
from streams.frames import NEVER, Segment

HOUR_S: Final = 3600.0
ALL: Final = "all"
"""The family of everyone."""
ADVANCE, ACCEPT, WIN, RENEW = "advance", "accept", "win", "renew"
SCORE, TOUCHED = "score", "touched"
JOURNEY_INDICATORS: Final = (*SIGNALS, "signal", "hesitant")
CUSTOMER_INDICATORS: Final = ("late", "unsolved", "badscore")

Key: TypeAlias = tuple[str, str, str, str]
"""(indicator, outcome, stage, family)."""
Theme: TypeAlias = tuple[str, str]
"""(stage, outcome): indicators of a theme share their outcomes."""


class ValidationParams(ProofParams):
    """All parameters of outcome validation."""

    block_n: int = Field(100, gt=0, description="outcomes of everyone at which a block closes before the hour ends")
    least_n: int = Field(20, gt=0, description="outcomes that a stratum waits for")
    longest_s: float = Field(3 * HOUR_S, ge=HOUR_S, description="how long it waits, event time, seconds")
    longest_crm_s: float = Field(24 * HOUR_S, ge=HOUR_S, description="the same for leads and customers, who are few")
    most_keys: int = Field(1000, gt=0, description="indicators, by outcome, stage and family, at most")
    most_strata: int = Field(5000, gt=0, description="open blocks at most")


class StateChange(msgspec.Struct, frozen=True):
    """An indicator changed its state: told like a finding, drawn as an annotation.

    Attributes:
        ts: event time at which the block ended that changed it, seconds.
        indicator: what is meant to predict.
        outcome: what.
        stage: of the journey, or `leads`, `customers`.
        family: `all`, or the label whose values are the strata.
        before: state until now.
        after: state from now on.
        numbers: what was known just then.
    """

    ts: float
    indicator: str
    outcome: str
    stage: str
    family: str
    before: Status
    after: Status
    numbers: Numbers

    @property
    def summary(self) -> str:
        """One sentence.

        >>> numbers = Numbers("proven", 2400, 190, 0.0055, 0.001, 0.011, 0.0056, 0.53, 0.51, 0.55, 0.003, 45.2, 44.0,
        ...                   -0.9, 4.1, -0.6, 3.0)
        >>> StateChange(0.0, "rage_click", "advance", "evaluate", "all", "unproven", "proven", numbers).summary
        'rage_click at evaluate now provably predicts advance (all): odds ratio 0.41, 0.0055 nats per outcome on 2400
        outcomes.'
        """
        told = f"{self.indicator} at {self.stage}"
        if self.after == "proven":
            says = f"{told} now provably predicts {self.outcome} ({self.family})"
        else:
            says = f"{told} no longer predicts {self.outcome} ({self.family}) and stops paging until it does"
        odds = 2.718281828459045**self.numbers.log_odds
        numbers = (
            f"odds ratio {odds:.2f}, {self.numbers.gain:.4f} nats per outcome on {self.numbers.outcomes} outcomes."
        )
        return f"{says}: {numbers}"


class Gain(NamedTuple):
    """What an indicator is worth, for everyone; the confidence index is weighted by it.

    Attributes:
        stage: of the journey, or `leads`, `customers`.
        indicator: name.
        outcome: what it predicts.
        gain: log-loss gained over the base rate, nats per outcome.
        log_odds: log odds ratio of a good outcome, with against without.
        state: `unproven`, `proven` or `lost`.
    """

    stage: str
    indicator: str
    outcome: str
    gain: float
    log_odds: float
    state: Status


class Block(msgspec.Struct, array_like=True):
    """Counts of one stratum that wait to be judged: event time of the first bucket (seconds), field → count."""

    since: float
    counts: dict[str, int] = {}


Stratum: TypeAlias = tuple[Theme, Segment]


class ValidatorState(msgspec.Struct, array_like=True):
    """State of `Validator` as data.

    Attributes:
        keys: in the order of the book's rows.
        book: what is known of each.
        open: blocks that gather.
        due: event time at which the hour ends, seconds.
        refused: keys and strata that did not fit.
    """

    keys: list[Key] = []
    book: BookState = msgspec.field(default_factory=BookState)
    open: list[tuple[Stratum, Block]] = []
    due: float = NEVER
    refused: int = 0


class Validator:
    """Outcome validation of one counts partition.

    Args:
        stages: of the journey.
        score_bins: of lead scores.
        params: thresholds, sizes and limits.

    Attributes:
        changes: that the last `settle` brought.
        refused: keys and strata that did not fit into the limits, counted whenever they were met.

    >>> validator = Validator(["evaluate"], score_bins=20)
    >>> for hour in range(60):
    ...     counts = {"long_yes_evaluate": 40, "long_no_evaluate": 60, "ind_signal_yes_evaluate": 1,
    ...               "ind_signal_no_evaluate": 9}
    ...     validator.observe(hour * 3600.0, "journey", (), counts)
    ...     validator.settle(hour * 3600.0 + 10.0)
    ...     for change in validator.changes:
    ...         print(change.after, change.indicator)
    proven signal
    >>> validator.proven("signal", "evaluate"), validator.proven("rage_click", "evaluate")
    (True, False)
    """

    def __init__(self, stages: Sequence[str], score_bins: int, params: ValidationParams | None = None) -> None:
        self.params = params or ValidationParams()
        self._bins = score_bins
        self._fields = _fields_of(stages, score_bins)
        self._book = Book(self.params)
        self._rows: dict[Key, int] = {}
        self._by_theme: dict[tuple[Theme, str], dict[str, int]] = {}
        self._open: dict[Stratum, Block] = {}
        self._full: dict[Theme, int] = {}
        self._due = NEVER
        self._found: list[StateChange] = []
        self.changes: list[StateChange] = []
        self.refused = 0

    # ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, ts: float, stage: str, segment: Segment, counts: Mapping[str, int]) -> None:
        """Take up one cell of a bucket that starts at `ts` (event time, seconds); buckets ascend."""
        fields = self._fields.get(stage)
        if fields is None or len(segment) > 1:
            return
        if ts >= self._due:
            self._close(ts)
        for field, count in counts.items():
            found = fields.get(field)
            if found is None:
                continue
            theme, slot, is_outcome = found
            block = self._open.get((theme, segment))
            if block is None:
                block = self._open[theme, segment] = Block(ts)
            block.counts[slot] = block.counts.get(slot, 0) + count
            if is_outcome and not segment:
                self._full[theme] = self._full.get(theme, 0) + count

    def settle(self, ts: float) -> None:
        """Judge what is complete, at the end of a bucket (event time, seconds); see `changes`."""
        if ts >= self._due or any(n >= self.params.block_n for n in self._full.values()):
            self._close(ts)
        self.changes, self._found = self._found, []

    def _close(self, ts: float) -> None:
        """Judge blocks of themes that are full, or all if the hour is over."""
        over = ts >= self._due
        self._bound()
        closing = [
            stratum
            for stratum in sorted(self._open)
            if (over or self._full.get(stratum[0], 0) >= self.params.block_n) and self._is_ripe(stratum, ts)
        ]
        if over:
            self._due = (floor(ts / HOUR_S) + 1) * HOUR_S
        for theme, segment in closing:
            if not segment:
                self._full.pop(theme, None)
        self._judge(ts, [(stratum, self._open.pop(stratum).counts) for stratum in closing])

    def _is_ripe(self, stratum: Stratum, ts: float) -> bool:
        block, (stage, outcome) = self._open[stratum], stratum[0]
        longest_s = self.params.longest_s if outcome == ADVANCE else self.params.longest_crm_s
        # Waiting ends at the hour after which the next would be too long.
        return ts + HOUR_S > block.since + longest_s or sum(totals(outcome, block.counts)) >= self.params.least_n

    def _bound(self) -> None:
        for stratum in sorted(self._open)[self.params.most_strata :]:
            del self._open[stratum]
            self.refused += 1

    # ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, ts: float, blocks: Sequence[tuple[Stratum, Mapping[str, int]]]) -> None:
        outcomes, pairs, tables = dict[int, int](), dict[int, float](), list[Table]()
        for (theme, segment), counts in blocks:
            yes, no = totals(theme[1], counts)
            for indicator, row in self._rows_for(theme, segment, counts):
                good, bad = base_of(indicator, theme[1], counts, self._bins) if indicator == SCORE else (yes, no)
                if good + bad:
                    outcomes[row] = outcomes.get(row, 0) + good + bad
                    pairs[row] = pairs.get(row, 0.0) + good * bad / (good + bad)
                    tables += self._tables(row, indicator, theme[1], counts)
        rows = sorted(outcomes)
        if rows:
            at = {row: i for i, row in enumerate(rows)}
            placed = [table._replace(row=at[table.row]) for table in tables]
            for change in self._book.settle(
                rows, [outcomes[row] for row in rows], [pairs[row] for row in rows], placed
            ):
                self._found.append(_told(ts, list(self._rows)[change.row], change))

    def _rows_for(self, theme: Theme, segment: Segment, counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """The rows that a block is about; new indicators get one."""
        family = segment[0][0] if segment else ALL
        known = self._by_theme.setdefault((theme, family), {})
        for indicator in sorted({name for slot in counts if (name := _indicator_of(slot))} - known.keys()):
            if len(self._rows) >= self.params.most_keys:
                self.refused += 1
                continue
            self._open_row((indicator, theme[1], theme[0], family), self._book.open(_reach(indicator)))
        yield from known.items()

    def _open_row(self, key: Key, row: int) -> None:
        indicator, outcome, stage, family = key
        self._rows[key] = row
        self._by_theme.setdefault(((stage, outcome), family), {})[indicator] = row

    def _tables(self, row: int, indicator: str, outcome: str, counts: Mapping[str, int]) -> list[Table]:
        if indicator == SCORE:
            return chain(row, bins_of(outcome, counts, self._bins))
        yes, no = (counts.get(f"ind_{indicator}_{end}", 0) for end in ("yes", "no"))
        return two_by_two(row, yes, no, *totals(outcome, counts), _reach(indicator))

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def keys(self) -> list[Key]:
        """All indicators known, oldest first; safe to be read from another thread."""
        return list(self._rows)

    def state(self, indicator: str, outcome: str, stage: str, family: str = ALL) -> Status:
        """State of a key; `unproven` if it was never seen."""
        row = self._rows.get((indicator, outcome, stage, family))
        return "unproven" if row is None else self._book.status(row)

    def numbers(self, key: Key) -> Numbers:
        """All that is known of a key.

        Raises:
            KeyError: it was never seen.
        """
        return self._book.read(self._rows[key])

    def outcomes(self, key: Key) -> int:
        """Outcomes ever seen of a key."""
        return self._book.total(self._rows[key])

    def proven(self, indicator: str, stage: str) -> bool:
        """Whether it provably predicts an outcome of this stage, for everyone."""
        return any(self.state(indicator, outcome, stage) == "proven" for outcome in _outcomes_of(stage))

    def gains(self) -> list[Gain]:
        """What each indicator is worth for everyone, in the order of its name."""
        found = []
        for key in sorted(self._rows):
            if key[3] == ALL:
                numbers = self.numbers(key)
                found.append(Gain(key[2], key[0], key[1], numbers.gain, numbers.log_odds, numbers.status))
        return found

    def gate(self, stage: str, detector: type[Detector[Any, Any]], kind: str = "") -> Status | None:
        """Whether findings of a detector may page.

        Args:
            stage: where it found something.
            detector: its class.
            kind: of the finding; it hangs on one indicator where the class says so, otherwise on any of its own.

        Returns:
            `proven`: yes. `unproven`, `lost`: no, it is context. None: it measures an outcome itself, no proof needed.
        """
        indicators = detector.indicators_of(kind)
        if not indicators:
            return None
        states = {self.state(name, outcome, stage) for name in indicators for outcome in _outcomes_of(stage)}
        best: tuple[Status, ...] = ("proven", "lost")
        return next((state for state in best if state in states), "unproven")

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> ValidatorState:
        """The state as data."""
        blocks = [(stratum, self._open[stratum]) for stratum in sorted(self._open)]
        kept = [(stratum, Block(block.since, dict(sorted(block.counts.items())))) for stratum, block in blocks]
        return ValidatorState(list(self._rows), self._book.state, kept, self._due, self.refused)

    def restore(self, state: ValidatorState) -> None:
        """Take up a state given by `snapshot`.

        Raises:
            msgspec.ValidationError: it is none.
        """
        if len(state.keys) != state.book.rows:
            raise msgspec.ValidationError("not a state of validation: keys and rows differ")
        self._book.state = state.book
        self._rows, self._by_theme, self._full = {}, {}, {}
        for row, key in enumerate(state.keys):
            self._open_row(key, row)
        self._open = {stratum: Block(block.since, dict(block.counts)) for stratum, block in state.open}
        self._due, self.refused = state.due, state.refused
        for (theme, segment), block in self._open.items():
            if not segment:
                self._full[theme] = sum(totals(theme[1], block.counts))
        self.changes, self._found = [], []


def _told(ts: float, key: Key, change: Change) -> StateChange:
    return StateChange(ts, *key, change.before, change.after, change.numbers)


def _outcomes_of(stage: str) -> tuple[str, ...]:
    return {LEADS: (ACCEPT, WIN), CUSTOMERS: (RENEW,)}.get(stage, (ADVANCE,))


def _reach(indicator: str) -> float:
    """Whether more of it is meant to bring good outcomes; for scores each table says so itself."""
    return 1.0 if indicator == TOUCHED else -1.0


def _indicator_of(slot: str) -> str:
    if slot.startswith("ind_"):
        return slot[4:].rpartition("_")[0]
    return SCORE if slot.startswith("n_") else ""


def _fields_of(stages: Sequence[str], bins: int) -> dict[str, dict[str, tuple[Theme, str, bool]]]:
    """Stage of the cell → field → whom it belongs to, its name there, and whether it adds to the outcomes."""
    fields: dict[str, dict[str, tuple[Theme, str, bool]]] = {JOURNEY: {}, LEADS: {}, CUSTOMERS: {}}
    for stage in stages:
        slots = ["long_yes", "long_no", *(f"ind_{name}_{end}" for name in JOURNEY_INDICATORS for end in ("yes", "no"))]
        for slot in slots:
            fields[JOURNEY][f"{slot}_{stage}"] = (stage, ADVANCE), slot, slot.startswith("long_")
    for outcome in (ACCEPT, WIN):
        theme = LEADS, outcome
        for end in ("", *(f"_{b}" for b in range(bins))):
            fields[LEADS][f"{outcome}_n{end}"] = theme, f"n{end}", True
            fields[LEADS][f"{outcome}_k{end}"] = theme, f"k{end}", False
        for end in ("yes", "no"):
            fields[LEADS][f"ind_{TOUCHED}_{outcome}_{end}"] = theme, f"ind_{TOUCHED}_{end}", False
    theme = CUSTOMERS, RENEW
    fields[CUSTOMERS] |= {name: (theme, name, True) for name in ("renewed", "churned")}
    for name in CUSTOMER_INDICATORS:
        for end in ("yes", "no"):
            fields[CUSTOMERS][f"ind_{name}_{RENEW}_{end}"] = theme, f"ind_{name}_{end}", False
    return fields


def totals(outcome: str, counts: Mapping[str, int]) -> tuple[int, int]:
    """Good and bad outcomes of a block, whatever indicator.

    >>> totals("accept", {"n": 2, "k": 1, "n_3": 4, "k_3": 1})
    (2, 4)
    """
    if outcome in (ACCEPT, WIN):
        n, k = (sum(count for slot, count in counts.items() if slot == of or slot.startswith(f"{of}_")) for of in "nk")
        return k, n - k
    good, bad = ("renewed", "churned") if outcome == RENEW else ("long_yes", "long_no")
    return counts.get(good, 0), counts.get(bad, 0)


def bins_of(outcome: str, counts: Mapping[str, int], bins: int) -> list[tuple[int, int]]:
    """Score bins of a block: leads, and those of them with a good outcome."""
    return [(counts.get(f"n_{b}", 0), counts.get(f"k_{b}", 0)) for b in range(bins)]


def base_of(indicator: str, outcome: str, counts: Mapping[str, int], bins: int) -> tuple[int, int]:
    """Good and bad outcomes of leads with a score."""
    scored = bins_of(outcome, counts, bins)
    good = sum(k for _, k in scored)
    return good, sum(n for n, _ in scored) - good
