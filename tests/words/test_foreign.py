"""Files of other tools, made by their layouts: each is read as its vectors, or refused by what it is."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from ti_pipeline.errors import ParamsError
from ti_pipeline.words.foreign import Found, read_foreign
from ti_pipeline.words.incoming import words_at

V = torch.linspace(-1, 1, 2 * 768).reshape(2, 768)
G = torch.linspace(-1, 1, 2 * 1280).reshape(2, 1280)
T = torch.linspace(-1, 1, 2 * 4096).reshape(2, 4096)


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def dictionary(entries: dict[str, torch.Tensor], old: bool = False) -> torch.nn.ParameterDict:
    made = torch.nn.ParameterDict({name: torch.nn.Parameter(rows) for name, rows in entries.items()})
    if old:  # as torch before 1.12 pickled it
        state = vars(made)
        state.pop("_keys", None)
        for name in entries:
            state.pop(name, None)
        state["_parameters"] = OrderedDict((name, torch.nn.Parameter(rows)) for name, rows in entries.items())
    return made


def a1111(rows: torch.Tensor, **more: Any) -> dict[str, Any]:
    return {
        "string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "my-cat", "step": 3000, "sd_checkpoint": "cc6c",
        "sd_checkpoint_name": "v1-5", **more,
    }  # fmt: skip


def png(path: Path, chunk: str | None = None, text: str | None = None) -> None:
    def plain(value: Any) -> Any:
        return {"TORCHTENSOR": value.tolist()} if isinstance(value, torch.Tensor) else value

    about = PngInfo()
    packed = base64.b64encode(json.dumps(a1111(V), default=plain).encode()).decode()
    about.add_text(chunk or "sd-ti-embedding", text or packed)
    Image.new("RGB", (8, 8)).save(path, format="PNG", pnginfo=about)


ONE = {"text": V}
READ: dict[str, tuple[Callable[[Path], Any], list[tuple[str, dict[str, torch.Tensor]]]]] = {
    "diffusers.safetensors": (lambda p: save_file({"<cat>": V}, p, {"format": "pt"}), [("<cat>", ONE)]),
    "diffusers.bin": (lambda p: torch.save({"<cat>": V}, p), [("<cat>", ONE)]),
    "concepts-library.bin": (lambda p: torch.save({"<cat>": V[0]}, p), [("<cat>", {"text": V[:1]})]),
    "numbered.safetensors": (lambda p: save_file({"<cat>": V[0].clone(), "<cat>_1": V[1].clone()}, p), [("<cat>", ONE)]),
    "kohya-numbered.pt": (lambda p: torch.save({"cat": V[0], "cat1": V[1]}, p), [("cat", ONE)]),
    "advanced-xl.safetensors": (lambda p: save_file({"clip_l": V, "clip_g": G}, p), [("", {"clip_l": V, "clip_g": G})]),
    "advanced-flux.safetensors": (lambda p: save_file({"clip_l": V, "t5": T}, p), [("", {"clip_l": V, "t5": T})]),
    "comfyui-flux.safetensors": (lambda p: save_file({"clip_l": V, "t5xxl": T}, p), [("", {"clip_l": V, "t5": T})]),
    "paper.pt": (lambda p: torch.save({"string_to_token": {"*": 9}, "string_to_param": dictionary({"*": V})}, p), [("", ONE)]),
    "paper-old.pt": (lambda p: torch.save({"string_to_param": dictionary({"*": V}, old=True)}, p), [("", ONE)]),
    "paper-two.pt": (lambda p: torch.save({"string_to_param": dictionary({"a": V, "b": 2 * V})}, p), [("a", ONE), ("b", {"text": 2 * V})]),
    "a1111.pt": (lambda p: torch.save(a1111(V), p), [("my-cat", ONE)]),
    "a1111-old-zip.PT": (lambda p: torch.save(a1111(V), p, _use_new_zipfile_serialization=False), [("my-cat", ONE)]),
    "a1111.png": (png, [("my-cat", ONE)]),
    "kohya.safetensors": (lambda p: save_file({"emb_params": V}, p, {"modelspec.title": "x"}), [("", ONE)]),
    "invoke-half.safetensors": (lambda p: save_file({"emb_params": V.half()}, p), [("", {"text": V.half().float()})]),
    "bfloat.safetensors": (lambda p: save_file({"emb_params": V.bfloat16()}, p), [("", {"text": V.bfloat16().float()})]),
    "onetrainer.safetensors": (lambda p: save_file({"emp_params": V, "emp_params_out": 2 * V}, p), [("", ONE)]),
    "onetrainer-xl.SAFETENSORS": (
        lambda p: save_file({"clip_l": V, "clip_g": G, "clip_l_out": 2 * V, "clip_g_out": 2 * G}, p), [("", {"clip_l": V, "clip_g": G})]
    ),
    "safetensors-named.bin": (lambda p: save_file({"emb_params": V}, p), [("", ONE)]),
    "list.pt": (lambda p: torch.save([{"a": V[:1]}, {"b": V[1:]}], p), [("", ONE)]),
    "bundle.safetensors": (
        lambda p: save_file({"lora_unet_x.lora_down.weight": V, "bundle_emb.cat.string_to_param.*": V.clone()}, p), [("cat", ONE)]
    ),
    "several.safetensors": (lambda p: save_file({"<a>": V, "<b>": 2 * V}, p), [("<a>", ONE), ("<b>", {"text": 2 * V})]),
    "parameter.bin": (lambda p: torch.save({"<cat>": torch.nn.Parameter(V)}, p), [("<cat>", ONE)]),
}  # fmt: skip
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lora.safetensors": (lambda p: save_file({"lora_te_x.lora_down.weight": V}, p), "an adapter"),
    "peft.safetensors": (lambda p: save_file({"base_model.q_proj.lora_A.weight": V}, p), "an adapter"),
    "custom-diffusion.bin": (lambda p: torch.save({"down.attn2.processor.to_k_custom_diffusion.weight": V}, p), "Custom Diffusion"),
    "model.ckpt": (lambda p: torch.save({"state_dict": {}, "model.diffusion_model.in": V}, p), "a whole model"),
    "encoder.safetensors": (lambda p: save_file({"text_model.embeddings.token_embedding.weight": V}, p), "a text encoder"),
    "out-only.safetensors": (lambda p: save_file({"emp_params_out": V}, p), "only output vectors .emp_params_out."),
    "optimiser.pt": (lambda p: torch.save({"hash": "x", "optimizer_state_dict": {}}, p), "the state of an optimiser"),
    "code.pt": (lambda p: torch.save({"<cat>": V, "more": Evil()}, p), "holds more than tensors"),
    "code.bin": (lambda p: p.write_bytes(pickle.dumps(Evil())), "holds more than tensors"),
    "photo.png": (lambda p: png(p, "parameters", "a cat"), "a picture without a word"),
    "damaged.png": (lambda p: png(p, text="bm90IGpzb24="), "the word in this picture is damaged"),
    "cut.safetensors": (
        lambda p: (save_file({"emb_params": V}, p), p.write_bytes(p.read_bytes()[:-99])),
        "not a readable safetensors file",
    ),
    "empty.pt": (lambda p: p.write_bytes(b""), "broken"),
    "page.bin": (lambda p: p.write_bytes(b"<!doctype html>"), "broken"),
    "nothing.pt": (lambda p: torch.save({}, p), "no word in it"),
    "infinite.safetensors": (lambda p: save_file({"emb_params": V / 0}, p), "not finite"),
    "whole-numbers.pt": (lambda p: torch.save({"<cat>": torch.ones(2, 768, dtype=torch.int64)}, p), "no vectors of a word"),
    "uneven.safetensors": (lambda p: save_file({"clip_l": V, "clip_g": G[:1].clone()}, p), "different numbers of vectors"),
}


def same(found: Found, rows: dict[str, torch.Tensor]) -> bool:
    return found.rows.keys() == rows.keys() and all(torch.equal(found.rows[name], rows[name]) for name in rows)


@pytest.mark.parametrize("name", READ)
def test_a_word_of_another_tool_is_read(name: str, tmp_path: Path) -> None:
    write, expected = READ[name]
    write(tmp_path / name)
    found = read_foreign(tmp_path / name)
    assert [word.name for word in found] == [word for word, _ in expected]
    assert all(same(word, rows) for word, (_, rows) in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_word_is_refused_by_what_it_is_and_runs_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, reason = REFUSED[name]
    write(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=f"{name}: .*{reason}"):
        read_foreign(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_the_two_files_of_a_model_with_two_text_encoders_are_one_word(tmp_path: Path) -> None:
    save_file({"<cat>": V}, tmp_path / "learned_embeds.safetensors")
    save_file({"<cat>": G}, tmp_path / "learned_embeds_2.safetensors")
    (word,) = words_at(tmp_path)
    assert word.name == "<cat>" and same(word, {"clip_l": V, "clip_g": G})


def test_a_repository_names_its_word_and_no_pickle_is_read_where_there_is_another(tmp_path: Path) -> None:
    save_file({"x": V}, tmp_path / "learned_embeds.safetensors")
    torch.save({"x": Evil()}, tmp_path / "learned_embeds.bin")
    (tmp_path / "token_identifier.txt").write_text("<cat-toy>\n")
    png(tmp_path / "preview.png", "parameters", "a cat")
    (word,) = words_at(tmp_path)
    assert word.name == "<cat-toy>" and same(word, ONE)
