from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.candidates.small_workspace import PHOTOS, ROOT, add_concept, small_params
from tests.sight.test_likeness import write_dino
from tests.stages.one import Given, one, rank_one
from ti_pipeline.candidates.files import SCHEMA as CANDIDATES
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table, table_metadata, write_table
from ti_pipeline.params import Params
from ti_pipeline.ranking.rank import SCHEMA
from ti_pipeline.sight.likeness import load_dino
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.stages.rank import RANK
from ti_pipeline.stages.stage import Run
from ti_pipeline.workspace import Workspace

DUCK, FROG = PHOTOS / "duck-toy" / "00.jpg", ROOT / "examples" / "concepts" / "frog" / "white.png"
BRIEFS = ["a photo of a {token}", "a {token} on the moon"]


def put_candidates(workspace: Workspace, briefs: list[list[Image.Image]]) -> None:
    """Photographs in the place of generated pictures."""
    rows, folder = [], workspace.candidates("duck-toy")
    folder.mkdir(parents=True, exist_ok=True)
    for index, pictures in enumerate(briefs):
        for candidate, picture in enumerate(pictures):
            path = folder / f"{index}-{candidate}.png"
            picture.save(path)
            rows.append(
                {
                    "concept": "duck-toy",
                    "brief_index": index,
                    "brief": BRIEFS[index],
                    "prompt": BRIEFS[index].replace("{token}", "<duck-toy>"),
                    "scoring_text": BRIEFS[index].replace("{token}", "duck"),
                    "candidate": candidate,
                    "seed": candidate,
                    "solver": "ddim",
                    "steps": 2,
                    "guidance_scale": 5.0,
                    "negative_prompt": "",
                    "file": path.name,
                    "digest": digest_file(path),
                    "width": 64,
                    "height": 64,
                }
            )
    write_table(workspace.candidate_table("duck-toy"), rows[::-1], CANDIDATES, {"fingerprint": "0"})


def photo(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB").resize((64, 64))


def with_rank(**rank: object) -> Params:
    params = small_params()
    return params.model_copy(update={"rank": params.rank.model_copy(update=rank)})


@pytest.fixture
def duck(tmp_path: Path) -> tuple[Workspace, Manifest]:
    workspace, manifest = add_concept(tmp_path, "duck-toy", "initializer: duck")
    grey = Image.effect_noise((64, 64), 80).convert("RGB")
    put_candidates(workspace, [[photo(FROG), photo(DUCK), photo(DUCK), grey], [photo(DUCK), photo(FROG)]])
    return workspace, manifest


def test_every_candidate_has_a_place_and_its_reason(duck, miniature: Ranker) -> None:
    workspace, manifest = duck
    params = with_rank(near_duplicate=0.9999)
    said = []
    outcome = rank_one(workspace, miniature, manifest, params, lambda *what: said.append(what))
    table = workspace.ranking("duck-toy")
    assert (outcome.stage, outcome.state, outcome.path, outcome.digest) == ("rank", "done", str(table), digest_file(table))
    assert pq.read_schema(table).remove_metadata() == SCHEMA
    assert said[-1][:2] == (6, 6)
    rows = read_table(table)
    assert [(row["brief_index"], row["place"], row["candidates"]) for row in rows] == [(0, p, 4) for p in (1, 2, 3, 4)] + [
        (1, 1, 2),
        (1, 2, 2),
    ]
    pushed = rows[3]
    assert (pushed["candidate"], pushed["duplicate_of"]) == (2, 1)
    assert "near-duplicate of candidate 1 (1.000)" in pushed["reason"]
    assert [row["duplicate_of"] for row in rows[:3]] == [None] * 3

    references = miniature.images([manifest.open(picture) for picture in manifest.pictures])
    text = dict(zip(BRIEFS, miniature.texts([brief.replace("{token}", "duck") for brief in BRIEFS]), strict=True))
    for row in rows:
        path = workspace.candidates("duck-toy") / row["file"]
        assert digest_file(path) == row["digest"]
        own = miniature.images([Image.open(path)])[0]
        assert row["likeness"] == pytest.approx(np.mean([own @ reference for reference in references]), abs=1e-5)
        assert row["faithfulness"] == pytest.approx(own @ text[row["brief"]], abs=1e-5)
    first = [row for row in rows if row["brief_index"] == 0]
    z = {key: (np.array([row[key] for row in first]) - np.mean([row[key] for row in first])) / np.std([row[key] for row in first])
         for key in ("likeness", "faithfulness")}  # fmt: skip
    assert [row["score"] for row in first] == pytest.approx(0.5 * z["likeness"] + 0.5 * z["faithfulness"])


@pytest.mark.parametrize("clip", [True, False])
def test_likeness_by_a_dino_alone_or_beside_clip(duck, miniature: Ranker, tmp_path: Path, clip: bool) -> None:
    """Both: the mean of the two cosines. Faithfulness and near-duplicates stay CLIP's."""
    workspace, manifest = duck
    params = with_rank(near_duplicate=0.9999)
    rank_one(workspace, miniature, manifest, params)
    by_clip = {(row["brief_index"], row["candidate"]): row for row in read_table(workspace.ranking("duck-toy"))}
    folder = write_dino(tmp_path / "dino")
    dino = load_dino(params.ranker.model_copy(update={"likeness": "both" if clip else "dino", "dino": str(folder)}), "cpu")
    models = Given(ranker=miniature, dino=dino, likeness_by_clip=clip)
    run = Run(workspace, params, models, ["duck-toy"])
    assert one(RANK, run, "duck-toy").state == "done" and one(RANK, run, "duck-toy").state == "up-to-date"
    table = workspace.ranking("duck-toy")
    assert table_metadata(table)["ranker"] == models.sight.name and table_metadata(table)["ranker_digest"] == models.sight.digest
    references = dino.images([manifest.open(picture) for picture in manifest.pictures])
    for row in read_table(table):
        before = by_clip[row["brief_index"], row["candidate"]]
        own = dino.images([Image.open(workspace.candidates("duck-toy") / row["file"]).convert("RGB")])[0]
        cosine = np.mean([own @ reference for reference in references])
        assert row["likeness"] == pytest.approx((before["likeness"] + cosine) / 2 if clip else cosine, abs=1e-5)
        assert row["faithfulness"] == before["faithfulness"]
        assert abs(row["likeness"] - before["likeness"]) > 1e-4


def test_the_weight_decides(duck, miniature: Ranker) -> None:
    workspace, manifest = duck
    rank_one(workspace, miniature, manifest, with_rank(likeness_weight=1.0))
    rows = [row for row in read_table(workspace.ranking("duck-toy")) if row["brief_index"] == 0 and row["duplicate_of"] is None]
    assert rows[0]["candidate"] == 1
    assert [row["likeness"] for row in rows] == sorted((row["likeness"] for row in rows), reverse=True)


def test_a_second_run_does_nothing_and_what_it_depends_on_makes_it_stale(duck, miniature: Ranker) -> None:
    workspace, manifest = duck
    params = small_params()
    first = rank_one(workspace, miniature, manifest, params)
    second = rank_one(workspace, miniature, manifest, params)
    assert (second.state, second.digest) == ("up-to-date", first.digest)
    assert rank_one(workspace, miniature, manifest, with_rank(best=3)).state == "up-to-date"
    assert rank_one(workspace, miniature, manifest, params, force=True).digest == first.digest
    stricter = with_rank(near_duplicate=0.5)
    assert rank_one(workspace, miniature, manifest, stricter).state == "done"
    put_candidates(workspace, [[photo(FROG), photo(DUCK)]])
    assert rank_one(workspace, miniature, manifest, stricter).state == "done"
    assert len(read_table(workspace.ranking("duck-toy"))) == 2


def test_what_is_missing_or_changed_is_said(duck, miniature: Ranker) -> None:
    workspace, manifest = duck
    path = workspace.candidates("duck-toy") / "0-1.png"
    photo(FROG).save(path)
    with pytest.raises(
        ConceptError, match="duck-toy: .*0-1.png is not the picture that candidates.parquet names. Run `ti-pipeline generate --force"
    ):
        rank_one(workspace, miniature, manifest, small_params())
    path.unlink()
    with pytest.raises(ConceptError, match="duck-toy: .*0-1.png cannot be opened"):
        rank_one(workspace, miniature, manifest, small_params())
    workspace.candidate_table("duck-toy").write_bytes(b"no table")
    with pytest.raises(ConceptError, match="duck-toy: .*candidates.parquet: damaged"):
        rank_one(workspace, miniature, manifest, small_params())
    workspace.candidate_table("duck-toy").unlink()
    with pytest.raises(ConceptError, match="duck-toy: .*candidates.parquet is not there. Run `ti-pipeline generate duck-toy` first"):
        rank_one(workspace, miniature, manifest, small_params())
    assert not workspace.ranking("duck-toy").exists()
