"""Words between two words: on the arc, with the norms on the way, and the words themselves at its ends."""

from __future__ import annotations

import math

import pytest
import torch

from ti_pipeline.errors import ParamsError
from ti_pipeline.words.blend import between
from ti_pipeline.words.word import ONLY, Word


def word(token: str, *rows: list[float]) -> Word:
    return Word(token, {ONLY: torch.tensor(rows)}, class_words=token)


A, B = word("<a>", [2.0, 0, 0], [0, 1.0, 0]), word("<b>", [0, 8.0, 0], [0, 0, 1.0])


def test_the_ends_are_the_words_themselves():
    assert torch.allclose(between(A, B, 0).rows[ONLY], A.rows[ONLY], atol=1e-6)
    assert torch.allclose(between(A, B, 1).rows[ONLY], B.rows[ONLY], atol=1e-6)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_row_is_as_far_along_the_arc_as_along_the_norms(share):
    row = between(A, B, share).rows[ONLY][0]
    assert math.degrees(math.atan2(row[1], row[0])) == pytest.approx(90 * share, abs=1e-4)
    assert row.norm().item() == pytest.approx(2 * 4**share, rel=1e-6)  # from 2 to 8


def test_equal_directions_stay_and_none_is_lost():
    twice = word("<c>", [4.0, 0, 0], [0, 1.0, 0])
    rows = between(A, twice, 0.5).rows[ONLY]
    assert torch.allclose(rows, torch.tensor([[8.0**0.5, 0, 0], [0, 1, 0]]), atol=1e-6)
    near = word("<d>", [2.0, 1e-9, 0], [0, 1.0, 0])
    assert between(A, near, 0.5).rows[ONLY].isfinite().all()


def test_the_nearer_ones_class_words_stand_for_it():
    assert between(A, B, 0.4).class_words == "<a>" and between(A, B, 0.6).class_words == "<b>"


def test_words_of_other_lengths_are_refused():
    with pytest.raises(ParamsError, match="<a> and <e> have different numbers of vectors"):
        between(A, word("<e>", [1.0, 0, 0]), 0.5)
