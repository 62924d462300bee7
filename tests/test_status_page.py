"""The status page in a real Chromium, on a real worker that reads the sample: what a person on call sees.

Screenshots go to `report/`; `WRITE_IMAGES=1` also renews those of the README in `deploy/images`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from pydantic import SecretStr

from streams._process import free_port, wait_until
from streams.app import Line
from streams.recorded import RecordedFile
from streams.replay import Replay
from streams.settings import WebSettings
from streams.web import WebServer
from tests.conftest import ROOT, KafkaUnderTest, kafka_required
from tests.integration.live import LiveLine, live_line
from tests.test_metrics import SETTINGS, Fed
from tests.test_web import FINDING

CHROMIUM = ROOT / ".cache" / "chromium"
REPORT = ROOT / "report"
IMAGES = ROOT / "deploy" / "images"
MOST_BYTES = 300_000
SAMPLE = {"web.jsonl.gz": "status-page.web", "crm.jsonl.gz": "status-page.crm"}
START_MS = 90_000
FOUND_MS = 240_000
OPEN_KINDS = 3
"""Erosions hidden in the sample, see `streams/sample/truth.json`."""
SOON_MS = 15_000
pytestmark = pytest.mark.integration


class Quiet:
    """A worker in this process."""

    def __init__(self, fed: Fed, port: int) -> None:
        self.fed = fed
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url.rstrip("/") + path, timeout=10) as answer:
            return json.loads(answer.read())


def chromium() -> tuple[str, dict[str, str]] | None:
    """Path of a Chromium and the environment it needs; None if there is none."""
    unpacked = CHROMIUM / "usr" / "lib" / "chromium" / "chromium-headless-shell"
    if unpacked.is_file():
        libraries = [str(path) for path in (CHROMIUM / "usr" / "lib").glob("*-linux-gnu")]
        libraries += [f"{path}/pulseaudio" for path in libraries]
        return str(unpacked), {"LD_LIBRARY_PATH": ":".join(libraries)}
    for name in ("chromium-headless-shell", "chromium", "google-chrome"):
        if found := shutil.which(name):
            return found, {}
    return None


def font_configuration(folder: Path, unpacked: Path = CHROMIUM) -> Path:
    """A configuration by which the fonts of `make chromium` are found beside those of the system, if it has any."""
    path = folder / "fonts.conf"
    includes = "".join(
        f'<include ignore_missing="yes">{root}etc/fonts/fonts.conf</include>' for root in ("/", f"{unpacked}/")
    )
    path.write_text(
        f"<fontconfig>{includes}<dir>{unpacked}/usr/share/fonts</dir><cachedir>{folder}/fonts</cachedir></fontconfig>"
    )
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = chromium()
    if found is None:
        if kafka_required():
            pytest.fail("REQUIRE_KAFKA is set, but Chromium is missing. Fix: make chromium", pytrace=False)
        pytest.skip("NO CHROMIUM: the page was not looked at. Fix: make chromium")
    path, needed = found
    home = tmp_path_factory.mktemp("chromium")
    with sync_playwright() as playwright:
        # Root in a container has no sandbox; the browser sees nothing but our own page.
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            env={**{name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}, **needed,
                 "HOME": str(home), "FONTCONFIG_FILE": str(font_configuration(home))},
        )  # fmt: skip
        yield launched
        launched.close()


class Seen:
    """What a page asked for and complained of."""

    def __init__(self, page: Page, port: int) -> None:
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self._note(asked.url, port))

    def _note(self, url: str, port: int) -> None:
        if urlsplit(url).netloc != f"127.0.0.1:{port}":
            self.strangers.append(url)


@contextmanager
def opened(
    browser: Browser, port: int, width: int = 1360, height: int = 900, path: str = "/", **context: Any
) -> Iterator[tuple[Page, Seen]]:
    """The page in a window of this size; fails if it complained, or asked anybody else."""
    made = browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        page = made.new_page()
        seen = Seen(page, port)
        page.goto(f"http://127.0.0.1:{port}{path}")
        yield page, seen
        assert (seen.complaints, seen.strangers) == ([], [])
    finally:
        made.close()


class Installation:
    """A worker that has read the sample, looked at from the first moment."""

    def __init__(self, line: LiveLine, port: int) -> None:
        self.line = line
        self.port = port

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.loads(answer.read())

    def is_ready(self) -> bool:
        assert all(process.poll() is None for process in self.line.processes), self.line.logs()
        try:
            return bool(self.get("/readyz")["ready"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@pytest.fixture(scope="module")
def installation(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    port = free_port()
    topics = [{"name": topic} for topic in SAMPLE.values()]
    # Nobody counts as idle between the parts, or what one partition reads first would make the others' events late.
    knobs = {"WEB__PORT": str(port), "TOPICS__RAW": json.dumps(topics), "TOPICS__RAW_PARTITIONS": "2",
             "TOPICS__EVENTS_PARTITIONS": "2", "INGEST__IDLE_TIMEOUT_S": "3600",
             "PRIVACY__PSEUDONYM_KEY": "demo: made-up people only", "OWNERS__DEFAULT": "growth-team",
             "OWNERS__STAGES": json.dumps({"leads": "sales-ops"})}  # fmt: skip
    with live_line(kafka, tmp_path_factory.mktemp("status-page"), **knobs) as line:
        line.start("worker")
        made = Installation(line, port)
        assert wait_until(made.is_ready, START_MS / 1000, every_s=0.3), line.logs()
        yield made


@pytest.fixture(scope="module")
def eroded(installation: Installation, browser: Browser) -> Installation:
    """The same when the sample was read; the findings appeared on a page that was open all the time."""
    with opened(browser, installation.port) as (page, _):
        expect(page.locator("#open .empty")).to_contain_text("No events yet", timeout=START_MS)
        expect(page.locator("#state")).to_have_text("no events yet", timeout=START_MS)
        _screenshot(page, "status-empty")
        first, rest = _parts(installation.line.folder)
        Replay(installation.line.settings, close=False).run(first)
        expect(page.locator("#open .empty")).to_contain_text("Learning what is normal", timeout=FOUND_MS)
        expect(page.locator("#open .empty")).to_contain_text("of 24 h")
        expect(page.locator("#state")).to_have_text("learning")
        Replay(installation.line.settings).run(rest)
        expect(page.locator("a.finding").nth(OPEN_KINDS - 1)).to_be_visible(timeout=FOUND_MS)
        expect(page.locator("#live")).to_contain_text("New: ")
        expect(page).to_have_title(re.compile(r"^\(\d+\) trustwatch$"))
    until = wait_until(
        lambda: str(installation.get("/api/findings")["judged_until"]) > "2025-09-21T23", 120, every_s=1.0
    )
    assert until, installation.get("/api/pipeline")
    return installation


Files = list[tuple[RecordedFile, str]]


def _parts(folder: Path) -> tuple[Files, Files]:
    """The sample as files, with their topics: its first half day, too short to judge by, and what follows."""
    first, rest = Files(), Files()
    with as_file(files("streams").joinpath("sample")) as sample:
        for name, topic in SAMPLE.items():
            lines = gzip.decompress((sample / name).read_bytes()).splitlines(keepends=True)
            border = len(lines) // 42
            for paths, part, some in ((first, "first", lines[:border]), (rest, "rest", lines[border:])):
                path = folder / f"{part}-{name.removesuffix('.gz')}"
                path.write_bytes(b"".join(some))
                paths.append((RecordedFile(path), topic))
    return first, rest


def test_findings_appear_on_the_open_page_with_what_where_since_when_how_much_and_who(
    eroded: Installation, browser: Browser
) -> None:
    body = eroded.get("/api/findings")
    with opened(browser, eroded.port) as (page, _):
        cards = page.locator("a.finding")
        expect(cards).to_have_count(len(body["open"]), timeout=START_MS)
        for card, finding in zip(cards.all(), body["open"], strict=True):
            expect(card).to_contain_text(finding["title"])
            expect(card).to_contain_text(finding["segment"]["stage"])
            expect(card).to_contain_text(f"owner {finding['owner']}")
            expect(card).to_contain_text(f"{100 * finding['after']:.1f} %")
            expect(card.locator("time")).to_have_attribute("datetime", finding["onset"].replace("Z", ".000Z"))
        expect(page.locator("#leads table").first).to_be_visible()
        page.wait_for_timeout(500)
        _screenshot(page, "status")


def test_a_finding_opens_by_keyboard_and_by_address_with_its_series_and_closes(
    eroded: Installation, browser: Browser
) -> None:
    first = eroded.get("/api/findings")["open"][0]
    with opened(browser, eroded.port) as (page, _):
        card = page.locator("a.finding").first
        card.focus()
        page.keyboard.press("Enter")
        dialog = page.locator("dialog#detail")
        expect(dialog).to_be_visible()
        assert page.url.endswith(f"#finding={first['id']}")
        expect(dialog.locator("h2")).to_contain_text(first["title"])
        expect(dialog.locator(".uplot canvas")).to_be_visible()
        expect(dialog).to_contain_text(first["owner"])
        expect(dialog).to_contain_text("still open")
        dialog.get_by_text("The same in numbers").click()
        assert dialog.locator("tbody tr").count() >= 5
        _screenshot(page, "status-finding", full=False)
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page).not_to_have_url(re.compile("#finding"))  # the address follows a moment later
        expect(card).to_be_focused()
    with opened(browser, eroded.port, path=f"/#finding={first['id']}") as (page, _):
        expect(page.locator("dialog#detail h2")).to_contain_text(first["title"])
        page.get_by_role("button", name="Close").click()
        expect(page.locator("dialog#detail")).to_be_hidden()


def test_an_unknown_finding_is_said_to_be_unknown(eroded: Installation, browser: Browser) -> None:
    made = browser.new_context()
    page = made.new_page()
    page.goto(f"http://127.0.0.1:{eroded.port}/#finding=nobody")
    expect(page.locator("dialog#detail")).to_contain_text("belongs to another worker")
    made.close()


def test_the_series_turns_at_the_onset(eroded: Installation) -> None:
    for finding in eroded.get("/api/findings")["open"]:
        body = eroded.get(f"/api/findings/{finding['id']}")
        if finding["detector"] == "lead_score_drift":
            continue  # acceptance is known days after the hand-over that an onset is told in
        after = [one for one in body["series"] if one["from"] > _epoch(finding["onset"]) and one["rate"] is not None]
        before = [one for one in body["series"] if one["to"] < _epoch(finding["onset"]) and one["rate"] is not None]
        assert len(before) >= 3 and len(after) >= 2, (finding["summary"], body["series"])
        assert abs(_mean(before) - finding["before"]) < 0.08, finding["summary"]
        assert abs(_mean(after) - finding["after"]) < 0.12, finding["summary"]
        assert any(one["expected"] is not None for one in after)


@pytest.mark.parametrize(("width", "height", "scheme"), [(360, 740, "light"), (360, 740, "dark"), (1920, 1080, "dark"),
                                                         (768, 1024, "light")])  # fmt: skip
def test_no_width_scrolls_sideways(
    eroded: Installation, browser: Browser, width: int, height: int, scheme: str
) -> None:
    with opened(browser, eroded.port, width, height, color_scheme=scheme) as (page, _):
        expect(page.locator("#leads table").first).to_be_visible(timeout=START_MS)
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        _screenshot(page, f"status-{width}-{scheme}", full=width > 400 or scheme == "dark")
        page.locator("a.finding").first.click()
        expect(page.locator("dialog#detail .uplot canvas")).to_be_visible()
        assert page.evaluate(
            "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
        )
        if (width, scheme) == (360, "light"):
            _screenshot(page, "status-phone-finding", full=False)


def test_dark_is_dark_and_text_has_contrast_in_both(eroded: Installation, browser: Browser) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with opened(browser, eroded.port, color_scheme=scheme) as (page, _):
            expect(page.locator("a.finding").first).to_be_visible(timeout=START_MS)
            expect(page.locator("#leads table").first).to_be_visible()
            grounds[scheme] = page.evaluate(_LUMINANCE + "luminance(getComputedStyle(document.body).backgroundColor)")
            low = page.evaluate(_CONTRAST)
            assert low == [], f"{scheme}: {low}"
    assert grounds["dark"] < 0.05 and grounds["light"] > 0.8


def test_headings_tables_and_regions_are_named(eroded: Installation, browser: Browser) -> None:
    with opened(browser, eroded.port) as (page, _):
        expect(page.locator("#leads table").first).to_be_visible(timeout=START_MS)
        assert page.locator("h1").count() == 1
        assert page.locator("h2:visible").all_inner_texts() == [
            "Open findings",
            "Journey",
            "Leads",
            "Data trust",
            "Pipeline",
        ]
        assert page.locator("table:not(:has(caption))").count() == 0
        assert page.locator("th:not([scope])").count() == 0
        assert page.locator("[role=region]:not([aria-label])").count() == 0
        assert page.locator("#live").get_attribute("aria-live") == "polite"
        assert page.locator("html").get_attribute("lang") == "en"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to findings"


def test_segments_of_a_stage_are_there_on_demand(eroded: Installation, browser: Browser) -> None:
    with opened(browser, eroded.port) as (page, _):
        expect(page.locator("#journey-table table")).to_be_visible(timeout=START_MS)
        page.get_by_text("Segments of a stage").click()
        page.locator("#stage").select_option("evaluate")
        expect(page.locator("#segments-table tbody tr", has_text="channel = paid")).to_be_visible()


def test_a_worker_that_went_away_is_said_and_comes_back(eroded: Installation, browser: Browser) -> None:
    made = browser.new_context()
    page = made.new_page()
    page.goto(f"http://127.0.0.1:{eroded.port}/")
    expect(page.locator("a.finding").first).to_be_visible(timeout=START_MS)
    made.set_offline(True)
    expect(page.locator("#trouble")).to_contain_text("does not answer", timeout=START_MS)
    expect(page.locator("a.finding").first).to_be_visible()  # what was known stays
    made.set_offline(False)
    expect(page.locator("#trouble")).to_be_hidden(timeout=START_MS)
    made.close()


def test_a_page_with_a_token_asks_for_it_once(kafka: KafkaUnderTest, tmp_path: Path, browser: Browser) -> None:
    port, token = free_port(), "a token for tests only"
    with live_line(kafka, tmp_path, WEB__PORT=str(port), WEB__TOKEN=token) as line:
        line.start("ingest")
        assert wait_until(lambda: _answers(port), START_MS / 1000, every_s=0.3), line.logs()
        made = browser.new_context()
        page = made.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("This worker asks for its token").fill("not the right token")
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#trouble")).to_contain_text("not the token")
        page.locator("#token").fill(token)
        page.keyboard.press("Enter")
        expect(page.locator("#partitions")).to_contain_text("only ingests")
        assert token not in page.url and token not in page.evaluate(
            "document.cookie + JSON.stringify({...sessionStorage})"
        )
        page.reload()
        expect(page.locator("#partitions")).to_contain_text("only ingests")
        made.close()


# ── a worker that is made up: what is rare ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def quiet() -> Iterator[Quiet]:
    """A worker to which nothing comes any more; three seconds ago the last event did."""
    fed = Fed()
    for _ in fed.feed():
        pass
    for slot in fed.line.sessionize.slots.values():
        for source in slot.unit.stage.state.sources.values():
            source.time = time.time() - 3
    watcher = next(iter(fed.line.watch.slots.values())).unit.stage
    watcher._judge.findings["f1"] = FINDING
    fed.line.settings = fed.line.settings.model_copy(update={"web": WebSettings(port=0)})
    made = WebServer(fed.line)
    with ThreadPoolExecutor(1) as aside:  # this thread has a loop already, Playwright's
        aside.submit(asyncio.run, made.on_start()).result()
        yield Quiet(fed, made.port)
        aside.submit(asyncio.run, made.on_stop()).result()


@contextmanager
def looking(browser: Browser, port: int) -> Iterator[Page]:
    """A page that may complain."""
    made = browser.new_context(viewport={"width": 1360, "height": 900})
    try:
        page = made.new_page()
        page.set_default_timeout(SOON_MS)
        yield page
        assert not page.evaluate("window.hacked")
    finally:
        made.close()


def test_ages_grow_when_nothing_comes_any_more(quiet: Quiet, browser: Browser) -> None:
    with looking(browser, quiet.port) as page:
        page.goto(quiet.url)
        age = page.locator("#data [data-reached]").first
        expect(age).to_be_visible(timeout=SOON_MS)
        first = _seconds(age.inner_text())
        assert 2 <= first < 110
        settled = [page.expect_response("**/api/data") for _ in range(2)]
        for turn in settled:
            with turn as answer:
                pass
        assert answer.value.status == 304  # byte by byte the same
        assert wait_until(lambda: _seconds(age.inner_text()) > first + 4, SOON_MS / 1000, every_s=0.3)


def test_a_section_that_fails_is_said_and_the_others_go_on(quiet: Quiet, browser: Browser) -> None:
    with looking(browser, quiet.port) as page:
        page.route("**/api/leads", lambda route: route.fulfill(status=500, json={"error": "a bug"}))
        page.goto(quiet.url)
        expect(page.locator("#trouble")).to_have_text("Not up to date: leads (a bug).", timeout=SOON_MS)
        expect(page.locator("a.finding")).to_have_count(1)
        expect(page.locator("#journey-table table")).to_be_visible()
        expect(page.locator("#state")).not_to_have_text("not connected")
        page.unroute("**/api/leads")
        expect(page.locator("#trouble")).to_be_hidden(timeout=SOON_MS)
        expect(page.locator("#leads table").first).to_be_visible()


def test_what_could_not_be_shown_once_is_asked_for_in_full_again(quiet: Quiet, browser: Browser) -> None:
    def torn(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "segments": None})

    with looking(browser, quiet.port) as page:
        page.route("**/api/leads", torn, times=1)
        page.goto(quiet.url)
        expect(page.locator("#trouble")).to_contain_text("Not up to date: leads", timeout=SOON_MS)
        expect(page.locator("#leads table").first).to_be_visible(timeout=SOON_MS)
        expect(page.locator("#trouble")).to_be_hidden()


def test_segments_of_a_stage_that_is_no_longer_chosen_are_dropped(quiet: Quiet, browser: Browser) -> None:
    held: list[Route] = []
    with looking(browser, quiet.port) as page:
        page.goto(quiet.url)
        expect(page.locator("#journey-table table")).to_be_visible(timeout=SOON_MS)
        stages = page.locator("#stage option").all_text_contents()
        one, other = "evaluate", next(stage for stage in stages if stage != "evaluate")

        def hold(route: Route) -> None:
            held.append(route)

        page.route(lambda url: url.endswith(f"?stage={one}"), hold)
        page.get_by_text("Segments of a stage").click()
        page.locator("#stage").select_option(one)
        page.wait_for_timeout(200)
        late = quiet.get(f"/api/segments?stage={one}")
        page.locator("#stage").select_option(other)
        page.wait_for_timeout(1000)
        before = page.locator("#segments-table").inner_text()
        late["segments"] = [{**late["segments"][1], "segment_label": "device=late"}]
        assert held
        for route in held:
            route.fulfill(json=late)
        page.wait_for_timeout(500)
        assert "late" not in page.locator("#segments-table").inner_text() and before


def test_answers_of_several_workers_are_not_mixed(quiet: Quiet, browser: Browser) -> None:
    def another(route: Route) -> None:
        answer = route.fetch(headers={"Accept": "application/json"})  # in full
        body = {**answer.json(), "worker": "another", "open": [], "recent": []}
        route.fulfill(status=200, json=body)

    with looking(browser, quiet.port) as page:
        page.goto(quiet.url)
        expect(page.locator("a.finding")).to_have_count(1, timeout=SOON_MS)
        page.route("**/api/findings", another)
        expect(page.locator("#trouble")).to_contain_text("findings (another worker answered. Fix: cookie affinity")
        expect(page.locator("a.finding")).to_have_count(1)
        expect(page.locator("#live")).to_be_empty()  # nothing has ended
        page.unroute("**/api/findings")
        expect(page.locator("#trouble")).to_be_hidden(timeout=SOON_MS)
        page.route("**/api/*", another)  # all of them: it was restarted
        expect(page.locator("a.finding")).to_have_count(0, timeout=SOON_MS)
        expect(page.locator("#live")).to_be_empty()


def test_hostile_labels_are_text(quiet: Quiet, browser: Browser) -> None:
    evil = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'
    watcher = next(iter(quiet.fed.line.watch.slots.values())).unit.stage
    told = msgspec.structs.replace(
        FINDING, id="f2", kind=evil, owner=evil, summary=evil, unit=evil, evidence={evil: 1.0},
        segment={"stage": "evaluate", "device": evil},
    )  # fmt: skip
    watcher._judge.findings["f2"] = told
    watcher.rates["evaluate", (("device", evil),)] = {"entered": 50, "advanced": 20, "dropped": 30}
    watcher.rates["leads", (("source", evil),)] = {"scored": 50, "score_3": 50}
    quiet.fed.door.outcomes[evil, "dead_letter", evil] = 3
    with opened(browser, quiet.port) as (page, _):
        expect(page.locator("a.finding")).to_have_count(2, timeout=SOON_MS)
        page.get_by_text("Segments of a stage").click()
        page.locator("#stage").select_option("evaluate")
        for place in ("#open", "#segments-table", "#leads", "#data"):
            expect(page.locator(place)).to_contain_text("onerror", timeout=SOON_MS)
        page.goto(f"{quiet.url}#finding=f2")
        expect(page.locator("dialog#detail")).to_contain_text("onerror")
        page.wait_for_timeout(300)
        assert page.locator("main img, main script, dialog img, dialog script").count() == 0
        assert not page.evaluate("window.hacked")


def test_signing_in_works_beneath_an_open_finding_and_starts_one_loop(browser: Browser) -> None:
    token = "a token for tests only"
    line = Line(SETTINGS.model_copy(update={"web": WebSettings(port=0, token=SecretStr(token))}))
    made = WebServer(line)
    with ThreadPoolExecutor(1) as aside:
        aside.submit(asyncio.run, made.on_start()).result()
        try:
            with looking(browser, made.port) as page:
                page.goto(f"http://127.0.0.1:{made.port}/#finding=nobody")
                expect(page.locator("#signin")).to_be_visible(timeout=SOON_MS)
                page.locator("#token").fill("a token for tests only ☃")
                page.keyboard.press("Enter")
                expect(page.locator("#trouble")).to_have_text("That is not the token of this worker.")
                page.locator("#token").fill(token)
                page.evaluate("for (const _ of [1, 2, 3]) document.querySelector('#signin').requestSubmit()")
                dialog = page.locator("dialog#detail")
                expect(dialog).to_contain_text("belongs to another worker", timeout=SOON_MS)  # the address has stayed
                asked: list[str] = []
                page.on("request", lambda one: asked.append(one.url))
                page.wait_for_timeout(7000)
                assert 1 <= len([url for url in asked if url.endswith("/api/pipeline")]) <= 3  # one loop, every 3 s
                page.context.clear_cookies()
                expect(page.locator("#signin")).to_be_visible(timeout=SOON_MS)
                expect(dialog).to_be_hidden()
                page.locator("#token").fill(token)
                page.get_by_role("button", name="Open").click()
                expect(dialog).to_be_visible(timeout=SOON_MS)
        finally:
            aside.submit(asyncio.run, made.on_stop()).result()


def _seconds(age: str) -> float:
    return float(age.split(maxsplit=1)[0]) * (60 if "min" in age else 1)


def test_the_images_of_the_readme_are_small() -> None:
    for name in ("status.png", "status-phone.png"):
        image = IMAGES / name
        assert image.is_file(), f"{name} is missing. Fix: WRITE_IMAGES=1 make test ARGS='tests/test_status_page.py'"
        assert 5_000 < image.stat().st_size < MOST_BYTES, name


def _screenshot(page: Page, name: str, *, full: bool = True) -> None:
    REPORT.mkdir(exist_ok=True)
    page.screenshot(path=REPORT / f"{name}.png", full_page=full)
    shown = {"status": "status", "status-360-light": "status-phone"}.get(name)
    if shown and os.environ.get("WRITE_IMAGES"):
        IMAGES.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPORT / f"{name}.png", IMAGES / f"{shown}.png")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _mean(points: list[dict[str, Any]]) -> float:
    return float(sum(one["rate"] * one["n"] for one in points) / sum(one["n"] for one in points))


_LUMINANCE = """
const channel = (level) => { const value = level / 255;
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
const luminance = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
"""
_CONTRAST = (
    "(() => {"
    + _LUMINANCE
    + """
const ground = (one) => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor;
  if (!/, 0\\)$/.test(c) && c !== "transparent") return c; } return "rgb(255, 255, 255)"; };
return [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() && [...one.childNodes].some(
  (child) => child.nodeType === 3 && child.textContent.trim())).map((one) => {
  const [a, b] = [luminance(getComputedStyle(one).color), luminance(ground(one))];
  return [one.textContent.slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
}).filter(([, ratio]) => ratio < 4.5); })()"""
)
