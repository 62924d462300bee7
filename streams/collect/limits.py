"""How much may come of one key, and how much may be held of all."""

from __future__ import annotations

import math

from streams.collect.asked import Refused, busy


class Bucket:
    """A token bucket of events per second.

    A batch is taken whole while anything is left, and may leave a debt: so a batch larger than the burst is possible,
    and the rate holds over time all the same.

    Args:
        rate_per_s: tokens that come back each second.
        burst_s: seconds of that rate that may be saved up.
    """

    def __init__(self, rate_per_s: float, burst_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._most = max(1.0, rate_per_s * burst_s)
        self._left = self._most
        self._at: float | None = None

    def take(self, count: int, now_s: float) -> None:
        """Take tokens at a time of a monotonic clock.

        Raises:
            Refused: 429 with the seconds after which to try again; nothing was taken.
        """
        if self._at is not None:
            self._left = min(self._most, self._left + (now_s - self._at) * self._rate_per_s)
        self._at = now_s
        if self._left <= 0.0:
            wait_s = math.ceil(-self._left / self._rate_per_s + 0.001)
            raise Refused(429, "too_many", "more events per second than collect.max_events_per_s",
                          Retry_After=str(wait_s))  # fmt: skip
        self._left -= count


class Room:
    """Bytes and requests that may be held at once, from the first byte of a body to the answer.

    Args:
        most_bytes: of all together: what has come of bodies, then the messages made of them.
        most_requests: that are held at once.

    Attributes:
        held_bytes: held now.
        requests: held now.
    """

    def __init__(self, most_bytes: int, most_requests: int) -> None:
        self._most_bytes = most_bytes
        self._most_requests = most_requests
        self.held_bytes = 0
        self.requests = 0

    def enter(self) -> Place:
        """A request comes.

        Raises:
            Refused: 503, there is no room; nothing was taken.
        """
        if self.requests >= self._most_requests:
            raise _full()
        self.requests += 1
        return Place(self)

    def resize(self, before: int, after: int) -> None:
        """A request holds another number of bytes.

        Raises:
            Refused: 503, there is no room; it holds what it held before.
        """
        if after > before and self.held_bytes + after - before > self._most_bytes:
            raise _full()
        self.held_bytes += after - before


class Place:
    """What one request takes up of a room: no more than has come of it, so that nobody can fill it with promises."""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def hold(self, size: int) -> None:
        """Hold so many bytes from now on.

        Raises:
            Refused: 503, there is no room.
        """
        self._room.resize(self._size, size)
        self._size = size

    def leave(self) -> None:
        """It was answered."""
        self.hold(0)
        self._room.requests -= 1


def _full() -> Refused:
    return busy("full", "too much waits for Kafka (collect.buffer_bytes, collect.buffer_requests)")
