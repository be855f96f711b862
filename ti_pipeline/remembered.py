"""What was found out on this machine and takes time to find out again. To lose it changes no result.

Kept in the user's cache, a small file each, by everything that it depends on.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from ti_pipeline.files import digest_value, write_json

log = logging.getLogger(__name__)


def remember(kind: str, depends: Any, value: Any) -> None:
    """Keep a JSON value of a kind by what it depends on. Where the cache cannot be written, a line in the log says so."""
    try:
        write_json(place(kind, depends), value)
    except OSError as error:
        log.warning("what was found out cannot be kept (%s): %s", kind, error)


def remembered(kind: str, depends: Any) -> Any:
    """What was kept; None where nothing was, or it cannot be read."""
    try:
        return json.loads(place(kind, depends).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def place(kind: str, depends: Any) -> Path:
    """Where it is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ti-pipeline" / f"{kind}-{digest_value(depends)[:16]}.json"
