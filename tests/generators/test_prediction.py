from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder, write_single_file
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.source import find_source


def test_of_a_single_file_it_is_what_the_setting_says(folder: Path, tmp_path: Path) -> None:
    file = write_single_file(folder, tmp_path / "dream.safetensors")
    beside = write_folder(tmp_path / "dream", weights=False)
    (beside / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    plain, said = find_source(generator_settings(file)), find_source(generator_settings(file, prediction="v_prediction"))
    assert plain.digest != said.digest  # other words, other candidates
    generator = load_tiny(file, prediction="v_prediction")
    assert (generator.digest, generator.diffusion.prediction) == (said.digest, "v_prediction")
    assert generator.solver("ddim", 2).config.prediction_type == "v_prediction"
    assert load_tiny(file).diffusion.prediction == "epsilon"


def test_what_contradicts_the_files_or_means_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"generator.prediction is sample, and .*scheduler_config.json says epsilon"):
        find_source(generator_settings(folder, prediction="sample"))
    assert find_source(generator_settings(folder, prediction="epsilon")).digest == find_source(generator_settings(folder)).digest
    flux = write_flux(tmp_path / "flux", guided=True)
    with pytest.raises(ParamsError, match="generator.prediction: flux follows a rectified flow"):
        find_source(generator_settings(flux, prediction="epsilon"))
