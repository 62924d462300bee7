"""Names that dashboards, alerts, runbook and notifications share; said once, so that links between them stay right."""

from __future__ import annotations

import zlib
from typing import Final

FOLDER_UID: Final = "trustwatch"
FOLDER_TITLE: Final = "trustwatch"
PROMETHEUS_UID: Final = "trustwatch-prometheus"
"""uid of the data source, as it is provisioned; dashboards take it through the variable `datasource`."""

OVERVIEW: Final = "trust-overview"
HESITATION: Final = "trust-hesitation-dropoff"
LEADS: Final = "trust-leads"
FINDING: Final = "trust-finding"
GUARDRAILS: Final = "trust-guardrails"
DATA: Final = "trust-data"
PIPELINE: Final = "trust-pipeline"
DASHBOARDS: Final[dict[str, str]] = {
    OVERVIEW: "Trust overview",
    HESITATION: "Hesitation and drop-off",
    LEADS: "Leads",
    FINDING: "Finding",
    GUARDRAILS: "Guardrails",
    DATA: "Data trust",
    PIPELINE: "Pipeline",
}
"""uid → title; the uid is also the name of the JSON file."""

RUNBOOK: Final = "deploy/runbook.md"


def alert_name(detector: str) -> str:
    """Name of a detector's alert.

    >>> alert_name("early_dropoff")
    'EarlyDropoff'
    """
    return "".join(part.capitalize() for part in detector.split("_"))


def panel_id(detector: str) -> int:
    """Id of a detector's generated panel on the overview: it stays when other detectors come or go.

    >>> panel_id("early_dropoff") == panel_id("early_dropoff") != panel_id("hesitation")
    True
    """
    return 1000 + zlib.crc32(detector.encode()) % 100_000


def runbook_anchor(alert: str) -> str:
    """Anchor of an alert's section in the runbook.

    >>> runbook_anchor("EarlyDropoff")
    'earlydropoff'
    """
    return alert.lower()
