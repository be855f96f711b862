"""DreamBench (Ruiz et al. 2022, arXiv 2208.12242, section 4.1): 30 subjects, 25 prompts for objects and 25 for live subjects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ti_pipeline.concepts.texts import PLACE
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.protocols.protocol import Prompt, Protocol, Published, Set, Subject

PLACES = (
    "in the jungle",
    "in the snow",
    "on the beach",
    "on a cobblestone street",
    "on top of pink fabric",
    "on top of a wooden floor",
    "with a city in the background",
    "with a mountain in the background",
    "with a blue house in the background",
    "on top of a purple rug in a forest",
)
OBJECTS = (
    "with a wheat field in the background",
    "with a tree and autumn leaves in the background",
    "with the Eiffel Tower in the background",
    "floating on top of water",
    "floating in an ocean of milk",
    "on top of green grass with sunflowers around it",
    "on top of a mirror",
    "on top of the sidewalk in a crowded street",
    "on top of a dirt road",
    "on top of a white rug",
)
LIVE = (
    "wearing a red hat",
    "wearing a santa hat",
    "wearing a rainbow scarf",
    "wearing a black top hat and a monocle",
    "in a chef outfit",
    "in a firefighter outfit",
    "in a police outfit",
    "wearing pink glasses",
    "wearing a yellow shirt",
    "in a purple wizard outfit",
)
LOOKS = ("red", "purple", "shiny", "wet", "cube shaped")


def prompts(subject: Subject) -> list[Prompt]:
    """The authors name an identifier before the class noun; a learnt word stands for both. Raises ConceptError for a style."""
    if subject.manifest.kind == "style":
        raise ConceptError(subject.manifest.slug, "it is a style, and DreamBench has prompts for things and live subjects only.")
    texts = [f"a {PLACE} {where}" for where in (*PLACES, *(LIVE if subject.live else OBJECTS))]
    return [Prompt(text, subject.class_words) for text in (*texts, *(f"a {look} {PLACE}" for look in LOOKS))]


def sets(folder: Path) -> Iterator[Set]:
    """The subjects of the authors' repository: `dataset/` with a folder each, and `prompts_and_classes.txt` with their classes."""
    table = next((path for path in (folder, folder / "dataset") if (path / "prompts_and_classes.txt").is_file()), None)
    if table is None:
        raise ParamsError(f"{folder}: there is no prompts_and_classes.txt in it. Give the `dataset` folder of the DreamBooth repository.")
    for line in (table / "prompts_and_classes.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+),([a-z ]+)", line.strip()):
            name, words = match.groups()
            if (table / name).is_dir():
                yield Set(name, sorted((table / name).iterdir()), words)


PROTOCOL = Protocol(
    name="dreambench",
    source="DreamBooth (arXiv 2208.12242): 25 prompts, 4 pictures of each",
    samples=4,
    prompts=prompts,
    backbones="DINO ViT-S/16; CLIP, of which the paper does not name the size",
    sampling="not stated",
    published=(
        Published("real images", "DreamBench", {"dino": 0.774, "clip_i": 0.885}),
        Published("textual inversion", "Stable Diffusion; DreamBench", {"dino": 0.569, "clip_i": 0.780, "clip_t": 0.255}),
        Published("DreamBooth", "Stable Diffusion; DreamBench", {"dino": 0.668, "clip_i": 0.803, "clip_t": 0.305}),
    ),
    sets=sets,
)
