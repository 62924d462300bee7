"""Dashboards drawn from a real Prometheus: what is on the picture is what Prometheus said."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.image import imread

from dashboards import _draw_panels, build, names
from dashboards._draw_panels import Page, color_of, merged, shown, style_of
from dashboards.draw import Prometheus, PrometheusRefused, Span, main, resolve, seconds_of
from streams._process import free_port
from tests.conftest import PROMTOOL, kafka_required

END = 1_790_000_000
STEP_S = 15
BEGIN = END - 3600
WORKER = 'job="trustwatch",instance="w:1"'
FINDING = ('detector="early_dropoff",kind="early_dropoff",stage="evaluate",segment="channel=paid",direction="worse",'
           'finding="abc"')  # fmt: skip


def samples() -> Iterator[tuple[str, str, float, float]]:
    """Metric, labels, value at the start, growth a second: an hour of a worker that has one open finding."""
    yield "trustwatch_ready", "", 1, 0
    yield "trustwatch_watermark_timestamp_seconds", 'stage="watch",partition="0"', BEGIN, 1
    for outcome, share in (("advanced", 2.0), ("dropped", 6.0)):
        yield "trustwatch_steps_total", f'stage="evaluate",segment="channel=paid",outcome="{outcome}"', 0, share
    yield "trustwatch_open_finding", f'{FINDING},severity="page",level="alert",owner="growth-team"', 1, 0
    yield "trustwatch_open_finding_view", 'finding="abc",view="soon"', 1, 0
    yield "trustwatch_open_finding_before", FINDING, 0.431, 0
    yield "trustwatch_open_finding_after", FINDING, 0.257, 0
    yield "trustwatch_open_finding_observations", FINDING, 510, 0
    yield "trustwatch_open_finding_score_ratio", FINDING, 0.51, 0
    yield "trustwatch_open_finding_onset_timestamp_seconds", FINDING, END - 86_400, 0
    yield "trustwatch_open_finding_detected_timestamp_seconds", FINDING, END - 7200, 0
    stream = 'detector="early_dropoff",view="soon",stage="evaluate",segment="channel=paid"'
    yield "trustwatch_detector_expected", stream.replace("soon", "at_all"), 0.6, 0  # another view, and before it
    for name, value in (("observed", 0.25), ("expected", 0.43), ("expected_low", 0.38), ("expected_high", 0.48)):
        yield f"trustwatch_detector_{name}", stream, value, 0
    for i in range(30):
        where = f'detector="early_dropoff",stage="evaluate",segment="device=d{i:02}"'
        yield "trustwatch_detector_score_ratio", where, i / 40, 0
    for le, leads in (("50", 1.0), ("100", 3.0), ("+Inf", 3.0)):
        yield "trustwatch_lead_score_bucket", f'segment="all",le="{le}"', 0, leads


def open_metrics() -> str:
    lines = list[str]()
    for name, labels, start, growth in sorted(samples(), key=lambda each: each[0]):
        where = f"{{{WORKER}{',' if labels else ''}{labels}}}"
        lines += [f"{name}{where} {start + growth * (at - BEGIN)} {at}" for at in range(BEGIN, END + 1, STEP_S)]
    return "\n".join([*lines, "# EOF\n"])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Prometheus on loopback that holds `samples`."""
    program = PROMTOOL.with_name("prometheus")
    found = str(program) if program.is_file() else shutil.which("prometheus")
    if found is None:
        if kafka_required():
            pytest.fail("REQUIRE_KAFKA is set, but Prometheus is missing. Fix: make promtool", pytrace=False)
        pytest.skip("Prometheus is missing. Fix: make promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "data.txt").write_text(open_metrics())
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    blocks = [str(Path(found).with_name("promtool")), "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*blocks, str(folder / "data.txt"), str(folder / "data")], check=True, capture_output=True)
    url = f"127.0.0.1:{free_port()}"
    command = [found, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               "--storage.tsdb.retention.time=100y", f"--web.listen-address={url}", "--log.level=error"]  # fmt: skip
    with subprocess.Popen(command) as process:
        try:
            _wait(f"http://{url}/-/ready", process)
            yield f"http://{url}"
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "Prometheus has ended"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("Prometheus is not ready")


def page(uid: str, url: str, **given: str) -> Page:
    board, span, asked = build.boards()[uid], Span(BEGIN, END, STEP_S), Prometheus(url)
    return Page(board, asked, span, resolve(board, asked, span, given))


def panel(uid: str, title: str) -> dict[str, Any]:
    return next(each for each in build.boards()[uid]["panels"] if each["title"] == title)


def texts(url: str, uid: str, title: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that is written in the picture of a panel."""
    made = list[Figure]()
    figure = plt.figure

    def kept(**options: Any) -> Figure:
        made.append(figure(**options))
        return made[-1]

    monkeypatch.setattr(plt, "figure", kept)
    board = {**build.boards()[uid], "panels": [panel(uid, title)]}
    span, asked = Span(BEGIN, END, STEP_S), Prometheus(url)
    _draw_panels.draw(board, asked, span, resolve(board, asked, span, {}), Path("/dev/null"))
    (one,) = made
    found = [each.get_text() for each in one.texts]
    for axes in one.axes:
        found += [each.get_text() for each in axes.texts]
        legend = axes.get_legend()
        found += [each.get_text() for each in legend.get_texts()] if legend else []
    return found


@pytest.mark.parametrize("uid", names.DASHBOARDS)
def test_every_dashboard_is_drawn_as_large_as_its_grid(prometheus: str, uid: str, tmp_path: Path) -> None:
    out = tmp_path / "board.png"
    asked = ["--prometheus", prometheus, "--board", uid, "--out", str(out), "--span", "1h", "--end", str(END)]
    told = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    height, width, _ = imread(out).shape
    bottom = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in build.boards()[uid]["panels"])
    assert (width, height) == (1728, pytest.approx(100 * (0.55 + 0.36 * bottom), abs=1))


def test_fewer_lines_make_a_shorter_picture(prometheus: str, tmp_path: Path) -> None:
    out = tmp_path / "board.png"
    asked = ["--prometheus", prometheus, "--board", names.OVERVIEW, "--out", str(out), "--end", str(END)]
    assert CliRunner().invoke(main, [*asked, "--span", "1h", "--lines", "13"]).exit_code == 0
    assert imread(out).shape[0] == pytest.approx(100 * (0.55 + 0.36 * 13), abs=1)


def test_variables_are_filled_from_prometheus_one_after_the_other(prometheus: str) -> None:
    values = page(names.FINDING, prometheus).values
    told = {name: values[name] for name in ("finding", "detector", "stage", "segment", "view", "job")}
    assert told == {
        "finding": "abc", "detector": "early_dropoff", "stage": "evaluate", "segment": "channel=paid", "view": "soon",
        "job": ".+",
    }  # fmt: skip
    assert page(names.FINDING, prometheus, finding="other").values["finding"] == "other"


@pytest.mark.parametrize(("uid", "title", "text"), [
    (names.OVERVIEW, "Open pages", "1"), (names.OVERVIEW, "Got worse this week", "1"),
    (names.OVERVIEW, "Open tickets", "0"), (names.FINDING, "Before", "43.1 %"), (names.FINDING, "Change", "-40.4 %"),
    (names.FINDING, "Found after", "22.0 h"),
    (names.FINDING, "Where, and which way", "evaluate, channel=paid: worse (growth-team)"),
    (names.LEADS, "Leads created", "no leads in this\nsegment and time\nrange"),
    (names.FINDING, "How steps end", "dropped"), (names.FINDING, "Observed and expected", "expected, 95 %"),
    (names.OVERVIEW, "Open findings, one by one", "growth-team"), (names.OVERVIEW, "Worst segments", "72.5 %"),
])  # fmt: skip
def test_the_picture_says_what_prometheus_says(
    prometheus: str, uid: str, title: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text in texts(prometheus, uid, title, monkeypatch)


def test_rows_of_a_table_are_put_together_by_their_labels(prometheus: str) -> None:
    columns, rows = merged(page(names.OVERVIEW, prometheus), panel(names.OVERVIEW, "Open findings, one by one"))
    (row,) = rows
    assert columns[0] == "Finding" and row["Finding"] == "abc" and row["Severity"] == "page"
    assert (row["Before"], row["After"], row["Since"]) == (0.431, 0.257, (END - 86_400) * 1000)


def test_more_rows_than_fit_are_told(prometheus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(prometheus, names.FINDING, "Segments of this stage", monkeypatch)
    assert [text for text in found if text.startswith("and ")] and "device=d29" in found and "device=d00" not in found


def test_only_the_worst_segments_are_lines(prometheus: str) -> None:
    shared = page(names.OVERVIEW, prometheus)
    (target,) = panel(names.OVERVIEW, "Early drop-off: most suspicious segments")["targets"]
    drawn = {name for name, _ in shared.ask(target)}
    assert drawn == {f"evaluate, device=d{i}" for i in range(25, 30)}


def test_what_prometheus_does_not_understand_is_told_with_the_query(prometheus: str) -> None:
    with pytest.raises(PrometheusRefused, match=r"sum\(.*parse error"):
        Prometheus(prometheus).now("sum(", END)


@pytest.mark.parametrize(("asked", "told"), [
    (["--prometheus", "http://127.0.0.1:9", "--span", "1h"], "--prometheus"),
    (["--prometheus", "file:///etc/passwd"], "no http(s) URL"),
    (["--prometheus", "http://127.0.0.1:9", "--span", "soon"], "--span"),
])  # fmt: skip
def test_wrong_options_are_told_by_name(asked: list[str], told: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*asked, "--board", names.FINDING, "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 1 and told in done.output and "Traceback" not in done.output


@pytest.mark.parametrize(("value", "unit", "decimals", "text"), [
    (0.5, "percentunit", None, "50 %"), (0.12345, "percentunit", 2, "12.35 %"), (float("nan"), "s", None, "-"),
    (0.25, "s", None, "250 ms"), (7200, "s", 1, "2.0 h"), (1536, "bytes", 1, "1.5 KiB"), (1500, "short", 0, "1.5 k"),
    (12, "cps", 1, "12.0/s"), (0, "dateTimeAsIso", None, "1970-01-01 00:00"), (3, "none", None, "3"),
])  # fmt: skip
def test_values_are_shown_with_their_unit(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert shown(value, unit, decimals) == text


def test_colours_follow_thresholds() -> None:
    steps = panel(names.PIPELINE, "Not ready")["fieldConfig"]["defaults"]["thresholds"]
    assert color_of(0, steps) == _draw_panels.COLORS["green"] and color_of(1, steps) == _draw_panels.COLORS["red"]


def test_styles_are_found_by_legend() -> None:
    assert "custom.fillBelowTo" in style_of(panel(names.FINDING, "Observed and expected"), "expected, high")
    assert "custom.fillBelowTo" not in style_of(panel(names.FINDING, "Observed and expected"), "expected")


def test_a_span_is_a_number_and_a_unit() -> None:
    assert seconds_of("now-7d") == 7 * 86_400
    with pytest.raises(ValueError, match="--span"):
        seconds_of("now")
