"""Steps of the real Stable Diffusion 1.5 architecture at 512 px with random weights: speed needs no training.

`python -m benchmarks.training --model sd15`. On a CPU one step at 128 px, and with --quick at 64 px, show that it runs.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.report import Row, keep, machine
from ti_pipeline.generators import stable_diffusion_1 as sd1
from ti_pipeline.generators.clip_tokenizer import CONTEXT, clip_tokenizer
from ti_pipeline.generators.diffusion import Diffusion
from ti_pipeline.generators.families.stable_diffusion import StableDiffusion
from ti_pipeline.generators.generator import Generator, choose_device
from ti_pipeline.generators.loading import choose_dtype, suited
from ti_pipeline.generators.reader import Frame
from ti_pipeline.generators.text_encoder import TextEncoder
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.pack import losses_and_gradient
from ti_pipeline.inversion.setups.setup import Combination, Learnable, Step
from ti_pipeline.words.word import ONLY

BATCH, WARM = 4, 2
Networks = tuple[CLIPTextModel, UNet2DConditionModel, AutoencoderKL]


def measure(quick: bool) -> None:
    device = choose_device("auto")
    small = quick or device.type == "cpu"
    pixels, steps, packs = (64 if quick else 128, 1, (1, 2)) if small else (512, 8, (1, 2, 4, 8, 16))
    dtype = choose_dtype("auto", device)
    where, rate = machine(), matrix_rate(device, 1024 if small else 8192)
    rows, networks = [], build(device)
    for plain in (torch.float32, torch.bfloat16):
        work = plain_steps(networks, device, plain, pixels, steps)
        rows.append(_measured(f"plain, {_name(plain)}", device, work, 1, rate))
        _free(device)
    generator = frozen(networks, device, dtype)
    for pack in packs:
        work = packed_steps(generator, pack, pixels, steps)
        try:
            rows.append(_measured(f"ours, {_name(dtype)}, pack of {pack}", device, work, pack, rate))
        except torch.OutOfMemoryError:
            rows.append({"trainer": f"ours, pack of {pack}", "memory MB": None})
        _free(device)
    for row in rows:
        for column, against in (("× plain", rows[0]), ("× plain bfloat16", rows[1])):
            row[column] = row["samples a second"] / against["samples a second"] if row.get("samples a second") else None
    notes = [
        f"Random weights, {pixels} px, batch {BATCH} a concept, {steps} timed steps after {WARM if not small else 1} others.",
        f"Matrix rate of this device in {_name(dtype)}, measured in this run: {rate / 1e12:.3g} TFLOP/s.",
        "The share counts the floating-point operations of ours only: forward, and backward to the words.",
    ]
    if small:
        notes.append("Few steps of small pictures, to show that it runs: the numbers say nothing about a GPU.")
    keep("training-sd15-quick" if small else "training-sd15", {"pixels": pixels, "steps": steps, "batch": BATCH}, rows, notes, where)


def build(device: torch.device) -> Networks:
    """Text encoder, U-Net and VAE of Stable Diffusion 1.5 in float32, with random weights that cost little to draw."""
    torch.manual_seed(0)
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel.from_config(sd1.UNET), AutoencoderKL.from_config(sd1.VAE)
    for network in (unet, vae):
        network.requires_grad_(False).to_empty(device=device)
        for module in network.modules():
            for name, weight in module.named_parameters(recurse=False):
                if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
                    torch.nn.init.constant_(weight, float(name == "weight"))
                else:
                    torch.nn.init.uniform_(weight, -1, 1).mul_(weight[0].numel() ** -0.5)
    text = CLIPTextModel(CLIPTextConfig(**sd1.TEXT_ENCODER)).to(device).requires_grad_(False)
    return text.eval(), unet.eval(), vae.eval()


def frozen(networks: Networks, device: torch.device, dtype: torch.dtype) -> Generator:
    text, unet, vae = networks
    text.requires_grad_(False)
    encoders = {ONLY: TextEncoder(clip_tokenizer(), text, Frame(CONTEXT))}
    generator = StableDiffusion("sd15", "", encoders, vae.float(), unet, dict(sd1.SCHEDULER), device, dtype, learn=(ONLY,))
    return suited(generator, dtype, "channels_last" if device.type == "cuda" else "contiguous")


def packed_steps(generator: Generator, pack: int, pixels: int, steps: int) -> Callable[[], tuple[int, float, float]]:
    """Whole steps of a pack: draws, forward, backward, AdamW."""
    edge, width = pixels // 8, generator.encoders[ONLY].table.shape[1]
    words = [Learnable({ONLY: 0.02 * torch.randn(1, width)}, {"<word>": 1}) for _ in range(pack)]
    leaves = Leaves([Combination(())] * pack, [Learning.begun(word) for word in words], generator.device)

    def step(count: int) -> None:
        draws = [
            Draws(
                {ONLY: _ids(generator)},
                torch.randint(0, 1000, (BATCH,)),
                torch.randn(BATCH, 4, edge, edge),
                torch.randn(BATCH, 4, edge, edge),
            )
            for _ in range(pack)
        ]
        _, gradient = losses_and_gradient(generator, leaves, draws, 1)
        leaves.update(gradient, Step(*(torch.full((pack,), each).double() for each in (count, 0.005, 0.01))))

    def work() -> tuple[int, float, float]:
        with FlopCounterMode(display=False) as flops:
            step(1)
        seconds = _timed(step, steps, generator.device)
        return pack * BATCH * steps, seconds, flops.get_total_flops() / (pack * BATCH)

    return work


def plain_steps(
    networks: Networks, device: torch.device, dtype: torch.dtype, pixels: int, steps: int
) -> Callable[[], tuple[int, float, float]]:
    """Steps as they are commonly written: pictures encoded anew, AdamW on the whole table, rows put back, loss read."""
    text, unet, vae = networks
    unet.to(dtype)
    vae.to(dtype)
    diffusion = Diffusion(dict(sd1.SCHEDULER), device)
    table = text.get_input_embeddings().weight.requires_grad_(True)
    optimizer, original = torch.optim.AdamW([table], lr=0.005), table.detach().clone()
    others = torch.arange(len(table)) != 1000

    def step(count: int) -> None:
        pixel = torch.rand(BATCH, 3, pixels, pixels).to(device, dtype)
        with torch.no_grad():
            z0 = (vae.encode(pixel).latent_dist.sample() * vae.config.scaling_factor).float()
        noise, t = torch.randn_like(z0), torch.randint(0, 1000, (BATCH,), device=device)
        ids = torch.randint(0, len(table), (BATCH, CONTEXT), device=device)
        predicted = unet(diffusion.noisy(z0, noise, t).to(dtype), t, text(ids)[0].to(dtype)).sample
        loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[others] = original[others]
        loss.item()

    return lambda: (BATCH * steps, _timed(step, steps, device), 0.0)


def matrix_rate(device: torch.device, edge: int) -> float:
    """FLOP a second of a large square matrix product in the best precision of the device."""
    a = torch.randn(edge, edge, device=device, dtype=choose_dtype("auto", device))

    def step(count: int) -> None:
        a @ a

    repeats = 50 if device.type == "cuda" else 5
    return 2 * edge**3 * repeats / _timed(step, repeats, device)


def _timed(step: Callable[[int], None], steps: int, device: torch.device) -> float:
    for i in range(WARM if device.type == "cuda" else 1):
        step(i + 1)
    _wait(device)
    began = time.perf_counter()
    for i in range(steps):
        step(i + 2)
    _wait(device)
    return time.perf_counter() - began


def _measured(name: str, device: torch.device, work: Callable[[], tuple[int, float, float]], pack: int, rate: float) -> Row:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    samples, seconds, flops = work()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "trainer": name,
        "pack": pack,
        "samples a second": samples / seconds,
        "TFLOP a sample": flops / 1e12 or None,
        "share of the matrix rate": samples * flops / seconds / rate or None,
        "memory MB": peak / 2**20,
    }


def _ids(generator: Generator) -> torch.Tensor:
    ids = torch.randint(0, len(generator.encoders[ONLY].table), (BATCH, CONTEXT))
    ids[:, 5] = len(generator.encoders[ONLY].table)
    return ids


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
