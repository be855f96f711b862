"""The whole recipe: `python -m miniature.make --preset cpu` (an evening of two cores) or `--preset gpu` (20 minutes of one).

Every part goes on from its last checkpoint after a kill; `--only` does one of them; `export` may be called at any time
and writes what has been learnt so far.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel

from miniature import clip, crowd, generator, judge, latents, tokens, vae
from miniature.crowd import Crowd
from miniature.icons import rasterise
from miniature.pictures import Artwork
from miniature.precision import loads_in_float32
from miniature.store import work_folder

PACKAGE = Path(__file__).parent.parent / "ti_pipeline" / "miniature"
PARTS = ("icons", "vae", "teacher", "judge", "ranker", "generator", "export")


@dataclass(frozen=True)
class Preset:
    """Seconds of computing for each part."""

    vae: float
    teacher: float
    judge: float
    ranker: float
    generator: float


PRESETS = {
    "cpu": Preset(vae=780, teacher=420, judge=1500, ranker=420, generator=9000),
    "gpu": Preset(vae=180, teacher=90, judge=150, ranker=90, generator=560),
}


@dataclass(frozen=True)
class Recipe:
    """What one call does: `parts` in order, for `seconds` or the preset's time each.

    Decoder, ranker and generator go on from the weights in `start` where they have no checkpoint.
    """

    preset: str
    parts: tuple[str, ...]
    device: str
    threads: int
    processes: int = 1
    seconds: float | None = None
    package: Path = PACKAGE
    start: Path | None = None

    def time_for(self, part: str) -> float:
        if part not in self.parts:
            return 0.0
        return getattr(PRESETS[self.preset], part) if self.seconds is None else self.seconds

    def prepare(self) -> None:
        torch.set_flush_denormal(True)  # before the first thread starts, which inherits it: fading gradients cost twenty times as much
        torch.set_num_threads(self.threads)


def train_generator(recipe: Recipe, autoencoder, side: generator.Side | None = None):
    """The averaged U-Net and words, and the latent scale; one process, or one of several side by side."""
    work = work_folder()
    tokenizer = tokens.train(work / "tokenizer")
    if recipe.start is None:
        teacher = clip.train(clip.TEACHER, Artwork(rasterise(work)), work / "teacher.pt", 0, recipe.device)
        encoder = generator.text_encoder(teacher, tokenizer)
    else:
        encoder = CLIPTextModel.from_pretrained(recipe.start / "generator" / "text_encoder", dtype=torch.float32)
    data = latents.encode(autoencoder, work, recipe.device)
    size, seconds = generator.SIZES[recipe.preset], recipe.time_for("generator")
    return generator.train(data, encoder, tokenizer, work, size, seconds, recipe.device, recipe.start, side)


def beside(rank: int, recipe: Recipe, meeting: Path) -> None:
    """One process of those that train the generator side by side; the latents are there."""
    replace(recipe, threads=max(1, recipe.threads // recipe.processes)).prepare()
    train_generator(recipe, None, generator.Side(rank, recipe.processes, meeting))


def run(recipe: Recipe) -> None:
    recipe.prepare()
    work, parts, start, device = work_folder(), set(recipe.parts), recipe.start, recipe.device
    art = Artwork(rasterise(work))
    if start is not None and not (work / "tokenizer").exists():  # its weights know the words by the numbers that they have there
        shutil.copytree(start / "generator" / "tokenizer", work / "tokenizer")
    tokenizer = tokens.train(work / "tokenizer")
    autoencoder = vae.train(art, work / "vae.pt", recipe.time_for("vae"), device, start)
    if start is None and {"teacher", "generator"} & parts:
        clip.train(clip.TEACHER, art, work / "teacher.pt", recipe.time_for("teacher"), device)
    made = {name for name in ("judge", "ranker") if name in parts or (work / f"{name}.pt").exists()}
    kept = set() if start is None else {"judge", "ranker"} - made
    if {"judge", "export"} & parts and "judge" not in kept:
        judge_model = judge.train(art, Crowd(crowd.rasterise(work)), autoencoder, work / "judge.pt", recipe.time_for("judge"), device)
    if {"ranker", "export"} & parts and "ranker" not in kept:
        ranker = clip.train(clip.RANKER, art, work / "ranker.pt", recipe.time_for("ranker"), device, start)
    if "generator" in parts and recipe.processes > 1:
        latents.encode(autoencoder, work, device)
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(beside, (recipe, Path(folder) / "meeting"), recipe.processes)
    if {"generator", "export"} & parts:
        unet, words, spread = train_generator(recipe, autoencoder)
    if "export" in parts:
        if start is not None and start.resolve() != recipe.package.resolve():
            for name in kept:  # the ranker with the tokenizer that it was trained with
                shutil.copytree(start / name, recipe.package / name, dirs_exist_ok=True)
        export_generator(generator.pipeline(autoencoder, unet, words.encoder, tokenizer, spread), recipe.package)
        save_file(words.thing.half().state_dict(), recipe.package / "words.safetensors")  # for a training that goes on
        if "ranker" not in kept:
            clip.export(clip.RANKER, ranker, tokenizer, recipe.package / "ranker")
        if "judge" not in kept:
            judge.export(judge_model.cpu(), recipe.package / "judge")
        for file in recipe.package.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors writes for its owner alone; the package is everybody's
        total = sum(file.stat().st_size for file in recipe.package.rglob("*") if file.is_file())
        print(f"{recipe.package}: {total / 1e6:.1f} MB")


def export_generator(pipeline, package: Path) -> None:
    """The folder that ships: weights in float16, which load in float32."""
    shutil.rmtree(package / "generator", ignore_errors=True)
    pipeline.to("cpu", torch.float16).save_pretrained(package / "generator", safe_serialization=True)
    loads_in_float32(package / "generator" / "text_encoder" / "config.json")
    for name in ("vocab.json", "merges.txt"):  # for loaders older than tokenizer.json
        shutil.copy(work_folder() / "tokenizer" / name, package / "generator" / "tokenizer" / name)


def main() -> None:
    cores = torch.get_num_threads()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given more than once")
    parser.add_argument("--seconds", type=float, help="instead of the preset's time")
    parser.add_argument("--threads", type=int, default=cores)
    alone = 1 if torch.cuda.is_available() else cores
    parser.add_argument("--processes", type=int, default=alone, help="that train the generator side by side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--package", type=Path, default=PACKAGE)
    parser.add_argument("--start", type=Path, help="a package whose weights are gone on with, such as the one that ships")
    call = vars(parser.parse_args())
    run(Recipe(parts=tuple(call.pop("only") or PARTS), **call))


if __name__ == "__main__":
    main()
