"""The trust ledger: what each segment gained by volume, and what that cost in trust, side by side.

More mails, leads and visits are gained by whoever pushes them; that people unsubscribe, that sales ignore leads, that
visits are dropped early, that orders come late is paid by the company's name. Both are added up for each segment, in
people, and in money where events carry it, in all and by day. `Price` sets one against the other: what a thousand
gained cost over the last week, and over the four weeks before. Where volume rose and its price rose beyond chance,
trust was traded for volume.

Integers only, in event time; the order in which cells come does not matter. Days older than `DAYS` are joined to weeks,
and what is older than `MEMORY_DAYS` is forgotten, but stays in the totals. Some costs are known later than what they
are of (a lead counts as ignored after two days): after a jump in volume a price is too low for as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log, sqrt
from typing import Final, Literal, NamedTuple

import msgspec

from detectors._baseline import DAY_S
from detectors._intervals import Z95
from detectors._stages import CONTACTS, CUSTOMERS, JOURNEY, LEADS
from streams.findings import LEAST
from streams.frames import Segment

DAYS: Final = 56
"""Days that are kept one by one."""
MEMORY_DAYS: Final = 400
WEEK: Final = 7
NOW_DAYS: Final = 7
BEFORE_DAYS: Final = 28
EARLY: Final = ("discover", "evaluate", "compare")
"""Stages in which a drop is early."""
MOST_SEGMENTS: Final = 500
MORE: Final = 1.1
"""Volume has risen if there is so much more of it a day."""
NEVER_DAY: Final = -1
Side = Literal["gained", "cost", "value"]


class Entry(NamedTuple):
    """One line of the ledger.

    Attributes:
        name: label value.
        side: whether it was gained, is a cost, or is money.
        stage: where it is counted.
        fields: counts that add to it.
        less: counts that are taken off.
        of: for a cost, what it is the price of; for money, whose it is: the line that counts the people.
    """

    name: str
    side: Side
    stage: str
    fields: tuple[str, ...]
    less: tuple[str, ...] = ()
    of: str = ""


def entries(early: Sequence[str] = EARLY) -> tuple[Entry, ...]:
    """All lines.

    Args:
        early: stages of the journey in which a drop is early.
    """
    return (
        Entry("mails", "gained", CONTACTS, ("sent",)),
        Entry("leads", "gained", LEADS, ("created",)),
        Entry("handovers", "gained", LEADS, ("handed_over",)),
        Entry("early_visits", "gained", JOURNEY, tuple(f"entered_{stage}" for stage in early)),
        Entry("purchases", "gained", JOURNEY, ("advanced_buy",)),
        Entry("wins", "gained", LEADS, ("won",)),
        Entry("orders", "gained", CUSTOMERS, ("ordered",)),
        Entry("unsubscribed", "cost", CONTACTS, ("unsubscribed",), of="mails"),
        Entry("complained", "cost", CONTACTS, ("complained",), of="mails"),
        Entry("rejected", "cost", LEADS, ("rejected",), of="handovers"),
        Entry("ignored", "cost", LEADS, ("touch_48h_n",), ("touch_48h_k",), of="handovers"),
        Entry("dropped_early", "cost", JOURNEY, tuple(f"dropped_{stage}" for stage in early), of="early_visits"),
        Entry("late", "cost", CUSTOMERS, ("due_late",), of="orders"),
        Entry("wrong", "cost", CUSTOMERS, ("delivered_wrong",), of="orders"),
        Entry("unsolved", "cost", CUSTOMERS, ("case_unsolved",), of="orders"),
        Entry("churned", "cost", CUSTOMERS, ("churned",), of="orders"),
        Entry("bought", "value", JOURNEY, ("value_buy",), of="purchases"),
        Entry("won", "value", LEADS, ("value_won",), of="wins"),
        Entry("ordered", "value", CUSTOMERS, ("value_ordered",), of="orders"),
    )


class Price(msgspec.Struct, frozen=True):
    """What a thousand gained cost of late, and before.

    Attributes:
        cost: line of the cost.
        of: line of what was gained.
        now: cost by 1,000 gained over the last 7 days; None where it would tell of fewer than five people.
        before: the same over the 28 days before these.
        ratio_low: lower end of the 95 % interval of now / before.
        ratio_high: upper end.
        volume_ratio: gained a day over the last 7 days, by that of the 28 days before.
        traded: volume rose, and so did its price, beyond chance: trust was traded for it.
    """

    cost: str
    of: str
    now: float | None = None
    before: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    volume_ratio: float | None = None
    traded: bool = False


class Account(msgspec.Struct, frozen=True):
    """The ledger of one segment since it was first seen; None for counts of fewer than five people.

    Attributes:
        segment: whose it is.
        gained: line → how many.
        cost: line → how many.
        value: line → money, whole units.
        prices: of each cost.
    """

    segment: Segment
    gained: dict[str, int | None]
    cost: dict[str, int | None]
    value: dict[str, int | None]
    prices: tuple[Price, ...]


class Day(msgspec.Struct, frozen=True):
    """A day of a segment, or a week of one that is older.

    Attributes:
        from_s: its start, event time, seconds.
        days: its length.
        counts: line → how many; None for fewer than five people, and where that would follow from the total.
    """

    from_s: float
    days: int
    counts: dict[str, int | None]


class Book(msgspec.Struct, array_like=True):
    """What is known of a segment: number by line, in all, by day, and by week (day numbers since the epoch)."""

    total: list[int]
    days: dict[int, list[int]] = {}
    weeks: dict[int, list[int]] = {}


class LedgerState(msgspec.Struct):
    """All that the ledger knows.

    Attributes:
        layout: names of the lines.
        now: event time up to which all was observed, seconds.
        folded: day up to which days were joined to weeks.
        books: segment, and its book.
        left_out: cells of segments refused because there were too many.
    """

    layout: list[str] = []
    now: float = 0.0
    folded: int = NEVER_DAY
    books: list[tuple[Segment, Book]] = []
    left_out: int = 0


class Ledger:
    """The ledger of all segments of a company.

    Args:
        early: stages of the journey in which a drop is early.

    Attributes:
        left_out: cells of segments that have no book, because there were too many.

    Example:
        >>> ledger = Ledger()
        >>> for day in range(35):
        ...     sent, left = (1000, 2) if day < 28 else (3000, 24)
        ...     ledger.observe(day * 86400.0, "contacts", (), {"sent": sent, "unsubscribed": left})
        >>> ledger.settle(35 * 86400.0)
        >>> (account,) = ledger.view()
        >>> account.gained["mails"], account.cost["unsubscribed"]
        (49000, 224)
        >>> price = account.prices[0]
        >>> price.cost, price.of, price.before, price.now, price.volume_ratio, price.traded
        ('unsubscribed', 'mails', 2.0, 8.0, 3.0, True)
    """

    def __init__(self, early: Sequence[str] = EARLY) -> None:
        self._entries = entries(early)
        self._at = {entry.name: i for i, entry in enumerate(self._entries)}
        self._fields: dict[str, dict[str, tuple[int, int]]] = {}
        for i, entry in enumerate(self._entries):
            fields = self._fields.setdefault(entry.stage, {})
            fields |= {field: (i, 1) for field in entry.fields} | {field: (i, -1) for field in entry.less}
        self._start(LedgerState(layout=list(self._at)))

    def _start(self, state: LedgerState) -> None:
        self._now, self._folded, self.left_out = state.now, state.folded, state.left_out
        self._books: dict[Segment, Book] = dict(state.books)

    def observe(self, ts: float, stage: str, segment: Segment, counts: Mapping[str, int]) -> None:
        """Add the counts of one cell.

        Args:
            ts: start of its bucket, event time, seconds.
            stage: of the cell; those that have no line are passed over.
            segment: of the cell.
            counts: field → count, see `streams.combine`.
        """
        fields = self._fields.get(stage)
        if fields is None or fields.keys().isdisjoint(counts):
            return
        book = self._books.get(segment)
        if book is None:
            if len(self._books) >= MOST_SEGMENTS and segment:
                self.left_out += 1
                return
            book = self._books[segment] = Book([0] * len(self._entries))
        number = int(ts // DAY_S)
        day = book.days.get(number)
        if day is None:
            day = book.days[number] = [0] * len(self._entries)
        for field, count in counts.items():
            found = fields.get(field)
            if found is not None:
                line, sign = found
                day[line] += sign * count
                book.total[line] += sign * count

    def settle(self, ts: float) -> None:
        """Move on to event time `ts`, seconds; once a day old days are joined and forgotten."""
        self._now = max(self._now, ts)
        today = int(self._now // DAY_S)
        if today > self._folded:
            self._folded = today
            for segment in sorted(self._books):
                self._fold(segment, self._books[segment], today)

    def _fold(self, segment: Segment, book: Book, today: int) -> None:
        for number in sorted(number for number in book.days if number <= today - DAYS):
            week = number - number % WEEK
            book.weeks[week] = _sum([book.weeks.get(week, [0] * len(self._entries)), book.days.pop(number)])
        for week in [week for week in book.weeks if week + WEEK <= today - MEMORY_DAYS]:
            del book.weeks[week]
        if not book.days and not book.weeks:
            del self._books[segment]

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def view(self) -> tuple[Account, ...]:
        """The account of every segment; may be read from any thread."""
        return tuple(self._account(segment, book) for segment, book in sorted(list(self._books.items())))

    def days(self, segment: Segment) -> tuple[Day, ...]:
        """What a segment gained and paid by day, oldest first; older ones by week."""
        book = self._books.get(segment)
        if book is None:
            return ()
        rows = [(number, WEEK, counts) for number, counts in sorted(list(book.weeks.items()))]
        rows += [(number, 1, counts) for number, counts in sorted(list(book.days.items()))]
        hidden = {line: self._hidden(line, [counts for _, _, counts in rows]) for line in self._at}
        return tuple(
            Day(
                number * DAY_S, days, {line: None if i in hidden[line] else counts[at] for line, at in self._at.items()}
            )
            for i, (number, days, counts) in enumerate(rows)
        )

    def _hidden(self, line: str, rows: list[list[int]]) -> set[int]:
        """Rows in which a line is not shown: few people, and one more if that would follow from the others."""
        at = self._people(line)
        hidden = {i for i, counts in enumerate(rows) if 0 < counts[at] < LEAST}
        if len(hidden) == 1:
            others = [(counts[at], i) for i, counts in enumerate(rows) if counts[at] >= LEAST]
            hidden |= {min(others)[1]} if others else set()
        return hidden

    def _people(self, line: str) -> int:
        """Where the people of a line are counted."""
        entry = self._entries[self._at[line]]
        return self._at[entry.of if entry.side == "value" else line]

    def _account(self, segment: Segment, book: Book) -> Account:
        total = list(book.total)
        sides: dict[Side, dict[str, int | None]] = {"gained": {}, "cost": {}, "value": {}}
        for line, entry in zip(self._at, self._entries, strict=True):
            few = 0 < total[self._people(line)] < LEAST
            sides[entry.side][line] = None if few else total[self._at[line]]
        today = int(self._now // DAY_S) if self._now % DAY_S else int(self._now // DAY_S) - 1
        days = list(book.days.items())
        none = [0] * len(self._entries)
        now = _sum([none, *(counts for day, counts in days if 0 <= today - day < NOW_DAYS)])
        before = _sum([none, *(counts for day, counts in days if 0 <= today - day - NOW_DAYS < BEFORE_DAYS)])
        lasted = NOW_DAYS - 1 + (self._now / DAY_S - today)
        prices = tuple(self._prices(now, before, lasted))
        return Account(segment, sides["gained"], sides["cost"], sides["value"], prices)

    def _prices(self, now: list[int], before: list[int], now_days: float) -> Iterator[Price]:
        for entry in self._entries:
            if entry.side == "cost":
                at, of = self._at[entry.name], self._at[entry.of]
                yield price(entry, (now[at], now[of]), (before[at], before[of]), now_days)

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """The state as msgpack."""
        books = [
            (segment, Book(book.total, dict(sorted(book.days.items())), dict(sorted(book.weeks.items()))))
            for segment, book in sorted(self._books.items())
        ]
        return msgspec.msgpack.encode(LedgerState(list(self._at), self._now, self._folded, books, self.left_out))

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no such state, or one of other lines.
        """
        state = msgspec.msgpack.decode(blob, type=LedgerState)
        sizes = {len(row) for _, book in state.books
                 for row in (book.total, *book.days.values(), *book.weeks.values())}  # fmt: skip
        if state.layout != list(self._at) or sizes - {len(self._at)}:
            raise msgspec.ValidationError("state of the ledger is of other lines")
        self._start(state)


def price(entry: Entry, now: tuple[int, int], before: tuple[int, int], now_days: float) -> Price:
    """What a thousand gained cost, now and before.

    The ratio of two rates of rare events has an interval on the log scale of 1/a + 1/b; half an event is added to each,
    so that none and some compare.

    Args:
        entry: line of the cost.
        now: (cost, gained) over the last days.
        before: the same over the `BEFORE_DAYS` before.
        now_days: length of now, days.
    """
    said = [None if _is_few(*pair) else 1000.0 * pair[0] / pair[1] for pair in (now, before)]
    if None in said:
        return Price(entry.name, entry.of, now=said[0], before=said[1])
    middle = log((now[0] + 0.5) / now[1]) - log((before[0] + 0.5) / before[1])
    around = Z95 * sqrt(1.0 / (now[0] + 0.5) + 1.0 / (before[0] + 0.5))
    low, high, volume = exp(middle - around), exp(middle + around), now[1] / now_days / (before[1] / BEFORE_DAYS)
    return Price(entry.name, entry.of, said[0], said[1], low, high, volume, volume >= MORE and low > 1.0)


def _is_few(cost: int, gained: int) -> bool:
    return 0 < cost < LEAST or 0 <= gained < LEAST


def _sum(rows: Sequence[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
