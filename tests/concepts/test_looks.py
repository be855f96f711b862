from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from ti_pipeline.concepts import looks


def test_blur_lowers_sharpness_across_the_limit(photo, params):
    sharp = looks.sharpness(looks.luminance(photo))
    blurred = looks.sharpness(looks.luminance(photo.filter(ImageFilter.GaussianBlur(3))))
    assert blurred < params.validate_.min_sharpness < sharp


def test_a_movement_takes_the_detail_of_one_direction(photo):
    values = np.asarray(photo.resize((512, 384)).convert("RGB"), dtype=float)
    for axis, across in ((0, "down"), (1, "right")):
        moved = Image.fromarray(ndimage.uniform_filter1d(values, 15, axis=axis).astype(np.uint8))
        assert looks.detail(looks.luminance(moved)) < 0.06 < looks.detail(looks.luminance(photo)), across
    assert looks.detail(looks.luminance(photo.resize((8, 64)))) == 1.0  # too small to say


def test_apart_from_all_by_hand():
    pair = np.array([[1, 0, 0], [0.8, 0.6, 0]])
    assert looks.apart_from_all(np.array([*pair, [0.96, 0.28, 0], [0, 0, 1]])).tolist() == [False, False, False, True]
    assert not looks.apart_from_all(np.array([*pair, [0.96, 0.28, 0], [0.9, 0, 0.436]])).any()  # near enough to one of them


def test_contrast_of_a_blank_and_of_a_checkerboard():
    assert looks.contrast(looks.luminance(Image.new("RGB", (64, 64), (9, 99, 9)))) == 0
    board = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255)
    assert looks.contrast(looks.luminance(board)) == 127.5


def test_luminance_is_measured_at_256_pixels_and_never_enlarged():
    assert looks.luminance(Image.new("RGB", (1000, 500))).shape == (128, 256)
    assert looks.luminance(Image.new("RGB", (64, 48))).shape == (48, 64)


def test_perceptual_hash_sees_copies_and_tells_pictures_apart(photo, params):
    small = photo.resize((64, 48))
    other = photo.rotate(180)
    a, b, c = (looks.perceptual_hash(picture) for picture in (photo, small, other))
    assert np.bitwise_count(a ^ b) <= params.validate_.near_duplicate_bits < np.bitwise_count(a ^ c)


def test_nearest_earlier():
    hashes = [np.uint64(value) for value in (0b0000, 0b1111, 0b0111, 0b0000)]
    assert looks.nearest_earlier(hashes) == [None, (0, 4), (1, 1), (0, 0)]
    assert looks.nearest_earlier([]) == []


def test_likeness_to_others_by_hand():
    embeddings = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], dtype=float)
    assert looks.likeness_to_others(embeddings) == pytest.approx([0.6, 0.6, 0.6, 0.0])


def test_outlier_scores():
    assert looks.outlier_scores(np.array([0.9, 0.9, 0.9, 0.5]))[3] == pytest.approx(0.6745 * 0.4 / 0.02)
    assert looks.outlier_scores(np.array([0.9, 0.9, 0.9, 0.89])).max() < 1  # all alike: a small difference means nothing
