"""`params.yaml`, typed. Every key has its default in the file and nowhere else."""

from __future__ import annotations

import re
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ti_pipeline.comparison.arms import arms
from ti_pipeline.comparison.settings import Compare
from ti_pipeline.concepts.texts import LONGEST, MOST_VECTORS, WORD, check_brief, cut
from ti_pipeline.errors import ParamsError
from ti_pipeline.inversion.setups import combined, named, sections, setups
from ti_pipeline.inversion.setups.setup import Combination
from ti_pipeline.overrides import apply_override, lay_over, read_tree
from ti_pipeline.section import Guidance, Positive, Section, Solver
from ti_pipeline.versioning.settings import Inbox, Publish, Storage, Versions

_MISSING = "is missing. Copy it from the params.yaml of the repository"
Share = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$", examples=["cpu", "mps", "cuda", "cuda:1"])]
Briefs = dict[Literal["object", "style"], list[Annotated[str, Field(max_length=LONGEST)]]]
Channel = Annotated[int, Field(ge=0, le=255)]
MOST_PREVIEWS = 100  # of a concept
USUAL = {"masks": "auto", "min_snr": None, "noise_offset": 0.0}  # of train: with these a word is what it was before there were any


if TYPE_CHECKING:
    Setups = BaseModel
else:
    Setups = sections()


class Concepts(Section):
    """Where the image sets are."""

    folder: str
    """Folder with one folder of pictures per concept. A relative path starts in the workspace."""


class Generator(Section):
    """The frozen text-to-image model that learns the words and draws the candidates."""

    model: str
    """`miniature` (embedded, for trying things out), a folder in diffusers' layout, a `.safetensors`, `.ckpt` or `.gguf` file, or a hub
    name such as `stable-diffusion-v1-5/stable-diffusion-v1-5`: Stable Diffusion 1.x and 2.x, SDXL, Stable Diffusion 3, 3.5, FLUX.1 and
    the paper's latent diffusion; as folders also SANA, Z-Image and Qwen-Image. Another model means new words, candidates and all else."""
    parts: dict[str, str | None]
    """What a single file lacks, by diffusers' names for the parts of its model (`vae`, `text_encoder_2`, `tokenizer_2`, …): files with
    weights, or folders in diffusers' layout. `null` leaves out a part that the model can do without, as Stable Diffusion 3 its T5."""
    revision: str | None
    """Branch, tag or commit of a hub name; `null` is its main branch. Set a commit to get the same weights on every machine."""
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", examples=["auto", "cpu", "mps", "cuda", "cuda:1"])
    """Where the models run. `auto` takes the first GPU, or else the CPU. Results stay up to date when it changes."""
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    """Number format of the frozen weights; what is learnt is always float32. `auto` is bfloat16 on a GPU that multiplies in it, and on a
    CPU whatever measures fastest. `float32` is the safest and closest to other implementations; `float16` may overflow."""
    prediction: Literal["epsilon", "v_prediction", "sample"] | None
    """What a diffusion model was trained to say, where its files do not: single files of Stable Diffusion 2.x, and of models that were
    trained further for v. `null` takes what the files say, or the family's usual."""
    encoders: Annotated[tuple[str, ...], Field(min_length=1)] | None
    """Text encoders that learn words, such as `[clip_l, t5]`; `null` is the family's own choice: all, but no T5 beside CLIPs. The others
    read the initializer in a word's place. Another choice means new words."""
    compile: bool
    """Put the U-Net through `torch.compile`: faster after a minute or more of compiling for each shape of batch."""
    checkpointing: bool
    """Compute what the denoiser and the text encoders made on the way forward once more on the way back, instead of keeping it: a fraction
    of the memory, for about a third more time. Changes no word."""
    quantise: Literal["int8", "fp8", "nf4"] | None
    """Keep the frozen weights of the denoiser and of text encoders beyond a billion of them in so few bits: half the memory or a quarter,
    for words and pictures that differ a little. `int8` and `fp8` need torchao, `nf4` needs bitsandbytes and a GPU (`docs/memory.md`)."""
    vae_tile: Annotated[int, Field(ge=64, multiple_of=64)] | None
    """[pixels] Edge of the tiles that the VAE encodes and decodes larger pictures in, which overlap by a quarter; `null` takes them whole.
    Less memory for pictures that differ a little."""
    offload: bool
    """While pictures are drawn, keep the parts of the generator that are not at work in main memory, for GPUs that do not hold all of them.
    Changes no picture."""

    @model_validator(mode="after")
    def _can_be_moved(self) -> Generator:
        if self.offload and self.compile:
            raise ValueError("generator.offload moves the denoiser, and generator.compile does not let it. Set one of them to false")
        return self

    def decisive(self) -> dict[str, Any]:
        """What words and pictures depend on beside the model's files, as JSON values: not where and how they are made."""
        return {"precision": self.precision} | self.model_dump(mode="json", include={"quantise", "vae_tile"}, exclude_none=True)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # models are kept by their settings, and a dict has no hash


class Ranker(Section):
    """The CLIP that orders candidates, chooses initializers and measures editability."""

    model: str
    """`miniature`, an open_clip name such as `ViT-B-32` (the paper's) or `ViT-B-16-SigLIP`, or a folder with `open_clip_config.json`."""
    pretrained: str | None
    """Weights of an open_clip name: a tag such as `laion2b_s34b_b79k`, or a file. `null` for `miniature` and folders."""
    likeness: Literal["clip", "dino", "both"]
    """What says how alike a candidate and the references are: the CLIP, the DINO, or both, by the mean of their two cosines. People agree
    more with a DINO (DreamBench++). Faithfulness and near-duplicates are the CLIP's in any case."""
    dino: str | None
    """With `dino` or `both`: a folder or hub name that transformers' AutoModel loads, such as `facebook/dinov2-small`; not the judge's."""


class Judge(Section):
    """A second vision model. It only evaluates, so that nothing is judged by the model that ranked it."""

    model: str
    """`miniature`, or a folder or hub name that transformers' AutoModel loads, such as `facebook/dino-vits16` (as in DreamBench)."""


class Validate(Section):
    """What a picture must be to be used, and what is worth a warning. Warnings leave nothing out."""

    min_edge: Positive
    """[pixels] Pictures with a shorter edge below this are left out. For Stable Diffusion, 512 avoids enlarged pictures."""
    max_megapixels: Annotated[float, Field(gt=0)]
    """[10⁶ pixels] Larger pictures are left out before they are decoded, which bounds the memory that one picture can take."""
    background: tuple[Channel, Channel, Channel]
    """[levels] Red, green and blue of what is put under transparent pictures, and around pictures with `train.fit: pad`."""
    min_pictures: Positive
    """[pictures] Fewer usable ones than this are a warning. The paper uses 3 to 5."""
    max_pictures: Positive
    """[pictures] More than this are a warning. The paper tried up to 25 and found about 5 best."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    """[bits of 64] Pictures whose perceptual hashes differ in no more bits are reported as nearly the same. Raised, it reports more."""
    max_aspect_ratio: Annotated[float, Field(ge=1)]
    """[1] Longer edge over shorter edge; beyond it a warning, because training sees a square of it unless `train.fit` is buckets."""
    min_sharpness: Annotated[float, Field(ge=0)]
    """[luminance²] Variance of the Laplacian at 256 pixels, on a scale of 0 to 255. Pictures below it are reported as blurred."""
    min_contrast: Annotated[float, Field(ge=0)]
    """[luminance] Standard deviation of the luminance, on a scale of 0 to 255. Pictures below it are reported as blank."""
    outlier_z: Annotated[float, Field(gt=0)]
    """[1] Robust z-score of how unlike the rest of its set CLIP finds a picture; above it, the picture is reported as one that may not
    belong. Lowered, it finds more that do not belong and names more that do: the embedded ranker is not sure of photographs."""


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


class Generate(Section):
    """The candidates that are drawn for each brief."""

    candidates: Positive
    """[pictures] Drawn for each brief (16 in the paper). More give the ranker more to choose from and take longer in proportion."""
    solver: Solver
    """Sampler. `ddim` is the paper's; `dpmsolver++` and `unipc` need fewer steps for the same quality."""
    steps: Positive
    """[steps] Solver steps per picture (50 in the paper). More give finer pictures, with ever less gain, and take longer in proportion."""
    guidance_scale: Guidance
    """[1] Strength of classifier-free guidance; 1 is none. 2 suits the miniature; Stable Diffusion wants 5 to 10. Raised, pictures follow
    the prompt more literally, vary less, and in the end oversaturate."""
    negative_prompt: Annotated[str, Field(max_length=LONGEST)]
    """What to steer away from, in all candidates. A learnt word is written as `<its-token>`. No effect without guidance."""
    width: Positive | None
    """[pixels] Of a candidate; `null` is the model's own square. A multiple of 8 for Stable Diffusion and SDXL, of 16 for Stable Diffusion
    3 and FLUX; sizes of about the square's area look best."""
    height: Positive | None
    """[pixels] As `width`."""
    batch_size: Positive | Literal["auto"]
    """[pictures] Most that are drawn at a time. `auto` is 48 up to 128 × 128 pixels and 16 beyond. Lower it when memory runs out."""
    briefs: Briefs
    """Prompts by kind of concept, with `{token}` where the learnt word goes. A concept's own briefs replace them."""


class Rank(Section):
    """The order of a brief's candidates."""

    likeness_weight: Share
    """[1] Weight of the likeness to the references; the rest is faithfulness to the brief. Both are standardised within a brief first."""
    best: Positive
    """[pictures] How many the gallery shows first for each brief. Changes no place."""
    near_duplicate: Share
    """[cosine] Two candidates that CLIP finds at least this alike are stacked as one picture. Lowered, stacks get larger."""


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


class Gallery(Section):
    """The pages."""

    title: str
    """Heading of the overview."""
    thumbnail: Positive
    """[pixels] Longer edge of a picture on the page; the files have twice as many pixels, for sharp screens."""
    against: dict[str, str]
    """Other workspaces to show beside this one, by the name readers see: `{"last week": ../last-week}`. Paired by brief and seed."""


class Params(Section):
    """All of `params.yaml`."""

    seed: int
    """[1] What every random draw derives from, together with the concept. The same seed and settings give the same words and pictures."""
    concepts: Concepts
    generator: Generator
    ranker: Ranker
    judge: Judge
    validate_: Validate = Field(alias="validate")
    train: Train
    generate: Generate
    rank: Rank
    evaluate: Evaluate
    protocol: Protocol
    gallery: Gallery
    compare: Compare
    storage: Storage
    versions: Versions
    inbox: Inbox
    publish: Publish

    @model_validator(mode="after")
    def _nothing_is_drawn_as_letters(self) -> Params:
        alone = {
            "evaluate.prompts": self.evaluate.prompts,
            "train.compromise_prompts": self.train.compromise_prompts,
            "train.preview_prompt": {kind: [prompt] for kind, prompt in self.train.preview_prompt.items()},
        }
        for key, texts in {"generate.briefs": self.generate.briefs, **alone}.items():
            for kind, briefs in texts.items():
                for brief in briefs:
                    try:
                        check_brief(brief)
                    except ValueError as error:
                        raise ValueError(f"{key}.{kind}: {error}") from None
        for key, texts in alone.items():
            for prompt in (prompt for prompts in texts.values() for prompt in prompts):
                if found := WORD.search(prompt):
                    why = "is evaluated by itself and against the prompt alone, which knows no other learnt word"
                    raise ValueError(f"{key}: {found.group()} in {cut(prompt)!r}: a word {why}")
        if found := re.search(r"\{[^{}]*\}", self.generate.negative_prompt):
            raise ValueError(f"generate.negative_prompt: {cut(found.group())} means nothing here; write a learnt word as it is: <my-thing>")
        return self

    @model_validator(mode="after")
    def _what_is_compared_can_be(self) -> Params:
        arms(self)
        return self

    def section(self, *names: str) -> dict[str, Any]:
        """Sections as JSON values, for a stage's fingerprint."""
        whole = self.model_dump(mode="json", by_alias=True)
        return {name: whole[name] for name in names}


def load(path: Path, overrides: list[str] | tuple[str, ...] = (), overlay: Path | None = None) -> Params:
    """Read `params.yaml`; put the values of the keys that `overlay` has over it, then `section.key=value` overrides, whose values are
    YAML, and texts as they stand.

    Raises ParamsError with the file, the key and what it should be.
    """
    path = path.expanduser()
    tree = read_tree(path)
    if overlay:
        lay_over(tree, read_tree(overlay.expanduser()))
    for override in overrides:
        apply_override(tree, override, Params)
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in e['loc']) or 'file'}: "
            + (_MISSING if e["type"] == "missing" else e["msg"].removeprefix("Value error, "))
            for e in error.errors()
        ]
        where = f"{path} with {overlay}" if overlay else path
        raise ParamsError(f"{where}:\n" + "\n".join(lines) + "\ndocs/params.md has every key with its range and effect.") from None
