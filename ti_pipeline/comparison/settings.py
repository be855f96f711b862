"""The section `compare` of params."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ti_pipeline.concepts.texts import one_line
from ti_pipeline.section import Guidance, Positive, Section, Solver

Name = Annotated[str, Field(max_length=40), AfterValidator(one_line)]
Table = dict[str, Any]


def rising(steps: tuple[int, ...]) -> tuple[int, ...]:
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"{list(steps)} does not rise. Put the steps in order, each once")
    return steps


def distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{list(seeds)} has a seed twice, which tells nothing more. Take it out")
    return seeds


class Own(Section):
    """What an arm may say beside the keys of `train`; each may be left out."""

    pictures: Positive | None = None
    """[pictures] Learn from the first so many of the set only (figure 12)."""
    guidance_scale: Guidance | None = None
    """[1] Draw with this guidance."""
    caption: Literal["short", "long"] | None = None
    """Learn nothing: what `human_captions` of concept.yaml says stands in the word's place."""


class Sweep(Section):
    """An arm for each value of one key; `base` are the other keys of all of them."""

    key: str
    values: Annotated[list[int | float | str | bool], Field(min_length=1, max_length=50)]
    base: Table = {}


class Compare(Section):
    """What is compared with what `train` says, over the same concepts and seeds (docs/comparison.md). Where there are neither `setups` nor
    `sweeps`, nothing is."""

    baseline: Name
    """What the report calls the setup that all others are held against: `train` as it stands."""
    setups: Annotated[dict[Name, Table], Field(max_length=100, json_schema_extra={"examples": ["name: {key: value}"]})]
    """Setups by the name that the report shows: keys of `train` that differ from it, such as `{vectors: 2}` or `{setups.NAME.weight: 0.1}`,
    and beside them `pictures`, `guidance_scale` or `caption: short` or `long`."""
    sweeps: Annotated[dict[Name, Sweep], Field(max_length=20, json_schema_extra={"examples": ["name: {key, values, base}"]})]
    """Further setups, one for each of the `values` of a `key`, drawn as a curve; `base` are keys that all of them share."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1, max_length=100), AfterValidator(distinct)]
    """[1] Every setup learns each concept once with each of them. More narrow the intervals and take longer in proportion."""
    pictures: Positive | None
    """[pictures] The first so many of a set are the concept: what is learnt from, and what likeness is measured to; `null` takes all. An
    arm's own `pictures` says how many of these it learns from."""
    steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=20), AfterValidator(rising)]
    """[steps] After each of these a word is measured as well as at its end: the curve. 0 is where it starts; empty means no curve."""
    samples: Positive
    """[pictures] Of "a photo of {token}" for each word (64 in the paper)."""
    samples_per_prompt: Positive
    """[pictures] For each of `evaluate.prompts` and word (64 in the paper)."""
    step_samples: Positive
    """[pictures] Of "a photo of {token}" for each point of the curve before the last; at most `samples`."""
    step_samples_per_prompt: Annotated[int, Field(ge=0)]
    """[pictures] For each prompt and point of the curve; 0 leaves editability out of it. At most `samples_per_prompt`."""
    solver: Solver
    """Sampler of these pictures. `dpmsolver++` needs few steps."""
    solver_steps: Positive
    """[steps] Solver steps for each picture (50 of DDIM in the paper)."""
    guidance_scale: Guidance
    """[1] As `generate.guidance_scale`."""
    batch_size: Positive
    """[pictures] Drawn at a time. Every batch is that large, so numbers do not depend on other pictures. Lower it when memory runs out."""
    bootstrap: Positive
    """[resamples] Of concepts, and of seeds within them, for the 95 % intervals."""
