"""Our provisioning files and dashboards, read as objects of Grafana's HTTP API.

The files are those that Grafana itself can be provisioned with (`deploy/grafana/provisioning`); its API wants the same
things in other words: `keepFiringFor` is `keep_firing_for` there, a contact point is one object per receiver, a panel
is named by annotations. Variables are filled in as Grafana does it: `$NAME` and `${NAME}` (`$$` is a dollar) everywhere
but in annotations, where only `${NAME}` is one, and in queries and templates, where none is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

import dashboards
import deploy
from dashboards import names
from dashboards._compare import duration, duration_s, without
from dashboards._managed import (
    ContactPoint,
    Dashboard,
    DataSource,
    Folder,
    Managed,
    MuteTiming,
    Policy,
    RuleGroup,
    Template,
)
from streams.errors import ConfigError

DASHBOARDS: Final = Path(dashboards.__file__).parent / "json"
PROVISIONING: Final = Path(deploy.__file__).parent / "grafana" / "provisioning"
ALERTING: Final = ("groups", "contactPoints", "policies", "templates", "muteTimes")
NOT_SYNCED: Final = ("apiVersion", "deleteRules")
"""What only provisioning needs: a rule that is in no file any more is left over for sync, and removed by `--prune`."""
_MATCHER: Final = re.compile(r'\s*"?([^"=!~]+?)"?\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*')
_VARIABLE: Final = re.compile(r"\$\$|\$__env\{(\w+)\}|\$\{(\w+)\}|\$(\w+)")
_BRACED: Final = re.compile(r"\$\{(\w+)\}")
SHORT: Final = 4
"""Values of variables that are shorter hide nothing, and taking them out of texts would garble those."""


class Files:
    """What is to be in a Grafana, read from our files.

    Args:
        folder: of dashboards' JSON.
        provisioning: folder with `datasources` and `alerting`.
        environment: variables.
        prometheus_url: of Prometheus, as Grafana reaches it; None: what the data source's file says.

    Attributes:
        unset: variables that the files name and the environment lacks, or has empty.
    """

    def __init__(
        self,
        folder: Path = DASHBOARDS,
        provisioning: Path = PROVISIONING,
        environment: Mapping[str, str] = os.environ,
        prometheus_url: str | None = None,
    ) -> None:
        self._folder, self._provisioning = folder, provisioning
        self._environment, self._prometheus_url = environment, prometheus_url
        self._used: dict[str, str] = {}
        self.unset: set[str] = set()

    def objects(self) -> list[Managed]:
        """All of them, each after those that it needs.

        Raises:
            ConfigError: a file is not what Grafana or we can read, or a variable is not set; the message names it.
        """
        alerting = self._alerting()
        found: list[Managed] = [Folder(names.FOLDER_UID, {"title": names.FOLDER_TITLE}), *self._sources()]
        makers: Mapping[str, Callable[[dict[str, Any]], Iterator[Managed]]] = {
            "templates": self._template, "muteTimes": self._mute_timing, "contactPoints": self._contact_points,
            "policies": self._policy, "groups": self._rule_group,
        }  # fmt: skip
        for section, make in makers.items():
            for file, one in alerting[section]:
                try:
                    found += make(one)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise ConfigError(f"{file}: {section}: {type(error).__name__}: {error}. Fix: make gen") from error
        if self.unset:
            raise ConfigError(
                f"{self._provisioning}: needs {', '.join(f'${name}' for name in sorted(self.unset))}, not set."
                " Fix: set them in the environment; one that you do not use to any address, Grafana takes none empty"
            )
        return [*found, *self._dashboards()]

    def hide(self, text: str) -> str:
        """A text with the values of variables replaced by their names: they may be secrets."""
        for name, value in sorted(self._used.items(), key=lambda item: -len(item[1])):
            if len(value) >= SHORT:
                for written in _spellings(value):
                    text = text.replace(written, f"${name}")
        return text

    # ── variables ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, value: Any, *, braced: bool = False) -> Any:
        if isinstance(value, str):
            return (_BRACED if braced else _VARIABLE).sub(self._value, value)
        if isinstance(value, list):
            return [self._fill(item, braced=braced) for item in value]
        if isinstance(value, Mapping):
            return {key: self._fill(item, braced=braced) for key, item in value.items()}
        return value

    def _value(self, match: re.Match[str]) -> str:
        name = next((group for group in match.groups() if group), None)
        if name is None:
            return "$"
        if not self._environment.get(name):
            self.unset.add(name)
        self._used[name] = self._environment.get(name, "")
        return self._used[name]

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _alerting(self) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
        found: dict[str, list[tuple[Path, dict[str, Any]]]] = {section: [] for section in ALERTING}
        for file in sorted((self._provisioning / "alerting").glob("*.y*ml")):
            for section, ones in without(_mapping(file), *NOT_SYNCED).items():
                if section not in found or not isinstance(ones, list):
                    raise ConfigError(f"{file}: {section} is none of {', '.join(ALERTING)}. Fix: make gen")
                found[section] += [(file, one) for one in ones]
        return found

    def _sources(self) -> Iterator[Managed]:
        for file in sorted((self._provisioning / "datasources").glob("*.y*ml")):
            for one in _mapping(file).get("datasources", ()):
                if not isinstance(one, dict) or not {"uid", "name", "type"} <= one.keys():
                    raise ConfigError(f"{file}: a data source without uid, name or type. Fix: give it these")
                body = self._fill(without(one, "orgId", "editable", "isDefault", "version", "uid"))
                # Others may have a default one, and one of that name: our dashboards and rules name ours by its uid.
                body = {"access": "proxy", "basicAuth": False, **body, "name": f"{body['name']} ({names.FOLDER_TITLE})"}
                if self._prometheus_url and one.get("type") == "prometheus":
                    body["url"] = self._prometheus_url
                yield DataSource(one["uid"], body, self.hide)

    def _dashboards(self) -> Iterator[Managed]:
        for file in sorted(self._folder.glob("*.json")):
            try:
                model = json.loads(file.read_text())
                yield Dashboard(model["uid"], model, names.FOLDER_UID)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{file}: no dashboard: {error}. Fix: make gen") from error

    # ── alerting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _template(self, one: dict[str, Any]) -> Iterator[Managed]:
        yield Template(one["name"], {"template": one["template"]})

    def _mute_timing(self, one: dict[str, Any]) -> Iterator[Managed]:
        yield MuteTiming(one["name"], {"time_intervals": self._fill(one["time_intervals"])})

    def _contact_points(self, one: dict[str, Any]) -> Iterator[Managed]:
        for receiver in one["receivers"]:
            body = {
                "name": self._fill(one["name"]), "type": receiver["type"], "settings": self._fill(receiver["settings"]),
                "disableResolveMessage": bool(receiver.get("disableResolveMessage", False)),
            }  # fmt: skip
            filled = body["settings"].items()
            given = {name: receiver["settings"][name] for name, value in filled if value != receiver["settings"][name]}
            point = ContactPoint(receiver["uid"], body, given)
            point.hide = self.hide
            yield point

    def _policy(self, one: dict[str, Any]) -> Iterator[Managed]:
        yield Policy("tree", _route(self._fill(without(one, "orgId"))), self.hide)

    def _rule_group(self, one: dict[str, Any]) -> Iterator[Managed]:
        if one["folder"] != names.FOLDER_TITLE:
            raise ValueError(f"group {one['name']} is in folder {one['folder']}, not in {names.FOLDER_TITLE}")
        rules = [self._rule(rule, one["name"]) for rule in one["rules"]]
        body = {"title": one["name"], "folderUid": names.FOLDER_UID,
                "interval": round(duration_s(str(one["interval"]))), "rules": rules}  # fmt: skip
        yield RuleGroup(one["name"], body, self.hide)

    def _rule(self, rule: Mapping[str, Any], group: str) -> dict[str, Any]:
        known = {"uid", "title", "condition", "data", "dashboardUid", "panelId", "noDataState", "execErrState", "for",
                 "keepFiringFor", "missing_series_evals_to_resolve", "annotations", "labels", "isPaused",
                 "notification_settings"}  # fmt: skip
        if unknown := sorted(set(rule) - known):
            raise ValueError(f"rule {rule.get('uid')} has {', '.join(unknown)}, which Grafana does not know")
        annotations = self._fill(rule.get("annotations", {}), braced=True)
        if rule.get("dashboardUid"):
            annotations |= {"__dashboardUid__": rule["dashboardUid"], "__panelId__": str(rule["panelId"])}
        body = {
            "uid": rule["uid"], "title": self._fill(rule["title"]), "orgID": 1, "folderUID": names.FOLDER_UID,
            "ruleGroup": group, "condition": rule["condition"], "data": [_query(query) for query in rule["data"]],
            "for": duration(duration_s(str(rule.get("for", "0")))),
            "keep_firing_for": duration(duration_s(str(rule.get("keepFiringFor", "0")))),
            "noDataState": rule.get("noDataState", "NoData"), "execErrState": rule.get("execErrState", "Alerting"),
            "annotations": annotations, "labels": self._fill(rule.get("labels", {})),
            "isPaused": bool(rule.get("isPaused", False)),
        }  # fmt: skip
        if "missing_series_evals_to_resolve" in rule:
            body["missingSeriesEvalsToResolve"] = rule["missing_series_evals_to_resolve"]
        if "notification_settings" in rule:
            body["notification_settings"] = self._fill(rule["notification_settings"])
        return body


def _spellings(value: str) -> list[str]:
    """A value as texts may have it: plain, in JSON of ours, and in Grafana's, which escapes what HTML would take."""
    quoted = json.dumps(value, ensure_ascii=False)[1:-1]
    escaped = "".join(f"\\u{ord(letter):04x}" if letter in "<>&" else letter for letter in quoted)
    return list(dict.fromkeys((value, quoted, escaped)))


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    times = query.get("relativeTimeRange") or {"from": 0, "to": 0}
    return {"refId": query["refId"], "queryType": query.get("queryType", ""), "relativeTimeRange": times,
            "datasourceUid": query["datasourceUid"], "model": query["model"]}  # fmt: skip


def _route(route: Mapping[str, Any]) -> dict[str, Any]:
    """A route of a file, its matchers in the one form that the API gives back."""
    found = without(route, "matchers")
    matchers = [list(matcher) for matcher in route.get("object_matchers", ())]
    for text in route.get("matchers", ()):
        match = _MATCHER.fullmatch(text)
        if match is None:
            raise ValueError(f"matcher {text!r} is none")
        matchers.append(list(match.groups()))
    if matchers:
        found["object_matchers"] = matchers
    if "routes" in route:
        found["routes"] = [_route(child) for child in route["routes"]]
    return found


def _mapping(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: no YAML: {error}. Fix: make gen") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: no YAML mapping. Fix: make gen")
    return found
