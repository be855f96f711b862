"""The command `ti-pipeline`.

Exit status: 0 all done; 1 some concept failed; 2 the call or the params are wrong; 3 the stage itself broke off.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from ti_pipeline import __version__
from ti_pipeline.errors import ParamsError, PipelineError
from ti_pipeline.params import Params, load
from ti_pipeline.workspace import Outcome, Workspace

app = typer.Typer(
    name="ti-pipeline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Textual inversion for hundreds of concepts: from image sets to CLIP-ranked galleries.",
)

Concepts = Annotated[list[str] | None, typer.Argument(metavar="[CONCEPT…]", help="These concepts; without any, all.")]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="The folder that artifacts/ goes to.", metavar="DIR")]
ParamsOption = Annotated[Path | None, typer.Option("--params", help="By default params.yaml in the workspace.", metavar="FILE")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change one value for this call.", metavar="section.key=value")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do again what is up to date.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


def _open(workspace: Path, params: Path | None, overrides: list[str] | None) -> tuple[Workspace, Params]:
    settings = load(params or workspace / "params.yaml", overrides or ())
    return Workspace.at(workspace, settings.concepts.folder), settings


def _report(outcomes: list[Outcome], as_json: bool) -> None:
    """Print what became of every concept and leave with the status that says it."""
    if as_json:
        print(json.dumps([outcome.to_json() for outcome in outcomes], indent=2, ensure_ascii=False))
    else:
        from ti_pipeline.terminal import print_outcomes

        print_outcomes(outcomes)
    if not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(1)


def _stage(name: str):
    def command(
        concepts: Concepts = None,
        workspace: WorkspaceOption = Path("."),
        params: ParamsOption = None,
        set_: SetOption = None,
        force: ForceOption = False,
        json_: JsonOption = False,
    ) -> None:
        from ti_pipeline.stages import STAGES
        from ti_pipeline.terminal import progress

        place, settings = _open(workspace, params, set_)
        with progress(name) as step:
            outcomes = STAGES[name](place, settings, concepts or None, force=force, progress=step)
        _report(outcomes, json_)

    return command


_ABOUT = {
    "validate": "Decode and check every picture; write the manifests.",
    "train": "Learn each concept's word by textual inversion.",
    "generate": "Draw candidates for every brief.",
    "rank": "Order the candidates with CLIP.",
    "evaluate": "Measure likeness and editability, with the paper's references.",
    "gallery": "Build the pages.",
}
for _name, _about in _ABOUT.items():
    app.command(_name, help=_about)(_stage(_name))


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
    _open(workspace, params, set_)  # wrong params are told before a server is started
    summary = _flow(workspace, params, set_, concepts, force)
    if json_:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        from ti_pipeline.terminal import print_summary

        print_summary(summary)
    if any(state not in ("done", "up-to-date") for state in summary["concepts"].values()):
        raise typer.Exit(1)


def _flow(workspace: Path, params: Path | None, overrides: list[str] | None, concepts: list[str] | None, force: bool) -> dict:
    from flows.train_concepts import train_concepts

    return train_concepts(
        workspace=str(workspace.resolve()),
        params=str((params or workspace / "params.yaml").resolve()),
        overrides=list(overrides or ()),
        concepts=concepts or None,
        force=force,
    )


@app.command()
def demo(
    workspace: Annotated[Path, typer.Option("--workspace", help="A folder for the demo; made if it is not there.", metavar="DIR")] = Path(
        "build/demo"
    ),
    set_: SetOption = None,
) -> None:
    """The whole chain on the example concepts with the embedded model, then where to look."""
    from ti_pipeline.terminal import print_summary, print_where_to_look

    source = _checkout()
    workspace.mkdir(parents=True, exist_ok=True)
    overrides = [f"concepts.folder={source / 'examples' / 'concepts'}", *(set_ or ())]
    _open(workspace, source / "params.yaml", overrides)
    summary = _flow(workspace, source / "params.yaml", overrides, None, False)
    print_summary(summary)
    print_where_to_look(workspace.resolve() / "artifacts" / "galleries" / "index.html")
    if any(state not in ("done", "up-to-date") for state in summary["concepts"].values()):
        raise typer.Exit(1)


def _checkout() -> Path:
    """The folder with params.yaml and the examples: here, or where this package was installed from in place."""
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (folder / "params.yaml").is_file() and (folder / "examples" / "concepts").is_dir():
            return folder
    raise ParamsError("the demo needs params.yaml and examples/concepts. Run it in a clone of the repository.")


@app.command()
def status(
    workspace: WorkspaceOption = Path("."),
    params: ParamsOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """What is up to date, stale, missing or quarantined, and why. Changes nothing."""
    from ti_pipeline.status import survey
    from ti_pipeline.terminal import print_status

    place, settings = _open(workspace, params, set_)
    rows = survey(place, settings)
    if json_:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_status(rows)


@app.command()
def version() -> None:
    """The version of this program."""
    print(__version__)


def main() -> None:
    """Run the command; what a person can mend is one message, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        sys.exit(app(standalone_mode=False))  # with this mode a command's Exit comes back as its status
    except (typer.Abort, KeyboardInterrupt):
        print("Stopped. What is finished stands; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except PipelineError as error:
        print(f"ti-pipeline: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"ti-pipeline: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        sys.exit(3)
    except Exception as error:
        if not hasattr(error, "show"):
            logging.exception("this is a fault of ti-pipeline")
            sys.exit(3)
        error.show()  # a call that typer cannot read
        sys.exit(2)


if __name__ == "__main__":
    main()
