from __future__ import annotations

import pytest

from tests.stages.one import validate_one
from ti_pipeline.concepts.concept import concept_digest, load_concept
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.concepts.templates import BY_KIND, OBJECT, STYLE
from ti_pipeline.errors import ConceptError
from ti_pipeline.workspace import Workspace


def test_the_paper_has_27_for_objects_and_19_for_styles():
    assert (len(OBJECT), len(set(OBJECT)), len(STYLE)) == (27, 27, 19)
    assert BY_KIND == {"object": OBJECT, "style": STYLE}


def test_each_has_one_place_for_the_word():
    assert all(template.count("{}") == 1 and template.format("x").endswith(" x") for template in OBJECT + STYLE)


def test_a_concepts_own_come_from_a_file_one_a_line(duck, tmp_path, params) -> None:
    workspace, usual = Workspace.at(tmp_path, str(duck.parent)), load_concept(duck)
    assert validate_one(workspace, usual, params).ok
    before = read_manifest(workspace, "duck-toy")
    (duck / "imagenet_templates_small.txt").write_text("a drawing of a {}\r\n\n the  {token} at night \n", encoding="utf-8-sig")
    assert concept_digest(load_concept(duck)) == concept_digest(usual), "a file that nobody names says nothing"
    (duck / "concept.yaml").write_text("templates: imagenet_templates_small.txt\n")
    assert validate_one(workspace, load_concept(duck), params).state == "done"
    manifest = read_manifest(workspace, "duck-toy")
    assert (before.neutral, manifest.neutral) == (OBJECT, ("a drawing of a {}", "the {} at night"))
    assert manifest.training_digest != before.training_digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "own.txt: there is no such file in the folder"),
        (b"", "'nothing' has no place for the learnt word. Write {} where it goes"),
        (b"a photo of a {}\na photo of a duck", "'a photo of a duck' has no place for the learnt word"),
        (b"a {} on {thing}", "a line {thing} means nothing here"),
        (b"a \xe9 {}", "is not UTF-8 text"),
        (b"a {} " + b"and " * 1000, "longer than 2000 characters"),
    ],
)
def test_what_is_wrong_with_them_is_said(text, said, duck) -> None:
    if text is not None:
        (duck / "own.txt").write_bytes(text)
    (duck / "concept.yaml").write_text("templates: own.txt\n")
    with pytest.raises(ConceptError, match="concept.yaml: `templates`: own.txt") as caught:
        load_concept(duck)
    assert said in caught.value.reason
    (duck / "concept.yaml").write_text("templates: ../own.txt\n")
    with pytest.raises(ConceptError, match="`templates`: expected a file of this folder such as templates.txt"):
        load_concept(duck)
