from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.initializer import WordChooser, initial_rows, vocabulary_words
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.words.word import ONLY

STREAMS = Streams(0, "mug")


def initial_vectors(generator: Generator, words: str, count: int, streams: Streams) -> torch.Tensor:
    return initial_rows(generator, words, count, streams)[ONLY]


@pytest.fixture
def word(generator: Generator) -> Callable[[str], torch.Tensor]:
    def vector(text: str) -> torch.Tensor:
        return generator.encoders[ONLY].table[generator.encoders[ONLY].tokenizer(text, add_special_tokens=False).input_ids].mean(dim=0)

    return vector


def test_as_many_words_as_vectors(generator: Generator, word: Callable[[str], torch.Tensor]) -> None:
    assert torch.equal(initial_vectors(generator, "mug", 1, STREAMS), word("mug")[None])
    assert torch.equal(initial_vectors(generator, "red mug", 2, STREAMS), torch.stack([word("red"), word("mug")]))


def test_a_word_in_pieces_is_their_mean(generator: Generator, word: Callable[[str], torch.Tensor]) -> None:
    assert len(generator.encoders[ONLY].tokenizer("xylomarimba", add_special_tokens=False).input_ids) > 1
    torch.testing.assert_close(initial_vectors(generator, "xylomarimba", 1, STREAMS)[0], word("xylomarimba"))


def test_surplus_words_become_one_vector(generator: Generator, word: Callable[[str], torch.Tensor]) -> None:
    start = initial_vectors(generator, "small red mug", 2, STREAMS)
    torch.testing.assert_close(start, torch.stack([word("small"), (word("red") + word("mug")) / 2]))


def test_words_are_repeated_with_a_nudge(generator: Generator, word: Callable[[str], torch.Tensor]) -> None:
    start = initial_vectors(generator, "red mug", 5, STREAMS)
    assert torch.equal(start[:2], torch.stack([word("red"), word("mug")]))
    for i in (2, 3, 4):
        apart = (start[i] - start[i % 2]).norm() / start[i % 2].norm()
        assert 0 < apart < 0.1
    assert not torch.equal(start[2] - start[0], start[4] - start[0])
    assert torch.equal(start, initial_vectors(generator, "red mug", 5, STREAMS))
    assert not torch.equal(start, initial_vectors(generator, "red mug", 5, Streams(1, "mug")))


@pytest.mark.parametrize(("words", "why"), [(" ", "is empty"), ("<plain>", "<plain> is a learnt word"), ("\u200b", "is no word")])
def test_no_words(generator: Generator, words: str, why: str) -> None:
    with pytest.raises(ConceptError, match=f"mug: the initializer .*{why}"):
        initial_vectors(generator, words, 1, STREAMS)


def test_the_nearest_word_is_chosen_and_the_vocabulary_embedded_once(generator: Generator) -> None:
    words, asked = vocabulary_words(generator), []
    assert {"mug", "elephant", "red"} <= set(words) and not {"photo", "of", "weird"} & set(words)
    angles = {word: np.array([np.cos(i), np.sin(i)]) for i, word in enumerate(words)}

    def texts(prompts: list[str]) -> np.ndarray:
        asked.append(len(prompts))
        return np.stack([angles[prompt.removeprefix("a photo of a ")] for prompt in prompts])

    choose = WordChooser(generator, lambda pictures: np.stack([angles["mug"] for _ in pictures]), texts)
    pictures = [Image.new("RGB", (8, 8))] * 3
    assert choose(pictures) == choose(pictures) == "mug"
    assert asked == [len(words)]
