"""The commands that bring words in and take them out. `ti_pipeline.cli` adds them; everything heavy is imported when one is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ti_pipeline.call import Call, Concepts, JsonOption, with_call
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.stages.collection import validated
from ti_pipeline.terminal import say, say_json
from ti_pipeline.words.names import PATTERN
from ti_pipeline.words.tools import TOOLS

ALL = "all"


def add(app: typer.Typer) -> None:
    """Add every command of this room."""
    app.command("export")(with_call(export))
    app.command("import")(with_call(import_))


def export(
    call: Call,
    concepts: Concepts = None,
    for_: Annotated[str, typer.Option("--for", help=f"{', '.join(TOOLS)}, or all that can use the word.", metavar="TOOL")] = ALL,
    name: Annotated[str, typer.Option("--name", help="What each file is called; `{concept}` is the concept's own name.")] = PATTERN,
    out: Annotated[Path | None, typer.Option("--out", help="By default exports/TOOL in the workspace.", metavar="DIR")] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Give away the reference pictures too, and what their files are called.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write learnt words as other tools read them, with a preview and a text beside each."""
    from ti_pipeline.words.outgoing import Destination, Sent, send

    if for_ not in (ALL, *TOOLS):
        raise ParamsError(f"--for {for_}: there is no such tool here. There are {', '.join(TOOLS)}, and {ALL}.")
    at, _ = call.open()
    slugs = sorted(set(concepts or validated(at)))
    if not slugs:
        raise ParamsError(f"{at.root}: there is no concept here yet. Run `ti-pipeline run` first.")
    destination = Destination(out or at.root / "exports", out is None or for_ == ALL, TOOLS.get(for_), name, pictures)
    written: dict[str, list[str]] = {}
    refused = []
    for each in send(at, slugs, destination):
        if isinstance(each, Sent):
            written.setdefault(each.concept, []).extend(map(str, each.files))
            if not json_:
                say(each)
        else:
            refused.append(str(each))
    if json_:
        say_json(written)
    if refused:
        say("\n".join(refused), err=True)
        raise typer.Exit(1)


def import_(
    source: Annotated[str, typer.Argument(metavar="FILE|FOLDER|HUB_NAME", help="A word as any tool writes it.")],
    as_: Annotated[str, typer.Option("--as", help="The concept; with `{word}` in it, one for each word.", metavar="CONCEPT")],
    call: Call,
    word: Annotated[str | None, typer.Option("--word", help="Which one, by the name that it has in the file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Take the place of a word that is there.")] = False,
) -> None:
    """Bring in a word that another tool has learnt; nothing in its file is run."""
    from ti_pipeline.concepts.concept import suggest_slug
    from ti_pipeline.models import Models
    from ti_pipeline.words.incoming import PLACE, bring_in, located, words_at

    at, settings = call.open()
    found = located(source)
    words = words_at(found.path)
    names = ", ".join(sorted(each.name for each in words))
    if word is not None and not (words := [each for each in words if each.name == word]):
        raise ParamsError(f"--word {word}: {source} has no such word. It has: {names}.")
    if len(words) > 1 and PLACE not in as_:
        raise ParamsError(f"{source} has {len(words)} words: {names}. Choose one with --word, or take all with --as 'my-{PLACE}'.")
    reader, refused = Models(settings, at.root).reader, []
    for each in words:
        slug = as_.replace(PLACE, suggest_slug(each.name))
        try:
            say(f"{bring_in(at, reader, each, slug, found, force)}: {each.name}. `ti-pipeline run {slug}` draws with it.")
        except ConceptError as error:
            refused.append(str(error))
    if refused:
        say("\n".join(refused), err=True)
        raise typer.Exit(1)
