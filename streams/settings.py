"""Every knob, typed and frozen: environment `TRUSTWATCH_*` over `trustwatch.yaml` over the defaults below.

A nested knob is written with two underscores in the environment: `TRUSTWATCH_KAFKA__BOOTSTRAP_SERVERS`.
A typo anywhere stops the program at start with the name of the knob.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_origin

import yaml
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from detectors._micro_signals import SIGNALS
from streams.errors import ConfigError

ENV_PREFIX: Final = "TRUSTWATCH_"
CONFIG_ENV: Final = "TRUSTWATCH_CONFIG"
DEFAULT_FILE: Final = "trustwatch.yaml"
OTHERS: Final = frozenset(
    f"{ENV_PREFIX}{name}" for name in ("ALERT_WEBHOOK_URL", "ALERT_SLACK_URL", "ALERT_EMAIL", "HEARTBEAT_URL", "MEMORY",
                                       "SETTINGS"))  # fmt: skip
"""Variables of Compose and of Grafana's provisioning files; no knobs of ours, and no typos either."""
MAX_PATTERN_CHARS: Final = 200

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of every group of knobs: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """How to reach Kafka."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port[,host:port…] of the brokers")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="transport and authentication"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="used when security_protocol begins with SASL_"
    )
    sasl_username: str | None = Field(None, description="user for PLAIN and SCRAM")
    sasl_password: SecretStr | None = Field(None, description="password for PLAIN and SCRAM")
    sasl_oauth_token_file: Path | None = Field(
        None, description="file that holds the current OAUTHBEARER token; read anew for each connection"
    )
    ssl_cafile: Path | None = Field(None, description="CA certificates that sign the brokers'")
    ssl_certfile: Path | None = Field(None, description="our certificate, for mutual TLS")
    ssl_keyfile: Path | None = Field(None, description="our key, for mutual TLS; none: it is in ssl_certfile")
    ssl_key_password: SecretStr | None = Field(None, description="password of our key, if it is encrypted")
    idempotent: bool = Field(True, description="produce idempotently; off only for brokers that lack InitProducerId")
    request_timeout_s: Positive = Field(20.0, description="seconds until a request to a broker is given up")
    session_timeout_s: Positive = Field(30.0, description="seconds without heartbeat until a worker is taken for dead")
    replication_factor: PositiveInt = Field(1, description="replicas of the topics that `topics create` makes")

    @model_validator(mode="after")
    def _complete(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL_"):
            needed = ["sasl_oauth_token_file"] if self.sasl_mechanism == "OAUTHBEARER" else [
                "sasl_username", "sasl_password"]  # fmt: skip
            missing = [name for name in needed if getattr(self, name) is None]
            if missing:
                raise ValueError(f"security_protocol {self.security_protocol} needs kafka.{', kafka.'.join(missing)}")
        if (self.ssl_keyfile or self.ssl_key_password) and not self.ssl_certfile:
            raise ValueError("kafka.ssl_keyfile and kafka.ssl_key_password need kafka.ssl_certfile")
        self._refuse_unused()
        return self

    def _refuse_unused(self) -> None:
        """A password or certificate that the protocol does not use: somebody believes to be safer than they are."""
        prefixes = {"sasl_": self.security_protocol.startswith("SASL_"), "ssl_": self.security_protocol.endswith("SSL")}
        for prefix, used in prefixes.items():
            fields = type(self).model_fields.items()
            given = [name for name, field in fields if name.startswith(prefix) and getattr(self, name) != field.default]
            if given and not used:
                raise ValueError(f"kafka.{', kafka.'.join(given)} would not be used: security_protocol is"
                                 f" {self.security_protocol}")  # fmt: skip


class RawTopic(Section):
    """One topic of yours that we read."""

    name: str = Field(description="topic name")
    format: str | None = Field(None, description="wire format; none: told apart by shape, message by message")
    source: str | None = Field(None, description="what findings about its data call it; none: the topic's name")


class TopicSettings(Section):
    """Topics read and written, with their partitions and retention."""

    raw: tuple[RawTopic, ...] = Field(
        (RawTopic(name="web-events"), RawTopic(name="crm-events")),
        min_length=1,
        description="your topics, read by ingest",
    )
    raw_partitions: PositiveInt = Field(4, description="partitions of raw topics we create, and that backtest emulates")
    events: str = Field("trust.events", description="frames of typed events, by person")
    counts: str = Field("trust.counts", description="event-time buckets, by stage")
    findings: str = Field("trust.findings", description="findings, compacted")
    dead_letters: str = Field("trust.dead-letters", description="what could not be understood")
    sessions_state: str = Field("trust.state-sessions", description="checkpoints of sessionize, compacted")
    watch_state: str = Field("trust.state-watch", description="checkpoints of detect and judge, compacted")
    events_partitions: PositiveInt = Field(4, description="partitions of the events topic: upper bound of workers")
    counts_partitions: PositiveInt = Field(2, description="partitions of the counts topic")
    retention_hours: PositiveInt = Field(72, description="hours that frames, counts and dead letters are kept")
    max_message_bytes: PositiveInt = Field(12_000_000, description="largest message our topics take, bytes")


class IngestSettings(Section):
    """The door: batches in, frames out."""

    batch_events: PositiveInt = Field(2000, description="most raw messages fetched at once from all partitions")
    frame_events: PositiveInt = Field(200, description="most events in one frame")
    poll_s: Positive = Field(0.2, description="longest wait for raw messages, seconds: bounds the delay of a frame")
    max_event_bytes: PositiveInt = Field(1_000_000, description="a larger raw message is a dead letter, bytes")
    max_batch_items: PositiveInt = Field(10_000, description="items of one batch message beyond this are dead letters")
    earliest_time: str = Field("2000-01-01T00:00:00Z", description="older event times are dead letters, ISO 8601")
    max_future_s: Positive = Field(300.0, description="event times further ahead of now are dead letters, seconds")
    idle_timeout_s: Positive = Field(10.0, description="quiet seconds after which a caught-up source stops holding the"
                                     " watermark back")  # fmt: skip
    hubspot_score_properties: tuple[str, ...] = Field(
        ("hubspotscore", "hs_lead_score", "hs_predictivecontactscore_v2"),
        description="HubSpot properties that hold the lead score",
    )
    debezium_map: Path | None = Field(
        None, description="YAML that maps changes of tables to events; none: changes are counted as `other`"
    )


class TimeSettings(Section):
    """Event time."""

    allowed_lateness_s: Positive = Field(30.0, description="disorder that a source may have, seconds")
    session_gap_s: Positive = Field(1800.0, description="silence that ends a session, seconds")
    max_session_s: Positive = Field(14_400.0, description="a session is cut after this, seconds (bots, open tabs)")
    bucket_s: Positive = Field(10.0, description="width of the event-time buckets, seconds")
    dedupe_window_s: Positive = Field(600.0, description="event ids are remembered this long in event time, seconds")
    dwell_marks_s: tuple[Positive, ...] = Field(
        (15.0, 30.0, 60.0, 120.0, 300.0), description="ages of an open step at which it is looked at, seconds"
    )

    @model_validator(mode="after")
    def _ordered(self) -> TimeSettings:
        if list(self.dwell_marks_s) != sorted(set(self.dwell_marks_s)):
            raise ValueError("time.dwell_marks_s must ascend without repeats")
        if self.max_session_s <= self.session_gap_s:
            raise ValueError("time.max_session_s must be more than time.session_gap_s")
        return self


class IgnoreRule(Section):
    """Where which micro-signals are no signals.

    In a pattern `*` is any text and `?` any character; all else is meant literally, so that a CSS selector can be
    pasted. Upper and lower case are the same.
    """

    element: str = Field(
        "*", description="what is clicked, as your source names it (id, selector, text); `form.field` of a field"
    )
    page: str = Field("*", description="templated path")
    stage: str = Field("*", description="journey stage")
    signals: tuple[str, ...] = Field((), description="micro-signals ignored there; none: all of them")

    @field_validator("element", "page", "stage")
    @classmethod
    def _pattern(cls, pattern: str) -> str:
        if not pattern or pattern != pattern.strip():
            raise ValueError(f"pattern {pattern!r} is empty or begins or ends with a space; * is everything")
        if len(pattern) > MAX_PATTERN_CHARS:
            raise ValueError(f"pattern of more than {MAX_PATTERN_CHARS} characters")
        return pattern

    @field_validator("signals")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(SIGNALS)):
            raise ValueError(f"unknown micro-signal {unknown[0]!r}; known: {', '.join(SIGNALS)}")
        return names

    @model_validator(mode="after")
    def _narrow(self) -> IgnoreRule:
        if not set(f"{self.element}{self.page}{self.stage}") - {"*"} and not self.signals:
            raise ValueError("a rule without element, page, stage and signals would ignore everything")
        return self


class SignalSettings(Section):
    """Micro-signals of hesitation; the definitions and their sources are in `streams.signals`."""

    rage_clicks: Annotated[int, Field(ge=2)] = Field(3, description="clicks that make a rage click")
    rage_window_s: Positive = Field(1.0, description="seconds within which they fall, click to click")
    rage_radius_px: Positive = Field(30.0, description="pixels around the first click")
    error_click_s: Positive = Field(1.0, description="seconds from a click to the error it caused")
    u_turn_s: Positive = Field(7.0, description="seconds within which going back is a u-turn")
    loop_views: PositiveInt = Field(3, description="views of the same page that make a loop")
    loop_window_s: Positive = Field(15.0, description="seconds within which they fall")
    repeated_searches: PositiveInt = Field(3, description="searches in one step that count as repeated")
    compare_loops: PositiveInt = Field(3, description="comparisons in one step that count as a loop")
    ignore: tuple[IgnoreRule, ...] = Field(
        (), description="rules of where micro-signals are none: objects of element, page, stage (globs) and signals"
    )
    ignore_known: bool = Field(
        True, description="also ignore rage clicks where quick clicking is normal: steppers, carousels, date pickers,"
        " players, text (the list is in `streams.signals`)",
    )  # fmt: skip


class LeadSettings(Section):
    """Lead journeys and their fixed horizons."""

    acceptance_horizon_days: Positive = Field(7.0, description="days after hand-over at which acceptance is judged")
    conversion_horizon_days: Positive = Field(60.0, description="days after hand-over at which a win is judged")
    touch_horizon_days: Positive = Field(2.0, description="days after hand-over at which a first touch is judged")
    touch_marks_h: tuple[Positive, ...] = Field(
        (1.0, 4.0, 24.0, 48.0), description="hours after hand-over at which it is counted who was touched by then"
    )
    score_min: Annotated[float, Field(allow_inf_nan=False)] = Field(0.0, description="lowest score of the scale")
    score_max: Annotated[float, Field(allow_inf_nan=False)] = Field(100.0, description="highest score of the scale")
    score_bins: Annotated[int, Field(ge=4, le=50)] = Field(20, description="bins of score histograms")

    @model_validator(mode="after")
    def _scale(self) -> LeadSettings:
        if self.score_max <= self.score_min:
            raise ValueError("leads.score_max must be more than leads.score_min")
        return self


class CustomerSettings(Section):
    """What is sent to people and what they get, and the horizons at which it is judged."""

    mail_horizon_days: Annotated[float, Field(gt=0, le=7)] = Field(
        3.0, description="days after a mail at which it is judged who answered it, left or complained"
    )
    case_horizon_days: Positive = Field(3.0, description="days after which a case that is not solved counts as such")
    delivery_wait_days: Annotated[float, Field(ge=0)] = Field(
        1.0, description="days after the promised date at which an order is judged: news of deliveries come late"
    )


class SegmentSettings(Section):
    """What to slice by; never a person."""

    labels: tuple[str, ...] = Field(
        ("channel", "campaign", "device", "country", "source", "model", "team"), description="labels kept of an event"
    )
    watch: tuple[str, ...] = Field(("channel", "device", "country"), description="labels watched one by one, web")
    watch_leads: tuple[str, ...] = Field(("source", "model"), description="labels watched one by one, leads")
    watch_contacts: tuple[str, ...] = Field(
        ("channel", "country"), description="labels watched one by one, mails; `campaign`, if you have few at a time"
    )
    watch_customers: tuple[str, ...] = Field(
        ("channel", "country"), description="labels watched one by one, orders, cases, surveys and renewals"
    )
    pairs: tuple[tuple[str, str], ...] = Field((("source", "model"),), description="pairs of labels watched together")
    max_values: PositiveInt = Field(50, description="values kept per label; the rest is counted as 'other'")

    @model_validator(mode="after")
    def _known(self) -> SegmentSettings:
        watched = (self.watch, self.watch_leads, self.watch_contacts, self.watch_customers)
        used = {label for labels in (*watched, *self.pairs) for label in labels}
        if unknown := sorted(used - set(self.labels)):
            raise ValueError(
                "segments.watch, watch_leads, watch_contacts, watch_customers or pairs use labels that"
                f" segments.labels lacks: {unknown}"
            )
        return self


class PrivacySettings(Section):
    """What happens to personal data at the door."""

    pseudonym_key: SecretStr | None = Field(
        None, description="secret of the HMAC-SHA-256 pseudonyms, 16 characters at least; required by worker and ingest"
    )
    previous_key: SecretStr | None = Field(
        None, description="the key before, while keys are changed: both are valid then (README, Operations)"
    )
    rotate_at: AwareDatetime | None = Field(
        None, description="event time from which pseudonym_key holds, ISO 8601 with zone; before it, previous_key does."
        " None: at once, which is right only if all workers were stopped",
    )  # fmt: skip
    path_templates: tuple[tuple[str, str], ...] = Field(
        (), description="[regular expression, replacement] pairs applied to each path segment before the built-in ones"
    )
    paths: tuple[Annotated[str, Field(pattern=r"^(/[^/]+)+$", max_length=200)], ...] = Field(
        (), description="paths with variable segments, such as /u/:name: what begins with a colon stands for any one,"
        " and what follows is templated as usual. `trustwatch paths` proposes some",
    )  # fmt: skip
    scrub: tuple[str, ...] = Field(
        (), description="regular expressions of what is personal in your texts, beside what we know: a label, property"
        " or path segment in which one is found is redacted",
    )  # fmt: skip
    max_label_chars: PositiveInt = Field(64, description="longest label or page kept, characters")

    @model_validator(mode="after")
    def _long_enough(self) -> PrivacySettings:
        if self.pseudonym_key is not None and len(self.pseudonym_key.get_secret_value()) < 16:
            raise ValueError("privacy.pseudonym_key must have 16 characters at least")
        return self

    @model_validator(mode="after")
    def _two_keys(self) -> PrivacySettings:
        if self.previous_key is None:
            if self.rotate_at is not None:
                raise ValueError("privacy.rotate_at needs privacy.previous_key, the key that holds until then")
            return self
        if len(self.previous_key.get_secret_value()) < 16:
            raise ValueError("privacy.previous_key must have 16 characters at least")
        if self.pseudonym_key is None or self.previous_key == self.pseudonym_key:
            raise ValueError("privacy.previous_key needs a privacy.pseudonym_key that is another one")
        return self


class LimitSettings(Section):
    """Bounds of memory; what they cut is counted."""

    open_sessions: PositiveInt = Field(
        100_000, description="open sessions per partition, 2 kB each; beyond it the oldest close"
    )
    open_leads: PositiveInt = Field(
        500_000, description="leads, all in one partition, 0.9 kB each; beyond it the oldest are forgotten"
    )
    customers: PositiveInt = Field(
        500_000, description="people who were sent mails or ordered, all in one partition, 0.5 kB each; beyond it the"
        " oldest are forgotten",
    )  # fmt: skip
    pending_events: PositiveInt = Field(
        100_000, description="events per partition that wait for the watermark, 1.3 kB each; beyond it the oldest"
        " bucket closes early",
    )  # fmt: skip
    dedupe_ids: PositiveInt = Field(500_000, description="event ids remembered per partition, 140 bytes each")
    links: PositiveInt = Field(
        100_000, description="pairs of ids known to be one person's, 0.4 kB each in every partition; beyond it who was"
        " not named for the longest time is taken for several again",
    )  # fmt: skip
    dead_letters: PositiveInt = Field(
        100_000, description="dead letters per partition that an erasure finds again; older ones go by retention"
    )
    withdrawn: PositiveInt = Field(
        100_000, description="ids of those who withdrew consent, whose later events are dropped, and as many of those"
        " who were erased, whose earlier ones are; 0.2 kB each in every partition; beyond it the oldest are forgotten",
    )  # fmt: skip
    streams: PositiveInt = Field(20_000, description="detector instances per counts partition; the rest is not watched")
    findings: PositiveInt = Field(1_000, description="findings kept per counts partition; the oldest resolved go first")


class CheckpointSettings(Section):
    """State that survives."""

    interval_s: Positive = Field(2.0, description="least seconds between checkpoints; offsets are committed after them")
    max_interval_s: Positive = Field(
        60.0,
        description="most seconds between checkpoints; up to here they come so rarely that they take at most 5 % of the"
        " time. A crash replays what came since the last one",
    )
    apply_within_s: Positive = Field(0.1, description="longest wait of a frame for others to be applied with, seconds")
    max_frames: PositiveInt = Field(50, description="most frames applied at once")
    chunk_bytes: PositiveInt = Field(900_000, description="a checkpoint is written in records of at most this, bytes")

    @model_validator(mode="after")
    def _ordered(self) -> CheckpointSettings:
        if self.max_interval_s < self.interval_s:
            raise ValueError("checkpoints.max_interval_s must not be less than checkpoints.interval_s")
        return self


class MetricSettings(Section):
    """The `/metrics` endpoint."""

    host: str = Field("127.0.0.1", description="address to listen on; loopback unless you say otherwise")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(9464, description="port; 0 picks a free one")


class WebSettings(Section):
    """The status page and its JSON; read-only, but for acknowledgements by whoever has the token."""

    enabled: bool = Field(True, description="serve them")
    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback only with a token")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(6066, description="port; 0 picks a free one")
    token: SecretStr | None = Field(
        None, description="bearer token of all but /healthz and /readyz, 16 characters at least; the page asks for it"
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names under which the page may be asked for, beside localhost, addresses and web.host: those"
        " of a proxy in front, or of a container",
    )  # fmt: skip

    @field_validator("token", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        """Compose hands on variables that are not set as empty ones."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _guarded(self) -> WebSettings:
        if self.token is not None:
            token = self.token.get_secret_value()
            if len(token) < 16:
                raise ValueError("web.token must have 16 characters at least")
            if token != token.strip() or not (token.isascii() and token.isprintable()):
                raise ValueError("web.token must be printable ASCII without blanks at its ends, or nobody could send"
                                 " it. Fix: look for a line break at its end")  # fmt: skip
        if self.enabled and self.token is None and not _is_loopback(self.host):
            raise ValueError(f"web.host {self.host} can be reached by others, and web.token is not set. Fix: set"
                             " web.token, or web.host to 127.0.0.1, or web.enabled to false")  # fmt: skip
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class SourceSettings(Section):
    """Base of the sources that `collect` takes; one is on once it has a secret."""

    topic: str | None = Field(None, description="raw topic that its events go to; none: the raw topic of its format, or"
                              " the first (web) or last (CRM) of topics.raw")  # fmt: skip


Secrets = tuple[SecretStr, ...]


class SegmentSource(SourceSettings):
    """Segment-compatible SDKs."""

    write_keys: Secrets = Field((), description="write keys that may send; none: /v1/track and its like are off")


class PosthogSource(SourceSettings):
    """PostHog's SDKs."""

    api_keys: Secrets = Field((), description="project API keys that may send; none: /batch, /e and their like are off")


class SnowplowSource(SourceSettings):
    """Snowplow's trackers."""

    app_ids: Secrets = Field((), description="application ids (`aid`) that may send; none: the collector paths are off")
    public: bool = Field(False, description="an application id is no secret; say true to serve it beyond loopback")


class HubspotSource(SourceSettings):
    """HubSpot's webhooks."""

    client_secrets: Secrets = Field((), description="client secrets of your app, for signature v3; none: off")


class SendgridSource(SourceSettings):
    """SendGrid's event webhook."""

    public_keys: tuple[str, ...] = Field((), description="verification keys of the signed event webhook; none: off")


class EventsSource(SourceSettings):
    """Events of your own programs, in any wire format."""

    tokens: Secrets = Field((), description="bearer tokens that may send to /v1/events; none, and no hmac_secrets: off")
    hmac_secrets: Secrets = Field((), description="secrets of X-Trustwatch-Signature, instead of or beside tokens")
    format: str | None = Field(None, description="wire format of what is sent; none: told apart by shape")


class CollectSettings(Section):
    """`trustwatch collect`: the HTTP endpoint of webhooks and SDKs."""

    host: str = Field("127.0.0.1", description="address to listen on; loopback unless you say otherwise")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(6067, description="port; 0 picks a free one")
    public_url: str | None = Field(
        None, description="base URL as senders call it, such as https://collect.example.com; HubSpot signs it"
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins of your web sites, whose browsers may send; * is all of them"
    )
    segment: SegmentSource = SegmentSource()
    posthog: PosthogSource = PosthogSource()
    snowplow: SnowplowSource = SnowplowSource()
    hubspot: HubspotSource = HubspotSource()
    sendgrid: SendgridSource = SendgridSource()
    events: EventsSource = EventsSource()
    max_body_bytes: PositiveInt = Field(2_000_000, description="largest request body, packed and unpacked, bytes")
    max_depth: PositiveInt = Field(32, description="deepest nesting of JSON")
    max_batch_items: PositiveInt = Field(5_000, description="most events in one request")
    max_events_per_s: Positive = Field(20_000.0, description="events per second of one key; more are answered 429")
    burst_s: Positive = Field(2.0, description="seconds of that rate that may come at once")
    max_skew_s: Positive = Field(300.0, description="age of a signed request, and clocks apart, at most, seconds")
    ack_timeout_s: Positive = Field(10.0, description="longest wait of a request for Kafka, seconds; then 503")
    buffer_bytes: PositiveInt = Field(64_000_000, description="bytes of requests that may wait for Kafka; then 503")
    buffer_requests: PositiveInt = Field(10_000, description="requests that may wait for Kafka; then 503")
    connections: PositiveInt = Field(2_000, description="open connections at most")

    @model_validator(mode="after")
    def _guarded(self) -> CollectSettings:
        for name, secrets in self.secrets().items():
            for secret in secrets:
                if len(secret) < 16 and name != "snowplow.app_ids":
                    raise ValueError(f"collect.{name}: each must have 16 characters at least")
                if not secret or secret != secret.strip() or not (secret.isascii() and secret.isprintable()):
                    raise ValueError(f"collect.{name}: each must be printable ASCII without blanks at its ends, or"
                                     " nobody could send it. Fix: look for a line break at an end")  # fmt: skip
        self._refuse_open_doors()
        return self

    def _refuse_open_doors(self) -> None:
        if _is_loopback(self.host):
            return
        if not any(self.secrets().values()):
            raise ValueError(f"collect.host {self.host} can be reached by others, and no source has a secret. Fix: set"
                             " one, such as collect.segment.write_keys, or collect.host to 127.0.0.1")  # fmt: skip
        if self.snowplow.app_ids and not self.snowplow.public:
            raise ValueError(f"collect.host {self.host} can be reached by others, and Snowplow's application ids are no"
                             " secrets. Fix: set collect.snowplow.public to true if anybody may send")  # fmt: skip

    def secrets(self) -> dict[str, tuple[str, ...]]:
        """Knob below `collect` → its secrets."""
        given: dict[str, Secrets] = {
            "segment.write_keys": self.segment.write_keys, "posthog.api_keys": self.posthog.api_keys,
            "snowplow.app_ids": self.snowplow.app_ids, "hubspot.client_secrets": self.hubspot.client_secrets,
            "events.tokens": self.events.tokens, "events.hmac_secrets": self.events.hmac_secrets,
        }  # fmt: skip
        shown = {name: tuple(one.get_secret_value() for one in secrets) for name, secrets in given.items()}
        return shown | {"sendgrid.public_keys": self.sendgrid.public_keys}


class MonitoringSettings(Section):
    """Where others watch us, and what they show of us."""

    prometheus_url: str | None = Field(None, description="base URL of the Prometheus that scrapes the workers")
    grafana_url: str | None = Field(None, description="base URL of Grafana as people reach it, for links, too")
    grafana_api_url: str | None = Field(
        None, description="base URL of Grafana as our processes reach it; none: the same as for people, grafana_url"
    )
    grafana_token: SecretStr | None = Field(
        None, description="service-account token of Grafana: role Editor for annotations, Admin for `grafana sync`"
    )
    grafana_annotations: bool = Field(
        False, description="workers show findings on Grafana's dashboards, as annotations; needs grafana_url and _token"
    )
    status_url: str | None = Field(
        None, description="base URL of the status page as people reach it, for links in annotations and notifications"
    )
    runbook_url: str | None = Field(None, description="URL of the runbook as people reach it, for links likewise")

    @field_validator("grafana_token", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        """Compose hands on variables that are not set as empty ones."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _complete(self) -> MonitoringSettings:
        needed = {"grafana_url": self.grafana_api, "grafana_token": self.grafana_token}
        missing = [f"monitoring.{name}" for name, value in needed.items() if value is None]
        if self.grafana_annotations and missing:
            raise ValueError(f"monitoring.grafana_annotations needs {' and '.join(missing)}")
        return self

    @property
    def grafana_api(self) -> str | None:
        """Where our processes ask Grafana; None if that is not configured."""
        return self.grafana_api_url or self.grafana_url


class OwnerSettings(Section):
    """Who owns what a finding is about."""

    default: str = Field("unowned", description="owner where nothing below matches")
    detectors: dict[str, str] = Field({}, description="detector name → owner")
    stages: dict[str, str] = Field({}, description="journey stage → owner; wins over detectors")


class Settings(BaseSettings):
    """All knobs of trustwatch."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    app_id: str = Field("trustwatch", pattern=r"^[A-Za-z0-9._-]+$", description="prefix of consumer groups")
    journey_file: Path | None = Field(
        None, description="YAML that maps pages and event types to stages; none: built in"
    )
    names_file: Path | None = Field(None, description="YAML with more vendor event names; none: only the built-in ones")
    guardrails_file: Path | None = Field(
        None, description="YAML of guardrails; none: there are none. deploy/guardrails.yaml is an example"
    )
    false_pages_per_week: Positive = Field(
        1.0,
        description="false pages that the whole installation may give in a week of event time; thresholds follow from"
        " it, from the number of watched streams and from how often each is judged: a bound where a baseline is known,"
        " a target where it is learnt, as it is in production; tickets have a budget of the same size for themselves",
    )
    false_page_within_s: Positive = Field(
        86_400.0,
        description="a finding whose old level comes back by itself within this is counted as false, seconds of event"
        " time; true incidents that were over so soon are counted, too: what is observed is an upper estimate",
    )
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    ingest: IngestSettings = IngestSettings()
    time: TimeSettings = TimeSettings()
    signals: SignalSettings = SignalSettings()
    leads: LeadSettings = LeadSettings()
    customers: CustomerSettings = CustomerSettings()
    segments: SegmentSettings = SegmentSettings()
    privacy: PrivacySettings = PrivacySettings()
    limits: LimitSettings = LimitSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    metrics: MetricSettings = MetricSettings()
    web: WebSettings = WebSettings()
    collect: CollectSettings = CollectSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    owners: OwnerSettings = OwnerSettings()
    detectors: dict[str, dict[str, Any]] = Field({}, description="detector name → parameter → value")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over the YAML file."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=_config_file())


def load_settings(**overrides: Any) -> Settings:
    """Read the settings once, at start.

    Args:
        overrides: nested dicts of knobs that win over file and environment (the command line's).

    Raises:
        ConfigError: a knob is unknown or out of range, or the file is no YAML mapping; the message names it.
    """
    _refuse_unknown_environment(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigError(say_problems(error)) from error
    except SettingsError as error:  # a variable that should hold JSON
        raise ConfigError(f"environment {ENV_PREFIX}*: {error}") from error
    except (yaml.YAMLError, OSError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{_config_file()}: not a readable YAML mapping: {error}") from error


def knobs(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf knob as (dotted name, field), in reading order; the reference in the README is made of it."""
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Section):
            yield from knobs(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _config_file() -> Path | None:
    named = os.environ.get(CONFIG_ENV)
    if named and not Path(named).is_file():
        raise ConfigError(f"{CONFIG_ENV}={named}: no such file")
    path = Path(named or DEFAULT_FILE)
    return path if path.is_file() else None


def _refuse_unknown_environment(environment: Mapping[str, str]) -> None:
    """pydantic-settings ignores unknown variables; a typo there must stop us too."""
    known = {ENV_PREFIX + name.upper().replace(".", "__") for name, _ in knobs()} | {CONFIG_ENV} | OTHERS
    sections = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for variable in environment:
        upper = variable.upper()
        if not upper.startswith(ENV_PREFIX) or upper in known | sections:
            continue
        if any(upper.startswith(prefix + "__") for prefix in _open_ended()):
            continue
        close = difflib.get_close_matches(upper, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{variable}: unknown setting{hint}")


def _open_ended() -> set[str]:
    """Variables under which any key is legal, because the knob is a dict."""
    return {
        ENV_PREFIX + name.upper().replace(".", "__") for name, field in knobs() if get_origin(field.annotation) is dict
    }


def say_problems(error: ValidationError) -> str:
    """What is wrong, knob by knob, without pydantic's own links and the values (which may be secrets)."""
    return "; ".join(_say(problem) for problem in error.errors())


def _say(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(where, [*Settings.model_fields, *(name for name, _ in knobs())], n=1)
        return f"{where}: unknown setting" + (f"; did you mean {close[0]}?" if close else "")
    return f"{where}: {problem['msg']}"
