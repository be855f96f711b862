"""`params.yaml`, typed. Every key has its default in the file and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ti_pipeline.concepts.texts import LONGEST, MOST_VECTORS, PLACE, WORD, check_places, cut
from ti_pipeline.errors import ParamsError, without_passwords
from ti_pipeline.inversion.setups import Setup, sections, setups


def _for_all_to_read(address: str) -> str:
    """These settings are in Git, in logs and in published links."""
    if without_passwords(address) != address:
        raise ValueError("leave the name and the password out; keys come from AWS's usual chain or .dvc/config.local")
    return address


Address = Annotated[str, AfterValidator(_for_all_to_read)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]  # more is a slip of the finger, and would fill the memory
Share = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")]
Briefs = dict[Literal["object", "style"], list[Annotated[str, Field(max_length=LONGEST)]]]
Channel = Annotated[int, Field(ge=0, le=255)]


if TYPE_CHECKING:
    Setups = BaseModel
else:
    Setups = sections()


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
    background: tuple[Channel, Channel, Channel]
    min_pictures: Positive
    max_pictures: Positive
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    max_aspect_ratio: Annotated[float, Field(ge=1)]
    min_sharpness: Annotated[float, Field(ge=0)]
    min_contrast: Annotated[float, Field(ge=0)]
    outlier_z: Annotated[float, Field(gt=0)]


class Train(Section):
    setup: Annotated[str, Field(examples=list(setups()))]
    """How a word is learnt. Only the settings of this one count. `docs/training.md` describes them."""
    setups: Setups
    vectors: Annotated[int, Field(ge=1, le=MOST_VECTORS)]
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

    @field_validator("setup")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if name not in setups():
            raise ValueError(f"there is no setup {name!r}. There are: {', '.join(setups())}")
        return name

    @model_validator(mode="after")
    def _goes_with_its_setup(self) -> Train:
        """Also notices what its setup needs and `setups` does not say."""
        try:
            self.chosen.check(self)
        except ValidationError as error:
            missing = ", ".join(f"train.setups.{self.setup}.{e['loc'][0]}" for e in error.errors())
            raise ValueError(f"train.setup is {self.setup}, which needs {missing}. Set it") from None
        return self

    @property
    def chosen(self) -> Setup:
        """The setup with its settings."""
        return getattr(self.setups, self.setup) or setups()[self.setup]()

    @property
    def longest(self) -> int:
        """Rows of a word when it has as many as it will ever have."""
        return self.chosen.longest(self)

    def decisive(self) -> dict[str, Any]:
        """What a learnt word depends on, as JSON values: not how the work is spread and saved, nor what other setups would do."""
        without = {"setup", "setups", "pack", "devices", "checkpoint_every", "checkpoint_seconds"}
        if self.early_stopping == "none":
            without |= {"evaluate_every", "evaluate_samples", "stop_window", "stop_ratio"}
        return self.model_dump(mode="json", exclude=without) | self.chosen.decisive()


class Generate(Section):
    candidates: Positive
    solver: Literal["ddim", "dpmsolver++", "euler", "unipc"]
    steps: Positive
    guidance_scale: Annotated[float, Field(ge=1)]
    negative_prompt: Annotated[str, Field(max_length=LONGEST)]
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
    def _nothing_is_drawn_as_letters(self) -> Params:
        for key, texts in (("generate.briefs", self.generate.briefs), ("evaluate.prompts", self.evaluate.prompts)):
            for kind, briefs in texts.items():
                for brief in briefs:
                    _check_brief(f"{key}.{kind}", brief)
        for prompts in self.evaluate.prompts.values():
            for prompt in prompts:
                if found := WORD.search(prompt):
                    why = "is evaluated by itself and against the prompt alone, which knows no other learnt word"
                    raise ValueError(f"evaluate.prompts: {found.group()} in {cut(prompt)!r}: a word {why}")
        if found := re.search(r"\{[^{}]*\}", self.generate.negative_prompt):
            raise ValueError(f"generate.negative_prompt: {cut(found.group())} means nothing here; write a learnt word as it is: <my-thing>")
        return self

    def section(self, *names: str) -> dict[str, Any]:
        """Sections as JSON values, for a stage's fingerprint."""
        whole = self.model_dump(mode="json", by_alias=True)
        return {name: whole[name] for name in names}


def _check_brief(key: str, brief: str) -> None:
    try:
        check_places(brief)
    except ValueError as error:
        raise ValueError(f"{key}: in {cut(brief)!r} {error}") from None
    if PLACE not in brief:
        raise ValueError(f"{key}: {cut(brief)!r} has no place for the {PLACE}")


def load(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Params:
    """Read `params.yaml` and apply `section.key=value` overrides; values are YAML, and texts are as they stand.

    Raises ParamsError with the file, the key and what it should be.
    """
    path = path.expanduser()
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
    kinds = _kinds((*sections, last))
    try:
        parent[last] = _text(text.strip(), None if type(None) in kinds else "") if str in kinds else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"--set {override}: the value is not valid YAML: {error}") from None


def _text(text: str, nothing: str | None) -> str | None:
    """A text as it stands: `#`, `~`, `:` and `no` are signs and words like any other. YAML's quotes may be around it."""
    if text in ("", "null"):
        return None if text else nothing
    if text[0] in "'\"":
        quoted = yaml.safe_load(text)
        return quoted if isinstance(quoted, str) else text
    return text


def _kinds(keys: tuple[str, ...]) -> tuple[Any, ...]:
    """The types that the value at these keys may have, without their bounds."""
    kind: Any = Params
    for key in keys:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            fields = getattr(kind, "model_fields", {})
            kind = next((field.annotation for name, field in fields.items() if key in (name, field.alias)), Any)
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)
