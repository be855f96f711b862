"""What `train` leaves of a concept: what it is to stand under, what a training has made, and what is made of that.

Training writes the log and the words of the steps that are kept; the strip of previews, the choice of a step and, last, the word follow
from these. So a kill behind the training, or another choice, needs no training again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.files import digest_file, table_metadata, write_table
from ti_pipeline.params import Generator, Params, Train
from ti_pipeline.stages.stage import Run
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

if TYPE_CHECKING:
    from ti_pipeline.generators.source import Source
    from ti_pipeline.inversion.previews import Film
    from ti_pipeline.words.word import Word

SAMPLER = {"preview_prompt", "preview_solver", "preview_steps", "preview_guidance_scale"}


@dataclass(frozen=True)
class Wanted:
    """The digests that a concept's files are to stand under; without a `curve` or a `strip` there is to be none.

    `trained` is what the vectors of all steps depend on, `word` what the one that is taken does. `keep` are the steps to be kept as far as
    training reaches them, None for no file of steps.
    """

    trained: str
    word: str
    curve: str = ""
    strip: str = ""
    keep: tuple[int, ...] | None = None

    def steps(self, about: Mapping[str, str]) -> set[int]:
        """Those in the file of steps: also the last, and the one that is taken where nothing is chosen."""
        last = int(about["steps"])
        return {step for step in self.keep or () if step <= last} | {last, int(about["chosen_step"])}


@dataclass(frozen=True)
class Learnt:
    """What a training has made of a concept: words by their steps, and the provenance that they have in common."""

    words: Mapping[int, Word]
    provenance: Mapping[str, str]


def training_fingerprint(
    generator: str, ranker: str, manifest: Manifest, params: Params, learning: Mapping[str, Any] | None = None, start: str = ""
) -> str:
    """What the vectors depend on, by the digests of the models: nothing need be loaded.

    The device is left out, the precision is not; the ranker counts only where it chooses the initializer or the setup looks, and is
    empty elsewhere. `learning` is how the generator learns, as `how_it_learns` has it; `start` is what the word stands under that it goes
    on from, where that is another concept's.
    """
    from ti_pipeline.inversion.job import VERSION

    inputs = {"generator": generator, "manifest": manifest.training_digest} | ({"ranker": ranker} if ranker else {})
    inputs |= {"start": start} if start else {}
    train = params.train.for_concept(manifest).decisive()
    if manifest.start and manifest.vectors is None:
        del train["vectors"]  # it has as many as what it goes on from
    sections = params.section("seed") | {"train": train, **(learning or {})}
    return fingerprint("train", VERSION, inputs, sections | params.generator.decisive())


def how_it_learns(source: Source, settings: Generator) -> dict[str, Any]:
    """The text encoders that learn, where not all of them do, and the density of noise levels, where it is not the family's own."""
    from ti_pipeline.generators.family import other_density, some_of

    encoders, density = some_of(source, settings.encoders), other_density(source, settings.density)
    return {**({"encoders": [*encoders]} if encoders else {}), **({"density": density} if density else {})}


def wanted_of(run: Run, manifest: Manifest, start: str = "") -> Wanted:
    """`start` as in `training_fingerprint`. Raises ConceptError for a kind of concept that nothing is drawn of."""
    train, source = run.params.train.for_concept(manifest), run.models.source
    ranker = run.models.ranker_digest if train.chosen.looks or not manifest.initializer else ""
    trained = training_fingerprint(source.digest, ranker, manifest, run.params, how_it_learns(source, run.params.generator), start)
    word, curve, strip = trained, "", ""
    if train.compromise is not None:
        from ti_pipeline.inversion.curve import VERSION, prompts_of

        settings = train.model_dump(mode="json", include={"compromise", "compromise_samples", "keep_steps", *SAMPLER})
        settings |= {"preview_prompt": prompts_of(manifest, train)}
        word = curve = fingerprint("compromise", VERSION, {"trained": trained, "ranker": run.models.ranker_digest}, settings)
    if train.preview_every:
        from ti_pipeline.inversion.previews import neutral_prompt

        settings = train.model_dump(mode="json", include=SAMPLER)
        settings |= {"preview_prompt": neutral_prompt(manifest, train), "steps": [*train.drawn_at]}
        strip = fingerprint("preview", 1, {"trained": trained}, settings)
    return Wanted(trained, word, curve, strip, tuple(train.kept_at) if train.keep_steps or train.preview_every else None)


def standing(workspace: Workspace, concept: str, wanted: Wanted) -> Outcome | None:
    """The outcome of a concept of which everything is there and carries its digest, else None."""
    from ti_pipeline.inversion.strip import strip_fingerprint
    from ti_pipeline.words.headers import word_fingerprint
    from ti_pipeline.words.steps import steps_in

    path = workspace.embedding(concept)
    if word_fingerprint(path) != wanted.word or table_metadata(workspace.training(concept)).get("fingerprint") != wanted.trained:
        return None
    steps, strip, curve = workspace.steps(concept), workspace.strip(concept), workspace.curve(concept)
    if [steps.exists(), strip.exists(), curve.exists()] != [wanted.keep is not None, bool(wanted.strip), bool(wanted.curve)]:
        return None
    if wanted.keep is not None:
        found, about = steps_in(steps)
        if about.get("fingerprint") != wanted.trained or set(found) != wanted.steps(about):
            return None
    if strip_fingerprint(strip) != wanted.strip or table_metadata(curve).get("fingerprint", "") != wanted.curve:
        return None
    return Outcome("train", concept, "up-to-date", path=str(path), digest=digest_file(path))


def read_learnt(workspace: Workspace, concept: str, wanted: Wanted) -> Learnt | None:
    """What an earlier training has left, where nothing is missing of what is wanted now."""
    from ti_pipeline.errors import ParamsError
    from ti_pipeline.words.steps import read_steps

    try:
        words, about = read_steps(workspace.steps(concept))
    except ParamsError:
        return None
    log = table_metadata(workspace.training(concept)).get("fingerprint")
    if not about.get("fingerprint") == log == wanted.trained or not wanted.steps(about) <= words.keys():
        return None
    return Learnt(words, about)


def keep(workspace: Workspace, concept: str, wanted: Wanted, learnt: Learnt) -> None:
    """Write the words of the steps that are wanted, or nothing."""
    from ti_pipeline.words.steps import write_steps

    path = workspace.steps(concept)
    if wanted.keep is None:
        path.unlink(missing_ok=True)
        return
    steps = wanted.steps(learnt.provenance)
    write_steps(path, {step: word for step, word in learnt.words.items() if step in steps}, learnt.provenance)


def film_of(run: Run, manifest: Manifest, wanted: Wanted) -> Film:
    from ti_pipeline.inversion.previews import Film, neutral_prompt, preview_seed

    prompt, seed = neutral_prompt(manifest, run.params.train), preview_seed(run.params.seed, manifest.slug)
    return Film(run.workspace.frames(manifest.slug), manifest.token, prompt, seed, wanted.strip)


def finish(run: Run, manifest: Manifest, wanted: Wanted, learnt: Learnt) -> Path:
    """Write what follows from what was learnt, the word last."""
    from ti_pipeline.words.files import write_word

    slug, train = manifest.slug, run.params.train.for_concept(manifest)
    _finish_strip(run, manifest, wanted, learnt, train)
    step, chosen = int(learnt.provenance["chosen_step"]), dict[str, str]()
    if wanted.curve:
        step, chosen = _choose(run, manifest, wanted, learnt, train)
    else:
        run.workspace.curve(slug).unlink(missing_ok=True)
    keep(run.workspace, slug, wanted, learnt)
    provenance = {**learnt.provenance, **chosen, "fingerprint": wanted.word}
    path = run.workspace.embedding(slug)
    write_word(path, replace(learnt.words[step], provenance=provenance))
    shutil.rmtree(run.workspace.frames(slug), ignore_errors=True)
    return path


def _finish_strip(run: Run, manifest: Manifest, wanted: Wanted, learnt: Learnt, train: Train) -> None:
    from ti_pipeline.inversion.strip import strip_fingerprint, write_strip

    path = run.workspace.strip(manifest.slug)
    if not wanted.strip:
        path.unlink(missing_ok=True)
    elif strip_fingerprint(path) != wanted.strip:
        drawn = {*train.drawn_at, int(learnt.provenance["steps"])}
        words = {step: word for step, word in learnt.words.items() if step in drawn}
        write_strip(path, film_of(run, manifest, wanted).pictures(run.models.generator, words, train), wanted.strip)


def _choose(run: Run, manifest: Manifest, wanted: Wanted, learnt: Learnt, train: Train) -> tuple[int, dict[str, str]]:
    """The step of the best compromise, and what the word's provenance says of it; the table of all steps is written."""
    from ti_pipeline.inversion.curve import SCHEMA, Eyes, choose, look

    assert train.compromise is not None
    own = {int(learnt.provenance[key]) for key in ("steps", "chosen_step")}
    words = {step: word for step, word in learnt.words.items() if step in own.union(train.keep_steps)}
    ranker = run.models.ranker
    seen, ends = look(Eyes(run.models.generator, ranker), manifest, train, run.params.seed, words)
    rows = choose(seen, ends, train.compromise)
    both = {name: {"likeness": end.likeness, "faithfulness": end.faithfulness} for name, end in ends.items()}
    about = {"compromise": f"{train.compromise:g}", "ranker": ranker.name, "ranker_digest": ranker.digest, "ends": json.dumps(both)}
    metadata = {"fingerprint": wanted.curve, "concept": manifest.slug, "samples": str(train.compromise_samples)}
    write_table(run.workspace.curve(manifest.slug), rows, SCHEMA, {**metadata, **about})
    curve = {row["step"]: [row["likeness"], row["faithfulness"]] for row in rows}
    (step,) = [row["step"] for row in rows if row["chosen"]]
    return step, {**about, "curve": json.dumps(curve), "chosen_step": str(step)}
