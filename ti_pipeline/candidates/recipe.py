"""The recipe of a candidate: everything that its pixels depend on, as JSON for programs and as text for designers' tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ti_pipeline import __version__
from ti_pipeline.concepts.texts import WORD
from ti_pipeline.files import digest_value

VERSION = 1  # of sampling: raised whenever the same recipe would give another picture
Recipe = dict[str, Any]
_WEIGHTS = re.compile(r"([\\()\[\]])")  # signs that other tools read as weights, and behind a backslash as themselves


@dataclass(frozen=True)
class Elsewhere:
    """What A1111 calls things of a recipe, and tools that read its texts: the sampler, and how its steps are spaced; guidance by its names
    there; the first ten digits of the SHA-256 of the model's file, empty for a model of many files; what is typed for each word, by its
    token in lower case."""

    sampler: str
    schedule: str
    guidance: Mapping[str, float]
    model_hash: str
    names: Mapping[str, str]

    def prompt(self, text: str) -> str:
        """A prompt as it is typed there."""
        return WORD.sub(lambda found: self.names.get(found.group().lower(), found.group()), _WEIGHTS.sub(r"\\\1", text))


def recipe_json(recipe: Recipe) -> str:
    """One canonical spelling."""
    return json.dumps(recipe, sort_keys=True, ensure_ascii=False)


def file_name(recipe: Recipe) -> str:
    """`a-photo-of-a-cat-toy-05-1a2b3c4d.png`: prompt, candidate, digest of the recipe.

    With the digest in it a file is its recipe's or nobody's, and those of an earlier recipe stay until they are swept away.
    """
    words = re.sub(r"[^a-z0-9]+", "-", recipe["prompt"].lower())[:56].strip("-") or "picture"
    return f"{words}-{recipe['candidate']:02d}-{digest_value(recipe)[:8]}.png"


def parameters_text(recipe: Recipe, elsewhere: Elsewhere) -> str:
    """The text that AUTOMATIC1111's web UI writes and that designers' tools read back.

    The line of the negative prompt is there when it is empty too: ComfyUI imports nothing without it. Noise comes from torch's generator
    on the CPU, seeded with the seed (`sampling.seeds`), whatever device draws.
    """
    hashes = {elsewhere.names.get(token.lower(), token): digest[:12] for token, digest in recipe["words"].items() if digest}
    about = {
        "Steps": recipe["steps"],
        "Sampler": elsewhere.sampler,
        "Schedule type": elsewhere.schedule,
        **{name: f"{scale:g}" for name, scale in elsewhere.guidance.items()},
        "Seed": recipe["seed"],
        "Size": f"{recipe['width']}x{recipe['height']}",
        "Model hash": elsewhere.model_hash,
        "Model": _quoted(recipe["generator"]),
        "TI hashes": hashes and json.dumps(", ".join(f"{name}: {digest}" for name, digest in hashes.items())),
        "RNG": "CPU",
        "Version": f"ti-pipeline {__version__}",
    }
    lines = [elsewhere.prompt(recipe["prompt"]), f"Negative prompt: {elsewhere.prompt(recipe['negative_prompt'])}"]
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in about.items() if value not in ("", {}))])


def _quoted(value: str) -> str:
    """Values with signs that the format gives a meaning go into quotes."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value
