from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.version import InvalidVersion, Version
from PIL import Image

from tests.candidates import readers
from tests.candidates.readers import Read
from ti_pipeline import __version__
from ti_pipeline.candidates.files import stands, sweep, write_picture
from ti_pipeline.candidates.recipe import Elsewhere, file_name, parameters_text

RECIPE = {
    "version": 1, "concept": "cat-toy", "brief": "a photo of a {token}", "prompt": "a photo of a <cat-toy>", "candidate": 5, "seed": 42,
    "solver": "dpmsolver++", "steps": 25, "guidance_scale": 5.0, "negative_prompt": "", "width": 64, "height": 48, "generator": "miniature",
    "generator_digest": "a" * 64, "precision": "auto", "words": {"<cat-toy>": "b" * 64},
}  # fmt: skip


ELSEWHERE = Elsewhere("DPM++ 2M", "SGM Uniform", {"CFG scale": 5.0}, "", {"<cat-toy>": "ti-cat-toy", "<hat>": "ti-hat"})
DRAWING = (25, "DPM++ 2M", 5.0, 42, (64, 48))


def test_parameters_text_is_as_automatic1111_writes_it() -> None:
    assert parameters_text(RECIPE, ELSEWHERE) == (
        "a photo of a ti-cat-toy\nNegative prompt: \n"
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: SGM Uniform, CFG scale: 5, Seed: 42, Size: 64x48, Model: miniature, "
        f'TI hashes: "ti-cat-toy: bbbbbbbbbbbb", RNG: CPU, Version: ti-pipeline {__version__}'
    )
    other = {**RECIPE, "negative_prompt": "blurry, <HAT>", "generator": "a, b"}
    other["words"] = {"<cat-toy>": "b" * 64, "<hat>": "c" * 64}
    lines = parameters_text(other, replace(ELSEWHERE, guidance={"CFG scale": 7.5}, model_hash="6ce0161689")).split("\n")
    assert lines[1] == "Negative prompt: blurry, ti-hat"
    assert lines[2].startswith("Steps: 25, Sampler: DPM++ 2M, Schedule type: SGM Uniform, CFG scale: 7.5, ")
    assert 'Model hash: 6ce0161689, Model: "a, b", TI hashes: "ti-cat-toy: bbbbbbbbbbbb, ti-hat: cccccccccccc"' in lines[2]
    assert "TI hashes" not in parameters_text({**RECIPE, "prompt": "a cat", "words": {}}, ELSEWHERE)


@pytest.mark.parametrize("negative", ["", "blurry: a <hat>, dark"])
def test_every_reader_has_what_was_drawn(negative: str) -> None:
    recipe = {**RECIPE, "prompt": "a <Cat-Toy>, in the rain", "negative_prompt": negative, "generator": "a: b"}
    text, unwanted = parameters_text(recipe, replace(ELSEWHERE, model_hash="6ce0161689")), negative.replace("<hat>", "ti-hat")
    read = readers.a1111(text)
    assert (read.prompt, read.negative, read.drawing) == ("a ti-cat-toy, in the rain", unwanted, DRAWING)
    asked = ("RNG", "Schedule type", "Model hash", "Model", "TI hashes", "Version")
    assert [read.more[name] for name in asked] == [
        "CPU", "SGM Uniform", "6ce0161689", "a: b", "ti-cat-toy: bbbbbbbbbbbb", f"ti-pipeline {__version__}",
    ]  # fmt: skip
    other = readers.prompt_reader(text)
    assert (other.prompt, other.negative, other.drawing) == (read.prompt, read.negative, DRAWING)
    tags, more = readers.infinite_image_browsing(text)
    assert tags == ["a ti cat toy", "in the rain"] and Read("", "", more).drawing == DRAWING
    imported = readers.comfyui(text, ["ti-cat-toy", "ti-hat", "ti-cat"])
    assert imported and imported.drawing == (25, "dpmpp_2m", 5.0, 42, (64, 64))
    assert imported.prompt == "a embedding:ti-cat-toy, in the rain" and imported.negative == unwanted.replace("ti-hat", "embedding:ti-hat")


def test_a_distilled_guidance_stands_where_forge_writes_it() -> None:
    text = parameters_text(RECIPE, replace(ELSEWHERE, guidance={"CFG scale": 1.0, "Distilled CFG Scale": 3.5}))
    assert ", Schedule type: SGM Uniform, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 42, " in text
    without = (25, "DPM++ 2M", 1.0, 42, (64, 48))
    assert readers.a1111(text).drawing == readers.prompt_reader(text).drawing == without
    assert readers.a1111(text).more["Distilled CFG Scale"] == "3.5"


def test_a_version_of_ours_is_no_old_one_of_theirs() -> None:
    """A1111 draws as an old version of it did where `Version` is one."""
    with pytest.raises(InvalidVersion):
        Version(readers.a1111(parameters_text(RECIPE, ELSEWHERE)).more["Version"])


def test_brackets_are_no_weights_elsewhere() -> None:
    text = parameters_text({**RECIPE, "prompt": r"a <cat-toy> (small) [red] \o/"}, ELSEWHERE)
    assert text.startswith(r"a ti-cat-toy \(small\) \[red\] \\o/")


def test_file_name_follows_the_recipe() -> None:
    assert file_name(RECIPE) == "a-photo-of-a-cat-toy-05-40202489.png"
    assert file_name({**RECIPE, "steps": 26}) != file_name(RECIPE)
    assert file_name({**RECIPE, "prompt": "猫 <猫>"}).startswith("picture-05-")
    assert len(file_name({**RECIPE, "prompt": "very " * 100})) < 80


def test_recipe_is_in_the_file_and_a_file_of_another_does_not_stand(tmp_path: Path) -> None:
    path, recipe = tmp_path / "a.png", {**RECIPE, "prompt": "ein Bild, 猫 <cat-toy>"}
    write_picture(path, Image.effect_noise((64, 48), 50).convert("RGB"), recipe, "Steps: 7, 猫")
    with Image.open(path) as picture:
        assert json.loads(picture.text["ti-pipeline"]) == recipe
        assert picture.text["parameters"] == "Steps: 7, 猫"
    assert stands(path, recipe)
    assert not stands(path, {**recipe, "seed": 43})
    assert not stands(tmp_path / "b.png", recipe)


def test_a_cut_or_changed_file_does_not_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Image.effect_noise((64, 48), 50).convert("RGB"), RECIPE, "")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no picture", whole[:-2000] + bytes(2000)):
        path.write_bytes(damaged)
        assert not stands(path, RECIPE)
    Image.new("RGB", (8, 8)).save(path, format="JPEG")
    assert not stands(path, RECIPE)


def test_sweep_keeps_what_is_named_and_what_is_no_picture(tmp_path: Path) -> None:
    for name in ("keep.png", "old.png", ".half-1234.png", "candidates.parquet"):
        (tmp_path / name).write_text("")
    sweep(tmp_path, {"keep.png"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candidates.parquet", "keep.png"]
