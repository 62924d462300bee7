"""Erasure and withdrawn consent: what one events partition has to remember to be able to forget.

An erasure is told to all partitions (see `streams.ingest`), and each lets go of what it holds: sessions, leads, links,
and the dead letters about the person, which are deleted from their topic by tombstones. What was counted stays: a count
has no person. What the person does later is new; what they did before and is told only now is dropped.

Withdrawn consent is the same, and what comes later under these ids is dropped: no event says that consent was given
again, so none is assumed. Remembered for both is a number that follows from the pseudonym, and no pseudonym.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


class Remembered(msgspec.Struct, array_like=True):
    """The state of `Letters`, `Withdrawn` and `Erased`.

    Attributes:
        letters: id of a dead letter → whom it is about, by all their pseudonyms; oldest first.
        withdrawn: number of each who withdrew consent → since when, as (bucket, event time); oldest first.
        erased: number of each who was erased → when, likewise; oldest first.
    """

    letters: dict[str, tuple[str, ...]] = {}
    withdrawn: dict[int, tuple[int, float]] = {}
    erased: dict[int, tuple[int, float]] = {}


class Letters:
    """Which dead letters are about whom, so that an erasure finds them.

    >>> letters = Letters(limit=2)
    >>> letters.remember("web/0/1/0", ("anna",)); letters.remember("web/0/2/0", ("bert",))
    >>> letters.forget(["anna", "zoe"]), letters.forget(["anna"])
    (['web/0/1/0'], [])

    Args:
        limit: letters remembered (`limits.dead_letters`); beyond it the oldest are left to the topic's retention.

    Attributes:
        about: id of a dead letter → all pseudonyms of whom it is about, oldest first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: dict[str, dict[str, None]] = {}
        self.about: dict[str, tuple[str, ...]] = {}

    def __contains__(self, letter: str) -> bool:
        """Whether a dead letter is remembered."""
        return letter in self.about

    def remember(self, letter: str, names: tuple[str, ...]) -> None:
        """Keep in mind whom a dead letter is about, by all their pseudonyms."""
        if letter in self.about:
            return
        if len(self.about) >= self._limit:
            self._drop(next(iter(self.about)))
        self._note(letter, names)

    def forget(self, people: Iterable[str]) -> list[str]:
        """The ids of all dead letters about these people; they are not remembered any more."""
        gone = list(dict.fromkeys(letter for person in people for letter in self._of.get(person, ())))
        for letter in gone:
            self._drop(letter)
        return gone

    def adopt(self, about: dict[str, tuple[str, ...]]) -> None:
        """Take up a stored state."""
        self.about, self._of = {}, {}
        for letter, names in about.items():
            self._note(letter, names)

    def _note(self, letter: str, names: tuple[str, ...]) -> None:
        self.about[letter] = names
        for name in names:
            self._of.setdefault(name, {})[letter] = None

    def _drop(self, letter: str) -> None:
        for name in dict.fromkeys(self.about.pop(letter)):
            letters = self._of[name]
            del letters[letter]
            if not letters:
                del self._of[name]


class Withdrawn:
    """Who withdrew consent, by numbers that follow from their pseudonyms, and since when.

    >>> withdrawn = Withdrawn(limit=2)
    >>> withdrawn.add(["anna"], (3, 31.0))
    >>> withdrawn.covers("anna", 3, 30.0), withdrawn.covers("anna", 3, 32.0), withdrawn.covers("anna", 4, 30.0)
    (False, True, True)

    Args:
        limit: numbers kept (`limits.withdrawn`); beyond it the oldest go.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.since: dict[int, tuple[int, float]] = {}

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self.since)

    def __contains__(self, person: str) -> bool:
        """Whether this person withdrew consent."""
        return bool(self.since) and _number(person) in self.since

    def covers(self, person: str, bucket: int, time_s: float) -> bool:
        """Whether what happened at this time, and is taken up in this bucket, comes after consent was withdrawn.

        What comes later is dropped even if it happened before: nothing more of that person is taken up.
        """
        since = self.since.get(_number(person))
        return since is not None and (bucket, time_s) >= since

    def add(self, people: Iterable[str], since: tuple[int, float]) -> None:
        """These ids belong to somebody who withdrew consent in this bucket, at this event time."""
        for person in people:
            self.since.setdefault(_number(person), since)
        while len(self.since) > self._limit:
            del self.since[next(iter(self.since))]

    def adopt(self, since: dict[int, tuple[int, float]]) -> None:
        """Take up a stored state."""
        self.since = since


class Erased:
    """Who was erased, by numbers that follow from their pseudonyms, and when.

    >>> erased = Erased(limit=2)
    >>> erased.add(["anna"], (3, 31.0))
    >>> erased.before("anna", 30.0), erased.before("anna", 32.0), erased.before("bert", 30.0)
    (True, False, False)

    Args:
        limit: numbers kept (`limits.withdrawn`); beyond it the oldest go.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.at: dict[int, tuple[int, float]] = {}

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self.at)

    def before(self, person: str, time_s: float) -> bool:
        """Whether what happened at this time was to be forgotten with the person."""
        found = self.at.get(_number(person))
        return found is not None and time_s <= found[1]

    def bucket(self, person: str) -> int | None:
        """The bucket in which the person was erased last."""
        found = self.at.get(_number(person))
        return None if found is None else found[0]

    def add(self, people: Iterable[str], at: tuple[int, float]) -> None:
        """These ids are erased in this bucket, by an event of this time."""
        for person in people:
            number = _number(person)
            _, time_s = self.at.pop(number, at)
            self.at[number] = (at[0], max(at[1], time_s))
        while len(self.at) > self._limit:
            del self.at[next(iter(self.at))]

    def adopt(self, at: dict[int, tuple[int, float]]) -> None:
        """Take up a stored state."""
        self.at = at


def _number(person: str) -> int:
    return number_of(f"withdrawn {person}")


_MERSENNE_61: Final = 2**61 - 1


def number_of(digest: str) -> int:
    """61 bits of a keyed digest: enough to tell a million apart, a quarter of the memory.

    Being keyed, a remainder of the whole text is as good as a hash.
    """
    return int.from_bytes(digest.encode(), "big") % _MERSENNE_61
