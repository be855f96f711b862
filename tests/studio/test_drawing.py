"""A typed prompt becomes the pictures that the same text as a brief becomes, in an order whose rule is said."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.candidates.small_workspace import add_concept, add_word, small_params
from tests.sight.test_likeness import settings, write_dino
from tests.stages.one import Given, generate_one
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import read_table
from ti_pipeline.generators.generator import Generator
from ti_pipeline.params import Params
from ti_pipeline.sight.likeness import load_dino
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.stages.stage import Run
from ti_pipeline.studio.drawing import draw
from ti_pipeline.studio.drawn import Drawn
from ti_pipeline.studio.prompt import Known
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

PROMPT = "a <duck-toy> on the moon"


@pytest.fixture
def duck(tmp_path: Path) -> tuple[Workspace, Manifest]:
    workspace, manifest = add_concept(tmp_path, "duck-toy", "initializer: toy\nbriefs: ['a {token} on the moon']\n")
    add_word(workspace, "duck-toy", "<duck-toy>", initializer="rubber duck")
    return workspace, manifest


def drawn(workspace: Workspace, prompt: str, *models: object, folder: Path | None = None, params: Params | None = None) -> Drawn:
    return draw(Run(workspace, params or small_params(), Given(*models)), prompt, Known(workspace), folder)


def test_a_brief_that_is_typed_gives_the_candidates_of_that_brief(duck, generator: Generator, miniature: Ranker, tmp_path: Path) -> None:
    workspace, manifest = duck
    generate_one(workspace, generator, manifest, small_params())
    table = workspace.candidate_table("duck-toy")
    made = drawn(workspace, "a <Duck-Toy> on  the moon", generator, miniature, folder=tmp_path / "out")
    assert made.prompt == "a <Duck-Toy> on the moon"
    same = drawn(workspace, PROMPT, generator, miniature, folder=tmp_path / "out")
    files = {row["file"]: (table.parent / row["file"]).read_bytes() for row in read_table(table)}
    assert {picture.file: (tmp_path / "out" / picture.file).read_bytes() for picture in same} == files
    assert [picture.recipe["seed"] for picture in made] == [picture.recipe["seed"] for picture in same]
    assert "likeness" in same.rule and "0.5" in same.rule and "'a rubber duck on the moon'" in same.rule and "of duck-toy" in same.rule
    assert [picture.place for picture in same] == [1, 2, 3] and same.best.reason.startswith("1st of 3: likeness ")


def test_the_dino_that_ranks_says_how_alike_they_are(duck, generator: Generator, miniature: Ranker, tmp_path: Path) -> None:
    workspace, manifest = duck
    dino = load_dino(settings(likeness="dino", dino=str(write_dino(tmp_path / "dino"))), "cpu")
    assert dino is not None
    models = Given(generator, miniature, dino=dino, likeness_by_clip=False)
    made = draw(Run(workspace, small_params(), models), PROMPT, Known(workspace))
    references = dino.images([manifest.open(picture) for picture in manifest.pictures])
    for picture in made:
        assert picture.likeness == pytest.approx((dino.images([picture.image])[0] @ references.T).mean(), abs=1e-5)
    assert made.rule.endswith("by the likeness to the pictures of duck-toy, by dino")


def test_pictures_have_the_size_that_is_set(duck, generator: Generator, miniature: Ranker) -> None:
    made = drawn(duck[0], PROMPT, generator, miniature, params=small_params(width=96))
    assert {(picture.image.size, picture.recipe["width"], picture.recipe["height"]) for picture in made} == {((96, 64), 96, 64)}


def test_what_stands_is_not_drawn_again_and_what_else_is_there_stays(duck, generator: Generator, miniature: Ranker, tmp_path: Path) -> None:
    workspace, _ = duck
    out = tmp_path / "out"
    first = drawn(workspace, PROMPT, generator, miniature, folder=out)
    (out / "mine.png").write_bytes(b"mine")
    (out / first[0].file).unlink()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != first.sheet_file}
    again = drawn(workspace, PROMPT, generator, miniature, folder=out)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again == first and (out / "mine.png").read_bytes() == b"mine"
    assert all(np.array_equal(one.image, other.image) for one, other in zip(first, again, strict=True))
    assert sorted(path.name for path in out.iterdir()) == sorted([*(one.file for one in first), first.sheet_file, "mine.png"])


def test_words_of_several_concepts_and_of_none_are_ranked_by_what_the_prompt_says(duck, generator, miniature: Ranker) -> None:
    workspace, _ = duck
    add_word(workspace, "hat", "<hat>", seed=1, initializer="top hat")
    for prompt, text in (("a <duck-toy> with a <HAT>", "a rubber duck with a top hat"), ("a photo of a cat", "a photo of a cat")):
        made = drawn(workspace, prompt, generator, miniature)
        assert made.rule == f"ranked by CLIP's faithfulness to {text!r}"
        seen = miniature.images([picture.image for picture in made]) @ miniature.texts([text])[0]
        assert [picture.faithfulness for picture in made] == pytest.approx(seen.tolist(), abs=1e-5)
        assert all(picture.likeness is None and "likeness" not in picture.reason for picture in made)
    assert made[0].recipe["concept"] == "" and made[0].recipe["words"] == {}


def test_pictures_that_have_changed_since_are_no_references(duck, generator, miniature: Ranker) -> None:
    workspace, manifest = duck
    Image.new("RGB", (64, 64)).save(manifest.pictures[0].path)
    assert "likeness" not in drawn(workspace, PROMPT, generator, miniature).rule


def test_without_a_ranker_it_is_drawn_and_said(duck, generator) -> None:
    class Without(Given):
        @property
        def ranker(self):
            raise ParamsError("ranker.model: there is no folder at x")

    workspace, _ = duck
    models = Without.__new__(Without)
    object.__setattr__(models, "generator", generator)
    object.__setattr__(models, "reader_if_there", None)
    made = draw(Run(workspace, small_params(), models), PROMPT, Known(workspace))
    assert made.rule == "not ranked, in the order of their numbers: ranker.model: there is no folder at x"
    assert [picture.recipe["candidate"] for picture in made] == [0, 1, 2]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a <duck-toi>", "<duck-toi>: no concept of {root} has learnt such a word. Did you mean <duck-toy>? There are: <duck-toy>."),
        ("a {token} on the moon", "{{token}} is a brief's; write a learnt word as it is: <duck-toy>"),
        ("a {thing}", "{{thing}} means nothing here"),
        ("  ", "is empty"),
        ("a <duck-toy> " + "word " * 90, "takes 95 tokens and tiny reads 77, so its end would be cut off. Shorten it"),
        ("word " * 600, "has 2,999 characters; write at most 2,000"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said(duck, generator, prompt: str, said: str) -> None:
    workspace, _ = duck
    with pytest.raises(ParamsError) as error:
        drawn(workspace, prompt, generator)
    assert said.format(root=workspace.root) in str(error.value)


def test_a_word_of_another_model_and_one_in_the_negative_prompt_are_said(duck, generator, tmp_path: Path) -> None:
    workspace, _ = duck
    add_word(workspace, "wide", "<wide>", width=48)
    with pytest.raises(ParamsError, match="vectors of <wide> have 48 numbers .* another model"):
        drawn(workspace, "a <wide>", generator)
    with pytest.raises(ParamsError, match="<nobody>: no concept"):
        drawn(workspace, PROMPT, generator, params=small_params(negative_prompt="<nobody>"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ParamsError, match="is a file"):
        drawn(workspace, PROMPT, generator, folder=tmp_path / "file")


def test_words_in_hand_come_before_those_of_the_workspace(duck, generator, miniature: Ranker) -> None:
    workspace, _ = duck
    own = Known(workspace).word("<duck-toy>")
    other = replace(own, rows={ONLY: -own.rows[ONLY]}, digest="other")
    run = Run(workspace, small_params(), Given(generator, miniature))
    made = draw(run, PROMPT, Known(workspace, {"<duck-toy>": other}))
    assert made.best.recipe["words"] == {"<duck-toy>": "other"} and "likeness" not in made.rule
    assert not np.array_equal(made[0].image, draw(run, PROMPT, Known(workspace))[0].image)


def test_pictures_show_themselves(duck, generator, miniature: Ranker, tmp_path: Path) -> None:
    workspace, _ = duck
    made = drawn(workspace, "a <duck-toy> & a hat", generator, miniature)
    with Image.open(BytesIO(made.best._repr_png_())) as picture:
        assert np.array_equal(picture, made.best.image)
    with Image.open(BytesIO(made._repr_png_())) as sheet:
        edge = generator.resolution
        assert sheet.size == (2 * edge + 4, 2 * (edge + 14) + 4)
        assert np.array_equal(np.asarray(sheet)[:edge, :edge], made[0].image)
        assert np.array_equal(np.asarray(sheet)[:edge, edge + 4 :], made[1].image)
    shown = made._repr_html_()
    assert shown.count("<img ") == 3 and "&lt;duck-toy&gt; &amp; a hat" in shown and "<duck-toy>" not in shown
    path = made.best.save(tmp_path)
    with Image.open(path) as picture:
        assert path.name == made.best.file and picture.info["parameters"].startswith("a ti-duck-toy & a hat\n")
    assert made.save(tmp_path / "all").name == made.sheet_file and len(list((tmp_path / "all").iterdir())) == 4
