"""A real Prefect server, and a small collection with one concept for each way to fall out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.train_concepts import train_concepts
from tests.flows.processes import ROOT

BRIEFS = {"object": ["a photo of a {token}"], "style": ["a picture of a cat in the style of {token}"]}
SMALL: dict[str, dict[str, Any]] = {
    "train": {"steps": 2},
    "generate": {"candidates": 2, "steps": 2, "briefs": BRIEFS},
    "evaluate": {"samples": 2, "samples_per_prompt": 2, "steps": 2, "bootstrap": 10, "prompts": BRIEFS},
}
BEHIND_THE_LIMIT = "word " * 40 + "{token}"


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone has that DVC looks at, with three concepts: one good, one without a picture, one with a brief that cannot work."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("ti_pipeline", ".dvc"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    concepts = folder / params["concepts"]["folder"]
    for slug in ("fox", "talker"):
        shutil.copytree(ROOT / "examples" / "concepts" / "fox", concepts / slug)
    settings = yaml.safe_load((concepts / "talker" / "concept.yaml").read_text())
    (concepts / "talker" / "concept.yaml").write_text(yaml.safe_dump(settings | {"token": "<talker>", "briefs": [BEHIND_THE_LIMIT]}))
    (concepts / "torn").mkdir()
    (concepts / "talker" / "blot.png").write_bytes(b"no picture")
    (concepts / "torn" / "a.jpg").write_bytes((concepts / "fox" / "yellow.png").read_bytes()[:100])
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def finished(server: dict[str, str], checkout: Path) -> tuple[Path, Any]:
    """The collection after one run of the whole flow, and the state that the run ended in."""
    return checkout, train_concepts(workspace=str(checkout), params=str(checkout / "params.yaml"), return_state=True)
