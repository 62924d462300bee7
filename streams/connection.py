"""Why Kafka cannot be reached: the knob that is wrong, in one sentence with its fix.

Each client library says something else, and none says it in our words: "unable to bootstrap" may be a stopped broker, a
wrong password or an unknown CA. So we go the way of a client by hand (connect, TLS, ask the versions, authenticate),
and say where it ends. Nothing that is secret is ever part of a message.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Any, Final

from kafka.net.sasl import get_sasl_mechanism

from streams.kafka import CLIENT_ID, kafka_python_options, ssl_context, tls_error
from streams.settings import KafkaSettings

STEP_S: Final = 3.0
"""A step that takes longer counts as failed."""
_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_UNSUPPORTED_MECHANISM, _NO_SASL_HERE = 33, 34
_WRONG_NAME: Final = (62, 64)
"""OpenSSL's verify codes for a certificate of another host or address."""
_EXPIRED: Final = (9, 10)


class _Silent(Exception):
    """The other side closed the connection, or said nothing that is Kafka."""


def explain(kafka: KafkaSettings, error: object) -> str:
    """A sentence on why Kafka cannot be used, with the fix.

    Args:
        kafka: connection settings.
        error: what the client library said; told where we find nothing wrong ourselves.
    """
    servers = [server.strip() for server in kafka.bootstrap_servers.split(",")]
    reasons = [_try(kafka, server) for server in servers]
    if None in reasons:  # one of them is fine
        return f"kafka.bootstrap_servers {kafka.bootstrap_servers}: {error}"
    return str(reasons[0])


def _try(kafka: KafkaSettings, server: str) -> str | None:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        return f"kafka.bootstrap_servers: {server!r} is no host:port"
    with contextlib.ExitStack() as stack:
        try:
            line = stack.enter_context(socket.create_connection((host.strip("[]"), int(port)), STEP_S))
        except (OSError, OverflowError) as error:
            return (f"kafka.bootstrap_servers {server}: nothing answers there: {error}."
                    " Fix: start Kafka, or correct kafka.bootstrap_servers")  # fmt: skip
        if kafka.security_protocol.endswith("SSL"):
            try:
                line = stack.enter_context(ssl_context(kafka).wrap_socket(line, server_hostname=host.strip("[]")))
            except OSError as error:
                return _about_tls(kafka, server, error)
        try:
            return _talk(kafka, server, line)
        except struct.error:
            return f"kafka.bootstrap_servers {server}: what answers there is no Kafka broker"


def _about_tls(kafka: KafkaSettings, server: str, error: OSError) -> str:
    where = f"kafka.bootstrap_servers {server}"
    if not isinstance(error, ssl.SSLCertVerificationError):
        return (f"kafka.security_protocol is {kafka.security_protocol}, but {server} speaks no TLS that we know"
                f" ({tls_error(error)}). Fix: set it to what the listener there is made for, or correct the port"
                )  # fmt: skip
    if error.verify_code in _WRONG_NAME:
        return (f"{where}: the broker's certificate is for another name: {error.verify_message.rstrip('.')}."
                " Fix: write the brokers' names as their certificates have them")  # fmt: skip
    if error.verify_code in _EXPIRED:
        return f"{where}: the broker's certificate: {error.verify_message}. Fix: renew it, or set this machine's clock"
    return (f"kafka.ssl_cafile {kafka.ssl_cafile or '(not set: the CAs of this system)'}: does not vouch for the"
            f" certificate of {server}: {error.verify_message}. Fix: set it to the CA that signed the brokers'"
            )  # fmt: skip


def _talk(kafka: KafkaSettings, server: str, line: socket.socket) -> str | None:
    protocol = kafka.security_protocol
    try:
        _ask(line, _VERSIONS, 0, b"")
    except _Silent as silent:
        if protocol.endswith("SSL"):
            # TLS 1.3 refuses our certificate only after the handshake.
            return (f"kafka.ssl_certfile/ssl_keyfile ({'set' if kafka.ssl_certfile else 'not set'}): {server} does not"
                    f" accept our certificate ({silent}). Fix: set them to one that the brokers' CA signed"
                    )  # fmt: skip
        tls = "SSL or SASL_SSL" if protocol == "PLAINTEXT" else "SASL_SSL"
        return (f"kafka.security_protocol is {protocol}, but {server} does not speak plain Kafka ({silent})."
                f" Fix: set it to {tls} if the listener there uses TLS, or correct the port")  # fmt: skip
    try:
        return _about_sasl(kafka, server, line)
    except _Silent as silent:
        return f"kafka.bootstrap_servers {server}: hung up while we authenticated ({silent})"


def _about_sasl(kafka: KafkaSettings, server: str, line: socket.socket) -> str | None:
    protocol, mechanism = kafka.security_protocol, kafka.sasl_mechanism
    wants = protocol.startswith("SASL_")
    answer = _ask(line, _HANDSHAKE, 1, _string(mechanism))
    (code,) = struct.unpack(">h", answer[:2])
    offered = ", ".join(_strings(answer[2:]))
    if not wants:
        if code == _NO_SASL_HERE:
            return None
        secured = "SASL_SSL" if protocol == "SSL" else "SASL_PLAINTEXT"
        return (f"kafka.security_protocol is {protocol}, but {server} wants authentication ({offered})."
                f" Fix: set it to {secured}, with kafka.sasl_mechanism, sasl_username and sasl_password")  # fmt: skip
    if code == _NO_SASL_HERE:
        return (f"kafka.security_protocol is {protocol}, but {server} asks for no authentication."
                f" Fix: set it to {protocol.removeprefix('SASL_')}, or correct the port")  # fmt: skip
    if code == _UNSUPPORTED_MECHANISM:
        return f"kafka.sasl_mechanism is {mechanism}, {server} offers {offered}. Fix: set it to one of these"
    return _authenticate(kafka, server, line)


def _authenticate(kafka: KafkaSettings, server: str, line: socket.socket) -> str | None:
    knobs = "kafka.sasl_oauth_token_file" if kafka.sasl_oauth_token_file else "kafka.sasl_username/sasl_password"
    refused = f"{knobs}: {server} refuses them"
    fix = "correct user and password, or have the user made"
    way: Any = get_sasl_mechanism(kafka.sasl_mechanism)(**kafka_python_options(kafka))
    while not way.is_done():
        token = way.auth_bytes()
        answer = _ask(line, _AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
        (code,), rest = struct.unpack(">h", answer[:2]), answer[2:]
        if code:
            said = _strings(struct.pack(">i", 1) + rest)
            return f"{refused}: {said[0] if said else f'error {code}'}. Fix: {fix}"
        (length,) = struct.unpack(">h", rest[:2])
        rest = rest[2 + max(0, length) :]
        try:
            way.receive(rest[4:])
        except (ValueError, KeyError):  # a signature that does not fit: the other side does not know the password
            return f"{refused}: it does not prove that it knows the password. Fix: {fix}"
    return None


# ── Kafka's protocol, as far as we need it ────────────────────────────────────────────────────────────────────────────


def _ask(line: socket.socket, key: int, version: int, body: bytes) -> bytes:
    request = struct.pack(">hhi", key, version, 1) + _string(CLIENT_ID) + body
    try:
        line.settimeout(STEP_S)
        line.sendall(struct.pack(">i", len(request)) + request)
        length, correlation = struct.unpack(">ii", _read(line, 8))
        if correlation != 1 or not 4 <= length < 1_000_000:
            raise _Silent("not an answer of Kafka")
        return _read(line, length - 4)
    except OSError as error:
        raise _Silent(tls_error(error)) from error


def _read(line: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = line.recv(count - len(got))
        if not more:
            raise _Silent("connection closed")
        got += more
    return got


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _strings(blob: bytes) -> list[str]:
    """An array of strings."""
    (count,), blob, found = struct.unpack(">i", blob[:4]), blob[4:], list[str]()
    for _ in range(max(0, count)):
        (length,) = struct.unpack(">h", blob[:2])
        found.append(blob[2 : 2 + max(0, length)].decode())
        blob = blob[2 + max(0, length) :]
    return [text for text in found if text]
