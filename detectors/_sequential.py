"""Words that all sequential tests share."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

Phase: TypeAlias = Literal["quiet", "rising", "alarmed", "recovered", "accepted"]
"""What a test makes of an observation: learnt, held back, an alarm is on, or has just ended one way or the other."""
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NoLess: TypeAlias = Annotated[float, Field(ge=0)]
