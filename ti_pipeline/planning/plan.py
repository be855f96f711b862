"""What a run will take, said before anything of it runs: nothing is loaded, downloaded or written for it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ti_pipeline.concepts.concept import Concept
from ti_pipeline.params import Params
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.validate import discovered
from ti_pipeline.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

ROW = 3  # copies of what is learnt in a checkpoint: itself and AdamW's two moments


def plan(workspace: Workspace, params: Params) -> dict[str, Any]:
    """JSON values: the generator, what is learnt, bytes of weights and activations, concepts in a pack, time and disk of the collection.

    Seconds are None where nothing was measured on this machine, and bytes of activations where they do not follow from shapes.
    Raises ParamsError for a generator that is not on this machine, for what `generator.quantise` cannot do here, for a way of learning that
    is nothing for the generator, and for a size of pictures that it does not draw.
    """
    from ti_pipeline.generators.checkpoint import GGUF, kept_bytes
    from ti_pipeline.generators.generator import choose_device
    from ti_pipeline.generators.quantisation import weight_bytes
    from ti_pipeline.inversion.objective import check_learning
    from ti_pipeline.planning.footprint import drawing_bytes, hollow, training_bytes
    from ti_pipeline.planning.outline import outline
    from ti_pipeline.planning.speed import kept_speed
    from ti_pipeline.sampling.sample import DECODED_PIXELS, even_batch
    from ti_pipeline.stages.sizes import size_of

    run, settings = Run.over(workspace, params), params.generator
    concepts = [each for each in run.once(discovered).values() if isinstance(each, Concept)]
    device, source = choose_device(settings.device), run.models.source_here
    check_learning(params.train, source)
    generator = outline(source, settings, device)
    width, height = size_of(generator, params.generate)
    widths = {name: encoder.table.shape[1] for name, encoder in generator.learning.items()}
    rows = params.train.chosen.rows(generator, params.train)
    numbers = rows * sum(widths.values())

    def bytes_of(name: str, network: nn.Module) -> int:
        if source.path.suffix == GGUF and name == generator.DENOISER[0]:
            return kept_bytes(source.path, generator.dtype.itemsize)
        return weight_bytes(network, generator.kept_in(name))

    weights = {
        name: {
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "bytes": bytes_of(name, network),
        }
        for name, network in generator.networks.items()
    }
    samples, pictures = _samples(params, concepts), _pictures(params, concepts)
    shape = generator.latents_of(width, height)
    speeds = {
        "train": kept_speed("samples", generator, settings.checkpointing),
        "generate": kept_speed("passes", generator, False, shape),
        "evaluate": kept_speed("passes", generator, False),
    }
    work = {"train": samples} | {
        stage: pictures[stage] * each.steps * (2 if generator.contrasts(each.guidance_scale) else 1)
        for stage, each in (("generate", params.generate), ("evaluate", params.evaluate))
    }
    batch = even_batch(pictures["generate"], params.generate.batch_size, max(width, height))
    guided = generator.contrasts(params.generate.guidance_scale)
    about = {
        "name": source.name,
        "family": source.family.name,
        "pixels": generator.resolution,
        "precision": str(generator.dtype).removeprefix("torch."),
        "quantised": settings.quantise,
        "device": generator.arithmetic["device"],
        "text_encoders": widths,
    }
    with hollow(generator, params.train.longest) as shapes:
        first, second = (training_bytes(shapes, count * params.train.batch_size, params.train) for count in (1, 2))
        decoded = min(batch, max(1, DECODED_PIXELS // (width * height)))
        drawing = drawing_bytes(shapes, shape, batch, decoded, guided)
    return {
        "generator": about,
        "learnt": {"vectors": rows, "numbers": numbers, "bytes": 4 * numbers},
        "weights": {**weights, "bytes": sum(each["bytes"] for each in weights.values())},
        "activations": {"concept": first, "further_concept": second - first, "drawing": drawing},
        "pack": _pack(params, len(concepts), device, first, second - first, sum(each["bytes"] for each in weights.values())),
        "collection": {"concepts": len(concepts), "samples": samples, "pictures": pictures},
        "seconds": {stage: speed and work[stage] / speed for stage, speed in speeds.items()},
        "disk": _disk(workspace, len(concepts), numbers, pictures["generate"], width * height),
    }


def _samples(params: Params, concepts: Sequence[Concept]) -> int:
    """Of all concepts whose words are learnt here."""
    train = params.train
    steps = sum(train.steps if concept.steps is None else concept.steps for concept in concepts if not concept.word)
    return steps * train.batch_size * train.gradient_accumulation


def _pictures(params: Params, concepts: Sequence[Concept]) -> dict[str, int]:
    briefs = sum(len(concept.briefs or params.generate.briefs.get(concept.kind, ())) for concept in concepts)
    prompts = sum(len(params.evaluate.prompts.get(concept.kind, ())) for concept in concepts)
    evaluated = len(concepts) * params.evaluate.samples + prompts * params.evaluate.samples_per_prompt
    return {"generate": briefs * params.generate.candidates, "evaluate": evaluated}


def _pack(params: Params, concepts: int, device: Any, first: int, each: int, weights: int) -> dict[str, Any]:
    """Concepts in a pass, and what limits them."""
    from ti_pipeline.inversion.capacity import fitting, free_bytes, worthwhile

    if params.train.pack != "auto":
        return {"concepts": min(params.train.pack, concepts), "limited_by": "train.pack"}
    most, free = worthwhile(device, params.train.batch_size, concepts), free_bytes(device)
    found = most if free is None else fitting(most, first, each, free - weights)
    limit = "memory" if found < most else "the collection" if most == concepts else "the device's speed"
    return {"concepts": found, "limited_by": limit}


def _disk(workspace: Workspace, concepts: int, numbers: int, pictures: int, pixels: int) -> dict[str, int]:
    """Bytes: of pictures as many as earlier ones of the workspace have, or without any as many as their pixels, which is the most."""
    sizes = [file.stat().st_size for file in workspace.candidates("*").parent.glob("*/*.png")]
    each = sum(sizes) // len(sizes) if sizes else 3 * pixels
    return {
        "words": 4 * numbers * concepts,
        "checkpoint": ROW * 4 * numbers * concepts,
        "candidates": pictures * each,
        "free": shutil.disk_usage(workspace.root).free,
    }
