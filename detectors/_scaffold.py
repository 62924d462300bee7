"""What `trustwatch new-detector NAME` writes: a rate detector that works, its test, and the cases of its alert."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Final

import yaml

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")

MODULE: Final = '''"""{title}: one sentence on what goes wrong for the customer."""

from __future__ import annotations

from detectors._base import AlertOn
from detectors._rate import RateDetector


class {cls}(RateDetector):
    """Say what falls or rises, of whom, and what that means.

    Hits and trials are count fields of a bucket (names in `streams.combine`); `worse` is the bad side of their ratio.
    """

    title = "{title}"
    state_version = 1
    alert = AlertOn(severity="ticket")
    hits = ("advanced",)
    trials = ("advanced", "returned", "dropped")
    worse = "down"
    cases = "lost_cases"
'''

TEST: Final = '''"""Where {cls} must stay quiet, and where it must fire; `tests/test_contract.py` runs both."""

from __future__ import annotations

import random

from detectors._base import Bucket

START_S = 1_700_000_000.0
HOUR_S = 3600.0


def stream(hours: int, broken_from: int, seed: int) -> list[Bucket]:
    """40 closed steps an hour; 50 % advance, from hour `broken_from` on 25 %."""
    rng = random.Random(seed)
    buckets = []
    for hour in range(hours):
        advanced = sum(rng.random() < (0.25 if hour >= broken_from else 0.5) for _ in range(40))
        counts = {{"advanced": advanced, "dropped": 40 - advanced}}
        buckets.append(Bucket(START_S + hour * HOUR_S, 10.0, "decide", counts))
    return buckets


def quiet() -> list[Bucket]:
    """Nothing changes."""
    return stream(hours=240, broken_from=240, seed=3)


def firing() -> tuple[list[Bucket], float]:
    """The rate halves; returns the stream and the event time of the change, seconds."""
    return stream(hours=240, broken_from=200, seed=5), START_S + 200 * HOUR_S
'''

RULES: Final = """# The alert of {name}, by promtool test rules: when it fires and when not. Labels and texts are what a person is sent:
# the texts begin with `title` of the detector, and the links are those of deploy/alerts.yaml.
rule_files:
  - ../../deploy/prometheus/rules/recording.yml
  - ../../deploy/prometheus/rules/alerts.yml
evaluation_interval: 15s
group_eval_order: [trustwatch-recording, trustwatch-trust, trustwatch-data, trustwatch-pipeline, trustwatch-heartbeat]

tests:
  - name: an open finding is told half a minute after it was found, and ends a quarter of an hour after it
    interval: 15s
    input_series:
      - series: 'trustwatch_open_finding{{instance="a", {labels}, direction="worse", level="alert", severity="ticket", owner="growth-team", finding="f1"}}'
        values: '_x20 1x40 stale'
      - series: 'trustwatch_open_finding_before{{instance="a", {labels}, direction="worse", finding="f1"}}'
        values: '_x20 0.5x40'
      - series: 'trustwatch_open_finding_after{{instance="a", {labels}, direction="worse", finding="f1"}}'
        values: '_x20 0.25x40'
      - series: 'trustwatch_open_finding_onset_timestamp_seconds{{instance="a", {labels}, direction="worse", finding="f1"}}'
        values: '_x20 1757806740x40'
    alert_rule_test:
      - {{eval_time: 5m15s, alertname: {alert}, exp_alerts: []}}
      - eval_time: 6m
        alertname: {alert}
        exp_alerts:
          - exp_labels: {{area: trust, detector: {name}, kind: {name}, stage: decide, segment: all, severity: ticket, owner: growth-team, finding: f1}}
            exp_annotations:
              summary: {title} at decide got worse
              description: '{title} at decide: 50% before, 25% since 2025-09-13 23:39:00 +0000 UTC. Owner: growth-team. Finding f1.'
              owner: growth-team
              runbook_url: {runbook}#{anchor}
              dashboard_url: {grafana}/d/trust-finding?var-finding=f1
              status_url: {status}/#finding=f1
              silence_url: {alertmanager}/#/silences/new?filter=%7Balertname%3D%22{alert}%22%2Cfinding%3D%22f1%22%7D
      - {{eval_time: 32m, alertname: {alert}, exp_alerts: []}}

  - name: neither what got better, nor what other detectors found
    interval: 15s
    input_series:
      - series: 'trustwatch_open_finding{{instance="a", {labels}, direction="better", level="alert", severity="none", owner="growth-team", finding="f2"}}'
        values: '1x40'
      - series: 'trustwatch_open_finding{{instance="a", detector="another", kind="another", stage="decide", segment="all", direction="worse", level="alert", severity="page", owner="growth-team", finding="f3"}}'
        values: '1x40'
    alert_rule_test:
      - {{eval_time: 9m, alertname: {alert}, exp_alerts: []}}

  - name: no data
    interval: 15s
    input_series: []
    alert_rule_test:
      - {{eval_time: 30m, alertname: {alert}, exp_alerts: []}}
"""  # noqa: E501 (series and labels are one line each)
ALERTS_FILE: Final = Path(__file__).resolve().parents[1] / "deploy" / "alerts.yaml"


def write(name: str, root: Path) -> list[Path]:
    """Write a new detector, its test, and the cases of its alert.

    Args:
        name: lower-case words joined by underscores, as the file is to be called.
        root: of the repository.

    Returns:
        The files written: the module, its test, and the cases of its alert.

    Raises:
        ValueError: the name is no such word, or a file is there already. Nothing is written then.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r}: a detector is named in lower-case words joined by underscores, like early_dropoff")
    tests = root / "tests"
    files = {
        root / "detectors" / f"{name}.py": MODULE,
        tests / "detectors" / f"test_{name}.py": TEST,
        tests / "rules" / f"{name}.yml": RULES,
    }
    for path in files:
        if path.exists():
            raise ValueError(f"{path}: is there already")
    known = _names(name)
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.format(**known), encoding="utf-8")
    return list(files)


def _names(name: str) -> dict[str, str]:
    """What the templates take: the name in its forms, and the links that its alert will have."""
    words = name.split("_")
    cls = "".join(word.capitalize() for word in words)
    links = yaml.safe_load(ALERTS_FILE.read_text(encoding="utf-8"))["links"]
    labels = f'detector="{name}", kind="{name}", stage="decide", segment="all"'
    return {**links, "name": name, "title": " ".join(words).capitalize(), "cls": cls, "alert": cls,
            "anchor": cls.lower(), "labels": labels}  # fmt: skip
