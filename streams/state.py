"""What the live line knows, read from its checkpoints: digest, accounting, findings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from aiokafka.errors import KafkaError

from streams.checkpoints import from_records
from streams.errors import BrokerUnavailable, CheckpointRefused
from streams.findings import Finding
from streams.kafka import aiokafka_options
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.store import read_compacted
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
    """

    state_digest: str
    accounting: dict[str, int]
    dead_letters: dict[str, int]
    findings: list[Finding]
    open_sessions: int
    pending_events: int
    until: float


def read_state(settings: Settings) -> LineState:
    """Read every partition's last checkpoint.

    Raises:
        CheckpointRefused: one is damaged, or of another version or other parameters.
        BrokerUnavailable: no broker answers, or it lacks the topics.
    """
    try:
        return asyncio.run(_read(settings))
    except (KafkaError, ValueError, OSError) as error:
        raise BrokerUnavailable(f"kafka.bootstrap_servers {settings.kafka.bootstrap_servers}: {error}") from error


async def _restore(settings: Settings, topic: str, stages: Sequence[Sessionizer | Watcher]) -> None:
    for partition, stage in enumerate(stages):
        records = await read_compacted(topic, partition, aiokafka_options(settings.kafka))
        found = from_records(records, f"{topic}[{partition}]")
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
    findings = [finding for watcher in watchers for finding in watcher.findings]
    return LineState(
        state_digest(sessionizers, watchers),
        {"consumed": sum(t.consumed for t in totals), **accounting, "steps": sum(t.steps for t in totals)},
        dict(sorted(dead.items())),
        sorted(findings, key=lambda finding: (finding.detected_at, finding.id)),
        sum(len(stage.state.sessions) for stage in sessionizers),
        sum(stage.pending_events for stage in sessionizers),
        min(watcher.state.judged_until for watcher in watchers),
    )


__all__ = ["CheckpointRefused", "LineState", "read_state"]
