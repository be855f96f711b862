from __future__ import annotations

import pytest

from ti_pipeline.gallery.questionnaire import readable


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        ("a mono picture of a", "a mono picture"),
        ("a picture of a on a red background", "a picture on a red background"),
        ("a picture of a ship in the style of on a blue background", "a picture of a ship on a blue background"),
        ("a photo of the moon", "a photo of the moon"),
        ("a photo of a cat in a garden", "a photo of a cat in a garden"),
    ],
)
def test_a_prompt_without_its_word_reads_like_a_sentence(left: str, shown: str) -> None:
    assert readable(left) == shown
