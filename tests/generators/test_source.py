from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ti_pipeline.generators.source import Source, find_source
from ti_pipeline.params import Generator, load

ROOT = Path(__file__).parents[2]


def test_a_digest_is_made_once_for_all_concepts_and_anew_for_the_next_stage(tmp_path: Path):
    folder = shutil.copytree(ROOT / "ti_pipeline" / "miniature" / "generator", tmp_path / "model")
    settings: Generator = load(ROOT / "params.yaml", [f"generator.model={folder}"]).generator
    source = find_source(settings)
    before = source.digest
    (folder / "tokenizer" / "more.txt").write_text("changed")
    assert source.digest == before != find_source(settings).digest


def test_only_a_file_has_the_digest_of_one(tmp_path: Path):
    (tmp_path / "dream.safetensors").write_bytes(b"weights")
    assert Source("dream", tmp_path / "dream.safetensors", "file").file_digest == hashlib.sha256(b"weights").hexdigest()
    assert Source("dream", tmp_path, "folder").file_digest == ""
