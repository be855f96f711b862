from __future__ import annotations

import os

import pytest

from ti_pipeline.concepts.concept import SLUG, concept_digest, discover, load_concept, suggest_slug
from ti_pipeline.errors import ConceptError, ParamsError


def test_a_bare_folder_is_a_concept(duck):
    concept = load_concept(duck)
    assert (concept.slug, concept.token, concept.kind, concept.initializer) == ("duck-toy", "<duck-toy>", "object", None)
    assert concept.captions == {} and concept.briefs == ()


def test_everything_that_concept_yaml_may_say(duck):
    (duck / "concept.yaml").write_text(
        """
        token: <duck>
        initializer: rubber   duck
        kind: style
        owner: Ann
        license: CC BY 4.0
        captions:
          00.jpg: a {token} on wood
        briefs:
          - a {token} in rain
          - a <duck> beside a <cat>
        """,
        encoding="utf-8",
    )
    concept = load_concept(duck)
    assert (concept.token, concept.initializer, concept.kind) == ("<duck>", "rubber duck", "style")
    assert concept.captions == {"00.jpg": "a {token} on wood"}
    assert concept.briefs == ("a {token} in rain", "a <duck> beside a <cat>")
    assert (concept.owner, concept.license) == ("Ann", "CC BY 4.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("initialiser: cat", ["`initialiser`", "did you mean `initializer`"]),
        ("kind: thing", ["`kind`", "'object' or 'style'"]),
        ("initializer: yes", ["`initializer`", "quotes"]),
        ("initializer: ''", ["`initializer`", "empty"]),
        ("owner: 7", ["`owner`", "quotes"]),
        ("token: my duck", ["`token`", "angle brackets"]),
        ('token: "<duck>\\n"', ["`token`", "angle brackets"]),
        ("briefs: a photo of {token}", ["`briefs`", "list"]),
        ("briefs: [a photo of a duck]", ["`briefs`", "{token}"]),
        ("briefs: ['a {tokn}']", ["briefs.0", "{tokn}"]),
        ("captions: {01.jgp: a duck}", ["`captions`", "Did you mean 01.jpg"]),
        ("captions: {elephant.png: a duck}", ["`captions`", "no elephant.png"]),
        ("- a\n- b", ["list"]),
        ("owner: Ann\nkind: [object", ["not valid YAML", "line 2"]),
        ("a: &a [*a]", ["`a`"]),
        ("briefs: &a [*a]", ["`briefs"]),
        ("[" * 1000, ["not valid YAML"]),
        ("owner: 2024-99-99 00:00:00", ["concept.yaml"]),
    ],
)
def test_a_bad_concept_yaml_says_file_key_and_what_to_do(text, expected, duck):
    (duck / "concept.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConceptError) as caught:
        load_concept(duck)
    assert caught.value.concept == "duck-toy"
    assert "concept.yaml" in caught.value.reason and len(caught.value.reason) < 500
    for part in expected:
        assert part in caught.value.reason


def test_concept_yaml_that_is_no_such_file(duck, tmp_path):
    (duck / "concept.yml").write_text("kind: style")
    with pytest.raises(ConceptError, match="Rename"):
        load_concept(duck)
    (duck / "concept.yml").unlink()
    (duck / "concept.yaml").write_bytes(b"owner: J\xf6rg")
    with pytest.raises(ConceptError, match="UTF-8"):
        load_concept(duck)
    (duck / "concept.yaml").unlink()
    (tmp_path / "secret.yaml").write_text("password: hunter2")
    (duck / "concept.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(ConceptError, match="outside the set") as caught:
        load_concept(duck)
    assert "hunter2" not in caught.value.reason
    (duck / "concept.yaml").unlink()
    (duck / "concept.yaml").mkdir()
    with pytest.raises(ConceptError, match="is a folder"):
        load_concept(duck)


def test_an_empty_concept_yaml_is_none(duck):
    (duck / "concept.yaml").write_text("# nothing yet\n")
    assert load_concept(duck).kind == "object"


def test_captions_beside_the_pictures_and_the_yaml_goes_first(duck):
    (duck / "00.txt").write_text("a {token}\n on a table\n", encoding="utf-8")
    (duck / "01.jpg.txt").write_text("\ufeffa duck", encoding="utf-8")
    (duck / "02.txt").write_text(" \n")
    (duck / "README.txt").write_text("no caption {at all}")
    (duck / "concept.yaml").write_text("captions:\n  01.jpg: from the yaml\n")
    assert load_concept(duck).captions == {"00.jpg": "a {token} on a table", "01.jpg": "from the yaml"}
    (duck / "03.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConceptError, match="03.txt"):
        load_concept(duck)


def test_captions_find_accents_however_they_are_spelt(duck):
    (duck / "00.jpg").rename(duck / "e\u0301.jpg")
    (duck / "concept.yaml").write_text("captions: {\u00e9.jpg: a duck}", encoding="utf-8")
    assert load_concept(duck).captions == {"e\u0301.jpg": "a duck"}


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("My Duck!", "my-duck"), ("Ente größe", "ente-groe"), ("-x", "x"), ("_a", "a"), ("猫", "concept"), ("a" * 90, "a" * 64), ("a\n", "a")],
)
def test_a_folder_name_that_is_no_slug_comes_with_a_suggestion(name, suggestion, folder):
    with pytest.raises(ConceptError) as caught:
        load_concept(folder(name))
    assert f"`{suggestion}`" in caught.value.reason
    assert SLUG.fullmatch(suggest_slug(name))


def test_discover_sorts_and_separates_the_bad(duck, folder):
    folder("b-style", concept="kind: style")
    folder("a-bad", concept="kind: nothing")
    folder("Bad Name")
    folder(".hidden")
    folder("__MACOSX")
    (duck.parent / "LICENSE.md").write_text("")
    concepts, errors = discover(duck.parent)
    assert [concept.slug for concept in concepts] == ["b-style", "duck-toy"]
    assert [error.concept for error in errors] == ["Bad Name", "a-bad"]


def test_discover_by_name(duck, folder):
    folder("bad", concept="kind: nothing")
    concepts, errors = discover(duck.parent, ["duck-toy"])
    assert [concept.slug for concept in concepts] == ["duck-toy"] and errors == []
    concepts, errors = discover(duck.parent, ["bad"])
    assert concepts == [] and [error.concept for error in errors] == ["bad"]
    with pytest.raises(ParamsError, match="Did you mean duck-toy"):
        discover(duck.parent, ["duck-toi"])
    with pytest.raises(ParamsError, match="no such concept"):
        discover(duck.parent, ["../secrets"])


def test_discover_where_there_is_nothing(duck, tmp_path):
    with pytest.raises(ParamsError, match="No such file"):
        discover(tmp_path / "nowhere")
    with pytest.raises(ParamsError, match="give the folder above it"):
        discover(duck)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParamsError, match="nothing"):
        discover(tmp_path / "empty")


def test_two_concepts_cannot_have_one_word(duck, folder):
    folder("other", concept="token: <Duck-Toy>")
    folder("third")
    concepts, errors = discover(duck.parent)
    assert [concept.slug for concept in concepts] == ["third"]
    assert [error.concept for error in errors] == ["duck-toy", "other"] and "duck-toy" in errors[1].reason


def test_a_folder_name_that_is_no_utf8_can_be_printed(duck):
    os.mkdir(os.fsencode(duck.parent) + b"/caf\xe9")
    _, errors = discover(duck.parent)
    assert str(errors[0]).encode("utf-8").startswith(b"caf\\xe9")


def test_the_digest_is_of_the_settings_and_not_of_the_place(duck, tmp_path):
    first = concept_digest(load_concept(duck))
    (tmp_path / "elsewhere").mkdir()
    moved = duck.rename(tmp_path / "elsewhere" / "duck-toy")
    assert concept_digest(load_concept(moved)) == first
    (moved / "concept.yaml").write_text("owner: Ann")
    assert concept_digest(load_concept(moved)) != first
