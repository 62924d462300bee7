"""What Grafana's HTTP API takes, as documented (Grafana 11 to 13, `docs/grafana/latest/developers/http_api`), strictly.

Grafana drops fields that it does not know; here they are errors, because a field that is dropped is a mistake of ours.
The alerting bodies follow the Go types behind the documentation (`pkg/services/ngalert/api/tooling/definitions`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Uid = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-zA-Z0-9_-]+$")]
Duration = Annotated[str, Field(pattern=r"^((\d+)(ms|[smhdwy]))+$")]
Operator = Literal["=", "!=", "=~", "!~"]


class Body(BaseModel):
    """A request body: no field that is not documented, no value of another type."""

    model_config = ConfigDict(strict=True, extra="forbid")


# ── folders: http_api/folder ──────────────────────────────────────────────────────────────────────────────────────────


class CreateFolder(Body):
    """POST /api/folders."""

    uid: Uid
    title: Annotated[str, Field(min_length=1)]
    parentUid: str | None = None


class UpdateFolder(Body):
    """PUT /api/folders/:uid."""

    title: Annotated[str, Field(min_length=1)]
    version: int | None = None
    overwrite: bool = False


# ── data sources: http_api/data_source ────────────────────────────────────────────────────────────────────────────────


class DataSource(Body):
    """POST /api/datasources and PUT /api/datasources/uid/:uid."""

    id: int | None = None
    orgId: int | None = None
    uid: Uid | None = None
    name: Annotated[str, Field(min_length=1, max_length=190)]
    type: str
    access: Literal["proxy", "direct"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    user: str = ""
    database: str = ""
    basicAuth: bool = False
    basicAuthUser: str = ""
    withCredentials: bool = False
    isDefault: bool = False
    jsonData: dict[str, Any] | None = None
    secureJsonData: dict[str, str] | None = None
    version: int = 0


# ── dashboards: http_api/dashboard, and the JSON model of dashboards (schemaVersion 36 to 42) ─────────────────────────


class GridPos(Body):
    """Where a panel is."""

    h: Annotated[int, Field(gt=0)]
    w: Annotated[int, Field(gt=0, le=24)]
    x: Annotated[int, Field(ge=0, lt=24)]
    y: Annotated[int, Field(ge=0)]
    static: bool | None = None


class FieldConfig(Body):
    """Options of fields of a panel."""

    defaults: dict[str, Any]
    overrides: list[dict[str, Any]]


class Panel(Body):
    """A panel or a row."""

    id: Annotated[int, Field(gt=0)]
    type: str
    title: str = ""
    description: str | None = None
    transparent: bool | None = None
    datasource: dict[str, str] | str | None = None
    gridPos: GridPos
    links: list[dict[str, Any]] | None = None
    repeat: str | None = None
    repeatDirection: Literal["h", "v"] | None = None
    maxPerRow: int | None = None
    maxDataPoints: float | None = None
    interval: str | None = None
    timeFrom: str | None = None
    timeShift: str | None = None
    hideTimeOverride: bool | None = None
    cacheTimeout: str | None = None
    queryCachingTTL: float | None = None
    libraryPanel: dict[str, str] | None = None
    transformations: list[dict[str, Any]] | None = None
    targets: list[dict[str, Any]] | None = None
    options: dict[str, Any] | None = None
    fieldConfig: FieldConfig | None = None
    pluginVersion: str | None = None
    collapsed: bool | None = None
    panels: list[Panel] | None = None


class DashboardModel(Body):
    """The dashboard in a POST of /api/dashboards/db."""

    id: int | None = None
    uid: Uid
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    tags: list[str] = []
    style: str | None = None
    timezone: str = ""
    editable: bool = True
    graphTooltip: Literal[0, 1, 2] = 0
    time: dict[str, str] = {}
    timepicker: dict[str, Any] = {}
    weekStart: str = ""
    fiscalYearStartMonth: int = 0
    liveNow: bool = False
    preload: bool = False
    refresh: str | bool = ""
    schemaVersion: Annotated[int, Field(ge=36)]
    version: int | None = None
    revision: int | None = None
    gnetId: str | None = None
    links: list[dict[str, Any]] = []
    annotations: dict[Literal["list"], list[dict[str, Any]]] = {}
    templating: dict[Literal["list"], list[dict[str, Any]]] = {}
    panels: list[Panel] = []

    @model_validator(mode="after")
    def _ids(self) -> DashboardModel:
        ids = [panel.id for row in self.panels for panel in (row, *(row.panels or ()))]
        if len(set(ids)) != len(ids):
            raise ValueError("two panels have the same id")
        return self


class SaveDashboard(Body):
    """POST /api/dashboards/db; `folderId` is gone upstream."""

    dashboard: DashboardModel
    folderUid: str
    message: str = ""
    overwrite: bool = False


# ── alert rules: http_api/alerting_provisioning (ProvisionedAlertRule, AlertRuleGroup) ────────────────────────────────


class TimeRange(Body):
    """RelativeTimeRange, seconds."""

    from_: Annotated[int, Field(alias="from", ge=0)]
    to: Annotated[int, Field(ge=0)]


class AlertQuery(Body):
    """One query or expression of a rule."""

    refId: Annotated[str, Field(min_length=1)]
    queryType: str = ""
    relativeTimeRange: TimeRange
    datasourceUid: Annotated[str, Field(min_length=1)]
    model: dict[str, Any]


class NotificationSettings(Body):
    """AlertRuleNotificationSettings."""

    receiver: str
    group_by: list[str] = []
    group_wait: Duration | None = None
    group_interval: Duration | None = None
    repeat_interval: Duration | None = None
    mute_time_intervals: list[str] = []
    active_time_intervals: list[str] = []


class AlertRule(Body):
    """ProvisionedAlertRule; `updated` and `provenance` are read-only, so they are not sent."""

    id: int = 0
    uid: Uid
    orgID: int
    folderUID: str
    ruleGroup: Annotated[str, Field(min_length=1, max_length=190)]
    title: Annotated[str, Field(min_length=1, max_length=190)]
    condition: Annotated[str, Field(min_length=1)]
    data: Annotated[list[AlertQuery], Field(min_length=1)]
    noDataState: Literal["Alerting", "NoData", "OK", "KeepLast"]
    execErrState: Literal["OK", "Alerting", "Error", "KeepLast"]
    for_: Annotated[Duration, Field(alias="for")]
    keep_firing_for: Duration = "0s"
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    isPaused: bool = False
    notification_settings: NotificationSettings | None = None
    record: None = None
    missingSeriesEvalsToResolve: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> AlertRule:
        refs = [query.refId for query in self.data]
        if self.condition not in refs or len(set(refs)) != len(refs):
            raise ValueError(f"condition {self.condition} is none of {refs}, or a refId is there twice")
        if ("__dashboardUid__" in self.annotations) != ("__panelId__" in self.annotations):
            raise ValueError("__dashboardUid__ and __panelId__ go together")
        if not self.annotations.get("__panelId__", "1").isdecimal():
            raise ValueError("__panelId__ is no number")
        return self


class RuleGroup(Body):
    """AlertRuleGroup, PUT …/rule-groups/:group; the scheduler runs every 10 seconds."""

    title: str
    folderUid: str
    interval: Annotated[int, Field(gt=0, multiple_of=10)]
    rules: list[AlertRule]


# ── contact points: EmbeddedContactPoint, and what the three kinds that we use may be set to ──────────────────────────


class Webhook(Body):
    """Settings of a webhook."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    httpMethod: Literal["POST", "PUT"] = "POST"
    username: str = ""
    password: str = ""
    authorization_scheme: str = ""
    authorization_credentials: str = ""
    headers: dict[str, str] = {}
    maxAlerts: int | str = 0
    title: str = ""
    message: str = ""
    payload: dict[str, Any] = {}
    tlsConfig: dict[str, Any] = {}
    hmacConfig: dict[str, Any] = {}
    http_config: dict[str, Any] = {}


class Slack(Body):
    """Settings of Slack: a webhook's URL, or a token with a recipient."""

    url: str = ""
    endpointUrl: str = ""
    token: str = ""
    recipient: str = ""
    title: str = ""
    text: str = ""
    username: str = ""
    icon_emoji: str = ""
    icon_url: str = ""
    color: str = ""
    mentionChannel: str = ""
    mentionUsers: str = ""
    mentionGroups: str = ""

    @model_validator(mode="after")
    def _reachable(self) -> Slack:
        if not self.url and not (self.token and self.recipient):
            raise ValueError("token must be specified when using the Slack chat API")
        return self


class Email(Body):
    """Settings of e-mail."""

    addresses: Annotated[str, Field(min_length=1)]
    singleEmail: bool = False
    subject: str = ""
    message: str = ""


SETTINGS: dict[str, type[Body]] = {"webhook": Webhook, "slack": Slack, "email": Email}
SECRETS = {"webhook": {"password", "authorization_credentials"}, "slack": {"url", "token"}, "email": set[str]()}
"""Settings that Grafana stores encrypted and shows as [REDACTED]."""


class ContactPoint(Body):
    """POST /api/v1/provisioning/contact-points and PUT …/:uid."""

    uid: Uid
    name: Annotated[str, Field(min_length=1)]
    type: Literal["webhook", "slack", "email"]
    settings: dict[str, Any]
    disableResolveMessage: bool = False

    @model_validator(mode="after")
    def _settings(self) -> ContactPoint:
        SETTINGS[self.type].model_validate(self.settings)
        return self


# ── policies, templates, mute timings ─────────────────────────────────────────────────────────────────────────────────


class Route(Body):
    """A node of PUT /api/v1/provisioning/policies; deprecated `match`, `match_re` and `matchers` are not taken."""

    receiver: str | None = None
    group_by: list[str] = []
    object_matchers: list[tuple[str, Operator, str]] = []
    mute_time_intervals: list[str] = []
    active_time_intervals: list[str] = []
    continue_: Annotated[bool, Field(alias="continue")] = False
    group_wait: Duration | None = None
    group_interval: Duration | None = None
    repeat_interval: Duration | None = None
    routes: list[Route] = []


class Template(Body):
    """PUT /api/v1/provisioning/templates/:name."""

    template: Annotated[str, Field(min_length=1)]
    version: str | None = None


class TimesOfDay(Body):
    """From when to when."""

    start_time: Annotated[str, Field(pattern=r"^\d\d:\d\d$")]
    end_time: Annotated[str, Field(pattern=r"^\d\d:\d\d$")]


class TimeInterval(Body):
    """An interval of a mute timing."""

    times: list[TimesOfDay] = []
    weekdays: list[str] = []
    days_of_month: list[str] = []
    months: list[str] = []
    years: list[str] = []
    location: str = ""


class MuteTiming(Body):
    """POST /api/v1/provisioning/mute-timings and PUT …/:name."""

    name: Annotated[str, Field(min_length=1)]
    time_intervals: list[TimeInterval]


# ── annotations: http_api/annotations ─────────────────────────────────────────────────────────────────────────────────

Milliseconds = Annotated[int, Field(gt=1_000_000_000_000, lt=10_000_000_000_000)]
"""Between 2001 and 2286: seconds would be refused."""


class CreateAnnotation(Body):
    """POST /api/annotations."""

    dashboardUID: str | None = None
    panelId: int | None = None
    time: Milliseconds
    timeEnd: Milliseconds
    tags: list[Annotated[str, Field(min_length=1, max_length=100)]]
    text: Annotated[str, Field(min_length=1)]


class PatchAnnotation(Body):
    """PATCH /api/annotations/:id."""

    time: Milliseconds | None = None
    timeEnd: Milliseconds | None = None
    tags: list[str] | None = None
    text: str | None = None


# ── queries ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ANNOTATION_QUERY = {"from", "to", "limit", "dashboardUID", "panelId", "userId", "type", "tags", "matchAny"}
"""Of GET /api/annotations."""
SEARCH_QUERY = {"query", "tag", "type", "dashboardUIDs", "folderUIDs", "starred", "limit", "page"}
"""Of GET /api/search (http_api/folder_dashboard_search)."""
