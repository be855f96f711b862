from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.validation import Row, Validation, validate_concept


def validate(folder, params, embed=None, **settings) -> Validation:
    return validate_concept(load_concept(folder), params.validate_.model_copy(update=settings), embed)


def row(validation: Validation, file: str) -> Row:
    return next(row for row in validation.rows if row.file == file)


def colours(pictures: list[Image.Image]) -> np.ndarray:
    """Unit vectors [n, 3] of the mean colour: a model that is small but real enough to have an opinion."""
    means = np.array([np.asarray(picture, dtype=float).mean((0, 1)) - 128 for picture in pictures])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_a_good_set_has_nothing_to_say(duck, params):
    validation = validate(duck, params)
    assert [row.decision for row in validation.accepted] == ["accepted"] * 4
    assert not validation.quarantine and not validation.warnings
    assert not any(row.reasons or row.warnings for row in validation.rows)
    first = validation.rows[0]
    assert (first.format, first.mode, first.orientation) == ("JPEG", "RGB", 1)
    with Image.open(duck / "00.jpg") as picture:
        assert (first.width, first.height) == picture.size
    assert len(first.digest) == len(first.pixel_digest) == 64


def test_every_kind_of_bad_file_is_refused_with_its_reason_and_the_rest_goes_on(duck, params, tmp_path):
    whole = (duck / "00.jpg").read_bytes()
    (duck / "empty.jpg").write_bytes(b"")
    (duck / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (duck / "page.png").write_text("<html>")
    (duck / "film.mp4").write_bytes(os.urandom(100))
    (tmp_path / "outside.jpg").write_bytes(whole)
    (duck / "outside.jpg").symlink_to(tmp_path / "outside.jpg")
    Image.new("RGB", (31, 200)).save(duck / "thin.png")
    validation = validate(duck, params)
    refused = {row.file: row.reasons[0] for row in validation.rows if row.decision == "refused"}
    assert len(validation.accepted) == 4 and not validation.quarantine
    for file, reason in {
        "empty.jpg": "empty",
        "cut.jpg": "truncated or damaged JPEG",
        "page.png": "not a picture",
        "film.mp4": "not a picture",
        "outside.jpg": "outside the set",
        "thin.png": "31 × 200 pixels",
    }.items():
        assert reason in refused.pop(file)
    assert not refused
    assert row(validation, "outside.jpg").digest is None and row(validation, "cut.jpg").digest


def test_too_many_megapixels_is_decided_before_decoding(duck, params):
    picture = Image.new("RGB", (200, 100), (1, 2, 3))
    picture.save(duck / "exact.png")
    Image.new("RGB", (201, 100)).save(duck / "over.png")
    (duck / "over.png").write_bytes((duck / "over.png").read_bytes()[:60])  # a decoder would call it truncated
    validation = validate(duck, params, max_megapixels=0.02, min_edge=8)
    assert row(validation, "exact.png").decision == "accepted"
    assert row(validation, "over.png").reasons[0].startswith("larger than 0.02 megapixels")
    assert (row(validation, "over.png").width, row(validation, "over.png").height) == (201, 100)


def test_the_setting_and_not_the_library_draws_the_line(duck, params, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert len(validate(duck, params).accepted) == 4


def test_size_and_aspect_are_those_of_the_upright_picture(duck, params, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.resize((300, 100)).save(duck / "wide.jpg", exif=exif)
    found = row(validate(duck, params), "wide.jpg")
    assert (found.width, found.height, found.orientation) == (100, 300, 6)
    assert "aspect ratio 3.0" in found.warnings[0]


def test_blank_and_blurred_are_warned_about(duck, params, photo):
    Image.new("RGB", (100, 100), (255, 255, 255)).save(duck / "blank.png")
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(duck / "clear.png")
    photo.filter(ImageFilter.GaussianBlur(4)).save(duck / "soft.png")
    validation = validate(duck, params)
    assert row(validation, "blank.png").warnings == ("blank: nearly one colour throughout",)
    assert row(validation, "clear.png").warnings[0].startswith("blank")
    assert row(validation, "soft.png").warnings[0].startswith("blurred")


def test_copies_and_near_duplicates_are_named(duck, params):
    shutil.copy(duck / "01.jpg", duck / "x-copy.jpg")
    with Image.open(duck / "02.jpg") as picture:
        picture.resize((150, 150)).save(duck / "x-near.webp", quality=60)
    validation = validate(duck, params)
    assert row(validation, "x-copy.jpg").warnings == ("the same picture as 01.jpg",)
    assert row(validation, "x-near.webp").warnings[0].startswith("nearly the same picture as 02.jpg")
    assert row(validation, "01.jpg").warnings == row(validation, "02.jpg").warnings == ()


def test_an_outlier_is_named_and_the_model_sees_upright_rgb(folder, params):
    path = folder()
    noise = np.random.default_rng(0)
    for index in range(5):
        grain = noise.normal(0, 30, (64, 64, 3)) + ((210, 120, 60) if index < 4 else (40, 90, 230))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(path / f"{index}.png")
    validation = validate(path, params, colours)
    assert [bool(row.warnings) for row in validation.rows] == [False] * 4 + [True]
    assert "look whether it belongs here" in validation.rows[4].warnings[0]
    assert not any(row.warnings for row in validate(path, params, None).rows)


def test_three_pictures_have_no_outlier_and_the_model_is_not_called(duck, params):
    (duck / "03.jpg").unlink()
    assert len(validate(duck, params, lambda pictures: pytest.fail("called")).accepted) == 3


def test_gif_and_frames_are_warned_about(duck, params, photo):
    photo.save(duck / "still.gif")
    photo.save(duck / "moving.gif", save_all=True, append_images=[photo.rotate(180)])
    validation = validate(duck, params)
    assert "256 colours" in row(validation, "still.gif").warnings[0]
    assert row(validation, "moving.gif").warnings[0] == "GIF with 2 frames; only the first is used"


def test_few_many_and_subfolders_are_said_of_the_set(duck, params):
    (duck / "more").mkdir()
    assert validate(duck, params, max_pictures=3).warnings == (
        "subfolder more: not looked into; a set is one folder",
        "4 pictures; more than 3 rarely make a better word",
    )
    for file in ("01.jpg", "02.jpg", "03.jpg"):
        (duck / file).unlink()
    assert validate(duck, params).warnings[1].startswith("1 picture that can be used; 3 or more")


def test_a_set_with_nothing_usable_is_quarantined_with_its_reason(folder, params):
    path = folder()
    assert validate(path, params).quarantine == "no pictures in the folder"
    (path / "deeper").mkdir()
    assert "only subfolders (deeper)" in validate(path, params).quarantine
    (path / "a.jpg").write_bytes(b"")
    (path / "b.jpg").write_bytes(b"x")
    quarantine = validate(path, params).quarantine
    assert "none of its 2 files" in quarantine and "a.jpg: empty" in quarantine and "b.jpg: not a picture" in quarantine


def test_the_pixel_digest_is_of_the_pixels(duck, params):
    with Image.open(duck / "00.jpg") as picture:
        picture.save(duck / "same-pixels.png")
    validation = validate(duck, params)
    one, other = row(validation, "00.jpg"), row(validation, "same-pixels.png")
    assert one.pixel_digest == other.pixel_digest and one.digest != other.digest


def test_a_moved_picture_is_said_to_be_blurred(duck, params):
    with Image.open(duck / "00.jpg") as picture:
        values = ndimage.uniform_filter1d(np.asarray(picture, dtype=float), 9, axis=1)
    Image.fromarray(values.astype(np.uint8)).save(duck / "moved.png")
    assert row(validate(duck, params), "moved.png").warnings[0].startswith("blurred")


def test_a_large_set_is_looked_at_in_parts_of_one_opinion(folder, params):
    path, batches = folder(), []
    noise = np.random.default_rng(0)
    for index in range(70):
        grain = noise.normal(0, 30, (48, 48, 3)) + ((210, 120, 60) if index != 40 else (40, 90, 230))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(path / f"{index:02}.png")

    def embed(pictures):
        batches.append(len(pictures))
        return colours(pictures)

    named = [row.file for row in validate(path, params, embed).rows if any("belongs here" in warning for warning in row.warnings)]
    assert named == ["40.png"] and batches == [32, 32, 6]
