"""`concept.yaml` and the caption files beside the pictures."""

from __future__ import annotations

import unicodedata
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ti_pipeline.concepts.folder import CAPTIONS, SETTINGS, Entry, Listing, list_folder
from ti_pipeline.concepts.texts import MOST_VECTORS, PLACE, ClassWords, Line, Prompt, cut, plain_words
from ti_pipeline.errors import ConceptError

TOKEN = r"^<[A-Za-z0-9][A-Za-z0-9_.-]{0,63}>$"
WORD_FILE = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.safetensors$"  # of a word that was learnt elsewhere, beside concept.yaml
START = (
    r"^(<[A-Za-z0-9][A-Za-z0-9_.-]{0,63}>|[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.(?i:safetensors|pt|bin|ckpt|png))$"  # a word, or a file of one
)
TEMPLATES = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.txt$"
LARGEST = 64 * 1024  # bytes of concept.yaml, and of a caption's file
MOST_STEPS = 20_000  # that a concept may ask for in its own settings; four times what Stable Diffusion may need
MOST_ERRORS = 3  # in one reason
_DEEPEST = 8  # levels of lists and tables


class _Plain(yaml.SafeLoader):
    """YAML without what makes gigabytes of a few lines: aliases, merge keys, and nesting without end."""

    level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        at = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases such as *name are not read; write it out", problem_mark=at)
        if self.level == _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep", problem_mark=at)
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem="merge keys (<<) are not read; write it out", problem_mark=key.start_mark)


class HumanCaptions(BaseModel):
    """What a person says instead of the learnt word, where setups are compared (Gal et al. 2022, figure 10)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    short: Annotated[Line, AfterValidator(plain_words(12))] | None = None
    long: Annotated[Line, AfterValidator(plain_words(30))] | None = None


class Settings(BaseModel):
    """What a `concept.yaml` may say; all of it is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    token: Annotated[str, Field(pattern=TOKEN)] | None = None
    initializer: ClassWords | None = None
    kind: Literal["object", "style"] = "object"
    captions: Annotated[dict[Annotated[str, Field(max_length=255)], Prompt], Field(max_length=1000)] = {}
    briefs: Annotated[list[Prompt], Field(max_length=100)] = []
    human_captions: HumanCaptions = HumanCaptions()
    vectors: Annotated[int, Field(ge=1, le=MOST_VECTORS)] | None = None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    word: Annotated[str, Field(pattern=WORD_FILE)] | None = None
    start_from: Annotated[str, Field(pattern=START)] | None = None
    templates: Annotated[str, Field(pattern=TEMPLATES)] | None = None
    owner: Line | None = None
    license: Line | None = None


_CAPTION = TypeAdapter(Prompt)
_FILES = {"word": "word.safetensors", "start_from": "word.safetensors, or a word such as <fox>", "templates": "templates.txt"}


def read_settings(slug: str, folder: Path, listing: Listing) -> Settings:
    """Read `concept.yaml`, or nothing when there is none. Raises ConceptError with the file, the key and what to do."""
    for other in listing.texts:
        if other.name != SETTINGS and other.name.lower() in (SETTINGS, "concept.yml"):
            raise ConceptError(slug, f"{other.name}: the settings are read from `{SETTINGS}` only. Rename the file.")
    entry = next((entry for entry in listing.texts if entry.name == SETTINGS), None)
    if entry is None:
        if (folder / SETTINGS).is_dir():
            raise ConceptError(slug, f"{SETTINGS}: is a folder. Expected a file with keys such as `initializer:`.")
        return Settings()
    try:
        tree = yaml.load(_read(slug, entry, "utf-8"), _Plain)  # noqa: S506 (a SafeLoader)
    except ConceptError:
        raise
    except Exception as error:  # its constructors raise all sorts for a value that looks like a number or a date
        reason = f"cannot be read as YAML in UTF-8: {_yaml_complaint(error)}. Correct or delete the file."
        raise ConceptError(slug, f"{SETTINGS}: {reason}") from None
    if tree is None:
        return Settings()
    if not isinstance(tree, dict):
        raise ConceptError(slug, f"{SETTINGS}: expected keys such as `initializer:`, found {type(tree).__name__}.")
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        errors = error.errors()
        more = f"; and {len(errors) - MOST_ERRORS} more" if len(errors) > MOST_ERRORS else ""
        raise ConceptError(slug, "; ".join(map(_complaint, errors[:MOST_ERRORS])) + f"{more}.") from None
    _check_briefs(slug, settings)
    return settings.model_copy(update={"captions": _by_real_name(slug, settings.captions, listing)})


def read_captions(slug: str, listing: Listing) -> dict[str, str]:
    """Captions from `name.txt`, `name.jpg.txt` or `name.caption` beside `name.jpg`, by file name; empty ones are none."""
    captions = {}
    for picture, entry in caption_files(listing).items():
        try:
            text = _read(slug, entry, "utf-8-sig")
            if text.strip():
                captions[picture] = _CAPTION.validate_python(text)
        except UnicodeDecodeError:
            raise ConceptError(slug, f"{entry.name}: the caption is not UTF-8 text. Save it as UTF-8 or delete it.") from None
        except ValidationError as error:
            raise ConceptError(slug, f"{entry.name}: the caption {_why(error.errors()[0])}.") from None
        except OSError as error:
            raise ConceptError(slug, f"{entry.name}: {error}.") from None
    return captions


def read_templates(slug: str, listing: Listing, name: str) -> tuple[str, ...]:
    """The lines of a text of the folder that are not empty, each with `{}` in the learnt word's place. Raises ConceptError."""
    where = f"{SETTINGS}: `templates`: {name}"
    entry = next((entry for entry in listing.texts if entry.name == name), None)
    if entry is None:
        raise ConceptError(slug, f"{where}: there is no such file in the folder.")
    try:
        lines = [line.strip() for line in _read(slug, entry, "utf-8-sig").splitlines() if line.strip()]
        said = [_CAPTION.validate_python(line.replace("{}", PLACE)) for line in lines]
    except UnicodeDecodeError:
        raise ConceptError(slug, f"{where} is not UTF-8 text. Save it as UTF-8.") from None
    except ValidationError as error:
        raise ConceptError(slug, f"{where}: a line {_why(error.errors()[0])}.") from None
    if without := next((line for line in said if PLACE not in line), None if said else "nothing"):
        raise ConceptError(slug, f"{where}: {cut(without)!r} has no place for the learnt word. Write {{}} where it goes.")
    return tuple(line.replace(PLACE, "{}") for line in said)


def caption_files(listing: Listing) -> dict[str, Entry]:
    """The text beside each picture that has one, by the picture's name."""
    texts = {entry.path.stem: entry for entry in listing.texts if entry.path.suffix.lower() in CAPTIONS}
    found = {picture.name: texts.get(picture.name) or texts.get(picture.path.stem) for picture in listing.files if not picture.refusal}
    return {name: entry for name, entry in found.items() if entry}


def caption_place(folder: Path, picture: str, caption: str) -> str:
    """What a reason calls the caption of a picture in a concept's folder: by the file that it stands in."""
    listing = list_folder(folder)
    beside = caption_files(listing).get(picture)
    if beside and read_captions(folder.name, listing).get(picture) == caption:
        return f"the caption in {beside.name}"
    return f"the caption of {picture} in {SETTINGS}"


def _read(slug: str, entry: Entry, encoding: str) -> str:
    """A text of an outsider's, of which no more is read than makes sense."""
    if entry.refusal:
        raise ConceptError(slug, f"{entry.name}: {entry.refusal}.")
    with entry.path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConceptError(slug, f"{entry.name}: larger than {LARGEST // 1024} KiB, and is not read. Shorten it.")
    return content.decode(encoding)


def _check_briefs(slug: str, settings: Settings) -> None:
    for brief in settings.briefs:
        own = settings.token or f"<{slug}>"
        if PLACE not in brief and own.lower() not in brief.lower():
            raise ConceptError(slug, f"{SETTINGS}: `briefs`: {cut(brief)!r} has no place for the learnt word. Write {PLACE} where it goes.")


def _by_real_name(slug: str, captions: dict[str, str], listing: Listing) -> dict[str, str]:
    """File systems spell accents in two ways, so names are compared in one."""
    real = {unicodedata.normalize("NFC", entry.name): entry.name for entry in listing.files}
    found = {}
    for name, caption in captions.items():
        key = unicodedata.normalize("NFC", name)
        if key not in real:
            near = get_close_matches(key, real, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Write the file's name with its ending, or take the caption out."
            raise ConceptError(slug, f"{SETTINGS}: `captions`: there is no {cut(name)} in the folder. {hint}")
        found[real[key]] = caption
    return found


def _yaml_complaint(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _complaint(error: Any) -> str:
    """One pydantic error as file, key, what to do."""
    key = ".".join(str(part) for part in error["loc"]) or "file"
    where = f"{SETTINGS}: `{cut(key)}`: "
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, Settings.model_fields, n=1)
        advice = f"did you mean `{near[0]}`" if near else f"known are {', '.join(Settings.model_fields)}"
        return f"{where}no such key; {advice}"
    if error["type"] == "string_pattern_mismatch" and key in _FILES:
        return f"{where}expected a file of this folder such as {_FILES[key]}, found {_shown(error['input'])}"
    if error["type"] == "string_pattern_mismatch":
        return f"{where}expected something like <my-thing> (in angle brackets, no spaces), found {_shown(error['input'])}"
    if error["type"] == "string_type":
        return f"{where}expected text, found {_shown(error['input'])}; put it in quotes"
    return where + _why(error)


def _why(error: Any) -> str:
    if error["type"] == "string_too_long":
        return f"is longer than {error['ctx']['max_length']} characters"
    return f"{error['msg'].removeprefix('Value error, ')}, found {_shown(error['input'])}"


def _shown(value: Any) -> str:
    try:
        return short(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
