"""The stage `rank`: every candidate of a concept in its place, with the reason.

Where people have chosen (`choices/<concept>.json`), what they picked comes first and what they rejected last; CLIP orders the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from ti_pipeline.candidates.looks import read_looks
from ti_pipeline.choices.verdicts import ID, Verdict, read_verdicts
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, NotYet
from ti_pipeline.files import digest_file, read_table, table_metadata, write_table
from ti_pipeline.params import Params
from ti_pipeline.ranking.select import ordinal, rank_candidates
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

STAGE = "rank"
VERSION = 1
Progress = Callable[[int, int, str], None]

SCHEMA = pa.schema(
    [
        pa.field("concept", pa.string(), nullable=False),
        pa.field("brief_index", pa.int32(), nullable=False),
        pa.field("brief", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("candidate", pa.int32(), nullable=False),
        pa.field("place", pa.int32(), nullable=False),  # from 1, within the brief
        pa.field("place_before", pa.int32(), nullable=False),  # by the score alone, before near-duplicates were pushed down
        pa.field("likeness", pa.float64(), nullable=False),  # mean cosine to the accepted reference pictures
        pa.field("faithfulness", pa.float64(), nullable=False),  # cosine to the scoring text
        pa.field("score", pa.float64(), nullable=False),
        pa.field("duplicate_of", pa.int32()),  # candidate of the same brief
        pa.field("reason", pa.string(), nullable=False),
        pa.field("candidates", pa.int32(), nullable=False),  # how many of the brief the best were picked from
        pa.field("file", pa.string(), nullable=False),  # name in the concept's folder of candidates
        pa.field("digest", pa.string(), nullable=False),  # SHA-256 of the picture file
    ]
)


def rank_one(
    workspace: Workspace, ranker: Ranker, manifest: Manifest, params: Params, progress: Progress | None = None, *, force: bool = False
) -> Outcome:
    """Order the candidates of one concept, or find that their order stands. Raises ConceptError for what is wrong with this concept."""
    began = time.monotonic()
    slug, table = manifest.slug, workspace.ranking(manifest.slug)
    candidates = read_candidates(workspace, slug)
    verdicts = read_verdicts(workspace, slug)
    wanted = rank_fingerprint(candidates, ranker.digest, manifest, params, verdicts)
    if not force and table_metadata(table).get("fingerprint") == wanted:
        return Outcome(STAGE, slug, "up-to-date", path=str(table), digest=digest_file(table))
    embeddings = _embed(workspace.candidates(slug), ranker, slug, candidates, progress)
    references = ranker.images([manifest.open(picture) for picture in manifest.pictures]).astype(np.float64)
    texts = list(dict.fromkeys(row["scoring_text"] for row in candidates))
    meaning = dict(zip(texts, ranker.texts(texts).astype(np.float64), strict=True))
    likeness = (embeddings @ references.T).mean(axis=1)
    faithfulness = np.array([embeddings[i] @ meaning[row["scoring_text"]] for i, row in enumerate(candidates)])
    rows = []
    for _, group in groupby(range(len(candidates)), key=lambda i: candidates[i]["brief_index"]):
        rows += _people_first(_rows(candidates, list(group), likeness, faithfulness, embeddings, params), verdicts)
    about = {"fingerprint": wanted, "ranker": ranker.name, "ranker_digest": ranker.digest, "references": str(len(references))}
    try:
        write_table(table, rows, SCHEMA, about)
    except OSError as error:
        raise ConceptError(slug, f"{table} cannot be written: {error}. Make room there, or see to the permissions.") from None
    return Outcome(STAGE, slug, "done", time.monotonic() - began, path=str(table), digest=digest_file(table))


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
    return fingerprint(STAGE, VERSION, inputs, params.rank.model_dump(mode="json", include={"likeness_weight", "near_duplicate"}))


def _embed(folder: Path, ranker: Ranker, concept: str, candidates: list[dict], progress: Progress | None) -> np.ndarray:
    """Embeddings of the candidates, float64 `[n, d]`: those that `generate` has kept, else brief by brief from the files."""
    known = read_looks(folder, ranker.digest)
    briefs = [list(group) for _, group in groupby(candidates, key=lambda row: row["brief_index"])]

    def opened(brief: list[dict]) -> list[Image.Image] | None:
        if all(row["digest"] in known for row in brief):
            for row in brief:
                _check(folder / row["file"], concept, row["digest"])
            return None
        return [_open(folder / row["file"], concept, row["digest"]) for row in brief]

    parts, seen = [], 0
    with ThreadPoolExecutor(1) as reader:  # the next brief is read while this one is looked at
        coming = reader.submit(opened, briefs[0])
        for brief, after in zip(briefs, [*briefs[1:], []], strict=True):
            pictures, coming = coming.result(), reader.submit(opened, after)
            parts.append(np.stack([known[row["digest"]] for row in brief]) if pictures is None else ranker.images(pictures))
            seen += len(brief)
            if progress:
                progress(seen, len(candidates), "looking at candidates")
    return np.concatenate(parts).astype(np.float64)


def _check(path: Path, concept: str, digest: str) -> None:
    try:
        if digest_file(path) == digest:
            return
        reason = "is not the picture that candidates.parquet names"
    except OSError as error:
        reason = f"cannot be opened ({error})"
    raise ConceptError(concept, f"{path} {reason}. Run `ti-pipeline generate --force {concept}`.")


def _open(path: Path, concept: str, digest: str) -> Image.Image:
    _check(path, concept, digest)
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise ConceptError(concept, f"{path} cannot be opened ({error}). Run `ti-pipeline generate --force {concept}`.") from None


def _rows(
    candidates: list[dict], group: list[int], likeness: np.ndarray, faithfulness: np.ndarray, embeddings: np.ndarray, params: Params
) -> list[dict]:
    """The rows of one brief, best first; `group` are the indices of its candidates 0, 1, 2 … into everything else."""
    rows = []
    for place in rank_candidates(
        likeness[group], faithfulness[group], embeddings[group], params.rank.likeness_weight, params.rank.near_duplicate
    ):
        i = group[place.candidate]
        same = {key: candidates[i][key] for key in ("concept", "brief_index", "brief", "prompt", "candidate", "file", "digest")}
        rows.append(
            {
                **same,
                "place": place.place,
                "place_before": place.place_before,
                "likeness": float(likeness[i]),
                "faithfulness": float(faithfulness[i]),
                "score": place.score,
                "duplicate_of": place.duplicate_of,
                "reason": place.reason,
                "candidates": len(group),
            }
        )
    return rows


def _people_first(rows: list[dict], verdicts: Mapping[str, Verdict]) -> list[dict]:
    """The rows of one brief in the order of people's liking, and where they make no difference in CLIP's."""
    said = [verdicts.get(row["digest"][:ID]) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: -(said[i].liking if said[i] else 0.0))
    if order == list(range(len(rows))):
        return rows
    moved = []
    for place, i in enumerate(order, start=1):
        row, verdict = rows[i], said[i]
        why = row["reason"].partition(": ")[2]
        before = f"{verdict.words}; " if verdict else ""
        by_clip = f"; {ordinal(row['place'])} by CLIP alone" if row["place"] != place else ""
        moved.append({**row, "place": place, "reason": f"{ordinal(place)} of {len(rows)}: {before}{why}{by_clip}"})
    return moved
