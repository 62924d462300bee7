"""How fast each format is: pure decode and scrub in one process, `python -m tests.bench.formats [--events N]`.

Payloads are those of `tests.formats.payloads`: of the size that real clients send, about 5,000 people. What is measured
is CPU time of this process, and the fastest of some runs counts: a busy machine disturbs it little, and the caches of
the door are warm, as they are in a worker.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from streams.events import Event, Rejection
from streams.formats import FormatOptions, decode
from streams.privacy import Privacy
from streams.settings import Settings
from tests.formats import payloads

TARGET: Final = 50_000
"""Events per second of each of the commonest formats."""
RUNS: Final = 5
SLICE: Final = 1000
"""Events of a slice: some milliseconds, in which others rarely disturb all runs."""
BATCH: Final = 20
NOW_S: Final = payloads.T0_S + 30 * 86400

Make = Callable[[random.Random, int], Any]


def _json(make: Make) -> Make:
    return lambda rng, n: msgspec.json.encode(make(rng, n))


WORKLOADS: Final[dict[str, tuple[str | None, int, Make]]] = {
    "native": ("native", 1, _json(payloads.native)),
    "segment": ("segment", 1, _json(payloads.segment)),
    "rudderstack": ("segment", 1, _json(payloads.rudderstack)),
    "segment, batch": ("segment", BATCH, _json(
        lambda rng, n: {"batch": [payloads.segment(rng, n * BATCH + i) for i in range(BATCH)]})),
    "snowplow, TSV": ("snowplow", 1, lambda rng, n: payloads.tsv(payloads.snowplow(rng, n))),
    "snowplow, JSON": ("snowplow", 1, _json(lambda rng, n: payloads.snowplow_json(payloads.snowplow(rng, n)))),
    "posthog": ("posthog", 1, _json(payloads.posthog)),
    "posthog, batch": ("posthog", BATCH, _json(lambda rng, n: payloads.posthog_batch(rng, n, BATCH))),
    "cloudevents": ("cloudevents", 1, _json(payloads.cloudevent)),
}  # fmt: skip
"""Name → fixed format, events a message, and what makes the n-th message."""
JUDGED: Final = ("native", "segment", "rudderstack", "snowplow, TSV", "posthog", "posthog, batch")


class Measured(msgspec.Struct):
    """One workload: events, CPU µs of an event, of that in decode, and bytes of an event."""

    name: str
    events: int
    total_us: float
    decode_us: float
    bytes_each: float

    @property
    def per_s(self) -> float:
        """Events per second of one process."""
        return 1e6 / self.total_us


def messages(name: str, events: int) -> list[bytes]:
    """The messages of a workload; the same on every run."""
    _, size, make = WORKLOADS[name]
    rng = random.Random(7)
    return [make(rng, n) for n in range(max(1, events // size))]


def measure(name: str, events: int, by_shape: bool = False) -> Measured:
    """Decode and scrub all messages, slice by slice and each slice some times over; the fastest time of each counts.

    Raises:
        SystemExit: a message was refused: then the bench measures something else.
    """
    fmt, size = None if by_shape else WORKLOADS[name][0], WORKLOADS[name][1]
    options, values = _options(), messages(name, events)
    privacy = Privacy(b"measured, not secret", labels=options.labels)
    total_s, decode_s, count = 0.0, 0.0, 0
    for slice_ in (values[at : at + SLICE // size] for at in range(0, len(values), SLICE // size)):
        times = []
        for _ in range(RUNS):
            began = time.process_time()
            outcomes = [outcome for value in slice_ for outcome in decode(value, fmt, options)]
            decoded = time.process_time()
            for outcome in outcomes:
                privacy.scrub(outcome)
            times.append((time.process_time() - began, decoded - began))
        if refused := [outcome for outcome in outcomes if isinstance(outcome, Rejection)]:
            raise SystemExit(f"{name}: {len(refused)} of {len(outcomes)} were refused, such as {refused[0]}")
        count += sum(isinstance(outcome, Event) for outcome in outcomes)
        total_s += min(total for total, _ in times)
        decode_s += min(part for _, part in times)
    return Measured(name, count, total_s / count * 1e6, decode_s / count * 1e6, sum(map(len, values)) / count)


def _options() -> FormatOptions:
    return FormatOptions.from_settings(Settings(), NOW_S)


def profile(name: str, events: int, top: int) -> None:
    """Where the time of one workload goes."""
    fmt, options, values = WORKLOADS[name][0], _options(), messages(name, events)
    profiler = cProfile.Profile()
    profiler.enable()
    for value in values:
        decode(value, fmt, options)
    profiler.disable()
    pstats.Stats(profiler, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(top)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; with `--check` 1 if a judged format misses the target."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.formats", description=about)
    parser.add_argument("--events", type=int, default=20_000, help="events of each format")
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), help="this one (repeatable); default: all")
    parser.add_argument("--check", action="store_true", help="fail where the target is missed")
    parser.add_argument("--by-shape", action="store_true", help="with no format fixed for the topic")
    parser.add_argument("--cprofile", choices=list(WORKLOADS), help="profile the decoding of this one instead")
    parser.add_argument("--top", type=int, default=25, help="lines of the profile")
    given = parser.parse_args(arguments)
    if given.cprofile:
        profile(given.cprofile, given.events, given.top)
        return 0
    found = [measure(name, given.events, given.by_shape) for name in given.only or WORKLOADS]
    _show(found, "told apart by shape" if given.by_shape else "format fixed")
    return int(given.check and any(one.per_s < TARGET for one in found if one.name in JUDGED))


def _show(found: Sequence[Measured], how: str) -> None:
    table = Table("format", "events/s", "µs/event", "of it decode", "bytes/event", "target", title=f"formats, {how}")
    for one in found:
        verdict = ("met" if one.per_s >= TARGET else "MISSED") if one.name in JUDGED else ""
        numbers = (f"{one.per_s:,.0f}", f"{one.total_us:.1f}", f"{one.decode_us:.1f}", f"{one.bytes_each:,.0f}")
        table.add_row(one.name, *numbers, verdict)
    Console(width=100).print(table)
    print(f"target: {TARGET:,} events/s of decode + scrub in one process; CPU time, fastest of {RUNS} runs a slice")


if __name__ == "__main__":
    sys.exit(main())
