"""What vendors' fields become: our properties and labels, by the names that `names.yaml` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from streams.events import PROPERTY_TYPES, Value
from streams.formats._common import Fields, typed_property
from streams.formats._names import VendorNames

LABEL_CHARS: Final = 256
DEVICES: Final = {
    "mobile": "mobile", "phone": "mobile", "smartphone": "mobile", "ios": "mobile", "iphone": "mobile",
    "android": "mobile", "tablet": "tablet", "ipad": "tablet", "desktop": "desktop", "web": "desktop", "pc": "desktop",
    "computer": "desktop",
}  # fmt: skip
_MAX_AGENT_CHARS: Final = 512
_MAX_CACHED: Final = 16_384
_MAX_CACHED_CHARS: Final = 1024


def device_of_agent(agent: str) -> str | None:
    """Browsers send no device type; "Mobi" in the user agent is what MDN recommends to look for.

    >>> device_of_agent("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148 Safari/604.1")
    'mobile'
    """
    return _device_of_agent(agent[:_MAX_AGENT_CHARS])  # what is remembered must be short


@lru_cache(maxsize=4096)
def _device_of_agent(agent: str) -> str | None:
    if "iPad" in agent or "Tablet" in agent or ("Android" in agent and "Mobi" not in agent):
        return "tablet"
    if "Mobi" in agent:
        return "mobile"
    return "desktop" if agent.startswith("Mozilla/") else None


def properties_of(wanted: Mapping[str, tuple[str, ...]] | None, given: Fields) -> dict[str, Value]:
    """Only what this type may carry, under our names.

    Raises:
        Refused: `bad_field`, `bad_time` or `not_finite`: a value of the wrong type.
    """
    found: dict[str, Value] = {}
    for name, keys in wanted.items() if wanted and given else ():
        for key in keys:
            if (value := given.get(key)) is not None:
                found[name] = typed_property(name, _coerced(name, value))
                break
    return found


def _coerced(name: str, value: object) -> object:
    """Tag managers send numbers as strings and numbered forms as numbers; what fits neither is refused by its type."""
    expected = PROPERTY_TYPES[name]
    if expected is str and type(value) is int and abs(value) < 2**64:
        return str(value)
    if expected is float and isinstance(value, str) and name != "promised_at":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def labels_of(fields: Fields, names: VendorNames, allowed: tuple[str, ...]) -> dict[str, str]:
    """Segment labels out of a vendor's fields.

    Args:
        fields: what the vendor sent.
        names: which field is which label; of several for one label the first that is there wins.
        allowed: labels that may pass.

    Returns:
        Shared by all events of the same values, so never to be changed.
    """
    values = tuple([value if type(value) is str else None for value in map(fields.get, names.label_fields)])
    found = names.seen.get((values, allowed))
    if found is None:
        found = _labels(values, names, allowed)
        if sum(len(value) for value in values if value) < _MAX_CACHED_CHARS:
            if len(names.seen) >= _MAX_CACHED:
                names.seen.clear()
            names.seen[values, allowed] = found
    return found


def _labels(values: tuple[str | None, ...], names: VendorNames, allowed: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value, label in zip(values, names.labels.values(), strict=True):
        if value and label in allowed and not found.get(label):
            found[label] = _device(value[:LABEL_CHARS]) if label == "device" else value[:LABEL_CHARS]
    return {label: found[label] for label in allowed if found.get(label)}


def _device(value: str) -> str:
    """A device class however it is written, or that of a user agent."""
    return DEVICES.get(value.lower()) or (device_of_agent(value) or "" if "/" in value else value.lower())
