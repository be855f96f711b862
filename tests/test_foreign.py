"""No code from a model's folder runs: whatever names some is refused, and the loaders would not run it either."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from tests import hostile_models as hostile
from tests.generators.tiny_stable_diffusion import load_tiny, write_folder, write_single_file
from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators import source
from ti_pipeline.sight import judge as judges
from ti_pipeline.sight import picture_files
from ti_pipeline.sight import ranker as rankers

PACKAGE = Path(str(resources.files("ti_pipeline.miniature")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hostile") / "tiny")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Is there when code of a folder has run; whoever is asked on the terminal says yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "ran"


@pytest.fixture(params=["looked at", "not looked at"])
def looked_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Without the look at its configurations a folder meets what the loaders themselves were told."""
    if request.param == "not looked at":
        for module in (source, rankers, picture_files):
            monkeypatch.setattr(module, "refuse_code", lambda folder, setting: None)
    return request.param == "looked at"


def refused(load: Callable[[], object], mark: Path, *words: str) -> None:
    """The folder is refused, by the names in `words`; without any it may as well load. Nothing has run in either case."""
    try:
        load()
    except ParamsError as error:
        assert all(word in str(error) for word in words), error
    else:
        assert not words
    assert not mark.exists()


def load_ranker(folder: Path) -> object:
    return rankers.load_ranker(params.Ranker(model=str(folder), pretrained=None, likeness="clip", dino=None), "cpu")


def load_judge(folder: Path) -> object:
    return judges.load_judge(params.Judge(model=str(folder)), "cpu")


def test_a_ranker_with_a_tokenizer_of_its_own(tmp_path: Path, mark: Path, looked_at: bool) -> None:
    folder = hostile.ranker(PACKAGE, tmp_path / "clip")
    assert load_ranker(folder)
    hostile.trap(folder, mark)
    classes = {"AutoTokenizer": ["evil.EvilTokenizer", None]}
    hostile.change(folder / "tokenizer_config.json", auto_map=classes, tokenizer_class="EvilTokenizer")
    refused(lambda: load_ranker(folder), mark, *(("ranker.model", "tokenizer_config.json", "`auto_map`") if looked_at else ()))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    words = ("ranker.model", "open_clip_config.json", "`model_cfg.text_cfg.tokenizer_kwargs`", "trust_remote_code") if looked_at else ()
    refused(lambda: load_ranker(folder), mark, *words)


def test_a_ranker_whose_text_encoder_lies_elsewhere(tmp_path: Path, mark: Path, looked_at: bool) -> None:
    folder, other = hostile.ranker(PACKAGE, tmp_path / "clip"), hostile.judge(tmp_path / "other")
    hostile.trap(other, mark)
    hostile.change(other / "config.json", auto_map={"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}, model_type="evil")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(other)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    words = ("`model_cfg.text_cfg.hf_model_name`", "not in this folder") if looked_at else ()
    refused(lambda: load_ranker(folder), mark, "ranker.model", *words)


def test_a_ranker_of_pickles(tmp_path: Path, mark: Path) -> None:
    folder = hostile.ranker(PACKAGE, tmp_path / "clip")
    hostile.pickled(folder / "open_clip_model.safetensors", folder / "open_clip_pytorch_model.bin", mark)
    refused(lambda: load_ranker(folder), mark, "ranker.model", "exec", ".safetensors")


@pytest.mark.parametrize("kind", ["AutoModel", "AutoImageProcessor"])
def test_a_judge_with_classes_of_its_own(tmp_path: Path, mark: Path, looked_at: bool, kind: str) -> None:
    folder = hostile.judge(tmp_path / "vit")
    hostile.trap(folder, mark)
    if kind == "AutoModel":
        name, classes = "config.json", {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
        hostile.change(folder / name, auto_map=classes, model_type="evil")
    else:
        name = "preprocessor_config.json"
        hostile.change(folder / name, auto_map={"AutoImageProcessor": "evil.EvilProcessor"}, image_processor_type="EvilProcessor")
    refused(lambda: load_judge(folder), mark, "judge.model", *((name, "`auto_map`") if looked_at else ()))


def test_a_judge_of_pickles_and_one_that_is_an_adapter(tmp_path: Path, mark: Path) -> None:
    folder = hostile.judge(tmp_path / "vit")
    hostile.pickled(folder / "model.safetensors", folder / "pytorch_model.bin", mark)
    refused(lambda: load_judge(folder), mark, "judge.model", "exec", ".safetensors")
    folder = hostile.judge(tmp_path / "adapter")
    hostile.change(folder / "adapter_config.json", base_model_name_or_path="someone/else", auto_mapping={"parent_library": "evil"})
    refused(lambda: load_judge(folder), mark, "judge.model", "adapter_config.json")


@pytest.mark.parametrize(
    ("file", "entries", "key"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.EvilModel"}}, "auto_map"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}, "auto_map"),
        ("text_encoder/config.json", {"_attn_implementation": "someone/kernels"}, "_attn_implementation"),
        ("model_index.json", {"unet": ["evil", "EvilModel"]}, "unet"),
        ("model_index.json", {"_class_name": ["evil", "EvilModel"]}, "_class_name"),
        ("unet/config.json", {"custom_pipeline": "evil"}, "custom_pipeline"),
    ],
)
def test_a_generator_with_code_of_its_own(tiny: Path, mark: Path, looked_at: bool, file: str, entries: dict, key: str) -> None:
    folder = Path(shutil.copytree(tiny, mark.parent / "tiny"))
    for part in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        hostile.trap(part, mark)
    hostile.change(folder / file, **entries)
    refused(lambda: load_tiny(folder), mark, *((file, f"`{key}`", "generator.model") if looked_at else ()))


def test_a_generator_of_pickles(tiny: Path, tmp_path: Path, mark: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    hostile.pickled(folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "unet" / "diffusion_pytorch_model.bin", mark)
    refused(lambda: load_tiny(folder), mark, "generator.model", "exec", ".safetensors")
    hostile.pickled(tmp_path / "dream.ckpt", tmp_path / "dream.ckpt", mark)
    refused(lambda: load_tiny(tmp_path / "dream.ckpt"), mark, "generator.model", "exec", ".safetensors")


def test_a_checkpoint_whose_configuration_names_code(
    tiny: Path, tmp_path: Path, mark: Path, looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, beside = write_single_file(tiny, tmp_path / "dream.safetensors"), write_folder(tmp_path / "dream", weights=False)
    hostile.trap(tmp_path, mark)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does with the folder that it is started in
    hostile.change(beside / "model_index.json", vae=["evil", "EvilModel"])
    refused(lambda: load_tiny(path), mark, *(("model_index.json", "`vae`", "evil.EvilModel") if looked_at else ()))


def test_what_open_clip_itself_passes_on_is_let_through(tmp_path: Path) -> None:
    folder = hostile.ranker(PACKAGE, tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_ranker(folder)
