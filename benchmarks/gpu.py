"""Training at full width: samples a second, share of the matrix rate, memory; packs of 1 to 16 against a plain trainer.

python -m benchmarks.gpu                           random weights in the published configurations; 8 minutes of one GPU at most
python -m benchmarks.gpu --minutes 4 --only stable-diffusion-xl

Without a GPU it runs two small cells of each model, in a few layers at 64 px, to show that it runs. What was not measured says so.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.published import configuration_of
from benchmarks.report import Row, keep, machine
from benchmarks.stable_diffusion import BATCH, _free, _measured, _timed, matrix_rate
from ti_pipeline.generators import stable_diffusion_1 as sd1
from ti_pipeline.generators.configuration import write_clip_tokenizer, write_parts
from ti_pipeline.generators.families import stable_diffusion_3, stable_diffusion_xl
from ti_pipeline.generators.generator import choose_device
from ti_pipeline.generators.latent_model import LatentModel
from ti_pipeline.generators.loading import choose_dtype, suited
from ti_pipeline.generators.source import Source
from ti_pipeline.inversion.learner import Draws
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.pack import losses_and_gradient
from ti_pipeline.inversion.setups.setup import Combination, Learnable, Step
from ti_pipeline.params import load
from ti_pipeline.planning.outline import outline

MODELS = {
    "stable-diffusion-1.5": sd1.MODEL_INDEX,
    "stable-diffusion-xl": stable_diffusion_xl.MODEL_INDEX,
    "stable-diffusion-3.5-medium": stable_diffusion_3.MODEL_INDEX,
}
_U_NET = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 8}
SMALL: dict[str, dict[str, Any]] = {  # what is other where there is no GPU, by part, or by model and part
    "stable-diffusion-1.5/unet": {**_U_NET, "block_out_channels": [32, 32, 64, 64]},
    "stable-diffusion-xl/unet": {
        **_U_NET, "block_out_channels": [32, 64, 64], "attention_head_dim": [2, 4, 4], "transformer_layers_per_block": [1, 1, 1],
    },
    "transformer": {"sample_size": 8, "num_layers": 1, "dual_attention_layers": [0], "pos_embed_max_size": 8},
    "vae": {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1, "sample_size": 64},
    "text_encoder": {"num_hidden_layers": 2},
    "text_encoder_2": {"num_hidden_layers": 2},
}  # fmt: skip
TOKEN, PROMPT = "<word>", "a photo of a <word>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no cell is begun that would end later")
    parser.add_argument("--only", choices=tuple(MODELS), help="measure one of the models")
    args = parser.parse_args()
    measure(list(MODELS) if args.only is None else [args.only], 60 * args.minutes)


def measure(names: list[str], seconds: float) -> None:
    device, ends = choose_device("auto"), time.monotonic() + 0.9 * seconds  # the rest is for the cell that is at work then
    small, dtype = device.type == "cpu", choose_dtype("auto", device)
    where, rate = machine(), matrix_rate(device, 512 if small else 8192)
    steps, packs = (1, (1, 2)) if small else (5, (1, 2, 4, 8, 16))
    rows: list[Row] = []
    for name in names:
        took, own = 0.0, len(rows)
        for label, precision, pack in (
            ("plain, float32", torch.float32, 0),
            ("plain, bfloat16", torch.bfloat16, 0),
            *((f"ours, pack of {pack}", dtype, pack) for pack in packs),
        ):
            row: Row = {"model": name, "trainer": label, "pack": pack or 1}
            began = time.monotonic()
            if began + took > ends:
                rows.append(row | {"remark": "not measured: no time was left"})
                continue
            try:
                generator = build(name, device, precision, small)
                work = ours(generator, pack, steps) if pack else plain(generator, steps)
                rows.append(row | _measured(label, device, work, pack or 1, rate))
                del work, generator
            except torch.OutOfMemoryError:
                rows.append(row | {"remark": "not measured: the memory was full"})
            took = max(took, time.monotonic() - began)
            _free(device)
        compare(rows[own:])
    notes = [
        f"Random weights, batch {BATCH} a concept, {steps} timed steps; the model's own size of pictures, text encoders of all words.",
        f"Matrix rate of this device in {str(dtype).removeprefix('torch.')}, measured in this run: {rate / 1e12:.3g} TFLOP/s.",
        "The share counts the operations of ours only: forward, and backward to the words. Stable Diffusion 3.5 is without its T5.",
    ]
    if small:
        notes.append("No GPU: few layers and small pictures, to show that it runs. Nothing at full width was measured.")
    keep(f"gpu-{_slug(where['gpu'])}" if not small else "gpu-none", {"models": names, "steps": steps, "batch": BATCH}, rows, notes, where)


def compare(rows: list[Row]) -> None:
    """Add how many times as fast as the plain trainers each is, where both were measured."""
    for row in rows:
        for column, against in (("× plain", rows[0]), ("× plain bfloat16", rows[1])):
            mine, theirs = row.get("samples a second"), against.get("samples a second")
            row[column] = mine / theirs if isinstance(mine, float) and isinstance(theirs, float) else None


def build(name: str, device: torch.device, dtype: torch.dtype, small: bool) -> LatentModel:
    """A generator in a published configuration with random weights."""
    settings = load(Path(__file__).parent.parent / "params.yaml").generator.model_copy(update={"precision": str(dtype)[6:]})
    with tempfile.TemporaryDirectory() as folder:
        write_folder(name, Path(folder), small)
        generator = outline(Source(name, Path(folder), "folder"), settings, torch.device("cpu"))
    torch.manual_seed(0)
    encoders = {each: replace(encoder, model=_drawn(encoder.model, device, dtype)) for each, encoder in generator.encoders.items()}
    vae, denoiser = _drawn(generator.vae, device, torch.float32), _drawn(generator.denoiser, device, dtype)
    generator = replace(generator, encoders=encoders, vae=vae, denoiser=denoiser, device=device)
    return suited(generator, dtype, "channels_last" if device.type == "cuda" else "contiguous")


def write_folder(name: str, folder: Path, small: bool) -> None:
    """The configuration of a published model in diffusers' layout, its T5 left out."""
    parts = configuration_of(name)
    parts.pop("text_encoder_3", None)
    for part, config in parts.items():
        config |= SMALL.get(part, SMALL.get(f"{name}/{part}", {})) if small else {}
        if part.startswith("text_encoder"):
            write_clip_tokenizer(folder / part.replace("text_encoder", "tokenizer"))
    write_parts(parts, folder)
    (folder / "model_index.json").write_text(json.dumps(MODELS[name]), encoding="utf-8")


def ours(generator: LatentModel, pack: int, steps: int) -> Callable[[], tuple[int, float, float]]:
    """Whole steps of a pack: draws, forward, backward, AdamW."""
    widths = {name: encoder.table.shape[1] for name, encoder in generator.encoders.items()}
    words = [Learnable({name: 0.02 * torch.randn(1, width) for name, width in widths.items()}, {TOKEN: 1}) for _ in range(pack)]
    leaves = Leaves([Combination(())] * pack, [Learning.begun(word) for word in words], generator.device)
    ids = generator.tokenise([PROMPT] * BATCH, {TOKEN: 1})

    def step(count: int) -> None:
        shape, times = (BATCH, *generator.latent_shape), (BATCH,)
        draws = [Draws(ids, torch.randint(0, generator.timesteps, times), torch.randn(shape), torch.randn(shape)) for _ in range(pack)]
        _, gradient = losses_and_gradient(generator, leaves, draws, 1)
        leaves.update(gradient, Step(*(torch.full((pack,), each).double() for each in (count, 0.005, 0.01))))

    def work() -> tuple[int, float, float]:
        with FlopCounterMode(display=False) as flops:
            step(1)
        return pack * BATCH * steps, _timed(step, steps, generator.device), flops.get_total_flops() / (pack * BATCH)

    return work


def plain(generator: LatentModel, steps: int) -> Callable[[], tuple[int, float, float]]:
    """Steps as they are commonly written: pictures encoded anew, AdamW on whole tables, rows put back, loss read."""
    tables = [encoder.table.requires_grad_(True) for encoder in generator.encoders.values()]
    optimizer, originals = torch.optim.AdamW(tables, lr=0.005), [table.detach().clone() for table in tables]
    ids, edge, device = generator.tokenise(["a photo of a cat"] * BATCH, {}), generator.resolution, generator.device
    torch.nn.Module.to(generator.vae, generator.dtype)

    def step(count: int) -> None:
        with torch.no_grad():
            found = generator.posterior(torch.rand(BATCH, 3, edge, edge).to(device, generator.dtype))
            z0 = (found.mean + found.std * torch.randn_like(found.std)).float()
        noise, t = torch.randn_like(z0), torch.randint(0, generator.timesteps, (BATCH,), device=device)
        loss = generator.losses(z0, noise, t, generator.condition(ids, None)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for table, original in zip(tables, originals, strict=True):
                table[1:] = original[1:]
        loss.item()

    return lambda: (BATCH * steps, _timed(step, steps, device), 0.0)


def _drawn(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A network like one that has no content, as its library draws it at first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            made = type(network)(network.config) if isinstance(network, PreTrainedModel) else type(network).from_config(network.config)
    finally:
        torch.set_default_dtype(before)
    return made.requires_grad_(False).eval()


def _slug(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")


if __name__ == "__main__":
    main()
