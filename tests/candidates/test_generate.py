from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.candidates.readers import a1111
from tests.candidates.small_workspace import PHOTOS, add_concept, add_word, small_params
from tests.stages.one import Given, generate_one, many
from ti_pipeline.candidates.files import SCHEMA
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file, read_table, table_metadata
from ti_pipeline.generators.generator import Generator
from ti_pipeline.models import Models
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sampling.seeds import candidate_seed
from ti_pipeline.stages.generate import GENERATE, read_order
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.words.files import read_word
from ti_pipeline.words.learnt import Words
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace


@pytest.fixture
def duck(tmp_path: Path) -> tuple[Workspace, Manifest]:
    workspace, manifest = add_concept(tmp_path, "duck-toy")
    add_word(workspace, "duck-toy", "<duck-toy>", initializer="rubber duck")
    return workspace, manifest


def contents(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.candidates("duck-toy").iterdir()}


def test_every_candidate_is_in_the_table_with_its_recipe_in_its_file(duck, generator: Generator) -> None:
    workspace, manifest = duck
    said = []
    outcome = generate_one(workspace, generator, manifest, small_params(), lambda *what: said.append(what))
    table = workspace.candidate_table("duck-toy")
    assert (outcome.stage, outcome.concept, outcome.state, outcome.path) == ("generate", "duck-toy", "done", str(table))
    assert outcome.digest == digest_file(table)
    assert pq.read_schema(table).remove_metadata() == SCHEMA
    rows = read_table(table)
    assert [(row["brief_index"], row["candidate"]) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [said[0][:2], said[-1][:2], len(said)] == [(1, 6), (6, 6), 6]
    for row in rows:
        assert row["seed"] == candidate_seed(0, "duck-toy", row["brief"], row["candidate"])
        assert (row["prompt"], row["scoring_text"]) == (
            row["brief"].replace("{token}", "<duck-toy>"),
            row["brief"].replace("{token}", "rubber duck"),
        )
        path = table.parent / row["file"]
        assert digest_file(path) == row["digest"]
        with Image.open(path) as picture:
            assert picture.size == (row["width"], row["height"]) == (64, 64)
            recipe = json.loads(picture.text["ti-pipeline"])
            read = a1111(picture.text["parameters"])
        assert read.prompt == row["prompt"].replace("<duck-toy>", "ti-duck-toy") and read.negative == ""
        assert read.drawing == (2, "DDIM", row["guidance_scale"], row["seed"], (64, 64))
        assert recipe["words"] == {"<duck-toy>": digest_file(workspace.embedding("duck-toy"))}
        assert recipe["generator_digest"] == generator.digest
    assert len({row["digest"] for row in rows}) == 6


def test_what_a_tool_reads_and_an_exported_word_give_the_same_picture(duck, generator: Generator) -> None:
    workspace, manifest = duck
    add_word(workspace, "hat", "<hat>", seed=1)
    generate_one(workspace, generator, manifest, small_params(negative_prompt="a <hat>, blurry"))
    table = workspace.candidate_table("duck-toy")
    words = {"ti-duck-toy": read_word(workspace.embedding("duck-toy")), "ti-hat": read_word(workspace.embedding("hat"))}
    (row,) = read_table(table)[4:5]
    with Image.open(table.parent / row["file"]) as candidate:
        read, pixels = a1111(candidate.text["parameters"]), np.asarray(candidate.convert("RGB"))
    steps, _, scale, seed, size = read.drawing
    settings = Settings("ddim", steps, scale, read.negative, 4, size)
    ((_, again),) = sample(generator, [read.prompt], words, [seed], settings)
    assert read.prompt == "a ti-duck-toy on the moon" and read.negative == "a ti-hat, blurry"
    assert np.array_equal(again, pixels)


def test_a_second_run_does_nothing_and_force_gives_the_same_bytes(duck, generator: Generator) -> None:
    workspace, manifest = duck
    first = generate_one(workspace, generator, manifest, small_params())
    before, stamp = contents(workspace), workspace.candidate_table("duck-toy").stat().st_mtime_ns
    second = generate_one(workspace, generator, manifest, small_params(batch_size=2))
    assert (second.state, second.digest) == ("up-to-date", first.digest)
    assert workspace.candidate_table("duck-toy").stat().st_mtime_ns == stamp
    assert generate_one(workspace, generator, manifest, small_params(), force=True).state == "done"
    assert contents(workspace) == before


def test_killed_half_way_it_keeps_what_stands_and_ends_in_the_same_bytes(duck, generator: Generator) -> None:
    workspace, manifest = duck
    folder = workspace.candidates("duck-toy")
    generate_one(workspace, generator, manifest, small_params())
    whole = contents(workspace)
    names = [row["file"] for row in read_table(folder / "candidates.parquet")]
    (folder / "candidates.parquet").unlink()
    (folder / names[1]).unlink()
    (folder / names[4]).write_bytes(whole[names[4]][:500])
    (folder / f".{names[4]}-x7.png").write_bytes(b"half")
    for name in names:
        if name != names[1]:
            os.utime(folder / name, (1, 1))
    said = []
    assert generate_one(workspace, generator, manifest, small_params(), lambda *what: said.append(what)).state == "done"
    assert [what[:2] for what in said] == [(5, 6), (6, 6)]
    assert [name for name in names if (folder / name).stat().st_mtime != 1] == [names[1], names[4]]
    assert contents(workspace) == whole


def test_killed_inside_the_old_table_and_its_pictures_still_stand(duck, generator: Generator) -> None:
    workspace, manifest = duck
    generate_one(workspace, generator, manifest, small_params())
    before = contents(workspace)

    def stop(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_one(workspace, generator, manifest, small_params(steps=3), stop)
    now = contents(workspace)
    assert {name: now[name] for name in before} == before
    assert len(now) == len(before) + 5
    generate_one(workspace, generator, manifest, small_params(steps=3))
    rows = read_table(workspace.candidate_table("duck-toy"))
    assert {row["steps"] for row in rows} == {3}
    assert set(contents(workspace)) == {"candidates.parquet", *(row["file"] for row in rows)}


def test_a_missing_picture_is_made_again(duck, generator: Generator) -> None:
    workspace, manifest = duck
    first = generate_one(workspace, generator, manifest, small_params())
    (workspace.candidates("duck-toy") / read_table(workspace.candidate_table("duck-toy"))[2]["file"]).unlink()
    assert generate_one(workspace, generator, manifest, small_params()).state == "done"
    assert generate_one(workspace, generator, manifest, small_params()).digest == first.digest


def test_another_word_remakes_and_another_brief_adds(duck, generator: Generator) -> None:
    workspace, manifest = duck
    generate_one(workspace, generator, manifest, small_params())
    before = contents(workspace)
    longer = small_params(briefs={"object": ["a {token} in a box", "a photo of a {token}", "a {token} on the moon"]})
    assert generate_one(workspace, generator, manifest, longer).state == "done"
    after = contents(workspace)
    pictures = {name for name in before if name.endswith(".png")}
    assert all(after[name] == before[name] for name in pictures) and len(after) == len(before) + 3
    add_word(workspace, "duck-toy", "<duck-toy>", seed=1, initializer="rubber duck")
    assert generate_one(workspace, generator, manifest, longer).state == "done"
    assert not pictures & set(contents(workspace))


def test_two_learnt_words_in_one_brief(tmp_path: Path, generator: Generator) -> None:
    workspace, manifest = add_concept(tmp_path, "duck-toy", "briefs: ['a {token} beside a <candle>']")
    add_word(workspace, "duck-toy", "<duck-toy>", initializer="duck")
    with pytest.raises(ConceptError, match="duck-toy: a brief names <candle>, which no concept of this workspace has learnt"):
        generate_one(workspace, generator, manifest, small_params())
    add_word(workspace, "candle", "<candle>", seed=1, initializer="candle")
    generate_one(workspace, generator, manifest, small_params())
    first = read_table(workspace.candidate_table("duck-toy"))
    assert {row["scoring_text"] for row in first} == {"a duck beside a candle"}
    add_word(workspace, "candle", "<candle>", seed=2, initializer="candle")
    assert generate_one(workspace, generator, manifest, small_params()).state == "done"
    again = read_table(workspace.candidate_table("duck-toy"))
    assert all(a["seed"] == b["seed"] and a["digest"] != b["digest"] for a, b in zip(first, again, strict=True))
    with Image.open(workspace.candidates("duck-toy") / again[0]["file"]) as picture:
        assert list(json.loads(picture.text["ti-pipeline"])["words"]) == ["<candle>", "<duck-toy>"]


def test_a_learnt_word_in_the_negative_prompt_is_its_vectors(duck, generator: Generator) -> None:
    workspace, manifest = duck
    plain, with_word = small_params(negative_prompt="blurry"), small_params(negative_prompt="<Bad-Hands>, blurry")
    generate_one(workspace, generator, manifest, plain)
    without = read_table(workspace.candidate_table("duck-toy"))
    with pytest.raises(ConceptError, match="duck-toy: generate.negative_prompt names <bad-hands>, which no concept of this workspace"):
        generate_one(workspace, generator, manifest, with_word)
    digests = set()
    for seed in (1, 2):
        add_word(workspace, "bad-hands", "<bad-hands>", seed=seed, initializer="hands")
        assert generate_one(workspace, generator, manifest, with_word).state == "done"
        assert generate_one(workspace, generator, manifest, with_word).state == "up-to-date"
        rows = read_table(workspace.candidate_table("duck-toy"))
        digests.add(rows[0]["digest"])
        with Image.open(workspace.candidates("duck-toy") / rows[0]["file"]) as picture:
            recipe = json.loads(picture.text["ti-pipeline"])
            assert picture.text["parameters"].count("bad-hands: ") == 1
        assert recipe["words"] == {
            "<bad-hands>": digest_file(workspace.embedding("bad-hands")),
            "<duck-toy>": digest_file(workspace.embedding("duck-toy")),
        }
    assert len(digests | {without[0]["digest"]}) == 3
    assert generate_one(workspace, generator, manifest, small_params(negative_prompt="<duck-toy>")).state == "done"


def test_a_word_of_another_concept_changes_nothing_that_does_not_name_it(duck, generator: Generator) -> None:
    workspace, manifest = duck
    before = read_order(workspace, generator.digest, manifest, small_params(negative_prompt="blurry"), Words(workspace)).fingerprint
    add_word(workspace, "bad-hands", "<bad-hands>", initializer="hands")
    assert read_order(workspace, generator.digest, manifest, small_params(negative_prompt="blurry"), Words(workspace)).fingerprint == before


def test_a_brief_that_is_too_long_is_left_out_and_the_others_are_drawn(duck, generator: Generator) -> None:
    workspace, manifest = duck
    long = "a {token} " + "very " * 80 + "far away"
    some = small_params(briefs={"object": ["a photo of a {token}", long, "a {token} on the moon"]})
    outcome = generate_one(workspace, generator, manifest, some)
    assert outcome.state == "done" and outcome.reason.startswith("1 of its 3 briefs left out: the brief 'a {token} very")
    assert "takes 87 tokens" in outcome.reason and len(outcome.reason) < 300
    rows = read_table(workspace.candidate_table("duck-toy"))
    assert {row["brief"] for row in rows} == {"a photo of a {token}", "a {token} on the moon"}
    again = generate_one(workspace, generator, manifest, some)
    assert (again.state, again.reason) == ("up-to-date", outcome.reason)
    pictures = contents(workspace)
    generate_one(workspace, generator, manifest, small_params(briefs={"object": ["a photo of a {token}", "a {token} on the moon"]}))
    assert {name: content for name, content in contents(workspace).items() if name.endswith(".png")} == {
        name: content for name, content in pictures.items() if name.endswith(".png")
    }
    assert "left_out" not in table_metadata(workspace.candidate_table("duck-toy"))


def test_what_cannot_work_is_said_before_anything_is_made(duck, generator: Generator) -> None:
    workspace, manifest = duck
    long = small_params(briefs={"object": ["a {token} " + "very " * 80 + "far away"]})
    with pytest.raises(ConceptError, match="duck-toy: the brief .* would be cut off"):
        generate_one(workspace, generator, manifest, long)
    with pytest.raises(ConceptError, match="duck-toy: generate.negative_prompt takes 92 tokens"):
        generate_one(workspace, generator, manifest, small_params(negative_prompt=" ".join(["ugly"] * 90)))
    add_word(workspace, "duck-toy", "<duck-toy>", width=48)
    with pytest.raises(ConceptError, match="duck-toy: the vectors of <duck-toy> have 48 numbers and tiny takes 32"):
        generate_one(workspace, generator, manifest, small_params())
    assert not workspace.candidates("duck-toy").exists()


def test_a_candidate_has_the_size_that_is_set(duck, generator: Generator) -> None:
    workspace, manifest = duck
    generate_one(workspace, generator, manifest, small_params())
    square = table_metadata(workspace.candidate_table("duck-toy"))["fingerprint"]
    with pytest.raises(ParamsError, match=r"generate.width and generate.height: tiny draws no 92 × 64 pixels: both must be multiples of 8"):
        generate_one(workspace, generator, manifest, small_params(width=92))
    assert generate_one(workspace, generator, manifest, small_params(width=96)).state == "done"
    assert table_metadata(workspace.candidate_table("duck-toy"))["fingerprint"] != square
    for row in read_table(workspace.candidate_table("duck-toy")):
        with Image.open(workspace.candidates("duck-toy") / row["file"]) as picture:
            assert picture.size == (row["width"], row["height"]) == (96, 64)
            assert "Size: 96x64" in picture.text["parameters"]


def test_candidates_of_many_concepts_share_their_batches(tmp_path: Path, generator: Generator) -> None:
    """Two concepts of the same token, one whose brief cannot work, and one that stood already."""
    torch.set_num_threads(1)
    slugs = ("duck-toy", "candle", "robot", "rc-car")
    manifests = {}
    for seed, slug in enumerate(slugs):
        shutil.copytree(PHOTOS / "duck-toy", tmp_path / "photos" / slug)
        briefs = f"briefs: ['a {{token}} {'very ' * 80}far away']\n" if slug == "robot" else ""
        workspace, manifests[slug] = add_concept(tmp_path, slug, f"token: <toy>\n{briefs}", photos=tmp_path / "photos")
        add_word(workspace, slug, "<toy>", seed=seed, initializer="toy")
    chosen, sizes = small_params(batch_size=4), []
    hook = generator.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

    def made() -> dict[str, bytes]:
        return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in workspace.artifacts.glob("candidates/*/*")}

    try:
        said = []
        run = Run(workspace, chosen, Given(generator), report=lambda *what: said.append(what))
        done, lost = many(GENERATE, run, *manifests)
        assert done.keys() == {"duck-toy", "candle", "rc-car"} and "would be cut off" in str(lost["robot"])
        assert [what[:2] for what in said] == [(i, 18) for i in range(1, 19)]
        assert sizes == [8] * 5 * chosen.generate.steps  # 18 pictures in 5 batches of 4, with and without the prompt
        whole = made()
        for slug in ("candle", "rc-car"):
            for path in workspace.candidates(slug).iterdir():
                path.unlink()
        stands = Run(workspace, chosen, Given(generator), standing=(GENERATE.plan(run, "duck-toy"),))
        again, _ = many(GENERATE, stands, "rc-car", "candle")
        assert again.keys() == {"candle", "rc-car"} and made() == whole
    finally:
        hook.remove()


def test_what_stands_counts_as_it_was_drawn_in_the_shape_of_the_batches(tmp_path: Path) -> None:
    """A brief that was left out makes no picture, neither now nor in the next call."""
    briefs = {"object": ["a {token}", "a {token} " + "red " * 40, "the {token} " + "red " * 40]}
    params = small_params(briefs=briefs, batch_size="auto", steps=1)
    for slug in ("candle", "duck-toy"):
        shutil.copytree(PHOTOS / "duck-toy", tmp_path / "photos" / slug)
        workspace, _ = add_concept(tmp_path, slug, photos=tmp_path / "photos")
    generator, sizes = Models(params, workspace.root).generator, []
    for slug in ("candle", "duck-toy"):
        add_word(workspace, slug, f"<{slug}>", width=generator.encoders[ONLY].table.shape[1], initializer="toy")
    hook = generator.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    try:
        outcomes = run_stage(GENERATE, Run.over(workspace, params))
        assert [outcome.reason[:30] for outcome in outcomes] == ["2 of its 3 briefs left out: th"] * 2
        workspace.candidate_table("candle").unlink()
        next(workspace.candidates("candle").glob("*.png")).unlink()
        assert [outcome.state for outcome in run_stage(GENERATE, Run.over(workspace, params))] == ["done", "up-to-date"]
    finally:
        hook.remove()
    assert sizes[-1] == sizes[0]


def test_a_folder_that_cannot_be_written_fails_its_concept_only(tmp_path: Path, generator: Generator) -> None:
    shutil.copytree(PHOTOS / "duck-toy", tmp_path / "photos" / "candle")
    workspace, duck = add_concept(tmp_path, "duck-toy")
    workspace, candle = add_concept(tmp_path, "candle", photos=tmp_path / "photos")
    add_word(workspace, "duck-toy", "<duck-toy>", initializer="duck")
    add_word(workspace, "candle", "<candle>", initializer="candle")
    workspace.candidates("candle").parent.mkdir(parents=True)
    workspace.candidates("candle").write_text("a file where the folder should be")
    done, lost = many(GENERATE, Run(workspace, small_params(batch_size=2), Given(generator)), "candle", "duck-toy")
    assert done.keys() == {"duck-toy"} and lost.keys() == {"candle"}
    assert "cannot be written" in str(lost["candle"]) and len(contents(workspace)) == 7


def test_every_concept_whose_folder_cannot_be_written_is_named(tmp_path: Path, generator: Generator) -> None:
    """Two in one batch are found out together, and a third goes on."""
    for slug in ("candle", "duck-toy", "robot"):
        shutil.copytree(PHOTOS / "duck-toy", tmp_path / "photos" / slug)
        workspace, _ = add_concept(tmp_path, slug, photos=tmp_path / "photos")
        add_word(workspace, slug, f"<{slug}>", initializer="toy")
    for slug in ("candle", "duck-toy"):
        workspace.candidates(slug).parent.mkdir(parents=True, exist_ok=True)
        workspace.candidates(slug).write_text("a file where the folder should be")
    run = Run(workspace, small_params(batch_size=16), Given(generator))
    done, lost = many(GENERATE, run, "candle", "duck-toy", "robot")
    assert done.keys() == {"robot"} and lost.keys() == {"candle", "duck-toy"}
