from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, report


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure at full width")
def test_it_runs_small_and_says_what_was_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "matrix_rate", lambda device, edge: 1e9)
    gpu.measure(["stable-diffusion-1.5"], 3600)
    said = json.loads((tmp_path / "gpu-none.json").read_text())
    assert [row["trainer"] for row in said["rows"]] == ["plain, float32", "plain, bfloat16", "ours, pack of 1", "ours, pack of 2"]
    assert all(row["samples a second"] > 0 and row["× plain"] > 0 for row in said["rows"])
    assert any("Nothing at full width was measured" in note for note in said["notes"])
    gpu.measure(["stable-diffusion-xl"], 0)
    rows = json.loads((tmp_path / "gpu-none.json").read_text())["rows"]
    assert {row["remark"] for row in rows} == {"not measured: no time was left"}
