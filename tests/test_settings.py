"""Every knob has one place, a typo stops the program, and the message names the knob."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from streams.errors import ConfigError
from streams.settings import Settings, knobs, load_settings


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and an environment of no settings."""
    for name in list(os.environ):
        if name.upper().startswith("TRUSTWATCH_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(**overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(**overrides)
    return str(caught.value)


def test_arguments_win_over_environment_over_file_over_default(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().time.session_gap_s == 1800
    (empty_place / "trustwatch.yaml").write_text("time: {session_gap_s: 900, bucket_s: 20}\n")
    assert load_settings().time.session_gap_s == 900
    monkeypatch.setenv("TRUSTWATCH_TIME__SESSION_GAP_S", "600")
    found = load_settings(time={"allowed_lateness_s": 7})
    assert (found.time.session_gap_s, found.time.bucket_s, found.time.allowed_lateness_s) == (600, 20, 7)
    assert load_settings(time={"session_gap_s": 300}).time.session_gap_s == 300


def test_another_file_can_be_named(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_place / "trustwatch.yaml").write_text("app_id: wrong\n")
    (empty_place / "other.yaml").write_text("app_id: right\n")
    monkeypatch.setenv("TRUSTWATCH_CONFIG", str(empty_place / "other.yaml"))
    assert load_settings().app_id == "right"


def test_a_named_file_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTWATCH_CONFIG", "/nowhere/t.yaml")
    assert refused() == "TRUSTWATCH_CONFIG=/nowhere/t.yaml: no such file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time: {sesion_gap_s: 3}", "time.sesion_gap_s: unknown setting; did you mean time.session_gap_s?"),
        ("kafak: {}", "kafak: unknown setting; did you mean kafka?"),
        ("topics: {raw: [{name: a, fmt: b}]}", "topics.raw.0.fmt: unknown setting"),
        ("time: {bucket_s: 0}", "time.bucket_s: Input should be greater than 0"),
        ("time: {bucket_s: .inf}", "time.bucket_s: Input should be a finite number"),
        ("time: {bucket_s: soon}", "time.bucket_s: Input should be a valid number"),
        ("time: {dwell_marks_s: [30, 15]}", "time.dwell_marks_s must ascend"),
        ("time: {dwell_marks_s: [15, 15]}", "time.dwell_marks_s must ascend"),
        ("time: {session_gap_s: 20000}", "time.max_session_s must be more than time.session_gap_s"),
        ("leads: {score_min: 10, score_max: 10}", "leads.score_max must be more than leads.score_min"),
        ("leads: {score_max: .nan}", "leads.score_max: Input should be a finite number"),
        ("leads: {score_bins: 3}", "leads.score_bins"),
        (
            "segments: {watch: [mood]}",
            "or pairs use labels that segments.labels lacks: ['mood']",
        ),
        ("segments: {labels: [source], pairs: []}", "segments.labels lacks: ['channel', 'country', 'device', 'model']"),
        ("privacy: {pseudonym_key: short}", "privacy.pseudonym_key must have 16 characters"),
        ("metrics: {port: 70000}", "metrics.port"),
        ("app_id: 'my app'", "app_id"),
        ("kafka: {security_protocol: TLS}", "kafka.security_protocol"),
        ("time: 7", "time"),
    ],
)
def test_a_wrong_knob_in_the_file_is_named(empty_place: Path, text: str, message: str) -> None:
    (empty_place / "trustwatch.yaml").write_text(text)
    assert message in refused()


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just text", "a: 2020-13-45", "1: 2", "[" * 5000, "\0"])
def test_a_file_that_is_no_mapping_is_named(empty_place: Path, text: str) -> None:
    (empty_place / "trustwatch.yaml").write_text(text)
    assert "trustwatch.yaml: not a readable YAML mapping" in refused()


def test_a_file_of_bytes_that_are_no_text_is_named(empty_place: Path) -> None:
    (empty_place / "trustwatch.yaml").write_bytes(b"\xff\xfe\xfa")
    assert "trustwatch.yaml: not a readable YAML mapping" in refused()


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("TRUSTWATCH_TIME__SESION_GAP_S", "TRUSTWATCH_TIME__SESSION_GAP_S"),
        ("TRUSTWATCH_KAFKA_BOOTSTRAP_SERVERS", "TRUSTWATCH_KAFKA__BOOTSTRAP_SERVERS"),
        ("trustwatch_ap_id", "TRUSTWATCH_APP_ID"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_name_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, close: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert refused() == f"{name}: unknown setting; did you mean {close}?"


def test_variables_of_others_are_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_WATCH", "1")
    assert load_settings().app_id == "trustwatch"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TRUSTWATCH_TIME__BUCKET_S", "-1", "time.bucket_s: Input should be greater than 0"),
        ("TRUSTWATCH_TIME", '{"buket_s": 3}', "time.buket_s: unknown setting; did you mean time.bucket_s?"),
    ],
)
def test_a_bad_value_in_the_environment_names_the_knob(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    assert expected in refused()


def test_broken_json_in_a_variable_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTWATCH_TIME__DWELL_MARKS_S", "[1, 2")
    message = refused()
    assert "environment" in message
    assert "dwell_marks_s" in message or '"time"' in message
    assert "YAML" not in message


def test_open_ended_knobs_take_any_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTWATCH_OWNERS__STAGES__BUY", "anna")
    monkeypatch.setenv("TRUSTWATCH_DETECTORS__EARLY_DROPOFF__ALERT_AT", "12")
    found = load_settings()
    assert found.owners.stages == {"buy": "anna"}
    assert found.detectors["early_dropoff"]["alert_at"] == "12"


@pytest.mark.parametrize(
    ("kafka", "missing"),
    [
        ({"sasl_mechanism": "PLAIN"}, "kafka.sasl_username, kafka.sasl_password"),
        ({"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "u"}, "needs kafka.sasl_password"),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_username": "u", "sasl_password": "p"}, "kafka.sasl_oauth_token_file"),
    ],
)
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_sasl_needs_its_credentials(protocol: str, kafka: dict[str, str], missing: str) -> None:
    message = refused(kafka={"security_protocol": protocol, **kafka})
    assert message.startswith("kafka: ")
    assert message.endswith(missing)


@pytest.mark.parametrize(
    "kafka",
    [
        {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "secret"},
        {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "/run/token"},
    ],
)
def test_sasl_with_its_credentials_is_accepted_and_they_are_not_printed(kafka: dict[str, str]) -> None:
    found = load_settings(kafka={"security_protocol": "SASL_SSL", **kafka})
    assert found.kafka.security_protocol == "SASL_SSL"
    assert "secret'" not in repr(found)


def test_the_key_of_pseudonyms_is_never_printed() -> None:
    found = load_settings(privacy={"pseudonym_key": "a-secret-of-16-characters"})
    assert isinstance(found.privacy.pseudonym_key, SecretStr)
    assert "a-secret" not in repr(found)


def test_settings_are_frozen() -> None:
    found = load_settings()
    for section, knob in ((found, "app_id"), (found.time, "bucket_s")):
        with pytest.raises(ValidationError):
            setattr(section, knob, 1)


def test_every_knob_is_listed_once_with_a_description() -> None:
    listed = list(knobs())
    names = [name for name, _ in listed]
    assert len(set(names)) == len(names) > 50
    assert {"app_id", "kafka.bootstrap_servers", "time.bucket_s", "owners.stages", "detectors"} <= set(names)
    assert not {"kafka", "time"} & set(names)
    assert [name for name, field in listed if not field.description] == []


def test_every_listed_knob_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Settings()
    for name, _ in knobs():
        value: Any = found
        for part in name.split("."):
            value = getattr(value, part)


def test_knobs_with_a_unit_in_seconds_say_so() -> None:
    silent = [name for name, field in knobs() if name.endswith("_s") and "second" not in (field.description or "")]
    assert silent == []
