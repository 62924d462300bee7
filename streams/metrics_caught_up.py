"""Which partitions have counters that Prometheus may see.

Counters come out of checkpointed state. After a kill that state is some seconds old until the log is read again, so for
a moment a counter is lower than it was, under the same address; Prometheus would take that for a restart from 0 and add
the count of a lifetime as a spike. So the counters of a partition that was restored are left out until it has come to
where its log ended when it was first looked at. A gap in a counter is harmless: growth is reckoned across it. Gauges
are never left out: a finding that is open stays open.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from streams.stage import ExactStage, Slot


class _Seen(NamedTuple):
    """A slot that was looked at.

    Attributes:
        slot: it; another one means that the partition was loaded again.
        target: where its log ended at first; 0 if nothing was restored, None while it is not known.
        reached: it had come so far when it was looked at last.
    """

    slot: Slot
    target: int | None
    reached: bool


class CaughtUp:
    """Remembers how far each partition had to come."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, _Seen]] = {}

    def units(self, stage: ExactStage) -> dict[int, Any]:
        """Partition → pure stage, of those partitions of a stage whose counters may be told."""
        before, now, told = self._seen.get(stage.name, {}), dict[int, _Seen](), dict[int, Any]()
        for partition, slot in list(stage.slots.items()):
            seen = before.get(partition)
            if seen is None or seen.slot is not slot:
                seen = _Seen(slot, None if slot.durable >= 0 else 0, reached=False)
            target = stage._source.end(partition) if seen.target is None else seen.target
            reached = target is not None and slot.offset + 1 >= target
            now[partition] = _Seen(slot, target, seen.reached or reached)
            # The offset is noted before the batch is applied: what has just been reached may not be counted yet.
            if seen.reached or (reached and (slot.untouched or not target)):
                told[partition] = slot.unit.stage
        self._seen[stage.name] = now
        return told
