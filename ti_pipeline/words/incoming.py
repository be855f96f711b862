"""Words from elsewhere become concepts: a folder with `concept.yaml`, the word in our own layout, and pictures where some came along."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from ti_pipeline.concepts.concept import discover, suggest_slug
from ti_pipeline.concepts.settings import TOKEN
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file, write_text
from ti_pipeline.generators.placeholder import check_widths
from ti_pipeline.generators.reader import Reader
from ti_pipeline.words.files import write_word
from ti_pipeline.words.foreign import SUFFIXES, Found, holds_word, read_foreign
from ti_pipeline.words.start import fitted
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import SLUG, Workspace

WORD = "word.safetensors"
PLACE = "{word}"
_ALLOWED = ("*.safetensors", "*.bin", "*.pt", "*.png", "*.txt", "concept_images/*")
_OTHER_ENCODERS = re.compile(r"_[23]$")  # of the second file that diffusers writes for a model with two text encoders


@dataclass(frozen=True)
class Source:
    """A file or folder with words, and what it is called: by its own name, or by that of its repository on the hub."""

    path: Path
    name: str


def located(source: str) -> Source:
    """A file or folder, or the download of a repository on the hub. Raises ParamsError where there is neither."""
    path = Path(source).expanduser()
    if path.exists():
        return Source(path, path.name)
    if path.suffix.lower() in SUFFIXES or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ParamsError(f"{source}: there is no such file or folder, and it is no name on the hub such as sd-concepts-library/cat-toy.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        return Source(Path(snapshot_download(source, allow_patterns=list(_ALLOWED))), source)
    except RepositoryNotFoundError:
        hint = "For one that is private, log in with `hf auth login`, or set HF_TOKEN."
        raise ParamsError(f"{source}: there is no such file or folder, and no such repository on the hub. {hint}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
        raise ParamsError(f"{source}: could not be downloaded ({reason}). Download it elsewhere, and give the folder.") from None


def words_at(path: Path) -> list[Found]:
    """Every word of a file, or of a folder's files. Raises ParamsError when there is none, or a file in the way is none."""
    if not path.is_dir():
        return [_named(path, word) for word in read_foreign(path)]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    kept = [file for file in files if file.suffix == ".safetensors" or file.with_suffix(".safetensors") not in files]  # no pickle beside it
    kept = [file for file in kept if file.suffix.lower() != ".png" or holds_word(file)]
    if not kept:
        raise ParamsError(f"{path}: there is no file of a word in it ({', '.join(SUFFIXES)}).")
    token = path / "token_identifier.txt"
    named = token.read_text(encoding="utf-8").strip() if token.is_file() else ""
    words = [word for group in _groups(kept) for word in _of_files(group)]
    return [Found(named or word.name, word.rows, word.about) for word in words] if len(words) == 1 else words


def bring_in(workspace: Workspace, reader: Reader, word: Found, concept: str, source: Source, force: bool = False) -> Path:
    """Make a concept of a word; returns its folder. `reader` has all text encoders of the generator that the word is for.

    Raises ConceptError for one of another model, and where there is a word already.
    """
    if not SLUG.fullmatch(concept):
        raise ConceptError(concept, f"a concept's name has only a-z, 0-9, - and _. Give --as {suggest_slug(concept)}.")
    folder = workspace.concepts / concept
    if not force and ((folder / WORD).exists() or workspace.embedding(concept).exists()):
        raise ConceptError(concept, "it has a word already. Give another name with --as, or --force to put this one in its place.")
    widths = {name: each.width for name, each in reader.learning.items()}
    settings = _settings(word, folder, source.path)
    token = settings.get("token", f"<{concept}>")
    ours = {key: value for key, value in word.about.items() if not key.startswith("modelspec.") and key not in ("fingerprint", "format")}
    about = {**ours, "imported_from": source.name, "imported_as": word.name}
    about |= {"imported_digest": digest_file(source.path)} if source.path.is_file() else {}
    made = Word(token, fitted(word.rows, widths), provenance=about)
    check_widths(reader.name, widths, concept, made)
    write_word(folder / WORD, made)
    _pictures(source.path, folder)
    write_text(folder / "concept.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return folder


def _named(path: Path, word: Found) -> Found:
    return Found(word.name or path.stem, word.rows, word.about)


def _groups(files: list[Path]) -> Iterator[list[Path]]:
    """Files that are parts of one word together: `learned_embeds` and `learned_embeds_2`."""
    stems = {file.stem for file in files}
    for file in files:
        if _OTHER_ENCODERS.sub("", file.stem) in stems - {file.stem}:
            continue
        yield [file, *(other for other in files if other.stem in (f"{file.stem}_2", f"{file.stem}_3"))]


def _of_files(files: list[Path]) -> list[Found]:
    first, *others = [[_named(file, word) for word in read_foreign(file)] for file in files]
    if not others:
        return first
    names = {768: "clip_l", 1280: "clip_g", 4096: "t5"}
    joined = []
    for word in first:
        parts = [word, *(other for each in others for other in each if other.name == word.name)]
        rows = {names.get(part.rows[ONLY].shape[1], ONLY): part.rows[ONLY] for part in parts if ONLY in part.rows}
        if len(rows) != len(files):
            raise ParamsError(f"{files[0].parent}: {' and '.join(file.name for file in files)} are not the parts of one word.")
        joined.append(Found(word.name, rows, word.about))
    return joined


def _settings(word: Found, folder: Path, source: Path) -> dict[str, str]:
    """What `concept.yaml` says, with what it has said before."""
    kind = source / "type_of_concept.txt" if source.is_dir() else None
    said = {
        "kind": kind.read_text(encoding="utf-8").strip() if kind and kind.is_file() else word.about.get("kind", ""),
        "initializer": word.about.get("initializer", ""),
        "owner": word.about.get("modelspec.author", ""),
        "license": word.about.get("modelspec.license", ""),
    }
    said = {key: value for key, value in said.items() if value and (key != "kind" or value in ("object", "style"))}
    path = folder / "concept.yaml"
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except yaml.YAMLError as error:
        raise ConceptError(folder.name, f"{path}: cannot be read as YAML ({error}). Correct it first.") from None
    free = re.fullmatch(TOKEN, word.name) and word.name.lower() not in _tokens(folder.parent)
    token = {"token": word.name} if free and not path.is_file() else {}
    return {**said, **token, **(before or {}), "word": WORD}


def _tokens(concepts: Path) -> set[str]:
    """Of the concepts that are there, in lower case."""
    try:
        return {concept.token.lower() for concept in discover(concepts)[0]}
    except ParamsError:  # there is none yet
        return set()


def _pictures(source: Path, folder: Path) -> None:
    images = source / "concept_images" if source.is_dir() else source
    for picture in sorted(images.iterdir()) if images.is_dir() else ():
        if picture.is_file() and not (folder / picture.name).exists():
            shutil.copyfile(picture, folder / picture.name)
