"""What is counted beside the stages of a journey; no journey may call a stage so."""

from __future__ import annotations

from typing import Final

LEADS: Final = "leads"
"""Lead journeys: scored, handed over, touched, accepted, won."""
JOURNEY: Final = "journey"
"""All stages of the journey side by side, field by field: `entered_<stage>`."""
CONTACTS: Final = "contacts"
"""What is sent to people, and what they make of it."""
CUSTOMERS: Final = "customers"
"""Orders, cases, surveys, renewals: what customers got."""
TRACKING: Final = "tracking"
"""What events are like, by source."""
CONTROL: Final = "control"
"""What people say, and deploys: no counts."""
BESIDE: Final = (LEADS, JOURNEY, CONTACTS, CUSTOMERS, TRACKING, CONTROL)
