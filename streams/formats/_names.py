"""Vendor names and what they mean here: `names.yaml`, with the user's own file merged over it.

The file has a section a vendor; all sections are of one shape, and only those of the built-in file exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from streams.errors import ConfigError
from streams.events import EVENT_TYPES, OTHER, PROPERTY_TYPES
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


class _Vendor(Section):
    extends: str | None = None
    events: dict[str, _Type] = Field({})
    properties: dict[_Type, dict[_Property, tuple[str, ...]]] = Field({})
    changes: dict[str, dict[str, _Type]] = Field({})
    labels: dict[str, str] = Field({})


_File: Final = TypeAdapter(dict[str, _Vendor])


class VendorNames(msgspec.Struct, frozen=True):
    """The names of one vendor, ready for look-up.

    Attributes:
        events: normalised vendor name → event type.
        properties: event type → our property → vendor keys that may hold it, first wins.
        changes: field of a record → its new value, lower case → event type.
        labels: vendor field → segment label that it fills.
        label_fields: the vendor fields of `labels`, in the order of the file.
        seen: labels that values of these fields became: the cache of `_fields.labels_of`.
    """

    events: Mapping[str, str] = {}
    properties: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
    changes: Mapping[str, Mapping[str, str]] = {}
    labels: Mapping[str, str] = {}
    label_fields: tuple[str, ...] = ()
    seen: dict[tuple[object, ...], dict[str, str]] = {}

    def event(self, name: str) -> str:
        """The event type of a vendor name; `other` where nobody mapped it."""
        return self.events.get(normalise(name), OTHER)


Names = Mapping[str, VendorNames]
"""Section of `names.yaml` → its names."""


@lru_cache(maxsize=8)
def load_names(extra: Path | None = None) -> Names:
    """The built-in names, with those of `extra` over them.

    Raises:
        ConfigError: the file is unreadable, has an unknown key or section, or maps a name to a type that we lack.
    """
    built_in = _read(BUILT_IN)
    files = [built_in] + ([] if extra is None else [_read(extra)])
    for unknown in files[-1].keys() - built_in.keys():
        known = ", ".join(sorted(built_in))
        raise ConfigError(f"names_file {extra}: {unknown}: no such section; there are {known}")
    if extra is not None and any(section.extends is not None for section in files[-1].values()):
        raise ConfigError(f"names_file {extra}: extends: only the built-in file may say it")
    return {name: _merged(_sections(name, files)) for name in built_in}


def _sections(name: str, files: list[dict[str, _Vendor]]) -> list[_Vendor]:
    """All that says something about a vendor, later over earlier: what it extends comes first."""
    own = [file[name] for file in files if name in file]
    base = next((section.extends for section in own if section.extends is not None), None)
    return ([] if base is None else _sections(base, files)) + own


def _merged(sections: Iterable[_Vendor]) -> VendorNames:
    events: dict[str, str] = {}
    properties: dict[str, Mapping[str, tuple[str, ...]]] = {}
    changes: dict[str, dict[str, str]] = {}
    labels: dict[str, str] = {}
    for section in sections:
        events |= {normalise(name): kind for name, kind in section.events.items()}
        properties |= section.properties
        labels |= section.labels
        for field, values in section.changes.items():
            changes.setdefault(field, {}).update({value.lower(): kind for value, kind in values.items()})
    return VendorNames(events, properties, changes, labels, tuple(labels))


def _read(path: Path) -> dict[str, _Vendor]:
    try:
        content: Any = yaml.safe_load(path.read_bytes())
        return _File.validate_python({} if content is None else _renamed(content))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"names_file {path}: {problems}") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"names_file {path}: not a readable YAML mapping: {error}") from error


def _renamed(content: Any) -> Any:
    """HubSpot's section in the words of files that were written before all sections had one shape."""
    section = content.get("hubspot") if isinstance(content, dict) else None
    if not isinstance(section, dict):
        return content
    words = {"subscriptions": "events", "properties": "changes"}
    return content | {"hubspot": {words.get(str(key), key): value for key, value in section.items()}}
