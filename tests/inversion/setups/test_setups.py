"""How setups are found, set, refused and told apart."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.inversion.one_concept import job_of, train_concept
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.setups import setups
from ti_pipeline.inversion.setups.setup import CHANGES, Setup, name_of
from ti_pipeline.stages.learnt import training_fingerprint

ROOT = Path(__file__).parents[3]
Make, Settings = Callable[..., Manifest], Callable[..., params.Params]


def test_every_module_of_the_folder_is_a_setup_and_all_are_in_params() -> None:
    folder = ROOT / "ti_pipeline" / "inversion" / "setups"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "setup"}
    assert set(setups()) == modules >= {"plain", "progressive", "regularised"}
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]["setups"]
    assert {name: set(kind.model_fields) for name, kind in setups().items() if kind.model_fields} == {
        name: set(settings) for name, settings in section.items()
    }


def test_no_other_code_names_a_setup() -> None:
    names = re.compile(rf"['\"]({'|'.join(setups())})['\"]|setups\.({'|'.join(setups())})\b")
    elsewhere = [path for path in (*ROOT.glob("ti_pipeline/**/*.py"), *ROOT.glob("tasks/*.py"), *ROOT.glob("flows/*.py"))]
    found = [path for path in elsewhere if path.parent.name != "setups" and names.search(path.read_text())]
    assert len(elsewhere) > 100 and found == []


def test_params_bring_no_torch() -> None:
    """Which takes a second to import, for commands that need none of it."""
    code = "import pathlib, sys, ti_pipeline.params as p; p.load(pathlib.Path('params.yaml')); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["setup=regular"], "train.setup: there is no setup 'regular'. There are: clip_start, "),
        (["setup=direction+regular"], "there is no setup 'regular'. There are: "),
        (["setup=direction+"], "there is no setup ''. There are: "),
        (["setup=direction + direction"], "direction stands there twice. Name each setup once"),
        (["setup=plain+direction"], "plain is a word with nothing changed, and what the others change. Leave it out"),
        (
            ["setup=regularised+progressive"],
            "progressive and regularised do not go together: each of them says of a word what its vectors are",
        ),
        (["setup=progressive+per_image", "vectors=2"], "starts with one vector, and `vectors` is 2. Set it to 1"),
        (["setups={}", "setup=per_image+regularised"], "train.setup is per_image+regularised, which needs train.setups.regularised.weight"),
        (["setups.clip_start.steps=0"], "train.setups.clip_start.steps: Input should be greater than or equal to 1"),
        (["setups.direction.norm=0"], "train.setups.direction.norm: Input should be greater than 0"),
        (["setups.regularised.weight=0"], "train.setups.regularised.weight: Input should be greater than 0"),
        (["setups.regularised.weight=much"], "train.setups.regularised.weight: Input should be a valid number"),
        (["setups.regularised={weight: 1, power: 2}"], "train.setups.regularised.power: Extra inputs are not permitted"),
        (["setups={regular: {weight: 1}}"], "train.setups.regular: Extra inputs are not permitted"),
        (["setups={}", "setup=regularised"], "train.setup is regularised, which needs train.setups.regularised.weight"),
        (["setups.progressive.grow_at=[]"], "train.setups.progressive.grow_at: Tuple should have at least 1 item"),
        (["setups.progressive.grow_at=[0, 5]"], "train.setups.progressive.grow_at.0: Input should be greater than or equal to 1"),
        (["setup=progressive", "vectors=2"], "starts with one vector, and `vectors` is 2. Set it to 1"),
        (["setup=progressive", "setups.progressive.grow_at=[5, 5]"], "progressive.grow_at: [5, 5] does not rise"),
        (["setup=progressive", "setups.progressive.grow_at=[5, 60]", "steps=60"], "joins after step 60 of 60 would learn nothing"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_loaded(overrides: list[str], expected: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(expected)):
        params.load(ROOT / "params.yaml", [f"train.{each}" for each in overrides])


def test_what_goes_together_is_what_the_page_says() -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    table = page.partition("Which go together")[2].split("\n\n")[1]
    header, _, *rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    names = header[1:]
    assert names == [row[0] for row in rows] == [name for name in setups() if name != "plain"]
    why = {"start": "where it starts", "anchor": "near what it is held", "condition": "what the denoiser hears"}
    for one, *cells in rows:
        for other, cell in zip(names, cells, strict=True):
            both = [change for change in CHANGES if change in setups()[one].CHANGES & setups()[other].CHANGES]
            if one == other:
                assert cell == ""
                continue
            assert cell == (" and ".join(why[change] for change in both) or "yes"), (one, other)
            try:
                params.load(ROOT / "params.yaml", [f"train.setup={one} + {other}"])
            except ParamsError as error:
                assert both and f"{min(one, other)} and {max(one, other)} do not go together" in str(error)
            else:
                assert not both


def test_what_a_setup_changes_is_what_it_says() -> None:
    for name, kind in setups().items():
        assert kind.CHANGES <= CHANGES.keys()
        for hook in ("condition", "update"):
            assert (getattr(kind, hook) is not getattr(Setup, hook)) is (hook in kind.CHANGES), name


def test_the_order_of_names_has_no_meaning(settings: Settings) -> None:
    ways = [settings(f"train.setup={text}").train for text in ("per_image+direction", " direction + per_image ", "direction+per_image")]
    assert {train.setup for train in ways} == {"direction+per_image"} and len({str(train.decisive()) for train in ways}) == 1
    assert set(ways[0].decisive()["setup"]) == {"direction", "per_image"}
    asked = settings("train.setup=direction+clip_start+per_image").train.chosen.parts
    assert [name_of(part) for part in asked] == ["clip_start", "per_image", "direction"]


def test_a_prompt_must_hold_the_token_of_its_picture_too(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    validated()
    said = "red " * 73
    (tmp_path / "concepts" / "mug" / "1.txt").write_text(f"{said}mug")  # 76 of the 77 tokens that are read
    manifest = validated()
    assert job_of(generator, manifest, settings().train, 0, "mug").one.prompts[1] == [f"{said}<mug>"]
    with pytest.raises(ConceptError, match="takes 78 tokens and tiny reads 77"):
        job_of(generator, manifest, settings("train.setup=per_image").train, 0, "mug")


def test_settings_of_setups_that_are_not_used_may_be_missing_or_make_no_sense() -> None:
    for overrides in (["setups={}"], ["setups.progressive.grow_at=[900, 1000]", "steps=10", "vectors=3"]):
        assert params.load(ROOT / "params.yaml", [f"train.{each}" for each in overrides]).train.setup == "plain"


def test_a_concept_whose_own_settings_do_not_go_with_the_setup_is_refused_by_name(validated: Make, settings: Settings) -> None:
    grows = settings("train.setup=progressive", "train.setups.progressive.grow_at=[2, 4]")
    assert grows.train.for_concept(validated()).longest == 3
    for about, why in (("vectors: 2", "starts with one vector, and `vectors` is 2"), ("steps: 4", "after step 4 of 4 would learn nothing")):
        manifest = validated(about=f"initializer: mug\n{about}\n")
        with pytest.raises(ConceptError, match=f"mug: its own settings in concept.yaml do not go with train.setup: .*{why}"):
            training_fingerprint("", "", manifest, grows)
        assert training_fingerprint("", "", manifest, settings())


def test_a_prompt_must_hold_the_longest_form_of_a_word(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    grows = settings("train.setup=progressive", f"train.setups.progressive.grow_at={list(range(1, 75))}", "train.steps=80")
    with pytest.raises(ConceptError, match="the learnt word would be cut off"):
        train_concept(generator, validated(), grows.train, 0, checkpoint=tmp_path / "c", initializer="mug")


def test_a_word_depends_on_its_setup_and_on_no_others_settings(generator: Generator, validated: Make, settings: Settings) -> None:
    manifest = validated()

    def known_by(*overrides: str) -> tuple[str, str]:
        chosen = settings(*(f"train.{each}" for each in overrides))
        job = job_of(generator, manifest, chosen.train, 0, "mug")
        return training_fingerprint(generator.digest, "", manifest, chosen), job.key

    plain, grows, held = (known_by(*own) for own in ((), ("setup=progressive", "setups.progressive.grow_at=[2]"), ("setup=regularised",)))
    for place in (0, 1):
        assert len({known[place] for known in (plain, grows, held)}) == 3
    assert known_by("setups.regularised.weight=0.5", "setups.progressive.grow_at=[9]") == plain
    assert known_by("setup=regularised", "setups.progressive.grow_at=[9]") == held
    for changed in (
        known_by("setup=regularised", "setups.regularised.weight=0.5"),
        known_by("setup=progressive", "setups.progressive.grow_at=[3]"),
    ):
        assert not {*changed} & {*plain, *grows, *held}


def test_what_a_plain_word_depends_on_is_what_it_was_before_there_were_setups(settings: Settings) -> None:
    assert not {key for key in settings().train.decisive() if "setup" in key}
