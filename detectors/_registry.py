"""Which detectors there are: every module of the package that does not begin with `_`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points, version
from types import ModuleType
from typing import Any

import msgspec
from pydantic import ValidationError

from detectors._base import AlertOn, Detector, Params

GROUP = "trustwatch.detectors"
"""Entry points under which other packages offer detectors, a module each."""
DECLARED = {"title": str, "unit": str, "state_version": int, "alert": AlertOn}


def discover(package: str = "detectors") -> dict[str, type[Detector[Any, Any]]]:
    """Import every detector module of a package, and those that other packages offer as entry points of `GROUP`.

    Returns:
        Detector name (`early_dropoff`) → class, in alphabetical order.

    Raises:
        TypeError: a module holds no detector or several, or its class is misnamed or incomplete; an entry point cannot
            be imported, or takes a name that is taken. The message names it.
    """
    path = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]
    found = {name: detector_of(importlib.import_module(f"{package}.{name}")) for name in names}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in found:
            raise TypeError(f"entry point {GROUP}:{point.name} = {point.value}: there is a detector of this name")
        found[point.name] = _offered(point)
    return dict(sorted(found.items()))


def _offered(point: EntryPoint) -> type[Detector[Any, Any]]:
    """The detector of an entry point, which names its module: `my_rule = "company_rules.my_rule"`."""
    where = f"entry point {GROUP}:{point.name} = {point.value}"
    try:
        module = importlib.import_module(point.module)
    except Exception as error:  # whatever somebody else's module raises on import
        raise TypeError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    cls = detector_of(module)
    if cls.name() != point.name:
        raise TypeError(f"{where}: is called {cls.name()}, after its module. Fix: name the entry point so")
    return cls


def detector_of(module: ModuleType) -> type[Detector[Any, Any]]:
    """Return the one detector class that a module defines.

    Raises:
        TypeError: as `discover`.
    """
    stem = module.__name__.rpartition(".")[2]
    wanted = "".join(word.capitalize() for word in stem.split("_"))
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Detector) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise TypeError(f"detectors/{stem}.py: needs exactly one Detector subclass, has {names}")
    cls = found[0]
    if cls.__name__ != wanted:
        raise TypeError(f"detectors/{stem}.py: its class must be called {wanted}, not {cls.__name__}")
    if problems := _problems(cls):
        raise TypeError(f"detectors/{stem}.py: {wanted} {'; '.join(problems)}")
    return cls


def build_params(cls: type[Detector[Any, Any]], overrides: Mapping[str, Any] | None = None) -> Params:
    """Parameters of a detector: its defaults, with some overridden.

    Raises:
        ValueError: a parameter is unknown or out of range; the message names `detector.parameter`.
    """
    try:
        return cls.Params(**dict(overrides or {}))
    except ValidationError as error:
        raise ValueError("; ".join(_say(cls, problem) for problem in error.errors())) from error


def params_digest(cls: type[Detector[Any, Any]], params: Params) -> str:
    """What a snapshot depends on: equal digests may be restored, others start fresh.

    Returns:
        16 hexadecimal digits over detector name, state version, parameters and river's version.
    """
    parts = [cls.name(), cls.state_version, params.model_dump(mode="json"), version("river")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _problems(cls: type[Detector[Any, Any]]) -> list[str]:
    problems = [
        f"lacks {name}: {kind.__name__}"
        for name, kind in DECLARED.items()
        if not isinstance(getattr(cls, name, None), kind)
    ]
    for name, base in (("Params", Params), ("State", msgspec.Struct)):
        value = getattr(cls, name, None)
        if not (inspect.isclass(value) and issubclass(value, base)):
            problems.append(f"lacks {name}, a {base.__name__}")
    if inspect.isabstract(cls):
        problems.append(f"does not define {', '.join(sorted(cls.__abstractmethods__))}")
    return problems


def _say(cls: type[Detector[Any, Any]], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(where, cls.Params.model_fields, n=1)
        return f"{cls.name()}.{where}: unknown parameter" + (f"; did you mean {close[0]}?" if close else "")
    return f"{cls.name()}.{where}: {problem['msg']}"
