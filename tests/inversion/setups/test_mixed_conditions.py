"""Concepts in one pass that are conditioned in different ways: a vector a layer, context prompts, plain words between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from tests.inversion.setups.conftest import Mixed
from tests.inversion.setups.test_mixed import KILLED, alike
from tests.inversion.test_train import Killed
from ti_pipeline.inversion.checkpoint import read_checkpoint
from ti_pipeline.inversion.state import Trained
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

Mix = Callable[..., Mixed]
CLIPPED, ASKED = "clip_gradient=0.5", ("setups.context.weight=0.5", "setups.context.attention=20")
MIXED = {
    "mug": ("vectors=2", "steps=4", CLIPPED),
    "jug": ("setup=layered+progressive", "setups.progressive.grow_at=[1, 3]", "steps=5", CLIPPED),
    "cup": ("setup=context+regularised", *ASKED, "vectors=2", "steps=4", CLIPPED),
    "ink": ("setup=context+layered", *ASKED, "steps=3", CLIPPED),
    "pen": ("setup=context+progressive", *ASKED, "setups.progressive.grow_at=[1]", "steps=3", CLIPPED),
}


def learnt(trained: Trained) -> torch.Tensor:
    """[layers, n, d]; of a plain word one layer."""
    word = trained.word
    return word.layers.get(ONLY, word.rows[ONLY][None])


def bits(trained: Mapping[str, Trained]) -> dict[str, tuple]:
    return {slug: (learnt(each).numpy().tobytes(), str(each.log)) for slug, each in trained.items()}


def test_what_a_concept_learns_is_what_it_learns_alone(mix: Mix, tmp_path: Path) -> None:
    mixed = mix(**MIXED)
    together = {slug: learnt(each) for slug, each in mixed.run(pack=4).items()}
    assert {slug: rows.shape[:2] for slug, rows in together.items()} == {
        "mug": (1, 2),
        "jug": (16, 3),
        "cup": (1, 2),
        "ink": (16, 1),
        "pen": (1, 2),
    }
    for slug in MIXED:
        mixed.checkpoint, mixed.trained = tmp_path / slug, {}
        alone, start = learnt(mixed.run((slug,))[slug]), mixed.job(slug).subject.rows(together[slug].shape[1])[ONLY]
        assert alike(together[slug], alone, start.expand_as(alone)) > 0.9999


@pytest.mark.parametrize(("stop_at", "every"), [(3, 1), (5, 2)])
def test_stopped_after_any_step_it_ends_in_the_same_bits(mix: Mix, tmp_path: Path, stop_at: int, every: int) -> None:
    looks = (f"checkpoint_every={every}", "early_stopping=dvar", "evaluate_every=1", "evaluate_samples=2", "stop_window=1000")
    mixed = mix(**{slug: (*own, *looks) for slug, own in MIXED.items()})
    whole = bits(mixed.run())
    mixed.checkpoint, mixed.trained = tmp_path / "again", {}
    with pytest.raises(Killed):
        mixed.run(stop_at=stop_at)
    saved = read_checkpoint(mixed.checkpoint)
    assert saved and mixed.checkpoint.stat().st_size < 65536
    again = {each.concept for each in saved.seats} | (MIXED.keys() - mixed.trained.keys())
    assert bits(mixed.run(tuple(slug for slug in MIXED if slug in again))) == whole


def test_killed_for_real_it_ends_in_the_same_bits(mix: Mix, folder: Path, workspace: Workspace, tmp_path: Path) -> None:
    mixed = mix(**{slug: (*own, "checkpoint_every=1") for slug, own in MIXED.items()})
    whole = bits(mixed.run())
    mixed.checkpoint, mixed.trained = tmp_path / "killed.safetensors", {}
    script, root = tmp_path / "script.py", Path(__file__).parents[3]
    script.write_text(
        KILLED.replace("MIXES[sys.argv[5]]", "MIXED").replace("test_mixed import MIXES", "test_mixed_conditions import MIXED")
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, str(script), str(workspace.root), str(folder), str(mixed.checkpoint), "9"]  # three concepts take a step
    assert subprocess.run(command, env=environment, check=False, timeout=300).returncode == -signal.SIGKILL
    assert bits(mixed.run()) == whole
    assert mixed.trained["jug"].resumed_from == 2
