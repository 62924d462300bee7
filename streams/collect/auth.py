"""Who may send: keys, tokens and signatures, all compared in constant time.

What is shown is hashed before it is compared, so that not even its length can be felt, and it is compared with every
secret, so that not even which one it was can be. A signature counts only with a time near ours: a request that was
overheard is of no use to anybody later than `collect.max_skew_s`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b, sha256
from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from streams.collect.asked import Asked, Refused
from streams.errors import ConfigError

SIGNATURE: Final = "X-Trustwatch-Signature"
TIMESTAMP: Final = "X-Trustwatch-Timestamp"
HUBSPOT_SIGNATURE: Final = "X-HubSpot-Signature-v3"
HUBSPOT_TIMESTAMP: Final = "X-HubSpot-Request-Timestamp"
SENDGRID_SIGNATURE: Final = "X-Twilio-Email-Event-Webhook-Signature"
SENDGRID_TIMESTAMP: Final = "X-Twilio-Email-Event-Webhook-Timestamp"
# What HubSpot decodes of the address before it signs it ("Validating requests", v3).
_HUBSPOT_DECODES: Final = {
    "%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'", "%28": "(", "%29": ")",
    "%2A": "*", "%2C": ",", "%3B": ";",
}  # fmt: skip
MOST_REPLAYS: Final = 100_000
"""Signed requests that are remembered, 150 bytes each; beyond it the oldest are forgotten before their time."""
_UNSIGNED: Final = "the request is not signed, or not by a secret that we know"


def missing(what: str, scheme: str | None = None) -> Refused:
    """401: nothing was shown, or nothing that we know."""
    headers = {"WWW_Authenticate": f'{scheme} realm="trustwatch"'} if scheme else {}
    return Refused(401, "unauthorized", what, **headers)


class Keys:
    """Some secrets, any of which will do.

    Args:
        secrets: in plain text.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._digests = [sha256(one.encode()).digest() for one in secrets]

    def find(self, shown: str) -> int | None:
        """Number of the secret that was shown; None if it is none of them."""
        digest = sha256(shown.encode("utf-8", "surrogateescape")).digest()
        found = None
        for number, known in enumerate(self._digests):
            if hmac.compare_digest(digest, known):
                found = number
        return found


def basic_user(authorization: str) -> str | None:
    """User name of `Authorization: Basic`, which is where write keys are; None without that scheme."""
    scheme, _, blob = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(blob.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""


def bearer(authorization: str) -> str | None:
    """Token of `Authorization: Bearer`; None without that scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def require_fresh(timestamp: str, received_s: float, max_skew_s: float, *, milliseconds: bool = False) -> None:
    """Refuse a request whose time is far from ours.

    Raises:
        Refused: 401; a time that cannot be read counts as stale.
    """
    try:
        sent_s = int(timestamp) / (1000.0 if milliseconds else 1.0) if len(timestamp) <= 20 else math.nan
    except ValueError:
        sent_s = math.nan
    if not abs(received_s - sent_s) <= max_skew_s:
        raise Refused(401, "stale", f"the timestamp of the signature is not within {max_skew_s:g} s of our clock."
                      " Fix: sign each request anew, and set the clock")  # fmt: skip


class Signed(ABC):
    """A scheme of signatures."""

    @abstractmethod
    def signed(self, asked: Asked) -> bytes:
        """The bytes that are signed."""

    def fingerprint(self, asked: Asked) -> bytes:
        """Of what is signed, not of the signature: some schemes have several that are valid for the same bytes."""
        return blake2b(self.signed(asked), digest_size=16).digest()


class Hmac(Signed):
    """Requests signed with a secret over `timestamp.body`, SHA-256, hexadecimal: the scheme of `/v1/events`."""

    def __init__(self, secrets: Sequence[str], max_skew_s: float) -> None:
        self._secrets = [one.encode() for one in secrets]
        self._max_skew_s = max_skew_s

    def check(self, asked: Asked) -> int:
        """Number of the secret that signed it.

        Raises:
            Refused: 401.
        """
        shown = asked.headers.get(SIGNATURE, "").removeprefix("sha256=").lower()
        number = _signer(self._secrets, self.signed(asked), shown, False)
        require_fresh(asked.headers.get(TIMESTAMP, ""), asked.received_s, self._max_skew_s)
        return number

    def signed(self, asked: Asked) -> bytes:
        """Timestamp, a dot and the body."""
        return f"{asked.headers.get(TIMESTAMP, '')}.".encode("utf-8", "surrogateescape") + asked.body


class Hubspot(Signed):
    """Signature v3: base64 of the HMAC-SHA-256 of method, address, body and timestamp (milliseconds), put together."""

    def __init__(self, secrets: Sequence[str], max_skew_s: float, public_url: str | None) -> None:
        self._secrets = [one.encode() for one in secrets]
        self._max_skew_s = max_skew_s
        self._base = (public_url or "").rstrip("/")

    def check(self, asked: Asked) -> int:
        """Number of the secret that signed it.

        Raises:
            Refused: 401.
        """
        number = _signer(self._secrets, self.signed(asked), asked.headers.get(HUBSPOT_SIGNATURE, ""), True)
        timestamp = asked.headers.get(HUBSPOT_TIMESTAMP, "")
        require_fresh(timestamp, asked.received_s, self._max_skew_s, milliseconds=True)
        return number

    def signed(self, asked: Asked) -> bytes:
        """Method, address, body and timestamp."""
        base = self._base or f"http://{asked.headers.get('Host', '')}"
        address = base + asked.path + (f"?{asked.query}" if asked.query else "")
        for code, character in _HUBSPOT_DECODES.items():
            if "%" in address:
                address = address.replace(code, character).replace(code.lower(), character)
        timestamp = asked.headers.get(HUBSPOT_TIMESTAMP, "").encode("utf-8", "surrogateescape")
        return (asked.method + address).encode("utf-8", "surrogateescape") + asked.body + timestamp


class Sendgrid(Signed):
    """Signed event webhook: ECDSA (P-256, SHA-256) over timestamp and body, base64 of DER.

    Raises:
        ConfigError: a verification key is none.
    """

    def __init__(self, public_keys: Sequence[str], max_skew_s: float) -> None:
        self._keys = [_ecdsa_key(one) for one in public_keys]
        self._max_skew_s = max_skew_s

    def check(self, asked: Asked) -> int:
        """Number of the key that signed it.

        Raises:
            Refused: 401.
        """
        signed = self.signed(asked)
        try:
            signature = base64.b64decode(asked.headers.get(SENDGRID_SIGNATURE, ""), validate=True)
        except (binascii.Error, ValueError) as error:
            raise missing(_UNSIGNED) from error
        for number, key in enumerate(self._keys):
            try:
                key.verify(signature, signed, ECDSA(SHA256()))
            except InvalidSignature:
                continue
            require_fresh(asked.headers.get(SENDGRID_TIMESTAMP, ""), asked.received_s, self._max_skew_s)
            return number
        raise missing(_UNSIGNED)

    def signed(self, asked: Asked) -> bytes:
        """Timestamp and body."""
        return asked.headers.get(SENDGRID_TIMESTAMP, "").encode("utf-8", "surrogateescape") + asked.body


class Replays:
    """Signed requests that were taken: the same one again is answered as the first was, and nothing is written.

    Who sends again because no answer came is content with that, and who overheard it gains nothing.

    Args:
        max_skew_s: how far a timestamp may be from our clock; twice of it, and it is stale anyway.
    """

    def __init__(self, max_skew_s: float) -> None:
        self._keep_s = 2.0 * max_skew_s
        self._taken: dict[bytes, float] = {}

    def knows(self, fingerprint: bytes | None) -> bool:
        """Whether it was taken already."""
        return fingerprint in self._taken

    def note(self, fingerprint: bytes | None, now_s: float) -> None:
        """It was taken, at this time of a monotonic clock."""
        if fingerprint is None:
            return
        self._taken[fingerprint] = now_s
        while (first := next(iter(self._taken.items())))[1] < now_s - self._keep_s or len(self._taken) > MOST_REPLAYS:
            del self._taken[first[0]]


def _signer(secrets: Sequence[bytes], signed: bytes, shown: str, in_base64: bool) -> int:
    found, given = None, shown.encode("utf-8", "surrogateescape")
    for number, secret in enumerate(secrets):
        mac = hmac.new(secret, signed, sha256)
        expected = base64.b64encode(mac.digest()) if in_base64 else mac.hexdigest().encode()
        if hmac.compare_digest(expected, given):
            found = number
    if found is None:
        raise missing(_UNSIGNED)
    return found


def _ecdsa_key(text: str) -> EllipticCurvePublicKey:
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ConfigError("collect.sendgrid.public_keys: not a verification key. Fix: copy the one that SendGrid shows"
                          " under Settings, Mail Settings, Event Webhook") from error  # fmt: skip
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigError("collect.sendgrid.public_keys: a key, but not of ECDSA, which SendGrid signs with")
    return key


def require_url(url: str | None, knob: str) -> None:
    """Refuse a base URL that is none.

    Raises:
        ConfigError: names the knob.
    """
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{knob}: a base URL such as https://collect.example.com was expected")
