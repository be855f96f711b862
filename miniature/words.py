"""Captions to hidden states, with *picture words* in the place of names: one vector that tells of a drawing, or of a style.

So the vocabulary's space is filled between the words that have names, which is where the words lie that inversion will look
for (an encoder that predicts words: Gal et al. 2023, arXiv 2302.12228). The word of a thing is a linear map of a drawing's principal
components, each of variance one: a network that saw the pictures passed on the first thirty components and no more, after
hours, for what differs little is learnt late. What makes the words is thrown away afterwards.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import CLIPTextModel

from miniature import tokens
from miniature.latents import COMPONENTS, PICTURE_WORD, Batch

NOISE = 0.15  # of a picture word, in parts of its own size: a vector is a word long before it is exact
SIZE = 0.1  # of a thing's picture word at first: that of the words with names, where inversion sets out


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
        self.thing = nn.Linear(COMPONENTS, encoder.config.hidden_size, bias=False)
        nn.init.orthogonal_(self.thing.weight, gain=SIZE)
        self.sight = Sight(encoder.config.hidden_size)
        self.place = tokenizer(PICTURE_WORD, add_special_tokens=False).input_ids[0]

    def see(self, batch: Batch, device: str) -> torch.Tensor:
        """Picture words `[len(of_style), width]`; that of a style is the mean of what is seen in some of its pictures."""
        of_style, owner = batch.of_style.to(device), batch.owner.to(device)
        vectors = torch.empty(len(of_style), self.thing.out_features, device=device)
        vectors[~of_style] = self.thing(batch.components.to(device)).float()
        if len(owner):
            seen = self.sight(batch.shown.to(device)).float()
            total = seen.new_zeros(int(of_style.sum()), seen.shape[1]).index_add(0, owner, seen)
            vectors[of_style] = total / torch.bincount(owner)[:, None]
        return vectors

    def forward(self, texts: list[str], vectors: torch.Tensor) -> torch.Tensor:
        """Hidden states `[n, context, width]`; `vectors` are the captions' picture words, in their order."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=tokens.CONTEXT, return_tensors="pt").input_ids
        ids = ids.to(vectors.device)

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
