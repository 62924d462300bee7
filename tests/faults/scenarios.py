"""The nine faults, each while 200,000 events run through real processes; and the run that nothing disturbs."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from deploy.kafka import Broker
from tests.faults import raising
from tests.faults.installation import (
    SESSION_TIMEOUT_S,
    CheckpointWatch,
    Deadline,
    Feed,
    Installation,
    Process,
    installation,
    pair_of_brokers,
)
from tests.faults.recording import EVENTS, Recording, closed, disturbed, poisoned
from tests.faults.results import OF_TRACKING, Results, differences, durable, of_line, raised

KILLS: Final = 5
REFUSED_S: Final = 30.0
AWAY_S: Final = (1.0, 4.0)
MORE: Final = 0.12
"""Share that is produced beyond what is waited for."""
STATE_TOPICS: Final = ("sessions_state", "watch_state")


class Stand(msgspec.Struct):
    """What a scenario is given.

    Attributes:
        bootstrap: the broker of all scenarios that do not bring their own.
        undisturbed: the recording.
        closing: the punctuation at its end.
        reference: results of the undisturbed run; None in that run itself.
        rng: all that is random.
        folder: takes logs.
        deadline: by which it must be done.
        name: prefix of topics and groups.
    """

    bootstrap: str
    undisturbed: Recording
    closing: bytes
    reference: Results | None
    rng: random.Random
    folder: Path
    deadline: Deadline
    name: str


class Shown(msgspec.Struct):
    """What a run showed.

    Attributes:
        results: what it found.
        differences: what is not as it should be.
        leave_s: how long the slowest process took to leave.
        said: what was done to it, and where.
    """

    results: Results
    differences: list[str]
    leave_s: float
    said: list[str]


Scenario = Callable[[Stand], Shown]


# ── the frame of every scenario ───────────────────────────────────────────────────────────────────────────────────────


class Run:
    """A line that is fed, until its results are compared."""

    def __init__(self, stand: Stand, line: Installation, feed: Feed, recording: Recording) -> None:
        self.stand = stand
        self.line = line
        self.feed = feed
        self.said: list[str] = []
        self._recording = recording

    def reach(self, share: float) -> int:
        """Wait until so large a share is accounted for; returns the items.

        Little more is produced until `go_on`: what happens next happens in the middle, however slow the machine.
        """
        wanted, seen = share * EVENTS, 0
        self.feed.hold = share + MORE

        def reached() -> bool:
            nonlocal seen
            seen = self.line.consumed()
            return seen >= wanted

        self.line.until(reached, f"{share:.0%} consumed")
        return seen

    def settle(self) -> None:
        """Wait until all that was produced is handled."""
        end = float(json.loads(self.stand.closing)["time"])
        bucket_s = self.line.settings.time.bucket_s
        self.line.settle(end // bucket_s * bucket_s)

    def go_on(self) -> None:
        """Produce the rest."""
        self.feed.hold = 1.0

    def finish(self, *, without: Collection[str] = ()) -> Shown:
        """Wait until all is handled, let all leave in order, and compare what is durable then.

        Args:
            without: detectors, stages and parts of states that are left out of the comparison.
        """
        self.go_on()
        self.line.until(lambda: self.feed.done, "all produced", every_s=0.2)
        self.settle()
        leave_s = self.line.leave()
        results = of_line(self.line)
        wanted = self.stand.reference or results
        found = differences(results, wanted, self._recording, without=without)
        # The digest of the whole holds the accounting, which other sources make another one.
        if not found and not without and results.sums == wanted.sums and results.digest != wanted.digest:
            found.append(f"digest {results.digest}, wanted {wanted.digest}")
        return Shown(results, found, leave_s, self.said)


@contextmanager
def running(
    stand: Stand, recording: Recording | None = None, *, bootstrap: str = "",
    module: str = "streams.cli", replicas: int = 1,
) -> Iterator[Run]:  # fmt: skip
    """A line without processes yet, and the feed of its raw topics."""
    whole = closed(recording or stand.undisturbed, stand.closing)
    where = bootstrap or stand.bootstrap
    with (
        installation(where, stand.name, f"{stand.name}.raw", stand.folder, stand.deadline,
                     module=module, replicas=replicas) as line,
        Feed(line, whole) as feed,
    ):  # fmt: skip
        yield Run(stand, line, feed, whole)


def moments(rng: random.Random, count: int) -> list[float]:
    """Random shares of the whole, in order and some way apart, so that each falls into the middle of something."""
    width = 0.85 / count
    return [0.06 + width * (n + 0.75 * rng.random()) for n in range(count)]


# ── the scenarios ─────────────────────────────────────────────────────────────────────────────────────────────────────


def nothing(stand: Stand) -> Shown:
    """Nothing: the undisturbed run."""
    with running(stand) as run:
        run.line.ingest()
        run.line.stages()
        return run.finish()


def worker_killed(stand: Stand) -> Shown:
    """SIGKILL of the worker, five times; every other time while it writes a checkpoint."""
    with running(stand) as run:
        line = run.line
        line.ingest()
        worker, torn = line.stages(), 0
        for n, share in enumerate(moments(stand.rng, KILLS)):
            at = run.reach(share)
            torn += n % 2 and CheckpointWatch(line).freeze(worker)
            worker.crash()
            worker = line.stages()
            run.go_on()
            kept = durable(line)
            assert 0 < at < EVENTS and kept < EVENTS, f"kill {n + 1} not in the middle: at {at}, {kept} durable"
            run.said.append(f"{at:,}({kept:,})")
        run.said = [f"killed at {' '.join(run.said)} (durable); {torn} within a checkpoint"]
        return run.finish()


def ingest_killed(stand: Stand) -> Shown:
    """SIGKILL of ingest, five times."""
    with running(stand) as run:
        line, raw = run.line, [topic.name for topic in run.line.settings.topics.raw]
        group = f"{line.name}-ingest"
        line.stages()
        ingest, base, read = line.ingest(), 0, 0

        def position() -> int:
            nonlocal read
            read = base + int(sum(value for *_, value in ingest.metrics("trustwatch_ingest_items_total")))
            return read

        for n, share in enumerate(moments(stand.rng, KILLS)):
            wanted = share * EVENTS
            line.until(lambda wanted=wanted: position() >= wanted, "the middle of ingest", every_s=0.02)  # type: ignore[misc]
            ingest.crash()
            base = sum(line.offsets.committed(group, raw).values())
            assert 0 < read < EVENTS and base < EVENTS, f"kill {n + 1} not in the middle: {read} read, {base} committed"
            ingest = line.ingest()
            run.said.append(f"{read:,}({base:,})")
        run.said = [f"killed at {' '.join(run.said)} (committed)"]
        return run.finish()


def broker_restarted(stand: Stand) -> Shown:
    """The broker stops and starts again twice: once in order, once killed."""
    with Broker() as broker, running(stand, bootstrap=broker.bootstrap) as run:
        run.line.ingest()
        run.line.stages()
        ways = ["in order", "killed"]
        stand.rng.shuffle(ways)
        for way, share in zip(ways, moments(stand.rng, 2), strict=True):
            at = run.reach(share)
            assert 0 < at < EVENTS, f"the broker stops at {at}, not in the middle"
            began = time.monotonic()
            run.go_on()
            if way == "killed":
                broker.kill()
                time.sleep(stand.rng.uniform(*AWAY_S))
                broker.start()
            else:
                broker.restart()
            run.said.append(f"{way} at {at:,}, away for {time.monotonic() - began:.1f} s")
        return run.finish()


def workers_join_and_leave(stand: Stand) -> Shown:
    """A second and a third worker join, one leaves; ingest and stages move."""
    with running(stand) as run:
        line = run.line
        workers = [line.worker()]
        at = run.reach(stand.rng.uniform(0.06, 0.2))
        before = _owned(line, 1)
        run.feed.hold = 0.5
        workers += [line.worker(), line.worker()]
        among = _owned(line, 3)
        seen = run.reach(0.5 + stand.rng.uniform(0.0, 0.2))
        busy = [_applied(worker) for worker in workers]
        assert sum(map(bool, busy)) >= 2, f"frames and counts applied by each: {busy}"
        leaver = stand.rng.choice([worker for worker, applied in zip(workers, busy, strict=True) if applied])
        run.go_on()
        took = leaver.leave()
        after = _owned(line, 2)
        assert at < EVENTS and seen < EVENTS, f"not in the middle: {at}, {seen}"
        run.said.append(
            f"joined at {at:,}, left at {seen:,} in {took:.1f} s; partitions {before} → {among} → {after};"
            f" frames and counts applied by each {busy}"
        )
        return run.finish()


def _owned(line: Installation, members: int) -> str:
    """Partitions of each member of both groups, once there are so many and they share the work.

    Faust lets everybody keep what they have up to an equal share, rounded up: who joins third to four partitions may
    get none of them, if the second was there before.
    """
    topics = line.settings.topics
    told = ""

    def spread() -> bool:
        nonlocal told
        stages = line.offsets.owners(line.name)
        ingest = line.offsets.owners(f"{line.name}-ingest")
        events = sorted(sum(topic == topics.events for topic, _ in owned) for owned in stages.values())
        raw = sorted(map(len, ingest.values()))
        told = f"events {'+'.join(map(str, events))} raw {'+'.join(map(str, raw))}"
        whole = sum(events) == topics.events_partitions and sum(raw) == topics.raw_partitions * len(topics.raw)
        fair = max(events, default=0) == -(-topics.events_partitions // members) and min(raw, default=0) > 0
        return whole and fair and len(events) == len(raw) == members

    line.until(spread, f"{members} members that share the partitions", every_s=0.2)
    return told


def _applied(worker: Process) -> int:
    return int(sum(value for *_, value in worker.metrics("trustwatch_stage_messages_total")))


def sources_disturbed(stand: Stand) -> Shown:
    """Every tenth event twice, blocks out of order within the lateness, 1 % more beyond it."""
    recording = disturbed(stand.undisturbed, stand.rng)
    with running(stand, recording) as run:
        run.line.ingest()
        run.line.stages()
        run.said.append(", ".join(f"{count:,} {fate}" for fate, count in sorted(recording.totals.items())))
        return run.finish(without=OF_TRACKING)


def sources_poisoned(stand: Stand) -> Shown:
    """1 % poison of every kind."""
    recording = poisoned(stand.undisturbed, stand.rng)
    with running(stand, recording) as run:
        run.line.ingest()
        run.line.stages()
        shown = run.finish(without=OF_TRACKING)
        reasons: dict[str, int] = {}
        for letter in shown.results.letters or ():
            reasons[letter.reason] = reasons.get(letter.reason, 0) + 1
        run.said.append(", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())))
        return shown


def worker_frozen(stand: Stand) -> Shown:
    """SIGSTOP past the session timeout while another takes over, then SIGCONT: once amid the work, once after its end.

    Each is frozen while it writes a checkpoint, so that the rest of it comes when it is long outdated.
    """
    with running(stand) as run:
        line, rng = run.line, stand.rng
        first, second = line.worker(), line.worker()
        run.feed.hold = 0.05
        _owned(line, 2)
        for zombie, share, last in ((first, rng.uniform(0.1, 0.3), False), (second, rng.uniform(0.7, 0.8), True)):
            at = run.reach(share)
            torn = CheckpointWatch(line).freeze(zombie)
            began, kept = time.monotonic(), durable(line)
            assert 0 < at < EVENTS and kept < EVENTS, f"frozen at {at}, {kept} durable: not in the middle"
            run.feed.hold = 1.0 if last else 0.75
            line.until(lambda began=began: time.monotonic() - began > SESSION_TIMEOUT_S, "the session is over")  # type: ignore[misc]
            _owned(line, 1)
            if last:
                line.until(lambda: run.feed.done, "all produced", every_s=0.2)
                run.settle()
            zombie.thaw()
            run.said.append(
                f"frozen at {at:,}{' within a checkpoint' * torn} for {time.monotonic() - began:.1f} s"
                f"{', until all was done' * last}"
            )
            _owned(line, 2)
        time.sleep(3.0)  # what it still had to say is said
        return run.finish()


def writes_refused(stand: Stand) -> Shown:
    """The broker refuses writes for 30 s: to all our topics, then to those of the checkpoints alone."""
    with (
        pair_of_brokers() as (broker, second),
        running(stand, bootstrap=broker.bootstrap, replicas=2) as run,
    ):
        line = run.line
        topics = line.settings.topics
        line.waiting()  # asks for both groups, so that their topic is made while it can have two replicas
        second.stop()
        line.offsets.renew()
        line.ingest()
        line.stages()
        every = [topics.events, topics.counts, topics.findings, topics.dead_letters]
        state = [getattr(topics, name) for name in STATE_TOPICS]
        for what, refused, share in (("all topics", every + state, 0.2), ("checkpoints", state, 0.55)):
            run.reach(share * stand.rng.uniform(0.8, 1.2))
            line.offsets.refuse_writes(refused, True)
            began, at = time.monotonic(), line.consumed()
            time.sleep(1.0)  # what was on its way has come, or not
            kept = durable(line)
            run.go_on()
            assert 0 < at < EVENTS and kept < EVENTS, f"refused at {at}, {kept} durable: not in the middle"
            line.until(lambda began=began: time.monotonic() - began >= REFUSED_S, "30 s", every_s=0.5)  # type: ignore[misc]
            end = durable(line)
            line.offsets.refuse_writes(refused, False)
            assert end == kept, f"{what}: {kept} were durable, then {end}: not refused"
            run.said.append(f"{what} at {at:,} ({kept:,} durable) for {time.monotonic() - began:.0f} s")
        return run.finish()


def detector_raises(stand: Stand) -> Shown:
    """A detector raises on every 1,000th observation."""
    with running(stand, module="tests.faults.raising") as run:
        run.line.ingest()
        run.line.stages()
        shown = run.finish(without={raising.NAME})
        results, reference = shown.results, stand.reference
        assert reference is not None
        observed = raised(results, raising.NAME)
        wanted = sum(n // raising.EVERY for n in observed)
        if not wanted or results.errors != {raising.NAME: wanted}:
            shown.differences.append(f"detector errors: {results.errors}, wanted {wanted}")
        if sum(observed) != reference.observations[raising.NAME]:
            shown.differences.append(f"observed {sum(observed)}, undisturbed {reference.observations[raising.NAME]}")
        run.said.append(f"{wanted} of {sum(observed):,} observations in {len(observed)} streams raised")
        return shown


SCENARIOS: Final[dict[str, tuple[str, Scenario]]] = {
    "a": ("worker killed 5 times", worker_killed),
    "b": ("ingest killed 5 times", ingest_killed),
    "c": ("broker restarted twice", broker_restarted),
    "d": ("workers join and leave", workers_join_and_leave),
    "e": ("repeated, mixed up, late", sources_disturbed),
    "f": ("poison of every kind", sources_poisoned),
    "g": ("worker frozen, comes back", worker_frozen),
    "h": ("writes refused for 30 s", writes_refused),
    "i": ("detector raises", detector_raises),
}
