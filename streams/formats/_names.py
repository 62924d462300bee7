"""Vendor names and what they mean here: `names.yaml`, with the user's own file merged over it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml
from pydantic import AfterValidator, Field, ValidationError

from streams.errors import ConfigError
from streams.events import EVENT_TYPES, PROPERTY_TYPES
from streams.settings import Section

BUILT_IN: Final = Path(__file__).with_name("names.yaml")
_IGNORED: Final = dict.fromkeys(map(ord, " \t\n_-."))


@lru_cache(maxsize=4096)
def normalise(name: str) -> str:
    """A vendor name without what vendors disagree on.

    >>> normalise("Order Completed") == normalise("order_completed") == normalise("orderCompleted")
    True
    """
    return name.casefold().translate(_IGNORED)


def _known_type(name: str) -> str:
    if name not in EVENT_TYPES:
        raise ValueError(f"unknown event type {name!r}")
    return name


def _known_property(name: str) -> str:
    if name not in PROPERTY_TYPES:
        raise ValueError(f"unknown property {name!r}")
    return name


_Type = Annotated[str, AfterValidator(_known_type)]
_Property = Annotated[str, AfterValidator(_known_property)]


class _Segment(Section):
    events: dict[str, _Type] = Field({})
    properties: dict[_Type, dict[_Property, tuple[str, ...]]] = Field({})


class _HubSpot(Section):
    subscriptions: dict[str, _Type] = Field({})
    properties: dict[str, dict[str, _Type]] = Field({})
    labels: dict[str, str] = Field({})


class _File(Section):
    segment: _Segment = _Segment()
    hubspot: _HubSpot = _HubSpot()


class Names(msgspec.Struct, frozen=True):
    """Vendor names, ready for look-up.

    Attributes:
        events: normalised name of a Segment track → event type.
        properties: event type → our property → vendor keys that may hold it, first wins.
        subscriptions: HubSpot subscription type → event type.
        changes: HubSpot property → its new value, lower case → event type.
        labels: HubSpot property → segment label that it fills.
    """

    events: Mapping[str, str]
    properties: Mapping[str, Mapping[str, tuple[str, ...]]]
    subscriptions: Mapping[str, str]
    changes: Mapping[str, Mapping[str, str]]
    labels: Mapping[str, str]


@lru_cache(maxsize=8)
def load_names(extra: Path | None = None) -> Names:
    """The built-in names, with those of `extra` over them.

    Raises:
        ConfigError: the file is unreadable, has an unknown key, or maps a name to a type that does not exist.
    """
    files = [_read(BUILT_IN)] + ([] if extra is None else [_read(extra)])
    changes: dict[str, dict[str, str]] = {}
    for file in files:
        for name, values in file.hubspot.properties.items():
            changes.setdefault(name, {}).update({value.lower(): kind for value, kind in values.items()})
    return Names(
        events={normalise(name): kind for file in files for name, kind in file.segment.events.items()},
        properties={kind: keys for file in files for kind, keys in file.segment.properties.items()},
        subscriptions={name: kind for file in files for name, kind in file.hubspot.subscriptions.items()},
        changes=changes,
        labels={name: label for file in files for name, label in file.hubspot.labels.items()},
    )


def _read(path: Path) -> _File:
    try:
        content: Any = yaml.safe_load(path.read_bytes())
        return _File.model_validate({} if content is None else content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"names_file {path}: {problems}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"names_file {path}: not a readable YAML mapping: {error}") from error
