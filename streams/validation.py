"""Outcome validation: which indicators provably predict an outcome on this stream, and which no longer do.

Counts of one partition → blocks (a stratum: the people of one segment, an hour or less) → evidence
(`detectors._validation`). A key is (indicator, outcome, stage, family). Family `all` has one stratum, everyone; the
family of a label has a stratum for each of its values, so that a mix shift between them cannot be taken for an effect.
Outcomes come late by nature: cohorts are counted when their horizon has passed, and tested then, once.

What holds for everyone but not within the values of a label (people on phones click in rage more, and buy less, but
those who do buy no less than the others) is explained by that label, and `unproven`. So for everyone the evidence must
suffice within the values of each label, too, where these know about as much.

A block closes when everyone's has `block_n` outcomes, or at the end of the hour; a stratum of fewer than `least_n`
waits for more, up to `longest_s`. When it closes depends on how many outcomes there were, never on what they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor
from typing import Any, Final, TypeAlias

import msgspec

from detectors._base import Detector
from detectors._validation import Book, BookState
from detectors._validation_numbers import Change, Numbers, Status
from detectors._validation_tables import Table, chain, two_by_two
from streams.frames import NEVER, Segment
from streams.validation_fields import (
    ADVANCE,
    SCORE,
    Theme,
    bins_of,
    fields_of,
    indicator_of,
    outcomes_of,
    reach_of,
    scored_of,
    totals,
)
from streams.validation_states import ALL, HOUR_S, Gain, Key, StateChange, ValidationParams

HEARD: Final = 0.5
"""Part of the information about everyone that the strata of a label must have to explain it."""


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
        explained: keys of everyone → the label that explains what they show.
    """

    keys: list[Key] = []
    book: BookState = msgspec.field(default_factory=BookState)
    open: list[tuple[Stratum, Block]] = []
    due: float = NEVER
    refused: int = 0
    explained: list[tuple[Key, str]] = []


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
        self._fields = fields_of(stages, score_bins)
        self._book = Book(self.params)
        self._rows: dict[Key, int] = {}
        self._by_theme: dict[tuple[Theme, str], dict[str, int]] = {}
        self._open: dict[Stratum, Block] = {}
        self._full: dict[Theme, int] = {}
        self._due = NEVER
        self._explained: dict[Key, str] = {}
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
        block, outcome = self._open[stratum], stratum[0][1]
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
                good, bad = scored_of(counts, self._bins) if indicator == SCORE else (yes, no)
                if good + bad:
                    outcomes[row] = outcomes.get(row, 0) + good + bad
                    pairs[row] = pairs.get(row, 0.0) + good * bad / (good + bad)
                    tables += self._tables(row, indicator, theme[1], counts)
        rows = sorted(outcomes)
        if rows:
            at = {row: i for i, row in enumerate(rows)}
            placed = [table._replace(row=at[table.row]) for table in tables]
            changes = self._book.settle(rows, [outcomes[row] for row in rows], [pairs[row] for row in rows], placed)
            self._tell(ts, changes, {(theme, family_of(segment)) for (theme, segment), _ in blocks})

    def _tell(self, ts: float, changes: Sequence[Change], touched: set[tuple[Theme, str]]) -> None:
        """What changed, by its own evidence or because of what a label explains."""
        keys = list(self._rows) if changes else []
        told = {keys[change.row]: change for change in changes}
        themes = sorted({theme for theme, _ in touched})
        known = {(name, theme[1], theme[0], ALL) for theme in themes for name in self._by_theme.get((theme, ALL), ())}
        for key in sorted(known | told.keys()):
            change, was = told.get(key), key in self._explained
            self._explain(key)
            explained = key in self._explained
            if change is not None:
                before, after, numbers = change.before, change.after, change.numbers
            elif was != explained:
                before, after, numbers = "proven", "proven", self.numbers(key)
            else:
                continue
            before = "unproven" if was and before == "proven" else before
            after = "unproven" if explained and after == "proven" else after
            if before != after:
                why = self._explained.get(key, "")
                self._found.append(StateChange(ts, *key, before, after, numbers, why))

    def _explain(self, key: Key) -> None:
        """Note the label, if any, within whose values the evidence for what everyone shows is missing."""
        self._explained.pop(key, None)
        indicator, outcome, stage, family = key
        if family != ALL or self._book.status(self._rows[key]) != "proven":
            return
        known_all = self._book.believed(self._rows[key])[1]
        for theme, label in sorted(self._by_theme):
            row = self._by_theme[theme, label].get(indicator)
            if theme != (stage, outcome) or label == ALL or row is None:
                continue
            known = self._book.believed(row)[1]
            # A label of many small strata may know too little to have a say.
            if known >= HEARD * known_all and not self._book.is_evident(row):
                self._explained[key] = label
                return

    def _rows_for(self, theme: Theme, segment: Segment, counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """The rows that a block is about; new indicators get one."""
        family = family_of(segment)
        known = self._by_theme.setdefault((theme, family), {})
        for indicator in sorted({name for slot in counts if (name := indicator_of(slot))} - known.keys()):
            if len(self._rows) >= self.params.most_keys:
                self.refused += 1
                continue
            self._open_row((indicator, theme[1], theme[0], family), self._book.open(reach_of(indicator)))
        yield from known.items()

    def _open_row(self, key: Key, row: int) -> None:
        indicator, outcome, stage, family = key
        self._rows[key] = row
        self._by_theme.setdefault(((stage, outcome), family), {})[indicator] = row

    def _tables(self, row: int, indicator: str, outcome: str, counts: Mapping[str, int]) -> list[Table]:
        if indicator == SCORE:
            return chain(row, bins_of(counts, self._bins))
        yes, no = (counts.get(f"ind_{indicator}_{end}", 0) for end in ("yes", "no"))
        return two_by_two(row, yes, no, *totals(outcome, counts), reach_of(indicator))

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def keys(self) -> list[Key]:
        """All indicators known, oldest first; safe to be read from another thread."""
        return list(self._rows)

    def state(self, indicator: str, outcome: str, stage: str, family: str = ALL) -> Status:
        """State of a key; `unproven` if it was never seen, or a label explains it."""
        key = (indicator, outcome, stage, family)
        row = self._rows.get(key)
        return "unproven" if row is None or key in self._explained else self._book.status(row)

    def explained_by(self, key: Key) -> str:
        """The label that explains what everyone's indicator shows; empty if none does."""
        return self._explained.get(key, "")

    def numbers(self, key: Key) -> Numbers:
        """All that is known of a key.

        Raises:
            KeyError: it was never seen.
        """
        return msgspec.structs.replace(self._book.read(self._rows[key]), status=self.state(*key))

    def outcomes(self, key: Key) -> int:
        """Outcomes ever seen of a key."""
        return self._book.total(self._rows[key])

    def proven(self, indicator: str, stage: str) -> bool:
        """Whether it provably predicts an outcome of this stage, for everyone."""
        return any(self.state(indicator, outcome, stage) == "proven" for outcome in outcomes_of(stage))

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
        states = {self.state(name, outcome, stage) for name in indicators for outcome in outcomes_of(stage)}
        best: tuple[Status, ...] = ("proven", "lost")
        return next((state for state in best if state in states), "unproven")

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> ValidatorState:
        """The state as data."""
        blocks = [(stratum, self._open[stratum]) for stratum in sorted(self._open)]
        kept = [(stratum, Block(block.since, dict(sorted(block.counts.items())))) for stratum, block in blocks]
        return ValidatorState(list(self._rows), self._book.state, kept, self._due, self.refused,
                              sorted(self._explained.items()))  # fmt: skip

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
        self._due, self.refused, self._explained = state.due, state.refused, dict(state.explained)
        for (theme, segment), block in self._open.items():
            if not segment:
                self._full[theme] = sum(totals(theme[1], block.counts))
        self.changes, self._found = [], []


def family_of(segment: Segment) -> str:
    """The family that a stratum belongs to."""
    return segment[0][0] if segment else ALL
