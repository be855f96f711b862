"""The stage `generate`: words and briefs to candidates, N for every brief of every concept."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.concepts.texts import cut
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table, table_metadata
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import is_there
from ti_pipeline.stages.sizes import check_size, size_of
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import CANDIDATES, EMBEDDINGS, LOOKS, MANIFESTS, Outcome, Workspace, fingerprint

if TYPE_CHECKING:
    from ti_pipeline.candidates.recipe import Elsewhere
    from ti_pipeline.candidates.sheet import Order, Planned, Sheet
    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.words.learnt import Words


def _words(run: Run) -> Words:
    from ti_pipeline.words.learnt import Words

    return Words(run.workspace)


def _plan(run: Run, slug: str) -> Plan:
    manifest = read_manifest(run.workspace, slug)
    order = read_order(run.workspace, run.models.source.digest, manifest, run.params, run.once(_words))
    return Plan(slug, order.fingerprint, standing(run.workspace, slug, order.fingerprint), order)


def read_order(workspace: Workspace, generator_digest: str, manifest: Manifest, params: Params, words: Words) -> Order:
    """Briefs and learnt words as they are now. Needs the generator's digest only, so what stands is found without loading it."""
    from ti_pipeline.candidates.briefs import brief_texts, briefs_for, words_in
    from ti_pipeline.candidates.recipe import VERSION
    from ti_pipeline.candidates.sheet import Order
    from ti_pipeline.words.learnt import load_others, load_own

    texts = brief_texts(manifest, params.generate)
    own = load_own(workspace, manifest.slug, manifest.token, manifest.initializer)
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
    settings |= params.generate.model_dump(mode="json", include={"width", "height"}, exclude_none=True)
    return Order(briefs, learnt, fingerprint("generate", VERSION, inputs, {**settings, "seed": params.seed, **params.generator.decisive()}))


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a concept whose table carries the fingerprint and whose pictures are all there, else None."""
    table = workspace.candidate_table(concept)
    about = table_metadata(table)
    if about.get("fingerprint") != wanted:
        return None
    if not all((table.parent / row["file"]).is_file() for row in read_table(table)):
        return None
    return Outcome("generate", concept, "up-to-date", reason=about.get("left_out", ""), path=str(table), digest=digest_file(table))


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    """The seconds of a concept are the pictures that were made for it: they take equally long."""
    from ti_pipeline.candidates.draw import draw
    from ti_pipeline.planning.speed import keep_speed
    from ti_pipeline.sampling.sample import Settings, even_batch

    generator, section, sheets = run.models.generator, run.params.generate, []
    width, height = size_of(generator, section)
    for plan in plans:
        try:
            sheets.append(_sheet(run, plan))
        except Exception as error:
            yield Lost(plan.concept, error)
    # with what stands already a batch has the shape that it would have had without
    beside = sum(len(read_table(run.workspace.candidate_table(plan.concept))) for plan in run.standing)
    size = even_batch(sum(len(sheet.plan) for sheet in sheets) + beside, section.batch_size, max(width, height))
    settings = Settings(section.solver, section.steps, section.guidance_scale, section.negative_prompt, size, (width, height))
    began, pictures = time.monotonic(), sum(len(sheet.missing) for sheet in sheets)
    for sheet in draw(generator, sheets, settings, run.models.ranker_if_there, run.report):
        table = sheet.place.table
        if sheet.broken:
            reason = f"{table.parent} cannot be written: {sheet.broken}. Make room there, or check the permissions."
            yield Lost(sheet.concept, ConceptError(sheet.concept, reason), sheet.made)
        else:
            reason = sheet.about.get("left_out", "")
            yield Outcome("generate", sheet.concept, "done", sheet.made, reason, str(table), digest_file(table))
    if pictures >= size and not any(sheet.broken for sheet in sheets):
        passes = section.steps * (2 if generator.contrasts(section.guidance_scale) else 1)
        keep_speed("passes", generator, False, pictures * passes / (time.monotonic() - began), generator.latents_of(width, height))


def _sheet(run: Run, plan: Plan) -> Sheet:
    from ti_pipeline.candidates.files import stands
    from ti_pipeline.candidates.sheet import Place, Sheet

    generator, slug = run.models.generator, plan.concept
    order, left_out = _readable(generator, slug, plan.order, run.params)
    wanted = list(planned(run, slug, order))
    place = Place(run.workspace.candidate_table(slug), run.workspace.looks(slug))
    missing = [one for one in wanted if run.force or not stands(place.folder / one.file, one.recipe)]
    about = {"fingerprint": plan.fingerprint, "generator": generator.name, "generator_digest": generator.digest}
    about |= {"left_out": left_out} if left_out else {}
    return Sheet(slug, order, wanted, missing, place, about, len(missing))


def _readable(generator: Generator, concept: str, order: Order, params: Params) -> tuple[Order, str]:
    """The order with the briefs that the generator reads to their end, and why the others are left out, empty where there are none.

    Raises ConceptError when there is no such brief, or for what would spoil all of them.
    """
    from ti_pipeline.generators.placeholder import check_prompt, check_width

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


def planned(run: Run, concept: str, order: Order) -> Iterator[Planned]:
    """Every candidate of an order before it is made, brief by brief, with the recipe and the name that it will have."""
    from ti_pipeline.candidates.briefs import words_in
    from ti_pipeline.candidates.recipe import VERSION, file_name, parameters_text
    from ti_pipeline.candidates.sheet import Planned
    from ti_pipeline.sampling.seeds import candidate_seed

    generator, settings, params = run.models.generator, run.params.generate, run.params
    width, height = size_of(generator, settings)
    unwanted, elsewhere = words_in([settings.negative_prompt]), _elsewhere(run, order)
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
                "width": width,
                "height": height,
                "generator": generator.name,
                "generator_digest": generator.digest,
                **params.generator.decisive(),
                "words": words,
            }
            yield Planned(brief, recipe, file_name(recipe), parameters_text(recipe, elsewhere))


def _elsewhere(run: Run, order: Order) -> Elsewhere:
    """What other tools call the generator, what it does, and the words of an order when they are exported."""
    from ti_pipeline.candidates.recipe import Elsewhere
    from ti_pipeline.concepts.concept import suggest_slug
    from ti_pipeline.generators.solvers import NAMES
    from ti_pipeline.words.names import name_of

    generator, section = run.models.generator, run.params.generate
    named = "euler" if section.solver == "ddim" and not generator.diffuses else section.solver
    spacing = generator.spacing(section.solver, section.steps, generator.latents_of(*size_of(generator, section)))
    names = {token: name_of(word.provenance.get("concept") or suggest_slug(token)) for token, word in order.words.items()}
    guidance = generator.guidance_elsewhere(section.guidance_scale)
    return Elsewhere(NAMES[named], spacing, guidance, run.models.source.file_digest[:10], names)


def _withdraw(workspace: Workspace, known: Collection[str]) -> None:
    """What CLIP saw in pictures that have gone."""
    for path in (workspace.artifacts / LOOKS).glob("[!.]*.safetensors"):
        if path.stem not in known and not is_there(workspace, path.stem):
            path.unlink(missing_ok=True)


GENERATE = Stage(
    name="generate",
    about="Draw candidates for every brief.",
    output=CANDIDATES,
    places=("{}",),
    last=Workspace.candidate_table,
    reads=(MANIFESTS, EMBEDDINGS),
    needs=(MANIFESTS, EMBEDDINGS),
    sections=("seed", "generate"),
    models=("generator", "ranker"),  # with the ranker it makes no candidate: it fills its scratch
    hours=12,
    plan=_plan,
    work=_work,
    check=lambda run: run.once(check_size),
    together=True,
    scratch=(LOOKS,),
    withdraw=_withdraw,
)
