"""Pages and event types → journey stages, from one YAML file.

The order of the stages is the order of the journey: going to a later one is advancing, to an earlier one returning.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from detectors._stages import BESIDE
from streams.errors import ConfigError
from streams.events import EVENT_TYPES, Event


class Stage(BaseModel):
    """One stage of the journey."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    pages: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    goal: tuple[str, ...] = ()


class JourneyFile(BaseModel):
    """The YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: str
    stages: tuple[Stage, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> JourneyFile:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names) or set(BESIDE) & set(names):
            raise ValueError(f"stages: names must differ, and these are taken: {', '.join(BESIDE)}")
        if self.entry not in names:
            raise ValueError(f"entry: {self.entry!r} is no stage")
        used = {kind for stage in self.stages for kind in (*stage.events, *stage.goal)}
        if unknown := sorted(used - EVENT_TYPES):
            raise ValueError(f"stages: unknown event types {unknown}")
        return self


class Journey:
    """Answers, for an event, which stage it belongs to.

    >>> journey = load_journey(None)
    >>> journey.stage_of(Event(id="1", type="page_viewed", time=0.0, person="p", page="/pricing"))
    'compare'
    >>> journey.rank["compare"] > journey.rank["evaluate"]
    True
    """

    def __init__(self, file: JourneyFile) -> None:
        self.entry = file.entry
        self.rank = {stage.name: rank for rank, stage in enumerate(file.stages)}
        self.stages = tuple(self.rank)
        self._by_type = {kind: stage.name for stage in reversed(file.stages) for kind in stage.events}
        self._patterns = [(stage.name, _any_of(stage.pages)) for stage in file.stages if stage.pages]
        self._goals = {stage.name: frozenset(stage.goal) for stage in file.stages}
        self._of_page = lru_cache(maxsize=10_000)(self._match_page)

    def stage_of(self, event: Event) -> str | None:
        """Stage named by the event, by its type or by its page; None if it belongs to the step it happened in."""
        if event.stage is not None and event.stage in self.rank:
            return event.stage
        stage = self._by_type.get(event.type)
        if stage is None and event.page is not None and event.type == "page_viewed":
            stage = self._of_page(event.page)
        return stage

    @property
    def goal(self) -> str:
        """The stage that brings the value: the last that a purchase completes, else the last with a goal, or at all."""
        bought = [stage for stage in self.stages if "purchased" in self._goals[stage]]
        return (bought or [stage for stage in self.stages if self._goals[stage]] or list(self.stages))[-1]

    def completes(self, stage: str, kind: str) -> bool:
        """Whether an event of this type reaches the goal of the stage."""
        return kind in self._goals[stage]

    def _match_page(self, page: str) -> str | None:
        return next((stage for stage, pattern in self._patterns if pattern.match(page)), None)


def load_journey(path: Path | None) -> Journey:
    """Read a journey file, or the built-in one.

    Raises:
        ConfigError: the file is missing, no YAML, or inconsistent; the message names the key.
    """
    where = str(path or "built-in journey")
    try:
        text = path.read_text() if path else files("streams").joinpath("journey.yaml").read_text()
        return Journey(JourneyFile.model_validate(yaml.safe_load(text)))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {'.'.join(map(str, first['loc'])) or 'journey'}: {first['msg']}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error


def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(glob) for glob in globs))
