"""Fuzz the formats: `python -m tests.fuzz [--minutes 5] [--format F] [--seed N]`, so long for each format.

Hypothesis draws a seed message and some mutations, at field and at byte level; the law is `tests.fuzz.law.check`, with
the format named and told by shape. A message that breaks it is kept in `tests/fuzz/cases`, with as few mutations as it
takes; a unit test runs all that are kept: mend the format, and commit the case with it.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streams.events import Event, Outcome
from streams.formats import FORMATS
from tests.fuzz.law import check
from tests.fuzz.mutate import STEPS, Step, mutated
from tests.fuzz.seeds import seeds

CASES: Final = Path(__file__).with_name("cases")
ROUND: Final = 2_000
"""Examples of one round of Hypothesis; then the clock is looked at."""
HANG_S: Final = 20
_NUMBER: Final = st.integers(0, 2**20)
PROGRAMS: Final = st.lists(st.tuples(st.sampled_from(STEPS), _NUMBER, _NUMBER), min_size=1, max_size=6)


class Hang(Exception):
    """A message took far longer than any may."""


class Fuzzer:
    """Fuzzes one format.

    Attributes:
        examples: messages tried.
        accepted: of these, those of which an event came.
        last: the message at hand: number of its seed, mutations, and whether its format was named.
    """

    def __init__(self, fmt: str) -> None:
        self.fmt = fmt
        self.examples = self.accepted = 0
        self.last: tuple[int, list[Step], bool] = (0, [], False)

    def round(self, seed: int, examples: int = ROUND) -> None:
        """Try some messages.

        Raises:
            AssertionError, Hang: or whatever the format raised.
        """
        quiet = settings(
            max_examples=examples, deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
            report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        )  # fmt: skip

        @hypothesis.seed(seed)
        @quiet
        @given(st.integers(0, len(seeds(self.fmt)) - 1), PROGRAMS, st.booleans())
        def one(number: int, steps: list[Step], named: bool) -> None:
            self.last = (number, steps, named)
            if (outcomes := self.judge(number, steps, named)) is None:
                hypothesis.reject()
            self.examples += 1
            self.accepted += any(isinstance(outcome, Event) for outcome in outcomes)

        one()

    def judge(self, number: int, steps: list[Step], named: bool) -> list[Outcome] | None:
        """What becomes of a mutated seed; None if the mutations went too deep to be written down.

        Raises:
            AssertionError, Hang: or whatever the format raised.
        """
        seed = seeds(self.fmt)[number]
        try:
            raw = mutated(seed, steps)
        except RecursionError:
            return None
        signal.alarm(HANG_S)
        try:
            return check(raw, self.fmt if named else None, seed.headers or None)
        finally:
            signal.alarm(0)

    def shrink(self) -> BaseException:
        """Leave out of the last message all mutations that it breaks the law without; returns how it breaks it."""
        number, steps, named = self.last
        for step in list(steps):
            fewer = [other for other in steps if other is not step]
            if self._breaks(number, fewer, named) is not None:
                steps = fewer
        self.last = (number, steps, named)
        return self._breaks(number, steps, named) or AssertionError("it broke the law only once")

    def _breaks(self, number: int, steps: list[Step], named: bool) -> BaseException | None:
        try:
            self.judge(number, steps, named)
        except Exception as error:
            return error
        return None

    def keep(self) -> Path:
        """Write the message that broke the law where a test runs it from now on."""
        number, steps, _ = self.last
        raw = mutated(seeds(self.fmt)[number], steps)
        path = CASES / f"{self.fmt}-{hashlib.blake2b(raw, digest_size=6).hexdigest()}.bin"
        CASES.mkdir(exist_ok=True)
        path.write_bytes(raw)
        return path


def _hangs(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"no outcome after {HANG_S} s")


def fuzz(fmt: str, seconds: float, seed: int) -> bool:
    """Fuzz one format for so long; whether the law held."""
    fuzzer, until, number = Fuzzer(fmt), time.monotonic() + seconds, seed
    try:
        while time.monotonic() < until:
            fuzzer.round(number)
            number += 1
    except Exception:
        why = fuzzer.shrink()
        traceback.print_exception(why, limit=-4)
        print(f"FAIL {fmt}: {fuzzer.last}; kept as {fuzzer.keep().name} after {fuzzer.examples:,} messages", flush=True)
        return False
    share = fuzzer.accepted / max(1, fuzzer.examples)
    print(f"ok   {fmt}: {fuzzer.examples:,} messages, of which {share:.0%} held an event", flush=True)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz and say; 1 if something was found."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=about)
    parser.add_argument("--minutes", type=float, default=5.0, help="for each format")
    parser.add_argument("--format", action="append", choices=list(FORMATS), help="this one (repeatable); default: all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="to repeat a run")
    given_arguments = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, _hangs)
    print(f"seed {given_arguments.seed}", flush=True)
    names = given_arguments.format or list(FORMATS)
    held = [fuzz(fmt, given_arguments.minutes * 60, given_arguments.seed) for fmt in names]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
