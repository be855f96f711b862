"""What a run will take, said before anything of it runs: nothing is loaded, downloaded or written for it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from ti_pipeline.concepts.concept import Concept
from ti_pipeline.params import Params
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.validate import discovered
from ti_pipeline.workspace import Workspace

ROW = 3  # copies of what is learnt in a checkpoint: itself and AdamW's two moments


def plan(workspace: Workspace, params: Params) -> dict[str, Any]:
    """JSON values: the generator, what is learnt, bytes of weights and activations, concepts in a pack, time and disk of the collection.

    Seconds are None where nothing was measured on this machine, and bytes of activations where they do not follow from shapes.
    Raises ParamsError for a generator that is not on this machine, for what `generator.quantise` cannot do here, and for a size of pictures
    that the generator does not draw.
    """
    from ti_pipeline.generators.generator import choose_device
    from ti_pipeline.generators.quantisation import weight_bytes
    from ti_pipeline.planning.footprint import drawing_bytes, hollow, training_bytes
    from ti_pipeline.planning.outline import outline
    from ti_pipeline.planning.speed import kept_speed
    from ti_pipeline.sampling.sample import DECODED_PIXELS, even_batch
    from ti_pipeline.stages.generate import size_of

    run, settings = Run.over(workspace, params), params.generator
    concepts = [each for each in run.once(discovered).values() if isinstance(each, Concept)]
    device, source = choose_device(settings.device), run.models.source_here
    generator = outline(source, settings, device)
    width, height = size_of(generator, params.generate)
    widths = {name: encoder.table.shape[1] for name, encoder in generator.learning.items()}
    numbers = params.train.longest * sum(widths.values())
    weights = {
        name: {
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "bytes": weight_bytes(network, generator.kept_in(name)),
        }
        for name, network in generator.networks.items()
    }
    samples, pictures = _samples(params, concepts), _pictures(params, concepts)
    speeds = kept_speed("samples", generator, settings.checkpointing), kept_speed("passes", generator, False)
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
        first, second = (training_bytes(shapes, count * params.train.batch_size, params.train.longest) for count in (1, 2))
        decoded = min(batch, max(1, DECODED_PIXELS // (width * height)))
        drawing = drawing_bytes(shapes, shapes.latents_of(width, height), batch, decoded, guided)
    return {
        "generator": about,
        "learnt": {"vectors": params.train.longest, "numbers": numbers, "bytes": 4 * numbers},
        "weights": {**weights, "bytes": sum(each["bytes"] for each in weights.values())},
        "activations": {"concept": first, "further_concept": second - first, "drawing": drawing},
        "pack": _pack(params, len(concepts), device, first, second - first, sum(each["bytes"] for each in weights.values())),
        "collection": {"concepts": len(concepts), "samples": samples, "pictures": pictures},
        "seconds": _seconds(params, samples, pictures, speeds, guided),
        "disk": _disk(workspace, len(concepts), numbers, pictures["generate"], width * height),
    }


def _samples(params: Params, concepts: Sequence[Concept]) -> int:
    train = params.train
    steps = sum(train.steps if concept.steps is None else concept.steps for concept in concepts)
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


def _seconds(
    params: Params, samples: int, pictures: dict[str, int], speeds: tuple[float | None, float | None], guided: bool
) -> dict[str, float | None]:
    trained, drawn = speeds
    passes = {
        "generate": pictures["generate"] * params.generate.steps * (2 if guided else 1),
        "evaluate": pictures["evaluate"] * params.evaluate.steps * (2 if guided else 1),
    }
    return {"train": trained and samples / trained, **{stage: drawn and count / drawn for stage, count in passes.items()}}


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
