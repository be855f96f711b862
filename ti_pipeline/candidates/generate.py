"""The stage `generate`: N candidates for every brief of every concept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from ti_pipeline.candidates.briefs import Brief, brief_texts, briefs_for, words_in
from ti_pipeline.candidates.files import SCHEMA, stands, sweep, write_picture
from ti_pipeline.candidates.looks import Clip, write_looks
from ti_pipeline.candidates.recipe import VERSION, Recipe, file_name
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import cut
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table, table_metadata, write_table
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.generators.placeholder import check_prompt, check_width
from ti_pipeline.params import Params
from ti_pipeline.sampling.sample import Settings, encode_negative, encode_texts, even_batch, sample_conditions
from ti_pipeline.sampling.seeds import candidate_seed
from ti_pipeline.words.learnt import Words, load_others, load_own
from ti_pipeline.words.word import Word
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

STAGE = "generate"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Order:
    """What is wanted of one concept: its briefs, the learnt words in them by token, and the digest that it stands under."""

    briefs: list[Brief]
    words: dict[str, Word]
    fingerprint: str


@dataclass(frozen=True)
class Planned:
    """One candidate before it is made."""

    brief: Brief
    recipe: Recipe
    file: str


@dataclass
class Sheet:
    """One concept's part of the work: all its candidates, which of them are still to be made, how long it has taken.

    `left_out` says which briefs are not drawn and why.
    """

    slug: str
    order: Order
    plan: list[Planned]
    missing: list[Planned]
    left_out: str
    left: int = 0
    heard: tuple[dict[str, Condition], Condition] | None = None  # its prompts, and its negative prompt
    pictures: dict[str, Image.Image] = field(default_factory=dict)  # by file, until CLIP has looked at them
    broken: OSError | None = None


def generate_one(
    workspace: Workspace,
    generator: Generator,
    manifest: Manifest,
    params: Params,
    progress: Progress | None = None,
    *,
    force: bool = False,
    clip: Clip | None = None,
) -> Outcome:
    """Make the candidates of one concept, or find that they stand. Raises ConceptError for what is wrong with this concept."""
    order = read_order(workspace, generator.digest, manifest, params)
    if not force and (outcome := standing(workspace, manifest.slug, order.fingerprint)):
        return outcome

    def failed(concept: str, error: Exception) -> None:
        raise error

    return generate_many(workspace, generator, [manifest], params, progress, failed=failed, force=force, clip=clip)[manifest.slug]


def generate_many(
    workspace: Workspace,
    generator: Generator,
    manifests: Sequence[Manifest],
    params: Params,
    progress: Progress | None = None,
    *,
    failed: Callable[[str, Exception], None],
    force: bool = False,
    beside: int = 0,
    clip: Clip | None = None,
    spent: Counter[str] | None = None,
) -> dict[str, Outcome]:
    """Make the candidates of many concepts, those of different concepts and briefs in the same batches.

    Killed and started again, it keeps the pictures that are there; until a concept's new table is written, the old one and all
    its pictures stand. `failed` is told which concept failed and why; `beside` is how many candidates of the same collection
    stand already, so that a batch has the shape that it would have had with them. `clip` looks at the pictures while they are in
    memory, so that the stage `rank` need not open them. `spent` counts the pictures made for each concept, which take equally long.
    """
    sheets, words = [], Words(workspace)
    for manifest in manifests:
        try:
            order = read_order(workspace, generator.digest, manifest, params, words)
            sheets.append(_sheet(workspace, generator, manifest, params, order, force))
        except Exception as error:
            failed(manifest.slug, error)
    section, todo = params.generate, [(sheet, candidate) for sheet in sheets for candidate in sheet.missing]
    total = sum(len(sheet.plan) for sheet in sheets)
    done = total - len(todo)
    size = even_batch(total + beside, section.batch_size, generator.resolution)
    settings = Settings(section.solver, section.steps, section.guidance_scale, section.negative_prompt, size)

    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(max_workers=1) as writer:  # files are written, and finished concepts closed, while others are made
        closing: dict[str, Future[Outcome]] = {}

        def close(everything: bool) -> None:
            for slug in [slug for slug, future in closing.items() if everything or future.done()]:
                try:
                    outcomes[slug] = closing.pop(slug).result()
                except ConceptError as error:
                    failed(slug, error)

        for sheet in sheets:
            if not sheet.left:
                closing[sheet.slug] = writer.submit(_close, workspace, generator, sheet, clip)
        while todo:
            seeds = [candidate.recipe["seed"] for _, candidate in todo]
            for index, picture in sample_conditions(generator, lambda i, todo=todo: _heard(generator, *todo[i]), seeds, settings):
                sheet, candidate = todo[index]
                path = workspace.candidates(sheet.slug) / candidate.file
                writer.submit(_write, sheet, path, picture, candidate.recipe, keep=clip is not None)
                sheet.left -= 1
                if spent is not None:
                    spent[sheet.slug] += 1
                if not sheet.left:
                    sheet.heard = None
                    closing[sheet.slug] = writer.submit(_close, workspace, generator, sheet, clip)
                close(everything=False)
                done += 1
                if progress:
                    progress(done, total, f"{sheet.slug}: {candidate.brief.prompt}")
                if sheet.broken and sheet.left:  # a full disk is heard of now, not after hours
                    failed(sheet.slug, _unwritable(workspace, sheet))
                    break
            todo = [(sheet, candidate) for sheet, candidate in todo[index + 1 :] if not sheet.broken]
        close(everything=True)
    return outcomes


def _sheet(workspace: Workspace, generator: Generator, manifest: Manifest, params: Params, order: Order, force: bool) -> Sheet:
    order, left_out = _readable(generator, manifest.slug, order, params)
    plan, folder = list(_plan(generator, manifest.slug, order, params)), workspace.candidates(manifest.slug)
    missing = [candidate for candidate in plan if force or not stands(folder / candidate.file, candidate.recipe)]
    return Sheet(manifest.slug, order, plan, missing, left_out, len(missing))


def _heard(generator: Generator, sheet: Sheet, candidate: Planned) -> tuple[Condition, Condition]:
    """What the denoiser hears of a candidate's prompt and negative prompt; a concept's are computed when its turn comes."""
    if sheet.heard is None:
        prompts = [brief.prompt for brief in sheet.order.briefs]
        negative = encode_negative(generator, candidate.recipe["negative_prompt"], sheet.order.words)
        sheet.heard = encode_texts(generator, prompts, sheet.order.words), negative
    of_prompts, negative = sheet.heard
    return of_prompts[candidate.brief.prompt], negative


def _write(sheet: Sheet, path: Path, picture: Image.Image, recipe: Recipe, *, keep: bool) -> None:
    if sheet.broken is None:
        try:
            write_picture(path, picture, recipe)
            if keep:
                sheet.pictures[path.name] = picture
        except OSError as error:
            sheet.broken = error


def _close(workspace: Workspace, generator: Generator, sheet: Sheet, clip: Clip | None) -> Outcome:
    """Write the table once all pictures are there, then remove those that it does not name."""
    folder, table = workspace.candidates(sheet.slug), workspace.candidate_table(sheet.slug)
    about = {"fingerprint": sheet.order.fingerprint, "generator": generator.name, "generator_digest": generator.digest}
    if sheet.left_out:
        about["left_out"] = sheet.left_out
    try:
        if sheet.broken is None:
            rows = [_row(sheet.slug, folder, candidate) for candidate in sheet.plan]
            if clip is not None:
                write_looks(folder, clip.digest, [row["digest"] for row in rows], _look(sheet, folder, clip))
            write_table(table, rows, SCHEMA, about)
            sweep(folder, {candidate.file for candidate in sheet.plan})
    except OSError as error:
        sheet.broken = error
    if sheet.broken is not None:
        raise _unwritable(workspace, sheet)
    return Outcome(STAGE, sheet.slug, "done", reason=sheet.left_out, path=str(table), digest=digest_file(table))


def _look(sheet: Sheet, folder: Path, clip: Clip) -> np.ndarray:
    """Embeddings of a concept's candidates [n, d], brief by brief as the stage `rank` does it, so that the bits are the same."""

    def picture(candidate: Planned) -> Image.Image:
        if (made := sheet.pictures.pop(candidate.file, None)) is not None:
            return made
        with Image.open(folder / candidate.file) as standing:  # made before this run was started
            return standing.convert("RGB")

    briefs = groupby(sheet.plan, key=lambda candidate: candidate.brief.index)
    return np.concatenate([clip.images([picture(candidate) for candidate in brief]) for _, brief in briefs])


def _unwritable(workspace: Workspace, sheet: Sheet) -> ConceptError:
    folder = workspace.candidates(sheet.slug)
    return ConceptError(sheet.slug, f"{folder} cannot be written: {sheet.broken}. Make room there, or see to the permissions.")


def read_order(workspace: Workspace, generator_digest: str, manifest: Manifest, params: Params, words: Words | None = None) -> Order:
    """Briefs and learnt words as they are now. Needs the generator's digest only, so what stands is found without loading it.

    `words` spare a run over many concepts a look at every embedding for each.
    """
    texts = brief_texts(manifest, params.generate)
    own = load_own(workspace, manifest.slug, manifest.token, manifest.initializer)
    words = words or Words(workspace)
    unwanted = [word for word in words_in([params.generate.negative_prompt]) if word != manifest.token.lower()]
    learnt = load_others(words, manifest.slug, unwanted, "generate.negative_prompt")
    learnt |= {manifest.token.lower(): own, **load_others(words, manifest.slug, words_in(texts))}
    briefs = briefs_for(manifest, texts, learnt)
    inputs = {
        "concept": manifest.slug,
        "generator": generator_digest,
        "words": {token: word.digest for token, word in learnt.items()},
        "briefs": [(brief.prompt, brief.scoring_text) for brief in briefs],
    }
    # batch_size is not in it: how many are made at a time is no property of a picture
    settings = params.generate.model_dump(mode="json", include={"candidates", "solver", "steps", "guidance_scale", "negative_prompt"})
    return Order(
        briefs, learnt, fingerprint(STAGE, VERSION, inputs, {**settings, "seed": params.seed, "precision": params.generator.precision})
    )


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a concept whose table carries the fingerprint and whose pictures are all there, else None."""
    table = workspace.candidate_table(concept)
    about = table_metadata(table)
    if about.get("fingerprint") != wanted:
        return None
    if not all((table.parent / row["file"]).is_file() for row in read_table(table)):
        return None
    return Outcome(STAGE, concept, "up-to-date", reason=about.get("left_out", ""), path=str(table), digest=digest_file(table))


def _readable(generator: Generator, concept: str, order: Order, params: Params) -> tuple[Order, str]:
    """The order with the briefs that the generator reads to their end, and why the others are left out, empty where there are none.

    Raises ConceptError when there is no such brief, or for what would spoil all of them.
    """
    for word in order.words.values():
        check_width(generator, concept, word)
    lengths = {token: len(word) for token, word in order.words.items()}
    check_prompt(generator, concept, params.generate.negative_prompt, lengths, "generate.negative_prompt")
    briefs, reasons = [], []
    for brief in order.briefs:
        try:
            check_prompt(generator, concept, brief.prompt, lengths, f"the brief {cut(brief.text)!r}")
            briefs.append(brief)
        except ConceptError as error:
            reasons.append(error.reason)
    if not briefs:
        raise ConceptError(concept, reasons[0])
    if not reasons:
        return order, ""
    more = "; …" if len(reasons) > 1 else ""
    return replace(order, briefs=briefs), f"{len(reasons)} of its {len(order.briefs)} briefs left out: {reasons[0]}{more}"


def _plan(generator: Generator, concept: str, order: Order, params: Params) -> Iterator[Planned]:
    settings, edge = params.generate, generator.resolution
    unwanted = words_in([settings.negative_prompt])
    for brief in order.briefs:
        words = {word.token: word.digest for token, word in order.words.items() if token in (*brief.words, *unwanted)}
        for index in range(settings.candidates):
            recipe = {
                "version": VERSION,
                "concept": concept,
                "brief": brief.text,
                "prompt": brief.prompt,
                "candidate": index,
                "seed": candidate_seed(params.seed, concept, brief.text, index),
                "solver": settings.solver,
                "steps": settings.steps,
                "guidance_scale": settings.guidance_scale,
                "negative_prompt": settings.negative_prompt,
                "width": edge,
                "height": edge,
                "generator": generator.name,
                "generator_digest": generator.digest,
                "precision": params.generator.precision,
                "words": words,
            }
            yield Planned(brief, recipe, file_name(recipe))


def _row(concept: str, folder: Path, planned: Planned) -> dict:
    brief, recipe = planned.brief, planned.recipe
    same = ("candidate", "prompt", "seed", "solver", "steps", "guidance_scale", "negative_prompt", "width", "height")
    return {
        "concept": concept,
        "brief_index": brief.index,
        "brief": brief.text,
        "scoring_text": brief.scoring_text,
        **{key: recipe[key] for key in same},
        "file": planned.file,
        "digest": digest_file(folder / planned.file),
    }
