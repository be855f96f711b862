"""Words of every family, whatever text encoders it has: learnt together as alone, killed as undisturbed, used by the library."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.generators.tiny_flow import T5, write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import WIDTH as LLM
from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.generators.tiny_latent_diffusion import WIDTH
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import load_tiny
from tests.generators.tiny_stable_diffusion_xl import LARGE, SMALL
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from tests.inversion.one_concept import job_of
from tests.inversion.test_train import Killed
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Condition, Generator, Ids, Rows, weight_digests
from ti_pipeline.inversion.initializer import initial_rows
from ti_pipeline.inversion.job import Waiting
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.inversion.train import Ended, train_pack
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.word import ONLY

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
ABOUT = {"mug": ("plain", 6), "cup": ("regularised", 4), "jug": ("progressive", 6)}
WORDS = "red mug"
FAMILIES: dict[str, tuple[Callable[[Path], Path], dict[str, int], list[str] | None]] = {
    "xl": (write_xl, {"clip_l": SMALL, "clip_g": LARGE}, None),
    "sd3": (write_stable_diffusion_3, {"clip_l": SMALL, "clip_g": LARGE}, None),
    "flux": (write_flux, {"clip_l": SMALL, "t5": T5}, ["t5", "clip_l"]),
    "flux-clip": (write_flux, {"clip_l": SMALL}, None),
    "flux-t5": (write_flux, {"t5": T5}, ["t5"]),
    "ldm": (write_ldm, {ONLY: WIDTH}, None),
    "sana": (write_sana, {ONLY: LLM}, None),
    "z-image": (write_z_image, {ONLY: LLM}, None),
    "qwen-image": (write_qwen_image, {ONLY: LLM}, None),
}
pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Family:
    """A tiny model, and the widths of its text encoders that learn."""

    folder: Path
    generator: Generator
    widths: dict[str, int]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    write, widths, encoders = FAMILIES[request.param]
    folder = write(tmp_path_factory.mktemp("generators") / request.param)
    return Family(folder, load_tiny(folder, encoders=encoders), widths)


@pytest.fixture
def learn(family: Family, validated: Make, settings: Settings) -> Callable[..., dict[str, Trained]]:
    """Trains the named concepts in one pack; stopped after so many steps, it raises Killed."""
    manifests = {slug: validated(slug, f"initializer: {WORDS}\n", hue=i) for i, slug in enumerate(ABOUT)}
    generator = family.generator

    def waiting(slug: str) -> Waiting:
        setup, steps = ABOUT[slug]
        grows = ["train.setups.progressive.grow_at=[2]"] if setup == "progressive" else []
        train = settings(f"train.setup={setup}", f"train.steps={steps}", *grows).train
        return Waiting(slug, steps, slug, lambda: job_of(generator, manifests[slug], train, 0, WORDS))

    def run(checkpoint: Path, *slugs: str, stop_at: int = 0) -> dict[str, Trained]:
        calls = []

        def progress(*call: object) -> None:
            calls.append(call)
            if len(calls) == stop_at:
                raise Killed

        pack = settings("train.pack=3").train
        ended: list[Ended] = list(train_pack(generator, [waiting(slug) for slug in slugs], pack, checkpoint, progress=progress))
        assert not [each.error for each in ended if each.error]
        return {each.concept: each.trained for each in ended}

    return run


def test_together_as_alone_and_killed_as_undisturbed(family: Family, learn: Callable[..., dict[str, Trained]], tmp_path: Path) -> None:
    before = weight_digests(family.generator)
    together = learn(tmp_path / "together", *ABOUT)
    shapes = {name: rows.shape for name, rows in together["mug"].word.rows.items()}
    assert shapes == {name: (1, width) for name, width in family.widths.items()}
    assert len(together["jug"].word) == 2
    for slug in ABOUT:
        alone = learn(tmp_path / f"alone-{slug}", slug)[slug]
        start = initial_rows(family.generator, WORDS, len(alone.word), Streams(0, slug))
        for name, rows in together[slug].word.rows.items():
            moved, expected = (each - start[name] for each in (rows, alone.word.rows[name]))
            assert F.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.9999
    with pytest.raises(Killed):
        learn(tmp_path / "killed", *ABOUT, stop_at=3)
    again = learn(tmp_path / "killed", *ABOUT)
    assert any(each.resumed_from for each in again.values())
    for slug, trained in again.items():
        assert all(torch.equal(rows, together[slug].word.rows[name]) for name, rows in trained.word.rows.items())
    assert weight_digests(family.generator) == before


@pytest.mark.parametrize("family", ["xl"], indirect=True)
def test_the_library_loads_the_word_by_the_keys_of_its_encoders(
    family: Family, learn: Callable[..., dict[str, Trained]], tmp_path: Path
) -> None:
    word = learn(tmp_path / "c", "mug")["mug"].word
    path = tmp_path / "learned_embeds.safetensors"
    write_word(path, word)
    assert all(torch.equal(rows, word.rows[name]) for name, rows in read_word(path).rows.items())
    pipe, tensors = StableDiffusionXLPipeline.from_pretrained(family.folder, add_watermarker=False), load_file(path)
    pipe.load_textual_inversion(tensors["clip_l"], token="<mug>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(tensors["clip_g"], token="<mug>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    place = pipe.tokenizer_2.convert_tokens_to_ids("<mug>")
    assert torch.equal(pipe.text_encoder_2.get_input_embeddings().weight[place], word.rows["clip_g"][0])


@pytest.mark.parametrize("family", ["flux-clip"], indirect=True)
def test_a_training_on_other_noise_levels_does_not_go_on_from_this_one(family: Family, validated: Make, settings: Settings) -> None:
    manifest, train = validated("mug", f"initializer: {WORDS}\n"), settings().train
    generators = family.generator, replace(family.generator, density="logit-normal")
    assert len({job_of(each, manifest, train, 0, WORDS).key for each in generators}) == 2


def test_what_goes_wrong_fails_the_concept_by_name(
    family: Family, validated: Make, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, manifest = family.generator, validated("mug", f"initializer: {WORDS}\n")

    def error(manifest: Manifest, *overrides: str) -> str:
        train = settings("train.steps=3", *overrides).train
        job = Waiting("mug", 3, "mug", lambda: job_of(generator, manifest, train, 0, WORDS))
        (ended,) = train_pack(generator, [job], settings("train.pack=1").train, tmp_path / f"{overrides}")
        return str(ended.error)

    assert re.search("mug: the learnt vector's norm is .* drifted away", error(manifest, "train.max_norm=1.01", "train.learning_rate=1"))
    longest = max(encoder.frame.context for encoder in generator.learning.values())
    told = replace(manifest, pictures=[replace(picture, caption="red " * longest) for picture in manifest.pictures])
    assert re.search(f"mug: .* takes .* tokens and {generator.name} reads", error(told))
    if not generator.spoken:
        assert "does not say which of the states" in error(manifest, "train.setup=context")
    condition = type(generator).condition

    def deaf(self: Generator, ids: Ids, rows: Rows) -> Condition:
        heard = condition(self, ids, {name: each.detach() for name, each in rows.items()})
        nothing = 0 * sum(each.sum() for each in rows.values())
        return Condition({name: part + nothing if part.is_floating_point() else part for name, part in heard.parts.items()})

    monkeypatch.setattr(type(generator), "condition", deaf)
    assert "mug: no gradient reached the learnt word at step 1" in error(manifest)
