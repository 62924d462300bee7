"""A stream with known losses in it: journeys, leads, and the truth about what was eroded, where and since when.

`simulate` yields typed events, `write` stores them as native JSON with the truth beside, `write_vendor` dresses them as
Segment calls and HubSpot webhooks. The shipped sample is `make_sample`: `python -m streams.simulate sample`.
"""

from __future__ import annotations

import gzip
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from heapq import heappop, heappush, merge
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec

from detectors._stages import JOURNEY, LEADS
from streams import simulate_contacts, simulate_customers, simulate_leads, simulate_web
from streams.errors import UsageError
from streams.events import CRM_TYPES, Event
from streams.simulate_kinds import DAY_S, Burst, Erosion, busy_with, poisson
from streams.simulate_spec import KINDS, SYNTAX, parse_erosion
from streams.simulate_web import Crowd

__all__ = [
    "START", "SYNTAX", "Erosion", "Tally", "TrueErosion", "Truth", "make_sample", "parse_erosion", "simulate", "write",
    "write_vendor",
]  # fmt: skip

START: Final = "2025-09-01T00:00:00Z"
"""A Monday, so that weeks are whole; in the past, so that no door takes the events for ones from the future."""
MAX_DAYS: Final = 3660
SAMPLE_DAYS: Final = 21
SAMPLE_SEED: Final = 21
SAMPLE_SESSIONS_PER_DAY: Final = 310.0
SAMPLE_LEADS_PER_DAY: Final = 180.0
SAMPLE_EROSIONS: Final = (
    "hesitation:stage=decide,device=mobile@14.5x3.5",
    "early_dropoff:stage=evaluate,channel=paid@13x0.65",
    "lead_score_drift:source=webinar@10.5x18",
)


class TrueErosion(msgspec.Struct, frozen=True):
    """One erosion as a finding should report it.

    Attributes:
        detector: name of the detector that is expected to find it; empty for a confounder.
        kind: kind of the erosion.
        stage: journey stage, "journey" (all of them), "leads", "contacts", "customers" or "everywhere".
        segment: label → value that was hit.
        onset: ISO 8601, UTC.
        size: see `Erosion.size`.
    """

    detector: str
    kind: str
    stage: str
    segment: dict[str, str]
    onset: str
    size: float


class Truth(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a simulated file; stored beside it.

    Attributes:
        seed: seed of the simulation.
        days: length in days.
        start: ISO 8601, UTC, inclusive.
        end: ISO 8601, UTC, exclusive.
        events: events in the files.
        persons: distinct visitors and leads in them.
        erosions: losses of trust that were put in.
        confounders: what was put in and is none; no detector is expected to find it.
        scenario: name of the scenario, if it is one.
        breakage: what happened to the events on their way, and since when, if something did.
    """

    seed: int
    days: float
    start: str
    end: str
    events: int
    persons: int
    erosions: tuple[TrueErosion, ...]
    confounders: tuple[TrueErosion, ...] = ()
    scenario: str = ""
    breakage: str = ""


class Tally(msgspec.Struct, frozen=True):
    """What `write_vendor` wrote: items (not lines) of each file, and distinct persons."""

    web_events: int
    crm_events: int
    persons: int


def simulate(
    days: float,
    seed: int,
    erosions: Sequence[Erosion] = (),
    sessions_per_day: float = 500.0,
    leads_per_day: float = 160.0,
    *,
    mails_per_day: float = 0.0,
    orders_per_day: float = 0.0,
    start: str = START,
) -> Iterator[Event]:
    """Yield the events of some days in time order; memory holds open sessions, leads, and those who get mails or order.

    The same arguments give the same events in every process. Events of a session share one `segment` dict: copy before
    you change it.

    Args:
        days: length; what would happen later is cut off.
        seed: of all randomness.
        erosions: losses to put in.
        sessions_per_day: web sessions on an average day (about 14 events each).
        leads_per_day: new leads on an average day.
        mails_per_day: mails on an average day; each comes with what people make of it.
        orders_per_day: orders on an average day; each comes with its delivery, cases and surveys.
        start: ISO 8601 with zone.

    Raises:
        UsageError: an argument is out of range, or an erosion begins after the end.
    """
    begin = _epoch(start)
    volumes = (sessions_per_day, leads_per_day, mails_per_day, orders_per_day)
    if not 0 < days <= MAX_DAYS or seed < 0 or min(volumes) < 0:
        raise UsageError(f"simulate: days must be above 0, at most {MAX_DAYS}; seed and volumes per day 0 or more")
    if late := [erosion for erosion in erosions if erosion.onset_day >= days]:
        raise UsageError(f"simulate: {late[0].kind} begins on day {late[0].onset_day:g}, after the end: raise --days")
    end = begin + days * DAY_S
    bursts = [
        *_visits(seed, erosions, begin, end, sessions_per_day),
        *_leads(seed, erosions, begin, end, leads_per_day),
    ]
    if mails_per_day:
        bursts.append(simulate_contacts.contacts(mails_per_day, seed, erosions, begin, end))
    if orders_per_day:
        bursts.append(simulate_customers.customers(orders_per_day, seed, erosions, begin, end))
    bursts += [iter([(event.time, [event])]) for event in _announcements(seed, erosions, begin)]
    return _in_order(merge(*bursts, key=itemgetter(0)), end)


def write(
    events: Iterable[Event],
    out: Path,
    *,
    days: float,
    seed: int,
    erosions: Sequence[Erosion] = (),
    start: str = START,
    epoch_times: bool = False,
    scenario: str = "",
    breakage: str = "",
) -> Truth:
    """Store events as native JSON, one a line, and the truth beside as `<out>.truth.json`.

    Args:
        events: in time order, from `simulate`.
        out: file to write; gzip if it ends in `.gz`.
        days: as given to `simulate`; so are the next three.
        seed: of all randomness.
        erosions: what was put in.
        start: ISO 8601 with zone.
        epoch_times: write times as epoch seconds instead of ISO 8601.
        scenario: name of the scenario, for the truth; so is the next one.
        breakage: what happened to the events on their way.

    Raises:
        UsageError: the file cannot be written.
    """
    count, persons = 0, set[str]()
    with _writing(out) as file:
        for event in events:
            file.write(msgspec.json.encode(_native(event, epoch_times)) + b"\n")
            persons.add(event.person)
            count += 1
    truth = _truth(days, seed, erosions, start, events=count, persons=len(persons), scenario=scenario,
                   breakage=breakage)  # fmt: skip
    _write_truth(truth, out.with_name(out.name + ".truth.json"))
    return truth


def write_vendor(events: Iterable[Event], web_out: Path, crm_out: Path) -> Tally:
    """Store events as their vendors would send them: Segment calls and HubSpot webhooks, one message a line.

    `lead_lost` has no property in HubSpot's webhooks and is left out; the source of a lead is one item more.

    Args:
        events: in time order, from `simulate`.
        web_out: Segment `page` and `track` calls, some as `batch`; gzip if it ends in `.gz`.
        crm_out: HubSpot webhook arrays; gzip if it ends in `.gz`.

    Raises:
        UsageError: a file cannot be written.
    """
    persons = set[str]()
    with _writing(web_out) as web_file, _writing(crm_out) as crm_file:
        web = _Batches(web_file, 0.1, lambda items: items[0] if len(items) == 1 else {"batch": items})
        crm = _Batches(crm_file, 1.0, lambda items: items)
        for event in events:
            lead = event.type in CRM_TYPES
            items = simulate_leads.hubspot_items(event) if lead else [simulate_web.segment_call(event, _iso)]
            (crm if lead else web).add(event.time, items)
            persons.update([event.person] if items else [])
        web.flush()
        crm.flush()
    return Tally(web.items, crm.items, len(persons))


def make_sample(folder: Path) -> Truth:
    """Write the shipped sample: `web.jsonl.gz`, `crm.jsonl.gz` and `truth.json`, the same bytes each time."""
    erosions = tuple(parse_erosion(spec) for spec in SAMPLE_EROSIONS)
    folder.mkdir(parents=True, exist_ok=True)
    events = simulate(SAMPLE_DAYS, SAMPLE_SEED, erosions, SAMPLE_SESSIONS_PER_DAY, SAMPLE_LEADS_PER_DAY)
    tally = write_vendor(events, folder / "web.jsonl.gz", folder / "crm.jsonl.gz")
    count = tally.web_events + tally.crm_events
    truth = _truth(SAMPLE_DAYS, SAMPLE_SEED, erosions, START, events=count, persons=tally.persons)
    _write_truth(truth, folder / "truth.json")
    return truth


BURST_DAYS: Final = 2.0
LITTLE: Final = 0.35
"""Factor on the advance probability of people of a campaign burst."""
ANNOUNCED: Final = {"price_change": ("deployed", "prices"), "relaunch": ("definition_changed", "score-model")}
"""Kind → the event that announces it, and what it is about."""


def _visits(seed: int, erosions: Sequence[Erosion], begin: float, end: float, per_day: float) -> list[Iterator[Burst]]:
    """Sessions of all, and of those who come beside them: a vain crowd, a campaign, machines."""
    when, pool = busy_with(erosions, begin), min(20_000, 50 + int(2 * per_day))
    visits = poisson(random.Random(f"{seed}-sessions"), begin, end, per_day, when)
    streams = [simulate_web.sessions(visits, seed, erosions, begin, pool)]
    for number, erosion in enumerate(erosions):
        onset, more, until = begin + erosion.onset_day * DAY_S, erosion.size, end
        if erosion.stage != JOURNEY or erosion.kind not in ("vanity", "campaign_burst", "bots"):
            continue
        crowd = Crowd(f"{erosion.kind[0]}{number}-", erosion.segment, 0.0, erosion.kind == "bots")
        if erosion.kind == "vanity":
            more -= 1.0
        elif erosion.kind == "campaign_burst":
            until = min(end, onset + BURST_DAYS * DAY_S)
            crowd = msgspec.structs.replace(crowd, labels={"channel": "social"}, factor=LITTLE)
        visits = poisson(random.Random(f"{seed}-{crowd.name}"), onset, until, per_day * more, when)
        streams.append(simulate_web.sessions(visits, seed, erosions, begin, pool, crowd))
    return streams


def _leads(seed: int, erosions: Sequence[Erosion], begin: float, end: float, per_day: float) -> list[Iterator[Burst]]:
    """Leads, and those who never wanted anything beside them."""
    when = busy_with(erosions, begin)
    created = poisson(random.Random(f"{seed}-leads"), begin, end, per_day, when)
    streams = [simulate_leads.leads(created, seed, erosions, begin)]
    for erosion in erosions:
        if (erosion.kind, erosion.stage) == ("vanity", LEADS):
            onset = begin + erosion.onset_day * DAY_S
            idle = poisson(random.Random(f"{seed}-idle"), onset, end, per_day * (erosion.size - 1), when)
            streams.append(simulate_leads.leads(idle, seed, erosions, begin, erosion.segment))
    return streams


def _announcements(seed: int, erosions: Sequence[Erosion], begin: float) -> Iterator[Event]:
    for number, erosion in enumerate(erosions):
        if erosion.kind in ANNOUNCED:
            kind, what = ANNOUNCED[erosion.kind]
            time = begin + erosion.onset_day * DAY_S
            yield Event(f"{seed:x}-a{number:x}", kind, time, "release", properties={"what": what})


class _Batches:
    """Packs items that happen within some seconds into messages of at most five, in time order."""

    span_s: Final = 20.0

    def __init__(self, file: IO[bytes], share: float, wrap: Callable[[list[dict[str, Any]]], object]) -> None:
        self._file, self._share, self._wrap = file, share, wrap
        self._rng = random.Random(0)
        self._open: list[dict[str, Any]] = []
        self._begin, self._limit = -math.inf, 0
        self.items = 0

    def add(self, time: float, items: list[dict[str, Any]]) -> None:
        """Add what happened at one moment; it may send what waited."""
        for item in items:
            if len(self._open) >= self._limit or time - self._begin > self.span_s:
                self.flush()
                self._begin = time
                self._limit = self._rng.randrange(2, 6) if self._rng.random() < self._share else 1
            self._open.append(item)
            self.items += 1

    def flush(self) -> None:
        """Send what waits."""
        if self._open:
            self._file.write(msgspec.json.encode(self._wrap(self._open)) + b"\n")
            self._open = []


def _in_order(bursts: Iterable[Burst], end: float) -> Iterator[Event]:
    """Events of overlapping bursts in time order: none can be older than the begin of the burst at hand."""
    waiting: list[tuple[float, str, Event]] = []
    for begin, events in bursts:
        while waiting and waiting[0][0] < begin:
            yield heappop(waiting)[2]
        for event in events:
            if event.time < end:
                heappush(waiting, (event.time, event.id, event))
    while waiting:
        yield heappop(waiting)[2]


def _native(event: Event, epoch_times: bool) -> dict[str, Any]:
    """The JSON object of the native format; empty fields are left out."""
    fields = {name: value for name, value in msgspec.structs.asdict(event).items() if value not in (None, {})}
    if not epoch_times:
        fields |= {name: _iso(fields[name]) for name in ("time", "device_time") if name in fields}
    return fields


def _truth(days: float, seed: int, erosions: Sequence[Erosion], start: str, *, events: int, persons: int,
           scenario: str = "", breakage: str = "") -> Truth:  # fmt: skip
    begin = _epoch(start)
    put_in = [
        TrueErosion(KINDS[erosion.kind].detector, erosion.kind, erosion.stage, erosion.segment,
                    _iso(begin + erosion.onset_day * DAY_S), erosion.size)
        for erosion in erosions
    ]  # fmt: skip
    eroded = tuple(one for one in put_in if one.detector)
    confounders = tuple(one for one in put_in if not one.detector)
    end = _iso(begin + days * DAY_S)
    return Truth(seed, days, _iso(begin), end, events, persons, eroded, confounders, scenario, breakage)


def _write_truth(truth: Truth, path: Path) -> None:
    with _writing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(truth), indent=2) + b"\n")


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """Open for writing, gzipped by suffix; no name and no time in the header: same content, same file."""
    try:
        with path.open("wb") as file:
            if path.suffix != ".gz":
                yield file
                return
            with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def _epoch(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"simulate: start {text!r} is no ISO 8601 time") from error
    if moment.tzinfo is None:
        raise UsageError(f"simulate: start {text!r} lacks its zone, e.g. {START}")
    return moment.timestamp()


def _iso(time: float) -> str:
    text = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


if __name__ == "__main__":
    if sys.argv[1:] != ["sample"]:
        sys.exit("usage: python -m streams.simulate sample")
    print(msgspec.json.encode(make_sample(Path(__file__).parent / "sample")).decode())
