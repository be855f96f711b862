"""Context regularisation, against its equations written out over a stock network whose attention is asked by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import load_tiny
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from tests.inversion.one_concept import job_of as made_ready
from tests.inversion.setups.by_layer import Stock
from tests.inversion.setups.conftest import Mixed
from ti_pipeline import params
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.job import Job
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.setups.context import Context
from ti_pipeline.words.word import ONLY

Mix = Callable[..., Mixed]
PROMPTS = ["a photo of a {token} on the moon", "two cats beside my {token} , in the rain", "{token}"]
STRONG = ("setups.context.weight=0.5", "setups.context.attention=50", f"setups.context.prompts.object={json.dumps(PROMPTS)}")


def penalty(stock: Stock, draw: Draws, v: torch.Tensor, words: str, weight: float, attention: float) -> torch.Tensor:
    """Of one step: the mean over its samples, each with its own prompt."""
    tokenizer, of_each = stock.pipe.tokenizer, []
    scheduler = DDPMScheduler.from_config(stock.pipe.scheduler.config)
    pieces = len(tokenizer(words, add_special_tokens=False).input_ids)
    for i, which in enumerate(draw.beside["context"][:, 0].tolist()):
        before, after = PROMPTS[which % len(PROMPTS)].split("{token}")
        left, right = (tokenizer(part, add_special_tokens=False).input_ids for part in (before, after))
        usual = tokenizer(before + words + after, padding="max_length", return_tensors="pt").input_ids
        word = [tokenizer.bos_token_id, *left, *range(49408, 49408 + len(v)), *right, tokenizer.eos_token_id]
        said = torch.tensor([[*word, *[tokenizer.pad_token_id] * (77 - len(word))]])
        states, due = stock.hear(said, v), stock.hear(usual)
        first = list(range(1 + len(left)))
        behind = range(1 + len(left), 2 + len(left) + len(right))
        here, there = [*first, *(place + len(v) for place in behind)], [*first, *(place + pieces for place in behind)]
        total = weight * (1 - F.cosine_similarity(states[0, here], due[0, there], dim=-1)).mean()
        noisy = scheduler.add_noise(draw.z0[i : i + 1], draw.noise[i : i + 1], draw.t[i : i + 1])
        changes = []
        stock.predict(noisy, draw.t[i : i + 1], [due])
        usually = [layer.paid[0, there] for layer in stock.layers]
        stock.predict(noisy, draw.t[i : i + 1], [states])
        for layer, expected in zip(stock.layers, usually, strict=True):
            changes.append((layer.paid[0, here] - expected).square().mean())
        of_each.append(total + attention * torch.stack(changes).mean())
    return torch.stack(of_each).mean()


def job_of(mixed: Mixed, slug: str, words: str) -> Job:
    return made_ready(mixed.generator, mixed.manifests[slug], mixed.trains[slug], 0, words)


def of_setup(job: Job, step: int, leaves: dict[str, torch.Tensor], samples: int = 4) -> tuple[torch.Tensor, Draws]:
    """The penalty of one concept by itself, and the draws that it is of."""
    generator, one = job.subject.generator, replace(job.one, leaves=leaves)
    group = Leaves([job.setup], [Learning.begun(one)], generator.device).group([0], {name: leaf[None] for name, leaf in leaves.items()})
    draws = job.setup.draws(job.learner, step, samples)
    (part,) = [each for each in job.setup.parts if isinstance(each, Context)]
    found = part.penalty(generator, group, draws)
    assert found is not None and found.shape == (1,)
    return found[0], draws


@pytest.mark.parametrize(("words", "vectors"), [("mug", 1), ("red mug", 1), ("mug", 3)])
def test_it_is_its_equations(mix: Mix, folder: Path, words: str, vectors: int) -> None:
    mixed = mix(mug=("setup=context", f"vectors={vectors}", *STRONG))
    job, stock = job_of(mixed, "mug", words), Stock(folder)
    v = (job.one.leaves[ONLY] * 2 + 0.01).requires_grad_()
    for step in (0, 3):
        found, draws = of_setup(job, step, {ONLY: v})
        expected = penalty(stock, draws, v, words, 0.5, 50)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        ours, theirs = (torch.autograd.grad(each, v)[0] for each in (found, expected))
        torch.testing.assert_close(ours / theirs.abs().max(), theirs / theirs.abs().max(), rtol=1e-4, atol=1e-5)


def test_a_whole_training_is_its_equation(mix: Mix, folder: Path) -> None:
    mixed = mix(mug=("setup=context", "steps=5", "schedule=constant", *STRONG))
    job, train, stock = mixed.job("mug"), mixed.trains["mug"], Stock(folder)
    start = job.one.leaves[ONLY]

    def invert(weight: float, attention: float) -> torch.Tensor:
        v, scheduler = start.clone().requires_grad_(), DDPMScheduler.from_config(stock.pipe.scheduler.config)
        optimizer = torch.optim.AdamW([v], lr=train.learning_rate, weight_decay=train.weight_decay)
        for step in range(train.steps):
            draw = job.setup.draws(job.learner, step, train.batch_size)
            predicted = stock.predict(scheduler.add_noise(draw.z0, draw.noise, draw.t), draw.t, [stock.hear(draw.ids[ONLY], v)])
            loss = F.mse_loss(predicted, draw.noise)
            optimizer.zero_grad()
            (loss + penalty(stock, draw, v, "mug", weight, attention)).backward()
            optimizer.step()
        return v.detach()

    expected, without = invert(0.5, 50), invert(0, 0)
    found = mixed.run()["mug"].word.rows[ONLY]
    assert F.cosine_similarity((found - start).flatten(), (expected - start).flatten(), dim=0) > 0.9999
    assert F.cosine_similarity((without - start).flatten(), (expected - start).flatten(), dim=0) < 0.99


def test_each_sample_of_a_step_has_a_prompt_of_its_own(mix: Mix) -> None:
    """From the concept's own stream: the same in any company, another in each step."""
    mixed = mix(mug=("setup=context",), cup=("setup=context",))
    mug, cup = mixed.job("mug"), mixed.job("cup")
    steps = [tuple((mug.setup.draws(mug.learner, step, 4).beside["context"][:, 0] % 6).tolist()) for step in range(20)]
    assert (
        {which for step in steps for which in step} == set(range(6)) and len(set(steps)) > 15 and any(len(set(step)) > 1 for step in steps)
    )
    assert steps[0] != tuple((cup.setup.draws(cup.learner, 0, 4).beside["context"][:, 0] % 6).tolist())


def test_in_several_passes_it_is_the_same(mix: Mix) -> None:
    common = ("setup=context", "steps=4", *STRONG)
    whole = mix(mug=(*common, "batch_size=4")).run()["mug"].word.rows[ONLY]
    parts = mix(mug=(*common, "batch_size=2", "gradient_accumulation=2")).run()["mug"].word.rows[ONLY]
    assert F.cosine_similarity(whole.flatten(), parts.flatten(), dim=0) > 0.99999


@pytest.mark.parametrize("setup", ["context", "context+layered"])
def test_the_class_word_itself_is_never_penalised(mix: Mix, setup: str) -> None:
    mixed = mix(mug=(f"setup={setup}", *STRONG))
    job = mixed.job("mug")
    v = job.one.leaves[ONLY].clone().requires_grad_()
    found, _ = of_setup(job, 0, {ONLY: v})
    (gradient,) = torch.autograd.grad(found, v)
    moved = (v.detach() * 3).requires_grad_()
    away, _ = of_setup(job, 0, {ONLY: moved})
    (usual,) = torch.autograd.grad(away, moved)
    assert found.abs() < 1e-6 and away > 1e-3
    assert gradient.norm() < 1e-3 * usual.norm()


def test_words_of_pictures_beside_it_are_no_part_of_it(mix: Mix, folder: Path) -> None:
    """Their ids come before the word's own."""
    mixed = mix(mug=("setup=context+per_image", "vectors=2", "steps=2", *STRONG))
    job, stock = mixed.job("mug"), Stock(folder)
    leaves = {name: leaf * 2 for name, leaf in job.one.leaves.items()}
    found, draws = of_setup(job, 0, leaves)
    torch.testing.assert_close(found, penalty(stock, draws, leaves[ONLY], "mug", 0.5, 50), rtol=1e-5, atol=1e-6)
    assert len(mixed.run()["mug"].word) == 2


def test_a_word_that_grows_is_held_at_its_new_length(mix: Mix, folder: Path) -> None:
    mixed = mix(mug=("setup=context+progressive", "setups.progressive.grow_at=[1, 2]", "steps=4", *STRONG))
    job, stock = mixed.job("mug"), Stock(folder)
    for length in (1, 2, 3):
        learner = job.learner.saying(mixed.generator, job.one.prompts, {"<mug>": length})
        v = job.subject.rows(length)[ONLY] * 2
        grown = replace(job, learner=learner, one=replace(job.one, lengths={"<mug>": length}))
        found, draws = of_setup(grown, 0, {ONLY: v})
        torch.testing.assert_close(found, penalty(stock, draws, v, "mug", 0.5, 50), rtol=1e-5, atol=1e-6)
    assert len(mixed.run()["mug"].word) == 3


@pytest.mark.parametrize("write", [write_xl, write_ldm, write_stable_diffusion_3, write_flux])
def test_every_family_hears_the_others_as_before(mix: Mix, tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """What is said beside the class words is told apart by the class words alone: at their vectors nothing is changed."""
    mixed = mix(mug=("setup=context", "setups.context.weight=1", 'setups.context.prompts.object=["my {token} on the beach"]'))
    encoders = ["clip_l", "t5"] if write is write_flux else None  # of which CLIP's words are not heard one by one
    mixed.generator = load_tiny(write(tmp_path / "model"), encoders=encoders)
    job = job_of(mixed, "mug", "cat")
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in job.one.leaves.items()}
    table = {name: encoder.table for name, encoder in mixed.generator.encoders.items()}
    pieces = {name: encoder.tokenizer("cat", add_special_tokens=False).input_ids for name, encoder in mixed.generator.encoders.items()}
    found, _ = of_setup(job, 0, leaves)
    assert all(len(each) == 1 for each in pieces.values()) and all(torch.equal(leaves[n][0], table[n][pieces[n][0]]) for n in leaves)
    assert found.abs() < 1e-5
    away, _ = of_setup(job, 0, {name: (leaf.detach() * 4).requires_grad_() for name, leaf in leaves.items()})
    assert away > 10 * found.abs()


def test_a_text_encoder_that_says_the_words_has_to_learn(mix: Mix, tmp_path: Path) -> None:
    mixed = mix(mug=("setup=context",))
    mixed.generator = load_tiny(write_flux(tmp_path / "model"))
    with pytest.raises(ConceptError, match="of a prompt from t5, where nothing is learnt. Name one of them in"):
        job_of(mixed, "mug", "cat")


def test_without_attention_no_further_pass_is_made(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(*changes: str) -> int:
        mixed, made = mix(mug=("steps=2", *changes)), []
        unet = mixed.generator.networks["unet"]
        forward = type(unet).forward
        with monkeypatch.context() as patch:
            patch.setattr(type(unet), "forward", lambda *args, **kwargs: made.append(1) or forward(*args, **kwargs))
            mixed.run()
        return len(made)

    assert [passes(), passes("setup=context"), passes("setup=context", "setups.context.attention=1")] == [2, 2, 6]


def test_what_makes_no_sense_is_refused(mix: Mix, settings: Callable[..., params.Params]) -> None:
    with pytest.raises(ParamsError, match="`weight` and `attention` are both 0"):
        settings("train.setup=context", "train.setups.context.weight=0")
    with pytest.raises(ParamsError, match="has no place for the {token}"):
        settings("train.setups.context.prompts.object=[a mug]")
    mixed = mix(mug=("setup=context", f"setups.context.prompts.object=['{'very ' * 80}{{token}}']"))
    mixed.run()
    assert "so the learnt word would be cut off" in mixed.lost["mug"]
