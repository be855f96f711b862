from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ti_pipeline.evaluation.metrics import alike, alike_among, drawings, editability, gain, mean_estimate


def unit(*angles: float) -> np.ndarray:
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_reconstruction_is_the_mean_over_all_pairs():
    samples, pictures = unit(0, 60), unit(0, 90)
    assert alike(samples, pictures) == pytest.approx([(1 + 0) / 2, (0.5 + np.cos(np.deg2rad(30))) / 2])
    assert alike(samples, pictures).mean() == pytest.approx(np.mean([1, 0, 0.5, np.cos(np.deg2rad(30))]))


def test_no_picture_is_held_against_itself():
    assert alike_among(unit(0, 60, 60)) == pytest.approx([0.5, 0.75, 0.75])
    assert alike_among(unit(10, 10)) == pytest.approx([1, 1])


def test_the_papers_rule_averages_embeddings_and_the_codes_rule_averages_cosines():
    samples, text = unit(40, -40), unit(0)[0]
    paper, code = editability([samples], [text], 200, rng())
    assert paper.value == pytest.approx(1)  # their average points straight at the text
    assert code.value == pytest.approx(np.cos(np.deg2rad(40)))
    alone, same = editability([samples[:1]], [text], 200, rng())
    assert alone.value == pytest.approx(same.value)


def test_editability_is_the_mean_over_prompts():
    texts = [unit(0)[0], unit(90)[0]]
    paper, code = editability([unit(0, 0), unit(0, 0)], texts, 50, rng())
    assert (paper.value, code.value, paper.n) == (pytest.approx(0.5), pytest.approx(0.5), 4)
    assert (paper.low, paper.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_resamples_are_shares():
    shares = drawings(5, 1000, rng())
    assert shares.shape == (1000, 5) and shares.sum(axis=1) == pytest.approx(np.ones(1000))
    assert shares.mean() == pytest.approx(0.2) and 0.05 < shares.std() < 0.3


def test_intervals_cover_the_truth_about_95_times_in_100():
    draws = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        estimate = mean_estimate(draws.normal(0.7, 0.1, 60), 400, draws)
        covered += estimate.low <= 0.7 <= estimate.high
        assert estimate.low < estimate.value < estimate.high
    assert 0.88 <= covered / 300 <= 0.99


def test_the_same_seed_gives_the_same_interval():
    values = np.linspace(0, 1, 20)
    assert mean_estimate(values, 100, rng()) == mean_estimate(values, 100, rng())
    assert mean_estimate(values, 100, rng()) != mean_estimate(values, 100, np.random.default_rng(1))


def test_gain_counts_from_the_word_to_the_pictures():
    start, goal = np.full(8, 0.5), 0.9
    assert gain(start, start, goal, 50, rng()).value == pytest.approx(0)
    assert gain(start, np.full(8, 0.9), goal, 50, rng()).value == pytest.approx(100)
    half = gain(start, np.linspace(0.6, 0.8, 8), goal, 500, rng())
    assert half.value == pytest.approx(50) and half.low < 50 < half.high
    assert gain(start, np.full(8, 0.4), goal, 50, rng()).value == pytest.approx(-25)


def test_there_is_no_gain_where_the_word_alone_is_as_good_as_the_pictures():
    assert gain(np.full(4, 0.95), np.full(4, 0.97), 0.9, 50, rng()) is None
    assert gain(np.array([0.5, 1.2, 0.5, 1.2]), np.full(4, 0.9), 0.9, 200, rng()) is None


def test_the_resamples_of_a_large_collection_are_never_all_in_the_memory():
    values = np.random.default_rng(1).random(20_000)
    tracemalloc.start()
    made = mean_estimate(values, 1000, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6  # together they are 160 MB, and the shares as many again
    whole = drawings(len(values), 1000, np.random.default_rng(0)) @ values
    assert (made.low, made.high) == pytest.approx(np.percentile(whole, [2.5, 97.5]), rel=1e-12)
