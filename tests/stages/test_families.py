"""All stages on small models of the families, from pictures to pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.candidates.readers import a1111
from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from tests.stages.quick import ROOT, quick, run
from ti_pipeline.errors import ParamsError
from ti_pipeline.models import Models
from ti_pipeline.workspace import Workspace

STAGES = ("validate", "train", "generate", "rank", "evaluate", "gallery")


CLIPS = {"clip_l": ("text_encoder", 32), "clip_g": ("text_encoder_2", 48)}
FAMILIES: dict[str, tuple[Callable[[Path], Path], dict[str, tuple[str, int]], dict[str, str]]] = {
    "xl": (write_xl, CLIPS, {"CFG scale": "2"}),
    "sd3": (write_stable_diffusion_3, CLIPS, {"CFG scale": "2"}),
    "flux": (write_flux, {"clip_l": ("text_encoder", 32)}, {"CFG scale": "1", "Distilled CFG Scale": "2"}),
    "ldm": (write_ldm, {"text": ("bert", 32)}, {"CFG scale": "2"}),
    "sana": (write_sana, {"text": ("text_encoder", 32)}, {"CFG scale": "2"}),
    "z-image": (write_z_image, {"text": ("text_encoder", 32)}, {"CFG scale": "3"}),
    "qwen-image": (write_qwen_image, {"text": ("text_encoder", 32)}, {"CFG scale": "2"}),
}
Metadata = dict[str, str]


def frog(tmp_path: Path, write: Callable[[Path], Path]) -> tuple[Workspace, list[str]]:
    shutil.copytree(ROOT / "examples" / "concepts" / "frog", tmp_path / "concepts" / "frog")
    how = [f"generator.model={write(tmp_path / 'model')}", "generator.device=cpu", "generator.precision=float32"]
    return Workspace.at(tmp_path, "concepts"), how


def word_of(workspace: Workspace) -> tuple[Metadata, dict[str, torch.Tensor]]:
    with safe_open(workspace.embedding("frog"), framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("family", FAMILIES)
def test_a_concept_goes_from_pictures_to_a_page(family: str, tmp_path: Path) -> None:
    """With a guidance of 2, as it is counted in the family's stock pipeline; the texts for other tools count it as these do."""
    write, encoders, guidance = FAMILIES[family]
    workspace, how = frog(tmp_path, write)
    params = quick(*how)
    for stage, outcomes in run(workspace, params, *STAGES).items():
        assert outcomes["frog"].state == "done", (stage, outcomes["frog"].reason)
    about, rows = word_of(workspace)
    assert {len(each) for each in rows.values()} == {1} and sorted(each.shape[1] for each in rows.values()) == sorted(
        width for _, width in encoders.values()
    )
    assert {name: json.loads(about["tables"])[name] for name in encoders} == {name: part for name, (part, _) in encoders.items()}
    pictures = [*workspace.candidates("frog").glob("*.png")]
    for path in pictures:
        with Image.open(path) as picture:
            said = a1111(picture.text["parameters"]).more
            assert json.loads(picture.text["ti-pipeline"])["guidance_scale"] == 2.0
        assert {name: number for name, number in said.items() if "CFG" in name} == guidance
    assert pictures
    page = (tmp_path / "artifacts" / "galleries" / "frog" / "index.html").read_text(encoding="utf-8")
    assert f"pipe.{next(iter(encoders.values()))[0]})" in page
    assert f'"guidance":{json.dumps(guidance, separators=(",", ":"))}' in page
    for stage, outcomes in run(workspace, params, *STAGES).items():
        assert outcomes["frog"].state == "up-to-date", (stage, outcomes["frog"].reason)


def test_another_density_of_noise_levels_is_another_word(tmp_path: Path) -> None:
    workspace, how = frog(tmp_path, write_z_image)

    def train(*density: str) -> str:
        return run(workspace, quick(*how, *density), "train")["train"]["frog"].state

    run(workspace, quick(*how), "validate")
    assert train() == "done"
    (usual, rows) = word_of(workspace)
    assert train("generator.density=uniform") == "up-to-date" and "density" not in usual
    assert train("generator.density=logit-normal") == "done"
    (other, moved) = word_of(workspace)
    assert other["density"] == "logit-normal" and usual["fingerprint"] != other["fingerprint"]
    assert rows.keys() == moved.keys() and not any(torch.equal(rows[name], moved[name]) for name in rows)
    assert train() == "done" and all(torch.equal(rows[name], again) for name, again in word_of(workspace)[1].items())


def test_a_density_of_what_has_none_is_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, how = frog(tmp_path, write_xl)
    run(workspace, quick(*how), "validate")
    monkeypatch.setattr(Models, "generator", property(lambda models: pytest.fail("it was loaded")))
    with pytest.raises(ParamsError, match="generator.density: model learns from the timesteps of its schedule"):
        run(workspace, quick(*how, "generator.density=uniform"), "train")
