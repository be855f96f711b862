"""What the pages for contributors show runs as it is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs" / "contributing").glob("*.md")), ROOT / "docs" / "extending.md", *ROOT.glob("CONTRIBUTING.md")]
BLOCK = re.compile(r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[int, str]]:
    """The page's ```python blocks in order: the line of the page that each begins on, and its code."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        lines = block["code"].splitlines(keepends=True)
        code = "".join(line.removeprefix(block["indent"]) for line in lines)
        found.append((text.count("\n", 0, block.start("code")) + 1, code))
    return found


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the blocks in order, in one namespace of a new process. A traceback names the page and the line in it."""
    folder.mkdir(exist_ok=True)
    script = folder.with_suffix(".py")  # beside the folder that the blocks run in
    script.write_text(
        "page = {'__name__': '__main__'}\n"
        f"for line, code in {blocks(page)!r}:\n"
        f"    exec(compile('\\n' * (line - 1) + code, {str(page)!r}, 'exec'), page)\n",
        encoding="utf-8",
    )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, str(script)], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    assert blocks(page) or page.parent == ROOT, "a guide without an example that runs"

    done = run(page, tmp_path / "page")

    assert done.returncode == 0, f"{page.relative_to(ROOT)}:\n{done.stdout}{done.stderr}"


def test_a_block_that_fails_is_named_by_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n```python\nimport ti_pipeline\nnumber = 1\n```\n\n```sh\nexit 3\n```\n\n- A list:\n\n"
        "  ```python\n  if number == 1:\n      raise SystemExit(f'{1 / 0}')\n  ```\n"
    )

    done = run(page, tmp_path / "folder")

    assert [line for line, _ in blocks(page)] == [4, 15]
    assert done.returncode == 1
    assert f'File "{page}", line 16' in done.stderr and "ZeroDivisionError" in done.stderr


def test_blocks_share_a_namespace_and_a_folder_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nfrom pathlib import Path\nPath('made').write_text('here')\n```\n"
        "```python\nassert Path('made').read_text() == 'here'\n```\n"
    )

    assert run(page, tmp_path / "folder").returncode == 0
    assert (tmp_path / "folder" / "made").read_text() == "here"
