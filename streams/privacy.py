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
from typing import Final, NamedTuple
from urllib.parse import unquote

from streams.errors import ConfigError
from streams.events import (
    CLOCK,
    NOTE,
    OTHER,
    PROPERTY_TYPES,
    SAID_TYPES,
    WEB_TYPES,
    Event,
    Former,
    Outcome,
    Rejection,
    Value,
)
from streams.settings import ENV_PREFIX, Settings

OFFLINE_KEY: Final = b"trustwatch-offline-not-a-secret"
"""Key of backtests: not secret, since nothing leaves the process, and fixed, so that results can be reproduced."""
REDACTED: Final = "redacted"
PSEUDONYM_BYTES: Final = 16
MAX_PATH_SEGMENTS: Final = 8
"""Deeper paths are cut; journeys name pages by their first segments."""
MAX_NOTE_CHARS: Final = 200
MAX_RAW_CHARS: Final = 2048
"""No more of a text is looked at: patterns take time with its length."""
_PAGE_ID_CHARS: Final = 8
_MOST_ENCODED: Final = 4
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_CACHED_IDS: Final = 16_384
_CACHED_WORDS: Final = 16_384

_URL_HOST: Final = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*", re.IGNORECASE)
_QUERY: Final = re.compile(r"[?#;].*", re.DOTALL)
_IP: Final = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-f]{0,4}:){3,}[0-9a-f]{0,4}", re.IGNORECASE)
_PHONE: Final = re.compile(r"\+?\d(?:[\s()./-]*\d){6,}")
_QUERY_STRING: Final = re.compile(r"[?&;][\w.%\[\]-]+=")
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
    """True for what may identify somebody: an e-mail, phone or IP address, a long number, or a query string.

    >>> [looks_personal(text) for text in ("spring sale", "anna@example.org", "+49 170 1234567", "10.0.0.1", "/a?b=c")]
    [False, True, True, True, True]
    """
    plain = _decoded(text) if "%" in text else text
    if plain.isalpha():
        return False
    return "@" in plain or any(pattern.search(plain) for pattern in (_DIGIT_RUN, _PHONE, _IP, _QUERY_STRING))


def _decoded(text: str) -> str:
    """Without percent-encoding, also where it was encoded more than once."""
    for _ in range(_MOST_ENCODED):
        text, before = unquote(text), text
        if text == before:
            break
    return text


class Rotation(NamedTuple):
    """The key before, while it is still valid.

    Attributes:
        key: the previous secret.
        at: event time from which the present key holds, seconds.
        straddled: event time at which all sessions that began before `at` have ended, seconds.
    """

    key: bytes
    at: float = -math.inf
    straddled: float = math.inf


class _Names(NamedTuple):
    """What one key makes of raw values; with a key of its own for each purpose, lest equal raw values show as equal."""

    id: Callable[[str], str]
    person: Callable[[str], str]
    session: Callable[[str], str]
    page_id: Callable[[str], str]


class Privacy:
    """Pseudonymises and scrubs outcomes; its caches are bounded and hold only what arrived lately.

    While keys are changed there are two. Which of them holds for an event follows from event time (`rotate_at`), so it
    is the same whichever worker reads it, and read again.

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
        paths: Iterable[str] = (),
        labels: tuple[str, ...] = (),
        max_chars: int = 64,
        scrub: Iterable[str] = (),
        rotation: Rotation | None = None,
    ) -> None:
        """Prepare for one key, or two.

        Args:
            key: secret of the pseudonyms.
            path_templates: (regular expression, replacement) pairs tried on each path segment before our own rules.
            paths: patterns such as `/u/:name`: a segment that begins with a colon stands for any one.
            labels: segment labels that may pass.
            max_chars: longest label, page or text kept, characters.
            scrub: regular expressions of what is redacted beside what `looks_personal`.
            rotation: the key before, while it is still valid.

        Raises:
            ConfigError: a path template or a pattern is no regular expression.
        """
        self._labels = frozenset(labels)
        self._max_chars = max_chars
        self._templates = [_template(index, *pair) for index, pair in enumerate(path_templates)]
        # The longest first, and of equal length the one with more words: the most particular.
        patterns = [pattern.lower().strip("/").split("/") for pattern in paths]
        self._paths = sorted(patterns, key=lambda parts: (-len(parts), sum(part[0] == ":" for part in parts)))
        self._scrub = [_pattern(index, pattern) for index, pattern in enumerate(scrub)]
        self.rotation = rotation
        self._names = _names(key)
        self._before = self._names if rotation is None else _names(rotation.key)
        self._page = lru_cache(_CACHED_WORDS)(self._template_page)
        self._word = lru_cache(_CACHED_WORDS)(self._clean)
        self._segment = lru_cache(_CACHED_WORDS)(self._clean_labels)

    @classmethod
    def from_settings(cls, settings: Settings, offline: bool = False) -> Privacy:
        """Build it from the settings.

        Args:
            settings: `privacy`, `segments` and `time` are read.
            offline: nothing leaves the process (backtest): `OFFLINE_KEY` serves where no key is set.

        Raises:
            ConfigError: no key is set and this is not offline, or a path template or pattern is wrong.
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
            paths=privacy.paths,
            labels=settings.segments.labels,
            max_chars=privacy.max_label_chars,
            scrub=privacy.scrub,
            rotation=_rotation(settings),
        )

    def pseudonym(self, raw_id: str) -> str:
        """The first 128 bits of HMAC-SHA-256(key, raw id), URL-safe base64 without padding: 22 characters."""
        return self._names.person(raw_id)

    def page(self, raw: str) -> str:
        """The path as a template: lower case, variable parts replaced, bounded in depth and length."""
        return self._page(raw)

    def former(self, raw_id: str, at: float) -> str | None:
        """The pseudonym under the previous key, where both are valid and the present one holds; else None."""
        if self.rotation is None or at < self.rotation.at:
            return None
        return self._before.person(raw_id)

    def names_of(self, raw_id: str) -> tuple[str, ...]:
        """Every pseudonym that an id may have now: two while keys are changed."""
        return tuple({names.person(raw_id): None for names in (self._names, self._before)})

    def scrub(self, outcome: Outcome, due: float | None = None) -> Outcome:
        """Make an outcome fit to leave the door; an event is changed in place.

        Args:
            outcome: event or rejection.
            due: event time at which it is processed; None: its own. It decides between two keys.

        Returns:
            The same event, or the rejection with a pseudonym.
        """
        if isinstance(outcome, Rejection):
            if outcome.person is None:
                return outcome
            person = self._names_at(math.inf if due is None else due).person(outcome.person)
            return Rejection(outcome.reason, outcome.detail, person)
        if outcome.type != CLOCK:
            if self.rotation is None:
                self._scrub_event(outcome, self._names)
            else:
                self._scrub_changing(outcome, outcome.time if due is None else due, self.rotation)
        return outcome

    def _names_at(self, at: float) -> _Names:
        return self._before if self.rotation is not None and at < self.rotation.at else self._names

    def _scrub_changing(self, event: Event, due: float, rotation: Rotation) -> None:
        """The same while two keys are valid."""
        raw_id, at, kind = event.id, event.time, event.type
        person, session, page = event.person, event.session, event.page
        self._scrub_event(event, self._names_at(due))
        # A repeat may be due at another moment than the first, but it carries the same time, and must be recognised.
        event.id = self._names_at(at).id(raw_id)
        if rotation.at <= due < rotation.straddled and (kind in WEB_TYPES or kind == OTHER):
            before = self._before
            event.former = Former(
                before.person(person),
                None if session is None else before.session(session),
                None if page is None else before.page_id(page),
            )

    def _scrub_event(self, event: Event, names: _Names) -> None:
        event.id = names.id(event.id)
        event.person = names.person(event.person)
        if event.also_person is not None:
            event.also_person = names.person(event.also_person)
        if event.session is not None:
            event.session = names.session(event.session)
        if event.page is not None:
            event.page, event.page_id = self._page(event.page), names.page_id(event.page)
        if event.stage is not None:
            event.stage = self._word(event.stage) or None
        if event.segment:
            event.segment = self._segment(tuple(event.segment.items()))
        if event.properties:
            note = event.properties.pop(NOTE, None)
            event.properties = {
                name: clean
                for name, value in event.properties.items()
                if (clean := self._typed(name, value)) is not None
            }
            if isinstance(note, str) and event.type in SAID_TYPES:
                event.properties[NOTE] = self.note(note)

    def _clean_labels(self, labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
        """Shared by all events that carry the same labels, so never to be changed."""
        words = {label: self._word(raw) for label, raw in labels if label in self._labels}
        return {label: word for label, word in words.items() if word}

    def note(self, raw: str) -> str:
        """A sentence without what may identify somebody; a word that does is redacted, and all if words together do.

        >>> Privacy(b"a key of your own").note("rolled back, ask anna@example.org")
        'rolled back, ask redacted'
        """
        words = [self._word(word) for word in raw[:MAX_RAW_CHARS].split()]
        text = " ".join(word for word in words if word)[:MAX_NOTE_CHARS]
        return REDACTED if looks_personal(text) or self._is_scrubbed(text) else text

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
        if looks_personal(raw) or self._is_scrubbed(raw):
            return REDACTED
        printable = raw if raw.isprintable() else "".join(char for char in raw if char.isprintable())
        return printable.strip()[: self._max_chars]

    def _template_page(self, raw: str) -> str:
        parts = [unquote(part).strip() for part in path_of(raw[:MAX_RAW_CHARS]).split("/")]
        parts = [part for part in parts if part not in {"", ".", ".."}]
        named = [self._template_part(part) for part in self._place(parts)]
        return ("/" + "/".join(named[:MAX_PATH_SEGMENTS]))[: self._max_chars]

    def _place(self, parts: list[str]) -> list[str]:
        """The segments, with the variable ones of the first pattern that fits replaced by its names for them."""
        for pattern in self._paths:
            fits = len(pattern) <= len(parts)
            if fits and all(own[0] == ":" or own == part.lower() for own, part in zip(pattern, parts, strict=False)):
                return [*pattern, *parts[len(pattern) :]]
        return parts

    def _template_part(self, part: str) -> str:
        for pattern, replacement in self._templates:
            replaced, count = pattern.subn(replacement, part)
            if count:
                return replaced
        if _OPAQUE.fullmatch(part) or _looks_random(part) or looks_personal(part) or self._is_scrubbed(part):
            return ":id"
        return "".join(char for char in part if char.isprintable()).lower()

    def _is_scrubbed(self, text: str) -> bool:
        """Whether one of the configured patterns is found in it, also where it is percent-encoded."""
        if not self._scrub:
            return False
        plain = _decoded(text)
        return any(pattern.search(plain) for pattern in self._scrub)


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


def _names(key: bytes) -> _Names:
    page_id = _keyed(hmac.digest(key, b"page", "sha256"))
    return _Names(
        _keyed(hmac.digest(key, b"event id", "sha256")),
        lru_cache(_CACHED_IDS)(_keyed(key)),
        lru_cache(_CACHED_IDS)(_keyed(hmac.digest(key, b"session", "sha256"))),
        lru_cache(_CACHED_WORDS)(lambda raw: page_id(path_of(raw[:MAX_RAW_CHARS]))[:_PAGE_ID_CHARS]),
    )


def _rotation(settings: Settings) -> Rotation | None:
    secret, at = settings.privacy.previous_key, settings.privacy.rotate_at
    if secret is None:
        return None
    key = secret.get_secret_value().encode()
    if at is None:
        return Rotation(key)
    # At the border of a bucket: within one, events under both keys would be sorted by time and not by `due`.
    time, width_s = settings.time, settings.time.bucket_s
    since = math.ceil(at.timestamp() / width_s) * width_s
    return Rotation(key, since, since + time.max_session_s + time.session_gap_s)


def _pattern(index: int, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"privacy.scrub[{index}]: no regular expression: {error}") from error


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
