"""Who may ask for the status page, and what every answer says about itself.

Without a token the page is for whoever can reach loopback; there the `Host` header is what keeps a web site from
reading it by DNS rebinding. With one, all that holds data asks for `Authorization: Bearer …`, or for the cookie that
`/api/session` gives to those who have shown the token there: so the token is in no address, no history and no log, and
no script can read the cookie.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec

from streams.settings import Settings

COOKIE: Final = "trustwatch_session"
COOKIE_S: Final = 7 * 86_400
PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Open to all who reach the port: they hold no data, and orchestrators ask by address, without a token."""
SESSION: Final = "/api/session"
ACK: Final = "/api/ack"
"""The one path that changes something; only with a token, and only from this page or with the token in hand."""
METHODS: Final = ("GET", "HEAD")
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Asked(msgspec.Struct, frozen=True):
    """What the guard looks at of a request; absent headers are empty."""

    method: str
    path: str
    host: str = ""
    authorization: str = ""
    cookie: str = ""
    origin: str = ""
    content_type: str = ""


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        headers: that go with it.
    """

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Decides.

    Args:
        settings: `web`, and the public name in `monitoring.status_url`, if there is one.
    """

    def __init__(self, settings: Settings) -> None:
        web = settings.web
        self._token = web.token.get_secret_value().encode() if web.token else None
        public = urlsplit(getattr(settings.monitoring, "status_url", None) or "").hostname
        self._names = {name.lower() for name in ("localhost", web.host, public, *web.allowed_hosts) if name}

    def check(self, asked: Asked) -> None:
        """Let pass or not.

        Raises:
            Refused: with the status to answer with.
        """
        if asked.method == "POST" and asked.path == ACK:
            self._check_change(asked)
            return
        if asked.method not in METHODS:
            raise Refused(405, "the status page is read-only", Allow=", ".join(METHODS))
        if asked.path in PROBES:
            return
        if not self._is_ours(asked.host):
            raise Refused(403, "not a name of this worker. Fix: ask for it by address, or add the name to"
                          " web.allowed_hosts")  # fmt: skip
        if asked.path.startswith("/api/") and not self.knows(asked):
            raise Refused(
                401, "a token is needed: Authorization: Bearer …", WWW_Authenticate='Bearer realm="trustwatch"'
            )

    def _check_change(self, asked: Asked) -> None:
        """Let a change pass: whoever makes it has the token, and no other site made their browser do it.

        JSON makes a browser ask first before it sends this for another site, and nobody here says yes.
        """
        if self._token is None:
            raise Refused(403, "nobody may write here without a token. Fix: set web.token, or use `trustwatch ack`")
        if not self._is_ours(asked.host):
            raise Refused(403, "not a name of this worker")
        if not self.knows(asked):
            raise Refused(401, "a token is needed", WWW_Authenticate='Bearer realm="trustwatch"')
        if asked.content_type.partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "send application/json")
        here = urlsplit(asked.origin).netloc.lower() == asked.host.lower() != ""
        if not here and (asked.origin or not asked.authorization):
            raise Refused(403, "asked for by another site")

    def knows(self, asked: Asked) -> bool:
        """Whether the token, or a cookie made of it, was shown; both are compared in constant time."""
        if self._token is None:
            return True
        scheme, _, shown = asked.authorization.partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(_digest(_bytes(shown.strip())), _digest(self._token))
        cookies = [] if asked.path == SESSION else _cookies(asked.cookie)
        return any(hmac.compare_digest(_bytes(cookie), self.session.encode()) for cookie in cookies)

    @property
    def session(self) -> str:
        """Value of the cookie: it follows from the token but does not give it away, and another token voids it."""
        return "" if self._token is None else hmac.new(self._token, b"trustwatch status page", sha256).hexdigest()

    def _is_ours(self, host: str) -> bool:
        """Whether a `Host` cannot be a stranger's: rebinding needs a name, so addresses are fine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _digest(value: bytes) -> bytes:
    """So that the lengths of what is compared are the same."""
    return sha256(value).digest()


def _bytes(header: str) -> bytes:
    """As it was sent: bytes of a header that are no UTF-8 come as lone surrogates."""
    return header.encode("utf-8", "surrogateescape")


def _cookies(header: str) -> list[str]:
    """Values of our cookie; what others of this host have set, however odd, is none of our business."""
    pairs = (part.partition("=") for part in header.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == COOKIE]
