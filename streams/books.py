"""What is kept of the whole company in one place: the confidence index and the trust ledger of every segment.

The partition that counts leads holds all of `journey`, `leads`, `contacts` and `customers`; it keeps the books.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from detectors._stages import JOURNEY
from streams.confidence import Confidence, ConfidenceParams, Gain
from streams.frames import Segment
from streams.ledger import EARLY, Ledger


class BooksState(msgspec.Struct):
    """Both books, as each of them gives its state."""

    confidence: msgspec.Raw = msgspec.Raw()
    ledger: msgspec.Raw = msgspec.Raw()


class Books:
    """Confidence and ledger of one company.

    Args:
        stages: of the journey, in order.
        params: knobs of the index.

    Attributes:
        confidence: the index.
        ledger: the ledger.
    """

    def __init__(self, stages: Sequence[str], params: ConfidenceParams | None = None) -> None:
        self.confidence = Confidence(stages, params)
        early = tuple(stage for stage in EARLY if stage in stages)
        self.ledger = Ledger(early or tuple(stages[: len(stages) // 2]))

    def observe(self, ts: float, stage: str, segment: Segment, counts: Mapping[str, int]) -> None:
        """Add the counts of one cell whose bucket starts at `ts`, event time, seconds."""
        if stage == JOURNEY:
            self.confidence.observe(ts, segment, counts)
        self.ledger.observe(ts, stage, segment, counts)

    def settle(self, ts: float, gains: Iterable[Gain] = ()) -> None:
        """Move on, when all cells of a bucket were observed.

        Args:
            ts: end of that bucket, event time, seconds; no watermark, for that depends on how messages came.
            gains: what outcome validation says, all of it.
        """
        self.confidence.settle(ts, gains)
        self.ledger.settle(ts)

    def snapshot(self) -> bytes:
        """The state as msgpack."""
        state = BooksState(msgspec.Raw(self.confidence.snapshot()), msgspec.Raw(self.ledger.snapshot()))
        return msgspec.msgpack.encode(state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no such state, or one of another journey.
        """
        state = msgspec.msgpack.decode(blob, type=BooksState)
        self.confidence.restore(bytes(state.confidence))
        self.ledger.restore(bytes(state.ledger))
