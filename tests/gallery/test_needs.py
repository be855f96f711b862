"""The overview's first part: every concept that fell out of a stage, with a picture, what is wrong and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from tests.gallery.page_parser import Page
from tests.gallery.small_gallery import add_candidates, make_workspace, small_params
from tests.stages.one import build_index, build_page
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.gallery.needs import LATER, read_needs, told
from ti_pipeline.stages import reasons
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import EMBEDDINGS, MANIFESTS, Outcome, Workspace


def broken_collection(root: Path) -> Workspace:
    """A concept with a page, and others whose settings, name, pictures and training are wrong, as the stages leave them."""
    workspace = make_workspace(root)
    add_candidates(workspace)
    for name in ("settings", "No Name", "empty", "untrained"):
        shutil.copytree(workspace.concepts / "toy", workspace.concepts / name)
        (workspace.concepts / name / "concept.yaml").write_text(f"token: <{name[:2].lower()}x>\n")
    (workspace.concepts / "settings" / "concept.yaml").write_text("token: [\n")
    for path in (workspace.concepts / "empty").glob("*.png"):
        path.write_bytes(b"no picture")
    run_stage(STAGES["validate"], Run.over(workspace, small_params()))
    reasons.keep(
        workspace,
        EMBEDDINGS,
        Outcome("train", "untrained", "failed", reason=f"{root}/x.safetensors: the loss is not finite. Train it anew."),
    )
    build_page(workspace, read_manifest(workspace, "toy"), small_params())
    return workspace


def test_what_needs_fixing_comes_first_with_picture_sentence_and_remedy(tmp_path: Path):
    workspace = broken_collection(tmp_path)
    needs = {need.concept: need for need in read_needs(workspace, small_params(), reasons.read_all(workspace, STAGES.values()))}
    assert set(needs) == {"settings", "No Name", "empty", "untrained"}
    assert needs["untrained"].sentence.endswith("the loss is not finite.") and needs["untrained"].remedy == "Train it anew."
    assert "Rename it" in needs["No Name"].remedy and "concept.yaml" in needs["settings"].sentence
    assert needs["empty"].shown == "" and all(needs[name].shown for name in ("settings", "No Name", "untrained"))
    with Image.open(workspace.galleries / needs["No Name"].shown) as picture:
        assert picture.size == (needs["No Name"].width, needs["No Name"].height)
    html = build_index(workspace, small_params(), ["toy", "untrained"]).read_text(encoding="utf-8")
    page = Page(workspace.galleries / "index.html")
    assert html.index("Needs fixing") < html.index('class="overview"')
    assert page.tags().count("h3") == 4 and "1 learnt word," in page.text
    assert str(tmp_path) not in html and str(Path.home()) not in html
    assert build_index(workspace, small_params(), ["toy", "untrained"]).read_text(encoding="utf-8") == html


def test_what_has_been_put_right_goes_and_takes_its_picture_with_it(tmp_path: Path):
    workspace = broken_collection(tmp_path)
    build_index(workspace, small_params(), ["toy"])
    assert len(list((workspace.galleries / "_needs").iterdir())) == 1  # they are of the same pictures
    for name in ("settings", "No Name", "empty", "untrained"):
        shutil.rmtree(workspace.concepts / name)
        for output in (MANIFESTS, EMBEDDINGS):
            reasons.forget(workspace, output, name)
    assert "Needs fixing" not in build_index(workspace, small_params(), ["toy"]).read_text(encoding="utf-8")
    assert list((workspace.galleries / "_needs").iterdir()) == []


def test_a_reason_is_a_sentence_and_what_to_do():
    assert told("damaged. Run `ti-pipeline train --force fox`.") == ("Damaged.", "Run `ti-pipeline train --force fox`.")
    assert told("none of its 2 files can be used") == ("None of its 2 files can be used.", LATER)
    assert told("a.png is 1.5 pixels high. Crop it. Or leave it.") == ("a.png is 1.5 pixels high.", "Crop it. Or leave it.")
