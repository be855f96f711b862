"""The stage `evaluate`: words to metrics; the summary is always over every concept of the workspace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.report import concept_path, pictures_folder, read_report
from ti_pipeline.files import digest_file, write_json
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import CHOICES, CONCEPTS, EMBEDDINGS, EVALUATION, MANIFESTS, Outcome, Workspace, fingerprint

if TYPE_CHECKING:
    from ti_pipeline.models import Models
    from ti_pipeline.words.word import Word

VERSION = 3


def evaluation_fingerprint(models: Models, word: Word, manifest: Manifest, params: Params) -> str:
    """Over the digests of the three models, the embedding and the manifest, and the settings. The generator need not be loaded."""
    inputs = {
        "generator": models.source.digest,
        "ranker": models.ranker_digest,
        "judge": models.judge_digest,
        "concept": manifest.training_digest,
        "embedding": word.digest,
        "initializer": word.class_words,
        **({"remark": said} if (said := models.judge_ranks) else {}),
    }
    settings = params.evaluate.model_dump(mode="json", exclude={"batch_size", "prompts"})
    settings |= {"prompts": params.evaluate.prompts.get(manifest.kind), "seed": params.seed, **params.generator.decisive()}
    return fingerprint("evaluate", VERSION, inputs, settings)


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a concept whose report carries the fingerprint, else None."""
    path = concept_path(workspace, concept)
    report = read_report(path)
    if report is None or report.get("fingerprint") != wanted:
        return None
    if not all((pictures_folder(workspace, concept) / row["file"]).is_file() for row in report["kept"]):
        return None
    return Outcome("evaluate", concept, "up-to-date", path=str(path), digest=digest_file(path))


def _plan(run: Run, slug: str) -> Plan:
    from ti_pipeline.words.learnt import load_own

    manifest = read_manifest(run.workspace, slug)
    word = load_own(run.workspace, slug, manifest.token, manifest.initializer)
    wanted = evaluation_fingerprint(run.models, word, manifest, run.params)
    return Plan(slug, wanted, standing(run.workspace, slug, wanted), (manifest, word))


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    from ti_pipeline.evaluation.draw import Studio
    from ti_pipeline.evaluation.measure import measure, write_kept
    from ti_pipeline.sampling.sample import Settings

    models, section = run.models, run.params.evaluate
    settings = Settings(section.solver, section.steps, section.guidance_scale, "", section.batch_size)
    studio = Studio(models.generator, models.ranker, models.judge, settings)
    for plan in plans:
        manifest, word = plan.order
        path, pictures = concept_path(run.workspace, plan.concept), pictures_folder(run.workspace, plan.concept)
        report, kept = measure(studio, manifest, word, run.params, run.report)
        if said := models.judge_ranks:
            report["warning"] = said
        try:
            write_json(path, report | {"fingerprint": plan.fingerprint, "kept": write_kept(pictures, kept)})
        except OSError as error:
            reason = f"{path} cannot be written: {error}. Make room there, or check the permissions."
            raise ConceptError(plan.concept, reason) from None
        yield Outcome("evaluate", plan.concept, "done", path=str(path), digest=digest_file(path))


def _remark(run: Run, outcome: Outcome) -> Outcome:
    return replace(outcome, reason=said) if (said := run.models.judge_ranks) else outcome


def _finish(run: Run) -> None:
    from ti_pipeline.evaluation.summary import summarise

    summarise(run.workspace, validated(run.workspace))


EVALUATE = Stage(
    name="evaluate",
    about="Measure likeness and editability, with the paper's references.",
    output=EVALUATION,
    places=("concepts/{}.json", "pictures/{}"),
    last=concept_path,
    reads=(CONCEPTS, MANIFESTS, EMBEDDINGS, CHOICES),
    needs=(MANIFESTS, EMBEDDINGS),
    sections=("seed", "evaluate"),
    models=("generator", "ranker", "judge"),
    hours=12,
    plan=_plan,
    work=_work,
    check=lambda run: run.models.check_judge(),
    remark=_remark,
    finish=_finish,
)
