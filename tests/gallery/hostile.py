"""Texts that a page must survive: each as a name, a caption, a brief, an owner, a reason, a solver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.gallery.small_gallery import add_candidates, add_evaluation, make_workspace, small_params
from tests.stages.one import validate_one
from ti_pipeline.concepts.concept import load_concept
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
MANY = [
    *TEXTS.values(),
    "",
    " ",
    "\u200b",
    "\u202e",
    "a" * 200,
    "ä" * 300,
    "漢字" * 150,
    "🦆" * 120,
    "e" + "\u0301" * 200,
    "\ufeff",
    "\ud83d",
    f"</script><script>{MARK}</script>",
    f"--><script>{MARK}</script><!--",
    f"]]><script>{MARK}</script>",
    f"<svg onload={MARK}>",
    f"<img src=x onerror={MARK}>",
    f"<iframe srcdoc='<script>{MARK}</script>'>",
    f"<a href='javascript:{MARK}'>x</a>",
    f"<body onload={MARK}>",
    f"<style>@import 'x';</style><script>{MARK}</script>",
    f"<math><mtext></table><img src onerror={MARK}>",
    f"<template><script>{MARK}</script>",
    f"' onmouseover='{MARK}",
    f'" onfocus="{MARK}" autofocus="',
    f"`{MARK}`",
    f"${{{MARK}}}",
    f"{{{{{MARK}}}}}",
    f"{{% set x = 1 %}}{MARK}",
    f"\\u003cscript\\u003e{MARK}",
    f"&lt;script&gt;{MARK}&lt;/script&gt;",
    f"&#60;script&#62;{MARK}",
    "\u2028\u2029",
    f"\u2028{MARK}",
    f"data:text/html,<script>{MARK}</script>",
    "../../../etc/passwd",
    "//evil.example/x.js",
    "https://evil.example/",
    "file:///etc/passwd",
    "con.png",
    "a/b\\c",
    "<base href='//evil.example/'>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    f"<object data='javascript:{MARK}'>",
    f"<form action='javascript:{MARK}'><button>x</button>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 " * 30,
    "\u2066" * 40,
    "a\tb\nc\rd",
    "%3Cscript%3E",
    f"\x08{MARK}",
    "null",
    "__proto__",
    "constructor",
]


def hostile_workspace(root: Path, text: str) -> tuple[Workspace, Manifest]:
    """As `whole`, with `text` in every place that comes from outside, also where `concept.yaml` refuses it by now: manifests are older
    than rules. Brief and prompt keep the word."""
    plain = " ".join(text.replace("\x00", "").replace("\x1b", "").replace("\x7f", "").split())
    name = f"{plain.replace('/', '_')[:60]}.png"
    workspace = make_workspace(root, names=(name, "b.png", "c.png"))
    concept = load_concept(workspace.concepts / "toy")
    concept = replace(concept, captions={name: plain}, owner=plain, license=plain, initializer=plain)
    assert validate_one(workspace, concept, small_params()).ok
    add_candidates(
        workspace, prompts=(f"a <toy> {text}", f"{text} <toy>"), prompt=f"{text} <toy>", negative_prompt=text, solver=text, reason=text
    )
    add_evaluation(workspace)
    return workspace, read_manifest(workspace, "toy")
