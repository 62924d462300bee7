"""What the live line knows, read from its checkpoints: digest, accounting, findings; and how to make it forget."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.checkpoints import former_key, from_records, require_key
from streams.connection import explain
from streams.errors import BrokerUnavailable, CheckpointRefused, UsageError
from streams.findings import Finding, public
from streams.kafka import aiokafka_options
from streams.outbox import Outbox
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.stage import Record
from streams.store import place, read_compacted
from streams.units import Plan, state_digest
from streams.watch import Watcher


class LineState(msgspec.Struct, frozen=True):
    """The durable state of all partitions.

    Attributes:
        state_digest: equal to that of a backtest of the same events.
        accounting: outcome → items; `consumed` is their sum.
        dead_letters: reason → items.
        findings: all that are known, oldest first.
        open_sessions: sessions that are open.
        pending_events: events that wait for the watermark.
        until: event time up to which every bucket was judged, seconds.
        changes: the latest changes of what is proven.
    """

    state_digest: str
    accounting: dict[str, int]
    dead_letters: dict[str, int]
    findings: list[Finding]
    open_sessions: int
    pending_events: int
    until: float
    changes: list[Finding]


def read_state(settings: Settings) -> LineState:
    """Read every partition's last checkpoint.

    Raises:
        CheckpointRefused: one is damaged, or of another version or other parameters.
        BrokerUnavailable: no broker answers, or it lacks the topics.
    """
    try:
        return asyncio.run(_read(settings))
    except (KafkaError, ValueError, OSError) as error:
        raise BrokerUnavailable(explain(settings.kafka, error)) from error


def reset_state(settings: Settings, stages: Collection[str] = (), partitions: Collection[int] = ()) -> list[str]:
    """Delete checkpoints, so that the next start rebuilds their state from the log.

    Args:
        settings: all knobs.
        stages: `sessionize`, `watch`; none: both.
        partitions: which of them; none: all.

    Returns:
        `topic[partition]` of those that there were.

    Raises:
        UsageError: workers are running: they would write their state again. Or there is no such partition.
        BrokerUnavailable: no broker answers, or it lacks the topics.
    """
    topics = settings.topics
    known = {
        "sessionize": (topics.sessions_state, topics.events_partitions),
        "watch": (topics.watch_state, topics.counts_partitions),
    }
    chosen = [known[stage] for stage in stages or known]
    wanted = [(topic, [p for p in partitions or range(count) if p < count]) for topic, count in chosen]
    if not any(own for _, own in wanted):
        raise UsageError(f"there is no partition {max(partitions)}; the topics have {[count for _, count in chosen]}")
    try:
        return asyncio.run(_reset(settings, wanted))
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(explain(settings.kafka, error)) from error


async def _reset(settings: Settings, wanted: list[tuple[str, list[int]]]) -> list[str]:
    members = await _members(settings)
    if members:
        raise UsageError(f"{members} workers of group {settings.app_id} are running: stop them first")
    records = []
    for topic, partitions in wanted:
        found = await read_compacted(topic, partitions, aiokafka_options(settings.kafka))
        records += [Record(topic, partition, key, None) for partition, keys in found.items() for key in keys]
    outbox = Outbox(settings)
    await outbox.start()
    try:
        await outbox.send(records)
    finally:
        await outbox.stop()
    return list(dict.fromkeys(place(record.topic, record.partition or 0) for record in records))


async def _members(settings: Settings) -> int:
    """Workers that are in the group of the stages now."""
    admin = AIOKafkaAdminClient(**aiokafka_options(settings.kafka))
    try:
        await admin.start()
        described = await admin.describe_consumer_groups([settings.app_id])
    finally:
        await admin.close()
    return sum(len(group[5]) for response in described for group in response.groups)


async def _restore(settings: Settings, topic: str, stages: Sequence[Sessionizer | Watcher]) -> None:
    key = require_key(settings)
    records = await read_compacted(topic, range(len(stages)), aiokafka_options(settings.kafka))
    for partition, stage in enumerate(stages):
        found = from_records(records.pop(partition), place(topic, partition), key, former_key(settings))
        if found is not None:
            stage.restore(found.state)


async def _read(settings: Settings) -> LineState:
    plan, topics = Plan(settings), settings.topics
    sessionizers = [plan.sessionizer(partition) for partition in range(topics.events_partitions)]
    watchers = [plan.watcher(partition) for partition in range(topics.counts_partitions)]
    await _restore(settings, topics.sessions_state, sessionizers)
    await _restore(settings, topics.watch_state, watchers)
    totals = [stage.state.totals for stage in sessionizers]
    dead: dict[str, int] = {}
    for total in totals:
        for reason, count in total.dead_letters.items():
            dead[reason] = dead.get(reason, 0) + count
    accounting = {name: sum(getattr(t, name) for t in totals) for name in ("applied", "duplicate", "late")}
    accounting["dead_letter"] = sum(dead.values())
    findings = [public(finding) for watcher in watchers for finding in watcher.findings]
    return LineState(
        state_digest(sessionizers, watchers),
        {"consumed": sum(t.consumed for t in totals), **accounting, "steps": sum(t.steps for t in totals)},
        dict(sorted(dead.items())),
        sorted(findings, key=lambda finding: (finding.detected_at, finding.id)),
        sum(len(stage.state.sessions) for stage in sessionizers),
        sum(stage.pending_events for stage in sessionizers),
        min(watcher.state.judged_until for watcher in watchers),
        [public(change) for watcher in watchers for change in watcher.changes],
    )


__all__ = ["CheckpointRefused", "LineState", "read_state", "reset_state"]
