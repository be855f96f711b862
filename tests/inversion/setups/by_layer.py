"""Stock diffusers whose cross-attention layers are told by hand what they hear, and asked what attention they pay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.func import functional_call


class Told(AttnProcessor):
    """Plain attention, to `states` where they are set; `paid` is the share of each token, over heads and places, [b, tokens]."""

    states: torch.Tensor | None = None
    paid: torch.Tensor

    def __call__(
        self, attn: Attention, hidden: torch.Tensor, encoder_hidden_states: torch.Tensor, *args: object, **kwargs: object
    ) -> torch.Tensor:
        states = encoder_hidden_states if self.states is None else self.states
        q, k = (part.unflatten(2, (attn.heads, -1)) for part in (attn.to_q(hidden), attn.to_k(states)))
        self.paid = torch.einsum("bnhd,bthd->bhnt", q, k).div(q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=(1, 2))
        return super().__call__(attn, hidden, encoder_hidden_states=states)


class Stock:
    """Stable Diffusion from a folder, frozen; `layers` are its cross-attention layers in the order in which they are called."""

    def __init__(self, folder: Path):
        self.pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
        for network in (self.pipe.unet, self.pipe.text_encoder):
            network.requires_grad_(False).eval()
        order: list[str] = []
        hooks = [
            module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
            for name, module in self.pipe.unet.named_modules()
            if name.endswith("attn2")
        ]
        self.pipe.unet(torch.zeros(1, 4, 8, 8), 0, torch.zeros(1, 77, self.pipe.unet.config.cross_attention_dim))
        for hook in hooks:
            hook.remove()
        told = {f"{name}.processor": Told() for name in order}
        self.pipe.unet.set_attn_processor({name: told.get(name) or AttnProcessor() for name in self.pipe.unet.attn_processors})
        self.layers = list(told.values())

    def hear(self, ids: torch.Tensor, v: torch.Tensor | None = None) -> torch.Tensor:
        """States of prompts, with `v` [n, d] behind the table."""
        encoder = self.pipe.text_encoder
        table = encoder.get_input_embeddings().weight
        name = next(name for name, weight in encoder.named_parameters() if weight is table)
        return functional_call(encoder, {name: table if v is None else torch.cat([table, v])}, (ids,))[0]

    def predict(self, x: torch.Tensor, t: torch.Tensor, each: Sequence[torch.Tensor]) -> torch.Tensor:
        """`each` are the states for every layer, or one for all."""
        for i, layer in enumerate(self.layers):
            layer.states = each[i % len(each)]
        return self.pipe.unet(x, t, each[0]).sample
