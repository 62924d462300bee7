"""What people say of findings: as an event onto a raw topic, and as the name of a counted field to those who judge.

`trustwatch ack` and `dispute`, and the form on the status page, write a control event in the native format to the first
raw topic that takes it. So it is in the log: exact across crashes, replayed with all else, and the same in a backtest.
From there it goes as other control events do; sessionize hands it on in a cell of the stage `control`, which every
counts partition gets.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from streams.errors import BrokerUnavailable, ConfigError, TopicMismatch, TrustwatchError, UsageError

if TYPE_CHECKING:
    from streams.settings import Settings

CONTROL: Final = "control"
"""Stage of the cells that carry what people said; and the person of these events, for they have none."""
SEPARATOR: Final = "|"
GROUP: Final = 4
JOIN: Final = "~"
"""Between groups of an id: a run of digits would be redacted as personal."""
MOST_NOTE_CHARS: Final = 200
_ID: Final = re.compile(r"[0-9a-f]{20}")
log = logging.getLogger(__name__)


class Said(msgspec.Struct, frozen=True):
    """One thing that somebody said, as it travels in the name of a counted field.

    Attributes:
        kind: `acknowledged`, `disputed`, `dispute_resolved`, `deployed` or `definition_changed`.
        at: when, event time, seconds.
        what: id or name of what it is about.
        note: why, in their words, without people.

    >>> said = Said("acknowledged", 1_700_000_000.5, "9f0c", "rolled back | redeployed")
    >>> said.field
    'acknowledged|1700000000500|9f0c|rolled back / redeployed'
    >>> Said.read(said.field).note
    'rolled back / redeployed'
    """

    kind: str
    at: float
    what: str
    note: str = ""

    @property
    def field(self) -> str:
        """As a field of a cell of the stage `control`."""
        parts = (self.kind, str(round(self.at * 1000)), self.what, self.note)
        return SEPARATOR.join(part.replace(SEPARATOR, "/") for part in parts)

    @classmethod
    def read(cls, field: str) -> Said:
        """The reverse of `field`.

        Raises:
            ValueError: it is no such field.
        """
        kind, at, what, note = field.split(SEPARATOR, 3)
        return cls(kind, int(at) / 1000, what, note)


def written(what: str) -> str:
    """An id as an event carries it.

    >>> written("9f0c123456789abcdef0"), id_of(written("9f0c123456789abcdef0")), written("orders_late")
    ('9f0c~1234~5678~9abc~def0', '9f0c123456789abcdef0', 'orders_late')
    """
    if not _ID.fullmatch(what):
        return what
    return JOIN.join(what[i : i + GROUP] for i in range(0, len(what), GROUP))


def id_of(what: str) -> str:
    """The reverse of `written`."""
    return what.replace(JOIN, "")


def event_of(settings: Settings, kind: str, what: str, note: str, at: float) -> dict[str, Any]:
    """The control event, fit to leave the process: its note is scrubbed already.

    Its id follows from what it says, so that the same said twice by mistake is once.

    Raises:
        UsageError: what it is about is neither id nor name.
    """
    from streams.privacy import Privacy  # noqa: PLC0415  (imports the events that import nothing of this)

    if not _ID.fullmatch(what) and not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", what):
        raise UsageError(f"{what!r} is neither the id of a finding (20 characters of 0-9 and a-f) nor the name of a"
                         " guardrail. Fix: take the id from the notification or the status page")  # fmt: skip
    properties = {"what": written(what)}
    if clean := Privacy.from_settings(settings, offline=True).note(note):
        properties["note"] = clean
    return {"id": f"{kind}-{what}-{round(at * 1000)}", "type": kind, "time": round(at, 3), "person": CONTROL,
            "properties": properties}  # fmt: skip


def topic_of(settings: Settings) -> str:
    """The first raw topic that takes native events.

    Raises:
        ConfigError: none does.
    """
    for topic in settings.topics.raw:
        if topic.format in (None, "native"):
            return topic.name
    raise ConfigError("topics.raw: none takes native events, so nothing can be said. Fix: add a topic of format native")


def say(settings: Settings, kind: str, what: str, note: str, at: float) -> str:
    """Write it, and wait until Kafka has it on all in-sync replicas.

    Args:
        settings: connection, topics, privacy.
        kind: `acknowledged`, `disputed` or `dispute_resolved`.
        what: id of a finding, or name of a guardrail.
        note: why, in words; what looks personal is redacted.
        at: when, seconds since the epoch.

    Returns:
        What was done, for the person who said it.

    Raises:
        UsageError, ConfigError: see `event_of` and `topic_of`.
        BrokerUnavailable: no broker answers.
        TrustwatchError: Kafka refused it, or did not acknowledge it in time.
    """
    event, topic = event_of(settings, kind, what, note, at), topic_of(settings)
    _produce(settings, topic, msgspec.json.encode(event))
    said = event["properties"].get("note")
    return f"{kind} {what}{f': {said}' if said else ''}"


def _produce(settings: Settings, topic: str, message: bytes) -> None:
    from confluent_kafka import KafkaException, Producer  # noqa: PLC0415  (the pure stages import this module)

    from streams.connection import explain  # noqa: PLC0415
    from streams.kafka import confluent_options  # noqa: PLC0415

    failed: list[str] = []
    wait_s = settings.kafka.request_timeout_s
    options = {**confluent_options(settings.kafka), "enable.idempotence": settings.kafka.idempotent, "acks": "all"}
    producer = Producer(options, logger=log)
    try:
        found = producer.list_topics(topic, timeout=wait_s).topics[topic]
    except KafkaException as error:
        raise BrokerUnavailable(explain(settings.kafka, error)) from error
    if found.error or not found.partitions:
        raise TopicMismatch(f"topic {topic!r} does not exist; create it, or run `trustwatch topics create`")

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(str(error))

    producer.produce(topic, key=CONTROL.encode(), value=message, on_delivery=delivered)
    if producer.flush(wait_s) or failed:
        raise TrustwatchError(f"{topic}: it was not acknowledged: {failed[0] if failed else 'time-out'}. Fix: say it"
                              " again; the same said twice does no harm")  # fmt: skip
