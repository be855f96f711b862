from __future__ import annotations

import pytest

from ti_pipeline.concepts.templates import OBJECT, STYLE
from ti_pipeline.inversion.prompts import prompts_for


def test_templates_of_the_kind() -> None:
    assert prompts_for(OBJECT, "<mug>", None, "mug") == [template.format("<mug>") for template in OBJECT]
    assert prompts_for(STYLE, "<ink>", "  ", "ink") == [template.format("<ink>") for template in STYLE]


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [
        ("a {token} on a mug rack", "a <mug> on a mug rack"),
        ("my <Mug> beside a mug", "my <Mug> beside a mug"),
        ("a Red Mug on a red mug rack", "a <mug> on a red mug rack"),
    ],
)
def test_caption_with_a_place_for_the_token(caption: str, prompt: str) -> None:
    assert prompts_for(OBJECT, "<mug>", caption, "red mug") == [prompt]


def test_caption_without_one_follows_the_templates() -> None:
    prompts = prompts_for(OBJECT, "<mug>", "on smuggled goods", "mug")
    assert len(prompts) == len(OBJECT) and prompts[0] == "a photo of a <mug>, on smuggled goods"


def test_a_concepts_own_templates_are_said_and_followed_by_captions() -> None:
    own = ("a drawing of a {}",)
    assert prompts_for(own, "<mug>", None, "mug") == ["a drawing of a <mug>"]
    assert prompts_for(own, "<mug>", "in {ink}", "mug") == ["a drawing of a <mug>, in {ink}"]
