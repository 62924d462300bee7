"""How a worker shares its one interpreter between event loop, stages and metrics, and what it does about garbage.

Two things hold up everything at once: the GIL, which CPython hands over only every 5 ms, and a full garbage collection,
which walks every object there is: 0.1 s for an idle worker, seconds with a million open sessions. Nearly all of our
memory is state that lives long and is freed by reference count, so what is alive is frozen now and then: the collector
leaves it alone, and what it still walks is small. Cycles that die after they were frozen wait for a full collection,
made rarely and at a moment of our choice.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from mode import Service

SWITCH_S: Final = 0.001
FREEZE_EVERY_S: Final = 10.0
COLLECT_EVERY_S: Final = 6 * 3600.0
THRESHOLDS: Final = (10_000, 10, 100)
"""Of `gc.set_threshold`: frames make some thousand objects at a time, all of which go together."""
log = logging.getLogger(__name__)
_IMPORTED_AT: Final = time.monotonic()


def settle() -> None:
    """Set the interpreter up for a worker, once, when all is imported and built."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*THRESHOLDS)
    gc.collect()
    gc.freeze()


class Housekeeping(Service):  # type: ignore[misc]
    """Freezes what is alive now and then, and collects garbage for good rarely."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._collected_at = time.monotonic()

    @Service.task  # type: ignore[untyped-decorator]
    async def _keep(self) -> None:
        while not self.should_stop:
            await self.sleep(FREEZE_EVERY_S)
            self.tidy()

    def tidy(self) -> None:
        """Freeze; collect first if it is time."""
        began = time.monotonic()
        if began - self._collected_at >= COLLECT_EVERY_S:
            gc.unfreeze()
            found = gc.collect()
            self._collected_at = time.monotonic()
            log.info("garbage collected: %d objects in %.2f s", found, self._collected_at - began)
        gc.freeze()


def process_age_s() -> float:
    """Seconds since this process was started; where that cannot be told, since this module was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED_AT
