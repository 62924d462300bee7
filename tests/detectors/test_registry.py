"""Discovery, parameters, digests, and the scaffold: each mistake is named."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from detectors import _scaffold
from detectors._registry import build_params, detector_of, discover, params_digest
from detectors.early_dropoff import EarlyDropoff
from detectors.hesitation import Hesitation
from streams.errors import ConfigError
from streams.watch import Detectors


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_finds_every_detector_by_its_file_name() -> None:
    found = discover()
    assert {"early_dropoff", "hesitation", "lead_score_drift"} <= found.keys()
    assert all(cls.name() == name for name, cls in found.items())


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "needs exactly one Detector subclass, has none"),
        ("class A(RateDetector): pass\nclass B(RateDetector): pass", "has A, B"),
        ("class Other(RateDetector): pass", "must be called MyThing, not Other"),
        ("class MyThing(RateDetector): title = 'x'", "lacks state_version: int; lacks alert: AlertOn"),
    ],
)
def test_a_misfit_module_is_refused_by_name(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "my_thing.py"
    path.write_text("from detectors._rate import RateDetector\n" + source)
    with pytest.raises(TypeError, match=complaint):
        detector_of(load(path, "my_thing"))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ({"run_lengt": 7}, r"early_dropoff\.run_lengt: unknown parameter; did you mean run_length\?"),
        ({"run_length": -1}, r"early_dropoff\.run_length: .*greater than or equal to 100"),
        ({"odds_ratio": "x"}, r"early_dropoff\.odds_ratio: "),
    ],
)
def test_bad_parameters_are_refused_by_name(override: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_params(EarlyDropoff, override)


def test_digest_tells_states_apart() -> None:
    plain = build_params(EarlyDropoff)
    assert params_digest(EarlyDropoff, plain) == params_digest(EarlyDropoff, build_params(EarlyDropoff, {}))
    assert params_digest(EarlyDropoff, plain) != params_digest(
        EarlyDropoff, build_params(EarlyDropoff, {"run_length": 900})
    )
    assert params_digest(EarlyDropoff, plain) != params_digest(Hesitation, build_params(Hesitation))


def test_a_scaffolded_detector_works_as_it_is(tmp_path: Path) -> None:
    module_path, test_path, _ = _scaffold.write("checkout_stall", tmp_path)
    assert module_path == tmp_path / "detectors" / "checkout_stall.py"
    cls = detector_of(load(module_path, "checkout_stall"))
    cases = load(test_path, "test_checkout_stall")
    assert cls.name() == "checkout_stall"

    def first_alert(buckets: list[object]) -> float | None:
        detector = cls(build_params(cls))
        for bucket in buckets:
            verdict = detector.observe(detector.look(bucket, detector.params))  # type: ignore[arg-type]
            if verdict.level == "alert":
                return verdict.onset
        return None

    buckets, onset = cases.firing()
    assert first_alert(cases.quiet()) is None
    assert first_alert(buckets) == pytest.approx(onset, abs=86_400)


@pytest.mark.parametrize("name", ["Bad", "2x", "a__b", "_x", "x_", "class", "../x", "a b", "", "x_1"])
def test_bad_names_write_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="lower-case words"):
        _scaffold.write(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = _scaffold.write("same", tmp_path)[1]
    path.write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        _scaffold.write("same", tmp_path)
    assert path.read_text() == "mine"


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str, source: str) -> None:
    """Another package that offers a detector, as it lies on the path once it is installed."""
    (folder / f"{target}.py").write_text(source)
    info = folder / "company_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: company-rules\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[trustwatch.detectors]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, target, raising=False)


def scaffolded(tmp_path: Path, name: str) -> str:
    return _scaffold.write(name, tmp_path / "scaffold")[0].read_text()


def test_another_package_offers_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch, "basket_stall", "basket_stall", scaffolded(tmp_path, "basket_stall"))
    found = discover()
    assert found["basket_stall"].title == "Basket stall"
    assert list(found) == sorted(found)
    assert Detectors({"basket_stall": {"odds_ratio": 0.5}}, ["basket_stall"]).classes.keys() == {"basket_stall"}


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("early_dropoff", "x = 1", "there is a detector of this name"),
        ("broken", "import no_such_module", "broken = late_rule: cannot be imported: ModuleNotFoundError"),
        ("broken", "x = 1", "needs exactly one Detector subclass, has none"),
    ],
)
def test_a_detector_that_cannot_be_taken_stops_the_start_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, complaint: str
) -> None:
    offer(tmp_path, monkeypatch, name, "late_rule", source)
    with pytest.raises(ConfigError, match=complaint):
        Detectors({})
