from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.generators.tiny_flow import write_flux
from tests.stages.one import Digest, Given, many, one, train_one
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_file, table_metadata
from ti_pipeline.generators.generator import Generator
from ti_pipeline.models import Models
from ti_pipeline.stages.learnt import Wanted, standing, training_fingerprint
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import SCHEMA, TRAIN
from ti_pipeline.words.files import read_word
from ti_pipeline.words.headers import word_fingerprint
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Outcome, Workspace

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]


def wanted_by(generator: Generator, manifest: Manifest, chosen: params.Params) -> Wanted:
    """What a concept with an initializer of its own is to stand under, where nothing is kept or drawn."""
    trained = training_fingerprint(generator.digest, "", manifest, chosen)
    return Wanted(trained, trained)


def test_what_a_training_leaves_behind(generator: Generator, folder, workspace: Workspace, validated: Make, settings: Settings) -> None:
    manifest, chosen = validated(), settings("train.vectors=2")
    calls = []
    outcome = train_one(workspace, generator, manifest, chosen, lambda *call: calls.append(call))
    path = workspace.embedding("mug")
    assert (outcome.state, outcome.path, outcome.digest) == ("done", str(path), digest_file(path))
    assert [call[:2] for call in calls] == [(i, 6) for i in range(1, 7)] and "loss" in calls[-1][2]
    assert sorted(file.name for file in path.parent.iterdir()) == ["learned_embeds.safetensors", "training.parquet"]
    assert not workspace.checkpoint("mug").exists()

    table = pq.read_table(workspace.training("mug"))
    assert table.schema.equals(SCHEMA) and table["step"].to_pylist() == [1, 2, 3, 4, 5, 6]
    said = read_word(path).provenance
    assert said["generator_digest"] == generator.digest and json.loads(said["params"])["train"]["vectors"] == 2
    assert json.loads(said["picture_digests"]) == {picture.file: picture.digest for picture in manifest.pictures}
    assert {"concept", "token", "initializer", "generator", "steps", "final_loss", "version"} <= set(said)
    assert said["threads"] == str(torch.get_num_threads()) and said["torch"] == torch.__version__
    assert said["device"].startswith("cpu ") and (said["precision"], said["memory_format"]) == ("float32", "contiguous")
    assert said["fingerprint"] == table_metadata(workspace.training("mug"))["fingerprint"] == word_fingerprint(path)

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.load_textual_inversion(str(path))
    ids = pipe.tokenizer.convert_tokens_to_ids(["<mug>", "<mug>_1"])
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], read_word(path).rows[ONLY])


def test_nothing_is_done_twice_unless_something_changed(
    generator: Generator, workspace: Workspace, validated: Make, settings: Settings
) -> None:
    manifest, chosen = validated(), settings()
    first = train_one(workspace, generator, manifest, chosen)
    log = digest_file(workspace.training("mug"))
    again = train_one(workspace, generator, manifest, chosen)
    assert (again.state, again.digest) == ("up-to-date", first.digest)
    forced = train_one(workspace, generator, manifest, chosen, force=True)
    assert (forced.state, forced.digest, digest_file(workspace.training("mug"))) == ("done", first.digest, log)
    assert train_one(workspace, generator, manifest, settings("train.checkpoint_every=3")).state == "up-to-date"
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # as on another machine, which the workspace was moved to
    assert train_one(workspace, generator, manifest, chosen).state == "up-to-date"
    torch.set_num_threads(threads)
    for changed in ("seed=1", "train.steps=5", "generator.precision=auto"):
        assert standing(workspace, "mug", wanted_by(generator, manifest, settings(changed))) is None
    assert standing(workspace, "mug", wanted_by(generator, validated(hue=1), chosen)) is None
    owned = validated(about="initializer: mug\nowner: me\nbriefs: ['a {token}']\n")
    assert train_one(workspace, generator, owned, chosen).state == "up-to-date"
    workspace.training("mug").unlink()
    assert train_one(workspace, generator, owned, chosen).state == "done"


def test_the_initializer_is_chosen_when_none_is_set(
    generator: Generator, workspace: Workspace, validated: Make, settings: Settings
) -> None:
    validated(about="")
    chosen = settings("train.steps=1")
    shown: list[int] = []

    def choose(ranker: str) -> Outcome:
        models = Given(generator, Digest(ranker), choose_initializer=lambda pictures: shown.append(len(pictures)) or "teapot")
        return one(TRAIN, Run(workspace, chosen, models, ["mug"]), "mug")

    assert [choose(ranker).state for ranker in ("a", "a", "b")] == ["done", "up-to-date", "done"]  # whose choice it is counts
    said = read_word(workspace.embedding("mug")).provenance
    assert shown == [3, 3] and (said["initializer"], said["initializer_from"]) == ("teapot", "CLIP")


def test_a_concept_says_its_own_vectors_and_steps(generator: Generator, workspace: Workspace, validated: Make, settings: Settings) -> None:
    chosen = settings("train.pack=2")
    small, large = validated("mug"), validated("cup", "initializer: mug\nvectors: 3\nsteps: 4\n", hue=1)
    assert training_fingerprint(generator.digest, "", small, chosen) != training_fingerprint(
        generator.digest, "", small, settings("train.steps=4")
    )
    done, lost = many(TRAIN, Run(workspace, chosen, Given(generator), ["mug", "cup"]), "mug", "cup")
    assert lost == {} and {slug: outcome.state for slug, outcome in done.items()} == {"mug": "done", "cup": "done"}
    words = {slug: read_word(workspace.embedding(slug)) for slug in done}
    assert {slug: (len(word), word.provenance["steps"]) for slug, word in words.items()} == {"mug": (1, "6"), "cup": (3, "4")}
    for changed in ("train.pack=7", "train.checkpoint_seconds=1", "train.devices=[cpu, cpu]", "train.stop_ratio=0.5", "train.steps=9"):
        assert standing(workspace, "cup", wanted_by(generator, large, settings(changed)))
    for changed in ("train.early_stopping=dvar", "train.clip_gradient=1"):
        assert not standing(workspace, "cup", wanted_by(generator, large, settings(changed)))


def test_what_was_half_done_alone_goes_on_in_company(
    generator: Generator, workspace: Workspace, validated: Make, settings: Settings
) -> None:
    chosen = settings()

    def stop(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(workspace, generator, validated("mug"), chosen, stop)
    assert workspace.checkpoint("mug").exists()
    said = []
    validated("cup", hue=1)
    run = Run(workspace, chosen, Given(generator), ["mug", "cup"], report=lambda *call: said.append(call))
    _, lost = many(TRAIN, run, "mug", "cup")
    assert lost == {} and said[0][:2] == (6, 12)  # four of mug's steps were done already
    assert not list(workspace.checkpoint("mug").parent.glob("*.safetensors"))


def test_who_stands_and_was_in_the_company_of_a_killed_run_goes_on_with_it(
    generator: Generator, workspace: Workspace, validated: Make, settings: Settings
) -> None:
    chosen = settings("train.pack=2")
    validated("mug"), validated("cup", "initializer: mug\nsteps: 9\n", hue=1)
    run = Run(workspace, chosen, Given(generator), ["mug", "cup"])
    working = TRAIN.work(run, [TRAIN.plan(run, slug) for slug in ("cup", "mug")])
    first = next(working)
    working.close()  # killed after the word is written and before a checkpoint is without it
    plan = TRAIN.plan(Run(workspace, chosen, Given(generator), ["mug", "cup"]), "mug")
    assert first.concept == "mug" and plan.stands and plan.unfinished
    outcomes = run_stage(TRAIN, Run(workspace, chosen, Given(generator), ["mug", "cup"]))
    assert [(outcome.concept, outcome.state) for outcome in outcomes] == [("cup", "done"), ("mug", "done")]
    assert outcomes[1].digest == first.digest


def test_a_setup_that_is_nothing_for_the_generator_is_refused_before_that_is_loaded(
    workspace: Workspace, validated: Make, settings: Settings, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated()
    model = f"generator.model={write_flux(tmp_path / 'flux')}"
    monkeypatch.setattr(Models, "generator", property(lambda models: pytest.fail("it was loaded")))
    with pytest.raises(
        ParamsError, match="train.setup: layered needs the cross-attention layers of a U-Net as it is set, and flux has none"
    ):
        run_stage(TRAIN, Run.over(workspace, settings(model, "train.setup=layered")))
