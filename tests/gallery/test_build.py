from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer.main

from tests.gallery.page_parser import Page
from tests.gallery.small_gallery import COUNT, add_candidates, add_evaluation, copied, make_workspace, small_params, whole
from tests.stages.one import build_index, build_page
from ti_pipeline.cli import gallery_app
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.report import concept_path
from ti_pipeline.files import read_table, write_table


def data_of(workspace, slug="toy") -> dict:
    html = (workspace.galleries / slug / "index.html").read_text(encoding="utf-8")
    return json.loads(html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])


def page_of(workspace, slug="toy") -> Page:
    return Page(workspace.galleries / slug / "index.html")


def test_a_page_shows_all_that_there_is(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    outcome = build_page(workspace, manifest, small_params())
    assert (outcome.state, outcome.path) == ("done", str(workspace.galleries / "toy" / "index.html"))
    text = page_of(workspace).text
    assert text.count(f"4 best of {COUNT}") == 2
    assert "from 3 pictures, starting from the word ball" in text
    assert "48 % of the way from the plain word ball to your photos (43 to 53 %)" in text.replace("\u202f", " ")
    assert 'pipe.load_textual_inversion("ti-toy.safetensors", token="<toy>")' in text and 'pipe.load_textual_inversion("ti-toy")' in text
    assert "learnt on tiny in 300 steps" in text
    assert "Almost the same picture as no." in text
    picture = data_of(workspace)["pictures"].popitem()[1]
    assert picture["parameters"].startswith("a sketch picture of a <toy>") and "Seed: 100" in picture["parameters"]


@pytest.mark.parametrize(("gain", "shown"), [(48.2, "48"), (-0.3, "0"), (-64.4, "\N{MINUS SIGN}64"), (130.0, ">\u202f100")])
def test_the_way_to_the_real_pictures_in_whole_percent(tmp_path: Path, gain: float, shown: str):
    workspace, manifest = whole(tmp_path)
    path = concept_path(workspace, "toy")
    report = json.loads(path.read_text())
    report["gain_percent"]["value"] = gain
    path.write_text(json.dumps(report))
    build_page(workspace, manifest, small_params())
    assert f"{shown}\u202f%" in page_of(workspace).texts


def test_the_best_come_first_and_again_among_all(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    build_page(workspace, manifest, small_params())
    places = [int(text) for text in page_of(workspace).texts if text.isdigit() and int(text) <= COUNT]
    assert places[: 2 * COUNT] == list(range(1, COUNT + 1)) * 2
    cards = [a for tag, a in page_of(workspace).elements if tag == "li" and a.get("class", "").startswith("card")]
    assert ["rest" in card["class"] for card in cards] == ([False] * 4 + [True] * (COUNT - 4)) * 2
    first = [shot for shot in read_table(workspace.ranking("toy")) if shot["place"] == 1 and shot["brief_index"] == 0]
    picture = data_of(workspace)["pictures"][first[0]["digest"][:16]]
    opened, original = workspace.galleries / "toy" / picture["opens"], workspace.candidates("toy") / first[0]["file"]
    assert opened.read_bytes() == original.read_bytes()
    carrier = (workspace.galleries / "toy" / picture["carrier"]).read_text()
    assert base64.b64decode(carrier.split('"')[3]) == original.read_bytes()


def test_a_gallery_needs_nothing_outside_of_its_folder(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    build_page(workspace, manifest, small_params())
    build_index(workspace, small_params(), ["toy", "never-made"])
    elsewhere = copied(workspace, tmp_path)
    shutil.rmtree(workspace.artifacts)
    for page in (Page(elsewhere / "index.html"), Page(elsewhere / "toy" / "index.html")):
        for link in page.links():
            assert "//" not in link and not link.startswith("/"), link
            assert link.startswith("#") or (page.path.parent / link.partition("?")[0]).is_file(), link
        assert not {"style", "iframe", "object"} & set(page.tags())
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        assert all("src" in attributes or attributes["type"] == "application/json" for attributes in scripts)
        assert all(not name.startswith("on") and name != "style" for _, attributes in page.elements for name in attributes)
        policies = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
        assert policies and policies[0].startswith("default-src 'none'") and "unsafe" not in policies[0]


def test_a_page_that_stands_is_left_alone(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    first = build_page(workspace, manifest, small_params())
    files = {path: path.stat().st_mtime_ns for path in workspace.galleries.rglob("*") if path.is_file()}
    second = build_page(workspace, manifest, small_params())
    assert (second.state, second.digest) == ("up-to-date", first.digest)
    assert files == {path: path.stat().st_mtime_ns for path in workspace.galleries.rglob("*") if path.is_file()}
    assert build_page(workspace, manifest, small_params(), force=True).digest == first.digest


@pytest.mark.parametrize("change", ["best", "evaluation", "candidates", "picture", "title"])
def test_a_page_is_made_again_when_what_it_shows_changes(tmp_path: Path, change: str):
    workspace, manifest = whole(tmp_path)
    params = small_params()
    build_page(workspace, manifest, params)
    before = set((workspace.galleries / "toy").rglob("*"))
    if change == "best":
        params = small_params(best=3)
    elif change == "title":
        params = params.model_copy(update={"gallery": params.gallery.model_copy(update={"title": "Another"})})
    elif change == "evaluation":
        (workspace.evaluation / "concepts" / "toy.json").unlink()
    elif change == "candidates":
        add_candidates(workspace, prompts=("a <toy> alone",))
    else:
        next((workspace.galleries / "toy" / "pictures").iterdir()).unlink()
    assert build_page(workspace, manifest, params).state == "done"
    if change == "candidates":
        assert len(set((workspace.galleries / "toy").rglob("*"))) < len(before)  # the second brief's pictures are swept away
    if change == "evaluation":
        assert "of the way" not in page_of(workspace).text


def test_numbers_of_another_word_are_not_shown(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    path = workspace.evaluation / "concepts" / "toy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embedding": "of an earlier training"}))
    build_page(workspace, manifest, small_params())
    assert "of the way" not in page_of(workspace).text


def test_without_an_evaluation_there_is_a_page(tmp_path: Path):
    workspace = make_workspace(tmp_path)
    add_candidates(workspace, prompts=("a <toy>",))
    build_page(workspace, read_manifest(workspace, "toy"), small_params(best=16))
    assert f"{COUNT - 1} best of {COUNT}" in page_of(workspace).text  # two of them are almost the same picture


def test_large_pictures_are_shown_small_and_open_large(tmp_path: Path):
    workspace = make_workspace(tmp_path)
    add_candidates(workspace, prompts=("a <toy>",), size=600)
    build_page(workspace, read_manifest(workspace, "toy"), small_params())
    sizes = {
        a["src"].split(".")[-1]: (a["width"], a["height"])
        for tag, a in page_of(workspace).elements
        if tag == "img" and "pictures/" in a["src"]
    }
    assert sizes == {"webp": ("512", "512")}


@pytest.mark.parametrize("missing", ["embedding", "candidate_table", "ranking"])
def test_what_is_missing_is_named_with_the_command(tmp_path: Path, missing: str):
    workspace, manifest = whole(tmp_path)
    getattr(workspace, missing)("toy").unlink()
    stage = {"embedding": "train", "candidate_table": "generate", "ranking": "rank"}[missing]
    with pytest.raises(ConceptError, match=f"is not there. Run `ti-pipeline {stage} toy`"):
        build_page(workspace, manifest, small_params())


def test_a_ranking_of_other_candidates_is_refused(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    rows = read_table(workspace.candidate_table("toy"))
    rows[0]["digest"] = "0" * 64
    write_table(workspace.candidate_table("toy"), rows, pq.read_schema(workspace.candidate_table("toy")), {})
    with pytest.raises(ConceptError, match="of other candidates.*ti-pipeline rank toy"):
        build_page(workspace, manifest, small_params())


def test_a_changed_picture_and_a_name_outside_the_folder_are_refused(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    picture = next(workspace.candidates("toy").glob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(ConceptError, match="is not the picture that the ranking names"):
        build_page(workspace, manifest, small_params())
    add_candidates(workspace, file="../../../etc/passwd")
    with pytest.raises(ConceptError, match="no file of its folder"):
        build_page(workspace, manifest, small_params())
    assert not (workspace.galleries / "toy" / "index.html").exists()


def test_the_overview_names_every_page_once(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    build_page(workspace, manifest, small_params())
    first = build_index(workspace, small_params(), ["toy", "toy"]).read_bytes()
    page = Page(workspace.galleries / "index.html")
    assert "1 learnt word," in page.text
    assert [link for link in page.links() if link.endswith("/index.html")] == ["_questionnaire/index.html", "toy/index.html"]
    assert build_index(workspace, small_params(), ["toy"]).read_bytes() == first
    build_index(workspace, small_params(), [])
    assert "There is no page yet." in Page(workspace.galleries / "index.html").text


@pytest.mark.parametrize("slug", ["static", "serve", "build"])
def test_a_concept_may_have_the_name_of_anything_else(tmp_path: Path, slug: str):
    workspace = make_workspace(tmp_path, slug=slug)
    add_candidates(workspace, slug)
    add_evaluation(workspace, slug)
    build_page(workspace, read_manifest(workspace, slug), small_params())
    build_page(workspace, read_manifest(workspace, slug), small_params(), force=True)
    build_index(workspace, small_params(), [slug])
    assert all(
        link.startswith("#") or (workspace.galleries / slug / link.partition("?")[0]).is_file() for link in page_of(workspace, slug).links()
    )


def test_what_is_shown_against_it_must_be_a_workspace(tmp_path: Path):
    workspace, manifest = whole(tmp_path)
    params = small_params()
    params = params.model_copy(update={"gallery": params.gallery.model_copy(update={"against": {"last week": "nowhere"}})})
    with pytest.raises(ParamsError, match="'last week'.*is no workspace"):
        build_page(workspace, manifest, params)


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ([], ("build", [])),
        (["fox", "serve"], ("build", ["fox", "serve"])),
        (["--force", "fox"], ("build", ["--force", "fox"])),
        (["--", "serve"], ("build", ["--", "serve"])),
        (["build", "serve"], ("build", ["serve"])),
        (["serve", "--port", "0"], ("serve", None)),
        (["answers"], ("answers", None)),
    ],
)
def test_gallery_is_a_command_of_its_own_and_has_others(words: list[str], called: tuple):
    group = typer.main.get_command(gallery_app)
    context = group.make_context("gallery", list(words), resilient_parsing=True)
    left = [*context._protected_args, *context.args]
    assert left[0] == called[0] and (called[1] is None or left[1:] == called[1])
