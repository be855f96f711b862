"""A concept: a folder of pictures, with or without a `concept.yaml` beside them."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from ti_pipeline.concepts.folder import list_folder, passed_over, printable, refused
from ti_pipeline.concepts.settings import read_captions, read_settings, read_templates
from ti_pipeline.concepts.start import KEY, Start, astray
from ti_pipeline.concepts.texts import WORD, visible
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file, digest_value
from ti_pipeline.workspace import SLUG


@dataclass(frozen=True)
class Concept:
    """`captions` by file name; `briefs` hold `{token}`; `initializer` is None when CLIP is to choose it, `vectors` and `steps`
    when `params.yaml` is to say them. `human_captions`, short and long, stand for the word where setups are compared."""

    slug: str
    folder: Path
    token: str
    initializer: str | None
    kind: Literal["object", "style"]
    captions: dict[str, str]
    briefs: tuple[str, ...]
    owner: str | None
    license: str | None
    vectors: int | None = None
    steps: int | None = None
    human_captions: dict[str, str] = field(default_factory=dict)
    word: str | None = None  # SHA-256 of the word that was learnt elsewhere
    start: Start | None = None
    templates: tuple[str, ...] = ()  # its own neutral prompts, with `{}`


def load_concept(folder: Path) -> Concept:
    """Read what a folder says about itself. Raises ConceptError with the file, the key and what to do."""
    folder = folder.absolute()
    slug = folder.name
    if not SLUG.fullmatch(slug):
        reason = "the folder's name must be 1 to 64 of a-z, 0-9, - and _, the first no sign. Rename it"
        raise ConceptError(visible(printable(slug)), f"{reason}, for example to `{suggest_slug(slug)}`.")
    listing = list_folder(folder)
    settings = read_settings(slug, folder, listing)
    token, captions = settings.token or f"<{slug}>", read_captions(slug, listing) | settings.captions
    _check_captions(slug, token, captions)
    return Concept(
        slug=slug,
        folder=folder,
        token=token,
        initializer=settings.initializer,
        kind=settings.kind,
        captions=captions,
        briefs=tuple(settings.briefs),
        owner=settings.owner,
        license=settings.license,
        vectors=settings.vectors,
        steps=settings.steps,
        human_captions=settings.human_captions.model_dump(exclude_none=True),
        word=_digest_of(slug, folder, settings.word, "concept.yaml: `word`") if settings.word else None,
        start=_start(slug, folder, token, settings.start_from) if settings.start_from else None,
        templates=read_templates(slug, listing, settings.templates) if settings.templates else (),
    )


def discover(folder: Path, names: Iterable[str] | None = None) -> tuple[list[Concept], list[ConceptError]]:
    """Every concept below `folder`, or those named, sorted by slug, and what is wrong with the others.

    Raises ParamsError when there is no such folder, when it holds no concept, or for a name that no concept has.
    """
    try:
        inside = [path for path in folder.iterdir() if not passed_over(printable(path.name))]
        folders = sorted(path for path in inside if path.is_dir())
    except OSError as error:
        raise ParamsError(f"concepts.folder: {folder} cannot be read: {error.strerror}. It has one folder of pictures a concept.") from None
    if not folders:
        found = f"{len(inside)} files but no folders; give the folder above it" if inside else "nothing"
        raise ParamsError(f"concepts.folder: {folder} holds {found}. Expected one folder of pictures a concept.")
    concepts, errors = [], []
    for path in folders:
        try:
            concepts.append(load_concept(path))
        except ConceptError as error:
            errors.append(error)
    concepts, clashes = _distinct_tokens(concepts)
    lost = {error.concept: error for error in astray(concepts)}
    concepts = [concept for concept in concepts if concept.slug not in lost]
    errors += [*clashes, *lost.values()]
    if names is not None:
        wanted = _known(list(names), [visible(printable(path.name)) for path in folders], folder)
        concepts = [concept for concept in concepts if concept.slug in wanted]
        errors = [error for error in errors if error.concept in wanted]
    return concepts, sorted(errors, key=lambda error: error.concept)


def concept_digest(concept: Concept) -> str:
    """Digest of the settings alone; neither the pictures nor the place of the folder are in it."""
    settings = asdict(replace(concept, folder=Path()))
    if not concept.human_captions:
        del settings["human_captions"]  # manifests from before there were any stand
    for key in ("word", "start", "templates"):
        if not settings[key]:
            del settings[key]
    return digest_value(settings)


def _start(slug: str, folder: Path, token: str, name: str) -> Start:
    if not name.startswith("<"):
        return Start(name, _digest_of(slug, folder, name, KEY))
    if name.lower() == token.lower():
        raise ConceptError(slug, f"{KEY}: {name} is the concept's own word. Name another one, or a file of this folder.")
    return Start(name)


def _digest_of(slug: str, folder: Path, name: str, key: str) -> str:
    """Of a file of a word in the concept's folder."""
    if reason := refused(folder, name):
        raise ConceptError(slug, f"{key}: {name}: {reason}.")
    try:
        return digest_file(folder / name)
    except OSError as error:
        raise ConceptError(slug, f"{key}: {name}: {error.strerror}.") from None


def suggest_slug(name: str) -> str:
    """A valid slug that looks like `name`."""
    plain = unicodedata.normalize("NFKD", printable(name)).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:64] or "concept"


def _check_captions(slug: str, token: str, captions: dict[str, str]) -> None:
    """A caption may hold plain words only: another concept's word would be read letter by letter."""
    for file, caption in captions.items():
        for word in WORD.findall(caption):
            if word.lower() != token.lower():
                raise ConceptError(slug, f"the caption of {file} names {word}, and no word is learnt beside another. Write what it is.")


def _distinct_tokens(concepts: list[Concept]) -> tuple[list[Concept], list[ConceptError]]:
    """A brief may hold the words of several concepts, so two with the same word are both held back; tokenizers ignore case."""
    owners = defaultdict(list)
    for concept in concepts:
        owners[concept.token.casefold()].append(concept.slug)
    errors = []
    for concept in concepts:
        others = [slug for slug in owners[concept.token.casefold()] if slug != concept.slug]
        if others:
            reason = f"concept.yaml: `token`: {concept.token} is also the word of {', '.join(others)}. Give each its own."
            errors.append(ConceptError(concept.slug, reason))
    return [concept for concept in concepts if len(owners[concept.token.casefold()]) == 1], errors


def _known(names: list[str], known: list[str], folder: Path) -> set[str]:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known[:12])}{' …' if len(known) > 12 else ''}."
            raise ParamsError(f"{name}: there is no such concept in {folder}. {hint}")
    return set(names)
