"""Texts that people write about concepts: what may stand in them, and how long and how many they may be.

The bounds are far beyond what makes sense; they are there because anyone may drop a folder into the inbox.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

PLACE = "{token}"
WORD = re.compile(r"<[A-Za-z0-9][A-Za-z0-9_.-]*>")
MOST_VECTORS = 75  # as many words as a Stable Diffusion model reads in a prompt
LONGEST = 2000  # characters of a brief, a caption or a negative prompt
_PLACES = re.compile(r"\{[^{}]*\}")
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # letters after them are shown in another order


def is_control(char: str) -> bool:
    """Whether a character moves the cursor, colours, turns around or breaks what is shown after it, or is half of one."""
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _TURNS


def visible(text: str) -> str:
    """Control characters as Python writes them, so that the text is one line that does nothing to a terminal."""
    return "".join(char.encode("unicode_escape").decode() if is_control(char) else char for char in text)


def cut(text: str) -> str:
    """A text short enough to stand in a reason."""
    return text if len(text) <= 80 else f"{text[:79]}…"


def one_line(text: str) -> str:
    """White space as single spaces. Raises ValueError for a text that is empty or has control characters in it."""
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty; write something or leave it out")
    if found := next(filter(is_control, text), ""):
        raise ValueError(f"has the control character U+{ord(found):04X} in it; take it out")
    return text


def left_out(prompt: str) -> str:
    """The prompt with the placeholder left out and nothing put in its place, as the paper has it."""
    return re.sub(r"\s+", " ", prompt.replace(PLACE, "")).strip()


def check_places(text: str) -> str:
    """Raise ValueError for a place in braces that nothing is put into: it would be drawn as it stands."""
    for place in _PLACES.findall(text):
        if place != PLACE:
            raise ValueError(f"{cut(place)} means nothing here; the learnt word's place is {PLACE}")
    return text


def check_brief(text: str) -> str:
    """Raise ValueError for a brief that has no place for the learnt word, or places that nothing is put into."""
    try:
        check_places(text)
    except ValueError as error:
        raise ValueError(f"in {cut(text)!r} {error}") from None
    if PLACE not in text:
        raise ValueError(f"{cut(text)!r} has no place for the {PLACE}")
    return text


def class_words(text: str) -> str:
    """An initializer in one line. Raises ValueError for what a generator would read letter by letter."""
    text, advice = one_line(text), "(write what it is, such as toy)"
    if found := WORD.search(text):
        raise ValueError(f"{found.group()} is a learnt word, and a word starts from plain ones {advice}")
    for word in text.split():
        if re.search(r"\.\w", word) or not any(map(str.isalnum, word)) or not all(map(_spells, word)):
            raise ValueError(f"{word!a} is no word {advice}")
    return text


def plain_words(most: int) -> Callable[[str], str]:
    """A check for a text of at most `most` words that names no learnt word and has no place for one: it stands for the word."""

    def check(text: str) -> str:
        if found := WORD.search(text) or _PLACES.search(text):
            raise ValueError(f"{cut(found.group())} stands for a learnt word, and this text is read in its place; say what it is")
        if (count := len(text.split())) > most:
            raise ValueError(f"has {count} words; write at most {most}")
        return text

    return check


def _spells(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN" or char in "-'’.,_"


Line = Annotated[str, Field(max_length=500), AfterValidator(one_line)]
ClassWords = Annotated[str, Field(max_length=100), AfterValidator(class_words)]
Prompt = Annotated[str, Field(max_length=LONGEST), AfterValidator(check_places), AfterValidator(one_line)]
