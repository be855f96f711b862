"""The command of this room. `ti_pipeline.cli` adds it; everything heavy is imported when it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ti_pipeline.call import Call, JsonOption, with_call
from ti_pipeline.terminal import progress, say, say_json, show_table


def add(app: typer.Typer) -> None:
    """Add every command of this room."""
    app.command("draw")(with_call(draw))


def draw(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='With learnt words as they are: "a <fox> on a blue background".')],
    call: Call,
    count: Annotated[int | None, typer.Option("--count", "-n", help="Pictures; by default generate.candidates.", min=1)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="By default the seed of params.yaml.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="By default artifacts/drawings in the workspace.", metavar="DIR")] = None,
    json_: JsonOption = False,
) -> None:
    """Draw a prompt with any words that are learnt: pictures with their recipe inside, the best first on a contact sheet."""
    given = [f"generate.candidates={count}"] * (count is not None) + [f"seed={seed}"] * (seed is not None)
    place, settings = replace(call, overrides=(*call.overrides, *given)).open()
    from ti_pipeline.stages.stage import Run
    from ti_pipeline.studio.drawing import draw as do
    from ti_pipeline.studio.prompt import Known

    folder = (out or place.drawings).expanduser()
    with progress("draw") as step:
        drawn = do(Run.over(place, settings, report=step), prompt, Known(place), folder)
    if json_:
        say_json({"prompt": drawn.prompt, "rule": drawn.rule, "folder": str(folder), "sheet": drawn.sheet_file,
                  "pictures": [picture.to_json() for picture in drawn]})  # fmt: skip
        return
    show_table(("place", "file", "why"), [(str(picture.place), picture.file, picture.reason) for picture in drawn])
    say(f"{drawn.rule[:1].upper()}{drawn.rule[1:]}.\nThe pictures:  {folder}\nContact sheet: {folder / drawn.sheet_file}")
