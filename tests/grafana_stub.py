"""A stand-in for Grafana on loopback: answers its documented HTTP API, and refuses what Grafana would, or drops.

It keeps what it is given as Grafana does (adds ids, versions, times, provenance and defaults, hides secrets) and
validates every request against `tests.grafana_schemas`. Grafana itself runs nowhere in our tests: no package of it is
at hand.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import ValidationError

from dashboards._compare import REDACTED, duration, duration_s
from tests import grafana_schemas as schemas

TOKEN = "glsa_stub-token-0123456789"
DEFAULT_RECEIVER = "grafana-default-email"
UPDATED = "2026-01-01T00:00:00Z"
Answer = tuple[int, Any]
PROVISIONING = "/api/v1/provisioning"


class Refuse(Exception):
    """Answer with this status and message."""

    def __init__(self, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.answer: Answer = (code, {"message": message, **more})


class Fault:
    """What goes wrong with requests whose `METHOD path` matches.

    Args:
        action: a status, `hang` (no answer until the stub ends), `drop` (the connection closes), `html`, `redirect`,
            `empty` (an empty list).
        match: regular expression of requests.
        times: how many of them.
        after: the request is carried out first, and only its answer is lost.
        headers: of the answer.
    """

    def __init__(
        self, action: int | str, match: str = "", times: int = 10**9, *, after: bool = False, **headers: str
    ) -> None:
        self.action, self.match, self.times, self.after = action, re.compile(match), times, after
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class GrafanaStub:
    """What the stand-in knows.

    Attributes:
        requests: `METHOD path?query` of every request, in order.
        bodies: the body of each, beside it.
        faults: what goes wrong.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: list[Any] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.url = ""
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.source_health: Answer = (200, {"status": "OK", "message": "Successfully queried the Prometheus API."})
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.groups: dict[tuple[str, str], dict[str, Any]] = {}
        self.points: dict[str, dict[str, Any]] = {}
        self.policy: dict[str, Any] = {"receiver": DEFAULT_RECEIVER, "group_by": ["grafana_folder", "alertname"]}
        self.templates: dict[str, dict[str, Any]] = {}
        self.timings: dict[str, dict[str, Any]] = {}
        self.notes: dict[int, dict[str, Any]] = {}
        self._ids = iter(range(1, 10**9))

    def fail(
        self, action: int | str, match: str = "", times: int = 10**9, *, after: bool = False, **headers: str
    ) -> None:
        """Let requests fail from now on; see `Fault`."""
        self.faults.append(Fault(action, match, times, after=after, **headers))

    def calls(self, *methods: str) -> list[str]:
        """Requests by these methods."""
        return [request for request in self.requests if request.partition(" ")[0] in methods]

    @property
    def writes(self) -> list[str]:
        """Requests that are no GET."""
        return self.calls("POST", "PUT", "PATCH", "DELETE")

    def fault(self, request: str) -> Fault | None:
        """What goes wrong with a request, if anything."""
        for fault in self.faults:
            if fault.times > 0 and fault.match.search(request):
                fault.times -= 1
                return fault
        return None

    def answer(self, method: str, target: str, body: bytes, headers: Any) -> Answer:
        """The answer to a request."""
        where, query = urlsplit(target).path, parse_qs(urlsplit(target).query, keep_blank_values=True)
        if where != "/api/health" and headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Invalid API key", "statusCode": 401}
        for verb, pattern, handle in self._routes():
            match = re.fullmatch(pattern, where)
            if verb == method and match:
                try:
                    with self.lock:
                        names = [unquote(part) for part in match.groups()]
                        return handle(Request(body, query, "X-Disable-Provenance" in headers), *names)
                except Refuse as refuse:
                    return refuse.answer
                except ValidationError as error:
                    return 400, {"message": f"bad request data: {error.errors(include_url=False, include_input=False)}"}
        return 404, {"message": "Not found"}

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        name, alerting = "([^/]+)", PROVISIONING
        group = f"{alerting}/folder/{name}/rule-groups/{name}"
        note, rule, timing = (
            r"/api/annotations/(\d+)",
            f"{alerting}/alert-rules/{name}",
            f"{alerting}/mute-timings/{name}",
        )
        point, template = f"{alerting}/contact-points/{name}", f"{alerting}/templates/{name}"
        dashboard, source = f"/api/dashboards/uid/{name}", f"/api/datasources/uid/{name}"
        return [
            ("GET", "/api/health", lambda _: (200, {"database": "ok", "version": "12.1.0", "commit": "0"})),
            ("GET", f"/api/folders/{name}", self._folder), ("POST", "/api/folders", self._make_folder),
            ("PUT", f"/api/folders/{name}", self._rename_folder),
            ("GET", source, self._source), ("POST", "/api/datasources", self._make_source),
            ("PUT", source, self._change_source), ("GET", f"{source}/health", lambda *_: self.source_health),
            ("GET", dashboard, self._dashboard), ("POST", "/api/dashboards/db", self._save_dashboard),
            ("DELETE", dashboard, self._delete_dashboard), ("GET", "/api/search", self._search),
            ("GET", f"{alerting}/alert-rules", self._rules), ("DELETE", rule, self._drop_rule),
            ("GET", group, self._group), ("PUT", group, self._put_group),
            ("GET", f"{alerting}/contact-points", self._list_points),
            ("POST", f"{alerting}/contact-points", self._make_point),
            ("PUT", point, self._change_point), ("DELETE", point, self._delete_point),
            ("GET", f"{alerting}/policies", lambda _: (200, self.policy)),
            ("PUT", f"{alerting}/policies", self._put_policy),
            ("GET", f"{alerting}/templates", lambda _: (200, list(self.templates.values()))),
            ("GET", template, self._template), ("PUT", template, self._put_template),
            ("DELETE", template, self._delete_template),
            ("GET", f"{alerting}/mute-timings", lambda _: (200, list(self.timings.values()))),
            ("GET", timing, self._timing), ("POST", f"{alerting}/mute-timings", self._make_timing),
            ("PUT", timing, self._change_timing), ("DELETE", timing, self._delete_timing),
            ("GET", "/api/annotations", self._notes), ("POST", "/api/annotations", self._post_note),
            ("PATCH", note, self._patch_note), ("DELETE", note, self._delete_note),
        ]  # fmt: skip

    # ── folders, data sources, dashboards ─────────────────────────────────────────────────────────────────────────

    def _folder(self, _: Request, uid: str) -> Answer:
        return 200, _there(self.folders, uid, "folder not found")

    def _make_folder(self, request: Request) -> Answer:
        wanted = schemas.CreateFolder.model_validate_json(request.body)
        if wanted.uid in self.folders or any(folder["title"] == wanted.title for folder in self.folders.values()):
            raise Refuse(409, "a folder with the same name already exists in the current location")
        made = {"id": next(self._ids), "uid": wanted.uid, "title": wanted.title, "version": 1, "hasAcl": False,
                "url": "/dashboards/f/x", "canSave": True, "created": UPDATED, "updated": UPDATED}  # fmt: skip
        self.folders[wanted.uid] = made
        return 200, made

    def _rename_folder(self, request: Request, uid: str) -> Answer:
        folder = _there(self.folders, uid, "folder not found")
        wanted = schemas.UpdateFolder.model_validate_json(request.body)
        if not wanted.overwrite and wanted.version != folder["version"]:
            raise Refuse(412, "the folder has been changed by someone else", status="version-mismatch")
        folder |= {"title": wanted.title, "version": folder["version"] + 1}
        return 200, folder

    def _source(self, _: Request, uid: str) -> Answer:
        return 200, _there(self.sources, uid, "Data source not found")

    def _make_source(self, request: Request) -> Answer:
        wanted = schemas.DataSource.model_validate_json(request.body)
        if wanted.uid in self.sources or any(source["name"] == wanted.name for source in self.sources.values()):
            raise Refuse(409, "data source with the same name already exists")
        return self._keep_source(wanted, wanted.uid or "", 1)

    def _change_source(self, request: Request, uid: str) -> Answer:
        source = _there(self.sources, uid, "Data source not found")
        wanted = schemas.DataSource.model_validate_json(request.body)
        if source["readOnly"]:
            raise Refuse(403, "Cannot update read-only data source")
        if wanted.version and wanted.version != source["version"]:
            raise Refuse(409, "Datasource has already been updated by someone else. Please reload and try again")
        return self._keep_source(wanted, uid, source["version"] + 1)

    def _keep_source(self, wanted: schemas.DataSource, uid: str, version: int) -> Answer:
        shown = wanted.model_dump(exclude={"secureJsonData"})
        secure = dict.fromkeys(wanted.secureJsonData or {}, True)
        made = {"id": next(self._ids), "orgId": 1, "version": version, "readOnly": False, "typeLogoUrl": "x.svg"}
        self.sources[uid] = {**shown, "uid": uid, **made, "jsonData": wanted.jsonData or {}, "secureJsonFields": secure}
        return 200, {"datasource": self.sources[uid], "message": "Datasource added", "name": wanted.name}

    def _dashboard(self, _: Request, uid: str) -> Answer:
        return 200, _there(self.dashboards, uid, "Dashboard not found")

    def _save_dashboard(self, request: Request) -> Answer:
        wanted = schemas.SaveDashboard.model_validate_json(request.body)
        model = json.loads(request.body)["dashboard"]
        if wanted.folderUid and wanted.folderUid not in self.folders:
            raise Refuse(400, "folder not found")
        before = self.dashboards.get(model["uid"])
        self._refuse_save(wanted, before)
        version = 1 if before is None else before["dashboard"]["version"] + 1
        model |= {"id": next(self._ids) if before is None else before["dashboard"]["id"], "version": version}
        meta = {"folderUid": wanted.folderUid, "provisioned": False, "url": f"/d/{model['uid']}/x", "slug": "x",
                "created": UPDATED, "updated": UPDATED, "createdBy": "stub"}  # fmt: skip
        self.dashboards[model["uid"]] = {"dashboard": model, "meta": meta}
        return 200, {"id": model["id"], "uid": model["uid"], "status": "success", "version": version, "slug": "x"}

    def _refuse_save(self, wanted: schemas.SaveDashboard, before: Any) -> None:
        model = wanted.dashboard
        others = [one for uid, one in self.dashboards.items() if uid != model.uid]
        if any(
            one["dashboard"]["title"] == model.title and one["meta"]["folderUid"] == wanted.folderUid for one in others
        ):
            raise Refuse(412, "A dashboard with the same name in the folder already exists", status="name-exists")
        if before is not None:
            if before["meta"]["provisioned"]:
                raise Refuse(400, "Cannot save provisioned dashboard")
            if not wanted.overwrite and model.version != before["dashboard"]["version"]:
                raise Refuse(412, "The dashboard has been changed by someone else", status="version-mismatch")
        elif model.id is not None:
            raise Refuse(404, "Dashboard not found", status="not-found")

    def _delete_dashboard(self, _: Request, uid: str) -> Answer:
        dashboard = _there(self.dashboards, uid, "Dashboard not found")
        if dashboard["meta"].get("provisioned"):
            raise Refuse(400, "provisioned dashboard cannot be deleted")
        title = dashboard["dashboard"]["title"]
        del self.dashboards[uid]
        return 200, {"title": title, "message": f"Dashboard {title} deleted"}

    def _search(self, request: Request) -> Answer:
        request.only(schemas.SEARCH_QUERY)
        folders = request.query.get("folderUIDs", [])
        return 200, [
            {"uid": uid, "title": one["dashboard"]["title"], "type": "dash-db", "folderUid": one["meta"]["folderUid"]}
            for uid, one in self.dashboards.items()
            if not folders or one["meta"]["folderUid"] in folders
        ]

    # ── alert rules ───────────────────────────────────────────────────────────────────────────────────────────────

    def _rules(self, _: Request) -> Answer:
        return 200, [rule for group in self.groups.values() for rule in group["rules"]]

    def _group(self, _: Request, folder: str, name: str) -> Answer:
        return 200, _there(self.groups, (folder, name), "rule group not found")

    def _put_group(self, request: Request, folder: str, name: str) -> Answer:
        wanted = schemas.RuleGroup.model_validate_json(request.body)
        if folder not in self.folders or folder != wanted.folderUid or name != wanted.title:
            raise Refuse(400, "folder or group of the path is not there, or not that of the body")
        before = {rule["uid"]: rule for rule in self.groups.get((folder, name), {"rules": []})["rules"]}
        elsewhere = {rule["uid"]: rule for key, group in self.groups.items() if key != (folder, name)
                     for rule in group["rules"]}  # fmt: skip
        given = {(rule["title"]) for rule in elsewhere.values() if rule["folderUID"] == folder}
        rules = []
        for rule, raw in zip(wanted.rules, json.loads(request.body)["rules"], strict=True):
            self._refuse_rule(rule, before.get(rule.uid) or elsewhere.get(rule.uid), request)
            if rule.title in given:
                raise Refuse(400, f"rule title {rule.title} is there twice in folder {folder}")
            given.add(rule.title)
            rules.append(self._stored(raw, request))
        group = {"title": name, "folderUid": folder, "interval": wanted.interval, "rules": rules}
        self.groups[folder, name] = group
        return 200, {"title": name, "folderUid": folder, "interval": wanted.interval, "rules": []}

    def _refuse_rule(self, rule: schemas.AlertRule, before: Any, request: Request) -> None:
        for query in rule.data:
            if query.datasourceUid != "__expr__" and query.datasourceUid not in self.sources:
                raise Refuse(400, f"rule {rule.uid}: data source {query.datasourceUid} not found")
        if before is not None:
            request.refuse_provenance(before)

    def _stored(self, rule: dict[str, Any], request: Request) -> dict[str, Any]:
        """As Grafana gives it back: durations in its own way, queries with defaults, all fields there."""
        defaults = {"intervalMs": 1000, "maxDataPoints": 43_200}
        data = [{**query, "model": {**defaults, **query["model"], "refId": query["refId"]}} for query in rule["data"]]
        times = {name: duration(duration_s(rule.get(name, "0s"))) for name in ("for", "keep_firing_for")}
        stored = {"notification_settings": None, "record": None, "isPaused": False, **rule, **times, "data": data,
                  "id": next(self._ids), "updated": UPDATED, **request.provenance}  # fmt: skip
        return {name: value for name, value in stored.items() if name not in ("labels", "annotations") or value}

    def _drop_rule(self, request: Request, uid: str) -> Answer:
        for key, group in list(self.groups.items()):
            for rule in group["rules"]:
                if rule["uid"] == uid:
                    request.refuse_provenance(rule)
                    group["rules"].remove(rule)
            if not group["rules"]:
                del self.groups[key]
        return 204, None

    # ── contact points, policy, templates, mute timings ───────────────────────────────────────────────────────────

    def _list_points(self, request: Request) -> Answer:
        request.only({"name"})
        return 200, [_without_secrets(point) for point in self.points.values()]

    def _make_point(self, request: Request) -> Answer:
        wanted = self._receiver(request)
        if wanted.uid in self.points:
            raise Refuse(409, f"contact point {wanted.uid} is there already")
        self.points[wanted.uid] = {**wanted.model_dump(), **request.provenance}
        return 202, _without_secrets(self.points[wanted.uid])

    def _change_point(self, request: Request, uid: str) -> Answer:
        before = _there(self.points, uid, "contact point not found")
        wanted = self._receiver(request)
        request.refuse_provenance(before)
        self.points[uid] = {**wanted.model_dump(), **request.provenance}
        return 202, {"message": "contactpoint updated"}

    @staticmethod
    def _receiver(request: Request) -> schemas.ContactPoint:
        """A receiver whose addresses can be used; if not, its settings are repeated, in JSON as Go writes it."""
        settings = json.loads(request.body)["settings"]
        url = settings.get("url", "https://")
        if not url.startswith(("http://", "https://")):
            raw = json.dumps(settings).replace("&", "\\u0026")
            raise Refuse(400, f'unsupported protocol scheme in "{url}": {raw}')
        return schemas.ContactPoint.model_validate_json(request.body)

    def _delete_point(self, request: Request, uid: str) -> Answer:
        point = _there(self.points, uid, "contact point not found")
        request.refuse_provenance(point)
        name = point["name"]
        if name in _receivers(self.policy):
            raise Refuse(409, "contact point is in use by a notification policy")
        del self.points[uid]
        return 202, {"message": "contactpoint deleted"}

    def _put_policy(self, request: Request) -> Answer:
        wanted = schemas.Route.model_validate_json(request.body)
        known = {DEFAULT_RECEIVER, *(point["name"] for point in self.points.values())}
        if not wanted.receiver or wanted.object_matchers or wanted.mute_time_intervals or wanted.continue_:
            raise Refuse(400, "the root route has no receiver, or matchers, mute timings or continue")
        tree = json.loads(request.body)
        if missing := _receivers(tree) - known:
            raise Refuse(400, f"receiver {sorted(missing)} does not exist")
        if missing := _mutes(tree) - set(self.timings):
            raise Refuse(400, f"mute time interval {sorted(missing)} does not exist")
        request.refuse_provenance(self.policy)
        self.policy = {**tree, **request.provenance}
        return 202, {"message": "policies updated"}

    def _template(self, _: Request, name: str) -> Answer:
        return 200, _there(self.templates, name, "template not found")

    def _put_template(self, request: Request, name: str) -> Answer:
        wanted = schemas.Template.model_validate_json(request.body)
        before = self.templates.get(name)
        if before is not None:
            request.refuse_provenance(before)
            if wanted.version and wanted.version != before["version"]:
                raise Refuse(409, "provided version does not match current version")
        version = f"v{next(self._ids)}"
        self.templates[name] = {
            "name": name,
            "template": wanted.template.strip(),
            "version": version,
            **request.provenance,
        }
        return 202, self.templates[name]

    def _delete_template(self, request: Request, name: str) -> Answer:
        request.refuse_provenance(self.templates.get(name, {}))
        self.templates.pop(name, None)
        return 204, None

    def _timing(self, _: Request, name: str) -> Answer:
        return 200, _there(self.timings, name, "mute timing not found")

    def _make_timing(self, request: Request) -> Answer:
        wanted = schemas.MuteTiming.model_validate_json(request.body)
        if wanted.name in self.timings:
            raise Refuse(409, "a time interval with this name already exists")
        return 201, self._keep_timing(request, wanted.name)

    def _change_timing(self, request: Request, name: str) -> Answer:
        request.refuse_provenance(_there(self.timings, name, "mute timing not found"))
        schemas.MuteTiming.model_validate_json(request.body)
        return 202, self._keep_timing(request, name)

    def _keep_timing(self, request: Request, name: str) -> dict[str, Any]:
        self.timings[name] = {**json.loads(request.body), "version": "1", **request.provenance}
        return self.timings[name]

    def _delete_timing(self, request: Request, name: str) -> Answer:
        request.refuse_provenance(self.timings.get(name, {}))
        if name in _mutes(self.policy):
            raise Refuse(409, "time interval is used by a notification policy")
        self.timings.pop(name, None)
        return 204, None

    # ── annotations ───────────────────────────────────────────────────────────────────────────────────────────────

    def _notes(self, request: Request) -> Answer:
        request.only(schemas.ANNOTATION_QUERY)
        if request.query.get("type", ["annotation"]) not in (["annotation"], ["alert"]):
            raise Refuse(400, "type is alert or annotation")
        tags, limit = set(request.query.get("tags", [])), int(request.query.get("limit", ["100"])[0])
        since, until = (int(request.query.get(name, ["0"])[0]) for name in ("from", "to"))
        found = [
            note for note in self.notes.values()
            if tags <= set(note["tags"]) and (not until or (note["time"] <= until and note["timeEnd"] >= since))
        ]  # fmt: skip
        return 200, sorted(found, key=lambda note: -note["timeEnd"])[:limit]

    def _post_note(self, request: Request) -> Answer:
        wanted = schemas.CreateAnnotation.model_validate_json(request.body)
        if wanted.dashboardUID and wanted.dashboardUID not in self.dashboards:
            raise Refuse(404, "Dashboard not found")
        number = next(self._ids)
        self.notes[number] = {"id": number, "alertId": 0, "alertName": "", "dashboardId": 0, "panelId": 0, "userId": 1,
                              "newState": "", "prevState": "", "login": "stub", "data": {},
                              **wanted.model_dump()}  # fmt: skip
        return 200, {"message": "Annotation added", "id": number}

    def _patch_note(self, request: Request, number: str) -> Answer:
        note = _there(self.notes, int(number), "annotation not found")
        note |= schemas.PatchAnnotation.model_validate_json(request.body).model_dump(exclude_unset=True)
        return 200, {"message": "Annotation patched"}

    def _delete_note(self, _: Request, number: str) -> Answer:
        _there(self.notes, int(number), "annotation not found")
        del self.notes[int(number)]
        return 200, {"message": "Annotation deleted"}


class Request:
    """A request to one of the handlers."""

    def __init__(self, body: bytes, query: dict[str, list[str]], unlocked: bool) -> None:
        self.body, self.query = body, query
        self.provenance = {} if unlocked else {"provenance": "api"}

    def only(self, known: set[str]) -> None:
        """Refuse parameters that are not documented: Grafana ignores them, and then finds too much."""
        if unknown := set(self.query) - known:
            raise Refuse(400, f"unknown query parameters {sorted(unknown)}")

    def refuse_provenance(self, before: Any) -> None:
        """What a file or another tool provisioned cannot be changed here."""
        if before.get("provenance", "") not in ("", "api"):
            raise Refuse(409, f"cannot change provenance from '{before['provenance']}' to 'api'")


def _there(where: Any, key: Any, message: str) -> Any:
    if key not in where:
        raise Refuse(404, message)
    return where[key]


def _without_secrets(point: dict[str, Any]) -> dict[str, Any]:
    secret = schemas.SECRETS[point["type"]]
    settings = {name: REDACTED if name in secret and value else value for name, value in point["settings"].items()}
    return {**point, "settings": settings}


def _receivers(route: dict[str, Any]) -> set[str]:
    below: set[str] = set().union(*(_receivers(child) for child in route.get("routes") or ()))
    return below | ({route["receiver"]} if route.get("receiver") else set())


def _mutes(route: dict[str, Any]) -> set[str]:
    below: set[str] = set().union(*(_mutes(child) for child in route.get("routes") or ()))
    return below | set(route.get("mute_time_intervals") or ())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece, or each costs 40 ms of TCP's patience
    stub: GrafanaStub

    def handle_one(self) -> None:
        """Answer one request, or fail as told."""
        request = f"{self.command} {self.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.stub.requests.append(request)
        self.stub.bodies.append(json.loads(body) if body else None)
        fault = self.stub.fault(request)
        if fault is None:
            self._send(*self.stub.answer(self.command, self.path, body, self.headers))
            return
        if fault.after:
            self.stub.answer(self.command, self.path, body, self.headers)
        self._fail(fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def _fail(self, fault: Fault) -> None:
        if fault.action == "hang":
            self.stub.released.wait()
        if fault.action in ("hang", "drop"):
            self.close_connection = True
            self.connection.close()
        elif fault.action == "html":
            self._send(200, b"<html>a proxy's page</html>", fault.headers)
        elif fault.action == "empty":
            self._send(200, [], fault.headers)
        elif fault.action == "redirect":
            self._send(302, None, {"Location": "http://127.0.0.1:1/login", **fault.headers})
        else:
            assert isinstance(fault.action, int)
            self._send(fault.action, {"message": f"told to say {fault.action}"}, fault.headers)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are part of the tests."""


@contextmanager
def grafana_stub() -> Iterator[GrafanaStub]:
    """A running stand-in on loopback; its base URL is `url`."""
    stub = GrafanaStub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    with _Server(("127.0.0.1", 0), handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            stub.released.set()
            server.shutdown()
            thread.join()


def until(reached: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that another thread brings about."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, f"not reached within {timeout_s:g} s"
        time.sleep(0.01)
