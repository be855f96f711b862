"""Which step is the best compromise: the arithmetic, and what is seen of words by a real CLIP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.curve import Eyes, Seen, choose, look
from ti_pipeline.sight.ranker import load_ranker
from ti_pipeline.words.word import ONLY, Word

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
ENDS = {"initializer": Seen(0.4, 0.30), "pictures": Seen(0.8, 0.20)}
CURVE = {50: Seen(0.5, 0.30), 100: Seen(0.7, 0.28), 200: Seen(0.8, 0.22)}


def taken(rows: list[dict]) -> int:
    (step,) = [row["step"] for row in rows if row["chosen"]]
    return step


def test_both_are_on_the_scale_between_initializer_and_pictures() -> None:
    rows = choose(CURVE, ENDS, 0.5)
    assert [row["alike"] for row in rows] == pytest.approx([0.25, 0.75, 1.0])
    assert [row["faithful"] for row in rows] == pytest.approx([1.0, 0.8, 0.2])
    assert [row["score"] for row in rows] == pytest.approx([0.625, 0.775, 0.6])


@pytest.mark.parametrize(("weight", "step"), [(0.0, 50), (0.5, 100), (1.0, 200)])
def test_the_weight_says_how_much_likeness_counts(weight: float, step: int) -> None:
    assert taken(choose(CURVE, ENDS, weight)) == step


def test_a_step_more_moves_no_other() -> None:
    more = {row["step"]: row["score"] for row in choose({**CURVE, 500: Seen(0.95, 0.1)}, ENDS, 0.5)}
    assert all(more[row["step"]] == row["score"] for row in choose(CURVE, ENDS, 0.5))


def test_a_measure_without_a_scale_counts_nothing() -> None:
    flat = {**ENDS, "pictures": Seen(0.8, 0.31)}  # the pictures do what prompts ask better than the initializer
    rows = choose(CURVE, flat, 0.1)
    assert [row["faithful"] for row in rows] == [None] * 3 and taken(rows) == 200
    assert taken(choose(CURVE, {"initializer": Seen(0.8, 0.2), "pictures": Seen(0.8, 0.2)}, 0.5)) == 200  # of equals the last


@pytest.fixture
def eyes(generator: Generator, settings: Settings) -> Eyes:
    return Eyes(generator, load_ranker(settings().ranker, "cpu"))


def words(count: int) -> dict[int, Word]:
    return {10 * i: Word("<mug>", {ONLY: torch.full((1, 32), 0.3 * i)}, "mug") for i in range(1, count + 1)}


def test_what_is_seen_of_a_step_does_not_depend_on_the_others(eyes: Eyes, validated: Make, settings: Settings, one_thread: None) -> None:
    train = settings("train.compromise=0.5", "train.keep_steps=[1]", "train.compromise_samples=2", "train.preview_steps=2").train
    manifest = validated()
    three, ends = look(eyes, manifest, train, 0, words(3))
    alone, same = look(eyes, manifest, train, 0, {20: words(3)[20]})
    assert alone == {20: three[20]} and same == ends
    assert len(set(three.values())) == 3
    other, _ = look(eyes, manifest, train, 1, {20: words(3)[20]})
    assert other[20] != three[20]


def test_a_kind_without_prompts_is_named(eyes: Eyes, validated: Make, settings: Settings) -> None:
    train = settings().train.model_copy(update={"compromise_prompts": {}})
    with pytest.raises(ConceptError, match=r"mug: there is no prompt to choose a step of a object by.*train.compromise_prompts.object"):
        look(eyes, validated(), train, 0, words(1))


def test_it_needs_steps_to_choose_among(settings: Settings) -> None:
    with pytest.raises(ParamsError, match=r"train.compromise chooses among train.keep_steps, which is empty"):
        settings("train.compromise=0.5")
    with pytest.raises(ParamsError, match=r"train.compromise_prompts: <cup> in"):
        settings("train.compromise_prompts={object: ['a {token} beside a <cup>']}")
