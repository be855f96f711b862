"""`concept.yaml` and the caption files beside the pictures."""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ti_pipeline.concepts.folder import CAPTIONS, SETTINGS, Listing
from ti_pipeline.errors import ConceptError

TOKEN = r"^<[A-Za-z0-9][A-Za-z0-9_.-]{0,63}>$"


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty; write something or leave it out")
    return text


def _prompt(text: str) -> str:
    for place in re.findall(r"\{[^{}]*\}", text):
        if place != "{token}":
            raise ValueError(f"{place} means nothing here; the learnt word's place is {{token}}")
    return _one_line(text)


Line = Annotated[str, AfterValidator(_one_line)]
Prompt = Annotated[str, AfterValidator(_prompt)]


class Settings(BaseModel):
    """What a `concept.yaml` may say; all of it is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    token: Annotated[str, Field(pattern=TOKEN)] | None = None
    initializer: Line | None = None
    kind: Literal["object", "style"] = "object"
    captions: dict[str, Prompt] = {}
    briefs: list[Prompt] = []
    vectors: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    owner: Line | None = None
    license: Line | None = None


def read_settings(slug: str, folder: Path, listing: Listing) -> Settings:
    """Read `concept.yaml`, or nothing when there is none. Raises ConceptError with the file, the key and what to do."""
    for entry in listing.texts:
        if entry.name != SETTINGS and entry.name.lower() in (SETTINGS, "concept.yml"):
            raise ConceptError(slug, f"{entry.name}: the settings are read from `{SETTINGS}` only. Rename the file.")
    entry = next((entry for entry in listing.texts if entry.name == SETTINGS), None)
    if entry is None:
        if (folder / SETTINGS).is_dir():
            raise ConceptError(slug, f"{SETTINGS}: is a folder. Expected a file with keys such as `initializer:`.")
        return Settings()
    if entry.refusal:
        raise ConceptError(slug, f"{SETTINGS}: {entry.refusal}.")
    try:
        tree = yaml.safe_load(entry.path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConceptError(slug, f"{SETTINGS}: not valid YAML in UTF-8: {_yaml_complaint(error)}. Mend or delete the file.") from None
    if tree is None:
        return Settings()
    if not isinstance(tree, dict):
        raise ConceptError(slug, f"{SETTINGS}: expected keys such as `initializer:`, found {type(tree).__name__}.")
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConceptError(slug, "; ".join(_complaint(each) for each in error.errors()) + ".") from None
    _check_briefs(slug, settings)
    return settings.model_copy(update={"captions": _by_real_name(slug, settings.captions, listing)})


def read_captions(slug: str, listing: Listing) -> dict[str, str]:
    """Captions from `name.txt`, `name.jpg.txt` or `name.caption` beside `name.jpg`, by file name; empty ones are none."""
    texts = {entry.path.stem: entry for entry in listing.texts if entry.path.suffix.lower() in CAPTIONS}
    captions = {}
    for picture in listing.files:
        entry = texts.get(picture.name) or texts.get(picture.path.stem)
        if entry is None or picture.refusal:
            continue
        if entry.refusal:
            raise ConceptError(slug, f"{entry.name}: {entry.refusal}.")
        try:
            text = entry.path.read_text(encoding="utf-8-sig")
            if text.strip():
                captions[picture.name] = _prompt(text)
        except UnicodeDecodeError:
            raise ConceptError(slug, f"{entry.name}: the caption is not UTF-8 text. Save it as UTF-8 or delete it.") from None
        except (OSError, ValueError) as error:
            raise ConceptError(slug, f"{entry.name}: {error}.") from None
    return captions


def _check_briefs(slug: str, settings: Settings) -> None:
    for brief in settings.briefs:
        own = settings.token or f"<{slug}>"
        if "{token}" not in brief and own not in brief:
            raise ConceptError(slug, f"{SETTINGS}: `briefs`: {brief!r} has no place for the learnt word. Write {{token}} where it goes.")


def _by_real_name(slug: str, captions: dict[str, str], listing: Listing) -> dict[str, str]:
    """File systems spell accents in two ways, so names are compared in one."""
    real = {unicodedata.normalize("NFC", entry.name): entry.name for entry in listing.files}
    found = {}
    for name, caption in captions.items():
        key = unicodedata.normalize("NFC", name)
        if key not in real:
            near = get_close_matches(key, real, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Write the file's name with its ending, or take the caption out."
            raise ConceptError(slug, f"{SETTINGS}: `captions`: there is no {name} in the folder. {hint}")
        found[real[key]] = caption
    return found


def _yaml_complaint(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _complaint(error: Any) -> str:
    """One pydantic error as file, key, what to do."""
    key = ".".join(str(part) for part in error["loc"]) or "file"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, Settings.model_fields, n=1)
        advice = f"did you mean `{near[0]}`" if near else f"known are {', '.join(Settings.model_fields)}"
        return f"{SETTINGS}: `{key}`: no such key; {advice}"
    if error["type"] == "string_pattern_mismatch":
        return f"{SETTINGS}: `{key}`: expected something like <my-thing> (in angle brackets, no spaces), found {short(error['input'])}"
    if error["type"] == "string_type":
        return f"{SETTINGS}: `{key}`: expected text, found {short(error['input'])}; put it in quotes"
    return f"{SETTINGS}: `{key}`: {error['msg'].removeprefix('Value error, ')}, found {short(error['input'])}"
