"""What other tools' own readers make of a recipe's text: their rules written anew, from what their sources do."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Read:
    """What a tool has in its fields then; `more` is what else it has read, by its name there."""

    prompt: str
    negative: str
    more: dict[str, str]

    @property
    def drawing(self) -> tuple[int, str, float, int, tuple[int, int]]:
        """Steps, sampler, guidance scale, seed, size."""
        width, height = self.more["Size"].split("x")
        scale, seed = float(self.more["CFG scale"]), int(self.more["Seed"])
        return int(self.more["Steps"]), self.more["Sampler"], scale, seed, (int(width), int(height))


def a1111(text: str) -> Read:
    """The last line has the fields if there are three, those before are the prompt, and the negative one from its line on. What is not
    said has A1111's own defaults."""
    *lines, last = text.strip().split("\n")
    fields = _fields(last)
    assert len(fields) >= 3, "taken for a part of the prompt"
    start = next((i for i, line in enumerate(lines) if line.strip().startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[start:]).strip().removeprefix("Negative prompt:").strip()
    assert all(fields.values()), "a field without a value is an error there"
    return Read("\n".join(lines[:start]), negative, {"RNG": "GPU", "Schedule type": "Automatic", **fields})


def infinite_image_browsing(text: str) -> tuple[list[str], dict[str, str]]:
    """As A1111; the prompt becomes tags without brackets, in which - and _ are spaces, up to a colon."""
    read = a1111(f"{text}, Source Identifier: Stable Diffusion web UI")
    plain = re.sub(r"[\\/\[\](){}]+", "", read.prompt.replace("-", " ").replace("_", " "))
    return [tag.strip().partition(":")[0].lower() for tag in plain.split(",") if tag.strip()], read.more


def prompt_reader(text: str) -> Read:
    """By the first places of the two words at the beginnings of lines; a field ends at the next comma."""
    steps, negative = text.find("\nSteps:"), text.find("\nNegative prompt:")
    assert steps > negative >= 0
    fields = dict(part.strip().split(": ", 1) for part in text[steps:].strip().split(",") if ": " in part)
    return Read(text[:negative].strip(), text[negative + len("\nNegative prompt:") : steps].strip(), fields)


def comfyui(text: str, embeddings: Collection[str]) -> Read | None:
    """Nothing without the two lines; a whole word that is the name of a file in models/embeddings is loaded; sizes are rounded up."""
    steps = text.rfind("\nSteps:")
    negative = text.rfind("\nNegative prompt:", 0, steps)
    if steps < 0 or negative < 0:
        return None
    fields = {name: value.partition(":")[0] for name, value in _fields(text[steps:].split("\n")[1], unquoted=False).items()}
    width, height = (-(-int(edge) // 64) * 64 for edge in fields["Size"].split("x"))
    fields |= {"Size": f"{width}x{height}", "Sampler": fields["Sampler"].lower().replace("++", "pp").replace(" ", "_")}
    names = "|".join(rf"\b{re.escape(name)}\b" for name in embeddings)

    def loading(prompt: str) -> str:
        return re.sub(f"({names})", r"embedding:\1", prompt, flags=re.IGNORECASE) if names else prompt

    prompt, unwanted = text[:negative].strip(), text[negative + len("\nNegative prompt:") : steps].strip()
    return Read(loading(prompt), loading(unwanted), fields)


def _fields(line: str, *, unquoted: bool = True) -> dict[str, str]:
    """`name: value` between commas that are in no quotes."""
    parts = re.findall(r'(?:"(?:\\.|[^"\\])*"|[^,"])+', line)
    fields = {name.strip(): value.strip() for name, colon, value in (part.partition(":") for part in parts) if colon}
    return {name: json.loads(value) if unquoted and value.startswith('"') else value for name, value in fields.items()}
