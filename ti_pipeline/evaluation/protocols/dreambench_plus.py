"""DreamBench++ (Peng et al. 2024, arXiv 2406.16855, ICLR 2025): 150 pictures with 9 prompts each, one picture a subject."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.protocols.protocol import Protocol, Set, own_prompts


def sets(folder: Path) -> Iterator[Set]:
    """The authors' `data/`: `images/…/NN.jpg`, and under the same name in `captions/` the subject's name and then its prompts.

    The authors put the learnt word where a prompt has the subject's name, letter by letter; one that has it nowhere stays as it is.
    """
    captions = sorted((folder / "captions").rglob("*.txt"))
    if not captions:
        raise ParamsError(f"{folder}: there is no captions/…/NN.txt in it. Give the `data` folder of DreamBench++.")
    for caption in captions:
        place = caption.relative_to(folder / "captions").with_suffix("")
        picture = folder / "images" / place.with_suffix(".jpg")
        lines = [line.strip() for line in caption.read_text(encoding="utf-8").splitlines()]
        subject, said = lines[0], [line for line in lines[1:] if line]
        if picture.is_file():
            kind = "style" if "style" in place.parts[0] else "object"
            name = "_".join((*place.parts, *subject.split()))
            yield Set(name, [picture], subject, kind, [line.replace(subject, "{}") for line in said])


PROTOCOL = Protocol(
    name="dreambench++",
    source="DreamBench++ (arXiv 2406.16855), its metrics: 9 prompts a picture, 4 samples of each",
    samples=4,
    prompts=own_prompts,
    backbones="DINO ViT-S/8 and DINOv2 ViT-S/14; CLIP ViT-B/32 of OpenAI",
    sampling="100 steps, guidance 7.5",
    published=(),
    sets=sets,
    apart=(
        "Concept preservation and prompt following as a large multimodal model sees them are left out: they need that model.",
        "The authors' tables give DINO and CLIP in hundredths; here they are shares of 1.",
    ),
)
