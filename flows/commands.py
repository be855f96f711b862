"""The commands that run flows, beside those of the library: together they are `ti-pipeline`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ti_pipeline.cli import Concepts, ForceOption, JsonOption, ParamsOption, SetOption, WorkspaceOption, app, main, open_workspace
from ti_pipeline.errors import ParamsError
from ti_pipeline.terminal import note, print_summary, print_where_to_look, say_json


@app.command()
def run(
    concepts: Concepts = None,
    workspace: WorkspaceOption = Path("."),
    params: ParamsOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
    json_: JsonOption = False,
) -> None:
    """The whole chain through Prefect, here."""
    summary = _flow(workspace, params, set_, concepts, force)
    if json_:
        say_json(summary)
    else:
        print_summary(summary)
    _leave(summary)


def _flow(workspace: Path, params: Path | None, overrides: list[str] | None, concepts: list[str] | None, force: bool) -> dict:
    import httpx

    place, _ = open_workspace(workspace, params, overrides)  # wrong params are told before a server is started
    prefect_server, train_concepts, turn = _prefect()
    with turn(place.root, note), prefect_server(place.root):
        try:
            state = train_concepts(
                workspace=str(place.root),
                params=str(params.expanduser().resolve()) if params else None,
                overrides=list(overrides or ()),
                concepts=concepts or None,
                force=force,
                return_state=True,
            )
        except httpx.HTTPError as error:
            note(f"ti-pipeline: Prefect's server does not answer any more ({error}). What is done is kept; run it again to see it.")
            raise typer.Exit(3) from None
        summary = state.result(raise_on_failure=False)
    if isinstance(summary, BaseException):
        raise summary
    return summary


def _prefect() -> tuple[Callable, Callable, Callable]:
    """Imports Prefect, which takes seconds and reads what is set for it. Its own handler is the run's: with the time, and of which task."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    try:
        from flows.server import prefect_server
        from flows.train_concepts import train_concepts
        from tasks.turn import turn
    except ValueError as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{error.title}: {first['loc'][-1]}: {first['msg']}"
        raise ParamsError(f"what is set for Prefect (PREFECT_…, or its profile) is wrong: {why}") from None
    return prefect_server, train_concepts, turn


@app.command()
def demo(
    workspace: Annotated[Path, typer.Option("--workspace", help="A folder for the demo; made if it is not there.", metavar="DIR")] = Path(
        "build/demo"
    ),
    set_: SetOption = None,
) -> None:
    """The whole chain on the example concepts with the embedded model, then where to look."""
    source = _checkout()
    workspace = workspace.expanduser()
    workspace.mkdir(parents=True, exist_ok=True)
    overrides = [f"concepts.folder={source / 'examples' / 'concepts'}", *(set_ or ())]
    summary = _flow(workspace, source / "params.yaml", overrides, None, False)
    print_summary(summary)
    print_where_to_look(workspace.resolve() / "artifacts" / "galleries" / "index.html")
    _leave(summary)


def _checkout() -> Path:
    """The folder with params.yaml and the examples: here, or where this package was installed from in place."""
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (folder / "params.yaml").is_file() and (folder / "examples" / "concepts").is_dir():
            return folder
    raise ParamsError("the demo needs params.yaml and examples/concepts. Run it in a clone of the repository.")


def _leave(summary: dict) -> None:
    if summary["troubles"] or any(state not in ("done", "up-to-date") for state in summary["concepts"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
