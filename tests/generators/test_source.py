from __future__ import annotations

import shutil
from pathlib import Path

from ti_pipeline.generators.source import find_source
from ti_pipeline.params import Generator, load

ROOT = Path(__file__).parents[2]


def test_a_digest_is_made_once_for_all_concepts_and_anew_for_the_next_stage(tmp_path: Path):
    folder = shutil.copytree(ROOT / "ti_pipeline" / "miniature" / "generator", tmp_path / "model")
    settings: Generator = load(ROOT / "params.yaml", [f"generator.model={folder}"]).generator
    source = find_source(settings)
    before = source.digest
    (folder / "tokenizer" / "more.txt").write_text("changed")
    assert source.digest == before != find_source(settings).digest
