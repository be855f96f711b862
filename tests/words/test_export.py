from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.candidates.small_workspace import add_concept, add_word
from tests.words import readers
from ti_pipeline.errors import ConceptError, NotYet, ParamsError
from ti_pipeline.words.export import Export, export_of, read_rows, write_export
from ti_pipeline.words.files import write_word
from ti_pipeline.words.names import check_apart, names_for, refused
from ti_pipeline.words.tools import TOOLS
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import Workspace

WIDTHS = {
    "v1": {"text": 768},
    "v2": {"text": 1024},
    "xl": {"clip_l": 768, "clip_g": 1280},
    "v3": {"clip_l": 768, "clip_g": 1280, "t5": 4096},
    "flux": {"clip_l": 768, "t5": 4096},
    "small": {"text": 32},
    "paper": {"text": 1280},
}
USED_BY = {
    "v1": ["diffusers", "a1111", "forge", "comfyui", "invoke", "kohya", "onetrainer", "swarmui", "sd-concepts"],
    "v2": ["diffusers", "a1111", "forge", "comfyui", "invoke", "kohya", "onetrainer", "swarmui", "sd-concepts"],
    "xl": ["diffusers", "a1111", "forge", "comfyui", "invoke", "kohya", "onetrainer", "swarmui"],
    "v3": ["comfyui", "onetrainer"],
    "flux": ["diffusers", "comfyui", "onetrainer"],
    "small": ["diffusers", "sd-concepts"],
    "paper": [],
}


def picture() -> bytes:
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(packed := io.BytesIO(), format="PNG")
    return packed.getvalue()


def exported(model: str, count: int = 2, **changes: object) -> Export:
    rng = np.random.default_rng(3)
    vectors = {name: rng.normal(0, 0.02, (count, width)).astype(np.float32) for name, width in WIDTHS[model].items()}
    about = {"concept": "fox", "generator": "my-model", "initializer": "toy", "steps": "300", "version": "ti-pipeline 1"}
    drawn = (("a <fox> on the moon", picture()),)
    return replace(Export("ti-fox", "<fox>", "object", vectors, about, "Ann", "CC BY 4.0", drawn), **changes)


def same(read: dict[str, torch.Tensor], export: Export) -> bool:
    """Whether a reader has the very vectors, whatever it calls its text encoders."""
    names = {"t5xxl": "t5", "l": "text"}
    found = {names.get(name, name): rows for name, rows in read.items()}
    return found.keys() == export.rows.keys() and all(torch.equal(found[name], torch.from_numpy(export.rows[name])) for name in found)


@pytest.mark.parametrize("model", WIDTHS)
def test_a_word_goes_to_the_tools_that_can_use_it(model: str) -> None:
    assert [tool.name for tool in exported(model).tools] == USED_BY[model]


L, G, T = {"clip_l": "text_encoder"}, {"clip_g": "text_encoder_2"}, {"t5": "text_encoder_3"}


@pytest.mark.parametrize(
    ("model", "tables", "used_by"),
    [
        ("xl", L | G, USED_BY["xl"]),
        ("xl", L | G | {"t5": None}, ["diffusers"]),  # it looks like SDXL's, and is of a model that others take with its T5
        ("xl", L | G | T, ["diffusers"]),
        ("v3", L | G | T, ["diffusers", "comfyui", "onetrainer"]),
        ("flux", L | {"t5": "text_encoder_2"}, USED_BY["flux"]),
        ("paper", {"text": "bert"}, ["diffusers"]),
        ("v2", {"text": "text_encoder"}, ["diffusers"]),  # as wide as a CLIP's, and of a language model
    ],
)
def test_a_word_that_diffusers_does_not_load_by_itself_goes_to_tools_that_know_its_model(
    model: str, tables: dict[str, str | None], used_by: list[str]
) -> None:
    export = exported(model, about={"concept": "fox", "initializer": "toy", "tables": json.dumps(tables)})
    assert [tool.name for tool in export.tools] == used_by
    line, typed = export.line(TOOLS["diffusers"]), export.typed(TOOLS["diffusers"])
    assert "def teach(" in line and "load_textual_inversion" not in line and typed == "<fox> <fox>_1"
    assert line.count("teach(word[") == len(export.rows) and "pipe.None" not in line
    assert "    def teach(rows, tokenizer, text_encoder):\n" in export.text and "and write <fox> <fox>_1 in the prompt" in export.text
    with_others = len(used_by) > 1
    said = export.weights(TOOLS["diffusers"])[:9000]
    assert (b'"modelspec.architecture":"unknown/' in said) != with_others


def test_of_a_word_with_rows_for_each_layer_the_mean_goes_out(tmp_path: Path) -> None:
    path, layers = tmp_path / "word.safetensors", torch.stack([torch.ones(2, 8), 3 * torch.ones(2, 8), 5 * torch.ones(2, 8)])
    write_word(path, Word.layered("<fox>", {ONLY: layers}))
    rows, _ = read_rows(path, "fox")
    assert rows.keys() == {ONLY} and np.array_equal(rows[ONLY], 3 * np.ones((2, 8), np.float32))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("model", "tool"), [(model, tool) for model, tools in USED_BY.items() for tool in tools])
def test_each_tools_reader_finds_the_vectors_and_the_word_that_is_typed(model: str, tool: str, count: int, tmp_path: Path) -> None:
    export = exported(model, count)
    write_export(export, TOOLS[tool], tmp_path)
    path, typed = tmp_path / "ti-fox.safetensors", export.typed(TOOLS[tool])
    if tool in ("a1111", "forge", "invoke", "kohya"):
        word, read = getattr(readers, tool)(path)
        assert word == typed
    elif tool == "comfyui":
        own = {"t5": "t5xxl", "text": "l"}
        word, read = readers.comfyui(path, {own.get(name, name): width for name, width in WIDTHS[model].items()})
        assert word == typed
    elif tool == "onetrainer":
        read = readers.onetrainer(path)
    elif tool == "swarmui":
        word, about = readers.swarmui(path)
        assert word == typed and about["title"] == "ti-fox" and about["author"] == "Ann" and about["license"] == "CC BY 4.0"
        return
    elif tool == "sd-concepts":
        token, kind, read = readers.sd_concepts(tmp_path / "ti-fox")
        assert (token, kind) == ("<fox>", "object") == (typed, export.kind)
    else:
        read = _as_diffusers(export, path)
    assert same(read, export)


def _as_diffusers(export: Export, path: Path) -> dict[str, torch.Tensor]:
    """What its line hands to each text encoder of a pipeline; the library takes a file of one key."""
    got: dict[str, torch.Tensor] = {}

    class Pipe:
        text_encoder, text_encoder_2, tokenizer, tokenizer_2 = "0", "1", "0", "1"

        def load_textual_inversion(self, what: object, token: str, text_encoder: str = "0", tokenizer: str = "0") -> None:
            assert token == "<fox>" and text_encoder == tokenizer
            if isinstance(what, str):
                ((_, what),) = load_file(what).items()
            got[list(export.rows)[int(text_encoder)]] = what

    exec(export.line(TOOLS["diffusers"]).replace("ti-fox.safetensors", str(path)), {"pipe": Pipe()})
    return got


def test_diffusers_itself_loads_the_file_by_its_line(tmp_path: Path) -> None:
    from importlib import resources

    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(str(resources.files("ti_pipeline.miniature") / "generator"))
    width = pipe.text_encoder.get_input_embeddings().weight.shape[1]
    export = exported("small", rows={"text": np.full((2, width), 0.01, np.float32)})
    write_export(export, TOOLS["diffusers"], tmp_path)
    exec(export.line(TOOLS["diffusers"]).replace("ti-fox", str(tmp_path / "ti-fox")), {"pipe": pipe})
    ids = pipe.tokenizer.convert_tokens_to_ids(["<fox>", "<fox>_1"])
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], torch.from_numpy(export.rows["text"]))


def test_the_bytes_are_the_same_in_every_process_and_name_what_is_known(tmp_path: Path) -> None:
    export = exported("v1")
    files = export.files(TOOLS["a1111"])
    assert files == exported("v1").files(TOOLS["invoke"]) and set(files) == {"ti-fox.txt", "ti-fox.preview.png", "ti-fox.safetensors"}
    code = "from tests.words.test_export import exported; from ti_pipeline.words.tools import TOOLS; import hashlib, sys; " + (
        "print(*[hashlib.sha256(b''.join(exported('v1').files(TOOLS[t]).values())).hexdigest() for t in ('a1111', 'sd-concepts')])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    own = [hashlib.sha256(b"".join(export.files(TOOLS[tool]).values())).hexdigest() for tool in ("a1111", "sd-concepts")]
    assert other.stdout.split() == own
    write_export(export, TOOLS["a1111"], tmp_path)
    with safe_open(tmp_path / "ti-fox.safetensors", framework="pt") as file:
        about = file.metadata()
    assert about["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion" and about["modelspec.sai_model_spec"] == "1.0.0"
    assert about["modelspec.trigger_phrase"] == "ti-fox" and "ComfyUI: embedding:ti-fox" in about["modelspec.usage_hint"]
    assert about["modelspec.hash_sha256"] == "0x" + hashlib.sha256(export.rows["text"].tobytes()).hexdigest()
    assert about["modelspec.thumbnail"].startswith("data:image/jpeg;base64,") and about["generator"] == "my-model"
    text = (tmp_path / "ti-fox.txt").read_text()
    assert "Owner: Ann\nLicense: CC BY 4.0\n" in text and "In InvokeAI: write <ti-fox> in the prompt" in text
    assert (tmp_path / "ti-fox.preview.png").read_bytes() == picture()


def test_a_tool_without_such_a_model_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match=r"fox: A1111 has no model for a word whose vectors have 32 \(text\) numbers. .*: diffusers"):
        write_export(exported("small"), TOOLS["a1111"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_words_file_is_not_overwritten(tmp_path: Path) -> None:
    write_export(exported("v1"), TOOLS["a1111"], tmp_path)
    before = (tmp_path / "ti-fox.safetensors").stat().st_mtime_ns
    write_export(exported("v1"), TOOLS["a1111"], tmp_path)
    assert (tmp_path / "ti-fox.safetensors").stat().st_mtime_ns == before
    other = exported("v1")
    with pytest.raises(ConceptError, match="ti-fox.safetensors is there already and is not a word of cat"):
        write_export(replace(other, about={**other.about, "concept": "cat"}), TOOLS["a1111"], tmp_path)
    (tmp_path / "ti-fox.safetensors").write_bytes(b"of another tool")
    with pytest.raises(ConceptError, match="is there already"):
        write_export(other, TOOLS["a1111"], tmp_path)


def test_a_hundred_words_in_a_folder_have_names_of_their_own_that_are_no_words(tmp_path: Path) -> None:
    whole = (piece.removesuffix("</w>") for piece in sorted(readers.vocabulary()) if piece.endswith("</w>"))
    slugs = [word for word in whole if word.isascii() and word.isalpha() and len(word) > 3][:3000:30]
    names = names_for(slugs)
    for slug, name in names.items():
        export = exported("v1", name=name, token=f"<{slug}>", about={"concept": slug})
        write_export(export, TOOLS["kohya"], tmp_path)
        assert readers.kohya(tmp_path / export.file)[0] == name
    assert len(slugs) == 100 and len(list(tmp_path.glob("*.safetensors"))) == 100
    assert len({path.name.lower() for path in tmp_path.iterdir()}) == 300
    check_apart({name: 2 for name in names.values()})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fox", "in CLIP's vocabulary"),
        ("Fox", "in CLIP's vocabulary"),
        ("7", "in CLIP's vocabulary"),
        ("ti", "in CLIP's vocabulary"),
        ("<fox>", "only letters, digits"),
        ("my fox", "only letters, digits"),
        ("fox:1.2", "only letters, digits"),
        ("-fox", "the first no sign"),
        ("fox.v2", "only letters, digits"),
        ("füchsin", "only letters, digits"),
        ("f" * 71, "71 characters"),
        ("COM1", "no file name on Windows"),
        ("", "only letters, digits"),
    ],
)
def test_a_name_that_a_reader_trips_over_is_refused(name: str, reason: str) -> None:
    assert reason in refused(name)
    with pytest.raises(ParamsError, match="--name: fox would be called"):
        names_for(["fox"], name)


def test_names_that_two_words_would_have_are_refused() -> None:
    with pytest.raises(ParamsError, match="a and b would both be called my-word"):
        names_for(["a", "b"], "my-word")
    assert names_for(["a"], "my-word") == {"a": "my-word"}
    with pytest.raises(ParamsError, match="the 2 vectors of ti-fox ti-fox, ti-fox1 and so on, and ti-fox1 is a word of its own"):
        check_apart({"ti-fox": 2, "ti-fox1": 1})
    check_apart({"ti-fox": 1, "ti-fox1": 1})


def test_what_leaves_a_workspace_does_not_name_its_pictures_unless_asked(tmp_path: Path) -> None:
    workspace, manifest = add_concept(tmp_path, "duck-toy", "owner: Ö Studio\nlicense: CC0\ntoken: <duck>\n")
    with pytest.raises(NotYet, match="Run `ti-pipeline train duck-toy` first"):
        export_of(workspace, manifest, "ti-duck-toy")
    secret = {picture.file: picture.digest for picture in manifest.pictures}
    add_word(workspace, "duck-toy", "<duck>", concept="duck-toy", picture_digests=json.dumps(secret), fingerprint="f", steps="3")
    export = export_of(workspace, manifest, "ti-duck-toy")
    for tool in export.tools:
        content = b"".join(export.files(tool).values())
        assert not any(file.encode() in content for file in secret) and "Ö Studio".encode() in content
        assert not any(name.startswith("ti-duck-toy/concept_images/") for name in export.files(tool))
    asked = export_of(workspace, manifest, "ti-duck-toy", with_pictures=True)
    files = asked.files(TOOLS["sd-concepts"])
    assert sum("concept_images/" in name for name in files) == len(manifest.pictures)
    assert next(iter(secret)).encode() in files["ti-duck-toy/learned_embeds.safetensors"]
    assert (
        isinstance(workspace, Workspace)
        and export.owner == "Ö Studio"
        and export.about["steps"] == "3"
        and "fingerprint" not in export.about
    )
