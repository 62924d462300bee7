"""Grafana's HTTP API, as far as we use it, through the package grafana-api.

grafana-api is archived upstream, so it is wrapped here, in one place: it follows neither proxies nor redirects of the
environment, has a time-out, and every failure becomes one error of ours that says what to do.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from streams.errors import GrafanaUnavailable

KNOB = "monitoring.grafana_url"


class Grafana:
    """One Grafana.

    Args:
        url: base URL, `http(s)://host[:port][/path]`, without user and password.
        token: service-account token; None asks anonymously (enough for `health`).
        timeout_s: seconds until a request is given up.

    Raises:
        GrafanaUnavailable: the URL is none of that form.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 3.0) -> None:
        parts = _plain_parts(url)
        if parts is None:
            # The URL stays out of the message: it may hold a password.
            raise GrafanaUnavailable(
                f"{KNOB} is no http(s)://host[:port] without user and password. Fix: correct {KNOB}"
            )
        self._url = url.rstrip("/")
        prefix = parts.path.strip("/")
        self._api: Any = GrafanaFace(
            auth=token or "", host=parts.netloc, protocol=parts.scheme, url_path_prefix=f"{prefix}/" if prefix else "",
            timeout=timeout_s,
        ).api  # fmt: skip
        self._api.s.trust_env = False
        self._api.s.max_redirects = 0
        if token is None:
            self._api.auth = None

    def health(self) -> dict[str, Any]:
        """What Grafana says of itself: `database` (`ok`) and `version`.

        Raises:
            GrafanaUnavailable: it does not answer, not with 200, or is no Grafana.
        """
        answer = self._get("/health")
        if not isinstance(answer, dict) or "database" not in answer:
            raise GrafanaUnavailable(f"{self._url} answers, but not as Grafana. Fix: correct {KNOB}")
        return answer

    def _get(self, path: str) -> Any:
        try:
            return self._api.GET(path)
        except requests.JSONDecodeError as error:
            raise GrafanaUnavailable(f"{self._url} answers, but not as Grafana. Fix: correct {KNOB}") from error
        except (GrafanaException, requests.RequestException) as error:
            raise GrafanaUnavailable(f"{self._url}: {error}. Fix: start it, or correct {KNOB}") from error


def _plain_parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    return parts if plain else None
