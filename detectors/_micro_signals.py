"""The names of the micro-signals; `streams.signals` defines and finds them."""

from __future__ import annotations

from typing import Final

SIGNALS: Final = (
    "rage_click", "dead_click", "error_click", "u_turn", "page_loop", "field_return", "repeated_search", "compare_loop",
)  # fmt: skip
"""Micro-signals of hesitation, in the order of every vector that holds them."""
