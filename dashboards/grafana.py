"""Grafana, as far as we use it: its health, the objects that we keep there, and annotations.

The connection is `dashboards._http` (package grafana-api), the objects are in `dashboards._managed`, what of them
differs says `dashboards._compare`, and `dashboards.sync` puts all of ours into a Grafana.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dashboards._compare import align, unified
from dashboards._http import URL_KNOB, Api, path
from dashboards._managed import Managed
from streams.errors import GrafanaRefused, GrafanaUnavailable

TAG: Final = "trustwatch"
"""On every annotation of ours; dashboards find them by it."""
FINDING_TAG: Final = "finding"
DEPLOY_TAG: Final = "deploy"
MOST_ANNOTATIONS: Final = 5000
Action = Literal["created", "changed", "unchanged", "left over", "removed", "kept by others"]


@dataclass(frozen=True)
class Change:
    """What becomes of one object.

    Attributes:
        kind: what kind of object.
        name: its uid or name.
        action: what is done, or would be.
        diff: what changes, as a unified diff without secrets; empty for what is new or unchanged.
    """

    kind: str
    name: str
    action: Action
    diff: str = ""


@dataclass(frozen=True)
class Annotation:
    """What is to be seen on dashboards at a time, or from a time on until another.

    Attributes:
        key: the tag that tells it apart from all others, so that it is never posted twice; None: its time and text do.
        time_ms: when, milliseconds since the epoch.
        end_ms: until when; None for one moment.
        text: for people; HTML is not.
        tags: beside `trustwatch` and the key.
        dashboard_uid: the one dashboard that shows it; None: every one that asks for its tags.
    """

    key: str | None
    time_ms: int
    end_ms: int | None
    text: str
    tags: Sequence[str]
    dashboard_uid: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """What of it can be changed later, as the API takes it."""
        tags = dict.fromkeys((TAG, *self.tags, *((self.key,) if self.key else ())))
        end_ms = self.time_ms if self.end_ms is None else self.end_ms
        return {"time": self.time_ms, "timeEnd": end_ms, "text": self.text, "tags": list(tags)}


class Grafana:
    """One Grafana.

    Args:
        url: base URL, `http(s)://host[:port][/path]`, without user and password.
        token: service-account token; None asks anonymously (enough for `health`).
        timeout_s: seconds until a request is given up.
        tries: how often a request is made at most, while Grafana is away or busy.
        sleep: waits for so many seconds between two tries.

    Raises:
        GrafanaUnavailable: the URL or the token is none.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 3.0,
        *,
        tries: int = 1,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.api = Api(url, token, timeout_s, tries, sleep)

    def health(self) -> dict[str, Any]:
        """What Grafana says of itself: `database` (`ok`) and `version`.

        Raises:
            GrafanaUnavailable: it does not answer, not with 200, or is no Grafana.
        """
        answer = self.api.get(path("health"))
        if not isinstance(answer, dict) or "database" not in answer:
            raise GrafanaUnavailable(f"{self.api.url} answers, but not as Grafana. Fix: correct {URL_KNOB}")
        return answer

    def source_health(self, uid: str) -> str | None:
        """Whether a data source answers Grafana: None if so, else what is wrong with it.

        Raises:
            GrafanaRefused: the token is refused, or there is no such data source (404).
            GrafanaUnavailable: Grafana does not answer.
        """
        self.api.get(path("datasources", "uid", uid))  # the health of one that is not there is a 404 or a 500
        try:
            said = self.api.get(path("datasources", "uid", uid, "health"))
        except GrafanaRefused as refused:
            if refused.status != 400:
                raise
            return str(refused).partition(". Fix: ")[0]
        return None if said.get("status") == "OK" else str(said.get("message") or said.get("status"))

    # ── objects ───────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self, wanted: Managed) -> Change:
        """What `ensure` would do; changes nothing."""
        return self._judge(wanted, wanted.read(self.api))

    def ensure(self, wanted: Managed) -> Change:
        """Make Grafana have this object as we want it; touches nothing if it is so already.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer, or others keep this object and it differs.
        """
        found = wanted.read(self.api)
        change = self._judge(wanted, found)
        if change.action in ("created", "changed"):
            wanted.write(self.api, found)
        return change

    def remove(self, unwanted: Managed) -> Change:
        """Remove an object, unless others keep it.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer.
        """
        found = unwanted.read(self.api)
        if found is None:
            return Change(unwanted.kind, unwanted.name, "unchanged")
        if unwanted.keeper(found):
            return Change(unwanted.kind, unwanted.name, "kept by others")
        unwanted.delete(self.api)
        return Change(unwanted.kind, unwanted.name, "removed")

    @staticmethod
    def _judge(wanted: Managed, found: Any) -> Change:
        if found is None:
            return Change(wanted.kind, wanted.name, "created")
        ours, theirs = align(wanted.wanted(found), wanted.normal(found))
        if ours == theirs:
            return Change(wanted.kind, wanted.name, "unchanged")
        after, before = wanted.shown(ours, theirs)
        diff = wanted.hide(unified(wanted.title, before, after))
        return Change(wanted.kind, wanted.name, "kept by others" if wanted.keeper(found) else "changed", diff)

    def dashboards_in(self, folder_uid: str) -> list[dict[str, Any]]:
        """Dashboards of a folder, as GET /search tells them."""
        found = self.api.get(path("search", type="dash-db", folderUIDs=[folder_uid], limit=5000)) or []
        return [dashboard for dashboard in found if dashboard.get("folderUid") == folder_uid]

    def rules_in(self, folder_uid: str) -> list[dict[str, Any]]:
        """Alert rules of a folder."""
        found = self.api.get(path("v1", "provisioning", "alert-rules")) or []
        return [rule for rule in found if rule.get("folderUID") == folder_uid]

    # ── annotations ───────────────────────────────────────────────────────────────────────────────────────────────

    def annotate(self, wanted: Annotation) -> Literal["posted", "updated", "known"]:
        """Show an annotation, once: it is looked up by its key before, and afterwards, if others post it just now.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer.
        """
        found = self._same(wanted)
        if found:
            return self._update(wanted, found[0])
        where = {"dashboardUID": wanted.dashboard_uid} if wanted.dashboard_uid else {}
        self.api.call("POST", path("annotations"), {**where, **wanted.body})
        for twin in self._same(wanted)[1:]:  # another worker did the same at the same time: the first one stays
            self._delete(twin)
        return "posted"

    def annotations(self, *tags: str) -> list[dict[str, Any]]:
        """Annotations that carry all these tags, the newest of them."""
        found = self.api.get(path("annotations", type="annotation", limit=MOST_ANNOTATIONS, tags=list(tags)))
        return [one for one in found or [] if set(tags) <= set(one.get("tags") or ())]

    def _same(self, wanted: Annotation) -> list[dict[str, Any]]:
        """Annotations that are this one, the oldest first."""
        if wanted.key:
            found = self.annotations(TAG, wanted.key)
        else:
            where: dict[str, str | int | list[str]] = {"from": wanted.time_ms, "to": wanted.time_ms, "tags": [TAG]}
            found = self.api.get(path("annotations", **where, limit=MOST_ANNOTATIONS)) or []
            found = [one for one in found if one["time"] == wanted.time_ms and one["text"] == wanted.text]
        uid = wanted.dashboard_uid or ""
        return sorted((one for one in found if (one.get("dashboardUID") or "") == uid), key=lambda one: int(one["id"]))

    def _update(self, wanted: Annotation, found: Mapping[str, Any]) -> Literal["updated", "known"]:
        has = {name: found.get(name) for name in wanted.body}
        has["tags"] = sorted(found.get("tags") or ())
        # An end never moves back: who tells us of an earlier one knows less than who told us before.
        if has == {**wanted.body, "tags": sorted(wanted.body["tags"])} or has["timeEnd"] > wanted.body["timeEnd"]:
            return "known"
        self.api.call("PATCH", path("annotations", str(found["id"])), wanted.body)
        return "updated"

    def _delete(self, twin: Mapping[str, Any]) -> None:
        try:
            self.api.call("DELETE", path("annotations", str(twin["id"])))
        except GrafanaRefused as refused:
            if refused.status != 404:  # the other worker removed it
                raise
