"""What the worked examples share: words that are learnt in a workspace of theirs, pictures by seed, and a sheet of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ti_pipeline.evaluation.metrics import Estimate, alike, mean_estimate
from ti_pipeline.models import Models
from ti_pipeline.params import Params, load
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE
from ti_pipeline.terminal import progress
from ti_pipeline.words.learnt import load_own
from ti_pipeline.words.word import Word
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).parent.parent
GAP = 4  # pixels between the rows of a sheet


@dataclass(frozen=True)
class Lab:
    """A workspace for one example. What it has learnt stands there, so a second run only draws."""

    workspace: Workspace
    params: Params

    @classmethod
    def open(cls, name: str, concepts: Path, overrides: Sequence[str] = ()) -> Lab:
        """From the command line: `--workspace DIR`, and `--set section.key=value` as in `ti-pipeline`."""
        parser = argparse.ArgumentParser(prog=f"python -m examples.{name}")
        parser.add_argument("--workspace", type=Path, default=ROOT / "build" / "examples" / name, metavar="DIR")
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        called = parser.parse_args()
        called.workspace.mkdir(parents=True, exist_ok=True)
        params = load(ROOT / "params.yaml", [f"concepts.folder={concepts}", *overrides, *called.set])
        return cls(Workspace.at(called.workspace, str(concepts)), params)

    @property
    def models(self) -> Models:
        return Models(self.params, self.workspace.root)

    def learn(self, *concepts: str) -> list[Word]:
        """The words of folders of pictures."""
        for stage in (VALIDATE, TRAIN):
            with progress(stage.name) as step:
                outcomes = run_stage(stage, Run.over(self.workspace, self.params, concepts, report=step))
            if lost := [f"{outcome.concept}: {outcome.reason}" for outcome in outcomes if not outcome.ok]:
                raise SystemExit("\n".join(lost))
        return [load_own(self.workspace, concept, f"<{concept}>", None) for concept in concepts]

    def draw(self, prompt: str, words: Sequence[Word], count: int) -> list[Image.Image]:
        """`count` pictures of a prompt with those words in it, of the seeds 0, 1, …: the same seeds for every prompt."""
        section = self.params.generate
        size = 16 if section.batch_size == "auto" else section.batch_size
        settings = Settings(section.solver, section.steps, section.guidance_scale, section.negative_prompt, size)
        by_token = {word.token: word for word in words}
        return [picture for _, picture in sample(self.models.generator, [prompt] * count, by_token, range(count), settings)]

    def shown(self, concept: str) -> list[Image.Image]:
        """The pictures that a word was learnt from."""
        folder = self.workspace.concepts / concept
        return [Image.open(path).convert("RGB") for path in sorted(folder.iterdir()) if path.suffix in (".png", ".webp")]

    def likeness(self, pictures: Sequence[Image.Image], concept: str) -> Estimate:
        """The judge's mean cosine between pictures and those of a concept, with its 95 % interval."""
        judge = self.models.judge
        return mean_estimate(alike(judge.images(list(pictures)), judge.images(self.shown(concept))), 2000, np.random.default_rng(0))

    def save(self, name: str, rows: Sequence[Sequence[Image.Image]]) -> Path:
        """A sheet of pictures, row by row, beside the workspace's artifacts."""
        edge = self.models.generator.resolution
        sheet = Image.new("RGB", (max(map(len, rows)) * edge, len(rows) * (edge + GAP) - GAP), "white")
        for r, row in enumerate(rows):
            for c, picture in enumerate(row):
                sheet.paste(picture.resize((edge, edge), Image.Resampling.LANCZOS), (c * edge, r * (edge + GAP)))
        path = self.workspace.root / f"{name}.png"
        sheet.save(path)
        return path


def told(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
