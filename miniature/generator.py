"""The generator: a Stable Diffusion of thirteen million parameters, trained on latents that are computed once.

What made the difference in so short a training:
- the text encoder starts as a text tower that a CLIP has already taught to tell things apart;
- the U-Net hears the caption twice, by cross-attention and, pooled, in the time embedding of every block;
- one time in three the name of the thing gives way to a *picture word*: one vector, a linear map of the teacher's
  embedding of other pictures of the thing. So the vocabulary's space is filled between the words that have names,
  which is where the words lie that inversion will look for. The map is thrown away afterwards.
"""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from miniature import captions, clip, tokens
from miniature.muon import Muon
from miniature.pictures import BACKGROUNDS, STYLES, Artwork, things
from miniature.store import Checkpoint
from ti_pipeline.files import atomic

WEIGHTS = {"noto": 0.19, "fluent": 0.17, "flat": 0.15, "twemoji": 0.19, "pixel": 0.1, "sketch": 0.08, "sepia": 0.06, "mono": 0.06}
CORE_SHARE = 0.75
PICTURE_WORD = "@"  # one token that no caption has stands where the picture word goes


@dataclass(frozen=True)
class Size:
    channels: tuple[int, ...] = (32, 112, 224)
    layers: int = 1
    batch: int = 48


SIZES = {"cpu": Size(), "gpu": Size(channels=(64, 128, 256), layers=2, batch=384)}


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
        layers_per_block=size.layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=clip.TEACHER.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
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


@torch.no_grad()
def encode_pictures(art: Artwork, vae: AutoencoderKL, teacher, path: Path, device: str) -> dict[str, torch.Tensor]:
    """Latents of every trained picture and the teacher's embedding of it, computed once.

    `key` is int16 `[n, 3]` (thing, style, background), `latent` float16 `[n, 6, 16, 16]`, `feature` float16 `[n, 256]`.
    """
    if path.exists():
        return torch.load(path, weights_only=True)
    names = things()["core"] + things()["more"]
    rng = np.random.default_rng(5)
    keys = []
    for t in range(len(names)):
        for s, style in enumerate(STYLES):
            if art[names[t], style] is not None:
                shown = range(len(BACKGROUNDS)) if t < len(things()["core"]) else rng.choice(len(BACKGROUNDS), 2, replace=False)
                keys += [(t, s, int(b)) for b in shown]
    latents, features = [], []
    for start in range(0, len(keys), 128):
        block = [art.picture(names[t], STYLES[s], list(BACKGROUNDS)[b]) for t, s, b in keys[start : start + 128]]
        x = torch.from_numpy(np.stack(block)).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(device)
        latents.append(vae.encode(x).latent_dist.mean.half().cpu())
        small = F.interpolate(x, clip.TEACHER.image_size, mode="area")
        features.append(teacher.encode_image(small, normalize=True).half().cpu())
    data = {"key": torch.tensor(keys, dtype=torch.int16), "latent": torch.cat(latents), "feature": torch.cat(features)}
    with atomic(path) as temporary:
        torch.save(data, temporary)
    return data


class Words(nn.Module):
    """Captions to hidden states, with picture words in the place of `PICTURE_WORD`."""

    def __init__(self, encoder: CLIPTextModel, tokenizer):
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.map = nn.Linear(clip.TEACHER.embed, encoder.config.hidden_size)
        self.place = tokenizer(PICTURE_WORD, add_special_tokens=False).input_ids[0]

    def forward(self, texts: list[str], features: torch.Tensor) -> torch.Tensor:
        """`features` are those of the captions that hold a picture word, in their order."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=tokens.CONTEXT, return_tensors="pt").input_ids
        ids, vectors = ids.to(features.device), self.map(features)

        def put(module, args, output):
            return output.masked_scatter((args[0] == self.place)[..., None], vectors.to(output.dtype))

        hook = self.encoder.get_input_embeddings().register_forward_hook(put)
        try:
            return self.encoder(ids).last_hidden_state
        finally:
            hook.remove()


class Draws:
    """What each step learns from: a picture, a caption of it, sometimes a picture word."""

    def __init__(self, data: dict[str, torch.Tensor], seed: int):
        self.data, self.names = data, things()["core"] + things()["more"]
        self.rng, self.words = np.random.default_rng(seed), random.Random(seed)
        key = data["key"].numpy()
        core = key[:, 0] < len(things()["core"])
        weight = np.array([WEIGHTS[s] for s in STYLES])[key[:, 1]]
        weight = np.where(core, CORE_SHARE / (weight * core).sum(), (1 - CORE_SHARE) / (weight * ~core).sum()) * weight
        self.cumulative, self.core = np.cumsum(weight / weight.sum()), core
        self.of_thing = [np.flatnonzero(key[:, 0] == t) for t in range(len(self.names))]

    def batch(self, size: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        rows = np.minimum(np.searchsorted(self.cumulative, self.rng.random(size)), len(self.cumulative) - 1)
        texts, features = [], []
        for row in rows:
            t, s, b = self.data["key"][row].tolist()
            name, chance = self.names[t], self.rng.random()
            if chance < 0.1:
                texts.append("")
                continue
            if chance < (0.38 if self.core[row] else 0.7):
                shown = self.rng.choice(self.of_thing[t], self.rng.integers(1, 5))
                feature = F.normalize(self.data["feature"][shown].float().mean(0), dim=0)
                text = captions.draw(self.words, PICTURE_WORD, STYLES[s], list(BACKGROUNDS)[b])
                if PICTURE_WORD in text:
                    features.append(feature + 0.03 * torch.from_numpy(self.rng.standard_normal(feature.shape)).float())
            else:
                text = captions.draw(self.words, name, STYLES[s], list(BACKGROUNDS)[b])
            texts.append(text)
        return self.data["latent"][rows].float(), texts, torch.stack(features) if features else torch.zeros(0, clip.TEACHER.embed)


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


def train(
    art: Artwork, vae: AutoencoderKL, teacher, tokenizer, work: Path, size: Size, seconds: float, device: str, rate: float = 0.012
) -> tuple[UNet2DConditionModel, CLIPTextModel, float]:
    """Train for `seconds` of computing, over any number of interruptions: averaged U-Net, text encoder, latent scale."""
    data = encode_pictures(art, vae, teacher, work / "latents.pt", device)
    spread = 1 / data["latent"].float().std().item()
    noise_schedule = scheduler().alphas_cumprod.to(device)
    unet = build_unet(size).to(device, memory_format=torch.channels_last)
    words = Words(text_encoder(teacher, tokenizer), tokenizer).to(device)
    average = Average(unet, words.encoder)
    named = [*unet.named_parameters(), *((f"words.{n}", p) for n, p in words.named_parameters())]
    optimizer = Muon(named, lr=rate, adam_lr=1e-3, steps=4, adam=("words.", "conv_in", "conv_out", "time_embedding"))
    state = Checkpoint(work / "generator.pt", unet=unet, words=words, average=average, optimizer=optimizer)
    draws = Draws(data, seed=3 + state.step)
    generator = torch.Generator().manual_seed(3 + state.step)
    unet.train(), words.train()
    while state.seconds < seconds:
        began = time.monotonic()
        progress = min(1, state.seconds / seconds)
        optimizer.scale(min(1, (state.step + 1) / 50) * min(1, 1.25 * (1 - progress)) + 1e-4)
        latent, texts, features = draws.batch(size.batch)
        # stratified timesteps: every batch covers the whole schedule
        u = (torch.arange(size.batch) + torch.rand(size.batch, generator=generator)) / size.batch
        t = (u * 1000).long().clamp_(0, 999)[torch.randperm(size.batch, generator=generator)]
        noise = torch.randn(latent.shape, generator=generator)
        x0, noise, t = (spread * latent).to(device), noise.to(device), t.to(device)
        alpha = noise_schedule[t].sqrt()[:, None, None, None]
        sigma = (1 - noise_schedule[t]).sqrt()[:, None, None, None]
        noisy = (alpha * x0 + sigma * noise).to(memory_format=torch.channels_last)
        predicted = unet(noisy, t, words(texts, features.to(device))).sample
        loss = F.mse_loss(predicted, alpha * noise - sigma * x0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(state.step)
        state.tick(time.monotonic() - began, loss=loss)
    state.save()
    return *average.shadow, spread


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
