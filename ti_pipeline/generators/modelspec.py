"""What the Stability AI Model Metadata Standard calls the models that a word is for, told by the widths of its vectors."""

from __future__ import annotations

from collections.abc import Mapping

from ti_pipeline.words.word import ONLY

_ARCHITECTURES: tuple[tuple[dict[str, int], str, str], ...] = (
    ({ONLY: 768}, "stable-diffusion-v1", "Stable Diffusion 1.x"),
    ({ONLY: 1024}, "stable-diffusion-v2-768-v", "Stable Diffusion 2.x"),  # its words fit the 512 pixel model as well
    ({"clip_l": 768, "clip_g": 1280}, "stable-diffusion-xl-v1-base", "Stable Diffusion XL"),
    ({"clip_l": 768, "clip_g": 1280, "t5": 4096}, "stable-diffusion-v3.5-large", "Stable Diffusion 3 or 3.5"),
    ({"clip_l": 768, "t5": 4096}, "flux-1-dev", "FLUX.1"),
    ({ONLY: 1280}, "", "the latent diffusion model of the paper"),
)


def architecture(widths: Mapping[str, int]) -> str:
    """`modelspec.architecture` of a word with vectors of these widths, by text encoder; empty where the standard has no name."""
    return next((f"{name}/textual-inversion" for of, name, _ in _ARCHITECTURES if of == dict(widths) and name), "")


def models_of(widths: Mapping[str, int]) -> str:
    """What people call the models whose words are so wide; empty for others."""
    return next((title for of, _, title in _ARCHITECTURES if of == dict(widths)), "")
