"""What browsers ask before they let a page of another site send to us, and what we tell them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from streams.collect.asked import Refused
from streams.collect.routes import Route

PREFLIGHT_S: Final = 600
HEADERS: Final = ("authorization", "content-encoding", "content-type", "sp-anonymous")
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_MOST: Final = 30


class Cors:
    """Decides which pages may send.

    Args:
        origins: of `collect.cors_origins`; `*` is all of them.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.lower() for origin in origins)

    def headers(self, route: Route, origin: str | None) -> dict[str, str]:
        """Headers of the answer to a request of this origin.

        Raises:
            Refused: 403, pages of this origin may not send.
        """
        if not route.browser or origin is None:
            return {}
        named = origin.lower() in self._origins
        if not named and not self._any:
            raise Refused(403, "origin", "pages of this origin may not send. Fix: add it to collect.cors_origins")
        allowed = {"Access-Control-Allow-Origin": origin if named else "*", "Vary": "Origin"}
        if named and route.source == "snowplow":
            allowed["Access-Control-Allow-Credentials"] = "true"  # its trackers ask for it, although we set no cookie
        return allowed

    def preflight(self, route: Route, origin: str | None, wanted: str = "") -> dict[str, str]:
        """Headers of the answer to `OPTIONS`.

        Args:
            route: that is to be called.
            origin: of the page.
            wanted: headers that it asks for. SDKs have theirs, new ones with each version; as nothing of a browser's
                own (cookies) lets anybody in here, any may be sent.

        Raises:
            Refused: 405 where no browser sends, 403 as above.
        """
        if not route.browser or origin is None:
            raise not_allowed(route)
        return self.headers(route, origin) | {
            "Access-Control-Allow-Methods": ", ".join(route.methods),
            "Access-Control-Allow-Headers": ", ".join(dict.fromkeys((*HEADERS, *_names(wanted)))),
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        }


def _names(wanted: str) -> list[str]:
    names = [name.strip().lower() for name in wanted[: _MOST * 66].split(",", _MOST)[:_MOST]]
    return [name for name in names if _NAME.fullmatch(name)]


def not_allowed(route: Route) -> Refused:
    """405 with what is allowed."""
    return Refused(405, "method", f"{', '.join(route.methods)} only", Allow=", ".join(route.methods))
