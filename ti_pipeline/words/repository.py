"""A word as a repository in sd-concepts-library's layout, which diffusers and InvokeAI load by its name, with a card for people."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT
from ti_pipeline.words.sharing import shared
from ti_pipeline.words.tools import TOOLS
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from ti_pipeline.words.export import Export

TOKEN_FILE = "token_identifier.txt"
PREVIEW = "preview.png"
OWN_FOLDERS = ("pictures/", "tools/")  # in which everything is ours
_MEASURES = ("reconstruction", "editability")
_SETUPS = {LEARNT: "this word", PROMPT: "the plain word", PICTURES: "the real pictures"}
# Licences that the hub knows, by its names for them: https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = frozenset(
    (
        "afl-3.0 agpl-3.0 apache-2.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
        "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
        "cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 creativeml-openrail-m gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 "
        "openrail openrail++ unlicense wtfpl"
    ).split()
)


def repository(export: Export) -> dict[str, bytes]:
    """Its files by their names, the weights last. Beside those of the layout, `tools/` has what other tools read."""
    import torch

    rows = export.rows[ONLY][0] if len(export) == 1 else export.rows[ONLY]  # a single vector is flat there
    torch.save({export.token: torch.from_numpy(rows.copy())}, packed := io.BytesIO())
    others = [tool for tool in export.tools if tool.name != "diffusers" and not tool.repository]
    lying, places = shared({tool.name: {export.file: export.weights(tool)} for tool in others})
    return {
        "README.md": _card(export, {name: f"tools/{place[export.file]}" for name, place in places.items()}).encode(),
        TOKEN_FILE: export.token.encode(),
        "type_of_concept.txt": export.kind.encode(),
        **{name: content for name, (_, content) in _pictures(export).items()},
        **{f"concept_images/{number}.webp": picture for number, picture in enumerate(export.pictures)},
        **{f"tools/{place}": content for place, content in lying.items()},
        "learned_embeds.safetensors": export.written({export.token: rows}),
        "learned_embeds.bin": packed.getvalue(),
    }


def _pictures(export: Export) -> dict[str, tuple[str, bytes]]:
    """Prompts and what was drawn of them, by the names of the files."""
    return {(f"pictures/{number}.png" if number else PREVIEW): drawn for number, drawn in enumerate(export.drawn)}


def _card(export: Export, places: Mapping[str, str]) -> str:
    parts = ["\n".join(["---", *_header(export), "---"]), f"# {export.name}", f"{_code(export.token)} is {export.told}."]
    parts += ["  \n".join(f"{key}: {value}" for key, value in export.rights.items())] * bool(export.rights)
    parts += [f"![]({name})\n\n{_code(prompt)}" for name, (prompt, _) in _pictures(export).items()]
    line = f'pipe.load_textual_inversion("{export.address}")'
    parts += ["## How to use it", f"In diffusers, with {_code(export.token)} in the prompt:", f"```python\n{line}\n```"]
    parts += ["\n".join(_for_tool(export, name, place) for name, place in places.items())] * bool(places)
    parts += _scores(export.report)
    return "\n\n".join(parts) + "\n"


def _header(export: Export) -> list[str]:
    model, license = export.about.get("generator", ""), _dashed(export.license)
    known = [f"license: {license}"] if license in _LICENSES else ["license: other", f"license_name: {license}"] if license else []
    base = [f"base_model: {json.dumps(model)}"] if "/" in model else []
    return ["library_name: diffusers", "pipeline_tag: text-to-image", *known, *base, "tags:", "- textual_inversion", f"- {export.kind}"]


def _for_tool(export: Export, name: str, place: str) -> str:
    tool = TOOLS[name]
    return f"- {tool.title}: [{export.file}]({place}); write {_code(export.typed(tool))} {tool.note}"


def _scores(report: Mapping[str, Any]) -> list[str]:
    if not report:
        return []
    rows = ["| | Likeness to the real pictures | Follows other prompts |", "|---|---|---|"]
    rows += [f"| {told} | {' | '.join(_interval(report['setups'][setup][of]) for of in _MEASURES)} |" for setup, told in _SETUPS.items()]
    by = report["measured_by"]
    note = f"Mean cosines with 95 % intervals, likeness by {by['reconstruction']['judge']}, prompts by {by['editability']['clip']}."
    return ["## How good it is", "\n".join(rows), note]


def _interval(measured: Mapping[str, float] | None) -> str:
    return f"{measured['value']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})" if measured else "–"


def _code(text: str) -> str:
    """As it is, whatever marks it has."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}"


def _dashed(text: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-")
