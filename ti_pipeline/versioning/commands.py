"""The commands of this room. `ti_pipeline.cli` adds them; everything heavy is imported when one is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ti_pipeline.call import Call, JsonOption, WorkspaceOption, with_call
from ti_pipeline.concepts.texts import visible
from ti_pipeline.errors import ConceptError, ParamsError, PipelineError
from ti_pipeline.terminal import note, say, say_json, show_table


def add(app: typer.Typer) -> None:
    """Add every command of this room."""
    app.command("init")(init)
    app.command("promote")(promote)
    for command in (record, pull, inbox, publish, register, versions, reproduce):
        app.command(command.__name__)(with_call(command))


def _show(value: Any, as_json: bool) -> None:
    if as_json:
        say_json(value.to_json())
    else:
        say(value)


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or one that is there: nothing in it is overwritten.")],
) -> None:
    """Make a workspace: settings, DVC's pipeline, Prefect's deployments, an example concept."""
    from ti_pipeline.versioning.begin import begin

    say(begin(folder))


def record(
    call: Call,
    force: Annotated[bool, typer.Option("--force", help="Also record stages that are not up to date, as they are.")] = False,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Commit to DVC what has changed, push it, and make the Git commit, tag and versions that params.yaml asks for."""
    from ti_pipeline.versioning.record import record as do

    done = do(*call.open(), note, force=force)
    _show(done, json_)
    if done.reason or done.left_out:
        raise typer.Exit(1)


def pull(
    call: Call,
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH…]", help="Paths in the workspace; everything by default.")] = None,
) -> None:  # fmt: skip
    """Bring back what the current Git commit records; every byte is checked, and what is lost is named."""
    from ti_pipeline.versioning.leftovers import sweep
    from ti_pipeline.versioning.lock import alone
    from ti_pipeline.versioning.remote import place, point, restore
    from ti_pipeline.versioning.remote import pull as do
    from ti_pipeline.versioning.repository import repository

    at, settings = call.open()
    here = place(at.root, settings.storage)
    point(at.root, settings.storage)
    below = [path.rstrip("/") for path in paths or ()]
    with alone(at.root, "pulling", note), repository(at.root) as repo:
        sweep(repo)
        done = do(repo, here, settings.storage, below)
        written = restore(repo, done.lost, below)
    say(f"{done.objects} objects, {done.bytes} bytes pulled; {written} files written")
    for path, why in done.lost.items():
        say(visible(f"lost: {path}: {why}"), err=True)
    if done.lost:
        raise typer.Exit(1)


def inbox(call: Call, json_: JsonOption = False) -> None:
    """Bring in the sets that people have dropped into the inbox."""
    from ti_pipeline.versioning.inbox import bring_in

    at, settings = call.open()
    if not settings.inbox.bucket:
        raise PipelineError("inbox.bucket: none is set in params.yaml.")
    arrivals = bring_in(at, settings, note)
    if json_:
        say_json([arrival.to_json() for arrival in arrivals])
    else:
        for arrival in arrivals:
            files, why = f", {arrival.files} files" * bool(arrival.files), f" ({arrival.reason})" * bool(arrival.reason)
            say(visible(f"{arrival.set}: {arrival.state}{files}{why}"))
    if any(arrival.state == "failed" for arrival in arrivals):
        raise typer.Exit(1)


def publish(call: Call, json_: JsonOption = False) -> None:
    """Publish galleries with the words in them, and words to the Hugging Face hub; readers see the old ones or the new ones."""
    from ti_pipeline.versioning.hub import upload
    from ti_pipeline.versioning.publish import publish as do

    at, settings = call.open()
    if not settings.publish.bucket and not settings.publish.hub:
        raise PipelineError("publish.bucket: none is set in params.yaml, and publish.hub names no concept.")
    done, words = do(at, settings, note), upload(at, settings, note)
    if json_:
        say_json(done.to_json() | {"hub": [word.to_json() for word in words]})
    else:
        for each in [*([done] if settings.publish.bucket else []), *words]:
            say(each)
    if done.state == "withheld" or not all(word.ok for word in words):
        raise typer.Exit(1)


def register(call: Call, concepts: list[str]) -> None:
    """Make a version of each concept's learnt word, at the commit that has its record."""
    from ti_pipeline.versioning.registry import register as do

    at, _ = call.open()
    refused = []
    for concept in concepts:
        try:
            say(do(at, concept))
        except ConceptError as error:
            refused.append(str(error))
    if refused:
        say("\n".join(refused), err=True)
        raise typer.Exit(1)


def promote(version: str, stage: str, workspace: WorkspaceOption = Path(".")) -> None:
    """Put CONCEPT@VERSION, or the last one of CONCEPT, into a stage: candidate, approved or retired."""
    from ti_pipeline.versioning.registry import promote as do

    concept, _, number = version.partition("@")
    say(f"{do(workspace.resolve(), concept, number or None, stage)} is {stage}")


def versions(
    call: Call, concept: Annotated[str | None, typer.Argument()] = None, json_: JsonOption = False,
) -> None:  # fmt: skip
    """Every version of every learnt word: stage, scores, commit and provenance, and whether its concept is withdrawn."""
    from ti_pipeline.stages.collection import present
    from ti_pipeline.versioning.registry import versions as rows

    at, _ = call.open()
    found = rows(at.root, concept)
    try:
        standing = present(at)
    except ParamsError:
        standing = {row["concept"] for row in found}  # a clone without its pictures
    found = [row | {"withdrawn": row["concept"] not in standing} for row in found]
    if json_:
        say_json(found)
        return
    if not found:
        say(f"no version{f' of {concept}' if concept else ''}; `ti-pipeline register` makes one", err=True)
        return
    table = []
    for row in found:
        scores = [f"{value:.3f}" if (value := row["scores"].get(name)) is not None else "" for name in ("reconstruction", "editability")]
        about = row["provenance"].get("generator", "")
        stage = ", ".join(part for part in (row["stage"], "withdrawn" * row["withdrawn"]) if part)
        table.append((row["concept"], row["version"], stage, *scores, about, row["commit"][:12], row["at"]))
    show_table(("concept", "version", "stage", "reconstruction", "editability", "generator", "commit", "at"), table)


def reproduce(
    concept: Annotated[str, typer.Argument(metavar="CONCEPT[@VERSION]")],
    call: Call,
    stages: Annotated[list[str] | None, typer.Option("--stage", help="Only these stages; by default those of every run.")] = None,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Bring a version's inputs back, run its stages again, and say whether the results are equal."""
    from ti_pipeline.stages.table import STAGES, always
    from ti_pipeline.versioning.reproduce import reproduce as do

    if unknown := set(stages or ()) - set(STAGES):
        raise ParamsError(f"--stage {', '.join(sorted(unknown))}: there is no such stage. There are {', '.join(STAGES)}.")
    chosen = [stage for stage in STAGES if stage in (stages or always())]
    done = do(*call.open(), concept, note, chosen)
    _show(done, json_)
    if not done.equal:
        raise typer.Exit(1)
