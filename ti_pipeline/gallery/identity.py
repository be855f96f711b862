"""Which gallery this is. A browser keeps choices under it, so that they never reach another gallery that the same address shows.

It is in no page: a page is the same bytes wherever it is made again, and `reproduce` holds them against each other. It is a
script beside them, and beside the choices, so that it survives when galleries are deleted and rebuilt.
"""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path

from ti_pipeline.files import write_json, write_text
from ti_pipeline.gallery.render import SITE
from ti_pipeline.workspace import Workspace

_ID = re.compile(r"[0-9a-f]{16}")


def write_identity(workspace: Workspace) -> str:
    """Write the script, and the identity where the workspace has none yet; returns it, 16 hex digits."""
    kept, script = workspace.root / "choices" / "_gallery.json", workspace.galleries / SITE / "identity.js"
    identity = _kept(kept)
    if not identity:
        identity = _carried(script) or secrets.token_hex(8)  # galleries that came without choices stay who they are
        write_json(kept, {"id": identity})
    text = f'"use strict";\ndocument.documentElement.dataset.gallery = "{identity}";\n'
    if _text(script) != text:
        write_text(script, text)
    return identity


def _kept(path: Path) -> str:
    try:
        found = json.loads(_text(path))["id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def _carried(path: Path) -> str:
    found = _ID.search(_text(path))
    return found.group() if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
