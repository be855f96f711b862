"""The section `train` of params: what a word is learnt with."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from ti_pipeline.concepts.texts import LONGEST, MOST_VECTORS
from ti_pipeline.errors import ConceptError
from ti_pipeline.inversion.setups import combined, named, sections, setups
from ti_pipeline.inversion.setups.setup import Combination
from ti_pipeline.section import Briefs, Guidance, Positive, Section, Share, Solver

if TYPE_CHECKING:
    from ti_pipeline.concepts.manifest import Manifest

    Setups = BaseModel
else:
    Setups = sections()

Device = Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$", examples=["cpu", "mps", "cuda", "cuda:1"])]
MOST_PREVIEWS = 100  # of a concept
USUAL = {"masks": "auto", "min_snr": None, "noise_offset": 0.0}  # with these a word is what it was before there were any


class Train(Section):
    """How a word is learnt."""

    setup: Annotated[str, Field(examples=list(setups()))]
    """How a word is learnt: one, or several that change different things, joined by `+`. Only the settings of these count.
    `docs/training.md` describes them."""
    setups: Setups
    vectors: Annotated[int, Field(ge=1, le=MOST_VECTORS)]
    """[vectors] Length of a word. More hold more detail and follow other prompts less well. `concept.yaml` can set its own."""
    steps: Annotated[int, Field(ge=0, le=1_000_000)]
    """[steps] Per concept; with 0 a word is where it starts. 200 suit the miniature, 500 to 5,000 Stable Diffusion (5,000 in the paper).
    `concept.yaml` can set its own."""
    batch_size: Positive
    """[samples] Of one concept in a pass (4 in the paper). More concepts (`pack`) fill a GPU to more use than more samples of one."""
    gradient_accumulation: Positive
    """[passes] Forward passes per step, whose gradients are averaged: a larger batch in the same memory, in so many times the time."""
    learning_rate: Annotated[float, Field(gt=0)]
    """[1] Peak rate of AdamW. 0.01 is for the miniature; 0.005 or less for Stable Diffusion (0.005 in the paper, which scales it). Too high
    and the vector drifts off until `max_norm` stops it; too low and the word stays close to its initializer."""
    scale_learning_rate: bool
    """Multiply the rate by `batch_size` × `gradient_accumulation`, as the paper does (there also by the number of GPUs)."""
    schedule: Literal["constant", "linear", "cosine"]
    """Rate after the warm-up: `constant` (the paper's), or falling to zero at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """[steps] The rate rises linearly to its peak over so many steps."""
    weight_decay: Annotated[float, Field(ge=0)]
    """[1] AdamW's pull towards zero, times the rate, in every step (0.01 in the paper's code). Raised, it keeps the vector shorter."""
    max_norm: Annotated[float, Field(gt=1)]
    """[median norms] A vector longer than so many times the median of the vocabulary's words fails its concept, by name."""
    flip: bool
    """Mirror pictures with probability 0.5, as the paper's code does. Wrong for lettering and for things that are not symmetric."""
    fit: Literal["crop", "squash", "pad", "buckets"]
    """How a picture becomes a square: `crop` cuts out the centre, `squash` distorts, `pad` adds `validate.background`. With `buckets` it
    keeps its shape, up to 1 : 4, and is seen at a size of about the square's area."""
    masks: Literal["auto", "none"]
    """`auto` weighs the loss by a picture's mask, `NAME-mask.png` beside it or its own alpha channel: what is black or transparent there
    is not learnt. `none` lets everything count."""
    min_snr: Annotated[float, Field(gt=0)] | None
    """[1] γ of min-SNR weighting (arXiv 2303.09556, which has 5): timesteps of little noise count no more than their ratio of signal to
    noise says, up to γ. `null` counts all alike. Not for generators that follow a flow (Stable Diffusion 3, FLUX)."""
    noise_offset: Annotated[float, Field(ge=0, le=1)]
    """[1] Moves the noise of each sample and channel as a whole by so many standard deviations, for sets that are very dark or very bright
    (0.1 is usual). Not for generators that follow a flow."""
    clip_gradient: Annotated[float, Field(gt=0)] | None
    """[1] Largest norm of a concept's own gradient; longer ones are shortened to it. `null` does not clip."""
    early_stopping: Literal["none", "dvar"]
    """`dvar` (arXiv 2302.04841) ends a concept when its loss on a fixed batch has settled, and keeps the best vector on that batch."""
    evaluate_every: Positive
    """[steps] With `dvar`: steps between looks at the fixed batch. Each look costs a forward pass of `evaluate_samples`."""
    evaluate_samples: Positive
    """[samples] With `dvar`: size of the fixed batch. Raised, its loss is less noisy and costs more."""
    stop_window: Positive
    """[steps] With `dvar`: how far back the loss has to have been steady (310 in its paper). Raised, training goes on longer."""
    stop_ratio: Annotated[float, Field(gt=0, lt=1)]
    """[1] With `dvar`: training ends when the loss varied in the window by less than this share of its variance so far (0.15 there)."""
    pack: Literal["auto"] | Positive
    """[concepts] In one forward pass. `auto` takes as many as memory and speed allow. What a concept learns does not depend on it."""
    devices: tuple[Device, ...]
    """Devices that a flow uses, one process each; they share the collection. Empty means `generator.device` alone."""
    checkpoint_every: Positive
    """[steps] A killed run continues from the last checkpoint, of a few kilobytes per concept. Lowered, less is lost."""
    checkpoint_seconds: Annotated[float, Field(gt=0)]
    """[seconds] Save after this much time as well, for models whose steps are slow."""
    log_every: Positive
    """[steps] Steps between rows of `training.parquet`, which has loss, norm, gradient and rate."""
    keep_steps: tuple[Annotated[int, Field(ge=0)], ...]
    """[steps] The words as they were after each of these, and at the end, stand in `steps.safetensors`; 0 is where a word starts.
    Keeping costs kilobytes and changes no word. A concept of fewer steps passes over those that it does not reach."""
    compromise: Share | None
    """[1] Weight of likeness in the choice of a step among `keep_steps` and the last; the rest is faithfulness to `compromise_prompts`.
    `null` takes the last step, or with early stopping the best on the fixed batch. `docs/training.md` says how it is measured."""
    compromise_prompts: Briefs
    """Prompts that faithfulness is measured on, by kind of concept, with `{token}`. Others than `evaluate.prompts`, or the choice shows
    there as merit."""
    compromise_samples: Positive
    """[pictures] Drawn at each step of `preview_prompt`, for likeness, and of each of `compromise_prompts`. More make the choice surer."""
    preview_every: Annotated[int, Field(ge=0)]
    """[steps] Draw `preview_prompt` with the words as they are after so many steps each, and at the start and end; 0 draws nothing. More
    than 100 pictures a concept are thinned out. Changes no word."""
    preview_prompt: dict[Literal["object", "style"], Annotated[str, Field(max_length=LONGEST)]]
    """What is drawn while a concept trains, by its kind, with `{token}`; always from the same seed."""
    preview_solver: Solver
    """Sampler of pictures that are drawn while training, and to choose a step."""
    preview_steps: Positive
    """[steps] Solver steps per such picture."""
    preview_guidance_scale: Guidance
    """[1] As `generate.guidance_scale`."""

    @field_validator("setup")
    @classmethod
    def _are_there(cls, text: str) -> str:
        return "+".join(named(text))

    @field_validator("keep_steps")
    @classmethod
    def _rise(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= sooner for sooner, later in pairwise(steps)):
            raise ValueError(f"{list(steps)} does not rise. Put the steps in order, each once.")
        return steps

    @model_validator(mode="after")
    def _has_steps_to_choose_among(self) -> Train:
        if self.compromise is not None and not self.keep_steps:
            raise ValueError("train.compromise chooses among train.keep_steps, which is empty. Name some, such as [50, 100, 150]")
        return self

    @model_validator(mode="after")
    def _goes_with_its_setup(self) -> Train:
        """Also notices what its setup needs and `setups` does not say."""
        self.chosen.check(self)
        return self

    @property
    def chosen(self) -> Combination:
        """The setup, or several, with their settings."""
        return combined(self.setup, self.setups)

    @property
    def longest(self) -> int:
        """Rows of a word when it has as many as it will ever have."""
        return self.chosen.longest(self)

    @property
    def kept_at(self) -> list[int]:
        """Steps after which the word is kept as it is then, rising; the last is kept in any case."""
        return sorted({step for step in self.keep_steps if step <= self.steps}.union(self.drawn_at))

    @property
    def drawn_at(self) -> range:
        """Steps after which a preview is drawn; so is one of the last in any case, where there are any."""
        if not self.preview_every:
            return range(0)
        return range(0, self.steps + 1, self.preview_every * ceil(self.steps / self.preview_every / MOST_PREVIEWS))

    def decisive(self) -> dict[str, Any]:
        """What a learnt word depends on, as JSON values: not how the work is spread and saved, nor what other setups would do."""
        without = {"setup", "setups", "pack", "devices", "checkpoint_every", "checkpoint_seconds", "keep_steps"}
        without |= {name for name in type(self).model_fields if name.startswith(("compromise", "preview_"))}
        without |= {name for name, usual in USUAL.items() if getattr(self, name) == usual}
        if self.early_stopping == "none":
            without |= {"evaluate_every", "evaluate_samples", "stop_window", "stop_ratio"}
        return self.model_dump(mode="json", exclude=without) | self.chosen.decisive()

    def for_concept(self, manifest: Manifest) -> Train:
        """With what the concept itself says about its vectors and steps; one that goes on from a file has as many vectors as that, unless
        it says otherwise. What is to be done with masks is left as it is by default for one that has none: its word does not depend on it.

        Raises ConceptError where they make no sense with the setup.
        """
        start = manifest.start
        vectors = manifest.vectors or (start.vectors if start else None)
        own = {"vectors": vectors, "steps": manifest.steps, "masks": None if manifest.masked else "auto"}
        settings = self.model_copy(update={key: value for key, value in own.items() if value is not None})
        try:
            settings.chosen.check(settings)
            if start:
                settings.chosen.check_start()
        except ValueError as error:
            raise ConceptError(manifest.slug, f"its own settings in concept.yaml do not go with train.setup: {error}") from None
        return settings
