"""`trustwatch demo`: the whole line on one machine, without Docker or Java, ending by itself within a minute.

An embedded broker, the shipped sample in Segment and HubSpot form, a replay at speed, and the real worker as a process
of its own. The sample holds known erosion (`streams/sample/truth.json`); the demo succeeds only if every event is
accounted for and every injected erosion was found.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streams._process import free_port
from streams.embedded import EmbeddedBroker
from streams.errors import TrustwatchError
from streams.findings import Finding, iso
from streams.frames import NEVER
from streams.recorded import RecordedFile
from streams.replay import Replay, Replayed
from streams.settings import ENV_PREFIX, Settings, load_settings
from streams.simulate import TrueErosion, Truth
from streams.state import LineState, read_state
from streams.topics import Topics

REPLAY_S: Final = 20.0
"""Seconds that the replay of the sample is meant to take."""
TIMEOUT_S: Final = 120.0
STOP_S: Final = 15.0
LOOK_S: Final = 1.0
"""Between two looks at the metrics: each takes a tenth of a second of the worker's time."""
STORED_S: Final = 20.0
"""Longest that checkpoints may be behind what the metrics tell."""
MAX_UNEXPECTED: Final = 2
"""More findings out of nowhere than this on the shipped sample are a regression. It says nothing of other data: sets
simulated with other seeds gave five to nine."""
DEMO_KEY: Final = "demo: made-up people only"
"""No secret: the sample holds no real person, and a fixed key puts its people into the same partitions on every run."""
SAMPLE: Final = (("web.jsonl.gz", "web-events"), ("crm.jsonl.gz", "crm-events"))


class Found(msgspec.Struct, frozen=True):
    """An injected erosion, and the finding that names it (None if none does).

    Attributes:
        erosion: what the simulator did.
        finding: the finding of the same detector, stage and segment; or, failing that, of the whole stage.
        onset_error_hours: onset of the finding minus the true one.
        exact: the finding names the very segment.
    """

    erosion: TrueErosion
    finding: Finding | None
    onset_error_hours: float | None
    exact: bool


class Outcome(msgspec.Struct, frozen=True):
    """The end of a demo; `--json` prints it.

    `unexpected` are findings at a stage where the same detector was given nothing to find, or from before the onset.
    """

    ok: bool
    seconds: float
    events_sent: int
    accounting: dict[str, int]
    accounted: bool
    erosions: list[Found]
    findings: list[Finding]
    unexpected: list[str]
    state_digest: str
    metrics_url: str
    status_url: str


class View(msgspec.Struct):
    """What the live view shows."""

    share: float = 0.0
    phase: str = "starting broker and worker"
    metrics: dict[str, float] = {}
    until: float = NEVER
    page: str = ""


def run_demo(*, as_json: bool, keep: bool) -> int:
    """Run the demo; returns the exit code: 0 only if all is accounted for and all injected erosion was found."""
    began = time.monotonic()
    console = Console(stderr=as_json)
    with tempfile.TemporaryDirectory(prefix="trustwatch-demo-") as folder, EmbeddedBroker() as broker:
        settings, environment = _settings(broker.bootstrap)
        with Topics(settings) as admin:
            admin.create()
        log = Path(folder) / "worker.log"
        with _worker(environment, Path(folder), log) as worker:
            view = View(page=f"http://{settings.web.host}:{settings.web.port}/")
            outcome = _play(settings, worker, log, view, console, began)
            _tell(outcome, console, as_json)
            if keep:
                _wait(console, outcome, broker.bootstrap, worker)
    return 0 if outcome.ok else 1


def _settings(bootstrap: str) -> tuple[Settings, dict[str, str]]:
    """Settings of the demo, and the environment that gives a process the same: nothing of the user's own gets in."""
    knobs = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA__IDEMPOTENT": "false",  # the embedded broker has no InitProducerId
        "KAFKA__SESSION_TIMEOUT_S": "6",
        "TOPICS__RAW_PARTITIONS": "2",
        "TOPICS__EVENTS_PARTITIONS": "2",
        "INGEST__IDLE_TIMEOUT_S": "3",
        "CHECKPOINTS__INTERVAL_S": "0.5",
        "CHECKPOINTS__MAX_INTERVAL_S": "2",
        "PRIVACY__PSEUDONYM_KEY": DEMO_KEY,
        "METRICS__PORT": str(free_port()),
        "WEB__PORT": str(free_port()),
    }
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
    ours = {ENV_PREFIX + name: value for name, value in knobs.items()}
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.upper().startswith(ENV_PREFIX)}
    os.environ.update(ours)
    try:
        return load_settings(), kept | ours
    finally:
        for name in ours:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _worker(environment: dict[str, str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real worker, ended by SIGTERM and, should it not listen, by SIGKILL."""
    command = [sys.executable, "-m", "streams.cli", "worker"]
    with log.open("wb") as stream:
        # In a folder of its own, so that no trustwatch.yaml of the user's is read.
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=stream, stderr=stream)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _play(
    settings: Settings, worker: subprocess.Popen[bytes], log: Path, view: View, console: Console, began: float
) -> Outcome:
    url = f"http://{settings.metrics.host}:{settings.metrics.port}/metrics"
    with as_file(files("streams").joinpath("sample")) as sample:
        truth = msgspec.json.decode((sample / "truth.json").read_bytes(), type=Truth)
        replay = _Replaying(settings, sample, truth, view)
        with Live(get_renderable=lambda: _render(view), console=console, refresh_per_second=5, transient=True):
            _until(lambda: bool(_scrape(url, view)), worker, log, "the worker to start")
            replay.start()
            _until(lambda: _caught_up(url, view, replay, settings), worker, log, "the worker to read all")
            state = _stored(settings, replay)
    return _judge(state, truth, replay, view, url, time.monotonic() - began)


class _Replaying(threading.Thread):
    """Replays the sample while the main thread watches."""

    def __init__(self, settings: Settings, sample: Path, truth: Truth, view: View) -> None:
        super().__init__(daemon=True)
        self._files = [(RecordedFile(sample / name, on_bytes=self._read), topic) for name, topic in SAMPLE]
        self._size = sum(file.size_bytes for file, _ in self._files)
        self._done_bytes = 0
        self._view = view
        speed = (_epoch(truth.end) - _epoch(truth.start)) / REPLAY_S
        self._replay = Replay(settings, speed)
        self.result: Replayed | None = None
        self.error: TrustwatchError | None = None

    def run(self) -> None:
        self._view.phase = "replaying 21 days of journeys and leads"
        try:
            self.result = self._replay.run(self._files)
        except TrustwatchError as error:
            self.error = error
        self._view.phase = "working off the rest"

    def _read(self, count: int) -> None:
        self._done_bytes += count
        self._view.share = self._done_bytes / self._size


def _until(done: Any, worker: subprocess.Popen[bytes], log: Path, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        if worker.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise TrustwatchError(f"demo: the worker ended with code {worker.returncode}; its log ends:\n{tail}")
        if time.monotonic() > deadline:
            raise TrustwatchError(f"demo: waited {TIMEOUT_S:.0f} s for {what}")
        time.sleep(LOOK_S)


def _caught_up(url: str, view: View, replay: _Replaying, settings: Settings) -> bool:
    """Whether every bucket of the sample has been judged: its end is the punctuation that closes all sessions."""
    if replay.error is not None:
        raise replay.error
    _scrape(url, view)
    return view.until >= _closed(settings, replay)


def _closed(settings: Settings, replay: _Replaying) -> float:
    """Event time at which the last session of the sample is over; infinite while not all is sent."""
    result = replay.result
    return math.inf if result is None or result.last_time is None else result.last_time + settings.time.session_gap_s


def _stored(settings: Settings, replay: _Replaying) -> LineState:
    """The state once the checkpoints hold all that was sent: they follow what the metrics tell, at their own pace."""
    deadline = time.monotonic() + STORED_S
    while True:
        state = read_state(settings)
        whole = replay.result is not None and state.accounting["consumed"] >= replay.result.messages
        if (whole and state.until >= _closed(settings, replay)) or time.monotonic() > deadline:
            return state  # if something is missing, the accounting says so
        time.sleep(0.25)


def _scrape(url: str, view: View) -> dict[str, float]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return {}  # not up yet, or busy: the caller asks again
    sums: dict[str, float] = {}
    until: list[float] = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            if sample.name == "trustwatch_watermark_timestamp_seconds" and sample.labels["stage"] == "watch":
                until.append(sample.value)
    view.metrics = sums
    view.until = min(until, default=NEVER)
    return sums


def _render(view: View) -> Group:
    numbers, get = Table.grid(padding=(0, 3)), view.metrics.get
    for name, metric in (
        ("events", "trustwatch_events_total"), ("journey steps", "trustwatch_steps_begun_total"),
        ("open sessions", "trustwatch_open_sessions"), ("leads", "trustwatch_open_leads"),
        ("watched streams", "trustwatch_watched_streams"), ("open findings", "trustwatch_open_findings"),
    ):  # fmt: skip
        numbers.add_row(name, f"{get(metric, 0.0):>10,.0f}")
    until = iso(view.until)[:16].replace("T", " ") if view.until != NEVER else "-"
    numbers.add_row("judged until", f"{until:>10}")
    line = Text("web + CRM → ingest → sessionize → combine → detect → judge → /metrics", style="bold")
    bar = Table.grid()
    bar.add_row(ProgressBar(total=1.0, completed=view.share, width=68))
    page = Text(f"status page: {view.page}", style="cyan")
    return Group(line, Text(view.phase, style="dim"), bar, Text(), numbers, Text(), page)


def _judge(state: LineState, truth: Truth, replay: _Replaying, view: View, url: str, seconds: float) -> Outcome:
    found = [_match(erosion, state.findings) for erosion in truth.erosions]
    parts = ("applied", "duplicate", "late", "dead_letter")
    unexpected = [finding.id for finding in state.findings if not _expected(finding, truth.erosions)]
    accounted = state.accounting["consumed"] == truth.events == sum(state.accounting[name] for name in parts)
    return Outcome(
        ok=accounted and all(match.finding is not None for match in found) and len(unexpected) <= MAX_UNEXPECTED,
        unexpected=unexpected, seconds=round(seconds, 1),
        events_sent=truth.events, accounting=state.accounting, accounted=accounted, erosions=found,
        findings=state.findings, state_digest=state.state_digest, metrics_url=url, status_url=view.page,
    )  # fmt: skip


def _match(erosion: TrueErosion, findings: list[Finding]) -> Found:
    """The earliest finding that names the erosion: its segment if there is one, else its whole stage."""
    whole, onset = {"stage": erosion.stage}, _epoch(erosion.onset)
    exact = whole | erosion.segment
    for segment in (exact, whole):
        for finding in findings:
            # Noticed before the onset, it would be a false alarm that happens to name the place.
            after = _epoch(finding.detected_at) >= onset
            if finding.detector == erosion.detector and finding.segment == segment and after:
                error = (_epoch(finding.onset) - onset) / 3600
                return Found(erosion, finding, round(error, 1), segment == exact)
    return Found(erosion, None, None, False)


def _expected(finding: Finding, erosions: tuple[TrueErosion, ...]) -> bool:
    """Whether something was injected for this detector at this stage by then; it shows in more than one segment."""
    return any(
        (finding.detector, finding.segment["stage"]) == (erosion.detector, erosion.stage)
        and _epoch(finding.detected_at) >= _epoch(erosion.onset)
        for erosion in erosions
    )


def _tell(outcome: Outcome, console: Console, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(outcome))
        return
    counts = outcome.accounting
    console.print(f"\n[bold]Events[/]  {outcome.events_sent:,} sent = {counts['applied']:,} applied"
                  f" + {counts['duplicate']:,} duplicate + {counts['late']:,} late"
                  f" + {counts['dead_letter']:,} dead-lettered:"
                  f" {'all accounted for' if outcome.accounted else '[red]they do not add up[/]'};"
                  f" {counts['steps']:,} journey steps", highlight=False)  # fmt: skip
    table = Table("injected", "where", "true onset", "found", "error", "noticed", title="Erosion", title_justify="left")
    for match in outcome.erosions:
        where = ", ".join([match.erosion.stage, *(f"{k}={v}" for k, v in match.erosion.segment.items())])
        finding = match.finding
        what = "[red]no[/]" if finding is None else "yes" if match.exact else "yes (stage)"
        error = "" if match.onset_error_hours is None else f"{match.onset_error_hours:+.0f} h"
        noticed = "" if finding is None else _day(finding.detected_at)
        table.add_row(match.erosion.detector, where, _day(match.erosion.onset), what, error, noticed)
    console.print(table)
    console.print("[bold]Findings[/]")
    for finding in outcome.findings:
        style = "yellow" if finding.id in outcome.unexpected else "dim" if finding.resolved_at else None
        console.print(f"  {finding.summary}", highlight=False, markup=False, style=style)
    if outcome.unexpected:
        console.print(f"{len(outcome.unexpected)} of them (yellow) where nothing was injected.", style="yellow")
    console.print(f"\nMetrics were at {outcome.metrics_url} (--keep leaves them up). {outcome.seconds:.0f} s in all.",
                  highlight=False)  # fmt: skip
    console.print("[green]All found, all accounted for.[/]" if outcome.ok else "[red]The demo failed.[/]")


def _wait(console: Console, outcome: Outcome, bootstrap: str, worker: subprocess.Popen[bytes]) -> None:
    console.print(f"Still up: {outcome.status_url} (status page), {outcome.metrics_url}, Kafka at {bootstrap}."
                  " Ctrl-C ends it.", highlight=False)  # fmt: skip
    try:
        worker.wait()
    except KeyboardInterrupt:
        return


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _day(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
