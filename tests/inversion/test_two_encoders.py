"""A word of two text encoders is learnt as one of a single encoder is: together as alone, killed as undisturbed, used by the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.generators.tiny_stable_diffusion_xl import LARGE, SMALL
from tests.inversion.test_train import Killed
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.inversion.job import Waiting, prepare_job
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.train import Ended, train_pack
from ti_pipeline.words.files import read_word, write_word

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
ABOUT = {"mug": ("plain", 6), "cup": ("regularised", 4), "jug": ("progressive", 6)}


@pytest.fixture
def learn(xl: Generator, validated: Make, settings: Settings) -> Callable[..., dict[str, Trained]]:
    """Trains the named concepts in one pack; stopped after so many steps, it raises Killed."""
    manifests = {slug: validated(slug, "initializer: red mug\n", hue=i) for i, slug in enumerate(ABOUT)}

    def waiting(slug: str) -> Waiting:
        setup, steps = ABOUT[slug]
        grows = ["train.setups.progressive.grow_at=[2]"] if setup == "progressive" else []
        train = settings(f"train.setup={setup}", f"train.steps={steps}", *grows).train
        return Waiting(slug, steps, slug, lambda: prepare_job(xl, manifests[slug], train, 0, "red mug", xl.arithmetic))

    def run(checkpoint: Path, *slugs: str, stop_at: int = 0) -> dict[str, Trained]:
        calls = []

        def progress(*call: object) -> None:
            calls.append(call)
            if len(calls) == stop_at:
                raise Killed

        pack = settings("train.pack=3").train
        ended: list[Ended] = list(train_pack(xl, [waiting(slug) for slug in slugs], pack, checkpoint, progress=progress))
        assert not [each.error for each in ended if each.error]
        return {each.concept: each.trained for each in ended}

    return run


def test_together_as_alone_and_killed_as_undisturbed(xl: Generator, learn: Callable[..., dict[str, Trained]], tmp_path: Path) -> None:
    before = weight_digests(xl)
    together = learn(tmp_path / "together", *ABOUT)
    assert {name: rows.shape for name, rows in together["mug"].word.rows.items()} == {"clip_l": (1, SMALL), "clip_g": (1, LARGE)}
    assert len(together["jug"].word) == 2
    for slug in ABOUT:
        alone = learn(tmp_path / f"alone-{slug}", slug)[slug]
        for name, rows in together[slug].word.rows.items():
            assert F.cosine_similarity(rows.flatten(), alone.word.rows[name].flatten(), dim=0) > 0.9999
            table = xl.encoders[name].table
            assert (table - rows[:1]).norm(dim=1).min() > 1e-3  # it has moved away from every word
    with pytest.raises(Killed):
        learn(tmp_path / "killed", *ABOUT, stop_at=3)
    again = learn(tmp_path / "killed", *ABOUT)
    assert any(each.resumed_from for each in again.values())
    for slug, trained in again.items():
        assert all(torch.equal(rows, together[slug].word.rows[name]) for name, rows in trained.word.rows.items())
    assert weight_digests(xl) == before


def test_the_library_loads_the_word_by_the_keys_of_its_encoders(
    xl_folder: Path, learn: Callable[..., dict[str, Trained]], tmp_path: Path
) -> None:
    word = learn(tmp_path / "c", "mug")["mug"].word
    path = tmp_path / "learned_embeds.safetensors"
    write_word(path, word)
    assert all(torch.equal(rows, word.rows[name]) for name, rows in read_word(path).rows.items())
    pipe, tensors = StableDiffusionXLPipeline.from_pretrained(xl_folder, add_watermarker=False), load_file(path)
    pipe.load_textual_inversion(tensors["clip_l"], token="<mug>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(tensors["clip_g"], token="<mug>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    place = pipe.tokenizer_2.convert_tokens_to_ids("<mug>")
    assert torch.equal(pipe.text_encoder_2.get_input_embeddings().weight[place], word.rows["clip_g"][0])
