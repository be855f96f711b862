from __future__ import annotations

import numpy as np
import pytest

from ti_pipeline.ranking.select import combine, competition_rank, ordinal, rank_candidates, standardise


def unit(*angles: float) -> np.ndarray:
    """Unit vectors in the plane, so that a cosine is the cosine of a difference of angles in degrees."""
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_combine_puts_both_on_one_scale():
    likeness, faithfulness = np.array([0.9, 0.8, 0.7]), np.array([0.21, 0.22, 0.23])
    assert combine(likeness, faithfulness, 0.5) == pytest.approx([0, 0, 0], abs=1e-9)
    assert combine(likeness, faithfulness, 0.75) == pytest.approx([0.5 * 1.2247449, 0, -0.5 * 1.2247449], abs=1e-6)
    assert combine(likeness, faithfulness, 1.0) == pytest.approx(standardise(likeness))


def test_a_column_that_tells_nothing_apart_has_no_say():
    assert standardise(np.array([0.3, 0.3 + 1e-8, 0.3])).tolist() == [0, 0, 0]
    likeness = np.array([0.1, 0.2])
    assert combine(likeness, np.array([0.5, 0.5]), 0.5) == pytest.approx(0.5 * standardise(likeness))
    assert standardise(np.array([0.4])).tolist() == [0]


def test_ranks_and_ordinals():
    assert competition_rank(np.array([0.5, 0.9, 0.5, 0.1])).tolist() == [2, 1, 2, 4]
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th",
    ]  # fmt: skip


def test_near_duplicates_go_behind_all_distinct_ones():
    likeness, faithfulness = np.array([0.9, 0.8, 0.7, 0.6]), np.full(4, 0.3)
    places = rank_candidates(likeness, faithfulness, unit(0, 5, 40, 80), weight=0.5, threshold=0.99)
    assert [p.candidate for p in places] == [0, 2, 3, 1]
    assert [p.place for p in places] == [1, 2, 3, 4]
    assert [p.place_before for p in places] == [1, 3, 4, 2]
    assert [p.duplicate_of for p in places] == [None, None, None, 0]
    assert places[0].reason == "1st of 4: likeness 1st, faithfulness 1st"
    assert places[1].reason == "2nd of 4: likeness 3rd, faithfulness 1st; moved up from place 3 past near-duplicates"
    assert places[3].reason == "4th of 4: likeness 2nd, faithfulness 1st; near-duplicate of candidate 0 (0.996), pushed down from place 2"


def test_a_picture_is_held_against_those_that_are_kept_only():
    """0 – 6 – 12 degrees: the second is like the first, the third like the second but not like the first."""
    places = rank_candidates(np.array([0.9, 0.8, 0.7]), np.zeros(3), unit(0, 6, 12), weight=1.0, threshold=np.cos(np.deg2rad(8)))
    assert [(p.candidate, p.duplicate_of) for p in places] == [(0, None), (2, None), (1, 0)]


def test_a_duplicate_that_was_last_anyway_is_said_to_be_kept_there():
    places = rank_candidates(np.array([0.9, 0.7, 0.5]), np.zeros(3), unit(0, 60, 1), weight=1.0, threshold=0.98)
    assert places[2].candidate == 2
    assert places[2].reason.endswith("near-duplicate of candidate 0 (1.000), kept at place 3, behind the distinct ones")


def test_the_best_eight_are_eight_pictures():
    rng = np.random.default_rng(0)
    pictures = np.repeat(np.arange(8) * 40.0, 2) + rng.uniform(-1, 1, 16)
    places = rank_candidates(rng.random(16), rng.random(16), unit(*pictures), weight=0.5, threshold=0.98)
    assert len({p.candidate // 2 for p in places[:8]}) == 8
    assert all(p.duplicate_of is not None for p in places[8:])
    assert sorted(p.candidate for p in places) == list(range(16))


def test_equal_scores_keep_their_order_and_one_candidate_is_first():
    places = rank_candidates(np.full(3, 0.5), np.full(3, 0.5), unit(0, 90, 180), weight=0.5, threshold=0.98)
    assert [p.candidate for p in places] == [0, 1, 2]
    (only,) = rank_candidates(np.array([0.2]), np.array([0.1]), unit(0), weight=0.5, threshold=0.98)
    assert (only.place, only.score, only.reason) == (1, 0.0, "1st of 1: likeness 1st, faithfulness 1st")


def test_without_references_faithfulness_alone_counts():
    faithfulness = np.array([0.1, 0.3, 0.2, 0.29])
    places = rank_candidates(None, faithfulness, unit(0, 40, 80, 41), weight=0.5, threshold=0.99)
    assert [p.candidate for p in places] == [1, 2, 0, 3]
    assert places[0].reason == "1st of 4: faithfulness 1st"
    assert places[3].reason == "4th of 4: faithfulness 2nd; near-duplicate of candidate 1 (1.000), pushed down from place 2"
    assert [p.score for p in places] == pytest.approx(standardise(faithfulness)[[1, 2, 0, 3]].tolist())
