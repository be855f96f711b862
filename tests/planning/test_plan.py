from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_stable_diffusion import write_folder, write_single_file
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.load import load_generator
from ti_pipeline.params import Params, load
from ti_pipeline.planning import plan as planning
from ti_pipeline.planning.plan import plan
from ti_pipeline.planning.speed import keep_speed
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).parents[2]
PARTS = ("generator", "learnt", "weights", "activations", "pack", "collection", "seconds", "disk")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _params(*overrides: str) -> Params:
    return load(ROOT / "params.yaml", [f"concepts.folder={ROOT / 'examples' / 'concepts'}", "generator.precision=float32", *overrides])


def _workspace(tmp_path: Path, params: Params) -> Workspace:
    return Workspace.at(tmp_path, params.concepts.folder)


def test_the_numbers_of_the_miniature(tmp_path: Path) -> None:
    params = _params()
    generator = load_generator(params.generator)
    said = plan(_workspace(tmp_path, params), params)
    for name, network in generator.networks.items():
        weights = [*network.parameters(), *network.buffers()]
        assert said["weights"][name]["bytes"] == sum(weight.nbytes for weight in weights)
    assert said["learnt"] == {"vectors": 1, "numbers": 256, "bytes": 1024}
    assert said["pack"] == {"concepts": 5, "limited_by": "the collection"}
    assert said["collection"] == {"concepts": 5, "samples": 5 * 200 * 4, "pictures": {"generate": 240, "evaluate": 5 * 16 + 4 * 16 + 8}}
    assert said["activations"]["further_concept"] == pytest.approx(said["activations"]["concept"], rel=0.1)
    assert set(said["seconds"].values()) == {None}
    assert said["disk"]["candidates"] == 240 * 3 * 64**2
    assert not (tmp_path / "artifacts").exists()


def test_pictures_of_another_size_take_what_their_pixels_do_or_are_refused(tmp_path: Path) -> None:
    params = _params("generate.width=128")
    square, wide = (plan(_workspace(tmp_path, each), each) for each in (_params(), params))
    assert wide["disk"]["candidates"] == 2 * square["disk"]["candidates"]
    assert wide["activations"]["drawing"] > 1.5 * square["activations"]["drawing"]
    assert wide["activations"]["concept"] == square["activations"]["concept"]
    wrong = _params("generate.width=102")
    with pytest.raises(ParamsError, match="generate.width and generate.height: miniature draws no 102 × 64 pixels: both must be multiples"):
        plan(_workspace(tmp_path, wrong), wrong)


def test_a_word_for_each_layer_has_as_many_rows(tmp_path: Path) -> None:
    plain, layered = (_params(), _params("train.setup=layered"))
    one, each = (plan(_workspace(tmp_path, params), params) for params in (plain, layered))
    layers = load_generator(plain.generator).layers
    assert each["learnt"] == {"vectors": layers, "numbers": 256 * layers, "bytes": 1024 * layers}
    assert each["disk"]["words"] == layers * one["disk"]["words"]
    assert each["activations"]["concept"] > one["activations"]["concept"]


@pytest.mark.parametrize("override", ["train.min_snr=5", "train.setup=layered", "generator.encoders=[llm]"])
def test_what_a_run_refuses_a_plan_refuses_too(override: str, tmp_path: Path) -> None:
    params = _params(f"generator.model={write_flux(tmp_path / 'flux')}", override)
    with pytest.raises(ParamsError, match=f"{override.partition('=')[0]}.* flux"):
        plan(_workspace(tmp_path, params), params)


def test_a_word_that_was_learnt_elsewhere_takes_no_training(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "concepts", tmp_path / "concepts")
    params = _params(f"concepts.folder={tmp_path / 'concepts'}")
    before = plan(_workspace(tmp_path, params), params)["collection"]
    settings = tmp_path / "concepts" / "fox" / "concept.yaml"
    settings.write_text(settings.read_text() + "word: learned_embeds.safetensors\n")
    (tmp_path / "concepts" / "fox" / "learned_embeds.safetensors").write_bytes(b"its bytes are not read")
    assert plan(_workspace(tmp_path, params), params)["collection"] == before | {"samples": before["samples"] * 4 // 5}


def test_a_single_file_is_not_quantised(tmp_path: Path) -> None:
    write_folder(tmp_path / "dream", weights=False)
    file = write_single_file(write_folder(tmp_path / "model"), tmp_path / "dream.safetensors")
    params = _params(f"generator.model={file}", "generator.quantise=int8")
    with pytest.raises(ParamsError, match="generator.quantise: .*dream.safetensors is a single file"):
        plan(_workspace(tmp_path, params), params)


def test_time_follows_from_what_this_machine_did_before(tmp_path: Path) -> None:
    params = _params()
    generator = load_generator(params.generator)
    keep_speed("samples", generator, False, 100.0)
    keep_speed("passes", generator, False, 400.0)
    seconds = plan(_workspace(tmp_path, params), params)["seconds"]
    assert (seconds["train"], seconds["generate"], seconds["evaluate"]) == (40.0, 240 * 20 * 2 / 400, 152 * 20 * 2 / 400)
    once = _params("evaluate.guidance_scale=1", "evaluate.steps=10")
    seconds = plan(_workspace(tmp_path, once), once)["seconds"]
    assert (seconds["generate"], seconds["evaluate"]) == (240 * 20 * 2 / 400, 152 * 10 / 400)
    wide = _params("generate.width=128")
    assert plan(_workspace(tmp_path, wide), wide)["seconds"] == seconds | {"generate": None, "evaluate": 152 * 20 * 2 / 400}
    keep_speed("passes", generator, False, 100.0, generator.latents_of(128, 64))
    assert plan(_workspace(tmp_path, wide), wide)["seconds"]["generate"] == 240 * 20 * 2 / 100
    other = _params("generator.checkpointing=true")
    assert plan(_workspace(tmp_path, other), other)["seconds"]["train"] is None


def test_weights_are_not_read_and_memory_limits_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "model")
    params = _params(f"generator.model={folder}")
    before = plan(_workspace(tmp_path, params), params)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    header = weights.read_bytes()
    weights.write_bytes(header[:-1000] + b"\xff" * 1000)  # not numbers any more
    monkeypatch.setattr("ti_pipeline.inversion.capacity.free_bytes", lambda device: before["weights"]["bytes"] + 35 * 10**6)
    said = plan(_workspace(tmp_path, params), params)
    assert said["weights"] == before["weights"]
    assert said["pack"]["limited_by"] == "memory" and said["pack"]["concepts"] in (1, 2, 4)


def test_a_model_that_is_not_here_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    params = _params("generator.model=owner/model")
    with pytest.raises(ParamsError, match="hf download owner/model"):
        plan(_workspace(tmp_path, params), params)


def test_the_command_says_it_to_people_and_programs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ti_pipeline.cli", "plan", "--workspace", str(tmp_path), "--params", str(ROOT / "params.yaml")]
    command += ["--set", f"concepts.folder={ROOT / 'examples' / 'concepts'}", "--set", "generator.precision=float32"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "miniature (Stable Diffusion 1.x or 2.x)" in told and "not known before the first run" in told
    said = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert said["generator"]["family"] == "Stable Diffusion 1.x or 2.x"
    assert planning.ROW * said["disk"]["words"] == said["disk"]["checkpoint"]
    values, units = flat(said), documented()
    assert set(values) == set(units)
    allowed = {"text": (str, type(None)), "seconds": (float, int, type(None))}
    for key, value in values.items():
        assert isinstance(value, allowed.get(units[key], int)), key


def flat(value: object, key: str = "") -> dict[str, object]:
    """The values of a document by the keys that lead to them, with NAME for those of text encoders and networks."""
    if not isinstance(value, dict):
        return {key: value}
    named = key in ("weights", "generator.text_encoders")
    own = {each: "NAME" if named and each != "bytes" else each for each in value}
    return {name: leaf for each in value for name, leaf in flat(value[each], f"{key}.{own[each]}".strip(".")).items()}


def documented() -> dict[str, str]:
    """The unit of each key, by the table in `docs/memory.md`."""
    rows = re.findall(r"^\| `([a-z._A-Z]+)` \| (\w+) \|", (ROOT / "docs" / "memory.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {key: unit for key, unit in rows if key.partition(".")[0] in PARTS}
