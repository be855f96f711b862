"""The names that exported words have in other tools: the file's, which most tools have people type.

A name that a prompt may hold by chance takes over every prompt that does (A1111), or is refused (kohya asserts). CLIP's vocabulary has
no piece with letters on both sides of a hyphen, so that `ti-fox` is none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from ti_pipeline.errors import ParamsError

PATTERN = "ti-{concept}"
LONGEST = 70  # A1111 looks for a name in 75 tokens, and a digit is one
_PLACE = "{concept}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ONE_PIECE = re.compile(r"[a-z]+|[0-9]")  # only these can be a piece of CLIP's: it cuts between letters, digits and signs
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)


def name_of(concept: str, pattern: str = PATTERN) -> str:
    """What the concept's word is called."""
    return pattern.replace(_PLACE, concept)


def names_for(concepts: Iterable[str], pattern: str = PATTERN) -> dict[str, str]:
    """Each concept's name. Raises ParamsError, with the reason, for one that a tool's reader would trip over, or that two would have."""
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for concept in concepts:
        name = name_of(concept, pattern)
        if reason := refused(name):
            raise ParamsError(f"--name: {concept} would be called {name!r}, {reason}. Choose another, such as `{PATTERN}`.")
        if other := owners.setdefault(name.lower(), concept):
            if other != concept:
                raise ParamsError(
                    f"--name: {other} and {concept} would both be called {name}. Write `{_PLACE}` where the concept's name goes."
                )
        names[concept] = name
    return names


def refused(name: str) -> str:
    """Why a word cannot have this name in other tools; empty when it can."""
    if not _NAME.fullmatch(name):
        return "and a name has only letters, digits, - and _, the first no sign: readers take others for weights, paths or spaces"
    if len(name) > LONGEST:
        return f"which has {len(name)} characters: A1111 looks for a name in 75 tokens, so at most {LONGEST}"
    if _DEVICES.fullmatch(name):
        return "which is no file name on Windows"
    if _ONE_PIECE.fullmatch(name.lower()) and name.lower() in _pieces():
        return (
            "which is in CLIP's vocabulary: A1111 would put the word into every prompt that has this in it, and kohya's scripts refuse it"
        )
    return ""


def check_apart(lengths: Mapping[str, int]) -> None:
    """Raise ParamsError for a name that another word of several vectors needs: kohya numbers them `ti-fox`, `ti-fox1`, `ti-fox2`.

    `lengths` are the vectors of each word, by its name.
    """
    known = {name.lower(): name for name in lengths}
    for name, count in lengths.items():
        for number in range(1, count):
            if other := known.get(f"{name}{number}".lower()):
                raise ParamsError(
                    f"--name: kohya's scripts call the {count} vectors of {name} {name}, {name}1 and so on, and {other} is a word of its "
                    "own. End names in a letter: `--name ti-{concept}-w`."
                )


@cache
def _pieces() -> frozenset[str]:
    from ti_pipeline.generators.clip_tokenizer import clip_tokenizer

    return frozenset(piece.removesuffix("</w>") for piece in clip_tokenizer().get_vocab())
