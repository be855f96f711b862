"""A word that leaves the other words of a prompt as they are beside the class words (CoRe, AAAI 2025, arXiv 2408.15914)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from ti_pipeline.concepts.texts import LONGEST, PLACE, check_brief, one_line
from ti_pipeline.errors import ConceptError
from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject
from ti_pipeline.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Condition, Generator, Ids
    from ti_pipeline.inversion.draws import Draws
    from ti_pipeline.inversion.learner import Learner
    from ti_pipeline.params import Train

Prompt = Annotated[str, Field(max_length=LONGEST), AfterValidator(one_line), AfterValidator(check_brief)]
Prompts = Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=1000)]
_MANY = 2**31  # so many more than prompts that their number need not be known to draw one


class ContextPrompts(Section):
    """In which the other words are looked at."""

    object: Prompts
    """Prompts for things, with `{token}` and other words: none that the word is evaluated with."""
    style: Prompts
    """The same for styles."""


class Context(Setup):
    """Adds weight · mean (1 − cos(e_i, e'_i)) + attention · mean (a_i − a'_i)² to the loss, over the words i of a prompt but the learnt
    one: e_i is what the denoiser hears of it beside the learnt word, e'_i beside the class words; a_i and a'_i are how much attention
    the U-Net's cross-attention layers pay to it.

    Each sample of a step has a prompt of its own; attention is paid at the sample's latent, noise and timestep. The tokens that begin
    and end a prompt are among its words.
    """

    weight: Annotated[float, Field(ge=0)]
    """[1] Of the change in what is heard of the other words, in the loss. Raised, prompts are followed better and likeness falls."""
    attention: Annotated[float, Field(ge=0)]
    """[1] Of the change in the attention to them, in the loss. More than 0 takes two further passes of the U-Net in every step."""
    prompts: ContextPrompts

    def check(self, train: Train) -> None:
        if not (self.weight or self.attention):
            raise ValueError("train.setups.context: `weight` and `attention` are both 0, so that nothing is added. Raise one of them.")

    @property
    def needs_layers(self) -> bool:
        return self.attention > 0

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        """`fixed` has the ids of each prompt, with the class words and with the word at every length that it will have, and where the
        other words stand in them."""
        import torch

        from ti_pipeline.generators.placeholder import check_prompt

        token, generator, longest = subject.manifest.token, subject.generator, subject.train.longest
        if not generator.spoken:
            reason = f"context: {generator.name} does not say which of the states that it hears are of which word of a prompt."
            raise ConceptError(subject.manifest.slug, f"{reason} Choose another train.setup.")
        if not any(name in generator.learning for name in generator.spoken):
            reason = (
                f"context: {generator.name} hears the words of a prompt from {' and '.join(generator.spoken)}, where nothing is learnt."
            )
            raise ConceptError(subject.manifest.slug, f"{reason} Name one of them in generator.encoders, or choose another train.setup.")
        prompts = [text.replace(PLACE, token) for text in getattr(self.prompts, subject.manifest.kind)]
        for prompt in prompts:
            check_prompt(generator, subject.manifest.slug, prompt, {token: longest})
        first = one.lengths[token]
        said = [generator.tokenise(prompts, {**one.lengths, token: n}, subject.initializer) for n in range(first, longest + 1)]
        marked, usual = _usual(generator, prompts, token, subject.initializer)
        there, count = _others(generator, marked)
        fixed = {
            "about": torch.tensor([len(prompts), sum(one.lengths.values())]),
            "here": torch.stack([_others(generator, each)[0] for each in said])[..., : count.max()],
            "there": there[:, : count.max()],
            "count": count,
            **{f"said.{name}": torch.stack([each[name] for each in said]) for name in said[0]},
            **{f"usual.{name}": ids for name, ids in usual.items()},
        }
        return replace(one, fixed={**one.fixed, **{f"context.{name}": tensor for name, tensor in fixed.items()}})

    def draws(self, learner: Learner, draws: Draws, step: int) -> Draws:
        """Which prompt each sample has, and how many rows there are by now."""
        import torch

        which = learner.streams.uniform("context", step, _MANY, len(draws.t))
        rows = torch.full_like(which, sum(learner.lengths.values()))
        return replace(draws, beside={**draws.beside, "context": torch.stack([which, rows], dim=1)})

    def penalty(self, generator: Generator, group: Group, draws: Draws) -> Tensor | None:
        import torch
        from torch.nn import functional as F

        about, samples = group.fixed["context.about"], len(draws.t)
        subject = torch.arange(len(about), device=about.device).repeat_interleave(samples // len(about))
        which, length = draws.beside["context"][:, 0] % about[subject, 0], draws.beside["context"][:, 1] - about[subject, 1]  # from 0
        here, there = group.fixed["context.here"][subject, length, which], group.fixed["context.there"][subject, which]
        count = group.fixed["context.count"][subject, which]
        counted = (torch.arange(here.shape[1], device=here.device) < count[:, None]) / count[:, None]  # a mean's weights
        said = {name: group.fixed[f"context.said.{name}"][subject, length, which] for name in generator.encoders}
        heard = group.condition(generator, group.apart(generator, said), group)
        with torch.no_grad():
            usual = generator.condition({name: group.fixed[f"context.usual.{name}"][subject, which] for name in generator.encoders}, None)
        each = draws.z0.new_zeros(samples)
        if self.weight:
            wanted = _at(generator.states(usual)[0], there)
            cosines = [F.cosine_similarity(_at(states, here), wanted, dim=-1) for states in generator.states(heard)]
            each = each + self.weight * ((1 - torch.stack(cosines).mean(dim=0)) * counted).sum(dim=1)
        if self.attention:

            def attention(condition: Condition) -> Tensor:
                return draws.by_extent(lambda rows, some: generator.attention(some.z0, some.noise, some.t, condition[rows]), dim=1)

            with torch.no_grad():
                due = attention(usual)
            paid = attention(heard)
            change = (paid.gather(2, here.expand(len(paid), -1, -1)) - due.gather(2, there.expand(len(due), -1, -1))).square().mean(dim=0)
            each = each + self.attention * (change * counted).sum(dim=1)
        return each.view(len(about), -1).mean(dim=1)


def _usual(generator: Generator, prompts: Sequence[str], token: str, words: str) -> tuple[Ids, Ids]:
    """Ids of the prompts with the class words in the token's place, first marked as ids behind the table."""
    import torch

    from ti_pipeline.generators.placeholder import word_ids

    marked, usual = {}, {}
    for name, encoder in generator.encoders.items():
        pieces, vocabulary = torch.tensor(word_ids(encoder.tokenizer, words)), len(encoder.table)
        marked[name] = generator.tokenise(prompts, {token: len(pieces)}, words)[name]
        usual[name] = torch.where(marked[name] < vocabulary, marked[name], pieces[(marked[name] - vocabulary).clamp(min=0)])
    return marked, usual


def _others(generator: Generator, ids: Ids) -> tuple[Tensor, Tensor]:
    """Where the tokens stand that are none of the word's, in what is heard of each prompt [prompts, tokens], in their order and
    before all others; and how many they are [prompts]."""
    import torch

    from ti_pipeline.generators.placeholder import around

    others = []
    for name in generator.spoken:
        end = ids[name] == around(generator.encoders[name].tokenizer)[1][0]
        others.append((end.cumsum(dim=1) - end.int() == 0) & (ids[name] < len(generator.encoders[name].table)))
    whole = torch.cat(others, dim=1)
    return (~whole).byte().argsort(dim=1, stable=True), whole.sum(dim=1)


def _at(states: Tensor, places: Tensor) -> Tensor:
    """States [b, tokens, d] at places [b, n], float32 [b, n, d]."""
    return states.float().gather(1, places[..., None].expand(-1, -1, states.shape[2]))
