"""What `trustwatch doctor` says of Grafana once it has a token: is that good, does our data source answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.names import PROMETHEUS_UID
from streams.doctor import _look_at_grafana
from streams.settings import Settings
from tests.grafana_stub import TOKEN, GrafanaStub, grafana_stub


@pytest.fixture
def stub() -> Iterator[GrafanaStub]:
    with grafana_stub() as running:
        running.sources[PROMETHEUS_UID] = {"uid": PROMETHEUS_UID}
        yield running


def looked(stub: GrafanaStub, token: str | None = TOKEN) -> tuple[str, str, str]:
    given: dict[str, Any] = {"grafana_url": "http://127.0.0.1:1", "grafana_api_url": stub.url, "grafana_token": token}
    result, message, fix = _look_at_grafana(Settings(monitoring=given))
    assert TOKEN not in f"{message}{fix}"
    return result, message, fix or ""


def test_without_a_token_it_says_what_it_did_not_look_at(stub: GrafanaStub) -> None:
    result, message, fix = looked(stub, None)
    assert (result, fix) == ("ok", "")
    assert message.startswith(f"{stub.url} is healthy, version 12.1.0; monitoring.grafana_token is not set")
    assert stub.requests == ["GET /api/health"]


def test_all_is_well(stub: GrafanaStub) -> None:
    result, message, fix = looked(stub)
    assert result == "ok" and f"its data source {PROMETHEUS_UID} answers" in message and not fix
    assert stub.writes == []


def test_a_token_that_is_refused(stub: GrafanaStub) -> None:
    result, message, fix = looked(stub, "glsa_other")
    assert (result, "401" in message, "monitoring.grafana_token" in fix) == ("fail", True, True)
    assert "glsa_other" not in f"{message}{fix}"


def test_a_token_that_may_not_look_at_data_sources(stub: GrafanaStub) -> None:
    stub.fail(403, "datasources")
    result, message, fix = looked(stub)
    assert (result, "403" in message, "service account" in fix) == ("warn", True, True)


def test_a_data_source_that_is_not_there(stub: GrafanaStub) -> None:
    stub.sources.clear()
    result, message, fix = looked(stub)
    assert (result, fix) == ("warn", "trustwatch grafana sync") and f"no data source {PROMETHEUS_UID}" in message


@pytest.mark.parametrize("status", [200, 400])
def test_a_data_source_that_does_not_answer(stub: GrafanaStub, status: int) -> None:
    stub.source_health = (status, {"status": "ERROR", "message": "dial tcp: no such host"})
    result, message, fix = looked(stub)
    assert (result, "no such host" in message, "correct the URL of that data source" in fix) == ("fail", True, True)
