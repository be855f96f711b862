"""What a page hands out of a word: for each tool that can use it the files that the command writes, equal ones once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gallery.page_parser import Page
from tests.gallery.small_gallery import add_candidates, copied, make_workspace, small_params
from tests.stages.one import build_page
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.words.export import export_of, write_export
from ti_pipeline.words.tools import TOOLS


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_those_of_the_command_and_equal_ones_lie_there_once(tmp_path: Path):
    workspace = make_workspace(tmp_path, width=768)
    add_candidates(workspace)
    manifest, params = read_manifest(workspace, "toy"), small_params()
    build_page(workspace, manifest, params)
    folder = copied(workspace, tmp_path) / "toy"
    about = json.loads((folder / "page.json").read_text())
    export = export_of(workspace, manifest, "ti-toy")
    assert [each["tool"] for each in about["word"]] == [tool.name for tool in export.tools] == list(TOOLS)
    for each in about["word"]:
        tool = TOOLS[each["tool"]]
        write_export(export, tool, tmp_path / tool.name)
        assert {name: (folder / place).read_bytes() for name, place in each["files"].items()} == below(tmp_path / tool.name)
        assert (each["line"], each["typed"]) == (export.line(tool), export.typed(tool))
    places = {place for each in about["word"] for place in each["files"].values()}
    weights = {place for place in places if place.endswith("/ti-toy.safetensors") and "tools" not in place}
    assert weights == {"word/ti-toy.safetensors", "word/onetrainer/ti-toy.safetensors"}
    assert places | {f"{place}.js" for place in places} == {name for name in about["files"] if name.startswith("word/")}
    page = Page(folder / "index.html")
    assert page.text.count("embedding:ti-toy") == 1 and "then write <ti-toy>" not in page.text and "<embed:ti-toy>" in page.text
    assert {link for link in page.links() if link.startswith("word/")} == {
        place for place in places if not place.startswith("word/ti-toy/")
    }


def test_a_second_build_has_the_same_bytes_and_another_word_leaves_nothing_of_the_first(tmp_path: Path):
    workspace = make_workspace(tmp_path, width=768)
    add_candidates(workspace)
    manifest, params = read_manifest(workspace, "toy"), small_params()
    build_page(workspace, manifest, params)
    first = below(workspace.galleries / "toy")
    build_page(workspace, manifest, params, force=True)
    assert below(workspace.galleries / "toy") == first
    make_workspace(tmp_path / "other", width=1280)
    workspace.embedding("toy").write_bytes((tmp_path / "other" / workspace.embedding("toy").relative_to(tmp_path)).read_bytes())
    build_page(workspace, manifest, params)
    assert not [name for name in below(workspace.galleries / "toy") if name.startswith("word/")]
    assert "No tool is known that reads words of this model" in Page(workspace.galleries / "toy" / "index.html").text
