"""The recipe of a candidate: everything that its pixels depend on, as JSON for programs and as text for designers' tools."""

from __future__ import annotations

import json
import re
from typing import Any

from ti_pipeline.files import digest_value
from ti_pipeline.generators.solvers import NAMES

VERSION = 1  # of sampling: raised whenever the same recipe would give another picture
Recipe = dict[str, Any]


def recipe_json(recipe: Recipe) -> str:
    """One canonical spelling."""
    return json.dumps(recipe, sort_keys=True, ensure_ascii=False)


def file_name(recipe: Recipe) -> str:
    """`a-photo-of-a-cat-toy-05-1a2b3c4d.png`: prompt, candidate, digest of the recipe.

    With the digest in it a file is its recipe's or nobody's, and those of an earlier recipe stay until they are swept away.
    """
    words = re.sub(r"[^a-z0-9]+", "-", recipe["prompt"].lower())[:56].strip("-") or "picture"
    return f"{words}-{recipe['candidate']:02d}-{digest_value(recipe)[:8]}.png"


def parameters_text(recipe: Recipe) -> str:
    """The text that AUTOMATIC1111's web UI writes and that designers' tools read back."""
    lines = [recipe["prompt"]]
    if recipe["negative_prompt"]:
        lines.append(f"Negative prompt: {recipe['negative_prompt']}")
    hashes = ", ".join(f"{token.strip('<>')}: {digest[:12]}" for token, digest in recipe["words"].items())
    lines.append(
        ", ".join(
            (
                f"Steps: {recipe['steps']}",
                f"Sampler: {NAMES[recipe['solver']]}",
                f"CFG scale: {recipe['guidance_scale']:g}",
                f"Seed: {recipe['seed']}",
                f"Size: {recipe['width']}x{recipe['height']}",
                f"Model hash: {recipe['generator_digest'][:10]}",
                f"Model: {_quoted(recipe['generator'])}",
                f'TI hashes: "{hashes}"',
            )
        )
    )
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """Values with signs that the format gives a meaning go into quotes."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value
