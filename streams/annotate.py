"""Findings as annotations on Grafana's dashboards: when one begins, changes its level, ends.

The line only lays findings down here (`offer`), after they are durable, and never waits: a thread of its own talks to
Grafana. What waits is bounded, a newer word about a finding replaces an older one, and what finds no room is dropped
and counted. Nothing is lost for good by that: the line tells its open and recent findings again whenever partitions
are dealt out, and what Grafana shows already is recognised by the tag of its id, so that nobody annotates it twice.
What it was seen to show is believed for `BELIEVE_S` only, and not after it was away: its database may be a new one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from mode import Service

from dashboards.grafana import FINDING_TAG, TAG, Annotation, Grafana
from streams.errors import GrafanaRefused, GrafanaUnavailable
from streams.findings import LEAST, Finding, is_small
from streams.settings import MonitoringSettings, Settings
from streams.stage import Record

REQUEST_S: Final = 3.0
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
STOP_S: Final = 0.5
"""Longest that the end of the worker waits for a request in hand; the thread ends with the process."""
BELIEVE_S: Final = 3600.0
"""How long Grafana is not asked again whether it shows what it was seen to show."""
OUTCOMES: Final = ("posted", "updated", "known", "refused", "retried", "dropped")
Send = Callable[[Iterable[Record]], Awaitable[None]]
log = logging.getLogger(__name__)


class Annotator(Service):  # type: ignore[misc]
    """Shows findings in Grafana while the worker runs.

    Args:
        settings: Grafana, its token, the findings topic; without `monitoring.grafana_annotations` nothing is done.
        grafana: instead of the configured one.
        room: findings that may wait; None: as many as all counts partitions keep.
        clock: monotonic seconds.

    Attributes:
        outcomes: what became of findings, by outcome: `posted` new ones, `updated` (level or end), `known` (shown
            before), `refused` by Grafana for good, `retried` (it was away), `dropped` (no room).
    """

    def __init__(
        self,
        settings: Settings,
        grafana: Grafana | None = None,
        room: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._monitoring, self._topic = settings.monitoring, settings.topics.findings
        self._room = room or settings.limits.findings * settings.topics.counts_partitions
        self._grafana = grafana or (_grafana(settings.monitoring) if settings.monitoring.grafana_annotations else None)
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self._waiting: OrderedDict[bytes, bytes] = OrderedDict()
        self._in_hand = False
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._clock = clock
        self._shown: OrderedDict[str, tuple[tuple[str, str | None], float]] = OrderedDict()
        self._pause_s = 0.0
        self._thread = threading.Thread(target=self._work, name="annotate", daemon=True)

    def after(self, send: Send) -> Send:
        """The same sender; findings that it has made durable are annotated, in their own time."""
        if self._grafana is None:
            return send

        async def sent(records: Iterable[Record]) -> None:
            records = list(records)
            await send(records)
            for record in records:
                if record.topic == self._topic and record.value is not None:
                    self.offer(record.key, record.value)

        return sent

    def offer(self, key: bytes, finding: bytes) -> None:
        """Lay down a finding, as it is in the findings topic. Returns at once."""
        with self._changed:
            if key not in self._waiting and self.waiting >= self._room:
                self.outcomes["dropped"] += 1
                return
            self._waiting[key] = finding
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Findings that wait, with the one in hand."""
        return len(self._waiting) + self._in_hand

    async def on_start(self) -> None:
        """Begin, if it is configured."""
        if self._grafana is not None:
            self._thread.start()

    async def on_stop(self) -> None:
        """End; what waits is told again by the next worker."""
        self._ending.set()
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, STOP_S)

    # ── in the thread ─────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while not self._ending.is_set():
            with self._changed:
                while not self._waiting and not self._ending.is_set():
                    self._changed.wait()
                if self._ending.is_set():
                    return
                key, finding = self._waiting.popitem(last=False)
                self._in_hand = True
            away = self._show(key, finding)
            with self._changed:
                self._in_hand = False
                if away and key not in self._waiting:  # first in line again, unless there is newer word of it
                    self._waiting[key] = finding
                    self._waiting.move_to_end(key, last=False)

    def _show(self, key: bytes, encoded: bytes) -> bool:
        """Annotate one; whether Grafana is away, so that it must be tried again."""
        try:
            finding = msgspec.json.decode(encoded, type=Finding)
            self._count(self._annotate(finding))
            self._pause_s = 0.0
        except GrafanaRefused as refused:
            self._count("refused")
            log.error("finding %s is not annotated: %s", key.decode(), refused)
            self._rest()  # a wrong token would otherwise be tried with every finding at full speed
        except GrafanaUnavailable as away:
            self._count("retried")
            if not self._pause_s:
                log.warning("findings are not annotated for now: %s", away)
            self._rest()
            return True
        except Exception:  # this thread must outlive a bug: the line does not depend on it, the next finding might do
            self._count("refused")
            log.exception("finding %s is not annotated", key.decode(errors="replace"))
        return False

    def _annotate(self, finding: Finding) -> Literal["posted", "updated", "known"]:
        assert self._grafana is not None
        state = (finding.level, finding.resolved_at)
        shown, until = self._shown.get(finding.id, (None, 0.0))
        if shown == state and self._clock() < until:
            return "known"
        outcome = self._grafana.annotate(annotation(finding, self._monitoring.status_url))
        self._shown[finding.id] = state, self._clock() + BELIEVE_S
        self._shown.move_to_end(finding.id)
        while len(self._shown) > self._room:
            self._shown.popitem(last=False)
        return outcome

    def _count(self, outcome: str) -> None:
        with self._changed:
            self.outcomes[outcome] += 1

    def _rest(self) -> None:
        self._shown.clear()  # who was away, or does not know our token any more, may have come back empty
        self._pause_s = min(max(PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._ending.wait(self._pause_s)


def annotation(finding: Finding, status_url: str | None = None) -> Annotation:
    """A finding as it is shown: from its onset to its end, or until it was noticed while it is open.

    Args:
        finding: has no personal data: counts of segments, never people; numbers of few are left out.
        status_url: base URL of the status page, for a link.
    """
    end = finding.resolved_at or finding.detected_at
    segment = ", ".join(f"{label}={value}" for label, value in finding.segment.items() if label != "stage")
    where = finding.segment["stage"] + (f" ({segment})" if segment else "")
    ended = f" Ended {finding.resolved_at[:16].replace('T', ' ')} UTC." if finding.resolved_at else ""
    link = f"\n{status_url.rstrip('/')}/#finding={finding.id}" if status_url else ""
    summary = f"{finding.detector}: fewer than {LEAST} people, not shown." if is_small(finding) else finding.summary
    text = f"{summary}{ended}\nOwner: {finding.owner}. Segment: {where}.{link}"
    return Annotation(
        key=f"{FINDING_TAG}:{finding.id}",
        time_ms=_ms(finding.onset),
        end_ms=max(_ms(finding.onset), _ms(end)),
        text=_plain(text),
        tags=(FINDING_TAG, finding.detector, finding.direction),
    )


def _plain(text: str) -> str:
    """Grafana shows annotations as HTML, and labels of a segment come from events: nothing of them is markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ms(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1000)


def _grafana(monitoring: MonitoringSettings) -> Grafana:
    assert monitoring.grafana_api is not None and monitoring.grafana_token is not None  # checked by the settings
    return Grafana(monitoring.grafana_api, monitoring.grafana_token.get_secret_value(), REQUEST_S)


__all__ = ["TAG", "Annotator", "annotation"]
