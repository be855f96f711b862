"""A comparison of three setups over two concepts and two seeds, with the embedded models and very few steps."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.generators.tiny_flow import write_flux
from tests.stages.quick import ROOT, quick, run
from ti_pipeline.comparison.cells import Cell, Digests, Files, wanted
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.draw import Studio, sample_seed
from ti_pipeline.evaluation.metrics import alike, editability
from ti_pipeline.files import digest_file, digest_value
from ti_pipeline.inversion.job import VERSION as TRAINING
from ti_pipeline.params import Params
from ti_pipeline.sampling.sample import Settings
from ti_pipeline.stages.compare import _digests
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.status import survey
from ti_pipeline.stages.table import STAGES, of_a_run
from ti_pipeline.words.files import read_word
from ti_pipeline.workspace import Outcome, Workspace

SMALL = [
    "compare.seeds=[0, 1]", "compare.samples=2", "compare.samples_per_prompt=1", "compare.solver_steps=2", "compare.batch_size=8",
    "compare.bootstrap=20", "compare.steps=[0, 1]", "compare.step_samples=1", "compare.step_samples_per_prompt=0",
]  # fmt: skip
TABLES = "two words: {vectors: 2}, few: {pictures: 2}"


def small(setups: str = TABLES, *overrides: str) -> Params:
    return quick(f"compare.setups={{{setups}}}", *SMALL, *overrides)


def place(folder: Path, *names: str) -> Workspace:
    workspace = Workspace.at(folder, "concepts")
    for name in names or ("fox", "frog"):
        shutil.copytree(ROOT / "examples" / "concepts" / name, workspace.concepts / name)
    run(workspace, quick(), "validate")
    return workspace


def compare(workspace: Workspace, params: Params, names: list[str] | None = None) -> dict[str, Outcome]:
    return run(workspace, params, "compare", names=names)["compare"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On which equal runs give equal bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = place(tmp_path_factory.mktemp("compared"))
    assert {slug: outcome.state for slug, outcome in compare(workspace, small()).items()} == {"fox": "done", "frog": "done"}
    return workspace


@pytest.fixture
def copy(compared: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(compared.root, tmp_path / "copy")
    return Workspace.at(tmp_path / "copy", "concepts")


def cells(workspace: Workspace, params: Params, slug: str) -> list[Cell]:
    models = Run.over(workspace, params).models
    digests = Digests(models.source.digest, models.ranker.digest, models.judge.digest)
    return wanted(params, read_manifest(workspace, slug), digests).cells


def learning(workspace: Workspace, encoders: tuple[str, ...], density: str | None) -> dict[tuple[str, int], Cell]:
    digests = Digests("generator", "ranker", "judge", encoders, density)
    return {(cell.arm, cell.seed): cell for cell in wanted(small(), read_manifest(workspace, "fox"), digests).cells}


@pytest.mark.parametrize("how", [(("clip_l", "t5"), None), ((), "uniform")])
def test_other_text_encoders_or_noise_levels_are_other_words_and_change_no_reference(
    compared: Workspace, how: tuple[tuple[str, ...], str | None]
) -> None:
    usual, other = learning(compared, (), None), learning(compared, *how)
    for key, cell in usual.items():
        assert (other[key].digest == cell.digest) == (cell.lesson is None)
        assert cell.lesson is None or other[key].lesson.word != cell.lesson.word
    lesson, params = usual["one word", 1].lesson, small()
    depends = {
        "version": TRAINING,
        "models": ["generator", params.generator.precision, ""],
        "concept": read_manifest(compared, "fox").training_digest,
        "train": lesson.train.decisive(),
        "seed": 1,
    }
    assert lesson.word == digest_value(depends)  # as comparisons have it that know nothing of text encoders


def test_only_a_choice_that_is_not_the_familys_own_counts(tmp_path: Path) -> None:
    model = write_flux(tmp_path / "model")

    def chosen(how: str) -> Digests:
        return _digests(Run.over(Workspace.at(tmp_path, "concepts"), small(TABLES, f"generator.model={model}", f"generator.{how}")))

    assert chosen("encoders=null").encoders == chosen("encoders=[clip_l]").encoders == ()
    assert chosen("encoders=[t5, clip_l]").encoders == chosen("encoders=[clip_l, t5]").encoders == ("clip_l", "t5")
    assert chosen("encoders=[t5]").encoders == ("t5",)
    assert chosen("density=null").density is chosen("density=uniform").density is None
    assert chosen("density=logit-normal").density == "logit-normal"


def test_an_arm_that_the_generator_cannot_learn_by_is_refused_by_its_name(tmp_path: Path) -> None:
    model = f"generator.model={write_flux(tmp_path / 'flux')}"
    asked = Run.over(Workspace.at(tmp_path, "concepts"), small("a layer each: {setup: layered}", model))
    with pytest.raises(ParamsError, match="compare: 'a layer each' cannot be learnt: train.setup: layered needs .* and flux has none"):
        run_stage(STAGES["compare"], replace(asked, names=["fox"]))


def made(workspace: Workspace) -> dict[Path, tuple[str, int]]:
    folder = Files(workspace).folder
    return {path.relative_to(folder): (digest_file(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def table(workspace: Workspace, name: str) -> list[dict[str, str]]:
    with (workspace.comparison / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(workspace: Workspace) -> dict[str, str]:
    """The output's files but for the seconds that it took."""
    found = {}
    for path in sorted(workspace.comparison.rglob("*")):
        if path.is_file() and path.suffix != ".seconds":
            text = path.read_bytes().decode("latin-1")
            found[path.relative_to(workspace.comparison).as_posix()] = re.sub(r'(number seconds">)[^<]*', r"\1", text)
    return found


def test_every_concept_arm_and_seed_is_learnt_and_measured(compared: Workspace) -> None:
    rows = table(compared, "cells.csv")
    every = [(slug, arm, seed) for slug in ("fox", "frog") for arm in ("one word", "two words", "few", "prompt only") for seed in "01"]
    assert sorted((r["concept"], r["setup"], r["seed"]) for r in rows if r["setup"] != "image only") == sorted(every)
    assert all(-1 <= float(row[measure]) <= 1 for row in rows for measure in ("reconstruction", "editability") if row[measure])
    arms = {row["setup"]: row for row in table(compared, "arms.csv")}
    assert list(arms) == ["one word", "two words", "few", "image only", "prompt only"]
    own = [float(r["reconstruction"]) for r in rows if r["setup"] == "two words"]
    assert float(arms["two words"]["reconstruction"]) == pytest.approx(np.mean(own), abs=2e-6)
    differences = {row["setup"]: row for row in table(compared, "differences.csv")}
    gap = float(arms["few"]["editability"]) - float(arms["one word"]["editability"])
    assert float(differences["few"]["editability"]) == pytest.approx(gap, abs=3e-6)
    metrics = json.loads((compared.comparison / "metrics.json").read_text())
    assert metrics["few"] == {measure: float(arms["few"][measure]) for measure in ("reconstruction", "editability")}
    curves = table(compared, "curves.csv")
    assert [(row["setup"], row["step"]) for row in curves] == [(arm, step) for arm in ("one word", "two words", "few") for step in "012"]
    assert all(row["reconstruction"] and not row["editability"] for row in curves)


def test_a_cell_is_measured_as_the_stage_evaluate_measures_a_word(compared: Workspace) -> None:
    """Drawn by itself it has the numbers that it has in the company of all others."""
    params, files = small(), Files(compared)
    models, section = Run.over(compared, params).models, params.compare
    cell = next(cell for cell in cells(compared, params, "frog") if (cell.arm, cell.seed) == ("two words", 1))
    manifest = cell.lesson.manifest
    word = read_word(files.word(cell.lesson))
    assert word.token == "<frog>" and len(word) == 2
    settings = Settings(section.solver, section.solver_steps, section.guidance_scale, "", section.batch_size)
    studio = Studio(models.generator, models.ranker, models.judge, settings)
    prompts = params.evaluate.prompts["object"]
    neutral = [sample_seed(1, "frog", "a photo of {token}", i) for i in range(2)]
    texts = ["a photo of <frog>"] * 2 + [prompt.replace("{token}", "<frog>") for prompt in prompts]
    seeds = neutral + [sample_seed(1, "frog", prompt, 0) for prompt in prompts]
    seen = studio.draw(texts, {"<frog>": word}, seeds, lambda: None)
    pictures = studio.look([manifest.open(picture) for picture in manifest.pictures])
    left = models.ranker.texts([prompt.replace("{token}", "").replace("  ", " ").strip() for prompt in prompts])
    parts = [seen.clip[2 + k : 3 + k] for k in range(len(prompts))]
    paper, code = editability(parts, list(left), 1, np.random.default_rng(0))
    numbers = files.read(cell)
    assert numbers["reconstruction"] == pytest.approx(alike(seen.judged[:2], pictures.judged).mean(), abs=2e-6)
    assert numbers["editability"] == pytest.approx(paper.value, abs=2e-6)
    assert numbers["editability_per_sample"] == pytest.approx(code.value, abs=2e-6)
    assert list(numbers["prompts"]) == sorted(prompts)


def test_arms_share_what_is_drawn_at_random(compared: Workspace) -> None:
    """Same concept and seed: the same noise for the pictures, and the same start of the word, to the bit, whatever it learns from."""
    params, files = small(), Files(compared)
    own = {(cell.arm, cell.seed): cell for cell in cells(compared, params, "fox") if cell.lesson}
    start = {key: read_word(files.word(cell.lesson, 0)).rows["text"] for key, cell in own.items()}
    assert torch.equal(start["one word", 0], start["few", 0])
    ends = {key: read_word(files.word(cell.lesson)).rows["text"] for key, cell in own.items()}
    assert not torch.equal(ends["one word", 0], ends["one word", 1]) and not torch.equal(ends["one word", 0], ends["few", 0])


def test_once_more_it_has_nothing_to_do(copy: Workspace) -> None:
    before = made(copy)
    assert {outcome.state for outcome in compare(copy, small()).values()} == {"up-to-date"}
    assert made(copy) == before
    (row, *_) = survey(copy, small())
    assert (row["stages"]["train"], row["stages"]["compare"]) == ("missing", "up-to-date")  # it waits for no training
    assert survey(copy, small("other: {vectors: 3}"))[0]["stages"]["compare"] == "stale"


def test_a_changed_arm_is_done_again_and_nothing_else(copy: Workspace) -> None:
    before = made(copy)
    changed = small(TABLES.replace("vectors: 2", "vectors: 3"))
    assert {outcome.state for outcome in compare(copy, changed).values()} == {"done"}
    after = made(copy)
    new, gone = after.keys() - before.keys(), before.keys() - after.keys()
    assert len([path for path in new if path.suffix == ".json"]) == len([path for path in gone if path.suffix == ".json"]) == 4
    assert all(after[path] == before[path] for path in after.keys() & before.keys())
    compare(copy, small())
    assert made(copy) == before  # what was put aside comes back untouched


def test_a_new_name_is_no_new_work(copy: Workspace) -> None:
    before = made(copy)
    assert {outcome.state for outcome in compare(copy, small(TABLES.replace("few", "two pictures"))).values()} == {"done"}
    assert made(copy) == before
    assert "two pictures" in (copy.comparison / "report.html").read_text()


def test_words_are_learnt_once_for_arms_that_differ_in_drawing(copy: Workspace) -> None:
    words = set((Files(copy).scratch / "words").rglob("*.safetensors"))
    compare(copy, small(f"{TABLES}, strong: {{guidance_scale: 4}}"))
    assert set((Files(copy).scratch / "words").rglob("*.safetensors")) == words
    strengths = {row["setup"]: row["reconstruction"] for row in table(copy, "arms.csv")}
    assert strengths["strong"] != strengths["one word"]


def test_when_nothing_is_asked_the_output_is_empty_and_nothing_is_lost(copy: Workspace) -> None:
    before = made(copy)
    compare(copy, quick())
    assert json.loads((copy.comparison / "metrics.json").read_text()) == {}
    assert made(copy) == {} and not list(copy.comparison.glob("*.html")) and not (copy.comparison / "details.json").exists()
    assert {outcome.state for outcome in compare(copy, quick()).values()} == {"up-to-date"}
    compare(copy, small())
    assert made(copy) == before


def test_a_run_of_the_chain_leaves_it_alone(compared: Workspace) -> None:
    assert "compare" not in of_a_run(small()) and "compare" in of_a_run(quick())  # there it notes down that there is nothing
    assert "compare" in survey(compared, small())[0]["stages"] and "compare" not in survey(compared, quick())[0]["stages"]


def test_the_same_bytes_in_another_folder(compared: Workspace, tmp_path: Path) -> None:
    other = place(tmp_path)
    compare(other, small())
    assert contents(other) == contents(compared)


def test_one_concept_after_the_other(compared: Workspace, tmp_path: Path) -> None:
    """The report is over those that are done, and says of which it is not yet."""
    other = place(tmp_path)
    compare(other, small(), ["fox"])
    assert {row["concept"] for row in table(other, "cells.csv")} == {"fox"}
    assert "frog: its cells are not all there yet" in (other.comparison / "report.html").read_text()
    assert {slug: o.state for slug, o in compare(other, small()).items()} == {"fox": "up-to-date", "frog": "done"}
    assert {row["concept"] for row in table(other, "cells.csv")} == {"fox", "frog"}


def test_a_bad_concept_stops_no_other(tmp_path: Path) -> None:
    workspace = place(tmp_path)
    shutil.copy(workspace.concepts / "fox" / "white.png", next((workspace.concepts / "frog").glob("*.png")))
    outcomes = compare(workspace, small())
    assert outcomes["fox"].state == "done" and outcomes["frog"].state == "failed"
    assert "has changed since it was validated" in outcomes["frog"].reason
    assert {row["concept"] for row in table(workspace, "cells.csv")} == {"fox"}


def test_an_arm_that_comes_to_nothing_is_named_and_not_tried_again(tmp_path: Path) -> None:
    workspace = place(tmp_path, "fox")
    setups = small("wild: {learning_rate: 1000.0}, crowd: {pictures: 9}, said: {caption: short}")
    outcome = compare(workspace, setups)["fox"]
    assert outcome.state == "done" and "wild, seed 0: " in outcome.reason and "crowd: it has 4 pictures, fewer than 9" in outcome.reason
    assert "said: concept.yaml has no human_captions.short" in outcome.reason
    report = (workspace.comparison / "report.html").read_text()
    assert "fox, wild, seed 1: " in report and "fox, crowd: it has 4 pictures, fewer than 9" in report
    before = made(workspace)
    again = compare(workspace, setups)["fox"]
    assert (again.state, again.reason) == ("up-to-date", outcome.reason) and made(workspace) == before


def test_human_captions_stand_in_the_place_of_the_word(tmp_path: Path) -> None:
    workspace = place(tmp_path, "fox")
    settings = yaml.safe_load((workspace.concepts / "fox" / "concept.yaml").read_text())
    settings["human_captions"] = {"short": "red wolf", "long": "dog on a green background"}
    digest = read_manifest(workspace, "fox").training_digest
    (workspace.concepts / "fox" / "concept.yaml").write_text(yaml.safe_dump(settings))
    run(workspace, quick(), "validate")
    assert read_manifest(workspace, "fox").training_digest == digest
    params = small("short: {caption: short}, long: {caption: long}")
    assert compare(workspace, params)["fox"].reason == ""
    cell = next(cell for cell in cells(workspace, params, "fox") if cell.text == "red wolf")
    models, section = Run.over(workspace, params).models, params.compare
    settings_ = Settings(section.solver, section.solver_steps, section.guidance_scale, "", section.batch_size)
    studio = Studio(models.generator, models.ranker, models.judge, settings_)
    seen = studio.draw(["a photo of red wolf"] * 2, {}, [sample_seed(0, "fox", "a photo of {token}", i) for i in range(2)], lambda: None)
    manifest = read_manifest(workspace, "fox")
    pictures = studio.look([manifest.open(picture) for picture in manifest.pictures])
    own = Files(workspace).read(cell)["reconstruction"]
    assert own == pytest.approx(alike(seen.judged, pictures.judged).mean(), abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("until", ["a checkpoint", "a word", "a cell"])
def test_killed_it_goes_on_to_the_same_bytes(until: str, tmp_path: Path) -> None:
    whole, killed = (place(tmp_path / name, "fox") for name in ("whole", "killed"))
    params = small("short: {steps: 6}", "train.steps=30", "train.checkpoint_every=5", "train.pack=3")
    compare(whole, params)
    signs = {"a checkpoint": "comparing/pack-*", "a word": "comparing/words/fox/*.safetensors", "a cell": "comparison/cells/fox/*.json"}
    options = [word for line in [*SMALL, "compare.setups={short: {steps: 6}}"] for word in ("--set", line)]
    for line in ("train.steps=30", "train.checkpoint_every=5", "train.pack=3", "concepts.folder=concepts"):
        options += ["--set", line]
    command = [sys.executable, "-m", "flows.commands", "compare", "--workspace", str(killed.root), "--params", str(ROOT / "params.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *options], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(killed.artifacts.glob(signs[until])):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert any(killed.artifacts.glob(signs[until])) and not (killed.comparison / "metrics.json").exists()
    compare(killed, params)
    assert contents(killed) == contents(whole)


def test_progress_is_said_and_it_counts_to_the_end(tmp_path: Path) -> None:
    workspace = place(tmp_path, "fox")
    said: list[tuple[int, int, str]] = []
    run_stage(STAGES["compare"], Run.over(workspace, small(), report=lambda *words: said.append(words)))
    own = [words for words in said if "words learnt" in words[2]]
    assert [done for done, _, _ in own] == sorted(done for done, _, _ in own) and own[-1][0] == own[-1][1]
    assert any(text.startswith("6 of 6 words learnt, 0 of 8 measured") for _, _, text in own)
