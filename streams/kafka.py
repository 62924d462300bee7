"""Connection settings in the words of each Kafka client we use, from one `KafkaSettings`.

aiokafka carries the line, Faust its agents, kafka-python the administration, confluent-kafka the fast replay.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any, Final

import faust
from aiokafka.abc import AbstractTokenProvider as AsyncTokenProvider
from kafka.net.sasl.oauth import AbstractTokenProvider as TokenProvider
from pydantic import SecretStr

from streams.errors import ConfigError
from streams.settings import KafkaSettings

CLIENT_ID: Final = "trustwatch"

# At DEBUG both write passwords and tokens to their logs: kafka-python its settings, both of them every request.
for _name in ("kafka", "aiokafka"):
    logging.getLogger(_name).setLevel(logging.INFO)


class _AsyncFileToken(AsyncTokenProvider):  # type: ignore[misc]
    """The OAUTHBEARER token that something else keeps fresh in a file, as aiokafka asks for it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        return _token(self._path)


class _FileToken(TokenProvider):  # type: ignore[misc]
    """The same, as kafka-python asks for it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str:
        return _token(self._path)


def aiokafka_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments of AIOKafkaConsumer, AIOKafkaProducer and AIOKafkaAdminClient."""
    options = _common(kafka) | {"ssl_context": _ssl_context(kafka)}
    if kafka.sasl_oauth_token_file and "sasl_mechanism" in options:
        options["sasl_oauth_token_provider"] = _AsyncFileToken(kafka.sasl_oauth_token_file)
    return options


def kafka_python_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments of kafka-python's clients."""
    options = _common(kafka) | {"ssl_context": _ssl_context(kafka)}
    options["bootstrap_timeout_ms"] = options["request_timeout_ms"]
    if kafka.sasl_oauth_token_file and "sasl_mechanism" in options:
        options["sasl_oauth_token_provider"] = _FileToken(kafka.sasl_oauth_token_file)
    return options


def confluent_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Configuration of confluent-kafka's clients (librdkafka's property names)."""
    options: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": CLIENT_ID,
        "security.protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        ssl_context(kafka)  # for its errors: librdkafka's name no knob
        files = {"ssl.ca.location": kafka.ssl_cafile, "ssl.certificate.location": kafka.ssl_certfile,
                 "ssl.key.location": kafka.ssl_keyfile or kafka.ssl_certfile}  # fmt: skip
        options |= {name: str(path) for name, path in files.items() if path}
        if kafka.ssl_key_password:
            options["ssl.key.password"] = _secret(kafka.ssl_key_password)
    if kafka.security_protocol.startswith("SASL_"):
        options["sasl.mechanism"] = kafka.sasl_mechanism
        if kafka.sasl_oauth_token_file:
            token_file = kafka.sasl_oauth_token_file
            options["oauth_cb"] = lambda _config: (_token(token_file), 0.0)
        else:
            options |= {"sasl.username": kafka.sasl_username, "sasl.password": _password(kafka)}
    return options


def faust_credentials(kafka: KafkaSettings) -> Any:
    """`broker_credentials` of the Faust app; None for a plain connection."""
    context = _ssl_context(kafka)
    if not kafka.security_protocol.startswith("SASL_"):
        return None if context is None else faust.SSLCredentials(context)
    if kafka.sasl_oauth_token_file:
        return faust.OAuthCredentials(oauth_cb=_AsyncFileToken(kafka.sasl_oauth_token_file), ssl_context=context)
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=_password(kafka), ssl_context=context, mechanism=kafka.sasl_mechanism
    )


def faust_brokers(kafka: KafkaSettings) -> str:
    """The broker URL of the Faust app."""
    return "kafka://" + ";".join(server.strip() for server in kafka.bootstrap_servers.split(","))


def _token(path: Path) -> str:
    """Read for each connection, so that a renewed token is used at once."""
    return path.read_text().strip()


def _common(kafka: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "client_id": CLIENT_ID,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": int(kafka.request_timeout_s * 1000),
    }
    if kafka.security_protocol.startswith("SASL_"):
        options |= {"sasl_mechanism": kafka.sasl_mechanism}
        if kafka.sasl_username is not None:
            options |= {"sasl_plain_username": kafka.sasl_username, "sasl_plain_password": _password(kafka)}
    return options


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    return ssl_context(kafka) if kafka.security_protocol.endswith("SSL") else None


def ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    """What TLS trusts and shows; brokers must prove the name that we called.

    Raises:
        ConfigError: a file cannot be read or is not what it should be; names the knob.
    """
    for knob in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(kafka, knob)
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise ConfigError(f"kafka.{knob} {path}: cannot be read: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile)
    except ssl.SSLError as error:
        why = f"no PEM file of certificates: {tls_error(error)}"
        raise ConfigError(f"kafka.ssl_cafile {kafka.ssl_cafile}: {why}") from error
    if kafka.ssl_certfile is not None:
        try:
            # Always with a password: OpenSSL would ask the terminal for one, and wait.
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile, _secret(kafka.ssl_key_password) or "")
        except (ssl.SSLError, ValueError) as error:
            why = "not a PEM certificate with its key, or kafka.ssl_key_password is not that of the key"
            raise ConfigError(f"kafka.ssl_certfile/ssl_keyfile: {why}: {tls_error(error)}") from error
    return context


def tls_error(error: Exception) -> str:
    """What OpenSSL says, without its source line."""
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def _secret(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _password(kafka: KafkaSettings) -> str | None:
    return _secret(kafka.sasl_password)
