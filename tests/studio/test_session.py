"""`import ti_pipeline as ti` from pictures to scores, with the embedded models."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ti_pipeline as ti
from tests.stages.quick import ROOT, quick
from tests.stages.quick import run as run_stages
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

FOX = ROOT / "examples" / "concepts" / "fox"
SMALL = {
    "train.steps": 2, "generate.candidates": 2, "generate.steps": 2, "evaluate.samples": 2, "evaluate.samples_per_prompt": 2,
    "evaluate.steps": 2, "evaluate.bootstrap": 10, "generator.precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[ti.Studio, ti.Word]:
    studio = ti.open(tmp_path_factory.mktemp("studio"), SMALL)
    return studio, studio.learn(FOX, initializer="wolf")


def test_a_word_is_the_one_that_the_stages_learn(learnt, tmp_path: Path) -> None:
    studio, word = learnt
    assert (word.token, word.class_words, len(word)) == ("<fox>", "wolf", 1) and "tensor" not in repr(word)
    same = Workspace.at(tmp_path, "concepts")
    shutil.copytree(studio.workspace.concepts, same.concepts)
    run_stages(same, quick("generator.precision=float32"), "validate", "train")
    assert same.embedding("fox").read_bytes() == studio.workspace.embedding("fox").read_bytes()
    assert {path.name for path in (studio.workspace.concepts / "fox").iterdir()} == {path.name for path in FOX.iterdir()}


def test_what_is_learnt_is_drawn_and_scored(learnt) -> None:
    studio, word = learnt
    drawn = studio("a <fox> bag")
    assert len(drawn) == 2 and drawn.best.recipe["words"] == {"<fox>": word.digest} and drawn.best.recipe["steps"] == 2
    other = studio.draw("a <fox> bag", 3, seed=7, steps=1, negative_prompt="blue")
    assert len(other) == 3 and {(picture.recipe["steps"], picture.recipe["negative_prompt"]) for picture in other} == {(1, "blue")}
    assert not {picture.recipe["seed"] for picture in other} & {picture.recipe["seed"] for picture in drawn}
    score = studio.score(word)
    assert score == studio.score("fox") == studio.score("<Fox>") and score.token == "<fox>"
    assert score.reconstruction.low <= score.reconstruction.value <= score.reconstruction.high
    assert (score.reconstruction.n, score.editability.n) == (2, 8)
    assert f"{score.editability.value:.3f}" in score._repr_html_() and str(score).startswith("<fox>: reconstruction 0.")
    with pytest.raises(ti.ParamsError, match="<fix>: no concept .* Did you mean <fox>"):
        studio.score("<fix>")
    with pytest.raises(ti.ParamsError, match="`stps`"):
        studio.draw("a <fox>", stps=3)


def test_the_same_again_does_nothing_and_other_pictures_are_not_taken_for_it(learnt, tmp_path: Path) -> None:
    studio, word = learnt
    before = studio.workspace.embedding("fox").stat().st_mtime_ns
    assert studio.learn(FOX, initializer="wolf").digest == studio.learn("fox").digest == word.digest
    assert studio.workspace.embedding("fox").stat().st_mtime_ns == before
    fewer = shutil.copytree(FOX, tmp_path / "fox", ignore=shutil.ignore_patterns("blue.png"))
    with pytest.raises(ti.ParamsError, match="fox holds other pictures.* replace=True"):
        studio.learn(fewer)
    assert len([*studio.workspace.concepts.iterdir()]) == 1, "nothing half copied is left"
    again = ti.open(shutil.copytree(studio.workspace.root, tmp_path / "again"), SMALL)
    assert again.learn(fewer, replace=True, initializer="wolf").digest != word.digest
    assert not (again.workspace.concepts / "fox" / "blue.png").exists()


def test_pictures_in_hand_are_a_concept(learnt) -> None:
    studio, _ = learnt
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).resize((128, 128)) for _ in range(2)]
    word = studio.learn([*pictures, FOX / "blue.png"], "mug", token="<my-mug>", initializer="cup", vectors=2)
    assert (word.token, word.class_words, len(word)) == ("<my-mug>", "cup", 2)
    with Image.open(studio.workspace.concepts / "mug" / "00.png") as kept:
        assert np.array_equal(kept, pictures[0])
    assert [*studio.words] == ["<fox>", "<my-mug>"]


def test_one_bad_concept_is_named_and_the_others_go_on(learnt, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    studio = ti.open(shutil.copytree(learnt[0].workspace.root, tmp_path / "work"), SMALL)
    broken = studio.workspace.concepts / "broken"
    broken.mkdir()
    (broken / "a.jpg").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        assert studio.learn_all()["fox"].digest == learnt[1].digest
    assert "validate: broken: " in caplog.text and "a.jpg" in caplog.text
    with pytest.raises(ti.ConceptError, match="broken: .*a.jpg"):
        studio.learn("broken")
    assert studio.learn_all(["broken"]) == {}


def test_a_word_goes_to_a_file_and_comes_back_to_another_studio(learnt, tmp_path: Path) -> None:
    _, word = learnt
    path = ti.save(word, tmp_path)
    assert path.name == "learned_embeds.safetensors" and path.read_bytes() == learnt[0].workspace.embedding("fox").read_bytes()
    came = ti.load(path, "<reynard>")
    assert torch.equal(came.rows[ONLY], word.rows[ONLY]) and (came.token, came.class_words) == ("<reynard>", "wolf")
    studio = ti.open(tmp_path / "other", SMALL)
    assert studio.words == {}
    with pytest.raises(ti.ParamsError, match="None is learnt yet"):
        studio.draw("a <reynard>")
    studio.add(came)
    assert studio.draw("a <reynard>", 1).rule == "ranked by CLIP's faithfulness to 'a wolf'"
    with pytest.raises(ti.ParamsError, match="<reynard> was added by hand, and is no concept of this workspace"):
        studio.score(came)
    torch.save({"*": word.rows[ONLY]}, tmp_path / "Moo Cow.pt")
    assert ti.load(tmp_path / "Moo Cow.pt").class_words == "Moo Cow"
    with pytest.raises(ti.ParamsError, match="'<Moo Cow>': a prompt names a word as <our-mascot>"):
        studio.add(ti.load(tmp_path / "Moo Cow.pt"))
    with pytest.raises(ti.ParamsError, match="as .safetensors"):
        ti.save(word, tmp_path / "fox.pt")


def test_what_is_wrong_is_said_before_anything_is_loaded(learnt, tmp_path: Path) -> None:
    studio, _ = learnt
    (tmp_path / "file").write_text("")
    for call, said in (
        (lambda: ti.open(tmp_path / "file"), "is a file"),
        (lambda: ti.open(tmp_path / "no" / "where"), "there is no such folder"),
        (lambda: ti.open(tmp_path, {"train.stps": 1}), "`stps`"),
        (lambda: studio.learn(tmp_path / "nothing"), "there is no such folder, and no concept of that name"),
        (lambda: studio.learn([FOX / "no.png"], "mug2"), "no.png: no such file"),
        (lambda: studio.learn([], "mug2"), "no pictures are given"),
        (lambda: studio.learn([FOX / "blue.png"]), "the name ''"),
        (lambda: studio.learn(FOX, "Fox!"), "the name 'Fox!'"),
        (lambda: studio.learn("fox", initializer="cat"), "initializer: .* Write them into its concept.yaml"),
        (lambda: studio.set({"generate.steps": "many"}), "generate.steps"),
    ):
        with pytest.raises(ti.ParamsError, match=said):
            call()
    assert studio.params.generate.steps == 2


def test_a_word_goes_to_other_tools_and_comes_in_from_them(learnt, tmp_path: Path) -> None:
    studio, word = learnt
    lines = studio.export(word, tmp_path)
    assert [*lines] == ["diffusers", "sd-concepts"]
    assert lines["diffusers"] == 'pipe.load_textual_inversion("ti-fox.safetensors", token="<fox>")'
    came = studio.bring_in(tmp_path / "diffusers" / "ti-fox.safetensors", "reynard")
    assert torch.equal(came.rows[ONLY], word.rows[ONLY]) and came.provenance["imported_from"] == "ti-fox.safetensors"
    assert studio.words["<reynard>"].digest == came.digest and came.token == "<reynard>"
    for call, said in (
        (lambda: studio.export("fox", tmp_path, "invoke"), "InvokeAI has no model for a word"),
        (lambda: studio.export("fox", tmp_path, "paint"), "paint: there is no such tool here"),
        (lambda: studio.bring_in(tmp_path / "diffusers" / "ti-fox.safetensors", "reynard"), "it has a word already"),
        (lambda: studio.bring_in(tmp_path / "no.pt", "other"), "no.pt: there is no such file"),
    ):
        with pytest.raises(ti.PipelineError, match=said):
            call()
    shutil.rmtree(studio.workspace.concepts / "reynard")
    shutil.rmtree(studio.workspace.embedding("reynard").parent)
    studio.workspace.manifest("reynard").unlink()


def test_a_workspace_with_settings_of_its_own_is_read_with_them(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("examples/concepts ", "sets "))
    studio = ti.open(tmp_path, {"train.setup": "direction", "seed": 3})
    assert studio.workspace.concepts == tmp_path / "sets"
    studio.set({"train.steps": 9})
    assert (studio.params.train.setup, studio.params.seed, studio.params.train.steps) == ("direction", 3, 9)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'PIL', 'pydantic', 'pyarrow'}"
    script = f"import sys, ti_pipeline as ti; assert not {heavy} & {{*sys.modules}}; assert 'open' in dir(ti); assert ti.Word"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = ti.opne
    assert all(getattr(ti, name) for name in ti.__all__)
