"""Which element was clicked, changed or submitted, out of what PostHog's autocapture tells of it and all around it."""

from __future__ import annotations

from typing import Final

from streams.events import Value
from streams.formats._common import MAX_TEXT_CHARS, Fields

MAX_CHAIN_CHARS: Final = 16_384
"""No more of a chain of elements is looked at; the innermost come first."""


def touched(event: str, kind: str, given: Fields) -> dict[str, Value]:
    """Which element, by id or by tag and classes: never its text or value."""
    chain = given.get("$elements_chain")
    elements = chain[:MAX_CHAIN_CHARS].split('";') if isinstance(chain, str) else _listed(given)
    name = _called(elements[0]) if elements else ""
    found: dict[str, Value] = {}
    if kind == "clicked":
        found = {"element": name, "dead": event == "$dead_click"}
    elif kind in {"form_submitted", "field_changed"}:
        form = next((one for one in elements if one.startswith(("form.", "form:"))), None)
        found = {"form": _called(form) if form is not None else "", "field": name if kind == "field_changed" else ""}
    return {key: value for key, value in found.items() if value}


def _called(element: str) -> str:
    """What an element of `$elements_chain` is called.

    >>> _called('button.btn:attr__class="btn"attr__id="buy"text="Buy it'), _called('a.link.big:nth-child="1')
    ('buy', 'a.link.big')
    """
    selector, _, attributes = element.partition(":")
    return _attribute(attributes, 'attr__id="') or _attribute(attributes, 'attr__name="') or selector


def _attribute(attributes: str, key: str) -> str:
    _, found, rest = attributes.partition(key)
    return rest.partition('"')[0] if found else ""


def _listed(given: Fields) -> list[str]:
    """The list of objects that clients sent before the chain, as far as we read it, in the words of the chain."""
    elements = given.get("$elements") or given.get("elements")
    found = []
    for element in elements[:50] if isinstance(elements, list) else ():
        if isinstance(element, dict):
            tag, *named = (element.get(key) for key in ("tag_name", "attr__id", "attr__name"))
            name = next((word for word in named if isinstance(word, str) and word), "")
            tag = ".".join([tag if isinstance(tag, str) else "", *_classes(element)])
            found.append(f'{tag[:MAX_TEXT_CHARS]}:attr__id="{name[:MAX_TEXT_CHARS]}')
    return found


def _classes(element: Fields) -> list[str]:
    """Sorted, as in the chain."""
    given = element.get("classes") or element.get("attr__class")
    if isinstance(given, str):
        given = given[:MAX_TEXT_CHARS].split()
    return sorted(one for one in given[:50] if isinstance(one, str)) if isinstance(given, list) else []
