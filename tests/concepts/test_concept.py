from __future__ import annotations

import os
from itertools import pairwise

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
        (f"human_captions: {{short: {'a ' * 12}duck}}", ["human_captions.short", "at most 12"]),
        (f"human_captions: {{long: {'a ' * 30}duck}}", ["human_captions.long", "at most 30"]),
        ("- a\n- b", ["list"]),
        ("owner: Ann\nkind: [object", ["cannot be read as YAML", "line 2"]),
        ("[" * 1000, ["nested"]),
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


NINE, LETTERS = ", ".join(["*%s"] * 9), list(pairwise("abcdefghij"))
HOSTILE = {
    "numbers": ("vectors: 1000000000", "`vectors`"),
    "steps": ("steps: 1000000000000", "`steps`"),
    "a number that Python does not write": (f"steps: 0x{'f' * 20_000}", "`steps`"),
    "a number to the base of 60": (f"steps: {':'.join(['1'] * 5_000)}.5", "cannot be read"),
    "merge keys": ("a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{<<: [{NINE % ((a,) * 9)}]}}\n" for a, b in LETTERS), "aliases"),
    "a merge key without an alias": ("<<: {token: <cat>}", "merge keys"),
    "aliases": ("a: &a [x]\n" + "".join(f"{b}: &{b} [{NINE % ((a,) * 9)}]\n" for a, b in LETTERS), "aliases"),
    "an alias of itself": ("briefs: &a [*a]", "aliases"),
    "nesting": ("briefs: " + "[" * 50_000, "nested more than 8 deep"),
    "nested blocks": ("- " * 30_000, "nested more than 8 deep"),
    "many briefs": ("briefs:\n" + "- a {token}\n" * 5_000, "at most 100"),
    "a large file": ("briefs:\n" + "- a {token}\n" * 100_000, "64 KiB"),
    "many unknown keys": ("".join(f"k{i}: 1\n" for i in range(5_000)), "and 4997 more"),
    "a long key": (f"? {'k' * 50_000}\n: 1", "no such key"),
    "a long caption": (f"captions: {{00.jpg: {'a ' * 3_000}}}", "longer than 2000 characters"),
    "a caption for a long name": (f"captions:\n  ? {'k' * 50_000}\n  : a duck", "longer than 255"),
    "a long initializer": (f"initializer: {'duck ' * 30}", "longer than 100 characters"),
    "an escape sequence": ('owner: "\\e[31mAnn"', "U+001B"),
    "half a character": ('owner: "\\ud800"', "`owner`"),
    "letters turned around": ('license: "MIT \\u202e"', "U+202E"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_cost_everybody_the_night_is_refused_by_name_and_at_once(name, duck, folder):
    text, expected = HOSTILE[name]
    (duck / "concept.yaml").write_text(text, encoding="utf-8")
    folder("other")
    concepts, errors = discover(duck.parent)
    assert [concept.slug for concept in concepts] == ["other"]
    assert [error.concept for error in errors] == ["duck-toy"]
    assert expected in errors[0].reason and len(errors[0].reason) < 700


def test_the_bounds_leave_room_for_what_makes_sense(duck):
    briefs = "".join(f"- a {{token}} {i}\n" for i in range(100))
    (duck / "concept.yaml").write_text(f"vectors: 75\nsteps: 20000\nbriefs:\n{briefs}", encoding="utf-8")
    concept = load_concept(duck)
    assert (concept.vectors, concept.steps, len(concept.briefs)) == (75, 20_000, 100)


def test_no_more_is_read_of_a_caption_than_makes_sense(duck):
    with (duck / "00.txt").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on the disk, and none in memory either
    with pytest.raises(ConceptError, match="00.txt: larger than 64 KiB"):
        load_concept(duck)
    (duck / "00.txt").write_text("a " * 3000)
    with pytest.raises(ConceptError, match=r"00.txt: the caption is longer than 2000 characters"):
        load_concept(duck)
    (duck / "00.txt").write_text("a {token} \x1b[2J")
    with pytest.raises(ConceptError, match=r"00.txt: the caption has the control character U\+001B"):
        load_concept(duck)


@pytest.mark.parametrize("words", ["toy", "rubber duck", "Gänseblümchen", "猫", "teddy-bear", "St. Bernard", "king's crown", "हिन्दी"])
def test_an_initializer_in_words(words, duck):
    (duck / "concept.yaml").write_text(f'initializer: "{words}"', encoding="utf-8")
    assert load_concept(duck).initializer == words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("<plain>", "<plain> is a learnt word"),
        ("toy <plain>", "<plain> is a learnt word"),
        (r"\u200b", "is no word"),
        (r"\U0001f436", "is no word"),
        ("toy -", "'-' is no word"),
        ("../plain/learned_embeds.safetensors", "is no word"),
        ("learned_embeds.bin", "is no word"),
        ("{token}", "is no word"),
    ],
)
def test_an_initializer_that_would_be_learnt_from_its_letters(words, expected, duck):
    (duck / "concept.yaml").write_text(f'initializer: "{words}"', encoding="utf-8")
    with pytest.raises(ConceptError, match="`initializer`") as caught:
        load_concept(duck)
    assert expected in caught.value.reason and "such as toy" in caught.value.reason


def test_a_caption_that_names_another_learnt_word(duck):
    (duck / "00.txt").write_text("a {token} beside a <Duck-Toy>")
    assert load_concept(duck).captions
    (duck / "01.txt").write_text("a {token} beside a <cat>")
    with pytest.raises(ConceptError, match="the caption of 01.jpg names <cat>"):
        load_concept(duck)


def test_a_brief_may_spell_the_own_word_in_any_case(duck):
    (duck / "concept.yaml").write_text("briefs: [a <Duck-Toy> at sea]", encoding="utf-8")
    assert load_concept(duck).briefs == ("a <Duck-Toy> at sea",)
