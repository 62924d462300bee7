"""The objects that we keep in a Grafana: where each one lives, what of it is ours, and how it is written and removed.

All follow Grafana's HTTP API (`/api/…`, its documentation under "HTTP API"): folders, data sources and dashboards by
uid, the rest through the alerting provisioning API, of which grafana-api knows nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from dashboards._compare import REDACTED, duration_s, without
from dashboards._http import Api, path
from streams.errors import GrafanaUnavailable

UNLOCKED: Final = {"X-Disable-Provenance": "true"}
"""Header of the provisioning API: what is written stays editable in Grafana's own pages."""
OURS: Final = ("", "api")
"""Provenances that the provisioning API may change; others belong to files or other tools on that Grafana."""
INTERVAL_MS, MAX_DATA_POINTS = 1000, 43_200
"""What Grafana writes into the query of an alert rule that does not say it."""


class Managed(ABC):
    """One object that we want in Grafana.

    Args:
        name: its uid, or its name where that is what tells it apart.
        body: what we want, as the API takes it.
        hide: takes secrets out of a text that is shown.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, body: Mapping[str, Any], hide: Callable[[str], str] = str) -> None:
        self.name, self.body, self.hide = name, dict(body), hide
        self.locked = True

    @property
    def title(self) -> str:
        """For people: kind and name."""
        return f"{self.kind} {self.name}"

    @abstractmethod
    def read(self, api: Api) -> Any:
        """What Grafana has under this name; None if nothing."""

    @abstractmethod
    def write(self, api: Api, found: Any) -> None:
        """Make what we want of what was found (None: nothing)."""

    def delete(self, api: Api) -> None:
        """Remove it."""
        raise GrafanaUnavailable(f"{self.title}: not removed by us. Fix: remove it in Grafana")

    def wanted(self, found: Any) -> Any:
        """What of the body we compare."""
        return self.normal(self.body)

    @abstractmethod
    def normal(self, body: Any) -> Any:
        """A body, wanted or found, as it is compared."""

    def shown(self, ours: Any, theirs: Any) -> tuple[Any, Any]:
        """What we want and what was found, normal, as people may see them."""
        return ours, theirs

    def keeper(self, found: Any) -> str:
        """Who else keeps this object, so that we may not change it; empty if nobody does."""
        return ""


class _Provisioned(Managed):
    """An object of the alerting provisioning API, which carries its provenance."""

    def keeper(self, found: Any) -> str:
        """Its provenance, if that is neither ours nor nobody's."""
        provenance = str(found.get("provenance") or "")
        return "" if provenance in OURS else provenance

    def _headers(self) -> Mapping[str, str] | None:
        return None if self.locked else UNLOCKED

    def wanted(self, found: Any) -> Any:
        """With the provenance that writing gives it, where we may change it."""
        return self.normal({**self.body, "provenance": self._provenance(found or {})})

    def _provenance(self, found: Any) -> str:
        stored = str(found.get("provenance") or "")
        return stored if stored not in OURS else "api" if self.locked else ""


class Folder(Managed):
    """A folder; its body has `title`."""

    kind = "folder"

    def read(self, api: Api) -> Any:
        """GET /folders/:uid."""
        return api.find(path("folders", self.name))

    def write(self, api: Api, found: Any) -> None:
        """POST /folders or PUT /folders/:uid, against the version that was found."""
        if found is None:
            api.call("POST", path("folders"), {"uid": self.name, **self.body})
        else:
            api.call("PUT", path("folders", self.name), {**self.body, "version": found["version"]})

    def normal(self, body: Any) -> Any:
        """The title."""
        return {"title": body["title"]}


class DataSource(Managed):
    """A data source; its body is that of POST /datasources."""

    kind = "data source"

    def read(self, api: Api) -> Any:
        """GET /datasources/uid/:uid."""
        return api.find(path("datasources", "uid", self.name))

    def write(self, api: Api, found: Any) -> None:
        """POST /datasources or PUT /datasources/uid/:uid; its name, and whether it is the default one, stay."""
        body = {**self.body, "uid": self.name}
        if found is None:
            api.call("POST", path("datasources"), body)
        else:
            kept = {"isDefault": bool(found.get("isDefault")), "version": found.get("version", 0)}
            body |= {"name": found.get("name", body["name"]), **kept}
            api.call("PUT", path("datasources", "uid", self.name), body)

    def normal(self, body: Any) -> Any:
        """What we set; a data source has much that others may set."""
        return {name: body.get(name) for name in self.body if name not in ("name", "secureJsonData")}

    def keeper(self, found: Any) -> str:
        """A file on that Grafana, if it is read-only."""
        return "file" if found.get("readOnly") else ""


class Dashboard(Managed):
    """A dashboard; its body is the dashboard model.

    Args:
        name: uid.
        body: the model.
        folder_uid: where it belongs.
    """

    kind = "dashboard"

    def __init__(self, name: str, body: Mapping[str, Any], folder_uid: str) -> None:
        super().__init__(name, body)
        self._folder_uid = folder_uid

    def read(self, api: Api) -> Any:
        """GET /dashboards/uid/:uid."""
        return api.find(path("dashboards", "uid", self.name))

    def write(self, api: Api, found: Any) -> None:
        """POST /dashboards/db, against the version that was found: 412 if somebody saved it since."""
        model = {**without(self.body, "version"), "uid": self.name, "id": None}
        if found is not None:
            model |= {"id": found["dashboard"]["id"], "version": found["dashboard"]["version"]}
        body = {"dashboard": model, "folderUid": self._folder_uid, "overwrite": False, "message": "trustwatch sync"}
        api.call("POST", path("dashboards", "db"), body)

    def delete(self, api: Api) -> None:
        """DELETE /dashboards/uid/:uid."""
        api.call("DELETE", path("dashboards", "uid", self.name))

    def wanted(self, found: Any) -> Any:
        """The model and its folder."""
        return self.normal({"dashboard": self.body, "meta": {"folderUid": self._folder_uid}})

    def normal(self, body: Any) -> Any:
        """Without id, version and iteration."""
        model = without(body["dashboard"], "id", "version", "iteration", "uid")
        return {"folderUid": body["meta"].get("folderUid", ""), "dashboard": model}

    def keeper(self, found: Any) -> str:
        """A file on that Grafana, if it is provisioned."""
        return "file" if found.get("meta", {}).get("provisioned") else ""


class RuleGroup(_Provisioned):
    """A group of alert rules with its interval; its body is that of PUT …/rule-groups/:group.

    Rules that Grafana has in this group and we do not are kept, unless `prune` is set; those that others keep, always.
    """

    kind = "rule group"
    prune = False

    @property
    def _where(self) -> str:
        return path("v1", "provisioning", "folder", self.body["folderUid"], "rule-groups", self.name)

    def read(self, api: Api) -> Any:
        """GET /v1/provisioning/folder/:folderUid/rule-groups/:group; older Grafanas show an empty one for none."""
        found = api.find(self._where)
        return found if found and found.get("rules") else None

    def write(self, api: Api, found: Any) -> None:
        """PUT the same, which replaces the group."""
        api.call("PUT", self._where, {**self.body, "rules": self.body["rules"] + self._kept(found)}, self._headers())

    def delete(self, api: Api) -> None:
        """DELETE /v1/provisioning/alert-rules/:uid, each rule: deleting the group is newer than Grafana 11."""
        for rule in self.body["rules"]:
            api.call("DELETE", path("v1", "provisioning", "alert-rules", rule["uid"]), headers=self._headers())

    def left_over(self, found: Any, *, foreign: bool = True) -> list[str]:
        """Rules, by uid, that Grafana has in this group and we do not; with those that others keep, or without."""
        ours = {rule["uid"] for rule in self.body["rules"]}
        left = [rule for rule in (found or {}).get("rules", ()) if rule["uid"] not in ours]
        return [rule["uid"] for rule in left if foreign or not super(RuleGroup, self).keeper(rule)]

    def _kept(self, found: Any) -> list[dict[str, Any]]:
        gone = set(self.left_over(found, foreign=False)) if self.prune else set()
        extra = set(self.left_over(found)) - gone
        rules = [rule for rule in (found or {}).get("rules", ()) if rule["uid"] in extra]
        return [without(rule, "updated", "provenance") for rule in rules]

    def keeper(self, found: Any) -> str:
        """Provenance of a rule that is neither ours nor nobody's."""
        return next(filter(None, (super(RuleGroup, self).keeper(rule) for rule in found.get("rules", ()))), "")

    def wanted(self, found: Any) -> Any:
        """With the rules that are kept."""
        stored = {rule["uid"]: rule for rule in (found or {}).get("rules", ())}
        rules = [{**rule, "provenance": self._provenance(stored.get(rule["uid"], {}))}
                 for rule in self.body["rules"] + self._kept(found)]  # fmt: skip
        return self.normal({**self.body, "rules": rules})

    def normal(self, body: Any) -> Any:
        """Interval, and the rules by uid: their order says nothing."""
        return {"interval": body["interval"], "rules": {rule["uid"]: _rule(rule) for rule in body["rules"]}}


class ContactPoint(_Provisioned):
    """One receiver of a contact point; several may share a name. Its body is that of POST …/contact-points.

    Secrets cannot be compared, because Grafana does not show them; `again` writes them anyway. Grafana does show some
    settings that are as good as secrets (the URL of a webhook): `variables` are never shown, neither old nor new.

    Attributes:
        variables: setting → what our file has there, where that is a variable.
        again: write it even if nothing but secrets could differ.
    """

    kind = "contact point"
    again = False

    def __init__(self, name: str, body: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> None:
        super().__init__(name, body)
        self.variables = variables or {}

    def shown(self, ours: Any, theirs: Any) -> tuple[Any, Any]:
        """Without values of variables."""
        names = [name for name in self.variables if ours["settings"].get(name) != theirs["settings"].get(name)]
        old = dict.fromkeys(names, "another value")
        new = {name: self.variables[name] for name in names}
        return (
            {**ours, "settings": {**ours["settings"], **new}},
            {**theirs, "settings": {**theirs["settings"], **old}},
        )

    def read(self, api: Api) -> Any:
        """GET /v1/provisioning/contact-points, the one with this uid."""
        found = api.get(path("v1", "provisioning", "contact-points")) or []
        return next((point for point in found if point.get("uid") == self.name), None)

    def write(self, api: Api, found: Any) -> None:
        """POST /v1/provisioning/contact-points or PUT …/:uid."""
        body = {**self.body, "uid": self.name}
        if found is None:
            api.call("POST", path("v1", "provisioning", "contact-points"), body, self._headers())
        else:
            api.call("PUT", path("v1", "provisioning", "contact-points", self.name), body, self._headers())

    def delete(self, api: Api) -> None:
        """DELETE /v1/provisioning/contact-points/:uid."""
        api.call("DELETE", path("v1", "provisioning", "contact-points", self.name))

    def normal(self, body: Any) -> Any:
        """All but the uid; secrets as Grafana shows them, unless they are to be written again."""
        settings = dict(body["settings"])
        if self.again:
            settings = {name: f"{value} (again)" if value == REDACTED else value for name, value in settings.items()}
        return without({**body, "settings": settings}, "uid")


class Policy(_Provisioned):
    """The one tree of notification policies of an organisation; its body is the root route.

    Grafana's own tree, or one whose root sends to our receiver, is replaced. Anybody else's is kept, unless `take`.
    """

    kind = "notification policy"
    take = False
    _WHERE = path("v1", "provisioning", "policies")

    def read(self, api: Api) -> Any:
        """GET /v1/provisioning/policies."""
        return api.get(self._WHERE)

    def write(self, api: Api, found: Any) -> None:
        """PUT the same."""
        api.call("PUT", self._WHERE, self.body, self._headers())

    def normal(self, body: Any) -> Any:
        """The tree with durations in seconds and matchers in one form."""
        return _route(body)

    def keeper(self, found: Any) -> str:
        """Its provenance, or the receiver of a root that somebody else made."""
        made = found.get("routes") or found.get("receiver") not in ("grafana-default-email", "empty", None)
        if made and found.get("receiver") != self.body["receiver"] and not self.take:
            return f"somebody who sends to {found.get('receiver')}"
        return super().keeper(found)


class Template(_Provisioned):
    """A group of notification templates; its body has `template`."""

    kind = "notification template"

    @property
    def _where(self) -> str:
        return path("v1", "provisioning", "templates", self.name)

    def read(self, api: Api) -> Any:
        """GET /v1/provisioning/templates/:name."""
        return api.find(self._where)

    def write(self, api: Api, found: Any) -> None:
        """PUT the same, against the version that was found, where Grafana has versions of it (12)."""
        version = {"version": found["version"]} if found and found.get("version") else {}
        api.call("PUT", self._where, {**self.body, **version}, self._headers())

    def delete(self, api: Api) -> None:
        """DELETE the same."""
        api.call("DELETE", self._where, headers=self._headers())

    def normal(self, body: Any) -> Any:
        """The text, without blanks at its ends."""
        return {"template": body["template"].strip(), "provenance": body.get("provenance", "")}


class MuteTiming(_Provisioned):
    """Times at which nobody is notified; its body is that of POST …/mute-timings."""

    kind = "mute timing"

    def read(self, api: Api) -> Any:
        """GET /v1/provisioning/mute-timings/:name."""
        return api.find(path("v1", "provisioning", "mute-timings", self.name))

    def write(self, api: Api, found: Any) -> None:
        """POST /v1/provisioning/mute-timings or PUT …/:name."""
        body = {**self.body, "name": self.name}
        if found is None:
            api.call("POST", path("v1", "provisioning", "mute-timings"), body, self._headers())
        else:
            api.call("PUT", path("v1", "provisioning", "mute-timings", self.name), body, self._headers())

    def delete(self, api: Api) -> None:
        """DELETE /v1/provisioning/mute-timings/:name; 409 while a route uses it."""
        api.call("DELETE", path("v1", "provisioning", "mute-timings", self.name), headers=self._headers())

    def normal(self, body: Any) -> Any:
        """Its intervals."""
        return {"time_intervals": body["time_intervals"], "provenance": body.get("provenance", "")}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule without what Grafana keeps for itself, its durations in seconds, its queries by refId."""
    plain = without(rule, "id", "uid", "guid", "updated", "orgID", "folderUID", "ruleGroup", "data")
    for name in ("for", "keep_firing_for"):
        plain[name] = duration_s(str(rule.get(name) or "0"))
    return {**plain, "data": {query["refId"]: _query(query) for query in rule["data"]}}


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    model = without(query["model"], "refId")
    if model.get("intervalMs") == INTERVAL_MS:
        del model["intervalMs"]
    if model.get("maxDataPoints") == MAX_DATA_POINTS:
        del model["maxDataPoints"]
    return {**without(query, "refId"), "model": model}


def _route(route: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(route)
    for name in ("group_wait", "group_interval", "repeat_interval"):
        if plain.get(name):
            plain[name] = duration_s(str(plain[name]))
    if "routes" in plain:
        plain["routes"] = [_route(child) for child in plain["routes"] or ()]
    return plain
