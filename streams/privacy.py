"""The door: raw ids become pseudonyms, and everything that could hold personal data is templated, redacted or dropped.

After `Privacy.scrub` an outcome may be stored, shown and used as a label. Pseudonyms are HMAC-SHA-256 (RFC 2104) under
a secret key, so nobody without the key can tell whose they are, and whoever has it can find a person for an erasure.
"""

from __future__ import annotations

import hmac
import math
import re
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

from streams.errors import ConfigError
from streams.events import CLOCK, PROPERTY_TYPES, Event, Outcome, Rejection, Value
from streams.settings import ENV_PREFIX, Settings

OFFLINE_KEY: Final = b"trustwatch-offline-not-a-secret"
"""Key of backtests: not secret, since nothing leaves the process, and fixed, so that results can be reproduced."""
REDACTED: Final = "redacted"
PSEUDONYM_BYTES: Final = 16
MAX_PATH_SEGMENTS: Final = 8
"""Deeper paths are cut; journeys name pages by their first segments."""
MAX_RAW_CHARS: Final = 2048
"""No more of a text is looked at: patterns take time with its length."""
_PAGE_ID_CHARS: Final = 8
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_CACHED_IDS: Final = 16_384
_CACHED_WORDS: Final = 16_384

_URL_HOST: Final = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*", re.IGNORECASE)
_QUERY: Final = re.compile(r"[?#;].*", re.DOTALL)
_IP: Final = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-f]{0,4}:){3,}[0-9a-f]{0,4}", re.IGNORECASE)
_PHONE: Final = re.compile(r"\+?\d(?:[\s()./-]*\d){6,}")
_DIGIT_RUN: Final = re.compile(r"\d{6,}")
_OPAQUE: Final = re.compile(
    r"""\d+                                # numbers
    | [0-9a-f]{8,}                         # hex
    | [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}  # UUID
    | (?=.*\d).{16,}                       # tokens with digits
    | (?:.*\d){5,}.*                       # order numbers, dates, phone numbers
    | .*[@=%/?&].*                         # e-mail, base64 padding, anything encoded twice, embedded URLs
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def path_of(url: str) -> str:
    """The path of a URL, or of what already is a path; query and fragment go.

    >>> path_of("https://shop.example/Cart?email=a@b.example#top"), path_of("/cart")
    ('/Cart', '/cart')
    """
    return _QUERY.sub("", _URL_HOST.sub("", url.strip())) or "/"


def looks_personal(text: str) -> bool:
    """True for what may identify somebody: an e-mail, phone or IP address, or a long number.

    >>> [looks_personal(text) for text in ("spring sale", "anna@example.org", "+49 170 1234567", "10.0.0.1")]
    [False, True, True, True]
    """
    plain = unquote(text) if "%" in text else text
    if plain.isalpha():
        return False
    return "@" in plain or any(pattern.search(plain) for pattern in (_DIGIT_RUN, _PHONE, _IP))


class Privacy:
    """Pseudonymises and scrubs outcomes; its caches are bounded and hold only what arrived lately.

    >>> privacy = Privacy(b"a key of your own", labels=("channel",))
    >>> privacy.pseudonym("visitor-1")
    '...'
    >>> privacy.page("https://shop.example/Orders/123/?token=secret")
    '/orders/:id'
    >>> event = Event("m1", "page_viewed", 0.0, "visitor-1", segment={"channel": "anna@example.org", "mood": "good"})
    >>> privacy.scrub(event).segment
    {'channel': 'redacted'}
    """

    def __init__(
        self,
        key: bytes,
        *,
        path_templates: Iterable[tuple[str, str]] = (),
        labels: tuple[str, ...] = (),
        max_chars: int = 64,
    ) -> None:
        """Prepare for one key.

        Args:
            key: secret of the pseudonyms.
            path_templates: (regular expression, replacement) pairs tried on each path segment before our own rules.
            labels: segment labels that may pass.
            max_chars: longest label, page or text kept, characters.

        Raises:
            ConfigError: a path template is no regular expression.
        """
        self._labels = frozenset(labels)
        self._max_chars = max_chars
        self._templates = [_template(index, *pair) for index, pair in enumerate(path_templates)]
        # Own keys per purpose: equal raw values of a person and a session must not show as equal.
        self._hash_id = _keyed(hmac.digest(key, b"event id", "sha256"))
        self._hash_person = lru_cache(_CACHED_IDS)(_keyed(key))
        self._hash_session = lru_cache(_CACHED_IDS)(_keyed(hmac.digest(key, b"session", "sha256")))
        self._hash_page = _keyed(hmac.digest(key, b"page", "sha256"))
        self._page = lru_cache(_CACHED_WORDS)(self._locate)
        self._word = lru_cache(_CACHED_WORDS)(self._clean)
        self._segment = lru_cache(_CACHED_WORDS)(self._clean_labels)

    @classmethod
    def from_settings(cls, settings: Settings, offline: bool = False) -> Privacy:
        """Build it from the settings.

        Args:
            settings: `privacy` and `segments` are read.
            offline: nothing leaves the process (backtest): `OFFLINE_KEY` serves where no key is set.

        Raises:
            ConfigError: no key is set and this is not offline, or a path template is wrong.
        """
        privacy = settings.privacy
        if privacy.pseudonym_key is not None:
            key = privacy.pseudonym_key.get_secret_value().encode()
        elif offline:
            key = OFFLINE_KEY
        else:
            name = f"{ENV_PREFIX}PRIVACY__PSEUDONYM_KEY"
            raise ConfigError(f"privacy.pseudonym_key is not set: give it 16 secret characters or more, or set {name}")
        return cls(
            key,
            path_templates=privacy.path_templates,
            labels=settings.segments.labels,
            max_chars=privacy.max_label_chars,
        )

    def pseudonym(self, raw_id: str) -> str:
        """The first 128 bits of HMAC-SHA-256(key, raw id), URL-safe base64 without padding: 22 characters."""
        return self._hash_person(raw_id)

    def page(self, raw: str) -> str:
        """The path as a template: lower case, variable parts replaced, bounded in depth and length."""
        return self._page(raw)[0]

    def scrub(self, outcome: Outcome) -> Outcome:
        """Make an outcome fit to leave the door; an event is changed in place.

        Returns:
            The same event, or the rejection with a pseudonym.
        """
        if isinstance(outcome, Rejection):
            if outcome.person is None:
                return outcome
            return Rejection(outcome.reason, outcome.detail, self._hash_person(outcome.person))
        if outcome.type != CLOCK:
            self._scrub_event(outcome)
        return outcome

    def _scrub_event(self, event: Event) -> None:
        event.id = self._hash_id(event.id)
        event.person = self._hash_person(event.person)
        if event.also_person is not None:
            event.also_person = self._hash_person(event.also_person)
        if event.session is not None:
            event.session = self._hash_session(event.session)
        if event.page is not None:
            event.page, event.page_id = self._page(event.page)
        if event.stage is not None:
            event.stage = self._word(event.stage) or None
        if event.segment:
            event.segment = self._segment(tuple(event.segment.items()))
        if event.properties:
            event.properties = {
                name: clean
                for name, value in event.properties.items()
                if (clean := self._typed(name, value)) is not None
            }

    def _clean_labels(self, labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
        """Shared by all events that carry the same labels, so never to be changed."""
        words = {label: self._word(raw) for label, raw in labels if label in self._labels}
        return {label: word for label, word in words.items() if word}

    def _typed(self, name: str, value: Value) -> Value | None:
        """A property of the allow-list in its own type; None drops it. Formats have refused wrong types before."""
        expected = PROPERTY_TYPES.get(name)
        if expected is str:
            return (self._word(value) or None) if isinstance(value, str) else None
        if expected is bool:
            return value if isinstance(value, bool) else None
        if expected is None or isinstance(value, str | bool):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def _clean(self, raw: str) -> str:
        raw = raw[:MAX_RAW_CHARS]
        if looks_personal(raw):
            return REDACTED
        printable = raw if raw.isprintable() else "".join(char for char in raw if char.isprintable())
        return printable.strip()[: self._max_chars]

    def _locate(self, raw: str) -> tuple[str, str]:
        """Template of a page, and the digest that tells it from others of the same template."""
        return self._template_page(raw), self._hash_page(path_of(raw[:MAX_RAW_CHARS]))[:_PAGE_ID_CHARS]

    def _template_page(self, raw: str) -> str:
        parts = [unquote(part).strip() for part in path_of(raw[:MAX_RAW_CHARS]).split("/")]
        named = [self._template_part(part) for part in parts if part not in {"", ".", ".."}]
        return ("/" + "/".join(named[:MAX_PATH_SEGMENTS]))[: self._max_chars]

    def _template_part(self, part: str) -> str:
        for pattern, replacement in self._templates:
            replaced, count = pattern.subn(replacement, part)
            if count:
                return replaced
        if _OPAQUE.fullmatch(part) or _looks_random(part) or looks_personal(part):
            return ":id"
        return "".join(char for char in part if char.isprintable()).lower()


def _keyed(key: bytes) -> Callable[[str], str]:
    # RFC 2104 on hashlib's own objects: `hmac` would take twice as long, and every event needs one or two.
    padded = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
    inner, outer = (sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))

    def pseudonym(raw: str) -> str:
        first, second = inner.copy(), outer.copy()
        first.update(raw.encode("utf-8", "surrogatepass"))
        second.update(first.digest())
        return str(b2a_base64(second.digest()[:PSEUDONYM_BYTES]).translate(_URL_SAFE, b"=\n"), "ascii")

    return pseudonym


def _template(index: int, pattern: str, replacement: str) -> tuple[re.Pattern[str], str]:
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
        compiled.sub(replacement, "")
    except (re.error, IndexError) as error:
        raise ConfigError(f"privacy.path_templates[{index}]: no regular expression and replacement: {error}") from error
    return compiled, replacement


def _looks_random(part: str) -> bool:
    """Base64 without digits: long and of thoroughly mixed case, unlike words in camel case.

    >>> _looks_random("QWxhZGRpbjpvcGVuIHNlc2FtZQ"), _looks_random("TermsAndConditionsOfUse")
    (True, False)
    """
    capitals = sum(char.isupper() for char in part)
    return len(part) >= 16 and len(part) / 4 < capitals < len(part) * 3 / 4
