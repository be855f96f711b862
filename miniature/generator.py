"""The generator: a Stable Diffusion of thirteen million parameters, trained on latents that are computed once.

What made the difference in so short a training:
- the text encoder is the text tower of a CLIP, and only its table of words learns on: when its layers did, they forgot, at all
  tokens but its own, which thing was asked for;
- nearly half of the samples are so noisy that nothing but the words can tell what the picture is;
- the U-Net hears the caption twice, by cross-attention and, pooled, in the time embedding of every block;
- every second time the name of the thing gives way to a *picture word*: one vector, a linear map of what other pictures
  of the thing look like, to the teacher and in their principal components (Turk and Pentland 1991, "Eigenfaces"). So the
  vocabulary's space is filled between the words that have names, which is where the words lie that inversion will look
  for. Things that nobody asks for by name also come mirrored and with their colours exchanged, as more words of that
  kind. The map is thrown away afterwards.
"""

from __future__ import annotations

import copy
import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from miniature import captions, clip, tokens
from miniature.muon import Muon
from miniature.pictures import ARTISTS, BACKGROUNDS, STYLES, Artwork, compose, things
from miniature.precision import autocast, fast
from miniature.store import Checkpoint
from ti_pipeline.files import atomic

WEIGHTS = {"noto": 0.19, "fluent": 0.16, "flat": 0.16, "twemoji": 0.17, "pixel": 0.12, "sketch": 0.08, "sepia": 0.06, "mono": 0.06}
CORE_SHARE = 0.6
PICTURE_WORDS = 0.4, 0.9  # how often a name gives way to one: of core things, of more things
COMPONENTS = 192
NOISY = 850  # of 1000: below it even a blurred latent tells what the thing is
CLEAR_SHARE = 0.55  # of the samples, below it: there the style is decided, and with a third of them pixels came out smooth
PICTURE_WORD = "@"  # one token that no caption has stands where the picture word goes


@dataclass(frozen=True)
class Size:
    channels: tuple[int, ...] = (32, 112, 224)
    layers: int = 1
    batch: int = 64


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


def variants(rgba: np.ndarray, variant: int) -> np.ndarray:
    """Artwork `[edge, edge, 4]` with its colours exchanged in one of six ways, then perhaps mirrored: 0 to 11, 0 is as drawn."""
    order = list(itertools.permutations(range(3)))[variant // 2]
    return np.ascontiguousarray(rgba[:, :: -1 if variant % 2 else 1, [*order, 3]])


def coarse(rgba: np.ndarray) -> np.ndarray:
    """What artwork looks like from afar, on grey: float32 `[1024]`, colours and silhouette at 16 × 16."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    image = np.concatenate([(rgba[..., :3].astype(np.float32) / 255 - 0.5) * alpha, alpha], -1)
    edge = rgba.shape[0] // 16
    return image.reshape(16, edge, 16, edge, 4).mean((1, 3)).ravel()


@torch.no_grad()
def encode_pictures(art: Artwork, vae: AutoencoderKL, teacher, path: Path, device: str) -> dict[str, torch.Tensor]:
    """Latents of every trained picture and what its thing looks like, computed once.

    `key` is int16 `[n, 4]` (thing, style, background, variant), `latent` float16 `[n, 6, 16, 16]`, `look` float16 `[n, 448]`:
    the teacher's embedding and the principal components of the artwork, each of length about 1.
    """
    if path.exists():
        return torch.load(path, weights_only=True)
    names, core = things()["core"] + things()["more"], len(things()["core"])
    rng = np.random.default_rng(5)
    keys = []
    for t in range(len(names)):
        for s, style in enumerate(STYLES):
            if art[names[t], style] is not None:
                shown = range(len(BACKGROUNDS)) if t < core else rng.choice(len(BACKGROUNDS), 2, replace=False)
                keys += [(t, s, int(b), 0) for b in shown]
                if t >= core:
                    keys += [(t, s, int(rng.integers(len(BACKGROUNDS))), 1 + (t + 5 * k) % 11) for k in range(2)]
    latents, features, views = [], [], []
    for start in range(0, len(keys), 128):
        block = [variants(art[names[t], STYLES[s]], v) for t, s, _, v in keys[start : start + 128]]
        views += [coarse(rgba) for rgba in block]
        pictures = [compose(rgba, list(BACKGROUNDS)[key[2]]) for rgba, key in zip(block, keys[start : start + 128], strict=True)]
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(device)
        latents.append(vae.encode(x).latent_dist.mean.half().cpu())
        small = F.interpolate(x, clip.TEACHER.image_size, mode="area")
        features.append(teacher.encode_image(small, normalize=True).half().cpu())
    view = torch.from_numpy(np.stack(views))
    view = view - view.mean(0)
    torch.manual_seed(5)
    _, spread, basis = torch.pca_lowrank(view, COMPONENTS, center=False)
    components = view @ basis / spread.sqrt()  # half whitened: details count as well
    components = components / components.norm(dim=1).mean()
    data = {
        "key": torch.tensor(keys, dtype=torch.int16),
        "latent": torch.cat(latents),
        "look": torch.cat([torch.cat(features), components.half()], 1),
    }
    with atomic(path) as temporary:
        torch.save(data, temporary)
    return data


class Words(nn.Module):
    """Captions to hidden states, with picture words in the place of `PICTURE_WORD`."""

    def __init__(self, encoder: CLIPTextModel, tokenizer):
        super().__init__()
        self.encoder, self.tokenizer = encoder.requires_grad_(False).eval(), tokenizer
        self.encoder.get_input_embeddings().requires_grad_(True)
        self.map = nn.Linear(clip.TEACHER.embed + COMPONENTS, encoder.config.hidden_size)
        self.place = tokenizer(PICTURE_WORD, add_special_tokens=False).input_ids[0]

    def forward(self, texts: list[str], looks: torch.Tensor) -> torch.Tensor:
        """`looks` are those of the captions that hold a picture word, in their order."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=tokens.CONTEXT, return_tensors="pt").input_ids
        ids, vectors = ids.to(looks.device), self.map(looks)

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
        self.of_thing = {}
        for row in np.flatnonzero(key[:, 1] < len(ARTISTS)):  # techniques change how a thing looks
            self.of_thing.setdefault((int(key[row, 0]), int(key[row, 3])), []).append(row)

    def look(self, thing: int, variant: int) -> torch.Tensor:
        """The mean look of one to four pictures, and a little noise: a vector is a word long before it is exact."""
        look = self.data["look"][self.rng.choice(self.of_thing[thing, variant], self.rng.integers(1, 5))].float().mean(0)
        look[: clip.TEACHER.embed] = F.normalize(look[: clip.TEACHER.embed], dim=0)
        return look + 0.02 * torch.from_numpy(self.rng.standard_normal(look.shape)).float()

    def batch(self, size: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        rows = np.minimum(np.searchsorted(self.cumulative, self.rng.random(size)), len(self.cumulative) - 1)
        texts, looks = [], []
        for row in rows:
            t, s, b, variant = self.data["key"][row].tolist()
            name, chance = self.names[t], self.rng.random()
            if chance < 0.07:
                texts.append("")
                continue
            if variant or self.rng.random() < PICTURE_WORDS[not self.core[row]]:
                name = PICTURE_WORD
            texts.append(captions.draw(self.words, name, STYLES[s], list(BACKGROUNDS)[b]))
            if PICTURE_WORD in texts[-1]:
                looks.append(self.look(t, variant))
        return self.data["latent"][rows].float(), texts, torch.stack(looks) if looks else torch.zeros(0, self.data["look"].shape[1])


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
    art: Artwork,
    vae: AutoencoderKL,
    teacher,
    tokenizer,
    work: Path,
    size: Size,
    seconds: float,
    device: str,
    start: Path | None = None,
) -> tuple[UNet2DConditionModel, CLIPTextModel, float]:
    """Train for `seconds` of computing, over any number of interruptions: averaged U-Net, text encoder, latent scale.

    A training that has no checkpoint starts from the weights in `start`, a package that was exported earlier, and moves them less.
    """
    rate = 0.012 if start is None else 0.009
    data = encode_pictures(art, vae, teacher, work / "latents.pt", device)
    spread = 1 / data["latent"].float().std().item()
    noise_schedule = scheduler().alphas_cumprod.to(device)
    unet, encoder = build_unet(size), text_encoder(teacher, tokenizer)
    if start is not None:
        for model, folder in ((unet, "unet"), (encoder, "text_encoder")):
            model.load_state_dict(type(model).from_pretrained(start / "generator" / folder, dtype=torch.float32).state_dict())
    if device == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass is six times slower in bfloat16
    unet, words = unet.to(device), Words(encoder, tokenizer).to(device)
    average = Average(unet, words.encoder)
    named = [*unet.named_parameters(), *((f"words.{n}", p) for n, p in words.named_parameters() if p.requires_grad)]
    adam = ("words.", "conv_in", "conv_out", "time_embedding")
    optimizer = Muon(named, lr=rate, adam_lr=1e-3, steps=4, adam=adam, dtype=torch.bfloat16 if fast(device) else torch.float32)
    state = Checkpoint(work / "generator.pt", unet=unet, words=words, average=average, optimizer=optimizer)
    draws = Draws(data, seed=3 + state.step)
    generator = torch.Generator().manual_seed(3 + state.step)
    unet.train()
    while state.seconds < seconds:
        began = time.monotonic()
        progress = min(1, state.seconds / seconds)
        optimizer.scale(min(1, (state.step + 1) / 50) * min(1, 1.25 * (1 - progress)) + 1e-4)
        latent, texts, looks = draws.batch(size.batch)
        # stratified: every batch covers the whole schedule
        u = (torch.arange(size.batch) + torch.rand(size.batch, generator=generator)) / size.batch
        t = torch.where(u < CLEAR_SHARE, u / CLEAR_SHARE * NOISY, NOISY + (u - CLEAR_SHARE) / (1 - CLEAR_SHARE) * (1000 - NOISY))
        t = t.long().clamp_(0, 999)
        t = t[torch.randperm(size.batch, generator=generator)]
        noise = torch.randn(latent.shape, generator=generator)
        x0, noise, t = (spread * latent).to(device), noise.to(device), t.to(device)
        alpha = noise_schedule[t].sqrt()[:, None, None, None]
        sigma = (1 - noise_schedule[t]).sqrt()[:, None, None, None]
        with autocast(device):
            predicted = unet(alpha * x0 + sigma * noise, t, words(texts, looks.to(device))).sample
        loss = F.mse_loss(predicted.float(), alpha * noise - sigma * x0)
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
