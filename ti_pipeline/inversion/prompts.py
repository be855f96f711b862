"""What is said about a picture during training: a neutral template, or its caption with the learnt word in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.settings import caption_place
from ti_pipeline.generators.placeholder import check_prompt, cutting
from ti_pipeline.generators.reader import Reader


def prompts_for(neutral: Sequence[str], token: str, caption: str | None, class_words: str) -> list[str]:
    """The prompts of one picture, one of which is drawn each time that the picture is.

    Without a caption: the `neutral` templates. With one, the first of these that applies:
    `{token}` in it is the place of the learnt word; it holds the token already; it holds the class words, and they give way to
    the token; else each template is followed by the caption ("a photo of a <cat-toy>, on a red sofa").
    """
    templates = [template.replace("{}", token) for template in neutral]
    if not caption or not caption.strip():
        return templates
    caption = caption.strip()
    if "{token}" in caption:
        return [caption.replace("{token}", token)]
    if token.lower() in caption.lower():
        return [caption]
    words = re.compile(rf"(?<!\w){re.escape(class_words)}(?!\w)", re.IGNORECASE)
    if class_words and words.search(caption):
        return [words.sub(lambda _: token, caption, count=1)]
    return [f"{template}, {caption}" for template in templates]


def check_captions(reader: Reader, manifest: Manifest, prompts: Sequence[Sequence[str]], vectors: int) -> None:
    """Raise ConceptError, with its file, for a caption that makes the prompts of its picture longer than the generator reads."""
    lengths = {manifest.token: vectors}
    for picture, said in zip(manifest.pictures, prompts, strict=True):
        for prompt in said:
            if picture.caption and cutting(reader, prompt, lengths):
                place = caption_place(picture.path.parent, picture.file, picture.caption)
                check_prompt(reader, manifest.slug, prompt, lengths, f"{place}, with the learnt word,")
