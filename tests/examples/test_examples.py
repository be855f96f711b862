"""The worked examples as a reader calls them, with a few steps of learning: every line and every picture of their sheets comes out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.bias import COLOURS, colour, unevenness

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# lines that it prints, with numbers in each; rows and columns of its sheet
EXAMPLES = {"style_word": (2, 3, 16), "two_words": (4, 4, 12), "interpolation": (8, 4, 9), "bias": (4, 6, 12)}
QUICK = ("train.steps=2", "generate.steps=2", "train.pack=8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_one_command(name, tmp_path):
    call = [sys.executable, "-m", f"examples.{name}", "--workspace", str(tmp_path / "work"), *(f"--set={each}" for each in QUICK)]
    said = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, said.stderr[-2000:]
    count, rows, columns = EXAMPLES[name]
    *lines, last = said.stdout.splitlines()
    assert len(lines) == count and all(re.search(r"\d\.\d\d", line) for line in lines)
    sheet = tmp_path / "work" / f"{name}.png"
    assert str(sheet) in last
    with Image.open(sheet) as image:
        assert image.size == (64 * columns, 68 * rows - 4)
        assert np.asarray(image)[:64, :64].std() > 5


@pytest.mark.parametrize("thing", ["car", "rose"])
def test_the_even_sets_have_each_colour_once(thing):
    folder = ROOT / "examples" / "even" / thing
    assert {path.stem: colour(Image.open(path)) for path in folder.glob("*.webp")} == {name: name for name in COLOURS}


def test_unevenness_is_none_of_an_even_draw_and_the_most_of_one_colour():
    assert unevenness([*COLOURS] * 8)[0] == 0
    value, low, high = unevenness(["red"] * 8)
    assert (value, low, high) == (0.75, 0.75, 0.75)
