"""The status page and its JSON: what a worker sees now, read-only.

`server` listens, in a thread of its own; `guard` decides who may ask; `reader` reads the line at its leisure; `history`
remembers what was seen; `documents` writes the answers; `static` is the page.
"""

from __future__ import annotations

from streams.web.server import WebServer, require_free_web_port

__all__ = ["WebServer", "require_free_web_port"]
