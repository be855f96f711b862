from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ti_pipeline.errors import ParamsError
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.headers import word_fingerprint, word_token
from ti_pipeline.words.word import ONLY, Word

VECTORS = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7
PROVENANCE = {"concept": "mug", "steps": "300", "fingerprint": "abc", "note": "ünïcode “quotes” \\ and\nlines"}


def test_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "learned_embeds.safetensors"
    write_word(path, Word("<mug>", {ONLY: VECTORS}, provenance=PROVENANCE))
    read = read_word(path)
    assert read.token == "<mug>" and torch.equal(read.rows[ONLY], VECTORS)
    assert read.provenance == PROVENANCE | {"format": "pt"}
    assert word_fingerprint(path) == "abc"


def test_the_library_itself_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "learned_embeds.safetensors"
    write_word(path, Word("<mug>", {ONLY: VECTORS.double()}, provenance=PROVENANCE))
    assert torch.equal(load_file(path)["<mug>"], VECTORS)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == PROVENANCE | {"format": "pt"}


def test_equal_contents_are_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path;"
        "from ti_pipeline.words.files import write_word; from ti_pipeline.words.word import Word;"
        "write_word(Path(sys.argv[1]), Word('<mug>', {'text': torch.ones(2, 3)}, provenance=dict.fromkeys(sys.argv[2].split(','), 'x')))"
    )
    for name, keys, hashing in (("one", "a,b,c,d,e", "1"), ("two", "e,d,c,b,a", "2")):
        environment = os.environ | {"PYTHONHASHSEED": hashing}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name), keys], check=True, env=environment, cwd=Path(__file__).parents[2])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "token"),
    [
        ("diffusers.bin", {"<mug>": VECTORS}, "<mug>"),
        ("one-vector.bin", {"<mug>": VECTORS[0]}, "<mug>"),
        ("a1111.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "my mug", "step": 500}, "my mug"),
        ("paper.pt", {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": VECTORS})}, "paper"),
        ("kohya.safetensors", {"emb_params": VECTORS}, "kohya"),
        ("onetrainer.safetensors", {"emp_params": VECTORS, "emp_params_out": -VECTORS}, "onetrainer"),
        ("half.safetensors", {"<mug>": VECTORS.half()}, "<mug>"),
    ],
)
def test_files_of_other_tools(tmp_path: Path, name: str, content: dict, token: str) -> None:
    path = tmp_path / name
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    read = read_word(path)
    assert read.token == token and read.rows[ONLY].dtype == torch.float32 and not read.rows[ONLY].requires_grad
    torch.testing.assert_close(read.rows[ONLY], VECTORS[:1] if name == "one-vector.bin" else VECTORS, rtol=1e-3, atol=1e-3)


def test_one_of_several_words_is_chosen_by_its_token(tmp_path: Path) -> None:
    path = tmp_path / "paper.pt"
    torch.save({"string_to_param": torch.nn.ParameterDict({"mug": VECTORS, "cup": -VECTORS})}, path)
    assert torch.equal(read_word(path, "cup").rows[ONLY], -VECTORS)
    with pytest.raises(ParamsError, match="found: cup, mug"):
        read_word(path)
    with pytest.raises(ParamsError, match="no word jug"):
        read_word(path, "jug")


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


def test_what_is_no_word_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"<mug>": VECTORS, "more": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10" * 40)
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 no zip")
    (tmp_path / "empty.bin").write_bytes(b"")
    torch.save([VECTORS], tmp_path / "list.pt")
    reasons = {
        "evil.pt": "more than tensors",
        "broken.safetensors": "not a readable",
        "broken.pt": "broken",
        "empty.bin": "broken",
        "list.pt": "no word in it",
        "missing.bin": "no such word",
    }
    for name, reason in reasons.items():
        with pytest.raises(ParamsError, match=reason):
            read_word(tmp_path / name)
    assert not (tmp_path / "pwned").exists()
    assert word_fingerprint(tmp_path / "broken.safetensors") == word_fingerprint(tmp_path / "missing") == ""


def test_a_word_of_several_parts_comes_back_whole(tmp_path: Path) -> None:
    parts = {"clip_l": VECTORS, "clip_g": torch.cat([VECTORS, VECTORS], dim=1)}
    word = Word("<mug>", parts, adapters={"layer.down": torch.ones(2, 3, 4)}, provenance={"initializer": "a mug"})
    write_word(tmp_path / "learned_embeds.safetensors", word)
    read = read_word(tmp_path / "learned_embeds.safetensors")
    assert (read.token, read.class_words, len(read)) == ("<mug>", "a mug", 2)
    assert word_token(tmp_path / "learned_embeds.safetensors") == "<mug>"
    assert read.rows.keys() == parts.keys() and all(torch.equal(read.rows[name], rows) for name, rows in parts.items())
    assert torch.equal(read.adapters["layer.down"], torch.ones(2, 3, 4))


def test_a_word_with_rows_for_each_layer_comes_back_whole(tmp_path: Path) -> None:
    """Tools that know of no layers find their mean under the token."""
    path, layers = tmp_path / "learned_embeds.safetensors", {ONLY: torch.stack([VECTORS, 3 * VECTORS])}
    write_word(path, Word.layered("<mug>", layers, "mug"))
    read = read_word(path)
    assert word_token(path) == read.token == "<mug>" and len(read) == 2
    torch.testing.assert_close(load_file(path)["<mug>"], 2 * VECTORS)
    assert read.layers.keys() == layers.keys() and torch.equal(read.layers[ONLY], layers[ONLY])
    assert Word("<mug>", {ONLY: VECTORS}).layers == {}
