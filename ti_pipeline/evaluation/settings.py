"""The sections `evaluate` and `protocol` of params."""

from __future__ import annotations

from ti_pipeline.section import Briefs, Guidance, Positive, Section, Solver


class Evaluate(Section):
    """How well the word was learnt: likeness to the pictures (reconstruction) and obedience to other prompts (editability)."""

    samples: Positive
    """[pictures] Fresh samples of "a photo of {token}" for reconstruction (64 in the paper). More narrow the interval."""
    samples_per_prompt: Positive
    """[pictures] Fresh samples per prompt for editability (64 in the paper)."""
    solver: Solver
    """Sampler of these samples; the paper's is `ddim`. Scores of different solvers are not comparable."""
    steps: Positive
    """[steps] Solver steps per sample (50 in the paper)."""
    guidance_scale: Guidance
    """[1] As `generate.guidance_scale`. The paper's evaluation script uses 5."""
    batch_size: Positive
    """[pictures] Samples drawn at a time. Lower it when memory runs out."""
    bootstrap: Positive
    """[resamples] For the 95 % intervals. More steady the ends of the intervals."""
    keep: Positive
    """[pictures] Samples of each setup and prompt that are kept for the gallery's questionnaire."""
    prompts: Briefs
    """Prompts for editability by kind of concept, with `{token}` and no other learnt word. Change them only to start a new comparison."""


class Protocol(Section):
    """Other papers' ways of measuring (`ti-pipeline protocol`); how samples are drawn is said under `evaluate`."""

    samples: Positive | None
    """[pictures] Of each prompt; `null` is the protocol's own number. Less is faster and no longer what the paper does."""
    prompts: str
    """Folder with a file SLUG.txt for each concept that has prompts of its own, one a line with `{}` for the subject."""
    live: tuple[str, ...]
    """Class words of animals and people, which DreamBench has other prompts for. In lower case."""
