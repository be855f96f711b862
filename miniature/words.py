"""Captions to hidden states, with *picture words* in the place of names: one vector that tells of a drawing, or of a style.

So the vocabulary's space is filled between the words that have names, which is where the words lie that inversion will look
for (an encoder that predicts words: Gal et al. 2023, arXiv 2302.12228). The word of a thing is a linear map of a drawing's principal
components, each of variance one: a network that saw the pictures passed on the first thirty components and no more, after
hours, for what differs little is learnt late. What makes the words is thrown away afterwards.

Nor may the text encoder lose them. One that learnt as fast as the U-Net added two hundred times a word's size to the residual stream:
of what tells one drawing from the next one part in a hundred came out, less than bfloat16 can say. So its layers are soft, and learn
slowly. And pooling that sets out to look at all tokens alike is slow to find the one that matters.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import TextTimeEmbedding
from torch import nn
from transformers import CLIPTextModel

from miniature import tokens
from miniature.latents import COMPONENTS, PICTURE_WORD, Batch, Draws, whitening
from miniature.pictures import BACKGROUNDS, NAMED

LATENT = 6 * 16 * 16
NOISE = 0.15  # of a picture word, in parts of its own size: a vector is a word long before it is exact
SIZE = 0.1  # of a thing's picture word: about that of the words with names, where inversion sets out
LOOK = (0.7, 0.15, 0.15)  # at the name, the style and the background


class Sight(nn.Module):
    """Latents `[m, 6, 16, 16]` to vectors `[m, width]`: the word of the style."""

    def __init__(self, width: int):
        super().__init__()
        layers, channels = [], (6, 64, 96, 128, 192)
        for i in range(len(channels) - 1):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(channels[i], channels[i + 1], 3, stride, 1), nn.GroupNorm(8, channels[i + 1]), nn.SiLU()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(channels[-1] * 4, width)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(latents).flatten(1))


class Words(nn.Module):
    """The text encoder and what makes picture words."""

    def __init__(self, encoder: CLIPTextModel, tokenizer):
        super().__init__()
        self.encoder, self.tokenizer = encoder.eval(), tokenizer
        self.thing = nn.Linear(LATENT, encoder.config.hidden_size).requires_grad_(False)
        self.sight = Sight(encoder.config.hidden_size)
        self.place = tokenizer(PICTURE_WORD, add_special_tokens=False).input_ids[0]

    @torch.no_grad()
    def begin(self, drawn: torch.Tensor) -> None:
        """Make the map of drawings `[n, 6, 16, 16]` to words: every component is as loud as the next, whatever its variance."""
        matrix, offset = whitening(drawn.flatten(1).float())
        loud = nn.init.orthogonal_(torch.empty(self.thing.out_features, COMPONENTS), gain=SIZE)
        self.thing.weight.copy_(loud @ matrix)
        self.thing.bias.copy_(loud @ offset)

    def see(self, batch: Batch, device: str) -> torch.Tensor:
        """Picture words `[len(of_style), width]`; that of a style is the mean of what is seen in some of its pictures."""
        of_style, owner = batch.of_style.to(device), batch.owner.to(device)
        vectors = torch.empty(len(of_style), self.thing.out_features, device=device)
        with torch.autocast(vectors.device.type, enabled=False):  # the smallest components are differences of what is much larger
            vectors[~of_style] = self.thing(batch.drawn.flatten(1).to(device))
        if len(owner):
            seen = self.sight(batch.shown.to(device)).float()
            total = seen.new_zeros(int(of_style.sum()), seen.shape[1]).index_add(0, owner, seen)
            vectors[of_style] = total / torch.bincount(owner)[:, None]
        return vectors

    def ids(self, texts: list[str]) -> torch.Tensor:
        """Token numbers `[n, context]`."""
        return self.tokenizer(texts, padding="max_length", truncation=True, max_length=tokens.CONTEXT, return_tensors="pt").input_ids

    def forward(self, texts: list[str], vectors: torch.Tensor) -> torch.Tensor:
        """Hidden states `[n, context, width]`; `vectors` are the captions' picture words, in their order."""
        ids = self.ids(texts).to(vectors.device)

        def put(module, args, output):
            return output.masked_scatter((args[0] == self.place)[..., None], vectors.to(output.dtype))

        hook = self.encoder.get_input_embeddings().register_forward_hook(put)
        try:
            return self.encoder(ids).last_hidden_state
        finally:
            hook.remove()

    def of(self, batch: Batch, device: str, generator: torch.Generator) -> torch.Tensor:
        """Hidden states of a batch's captions; its picture words are blurred."""
        vectors = self.see(batch, device)
        blur = torch.randn(vectors.shape, generator=generator).to(device) * vectors.detach().square().mean(1, keepdim=True).sqrt()
        return self(batch.texts, vectors + NOISE * blur)


@torch.no_grad()
def soften(words: Words, texts: list[str]) -> float:
    """Let the layers add about as much to the residual stream as they find there. Returns what they added, in parts of that."""
    encoder, stream = words.encoder, []
    layers = encoder.encoder.layers
    ends = layers[0], encoder.final_layer_norm
    hooks = [end.register_forward_pre_hook(lambda module, args: stream.append(args[0])) for end in ends]
    encoder(words.ids(texts).to(encoder.device))
    for hook in hooks:
        hook.remove()
    before, after = stream
    added = ((after - before).norm() / before.norm()).item()
    for layer in layers:
        for part in (layer.self_attn.out_proj, layer.mlp.fc2):
            part.weight.div_(max(1, added))
            part.bias.div_(max(1, added))
    return added


def look_at_names(embedding: TextTimeEmbedding, words: Words, draws: Draws, steps: int = 300) -> float:
    """Teach the pooling of captions where to look, before it learns what to see. Returns the attention that names get then."""
    pool, device = embedding.pool, words.thing.weight.device

    def numbers(names) -> torch.Tensor:
        return torch.tensor([i for name in names for i in words.tokenizer(name, add_special_tokens=False).input_ids])

    kinds = torch.tensor([words.place]), numbers(NAMED), numbers(BACKGROUNDS)
    nn.init.normal_(pool.q_proj.bias)
    optimizer = torch.optim.Adam([pool.positional_embedding, *pool.q_proj.parameters(), *pool.k_proj.parameters()], 1e-3)
    for _ in range(steps):
        batch = draws.batch(64)
        texts = [text for text in batch.texts if PICTURE_WORD in text]
        with torch.no_grad():
            states = embedding.norm1(words(texts, words.see(batch, device)))
        there = [torch.isin(words.ids(texts), kind).float() for kind in kinds]
        target = sum(share * of / of.sum(1, keepdim=True).clamp(min=1) for share, of in zip(LOOK, there, strict=True)).to(device)
        first = states.mean(1, keepdim=True) + pool.positional_embedding
        query, key = (part.unflatten(-1, (pool.num_heads, -1)) for part in (pool.q_proj(first), pool.k_proj(torch.cat([first, states], 1))))
        attention = (torch.einsum("nqhc,nkhc->nhk", query, key) / pool.dim_per_head**0.5).log_softmax(-1)[..., 1:].mean(1)
        loss = -(target * attention).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (attention.exp() * there[0].to(device)).sum(1).mean().item()
