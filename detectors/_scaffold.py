"""What `trustwatch new-detector NAME` writes: a rate detector that works, and its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Final

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


def write(name: str, root: Path) -> list[Path]:
    """Write a new detector and its test.

    Args:
        name: lower-case words joined by underscores, as the file is to be called.
        root: of the repository.

    Returns:
        The files written: the module and its test.

    Raises:
        ValueError: the name is no such word, or a file is there already. Nothing is written then.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r}: a detector is named in lower-case words joined by underscores, like early_dropoff")
    words = name.split("_")
    names = {"title": " ".join(words).capitalize(), "cls": "".join(word.capitalize() for word in words)}
    files = {root / "detectors" / f"{name}.py": MODULE, root / "tests" / "detectors" / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise ValueError(f"{path}: is there already")
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.format(**names), encoding="utf-8")
    return list(files)
