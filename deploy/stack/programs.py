"""Where Prometheus and Alertmanager are: on the PATH, or unpacked under `.cache` by make, nothing installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from streams.errors import BrokerUnavailable

ROOT: Final = Path(__file__).resolve().parents[2]
_NAMES: Final = {"prometheus": ("prometheus",), "alertmanager": ("prometheus-alertmanager", "alertmanager")}
"""Program → what it is called; Debian gives Alertmanager a longer name."""
_TARGETS: Final = {"prometheus": "promtool", "alertmanager": "amtool"}

_TEMPLATES: Final = b"/usr/share/prometheus/alertmanager"
"""Where Debian's Alertmanager looks for its own templates; no option says otherwise."""
_LINK: Final = "alertmanager-templates"


def find_program(name: str) -> Path:
    """Path of `prometheus` or `alertmanager`.

    Raises:
        BrokerUnavailable: it is not here; says which make target brings it.
    """
    for called in _NAMES[name]:
        if unpacked := sorted((ROOT / ".cache").glob(f"*/usr/bin/{called}")):
            return unpacked[0]
        if found := shutil.which(called):
            return Path(found)
    raise BrokerUnavailable(f"no {name} in .cache and none on the PATH. Fix: make {_TARGETS[name]}")


def runnable_alertmanager(folder: Path) -> Path:
    """An Alertmanager that runs with `folder` as its working directory.

    The unpacked one of Debian would end at once: it reads its default templates from where the package would have been
    installed. A copy of it, in `folder`, reads them through a link there: the path in it is replaced by one as long.
    """
    program = find_program("alertmanager")
    templates = program.parents[2] / _TEMPLATES.decode().lstrip("/")
    if Path(_TEMPLATES.decode()).is_dir() or not templates.is_dir():
        return program
    relative = _LINK.encode().rjust(len(_TEMPLATES), b"/").replace(b"//", b"./")
    copy = folder / program.name
    copy.write_bytes(re.sub(re.escape(_TEMPLATES) + rb"(?!/)", relative, program.read_bytes()))
    copy.chmod(0o755)
    (folder / _LINK).symlink_to(templates)
    return copy


def missing_programs() -> str | None:
    """None if both can be started, else what is missing and the fix."""
    try:
        for name in _NAMES:
            find_program(name)
    except BrokerUnavailable as error:
        return str(error)
    return None
