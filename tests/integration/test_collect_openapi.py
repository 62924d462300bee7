"""The collector keeps what its OpenAPI document promises: asked by schemathesis, on a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from streams.collect.__main__ import every_source
from streams.collect.openapi import document
from streams.collect.routes import Routes
from tests.conftest import KafkaUnderTest
from tests.integration.collecting import API_KEY, APP_ID, Collecting, collecting

pytestmark = pytest.mark.integration
EXAMPLES = 4
"""Of each of some thirty operations, as many of what fits as of what does not: 250 in all."""
SCHEMA = schemathesis.openapi.from_dict(document(Routes(every_source()).all, every_source().collect))
RESULTS: Any = SCHEMA.get_all_operations()
OPERATIONS: dict[str, Any] = {found.ok().label: found.ok() for found in RESULTS}

TAKES_ANYTHING = {"POST /v1/m", "POST /s", *(label for label in OPERATIONS if label.startswith("GET"))}
"""What is not kept is not read, and where there is no body there is nothing to get wrong but the path."""


@pytest.fixture(scope="module")
def collector(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    with collecting(kafka, tmp_path_factory.mktemp("openapi")) as made:
        yield made
        log = (made.line.folder / "collect-0.log").read_text()
        assert "a bug" not in log and "Traceback" not in log, log


def with_keys(case: Any) -> None:
    """Put keys that are known where made-up ones stand; what was left out stays so."""
    body, query = case.body, case.query or {}
    if isinstance(body, dict) and body.get("api_key") and isinstance(body["api_key"], str):
        body["api_key"] = API_KEY
    items = body.get("data") if isinstance(body, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("aid") and isinstance(item["aid"], str):
            item["aid"] = APP_ID
    if query.get("aid"):
        query["aid"] = APP_ID


def test_the_document_has_an_operation_for_every_route() -> None:
    assert len(OPERATIONS) == len(Routes(every_source()).all) + 2 >= 25


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("label", list(OPERATIONS))
def test_the_document_is_kept(label: str, mode: GenerationMode, collector: Collecting) -> None:
    """Statuses, content types, headers and bodies are as promised; nothing is a 500."""
    if mode is GenerationMode.NEGATIVE and label in TAKES_ANYTHING:
        return

    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def check(case: Any) -> None:
        with_keys(case)
        answer = case.call_and_validate(base_url=collector.url, auth=collector.signing())
        answers.append(answer.status_code)

    answers: list[int] = []
    check()
    if mode is GenerationMode.POSITIVE and "{key}" not in label:
        assert 200 in answers, "nothing that fits was taken: the keys do not reach it"
