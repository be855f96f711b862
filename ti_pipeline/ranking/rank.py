"""Every candidate of a concept in its place, with the reason, by CLIP and by what people said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from ti_pipeline import params
from ti_pipeline.candidates.looks import read_looks
from ti_pipeline.choices.verdicts import ID, Verdict
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file
from ti_pipeline.ranking.select import ordinal, rank_candidates

if TYPE_CHECKING:
    from ti_pipeline.sight.likeness import Sight
    from ti_pipeline.sight.ranker import Ranker

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
        pa.field("likeness", pa.float64(), nullable=False),  # mean cosine to the accepted reference pictures, by CLIP, a DINO, or both
        pa.field("faithfulness", pa.float64(), nullable=False),  # cosine to the scoring text
        pa.field("score", pa.float64(), nullable=False),
        pa.field("duplicate_of", pa.int32()),  # candidate of the same brief
        pa.field("reason", pa.string(), nullable=False),
        pa.field("candidates", pa.int32(), nullable=False),  # how many of the brief the best were picked from
        pa.field("file", pa.string(), nullable=False),  # name in the concept's folder of candidates
        pa.field("digest", pa.string(), nullable=False),  # SHA-256 of the picture file
    ]
)


@dataclass(frozen=True)
class Candidates:
    """A concept's candidates, brief by brief, the folder that their pictures are in, and what CLIP saw in them while they were made."""

    concept: str
    folder: Path
    rows: list[dict]
    looks: Path


@dataclass(frozen=True)
class Seen:
    """What is seen in candidates, float64: their embeddings by CLIP [n, d], and for each its likeness and faithfulness [n]. A word that
    came without pictures has nothing to be like."""

    embeddings: np.ndarray
    likeness: np.ndarray | None
    faithfulness: np.ndarray


def look(candidates: Candidates, sight: Sight, manifest: Manifest, report: Progress) -> Seen:
    """Raises ConceptError for a picture that is not the one that the table names."""
    embeddings = _embed(candidates, sight.ranker, report)
    texts = list(dict.fromkeys(row["scoring_text"] for row in candidates.rows))
    meaning = dict(zip(texts, sight.ranker.texts(texts).astype(np.float64), strict=True))
    likeness = _likeness(candidates, embeddings, sight, manifest) if manifest.pictures else None
    return Seen(embeddings, likeness, np.array([embeddings[i] @ meaning[row["scoring_text"]] for i, row in enumerate(candidates.rows)]))


def _likeness(candidates: Candidates, embeddings: np.ndarray, sight: Sight, manifest: Manifest) -> np.ndarray:
    """Mean cosine [n] to the concept's pictures, by CLIP, a DINO, or both."""
    folder, concept = candidates.folder, candidates.concept
    pictures = (_open(folder / row["file"], concept, row["digest"]) for row in candidates.rows)
    return sight.likeness_to([manifest.open(picture) for picture in manifest.pictures], pictures, embeddings)


def ordered(candidates: Candidates, seen: Seen, section: params.Rank, verdicts: Mapping[str, Verdict]) -> list[dict]:
    """Rows of SCHEMA, brief by brief and the best first: what people picked, then CLIP's order, then what they rejected."""
    rows = []
    for _, group in groupby(range(len(candidates.rows)), key=lambda i: candidates.rows[i]["brief_index"]):
        rows += _people_first(_rows(candidates.rows, list(group), seen, section), verdicts)
    return rows


def _embed(candidates: Candidates, ranker: Ranker, report: Progress) -> np.ndarray:
    """Embeddings of the candidates, float64 `[n, d]`: those that `generate` has kept, else brief by brief from the files."""
    folder, concept, rows = candidates.folder, candidates.concept, candidates.rows
    known = read_looks(candidates.looks, ranker.digest)
    briefs = [list(group) for _, group in groupby(rows, key=lambda row: row["brief_index"])]

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
            report(seen, len(rows), "looking at candidates")
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


def _rows(candidates: list[dict], group: list[int], seen: Seen, section: params.Rank) -> list[dict]:
    """The rows of one brief, best first; `group` are the indices of its candidates 0, 1, 2 … into everything else."""
    rows = []
    likeness, faithfulness = seen.likeness, seen.faithfulness
    alike, weight = None if likeness is None else likeness[group], section.likeness_weight
    for place in rank_candidates(alike, faithfulness[group], seen.embeddings[group], weight, section.near_duplicate):
        i = group[place.candidate]
        same = {key: candidates[i][key] for key in ("concept", "brief_index", "brief", "prompt", "candidate", "file", "digest")}
        rows.append(
            {
                **same,
                "place": place.place,
                "place_before": place.place_before,
                "likeness": 0.0 if likeness is None else float(likeness[i]),
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
    liking = [verdict.liking if verdict else 0.0 for verdict in said]
    order = sorted(range(len(rows)), key=lambda i: -liking[i])
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
