"""`trustwatch grafana sync`: all of ours into a Grafana that is already there, and what that changes.

A Grafana of our own is provisioned from the same files when it starts (`deploy/grafana`); sync is for one that others
run. It touches nothing that is as we want it, so that a second sync changes nothing. What it writes is locked in
Grafana's own pages (provenance `api`), because the next sync would undo what is changed there; `editable` leaves it
open. What others keep (a file on that Grafana, another tool, somebody's notification policy) is never overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dashboards import names
from dashboards._http import path
from dashboards._managed import ContactPoint, Dashboard, Managed, MuteTiming, Policy, RuleGroup, Template
from dashboards.grafana import Change, Grafana
from streams.errors import GrafanaUnavailable

_OURS = re.compile(r"trustwatch([-_]|$)")
"""Beginning of the names of our contact points, templates and mute timings, which live in no folder of ours."""


class Sync:
    """Puts objects into a Grafana.

    Args:
        grafana: where.
        objects: what, each after those that it needs.
        editable: leave rules, contact points, policies and templates open to changes in Grafana's own pages.
        prune: remove what is ours and in none of our files any more.
        take_policy: replace the tree of notification policies even if somebody else made it.
        secrets: write contact points again whose secrets Grafana does not show.
    """

    def __init__(
        self,
        grafana: Grafana,
        objects: Sequence[Managed],
        *,
        editable: bool = False,
        prune: bool = False,
        take_policy: bool = False,
        secrets: bool = False,
    ) -> None:
        self._grafana, self._objects, self._prune = grafana, objects, prune
        for one in objects:
            one.locked = not editable
            if one.hide not in grafana.api.hiders:
                grafana.api.hiders.append(one.hide)
            if isinstance(one, RuleGroup):
                one.prune = prune
            elif isinstance(one, Policy):
                one.take = take_policy
            elif isinstance(one, ContactPoint):
                one.again = secrets

    def plan(self) -> list[Change]:
        """What `run` would do; changes nothing.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer.
        """
        changes = [self._grafana.look(one) for one in self._objects]
        left = [Change(one.kind, one.name, "removed" if self._prune else "left over") for one in self._left_over()]
        return changes + left + self._left_rules()

    def run(self) -> Iterator[Change]:
        """Do it, one object after the other; what others keep is left as it is.

        Raises:
            GrafanaRefused: Grafana says no for good.
            GrafanaUnavailable: it does not answer.
        """
        left_rules = self._left_rules()
        for one in self._objects:
            yield self._grafana.ensure(one)
        for unwanted in self._left_over():
            yield self._grafana.remove(unwanted) if self._prune else Change(unwanted.kind, unwanted.name, "left over")
        yield from left_rules

    def _left_rules(self) -> list[Change]:
        """Rules in groups of ours that none of our files has; they go with the group, if they go."""
        action = "removed" if self._prune else "left over"
        groups = [one for one in self._objects if isinstance(one, RuleGroup)]
        left = [uid for group in groups for uid in group.left_over(group.read(self._grafana.api), foreign=False)]
        return [Change("alert rule", uid, action) for uid in left]  # type: ignore[arg-type]

    def _left_over(self) -> Iterator[Managed]:
        """Objects that are ours by folder or name and in none of our files; what uses others comes before them.

        What others keep there, a file on that Grafana or another tool, is theirs, whatever its name.
        """
        ours = {(one.kind, one.name) for one in self._objects}
        for one in [*self._groups(), *self._named(), *self._dashboards()]:
            if (one.kind, one.name) not in ours:
                found = one.read(self._grafana.api)
                if found is not None and not one.keeper(found):
                    one.locked = all(other.locked for other in self._objects)
                    yield one

    def _groups(self) -> list[Managed]:
        groups: dict[str, list[dict[str, str]]] = {}
        for rule in self._grafana.rules_in(names.FOLDER_UID):
            groups.setdefault(rule["ruleGroup"], []).append(rule)
        where = {"folderUid": names.FOLDER_UID}
        return [RuleGroup(name, {**where, "rules": rules}) for name, rules in sorted(groups.items())]

    def _named(self) -> Iterator[Managed]:
        api = self._grafana.api
        for point in api.get(path("v1", "provisioning", "contact-points")) or ():
            if _OURS.match(point.get("uid") or ""):
                yield ContactPoint(point["uid"], point)
        for template in api.find(path("v1", "provisioning", "templates")) or ():
            if _OURS.match(template["name"]):
                yield Template(template["name"], template)
        for timing in api.get(path("v1", "provisioning", "mute-timings")) or ():
            if _OURS.match(timing["name"]):
                yield MuteTiming(timing["name"], timing)

    def _dashboards(self) -> list[Managed]:
        found = self._grafana.dashboards_in(names.FOLDER_UID)
        return [Dashboard(one["uid"], {}, names.FOLDER_UID) for one in found]


def require_ours(changes: Sequence[Change]) -> None:
    """Refuse to go on where others keep what should be ours.

    Raises:
        GrafanaUnavailable: names the objects.
    """
    kept = [change for change in changes if change.action == "kept by others"]
    if kept:
        listed = ", ".join(f"{change.kind} {change.name}" for change in kept)
        raise GrafanaUnavailable(
            f"others keep {listed} in this Grafana, and it is not as we want it: left alone. Fix: change it where it is"
            " kept (a file on that Grafana), or add our routes to your notification policy, or say --take-policy"
        )
