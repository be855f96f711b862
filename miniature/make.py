"""The whole recipe: `python -m miniature.make --preset cpu` (an evening of two cores) or `--preset gpu` (20 minutes of one).

Every part goes on from its last checkpoint after a kill; `--only` does one of them; `export` may be called at any time
and writes what has been learnt so far.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from miniature import clip, generator, judge, tokens, vae
from miniature.icons import rasterise
from miniature.pictures import Artwork
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
    "cpu": Preset(vae=780, teacher=420, judge=420, ranker=420, generator=5400),
    "gpu": Preset(vae=180, teacher=90, judge=90, ranker=90, generator=700),
}


def run(
    preset: str, parts: tuple[str, ...], device: str, threads: int, seconds: float | None, package: Path, start: Path | None = None
) -> None:
    """Do `parts` in order; `seconds` overrides the preset's time for every training among them.

    Autoencoder, judge, ranker and generator go on from the weights in `start` where they have no checkpoint.
    """
    torch.set_flush_denormal(True)  # before the first thread starts, which inherits it: gradients that fade out cost twenty times as much
    torch.set_num_threads(threads)
    work, size, plan = work_folder(), generator.SIZES[preset], PRESETS[preset]
    art = Artwork(rasterise(work))

    def time_for(part: str) -> float:
        if part not in parts:
            return 0.0
        return getattr(plan, part) if seconds is None else seconds

    if start is not None and not (work / "tokenizer").exists():  # its weights know the words by the numbers that they have there
        shutil.copytree(start / "generator" / "tokenizer", work / "tokenizer")
    tokenizer = tokens.train(work / "tokenizer")
    if {"vae", "generator", "export"} & set(parts):
        autoencoder = vae.train(art, work / "vae.pt", time_for("vae"), device, start)
    if {"teacher", "generator", "export"} & set(parts):
        teacher = clip.train(clip.TEACHER, art, work / "teacher.pt", time_for("teacher"), device)
    if {"judge", "export"} & set(parts):
        judge_model = judge.train(art, work / "judge.pt", time_for("judge"), device, start)
    keep_ranker = start is not None and "ranker" not in parts and not (work / "ranker.pt").exists()
    if {"ranker", "export"} & set(parts) and not keep_ranker:
        ranker = clip.train(clip.RANKER, art, work / "ranker.pt", time_for("ranker"), device, start)
    if {"generator", "export"} & set(parts):
        parts_of_generator = generator.train(art, autoencoder, teacher, tokenizer, work, size, time_for("generator"), device, start)
    if "export" in parts:
        if keep_ranker and start.resolve() != package.resolve():  # with the tokenizer that it was trained with
            shutil.copytree(start / "ranker", package / "ranker", dirs_exist_ok=True)
        export(
            generator.pipeline(autoencoder, *parts_of_generator[:2], tokenizer, parts_of_generator[2]),
            None if keep_ranker else ranker,
            judge_model,
            tokenizer,
            package,
        )


def export(pipeline, ranker, judge_model, tokenizer, package: Path) -> None:
    """Write the three folders that ship, in float16; a ranker that is None stays as it is."""
    shutil.rmtree(package / "generator", ignore_errors=True)
    pipeline.to("cpu", torch.float16).save_pretrained(package / "generator", safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # for loaders older than tokenizer.json
        shutil.copy(work_folder() / "tokenizer" / name, package / "generator" / "tokenizer" / name)
    if ranker is not None:
        clip.export(clip.RANKER, ranker, tokenizer, package / "ranker")
    judge.export(judge_model.cpu(), package / "judge")
    for file in package.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes for its owner alone; the package is everybody's
    total = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    print(f"{package}: {total / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given more than once")
    parser.add_argument("--seconds", type=float, help="instead of the preset's time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--package", type=Path, default=PACKAGE)
    parser.add_argument("--start", type=Path, help="a package whose weights are gone on with, such as the one that ships")
    call = parser.parse_args()
    run(call.preset, tuple(call.only or PARTS), call.device, call.threads, call.seconds, call.package, call.start)


if __name__ == "__main__":
    main()
