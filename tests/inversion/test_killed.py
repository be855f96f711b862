"""SIGKILL, and a new process: the files of every family's words, and of masked pictures that are no squares, as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import write_folder
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from tests.inversion.conftest import SETTINGS, SMALL
from ti_pipeline import params
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import write_manifest
from ti_pipeline.concepts.validation import validate_concept
from ti_pipeline.files import digest_file
from ti_pipeline.workspace import Workspace

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SIZES = {"mug": [(96, 72), (72, 96)], "cup": [(96, 72), (80, 80)], "jug": [(120, 48), (64, 64)]}
GROWS = ("train.setup=progressive", "train.setups.progressive.grow_at=[2]", "train.clip_gradient=0.01", "train.masks=none")
SHAPED = ("train.fit=buckets", "train.gradient_accumulation=2")
CASES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "sd-masks-and-buckets": (write_folder, (*SHAPED, "train.min_snr=5", "train.noise_offset=0.1")),
    "flux-masks-and-buckets": (write_flux, SHAPED),
    "xl": (write_xl, GROWS),
    "sd3": (write_stable_diffusion_3, GROWS),
    "flux": (write_flux, (*GROWS, "generator.encoders=[clip_l, t5]")),
    "ldm": (write_ldm, GROWS),
    "sana": (write_sana, GROWS),
    "z-image": (write_z_image, GROWS),
    "qwen-image": (write_qwen_image, GROWS),
}
Order = Callable[..., int]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three validated concepts; one picture of each has a mask."""
    root = tmp_path_factory.mktemp("collection")
    workspace, checks = Workspace.at(root, "concepts"), params.load(SETTINGS).validate_
    for slug, sizes in SIZES.items():
        (folder := workspace.concepts / slug).mkdir(parents=True)
        for i, size in enumerate(sizes):
            pixels = np.random.default_rng([i, ord(slug[0])]).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        mask = Image.new("L", sizes[0])
        mask.paste(255, (0, 0, sizes[0][0] // 2, sizes[0][1]))
        mask.save(folder / "0-mask.png")
        (folder / "concept.yaml").write_text("initializer: red mug\n")
        concept = load_concept(folder)
        write_manifest(workspace, concept, validate_concept(concept, checks, None), checks.background, "any")
    return root


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    """Has the words of a workspace learnt in a process of its own, which may kill itself; its exit status."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.inversion.forking"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    stdin, stdout = process.stdin, process.stdout

    def give(root: Path, sets: list[str], kill: tuple[str, int] | None = None) -> int:
        stdin.write(json.dumps({"root": str(root), "set": sets, "kill": kill}) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    assert json.loads(stdout.readline()) == "ready"
    try:
        yield give
    finally:
        stdin.close()
        process.wait(60)


def learnt(root: Path) -> dict[str, str]:
    files = sorted((root / "artifacts" / "embeddings").glob("*/[!.]*"))
    return {f"{file.parent.name}/{file.name}": digest_file(file) for file in files}


def checkpoints(root: Path) -> dict[str, str]:
    return {file.name: digest_file(file) for file in (root / "artifacts" / "checkpoints").glob("pack-*")}


@pytest.mark.parametrize("case", CASES)
def test_killed_for_real_and_begun_anew_it_ends_in_the_same_bytes(case: str, order: Order, collection: Path, tmp_path: Path) -> None:
    """Once while a checkpoint is written, once two steps after one: three concepts in two seats, of which one waits for the others."""
    write, how = CASES[case]
    sets = [*SMALL, f"generator.model={write(tmp_path / 'model')}", "train.pack=2", "train.flip=true", *how]
    whole, killed = (Path(shutil.copytree(collection, tmp_path / name)) for name in ("whole", "killed"))
    assert order(whole, sets) == 0
    expected = learnt(whole)
    assert len(expected) == 2 * len(SIZES) and not checkpoints(whole)

    assert order(killed, sets, ("checkpoint", 2)) == -signal.SIGKILL
    first = checkpoints(killed)
    assert len(first) == 1 and not learnt(killed)
    assert len(list((killed / "artifacts" / "checkpoints").glob(".pack-*"))) == 1  # whole, and without its name
    assert order(killed, sets, ("step", 15)) == -signal.SIGKILL
    assert checkpoints(killed).keys() == first.keys() and checkpoints(killed) != first and len(learnt(killed)) == 4
    assert order(killed, sets) == 0
    assert learnt(killed) == expected and not checkpoints(killed)
