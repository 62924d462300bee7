"""Learns from recorded events which parts of your paths vary: names, slugs and codes that no rule of ours can tell.

It is done on recordings and not by the worker as it runs: what a running door has seen by now depends on when it was
started, and the same event read again after a crash must give the same page. What is learnt is configuration
(`privacy.paths`), so it is looked at by a human, and the same everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from streams.events import Event
from streams.formats import FormatOptions, decode
from streams.privacy import Privacy
from streams.recorded import RecordedFile
from streams.settings import Settings

MOST_VALUES: Final = 2_000
"""Different values remembered at one place of a path; more are counted, not kept."""
MOST_PLACES: Final = 200_000
"""Places of paths that are looked at; beyond it new ones are passed over."""
COMMON_SHARE: Final = 0.02
"""A value that so large a share of a place's views have is no name of somebody, but a page of its own."""
VARIABLE: Final = ":name"


class Place(msgspec.Struct):
    """A place within paths: all that has the same segments before it.

    Attributes:
        views: how often something stood behind it.
        children: segment → the place behind it.
    """

    views: int = 0
    children: dict[str, Place] = {}


class Learned(msgspec.Struct, frozen=True):
    """A pattern that was learnt.

    Attributes:
        pattern: as `privacy.paths` wants it: `/u/:name`.
        values: different values that were seen there.
        views: events that it is about.
    """

    pattern: str
    values: int
    views: int


class PathLearner:
    """Counts what stands at each place of templated paths.

    >>> learner = PathLearner(least=3)
    >>> for name in ("anna", "bert", "carla", "dora"):
    ...     learner.add(f"/u/{name}/orders/:id")
    >>> [found.pattern for found in learner.learned()]
    ['/u/:name']

    Args:
        least: so many different rare values make a place variable.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._root = Place()
        self._places = 0

    def add(self, page: str) -> None:
        """Take up a page, templated by what is configured by now."""
        place = self._root
        for part in page.strip("/").split("/"):
            place.views += 1
            following = place.children.get(part)
            if following is None:
                if self._places >= MOST_PLACES or len(place.children) >= MOST_VALUES:
                    return
                self._places += 1
                following = place.children[part] = Place()
            place = following

    def learned(self) -> list[Learned]:
        """All patterns, the most viewed first. A pattern stands for whatever may follow it, too."""
        return sorted(self._look(self._root, ""), key=lambda found: (-found.views, found.pattern))

    def _look(self, place: Place, prefix: str) -> Iterator[Learned]:
        rare = {
            part: child for part, child in place.children.items()
            if not part.startswith(":") and child_views(child) < max(2.0, place.views * COMMON_SHARE)
        }  # fmt: skip
        here = f"{prefix}/{VARIABLE}"
        # At the first place of all, a site may well have many pages of its own: it has to vary much more.
        if len(rare) >= self._least * (1 if prefix else 10):
            yield Learned(here, len(rare), sum(map(child_views, rare.values())))
            yield from self._look(_merged(rare.values()), here)
        else:
            rare = {}
        for part, child in place.children.items():
            if part not in rare:
                yield from self._look(child, f"{prefix}/{part}")


def child_views(place: Place) -> int:
    """Views of a place or of what is behind it; one for a page that was seen and ends there."""
    return max(1, place.views)


def _merged(places: Iterable[Place]) -> Place:
    """What is behind several places, as if they were one."""
    whole = Place()
    behind: dict[str, list[Place]] = {}
    for place in places:
        whole.views += place.views
        for part, child in place.children.items():
            behind.setdefault(part, []).append(child)
    whole.children = {
        part: _merged(children) if len(children) > 1 else children[0] for part, children in behind.items()
    }
    return whole


def learn(settings: Settings, files: Iterable[RecordedFile], fmt: str | None, least: int) -> list[Learned]:
    """The patterns of the pages in recorded files, beyond those that are configured."""
    learner, options = PathLearner(least), FormatOptions.from_settings(settings, time.time())
    privacy = Privacy.from_settings(settings, offline=True)
    for file in files:
        for message in file:
            for outcome in decode(message, file.wire_format or fmt, options):
                if isinstance(outcome, Event) and outcome.page is not None:
                    learner.add(privacy.page(outcome.page))
    return learner.learned()
