from __future__ import annotations

from ti_pipeline.concepts.templates import BY_KIND, OBJECT, STYLE


def test_the_paper_has_27_for_objects_and_19_for_styles():
    assert (len(OBJECT), len(set(OBJECT)), len(STYLE)) == (27, 27, 19)
    assert BY_KIND == {"object": OBJECT, "style": STYLE}


def test_each_has_one_place_for_the_word():
    assert all(template.count("{}") == 1 and template.format("x").endswith(" x") for template in OBJECT + STYLE)
