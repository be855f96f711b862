from __future__ import annotations

import subprocess
import sys

LOOKING = """
import sys
import ti_pipeline.candidates.draw, ti_pipeline.inversion.train, ti_pipeline.stages.run, ti_pipeline.stages.table
sys.exit("diffusers" in sys.modules)
"""


def test_a_stage_looks_what_is_to_do_without_the_model_library() -> None:
    assert subprocess.run([sys.executable, "-c", LOOKING], check=False).returncode == 0
