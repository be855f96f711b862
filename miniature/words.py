"""Captions to hidden states, with *picture words* in the place of names: one vector, seen in pictures of the thing.

So the vocabulary's space is filled between the words that have names, which is where the words lie that inversion will
look for (an encoder that predicts words: Gal et al. 2023, arXiv 2302.12228). What sees is thrown away afterwards.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import CLIPTextModel

from miniature import tokens
from miniature.latents import PICTURE_WORD, Batch

NOISE = 0.15  # of a picture word, in parts of its own size: a vector is a word long before it is exact


class Sight(nn.Module):
    """Latents `[m, 6, 16, 16]` to vectors `[m, 2, width]`: the word of the thing, the word of the style."""

    def __init__(self, width: int):
        super().__init__()
        layers, channels = [], (6, 64, 96, 128, 192)
        for i in range(len(channels) - 1):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(channels[i], channels[i + 1], 3, stride, 1), nn.GroupNorm(8, channels[i + 1]), nn.SiLU()]
        self.layers, self.heads = nn.Sequential(*layers), nn.Linear(channels[-1] * 4, 2 * width)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.heads(self.layers(latents).flatten(1)).unflatten(1, (2, -1))


class Words(nn.Module):
    """The frozen text encoder with its table of words, which learns on, and the sight that makes picture words."""

    def __init__(self, encoder: CLIPTextModel, tokenizer):
        super().__init__()
        self.encoder, self.tokenizer = encoder.requires_grad_(False).eval(), tokenizer
        self.encoder.get_input_embeddings().requires_grad_(True)
        self.sight = Sight(encoder.config.hidden_size)
        self.place = tokenizer(PICTURE_WORD, add_special_tokens=False).input_ids[0]

    def see(self, shown: torch.Tensor, owner: torch.Tensor, of_style: torch.Tensor) -> torch.Tensor:
        """Picture words `[len(of_style), width]`: the mean of what is seen in the pictures of each."""
        seen = self.sight(shown).float()
        seen = seen[torch.arange(len(owner), device=owner.device), of_style[owner].long()]
        total = seen.new_zeros(len(of_style), seen.shape[1]).index_add(0, owner, seen)
        return total / torch.bincount(owner, minlength=len(of_style))[:, None]

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
        vectors = self.see(batch.shown.to(device), batch.owner.to(device), batch.of_style.to(device))
        blur = torch.randn(vectors.shape, generator=generator).to(device) * vectors.detach().square().mean(1, keepdim=True).sqrt()
        return self(batch.texts, vectors + NOISE * blur)
