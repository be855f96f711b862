"""A word from elsewhere goes through every stage, without pictures and with some."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from tests.candidates.small_workspace import PHOTOS
from tests.stages.quick import ROOT, quick, run
from ti_pipeline.call import Call
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.report import concept_path
from ti_pipeline.files import read_table
from ti_pipeline.models import Models
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.words.commands import import_
from ti_pipeline.words.files import read_word
from ti_pipeline.words.incoming import bring_in, located, words_at
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

PARAMS = quick("concepts.folder=concepts")


@pytest.fixture()
def arrived(tmp_path: Path) -> tuple[Workspace, torch.Tensor]:
    """A concept of a word in kohya's layout, and its vectors."""
    workspace = Workspace.at(tmp_path, "concepts")
    generator = Models(PARAMS, tmp_path).generator
    width = generator.encoders[ONLY].table.shape[1]
    rows = 0.02 * torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": rows}, tmp_path / "my-cat.safetensors", {"modelspec.author": "Ann"})
    (word,) = words_at(tmp_path / "my-cat.safetensors")
    bring_in(workspace, generator, word, "cat", located(str(tmp_path / "my-cat.safetensors")))
    return workspace, rows


def test_it_draws_is_ranked_evaluated_and_shown_without_pictures_and_with(arrived: tuple[Workspace, torch.Tensor]) -> None:
    workspace, rows = arrived
    stages = ("validate", "train", "generate", "rank", "evaluate", "gallery")
    assert all(outcomes["cat"].state == "done" for outcomes in run(workspace, PARAMS, *stages).values())
    word = read_word(workspace.embedding("cat"))
    assert torch.equal(word.rows[ONLY], rows) and word.token == "<cat>" and word.provenance["imported_from"] == "my-cat.safetensors"
    ranked = read_table(workspace.ranking("cat"))
    assert {row["likeness"] for row in ranked} == {0.0} and all("likeness" not in row["reason"] for row in ranked)
    of_first = sorted((row for row in ranked if row["brief_index"] == 0), key=lambda row: row["place_before"])
    assert [row["faithfulness"] for row in of_first] == sorted((row["faithfulness"] for row in of_first), reverse=True)
    learnt = json.loads(concept_path(workspace, "cat").read_text())["setups"]["textual inversion"]
    assert learnt["reconstruction"] is None and learnt["editability"]["value"] > 0
    assert all(outcomes["cat"].state == "up-to-date" for outcomes in run(workspace, PARAMS, *stages).values())

    for photo in (PHOTOS / "duck-toy").iterdir():
        shutil.copyfile(photo, workspace.concepts / "cat" / photo.name)
    assert all(outcomes["cat"].state == "done" for outcomes in run(workspace, PARAMS, *stages).values())
    assert torch.equal(read_word(workspace.embedding("cat")).rows[ONLY], rows)
    assert 0.0 not in {row["likeness"] for row in read_table(workspace.ranking("cat"))}
    assert json.loads(concept_path(workspace, "cat").read_text())["setups"]["textual inversion"]["reconstruction"]["value"]

    forced = run_stage(TRAIN, Run.over(workspace, PARAMS, ["cat"], force=True))
    learnt_here = read_word(workspace.embedding("cat"))
    assert forced[0].state == "done" and "imported_from" not in learnt_here.provenance
    assert run(workspace, PARAMS, "train")["train"]["cat"].state == "up-to-date"  # and is not overwritten in turn


def test_a_word_that_is_there_is_not_overwritten_and_one_of_another_model_is_refused(arrived: tuple[Workspace, torch.Tensor]) -> None:
    workspace, rows = arrived
    file, generator = workspace.root / "my-cat.safetensors", Models(PARAMS, workspace.root).generator
    source, (word,) = located(str(file)), words_at(file)
    with pytest.raises(ConceptError, match="cat: it has a word already. Give another name with --as, or --force"):
        bring_in(workspace, generator, word, "cat", source)
    save_file({"emb_params": rows[:1].clone()}, file)
    bring_in(workspace, generator, words_at(file)[0], "cat", source, force=True)
    assert len(next(iter(load_file(workspace.concepts / "cat" / "word.safetensors").values()))) == 1
    save_file({"emb_params": torch.zeros(1, 1024)}, file)
    with pytest.raises(ConceptError, match="1024 numbers and miniature takes .*learnt for Stable Diffusion 2.x"):
        bring_in(workspace, generator, words_at(file)[0], "dog", source)
    assert not (workspace.concepts / "dog").exists()
    with pytest.raises(ConceptError, match="Give --as my-dog"):
        bring_in(workspace, generator, word, "My Dog", source)


def test_the_command_reads_no_weights_of_the_generator(arrived: tuple[Workspace, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, rows = arrived
    monkeypatch.setattr(Models, "generator", property(lambda models: pytest.fail("it was loaded")))
    call = Call(workspace.root, ROOT / "params.yaml", ("concepts.folder=concepts",))
    import_(str(workspace.root / "my-cat.safetensors"), "dog", call)
    assert torch.equal(read_word(workspace.concepts / "dog" / "word.safetensors").rows[ONLY], rows)
    save_file({"emb_params": torch.zeros(1, 768)}, workspace.root / "wide.safetensors")
    with pytest.raises(typer.Exit):
        import_(str(workspace.root / "wide.safetensors"), "wide", call)
    assert not (workspace.concepts / "wide").exists()


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(ParamsError, match="nowhere.pt: there is no such file or folder"):
        located("nowhere.pt")
