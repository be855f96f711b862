"""The stage `generate`: N candidates for every brief of a concept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ti_pipeline.candidates.briefs import Brief, brief_texts, briefs_for, words_in
from ti_pipeline.candidates.files import SCHEMA, stands, sweep, write_picture
from ti_pipeline.candidates.learnt import LearntWord, check_width, load_others, load_own
from ti_pipeline.candidates.recipe import VERSION, Recipe, file_name
from ti_pipeline.candidates.sample import Settings, sample
from ti_pipeline.candidates.seeds import candidate_seed
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table, table_metadata, write_table
from ti_pipeline.generators.load import Generator
from ti_pipeline.generators.placeholder import check_prompt
from ti_pipeline.params import Params
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

STAGE = "generate"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Order:
    """What is wanted of one concept: its briefs, the learnt words in them by token, and the digest that it stands under."""

    briefs: list[Brief]
    words: dict[str, LearntWord]
    fingerprint: str


@dataclass(frozen=True)
class Planned:
    """One candidate before it is made."""

    brief: Brief
    recipe: Recipe
    file: str


def generate_one(
    workspace: Workspace, generator: Generator, manifest: Manifest, params: Params, progress: Progress | None = None, *, force: bool = False
) -> Outcome:
    """Make the candidates of one concept, or find that they stand.

    Killed and started again, it keeps the pictures that are there; until the new table is written, the old one and all
    its pictures stand. Raises ConceptError for what is wrong with this concept.
    """
    began = time.monotonic()
    order = read_order(workspace, generator.digest, manifest, params)
    if not force and (outcome := standing(workspace, manifest.slug, order.fingerprint)):
        return outcome
    _check(generator, manifest.slug, order, params)
    plan = list(_plan(generator, manifest.slug, order, params))
    folder, table = workspace.candidates(manifest.slug), workspace.candidate_table(manifest.slug)
    try:
        _make(generator, folder, plan, order.words, params, progress, force)
        rows = [_row(manifest.slug, folder, candidate) for candidate in plan]
        write_table(
            table, rows, SCHEMA, {"fingerprint": order.fingerprint, "generator": generator.name, "generator_digest": generator.digest}
        )
        sweep(folder, {candidate.file for candidate in plan})
    except OSError as error:
        raise ConceptError(manifest.slug, f"{folder} cannot be written: {error}. Make room there, or see to the permissions.") from None
    return Outcome(STAGE, manifest.slug, "done", time.monotonic() - began, path=str(table), digest=digest_file(table))


def read_order(workspace: Workspace, generator_digest: str, manifest: Manifest, params: Params) -> Order:
    """Briefs and learnt words as they are now. Needs the generator's digest only, so what stands is found without loading it."""
    texts = brief_texts(manifest, params.generate)
    own = load_own(workspace, manifest.slug, manifest.token, manifest.initializer)
    learnt = {manifest.token.lower(): own, **load_others(workspace, manifest.slug, words_in(texts))}
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
    if table_metadata(table).get("fingerprint") != wanted:
        return None
    if not all((table.parent / row["file"]).is_file() for row in read_table(table)):
        return None
    return Outcome(STAGE, concept, "up-to-date", path=str(table), digest=digest_file(table))


def _check(generator: Generator, concept: str, order: Order, params: Params) -> None:
    for word in order.words.values():
        check_width(generator, concept, word)
    lengths = {token: len(word.vectors) for token, word in order.words.items()}
    for prompt in (*(brief.prompt for brief in order.briefs), params.generate.negative_prompt):
        check_prompt(generator, concept, prompt, lengths)


def _plan(generator: Generator, concept: str, order: Order, params: Params) -> Iterator[Planned]:
    settings, edge = params.generate, generator.resolution
    for brief in order.briefs:
        words = {word.token: word.digest for token, word in order.words.items() if token in brief.words}
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


def _make(
    generator: Generator,
    folder: Path,
    plan: list[Planned],
    words: dict[str, LearntWord],
    params: Params,
    progress: Progress | None,
    force: bool,
) -> None:
    """Make what is missing; files are written while the next batch is being denoised."""
    missing = [candidate for candidate in plan if force or not stands(folder / candidate.file, candidate.recipe)]
    section = params.generate
    settings = Settings(section.solver, section.steps, section.guidance_scale, section.negative_prompt, min(section.batch_size, len(plan)))
    pictures = sample(
        generator,
        [candidate.brief.prompt for candidate in missing],
        {token: word.vectors for token, word in words.items()},
        [candidate.recipe["seed"] for candidate in missing],
        settings,
    )
    with ThreadPoolExecutor(max_workers=1) as writer:
        writing: deque[Future] = deque()
        for made, (index, picture) in enumerate(pictures, start=len(plan) - len(missing) + 1):
            candidate = missing[index]
            writing.append(writer.submit(write_picture, folder / candidate.file, picture, candidate.recipe))
            while writing and writing[0].done():  # a full disk is heard of now, not after hours
                writing.popleft().result()
            if progress:
                progress(made, len(plan), candidate.brief.prompt)
        for last in writing:
            last.result()


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
