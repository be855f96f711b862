"""The command `ti-pipeline`: one stage, here. `flows.commands` adds the whole chain.

Exit status: 0 all done; 1 some concept failed; 2 the call or the params are wrong; 3 the stage itself broke off;
130 stopped with Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from ti_pipeline import __version__
from ti_pipeline.call import Call, Concepts, ForceOption, JsonOption, with_call
from ti_pipeline.comparison.state import told
from ti_pipeline.errors import PipelineError, in_words
from ti_pipeline.loopback import spare_loopback
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.compare import COMPARE
from ti_pipeline.stages.gallery import GALLERY
from ti_pipeline.stages.rank import RANK
from ti_pipeline.stages.stage import Run, Stage
from ti_pipeline.stages.table import STAGES
from ti_pipeline.stages.turns import OVERVIEW, turn
from ti_pipeline.studio import commands as studio
from ti_pipeline.terminal import STOPPED, log_to_stderr, print_outcomes, print_plan, print_status, print_study, progress, say, say_json
from ti_pipeline.versioning import commands
from ti_pipeline.words import commands as words
from ti_pipeline.workspace import Outcome, Workspace

app = typer.Typer(
    name="ti-pipeline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Textual inversion for hundreds of concepts: from image sets to CLIP-ranked galleries.",
)


class PagesFirst(typer.core.TyperGroup):
    """`gallery` with a command of its own is that; with anything else it builds pages: `gallery`, `gallery fox`, `gallery --force`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["build", *args]
        return super().parse_args(ctx, args)


gallery_app = typer.Typer(cls=PagesFirst, help="Build the pages (`gallery [CONCEPT…]`), serve them, or sum up the questionnaire.")

WithOption = Annotated[
    Path | None,
    typer.Option("--with", help="A file with other values of some keys, such as examples/comparison.yaml.", metavar="FILE"),
]
ChoicesOption = Annotated[
    str | None,
    typer.Option(
        "--choices",
        help="Where choices are: sqlite:///FILE, postgresql://…, or a file that a page saved. By default choices/choices.sqlite.",
        metavar="URL|FILE",
    ),
]


def _report(outcomes: list[Outcome], as_json: bool) -> None:
    """Print what became of every concept and leave with the status that says it."""
    if as_json:
        say_json([outcome.to_json() for outcome in outcomes])
    else:
        print_outcomes(outcomes)
    if not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(1)


def _stage(stage: Stage) -> Callable[..., None]:
    @with_call
    def command(
        call: Call,
        concepts: Concepts = None,
        force: ForceOption = False,
        json_: JsonOption = False,
    ) -> None:
        place, settings = call.open()
        _report(_run(stage, place, settings, concepts, force), json_)

    return command


def _run(stage: Stage, workspace: Workspace, params: Params, concepts: list[str] | None, force: bool) -> list[Outcome]:
    from ti_pipeline.stages.run import run_stage

    with progress(stage.name) as step:
        return run_stage(stage, Run.over(workspace, params, concepts or None, force=force, report=step))


for _each in STAGES.values():
    if _each not in (RANK, GALLERY, COMPARE):  # which have options and commands of their own
        app.command(_each.name, help=_each.about)(_stage(_each))


@app.command(help=RANK.about)
@with_call
def rank(
    call: Call,
    concepts: Concepts = None,
    force: ForceOption = False,
    json_: JsonOption = False,
    with_choices: Annotated[bool, typer.Option("--with-choices", help="What people picked comes first; say how far CLIP agrees.")] = False,
    choices: ChoicesOption = None,
) -> None:
    place, settings = call.open()
    if with_choices or choices:
        from ti_pipeline.choices.files import gather
        from ti_pipeline.choices.verdicts import write_verdicts

        write_verdicts(place, gather(place, choices)[0])
    outcomes = _run(RANK, place, settings, concepts, force)
    if with_choices or choices:
        from ti_pipeline.choices.agreement import agreement, told

        say(told(agreement(place, validated(place), settings.rank.best)), err=True)
    _report(outcomes, json_)


@app.command(help=COMPARE.about)
@with_call
def compare(
    call: Call,
    concepts: Concepts = None,
    force: ForceOption = False,
    json_: JsonOption = False,
    with_: WithOption = None,
) -> None:
    place, settings = call.open(with_)
    outcomes = _run(COMPARE, place, settings, concepts, force)
    if not json_:
        say(told(place, settings), err=True)
    _report(outcomes, json_)


gallery_app.command("build", help=GALLERY.about)(_stage(GALLERY))
app.add_typer(gallery_app, name="gallery")


@gallery_app.command()
@with_call
def serve(
    call: Call,
    host: Annotated[str, typer.Option(help="127.0.0.1 answers this machine only, 0.0.0.0 everyone who can reach it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8765,
    choices: ChoicesOption = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="A file with a secret that visitors must know; or set TI_PIPELINE_GALLERY_SECRET.", metavar="FILE")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A further name that visitors come by, such as a proxy's; repeatable.", metavar="NAME")
    ] = None,
) -> None:
    """Show the gallery on a server that keeps everyone's choices. (A concept called `serve` is built by `gallery build serve`.)"""
    from ti_pipeline.gallery.host import Door, run_server

    place, settings = call.open()
    run_server(place, settings, Door(host, port, secret_file, allowed_host or ()), choices)


@gallery_app.command()
@with_call
def answers(
    call: Call,
    json_: JsonOption = False,
    choices: ChoicesOption = None,
) -> None:
    """Sum up the answers to the questionnaire and draw them into the evaluation's scatter."""
    from ti_pipeline.choices.files import gather
    from ti_pipeline.choices.study import sum_up
    from ti_pipeline.evaluation.summary import summarise

    place, _ = call.open()
    study = sum_up(place, gather(place, choices)[1])
    with turn(place, "evaluate", [OVERVIEW]):
        summarise(place, validated(place))
    if json_:
        say_json(study)
    else:
        print_study(study, place.evaluation / "scatter.svg")


@app.command()
@with_call
def protocol(
    name: Annotated[str, typer.Argument(metavar="PROTOCOL", help="dreambench, dreambench++ or custom-concept-101.")],
    call: Call,
    concepts: Concepts = None,
    force: ForceOption = False,
    json_: JsonOption = False,
    sets: Annotated[
        Path | None,
        typer.Option("--sets", help="Only lay out the authors' dataset in this folder as concepts of the workspace.", metavar="DIR"),
    ] = None,
) -> None:
    """Measure the learnt words as another paper does, for a table that can stand beside its own."""
    from ti_pipeline.stages.protocol import stage_of, table_path

    place, settings = call.open()
    stage = stage_of(name)
    if sets:
        from ti_pipeline.evaluation.protocols import protocols
        from ti_pipeline.evaluation.protocols.sets import lay_out

        slugs = lay_out(protocols()[name], sets.expanduser(), place.concepts, place.root / settings.protocol.prompts)
        say(f"{len(slugs)} concepts in {place.concepts}. `ti-pipeline run` learns them.", err=True)
        return
    outcomes = _run(stage, place, settings, concepts, force)
    say(f"The table: {table_path(place, name)}", err=True)
    _report(outcomes, json_)


@app.command()
@with_call
def status(
    call: Call,
    json_: JsonOption = False,
) -> None:
    """What is up to date, stale, missing or quarantined, and why. Changes nothing."""
    from ti_pipeline.stages.status import survey

    place, settings = call.open()
    rows = survey(place, settings)
    if json_:
        say_json(rows)
    else:
        print_status(rows)


@app.command()
@with_call
def plan(
    call: Call,
    json_: JsonOption = False,
) -> None:
    """What a run will take: memory, concepts in a pack, time and disk. Loads and changes nothing."""
    from ti_pipeline.planning.plan import plan as foresee

    place, settings = call.open()
    planned = foresee(place, settings)
    if json_:
        say_json(planned)
    else:
        print_plan(planned)


@app.command()
def version() -> None:
    """The version of this program."""
    say(__version__)


studio.add(app)
commands.add(app)
words.add(app)


def main() -> None:
    """Run the command; what a person can mend is one message, never a traceback."""
    log_to_stderr()
    spare_loopback()
    try:
        status = app(standalone_mode=False)  # with this mode a command's Exit comes back as its status
        if status == 130:  # typer's for Ctrl-C
            say(STOPPED, err=True)
        sys.exit(status)
    except PipelineError as error:
        say(f"ti-pipeline: {error}", err=True)
        sys.exit(error.status)
    except OSError as error:
        say(f"ti-pipeline: {in_words(error)}", err=True)
        sys.exit(3)
    except Exception as error:
        if not hasattr(error, "show"):
            logging.exception("this is a fault of ti-pipeline")
            sys.exit(3)
        error.show()  # a call that typer cannot read
        sys.exit(2)


if __name__ == "__main__":
    main()
