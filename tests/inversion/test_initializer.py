from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.generators.tiny_stable_diffusion import load_tiny
from tests.generators.tiny_stable_diffusion_xl import write_folder
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


def test_each_text_encoder_has_its_own_words_and_nudges(tmp_path: Path) -> None:
    generator = load_tiny(write_folder(tmp_path / "xl"))
    rows = initial_rows(generator, "mug", 2, STREAMS)
    nudges = {}
    for name, encoder in generator.encoders.items():
        assert torch.equal(rows[name][0], encoder.table[encoder.tokenizer("mug", add_special_tokens=False).input_ids].mean(dim=0))
        nudges[name] = (rows[name][1] - rows[name][0]) / encoder.table.std()
    small, large = nudges["clip_l"], nudges["clip_g"]  # of one stream, the 32 + 16th number would be the 48th
    assert (len(small), len(large)) == (32, 48) and not torch.allclose(small[16:], large[:16], atol=1e-3)


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
