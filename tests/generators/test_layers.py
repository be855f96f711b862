"""A vector a layer: every cross-attention layer hears its own states, held to stock U-Nets whose layers are set by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny
from tests.generators.tiny_stable_diffusion import write_folder as write_sd
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.generators.load import load_generator
from ti_pipeline.generators.placeholder import check_width, encode
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, encode_negative, encode_texts, sample, sample_conditions
from ti_pipeline.words.word import Word

MINIATURE = Path(__file__).parents[2] / "ti_pipeline" / "miniature" / "generator"
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "sd": write_sd,
    "xl": write_xl,
    "ldm": write_ldm,
    "miniature": lambda folder: MINIATURE,
}
LAYERS = {"sd": 16, "xl": 2 * 2 + 2 * 3 + 3 + 3 * 3 + 3 * 2, "ldm": 16, "miniature": 6}
PROMPTS = ["a photo of a <mug>", "my <mug> on the beach"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Generator]:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp("layers") / request.param)
    model = "miniature" if folder == MINIATURE else folder
    return request.param, folder, load_generator(generator_settings(model))


def layers_of(generator: Generator, n: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows for each layer of about the vocabulary's size."""
    streams = torch.Generator().manual_seed(seed)
    shapes = {name: (generator.layers, n, encoder.table.shape[1]) for name, encoder in generator.encoders.items()}
    return {
        name: torch.randn(shape, generator=streams) * generator.encoders[name].table.detach().float().std()
        for name, shape in shapes.items()
    }


def plain_word(generator: Generator, token: str, seed: int) -> Word:
    return Word(token, {name: rows[0] for name, rows in layers_of(generator, 2, seed).items()})


class Told(AttnProcessor):
    """Plain attention to states that were put there by hand."""

    def __init__(self, states: torch.Tensor, paid: list[torch.Tensor] | None = None):
        super().__init__()
        self.states, self.paid = states, paid

    def __call__(self, attn: Attention, hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if self.paid is not None:
            q, k = (part.unflatten(2, (attn.heads, -1)) for part in (attn.to_q(hidden), attn.to_k(self.states)))
            shares = torch.einsum("bnhd,bthd->bhnt", q, k).div(q.shape[-1] ** 0.5).softmax(dim=-1)
            self.paid.append(shares.mean(dim=(1, 2)))
        return super().__call__(attn, hidden, encoder_hidden_states=self.states)


def by_hand(folder: Path, x: torch.Tensor, t: torch.Tensor, each: list[Condition], paid: list[torch.Tensor] | None = None) -> torch.Tensor:
    """What the stock U-Net predicts when its layers, in the order in which they are called, are told `each`; `paid` collects what
    attention they pay to each token."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    mean = {name: torch.stack([condition.parts[name] for condition in each]).mean(dim=0) for name in each[0].parts}
    size = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * len(x))
    beside = {"text_embeds": mean["pooled"], "time_ids": size} if "pooled" in mean else None
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in unet.named_modules()
        if name.endswith("attn2")
    ]
    with torch.no_grad():
        unet(x, t, mean["hidden"], added_cond_kwargs=beside)
    for hook in hooks:
        hook.remove()
    assert len(order) == len(each)
    told = {f"{name}.processor": Told(condition.parts["hidden"], paid) for name, condition in zip(order, each, strict=True)}
    unet.set_attn_processor({name: told.get(name, AttnProcessor()) for name in unet.attn_processors})
    return unet(x, t, mean["hidden"], added_cond_kwargs=beside).sample


def numbers(generator: Generator, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    streams = torch.Generator().manual_seed(3)
    shape = (count, *generator.latent_shape)
    t = torch.randint(generator.timesteps, (count,), generator=streams)
    return torch.randn(shape, generator=streams), torch.randn(shape, generator=streams), t


def test_prediction_loss_and_gradient_are_those_of_a_stock_network_set_by_hand(family: tuple[str, Path, Generator]) -> None:
    name, folder, generator = family
    assert generator.layers == LAYERS[name] and find_source(generator_settings(folder)).layers
    leaves = {encoder: rows.requires_grad_() for encoder, rows in layers_of(generator).items()}
    ids = generator.tokenise(PROMPTS, {"<mug>": 1})

    def each() -> list[Condition]:
        return [generator.condition(ids, {encoder: rows[i] for encoder, rows in leaves.items()}) for i in range(generator.layers)]

    x, noise, t = numbers(generator, 2)
    condition = generator.layered(each())
    torch.testing.assert_close(generator.predict(x, t, condition), by_hand(folder, x, t, each()), rtol=1e-5, atol=1e-5)
    ours = generator.losses(x, noise, t, condition)
    found = torch.autograd.grad(ours.sum(), list(leaves.values()))
    noisy, target = generator.diffusion.noisy(x, noise, t), generator.diffusion.target(x, noise, t)
    theirs = (by_hand(folder, noisy, t, each()) - target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(theirs.sum(), list(leaves.values()))
    for gradient, other in zip(found, expected, strict=True):
        assert gradient.flatten(1).norm(dim=1).gt(0).all()
        scale = other.abs().max()
        torch.testing.assert_close(gradient / scale, other / scale, rtol=1e-5, atol=1e-5)


def test_layers_that_hear_the_same_draw_what_one_word_draws(family: tuple[str, Path, Generator]) -> None:
    _, _, generator = family
    plain = plain_word(generator, "<mug>", 1)
    layered = Word.layered("<mug>", {name: rows.expand(generator.layers, -1, -1) for name, rows in plain.rows.items()})
    settings = Settings("ddim", 2, 3.0, "a dark <mug>", 2)
    pictures = [
        [picture.tobytes() for _, picture in sample(generator, PROMPTS, {"<mug>": word}, [1, 2], settings)] for word in (plain, layered)
    ]
    assert pictures[0] == pictures[1]


def test_guidance_company_and_the_cache_of_a_drawing(family: tuple[str, Path, Generator]) -> None:
    """Layered and plain words in one batch, each beside a negative prompt of its own, as each by itself and step by step."""
    _, _, generator = family
    layered, other = Word.layered("<mug>", layers_of(generator, 1, 4)), plain_word(generator, "<cup>", 5)
    words = {"<mug>": layered, "<cup>": other}
    prompts = ["a photo of a <mug>", "a photo of a <cup>", "a <mug> and a <cup>", "a photo of a <cup>"]
    negatives = ["", "a <mug>", "dark", "a <cup>"]
    own = [
        {token: words[token] for token in words if token in prompt + negative} for prompt, negative in zip(prompts, negatives, strict=True)
    ]
    heard = [encode_texts(generator, [prompt], mine)[prompt] for prompt, mine in zip(prompts, own, strict=True)]
    against = [encode_negative(generator, negative, mine) for negative, mine in zip(negatives, own, strict=True)]
    settings = Settings("ddim", 3, 2.0, "", 4)
    together = [picture for _, picture in sample_conditions(generator, lambda i: (heard[i], against[i]), [7, 8, 9, 10], settings)]
    again = [picture for _, picture in sample_conditions(generator, lambda i: (heard[i], against[i]), [7, 8, 9, 10], settings)]
    assert [each.tobytes() for each in again] == [each.tobytes() for each in together]
    for i, picture in enumerate(together):
        alone = next(sample_conditions(generator, lambda _, i=i: (heard[i], against[i]), [7 + i], replace(settings, batch_size=1)))[1]
        a, b = (torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8).int() for each in (picture, alone))
        assert (a - b).abs().max() <= 2
    x, _, _ = numbers(generator, 8)
    both = Condition.cat([*against, *heard])
    with torch.no_grad():
        steps = [torch.tensor(t) for t in (900, 500, 100)]
        plainly = [generator.predict(x, t, both) for t in steps]
        with generator.drawing():
            first = [generator.predict(x, t, both) for t in steps]
            generator.predict(x[:1], steps[0], against[2])  # another, in between
            second = [generator.predict(x, t, both) for t in steps]
    for found in (first, second):
        for ours, theirs in zip(found, plainly, strict=True):
            assert torch.equal(ours, theirs)


def test_every_layer_listens_to_its_own(family: tuple[str, Path, Generator]) -> None:
    _, _, generator = family
    word = Word.layered("<mug>", layers_of(generator, 1, 4))
    x, _, t = numbers(generator, 1)
    with torch.no_grad():
        before = generator.predict(x, t, encode(generator, PROMPTS[:1], {"<mug>": word}))
        for i in range(generator.layers):
            changed = {name: rows.clone() for name, rows in word.layers.items()}
            for rows in changed.values():
                rows[i] = -rows[i]
            after = generator.predict(x, t, encode(generator, PROMPTS[:1], {"<mug>": Word.layered("<mug>", changed)}))
            assert not torch.equal(before, after)
        assert not any(module._forward_pre_hooks for module in generator.unet.modules())


def test_attention_is_what_the_stock_network_pays(family: tuple[str, Path, Generator]) -> None:
    """By plain attention that is written out, to one prompt for all layers and to another for each."""
    _, folder, generator = family
    z0, noise, t = numbers(generator, 2)
    word = Word.layered("<mug>", layers_of(generator, 1, 4))
    plain = encode(generator, PROMPTS, {"<mug>": Word("<mug>", word.rows)})
    layered = encode(generator, PROMPTS, {"<mug>": word})
    assert len(generator.states(plain)) == 1 and len(generator.states(layered)) == generator.layers
    for condition in (plain, layered):
        states = generator.states(condition)
        each = [Condition({**condition.parts, "hidden": states[i % len(states)]}) for i in range(generator.layers)]
        with torch.no_grad():
            paid = generator.attention(z0, noise, t, condition)
            by_hand(folder, generator.diffusion.noisy(z0, noise, t), t, each, expected := [])
        assert paid.shape == (generator.layers, 2, next(iter(generator.encoders.values())).frame.context)
        torch.testing.assert_close(paid.sum(dim=2), torch.ones(generator.layers, 2))
        torch.testing.assert_close(paid, torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_a_compiled_network_draws_the_same(tmp_path: Path) -> None:
    generator = load_tiny(write_sd(tmp_path / "sd"))
    word, (x, _, t) = Word.layered("<mug>", layers_of(generator)), numbers(generator, 2)
    condition = encode(generator, PROMPTS, {"<mug>": word})
    with torch.no_grad():
        before = generator.predict(x, t, condition)
        generator.unet.compile(backend="eager")
        assert torch.equal(generator.predict(x, t, condition), before)


def test_a_word_for_other_layers_is_refused(family: tuple[str, Path, Generator]) -> None:
    _, _, generator = family
    check_width(generator, "mug", Word.layered("<mug>", layers_of(generator)))
    fewer = {name: rows[1:] for name, rows in layers_of(generator).items()}
    with pytest.raises(
        ConceptError, match=f"<mug> was learnt for {generator.layers - 1} cross-attention layers and .* has {generator.layers}"
    ):
        check_width(generator, "mug", Word.layered("<mug>", fewer))


@pytest.mark.parametrize("write", [write_stable_diffusion_3, write_flux])
def test_a_family_without_such_layers_says_so(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    generator = load_tiny(write(tmp_path / "model"))
    assert generator.layers == 0 and not find_source(generator_settings(tmp_path / "model")).layers
    rows = {name: torch.zeros(16, 1, encoder.table.shape[1]) for name, encoder in generator.encoders.items()}
    with pytest.raises(ConceptError, match="learnt for 16 cross-attention layers and model has 0"):
        check_width(generator, "mug", Word.layered("<mug>", rows))
    condition = generator.condition(generator.tokenise(["a cat"], {}), None)
    with pytest.raises(ValueError, match="2 conditions for 0 layers"):
        generator.layered([condition, condition])
    z0, t = torch.zeros(1, *generator.latent_shape), torch.tensor([500])
    assert generator.attention(z0, z0, t, condition).shape == (0, *condition.parts["hidden"].shape[:2])
    assert generator.diffusion is None
