"""The notebook from top to bottom, in a process of its own and a folder where nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ti_pipeline.words.files import read_word

NOTEBOOK = Path(__file__).parents[2] / "examples" / "personal.ipynb"
# Each cell as a kernel runs it: what its last expression gives is shown by its own representation.
KERNEL = """
import ast, json, sys
names, shown = {"__name__": "__main__"}, []
for number, cell in enumerate(json.load(sys.stdin)["cells"]):
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]), f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            html = value._repr_html_() if hasattr(value, "_repr_html_") else ""
            png = hasattr(value, "_repr_png_") and value._repr_png_()[:4] == b"\\x89PNG"
            about = {"type": type(value).__name__, "text": repr(value), "png": png}
            shown.append(about | {"pictures": html.count("<img "), "html": html[:200]})
print(json.dumps(shown))
"""


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KERNEL],
        input=NOTEBOOK.read_text(encoding="utf-8"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    word, drawn, best, both, score, exported, again, onwards, published = json.loads(ran.stdout.splitlines()[-1])
    assert (
        word["type"] == "Word" and word["text"] == "Word(token='<fox>', class_words='wolf', digest=" + word["text"].partition("digest=")[2]
    )
    assert [(each["type"], each["pictures"], each["png"]) for each in (drawn, both, again, onwards)] == [
        ("Drawn", 8, True), ("Drawn", 4, True), ("Drawn", 2, True), ("Drawn", 2, True),
    ]  # fmt: skip
    assert best["type"] == "Picture" and best["png"] and score["html"].startswith("<table>")
    assert len([*(tmp_path / "drawn").glob("*.png")]) == 9
    assert "ti-fox.safetensors" in exported["text"] and (tmp_path / "exports" / "sd-concepts" / "ti-fox" / "README.md").is_file()
    vixen = read_word(tmp_path / "personal" / "artifacts" / "embeddings" / "vixen" / "learned_embeds.safetensors")
    assert (vixen.provenance["start_from"], vixen.provenance["steps"]) == ("<reynard>", "10")
    assert "index.html" in published["text"] and 'href="fox/index.html"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert len([*(tmp_path / "site" / "fox" / "pictures").glob("*.png")]) > 4


def test_it_is_kept_without_what_a_run_leaves_in_it() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and len({cell["id"] for cell in notebook["cells"]}) == len(
        notebook["cells"]
    )
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in notebook["cells"] if cell["cell_type"] == "code")
