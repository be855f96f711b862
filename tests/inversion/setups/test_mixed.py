"""Concepts of different setups in one pass: company, growth, and the end of the process at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from tests.generators.tiny_stable_diffusion import load_tiny
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from tests.inversion.setups.conftest import Mixed
from tests.inversion.test_train import Killed
from ti_pipeline.generators.generator import Condition, Generator, Ids
from ti_pipeline.inversion.checkpoint import read_checkpoint
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.job import Job
from ti_pipeline.inversion.readings import Readings
from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject
from ti_pipeline.inversion.state import Trained
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import Workspace

pytestmark = pytest.mark.slow

Mix = Callable[..., Mixed]
GROWS = ("setup=progressive", "setups.progressive.grow_at=[3, 5]", "steps=8")
THREE = {
    "mug": ("vectors=2", "steps=6", "clip_gradient=0.5"),
    "jug": (*GROWS, "clip_gradient=0.5"),
    "cup": ("setup=regularised", "setups.regularised.weight=0.3", "steps=7", "clip_gradient=0.5"),
}
FOUR = THREE | {"ink": ("setup=progressive", "setups.progressive.grow_at=[2]", "steps=5", "clip_gradient=0.5")}
LATER = {
    "mug": ("setup=direction", "vectors=2", "steps=6", "learning_rate=0.05", "setups.direction.kappa=0.01"),
    "jug": ("setup=direction+per_image", "steps=8", "learning_rate=0.02", "clip_gradient=0.5"),
    "cup": ("setup=per_image+encoder_start", "setups.encoder_start.weight=0.01", "steps=7", "weight_decay=0"),
    "ink": ("setup=per_image+progressive", "setups.progressive.grow_at=[2]", "steps=5", "schedule=constant"),
    "fig": ("steps=4", "weight_decay=0.5"),
}
SEEN = {
    "mug": ("setup=clip_start", "setups.clip_start.steps=3", "steps=4"),
    "jug": ("setup=clip_start+direction", "setups.clip_start.steps=5", "steps=4", "learning_rate=0.05"),
}
MIXES = {"paper": FOUR, "later": LATER, "seen": SEEN}


def rows_of(trained: Mapping[str, Trained]) -> dict[str, dict[str, torch.Tensor]]:
    return {slug: dict(each.word.rows) for slug, each in trained.items()}


def bits(trained: Mapping[str, Trained]) -> dict[str, tuple]:
    return {
        slug: (*((name, rows.numpy().tobytes()) for name, rows in each.word.rows.items()), str(each.log)) for slug, each in trained.items()
    }


def alike(ours: torch.Tensor, theirs: torch.Tensor, start: torch.Tensor) -> float:
    moved, expected = (each.flatten() - start.flatten() for each in (ours, theirs))
    return F.cosine_similarity(moved, expected, dim=0).item()


def start_of(job: Job, length: int) -> torch.Tensor:
    """Where a word of that length has started, with the rows that joined later."""
    return torch.cat([job.one.leaves[ONLY], job.subject.rows(length)[ONLY][len(job.one.leaves[ONLY]) :]])


@pytest.mark.parametrize(
    ("name", "lengths"),
    [("paper", {"mug": 2, "jug": 3, "cup": 1, "ink": 2}), ("later", {"mug": 2, "jug": 1, "cup": 1, "ink": 2, "fig": 1})],
)
def test_what_a_concept_learns_is_what_it_learns_alone(mix: Mix, tmp_path: Path, name: str, lengths: dict[str, int]) -> None:
    mixed = mix(**MIXES[name])
    together = rows_of(mixed.run(pack=3))
    assert {slug: len(rows[ONLY]) for slug, rows in together.items()} == lengths
    for slug in lengths:
        mixed.checkpoint, mixed.trained = tmp_path / slug, {}
        alone = mixed.run((slug,))[slug].word.rows[ONLY]
        assert alike(together[slug][ONLY], alone, start_of(mixed.job(slug), len(alone))) > 0.9999


def test_two_text_encoders_learn_each_their_rows(mix: Mix, tmp_path: Path) -> None:
    mixed = mix(**THREE)
    mixed.generator = load_tiny(write_xl(tmp_path / "xl"))
    together = rows_of(mixed.run())
    shapes = {slug: {name: tuple(rows.shape) for name, rows in of.items()} for slug, of in together.items()}
    assert shapes == {slug: {"clip_l": (n, 32), "clip_g": (n, 48)} for slug, n in (("mug", 2), ("jug", 3), ("cup", 1))}
    for slug in THREE:
        mixed.checkpoint, mixed.trained = tmp_path / slug, {}
        alone = mixed.run((slug,))[slug].word.rows
        start = mixed.job(slug).subject.rows(len(alone["clip_l"]))
        for encoder, rows in alone.items():
            assert alike(together[slug][encoder], rows, start[encoder]) > 0.9999
            assert (rows != start[encoder]).any(dim=1).all()


@pytest.mark.parametrize(
    ("name", "stop_at", "every"),
    [
        ("paper", 2, 1),
        ("paper", 3, 1),
        ("paper", 4, 1),
        ("paper", 5, 3),
        ("paper", 6, 3),
        ("paper", 9, 1),
        ("later", 3, 1),
        ("later", 7, 3),
    ],
)
def test_stopped_after_any_step_it_ends_in_the_same_bits(mix: Mix, tmp_path: Path, name: str, stop_at: int, every: int) -> None:
    looks = (f"checkpoint_every={every}", "early_stopping=dvar", "evaluate_every=1", "stop_window=1000")
    several = {slug: (*own, *looks, f"evaluate_samples={2 + i % 2}") for i, (slug, own) in enumerate(MIXES[name].items())}
    mixed = mix(**several)
    whole = bits(mixed.run())
    mixed.checkpoint, mixed.trained = tmp_path / "again", {}
    with pytest.raises(Killed):
        mixed.run(stop_at=stop_at)
    saved = read_checkpoint(mixed.checkpoint)
    assert saved and mixed.checkpoint.stat().st_size < 20000
    lengths = {each.concept: (each.state.step, *map(len, each.learning.one.leaves.values())) for each in saved.seats}
    if "jug" in lengths and name == "paper":
        step, length = lengths["jug"]
        assert length == 1 + (step >= 3) + (step >= 5) == saved.seats[1].learning.one.lengths["<jug>"]
    again = {each.concept for each in saved.seats} | (several.keys() - mixed.trained.keys())
    assert bits(mixed.run(tuple(slug for slug in several if slug in again))) == whole


def test_a_word_of_no_steps_is_where_it_starts(mix: Mix, tmp_path: Path) -> None:
    looks = ("early_stopping=dvar", "evaluate_every=1", "evaluate_samples=2")
    mixed = mix(mug=("steps=0", "vectors=2", *looks), cup=("steps=3", *looks), jug=("steps=0", "setup=encoder_start"))
    trained = mixed.run()
    for slug in ("mug", "jug"):
        assert torch.equal(trained[slug].word.rows[ONLY], mixed.job(slug).one.leaves[ONLY])
        assert (trained[slug].log, trained[slug].steps, trained[slug].chosen) == ([], 0, 0)
    assert trained["cup"].steps == 3
    mixed.checkpoint, mixed.trained = tmp_path / "alone", {}
    assert mixed.run(("mug",)).keys() == {"mug"} and not mixed.checkpoint.exists()


def test_when_numbers_are_read_changes_no_result(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is asked only now and then, so a word may have grown, and gone on after its end, before anybody knows."""
    looks = ("early_stopping=dvar", "evaluate_every=1", "stop_window=2", "stop_ratio=0.9", "learning_rate=0.05", "steps=12")
    mixed = mix(**{slug: (*own, *looks, "checkpoint_every=100") for slug, own in FOUR.items()})
    at_once = dict(mixed.run(pack=2))
    monkeypatch.setattr(Readings, "due", property(lambda self: len(self._steps) >= 5))
    mixed.checkpoint, mixed.trained = mixed.checkpoint.with_name("later"), {}
    for slug, later in mixed.run(pack=2).items():
        assert (later.steps, later.chosen, later.why) == (at_once[slug].steps, at_once[slug].chosen, at_once[slug].why)
        ours, theirs = later.word.rows[ONLY], at_once[slug].word.rows[ONLY]
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99999
    assert any(each.steps < 12 for each in at_once.values()) and any(each.chosen < each.steps for each in at_once.values())


def test_a_word_that_was_better_before_it_grew_is_kept_as_it_was(mix: Mix) -> None:
    """At this rate the new row breaks what the first has learnt."""
    looks = ("early_stopping=dvar", "evaluate_every=1", "evaluate_samples=4", "stop_window=1000", "schedule=constant")
    mixed = mix(mug=("setup=progressive", "setups.progressive.grow_at=[3]", "steps=8", "learning_rate=0.3", *looks))
    trained = mixed.run()["mug"]
    losses = {row["step"]: row["evaluation"] for row in trained.log}
    assert losses[trained.chosen] == min(losses.values())
    assert len(trained.word) == (1 if trained.chosen <= 3 else 2)
    mixed = mix(mug=("steps=8", "learning_rate=0.3", *looks))
    never = {row["step"]: row["evaluation"] for row in mixed.run()["mug"].log}
    assert [losses[step] == never[step] for step in (1, 2, 3, 4)] == [True, True, True, False]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from tests.generators.tiny_stable_diffusion import load_tiny
from tests.inversion.conftest import SETTINGS, SMALL
from tests.inversion.setups.test_mixed import MIXES
from ti_pipeline import params
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.inversion.job import Waiting, prepare_job
from ti_pipeline.inversion.setups.setup import Subject
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.inversion.train import train_pack
from ti_pipeline.sight.ranker import load_ranker
from ti_pipeline.workspace import Workspace

torch.set_num_threads(1)
several = MIXES[sys.argv[5]]
generator, workspace, end = load_tiny(Path(sys.argv[2])), Workspace.at(Path(sys.argv[1]), "concepts"), int(sys.argv[4])

def settings(slug):
    return params.load(SETTINGS, (*SMALL, "train.checkpoint_every=1", "train.pack=3", *(f"train.{each}" for each in several[slug]))).train

def job(slug):
    subject = Subject(generator, read_manifest(workspace, slug), settings(slug), "mug", Streams(0, slug), sight)
    return prepare_job(subject, generator.arithmetic)

def sight():
    return load_ranker(params.Ranker(model=sys.argv[6], pretrained=None, likeness="clip", dino=None), "cpu")

def progress(done, total, text):
    if done == end:
        os.kill(os.getpid(), signal.SIGKILL)

waiting = [Waiting(slug, settings(slug).steps, slug, lambda slug=slug: job(slug)) for slug in several]
list(train_pack(generator, waiting, settings("mug"), Path(sys.argv[3]), progress))
"""


def kill(scratch: Path, workspace: Workspace, folder: Path, mixed: Mixed, order: tuple[str, ...]) -> None:
    """Train the concepts of `mixed` in a process that ends with SIGKILL. The order: after how many steps, the mix, the ranker."""
    script, root = scratch / "script.py", Path(__file__).parents[3]
    script.write_text(KILLED)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, str(script), str(workspace.root), str(folder), str(mixed.checkpoint), *order]
    assert subprocess.run(command, env=environment, check=False, timeout=300).returncode == -signal.SIGKILL


@pytest.mark.parametrize(("name", "grown"), [("paper", [(2, 1), (3, 2)]), ("later", [(2, 1), (3, 1)])])
def test_killed_for_real_around_a_growth_it_ends_in_the_same_bits(
    mix: Mix, folder: Path, workspace: Workspace, tmp_path: Path, name: str, grown: list[tuple[int, int]]
) -> None:
    """SIGKILL after the step with which a word grows, before that is saved, and one step later."""
    mixed = mix(**{slug: (*own, "checkpoint_every=1") for slug, own in MIXES[name].items()})
    whole = bits(mixed.run())
    mixed.checkpoint, mixed.trained = tmp_path / "killed.safetensors", {}
    lengths = []
    for end in (9, 12):  # three concepts take a step
        kill(tmp_path, workspace, folder, mixed, (str(end), name))
        saved = read_checkpoint(mixed.checkpoint)
        assert saved
        lengths += [(each.state.step, len(each.learning.one.leaves[ONLY])) for each in saved.seats if each.concept == "jug"]
    assert lengths == grown
    assert bits(mixed.run()) == whole
    assert mixed.trained["jug"].resumed_from == 3


class Bent(Setup):
    """Rows bent by a matrix of low rank, v (1 + B A): leaves of other shapes, which reach the word only through a product."""

    CHANGES: ClassVar[frozenset[str]] = frozenset({"condition"})

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        width = one.leaves[ONLY].shape[1]
        a, b = subject.streams.normal("a", 0, (2, width)) / width, torch.zeros(width, 2)
        return replace(one, leaves={**one.leaves, "a": a, "b": b})

    @staticmethod
    def condition(generator: Generator, ids: Ids, group: Group) -> Condition:
        v, a, b = (group.leaves[name] for name in (ONLY, "a", "b"))
        return generator.condition(ids, {ONLY: (v + v @ b @ a).flatten(0, 1)})

    def word(self, subject: Subject, word: Word, leaves: Mapping[str, torch.Tensor]) -> Word:
        return replace(word, adapters={"a": leaves["a"], "b": leaves["b"]})


class Split(Bent):
    """Bent from its fourth step on, when it forgets the row that it had in between."""

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        one = super().begin(subject, one)
        return replace(one, leaves={**one.leaves, "a": one.leaves["a"][:1], "b": one.leaves["b"][:, :1]})

    def after(self, subject: Subject, one: Learnable, step: int) -> Learnable:
        if step != 4:
            return one
        whole = super().begin(subject, replace(one, leaves={ONLY: one.leaves[ONLY]})).leaves
        wider = {"a": torch.cat([one.leaves["a"], whole["a"][1:]]), "b": F.pad(one.leaves["b"], (0, 1))}
        return replace(one, leaves={**one.leaves, **wider})


def learnt(trained: Trained) -> dict[str, torch.Tensor]:
    return {**trained.word.rows, **trained.word.adapters}


def test_leaves_of_any_shape_in_company(mix: Mix, tmp_path: Path) -> None:
    bent = {"fork": ("vectors=2", "steps=6", "clip_gradient=0.5"), "spoon": ("steps=6", "clip_gradient=0.5")}
    mixed = mix(**{slug: (THREE | bent)[slug] for slug in ("mug", "fork", "jug", "spoon", "cup")})
    for slug, setup in (("fork", Bent()), ("spoon", Split())):
        mixed.trains[slug] = mixed.trains[slug].model_copy(update={"setup": "x", "setups": SimpleNamespace(x=setup)})
    mixed.checkpoint = tmp_path / "killed"
    with pytest.raises(Killed):
        mixed.run(pack=5, stop_at=5)
    resumed = {slug: learnt(each) for slug, each in mixed.run(pack=5).items()}
    mixed.checkpoint, mixed.trained = tmp_path / "whole", {}
    together = {slug: learnt(each) for slug, each in mixed.run(pack=5).items()}
    losses = {slug: [row["loss"] for row in each.log] for slug, each in mixed.trained.items()}
    shapes = {slug: {name: tuple(leaf.shape) for name, leaf in rows.items()} for slug, rows in together.items()}
    assert shapes["fork"] == {ONLY: (2, 32), "a": (2, 32), "b": (32, 2)} and shapes["spoon"] == {ONLY: (1, 32), "a": (2, 32), "b": (32, 2)}
    assert all(torch.equal(resumed[slug][name], leaf) for slug, rows in together.items() for name, leaf in rows.items())
    for slug in ("mug", "fork", "spoon"):
        mixed.checkpoint, mixed.trained = tmp_path / slug, {}
        alone, start = learnt(mixed.run((slug,))[slug]), mixed.job(slug).one.leaves
        assert [row["loss"] for row in mixed.trained[slug].log] == pytest.approx(losses[slug], rel=1e-4)
        for name, leaf in alone.items():
            begun = torch.zeros(leaf.shape)
            begun[tuple(map(slice, start[name].shape))] = start[name]
            assert alike(together[slug][name], leaf, begun) > 0.9999


def test_prompts_of_a_setup_itself_are_read_to_their_end(mix: Mix) -> None:
    class Talks(Setup):
        def begin(self, subject: Subject, one: Learnable) -> Learnable:
            return replace(one, prompts=[["very " * 75 + prompt for prompt in said] for said in one.prompts])

    mixed = mix(mug=("steps=2",), cup=("steps=2",))
    mixed.trains["cup"] = mixed.trains["cup"].model_copy(update={"setup": "x", "setups": SimpleNamespace(x=Talks())})
    assert mixed.run().keys() == {"mug"} and "so the learnt word would be cut off" in mixed.lost["cup"]


def test_one_that_breaks_down_leaves_the_others_alone(mix: Mix) -> None:
    class Broken(Setup):
        def penalty(self, generator: Generator, group: Group, draws: Draws) -> torch.Tensor | None:
            return group.leaves[ONLY].sum(dim=(1, 2)) * float("nan")

    mixed = mix(**THREE, ink=("steps=3",))
    mixed.trains["ink"] = mixed.trains["ink"].model_copy(update={"setup": "x", "setups": SimpleNamespace(x=Broken())})
    left = rows_of(mixed.run(pack=4))
    assert "training broke down at step 1" in mixed.lost["ink"] and "gradient nan" in mixed.lost["ink"]
    mixed.checkpoint, mixed.trained = mixed.checkpoint.with_name("without"), {}
    without = rows_of(mixed.run(tuple(THREE)))
    assert left.keys() == without.keys() == THREE.keys()
    for slug, rows in without.items():
        assert F.cosine_similarity(left[slug][ONLY].flatten(), rows[ONLY].flatten(), dim=0) > 0.99999
