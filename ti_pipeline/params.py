"""`params.yaml`, typed. Every key has its default in the file and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ti_pipeline.errors import ParamsError, without_passwords


def _for_all_to_read(address: str) -> str:
    """These settings are in Git, in logs and in published links."""
    if without_passwords(address) != address:
        raise ValueError("leave the name and the password out; keys come from AWS's usual chain or .dvc/config.local")
    return address


Address = Annotated[str, AfterValidator(_for_all_to_read)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")]
Briefs = dict[Literal["object", "style"], list[str]]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Concepts(Section):
    folder: str


class Generator(Section):
    model: str
    revision: str | None
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool


class Ranker(Section):
    model: str
    pretrained: str | None


class Judge(Section):
    model: str


class Validate(Section):
    min_edge: Positive
    max_megapixels: Annotated[float, Field(gt=0)]
    background: tuple[int, int, int]
    min_pictures: Positive
    max_pictures: Positive
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    max_aspect_ratio: Annotated[float, Field(ge=1)]
    min_sharpness: Annotated[float, Field(ge=0)]
    min_contrast: Annotated[float, Field(ge=0)]
    outlier_z: Annotated[float, Field(gt=0)]


class Train(Section):
    vectors: Positive
    steps: Positive
    batch_size: Positive
    gradient_accumulation: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    scale_learning_rate: bool
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_norm: Annotated[float, Field(gt=1)]
    flip: bool
    fit: Literal["crop", "squash", "pad"]
    clip_gradient: Annotated[float, Field(gt=0)] | None
    early_stopping: Literal["none", "dvar"]
    evaluate_every: Positive
    evaluate_samples: Positive
    stop_window: Positive
    stop_ratio: Annotated[float, Field(gt=0, lt=1)]
    pack: Literal["auto"] | Positive
    devices: tuple[Device, ...]
    checkpoint_every: Positive
    checkpoint_seconds: Annotated[float, Field(gt=0)]
    log_every: Positive

    def decisive(self) -> dict[str, Any]:
        """What a learnt word depends on, as JSON values: not how the work is spread and saved."""
        without = {"pack", "devices", "checkpoint_every", "checkpoint_seconds"}
        if self.early_stopping == "none":
            without |= {"evaluate_every", "evaluate_samples", "stop_window", "stop_ratio"}
        return self.model_dump(mode="json", exclude=without)


class Generate(Section):
    candidates: Positive
    solver: Literal["ddim", "dpmsolver++", "euler", "unipc"]
    steps: Positive
    guidance_scale: Annotated[float, Field(ge=1)]
    negative_prompt: str
    batch_size: Positive | Literal["auto"]
    briefs: Briefs


class Rank(Section):
    likeness_weight: Share
    best: Positive
    near_duplicate: Share


class Evaluate(Section):
    samples: Positive
    samples_per_prompt: Positive
    solver: Literal["ddim", "dpmsolver++", "euler", "unipc"]
    steps: Positive
    guidance_scale: Annotated[float, Field(ge=1)]
    batch_size: Positive
    bootstrap: Positive
    keep: Positive
    prompts: Briefs


class Gallery(Section):
    title: str
    thumbnail: Positive
    against: dict[str, str]


class Storage(Section):
    endpoint: Address | None
    region: str | None
    bucket: str | None
    prefix: str
    jobs: Positive


class Versions(Section):
    record: bool
    push: bool
    commit: bool
    tag: bool
    register_: bool = Field(alias="register")


class Inbox(Section):
    bucket: str | None
    prefix: str
    quiet_seconds: Annotated[int, Field(ge=0)]


class Publish(Section):
    bucket: str | None
    prefix: str
    url: Address | None
    keep: Positive


class Params(Section):
    seed: int
    concepts: Concepts
    generator: Generator
    ranker: Ranker
    judge: Judge
    validate_: Validate = Field(alias="validate")
    train: Train
    generate: Generate
    rank: Rank
    evaluate: Evaluate
    gallery: Gallery
    storage: Storage
    versions: Versions
    inbox: Inbox
    publish: Publish

    @model_validator(mode="after")
    def _briefs_have_a_place_for_the_token(self) -> Params:
        for section in ("generate", "evaluate"):
            texts = self.generate.briefs if section == "generate" else self.evaluate.prompts
            for kind, briefs in texts.items():
                for brief in briefs:
                    if "{token}" not in brief:
                        raise ValueError(f"{section}: the brief {brief!r} for a {kind} has no place for the {{token}}")
        return self

    def section(self, *names: str) -> dict[str, Any]:
        """Sections as JSON values, for a stage's fingerprint."""
        whole = self.model_dump(mode="json", by_alias=True)
        return {name: whole[name] for name in names}


def load(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Params:
    """Read `params.yaml` and apply `section.key=value` overrides; values are YAML.

    Raises ParamsError with the file, the key and what it should be.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: there is no such file. Give one with --params FILE, or run in a folder that has a params.yaml."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: expected sections such as `train:`, found {type(tree).__name__}.")
    for override in overrides:
        _override(tree, override)
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in e['loc']) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ParamsError(f"{path}:\n" + "\n".join(lines)) from None


def _override(tree: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ParamsError(f"--set {override}: expected section.key=value.")
    *sections, last = key.strip().split(".")
    place: Any = tree
    for name in (*sections, last):
        if not isinstance(place, dict) or name not in place:
            known = ", ".join(sorted(place)) if isinstance(place, dict) else "nothing below it"
            raise ParamsError(f"--set {override}: there is no `{name}` here. Known: {known}.")
        parent, place = place, place[name]
    try:
        parent[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"--set {override}: the value is not valid YAML: {error}") from None
