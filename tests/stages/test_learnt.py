"""What `train` leaves beside a word: kept steps, the choice of one, the strip of previews; and that a kill loses none of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.stages.one import Given, many, one
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion import curve, previews
from ti_pipeline.inversion.strip import read_strip
from ti_pipeline.sight.ranker import Ranker, load_ranker
from ti_pipeline.stages import learnt
from ti_pipeline.stages.collection import remove_withdrawn
from ti_pipeline.stages.leftovers import sweep
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.words.files import read_word
from ti_pipeline.words.headers import word_fingerprint
from ti_pipeline.words.steps import read_steps, steps_in
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Outcome, Workspace

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
KEEP = "train.keep_steps=[2, 4]"
CHOOSE = (KEEP, "train.compromise=0.3", "train.compromise_samples=1", "train.preview_steps=2")
DRAW = ("train.preview_every=2", "train.preview_steps=2")
Learn = Callable[..., Outcome]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return load_ranker(params.load(Path(__file__).parents[2] / "params.yaml").ranker, "cpu")


@pytest.fixture
def learn(generator: Generator, ranker: Ranker, workspace: Workspace, settings: Settings, validated: Make) -> Learn:
    validated()

    def learn(*overrides: str, report: Callable[[int, int, str], None] = lambda *_: None) -> Outcome:
        return one(TRAIN, Run(workspace, settings(*overrides), Given(generator, ranker), ["mug"], report=report), "mug")

    return learn


def untrained(*_: object, **__: object) -> None:
    pytest.fail("it trains again")


def files(workspace: Workspace, slug: str = "mug") -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(workspace.embedding(slug).parent.iterdir())}


def test_kept_steps_stand_beside_the_same_word(learn: Learn, workspace: Workspace) -> None:
    plain = learn().digest
    assert learn(KEEP).digest == plain
    assert sorted(files(workspace)) == ["learned_embeds.safetensors", "steps.safetensors", "training.parquet"]
    words, about = read_steps(workspace.steps("mug"))
    assert list(words) == [2, 4, 6] and about["fingerprint"] == word_fingerprint(workspace.embedding("mug"))
    assert words[6].rows[ONLY].equal(read_word(workspace.embedding("mug")).rows[ONLY])
    assert learn(KEEP).state == "up-to-date" and learn("train.keep_steps=[2]").state == "done"


def test_fewer_steps_need_no_training(learn: Learn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    learn("train.keep_steps=[2]")
    fewer = files(workspace)
    workspace.embedding("mug").unlink()
    learn("train.keep_steps=[2, 4]")
    monkeypatch.setattr("ti_pipeline.inversion.train.train_pack", untrained)
    assert learn("train.keep_steps=[2]").state == "done" and files(workspace) == fewer
    assert learn().state == "done" and sorted(files(workspace)) == ["learned_embeds.safetensors", "training.parquet"]


def test_the_step_of_the_best_compromise_is_the_word(learn: Learn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    last = learn(KEEP).digest
    seen = {2: curve.Seen(0.6, 0.3), 4: curve.Seen(0.7, 0.29), 6: curve.Seen(0.8, 0.2)}
    ends = {"initializer": curve.Seen(0.4, 0.3), "pictures": curve.Seen(0.8, 0.2)}
    monkeypatch.setattr(curve, "look", lambda *_: (seen, ends))
    monkeypatch.setattr("ti_pipeline.inversion.train.train_pack", untrained)
    assert learn(*CHOOSE).state == "done"
    word, words = read_word(workspace.embedding("mug")), read_steps(workspace.steps("mug"))[0]
    assert word.rows[ONLY].equal(words[4].rows[ONLY])
    said = word.provenance
    assert (said["chosen_step"], said["steps"], said["compromise"]) == ("4", "6", "0.3")
    assert json.loads(said["curve"]) == {str(step): [one.likeness, one.faithfulness] for step, one in seen.items()}
    table = pq.read_table(workspace.curve("mug"))
    assert table.schema.equals(curve.SCHEMA) and table["chosen"].to_pylist() == [False, True, False]
    assert learn(*CHOOSE).state == "up-to-date"
    assert learn(KEEP, "train.compromise=1.0", *CHOOSE[2:]).state == "done"
    assert read_word(workspace.embedding("mug")).provenance["chosen_step"] == "6"
    assert learn(KEEP).digest == last and not workspace.curve("mug").exists()


def test_what_the_choice_depends_on_is_in_the_words_fingerprint(
    generator: Generator, ranker: Ranker, workspace: Workspace, validated: Make, settings: Settings
) -> None:
    manifest = validated()

    def wanted(*overrides: str) -> learnt.Wanted:
        return learnt.wanted_of(Run(workspace, settings(*CHOOSE, *overrides), Given(generator, ranker), ["mug"]), manifest)

    prompts = "train.compromise_prompts={object: ['a big {token}']}"
    changes = ("train.compromise=0.4", "train.compromise_samples=2", "train.preview_steps=3", "train.keep_steps=[2]", prompts)
    assert len({wanted().word, *(wanted(change).word for change in changes)}) == len(changes) + 1
    assert {wanted(change).trained for change in changes} == {wanted().trained}  # none of it needs a training
    assert wanted("train.preview_every=2").word == wanted("train.pack=3").word == wanted().word


def test_killed_while_it_chooses_it_need_not_learn_again(learn: Learn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(*CHOOSE)
    whole = files(workspace)
    for path in workspace.embedding("mug").parent.iterdir():
        path.unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(curve, "look", killed)
        learn(*CHOOSE)
    assert workspace.checkpoint("mug").exists() and not workspace.embedding("mug").exists()
    with monkeypatch.context() as patched:
        patched.setattr("ti_pipeline.inversion.train.train_pack", untrained)
        assert learn(*CHOOSE).state == "done"
    assert files(workspace) == whole and not workspace.checkpoint("mug").exists()


def test_one_that_fails_there_is_named_and_the_others_go_on(
    generator: Generator, ranker: Ranker, workspace: Workspace, validated: Make, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated("mug"), validated("cup", hue=1)
    honest = curve.look

    def look(eyes: curve.Eyes, manifest: Manifest, *others: object) -> object:
        if manifest.slug == "mug":
            raise ParamsError("generator.precision: it overflows. Set it to float32.")
        return honest(eyes, manifest, *others)

    monkeypatch.setattr(curve, "look", look)
    done, lost = many(TRAIN, Run(workspace, settings(*CHOOSE), Given(generator, ranker), ["mug", "cup"]), "mug", "cup")
    assert set(done) == {"cup"} and str(lost["mug"]) == "mug: generator.precision: it overflows. Set it to float32."
    assert workspace.embedding("cup").exists() and not workspace.embedding("mug").exists()
    assert steps_in(workspace.steps("mug"))[0] == [2, 4, 6]  # what it has learnt is kept


def test_previews_are_a_strip_and_change_nothing_else(learn: Learn, workspace: Workspace) -> None:
    word = learn().digest
    assert learn(*DRAW).digest == word
    assert list(read_strip(workspace.strip("mug"))) == [0, 2, 4, 6] == steps_in(workspace.steps("mug"))[0]
    assert not workspace.frames("mug").exists()
    assert learn(*DRAW).state == "up-to-date" and learn(*DRAW, "train.preview_steps=3").state == "done"
    assert learn().digest == word and sorted(files(workspace)) == ["learned_embeds.safetensors", "training.parquet"]


def test_killed_anywhere_the_strip_is_whole(learn: Learn, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(*DRAW)
    whole = files(workspace)
    for path in workspace.embedding("mug").parent.iterdir():
        path.unlink()

    def kill(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(*DRAW, report=kill)
    frames = sorted(workspace.frames("mug").iterdir())
    assert [path.name for path in frames] == ["000000.png", "000002.png", "000004.png"]  # to be watched while it trains
    frames[1].unlink()
    frames[2].write_bytes(b"half a picture")
    drawn: list[int] = []
    honest = previews.draw
    monkeypatch.setattr(
        previews, "draw", lambda generator, todo, train: drawn.extend(f.step for f in todo) or honest(generator, todo, train)
    )
    assert learn(*DRAW).state == "done" and files(workspace) == whole
    assert sorted(drawn) == [2, 4, 6]


def test_a_prompt_that_would_be_cut_off_fails_its_concept_before_it_learns(learn: Learn, workspace: Workspace) -> None:
    long = f"train.preview_prompt={{object: '{'very ' * 80}{{token}}'}}"
    with pytest.raises(ConceptError, match="mug: .*would be cut off"):
        learn(*DRAW, long)
    assert not workspace.training("mug").exists()


def test_what_is_damaged_is_made_again(learn: Learn, workspace: Workspace) -> None:
    learn(*CHOOSE, *DRAW)
    whole = files(workspace)
    for name in ("steps.safetensors", "curve.parquet", "previews.png"):
        path = workspace.embedding("mug").parent / name
        path.write_bytes(path.read_bytes()[:50])
        assert learn(*CHOOSE, *DRAW).state == "done" and files(workspace) == whole, name


def test_frames_of_a_withdrawn_concept_and_half_written_ones_go(workspace: Workspace, validated: Make) -> None:
    validated()
    half, gone = workspace.frames("mug") / ".000002-0123abcd.png", workspace.frames("cup") / "000002.png"
    for path in (half, gone):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    sweep(workspace, TRAIN, ["mug"])
    assert not half.exists()
    remove_withdrawn(workspace, [TRAIN])
    assert workspace.frames("mug").exists() and not workspace.frames("cup").exists()


def test_a_fingerprint_of_before_is_one_of_now(workspace: Workspace, validated: Make, settings: Settings, generator: Generator) -> None:
    run = Run(workspace, settings(), Given(generator), ["mug"])
    plain = learnt.wanted_of(run, validated())
    assert (plain.word, plain.curve, plain.strip, plain.keep) == (plain.trained, "", "", None)
