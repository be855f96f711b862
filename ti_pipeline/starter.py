"""The files that a workspace begins with: in a clone they lie at its top, in an installed package within it (`setup.py`)."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline.errors import ParamsError

EXAMPLES = "examples/concepts"


def starter() -> Path:
    """The folder that holds params.yaml, dvc.yaml and the example concepts. Raises ParamsError where a package lacks them."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_workspace", package.parent):
        if (folder / "params.yaml").is_file() and (folder / EXAMPLES).is_dir():
            return folder
    raise ParamsError(f"{package} lacks the files that a workspace begins with. The package is incomplete: install it again.")
