"""The configurations of the installation with the addresses of another place in them, and nothing else changed.

So what runs natively, in tests and at `make stack`, is what Compose runs: the same scrape jobs, rules, routes, texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml

from streams.errors import ConfigError

_DISCOVERY: Final = "_sd_configs"


def prometheus_config(
    text: str, *, targets: Mapping[str, Sequence[str]], alertmanager: str | None, rules: Path,
    interval_s: float | None = None,
) -> str:  # fmt: skip
    """`deploy/prometheus/prometheus.yml` for other addresses.

    Args:
        text: the file.
        targets: scrape job → host:port of what it scrapes.
        alertmanager: host:port that takes the alerts; none: nobody is told.
        rules: directory of the rule files.
        interval_s: seconds between scrapes and between evaluations; none: as it is.

    Raises:
        ConfigError: there is a job that `targets` does not know, or the other way round.
    """
    config = yaml.safe_load(text)
    _require_known({job["job_name"] for job in config["scrape_configs"]}, set(targets))
    for job in config["scrape_configs"]:
        _aim(job, targets[job["job_name"]])
    config["rule_files"] = [str(rules / Path(pattern).name) for pattern in config["rule_files"]]
    if alertmanager is None:
        config.pop("alerting", None)
    for manager in config.get("alerting", {}).get("alertmanagers", []):
        _aim(manager, [str(alertmanager)])
    if interval_s is not None:
        every = f"{round(interval_s * 1000)}ms"
        config["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    return yaml.safe_dump(config, sort_keys=False)


def faster_rules(text: str) -> str:
    """A rule file whose groups are evaluated as often as `evaluation_interval` says; `for` and the rest stay."""
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        group.pop("interval", None)
    return yaml.safe_dump(rules, sort_keys=False, allow_unicode=True, width=10_000)


def alertmanager_config(text: str, *, webhook: str, templates: Path) -> str:
    """`deploy/alertmanager/alertmanager.yml` with each receiver told at `webhook`/<its name>; routes stay as they are.

    Args:
        text: the file.
        webhook: base URL that takes all notifications.
        templates: directory of the templates.
    """
    config = yaml.safe_load(text)
    config.pop("global", None)  # addresses and credentials of Slack and mail
    for receiver in config["receivers"]:
        url = f"{webhook}/{quote(receiver['name'], safe='')}"
        tells = [key for key in receiver if key.endswith("_configs")]
        resolved = [bool(one.get("send_resolved", True)) for key in tells for one in receiver.pop(key)]
        if tells:
            receiver["webhook_configs"] = [{"url": url, "send_resolved": any(resolved)}]
    if "templates" in config:
        config["templates"] = [str(templates / Path(pattern).name) for pattern in config["templates"]]
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _aim(config: dict[str, Any], addresses: Sequence[str]) -> None:
    for key in [key for key in config if key.endswith(_DISCOVERY) or key == "static_configs"]:
        del config[key]
    config["static_configs"] = [{"targets": [*addresses]}]


def _require_known(jobs: set[str], known: set[str]) -> None:
    if jobs != known:
        raise ConfigError(f"prometheus.yml scrapes the jobs {sorted(jobs)}, addresses are known of {sorted(known)}."
                          " Fix: name each job in deploy/stack/stack.py, too")  # fmt: skip
