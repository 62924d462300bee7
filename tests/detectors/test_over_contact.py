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
            replies = (0.4 if warm else 0.08) * now.reply
            fields = {f"mail_n_d{dose}w{warm}": 1, f"mail_left_d{dose}w{warm}": int(rng.random() < leaves),
                      f"mail_reply_d{dose}w{warm}": int(rng.random() < replies)}  # fmt: skip
            found += [(ts, {"sent": 1}), (ts + 3 * DAY_S, fields)]
            found += [(ts + 5 * HOUR_S, {"complained": 1})] * complains
    return in_buckets("contacts", found)


def quiet() -> list[Bucket]:
    return stream(60, 150, NORMAL, seed=41)


def firing() -> tuple[list[Bucket], float]:
    return stream(50, 500, World(left=3.0), seed=44), ONSET_S


def kinds(buckets: list[Bucket]) -> set[str]:
    return {verdict.kind for _, verdict in alerts(OverContact, buckets)}


def quiet_worlds() -> dict[str, tuple[float, World]]:
    """Mails a day and what happens; nobody is harmed."""
    return {
        "nothing": (150, NORMAL),
        "more mails to warm people": (150, World(warm_more=2, harm=False)),
        "a campaign to cold people": (150, World(cold=1.0)),
        "a season": (100, World(volume=2.5)),
        "fewer replies without more mails": (150, World(reply=0.7)),
    }


@pytest.mark.parametrize("case", quiet_worlds())
def test_no_harm_is_quiet_over_sixty_days(case: str) -> None:
    per_day, world = quiet_worlds()[case]
    found = {seed: kinds(stream(60, per_day, world, seed)) for seed in SEEDS}
    # One false alarm in 10,000 looks, three a day, of two rates: 0.6 expected of 20 runs; more than 2: 2 %.
    assert sum(map(bool, found.values())) <= 2, found


def test_content_that_drives_people_away_is_told_with_its_part() -> None:
    delays = []
    for seed in SEEDS:
        found = [each for each in alerts(OverContact, stream(62, 400, World(left=2.5), seed)) if each[0] > ONSET_S]
        assert found and found[0][1].kind == "left", seed
        delays.append((found[0][0] - ONSET_S) / DAY_S)
        evidence = found[-1][1].evidence
        change = evidence["overall_after"] - evidence["overall_before"]
        parts = [evidence[f"due_to_{part}"] for part in ("audience", "dose", "content")]
        assert sum(parts) == pytest.approx(change), "they sum up to the change"
        assert parts[2] > 0.7 * change
    print(f"over_contact left x2.5 by content, 400 mails a day: median {median(delays):.1f} days (3 are the horizon)")
    assert median(delays) <= 14.0


def test_more_mails_that_drive_people_away_are_told_as_dose() -> None:
    found = alerts(OverContact, stream(45, 3000, World(more=3), seed=221))
    evidence = found[-1][1].evidence
    assert found[-1][1].kind == "left"
    assert evidence["due_to_dose"] > 3 * abs(evidence["due_to_content"])
    assert evidence["mails_a_week_after"] > 1.5 * evidence["mails_a_week_before"]


def test_fewer_replies_beside_more_mails_are_over_contact() -> None:
    found = alerts(OverContact, stream(55, 300, World(more=1, reply=0.7, harm=False), seed=222))
    assert {verdict.kind for _, verdict in found} == {"reply"}
    first = found[0][1]
    assert first.after < first.before
    assert first.evidence["mails_a_week_after"] > 1.1 * first.evidence["mails_a_week_before"]


def mailbox() -> Mailbox:
    return Mailbox((0.001, 0.003), 0.999, 3, MailboxState())


def days_of(*days: tuple[int, int]) -> list[str]:
    """Which limit is exceeded at the end of days with so many mails and complaints."""
    box = mailbox()
    return [box.observe(START_S + i * DAY_S + HOUR_S, sent, complaints) for i, (sent, complaints) in enumerate(days)]


def test_a_limit_of_mailbox_providers_needs_no_baseline_and_lasts_until_a_day_was_under_it() -> None:
    assert days_of((10_000, 5), (10_000, 25), (10_000, 60), (10_000, 20), (10_000, 20), (10_000, 4), (10_000, 4)) == [
        "ok", "warn", "alert", "alert", "warn", "warn", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize(("sent", "complaints"), [(50, 1), (3, 1), (1, 1), (1000, 2), (10_000, 30)])
def test_few_complaints_prove_nothing(sent: int, complaints: int) -> None:
    assert days_of((sent, complaints))[0] != "alert"


def test_complaints_on_the_day_after_a_newsletter_are_measured_by_its_mails() -> None:
    assert days_of((20_000, 4), (20, 6), (0, 4)) == ["ok", "ok", "ok"]


def test_the_exact_bound_and_the_normal_one_meet() -> None:
    for k, n in ((100, 20_000), (101, 20_000), (100, 30_000), (101, 30_000)):
        assert surely_above(0.003, k, n, 0.001) == (k / n > 0.004)


def test_the_limit_is_told_with_its_numbers() -> None:
    """Complaints triple the limit for five days."""
    found = alerts(OverContact, stream(45, 1500, World(complain=0.012), seed=223, until_day=CHANGE_DAY + 5))
    first_ts, first = found[0]
    assert (first.kind, first.evidence["limit_alert"]) == ("mailbox_limit", 0.003)
    assert 0.0 <= first_ts - ONSET_S < 1.5 * DAY_S
    assert first.before < first.evidence["limit_warn"]
    assert first.evidence["rate_today"] > first.evidence["limit_alert"]
    last = verdicts(OverContact, stream(45, 1500, World(complain=0.012), seed=223, until_day=CHANGE_DAY + 5))[-1][1]
    assert last.kind != "mailbox_limit"
