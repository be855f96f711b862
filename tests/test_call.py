from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from ti_pipeline.call import Call, JsonOption, with_call
from ti_pipeline.errors import ParamsError

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "concepts").mkdir()
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    return tmp_path


def test_it_opens_what_it_names(workspace: Path) -> None:
    place, settings = Call(workspace, overrides=("concepts.folder=concepts", "train.steps=7")).open()
    assert place.root == workspace and place.concepts == workspace / "concepts" and settings.train.steps == 7
    (workspace / "more.yaml").write_text("train: {steps: 8}\n")
    assert Call(workspace, PARAMS, ("concepts.folder=concepts",)).open(workspace / "more.yaml")[1].train.steps == 8
    with pytest.raises(ParamsError, match="there is no `stps`"):
        Call(workspace, overrides=("train.stps=7",)).open()


def test_a_command_gets_one_for_three_options() -> None:
    seen = []
    app = typer.Typer()

    @app.command()
    @with_call
    def paint(what: str, call: Call, coats: Annotated[int, typer.Option("--coats", min=1)] = 1, json_: JsonOption = False) -> None:
        """Paint it."""
        seen.append((what, call, coats, json_))

    run = CliRunner().invoke
    assert run(app, ["door"]).exit_code == 0
    words = ["--set", "a.b=1", "--workspace", "here", "door", "--coats", "2", "--set", "c.d=2", "--params", "p.yaml", "--json"]
    assert run(app, words).exit_code == 0
    assert seen == [("door", Call(Path(".")), 1, False), ("door", Call(Path("here"), Path("p.yaml"), ("a.b=1", "c.d=2")), 2, True)]
    assert run(app, ["door", "--coats", "0"]).exit_code == run(app, []).exit_code == 2
    shown = run(app, ["--help"]).stdout
    assert "Paint it." in shown and "--call" not in shown
