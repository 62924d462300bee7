"""Real client libraries send to the collector: Segment's and PostHog's from PyPI, analytics.js from npm in Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from streams._process import free_port, wait_until
from tests.conftest import ROOT, KafkaUnderTest, kafka_required
from tests.integration.collecting import API_KEY, WRITE_KEY, Collecting, collecting
from tests.test_status_page import browser

__all__ = ["browser"]

pytestmark = pytest.mark.integration
CLIENTS = ROOT / ".cache" / "clients"
SCRIPTS = ROOT / "tests" / "clients"
ANALYTICS_JS = CLIENTS / "package" / "dist" / "umd"
PAGE = """<!doctype html><title>Shop</title><button id=buy>Buy</button><p id=said></p>
<script src="/index.js"></script>
<script>
const {write_key, api, mark} = %s;
const said = document.querySelector("#said");
(async () => {
  const [analytics] = await AnalyticsNext.AnalyticsBrowser.load({writeKey: write_key, cdnURL: api},
    {integrations: {"Segment.io": {apiHost: api.replace("http://", "") + "/v1", protocol: "http"}}});
  await analytics.page("Shop", {mark});
  await analytics.track("Product Added", {mark, price: 2.5});
  await analytics.identify(mark + "-user", {plan: "pro"});
  document.querySelector("#buy").onclick = async () => {
    await analytics.track("Order Completed", {mark, revenue: 2.5});
    said.textContent = "bought";
  };
  said.textContent = "ready";
})().catch(error => { said.textContent = "failed: " + error; });
</script>"""


def missing(what: str) -> None:
    if kafka_required():
        pytest.fail(f"REQUIRE_KAFKA is set, but {what}", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="module")
def shop() -> int:
    """Port of the page: its origin has to be known before the collector starts."""
    return free_port()


@pytest.fixture(scope="module")
def collector(kafka: KafkaUnderTest, shop: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    folder, port = tmp_path_factory.mktemp("clients"), free_port()
    origins = json.dumps([f"http://127.0.0.1:{shop}"])
    knobs = {"COLLECT__PUBLIC_URL": f"http://127.0.0.1:{port}", "COLLECT__PORT": str(port)}
    with collecting(kafka, folder, COLLECT__CORS_ORIGINS=origins, **knobs) as made:
        yield made


def run(script: str, *arguments: str) -> None:
    python = CLIENTS / "bin" / "python"
    if not python.is_file():
        missing("the client libraries are missing. Fix: make clients")
    done = subprocess.run(
        [python, SCRIPTS / script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_segments_python_library_sends_to_it(collector: Collecting) -> None:
    mark = f"seg-{uuid.uuid4().hex}"
    run("segment_events.py", collector.url, WRITE_KEY, mark)
    found = collector.events(mark)
    assert Counter(event.type for event in found) == {"item_added": 250, "page_viewed": 1, "other": 3}
    assert len({event.id for event in found}) == 254
    assert {event.person for event in found} == {f"{mark}-{number}" for number in range(5)}
    assert [event.person for event in found if event.also_person == f"{mark}-a"] == [f"{mark}-0"], "of the alias"


def test_posthogs_python_library_sends_to_it(collector: Collecting) -> None:
    mark = f"ph-{uuid.uuid4().hex}"
    run("posthog_events.py", collector.url, API_KEY, mark)
    found = collector.events(mark)
    assert Counter(event.type for event in found)["item_added"] == 360
    assert len({event.id for event in found}) == len(found) >= 366
    assert {event.person for event in found if event.type == "item_added"} == {
        f"{mark}-{number}" for number in range(5)
    }


@contextmanager
def served(folder: Path, port: int) -> Iterator[None]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), functools.partial(Quiet, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def test_a_page_with_analytics_js_sends_to_it(
    collector: Collecting, shop: int, browser: Browser, tmp_path: Path
) -> None:
    if not (ANALYTICS_JS / "index.js").is_file():
        missing("NO ANALYTICS.JS: a browser page was not tried. Fix: install npm, rm -r .cache/clients, make clients")
    mark = f"js-{uuid.uuid4().hex}"
    for script in ANALYTICS_JS.glob("*.js"):
        (tmp_path / script.name).write_bytes(script.read_bytes())
    given = {"write_key": WRITE_KEY, "api": collector.url, "mark": mark}
    (tmp_path / "index.html").write_text(PAGE % json.dumps(given))
    with served(tmp_path, shop):
        page = browser.new_context().new_page()
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{shop}/products/7?utm_medium=email")
        page.goto(f"http://127.0.0.1:{shop}/?utm_medium=email")
        expect(page.locator("#said")).to_have_text("ready", timeout=30_000)
        page.click("#buy")
        expect(page.locator("#said")).to_have_text("bought", timeout=30_000)
        assert wait_until(lambda: len(collector.events(mark)) >= 4, 30.0), collector.line.logs()
        page.context.close()
    found = {event.type: event for event in collector.events(mark)}
    assert set(found) == {"page_viewed", "item_added", "purchased", "other"}
    assert len({event.person for event in found.values()}) == 1, "one anonymous id"
    assert found["page_viewed"].page == "/" and found["page_viewed"].segment["channel"] == "email"
    assert found["purchased"].also_person == f"{mark}-user" and found["purchased"].properties["value"] == 2.5
    assert not [said for said in complaints if "404" not in said], complaints
