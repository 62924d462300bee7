"""One finding for the root segment, not forty: which segment explains what the streams of a family say.

A family is what one detector says of one kind of change, in one direction, at one stage; its streams are segments of
the same people. What happens in one segment shows, diluted, in all that overlap with it: mobile breaks, and everyone,
every channel and most pairs look worse, too. The hypotheses "exactly this segment changed" are compared by their gain
(the log-likelihood over "nothing changed"; what lies outside of a segment adds nothing): the highest explains the data
best.

- Naming a label costs ln(streams of the family) nats, a prior over segments. So of segments that hold the same data,
  the broadest is named, and everyone needs less evidence than mobile, mobile less than mobile from ads.
- Values of one label hold different people: they can be roots side by side, unless everyone explains them together.
- An overlapping stream is explained by an open root, and is no finding of its own, until it ends.
- A root moves to a stream that does clearly better, and then stays there for some hours.
- A change that began after a root was noticed cannot be explained by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log
from typing import Final

import msgspec

from detectors._base import Verdict
from streams.frames import Segment

MOVE_NATS: Final = 6.0
"""A stream must explain so much more than the root (400 times as likely) …"""
MOVE_RATIO: Final = 1.2
"""… and be better by this factor, because no baseline is exact, before it becomes the root."""
MOVE_REST_S: Final = 6 * 3600.0
"""A root that has moved stays where it is for so long, event time."""
MAX_ROOTS: Final = 3
"""More disjoint segments than this at once are no roots: everyone stands for them."""
GRACE_S: Final = 3600.0
"""When a root has ended, what it explained waits at least this long, event time …"""
RISE_NATS: Final = 8.0
"""… and has to gain this much from data since then, about what an alarm takes, to become a finding itself: what it had
before was the root's, and a small segment needs long to see that the old level is back. A change that seems to have
begun after a root was noticed has to gain this much more than the root in the same time."""
ECHO_S: Final = 7 * 86_400.0
"""An alert that comes so long after the end of a root, event time, but began before it, is an echo of the root."""
SILENT_S: Final = 3 * 86_400.0
"""A root whose stream has said nothing for so long, event time, explains nothing any more."""


class Heard(msgspec.Struct, array_like=True):
    """What a stream said last, while it warns or alerts.

    Attributes:
        verdict: the verdict.
        at: event time of it, seconds.
        waits_from: event time at which the root that explained it ended, seconds; None if none did.
        spent: what it had to say until then: the root's, not its own.
    """

    verdict: Verdict
    at: float
    waits_from: float | None = None
    spent: float = 0.0

    @property
    def alerting(self) -> bool:
        """Whether it alerts, not only warns."""
        return self.verdict.level == "alert"

    @property
    def strength(self) -> float:
        """The gain, or what comes nearest where a detector has none; without what was another's."""
        verdict = self.verdict
        return (verdict.gain or verdict.evidence.get("statistic", verdict.score)) - self.spent

    def wait(self, now: float) -> None:
        """The root that explained it has ended: from now on it has to show strength of its own."""
        self.waits_from = now
        self.spent += self.strength

    def waits(self, now: float) -> bool:
        """Whether it still has to show it."""
        if self.waits_from is None:
            return False
        in_nats = self.verdict.gain > 0.0 or "statistic" in self.verdict.evidence
        return now < self.waits_from + GRACE_S or self.strength < (RISE_NATS if in_nats else 0.0)


class Open(msgspec.Struct, array_like=True):
    """Book-keeping of an open finding: its segment is a root.

    Attributes:
        id: of the finding.
        sent: when it was sent last, event time, seconds.
        since: when what it tells of was first noticed, here or at the segments that it moved from.
        moved: when it moved here; 0 if it began here.
    """

    id: str
    sent: float
    since: float = 0.0
    moved: float = 0.0


class Decision(msgspec.Struct, frozen=True):
    """What is to change.

    Attributes:
        begin: segments that become roots.
        end: roots that give way to the one in `begin`.
    """

    begin: tuple[Segment, ...] = ()
    end: tuple[Segment, ...] = ()


def decide(heard: Mapping[Segment, Heard], roots: Mapping[Segment, Open], streams: int, now: float) -> Decision:
    """Which segments become roots, and which give way.

    Args:
        heard: what the streams of a family say that warn or alert.
        roots: the open findings of the family.
        streams: number of watched streams that the family chooses from.
        now: event time, seconds.
    """
    ready = {segment: one for segment, one in heard.items() if segment not in roots and not one.waits(now)}
    free = {segment: one for segment, one in ready.items() if not _explained(segment, one, heard, roots, now)}
    chosen = choose(free, streams)
    stay = {segment for segment, root in roots.items() if root.moved and now < root.moved + MOVE_REST_S}
    for segment in sorted(ready, key=lambda segment: _rank(segment, ready[segment].strength)):
        if segment in chosen or not ready[segment].alerting:
            continue
        rivals = [root for root in (*roots, *chosen) if overlap(root, segment)]
        if stay.isdisjoint(rivals) and _beats(segment, rivals, heard, streams):
            if () in rivals and len(_narrow(ready, streams)) > MAX_ROOTS:
                break  # one of so many: everyone stands for all of them
            kept = (root for root in chosen if root not in rivals)
            return Decision((segment, *kept), tuple(sorted(set(roots).intersection(rivals))))
    return Decision(tuple(chosen))


def choose(heard: Mapping[Segment, Heard], streams: int) -> list[Segment]:
    """The disjoint segments that explain best why some of these streams alert.

    One that only warns may be among them, where it explains more than one that alerts, by as much as a label costs.
    """
    if not any(one.alerting for one in heard.values()):
        return []
    narrow = _narrow(heard, streams)
    together = sum(_worth(segment, heard[segment], streams) for segment in narrow)
    if () in heard and (not narrow or len(narrow) > MAX_ROOTS or _worth((), heard[()], streams) >= together):
        return [()]
    return narrow


def _narrow(heard: Mapping[Segment, Heard], streams: int) -> list[Segment]:
    """The best disjoint segments that name a label, the best of all first."""
    worth = {segment: _worth(segment, one, streams) for segment, one in heard.items()}
    ranked = sorted(worth, key=lambda segment: _rank(segment, worth[segment]))
    taken: list[Segment] = []
    for alerting in (segment for segment in ranked if heard[segment].alerting):
        if not _apart(alerting, taken):
            continue
        best = next((one for one in ranked if one and overlap(one, alerting) and _apart(one, taken)), ())
        if best and worth[best] >= worth[alerting]:
            taken.append(best)
    return taken


def overlap(one: Segment, other: Segment) -> bool:
    """Whether two segments may hold the same people: they differ in no label that both have.

    >>> overlap((("device", "tv"),), (("country", "DE"), ("device", "tv"))), overlap((), (("device", "tv"),))
    (True, True)
    >>> overlap((("device", "tv"),), (("device", "mobile"),))
    False
    """
    values = dict(one)
    return all(values.get(label, value) == value for label, value in other)


def is_echo(segment: Segment, verdict: Verdict, ended: Mapping[Segment, float], now: float) -> bool:
    """Whether what a stream says anew began before another root, that overlaps, ended (event time of it).

    The root's own stream has seen its old level come back; what it says afterwards is new.
    """
    recent = (at for root, at in ended.items() if root != segment and overlap(root, segment) and now - at < ECHO_S)
    return any(verdict.onset is None or verdict.onset <= at for at in recent)


def _apart(segment: Segment, others: Iterable[Segment]) -> bool:
    return not any(overlap(segment, other) for other in others)


def _rank(segment: Segment, worth: float) -> tuple[float, int, Segment]:
    """Sorts the best first, of equals the broadest: the same in whatever order streams were heard."""
    return -worth, len(segment), segment


def _label_nats(streams: int) -> float:
    """What naming a label costs."""
    return log(max(streams, 2))


def _worth(segment: Segment, one: Heard, streams: int) -> float:
    """Strength less the cost of naming the segment; one that only warns has to make up for that, too."""
    return one.strength - _label_nats(streams) * (len(segment) + (not one.alerting))


def _explained(
    segment: Segment, one: Heard, heard: Mapping[Segment, Heard], roots: Mapping[Segment, Open], now: float
) -> bool:
    return any(
        overlap(root, segment) and root in heard and _covers(heard[root], known.since, one, now)
        for root, known in roots.items()
    )


def _covers(root: Heard, noticed: float, one: Heard, now: float) -> bool:
    """Whether a root, noticed at some time, accounts for what an overlapping stream says."""
    if now - root.at > SILENT_S:
        return False
    began, onset, since = one.verdict.onset_from, one.verdict.onset, root.verdict.onset
    if began is None or onset is None or since is None or began <= noticed:
        return True
    # It seems to have begun later. Weak echoes seem so, too, but gain less in their time than the root does.
    return one.strength < root.strength * (now - onset) / (now - since) + RISE_NATS


def _beats(segment: Segment, rivals: list[Segment], heard: Mapping[Segment, Heard], streams: int) -> bool:
    """Whether one segment explains clearly more than these disjoint ones together, or stands for too many of them."""
    known = [root for root in rivals if root in heard]
    if not known:
        return False
    strength, together = heard[segment].strength, sum(heard[root].strength for root in known)
    dearer = _label_nats(streams) * (len(segment) - sum(len(root) for root in known))
    clearly = strength >= max(MOVE_RATIO * together, together + dearer + MOVE_NATS)
    return clearly or (not segment and len(known) > MAX_ROOTS)
