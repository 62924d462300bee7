"""Over-contact: content, dose and audience told apart, replies beside the dose, and the limits of mailbox providers."""

from __future__ import annotations

import random
from statistics import median
from typing import NamedTuple

import pytest

from detectors._base import Bucket
from detectors._mailbox import Mailbox, MailboxState, surely_above
from detectors.over_contact import OverContact
from tests.detectors.slow_kit import DAY_S, HOUR_S, START_S, alerts, in_buckets, times, verdicts

CHANGE_DAY = 35
ONSET_S = START_S + CHANGE_DAY * DAY_S
DOSES = (0.3, 0.3, 0.25, 0.1, 0.05)
SEEDS = range(200, 220)


class World(NamedTuple):
    """How mails are from `CHANGE_DAY` on.

    more: doses by which each person's grows; warm_more: of warm people only; left, reply: factors on leaving and on
    replies at equal dose and warmth; cold: cold people of dose 0 mailed besides, for each mail; harm: whether leaving
    depends on the dose; complain: complaints per mail.
    """

    more: int = 0
    warm_more: int = 0
    left: float = 1.0
    reply: float = 1.0
    cold: float = 0.0
    harm: bool = True
    complain: float = 0.0001
    volume: float = 1.0


NORMAL = World()


def stream(days: int, per_day: float, world: World, seed: int, until_day: float = 1e9) -> list[Bucket]:
    """Mails, half of them to warm people; what became of them is counted after three days."""
    rng = random.Random(seed)
    before = NORMAL._replace(harm=world.harm)
    found: list[tuple[float, dict[str, int]]] = []
    for ts in times(days, per_day, rng, lambda ts: world.volume if ts >= ONSET_S else 1.0):
        now = world if ONSET_S <= ts < START_S + until_day * DAY_S else before
        mails = [(rng.choices(range(5), DOSES)[0], int(rng.random() < 0.5))]
        mails += [(0, 0)] * int(rng.random() < now.cold)
        for usual, warm in mails:
            dose = min(4, usual + now.more + now.warm_more * warm)
            leaves = (0.003 if warm else 0.012) * (1.0 + 0.5 * dose * now.harm) * now.left
            complains = rng.random() < now.complain
            fields = {f"mail_n_d{dose}w{warm}": 1, f"mail_left_d{dose}w{warm}": int(rng.random() < leaves),
                      f"mail_reply_d{dose}w{warm}": int(rng.random() < (0.4 if warm else 0.08) * now.reply)}  # fmt: skip
            found += [(ts, {"sent": 1}), (ts + 3 * DAY_S, fields)]
            found += [(ts + 5 * HOUR_S, {"complained": 1})] * complains
    return in_buckets("contacts", found)


def quiet() -> list[Bucket]:
    return stream(60, 150, NORMAL, seed=41)


def firing() -> tuple[list[Bucket], float]:
    return stream(50, 500, World(left=3.0), seed=44), ONSET_S


def kinds(buckets: list[Bucket]) -> set[str]:
    return {verdict.kind for _, verdict in alerts(OverContact, buckets)}
