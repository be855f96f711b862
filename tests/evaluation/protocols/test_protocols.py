"""Other papers' protocols: their prompts, their datasets' layouts, and their numbers against plain loops over the same pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import ROOT
from tests.evaluation.test_evaluate import add
from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.draw import sample_seed
from ti_pipeline.evaluation.protocols import protocols
from ti_pipeline.evaluation.protocols.protocol import Subject
from ti_pipeline.evaluation.protocols.sets import lay_out
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.stages.protocol import stage_of, table_path
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.words.files import read_word
from ti_pipeline.workspace import Workspace

PNG = Image.new("RGB", (64, 64), "red")


def changed(params, **protocol):
    return params.model_copy(update={"protocol": params.protocol.model_copy(update=protocol)})


@pytest.fixture(scope="module")
def small(params):
    """One picture of each of DreamBench's prompts, in two steps."""
    return changed(params, samples=1)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, params, generator) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("protocols"), str(ROOT / "examples" / "concepts"))
    for slug in ("fox", "frog", "cyanotype"):
        add(workspace, params, generator, slug)
    return workspace


def measured(workspace: Workspace, params, name: str, *slugs: str, force: bool = False):
    return run_stage(stage_of(name), Run.over(workspace, params, slugs, force=force))


def report(workspace: Workspace, name: str, slug: str) -> dict:
    return json.loads((table_path(workspace, name).parent / "subjects" / f"{slug}.json").read_text())


def test_dreambench_has_its_prompts_for_things_and_for_live_subjects(workspace, small):
    from ti_pipeline.concepts.manifest import read_manifest

    manifest = read_manifest(workspace, "fox")
    things, live = (protocols()["dreambench"].prompts(Subject(manifest, "wolf", (), alive)) for alive in (False, True))
    assert len(things) == len(live) == 25 and len({*things}) == len({*live}) == 25
    assert {*things} & {*live} == {*things[:10], *things[20:]} and things[20:] == live[20:]
    assert "a <fox> floating in an ocean of milk" in [prompt.drawn("<fox>") for prompt in things]
    assert "a wolf wearing a black top hat and a monocle" in [prompt.read for prompt in live]


def test_the_numbers_are_those_of_plain_loops(workspace, small, generator, ranker, judge):
    (outcome,) = measured(workspace, small, "dreambench", "fox")
    assert outcome.state == "done"
    found = report(workspace, "dreambench", "fox")
    word = read_word(workspace.embedding("fox"))
    # its initializer is a wolf, which is alive: the live prompts
    prompts = protocols()["dreambench"].prompts(_subject(workspace, live=True))
    section, texts = small.evaluate, [prompt.drawn("<fox>") for prompt in prompts]
    settings = Settings(section.solver, section.steps, section.guidance_scale, "", section.batch_size)
    seeds = [sample_seed(small.seed, "fox", prompt.text, 0) for prompt in prompts]
    drawn = [picture for _, picture in sample(generator, texts, {"<fox>": word}, seeds, settings)]
    real = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples/concepts/fox").glob("*.png"))]
    for measure, model in (("dino", judge), ("clip_i", ranker)):
        pairs = [float(a @ b) for a in model.images(drawn) for b in model.images(real)]
        assert found["measures"][measure] == pytest.approx(np.mean(pairs), abs=2e-6)
        among = [float(a @ b) for i, a in enumerate(model.images(real)) for j, b in enumerate(model.images(real)) if i != j]
        assert found["real"][measure] == pytest.approx(np.mean(among), abs=2e-6)
    said = ranker.texts([prompt.text.replace("{token}", "wolf") for prompt in prompts])
    told = [float(a @ b) for a, b in zip(ranker.images(drawn), said, strict=True)]
    assert found["measures"]["clip_t"] == pytest.approx(np.mean(told), abs=2e-6)


def _subject(workspace: Workspace, live: bool) -> Subject:
    from ti_pipeline.concepts.manifest import read_manifest

    return Subject(read_manifest(workspace, "fox"), "wolf", (), live)


def test_what_stands_is_passed_over_and_the_table_names_who_measured(workspace, small):
    measured(workspace, small, "dreambench", "fox")
    before = (table_path(workspace, "dreambench").parent / "subjects/fox.json").read_bytes()
    fox, frog = measured(workspace, small, "dreambench", "fox", "frog")
    assert (fox.state, frog.state) == ("up-to-date", "done")
    measured(workspace, small, "dreambench", "fox", force=True)
    assert (table_path(workspace, "dreambench").parent / "subjects/fox.json").read_bytes() == before
    page = table_path(workspace, "dreambench").read_text()
    both = [report(workspace, "dreambench", slug)["measures"]["dino"] for slug in ("fox", "frog")]
    assert f"| **learnt here** | miniature at 64 px; judge miniature, CLIP miniature | {np.mean(both):.3f} (" in page
    assert "| textual inversion | Stable Diffusion; DreamBench | 0.569 | 0.780 | 0.255 |" in page
    assert "The protocol draws 4 samples of a prompt" in page
    metrics = json.loads((table_path(workspace, "dreambench").parent / "metrics.json").read_text())
    assert metrics["subjects"] == 2 and metrics["dino_low"] <= metrics["dino"] <= metrics["dino_high"]


def test_a_subject_that_was_measured_otherwise_is_not_in_the_mean(workspace, small):
    measured(workspace, small, "dreambench", "fox", "frog")
    other = small.model_copy(update={"evaluate": small.evaluate.model_copy(update={"steps": 3})})
    measured(workspace, other, "dreambench", "fox")
    assert json.loads((table_path(workspace, "dreambench").parent / "metrics.json").read_text())["subjects"] == 1
    measured(workspace, small, "dreambench", "fox")


def test_a_style_and_a_subject_without_prompts_fall_out_by_name(workspace, small):
    outcomes = measured(workspace, small, "dreambench", "cyanotype", "fox")
    assert [outcome.state for outcome in outcomes] == ["failed", "up-to-date"] and "it is a style" in outcomes[0].reason
    (outcome,) = measured(workspace, small, "custom-concept-101", "fox")
    assert outcome.state == "failed" and "fox.txt in the folder that protocol.prompts names" in outcome.reason
    with pytest.raises(ParamsError, match="There are: custom-concept-101, dreambench, dreambench\\+\\+"):
        stage_of("dreambooth")


def test_custom_concept_101_counts_texts_two_and_a_half_times_and_none_below_zero(workspace, small, ranker):
    prompts = workspace.root / small.protocol.prompts
    prompts.mkdir(exist_ok=True)
    (prompts / "fox.txt").write_text("photo of a {}\n\na red {}\n")
    (outcome,) = measured(workspace, small, "custom-concept-101", "fox")
    assert outcome.state == "done"
    found = report(workspace, "custom-concept-101", "fox")
    assert found["prompts"] == 2 and "2.5 · max(cosine, 0)" in table_path(workspace, "custom-concept-101").read_text()
    plain = changed(small, samples=1)
    (prompts / "fox.txt").write_text("photo of a {}\n")
    (outcome,) = measured(workspace, plain, "custom-concept-101", "fox")
    assert outcome.state == "done"  # other prompts are another measurement
    assert report(workspace, "custom-concept-101", "fox")["measures"]["clip_t"] >= 0


def test_the_authors_folders_become_concepts(tmp_path):
    def picture(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        PNG.save(path)

    dreambench = tmp_path / "dreambooth" / "dataset"
    picture(dreambench / "bear_plushie/00.jpg")
    picture(dreambench / "dog6/00.jpg")
    (dreambench / "prompts_and_classes.txt").write_text("Classes\n\nsubject_name,class\nbear_plushie,stuffed animal\ndog6,dog\ncat,cat\n")
    assert _laid(tmp_path, "dreambench", tmp_path / "dreambooth") == {"bear_plushie": "stuffed animal", "dog6": "dog"}

    custom = tmp_path / "customconcept101"
    picture(custom / "benchmark_dataset/actionfigure_1/1.jpeg")
    row = {"class_prompt": "action figure", "instance_data_dir": "./benchmark_dataset/actionfigure_1", "prompt_filename": "prompts/a.txt"}
    (custom / "dataset.json").write_text(json.dumps([row, {**row, "instance_data_dir": "./benchmark_dataset/not_there"}]))
    (custom / "prompts").mkdir()
    (custom / "prompts/a.txt").write_text("photo of a {}. \n{} on a shelf\n")
    assert _laid(tmp_path, "custom-concept-101", custom) == {"actionfigure_1": "action figure"}
    assert (tmp_path / "custom-concept-101-prompts/actionfigure_1.txt").read_text() == "photo of a {}.\n{} on a shelf\n"

    plus = tmp_path / "data"
    picture(plus / "images/live_subject/animal/00.jpg")
    picture(plus / "images/style/03.jpg")
    for place, text in (("live_subject/animal/00", "kitten\na kitten in the sun\nsomething else"), ("style/03", "ink\nink of a house")):
        (plus / f"captions/{place}.txt").parent.mkdir(parents=True, exist_ok=True)
        (plus / f"captions/{place}.txt").write_text(text)
    assert _laid(tmp_path, "dreambench++", plus) == {"live_subject_animal_00_kitten": "kitten", "style_03_ink": "ink"}
    assert (tmp_path / "dreambench++-prompts/live_subject_animal_00_kitten.txt").read_text() == "a {} in the sun\nsomething else\n"
    assert "kind: style" in (tmp_path / "dreambench++-concepts/style_03_ink/concept.yaml").read_text()


def _laid(folder: Path, name: str, source: Path) -> dict[str, str]:
    """The initializer of every concept that comes of a dataset; laid out twice, which changes nothing."""
    import yaml

    concepts, prompts = folder / f"{name}-concepts", folder / f"{name}-prompts"
    slugs = lay_out(protocols()[name], source, concepts, prompts)
    assert lay_out(protocols()[name], source, concepts, prompts) == slugs
    assert sorted(path.name for path in concepts.iterdir()) == sorted(slugs)
    return {slug: yaml.safe_load((concepts / slug / "concept.yaml").read_text())["initializer"] for slug in slugs}


@pytest.mark.parametrize("name", sorted(protocols()))
def test_a_folder_that_is_no_dataset_is_refused_with_what_to_give(name, tmp_path):
    with pytest.raises(ParamsError, match=r"Give the .* folder"):
        lay_out(protocols()[name], tmp_path, tmp_path / "concepts", tmp_path / "prompts")
