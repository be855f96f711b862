"""The stage on the example concepts with the embedded models: few steps, so that nothing but the numbers' making is tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import ROOT
from tests.stages.one import Given, evaluate_one, one, validate_one
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.measure import RECONSTRUCTION, left_out
from ti_pipeline.evaluation.metrics import alike_among
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, SETUPS, concept_path
from ti_pipeline.evaluation.summary import summarise
from ti_pipeline.gallery.exhibit import read_numbers
from ti_pipeline.stages.evaluate import EVALUATE
from ti_pipeline.stages.stage import Run
from ti_pipeline.words.files import write_word
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def models(generator, ranker, judge):
    return generator, ranker, judge


def add(workspace: Workspace, params, generator, slug: str) -> Manifest:
    """Validated, with a "learnt" word that is an ordinary one of the vocabulary."""
    assert validate_one(workspace, load_concept(workspace.concepts / slug), params).ok
    manifest = read_manifest(workspace, slug)
    word = Word(manifest.token, {ONLY: generator.encoders[ONLY].table[300:301]}, provenance={"initializer": manifest.initializer or ""})
    write_word(workspace.embedding(slug), word)
    return manifest


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, params, models):
    workspace = Workspace.at(tmp_path_factory.mktemp("evaluation"), str(ROOT / "examples" / "concepts"))
    manifest = add(workspace, params, models[0], "fox")
    steps: list[tuple[int, int]] = []
    outcome = evaluate_one(workspace, models, manifest, params, lambda done, total, text: steps.append((done, total)))
    return workspace, manifest, outcome, steps


def report(workspace: Workspace, slug: str = "fox") -> dict:
    return json.loads(concept_path(workspace, slug).read_text(encoding="utf-8"))


def test_every_setup_is_a_point_with_its_interval(evaluated, params):
    workspace, manifest, outcome, steps = evaluated
    assert (outcome.state, outcome.path) == ("done", str(concept_path(workspace, "fox")))
    found = report(workspace)
    assert set(found["setups"]) == set(SETUPS)
    for name in SETUPS:
        for measure in ("reconstruction", "editability", "editability_per_sample"):
            point = found["setups"][name][measure]
            assert -1 <= point["low"] <= point["value"] <= point["high"] <= 1, (name, measure)
    prompts = params.evaluate.prompts["object"]
    assert [brief["prompt"] for brief in found["briefs"]] == prompts
    assert found["setups"][LEARNT]["reconstruction"]["n"] == 6 and found["setups"][LEARNT]["editability"]["n"] == 2 * len(prompts)
    total = 2 * 6 + 2 * 2 * len(prompts)
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_a_judge_that_ranks_too_is_said_in_the_report_and_on_the_page(tmp_path, params, models):
    generator, ranker, judge = models
    workspace = Workspace.at(tmp_path, str(ROOT / "examples" / "concepts"))
    manifest = add(workspace, params, generator, "fox")
    alone = Run(workspace, params, Given(generator, ranker, judge), ["fox"])
    assert one(EVALUATE, alone, "fox").state == "done" and "warning" not in report(workspace)
    assert read_numbers(workspace, manifest).warning is None
    both = Run(workspace, params, Given(generator, ranker, judge, dino=judge), ["fox"])
    done = one(EVALUATE, both, "fox")
    assert done.state == "done"  # what it says has changed
    said = report(workspace)["warning"]
    assert "The judge miniature is the DINO that ranks too" in said and "Set judge.model to another model" in said
    assert EVALUATE.remark(both, done).reason == said and EVALUATE.remark(alone, done) == done
    assert read_numbers(workspace, manifest).warning == said


def test_the_file_says_which_model_measured_what(evaluated, models):
    found = report(evaluated[0])
    _, ranker, judge = models
    assert found["measured_by"]["reconstruction"] == {"judge": judge.name, "digest": judge.digest}
    assert found["measured_by"]["editability"]["digest"] == ranker.digest
    assert "ranker's CLIP" in found["measured_by"]["editability"]["why"]
    assert judge.digest != ranker.digest


def test_image_only_is_the_likeness_of_the_pictures_among_themselves(evaluated, models):
    workspace, manifest, _, _ = evaluated
    _, ranker, judge = models
    pictures = [manifest.open(picture) for picture in manifest.pictures]
    found = report(workspace)["setups"][PICTURES]
    assert found["reconstruction"]["value"] == pytest.approx(alike_among(judge.images(pictures)).mean(), abs=1e-5)
    texts = ranker.texts([left_out(brief["prompt"]) for brief in report(workspace)["briefs"]])
    mean = ranker.images(pictures).mean(axis=0)
    assert found["editability"]["value"] == pytest.approx(float(np.mean(texts @ (mean / np.linalg.norm(mean)))), abs=1e-5)


def test_the_same_seeds_give_the_same_bytes_in_any_company(evaluated, params, models, tmp_path):
    workspace, manifest, _, _ = evaluated
    before = concept_path(workspace, "fox").read_bytes()
    assert evaluate_one(workspace, models, manifest, params).state == "up-to-date"
    assert evaluate_one(workspace, models, manifest, params, force=True).state == "done"  # with the shared samples of the first
    assert concept_path(workspace, "fox").read_bytes() == before
    other = params.model_copy(update={"seed": 1})
    assert evaluate_one(workspace, models, manifest, other).state == "done"
    assert report(workspace)["setups"][LEARNT] != json.loads(before)["setups"][LEARNT]
    concept_path(workspace, "fox").write_bytes(before)


def test_a_style_has_a_prompt_of_its_own_and_the_summary_takes_both(evaluated, params, models):
    workspace = evaluated[0]
    manifest = add(workspace, params, models[0], "cyanotype")
    evaluate_one(workspace, models, manifest, params)
    found = report(workspace, "cyanotype")
    assert found["reconstruction_prompt"] == RECONSTRUCTION["style"] == "a picture in the style of {token}"
    assert found["briefs"][0]["text"] == "a picture of a dog in the style of"
    path = summarise(workspace, ["fox", "cyanotype", "never-evaluated"])
    metrics = json.loads(path.with_name("details.json").read_text())
    assert metrics["concepts"] == 2
    values = [report(workspace, slug)["setups"][PROMPT]["reconstruction"]["value"] for slug in ("fox", "cyanotype")]
    assert metrics["prompt_only_reconstruction"] == pytest.approx(np.mean(values), abs=1e-6)


def test_what_is_missing_or_too_long_is_a_concept_error(evaluated, params, models):
    workspace, manifest, _, _ = evaluated
    long = {"object": ["a {token} " + "and a cat " * 30]}
    wordy = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"prompts": long})})
    with pytest.raises(ConceptError, match="would be cut off"):
        evaluate_one(workspace, models, manifest, wordy)
    none = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"prompts": {}})})
    with pytest.raises(ConceptError, match="evaluate.prompts.object"):
        evaluate_one(workspace, models, manifest, none)
    workspace.embedding("fox").rename(workspace.embedding("fox").with_suffix(".away"))
    try:
        with pytest.raises(ConceptError, match="Run `?.*train"):
            evaluate_one(workspace, models, manifest, params)
    finally:
        workspace.embedding("fox").with_suffix(".away").rename(workspace.embedding("fox"))


def test_a_gallery_reads_the_numbers(evaluated):
    workspace, manifest, _, _ = evaluated
    numbers = read_numbers(workspace, manifest)
    assert [scale.name for scale in numbers.scales] == ["Likeness", "Follows the prompt"]
    found = report(workspace)
    assert numbers.scales[0].raw["learnt word"] == found["setups"][LEARNT]["reconstruction"]["value"]
    assert numbers.scales[0].percent == pytest.approx(found["gain_percent"]["value"], abs=0.06)  # one decimal


def test_the_rankers_likeness_of_the_plain_words_pictures_and_of_the_photos(evaluated, models):
    workspace, manifest, _, _ = evaluated
    seen = models[1].images([manifest.open(picture) for picture in manifest.pictures]).astype(float)
    pairs = [seen[i] @ seen[k] for i in range(len(seen)) for k in range(len(seen)) if i != k]
    ends = report(workspace)["clip_likeness"]
    assert ends[PICTURES] == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    assert -1 <= ends[PROMPT] < ends[PICTURES]


def test_the_placeholder_is_left_out():
    assert left_out("a sketch picture of a {token} on a red background") == "a sketch picture of a on a red background"
    assert left_out("{token}") == ""


def test_one_picture_has_no_reference_among_its_own(params, models, tmp_path: Path):
    workspace = Workspace.at(tmp_path, "concepts")
    folder = workspace.concepts / "lonely"
    folder.mkdir(parents=True)
    (folder / "fox.png").write_bytes((ROOT / "examples" / "concepts" / "fox" / "white.png").read_bytes())
    (folder / "concept.yaml").write_text("initializer: wolf\n")
    evaluate_one(workspace, models, add(workspace, params, models[0], "lonely"), params)
    found = report(workspace, "lonely")
    assert found["setups"][PICTURES]["reconstruction"] is None and found["gain_percent"] is None
    assert json.loads(summarise(workspace, ["lonely"]).read_text())["concepts"] == 1
