"""The generator: a Stable Diffusion of twenty-one million parameters, trained on latents that are computed once.

What made the difference in so short a training:
- the text encoder begins as the text tower of a CLIP and learns on, slowly, for its layers must not drown the words (`words.py`);
- its way up learns first, alone, to draw the mean of what a caption can mean (`decoder.py`);
- the U-Net hears the caption twice, by cross-attention and, pooled, in the time embedding of every block, through which most of
  what is told of a thing passes;
- four times in five the name of the thing gives way to a *picture word* (`words.py`), and most of what these words mean is
  the crowd and its like (`latents.py`): with 700 things alone, words that it had not heard drew blots;
- three in five of these words are of *chimeras*, cut from two or three drawings anew every time: 33,000 drawings that stay are learnt
  by heart, and words of others came out in blotches.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from miniature import clip, tokens
from miniature.decoder import decode, silence
from miniature.latents import Draws
from miniature.muon import Muon
from miniature.precision import autocast, fast
from miniature.store import Checkpoint
from miniature.words import Words, look_at_names, soften

# Shares of the samples, and the times of 1000 that they reach. The first steps of drawing decide what the thing looks like, but that
# the decoder has learnt; below 800 the style is decided, and with a third of the samples there pixels came out smooth.
TIMES = (0, 0.58, 0.83, 1), (0, 800, 940, 1000)
DECODER = 0.3  # of the time of a training from nothing
NOISIEST = 950  # and later: what the decoder learns, where the noisy latent tells nothing
TOGETHER = 8  # steps between two averagings of processes that train side by side


@dataclass(frozen=True)
class Size:
    channels: tuple[int, ...] = (32, 96, 160, 320)
    batch: int = 64


SIZES = {"cpu": Size(), "gpu": Size(batch=384)}


def scheduler() -> DDIMScheduler:
    """Velocity prediction (Salimans and Ho 2022) on the cosine schedule: flat backgrounds come out in their colour."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def build_unet(size: Size) -> UNet2DConditionModel:
    torch.manual_seed(3)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=6,
        out_channels=6,
        block_out_channels=size.channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=clip.TEACHER.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=512,  # not four times the first channels: the pooled caption is heard through it
    )


def text_encoder(teacher, tokenizer) -> CLIPTextModel:
    """The teacher's text tower as transformers writes it; the conversion is exact."""
    design = clip.TEACHER
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=design.text_width,
            intermediate_size=4 * design.text_width,
            num_hidden_layers=design.text_layers,
            num_attention_heads=design.text_heads,
            projection_dim=design.embed,
            max_position_embeddings=tokens.CONTEXT,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    source = teacher.state_dict()
    state = {
        "embeddings.token_embedding.weight": source["token_embedding.weight"],
        "embeddings.position_embedding.weight": source["positional_embedding"],
        "final_layer_norm.weight": source["ln_final.weight"],
        "final_layer_norm.bias": source["ln_final.bias"],
    }
    for i in range(design.text_layers):
        theirs, ours = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
        for kind in ("weight", "bias"):
            for part, rows in zip(("q", "k", "v"), source[f"{theirs}attn.in_proj_{kind}"].chunk(3), strict=True):
                state[f"{ours}self_attn.{part}_proj.{kind}"] = rows
            state[f"{ours}self_attn.out_proj.{kind}"] = source[f"{theirs}attn.out_proj.{kind}"]
            for a, b in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                state[f"{ours}{a}.{kind}"] = source[f"{theirs}{b}.{kind}"]
    model.load_state_dict(state)
    return model


class Average:
    """Exponential moving average of parameters, with the short memory of a young model at first."""

    def __init__(self, *modules: nn.Module, decay: float = 0.998):
        self.decay, self.modules = decay, modules
        self.shadow = [copy.deepcopy(m).requires_grad_(False).eval() for m in modules]

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self.decay, (1 + step) / (10 + step))
        for shadow, module in zip(self.shadow, self.modules, strict=True):
            torch._foreach_lerp_(list(shadow.parameters()), list(module.parameters()), 1 - keep)

    def state_dict(self) -> list:
        return [s.state_dict() for s in self.shadow]

    def load_state_dict(self, states: list) -> None:
        for shadow, state in zip(self.shadow, states, strict=True):
            shadow.load_state_dict(state)


class Side:
    """One of several processes that train the same model on draws of their own and now and then average their weights.

    Local SGD (Stich 2019, arXiv 1805.09767): on a CPU two processes of one thread do half as much again as one of two threads.
    """

    def __init__(self, rank: int = 0, count: int = 1, meeting: Path | None = None):
        self.rank, self.count = rank, count
        if count > 1:
            torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)

    @torch.no_grad()
    def average(self, parameters: list[nn.Parameter]) -> None:
        if self.count > 1:
            flat = torch.nn.utils.parameters_to_vector(parameters)
            torch.distributed.all_reduce(flat)
            torch.nn.utils.vector_to_parameters(flat / self.count, parameters)

    def agree(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        torch.distributed.broadcast(shared, 0)
        return shared.item()


def times(count: int, shares: tuple[float, ...], reach: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Times `[count]` in random order, stratified: every batch covers the whole schedule."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    t = torch.from_numpy(np.interp(u.numpy(), shares, reach)).long().clamp_(0, 999)
    return t[torch.randperm(count, generator=generator)]


def train(
    data: dict[str, torch.Tensor],
    encoder: CLIPTextModel,
    tokenizer,
    work: Path,
    size: Size,
    seconds: float,
    device: str,
    start: Path | None = None,
    side: Side | None = None,
) -> tuple[UNet2DConditionModel, Words, float]:
    """Train for `seconds` of computing, over any number of interruptions: averaged U-Net and words, latent scale.

    A training that has no checkpoint starts from the weights in `start`, a package that was exported earlier.
    """
    side = side or Side()
    if start is None:
        spread = 1 / data["latent"].float().std().item()
    else:
        spread = AutoencoderKL.load_config(start / "generator" / "vae")["scaling_factor"]
    noise_schedule = scheduler().alphas_cumprod.to(device)
    unet = build_unet(size)
    if device == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass is six times slower in bfloat16
        encoder.set_attn_implementation("eager")
    unet, words = unet.to(device), Words(encoder, tokenizer).to(device)
    if start is not None:
        unet.load_state_dict(UNet2DConditionModel.from_pretrained(start / "generator" / "unet", dtype=torch.float32).state_dict())
        words.thing.load_state_dict(load_file(start / "words.safetensors"))
    elif not (work / "generator.pt").exists():
        silence(unet)
        words.begin(data["drawn"])
        draws = Draws(data, seed=2)
        soften(words, draws.batch(64).texts)
        look_at_names(unet.add_embedding, words, draws)
    average = Average(unet, words)
    named = [*unet.named_parameters(), *((f"words.{n}", p) for n, p in words.named_parameters() if p.requires_grad)]
    adam = ("token_embedding", "position_embedding", "words.sight", "conv_in", "conv_out", "time_embedding")
    kind = torch.bfloat16 if fast(device) else torch.float32
    optimizer = Muon(named, lr=0.012, adam_lr=1e-3, steps=4, adam=adam, slow=("words.encoder.encoder",), dtype=kind)
    state = Checkpoint(work / "generator.pt", writes=side.rank == 0, unet=unet, words=words, average=average, optimizer=optimizer)
    draws = Draws(data, seed=3 + state.step * side.count + side.rank)
    generator = torch.Generator().manual_seed(3 + state.step * side.count + side.rank)
    alone = 0 if start is not None else DECODER * seconds  # the decoder
    unet.train()
    taken = 0  # steps of the whole U-Net
    while (side.count > 1 and state.step % TOGETHER) or side.agree(state.seconds) < seconds:  # all stop after the same step
        began = time.monotonic()
        decoding = state.seconds < alone
        progress = state.seconds / alone if decoding else min(1, (state.seconds - alone) / (seconds - alone))
        taken += not decoding
        rate = max(0.25, min(1, 1.5 * (1 - progress))) if decoding else min(1, (taken + 1) / 200, 1.25 * (1 - progress))
        optimizer.scale(min(1, (state.step + 1) / 200) * rate + 1e-4)
        batch = draws.batch(size.batch * (2 if decoding else 1))
        t = times(len(batch.latent), (0, 1), (NOISIEST, 1000), generator) if decoding else times(len(batch.latent), *TIMES, generator)
        x0, t = (spread * batch.latent).to(device), t.to(device)
        alpha = noise_schedule[t].sqrt()[:, None, None, None]
        sigma = (1 - noise_schedule[t]).sqrt()[:, None, None, None]
        noise = torch.zeros_like(x0) if decoding else torch.randn(x0.shape, generator=generator).to(device)
        with autocast(device):
            states = words.of(batch, device, generator)
            predicted = decode(unet, t, states) if decoding else unet(alpha * x0 + sigma * noise, t, states).sample
        loss = F.mse_loss(predicted.float(), alpha * noise - sigma * x0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (state.step + 1) % TOGETHER == 0:
            side.average([p for _, p in named])
        average.update(state.step)
        state.tick(time.monotonic() - began, loss=loss)
    state.save()
    return average.shadow[0], average.shadow[1], spread


def pipeline(vae: AutoencoderKL, unet: UNet2DConditionModel, encoder: CLIPTextModel, tokenizer, spread: float) -> StableDiffusionPipeline:
    vae.register_to_config(scaling_factor=spread)
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
