"""What a run ends with: a table of the concepts and links to their galleries, as Prefect artifacts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.failures import shown
from tasks.stages import counted
from ti_pipeline.concepts.texts import visible
from ti_pipeline.evaluation.report import LEARNT, concept_path, read_report
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Outcome, State, Workspace

MEASURES = ("reconstruction", "editability")


def summarise(workspace: Workspace, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of the stages as JSON.

    `concepts` {slug: state}, `reasons` {slug: why it fell out}, `notes` on what of the others was left out, `counts` {state: number
    of concepts} and `gallery`, the path of the index, empty where there is none.
    """
    concepts = _by_concept(outcomes)
    states = {slug: state(of_concept) for slug, of_concept in concepts.items()}
    index = workspace.galleries / "index.html"
    every = [outcome for of_concept in concepts.values() for outcome in of_concept]
    return {
        "concepts": states,
        "reasons": {o.concept: f"{o.stage}: {o.reason}" for o in every if not o.ok},
        "notes": [f"{o.concept}: {o.reason}" for o in every if o.ok and o.reason],
        "counts": dict(Counter(states.values())),
        "gallery": str(index) if index.is_file() else "",
    }


def show(workspace: Workspace, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Publish the table and the links."""
    concepts = _by_concept(outcomes)
    with shown():
        rows = [row(of_concept, scores(workspace, slug)) for slug, of_concept in concepts.items()]
        create_table_artifact(rows, key="concepts", description=counted(state(of_concept) for of_concept in concepts.values()))
        pages = {o["concept"]: Path(o["path"]) for o in outcomes if o["stage"] == "gallery" and o["path"]}
        if pages:
            create_markdown_artifact(links({"all concepts": workspace.galleries / "index.html", **pages}), key="galleries")


def _by_concept(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, list[Outcome]]:
    concepts: dict[str, list[Outcome]] = {slug: [] for slug in sorted({outcome["concept"] for outcome in outcomes})}
    for outcome in outcomes:
        concepts[outcome["concept"]].append(Outcome(**outcome))
    return concepts


def state(outcomes: Sequence[Outcome]) -> State:
    """Of one concept: that of the stage it fell out of, else `done` when any stage had something to do for it."""
    lost = [outcome.state for outcome in outcomes if not outcome.ok]
    if lost:
        return lost[0]
    return "done" if any(outcome.state == "done" for outcome in outcomes) else "up-to-date"


def scores(workspace: Workspace, slug: str) -> dict[str, float | None]:
    """The judge's numbers of the learnt word, None where it has not been evaluated."""
    setup = ((read_report(concept_path(workspace, slug)) or {}).get("setups") or {}).get(LEARNT) or {}
    return {measure: (setup.get(measure) or {}).get("value") for measure in MEASURES}


def row(outcomes: Sequence[Outcome], scores: Mapping[str, float | None]) -> dict[str, Any]:
    """One concept in the table. Every row has every column: Prefect takes the columns from the first."""
    seconds = {outcome.stage: round(outcome.seconds, 1) for outcome in outcomes}
    return {
        "concept": outcomes[0].concept,
        "state": state(outcomes),
        **{f"{stage} (s)": seconds.get(stage) for stage in STAGES},
        **scores,
        "reason": "; ".join(outcome.reason for outcome in outcomes if outcome.reason),
    }


def links(pages: Mapping[str, Path]) -> str:
    """Markdown with a `file:` link and the path itself, which can be copied where a browser follows no such link."""
    lines = [f"- [{name}]({page.resolve().as_uri()}) {code(str(page))}" for name, page in pages.items()]
    return "\n".join(["Galleries", "", *lines])


def code(text: str) -> str:
    """Text in Markdown that nothing in it ends or formats: between more backticks than stand together in it."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    room = " " if "`" in text else ""
    return f"{ticks}{room}{visible(text)}{room}{ticks}"
