"""The section `generate` of params."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ti_pipeline.concepts.texts import LONGEST
from ti_pipeline.section import Briefs, Guidance, Positive, Section, Solver


class Generate(Section):
    """The candidates that are drawn for each brief."""

    candidates: Positive
    """[pictures] Drawn for each brief (16 in the paper). More give the ranker more to choose from and take longer in proportion."""
    solver: Solver
    """Sampler. `ddim` is the paper's; `dpmsolver++` and `unipc` need fewer steps for the same quality."""
    steps: Positive
    """[steps] Solver steps per picture (50 in the paper). More give finer pictures, with ever less gain, and take longer in proportion."""
    guidance_scale: Guidance
    """[1] Strength of guidance, as the model's own pipeline counts it: up to 1 there is none, with Z-Image at 0 (which its Turbo wants),
    with the paper's latent diffusion at 1. 2 suits the miniature; Stable Diffusion wants 5 to 10. Raised, pictures follow the prompt more
    literally, vary less, and in the end oversaturate."""
    negative_prompt: Annotated[str, Field(max_length=LONGEST)]
    """What to steer away from, in all candidates. A learnt word is written as `<its-token>`. No effect without guidance."""
    width: Positive | None
    """[pixels] Of a candidate; `null` is the model's own square. A multiple of 8 for Stable Diffusion and SDXL, of 32 for SANA, of 16 for
    other transformers; sizes of about the square's area look best."""
    height: Positive | None
    """[pixels] As `width`."""
    batch_size: Positive | Literal["auto"]
    """[pictures] Most that are drawn at a time. `auto` is 48 up to 128 × 128 pixels and 16 beyond. Lower it when memory runs out."""
    briefs: Briefs
    """Prompts by kind of concept, with `{token}` where the learnt word goes. A concept's own briefs replace them."""
