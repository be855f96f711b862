"""Words that go on from a file or from another word: exactly from there, after it, in any company, and through a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.inversion.test_filling import KILLED, _checkpoint
from tests.stages.one import Given, one, validate_one
from ti_pipeline import params
from ti_pipeline.concepts.concept import discover, load_concept
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file
from ti_pipeline.generators.generator import Generator
from ti_pipeline.stages.foresight import foretold
from ti_pipeline.stages.learnt import wanted_of
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.starts import rounds, start_fingerprint, together
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.words.files import read_word
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Outcome, Workspace

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
Say = Callable[..., Manifest]
ROWS = 0.05 * torch.randn(2, 32, generator=torch.Generator().manual_seed(5))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def say(workspace: Workspace, validated: Make, settings: Settings) -> Say:
    """Makes a concept with a file of a word in its folder and validates it as the stage does."""

    def say(slug: str, about: str, rows: torch.Tensor = ROWS, hue: int = 0) -> Manifest:
        validated(slug, "initializer: mug\n", hue=hue)
        save_file({"emb_params": rows}, workspace.concepts / slug / "old.safetensors")
        (workspace.concepts / slug / "concept.yaml").write_text(f"initializer: mug\n{about}")
        assert validate_one(workspace, load_concept(workspace.concepts / slug), settings(), force=True).ok
        return read_manifest(workspace, slug)

    return say


@pytest.fixture
def learn(generator: Generator, workspace: Workspace, settings: Settings) -> Callable[..., dict[str, Outcome]]:
    def learn(*slugs: str, sets: tuple[str, ...] = ()) -> dict[str, Outcome]:
        return {each.concept: each for each in run_stage(TRAIN, Run(workspace, settings(*sets), Given(generator), slugs))}

    return learn


def rows(workspace: Workspace, slug: str) -> torch.Tensor:
    return read_word(workspace.embedding(slug)).rows[ONLY]


def test_it_goes_on_from_the_very_vectors_of_a_file(workspace: Workspace, say: Say, learn) -> None:
    say("mug", "start_from: old.safetensors\n")
    assert learn("mug", sets=("train.steps=0",))["mug"].state == "done" and torch.equal(rows(workspace, "mug"), ROWS)
    said = read_word(workspace.embedding("mug")).provenance
    assert said["start_from"] == "old.safetensors"
    assert said["start_digest"] == digest_file(workspace.concepts / "mug" / "old.safetensors")
    assert learn("mug", sets=("train.steps=0", "train.vectors=3"))["mug"].state == "up-to-date"  # it has as many as the file
    say("mug", "start_from: old.safetensors\n", rows=2 * ROWS)
    assert learn("mug", sets=("train.steps=0",))["mug"].state == "done" and torch.equal(rows(workspace, "mug"), 2 * ROWS)
    say("mug", "start_from: old.safetensors\nvectors: 1\n")
    learn("mug", sets=("train.steps=0",))
    assert torch.allclose(rows(workspace, "mug"), ROWS.mean(dim=0, keepdim=True))
    say("mug", "")
    learn("mug", sets=("train.steps=0",))
    assert "start_from" not in read_word(workspace.embedding("mug")).provenance


def test_another_word_is_learnt_before_and_its_company_changes_nothing(workspace: Workspace, say: Say, learn) -> None:
    say("cup", "start_from: <MUG>\n"), say("mug", "vectors: 2\n", hue=1), say("jug", "", hue=2)
    together = learn("cup", "jug", "mug", sets=("train.pack=3",))
    assert {slug: outcome.state for slug, outcome in together.items()} == dict.fromkeys(("cup", "jug", "mug"), "done")
    whole, said = rows(workspace, "cup"), read_word(workspace.embedding("cup")).provenance
    assert len(whole) == 2 and said["start_from"] == "<MUG>" and said["start_digest"] == digest_file(workspace.embedding("mug"))
    assert {outcome.state for outcome in learn("cup", "jug", "mug").values()} == {"up-to-date"}
    workspace.embedding("mug").unlink(), workspace.embedding("cup").unlink()
    assert [learn(slug)[slug].state for slug in ("mug", "cup")] == ["done", "done"]
    assert torch.allclose(rows(workspace, "cup"), whole, atol=1e-6)
    say("mug", "vectors: 2\nsteps: 3\n", hue=1)
    states = {slug: outcome.state for slug, outcome in learn("cup", "jug", "mug").items()}
    assert states == {"cup": "done", "mug": "done", "jug": "up-to-date"}  # with what it goes on from, it is another


def test_one_whose_start_is_not_learnt_says_so_and_the_others_go_on(workspace: Workspace, say: Say, learn) -> None:
    say("cup", "start_from: <mug>\n"), say("mug", ""), say("jug", "")
    outcomes = learn("cup", "jug")
    assert outcomes["jug"].state == "done" and outcomes["cup"].state == "failed"
    assert "`start_from`: the word <mug> is not learnt as it is set now. Run `ti-pipeline train mug cup`" in outcomes["cup"].reason
    outcomes = learn("cup", "mug", sets=("train.max_norm=1.0001",))
    assert [outcomes[slug].state for slug in ("cup", "mug")] == ["failed", "failed"]  # mug for its norm, cup for mug


def test_who_goes_on_from_whom_decides_the_order(workspace: Workspace, say: Say, generator: Generator, settings: Settings) -> None:
    say("a", "start_from: <b>\n"), say("b", "start_from: <c>\n"), say("c", ""), say("d", "")
    run = Run(workspace, settings(), Given(generator), ["a", "b", "c", "d"])
    order = rounds(run, [TRAIN.plan(run, slug) for slug in ("a", "b", "c", "d")])
    assert [[plan.concept for plan in each] for each in order] == [["c", "d"], ["b"], ["a"]]
    assert together(run) == [["a", "b", "c"], ["d"]]
    say("c", "start_from: <a>\n")  # as it may be before the others are validated anew
    again = Run(workspace, settings(), Given(generator), ["a"])
    with pytest.raises(ConceptError, match="goes in a circle"):
        start_fingerprint(again, read_manifest(workspace, "a"))
    assert [error.concept for error in discover(workspace.concepts)[1]] == ["a", "b", "c"]
    assert "a circle: <a> → <b> → <c> → <a>" in discover(workspace.concepts)[1][0].reason


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ("start_from: gone.pt", "`start_from`: gone.pt: there is no such file in the folder"),
        ("start_from: ../other/old.safetensors", "`start_from`: expected a file of this folder such as word.safetensors, or a word"),
        ("start_from: <mug>", "`start_from`: <mug> is the concept's own word"),
        ("start_from: <nobody>", "`start_from`: <nobody> is the word of no concept here that can be used"),
        ("start_from: link.pt", "`start_from`: link.pt: a link that leads outside the set"),
    ],
)
def test_what_cannot_be_gone_on_from_is_said(about: str, expected: str, workspace: Workspace, validated: Make, tmp_path: Path) -> None:
    validated()
    (tmp_path / "secret.pt").write_bytes(b"")
    (workspace.concepts / "mug" / "link.pt").symlink_to(tmp_path / "secret.pt")
    (workspace.concepts / "mug" / "concept.yaml").write_text(about)
    assert expected in discover(workspace.concepts)[1][0].reason


def test_a_file_that_holds_no_word_several_or_one_of_another_model_is_refused(
    workspace: Workspace, say: Say, generator: Generator, settings: Settings
) -> None:
    manifest = say("mug", "start_from: old.safetensors\n", rows=torch.zeros(1, 48))
    outcome = foretold(workspace, Outcome("validate", "mug", "done"), settings(), set(), generator)
    assert outcome.state == "failed" and "the vectors of old.safetensors have 48 numbers, and tiny learns 32 numbers" in outcome.reason
    with pytest.raises(ConceptError, match="48 numbers"):
        one(TRAIN, Run(workspace, settings(), Given(generator), ["mug"]), "mug")
    file, concept = workspace.concepts / "mug" / "old.safetensors", workspace.concepts / "mug"
    save_file({"<a>": ROWS, "<b>": 2 * ROWS}, file)
    assert (
        "old.safetensors has 2 words: <a>, <b>. Give a file with one" in validate_one(workspace, load_concept(concept), settings()).reason
    )
    file.write_bytes(b"nothing")
    assert "not a readable safetensors file" in validate_one(workspace, load_concept(concept), settings()).reason
    assert manifest.start and manifest.start.vectors == 1


def test_a_picture_with_a_word_in_it_is_no_picture_of_the_set(workspace: Workspace, say: Say, settings: Settings) -> None:
    from tests.words.test_foreign import png

    before = [picture.file for picture in say("mug", "").pictures]
    png(workspace.concepts / "mug" / "word.png")
    manifest = say("mug", "start_from: word.png\n")
    assert [picture.file for picture in manifest.pictures] == before and manifest.start and manifest.start.shapes == {ONLY: (2, 768)}


@pytest.mark.parametrize(
    ("setup", "reason"),
    [("encoder_start", "encoder_start says itself where a word's vectors start"), ("progressive", "`vectors` is 2. Set it to 1")],
)
def test_a_setup_that_does_not_go_with_it_is_named(setup: str, reason: str, say: Say, workspace: Workspace, generator, settings) -> None:
    manifest, sets = say("mug", "start_from: old.safetensors\n"), (f"train.setup={setup}", "train.setups.progressive.grow_at=[2]")
    with pytest.raises(ConceptError, match=f"mug: .*{reason}"):
        wanted_of(Run(workspace, settings(*sets), Given(generator), ["mug"]), manifest)


def test_a_vector_for_each_layer_goes_on_from_one_for_each_layer(workspace: Workspace, say: Say, learn) -> None:
    say("mug", "vectors: 2\nsteps: 6\n"), say("cup", "start_from: <mug>\n"), say("jug", "start_from: <mug>\nvectors: 1\n")
    outcomes = learn("mug", "cup", "jug", sets=("train.setup=layered", "train.steps=0"))
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    mug, cup, jug = (read_word(workspace.embedding(slug)).layers[ONLY] for slug in ("mug", "cup", "jug"))
    assert not torch.equal(mug[0], mug[1]) and torch.equal(cup, mug)
    assert torch.allclose(jug, mug.mean(dim=(0, 1)).expand_as(jug), atol=1e-6)  # of another length, from their mean


def test_killed_for_real_in_both_rounds_it_ends_in_the_same_bits(folder: Path, workspace: Workspace, say: Say) -> None:
    """SIGKILL while it learns a word, and while it learns the one that goes on from it."""
    say("mug", ""), say("cup", "start_from: <mug>\n"), say("jug", "start_from: old.safetensors\n", hue=1)
    file = Path(__file__).parents[2] / "params.yaml"
    sets = [f"generator.model={folder}", "generator.device=cpu", "generator.precision=float32", "train.steps=16", "train.batch_size=1"]
    sets += ["train.pack=2", "train.checkpoint_every=3"]
    command = [sys.executable, "-c", KILLED, str(workspace.root), str(file), *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def run() -> dict[str, str]:
        assert all(outcome.ok for outcome in run_stage(TRAIN, Run.over(workspace, params.load(file, sets))))
        return {str(path): digest_file(path) for path in sorted(workspace.artifacts.glob("embeddings/*/[!.]*"))}

    def kill(when: Callable[[], bool]) -> None:
        process, seen = subprocess.Popen(command, env=environment), _checkpoint(workspace)
        while process.poll() is None and (_checkpoint(workspace) == seen or not when()):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    whole = run()
    for path in whole:
        Path(path).unlink()
    kill(lambda: True)
    assert not workspace.embedding("cup").exists()
    kill(lambda: workspace.embedding("mug").exists() and bool(_checkpoint(workspace)))
    assert run() == whole and not _checkpoint(workspace)
