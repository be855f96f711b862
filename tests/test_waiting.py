from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ti_pipeline import waiting
from ti_pipeline.waiting import BRIEFLY, choose_waiting

SAYS = """
import os, sys
import ti_pipeline.generators.generator
assert "torch" in sys.modules  # it was not when the choice was made, or there would be none
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("others", "chosen"),
    [(0, {"GOMP_SPINCOUNT": BRIEFLY}), (None, {"GOMP_SPINCOUNT": BRIEFLY}), (1, {"OMP_WAIT_POLICY": "PASSIVE"})],
)
def test_threads_sleep_where_others_are_at_work(monkeypatch: pytest.MonkeyPatch, others: int | None, chosen: dict[str, str]) -> None:
    monkeypatch.setattr(waiting, "_others", lambda: others)
    environment: dict[str, str] = {}
    choose_waiting(environment)
    assert environment == chosen
    for said in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(said)
        choose_waiting(environment)
        assert environment == said


def test_it_is_chosen_before_torch_reads_it() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        says = subprocess.run([sys.executable, "-c", SAYS], env=environment, capture_output=True, text=True, check=True).stdout
    finally:
        busy.kill()
        busy.wait()
    assert says.split() == ["PASSIVE", "None"]
