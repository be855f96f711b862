"""Another paper's protocol over the learnt words. It is no part of the chain: it is asked for by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.protocols import protocols
from ti_pipeline.files import digest_file, digest_value, write_json
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import CONCEPTS, EMBEDDINGS, MANIFESTS, Outcome, Workspace, fingerprint

if TYPE_CHECKING:
    from ti_pipeline.evaluation.protocols.protocol import Protocol

VERSION = 1
PROTOCOLS = "protocols"  # the folder under `artifacts/`


def stage_of(name: str) -> Stage:
    """The stage that measures by a protocol. Raises ParamsError for one that there is not."""
    if name not in protocols():
        raise ParamsError(f"there is no protocol {name}. There are: {', '.join(protocols())}.")
    protocol = protocols()[name]
    return Stage(
        name="protocol",
        about=f"Measure the learnt words as {protocol.source}.",
        output=f"{PROTOCOLS}/{name}",
        places=("subjects/{}.json",),
        last=partial(_path, name),
        reads=(CONCEPTS, MANIFESTS, EMBEDDINGS),
        needs=(MANIFESTS, EMBEDDINGS),
        sections=("seed", "protocol", "evaluate"),
        models=("generator", "ranker", "judge"),
        hours=12,
        plan=partial(_plan, protocol),
        work=partial(_work, protocol),
        finish=partial(_finish, protocol),
    )


def table_path(workspace: Workspace, name: str) -> Path:
    """The page that a protocol's numbers stand on."""
    return workspace.artifacts / PROTOCOLS / name / "table.md"


def _path(name: str, workspace: Workspace, concept: str) -> Path:
    return workspace.artifacts / PROTOCOLS / name / "subjects" / f"{concept}.json"


def _plan(protocol: Protocol, run: Run, slug: str) -> Plan:
    from ti_pipeline.evaluation.protocols.measure import Order
    from ti_pipeline.evaluation.protocols.protocol import Subject
    from ti_pipeline.words.learnt import load_own

    manifest, params = read_manifest(run.workspace, slug), run.params
    word = load_own(run.workspace, slug, manifest.token, manifest.initializer)
    live = bool(set(word.class_words.lower().split()) & set(params.protocol.live))
    prompts = protocol.prompts(Subject(manifest, word.class_words, own_prompts(run.workspace, params, slug), live))
    order = Order(manifest, word, prompts, params.protocol.samples or protocol.samples, params.seed)
    inputs = {
        "protocol": protocol.name,
        "generator": run.models.source.digest,
        "ranker": run.models.ranker_digest,
        "judge": run.models.judge_digest,
        "concept": manifest.training_digest,
        "word": word.digest,
        "prompts": [(prompt.text, prompt.read) for prompt in prompts],
        "samples": order.samples,
    }
    wanted = fingerprint("protocol", VERSION, inputs, _sampling(params) | {"seed": params.seed})
    path = _path(protocol.name, run.workspace, slug)
    stands = Outcome("protocol", slug, "up-to-date", path=str(path), digest=digest_file(path)) if _says(path) == wanted else None
    return Plan(slug, wanted, stands, order)


def own_prompts(workspace: Workspace, params: Params, slug: str) -> list[str]:
    """A concept's own prompts, with `{}` for the subject; none where it has no file of them."""
    path = workspace.root / Path(params.protocol.prompts).expanduser() / f"{slug}.txt"
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"protocol.prompts: {path} cannot be read ({error}). One prompt a line, in UTF-8.") from None


def _sampling(params: Params) -> dict[str, Any]:
    said = params.evaluate.model_dump(mode="json", include={"solver", "steps", "guidance_scale"})
    return said | params.generator.decisive()


def _says(path: Path) -> str:
    return (_read(path) or {}).get("fingerprint", "")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _work(protocol: Protocol, run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    from ti_pipeline.evaluation.draw import Studio
    from ti_pipeline.evaluation.protocols.measure import measure_subject
    from ti_pipeline.sampling.sample import Settings

    models, section = run.models, run.params.evaluate
    settings = Settings(section.solver, section.steps, section.guidance_scale, "", section.batch_size)
    studio = Studio(models.generator, models.ranker, models.judge, settings)
    by = {
        "generator": models.generator.name, "generator_digest": models.generator.digest, "resolution": models.generator.resolution,
        "judge": models.judge.name, "judge_digest": models.judge.digest, "clip": models.ranker.name, "clip_digest": models.ranker.digest,
        **_sampling(run.params),
    }  # fmt: skip
    for plan in plans:
        path = _path(protocol.name, run.workspace, plan.concept)
        report = {"concept": plan.concept, "by": by, **measure_subject(studio, protocol, plan.order, run.report)}
        write_json(path, report | {"fingerprint": plan.fingerprint})
        yield Outcome("protocol", plan.concept, "done", path=str(path), digest=digest_file(path))


def _finish(protocol: Protocol, run: Run) -> None:
    """Over every subject that was measured as most were: numbers of other models do not mix."""
    from ti_pipeline.evaluation.protocols.table import write_tables

    reports = [report for slug in validated(run.workspace) if (report := _read(_path(protocol.name, run.workspace, slug)))]
    counts = Counter(digest_value(report["by"]) for report in reports)
    most = min(counts, key=lambda which: (-counts[which], which), default="")
    kept = [report for report in reports if digest_value(report["by"]) == most]
    write_tables(table_path(run.workspace, protocol.name).parent, protocol, kept)
