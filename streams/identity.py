"""Which ids are one person's: web and CRM ids that were named together are joined from then on.

Every events partition keeps the same groups, because links are told to all of them and taken up in event-time order,
like everything else. Joining is a union, so groups do not depend on the order of links, with two exceptions that keep
memory bounded: a group has `MOST_IDS` ids at most (a shared computer is no person), and beyond `limits.links` those who
were not named together for the longest time are taken for several people again. Both are counted.

Events name the same ids over and over, and the door (`streams.ingest`) says a pair only once an hour as far as it
remembers, which is for as long as it runs. So nothing may depend on whether a pair is said once or more often within
a window of `LINK_S`: whoever was named in this window stays until the next, where there is no room then nobody new is
taken up before the next, and ids that were erased are not joined again before the next (`streams.erasure`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

MOST_IDS: Final = 32
"""Ids of one person. More belong to a shared device or a test account; joined, they would be erased together."""
LINK_S: Final = 3600.0
"""The window within which it makes no difference how often two ids are named together, seconds of event time."""

Group = tuple[str, ...]
"""The ids of one person, sorted."""


def window_of(bucket: int, bucket_s: float) -> int:
    """The window of `LINK_S` that a bucket begins in.

    >>> window_of(359, 10.0), window_of(360, 10.0)
    (0, 1)
    """
    return int(bucket * bucket_s // LINK_S)


class Links(msgspec.Struct, array_like=True):
    """The state of an `Identity`.

    Attributes:
        groups: ids of each person that has several, in the order in which they are given up.
        windows: for each of them, the last window in which they were named together.
        full: the last window in which there was no room.
        evicted: groups that were given up because there were too many links.
        refused: times that two ids were not joined: their group would have been too large, or there was no room.
    """

    groups: list[Group] = []
    windows: list[int] = []
    full: int | None = None
    evicted: int = 0
    refused: int = 0


class Identity:
    """Groups of ids; the least id of a group stands for the person.

    >>> identity = Identity(limit=1000)
    >>> identity.join("web-7", "crm-1", 0), identity.join("web-9", "crm-1", 0), identity.join("web-7", "web-9", 0)
    (True, True, False)
    >>> identity.group("web-7"), identity.canonical("web-9"), identity.canonical("somebody")
    (('crm-1', 'web-7', 'web-9'), 'crm-1', 'somebody')

    Args:
        limit: links kept, see `limits.links`; a group of n ids has n - 1.

    Attributes:
        links: how many there are.
        evicted: groups that were given up because there were too many links.
        refused: times that two ids were not joined: their group would have been too large, or there was no room.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: dict[str, Group] = {}
        self._named: dict[Group, int] = {}  # the last window, the oldest first
        self._full: int | None = None
        self.links = 0
        self.evicted = 0
        self.refused = 0

    def __contains__(self, person: str) -> bool:
        """Whether an id has others."""
        return person in self._of

    def group(self, person: str) -> Group:
        """All ids of this person that are known, sorted; the id itself where it has no others."""
        return self._of.get(person) or (person,)

    def canonical(self, person: str) -> str:
        """The id that stands for the person: the least, whatever order they were joined in."""
        found = self._of.get(person)
        return person if found is None else found[0]

    def join(self, one: str, other: str, window: int) -> bool:
        """From now on both ids are one person's; whether that is new.

        Args:
            one: an id.
            other: another one.
            window: that of now, see `window_of`.
        """
        first, second = self.group(one), self.group(other)
        for group in (first, second):
            if self._named.get(group, window) < window:
                del self._named[group]
                self._named[group] = window
        if first == second:
            return False
        joined = tuple(sorted({*first, *second}))
        if len(joined) > MOST_IDS or not self._has_room(window):
            self.refused += 1
            return False
        for group in (first, second):
            self._named.pop(group, None)
        self._named[joined] = window
        self._of.update(dict.fromkeys(joined, joined))
        self.links += 1
        return True

    def forget(self, people: Iterable[str]) -> None:
        """Keep nothing of the groups of these ids."""
        for person in people:
            if (group := self._of.get(person)) is not None:
                self._drop(group)

    def snapshot(self) -> Links:
        """The state as data."""
        return Links(list(self._named), list(self._named.values()), self._full, self.evicted, self.refused)

    def adopt(self, state: Links) -> None:
        """Take up a stored state."""
        self._named = dict(zip(state.groups, state.windows, strict=True))
        self._of = {person: group for group in state.groups for person in group}
        self.links = sum(len(group) - 1 for group in state.groups)
        self._full, self.evicted, self.refused = state.full, state.evicted, state.refused

    def _has_room(self, window: int) -> bool:
        """Make room for one more link, unless all were named in this window, or there was none in it already."""
        if self._full == window:
            return False
        while self.links >= self._limit:
            oldest, named = next(iter(self._named.items()))
            if named >= window:
                self._full = window
                return False
            self._drop(oldest)
            self.evicted += 1
        return True

    def _drop(self, group: Group) -> None:
        del self._named[group]
        for person in group:
            del self._of[person]
        self.links -= len(group) - 1
