"""Texts that a page must survive: each as a name, a caption, a brief, an owner, a reason, a solver."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.gallery.small_gallery import add_candidates, add_evaluation, make_workspace
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.workspace import Workspace

MARK = "window.pwned=1"
SCRIPT = f"</h2></bdi></title><script>{MARK}</script><img src=x onerror={MARK}>{{{{ 7*7 }}}}"
ATTRIBUTE = f'" onload="{MARK}" autofocus onfocus=\'{MARK}\' x="'
BIDI = "a \u202e\u2066 reversed \u202b photo"
LONG = "W" * 3000
TEXTS = {
    "script": SCRIPT,
    "attribute": ATTRIBUTE,
    "bidi": BIDI,
    "long": LONG,
    "link": f"javascript:{MARK}",
    "control": "a\x00b\x1b[2Jc\x7f",
}


def hostile_workspace(root: Path, text: str) -> tuple[Workspace, Manifest]:
    """As `whole`, with `text` in every place that comes from outside; brief and prompt keep the word."""
    plain = " ".join(text.replace("\x00", "").replace("\x1b", "").replace("\x7f", "").split())
    name = f"{plain.replace('/', '_')[:60]}.png"
    settings = {
        "token": "<toy>",
        "captions": {name: plain.replace("{{ 7*7 }}", "")},
        "owner": plain,
        "license": plain,
        "initializer": plain,
    }
    workspace = make_workspace(root, names=(name, "b.png", "c.png"), settings=yaml.safe_dump(settings, allow_unicode=True))
    add_candidates(
        workspace, prompts=(f"a <toy> {text}", f"{text} <toy>"), prompt=f"{text} <toy>", negative_prompt=text, solver=text, reason=text
    )
    add_evaluation(workspace)
    return workspace, read_manifest(workspace, "toy")
