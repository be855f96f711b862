"""What people picked comes first, and how far CLIP agrees. On real photographs and the embedded CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.candidates.small_workspace import PHOTOS, ROOT, add_concept
from tests.ranking.test_rank import photo, put_candidates, with_rank
from tests.stages.one import rank_one
from ti_pipeline.choices.agreement import agreement, told
from ti_pipeline.choices.store import Choice
from ti_pipeline.choices.verdicts import Verdict, read_verdicts, write_verdicts
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table
from ti_pipeline.params import load
from ti_pipeline.sight.ranker import load_ranker


def choose(row: dict, person: str, flag: str, stars: int = 0) -> Choice:
    return Choice("duck-toy", row["digest"][:16], person, person, flag, stars, "now", f"{person}{row['candidate']}{row['brief_index']}")


def test_choices_flow_back_into_the_ranking_and_out_again(tmp_path: Path):
    workspace, manifest = add_concept(tmp_path, "duck-toy")
    ducks = [photo(path) for path in sorted((PHOTOS / "duck-toy").glob("*.jpg"))]
    plain = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue", "white")]
    put_candidates(workspace, [[*ducks, *plain]])
    ranker, params = load_ranker(load(ROOT / "params.yaml").ranker, "cpu"), with_rank(best=4)
    rank_one(workspace, ranker, manifest, params)
    by_clip = [row for row in read_table(workspace.ranking("duck-toy")) if row["brief_index"] == 0]
    before = digest_file(workspace.ranking("duck-toy"))

    last, first = by_clip[-1], by_clip[0]
    counts = write_verdicts(workspace, [choose(last, "a", "pick", 5), choose(last, "b", "pick", 4), choose(first, "a", "reject")])
    assert counts == {"duck-toy": 3}
    assert read_verdicts(workspace, "duck-toy")[last["digest"][:16]] == Verdict(2, 0, 4.5)
    assert rank_one(workspace, ranker, manifest, params).state == "done"
    rows = [row for row in read_table(workspace.ranking("duck-toy")) if row["brief_index"] == 0]
    assert [row["candidate"] for row in rows] == [last["candidate"], *(row["candidate"] for row in by_clip[1:-1]), first["candidate"]]
    assert [row["place"] for row in rows] == list(range(1, 9))
    assert rows[0]["reason"].startswith("1st of 8: picked by 2 people, 4.5 stars; ") and rows[0]["reason"].endswith("8th by CLIP alone")
    assert rank_one(workspace, ranker, manifest, params).state == "up-to-date"

    report = agreement(workspace, ["duck-toy"], 4)
    assert (report["picks"], report["share"], report["by_chance"], report["briefs"]) == (1, 0.0, 0.5, 1)
    assert report["tau"] < -0.5
    assert "0% of 1 picks are among CLIP's best 4 (by chance 50%)" in told(report)

    write_verdicts(workspace, [choose(row, "a", "pick", 5 - k) for k, row in enumerate(by_clip[:4])])
    rank_one(workspace, ranker, manifest, params)
    report = agreement(workspace, ["duck-toy"], 4)
    assert report["share"] == 1.0 and report["tau"] > 0.8

    write_verdicts(workspace, [])
    rank_one(workspace, ranker, manifest, params)
    assert digest_file(workspace.ranking("duck-toy")) == before
    assert told(agreement(workspace, ["duck-toy"], 4)) == "Nobody has picked any of these candidates yet."


def test_a_damaged_file_of_choices_fails_its_concept_by_name(tmp_path: Path):
    workspace, _ = add_concept(tmp_path, "duck-toy")
    (tmp_path / "choices").mkdir()
    (tmp_path / "choices" / "duck-toy.json").write_text("[]")
    with pytest.raises(ConceptError, match="duck-toy.json: damaged.*--with-choices"):
        read_verdicts(workspace, "duck-toy")
