from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from ti_pipeline.candidates.files import stands, sweep, write_picture
from ti_pipeline.candidates.recipe import file_name, parameters_text

RECIPE = {
    "version": 1, "concept": "cat-toy", "brief": "a photo of a {token}", "prompt": "a photo of a <cat-toy>", "candidate": 5, "seed": 42,
    "solver": "dpmsolver++", "steps": 25, "guidance_scale": 5.0, "negative_prompt": "", "width": 64, "height": 48, "generator": "miniature",
    "generator_digest": "a" * 64, "precision": "auto", "words": {"<cat-toy>": "b" * 64},
}  # fmt: skip


def test_parameters_text_is_as_automatic1111_writes_it() -> None:
    assert parameters_text(RECIPE) == (
        "a photo of a <cat-toy>\n"
        "Steps: 25, Sampler: DPM++ 2M, CFG scale: 5, Seed: 42, Size: 64x48, Model hash: aaaaaaaaaa, Model: miniature, "
        'TI hashes: "cat-toy: bbbbbbbbbbbb"'
    )
    other = {**RECIPE, "negative_prompt": "blurry, dark", "guidance_scale": 7.5, "solver": "ddim", "generator": "a, b"}
    lines = parameters_text({**other, "words": {"<cat-toy>": "b" * 64, "<hat>": "c" * 64}}).split("\n")
    assert lines[1] == "Negative prompt: blurry, dark"
    assert lines[2].startswith("Steps: 25, Sampler: DDIM, CFG scale: 7.5, ")
    assert lines[2].endswith('Model: "a, b", TI hashes: "cat-toy: bbbbbbbbbbbb, hat: cccccccccccc"')


def test_file_name_follows_the_recipe() -> None:
    assert file_name(RECIPE) == "a-photo-of-a-cat-toy-05-40202489.png"
    assert file_name({**RECIPE, "steps": 26}) != file_name(RECIPE)
    assert file_name({**RECIPE, "prompt": "猫 <猫>"}).startswith("picture-05-")
    assert len(file_name({**RECIPE, "prompt": "very " * 100})) < 80


def test_recipe_is_in_the_file_and_a_file_of_another_does_not_stand(tmp_path: Path) -> None:
    path, recipe = tmp_path / "a.png", {**RECIPE, "prompt": "ein Bild, 猫 <cat-toy>"}
    write_picture(path, Image.effect_noise((64, 48), 50).convert("RGB"), recipe)
    with Image.open(path) as picture:
        assert json.loads(picture.text["ti-pipeline"]) == recipe
        assert picture.text["parameters"] == parameters_text(recipe)
    assert stands(path, recipe)
    assert not stands(path, {**recipe, "seed": 43})
    assert not stands(tmp_path / "b.png", recipe)


def test_a_cut_or_changed_file_does_not_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Image.effect_noise((64, 48), 50).convert("RGB"), RECIPE)
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
