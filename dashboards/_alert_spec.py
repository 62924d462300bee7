"""What an alert is, and what an installation may say of alerts (`deploy/alerts.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from streams.errors import ConfigError
from streams.settings import say_problems

ROOT: Final = Path(__file__).resolve().parents[1]
SPEC_FILE: Final = ROOT / "deploy" / "alerts.yaml"
Channel = Literal["webhook", "slack", "email"]
Area = Literal["trust", "data", "pipeline", "heartbeat"]
_TIME_OF_DAY: Final = r"^([01]\d|2[0-3]):[0-5]\d$"
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]
_DAYS: Final = "(sunday|monday|tuesday|wednesday|thursday|friday|saturday)"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert, told once; the rules of Prometheus and of Grafana, their tests and the runbook follow from it.

    Attributes:
        name: of the alert; the runbook's section is called so.
        area: `trust` is held back while tracking is broken or after a deploy, the others never are.
        value: PromQL of what is compared; while it gives nothing, nothing is wrong.
        by: labels that tell its instances apart.
        above: it fires above this; None: `below` says when.
        below: it fires below this.
        clear: once firing it goes on until its value is on this side; None: the same as the threshold.
        for_s: so many seconds in a row before it fires.
        keep_s: it stays for so many seconds after it was last true, also without data: a restart ends no alert.
        severity: `page` wakes someone, `ticket` waits for working hours; None: the series say.
        summary: one line; Prometheus' template language, with `$labels` and `$value`.
        description: what, where, since when, how much, in the same language; `<before>`, `<after>` and `<onset>` stand
            for the numbers of a finding.
        dashboard: uid.
        panel: id of its panel there; None: the whole dashboard.
        unit: of `<before>` and `<after>`.
        means: for the runbook: what has happened, for somebody who has just been woken.
        check: what to look at, in this order.
        do: what to do then.
        tune: what to change if it fires too often or too late.
        queries: PromQL that shows more.
    """

    name: str
    area: Area
    value: str
    by: tuple[str, ...] = ()
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    for_s: float = 0.0
    keep_s: float = 0.0
    severity: Literal["page", "ticket", "heartbeat"] | None = "page"
    summary: str
    description: str
    dashboard: str
    panel: int | None = None
    unit: str = ""
    means: str
    check: tuple[str, ...]
    do: tuple[str, ...]
    tune: str
    queries: tuple[str, ...] = ()


class Recording(msgspec.Struct, frozen=True):
    """A recording rule of Prometheus: its name, its PromQL, why it is there, and labels that it adds."""

    name: str
    expr: str
    why: str
    labels: tuple[tuple[str, str], ...] = ()


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Links(_Part):
    """Base URLs of the links in notifications, as the reader's browser reaches them."""

    grafana: Url
    status: Url
    alertmanager: Url
    runbook: Url | Literal["deploy/runbook.md"]


class Receivers(_Part):
    """Where Alertmanager sends to; what is secret is named by the file that holds it."""

    webhook_url: Url | None = None
    webhook_url_file: str | None = None
    heartbeat_url: Url | None = None
    heartbeat_url_file: str | None = None
    slack_url: Url | None = None
    slack_url_file: str | None = None
    smtp_smarthost: str | None = Field(None, pattern=r"^[^:\s]+:\d+$")
    smtp_username: str | None = None
    smtp_password_file: str | None = None
    smtp_require_tls: bool = True
    email_from: str | None = None
    email_to: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Receivers:
        for name in ("webhook_url", "heartbeat_url", "slack_url"):
            if (getattr(self, name) is None) == (getattr(self, f"{name}_file") is None):
                raise ValueError(f"alertmanager: give either {name} or {name}_file")
        if self.smtp_smarthost is not None and not (self.email_from and self.email_to):
            raise ValueError("alertmanager.email_from and email_to are missing, and smtp_smarthost is given")
        if (self.smtp_username is None) != (self.smtp_password_file is None):
            raise ValueError("alertmanager: give both smtp_username and smtp_password_file, or neither")
        return self

    def url(self, name: str, key: str = "url") -> dict[str, str]:
        """The address called so (`webhook`, `heartbeat`, `slack`), as Alertmanager takes it: itself, or its file."""
        found: str | None = getattr(self, f"{name}_url")
        return {key: found} if found is not None else {f"{key}_file": getattr(self, f"{name}_url_file")}


class WorkingHours(_Part):
    """When tickets are sent."""

    weekdays: str = Field(pattern=f"^{_DAYS}(:{_DAYS})?$")
    start: str = Field(alias="from", pattern=_TIME_OF_DAY)
    end: str = Field(alias="to", pattern=_TIME_OF_DAY)
    location: str

    @model_validator(mode="after")
    def _ordered(self) -> WorkingHours:
        if self.start >= self.end:
            raise ValueError("working_hours.from must be before working_hours.to")
        return self


class AlertSpec(_Part):
    """What an installation says of alerts; the meaning of each key is in `deploy/alerts.yaml`."""

    owners: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], Channel]
    data_owner: str
    pipeline_owner: str
    links: Links
    alertmanager: Receivers
    deploy_silence_s: Annotated[int, Field(ge=0)]
    after_broken_tracking_s: Annotated[int, Field(gt=0)]
    working_hours: WorkingHours
    retired: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")], ...] = ()

    @model_validator(mode="after")
    def _known(self) -> AlertSpec:
        for knob in ("data_owner", "pipeline_owner"):
            if getattr(self, knob) not in self.owners:
                raise ValueError(f"{knob} {getattr(self, knob)} is not in owners: {', '.join(self.owners)}")
        if "default" not in self.owners:
            raise ValueError("owners.default is missing: it gets what nobody else owns")
        return self


def load_spec(path: Path = SPEC_FILE) -> AlertSpec:
    """Read what the installation says.

    Raises:
        ConfigError: the file cannot be read or is not of this form; names file and key.
    """
    try:
        return AlertSpec.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {say_problems(error)}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: not a readable YAML mapping: {error}") from error


def duration(seconds: float) -> str:
    """Seconds as Prometheus and Grafana write them.

    >>> duration(30), duration(90), duration(120), duration(7200), duration(0)
    ('30s', '90s', '2m', '2h', '0s')
    """
    whole = round(seconds)
    for size, unit in ((3600, "h"), (60, "m")):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"
