"""`validate` says what the stages after it would refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ti_pipeline.files import digest_file
from ti_pipeline.models import Models
from ti_pipeline.params import Params, load
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Outcome, Workspace

ROOT = Path(__file__).parents[2]
LONG = "a {token} " + "red " * 30 + "far away"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(ROOT / "examples" / "concepts" / "frog", tmp_path / "concepts" / "frog")
    return Workspace.at(tmp_path, "concepts")


def frog(workspace: Workspace, *overrides: str) -> Outcome:
    return run_stage(VALIDATE, Run.over(workspace, load(ROOT / "params.yaml", overrides)))[0]


def write(workspace: Workspace, settings: str) -> None:
    (workspace.concepts / "frog" / "concept.yaml").write_text(settings)


def test_of_what_will_work_it_says_nothing(workspace: Workspace) -> None:
    outcome = frog(workspace)
    assert (outcome.state, outcome.reason) == ("done", "")


@pytest.mark.parametrize("initializer", ["", "initializer: turtle"])
def test_a_caption_that_is_too_long_is_told_by_its_file_and_train_says_the_same(workspace: Workspace, initializer: str) -> None:
    write(workspace, initializer)
    picture = sorted((workspace.concepts / "frog").glob("*.png"))[1]
    picture.with_suffix(".txt").write_text(LONG)
    outcome = frog(workspace)
    assert outcome.state == "failed"
    assert outcome.reason.startswith(f"the caption in {picture.stem}.txt, with the learnt word, takes 38 tokens and miniature reads 24")
    assert "far away" not in outcome.reason
    assert [each.reason for each in run_stage(TRAIN, Run.over(workspace, load(ROOT / "params.yaml")))] == [f"validate: {outcome.reason}"]
    picture.with_suffix(".txt").unlink()
    write(workspace, f"captions: {{{picture.name}: '{LONG}'}}\n{initializer}")
    assert frog(workspace).reason.startswith(f"the caption of {picture.name} in concept.yaml, with the learnt word, takes 38 tokens")


def test_a_caption_that_may_fit_is_not_refused(workspace: Workspace) -> None:
    """Which word CLIP chooses is not known yet; the caption's own may give way to the learnt one."""
    write(workspace, "")
    next((workspace.concepts / "frog").glob("*.png")).with_suffix(".txt").write_text("red " * 20)
    assert frog(workspace).state == "done"


def test_more_vectors_than_the_generator_reads(workspace: Workspace) -> None:
    write(workspace, "vectors: 60")
    outcome = frog(workspace)
    assert outcome.state == "failed" and "60 vectors do not fit: miniature reads 24 tokens" in outcome.reason


def test_a_brief_that_is_too_long_is_told_and_the_concept_goes_on(workspace: Workspace) -> None:
    write(workspace, f"briefs: ['a {{token}}', '{LONG}', 'a {{token}} beside a <other>']\ninitializer: turtle\n")
    outcome = frog(workspace, "generate.negative_prompt=<unheard-of>, grey")
    assert outcome.state == "done" and "generate: the brief 'a {token} red" in outcome.reason
    assert "generate: a brief names <other>, which no concept here has" in outcome.reason
    assert "generate: generate.negative_prompt names <unheard-of>" in outcome.reason
    shutil.copytree(ROOT / "examples" / "concepts" / "fox", workspace.concepts / "other")
    assert "<other>" not in run_stage(VALIDATE, Run.over(workspace, load(ROOT / "params.yaml"), ["frog"]))[0].reason
    manifest = digest_file(workspace.manifest("frog"))
    outcome = frog(workspace, "train.vectors=12", f"generate.negative_prompt={'red ' * 30}")
    assert outcome.state == "up-to-date" and digest_file(workspace.manifest("frog")) == manifest
    assert "generate: generate.negative_prompt takes 32 tokens" in outcome.reason
    assert "evaluate: the prompt 'a picture of a {token} on a purple background' takes" not in outcome.reason
    outcome = frog(workspace, "train.vectors=15")
    assert "evaluate: the prompt 'a picture of a {token} on a purple background' takes" in outcome.reason


def test_an_initializer_that_the_generator_has_no_word_for(workspace: Workspace) -> None:
    write(workspace, "initializer: small xylomarimba")
    outcome = frog(workspace)
    assert outcome.state == "done" and outcome.reason.startswith("train: miniature has no word 'xylomarimba'")


@pytest.mark.parametrize("model", ["/nowhere/model", "no-such-owner/no-such-model"])
def test_a_generator_that_is_not_here_is_neither_fetched_nor_needed(workspace: Workspace, model: str) -> None:
    (workspace.concepts / "frog" / "yellow.txt").write_text(LONG)
    outcome = frog(workspace, f"generator.model={model}")
    assert (outcome.state, outcome.reason) == ("done", "")


def test_the_tokenizer_alone_reads_as_the_generator_does() -> None:
    params: Params = load(ROOT / "params.yaml")
    models = Models(params, ROOT)
    reader, generator = models.reader_if_there, models.generator
    assert reader.name == generator.name and reader.learning[ONLY].frame == generator.encoders[ONLY].frame
    assert reader.learning[ONLY].tokenizer.get_vocab() == generator.encoders[ONLY].tokenizer.get_vocab()


def test_a_word_is_as_long_as_it_will_ever_be(workspace: Workspace) -> None:
    def grown(vectors: int) -> Outcome:
        return frog(workspace, "train.setup=progressive", f"train.setups.progressive.grow_at={list(range(1, vectors))}")

    outcome = grown(15)
    assert "purple background' takes" in outcome.reason and outcome.reason == frog(workspace, "train.vectors=15").reason
    assert grown(60).state == "failed" and "60 vectors do not fit: miniature reads 24 tokens" in grown(60).reason
    write(workspace, "initializer: turtle\nsteps: 100\n")
    outcome = frog(workspace, "train.setup=progressive")
    assert outcome.state == "failed" and "a vector that joins after step 160 of 100 would learn nothing" in outcome.reason
