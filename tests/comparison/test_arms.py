"""What `compare` says, as arms; and what is refused, with the arm and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ti_pipeline.comparison.arms import arms
from ti_pipeline.errors import ParamsError
from ti_pipeline.inversion.setups import setups
from ti_pipeline.params import load

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_nothing_is_compared_unless_it_is_asked_for() -> None:
    assert arms(load(PARAMS)) == []


def test_an_arm_is_the_baseline_but_for_its_keys() -> None:
    tables = "two: {vectors: 2}, held: {setup: regularised, setups.regularised.weight: 0.5}, few: {pictures: 2, guidance_scale: 0}"
    params = load(PARAMS, [f"compare.setups={{{tables}, said: {{caption: long}}}}"])
    base, two, held, few, said = arms(params)
    assert (base.name, base.train, base.pictures, base.caption) == ("one word", params.train, None, None)
    assert base.guidance_scale == params.compare.guidance_scale
    assert two.train == params.train.model_copy(update={"vectors": 2})
    assert held.train.decisive()["setup"] == {"regularised": {"weight": 0.5}}
    assert params.train.setups.regularised.weight == 0.03  # the tree is not shared
    assert (few.pictures, few.guidance_scale, few.train) == (2, 0.0, params.train)
    assert said.caption == "long"


def test_a_sweep_makes_an_arm_of_each_value() -> None:
    sweep = "compare.sweeps={rate: {key: learning_rate, values: [0.1, 1], base: {vectors: 2}}}"
    base, *swept = arms(load(PARAMS, [sweep]))
    assert [(arm.name, arm.train.learning_rate, arm.train.vectors) for arm in swept] == [("rate 0.1", 0.1, 2), ("rate 1", 1.0, 2)]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("setups={two: {vectros: 2}}", "compare.setups.two: vectros: there is no such key. Did you mean vectors?"),
        ("setups={two: {vectors: 0}}", "compare.setups.two: vectors: Input should be greater than or equal to 1"),
        ("setups={two: {setup: three}}", "compare.setups.two: setup: there is no setup 'three'"),
        ("setups={held: {setups.regularised.wight: 1}}", "compare.setups.held: setups.regularised.wight: Extra inputs"),
        ("setups={grown: {setup: progressive, vectors: 2}}", "compare.setups.grown: a progressive word starts with one vector"),
        ("setups={few: {pictures: 0}}", "compare.setups.few: pictures: Input should be greater than or equal to 1"),
        ("setups={said: {caption: middling}}", "compare.setups.said: caption: Input should be 'short' or 'long'"),
        ("setups={said: {caption: short, steps: 3}}", "compare.setups.said: with a caption nothing is learnt, so steps can change nothing"),
        ("setups={one word: {vectors: 2}}", "'one word' is the name of two setups"),
        ("sweeps={rate: {key: learning_rte, values: [1]}}", "compare.sweeps.rate: learning_rte: there is no such key"),
        ("sweeps={rate: {key: learning_rate, values: []}}", "compare.sweeps.rate.values"),
        ("seeds=[1, 1]", "compare.seeds: [1, 1] has a seed twice"),
        ("steps=[20, 10]", "compare.steps: [20, 10] does not rise"),
    ],
)
def test_what_cannot_be_is_refused_with_the_arm_and_the_key(override: str, said: str) -> None:
    with pytest.raises(ParamsError) as refused:
        load(PARAMS, [f"compare.{override}"])
    assert said in str(refused.value)


def test_a_file_of_other_values_is_laid_over_the_params(tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("train: {steps: 7}\ncompare: {setups: {two: {vectors: 2}}}\n")
    params, plain = load(PARAMS, ["compare.seeds=[5]"], over), load(PARAMS)
    assert (params.train.steps, params.compare.seeds, [arm.name for arm in arms(params)]) == (7, (5,), ["one word", "two"])
    assert params.train.batch_size == plain.train.batch_size and params.evaluate == plain.evaluate
    over.write_text("compare: {setups: {two: {vectors: 0}}}\n")
    with pytest.raises(ParamsError, match="over.yaml"):
        load(PARAMS, [], over)
    with pytest.raises(ParamsError, match="no such file"):
        load(PARAMS, [], tmp_path / "none.yaml")


def test_the_comparison_that_ships_has_every_setup() -> None:
    overlay = PARAMS.parent / "examples" / "comparison.yaml"
    made = arms(load(PARAMS, overlay=overlay))
    names = {name for arm in made for name in arm.train.setup.split("+")}
    assert names == set(setups()) and len({arm.name for arm in made}) == len(made)
    assert {arm.caption for arm in made} == {None, "short", "long"}
    quick = next(arm for arm in made if arm.name == "quick")
    assert quick.train.steps * 4 == made[0].train.steps  # a quarter of the steps that a plain word has


@pytest.mark.parametrize("name", ["set-size", "sweeps"])
def test_the_sweeps_that_ship_can_be_learnt(name: str) -> None:
    params = load(PARAMS, overlay=PARAMS.parent / "examples" / f"{name}.yaml")
    assert len(arms(params)) == 1 + sum(len(sweep.values) for sweep in params.compare.sweeps.values())
