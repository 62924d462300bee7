"""How Grafana is asked: one request and its answer, through the package grafana-api.

grafana-api is archived upstream and leaves much to its caller: it quotes no names, takes an empty answer (204) for
broken JSON, and breaks on failures that are no JSON object. So a hook of its session looks at each answer first. It
follows neither proxies nor redirects of the environment, waits for no longer than told, reads no endless answer, and
never says the token, nor what else it is told to hide: Grafana repeats in its failures what it was sent.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import msgspec
import requests
from grafana_api.grafana_face import GrafanaFace
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from streams.errors import GrafanaRefused, GrafanaUnavailable

URL_KNOB: Final = "monitoring.grafana_url"
"""Or `grafana_api_url`, where that is set."""
TOKEN_KNOB: Final = "monitoring.grafana_token"
LONGEST_ANSWER_BYTES: Final = 32_000_000
LONGEST_ANSWER_S: Final = 30.0
LONGEST_PAUSE_S: Final = 10.0
BUSY: Final = (429, 503)
"""Answers that say that nothing was done: even a POST can be made again."""
START: Final = f"start it, or correct {URL_KNOB}"
FIXES: Final = {
    400: "take the newest trustwatch; if it stays so, this Grafana is too old or too new for it: 11 to 13 fit",
    401: f"set {TOKEN_KNOB} to a service-account token of this Grafana that has not expired",
    403: f"give the service account of {TOKEN_KNOB} that right (role Editor annotates, role Admin syncs)",
    404: f"correct {URL_KNOB}, or run trustwatch grafana sync if it is one of our objects",
    409: "rename or delete, in Grafana, the object that has this name or uid already",
    412: "somebody changed it in Grafana meanwhile: look at the difference and run it again",
    422: "look at Grafana's log: it cannot work with what was sent",
}


def path(*names: str, **query: str | int | list[str]) -> str:
    """A path below `/api`, each name quoted, with its query.

    >>> path("folders", "a/b c", limit=2, tags=["x", "y"])
    '/folders/a%2Fb%20c?limit=2&tags=x&tags=y'
    """
    plain = "".join(f"/{quote(name, safe='')}" for name in names)
    return f"{plain}?{urlencode(query, doseq=True)}" if query else plain


class Api:
    """One Grafana's HTTP API.

    Args:
        url: base URL, `http(s)://host[:port][/path]`, without user and password.
        token: service-account token; None asks anonymously (enough for `health`).
        timeout_s: seconds until a request is given up.
        tries: how often a request is made at most, while Grafana is away or busy.
        sleep: waits for so many seconds between two tries.

    Attributes:
        hiders: each takes secrets out of what is told of a failure; more can be added.

    Raises:
        GrafanaUnavailable: the URL or the token is none.
    """

    def __init__(
        self, url: str, token: str | None, timeout_s: float, tries: int, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        parts = plain_parts(url)
        if parts is None:
            # The URL stays out of the message: it may hold a password.
            raise GrafanaUnavailable(
                f"{URL_KNOB} is no http(s)://host[:port] without user and password. Fix: correct {URL_KNOB}"
            )
        if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
            raise GrafanaUnavailable(f"{TOKEN_KNOB} is empty or has blanks in it. Fix: correct {TOKEN_KNOB}")
        self.url = url.rstrip("/")
        self.hiders: list[Callable[[str], str]] = []
        self._token, self._timeout_s, self._tries, self._sleep = token, timeout_s, max(1, tries), sleep
        prefix = parts.path.strip("/")
        self._api: Any = GrafanaFace(
            auth=token or "", host=parts.netloc, protocol=parts.scheme, url_path_prefix=f"{prefix}/" if prefix else "",
            timeout=timeout_s,
        ).api  # fmt: skip
        self._api.s.trust_env = False
        self._api.s.max_redirects = 0
        self._api.s.hooks["response"].append(self._look)
        if token is None:
            self._api.auth = None

    def get(self, where: str) -> Any:
        """What is there.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer as Grafana does, or not at all.
        """
        return self.call("GET", where)

    def find(self, where: str) -> Any:
        """The same; None where nothing is."""
        try:
            return self.get(where)
        except GrafanaRefused as refused:
            if refused.status == 404:
                return None
            raise

    def call(self, method: str, where: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Make one request; again while Grafana is away or busy, unless that could do something twice (POST).

        Args:
            method: of HTTP.
            where: made by `path`.
            body: sent as JSON.
            headers: sent beside the usual ones.

        Returns:
            The answer's JSON; None if it is empty.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer as Grafana does, or not at all.
        """
        for number in range(1, self._tries + 1):
            try:
                return getattr(self._api, method)(where, json=body, headers=headers)
            except _Failed as failed:
                if number == self._tries or not (failed.untouched or (failed.passing and method != "POST")):
                    tries = f" ({number} tries)" if number > 1 else ""
                    raise failed.told(f"{self.url}: {method} {where}", tries, self._hidden) from failed
                self._sleep(min(failed.after_s or 0.5 * 2 ** (number - 1), LONGEST_PAUSE_S))
            except requests.JSONDecodeError as error:
                raise GrafanaUnavailable(f"{self.url} answers, but not as Grafana. Fix: correct {URL_KNOB}") from error
            except requests.TooManyRedirects as error:
                raise GrafanaUnavailable(
                    f"{self.url} sends us elsewhere, which we do not follow. Fix: correct {URL_KNOB}"
                ) from error
            except requests.RequestException as error:
                if number == self._tries or not (method != "POST" or _unsent(error)):
                    raise self._away(error, number) from error
                self._sleep(min(0.5 * 2 ** (number - 1), LONGEST_PAUSE_S))
        raise AssertionError("unreachable")

    def _away(self, error: requests.RequestException, number: int) -> GrafanaUnavailable:
        tries = f" ({number} tries)" if number > 1 else ""
        if isinstance(error, requests.Timeout):
            return GrafanaUnavailable(f"{self.url}: no answer within {self._timeout_s:g} s{tries}. Fix: {START}")
        return GrafanaUnavailable(self._hidden(f"{self.url}{tries}: {error}. Fix: {START}"))

    def _hidden(self, text: str) -> str:
        for hide in self.hiders:
            text = hide(text)
        return text.replace(self._token, "…") if self._token else text

    def _look(self, answer: requests.Response, **_: Any) -> None:
        """Read the answer, bounded, before grafana-api does, and judge its status."""
        content = _read(answer, time.monotonic() + LONGEST_ANSWER_S)
        if answer.status_code >= 400:
            raise _Failed(answer.status_code, content, answer.headers.get("Retry-After", ""))
        if not answer.is_redirect:
            answer.raw = io.BytesIO(content.strip() or b"null")  # grafana-api wants JSON even of a 204


def plain_parts(url: str) -> SplitResult | None:
    """The parts of an http(s) URL without user and password; None if it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    return parts if plain else None


class _Failed(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, content: bytes, after: str) -> None:
        super().__init__(status)
        self.status, self.content = status, content
        self.after_s = float(after) if after.isdecimal() else 0.0
        self.passing = status == 429 or status >= 500
        self.untouched = status in BUSY

    def told(self, what: str, tries: str, hide: Callable[[str], str]) -> GrafanaUnavailable:
        said, kind = _message(self.content, hide)
        said = f": {said}" if said else ""
        if self.passing:
            return GrafanaUnavailable(
                hide(f"{what} is answered with {self.status}{tries}{said}. Fix: try it later; Grafana's log says why")
            )
        fix = FIXES.get(self.status, START)
        if kind in ("name-exists", "uid-exists"):
            fix = FIXES[409]
        return GrafanaRefused(hide(f"{what} is answered with {self.status}{said}. Fix: {fix}"), self.status)


def _message(content: bytes, hide: Callable[[str], str] = str) -> tuple[str, str]:
    """What Grafana says of a failure, one short line, and the kind of failure if it names one.

    Secrets go before it is cut: of half a secret nobody would know that it is one.
    """
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return "", ""
    said = next((found[key] for key in ("message", "msg", "error") if isinstance(found.get(key), str)), "")
    return " ".join(hide(said).split())[:300].rstrip("."), str(found.get("status", ""))


def _read(answer: requests.Response, until: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while part := answer.raw.read1(65_536, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > LONGEST_ANSWER_BYTES or time.monotonic() > until:
                raise requests.RequestException(f"an answer of {size:,} bytes or more that does not end")
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error) from error
    except HTTPError as error:
        raise requests.ConnectionError(error) from error
    return b"".join(parts)


def _unsent(error: requests.RequestException) -> bool:
    """Whether nothing was sent: there was no connection."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)
