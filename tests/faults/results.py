"""What a line found, read from Kafka after all its processes have left; and how two of them differ.

Nothing is asked of a process: states come from the checkpoints, counts and findings from their topics, dead letters
from theirs. The same is made of a backtest, which shares none of the live machinery.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from detectors._stages import JOURNEY, TRACKING
from streams.backtest import Backtest
from streams.checkpoints import HEAD, Checkpoint, Head, checkpoint_key, from_records, plain
from streams.events import REASONS
from streams.findings import Finding
from streams.frames import DeadLetter, Segment, company_partition, decode_counts, encode
from streams.recorded import RecordedFile
from streams.sessionize import Sessionizer, Totals
from streams.settings import Settings
from streams.store import place
from streams.units import Plan, state_digest
from streams.watch import State as WatchState
from streams.watch import Watcher
from tests.faults.installation import Installation
from tests.faults.recording import PARTITIONS, TOPICS, Fate, Letter, Recording, Source

SESSIONS_PARTS: Final = (
    "sessions", "leads", "later", "models", "pending", "labels", "totals", "counting", "groups", "withdrawn", "erased",
    "customers", "tracking",
)  # fmt: skip
WATCH_PARTS: Final = (
    "streams", "findings", "open", "heard", "ended", "pending", "errors", "shadows", "holds", "validation", "changes",
    "books", "guardrails",
)  # fmt: skip
WHOLE: Final = frozenset({"validation", "books", "guardrails"})
"""Parts that are no list of entries that somebody owns."""
OF_TRACKING: Final = frozenset({TRACKING, "data_trust", "holds"})
"""What counts repeats, late events and dead letters: with other input it is another."""
ITEMS: Final = ("applied", "duplicate", "late")
MOST_SHOWN: Final = 12

Counts = dict[tuple[str, Segment], dict[str, int]]
"""(stage, segment) → field → count, over all time."""


class Results(msgspec.Struct):
    """All that must be equal, and what else a line may say of itself.

    Attributes:
        digest: of the whole state, as `trustwatch state` tells it.
        parts: name → digest of a part of the state, without the accounting.
        findings: id → finding, as the state has them.
        published: id → finding, as the topic has them last; None for a backtest.
        counts: per stage and segment.
        cells: stage → digest of every count of every bucket, in whatever order they came; None for a backtest.
        fates: source → what became of its items.
        reasons: reason → items that are dead letters for it, as the state has them.
        errors: detector → observations on which it raised.
        observations: detector → observations made.
        letters: the dead letters in their topic; None for a backtest.
        totals: other numbers of the accounting, such as steps and evictions.
        repeats: items that were read again and recognised.
        resent: messages of the counts topic that were there before and recognised.
        outdated: checkpoints that were written after a newer one of their partition.
        uncovered: partitions whose last checkpoint does not cover what is acknowledged.
        blobs: the states themselves, encoded.
    """

    digest: str
    parts: dict[str, str]
    findings: dict[str, Finding]
    published: dict[str, Finding] | None
    counts: Counts
    cells: dict[str, str] | None
    fates: dict[Source, Counter[Fate]]
    reasons: dict[str, int]
    errors: dict[str, int]
    observations: dict[str, int]
    letters: set[Letter] | None
    totals: dict[str, int]
    repeats: int
    resent: int
    outdated: int = 0
    uncovered: list[str] = []
    blobs: list[bytes] = []

    @property
    def sums(self) -> Counter[Fate]:
        """What became of all items."""
        return sum(self.fates.values(), Counter())

    @property
    def consumed(self) -> int:
        """Items consumed."""
        return sum(self.sums.values())


def of_backtest(settings: Settings, path: Path) -> Results:
    """Results of a backtest of the file."""
    backtest = Backtest(settings)
    report = backtest.run([RecordedFile(path)])
    counts: Counts = {}
    for watcher in backtest.watchers:
        counts |= {key: dict(fields) for key, fields in watcher.rates.items()}
    return _of_state(backtest.sessionizers, backtest.watchers, report.summary.state_digest, counts)


def of_line(line: Installation) -> Results:
    """Results of a live line, from what is durable in Kafka."""
    settings, plan = line.settings, Plan(line.settings)
    topics = settings.topics
    sessionizers = [plan.sessionizer(n) for n in range(topics.events_partitions)]
    watchers = [plan.watcher(n) for n in range(topics.counts_partitions)]
    states = [*_restore(line, "sessions_state", sessionizers), *_restore(line, "watch_state", watchers)]
    counts, cells, resent = _counts(line)
    found = _of_state(sessionizers, watchers, state_digest(sessionizers, watchers), counts)
    found.cells, found.resent = cells, resent
    published = (_finding(value) for _, _, value in messages_of(line, "findings", 1) if value is not None)
    found.published = {one.id: one for one in published}  # the last of each id
    found.letters = _letters(line)
    for name, source, count in (
        ("sessions_state", "events", len(sessionizers)),
        ("watch_state", "counts", len(watchers)),
    ):
        outdated, wrong = _checkpoints(line, name, source, count)
        found.outdated += outdated
        found.uncovered += wrong
    found.blobs = [plain(checkpoint.state) for checkpoint in states]
    return found


def durable(line: Installation) -> int:
    """Items that the checkpoints of the sessionize stage account for."""
    topics, plan = line.settings.topics, Plan(line.settings)
    stages = [plan.sessionizer(n) for n in range(topics.events_partitions)]
    _restore(line, "sessions_state", stages)
    return sum(stage.state.totals.consumed for stage in stages)


def _restore(line: Installation, name: str, stages: Sequence[Sessionizer | Watcher]) -> list[Checkpoint]:
    """Restore stages from the newest record of each key of a state topic; returns the checkpoints."""
    topic, key = getattr(line.settings.topics, name), checkpoint_key(line.settings)
    records: list[dict[bytes, bytes]] = [{} for _ in stages]
    for partition, record, value in messages_of(line, name, len(stages)):
        if value is None:
            records[partition].pop(record, None)
        else:
            records[partition][record] = value
    found = []
    for n, stage in enumerate(stages):
        checkpoint = from_records(records[n], place(topic, n), key)
        if checkpoint is not None:
            stage.restore(checkpoint.state)
            found.append(checkpoint)
    return found


def _of_state(sessionizers: Sequence[Sessionizer], watchers: Sequence[Watcher], digest: str, counts: Counts) -> Results:
    totals = [stage.state.totals for stage in sessionizers]
    numbers = [name for name, kind in Totals.__annotations__.items() if name not in (*ITEMS, "dead_letters", "repeats")]
    findings = [finding for watcher in watchers for finding in (*watcher.findings, *watcher.changes)]
    return Results(
        digest=digest, parts=_parts(sessionizers, watchers), findings={one.id: one for one in findings}, published=None,
        counts={key: dict(sorted(fields.items())) for key, fields in sorted(counts.items())}, cells=None,
        fates=_fates(sessionizers), reasons=_added(one.dead_letters for one in totals),
        errors=_added(watcher.state.errors for watcher in watchers),
        observations=_added(watcher.state.observations for watcher in watchers), letters=None,
        totals={name: sum(getattr(one, name) for one in totals) for name in numbers},
        repeats=sum(one.repeats for one in totals), resent=0,
    )  # fmt: skip


def _parts(sessionizers: Sequence[Sessionizer], watchers: Sequence[Watcher]) -> dict[str, str]:
    """Digests of the parts of all states, the accounting left out; those of detectors apart."""
    found: dict[str, str] = {}
    for n, stage in enumerate(sessionizers):
        kept = stage.state.totals
        stage.state.totals = msgspec.structs.replace(kept, applied=0, duplicate=0, late=0, dead_letters={}, repeats=0)
        for name, part in zip(SESSIONS_PARTS, msgspec.json.decode(stage.digest_part()), strict=True):
            found[f"sessionize[{n}].{name}"] = _digest(part)
        stage.state.totals = kept
    for n, watcher in enumerate(watchers):
        for name, part in zip(WATCH_PARTS, msgspec.json.decode(watcher.digest_part()), strict=True):
            for owner, entries in [("", [part])] if name in WHOLE else _by_detector(part):
                found[f"watch[{n}].{name} {owner}"] = _digest(entries)
    return found


def _by_detector(part: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Entries by what they are about: detector, stage and segment of a stream, else the detector."""
    owned: dict[str, list[Any]] = {}
    for entry in part:
        if isinstance(entry, dict):
            owner = str(entry["detector"])
        elif isinstance(entry[0], str):
            owner = " ".join(map(str, entry[:-1]))
        else:
            owner = str(entry[0][0]) if isinstance(entry[0], list) else ""
        owned.setdefault(owner, []).append(entry)
    yield from sorted(owned.items())


def _fates(sessionizers: Sequence[Sessionizer]) -> dict[Source, Counter[Fate]]:
    """By source from the sources' own tallies, with the reasons of dead letters from the totals."""
    found: dict[Source, Counter[Fate]] = {(topic, n): Counter() for topic in TOPICS for n in range(PARTITIONS)}
    for stage in sessionizers:
        for name, source in stage.state.sources.items():
            topic, _, partition = name.rpartition("/")
            key: Any = (topic.rpartition(".")[2], int(partition))
            found.setdefault(key, Counter()).update(source.outcomes)
    return found


def _added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sorted(sum((Counter(part) for part in parts), Counter()).items()))


def _digest(part: object) -> str:
    return blake2b(msgspec.json.encode(part, order="sorted"), digest_size=8).hexdigest()


# ── topics ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _checkpoints(line: Installation, name: str, source: str, partitions: int) -> tuple[int, list[str]]:
    """Checkpoints that stand for less than one before them, and partitions whose last one does not cover what Kafka
    was told: the next start would have to read again what was acknowledged, if it is still there."""
    offsets: list[list[int]] = [[] for _ in range(partitions)]
    for partition, record, value in messages_of(line, name, partitions):
        if record == HEAD and value is not None:
            offsets[partition].append(msgspec.msgpack.decode(value, type=Head).offset)
    topic = getattr(line.settings.topics, source)
    told = line.offsets.committed(line.name, [topic])
    wrong = [
        f"{name}[{n}]: the last checkpoint is of offset {own[-1]}, the one before of {own[-2]}, the newest of"
        f" {max(own)}; acknowledged is all before {told[topic, n]}"
        for n, own in enumerate(offsets)
        if len(own) > 1 and own[-1] + 1 < told[topic, n]
    ]
    outdated = sum(one < newest for own in offsets for newest, one in zip(accumulate(own, max), own[1:], strict=False))
    return outdated, wrong


def messages_of(line: Installation, name: str, partitions: int) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Partition, key and value of all messages of one of our topics, each partition in order."""
    topic = getattr(line.settings.topics, name)
    consumer = Consumer({
        "bootstrap.servers": line.settings.kafka.bootstrap_servers, "group.id": f"{line.name}-reader",
        "enable.auto.commit": False, "fetch.wait.max.ms": 50, "log_level": 0,
        "enable.partition.eof": True,  # compaction and transactions leave offsets that no message has
    })  # fmt: skip
    with closing(consumer):
        consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(partitions)])
        left = set(range(partitions))
        while left:
            for message in consumer.consume(1000, 0.2):
                if message.error() is None:
                    yield message.partition(), message.key() or b"", message.value()
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise AssertionError(f"{topic}: {message.error()}")


def _counts(line: Installation) -> tuple[Counts, dict[str, str], int]:
    """Counts per stage and segment, the digest of all cells of each stage, and messages that came again."""
    sums: Counts = {}
    known: dict[tuple[int, int, int], bytes] = {}
    cells, resent = Counter[str](), 0
    company = company_partition(line.settings.topics.counts_partitions)
    for part, _, value in messages_of(line, "counts", line.settings.topics.counts_partitions):
        assert value is not None
        message = decode_counts(value)
        sealed = [
            encode([message.partition, cell.ts, cell.stage, cell.segment, sorted(cell.counts.items())])
            for cell in message.cells
        ]
        key = (part, message.partition, message.offset)
        content = blake2b(encode([message.watermark, sorted(sealed)])).digest()
        if key in known:
            resent += 1
            assert known[key] == content, f"counts of {key} came again with other content"
            continue
        known[key] = content
        for cell, one in zip(message.cells, sealed, strict=True):
            if cell.stage == JOURNEY and part != company:  # a copy: every partition gets them
                continue
            cells[cell.stage] += int.from_bytes(blake2b(one, digest_size=8).digest(), "big")
            fields = sums.setdefault((cell.stage, cell.segment), {})
            for field, count in cell.counts.items():
                fields[field] = fields.get(field, 0) + count
    return sums, {stage: f"{total % 2**64:016x}" for stage, total in cells.items()}, resent


def _finding(value: bytes) -> Finding:
    return msgspec.json.decode(value, type=Finding)


def _letters(line: Installation) -> set[Letter]:
    """All dead letters; one that was sent again after a crash of ingest has the same id and must be the same."""
    found: dict[str, Letter] = {}
    for _, _, value in messages_of(line, "dead_letters", 1):
        assert value is not None
        one = msgspec.json.decode(value, type=DeadLetter)
        topic: Any = one.topic.removeprefix(f"{line.raw}.")
        letter = Letter((topic, one.partition), one.offset, one.index, one.reason)
        assert found.setdefault(one.id, letter) == letter, f"dead letter {one.id} came again with other content"
    return set(found.values())


def raised(results: Results, detector: str) -> list[int]:
    """Observations of every stream of a detector whose state counts them as `observed`."""
    numbers = []
    for blob in results.blobs:
        _, _, state = msgspec.msgpack.decode(blob)
        try:
            streams = msgspec.convert(state, WatchState).streams
        except msgspec.ValidationError:
            continue
        numbers += [msgspec.msgpack.decode(s.blob).get("observed", 0) for s in streams if s.detector == detector]
    return numbers


# ── differences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def differences(
    found: Results, wanted: Results, truth: Recording, *, without: Collection[str] = ()
) -> list[str]:  # fmt: skip
    """What is not as in the undisturbed run or as the truth has it, a line each; empty if all is equal.

    Args:
        found: of the run with faults.
        wanted: of the undisturbed run, or of the backtest.
        truth: what became of each item, by construction.
        without: detectors, stages and parts of states that are left out.
    """
    out = [f"accounting of {line}" for line in _accounting(found, truth)]
    parts: list[tuple[str, Mapping[Any, Any], Mapping[Any, Any]]] = [
        ("state", found.parts, wanted.parts),
        ("findings", found.findings, wanted.findings),
        ("detector errors", found.errors, wanted.errors),
        ("counts", found.counts, wanted.counts),
        ("totals", found.totals, wanted.totals),
        # A detector that raises has made its observations all the same.
        ("observations", found.observations, wanted.observations),
    ]
    if found.cells is not None and wanted.cells is not None:
        parts.append(("cells", found.cells, wanted.cells))
    out += found.uncovered
    reasons = {fate: count for fate, count in truth.totals.items() if fate in REASONS}
    out += _unequal("dead letters of reason", found.reasons, reasons)
    for name, a, b in parts:
        left_out = without if name != "observations" or OF_TRACKING.issubset(without) else ()
        out += _unequal(name, _leave_out(a, left_out), _leave_out(b, left_out))
    if found.published is not None:
        out += _unequal("published findings against the state's", found.published, found.findings)
    if found.letters is not None and found.letters != truth.letters:
        missing, more = sorted(truth.letters - found.letters), sorted(found.letters - truth.letters)
        out.append(f"dead letters: {len(missing)} missing {missing[:3]}, {len(more)} too many {more[:3]}")
    return out


def _accounting(found: Results, truth: Recording) -> Iterator[str]:
    for source, fates in truth.fates.items():
        wanted = Counter({name: fates[name] for name in ITEMS if fates[name]})
        if dead := sum(count for name, count in fates.items() if name not in ITEMS):
            wanted["dead_letter"] = dead
        if found.fates.get(source, Counter()) != wanted:
            yield f"{source[0]}/{source[1]}: {dict(found.fates.get(source, {}))}, wanted {dict(wanted)}"


def _leave_out(entries: Mapping[Any, Any], without: Collection[str]) -> Mapping[Any, Any]:
    """Entries that are about none of these, by the words of their names, their stage or their detector."""
    if not without:
        return entries
    return {
        name: value for name, value in entries.items()
        if not {getattr(value, "detector", ""), *re.findall(r"\w+", name if isinstance(name, str) else name[0])}
        & {*without}
    }  # fmt: skip


def _unequal(name: str, found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> list[str]:
    keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    lines = [f"{name}: {key}: {_how(found.get(key), wanted.get(key))}" for key in keys[:MOST_SHOWN]]
    return lines + ([f"{name}: … and {len(keys) - MOST_SHOWN} more"] if len(keys) > MOST_SHOWN else [])


def _how(found: Any, wanted: Any) -> str:
    """Where two values differ; only the fields that do, where they have some."""
    a, b = (msgspec.to_builtins(one) if isinstance(one, msgspec.Struct) else one for one in (found, wanted))
    if isinstance(a, dict) and isinstance(b, dict):
        fields = [key for key in {**a, **b} if a.get(key) != b.get(key)]
        return ", ".join(f"{key} {a.get(key)!r} (wanted {b.get(key)!r})" for key in fields[:4])
    return f"{a!r}, wanted {b!r}"
