"""The stage `rank`: candidates to their order.

Where people have chosen (`choices/<concept>.json`), what they picked comes first and what they rejected last; CLIP orders the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from ti_pipeline.choices.verdicts import ID, Verdict, read_verdicts, verdict_path
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.errors import ConceptError, NotYet
from ti_pipeline.files import digest_file, read_table, table_metadata, write_json, write_table
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import CANDIDATES, CHOICES, CONCEPTS, EMBEDDINGS, MANIFESTS, RANKINGS, Outcome, Workspace, fingerprint

VERSION = 1


def _plan(run: Run, slug: str) -> Plan:
    manifest, table = read_manifest(run.workspace, slug), run.workspace.ranking(slug)
    candidates, verdicts = read_candidates(run.workspace, slug), read_verdicts(run.workspace, slug)
    wanted = rank_fingerprint(candidates, run.models.sight_digest, manifest, run.params, verdicts)
    stands = None
    if table_metadata(table).get("fingerprint") == wanted:
        stands = Outcome("rank", slug, "up-to-date", path=str(table), digest=digest_file(table))
    return Plan(slug, wanted, stands, (manifest, candidates, verdicts))


def read_candidates(workspace: Workspace, concept: str) -> list[dict]:
    """Rows of `candidates.parquet`, brief by brief. Raises ConceptError when there is none."""
    path = workspace.candidate_table(concept)
    try:
        rows = read_table(path)
    except FileNotFoundError:
        raise NotYet(concept, f"{path} is not there. Run `ti-pipeline generate {concept}` first.") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise ConceptError(concept, f"{path}: damaged ({error}). Delete it and run `ti-pipeline generate {concept}`.") from None
    return sorted(rows, key=lambda row: (row["brief_index"], row["candidate"]))


def rank_fingerprint(
    candidates: list[dict], ranker_digest: str, manifest: Manifest, params: Params, verdicts: Mapping[str, Verdict]
) -> str:
    inputs: dict = {
        "candidates": [[row[key] for key in ("brief", "prompt", "scoring_text", "candidate", "file", "digest")] for row in candidates],
        "references": [picture.digest for picture in manifest.pictures],
        "background": manifest.background,
        "ranker": ranker_digest,
    }
    said = {row["digest"]: verdicts[row["digest"][:ID]] for row in candidates if row["digest"][:ID] in verdicts}
    if said:  # without choices the digest is as if there were no such thing
        inputs["choices"] = {digest: [verdict.picks, verdict.rejects, verdict.stars] for digest, verdict in said.items()}
    # how many are shown as the best changes no place
    return fingerprint("rank", VERSION, inputs, params.rank.model_dump(mode="json", include={"likeness_weight", "near_duplicate"}))


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    from ti_pipeline.ranking.rank import SCHEMA, Candidates, look, ordered

    sight = run.models.sight
    for plan in plans:
        slug, table = plan.concept, run.workspace.ranking(plan.concept)
        manifest, candidates, verdicts = plan.order
        of_concept = Candidates(slug, run.workspace.candidates(slug), candidates, run.workspace.looks(slug))
        rows = ordered(of_concept, look(of_concept, sight, manifest, run.report), run.params.rank, verdicts)
        references = str(len(manifest.pictures))
        about = {"fingerprint": plan.fingerprint, "ranker": sight.name, "ranker_digest": sight.digest, "references": references}
        try:
            write_table(table, rows, SCHEMA, about)
        except OSError as error:
            raise ConceptError(slug, f"{table} cannot be written: {error}. Make room there, or check the permissions.") from None
        yield Outcome("rank", slug, "done", path=str(table), digest=digest_file(table))


def _finish(run: Run) -> None:
    """How far people and CLIP agree, where people have said anything."""
    workspace, slugs = run.workspace, validated(run.workspace)
    path = workspace.artifacts / RANKINGS / "agreement.json"
    if any(verdict_path(workspace, slug).is_file() for slug in slugs):
        from ti_pipeline.choices.agreement import agreement  # imports scipy, which takes a second

        write_json(path, agreement(workspace, slugs, run.params.rank.best))
    else:
        path.unlink(missing_ok=True)


RANK = Stage(
    name="rank",
    about="Order the candidates with CLIP.",
    output=RANKINGS,
    places=("{}.parquet",),
    last=Workspace.ranking,
    reads=(CONCEPTS, MANIFESTS, EMBEDDINGS, CANDIDATES, CHOICES),
    needs=(MANIFESTS, EMBEDDINGS, CANDIDATES),
    sections=("rank",),
    models=("ranker",),
    hours=1,
    plan=_plan,
    work=_work,
    check=lambda run: run.models.check_dino(),
    finish=_finish,
)
