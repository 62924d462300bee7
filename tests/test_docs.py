"""Generated documents: true, complete, the same everywhere, and stale ones are found out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detectors._registry import discover
from streams.docs import MAIN, PARTS, REASON_MEANINGS, documents, main, parts
from streams.events import REASONS
from streams.formats import FORMATS
from streams.settings import ENV_PREFIX, knobs
from tests.conftest import ROOT


def skeleton(names: list[str]) -> str:
    marked = "\n".join(f"## {name}\n<!-- generated: {name} -->\n<!-- /generated -->\nAfter {name}." for name in names)
    return f"# A project\n\nIn a text, `<!-- generated: settings -->` is no marker.\n{marked}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / MAIN).write_text(skeleton(list(PARTS)))
    return tmp_path


def test_documents_of_the_repository_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_the_documents_name_everything_there_is() -> None:
    text = "\n".join(path.read_text() for path in documents(ROOT))
    for name, _ in knobs():
        assert f"| `{name}` | `{ENV_PREFIX}{name.upper().replace('.', '__')}` |" in text, name
    for name in (*discover(), "step_model"):
        assert f"**`{name}`**" in text, name
    for name in (*FORMATS, *REASONS, "trustwatch_events_total", "trust.findings"):
        assert f"| `{name}` |" in text, name


def test_every_reason_has_a_meaning() -> None:
    assert tuple(REASON_MEANINGS) == REASONS


def test_each_metric_is_there_once() -> None:
    names = [line.split("|")[1] for line in PARTS["metrics"]().splitlines()[2:]]
    assert len(names) == len(set(names)) > 30
    assert all(name.startswith(" `trustwatch_") for name in names)


def test_neither_environment_nor_file_shows(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts()
    (project / "trustwatch.yaml").write_text("app_id: somebody-elses\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("TRUSTWATCH_TOPICS__EVENTS", "not-the-default")
    monkeypatch.setenv("TRUSTWATCH_PRIVACY__PSEUDONYM_KEY", "a secret that must not show")
    assert parts() == before


def test_another_process_writes_the_same() -> None:
    code = "import sys; from streams.docs import parts; sys.stdout.write(repr(parts()))"
    environment = os.environ | {"PYTHONHASHSEED": "7", "COLUMNS": "40"}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=ROOT, text=True)
    assert said == repr(parts())


def test_a_second_run_changes_nothing(project: Path) -> None:
    assert main([], project) == 0
    written = (project / MAIN).read_text()
    assert (main([], project), main(["--check"], project)) == (0, 0)
    assert (project / MAIN).read_text() == written
    assert all(f"\nAfter {name}.\n" in written for name in PARTS)
    assert written.startswith("# A project\n\nIn a text, `<!-- generated: settings -->` is no marker.\n")


def test_a_stale_document_is_found_out_and_left_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([], project)
    stale = (project / MAIN).read_text().replace("| `app_id` |", "| `app_name` |")
    (project / MAIN).write_text(stale)
    capsys.readouterr()
    assert main(["--check"], project) == 1
    assert capsys.readouterr().err == "FAIL README.md stale. Fix: make gen\n"
    assert (project / MAIN).read_text() == stale


def test_parts_may_stand_in_the_documents_of_deploy(project: Path) -> None:
    (project / MAIN).write_text(skeleton([name for name in PARTS if name != "topics"]))
    (project / "deploy").mkdir()
    (project / "deploy" / MAIN).write_text(skeleton(["topics"]))
    assert main([], project) == 0
    assert "`trust.findings`" in (project / "deploy" / MAIN).read_text()


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_no_document_has_is_named(project: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (project / MAIN).write_text(skeleton([other for other in PARTS if other != name]))
    assert main(["--check"], project) == 1
    assert f"has no part <!-- generated: {name} -->" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- generated: knobs -->\n<!-- /generated -->\n", "generated: knobs --> is no generated part; known: com"),
        ("<!-- generated: topics -->\nno end\n", "is not closed"),
        ("<!-- generated: topics -->\n<!-- generated: settings -->\n<!-- /generated -->\n", "is not closed"),
    ],
)
def test_a_broken_marker_writes_nothing(
    project: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / MAIN).write_text(text)
    assert main([], project) == 1
    assert complaint in capsys.readouterr().err
    assert (project / MAIN).read_text() == text
