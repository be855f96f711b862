"""Many concepts in one pass: company, filling, alarms, memory, and the end of the process at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.inversion.one_concept import job_of, train_concept
from tests.inversion.test_train import Killed
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, OutOfMemory, out_of_memory
from ti_pipeline.files import digest_file
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion import capacity
from ti_pipeline.inversion.capacity import largest_pack
from ti_pipeline.inversion.checkpoint import read_checkpoint
from ti_pipeline.inversion.job import Job, Waiting
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.pack import losses_and_gradient, losses_only
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.train import train_pack
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")
Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
ABOUT = {"mug": (6, 1), "cup": (3, 2), "jug": (9, 3), "ink": (5, 1)}  # steps, vectors


@dataclass
class Collection:
    """Four concepts that differ in steps, vectors, kind and pictures."""

    generator: Generator
    manifests: dict[str, Manifest]
    settings: params.Params
    checkpoint: Path
    trained: dict[str, Trained] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    widths: list[int] = field(default_factory=list)

    def train(self, slug: str) -> params.Train:
        steps, vectors = ABOUT[slug]
        return self.settings.train.model_copy(update={"steps": steps, "vectors": vectors})

    def job(self, slug: str) -> Job:
        return job_of(self.generator, self.manifests[slug], self.train(slug), 0, "mug")

    def run(self, pack: int | str = 2, stop_at: int | None = None, only: tuple[str, ...] = tuple(ABOUT)) -> dict[str, bytes]:
        waiting = [Waiting(slug, ABOUT[slug][0], slug, lambda slug=slug: self.job(slug)) for slug in only]
        calls = 0

        def progress(done: int, total: int, text: str) -> None:
            nonlocal calls
            calls += 1
            self.widths.append(int(text.split(" concepts")[0]) if "concepts" in text else 1)
            if calls == stop_at:
                raise Killed

        train = self.settings.train.model_copy(update={"pack": pack})
        for ended in train_pack(self.generator, waiting, train, self.checkpoint, progress=progress):
            if ended.error:
                self.lost[ended.concept] = str(ended.error)
            else:
                self.trained[ended.concept] = ended.trained
        return {slug: result.word.rows[ONLY].numpy().tobytes() for slug, result in self.trained.items()}


@pytest.fixture
def collection(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> Collection:
    kinds = {slug: validated(slug, f"kind: {'style' if slug == 'ink' else 'object'}\n", hue=i) for i, slug in enumerate(ABOUT)}
    chosen = settings("train.clip_gradient=0.5", "train.schedule=cosine", "train.checkpoint_every=4")
    return Collection(generator, kinds, chosen, tmp_path / "pack.safetensors")


def test_what_a_concept_learns_is_what_it_learns_alone(collection: Collection, tmp_path: Path) -> None:
    collection.run(pack=3)
    assert collection.lost == {} and collection.trained.keys() == ABOUT.keys()
    for slug, manifest in collection.manifests.items():
        alone = train_concept(collection.generator, manifest, collection.train(slug), 0, checkpoint=tmp_path / "alone", initializer="mug")
        vectors, theirs = collection.trained[slug].word.rows[ONLY], alone.word.rows[ONLY]
        assert vectors.shape == theirs.shape == (ABOUT[slug][1], 32)
        moved, expected = (each - collection.job(slug).one.leaves[ONLY] for each in (vectors, theirs))
        assert F.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.9999
        assert [row["step"] for row in collection.trained[slug].log] == list(range(1, ABOUT[slug][0] + 1))


def test_a_free_place_is_taken_at_the_next_step(collection: Collection) -> None:
    collection.run(pack=2)
    # mug 6 with cup 3, then jug 9 in its place; then ink 5 behind jug, and jug's last step alone
    assert collection.widths == [2] * 11 + [1]


@pytest.mark.parametrize("stop_at", [2, 5, 10])
def test_stopped_after_any_step_it_ends_in_the_same_bits(collection: Collection, tmp_path: Path, stop_at: int) -> None:
    whole = Collection(collection.generator, collection.manifests, collection.settings, tmp_path / "undisturbed").run()
    with pytest.raises(Killed):
        collection.run(stop_at=stop_at)
    left = tuple(slug for slug in ABOUT if slug not in collection.trained)
    saved = read_checkpoint(collection.checkpoint)
    again = {*left, *(each.concept for each in saved.seats)} if saved else set(ABOUT)
    assert collection.run(only=tuple(slug for slug in ABOUT if slug in again)) == whole
    if stop_at >= 4:
        assert any(result.resumed_from for result in collection.trained.values())
        assert collection.checkpoint.stat().st_size < 8192


def test_one_that_fails_leaves_its_place_and_the_others_as_they_are(collection: Collection, tmp_path: Path) -> None:
    whole = Collection(collection.generator, collection.manifests, collection.settings, tmp_path / "undisturbed").run(pack=4)
    job = collection.job
    broken = job("cup")
    broken.learner.posteriors.sizes[0].mean.fill_(float("nan"))
    missing = ConceptError("jug", "0.png has changed")

    def prepare(slug: str) -> Job:
        if slug == "jug":
            raise missing
        return broken if slug == "cup" else job(slug)

    collection.job = prepare
    left = collection.run(pack=4)
    assert "training broke down at step 1" in collection.lost["cup"] and collection.lost["jug"] == str(missing)
    assert left.keys() == {"mug", "ink"}
    for slug in left:
        ours, theirs = (torch.frombuffer(bytearray(each[slug]), dtype=torch.float32) for each in (left, whole))
        assert F.cosine_similarity(ours, theirs, dim=0) > 0.99999


def test_a_failure_before_the_kill_is_told_again_and_not_tried(collection: Collection) -> None:
    prepared = []
    job = collection.job

    def prepare(slug: str) -> Job:
        prepared.append(slug)
        if slug == "mug":
            raise ConceptError("mug", "a picture is gone")
        return job(slug)

    collection.job = prepare
    with pytest.raises(Killed):
        collection.run(stop_at=5)
    prepared.clear()
    collection.lost.clear()
    collection.run()
    assert "mug" not in prepared and collection.lost == {"mug": "mug: a picture is gone"}


def test_a_full_device_halves_the_pack_and_loses_nothing(collection: Collection, tmp_path: Path) -> None:
    whole = Collection(collection.generator, collection.manifests, collection.settings, tmp_path / "undisturbed").run(pack=4)
    passes = []

    def only_so_much(module: torch.nn.Module, args: tuple) -> None:
        passes.append(len(args[0]))
        if len(args[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = collection.generator.unet.register_forward_pre_hook(only_so_much)
    try:
        halved = collection.run(pack=4)
    finally:
        hook.remove()
    assert passes[:2] == [8, 4] and max(passes[1:]) == 4 and collection.lost == {}
    for slug in ABOUT:
        ours, theirs = (torch.frombuffer(bytearray(each[slug]), dtype=torch.float32) for each in (halved, whole))
        assert F.cosine_similarity(ours, theirs, dim=0) > 0.99999


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_one_that_needs_more_memory_than_there_is_fails_alone(collection: Collection) -> None:
    """Once it may have been its company's fault; made ready with nothing beside it, it is its own."""
    job, tried = collection.job, []

    def prepare(slug: str) -> Job:
        tried.append(slug)
        if slug == "jug" or tried.count("ink") == 1 and slug == "ink":
            raise FULL
        return job(slug)

    collection.job = prepare
    assert collection.run(pack=2).keys() == {"mug", "cup", "ink"}
    assert (tried.count("jug"), tried.count("ink")) == (2, 2)
    assert collection.lost.keys() == {"jug"} and collection.lost["jug"].startswith("jug: it needs more memory than there is")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_single_concept_is_tried_again_before_the_batch_is_blamed(collection: Collection, failing: int) -> None:
    passes = []

    def full(module: torch.nn.Module, args: tuple) -> None:
        passes.append(len(args[0]))
        if len(passes) in range(3, 3 + failing):
            raise FULL

    hook = collection.generator.unet.register_forward_pre_hook(full)
    try:
        if failing == 1:
            assert collection.run(pack=1).keys() == ABOUT.keys()
        else:
            with pytest.raises(OutOfMemory, match=r"single concept .* Lower train.batch_size \(2\)") as error:
                collection.run(pack=1)
            assert out_of_memory(error.value)
    finally:
        hook.remove()
    assert collection.lost == {}


def test_vectors_beyond_any_prompt_are_refused_before_they_are_made(collection: Collection) -> None:
    train = collection.train

    def endless(slug: str) -> params.Train:
        return train(slug).model_copy(update={"vectors": 10**12}) if slug == "cup" else train(slug)

    collection.train = endless
    assert collection.run(pack=2).keys() == {"mug", "jug", "ink"}
    assert "1,000,000,000,000 vectors do not fit" in collection.lost["cup"] and "Set fewer `vectors`" in collection.lost["cup"]


def test_the_size_of_a_pack_is_measured(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def run(concepts: int) -> None:
        held.append(torch.ones(concepts, 16 * 2**20))  # 64 MiB a concept
        held.clear()

    cpu = torch.device("cpu")
    assert largest_pack(cpu, 4, 1000, run) == 24
    assert largest_pack(cpu, 4, 5, run) == 5
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 14 * 64 * 2**20)
    assert largest_pack(cpu, 4, 1000, run) == 8  # 80 % of fourteen, down to a power of two, however the two readings waver
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 10)
    assert largest_pack(cpu, 4, 1000, run) == 1


def test_stopping_keeps_the_best_on_the_evaluation_batch(collection: Collection, settings: Settings) -> None:
    looks = (
        "train.early_stopping=dvar",
        "train.evaluate_every=1",
        "train.evaluate_samples=3",
        "train.learning_rate=0.05",
        "train.schedule=constant",
    )
    collection.settings = settings(*looks, "train.stop_window=2", "train.stop_ratio=0.9")
    collection.run(pack=3)
    stopped = {slug for slug, result in collection.trained.items() if result.steps < ABOUT[slug][0]}
    assert stopped
    for slug, result in collection.trained.items():
        assert ("settled" in result.why) is (slug in stopped)
        losses = {row["step"]: row["evaluation"] for row in result.log}
        assert losses[result.chosen] == min(losses.values()) and max(losses) == result.steps
        job = collection.job(slug)
        found = Learning.begun(replace(job.one, leaves=result.word.rows))
        leaves = Leaves([job.setup], [found], torch.device("cpu"))
        loss = losses_only(collection.generator, leaves, [0], [job.learner.evaluation(3)])
        assert loss.item() == pytest.approx(losses[result.chosen], rel=1e-5)


KILLED = """
import sys
from pathlib import Path
import torch
from ti_pipeline.words.word import ONLY
from ti_pipeline import params
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.workspace import Workspace
torch.set_num_threads(1)
root = Path(sys.argv[1])
settings = params.load(Path(sys.argv[2]), sys.argv[3:])
for outcome in run_stage(TRAIN, Run.over(Workspace.at(root, "concepts"), settings)):
    assert outcome.ok, outcome
"""


def test_killed_for_real_it_ends_in_the_same_bits(folder: Path, workspace: Workspace, validated: Make) -> None:
    """SIGKILL while it works, twice, at moments that nobody chose."""
    slugs, file = ("mug", "cup", "jug"), Path(__file__).parents[2] / "params.yaml"
    for i, slug in enumerate(slugs):
        validated(slug, hue=i)
    sets = [f"generator.model={folder}", "generator.device=cpu", "generator.precision=float32", "train.steps=24", "train.batch_size=1"]
    sets += ["train.pack=2", "train.checkpoint_every=3", "train.early_stopping=dvar", "train.evaluate_every=2", "train.stop_window=16"]
    command = [sys.executable, "-c", KILLED, str(workspace.root), str(file), *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def words() -> dict[str, str]:
        files = sorted(workspace.artifacts.glob("embeddings/*/[!.]*"))
        return {f"{file.parent.name}/{file.name}": digest_file(file) for file in files}

    assert all(outcome.ok for outcome in run_stage(TRAIN, Run.over(workspace, params.load(file, sets))))
    whole = words()
    assert len(whole) == 2 * len(slugs)
    for slug in slugs:
        workspace.embedding(slug).unlink()
        workspace.training(slug).unlink()
    for _ in range(2):
        process, seen = subprocess.Popen(command, env=environment), _checkpoint(workspace)
        while process.poll() is None and _checkpoint(workspace) == seen:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert all(outcome.ok for outcome in run_stage(TRAIN, Run.over(workspace, params.load(file, sets))))
    assert words() == whole
    assert not list((workspace.artifacts / "checkpoints").glob("*.safetensors"))


def _checkpoint(workspace: Workspace) -> list[int]:
    return [path.stat().st_mtime_ns for path in (workspace.artifacts / "checkpoints").glob("pack-*.safetensors")]


def test_the_same_draws_on_the_wider_pack_of_unequal_words(collection: Collection) -> None:
    """Zeros behind a shorter word get no gradient and reach no prompt."""
    generator = collection.generator
    jobs = [collection.job("mug"), collection.job("jug")]
    draws = [job.learner.draw(0, 2) for job in jobs]
    setups, words = [job.setup for job in jobs], [Learning.begun(job.one) for job in jobs]
    losses, of_leaves = losses_and_gradient(generator, Leaves(setups, words, torch.device("cpu")), draws, 1)
    gradient = of_leaves[ONLY]
    assert (gradient[0, 1:] == 0).all() and (gradient[0, 0] != 0).any() and (gradient[1] != 0).any(dim=1).all()
    alone, _ = losses_and_gradient(generator, Leaves(setups[:1], words[:1], torch.device("cpu")), draws[:1], 1)
    torch.testing.assert_close(losses[:1], alone)
