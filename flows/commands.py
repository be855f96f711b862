"""The commands that run flows, beside those of the library: together they are `ti-pipeline`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ti_pipeline.call import Call, Concepts, ForceOption, JsonOption, SetOption, with_call
from ti_pipeline.cli import WithOption, app, main
from ti_pipeline.errors import ParamsError
from ti_pipeline.starter import EXAMPLES, starter
from ti_pipeline.terminal import note, print_summary, print_where_to_look, say_json


@app.command()
@with_call
def run(
    call: Call,
    concepts: Concepts = None,
    force: ForceOption = False,
    json_: JsonOption = False,
    compare: Annotated[bool, typer.Option("--compare", help="Validate and compare setups, and nothing else.")] = False,
    with_: WithOption = None,
) -> None:
    """The whole chain through Prefect, here."""
    if with_ and not compare:
        raise ParamsError("--with goes with --compare: what every run does follows from params.yaml alone.")
    given = _given(call, concepts, force)
    summary = _flow("compare_setups", given | {"overlay": _whole(with_)}) if compare else _flow("train_concepts", given)
    if json_:
        say_json(summary)
    else:
        print_summary(summary)
    _leave(summary)


def _given(call: Call, concepts: list[str] | None = None, force: bool = False) -> dict[str, Any]:
    """What both flows are called with."""
    root, chosen = str(call.workspace.expanduser()), concepts or None
    return {"workspace": root, "params": _whole(call.params), "overrides": [*call.overrides], "concepts": chosen, "force": force}


def _whole(path: Path | None) -> str | None:
    return str(path.expanduser().resolve()) if path else None


def _flow(name: str, given: dict[str, Any]) -> dict:
    import httpx

    from flows.signals import ends_when_told

    file, overlay = given["params"], given.get("overlay")  # wrong params are told before a server is started
    call = Call(Path(given["workspace"]), Path(file) if file else None, tuple(given["overrides"]))
    place, _ = call.open(Path(overlay) if overlay else None)
    prefect_server, flows, turn = _prefect()
    with ends_when_told(), turn(place.root, note), prefect_server(place.root):
        try:
            state = flows[name](**given | {"workspace": str(place.root)}, return_state=True)
        except httpx.HTTPError as error:
            note(f"ti-pipeline: Prefect's server does not answer any more ({error}). What is done is kept; run it again to see it.")
            raise typer.Exit(3) from None
        summary = state.result(raise_on_failure=False)
    if isinstance(summary, BaseException):
        raise summary
    return summary


def _prefect() -> tuple[Callable, dict[str, Callable], Callable]:
    """Imports Prefect, which takes seconds and reads what is set for it. Its own handler is the run's: with the time, and of which task."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    try:
        from flows.compare_setups import compare_setups
        from flows.server import prefect_server
        from flows.train_concepts import train_concepts
        from tasks.turn import turn
    except ValueError as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{error.title}: {first['loc'][-1]}: {first['msg']}"
        raise ParamsError(f"what is set for Prefect (PREFECT_…, or its profile) is wrong: {why}") from None
    return prefect_server, {"train_concepts": train_concepts, "compare_setups": compare_setups}, turn


@app.command()
def demo(
    workspace: Annotated[Path, typer.Option("--workspace", help="A folder for the demo; made if it is not there.", metavar="DIR")] = Path(
        "build/demo"
    ),
    set_: SetOption = None,
) -> None:
    """The whole chain on the example concepts with the embedded model, then where to look."""
    source = starter()
    workspace = workspace.expanduser()
    workspace.mkdir(parents=True, exist_ok=True)
    overrides = (f"concepts.folder={source / EXAMPLES}", *(set_ or ()))
    summary = _flow("train_concepts", _given(Call(workspace, source / "params.yaml", overrides)))
    print_summary(summary)
    print_where_to_look(workspace.resolve() / "artifacts" / "galleries" / "index.html")
    _leave(summary)


def _leave(summary: dict) -> None:
    if summary["troubles"] or any(state not in ("done", "up-to-date") for state in summary["concepts"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
