"""CustomConcept101 (Kumari et al. 2022, arXiv 2212.04488): 101 concepts with 20 prompts of their own each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.protocols.protocol import Protocol, Published, Set, own_prompts


def sets(folder: Path) -> Iterator[Set]:
    """The authors' `customconcept101/` with `dataset.json` and `prompts/`, and `benchmark_dataset/` unpacked in it."""
    table = folder / "dataset.json"
    if not table.is_file():
        raise ParamsError(f"{folder}: there is no dataset.json in it. Give the `customconcept101` folder of Custom Diffusion's repository.")
    for row in json.loads(table.read_text(encoding="utf-8")):
        pictures = folder / row["instance_data_dir"]
        if pictures.is_dir():
            said = (folder / row["prompt_filename"]).read_text(encoding="utf-8").splitlines()
            said = [line.strip() for line in said if line.strip()]
            yield Set(pictures.name, sorted(pictures.iterdir()), row["class_prompt"], prompts=said)


_BY = "Stable Diffusion 1.4, 50 DDPM steps; CustomConcept101"
PROTOCOL = Protocol(
    name="custom-concept-101",
    source="Custom Diffusion (arXiv 2212.04488), its evaluate.py: 20 prompts a concept, 50 pictures of each",
    samples=50,
    prompts=own_prompts,
    backbones="CLIP ViT-B/32 of OpenAI; DINO ViT-S/16",
    sampling="50 DDPM steps, guidance 6",
    published=(
        Published("textual inversion", _BY, {"dino": 0.5128, "clip_i": 0.7530, "clip_t": 0.6117}),
        Published("DreamBooth", _BY, {"dino": 0.5541, "clip_i": 0.7521, "clip_t": 0.7514}),
        Published("Custom Diffusion", _BY, {"dino": 0.5335, "clip_i": 0.7456, "clip_t": 0.7583}),
    ),
    sets=sets,
    text_scale=2.5,
)
