"""`trustwatch`, with an early drop-off that raises on every 1,000th observation of each of its streams.

Run as `python -m tests.faults.raising worker …`. It takes the place of the shipped one before the command begins, so
that the number of detectors, and with it everyone's share of the false-page budget, stays the same.
"""

from __future__ import annotations

from typing import Final

from detectors import early_dropoff
from detectors._base import Verdict
from detectors._several import SeveralObservation

EVERY: Final = 1_000
NAME: Final = "early_dropoff"


class EarlyDropoffState(early_dropoff.EarlyDropoffState):
    """That of the shipped one, and the observations it was shown."""

    observed: int = 0


class EarlyDropoff(early_dropoff.EarlyDropoff):
    """Early drop-off with a fault."""

    title = "Early drop-off"
    State = EarlyDropoffState

    def observe(self, x: SeveralObservation) -> Verdict:
        """Raise now and then; else as the shipped one."""
        self.state.observed += 1
        if self.state.observed % EVERY == 0:
            raise ArithmeticError("a fault put in by the test")
        return super().observe(x)


def main() -> None:
    """Put the faulty one into the place of the shipped one, and run the command."""
    EarlyDropoff.__module__ = early_dropoff.__name__
    early_dropoff.EarlyDropoff = EarlyDropoff  # type: ignore[misc]
    from streams.cli import main as command  # noqa: PLC0415  (after the detector is in its place)

    command()


if __name__ == "__main__":
    main()
