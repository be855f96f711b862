from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.placeholder import check_prompt, check_token, check_width, encode
from ti_pipeline.words.word import ONLY, Word

PROMPTS = ["a photo of a <mug>", "<mug>, on a <sofa>.", "no learnt word here", "", "word " * 100, "<SOFA> and <sofa> with a <mug>'s handle"]


def word(token: str, vectors: torch.Tensor) -> Word:
    return Word(token, {ONLY: vectors})


def test_prompts_are_encoded_as_stock_diffusers_encodes_them(generator: Generator, folder: Path) -> None:
    torch.manual_seed(0)
    words = {"<mug>": word("<mug>", torch.randn(1, 32)), "<sofa>": word("<sofa>", torch.randn(3, 32))}
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.load_textual_inversion([{token: each.rows[ONLY]} for token, each in words.items()])
    theirs, _ = pipe.encode_prompt([prompt.lower() for prompt in PROMPTS], "cpu", 1, False)
    assert torch.equal(encode(generator, PROMPTS, words).parts["hidden"], theirs)


def test_nothing_is_written_and_no_hook_stays(generator: Generator) -> None:
    before = weight_digests(generator)
    vectors = torch.randn(2, 32, requires_grad=True)
    hidden = encode(generator, ["a <mug>"], {"<mug>": word("<mug>", vectors)}).parts["hidden"]
    (gradient,) = torch.autograd.grad(hidden.square().sum(), vectors)
    assert gradient.abs().min(dim=-1).values.gt(0).all()
    assert weight_digests(generator) == before
    assert not generator.encoders[ONLY].model.get_input_embeddings()._forward_hooks


def test_a_token_is_found_only_as_a_whole_word(generator: Generator) -> None:
    first = len(generator.encoders[ONLY].table)
    ids = generator.tokenise(["sks task sks_1", "<a>_1 <a>"], {"sks": 1, "<a>": 2, "<a>_1": 1})[ONLY]
    assert (ids[0] == first).sum() == 1
    assert [i for i in ids[1].tolist() if i >= first] == [first + 3, first + 1, first + 2]


def test_prompt_behind_the_context_limit_is_refused(generator: Generator) -> None:
    lengths = {"<mug>": 4}
    check_prompt(generator, "mug", "red " * 71 + "<mug>", lengths)
    with pytest.raises(ConceptError, match="mug: .*takes 78 tokens.*reads 77, so the learnt word"):
        check_prompt(generator, "mug", "red " * 72 + "<mug>", lengths)
    with pytest.raises(ConceptError, match="so its end would be cut off"):
        check_prompt(generator, "mug", "a <mug>" + " red" * 80, lengths)


def test_token_of_the_vocabulary_is_refused(generator: Generator) -> None:
    check_token(generator, "mug", "<mug>")
    for token in ("mug", "Mug", "my mug", " "):
        with pytest.raises(ConceptError, match="such as <mug>"):
            check_token(generator, "mug", token)


def test_a_word_for_another_width_is_refused(generator: Generator) -> None:
    check_width(generator, "mug", word("<mug>", torch.zeros(1, 32)))
    with pytest.raises(ConceptError, match="the vectors of <mug> have 48 numbers and tiny takes 32 numbers"):
        check_width(generator, "mug", word("<mug>", torch.zeros(1, 48)))
