"""From a typed prompt to pictures in their order, by the functions that the stages `generate` and `rank` use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ti_pipeline.candidates.files import stands, write_picture
from ti_pipeline.candidates.sheet import Planned
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.generators.placeholder import check_width
from ti_pipeline.ranking.select import rank_candidates
from ti_pipeline.sampling.sample import Settings, even_batch, sample
from ti_pipeline.stages.generate import planned
from ti_pipeline.stages.sizes import size_of
from ti_pipeline.stages.stage import Run
from ti_pipeline.studio.drawn import Drawn, Picture
from ti_pipeline.studio.prompt import Asked, Known, check_length, understand


def draw(run: Run, prompt: str, known: Known, folder: Path | None = None) -> Drawn:
    """`generate.candidates` pictures of a prompt that may name any of the known words, in the order of `rank`.

    With a folder each picture is written there as soon as it is made, the contact sheet last, and those that stand there are not made
    again; what else is in it stays. Raises ParamsError for a word that there is not, and for a prompt that would be cut off.
    """
    section = run.params.generate
    if folder and folder.exists() and not folder.is_dir():
        raise ParamsError(f"{folder} is a file. Give a folder for the pictures.")
    asked = understand(prompt, known, section.negative_prompt)
    check_length(asked, run.models.reader_if_there or run.models.generator, section.negative_prompt)
    for word in asked.order.words.values():
        try:
            check_width(run.models.generator, asked.concept, word)
        except ConceptError as error:
            raise ParamsError(error.reason) from None
    plan = list(planned(run, asked.concept, asked.order))
    drawn = _ordered(run, asked, plan, _pictures(run, asked, plan, folder), known)
    if folder:
        drawn.save_sheet(folder)
    return drawn


def _pictures(run: Run, asked: Asked, plan: Sequence[Planned], folder: Path | None) -> list[Image.Image]:
    """One for each of the plan, in its order. A batch has the shape that it would have if nothing stood."""
    missing = [i for i, one in enumerate(plan) if not (folder and stands(folder / one.file, one.recipe))]
    section, generator = run.params.generate, run.models.generator
    edges = size_of(generator, section)
    size = even_batch(len(plan), section.batch_size, max(edges))
    settings = Settings(section.solver, section.steps, section.guidance_scale, section.negative_prompt, size, edges)
    prompts, seeds = [plan[i].brief.prompt for i in missing], [plan[i].recipe["seed"] for i in missing]
    made: dict[int, Image.Image] = {}
    for index, picture in sample(generator, prompts, asked.order.words, seeds, settings) if missing else ():
        one = plan[missing[index]]
        if folder:
            write_picture(folder / one.file, picture, one.recipe, one.parameters)
        made[missing[index]] = picture
        run.report(len(plan) - len(missing) + len(made), len(plan), one.brief.prompt)
    if folder:
        made |= {i: _opened(folder / one.file) for i, one in enumerate(plan) if i not in made}
    return [made[i] for i in range(len(plan))]


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _ordered(run: Run, asked: Asked, plan: Sequence[Planned], pictures: list[Image.Image], known: Known) -> Drawn:
    (brief,) = asked.order.briefs
    try:
        sight = run.models.sight
    except ParamsError as error:
        unranked = tuple(Picture(pictures[i], one, i + 1, "not ranked") for i, one in enumerate(plan))
        return Drawn(brief.prompt, f"not ranked, in the order of their numbers: {error}", unranked)
    seen = sight.ranker.images(pictures).astype(np.float64)
    faithfulness = seen @ sight.ranker.texts([brief.scoring_text]).astype(np.float64)[0]
    references = _references(asked, known)
    likeness = sight.likeness_to(references, pictures, seen) if references else None
    section, rows = run.params.rank, list[Picture]()
    rule = f"ranked by CLIP's faithfulness to {brief.scoring_text!r}"
    if likeness is not None:
        rule = f"{rule} and, with the weight {section.likeness_weight:g}, by the likeness to the pictures of {asked.concept}"
        rule += f", by {sight.likeness}" if sight.dino else ""
    for place in rank_candidates(likeness, faithfulness, seen, section.likeness_weight, section.near_duplicate):
        i = place.candidate
        like = None if likeness is None else float(likeness[i])
        rows.append(Picture(pictures[i], plan[i], place.place, place.reason, like, float(faithfulness[i])))
    return Drawn(brief.prompt, rule, tuple(rows))


def _references(asked: Asked, known: Known) -> list[Image.Image]:
    """The pictures of the one concept that a prompt names; none for several, or where there are none to be seen."""
    if len(asked.tokens) != 1 or (manifest := known.manifest(asked.tokens[0])) is None or not manifest.pictures:
        return []
    try:
        return [manifest.open(picture) for picture in manifest.pictures]
    except ConceptError:  # they have changed since: what was learnt is of others
        return []
