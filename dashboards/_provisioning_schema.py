"""What Grafana reads from provisioning files (pkg/services/provisioning), key by key, for `dashboards.provisioning`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

BASE_INTERVAL_S: Final = 10
"""Grafana evaluates at multiples of this only."""
EXPRESSION: Final = "__expr__"
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PART: Final = re.compile(r"(\d+)(ms|[smhdwy])")
_BARE: Final = re.compile(r"(?<!\$)(?:\$\$)*\$(?!\$)")


def _is_duration(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{_PART.pattern})+", value):
        raise ValueError(f"{value!r} is no duration such as 30s or 5m")
    return value


def seconds(duration: str) -> float:
    """A duration of Grafana in seconds.

    >>> seconds("1m30s")
    90
    """
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(duration))


Duration = Annotated[str, BeforeValidator(_is_duration)]
Uid = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Name = Annotated[str, Field(min_length=1)]
Org = Annotated[int, Field(ge=1)]
Matcher = Annotated[tuple[str, Literal["=", "!=", "=~", "!~"], str], Strict(False)]


class Part(BaseModel):
    """Unknown keys are refused, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


# ── alert rules ───────────────────────────────────────────────────────────────────────────────────────────────────────


class TimeRange(Part):
    """Seconds before now."""

    since: int = Field(alias="from", ge=0)
    to: int = Field(ge=0)


class Evaluator(Part):
    """A comparison."""

    type: Literal["gt", "lt", "gte", "lte", "eq", "ne", "within_range", "outside_range"]
    params: list[float]

    @model_validator(mode="after")
    def _numbers(self) -> Evaluator:
        wanted = 2 if self.type.endswith("_range") else 1
        if len(self.params) != wanted:
            raise ValueError(f"{self.type} compares with {wanted} numbers, has {len(self.params)}")
        return self


class Condition(Part):
    """Of a threshold; `unloadEvaluator` ends what fires: hysteresis."""

    evaluator: Evaluator
    unloadEvaluator: Evaluator | None = None

    @model_validator(mode="after")
    def _apart(self) -> Condition:
        if self.unloadEvaluator is None:
            return self
        pair = (self.evaluator.type, self.unloadEvaluator.type)
        fires, ends = self.evaluator.params[0], self.unloadEvaluator.params[0]
        if pair not in (("gt", "lt"), ("lt", "gt")) or (fires < ends if pair[0] == "gt" else fires > ends):
            raise ValueError("unloadEvaluator must end on the other side: gt above, lt below it (or the reverse)")
        return self


class Threshold(Part):
    """An expression over another query."""

    refId: str
    type: Literal["threshold"]
    expression: str
    conditions: Annotated[list[Condition], Field(min_length=1, max_length=1)]
    intervalMs: int | None = None
    maxDataPoints: int | None = None


class PromQuery(Part):
    """A query of a Prometheus data source; instant, so that it gives one number a series."""

    refId: str
    expr: Name
    instant: Literal[True]
    range: Literal[False]
    editorMode: Literal["code", "builder"] | None = None
    legendFormat: str | None = None
    intervalMs: int | None = None
    maxDataPoints: int | None = None


class Query(Part):
    """One query or expression of a rule."""

    refId: Annotated[str, Field(pattern=r"^[A-Z]$")]
    queryType: str | None = None
    relativeTimeRange: TimeRange
    datasourceUid: Name
    model: dict[str, Any]

    @model_validator(mode="after")
    def _model(self) -> Query:
        kind: type[Part] = Threshold if self.datasourceUid == EXPRESSION else PromQuery
        if kind.model_validate(self.model).model_dump()["refId"] != self.refId:
            raise ValueError(f"model.refId is not {self.refId}")
        return self


class Rule(Part):
    """An alert rule; states are required: left out, a hiccup of Prometheus would page."""

    uid: Uid
    title: Name
    condition: str
    data: Annotated[list[Query], Field(min_length=1)]
    noDataState: Literal["NoData", "OK", "Alerting", "KeepLast"]
    execErrState: Literal["Error", "OK", "Alerting", "KeepLast"]
    wait: Duration = Field(alias="for")
    keepFiringFor: Duration | None = None
    missing_series_evals_to_resolve: Annotated[int, Field(ge=1)] | None = None
    dashboardUid: str | None = None
    panelId: int | None = None
    annotations: dict[str, str]
    labels: dict[str, str]
    isPaused: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Rule:
        refs = [query.refId for query in self.data]
        if len(set(refs)) != len(refs):
            raise ValueError("a refId is there twice")
        used = [query.model["expression"] for query in self.data if query.datasourceUid == EXPRESSION]
        if missing := [ref for ref in (self.condition, *used) if ref not in refs]:
            raise ValueError(f"condition or expression {missing[0]} is none of the refIds {', '.join(refs)}")
        linked = ("__dashboardUid__" in self.annotations, "__panelId__" in self.annotations)
        if linked[0] != linked[1]:
            raise ValueError("annotations __dashboardUid__ and __panelId__ go together")
        if (self.dashboardUid is None) != (self.panelId is None):
            raise ValueError("dashboardUid and panelId go together")
        if bare := [name for name, value in self.labels.items() if _BARE.search(value)]:
            raise ValueError(f"labels.{bare[0]}: $ is expanded from the environment; write $$")
        if braced := [name for name, value in self.annotations.items() if "${" in value]:
            raise ValueError(f"annotations.{braced[0]}: ${{…}} is expanded from the environment")
        return self


class RuleGroup(Part):
    """Rules that are evaluated at one interval."""

    orgId: Org
    name: Name
    folder: Name
    interval: Duration
    rules: Annotated[list[Rule], Field(min_length=1)]

    @model_validator(mode="after")
    def _multiple(self) -> RuleGroup:
        if seconds(self.interval) <= 0 or seconds(self.interval) % BASE_INTERVAL_S:
            raise ValueError(f"interval {self.interval} is no multiple of {BASE_INTERVAL_S}s")
        return self


class DeleteRule(Part):
    """A rule to be gone."""

    orgId: Org
    uid: Uid


# ── who is told ───────────────────────────────────────────────────────────────────────────────────────────────────────


class WebhookSettings(Part):
    """Of a contact point of type webhook."""

    url: Name
    httpMethod: Literal["POST", "PUT"] = "POST"
    username: str | None = None
    password: str | None = None
    authorization_scheme: str | None = None
    authorization_credentials: str | None = None
    maxAlerts: int | str | None = None
    title: str | None = None
    message: str | None = None


class SlackSettings(Part):
    """Of a contact point of type slack: an incoming webhook, or a token with a recipient."""

    url: str | None = None
    token: str | None = None
    recipient: str | None = None
    endpointUrl: str | None = None
    username: str | None = None
    icon_emoji: str | None = None
    icon_url: str | None = None
    mentionUsers: str | None = None
    mentionGroups: str | None = None
    mentionChannel: Literal["", "here", "channel"] | None = None
    color: str | None = None
    title: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _reachable(self) -> SlackSettings:
        if not self.url and not (self.token and self.recipient):
            raise ValueError("url is missing, or token with recipient")
        return self


class EmailSettings(Part):
    """Of a contact point of type email."""

    addresses: Name
    singleEmail: bool = False
    subject: str | None = None
    message: str | None = None


SETTINGS: Final[dict[str, type[Part]]] = {"webhook": WebhookSettings, "slack": SlackSettings, "email": EmailSettings}


class Receiver(Part):
    """One way to reach someone."""

    uid: Uid
    type: Literal["webhook", "slack", "email"]
    settings: dict[str, Any]
    disableResolveMessage: bool = False

    @model_validator(mode="after")
    def _settings(self) -> Receiver:
        SETTINGS[self.type].model_validate(self.settings)
        return self


class ContactPoint(Part):
    """A name, and whom it reaches."""

    orgId: Org
    name: Name
    receivers: Annotated[list[Receiver], Field(min_length=1)]


class DeleteContactPoint(Part):
    """A receiver to be gone."""

    orgId: Org
    uid: Uid


class Timing(Part):
    """Whom a branch tells, and when."""

    receiver: Name
    group_by: list[str] | None = None
    group_wait: Duration | None = None
    group_interval: Duration | None = None
    repeat_interval: Duration | None = None


class Route(Timing):
    """A branch of the policy tree."""

    object_matchers: list[Matcher] | None = None
    matchers: list[str] | None = None
    proceed: bool = Field(False, alias="continue")
    mute_time_intervals: list[str] = []
    active_time_intervals: list[str] = []
    routes: list[Route] = []

    @model_validator(mode="after")
    def _matches(self) -> Route:
        if not self.object_matchers and not self.matchers:
            raise ValueError("a route without matchers takes everything from those after it")
        return self


class Policy(Timing):
    """The root of the tree: it takes everything, so it has neither matchers nor mute timings."""

    orgId: Org
    routes: list[Route] = []


class Template(Part):
    """Words of notifications."""

    orgId: Org
    name: Name
    template: Annotated[str, Field(pattern=r"\{\{-? *define ")]


class Times(Part):
    """Of a day."""

    start_time: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end_time: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")]

    @model_validator(mode="after")
    def _ordered(self) -> Times:
        if self.start_time >= self.end_time:
            raise ValueError(f"start_time {self.start_time} is not before end_time {self.end_time}")
        return self


class TimeInterval(Part):
    """When all of these hold."""

    times: list[Times] | None = None
    weekdays: list[str] | None = None
    days_of_month: list[str] | None = None
    months: list[str] | None = None
    years: list[str] | None = None
    location: str | None = None

    @model_validator(mode="after")
    def _days(self) -> TimeInterval:
        day = "(sunday|monday|tuesday|wednesday|thursday|friday|saturday)"
        if wrong := [value for value in self.weekdays or () if not re.fullmatch(f"{day}(:{day})?", value)]:
            raise ValueError(f"weekdays: {wrong[0]!r} is no day or range of days")
        return self


class MuteTime(Part):
    """When a route is silent."""

    orgId: Org
    name: Name
    time_intervals: Annotated[list[TimeInterval], Field(min_length=1)]


class DeleteByName(Part):
    """Something to be gone."""

    orgId: Org
    name: Name


class AlertingFile(Part):
    """A file below `alerting`."""

    apiVersion: Literal[1]
    groups: list[RuleGroup] = []
    deleteRules: list[DeleteRule] = []
    contactPoints: list[ContactPoint] = []
    deleteContactPoints: list[DeleteContactPoint] = []
    policies: list[Policy] = []
    resetPolicies: list[Org] = []
    templates: list[Template] = []
    deleteTemplates: list[DeleteByName] = []
    muteTimes: list[MuteTime] = []
    deleteMuteTimes: list[DeleteByName] = []


# ── data sources and dashboards ───────────────────────────────────────────────────────────────────────────────────────


class Exemplar(Part):
    """Where the trace of an exemplar is found."""

    name: Name
    datasourceUid: str | None = None
    url: str | None = None
    urlDisplayLabel: str | None = None


class PrometheusJson(Part):
    """`jsonData` of a Prometheus data source."""

    httpMethod: Literal["GET", "POST"] | None = None
    timeInterval: Duration | None = None
    queryTimeout: Duration | None = None
    manageAlerts: bool | None = None
    allowAsRecordingRulesTarget: bool | None = None
    prometheusType: Literal["Prometheus", "Cortex", "Mimir", "Thanos"] | None = None
    prometheusVersion: str | None = None
    cacheLevel: Literal["None", "Low", "Medium", "High"] | None = None
    disableMetricsLookup: bool | None = None
    disableRecordingRules: bool | None = None
    incrementalQuerying: bool | None = None
    incrementalQueryOverlapWindow: Duration | None = None
    customQueryParameters: str | None = None
    defaultEditor: Literal["code", "builder"] | None = None
    seriesEndpoint: bool | None = None
    alertmanagerUid: str | None = None
    exemplarTraceIdDestinations: list[Exemplar] | None = None
    tlsSkipVerify: Literal[False] | None = None
    tlsAuth: bool | None = None
    tlsAuthWithCACert: bool | None = None
    serverName: str | None = None


class AlertmanagerJson(Part):
    """`jsonData` of an Alertmanager data source."""

    implementation: Literal["prometheus", "mimir", "cortex"]
    handleGrafanaManagedAlerts: bool | None = None


JSON_DATA: Final[dict[str, type[Part]]] = {"prometheus": PrometheusJson, "alertmanager": AlertmanagerJson}


class DataSource(Part):
    """One data source."""

    name: Name
    type: Literal["prometheus", "alertmanager"]
    uid: Uid
    url: Name
    access: Literal["proxy"] = "proxy"
    orgId: Org = 1
    user: str | None = None
    database: str | None = None
    basicAuth: bool | None = None
    basicAuthUser: str | None = None
    withCredentials: bool | None = None
    isDefault: bool = False
    jsonData: dict[str, Any] = {}
    secureJsonData: dict[str, str] = {}
    version: int | None = None
    editable: bool = False

    @model_validator(mode="after")
    def _json(self) -> DataSource:
        JSON_DATA[self.type].model_validate(self.jsonData)
        if plain := [name for name, value in self.secureJsonData.items() if not _BARE.match(value)]:
            raise ValueError(f"secureJsonData.{plain[0]} is in the file; take it from the environment ($NAME)")
        return self


class DataSourceFile(Part):
    """A file below `datasources`."""

    apiVersion: Literal[1]
    prune: bool = False
    deleteDatasources: list[DeleteByName] = []
    datasources: list[DataSource] = []


class ProviderOptions(Part):
    """Where the JSON of dashboards is."""

    path: Name
    foldersFromFilesStructure: bool = False


class Provider(Part):
    """A folder of dashboards."""

    name: Name
    orgId: Org = 1
    type: Literal["file"] = "file"
    folder: str = ""
    folderUid: str = ""
    disableDeletion: bool = False
    editable: bool = False
    allowUiUpdates: bool = False
    updateIntervalSeconds: Annotated[int, Field(ge=3)] = 10
    options: ProviderOptions


class DashboardFile(Part):
    """A file below `dashboards`."""

    apiVersion: Literal[1]
    providers: Annotated[list[Provider], Field(min_length=1)]
