"""`python -m deploy.k8s`: writes prometheusrule.yaml, the rule files of Prometheus as the operator takes them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import yaml

FOLDER: Final = Path(__file__).resolve().parent
RULES: Final = FOLDER.parent / "prometheus" / "rules"
TARGET: Final = FOLDER / "prometheusrule.yaml"
_HEAD: Final = "# Generated from deploy/prometheus/rules by `make gen`; do not edit.\n"


def prometheus_rule(folder: Path = RULES) -> str:
    """The PrometheusRule with all groups of the rule files in `folder`, as YAML."""
    groups = [group for path in sorted(folder.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    labels = {"app.kubernetes.io/name": "trustwatch", "app.kubernetes.io/part-of": "trustwatch"}
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "trustwatch", "labels": labels},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=10_000)


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.k8s", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would change")
    if not parser.parse_args().check:
        TARGET.write_text(prometheus_rule())
        return 0
    if TARGET.is_file() and TARGET.read_text() == prometheus_rule():
        return 0
    print("FAIL deploy/k8s/prometheusrule.yaml is stale. Fix: make gen", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
