"""A generator without its weights: what it is made of, in the type and with the attention that it would be loaded in."""

from __future__ import annotations

from dataclasses import replace

import torch

from ti_pipeline import params
from ti_pipeline.generators import quantisation
from ti_pipeline.generators.latent_model import LatentModel
from ti_pipeline.generators.loading import DTYPES, choose_dtype, precisions, suited
from ti_pipeline.generators.measured import known
from ti_pipeline.generators.source import Source


def outline(source: Source, settings: params.Generator, device: torch.device) -> LatentModel:
    """The generator of a source as it would be on a device; all of its tensors are on `meta`, and no weight is read.

    Raises ParamsError for what cannot be quantised there.
    """
    if settings.quantise:
        quantisation.check_source(source)
        quantisation.check(settings.quantise, device)
    precision = str(_dtype(source, settings, device)).removeprefix("torch.")
    generator = shapes_of(source, settings, precision)
    return suited(replace(generator, device=device), generator.dtype, "contiguous")


def shapes_of(source: Source, settings: params.Generator, precision: str = "float32") -> LatentModel:
    """The generator of a source on the device `meta`, whatever the device that it would be loaded on."""
    generator = source.family.load(source, settings.model_copy(update={"device": "meta", "precision": precision, "compile": False}))
    assert isinstance(generator, LatentModel)
    return generator


def _dtype(source: Source, settings: params.Generator, device: torch.device) -> torch.dtype:
    """On a CPU that multiplies in several types, float32 until it has been measured, which needs the digest of all weights."""
    if settings.precision != "auto" or device.type != "cpu" or settings.quantise:
        return choose_dtype(settings.precision, device)
    choices = precisions(device)
    choice = known(source.digest, choices) if len(choices) > 1 else None
    return DTYPES[choice.precision if choice else choices[0]]
