"""The repository's card, and what lies beside the layout that everybody reads."""

from __future__ import annotations

import numpy as np
import yaml
from safetensors.numpy import save_file

from tests.gallery.small_gallery import whole
from tests.words.test_export import exported, picture
from ti_pipeline.words.export import export_of
from ti_pipeline.words.tools import TOOLS


def card(export) -> tuple[dict, str]:
    _, header, text = export.files(TOOLS["sd-concepts"])["ti-fox/README.md"].decode().split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_card_says_what_it_is_whose_and_how_each_tool_takes_it() -> None:
    export = exported("v1", about={"concept": "fox", "generator": "team/model", "steps": "300"})
    header, text = card(export)
    assert header == {
        "library_name": "diffusers", "pipeline_tag": "text-to-image", "license": "cc-by-4.0", "base_model": "team/model",
        "tags": ["textual_inversion", "object"],
    }  # fmt: skip
    assert "`<fox>` is a learnt word (object, 2 vectors), for team/model, in 300 steps." in text
    assert "Owner: Ann" in text and "License: CC BY 4.0" in text
    assert "![](preview.png)\n\n`a <fox> on the moon`" in text and 'pipe.load_textual_inversion("ti-fox")' in text
    files = export.files(TOOLS["sd-concepts"])
    for tool in export.tools:
        if tool.name != "diffusers" and not tool.repository:
            place = "tools/onetrainer/ti-fox.safetensors" if tool.name == "onetrainer" else "tools/ti-fox.safetensors"
            assert f"- {tool.title}: [ti-fox.safetensors]({place}); write `{export.typed(tool)}` {tool.note}" in text
            assert files[f"ti-fox/{place}"] == export.weights(tool)
    assert "How good" not in text


def test_a_licence_that_the_hub_does_not_know_has_a_name_and_one_that_is_not_said_is_left_out() -> None:
    header, text = card(exported("v1", license="For Studio Ö only: *ask*"))
    assert (header["license"], header["license_name"]) == ("other", "for-studio-only-ask") and "For Studio Ö only" in text
    assert "license" not in card(exported("v1", license=""))[0]


def test_a_model_without_other_tools_has_a_repository_without_their_files() -> None:
    assert not [name for name in exported("small").files(TOOLS["sd-concepts"]) if "tools/" in name]


def test_the_card_has_the_scores_of_this_word_and_its_best_pictures(tmp_path) -> None:
    workspace, manifest = whole(tmp_path)
    files = export_of(workspace, manifest, "ti-toy").files(TOOLS["sd-concepts"])
    text = files["ti-toy/README.md"].decode()
    assert "| this word | 0.710 (0.700 to 0.720) | 0.270 (0.260 to 0.280) |" in text and "| the plain word | 0.560" in text
    assert "likeness by a judge, prompts by a CLIP" in text
    assert "![](pictures/1.png)\n\n`a sketch picture of a <toy> on a yellow background`" in text
    best = {path.read_bytes() for path in workspace.candidates("toy").glob("*.png")}
    assert {files["ti-toy/preview.png"], files["ti-toy/pictures/1.png"]} < best and picture() not in best
    save_file({"<toy>": np.zeros((2, 32), np.float32)}, workspace.embedding("toy"))  # what was evaluated is another word by now
    assert export_of(workspace, manifest, "ti-toy").report == {}
