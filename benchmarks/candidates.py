"""Candidates drawn, scored and written a second: ours against the stock pipeline and open_clip, one brief at a time.

python -m benchmarks.candidates            6 concepts x 3 briefs x 8 candidates
python -m benchmarks.candidates --quick    about a minute
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import open_clip
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import ti_pipeline
from benchmarks.collection import recoloured, settings
from benchmarks.report import Row, keep, machine
from ti_pipeline import stages
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.models import Models
from ti_pipeline.params import Params
from ti_pipeline.words.files import write_word
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import Workspace

PACKAGE = Path(ti_pipeline.__file__).parent / "miniature"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=6)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="end within about a minute")
    args = parser.parse_args()
    if args.quick:
        args.concepts, args.candidates, args.steps = 2, 4, 5
    where, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        workspace = recoloured(Path(folder), args.concepts)
        base = settings(f"generate.candidates={args.candidates}", f"generate.steps={args.steps}")
        untrained(workspace, base)
        rows.append(stock(workspace, base))
        for precision in ("float32", "auto"):
            params = settings(f"generate.candidates={args.candidates}", f"generate.steps={args.steps}", f"generator.precision={precision}")
            rows.append(ours(workspace, params))
    for row in rows:
        row["×"] = row["candidates a second"] / rows[0]["candidates a second"]
        row["× CPU"] = row["candidates"] * rows[0]["CPU seconds"] / row["CPU seconds"] / rows[0]["candidates"]
    notes = [
        "Both sides: text to pictures, CLIP scores against prompt and references, PNG files. Models are loaded before the clock starts."
    ]
    notes.append("The words are those of the initializers: what they look like changes no time.")
    keep("candidates-quick" if args.quick else "candidates", vars(args), rows, notes, where)


def untrained(workspace: Workspace, params: Params) -> None:
    generator = Models(params, workspace.root).generator
    for path in sorted(workspace.concepts.iterdir()):
        manifest = read_manifest(workspace, path.name)
        ids = generator.encoders[ONLY].tokenizer(manifest.initializer, add_special_tokens=False).input_ids
        write_word(workspace.embedding(path.name), Word(manifest.token, {ONLY: generator.encoders[ONLY].table[ids[:1]].float().clone()}))


@torch.no_grad()
def stock(workspace: Workspace, params: Params) -> Row:
    """As a script would: load the word, call the pipeline for a brief, save, embed what was saved, take cosines."""
    pipe = StableDiffusionPipeline.from_pretrained(PACKAGE / "generator", safety_checker=None, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    name = f"local-dir:{PACKAGE / 'ranker'}"
    clip, _, prepare = open_clip.create_model_and_transforms(name)
    clip.eval().to(pipe.device)
    tokenize = open_clip.get_tokenizer(name)
    section, made, began = params.generate, 0, clock()

    def embed(pictures: list) -> torch.Tensor:
        features = clip.encode_image(torch.stack([prepare(picture) for picture in pictures]).to(pipe.device))
        return features / features.norm(dim=-1, keepdim=True)

    for path in sorted(workspace.concepts.iterdir()):
        manifest = read_manifest(workspace, path.name)
        pipe.load_textual_inversion(str(workspace.embedding(path.name)), token=manifest.token)
        references = embed([manifest.open(picture) for picture in manifest.pictures])
        target = workspace.root / "stock" / path.name
        target.mkdir(parents=True)
        for b, brief in enumerate(manifest.briefs or section.briefs[manifest.kind]):
            seeds = [torch.Generator().manual_seed(1000 * b + i) for i in range(section.candidates)]
            pictures = pipe(
                brief.replace("{token}", manifest.token),
                num_images_per_prompt=section.candidates,
                num_inference_steps=section.steps,
                guidance_scale=section.guidance_scale,
                generator=seeds,
            ).images
            for i, picture in enumerate(pictures):
                picture.save(target / f"{b}-{i}.png")
            text = clip.encode_text(tokenize([brief.replace("{token}", manifest.initializer)]).to(pipe.device))
            features = embed(pictures)
            (features @ references.T).mean(dim=1) + features @ (text / text.norm(dim=-1, keepdim=True))[0]
            made += len(pictures)
    return _row("stock pipeline and open_clip, one brief at a time", made, began)


def ours(workspace: Workspace, params: Params) -> Row:
    models = Models(params, workspace.root)
    _ = models.generator, models.ranker
    began = clock()
    outcomes = [*stages.generate(workspace, params, force=True), *stages.rank(workspace, params, force=True)]
    made = len(list(workspace.artifacts.glob("candidates/*/*.png")))
    row = _row(f"ours, precision {params.generator.precision}", made, began)
    if lost := [outcome for outcome in outcomes if not outcome.ok]:
        raise RuntimeError(f"lost: {lost}")
    return row


def clock() -> tuple[float, float]:
    """Wall and processor seconds: the latter say more where others use the machine as well."""
    return time.perf_counter(), time.process_time()


def _row(name: str, made: int, began: tuple[float, float]) -> Row:
    seconds, busy = (now - then for now, then in zip(clock(), began, strict=True))
    return {"way": name, "candidates": made, "seconds": seconds, "CPU seconds": busy, "candidates a second": made / seconds}


if __name__ == "__main__":
    main()
