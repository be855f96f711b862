"""Pages for users: their Python and their commands run as they stand, and every key that they name is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_contributing import ROOT, run
from ti_pipeline.concepts.settings import Settings

FOX = ROOT / "examples" / "concepts" / "fox"
COMING = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
QUICK = {"train": {"steps": 2}, "generate": {"candidates": 2, "steps": 2}, "evaluate": {"samples": 2, "samples_per_prompt": 2, "steps": 2}}
pytestmark = pytest.mark.slow


def pictures(folder: Path, suffix: str = "") -> None:
    """The fox's, with a caption beside the first if there is a suffix for its file."""
    folder.mkdir(parents=True)
    for path in FOX.glob("*.png"):
        shutil.copy(path, folder / path.name)
    if suffix:
        (folder / f"blue{suffix}").write_text("a picture of a {token} on a blue background", encoding="utf-8")


@pytest.fixture
def brought(tmp_path: Path) -> Path:
    """What people come with: a folder that each tool has been given."""
    folder = tmp_path / "brought"
    pictures(folder / "mmagic" / "data" / "cat_toy")
    (folder / "mmagic" / "data" / "imagenet_templates_small.txt").write_text("a photo of a {}\n", encoding="utf-8")
    pictures(folder / "cat")
    pictures(folder / "train" / "10_mug cup", ".caption")
    pictures(folder / "processed", ".txt")
    return folder


@pytest.mark.parametrize("page", ["notebooks", "coming-from"])
def test_the_python_of_a_page_runs(page: str, brought: Path) -> None:
    done = run(ROOT / "docs" / f"{page}.md", brought)
    assert done.returncode == 0, done.stdout + done.stderr
    made = {"notebooks": "fox.safetensors", "coming-from": "cat-toy-bag.png"}
    assert (brought / made[page]).is_file()


def test_the_commands_run_one_after_the_other(brought: Path) -> None:
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", COMING, re.DOTALL | re.MULTILINE))
    begun, made = shell.split("\ncd toys\n")
    small = f"{sys.executable} -c \"import yaml; t = yaml.safe_load(open('params.yaml')); [t[k].update(v) for k, v in {QUICK}.items()]; "
    small += "open('params.yaml', 'w').write(yaml.safe_dump(t))\""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    script = f"set -eu\n{begun}\ncd toys\n{small}\n{made}"
    done = subprocess.run(["bash", "-c", script], cwd=brought, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    toys = brought / "toys"
    assert re.findall(r"^([a-z_-]+) +done", done.stdout, re.MULTILINE)[:4] == ["cat_toy", "cat_toy", "cat-toy", "mug"]
    assert "Contact sheet: " in done.stdout
    assert len([*(toys / "artifacts" / "drawings").glob("a-our-mascot-*.png")]) == 3
    assert (toys / "artifacts" / "embeddings" / "our-mascot" / "learned_embeds.safetensors").is_file()


def test_every_key_is_one() -> None:
    sections = "|".join(key for key, value in PARAMS.items() if isinstance(value, dict))
    keys = set(re.findall(rf"`((?:{sections})\.\w+)", COMING))
    assert {"train.steps", "generate.solver", "concepts.folder"} <= keys and len(keys) >= 25

    def there(key: str) -> Any:
        section, name = key.split(".")
        return name in PARAMS[section]

    assert [key for key in sorted(keys) if not there(key)] == []
    for key in ("token", "initializer", "kind", "captions", "vectors", "briefs", "steps", "start_from", "templates"):
        assert f"`{key}" in COMING and key in Settings.model_fields


def test_values_that_are_named_are_allowed() -> None:
    from ti_pipeline.params import load

    given = re.findall(r"`(train\.\w+): (\w+)`", COMING)
    assert {key for key, _ in given} == {"train.fit", "train.flip"}
    for key, value in given:
        load(ROOT / "params.yaml", [f"{key}={value}"])
