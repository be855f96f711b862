from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.candidates.small_workspace import add_concept, add_word, small_params
from ti_pipeline.candidates.briefs import brief_texts, briefs_for, words_in
from ti_pipeline.errors import ConceptError
from ti_pipeline.words.files import write_word
from ti_pipeline.words.learnt import Words, load_others, load_own
from ti_pipeline.words.word import ONLY, Word


def word(token: str, class_words: str) -> Word:
    return Word(token, {ONLY: torch.zeros(1, 4)}, class_words, digest="0")


def test_the_kinds_briefs_unless_the_concept_has_its_own(tmp_path: Path) -> None:
    _, manifest = add_concept(tmp_path, "duck-toy")
    assert brief_texts(manifest, small_params().generate) == ["a photo of a {token}", "a {token} on the moon"]
    _, manifest = add_concept(tmp_path / "style", "duck-toy", "kind: style")
    assert brief_texts(manifest, small_params().generate) == ["a cat in the style of {token}"]
    own = "briefs: ['a {token} at sea', 'a <duck-toy> at sea', 'the <duck-toy> again']"
    _, manifest = add_concept(tmp_path / "own", "duck-toy", own)
    assert brief_texts(manifest, small_params().generate) == ["a {token} at sea", "the {token} again"]


def test_prompt_and_scoring_text(tmp_path: Path) -> None:
    _, manifest = add_concept(tmp_path, "duck-toy")
    texts = ["a {token} beside a <Red-Candle>, a {token}", "a photo of a {token}"]
    assert words_in(texts) == ["<red-candle>"]
    learnt = {"<duck-toy>": word("<duck-toy>", "rubber duck"), "<red-candle>": word("<red-candle>", "candle")}
    first, second = briefs_for(manifest, texts, learnt)
    assert (first.index, first.text) == (0, texts[0])
    assert first.prompt == "a <duck-toy> beside a <Red-Candle>, a <duck-toy>"
    assert first.scoring_text == "a rubber duck beside a candle, a rubber duck"
    assert first.words == ("<duck-toy>", "<red-candle>")
    assert (second.words, second.scoring_text) == (("<duck-toy>",), "a photo of a rubber duck")
    with pytest.raises(ConceptError, match="duck-toy: the brief 'a duck' has no place for the learnt word. Write {token} where it goes."):
        briefs_for(manifest, ["a duck"], learnt)


def test_class_words_come_from_training_then_the_settings_then_the_name(tmp_path: Path) -> None:
    workspace, _ = add_concept(tmp_path, "duck-toy")
    add_word(workspace, "duck-toy", "<duck-toy>", initializer="toy")
    assert load_own(workspace, "duck-toy", "<duck-toy>", None).class_words == "toy"
    add_word(workspace, "duck-toy", "<duck-toy>")
    assert load_own(workspace, "duck-toy", "<duck-toy>", "rubber duck").class_words == "rubber duck"
    assert load_own(workspace, "duck-toy", "<duck-toy>", None).class_words == "duck toy"


def test_words_of_other_concepts(tmp_path: Path) -> None:
    workspace, _ = add_concept(tmp_path, "duck-toy")
    with pytest.raises(ConceptError, match="duck-toy: .*learned_embeds.safetensors is not there. Run `ti-pipeline train duck-toy`"):
        load_own(workspace, "duck-toy", "<duck-toy>", None)
    add_word(workspace, "duck-toy", "<duck-toy>")
    add_word(workspace, "candle", "<Red-Candle>", initializer="candle")
    found = load_others(Words(workspace), "duck-toy", ["<red-candle>"])
    assert found["<red-candle>"].class_words == "candle" and found["<red-candle>"].rows[ONLY].shape == (2, 32)
    with pytest.raises(ConceptError, match="a brief names <spoon>, which no concept .* Learnt are: <duck-toy>, <red-candle>"):
        load_others(Words(workspace), "duck-toy", ["<red-candle>", "<spoon>"])
    assert load_others(Words(workspace), "duck-toy", []) == {}


def test_a_renamed_folder_is_drawn_with_the_word_of_the_folder_that_is_there(tmp_path: Path) -> None:
    workspace, _ = add_concept(tmp_path, "duck-toy")
    add_word(workspace, "duck-toy", "<mascot>", seed=1)
    write_word(workspace.embedding("our-mascot"), Word("<mascot>", {ONLY: torch.zeros(2, 32)}))
    write_word(workspace.embedding("our-spoon"), Word("<spoon>", {ONLY: torch.zeros(2, 32)}))
    own = load_own(workspace, "duck-toy", "<mascot>", None)
    assert load_others(Words(workspace), "zoo", ["<mascot>"])["<mascot>"].digest == own.digest
    with pytest.raises(ConceptError, match="<spoon>, which no concept .* Learnt are: <mascot>"):
        load_others(Words(workspace), "zoo", ["<spoon>"])
