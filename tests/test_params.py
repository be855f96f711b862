"""`params.yaml`: typed, complete, and wrong values told by file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ti_pipeline.errors import ParamsError
from ti_pipeline.params import load
from ti_pipeline.workspace import Workspace

FILE = Path(__file__).parent.parent / "params.yaml"


def write(folder: Path, **changes: dict) -> Path:
    tree = yaml.safe_load(FILE.read_text())
    for section, values in changes.items():
        tree[section] = {**tree[section], **values}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_overrides_are_yaml():
    params = load(FILE, ["train.flip=true", "seed=7"])
    assert params.train.flip is True and params.seed == 7


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("concepts.folder=/data/set #2", "/data/set #2"),
        ("concepts.folder='/data/set #2'", "/data/set #2"),
        ("concepts.folder=~/set", "~/set"),
        ("concepts.folder=~", "~"),
        ("concepts.folder=2024-01-01", "2024-01-01"),
        ("generate.negative_prompt=", ""),
        ("generate.negative_prompt=blurry: very, {}", None),
        ("generate.negative_prompt=[ugly], hands: 6 # of them", "[ugly], hands: 6 # of them"),
        ("generate.negative_prompt= no ", "no"),
        ('generate.negative_prompt="a\\tb"', "a\tb"),
        ('generate.negative_prompt="ugly', None),
        ("generate.negative_prompt=null", None),
        ("gallery.against.before=/old #1", "/old #1"),
        ("generator.revision=1e5", "1e5"),
        ("storage.region=no", "no"),
        ("versions.register=true", True),
        ("train.devices=[cuda:0, cpu]", ("cuda:0", "cpu")),
        ("train.clip_gradient=", None),
    ],
)
def test_a_text_is_taken_as_it_stands(override: str, expected: object, tmp_path: Path):
    file = write(tmp_path, gallery={"against": {"before": "x"}})
    if expected is None and "negative_prompt" in override:
        with pytest.raises(ParamsError, match="negative_prompt"):
            load(file, [override])
        return
    value = load(file, [override])
    for name in override.partition("=")[0].split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, "register_" if name == "register" else name)
    assert value == expected


def test_a_part_of_a_single_file_is_set_by_its_name():
    """Tables whose keys are the user's take new ones; `null` in one of them is a value."""
    parts = load(FILE, ["generator.parts.vae=models/ae #2.safetensors", "generator.parts.text_encoder_3=null"]).generator.parts
    assert parts == {"vae": "models/ae #2.safetensors", "text_encoder_3": None}
    with pytest.raises(ParamsError, match="there is no `vea` here"):
        load(FILE, ["generator.vea=x"])


@pytest.mark.parametrize("key", ["storage.bucket", "ranker.pretrained", "generator.revision"])
def test_null_and_nothing_take_back_what_may_be_missing(key: str, tmp_path: Path):
    section, _, name = key.partition(".")
    file = write(tmp_path, **{section: {name: "something"}})
    for text in ("", "null"):
        assert getattr(getattr(load(file, [f"{key}={text}"]), section), name) is None


def test_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path)
    assert load(Path("~/params.yaml")).seed == 0
    assert Workspace.at(Path("~/here"), "~/sets").concepts == tmp_path / "sets"
    assert Workspace.at(Path("~/here"), "sets").concepts == tmp_path / "here" / "sets"


def test_sections_are_plain_json_under_the_files_names():
    assert set(load(FILE).section("validate", "seed")) == {"validate", "seed"}


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("train", {"steps": -1}, "train.steps"),
        ("train", {"unknown": 1}, "train.unknown"),
        ("generator", {"device": "gpu"}, "generator.device"),
        ("generate", {"briefs": {"object": ["a photo"], "style": []}}, "no place for the {token}"),
        ("rank", {"likeness_weight": 1.5}, "rank.likeness_weight"),
        ("train", {"vectors": 1_000_000_000}, "train.vectors"),
        ("train", {"steps": 10**12}, "train.steps"),
        ("generate", {"candidates": 10**12}, "generate.candidates"),
        ("generate", {"negative_prompt": "ugly " * 1000}, "generate.negative_prompt"),
        ("generate", {"negative_prompt": "a {color} thing"}, "generate.negative_prompt: {color} means nothing here"),
        ("generate", {"briefs": {"object": ["a {color} {token}"]}}, "generate.briefs.object: in 'a {color} {token}' {color} means nothing"),
        ("evaluate", {"prompts": {"style": ["a {} {token}"]}}, "evaluate.prompts.style: in 'a {} {token}' {} means nothing here"),
        ("evaluate", {"prompts": {"object": ["a {token} beside a <cat>"]}}, "evaluate.prompts: <cat> in 'a {token} beside a <cat>'"),
        ("validate", {"background": [0, 0, 256]}, "validate.background.2"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, section: str, values: dict, expected: str):
    with pytest.raises(ParamsError, match=re.escape(expected)) as error:
        load(write(tmp_path, **{section: values}))
    assert str(tmp_path) in str(error.value)


def test_a_missing_key_is_named_because_there_is_no_second_default(tmp_path: Path):
    tree = yaml.safe_load(FILE.read_text())
    del tree["train"]["steps"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ParamsError, match=r"train\.steps"):
        load(path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "\x00"])
def test_what_is_no_params_file_is_told(tmp_path: Path, text: str):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match="params.yaml"):
        load(path)


def test_a_key_that_an_older_file_lacks_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    tree = yaml.safe_load(FILE.read_text())
    del tree["train"]["setup"], tree["gallery"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(
        ParamsError, match=r"train\.setup: is missing\. Copy it from a params\.yaml of this version.*\n.*gallery: is missing"
    ):
        load(tmp_path / "params.yaml")
